/*
 * Chat template, see template.h: the face of the Jinja interpreter for conversations.
 */
#include "coordinator/template.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/jinja_json.h"

struct weft_template {
    struct jinja_source source;
};

/* Roles that may stand in a file; a template spells control tokens with them. */
static const char *const known_roles[] = {"system",    "user",     "assistant", "tool",
                                          "developer", "function", "ipython",   NULL};

void weft_rendered_done(struct weft_rendered *r)
{
    weft_str_done(&r->text);
    free(r->spans);
    *r = (struct weft_rendered){0};
}

/* ------------------------------------------------------------------ opening */

/* What a person can do about a template that does not run. */
static int advise(int r, weft_err *err)
{
    char names[128] = "";
    size_t used = 0;
    if (r != -WEFT_EUNSUPPORTED || err == NULL)
        return r;
    for (size_t i = 0; weft_template_names[i] != NULL && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "",
                                 weft_template_names[i]);
    const size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof err->text - n, "; use --template NAME (%s) or --raw", names);
    return r;
}

int weft_template_open(const char *source, size_t n, struct weft_template **ret, weft_err *err)
{
    struct weft_template *t = calloc(1, sizeof *t);
    if (t == NULL)
        return weft_fail(err, WEFT_ENOMEM, "chat template");
    int r = jinja_source_open(source, n, &t->source, err);
    if (r < 0)
        weft_template_close(t);
    else
        *ret = t;
    return r;
}

int weft_template_open_model(const struct weft_gguf *g, bool tools, struct weft_template **ret,
                             weft_err *err)
{
    static const char plain[] = "tokenizer.chat_template";
    static const char with_tools[] = "tokenizer.chat_template.tool_use";
    const char *key = tools && weft_gguf_kv(g, with_tools) != NULL ? with_tools : plain;
    struct weft_gguf_string source;
    if (weft_gguf_kv(g, key) == NULL)
        return advise(weft_fail(err, WEFT_EUNSUPPORTED,
                                "key %s is missing: this model has no chat template", key),
                      err);
    int r = weft_gguf_str(g, key, &source, err);
    return r < 0 ? r : advise(weft_template_open(source.data, (size_t)source.size, ret, err), err);
}

int weft_template_open_gguf(const struct weft_gguf *g, struct weft_template **ret, weft_err *err)
{
    return weft_template_open_model(g, false, ret, err);
}

int weft_template_open_builtin(const char *name, struct weft_template **ret, weft_err *err)
{
    const char *source = weft_template_builtin(name);
    char quoted[WEFT_QUOTE_SIZE];
    if (source == NULL)
        return weft_fail(err, WEFT_EUSAGE, "there is no chat template %s",
                         weft_quote(quoted, sizeof quoted, name, strlen(name)));
    return weft_template_open(source, strlen(source), ret, err);
}

void weft_template_close(struct weft_template *t)
{
    if (t == NULL)
        return;
    jinja_source_done(&t->source);
    free(t);
}

/* ------------------------------------------------------------------ what the template wrote */

static int add_span(struct weft_rendered *out, size_t start, size_t size, weft_err *err)
{
    if (out->n_spans == out->spans_room) {
        const size_t room = 2 * out->spans_room + 16;
        struct weft_span *grown = realloc(out->spans, room * sizeof *grown);
        if (grown == NULL)
            return weft_fail(err, WEFT_ENOMEM, "chat template: no memory for %zu spans", room);
        out->spans = grown;
        out->spans_room = room;
    }
    out->spans[out->n_spans++] = (struct weft_span){start, size};
    return 0;
}

/* Text and its runs of trusted bytes. */
static int take_output(const struct jinja_buffer *b, struct weft_rendered *out, weft_err *err)
{
    int r = 0;
    weft_str_clear(&out->text);
    out->n_spans = 0;
    weft_str_add(&out->text, b->used > 0 ? b->text : "", b->used);
    if (out->text.failed)
        return weft_fail(err, WEFT_ENOMEM, "chat template: no memory for %zu bytes", b->used);
    if (b->marks == NULL)
        return b->trusted && b->used > 0 ? add_span(out, 0, b->used, err) : 0;
    for (size_t at = 0, end; r == 0 && at < b->used; at = end) {
        const uint8_t *change = memchr(b->marks + at, b->marks[at] ? 0 : 1, b->used - at);
        end = change != NULL ? (size_t)(change - b->marks) : b->used;
        if (b->marks[at])
            r = add_span(out, at, end - at, err);
    }
    return r;
}

/* ------------------------------------------------------------------ variables */

static int set_text(struct jinja_run *run, const char *name, const char *text, size_t size)
{
    struct jinja_value v;
    if (!weft_utf8_valid(text, size, NULL))
        return weft_fail(run->err, WEFT_EMODEL, "chat template: %s is not valid UTF-8", name);
    int r = jinja_text(run, size > 0 ? text : "", size, true, &v);
    return r == 0 ? jinja_set(run, run->scope, name, strlen(name), &v) : r;
}

static int set_vars(struct jinja_run *run, const struct weft_template_vars *vars)
{
    const struct jinja_value prompt = jinja_bool(vars->add_generation_prompt);
    int r = set_text(run, "bos_token", vars->bos_token, vars->bos_size);
    if (r == 0)
        r = set_text(run, "eos_token", vars->eos_token, vars->eos_size);
    return r == 0 ? jinja_set(run, run->scope, "add_generation_prompt", 21, &prompt) : r;
}

/* Roles go into the template's own text, so only known ones are let in. */
static int check_message(size_t i, const struct weft_message *m, weft_err *err)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    size_t offset, k = 0;
    while (k < sizeof roles / sizeof roles[0] && strcmp(m->role, roles[k]) != 0)
        k++;
    if (k == sizeof roles / sizeof roles[0])
        return weft_fail(err, WEFT_EUSAGE,
                         "message %zu: unknown role, expected system, user, assistant or tool", i);
    if (!weft_utf8_valid(m->content, m->content_size, &offset))
        return weft_fail(
            err, WEFT_EUSAGE,
            "message %zu: byte %zu (0x%02X) is not valid UTF-8; convert the text to UTF-8", i,
            offset, (unsigned)(uint8_t)m->content[offset]);
    return 0;
}

/* {'role': …, 'content': …} */
static int message_value(struct jinja_run *run, const struct weft_message *m,
                         struct jinja_value *ret)
{
    int r = jinja_dict_new(run, JINJA_DICT, 2, ret);
    if (r < 0)
        return r;
    struct jinja_pair *pairs = ret->dict->pairs;
    ret->dict->n = 2;
    r = jinja_text(run, "role", 4, true, &pairs[0].key);
    if (r == 0)
        r = jinja_text(run, m->role, strlen(m->role), true, &pairs[0].value);
    if (r == 0)
        r = jinja_text(run, "content", 7, true, &pairs[1].key);
    if (r == 0)
        r = jinja_text(run, m->content, m->content_size, false, &pairs[1].value);
    return r;
}

/* ------------------------------------------------------------------ rendering */

/* A run with room for variables; its own error, because the interpreter looks at it. */
static int open_run(struct jinja_run *run, const struct weft_template *t,
                    const struct weft_template_vars *vars, struct jinja_scope *globals,
                    weft_err *err)
{
    jinja_init(run, &t->source, err);
    *globals = (struct jinja_scope){0};
    run->scope = globals;
    run->now = vars->now;
    if (vars->steps_max > 0 && vars->steps_max < run->steps_max)
        run->steps_max = vars->steps_max;
    return set_vars(run, vars);
}

static int finish_run(struct jinja_run *run, int r, struct weft_rendered *ret, weft_err *err)
{
    if (r == 0)
        r = jinja_execute(run);
    if (r == 0)
        r = take_output(run->out, ret, run->err);
    if (r < 0 && err != NULL)
        *err = *run->err;
    jinja_done(run);
    return r;
}

int weft_template_render(const struct weft_template *t, const struct weft_template_vars *vars,
                         const struct weft_message *messages, size_t n_messages,
                         struct weft_rendered *ret, weft_err *err)
{
    struct jinja_run run;
    struct jinja_scope globals;
    struct jinja_value list;
    weft_err own = {0};
    if (n_messages > WEFT_TEMPLATE_MESSAGES_MAX)
        return weft_fail(err, WEFT_EUSAGE, "conversation: found %zu messages, expected at most %u",
                         n_messages, WEFT_TEMPLATE_MESSAGES_MAX);
    for (size_t i = 0; i < n_messages; i++) {
        int r = check_message(i, &messages[i], err);
        if (r < 0)
            return r;
    }
    int r = open_run(&run, t, vars, &globals, &own);
    if (r == 0)
        r = jinja_list_new(&run, JINJA_LIST, n_messages, &list);
    for (size_t i = 0; r == 0 && i < n_messages; i++)
        r = message_value(&run, &messages[i], &list.list->items[i]);
    if (r == 0)
        r = jinja_set(&run, &globals, "messages", 8, &list);
    return finish_run(&run, r, ret, err);
}

/* An object with a list of objects. */
static int check_input(const json_t *input, weft_err *err)
{
    const json_t *messages = json_object_get(input, "messages");
    if (!json_is_object(input))
        return weft_fail(err, WEFT_EUSAGE, "conversation: expected a JSON object with messages");
    if (!json_is_array(messages))
        return weft_fail(err, WEFT_EUSAGE, "conversation: messages is %s, expected a list",
                         messages != NULL ? "no list" : "missing");
    const size_t n = json_array_size(messages);
    if (n > WEFT_TEMPLATE_MESSAGES_MAX)
        return weft_fail(err, WEFT_EUSAGE, "conversation: found %zu messages, expected at most %u",
                         n, WEFT_TEMPLATE_MESSAGES_MAX);
    for (size_t i = 0; i < n; i++)
        if (!json_is_object(json_array_get(messages, i)))
            return weft_fail(err, WEFT_EUSAGE, "message %zu: expected an object with role", i);
    return 0;
}

int weft_template_render_json(const struct weft_template *t, const struct weft_template_vars *vars,
                              const struct json_t *input, struct weft_rendered *ret, weft_err *err)
{
    struct jinja_run run;
    struct jinja_scope globals;
    struct jinja_value v;
    weft_err own = {0};
    /* The iterator of jansson takes objects that may be changed; this does not change them. */
    json_t *object = (json_t *)(uintptr_t)input;
    int r = check_input(input, err);
    if (r < 0)
        return r;
    r = open_run(&run, t, vars, &globals, &own);
    for (void *at = json_object_iter(object); r == 0 && at != NULL;
         at = json_object_iter_next(object, at)) {
        const char *name = json_object_iter_key(at);
        const bool messages = strcmp(name, "messages") == 0;
        r = jinja_from_json(&run, json_object_iter_value(at), messages ? known_roles : NULL, &v);
        if (r == 0)
            r = jinja_set(&run, &globals, name, strlen(name), &v);
    }
    return finish_run(&run, r, ret, err);
}

/* True if the template itself wrote the BOS token at the start. */
static bool starts_with(const struct weft_rendered *r, const char *bos, size_t n)
{
    return n > 0 && r->n_spans > 0 && r->spans[0].start == 0 && r->spans[0].size >= n &&
           memcmp(r->text.data, bos, n) == 0;
}

int weft_template_encode(const struct weft_template *t, const struct weft_tokenizer *tokenizer,
                         const struct weft_message *messages, size_t n_messages,
                         bool add_generation_prompt, int32_t **ret_ids, size_t *ret_n,
                         weft_err *err)
{
    struct weft_rendered out = {0};
    struct weft_template_vars vars = {.add_generation_prompt = add_generation_prompt};
    vars.bos_token = weft_tokenizer_text(tokenizer, weft_tokenizer_bos(tokenizer), &vars.bos_size);
    vars.eos_token = weft_tokenizer_text(tokenizer, weft_tokenizer_eos(tokenizer), &vars.eos_size);
    int r = advise(weft_template_render(t, &vars, messages, n_messages, &out, err), err);
    if (r < 0)
        goto out;
    unsigned flags = starts_with(&out, vars.bos_token, vars.bos_size) ? 0 : WEFT_ENCODE_BOS;
    r = weft_tokenizer_encode_spans(tokenizer, out.text.data, out.text.size, out.spans, out.n_spans,
                                    flags, ret_ids, ret_n, err);
out:
    weft_rendered_done(&out);
    return r;
}
