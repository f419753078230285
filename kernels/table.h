/*
 * One instruction set: the inner loops that differ between processors. Private to kernels/.
 *
 * A table starts as ref (ref.c, the definition) and is overwritten slot by slot by the files of the
 * processor's instruction sets. Whatever stands in a slot, the bits it computes are those of ref.
 */
#ifndef WEFT_KERNELS_TABLE_H
#define WEFT_KERNELS_TABLE_H

#include "kernels/kernels.h"

/* An 8-bit block of activations: x[c] ~ scale * q[c], |q[c]| <= 127. The sums of the first and
 * second 16 values cancel the offsets of codes and meet the minima of weights. */
struct wk_q8 {
    float scale;
    float scaled_sum; /* scale * (float)(sum[0] + sum[1]) */
    int32_t neg_sum;  /* -(sum[0] + sum[1]) */
    int16_t sum[2];
    int8_t q[WK_BLOCK];
};

enum {
    WK_GROUP = 4, /* tiles a dot takes at once: enough chains of fma to hide their latency */
    WK_ROWS = 32, /* rows of activations a dot takes at once: its results stay on the stack */
};

/* n rows of activations times columns [col, col + cols) of neighbouring tiles. */
struct wk_dot {
    const uint8_t *w; /* the first tile from its column 0 */
    size_t tile_bytes;
    const float *f32;       /* [n, ldx] of float weights */
    const struct wk_q8 *q8; /* [n, ldx] of quantised weights; ldx counts blocks */
    size_t ldx;
    uint32_t tiles, n;  /* 1 to WK_GROUP, 1 to WK_ROWS */
    uint32_t col, cols; /* multiples of WK_BLOCK for quantised weights */
    /* With sum, an exact sum over pieces of `piece` columns counted from `col` (piece > 0, a
     * multiple of WK_BLOCK for quantised weights): sum [tiles, n, WK_TILE] is set, in units of
     * 2^-30. */
    uint32_t piece;
    int64_t *sum;
    const float *weight; /* [n], by which pieces are multiplied before they are rounded; or NULL */
    bool cold; /* the tiles come from memory, the next ones after them: worth a prefetch */
};

/* A query on its way through the KV blocks of its KV head. */
struct wk_query {
    const float *q;      /* [head_dim] */
    float *out;          /* [head_dim]: the weighted V so far */
    uint32_t first, end; /* positions of the block it sees: first < end <= 64 */
    bool begun;          /* max, sum and out hold earlier blocks */
    float max, sum;
};

/* One KV block and queries of its KV head, which all read it while it is in a cache. */
struct wk_attend {
    enum wk_kv_type type;
    uint32_t head_dim;
    const void *k, *v;                   /* [head_dim, 64], [64, head_dim] */
    const uint16_t *k_scales, *v_scales; /* Q8_0: f16 [runs of WK_BLOCK columns, 64], else NULL */
    float scale, softcap;                /* struct wk_attention_spec */
    uint32_t n;                          /* queries */
    struct wk_query *query;
};

struct wk_table {
    const char *name;
    /* Products with accumulators from +0; out [tiles, n, WK_TILE], not used with d->sum. False when
     * a piece is not below 2^21 in magnitude. */
    bool (*dot[WK_TYPE_COUNT])(const struct wk_dot *d, float *out);
    /* Blocks of WK_BLOCK activations to 8 bits. */
    void (*quantise)(const float *x, size_t n_blocks, struct wk_q8 *out);
    /* x[i] += (float)(sum[i] * 2^-30); false when a |sum[i]| is not below 2^53, from where on x is
     * left. */
    bool (*sum_add)(const int64_t *sum, float *x, size_t n);
    /* Sum of squares in 16 virtual lanes. */
    float (*square)(const float *x, size_t n);
    /* y[i] = (x[i] * scale) * weight[i]; y may be x. */
    void (*scale)(const float *x, float scale, const float *weight, float *y, size_t n);
    /* out[i] = activation(gate[i]) * up[i]; out may be gate. */
    void (*glu[WK_ACTIVATION_COUNT])(const float *gate, const float *up, float *out, size_t n);
    /* x[i] = cap * tanh(x[i] * by / cap), cap > 0; NaN where x[i] * by is infinite. */
    void (*softcap)(float *x, float by, float cap, size_t n);
    void (*narrow)(const float *x, uint16_t *f16, size_t n);
    void (*widen)(const uint16_t *f16, float *x, size_t n);
    /* Adds a KV block to every query's max, sum and out. */
    void (*attend)(struct wk_attend *a);
    /* Adds the max, sum and out of a block that stood alone to those of q, as attend would have. */
    void (*merge)(struct wk_query *q, const struct wk_query *block, uint32_t head_dim);
    /* Rows of activations from which OpenBLAS measures faster than these loops (gemm_blas.c); 0:
     * with no number. */
    uint32_t blas_rows;
};

/* The files that fill tables. */
void wk_fill_ref(struct wk_table *table);
void wk_fill_avx2(struct wk_table *table);
void wk_fill_avx512(struct wk_table *table);
void wk_fill_avx512vnni(struct wk_table *table);
void wk_fill_neon(struct wk_table *table);
void wk_fill_dotprod(struct wk_table *table);
void wk_fill_i8mm(struct wk_table *table);

/* The instruction sets of the architecture this is built for, worst first (cpu_*.c); each table
 * starts as the one before. Ends with a NULL name. */
struct wk_isa {
    const char *name;
    bool (*usable)(void);
    void (*fill)(struct wk_table *table);
};
extern const struct wk_isa wk_isas[];
/* A hint to the processor that the thread spins. */
void wk_cpu_relax(void);

/* Bytes of a packed tile of `cols` columns (cols checked by wk_matrix_bytes). */
size_t wk_tile_bytes(enum wk_type type, uint32_t cols);

/* Floating weights of w through OpenBLAS (gemm_blas.c): whether it would be faster, scratch bytes,
 * and the product as wk_matmul has it. */
bool wk_blas_wants(const struct wk_engine *e, enum wk_type type, uint32_t n);
size_t wk_blas_scratch(const struct wk_engine *e, uint32_t cols);
void wk_blas_matmul(const struct wk_engine *e, const struct wk_matrix *w, const struct wk_act *x,
                    float *y, size_t ldy, void *scratch);

#endif
