/*
 * One row of activations by sdot: for dotprod.c, and for the odd row of i8mm.c.
 */
#ifndef WEFT_KERNELS_DOTPROD_H
#define WEFT_KERNELS_DOTPROD_H

#include "kernels/inline.h"
#include "kernels/neon.h"

/* Four groups times the 16 activations they stand for. */
WK_INLINE qi q_dot4(qi sum, const qb *group, int8x16_t x)
{
    sum = vdotq_laneq_s32(sum, vreinterpretq_s8_u8(group[0]), x, 0);
    sum = vdotq_laneq_s32(sum, vreinterpretq_s8_u8(group[1]), x, 1);
    sum = vdotq_laneq_s32(sum, vreinterpretq_s8_u8(group[2]), x, 2);
    return vdotq_laneq_s32(sum, vreinterpretq_s8_u8(group[3]), x, 3);
}

WK_INLINE qi q_dot_row(enum wk_type type, const qb *group, const struct wk_q8 *x)
{
    qi sum = q_dot4(q_offset(type, x), group, vld1q_s8(x->q));
    return q_dot4(sum, group + 4, vld1q_s8(x->q + 16));
}

WK_INLINE qi q_half_dot_row(enum wk_type type, const qb *group, qi first, qi second,
                            const struct wk_q8 *x)
{
    qi a = q_dot4(vdupq_n_s32(0), group, vld1q_s8(x->q));
    qi b = q_dot4(vdupq_n_s32(0), group + 4, vld1q_s8(x->q + 16));
    return q_halves(type, first, second, a, b, x);
}

#endif
