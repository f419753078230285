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

#include "kernels/attend.h"

/* The slots that this file and attend.h fill. */
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
