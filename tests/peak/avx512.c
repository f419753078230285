/*
 * The peak of AVX-512 without VNNI: vpmaddubsw in the cheapest form that kernels/avx512.c has
 * (4-bit codes: eight products are added in 16 bits, then widened), and fma.
 */
#include <immintrin.h>

#include "tests/peak/read.h"

enum { CHAINS = 16 }; /* a latency of 4 at two a cycle, and to spare */

static void integers(uint64_t rounds)
{
    __m512i w[4], x = _mm512_set1_epi8(1), ones = _mm512_set1_epi16(1);
    __m512i sum = _mm512_setzero_si512();
    for (int i = 0; i < 4; i++)
        w[i] = _mm512_set1_epi8((char)(i + 1));
    for (; rounds > 0; rounds--) {
        __m512i pairs = _mm512_setzero_si512();
        WK_UNROLL
        for (int i = 0; i < 8; i++) {
            if (i % 4 == 0) /* as if it were another x: nothing is left out of the loop */
                __asm__ volatile("" : "+v"(x));
            pairs = _mm512_add_epi16(pairs, _mm512_maddubs_epi16(w[i % 4], x));
        }
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, ones));
    }
    peak_keep(&sum);
}

static void floats(uint64_t rounds)
{
    __m512 sum[CHAINS], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(0.25f);
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm512_set1_ps((float)i);
    for (; rounds > 0; rounds--)
        WK_UNROLL
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm512_fmadd_ps(a, sum[i], b);
    peak_keep(sum);
}

const struct peak peak_avx512 = {"avx512", integers,        8 * 64 * 2,
                                 floats,   CHAINS * 16 * 2, read_memory};
