/*
 * map, select, reject and their attribute forms, and the stable sort, see jinja_select.h.
 */
#include "coordinator/jinja_select.h"

#include <string.h>

#include "base/text.h"

/* ------------------------------------------------------------------ attributes */

/* One part between dots: a number or a name. */
static int attribute_part(struct jinja_run *run, const struct jinja_value *item, const char *text,
                          size_t size, struct jinja_value *ret)
{
    int64_t number = 0;
    bool digits = size > 0 && size < 10;
    for (size_t i = 0; i < size; i++) {
        digits = digits && text[i] >= '0' && text[i] <= '9';
        number = digits ? number * 10 + (text[i] - '0') : number;
    }
    struct jinja_value key = jinja_int(number, true);
    int r = digits ? 0 : jinja_text(run, text, size, true, &key);
    return r == 0 ? jinja_item(run, item, &key, ret) : r;
}

int jinja_attribute(struct jinja_run *run, const struct jinja_value *item,
                    const struct jinja_value *attribute, const struct jinja_value *otherwise,
                    struct jinja_value *ret)
{
    struct jinja_value v = *item;
    int r = jinja_work(run, 0);
    if (r == 0 && attribute->kind == JINJA_INT)
        r = jinja_item(run, &v, attribute, &v);
    else if (r == 0 && attribute->kind == JINJA_STRING) {
        const struct jinja_string *s = attribute->string;
        for (size_t at = 0, end; r == 0 && at <= s->size; at = end + 1) {
            end = jinja_find(s, ".", 1, at);
            end = end == SIZE_MAX ? s->size : end;
            r = attribute_part(run, &v, s->text + at, end - at, &v);
            if (r == 0 && v.kind == JINJA_UNDEFINED && otherwise != NULL &&
                otherwise->kind != JINJA_UNDEFINED && otherwise->kind != JINJA_NONE)
                v = *otherwise;
        }
    } else if (r == 0 && attribute->kind != JINJA_NONE) {
        r = jinja_refuse(run, "found %s, expected the name of an attribute", jinja_type(attribute));
    }
    *ret = v;
    return r;
}

/* ------------------------------------------------------------------ sort */

int jinja_sort_key(struct jinja_run *run, const struct jinja_value *item,
                   const struct jinja_sort *how, struct jinja_value *ret)
{
    int r = jinja_attribute(run, item, &how->attribute, how->otherwise, ret);
    if (r == 0 && !how->case_sensitive && ret->kind == JINJA_STRING)
        r = jinja_case(run, ret->string, JINJA_LOWER, ret);
    return r;
}

/* Merges the ascending halves [start, middle) and [middle, end) of from into to. Of equals the left
 * one goes first, in reverse order too. */
static int merge(struct jinja_run *run, const struct jinja_pair *from, struct jinja_pair *to,
                 size_t start, size_t middle, size_t end, bool reverse)
{
    size_t i = start, j = middle;
    for (size_t k = start; k < end; k++) {
        int order = -1;
        if (i < middle && j < end) {
            int r = jinja_order(run, &from[j].key, &from[i].key, "<", &order);
            if (r != 0)
                return r;
            order = reverse ? order : -order;
        }
        const bool left = j == end || (i < middle && order <= 0);
        to[k] = left ? from[i++] : from[j++];
    }
    return 0;
}

int jinja_sort(struct jinja_run *run, struct jinja_list *list, const struct jinja_sort *how)
{
    const size_t n = list->n;
    struct jinja_pair *a = jinja_alloc(run, n, sizeof *a);
    struct jinja_pair *b = a != NULL ? jinja_alloc(run, n, sizeof *b) : NULL;
    int r = 0;
    if (b == NULL)
        return jinja_failed(run);
    for (size_t i = 0; r == 0 && i < n; i++) {
        a[i].value = list->items[i];
        r = jinja_sort_key(run, &list->items[i], how, &a[i].key);
    }
    for (size_t width = 1; r == 0 && width < n; width *= 2) {
        for (size_t start = 0; r == 0 && start < n; start += 2 * width) {
            const size_t middle = start + width < n ? start + width : n;
            const size_t end = middle + width < n ? middle + width : n;
            r = merge(run, a, b, start, middle, end, how->reverse);
        }
        struct jinja_pair *swapped = a;
        a = b;
        b = swapped;
    }
    for (size_t i = 0; r == 0 && i < n; i++)
        list->items[i] = a[i].value;
    return r;
}

/* ------------------------------------------------------------------ map, select, reject */

/* The filter or test that the first argument names, and the arguments behind it. */
static int named_builtin(struct jinja_run *run, bool test, const struct jinja_value *name,
                         const struct jinja_builtin **ret)
{
    char quoted[WEFT_QUOTE_SIZE];
    const struct jinja_string *s = NULL;
    int r = jinja_want_string(run, test ? "the name of a test" : "the name of a filter", name, &s);
    if (r != 0)
        return r;
    *ret = test ? jinja_find_test(s->text, s->size) : jinja_find_filter(s->text, s->size);
    if (*ret == NULL || (*ret)->call == NULL)
        return jinja_refuse(run, "%s %s is not supported", test ? "test" : "filter",
                            weft_quote(quoted, sizeof quoted, s->text, s->size));
    return 0;
}

static struct jinja_args behind(const struct jinja_args *args, size_t n)
{
    struct jinja_args rest = *args;
    rest.list = n < args->n ? args->list + n : args->list;
    rest.n = n < args->n ? args->n - n : 0;
    return rest;
}

/* The items of what these filters take: anything that is false has none, as in Jinja. */
static int items_of(struct jinja_run *run, const struct jinja_value *v,
                    const struct jinja_value **ret, size_t *ret_n)
{
    *ret = NULL;
    *ret_n = 0;
    return v->kind != JINJA_UNDEFINED && !jinja_truth(v) ? 0 : jinja_items(run, v, ret, ret_n);
}

/* map(attribute='a.b', default=…) or map('filter', …). */
static int filter_map(struct jinja_run *run, const struct jinja_value *self,
                      const struct jinja_args *args, struct jinja_value *ret)
{
    static const char *const names[] = {"attribute", "default", NULL};
    const struct jinja_builtin *filter = NULL;
    const struct jinja_args rest = behind(args, 1);
    const struct jinja_value *items = NULL;
    struct jinja_value values[2] = {jinja_none(), {0}}, list;
    size_t n = 0;
    int r = args->n == 0 ? jinja_bind(run, "map", args, names, values)
                         : named_builtin(run, false, &args->list[0], &filter);
    if (r == 0 && filter == NULL && values[0].kind == JINJA_NONE)
        return jinja_refuse(run, "map needs a filter or an attribute");
    if (r == 0)
        r = jinja_enter(run); /* a filter may be map again */
    if (r == 0)
        r = items_of(run, self, &items, &n);
    if (r == 0)
        r = jinja_list_new(run, JINJA_GENERATOR, n, &list);
    for (size_t i = 0; r == 0 && i < n; i++) {
        r = jinja_work(run, 0);
        if (r == 0)
            r = filter != NULL
                    ? filter->call(run, &items[i], &rest, &list.list->items[i])
                    : jinja_attribute(run, &items[i], &values[0], &values[1], &list.list->items[i]);
    }
    jinja_leave(run);
    *ret = list;
    return r;
}

/* select, reject and, by the first argument's attribute, selectattr, rejectattr. */
static int select_by(struct jinja_run *run, const struct jinja_value *self,
                     const struct jinja_args *args, bool attribute, bool wanted,
                     struct jinja_value *ret)
{
    const size_t skipped = attribute ? 1 : 0;
    const struct jinja_args rest = behind(args, skipped + 1);
    const struct jinja_value *items = NULL;
    const struct jinja_builtin *test = NULL;
    struct jinja_value list, key, holds;
    size_t n = 0, used = 0;
    if (args->n < skipped)
        return jinja_refuse(run, "the name of an attribute is missing");
    int r = jinja_enter(run);
    if (r == 0 && args->n > skipped)
        r = named_builtin(run, true, &args->list[skipped], &test);
    if (r == 0)
        r = items_of(run, self, &items, &n);
    if (r == 0)
        r = jinja_list_new(run, JINJA_GENERATOR, n, &list);
    for (size_t i = 0; r == 0 && i < n; i++) {
        key = items[i];
        r = attribute ? jinja_attribute(run, &items[i], &args->list[0], NULL, &key)
                      : jinja_work(run, 0);
        holds = key;
        if (r == 0 && test != NULL)
            r = test->call(run, &key, &rest, &holds);
        if (r == 0 && jinja_truth(&holds) == wanted)
            list.list->items[used++] = items[i];
    }
    jinja_leave(run);
    if (r == 0)
        list.list->n = used;
    *ret = list;
    return r;
}

static int filter_select(struct jinja_run *run, const struct jinja_value *self,
                         const struct jinja_args *args, struct jinja_value *ret)
{
    return select_by(run, self, args, false, true, ret);
}

static int filter_reject(struct jinja_run *run, const struct jinja_value *self,
                         const struct jinja_args *args, struct jinja_value *ret)
{
    return select_by(run, self, args, false, false, ret);
}

static int filter_selectattr(struct jinja_run *run, const struct jinja_value *self,
                             const struct jinja_args *args, struct jinja_value *ret)
{
    return select_by(run, self, args, true, true, ret);
}

static int filter_rejectattr(struct jinja_run *run, const struct jinja_value *self,
                             const struct jinja_args *args, struct jinja_value *ret)
{
    return select_by(run, self, args, true, false, ret);
}

const struct jinja_builtin jinja_select_filters[] = {
    {"map", filter_map},       {"reject", filter_reject},         {"rejectattr", filter_rejectattr},
    {"select", filter_select}, {"selectattr", filter_selectattr}, {NULL, NULL},
};
