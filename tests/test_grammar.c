/*
 * Grammars: the language by examples and by errors, texts against a matcher that tries everything,
 * masks against accept, limits, and allocations that fail.
 */
#include <stdlib.h>
#include <string.h>

#include "base/grammar.h"
#include "tests/harness.h"
#include "tests/random_grammar.h"

static struct weft_grammar *open_grammar(const char *gbnf)
{
    struct weft_grammar *g = NULL;
    weft_err err = {0};
    int r = weft_grammar_open(gbnf, strlen(gbnf), &g, &err);
    ck_assert_msg(r == 0, "%s: %s", gbnf, err.text);
    return g;
}

static struct weft_grammar_state *open_state(const struct weft_grammar *g)
{
    struct weft_grammar_state *s = NULL;
    weft_err err = {0};
    int r = weft_grammar_state_open(g, &s, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    return s;
}

static int accept(struct weft_grammar_state *s, const char *text)
{
    return weft_grammar_accept(s, text, strlen(text), NULL);
}

/* ---- the language ---- */

#define TEXTS_MAX 6
static const struct {
    const char *gbnf;
    const char *whole[TEXTS_MAX];   /* may end */
    const char *prefix[TEXTS_MAX];  /* goes on, may not end */
    const char *refused[TEXTS_MAX]; /* by its last character only */
} language[] = {
    {"root ::= \"abc\"", {"abc"}, {"", "a", "ab"}, {"b", "aa", "abcd"}},
    {"root ::= \"\"", {""}, {0}, {"a"}},
    {"root ::=", {""}, {0}, {"a"}},
    {"root ::= | \"a\" |", {"", "a"}, {0}, {"b", "aa"}},
    {"root ::= a b\na::=\"x\"\nb ::= \"y\" | \"z\"", {"xy", "xz"}, {"x"}, {"xx"}},
    {"# c\nroot ::= # c\n  (\"a\" # )\n  \"b\"\n) |\n\"c\" # c\n\n# c", {"ab", "c"}, {"a"}, {"b"}},
    {"root ::= \"a\"\n  | \"b\"\r\n\t| \"c\"\r\nx ::= root", {"a", "b", "c"}, {""}, {"d"}},
    {"root ::= \"ab\"*", {"", "ab", "abab"}, {"a", "aba"}, {"b", "aa"}},
    {"root ::= \"a\"+ \"b\"?", {"a", "aa", "aab"}, {""}, {"b", "abb", "aba"}},
    {"root ::= \"a\"{2}", {"aa"}, {"", "a"}, {"aaa"}},
    {"root ::= \"a\"{ 1 , }", {"a", "aaaa"}, {""}, {"b"}},
    {"root ::= \"a\"{1,3}", {"a", "aaa"}, {""}, {"aaaa"}},
    {"root ::= \"a\"{0} \"b\"", {"b"}, {""}, {"a"}},
    {"root ::= (\"a\"{2}){2}", {"aaaa"}, {"aaa"}, {"aaaaa"}},
    {"root ::= \"a\"?+ \"b\"", {"b", "aab"}, {"aa"}, {"bb"}},
    {"root ::= (\"\")* (()+ [a]*)* \"b\"", {"b", "aaab"}, {"", "aa"}, {"bb"}},
    {"root ::= [a-c-]+", {"a", "-", "c-"}, {""}, {"d"}},
    {"root ::= [^a-c]", {"d", "\n", "\xC3\xA9", "\xF0\x9F\x98\x80"}, {"\xC3"}, {"a", "dd"}},
    {"root ::= [\\]\\[\\\\\\n\\x41\\u00e9\\U0001F600]",
     {"]", "[", "\\", "\n", "A", "\xC3\xA9"},
     {"\xC3", "\xF0\x9F\x98"},
     {"a", "\xC4", "\xC3\xA8", "\xF0\x9F\x98\x81"}},
    {"root ::= \"\\\"\\t\\r\\u20AC\"", {"\"\t\r\xE2\x82\xAC"}, {"\"\t\r\xE2\x82"}, {"\"\t\n"}},
    {"root ::= .", {"a", "\n", "\xF4\x8F\xBF\xBF"}, {"\xE2\x82"}, {"\xC0", "\xED\xA0", "\xF4\x90"}},
    {"root ::= [\\x7F-\\u07FF]", {"\x7F", "\xC2\x80", "\xDF\xBF"}, {"\xC2"}, {"~", "\xE0", "\xC1"}},
    {"root ::= [\\u0800-\\U00010FFF]",
     {"\xE0\xA0\x80", "\xEF\xBF\xBF", "\xF0\x90\xBF\xBF"},
     {"\xE0", "\xED\x9F", "\xF0\x90"},
     {"\xE0\x9F", "\xDF", "\xED\xA0", "\xF0\x91", "\xF0\x8F"}},
    {"root ::= list\nlist ::= item (\",\" list)?\nitem ::= [0-9]+ | \"(\" list \")\"",
     {"1", "12,3", "(1,(2)),3"},
     {"(1", "1,"},
     {"(1))", ",", "(1,,"}},
    {"root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"\"", {"ab", "aabc"}, {"aa"}, {"abb"}},
    {"root ::= x \"-\" x\nx ::= [a-z]* y\ny ::= [a-m]*", {"-", "ab-zz"}, {"abz"}, {"--"}},
};

START_TEST(texts_of_the_language)
{
    struct weft_grammar *g = open_grammar(language[_i].gbnf);
    struct weft_grammar_state *s = open_state(g);
    for (int i = 0; i < TEXTS_MAX && language[_i].whole[i] != NULL; i++) {
        weft_grammar_reset(s);
        ck_assert_msg(accept(s, language[_i].whole[i]) == 0, "%s", language[_i].whole[i]);
        ck_assert_msg(weft_grammar_may_end(s), "%s", language[_i].whole[i]);
    }
    for (int i = 0; i < TEXTS_MAX && language[_i].prefix[i] != NULL; i++) {
        weft_grammar_reset(s);
        ck_assert_msg(accept(s, language[_i].prefix[i]) == 0, "%s", language[_i].prefix[i]);
        ck_assert_msg(!weft_grammar_may_end(s), "%s", language[_i].prefix[i]);
    }
    for (int i = 0; i < TEXTS_MAX && language[_i].refused[i] != NULL; i++) {
        const char *text = language[_i].refused[i];
        weft_err err = {0};
        weft_grammar_reset(s);
        ck_assert_int_eq(weft_grammar_accept(s, text, strlen(text) - 1, NULL), 0);
        ck_assert_int_eq(accept(s, text + strlen(text) - 1), -WEFT_ESTATE);
        weft_grammar_reset(s);
        ck_assert_int_eq(weft_grammar_accept(s, text, strlen(text), &err), -WEFT_ESTATE);
        ck_assert_str_eq(err.text, "grammar: text that is not allowed here");
        /* nothing of it was taken */
        if (language[_i].whole[0] != NULL)
            ck_assert_int_eq(accept(s, language[_i].whole[0]), 0);
    }
    weft_grammar_state_close(s);
    weft_grammar_close(g);
}
END_TEST

static const struct {
    const char *gbnf, *text;
} errors[] = {
    {"", "grammar: rule 'root' is missing, the text as a whole"},
    {"a ::= \"x\"", "grammar: rule 'root' is missing, the text as a whole"},
    {"root ::= a\n\nb ::= \"x\" | (c)", "grammar:1:10: rule 'a' is not defined"},
    {"root ::= \"\xC3\xA9\" a", "grammar:1:14: rule 'a' is not defined"},
    {"root ::= \"a\"\nroot ::= \"b\"", "grammar:2:1: rule 'root' is defined twice"},
    {"root = \"a\"", "grammar:1:6: found '=', expected '::='"},
    {"root", "grammar:1:5: found the end, expected '::='"},
    {"root ::= \"a\n", "grammar:1:10: literal without closing \""},
    {"root ::= [a", "grammar:1:10: class without closing ]"},
    {"root ::= [a-", "grammar:1:10: class without closing ]"},
    {"root ::= []", "grammar:1:10: class without any character"},
    {"root ::= [^\\x00-\\U0010FFFF]", "grammar:1:10: class without any character"},
    {"root ::= [z-a]", "grammar:1:11: range from U+007A down to U+0061"},
    {"root ::= \"\\q\"",
     "grammar:1:12: found 'q', expected an escape: \\n \\r \\t \\\\ \\\" \\[ \\] \\xHH \\uHHHH "
     "\\UHHHHHHHH"},
    {"root ::= \"\\x4\"", "grammar:1:14: found '\"', expected a hexadecimal digit of an escape"},
    {"root ::= \"\\uD800\"", "grammar:1:11: escape of U+D800, which is no Unicode character"},
    {"root ::= \"\\UFFFFFFFF\"",
     "grammar:1:11: escape of U+FFFFFFFF, which is no Unicode character"},
    {"root ::= \"\x80\"", "grammar:1:11: found a byte that is no UTF-8"},
    {"root ::= (\"a\"", "grammar:1:14: found the end, expected more of a group or ')'"},
    {"root ::= \"a\")", "grammar:1:13: found ')', expected more of a rule or the end of the line"},
    {"root ::= \xC3\xA9*",
     "grammar:1:10: found '\xC3\xA9', expected more of a rule or the end of the line"},
    {"root ::= *", "grammar:1:10: found '*', expected something to repeat before it"},
    {"root ::= (|+)", "grammar:1:12: found '+', expected something to repeat before it"},
    {"root ::= \"a\"{", "grammar:1:14: found the end, expected a number of repetitions"},
    {"root ::= \"a\"{1", "grammar:1:15: found the end, expected '}'"},
    {"root ::= \"a\"{1;2}", "grammar:1:15: found ';', expected '}'"},
    {"root ::= \"a\"{3,2}", "grammar:1:14: at least 3 and at most 2 repetitions"},
    {"root ::= \"a\"{100001}", "grammar:1:14: more than 100000 repetitions"},
    {"root ::= <think>", "grammar:1:10: tokens such as <think> are not supported in grammars, "
                         "write the text they stand "
                         "for"},
    {"root ::= x\nx ::= root | \"a\"",
     "grammar:1:1: rule 'root' comes back to itself before any character (left recursion): put "
     "what it begins with first, then repeat the rest"},
    {"root ::= \"a\" e\ne ::= (\"\" \"b\"*) (e \"+\" \"c\" | \"c\")",
     "grammar:2:1: rule 'e' comes back to itself before any character (left recursion): put what "
     "it begins with first, then repeat the rest"},
};

START_TEST(errors_say_where)
{
    struct weft_grammar *g = NULL;
    weft_err err = {0};
    int r = weft_grammar_open(errors[_i].gbnf, strlen(errors[_i].gbnf), &g, &err);
    ck_assert_int_lt(r, 0);
    ck_assert_int_eq(r, -err.code);
    ck_assert_ptr_null(g);
    ck_assert_str_eq(err.text, errors[_i].text);
}
END_TEST

/* ---- against the matcher that tries everything ---- */

/* A random grammar and its start, unless it is left-recursive or has no text. */
static bool open_random(struct random_grammar *rg, uint64_t *random, struct weft_grammar **ret,
                        struct weft_grammar_state **ret_state)
{
    bool whole, prefix;
    random_grammar_make(rg, random);
    int r = weft_grammar_open(rg->text.data, rg->text.size, ret, NULL);
    ck_assert(r == 0 || r == -WEFT_EUSAGE);
    if (r < 0)
        return false;
    r = weft_grammar_state_open(*ret, ret_state, NULL);
    random_grammar_match(rg, NULL, 0, &whole, &prefix);
    ck_assert_msg(r == (prefix ? 0 : -WEFT_EUSAGE), "%s", rg->text.data);
    if (r < 0)
        weft_grammar_close(*ret);
    return r == 0;
}

START_TEST(agrees_with_the_matcher)
{
    uint64_t random = weft_test_seed() + (uint64_t)_i;
    struct random_grammar rg = {0};
    unsigned n_compared = 0;
    for (int round = 0; round < 60; round++) {
        struct weft_grammar *g = NULL;
        struct weft_grammar_state *s = NULL;
        if (!open_random(&rg, &random, &g, &s))
            continue;
        for (int text = 0; text < 20; text++) {
            uint8_t letters[RANDOM_GRAMMAR_TEXT_MAX];
            bool whole = false, prefix = true;
            weft_grammar_reset(s);
            for (size_t n = 0; n < RANDOM_GRAMMAR_TEXT_MAX && prefix; n++) {
                random_grammar_match(&rg, letters, n, &whole, &prefix);
                ck_assert_msg(weft_grammar_may_end(s) == whole, "%s", rg.text.data);
                /* a letter that the matcher takes, or at last one that it does not */
                for (int tries = 0; tries < 8; tries++) {
                    letters[n] = (uint8_t)(weft_test_random(&random) % RANDOM_GRAMMAR_ALPHABET);
                    random_grammar_match(&rg, letters, n + 1, &whole, &prefix);
                    const int r = accept(s, random_grammar_alphabet[letters[n]].utf8);
                    ck_assert_msg((r == 0) == prefix, "%s", rg.text.data);
                    n_compared++;
                    if (prefix)
                        break;
                }
            }
        }
        weft_grammar_state_close(s);
        weft_grammar_close(g);
    }
    ck_assert_uint_gt(n_compared, 100);
    weft_str_done(&rg.text);
}
END_TEST

/* ---- masks ---- */

#define TOKENS_MAX 300
#define TOKEN_BYTES 9

struct vocabulary {
    char bytes[TOKENS_MAX][TOKEN_BYTES];
    struct weft_token_text texts[TOKENS_MAX];
    uint32_t n;
};

/* Runs of bytes of the alphabet's characters, many cut inside of one; some empty, some twice. */
static void random_vocabulary(struct vocabulary *v, uint64_t *random)
{
    v->n = 1 + (uint32_t)(weft_test_random(random) % TOKENS_MAX);
    for (uint32_t i = 0; i < v->n; i++) {
        char text[64] = "";
        for (int k = 0; k < 8; k++)
            strcat(
                text,
                random_grammar_alphabet[weft_test_random(random) % RANDOM_GRAMMAR_ALPHABET].utf8);
        const size_t from = weft_test_random(random) % 4;
        const size_t size = weft_test_random(random) % (1 + weft_test_random(random) % TOKEN_BYTES);
        memcpy(v->bytes[i], text + from, size);
        v->texts[i] = (struct weft_token_text){.bytes = v->bytes[i], .size = (uint32_t)size};
    }
}

/* Every bit of the mask is what accept says; the state stays where it was. Gives a token that is
 * allowed, or none (the number of tokens). */
static uint32_t check_mask(struct weft_grammar_state *s, struct weft_grammar_state *other,
                           const struct weft_str *before, const struct weft_token_trie *t,
                           const struct vocabulary *v, uint64_t *random)
{
    uint64_t allowed[(TOKENS_MAX + 63) / 64];
    uint32_t n_allowed = 0, choice = v->n;
    memset(allowed, 0xA5, sizeof allowed);
    int r = weft_grammar_mask(s, t, allowed, NULL);
    ck_assert(r == 0 || r == -WEFT_ESTATE);
    for (uint32_t i = 0; i < v->n; i++) {
        weft_grammar_reset(other);
        ck_assert_int_eq(weft_grammar_accept(other, before->data, before->size, NULL), 0);
        const bool is_accepted =
            v->texts[i].size > 0 &&
            weft_grammar_accept(other, v->texts[i].bytes, v->texts[i].size, NULL) == 0;
        n_allowed += is_accepted;
        if (r == 0)
            ck_assert_int_eq(allowed[i / 64] >> i % 64 & 1, is_accepted);
        if (is_accepted && weft_test_random(random) % n_allowed == 0)
            choice = i;
    }
    ck_assert_int_eq(r, n_allowed > 0 || weft_grammar_may_end(s) ? 0 : -WEFT_ESTATE);
    for (uint32_t i = v->n; r == 0 && i < (v->n + 63) / 64 * 64; i++)
        ck_assert_int_eq(allowed[i / 64] >> i % 64 & 1, 0);
    return choice;
}

START_TEST(masks_are_what_accept_says)
{
    uint64_t random = weft_test_seed() + (uint64_t)_i;
    struct random_grammar rg = {0};
    static struct vocabulary v;
    unsigned n_tokens = 0;
    for (int round = 0; round < 40; round++) {
        struct weft_grammar *g = NULL;
        struct weft_token_trie *t = NULL;
        struct weft_grammar_state *s = NULL;
        struct weft_str before = {0};
        random_grammar_make(&rg, &random);
        if (!open_random(&rg, &random, &g, &s))
            continue;
        random_vocabulary(&v, &random);
        ck_assert_int_eq(weft_token_trie_open(v.texts, v.n, &t, NULL), 0);
        ck_assert_uint_eq(weft_token_trie_count(t), v.n);
        struct weft_grammar_state *other = open_state(g);
        weft_str_adds(&before, "");
        for (int i = 0; i < 12; i++, n_tokens++) {
            const uint32_t token = check_mask(s, other, &before, t, &v, &random);
            if (token == v.n)
                break;
            weft_str_add(&before, v.texts[token].bytes, v.texts[token].size);
            ck_assert_int_eq(
                weft_grammar_accept(s, v.texts[token].bytes, v.texts[token].size, NULL), 0);
        }
        weft_str_done(&before);
        weft_grammar_state_close(s);
        weft_grammar_state_close(other);
        weft_token_trie_close(t);
        weft_grammar_close(g);
    }
    ck_assert_uint_gt(n_tokens, 20);
    weft_str_done(&rg.text);
}
END_TEST

START_TEST(vocabularies_at_their_edges)
{
    struct weft_token_trie *t = NULL;
    struct weft_grammar *g = open_grammar("root ::= \"ab\"");
    struct weft_grammar_state *s = open_state(g);
    weft_err err = {0};
    uint64_t allowed[1];
    ck_assert_int_eq(weft_token_trie_open(NULL, 0, &t, &err), 0);
    ck_assert_int_eq(weft_grammar_mask(s, t, allowed, &err), -WEFT_ESTATE);
    ck_assert_str_eq(err.text, "grammar: no token of the vocabulary goes on from here");
    ck_assert_int_eq(accept(s, "ab"), 0);
    ck_assert_int_eq(weft_grammar_mask(s, t, allowed, &err), 0); /* the end is allowed */
    weft_token_trie_close(t);
    const struct weft_token_text big = {.bytes = "a", .size = WEFT_TOKEN_TRIE_DEPTH_MAX + 1};
    ck_assert_int_eq(weft_token_trie_open(&big, 1, &t, &err), -WEFT_ELIMIT);
    ck_assert_str_eq(err.text, "token 0 has 65536 bytes, at most 65535 are supported");
    ck_assert_int_eq(weft_token_trie_open(&big, WEFT_TOKEN_TRIE_TOKENS_MAX + 1, &t, &err),
                     -WEFT_ELIMIT);
    weft_grammar_state_close(s);
    weft_grammar_close(g);
}
END_TEST

/* ---- limits ---- */

static void expect_limit(const char *gbnf, const char *text)
{
    struct weft_grammar *g = NULL;
    weft_err err = {0};
    ck_assert_int_eq(weft_grammar_open(gbnf, strlen(gbnf), &g, &err), -WEFT_ELIMIT);
    ck_assert_str_eq(err.text, text);
}

START_TEST(limits_of_grammars)
{
    struct weft_str s = {0};
    struct weft_grammar *g = NULL;
    weft_err err = {0};
    char *big = calloc(1, WEFT_GRAMMAR_BYTES_MAX + 1);
    ck_assert_int_eq(weft_grammar_open(big, WEFT_GRAMMAR_BYTES_MAX + 1, &g, &err), -WEFT_ELIMIT);
    ck_assert_str_eq(err.text, "grammar: 262145 bytes, at most 262144 are supported");
    free(big);
    weft_str_adds(&s, "root ::= ");
    for (unsigned i = 0; i <= WEFT_GRAMMAR_NESTING_MAX; i++)
        weft_str_adds(&s, "(");
    expect_limit(s.data, "grammar:1:138: groups nested more than 128 deep");
    weft_str_done(&s);
    expect_limit("root ::= [a]{0,100000} [b]{0,100000} [c]{0,100000}",
                 "grammar:1:41: more than 262144 rules with those of groups and repetitions");
    /* numbers multiply only as rules do, not as text does */
    g = open_grammar("root ::= (((([a]{9}){99}){999}){9999}){99999}");
    weft_grammar_close(g);
    weft_str_adds(&s, "root ::=");
    for (int i = 0; i < 12; i++)
        weft_str_adds(&s, " [a]{100000}");
    expect_limit(s.data, "grammar:1:141: more than 1048576 symbols with repetitions written out");
    weft_str_done(&s);
}
END_TEST

START_TEST(limit_of_depth)
{
    struct weft_grammar *g = open_grammar("root ::= \"(\" root \")\" | \"x\"");
    struct weft_grammar_state *s = open_state(g);
    const struct weft_token_text texts[] = {{"(", 1}, {"((", 2}, {"x", 1}};
    struct weft_token_trie *t = NULL;
    weft_err err = {0};
    uint64_t allowed[1];
    ck_assert_int_eq(weft_token_trie_open(texts, 3, &t, NULL), 0);
    for (unsigned i = 1; i < WEFT_GRAMMAR_DEPTH_MAX - 1; i++)
        ck_assert_int_eq(accept(s, "("), 0);
    ck_assert_int_eq(weft_grammar_mask(s, t, allowed, NULL), 0);
    ck_assert_uint_eq(allowed[0], 5); /* one more */
    ck_assert_int_eq(accept(s, "("), 0);
    ck_assert_int_eq(weft_grammar_mask(s, t, allowed, NULL), 0);
    ck_assert_uint_eq(allowed[0], 4); /* what leads out is still allowed */
    ck_assert_int_eq(weft_grammar_accept(s, "(", 1, &err), -WEFT_ELIMIT);
    ck_assert_str_eq(err.text, "grammar: rules within rules more than 4096 deep");
    weft_token_trie_close(t);
    ck_assert_int_eq(weft_token_trie_open(texts, 2, &t, NULL), 0);
    ck_assert_int_eq(weft_grammar_mask(s, t, allowed, &err), -WEFT_ELIMIT);
    ck_assert_int_eq(accept(s, "x"), 0);
    for (unsigned i = 0; i < WEFT_GRAMMAR_DEPTH_MAX - 1; i++)
        ck_assert_int_eq(accept(s, ")"), 0);
    ck_assert(weft_grammar_may_end(s));
    weft_token_trie_close(t);
    weft_grammar_state_close(s);
    weft_grammar_close(g);
}
END_TEST

/* Every place of the text is kept as a place to go back to: more with every character. */
START_TEST(limits_of_ambiguity)
{
    struct weft_grammar *g = open_grammar("root ::= \"a\" root root \"b\" | \"\"");
    struct weft_grammar_state *s = open_state(g);
    weft_err err = {0};
    int r = 0, n = 0;
    for (; r == 0 && n < 100000; n++)
        r = weft_grammar_accept(s, n % 3 == 2 ? "b" : "a", 1, &err);
    ck_assert_int_eq(r, -WEFT_ELIMIT);
    ck_assert_int_gt(n, 1000);
    weft_grammar_state_close(s);
    weft_grammar_close(g);
    /* more alternatives than places */
    struct weft_str wide = {0};
    weft_str_adds(&wide, "root ::= \"a\"");
    for (unsigned i = 0; i < WEFT_GRAMMAR_WIDTH_MAX; i++)
        weft_str_adds(&wide, " | \"a\"");
    g = open_grammar(wide.data);
    ck_assert_int_eq(weft_grammar_state_open(g, &s, &err), -WEFT_ELIMIT);
    ck_assert_str_eq(err.text,
                     "grammar: too ambiguous: the text stands at more than 16384 places at once");
    weft_grammar_close(g);
    weft_str_done(&wide);
}
END_TEST

/* A tree of rules, each of which may go on with a very long one: hardly anything is visited for a
 * token, but much is passed over. */
START_TEST(limit_of_passing_over)
{
    enum { LEVELS = 12, TOKENS = (1 << LEVELS) - 2 };
    static char bytes[TOKENS][LEVELS];
    static struct weft_token_text texts[TOKENS];
    static uint64_t allowed[TOKENS / 64 + 1];
    struct weft_str gbnf = {0};
    struct weft_token_trie *t = NULL;
    weft_err err = {0};
    unsigned n = 0;
    weft_str_adds(&gbnf, "root ::= s1\n");
    for (unsigned i = 1; i < 1u << LEVELS; i++)
        if (i < 1u << (LEVELS - 1))
            weft_str_addf(&gbnf, "s%u ::= \"a\" s%u | \"b\" s%u | long\n", i, 2 * i, 2 * i + 1);
        else
            weft_str_addf(&gbnf, "s%u ::= long\n", i);
    weft_str_adds(&gbnf, "long ::= \"c\"");
    for (int i = 0; i < 9; i++)
        weft_str_adds(&gbnf, " [d-z]{100000}");
    for (unsigned size = 1; size < LEVELS; size++)
        for (unsigned value = 0; value < 1u << size; value++, n++) {
            for (unsigned k = 0; k < size; k++)
                bytes[n][k] = (value >> k & 1) != 0 ? 'b' : 'a';
            texts[n] = (struct weft_token_text){.bytes = bytes[n], .size = size};
        }
    struct weft_grammar *g = open_grammar(gbnf.data);
    struct weft_grammar_state *s = open_state(g);
    ck_assert_int_eq(weft_token_trie_open(texts, n, &t, NULL), 0);
    ck_assert_int_eq(weft_grammar_mask(s, t, allowed, &err), -WEFT_ELIMIT);
    weft_token_trie_close(t);
    weft_grammar_state_close(s);
    weft_grammar_close(g);
    weft_str_done(&gbnf);
}
END_TEST

/* A chain with a place of its own for each character makes the state forget, several times. */
START_TEST(forgets_and_goes_on)
{
    struct weft_grammar *g = open_grammar("root ::= \"(\" ([ab]{0,100000} | root) \")\"");
    struct weft_grammar_state *s = open_state(g), *other = open_state(g);
    const struct weft_token_text texts[] = {{"a", 1}, {")", 1}, {"bb)", 3}, {"(", 1}};
    struct weft_token_trie *t = NULL;
    uint64_t allowed[1];
    ck_assert_int_eq(weft_token_trie_open(texts, 4, &t, NULL), 0);
    ck_assert_int_eq(accept(s, "(("), 0);
    for (int i = 0; i < 100000; i++) {
        if (i % 9973 == 1) {
            ck_assert_int_eq(weft_grammar_mask(s, t, allowed, NULL), 0);
            ck_assert_uint_eq(allowed[0], 7);
            ck_assert_int_eq(accept(s, "a)b"), -WEFT_ESTATE); /* back to where it was */
        }
        ck_assert_int_eq(accept(s, i % 2 == 0 ? "a" : "b"), 0);
    }
    ck_assert_int_eq(weft_grammar_mask(s, t, allowed, NULL), 0);
    ck_assert_uint_eq(allowed[0], 2);
    ck_assert_int_eq(accept(s, "))"), 0);
    ck_assert(weft_grammar_may_end(s));
    weft_grammar_reset(s);
    ck_assert_int_eq(weft_grammar_mask(s, t, allowed, NULL), 0);
    ck_assert_uint_eq(allowed[0], 8);
    weft_token_trie_close(t);
    weft_grammar_state_close(s);
    weft_grammar_state_close(other);
    weft_grammar_close(g);
}
END_TEST

/* ---- allocations that fail, see WRAP_test_grammar in the Makefile ---- */

static long allowed_allocations = -1; /* until one fails; negative: all are allowed */

static bool allow(void)
{
    return allowed_allocations < 0 || allowed_allocations-- > 0;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
    return allow() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return allow() ? __real_calloc(count, size) : NULL;
}

void *__wrap_realloc(void *old, size_t size)
{
    return allow() ? __real_realloc(old, size) : NULL;
}

/* From text to mask and on; what was opened is closed. */
static int whole_way(weft_err *err)
{
    static const char gbnf[] = "root ::= ([^a-c(] | \"a\" b | \"(\" root \")\"){1,40}\nb ::= root?";
    const struct weft_token_text texts[] = {{"xyz", 3}, {"a", 1}, {"((", 2}};
    struct weft_grammar *g = NULL;
    struct weft_grammar_state *s = NULL;
    struct weft_token_trie *t = NULL;
    uint64_t allowed[1] = {0};
    int r = weft_grammar_open(gbnf, sizeof gbnf - 1, &g, err);
    if (r == 0)
        r = weft_token_trie_open(texts, 3, &t, err);
    if (r == 0)
        r = weft_grammar_state_open(g, &s, err);
    for (int i = 0; i < 100 && r == 0; i++) {
        r = weft_grammar_mask(s, t, allowed, err);
        if (r == 0)
            r = weft_grammar_accept(s, i % 8 == 0 ? "((" : "x", i % 8 == 0 ? 2 : 1, err);
    }
    weft_grammar_state_close(s);
    weft_token_trie_close(t);
    weft_grammar_close(g);
    return r;
}

START_TEST(allocations_fail)
{
    int n = 0, r = -WEFT_ENOMEM;
    for (; r == -WEFT_ENOMEM; n++) {
        weft_err err = {0};
        allowed_allocations = n;
        r = whole_way(&err);
        allowed_allocations = -1;
        ck_assert_int_eq(r, -err.code);
        if (r < 0)
            ck_assert_msg(strstr(err.text, "no memory") != NULL, "%d: %s", n, err.text);
    }
    ck_assert_int_eq(r, 0);
    ck_assert_int_ge(n, 20);
}
END_TEST

#define COUNT(a) ((int)(sizeof(a) / sizeof(a)[0]))

int main(void)
{
    Suite *s = suite_create("grammar");
    TCase *t = tcase_create("grammar");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, texts_of_the_language, 0, COUNT(language));
    tcase_add_loop_test(t, errors_say_where, 0, COUNT(errors));
    tcase_add_loop_test(t, agrees_with_the_matcher, 0, 10);
    tcase_add_loop_test(t, masks_are_what_accept_says, 0, 10);
    tcase_add_test(t, vocabularies_at_their_edges);
    tcase_add_test(t, limits_of_grammars);
    tcase_add_test(t, limit_of_depth);
    tcase_add_test(t, limits_of_ambiguity);
    tcase_add_test(t, limit_of_passing_over);
    tcase_add_test(t, forgets_and_goes_on);
    tcase_add_test(t, allocations_fail);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
