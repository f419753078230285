/*
 * Private daemon, see private_daemon.h. The child writes "port N" to a pipe once it listens.
 */
#include "coordinator/private_daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_MS 10000
#define STOP_MS 2000

extern char **environ;

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* WEFT_WEFTD, else "weftd" in this program's directory, else the name alone for PATH. */
static void find_program(char *path, size_t n)
{
    const char *env = getenv("WEFT_WEFTD");
    if (env != NULL && env[0] != '\0') {
        snprintf(path, n, "%s", env);
        return;
    }
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof self - 1);
    self[len > 0 ? len : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL) {
        *slash = '\0';
        if ((size_t)snprintf(path, n, "%s/weftd", self) < n && access(path, X_OK) == 0)
            return;
    }
    snprintf(path, n, "weftd");
}

/* Reads "port N\n"; the pipe ends early when the child failed (its own message is on stderr). */
static int read_port(int fd, const char *program, unsigned *ret_port, weft_err *err)
{
    char line[64];
    size_t n = 0;
    int64_t end = now_ms() + START_MS;
    while (n < sizeof line - 1) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        int64_t left = end - now_ms();
        int r = left > 0 ? poll(&pfd, 1, (int)left) : 0;
        if (r < 0 && errno == EINTR)
            continue;
        if (r == 0)
            return weft_fail(err, WEFT_EUNREACHABLE, "%s did not listen within %d s", program,
                             START_MS / 1000);
        ssize_t got = read(fd, line + n, 1);
        if (got <= 0)
            return weft_fail(err, WEFT_EUNREACHABLE, "%s ended before it listened", program);
        if (line[n++] == '\n')
            break;
    }
    line[n] = '\0';
    if (sscanf(line, "port %u", ret_port) != 1 || *ret_port == 0 || *ret_port > 65535)
        return weft_fail(err, WEFT_EUNREACHABLE, "%s: found '%.*s', expected 'port N'", program,
                         (int)(n > 0 ? n - 1 : 0), line);
    return 0;
}

int weft_private_daemon_start(uint32_t threads, int *ret_pid, char *address, size_t n,
                              weft_err *err)
{
    char program[4200], count[16];
    int fds[2] = {-1, -1};
    unsigned port = 0;
    find_program(program, sizeof program);
    snprintf(count, sizeof count, "%u", threads);
    char *argv[] = {program, (char *)"--private", (char *)"--threads", count, NULL};
    if (threads == 0)
        argv[2] = NULL; /* weftd takes all cores */

    if (pipe2(fds, O_CLOEXEC) < 0)
        return weft_fail_errno(err, errno, "pipe");
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t defaults;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_adddup2(&actions, fds[1], 1);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    /* A group of its own: Ctrl-C is for the coordinator, which ends the daemon in order. */
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
    pid_t pid = -1;
    int errnum = posix_spawnp(&pid, program, &actions, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    close(fds[1]);
    if (errnum != 0) {
        close(fds[0]);
        return weft_fail(err, WEFT_EUNREACHABLE, "cannot start %s: %s (WEFT_WEFTD names another)",
                         program, strerror(errnum));
    }
    int r = read_port(fds[0], program, &port, err);
    close(fds[0]);
    if (r < 0) {
        weft_private_daemon_stop(pid);
        return r;
    }
    snprintf(address, n, "127.0.0.1:%u", port);
    *ret_pid = pid;
    return 0;
}

void weft_private_daemon_stop(int pid)
{
    int64_t end = now_ms() + STOP_MS;
    kill(pid, SIGTERM);
    while (waitpid(pid, NULL, WNOHANG) == 0) {
        if (now_ms() > end) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            return;
        }
        struct timespec nap = {.tv_nsec = 2000000};
        nanosleep(&nap, NULL);
    }
}
