/*
 * Half precision as bits: the conversions of ref.c, packing and everything that needs no speed.
 * NaNs behave as the processors' conversions do (quieted, leading payload kept).
 */
#ifndef WEFT_KERNELS_F16_H
#define WEFT_KERNELS_F16_H

#include <stdint.h>
#include <string.h>

static inline uint32_t wk_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float wk_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline uint16_t wk_load_u16(const void *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static inline float wk_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest < 0x0400u) /* zero and subnormal: rest * 2^-24, exact */
        return wk_from_bits(sign | wk_bits((float)rest * 0x1p-24f));
    if (rest < 0x7c00u) /* exponent bias 15 becomes 127 */
        return wk_from_bits(sign | ((rest << 13) + (112u << 23)));
    uint32_t quiet = rest > 0x7c00u ? 0x400000u : 0;
    return wk_from_bits(sign | 0x7f800000u | quiet | ((rest & 0x3ffu) << 13));
}

/* Rounds to nearest, ties to even; too large becomes infinity. */
static inline uint16_t wk_f32_to_f16(float x)
{
    uint32_t u = wk_bits(x), sign = (u >> 16) & 0x8000u, rest = u & 0x7fffffffu;
    if (rest > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((rest >> 13) & 0x1ffu));
    if (rest >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (rest < 0x38800000u) /* below 2^-14: adding 0.5 leaves multiples of 2^-24 in the low bits */
        return (uint16_t)(sign | (wk_bits(wk_from_bits(rest) + 0.5f) - 0x3f000000u));
    rest += 0xfffu + ((rest >> 13) & 1u);
    return (uint16_t)(sign | ((rest - (112u << 23)) >> 13));
}

#endif
