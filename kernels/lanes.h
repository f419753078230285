/*
 * The inner loops that need nothing but 16 lanes of f32, written once. Included by the file of an
 * instruction set after it has defined
 *
 *   v16                              16 floats in registers
 *   v_set(x) v_load(p) v_store(p, v) all lanes; memory need not be aligned
 *   v_load_f16(p) v_store_f16(p, v)  16 halves
 *   v_load_i8(p)                     16 signed bytes
 *   v_load_bf16(p)                   16 upper halves of floats
 *   v_add v_sub v_mul v_div          lane by lane
 *   v_fma(a, b, c)                   a * b + c, rounded once
 *   v_min(a, b) v_max(a, b)          a < b ? a : b, a > b ? a : b: b when either is NaN
 *   v_where_less(a, b, x, y)         a < b ? x : y
 *   v_copysign(a, b)                 a with the signs of b
 *   v_down(v, k) v_first(v)          lane i + k in lane i < k, k a constant 8, 4, 2 or 1; lane 0
 *   v_scale_exp(p, t)                p * 2^n in two halves as in wk_exp_f32, n in the low bits of t
 *   v_top(v)                         the greatest of the lanes' bits without sign, as an integer
 *   v_add_units(sum, v)              adds 16 lanes, rounded to multiples of 2^-30 (ties to even),
 *                                    to integers in memory in that unit, plus the bits of WK_UNIT64
 *   V_ACCUMULATORS                   how many v16 a loop may sum in
 *
 * Each function repeats its namesake of ref.c operation by operation; see there for the why.
 */
#ifndef WEFT_KERNELS_LANES_H
#define WEFT_KERNELS_LANES_H

#include "kernels/inline.h"
#include "kernels/math.h"
#include "kernels/table.h"

#include <string.h>

/* ------------------------------------------------------------------ exp, tanh, merging */

WK_INLINE v16 v_exp_reduced(v16 x, v16 *ret_t)
{
    v16 t = v_fma(x, v_set(WK_EXP_LOG2E), v_set(WK_EXP_MAGIC)), k = v_sub(t, v_set(WK_EXP_MAGIC));
    *ret_t = t;
    v16 r = v_fma(k, v_set(-WK_EXP_LN2_HI), x);
    r = v_fma(k, v_set(-WK_EXP_LN2_LO), r);
    v16 p = v_fma(v_set(WK_EXP_C7), r, v_set(WK_EXP_C6));
    p = v_fma(p, r, v_set(WK_EXP_C5));
    p = v_fma(p, r, v_set(WK_EXP_C4));
    p = v_fma(p, r, v_set(WK_EXP_C3));
    p = v_fma(p, r, v_set(WK_EXP_C2));
    return v_fma(v_mul(r, r), p, r);
}

WK_INLINE v16 v_exp(v16 x)
{
    v16 t;
    x = v_min(v_set(WK_EXP_HI), x);
    x = v_max(v_set(WK_EXP_LO), x);
    v16 p = v_add(v_exp_reduced(x, &t), v_set(1));
    return v_scale_exp(p, t);
}

WK_INLINE v16 v_tanh(v16 x)
{
    v16 t, y = v_mul(v_set(2), v_copysign(x, v_set(-1)));
    y = v_max(v_set(WK_TANH_LO), y);
    v16 p = v_exp_reduced(y, &t), s = v_scale_exp(v_set(1), t);
    v16 e = v_fma(p, s, v_sub(s, v_set(1)));
    return v_copysign(v_div(e, v_add(e, v_set(2))), x);
}

WK_INLINE float merge_sum(v16 v)
{
    v = v_add(v, v_down(v, 8));
    v = v_add(v, v_down(v, 4));
    v = v_add(v, v_down(v, 2));
    return v_first(v_add(v, v_down(v, 1)));
}

WK_INLINE float merge_max(v16 v)
{
    v = v_max(v_down(v, 8), v);
    v = v_max(v_down(v, 4), v);
    v = v_max(v_down(v, 2), v);
    return v_first(v_max(v_down(v, 1), v));
}

/* ------------------------------------------------------------------ exact sums */

/* sum[i] += x[i] in units of 2^-30; n a multiple of WK_TILE. False when a |x[i]| is not below 2^21.
 */
static bool sum_pieces(const float *x, int64_t *sum, size_t n)
{
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) /* what v_add_units adds too much */
        sum[i] = (int64_t)((uint64_t)sum[i] - wk_bits64(WK_UNIT64));
    for (size_t i = 0; i < n; i += WK_TILE) {
        v16 v = v_load(x + i);
        uint32_t top = v_top(v);
        most = top > most ? top : most;
        v_add_units(sum + i, v);
    }
    return most < wk_bits(0x1p21f);
}

/* ------------------------------------------------------------------ float products */

WK_INLINE v16 load_weights(const uint8_t *w, enum wk_type type)
{
    return type == WK_F16    ? v_load_f16((const uint16_t *)(const void *)w)
           : type == WK_BF16 ? v_load_bf16((const uint16_t *)(const void *)w)
                             : v_load((const float *)(const void *)w);
}

/* `tiles` by `rows` results from (t, i) on; these and the type are constants. */
WK_INLINE void dot_float(const struct wk_dot *d, uint32_t t, uint32_t i, unsigned tiles,
                         unsigned rows, enum wk_type type, float *out)
{
    const size_t size = type == WK_F32 ? 4 : 2;
    const uint8_t *w = d->w + t * d->tile_bytes + (size_t)d->col * WK_TILE * size;
    const float *x = d->f32 + i * d->ldx + d->col;
    v16 acc[V_ACCUMULATORS];
    WK_UNROLL
    for (unsigned k = 0; k < tiles * rows; k++)
        acc[k] = v_set(0);
    for (uint32_t c = 0; c < d->cols; c++, w += WK_TILE * size) {
        v16 weight[WK_GROUP];
        WK_UNROLL
        for (unsigned k = 0; k < tiles; k++)
            weight[k] = load_weights(w + k * d->tile_bytes, type);
        WK_UNROLL
        for (unsigned j = 0; j < rows; j++) {
            v16 v = v_set(x[j * d->ldx + c]);
            WK_UNROLL
            for (unsigned k = 0; k < tiles; k++)
                acc[k * rows + j] = v_fma(weight[k], v, acc[k * rows + j]);
        }
    }
    WK_UNROLL
    for (unsigned k = 0; k < tiles; k++)
        WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        v_store(out + ((size_t)(t + k) * d->n + i + j) * WK_TILE, acc[k * rows + j]);
}

/* All rows of `tiles` tiles: as many rows at once as there are accumulators, then fewer. */
WK_INLINE void dot_float_rows(const struct wk_dot *d, uint32_t t, unsigned tiles, enum wk_type type,
                              float *out)
{
    uint32_t i = 0;
    for (; d->n - i >= V_ACCUMULATORS / tiles; i += V_ACCUMULATORS / tiles)
        dot_float(d, t, i, tiles, V_ACCUMULATORS / tiles, type, out);
    for (; d->n - i >= 2 && V_ACCUMULATORS / tiles > 2; i += 2)
        dot_float(d, t, i, tiles, 2, type, out);
    for (; i < d->n; i++)
        dot_float(d, t, i, tiles, 1, type, out);
}

WK_INLINE void dot_float_all(const struct wk_dot *d, enum wk_type type, float *out)
{
    uint32_t t = 0;
    for (; d->tiles - t >= 4; t += 4)
        dot_float_rows(d, t, 4, type, out);
    for (; d->tiles - t >= 2; t += 2)
        dot_float_rows(d, t, 2, type, out);
    for (; t < d->tiles; t++)
        dot_float_rows(d, t, 1, type, out);
}

/* The product, or the exact sum of the products of its pieces. */
WK_INLINE bool dot_float_pieces(const struct wk_dot *d, enum wk_type type, float *out)
{
    if (d->sum == NULL) {
        dot_float_all(d, type, out);
        return true;
    }
    float piece[WK_GROUP * WK_ROWS * WK_TILE];
    const size_t n = (size_t)d->tiles * d->n * WK_TILE;
    bool ok = true;
    memset(d->sum, 0, n * sizeof *d->sum);
    struct wk_dot part = *d;
    for (part.col = d->col; part.col < d->col + d->cols; part.col += part.cols) {
        uint32_t left = d->col + d->cols - part.col;
        part.cols = d->piece < left ? d->piece : left;
        dot_float_all(&part, type, piece);
        for (size_t i = 0; d->weight != NULL && i < n; i += WK_TILE)
            v_store(piece + i, v_mul(v_load(piece + i), v_set(d->weight[i / WK_TILE % d->n])));
        ok = sum_pieces(piece, d->sum, n) && ok;
    }
    return ok;
}

static bool dot_f32(const struct wk_dot *d, float *out)
{
    return dot_float_pieces(d, WK_F32, out);
}

static bool dot_f16(const struct wk_dot *d, float *out)
{
    return dot_float_pieces(d, WK_F16, out);
}

static bool dot_bf16(const struct wk_dot *d, float *out)
{
    return dot_float_pieces(d, WK_BF16, out);
}

/* ------------------------------------------------------------------ element by element */

static float square(const float *x, size_t n)
{
    float lane[WK_TILE];
    v16 acc = v_set(0);
    size_t i = 0;
    for (; n - i >= WK_TILE; i += WK_TILE) {
        v16 v = v_load(x + i);
        acc = v_fma(v, v, acc);
    }
    v_store(lane, acc);
    for (; i < n; i++)
        lane[i % WK_TILE] = fmaf(x[i], x[i], lane[i % WK_TILE]);
    return merge_sum(v_load(lane));
}

static void scale(const float *x, float by, const float *weight, float *y, size_t n)
{
    size_t i = 0;
    for (; n - i >= WK_TILE; i += WK_TILE)
        v_store(y + i, v_mul(v_mul(v_load(x + i), v_set(by)), v_load(weight + i)));
    for (; i < n; i++)
        y[i] = x[i] * by * weight[i];
}

/* x / (1 + exp(exponent)) */
WK_INLINE v16 v_gated(v16 x, v16 exponent)
{
    return v_div(x, v_add(v_set(1), v_exp(exponent)));
}

static void silu_glu(const float *gate, const float *up, float *out, size_t n)
{
    size_t i = 0;
    for (; n - i >= WK_TILE; i += WK_TILE) {
        v16 g = v_load(gate + i);
        v_store(out + i, v_mul(v_gated(g, v_sub(v_set(-0.0f), g)), v_load(up + i)));
    }
    for (; i < n; i++)
        out[i] = wk_silu_f32(gate[i]) * up[i];
}

static void gelu_glu(const float *gate, const float *up, float *out, size_t n)
{
    size_t i = 0;
    for (; n - i >= WK_TILE; i += WK_TILE) {
        v16 g = v_load(gate + i);
        v16 k = v_fma(v_mul(g, g), v_set(WK_GELU_K3), v_set(WK_GELU_K1));
        v_store(out + i, v_mul(v_gated(g, v_mul(g, k)), v_load(up + i)));
    }
    for (; i < n; i++)
        out[i] = wk_gelu_f32(gate[i]) * up[i];
}

static void softcap(float *x, float by, float cap, size_t n)
{
    size_t i = 0;
    for (; n - i >= WK_TILE; i += WK_TILE) {
        v16 v = v_mul(v_load(x + i), v_set(by));
        v16 capped = v_mul(v_set(cap), v_tanh(v_div(v, v_set(cap))));
        v_store(x + i, v_fma(v, v_set(0), capped));
    }
    for (; i < n; i++)
        x[i] = wk_softcap_f32(x[i], by, cap);
}

static void narrow(const float *x, uint16_t *f16, size_t n)
{
    size_t i = 0;
    for (; n - i >= WK_TILE; i += WK_TILE)
        v_store_f16(f16 + i, v_load(x + i));
    for (; i < n; i++)
        f16[i] = wk_f32_to_f16(x[i]);
}

static void widen(const uint16_t *f16, float *x, size_t n)
{
    size_t i = 0;
    for (; n - i >= WK_TILE; i += WK_TILE)
        v_store(x + i, v_load_f16(f16 + i));
    for (; i < n; i++)
        x[i] = wk_f16_to_f32(f16[i]);
}

/* ------------------------------------------------------------------ exact sums */

static bool sum_add_any(const int64_t *sum, float *x, size_t n)
{
    const int64_t limit = INT64_C(1) << 53;
    for (size_t i = 0; i < n; i++) {
        if (sum[i] <= -limit || sum[i] >= limit)
            return false;
        x[i] += (float)((double)sum[i] * 0x1p-30);
    }
    return true;
}

/* Below 2^51 a sum added to the bits of 1.5 * 2^52 is a double that much greater: conversions that
 * vectors have, other than that of 64-bit integers. */
static bool sum_add(const int64_t *sum, float *x, size_t n)
{
    const uint64_t magic = wk_bits64(WK_MAGIC64), half = UINT64_C(1) << 51;
    size_t i = 0;
    for (; n - i >= WK_TILE; i += WK_TILE) {
        uint64_t beyond = 0;
        double total[WK_TILE];
        WK_UNROLL
        for (unsigned k = 0; k < WK_TILE; k++) {
            uint64_t u = (uint64_t)sum[i + k] + magic;
            beyond |= (uint64_t)sum[i + k] + half;
            memcpy(&total[k], &u, sizeof u);
        }
        float part[WK_TILE];
        for (unsigned k = 0; k < WK_TILE; k++)
            part[k] = (float)((total[k] - WK_MAGIC64) * 0x1p-30);
        if (beyond >= half * 2) {
            if (!sum_add_any(sum + i, x + i, WK_TILE))
                return false;
            continue;
        }
        v_store(x + i, v_add(v_load(x + i), v_load(part)));
    }
    return sum_add_any(sum + i, x + i, n - i);
}

/* ------------------------------------------------------------------ attention */

enum {
    STRIPS = WK_KV_BLOCK / WK_TILE,
    RUN = 4, /* queries that share the loads of K and V; 8 measured slower with AVX-512 */
};

/* 16 numbers of a cache from element i on. */
WK_INLINE v16 load_kv(const void *data, size_t i, enum wk_kv_type type)
{
    switch (type) {
    case WK_KV_F32:
        return v_load((const float *)data + i);
    case WK_KV_F16:
        return v_load_f16((const uint16_t *)data + i);
    case WK_KV_Q8_0:
        break;
    }
    return v_load_i8((const int8_t *)data + i);
}

/* 16 scales from a position on, of the run of columns that c is in. */
WK_INLINE v16 load_scales16(const uint16_t *scales, uint32_t c, unsigned position)
{
    return v_load_f16(scales + (size_t)(c / WK_BLOCK) * WK_KV_BLOCK + position);
}

/* Unscaled scores of `step` strips of 16 positions from strip s on, for n queries (n and step are
 * constants). */
WK_INLINE void score_strips(const struct wk_attend *a, const struct wk_query *query, unsigned n,
                            unsigned s, unsigned step, enum wk_kv_type type, float p[][WK_KV_BLOCK])
{
    const uint32_t run = type == WK_KV_Q8_0 ? WK_BLOCK : a->head_dim;
    uint32_t first = 0;
    do { /* head_dim is at least 1 */
        const uint32_t end = a->head_dim - first < run ? a->head_dim : first + run;
        v16 acc[V_ACCUMULATORS];
        WK_UNROLL
        for (unsigned k = 0; k < n * step; k++)
            acc[k] = v_set(0);
        for (uint32_t c = first; c < end; c++) {
            v16 key[STRIPS];
            WK_UNROLL
            for (unsigned k = 0; k < step; k++)
                key[k] = load_kv(a->k, (size_t)c * WK_KV_BLOCK + (s + k) * WK_TILE, type);
            WK_UNROLL
            for (unsigned i = 0; i < n; i++) {
                v16 q = v_set(query[i].q[c]);
                WK_UNROLL
                for (unsigned k = 0; k < step; k++)
                    acc[i * step + k] = v_fma(key[k], q, acc[i * step + k]);
            }
        }
        WK_UNROLL
        for (unsigned k = 0; k < n * step; k++) {
            float *at = &p[k / step][(s + k % step) * WK_TILE];
            if (type == WK_KV_Q8_0)
                acc[k] = v_fma(acc[k], load_scales16(a->k_scales, first, (s + k % step) * WK_TILE),
                               first == 0 ? v_set(0) : v_load(at));
            v_store(at, acc[k]);
        }
        first = end;
    } while (first < a->head_dim);
}

/* Unscaled scores for n queries (a constant); strips that none of them sees are 0. */
WK_INLINE void scores(const struct wk_attend *a, const struct wk_query *query, unsigned n,
                      enum wk_kv_type type, float p[][WK_KV_BLOCK])
{
    const unsigned strips = V_ACCUMULATORS / n < STRIPS ? V_ACCUMULATORS / n : STRIPS;
    const unsigned step = strips == 3 ? 2 : strips; /* a divisor of STRIPS */
    uint32_t seen = 0;
    unsigned s = 0;
    for (unsigned i = 0; i < n; i++)
        seen = query[i].valid > seen ? query[i].valid : seen;
    for (; s < STRIPS && s * WK_TILE < seen; s += step)
        score_strips(a, query, n, s, step, type, p);
    for (; s < STRIPS; s++)
        for (unsigned i = 0; i < n; i++)
            v_store(&p[i][s * WK_TILE], v_set(0));
}

/* p: scores in, probabilities out (0 where not valid). */
WK_INLINE void softmax_block(float scale_by, uint32_t valid, float *p, float *max, float *sum)
{
    static const float index[WK_TILE] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    v16 at = v_load(index), top = v_set(-INFINITY), total = v_set(0), v[STRIPS];
    WK_UNROLL
    for (unsigned s = 0; s < STRIPS; s++) {
        v16 limit = v_set((float)((int)valid - (int)(s * WK_TILE)));
        v[s] = v_mul(v_load(p + (size_t)s * WK_TILE), v_set(scale_by));
        v[s] = v_where_less(at, limit, v[s], v_set(-INFINITY));
        top = v_max(v[s], top);
    }
    *max = merge_max(top);
    WK_UNROLL
    for (unsigned s = 0; s < STRIPS; s++) {
        v16 limit = v_set((float)((int)valid - (int)(s * WK_TILE)));
        v[s] = v_where_less(at, limit, v_exp(v_sub(v[s], v_set(*max))), v_set(0));
        v_store(p + (size_t)s * WK_TILE, v[s]);
        total = v_add(total, v[s]);
    }
    *sum = merge_sum(total);
}

/* How the earlier blocks of up to 16 queries and this one enter their results: a lane each. */
struct blend {
    float old[WK_TILE], new[WK_TILE];
    bool begun[WK_TILE];
};

/* Takes the block's max and sum of n queries [16] into them. */
WK_INLINE void blend_block(struct wk_query *query, unsigned n, const float *max, const float *sum,
                           struct blend *b)
{
    float top[WK_TILE] = {0}, total[WK_TILE] = {0};
    for (unsigned i = 0; i < n; i++) {
        b->begun[i] = query[i].begun;
        top[i] = query[i].max;
        total[i] = query[i].sum;
    }
    v16 new_max = v_load(max), old_max = v_load(top), greater = v_max(new_max, old_max);
    v16 old = v_exp(v_sub(old_max, greater)), new = v_exp(v_sub(new_max, greater));
    v_store(b->old, old);
    v_store(b->new, new);
    v_store(top, greater);
    v_store(total, v_fma(v_load(sum), new, v_mul(v_load(total), old)));
    for (unsigned i = 0; i < n; i++) {
        query[i].max = b->begun[i] ? top[i] : max[i];
        query[i].sum = b->begun[i] ? total[i] : sum[i];
        query[i].begun = true;
    }
}

/* Weights of the run of columns at c: of Q8_0 the probabilities times the scale. */
WK_INLINE void weigh(const struct wk_attend *a, unsigned n, uint32_t c, float p[][WK_KV_BLOCK],
                     float weight[][WK_KV_BLOCK])
{
    WK_UNROLL
    for (unsigned s = 0; s < STRIPS; s++) {
        v16 d = load_scales16(a->v_scales, c, s * WK_TILE);
        for (unsigned i = 0; i < n; i++)
            v_store(&weight[i][s * WK_TILE], v_mul(v_load(&p[i][s * WK_TILE]), d));
    }
}

/* Weighted V of `chunks` times 16 elements from c on, for n queries (both constants): together as
 * far as all of them see, then alone. Of Q8_0 the weights of a second run of columns follow those
 * of the first. */
WK_INLINE void values(const struct wk_attend *a, const struct wk_query *query, unsigned n,
                      unsigned chunks, enum wk_kv_type type, uint32_t c,
                      float weight[][WK_KV_BLOCK], const struct blend *blend)
{
    const unsigned next = type == WK_KV_Q8_0 ? n : 0;
    v16 acc[V_ACCUMULATORS];
    uint32_t common = WK_KV_BLOCK;
    WK_UNROLL
    for (unsigned i = 0; i < n * chunks; i++)
        acc[i] = v_set(0);
    for (unsigned i = 0; i < n; i++)
        common = query[i].valid < common ? query[i].valid : common;
    for (uint32_t j = 0; j < common; j++)
        WK_UNROLL
    for (unsigned k = 0; k < chunks; k++) {
        v16 v = load_kv(a->v, (size_t)j * a->head_dim + c + k * WK_TILE, type);
        WK_UNROLL
        for (unsigned i = 0; i < n; i++)
            acc[i * chunks + k] = v_fma(v_set(weight[k / 2 * next + i][j]), v, acc[i * chunks + k]);
    }
    WK_UNROLL
    for (unsigned i = 0; i < n; i++) {
        WK_UNROLL
        for (unsigned k = 0; k < chunks; k++) {
            v16 sum = acc[i * chunks + k];
            uint32_t at = c + k * WK_TILE;
            for (uint32_t j = common; j < query[i].valid; j++)
                sum = v_fma(v_set(weight[k / 2 * next + i][j]),
                            load_kv(a->v, (size_t)j * a->head_dim + at, type), sum);
            if (blend->begun[i])
                sum = v_fma(sum, v_set(blend->new[i]),
                            v_mul(v_load(query[i].out + at), v_set(blend->old[i])));
            v_store(query[i].out + at, sum);
        }
    }
}

/* Element c alone: the end of a head whose size is no multiple of 16. */
WK_INLINE float value(const struct wk_attend *a, uint32_t valid, enum wk_kv_type type, uint32_t c,
                      const float *weight)
{
    float sum = 0;
    for (uint32_t j = 0; j < valid; j++) {
        size_t at = (size_t)j * a->head_dim + c;
        float v = type == WK_KV_F32   ? ((const float *)a->v)[at]
                  : type == WK_KV_F16 ? wk_f16_to_f32(((const uint16_t *)a->v)[at])
                                      : (float)((const int8_t *)a->v)[at];
        sum = fmaf(weight[j], v, sum);
    }
    return sum;
}

/* The block for n queries (a constant). */
WK_INLINE void attend_n(const struct wk_attend *a, struct wk_query *query, unsigned n,
                        enum wk_kv_type type)
{
    const bool q8 = type == WK_KV_Q8_0;
    float p[RUN][WK_KV_BLOCK], scaled[2 * RUN][WK_KV_BLOCK], max[WK_TILE] = {0}, sum[WK_TILE] = {0};
    float(*weight)[WK_KV_BLOCK] = q8 ? scaled : p;
    struct blend blend;
    scores(a, query, n, type, p);
    for (unsigned i = 0; i < n; i++)
        softmax_block(a->scale, query[i].valid, p[i], &max[i], &sum[i]);
    blend_block(query, n, max, sum, &blend);

    const unsigned fit = V_ACCUMULATORS / n < 4 ? V_ACCUMULATORS / n : 4;
    const unsigned chunks = fit == 3 ? 2 : fit; /* whole runs of Q8_0, or half of one */
    uint32_t c = 0;
    for (; a->head_dim - c >= chunks * WK_TILE; c += chunks * WK_TILE) {
        if (q8 && c % WK_BLOCK == 0)
            weigh(a, n, c, p, weight);
        if (q8 && chunks == 4)
            weigh(a, n, c + WK_BLOCK, p, weight + n);
        values(a, query, n, chunks, type, c, weight, &blend);
    }
    for (; a->head_dim - c >= WK_TILE; c += WK_TILE) {
        if (q8 && c % WK_BLOCK == 0)
            weigh(a, n, c, p, weight);
        values(a, query, n, 1, type, c, weight, &blend);
    }
    for (; c < a->head_dim; c++) {
        if (q8 && c % WK_BLOCK == 0)
            weigh(a, n, c, p, weight);
        for (unsigned i = 0; i < n; i++) {
            float v = value(a, query[i].valid, type, c, weight[i]);
            query[i].out[c] =
                blend.begun[i] ? fmaf(v, blend.new[i], query[i].out[c] * blend.old[i]) : v;
        }
    }
}

WK_INLINE void attend_type(const struct wk_attend *a, enum wk_kv_type type)
{
    uint32_t i = 0;
    for (; a->n - i >= RUN; i += RUN)
        attend_n(a, a->query + i, RUN, type);
    if (a->n - i == 3)
        attend_n(a, a->query + i, 3, type);
    else if (a->n - i == 2)
        attend_n(a, a->query + i, 2, type);
    else if (a->n - i == 1)
        attend_n(a, a->query + i, 1, type);
}

static void attend(struct wk_attend *a)
{
    switch (a->type) {
    case WK_KV_F32:
        attend_type(a, WK_KV_F32);
        break;
    case WK_KV_F16:
        attend_type(a, WK_KV_F16);
        break;
    case WK_KV_Q8_0:
        attend_type(a, WK_KV_Q8_0);
        break;
    }
}

static void merge(struct wk_query *q, const struct wk_query *block, uint32_t head_dim)
{
    const float max[WK_TILE] = {block->max}, sum[WK_TILE] = {block->sum};
    struct blend blend;
    blend_block(q, 1, max, sum, &blend);
    if (!blend.begun[0]) {
        memcpy(q->out, block->out, head_dim * sizeof *q->out);
        return;
    }
    v16 old = v_set(blend.old[0]), new = v_set(blend.new[0]);
    uint32_t c = 0;
    for (; head_dim - c >= WK_TILE; c += WK_TILE)
        v_store(q->out + c, v_fma(v_load(block->out + c), new, v_mul(v_load(q->out + c), old)));
    for (; c < head_dim; c++)
        q->out[c] = fmaf(block->out[c], blend.new[0], q->out[c] * blend.old[0]);
}

/* The slots this file fills. */
static void fill_lanes(struct wk_table *table)
{
    table->dot[WK_F32] = dot_f32;
    table->dot[WK_F16] = dot_f16;
    table->dot[WK_BF16] = dot_bf16;
    table->sum_add = sum_add;
    table->square = square;
    table->scale = scale;
    table->glu[WK_SILU] = silu_glu;
    table->glu[WK_GELU] = gelu_glu;
    table->softcap = softcap;
    table->narrow = narrow;
    table->widen = widen;
    table->attend = attend;
    table->merge = merge;
}

#endif
