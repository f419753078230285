/*
 * The peak of NEON with dot products of bytes: sdot, and fmla.
 */
#include <arm_neon.h>

#include "tests/peak/read.h"

enum { CHAINS = 16 }; /* a latency of 4 at up to four a cycle */

static void integers(uint64_t rounds)
{
    int32x4_t sum[CHAINS];
    int8x16_t w = vdupq_n_s8(1), x = w;
    for (int i = 0; i < CHAINS; i++)
        sum[i] = vdupq_n_s32(i);
    for (; rounds > 0; rounds--)
        WK_UNROLL
    for (int i = 0; i < CHAINS; i++)
        sum[i] = vdotq_s32(sum[i], w, x);
    peak_keep(sum);
}

static void floats(uint64_t rounds)
{
    peak_neon.floats(rounds);
}

const struct peak peak_dotprod = {"dotprod", integers,   CHAINS * 16 * 2,
                                  floats,    16 * 4 * 2, read_memory};
