/*
 * Detokenizer: text out of tokens as they come, whole characters only.
 *
 * Invariant: what it has given out is valid UTF-8 at any moment, and is the text that
 * weft_tokenizer_encode would turn into these tokens (less control tokens). One owner.
 */
#ifndef WEFT_COORDINATOR_DETOK_H
#define WEFT_COORDINATOR_DETOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/text.h"
#include "coordinator/tokenizer.h"

#define WEFT_DETOK_START (-1) /* nothing stands before the first token */

struct weft_detok {
    const struct weft_tokenizer *tokenizer; /* borrowed until the last push */
    bool drop_space; /* the next text starts with the space that encoding put there */
    char tail[4];    /* a character that is not complete yet: at most 3 bytes */
    size_t tail_size;
};

/* previous: the token before the first one pushed (the prompt's last), or WEFT_DETOK_START. */
void weft_detok_init(struct weft_detok *d, const struct weft_tokenizer *t, int32_t previous);

/* Appends to out the characters that id completes; bytes that are no UTF-8 become U+FFFD. The
 * caller checks out->failed. -WEFT_EUSAGE for an id outside the vocabulary; nothing is changed
 * then. */
int weft_detok_push(struct weft_detok *d, int32_t id, struct weft_str *out,
                    weft_err *err) WEFT_MUST_USE;

/* At the end: a tail that was never completed becomes one U+FFFD. */
void weft_detok_finish(struct weft_detok *d, struct weft_str *out);

#endif
