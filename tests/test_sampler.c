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

/* One token by everything that may be said of it; the result of weft_sample. */
static int sample_with(const struct weft_sampling *s, const float *logits, uint32_t vocab,
                       uint32_t position, const int32_t *history, size_t n_history,
                       const uint64_t *allowed, float *mu, int32_t *ret_id, weft_err *err)
{
    const struct weft_sample_place place = {
        .logits = logits,
        .vocab = vocab,
        .position = position,
        .history = history,
        .n_history = n_history,
        .allowed = allowed,
        .mu = mu,
        .work = work,
    };
    return weft_sample(s, &place, ret_id, err);
}

static int32_t sample(const struct weft_sampling *s, const float *logits, uint32_t vocab,
                      uint32_t position)
{
    int32_t id = -1;
    float mu = weft_sampling_mu(s);
    weft_err err = {0};
    int r = sample_with(s, logits, vocab, position, NULL, 0, NULL, &mu, &id, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert(id >= 0 && (uint32_t)id < vocab);
    return id;
}

static int sample_history(const struct weft_sampling *s, const float *logits, uint32_t vocab,
                          const int32_t *history, size_t n, int32_t *ret_id)
{
    return sample_with(s, logits, vocab, 0, history, n, NULL, NULL, ret_id, NULL);
}

/* ------------------------------------------------------------------ a naive sampler */

static int by_order(const void *a, const void *b)
{
    const struct weft_candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

struct naive {
    struct weft_candidate c[VOCAB_MAX]; /* in order */
    bool left[VOCAB_MAX];
    double weight[VOCAB_MAX];
    size_t n;
};

/* What the penalties, the biases and the mask make of the logits, in order. */
static void naive_logits(struct naive *v, const struct weft_sampling *s, const float *logits,
                         uint32_t vocab, const int32_t *history, size_t n_history,
                         const uint64_t *allowed)
{
    for (uint32_t i = 0; i < vocab; i++) {
        int count = 0;
        for (size_t k = n_history > s->repeat_last ? n_history - s->repeat_last : 0; k < n_history;
             k++)
            count += history[k] == (int32_t)i;
        float x = logits[i];
        if (count > 0) {
            x = x > 0 ? x / s->repeat_penalty : x * s->repeat_penalty;
            x -= (float)count * s->frequency_penalty + s->presence_penalty;
        }
        for (uint32_t k = 0; k < s->n_bias; k++)
            if (s->bias[k].id == (int32_t)i)
                x += s->bias[k].bias;
        if (allowed != NULL && (allowed[i / 64] >> i % 64 & 1) == 0)
            x = -INFINITY;
        v->c[i] = (struct weft_candidate){x, (int32_t)i};
        v->left[i] = true;
    }
    v->n = vocab;
    qsort(v->c, vocab, sizeof v->c[0], by_order);
}

/* Weights of what is left, relative to the first of it; their sum. */
static double naive_weigh(struct naive *v, float temperature)
{
    size_t first = 0;
    double total = 0;
    while (!v->left[first])
        v->weight[first++] = 0;
    for (size_t i = first; i < v->n; i++) {
        v->weight[i] =
            v->left[i] ? (double)wk_exp((v->c[i].logit - v->c[first].logit) / temperature) : 0;
        total += v->weight[i];
    }
    return total;
}

/* Locally typical: by the paper's words, surprise against entropy, taken one by one from the
 * nearest on; of equally near ones the more likely side first. */
static void naive_typical(struct naive *v, float p)
{
    const double total = naive_weigh(v, 1);
    double mean = 0, kept = 0, best = 0;
    bool taken[VOCAB_MAX] = {false};
    size_t first = 0;
    while (!v->left[first])
        first++;
    best = (double)v->c[first].logit;
    for (size_t i = 0; i < v->n; i++)
        if (v->left[i] && v->weight[i] > 0)
            mean += v->weight[i] * (double)(v->c[i].logit - (float)best);
    mean /= total;
    for (size_t n = 0; n == 0 || kept < (double)p * total; n++) {
        size_t at = v->n;
        double nearest = 0;
        for (size_t i = 0; i < v->n; i++) {
            if (!v->left[i] || taken[i])
                continue;
            const double d = (double)(v->c[i].logit - (float)best) - mean;
            const bool above = d > 0;
            /* on the likelier side the later of equals is the nearer to the middle */
            if (at == v->n || fabs(d) < nearest || (fabs(d) == nearest && above)) {
                at = i;
                nearest = fabs(d);
            }
        }
        if (at == v->n)
            break;
        taken[at] = true;
        kept += v->weight[at];
    }
    memcpy(v->left, taken, sizeof taken);
}

static void naive_cuts(struct naive *v, const struct weft_sampling *s)
{
    for (size_t i = 0; i < v->n; i++)
        v->left[i] = s->top_k == 0 || i < s->top_k;
    if (s->typical_p > 0 && s->typical_p < 1)
        naive_typical(v, s->typical_p);
    double sum = 0, total = naive_weigh(v, 1);
    for (size_t i = 0; s->top_p < 1 && i < v->n; i++) {
        const bool enough = sum > 0 && sum >= (double)s->top_p * total;
        sum += v->weight[i];
        v->left[i] = v->left[i] && !enough;
    }
    naive_weigh(v, 1);
    for (size_t i = 0; s->min_p > 0 && i < v->n; i++)
        v->left[i] = v->left[i] && v->weight[i] >= (double)s->min_p;
}

/* Sorts everything and goes through the stages one after the other. */
static int32_t naive(const struct weft_sampling *s, const float *logits, uint32_t vocab,
                     uint32_t position, const int32_t *history, size_t n_history,
                     const uint64_t *allowed, float *mu)
{
    static struct naive v;
    naive_logits(&v, s, logits, vocab, history, n_history, allowed);
    if (s->temperature == 0)
        return v.c[0].id;
    if (s->mirostat == 2) {
        const double total = naive_weigh(&v, s->temperature);
        for (size_t i = 1; i < v.n; i++) /* the same border, to the bit */
            v.left[i] = wk_log(total) - (double)((v.c[i].logit - v.c[0].logit) / s->temperature) <=
                        (double)*mu * wk_log(2);
    } else {
        naive_cuts(&v, s);
    }
    const double total = naive_weigh(&v, s->temperature);
    const double target = weft_sample_uniform(s->seed, position) * total;
    double sum = 0;
    for (size_t i = 0; i < v.n; i++) {
        if ((sum += v.weight[i]) <= target)
            continue;
        if (s->mirostat == 2)
            *mu = (float)((double)*mu - (double)s->mirostat_eta *
                                            (-log2(v.weight[i] / total) - (double)s->mirostat_tau));
        return v.c[i].id;
    }
    return -1;
}

/* What a round is made of. */
struct round {
    struct weft_sampling s;
    struct weft_logit_bias bias[8];
    float logits[VOCAB_MAX];
    int32_t history[100];
    size_t n_history;
    uint64_t allowed[(VOCAB_MAX + 63) / 64];
    bool masked;
    uint32_t vocab;
};

static float often(uint64_t *seed, float usual, float low, float high)
{
    return weft_test_random(seed) % 3 == 0 ? usual
                                           : low + (float)weft_test_uniform(seed) * (high - low);
}

static void make_round(struct round *r, int number, uint64_t *seed)
{
    r->vocab = 1 + (uint32_t)(weft_test_random(seed) % (number % 20 == 0 ? VOCAB_MAX : 60));
    const float step = number % 3 == 0 ? 0.5f : 0; /* coarse logits have many ties */
    for (uint32_t i = 0; i < r->vocab; i++) {
        float x = (float)(weft_test_uniform(seed) * 12 - 6);
        r->logits[i] = step != 0 ? rintf(x / step) * step : x;
        if (weft_test_random(seed) % 50 == 0 && i > 0)
            r->logits[i] = -INFINITY;
    }
    r->n_history = weft_test_random(seed) % 100;
    for (size_t i = 0; i < r->n_history; i++)
        r->history[i] = (int32_t)(weft_test_random(seed) % r->vocab);
    for (size_t i = 0; i < 8; i++)
        r->bias[i] = (struct weft_logit_bias){
            (int32_t)(weft_test_random(seed) % r->vocab),
            weft_test_random(seed) % 4 == 0 ? -INFINITY : (float)weft_test_uniform(seed) * 4 - 2};
    r->masked = weft_test_random(seed) % 3 == 0;
    for (size_t i = 0; i < sizeof r->allowed / sizeof r->allowed[0]; i++)
        r->allowed[i] = weft_test_random(seed);
    r->s = (struct weft_sampling){
        .temperature = weft_test_random(seed) % 4 == 0 ? 0 : (float)weft_test_uniform(seed) * 3,
        .top_k = weft_test_random(seed) % 3 == 0 ? 0 : (uint32_t)(weft_test_random(seed) % 80),
        .typical_p = often(seed, 1, 0, 1),
        .top_p = often(seed, 1, 1e-6f, 1),
        .min_p = often(seed, 0, 0, 1),
        .repeat_penalty = often(seed, 1, 1, 2),
        .presence_penalty = often(seed, 0, -2, 2),
        .frequency_penalty = often(seed, 0, -1, 1),
        .repeat_last = (uint32_t)(weft_test_random(seed) % 120),
        .mirostat = weft_test_random(seed) % 4 == 0 ? 2 : 0,
        .mirostat_tau = 5 * (float)weft_test_uniform(seed),
        .mirostat_eta = (float)weft_test_uniform(seed),
        .seed = weft_test_random(seed),
        .bias = r->bias,
        .n_bias = (uint32_t)(weft_test_random(seed) % 9),
    };
}

START_TEST(agrees_with_a_naive_sampler)
{
    static struct round r;
    uint64_t seed = weft_test_seed();
    int sampled = 0;
    for (int round = 0; round < 6000; round++) {
        make_round(&r, round, &seed);
        const uint32_t position = (uint32_t)weft_test_random(&seed);
        const float start = weft_sampling_mu(&r.s);
        float mu = start, naive_mu = start;
        int32_t id = -1;
        weft_err err = {0};
        const uint64_t *allowed = r.masked ? r.allowed : NULL;
        ck_assert_msg(weft_sampling_check(&r.s, &err) == 0, "%s", err.text);
        int result = sample_with(&r.s, r.logits, r.vocab, position, r.history, r.n_history, allowed,
                                 &mu, &id, &err);
        if (result == -WEFT_ESTATE) { /* mask and bans left nothing */
            ck_assert(mu == start && (r.masked || r.s.n_bias > 0));
            continue;
        }
        sampled++;
        ck_assert_msg(result == 0, "%s", err.text);
        int32_t want =
            naive(&r.s, r.logits, r.vocab, position, r.history, r.n_history, allowed, &naive_mu);
        ck_assert_msg(id == want, "round %d: token %d, expected %d", round, id, want);
        ck_assert_float_eq_tol(mu, naive_mu, 1e-5f);
        ck_assert(allowed == NULL || (allowed[id / 64] >> id % 64 & 1) != 0);
    }
    ck_assert_int_gt(sampled, 4000);
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
    s.temperature = 100; /* comes after it: what is improbable does not come back */
    s.min_p = 0.2f;
    ck_assert_uint_eq(drawn(&s, logits, 4), 7);
    s.min_p = 0;
    s.top_p = 0.9f; /* 0.4, 0.4, 0.15, 0.05 of all */
    ck_assert_uint_eq(drawn(&s, logits, 4), 7);
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
    ck_assert_int_eq(sample_history(&s, logits, 3, once, 1, &id), 0);
    ck_assert_int_eq(id, 1);
    const float edge[] = {3, 1, -1};
    ck_assert_int_eq(sample_history(&s, edge, 3, often, 4, &id), 0);
    ck_assert_int_eq(id, 0);
    /* Below 0 the logit is multiplied. */
    const float negative[] = {-1, -1.5f};
    ck_assert_int_eq(sample_history(&s, negative, 2, once, 1, &id), 0);
    ck_assert_int_eq(id, 1);
    /* Only the newest repeat_last tokens count. */
    const int32_t old[] = {0, 2, 2};
    s.repeat_last = 2;
    ck_assert_int_eq(sample_history(&s, logits, 3, old, 3, &id), 0);
    ck_assert_int_eq(id, 0);
    s.repeat_last = 3;
    ck_assert_int_eq(sample_history(&s, logits, 3, old, 3, &id), 0);
    ck_assert_int_eq(id, 1);
    s.repeat_last = 0;
    ck_assert_int_eq(sample_history(&s, logits, 3, once, 1, &id), 0);
    ck_assert_int_eq(id, 0);
    ck_assert_float_eq(logits[0], 3);
}
END_TEST

START_TEST(presence_and_frequency)
{
    struct weft_sampling s = plain;
    s.temperature = 0;
    int32_t id;
    const float logits[] = {3, 2, 1};
    const int32_t history[] = {1, 0, 0, 1, 0};
    s.presence_penalty = 1.5f; /* 1.5, 0.5, 1 however often they came */
    ck_assert_int_eq(sample_history(&s, logits, 3, history, 5, &id), 0);
    ck_assert_int_eq(id, 0);
    s.presence_penalty = 2.5f; /* 0.5, -0.5, 1 */
    ck_assert_int_eq(sample_history(&s, logits, 3, history, 5, &id), 0);
    ck_assert_int_eq(id, 2);
    s.presence_penalty = 0;
    s.frequency_penalty = 0.5f; /* 1.5, 1, 1 */
    ck_assert_int_eq(sample_history(&s, logits, 3, history, 5, &id), 0);
    ck_assert_int_eq(id, 0);
    s.frequency_penalty = 0.9f; /* 0.3, 0.2, 1 */
    ck_assert_int_eq(sample_history(&s, logits, 3, history, 5, &id), 0);
    ck_assert_int_eq(id, 2);
    s.repeat_last = 2; /* 1 and 0 once each: 2.1, 1.1, 1 */
    ck_assert_int_eq(sample_history(&s, logits, 3, history, 5, &id), 0);
    ck_assert_int_eq(id, 0);
    s.frequency_penalty = -2; /* a reward: 5, 4, 1 */
    s.repeat_penalty = 4;     /* first 3/4 and 2/4: 2.75, 2.5, 1 */
    ck_assert_int_eq(sample_history(&s, logits, 3, history, 5, &id), 0);
    ck_assert_int_eq(id, 0);
}
END_TEST

START_TEST(logit_bias)
{
    const float logits[] = {0, 1, 2, 3};
    struct weft_logit_bias bias[] = {
        {3, -INFINITY}, {0, 5}, {0, -2.5f}}; /* one token twice: sums */
    struct weft_sampling s = plain;
    s.bias = bias;
    s.n_bias = 1;
    ck_assert_uint_eq(drawn(&s, logits, 4), 7);
    s.temperature = 0;
    ck_assert_int_eq(sample(&s, logits, 4, 0), 2);
    s.n_bias = 2;
    ck_assert_int_eq(sample(&s, logits, 4, 0), 0);
    s.n_bias = 3;
    ck_assert_int_eq(sample(&s, logits, 4, 0), 0);
    bias[2].bias = -4;
    ck_assert_int_eq(sample(&s, logits, 4, 0), 2);
    /* it comes after the penalties and counts in full */
    const int32_t history[] = {1};
    struct weft_logit_bias one = {1, 2.5f};
    int32_t id;
    s.bias = &one;
    s.n_bias = 1;
    s.repeat_penalty = 2; /* 1 / 2 + 2.5: equal to the best, and lower */
    ck_assert_int_eq(sample_history(&s, logits, 4, history, 1, &id), 0);
    ck_assert_int_eq(id, 1);
}
END_TEST

START_TEST(what_the_mask_leaves)
{
    const float logits[] = {5, 1, 1, 4};
    const uint64_t middle = 6, none = 0;
    struct weft_sampling s = plain;
    weft_err err = {0};
    int32_t id = -5;
    unsigned set = 0;
    for (uint32_t position = 0; position < 100; position++) {
        ck_assert_int_eq(sample_with(&s, logits, 4, position, NULL, 0, &middle, NULL, &id, NULL),
                         0);
        set |= 1u << id;
    }
    ck_assert_uint_eq(set, 6);
    s.temperature = 0;
    ck_assert_int_eq(sample_with(&s, logits, 4, 0, NULL, 0, &middle, NULL, &id, NULL), 0);
    ck_assert_int_eq(id, 1);
    ck_assert_int_eq(sample_with(&s, logits, 4, 0, NULL, 0, &none, NULL, &id, &err), -WEFT_ESTATE);
    ck_assert_str_eq(err.text, "the grammar allows none of the vocabulary's 4 tokens");
    struct weft_logit_bias ban[] = {{1, -INFINITY}, {2, -INFINITY}};
    s.bias = ban;
    s.n_bias = 2;
    err = (weft_err){0};
    ck_assert_int_eq(sample_with(&s, logits, 4, 0, NULL, 0, &middle, NULL, &id, &err),
                     -WEFT_ESTATE);
    ck_assert_str_eq(err.text,
                     "the grammar and the logit biases leave none of the vocabulary's 4 tokens");
    /* a damaged model shows also under the mask */
    const float damaged[] = {NAN, 1, 1, 4};
    ck_assert_int_eq(sample_with(&plain, damaged, 4, 0, NULL, 0, &middle, NULL, &id, &err),
                     -WEFT_EOVERFLOW);
}
END_TEST

/* Probabilities 1/2, 1/4, 1/8, 1/8: surprise 1, 2, 3, 3 bits, entropy 1.75; distances 0.75, 0.25,
 * 1.25, 1.25. */
START_TEST(typical_keeps_what_surprises_as_usual)
{
    const float logits[] = {0, -0.69314718f, -1.38629436f, -1.38629436f};
    struct weft_sampling s = plain;
    s.typical_p = 0.2f;
    ck_assert_uint_eq(drawn(&s, logits, 4), 1 << 1);
    s.typical_p = 0.3f;
    ck_assert_uint_eq(drawn(&s, logits, 4), 3);
    s.typical_p = 0.8f; /* of equally far ones the lower id */
    ck_assert_uint_eq(drawn(&s, logits, 4), 7);
    s.typical_p = 0.9f;
    ck_assert_uint_eq(drawn(&s, logits, 4), 15);
    s.typical_p = 0; /* off */
    ck_assert_uint_eq(drawn(&s, logits, 4), 15);
    s.typical_p = 0.2f;
    s.top_k = 1; /* comes first */
    ck_assert_uint_eq(drawn(&s, logits, 4), 1);
    s.top_k = 0;
    s.typical_p = 0.3f;
    s.top_p = 0.6f; /* of what it left: 2/3, 1/3 */
    ck_assert_uint_eq(drawn(&s, logits, 4), 1);
    const float even[] = {2, 2, 2, -INFINITY}; /* all are as usual */
    s.top_p = 1;
    ck_assert_uint_eq(drawn(&s, even, 4), 1);
    s.typical_p = 0.9f;
    ck_assert_uint_eq(drawn(&s, even, 4), 7);
}
END_TEST

START_TEST(mirostat_cuts_and_learns)
{
    /* 1/2, 1/4, 1/8, 1/8 as above: surprise 1, 2, 3, 3 bits */
    const float logits[] = {0, -0.69314718f, -1.38629436f, -1.38629436f};
    struct weft_sampling s = plain;
    s.mirostat = 2;
    s.mirostat_tau = 1.25f;
    s.mirostat_eta = 0.5f;
    s.top_k = 1; /* not used */
    ck_assert_float_eq(weft_sampling_mu(&s), 2.5f);
    for (uint32_t position = 0; position < 100; position++) {
        float mu = 2.5f; /* 2/3 and 1/3 are left */
        int32_t id = -1;
        ck_assert_int_eq(sample_with(&s, logits, 4, position, NULL, 0, NULL, &mu, &id, NULL), 0);
        ck_assert(id == 0 || id == 1);
        ck_assert_float_eq_tol(mu, 2.5f - 0.5f * ((id == 0 ? 0.5849625f : 1.5849625f) - 1.25f),
                               1e-5f);
        mu = -3; /* the best one stays, and is no surprise */
        ck_assert_int_eq(sample_with(&s, logits, 4, position, NULL, 0, NULL, &mu, &id, NULL), 0);
        ck_assert_int_eq(id, 0);
        ck_assert_float_eq_tol(mu, -3 + 0.5f * 1.25f, 1e-5f);
    }
    s.temperature = 0;
    float mu = 2.5f;
    int32_t id;
    ck_assert_int_eq(sample_with(&s, logits, 4, 0, NULL, 0, NULL, &mu, &id, NULL), 0);
    ck_assert(id == 0 && mu == 2.5f);
}
END_TEST

/* Over many tokens the surprise comes to tau, which a wide distribution allows. */
START_TEST(mirostat_holds_the_surprise)
{
    enum { N = 500, TOKENS = 4000 };
    static float logits[N];
    struct weft_sampling s = plain;
    uint64_t seed = 5;
    double sum = 0;
    for (int i = 0; i < N; i++)
        logits[i] = (float)weft_test_uniform(&seed) * 8;
    s.mirostat = 2;
    s.mirostat_tau = 4;
    s.mirostat_eta = 0.1f;
    float mu = weft_sampling_mu(&s);
    for (uint32_t i = 0; i < TOKENS; i++) {
        const float before = mu;
        int32_t id;
        ck_assert_int_eq(sample_with(&s, logits, N, i, NULL, 0, NULL, &mu, &id, NULL), 0);
        sum += (double)((before - mu) / s.mirostat_eta + s.mirostat_tau);
    }
    ck_assert_double_eq_tol(sum / TOKENS, 4, 0.05);
}
END_TEST

/* ------------------------------------------------------------------ log-probabilities */

START_TEST(logprobs_are_those_of_the_logits)
{
    uint64_t seed = weft_test_seed();
    static float logits[VOCAB_MAX];
    static struct weft_candidate sorted[VOCAB_MAX];
    for (int round = 0; round < 200; round++) {
        const uint32_t vocab = 1 + (uint32_t)(weft_test_random(&seed) % VOCAB_MAX);
        const uint32_t most = vocab < WEFT_LOGPROBS_MAX ? vocab : WEFT_LOGPROBS_MAX;
        const uint32_t n = (uint32_t)(weft_test_random(&seed) % (most + 1));
        double total = 0;
        for (uint32_t i = 0; i < vocab; i++) {
            logits[i] = rintf((float)weft_test_uniform(&seed) * 40) / (round % 2 == 0 ? 1 : 7);
            sorted[i] = (struct weft_candidate){logits[i], (int32_t)i};
            total += exp((double)logits[i]);
        }
        qsort(sorted, vocab, sizeof *sorted, by_order);
        const int32_t id = (int32_t)(weft_test_random(&seed) % vocab);
        struct weft_logprob got[1 + WEFT_LOGPROBS_MAX];
        weft_logprobs(logits, vocab, id, n, got);
        ck_assert_int_eq(got[0].id, id);
        ck_assert_double_eq_tol((double)got[0].logprob, (double)logits[id] - log(total), 1e-5);
        for (uint32_t i = 0; i < n; i++) {
            ck_assert_int_eq(got[1 + i].id, sorted[i].id);
            ck_assert_double_eq_tol((double)got[1 + i].logprob,
                                    (double)sorted[i].logit - log(total), 1e-5);
        }
    }
    const float two[] = {1, -INFINITY};
    struct weft_logprob got[3];
    weft_logprobs(two, 2, 1, 2, got);
    ck_assert(got[0].logprob == -INFINITY && got[1].id == 0 && got[1].logprob == 0);
    ck_assert(got[2].id == 1 && got[2].logprob == -INFINITY);
}
END_TEST

/* ------------------------------------------------------------------ refusals */

static void refuse(const float *logits, uint32_t vocab, const int32_t *history, size_t n,
                   float penalty, int code, const char *text)
{
    for (int greedy = 0; greedy < 2; greedy++) {
        struct weft_sampling s = plain;
        s.temperature = greedy ? 0 : 1;
        s.repeat_penalty = penalty;
        weft_err err = {0};
        int32_t id = -5;
        ck_assert_int_eq(sample_with(&s, logits, vocab, 0, history, n, NULL, NULL, &id, &err),
                         -code);
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
    static struct weft_logit_bias bias[] = {{7, NAN}, {8, INFINITY}, {9, -2e6f}, {1, 1e6f}};
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
         "penalties over 1025 tokens, expected at most 1024"},
        {{.typical_p = 1.1f, .top_p = 1, .repeat_penalty = 1}, "typical-p 1.1, expected 0 to 1"},
        {{.typical_p = NAN, .top_p = 1, .repeat_penalty = 1}, "typical-p nan, expected 0 to 1"},
        {{.top_p = 1, .repeat_penalty = 1, .presence_penalty = 10.5f},
         "presence penalty 10.5, expected -10 to 10"},
        {{.top_p = 1, .repeat_penalty = 1, .frequency_penalty = -INFINITY},
         "frequency penalty -inf, expected -10 to 10"},
        {{.top_p = 1, .repeat_penalty = 1, .presence_penalty = NAN},
         "presence penalty nan, expected -10 to 10"},
        {{.top_p = 1, .repeat_penalty = 1, .mirostat = 1}, "mirostat 1, expected 0 or 2"},
        {{.top_p = 1, .repeat_penalty = 1, .mirostat = 2, .mirostat_tau = 101},
         "mirostat tau 101, expected 0 to 100"},
        {{.top_p = 1, .repeat_penalty = 1, .mirostat = 2, .mirostat_eta = NAN},
         "mirostat eta nan, expected 0 to 1"},
        {{.top_p = 1, .repeat_penalty = 1, .mirostat = 2, .mirostat_tau = 5, .mirostat_eta = 1},
         NULL},
        {{.top_p = 1, .repeat_penalty = 1, .bias = bias + 3, .n_bias = 1}, NULL},
        {{.top_p = 1, .repeat_penalty = 1, .bias = bias, .n_bias = 1},
         "logit bias nan of token 7, expected -1000000 to 1000000, or -inf"},
        {{.top_p = 1, .repeat_penalty = 1, .bias = bias + 1, .n_bias = 3},
         "logit bias inf of token 8, expected -1000000 to 1000000, or -inf"},
        {{.top_p = 1, .repeat_penalty = 1, .bias = bias + 2, .n_bias = 2},
         "logit bias -2e+06 of token 9, expected -1000000 to 1000000, or -inf"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        weft_err err = {0};
        int r = weft_sampling_check(&cases[i].s, &err);
        ck_assert_int_eq(r, cases[i].text != NULL ? -WEFT_EUSAGE : 0);
        ck_assert_str_eq(err.text, cases[i].text != NULL ? cases[i].text : "");
    }
    struct weft_sampling many = plain;
    many.n_bias = WEFT_LOGIT_BIAS_MAX + 1; /* counted before it is looked at */
    weft_err err = {0};
    ck_assert_int_eq(weft_sampling_check(&many, &err), -WEFT_ELIMIT);
    ck_assert_str_eq(err.text, "1025 logit biases, expected at most 1024");
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
    tcase_add_test(c, presence_and_frequency);
    tcase_add_test(c, logit_bias);
    tcase_add_test(c, what_the_mask_leaves);
    tcase_add_test(c, typical_keeps_what_surprises_as_usual);
    tcase_add_test(c, mirostat_cuts_and_learns);
    tcase_add_test(c, mirostat_holds_the_surprise);
    tcase_add_test(c, logprobs_are_those_of_the_logits);
    tcase_add_test(c, no_distribution_is_refused);
    tcase_add_test(c, check_names_what_is_out_of_range);
    suite_add_tcase(s, c);
    return weft_test_main(s);
}
