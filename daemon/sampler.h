/*
 * Sampler: from logits to a token, on the device with the output head.
 *
 * Stages, in this order; one whose value says "off" costs nothing:
 *
 *     penalties     repeat, then frequency and presence, over the last repeat_last tokens
 *     logit bias    added to the logits of single tokens; -infinity bans one
 *     grammar       what it does not allow becomes -infinity
 *     temperature 0 the best candidate, and the end
 *     mirostat 2    if it is on: temperature, its own cut, draw, and the end
 *     top-k → typical → top-p → min-p      each judges the model's own distribution (temperature 1)
 *                                          over what those before it left; one token always stays
 *     temperature   flattens or sharpens what is left
 *     draw
 *
 * Temperature comes last, as in the engines whose default values these are: then a high temperature
 * mixes among tokens that the model thinks possible and never brings back what the cuts left out.
 *
 * Candidates are ordered by logit descending, id ascending, and summed in that order in f64; exp
 * and log are the kernels' own, and the random number is a function of (seed, position) alone
 * (splitmix64). So all machines draw the same token, and a replay samples the same: what is kept
 * between tokens is a function of the tokens (the history and the grammar's state, which the caller
 * keeps) but for mirostat's mu, one number that goes with every token. Pure.
 */
#ifndef WEFT_DAEMON_SAMPLER_H
#define WEFT_DAEMON_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define WEFT_HISTORY_MAX 1024    /* tokens the penalties may look back at */
#define WEFT_LOGIT_BIAS_MAX 1024 /* tokens with a bias; comparable services take 300 */
#define WEFT_LOGPROBS_MAX 20 /* best tokens told beside the one chosen, as comparable services */

struct weft_logit_bias {
    int32_t id;
    float bias; /* finite, at most 1e6 in magnitude, or -infinity */
};

struct weft_sampling {
    float temperature;       /* 0: greedy; [0, 100] */
    uint32_t top_k;          /* 0: all */
    float typical_p;         /* [0, 1]; 0 and 1: all */
    float top_p;             /* (0, 1]; 1: all */
    float min_p;             /* [0, 1]; 0: all */
    float repeat_penalty;    /* (0, 10]; 1: none. Logit > 0 is divided, else multiplied, once */
    float presence_penalty;  /* [-10, 10]; taken off the logit once */
    float frequency_penalty; /* [-10, 10]; taken off for each time the token came */
    uint32_t repeat_last;    /* tokens the penalties look at; at most WEFT_HISTORY_MAX */
    uint32_t mirostat;       /* 0: off, 2: version 2 */
    float mirostat_tau;      /* surprise aimed at, in bits; [0, 100] */
    float mirostat_eta;      /* learning rate; [0, 1] */
    uint64_t seed;
    const struct weft_logit_bias *bias; /* [n_bias], borrowed; applied in order */
    uint32_t n_bias;
};

struct weft_candidate {
    float logit;
    int32_t id;
};

/* What one token is sampled from. */
struct weft_sample_place {
    const float *logits; /* [vocab], not changed */
    uint32_t vocab;
    uint32_t position;      /* that the token will have */
    const int32_t *history; /* [n_history], newest last */
    size_t n_history;
    const uint64_t *allowed;     /* bit per token, of the grammar; NULL: all are */
    float *mu;                   /* mirostat's state, changed by a draw; else not used */
    struct weft_candidate *work; /* [vocab] */
};

struct weft_logprob {
    int32_t id;
    float logprob; /* natural logarithm; -infinity for what cannot come */
};

/* Refuses values out of range by name: -WEFT_EUSAGE, -WEFT_ELIMIT for more biases than
 * WEFT_LOGIT_BIAS_MAX. Ids of biases are the caller's to check. */
int weft_sampling_check(const struct weft_sampling *s, weft_err *err) WEFT_MUST_USE;
/* mu before the first token of an answer: 2 tau. */
float weft_sampling_mu(const struct weft_sampling *s);
/* Samples a token. -WEFT_EOVERFLOW when a logit is NaN or +infinity or all are -infinity,
 * -WEFT_ESTATE when bias and grammar leave no token, -WEFT_ESHAPE for ids outside the vocabulary;
 * mu is as it was then. */
int weft_sample(const struct weft_sampling *s, const struct weft_sample_place *at, int32_t *ret_id,
                weft_err *err) WEFT_MUST_USE;
/* Log-probabilities by the model's own distribution, before any stage: that of `id` in ret[0], then
 * of the n_best likeliest tokens (likeliest first, lowest id of equals) in ret[1 … n_best]. The
 * logits hold a number that is not -infinity and no NaN or +infinity; n_best is at most vocab and
 * WEFT_LOGPROBS_MAX. */
void weft_logprobs(const float *logits /* [vocab] */, uint32_t vocab, int32_t id, uint32_t n_best,
                   struct weft_logprob *ret);
/* Uniform in [0, 1) from (seed, position). */
double weft_sample_uniform(uint64_t seed, uint32_t position);

#endif
