/*
 * Figures of a given placement: latency, bottleneck, memory. The definition the solver is held to.
 *
 * Invariant: sums cannot wrap for problems that passed weft_problem_check and placements of at most
 * n_items stages. Pure: any thread.
 */
#include "partitioner/solve.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static int check_stages(const struct weft_problem *p, const struct weft_placement *pl,
                        weft_err *err)
{
    uint32_t next = 0;
    uint64_t seen = 0;
    if (pl->n_stages < 1 || pl->stages == NULL)
        return weft_fail(err, WEFT_ECONFIG, "placement without a stage");
    for (uint32_t s = 0; s < pl->n_stages; s++) {
        const struct weft_placed_stage *st = &pl->stages[s];
        if (st->device >= p->n_devices)
            return weft_fail(err, WEFT_ECONFIG,
                             "stage %" PRIu32 ": device %" PRIu32 ", expected below %" PRIu32, s,
                             st->device, p->n_devices);
        if (st->first != next || st->count < 1 || st->count > p->n_items - next)
            return weft_fail(err, WEFT_ECONFIG,
                             "stage %" PRIu32 ": %" PRIu32 " items from %" PRIu32
                             ", expected at least 1 from %" PRIu32 " and none behind item %" PRIu32,
                             s, st->count, st->first, next, p->n_items - 1);
        if (p->no_reuse && (seen >> st->device & 1) != 0)
            return weft_fail(err, WEFT_ECONFIG,
                             "stage %" PRIu32
                             ": device %s has a stage already and may have one only",
                             s, p->devices[st->device].name);
        seen |= UINT64_C(1) << st->device;
        next += st->count;
    }
    if (next != p->n_items)
        return weft_fail(err, WEFT_ECONFIG,
                         "placement of items 0 to %" PRIu32 ", expected 0 to %" PRIu32, next - 1,
                         p->n_items - 1);
    uint32_t first = pl->stages[0].device, last = pl->stages[pl->n_stages - 1].device;
    if (p->pin_first >= 0 && first != (uint32_t)p->pin_first)
        return weft_fail(err, WEFT_ECONFIG, "first item on device %s, pinned to %s",
                         p->devices[first].name, p->devices[p->pin_first].name);
    if (p->pin_last >= 0 && last != (uint32_t)p->pin_last)
        return weft_fail(err, WEFT_ECONFIG, "last item on device %s, pinned to %s",
                         p->devices[last].name, p->devices[p->pin_last].name);
    return 0;
}

uint64_t weft_placement_bytes(const struct weft_problem *p, const struct weft_placement *pl,
                              uint32_t device)
{
    uint64_t bytes = 0;
    bool used = false;
    for (uint32_t s = 0; s < pl->n_stages; s++) {
        const struct weft_placed_stage *st = &pl->stages[s];
        if (st->device != device)
            continue;
        used = true;
        bytes += p->devices[device].stage_bytes;
        for (uint32_t i = st->first; i < st->first + st->count; i++)
            bytes += p->item_bytes[i];
    }
    if (used)
        bytes += p->devices[device].fixed_bytes;
    if (used && p->n_items > 1 && pl->stages[0].device == device &&
        pl->stages[pl->n_stages - 1].device == device)
        bytes -= p->tied_bytes;
    return bytes;
}

static int fail_memory(const char *what, const char *name, uint64_t need, uint64_t have,
                       weft_err *err)
{
    char a[32], b[32], c[32];
    return weft_fail(err, WEFT_ENOFIT, "%s %s: needs %s, has %s free, lacks %s", what, name,
                     weft_format_size(a, sizeof a, need), weft_format_size(b, sizeof b, have),
                     weft_format_size(c, sizeof c, need - have));
}

static int check_memory(const struct weft_problem *p, const struct weft_placement *pl,
                        weft_err *err)
{
    uint64_t group[WEFT_PROBLEM_DEVICES_MAX] = {0};
    for (uint32_t d = 0; d < p->n_devices; d++) {
        const struct weft_problem_device *dev = &p->devices[d];
        uint64_t need = weft_placement_bytes(p, pl, d);
        group[dev->group] += need;
        if (need > dev->memory_bytes)
            return fail_memory("device", dev->name, need, dev->memory_bytes, err);
    }
    for (uint32_t d = 0; d < p->n_devices; d++) {
        uint32_t g = p->devices[d].group;
        if (group[g] > p->group_memory_bytes[g])
            return fail_memory("the machine of device", p->devices[d].name, group[g],
                               p->group_memory_bytes[g], err);
    }
    return 0;
}

/* Adds up times; links [n_devices, n_devices] and groups [n_groups] are zeroed scratch. */
static int add_times(const struct weft_problem *p, const struct weft_placement *pl, uint64_t *links,
                     uint64_t *groups, uint64_t *ret_latency, weft_err *err)
{
    size_t nd = p->n_devices;
    uint64_t latency = 0;
    for (uint32_t s = 0; s < pl->n_stages; s++) {
        const struct weft_placed_stage *st = &pl->stages[s];
        const struct weft_problem_device *dev = &p->devices[st->device];
        bool last = s + 1 == pl->n_stages;
        uint32_t to = pl->stages[last ? 0 : s + 1].device;
        uint64_t hop = (last ? p->return_ns : p->hop_ns)[st->device * nd + to];
        uint64_t busy = dev->stage_ns;
        if (hop == WEFT_NO_LINK)
            return weft_fail(err, WEFT_EUNREACHABLE,
                             "stage %" PRIu32 ": device %s has no link to %s, which comes next", s,
                             dev->name, p->devices[to].name);
        for (uint32_t i = st->first; i < st->first + st->count; i++)
            busy += p->compute_ns[i * nd + st->device];
        groups[dev->group] += busy;
        links[st->device * nd + to] += hop;
        latency += busy + hop;
    }
    *ret_latency = latency;
    return 0;
}

int weft_evaluate(const struct weft_problem *p, struct weft_placement *pl, weft_err *err)
{
    int r = weft_problem_check(p, err);
    if (r < 0)
        return r;
    r = check_stages(p, pl, err);
    if (r < 0)
        return r;
    r = check_memory(p, pl, err);
    if (r < 0)
        return r;
    size_t nd = p->n_devices, n = nd * nd + p->n_groups;
    uint64_t latency = 0, bottleneck = 0, *times = calloc(n, sizeof *times);
    if (times == NULL)
        return weft_fail(err, WEFT_ENOMEM, "times of %zu devices", nd);
    r = add_times(p, pl, times, times + nd * nd, &latency, err);
    if (r == 0) {
        for (size_t k = 0; k < n; k++)
            bottleneck = times[k] > bottleneck ? times[k] : bottleneck;
        pl->latency_ns = latency;
        pl->bottleneck_ns = bottleneck;
    }
    free(times);
    return r;
}
