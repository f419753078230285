/*
 * The cost model: from a model, measured devices and measured links to a struct weft_problem.
 *
 * Decoding one token through a layer reads each of its weight bytes once: time is bytes / measured
 * bytes per second, or multiply-adds / measured speed, whichever is longer, plus KV read at half of
 * the asked context. Prefill of `n` rows is bounded by multiply-adds. Activations cross a link as
 * f32 [dim].
 */
#ifndef WEFT_PARTITIONER_COST_H
#define WEFT_PARTITIONER_COST_H

#include "base/model.h"
#include "partitioner/problem.h"

#define WEFT_TOKEN_BYTES 64 /* the frame that carries a token from the last stage to the first */

struct weft_device_facts {
    char name[64];
    uint64_t memory_free_bytes;  /* what weft may use here */
    uint64_t machine_free_bytes; /* free on the machine, shared by its daemons */
    uint64_t bytes_per_s;        /* weights streamed by one-row products, all threads */
    uint64_t flops_per_s;        /* many-row products; 2 per multiply-add */
    uint64_t stage_ns;           /* constant per stage and token */
    char boot_id[40];            /* equal: daemons of one machine */
    bool unreachable;            /* nothing is known of it and nothing placed there */
};

struct weft_link_facts {
    uint64_t latency_ns; /* one way, a small frame */
    uint64_t bytes_per_s;
    bool known; /* false: not measured or unreachable */
};

struct weft_cost_options {
    uint32_t context;  /* positions of a session */
    uint32_t sessions; /* sessions whose KV is held at once */
    enum weft_kv kv;
    uint32_t batch_rows;          /* rows of a prefill step */
    uint64_t stage_scratch_bytes; /* from the daemon's own formula, see ARCHITECTURE.md */
    enum weft_goal goal;
    int32_t pin_embed, pin_head; /* device index or -1 */
};

/* links is [n, n] from, to. Devices that cannot reach each other get WEFT_NO_LINK. */
int weft_cost_problem(const struct weft_model *m, const struct weft_device_facts *devices,
                      uint32_t n, const struct weft_link_facts *links,
                      const struct weft_cost_options *opt, struct weft_problem *ret,
                      weft_err *err) WEFT_MUST_USE;

/* Time of one prefill step of `rows` rows through item i on a device. */
uint64_t weft_cost_prefill_ns(const struct weft_model *m, const struct weft_device_facts *device,
                              uint32_t item, uint32_t rows, const struct weft_cost_options *opt);

/* One frame of so many bytes over a link; WEFT_NO_LINK when it is not known. */
uint64_t weft_cost_hop_ns(const struct weft_link_facts *link, uint64_t bytes);

#endif
