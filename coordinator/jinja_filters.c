/*
 * Filters of single values: texts, numbers, JSON; and the look-up of all filters. Filters that take
 * a text take everything, as Jinja's do: they work on its str().
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "coordinator/jinja_run.h"

#define DIGITS_MAX 400 /* of a number in a text; longer ones are not read */

#define FILTER(name)                                                       \
    static int name(struct jinja_run *run, const struct jinja_value *self, \
                    const struct jinja_args *args, struct jinja_value *ret)

static const char *const no_names[] = {NULL};

/* ------------------------------------------------------------------ texts */

static int in_case(struct jinja_run *run, const struct jinja_value *self,
                   const struct jinja_args *args, enum jinja_case how, struct jinja_value *ret)
{
    const struct jinja_string *s = NULL;
    int r = jinja_bind(run, "a filter of case", args, no_names, NULL);
    if (r == 0)
        r = jinja_string_of(run, self, &s);
    return r == 0 ? jinja_case(run, s, how, ret) : r;
}

FILTER(filter_lower)
{
    return in_case(run, self, args, JINJA_LOWER, ret);
}
FILTER(filter_upper)
{
    return in_case(run, self, args, JINJA_UPPER, ret);
}
FILTER(filter_capitalize)
{
    return in_case(run, self, args, JINJA_CAPITALIZE, ret);
}
FILTER(filter_title)
{
    return in_case(run, self, args, JINJA_TITLE_WORDS, ret);
}

FILTER(filter_trim)
{
    static const char *const names[] = {"chars", NULL};
    const struct jinja_string *s = NULL, *chars = NULL;
    struct jinja_value value = jinja_none();
    int r = jinja_bind(run, "trim", args, names, &value);
    if (r == 0)
        r = jinja_string_of(run, self, &s);
    if (r == 0 && value.kind != JINJA_NONE)
        r = jinja_want_string(run, "trim", &value, &chars);
    return r == 0 ? jinja_strip(run, s, chars, true, true, ret) : r;
}

FILTER(filter_string)
{
    int r = jinja_bind(run, "string", args, no_names, NULL);
    const struct jinja_string *s = NULL;
    if (r == 0)
        r = jinja_string_of(run, self, &s);
    if (r == 0)
        *ret = (struct jinja_value){.kind = JINJA_STRING, .string = s};
    return r;
}

FILTER(filter_replace)
{
    static const char *const names[] = {"old", "new", "count", NULL};
    struct jinja_value values[3] = {{0}, {0}, jinja_none()};
    const struct jinja_string *s = NULL, *old = NULL, *new = NULL;
    int64_t count = -1;
    int r = jinja_bind(run, "replace", args, names, values);
    if (r == 0)
        r = jinja_string_of(run, self, &s);
    if (r == 0)
        r = jinja_string_of(run, &values[0], &old);
    if (r == 0)
        r = jinja_string_of(run, &values[1], &new);
    if (r == 0 && values[2].kind != JINJA_NONE)
        r = jinja_want_int(run, "replace", &values[2], &count);
    return r == 0 ? jinja_replace(run, s, old, new, count, ret) : r;
}

FILTER(filter_escape)
{
    const struct jinja_string *s = NULL;
    int r = jinja_bind(run, "escape", args, no_names, NULL);
    if (r == 0)
        r = jinja_string_of(run, self, &s);
    return r == 0 ? jinja_escape(run, s, ret) : r;
}

/* What is put before each line: so many spaces, or a text. */
static int indention(struct jinja_run *run, const struct jinja_value *width,
                     const struct jinja_string **ret)
{
    const struct jinja_value space = {
        .kind = JINJA_STRING,
        .string = &(struct jinja_string){.text = " ", .size = 1, .trusted = true}};
    struct jinja_value text;
    if (width->kind == JINJA_STRING) {
        *ret = width->string;
        return 0;
    }
    int r = jinja_operate(run, JINJA_MULTIPLY, &space, width, &text);
    return r == 0 ? jinja_want_string(run, "indent", &text, ret) : r;
}

/* Lines as of str.splitlines; empty ones stay so unless `blank`. */
FILTER(filter_indent)
{
    static const char *const names[] = {"width", "first", "blank", NULL};
    static const struct jinja_string newline = {.text = "\n", .size = 1, .trusted = true};
    struct jinja_value values[3] = {jinja_int(4, true), jinja_bool(false), jinja_bool(false)};
    struct jinja_value lines, text;
    const struct jinja_string *s = NULL, *before = NULL;
    struct jinja_buffer *b = jinja_buffer_new(run);
    int r = b != NULL ? jinja_bind(run, "indent", args, names, values) : jinja_failed(run);
    if (r == 0)
        r = jinja_string_of(run, self, &s);
    if (r == 0)
        r = indention(run, &values[0], &before);
    if (r == 0)
        r = jinja_concat(run, s, &newline, &text);
    if (r == 0)
        r = jinja_splitlines(run, text.string, &lines);
    for (size_t i = 0; r == 0 && i < lines.list->n; i++) {
        const struct jinja_string *line = lines.list->items[i].string;
        const bool indented =
            i == 0 ? jinja_truth(&values[1]) : line->size > 0 || jinja_truth(&values[2]);
        if (i > 0)
            r = jinja_buffer_string(run, b, &newline);
        if (r == 0 && indented)
            r = jinja_buffer_string(run, b, before);
        if (r == 0)
            r = jinja_buffer_string(run, b, line);
    }
    return r == 0 ? jinja_buffer_value(run, b, ret) : r;
}

FILTER(filter_center)
{
    static const char *const names[] = {"width", NULL};
    static const struct jinja_string space = {.text = " ", .size = 1, .trusted = true};
    struct jinja_value value = jinja_int(80, true);
    const struct jinja_string *s = NULL;
    int64_t width = 0;
    struct jinja_buffer *b = jinja_buffer_new(run);
    int r = b != NULL ? jinja_bind(run, "center", args, names, &value) : jinja_failed(run);
    if (r == 0)
        r = jinja_string_of(run, self, &s);
    if (r == 0)
        r = jinja_want_int(run, "center", &value, &width);
    if (r != 0)
        return r;
    const int64_t n = (int64_t)jinja_string_length(s), rest = width > n ? width - n : 0;
    const int64_t left = rest / 2 + (rest & width & 1); /* as Python rounds */
    for (int64_t i = 0; r == 0 && i < left; i++)
        r = jinja_buffer_string(run, b, &space);
    if (r == 0)
        r = jinja_buffer_string(run, b, s);
    for (int64_t i = left; r == 0 && i < rest; i++)
        r = jinja_buffer_string(run, b, &space);
    return r == 0 ? jinja_buffer_value(run, b, ret) : r;
}

FILTER(filter_wordcount)
{
    const struct jinja_string *s = NULL;
    int64_t words = 0;
    bool inside = false;
    int r = jinja_bind(run, "wordcount", args, no_names, NULL);
    if (r == 0)
        r = jinja_string_of(run, self, &s);
    if (r == 0)
        r = jinja_work(run, s->size);
    for (size_t at = 0, size; r == 0 && at < s->size; at += size) { /* \w+ */
        uint32_t code;
        size = weft_utf8_decode(s->text + at, s->size - at, &code);
        const uint32_t lower = code | 0x20;
        const bool letter = (lower >= 'a' && lower <= 'z') || (code >= '0' && code <= '9') ||
                            code == '_' || (code >= 0xAA && !jinja_code_space(code));
        words += letter && !inside;
        inside = letter;
    }
    *ret = jinja_int(words, false);
    return r;
}

FILTER(filter_format)
{
    const struct jinja_string *s = NULL;
    int r = jinja_string_of(run, self, &s);
    if (r == 0 && args->n_named > 0)
        return jinja_refuse(run, "format: named arguments are not supported");
    return r == 0 ? jinja_percent(run, s, args->list, args->n, ret) : r;
}

/* ------------------------------------------------------------------ numbers */

/* The text as a C string without white space around it; empty when it is too long. */
static void copy_number(char out[DIGITS_MAX + 1], const struct jinja_string *s)
{
    size_t start = 0, end = s->size, n = 0;
    while (start < end && strchr(" \t\n\r\f\v", s->text[start]) != NULL && s->text[start] != '\0')
        start++;
    while (end > start && strchr(" \t\n\r\f\v", s->text[end - 1]) != NULL &&
           s->text[end - 1] != '\0')
        end--;
    if (end - start <= DIGITS_MAX && memchr(s->text + start, '\0', end - start) == NULL)
        for (size_t i = start; i < end; i++)
            if (s->text[i] != '_')
                out[n++] = s->text[i];
    out[n] = '\0';
}

/* Python's float(): no hexadecimal, which strtod would take. */
static bool read_real(const char *text, double *ret)
{
    char *end;
    if (text[0] == '\0' || strpbrk(text, "xXpP(") != NULL)
        return false;
    *ret = strtod(text, &end);
    return *end == '\0';
}

static bool read_whole(const char *text, int base, int64_t *ret)
{
    char *end;
    errno = 0;
    *ret = strtoll(text, &end, base);
    return text[0] != '\0' && *end == '\0' && errno == 0;
}

FILTER(filter_int)
{
    static const char *const names[] = {"default", "base", NULL};
    struct jinja_value values[2] = {jinja_int(0, true), jinja_int(10, true)};
    char digits[DIGITS_MAX + 1];
    int64_t whole, base = 10;
    double real = 0;
    int r = jinja_bind(run, "int", args, names, values);
    if (r == 0)
        r = jinja_defined(run, self);
    if (r == 0)
        r = jinja_want_int(run, "int", &values[1], &base);
    if (r == 0 && base != 0 && (base < 2 || base > 36))
        return jinja_refuse(run, "int: a base of %lld", (long long)base);
    if (r != 0)
        return r;
    *ret = values[0];
    bool known = false;
    if (self->kind == JINJA_STRING) {
        r = jinja_work(run, self->string->size); /* blanks are skipped */
        if (r < 0)
            return r;
        copy_number(digits, self->string);
        if (read_whole(digits, (int)base, &whole)) {
            *ret = jinja_int(whole, jinja_string_trusted(self->string));
            return 0;
        }
        known = read_real(digits, &real);
    } else if (jinja_is_number(self)) {
        if (self->kind != JINJA_FLOAT) {
            *ret = jinja_int(jinja_whole(self), self->trusted);
            return 0;
        }
        real = self->real;
        known = true;
    }
    if (known && fabs(real) < 0x1p63)
        *ret = jinja_int((int64_t)real, false);
    return 0;
}

FILTER(filter_float)
{
    static const char *const names[] = {"default", NULL};
    struct jinja_value value = jinja_float(0, true);
    char digits[DIGITS_MAX + 1];
    double real;
    int r = jinja_bind(run, "float", args, names, &value);
    if (r == 0)
        r = jinja_defined(run, self);
    if (r != 0)
        return r;
    *ret = value;
    if (jinja_is_number(self)) {
        *ret = jinja_float(jinja_real(self), self->trusted);
    } else if (self->kind == JINJA_STRING) {
        r = jinja_work(run, self->string->size); /* blanks are skipped */
        copy_number(digits, self->string);
        if (r == 0 && read_real(digits, &real))
            *ret = jinja_float(real, jinja_string_trusted(self->string));
    }
    return r;
}

FILTER(filter_abs)
{
    const struct jinja_value zero = jinja_int(0, true);
    int r = jinja_bind(run, "abs", args, no_names, NULL);
    if (r == 0)
        r = jinja_defined(run, self);
    if (r == 0 && !jinja_is_number(self))
        return jinja_refuse(run, "abs: found %s, expected a number", jinja_type(self));
    if (r != 0)
        return r;
    if (self->kind == JINJA_FLOAT) {
        *ret = jinja_float(fabs(self->real), self->trusted);
        return 0;
    }
    return jinja_operate(run, jinja_whole(self) < 0 ? JINJA_SUBTRACT : JINJA_ADD, &zero, self, ret);
}

/* Halves go to the even neighbour, as Python's round(). */
FILTER(filter_round)
{
    static const char *const names[] = {"precision", "method", NULL};
    static const struct jinja_string common = {.text = "common", .size = 6};
    struct jinja_value values[2] = {jinja_int(0, true), {.kind = JINJA_STRING, .string = &common}};
    int64_t precision = 0;
    int r = jinja_bind(run, "round", args, names, values);
    if (r == 0)
        r = jinja_defined(run, self);
    if (r == 0)
        r = jinja_want_int(run, "round", &values[0], &precision);
    if (r != 0)
        return r;
    if (!jinja_is_number(self) || precision < 0 || precision > 15)
        return jinja_refuse(run, "round: %s to %lld digits is not supported", jinja_type(self),
                            (long long)precision);
    const double x = jinja_real(self), scale = pow(10, (double)precision);
    char digits[DIGITS_MAX];
    double rounded;
    if (jinja_string_is(&values[1], "common")) { /* exact decimals, where x * scale would err */
        snprintf(digits, sizeof digits, "%.*f", (int)precision, x);
        rounded = strtod(digits, NULL);
    } else if (jinja_string_is(&values[1], "ceil")) {
        rounded = ceil(x * scale) / scale;
    } else if (jinja_string_is(&values[1], "floor")) {
        rounded = floor(x * scale) / scale;
    } else {
        return jinja_refuse(run, "round: the method must be common, ceil or floor");
    }
    if (self->kind != JINJA_FLOAT && jinja_string_is(&values[1], "common"))
        *ret = jinja_int(jinja_whole(self), self->trusted);
    else
        *ret = jinja_float(rounded, self->trusted);
    return 0;
}

/* ------------------------------------------------------------------ any value */

FILTER(filter_default)
{
    static const char *const names[] = {"default_value", "boolean", NULL};
    static const struct jinja_string empty = {.text = "", .trusted = true};
    struct jinja_value values[2] = {{.kind = JINJA_STRING, .string = &empty}, jinja_bool(false)};
    int r = jinja_bind(run, "default", args, names, values);
    const bool missing =
        self->kind == JINJA_UNDEFINED || (jinja_truth(&values[1]) && !jinja_truth(self));
    *ret = missing ? values[0] : *self;
    return r;
}

FILTER(filter_safe)
{
    const struct jinja_string *s = NULL;
    int r = jinja_bind(run, "safe", args, no_names, NULL);
    if (r == 0)
        r = jinja_string_of(run, self, &s);
    return r == 0 ? jinja_safe(run, s, ret) : r;
}

FILTER(filter_attr)
{
    static const char *const names[] = {"name", NULL};
    const struct jinja_string *name;
    struct jinja_value value = {0};
    int r = jinja_bind(run, "attr", args, names, &value);
    if (r == 0)
        r = jinja_want_string(run, "attr", &value, &name);
    return r == 0 ? jinja_member(run, self, name->text, name->size, ret) : r;
}

/* The separators of json.dumps: given as a pair, or Python's own. */
static int json_separators(struct jinja_run *run, const struct jinja_value *given,
                           struct jinja_json *how)
{
    static const struct jinja_string comma = {.text = ",", .size = 1};
    static const struct jinja_string comma_space = {.text = ", ", .size = 2};
    static const struct jinja_string colon = {.text = ": ", .size = 2};
    how->between = how->indent != NULL ? &comma : &comma_space;
    how->colon = &colon;
    if (given->kind == JINJA_NONE)
        return 0;
    if ((given->kind != JINJA_TUPLE && given->kind != JINJA_LIST) || given->list->n != 2)
        return jinja_refuse(run, "tojson: separators must be two strings");
    int r = jinja_want_string(run, "tojson", &given->list->items[0], &how->between);
    return r == 0 ? jinja_want_string(run, "tojson", &given->list->items[1], &how->colon) : r;
}

FILTER(filter_tojson)
{
    static const char *const names[] = {"ensure_ascii", "indent", "separators", "sort_keys", NULL};
    struct jinja_value values[4] = {jinja_bool(false), jinja_none(), jinja_none(),
                                    jinja_bool(false)};
    struct jinja_json how = {0};
    struct jinja_buffer *b = jinja_buffer_new(run);
    /* The first argument by place is the indent, as templates write tojson(2) for either kind of
     * Jinja; by name they are those of json.dumps. */
    struct jinja_args named = *args;
    if (args->n == 1 && args->list[0].kind == JINJA_INT) {
        values[1] = args->list[0];
        named.n = 0;
    }
    int r = b != NULL ? jinja_bind(run, "tojson", &named, names, values) : jinja_failed(run);
    how.ensure_ascii = jinja_truth(&values[0]);
    how.sort_keys = jinja_truth(&values[3]);
    if (r == 0 && values[1].kind != JINJA_NONE)
        r = indention(run, &values[1], &how.indent);
    if (r == 0)
        r = json_separators(run, &values[2], &how);
    if (r == 0)
        r = jinja_json_print(run, self, &how, b);
    return r == 0 ? jinja_buffer_value(run, b, ret) : r;
}

/* ------------------------------------------------------------------ tables */

const struct jinja_builtin jinja_text_filters[] = {
    {"abs", filter_abs},
    {"attr", filter_attr},
    {"capitalize", filter_capitalize},
    {"center", filter_center},
    {"d", filter_default},
    {"default", filter_default},
    {"e", filter_escape},
    {"escape", filter_escape},
    {"float", filter_float},
    {"format", filter_format},
    {"indent", filter_indent},
    {"int", filter_int},
    {"lower", filter_lower},
    {"replace", filter_replace},
    {"round", filter_round},
    {"safe", filter_safe},
    {"string", filter_string},
    {"title", filter_title},
    {"tojson", filter_tojson},
    {"trim", filter_trim},
    {"upper", filter_upper},
    {"wordcount", filter_wordcount},
    {NULL, NULL},
};

const struct jinja_builtin *jinja_find_filter(const char *name, size_t size)
{
    const struct jinja_builtin *const tables[] = {jinja_text_filters, jinja_list_filters,
                                                  jinja_select_filters};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        const struct jinja_builtin *found = jinja_lookup(tables[i], name, size);
        if (found != NULL)
            return found;
    }
    return NULL;
}
