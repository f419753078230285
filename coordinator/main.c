/*
 * weft: the command line. Makes the app over libuv and runs one command; everything else is in the
 * commands.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "coordinator/app.h"
#include "coordinator/output.h"
#include "proto/io_uv.h"

/* A line of chat longer than this is refused by the context anyway; its rest is passed over. */
#define LINE_MAX_BYTES (1u << 20)

struct weft_app_uv {
    struct weft_app *app;
    uv_loop_t loop;
    struct weft_io_uv *io;
    uv_signal_t sigint, sigterm;
    uv_async_t output_failed;
    uv_poll_t input;
    uv_idle_t input_file; /* stdin that cannot be polled: a regular file */
    bool input_open, input_polled, wants_line, delivering, input_ended, overlong, stopped,
        interrupted;
    struct weft_str line;
    int code;
};

static void app_stop(struct weft_app *app, int code)
{
    app->uv->stopped = true;
    app->uv->code = code;
}

/* ------------------------------------------------------------------ interrupts */

/* Before the loop runs (files are read, perhaps a terminal) nothing has to be put in order. */
static void leave(int signum)
{
    (void)signum;
    _exit(WEFT_EXIT_INTERRUPTED);
}

/* First: the command decides, or everything is broken off. Second: the end, at once. */
static void on_signal(uv_signal_t *handle, int signum)
{
    struct weft_app_uv *u = handle->data;
    struct weft_app *app = u->app;
    if (app->closing || u->interrupted)
        _exit(WEFT_EXIT_INTERRUPTED);
    if (signum == SIGINT && app->interrupted != NULL) {
        app->interrupted(app);
        return;
    }
    u->interrupted = true;
    app->exit_code = WEFT_EXIT_INTERRUPTED;
    if (app->cluster != NULL)
        weft_cluster_interrupt(app->cluster);
    weft_app_close_cluster(app, WEFT_EXIT_INTERRUPTED);
}

static int app_loop(struct weft_app *app)
{
    struct weft_app_uv *u = app->uv;
    uv_signal_start(&u->sigint, on_signal, SIGINT);
    uv_signal_start(&u->sigterm, on_signal, SIGTERM);
    while (!u->stopped && uv_run(&u->loop, UV_RUN_ONCE) != 0)
        ;
    u->stopped = false; /* weft bench comes here once for each number of threads */
    return u->code;
}

static void output_failed(void *arg)
{
    struct weft_app_uv *u = arg;
    uv_async_send(&u->output_failed);
}

/* Nobody reads, or nothing more fits: the answer ends and the daemons are released. main tells why.
 */
static void on_output_failed(uv_async_t *handle)
{
    struct weft_app_uv *u = handle->data;
    weft_app_close_cluster(u->app, WEFT_EXIT_INTERNAL);
}

/* ------------------------------------------------------------------ stdin */

/* A whole line, or the end. */
static bool has_line(const struct weft_app_uv *u)
{
    return u->input_ended || (u->line.size > 0 && memchr(u->line.data, '\n', u->line.size) != NULL);
}

/* Hands over one line if there is one; the rest waits for the next read_line. */
static bool deliver_line(struct weft_app_uv *u)
{
    char *end = u->line.size > 0 ? memchr(u->line.data, '\n', u->line.size) : NULL;
    size_t n = end != NULL ? (size_t)(end - u->line.data) : u->line.size;
    if (end == NULL && !u->input_ended && u->line.size < LINE_MAX_BYTES)
        return false;
    u->wants_line = false;
    u->overlong = end == NULL && !u->input_ended;
    if (end == NULL && u->line.size == 0) {
        u->app->line(u->app, NULL, 0);
        return true;
    }
    char *text = strndup(u->line.data, n);
    size_t used = n + (end != NULL);
    memmove(u->line.data, u->line.data + used, u->line.size - used + 1);
    u->line.size -= used;
    if (text != NULL && end != NULL && n > 0 && text[n - 1] == '\r') /* of a file from elsewhere */
        text[n - 1] = '\0';
    u->app->line(u->app, text != NULL ? text : "", text != NULL ? strlen(text) : 0);
    free(text);
    return true;
}

/* Lines that are asked for while one is handed over come behind it, not within: thousands of empty
 * ones would fill the stack. */
static bool deliver(struct weft_app_uv *u)
{
    u->delivering = true;
    const bool any = deliver_line(u);
    while (u->wants_line && has_line(u))
        deliver_line(u);
    u->delivering = false;
    return any;
}

static void stop_input(struct weft_app_uv *u)
{
    if (u->input_polled)
        uv_poll_stop(&u->input);
    else
        uv_idle_stop(&u->input_file);
}

static void read_some(struct weft_app_uv *u)
{
    char buffer[4096];
    ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer), from = 0;
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n > 0 && u->overlong) {
        const char *end = memchr(buffer, '\n', (size_t)n);
        from = end != NULL ? end + 1 - buffer : n;
        u->overlong = end == NULL;
    }
    if (n > 0)
        weft_str_add(&u->line, buffer + from, (size_t)(n - from));
    else
        u->input_ended = true;
    stop_input(u);
    if (!deliver(u))
        u->app->read_line(u->app);
}

static void on_input(uv_poll_t *handle, int status, int events)
{
    (void)status, (void)events;
    read_some(handle->data);
}

static void on_input_file(uv_idle_t *handle)
{
    read_some(handle->data);
}

static void app_read_line(struct weft_app *app)
{
    struct weft_app_uv *u = app->uv;
    u->wants_line = true;
    if (!u->input_open) {
        u->input_open = true;
        /* libuv makes it non-blocking, and with it whatever shares the terminal, beyond our end. */
        int flags = fcntl(STDIN_FILENO, F_GETFL);
        u->input_polled = uv_poll_init(&u->loop, &u->input, STDIN_FILENO) == 0;
        if (flags >= 0)
            (void)fcntl(STDIN_FILENO, F_SETFL, flags);
        u->input.data = u;
        if (!u->input_polled)
            uv_idle_init(&u->loop, &u->input_file);
        u->input_file.data = u;
    }
    if (has_line(u)) {
        if (!u->delivering)
            deliver(u);
        return;
    }
    if (u->input_polled)
        uv_poll_start(&u->input, UV_READABLE | UV_DISCONNECT, on_input);
    else
        uv_idle_start(&u->input_file, on_input_file);
}

/* ------------------------------------------------------------------ life */

static int (*const commands[WEFT_CMD_COUNT])(struct weft_app *) = {
    [WEFT_CMD_CHECK] = weft_cmd_check,       [WEFT_CMD_STATUS] = weft_cmd_status,
    [WEFT_CMD_PLAN] = weft_cmd_plan,         [WEFT_CMD_RUN] = weft_cmd_run,
    [WEFT_CMD_CHAT] = weft_cmd_chat,         [WEFT_CMD_INSPECT] = weft_cmd_inspect,
    [WEFT_CMD_EVAL] = weft_cmd_eval,         [WEFT_CMD_BENCH] = weft_cmd_bench,
    [WEFT_CMD_TOKENIZE] = weft_cmd_tokenize, [WEFT_CMD_DETOKENIZE] = weft_cmd_detokenize,
    [WEFT_CMD_TEMPLATE] = weft_cmd_template,
};

static int open_uv(struct weft_app_uv *u, weft_err *err)
{
    int r = uv_loop_init(&u->loop);
    if (r < 0)
        return weft_fail(err, WEFT_EIO, "event loop: %s", uv_strerror(r));
    r = weft_io_uv_open(&u->loop, &u->io, err);
    if (r < 0)
        return r;
    uv_signal_init(&u->loop, &u->sigint);
    uv_signal_init(&u->loop, &u->sigterm);
    uv_async_init(&u->loop, &u->output_failed, on_output_failed);
    u->sigint.data = u->sigterm.data = u->output_failed.data = u;
    return 0;
}

static void close_uv(struct weft_app_uv *u)
{
    uv_close((uv_handle_t *)&u->sigint, NULL);
    uv_close((uv_handle_t *)&u->sigterm, NULL);
    uv_close((uv_handle_t *)&u->output_failed, NULL);
    if (u->input_open)
        uv_close(u->input_polled ? (uv_handle_t *)&u->input : (uv_handle_t *)&u->input_file, NULL);
    weft_io_uv_close(u->io);
    uv_run(&u->loop, UV_RUN_DEFAULT);
    uv_loop_close(&u->loop);
    weft_str_done(&u->line);
}

/* The address space of getenv is the environment; a function of its own so that tests can give
 * another. */
static const char *environment(const char *name)
{
    return getenv(name);
}

static int run(const struct weft_options *opt)
{
    struct weft_app_uv u = {0};
    struct weft_app app = {
        .opt = opt,
        .out_tty = isatty(STDOUT_FILENO),
        .err_tty = isatty(STDERR_FILENO),
        .env = environment,
        .loop = app_loop,
        .stop = app_stop,
        .read_line = app_read_line,
        .threads = opt->threads,
        .uv = &u,
    };
    weft_err err = {0};
    bool closed = false;
    u.app = &app;
    app.colour = app.out_tty && getenv("NO_COLOR") == NULL;
    if (open_uv(&u, &err) < 0 ||
        weft_output_open(STDOUT_FILENO, output_failed, &u, &app.out, &err) < 0) {
        fprintf(stderr, "weft: %s\n", err.text);
        return weft_error_exit(err.code);
    }
    app.io = weft_io_uv_io(u.io);
    int code = commands[opt->command](&app);
    weft_app_done(&app);
    /* Signals as usual again: a reader that never reads on is no reason to live on. */
    uv_signal_stop(&u.sigint);
    uv_signal_stop(&u.sigterm);
    int r = weft_output_close(app.out, code == WEFT_EXIT_INTERRUPTED, &closed, &err);
    if (r < 0 && code != WEFT_EXIT_INTERRUPTED) {
        if (!closed)
            fprintf(stderr, "weft: %s\n", err.text);
        code = WEFT_EXIT_INTERNAL;
    }
    close_uv(&u);
    return code;
}

/* Help, version and completion are written straight away. */
static int print(struct weft_str *text)
{
    int bad = fwrite(text->data, 1, text->size, stdout) != text->size || fflush(stdout) != 0;
    if (bad)
        fprintf(stderr, "weft: cannot write the output: %s\n", strerror(errno));
    weft_str_done(text);
    return bad ? WEFT_EXIT_INTERNAL : WEFT_EXIT_OK;
}

/* A standard descriptor that whoever started us closed must not become a file or socket of ours.
 * It is opened the wrong way round, so that reading or writing says EBADF as before. */
static void hold_standard_fds(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

int main(int argc, char **argv)
{
    struct weft_options opt;
    struct weft_str text = {0};
    weft_err err = {0};
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, leave);
    signal(SIGTERM, leave);
    hold_standard_fds();
    if (argc == 2 && strcmp(argv[1], "completion") == 0) {
        weft_options_completion(&text);
        return print(&text);
    }
    if (weft_options_parse(argc, argv, environment, &opt, &err) < 0) {
        fprintf(stderr, "weft: %s\n", err.text);
        return weft_error_exit(err.code);
    }
    if (opt.version) {
        weft_str_addf(&text, "weft %s, protocol %u\n", WEFT_VERSION, WEFT_PROTOCOL_VERSION);
        return print(&text);
    }
    if (opt.help) {
        weft_options_help(opt.command, &text);
        return print(&text);
    }
    return run(&opt);
}
