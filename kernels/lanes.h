/*
 * The inner loops that need nothing but 16 lanes of f32, written once. Included by the file of an
 * instruction set after it has defined
 *
 *   v16                              16 floats in registers
 *   v_set(x) v_load(p) v_store(p, v) all lanes; memory need not be aligned
 *   v_load_f16(p) v_store_f16(p, v)  16 halves
 *   v_load_bf16(p)                   16 upper halves of floats
 *   v_add v_sub v_mul v_div          lane by lane
 *   v_fma(a, b, c)                   a * b + c, rounded once
 *   v_min(a, b) v_max(a, b)          a < b ? a : b, a > b ? a : b: b when either is NaN
 *   v_where_less(a, b, x, y)         a < b ? x : y
 *   v_scale_exp(p, t)                p * 2^n in two halves as in wk_exp_f32, n in the low bits of t
 *   v_top(v)                         the greatest of the lanes' bits without sign, as an integer
 *   v_add_units(sum, v)              adds 16 lanes, rounded to multiples of 2^-30 (ties to even),
 * to integers in memory in that unit, plus the bits of WK_UNIT64 V_ACCUMULATORS how many v16 a loop
 * may sum in
 *
 * Each function repeats its namesake of ref.c operation by operation; see there for the why.
 */
#ifndef WEFT_KERNELS_LANES_H
#define WEFT_KERNELS_LANES_H

#include "kernels/inline.h"
#include "kernels/math.h"
#include "kernels/table.h"

#include <string.h>

/* ------------------------------------------------------------------ exp, merging */

WK_INLINE v16 v_exp(v16 x)
{
    x = v_min(v_set(WK_EXP_HI), x);
    x = v_max(v_set(WK_EXP_LO), x);
    v16 t = v_fma(x, v_set(WK_EXP_LOG2E), v_set(WK_EXP_MAGIC)), k = v_sub(t, v_set(WK_EXP_MAGIC));
    v16 r = v_fma(k, v_set(-WK_EXP_LN2_HI), x);
    r = v_fma(k, v_set(-WK_EXP_LN2_LO), r);
    v16 p = v_fma(v_set(WK_EXP_C7), r, v_set(WK_EXP_C6));
    p = v_fma(p, r, v_set(WK_EXP_C5));
    p = v_fma(p, r, v_set(WK_EXP_C4));
    p = v_fma(p, r, v_set(WK_EXP_C3));
    p = v_fma(p, r, v_set(WK_EXP_C2));
    return v_scale_exp(v_add(v_fma(v_mul(r, r), p, r), v_set(1)), t);
}

WK_INLINE float merge_sum(v16 v)
{
    float lane[WK_TILE];
    v_store(lane, v);
    for (unsigned half = WK_TILE / 2; half > 0; half /= 2)
        for (unsigned i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

WK_INLINE float merge_max(v16 v)
{
    float lane[WK_TILE];
    v_store(lane, v);
    for (unsigned half = WK_TILE / 2; half > 0; half /= 2)
        for (unsigned i = 0; i < half; i++)
            lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
    return lane[0];
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

static void swiglu(const float *gate, const float *up, float *out, size_t n)
{
    size_t i = 0;
    for (; n - i >= WK_TILE; i += WK_TILE) {
        v16 g = v_load(gate + i), e = v_exp(v_sub(v_set(-0.0f), g));
        v_store(out + i, v_mul(v_div(g, v_add(v_set(1), e)), v_load(up + i)));
    }
    for (; i < n; i++)
        out[i] = gate[i] / (1.0f + wk_exp_f32(-gate[i])) * up[i];
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

enum { STRIPS = WK_KV_BLOCK / WK_TILE };

WK_INLINE v16 load_kv(const void *data, size_t i, size_t size)
{
    return load_weights((const uint8_t *)data + i * size, size == 4 ? WK_F32 : WK_F16);
}

/* Unscaled scores of all positions for n queries (a constant), some strips of 16 positions at once.
 */
WK_INLINE void scores(const struct wk_attend *a, unsigned n, size_t size, float p[][WK_KV_BLOCK])
{
    const unsigned strips = V_ACCUMULATORS / n < STRIPS ? V_ACCUMULATORS / n : STRIPS;
    const unsigned step = strips == 3 ? 2 : strips; /* a divisor of STRIPS */
    for (unsigned s = 0; s < STRIPS; s += step) {
        v16 acc[V_ACCUMULATORS];
        WK_UNROLL
        for (unsigned k = 0; k < n * step; k++)
            acc[k] = v_set(0);
        for (uint32_t c = 0; c < a->head_dim; c++) {
            WK_UNROLL
            for (unsigned k = 0; k < step; k++) {
                v16 key = load_kv(a->k, (size_t)c * WK_KV_BLOCK + (s + k) * WK_TILE, size);
                WK_UNROLL
                for (unsigned i = 0; i < n; i++)
                    acc[i * step + k] = v_fma(key, v_set(a->query[i].q[c]), acc[i * step + k]);
            }
        }
        WK_UNROLL
        for (unsigned k = 0; k < n * step; k++)
            v_store(&p[k / step][(s + k % step) * WK_TILE], acc[k]);
    }
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

/* How a query's earlier blocks and this one enter its result. */
struct blend {
    float old, new;
    bool begun;
};

static struct blend merge_block(struct wk_query *q, float max, float sum)
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

/* Weighted V of `chunks` times 16 elements from c on, for n queries (both constants): together as
 * far as all of them see, then alone. */
WK_INLINE void values(const struct wk_attend *a, unsigned n, unsigned chunks, size_t size,
                      uint32_t c, float p[][WK_KV_BLOCK], const struct blend *blend)
{
    v16 acc[V_ACCUMULATORS];
    uint32_t common = WK_KV_BLOCK;
    WK_UNROLL
    for (unsigned i = 0; i < n * chunks; i++)
        acc[i] = v_set(0);
    for (unsigned i = 0; i < n; i++)
        common = a->query[i].valid < common ? a->query[i].valid : common;
    for (uint32_t j = 0; j < common; j++)
        WK_UNROLL
    for (unsigned k = 0; k < chunks; k++) {
        v16 v = load_kv(a->v, (size_t)j * a->head_dim + c + k * WK_TILE, size);
        WK_UNROLL
        for (unsigned i = 0; i < n; i++)
            acc[i * chunks + k] = v_fma(v_set(p[i][j]), v, acc[i * chunks + k]);
    }
    WK_UNROLL
    for (unsigned i = 0; i < n; i++) {
        const struct wk_query *q = &a->query[i];
        WK_UNROLL
        for (unsigned k = 0; k < chunks; k++) {
            v16 sum = acc[i * chunks + k];
            uint32_t at = c + k * WK_TILE;
            for (uint32_t j = common; j < q->valid; j++)
                sum = v_fma(v_set(p[i][j]), load_kv(a->v, (size_t)j * a->head_dim + at, size), sum);
            if (blend[i].begun)
                sum = v_fma(sum, v_set(blend[i].new),
                            v_mul(v_load(q->out + at), v_set(blend[i].old)));
            v_store(q->out + at, sum);
        }
    }
}

/* Element c alone: the end of a head whose size is no multiple of 16. */
static void value(const struct wk_attend *a, const struct wk_query *q, size_t size, uint32_t c,
                  const float *p, struct blend blend)
{
    float sum = 0;
    for (uint32_t j = 0; j < q->valid; j++) {
        size_t at = (size_t)j * a->head_dim + c;
        float v =
            size == 4 ? ((const float *)a->v)[at] : wk_f16_to_f32(((const uint16_t *)a->v)[at]);
        sum = fmaf(p[j], v, sum);
    }
    q->out[c] = blend.begun ? fmaf(sum, blend.new, q->out[c] * blend.old) : sum;
}

WK_INLINE void attend_n(struct wk_attend *a, unsigned n, size_t size)
{
    float p[WK_QUERIES][WK_KV_BLOCK];
    struct blend blend[WK_QUERIES];
    scores(a, n, size, p);
    for (unsigned i = 0; i < n; i++) {
        float max, sum;
        softmax_block(a->scale, a->query[i].valid, p[i], &max, &sum);
        blend[i] = merge_block(&a->query[i], max, sum);
    }
    const unsigned chunks = V_ACCUMULATORS / n < 4 ? V_ACCUMULATORS / n : 4;
    uint32_t c = 0;
    for (; a->head_dim - c >= chunks * WK_TILE; c += chunks * WK_TILE)
        values(a, n, chunks, size, c, p, blend);
    for (; a->head_dim - c >= WK_TILE; c += WK_TILE)
        values(a, n, 1, size, c, p, blend);
    for (; c < a->head_dim; c++)
        for (unsigned i = 0; i < n; i++)
            value(a, &a->query[i], size, c, p[i], blend[i]);
}

WK_INLINE void attend_size(struct wk_attend *a, size_t size)
{
    switch (a->n) {
    case 1:
        attend_n(a, 1, size);
        break;
    case 2:
        attend_n(a, 2, size);
        break;
    case 3:
        attend_n(a, 3, size);
        break;
    default:
        attend_n(a, 4, size);
        break;
    }
}

static void attend(struct wk_attend *a)
{
    if (a->type == WK_KV_F32)
        attend_size(a, 4);
    else
        attend_size(a, 2);
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
    table->swiglu = swiglu;
    table->narrow = narrow;
    table->widen = widen;
    table->attend = attend;
}

#endif
