/*
 * Scratch of a stage: a bound that planner and daemon share. Pure.
 *
 * Invariant: never less than what daemon/stage.c allocates for any run of layers on any machine
 * (weft_stage_open refuses, and tests/test_stage.c compares over many shapes). It counts a stage
 * with layers and head, whether it has them or not.
 */
#include "base/model.h"

/* What is not counted by the row: alignment of the buffers, and room for the kernels to grow. */
#define SLACK_BYTES (1u << 20)
/* Products of float matrices through OpenBLAS unpack a panel of at most 512 columns of 256 rows of
 * f32 for each thread, of which there are at most 64 (kernels/gemm_blas.c, kernels/pool.c). */
#define PANEL_COLS_MAX 512u
#define PANEL_COL_BYTES (256u * 4)
#define THREADS_MAX 64u

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint64_t weft_stage_scratch_bound(const struct weft_model *m, uint32_t batch_rows)
{
    const uint64_t q = (uint64_t)m->n_heads * m->head_dim,
                   kv = (uint64_t)m->n_kv_heads * m->head_dim;
    const uint64_t widest = max_u64(max_u64(m->dim, q), m->ffn_dim);

    uint64_t floats = 2 * (uint64_t)m->dim;                      /* residual, normed */
    floats += max_u64(2 * q + 2 * kv, 2 * (uint64_t)m->ffn_dim); /* q, k, v, heads or gate, up */
    floats += m->rope_dim;                                       /* cos, sin */
    floats += m->vocab;                                          /* logits */
    uint64_t row =
        floats * sizeof(float) + m->dim * sizeof(int64_t) + sizeof(int32_t); /* sum, position */
    row +=
        2 * widest + 64; /* 8-bit activations with the scales of their blocks: below 2 bytes each */

    uint64_t bytes = batch_rows * row + SLACK_BYTES;
    if (!weft_model_quantised(m))
        bytes +=
            THREADS_MAX * PANEL_COL_BYTES * (widest < PANEL_COLS_MAX ? widest : PANEL_COLS_MAX);
    return bytes;
}
