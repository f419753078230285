/*
 * Grammars: from text to rules that can be walked.
 *
 * Invariant: what weft_grammar_open gives has no left recursion, so that the rules which begin at
 * one place of a text can be visited in the order of their ranks, each once (grammar_state.c).
 * Every analysis is linear in the symbols. Any thread.
 */
#include "base/grammar_private.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* ---- rules that match the empty text ---- */

struct nullable {
    uint32_t *end;   /* [n_symbols] of a rule symbol: place of the END of its alternative */
    uint32_t *next;  /* [n_symbols] next place with the same rule, or NONE */
    uint32_t *left;  /* [n_symbols] of an END: symbols of its alternative that may not be empty */
    uint32_t *owner; /* [n_symbols] of an END: the rule */
    uint32_t *first; /* [n_rules] first place of each rule, or NONE */
    uint32_t *queue; /* [n_rules] nullable rules; each enters once */
    size_t n_queue;
};

#define NONE UINT32_MAX

static void mark_nullable(struct weft_grammar *g, struct nullable *w, uint32_t rule)
{
    if (!g->rules[rule].nullable) {
        g->rules[rule].nullable = true;
        w->queue[w->n_queue++] = rule;
    }
}

/* An alternative is empty when all its symbols may be: counts those that are left. */
static void find_nullable(struct weft_grammar *g, struct nullable *w)
{
    memset(w->first, 0xFF, g->n_rules * sizeof *w->first);
    for (uint32_t rule = 0; rule < g->n_rules; rule++) {
        uint32_t end = NONE;
        for (uint32_t place = g->rules[rule].end; place-- > g->rules[rule].begin;) {
            const uint32_t symbol = g->symbols[place];
            if (symbol == WEFT_SYMBOL_END) {
                end = place;
                w->left[end] = 0;
                w->owner[end] = rule;
                continue;
            }
            w->left[end]++;
            w->end[place] = end;
            if (weft_symbol_is_rule(symbol)) {
                w->next[place] = w->first[weft_symbol_rule(symbol)];
                w->first[weft_symbol_rule(symbol)] = place;
            }
        }
    }
    for (uint32_t rule = 0; rule < g->n_rules; rule++)
        for (uint32_t place = g->rules[rule].begin; place < g->rules[rule].end; place++)
            if (g->symbols[place] == WEFT_SYMBOL_END && w->left[place] == 0)
                mark_nullable(g, w, rule);
    for (size_t i = 0; i < w->n_queue; i++)
        for (uint32_t place = w->first[w->queue[i]]; place != NONE; place = w->next[place])
            if (--w->left[w->end[place]] == 0)
                mark_nullable(g, w, w->owner[w->end[place]]);
}

static int analyse_nullable(struct weft_grammar_builder *b)
{
    struct weft_grammar *g = b->g;
    uint32_t *memory = calloc(4 * g->n_symbols + 2 * g->n_rules, sizeof *memory);
    if (memory == NULL)
        return weft_fail(b->err, WEFT_ENOMEM, "grammar: no memory to look at %zu symbols",
                         g->n_symbols);
    struct nullable w = {
        .end = memory,
        .next = memory + g->n_symbols,
        .left = memory + 2 * g->n_symbols,
        .owner = memory + 3 * g->n_symbols,
        .first = memory + 4 * g->n_symbols,
        .queue = memory + 4 * g->n_symbols + g->n_rules,
    };
    find_nullable(g, &w);
    free(memory);
    return 0;
}

/* ---- ranks ---- */

struct visit {
    uint32_t rule, place;
};

enum { FRESH, OPEN, DONE, IN_CYCLE };

/* The next rule that visit->rule may begin with, or NONE; place goes on behind it. A rule that
 * comes back to itself at its very end (as x* does when x may be empty) begins nothing new. */
static uint32_t next_beginning(const struct weft_grammar *g, struct visit *visit)
{
    const struct weft_rule *rule = &g->rules[visit->rule];
    while (visit->place < rule->end) {
        const uint32_t place = visit->place++, symbol = g->symbols[place];
        if (symbol == WEFT_SYMBOL_END)
            continue;
        const bool is_rule = weft_symbol_is_rule(symbol);
        const uint32_t inner = weft_symbol_rule(symbol);
        if (!is_rule || !g->rules[inner].nullable)
            while (g->symbols[visit->place] != WEFT_SYMBOL_END)
                visit->place++;
        if (is_rule && (inner != visit->rule || g->symbols[place + 1] != WEFT_SYMBOL_END))
            return inner;
    }
    return NONE;
}

/* Names a rule of the cycle that ends the path and begins with `rule`. Rules of groups and
 * repetitions contain one another without a cycle, so one has a name. */
static int refuse_cycle(struct weft_grammar_builder *b, const struct visit *path, size_t n,
                        uint32_t rule, uint8_t *colour)
{
    char quoted[WEFT_QUOTE_SIZE];
    do
        colour[path[--n].rule] = IN_CYCLE;
    while (n > 0 && path[n].rule != rule);
    size_t i = 0;
    while (i + 1 < b->n_names && colour[b->by_name[i].rule] != IN_CYCLE)
        i++;
    const struct weft_name *name = &b->by_name[i];
    weft_quote(quoted, sizeof quoted, name->text, name->size);
    return weft_grammar_refuse(b, WEFT_EUSAGE, b->g->rules[name->rule].at,
                               "rule %s comes back to itself before any character (left "
                               "recursion): put what it begins with first, then repeat the rest",
                               quoted);
}

/* Depth first from every rule: one that is done later gets a lower rank. */
static int find_ranks(struct weft_grammar_builder *b, struct visit *path, uint8_t *colour)
{
    struct weft_grammar *g = b->g;
    uint32_t rank = (uint32_t)g->n_rules;
    for (uint32_t start = 0; start < g->n_rules; start++) {
        size_t n = 0;
        if (colour[start] != FRESH)
            continue;
        path[n++] = (struct visit){.rule = start, .place = g->rules[start].begin};
        colour[start] = OPEN;
        while (n > 0) {
            const uint32_t rule = path[n - 1].rule, inner = next_beginning(g, &path[n - 1]);
            if (inner == NONE) {
                colour[rule] = DONE;
                g->rules[rule].rank = --rank;
                g->by_rank[rank] = rule;
                n--;
            } else if (colour[inner] == OPEN) {
                return refuse_cycle(b, path, n, inner, colour);
            } else if (colour[inner] == FRESH) {
                colour[inner] = OPEN;
                path[n++] = (struct visit){.rule = inner, .place = g->rules[inner].begin};
            }
        }
    }
    return 0;
}

static int analyse_ranks(struct weft_grammar_builder *b)
{
    const size_t n = b->g->n_rules;
    struct visit *path = calloc(n, sizeof *path);
    uint8_t *colour = calloc(n, 1);
    b->g->by_rank = calloc(n, sizeof *b->g->by_rank);
    int r = -WEFT_ENOMEM;
    if (path == NULL || colour == NULL || b->g->by_rank == NULL)
        weft_fail(b->err, WEFT_ENOMEM, "grammar: no memory to order %zu rules", n);
    else
        r = find_ranks(b, path, colour);
    free(path);
    free(colour);
    return r;
}

/* ---- classes of bytes ---- */

/* Splits every class by the set: bytes of one class stay together only while no set parts them. */
static void split_classes(struct weft_grammar *g, const struct weft_byte_set *set)
{
    uint16_t inside[256]; /* of a class: its new name for bytes of the set */
    bool seen_out[256] = {false};
    memset(inside, 0xFF, sizeof inside);
    for (unsigned byte = 0; byte < 256; byte++)
        if (!weft_byte_set_has(set, (uint8_t)byte))
            seen_out[g->class_of[byte]] = true;
    for (unsigned byte = 0; byte < 256; byte++) {
        const uint8_t old = g->class_of[byte];
        if (!weft_byte_set_has(set, (uint8_t)byte) || !seen_out[old])
            continue;
        if (inside[old] == UINT16_MAX)
            inside[old] = (uint16_t)g->n_classes++;
        g->class_of[byte] = (uint8_t)inside[old];
    }
}

static int analyse_classes(struct weft_grammar_builder *b)
{
    struct weft_grammar *g = b->g;
    uint8_t *used = calloc(g->n_sets, 1);
    if (used == NULL)
        return weft_fail(b->err, WEFT_ENOMEM, "grammar: no memory for %zu sets", g->n_sets);
    for (size_t i = 0; i < g->n_symbols; i++)
        if (weft_symbol_is_set(g->symbols[i]))
            used[g->symbols[i] - WEFT_SYMBOL_SET] = 1;
    g->n_classes = 1;
    for (size_t i = 0; i < g->n_sets && g->n_classes < 256; i++)
        if (used[i])
            split_classes(g, &g->sets[i]);
    free(used);
    return 0;
}

int weft_grammar_analyse(struct weft_grammar_builder *b)
{
    int r = analyse_nullable(b);
    if (r == 0)
        r = analyse_ranks(b);
    return r < 0 ? r : analyse_classes(b);
}

/* ---- open and close ---- */

/* The sets of one byte, numbered by it: literals need no search. */
static int add_single_bytes(struct weft_grammar_builder *b)
{
    struct weft_grammar *g = b->g;
    int r = weft_grammar_grow(&g->sets, &g->sets_capacity, 0, 256, sizeof *g->sets, b->err);
    for (uint32_t byte = 0; byte < 256 && r == 0; byte++) {
        struct weft_byte_set set = {{0}};
        set.words[byte / 64] = (uint64_t)1 << byte % 64;
        g->sets[g->n_sets++] = set;
        r = weft_intern_add(&b->set_ids, weft_intern_hash(&set, sizeof set), byte, b->err);
    }
    return r;
}

int weft_grammar_open(const char *gbnf, size_t n, struct weft_grammar **ret, weft_err *err)
{
    if (n > WEFT_GRAMMAR_BYTES_MAX)
        return weft_fail(err, WEFT_ELIMIT, "grammar: %zu bytes, at most %u are supported", n,
                         WEFT_GRAMMAR_BYTES_MAX);
    struct weft_grammar_builder b = {.text = gbnf, .n = n, .err = err};
    b.g = calloc(1, sizeof *b.g);
    if (b.g == NULL)
        return weft_fail(err, WEFT_ENOMEM, "grammar: no memory");
    int r = add_single_bytes(&b);
    if (r == 0)
        r = weft_grammar_parse(&b);
    if (r == 0)
        r = weft_grammar_analyse(&b);
    if (r == 0)
        *ret = b.g;
    else
        weft_grammar_close(b.g);
    free(b.stack);
    free(b.by_name);
    weft_intern_done(&b.names);
    weft_intern_done(&b.set_ids);
    return r;
}

void weft_grammar_close(struct weft_grammar *g)
{
    if (g == NULL)
        return;
    free(g->symbols);
    free(g->rules);
    free(g->sets);
    free(g->by_rank);
    free(g);
}
