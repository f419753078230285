/*
 * The cost model, see cost.h. Formulas, all in integer nanoseconds rounded up:
 *
 *   layer      max(weight bytes read / bytes_per_s, 2 * parameters used / flops_per_s)
 *              + KV bytes of context / 2 positions / bytes_per_s
 *   embedding  one row / bytes_per_s
 *   head       matrix bytes / bytes_per_s, at least 2 * parameters / flops_per_s
 *   hop        latency + 4 dim / bytes_per_s of the link (f32 activations)
 *   return     latency + 64 / bytes_per_s of the link (a token with its frame)
 *
 * Invariant: what is out of range is refused by weft_problem_check, never wrapped: durations
 * saturate. Pure: any thread.
 */
#include "partitioner/cost.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A device that was not measured is planned with as if it streamed 1 GB/s, all of them alike. */
#define UNMEASURED_BYTES_PER_S UINT64_C(1000000000)
/* 10^14 a second, far above any device, times 10^5 is still below 2^64. */
#define RATE_MAX UINT64_C(100000000000000)

static uint64_t add(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t mul(uint64_t a, uint64_t b)
{
    return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

/* ceil(amount / rate) in ns, rate > 0. The fraction is divided in two steps of 10^4 and 10^5, so
 * that nothing wraps; rates above RATE_MAX count as RATE_MAX. */
static uint64_t duration_ns(uint64_t amount, uint64_t rate)
{
    if (rate > RATE_MAX)
        rate = RATE_MAX;
    uint64_t high = amount % rate * 10000;
    uint64_t low = high % rate * 100000;
    uint64_t fraction = high / rate * 100000 + low / rate + (low % rate != 0);
    return add(mul(amount / rate, 1000000000), fraction);
}

static uint64_t speed(const struct weft_device_facts *d)
{
    return d->bytes_per_s > 0 ? d->bytes_per_s : UNMEASURED_BYTES_PER_S;
}

static uint64_t tensor_params(const struct weft_tensor *t)
{
    return t->bytes == 0 ? 0 : mul(t->rows, t->cols);
}

static const struct weft_tensor *head_matrix(const struct weft_model *m)
{
    return &m->global[m->tied ? WEFT_ROLE_EMBED : WEFT_ROLE_OUTPUT];
}

static uint64_t product_ns(const struct weft_device_facts *d, uint64_t bytes, uint64_t params,
                           uint64_t rows)
{
    uint64_t stream = duration_ns(bytes, speed(d));
    uint64_t math = d->flops_per_s > 0 ? duration_ns(mul(mul(2, params), rows), d->flops_per_s) : 0;
    return stream > math ? stream : math;
}

static uint64_t kv_ns(const struct weft_model *m, const struct weft_device_facts *d,
                      const struct weft_cost_options *opt)
{
    return duration_ns(mul(weft_kv_position_bytes(m, opt->kv), opt->context / 2), speed(d));
}

uint64_t weft_cost_prefill_ns(const struct weft_model *m, const struct weft_device_facts *device,
                              uint32_t item, uint32_t rows, const struct weft_cost_options *opt)
{
    if (item == 0) {
        const struct weft_tensor *t = &m->global[WEFT_ROLE_EMBED];
        return duration_ns(mul(weft_row_bytes(t->type, t->cols), rows), speed(device));
    }
    if (item == m->n_layers + 1) { /* only the last row of a prompt goes through the head */
        const struct weft_tensor *t = head_matrix(m);
        return product_ns(device, t->bytes, tensor_params(t), 1);
    }
    return add(product_ns(device, weft_layer_read_bytes(m, item - 1, rows),
                          weft_layer_active_params(m, item - 1), rows),
               kv_ns(m, device, opt));
}

static int check_options(const struct weft_model *m, uint32_t n,
                         const struct weft_cost_options *opt, weft_err *err)
{
    if (m->n_layers < 1 || m->n_layers > WEFT_LAYERS_MAX)
        return weft_fail(err, WEFT_ECONFIG, "model of %" PRIu32 " layers, expected 1 to %d",
                         m->n_layers, WEFT_LAYERS_MAX);
    if (n < 1 || n > WEFT_PROBLEM_DEVICES_MAX)
        return weft_fail(err, WEFT_ECONFIG, "plan for %" PRIu32 " devices, expected 1 to %d", n,
                         WEFT_PROBLEM_DEVICES_MAX);
    if (opt->context < 1 || opt->context > WEFT_CONTEXT_MAX || opt->sessions < 1)
        return weft_fail(err, WEFT_ECONFIG,
                         "context %" PRIu32 " for %" PRIu32
                         " sessions, expected 1 to %u for at least 1",
                         opt->context, opt->sessions, WEFT_CONTEXT_MAX);
    if ((unsigned)opt->kv >= WEFT_KV_COUNT)
        return weft_fail(err, WEFT_ECONFIG, "KV type %d, expected 0 to %d", (int)opt->kv,
                         WEFT_KV_COUNT - 1);
    return 0;
}

/* Devices of one machine share its memory: groups by boot id, alone where it is empty. */
static uint32_t group_devices(const struct weft_device_facts *devices, uint32_t n, uint32_t *group)
{
    uint32_t n_groups = 0;
    for (uint32_t d = 0; d < n; d++) {
        uint32_t k = 0;
        while (k < d &&
               (devices[d].boot_id[0] == 0 ||
                strncmp(devices[k].boot_id, devices[d].boot_id, sizeof devices->boot_id) != 0))
            k++;
        group[d] = k < d ? group[k] : n_groups++;
    }
    return n_groups;
}

uint64_t weft_cost_hop_ns(const struct weft_link_facts *link, uint64_t bytes)
{
    if (!link->known || link->bytes_per_s == 0)
        return WEFT_NO_LINK;
    return add(link->latency_ns, duration_ns(bytes, link->bytes_per_s));
}

static void fill_links(const struct weft_model *m, const struct weft_link_facts *links,
                       struct weft_problem *p)
{
    uint32_t n = p->n_devices;
    for (size_t k = 0; k < (size_t)n * n; k++) {
        const struct weft_link_facts *l = &links[k];
        if (k / n == k % n)
            continue;
        /* A link too slow to count in is as good as none. */
        uint64_t hop = weft_cost_hop_ns(l, mul(4, m->dim));
        uint64_t back = weft_cost_hop_ns(l, WEFT_TOKEN_BYTES);
        bool known = hop <= WEFT_COST_MAX_NS && back <= WEFT_COST_MAX_NS;
        p->hop_ns[k] = known ? hop : WEFT_NO_LINK;
        p->return_ns[k] = known ? back : WEFT_NO_LINK;
    }
}

int weft_cost_problem(const struct weft_model *m, const struct weft_device_facts *devices,
                      uint32_t n, const struct weft_link_facts *links,
                      const struct weft_cost_options *opt, struct weft_problem *ret, weft_err *err)
{
    uint32_t group[WEFT_PROBLEM_DEVICES_MAX];
    int r = check_options(m, n, opt, err);
    if (r < 0)
        return r;
    struct weft_problem p;
    uint32_t last = m->n_layers + 1;
    r = weft_problem_alloc(last + 1, n, group_devices(devices, n, group), &p, err);
    if (r < 0)
        return r;
    p.item_bytes[0] = weft_embed_weight_bytes(m);
    p.item_bytes[last] = weft_head_weight_bytes(m);
    /* One copy where embedding and head meet; the head's has the norm and padding besides. */
    if (m->tied)
        p.tied_bytes = p.item_bytes[0] < p.item_bytes[last] ? p.item_bytes[0] : p.item_bytes[last];
    uint64_t kv = mul(mul(weft_kv_position_bytes(m, opt->kv), opt->context), opt->sessions);
    for (uint32_t i = 1; i < last; i++)
        p.item_bytes[i] = add(weft_layer_weight_bytes(m, i - 1), kv);
    for (uint32_t d = 0; d < n; d++) {
        const struct weft_device_facts *f = &devices[d];
        struct weft_problem_device *dev = &p.devices[d];
        memcpy(dev->name, f->name, sizeof dev->name);
        dev->memory_bytes = f->unreachable ? 0 : f->memory_free_bytes;
        dev->stage_bytes = opt->stage_scratch_bytes;
        dev->stage_ns = f->stage_ns;
        dev->group = group[d];
        /* Daemons of one machine looked at different times: the least is what can be relied on. */
        uint64_t *shared = &p.group_memory_bytes[group[d]];
        bool alone = f->boot_id[0] == 0;
        uint64_t machine = alone ? f->memory_free_bytes : f->machine_free_bytes;
        *shared = *shared == 0 || machine < *shared ? machine : *shared;
        for (uint32_t i = 0; i <= last; i++)
            p.compute_ns[(size_t)i * n + d] = weft_cost_prefill_ns(m, f, i, 1, opt);
    }
    fill_links(m, links, &p);
    p.goal = opt->goal;
    p.pin_first = opt->pin_embed;
    p.pin_last = opt->pin_head;
    r = weft_problem_check(&p, err);
    if (r < 0) {
        weft_problem_done(&p);
        return r;
    }
    *ret = p;
    return 0;
}
