/*
 * Text tools that methods and filters share: strip, replace, lines, format. Everything keeps the
 * marks of what it cuts and joins.
 */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "coordinator/jinja_run.h"

/* ------------------------------------------------------------------ strip */

static bool stripped(const struct jinja_string *chars, const char *text, size_t size, uint32_t code)
{
    return chars != NULL ? jinja_find(chars, text, size, 0) != SIZE_MAX : jinja_code_space(code);
}

int jinja_strip(struct jinja_run *run, const struct jinja_string *s,
                const struct jinja_string *chars, bool left, bool right, struct jinja_value *ret)
{
    size_t start = 0, end = s->size;
    uint32_t code;
    int r = jinja_work_at(run, s->size, chars != NULL ? chars->size : 1);
    if (r != 0)
        return r;
    while (left && start < end) {
        const size_t size = weft_utf8_decode(s->text + start, end - start, &code);
        if (!stripped(chars, s->text + start, size, code))
            break;
        start += size;
    }
    while (right && end > start) {
        size_t last = end - 1;
        while (last > start && ((uint8_t)s->text[last] & 0xC0) == 0x80)
            last--;
        const size_t size = weft_utf8_decode(s->text + last, end - last, &code);
        if (!stripped(chars, s->text + last, size, code))
            break;
        end = last;
    }
    return jinja_cut(run, s, start, end - start, ret);
}

/* ------------------------------------------------------------------ replace */

int jinja_replace(struct jinja_run *run, const struct jinja_string *s,
                  const struct jinja_string *old, const struct jinja_string *new, int64_t count,
                  struct jinja_value *ret)
{
    size_t from = 0, scan = 0;
    struct jinja_buffer *b = jinja_buffer_new(run);
    int r = b != NULL ? jinja_work(run, s->size) : jinja_failed(run);
    while (r == 0 && count-- != 0) {
        const size_t at = jinja_find(s, old->text, old->size, scan);
        if (at == SIZE_MAX)
            break;
        r = jinja_buffer_add(run, b, s->text + from, at - from,
                             s->marks != NULL ? s->marks + from : NULL, s->trusted);
        if (r == 0)
            r = jinja_buffer_string(run, b, new);
        if (r == 0)
            r = jinja_work(run, 0);
        from = scan = at + old->size;
        if (old->size == 0) { /* between all characters, as in Python */
            uint32_t code;
            scan += at < s->size ? weft_utf8_decode(s->text + at, s->size - at, &code) : 1;
        }
    }
    if (r == 0)
        r = jinja_buffer_add(run, b, s->text + from, s->size - from,
                             s->marks != NULL ? s->marks + from : NULL, s->trusted);
    return r == 0 ? jinja_buffer_value(run, b, ret) : r;
}

/* ------------------------------------------------------------------ HTML */

int jinja_safe(struct jinja_run *run, const struct jinja_string *s, struct jinja_value *ret)
{
    struct jinja_string *safe = jinja_alloc(run, 1, sizeof *safe);
    if (safe == NULL)
        return jinja_failed(run);
    *safe = *s;
    safe->safe = true;
    *ret = (struct jinja_value){.kind = JINJA_STRING, .string = safe};
    return 0;
}

int jinja_escape(struct jinja_run *run, const struct jinja_string *s, struct jinja_value *ret)
{
    static const char codes[] = "&<>\"'";
    static const char *const entities[] = {"&amp;", "&lt;", "&gt;", "&#34;", "&#39;"};
    if (s->safe)
        return jinja_safe(run, s, ret);
    struct jinja_buffer *b = jinja_buffer_new(run);
    int r = b != NULL ? 0 : jinja_failed(run);
    for (size_t at = 0; r == 0 && at < s->size; at++) {
        const char c = s->text[at];
        const char *known = c != '\0' ? strchr(codes, c) : NULL;
        const bool trusted = s->marks != NULL ? s->marks[at] != 0 : s->trusted;
        const char *text = known != NULL ? entities[known - codes] : s->text + at;
        r = jinja_buffer_add(run, b, text, known != NULL ? strlen(text) : 1, NULL, trusted);
    }
    if (r == 0)
        r = jinja_buffer_value(run, b, ret);
    return r == 0 ? jinja_safe(run, ret->string, ret) : r;
}

/* ------------------------------------------------------------------ lines */

/* Bytes of the line end at the start of text; 0: none. As Python's str.splitlines. */
static size_t line_end(const char *text, size_t n)
{
    uint32_t code = 0;
    if (((uint8_t)text[0] & 0xC0) == 0x80) /* within a character */
        return 0;
    const size_t size = weft_utf8_decode(text, n, &code);
    if (code == '\r')
        return n > 1 && text[1] == '\n' ? 2 : 1;
    const bool end = (code >= 10 && code <= 12) || (code >= 28 && code <= 30) || code == 0x85 ||
                     code == 0x2028 || code == 0x2029;
    return end ? size : 0;
}

int jinja_splitlines(struct jinja_run *run, const struct jinja_string *s, struct jinja_value *ret)
{
    struct jinja_value list = {0};
    int r = jinja_work(run, s->size);
    for (int pass = 0; pass < 2 && r == 0; pass++) { /* count, then cut */
        size_t start = 0, n = 0;
        while (start < s->size && r == 0) {
            size_t at = start, end = 0;
            while (at < s->size && (end = line_end(s->text + at, s->size - at)) == 0)
                at++;
            if (pass == 1)
                r = jinja_cut(run, s, start, at - start, &list.list->items[n]);
            n++;
            start = at + end;
        }
        if (pass == 0)
            r = jinja_list_new(run, JINJA_LIST, n, &list);
    }
    *ret = list;
    return r;
}

/* ------------------------------------------------------------------ format */

static int add(struct jinja_run *run, struct jinja_buffer *b, const struct jinja_string *s,
               size_t start, size_t end)
{
    return jinja_buffer_add(run, b, s->text + start, end - start,
                            s->marks != NULL ? s->marks + start : NULL, s->trusted);
}

/* The argument of {}, {0} or {name} (field: what stands between the braces). */
static int format_field(struct jinja_run *run, const char *field, size_t size,
                        const struct jinja_args *args, size_t *next, struct jinja_value *ret)
{
    size_t i = 0;
    bool number = true;
    for (size_t k = 0; k < size; k++) {
        number = number && field[k] >= '0' && field[k] <= '9' && size < 6;
        i = number ? i * 10 + (size_t)(field[k] - '0') : i;
    }
    if (size == 0)
        i = (*next)++;
    if (number && i < args->n) {
        *ret = args->list[i];
        return 0;
    }
    for (size_t k = 0; k < args->n_named; k++) {
        if (args->named[k].size == size && memcmp(args->named[k].name, field, size) == 0) {
            *ret = args->named[k].value;
            return 0;
        }
    }
    return jinja_refuse(run, "format: the field '{%.*s}' is not supported, or has no argument",
                        size < 60 ? (int)size : 60, field);
}

int jinja_format(struct jinja_run *run, const struct jinja_string *s, const struct jinja_args *args,
                 struct jinja_value *ret)
{
    struct jinja_buffer *b = jinja_buffer_new(run);
    size_t next = 0, from = 0, at = 0;
    int r = b != NULL ? jinja_work(run, s->size) : jinja_failed(run);
    while (r == 0 && at < s->size) {
        const char c = s->text[at];
        struct jinja_value v;
        if (c != '{' && c != '}') {
            at++;
            continue;
        }
        r = add(run, b, s, from, at);
        if (r == 0 && at + 1 < s->size && s->text[at + 1] == c) { /* {{ and }} */
            r = add(run, b, s, at, at + 1);
            from = at = at + 2;
            continue;
        }
        const size_t end = c == '{' ? jinja_find(s, "}", 1, at) : SIZE_MAX;
        if (r == 0 && end == SIZE_MAX)
            return jinja_refuse(run, "format: a brace without its other one");
        if (r == 0)
            r = format_field(run, s->text + at + 1, end - at - 1, args, &next, &v);
        if (r == 0)
            r = jinja_print(run, &v, b);
        from = at = r == 0 ? end + 1 : s->size;
    }
    if (r == 0)
        r = add(run, b, s, from, s->size);
    return r == 0 ? jinja_buffer_value(run, b, ret) : r;
}

/* One of %s, %d, %i, %r. */
static int percent_field(struct jinja_run *run, char kind, const struct jinja_value *v,
                         struct jinja_buffer *b)
{
    int64_t number;
    if (kind == 's')
        return jinja_print(run, v, b);
    if (kind == 'r')
        return jinja_repr(run, v, b);
    if (kind != 'd' && kind != 'i')
        return jinja_refuse(run, "the format '%%%c' is not supported", kind);
    int r = jinja_want_int(run, "%d", v, &number);
    const struct jinja_value whole = jinja_int(r == 0 ? number : 0, v->trusted);
    return r == 0 ? jinja_print(run, &whole, b) : r;
}

int jinja_percent(struct jinja_run *run, const struct jinja_string *s,
                  const struct jinja_value *args, size_t n, struct jinja_value *ret)
{
    struct jinja_buffer *b = jinja_buffer_new(run);
    size_t used = 0, from = 0;
    int r = b != NULL ? jinja_work(run, s->size) : jinja_failed(run);
    for (size_t at = 0; r == 0 && (at = jinja_find(s, "%", 1, at)) != SIZE_MAX; at += 2) {
        r = add(run, b, s, from, at);
        from = at + 2;
        if (r < 0)
            break;
        if (at + 1 == s->size)
            return jinja_refuse(run, "a format that ends with '%%'");
        if (s->text[at + 1] == '%')
            r = add(run, b, s, at, at + 1);
        else if (used == n)
            r = jinja_refuse(run, "not enough arguments for the format");
        else
            r = percent_field(run, s->text[at + 1], &args[used++], b);
    }
    if (r == 0 && used < n)
        return jinja_refuse(run, "%zu arguments for a format of %zu", n, used);
    if (r == 0)
        r = add(run, b, s, from, s->size);
    return r == 0 ? jinja_buffer_value(run, b, ret) : r;
}
