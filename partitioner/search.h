/*
 * The search of the solver: item by item, a set of labels that no other label dominates.
 *
 * A label is a partial placement of items 0 … i. One dominates another of the same last and first
 * device when it costs no more (ties: fewer stages, lower sequence) and leaves at least as much
 * room in every limit that can still bind; then every completion of the other also completes it.
 * Labels whose bound (bound.h) is above the best known placement, or whose remaining items cannot
 * be counted into the room left, are dropped too: all three rules keep an optimum. A sweep may also
 * be narrowed to the most promising labels of each item; it then finds good placements fast but
 * proves nothing.
 *
 * Devices that can be swapped without changing any figure form a class; its members are opened in
 * order, since any placement can be renamed so.
 */
#ifndef WEFT_PARTITIONER_SEARCH_H
#define WEFT_PARTITIONER_SEARCH_H

#include "partitioner/problem.h"

#define WEFT_NO_CAP UINT64_MAX

enum weft_search_end {
    WEFT_SEARCH_FOUND, /* the best there is, or any when only asked for that */
    WEFT_SEARCH_NONE,  /* proved that there is none */
    WEFT_SEARCH_GOOD,  /* a placement, not proved best */
    WEFT_SEARCH_UNKNOWN
};

struct weft_search_options {
    uint64_t cap_ns;     /* limit of each group's time and of each link's; WEFT_NO_CAP */
    bool any;            /* stop at the first placement instead of the one of least latency */
    uint64_t labels_max; /* labels that may be made */
    uint64_t below_ns;   /* known to be reachable: labels above this latency are dropped */
};

struct weft_search_result {
    enum weft_search_end end;
    uint64_t latency_ns;
    uint64_t labels;
    uint8_t device[WEFT_PROBLEM_ITEMS_MAX]; /* of each item */
};

/* -WEFT_ENOMEM. The problem has passed weft_problem_check. */
int weft_search(const struct weft_problem *p, const struct weft_search_options *opt,
                struct weft_search_result *ret, weft_err *err) WEFT_MUST_USE;

#endif
