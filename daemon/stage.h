/*
 * Stage: the mathematics of a run of layers on this device, with its KV cache and scratch.
 *
 * Reads top to bottom like the paper: embed → for each layer attention and FFN (daemon/layer.h) →
 * norm → head. Runs on the compute thread, one step at a time; everything is allocated at open.
 */
#ifndef WEFT_DAEMON_STAGE_H
#define WEFT_DAEMON_STAGE_H

#include "daemon/store.h"

#define WEFT_SESSIONS_MAX 64
#define WEFT_BATCH_ROWS_MAX 512

struct weft_stage_options {
    const struct weft_store *store; /* borrowed; holds all runs of the stage */
    struct wk_engine engine;
    uint32_t first_layer, n_layers;
    bool embed, head;
    uint32_t context;    /* positions per session */
    uint32_t sessions;   /* KV slots */
    uint32_t batch_rows; /* most rows of a step */
    enum wk_kv_type kv;
};

/* One run of rows of one session. */
struct weft_segment {
    uint32_t slot;     /* KV slot */
    uint32_t position; /* of the first row; must equal the slot's length */
    uint32_t rows;
    enum {
        WEFT_LOGITS_NONE,
        WEFT_LOGITS_LAST,
        WEFT_LOGITS_ALL
    } logits; /* rows the head computes */
};

struct weft_step {
    const struct weft_segment *segments;
    uint32_t n_segments, n_rows;
    const int32_t *tokens; /* [n_rows], stages with embed */
    const float *x;        /* [n_rows, dim], the others */
};

struct weft_stage;

/* KV and scratch bytes that open will allocate (without the shards; KV takes memory as positions
 * are used). Scratch is within weft_stage_scratch_bound of base/model.h, which the planner counts.
 */
uint64_t weft_stage_kv_bytes(const struct weft_model *m, const struct weft_stage_options *o);
uint64_t weft_stage_scratch_bytes(const struct weft_model *m, const struct weft_stage_options *o);

/* -WEFT_ELIMIT (context, sessions, batch_rows; 1 at least), -WEFT_ESHAPE (layers the model lacks),
 * -WEFT_ESTATE (names a tensor that the store lacks), -WEFT_ENOMEM. Options are copied; what they
 * name is borrowed until close. A model with any quantised matrix never uses OpenBLAS. */
int weft_stage_open(const struct weft_stage_options *o, struct weft_stage **ret,
                    weft_err *err) WEFT_MUST_USE;
void weft_stage_close(struct weft_stage *s); /* accepts NULL */

/* Computes a step of 1 to batch_rows rows; each slot at most once. On failure (-WEFT_EPOSITION,
 * -WEFT_ECONTEXT, -WEFT_ESHAPE, -WEFT_ESESSION for an unknown slot, -WEFT_EOVERFLOW naming layer
 * and half) no slot has grown. A token id outside the vocabulary is -WEFT_ESHAPE. */
int weft_stage_run(struct weft_stage *s, const struct weft_step *step, weft_err *err) WEFT_MUST_USE;
/* Of the last step, if it succeeded: [n_rows, dim]; NULL for stages with the head. Valid until the
 * next run. */
const float *weft_stage_output(const struct weft_stage *s);
/* Of the last step, if it succeeded: rows in order of the segments' wishes [n_logit_rows, vocab].
 * NULL and 0 where there are none. */
const float *weft_stage_logits(const struct weft_stage *s, uint32_t *ret_rows);

uint32_t weft_stage_length(const struct weft_stage *s, uint32_t slot);
/* Cuts a slot to `length` positions (at most what is there); at 0 its memory goes back to the
 * system. */
void weft_stage_trim(struct weft_stage *s, uint32_t slot, uint32_t length);

#endif
