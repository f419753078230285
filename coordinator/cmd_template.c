/*
 * weft template: the text that a chat template makes of a conversation in a JSON file, for looking
 * at templates and for tests. With --json also which runs of it the template itself wrote.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "coordinator/app.h"
#include "coordinator/input.h"
#include "coordinator/output.h"
#include "coordinator/template_config.h"

static int read_conversation(const char *path, json_t **ret, weft_err *err)
{
    struct weft_str text = {0};
    json_error_t why;
    int r = weft_input_file(path, &text, err);
    if (r == 0) {
        *ret = json_loadb(text.size > 0 ? text.data : "", text.size, JSON_ALLOW_NUL, &why);
        if (*ret == NULL)
            r = weft_fail(err, WEFT_EUSAGE, "%s:%d:%d: %s",
                          strcmp(path, "-") == 0 ? "standard input" : path, why.line, why.column,
                          why.text);
    }
    weft_str_done(&text);
    return r;
}

/* "2026-01-02 03:04:05" */
static int read_time(const char *text, struct tm *ret, weft_err *err)
{
    char quoted[WEFT_QUOTE_SIZE];
    *ret = (struct tm){.tm_isdst = -1};
    const char *end = strptime(text, "%Y-%m-%d %H:%M:%S", ret);
    if (end == NULL || *end != '\0')
        return weft_fail(err, WEFT_EUSAGE, "--now: found %s, expected YYYY-MM-DD HH:MM:SS",
                         weft_quote(quoted, sizeof quoted, text, strlen(text)));
    return 0;
}

static int open_template(struct weft_app *app, bool tools, struct weft_template_config *ret,
                         weft_err *err)
{
    const struct weft_options *opt = app->opt;
    if (opt->file != NULL)
        return weft_template_config_file(opt->file, tools, ret, err);
    if (opt->model == NULL)
        return weft_template_open_builtin(opt->template, &ret->template, err);
    int r = weft_app_open_model(app, err);
    if (r < 0)
        return r; /* names the file already */
    r = weft_template_config_model(&app->model_file.gguf, tools, ret, err);
    if (r < 0)
        weft_err_prefix(err, "%s", app->model_path);
    return r;
}

static void print(struct weft_app *app, const struct weft_rendered *text)
{
    struct weft_str out = {0};
    const char *data = text->text.size > 0 ? text->text.data : "";
    if (!app->opt->json) {
        weft_output_write_all(app->out, data, text->text.size);
        return;
    }
    weft_str_adds(&out, "{\"text\": ");
    weft_str_add_json(&out, data, text->text.size);
    weft_str_adds(&out, ", \"template_bytes\": [");
    for (size_t i = 0; i < text->n_spans; i++)
        weft_str_addf(&out, "%s[%zu, %zu]", i > 0 ? ", " : "", text->spans[i].start,
                      text->spans[i].start + text->spans[i].size);
    weft_str_adds(&out, "]}\n");
    weft_output_write_all(app->out, out.data, out.size);
    weft_str_done(&out);
}

int weft_cmd_template(struct weft_app *app)
{
    const struct weft_options *opt = app->opt;
    struct weft_template_config config = {0};
    struct weft_template_vars vars = {0};
    struct weft_rendered text = {0};
    json_t *input = NULL;
    struct tm now;
    weft_err err = {0};
    int code = WEFT_EXIT_OK, r = read_conversation(opt->input, &input, &err);
    if (r == 0 && opt->now != NULL)
        r = read_time(opt->now, &now, &err);
    if (r == 0)
        r = open_template(app, json_array_size(json_object_get(input, "tools")) > 0, &config, &err);
    if (r < 0)
        goto out;
    vars.bos_token = opt->bos != NULL ? opt->bos : config.bos.data;
    vars.bos_size = opt->bos != NULL ? strlen(opt->bos) : config.bos.size;
    vars.eos_token = opt->eos != NULL ? opt->eos : config.eos.data;
    vars.eos_size = opt->eos != NULL ? strlen(opt->eos) : config.eos.size;
    vars.now = opt->now != NULL ? &now : NULL;
    r = weft_template_render_json(config.template, &vars, input, &text, &err);
    if (r == 0)
        print(app, &text);
out:
    if (r < 0)
        code = weft_app_fail(app, &err);
    weft_rendered_done(&text);
    weft_template_config_done(&config);
    json_decref(input);
    return code;
}
