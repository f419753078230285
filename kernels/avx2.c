/*
 * AVX2. Byte products go through vpmaddubsw, whose 16-bit sums saturate: each use says why its sums
 * stay below 2^15.
 */
#include "kernels/avx2.h"

#include "kernels/lanes.h"

/* ------------------------------------------------------------------ activations */

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
        uint32_t top = q_greatest(most);
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

/* ------------------------------------------------------------------ quantised products */

enum { Q_MOST_ROWS = 8 };

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
}
