/*
 * App: what the commands of weft share: the loop, the terminal, interrupts, and the way from
 * options to a deployed cluster. main.c makes it over libuv; commands see only this header.
 */
#ifndef WEFT_COORDINATOR_APP_H
#define WEFT_COORDINATOR_APP_H

#include "base/model_file.h"
#include "coordinator/cluster.h"
#include "coordinator/options.h"
#include "coordinator/template.h"
#include "coordinator/tokenizer.h"

struct weft_output; /* coordinator/output.h */
struct weft_app_uv; /* main.c */

struct weft_app {
    const struct weft_options *opt;
    const char *(*env)(const char *name); /* variables of the environment */
    struct weft_io *io;
    struct weft_output *out; /* stdout through a thread: a slow reader never stops heartbeats */
    bool out_tty, err_tty, colour;
    uint32_t threads;       /* of the private daemon; 0: all cores */
    uint32_t context_least; /* a context nobody asked for has so many positions at least, if the
                               model was made for them */
    /* main.c: */
    int (*loop)(struct weft_app *app); /* runs until stop; returns stop's code */
    void (*stop)(struct weft_app *app, int code);
    void (*read_line)(struct weft_app *app); /* asks for a line of stdin → line() */
    struct weft_app_uv *uv;
    /* set by the command; called on the loop: */
    void (*interrupted)(struct weft_app *app); /* Ctrl-C; NULL: ends the command, 130 */
    void (*line)(struct weft_app *app, const char *text, size_t n); /* NULL text: end of input */
    void (*broken)(void *app,
                   const weft_err *why); /* the cluster broke between two answers; may be NULL */
    void *command;
    /* set by weft_app_open_cluster: */
    struct weft_cluster_file file;
    bool have_file;
    char *model_path; /* of the model that was found; a split one: of the part that was named */
    struct weft_model_file model_file;
    struct weft_model model;
    bool have_model;
    struct weft_cluster *cluster;
    struct weft_device_facts *facts; /* [n_devices] */
    struct weft_plan_request request;
    struct weft_plan plan;
    bool have_plan;
    int daemon_pid; /* private daemon; 0: none */
    struct weft_progress *progress;
    weft_done_fn *opened;
    int exit_code;
    bool closing;
};

/* Prints "weft: TEXT" and remembers the exit code of err; returns it. */
int weft_app_fail(struct weft_app *app, const weft_err *err);
/* Prints "weft: warning: TEXT"; nothing for NULL. */
void weft_app_warn(const char *text);

/* From options to a cluster, in steps; each is asynchronous and calls `opened(app, err)` at its
 * end. */
enum weft_app_depth { WEFT_APP_LOOK, WEFT_APP_PLAN, WEFT_APP_DEPLOY };
int weft_app_load(struct weft_app *app, bool need_model,
                  weft_err *err) WEFT_MUST_USE; /* files only */
/* Finds the model that options or cluster file name (coordinator/model_path.h) and opens its files:
 * sets app->model_path and model_file, which weft_app_done frees. The error names the file. */
int weft_app_open_model(struct weft_app *app, weft_err *err) WEFT_MUST_USE;
/* That, and app->model. */
int weft_app_load_model(struct weft_app *app, weft_err *err) WEFT_MUST_USE;
void weft_app_open_cluster(struct weft_app *app, enum weft_app_depth depth, weft_done_fn *opened);
/* Releases the cluster and then stops the loop with `code`. */
void weft_app_close_cluster(struct weft_app *app, int code);
/* After the loop: ends the private daemon and drops the plan, so that weft_app_open_cluster may be
 * called again. */
void weft_app_leave_cluster(struct weft_app *app);
void weft_app_done(struct weft_app *app);

int weft_cmd_check(struct weft_app *app);
int weft_cmd_status(struct weft_app *app);
int weft_cmd_plan(struct weft_app *app);
int weft_cmd_run(struct weft_app *app);
int weft_cmd_chat(struct weft_app *app);
int weft_cmd_inspect(struct weft_app *app);
int weft_cmd_eval(struct weft_app *app);
int weft_cmd_bench(struct weft_app *app);
int weft_cmd_tokenize(struct weft_app *app);
int weft_cmd_detokenize(struct weft_app *app);
int weft_cmd_template(struct weft_app *app);

#endif
