/*
 * Log-probabilities of an answer, as text and as JSON.
 */
#ifndef WEFT_COORDINATOR_LOGPROBS_H
#define WEFT_COORDINATOR_LOGPROBS_H

#include "base/text.h"
#include "coordinator/cluster.h"
#include "coordinator/tokenizer.h"

/* list is [n_tokens][1 + n_best]: of each token its own, then the likeliest. Nothing is kept. */
struct weft_answer_logprobs {
    const struct weft_token_logprob *list; /* NULL: not asked for */
    uint32_t n_tokens, n_best;
    const struct weft_tokenizer *tokenizer; /* for their texts */
};

/* A table: a line per token. */
void weft_logprobs_text(const struct weft_answer_logprobs *l, struct weft_str *out);
/* [{"id": 5, "token": " the", "logprob": -0.25, "top": [{"id": …, "token": …, "logprob": …}]}];
 * null for a probability of 0. */
void weft_logprobs_json(const struct weft_answer_logprobs *l, struct weft_str *out);

#endif
