/*
 * Layer: one layer of the network for the rows of a step, as a resumable machine of two halves.
 *
 *     x += o · attention(rope(q, k), v)     of norm(x)
 *     x += down · (silu(gate) * up)         of norm(x)
 *
 * Invariant: the only point of suspension is the sum between members. A half leaves this member's
 * partial sums, exact integers (ARCHITECTURE.md, "One answer"), in buffers->sum and returns
 * WEFT_LAYER_SUM; what resumes the machine has made them the sums of all members. A member that is
 * alone adds its sums to the residual as it makes them, with the same bits, and never stops. Runs
 * on the compute thread; allocates nothing.
 */
#ifndef WEFT_DAEMON_LAYER_H
#define WEFT_DAEMON_LAYER_H

#include "daemon/store.h"

struct weft_segment; /* daemon/stage.h */

/* The tensors of a layer, borrowed from the store. */
struct weft_layer_weights {
    const float *attn_norm, *ffn_norm;        /* [dim] */
    const struct wk_matrix *q, *k, *v, *o;    /* o [dim, heads * head_dim] */
    const struct wk_matrix *gate, *up, *down; /* down [dim, ffn] */
};

/* Working memory of a step, used by one layer after another. q to heads and hidden may share
 * memory: the halves do not run at once. */
struct weft_layer_buffers {
    float *x;         /* [rows, dim] the residual: input and output of every layer */
    float *normed;    /* [rows, dim]; NULL: no float matrix wants it */
    float *q, *k, *v; /* [rows, heads, head_dim], twice [rows, kv_heads, head_dim] */
    float *heads;     /* [rows, heads, head_dim]: what the heads saw */
    void *hidden;     /* [rows, ffn] in f32 or, where down is quantised, in 8 bits */
    float *cos, *sin; /* [rows, rope_dim / 2]: angles of the rows' positions, for all layers */
    void *q8;         /* 8-bit activations of dim or of heads; NULL: no matrix is quantised */
    int64_t *sum;     /* [rows, dim] in units of 2^-30; NULL: the member is alone */
    void *matmul;     /* scratch of the products */
    void *attention;  /* scratch of attention; NULL with one thread */
};

enum weft_layer_point { WEFT_LAYER_ATTENTION, WEFT_LAYER_ATTENTION_SUM, WEFT_LAYER_FFN_SUM };
#define WEFT_LAYER_SUM 1 /* weft_layer_resume: suspended, sum has this member's part */

/* A layer under way. All but `next` is filled in by the owner and borrowed until the last resume.
 */
struct weft_layer {
    enum weft_layer_point next; /* 0 to begin */
    const struct weft_model *model;
    const struct wk_engine *engine;
    const struct weft_layer_weights *weights;
    const struct weft_layer_buffers *buffers;
    const struct wk_kv *kv;              /* this layer's cache of every slot */
    const struct weft_segment *segments; /* valid: weft_stage_run checks them */
    uint32_t n_segments, n_rows;
    uint32_t number; /* in the model, for errors */
    bool alone;      /* the stage has no other member */
};

/* Finds the tensors of a layer; -WEFT_ESTATE names the first one that the store lacks. */
int weft_layer_find(const struct weft_store *s, uint32_t number, struct weft_layer_weights *ret,
                    weft_err *err) WEFT_MUST_USE;

/* Runs to the next sum (WEFT_LAYER_SUM; never when alone) or to the end of the layer (0).
 * -WEFT_EOVERFLOW names layer and half; the step is lost then. */
int weft_layer_resume(struct weft_layer *l, weft_err *err) WEFT_MUST_USE;

/* Columns of the finest piece of o: the shortest run of query heads that ends on a multiple of
 * WK_BLOCK columns; all columns when none does before the end. */
uint32_t weft_layer_o_piece(const struct weft_model *m);

#endif
