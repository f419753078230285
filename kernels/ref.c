/*
 * The definition: every inner loop in plain C, one lane after another. Other instruction sets give
 * exactly these bits; where they seem to differ, this file is right. Any thread, no state.
 */
#include "kernels/f16.h"
#include "kernels/math.h"
#include "kernels/table.h"

#include <string.h>

/* ------------------------------------------------------------------ activations */

/* The maximum is taken over the bits of |x|, which order like the numbers and put NaN on top. A
 * block below 2^-100 counts as zero: 127 / amax could overflow, and no sum (units of 2^-30) would
 * see it. */
static void quantise(const float *x, size_t n_blocks, struct wk_q8 *out)
{
    for (size_t b = 0; b < n_blocks; b++, x += WK_BLOCK, out++) {
        uint32_t top = 0;
        for (unsigned i = 0; i < WK_BLOCK; i++) {
            uint32_t u = wk_bits(x[i]) & 0x7fffffffu;
            top = u > top ? u : top;
        }
        float amax = wk_from_bits(top);
        memset(out, 0, sizeof *out);
        if (top >= 0x7f800000u)
            out->scale = NAN;
        if (top >= 0x7f800000u || amax < 0x1p-100f)
            continue;
        float inverse = 127.0f / amax;
        out->scale = amax / 127.0f;
        for (unsigned i = 0; i < WK_BLOCK; i++) {
            /* adding 1.5 * 2^23 rounds to nearest even */
            int q = (int)(x[i] * inverse + 0x1.8p23f - 0x1.8p23f);
            out->q[i] = (int8_t)q;
            out->sum[i / 16] = (int16_t)(out->sum[i / 16] + q);
        }
    }
}

/* ------------------------------------------------------------------ products */

static void dot_f32(const struct wk_dot *d, float *out)
{
    for (uint32_t t = 0; t < d->tiles; t++) {
        for (uint32_t i = 0; i < d->n; i++, out += WK_TILE) {
            const float *x = d->f32 + i * d->ldx + d->col;
            const uint8_t *w = d->w + t * d->tile_bytes + (size_t)d->col * WK_TILE * sizeof(float);
            memset(out, 0, WK_TILE * sizeof *out);
            for (uint32_t c = 0; c < d->cols; c++, w += WK_TILE * sizeof(float))
                for (unsigned r = 0; r < WK_TILE; r++) {
                    float v;
                    memcpy(&v, w + r * sizeof v, sizeof v);
                    out[r] = fmaf(v, x[c], out[r]);
                }
        }
    }
}

static void dot_f16(const struct wk_dot *d, float *out)
{
    for (uint32_t t = 0; t < d->tiles; t++) {
        for (uint32_t i = 0; i < d->n; i++, out += WK_TILE) {
            const float *x = d->f32 + i * d->ldx + d->col;
            const uint8_t *w = d->w + t * d->tile_bytes + (size_t)d->col * WK_TILE * 2;
            memset(out, 0, WK_TILE * sizeof *out);
            for (uint32_t c = 0; c < d->cols; c++, w += (size_t)WK_TILE * 2)
                for (unsigned r = 0; r < WK_TILE; r++)
                    out[r] = fmaf(wk_f16_to_f32(wk_load_u16(w + (size_t)r * 2)), x[c], out[r]);
        }
    }
}

/* acc = fma((float)idot, dw * dx, acc) for 32 columns of row r. */
static void add_block(float *acc, int32_t idot, const uint8_t *scales, unsigned r, float dx)
{
    *acc = fmaf((float)idot, wk_f16_to_f32(wk_load_u16(scales + (size_t)r * 2)) * dx, *acc);
}

static void dot_q8_0(const struct wk_dot *d, float *out)
{
    for (uint32_t t = 0; t < d->tiles; t++) {
        for (uint32_t i = 0; i < d->n; i++, out += WK_TILE) {
            const struct wk_q8 *x = d->q8 + i * d->ldx + d->col / WK_BLOCK;
            const uint8_t *w =
                d->w + t * d->tile_bytes + (size_t)(d->col / WK_BLOCK) * WK_Q8_0_BYTES;
            memset(out, 0, WK_TILE * sizeof *out);
            for (uint32_t c = 0; c < d->cols; c += WK_BLOCK, x++, w += WK_Q8_0_BYTES)
                for (unsigned r = 0; r < WK_TILE; r++) {
                    int32_t idot = 0;
                    for (unsigned j = 0; j < WK_BLOCK; j++)
                        idot += (int8_t)w[WK_SCALES + j / 4 * 64 + r * 4 + j % 4] * x->q[j];
                    add_block(&out[r], idot, w, r, x->scale);
                }
        }
    }
}

static void dot_q4_0(const struct wk_dot *d, float *out)
{
    for (uint32_t t = 0; t < d->tiles; t++) {
        for (uint32_t i = 0; i < d->n; i++, out += WK_TILE) {
            const struct wk_q8 *x = d->q8 + i * d->ldx + d->col / WK_BLOCK;
            const uint8_t *w =
                d->w + t * d->tile_bytes + (size_t)(d->col / WK_BLOCK) * WK_Q4_0_BYTES;
            memset(out, 0, WK_TILE * sizeof *out);
            for (uint32_t c = 0; c < d->cols; c += WK_BLOCK, x++, w += WK_Q4_0_BYTES)
                for (unsigned r = 0; r < WK_TILE; r++) {
                    int32_t idot = 0;
                    for (unsigned j = 0; j < 16; j++) {
                        int byte = w[WK_SCALES + j / 4 * 64 + r * 4 + j % 4];
                        idot += ((byte & 15) - 8) * x->q[j] + ((byte >> 4) - 8) * x->q[16 + j];
                    }
                    add_block(&out[r], idot, w, r, x->scale);
                }
        }
    }
}

/* The dot of 16 columns (half 0 or 1 of 32 at `sub`) of row r with their 6-bit weights. */
static int32_t dot_q6_k_half(const uint8_t *sub, unsigned r, unsigned half, const int8_t *x)
{
    int32_t sum = 0;
    for (unsigned j = 0; j < 16; j++) {
        unsigned group = j / 4, at = r * 4 + j % 4;
        int low = sub[group * 64 + at] >> (4 * half) & 15;
        int high = sub[256 + group / 2 * 64 + at] >> (group % 2 * 4 + half * 2) & 3;
        sum += ((low | high << 4) - 32) * x[j];
    }
    return sum;
}

static void dot_q6_k(const struct wk_dot *d, float *out)
{
    for (uint32_t t = 0; t < d->tiles; t++) {
        for (uint32_t i = 0; i < d->n; i++, out += WK_TILE) {
            const struct wk_q8 *x = d->q8 + i * d->ldx + d->col / WK_BLOCK;
            memset(out, 0, WK_TILE * sizeof *out);
            for (uint32_t c = d->col; c < d->col + d->cols; c += WK_BLOCK, x++) {
                const uint8_t *w =
                    d->w + t * d->tile_bytes + (size_t)(c / WK_Q6_K_COLS) * WK_Q6_K_BYTES;
                unsigned s = c % WK_Q6_K_COLS / WK_BLOCK;
                const uint8_t *sub = w + WK_Q6_K_QUANTS + (size_t)s * WK_Q6_K_SUB;
                const int8_t *scale = (const int8_t *)w + WK_SCALES + (size_t)s * 2 * WK_TILE;
                for (unsigned r = 0; r < WK_TILE; r++)
                    add_block(&out[r],
                              scale[r] * dot_q6_k_half(sub, r, 0, x->q) +
                                  scale[WK_TILE + r] * dot_q6_k_half(sub, r, 1, x->q + 16),
                              w, r, x->scale);
            }
        }
    }
}

/* In f64 x * 2^30 is exact; below 2^51 adding 1.5 * 2^52 rounds it to nearest even in the low bits.
 */
static bool sum_pieces(const float *x, int64_t *sum, size_t n)
{
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        uint64_t u = wk_bits64((double)x[i] * 0x1p30 + WK_MAGIC64) - wk_bits64(WK_MAGIC64);
        ok = ok && fabsf(x[i]) < 0x1p21f;
        sum[i] = (int64_t)((uint64_t)sum[i] + u);
    }
    return ok;
}

/* ------------------------------------------------------------------ element by element */

/* Adds the 16 lanes: 8, 4, 2, 1. */
static float merge_lanes(float *lane)
{
    for (unsigned half = WK_TILE / 2; half > 0; half /= 2)
        for (unsigned i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

static float square(const float *x, size_t n)
{
    float lane[WK_TILE] = {0};
    for (size_t i = 0; i < n; i++)
        lane[i % WK_TILE] = fmaf(x[i], x[i], lane[i % WK_TILE]);
    return merge_lanes(lane);
}

static void scale(const float *x, float by, const float *weight, float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * by * weight[i];
}

static void swiglu(const float *gate, const float *up, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = gate[i] / (1.0f + wk_exp_f32(-gate[i])) * up[i];
}

static void narrow(const float *x, uint16_t *f16, size_t n)
{
    for (size_t i = 0; i < n; i++)
        f16[i] = wk_f32_to_f16(x[i]);
}

static void widen(const uint16_t *f16, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = wk_f16_to_f32(f16[i]);
}

/* ------------------------------------------------------------------ attention */

static float kv_at(enum wk_kv_type type, const void *data, size_t i)
{
    return type == WK_KV_F32 ? ((const float *)data)[i]
                             : wk_f16_to_f32(((const uint16_t *)data)[i]);
}

/* Probabilities of the 64 positions (0 where not valid) into p; their maximum and sum. */
static void softmax_block(const struct wk_attend *a, const struct wk_query *q, float *p, float *max,
                          float *sum)
{
    float lane[WK_TILE];
    for (unsigned i = 0; i < WK_TILE; i++)
        lane[i] = -INFINITY;
    for (unsigned i = 0; i < WK_KV_BLOCK; i++) {
        float s = 0;
        for (uint32_t c = 0; c < a->head_dim && i < q->valid; c++)
            s = fmaf(kv_at(a->type, a->k, (size_t)c * WK_KV_BLOCK + i), q->q[c], s);
        p[i] = i < q->valid ? s * a->scale : -INFINITY;
        lane[i % WK_TILE] = p[i] > lane[i % WK_TILE] ? p[i] : lane[i % WK_TILE];
    }
    for (unsigned half = WK_TILE / 2; half > 0; half /= 2)
        for (unsigned i = 0; i < half; i++)
            lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
    *max = lane[0];
    memset(lane, 0, sizeof lane);
    for (unsigned i = 0; i < WK_KV_BLOCK; i++) {
        p[i] = i < q->valid ? wk_exp_f32(p[i] - *max) : 0.0f;
        lane[i % WK_TILE] += p[i];
    }
    *sum = merge_lanes(lane);
}

static void attend(struct wk_attend *a)
{
    for (uint32_t i = 0; i < a->n; i++) {
        struct wk_query *q = &a->query[i];
        float p[WK_KV_BLOCK], max, sum, old = 0, new = 1;
        softmax_block(a, q, p, &max, &sum);
        if (q->begun) { /* both sides to the greater maximum */
            float top = max > q->max ? max : q->max;
            old = wk_exp_f32(q->max - top);
            new = wk_exp_f32(max - top);
            max = top;
            sum = fmaf(sum, new, q->sum * old);
        }
        for (uint32_t c = 0; c < a->head_dim; c++) {
            float v = 0;
            for (uint32_t j = 0; j < q->valid; j++)
                v = fmaf(p[j], kv_at(a->type, a->v, (size_t)j * a->head_dim + c), v);
            q->out[c] = q->begun ? fmaf(v, new, q->out[c] * old) : v;
        }
        q->max = max;
        q->sum = sum;
        q->begun = true;
    }
}

void wk_fill_ref(struct wk_table *table)
{
    *table = (struct wk_table){
        .name = "ref",
        .blas_rows = 8,
        .dot = {[WK_F32] = dot_f32,
                [WK_F16] = dot_f16,
                [WK_Q4_0] = dot_q4_0,
                [WK_Q8_0] = dot_q8_0,
                [WK_Q6_K] = dot_q6_k},
        .quantise = quantise,
        .sum_pieces = sum_pieces,
        .square = square,
        .scale = scale,
        .swiglu = swiglu,
        .narrow = narrow,
        .widen = widen,
        .attend = attend,
    };
}
