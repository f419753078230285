/*
 * Pre-tokenizer: cuts a text into the words that byte-level BPE joins each on its own, by the rule
 * that tokenizer.ggml.pre names.
 *
 * Invariant: the words of a text, one behind the other, are the text; every one ends between two
 * characters. Immutable once opened: any thread may split with it. The only user of PCRE2 here.
 *
 * Source of the rules: the tokenizer.json of the models that brought the names, as llama.cpp's
 * src/llama-vocab.cpp lists them.
 */
#ifndef WEFT_COORDINATOR_PRETOKENIZER_H
#define WEFT_COORDINATOR_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct weft_pretokenizer;

/* What goes with a name beside its rule. */
enum weft_pretokenizer_flags {
    WEFT_PRE_IGNORE_MERGES = 1, /* a word that is a token is that token, whatever the merges say */
    WEFT_PRE_ADD_BOS = 2        /* BOS goes before a text where add_bos_token is missing */
};

/* Where the words of a text end; {0} before the first use, may be used again. One owner. */
struct weft_words {
    uint32_t *ends; /* [n], ascending; the last is the length of the text */
    size_t n;
    uint32_t *spare; /* of the rule's step before */
    size_t n_spare, room, spare_room;
};
void weft_words_done(struct weft_words *w);

/* The rule of name[0..n) (borrowed); of a name that is not known, the default rule. Gives *ret,
 * close it. -WEFT_EUNSUPPORTED for the few names whose tokens are not made of bytes, -WEFT_ENOMEM.
 */
int weft_pretokenizer_open(const char *name, size_t n, struct weft_pretokenizer **ret,
                           weft_err *err) WEFT_MUST_USE;
void weft_pretokenizer_close(struct weft_pretokenizer *p); /* accepts NULL */
bool weft_pretokenizer_known(const struct weft_pretokenizer *p);
unsigned weft_pretokenizer_flags(const struct weft_pretokenizer *p); /* weft_pretokenizer_flags */
/* The known names, in no order; NULL behind the last. */
const char *weft_pretokenizer_name(size_t i);

/* Words of text[0..n), valid UTF-8 below 4 GiB. -WEFT_ENOMEM, -WEFT_EINTERNAL when PCRE2 gives up;
 * *words may hold anything then. O(n). */
int weft_pretokenizer_split(const struct weft_pretokenizer *p, const char *text, size_t n,
                            struct weft_words *words, weft_err *err) WEFT_MUST_USE;

#endif
