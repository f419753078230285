/*
 * Sampler, see sampler.h. Pure.
 *
 * Candidates are taken from a binary heap ordered by (logit descending, id ascending): building it
 * is linear in the vocabulary, each of the top k costs a logarithm, and all of them together are a
 * heap sort. Top-p: Holtzman et al., arXiv:1904.09751. Min-p: Nguyen et al., arXiv:2407.01082.
 * Repeat penalty: Keskar et al., arXiv:1909.05858.
 */
#include "daemon/sampler.h"

#include <math.h>
#include <stdbool.h>

#include "kernels/kernels.h"

int weft_sampling_check(const struct weft_sampling *s, weft_err *err)
{
    /* Written so that NaN fails. */
    if (!(s->temperature >= 0 && s->temperature <= 100))
        return weft_fail(err, WEFT_EUSAGE, "temperature %g, expected 0 to 100",
                         (double)s->temperature);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return weft_fail(err, WEFT_EUSAGE, "top-p %g, expected above 0 and at most 1",
                         (double)s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1))
        return weft_fail(err, WEFT_EUSAGE, "min-p %g, expected 0 to 1", (double)s->min_p);
    if (!(s->repeat_penalty > 0 && s->repeat_penalty <= 10))
        return weft_fail(err, WEFT_EUSAGE, "repeat penalty %g, expected above 0 and at most 10",
                         (double)s->repeat_penalty);
    if (s->repeat_last > WEFT_HISTORY_MAX)
        return weft_fail(err, WEFT_EUSAGE, "repeat penalty over %u tokens, expected at most %u",
                         s->repeat_last, (unsigned)WEFT_HISTORY_MAX);
    return 0;
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

/* Puts the first k candidates in order at the end of c[n], best last: the i-th is c[n - 1 - i]. */
static void order(struct weft_candidate *c, size_t n, size_t k)
{
    for (size_t i = n / 2; i > 0; i--)
        sift_down(c, i - 1, n);
    for (size_t end = n; end > n - k; end--) {
        struct weft_candidate best = c[0];
        c[0] = c[end - 1];
        c[end - 1] = best;
        if (end > 1)
            sift_down(c, 0, end - 1);
    }
}

/* ------------------------------------------------------------------ sampling */

/* Copies the logits and penalises what stands in the history, each token once however often it
 * occurs. */
static int candidates(const struct weft_sampling *s, const float *logits, uint32_t vocab,
                      const int32_t *history, size_t n_history, struct weft_candidate *c,
                      weft_err *err)
{
    for (uint32_t i = 0; i < vocab; i++)
        c[i] = (struct weft_candidate){.logit = logits[i], .id = (int32_t)i};
    size_t n = n_history < s->repeat_last ? n_history : s->repeat_last;
    for (size_t i = n_history - n; i < n_history; i++) {
        int32_t id = history[i];
        if (id < 0 || (uint32_t)id >= vocab)
            return weft_fail(err, WEFT_ESHAPE, "token %d in the history, expected 0 to %u", id,
                             vocab - 1);
        c[id].logit =
            logits[id] > 0 ? logits[id] / s->repeat_penalty : logits[id] * s->repeat_penalty;
    }
    return 0;
}

/* The best candidate; -WEFT_EOVERFLOW when there is no distribution. */
static int find_best(const struct weft_candidate *c, uint32_t vocab, struct weft_candidate *ret,
                     weft_err *err)
{
    struct weft_candidate best = {.logit = -INFINITY, .id = -1};
    for (uint32_t i = 0; i < vocab; i++) {
        if (!(c[i].logit < INFINITY))
            return weft_fail(err, WEFT_EOVERFLOW,
                             "logit %g of token %u (values out of range; is the model damaged?)",
                             (double)c[i].logit, i);
        if (before(&c[i], &best))
            best = c[i];
    }
    if (best.logit == -INFINITY)
        return weft_fail(err, WEFT_EOVERFLOW, "all %u logits are -infinity", vocab);
    *ret = best;
    return 0;
}

/* Draws from the k best candidates, which lie in order from `last` down; their logits become
 * weights relative to the best, whose own is 1. */
static int32_t draw(const struct weft_sampling *s, struct weft_candidate *last, size_t k,
                    double uniform)
{
    const float max = last->logit;
    double total = 0;
    for (size_t i = 0; i < k; i++) {
        struct weft_candidate *c = last - i;
        c->logit = wk_exp((c->logit - max) / s->temperature);
        total += (double)c->logit;
    }
    double kept =
        0; /* top-p: the fewest that hold its share; min-p: of those, none far below the best */
    size_t n = 0;
    for (; n < k && (n == 0 || kept < (double)s->top_p * total); n++) {
        if ((last - n)->logit < s->min_p)
            break;
        kept += (double)(last - n)->logit;
    }
    double target = uniform * kept, sum = 0;
    int32_t id = last->id;
    for (size_t i = 0; i < n && sum <= target; i++) {
        sum += (double)(last - i)->logit;
        id = (last - i)->id;
    }
    return id;
}

int weft_sample(const struct weft_sampling *s, const float *logits, uint32_t vocab,
                uint32_t position, const int32_t *history, size_t n_history,
                struct weft_candidate *work, int32_t *ret_id, weft_err *err)
{
    struct weft_candidate best = {0};
    int r = candidates(s, logits, vocab, history, n_history, work, err);
    if (r < 0)
        return r;
    r = find_best(work, vocab, &best, err);
    if (r < 0)
        return r;
    if (s->temperature == 0) {
        *ret_id = best.id;
        return 0;
    }
    size_t k = s->top_k == 0 || s->top_k > vocab ? vocab : s->top_k;
    order(work, vocab, k);
    *ret_id = draw(s, &work[vocab - 1], k, weft_sample_uniform(s->seed, position));
    return 0;
}
