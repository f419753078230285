/*
 * Filters of lists and dicts as wholes: length, join, first, sort and so on. What picks elements by
 * a filter, a test or an attribute is in jinja_select.c.
 */
#include <string.h>

#include "coordinator/jinja_run.h"
#include "coordinator/jinja_select.h"

#define FILTER(name)                                                       \
    static int name(struct jinja_run *run, const struct jinja_value *self, \
                    const struct jinja_args *args, struct jinja_value *ret)

static const char *const no_names[] = {NULL};

/* ------------------------------------------------------------------ wholes */

FILTER(filter_length)
{
    int r = jinja_bind(run, "length", args, no_names, NULL);
    size_t n = 0;
    if (r != 0)
        return r;
    switch (self->kind) {
    case JINJA_UNDEFINED:
        break;
    case JINJA_STRING:
        n = jinja_string_length(self->string);
        r = jinja_work(run, self->string->size);
        break;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_RANGE:
    case JINJA_VIEW:
        n = self->list->n;
        break;
    case JINJA_DICT:
        n = self->dict->n;
        break;
    case JINJA_LOOP:
        n = self->loop->n;
        break;
    default:
        return jinja_refuse(run, "object of type '%s' has no len()", jinja_type(self));
    }
    *ret = jinja_int((int64_t)n, false);
    return r;
}

/* A list of n of the items. */
static int list_of(struct jinja_run *run, const struct jinja_value *items, size_t n,
                   enum jinja_kind kind, struct jinja_value *ret)
{
    int r = jinja_work(run, n * sizeof *items);
    if (r == 0)
        r = jinja_list_new(run, kind, n, ret);
    for (size_t i = 0; r == 0 && i < n; i++)
        ret->list->items[i] = items[i];
    return r;
}

FILTER(filter_list)
{
    const struct jinja_value *items = NULL;
    size_t n = 0;
    int r = jinja_bind(run, "list", args, no_names, NULL);
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    return r == 0 ? list_of(run, items, n, JINJA_LIST, ret) : r;
}

FILTER(filter_items)
{
    int r = jinja_bind(run, "items", args, no_names, NULL);
    if (r == 0 && self->kind == JINJA_UNDEFINED)
        return jinja_list_new(run, JINJA_GENERATOR, 0, ret);
    if (r == 0 && self->kind != JINJA_DICT)
        return jinja_refuse(run, "items: found %s, expected a mapping", jinja_type(self));
    return r == 0 ? jinja_dict_list(run, self->dict, JINJA_PAIRS, JINJA_GENERATOR, ret) : r;
}

FILTER(filter_first)
{
    static const char why[] = "the first item of an empty sequence";
    const struct jinja_value *items = NULL;
    size_t n = 0;
    int r = jinja_bind(run, "first", args, no_names, NULL);
    const size_t taken = self->kind == JINJA_GENERATOR ? self->list->taken : 0;
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    if (r != 0)
        return r;
    if (n == 0)
        return jinja_missing(run, MISSING_TEXT, NULL, why, sizeof why - 1, ret);
    if (self->kind == JINJA_GENERATOR)
        self->list->taken = taken + 1;
    *ret = items[0];
    return 0;
}

FILTER(filter_last)
{
    static const char why[] = "the last item of an empty sequence";
    const struct jinja_value *items = NULL;
    size_t n = 0;
    int r = jinja_bind(run, "last", args, no_names, NULL);
    if (r == 0 && self->kind == JINJA_GENERATOR)
        return jinja_refuse(run, "last: 'generator' object is not reversible");
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    if (r == 0 && n == 0)
        return jinja_missing(run, MISSING_TEXT, NULL, why, sizeof why - 1, ret);
    if (r == 0)
        *ret = items[n - 1];
    return r;
}

FILTER(filter_reverse)
{
    const struct jinja_value *items = NULL;
    struct jinja_value list;
    size_t n = 0;
    int r = jinja_bind(run, "reverse", args, no_names, NULL);
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    if (r == 0)
        r = list_of(run, items, n, JINJA_GENERATOR, &list);
    if (r != 0)
        return r;
    for (size_t i = 0; i < n; i++)
        list.list->items[i] = items[n - 1 - i];
    *ret = list;
    if (self->kind != JINJA_STRING)
        return 0;
    struct jinja_buffer *b = jinja_buffer_new(run);
    r = b != NULL ? 0 : jinja_failed(run);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = jinja_buffer_string(run, b, list.list->items[i].string);
    return r == 0 ? jinja_buffer_value(run, b, ret) : r;
}

FILTER(filter_join)
{
    static const char *const names[] = {"d", "attribute", NULL};
    static const struct jinja_string empty = {.text = "", .trusted = true};
    struct jinja_value values[2] = {{.kind = JINJA_STRING, .string = &empty}, jinja_none()};
    const struct jinja_value *items = NULL;
    const struct jinja_string *between;
    size_t n = 0;
    struct jinja_buffer *b = jinja_buffer_new(run);
    int r = b != NULL ? jinja_bind(run, "join", args, names, values) : jinja_failed(run);
    if (r == 0)
        r = jinja_string_of(run, &values[0], &between);
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct jinja_value item = items[i];
        if (i > 0)
            r = jinja_buffer_string(run, b, between);
        if (r == 0)
            r = jinja_attribute(run, &items[i], &values[1], NULL, &item);
        if (r == 0)
            r = jinja_print(run, &item, b);
    }
    return r == 0 ? jinja_buffer_value(run, b, ret) : r;
}

FILTER(filter_sum)
{
    static const char *const names[] = {"attribute", "start", NULL};
    struct jinja_value values[2] = {jinja_none(), jinja_int(0, true)};
    const struct jinja_value *items = NULL;
    size_t n = 0;
    int r = jinja_bind(run, "sum", args, names, values);
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct jinja_value item;
        const struct jinja_value sum = values[1]; /* operands and result are different values */
        r = jinja_attribute(run, &items[i], &values[0], NULL, &item);
        if (r == 0)
            r = jinja_operate(run, JINJA_ADD, &sum, &item, &values[1]);
    }
    *ret = values[1];
    return r;
}

/* ------------------------------------------------------------------ order */

FILTER(filter_sort)
{
    static const char *const names[] = {"reverse", "case_sensitive", "attribute", NULL};
    struct jinja_value values[3] = {jinja_bool(false), jinja_bool(false), jinja_none()};
    const struct jinja_value *items = NULL;
    size_t n = 0;
    int r = jinja_bind(run, "sort", args, names, values);
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    if (r == 0)
        r = list_of(run, items, n, JINJA_LIST, ret);
    const struct jinja_sort how = {.attribute = values[2],
                                   .reverse = jinja_truth(&values[0]),
                                   .case_sensitive = jinja_truth(&values[1])};
    return r == 0 ? jinja_sort(run, ret->list, &how) : r;
}

FILTER(filter_dictsort)
{
    static const char *const names[] = {"case_sensitive", "by", "reverse", NULL};
    static const struct jinja_string key = {.text = "key", .size = 3};
    struct jinja_value values[3] = {
        jinja_bool(false), {.kind = JINJA_STRING, .string = &key}, jinja_bool(false)};
    int r = jinja_bind(run, "dictsort", args, names, values);
    const bool by_value = jinja_string_is(&values[1], "value");
    if (r == 0 && !by_value && !jinja_string_is(&values[1], "key"))
        return jinja_refuse(run, "dictsort: by must be 'key' or 'value'");
    if (r == 0)
        r = jinja_defined(run, self);
    if (r == 0 && self->kind != JINJA_DICT)
        return jinja_refuse(run, "dictsort: found %s, expected a dict", jinja_type(self));
    if (r == 0)
        r = jinja_dict_list(run, self->dict, JINJA_PAIRS, JINJA_LIST, ret);
    const struct jinja_sort how = {.attribute = jinja_int(by_value, true),
                                   .reverse = jinja_truth(&values[2]),
                                   .case_sensitive = jinja_truth(&values[0])};
    return r == 0 ? jinja_sort(run, ret->list, &how) : r;
}

/* min and max: the first of equals. */
static int extreme(struct jinja_run *run, const struct jinja_value *self,
                   const struct jinja_args *args, bool greatest, struct jinja_value *ret)
{
    static const char *const names[] = {"case_sensitive", "attribute", NULL};
    static const char why[] = "the least or greatest item of an empty sequence";
    struct jinja_value values[2] = {jinja_bool(false), jinja_none()}, best = {0}, key;
    const struct jinja_value *items = NULL;
    size_t n = 0;
    int order, r = jinja_bind(run, greatest ? "max" : "min", args, names, values);
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    if (r == 0 && n == 0)
        return jinja_missing(run, MISSING_TEXT, NULL, why, sizeof why - 1, ret);
    const struct jinja_sort how = {.attribute = values[1],
                                   .case_sensitive = jinja_truth(&values[0])};
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = jinja_sort_key(run, &items[i], &how, &key);
        order = greatest ? 1 : -1;
        if (r == 0 && i > 0)
            r = jinja_order(run, &key, &best, greatest ? ">" : "<", &order);
        if (r == 0 && (greatest ? order > 0 : order < 0)) {
            best = key;
            *ret = items[i];
        }
    }
    return r;
}

FILTER(filter_min)
{
    return extreme(run, self, args, false, ret);
}
FILTER(filter_max)
{
    return extreme(run, self, args, true, ret);
}

/* The first of each that are equal, texts by default whatever their case. */
FILTER(filter_unique)
{
    static const char *const names[] = {"case_sensitive", "attribute", NULL};
    struct jinja_value values[2] = {jinja_bool(false), jinja_none()}, seen, list, key;
    const struct jinja_value *items, none = jinja_none();
    struct jinja_pair *pair;
    size_t n = 0, used = 0;
    int r = jinja_bind(run, "unique", args, names, values);
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    if (r == 0)
        r = jinja_list_new(run, JINJA_GENERATOR, n, &list);
    if (r == 0)
        r = jinja_dict_new(run, JINJA_DICT, 0, &seen);
    const struct jinja_sort how = {.attribute = values[1],
                                   .case_sensitive = jinja_truth(&values[0])};
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = jinja_sort_key(run, &items[i], &how, &key);
        pair = NULL;
        for (size_t k = 0; r == 0 && pair == NULL && k < seen.dict->n; k++) {
            bool equal;
            r = jinja_equal(run, &seen.dict->pairs[k].key, &key, &equal);
            pair = r == 0 && equal ? &seen.dict->pairs[k] : NULL;
        }
        if (r == 0 && pair == NULL) {
            list.list->items[used++] = items[i];
            r = jinja_dict_set(run, seen.dict, &key, &none);
        }
    }
    if (r == 0)
        list.list->n = used;
    *ret = list;
    return r;
}

const char jinja_group_type[] = "_GroupTuple";

/* Pairs (value of the attribute, items that have it), sorted. */
FILTER(filter_groupby)
{
    static const char *const names[] = {"attribute", "default", "case_sensitive", NULL};
    struct jinja_value values[3] = {{0}, {0}, jinja_bool(false)}, sorted, groups, group, key;
    struct jinja_value before = {0};
    const struct jinja_value *items = NULL;
    size_t n = 0, used = 0, start = 0;
    bool equal = false;
    int r = jinja_bind(run, "groupby", args, names, values);
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    if (r == 0)
        r = list_of(run, items, n, JINJA_LIST, &sorted);
    const struct jinja_sort how = {
        .attribute = values[0], .otherwise = &values[1], .case_sensitive = jinja_truth(&values[2])};
    if (r == 0)
        r = jinja_sort(run, sorted.list, &how);
    if (r == 0)
        r = jinja_list_new(run, JINJA_LIST, n, &groups);
    for (size_t i = 0; r == 0 && i <= n; i++) {
        equal = false;
        if (i < n)
            r = jinja_sort_key(run, &sorted.list->items[i], &how, &key);
        if (r == 0 && i > 0 && i < n)
            r = jinja_equal(run, &key, &before, &equal);
        before = key;
        if (r < 0 || i == 0 || equal)
            continue;
        r = jinja_list_new(run, JINJA_TUPLE, 2, &group);
        if (r == 0)
            group.list->type = jinja_group_type;
        if (r == 0)
            r = jinja_attribute(run, &sorted.list->items[start], &values[0], &values[1],
                                &group.list->items[0]);
        if (r == 0)
            r = list_of(run, sorted.list->items + start, i - start, JINJA_LIST,
                        &group.list->items[1]);
        groups.list->items[used++] = group;
        start = i;
    }
    if (r == 0)
        groups.list->n = used;
    *ret = groups;
    return r;
}

/* ------------------------------------------------------------------ pieces */

/* Lists of `size` items each; the last one is filled up if `fill` is not none. */
FILTER(filter_batch)
{
    static const char *const names[] = {"linecount", "fill_with", NULL};
    struct jinja_value values[2] = {{0}, jinja_none()}, list = {0}, piece = {0};
    const struct jinja_value *items = NULL;
    size_t n = 0;
    int64_t size = 0;
    int r = jinja_bind(run, "batch", args, names, values);
    if (r == 0)
        r = jinja_want_int(run, "batch", &values[0], &size);
    if (r == 0 && size < 1)
        return jinja_refuse(run, "batch: found %lld, expected at least 1", (long long)size);
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    if (r == 0)
        r = jinja_list_new(run, JINJA_GENERATOR, n / (size_t)size + (n % (size_t)size != 0), &list);
    for (size_t i = 0; r == 0 && i < list.list->n; i++) {
        const size_t start = i * (size_t)size;
        const size_t have = n - start < (size_t)size ? n - start : (size_t)size;
        const size_t want = values[1].kind == JINJA_NONE ? have : (size_t)size;
        r = jinja_list_new(run, JINJA_LIST, want, &piece);
        for (size_t k = 0; r == 0 && k < want; k++)
            piece.list->items[k] = k < have ? items[start + k] : values[1];
        list.list->items[i] = piece;
    }
    *ret = list;
    return r;
}

/* So many lists of nearly equal length. */
FILTER(filter_slice)
{
    static const char *const names[] = {"slices", "fill_with", NULL};
    struct jinja_value values[2] = {{0}, jinja_none()}, list = {0}, piece = {0};
    const struct jinja_value *items = NULL;
    size_t n = 0, start = 0;
    int64_t slices = 0;
    int r = jinja_bind(run, "slice", args, names, values);
    if (r == 0)
        r = jinja_want_int(run, "slice", &values[0], &slices);
    if (r == 0 && (slices < 1 || slices > JINJA_RANGE_MAX))
        return jinja_refuse(run, "slice: found %lld, expected 1 to %d", (long long)slices,
                            JINJA_RANGE_MAX);
    if (r == 0)
        r = jinja_items(run, self, &items, &n);
    if (r == 0)
        r = jinja_list_new(run, JINJA_GENERATOR, (size_t)slices, &list);
    for (size_t i = 0; r == 0 && i < (size_t)slices; i++) {
        const bool longer = i < n % (size_t)slices;
        const size_t have = n / (size_t)slices + longer;
        const bool fill = values[1].kind != JINJA_NONE && !longer && n % (size_t)slices != 0;
        r = jinja_list_new(run, JINJA_LIST, have + fill, &piece);
        for (size_t k = 0; r == 0 && k < have + fill; k++)
            piece.list->items[k] = k < have ? items[start + k] : values[1];
        list.list->items[i] = piece;
        start += have;
    }
    *ret = list;
    return r;
}

const struct jinja_builtin jinja_list_filters[] = {
    {"batch", filter_batch},     {"count", filter_length},    {"dictsort", filter_dictsort},
    {"first", filter_first},     {"groupby", filter_groupby}, {"items", filter_items},
    {"join", filter_join},       {"last", filter_last},       {"length", filter_length},
    {"list", filter_list},       {"max", filter_max},         {"min", filter_min},
    {"reverse", filter_reverse}, {"slice", filter_slice},     {"sort", filter_sort},
    {"sum", filter_sum},         {"unique", filter_unique},   {NULL, NULL},
};
