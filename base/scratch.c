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
/* A long context divided between threads: for each head 64 results of a block, each its values
 * (rounded up to a cache line) and a line for maximum and sum, and 16 states of at most a line
 * (kernels/attention.c). */
#define ATTENTION_PARTS 64u
#define ATTENTION_STATES 16u
#define LINE_BYTES 64u

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Whether a layer has a float matrix of this role. */
static bool any_float(const struct weft_model *m, enum weft_role role)
{
    for (uint32_t layer = 0; layer < m->n_layers; layer++) {
        const struct weft_tensor *t = weft_model_tensor(m, role, layer);
        const struct weft_tensor_type_info *info = weft_tensor_type_info(t->type);
        if (t->bytes > 0 && info != NULL && info->block_elems == 1)
            return true;
    }
    return false;
}

/* 8-bit activations with the scales and sums of their blocks: below 2 bytes each. */
static uint64_t q8_bytes(uint64_t cols)
{
    return 2 * cols + 64;
}

uint64_t weft_stage_scratch_bound(const struct weft_model *m, uint32_t batch_rows)
{
    const uint64_t q = (uint64_t)m->n_heads * m->head_dim,
                   kv = (uint64_t)m->n_kv_heads * m->head_dim, f32 = sizeof(float);
    const struct weft_traits *t = &m->traits;
    const uint64_t ffn = max_u64(m->ffn_dim, t->expert_ffn);
    const uint64_t widest = max_u64(max_u64(m->dim, q), ffn);

    uint64_t row = m->dim * f32 + sizeof(int32_t); /* residual, position */
    row += 2 * m->dim * f32;                       /* normed, what a half gives */
    const bool float_down = any_float(m, WEFT_ROLE_FFN_DOWN) ||
                            any_float(m, WEFT_ROLE_EXPERT_DOWN) ||
                            any_float(m, WEFT_ROLE_SHARED_DOWN);
    uint64_t second = float_down ? ffn * f32 : q8_bytes(ffn);
    if (t->n_experts > 0) /* sums, rows of an expert in both forms, logits, pairs, shared */
        second += m->dim * (8 + f32) + q8_bytes(m->dim) + (t->n_experts + 1) * f32 +
                  4 * f32 * t->n_experts_used;
    row += max_u64((2 * q + 2 * kv) * f32, second); /* q, k, v, heads or what down takes */
    row += 2 * m->rope_dim * f32;                   /* cos, sin, twice */
    row += m->vocab * f32;                          /* logits */
    if (weft_model_quantised(m))
        row += q8_bytes(max_u64(m->dim, q));
    else
        row += ffn * f32 + 64; /* the product with up through OpenBLAS, aligned */

    const uint64_t part = (m->head_dim * sizeof(float) + LINE_BYTES - 1) / LINE_BYTES + 1;
    const uint64_t attention =
        m->n_heads * (ATTENTION_PARTS * part + ATTENTION_STATES) * LINE_BYTES;

    uint64_t bytes = batch_rows * row + attention + SLACK_BYTES;
    if (!weft_model_quantised(m))
        bytes +=
            THREADS_MAX * PANEL_COL_BYTES * (widest < PANEL_COLS_MAX ? widest : PANEL_COLS_MAX);
    return bytes;
}
