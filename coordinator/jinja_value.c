/*
 * Values of the Jinja interpreter, see jinja_value.h.
 */
#include "coordinator/jinja_value.h"

#include <string.h>

#include "base/text.h"
#include "coordinator/jinja_run.h"

#define BUFFER_LEAST 64 /* bytes of a buffer's first room */

/* ------------------------------------------------------------------ text */

int jinja_text(struct jinja_run *run, const char *text, size_t size, bool trusted,
               struct jinja_value *ret)
{
    struct jinja_string *s = jinja_alloc(run, 1, sizeof *s);
    if (s == NULL)
        return jinja_failed(run);
    *s = (struct jinja_string){.text = text, .size = size, .trusted = trusted};
    *ret = (struct jinja_value){.kind = JINJA_STRING, .string = s};
    return 0;
}

int jinja_cut(struct jinja_run *run, const struct jinja_string *s, size_t start, size_t size,
              struct jinja_value *ret)
{
    struct jinja_string *part = jinja_alloc(run, 1, sizeof *part);
    if (part == NULL)
        return jinja_failed(run);
    *part = *s;
    part->text += start;
    part->size = size;
    part->marks = s->marks != NULL ? s->marks + start : NULL;
    *ret = (struct jinja_value){.kind = JINJA_STRING, .string = part};
    return 0;
}

/* Room for n more bytes, and marks if they are wanted. */
static int make_room(struct jinja_run *run, struct jinja_buffer *b, size_t n, bool marks)
{
    if (n > JINJA_MEMORY_MAX - b->used)
        return jinja_refuse(run, "a text of more than %u bytes", JINJA_MEMORY_MAX);
    const bool grow = b->used + n > b->room;
    marks = marks || b->marks != NULL;
    if (grow) {
        size_t room = 2 * (b->used + n);
        room = room > BUFFER_LEAST ? room : BUFFER_LEAST;
        char *text = jinja_alloc(run, room, 1);
        if (text == NULL)
            return jinja_failed(run);
        memcpy(text, b->used > 0 ? b->text : "", b->used);
        b->text = text;
        b->room = room;
    }
    if (marks && (grow || b->marks == NULL)) {
        uint8_t *fresh = jinja_alloc(run, b->room, 1);
        if (fresh == NULL)
            return jinja_failed(run);
        if (b->marks != NULL)
            memcpy(fresh, b->marks, b->used);
        else
            memset(fresh, b->trusted, b->used);
        b->marks = fresh;
    }
    return 0;
}

int jinja_buffer_add(struct jinja_run *run, struct jinja_buffer *b, const char *text, size_t size,
                     const uint8_t *marks, bool trusted)
{
    if (size == 0)
        return 0;
    if (b->used == 0 && b->marks == NULL)
        b->trusted = trusted;
    int r = jinja_work(run, size);
    if (r == 0)
        r = make_room(run, b, size, marks != NULL || b->trusted != trusted);
    if (r < 0)
        return r;
    memcpy(b->text + b->used, text, size);
    if (b->marks != NULL && marks != NULL)
        memcpy(b->marks + b->used, marks, size);
    else if (b->marks != NULL)
        memset(b->marks + b->used, trusted, size);
    b->used += size;
    return 0;
}

int jinja_buffer_string(struct jinja_run *run, struct jinja_buffer *b, const struct jinja_string *s)
{
    return jinja_buffer_add(run, b, s->text, s->size, s->marks, s->trusted);
}

struct jinja_buffer *jinja_buffer_new(struct jinja_run *run)
{
    return jinja_alloc(run, 1, sizeof(struct jinja_buffer));
}

/* [start, used) of b as a value. */
static int buffer_view(struct jinja_run *run, struct jinja_buffer *b, size_t start,
                       struct jinja_value *ret)
{
    struct jinja_string *s = jinja_alloc(run, 1, sizeof *s);
    if (s == NULL)
        return jinja_failed(run);
    *s = (struct jinja_string){
        .text = b->room > 0 ? b->text + start : "",
        .size = b->used - start,
        .marks = b->marks != NULL ? b->marks + start : NULL,
        .trusted = b->used > 0 ? b->trusted : true,
        .home = b,
    };
    *ret = (struct jinja_value){.kind = JINJA_STRING, .string = s};
    return 0;
}

int jinja_buffer_value(struct jinja_run *run, struct jinja_buffer *b, struct jinja_value *ret)
{
    return buffer_view(run, b, 0, ret);
}

int jinja_concat(struct jinja_run *run, const struct jinja_string *a, const struct jinja_string *b,
                 struct jinja_value *ret)
{
    if (a->size == 0 || b->size == 0) {
        *ret = (struct jinja_value){.kind = JINJA_STRING, .string = a->size == 0 ? b : a};
        return 0;
    }
    struct jinja_buffer *home = a->home;
    size_t start = 0;
    int r;
    if (home != NULL && home->room > 0 && a->text >= home->text &&
        a->text + a->size == home->text + home->used && b->size <= home->room - home->used) {
        start = (size_t)(a->text - home->text);
    } else {
        home = jinja_buffer_new(run);
        if (home == NULL)
            return jinja_failed(run);
        home->trusted = a->trusted;
        r = make_room(run, home, a->size + b->size, a->marks != NULL);
        if (r == 0)
            r = jinja_buffer_string(run, home, a);
        if (r < 0)
            return r;
    }
    r = jinja_buffer_string(run, home, b);
    return r == 0 ? buffer_view(run, home, start, ret) : r;
}

bool jinja_string_trusted(const struct jinja_string *s)
{
    if (s->marks == NULL)
        return s->trusted;
    return s->size == 0 || memchr(s->marks, 0, s->size) == NULL;
}

bool jinja_string_is(const struct jinja_value *v, const char *text)
{
    return v->kind == JINJA_STRING && v->string->size == strlen(text) &&
           memcmp(v->string->text, text, v->string->size) == 0;
}

size_t jinja_string_length(const struct jinja_string *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->size; i++)
        n += ((uint8_t)s->text[i] & 0xC0) != 0x80;
    return n;
}

size_t jinja_string_offset(const struct jinja_string *s, size_t i)
{
    size_t at = 0;
    for (; at < s->size; at++)
        if (((uint8_t)s->text[at] & 0xC0) != 0x80 && i-- == 0)
            break;
    return at;
}

size_t jinja_find(const struct jinja_string *s, const char *needle, size_t size, size_t from)
{
    if (from > s->size || size > s->size - from)
        return SIZE_MAX;
    if (size == 0)
        return from;
    const char *at = memmem(s->text + from, s->size - from, needle, size);
    return at != NULL ? (size_t)(at - s->text) : SIZE_MAX;
}

size_t jinja_find_last(const struct jinja_string *s, const char *needle, size_t size, size_t end)
{
    if (size > end)
        return SIZE_MAX;
    for (size_t at = end - size + 1; at-- > 0;)
        if (memcmp(s->text + at, needle, size) == 0)
            return at;
    return SIZE_MAX;
}

size_t jinja_encode(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((0xF00u >> n) | code);
    return n;
}

bool jinja_code_space(uint32_t code)
{
    return (code >= 9 && code <= 13) || (code >= 28 && code <= 32) || code == 0x85 ||
           code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

/* ------------------------------------------------------------------ making */

int jinja_list_new(struct jinja_run *run, enum jinja_kind kind, size_t n, struct jinja_value *ret)
{
    static const char *const types[JINJA_KIND_COUNT] = {
        [JINJA_LIST] = "list",      [JINJA_TUPLE] = "tuple",         [JINJA_RANGE] = "range",
        [JINJA_VIEW] = "dict view", [JINJA_GENERATOR] = "generator",
    };
    struct jinja_list *list = jinja_alloc(run, 1, sizeof *list);
    if (list == NULL)
        return jinja_failed(run);
    list->items = jinja_alloc(run, n, sizeof *list->items);
    if (list->items == NULL)
        return jinja_failed(run);
    list->n = n;
    list->type = types[kind];
    *ret = (struct jinja_value){.kind = kind, .list = list};
    return 0;
}

int jinja_missing(struct jinja_run *run, int why, const char *owner, const char *name,
                  size_t name_size, struct jinja_value *ret)
{
    struct jinja_missing *m = jinja_alloc(run, 1, sizeof *m);
    if (m == NULL)
        return jinja_failed(run);
    *m = (struct jinja_missing){.owner = owner, .name = name, .name_size = name_size};
    m->why = why;
    *ret = (struct jinja_value){.kind = JINJA_UNDEFINED, .missing = m};
    return 0;
}

/* ------------------------------------------------------------------ asking */

bool jinja_is_sequence(const struct jinja_value *v)
{
    return v->kind >= JINJA_LIST && v->kind <= JINJA_GENERATOR;
}

bool jinja_is_number(const struct jinja_value *v)
{
    return v->kind == JINJA_BOOL || v->kind == JINJA_INT || v->kind == JINJA_FLOAT;
}

int64_t jinja_whole(const struct jinja_value *v)
{
    return v->kind == JINJA_BOOL ? v->truth : v->number;
}

double jinja_real(const struct jinja_value *v)
{
    return v->kind == JINJA_FLOAT ? v->real : (double)jinja_whole(v);
}

bool jinja_truth(const struct jinja_value *v)
{
    switch (v->kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
        return false;
    case JINJA_BOOL:
        return v->truth;
    case JINJA_INT:
        return v->number != 0;
    case JINJA_FLOAT:
        return v->real != 0;
    case JINJA_STRING:
        return v->string->size > 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
    case JINJA_VIEW:
        return v->list->n > 0;
    case JINJA_DICT:
        return v->dict->n > 0;
    default:
        return true;
    }
}

const char *jinja_type(const struct jinja_value *v)
{
    static const char *const names[JINJA_KIND_COUNT] = {
        [JINJA_UNDEFINED] = "Undefined", [JINJA_NONE] = "NoneType",
        [JINJA_BOOL] = "bool",           [JINJA_INT] = "int",
        [JINJA_FLOAT] = "float",         [JINJA_STRING] = "str",
        [JINJA_DICT] = "dict",           [JINJA_NAMESPACE] = "Namespace",
        [JINJA_LOOP] = "LoopContext",    [JINJA_MACRO] = "Macro",
        [JINJA_METHOD] = "method",       [JINJA_FUNCTION] = "function",
    };
    return jinja_is_sequence(v) ? v->list->type : names[v->kind];
}

const char *jinja_owner(const struct jinja_value *v)
{
    static const char *const names[JINJA_KIND_COUNT] = {
        [JINJA_UNDEFINED] = "undefined",        [JINJA_NONE] = "None",
        [JINJA_BOOL] = "bool object",           [JINJA_INT] = "int object",
        [JINJA_FLOAT] = "float object",         [JINJA_STRING] = "str object",
        [JINJA_LIST] = "list object",           [JINJA_TUPLE] = "tuple object",
        [JINJA_RANGE] = "range object",         [JINJA_VIEW] = "dict view object",
        [JINJA_GENERATOR] = "generator object", [JINJA_DICT] = "dict object",
        [JINJA_NAMESPACE] = "namespace object", [JINJA_LOOP] = "loop object",
        [JINJA_MACRO] = "macro object",         [JINJA_METHOD] = "method object",
        [JINJA_FUNCTION] = "function object",
    };
    return names[v->kind];
}

int jinja_compare_bytes(const struct jinja_string *a, const struct jinja_string *b)
{
    const size_t n = a->size < b->size ? a->size : b->size;
    const int order = n > 0 ? memcmp(a->text, b->text, n) : 0;
    return order != 0 ? order : (a->size > b->size) - (a->size < b->size);
}

static bool lists_alike(const struct jinja_value *a, const struct jinja_value *b)
{
    return a->kind == b->kind && jinja_is_sequence(a) && a->kind != JINJA_GENERATOR;
}

static int lists_equal(struct jinja_run *run, const struct jinja_list *a,
                       const struct jinja_list *b, bool *ret)
{
    *ret = a->n == b->n;
    int r = jinja_enter(run);
    for (size_t i = 0; r == 0 && *ret && i < a->n; i++)
        r = jinja_equal(run, &a->items[i], &b->items[i], ret);
    jinja_leave(run);
    return r;
}

static int dicts_equal(struct jinja_run *run, struct jinja_dict *a, struct jinja_dict *b, bool *ret)
{
    *ret = a->n == b->n;
    int r = jinja_enter(run);
    for (size_t i = 0; r == 0 && *ret && i < a->n; i++) {
        struct jinja_pair *pair;
        r = jinja_dict_find(run, b, &a->pairs[i].key, &pair);
        *ret = pair != NULL;
        if (r == 0 && pair != NULL)
            r = jinja_equal(run, &a->pairs[i].value, &pair->value, ret);
    }
    jinja_leave(run);
    return r;
}

int jinja_equal(struct jinja_run *run, const struct jinja_value *a, const struct jinja_value *b,
                bool *ret)
{
    const size_t size =
        a->kind == JINJA_STRING && b->kind == JINJA_STRING && a->string->size == b->string->size
            ? a->string->size
            : 0;
    int r = jinja_work(run, size);
    if (r < 0)
        return r;
    if (jinja_is_number(a) && jinja_is_number(b)) {
        *ret = a->kind == JINJA_FLOAT || b->kind == JINJA_FLOAT ? jinja_real(a) == jinja_real(b)
                                                                : jinja_whole(a) == jinja_whole(b);
        return 0;
    }
    *ret = false;
    if (lists_alike(a, b))
        return lists_equal(run, a->list, b->list, ret);
    if (a->kind != b->kind)
        return 0;
    if (a->kind == JINJA_DICT)
        return dicts_equal(run, a->dict, b->dict, ret);
    if (a->kind == JINJA_STRING)
        *ret = jinja_compare_bytes(a->string, b->string) == 0;
    else if (a->kind == JINJA_UNDEFINED || a->kind == JINJA_NONE)
        *ret = true;
    else if (a->kind == JINJA_METHOD)
        *ret = a->method == b->method;
    else
        *ret = a->loop == b->loop; /* the same thing; all of these are pointers */
    return 0;
}

int jinja_order(struct jinja_run *run, const struct jinja_value *a, const struct jinja_value *b,
                const char *sign, int *ret)
{
    int r = jinja_work(run, 0);
    if (r < 0)
        return r;
    if (jinja_is_number(a) && jinja_is_number(b)) {
        const double x = jinja_real(a), y = jinja_real(b);
        if (a->kind == JINJA_FLOAT || b->kind == JINJA_FLOAT)
            *ret = (x > y) - (x < y);
        else
            *ret = (jinja_whole(a) > jinja_whole(b)) - (jinja_whole(a) < jinja_whole(b));
        return 0;
    }
    if (a->kind == JINJA_STRING && b->kind == JINJA_STRING) {
        const size_t n = a->string->size < b->string->size ? a->string->size : b->string->size;
        *ret = jinja_compare_bytes(a->string, b->string);
        return jinja_work(run, n);
    }
    if (!lists_alike(a, b) || (a->kind != JINJA_LIST && a->kind != JINJA_TUPLE)) {
        r = jinja_defined(run, a);
        if (r == 0)
            r = jinja_defined(run, b);
        return r < 0 ? r
                     : jinja_refuse(run, "'%s' is not supported between %s and %s", sign,
                                    jinja_type(a), jinja_type(b));
    }
    const struct jinja_list *p = a->list, *q = b->list;
    bool equal = true;
    size_t i = 0;
    r = jinja_enter(run);
    while (r == 0 && i < p->n && i < q->n) {
        r = jinja_equal(run, &p->items[i], &q->items[i], &equal);
        if (!equal)
            break;
        i++;
    }
    *ret = (p->n > q->n) - (p->n < q->n);
    if (r == 0 && i < p->n && i < q->n)
        r = jinja_order(run, &p->items[i], &q->items[i], sign, ret);
    jinja_leave(run);
    return r;
}

/* ------------------------------------------------------------------ iteration */

static int characters(struct jinja_run *run, const struct jinja_string *s,
                      const struct jinja_value **ret, size_t *ret_n)
{
    struct jinja_value list = {0};
    size_t n = 0;
    int r = jinja_work(run, s->size);
    if (r == 0)
        r = jinja_list_new(run, JINJA_LIST, jinja_string_length(s), &list);
    for (size_t at = 0, size; r == 0 && at < s->size; at += size) {
        uint32_t code;
        size = weft_utf8_decode(s->text + at, s->size - at, &code);
        r = jinja_cut(run, s, at, size, &list.list->items[n++]);
    }
    if (r == 0) {
        *ret = list.list->items;
        *ret_n = n;
    }
    return r;
}

int jinja_items(struct jinja_run *run, const struct jinja_value *v, const struct jinja_value **ret,
                size_t *ret_n)
{
    struct jinja_value keys;
    int r;
    switch (v->kind) {
    case JINJA_UNDEFINED:
        *ret = NULL;
        *ret_n = 0;
        return v->missing != NULL && v->missing->why == MISSING_UNSAFE ? jinja_defined(run, v) : 0;
    case JINJA_STRING:
        return characters(run, v->string, ret, ret_n);
    case JINJA_GENERATOR:
        *ret = v->list->items + v->list->taken;
        *ret_n = v->list->n - v->list->taken;
        v->list->taken = v->list->n;
        return 0;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
    case JINJA_VIEW:
        *ret = v->list->items;
        *ret_n = v->list->n;
        return 0;
    case JINJA_DICT:
        r = jinja_dict_list(run, v->dict, JINJA_KEYS, JINJA_LIST, &keys);
        if (r == 0) {
            *ret = keys.list->items;
            *ret_n = keys.list->n;
        }
        return r;
    default:
        return jinja_refuse(run, "%s cannot be iterated over", jinja_type(v));
    }
}
