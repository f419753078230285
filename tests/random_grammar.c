/*
 * Random grammars: the tree, its GBNF, and the matcher that tries everything.
 */
#include "tests/random_grammar.h"

#include <check.h>
#include <limits.h>
#include <string.h>

#include "tests/harness.h"

/* Neighbours around the borders of UTF-8 lengths, and one far off. */
const struct random_letter random_grammar_alphabet[RANDOM_GRAMMAR_ALPHABET] = {
    {'a', "a"},
    {'b', "b"},
    {0xE9, "\xC3\xA9"},
    {0xEA, "\xC3\xAA"},
    {0x20AC, "\xE2\x82\xAC"},
    {0x1F600, "\xF0\x9F\x98\x80"},
};

#define ALL_LETTERS ((1u << RANDOM_GRAMMAR_ALPHABET) - 1)

static unsigned below(uint64_t *random, unsigned n)
{
    return (unsigned)(weft_test_random(random) % n);
}

static void add_letter(struct weft_str *s, unsigned letter, uint64_t *random)
{
    const struct random_letter *l = &random_grammar_alphabet[letter];
    if (l->code < 0x80 || below(random, 2) == 0)
        weft_str_adds(s, l->utf8);
    else
        weft_str_addf(s, "\\U%08X", l->code);
}

static void make_class(struct random_grammar *g, struct random_node *node, uint64_t *random)
{
    struct weft_str *s = &g->text;
    node->kind = RANDOM_CLASS;
    switch (below(random, 4)) {
    case 0: { /* a literal */
        const unsigned letter = below(random, RANDOM_GRAMMAR_ALPHABET);
        node->characters = 1u << letter;
        weft_str_adds(s, "\"");
        add_letter(s, letter, random);
        weft_str_adds(s, "\" ");
        return;
    }
    case 1: { /* a range */
        const unsigned low = below(random, RANDOM_GRAMMAR_ALPHABET);
        const unsigned high = low + below(random, RANDOM_GRAMMAR_ALPHABET - low);
        node->characters = (2u << high) - (1u << low);
        weft_str_adds(s, "[");
        add_letter(s, low, random);
        weft_str_adds(s, "-");
        add_letter(s, high, random);
        weft_str_adds(s, "] ");
        return;
    }
    case 2: { /* single ones, or all but those */
        const bool negated = below(random, 2) == 0;
        uint32_t letters = 1 + below(random, ALL_LETTERS - 1);
        node->characters = negated ? ALL_LETTERS & ~letters : letters;
        weft_str_adds(s, negated ? "[^" : "[");
        for (unsigned i = 0; i < RANDOM_GRAMMAR_ALPHABET; i++)
            if ((letters >> i & 1) != 0)
                add_letter(s, i, random);
        weft_str_adds(s, "] ");
        return;
    }
    default:
        node->characters = ALL_LETTERS;
        weft_str_adds(s, ". ");
    }
}

static unsigned make_node(struct random_grammar *g, unsigned depth, uint64_t *random);

static void make_repeat(struct random_grammar *g, struct random_node *node, unsigned depth,
                        uint64_t *random)
{
    node->kind = RANDOM_REPEAT;
    node->n = 1;
    weft_str_adds(&g->text, "(");
    node->part[0] = make_node(g, depth - 1, random);
    node->min = below(random, 3);
    node->max = node->min + below(random, 3);
    switch (below(random, 5)) {
    case 0:
        node->min = 0, node->max = UINT_MAX;
        weft_str_adds(&g->text, ")* ");
        break;
    case 1:
        node->min = 1, node->max = UINT_MAX;
        weft_str_adds(&g->text, ")+ ");
        break;
    case 2:
        node->min = 0, node->max = 1;
        weft_str_adds(&g->text, ")? ");
        break;
    case 3:
        node->max = UINT_MAX;
        weft_str_addf(&g->text, "){%u,} ", node->min);
        break;
    default:
        weft_str_addf(&g->text, "){%u,%u} ", node->min, node->max);
    }
}

static unsigned make_node(struct random_grammar *g, unsigned depth, uint64_t *random)
{
    ck_assert_uint_lt(g->n_nodes, RANDOM_GRAMMAR_NODES);
    const unsigned id = g->n_nodes++;
    struct random_node node = {0};
    const unsigned kind = depth == 0 ? below(random, 4) : below(random, 8);
    if (kind < 3) {
        make_class(g, &node, random);
    } else if (kind == 3) {
        node.kind = RANDOM_RULE;
        node.rule = below(random, RANDOM_GRAMMAR_RULES);
        weft_str_addf(&g->text, node.rule == 0 ? "root " : "r%u ", node.rule);
    } else if (kind < 6) {
        const bool choice = kind == 5;
        node.kind = choice ? RANDOM_CHOICE : RANDOM_SEQUENCE;
        node.n = choice ? 1 + below(random, 3) : below(random, 4);
        weft_str_adds(&g->text, "(");
        for (unsigned i = 0; i < node.n; i++) {
            weft_str_adds(&g->text, choice && i > 0 ? "| " : "");
            node.part[i] = make_node(g, depth - 1, random);
        }
        weft_str_adds(&g->text, ") ");
    } else {
        make_repeat(g, &node, depth, random);
    }
    g->nodes[id] = node;
    return id;
}

void random_grammar_make(struct random_grammar *g, uint64_t *random)
{
    g->n_nodes = 0;
    weft_str_clear(&g->text);
    for (unsigned i = 0; i < RANDOM_GRAMMAR_RULES; i++) {
        weft_str_addf(&g->text, i == 0 ? "root ::= " : "r%u ::= ", i);
        g->root[i] = make_node(g, 2, random);
        weft_str_adds(&g->text, "\n");
    }
}

/* ---- the matcher ---- */

struct matcher {
    const struct random_grammar *g;
    const uint8_t *letters;
    size_t n;
    bool hungry; /* something could go on behind the end of the text */
    bool known[RANDOM_GRAMMAR_NODES][RANDOM_GRAMMAR_TEXT_MAX + 1];
    uint32_t ends[RANDOM_GRAMMAR_NODES][RANDOM_GRAMMAR_TEXT_MAX + 1]; /* bit per place */
};

static uint32_t match(struct matcher *m, unsigned id, size_t at);

static uint32_t match_all(struct matcher *m, unsigned id, uint32_t starts)
{
    uint32_t ends = 0;
    for (size_t at = 0; at <= m->n; at++)
        if ((starts >> at & 1) != 0)
            ends |= match(m, id, at);
    return ends;
}

static uint32_t match_repeat(struct matcher *m, const struct random_node *node, uint32_t now)
{
    for (unsigned i = 0; i < node->min; i++)
        now = match_all(m, node->part[0], now);
    for (unsigned i = node->min; i < node->max; i++) {
        const uint32_t more = now | match_all(m, node->part[0], now);
        if (more == now)
            break;
        now = more;
    }
    return now;
}

/* Places where the node may end when it begins at one. */
static uint32_t match(struct matcher *m, unsigned id, size_t at)
{
    const struct random_node *node = &m->g->nodes[id];
    if (m->known[id][at])
        return m->ends[id][at];
    m->known[id][at] = true; /* with no ends, should it come back to itself as its own last part */
    uint32_t ends = 0;
    switch (node->kind) {
    case RANDOM_CLASS:
        if (at == m->n)
            m->hungry = true;
        else if ((node->characters >> m->letters[at] & 1) != 0)
            ends = 2u << at;
        break;
    case RANDOM_RULE:
        ends = match(m, m->g->root[node->rule], at);
        break;
    case RANDOM_SEQUENCE:
        ends = 1u << at;
        for (unsigned i = 0; i < node->n; i++)
            ends = match_all(m, node->part[i], ends);
        break;
    case RANDOM_CHOICE:
        for (unsigned i = 0; i < node->n; i++)
            ends |= match(m, node->part[i], at);
        break;
    case RANDOM_REPEAT:
        ends = match_repeat(m, node, 1u << at);
        break;
    }
    m->ends[id][at] = ends;
    return ends;
}

void random_grammar_match(const struct random_grammar *g, const uint8_t *letters, size_t n,
                          bool *ret_whole, bool *ret_prefix)
{
    struct matcher m = {.g = g, .letters = letters, .n = n};
    ck_assert_uint_le(n, RANDOM_GRAMMAR_TEXT_MAX);
    *ret_whole = (match(&m, g->root[0], 0) >> n & 1) != 0;
    *ret_prefix = *ret_whole || m.hungry;
}
