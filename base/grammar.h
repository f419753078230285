/*
 * Grammars in GBNF: what a model may write, byte by byte.
 *
 * A grammar is compiled once (immutable, any number of threads) and walked by states, one for each
 * session (one owner at any time). Pure: no I/O, no clock.
 *
 * The language: rules `name ::= …`, of which `root` is the whole text; "literals" and [classes] of
 * Unicode characters with ranges, ^ and the escapes \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH;
 * `.` for any character; groups ( ), alternatives |, repetitions * + ? {m} {m,} {m,n}; comments
 * from # to the end of the line. A rule ends at the end of its line, outside of groups, unless |
 * stands before or after it. Rules that come back to themselves before any character (left
 * recursion) are refused.
 *
 * Terminals are sets of bytes: characters become their UTF-8 sequences, so that a token may end in
 * the middle of a character.
 */
#ifndef WEFT_BASE_GRAMMAR_H
#define WEFT_BASE_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/token_trie.h"

/* Limits; over one of them is -WEFT_ELIMIT with a text that says which. */
#define WEFT_GRAMMAR_BYTES_MAX (256u << 10) /* of GBNF */
#define WEFT_GRAMMAR_RULES_MAX (1u << 18)   /* with those that groups and repetitions make */
#define WEFT_GRAMMAR_SYMBOLS_MAX (1u << 20) /* of all rules, repetitions written out */
#define WEFT_GRAMMAR_REPEAT_MAX 100000u     /* the numbers of {m,n} */
#define WEFT_GRAMMAR_NESTING_MAX 128u       /* groups within groups */
#define WEFT_GRAMMAR_DEPTH_MAX 4096u  /* rules begun and not ended, at any place of the text */
#define WEFT_GRAMMAR_WIDTH_MAX 16384u /* places of the grammar where the text may stand at once */
#define WEFT_GRAMMAR_WORK_MAX (1u << 23)    /* places visited for one mask: about 0.2 s */
#define WEFT_GRAMMAR_MEMORY_MAX (32u << 20) /* bytes that a state remembers */

struct weft_grammar; /* compiled rules, immutable */

/* Compiles gbnf[0..n), borrowed. Gives the grammar; close it. -WEFT_EUSAGE "grammar:LINE:COLUMN:
 * …", -WEFT_ELIMIT, -WEFT_ENOMEM. */
int weft_grammar_open(const char *gbnf, size_t n, struct weft_grammar **ret,
                      weft_err *err) WEFT_MUST_USE;
void weft_grammar_close(struct weft_grammar *g);

struct weft_grammar_state; /* where a session stands; one per session */

/* Borrows g until close. Gives the state at the start of the text. -WEFT_EUSAGE when no text
 * matches the grammar, -WEFT_ELIMIT, -WEFT_ENOMEM. */
int weft_grammar_state_open(const struct weft_grammar *g, struct weft_grammar_state **ret,
                            weft_err *err) WEFT_MUST_USE;
void weft_grammar_state_close(struct weft_grammar_state *s);
/* Back to the start of the text; keeps what it has learned. */
void weft_grammar_reset(struct weft_grammar_state *s);

/* Goes on by bytes[0..n). -WEFT_ESTATE: not allowed; -WEFT_ELIMIT, -WEFT_ENOMEM. The state is
 * unchanged when it fails. */
int weft_grammar_accept(struct weft_grammar_state *s, const char *bytes, size_t n,
                        weft_err *err) WEFT_MUST_USE;
/* Sets bit id % 64 of allowed[id / 64] for each token that accept would take, and clears all
 * others; allowed has (weft_token_trie_count(t) + 63) / 64 words. Tokens of size 0 are never
 * allowed. -WEFT_ESTATE when no token goes on and the text may not end here either; -WEFT_ELIMIT,
 * -WEFT_ENOMEM. What allowed holds after a failure is undefined. The state always takes the same
 * trie: masks are remembered. */
int weft_grammar_mask(struct weft_grammar_state *s, const struct weft_token_trie *t,
                      uint64_t *allowed, weft_err *err) WEFT_MUST_USE;
/* The text may end here: stop tokens are allowed. */
bool weft_grammar_may_end(const struct weft_grammar_state *s);

#endif
