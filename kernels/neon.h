/*
 * NEON in registers: what lanes.h and quants.h ask for. 16 lanes are four registers of four rows.
 */
#ifndef WEFT_KERNELS_NEON_H
#define WEFT_KERNELS_NEON_H

#include "kernels/formats.h"
#include "kernels/math.h"
#include "kernels/table.h"

#include <arm_neon.h>
#include <string.h>

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

static inline float32x4_t widen_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

static inline v16 v_load_bf16(const uint16_t *p)
{
    return (v16){{widen_bf16(p), widen_bf16(p + 4), widen_bf16(p + 8), widen_bf16(p + 12)}};
}

static inline v16 v_load_i8(const int8_t *p)
{
    int8x16_t b = vld1q_s8(p);
    int16x8_t lo = vmovl_s8(vget_low_s8(b)), hi = vmovl_s8(vget_high_s8(b));
    return (v16){
        {vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
         vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))}};
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

static inline float32x4_t copysign4(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vdupq_n_u32(0x80000000u), b, a);
}

static inline v16 v_copysign(v16 a, v16 b)
{
    return (v16){{copysign4(a.v[0], b.v[0]), copysign4(a.v[1], b.v[1]), copysign4(a.v[2], b.v[2]),
                  copysign4(a.v[3], b.v[3])}};
}

static inline v16 v_down(v16 a, unsigned k)
{
    if (k == 8)
        return (v16){{a.v[2], a.v[3], a.v[2], a.v[3]}};
    if (k == 4)
        a.v[0] = a.v[1];
    else
        a.v[0] = k == 2 ? vextq_f32(a.v[0], a.v[0], 2) : vextq_f32(a.v[0], a.v[0], 1);
    return a;
}

static inline float v_first(v16 a)
{
    return vgetq_lane_f32(a.v[0], 0);
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

/* ------------------------------------------------------------------ quantised products */

typedef uint8x16_t qb;
typedef int32x4_t qi;
typedef float32x4_t qf;
enum { Q_ROWS = 4, Q_MOST_ROWS = 8 };

static inline qb q_load(const uint8_t *p)
{
    return vld1q_u8(p);
}

static inline qb q_byte(uint8_t x)
{
    return vdupq_n_u8(x);
}

static inline qb q_and(qb a, qb b)
{
    return vandq_u8(a, b);
}

static inline qb q_or_and(qb a, qb b, qb c)
{
    return vorrq_u8(a, vandq_u8(b, c));
}

/* The compiler's own shifts: those of arm_neon.h want a literal. */
static inline qb q_shl(qb v, unsigned n)
{
    return v << (uint8_t)n;
}

static inline qb q_shr(qb v, unsigned n)
{
    return v >> (uint8_t)n;
}

static inline qb q_iq4(qb v)
{
    return vreinterpretq_u8_s8(vqtbl1q_s8(vld1q_s8(wk_iq4_values), v));
}

static inline qi q_small(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide)));
}

static inline qi q_small_signed(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)))));
}

static inline qi q_iand(qi v, int x)
{
    return vandq_s32(v, vdupq_n_s32(x));
}

static inline qi q_ior(qi a, qi b)
{
    return vorrq_s32(a, b);
}

static inline qi q_ishl(qi v, unsigned n)
{
    return v << (int)n;
}

static inline qi q_ishr(qi v, unsigned n)
{
    return v >> (int)n;
}

static inline qi q_iadd(qi v, int x)
{
    return vaddq_s32(v, vdupq_n_s32(x));
}

static inline qi q_ineg(qi v)
{
    return vnegq_s32(v);
}

static inline qf q_float(qi v)
{
    return vcvtq_f32_s32(v);
}

static inline qi q_none(void)
{
    return vdupq_n_s32(0);
}

static inline qf q_zero(void)
{
    return vdupq_n_f32(0);
}

static inline qf q_mul(qf a, qf b)
{
    return vmulq_f32(a, b);
}

static inline qf q_mul1(qf a, float x)
{
    return vmulq_n_f32(a, x);
}

static inline qf q_fma(qf a, qf b, qf c)
{
    return vfmaq_f32(c, a, b);
}

static inline qf q_fma1(qf a, float x, qf c)
{
    return vfmaq_n_f32(c, a, x);
}

static inline qf q_scales(const uint8_t *p)
{
    return widen4(vld1_u16((const uint16_t *)(const void *)p));
}

static inline void q_store(float *p, qf v)
{
    vst1q_f32(p, v);
}

/* sum[i] += v[i] in units of 2^-30, plus the bits of WK_UNIT64. */
static inline void add_units2(int64_t *sum, float64x2_t v)
{
    float64x2_t t = vaddq_f64(v, vdupq_n_f64(WK_UNIT64));
    vst1q_s64(sum, vaddq_s64(vld1q_s64(sum), vreinterpretq_s64_f64(t)));
}

static inline void q_add_units(int64_t *sum, qf v)
{
    add_units2(sum, vcvt_f64_f32(vget_low_f32(v)));
    add_units2(sum + 2, vcvt_high_f64_f32(v));
}

/* The greater of top and the bits of v without sign; and the greatest lane. */
static inline qi q_top(qi top, qf v)
{
    return vmaxq_s32(top, vandq_s32(vreinterpretq_s32_f32(v), vdupq_n_s32(0x7fffffff)));
}

static inline uint32_t q_greatest(qi v)
{
    return (uint32_t)vmaxvq_s32(v);
}

static inline void v_add_units(int64_t *sum, v16 v)
{
    for (unsigned i = 0; i < 4; i++)
        q_add_units(sum + (size_t)i * 4, v.v[i]);
}

static inline uint32_t v_top(v16 v)
{
    return q_greatest(q_top(q_top(q_top(q_top(vdupq_n_s32(0), v.v[0]), v.v[1]), v.v[2]), v.v[3]));
}

static inline qi q_pair_sums(qi first, qi second, const int16_t *sum)
{
    return vmlaq_n_s32(vmulq_n_s32(first, sum[0]), second, sum[1]);
}

/* What the offset of codes adds to a block's dot, to begin with. */
static inline qi q_offset(enum wk_type type, const struct wk_q8 *x)
{
    return vdupq_n_s32(x->neg_sum * wk_code_offset(type));
}

/* first * a + second * b less what the codes' offset adds. */
static inline qi q_halves(enum wk_type type, qi first, qi second, qi a, qi b, const struct wk_q8 *x)
{
    qi sum = vmlaq_s32(vmulq_s32(first, a), second, b);
    int offset = wk_code_offset(type);
    return offset == 0 ? sum : vmlaq_n_s32(sum, q_pair_sums(first, second, x->sum), -offset);
}

#endif
