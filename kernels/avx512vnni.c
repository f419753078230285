/*
 * AVX-512 with VNNI: vpdpbusd multiplies unsigned bytes of weights with activations and adds four
 * products to a lane, exactly. What the codes' offset adds is taken off through the sums of the
 * activation block, in integers; signed bytes get an offset of 128. All else is avx512.c's.
 */
#include "kernels/avx512.h"
#include "kernels/inline.h"

enum { Q_MOST_ROWS = 8 };

/* log2 of the offset that the bytes in registers have. */
WK_INLINE unsigned offset_shift(enum wk_type type)
{
    return wk_wide_values(type) ? 7 : (unsigned)__builtin_ctz((unsigned)wk_code_offset(type));
}

WK_INLINE void q_dots(enum wk_type type, const qb *group, const struct wk_q8 *x, size_t ldx,
                      unsigned rows, qi *idot)
{
    qb w[8];
    WK_UNROLL
    for (unsigned g = 0; g < 8; g++)
        w[g] = wk_wide_values(type) ? _mm512_xor_si512(group[g], q_byte(0x80)) : group[g];
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++) {
        const struct wk_q8 *xj = x + j * ldx;
        idot[j] = _mm512_setzero_si512();
        if (wk_wide_values(type) || wk_code_offset(type) != 0)
            idot[j] = _mm512_slli_epi32(_mm512_set1_epi32(xj->neg_sum), offset_shift(type));
        WK_UNROLL
        for (unsigned g = 0; g < 8; g++)
            idot[j] = _mm512_dpbusd_epi32(idot[j], w[g], q_spread(xj->q + (size_t)g * 4));
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
        qi a = _mm512_setzero_si512(), b = a;
        WK_UNROLL
        for (unsigned g = 0; g < 4; g++) {
            a = _mm512_dpbusd_epi32(a, group[g], q_spread(xj->q + (size_t)g * 4));
            b = _mm512_dpbusd_epi32(b, group[g + 4], q_spread(xj->q + 16 + (size_t)g * 4));
        }
        idot[j] = _mm512_add_epi32(_mm512_mullo_epi32(a, first), _mm512_mullo_epi32(b, second));
        if (offset != 0)
            idot[j] = _mm512_dpwssd_epi32(idot[j], pair, q_spread(xj->sum));
    }
}

#include "kernels/quants.h"

void wk_fill_avx512vnni(struct wk_table *table)
{
    fill_quants(table);
}
