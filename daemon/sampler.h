/*
 * Sampler: from logits to a token, on the device with the output head.
 *
 * Order: repeat penalty, temperature 0 → argmax (ties: lowest id); else top-k, softmax, top-p,
 * min-p, draw. Candidates are ordered by logit descending, id ascending, and summed in that order
 * in f64; the random number is a function of (seed, position) alone (splitmix64), so that a replay
 * samples the same. Pure; nothing is kept between tokens but the history given by the caller.
 */
#ifndef WEFT_DAEMON_SAMPLER_H
#define WEFT_DAEMON_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define WEFT_HISTORY_MAX 1024 /* tokens a repeat penalty may look back */

struct weft_sampling {
    float temperature;    /* 0: greedy; [0, 100] */
    uint32_t top_k;       /* 0: all */
    float top_p;          /* (0, 1]; 1: all */
    float min_p;          /* [0, 1]; 0: all */
    float repeat_penalty; /* (0, 10]; 1: none. Logit > 0 is divided, else multiplied */
    uint32_t repeat_last; /* at most WEFT_HISTORY_MAX */
    uint64_t seed;
};

struct weft_candidate {
    float logit;
    int32_t id;
};

/* Refuses values out of range by name: -WEFT_EUSAGE. */
int weft_sampling_check(const struct weft_sampling *s, weft_err *err) WEFT_MUST_USE;
/* Samples the token for `position`. logits [vocab] is not changed; work has room for vocab
 * candidates; history: the last n tokens, newest last. -WEFT_EOVERFLOW when a logit is NaN or all
 * are -inf. */
int weft_sample(const struct weft_sampling *s, const float *logits, uint32_t vocab,
                uint32_t position, const int32_t *history, size_t n_history,
                struct weft_candidate *work, int32_t *ret_id, weft_err *err) WEFT_MUST_USE;
/* Uniform in [0, 1) from (seed, position). */
double weft_sample_uniform(uint64_t seed, uint32_t position);

#endif
