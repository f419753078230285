/*
 * Random grammars with a second reading of their own: as a tree that is matched by trying
 * everything, character by character, so that base/grammar.c has something to agree with.
 */
#ifndef WEFT_TESTS_RANDOM_GRAMMAR_H
#define WEFT_TESTS_RANDOM_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

#define RANDOM_GRAMMAR_RULES 4
#define RANDOM_GRAMMAR_NODES 256
#define RANDOM_GRAMMAR_TEXT_MAX 24 /* characters of a text that can be matched */

/* What texts are made of: 1 to 4 bytes each. */
#define RANDOM_GRAMMAR_ALPHABET 6
extern const struct random_letter {
    uint32_t code;
    const char *utf8;
} random_grammar_alphabet[RANDOM_GRAMMAR_ALPHABET];

struct random_node {
    enum { RANDOM_CLASS, RANDOM_RULE, RANDOM_SEQUENCE, RANDOM_CHOICE, RANDOM_REPEAT } kind;
    uint32_t characters; /* CLASS: bit per letter of the alphabet */
    unsigned rule;
    unsigned min, max; /* REPEAT; max UINT_MAX: any */
    unsigned n, part[4];
};

struct random_grammar {
    struct random_node nodes[RANDOM_GRAMMAR_NODES];
    unsigned n_nodes, root[RANDOM_GRAMMAR_RULES];
    struct weft_str text; /* GBNF */
};

/* May be left-recursive. Done with weft_str_done(&g->text). */
void random_grammar_make(struct random_grammar *g, uint64_t *random);
/* Matches letters[0..n) (indices in the alphabet) from the start: *ret_whole when the whole text is
 * in the language, *ret_prefix when some text that goes on is, or the text itself. The grammar must
 * not be left-recursive. */
void random_grammar_match(const struct random_grammar *g, const uint8_t *letters, size_t n,
                          bool *ret_whole, bool *ret_prefix);

#endif
