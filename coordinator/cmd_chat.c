/*
 * weft chat: turns with history. /reset forgets, /quit or the end of input leaves; Ctrl-C stops an
 * answer, not the chat; at the prompt it says how to leave.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/figures.h"
#include "coordinator/output.h"

struct chat {
    struct weft_app *app;
    struct weft_conversation *conversation;
    struct weft_stage_report *before; /* at the end of the last turn, [n_stages] */
    bool newline;
};

static void ask(struct chat *ch)
{
    if (ch->app->err_tty) {
        fputs("> ", stderr);
        fflush(stderr);
    }
    ch->app->read_line(ch->app);
}

static void on_stats(void *arg, const weft_err *err)
{
    struct chat *ch = arg;
    struct weft_app *app = ch->app;
    if (err == NULL) {
        struct weft_conversation_figures figures;
        struct weft_str out = {0};
        uint32_t n;
        const struct weft_stage_report *rp = weft_cluster_report(app->cluster, &n);
        weft_conversation_figures(ch->conversation, &figures);
        weft_figures_text(app, &figures, ch->before, &out);
        fputs(out.data, stderr);
        weft_str_done(&out);
        free(ch->before);
        ch->before = calloc(n, sizeof *ch->before);
        if (ch->before != NULL)
            memcpy(ch->before, rp, n * sizeof *rp);
    }
    ask(ch);
}

static void on_text(void *arg, const char *data, size_t n)
{
    struct chat *ch = arg;
    weft_output_write(ch->app->out, data, n);
    ch->newline = data[n - 1] == '\n';
}

static void on_shift(void *arg, uint32_t turns, uint32_t kept)
{
    struct chat *ch = arg;
    struct weft_str text = {0};
    weft_figures_shift(ch->app, turns, kept, &text);
    weft_output_settle(ch->app->out);
    fprintf(stderr, "%s%s", ch->app->err_tty && !ch->newline ? "\n" : "",
            text.data != NULL ? text.data : "");
    weft_str_done(&text);
}

static void on_done(void *arg, const weft_err *err, enum weft_finish finish)
{
    struct chat *ch = arg;
    struct weft_app *app = ch->app;
    if (!ch->newline)
        weft_output_puts(app->out, "\n");
    ch->newline = true;
    weft_output_settle(app->out);
    if (app->closing)
        return;
    if (err != NULL && err->code == WEFT_ECANCELLED) {
        fputs("(stopped)\n", stderr);
        ask(ch);
        return;
    }
    if (err != NULL) {
        weft_app_close_cluster(app, weft_app_fail(app, err));
        return;
    }
    if (finish == WEFT_FINISH_CONTEXT)
        fprintf(stderr, "(the context of %u positions is full: %s)\n", app->file.context,
                app->file.context_shift ? "this turn alone fills it, the answer was cut"
                                        : "/reset starts anew, --context-shift drops old turns");
    weft_cluster_stats(app->cluster, on_stats, ch);
}

static void on_line(struct weft_app *app, const char *text, size_t n)
{
    struct chat *ch = app->command;
    weft_err err = {0};
    if (text == NULL || strcmp(text, "/quit") == 0) {
        if (text == NULL && app->err_tty)
            fputs("\n", stderr);
        weft_app_close_cluster(app, WEFT_EXIT_OK);
        return;
    }
    if (strcmp(text, "/reset") == 0) {
        weft_conversation_reset(ch->conversation);
        fputs("(forgotten)\n", stderr);
        ask(ch);
        return;
    }
    if (text[0] == '/') {
        fprintf(stderr, "weft: unknown command '%s': there are /reset and /quit\n", text);
        ask(ch);
        return;
    }
    if (strspn(text, " \t\r") == n) { /* nothing was said */
        ask(ch);
        return;
    }
    if (weft_conversation_say(ch->conversation, text, n, &err) < 0 ||
        weft_conversation_answer(ch->conversation, &err) < 0) {
        (void)weft_app_fail(app, &err); /* the chat goes on */
        if (err.code == WEFT_ECONTEXT)
            fprintf(stderr, "(a shorter line%s may do)\n",
                    app->file.context_shift
                        ? ""
                        : ", /reset, which forgets what was said, or --context-shift");
        ask(ch);
    }
}

static void on_interrupt(struct weft_app *app)
{
    struct chat *ch = app->command;
    if (weft_conversation_busy(ch->conversation))
        weft_conversation_cancel(ch->conversation);
    else
        fputs("\n(/quit or Ctrl-D leaves)\n> ", stderr);
}

/* A device was lost: an answer under way has been told by on_done; between turns this is the only
 * word. */
static void on_broken(void *arg, const weft_err *why)
{
    struct weft_app *app = arg;
    if (!app->closing)
        weft_app_close_cluster(app, weft_app_fail(app, why));
}

static void on_open(void *arg, const weft_err *err)
{
    struct weft_app *app = arg;
    struct chat *ch = app->command;
    if (err != NULL) {
        weft_app_close_cluster(app, weft_app_fail(app, err));
        return;
    }
    app->interrupted = on_interrupt;
    if (app->err_tty)
        fprintf(stderr, "%s, context %u. /reset forgets, /quit leaves, Ctrl-C stops an answer.\n",
                app->model.name, app->file.context);
    ask(ch);
}

static const struct weft_conversation_events events = {
    .text = on_text, .shifted = on_shift, .done = on_done};

int weft_cmd_chat(struct weft_app *app)
{
    struct chat ch = {.app = app, .newline = true};
    weft_err err = {0};
    int code;
    app->command = &ch;
    app->line = on_line;
    app->broken = on_broken;
    if (weft_app_load(app, true, &err) < 0 ||
        weft_conversation_open(app, app->opt->raw, &events, &ch, &ch.conversation, &err) < 0) {
        code = weft_app_fail(app, &err);
    } else {
        weft_app_open_cluster(app, WEFT_APP_DEPLOY, on_open);
        code = app->loop(app);
    }
    weft_conversation_close(ch.conversation);
    free(ch.before);
    return code;
}
