/*
 * Dicts of the Jinja interpreter: pairs in the order they were added. Few keys are looked at one by
 * one; many are found through an order of their indices, made when it is first needed, so that no
 * choice of keys can make a look-up slow.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/jinja_run.h"

#define PAIRS_FEW 12 /* so many keys are found by looking at each */

int jinja_dict_new(struct jinja_run *run, enum jinja_kind kind, size_t room,
                   struct jinja_value *ret)
{
    struct jinja_dict *d = jinja_alloc(run, 1, sizeof *d);
    if (d == NULL)
        return jinja_failed(run);
    if (room > 0 && (d->pairs = jinja_alloc(run, room, sizeof *d->pairs)) == NULL)
        return jinja_failed(run);
    d->room = room;
    *ret = (struct jinja_value){.kind = kind, .dict = d};
    return 0;
}

static bool hashable(const struct jinja_value *key)
{
    bool good = key->kind != JINJA_LIST && key->kind != JINJA_DICT && key->kind != JINJA_UNDEFINED;
    for (size_t i = 0; good && key->kind == JINJA_TUPLE && i < key->list->n; i++)
        good = key->list->items[i].kind == JINJA_STRING || jinja_is_number(&key->list->items[i]);
    return good;
}

/* An order of texts alone, by which many keys are found; other kinds are looked at one by one. */
static int by_text(const void *a, const void *b, void *arg)
{
    const struct jinja_dict *d = arg;
    const struct jinja_value *x = &d->pairs[*(const uint32_t *)a].key;
    const struct jinja_value *y = &d->pairs[*(const uint32_t *)b].key;
    if (x->kind != JINJA_STRING || y->kind != JINJA_STRING)
        return (x->kind == JINJA_STRING) - (y->kind == JINJA_STRING);
    return jinja_compare_bytes(x->string, y->string);
}

/* How often a look-up among n keys compares two. */
static size_t comparisons(size_t n)
{
    size_t times = 1;
    for (; n > 1; n /= 2)
        times++;
    return times;
}

static int make_order(struct jinja_run *run, struct jinja_dict *d)
{
    size_t bytes = 0;
    uint32_t *order = jinja_alloc(run, d->n, sizeof *order);
    if (order == NULL)
        return jinja_failed(run);
    for (size_t i = 0; i < d->n; i++) {
        order[i] = (uint32_t)i;
        bytes += d->pairs[i].key.kind == JINJA_STRING ? d->pairs[i].key.string->size : 0;
    }
    int r = jinja_work(run, d->n * JINJA_STEP_BYTES);
    if (r == 0)
        r = jinja_work_at(run, bytes, comparisons(d->n));
    if (r < 0)
        return r;
    qsort_r(order, d->n, sizeof *order, by_text, d);
    d->order = order;
    return 0;
}

static struct jinja_pair *search(const struct jinja_dict *d, const struct jinja_string *key)
{
    size_t low = 0, high = d->n;
    assert(d->order != NULL || high == 0);
    while (low < high) {
        const size_t middle = (low + high) / 2;
        struct jinja_pair *pair = &d->pairs[d->order[middle]];
        const int order =
            pair->key.kind == JINJA_STRING ? jinja_compare_bytes(pair->key.string, key) : -1;
        if (order == 0)
            return pair;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

int jinja_dict_find(struct jinja_run *run, struct jinja_dict *d, const struct jinja_value *key,
                    struct jinja_pair **ret)
{
    bool equal = false;
    int r = 0;
    *ret = NULL;
    if (d->n > PAIRS_FEW && key->kind == JINJA_STRING) {
        if (d->order == NULL)
            r = make_order(run, d);
        if (r == 0)
            r = jinja_work_at(run, key->string->size, comparisons(d->n));
        if (r == 0)
            *ret = search(d, key->string);
        return r;
    }
    for (size_t i = 0; r == 0 && !equal && i < d->n; i++) {
        r = jinja_equal(run, &d->pairs[i].key, key, &equal);
        *ret = r == 0 && equal ? &d->pairs[i] : NULL;
    }
    return r;
}

int jinja_dict_named(struct jinja_run *run, struct jinja_dict *d, const char *name, size_t size,
                     struct jinja_pair **ret)
{
    const struct jinja_string text = {.text = name, .size = size};
    const struct jinja_value key = {.kind = JINJA_STRING, .string = &text};
    return jinja_dict_find(run, d, &key, ret);
}

int jinja_dict_set(struct jinja_run *run, struct jinja_dict *d, const struct jinja_value *key,
                   const struct jinja_value *value)
{
    struct jinja_pair *pair;
    assert(d->pairs != NULL || d->n == 0);
    if (!hashable(key))
        return jinja_refuse(run, "%s cannot be the key of a dict", jinja_type(key));
    int r = jinja_dict_find(run, d, key, &pair);
    if (r < 0)
        return r;
    if (pair != NULL) {
        pair->value = *value;
        return 0;
    }
    if (d->n == d->room) {
        const size_t room = 2 * d->room + 4;
        struct jinja_pair *pairs = jinja_alloc(run, room, sizeof *pairs);
        if (pairs == NULL)
            return jinja_failed(run);
        for (size_t i = 0; i < d->n; i++)
            pairs[i] = d->pairs[i];
        d->pairs = pairs;
        d->room = room;
    }
    assert(d->pairs != NULL);
    d->pairs[d->n++] = (struct jinja_pair){*key, *value};
    d->order = NULL;
    return 0;
}

int jinja_dict_list(struct jinja_run *run, const struct jinja_dict *d, enum jinja_part part,
                    enum jinja_kind kind, struct jinja_value *ret)
{
    static const char *const types[] = {"dict_keys", "dict_values", "dict_items"};
    struct jinja_value list, both;
    int r = jinja_work(run, d->n * sizeof *ret);
    if (r == 0)
        r = jinja_list_new(run, kind, d->n, &list);
    for (size_t i = 0; r == 0 && i < d->n; i++) {
        const struct jinja_pair *pair = &d->pairs[i];
        list.list->items[i] = part == JINJA_KEYS ? pair->key : pair->value;
        if (part != JINJA_PAIRS)
            continue;
        r = jinja_list_new(run, JINJA_TUPLE, 2, &both);
        if (r < 0)
            break;
        both.list->items[0] = pair->key;
        both.list->items[1] = pair->value;
        list.list->items[i] = both;
    }
    if (r == 0 && kind == JINJA_VIEW)
        list.list->type = types[part];
    *ret = list;
    return r;
}
