/*
 * weft run: one prompt, one answer. The text goes to stdout as it comes, the figures to stderr.
 */
#include <stdio.h>
#include <string.h>

#include "coordinator/figures.h"
#include "coordinator/input.h"
#include "coordinator/output.h"

struct run {
    struct weft_app *app;
    struct weft_conversation *conversation;
    struct weft_str text; /* for --json */
    enum weft_finish finish;
    bool newline; /* the answer ended with one */
};

static void fail(struct run *r, const weft_err *err)
{
    weft_app_close_cluster(r->app, weft_app_fail(r->app, err));
}

/* The last step: figures, then the end. Without them (a device was lost just now) the answer still
 * stands. */
static void on_stats(void *arg, const weft_err *err)
{
    struct run *r = arg;
    struct weft_app *app = r->app;
    struct weft_conversation_figures figures;
    struct weft_str out = {0};
    weft_conversation_figures(r->conversation, &figures);
    if (app->opt->json) {
        weft_figures_json(app, &figures, r->text.data != NULL ? r->text.data : "", r->text.size,
                          r->finish, &out);
        weft_output_write(app->out, out.data, out.size);
    } else {
        if (figures.logprobs.list != NULL)
            weft_logprobs_text(&figures.logprobs, &out);
        if (err == NULL)
            weft_figures_text(app, &figures, NULL, &out);
        fputs(out.data != NULL ? out.data : "", stderr);
    }
    weft_str_done(&out);
    weft_app_close_cluster(app, WEFT_EXIT_OK);
}

static void on_text(void *arg, const char *data, size_t n)
{
    struct run *r = arg;
    if (r->app->opt->json) {
        weft_str_add(&r->text, data, n);
    } else {
        weft_output_write(r->app->out, data, n);
        r->newline = data[n - 1] == '\n';
    }
}

static void on_shift(void *arg, uint32_t turns, uint32_t kept)
{
    struct run *r = arg;
    struct weft_str text = {0};
    weft_figures_shift(r->app, turns, kept, &text);
    weft_output_settle(r->app->out);
    fprintf(stderr, "%s%s", r->app->err_tty && !r->newline ? "\n" : "",
            text.data != NULL ? text.data : "");
    weft_str_done(&text);
}

static void on_done(void *arg, const weft_err *err, enum weft_finish finish)
{
    struct run *r = arg;
    struct weft_app *app = r->app;
    if (!app->opt->json && !r->newline)
        weft_output_puts(app->out, "\n");
    weft_output_settle(app->out);
    if (app->closing)
        return;
    if (err != NULL) {
        fail(r, err);
        return;
    }
    r->finish = finish;
    if (finish == WEFT_FINISH_CONTEXT && !app->opt->json)
        fprintf(stderr, "weft: the context of %u positions is full: the answer was cut%s\n",
                app->file.context, app->file.context < app->model.context_max ? "; raise -c" : "");
    weft_cluster_stats(app->cluster, on_stats, r);
}

static void on_open(void *arg, const weft_err *err)
{
    struct weft_app *app = arg;
    struct run *r = app->command;
    weft_err why = {0};
    if (err != NULL) {
        fail(r, err);
        return;
    }
    if (app->have_plan && app->plan.predicted && app->plan.pinned && app->plan.single_better >= 0)
        fprintf(stderr, "weft: %s alone would be faster than the stages of the file\n",
                app->file.devices[app->plan.single_better].name);
    if (weft_conversation_answer(r->conversation, &why) < 0)
        fail(r, &why);
}

static const struct weft_conversation_events events = {
    .text = on_text, .shifted = on_shift, .done = on_done};

int weft_cmd_run(struct weft_app *app)
{
    struct run r = {.app = app, .newline = true};
    struct weft_str prompt = {0};
    weft_err err = {0};
    int code;
    app->command = &r;
    if (weft_input_prompt(app->opt, &prompt, &err) < 0 || weft_app_load(app, true, &err) < 0 ||
        weft_conversation_open(app, app->opt->raw, &events, &r, &r.conversation, &err) < 0 ||
        weft_conversation_say(r.conversation, prompt.data, prompt.size, &err) < 0) {
        code = weft_app_fail(app, &err);
    } else {
        weft_app_open_cluster(app, WEFT_APP_DEPLOY, on_open);
        code = app->loop(app);
    }
    weft_conversation_close(r.conversation);
    weft_str_done(&r.text);
    weft_str_done(&prompt);
    return code;
}
