/*
 * The definition: every inner loop in plain C, one lane after another. Other instruction sets give
 * exactly these bits; where they seem to differ, this file is right. Any thread, no state.
 */
#include "kernels/f16.h"
#include "kernels/formats.h"
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
            out->scale = out->scaled_sum = NAN;
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
        out->neg_sum = -(out->sum[0] + out->sum[1]);
        out->scaled_sum = out->scale * (float)(out->sum[0] + out->sum[1]);
    }
}

/* ------------------------------------------------------------------ products */

/* Column c of lane r of a tile. */
static float weight(enum wk_type type, const uint8_t *tile, uint32_t c, unsigned r)
{
    size_t at = (size_t)c * WK_TILE + r;
    float v;
    if (type == WK_F16)
        return wk_f16_to_f32(wk_load_u16(tile + at * 2));
    if (type == WK_BF16)
        return wk_from_bits((uint32_t)wk_load_u16(tile + at * 2) << 16);
    memcpy(&v, tile + at * sizeof v, sizeof v);
    return v;
}

static void dot_float(const struct wk_dot *d, enum wk_type type, float *out)
{
    for (uint32_t t = 0; t < d->tiles; t++)
        for (uint32_t i = 0; i < d->n; i++)
            for (unsigned r = 0; r < WK_TILE; r++) {
                float acc = 0;
                for (uint32_t c = d->col; c < d->col + d->cols; c++)
                    acc = fmaf(weight(type, d->w + t * d->tile_bytes, c, r), d->f32[i * d->ldx + c],
                               acc);
                *out++ = acc;
            }
}

/* What 32 columns of a row of weights add. All integers are exact in int32; d * sc and m * mn are
 * exact in f32 (11 and 8 bits). */
static float add_block(enum wk_type type, const struct wk_sub *w, const struct wk_q8 *x, float acc)
{
    int32_t half[2] = {0, 0};
    float d = wk_f16_to_f32(w->d), m = wk_f16_to_f32(w->m);
    for (unsigned j = 0; j < WK_BLOCK; j++)
        half[j / 16] += wk_code_value(type, w->code[j]) * x->q[j];
    if (wk_half_scales(type)) /* the scales of 16 columns are applied to integers, */
        acc = fmaf((float)(w->sc[0] * half[0] + w->sc[1] * half[1]), d * x->scale, acc);
    else /* those of 32 to the block's scale */
        acc = fmaf((float)(half[0] + half[1]), d * (float)w->sc[0] * x->scale, acc);
    if (type == WK_Q2_K)
        acc = fmaf((float)(w->mn[0] * x->sum[0] + w->mn[1] * x->sum[1]), -m * x->scale, acc);
    else if (wk_has_min(type))
        acc = fmaf(m * (float)-w->mn[0], x->scaled_sum, acc);
    return acc;
}

static void dot_quantised(const struct wk_dot *d, enum wk_type type, float *out)
{
    const uint32_t all_cols = wk_tile_runs(type, d->tile_bytes) * WK_BLOCK;
    for (uint32_t t = 0; t < d->tiles; t++, out += (size_t)d->n * WK_TILE) {
        memset(out, 0, (size_t)d->n * WK_TILE * sizeof *out);
        for (uint32_t c = d->col; c < d->col + d->cols; c += WK_BLOCK)
            for (unsigned r = 0; r < WK_TILE; r++) {
                struct wk_sub w;
                wk_sub_of_tile(type, d->w + t * d->tile_bytes, all_cols, r, c, &w);
                for (uint32_t i = 0; i < d->n; i++) {
                    float *acc = &out[i * WK_TILE + r];
                    *acc = add_block(type, &w, &d->q8[i * d->ldx + c / WK_BLOCK], *acc);
                }
            }
    }
}

/* sum[i] += x[i] in units of 2^-30, ties to even: in f64 x * 2^30 is exact, and below 2^51 adding
 * 1.5 * 2^52 rounds it and leaves the integer in the low bits. */
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

typedef void dot_fn(const struct wk_dot *d, enum wk_type type, float *out);

/* The product, or the exact sum of the products of its pieces. */
static bool dot_pieces(const struct wk_dot *d, enum wk_type type, dot_fn *dot, float *out)
{
    if (d->sum == NULL) {
        dot(d, type, out);
        return true;
    }
    float piece[WK_GROUP * WK_ROWS * WK_TILE] = {0};
    const size_t n = (size_t)d->tiles * d->n * WK_TILE;
    bool ok = true;
    memset(d->sum, 0, n * sizeof *d->sum);
    struct wk_dot part = *d;
    for (part.col = d->col; part.col < d->col + d->cols; part.col += part.cols) {
        uint32_t left = d->col + d->cols - part.col;
        part.cols = d->piece < left ? d->piece : left;
        dot(&part, type, piece);
        for (size_t i = 0; d->weight != NULL && i < n; i++)
            piece[i] *= d->weight[i / WK_TILE % d->n];
        ok = sum_pieces(piece, d->sum, n) && ok;
    }
    return ok;
}

#define DOT(name, type, kind)                            \
    static bool name(const struct wk_dot *d, float *out) \
    {                                                    \
        return dot_pieces(d, type, dot_##kind, out);     \
    }
WK_TYPES(DOT)
#undef DOT

static bool sum_add(const int64_t *sum, float *x, size_t n)
{
    const int64_t limit = INT64_C(1) << 53; /* 2^23 in units of 2^-30 */
    for (size_t i = 0; i < n; i++) {
        if (sum[i] <= -limit || sum[i] >= limit)
            return false;
        x[i] += (float)((double)sum[i] * 0x1p-30);
    }
    return true;
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

static void silu_glu(const float *gate, const float *up, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = wk_silu_f32(gate[i]) * up[i];
}

static void gelu_glu(const float *gate, const float *up, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = wk_gelu_f32(gate[i]) * up[i];
}

static void softcap(float *x, float by, float cap, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = wk_softcap_f32(x[i], by, cap);
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
    switch (type) {
    case WK_KV_F32:
        return ((const float *)data)[i];
    case WK_KV_F16:
        return wk_f16_to_f32(((const uint16_t *)data)[i]);
    case WK_KV_Q8_0:
        break;
    }
    return ((const int8_t *)data)[i];
}

/* The scale of column c at a position of the block; 1 where there are none. */
static float kv_scale(const uint16_t *scales, uint32_t c, uint32_t position)
{
    return scales != NULL ? wk_f16_to_f32(scales[(size_t)(c / WK_BLOCK) * WK_KV_BLOCK + position])
                          : 1.0f;
}

/* The unscaled score of a position: columns in order; of Q8_0 a sum for each scale, and over these
 * a sum. */
static float score(const struct wk_attend *a, const float *q, uint32_t position)
{
    const uint32_t run = a->type == WK_KV_Q8_0 ? WK_BLOCK : a->head_dim;
    float sum = 0;
    for (uint32_t first = 0; first < a->head_dim; first += run) {
        float t = 0;
        for (uint32_t c = first; c < a->head_dim && c < first + run; c++)
            t = fmaf(kv_at(a->type, a->k, (size_t)c * WK_KV_BLOCK + position), q[c], t);
        if (a->type != WK_KV_Q8_0)
            return t;
        sum = fmaf(t, kv_scale(a->k_scales, first, position), sum);
    }
    return sum;
}

/* Probabilities of the 64 positions (0 where not seen) into p; their maximum and sum. */
static void softmax_block(const struct wk_attend *a, const struct wk_query *q, float *p, float *max,
                          float *sum)
{
    float lane[WK_TILE];
    for (unsigned i = 0; i < WK_TILE; i++)
        lane[i] = -INFINITY;
    for (unsigned i = 0; i < WK_KV_BLOCK; i++) {
        p[i] = -INFINITY;
        if (i >= q->first && i < q->end) {
            const float s = score(a, q->q, i);
            p[i] = a->softcap > 0 ? wk_softcap_f32(s, a->scale, a->softcap) : s * a->scale;
        }
        lane[i % WK_TILE] = p[i] > lane[i % WK_TILE] ? p[i] : lane[i % WK_TILE];
    }
    for (unsigned half = WK_TILE / 2; half > 0; half /= 2)
        for (unsigned i = 0; i < half; i++)
            lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
    *max = lane[0];
    memset(lane, 0, sizeof lane);
    for (unsigned i = 0; i < WK_KV_BLOCK; i++) {
        p[i] = i >= q->first && i < q->end ? wk_exp_f32(p[i] - *max) : 0.0f;
        lane[i % WK_TILE] += p[i];
    }
    *sum = merge_lanes(lane);
}

/* How a query's earlier blocks and this one enter its result: both brought to the greater maximum.
 */
struct blend {
    float old, new;
    bool begun;
};

static struct blend blend_block(struct wk_query *q, float max, float sum)
{
    struct blend b = {0, 1, q->begun};
    if (q->begun) {
        float top = max > q->max ? max : q->max;
        b.old = wk_exp_f32(q->max - top);
        b.new = wk_exp_f32(max - top);
        max = top;
        sum = fmaf(sum, b.new, q->sum * b.old);
    }
    q->max = max;
    q->sum = sum;
    q->begun = true;
    return b;
}

static float blend_value(struct blend b, float old, float new)
{
    return b.begun ? fmaf(new, b.new, old * b.old) : new;
}

static void attend(struct wk_attend *a)
{
    for (uint32_t i = 0; i < a->n; i++) {
        struct wk_query *q = &a->query[i];
        float p[WK_KV_BLOCK], max, sum;
        softmax_block(a, q, p, &max, &sum);
        struct blend blend = blend_block(q, max, sum);
        for (uint32_t c = 0; c < a->head_dim; c++) {
            float v = 0;
            for (uint32_t j = q->first; j < q->end; j++) /* times 1 changes nothing */
                v = fmaf(p[j] * kv_scale(a->v_scales, c, j),
                         kv_at(a->type, a->v, (size_t)j * a->head_dim + c), v);
            q->out[c] = blend_value(blend, q->out[c], v);
        }
    }
}

static void merge(struct wk_query *q, const struct wk_query *block, uint32_t head_dim)
{
    struct blend blend = blend_block(q, block->max, block->sum);
    for (uint32_t c = 0; c < head_dim; c++)
        q->out[c] = blend_value(blend, q->out[c], block->out[c]);
}

void wk_fill_ref(struct wk_table *table)
{
    *table = (struct wk_table){
        .name = "ref",
        .blas_rows = 8,
        .quantise = quantise,
        .sum_add = sum_add,
        .square = square,
        .scale = scale,
        .glu = {[WK_SILU] = silu_glu, [WK_GELU] = gelu_glu},
        .softcap = softcap,
        .narrow = narrow,
        .widen = widen,
        .attend = attend,
        .merge = merge,
    };
#define SLOT(name, type, kind) table->dot[type] = name;
    WK_TYPES(SLOT)
#undef SLOT
}
