/*
 * Answer rules: what a person asked of every answer beside numbers: logit biases, stop strings, a
 * grammar or JSON schema. Read and checked before anything is loaded.
 */
#ifndef WEFT_COORDINATOR_ANSWER_RULES_H
#define WEFT_COORDINATOR_ANSWER_RULES_H

#include "coordinator/options.h"
#include "coordinator/stop.h"
#include "coordinator/tokenizer.h"

struct weft_answer_rules {
    struct weft_turn_bias *bias; /* [n_bias] */
    uint32_t n_bias;
    struct weft_stops stops;       /* those of the options */
    struct weft_str grammar;       /* GBNF; empty: none */
    struct weft_token_text *texts; /* [n_texts], with a grammar: the tokenizer's bytes */
    uint32_t n_texts;
};

/* Borrows options and tokenizer until done. -WEFT_EUSAGE naming option, file and place; a file that
 * cannot be read as weft_input_file. */
int weft_answer_rules_open(const struct weft_options *o, const struct weft_tokenizer *t,
                           struct weft_answer_rules *ret, weft_err *err) WEFT_MUST_USE;
void weft_answer_rules_done(struct weft_answer_rules *r); /* accepts zeroed */

/* Adds the rules to a turn, which borrows them. */
void weft_answer_rules_apply(const struct weft_answer_rules *r, struct weft_turn *t);

#endif
