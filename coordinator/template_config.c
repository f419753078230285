/*
 * Sources of chat templates, see template_config.h.
 */
#include "coordinator/template_config.h"

#include <jansson.h>
#include <string.h>

#include "coordinator/input.h"

void weft_template_config_done(struct weft_template_config *c)
{
    weft_template_close(c->template);
    weft_str_done(&c->bos);
    weft_str_done(&c->eos);
    *c = (struct weft_template_config){0};
}

/* ------------------------------------------------------------------ tokenizer_config.json */

/* A token is a text or an object with its text as "content". */
static void take_token(const json_t *config, const char *key, struct weft_str *ret)
{
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v))
        v = json_object_get(v, "content");
    if (json_is_string(v))
        weft_str_add(ret, json_string_value(v), json_string_length(v));
}

/* The template of that name in the list; NULL: none. */
static const json_t *named_template(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i), *label = json_object_get(item, "name");
        if (json_is_string(label) && strcmp(json_string_value(label), name) == 0)
            return json_object_get(item, "template");
    }
    return NULL;
}

static int take_config(const json_t *config, bool tools, struct weft_template_config *ret,
                       weft_err *err)
{
    const json_t *source = json_object_get(config, "chat_template");
    if (json_is_array(source)) {
        const json_t *list = source;
        source = tools ? named_template(list, "tool_use") : NULL;
        if (source == NULL)
            source = named_template(list, "default");
    }
    if (!json_is_string(source))
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "chat_template: expected a text, or a list with one named default");
    take_token(config, "bos_token", &ret->bos);
    take_token(config, "eos_token", &ret->eos);
    return weft_template_open(json_string_value(source), json_string_length(source), &ret->template,
                              err);
}

static int parse_config(const struct weft_str *text, bool tools, struct weft_template_config *ret,
                        weft_err *err)
{
    json_error_t why;
    json_t *config = json_loadb(text->size > 0 ? text->data : "", text->size, JSON_ALLOW_NUL, &why);
    if (config == NULL)
        return weft_fail(err, WEFT_EUSAGE, "%d:%d: %s", why.line, why.column, why.text);
    int r = take_config(config, tools, ret, err);
    json_decref(config);
    return r;
}

int weft_template_config_file(const char *path, bool tools, struct weft_template_config *ret,
                              weft_err *err)
{
    struct weft_str text = {0};
    const size_t n = strlen(path);
    *ret = (struct weft_template_config){0};
    int r = weft_input_file(path, &text, err);
    if (r < 0)
        goto out; /* names the file already */
    if (n > 5 && strcmp(path + n - 5, ".json") == 0)
        r = parse_config(&text, tools, ret, err);
    else
        r = weft_template_open(text.size > 0 ? text.data : "", text.size, &ret->template, err);
    if (r == 0 && (ret->bos.failed || ret->eos.failed))
        r = weft_fail(err, WEFT_ENOMEM, "tokens");
    if (r < 0)
        weft_err_prefix(err, "%s", path);
out:
    weft_str_done(&text);
    if (r < 0)
        weft_template_config_done(ret);
    return r;
}

/* ------------------------------------------------------------------ models */

static void model_token(const struct weft_gguf *g, const char *key, struct weft_str *ret)
{
    const struct weft_gguf_kv *tokens = weft_gguf_kv(g, "tokenizer.ggml.tokens");
    struct weft_gguf_string text;
    uint64_t pos = 0;
    uint32_t id;
    if (tokens == NULL || weft_gguf_u32(g, key, &id, NULL) < 0)
        return;
    for (uint64_t i = 0; weft_gguf_next_string(tokens, &pos, &text); i++) {
        if (i == id) {
            weft_str_add(ret, text.data, (size_t)text.size);
            return;
        }
    }
}

int weft_template_config_model(const struct weft_gguf *g, bool tools,
                               struct weft_template_config *ret, weft_err *err)
{
    *ret = (struct weft_template_config){0};
    int r = weft_template_open_model(g, tools, &ret->template, err);
    if (r < 0)
        return r;
    model_token(g, "tokenizer.ggml.bos_token_id", &ret->bos);
    model_token(g, "tokenizer.ggml.eos_token_id", &ret->eos);
    if (ret->bos.failed || ret->eos.failed) {
        weft_template_config_done(ret);
        return weft_fail(err, WEFT_ENOMEM, "tokens");
    }
    return 0;
}
