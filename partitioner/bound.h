/*
 * Lower bounds for completing a partial placement: the dynamic programme without memory limits,
 * with prices on places (Lagrangian relaxation).
 *
 * A device has so many places: items between the first and the last take one each, the first and
 * the last what the limits say. Charging the device's price per place taken and crediting price *
 * places once never raises the cost of a placement that keeps the limits; the cheapest priced
 * placement without limits is therefore a lower bound for all, and a much better one than the
 * unpriced when memory is tight. Groups of devices have prices likewise. Prices are found by
 * subgradient steps; any prices >= 0 give valid bounds, so nothing here needs to converge.
 * (Held and Karp, "The traveling-salesman problem and minimum spanning trees II", Mathematical
 * Programming 1, 1971.)
 */
#ifndef WEFT_PARTITIONER_BOUND_H
#define WEFT_PARTITIONER_BOUND_H

#include "partitioner/problem.h"

#define WEFT_NO_PATH UINT64_MAX

struct weft_capacity {    /* of a device or group */
    uint32_t places;      /* of which every item but first and last takes one */
    uint32_t first, last; /* places that these take at least */
};

struct weft_bound {
    uint32_t n_items, n_devices;
    uint64_t *price; /* [3, n_devices] ns of the first item, of one between, of the last */
    uint64_t credit; /* Σ price * places over devices and groups */
    uint64_t *rest; /* [n_devices, n_items + 1, n_devices]: by first device, next item and device of
                       the item before it; row 0: by the device that takes item 0 */
};

/* devices [n_devices], groups [n_groups]. -WEFT_ENOMEM. The problem has passed weft_problem_check.
 */
int weft_bound_open(const struct weft_problem *p, const struct weft_capacity *devices,
                    const struct weft_capacity *groups, struct weft_bound *ret,
                    weft_err *err) WEFT_MUST_USE;
void weft_bound_done(struct weft_bound *b); /* accepts zeroed */

/* What placing an item on a device is charged on top of its cost. */
static inline uint64_t weft_bound_price(const struct weft_bound *b, uint32_t item, uint32_t device)
{
    size_t row = item == 0 ? 0 : item + 1 < b->n_items ? 1 : 2;
    return b->price[row * b->n_devices + device];
}

/* Cost with prices of items `item` … n - 1 when item - 1 is on `device` and item 0 on `first`;
 * WEFT_NO_PATH when links or pins allow none. */
static inline uint64_t weft_bound_rest(const struct weft_bound *b, uint32_t first, uint32_t item,
                                       uint32_t device)
{
    return b->rest[((size_t)first * (b->n_items + 1) + item) * b->n_devices + device];
}

#endif
