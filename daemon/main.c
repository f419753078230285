/*
 * weftd: the daemon of one machine. Command line, configuration, signals, systemd; the rest is the
 * node's.
 *
 * One loop thread; the io adds the compute thread, the kernel pool its workers.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <uv.h>

#include "base/log.h"
#include "base/text.h"
#include "daemon/config.h"
#include "daemon/machine.h"
#include "daemon/node.h"
#include "daemon/notify.h"
#include "daemon/probe.h"
#include "proto/io_uv.h"

#define NS_PER_S UINT64_C(1000000000)

struct app {
    struct weft_config config;
    const char *config_path; /* NULL: defaults alone */
    const char *port_file;
    bool check, private, pin;
    const char *set_name, *set_listen, *set_threads, *set_memory; /* the command line wins */
    struct weft_machine machine;
    char name[WEFT_NAME_MAX + 1];
    char state_dir[WEFT_CONFIG_PATH_MAX];
    struct wk_engine engine;
    int cpus[WEFT_CONFIG_THREADS_MAX]; /* pinned: of each thread of the pool */
    cpu_set_t allowed;                 /* pinned: before anything was */
    _Atomic uint64_t memory_cap;       /* the probe reads it on the compute thread */
    uv_loop_t loop;
    struct weft_io_uv *uv;
    struct weft_node *node;
    struct weft_notify notify;
    uv_signal_t sigterm, sigint, sighup;
    uv_timer_t watchdog;
    uv_check_t status;
    bool stopping;
    enum weft_node_state told_state;
    char told_holder[WEFT_NAME_MAX + 1];
};

/* ------------------------------------------------------------------ what the node asks for */

static void look(void *arg, struct weft_look *ret)
{
    struct app *a = arg;
    struct weft_memory m;
    (void)!weft_memory_read(WEFT_MACHINE_ROOT,
                            &m); /* zeros: then nothing fits, and the numbers say so */
    ret->total_bytes = m.total_bytes;
    ret->reserve_bytes = a->config.reserve_bytes;
    ret->available_bytes =
        m.available_bytes > ret->reserve_bytes ? m.available_bytes - ret->reserve_bytes : 0;
    ret->machine_bytes =
        m.machine_bytes > ret->reserve_bytes ? m.machine_bytes - ret->reserve_bytes : 0;
    ret->cap_bytes = a->config.memory_bytes;
    ret->has_temperature = weft_temperature_read(WEFT_MACHINE_ROOT, &ret->temperature_millidegrees);
}

static int measure(void *arg, struct weft_probe *ret, weft_err *err)
{
    struct app *a = arg;
    struct weft_memory m;
    uint64_t cap = atomic_load(&a->memory_cap);
    (void)!weft_memory_read(WEFT_MACHINE_ROOT, &m);
    /* A quarter of what is free: the probe must not push others into swap. */
    uint64_t bytes = m.available_bytes / 4 < cap ? m.available_bytes / 4 : cap;
    return weft_probe_run(&a->engine, bytes, ret, err);
}

static void measured(void *arg, const struct weft_probe *probe)
{
    struct app *a = arg;
    weft_err why = {0};
    if (a->state_dir[0] != '\0' && weft_probe_save(a->state_dir, &a->engine, probe, &why) < 0)
        weft_log(WEFT_LOG_WARN, "probe-not-kept", WEFT_ERR(&why));
}

static void log_event(void *arg, enum weft_log_level level, const char *event,
                      const struct weft_field *fields, size_t n)
{
    (void)arg;
    weft_log_fields(level, event, fields, n);
}

static void accepted(void *arg, struct weft_conn *c)
{
    struct app *a = arg;
    weft_node_accept(a->node, c);
}

/* ------------------------------------------------------------------ the end */

static void close_handle(uv_handle_t *h)
{
    if (h->loop != NULL && !uv_is_closing(h))
        uv_close(h, NULL);
}

static void node_closed(void *arg)
{
    struct app *a = arg;
    a->node = NULL;
    weft_io_uv_close(a->uv);
    close_handle((uv_handle_t *)&a->sigterm);
    close_handle((uv_handle_t *)&a->sigint);
    close_handle((uv_handle_t *)&a->sighup);
    close_handle((uv_handle_t *)&a->watchdog);
    close_handle((uv_handle_t *)&a->status);
}

static void drained(void *arg)
{
    struct app *a = arg;
    weft_node_close(a->node, node_closed, a);
}

static void on_stop(uv_signal_t *handle, int signum)
{
    struct app *a = handle->data;
    if (a->stopping) /* asked twice: nothing is worth waiting for */
        _exit(WEFT_EXIT_INTERRUPTED);
    a->stopping = true;
    weft_log(WEFT_LOG_INFO, "stopping",
             WEFT_STR("signal", signum == SIGINT ? "SIGINT" : "SIGTERM"));
    weft_notify(&a->notify, "STOPPING=1\nSTATUS=draining");
    weft_node_drain(a->node, drained, a);
}

/* ------------------------------------------------------------------ reload */

static int load_config(struct app *a, struct weft_config *ret, struct weft_str *report,
                       weft_err *err);

static void needs_restart(const char *key, bool changed)
{
    if (changed)
        weft_log(WEFT_LOG_WARN, "not-reloaded", WEFT_STR("key", key),
                 WEFT_STR("text", "restart to change it"));
}

static void on_reload(uv_signal_t *handle, int signum)
{
    struct app *a = handle->data;
    struct weft_config c = a->config, *old = &a->config;
    struct weft_str report = {0};
    weft_err why = {0};
    (void)signum;
    weft_notify(&a->notify, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, uv_hrtime() / 1000);
    if (load_config(a, &c, &report, &why) < 0) {
        weft_log(WEFT_LOG_ERROR, "not-reloaded", WEFT_ERR(&why),
                 WEFT_STR("report", report.data != NULL ? report.data : ""));
    } else {
        needs_restart("name", strcmp(c.name, old->name) != 0);
        needs_restart("listen", strcmp(c.listen, old->listen) != 0);
        needs_restart("threads", c.threads != old->threads);
        needs_restart("pin", c.pin != old->pin);
        needs_restart("isa", c.isa != old->isa);
        needs_restart("state_dir",
                      c.state_auto != old->state_auto || strcmp(c.state_dir, old->state_dir) != 0);
        old->memory_bytes = c.memory_bytes;
        old->reserve_bytes = c.reserve_bytes;
        old->log = c.log;
        old->drain_s = c.drain_s;
        atomic_store(&a->memory_cap, c.memory_bytes);
        weft_node_set_drain(a->node, a->private ? 0 : c.drain_s * NS_PER_S);
        weft_log_set_level(c.log);
        weft_log(WEFT_LOG_INFO, "reloaded",
                 WEFT_STR("config", a->config_path != NULL ? a->config_path : "none"));
    }
    weft_str_done(&report);
    weft_notify(&a->notify, "READY=1");
}

/* ------------------------------------------------------------------ systemd */

static void on_watchdog(uv_timer_t *handle)
{
    struct app *a = handle->data;
    weft_notify(&a->notify, "WATCHDOG=1");
}

/* At the end of a turn of the loop: systemctl status shows what the node does. */
static void on_status(uv_check_t *handle)
{
    struct app *a = handle->data;
    if (a->node == NULL || a->stopping)
        return;
    enum weft_node_state state = weft_node_state(a->node);
    const char *holder = weft_node_holder(a->node);
    if (state == a->told_state && strcmp(holder, a->told_holder) == 0)
        return;
    a->told_state = state;
    snprintf(a->told_holder, sizeof a->told_holder, "%s", holder);
    weft_notify(&a->notify, "STATUS=%s%s%s", weft_node_state_name(state),
                holder[0] != '\0' ? ", held by " : "", holder);
}

static void start_notify(struct app *a)
{
    weft_err why = {0};
    if (weft_notify_open(&a->notify, &why) < 0)
        weft_log(WEFT_LOG_WARN, "no-notify", WEFT_ERR(&why));
    if (a->notify.fd < 0)
        return;
    uv_check_init(&a->loop, &a->status);
    a->status.data = a;
    uv_check_start(&a->status, on_status);
    uint64_t ms = weft_notify_watchdog_us() /
                  2000; /* twice as often as asked, as sd_watchdog_enabled(3) says */
    if (ms > 0) {
        uv_timer_init(&a->loop, &a->watchdog);
        a->watchdog.data = a;
        uv_timer_start(&a->watchdog, on_watchdog, ms, ms);
    }
}

/* ------------------------------------------------------------------ start */

static bool loopback(const char *address)
{
    return strncmp(address, "127.", 4) == 0 || strncmp(address, "localhost:", 10) == 0 ||
           strncmp(address, "[::1]:", 6) == 0 || strncmp(address, "ipc:", 4) == 0;
}

/* The configured name, or the host's with what a name may not have replaced. */
static void choose_name(struct app *a)
{
    const char *from = a->config.name[0] != '\0' ? a->config.name : a->machine.host;
    snprintf(a->name, sizeof a->name, "%.*s", (int)WEFT_NAME_MAX, from[0] != '\0' ? from : "weftd");
    for (char *c = a->name; *c != '\0'; c++)
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
              strchr("-_.", *c) != NULL))
            *c = '-';
}

/* As many CPUs as threads, from the beginning again when there are not enough. */
static int choose_cpus(struct app *a, uint32_t threads, weft_err *err)
{
    size_t n = weft_machine_cpus(WEFT_MACHINE_ROOT, a->cpus, WEFT_CONFIG_THREADS_MAX);
    if (n == 0 || sched_getaffinity(0, sizeof a->allowed, &a->allowed) != 0)
        return weft_fail(err, WEFT_EIO, "pin: the system does not say which CPUs there are");
    for (size_t i = n; i < threads; i++)
        a->cpus[i] = a->cpus[i % n];
    return 0;
}

/* The compute thread gets the pool's first CPU from the thread that starts it; */
static void place_compute(struct app *a)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(a->cpus[0], &set);
    if (a->config.pin)
        (void)sched_setaffinity(0, sizeof set, &set); /* allowed a moment ago; slower without */
}

/* the loop and what it starts then stay out of the workers' way. */
static void place_loop(struct app *a)
{
    cpu_set_t set = a->allowed;
    for (unsigned i = 1; a->config.pin && i < wk_pool_threads(a->engine.pool); i++)
        CPU_CLR(a->cpus[i], &set);
    CPU_SET(a->cpus[0], &set);
    if (a->config.pin)
        (void)sched_setaffinity(0, sizeof set, &set);
}

static int choose_engine(struct app *a, weft_err *err)
{
    uint32_t threads = a->config.threads != 0 ? a->config.threads : a->machine.cores;
    if (threads > WEFT_CONFIG_THREADS_MAX)
        threads = WEFT_CONFIG_THREADS_MAX;
    a->engine.table = wk_table_select(a->config.isa);
    if (a->engine.table == NULL) {
        const struct wk_table *list[8];
        struct weft_str names = {0};
        size_t n = wk_table_list(list, sizeof list / sizeof list[0]);
        for (size_t i = 0; i < n; i++)
            weft_str_addf(&names, "%s%s", i > 0 ? ", " : "", wk_table_name(list[i]));
        const char *env = getenv("WEFT_ISA");
        const char *asked = a->config.isa != NULL ? a->config.isa : env != NULL ? env : "auto";
        int r = weft_fail(err, WEFT_ECONFIG, "isa %.32s: not on this machine, which has %s", asked,
                          names.data != NULL ? names.data : "none");
        weft_str_done(&names);
        return r;
    }
    if (a->config.pin) {
        int r = choose_cpus(a, threads, err);
        if (r < 0)
            return r;
    }
    a->engine.pool = wk_pool_open_pinned(a->config.pin ? a->cpus : NULL, threads);
    if (a->engine.pool == NULL)
        return weft_fail(err, WEFT_EIO, "%u threads could not be started%s", threads,
                         a->config.pin ? " and pinned" : "");
    return 0;
}

/* state_dir, or the first of $STATE_DIRECTORY (systemd separates them by ':'). */
static void choose_state_dir(struct app *a)
{
    const char *env = a->config.state_auto ? getenv("STATE_DIRECTORY") : NULL;
    snprintf(a->state_dir, sizeof a->state_dir, "%s", a->config.state_dir);
    if (env != NULL && env[0] == '/' && strlen(env) < sizeof a->state_dir)
        snprintf(a->state_dir, sizeof a->state_dir, "%.*s", (int)strcspn(env, ":"), env);
}

static int start_node(struct app *a, weft_err *err)
{
    struct weft_probe probe;
    uint64_t age_s = 0;
    choose_name(a);
    choose_state_dir(a);
    bool probed =
        a->state_dir[0] != '\0' && weft_probe_load(a->state_dir, &a->engine, &probe, &age_s);
    struct weft_node_options o = {
        .name = a->name,
        .cpu = a->machine.cpu,
        .boot_id = a->machine.boot_id,
        .io = weft_io_uv_io(a->uv),
        .engine = a->engine,
        .drain_ns = a->private ? 0 : a->config.drain_s * NS_PER_S,
        .probe = probed ? &probe : NULL,
        .probe_age_s = age_s,
        .look = look,
        .measure = measure,
        .measured = measured,
        .log = log_event,
        .arg = a,
    };
    weft_log_set_node(a->name);
    return weft_node_open(&o, &a->node, err);
}

/* Written beside and renamed, so that a reader finds no port or the whole of it. */
static int write_port_file(const char *path, uint16_t port, weft_err *err)
{
    char fresh[4096];
    if ((size_t)snprintf(fresh, sizeof fresh, "%s.new", path) >= sizeof fresh)
        return weft_fail(err, WEFT_EUSAGE, "--port-file: its name is too long");
    FILE *f = fopen(fresh, "we");
    if (f == NULL)
        return weft_fail_errno(err, errno, "%s", fresh);
    int r = fprintf(f, "%u\n", port) < 0 ? weft_fail_errno(err, errno, "%s", fresh) : 0;
    if (fclose(f) != 0 && r == 0)
        r = weft_fail_errno(err, errno, "%s", fresh);
    if (r == 0 && rename(fresh, path) != 0)
        r = weft_fail_errno(err, errno, "%s", path);
    if (r < 0)
        unlink(fresh);
    return r;
}

/* For `weft run -m`: the port on stdout, which is closed then; the end with the parent. */
static int tell_parent(uint16_t port, pid_t parent, weft_err *err)
{
    if (printf("port %u\n", port) < 0 || fclose(stdout) != 0)
        return weft_fail_errno(err, errno, "port to the parent");
    return getppid() == parent ? 0 : weft_fail(err, WEFT_EINTERRUPTED, "the parent has ended");
}

static void start_signal(struct app *a, uv_signal_t *s, int signum, uv_signal_cb cb)
{
    uv_signal_init(&a->loop, s);
    s->data = a;
    uv_signal_start(s, cb, signum);
}

static int run(struct app *a, weft_err *err)
{
    uint16_t port = 0;
    pid_t parent = getppid();
    if (a->private)
        prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    weft_machine_read(WEFT_MACHINE_ROOT, &a->machine);
    int r = choose_engine(a, err);
    if (r < 0)
        return r;
    if (uv_loop_init(&a->loop) != 0) {
        wk_pool_close(a->engine.pool);
        return weft_fail(err, WEFT_EIO, "libuv: no loop");
    }
    start_signal(a, &a->sigterm, SIGTERM, on_stop);
    start_signal(a, &a->sigint, SIGINT, on_stop);
    start_signal(a, &a->sighup, SIGHUP, on_reload);
    place_compute(a);
    r = weft_io_uv_open(&a->loop, &a->uv, err);
    place_loop(a);
    if (r < 0) {
        wk_pool_close(a->engine.pool);
        return r;
    }
    r = start_node(a, err);
    if (r == 0)
        r = weft_io_uv_listen(a->uv, a->config.listen, accepted, a, &port, err);
    if (r == 0 && a->port_file != NULL)
        r = write_port_file(a->port_file, port, err);
    if (r == 0 && a->private)
        r = tell_parent(port, parent, err);
    if (r == 0) {
        weft_log(WEFT_LOG_INFO, "listening", WEFT_STR("address", a->config.listen),
                 WEFT_U64("port", port), WEFT_STR("isa", wk_table_name(a->engine.table)),
                 WEFT_U64("threads", wk_pool_threads(a->engine.pool)),
                 WEFT_U64("cores", a->machine.cores),
                 WEFT_STR("pinned", a->config.pin ? "yes" : "no"),
                 WEFT_STR("version", WEFT_VERSION));
        if (!loopback(a->config.listen))
            weft_log(WEFT_LOG_WARN, "not-authenticated", WEFT_STR("address", a->config.listen),
                     WEFT_STR("text", "links are not authenticated in this version: "
                                      "who reaches this address can use this machine"));
        start_notify(a);
        weft_notify(&a->notify, "READY=1\nSTATUS=idle");
    } else if (a->node != NULL) {
        weft_node_close(a->node, node_closed, a);
    } else {
        node_closed(a);
    }
    uv_run(&a->loop, UV_RUN_DEFAULT);
    uv_loop_close(&a->loop);
    weft_notify_close(&a->notify);
    wk_pool_close(a->engine.pool);
    return r;
}

/* ------------------------------------------------------------------ command line */

static const char help[] =
    "usage: weftd [-c weftd.yaml] [option …]\n"
    "\n"
    "Serves shards of a language model to a weft coordinator.\n"
    "\n"
    "  -c, --config FILE    configuration; without it every key has its default\n"
    "      --listen ADDR    host:port, [v6]:port or ipc:///path (port 0: the system chooses)\n"
    "      --name NAME      what this machine is called\n"
    "      --threads N      threads that compute together, or all\n"
    "      --pin            keep each of them on a CPU of its own\n"
    "      --memory SIZE    most memory for weights, KV and scratch, or all\n"
    "      --port-file FILE write the port there once it listens\n"
    "      --private        for weft run -m: a port of the system's choice on loopback, told as\n"
    "                       \"port N\" on stdout; --threads 0 means all; ends with its parent\n"
    "      --check-config   read the configuration, say what is wrong with it, and end\n"
    "      --version        print the version and end\n"
    "  -h, --help           print this and end\n"
    "\n"
    "Signals: SIGTERM and SIGINT let running answers end (drain_s), a second one ends at once;\n"
    "SIGHUP reads the configuration again.\n"
    "Exit: 0 done, 1 internal, 2 usage, 3 configuration, 130 ended at once.\n";

static int parse_args(struct app *a, int argc, char **argv, bool *ret_done)
{
    enum {
        OPT_LISTEN = 256,
        OPT_NAME,
        OPT_THREADS,
        OPT_PIN,
        OPT_MEMORY,
        OPT_PORT_FILE,
        OPT_PRIVATE,
        OPT_CHECK,
        OPT_VERSION
    };
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"listen", required_argument, NULL, OPT_LISTEN},
        {"name", required_argument, NULL, OPT_NAME},
        {"threads", required_argument, NULL, OPT_THREADS},
        {"pin", no_argument, NULL, OPT_PIN},
        {"memory", required_argument, NULL, OPT_MEMORY},
        {"port-file", required_argument, NULL, OPT_PORT_FILE},
        {"private", no_argument, NULL, OPT_PRIVATE},
        {"check-config", no_argument, NULL, OPT_CHECK},
        {"version", no_argument, NULL, OPT_VERSION},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    int c;
    while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (c) {
        case 'c':
            a->config_path = optarg;
            break;
        case OPT_LISTEN:
            a->set_listen = optarg;
            break;
        case OPT_NAME:
            a->set_name = optarg;
            break;
        case OPT_THREADS:
            a->set_threads = optarg;
            break;
        case OPT_PIN:
            a->pin = true;
            break;
        case OPT_MEMORY:
            a->set_memory = optarg;
            break;
        case OPT_PORT_FILE:
            a->port_file = optarg;
            break;
        case OPT_PRIVATE:
            a->private = true;
            break;
        case OPT_CHECK:
            a->check = true;
            break;
        case OPT_VERSION:
            printf("weftd %s\n", WEFT_VERSION);
            *ret_done = true;
            break;
        case 'h':
            fputs(help, stdout);
            *ret_done = true;
            break;
        default:
            return -WEFT_EUSAGE; /* getopt said why */
        }
    }
    if (optind < argc) {
        fprintf(stderr, "weftd: '%s' is no option; weftd --help\n", argv[optind]);
        return -WEFT_EUSAGE;
    }
    return 0;
}

static int set(const char *option, const char *text, struct weft_config *c,
               int (*f)(struct weft_config *c, const char *text, weft_err *err), weft_err *err)
{
    if (text == NULL || f(c, text, err) == 0)
        return 0;
    weft_err_prefix(err, "%s", option);
    if (err != NULL)
        err->code = WEFT_EUSAGE;
    return -WEFT_EUSAGE;
}

/* The file, then the command line over it. */
static int load_config(struct app *a, struct weft_config *ret, struct weft_str *report,
                       weft_err *err)
{
    const char *threads = a->set_threads;
    int r = 0;
    weft_config_default(ret);
    if (a->config_path != NULL)
        r = weft_config_load(a->config_path, ret, report, err);
    if (r < 0)
        return r;
    if (a->private) {
        ret->log = WEFT_LOG_ERROR; /* stderr is the parent's, who tells what matters */
        if (a->set_listen == NULL)
            r = weft_config_set_listen(ret, "127.0.0.1:0", err);
        if (threads != NULL && strcmp(threads, "0") == 0)
            threads = "all";
    }
    if (r == 0)
        r = set("--listen", a->set_listen, ret, weft_config_set_listen, err);
    if (r == 0)
        r = set("--name", a->set_name, ret, weft_config_set_name, err);
    if (r == 0)
        r = set("--threads", threads, ret, weft_config_set_threads, err);
    if (r == 0)
        r = set("--pin", a->pin ? "true" : NULL, ret, weft_config_set_pin, err);
    if (r == 0)
        r = set("--memory", a->set_memory, ret, weft_config_set_memory, err);
    return r;
}

int main(int argc, char **argv)
{
    static struct app a = {.notify.fd = -1};
    struct weft_str report = {0};
    weft_err err = {0};
    bool done = false;
    int r = parse_args(&a, argc, argv, &done);
    if (r < 0)
        return weft_error_exit(r);
    if (done)
        return fflush(stdout) == 0 ? WEFT_EXIT_OK : WEFT_EXIT_INTERNAL;
    r = load_config(&a, &a.config, &report, &err);
    if (report.data != NULL)
        fputs(report.data, stderr);
    weft_str_done(&report);
    if (r == 0 && a.check) {
        printf("%s: ok\n", a.config_path != NULL ? a.config_path : "defaults");
        return WEFT_EXIT_OK;
    }
    if (r == 0) {
        weft_log_set_level(a.config.log);
        atomic_store(&a.memory_cap, a.config.memory_bytes);
        r = run(&a, &err);
    }
    if (r < 0)
        fprintf(stderr, "weftd: %s\n", err.text);
    return r < 0 ? weft_error_exit(err.code) : WEFT_EXIT_OK;
}
