/*
 * Rotary position embedding: frequencies and angles against libm in long double, YaRN's ramp also
 * against figures worked out by hand, rotation against its definition bit by bit.
 */
#include "kernels/kernels.h"
#include "tests/harness.h"
#include "tests/kernel_data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed;

static void setup(void)
{
    seed = weft_test_seed();
}

/* ------------------------------------------------------------------ frequencies */

static long double relative(double got, long double expected)
{
    return fabsl((long double)got - expected) / fabsl(expected);
}

/* The published ramp, with libm in long double: 1 where a pair keeps its frequency. */
static long double kept(const struct wk_rope_spec *s, uint32_t pair)
{
    const long double turns[2] = {(long double)s->beta_fast, (long double)s->beta_slow};
    long double at[2];
    for (int k = 0; k < 2; k++)
        at[k] = (long double)s->rope_dim *
                logl((long double)s->original_context / (turns[k] * 2 * acosl(-1))) /
                (2 * logl((long double)s->base));
    const long double low = fmaxl(floorl(at[0]), 0),
                      high = fminl(ceill(at[1]), (long double)s->rope_dim - 1);
    const long double y = ((long double)pair - low) / fmaxl(high - low, 0.001L);
    return (1 - fminl(1, fmaxl(0, y))) * (long double)s->extrapolation;
}

static long double frequency_of(const struct wk_rope_spec *s, uint32_t i)
{
    long double f = powl((long double)s->base, -2.0L * i / s->rope_dim), keep;
    if (s->factors != NULL)
        f /= (long double)s->factors[i];
    switch (s->scaling) {
    case WK_ROPE_PLAIN:
        return f;
    case WK_ROPE_LINEAR:
        return f / (long double)s->factor;
    case WK_ROPE_YARN:
        break;
    }
    keep = kept(s, i);
    return f / (long double)s->factor * (1 - keep) + f * keep;
}

START_TEST(frequencies_are_those_of_libm)
{
    enum { PAIRS_MAX = 128 };
    float factors[PAIRS_MAX];
    for (uint32_t i = 0; i < PAIRS_MAX; i++)
        factors[i] = 0.5f + (float)weft_test_uniform(&seed) * 60;
    for (unsigned k = 0; k < 600; k++) {
        const struct wk_rope_spec s = {
            .rope_dim = 2 * (1 + (uint32_t)(weft_test_random(&seed) % PAIRS_MAX)),
            .base = k % 3 == 0 ? 10000 : 1000 + (float)weft_test_uniform(&seed) * 5e6f,
            .factors = k % 2 == 0 ? NULL : factors,
            .scaling = (enum wk_rope_scaling)(k % 3),
            .factor = 1 + (float)weft_test_uniform(&seed) * 40,
            .original_context = k % 5 == 0 ? 2 : 8192, /* 2: a ramp of no width */
            .beta_fast = 32,
            .beta_slow = 1,
            .extrapolation = k % 4 == 0 ? 0.5f : 1,
        };
        double *f = kd_alloc(sizeof *f * (s.rope_dim / 2));
        wk_rope_frequencies(&s, f);
        for (uint32_t i = 0; i < s.rope_dim / 2; i++) {
            const long double expected = frequency_of(&s, i);
            ck_assert_msg(relative(f[i], expected) <= 1e-14L, "%u of %u, scaling %u: %a, not %La",
                          i, s.rope_dim, (unsigned)s.scaling, f[i], expected);
        }
        free(f);
    }
}
END_TEST

/* 128 dimensions, base 10000, 4096 positions: 32 turns fall on pair 128 ln(4096 / 64 pi) / (2 ln
 * 10000) = 20.9, one turn on pair 45.03; between 20 and 46 the ramp passes its middle at 33. */
START_TEST(yarn_ramp_by_hand)
{
    struct wk_rope_spec s = {.rope_dim = 128, .base = 10000};
    double plain[64], yarn[64];
    wk_rope_frequencies(&s, plain);
    s.scaling = WK_ROPE_YARN;
    s.factor = 16;
    s.original_context = 4096;
    s.beta_fast = 32;
    s.beta_slow = 1;
    s.extrapolation = 1;
    wk_rope_frequencies(&s, yarn);
    for (unsigned i = 0; i < 64; i++) {
        const double part = i <= 20 ? 1 : i >= 46 ? 1.0 / 16 : 1 - (i - 20) / 26.0 * 15 / 16;
        ck_assert_double_le(fabs(yarn[i] / plain[i] - part), 1e-15);
    }
    ck_assert(yarn[20] == plain[20] && yarn[46] == plain[46] / 16);
    ck_assert_double_le(fabs(yarn[33] / plain[33] - 17.0 / 32), 1e-15);
    s.extrapolation = 0; /* nothing stays: linear */
    wk_rope_frequencies(&s, yarn);
    for (unsigned i = 0; i < 64; i++)
        ck_assert(yarn[i] == plain[i] / 16);
}
END_TEST

START_TEST(yarn_magnitude)
{
    for (float factor = 1; factor < 200; factor += 0.37f) {
        const double expected = 1 + 0.1 * log((double)factor);
        ck_assert_double_le(fabs((double)wk_yarn_magnitude(factor) - expected), 0x1p-24 * expected);
    }
    ck_assert(wk_yarn_magnitude(1) == 1 && wk_yarn_magnitude(0.25f) == 1);
}
END_TEST

/* ------------------------------------------------------------------ angles */

START_TEST(angles_are_those_of_libm)
{
    static const int32_t positions[] = {0, 1, 63, 4096, 1 << 20, (1 << 24) - 1};
    enum { N = sizeof positions / sizeof *positions, PAIRS = 48 };
    const float magnitudes[] = {1, 1.1902f};
    double frequency[PAIRS];
    float *c = kd_alloc(sizeof *c * N * PAIRS), *s = kd_alloc(sizeof *s * N * PAIRS);
    const struct wk_rope_spec spec = {.rope_dim = 2 * PAIRS, .base = 500000};
    wk_rope_frequencies(&spec, frequency);
    for (unsigned k = 0; k < 2; k++) {
        wk_rope_angles(positions, N, PAIRS, frequency, magnitudes[k], c, s);
        for (unsigned j = 0; j < N; j++)
            for (unsigned i = 0; i < PAIRS; i++) {
                const double a = positions[j] * pow(500000, -2.0 * i / (2 * PAIRS));
                const double m = (double)magnitudes[k];
                /* a frequency is known to 1e-15, so a to 1e-15 a */
                const double bound = m * (0x1p-25 + 4e-15 * a) + 0x1p-25;
                ck_assert_double_le(fabs(m * cos(a) - (double)c[j * PAIRS + i]), bound);
                ck_assert_double_le(fabs(m * sin(a) - (double)s[j * PAIRS + i]), bound);
            }
    }
    free(c);
    free(s);
}
END_TEST

/* ------------------------------------------------------------------ rotation */

/* Both styles; heads with an odd number of pairs, with more than a stretch, with a part that stays.
 */
START_TEST(rotation_is_its_definition)
{
    static const uint32_t shapes[][2] = {{2, 2}, {10, 6}, {64, 64}, {160, 134}, {300, 258}};
    const bool halves = _i != 0;
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        uint32_t dim = shapes[k][0], rope = shapes[k][1], half = rope / 2, n = 90, heads = 3;
        size_t floats = (size_t)n * heads * dim;
        float *x = kd_floats(&seed, floats), *expected = kd_alloc(floats * 4);
        float *c = kd_floats(&seed, (size_t)n * half), *s = kd_floats(&seed, (size_t)n * half);
        memcpy(expected, x, floats * 4);
        for (uint32_t i = 0; i < n * heads; i++)
            for (uint32_t j = 0; j < half; j++) {
                float *first = expected + (size_t)i * dim + (halves ? j : 2 * j);
                float *second = first + (halves ? half : 1), a = *first, b = *second;
                size_t at = (size_t)(i / heads) * half + j;
                *first = a * c[at] - b * s[at];
                *second = a * s[at] + b * c[at];
            }
        struct wk_engine e = {.table = wk_table_select(NULL),
                              .pool = k % 2 != 0 ? wk_pool_open(3) : NULL};
        wk_rope(&e, halves ? WK_ROPE_HALVES : WK_ROPE_PAIRS, x, n, heads, dim, rope, c, s);
        ck_assert_mem_eq(x, expected, floats * 4);
        wk_pool_close(e.pool);
        free(x);
        free(expected);
        free(c);
        free(s);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("rope");
    TCase *t = tcase_create("rope");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, frequencies_are_those_of_libm);
    tcase_add_test(t, yarn_ramp_by_hand);
    tcase_add_test(t, yarn_magnitude);
    tcase_add_test(t, angles_are_those_of_libm);
    tcase_add_loop_test(t, rotation_is_its_definition, 0, 2);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
