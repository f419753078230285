/*
 * Limits of a placement, see limits.h. Invariant: every sum stays below 2^62 for problems that
 * passed weft_problem_check; limits themselves may be any number. Pure: any thread.
 */
#include "partitioner/limits.h"

#include <stdlib.h>
#include <string.h>

#include "partitioner/search.h"

static bool capped(const struct weft_limits *l)
{
    return l->cap_ns != WEFT_NO_CAP;
}

static uint32_t group_size(const struct weft_limits *l, uint32_t g)
{
    return l->group_start[g + 1] - l->group_start[g];
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How many things of `each` fit in `room`, at most `most`. */
static uint64_t places(uint64_t room, uint64_t each, uint64_t most)
{
    return each == 0 ? most : smaller(room / each, most);
}

/* ------------------------------------------------------------------ tables */

static bool same_links(const uint64_t *ns, uint32_t nd, uint32_t a, uint32_t b)
{
    if (ns[(size_t)a * nd + b] != ns[(size_t)b * nd + a])
        return false;
    for (uint32_t k = 0; k < nd; k++) {
        if (k != a && k != b &&
            (ns[(size_t)a * nd + k] != ns[(size_t)b * nd + k] ||
             ns[(size_t)k * nd + a] != ns[(size_t)k * nd + b]))
            return false;
    }
    return true;
}

/* True when exchanging two devices changes no figure of any placement. */
static bool twins(const struct weft_limits *l, uint32_t a, uint32_t b)
{
    const struct weft_problem *p = l->p;
    const struct weft_problem_device *x = &p->devices[a], *y = &p->devices[b];
    if (p->pin_first == (int32_t)a || p->pin_first == (int32_t)b || p->pin_last == (int32_t)a ||
        p->pin_last == (int32_t)b)
        return false;
    if (x->group != y->group && (group_size(l, x->group) > 1 || group_size(l, y->group) > 1))
        return false;
    if (l->device_bytes[a] != l->device_bytes[b] || x->fixed_bytes != y->fixed_bytes ||
        x->stage_bytes != y->stage_bytes || x->stage_ns != y->stage_ns)
        return false;
    for (size_t i = 0; i < p->n_items; i++) {
        if (p->compute_ns[i * p->n_devices + a] != p->compute_ns[i * p->n_devices + b])
            return false;
    }
    return same_links(p->hop_ns, p->n_devices, a, b) &&
           same_links(p->return_ns, p->n_devices, a, b);
}

static void fill_groups(struct weft_limits *l)
{
    const struct weft_problem *p = l->p;
    uint32_t n = 0;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        l->group_start[g] = n;
        for (uint32_t d = 0; d < p->n_devices; d++) {
            if (p->devices[d].group == g)
                l->member[n++] = d;
        }
    }
    l->group_start[p->n_groups] = n;
    for (uint32_t d = 0; d < p->n_devices; d++) {
        uint32_t g = p->devices[d].group;
        l->device_bytes[d] = p->devices[d].memory_bytes;
        if (group_size(l, g) == 1)
            l->device_bytes[d] = smaller(l->device_bytes[d], p->group_memory_bytes[g]);
    }
}

static void fill_suffixes(struct weft_limits *l)
{
    const struct weft_problem *p = l->p;
    size_t nd = p->n_devices, ng = p->n_groups;
    for (uint32_t i = p->n_items; i-- > 0;) {
        bool last = i + 1 == p->n_items;
        l->rest_bytes[i] = l->rest_bytes[i + 1] + p->item_bytes[i];
        l->least_bytes[i] = last || i + 2 == p->n_items
                                ? p->item_bytes[i]
                                : smaller(p->item_bytes[i], l->least_bytes[i + 1]);
        for (uint32_t d = 0; d < nd; d++) {
            uint64_t ns = p->compute_ns[i * nd + d];
            l->least_ns[i * nd + d] =
                last || i + 2 == p->n_items ? ns : smaller(ns, l->least_ns[(i + 1) * nd + d]);
        }
        for (uint32_t g = 0; g < ng; g++) {
            uint64_t slowest = 0;
            for (uint32_t k = l->group_start[g]; k < l->group_start[g + 1]; k++) {
                uint64_t ns = p->compute_ns[i * nd + l->member[k]];
                slowest = ns > slowest ? ns : slowest;
            }
            l->rest_ns[i * ng + g] = l->rest_ns[(i + 1) * ng + g] + slowest;
        }
    }
}

/* Places in `room` when the least middle item takes `each`, and what the first and the last item
 * take of them, rounded down so that no placement within the room takes more. */
static struct weft_capacity capacity(uint64_t room, uint64_t each, uint64_t first, uint64_t last,
                                     uint32_t middle)
{
    return (struct weft_capacity){
        .places = (uint32_t)places(room, each, 3 * (uint64_t)middle),
        .first = each == 0 ? 0 : (uint32_t)places(first, each, middle),
        .last = each == 0 ? 0 : (uint32_t)places(last, each, middle),
    };
}

/* The tighter of memory and time for each device; memory alone for groups. */
static void fill_capacities(struct weft_limits *l)
{
    const struct weft_problem *p = l->p;
    uint32_t last = p->n_items - 1, middle = last > 1 ? last - 1 : 0;
    size_t nd = p->n_devices;
    if (middle == 0)
        return;
    uint64_t each = l->least_bytes[1], last_bytes = p->item_bytes[last] - p->tied_bytes;
    for (uint32_t d = 0; d < nd; d++) {
        const struct weft_problem_device *dev = &p->devices[d];
        uint64_t own = dev->fixed_bytes + dev->stage_bytes;
        if (own > l->device_bytes[d] || dev->stage_ns > l->cap_ns)
            continue; /* no place at all */
        struct weft_capacity by_bytes =
            capacity(l->device_bytes[d] - own, each, p->item_bytes[0], last_bytes, middle);
        struct weft_capacity by_ns =
            capacity(l->cap_ns - dev->stage_ns, l->least_ns[nd + d], p->compute_ns[d],
                     p->compute_ns[last * nd + d], middle);
        l->of_device[d] = capped(l) && by_ns.places < by_bytes.places ? by_ns : by_bytes;
    }
    for (uint32_t g = 0; g < p->n_groups; g++)
        l->of_group[g] =
            capacity(p->group_memory_bytes[g], each, p->item_bytes[0], last_bytes, middle);
}

/* Gives a place in `taken` to each link whose hops, as often as they can occur, may exceed the cap.
 */
static void fill_slots(struct weft_limits *l)
{
    const struct weft_problem *p = l->p;
    size_t nd = p->n_devices;
    l->n_used = p->n_devices;
    if (!capped(l))
        return;
    l->n_used += p->n_groups;
    for (size_t k = 0; k < nd * nd; k++) {
        uint64_t hop = p->hop_ns[k] == WEFT_NO_LINK ? 0 : p->hop_ns[k];
        uint64_t back = p->return_ns[k] == WEFT_NO_LINK ? 0 : p->return_ns[k];
        l->slot[k] = -1;
        if (hop * ((p->n_items + 1) / 2) + back > l->cap_ns)
            l->slot[k] = (int32_t)l->n_used++;
    }
}

int weft_limits_open(const struct weft_problem *p, uint64_t cap_ns, struct weft_limits *ret,
                     weft_err *err)
{
    size_t n = p->n_items, nd = p->n_devices, ng = p->n_groups;
    struct weft_limits l = {
        .p = p,
        .cap_ns = cap_ns,
        .device_bytes = calloc(nd, sizeof *l.device_bytes),
        .lower_twins = calloc(nd, sizeof *l.lower_twins),
        .member = calloc(nd, sizeof *l.member),
        .group_start = calloc(ng + 1, sizeof *l.group_start),
        .slot = calloc(nd * nd, sizeof *l.slot),
        .of_device = calloc(nd, sizeof *l.of_device),
        .of_group = calloc(ng, sizeof *l.of_group),
        .rest_bytes = calloc(n + 1, sizeof *l.rest_bytes),
        .least_bytes = calloc(n + 1, sizeof *l.least_bytes),
        .rest_ns = calloc((n + 1) * ng, sizeof *l.rest_ns),
        .least_ns = calloc((n + 1) * nd, sizeof *l.least_ns),
    };
    if (l.device_bytes == NULL || l.lower_twins == NULL || l.member == NULL ||
        l.group_start == NULL || l.slot == NULL || l.of_device == NULL || l.of_group == NULL ||
        l.rest_bytes == NULL || l.least_bytes == NULL || l.rest_ns == NULL || l.least_ns == NULL) {
        weft_limits_done(&l);
        return weft_fail(err, WEFT_ENOMEM, "limits of %zu items on %zu devices", n, nd);
    }
    fill_groups(&l);
    fill_suffixes(&l);
    fill_capacities(&l);
    fill_slots(&l);
    for (uint32_t d = 1; d < nd; d++) {
        for (uint32_t k = 0; k < d; k++)
            l.lower_twins[d] |= (uint64_t)twins(&l, k, d) << k;
    }
    *ret = l;
    return 0;
}

void weft_limits_done(struct weft_limits *l)
{
    free(l->device_bytes);
    free(l->lower_twins);
    free(l->member);
    free(l->group_start);
    free(l->slot);
    free(l->of_device);
    free(l->of_group);
    free(l->rest_bytes);
    free(l->least_bytes);
    free(l->rest_ns);
    free(l->least_ns);
    memset(l, 0, sizeof *l);
}

/* ------------------------------------------------------------------ labels */

static uint64_t group_taken(const struct weft_limits *l, const struct weft_label *a, uint32_t g)
{
    uint64_t bytes = 0;
    for (uint32_t k = l->group_start[g]; k < l->group_start[g + 1]; k++)
        bytes += a->taken[l->member[k]];
    return bytes;
}

/* Adds ns to a link; false above the cap. */
static bool use_link(const struct weft_limits *l, struct weft_label *to, uint32_t from, uint32_t e,
                     uint64_t ns)
{
    int32_t slot = l->slot[(size_t)from * l->p->n_devices + e];
    if (from == e || slot < 0)
        return true;
    to->taken[slot] += ns;
    return to->taken[slot] <= l->cap_ns;
}

bool weft_limits_place(const struct weft_limits *l, const struct weft_label *from, uint32_t i,
                       uint32_t e, struct weft_label *to)
{
    const struct weft_problem *p = l->p;
    const struct weft_problem_device *dev = &p->devices[e];
    size_t nd = p->n_devices;
    bool last = i + 1 == p->n_items, opens = from == NULL || from->device != e;
    bool fresh = from == NULL || (from->used >> e & 1) == 0;
    uint64_t bytes = p->item_bytes[i];
    if (last && i > 0 && e == to->first)
        bytes -= p->tied_bytes;
    to->taken[e] += bytes + (opens ? dev->stage_bytes : 0) + (fresh ? dev->fixed_bytes : 0);
    if (to->taken[e] > l->device_bytes[e])
        return false;
    if (group_size(l, dev->group) > 1 &&
        group_taken(l, to, dev->group) > p->group_memory_bytes[dev->group])
        return false;
    if (!capped(l))
        return true;
    uint64_t *busy = &to->taken[nd + dev->group];
    *busy += p->compute_ns[i * nd + e] + (opens ? dev->stage_ns : 0);
    if (*busy > l->cap_ns)
        return false;
    if (from != NULL && opens &&
        !use_link(l, to, from->device, e, p->hop_ns[from->device * nd + e]))
        return false;
    return !last || use_link(l, to, e, to->first, p->return_ns[e * nd + to->first]);
}

/* Memory: each limit has at least b's room, or more than all that is left can take. */
static bool roomier_memory(const struct weft_limits *l, const struct weft_label *a,
                           const struct weft_label *b, uint32_t i)
{
    const struct weft_problem *p = l->p;
    uint64_t items = l->rest_bytes[i + 1], n_left = p->n_items - 1 - i;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        bool less = true;
        uint64_t fixed = 0, stage = 0;
        for (uint32_t k = l->group_start[g]; k < l->group_start[g + 1]; k++) {
            uint32_t d = l->member[k];
            const struct weft_problem_device *dev = &p->devices[d];
            fixed += dev->fixed_bytes;
            stage = dev->stage_bytes > stage ? dev->stage_bytes : stage;
            if (a->taken[d] <= b->taken[d])
                continue;
            less = false;
            /* New stages of one device are at most every other item. */
            if (a->taken[d] + items + dev->fixed_bytes + dev->stage_bytes * ((n_left + 1) / 2) >
                l->device_bytes[d])
                return false;
        }
        if (!less && group_size(l, g) > 1 &&
            group_taken(l, a, g) + items + fixed + stage * n_left > p->group_memory_bytes[g])
            return false;
    }
    return true;
}

static bool roomier_time(const struct weft_limits *l, const struct weft_label *a,
                         const struct weft_label *b, uint32_t i)
{
    const struct weft_problem *p = l->p;
    size_t nd = p->n_devices, ng = p->n_groups;
    uint64_t n_left = p->n_items - 1 - i;
    for (uint32_t g = 0; g < ng; g++) {
        uint64_t stage = 0;
        for (uint32_t k = l->group_start[g]; k < l->group_start[g + 1]; k++) {
            uint64_t ns = p->devices[l->member[k]].stage_ns;
            stage = ns > stage ? ns : stage;
        }
        if (a->taken[nd + g] > b->taken[nd + g] &&
            a->taken[nd + g] + l->rest_ns[(i + 1) * ng + g] + stage * n_left > l->cap_ns)
            return false;
    }
    if (l->n_used == nd + ng)
        return true;
    for (size_t k = 0; k < nd * nd; k++) {
        int32_t slot = l->slot[k];
        if (slot < 0 || a->taken[slot] <= b->taken[slot])
            continue;
        uint64_t hop = p->hop_ns[k] == WEFT_NO_LINK ? 0 : p->hop_ns[k];
        uint64_t back = p->return_ns[k] == WEFT_NO_LINK ? 0 : p->return_ns[k];
        if (a->taken[slot] + hop * ((n_left + 1) / 2) + back > l->cap_ns)
            return false;
    }
    return true;
}

bool weft_limits_roomier(const struct weft_limits *l, const struct weft_label *a,
                         const struct weft_label *b, uint32_t i)
{
    if (l->p->no_reuse && (a->used & ~b->used) != 0)
        return false;
    return roomier_memory(l, a, b, i) && (!capped(l) || roomier_time(l, a, b, i));
}

/* Items that group g can still take at most, `most` being enough; with the last item on its member
 * `head` (-1: not in this group). -1 when that one does not fit. */
static int64_t group_places(const struct weft_limits *l, const struct weft_label *a, uint32_t i,
                            uint32_t g, int64_t head, uint64_t most)
{
    const struct weft_problem *p = l->p;
    size_t nd = p->n_devices, next = i + 1, last = p->n_items - 1;
    uint64_t sum = 0, least_ns = UINT64_MAX, head_bytes = 0, head_ns = 0;
    uint64_t room_ns = capped(l) ? l->cap_ns - a->taken[nd + g] : UINT64_MAX;
    for (uint32_t k = l->group_start[g]; k < l->group_start[g + 1]; k++) {
        uint32_t d = l->member[k];
        const struct weft_problem_device *dev = &p->devices[d];
        uint64_t room = l->device_bytes[d] - a->taken[d], bytes = 0, ns = 0;
        if (a->device != d) {
            bytes = dev->stage_bytes + ((a->used >> d & 1) == 0 ? dev->fixed_bytes : 0);
            ns = dev->stage_ns;
        }
        if (head == (int64_t)d) {
            head_bytes = p->item_bytes[last] - (a->first == d ? p->tied_bytes : 0);
            head_ns = p->compute_ns[last * nd + d];
            bytes += head_bytes;
            ns += head_ns;
        }
        bool closed = p->no_reuse && a->device != d && (a->used >> d & 1) != 0;
        if (closed || a->taken[d] > l->device_bytes[d] || bytes > room || ns > room_ns) {
            if (head == (int64_t)d)
                return -1;
            continue;
        }
        uint64_t n = places(room - bytes, l->least_bytes[next], most);
        if (capped(l))
            n = places(room_ns - ns, l->least_ns[next * nd + d], n);
        least_ns = smaller(least_ns, l->least_ns[next * nd + d]);
        sum += n;
    }
    if (group_size(l, g) > 1) {
        uint64_t room = p->group_memory_bytes[g] - group_taken(l, a, g);
        if (head_bytes > room)
            return -1;
        sum = places(room - head_bytes, l->least_bytes[next], sum);
        if (capped(l) && sum > 0)
            sum = places(room_ns - head_ns, least_ns, sum);
    }
    return (int64_t)smaller(sum, most);
}

bool weft_limits_room(const struct weft_limits *l, const struct weft_label *a, uint32_t i)
{
    const struct weft_problem *p = l->p;
    int64_t middle = (int64_t)p->n_items - 2 - i, total = 0;
    int64_t of_group[WEFT_PROBLEM_DEVICES_MAX];
    if (a->taken[a->device] + l->rest_bytes[i + 1] <= l->device_bytes[a->device] && !capped(l) &&
        group_size(l, p->devices[a->device].group) == 1 && p->pin_last < 0)
        return true; /* the present device could take all */
    for (uint32_t g = 0; g < p->n_groups; g++) {
        of_group[g] = group_places(l, a, i, g, -1, (uint64_t)middle);
        total += of_group[g];
    }
    for (uint32_t d = 0; d < p->n_devices; d++) {
        if (p->pin_last >= 0 && (uint32_t)p->pin_last != d)
            continue;
        uint32_t g = p->devices[d].group;
        int64_t with = group_places(l, a, i, g, (int64_t)d, (uint64_t)middle);
        if (with >= 0 && total - of_group[g] + with >= middle)
            return true;
    }
    return false;
}
