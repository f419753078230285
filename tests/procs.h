/*
 * Real processes for end-to-end tests: daemons on ports that the system chooses, commands with
 * their output and exit code, cluster files for them. Everything is below weft_test_tmpdir();
 * daemons that are left are killed at exit.
 */
#ifndef WEFT_TESTS_PROCS_H
#define WEFT_TESTS_PROCS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PROCS_DAEMONS_MAX 4

struct daemon_proc {
    pid_t pid;
    unsigned port;
    char name[16];
    char log[4200]; /* path of its stderr */
};

/* Starts weftd NAME with one thread and `extra` lines of weftd.yaml (may be NULL); waits until it
 * listens. `isa`: a kernel table, NULL for the best. Fails the test when it does not start. */
void daemon_start(struct daemon_proc *d, const char *name, const char *isa, const char *extra);
/* Ends it with SIGTERM and returns its exit status as of waitpid (a sanitizer's complaint is not
 * 0). */
int daemon_stop(struct daemon_proc *d);

struct command {
    int status;      /* exit code; 128 + signal; -1: killed after the time-out */
    char *out, *err; /* 0-terminated, malloc'ed */
    size_t out_size, err_size;
};

/* Runs build/…/weft (argv[0] is set by it) to its end, 120 s at most; `input` (may be NULL) is its
 * stdin; env is a NULL-terminated list of "NAME=VALUE" to add (may be NULL). */
void command_run(struct command *c, const char *const argv[], const char *input,
                 const char *const env[]);
/* The same for another program, whose path is argv[0]. */
void program_run(struct command *c, const char *const argv[], const char *input,
                 const char *const env[]);
/* The path of a program of this build tree: "weft", "tests/tool_model" (static). */
const char *program_path(const char *name);
void command_done(struct command *c);
/* Starts without waiting; *ret_out is a pipe with its stdout (close it), stderr goes to a file
 * whose path is put into err_path (4200 bytes). */
pid_t command_start(const char *const argv[], int *ret_in, int *ret_out, char *err_path);
/* Waits until its stderr has the words; fails the test after 120 s or when it ended without. */
void command_said(pid_t pid, const char *err_path, const char *words);
/* Waits for the end; as command.status. */
int command_wait(pid_t pid, unsigned timeout_ms);

/* Writes a cluster file for n daemons into the temporary directory and returns its path (static).
 * `extra`: more lines (stages, kv, …). */
const char *cluster_yaml(const char *model, const struct daemon_proc *d, size_t n,
                         const char *extra);
/* Writes a text file there; returns its path (static, one of eight). */
const char *temp_file(const char *name, const void *data, size_t size);

#endif
