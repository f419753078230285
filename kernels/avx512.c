/*
 * AVX-512 without VNNI: bytes are multiplied by vpmaddubsw, whose 16-bit sums saturate: each use
 * says why its sums stay below 2^15.
 */
#include "kernels/avx512.h"

#include "kernels/lanes.h"

/* ------------------------------------------------------------------ activations */

static void quantise(const float *x, size_t n_blocks, struct wk_q8 *out)
{
    const __m512i abs_mask = _mm512_set1_epi32(0x7fffffff);
    for (size_t b = 0; b < n_blocks; b++, x += WK_BLOCK, out++) {
        __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
        uint32_t top = (uint32_t)_mm512_reduce_max_epi32(
            _mm512_max_epi32(_mm512_and_epi32(_mm512_castps_si512(x0), abs_mask),
                             _mm512_and_epi32(_mm512_castps_si512(x1), abs_mask)));
        float amax = wk_from_bits(top);
        if (top >= 0x7f800000u || amax < 0x1p-100f) {
            float none = top >= 0x7f800000u ? NAN : 0;
            *out = (struct wk_q8){.scale = none, .scaled_sum = none};
            continue;
        }
        __m512 inverse = _mm512_set1_ps(127.0f / amax);
        __m512i q0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, inverse));
        __m512i q1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, inverse));
        out->scale = amax / 127.0f;
        int sum0 = _mm512_reduce_add_epi32(q0), sum1 = _mm512_reduce_add_epi32(q1);
        out->sum[0] = (int16_t)sum0;
        out->sum[1] = (int16_t)sum1;
        out->neg_sum = -(sum0 + sum1);
        out->scaled_sum = out->scale * (float)(sum0 + sum1);
        _mm_storeu_si128((void *)out->q, _mm512_cvtepi32_epi8(q0));
        _mm_storeu_si128((void *)(out->q + 16), _mm512_cvtepi32_epi8(q1));
    }
}

/* ------------------------------------------------------------------ quantised products */

enum { Q_MOST_ROWS = 8 };

/* Dots of the groups [first, first + n) with one row, less the offset of the codes nowhere. Codes
 * of `bits` bits and pairs of products: 2 * (2^bits - 1) * 127 * (groups in 16 bits) is at most
 * 30480 for 8 groups of 4 bits, 31496 for 4 of 5 bits, 32004 for 2 of 6 bits. */
WK_INLINE qi small_dot(const qb *group, unsigned first, unsigned n, unsigned bits, const int8_t *q)
{
    const qi ones = _mm512_set1_epi16(1);
    const unsigned together = bits <= 4 ? 8 : bits == 5 ? 4 : 2;
    qi sum = _mm512_setzero_si512(), narrow16 = sum;
    WK_UNROLL
    for (unsigned g = 0; g < n; g++) {
        qi pairs = _mm512_maddubs_epi16(group[first + g], q_spread(q + (size_t)(first + g) * 4));
        narrow16 = g % together == 0 ? pairs : _mm512_add_epi16(narrow16, pairs);
        if ((g + 1) % together == 0 || g + 1 == n)
            sum = _mm512_add_epi32(sum, _mm512_madd_epi16(narrow16, ones));
    }
    return sum;
}

/* Signed bytes: |w| <= 128 and x with the sign of w: two products are at most 2 * 128 * 127 =
 * 32512. */
WK_INLINE qi wide_dot(const qb *group, const int8_t *q)
{
    const qi ones = _mm512_set1_epi16(1);
    qi sum = _mm512_setzero_si512();
    WK_UNROLL
    for (unsigned g = 0; g < 8; g++) {
        qi x = q_spread(q + (size_t)g * 4);
        x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(group[g]), _mm512_setzero_si512(), x);
        qi pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(group[g]), x);
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, ones));
    }
    return sum;
}

WK_INLINE void q_dots(enum wk_type type, const qb *group, const struct wk_q8 *x, size_t ldx,
                      unsigned rows, qi *idot)
{
    const int offset = wk_code_offset(type);
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++) {
        const struct wk_q8 *xj = x + j * ldx;
        if (wk_wide_values(type)) {
            idot[j] = wide_dot(group, xj->q);
        } else {
            idot[j] = small_dot(group, 0, 8, wk_formats[type].bits, xj->q);
            if (offset != 0)
                idot[j] = _mm512_add_epi32(idot[j], _mm512_set1_epi32(xj->neg_sum * offset));
        }
    }
}

WK_INLINE void q_half_dots(enum wk_type type, const qb *group, qi first, qi second,
                           const struct wk_q8 *x, size_t ldx, unsigned rows, qi *idot)
{
    const short offset = (short)-wk_code_offset(type);
    const qi pair = _mm512_mullo_epi16(q_int_pair(first, second), _mm512_set1_epi16(offset));
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++) {
        const struct wk_q8 *xj = x + j * ldx;
        qi a = small_dot(group, 0, 4, wk_formats[type].bits, xj->q);
        qi b = small_dot(group, 4, 4, wk_formats[type].bits, xj->q);
        idot[j] = _mm512_add_epi32(_mm512_mullo_epi32(a, first), _mm512_mullo_epi32(b, second));
        if (offset != 0)
            idot[j] = _mm512_add_epi32(idot[j], _mm512_madd_epi16(pair, q_spread(xj->sum)));
    }
}

#include "kernels/quants.h"

void wk_fill_avx512(struct wk_table *table)
{
    fill_lanes(table);
    fill_quants(table);
    table->blas_rows = 0;
    table->quantise = quantise;
}
