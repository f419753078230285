/*
 * What the loops of the instruction sets ask of the compiler and the memory.
 */
#ifndef WEFT_KERNELS_INLINE_H
#define WEFT_KERNELS_INLINE_H

#include <stddef.h>
#include <stdint.h>

/* Loops whose bounds are constant arguments must become straight code, or accumulators live in
 * memory: inline always, and unroll as far as any of them goes. */
#define WK_INLINE static inline __attribute__((always_inline))
#define WK_UNROLL _Pragma("GCC unroll 16")

/* Asks for the `bytes` (a constant) that a product with one row reads next but PREFETCH. Weights
 * come once and from far; without this a Zen 5 reads Q6_K from memory at 10 GB/s, with it at 27
 * to 34. A distance of 8 KiB measured better than 2 or 4. What lies behind the matrix is never
 * touched, only asked for, which cannot fault. */
enum { PREFETCH = 8192 };

WK_INLINE void prefetch(const uint8_t *w, size_t bytes)
{
    WK_UNROLL
    for (size_t at = 0; at < bytes; at += 64)
        __builtin_prefetch((const void *)((uintptr_t)w + PREFETCH + at));
}

#endif
