/*
 * Sampler, see sampler.h. Pure.
 *
 * Candidates are taken from a binary heap ordered by (logit descending, id ascending): building it
 * is linear in the vocabulary, and each candidate that is looked at costs a logarithm. In that
 * order every cut leaves a run, so the stages narrow [first, end), and what lies far behind it is
 * never sorted.
 *
 * Sources: repeat penalty: Keskar et al., arXiv:1909.05858. Typical: Meister et al.,
 * arXiv:2202.00666. Top-p: Holtzman et al., arXiv:1904.09751. Min-p: Nguyen et al.,
 * arXiv:2407.01082. Mirostat: Basu et al., arXiv:2007.14966. Presence and frequency penalties are
 * those of the APIs that made them known.
 */
#include "daemon/sampler.h"

#include <math.h>
#include <stdbool.h>

#include "kernels/kernels.h"

#define ADDITIVE_MAX 10 /* of presence and frequency penalties; APIs take 2 */
#define BIAS_MAX 1e6f   /* far above any logit, and sums with one stay finite */
#define TAU_MAX 100     /* bits; the largest vocabulary has 20 */

/* Written so that NaN fails. */
static int check_penalties(const struct weft_sampling *s, weft_err *err)
{
    if (!(s->repeat_penalty > 0 && s->repeat_penalty <= 10))
        return weft_fail(err, WEFT_EUSAGE, "repeat penalty %g, expected above 0 and at most 10",
                         (double)s->repeat_penalty);
    if (!(s->presence_penalty >= -ADDITIVE_MAX && s->presence_penalty <= ADDITIVE_MAX))
        return weft_fail(err, WEFT_EUSAGE, "presence penalty %g, expected %d to %d",
                         (double)s->presence_penalty, -ADDITIVE_MAX, ADDITIVE_MAX);
    if (!(s->frequency_penalty >= -ADDITIVE_MAX && s->frequency_penalty <= ADDITIVE_MAX))
        return weft_fail(err, WEFT_EUSAGE, "frequency penalty %g, expected %d to %d",
                         (double)s->frequency_penalty, -ADDITIVE_MAX, ADDITIVE_MAX);
    if (s->repeat_last > WEFT_HISTORY_MAX)
        return weft_fail(err, WEFT_EUSAGE, "penalties over %u tokens, expected at most %u",
                         s->repeat_last, (unsigned)WEFT_HISTORY_MAX);
    return 0;
}

static int check_bias(const struct weft_sampling *s, weft_err *err)
{
    if (s->n_bias > WEFT_LOGIT_BIAS_MAX)
        return weft_fail(err, WEFT_ELIMIT, "%u logit biases, expected at most %u", s->n_bias,
                         (unsigned)WEFT_LOGIT_BIAS_MAX);
    for (uint32_t i = 0; i < s->n_bias; i++) {
        float b = s->bias[i].bias;
        if (!((b >= -BIAS_MAX && b <= BIAS_MAX) || b == -INFINITY))
            return weft_fail(err, WEFT_EUSAGE,
                             "logit bias %g of token %d, expected -1000000 to 1000000, or -inf",
                             (double)b, s->bias[i].id);
    }
    return 0;
}

int weft_sampling_check(const struct weft_sampling *s, weft_err *err)
{
    if (!(s->temperature >= 0 && s->temperature <= 100))
        return weft_fail(err, WEFT_EUSAGE, "temperature %g, expected 0 to 100",
                         (double)s->temperature);
    if (!(s->typical_p >= 0 && s->typical_p <= 1))
        return weft_fail(err, WEFT_EUSAGE, "typical-p %g, expected 0 to 1", (double)s->typical_p);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return weft_fail(err, WEFT_EUSAGE, "top-p %g, expected above 0 and at most 1",
                         (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return weft_fail(err, WEFT_EUSAGE, "min-p %g, expected 0 to 1", (double)s->min_p);
    if (s->mirostat != 0 && s->mirostat != 2)
        return weft_fail(err, WEFT_EUSAGE, "mirostat %u, expected 0 or 2", s->mirostat);
    if (s->mirostat != 0 && !(s->mirostat_tau >= 0 && s->mirostat_tau <= TAU_MAX))
        return weft_fail(err, WEFT_EUSAGE, "mirostat tau %g, expected 0 to %d",
                         (double)s->mirostat_tau, TAU_MAX);
    if (s->mirostat != 0 && !(s->mirostat_eta >= 0 && s->mirostat_eta <= 1))
        return weft_fail(err, WEFT_EUSAGE, "mirostat eta %g, expected 0 to 1",
                         (double)s->mirostat_eta);
    int r = check_penalties(s, err);
    return r < 0 ? r : check_bias(s, err);
}

float weft_sampling_mu(const struct weft_sampling *s)
{
    return 2 * s->mirostat_tau;
}

/* splitmix64's finaliser (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
 * 2014). */
static uint64_t mix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

double weft_sample_uniform(uint64_t seed, uint32_t position)
{
    const uint64_t golden = 0x9e3779b97f4a7c15ull; /* 2^64 / golden ratio, splitmix64's increment */
    /* The seed is mixed too: seeds that differ by the increment would walk through the same
     * numbers. */
    uint64_t z = mix(mix(seed + golden) + golden * ((uint64_t)position + 1));
    return (double)(z >> 11) * 0x1p-53;
}

/* ------------------------------------------------------------------ order */

static bool before(const struct weft_candidate *a, const struct weft_candidate *b)
{
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void sift_down(struct weft_candidate *heap, size_t i, size_t n)
{
    struct weft_candidate c = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &c))
            break;
        heap[i] = heap[child];
    }
    heap[i] = c;
}

static void heapify(struct weft_candidate *c, size_t n)
{
    for (size_t i = n / 2; i > 0; i--)
        sift_down(c, i - 1, n);
}

/* ------------------------------------------------------------------ logits */

/* Of the window's tokens each is penalised by what its own logit and its count say, so it does not
 * matter that one which came often is met often. */
static int penalise(const struct weft_sampling *s, const struct weft_sample_place *at,
                    weft_err *err)
{
    struct weft_candidate *c = at->work;
    size_t n = at->n_history < s->repeat_last ? at->n_history : s->repeat_last;
    const int32_t *window = at->history + (at->n_history - n);
    for (size_t i = 0; i < n; i++) {
        int32_t id = window[i];
        if (id < 0 || (uint32_t)id >= at->vocab)
            return weft_fail(err, WEFT_ESHAPE, "token %d in the history, expected 0 to %u", id,
                             at->vocab - 1);
        float x = at->logits[id];
        x = x > 0 ? x / s->repeat_penalty : x * s->repeat_penalty;
        uint32_t count = 0;
        for (size_t k = 0; s->frequency_penalty != 0 && k < n; k++)
            count += window[k] == id;
        c[id].logit = x - ((float)count * s->frequency_penalty + s->presence_penalty);
    }
    return 0;
}

/* Copies the logits, then what changes them: penalties, biases, grammar. */
static int candidates(const struct weft_sampling *s, const struct weft_sample_place *at,
                      weft_err *err)
{
    struct weft_candidate *c = at->work;
    for (uint32_t i = 0; i < at->vocab; i++)
        c[i] = (struct weft_candidate){.logit = at->logits[i], .id = (int32_t)i};
    int r = penalise(s, at, err);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < s->n_bias; i++) {
        int32_t id = s->bias[i].id;
        if (id < 0 || (uint32_t)id >= at->vocab)
            return weft_fail(err, WEFT_ESHAPE, "logit bias of token %d, expected 0 to %u", id,
                             at->vocab - 1);
        c[id].logit += s->bias[i].bias;
    }
    for (uint32_t i = 0; at->allowed != NULL && i < at->vocab; i++)
        if ((at->allowed[i / 64] >> i % 64 & 1) == 0 && c[i].logit < INFINITY) /* a NaN stays */
            c[i].logit = -INFINITY;
    return 0;
}

/* The best candidate; an error when there is no distribution. */
static int find_best(const struct weft_sampling *s, const struct weft_sample_place *at,
                     struct weft_candidate *ret, weft_err *err)
{
    const struct weft_candidate *c = at->work;
    struct weft_candidate best = {.logit = -INFINITY, .id = -1};
    for (uint32_t i = 0; i < at->vocab; i++) {
        if (!(c[i].logit < INFINITY))
            return weft_fail(err, WEFT_EOVERFLOW,
                             "logit %g of token %u (values out of range; is the model damaged?)",
                             (double)c[i].logit, i);
        if (before(&c[i], &best))
            best = c[i];
    }
    if (best.logit == -INFINITY && (at->allowed != NULL || s->n_bias > 0))
        return weft_fail(err, WEFT_ESTATE, "the %s of the vocabulary's %u tokens",
                         at->allowed == NULL ? "logit biases leave none"
                         : s->n_bias == 0    ? "grammar allows none"
                                             : "grammar and the logit biases leave none",
                         at->vocab);
    if (best.logit == -INFINITY)
        return weft_fail(err, WEFT_EOVERFLOW, "all %u logits are -infinity", at->vocab);
    *ret = best;
    return 0;
}

/* ------------------------------------------------------------------ a run of candidates */

/* Candidates [first, end) in order are left. Those that were asked for lie in order at the end of
 * c, the best one last; what is before them is a heap. */
struct run {
    struct weft_candidate *c; /* [n] */
    size_t n, sorted, first, end;
    /* Sums over all candidates, in the order of their ids: nothing has to be sorted for them. Valid
     * while `whole`: no top-k, and no cut yet. */
    bool whole;
    double total, moment;
};

static float logit(struct run *r, size_t i)
{
    for (; r->sorted <= i; r->sorted++) {
        const size_t last = r->n - 1 - r->sorted;
        const struct weft_candidate best = r->c[0];
        r->c[0] = r->c[last];
        r->c[last] = best;
        if (last > 0)
            sift_down(r->c, 0, last);
    }
    return r->c[r->n - 1 - i].logit;
}

/* Weight of a candidate, the first one's being 1. */
static double weight(struct run *r, size_t i, float temperature)
{
    return (double)wk_exp((logit(r, i) - logit(r, r->first)) / temperature);
}

static void add(struct run *r, float logit_of, float best, float temperature)
{
    const double w = (double)wk_exp((logit_of - best) / temperature);
    r->total += w;
    if (w > 0) /* 0 · -infinity is no number */
        r->moment += w * (double)(logit_of - best);
}

/* Makes total the sum of the weights that are left, moment that of weight · (logit - best). */
static void sum_up(struct run *r, float temperature)
{
    if (r->whole)
        return;
    r->total = r->moment = 0;
    for (size_t i = r->first; i < r->end; i++)
        add(r, logit(r, i), logit(r, r->first), temperature);
}

/* The k best of n candidates, in the order of their ids; best: the first of all. */
static struct run start(struct weft_candidate *c, size_t n, size_t k, float best, float temperature)
{
    struct run r = {.c = c, .n = n, .end = k, .whole = k == n};
    for (size_t i = 0; r.whole && i < n; i++)
        add(&r, c[i].logit, best, temperature);
    heapify(c, n);
    return r;
}

static void keep(struct run *r, size_t first, size_t end)
{
    r->first = first;
    r->end = end;
    r->whole = false;
}

/* ------------------------------------------------------------------ cuts */

/* The tokens whose surprise is nearest to the entropy, the fewest that hold the share p. With
 * d = logit - best, surprise is log(total) - d and the entropy log(total) - mean(d), so what counts
 * is |d - mean|. It falls and then rises along the order: the set is a run that grows from where d
 * passes the mean, to the nearer side, of equally near ones to the likelier. */
static void cut_typical(struct run *r, float p)
{
    sum_up(r, 1);
    const float best = logit(r, r->first);
    const double enough = (double)p * r->total, mean = r->moment / r->total;
    size_t low = r->first;
    while (low < r->end && (double)(logit(r, low) - best) > mean)
        low++;
    size_t high = low; /* [low, high) is kept */
    double kept = 0;
    while (high - low < r->end - r->first && (low == high || kept < enough)) {
        /* A side that has ended is infinitely far, as a logit of -infinity is. */
        double above = low > r->first ? (double)(logit(r, low - 1) - best) - mean : INFINITY;
        double below = high < r->end ? mean - (double)(logit(r, high) - best) : INFINITY;
        if (low > r->first && (above <= below || high == r->end))
            kept += (double)wk_exp(logit(r, --low) - best);
        else
            kept += (double)wk_exp(logit(r, high++) - best);
    }
    keep(r, low, high);
}

/* The fewest that hold the share p. */
static void cut_top_p(struct run *r, float p)
{
    sum_up(r, 1);
    const double enough = (double)p * r->total;
    double kept = 0;
    size_t i = r->first;
    while (i < r->end && (i == r->first || kept < enough))
        kept += weight(r, i++, 1);
    keep(r, r->first, i);
}

/* Those that have this part of the best one's probability. */
static void cut_min_p(struct run *r, float p)
{
    size_t i = r->first + 1;
    while (i < r->end && weight(r, i, 1) >= (double)p)
        i++;
    keep(r, r->first, i);
}

/* Those whose surprise, in bits, is at most mu. */
static void cut_surprise(struct run *r, float temperature, float mu)
{
    sum_up(r, temperature);
    const double log_total = wk_log(r->total), most = (double)mu * wk_log(2);
    size_t i = r->first + 1;
    while (i < r->end &&
           log_total - (double)((logit(r, i) - logit(r, r->first)) / temperature) <= most)
        i++;
    keep(r, r->first, i);
}

/* ------------------------------------------------------------------ draw */

/* The candidate drawn, and its share of what is left. */
static int32_t draw(struct run *r, float temperature, double uniform, double *ret_share)
{
    sum_up(r, temperature);
    const double target = uniform * r->total;
    double sum = 0;
    size_t chosen = r->first;
    *ret_share = 1 / r->total;
    for (size_t i = r->first; i < r->end && sum <= target; i++) {
        const double w = weight(r, i, temperature);
        if (w == 0)
            break; /* nothing that could come follows */
        sum += w;
        chosen = i;
        *ret_share = w / r->total;
    }
    return r->c[r->n - 1 - chosen].id;
}

/* What is left by top-k, typical, top-p and min-p. */
static struct run cut(const struct weft_sampling *s, const struct weft_sample_place *at, float best)
{
    const bool typical = s->typical_p > 0 && s->typical_p < 1;
    const bool cuts = typical || s->top_p < 1 || s->min_p > 0;
    const size_t k = s->top_k == 0 || s->top_k > at->vocab ? at->vocab : s->top_k;
    struct run r = start(at->work, at->vocab, k, best, cuts ? 1 : s->temperature);
    if (typical)
        cut_typical(&r, s->typical_p);
    if (s->top_p < 1)
        cut_top_p(&r, s->top_p);
    if (s->min_p > 0)
        cut_min_p(&r, s->min_p);
    return r;
}

int weft_sample(const struct weft_sampling *s, const struct weft_sample_place *at, int32_t *ret_id,
                weft_err *err)
{
    struct weft_candidate best = {0};
    const double uniform = weft_sample_uniform(s->seed, at->position);
    double share;
    int r = candidates(s, at, err);
    if (r == 0)
        r = find_best(s, at, &best, err);
    if (r < 0)
        return r;
    if (s->temperature == 0) {
        *ret_id = best.id;
        return 0;
    }
    if (s->mirostat == 0) {
        struct run run = cut(s, at, best.logit);
        *ret_id = draw(&run, s->temperature, uniform, &share);
        return 0;
    }
    struct run run = start(at->work, at->vocab, at->vocab, best.logit, s->temperature);
    cut_surprise(&run, s->temperature, *at->mu);
    *ret_id = draw(&run, s->temperature, uniform, &share);
    /* The surprise among what was left, as the engines that made it known have it. */
    const double surprise = -wk_log(share) / wk_log(2);
    *at->mu -= s->mirostat_eta * (float)(surprise - (double)s->mirostat_tau);
    return 0;
}

/* ------------------------------------------------------------------ log-probabilities */

void weft_logprobs(const float *logits, uint32_t vocab, int32_t id, uint32_t n_best,
                   struct weft_logprob *ret)
{
    struct weft_candidate best[WEFT_LOGPROBS_MAX + 1] = {{0}}; /* the greatest is always kept */
    const uint32_t room = n_best > 0 ? n_best : 1;
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab; i++) {
        const struct weft_candidate c = {.logit = logits[i], .id = (int32_t)i};
        if (n == room && !before(&c, &best[n - 1]))
            continue;
        uint32_t at = n < room ? n++ : n - 1;
        for (; at > 0 && before(&c, &best[at - 1]); at--)
            best[at] = best[at - 1];
        best[at] = c;
    }
    const float max = best[0].logit;
    double total = 0;
    for (uint32_t i = 0; i < vocab; i++)
        total += (double)wk_exp(logits[i] - max);
    const double log_total = wk_log(total);
    ret[0] = (struct weft_logprob){id, (float)((double)(logits[id] - max) - log_total)};
    for (uint32_t i = 0; i < n_best; i++)
        ret[1 + i] =
            (struct weft_logprob){best[i].id, (float)((double)(best[i].logit - max) - log_total)};
}
