/*
 * The functions of our own against libm, and what a layer does element by element: every table
 * gives the bits of ref, ref agrees with f64.
 */
#include "kernels/f16.h"
#include "kernels/math.h"
#include "kernels/table.h"
#include "tests/harness.h"
#include "tests/kernel_data.h"

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

START_TEST(rope_angles)
{
    static const int32_t positions[] = {0, 1, 63, 4096, 1 << 20, (1 << 24) - 1};
    enum { N = sizeof positions / sizeof *positions, DIM = 96 };
    float cos_out[N * DIM / 2], sin_out[N * DIM / 2], factors[DIM / 2];
    for (unsigned i = 0; i < DIM / 2; i++)
        factors[i] = 1 + (float)i / 8;
    for (int with = 0; with < 2; with++) {
        wk_rope_angles(positions, N, DIM, 500000, with != 0 ? factors : NULL, cos_out, sin_out);
        for (unsigned j = 0; j < N; j++)
            for (unsigned i = 0; i < DIM / 2; i++) {
                double f = pow(500000, -2.0 * i / DIM) / (with != 0 ? (double)factors[i] : 1);
                double a = positions[j] * f; /* f is known to 1e-15, so a to 1e-15 a */
                double bound = 0x1p-25 + 4e-15 * a;
                ck_assert_double_le(fabs(cos(a) - (double)cos_out[j * DIM / 2 + i]), bound);
                ck_assert_double_le(fabs(sin(a) - (double)sin_out[j * DIM / 2 + i]), bound);
            }
    }
}
END_TEST

START_TEST(rope_rotates_neighbours_and_leaves_the_rest)
{
    enum { N = 3, HEADS = 2, DIM = 10, ROPE = 6 };
    struct wk_engine e = {.table = table[n_tables - 1]};
    float *x = kd_floats(&seed, N * HEADS * DIM), before[N * HEADS * DIM];
    float c[N * ROPE / 2], s[N * ROPE / 2];
    memcpy(before, x, sizeof before);
    wk_rope_angles((int32_t[]){5, 6, 7}, N, ROPE, 10000, NULL, c, s);
    wk_rope(&e, x, N, HEADS, DIM, ROPE, c, s);
    for (unsigned i = 0; i < N * HEADS * DIM; i += 2) {
        unsigned in = i % DIM, row = i / (HEADS * DIM), at = row * (ROPE / 2) + in / 2;
        float a = before[i], b = before[i + 1];
        ck_assert_float_eq(x[i], in < ROPE ? a * c[at] - b * s[at] : a);
        ck_assert_float_eq(x[i + 1], in < ROPE ? a * s[at] + b * c[at] : b);
    }
    free(x);
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

START_TEST(swiglu)
{
    for (size_t n = 1; n <= 100; n++) {
        bool any = n % 5 == 0;
        float *gate = any ? kd_any_floats(&seed, n) : kd_floats(&seed, n),
              *up = kd_floats(&seed, n);
        float *y = kd_alloc(n * sizeof *y), *expected = kd_alloc(n * sizeof *y);
        struct wk_engine e = {.table = table[0]};
        wk_swiglu(&e, gate, up, expected, n);
        for (size_t i = 0; i < n && !any; i++) {
            double v = (double)gate[i] / (1 + exp(-(double)gate[i])) * (double)up[i];
            ck_assert_double_le(fabs(v - (double)expected[i]), 6 * 0x1p-23 * fabs(v) + 0x1p-126);
        }
        for (size_t t = 0; t < n_tables; t++) {
            e.table = table[t];
            memcpy(y, gate, n * sizeof *y);
            wk_swiglu(&e, y, up, y, n);
            ck_assert_uint_eq(kd_differ(expected, y, n), n);
        }
        free(gate);
        free(up);
        free(y);
        free(expected);
    }
}
END_TEST

/* Long enough for every thread, with the special values of silu. */
START_TEST(swiglu_on_threads)
{
    enum { N = 70001 };
    float *gate = kd_floats(&seed, N), *up = kd_floats(&seed, N);
    float *one = kd_alloc(sizeof *one * N), *many = kd_alloc(sizeof *many * N);
    gate[0] = INFINITY, gate[1] = -INFINITY, gate[2] = NAN, gate[3] = -100, gate[4] = 100;
    up[4] = up[3] = up[0] = 2;
    struct wk_engine e = {.table = table[n_tables - 1]};
    wk_swiglu(&e, gate, up, one, N);
    ck_assert(one[0] == INFINITY && isnan(one[1]) && isnan(one[2]) && one[4] == 200);
    ck_assert(one[3] <= 0 && one[3] > -1e-38f);
    e.pool = wk_pool_open(3);
    wk_swiglu(&e, gate, up, many, N);
    ck_assert_uint_eq(kd_differ(one, many, N), N);
    wk_pool_close(e.pool);
    free(gate);
    free(up);
    free(one);
    free(many);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("math");
    TCase *t = tcase_create("math");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, exp_within_two_ulps_everywhere);
    tcase_add_test(t, log_within_two_ulps);
    tcase_add_test(t, pow_and_sincos_are_close);
    tcase_add_test(t, rope_angles);
    tcase_add_test(t, rope_rotates_neighbours_and_leaves_the_rest);
    tcase_add_test(t, every_half_widens_alike);
    tcase_add_test(t, narrowing_rounds_to_nearest_even);
    tcase_add_test(t, rms_norm);
    tcase_add_test(t, swiglu);
    tcase_add_test(t, swiglu_on_threads);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
