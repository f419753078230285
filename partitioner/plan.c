/*
 * Plans: the solver's or the person's placement, with memory, speed and the devices alone beside
 * it.
 *
 * Invariant: every plan that is returned passed weft_evaluate, so memory and links hold, also when
 * it is pinned. Pure: any thread.
 */
#include "partitioner/plan.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "partitioner/nofit.h"

/* Prompt length that prefill is predicted for. */
#define PREFILL_ROWS 128

static int pin_error(const struct weft_plan_request *rq, uint32_t s, const char *what,
                     uint64_t found, uint64_t expected, weft_err *err)
{
    uint32_t d = rq->pinned[s].device;
    return weft_fail(
        err, WEFT_ECONFIG, "stages[%" PRIu32 "] (%s): %s %" PRIu64 ", expected %" PRIu64, s,
        d < rq->n_devices ? rq->devices[d].name : "unknown device", what, found, expected);
}

static int check_pins(const struct weft_plan_request *rq, weft_err *err)
{
    uint32_t next = 0, n_layers = rq->model->n_layers;
    if (rq->n_pinned > WEFT_PLAN_STAGES_MAX)
        return weft_fail(err, WEFT_ECONFIG, "%" PRIu32 " stages, expected at most %d", rq->n_pinned,
                         WEFT_PLAN_STAGES_MAX);
    for (uint32_t s = 0; s < rq->n_pinned; s++) {
        const struct weft_pinned_stage *st = &rq->pinned[s];
        if (st->device >= rq->n_devices)
            return weft_fail(err, WEFT_ECONFIG,
                             "stages[%" PRIu32 "]: device %" PRIu32 ", expected below %" PRIu32, s,
                             st->device, rq->n_devices);
        if (st->first_layer != next)
            return pin_error(rq, s, "begins at layer", st->first_layer, next, err);
        /* The first stage may be the embedding alone, the last one the head. */
        if (st->n_layers == 0 && s > 0 && s + 1 < rq->n_pinned)
            return weft_fail(err, WEFT_ECONFIG,
                             "stages[%" PRIu32
                             "] (%s): no layer; only the first and the last stage "
                             "may have none",
                             s, rq->devices[st->device].name);
        if (st->n_layers > n_layers - next)
            return pin_error(rq, s, "ends at layer", (uint64_t)next + st->n_layers - 1,
                             n_layers - 1, err);
        next += st->n_layers;
    }
    if (next != n_layers)
        return pin_error(rq, rq->n_pinned - 1, "the last stage ends at layer", next - 1,
                         n_layers - 1, err);
    return 0;
}

/* Items of the pinned stages; embedding and head join the outer ones unless they are pinned
 * elsewhere. */
static int place_pinned(const struct weft_plan_request *rq, const struct weft_problem *p,
                        struct weft_placement *ret, weft_err *err)
{
    int r = check_pins(rq, err);
    if (r < 0)
        return r;
    uint32_t n = 0, last = rq->n_pinned - 1;
    struct weft_placed_stage *st = calloc((size_t)rq->n_pinned + 2, sizeof *st);
    if (st == NULL)
        return weft_fail(err, WEFT_ENOMEM, "plan of %" PRIu32 " stages", rq->n_pinned);
    bool embed_apart = p->pin_first >= 0 && (uint32_t)p->pin_first != rq->pinned[0].device;
    bool head_apart = p->pin_last >= 0 && (uint32_t)p->pin_last != rq->pinned[last].device;
    if (embed_apart)
        st[n++] = (struct weft_placed_stage){.device = (uint32_t)p->pin_first, .count = 1};
    for (uint32_t s = 0; s <= last; s++) {
        const struct weft_pinned_stage *pin = &rq->pinned[s];
        bool takes_embed = s == 0 && !embed_apart, takes_head = s == last && !head_apart;
        st[n++] = (struct weft_placed_stage){
            .device = pin->device,
            .first = pin->first_layer + !takes_embed,
            .count = pin->n_layers + takes_embed + takes_head,
        };
    }
    if (head_apart)
        st[n++] = (struct weft_placed_stage){
            .device = (uint32_t)p->pin_last, .first = p->n_items - 1, .count = 1};
    struct weft_placement pl = {.stages = st, .n_stages = n};
    weft_err why = {0};
    r = weft_evaluate(p, &pl, &why);
    if (r == 0) {
        *ret = pl;
        return 0;
    }
    weft_placement_done(&pl);
    return r == -WEFT_ENOFIT ? weft_nofit(rq, p, why.text, err)
                             : weft_fail(err, -r, "%s", why.text);
}

static void fill_stage(const struct weft_plan_request *rq, const struct weft_problem *p,
                       const struct weft_placement *pl, uint32_t s, struct weft_plan_stage *ret)
{
    const struct weft_placed_stage *st = &pl->stages[s];
    uint32_t end = st->first + st->count, nd = p->n_devices, last = p->n_items - 1;
    bool closes = s + 1 == pl->n_stages;
    uint32_t to = pl->stages[closes ? 0 : s + 1].device;
    struct weft_plan_stage out = {
        .device = st->device,
        .embed = st->first == 0,
        .head = end == p->n_items,
        .first_layer = st->first == 0 ? 0 : st->first - 1,
        .scratch_bytes = p->devices[st->device].stage_bytes,
        .decode_ns = p->devices[st->device].stage_ns,
        .hop_ns = (closes ? p->return_ns : p->hop_ns)[(size_t)st->device * nd + to],
    };
    out.n_layers = st->count - out.embed - out.head;
    out.kv_bytes = weft_kv_position_bytes(rq->model, rq->cost.kv) * rq->cost.context *
                   rq->cost.sessions * out.n_layers;
    for (uint32_t i = st->first; i < end; i++) {
        out.weight_bytes += p->item_bytes[i];
        out.decode_ns += p->compute_ns[(size_t)i * nd + st->device];
    }
    out.weight_bytes -= out.kv_bytes;
    if (end > last && pl->stages[0].device == st->device)
        out.weight_bytes -= p->tied_bytes; /* counted with the embedding */
    if (to != st->device)
        out.hop_bytes = closes ? WEFT_TOKEN_BYTES : 4 * (uint64_t)rq->model->dim;
    *ret = out;
}

/* Predictions saturate: an absurd device gives an absurd time, never a small one. */
static uint64_t sum_of(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* Chunks of a prompt through the stages as a pipeline: Σ t + (k - 1) max t (arXiv 2504.08242). */
static uint64_t prefill_ns(const struct weft_plan_request *rq, const struct weft_plan *plan)
{
    uint32_t rows = plan->prefill_rows, batch = rq->cost.batch_rows;
    batch = batch > 0 && batch < rows ? batch : rows;
    uint64_t steps = (rows + batch - 1) / batch, sum = 0, most = 0;
    for (uint32_t s = 0; s < plan->n_stages; s++) {
        const struct weft_plan_stage *st = &plan->stages[s];
        const struct weft_device_facts *f = &rq->devices[st->device];
        const struct weft_plan_stage *to = &plan->stages[s + 1 < plan->n_stages ? s + 1 : 0];
        uint64_t ns = f->stage_ns, hop = st->hop_ns;
        uint32_t first = st->embed ? 0 : st->first_layer + 1;
        for (uint32_t k = 0; k < st->n_layers + st->embed; k++)
            ns = sum_of(ns, weft_cost_prefill_ns(rq->model, f, first + k, batch, &rq->cost));
        if (st->head)
            sum = sum_of(sum,
                         weft_cost_prefill_ns(rq->model, f, rq->model->n_layers + 1, 1, &rq->cost));
        if (s + 1 < plan->n_stages && st->hop_bytes > 0) /* the activations of all rows */
            hop = weft_cost_hop_ns(&rq->links[(size_t)st->device * rq->n_devices + to->device],
                                   st->hop_bytes * batch);
        ns = sum_of(ns, hop);
        sum = sum_of(sum, ns);
        most = ns > most ? ns : most;
    }
    for (; steps > 1; steps--)
        sum = sum_of(sum, most);
    return sum;
}

static int fill_singles(const struct weft_problem *p, struct weft_plan *plan, weft_err *err)
{
    uint64_t best = p->goal == WEFT_GOAL_LATENCY ? plan->latency_ns : plan->bottleneck_ns;
    for (uint32_t d = 0; d < p->n_devices; d++) {
        struct weft_placed_stage all = {.device = d, .count = p->n_items};
        struct weft_placement pl = {.stages = &all, .n_stages = 1};
        weft_err why = {0};
        int r = weft_evaluate(p, &pl, &why);
        if (r == -WEFT_ENOMEM)
            return weft_fail(err, WEFT_ENOMEM, "%s", why.text);
        plan->singles[d] = (struct weft_plan_single){
            .device = d, .fits = r == 0, .latency_ns = r == 0 ? pl.latency_ns : 0};
        /* Alone on a device latency and bottleneck are the same time. */
        if (plan->predicted && r == 0 && pl.latency_ns < best) {
            best = pl.latency_ns;
            plan->single_better = (int32_t)d;
        }
    }
    return 0;
}

static int fill_plan(const struct weft_plan_request *rq, const struct weft_problem *p,
                     const struct weft_placement *pl, struct weft_plan *ret, weft_err *err)
{
    assert(pl->n_stages > 0); /* every layer stands in one */
    struct weft_plan plan = {
        .stages = calloc(pl->n_stages, sizeof *plan.stages),
        .singles = calloc(p->n_devices, sizeof *plan.singles),
        .n_stages = pl->n_stages,
        .n_devices = p->n_devices,
        .pinned = rq->n_pinned > 0,
        .proved_optimal = pl->proved_optimal,
        .predicted = true,
        .latency_ns = pl->latency_ns,
        .bottleneck_ns = pl->bottleneck_ns,
        .prefill_rows = PREFILL_ROWS,
        .single_better = -1,
    };
    int r = 0;
    if (pl->n_stages > WEFT_PLAN_STAGES_MAX) {
        r = weft_fail(err, WEFT_ELIMIT, "plan of %" PRIu32 " stages, expected at most %d",
                      pl->n_stages, WEFT_PLAN_STAGES_MAX);
        goto out;
    }
    if (plan.stages == NULL || plan.singles == NULL) {
        r = weft_fail(err, WEFT_ENOMEM, "plan of %" PRIu32 " stages", pl->n_stages);
        goto out;
    }
    for (uint32_t d = 0; d < p->n_devices; d++)
        plan.predicted &= rq->devices[d].bytes_per_s > 0 || rq->devices[d].unreachable;
    for (uint32_t s = 0; s < pl->n_stages; s++)
        fill_stage(rq, p, pl, s, &plan.stages[s]);
    plan.prefill_ns = prefill_ns(rq, &plan);
    r = fill_singles(p, &plan, err);
    if (r < 0)
        goto out;
    *ret = plan;
    plan = (struct weft_plan){0};
out:
    weft_plan_done(&plan);
    return r;
}

int weft_plan_make(const struct weft_plan_request *rq, struct weft_plan *ret, weft_err *err)
{
    struct weft_problem p;
    struct weft_placement pl = {0};
    int r = weft_cost_problem(rq->model, rq->devices, rq->n_devices, rq->links, &rq->cost, &p, err);
    if (r < 0)
        return r;
    if (rq->n_pinned > 0) {
        r = place_pinned(rq, &p, &pl, err);
    } else {
        weft_err why = {0};
        r = weft_solve(&p, NULL, &pl, NULL, &why);
        if (r == -WEFT_ENOFIT)
            r = weft_nofit(rq, &p, NULL, err);
        else if (r < 0)
            r = weft_fail(err, -r, "%s", why.text);
    }
    if (r == 0)
        r = fill_plan(rq, &p, &pl, ret, err);
    weft_placement_done(&pl);
    weft_problem_done(&p);
    return r;
}

void weft_plan_done(struct weft_plan *p)
{
    free(p->stages);
    free(p->singles);
    memset(p, 0, sizeof *p);
}
