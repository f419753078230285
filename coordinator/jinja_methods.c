/*
 * Methods of dicts, lists and loops, and the look-up of all methods. Those that would change a
 * value are known too: the sandbox that templates are written for forbids them by name.
 */
#include <string.h>

#include "coordinator/jinja_run.h"

#define METHOD(name)                                                       \
    static int name(struct jinja_run *run, const struct jinja_value *self, \
                    const struct jinja_args *args, struct jinja_value *ret)

METHOD(dict_get)
{
    static const char *const names[] = {"key", "default", NULL};
    struct jinja_value values[2] = {{0}, jinja_none()};
    struct jinja_pair *pair = NULL;
    int r = jinja_bind(run, "get", args, names, values);
    if (r == 0)
        r = jinja_dict_find(run, self->dict, &values[0], &pair);
    *ret = pair != NULL ? pair->value : values[1];
    return r;
}

METHOD(dict_keys)
{
    (void)args;
    return jinja_dict_list(run, self->dict, JINJA_KEYS, JINJA_VIEW, ret);
}
METHOD(dict_values)
{
    (void)args;
    return jinja_dict_list(run, self->dict, JINJA_VALUES, JINJA_VIEW, ret);
}
METHOD(dict_items)
{
    (void)args;
    return jinja_dict_list(run, self->dict, JINJA_PAIRS, JINJA_VIEW, ret);
}

METHOD(copy) /* values do not change, so one is as good as the other */
{
    (void)run, (void)args;
    *ret = *self;
    return 0;
}

static int search_list(struct jinja_run *run, const struct jinja_value *self,
                       const struct jinja_args *args, size_t *ret_first, size_t *ret_n)
{
    static const char *const names[] = {"value", NULL};
    struct jinja_value value = {0};
    int r = jinja_bind(run, "a method of lists", args, names, &value);
    *ret_n = 0;
    for (size_t i = 0; r == 0 && i < self->list->n; i++) {
        bool equal;
        r = jinja_equal(run, &self->list->items[i], &value, &equal);
        if (r == 0 && equal && (*ret_n)++ == 0)
            *ret_first = i;
    }
    return r;
}

METHOD(list_count)
{
    size_t first, n;
    int r = search_list(run, self, args, &first, &n);
    *ret = jinja_int((int64_t)n, false);
    return r;
}

METHOD(list_index)
{
    size_t first = 0, n;
    int r = search_list(run, self, args, &first, &n);
    if (r == 0 && n == 0)
        return jinja_refuse(run, "index: the value is not in the list");
    *ret = jinja_int((int64_t)first, false);
    return r;
}

METHOD(loop_cycle)
{
    if (args->n == 0)
        return jinja_refuse(run, "loop.cycle: no items for cycling given");
    *ret = args->list[self->loop->index % args->n];
    return 0;
}

METHOD(loop_changed)
{
    struct jinja_loop *loop = self->loop;
    struct jinja_value now;
    bool equal = false;
    int r = jinja_list_new(run, JINJA_TUPLE, args->n, &now);
    for (size_t i = 0; r == 0 && i < args->n; i++)
        now.list->items[i] = args->list[i];
    if (r == 0 && loop->seen)
        r = jinja_equal(run, &loop->changed, &now, &equal);
    loop->changed = now;
    loop->seen = true;
    *ret = jinja_bool(!equal);
    return r;
}

/* ------------------------------------------------------------------ tables */

static const struct jinja_builtin dict_methods[] = {
    {"get", dict_get}, {"items", dict_items}, {"keys", dict_keys}, {"values", dict_values},
    {"copy", copy},    {"fromkeys", NULL},    {NULL, NULL},
};

static const struct jinja_builtin list_methods[] = {
    {"copy", copy}, {"count", list_count}, {"index", list_index}, {NULL, NULL}};

static const struct jinja_builtin tuple_methods[] = {
    {"count", list_count}, {"index", list_index}, {NULL, NULL}};

static const struct jinja_builtin loop_methods[] = {
    {"cycle", loop_cycle}, {"changed", loop_changed}, {NULL, NULL}};

/* What would change the value. */
static const struct jinja_builtin unsafe_dict[] = {
    {"clear", NULL},      {"pop", NULL},    {"popitem", NULL},
    {"setdefault", NULL}, {"update", NULL}, {NULL, NULL},
};
static const struct jinja_builtin unsafe_list[] = {
    {"append", NULL}, {"clear", NULL},   {"extend", NULL}, {"insert", NULL}, {"pop", NULL},
    {"remove", NULL}, {"reverse", NULL}, {"sort", NULL},   {NULL, NULL},
};

const struct jinja_builtin *jinja_find_method(const struct jinja_value *v, const char *name,
                                              size_t size, bool *ret_unsafe)
{
    static const struct {
        const struct jinja_builtin *safe, *unsafe;
    } tables[JINJA_KIND_COUNT] = {
        [JINJA_STRING] = {jinja_text_methods, NULL}, [JINJA_DICT] = {dict_methods, unsafe_dict},
        [JINJA_LIST] = {list_methods, unsafe_list},  [JINJA_TUPLE] = {tuple_methods, NULL},
        [JINJA_RANGE] = {tuple_methods, NULL},       [JINJA_LOOP] = {loop_methods, NULL},
    };
    *ret_unsafe =
        tables[v->kind].unsafe != NULL && jinja_lookup(tables[v->kind].unsafe, name, size) != NULL;
    if (*ret_unsafe || tables[v->kind].safe == NULL)
        return NULL;
    return jinja_lookup(tables[v->kind].safe, name, size);
}
