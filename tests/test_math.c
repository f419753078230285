/*
 * The functions of our own against libm, and what a layer does element by element: every table
 * gives the bits of ref, ref agrees with f64. Rotation has test_rope.c.
 */
#include "kernels/f16.h"
#include "kernels/math.h"
#include "kernels/table.h"
#include "tests/harness.h"
#include "tests/kernel_data.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed;
static const struct wk_table *table[KD_TABLES_MAX];
static size_t n_tables;

static void setup(void)
{
    seed = weft_test_seed();
    n_tables = wk_table_list(table, KD_TABLES_MAX);
}

static double ulps(float got, double expected)
{
    float near = (float)expected;
    double ulp = fabs((double)nextafterf(near, INFINITY) - (double)near);
    return fabs((double)got - expected) / ulp;
}

/* Steps in the bits pass through every exponent of both signs. */
START_TEST(exp_within_two_ulps_everywhere)
{
    for (uint64_t u = 0; u < UINT64_C(1) << 32; u += 39989) {
        float x = wk_from_bits((uint32_t)u), y = wk_exp(x);
        double expected = exp((double)x);
        if (isnan(x))
            ck_assert(isnan(y));
        else if (expected >= 0x1.ffffffp127) /* rounds to infinity */
            ck_assert_msg(isinf(y) && y > 0, "exp(%a) = %a", x, y);
        else
            ck_assert_msg(ulps(y, expected) <= 2, "exp(%a) = %a, not %a", x, y, expected);
    }
    for (double x = -104.5; x < 89; x += 0.0037)
        if (exp((double)(float)x) < 0x1.ffffffp127)
            ck_assert_msg(ulps(wk_exp((float)x), exp((double)(float)x)) <= 2, "exp(%a)", (float)x);
    ck_assert(wk_exp(-INFINITY) == 0 && wk_exp(INFINITY) == INFINITY && wk_exp(0) == 1);
    ck_assert(wk_exp(-0.0f) == 1 && wk_exp(3e38f) == INFINITY && wk_exp(-3e38f) == 0);
}
END_TEST

static double ulps_long(float got, long double expected)
{
    float near = (float)expected;
    long double ulp = (long double)nextafterf(fabsf(near), INFINITY) - (long double)fabsf(near);
    return (double)(fabsl((long double)got - expected) / ulp);
}

static void check_tanh(float x)
{
    const float y = wk_tanh(x);
    if (isnan(x)) {
        ck_assert(isnan(y));
        return;
    }
    const long double expected = tanhl((long double)x);
    ck_assert_msg(ulps_long(y, expected) <= 3 && fabsf(y) <= 1, "tanh(%a) = %a, not %La", x, y,
                  expected);
    ck_assert_msg(wk_bits(wk_tanh(-x)) == (wk_bits(y) ^ 0x80000000u), "tanh(-%a)", x);
}

START_TEST(tanh_within_three_ulps_everywhere)
{
    static const float special[] = {0, 0x1p-149f, 0x1.fffffcp-127f, 0x1p-126f, FLT_MAX, INFINITY};
    for (uint64_t u = 0; u < UINT64_C(1) << 32; u += 39989)
        check_tanh(wk_from_bits((uint32_t)u));
    for (double x = 0; x < 10.5; x += 0.0000137)
        check_tanh((float)x);
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        check_tanh(special[i]);
    for (uint32_t u = 0; u < wk_bits(0x1p-26f); u += 99989)
        ck_assert(wk_tanh(wk_from_bits(u)) == wk_from_bits(u));
    ck_assert(wk_tanh(INFINITY) == 1 && wk_tanh(-INFINITY) == -1 && wk_tanh(9.02f) == 1);
}
END_TEST

START_TEST(softcap)
{
    for (size_t n = 1; n <= 100; n++) {
        const float cap = n % 3 == 0 ? 30 : n % 3 == 1 ? 50 : 0.7f;
        const float by = n % 2 == 0 ? 1 : 0.0883883f;
        float *x = n % 5 == 0 ? kd_any_floats(&seed, n) : kd_floats(&seed, n);
        float *y = kd_alloc(n * sizeof *y), *expected = kd_alloc(n * sizeof *y);
        memcpy(expected, x, n * sizeof *x);
        table[0]->softcap(expected, by, cap, n);
        for (size_t i = 0; i < n; i++) {
            /* 3 ulp of tanh, half of one for each product and quotient, whose error tanh halves at
             * least when it is no longer straight */
            const double scaled = (double)(x[i] * by);
            const double v = (double)cap * tanh(scaled / (double)cap);
            if (isfinite(scaled))
                ck_assert_double_le(fabs(v - (double)expected[i]),
                                    4 * 0x1p-23 * fabs(v) + 0x1p-140);
            else
                ck_assert(isnan(expected[i]));
        }
        for (size_t t = 1; t < n_tables; t++) {
            memcpy(y, x, n * sizeof *x);
            table[t]->softcap(y, by, cap, n);
            ck_assert_uint_eq(kd_differ(expected, y, n), n);
        }
        free(x);
        free(y);
        free(expected);
    }
}
END_TEST

/* Long enough for every thread. */
START_TEST(softcap_on_threads)
{
    enum { N = 70001 };
    float *one = kd_floats(&seed, N), *many = kd_alloc(sizeof *many * N);
    one[0] = INFINITY, one[1] = -INFINITY, one[2] = NAN, one[3] = 1e30f, one[4] = -1e30f;
    memcpy(many, one, sizeof *many * N);
    struct wk_engine e = {.table = table[n_tables - 1]};
    wk_softcap(&e, one, N, 30);
    ck_assert(isnan(one[0]) && isnan(one[1]) && isnan(one[2]) && one[3] == 30 && one[4] == -30);
    e.pool = wk_pool_open(3);
    wk_softcap(&e, many, N, 30);
    ck_assert_uint_eq(kd_differ(one, many, N), N);
    wk_pool_close(e.pool);
    free(one);
    free(many);
}
END_TEST

START_TEST(log_within_two_ulps)
{
    for (unsigned i = 0; i < 200000; i++) {
        double x = wk_from_bits64(weft_test_random(&seed) >> 1), y = wk_log(x), expected = log(x);
        if (isnan(x))
            ck_assert(isnan(y));
        else
            ck_assert_msg(y == expected || fabs(y - expected) <= 0x1p-51 * fabs(expected),
                          "log(%a)", x);
    }
    for (double x = 0.5; x < 2; x += 0.00001)
        ck_assert_msg(fabs(wk_log(x) - log(x)) <= 0x1p-51 * fabs(log(x)) + 0x1p-60, "log(%a)", x);
    ck_assert(wk_log(0) == -INFINITY && isnan(wk_log(-1)) && wk_log(INFINITY) == INFINITY);
    ck_assert(wk_log(1) == 0 && isnan(wk_log(NAN)));
}
END_TEST

START_TEST(pow_and_sincos_are_close)
{
    for (unsigned i = 0; i < 100000; i++) {
        double base = exp(weft_test_uniform(&seed) * 16), y = -weft_test_uniform(&seed), s, c;
        double expected = pow(base, y);
        ck_assert_msg(fabs(wk_pow_f64(base, y) - expected) <= 1e-14 * expected, "pow(%a, %a)", base,
                      y);
        double x = (weft_test_uniform(&seed) * 2 - 1) * exp2(weft_test_uniform(&seed) * 24);
        wk_sincos_f64(x, &s, &c);
        ck_assert_msg(fabs(s - sin(x)) <= 1e-15 && fabs(c - cos(x)) <= 1e-15, "sincos(%a)", x);
    }
    double s, c;
    wk_sincos_f64(INFINITY, &s, &c);
    ck_assert(isnan(s) && isnan(c));
}
END_TEST

/* ------------------------------------------------------------------ halves */

START_TEST(every_half_widens_alike)
{
    uint16_t h[1 << 16];
    static float expected[1 << 16], got[1 << 16];
    for (unsigned i = 0; i < 1 << 16; i++)
        h[i] = (uint16_t)i;
    table[0]->widen(h, expected, 1 << 16);
    for (unsigned i = 0; i < 0x7c00; i++) { /* by definition */
        int exponent = (int)(i >> 10);
        double v = exponent == 0 ? ldexp(i, -24) : ldexp((i & 1023) + 1024, exponent - 25);
        ck_assert(expected[i] == (float)v && expected[i + 0x8000] == (float)-v);
    }
    ck_assert(expected[0x7c00] == INFINITY && expected[0xfc00] == -INFINITY);
    ck_assert(isnan(expected[0x7c01]) && isnan(expected[0xffff]));
    for (size_t t = 1; t < n_tables; t++) {
        table[t]->widen(h, got, 1 << 16);
        ck_assert_int_eq(memcmp(expected, got, sizeof got), 0);
    }
}
END_TEST

START_TEST(narrowing_rounds_to_nearest_even)
{
    enum { N = 4096 };
    uint16_t expected[N], got[N];
    for (unsigned k = 0; k < 100; k++) {
        float *x = kd_any_floats(&seed, N);
        for (unsigned i = 0; i < N;
             i += 2) /* half of them in the range of halves, many of them ties */
            x[i] = ldexpf((float)(int)(weft_test_random(&seed) % 16384) - 8192,
                          (int)(weft_test_random(&seed) % 32) - 27);
        table[0]->narrow(x, expected, N);
        for (unsigned i = 0; i < N; i++) {
            float y = wk_f16_to_f32(expected[i]);
            if (isnan(x[i]) || fabsf(x[i]) >= 65520) {
                ck_assert(isnan(x[i]) ? isnan(y) : isinf(y) && (y > 0) == (x[i] > 0));
                continue;
            }
            float up = wk_f16_to_f32((uint16_t)(expected[i] + 1)), gap = fabsf(y - x[i]);
            float down =
                (expected[i] & 0x7fff) == 0 ? -up : wk_f16_to_f32((uint16_t)(expected[i] - 1));
            bool tie = gap == fabsf(up - x[i]) || gap == fabsf(down - x[i]);
            ck_assert(gap <= fabsf(down - x[i]) && (gap <= fabsf(up - x[i])));
            ck_assert(!tie || (expected[i] & 1) == 0 || gap == 0);
        }
        for (size_t t = 1; t < n_tables; t++) {
            table[t]->narrow(x, got, N);
            ck_assert_int_eq(memcmp(expected, got, sizeof got), 0);
        }
        free(x);
    }
}
END_TEST

/* ------------------------------------------------------------------ layers */

START_TEST(rms_norm)
{
    for (uint32_t dim = 1; dim <= 300; dim += dim < 40 ? 1 : 13) {
        uint32_t n = 1 + dim % 4;
        float *x = dim % 7 == 0 ? kd_any_floats(&seed, (size_t)n * dim)
                                : kd_floats(&seed, (size_t)n * dim);
        float *w = kd_floats(&seed, dim), *y = kd_alloc(sizeof *y * n * dim);
        float *expected = kd_alloc(sizeof *y * n * dim);
        struct wk_engine e = {.table = table[0]};
        wk_rms_norm(&e, x, w, 1e-5f, n, dim, expected);
        for (uint32_t i = 0; i < n && dim % 7 != 0; i++) {
            double sum = 0;
            for (uint32_t c = 0; c < dim; c++)
                sum += (double)x[i * dim + c] * (double)x[i * dim + c];
            for (uint32_t c = 0; c < dim; c++) {
                double v = (double)x[i * dim + c] * (double)w[c] / sqrt(sum / dim + 1e-5);
                ck_assert_double_le(fabs(v - (double)expected[i * dim + c]),
                                    (dim / 16.0 + 8) * 0x1p-23 * fabs(v));
            }
        }
        for (size_t t = 0; t < n_tables; t++) {
            e.table = table[t];
            memcpy(y, x, sizeof *y * n * dim); /* in place, then row by row */
            wk_rms_norm(&e, y, w, 1e-5f, n, dim, y);
            ck_assert_uint_eq(kd_differ(expected, y, (size_t)n * dim), (size_t)n * dim);
            wk_rms_norm(&e, x + (size_t)(n - 1) * dim, w, 1e-5f, 1, dim, y);
            ck_assert_uint_eq(kd_differ(expected + (size_t)(n - 1) * dim, y, dim), dim);
        }
        free(x);
        free(w);
        free(y);
        free(expected);
    }
}
END_TEST

/* The definitions of the header, in f64. */
static double activation(enum wk_activation a, double x)
{
    if (a == WK_SILU)
        return x / (1 + exp(-x));
    return x / 2 * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

START_TEST(glu)
{
    const enum wk_activation a = (enum wk_activation)_i;
    for (size_t n = 1; n <= 100; n++) {
        bool any = n % 5 == 0;
        float *gate = any ? kd_any_floats(&seed, n) : kd_floats(&seed, n),
              *up = kd_floats(&seed, n);
        float *y = kd_alloc(n * sizeof *y), *expected = kd_alloc(n * sizeof *y);
        struct wk_engine e = {.table = table[0]};
        wk_glu(&e, a, gate, up, expected, n);
        for (size_t i = 0; i < n && !any; i++) {
            double v = activation(a, (double)gate[i]) * (double)up[i];
            /* exp of an exponent of up to 88 (beyond it the result is 0) has its error times 88,
             * and f64's tanh form loses its digits far below 0 */
            double rough = a == WK_GELU && gate[i] < -1 ? 88 * 3 : 6;
            double lost = a == WK_GELU ? 0x1p-50 * fabs((double)gate[i] * (double)up[i]) : 0;
            ck_assert_double_le(fabs(v - (double)expected[i]),
                                rough * 0x1p-23 * fabs(v) + lost + 0x1p-126);
        }
        for (size_t t = 0; t < n_tables; t++) {
            e.table = table[t];
            memcpy(y, gate, n * sizeof *y);
            wk_glu(&e, a, y, up, y, n);
            ck_assert_uint_eq(kd_differ(expected, y, n), n);
        }
        free(gate);
        free(up);
        free(y);
        free(expected);
    }
}
END_TEST

/* Figures of the tanh form to be found in any table of it, and both ends. */
START_TEST(gelu_of_known_numbers)
{
    static const float x[] = {1, -1, 2, -3, 0.5f, 100, -100, 0, 3e38f, -3e38f, INFINITY};
    static const double known[] = {0.841191990607477,
                                   -0.158808009392523,
                                   1.954597694087775,
                                   -0.0036373920817729,
                                   0.345714009717477,
                                   100,
                                   0,
                                   0,
                                   (double)3e38f,
                                   0,
                                   (double)INFINITY};
    enum { N = sizeof x / sizeof *x };
    float ones[N], y[N];
    for (unsigned i = 0; i < N; i++)
        ones[i] = 1;
    for (size_t t = 0; t < n_tables; t++) {
        struct wk_engine e = {.table = table[t]};
        wk_glu(&e, WK_GELU, x, ones, y, N);
        for (unsigned i = 0; i < N; i++)
            ck_assert_msg((double)y[i] == known[i] ||
                              fabs((double)y[i] - known[i]) <= 1e-6 * fabs(known[i]),
                          "gelu(%a) = %a", (double)x[i], (double)y[i]);
        wk_glu(&e, WK_GELU, (const float[]){NAN, -INFINITY}, ones, y, 2);
        ck_assert(isnan(y[0]) && isnan(y[1]));
    }
}
END_TEST

/* Long enough for every thread, with the special values. */
START_TEST(glu_on_threads)
{
    enum { N = 70001 };
    const enum wk_activation a = (enum wk_activation)_i;
    float *gate = kd_floats(&seed, N), *up = kd_floats(&seed, N);
    float *one = kd_alloc(sizeof *one * N), *many = kd_alloc(sizeof *many * N);
    gate[0] = INFINITY, gate[1] = -INFINITY, gate[2] = NAN, gate[3] = -100, gate[4] = 100;
    up[4] = up[3] = up[0] = 2;
    struct wk_engine e = {.table = table[n_tables - 1]};
    wk_glu(&e, a, gate, up, one, N);
    ck_assert(one[0] == INFINITY && isnan(one[1]) && isnan(one[2]) && one[4] == 200);
    ck_assert(one[3] <= 0 && one[3] > -1e-38f);
    e.pool = wk_pool_open(3);
    wk_glu(&e, a, gate, up, many, N);
    ck_assert_uint_eq(kd_differ(one, many, N), N);
    wk_pool_close(e.pool);
    free(gate);
    free(up);
    free(one);
    free(many);
}
END_TEST

START_TEST(sigmoid_within_four_ulps)
{
    for (double x = -87; x < 90; x += 0.0037)
        ck_assert_msg(ulps(wk_sigmoid((float)x), 1 / (1 + exp(-(double)(float)x))) <= 4,
                      "sigmoid(%a)", (double)(float)x);
    ck_assert(wk_sigmoid(0) == 0.5f && wk_sigmoid(INFINITY) == 1 && wk_sigmoid(-INFINITY) == 0);
    ck_assert(wk_sigmoid(-200) == 0 && wk_sigmoid(200) == 1 && isnan(wk_sigmoid(NAN)));
}
END_TEST

/* Bias, scale and scaled addition, one operation after another; rows with a gap between them. */
START_TEST(bias_and_scale)
{
    static const uint32_t shapes[][2] = {{1, 1}, {3, 5}, {7, 64}, {40, 1000}, {2, 50000}};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        const uint32_t n = shapes[k][0], cols = shapes[k][1];
        const size_t ldy = cols + k, all = (n - 1) * ldy + cols;
        const float by = k % 2 == 0 ? 0.22f : 1;
        float *y = kd_floats(&seed, all), *bias = kd_floats(&seed, cols),
              *x = kd_floats(&seed, all);
        float *expected = kd_alloc(all * sizeof *y);
        struct wk_engine e = {.table = table[n_tables - 1],
                              .pool = k % 2 == 0 ? wk_pool_open(3) : NULL};
        memcpy(expected, y, all * sizeof *y);
        for (size_t i = 0; i < all; i++)
            if (i % ldy < cols)
                expected[i] = expected[i] + bias[i % ldy];
        wk_add_bias(&e, y, n, cols, ldy, bias);
        ck_assert_mem_eq(y, expected, all * sizeof *y);
        for (size_t i = 0; i < all; i++) {
            volatile float product = x[i] * by; /* rounded */
            expected[i] = expected[i] + product;
        }
        wk_add_scaled(&e, y, x, all, by);
        ck_assert_mem_eq(y, expected, all * sizeof *y);
        for (size_t i = 0; i < all; i++)
            expected[i] = expected[i] * by;
        wk_scale(&e, y, all, by);
        ck_assert_mem_eq(y, expected, all * sizeof *y);
        wk_pool_close(e.pool);
        free(y);
        free(bias);
        free(x);
        free(expected);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("math");
    TCase *t = tcase_create("math");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, exp_within_two_ulps_everywhere);
    tcase_add_test(t, tanh_within_three_ulps_everywhere);
    tcase_add_test(t, softcap);
    tcase_add_test(t, softcap_on_threads);
    tcase_add_test(t, log_within_two_ulps);
    tcase_add_test(t, pow_and_sincos_are_close);
    tcase_add_test(t, every_half_widens_alike);
    tcase_add_test(t, narrowing_rounds_to_nearest_even);
    tcase_add_test(t, rms_norm);
    tcase_add_loop_test(t, glu, 0, WK_ACTIVATION_COUNT);
    tcase_add_test(t, gelu_of_known_numbers);
    tcase_add_loop_test(t, glu_on_threads, 0, WK_ACTIVATION_COUNT);
    tcase_add_test(t, sigmoid_within_four_ulps);
    tcase_add_test(t, bias_and_scale);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
