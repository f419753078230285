/*
 * AVX-512 in registers: what lanes.h and quants.h ask for. A tile's 16 rows are the lanes of one
 * register.
 */
#ifndef WEFT_KERNELS_AVX512_H
#define WEFT_KERNELS_AVX512_H

#include "kernels/formats.h"
#include "kernels/math.h"
#include "kernels/table.h"

#include <immintrin.h>
#include <string.h>

typedef __m512 v16;
enum { V_ACCUMULATORS = 16 }; /* of 32 registers */

static inline v16 v_set(float x)
{
    return _mm512_set1_ps(x);
}

static inline v16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void v_store(float *p, v16 v)
{
    _mm512_storeu_ps(p, v);
}

static inline v16 v_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

static inline v16 v_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline v16 v_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}

static inline void v_store_f16(uint16_t *p, v16 v)
{
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

static inline v16 v_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

static inline v16 v_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

static inline v16 v_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

static inline v16 v_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline v16 v_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}

static inline v16 v_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

static inline v16 v_where_less(v16 a, v16 b, v16 x, v16 y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}

static inline v16 v_copysign(v16 a, v16 b)
{
    const __m512i sign = _mm512_set1_epi32(INT32_MIN); /* 0xca: bit by bit, sign ? b : a */
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(sign, _mm512_castps_si512(b), _mm512_castps_si512(a), 0xca));
}

static inline v16 v_down(v16 v, unsigned k)
{
    return k == 8   ? _mm512_shuffle_f32x4(v, v, 0xee)
           : k == 4 ? _mm512_shuffle_f32x4(v, v, 0x55)
           : k == 2 ? _mm512_permute_ps(v, 0xee)
                    : _mm512_permute_ps(v, 0x55);
}

static inline float v_first(v16 v)
{
    return _mm512_cvtss_f32(v);
}

static inline __m512i power_of_two(__m512i n)
{
    return _mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23);
}

static inline v16 v_scale_exp(v16 p, v16 t)
{
    __m512i n =
        _mm512_sub_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(0x4b400000)); /* 1.5 * 2^23 */
    __m512i half = _mm512_srai_epi32(n, 1);
    p = _mm512_mul_ps(p, _mm512_castsi512_ps(power_of_two(half)));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(power_of_two(_mm512_sub_epi32(n, half))));
}

/* ------------------------------------------------------------------ quantised products */

typedef __m512i qb;
typedef __m512i qi;
typedef __m512 qf;
enum { Q_ROWS = 16 };

static inline qb q_load(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}

static inline qb q_byte(uint8_t x)
{
    return _mm512_set1_epi8((char)x);
}

static inline qb q_and(qb a, qb b)
{
    return _mm512_and_si512(a, b);
}

static inline qb q_or_and(qb a, qb b, qb c)
{
    return _mm512_ternarylogic_epi32(a, b, c, 0xf8);
}

static inline qb q_shl(qb v, unsigned n)
{
    return _mm512_slli_epi16(v, n);
}

static inline qb q_shr(qb v, unsigned n)
{
    return _mm512_srli_epi16(v, n);
}

static inline qb q_iq4(qb v)
{
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)wk_iq4_values)),
                               v);
}

static inline qi q_small(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
}

static inline qi q_small_signed(const uint8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p));
}

static inline qi q_iand(qi v, int x)
{
    return _mm512_and_si512(v, _mm512_set1_epi32(x));
}

static inline qi q_ior(qi a, qi b)
{
    return _mm512_or_si512(a, b);
}

static inline qi q_ishl(qi v, unsigned n)
{
    return _mm512_slli_epi32(v, n);
}

static inline qi q_ishr(qi v, unsigned n)
{
    return _mm512_srl_epi32(v, _mm_cvtsi32_si128((int)n));
}

static inline qi q_iadd(qi v, int x)
{
    return _mm512_add_epi32(v, _mm512_set1_epi32(x));
}

static inline qi q_ineg(qi v)
{
    return _mm512_sub_epi32(_mm512_setzero_si512(), v);
}

static inline qf q_float(qi v)
{
    return _mm512_cvtepi32_ps(v);
}

static inline qi q_none(void)
{
    return _mm512_setzero_si512();
}

static inline qf q_zero(void)
{
    return _mm512_setzero_ps();
}

static inline qf q_mul(qf a, qf b)
{
    return _mm512_mul_ps(a, b);
}

static inline qf q_mul1(qf a, float x)
{
    return _mm512_mul_ps(a, _mm512_set1_ps(x));
}

static inline qf q_fma(qf a, qf b, qf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline qf q_fma1(qf a, float x, qf c)
{
    return _mm512_fmadd_ps(a, _mm512_set1_ps(x), c);
}

static inline qf q_scales(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

static inline void q_store(float *p, qf v)
{
    _mm512_storeu_ps(p, v);
}

/* sum[i] += v[i] in units of 2^-30, plus the bits of WK_UNIT64. */
static inline void q_add_units(int64_t *sum, qf v)
{
    const __m512d unit = _mm512_set1_pd(WK_UNIT64);
    __m512d lo = _mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(v)), unit);
    __m512d hi = _mm512_add_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)), unit);
    _mm512_storeu_si512(sum, _mm512_add_epi64(_mm512_loadu_si512(sum), _mm512_castpd_si512(lo)));
    _mm512_storeu_si512(sum + 8,
                        _mm512_add_epi64(_mm512_loadu_si512(sum + 8), _mm512_castpd_si512(hi)));
}

/* The greater of top and the bits of v without sign; and the greatest lane. */
static inline qi q_top(qi top, qf v)
{
    return _mm512_max_epi32(
        top, _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff)));
}

static inline uint32_t q_greatest(qi v)
{
    return (uint32_t)_mm512_reduce_max_epi32(v);
}

static inline void v_add_units(int64_t *sum, v16 v)
{
    q_add_units(sum, v);
}

static inline uint32_t v_top(v16 v)
{
    return q_greatest(q_top(_mm512_setzero_si512(), v));
}

/* 4 activations (or 2 sums) to every row. */
static inline qi q_spread(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* Two small integers of every row as a pair of 16 bits, to be multiplied with a pair of sums. */
static inline qi q_int_pair(qi first, qi second)
{
    return _mm512_mask_blend_epi16(0xaaaaaaaau, first, _mm512_slli_epi32(second, 16));
}

static inline qi q_pair_sums(qi first, qi second, const int16_t *sum)
{
    return _mm512_madd_epi16(q_int_pair(first, second), q_spread(sum));
}

#endif
