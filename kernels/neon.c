/*
 * NEON of plain ARMv8.0 (a Raspberry Pi 3 or 4). Codes are small enough to be signed bytes; each
 * sum of 16 bits says why it stays below 2^15.
 */
#include "kernels/neon.h"

#include "kernels/lanes.h"

/* ------------------------------------------------------------------ activations */

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
            float none = top >= 0x7f800000u ? NAN : 0;
            *out = (struct wk_q8){.scale = none, .scaled_sum = none};
            continue;
        }
        out->scale = amax / 127.0f;
        out->sum[0] = store_q8(x, 127.0f / amax, out->q);
        out->sum[1] = store_q8(x + 16, 127.0f / amax, out->q + 16);
        out->neg_sum = -(out->sum[0] + out->sum[1]);
        out->scaled_sum = out->scale * (float)(out->sum[0] + out->sum[1]);
    }
}

/* ------------------------------------------------------------------ quantised products */

/* 4 activations to two rows. */
static inline int8x8_t spread(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof four);
    return vreinterpret_s8_s32(vdup_n_s32(four));
}

/* Groups [first, first + n) of codes times one row. A lane of 16 bits takes n products of at most
 * (2^bits - 1) * 127: 8 of 5 bits give 31496, 4 of 6 bits 32004; with 4 bits two lanes still fit
 * together (30480). */
WK_INLINE qi small_dot(const qb *group, unsigned first, unsigned n, unsigned bits, const int8_t *q)
{
    int16x8_t lo = vdupq_n_s16(0), hi = lo;
    WK_UNROLL
    for (unsigned g = first; g < first + n; g++) {
        int8x16_t w = vreinterpretq_s8_u8(group[g]);
        int8x8_t x = spread(q + (size_t)g * 4);
        lo = vmlal_s8(lo, vget_low_s8(w), x);
        hi = vmlal_s8(hi, vget_high_s8(w), x);
    }
    return bits <= 4 ? vpaddlq_s16(vpaddq_s16(lo, hi))
                     : vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi));
}

/* A product of -128 and 127 has 16256, a pair of them just fits. */
WK_INLINE qi wide_dot(const qb *group, const int8_t *q)
{
    qi sum = vdupq_n_s32(0);
    WK_UNROLL
    for (unsigned g = 0; g < 8; g++) {
        int8x16_t w = vreinterpretq_s8_u8(group[g]);
        int8x8_t x = spread(q + (size_t)g * 4);
        int16x8_t lo = vmull_s8(vget_low_s8(w), x), hi = vmull_s8(vget_high_s8(w), x);
        sum = vpadalq_s16(sum, vpaddq_s16(lo, hi));
    }
    return sum;
}

WK_INLINE void q_dots(enum wk_type type, const qb *group, const struct wk_q8 *x, size_t ldx,
                      unsigned rows, qi *idot)
{
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++) {
        const struct wk_q8 *xj = x + j * ldx;
        idot[j] = wk_wide_values(type) ? wide_dot(group, xj->q)
                                       : small_dot(group, 0, 8, wk_formats[type].bits, xj->q);
        if (wk_code_offset(type) != 0)
            idot[j] = vaddq_s32(idot[j], q_offset(type, xj));
    }
}

WK_INLINE void q_half_dots(enum wk_type type, const qb *group, qi first, qi second,
                           const struct wk_q8 *x, size_t ldx, unsigned rows, qi *idot)
{
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++) {
        const struct wk_q8 *xj = x + j * ldx;
        qi a = small_dot(group, 0, 4, wk_formats[type].bits, xj->q);
        qi b = small_dot(group, 4, 4, wk_formats[type].bits, xj->q);
        idot[j] = q_halves(type, first, second, a, b, xj);
    }
}

#include "kernels/quants.h"

void wk_fill_neon(struct wk_table *table)
{
    fill_lanes(table);
    fill_quants(table);
    table->blas_rows = 64;
    table->quantise = quantise;
}
