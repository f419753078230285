/*
 * What limits a placement, and how much of it a partial placement (a label of the search) has
 * taken: memory of devices and groups, and under a cap the time of groups and of links.
 */
#ifndef WEFT_PARTITIONER_LIMITS_H
#define WEFT_PARTITIONER_LIMITS_H

#include "partitioner/bound.h"
#include "partitioner/problem.h"

struct weft_label {
    uint64_t cost;   /* latency so far */
    uint64_t priced; /* the same with the prices of bound.h */
    uint64_t bound;  /* of every placement that begins so */
    uint64_t used;   /* bit d: device d has a stage */
    uint32_t parent; /* index in the layer before */
    uint16_t stages;
    uint8_t device, first; /* of the last item placed, of item 0 */
    uint64_t taken[]; /* [n_used]: bytes of each device; capped: ns of each group, ns of links */
};

struct weft_limits {
    const struct weft_problem *p;
    uint64_t cap_ns;        /* WEFT_NO_CAP: time is not limited */
    uint32_t n_used;        /* length of weft_label.taken */
    uint64_t *device_bytes; /* [n_devices] limit, with that of a group of its own */
    uint64_t *lower_twins;  /* [n_devices] bits of interchangeable devices of lower index */
    uint32_t *member;       /* [n_devices] devices by group */
    uint32_t *group_start;  /* [n_groups + 1] in member */
    int32_t *slot; /* [n_devices, n_devices] of a link in taken, -1: it cannot reach the cap */
    struct weft_capacity *of_device, *of_group; /* for the bounds */
    /* Of items i … n - 1, [n_items + 1] each; "middle" leaves the last out. */
    uint64_t *rest_bytes, *least_bytes; /* sum; least of a middle one */
    uint64_t *rest_ns;                  /* [n_items + 1, n_groups] sum on the slowest member */
    uint64_t *least_ns;                 /* [n_items + 1, n_devices] least of a middle one */
};

/* The problem has passed weft_problem_check and stays in place. -WEFT_ENOMEM. */
int weft_limits_open(const struct weft_problem *p, uint64_t cap_ns, struct weft_limits *ret,
                     weft_err *err) WEFT_MUST_USE;
void weft_limits_done(struct weft_limits *l); /* accepts zeroed */

/* Takes what item i on device e needs in `to`, a copy of `from` (NULL before item 0); false when
 * that breaks a limit. */
bool weft_limits_place(const struct weft_limits *l, const struct weft_label *from, uint32_t i,
                       uint32_t e, struct weft_label *to);
/* True when whatever may follow b after item i fits a too (both end on one device). */
bool weft_limits_roomier(const struct weft_limits *l, const struct weft_label *a,
                         const struct weft_label *b, uint32_t i);
/* False when the items after i cannot be counted into the room left: each device holds at most its
 * room over the least item, and one of them must take the last item too. */
bool weft_limits_room(const struct weft_limits *l, const struct weft_label *a, uint32_t i);

#endif
