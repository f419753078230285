/*
 * Real processes, see procs.h.
 */
#include "tests/procs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/harness.h"

#define START_MS 30000
#define COMMAND_MS 120000

extern char **environ;

/* Children and who started them: Check forks, and a test's exit must not kill its parent's daemons.
 */
static struct {
    pid_t pid, owner;
} running[64];

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void kill_all(void)
{
    for (size_t i = 0; i < sizeof running / sizeof running[0]; i++)
        if (running[i].pid > 0 && running[i].owner == getpid())
            kill(running[i].pid, SIGKILL);
}

static void remember(pid_t pid, bool add)
{
    static bool registered;
    if (!registered)
        registered = atexit(kill_all) == 0;
    for (size_t i = 0; i < sizeof running / sizeof running[0]; i++)
        if (running[i].pid == (add ? 0 : pid)) {
            running[i].pid = add ? pid : 0;
            running[i].owner = getpid();
            return;
        }
}

const char *program_path(const char *name)
{
    static char path[4200];
    const char *build = getenv("WEFT_BUILD_DIR");
    snprintf(path, sizeof path, "%s/%s", build != NULL ? build : "build/release", name);
    return path;
}

static pid_t spawn(const char *const argv[], int in, int out, int err, const char *const env[])
{
    char *all[512];
    size_t n = 0;
    for (size_t i = 0; environ[i] != NULL && n < 400; i++)
        if (strncmp(environ[i], "WEFT_", 5) != 0) /* a person's settings must not change a test */
            all[n++] = environ[i];
    for (size_t i = 0; env != NULL && env[i] != NULL && n < 500; i++)
        all[n++] = (char *)env[i];
    all[n] = NULL;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, 0);
    posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_adddup2(&actions, err, 2);
    pid_t pid = -1;
    int errnum = posix_spawn(&pid, argv[0], &actions, NULL, (char **)argv, all);
    posix_spawn_file_actions_destroy(&actions);
    ck_assert_msg(errnum == 0, "%s: %s", argv[0], strerror(errnum));
    remember(pid, true);
    return pid;
}

static char *slurp(const char *path, size_t *ret_size)
{
    FILE *f = fopen(path, "rb");
    struct stat st;
    ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
    ck_assert(fstat(fileno(f), &st) == 0);
    char *text = malloc((size_t)st.st_size + 1);
    ck_assert_ptr_nonnull(text);
    size_t n = fread(text, 1, (size_t)st.st_size, f);
    text[n] = '\0';
    fclose(f);
    if (ret_size != NULL)
        *ret_size = n;
    return text;
}

static void nap(void)
{
    struct timespec ts = {.tv_nsec = 2000000};
    nanosleep(&ts, NULL);
}

int command_wait(pid_t pid, unsigned timeout_ms)
{
    int64_t end = now_ms() + timeout_ms;
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (now_ms() > end) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            remember(pid, false);
            return -1;
        }
        nap();
    }
    remember(pid, false);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void command_said(pid_t pid, const char *err_path, const char *words)
{
    const int64_t end = now_ms() + COMMAND_MS;
    for (;;) {
        siginfo_t info = {0};
        /* looked at before its words: what it said at last counts; the end stays for waitpid */
        const bool ended =
            waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
        char *text = slurp(err_path, NULL);
        const bool said = strstr(text, words) != NULL;
        ck_assert_msg(said || (!ended && now_ms() < end), "waited for '%s', found '%s'", words,
                      text);
        free(text);
        if (said)
            return;
        nap();
    }
}

const char *temp_file(const char *name, const void *data, size_t size)
{
    static char paths[8][4200];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", weft_test_tmpdir(), name);
    FILE *f = fopen(path, "wb");
    ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
    ck_assert(size == 0 || fwrite(data, 1, size, f) == size);
    ck_assert(fclose(f) == 0);
    return path;
}

void daemon_start(struct daemon_proc *d, const char *name, const char *isa, const char *extra)
{
    char yaml[2048], port_path[4200], file[64];
    memset(d, 0, sizeof *d);
    snprintf(d->name, sizeof d->name, "%s", name);
    snprintf(yaml, sizeof yaml, "name: %s\nlisten: 127.0.0.1:0\nthreads: 1\n%s%s%s%s", name,
             isa != NULL ? "isa: " : "", isa != NULL ? isa : "", isa != NULL ? "\n" : "",
             extra != NULL ? extra : "");
    snprintf(file, sizeof file, "%s.yaml", name);
    char config[4200];
    snprintf(config, sizeof config, "%s", temp_file(file, yaml, strlen(yaml)));
    snprintf(port_path, sizeof port_path, "%s/%s.port", weft_test_tmpdir(), name);
    snprintf(d->log, sizeof d->log, "%s/%s.log", weft_test_tmpdir(), name);
    unlink(port_path);
    int log = open(d->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    ck_assert(log >= 0 && null >= 0);
    char weftd[4200];
    snprintf(weftd, sizeof weftd, "%s", program_path("weftd"));
    const char *argv[] = {weftd, "-c", config, "--port-file", port_path, NULL};
    d->pid = spawn(argv, null, null, log, NULL);
    close(log);
    close(null);
    int64_t end = now_ms() + START_MS;
    while (access(port_path, R_OK) != 0) {
        ck_assert_msg(now_ms() < end && waitpid(d->pid, NULL, WNOHANG) == 0,
                      "weftd %s did not start: %s", name, slurp(d->log, NULL));
        nap();
    }
    char *port = slurp(port_path, NULL);
    d->port = (unsigned)strtoul(port, NULL, 10);
    free(port);
    ck_assert_uint_gt(d->port, 0);
}

int daemon_stop(struct daemon_proc *d)
{
    if (d->pid <= 0)
        return 0;
    kill(d->pid, SIGTERM);
    int status = command_wait(d->pid, START_MS);
    if (status != 0) {
        char *log = slurp(d->log, NULL);
        fprintf(stderr, "weftd %s ended with %d:\n%s\n", d->name, status, log);
        free(log);
    }
    d->pid = 0;
    return status;
}

pid_t command_start(const char *const argv[], int *ret_in, int *ret_out, char *err_path)
{
    static unsigned number;
    int fds[2], in[2];
    char weft[4200];
    snprintf(weft, sizeof weft, "%s", program_path("weft"));
    const char *all[64] = {weft};
    for (size_t i = 0; i < 62 && argv[i] != NULL; i++)
        all[i + 1] = argv[i];
    snprintf(err_path, 4200, "%s/command%u.err", weft_test_tmpdir(), ++number);
    ck_assert(pipe2(fds, O_CLOEXEC) == 0);
    ck_assert(pipe2(in, O_CLOEXEC) == 0);
    int err = open(err_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert(err >= 0);
    pid_t pid = spawn(all, in[0], fds[1], err, NULL);
    close(fds[1]);
    close(in[0]);
    close(err);
    *ret_in = in[1];
    *ret_out = fds[0];
    return pid;
}

void command_run(struct command *c, const char *const argv[], const char *input,
                 const char *const env[])
{
    char weft[4200];
    snprintf(weft, sizeof weft, "%s", program_path("weft"));
    const char *all[64] = {weft};
    for (size_t i = 0; i < 62 && argv[i] != NULL; i++)
        all[i + 1] = argv[i];
    program_run(c, all, input, env);
}

void program_run(struct command *c, const char *const argv[], const char *input,
                 const char *const env[])
{
    char out_path[4200], err_path[4200], in_path[4200];
    snprintf(in_path, sizeof in_path, "%s",
             temp_file("in", input, input != NULL ? strlen(input) : 0));
    snprintf(out_path, sizeof out_path, "%s", temp_file("out", NULL, 0));
    snprintf(err_path, sizeof err_path, "%s", temp_file("err", NULL, 0));
    int in = open(in_path, O_RDONLY | O_CLOEXEC);
    int out = open(out_path, O_WRONLY | O_CLOEXEC), err = open(err_path, O_WRONLY | O_CLOEXEC);
    ck_assert(in >= 0 && out >= 0 && err >= 0);
    pid_t pid = spawn(argv, in, out, err, env);
    close(in);
    close(out);
    close(err);
    c->status = command_wait(pid, COMMAND_MS);
    c->out = slurp(out_path, &c->out_size);
    c->err = slurp(err_path, &c->err_size);
}

void command_done(struct command *c)
{
    free(c->out);
    free(c->err);
    memset(c, 0, sizeof *c);
}

const char *cluster_yaml(const char *model, const struct daemon_proc *d, size_t n,
                         const char *extra)
{
    char text[8192];
    size_t used =
        (size_t)snprintf(text, sizeof text, "model: %s\nsampling:\n  temperature: 0\n%sdevices:\n",
                         model, extra != NULL ? extra : "");
    for (size_t i = 0; i < n; i++)
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "  - name: %s\n    address: 127.0.0.1:%u\n", d[i].name, d[i].port);
    return temp_file("cluster.yaml", text, used);
}
