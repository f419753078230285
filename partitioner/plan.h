/*
 * A plan as people read it and daemons run it: stages of members in ring order, with memory and
 * predicted speed, and its text and JSON forms.
 */
#ifndef WEFT_PARTITIONER_PLAN_H
#define WEFT_PARTITIONER_PLAN_H

#include "base/text.h"
#include "partitioner/cost.h"
#include "partitioner/solve.h"

#define WEFT_PLAN_STAGES_MAX 256

struct weft_plan_stage {
    uint32_t device;                /* index in the facts */
    uint32_t first_layer, n_layers; /* may be empty: embedding or head alone */
    bool embed, head;
    uint64_t weight_bytes, kv_bytes, scratch_bytes;
    uint64_t decode_ns;         /* compute of one token */
    uint64_t hop_ns, hop_bytes; /* to the next stage (last: the token back to the first) */
};

struct weft_plan_single { /* one device alone, for comparison */
    uint32_t device;
    bool fits;
    uint64_t latency_ns;
};

struct weft_plan {
    struct weft_plan_stage *stages; /* [n_stages] */
    uint32_t n_stages, n_devices;
    bool pinned; /* by the person, not chosen */
    bool proved_optimal;
    bool predicted; /* false: devices were not measured, no speeds */
    uint64_t latency_ns, bottleneck_ns, prefill_ns; /* prefill of `prefill_rows` rows */
    uint32_t prefill_rows;
    struct weft_plan_single *singles; /* [n_devices] */
    int32_t single_better;            /* device that alone would be faster by the goal, -1: none */
};

/* A stage as pinned in the cluster file or a plan file. */
struct weft_pinned_stage {
    uint32_t device;
    uint32_t first_layer, n_layers;
};

struct weft_plan_request {
    const struct weft_model *model;
    const struct weft_device_facts *devices; /* [n_devices] */
    const struct weft_link_facts *links;     /* [n_devices, n_devices] */
    uint32_t n_devices;
    struct weft_cost_options cost;
    const struct weft_pinned_stage *pinned; /* [n_pinned]; 0: the planner chooses. Embedding goes to
                                               the first stage's device, the head to the last's,
                                               unless cost.pin_embed / pin_head say otherwise */
    uint32_t n_pinned;
};

/* Makes the plan: pinned as asked, else the solver's; -WEFT_ENOFIT with a text of several lines
 * that says what is needed, what there is, which device lacks how much, and what would fit (the
 * largest context for this model, more memory). -WEFT_ECONFIG for pins that are no partition of the
 * layers, -WEFT_EUNREACHABLE for pinned stages without a link between them. */
int weft_plan_make(const struct weft_plan_request *rq, struct weft_plan *ret,
                   weft_err *err) WEFT_MUST_USE;
void weft_plan_done(struct weft_plan *p); /* accepts zeroed */

/* The table of `weft plan` (design 8), at most 100 columns; colour only when asked. */
void weft_plan_text(const struct weft_plan_request *rq, const struct weft_plan *p, bool colour,
                    struct weft_str *out);
void weft_plan_json(const struct weft_plan_request *rq, const struct weft_plan *p,
                    struct weft_str *out);

#endif
