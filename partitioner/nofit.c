/*
 * The text of a plan that does not fit (design 8). Cures are tried with the solver itself, never
 * estimated. Pure: any thread.
 */
#include "partitioner/nofit.h"

#include <inttypes.h>
#include <string.h>

/* Labels of one trial: enough to find a placement where there is room; some 20 trials are made. */
#define TRIAL_LABELS 20000u
/* Devices named in the text. */
#define DEVICES_SHOWN 6
/* More memory is looked for in steps of this. */
#define MEMORY_STEP ((uint64_t)16 << 20)

static bool fits(const struct weft_problem *p)
{
    struct weft_placement pl = {0};
    const struct weft_solve_options opt = {.labels_max = TRIAL_LABELS};
    if (weft_solve(p, &opt, &pl, NULL, NULL) < 0)
        return false;
    weft_placement_done(&pl);
    return true;
}

static bool fits_at(const struct weft_plan_request *rq, uint32_t context)
{
    struct weft_cost_options opt = rq->cost;
    struct weft_problem p;
    opt.context = context;
    opt.goal = WEFT_GOAL_LATENCY;
    if (weft_cost_problem(rq->model, rq->devices, rq->n_devices, rq->links, &opt, &p, NULL) < 0)
        return false;
    bool yes = fits(&p);
    weft_problem_done(&p);
    return yes;
}

/* The largest context below the asked one that fits; 0: none. */
static uint32_t largest_context(const struct weft_plan_request *rq)
{
    uint32_t low = 1, high = rq->cost.context;
    if (high <= 1 || !fits_at(rq, low))
        return 0;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (fits_at(rq, middle))
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Memory that one device would need for the whole model. */
static uint64_t alone_bytes(const struct weft_problem *p)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < p->n_items; i++)
        sum += p->item_bytes[i];
    return sum - p->tied_bytes + p->devices[0].fixed_bytes + p->devices[0].stage_bytes;
}

static uint64_t room_of(const struct weft_problem *p, uint32_t d)
{
    uint64_t own = p->devices[d].memory_bytes, shared = p->group_memory_bytes[p->devices[d].group];
    return own < shared ? own : shared;
}

/* The least memory, in steps, that added to device d makes the model fit; 0: none does. */
static uint64_t extra_bytes(const struct weft_plan_request *rq, uint32_t d)
{
    struct weft_problem p;
    struct weft_cost_options opt = rq->cost;
    opt.goal = WEFT_GOAL_LATENCY;
    if (weft_cost_problem(rq->model, rq->devices, rq->n_devices, rq->links, &opt, &p, NULL) < 0)
        return 0;
    uint64_t own = p.devices[d].memory_bytes;
    uint64_t *shared = &p.group_memory_bytes[p.devices[d].group], machine = *shared;
    uint64_t low = 0, high = alone_bytes(&p) / MEMORY_STEP + 2, steps = UINT64_MAX;
    while (low <
           high) { /* the step before `low` does not fit; `high` does, or is more than enough */
        uint64_t middle = low + (high - low) / 2;
        p.devices[d].memory_bytes = own + middle * MEMORY_STEP;
        *shared = machine + middle * MEMORY_STEP;
        if (fits(&p))
            high = steps = middle;
        else
            low = middle + 1;
    }
    weft_problem_done(&p);
    return steps == high ? high * MEMORY_STEP : 0;
}

static void add_need(const struct weft_plan_request *rq, const struct weft_problem *p,
                     struct weft_str *out)
{
    char a[32], b[32], c[32];
    uint64_t kv = weft_kv_position_bytes(rq->model, rq->cost.kv) * rq->cost.context *
                  rq->cost.sessions * rq->model->n_layers;
    uint64_t whole = alone_bytes(p) - p->devices[0].stage_bytes, have = 0;
    for (uint32_t g = 0; g < p->n_groups; g++) {
        uint64_t sum = 0;
        for (uint32_t d = 0; d < p->n_devices; d++)
            sum += p->devices[d].group == g ? room_of(p, d) : 0;
        have += sum < p->group_memory_bytes[g] ? sum : p->group_memory_bytes[g];
    }
    weft_str_addf(out, "\n  needs %s of weights + %s of KV at context %" PRIu32,
                  weft_format_size(a, sizeof a, whole - kv), weft_format_size(b, sizeof b, kv),
                  rq->cost.context);
    if (rq->cost.sessions > 1)
        weft_str_addf(out, " for %" PRIu32 " sessions", rq->cost.sessions);
    weft_str_addf(out, "; the cluster has %s free", weft_format_size(c, sizeof c, have));
    weft_str_adds(out, "\n  closest:");
    for (uint32_t d = 0; d < p->n_devices && d < DEVICES_SHOWN; d++)
        if (rq->devices[d].unreachable)
            weft_str_addf(out, "%s %s unreachable", d > 0 ? "," : "", p->devices[d].name);
        else
            weft_str_addf(out, "%s %s %s of %s", d > 0 ? "," : "", p->devices[d].name,
                          weft_format_size(a, sizeof a, room_of(p, d)),
                          weft_format_size(b, sizeof b, alone_bytes(p)));
    if (p->n_devices > DEVICES_SHOWN)
        weft_str_addf(out, ", and %" PRIu32 " more", p->n_devices - DEVICES_SHOWN);
}

static void add_cures(const struct weft_plan_request *rq, const struct weft_problem *p,
                      struct weft_str *out)
{
    char a[32];
    uint32_t largest = 0;
    for (uint32_t d = 1; d < p->n_devices; d++)
        largest = room_of(p, d) > room_of(p, largest) ? d : largest;
    uint64_t extra = extra_bytes(rq, largest);
    uint32_t context = largest_context(rq);
    weft_str_adds(out, "\n  would fit with: ");
    if (extra > 0)
        weft_str_addf(out, "%s more memory on %s; or ", weft_format_size(a, sizeof a, extra),
                      p->devices[largest].name);
    if (context > 0)
        weft_str_addf(out, "-c %" PRIu32, context);
    else
        weft_str_adds(out, "a smaller model (no context is short enough)");
}

int weft_nofit(const struct weft_plan_request *rq, const struct weft_problem *p, const char *cause,
               weft_err *err)
{
    struct weft_str out = {0};
    weft_str_addf(&out, "%s does not fit", rq->model->name);
    if (cause != NULL)
        weft_str_addf(&out, " as pinned: %s", cause);
    add_need(rq, p, &out);
    if (cause == NULL)
        add_cures(rq, p, &out);
    int r = out.failed ? weft_fail(err, WEFT_ENOMEM, "text of a plan that does not fit")
                       : weft_fail(err, WEFT_ENOFIT, "%s", out.data);
    weft_str_done(&out);
    return r;
}
