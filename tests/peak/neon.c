/*
 * The peak of NEON: smlal and smlal2, which kernels/neon.c adds 4-bit codes with, and fmla.
 */
#include <arm_neon.h>

#include "tests/peak/read.h"

enum { CHAINS = 16 }; /* a latency of 4 at up to four a cycle */

static void integers(uint64_t rounds)
{
    int16x8_t sum[CHAINS];
    int8x16_t w = vdupq_n_s8(1), x = w;
    for (int i = 0; i < CHAINS; i++)
        sum[i] = vdupq_n_s16((int16_t)i);
    for (; rounds > 0; rounds--)
        WK_UNROLL
    for (int i = 0; i < CHAINS; i++)
        sum[i] = i % 2 == 0 ? vmlal_s8(sum[i], vget_low_s8(w), vget_low_s8(x))
                            : vmlal_high_s8(sum[i], w, x);
    peak_keep(sum);
}

static void floats(uint64_t rounds)
{
    float32x4_t sum[CHAINS], a = vdupq_n_f32(0.5f), b = vdupq_n_f32(0.25f);
    for (int i = 0; i < CHAINS; i++)
        sum[i] = vdupq_n_f32((float)i);
    for (; rounds > 0; rounds--)
        WK_UNROLL
    for (int i = 0; i < CHAINS; i++)
        sum[i] = vfmaq_f32(sum[i], a, b);
    peak_keep(sum);
}

const struct peak peak_neon = {"neon", integers,       CHAINS * 8 * 2,
                               floats, CHAINS * 4 * 2, read_memory};
