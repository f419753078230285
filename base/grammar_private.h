/*
 * Inside of a compiled grammar, shared by the files base/grammar*.c.
 *
 * A rule is a run of symbols: its alternatives behind one another, each ended by END. A symbol is
 * END, a set of bytes, or a rule. A place is the index of a symbol.
 */
#ifndef WEFT_BASE_GRAMMAR_PRIVATE_H
#define WEFT_BASE_GRAMMAR_PRIVATE_H

#include "base/grammar.h"
#include "base/intern.h"

#define WEFT_SYMBOL_END 0u
#define WEFT_SYMBOL_RULE 0x80000000u /* | number of the rule */
#define WEFT_SYMBOL_SET 1u           /* + number of the set */

struct weft_byte_set {
    uint64_t words[4];
};

struct weft_rule {
    uint32_t begin, end; /* places of its alternatives; end is behind the last END */
    uint32_t at;         /* offset in the text, for messages */
    uint32_t rank;       /* rules that it begins with have a higher one */
    bool defined;
    bool nullable; /* matches the empty text */
};

struct weft_grammar {
    uint32_t *symbols;
    size_t n_symbols, symbols_capacity;
    struct weft_rule *rules;
    size_t n_rules, rules_capacity;
    struct weft_byte_set *sets; /* the first 256 are the single bytes */
    size_t n_sets, sets_capacity;
    uint32_t *by_rank; /* [n_rules] */
    uint32_t root;
    uint32_t n_classes; /* of bytes that no set of the grammar tells apart, at most 256 */
    uint8_t class_of[256];
};

static inline bool weft_symbol_is_rule(uint32_t symbol)
{
    return (symbol & WEFT_SYMBOL_RULE) != 0;
}

static inline bool weft_symbol_is_set(uint32_t symbol)
{
    return symbol != WEFT_SYMBOL_END && !weft_symbol_is_rule(symbol);
}

static inline uint32_t weft_symbol_rule(uint32_t symbol)
{
    return symbol & ~WEFT_SYMBOL_RULE;
}

static inline bool weft_byte_set_has(const struct weft_byte_set *set, uint8_t byte)
{
    return (set->words[byte / 64] >> byte % 64 & 1) != 0;
}

/* Makes room for `more` items of `size` bytes behind the first n of *items. */
int weft_grammar_grow(void *items, size_t *capacity, size_t n, size_t more, size_t size,
                      weft_err *err) WEFT_MUST_USE;

/* What makes a grammar from text (base/grammar_parse.c, grammar_build.c). */
struct weft_grammar_builder {
    struct weft_grammar *g;
    const char *text;
    size_t n, at;
    uint32_t *stack; /* symbols of the sequences that are being read, the innermost on top */
    size_t n_stack, stack_capacity;
    struct weft_intern names, set_ids;
    struct weft_name {
        const char *text;
        size_t size;
        uint32_t rule;
    } * by_name;
    size_t n_names, names_capacity;
    unsigned nesting;
    weft_err *err;
};

/* Fails with "grammar:LINE:COLUMN: …" for the offset `at` of the text. */
int weft_grammar_refuse(struct weft_grammar_builder *b, int code, size_t at, const char *fmt, ...)
    WEFT_PRINTF(4, 5);

/* A new rule without symbols, made for what is at the offset `at`. */
int weft_build_rule(struct weft_grammar_builder *b, size_t at, uint32_t *ret_rule) WEFT_MUST_USE;
/* Puts a symbol on the stack. */
int weft_build_push(struct weft_grammar_builder *b, uint32_t symbol) WEFT_MUST_USE;
/* Takes the symbols above `bottom` from the stack and makes them the alternatives of a rule; the
 * last END is added. */
int weft_build_define(struct weft_grammar_builder *b, uint32_t rule, size_t bottom) WEFT_MUST_USE;
/* Puts the symbol of a set on the stack. */
int weft_build_set(struct weft_grammar_builder *b, const struct weft_byte_set *set) WEFT_MUST_USE;
/* Replaces the symbols above `bottom`, one item, by its repetition: at least min, at most max times
 * (WEFT_REPEAT_ANY: without end). */
#define WEFT_REPEAT_ANY UINT32_MAX
int weft_build_repeat(struct weft_grammar_builder *b, size_t bottom, uint32_t min, uint32_t max,
                      size_t at) WEFT_MUST_USE;
/* UTF-8 of a character; returns its size. */
unsigned weft_build_encode(uint32_t code, uint8_t out[4]);
/* Puts the symbol of a class of characters on the stack. ranges is sorted and changed. */
struct weft_code_range {
    uint32_t low, high;
};
int weft_build_class(struct weft_grammar_builder *b, struct weft_code_range *ranges, size_t n,
                     bool negated, size_t at) WEFT_MUST_USE;

/* Reads the whole text into rules. */
int weft_grammar_parse(struct weft_grammar_builder *b) WEFT_MUST_USE;
/* Fills nullable, rank, by_rank and the classes of bytes; refuses left recursion. */
int weft_grammar_analyse(struct weft_grammar_builder *b) WEFT_MUST_USE;

#endif
