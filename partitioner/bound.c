/*
 * Bounds by priced dynamic programming, see bound.h. Invariant: with costs of at most
 * WEFT_COST_MAX_NS and prices of at most price_max no sum wraps. Pure: any thread.
 */
#include "partitioner/bound.h"

#include <stdlib.h>
#include <string.h>

/* Subgradient steps: 100 come within a few per mille on 34 layers; large problems get as many as
 * keep the whole below 50 million inner steps (well below a second). */
#define STEPS_MAX 100
#define STEPS_WORK_MAX 50000000u
/* Steps without a better bound before the step is halved. */
#define STALL_MAX 4

struct prices {
    const struct weft_problem *p;
    const struct weft_capacity *of_device, *of_group;
    uint64_t price_max;
    uint64_t *device, *group; /* prices, [n_devices], [n_groups] */
    uint64_t *best_device, *best_group;
    uint32_t *device_count, *group_count; /* places that the relaxed placement takes */
    uint64_t *total;                      /* [3, n_devices] as in struct weft_bound */
};

/* rest [n_items + 1, n_devices] backwards from end [n_devices]; choice (may be NULL) [n_items,
 * n_devices] is the device of item i when item i - 1 is on d. Row 0 of rest is by the device of
 * item 0. */
static void fill(const struct weft_problem *p, const uint64_t *price, const uint64_t *end,
                 uint64_t *rest, uint8_t *choice)
{
    uint32_t n = p->n_items, nd = p->n_devices;
    uint64_t own[WEFT_PROBLEM_DEVICES_MAX];
    memcpy(rest + (size_t)n * nd, end, nd * sizeof *rest);
    for (uint32_t i = n; i-- > 0;) {
        const uint64_t *after = rest + (size_t)(i + 1) * nd;
        uint64_t *here = rest + (size_t)i * nd;
        const uint64_t *charge = price + (size_t)(i == 0 ? 0 : i + 1 < n ? 1 : 2) * nd;
        for (uint32_t e = 0; e < nd; e++) {
            bool barred = (i == 0 && p->pin_first >= 0 && (uint32_t)p->pin_first != e) ||
                          (i + 1 == n && p->pin_last >= 0 && (uint32_t)p->pin_last != e);
            own[e] = barred || after[e] == WEFT_NO_PATH
                         ? WEFT_NO_PATH
                         : after[e] + p->compute_ns[(size_t)i * nd + e] + charge[e];
        }
        for (uint32_t d = 0; d < nd; d++) {
            uint64_t best = own[d];
            uint32_t at = d;
            if (i == 0) {
                here[d] = best == WEFT_NO_PATH ? best : best + p->devices[d].stage_ns;
                continue;
            }
            for (uint32_t e = 0; e < nd; e++) {
                uint64_t hop = p->hop_ns[(size_t)d * nd + e];
                if (e == d || own[e] == WEFT_NO_PATH || hop == WEFT_NO_LINK)
                    continue;
                uint64_t cost = own[e] + hop + p->devices[e].stage_ns;
                if (cost < best) {
                    best = cost;
                    at = e;
                }
            }
            here[d] = best;
            if (choice != NULL)
                choice[(size_t)i * nd + d] = (uint8_t)at;
        }
    }
}

static uint64_t credit_of(const struct prices *pr)
{
    uint64_t credit = 0;
    for (uint32_t d = 0; d < pr->p->n_devices; d++)
        credit += pr->device[d] * pr->of_device[d].places;
    for (uint32_t g = 0; g < pr->p->n_groups; g++)
        credit += pr->group[g] * pr->of_group[g].places;
    return credit;
}

static void add_up(struct prices *pr)
{
    uint32_t nd = pr->p->n_devices;
    for (uint32_t d = 0; d < nd; d++) {
        uint32_t g = pr->p->devices[d].group;
        const struct weft_capacity *own = &pr->of_device[d], *group = &pr->of_group[g];
        pr->total[d] = pr->device[d] * own->first + pr->group[g] * group->first;
        pr->total[nd + d] = pr->device[d] + pr->group[g];
        pr->total[2 * nd + d] = pr->device[d] * own->last + pr->group[g] * group->last;
    }
}

static void count(struct prices *pr, uint32_t i, uint32_t d)
{
    uint32_t g = pr->p->devices[d].group;
    const struct weft_capacity *own = &pr->of_device[d], *group = &pr->of_group[g];
    bool first = i == 0, last = !first && i + 1 == pr->p->n_items;
    pr->device_count[d] += first ? own->first : last ? own->last : 1;
    pr->group_count[g] += first ? group->first : last ? group->last : 1;
}

/* Counts the places of the cheapest priced placement; false when there is none. */
static bool relaxed(struct prices *pr, uint64_t *rest, uint8_t *choice, const uint64_t *end,
                    uint64_t *ret_value)
{
    const struct weft_problem *p = pr->p;
    uint32_t nd = p->n_devices, at = 0;
    add_up(pr);
    fill(p, pr->total, end, rest, choice);
    for (uint32_t d = 1; d < nd; d++) {
        if (rest[d] < rest[at])
            at = d;
    }
    *ret_value = rest[at];
    if (rest[at] == WEFT_NO_PATH)
        return false;
    memset(pr->device_count, 0, nd * sizeof *pr->device_count);
    memset(pr->group_count, 0, p->n_groups * sizeof *pr->group_count);
    for (uint32_t i = 0; i < p->n_items; i++) {
        at = i == 0 ? at : choice[(size_t)i * nd + at];
        count(pr, i, at);
    }
    return true;
}

static uint64_t moved(uint64_t price, int64_t excess, uint64_t step, int64_t largest,
                      uint64_t price_max)
{
    uint64_t by = step / (uint64_t)largest * (uint64_t)(excess < 0 ? -excess : excess);
    if (excess < 0)
        return price > by ? price - by : 0;
    return price + by < price_max ? price + by : price_max;
}

/* One subgradient step; false when every limit is kept without prices: no better bound exists. */
static bool step_prices(struct prices *pr, uint64_t step)
{
    uint32_t nd = pr->p->n_devices, ng = pr->p->n_groups;
    int64_t largest = 0;
    bool over = false, priced = false;
    for (uint32_t k = 0; k < nd + ng; k++) {
        int64_t excess = k < nd ? (int64_t)pr->device_count[k] - pr->of_device[k].places
                                : (int64_t)pr->group_count[k - nd] - pr->of_group[k - nd].places;
        int64_t size = excess < 0 ? -excess : excess;
        over |= excess > 0;
        priced |= (k < nd ? pr->device[k] : pr->group[k - nd]) > 0;
        largest = size > largest ? size : largest;
    }
    if ((!over && !priced) || largest == 0)
        return false;
    for (uint32_t d = 0; d < nd; d++)
        pr->device[d] = moved(pr->device[d], (int64_t)pr->device_count[d] - pr->of_device[d].places,
                              step, largest, pr->price_max);
    for (uint32_t g = 0; g < ng; g++)
        pr->group[g] = moved(pr->group[g], (int64_t)pr->group_count[g] - pr->of_group[g].places,
                             step, largest, pr->price_max);
    return true;
}

static void choose_prices(struct prices *pr, uint64_t *rest, uint8_t *choice, const uint64_t *end)
{
    const struct weft_problem *p = pr->p;
    uint32_t nd = p->n_devices;
    uint64_t step = 0, best = 0;
    for (size_t k = nd; k + nd < (size_t)p->n_items * nd; k++)
        step = p->compute_ns[k] > step ? p->compute_ns[k] : step;
    uint64_t steps = STEPS_WORK_MAX / ((uint64_t)p->n_items * nd * nd);
    steps = steps < STEPS_MAX ? steps : STEPS_MAX;
    int stall = 0;
    for (uint64_t k = 0; k <= steps && step > 0; k++) {
        uint64_t value, credit = credit_of(pr);
        if (!relaxed(pr, rest, choice, end, &value))
            return;
        uint64_t bound = value > credit ? value - credit : 0;
        if (k == 0 || bound > best) {
            best = bound;
            stall = 0;
            memcpy(pr->best_device, pr->device, nd * sizeof *pr->device);
            memcpy(pr->best_group, pr->group, p->n_groups * sizeof *pr->group);
        } else if (++stall == STALL_MAX) {
            stall = 0;
            step /= 2;
        }
        if (!step_prices(pr, step))
            return;
    }
}

/* The least return of each last device, whatever the first will be. */
static void fill_end(const struct weft_problem *p, uint64_t *end)
{
    size_t nd = p->n_devices;
    for (uint32_t d = 0; d < nd; d++) {
        end[d] = WEFT_NO_PATH;
        for (uint32_t f = 0; f < nd; f++) {
            bool possible = p->pin_first < 0 || (uint32_t)p->pin_first == f;
            if (possible && p->return_ns[d * nd + f] < end[d])
                end[d] = p->return_ns[d * nd + f];
        }
    }
}

int weft_bound_open(const struct weft_problem *p, const struct weft_capacity *devices,
                    const struct weft_capacity *groups, struct weft_bound *ret, weft_err *err)
{
    size_t n = p->n_items, nd = p->n_devices, ng = p->n_groups, row = (n + 1) * nd;
    uint64_t end[WEFT_PROBLEM_DEVICES_MAX];
    struct weft_bound b = {.n_items = p->n_items, .n_devices = p->n_devices};
    uint64_t *numbers = calloc(5 * nd + 2 * ng, sizeof *numbers);
    uint32_t *counts = calloc(nd + ng, sizeof *counts);
    uint8_t *choice = calloc(n, nd);
    b.price = calloc(3 * nd, sizeof *b.price);
    b.rest = calloc(nd, row * sizeof *b.rest);
    int r = 0;
    if (numbers == NULL || counts == NULL || choice == NULL || b.price == NULL || b.rest == NULL) {
        r = weft_fail(err, WEFT_ENOMEM, "bounds for %zu items on %zu devices", n, nd);
        goto out;
    }
    struct prices pr = {
        .p = p,
        .of_device = devices,
        .of_group = groups,
        /* At most 3 n places are paid for and 2 n of each device and group credited: below 2^60. */
        .price_max = ((uint64_t)1 << 58) / (n * (nd + ng)),
        .device = numbers,
        .best_device = numbers + nd,
        .total = numbers + 2 * nd,
        .group = numbers + 5 * nd,
        .best_group = numbers + 5 * nd + ng,
        .device_count = counts,
        .group_count = counts + nd,
    };
    fill_end(p, end);
    choose_prices(&pr, b.rest, choice, end);
    memcpy(pr.device, pr.best_device, nd * sizeof *pr.device);
    memcpy(pr.group, pr.best_group, ng * sizeof *pr.group);
    add_up(&pr);
    memcpy(b.price, pr.total, 3 * nd * sizeof *b.price);
    b.credit = credit_of(&pr);
    for (uint32_t f = 0; f < nd; f++) {
        for (uint32_t d = 0; d < nd; d++)
            end[d] = p->return_ns[d * nd + f];
        fill(p, b.price, end, b.rest + f * row, NULL);
    }
    *ret = b;
    b = (struct weft_bound){0};
out:
    weft_bound_done(&b);
    free(numbers);
    free(counts);
    free(choice);
    return r;
}

void weft_bound_done(struct weft_bound *b)
{
    free(b->price);
    free(b->rest);
    memset(b, 0, sizeof *b);
}
