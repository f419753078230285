/*
 * NEON with dot products (ARMv8.2 dotprod: a Raspberry Pi 5, a Jetson Orin): sdot adds four
 * products of signed bytes to each of four rows, exactly. All else is neon.c's.
 */
#include "kernels/neon.h"

#include "kernels/dotprod.h"
#include "kernels/inline.h"

WK_INLINE void q_dots(enum wk_type type, const qb *group, const struct wk_q8 *x, size_t ldx,
                      unsigned rows, qi *idot)
{
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        idot[j] = q_dot_row(type, group, x + j * ldx);
}

WK_INLINE void q_half_dots(enum wk_type type, const qb *group, qi first, qi second,
                           const struct wk_q8 *x, size_t ldx, unsigned rows, qi *idot)
{
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        idot[j] = q_half_dot_row(type, group, first, second, x + j * ldx);
}

#include "kernels/quants.h"

void wk_fill_dotprod(struct wk_table *table)
{
    fill_quants(table);
}
