/*
 * Methods of texts, as Python's str has them. Places are counted in characters, letters beyond
 * ASCII count as letters.
 */
#include <string.h>

#include "base/text.h"
#include "coordinator/jinja_run.h"

#define METHOD(name)                                                       \
    static int name(struct jinja_run *run, const struct jinja_value *self, \
                    const struct jinja_args *args, struct jinja_value *ret)

static int strip(struct jinja_run *run, const struct jinja_value *self,
                 const struct jinja_args *args, bool left, bool right, struct jinja_value *ret)
{
    static const char *const names[] = {"chars", NULL};
    struct jinja_value chars = jinja_none();
    const struct jinja_string *set = NULL;
    int r = jinja_bind(run, "strip", args, names, &chars);
    if (r == 0 && chars.kind != JINJA_NONE)
        r = jinja_want_string(run, "strip", &chars, &set);
    return r == 0 ? jinja_strip(run, self->string, set, left, right, ret) : r;
}

METHOD(text_strip)
{
    return strip(run, self, args, true, true, ret);
}
METHOD(text_lstrip)
{
    return strip(run, self, args, true, false, ret);
}
METHOD(text_rstrip)
{
    return strip(run, self, args, false, true, ret);
}

static int in_case(struct jinja_run *run, const struct jinja_value *self,
                   const struct jinja_args *args, enum jinja_case how, struct jinja_value *ret)
{
    static const char *const names[] = {NULL};
    int r = jinja_bind(run, "a method of case", args, names, NULL);
    return r == 0 ? jinja_case(run, self->string, how, ret) : r;
}

METHOD(text_lower)
{
    return in_case(run, self, args, JINJA_LOWER, ret);
}
METHOD(text_upper)
{
    return in_case(run, self, args, JINJA_UPPER, ret);
}
METHOD(text_title)
{
    return in_case(run, self, args, JINJA_TITLE, ret);
}
METHOD(text_capitalize)
{
    return in_case(run, self, args, JINJA_CAPITALIZE, ret);
}
METHOD(text_swapcase)
{
    return in_case(run, self, args, JINJA_SWAP, ret);
}

/* The next piece of s from *at on (or, from the right, before *end); between: where a separator was
 * found. NULL sep: runs of white space. False at the end. */
struct splitter {
    const struct jinja_string *s, *sep;
    size_t start, end;
};

static bool is_space_at(const struct jinja_string *s, size_t at, size_t *size)
{
    uint32_t code;
    *size = weft_utf8_decode(s->text + at, s->size - at, &code);
    return jinja_code_space(code);
}

/* The first separator in [start, end): its place and size; false: none. */
static bool next_separator(const struct splitter *p, size_t *ret_at, size_t *ret_size)
{
    if (p->sep != NULL) {
        *ret_at = jinja_find(p->s, p->sep->text, p->sep->size, p->start);
        *ret_size = p->sep->size;
        return *ret_at != SIZE_MAX && *ret_at + *ret_size <= p->end;
    }
    size_t at = p->start, size = 0;
    while (at < p->end && !is_space_at(p->s, at, &size))
        at += size;
    *ret_at = at;
    while (at < p->end && is_space_at(p->s, at, &size))
        at += size;
    *ret_size = at - *ret_at;
    return *ret_size > 0;
}

static bool last_separator(const struct splitter *p, size_t *ret_at, size_t *ret_size)
{
    if (p->sep != NULL) {
        *ret_at = jinja_find_last(p->s, p->sep->text, p->sep->size, p->end);
        *ret_size = p->sep->size;
        return *ret_at != SIZE_MAX && *ret_at >= p->start;
    }
    size_t at = p->end, from, size, behind = 0;
    bool found = false;
    while (at > p->start) {
        from = at - 1;
        while (from > p->start && ((uint8_t)p->s->text[from] & 0xC0) == 0x80)
            from--;
        const bool space = is_space_at(p->s, from, &size);
        if (found && !space)
            break;
        behind = space && !found ? at : behind;
        found = found || space;
        at = from;
    }
    *ret_at = at;
    *ret_size = behind - at;
    return found;
}

/* Adds a piece to a list that grows by doubling. */
static int add_piece(struct jinja_run *run, struct jinja_list *list, size_t *room,
                     const struct jinja_string *s, size_t start, size_t end)
{
    if (list->n == *room) {
        *room = 2 * *room + 8;
        struct jinja_value *items = jinja_alloc(run, *room, sizeof *items);
        if (items == NULL)
            return jinja_failed(run);
        for (size_t i = 0; i < list->n; i++)
            items[i] = list->items[i];
        list->items = items;
    }
    return jinja_cut(run, s, start, end - start, &list->items[list->n++]);
}

static int split(struct jinja_run *run, const struct jinja_value *self,
                 const struct jinja_args *args, bool right, struct jinja_value *ret)
{
    static const char *const names[] = {"sep", "maxsplit", NULL};
    struct jinja_value values[2] = {jinja_none(), jinja_int(-1, true)}, list;
    struct splitter p = {.s = self->string, .end = self->string->size};
    int64_t most = -1;
    size_t at, size, room = 0;
    int r = jinja_bind(run, "split", args, names, values);
    if (r == 0 && values[0].kind != JINJA_NONE)
        r = jinja_want_string(run, "split", &values[0], &p.sep);
    if (r == 0)
        r = jinja_want_int(run, "split", &values[1], &most);
    if (r == 0 && p.sep != NULL && p.sep->size == 0)
        return jinja_refuse(run, "split: the separator is empty");
    if (r == 0)
        r = jinja_work_at(run, p.s->size, right && p.sep != NULL ? p.sep->size : 1);
    if (r == 0)
        r = jinja_list_new(run, JINJA_LIST, 0, &list);
    if (r != 0)
        return r;
    /* White space at both ends counts for nothing. */
    while (p.sep == NULL && !right && p.start < p.end && is_space_at(p.s, p.start, &size))
        p.start += size;
    if (p.sep == NULL && p.start < p.end && right && last_separator(&p, &at, &size) &&
        at + size == p.end)
        p.end = at;
    while (r == 0 && most-- != 0 &&
           (right ? last_separator(&p, &at, &size) : next_separator(&p, &at, &size))) {
        r = right ? add_piece(run, list.list, &room, p.s, at + size, p.end)
                  : add_piece(run, list.list, &room, p.s, p.start, at);
        if (right)
            p.end = at;
        else
            p.start = at + size;
    }
    if (r == 0 && (p.sep != NULL || p.start < p.end))
        r = add_piece(run, list.list, &room, p.s, p.start, p.end);
    for (size_t i = 0; right && i < list.list->n / 2; i++) {
        const struct jinja_value swapped = list.list->items[i];
        list.list->items[i] = list.list->items[list.list->n - 1 - i];
        list.list->items[list.list->n - 1 - i] = swapped;
    }
    *ret = list;
    return r;
}

METHOD(text_split)
{
    return split(run, self, args, false, ret);
}
METHOD(text_rsplit)
{
    return split(run, self, args, true, ret);
}

METHOD(text_splitlines)
{
    static const char *const names[] = {NULL};
    int r = jinja_bind(run, "splitlines", args, names, NULL);
    return r == 0 ? jinja_splitlines(run, self->string, ret) : r;
}

/* (before, separator, after) */
static int partition(struct jinja_run *run, const struct jinja_value *self,
                     const struct jinja_args *args, bool right, struct jinja_value *ret)
{
    static const char *const names[] = {"sep", NULL};
    const struct jinja_string *s = self->string, *sep;
    struct jinja_value value = {0}, list;
    int r = jinja_bind(run, "partition", args, names, &value);
    if (r == 0)
        r = jinja_want_string(run, "partition", &value, &sep);
    if (r == 0)
        r = jinja_work_at(run, s->size, right ? sep->size : 1);
    if (r == 0)
        r = jinja_list_new(run, JINJA_TUPLE, 3, &list);
    if (r != 0)
        return r;
    size_t at = right ? jinja_find_last(s, sep->text, sep->size, s->size)
                      : jinja_find(s, sep->text, sep->size, 0);
    size_t behind = at != SIZE_MAX ? at + sep->size : right ? 0 : s->size;
    at = at != SIZE_MAX ? at : right ? 0 : s->size;
    r = jinja_cut(run, s, 0, at, &list.list->items[0]);
    if (r == 0)
        r = jinja_cut(run, s, at, behind - at, &list.list->items[1]);
    if (r == 0)
        r = jinja_cut(run, s, behind, s->size - behind, &list.list->items[2]);
    *ret = list;
    return r;
}

METHOD(text_partition)
{
    return partition(run, self, args, false, ret);
}
METHOD(text_rpartition)
{
    return partition(run, self, args, true, ret);
}

static bool has_end(const struct jinja_string *s, const struct jinja_string *part, bool start)
{
    return part->size <= s->size &&
           memcmp(start ? s->text : s->text + s->size - part->size, part->text, part->size) == 0;
}

/* startswith, endswith: one text, or a tuple of them. */
static int ends(struct jinja_run *run, const struct jinja_value *self,
                const struct jinja_args *args, bool start, struct jinja_value *ret)
{
    static const char *const names[] = {"prefix", NULL};
    const char *what = start ? "startswith" : "endswith";
    struct jinja_value value = {0};
    bool found = false;
    int r = jinja_bind(run, what, args, names, &value);
    const bool tuple = value.kind == JINJA_TUPLE;
    const struct jinja_value *items = tuple ? value.list->items : &value;
    for (size_t i = 0; r == 0 && !found && i < (tuple ? value.list->n : 1); i++) {
        const struct jinja_string *part;
        r = jinja_want_string(run, what, &items[i], &part);
        if (r == 0)
            r = jinja_work(run, part->size);
        if (r == 0)
            found = has_end(self->string, part, start);
    }
    *ret = jinja_bool(found);
    return r;
}

METHOD(text_startswith)
{
    return ends(run, self, args, true, ret);
}
METHOD(text_endswith)
{
    return ends(run, self, args, false, ret);
}

static int remove_end(struct jinja_run *run, const struct jinja_value *self,
                      const struct jinja_args *args, bool start, struct jinja_value *ret)
{
    static const char *const names[] = {"part", NULL};
    const struct jinja_string *s = self->string, *part;
    struct jinja_value value = {0};
    int r = jinja_bind(run, start ? "removeprefix" : "removesuffix", args, names, &value);
    if (r == 0)
        r = jinja_want_string(run, start ? "removeprefix" : "removesuffix", &value, &part);
    if (r == 0)
        r = jinja_work(run, part->size);
    if (r != 0)
        return r;
    const size_t n = has_end(s, part, start) ? part->size : 0;
    return jinja_cut(run, s, start ? n : 0, s->size - n, ret);
}

METHOD(text_removeprefix)
{
    return remove_end(run, self, args, true, ret);
}
METHOD(text_removesuffix)
{
    return remove_end(run, self, args, false, ret);
}

METHOD(text_replace)
{
    static const char *const names[] = {"old", "new", "count", NULL};
    struct jinja_value values[3] = {{0}, {0}, jinja_int(-1, true)};
    const struct jinja_string *old = NULL, *new = NULL;
    int64_t count;
    int r = jinja_bind(run, "replace", args, names, values);
    if (r == 0)
        r = jinja_want_string(run, "replace", &values[0], &old);
    if (r == 0)
        r = jinja_want_string(run, "replace", &values[1], &new);
    if (r == 0)
        r = jinja_want_int(run, "replace", &values[2], &count);
    return r == 0 ? jinja_replace(run, self->string, old, new, count, ret) : r;
}

METHOD(text_join)
{
    static const char *const names[] = {"iterable", NULL};
    struct jinja_value value = {0};
    const struct jinja_value *items = NULL;
    const struct jinja_string *part;
    size_t n = 0;
    struct jinja_buffer *b = jinja_buffer_new(run);
    int r = b != NULL ? jinja_bind(run, "join", args, names, &value) : jinja_failed(run);
    if (r == 0)
        r = jinja_items(run, &value, &items, &n);
    for (size_t i = 0; r == 0 && i < n; i++) {
        if (i > 0)
            r = jinja_buffer_string(run, b, self->string);
        if (r == 0)
            r = jinja_want_string(run, "join", &items[i], &part);
        if (r == 0)
            r = jinja_buffer_string(run, b, part);
    }
    return r == 0 ? jinja_buffer_value(run, b, ret) : r;
}

/* find, rfind, index, rindex: places are counted in characters. */
static int find(struct jinja_run *run, const struct jinja_value *self,
                const struct jinja_args *args, bool last, bool must, struct jinja_value *ret)
{
    static const char *const names[] = {"sub", NULL};
    const struct jinja_string *s = self->string, *part;
    struct jinja_value value = {0};
    int r = jinja_bind(run, "find", args, names, &value);
    if (r == 0)
        r = jinja_want_string(run, "find", &value, &part);
    if (r == 0)
        r = jinja_work_at(run, s->size, last ? part->size : 1);
    if (r != 0)
        return r;
    const size_t at = last ? jinja_find_last(s, part->text, part->size, s->size)
                           : jinja_find(s, part->text, part->size, 0);
    if (at == SIZE_MAX && must)
        return jinja_refuse(run, "index: the text is not there");
    const struct jinja_string before = {.text = s->text, .size = at != SIZE_MAX ? at : 0};
    *ret = jinja_int(at != SIZE_MAX ? (int64_t)jinja_string_length(&before) : -1, false);
    return 0;
}

METHOD(text_find)
{
    return find(run, self, args, false, false, ret);
}
METHOD(text_rfind)
{
    return find(run, self, args, true, false, ret);
}
METHOD(text_index)
{
    return find(run, self, args, false, true, ret);
}
METHOD(text_rindex)
{
    return find(run, self, args, true, true, ret);
}

METHOD(text_count)
{
    static const char *const names[] = {"sub", NULL};
    const struct jinja_string *s = self->string, *part;
    struct jinja_value value = {0};
    int64_t n = 0;
    int r = jinja_bind(run, "count", args, names, &value);
    if (r == 0)
        r = jinja_want_string(run, "count", &value, &part);
    if (r == 0)
        r = jinja_work(run, s->size);
    if (r != 0)
        return r;
    for (size_t at = 0; part->size > 0; at += part->size, n++)
        if ((at = jinja_find(s, part->text, part->size, at)) == SIZE_MAX)
            break;
    *ret = jinja_int(part->size > 0 ? n : (int64_t)jinja_string_length(s) + 1, false);
    return 0;
}

METHOD(text_format)
{
    return jinja_format(run, self->string, args, ret);
}

/* Of ASCII alone; other letters count as letters without case. */
static int all_of(struct jinja_run *run, const struct jinja_value *self,
                  const struct jinja_args *args, bool letters, bool digits, struct jinja_value *ret)
{
    static const char *const names[] = {NULL};
    const struct jinja_string *s = self->string;
    bool all = s->size > 0;
    int r = jinja_bind(run, "a method that asks for characters", args, names, NULL);
    if (r == 0)
        r = jinja_work(run, s->size);
    for (size_t at = 0, size; all && at < s->size; at += size) {
        uint32_t code;
        size = weft_utf8_decode(s->text + at, s->size - at, &code);
        const uint32_t lower = code | 0x20;
        all = (digits && code >= '0' && code <= '9') ||
              (letters && ((lower >= 'a' && lower <= 'z') || code >= 0xAA)) ||
              (!letters && !digits && jinja_code_space(code));
    }
    *ret = jinja_bool(all);
    return r;
}

METHOD(text_isalpha)
{
    return all_of(run, self, args, true, false, ret);
}
METHOD(text_isdigit)
{
    return all_of(run, self, args, false, true, ret);
}
METHOD(text_isalnum)
{
    return all_of(run, self, args, true, true, ret);
}
METHOD(text_isspace)
{
    return all_of(run, self, args, false, false, ret);
}

/* Cased letters there are, and changing case changes nothing. */
static int is_case(struct jinja_run *run, const struct jinja_value *self, enum jinja_case how,
                   struct jinja_value *ret)
{
    struct jinja_value same, other;
    bool equal = false, cased = false;
    int r = jinja_case(run, self->string, how, &same);
    if (r == 0)
        r = jinja_case(run, self->string, how == JINJA_LOWER ? JINJA_UPPER : JINJA_LOWER, &other);
    if (r == 0)
        r = jinja_equal(run, self, &same, &equal);
    if (r == 0)
        r = jinja_equal(run, &same, &other, &cased);
    *ret = jinja_bool(equal && !cased);
    return r;
}

METHOD(text_islower)
{
    (void)args;
    return is_case(run, self, JINJA_LOWER, ret);
}
METHOD(text_isupper)
{
    (void)args;
    return is_case(run, self, JINJA_UPPER, ret);
}

const struct jinja_builtin jinja_text_methods[] = {
    {"capitalize", text_capitalize},
    {"count", text_count},
    {"endswith", text_endswith},
    {"find", text_find},
    {"format", text_format},
    {"index", text_index},
    {"isalnum", text_isalnum},
    {"isalpha", text_isalpha},
    {"isdigit", text_isdigit},
    {"islower", text_islower},
    {"isspace", text_isspace},
    {"isupper", text_isupper},
    {"join", text_join},
    {"lower", text_lower},
    {"lstrip", text_lstrip},
    {"partition", text_partition},
    {"removeprefix", text_removeprefix},
    {"removesuffix", text_removesuffix},
    {"replace", text_replace},
    {"rfind", text_rfind},
    {"rindex", text_rindex},
    {"rpartition", text_rpartition},
    {"rsplit", text_rsplit},
    {"rstrip", text_rstrip},
    {"split", text_split},
    {"splitlines", text_splitlines},
    {"startswith", text_startswith},
    {"strip", text_strip},
    {"swapcase", text_swapcase},
    {"title", text_title},
    {"upper", text_upper},
    /* Python's others. */
    {"casefold", NULL},
    {"center", NULL},
    {"encode", NULL},
    {"expandtabs", NULL},
    {"format_map", NULL},
    {"isascii", NULL},
    {"isdecimal", NULL},
    {"isidentifier", NULL},
    {"isnumeric", NULL},
    {"isprintable", NULL},
    {"istitle", NULL},
    {"ljust", NULL},
    {"maketrans", NULL},
    {"rjust", NULL},
    {"translate", NULL},
    {"zfill", NULL},
    {NULL, NULL},
};
