/*
 * NEON with matrix products of bytes (ARMv8.6 i8mm): smmla multiplies two rows of weights with two
 * rows of activations, 8 columns at once, exactly. A single row goes by sdot. All else is neon.c's.
 */
#include "kernels/neon.h"

#include "kernels/dotprod.h"
#include "kernels/inline.h"

/* Two neighbouring groups as rows of 8 columns: rows 0 and 1, rows 2 and 3. */
struct q_zipped {
    int8x16_t lo, hi;
};

WK_INLINE void q_zip(const qb *group, struct q_zipped *ret)
{
    WK_UNROLL
    for (unsigned k = 0; k < 4; k++) {
        uint32x4_t a = vreinterpretq_u32_u8(group[2 * k]);
        uint32x4_t b = vreinterpretq_u32_u8(group[2 * k + 1]);
        ret[k].lo = vreinterpretq_s8_u32(vzip1q_u32(a, b));
        ret[k].hi = vreinterpretq_s8_u32(vzip2q_u32(a, b));
    }
}

/* Zipped groups [first, first + n) with the rows x and y: dots of all four rows with each. */
WK_INLINE void q_dot_pair(const struct q_zipped *w, unsigned first, unsigned n,
                          const struct wk_q8 *x, const struct wk_q8 *y, qi *with_x, qi *with_y)
{
    qi lo = vdupq_n_s32(0), hi = lo;
    WK_UNROLL
    for (unsigned k = first; k < first + n; k++) {
        int8x16_t both = vcombine_s8(vld1_s8(x->q + (size_t)k * 8), vld1_s8(y->q + (size_t)k * 8));
        lo = vmmlaq_s32(lo, w[k].lo, both);
        hi = vmmlaq_s32(hi, w[k].hi, both);
    }
    *with_x = vuzp1q_s32(lo, hi);
    *with_y = vuzp2q_s32(lo, hi);
}

WK_INLINE void q_dots(enum wk_type type, const qb *group, const struct wk_q8 *x, size_t ldx,
                      unsigned rows, qi *idot)
{
    if (rows == 1) {
        idot[0] = q_dot_row(type, group, x);
        return;
    }
    struct q_zipped w[4];
    q_zip(group, w);
    WK_UNROLL
    for (unsigned j = 0; j < rows; j += 2) {
        const struct wk_q8 *xj = x + j * ldx, *yj = xj + ldx;
        q_dot_pair(w, 0, 4, xj, yj, &idot[j], &idot[j + 1]);
        idot[j] = vaddq_s32(idot[j], q_offset(type, xj));
        idot[j + 1] = vaddq_s32(idot[j + 1], q_offset(type, yj));
    }
}

WK_INLINE void q_half_dots(enum wk_type type, const qb *group, qi first, qi second,
                           const struct wk_q8 *x, size_t ldx, unsigned rows, qi *idot)
{
    if (rows == 1) {
        idot[0] = q_half_dot_row(type, group, first, second, x);
        return;
    }
    struct q_zipped w[4];
    q_zip(group, w);
    WK_UNROLL
    for (unsigned j = 0; j < rows; j += 2) {
        const struct wk_q8 *xj = x + j * ldx, *yj = xj + ldx;
        qi a[2], b[2];
        q_dot_pair(w, 0, 2, xj, yj, &a[0], &a[1]);
        q_dot_pair(w, 2, 2, xj, yj, &b[0], &b[1]);
        idot[j] = q_halves(type, first, second, a[0], b[0], xj);
        idot[j + 1] = q_halves(type, first, second, a[1], b[1], yj);
    }
}

#include "kernels/quants.h"

void wk_fill_i8mm(struct wk_table *table)
{
    fill_quants(table);
}
