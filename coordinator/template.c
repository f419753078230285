/*
 * Interpreter of chat templates, see template.h. Strings are lists of parts that point into the
 * template, the variables and the messages; each part knows whether it came out of a message's
 * content, and nothing is copied until it is put out.
 */
#include "coordinator/template.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/template_ast.h"

#define TREE_BYTES_MAX (64u << 20)   /* a node per byte of the longest source, and its text */
#define VALUES_BYTES_MAX (64u << 20) /* parts of strings of one rendering */

enum value_kind {
    VALUE_UNDEFINED, /* what a message does not have; empty text, false */
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_STRING,
    VALUE_MESSAGES,
    VALUE_MESSAGE,
    VALUE_LOOP,
    VALUE_KIND_COUNT
};

struct part {
    const char *text;
    size_t size;
    bool content; /* of a message: control tokens in it are only text */
};

struct loop {
    const struct loop *up;
    const struct weft_node *node; /* the for block */
    size_t index, count;
};

struct value {
    enum value_kind kind;
    int64_t number;
    const struct part *parts; /* [n_parts] */
    size_t n_parts;
    const struct weft_message *message;
    const struct loop *loop;
};

struct run {
    const struct weft_template *t;
    const struct weft_template_vars *vars;
    const struct weft_message *messages;
    size_t n_messages;
    struct weft_arena arena; /* of parts */
    const struct loop *loop; /* innermost */
    uint32_t steps;
    struct weft_rendered *out;
    weft_err *err;
};

#define refuse(run, node, ...) weft_template_refuse((run)->t, (node)->at, (run)->err, __VA_ARGS__)

void weft_rendered_done(struct weft_rendered *r)
{
    weft_str_done(&r->text);
    free(r->spans);
    *r = (struct weft_rendered){0};
}

/* Line ends become \n, and the one at the end of the text goes, as in Jinja. */
static size_t copy_source(char *out, const char *source, size_t n)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n')
            continue;
        out[m++] = (char)(source[i] == '\r' ? '\n' : source[i]);
    }
    return m > 0 && out[m - 1] == '\n' ? m - 1 : m;
}

int weft_template_open(const char *source, size_t n, struct weft_template **ret, weft_err *err)
{
    size_t offset;
    if (n > WEFT_TEMPLATE_SOURCE_MAX)
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "chat template: found %zu bytes, expected at most %u; use --raw", n,
                         WEFT_TEMPLATE_SOURCE_MAX);
    if (!weft_utf8_valid(source, n, &offset))
        return weft_fail(err, WEFT_EMODEL, "chat template: byte %zu is not valid UTF-8", offset);
    struct weft_template *t = calloc(1, sizeof *t);
    if (t == NULL)
        return weft_fail(err, WEFT_ENOMEM, "chat template: no memory");
    weft_arena_init(&t->arena, TREE_BYTES_MAX);
    char *copy = weft_arena_alloc(&t->arena, n);
    int r;
    if (copy == NULL) {
        r = weft_fail(err, WEFT_ENOMEM, "chat template: no memory for %zu bytes", n);
        goto out;
    }
    t->source = copy;
    t->source_size = copy_source(copy, source, n);
    r = weft_template_parse(t, err);
out:
    if (r < 0)
        weft_template_close(t);
    else
        *ret = t;
    return r;
}

int weft_template_open_gguf(const struct weft_gguf *g, struct weft_template **ret, weft_err *err)
{
    static const char key[] = "tokenizer.chat_template";
    struct weft_gguf_string source;
    if (weft_gguf_kv(g, key) == NULL)
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "key %s is missing: this model has no chat template; use --raw", key);
    int r = weft_gguf_str(g, key, &source, err);
    return r < 0 ? r : weft_template_open(source.data, (size_t)source.size, ret, err);
}

void weft_template_close(struct weft_template *t)
{
    if (t == NULL)
        return;
    weft_arena_done(&t->arena);
    free(t);
}

static struct part *new_parts(struct run *run, size_t n)
{
    struct part *parts = weft_arena_array(&run->arena, n, sizeof *parts);
    if (parts == NULL)
        weft_fail(run->err, WEFT_ENOMEM, "chat template: no memory for %zu parts of text", n);
    return parts;
}

static int string_value(struct run *run, const char *text, size_t size, bool content,
                        struct value *ret)
{
    struct part *part = new_parts(run, 1);
    if (part == NULL)
        return -WEFT_ENOMEM;
    *part = (struct part){text, size, content};
    *ret = (struct value){.kind = VALUE_STRING, .parts = part, .n_parts = size > 0 ? 1 : 0};
    return 0;
}

/* No part of a string is empty, so that it is empty without parts. */
static bool is_true(const struct value *v)
{
    switch (v->kind) {
    case VALUE_BOOL:
    case VALUE_INT:
        return v->number != 0;
    case VALUE_STRING:
        return v->n_parts > 0;
    case VALUE_MESSAGES:
        return v->number > 0;
    case VALUE_MESSAGE:
    case VALUE_LOOP:
        return true;
    default:
        return false;
    }
}

static bool strings_equal(const struct value *a, const struct value *b)
{
    size_t i = 0, j = 0, at = 0, bt = 0; /* part and offset in it */
    while (i < a->n_parts && j < b->n_parts) {
        const struct part *p = &a->parts[i], *q = &b->parts[j];
        size_t left = p->size - at, right = q->size - bt, n = left < right ? left : right;
        if (memcmp(p->text + at, q->text + bt, n) != 0)
            return false;
        i += n == left;
        at = n == left ? 0 : at + n;
        j += n == right;
        bt = n == right ? 0 : bt + n;
    }
    return i == a->n_parts && j == b->n_parts;
}

static bool values_equal(const struct value *a, const struct value *b)
{
    bool numbers = (a->kind == VALUE_INT || a->kind == VALUE_BOOL) &&
                   (b->kind == VALUE_INT || b->kind == VALUE_BOOL); /* true == 1, as in Python */
    if (numbers)
        return a->number == b->number;
    if (a->kind != b->kind)
        return false;
    return a->kind == VALUE_STRING ? strings_equal(a, b)
                                   : a->message == b->message && a->loop == b->loop;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int trim(struct run *run, struct value *v)
{
    struct part *parts = new_parts(run, v->n_parts);
    if (parts == NULL)
        return -WEFT_ENOMEM;
    size_t first = 0, n = v->n_parts;
    for (size_t i = 0; i < n; i++)
        parts[i] = v->parts[i];
    while (first < n && is_space(parts[first].text[0])) {
        parts[first].text++;
        if (--parts[first].size == 0)
            first++;
    }
    while (n > first && is_space(parts[n - 1].text[parts[n - 1].size - 1])) {
        if (--parts[n - 1].size == 0)
            n--;
    }
    v->parts = parts + first;
    v->n_parts = n - first;
    return 0;
}

static bool named(const struct weft_node *node, const char *name)
{
    return node->text_size == strlen(name) && memcmp(node->text, name, node->text_size) == 0;
}

static int eval_name(struct run *run, const struct weft_node *node, struct value *ret)
{
    if (named(node, "loop") && run->loop != NULL) {
        *ret = (struct value){.kind = VALUE_LOOP, .loop = run->loop};
        return 0;
    }
    for (const struct loop *loop = run->loop; loop != NULL; loop = loop->up) {
        if (loop->node->text_size == node->text_size &&
            memcmp(loop->node->text, node->text, node->text_size) == 0) {
            *ret = (struct value){.kind = VALUE_MESSAGE, .message = &run->messages[loop->index]};
            return 0;
        }
    }
    const struct weft_template_vars *vars = run->vars;
    if (named(node, "bos_token"))
        return string_value(run, vars->bos_token, vars->bos_size, false, ret);
    if (named(node, "eos_token"))
        return string_value(run, vars->eos_token, vars->eos_size, false, ret);
    if (named(node, "messages"))
        *ret = (struct value){.kind = VALUE_MESSAGES, .number = (int64_t)run->n_messages};
    else /* add_generation_prompt: the parser knows no other name */
        *ret = (struct value){.kind = VALUE_BOOL, .number = vars->add_generation_prompt};
    return 0;
}

static int loop_member(const struct loop *loop, const struct weft_node *node, struct value *ret)
{
    bool flag = named(node, "first") || named(node, "last");
    size_t number = loop->count; /* length */
    if (flag)
        number = loop->index == (named(node, "first") ? 0 : loop->count - 1);
    else if (!named(node, "length"))
        number = loop->index + (named(node, "index") ? 1 : 0);
    *ret = (struct value){.kind = flag ? VALUE_BOOL : VALUE_INT, .number = (int64_t)number};
    return 0;
}

static int eval_member(struct run *run, const struct weft_node *node, const struct value *object,
                       struct value *ret)
{
    if (object->kind == VALUE_LOOP)
        return loop_member(object->loop, node, ret);
    if (object->kind != VALUE_MESSAGE)
        return refuse(run, node, "member of something that is no message");
    const struct weft_message *m = object->message;
    if (named(node, "role"))
        return string_value(run, m->role, strlen(m->role), false, ret);
    if (named(node, "content"))
        return string_value(run, m->content, m->content_size, true, ret);
    *ret = (struct value){.kind = VALUE_UNDEFINED};
    return 0;
}

static int eval_index(struct run *run, const struct weft_node *node, const struct value *object,
                      struct value *ret)
{
    if (object->kind != VALUE_MESSAGES)
        return refuse(run, node, "index of something that is no list");
    int64_t count = (int64_t)run->n_messages;
    int64_t i = node->number < 0 ? node->number + count : node->number;
    *ret = (struct value){.kind = VALUE_UNDEFINED};
    if (i >= 0 && i < count)
        *ret = (struct value){.kind = VALUE_MESSAGE, .message = &run->messages[i]};
    return 0;
}

static int eval(struct run *run, const struct weft_node *node, struct value *ret);

/* Appends the parts of v to sum; *room is what sum's parts have room for. */
static int append(struct run *run, struct value *sum, size_t *room, const struct value *v)
{
    size_t n = sum->n_parts + v->n_parts;
    struct part *parts = (struct part *)sum->parts;
    if (n > *room) {
        if ((parts = new_parts(run, 2 * n)) == NULL)
            return -WEFT_ENOMEM;
        for (size_t i = 0; i < sum->n_parts; i++)
            parts[i] = sum->parts[i];
        *room = 2 * n;
    }
    for (size_t i = 0; i < v->n_parts; i++)
        parts[sum->n_parts + i] = v->parts[i];
    sum->parts = parts;
    sum->n_parts = n;
    return 0;
}

/* Sum of integers, or strings behind one another. */
static int eval_concat(struct run *run, const struct weft_node *node, struct value *ret)
{
    struct value v;
    size_t room = 0; /* the parts of the first operand are not ours to write behind */
    int r = eval(run, node->a, ret);
    for (const struct weft_node *n = node->a->next; n != NULL && r == 0; n = n->next) {
        if ((r = eval(run, n, &v)) < 0)
            return r;
        if (ret->kind == VALUE_INT && v.kind == VALUE_INT)
            ret->number += v.number; /* nine digits, and a bounded source: far from overflow */
        else if (ret->kind == VALUE_STRING && v.kind == VALUE_STRING)
            r = append(run, ret, &room, &v);
        else
            r = refuse(run, n, "'+' of other things than two strings or two integers");
    }
    return r;
}

/* and, or give the operand that decides, as in Python. */
static int eval_logic(struct run *run, const struct weft_node *node, struct value *ret)
{
    int r = eval(run, node->a, ret);
    for (const struct weft_node *n = node->a->next; n != NULL && r == 0; n = n->next) {
        if (is_true(ret) == (node->kind == WEFT_NODE_OR))
            return 0;
        r = eval(run, n, ret);
    }
    return r;
}

static int step(struct run *run, const struct weft_node *node)
{
    if (run->steps == WEFT_TEMPLATE_STEPS_MAX)
        return refuse(run, node, "more than %u steps for this conversation",
                      WEFT_TEMPLATE_STEPS_MAX);
    run->steps++;
    return 0;
}

static int eval(struct run *run, const struct weft_node *node, struct value *ret)
{
    struct value a, b;
    int r = step(run, node);
    if (r < 0)
        return r;
    switch (node->kind) {
    case WEFT_NODE_STRING:
        return string_value(run, node->text, node->text_size, false, ret);
    case WEFT_NODE_NONE:
        *ret = (struct value){.kind = VALUE_NONE};
        return 0;
    case WEFT_NODE_INT:
    case WEFT_NODE_BOOL:
        *ret = (struct value){.kind = node->kind == WEFT_NODE_INT ? VALUE_INT : VALUE_BOOL,
                              .number = node->number};
        return 0;
    case WEFT_NODE_NAME:
        return eval_name(run, node, ret);
    case WEFT_NODE_CONCAT:
        return eval_concat(run, node, ret);
    case WEFT_NODE_AND:
    case WEFT_NODE_OR:
        return eval_logic(run, node, ret);
    default:
        break;
    }
    if ((r = eval(run, node->a, &a)) < 0)
        return r;
    switch (node->kind) {
    case WEFT_NODE_MEMBER:
        return eval_member(run, node, &a, ret);
    case WEFT_NODE_INDEX:
        return eval_index(run, node, &a, ret);
    case WEFT_NODE_TRIM:
        if (a.kind != VALUE_STRING)
            return refuse(run, node, "trim of something that is no string");
        *ret = a;
        return trim(run, ret);
    case WEFT_NODE_EQUAL:
        if ((r = eval(run, node->a->next, &b)) < 0)
            return r;
        *ret = (struct value){.kind = VALUE_BOOL,
                              .number = values_equal(&a, &b) == (node->number != 0)};
        return 0;
    default: /* WEFT_NODE_NOT; statements never stand in expressions */
        *ret = (struct value){.kind = VALUE_BOOL, .number = !is_true(&a)};
        return 0;
    }
}

/* Appends text; where it is the template's own, the last span grows or a new one starts. */
static int put(struct run *run, const char *text, size_t n, bool content)
{
    struct weft_rendered *out = run->out;
    size_t start = out->text.size;
    if (n > WEFT_TEMPLATE_OUTPUT_MAX - start)
        return weft_fail(run->err, WEFT_ECONTEXT,
                         "conversation: more than %u bytes with the chat template",
                         WEFT_TEMPLATE_OUTPUT_MAX);
    weft_str_add(&out->text, text, n);
    if (out->text.failed)
        return weft_fail(run->err, WEFT_ENOMEM, "chat template: no memory for %zu bytes",
                         start + n);
    if (content || n == 0)
        return 0;
    if (out->n_spans > 0) {
        struct weft_span *last = &out->spans[out->n_spans - 1];
        if (last->start + last->size == start) {
            last->size += n;
            return 0;
        }
    }
    if (out->n_spans == out->spans_room) {
        size_t room = 2 * out->spans_room + 16;
        struct weft_span *grown = realloc(out->spans, room * sizeof *grown);
        if (grown == NULL)
            return weft_fail(run->err, WEFT_ENOMEM, "chat template: no memory for %zu spans", room);
        out->spans = grown;
        out->spans_room = room;
    }
    out->spans[out->n_spans++] = (struct weft_span){start, n};
    return 0;
}

static int put_value(struct run *run, const struct weft_node *node, const struct value *v)
{
    int r = 0;
    if (v->kind != VALUE_STRING && v->kind != VALUE_UNDEFINED)
        return refuse(run, node, "output of something that is no string");
    for (size_t i = 0; i < v->n_parts && r == 0; i++)
        r = put(run, v->parts[i].text, v->parts[i].size, v->parts[i].content);
    return r;
}

static int execute(struct run *run, const struct weft_node *node);

static int execute_for(struct run *run, const struct weft_node *node)
{
    struct value list;
    int r = eval(run, node->a, &list);
    if (r < 0)
        return r;
    if (list.kind != VALUE_MESSAGES)
        return refuse(run, node->a, "for block over something that is no list");
    struct loop loop = {.up = run->loop, .node = node, .count = run->n_messages};
    run->loop = &loop;
    for (; loop.index < loop.count && r == 0; loop.index++) {
        r = step(run, node);
        if (r == 0)
            r = execute(run, node->b);
    }
    run->loop = loop.up;
    return r;
}

static bool is_elif(const struct weft_node *node)
{
    return node->kind == WEFT_NODE_IF && node->number != 0;
}

static int execute_if(struct run *run, const struct weft_node *node)
{
    struct value condition;
    for (;;) {
        int r = eval(run, node->a, &condition);
        if (r < 0)
            return r;
        bool taken = is_true(&condition);
        weft_arena_done(&run->arena);
        if (taken || node->c == NULL || !is_elif(node->c))
            return execute(run, taken ? node->b : node->c);
        node = node->c;
    }
}

/* Values live as long as the statement that made them. */
static int execute_output(struct run *run, const struct weft_node *node)
{
    struct value v;
    int r = eval(run, node->a, &v);
    if (r == 0)
        r = put_value(run, node, &v);
    weft_arena_done(&run->arena);
    return r;
}

static int execute(struct run *run, const struct weft_node *node)
{
    int r = 0;
    for (; node != NULL && r == 0; node = node->next) {
        if ((r = step(run, node)) < 0)
            return r;
        if (node->kind == WEFT_NODE_TEXT)
            r = put(run, node->text, node->text_size, false);
        else if (node->kind == WEFT_NODE_FOR)
            r = execute_for(run, node);
        else if (node->kind == WEFT_NODE_IF)
            r = execute_if(run, node);
        else
            r = execute_output(run, node);
    }
    return r;
}

/* Roles go into the template's own text, so only known ones are let in. */
static int check_message(size_t i, const struct weft_message *m, weft_err *err)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    size_t offset, k = 0;
    while (k < sizeof roles / sizeof roles[0] && strcmp(m->role, roles[k]) != 0)
        k++;
    if (k == sizeof roles / sizeof roles[0])
        return weft_fail(err, WEFT_EUSAGE,
                         "message %zu: unknown role, expected system, user or assistant", i);
    if (!weft_utf8_valid(m->content, m->content_size, &offset))
        return weft_fail(
            err, WEFT_EUSAGE,
            "message %zu: byte %zu (0x%02X) is not valid UTF-8; convert the text to UTF-8", i,
            offset, (unsigned)(uint8_t)m->content[offset]);
    return 0;
}

int weft_template_render(const struct weft_template *t, const struct weft_template_vars *vars,
                         const struct weft_message *messages, size_t n_messages,
                         struct weft_rendered *ret, weft_err *err)
{
    struct run run = {.t = t,
                      .vars = vars,
                      .messages = messages,
                      .n_messages = n_messages,
                      .out = ret,
                      .err = err};
    if (n_messages > WEFT_TEMPLATE_MESSAGES_MAX)
        return weft_fail(err, WEFT_EUSAGE, "conversation: found %zu messages, expected at most %u",
                         n_messages, WEFT_TEMPLATE_MESSAGES_MAX);
    for (size_t i = 0; i < n_messages; i++) {
        int r = check_message(i, &messages[i], err);
        if (r < 0)
            return r;
    }
    weft_str_clear(&ret->text);
    ret->n_spans = 0;
    weft_arena_init(&run.arena, VALUES_BYTES_MAX);
    int r = execute(&run, t->body);
    weft_arena_done(&run.arena);
    return r;
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
    int r = weft_template_render(t, &vars, messages, n_messages, &out, err);
    if (r < 0)
        goto out;
    unsigned flags = starts_with(&out, vars.bos_token, vars.bos_size) ? 0 : WEFT_ENCODE_BOS;
    r = weft_tokenizer_encode_spans(tokenizer, out.text.data, out.text.size, out.spans, out.n_spans,
                                    flags, ret_ids, ret_n, err);
out:
    weft_rendered_done(&out);
    return r;
}
