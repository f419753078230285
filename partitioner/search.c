/*
 * Label-setting search over items, see search.h.
 *
 * Invariant: labels of a layer stand in the order of their device sequences, so that an index
 * compares sequences; children are made parent by parent and device by device, and filtering keeps
 * the order. Pure: any thread.
 */
#include "partitioner/search.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "partitioner/bound.h"
#include "partitioner/limits.h"

/* Labels of each item that the sweeps keep; the last sweep keeps all that fit. */
static const uint32_t sweep_widths[] = {64, 1024, UINT32_MAX};
/* Once labels_max is spent the sweep under way ends with this width, so that it ends with a result.
 */
#define SPENT_WIDTH 16
/* Labels that another is compared with. */
#define COMPARED_MAX 64
/* Memory of the widest layer with all its children, before filtering. */
#define LAYER_BYTES_MAX ((uint64_t)1 << 28)

struct layer {
    unsigned char *data; /* labels of `stride` bytes */
    uint32_t count, capacity;
};

struct step { /* what remains of a label once its layer is gone */
    uint32_t parent;
    uint32_t device;
};

struct order { /* sort key of a label */
    uint64_t state, cost;
    uint32_t stages, index;
};

struct search {
    const struct weft_problem *p;
    const struct weft_search_options *opt;
    struct weft_limits limits;
    struct weft_bound bound;
    size_t stride;
    struct layer now, next;
    struct step **history; /* [n_items], each [labels kept] */
    struct order *order;   /* [order_capacity] */
    uint32_t order_capacity;
    bool *dropped;               /* [order_capacity] */
    uint32_t kept[COMPARED_MAX]; /* of the state being filtered */
    uint64_t best_ns, labels;
    uint32_t best_stages;
    bool narrowed; /* this sweep left out labels that might lead to an optimum */
};

static struct weft_label *label_at(const struct search *s, const struct layer *l, uint32_t index)
{
    return (struct weft_label *)(void *)(l->data + (size_t)index * s->stride);
}

static int reserve_label(const struct search *s, struct layer *l, weft_err *err)
{
    if (l->count < l->capacity)
        return 0;
    uint32_t capacity = l->capacity < 256 ? 256 : l->capacity * 2;
    unsigned char *data =
        capacity > l->capacity ? realloc(l->data, (size_t)capacity * s->stride) : NULL;
    if (data == NULL)
        return weft_fail(err, WEFT_ENOMEM, "placement: %" PRIu32 " partial plans", capacity);
    l->data = data;
    l->capacity = capacity;
    return 0;
}

/* Extends `from` (NULL before item 0) by item i on device e into `to`. False when it breaks a
 * limit, lacks a link, or cannot lead to a placement as good as the best known. */
static bool extend(struct search *s, const struct weft_label *from, uint32_t i, uint32_t e,
                   struct weft_label *to)
{
    const struct weft_problem *p = s->p;
    uint32_t nd = p->n_devices;
    bool last = i + 1 == p->n_items, opens = from == NULL || from->device != e;
    uint64_t hop = 0;
    if ((i == 0 && p->pin_first >= 0 && (uint32_t)p->pin_first != e) ||
        (last && p->pin_last >= 0 && (uint32_t)p->pin_last != e))
        return false;
    if (from != NULL) {
        memcpy(to, from, s->stride);
        hop = p->hop_ns[(size_t)from->device * nd + e];
    } else {
        memset(to, 0, s->stride);
        to->first = (uint8_t)e;
    }
    bool fresh = (to->used >> e & 1) == 0;
    if (opens && (hop == WEFT_NO_LINK || (!fresh && p->no_reuse) ||
                  (fresh && (s->limits.lower_twins[e] & ~to->used) != 0)))
        return false;
    uint64_t closing = last ? p->return_ns[(size_t)e * nd + to->first] : 0;
    if (closing == WEFT_NO_LINK || !weft_limits_place(&s->limits, from, i, e, to))
        return false;
    uint64_t cost = p->compute_ns[(size_t)i * nd + e];
    if (opens) {
        cost += hop + p->devices[e].stage_ns;
        to->stages++;
    }
    to->cost += cost + closing;
    to->priced += cost + closing + weft_bound_price(&s->bound, i, e);
    to->used |= UINT64_C(1) << e;
    to->device = (uint8_t)e;
    uint64_t rest = last ? 0 : weft_bound_rest(&s->bound, to->first, i + 1, e);
    if (rest == WEFT_NO_PATH)
        return false;
    uint64_t whole = to->priced + rest;
    to->bound = whole > s->bound.credit ? whole - s->bound.credit : 0;
    if (last)
        to->bound = to->cost;
    if (to->bound > s->best_ns || (to->bound == s->best_ns && to->stages > s->best_stages))
        return false;
    return last || weft_limits_room(&s->limits, to, i);
}

static int expand(struct search *s, uint32_t i, weft_err *err)
{
    uint32_t parents = i == 0 ? 1 : s->now.count;
    s->next.count = 0;
    for (uint32_t k = 0; k < parents; k++) {
        for (uint32_t e = 0; e < s->p->n_devices; e++) {
            int r = reserve_label(s, &s->next, err);
            if (r < 0)
                return r;
            struct weft_label *to = label_at(s, &s->next, s->next.count);
            if (!extend(s, i == 0 ? NULL : label_at(s, &s->now, k), i, e, to))
                continue;
            to->parent = k;
            s->next.count++;
        }
    }
    s->labels += s->next.count;
    return 0;
}

static int by_order(const void *left, const void *right)
{
    const struct order *a = left, *b = right;
    if (a->state != b->state)
        return a->state < b->state ? -1 : 1;
    if (a->cost != b->cost)
        return a->cost < b->cost ? -1 : 1;
    if (a->stages != b->stages)
        return a->stages < b->stages ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

static int reserve_order(struct search *s, weft_err *err)
{
    uint32_t n = s->next.count;
    if (n <= s->order_capacity)
        return 0;
    free(s->order);
    free(s->dropped);
    s->order = malloc((size_t)n * sizeof *s->order);
    s->dropped = malloc((size_t)n * sizeof *s->dropped);
    s->order_capacity = 0;
    if (s->order == NULL || s->dropped == NULL)
        return weft_fail(err, WEFT_ENOMEM, "placement: %" PRIu32 " partial plans", n);
    s->order_capacity = n;
    return 0;
}

/* Marks labels that take the same of every limit as a cheaper one: most of those that are
 * dominated. */
static void drop_equal(struct search *s)
{
    uint32_t n = s->next.count, same = 0;
    size_t size = s->limits.n_used * sizeof(uint64_t);
    for (uint32_t k = 0; k < n; k++) {
        const struct weft_label *l = label_at(s, &s->next, k);
        uint64_t hash = (uint64_t)l->first << 8 | l->device;
        for (uint32_t t = 0; t < s->limits.n_used; t++)
            hash = (hash ^ l->taken[t]) *
                   0x100000001b3u; /* FNV-1a by words; only brings equals near */
        s->order[k] = (struct order){hash, l->cost, l->stages, k};
    }
    qsort(s->order, n, sizeof *s->order, by_order);
    for (uint32_t k = 1; k < n; k++) {
        const struct weft_label *a = label_at(s, &s->next, s->order[same].index);
        const struct weft_label *b = label_at(s, &s->next, s->order[k].index);
        bool equal = a->first == b->first && a->device == b->device && a->used == b->used &&
                     memcmp(a->taken, b->taken, size) == 0;
        s->dropped[s->order[k].index] = equal;
        same = equal ? same : k;
    }
}

/* Marks labels that another dominates: within a state those before a label cost no more. Each is
 * held against the COMPARED_MAX cheapest only, which keeps the work linear; a dominated label that
 * stays costs time, never the optimum. */
static void drop_dominated(struct search *s, uint32_t i)
{
    uint32_t n = 0, n_kept = 0;
    for (uint32_t k = 0; k < s->next.count; k++) {
        const struct weft_label *l = label_at(s, &s->next, k);
        if (!s->dropped[k])
            s->order[n++] =
                (struct order){(uint64_t)l->first << 8 | l->device, l->cost, l->stages, k};
    }
    qsort(s->order, n, sizeof *s->order, by_order);
    for (uint32_t k = 0; k < n; k++) {
        if (k > 0 && s->order[k].state != s->order[k - 1].state)
            n_kept = 0;
        uint32_t index = s->order[k].index;
        const struct weft_label *l = label_at(s, &s->next, index);
        bool dominated = false;
        for (uint32_t j = 0; j < n_kept && !dominated; j++)
            dominated = weft_limits_roomier(&s->limits, label_at(s, &s->next, s->kept[j]), l, i);
        s->dropped[index] = dominated;
        if (!dominated && n_kept < COMPARED_MAX)
            s->kept[n_kept++] = index;
    }
}

/* Marks all but the `width` labels of least bound. */
static void narrow(struct search *s, uint32_t width)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < s->next.count; k++) {
        const struct weft_label *l = label_at(s, &s->next, k);
        if (!s->dropped[k])
            s->order[n++] = (struct order){.cost = l->bound, .stages = l->stages, .index = k};
    }
    if (n <= width)
        return;
    qsort(s->order, n, sizeof *s->order, by_order);
    for (uint32_t k = width; k < n; k++)
        s->dropped[s->order[k].index] = true;
    s->narrowed = true;
}

/* Keeps the labels that are not marked, in order, as the current layer and in the history. */
static int advance(struct search *s, uint32_t i, weft_err *err)
{
    uint32_t n = 0;
    for (uint32_t k = 0; k < s->next.count; k++) {
        if (s->dropped[k])
            continue;
        if (n != k)
            memcpy(label_at(s, &s->next, n), label_at(s, &s->next, k), s->stride);
        n++;
    }
    s->next.count = n;
    struct layer swap = s->now;
    s->now = s->next;
    s->next = swap;
    free(s->history[i]);
    s->history[i] = malloc((n > 0 ? n : 1) * sizeof *s->history[i]);
    if (s->history[i] == NULL)
        return weft_fail(err, WEFT_ENOMEM, "placement: history of %" PRIu32 " partial plans", n);
    for (uint32_t k = 0; k < n; k++) {
        const struct weft_label *l = label_at(s, &s->now, k);
        s->history[i][k] = (struct step){.parent = l->parent, .device = l->device};
    }
    return 0;
}

/* Takes the best complete label, if it beats the best known or none is known in `ret`. */
static void take_best(struct search *s, bool have, struct weft_search_result *ret, bool *ret_found)
{
    uint32_t n = s->p->n_items, at = 0;
    *ret_found = s->now.count > 0;
    if (s->now.count == 0)
        return;
    for (uint32_t k = 1; k < s->now.count; k++) {
        const struct weft_label *a = label_at(s, &s->now, k), *b = label_at(s, &s->now, at);
        if (a->cost < b->cost || (a->cost == b->cost && a->stages < b->stages))
            at = k;
    }
    const struct weft_label *l = label_at(s, &s->now, at);
    /* An equal one of a narrowed sweep may have a higher sequence than what is known. */
    if (have && s->narrowed && l->cost == s->best_ns && l->stages == s->best_stages)
        return;
    s->best_ns = ret->latency_ns = l->cost;
    s->best_stages = l->stages;
    for (uint32_t i = n; i-- > 0;) {
        ret->device[i] = (uint8_t)s->history[i][at].device;
        at = s->history[i][at].parent;
    }
}

static int sweep(struct search *s, uint32_t width, weft_err *err)
{
    s->narrowed = false;
    s->now.count = 0;
    for (uint32_t i = 0; i < s->p->n_items; i++) {
        int r = expand(s, i, err);
        if (r < 0)
            return r;
        if (s->next.count == 0) { /* nothing leads on: take_best finds no label */
            s->now.count = 0;
            return 0;
        }
        r = reserve_order(s, err);
        if (r < 0)
            return r;
        memset(s->dropped, 0, s->next.count * sizeof *s->dropped);
        if (i + 1 < s->p->n_items) {
            drop_equal(s);
            drop_dominated(s, i);
            narrow(s, s->labels < s->opt->labels_max ? width : SPENT_WIDTH);
        }
        r = advance(s, i, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static void search_done(struct search *s)
{
    for (uint32_t i = 0; s->history != NULL && i < s->p->n_items; i++)
        free(s->history[i]);
    free(s->history);
    free(s->now.data);
    free(s->next.data);
    free(s->order);
    free(s->dropped);
    weft_limits_done(&s->limits);
    weft_bound_done(&s->bound);
}

static int sweep_all(struct search *s, struct weft_search_result *ret, weft_err *err)
{
    uint64_t most = LAYER_BYTES_MAX / (s->stride * s->p->n_devices);
    bool have = false;
    ret->end = WEFT_SEARCH_UNKNOWN;
    for (size_t k = 0; k < sizeof sweep_widths / sizeof *sweep_widths; k++) {
        bool found;
        int r = sweep(s, sweep_widths[k] < most ? sweep_widths[k] : (uint32_t)most, err);
        if (r < 0)
            return r;
        take_best(s, have, ret, &found);
        have |= found;
        if (!s->narrowed) {
            ret->end = have ? WEFT_SEARCH_FOUND : WEFT_SEARCH_NONE;
            break;
        }
        ret->end = have ? WEFT_SEARCH_GOOD : WEFT_SEARCH_UNKNOWN;
        if ((have && s->opt->any) || s->labels >= s->opt->labels_max)
            break;
    }
    if (have && s->opt->any)
        ret->end = WEFT_SEARCH_FOUND;
    ret->labels = s->labels;
    return 0;
}

int weft_search(const struct weft_problem *p, const struct weft_search_options *opt,
                struct weft_search_result *ret, weft_err *err)
{
    struct search s = {.p = p, .opt = opt, .best_ns = opt->below_ns, .best_stages = UINT32_MAX};
    int r = weft_limits_open(p, opt->cap_ns, &s.limits, err);
    if (r < 0)
        return r;
    s.stride = sizeof(struct weft_label) + s.limits.n_used * sizeof(uint64_t);
    r = weft_bound_open(p, s.limits.of_device, s.limits.of_group, &s.bound, err);
    if (r < 0)
        goto out;
    s.history = calloc(p->n_items, sizeof *s.history);
    if (s.history == NULL) {
        r = weft_fail(err, WEFT_ENOMEM, "placement of %" PRIu32 " items", p->n_items);
        goto out;
    }
    r = sweep_all(&s, ret, err);
out:
    search_done(&s);
    return r;
}
