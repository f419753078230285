/*
 * Layer: one layer of the network for the rows of a step, as a resumable machine of two halves.
 *
 *     x += o · attention(rope(q, k), v)     of norm(x)
 *     x += down · (silu(gate) * up)         of norm(x), or the same for the experts of each row
 *
 * What an architecture adds to this or leaves out stands in its description (base/arch.h) and in
 * the model's traits: biases, norms of q and k, norms behind the halves, windows, factors.
 *
 * Invariant: the only point of suspension is the sum between members. A half leaves this member's
 * partial sums, exact integers (ARCHITECTURE.md, "One answer"), in buffers->sum and returns
 * WEFT_LAYER_SUM; what resumes the machine has made them the sums of all members. A member that is
 * alone adds its sums to the residual as it makes them, with the same bits, and never stops. Runs
 * on the compute thread; allocates nothing.
 */
#ifndef WEFT_DAEMON_LAYER_H
#define WEFT_DAEMON_LAYER_H

#include "base/arch.h"
#include "daemon/store.h"

struct weft_segment; /* daemon/stage.h */

/* The tensors of a layer, borrowed from the store; NULL: the model has none of the kind. */
struct weft_layer_weights {
    const float *attn_norm, *ffn_norm;           /* [dim] */
    const float *attn_post_norm, *ffn_post_norm; /* [dim] */
    const float *q_norm, *k_norm;                /* [head_dim], or as long as q and k */
    const float *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias;
    const struct wk_matrix *q, *k, *v, *o;    /* o [dim, heads * head_dim] */
    const struct wk_matrix *gate, *up, *down; /* of the FFN or the shared expert, [dim, ffn] */
    const struct wk_matrix *router, *shared_router; /* [experts, dim], [1, dim] */
};

/* What a mixture of experts works in. Pairs are (row, expert it chose). */
struct weft_expert_buffers {
    float *logits;      /* [rows, experts] */
    uint32_t *chosen;   /* [rows, used] */
    float *weight;      /* [rows, used] */
    uint32_t *first;    /* [experts + 1]: an expert's pairs in the lists that follow */
    uint32_t *pair_row; /* [rows * used] */
    float *pair_weight; /* [rows * used] */
    float *x;           /* [rows, dim] of the rows of one expert; NULL: none is float */
    void *q8;           /* the same in 8 bits; NULL: none is quantised */
    float *shared;      /* [rows]: weight of the shared expert */
};

/* Angles of the rows' positions, [rows, rope_dim / 2] each. */
struct weft_angles {
    float *cos, *sin;
};

/* Working memory of a step, used by one layer after another. q to heads and hidden may share
 * memory: the halves do not run at once. */
struct weft_layer_buffers {
    float *x;         /* [rows, dim] the residual: input and output of every layer */
    float *normed;    /* [rows, dim]; NULL: no float matrix wants it */
    float *half;      /* [rows, dim] what a half gives; NULL: it goes to the residual as it is */
    float *q, *k, *v; /* [rows, heads, head_dim], twice [rows, kv_heads, head_dim] */
    float *heads;     /* [rows, heads, head_dim]: what the heads saw */
    void *hidden;     /* [rows, ffn] in f32 or, where down is quantised, in 8 bits */
    struct weft_angles angles[2]; /* of most layers; of windowed ones with a base of their own */
    void *q8;     /* 8-bit activations of dim or of heads; NULL: no matrix is quantised */
    int64_t *sum; /* [rows, dim] in units of 2^-30; NULL: the member is alone, without experts */
    struct weft_expert_buffers experts;
    void *matmul;    /* scratch of the products */
    void *attention; /* scratch of attention; NULL with one thread */
};

enum weft_layer_point { WEFT_LAYER_ATTENTION, WEFT_LAYER_ATTENTION_SUM, WEFT_LAYER_FFN_SUM };
#define WEFT_LAYER_SUM 1 /* weft_layer_resume: suspended, sum has this member's part */

/* A layer under way. All but `next` is filled in by the owner and borrowed until the last resume.
 */
struct weft_layer {
    enum weft_layer_point next; /* 0 to begin */
    const struct weft_model *model;
    const struct weft_arch *arch;
    const struct wk_engine *engine;
    const struct weft_store *store; /* of the experts' matrices */
    const struct weft_layer_weights *weights;
    const struct weft_layer_buffers *buffers;
    const struct wk_kv *kv;              /* this layer's cache of every slot */
    const struct weft_segment *segments; /* valid: weft_stage_run checks them */
    uint32_t n_segments, n_rows;
    uint32_t number; /* in the model */
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

/* Whether what a half gives goes to the residual as it is: no bias, norm or factor behind the sum.
 */
bool weft_layer_direct(const struct weft_model *m);

#endif
