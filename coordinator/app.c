/*
 * App: from options to a deployed cluster, and back. See app.h. The order: files → private daemon
 * if there is no cluster file → gather → plan → deploy; every step that fails tells `opened` why.
 */
#include "coordinator/app.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/model_path.h"
#include "coordinator/private_daemon.h"
#include "coordinator/progress.h"

/* A context nobody asked for costs memory: the model's own up to this. */
#define CONTEXT_DEFAULT 4096u
/* Rows of prompt the plan predicts the first token for. */
#define PREFILL_ROWS 128u

int weft_app_fail(struct weft_app *app, const weft_err *err)
{
    app->exit_code = weft_error_exit(err->code);
    if (err->code != WEFT_EINTERRUPTED)
        fprintf(stderr, "weft: %s\n", err->text);
    return app->exit_code;
}

void weft_app_warn(const char *text)
{
    if (text != NULL)
        fprintf(stderr, "weft: warning: %s\n", text);
}

/* ------------------------------------------------------------------ files */

static int load_cluster_file(struct weft_app *app, weft_err *err)
{
    struct weft_str report = {0};
    int r = weft_cluster_file_load(app->opt->cluster, &app->file, &report, err);
    if (r == 0 && app->opt->plan != NULL)
        r = weft_cluster_file_plan(&app->file, app->opt->plan, &report, err);
    if (report.size > 0)
        fputs(report.data, stderr);
    weft_str_done(&report);
    app->have_file = r == 0;
    return r;
}

int weft_app_open_model(struct weft_app *app, weft_err *err)
{
    const struct weft_options *o = app->opt;
    struct weft_model_name name = {o->model, o->model, NULL};
    struct weft_str again = {0};
    if (o->model == NULL && app->file.model == NULL)
        return weft_fail(err, WEFT_ECONFIG, "no model: set 'model:' in %s or give -m FILE",
                         o->cluster != NULL ? o->cluster : "a cluster file");
    if (o->model == NULL)
        name = (struct weft_model_name){app->file.model_name, app->file.model, NULL};
    weft_str_addf(&again, "weft %s", weft_command_name(o->command));
    if (o->cluster != NULL)
        weft_str_addf(&again, " -f %s", o->cluster);
    if (o->command != WEFT_CMD_INSPECT) /* its file stands without an option */
        weft_str_adds(&again, " -m");
    name.again = again.data != NULL ? again.data : "weft";
    int r = weft_model_path(&name, app->env, &app->model_path, err);
    weft_str_done(&again);
    return r < 0 ? r : weft_model_file_open(app->model_path, &app->model_file, err);
}

int weft_app_load_model(struct weft_app *app, weft_err *err)
{
    int r = weft_app_open_model(app, err);
    if (r < 0)
        return r;
    r = weft_model_from_gguf(&app->model_file.gguf, app->model_file.maps, &app->model, err);
    if (r < 0)
        weft_err_prefix(err, "%s", app->model_path);
    app->have_model = r == 0;
    return r;
}

/* Command line over cluster file over defaults. */
static int merge_options(struct weft_app *app, weft_err *err)
{
    const struct weft_options *o = app->opt;
    struct weft_cluster_file *f = &app->file;
    if (o->context != 0)
        f->context = o->context;
    if (o->given.context_shift)
        f->context_shift = o->context_shift;
    if (o->system != NULL)
        f->system = o->system[0] != '\0' ? o->system : NULL;
    if (o->predict >= 0)
        f->predict = (uint32_t)o->predict;
    if (o->kv != NULL)
        for (int kv = 0; kv < WEFT_KV_COUNT; kv++)
            if (strcmp(o->kv, weft_kv_names[kv]) ==
                0) /* one of them: the table of options checked */
                f->kv = (enum weft_kv)kv;
    if (o->gemm != NULL)
        f->gemm_weft = strcmp(o->gemm, "weft") == 0;
    if (o->given.temperature)
        f->sampling.temperature = o->sampling.temperature;
    if (o->given.top_k)
        f->sampling.top_k = o->sampling.top_k;
    if (o->given.typical)
        f->sampling.typical = o->sampling.typical;
    if (o->given.top_p)
        f->sampling.top_p = o->sampling.top_p;
    if (o->given.min_p)
        f->sampling.min_p = o->sampling.min_p;
    if (o->given.repeat_penalty)
        f->sampling.repeat_penalty = o->sampling.repeat_penalty;
    if (o->given.presence_penalty)
        f->sampling.presence_penalty = o->sampling.presence_penalty;
    if (o->given.frequency_penalty)
        f->sampling.frequency_penalty = o->sampling.frequency_penalty;
    if (o->given.repeat_last)
        f->sampling.repeat_last = o->sampling.repeat_last;
    if (o->mirostat != NULL) /* one of them: the table of options checked */
        f->sampling.mirostat = strcmp(o->mirostat, weft_mirostat_names[0]) != 0;
    if (o->given.mirostat_tau)
        f->sampling.mirostat_tau = o->sampling.mirostat_tau;
    if (o->given.mirostat_eta)
        f->sampling.mirostat_eta = o->sampling.mirostat_eta;
    if (o->given.seed) {
        f->sampling.seed = o->sampling.seed;
        f->sampling.seed_set = true;
    }
    if (!f->sampling.seed_set)
        f->sampling.seed = app->io->random(app->io) >> 32;
    if (!app->have_model)
        return 0;
    if (f->context > app->model.context_max)
        return weft_fail(err, WEFT_ECONTEXT, "context %u: %s was made for %u positions at most",
                         f->context, app->model.name, app->model.context_max);
    if (f->context == 0)
        f->context = app->context_least > CONTEXT_DEFAULT ? app->context_least : CONTEXT_DEFAULT;
    if (f->context > app->model.context_max) /* not asked for: that was refused above */
        f->context = app->model.context_max;
    return 0;
}

int weft_app_load(struct weft_app *app, bool need_model, weft_err *err)
{
    const struct weft_options *o = app->opt;
    int r;
    if (o->cluster != NULL)
        r = load_cluster_file(app, err);
    else
        r = weft_cluster_file_private("127.0.0.1:0", &app->file, err);
    if (r < 0)
        return r;
    app->have_file = true;
    if (need_model) {
        r = weft_app_load_model(app, err);
        if (r < 0)
            return r;
    }
    return merge_options(app, err);
}

/* ------------------------------------------------------------------ the way to a cluster */

static void opened(struct weft_app *app, const weft_err *err)
{
    weft_progress_close(app->progress);
    app->progress = NULL;
    app->opened(app, err);
}

static void progress(void *arg, uint32_t device, uint64_t done, uint64_t total)
{
    struct weft_app *app = arg;
    weft_progress_update(app->progress, device, app->file.devices[device].name, done, total,
                         app->io->now_ns(app->io));
}

static void deployed(void *arg, const weft_err *err)
{
    opened(arg, err);
}

static void deploy(struct weft_app *app)
{
    const struct weft_deployment d = {
        .model = &app->model,
        .files = app->model_file.maps,
        .plan = &app->plan,
        .context = app->file.context,
        .sessions = app->file.sessions,
        .batch_rows = app->file.batch_rows,
        .kv = app->file.kv,
        .gemm_weft = app->file.gemm_weft,
    };
    app->progress = weft_progress_open(app->err_tty, app->file.n_devices);
    weft_cluster_deploy(app->cluster, &d, deployed, app);
}

/* Devices that did not answer: named once; an error when the plan pins them or nobody is left. */
static int check_reachable(struct weft_app *app, weft_err *err)
{
    const struct weft_cluster_file *f = &app->file;
    uint32_t reachable = 0;
    const weft_err *first = NULL;
    for (uint32_t i = 0; i < f->n_devices; i++) {
        const struct weft_device_status *st = weft_cluster_status(app->cluster, i);
        bool pinned = f->pin_embed == (int32_t)i || f->pin_head == (int32_t)i;
        for (uint32_t k = 0; k < f->n_stages; k++)
            pinned |= f->stages[k].device == i;
        reachable += st->reachable;
        if (st->reachable)
            continue;
        if (first == NULL || pinned)
            first = &st->why;
        if (pinned) {
            *err = *first;
            return -err->code;
        }
    }
    if (reachable == 0) {
        assert(first != NULL); /* a cluster file names one device at least */
        *err = *first;
        return -err->code;
    }
    for (uint32_t i = 0; i < f->n_devices; i++) {
        const struct weft_device_status *st = weft_cluster_status(app->cluster, i);
        if (!st->reachable)
            fprintf(stderr, "weft: planning without %s\n", st->why.text);
    }
    return 0;
}

static int make_plan(struct weft_app *app, weft_err *err)
{
    const struct weft_cluster_file *f = &app->file;
    int r = check_reachable(app, err);
    if (r < 0)
        return r;
    app->facts = calloc(f->n_devices, sizeof *app->facts);
    if (app->facts == NULL)
        return weft_fail(err, WEFT_ENOMEM, "plan");
    for (uint32_t i = 0; i < f->n_devices; i++)
        weft_cluster_facts(app->cluster, i, &app->facts[i]);
    app->request = (struct weft_plan_request){
        .model = &app->model,
        .devices = app->facts,
        .links = weft_cluster_links(app->cluster),
        .n_devices = f->n_devices,
        .cost = {.context = f->context,
                 .sessions = f->sessions,
                 .kv = f->kv,
                 .batch_rows = f->batch_rows,
                 .stage_scratch_bytes = weft_stage_scratch_bound(&app->model, f->batch_rows),
                 .goal = (enum weft_goal)f->goal,
                 .pin_embed = f->pin_embed,
                 .pin_head = f->pin_head},
        .pinned = f->stages,
        .n_pinned = f->n_stages,
    };
    r = weft_plan_make(&app->request, &app->plan, err);
    if (r < 0)
        weft_err_prefix(err, "%s", app->model.name);
    app->have_plan = r == 0;
    return r;
}

static void gathered_look(void *arg, const weft_err *err)
{
    opened(arg, err);
}

static void gathered_plan(void *arg, const weft_err *err)
{
    struct weft_app *app = arg;
    weft_err why = {0};
    if (err == NULL && make_plan(app, &why) < 0)
        err = &why;
    opened(app, err);
}

static void gathered_deploy(void *arg, const weft_err *err)
{
    struct weft_app *app = arg;
    weft_err why = {0};
    if (err == NULL && make_plan(app, &why) < 0)
        err = &why;
    if (err != NULL)
        opened(app, err);
    else
        deploy(app);
}

void weft_app_open_cluster(struct weft_app *app, enum weft_app_depth depth, weft_done_fn *done)
{
    static char address[64], holder[WEFT_NAME_MAX + 1];
    weft_err why = {0};
    app->opened = done;
    bool private_daemon = app->opt->cluster == NULL;
    if (private_daemon) {
        if (weft_private_daemon_start(app->threads, &app->daemon_pid, address, sizeof address,
                                      &why) < 0) {
            opened(app, &why);
            return;
        }
        app->file.devices[0].address = address;
    }
    char host[64] = "?";
    (void)gethostname(host, sizeof host - 1);
    const char *user = getenv("USER");
    snprintf(holder, sizeof holder, "%.20s@%.30s:%d", user != NULL ? user : "weft", host,
             (int)getpid());
    for (char *at = holder; *at != '\0'; at++) /* daemons refuse other names in a Hello */
        if (*at <= ' ' || *at > '~')
            *at = '_';
    const struct weft_cluster_options co = {
        .io = app->io,
        .name = holder,
        .devices = app->file.devices,
        .n_devices = app->file.n_devices,
        .progress = progress,
        .broken = app->broken,
        .arg = app,
    };
    if (weft_cluster_open(&co, &app->cluster, &why) < 0) {
        opened(app, &why);
        return;
    }
    /* Nothing is to be chosen on a private daemon: measuring it would only delay the answer. */
    unsigned what = private_daemon           ? WEFT_GATHER_STATUS
                    : depth == WEFT_APP_LOOK ? WEFT_GATHER_PROBE
                                             : WEFT_GATHER_PROBE | WEFT_GATHER_LINKS;
    weft_cluster_gather(app->cluster, what,
                        depth == WEFT_APP_LOOK   ? gathered_look
                        : depth == WEFT_APP_PLAN ? gathered_plan
                                                 : gathered_deploy,
                        app);
}

static void cluster_closed(void *arg)
{
    struct weft_app *app = arg;
    app->cluster = NULL;
    app->stop(app, app->exit_code);
}

void weft_app_close_cluster(struct weft_app *app, int code)
{
    app->exit_code = code;
    if (app->closing)
        return;
    app->closing = true;
    if (app->cluster != NULL)
        weft_cluster_close(app->cluster, cluster_closed, app);
    else
        app->stop(app, code);
}

void weft_app_leave_cluster(struct weft_app *app)
{
    weft_progress_close(app->progress); /* left when the output failed while shards travelled */
    app->progress = NULL;
    if (app->daemon_pid > 0)
        weft_private_daemon_stop(app->daemon_pid);
    app->daemon_pid = 0;
    if (app->have_plan)
        weft_plan_done(&app->plan);
    app->have_plan = false;
    free(app->facts);
    app->facts = NULL;
    app->closing = false;
}

void weft_app_done(struct weft_app *app)
{
    weft_app_leave_cluster(app);
    if (app->have_model)
        weft_model_done(&app->model);
    weft_model_file_close(&app->model_file);
    free(app->model_path);
    weft_cluster_file_done(&app->file);
}
