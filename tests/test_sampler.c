/*
 * Sampler: against a naive one, against the distribution it should have, and at its edges.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/sampler.h"
#include "kernels/kernels.h"
#include "tests/harness.h"

#define VOCAB_MAX 2000

static struct weft_candidate work[VOCAB_MAX];

static const struct weft_sampling plain = {
    .temperature = 1, .top_p = 1, .repeat_penalty = 1, .repeat_last = 64, .seed = 7};

static int32_t sample(const struct weft_sampling *s, const float *logits, uint32_t vocab,
                      uint32_t position)
{
    int32_t id = -1;
    weft_err err = {0};
    int r = weft_sample(s, logits, vocab, position, NULL, 0, work, &id, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert(id >= 0 && (uint32_t)id < vocab);
    return id;
}

/* ------------------------------------------------------------------ a naive sampler */

static int by_order(const void *a, const void *b)
{
    const struct weft_candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* Sorts everything and goes through the steps one after the other. */
static int32_t naive(const struct weft_sampling *s, const float *logits, uint32_t vocab,
                     uint32_t position, const int32_t *history, size_t n_history)
{
    struct weft_candidate c[VOCAB_MAX];
    double weight[VOCAB_MAX], total = 0, sum = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        bool seen = false;
        for (size_t k = n_history > s->repeat_last ? n_history - s->repeat_last : 0; k < n_history;
             k++)
            seen = seen || history[k] == (int32_t)i;
        float x = logits[i];
        if (seen)
            x = x > 0 ? x / s->repeat_penalty : x * s->repeat_penalty;
        c[i] = (struct weft_candidate){x, (int32_t)i};
    }
    qsort(c, vocab, sizeof *c, by_order);
    if (s->temperature == 0)
        return c[0].id;
    size_t n = s->top_k != 0 && s->top_k < vocab ? s->top_k : vocab;
    for (size_t i = 0; i < n; i++)
        total += weight[i] = (double)wk_exp((c[i].logit - c[0].logit) / s->temperature);
    size_t keep = 0;
    while (keep < n && sum < (double)s->top_p * total)
        sum += weight[keep++];
    while (keep > 1 && weight[keep - 1] < (double)s->min_p)
        keep--;
    total = 0;
    for (size_t i = 0; i < keep; i++)
        total += weight[i];
    const double target = weft_sample_uniform(s->seed, position) * total;
    sum = 0;
    for (size_t i = 0; i < keep; i++)
        if ((sum += weight[i]) > target)
            return c[i].id;
    return -1;
}

START_TEST(agrees_with_a_naive_sampler)
{
    uint64_t seed = weft_test_seed();
    static float logits[VOCAB_MAX];
    int32_t history[100];
    for (int round = 0; round < 4000; round++) {
        const uint32_t vocab =
            1 + (uint32_t)(weft_test_random(&seed) % (round % 20 == 0 ? VOCAB_MAX : 60));
        const float step = round % 3 == 0 ? 0.5f : 0; /* coarse logits have many ties */
        for (uint32_t i = 0; i < vocab; i++) {
            float x = (float)(weft_test_uniform(&seed) * 12 - 6);
            logits[i] = step != 0 ? rintf(x / step) * step : x;
            if (weft_test_random(&seed) % 50 == 0 && i > 0)
                logits[i] = -INFINITY;
        }
        size_t n_history = weft_test_random(&seed) % 100;
        for (size_t i = 0; i < n_history; i++)
            history[i] = (int32_t)(weft_test_random(&seed) % vocab);
        const struct weft_sampling s = {
            .temperature =
                weft_test_random(&seed) % 4 == 0 ? 0 : (float)weft_test_uniform(&seed) * 3,
            .top_k =
                weft_test_random(&seed) % 3 == 0 ? 0 : (uint32_t)(weft_test_random(&seed) % 80),
            .top_p = weft_test_random(&seed) % 3 == 0 ? 1 : (float)weft_test_uniform(&seed) + 1e-6f,
            .min_p = weft_test_random(&seed) % 3 == 0 ? 0 : (float)weft_test_uniform(&seed),
            .repeat_penalty =
                weft_test_random(&seed) % 2 == 0 ? 1 : 1 + (float)weft_test_uniform(&seed),
            .repeat_last = (uint32_t)(weft_test_random(&seed) % 120),
            .seed = weft_test_random(&seed),
        };
        const uint32_t position = (uint32_t)weft_test_random(&seed);
        int32_t id = -1;
        weft_err err = {0};
        ck_assert_msg(weft_sampling_check(&s, &err) == 0, "%s", err.text);
        int r = weft_sample(&s, logits, vocab, position, history, n_history, work, &id, &err);
        ck_assert_msg(r == 0, "%s", err.text);
        ck_assert_msg(id == naive(&s, logits, vocab, position, history, n_history),
                      "round %d: token %d, expected %d", round, id,
                      naive(&s, logits, vocab, position, history, n_history));
    }
}
END_TEST

/* ------------------------------------------------------------------ the distribution */

/* 100 000 draws against probabilities of libm. The seed is fixed, so that the test cannot fail by
 * chance; the limit is what chi square exceeds once in about a million. */
START_TEST(draws_follow_the_distribution)
{
    enum { N = 40, DRAWS = 100000 };
    static const float temperatures[] = {0.5f, 1, 2};
    struct weft_sampling s = plain;
    s.temperature = temperatures[_i];
    uint64_t seed = 99;
    float logits[N];
    double p[N], total = 0, chi = 0;
    int count[N] = {0}, cells = 0;
    for (int i = 0; i < N; i++) {
        logits[i] = (float)(weft_test_uniform(&seed) * 4);
        total += p[i] = exp((double)logits[i] / (double)s.temperature);
    }
    for (uint32_t position = 0; position < DRAWS; position++)
        count[sample(&s, logits, N, position)]++;
    for (int i = 0; i < N; i++) {
        double expected = DRAWS * p[i] / total;
        if (expected < 5)
            continue;
        chi += (count[i] - expected) * (count[i] - expected) / expected;
        cells++;
    }
    ck_assert_int_gt(cells, 20);
    const double df = cells - 1;
    ck_assert_msg(chi < df + 6 * sqrt(2 * df), "chi square %g of %g degrees", chi, df);
    ck_assert_msg(chi > df - 6 * sqrt(2 * df), "chi square %g of %g degrees: too even", chi, df);
}
END_TEST

/* Uniform over positions and over seeds, without relation between neighbours. */
START_TEST(uniform_is_uniform)
{
    enum { N = 100000, CELLS = 100 };
    const double half_sigma = 1 / sqrt(12.0 * N);
    for (int kind = 0; kind < 3; kind++) {
        double sum = 0, product = 0, before = 0.5, chi = 0;
        int count[CELLS] = {0};
        for (uint32_t i = 0; i < N; i++) {
            double u = kind == 0   ? weft_sample_uniform(42, i)
                       : kind == 1 ? weft_sample_uniform(i, 42)
                                   : weft_sample_uniform(0x9e3779b97f4a7c15ull * i, N - i);
            ck_assert(u >= 0 && u < 1);
            count[(int)(u * CELLS)]++;
            sum += u;
            product += (u - 0.5) * (before - 0.5);
            before = u;
        }
        for (int i = 0; i < CELLS; i++)
            chi += (count[i] - N / CELLS) * (double)(count[i] - N / CELLS) / ((double)N / CELLS);
        ck_assert_double_eq_tol(sum / N, 0.5, 5 * half_sigma);
        ck_assert_double_eq_tol(product / N, 0, 5.0 / 12 / sqrt(N));
        ck_assert_double_lt(chi, 99 + 6 * sqrt(2 * 99.0));
    }
}
END_TEST

/* What a replay relies on, across machines and versions; computed by an implementation of its own.
 */
START_TEST(uniform_is_fixed)
{
    ck_assert_double_eq(weft_sample_uniform(1, 0), 0x1.7906ac21d0e58p-2);
    ck_assert_double_eq(weft_sample_uniform(1, 1), 0x1.e31ad9d27ad9ep-1);
    ck_assert_double_eq(weft_sample_uniform(UINT64_MAX, UINT32_MAX), 0x1.8ca531905c5b0p-1);
}
END_TEST

/* ------------------------------------------------------------------ edges */

/* Which of the ids are ever drawn in 300 positions, as a bit set. */
static unsigned drawn(const struct weft_sampling *s, const float *logits, uint32_t vocab)
{
    unsigned set = 0;
    for (uint32_t position = 0; position < 300; position++)
        set |= 1u << sample(s, logits, vocab, position);
    return set;
}

START_TEST(greedy_takes_the_lowest_of_equals)
{
    const float logits[] = {1, 3, -2, 3, 3};
    struct weft_sampling s = plain;
    s.temperature = 0;
    ck_assert_int_eq(sample(&s, logits, 5, 0), 1);
    ck_assert_int_eq(sample(&s, logits + 2, 3, 9), 1);
    const float low[] = {-INFINITY, -3e38f, -INFINITY};
    ck_assert_int_eq(sample(&s, low, 3, 0), 1);
    ck_assert_int_eq(sample(&s, low + 1, 1, 0), 0);
}
END_TEST

START_TEST(top_k_cuts)
{
    const float logits[] = {0, 0.2f, 0.1f, 0.2f};
    struct weft_sampling s = plain;
    ck_assert_uint_eq(drawn(&s, logits, 4), 15);
    s.top_k = 1;
    ck_assert_uint_eq(drawn(&s, logits, 4), 1 << 1);
    s.top_k = 2;
    ck_assert_uint_eq(drawn(&s, logits, 4), 1 << 1 | 1 << 3);
    s.top_k = 3;
    ck_assert_uint_eq(drawn(&s, logits, 4), 14);
    s.top_k = UINT32_MAX;
    ck_assert_uint_eq(drawn(&s, logits, 4), 15);
}
END_TEST

START_TEST(top_p_keeps_the_fewest_that_hold_its_share)
{
    const float logits[] = {0, 0, 0, 0}; /* a quarter each, exactly */
    struct weft_sampling s = plain;
    s.top_p = 1e-6f;
    ck_assert_uint_eq(drawn(&s, logits, 4), 1);
    s.top_p = 0.25f;
    ck_assert_uint_eq(drawn(&s, logits, 4), 1);
    s.top_p = 0.2500001f;
    ck_assert_uint_eq(drawn(&s, logits, 4), 3);
    s.top_p = 0.75f;
    ck_assert_uint_eq(drawn(&s, logits, 4), 7);
    s.top_p = 1;
    ck_assert_uint_eq(drawn(&s, logits, 4), 15);
    s.top_p = 0.5f; /* a share of what top-k left */
    s.top_k = 2;
    ck_assert_uint_eq(drawn(&s, logits, 4), 1);
}
END_TEST

START_TEST(min_p_drops_what_is_far_below_the_best)
{
    const float logits[] = {0, -1, 0, -2}; /* 1, 0.37, 1, 0.14 of the best */
    struct weft_sampling s = plain;
    s.min_p = 0.1f;
    ck_assert_uint_eq(drawn(&s, logits, 4), 15);
    s.min_p = 0.2f;
    ck_assert_uint_eq(drawn(&s, logits, 4), 7);
    s.min_p = 1; /* equals of the best stay */
    ck_assert_uint_eq(drawn(&s, logits, 4), 5);
    s.temperature = 100; /* after temperature: 0.99, 0.98 of the best */
    s.min_p = 0.5f;
    ck_assert_uint_eq(drawn(&s, logits, 4), 15);
}
END_TEST

START_TEST(temperature_near_zero_is_greedy)
{
    const float logits[] = {-3e38f, 1, 1.0001f, 3e38f, -INFINITY};
    struct weft_sampling s = plain;
    s.temperature = 1e-45f;
    ck_assert_uint_eq(drawn(&s, logits, 5), 1 << 3);
    ck_assert_uint_eq(drawn(&s, logits, 3), 1 << 2);
}
END_TEST

START_TEST(minus_infinity_is_never_drawn)
{
    const float logits[] = {-INFINITY, 0, -INFINITY, 0};
    struct weft_sampling s = plain;
    s.temperature = 100;
    ck_assert_uint_eq(drawn(&s, logits, 4), 10);
}
END_TEST

START_TEST(repeat_penalty)
{
    struct weft_sampling s = plain;
    s.temperature = 0;
    s.repeat_penalty = 2;
    int32_t id;
    const float logits[] = {3, 2, -1};
    const int32_t once[] = {0}, often[] = {0, 0, 0, 0};
    /* 3 / 2 is below 2; repetition counts once: 3 / 16 would also be below, so look at the edge */
    ck_assert_int_eq(weft_sample(&s, logits, 3, 0, once, 1, work, &id, NULL), 0);
    ck_assert_int_eq(id, 1);
    const float edge[] = {3, 1, -1};
    ck_assert_int_eq(weft_sample(&s, edge, 3, 0, often, 4, work, &id, NULL), 0);
    ck_assert_int_eq(id, 0);
    /* Below 0 the logit is multiplied. */
    const float negative[] = {-1, -1.5f};
    ck_assert_int_eq(weft_sample(&s, negative, 2, 0, once, 1, work, &id, NULL), 0);
    ck_assert_int_eq(id, 1);
    /* Only the newest repeat_last tokens count. */
    const int32_t old[] = {0, 2, 2};
    s.repeat_last = 2;
    ck_assert_int_eq(weft_sample(&s, logits, 3, 0, old, 3, work, &id, NULL), 0);
    ck_assert_int_eq(id, 0);
    s.repeat_last = 3;
    ck_assert_int_eq(weft_sample(&s, logits, 3, 0, old, 3, work, &id, NULL), 0);
    ck_assert_int_eq(id, 1);
    s.repeat_last = 0;
    ck_assert_int_eq(weft_sample(&s, logits, 3, 0, once, 1, work, &id, NULL), 0);
    ck_assert_int_eq(id, 0);
    ck_assert_float_eq(logits[0], 3);
}
END_TEST

static void refuse(const float *logits, uint32_t vocab, const int32_t *history, size_t n,
                   float penalty, int code, const char *text)
{
    for (int greedy = 0; greedy < 2; greedy++) {
        struct weft_sampling s = plain;
        s.temperature = greedy ? 0 : 1;
        s.repeat_penalty = penalty;
        weft_err err = {0};
        int32_t id = -5;
        ck_assert_int_eq(weft_sample(&s, logits, vocab, 0, history, n, work, &id, &err), -code);
        ck_assert_str_eq(err.text, text);
        ck_assert_int_eq(id, -5);
    }
}

START_TEST(no_distribution_is_refused)
{
    const float nan_last[] = {1, NAN}, infinite[] = {INFINITY, 1}, empty[] = {-INFINITY, -INFINITY};
    const float large[] = {3e38f, 1}, fine[] = {1, 2};
    const int32_t zero = 0, beyond = 2, negative = -1;
    refuse(nan_last, 2, NULL, 0, 1, WEFT_EOVERFLOW,
           "logit nan of token 1 (values out of range; is the model damaged?)");
    refuse(infinite, 2, NULL, 0, 1, WEFT_EOVERFLOW,
           "logit inf of token 0 (values out of range; is the model damaged?)");
    refuse(empty, 2, NULL, 0, 1, WEFT_EOVERFLOW, "all 2 logits are -infinity");
    refuse(large, 2, &zero, 1, 0.5f, WEFT_EOVERFLOW,
           "logit inf of token 0 (values out of range; is the model damaged?)");
    refuse(fine, 2, &beyond, 1, 1, WEFT_ESHAPE, "token 2 in the history, expected 0 to 1");
    refuse(fine, 2, &negative, 1, 1, WEFT_ESHAPE, "token -1 in the history, expected 0 to 1");
}
END_TEST

START_TEST(check_names_what_is_out_of_range)
{
    static const struct {
        struct weft_sampling s;
        const char *text; /* NULL: accepted */
    } cases[] = {
        {{.temperature = 0, .top_p = 1, .repeat_penalty = 1}, NULL},
        {{.temperature = 100,
          .top_p = 1e-9f,
          .min_p = 1,
          .repeat_penalty = 10,
          .repeat_last = 1024},
         NULL},
        {{.temperature = -0.1f, .top_p = 1, .repeat_penalty = 1},
         "temperature -0.1, expected 0 to 100"},
        {{.temperature = 101, .top_p = 1, .repeat_penalty = 1},
         "temperature 101, expected 0 to 100"},
        {{.temperature = NAN, .top_p = 1, .repeat_penalty = 1},
         "temperature nan, expected 0 to 100"},
        {{.top_p = 0, .repeat_penalty = 1}, "top-p 0, expected above 0 and at most 1"},
        {{.top_p = 1.5f, .repeat_penalty = 1}, "top-p 1.5, expected above 0 and at most 1"},
        {{.top_p = 1, .min_p = -1, .repeat_penalty = 1}, "min-p -1, expected 0 to 1"},
        {{.top_p = 1, .min_p = 2, .repeat_penalty = 1}, "min-p 2, expected 0 to 1"},
        {{.top_p = 1}, "repeat penalty 0, expected above 0 and at most 10"},
        {{.top_p = 1, .repeat_penalty = INFINITY},
         "repeat penalty inf, expected above 0 and at most 10"},
        {{.top_p = 1, .repeat_penalty = 1, .repeat_last = 1025},
         "repeat penalty over 1025 tokens, expected at most 1024"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        weft_err err = {0};
        int r = weft_sampling_check(&cases[i].s, &err);
        ck_assert_int_eq(r, cases[i].text != NULL ? -WEFT_EUSAGE : 0);
        ck_assert_str_eq(err.text, cases[i].text != NULL ? cases[i].text : "");
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sampler");
    TCase *c = tcase_create("sampler");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, agrees_with_a_naive_sampler);
    tcase_add_loop_test(c, draws_follow_the_distribution, 0, 3);
    tcase_add_test(c, uniform_is_uniform);
    tcase_add_test(c, uniform_is_fixed);
    tcase_add_test(c, greedy_takes_the_lowest_of_equals);
    tcase_add_test(c, top_k_cuts);
    tcase_add_test(c, top_p_keeps_the_fewest_that_hold_its_share);
    tcase_add_test(c, min_p_drops_what_is_far_below_the_best);
    tcase_add_test(c, temperature_near_zero_is_greedy);
    tcase_add_test(c, minus_infinity_is_never_drawn);
    tcase_add_test(c, repeat_penalty);
    tcase_add_test(c, no_distribution_is_refused);
    tcase_add_test(c, check_names_what_is_out_of_range);
    suite_add_tcase(s, c);
    return weft_test_main(s);
}
