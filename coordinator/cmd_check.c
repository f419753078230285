/*
 * weft check: every error of a cluster file, its plan file and what its model says against them.
 * Reads files only; no device is asked.
 */
#include <stdio.h>
#include <string.h>

#include "coordinator/app.h"
#include "coordinator/output.h"

/* Stages run from layer 0 without gaps already: only their end may differ from the model's. */
static int check_against_model(const struct weft_app *app, weft_err *err)
{
    const struct weft_cluster_file *f = &app->file;
    const struct weft_model *m = &app->model;
    const char *path = app->opt->plan != NULL ? app->opt->plan : app->opt->cluster;
    uint32_t end = 0;
    if (f->context > m->context_max)
        return weft_fail(err, WEFT_ECONTEXT, "context %u: %s was made for %u positions at most",
                         f->context, m->name, m->context_max);
    for (uint32_t i = 0; i < f->n_stages; i++)
        end += f->stages[i].n_layers;
    if (f->n_stages == 0 || end == m->n_layers)
        return 0;
    if (end > m->n_layers)
        return weft_fail(err, WEFT_ECONFIG,
                         "%s: the stages end with layer %u, expected %u: %s has %u layers", path,
                         end - 1, m->n_layers - 1, m->name, m->n_layers);
    return weft_fail(err, WEFT_ECONFIG,
                     "%s: layers %u-%u are in no stage: %s has %u layers, the stages end with %u",
                     path, end, m->n_layers - 1, m->name, m->n_layers, end - 1);
}

static int check(struct weft_app *app, struct weft_str *report, weft_err *err)
{
    const struct weft_options *o = app->opt;
    int r = weft_cluster_file_load(o->cluster, &app->file, report, err);
    if (r < 0)
        return r;
    app->have_file = true;
    if (o->plan != NULL)
        r = weft_cluster_file_plan(&app->file, o->plan, report, err);
    const bool named = o->model != NULL || app->file.model != NULL;
    if (r == 0 && named)
        r = weft_app_load_model(app, err);
    if (r == 0 && named)
        r = check_against_model(app, err);
    return r;
}

static void text_result(const struct weft_app *app, struct weft_str *out)
{
    const struct weft_cluster_file *f = &app->file;
    weft_str_addf(out, "%s: %u device%s, ", app->opt->cluster, f->n_devices,
                  f->n_devices == 1 ? "" : "s");
    if (f->n_stages > 0)
        weft_str_addf(out, "%u stage%s, ", f->n_stages, f->n_stages == 1 ? "" : "s");
    else
        weft_str_adds(out, "stages left to the planner, ");
    if (app->have_model)
        weft_str_addf(out, "model %s of %u layers: no errors\n", app->model.name,
                      app->model.n_layers);
    else
        weft_str_adds(out, "no model (give one with -m): no errors\n");
}

static void json_result(const struct weft_app *app, const struct weft_str *report,
                        const weft_err *err, struct weft_str *out)
{
    const struct weft_cluster_file *f = &app->file;
    weft_str_adds(out, "{\"file\": ");
    weft_str_add_json(out, app->opt->cluster, strlen(app->opt->cluster));
    weft_str_addf(out, ", \"ok\": %s, \"error\": ", err->code == 0 ? "true" : "false");
    weft_str_add_json(out, err->text, strlen(err->text));
    weft_str_adds(out, ", \"report\": ");
    weft_str_add_json(out, report->data != NULL ? report->data : "", report->size);
    weft_str_addf(out, ", \"devices\": %u, \"stages\": %u, \"model\": ", f->n_devices, f->n_stages);
    if (app->have_model)
        weft_str_add_json(out, app->model.name, strlen(app->model.name));
    else
        weft_str_adds(out, "null");
    weft_str_addf(out, ", \"layers\": %u}\n", app->have_model ? app->model.n_layers : 0);
}

int weft_cmd_check(struct weft_app *app)
{
    struct weft_str report = {0}, out = {0};
    weft_err err = {0};
    int code = WEFT_EXIT_OK;
    if (check(app, &report, &err) < 0) {
        if (report.size > 0 && !app->opt->json)
            fputs(report.data, stderr);
        code = weft_app_fail(app, &err);
    } else if (!app->opt->json) {
        text_result(app, &out);
    }
    if (app->opt->json)
        json_result(app, &report, &err, &out);
    if (out.size > 0)
        weft_output_write(app->out, out.data, out.size);
    weft_str_done(&report);
    weft_str_done(&out);
    return code;
}
