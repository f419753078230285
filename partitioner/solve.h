/*
 * Exact placement of items on devices: dynamic programming over (next item, device of the last
 * item) with one label per non-dominated (cost, memory of each device), bounded below by the same
 * DP without memory limits (best first). Objectives, with their sources:
 *
 *   latency     Σ compute + Σ stage constants + Σ hops + return          (EdgeShard, arXiv
 * 2405.14371) throughput  max over groups of the time a token costs them, and over links (each
 * ordered pair of devices, the times of its hops added) of the time a token costs them; among equal
 *               maxima the least latency
 *
 * Equal costs are broken the same way always: fewer stages, then the lower sequence of the items'
 * devices.
 */
#ifndef WEFT_PARTITIONER_SOLVE_H
#define WEFT_PARTITIONER_SOLVE_H

#include "partitioner/problem.h"

struct weft_placed_stage {
    uint32_t device;
    uint32_t first, count; /* items; count >= 1 */
};

struct weft_placement {
    struct weft_placed_stage *stages; /* [n_stages], malloc'ed */
    uint32_t n_stages;
    uint64_t latency_ns;    /* one token round the whole ring */
    uint64_t bottleneck_ns; /* the slowest group or link per token */
    bool proved_optimal;    /* false only when the label limit was reached */
    uint64_t labels;        /* work done */
};

struct weft_solve_options {
    uint64_t labels_max; /* 0: half a million, about a second */
};

/* Why nothing fits: the least memory that would do is not known in general, so say what is. */
struct weft_shortfall {
    uint64_t need_bytes, have_bytes; /* all items against all devices */
    uint64_t largest_item_bytes, largest_device_bytes;
    uint32_t largest_item;
};

/* Fills ret. -WEFT_ENOFIT when no placement respects memory and links (ret_short, if not NULL, says
 * more); -WEFT_ECONFIG for nonsense; -WEFT_ENOMEM. */
int weft_solve(const struct weft_problem *p, const struct weft_solve_options *opt,
               struct weft_placement *ret, struct weft_shortfall *ret_short,
               weft_err *err) WEFT_MUST_USE;
void weft_placement_done(struct weft_placement *pl); /* accepts zeroed */

/* Cost and memory of a given placement (a pinned plan): -WEFT_ENOFIT names the device and the bytes
 * it lacks, -WEFT_ECONFIG a placement that does not cover the items in order (or breaks pins or
 * no_reuse), -WEFT_EUNREACHABLE two stages without a link. Fills the figures of pl. */
int weft_evaluate(const struct weft_problem *p, struct weft_placement *pl,
                  weft_err *err) WEFT_MUST_USE;
/* Memory that a placement takes on one device. */
uint64_t weft_placement_bytes(const struct weft_problem *p, const struct weft_placement *pl,
                              uint32_t device);
/* The fastest single device, by goal; false when none can hold everything. */
bool weft_best_single(const struct weft_problem *p, struct weft_placement *ret);

#endif
