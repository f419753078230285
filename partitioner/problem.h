/*
 * The problem the partitioner solves, as plain numbers: items in order, devices, links.
 *
 * An item is what cannot be cut further by runs: item 0 is the embedding, items 1 … L are the
 * decoder layers, item L + 1 is the final norm with the output head. A plan gives every item to a
 * device; maximal runs on one device are stages. A device may serve several stages; its memory is
 * added up.
 *
 * All times are integer nanoseconds, all sizes bytes, so that equal means equal. Pure data: no I/O,
 * no clock, no threads.
 */
#ifndef WEFT_PARTITIONER_PROBLEM_H
#define WEFT_PARTITIONER_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define WEFT_PROBLEM_DEVICES_MAX 64
#define WEFT_PROBLEM_ITEMS_MAX 1026
#define WEFT_COST_MAX_NS \
    ((uint64_t)1 << 50) /* 13 days: larger inputs are refused, so sums never wrap */
#define WEFT_BYTES_MAX \
    ((uint64_t)1 << 50)         /* 1 PiB: larger items and scratch are refused likewise */
#define WEFT_NO_LINK UINT64_MAX /* in hop_ns and return_ns: the devices cannot talk */

enum weft_goal { WEFT_GOAL_LATENCY, WEFT_GOAL_THROUGHPUT, WEFT_GOAL_COUNT };

struct weft_problem_device {
    char name[64];
    uint64_t memory_bytes; /* hard limit for all that is placed here */
    uint64_t fixed_bytes;  /* scratch as soon as the device is used at all */
    uint64_t stage_bytes;  /* scratch of each stage */
    uint64_t stage_ns;     /* constant of each stage and token (wake-ups, queues) */
    uint32_t group;        /* devices of one group (one machine) share memory and compute time */
};

struct weft_problem {
    uint32_t n_items, n_devices, n_groups;
    struct weft_problem_device *devices; /* [n_devices] */
    uint64_t *group_memory_bytes;        /* [n_groups], limit over the devices of a group */
    uint64_t *compute_ns;                /* [n_items, n_devices]: one token */
    uint64_t *item_bytes;                /* [n_items]: weights + KV at the asked context */
    uint64_t tied_bytes;                 /* counted once where one device has first and last item */
    uint64_t *hop_ns;            /* [n_devices, n_devices] from, to: activations of one token;
                                    0 on the diagonal */
    uint64_t *return_ns;         /* [n_devices, n_devices]: last item back to the first item's
                                    device (the token; for EdgeShard the logits) */
    int32_t pin_first, pin_last; /* device that must have the first / last item; -1: free */
    enum weft_goal goal;
    bool no_reuse; /* true: a device serves at most one stage */
};

int weft_problem_alloc(uint32_t n_items, uint32_t n_devices, uint32_t n_groups,
                       struct weft_problem *ret, weft_err *err) WEFT_MUST_USE;
void weft_problem_done(struct weft_problem *p); /* accepts zeroed */
/* Refuses nonsense by name: -WEFT_ECONFIG. The solver calls it first. */
int weft_problem_check(const struct weft_problem *p, weft_err *err) WEFT_MUST_USE;

#endif
