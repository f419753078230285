/*
 * The problem as a value: allocation and the refusal of nonsense.
 *
 * Invariant: a problem that weft_problem_check accepted has every array, every index within its
 * range and every figure small enough that no sum over a placement wraps. Pure: any thread.
 */
#include "partitioner/problem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void *zeroed(size_t count, size_t size)
{
    return calloc(count > 0 ? count : 1, size);
}

static int check_counts(uint32_t n_items, uint32_t n_devices, uint32_t n_groups, weft_err *err)
{
    if (n_items < 1 || n_items > WEFT_PROBLEM_ITEMS_MAX)
        return weft_fail(err, WEFT_ECONFIG, "placement of %" PRIu32 " items, expected 1 to %d",
                         n_items, WEFT_PROBLEM_ITEMS_MAX);
    if (n_devices < 1 || n_devices > WEFT_PROBLEM_DEVICES_MAX)
        return weft_fail(err, WEFT_ECONFIG, "placement on %" PRIu32 " devices, expected 1 to %d",
                         n_devices, WEFT_PROBLEM_DEVICES_MAX);
    if (n_groups < 1 || n_groups > n_devices)
        return weft_fail(err, WEFT_ECONFIG,
                         "%" PRIu32 " groups of %" PRIu32 " devices, expected 1 to %" PRIu32,
                         n_groups, n_devices, n_devices);
    return 0;
}

int weft_problem_alloc(uint32_t n_items, uint32_t n_devices, uint32_t n_groups,
                       struct weft_problem *ret, weft_err *err)
{
    int r = check_counts(n_items, n_devices, n_groups, err);
    if (r < 0)
        return r;
    size_t n = n_items, d = n_devices; /* at most 1026 and 64: no product below wraps */
    struct weft_problem p = {
        .n_items = n_items,
        .n_devices = n_devices,
        .n_groups = n_groups,
        .devices = zeroed(d, sizeof *p.devices),
        .group_memory_bytes = zeroed(n_groups, sizeof *p.group_memory_bytes),
        .compute_ns = zeroed(n * d, sizeof *p.compute_ns),
        .item_bytes = zeroed(n, sizeof *p.item_bytes),
        .hop_ns = zeroed(d * d, sizeof *p.hop_ns),
        .return_ns = zeroed(d * d, sizeof *p.return_ns),
        .pin_first = -1,
        .pin_last = -1,
    };
    if (p.devices == NULL || p.group_memory_bytes == NULL || p.compute_ns == NULL ||
        p.item_bytes == NULL || p.hop_ns == NULL || p.return_ns == NULL) {
        weft_problem_done(&p);
        return weft_fail(err, WEFT_ENOMEM, "placement problem of %zu items on %zu devices", n, d);
    }
    *ret = p;
    return 0;
}

void weft_problem_done(struct weft_problem *p)
{
    free(p->devices);
    free(p->group_memory_bytes);
    free(p->compute_ns);
    free(p->item_bytes);
    free(p->hop_ns);
    free(p->return_ns);
    memset(p, 0, sizeof *p);
}

static int check_device(const struct weft_problem *p, uint32_t d, weft_err *err)
{
    const struct weft_problem_device *dev = &p->devices[d];
    if (memchr(dev->name, 0, sizeof dev->name) == NULL)
        return weft_fail(err, WEFT_ECONFIG, "device %" PRIu32 ": name without an end", d);
    if (dev->group >= p->n_groups)
        return weft_fail(err, WEFT_ECONFIG, "device %s: group %" PRIu32 ", expected below %" PRIu32,
                         dev->name, dev->group, p->n_groups);
    if (dev->stage_ns > WEFT_COST_MAX_NS)
        return weft_fail(err, WEFT_ECONFIG,
                         "device %s: %" PRIu64 " ns per stage, expected at most %" PRIu64,
                         dev->name, dev->stage_ns, WEFT_COST_MAX_NS);
    if (dev->fixed_bytes > WEFT_BYTES_MAX || dev->stage_bytes > WEFT_BYTES_MAX)
        return weft_fail(err, WEFT_ECONFIG,
                         "device %s: scratch of %" PRIu64 " and %" PRIu64
                         " bytes, expected at most %" PRIu64,
                         dev->name, dev->fixed_bytes, dev->stage_bytes, WEFT_BYTES_MAX);
    for (uint32_t i = 0; i < p->n_items; i++) {
        uint64_t ns = p->compute_ns[(size_t)i * p->n_devices + d];
        if (ns > WEFT_COST_MAX_NS)
            return weft_fail(err, WEFT_ECONFIG,
                             "item %" PRIu32 " on device %s: %" PRIu64
                             " ns, expected at most %" PRIu64,
                             i, dev->name, ns, WEFT_COST_MAX_NS);
    }
    return 0;
}

static int check_links(const struct weft_problem *p, const uint64_t *ns, const char *what,
                       weft_err *err)
{
    for (uint32_t a = 0; a < p->n_devices; a++) {
        for (uint32_t b = 0; b < p->n_devices; b++) {
            uint64_t found = ns[(size_t)a * p->n_devices + b];
            if (a == b && found != 0)
                return weft_fail(err, WEFT_ECONFIG,
                                 "%s of device %s to itself: %" PRIu64 " ns, expected 0", what,
                                 p->devices[a].name, found);
            if (found != WEFT_NO_LINK && found > WEFT_COST_MAX_NS)
                return weft_fail(err, WEFT_ECONFIG,
                                 "%s from %s to %s: %" PRIu64 " ns, expected at most %" PRIu64,
                                 what, p->devices[a].name, p->devices[b].name, found,
                                 WEFT_COST_MAX_NS);
        }
    }
    return 0;
}

static int check_pins(const struct weft_problem *p, weft_err *err)
{
    int32_t n = (int32_t)p->n_devices;
    if (p->pin_first < -1 || p->pin_first >= n || p->pin_last < -1 || p->pin_last >= n)
        return weft_fail(err, WEFT_ECONFIG,
                         "pinned to devices %" PRId32 " and %" PRId32
                         ", expected -1 (free) to %" PRId32,
                         p->pin_first, p->pin_last, n - 1);
    if (p->n_items == 1 && p->pin_first >= 0 && p->pin_last >= 0 && p->pin_first != p->pin_last)
        return weft_fail(err, WEFT_ECONFIG, "the only item is pinned to %s and to %s",
                         p->devices[p->pin_first].name, p->devices[p->pin_last].name);
    return 0;
}

int weft_problem_check(const struct weft_problem *p, weft_err *err)
{
    int r = check_counts(p->n_items, p->n_devices, p->n_groups, err);
    if (r < 0)
        return r;
    if (p->devices == NULL || p->group_memory_bytes == NULL || p->compute_ns == NULL ||
        p->item_bytes == NULL || p->hop_ns == NULL || p->return_ns == NULL)
        return weft_fail(err, WEFT_ECONFIG, "placement problem with a table missing");
    if ((unsigned)p->goal >= WEFT_GOAL_COUNT)
        return weft_fail(err, WEFT_ECONFIG, "goal %d, expected latency (0) or throughput (1)",
                         (int)p->goal);
    for (uint32_t d = 0; d < p->n_devices; d++) {
        r = check_device(p, d, err);
        if (r < 0)
            return r;
    }
    for (uint32_t i = 0; i < p->n_items; i++) {
        if (p->item_bytes[i] > WEFT_BYTES_MAX)
            return weft_fail(err, WEFT_ECONFIG,
                             "item %" PRIu32 ": %" PRIu64 " bytes, expected at most %" PRIu64, i,
                             p->item_bytes[i], WEFT_BYTES_MAX);
    }
    if (p->tied_bytes > p->item_bytes[0] || p->tied_bytes > p->item_bytes[p->n_items - 1])
        return weft_fail(err, WEFT_ECONFIG,
                         "tied bytes %" PRIu64
                         ", expected at most those of the first item (%" PRIu64
                         ") and of the last (%" PRIu64 ")",
                         p->tied_bytes, p->item_bytes[0], p->item_bytes[p->n_items - 1]);
    r = check_links(p, p->hop_ns, "hop", err);
    if (r < 0)
        return r;
    r = check_links(p, p->return_ns, "return", err);
    if (r < 0)
        return r;
    return check_pins(p, err);
}
