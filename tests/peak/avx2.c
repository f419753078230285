/*
 * The peak of AVX2: vpmaddubsw in the cheapest form that kernels/avx2.c has (4-bit codes: eight
 * products are added in 16 bits, then widened), and fma.
 */
#include <immintrin.h>

#include "tests/peak/read.h"

enum { CHAINS = 10 }; /* a latency of 4 at two a cycle, and to spare; 16 registers */

static void integers(uint64_t rounds)
{
    __m256i w[4], x = _mm256_set1_epi8(1), ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++)
        w[i] = _mm256_set1_epi8((char)(i + 1));
    for (; rounds > 0; rounds--) {
        __m256i pairs = _mm256_setzero_si256();
        WK_UNROLL
        for (int i = 0; i < 8; i++) {
            if (i % 4 == 0) /* as if it were another x: nothing is left out of the loop */
                __asm__ volatile("" : "+x"(x));
            pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w[i % 4], x));
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    peak_keep(&sum);
}

static void floats(uint64_t rounds)
{
    __m256 sum[CHAINS], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm256_set1_ps((float)i);
    for (; rounds > 0; rounds--)
        WK_UNROLL
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm256_fmadd_ps(a, sum[i], b);
    peak_keep(sum);
}

const struct peak peak_avx2 = {"avx2", integers, 8 * 32 * 2, floats, CHAINS * 8 * 2, read_memory};
