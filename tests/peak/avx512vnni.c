/*
 * The peak of AVX-512 with VNNI: vpdpbusd, and fma.
 */
#include <immintrin.h>

#include "tests/peak/read.h"

enum { CHAINS = 16 }; /* a latency of 5 at two a cycle, and to spare */

static void integers(uint64_t rounds)
{
    __m512i sum[CHAINS], w = _mm512_set1_epi8(1), x = w;
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm512_set1_epi32(i);
    for (; rounds > 0; rounds--)
        WK_UNROLL
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm512_dpbusd_epi32(sum[i], w, x);
    peak_keep(sum);
}

static void floats(uint64_t rounds)
{
    peak_avx512.floats(rounds);
}

const struct peak peak_avx512vnni = {"avx512vnni", integers,    CHAINS * 64 * 2,
                                     floats,       16 * 16 * 2, read_memory};
