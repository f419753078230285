/*
 * NEON of plain ARMv8.0: 16 lanes are four registers of four rows. Bytes are multiplied as signed
 * numbers, offsets removed before; each sum of 16 bits says why it stays below 2^15.
 */
#include "kernels/table.h"

#include <arm_neon.h>

typedef struct {
    float32x4_t v[4];
} v16;
enum { V_ACCUMULATORS = 4 }; /* 16 of 32 registers */

static inline v16 v_set(float x)
{
    float32x4_t v = vdupq_n_f32(x);
    return (v16){{v, v, v, v}};
}

static inline v16 v_load(const float *p)
{
    return (v16){{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
}

static inline void v_store(float *p, v16 a)
{
    vst1q_f32(p, a.v[0]);
    vst1q_f32(p + 4, a.v[1]);
    vst1q_f32(p + 8, a.v[2]);
    vst1q_f32(p + 12, a.v[3]);
}

static inline float32x4_t widen4(uint16x4_t h)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(h));
}

static inline v16 v_load_f16(const uint16_t *p)
{
    return (v16){{widen4(vld1_u16(p)), widen4(vld1_u16(p + 4)), widen4(vld1_u16(p + 8)),
                  widen4(vld1_u16(p + 12))}};
}

static inline void v_store_f16(uint16_t *p, v16 a)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a.v[0])));
    vst1_u16(p + 4, vreinterpret_u16_f16(vcvt_f16_f32(a.v[1])));
    vst1_u16(p + 8, vreinterpret_u16_f16(vcvt_f16_f32(a.v[2])));
    vst1_u16(p + 12, vreinterpret_u16_f16(vcvt_f16_f32(a.v[3])));
}

static inline v16 v_add(v16 a, v16 b)
{
    return (v16){{vaddq_f32(a.v[0], b.v[0]), vaddq_f32(a.v[1], b.v[1]), vaddq_f32(a.v[2], b.v[2]),
                  vaddq_f32(a.v[3], b.v[3])}};
}

static inline v16 v_sub(v16 a, v16 b)
{
    return (v16){{vsubq_f32(a.v[0], b.v[0]), vsubq_f32(a.v[1], b.v[1]), vsubq_f32(a.v[2], b.v[2]),
                  vsubq_f32(a.v[3], b.v[3])}};
}

static inline v16 v_mul(v16 a, v16 b)
{
    return (v16){{vmulq_f32(a.v[0], b.v[0]), vmulq_f32(a.v[1], b.v[1]), vmulq_f32(a.v[2], b.v[2]),
                  vmulq_f32(a.v[3], b.v[3])}};
}

static inline v16 v_div(v16 a, v16 b)
{
    return (v16){{vdivq_f32(a.v[0], b.v[0]), vdivq_f32(a.v[1], b.v[1]), vdivq_f32(a.v[2], b.v[2]),
                  vdivq_f32(a.v[3], b.v[3])}};
}

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    return (v16){{vfmaq_f32(c.v[0], a.v[0], b.v[0]), vfmaq_f32(c.v[1], a.v[1], b.v[1]),
                  vfmaq_f32(c.v[2], a.v[2], b.v[2]), vfmaq_f32(c.v[3], a.v[3], b.v[3])}};
}

/* vminq and vmaxq would return the NaN of either side; comparisons choose as ref does. */
static inline float32x4_t where_less(float32x4_t a, float32x4_t b, float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcltq_f32(a, b), x, y);
}

static inline v16 v_where_less(v16 a, v16 b, v16 x, v16 y)
{
    return (v16){
        {where_less(a.v[0], b.v[0], x.v[0], y.v[0]), where_less(a.v[1], b.v[1], x.v[1], y.v[1]),
         where_less(a.v[2], b.v[2], x.v[2], y.v[2]), where_less(a.v[3], b.v[3], x.v[3], y.v[3])}};
}

static inline v16 v_min(v16 a, v16 b)
{
    return v_where_less(a, b, a, b);
}

static inline v16 v_max(v16 a, v16 b)
{
    return v_where_less(b, a, a, b);
}

static inline float32x4_t power_of_two(int32x4_t n)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}

static inline float32x4_t scale_exp(float32x4_t p, float32x4_t t)
{
    int32x4_t n = vsubq_s32(vreinterpretq_s32_f32(t), vdupq_n_s32(0x4b400000)); /* 1.5 * 2^23 */
    int32x4_t half = vshrq_n_s32(n, 1);
    return vmulq_f32(vmulq_f32(p, power_of_two(half)), power_of_two(vsubq_s32(n, half)));
}

static inline v16 v_scale_exp(v16 p, v16 t)
{
    return (v16){{scale_exp(p.v[0], t.v[0]), scale_exp(p.v[1], t.v[1]), scale_exp(p.v[2], t.v[2]),
                  scale_exp(p.v[3], t.v[3])}};
}

#include "kernels/lanes.h"

/* ------------------------------------------------------------------ activations and exact sums */

/* 16 numbers to bytes (in -127..127) at q; their sum. */
static inline int16_t store_q8(const float *x, float inverse, int8_t *q)
{
    int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), inverse));
    int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), inverse));
    int32x4_t c = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 8), inverse));
    int32x4_t d = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 12), inverse));
    int16x8_t ab = vcombine_s16(vmovn_s32(a), vmovn_s32(b));
    int16x8_t cd = vcombine_s16(vmovn_s32(c), vmovn_s32(d));
    vst1q_s8(q, vcombine_s8(vmovn_s16(ab), vmovn_s16(cd)));
    return vaddvq_s16(vaddq_s16(ab, cd));
}

static void quantise(const float *x, size_t n_blocks, struct wk_q8 *out)
{
    const uint32x4_t abs_mask = vdupq_n_u32(0x7fffffff);
    for (size_t b = 0; b < n_blocks; b++, x += WK_BLOCK, out++) {
        uint32x4_t most = vdupq_n_u32(0);
        WK_UNROLL
        for (unsigned i = 0; i < WK_BLOCK; i += 4)
            most = vmaxq_u32(most, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), abs_mask));
        uint32_t top = vmaxvq_u32(most);
        float amax = wk_from_bits(top);
        if (top >= 0x7f800000u || amax < 0x1p-100f) {
            *out = (struct wk_q8){.scale = top >= 0x7f800000u ? NAN : 0};
            continue;
        }
        out->scale = amax / 127.0f;
        out->sum[0] = store_q8(x, 127.0f / amax, out->q);
        out->sum[1] = store_q8(x + 16, 127.0f / amax, out->q + 16);
    }
}

static inline void add_rounded(int64_t *sum, float64x2_t v)
{
    vst1q_s64(sum, vaddq_s64(vld1q_s64(sum), vcvtnq_s64_f64(vmulq_n_f64(v, 0x1p30))));
}

static bool sum_pieces(const float *x, int64_t *sum, size_t n)
{
    uint32x4_t good = vdupq_n_u32(UINT32_MAX);
    for (size_t i = 0; i < n; i += 4) {
        float32x4_t v = vld1q_f32(x + i);
        good = vandq_u32(good, vcaltq_f32(v, vdupq_n_f32(0x1p21f)));
        add_rounded(sum + i, vcvt_f64_f32(vget_low_f32(v)));
        add_rounded(sum + i + 2, vcvt_high_f64_f32(v));
    }
    return vminvq_u32(good) == UINT32_MAX;
}

/* ------------------------------------------------------------------ quantised products */

/* 4 activations to two rows. */
static inline int8x8_t spread(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return vreinterpret_s8_s32(vdup_n_s32(four));
}

static inline float32x4_t add_block(float32x4_t acc, int32x4_t idot, float32x4_t dw, float dx)
{
    return vfmaq_f32(acc, vcvtq_f32_s32(idot), vmulq_n_f32(dw, dx));
}

/* Products of four groups of 4 rows (w[g]: 4 columns of each) with 16 activations: 16 bits, a row's
 * columns side by side. |w| <= 32: a sum of four is at most 4 * 32 * 127 = 16256, a pair twice
 * that. */
WK_INLINE int16x8_t dot_small(const int8x16_t *w, const int8_t *q)
{
    int16x8_t lo = vmull_s8(vget_low_s8(w[0]), spread(q)),
              hi = vmull_s8(vget_high_s8(w[0]), spread(q));
    WK_UNROLL
    for (unsigned g = 1; g < 4; g++) {
        lo = vmlal_s8(lo, vget_low_s8(w[g]), spread(q + (size_t)g * 4));
        hi = vmlal_s8(hi, vget_high_s8(w[g]), spread(q + (size_t)g * 4));
    }
    return vpaddq_s16(lo, hi);
}

/* idot[j] of 4 rows of a tile (w at their first quants) with `rows` rows of activations. A product
 * of -128 and 127 has 16256, a pair of them just fits. */
WK_INLINE void idot_q8_0(const uint8_t *w, const struct wk_q8 *x, size_t ldx, unsigned rows,
                         int32x4_t *idot)
{
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        idot[j] = vdupq_n_s32(0);
    WK_UNROLL
    for (unsigned g = 0; g < 8; g++) {
        int8x16_t v = vreinterpretq_s8_u8(vld1q_u8(w + (size_t)g * 64));
        WK_UNROLL
        for (unsigned j = 0; j < rows; j++) {
            int8x8_t q = spread(x[j * ldx].q + (size_t)g * 4);
            int16x8_t lo = vmull_s8(vget_low_s8(v), q), hi = vmull_s8(vget_high_s8(v), q);
            idot[j] = vpadalq_s16(idot[j], vpaddq_s16(lo, hi));
        }
    }
}

WK_INLINE void idot_q4_0(const uint8_t *w, const struct wk_q8 *x, size_t ldx, unsigned rows,
                         int32x4_t *idot)
{
    const int8x16_t eight = vdupq_n_s8(8);
    int8x16_t first[4], second[4];
    WK_UNROLL
    for (unsigned g = 0; g < 4; g++) {
        uint8x16_t v = vld1q_u8(w + (size_t)g * 64);
        first[g] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15))), eight);
        second[g] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(v, 4)), eight);
    }
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++) {
        const int8_t *q = x[j * ldx].q;
        idot[j] = vpaddlq_s16(dot_small(first, q));
        idot[j] = vpadalq_s16(idot[j], dot_small(second, q + 16));
    }
}

/* `scales` are those of the 4 rows. */
WK_INLINE void idot_q6_k(const uint8_t *w, const int8_t *scales, const struct wk_q8 *x, size_t ldx,
                         unsigned rows, int32x4_t *idot)
{
    const uint8x16_t low = vdupq_n_u8(15), high = vdupq_n_u8(0x30);
    int8x16_t first[4], second[4];
    int32x4_t scale[2];
    for (unsigned h = 0; h < 2; h++) {
        const int8_t *s = scales + (size_t)h * WK_TILE;
        scale[h] = (int32x4_t){s[0], s[1], s[2], s[3]};
    }
    WK_UNROLL
    for (unsigned g = 0; g < 4; g++) {
        uint8x16_t v = vld1q_u8(w + (size_t)g * 64);
        uint8x16_t top = vld1q_u8(w + 256 + (size_t)(g / 2) * 64);
        uint8x16_t a = g % 2 == 0 ? vshlq_n_u8(top, 4) : top;
        uint8x16_t b = g % 2 == 0 ? vshlq_n_u8(top, 2) : vshrq_n_u8(top, 2);
        a = vorrq_u8(vandq_u8(v, low), vandq_u8(a, high));
        b = vorrq_u8(vshrq_n_u8(v, 4), vandq_u8(b, high));
        first[g] = vsubq_s8(vreinterpretq_s8_u8(a), vdupq_n_s8(32));
        second[g] = vsubq_s8(vreinterpretq_s8_u8(b), vdupq_n_s8(32));
    }
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++) {
        const int8_t *q = x[j * ldx].q;
        idot[j] = vmulq_s32(vpaddlq_s16(dot_small(first, q)), scale[0]);
        idot[j] = vmlaq_s32(idot[j], vpaddlq_s16(dot_small(second, q + 16)), scale[1]);
    }
}

/* `rows` rows (a constant, at most 4) of one tile; the type is a constant. */
WK_INLINE void dot_rows(const struct wk_dot *d, uint32_t t, uint32_t i, unsigned rows,
                        enum wk_type type, float *out)
{
    const uint8_t *tile = d->w + t * d->tile_bytes;
    const struct wk_q8 *x = d->q8 + i * d->ldx + d->col / WK_BLOCK;
    v16 acc[4];
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        acc[j] = v_set(0);
    for (uint32_t c = d->col; c < d->col + d->cols; c += WK_BLOCK, x++) {
        const uint8_t *w = tile;
        size_t s = c % WK_Q6_K_COLS / WK_BLOCK;
        if (type == WK_Q6_K)
            w += (size_t)(c / WK_Q6_K_COLS) * WK_Q6_K_BYTES;
        else
            w += (size_t)(c / WK_BLOCK) * (type == WK_Q8_0 ? WK_Q8_0_BYTES : WK_Q4_0_BYTES);
        WK_UNROLL
        for (unsigned k = 0; k < 4; k++) {
            int32x4_t idot[4];
            float32x4_t dw = widen4(vld1_u16((const uint16_t *)(const void *)w + (size_t)k * 4));
            if (type == WK_Q8_0)
                idot_q8_0(w + WK_SCALES + (size_t)k * 16, x, d->ldx, rows, idot);
            else if (type == WK_Q4_0)
                idot_q4_0(w + WK_SCALES + (size_t)k * 16, x, d->ldx, rows, idot);
            else
                idot_q6_k(w + WK_Q6_K_QUANTS + s * WK_Q6_K_SUB + (size_t)k * 16,
                          (const int8_t *)w + WK_SCALES + s * 2 * WK_TILE + (size_t)k * 4, x,
                          d->ldx, rows, idot);
            WK_UNROLL
            for (unsigned j = 0; j < rows; j++)
                acc[j].v[k] = add_block(acc[j].v[k], idot[j], dw, x[j * d->ldx].scale);
        }
    }
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        v_store(out + ((size_t)t * d->n + i + j) * WK_TILE, acc[j]);
}

WK_INLINE void dot_tiles(const struct wk_dot *d, enum wk_type type, float *out)
{
    for (uint32_t t = 0; t < d->tiles; t++) {
        uint32_t i = 0;
        for (; d->n - i >= 4; i += 4)
            dot_rows(d, t, i, 4, type, out);
        for (; d->n - i >= 2; i += 2)
            dot_rows(d, t, i, 2, type, out);
        for (; i < d->n; i++)
            dot_rows(d, t, i, 1, type, out);
    }
}

static void dot_q8_0(const struct wk_dot *d, float *out)
{
    dot_tiles(d, WK_Q8_0, out);
}

static void dot_q4_0(const struct wk_dot *d, float *out)
{
    dot_tiles(d, WK_Q4_0, out);
}

static void dot_q6_k(const struct wk_dot *d, float *out)
{
    dot_tiles(d, WK_Q6_K, out);
}

void wk_fill_neon(struct wk_table *table)
{
    fill_lanes(table);
    table->blas_rows = 64;
    table->quantise = quantise;
    table->sum_pieces = sum_pieces;
    table->dot[WK_Q8_0] = dot_q8_0;
    table->dot[WK_Q4_0] = dot_q4_0;
    table->dot[WK_Q6_K] = dot_q6_k;
}
