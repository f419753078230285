/*
 * The kernels: all arithmetic of weft, behind one table of functions per instruction set.
 *
 * ref.c is the definition; every other table gives its bits. The rules (ARCHITECTURE.md, "One
 * answer"):
 *
 *   - the bits of a row depend on nothing but the row: not on rows beside it, threads, ISA;
 *   - a product of a matrix row accumulates in one order: quantised weights block by block (32
 *     columns), acc = fma((float)idot, dw * dx, acc), idot exact in int32, then the block's minimum
 *     (ref.c has the two forms); float weights column by column, acc = fma(w, x, acc); acc starts
 *     at +0;
 *   - only + - * / sqrt fma and conversions; exp, tanh, sin, cos, pow are ours (kernels/math.h);
 * reductions run in 16 virtual lanes (lane i takes elements i, i+16, …), merged 8, 4, 2, 1;
 *   - sums over shards are exact: each piece of columns has its own accumulator, is rounded to the
 *     nearest multiple of 2^-30 (ties to even) and added as int64;
 *   - no thread sets flush-to-zero; -ffp-contract=off; no fast-math.
 *
 * Depends on nothing else of weft. Functions run on the calling thread and its pool; nothing here
 * allocates except the _open functions.
 */
#ifndef WEFT_KERNELS_KERNELS_H
#define WEFT_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Weight types, numbered as in GGUF. */
enum wk_type {
    WK_F32 = 0,
    WK_F16 = 1,
    WK_Q4_0 = 2,
    WK_Q4_1 = 3,
    WK_Q5_0 = 6,
    WK_Q5_1 = 7,
    WK_Q8_0 = 8,
    WK_Q2_K = 10,
    WK_Q3_K = 11,
    WK_Q4_K = 12,
    WK_Q5_K = 13,
    WK_Q6_K = 14,
    WK_IQ4_NL = 20,
    WK_IQ4_XS = 23,
    WK_BF16 = 30,
    WK_TQ1_0 = 34,
    WK_TQ2_0 = 35,
    WK_TYPE_COUNT = 36
};

#define WK_TILE 16u     /* rows of a packed tile: one lane each */
#define WK_BLOCK 32u    /* columns of an activation block */
#define WK_KV_BLOCK 64u /* positions of a KV block */
#define WK_ALIGN 64u    /* alignment of every buffer handed to kernels */

struct wk_table; /* one instruction set; kernels/table.h */
struct wk_pool;  /* worker threads; kernels/pool.c */

/* GEMM for many rows of F32, F16 and BF16 weights. */
enum wk_gemm { WK_GEMM_WEFT, WK_GEMM_OPENBLAS };

/* What a caller computes with. Borrowed by every call; not changed by any. */
struct wk_engine {
    const struct wk_table *table;
    struct wk_pool *pool; /* NULL: the calling thread alone */
    enum wk_gemm gemm;
};

/* The best table of this machine, or the one named ("ref", "avx2", "avx512", "neon"); NULL when the
 * name is unknown or the CPU lacks it. `name` NULL: the environment's WEFT_ISA, then the best. */
const struct wk_table *wk_table_select(const char *name);
const char *wk_table_name(const struct wk_table *table);
/* Fills names with the tables this CPU can run, ref first; returns their number (at most n). */
size_t wk_table_list(const struct wk_table **ret, size_t n);

/* ------------------------------------------------------------------ pool (kernels/pool.c) */

/* n threads compute together: the caller and n - 1 workers, which sleep while nothing is to be done
 * (after a spin of 20 µs). Each is given as many items as it is fast, measured as it works. NULL
 * when threads cannot be made. n is clipped to [1, 64]. */
struct wk_pool *wk_pool_open(unsigned n);
/* The same with worker i, 1 to n - 1, on CPU cpus[i] and nowhere else. cpus[0] is for the caller,
 * who stays where it is: to go there, or at least out of the workers' way, is its own affair. NULL
 * also when a CPU does not exist or is none of this process's. */
struct wk_pool *wk_pool_open_pinned(const int *cpus, unsigned n);
void wk_pool_close(struct wk_pool *pool);             /* accepts NULL */
unsigned wk_pool_threads(const struct wk_pool *pool); /* 1 for NULL */
/* Runs fn(arg, i) for i in [0, n_items) on all threads and returns when all are done. One caller at
 * a time per pool. Which thread runs which item never changes a result. */
void wk_pool_run(struct wk_pool *pool, void (*fn)(void *arg, size_t item), void *arg,
                 size_t n_items);

/* ------------------------------------------------------------------ matrices */

/* A weight matrix [rows, cols], packed in tiles of WK_TILE rows (the last one padded with zeros).
 */
struct wk_matrix {
    enum wk_type type;
    uint32_t rows, cols;
    void *data; /* wk_matrix_bytes(), WK_ALIGN aligned, owned by whoever allocated it */
};

bool wk_type_supported(uint32_t type);
/* Whether products with it take 8-bit activations; others take f32. */
bool wk_type_quantised(enum wk_type type);
/* Bytes of the packed matrix; 0 for unsupported types or a cols that is no multiple of the block.
 */
size_t wk_matrix_bytes(enum wk_type type, uint32_t rows, uint32_t cols);
/* Packs rows [row, row + n) given in GGUF layout at src (unaligned) into m->data. row is a multiple
 * of WK_TILE; n is too unless the rows end the matrix (then the padding is written). */
void wk_matrix_pack(struct wk_matrix *m, uint32_t row, uint32_t n, const void *src);
/* Writes row `row` dequantised to out [cols]: the embedding look-up. */
void wk_matrix_row(const struct wk_matrix *m, uint32_t row, float *out);
/* The value of one element of GGUF-layout rows, by the format's description: the oracle of tests.
 */
void wk_dequantise(enum wk_type type, const void *src, uint32_t cols, float *out);

/* ------------------------------------------------------------------ activations */

/* Rows of activations, in the form the weights' type wants: f32 as given, or 8-bit blocks of
 * WK_BLOCK columns (scale amax/127 in f32, values rint(x * (127/amax)); a block with NaN or
 * infinity gets a NaN scale, so that the product is NaN and the step fails by name; one below
 * 2^-100 counts as zero). */
struct wk_act {
    uint32_t n, cols;
    const float *f32; /* [n, cols], borrowed; NULL: no float matrix will meet it */
    void *q8;         /* layout private to the kernels; wk_act_bytes() */
    bool quantised;   /* q8 is filled */
};

/* Bytes of the 8-bit form of n rows. */
size_t wk_act_bytes(uint32_t n, uint32_t cols);
/* Points act at x [n, cols] and, when any weight it will meet is quantised, fills q8 from it. */
void wk_act_set(const struct wk_engine *e, struct wk_act *act, const float *x, uint32_t n,
                uint32_t cols, void *q8_or_null);
/* Fills the forms that are not NULL with x [n, cols] normed as wk_rms_norm does it; f32 [n, cols]
 * may be x. One pass: without f32 no normed row reaches memory. */
void wk_act_norm(const struct wk_engine *e, struct wk_act *act, const float *x, const float *weight,
                 float eps, uint32_t n, uint32_t cols, float *f32_or_null, void *q8_or_null);

/* ------------------------------------------------------------------ products */

/* Scratch bytes wk_matmul, wk_matmul_many and wk_matmul_sum may need for n rows (all threads;
 * OpenBLAS panels). */
size_t wk_matmul_scratch(const struct wk_engine *e, enum wk_type type, uint32_t n, uint32_t rows,
                         uint32_t cols);

/* y[i, r] = sum over c of w[r, c] * x[i, c]; y is [n, rows] with row stride ldy. */
void wk_matmul(const struct wk_engine *e, const struct wk_matrix *w, const struct wk_act *x,
               float *y, size_t ldy, void *scratch);

/* Products of several matrices with the same activations, in one run of the pool. */
struct wk_product {
    const struct wk_matrix *w;
    float *y; /* [n, w->rows] with row stride ldy */
    size_t ldy;
};
#define WK_PRODUCTS_MAX 4u /* q, k and v, and one to spare */
void wk_matmul_many(const struct wk_engine *e, const struct wk_product *products, size_t n_products,
                    const struct wk_act *x, void *scratch);

/* A gated FFN's first half: activation(gate * x + gate_bias) * (up * x + up_bias). */
enum wk_activation {
    WK_SILU, /* x / (1 + exp(-x)) */
    WK_GELU, /* x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), arXiv:1606.08415 */
    WK_ACTIVATION_COUNT
};
struct wk_glu {
    const struct wk_matrix *gate, *up; /* of the same rows and columns */
    const float *gate_bias, *up_bias;  /* [rows], or NULL */
    enum wk_activation activation;
};
/* Fills the forms of act that are not NULL with it, [x->n, rows]: two products, biases, wk_glu and
 * wk_act_set in one run of the pool. f32 is what OpenBLAS needs to take part. */
void wk_act_glu(const struct wk_engine *e, struct wk_act *act, const struct wk_glu *g,
                const struct wk_act *x, float *f32_or_null, void *q8_or_null, void *scratch);
/* Scratch bytes of it; `type` is that of gate. */
size_t wk_glu_scratch(const struct wk_engine *e, enum wk_type type, uint32_t n, uint32_t rows,
                      uint32_t cols);

/* The product as an exact sum over pieces of `piece` columns (a multiple of WK_BLOCK unless it
 * covers all columns; the last piece may be shorter): sum[i, r] (int64, units of 2^-30, [n, rows])
 * is set to the sum of the rounded pieces. Returns false when a piece is not below 2^21 in
 * magnitude or NaN. */
bool wk_matmul_sum(const struct wk_engine *e, const struct wk_matrix *w, const struct wk_act *x,
                   uint32_t piece, int64_t *sum, void *scratch);

/* As wk_matmul_sum, but adds to sum [.., w->rows]: row i of the product goes to row row[i] (row
 * NULL: i). Every piece is multiplied by weight[i] in f32 (weight NULL: not) before it is rounded
 * to 2^-30 and held to the limit. Rows in `row` are distinct; those not named stay as they are. */
bool wk_matmul_sum_rows(const struct wk_engine *e, const struct wk_matrix *w,
                        const struct wk_act *x, uint32_t piece, const uint32_t *row,
                        const float *weight, int64_t *sum);

/* x[i] += (float)(sum[i] * 2^-30), n elements. False when a total is not below 2^23 in magnitude
 * (then some of x is added to and some is not). */
bool wk_sum_add(const struct wk_engine *e, const int64_t *sum, float *x, size_t n);

/* y[i] = (float)(sum[i] * 2^-30), n elements: what wk_sum_add would add. False when a total is not
 * below 2^23 in magnitude (then y is undefined). */
bool wk_sum_get(const struct wk_engine *e, const int64_t *sum, float *y, size_t n);

/* What made an exact sum fail; a piece that is too great or NaN goes before a total. */
enum wk_sum_fault { WK_SUM_OK, WK_SUM_PIECE, WK_SUM_TOTAL };
/* wk_matmul_sum and wk_sum_add to residual [n, rows] in one run, with the same bits; the sums never
 * reach memory. After a fault some of the residual is added to and some is not. */
enum wk_sum_fault wk_matmul_add(const struct wk_engine *e, const struct wk_matrix *w,
                                const struct wk_act *x, uint32_t piece, float *residual);

/* ------------------------------------------------------------------ the rest of a layer */

/* y[i, :] = x[i, :] / sqrt(mean(x²) + eps) * weight; [n, dim]; y may be x. */
void wk_rms_norm(const struct wk_engine *e, const float *x, const float *weight, float eps,
                 uint32_t n, uint32_t dim, float *y);

/* Rotary position embedding (RoPE, arXiv:2104.09864): the pairs of a head that turn together. */
enum wk_rope_style {
    WK_ROPE_PAIRS, /* (2i, 2i + 1) */
    WK_ROPE_HALVES /* (i, i + rope_dim / 2): GPT-NeoX */
};
/* How frequencies are changed for contexts longer than the model was first trained with. */
enum wk_rope_scaling {
    WK_ROPE_PLAIN,
    WK_ROPE_LINEAR, /* all are divided by factor: arXiv:2306.15595 */
    WK_ROPE_YARN    /* the slow ones are, the fast ones stay, a ramp between: arXiv:2309.00071 */
};
struct wk_rope_spec {
    uint32_t rope_dim;    /* even */
    float base;           /* > 1 */
    const float *factors; /* [rope_dim / 2], divide the frequencies; NULL: none (llama 3's
                             rope_freqs, longrope) */
    enum wk_rope_scaling scaling;
    float factor;                                 /* LINEAR, YARN: > 0 */
    float original_context, beta_fast, beta_slow; /* YARN: the ramp goes from the frequency that
                                 turns beta_fast times in original_context positions to the one
                                 that turns beta_slow times */
    float extrapolation; /* YARN: how much of the fast frequencies stays, normally 1 */
};
/* frequency [rope_dim / 2] = base^(-2i / rope_dim), divided and scaled, in f64. */
void wk_rope_frequencies(const struct wk_rope_spec *s, double *frequency);
/* YaRN's factor for cos and sin of contexts `factor` times as long: 1 + 0.1 ln(factor), 1 up to a
 * factor of 1. */
float wk_yarn_magnitude(float factor);
/* cos and sin [n, pairs] of position * frequency, times magnitude (YaRN's and longrope's attention
 * factor; 1: none). Computed in f64, rounded once. */
void wk_rope_angles(const int32_t *positions, uint32_t n, uint32_t pairs, const double *frequency,
                    float magnitude, float *cos_out, float *sin_out);
/* Rotates the pairs of the first rope_dim elements of each head: x [n, heads, head_dim], in place,
 * by angles [n, rope_dim / 2]. */
void wk_rope(const struct wk_engine *e, enum wk_rope_style style, float *x, uint32_t n,
             uint32_t heads, uint32_t head_dim, uint32_t rope_dim, const float *cos_in,
             const float *sin_in);

/* out = activation(gate) * up, n elements; out may be gate. */
void wk_glu(const struct wk_engine *e, enum wk_activation activation, const float *gate,
            const float *up, float *out, size_t n);
/* y[i, c] += bias[c]; y [n, cols] with row stride ldy. */
void wk_add_bias(const struct wk_engine *e, float *y, uint32_t n, uint32_t cols, size_t ldy,
                 const float *bias);
/* x *= by, n elements. */
void wk_scale(const struct wk_engine *e, float *x, size_t n, float by);
/* x += y * by, n elements: the product is rounded, then the sum, so that by == 1 is x += y. */
void wk_add_scaled(const struct wk_engine *e, float *x, const float *y, size_t n, float by);
/* Soft cap: x[i] = cap * tanh(x[i] / cap), cap > 0, n elements; NaN where x[i] is infinite. */
void wk_softcap(const struct wk_engine *e, float *x, size_t n, float cap);

/* ------------------------------------------------------------------ mixtures of experts */

/* The router's choice from its logits [n_experts]: the `used` greatest (ties: lower id; used at
 * most n_experts) into expert, in falling order, and their probabilities times scale into weight:
 * softmax over all logits, or over the chosen ones alone (renormalise, which brings the sum of
 * the softmax over all back to 1). False when there is no softmax: a logit is NaN or infinite. */
bool wk_route(const float *logits, uint32_t n_experts, uint32_t used, bool renormalise, float scale,
              uint32_t *expert, float *weight);
/* 1 / (1 + exp(-x)): the gate of a shared expert. */
float wk_sigmoid(float x);
/* Copies rows row[i] of x to rows i of ret, i < n, in the forms that x has and there is room for:
 * f32 [n, x->cols], q8 of wk_act_bytes(n, x->cols). */
void wk_act_gather(const struct wk_act *x, const uint32_t *row, uint32_t n, struct wk_act *ret,
                   float *f32_or_null, void *q8_or_null);

/* ------------------------------------------------------------------ functions of our own */

/* For the sampler and tests: exp within 1 ulp, tanh within 3, log (f64) within 2. */
float wk_exp(float x);
float wk_tanh(float x);
double wk_log(double x);

/* ------------------------------------------------------------------ attention over the KV cache */

enum wk_kv_type { WK_KV_F32, WK_KV_F16, WK_KV_Q8_0 };

/* The KV cache of one layer and one session: for each KV head, blocks of WK_KV_BLOCK positions; a
 * block holds K transposed [head_dim, 64], then V [64, head_dim], in the cache's type. Q8_0 is
 * signed bytes; K and V are each followed by f16 scales [runs, 64], one for each position and run
 * of WK_BLOCK columns of a head (the last run may be shorter), quantised as activations are. */
struct wk_kv {
    enum wk_kv_type type;
    uint32_t kv_heads, head_dim, capacity; /* capacity in positions, a multiple of WK_KV_BLOCK */
    void *data;                            /* wk_kv_bytes() */
};
size_t wk_kv_bytes(enum wk_kv_type type, uint32_t kv_heads, uint32_t head_dim, uint32_t capacity);
/* Stores k and v [n, kv_heads, head_dim] at positions [position, position + n). A number that the
 * type cannot hold (NaN, infinity, from 65520 on in F16, from 127 times that on in Q8_0) is stored
 * as NaN or infinity, in Q8_0 with its whole run. */
void wk_kv_put(const struct wk_engine *e, const struct wk_kv *kv, uint32_t position, uint32_t n,
               const float *k, const float *v);
/* Scratch bytes with which wk_attention divides a long context between threads; 0 with one. */
size_t wk_attention_scratch(const struct wk_engine *e, uint32_t heads, uint32_t head_dim);
/* How the scores of a layer's attention are made of q * k, and how far back it looks. */
struct wk_attention_spec {
    float scale; /* of the scores */
    float
        softcap; /* > 0: scores become softcap * tanh(score / softcap), after the scale; 0: none */
    uint32_t window; /* > 0: a query at p sees positions (p - window, p]; 0: all up to p */
};
/* out [n, heads, head_dim]: row i at position + i attends to those positions of the cache (already
 * put) that it sees: [0, position + i], or the last spec->window of them. heads / kv_heads query
 * heads per KV head. Every KV block gives (max, sum, weighted V) from its own maximum over the
 * positions seen; blocks merge in position order; what is not seen contributes nothing, whatever
 * the memory holds there, and blocks of which nothing is seen are not read. Scores and V sums run
 * over head_dim and positions in order; Q8_0 sums a score run by run, then multiplies by the scale,
 * and multiplies the weight of V by the scale first. A score that is NaN or infinite makes the
 * result NaN (but for -infinity without a soft cap, which has no weight). scratch is
 * wk_attention_scratch() bytes, or NULL: then a context is not divided. */
void wk_attention(const struct wk_engine *e, const struct wk_kv *kv, const float *q, uint32_t n,
                  uint32_t heads, uint32_t position, const struct wk_attention_spec *spec,
                  float *out, void *scratch);

#endif
