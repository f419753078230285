/*
 * exp, tanh, log, pow, sin and cos of our own: + - * / fma and conversions only, so that every
 * machine gives the same bits. Scalar; kernels/lanes.h repeats those of f32 lane by lane, step by
 * step.
 *
 * Reductions are Cody and Waite's (Software Manual for the Elementary Functions, 1980) with fma;
 * the polynomials are Taylor's, long enough for their interval, so that the coefficients explain
 * themselves.
 */
#ifndef WEFT_KERNELS_MATH_H
#define WEFT_KERNELS_MATH_H

#include "kernels/f16.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* exp in f32. x = k ln2 + r, |r| <= ln2/2; exp(r) to r^7 (rest below 2^-27); times 2^k in two
 * halves, so that results in the subnormal range are rounded once. */
#define WK_EXP_HI 89.0f        /* above: infinity, from 88.73 on */
#define WK_EXP_LO -105.0f      /* below: 0, from -103.98 on */
#define WK_EXP_MAGIC 0x1.8p23f /* adding it rounds to an integer, held in the low bits */
#define WK_EXP_LOG2E 0x1.715476p0f
#define WK_EXP_LN2_HI 0x1.62e400p-1f /* ln 2 to 16 bits: k * hi is exact */
#define WK_EXP_LN2_LO 0x1.7f7d1cp-20f
#define WK_EXP_C2 0.5f
#define WK_EXP_C3 (1.0f / 6)
#define WK_EXP_C4 (1.0f / 24)
#define WK_EXP_C5 (1.0f / 120)
#define WK_EXP_C6 (1.0f / 720)
#define WK_EXP_C7 (1.0f / 5040)

/* exp(r) - 1, to an ulp also near 0; k in the low bits of *ret_t. For x in [WK_EXP_LO, WK_EXP_HI]
 * and NaN. */
static inline float wk_exp_reduced(float x, float *ret_t)
{
    float t = fmaf(x, WK_EXP_LOG2E, WK_EXP_MAGIC), k = t - WK_EXP_MAGIC;
    *ret_t = t;
    float r = fmaf(-k, WK_EXP_LN2_HI, x);
    r = fmaf(-k, WK_EXP_LN2_LO, r);
    float p = fmaf(WK_EXP_C7, r, WK_EXP_C6);
    p = fmaf(p, r, WK_EXP_C5);
    p = fmaf(p, r, WK_EXP_C4);
    p = fmaf(p, r, WK_EXP_C3);
    p = fmaf(p, r, WK_EXP_C2);
    return fmaf(r * r, p, r);
}

/* p * 2^k */
static inline float wk_exp_scale(float p, float t)
{
    int32_t n = (int32_t)(wk_bits(t) - wk_bits(WK_EXP_MAGIC));
    int32_t n1 = n >> 1, n2 = (int32_t)((uint32_t)n - (uint32_t)n1);
    p = p * wk_from_bits(((uint32_t)n1 + 127u) << 23);
    return p * wk_from_bits(((uint32_t)n2 + 127u) << 23);
}

static inline float wk_exp_f32(float x)
{
    float t;
    x = WK_EXP_HI < x ? WK_EXP_HI : x; /* a NaN passes both */
    x = WK_EXP_LO > x ? WK_EXP_LO : x;
    float p = wk_exp_reduced(x, &t) + 1.0f;
    return wk_exp_scale(p, t);
}

/* tanh in f32, within 3 ulp. |tanh x| = -e / (e + 2) with e = exp(-2|x|) - 1 = 2^k (exp(r) - 1) +
 * (2^k - 1): nothing cancels, for the second term is 0 or at most -1/2. Odd, also in its zeros. */
#define WK_TANH_LO -20.0f /* -2|x| below: 1, as from |x| = 9.02 on */

static inline float wk_tanh_f32(float x)
{
    float t, y = 2.0f * copysignf(x, -1.0f);
    y = WK_TANH_LO > y ? WK_TANH_LO : y; /* a NaN passes */
    float p = wk_exp_reduced(y, &t), s = wk_exp_scale(1.0f, t);
    float e = fmaf(p, s, s - 1.0f);
    return copysignf(e / (e + 2.0f), x);
}

/* by * x kept softly between -cap and cap: cap * tanh(by * x / cap). An infinite product is a fault
 * and becomes NaN: tanh would hide it. */
static inline float wk_softcap_f32(float x, float by, float cap)
{
    x = x * by;
    return fmaf(x, 0.0f, cap * wk_tanh_f32(x / cap));
}

/* 1 / 2 (1 + tanh(u)) is 1 / (1 + exp(-2u)), so gelu(x) = x / (1 + exp(x (K1 + K3 x^2))). */
#define WK_GELU_K1 -0x1.988454p0f  /* -2 sqrt(2 / pi) */
#define WK_GELU_K3 -0x1.2444f2p-4f /* the same times 0.044715 */

static inline float wk_silu_f32(float x)
{
    return x / (1.0f + wk_exp_f32(-x));
}

static inline float wk_gelu_f32(float x)
{
    return x / (1.0f + wk_exp_f32(x * fmaf(x * x, WK_GELU_K3, WK_GELU_K1)));
}

static inline uint64_t wk_bits64(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline double wk_from_bits64(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

#define WK_LN2_HI 0x1.62e42feep-1 /* ln 2 to 32 bits: k * hi is exact */
#define WK_LN2_LO 0x1.a39ef35793c76p-33
#define WK_MAGIC64 0x1.8p52

/* A number below 2^21 added to this in f64 is rounded to a multiple of 2^-30, ties to even, and its
 * low bits hold it in that unit. */
#define WK_UNIT64 0x1.8p22

/* log in f64: x = 2^k m, m in [sqrt 1/2, sqrt 2); log m = 2 atanh(s), s = (m - 1)/(m + 1), |s| <
 * 0.172: s^25 is below 2^-63. Error about 1 ulp. */
static inline double wk_log_f64(double x)
{
    if (!(x > 0))
        return x == 0 ? -INFINITY : NAN;
    if (x == INFINITY)
        return x;
    int k = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        k = -54;
    }
    uint64_t u = wk_bits64(x);
    k += (int)(u >> 52) - 1023;
    double m = wk_from_bits64((u & 0xfffffffffffffull) | 0x3ff0000000000000ull);
    if (m > 0x1.6a09e667f3bcdp0) { /* sqrt 2 */
        m *= 0.5;
        k++;
    }
    double s = (m - 1) / (m + 1), z = s * s, p = 0;
    for (int i = 23; i >= 3; i -= 2)
        p = fma(p, z, 1.0 / i);
    double rest = fma(2 * s * z, p, k * WK_LN2_LO);
    return k * WK_LN2_HI + (2 * s + rest);
}

/* exp in f64 for |x| <= 700, else 0 or infinity; Taylor to r^13, |r| <= ln2/2: rest below 2^-57. */
static inline double wk_exp_f64(double x)
{
    if (x > 700)
        return INFINITY;
    if (x < -700)
        return 0;
    double t = fma(x, 0x1.71547652b82fep0, WK_MAGIC64), k = t - WK_MAGIC64;
    double r = fma(-k, WK_LN2_HI, x), p = 1;
    r = fma(-k, WK_LN2_LO, r);
    for (int i = 13; i >= 1; i--) /* Horner of r^i / i! */
        p = fma(p * r, 1.0 / i, 1);
    uint64_t n = wk_bits64(t) - wk_bits64(WK_MAGIC64);
    return p * wk_from_bits64((n + 1023) << 52);
}

/* base^y for base > 0 (NaN below 0). */
static inline double wk_pow_f64(double base, double y)
{
    return wk_exp_f64(y * wk_log_f64(base));
}

/* sin and cos in f64. Absolute error below 2^-51 for |x| < 2^26; beyond 2^31 meaningless but
 * defined. */
static inline void wk_sincos_f64(double x, double *ret_sin, double *ret_cos)
{
    double t = fma(x, 0x1.45f306dc9c883p-1, WK_MAGIC64), k = t - WK_MAGIC64; /* 2/pi */
    uint64_t quadrant = wk_bits64(t) & 3;
    double r = fma(-k, 0x1.921fb54442d18p0, x); /* pi/2 in two parts */
    r = fma(-k, 0x1.1a62633145c07p-54, r);
    double z = r * r, s = 1, c = 1;
    for (int i = 16; i >= 2; i -= 2) { /* Horner of (-1)^j r^2j / (2j)! and its like */
        s = fma(-s * z, 1.0 / (i * (i + 1)), 1);
        c = fma(-c * z, 1.0 / (i * (i - 1)), 1);
    }
    s *= r;
    *ret_sin = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;
    *ret_cos = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
}

#endif
