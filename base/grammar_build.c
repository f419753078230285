/*
 * Grammars: rules from repetitions and classes of characters.
 *
 * Invariant: g->symbols holds only whole rules; what is being read lies on the builder's stack.
 * Limits are checked where something is added, so that no input makes more than they allow.
 */
#include "base/grammar_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CODE_MAX 0x10FFFFu
#define SURROGATE_FIRST 0xD800u
#define SURROGATE_LAST 0xDFFFu

int weft_grammar_grow(void *items, size_t *capacity, size_t n, size_t more, size_t size,
                      weft_err *err)
{
    void **at = items;
    if (more <= *capacity - n)
        return 0;
    size_t wide = *capacity < 32 ? 32 : *capacity;
    while (wide < n + more)
        wide += wide / 2;
    void *p = realloc(*at, wide * size); /* no overflow: limits keep n below 2^24, size below 100 */
    if (p == NULL)
        return weft_fail(err, WEFT_ENOMEM, "grammar: no memory for %zu items of %zu bytes", wide,
                         size);
    *at = p;
    *capacity = wide;
    return 0;
}

int weft_build_rule(struct weft_grammar_builder *b, size_t at, uint32_t *ret_rule)
{
    struct weft_grammar *g = b->g;
    if (g->n_rules == WEFT_GRAMMAR_RULES_MAX)
        return weft_grammar_refuse(b, WEFT_ELIMIT, at,
                                   "more than %u rules with those of groups and repetitions",
                                   WEFT_GRAMMAR_RULES_MAX);
    int r =
        weft_grammar_grow(&g->rules, &g->rules_capacity, g->n_rules, 1, sizeof *g->rules, b->err);
    if (r < 0)
        return r;
    *ret_rule = (uint32_t)g->n_rules;
    g->rules[g->n_rules++] = (struct weft_rule){.at = (uint32_t)at};
    return 0;
}

int weft_build_push(struct weft_grammar_builder *b, uint32_t symbol)
{
    if (b->g->n_symbols + b->n_stack >= WEFT_GRAMMAR_SYMBOLS_MAX)
        return weft_grammar_refuse(b, WEFT_ELIMIT, b->at,
                                   "more than %u symbols with repetitions written out",
                                   WEFT_GRAMMAR_SYMBOLS_MAX);
    int r =
        weft_grammar_grow(&b->stack, &b->stack_capacity, b->n_stack, 1, sizeof *b->stack, b->err);
    if (r == 0)
        b->stack[b->n_stack++] = symbol;
    return r;
}

int weft_build_define(struct weft_grammar_builder *b, uint32_t rule, size_t bottom)
{
    struct weft_grammar *g = b->g;
    int r = weft_build_push(b, WEFT_SYMBOL_END);
    if (r < 0)
        return r;
    const size_t n = b->n_stack - bottom;
    r = weft_grammar_grow(&g->symbols, &g->symbols_capacity, g->n_symbols, n, sizeof *g->symbols,
                          b->err);
    if (r < 0)
        return r;
    memcpy(g->symbols + g->n_symbols, b->stack + bottom, n * sizeof *g->symbols);
    g->rules[rule].begin = (uint32_t)g->n_symbols;
    g->n_symbols += n;
    g->rules[rule].end = (uint32_t)g->n_symbols;
    g->rules[rule].defined = true;
    b->n_stack = bottom;
    return 0;
}

/* ---- sets ---- */

struct set_key {
    const struct weft_grammar *g;
    const struct weft_byte_set *set;
};

static bool equal_set(const void *ctx, uint32_t id)
{
    const struct set_key *key = ctx;
    return memcmp(&key->g->sets[id], key->set, sizeof *key->set) == 0;
}

int weft_build_set(struct weft_grammar_builder *b, const struct weft_byte_set *set)
{
    struct weft_grammar *g = b->g;
    const uint32_t hash = weft_intern_hash(set, sizeof *set);
    const struct set_key key = {.g = g, .set = set};
    uint32_t id = weft_intern_find(&b->set_ids, hash, equal_set, &key);
    if (id == WEFT_INTERN_NONE) {
        id = (uint32_t)g->n_sets;
        int r =
            weft_grammar_grow(&g->sets, &g->sets_capacity, g->n_sets, 1, sizeof *g->sets, b->err);
        if (r < 0 || (r = weft_intern_add(&b->set_ids, hash, id, b->err)) < 0)
            return r;
        g->sets[g->n_sets++] = *set;
    }
    return weft_build_push(b, WEFT_SYMBOL_SET + id);
}

/* ---- repetitions ---- */

/* Defines a rule with two alternatives: the symbols x and next (END: none), or nothing. */
static int define_optional(struct weft_grammar_builder *b, uint32_t rule, uint32_t x, uint32_t next)
{
    const size_t bottom = b->n_stack;
    int r = weft_build_push(b, x);
    if (r == 0 && next != WEFT_SYMBOL_END)
        r = weft_build_push(b, next);
    if (r == 0)
        r = weft_build_push(b, WEFT_SYMBOL_END);
    return r < 0 ? r : weft_build_define(b, rule, bottom);
}

int weft_build_repeat(struct weft_grammar_builder *b, size_t bottom, uint32_t min, uint32_t max,
                      size_t at)
{
    uint32_t x = 0, rule = 0;
    int r = 0;
    if (b->n_stack - bottom != 1) { /* several symbols, or none, become one */
        if ((r = weft_build_rule(b, at, &rule)) < 0 || (r = weft_build_define(b, rule, bottom)) < 0)
            return r;
        x = WEFT_SYMBOL_RULE | rule;
    } else {
        x = b->stack[--b->n_stack];
    }
    for (uint32_t i = 0; i < min && r == 0; i++)
        r = weft_build_push(b, x);
    if (r < 0 || max == min)
        return r;
    uint32_t next = WEFT_SYMBOL_END; /* the rest, from the last repetition to the first */
    for (uint32_t i = max == WEFT_REPEAT_ANY ? 1 : max - min; i > 0; i--) {
        if ((r = weft_build_rule(b, at, &rule)) < 0)
            return r;
        if (max == WEFT_REPEAT_ANY)
            next = WEFT_SYMBOL_RULE | rule; /* comes back to itself */
        if ((r = define_optional(b, rule, x, next)) < 0)
            return r;
        next = WEFT_SYMBOL_RULE | rule;
    }
    return weft_build_push(b, next);
}

/* ---- classes of characters ---- */

/* A run of characters whose UTF-8 sequences are a product of ranges of bytes. */
struct sequence {
    unsigned size;
    uint8_t low[4], high[4];
};

unsigned weft_build_encode(uint32_t code, uint8_t out[4])
{
    static const uint8_t lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    unsigned n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (unsigned i = n; i > 1; i--, code >>= 6)
        out[i - 1] = (uint8_t)(0x80 | (code & 0x3F));
    out[0] = (uint8_t)(lead[n] | code);
    return n;
}

/* What the sequences of a class become: those that differ in the last byte only are one
 * alternative. */
struct class_rule {
    struct weft_grammar_builder *b;
    struct sequence open; /* size 0: none yet */
    struct weft_byte_set last;
    size_t n_alternatives;
};

static void add_range(struct weft_byte_set *set, uint8_t low, uint8_t high)
{
    for (unsigned byte = low; byte <= high; byte++)
        set->words[byte / 64] |= (uint64_t)1 << byte % 64;
}

/* Puts the open alternative on the stack, behind an END where it is not the first. */
static int flush(struct class_rule *c)
{
    int r = c->n_alternatives++ > 0 ? weft_build_push(c->b, WEFT_SYMBOL_END) : 0;
    for (unsigned i = 0; i + 1 < c->open.size && r == 0; i++) {
        struct weft_byte_set set = {{0}};
        add_range(&set, c->open.low[i], c->open.high[i]);
        r = weft_build_set(c->b, &set);
    }
    return r < 0 ? r : weft_build_set(c->b, &c->last);
}

static int add_sequence(struct class_rule *c, const struct sequence *q)
{
    const unsigned last = q->size - 1;
    if (c->open.size != 0 && (c->open.size != q->size || memcmp(c->open.low, q->low, last) != 0 ||
                              memcmp(c->open.high, q->high, last) != 0)) {
        int r = flush(c);
        if (r < 0)
            return r;
        c->open.size = 0;
    }
    if (c->open.size == 0) {
        c->open = *q;
        c->last = (struct weft_byte_set){{0}};
    }
    add_range(&c->last, q->low[last], q->high[last]);
    return 0;
}

/* Cuts a range where the number of bytes changes and where the bytes behind a lead byte would not
 * be free (Russ Cox, "Regular Expression Matching in the Wild", 2010). Depth: at most 8 cuts. */
static int add_codes(struct class_rule *c, uint32_t low, uint32_t high)
{
    static const uint32_t ends[] = {0x7F, 0x7FF, 0xFFFF, CODE_MAX};
    int r;
    for (unsigned i = 0; i < 3; i++) {
        if (low <= ends[i] && high > ends[i]) {
            r = add_codes(c, low, ends[i]);
            return r < 0 ? r : add_codes(c, ends[i] + 1, high);
        }
    }
    for (unsigned bits = 6; bits < 24 && high > 0x7F; bits += 6) {
        const uint32_t mask = (1u << bits) - 1;
        if ((low & ~mask) == (high & ~mask))
            break;
        if ((low & mask) != 0) {
            r = add_codes(c, low, low | mask);
            return r < 0 ? r : add_codes(c, (low | mask) + 1, high);
        }
        if ((high & mask) != mask) {
            r = add_codes(c, low, (high & ~mask) - 1);
            return r < 0 ? r : add_codes(c, high & ~mask, high);
        }
    }
    struct sequence q = {0};
    q.size = weft_build_encode(low, q.low);
    weft_build_encode(high, q.high);
    return add_sequence(c, &q);
}

static int compare_range(const void *a, const void *b)
{
    const struct weft_code_range *x = a, *y = b;
    return (x->low > y->low) - (x->low < y->low);
}

/* The characters of [low, high] without surrogates, which UTF-8 does not have. */
static int add_characters(struct class_rule *c, uint32_t low, uint32_t high)
{
    int r = 0;
    if (low < SURROGATE_FIRST)
        r = add_codes(c, low, high < SURROGATE_FIRST ? high : SURROGATE_FIRST - 1);
    if (r == 0 && high > SURROGATE_LAST)
        r = add_codes(c, low > SURROGATE_LAST ? low : SURROGATE_LAST + 1, high);
    return r;
}

int weft_build_class(struct weft_grammar_builder *b, struct weft_code_range *ranges, size_t n,
                     bool negated, size_t at)
{
    struct class_rule c = {.b = b};
    const size_t bottom = b->n_stack;
    uint32_t next = 0; /* characters below are done with; CODE_MAX + 1 at the end */
    int r = 0;
    if (n > 0)
        qsort(ranges, n, sizeof *ranges, compare_range);
    for (size_t i = 0; i < n && r == 0; i++) {
        uint32_t low = ranges[i].low < next ? next : ranges[i].low, high = ranges[i].high;
        if (low > high)
            continue;
        if (negated && low > next)
            r = add_characters(&c, next, low - 1);
        for (; !negated && i + 1 < n && ranges[i + 1].low <= high + 1; i++) /* less to cut */
            high = ranges[i + 1].high > high ? ranges[i + 1].high : high;
        if (!negated)
            r = add_characters(&c, low, high);
        next = high + 1;
    }
    if (r == 0 && negated && next <= CODE_MAX)
        r = add_characters(&c, next, CODE_MAX);
    if (r == 0 && c.open.size == 0)
        r = weft_grammar_refuse(b, WEFT_EUSAGE, at, "class without any character");
    if (r < 0 || (r = flush(&c)) < 0)
        return r;
    if (c.n_alternatives == 1 && c.open.size == 1)
        return 0; /* one set of bytes is one symbol */
    uint32_t rule = 0;
    if ((r = weft_build_rule(b, at, &rule)) < 0 || (r = weft_build_define(b, rule, bottom)) < 0)
        return r;
    return weft_build_push(b, WEFT_SYMBOL_RULE | rule);
}
