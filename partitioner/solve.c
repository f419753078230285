/*
 * The solver: the goals put into searches (search.h) and placements made of what they find.
 *
 * Latency is one search. Throughput first finds the least cap on the time of every group and link
 * under which there is a placement, by bisection over integer nanoseconds, then the least latency
 * under it (arXiv 2511.14450 bisects likewise, with a greedy check in place of an exact one).
 *
 * Invariant: what is returned has been evaluated by weft_evaluate, so a fault of the search can
 * cost optimality but never memory. Pure: any thread.
 */
#include "partitioner/solve.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "partitioner/search.h"

/* Labels of one call by default: about a second of work for eight devices. */
#define LABELS_DEFAULT 500000u

struct solver {
    const struct weft_problem *p;
    uint64_t labels_max, labels;
    bool proved;
    struct weft_search_result found; /* of the last search that found one */
};

void weft_placement_done(struct weft_placement *pl)
{
    free(pl->stages);
    memset(pl, 0, sizeof *pl);
}

/* Stages are the maximal runs of one device. */
static int to_placement(const struct weft_problem *p, const uint8_t *device,
                        struct weft_placement *ret, weft_err *err)
{
    struct weft_placement pl = {.stages = calloc(p->n_items, sizeof *pl.stages)};
    if (pl.stages == NULL)
        return weft_fail(err, WEFT_ENOMEM, "placement of %" PRIu32 " items", p->n_items);
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (i == 0 || device[i] != device[i - 1])
            pl.stages[pl.n_stages++] = (struct weft_placed_stage){.device = device[i], .first = i};
        pl.stages[pl.n_stages - 1].count++;
    }
    int r = weft_evaluate(p, &pl, err);
    if (r < 0)
        weft_placement_done(&pl);
    else
        *ret = pl;
    return r;
}

/* One search within what is left of the labels. */
static int run(struct solver *s, uint64_t cap_ns, uint64_t below_ns, bool any,
               enum weft_search_end *ret_end, weft_err *err)
{
    struct weft_search_options opt = {
        .cap_ns = cap_ns,
        .any = any,
        .below_ns = below_ns,
        .labels_max = s->labels < s->labels_max ? s->labels_max - s->labels : 0,
    };
    struct weft_search_result *got = malloc(sizeof *got);
    if (got == NULL)
        return weft_fail(err, WEFT_ENOMEM, "result of a search");
    int r = weft_search(s->p, &opt, got, err);
    if (r < 0)
        goto out;
    s->labels += got->labels;
    *ret_end = got->end;
    if (got->end == WEFT_SEARCH_FOUND || got->end == WEFT_SEARCH_GOOD)
        s->found = *got;
out:
    free(got);
    return r;
}

static int bottleneck_of(const struct solver *s, uint64_t *ret_ns, weft_err *err)
{
    struct weft_placement pl;
    int r = to_placement(s->p, s->found.device, &pl, err);
    if (r < 0)
        return r;
    *ret_ns = pl.bottleneck_ns;
    weft_placement_done(&pl);
    return 0;
}

/* A bottleneck that no placement is below: the item that is slowest on its fastest device. */
static uint64_t least_bottleneck(const struct weft_problem *p)
{
    uint64_t most = 0;
    for (size_t i = 0; i < p->n_items; i++) {
        uint64_t least = UINT64_MAX;
        for (uint32_t d = 0; d < p->n_devices; d++) {
            uint64_t ns = p->compute_ns[i * p->n_devices + d] + p->devices[d].stage_ns;
            least = ns < least ? ns : least;
        }
        most = least > most ? least : most;
    }
    return most;
}

static int solve_throughput(struct solver *s, enum weft_search_end *ret_end, weft_err *err)
{
    enum weft_search_end end;
    int r = run(s, WEFT_NO_CAP, UINT64_MAX, true, ret_end, err);
    if (r < 0 || *ret_end == WEFT_SEARCH_NONE || *ret_end == WEFT_SEARCH_UNKNOWN)
        return r;
    uint64_t high, low = least_bottleneck(s->p);
    r = bottleneck_of(s, &high, err);
    if (r < 0)
        return r;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        r = run(s, middle, UINT64_MAX, true, &end, err);
        if (r < 0)
            return r;
        if (end == WEFT_SEARCH_FOUND) {
            r = bottleneck_of(s, &high, err);
            if (r < 0)
                return r;
        } else {
            s->proved &= end == WEFT_SEARCH_NONE;
            low = middle + 1;
        }
    }
    r = run(s, high, s->found.latency_ns, false, &end, err);
    if (r == 0)
        *ret_end = end == WEFT_SEARCH_FOUND ? WEFT_SEARCH_FOUND : WEFT_SEARCH_GOOD;
    return r;
}

static void fill_shortfall(const struct weft_problem *p, struct weft_shortfall *ret)
{
    struct weft_shortfall sf = {0};
    uint64_t group[WEFT_PROBLEM_DEVICES_MAX] = {0};
    for (uint32_t i = 0; i < p->n_items; i++) {
        sf.need_bytes += p->item_bytes[i];
        if (p->item_bytes[i] > sf.largest_item_bytes) {
            sf.largest_item_bytes = p->item_bytes[i];
            sf.largest_item = i;
        }
    }
    for (uint32_t d = 0; d < p->n_devices; d++) {
        const struct weft_problem_device *dev = &p->devices[d];
        uint64_t *sum = &group[dev->group], limit = p->group_memory_bytes[dev->group];
        uint64_t room = dev->memory_bytes < limit ? dev->memory_bytes : limit;
        *sum = *sum > limit - room ? limit : *sum + room;
        sf.largest_device_bytes = room > sf.largest_device_bytes ? room : sf.largest_device_bytes;
    }
    for (uint32_t g = 0; g < p->n_groups; g++)
        sf.have_bytes =
            group[g] > UINT64_MAX - sf.have_bytes ? UINT64_MAX : sf.have_bytes + group[g];
    *ret = sf;
}

static int fail_nofit(const struct solver *s, enum weft_search_end end, weft_err *err)
{
    struct weft_shortfall sf;
    fill_shortfall(s->p, &sf);
    if (end == WEFT_SEARCH_NONE)
        return weft_fail(err, WEFT_ENOFIT,
                         "no placement fits memory and links: %" PRIu64 " bytes of items, %" PRIu64
                         " bytes on all devices, largest item %" PRIu32 " of %" PRIu64
                         " bytes, largest device %" PRIu64,
                         sf.need_bytes, sf.have_bytes, sf.largest_item, sf.largest_item_bytes,
                         sf.largest_device_bytes);
    return weft_fail(err, WEFT_ENOFIT,
                     "no placement found among %" PRIu64
                     " partial ones, none proved impossible: %" PRIu64 " bytes of items, %" PRIu64
                     " bytes on all devices",
                     s->labels, sf.need_bytes, sf.have_bytes);
}

int weft_solve(const struct weft_problem *p, const struct weft_solve_options *opt,
               struct weft_placement *ret, struct weft_shortfall *ret_short, weft_err *err)
{
    int r = weft_problem_check(p, err);
    if (r < 0)
        return r;
    enum weft_search_end end = WEFT_SEARCH_UNKNOWN;
    struct solver *s = calloc(1, sizeof *s);
    if (s == NULL)
        return weft_fail(err, WEFT_ENOMEM, "placement of %" PRIu32 " items", p->n_items);
    s->p = p;
    s->proved = true;
    s->labels_max = opt != NULL && opt->labels_max > 0 ? opt->labels_max : LABELS_DEFAULT;
    r = p->goal == WEFT_GOAL_LATENCY ? run(s, WEFT_NO_CAP, UINT64_MAX, false, &end, err)
                                     : solve_throughput(s, &end, err);
    if (r < 0)
        goto out;
    if (end == WEFT_SEARCH_NONE || end == WEFT_SEARCH_UNKNOWN) {
        if (ret_short != NULL)
            fill_shortfall(p, ret_short);
        r = fail_nofit(s, end, err);
        goto out;
    }
    struct weft_placement pl;
    r = to_placement(p, s->found.device, &pl, err);
    if (r < 0)
        goto out;
    assert(pl.latency_ns == s->found.latency_ns);
    pl.proved_optimal = s->proved && end == WEFT_SEARCH_FOUND;
    pl.labels = s->labels;
    *ret = pl;
out:
    free(s);
    return r;
}

bool weft_best_single(const struct weft_problem *p, struct weft_placement *ret)
{
    struct weft_placement best = {0};
    uint8_t device[WEFT_PROBLEM_ITEMS_MAX];
    if (weft_problem_check(p, NULL) < 0)
        return false;
    for (uint32_t d = 0; d < p->n_devices; d++) {
        struct weft_placement pl;
        memset(device, (int)d, sizeof device);
        if (to_placement(p, device, &pl, NULL) < 0)
            continue;
        /* Alone on a device latency and bottleneck are the same time: one order serves both goals.
         */
        if (best.stages == NULL || pl.latency_ns < best.latency_ns) {
            weft_placement_done(&best);
            best = pl;
        } else {
            weft_placement_done(&pl);
        }
    }
    if (best.stages == NULL)
        return false;
    best.proved_optimal = true;
    *ret = best;
    return true;
}
