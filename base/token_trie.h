/*
 * Token trie: the bytes of all tokens of a vocabulary as one tree in a flat array, so that a
 * grammar can be asked about all of them at once.
 *
 * Invariant: nodes lie in depth-first order, children by byte; immutable after open, any number of
 * threads may read.
 */
#ifndef WEFT_BASE_TOKEN_TRIE_H
#define WEFT_BASE_TOKEN_TRIE_H

#include <stdint.h>

#include "base/err.h"

#define WEFT_TOKEN_TRIE_TOKENS_MAX (1u << 24) /* far above every vocabulary */
#define WEFT_TOKEN_TRIE_DEPTH_MAX 65535u      /* bytes of a token */
#define WEFT_TOKEN_TRIE_BYTES_MAX (1u << 30)  /* of all tokens */

struct weft_token_text {
    const char *bytes;
    uint32_t size; /* 0: never allowed (control tokens) */
};

struct weft_token_trie;

/* Borrows texts; tokens may have equal bytes, any bytes. Gives the trie; close it. About 16 bytes
 * for each byte that two tokens do not share. -WEFT_ELIMIT, -WEFT_ENOMEM. */
int weft_token_trie_open(const struct weft_token_text *texts, uint32_t n,
                         struct weft_token_trie **ret, weft_err *err) WEFT_MUST_USE;
void weft_token_trie_close(struct weft_token_trie *t);
uint32_t weft_token_trie_count(const struct weft_token_trie *t); /* n of open */

#endif
