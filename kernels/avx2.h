/*
 * AVX2 with FMA and F16C in registers: what lanes.h and quants.h ask for. 16 lanes are two
 * registers, rows 0 to 7 and 8 to 15 of a tile.
 */
#ifndef WEFT_KERNELS_AVX2_H
#define WEFT_KERNELS_AVX2_H

#include "kernels/formats.h"
#include "kernels/math.h"
#include "kernels/table.h"

#include <immintrin.h>
#include <string.h>

typedef struct {
    __m256 lo, hi;
} v16;
enum { V_ACCUMULATORS = 4 }; /* 8 of 16 registers */

static inline v16 v_set(float x)
{
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

static inline v16 v_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

static inline void v_store(float *p, v16 v)
{
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
}

static inline v16 v_load_f16(const uint16_t *p)
{
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 8)))};
}

static inline __m256 widen_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static inline v16 v_load_bf16(const uint16_t *p)
{
    return (v16){widen_bf16(p), widen_bf16(p + 8)};
}

static inline __m256 widen_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}

static inline v16 v_load_i8(const int8_t *p)
{
    return (v16){widen_i8(p), widen_i8(p + 8)};
}

static inline void v_store_f16(uint16_t *p, v16 v)
{
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((void *)(p + 8), _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT));
}

static inline v16 v_add(v16 a, v16 b)
{
    return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}

static inline v16 v_sub(v16 a, v16 b)
{
    return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}

static inline v16 v_mul(v16 a, v16 b)
{
    return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}

static inline v16 v_div(v16 a, v16 b)
{
    return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

static inline v16 v_min(v16 a, v16 b)
{
    return (v16){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}

static inline v16 v_max(v16 a, v16 b)
{
    return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}

static inline v16 v_where_less(v16 a, v16 b, v16 x, v16 y)
{
    return (v16){_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
                 _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}

static inline __m256 copysign8(__m256 a, __m256 b)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b));
}

static inline v16 v_copysign(v16 a, v16 b)
{
    return (v16){copysign8(a.lo, b.lo), copysign8(a.hi, b.hi)};
}

static inline v16 v_down(v16 v, unsigned k)
{
    v.lo = k == 8   ? v.hi
           : k == 4 ? _mm256_permute2f128_ps(v.lo, v.lo, 0x11)
           : k == 2 ? _mm256_permute_ps(v.lo, 0xee)
                    : _mm256_permute_ps(v.lo, 0x55);
    return v;
}

static inline float v_first(v16 v)
{
    return _mm256_cvtss_f32(v.lo);
}

static inline __m256 power_of_two(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

static inline __m256 scale_exp(__m256 p, __m256 t)
{
    __m256i n =
        _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(0x4b400000)); /* 1.5 * 2^23 */
    __m256i half = _mm256_srai_epi32(n, 1);
    p = _mm256_mul_ps(p, power_of_two(half));
    return _mm256_mul_ps(p, power_of_two(_mm256_sub_epi32(n, half)));
}

static inline v16 v_scale_exp(v16 p, v16 t)
{
    return (v16){scale_exp(p.lo, t.lo), scale_exp(p.hi, t.hi)};
}

/* ------------------------------------------------------------------ quantised products */

typedef __m256i qb;
typedef __m256i qi;
typedef __m256 qf;
enum { Q_ROWS = 8 };

static inline qb q_load(const uint8_t *p)
{
    return _mm256_loadu_si256((const void *)p);
}

static inline qb q_byte(uint8_t x)
{
    return _mm256_set1_epi8((char)x);
}

static inline qb q_and(qb a, qb b)
{
    return _mm256_and_si256(a, b);
}

static inline qb q_or_and(qb a, qb b, qb c)
{
    return _mm256_or_si256(a, _mm256_and_si256(b, c));
}

static inline qb q_shl(qb v, unsigned n)
{
    return _mm256_slli_epi16(v, (int)n);
}

static inline qb q_shr(qb v, unsigned n)
{
    return _mm256_srli_epi16(v, (int)n);
}

static inline qb q_iq4(qb v)
{
    return _mm256_shuffle_epi8(
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)wk_iq4_values)), v);
}

static inline qi q_small(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
}

static inline qi q_small_signed(const uint8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p));
}

static inline qi q_iand(qi v, int x)
{
    return _mm256_and_si256(v, _mm256_set1_epi32(x));
}

static inline qi q_ior(qi a, qi b)
{
    return _mm256_or_si256(a, b);
}

static inline qi q_ishl(qi v, unsigned n)
{
    return _mm256_slli_epi32(v, (int)n);
}

static inline qi q_ishr(qi v, unsigned n)
{
    return _mm256_srl_epi32(v, _mm_cvtsi32_si128((int)n));
}

static inline qi q_iadd(qi v, int x)
{
    return _mm256_add_epi32(v, _mm256_set1_epi32(x));
}

static inline qi q_ineg(qi v)
{
    return _mm256_sub_epi32(_mm256_setzero_si256(), v);
}

static inline qf q_float(qi v)
{
    return _mm256_cvtepi32_ps(v);
}

static inline qi q_none(void)
{
    return _mm256_setzero_si256();
}

static inline qf q_zero(void)
{
    return _mm256_setzero_ps();
}

static inline qf q_mul(qf a, qf b)
{
    return _mm256_mul_ps(a, b);
}

static inline qf q_mul1(qf a, float x)
{
    return _mm256_mul_ps(a, _mm256_set1_ps(x));
}

static inline qf q_fma(qf a, qf b, qf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

static inline qf q_fma1(qf a, float x, qf c)
{
    return _mm256_fmadd_ps(a, _mm256_set1_ps(x), c);
}

static inline qf q_scales(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}

static inline void q_store(float *p, qf v)
{
    _mm256_storeu_ps(p, v);
}

/* sum[i] += v[i] in units of 2^-30, plus the bits of WK_UNIT64. */
static inline void add_units4(int64_t *sum, __m128 v)
{
    __m256d t = _mm256_add_pd(_mm256_cvtps_pd(v), _mm256_set1_pd(WK_UNIT64));
    __m256i old = _mm256_loadu_si256((const void *)sum);
    _mm256_storeu_si256((void *)sum, _mm256_add_epi64(old, _mm256_castpd_si256(t)));
}

static inline void q_add_units(int64_t *sum, qf v)
{
    add_units4(sum, _mm256_castps256_ps128(v));
    add_units4(sum + 4, _mm256_extractf128_ps(v, 1));
}

/* The greater of top and the bits of v without sign; and the greatest lane. */
static inline qi q_top(qi top, qf v)
{
    return _mm256_max_epi32(
        top, _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff)));
}

static inline uint32_t q_greatest(qi v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(1, 0, 3, 2)));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(2, 3, 0, 1)));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

static inline void v_add_units(int64_t *sum, v16 v)
{
    q_add_units(sum, v.lo);
    q_add_units(sum + 8, v.hi);
}

static inline uint32_t v_top(v16 v)
{
    return q_greatest(q_top(q_top(_mm256_setzero_si256(), v.lo), v.hi));
}

/* 4 activations (or 2 sums) to every row. */
static inline qi q_spread(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

/* Two small integers of every row as a pair of 16 bits. */
static inline qi q_int_pair(qi first, qi second)
{
    return _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa);
}

static inline qi q_pair_sums(qi first, qi second, const int16_t *sum)
{
    return _mm256_madd_epi16(q_int_pair(first, second), q_spread(sum));
}

#endif
