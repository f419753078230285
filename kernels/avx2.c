/*
 * AVX2 with FMA and F16C: 16 lanes are two registers, rows 0 to 7 and 8 to 15 of a tile. Byte
 * products go through vpmaddubsw, whose 16-bit sums saturate: each use says why its sums stay below
 * 2^15.
 */
#include "kernels/formats.h"
#include "kernels/table.h"

#include <immintrin.h>

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

#include "kernels/lanes.h"

/* ------------------------------------------------------------------ activations and exact sums */

static inline uint32_t greatest(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(1, 0, 3, 2)));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(2, 3, 0, 1)));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

/* 16 numbers to bytes (in -127..127) at q; their sum. */
static inline int16_t store_q8(const float *x, __m256 inverse, int8_t *q)
{
    __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
    __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), inverse));
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), _MM_SHUFFLE(3, 1, 2, 0));
    __m128i sum = _mm_add_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((void *)q, _mm_packs_epi16(_mm256_castsi256_si128(words),
                                                _mm256_extracti128_si256(words, 1)));
    sum = _mm_madd_epi16(sum, _mm_set1_epi16(1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(1, 0, 3, 2)));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(2, 3, 0, 1)));
    return (int16_t)_mm_cvtsi128_si32(sum);
}

static void quantise(const float *x, size_t n_blocks, struct wk_q8 *out)
{
    const __m256i abs_mask = _mm256_set1_epi32(0x7fffffff);
    for (size_t b = 0; b < n_blocks; b++, x += WK_BLOCK, out++) {
        __m256i most = _mm256_setzero_si256();
        WK_UNROLL
        for (unsigned i = 0; i < WK_BLOCK; i += 8)
            most = _mm256_max_epi32(
                most, _mm256_and_si256(_mm256_loadu_si256((const void *)(x + i)), abs_mask));
        uint32_t top = greatest(most);
        float amax = wk_from_bits(top);
        if (top >= 0x7f800000u || amax < 0x1p-100f) {
            float none = top >= 0x7f800000u ? NAN : 0;
            *out = (struct wk_q8){.scale = none, .scaled_sum = none};
            continue;
        }
        __m256 inverse = _mm256_set1_ps(127.0f / amax);
        out->scale = amax / 127.0f;
        out->sum[0] = store_q8(x, inverse, out->q);
        out->sum[1] = store_q8(x + 16, inverse, out->q + 16);
        out->neg_sum = -(out->sum[0] + out->sum[1]);
        out->scaled_sum = out->scale * (float)(out->sum[0] + out->sum[1]);
    }
}

/* AVX2 converts no f64 to int64: below 2^51 adding 1.5 * 2^52 leaves the integer in the low bits.
 */
static bool sum_pieces(const float *x, int64_t *sum, size_t n)
{
    const __m256d unit = _mm256_set1_pd(0x1p30), magic = _mm256_set1_pd(WK_MAGIC64);
    const __m128 limit = _mm_set1_ps(0x1p21f), sign = _mm_set1_ps(-0.0f);
    __m128 bad = _mm_setzero_ps();
    for (size_t i = 0; i < n; i += 4) {
        __m128 v = _mm_loadu_ps(x + i);
        __m256d t = _mm256_add_pd(_mm256_mul_pd(_mm256_cvtps_pd(v), unit), magic);
        __m256i whole = _mm256_sub_epi64(_mm256_castpd_si256(t), _mm256_castpd_si256(magic));
        __m256i old = _mm256_loadu_si256((const void *)(sum + i));
        bad = _mm_or_ps(bad, _mm_cmpnlt_ps(_mm_andnot_ps(sign, v), limit));
        _mm256_storeu_si256((void *)(sum + i), _mm256_add_epi64(old, whole));
    }
    return _mm_movemask_ps(bad) == 0;
}

/* ------------------------------------------------------------------ quantised products */

typedef __m256i qb;
typedef __m256i qi;
typedef __m256 qf;
enum { Q_ROWS = 8, Q_MOST_ROWS = 4 };

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

/* Groups of codes of so many bits whose products fit in 16 bits together: 2 * (2^bits - 1) * 127
 * times the groups is at most 30480 for 8 groups of 4 bits, 31496 for 4 of 5, 32004 for 2 of 6. */
static inline unsigned groups_together(unsigned bits)
{
    return bits <= 4 ? 8 : bits == 5 ? 4 : 2;
}

/* Adds groups [first, first + n) (constants) times `rows` rows to sum[j], each pair of 16-bit sums
 * multiplied with `scale`. */
WK_INLINE void small_dots(const qb *group, unsigned first, unsigned n, unsigned bits, qi scale,
                          const struct wk_q8 *x, size_t ldx, unsigned rows, qi *sum)
{
    const unsigned together = groups_together(bits);
    qi pairs[Q_MOST_ROWS];
    WK_UNROLL
    for (unsigned g = 0; g < n; g++)
        WK_UNROLL
    for (unsigned j = 0; j < rows; j++) {
        const int8_t *q = x[j * ldx].q + (size_t)(first + g) * 4;
        qi two = _mm256_maddubs_epi16(group[first + g], q_spread(q));
        pairs[j] = g % together == 0 ? two : _mm256_add_epi16(pairs[j], two);
        if ((g + 1) % together == 0 || g + 1 == n)
            sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(pairs[j], scale));
    }
}

/* Signed bytes: |w| <= 128 and x with the sign of w: two products are at most 2 * 128 * 127 =
 * 32512. */
WK_INLINE void wide_dots(const qb *group, const struct wk_q8 *x, size_t ldx, unsigned rows, qi *sum)
{
    const qi ones = _mm256_set1_epi16(1);
    WK_UNROLL
    for (unsigned g = 0; g < 8; g++) {
        qi size = _mm256_abs_epi8(group[g]);
        WK_UNROLL
        for (unsigned j = 0; j < rows; j++) {
            qi signed_x = _mm256_sign_epi8(q_spread(x[j * ldx].q + (size_t)g * 4), group[g]);
            qi pairs = _mm256_maddubs_epi16(size, signed_x);
            sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(pairs, ones));
        }
    }
}

WK_INLINE void q_dots(enum wk_type type, const qb *group, const struct wk_q8 *x, size_t ldx,
                      unsigned rows, qi *idot)
{
    const int offset = wk_code_offset(type);
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        idot[j] =
            offset == 0 ? _mm256_setzero_si256() : _mm256_set1_epi32(x[j * ldx].neg_sum * offset);
    if (wk_wide_values(type))
        wide_dots(group, x, ldx, rows, idot);
    else
        small_dots(group, 0, 8, wk_formats[type].bits, _mm256_set1_epi16(1), x, ldx, rows, idot);
}

/* The scale of a half is multiplied where pairs become 32 bits wide. */
WK_INLINE void q_half_dots(enum wk_type type, const qb *group, qi first, qi second,
                           const struct wk_q8 *x, size_t ldx, unsigned rows, qi *idot)
{
    const short offset = (short)-wk_code_offset(type);
    const qi pair = _mm256_mullo_epi16(q_int_pair(first, second), _mm256_set1_epi16(offset));
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        idot[j] = offset == 0 ? _mm256_setzero_si256()
                              : _mm256_madd_epi16(pair, q_spread(x[j * ldx].sum));
    const unsigned bits = wk_formats[type].bits;
    small_dots(group, 0, 4, bits, q_int_pair(first, first), x, ldx, rows, idot);
    small_dots(group, 4, 4, bits, q_int_pair(second, second), x, ldx, rows, idot);
}

#include "kernels/quants.h"

void wk_fill_avx2(struct wk_table *table)
{
    fill_lanes(table);
    fill_quants(table);
    table->blas_rows = 64;
    table->quantise = quantise;
    table->sum_pieces = sum_pieces;
}
