/*
 * weft plan: what would run where, how much memory it takes and how fast it would be. Loads
 * nothing.
 */
#include "coordinator/app.h"
#include "coordinator/output.h"

static void on_open(void *arg, const weft_err *err)
{
    struct weft_app *app = arg;
    struct weft_str out = {0};
    if (err != NULL) {
        weft_app_close_cluster(app, weft_app_fail(app, err));
        return;
    }
    if (app->opt->json)
        weft_plan_json(&app->request, &app->plan, &out);
    else
        weft_plan_text(&app->request, &app->plan, app->colour, &out);
    weft_output_write(app->out, out.data, out.size);
    weft_str_done(&out);
    weft_app_close_cluster(app, WEFT_EXIT_OK);
}

int weft_cmd_plan(struct weft_app *app)
{
    weft_err err = {0};
    if (weft_app_load(app, true, &err) < 0)
        return weft_app_fail(app, &err);
    weft_app_open_cluster(app, WEFT_APP_PLAN, on_open);
    return app->loop(app);
}
