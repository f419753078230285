/*
 * Values as text: str() and repr() of Python and json.dumps(). Texts keep their marks; what is
 * written around them (brackets, quotes, escapes) follows the structure of data that anybody may
 * have given, so it is never trusted.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "coordinator/jinja_run.h"

#define FLOAT_DIGITS 17 /* tell any two doubles apart */

static int put(struct jinja_run *run, struct jinja_buffer *out, const char *text, bool trusted)
{
    return jinja_buffer_add(run, out, text, strlen(text), NULL, trusted);
}

/* ------------------------------------------------------------------ numbers */

/* The shortest digits that read back as x, laid out as Python does: an exponent below 1e-4 and from
 * 1e16 on. */
static void format_float(char buf[64], double x)
{
    char digits[32], all[FLOAT_DIGITS + 1];
    size_t n = 0, used = 0;
    if (!isfinite(x)) {
        snprintf(buf, 64, "%s", isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
        return;
    }
    for (int precision = 0; precision < FLOAT_DIGITS; precision++) {
        snprintf(digits, sizeof digits, "%.*e", precision, x);
        if (strtod(digits, NULL) == x)
            break;
    }
    const char *e = strchr(digits, 'e');
    const int exponent = atoi(e + 1);
    for (const char *c = digits; c < e; c++)
        if (*c >= '0' && *c <= '9')
            all[n++] = *c;
    all[n] = '\0';
    const char *sign = signbit(x) ? "-" : "";
    if (exponent < -4 || exponent >= 16) {
        snprintf(buf, 64, "%s%c%s%se%c%02d", sign, all[0], n > 1 ? "." : "", all + 1,
                 exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    used = (size_t)snprintf(buf, 64, "%s", sign);
    if (exponent < 0) {
        snprintf(buf + used, 64 - used, "0.%.*s%s", -exponent - 1, "000", all);
        return;
    }
    for (int i = 0; i <= exponent || i < (int)n; i++) {
        if (i == exponent + 1)
            buf[used++] = '.';
        buf[used++] = i < (int)n ? all[i] : '0';
    }
    buf[used] = '\0';
    if ((int)n <= exponent + 1)
        memcpy(buf + used, ".0", 3);
}

static int print_number(struct jinja_run *run, const struct jinja_value *v,
                        struct jinja_buffer *out)
{
    char buf[64];
    if (v->kind == JINJA_INT)
        snprintf(buf, sizeof buf, "%lld", (long long)v->number);
    else
        format_float(buf, v->real);
    return put(run, out, buf, v->trusted);
}

/* ------------------------------------------------------------------ repr */

/* Python's str.isprintable, of what occurs: no separators but the space, no format characters. */
static bool shown(uint32_t code)
{
    return weft_code_printable(code) && (!jinja_code_space(code) || code == ' ') && code != 0xAD &&
           !(code >= 0x200B && code <= 0x200F) && !(code >= 0x2060 && code <= 0x206F);
}

/* Text between quotes; every escape has the mark of what it stands for. */
static int repr_string(struct jinja_run *run, const struct jinja_string *s,
                       struct jinja_buffer *out)
{
    const bool single = s->size > 0 && memchr(s->text, '\'', s->size) != NULL;
    const bool both = single && memchr(s->text, '"', s->size) != NULL;
    const char quote[] = {single && !both ? '"' : '\'', '\0'};
    int r = put(run, out, quote, false);
    for (size_t at = 0, size; r == 0 && at < s->size; at += size) {
        char escape[12] = "";
        uint32_t code;
        size = weft_utf8_decode(s->text + at, s->size - at, &code);
        const bool trusted = s->marks != NULL ? s->marks[at] != 0 : s->trusted;
        if (code == '\\' || code == (uint32_t)quote[0])
            snprintf(escape, sizeof escape, "\\%c", (char)code);
        else if (code == '\n' || code == '\r' || code == '\t')
            snprintf(escape, sizeof escape, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
        else if (!shown(code))
            snprintf(escape, sizeof escape, code < 0x100 ? "\\x%02x" : "\\u%04x", (unsigned)code);
        r = escape[0] != '\0' ? put(run, out, escape, trusted)
                              : jinja_buffer_add(run, out, s->text + at, size, NULL, trusted);
    }
    return r == 0 ? put(run, out, quote, false) : r;
}

static int repr_list(struct jinja_run *run, const struct jinja_value *v, struct jinja_buffer *out)
{
    const struct jinja_list *list = v->list;
    const bool tuple = v->kind == JINJA_TUPLE;
    int r = put(run, out, tuple ? "(" : "[", false);
    for (size_t i = 0; r == 0 && i < list->n; i++) {
        if (i > 0)
            r = put(run, out, ", ", false);
        if (r == 0)
            r = jinja_repr(run, &list->items[i], out);
    }
    return r == 0 ? put(run, out, tuple ? list->n == 1 ? ",)" : ")" : "]", false) : r;
}

static int repr_dict(struct jinja_run *run, const struct jinja_dict *d, struct jinja_buffer *out)
{
    int r = put(run, out, "{", false);
    for (size_t i = 0; r == 0 && i < d->n; i++) {
        if (i > 0)
            r = put(run, out, ", ", false);
        if (r == 0)
            r = jinja_repr(run, &d->pairs[i].key, out);
        if (r == 0)
            r = put(run, out, ": ", false);
        if (r == 0)
            r = jinja_repr(run, &d->pairs[i].value, out);
    }
    return r == 0 ? put(run, out, "}", false) : r;
}

static int print_plain(struct jinja_run *run, const struct jinja_value *v, struct jinja_buffer *out)
{
    switch (v->kind) {
    case JINJA_UNDEFINED:
        return v->missing != NULL && v->missing->why == MISSING_UNSAFE ? jinja_defined(run, v) : 0;
    case JINJA_NONE:
        return put(run, out, "None", v->trusted);
    case JINJA_BOOL:
        return put(run, out, v->truth ? "True" : "False", v->trusted);
    case JINJA_INT:
    case JINJA_FLOAT:
        return print_number(run, v, out);
    case JINJA_LIST:
    case JINJA_TUPLE:
        return repr_list(run, v, out);
    case JINJA_DICT:
        return repr_dict(run, v->dict, out);
    default: /* Python prints addresses of these, or their own notation */
        return jinja_refuse(run, "the text of a %s is not supported", jinja_type(v));
    }
}

int jinja_repr(struct jinja_run *run, const struct jinja_value *v, struct jinja_buffer *out)
{
    int r = jinja_enter(run);
    if (r == 0 && v->kind == JINJA_STRING)
        r = repr_string(run, v->string, out);
    else if (r == 0 && v->kind == JINJA_UNDEFINED)
        r = put(run, out, "Undefined", true);
    else if (r == 0)
        r = print_plain(run, v, out);
    jinja_leave(run);
    return r;
}

int jinja_print(struct jinja_run *run, const struct jinja_value *v, struct jinja_buffer *out)
{
    return v->kind == JINJA_STRING ? jinja_buffer_string(run, out, v->string)
                                   : print_plain(run, v, out);
}

int jinja_string_of(struct jinja_run *run, const struct jinja_value *v,
                    const struct jinja_string **ret)
{
    struct jinja_value text = *v;
    int r = 0;
    if (v->kind != JINJA_STRING) {
        struct jinja_buffer *b = jinja_buffer_new(run);
        r = b != NULL ? jinja_print(run, v, b) : jinja_failed(run);
        if (r == 0)
            r = jinja_buffer_value(run, b, &text);
    }
    if (r == 0)
        *ret = text.string;
    return r;
}

/* ------------------------------------------------------------------ JSON */

struct json {
    struct jinja_run *run;
    const struct jinja_json *how;
    struct jinja_buffer *out;
    size_t level;
};

static int json_value(struct json *j, const struct jinja_value *v);

/* The escape of a character, "" when it stands for itself. */
static void json_escape(uint32_t code, bool ascii, char escape[16])
{
    static const char codes[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
    const char *known = code != 0 && code < 0x80 ? strchr(codes, (int)code) : NULL;
    escape[0] = '\0';
    if (known != NULL)
        snprintf(escape, 16, "\\%c", letters[known - codes]);
    else if (code < 0x20 || (ascii && code >= 0x7F && code < 0x10000 && code != 0x7F))
        snprintf(escape, 16, "\\u%04x", (unsigned)code);
    else if (ascii && code >= 0x10000)
        snprintf(escape, 16, "\\u%04x\\u%04x", (unsigned)(0xD800 + ((code - 0x10000) >> 10)),
                 (unsigned)(0xDC00 + ((code - 0x10000) & 0x3FF)));
}

/* Runs without an escape are put as a whole. */
static int json_string(struct json *j, const struct jinja_string *s)
{
    size_t from = 0, at = 0;
    int r = put(j->run, j->out, "\"", false);
    while (r == 0 && at < s->size) {
        char escape[16];
        uint32_t code;
        const size_t size = weft_utf8_decode(s->text + at, s->size - at, &code);
        json_escape(code, j->how->ensure_ascii, escape);
        if (escape[0] != '\0') {
            const bool trusted = s->marks != NULL ? s->marks[at] != 0 : s->trusted;
            r = jinja_buffer_add(j->run, j->out, s->text + from, at - from,
                                 s->marks != NULL ? s->marks + from : NULL, s->trusted);
            if (r == 0)
                r = put(j->run, j->out, escape, trusted);
            from = at + size;
        }
        at += size;
    }
    if (r == 0)
        r = jinja_buffer_add(j->run, j->out, s->text + from, s->size - from,
                             s->marks != NULL ? s->marks + from : NULL, s->trusted);
    return r == 0 ? put(j->run, j->out, "\"", false) : r;
}

static int json_line(struct json *j)
{
    if (j->how->indent == NULL)
        return 0;
    int r = put(j->run, j->out, "\n", false);
    for (size_t i = 0; r == 0 && i < j->level; i++)
        r = jinja_buffer_string(j->run, j->out, j->how->indent);
    return r;
}

/* What stands before item i. */
static int json_between(struct json *j, size_t i)
{
    int r = i > 0 ? jinja_buffer_string(j->run, j->out, j->how->between) : 0;
    return r == 0 ? json_line(j) : r;
}

static int json_list(struct json *j, const struct jinja_list *list)
{
    if (list->n == 0)
        return put(j->run, j->out, "[]", false);
    int r = put(j->run, j->out, "[", false);
    j->level++;
    for (size_t i = 0; r == 0 && i < list->n; i++) {
        r = json_between(j, i);
        if (r == 0)
            r = json_value(j, &list->items[i]);
    }
    j->level--;
    if (r == 0)
        r = json_line(j);
    return r == 0 ? put(j->run, j->out, "]", false) : r;
}

static int json_key(struct json *j, const struct jinja_value *key)
{
    if (key->kind == JINJA_STRING)
        return json_string(j, key->string);
    if (key->kind != JINJA_NONE && !jinja_is_number(key))
        return jinja_refuse(j->run, "JSON keys must be str, int, float, bool or None, not %s",
                            jinja_type(key));
    int r = put(j->run, j->out, "\"", false);
    if (r == 0)
        r = json_value(j, key);
    return r == 0 ? put(j->run, j->out, "\"", false) : r;
}

static int by_key(const void *a, const void *b)
{
    const struct jinja_string *x = ((const struct jinja_pair *)a)->key.string;
    const struct jinja_string *y = ((const struct jinja_pair *)b)->key.string;
    return jinja_compare_bytes(x, y);
}

static int sorted_pairs(struct json *j, const struct jinja_dict *d, struct jinja_pair **ret)
{
    struct jinja_pair *pairs = jinja_alloc(j->run, d->n, sizeof *pairs);
    if (pairs == NULL)
        return jinja_failed(j->run);
    for (size_t i = 0; i < d->n; i++) {
        if (d->pairs[i].key.kind != JINJA_STRING)
            return jinja_refuse(j->run, "sort_keys of keys that are no strings");
        pairs[i] = d->pairs[i];
    }
    qsort(pairs, d->n, sizeof *pairs, by_key); /* keys differ, so any sort is stable */
    *ret = pairs;
    return 0;
}

static int json_dict(struct json *j, const struct jinja_dict *d)
{
    struct jinja_pair *pairs = d->pairs;
    int r = d->n == 0 ? put(j->run, j->out, "{}", false) : put(j->run, j->out, "{", false);
    if (r < 0 || d->n == 0)
        return r;
    if (j->how->sort_keys)
        r = sorted_pairs(j, d, &pairs);
    j->level++;
    for (size_t i = 0; r == 0 && i < d->n; i++) {
        r = json_between(j, i);
        if (r == 0)
            r = json_key(j, &pairs[i].key);
        if (r == 0)
            r = jinja_buffer_string(j->run, j->out, j->how->colon);
        if (r == 0)
            r = json_value(j, &pairs[i].value);
    }
    j->level--;
    if (r == 0)
        r = json_line(j);
    return r == 0 ? put(j->run, j->out, "}", false) : r;
}

static int json_value(struct json *j, const struct jinja_value *v)
{
    int r = jinja_enter(j->run);
    if (r < 0)
        return r;
    switch (v->kind) {
    case JINJA_NONE:
        r = put(j->run, j->out, "null", false);
        break;
    case JINJA_BOOL:
        r = put(j->run, j->out, v->truth ? "true" : "false", v->trusted);
        break;
    case JINJA_INT:
        r = print_number(j->run, v, j->out);
        break;
    case JINJA_FLOAT:
        r = isfinite(v->real) ? print_number(j->run, v, j->out)
                              : put(j->run, j->out,
                                    isnan(v->real) ? "NaN"
                                    : v->real < 0  ? "-Infinity"
                                                   : "Infinity",
                                    false);
        break;
    case JINJA_STRING:
        r = json_string(j, v->string);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
        r = json_list(j, v->list);
        break;
    case JINJA_DICT:
        r = json_dict(j, v->dict);
        break;
    case JINJA_UNDEFINED:
        if (v->missing != NULL && v->missing->why == MISSING_UNSAFE) {
            r = jinja_defined(j->run, v);
            break;
        }
        /* fall through */
    default:
        r = jinja_refuse(j->run, "Object of type %s is not JSON serializable", jinja_type(v));
    }
    jinja_leave(j->run);
    return r;
}

int jinja_json_print(struct jinja_run *run, const struct jinja_value *v,
                     const struct jinja_json *how, struct jinja_buffer *out)
{
    struct json j = {.run = run, .how = how, .out = out};
    return json_value(&j, v);
}
