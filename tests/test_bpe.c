/*
 * Byte-level BPE and its pre-tokenizers: every rule cuts as written, every text comes back, joining
 * equals its definition, control tokens never come out of text, and no text is slow.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/detok.h"
#include "coordinator/pretokenizer.h"
#include "tests/harness.h"
#include "tests/vocab_fixture.h"

/* ---- pre-tokenizers ---- */

static struct weft_pretokenizer *open_rule(const char *name)
{
    struct weft_pretokenizer *p = NULL;
    weft_err err = {0};
    ck_assert_msg(weft_pretokenizer_open(name, strlen(name), &p, &err) == 0, "%s", err.text);
    return p;
}

static void split(const struct weft_pretokenizer *p, const char *text, size_t n,
                  struct weft_words *w)
{
    weft_err err = {0};
    ck_assert_msg(weft_pretokenizer_split(p, text, n, w, &err) == 0, "%s", err.text);
    /* An assertion writes to a pipe, and there are many words. */
    uint32_t start = 0;
    for (size_t i = 0; i < w->n; start = w->ends[i++]) {
        if (w->ends[i] <= start || (w->ends[i] < n && ((uint8_t)text[w->ends[i]] & 0xC0) == 0x80))
            ck_abort_msg("word %zu is %u..%u of %zu", i, start, w->ends[i], n);
    }
    ck_assert_uint_eq(start, n);
}

#define ENGLISH "I'm 12345 iPhones, WE'LL see!!  x = 3.14"
#define LETTERS "हि 我々은ก λΛé½ 1234ab\t \""

/* One name of each rule; words with bars between them. The rules are those of the models, and were
 * compared with two independent implementations of their expressions. */
static const struct {
    const char *name, *english, *letters;
} rules[] = {
    {"default", "I|'|m| |123|45| iPhones|,| WE|'|LL| see|!!| | x| |=| |3|.|14",
     "ह|ि| 我々은ก| λΛé|½| |123|4|ab|\t |\""},
    {"gpt-2", "I|'m| 12345| iPhones|,| WE|'|LL| see|!!| | x| =| 3|.|14",
     "ह|ि| 我々은ก| λΛé|½| 1234|ab|\t| \""},
    {"starcoder", "I|'m| |1|2|3|4|5| iPhones|,| WE|'|LL| see|!!| | x| =| |3|.|1|4",
     "ह|ि| 我々은ก| λΛé|½| |1|2|3|4|ab|\t| \""},
    {"falcon", "I|'|m| |123|45| iPhones|,| WE|'|LL| see|!!| | x| |=| 3|.|14",
     "ह|ि| 我々은ก| λΛé|½| |123|4|ab|\t |\""},
    {"llama-bpe", "I|'m| |123|45| iPhones|,| WE|'LL| see|!!| | x| =| |3|.|14",
     "ह|ि| 我々은ก| λΛé|½| |123|4|ab|\t| \""},
    {"qwen2", "I|'m| |1|2|3|4|5| iPhones|,| WE|'LL| see|!!| | x| =| |3|.|1|4",
     "ह|ि| 我々은ก| λΛé|½| |1|2|3|4|ab|\t| \""},
    {"qwen35", "I|'m| |1|2|3|4|5| iPhones|,| WE|'LL| see|!!| | x| =| |3|.|1|4",
     "हि| 我々은ก| λΛé|½| |1|2|3|4|ab|\t| \""},
    {"gpt-4o", "I'm| |123|45| i|Phones|,| WE'LL| see|!!| | x| =| |3|.|14",
     "हि| 我々은ก| λ|Λé|½| |123|4|ab|\t| \""},
    {"tekken", "I|'m| |1|2|3|4|5| i|Phones|,| WE|'LL| see|!!| | x| =| |3|.|1|4",
     "हि| 我々은ก| λ|Λé|½| |1|2|3|4|ab|\t| \""},
    {"deepseek-llm", "I|'|m| |1|2|3|4|5| iPhones|,| WE|'|LL| see|!!| | x| =| |3|.|1|4",
     "हि| |我々은ก| λΛé|½| |1|2|3|4|ab|\t| \""},
    {"deepseek-coder", "I|'|m| |1|2|3|4|5| iPhones|,| WE|'|LL| see|!!| | x| = |3|.|1|4",
     "ह|ि| |我々은ก| λΛé|½| |1|2|3|4|ab|\t| \""},
    {"deepseek-v3", "I|'m| |123|45| iPhones|,| WE|'LL| see|!!| | x| =| |3|.|14",
     "हि| |我|々은ก| λΛé|½| |123|4|ab|\t| \""},
    {"bloom", "I'm| 12345| iPhones|,| WE'LL| see|!! | x| =| 3|.|14",
     "हि| 我々은ก| λΛé½| 1234ab|\t| \""},
    {"viking", "I'm| |1|2|3|4|5| iPhones|,| WE'LL| see|!! | x| =| |3|.|1|4",
     "हि| 我々은ก| λΛé|½| |1|2|3|4|ab|\t| \""},
    {"chameleon", "I|'|m| |1|2|3|4|5| iPhones|,| WE|'|LL| see|!|!|  |x| |=| |3|.|1|4",
     "ह|ि| 我々은ก| λΛé|½| |1|2|3|4|ab|\t| |\""},
    {"superbpe", "I'm |12|345| iPhones, WE'LL see!!  x = |3|.|14",
     "हि 我々은ก λΛé|½| |1|234|ab\t \""},
    {"bailingmoe", "I|'m| |1|2|3|4|5| iPhones|,| WE|'LL| see|!!| | x| =| |3|.|1|4",
     "ह|ि| 我々은ก| λΛé|½| |1|2|3|4|ab|\t| \""},
    {"seed-coder", "I|'m| |1|2|3|4|5| iPhones|,| WE|'LL| see|!!| | x| =| |3|.|1|4",
     "ह|ि| 我々은ก| λΛé|½| |1|2|3|4|ab|\t| \""},
    {"kimi-k2", "I'm| |123|45| i|Phones|,| WE'LL| see|!!| | x| =| |3|.|14",
     "हि| |我々|은ก| λ|Λé|½| |123|4|ab|\t| \""},
    {"tiny_aya", "I'm| |12|345| i|Phones|,| WE'LL| see|!!| | x| =| |3|.|14",
     "हि| 我々은ก| λ|Λé|½| |123|4|ab|\t| \""},
    {"afmoe", "I|'m| |12|345| iPhones|,| WE|'LL| see|!!| | x| =| |3|.|14",
     "हि| |我|々|은|ก| λΛé|½| |1|234|ab|\t| \""},
    {"youtu", "I'm| |1|2|3|4|5| i|Phones|,| WE'LL| see|!!| | x| =| |3|.|1|4",
     "हि| |我|々|은|ก| λ|Λé|½| |1|2|3|4|ab|\t| \""},
    {"exaone-moe", "I|'m| |1|2|3|4|5| iPhones|,| WE|'LL| see|!!| | x| =| |3|.|1|4",
     "हि 我々은ก λΛé|½| |1|2|3|4|ab|\t| \""},
    {"jais-2", "I|'m| |123|45| iPhones|,| WE|'LL| see|!!| | x| =| |3|.|14",
     "ह|ि| 我々은ก| λΛé|½| |123|4|ab|\t| \""},
    {"minicpm5", "I|'m| |123|45| iPhones|,| WE|'LL| see|!!| | x| =| |3|.|14",
     "ह|ि| 我々은ก| λΛé|½| |123|4|ab|\t| \""},
    {"laguna", "I|'m| |1|2|3|4|5| iPhones|,| WE|'LL| see|!!| | x| =| |3|.|1|4",
     "ह|ि| 我々은ก| λΛé|½| |1|2|3|4|ab|\t| \""},
};
#define N_RULES ((int)(sizeof rules / sizeof rules[0]))

static void expect_words(const char *name, const char *text, const char *expected)
{
    struct weft_pretokenizer *p = open_rule(name);
    struct weft_words w = {0};
    struct weft_str found = {0};
    split(p, text, strlen(text), &w);
    for (size_t i = 0, start = 0; i < w.n; start = w.ends[i++]) {
        weft_str_adds(&found, i > 0 ? "|" : "");
        weft_str_add(&found, text + start, w.ends[i] - start);
    }
    ck_assert_msg(strcmp(found.data, expected) == 0, "%s: found '%s', expected '%s'", name,
                  found.data, expected);
    weft_str_done(&found);
    weft_words_done(&w);
    weft_pretokenizer_close(p);
}

START_TEST(words_of_every_rule)
{
    expect_words(rules[_i].name, ENGLISH, rules[_i].english);
    expect_words(rules[_i].name, LETTERS, rules[_i].letters);
}
END_TEST

START_TEST(words_of_a_rule)
{
    static const struct {
        const char *name, *text, *expected;
    } cases[] = {
        {"llama-bpe", "  a\n\n  b\t ", " | a|\n\n| | b|\t "},
        {"gpt-2", "  a\n\n  b\t ", " | a|\n\n | b|\t "},
        {"llama-bpe", "!\r\n x \n\n \n  y", "!\r\n| x| \n\n \n| | y"},
        {"bailingmoe", "a\n\nb", "a|\n\n|b"},
        {"laguna", "a \n\n b", "a| |\n\n| b"},
        {"gpt-4o", "don't DON'T//\n", "don't| DON'T|//\n"},
        {"qwen2", "it\xC5\xBF 'S '\xC5\xBF", "it\xC5\xBF| '|S| '|\xC5\xBF"},
        {"qwen2", "x'\xC5\xBF", "x|'\xC5\xBF"}, /* the long s is an s whatever the case */
        /* White_Space and nothing else: U+0085 and U+3000 are, U+180E and U+200B are not. */
        {"gpt-2", "a\xC2\x85\xE3\x80\x80z", "a|\xC2\x85|\xE3\x80\x80|z"},
        {"gpt-2", "a\xE1\xA0\x8E\xE2\x80\x8Bz", "a|\xE1\xA0\x8E\xE2\x80\x8B|z"},
        {"deepseek-llm", "a  \n  ", "a|  |\n|  "},
        {"deepseek-llm", "a \xE3\x80\x80\xE2\x96\xBD", "a| |\xE3\x80\x80|\xE2\x96\xBD"},
        {"superbpe", "1234567", "1|234|567"},
        {"superbpe", "123456", "123|456"},
        {"superbpe", "12", "12"},
        {"superbpe",
         "\xC2\xBD"
         "1234 \xC2\xBD"
         "123\xC2\xBD",
         "\xC2\xBD"
         "1|234| |\xC2\xBD|123\xC2\xBD"},
        {"tiny_aya", "1234567 123456 1234", "1|234|567| |123|456| |1|234"},
        {"tiny_aya", "1234_", "123|4|_"}, /* no word ends there */
        {"afmoe", "1234567x123456", "1|234|567|x|123|456"},
        {"jais-2", "a          b", "a|        | | b"}, /* 10 blanks: 8, 1, 1 */
        {"jais-2", "!\n   \n  b", "!\n|   \n| | b"},
        {"exaone-moe", "two words 1 e\xCC\x81 a", "two words| |1| e\xCC\x81 a"},
        {"chameleon", "IMGIMGABZ<sentinel:42>", "IMGIMGABZ|<|sentinel|:|4|2|>"},
        {"deepseek-v3", "a~'s .b-b", "a|~'|s| .|b|-b"},
        {"nobody's", ENGLISH, "I|'|m| |123|45| iPhones|,| WE|'|LL| see|!!| | x| |=| |3|.|14"},
        {"", "a b", "a| b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_words(cases[i].name, cases[i].text, cases[i].expected);
}
END_TEST

START_TEST(names)
{
    size_t n = 0, refused = 0;
    for (const char *name; (name = weft_pretokenizer_name(n)) != NULL; n++) {
        struct weft_pretokenizer *p = NULL;
        weft_err err = {0};
        for (size_t i = 0; i < n; i++)
            ck_assert_str_ne(name, weft_pretokenizer_name(i));
        int r = weft_pretokenizer_open(name, strlen(name), &p, &err);
        ck_assert(r == 0 || r == -WEFT_EUNSUPPORTED);
        ck_assert(r < 0 || weft_pretokenizer_known(p));
        refused += r < 0;
        if (r < 0)
            ck_assert_msg(strstr(err.text, name) != NULL, "%s", err.text);
        weft_pretokenizer_close(p);
    }
    ck_assert_uint_gt(n, 80);
    ck_assert_uint_eq(refused, 4);
    struct weft_pretokenizer *p = open_rule("llama-bpe");
    ck_assert_uint_eq(weft_pretokenizer_flags(p), WEFT_PRE_IGNORE_MERGES | WEFT_PRE_ADD_BOS);
    weft_pretokenizer_close(p);
    p = open_rule("llama-bpe2"); /* a prefix is not enough */
    ck_assert(!weft_pretokenizer_known(p) && weft_pretokenizer_flags(p) == 0);
    weft_pretokenizer_close(p);
    weft_pretokenizer_close(NULL);
}
END_TEST

/* Whatever the rule, the words are the text. */
START_TEST(words_are_the_text)
{
    uint64_t random = weft_test_seed() + (uint64_t)_i;
    struct weft_pretokenizer *p = open_rule(rules[_i].name);
    struct weft_words w = {0};
    char text[4 * 60];
    for (unsigned round = 0; round < 300; round++)
        split(p, text, vocab_random_text(&random, text, 60), &w);
    weft_words_done(&w);
    weft_pretokenizer_close(p);
}
END_TEST

/* Runs of one kind, alone and with another kind at the end: a rule that looks at the rest of the
 * run from each of its characters would need minutes for one of them. */
START_TEST(long_runs)
{
    static const char *const units[] = {" ",  "\n", "\t",           "a",
                                        "A",  "7",  "\xCC\x81",     "\xE6\x88\x91",
                                        ".",  "aA", "\xC2\xA0\r\n", "\xF0\x9F\x99\x82",
                                        "a ", "'s", "<sentinel:1",  "\xE2\x85\xA7"};
    static const char *const ends[] = {"", "x", "7", "\xE6\x88\x91", "!", "\n", " "};
    const size_t size = 1u << 18;
    struct weft_pretokenizer *p = open_rule(rules[_i].name);
    struct weft_words w = {0};
    char *text = malloc(size + 32);
    ck_assert_ptr_nonnull(text);
    for (size_t k = 0; k < sizeof units / sizeof units[0]; k++) {
        size_t n = 0;
        while (n < size) {
            strcpy(text + n, units[k]);
            n += strlen(units[k]);
        }
        const char *end = ends[((size_t)_i + k) % (sizeof ends / sizeof ends[0])];
        split(p, text, n, &w);
        strcpy(text + n, end);
        split(p, text, n + strlen(end), &w);
    }
    free(text);
    weft_words_done(&w);
    weft_pretokenizer_close(p);
}
END_TEST

/* ---- the alphabet and the vocabulary ---- */

START_TEST(alphabet)
{
    bool seen[256] = {false};
    char letter[4], byte;
    for (unsigned i = 0; i < 256; i++) {
        small_vocab_letter(i, letter);
        ck_assert_uint_eq(weft_byte_alphabet_decode(letter, strlen(letter), &byte), 1);
        ck_assert_int_eq((uint8_t)byte, i);
        seen[(uint8_t)byte] = true;
    }
    for (unsigned i = 0; i < 256; i++)
        ck_assert(seen[i]);
    /* As published: space, newline, 0x7F, 0xAD. */
    char out[8];
    ck_assert_uint_eq(weft_byte_alphabet_decode("\xC4\xA0\xC4\x8A\xC4\xA1\xC5\x83", 8, out), 4);
    ck_assert_mem_eq(out, " \n\x7F\xAD", 4);
    ck_assert_uint_eq(weft_byte_alphabet_decode("", 0, out), 0);
    static const char *const others[] = {" ",        "\n",           "a b", "\xC2\xAD",
                                         "\xC5\x84", "\xE2\x96\x81", "\xFF"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        ck_assert_uint_eq(weft_byte_alphabet_decode(others[i], strlen(others[i]), out), SIZE_MAX);
}
END_TEST

START_TEST(kinds_of_tokens)
{
    struct small_vocab s;
    struct vocab_file f;
    size_t n;
    small_vocab_init_bpe(&s, "gpt-2");                           /* 256 is <s> */
    small_vocab_add(&s, "th", 0, WEFT_TOKEN_NORMAL);             /* 257 */
    small_vocab_add(&s, "\xC4\xA0th", 0, WEFT_TOKEN_NORMAL);     /* 258 */
    small_vocab_add(&s, "  ", 0, WEFT_TOKEN_USER_DEFINED);       /* 259: as it is */
    small_vocab_add(&s, "<|end|>", 0, WEFT_TOKEN_CONTROL);       /* 260 */
    small_vocab_add(&s, "<tool>", 0, WEFT_TOKEN_USER_DEFINED);   /* 261 */
    small_vocab_add(&s, "<", 0, WEFT_TOKEN_CONTROL);             /* 262: a byte is 27 */
    small_vocab_add(&s, "ab", 0, WEFT_TOKEN_CONTROL);            /* 263 */
    small_vocab_add(&s, "\xE4\xBD\xA0 x", 0, WEFT_TOKEN_NORMAL); /* 264: not in the alphabet */
    small_vocab_add(&s, "<unk>", 0, WEFT_TOKEN_UNKNOWN);         /* 265 */
    small_vocab_add(&s, "hi", 0, WEFT_TOKEN_UNUSED);             /* 266 */
    small_vocab_merge(&s, "t h");
    small_vocab_merge(&s, "\xC4\xA0 th");
    small_vocab_merge(&s, "a b"); /* gives a control token: never */
    small_vocab_merge(&s, "h i"); /* an unused one: never */
    small_vocab_merge(&s, "x y"); /* none at all */
    small_vocab_open(&s, &f);
    EXPECT_IDS(f.t, "th the", 0, 257, 258, 'e');
    EXPECT_IDS(f.t, "a  b", 0, 'a', 259, 'b');
    EXPECT_IDS(f.t, "ab", 0, 'a', 'b');
    EXPECT_IDS(f.t, "ab", WEFT_ENCODE_SPECIAL, 263);
    EXPECT_IDS(f.t, "hixy", 0, 'h', 'i', 'x', 'y');
    EXPECT_IDS(f.t, "<|end|>", 0, '<', '|', 'e', 'n', 'd', '|', '>');
    EXPECT_IDS(f.t, "th<|end|>th", WEFT_ENCODE_SPECIAL, 257, 260, 257);
    EXPECT_IDS(f.t, "th<tool>th", 0, 257, 261, 257);
    EXPECT_IDS(f.t, "\xE4\xBD\xA0 x", 0, 0xE4, 0xBD, 0xA0, ' ', 'x');
    EXPECT_IDS(f.t, "", WEFT_ENCODE_BOS, -1); /* gpt-2 adds none */
    ck_assert(memcmp(weft_tokenizer_piece(f.t, 258, &n), " th", 3) == 0 && n == 3);
    ck_assert(memcmp(weft_tokenizer_text(f.t, 258, &n), "\xC4\xA0th", 4) == 0 && n == 4);
    ck_assert(memcmp(weft_tokenizer_piece(f.t, 264, &n), "\xE4\xBD\xA0 x", 5) == 0 && n == 5);
    ck_assert(weft_tokenizer_piece(f.t, 260, &n) != NULL && n == 0);
    ck_assert(memcmp(weft_tokenizer_piece(f.t, 0xFE, &n), "\xFE", 1) == 0 && n == 1);
    ck_assert(!weft_tokenizer_adds_bos(f.t) && !weft_tokenizer_adds_space(f.t));
    ck_assert_int_eq(weft_tokenizer_kind(f.t), WEFT_TOKENIZER_BPE);
    ck_assert_str_eq(weft_tokenizer_kind_name(WEFT_TOKENIZER_BPE), "byte-level BPE");
    ck_assert_ptr_null(weft_tokenizer_warning(f.t));
    ck_assert(weft_tokenizer_is_stop(f.t, 260) && !weft_tokenizer_is_stop(f.t, 256));
    vocab_file_close(&f);
}
END_TEST

/* Only trusted text becomes a control token; words do not end at the borders of spans. */
START_TEST(spans)
{
    static const char text[] = "<s>th<s>th";
    const struct weft_span trusted[] = {{0, 4}, {6, 4}};
    struct small_vocab s;
    struct vocab_file f;
    int32_t *ids;
    size_t n;
    weft_err err = {0};
    small_vocab_init_bpe(&s, "gpt-2");
    small_vocab_add(&s, "th", 0, WEFT_TOKEN_NORMAL); /* 257 */
    small_vocab_merge(&s, "t h");
    small_vocab_open(&s, &f);
    ck_assert_int_eq(weft_tokenizer_encode_spans(f.t, text, 10, trusted, 2, 0, &ids, &n, &err), 0);
    const int32_t expected[] = {256, 257, '<', 's', '>', 257};
    ck_assert_uint_eq(n, sizeof expected / sizeof expected[0]);
    ck_assert_mem_eq(ids, expected, sizeof expected);
    free(ids);
    vocab_file_close(&f);
}
END_TEST

/* A word that is a token needs no merges, where the pre-tokenizer says so. */
START_TEST(ignore_merges)
{
    for (unsigned i = 0; i < 2; i++) {
        struct small_vocab s;
        struct vocab_file f;
        small_vocab_init_bpe(&s, i == 0 ? "llama-bpe" : "qwen2");
        small_vocab_add(&s, "\xC4\xA0word", 0, WEFT_TOKEN_NORMAL); /* 257 */
        small_vocab_open(&s, &f);
        if (i == 0)
            EXPECT_IDS(f.t, "w word", 0, 'w', 257);
        else
            EXPECT_IDS(f.t, "w word", 0, 'w', ' ', 'w', 'o', 'r', 'd');
        vocab_file_close(&f);
    }
}
END_TEST

/* The key decides, and where it is missing the pre-tokenizer does. */
START_TEST(bos_and_eos)
{
    static const struct {
        const char *pre;
        int add_bos; /* -1: no key */
        bool expected;
    } cases[] = {{"llama-bpe", -1, true}, {"tekken", -1, true}, {"qwen2", -1, false},
                 {"llama-bpe", 0, false}, {"qwen2", 1, true},   {"gpt-2", -1, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct small_vocab s;
        struct gguf_writer w;
        struct vocab_file f;
        weft_err err = {0};
        small_vocab_init_bpe(&s, cases[i].pre);
        small_vocab_write(&s, &w);
        gguf_writer_u32(&w, "tokenizer.ggml.bos_token_id", 256);
        gguf_writer_u32(&w, "tokenizer.ggml.eos_token_id", 256);
        gguf_writer_bool(&w, "tokenizer.ggml.add_eos_token", true);
        gguf_writer_bool(&w, "tokenizer.ggml.add_space_prefix", true); /* not with BPE */
        if (cases[i].add_bos >= 0)
            gguf_writer_bool(&w, "tokenizer.ggml.add_bos_token", cases[i].add_bos != 0);
        ck_assert_msg(vocab_file_from(&w, &f, &err) == 0, "%s", err.text);
        ck_assert(weft_tokenizer_adds_bos(f.t) == cases[i].expected);
        ck_assert(!weft_tokenizer_adds_space(f.t));
        if (cases[i].expected)
            EXPECT_IDS(f.t, "a", WEFT_ENCODE_BOS | WEFT_ENCODE_EOS, 256, 'a', 256);
        else
            EXPECT_IDS(f.t, "a", WEFT_ENCODE_BOS | WEFT_ENCODE_EOS, 'a', 256);
        EXPECT_IDS(f.t, "a", 0, 'a');
        vocab_file_close(&f);
    }
}
END_TEST

START_TEST(warnings)
{
    static const struct {
        const char *pre, *text; /* NULL: no key */
    } cases[] = {
        {"nobody\n's", "tokenizer.ggml.pre: pre-tokenizer 'nobody?'s' is not known; text is cut"},
        {NULL, "key tokenizer.ggml.pre is missing; text is cut by the default rule"},
        {"", "key tokenizer.ggml.pre is missing; text is cut by the default rule"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct small_vocab s;
        struct gguf_writer w;
        struct vocab_file f;
        weft_err err = {0};
        small_vocab_init_bpe(&s, cases[i].pre != NULL ? cases[i].pre : "x");
        small_vocab_write(&s, &w);
        if (cases[i].pre == NULL)
            gguf_writer_remove(&w, "tokenizer.ggml.pre");
        ck_assert_msg(vocab_file_from(&w, &f, &err) == 0, "%s", err.text);
        const char *warning = weft_tokenizer_warning(f.t);
        ck_assert_msg(warning != NULL && strstr(warning, cases[i].text) == warning, "%s", warning);
        EXPECT_IDS(f.t, "a1", 0, 'a', '1');
        vocab_file_close(&f);
    }
}
END_TEST

/* Some vocabularies lack bytes that hardly ever occur. */
START_TEST(missing_byte)
{
    for (unsigned i = 0; i < 3; i++) { /* no unknown token; one; a control token named as one */
        struct small_vocab s;
        struct gguf_writer w;
        struct vocab_file f;
        weft_err err = {0};
        int32_t *ids = NULL;
        size_t n = 0;
        small_vocab_init_bpe(&s, "gpt-2");
        s.texts[3] = "not a byte";
        s.types[256] = i == 1 ? WEFT_TOKEN_UNKNOWN : WEFT_TOKEN_CONTROL;
        small_vocab_write(&s, &w);
        if (i > 0)
            gguf_writer_u32(&w, "tokenizer.ggml.unknown_token_id", 256);
        ck_assert_msg(vocab_file_from(&w, &f, &err) == 0, "%s", err.text);
        if (i == 1) {
            EXPECT_IDS(f.t, "a\x03z", 0, 'a', 256, 'z');
        } else {
            ck_assert_int_eq(weft_tokenizer_encode(f.t, "a\x03z", 3, 0, &ids, &n, &err),
                             -WEFT_EUSAGE);
            ck_assert_str_eq(err.text, "text: byte 0x03 has no token in this vocabulary; leave its "
                                       "character out");
            ck_assert_ptr_null(ids);
        }
        vocab_file_close(&f);
    }
}
END_TEST

/* Phi-3's special tokens take the blanks behind them along, and a mask those before it. */
START_TEST(strips)
{
    struct small_vocab s;
    struct gguf_writer w;
    struct vocab_file f;
    weft_err err = {0};
    small_vocab_init_bpe(&s, "gpt-2");
    small_vocab_add(&s, "<|user|>", 0, WEFT_TOKEN_CONTROL); /* 257 */
    small_vocab_add(&s, "<i>", 0, WEFT_TOKEN_USER_DEFINED); /* 258 */
    small_vocab_write(&s, &w);
    gguf_writer_str(&w, "general.name", "My PHI-3 mini");
    ck_assert_msg(vocab_file_from(&w, &f, &err) == 0, "%s", err.text);
    EXPECT_IDS(f.t, "<|user|> \n\t a <|user|>", WEFT_ENCODE_SPECIAL, 257, 'a', ' ', 257);
    EXPECT_IDS(f.t, "<|user|>\n", WEFT_ENCODE_SPECIAL, 257);
    EXPECT_IDS(f.t, "<|user|>\xC2\xA0", WEFT_ENCODE_SPECIAL, 257, 0xC2, 0xA0);
    EXPECT_IDS(f.t, "<s> a", WEFT_ENCODE_SPECIAL, 256, ' ', 'a');
    EXPECT_IDS(f.t, "<i> a", 0, 258, 'a');
    vocab_file_close(&f);

    small_vocab_init_bpe(&s, "jina-v2-de");
    small_vocab_add(&s, "<mask>", 0, WEFT_TOKEN_CONTROL); /* 257 */
    small_vocab_open(&s, &f);
    EXPECT_IDS(f.t, " a \n<mask> b", WEFT_ENCODE_SPECIAL, ' ', 'a', 257, ' ', 'b');
    EXPECT_IDS(f.t, " <mask>", WEFT_ENCODE_SPECIAL, 257);
    EXPECT_IDS(f.t, "a <s>", WEFT_ENCODE_SPECIAL, 'a', ' ', 256);
    vocab_file_close(&f);
}
END_TEST

/* <|end|> ends an answer, unless it closes one message of several. */
START_TEST(stops)
{
    struct small_vocab s;
    struct vocab_file f;
    size_t n;
    small_vocab_init_bpe(&s, "gpt-4o");
    small_vocab_add(&s, "<|end|>", 0, WEFT_TOKEN_CONTROL);           /* 257 */
    small_vocab_add(&s, "<|im_end|>", 0, WEFT_TOKEN_USER_DEFINED);   /* 258: a control token */
    small_vocab_add(&s, "<|file_sep|>", 0, WEFT_TOKEN_USER_DEFINED); /* 259 */
    small_vocab_open(&s, &f);
    const int32_t *ids = weft_tokenizer_stops(f.t, &n);
    ck_assert(n == 3 && ids[0] == 257 && ids[1] == 258 && ids[2] == 259);
    ck_assert(weft_tokenizer_is_control(f.t, 258));
    vocab_file_close(&f);
    small_vocab_add(&s, "<|return|>", 0, WEFT_TOKEN_CONTROL); /* 260 */
    small_vocab_add(&s, "<|call|>", 0, WEFT_TOKEN_CONTROL);   /* 261 */
    small_vocab_open(&s, &f);
    ids = weft_tokenizer_stops(f.t, &n);
    ck_assert(n == 4 && ids[0] == 258 && ids[2] == 260 && ids[3] == 261);
    vocab_file_close(&f);
}
END_TEST

/* ---- malformed vocabularies ---- */

enum fault {
    NO_MERGES,
    MERGES_NUMBER,
    MERGES_NUMBERS,
    MERGE_WITHOUT_SPACE,
    MERGE_EMPTY,
    MERGE_LONG,
    PRE_NUMBER,
    PRE_UNSUPPORTED,
    NO_TYPES,
    UNKNOWN_RANGE,
    MODEL_BERT,
    FAULT_COUNT
};

static const struct {
    int code;
    const char *text; /* the start of the error */
} faults[FAULT_COUNT] = {
    [NO_MERGES] = {WEFT_EMODEL, "key tokenizer.ggml.merges is missing"},
    [MERGES_NUMBER] = {WEFT_EMODEL,
                       "tokenizer.ggml.merges: found u32, expected an array of strings"},
    [MERGES_NUMBERS] = {WEFT_EMODEL, "tokenizer.ggml.merges: found an array of another type"},
    [MERGE_WITHOUT_SPACE] = {WEFT_EMODEL, "tokenizer.ggml.merges[1]: found 2 bytes, expected two"},
    [MERGE_EMPTY] = {WEFT_EMODEL, "tokenizer.ggml.merges[1]: found 0 bytes, expected two"},
    [MERGE_LONG] = {WEFT_EMODEL, "tokenizer.ggml.merges[1]: found 2050 bytes, expected two"},
    [PRE_NUMBER] = {WEFT_EMODEL, "key tokenizer.ggml.pre: found a u32"},
    [PRE_UNSUPPORTED] = {WEFT_EUNSUPPORTED, "tokenizer.ggml.pre: found 'gemma4', whose tokens"},
    [NO_TYPES] = {WEFT_EMODEL, "key tokenizer.ggml.token_type is missing"},
    [UNKNOWN_RANGE] = {WEFT_EMODEL, "tokenizer.ggml.unknown_token_id: found 257"},
    [MODEL_BERT] = {WEFT_EUNSUPPORTED, "tokenizer.ggml.model: found 'bert', expected 'llama' "
                                       "(SentencePiece) or 'gpt2' (byte-level BPE)"},
};

START_TEST(malformed)
{
    static char long_merge[2051];
    struct small_vocab s;
    struct gguf_writer w;
    struct vocab_file f;
    weft_err err = {0};
    const enum fault fault = (enum fault)_i;
    memset(long_merge, 'x', 2050);
    long_merge[1000] = ' ';
    small_vocab_init_bpe(&s, fault == PRE_UNSUPPORTED ? "gemma4" : "gpt-2");
    small_vocab_merge(&s, "a b");
    if (fault == MERGE_WITHOUT_SPACE || fault == MERGE_EMPTY || fault == MERGE_LONG)
        small_vocab_merge(&s, fault == MERGE_LONG ? long_merge : fault == MERGE_EMPTY ? "" : " b");
    small_vocab_write(&s, &w);
    if (fault == NO_MERGES)
        gguf_writer_remove(&w, "tokenizer.ggml.merges");
    if (fault == MERGES_NUMBER)
        gguf_writer_u32(&w, "tokenizer.ggml.merges", 1);
    if (fault == MERGES_NUMBERS)
        gguf_writer_array(&w, "tokenizer.ggml.merges", WEFT_GGUF_I32, 4, s.types, 16);
    if (fault == PRE_NUMBER)
        gguf_writer_u32(&w, "tokenizer.ggml.pre", 1);
    if (fault == NO_TYPES)
        gguf_writer_remove(&w, "tokenizer.ggml.token_type");
    if (fault == UNKNOWN_RANGE)
        gguf_writer_u32(&w, "tokenizer.ggml.unknown_token_id", 257);
    if (fault == MODEL_BERT)
        gguf_writer_str(&w, "tokenizer.ggml.model", "bert");
    ck_assert_int_eq(vocab_file_from(&w, &f, &err), -faults[fault].code);
    ck_assert_msg(strstr(err.text, faults[fault].text) == err.text, "%s", err.text);
    ck_assert_ptr_null(f.t);
    vocab_file_close(&f);
}
END_TEST

/* ---- the algorithm ---- */

/* a, between and b, which fit. */
static void concatenate(char *out, const char *a, const char *between, const char *b)
{
    strcpy(out, a);
    strcat(out, between);
    strcat(out, b);
}

/* A merge by its parts. */
struct rule {
    int32_t left, right, id;
};

/* The definition: of all neighbours that a merge names, those of the first merge are joined, the
 * leftmost first, until there are none. Quadratic. */
static size_t join_by_definition(const struct rule *merges, size_t n_merges, int32_t *ids, size_t n)
{
    for (;;) {
        size_t best = SIZE_MAX, rank = n_merges;
        for (size_t i = 0; i + 1 < n; i++) {
            for (size_t k = 0; k < rank; k++) {
                if (merges[k].left == ids[i] && merges[k].right == ids[i + 1]) {
                    best = i;
                    rank = k;
                }
            }
        }
        if (best == SIZE_MAX)
            return n;
        ids[best] = merges[rank].id;
        memmove(&ids[best + 1], &ids[best + 2], (n - best - 2) * sizeof ids[0]);
        n--;
    }
}

#define N_RANDOM_MERGES 60

struct random_vocab {
    struct small_vocab small;
    struct rule merges[N_RANDOM_MERGES];
    size_t n_merges;
    char texts[N_RANDOM_MERGES][64], lines[N_RANDOM_MERGES][72];
};

/* Random merges over three letters, so that many compete, some twice. */
static void random_vocab_init(struct random_vocab *v, uint64_t *random)
{
    struct small_vocab *s = &v->small;
    small_vocab_init_bpe(s, "bloom"); /* letters are one word, however many */
    v->n_merges = 0;
    while (v->n_merges < N_RANDOM_MERGES) {
        const size_t n = v->n_merges, n_parts = 3 + n;
        const size_t a = weft_test_random(random) % n_parts, b = weft_test_random(random) % n_parts;
        const int32_t left = a < 3 ? 'a' + (int32_t)a : v->merges[a - 3].id;
        const int32_t right = b < 3 ? 'a' + (int32_t)b : v->merges[b - 3].id;
        if (strlen(s->texts[left]) + strlen(s->texts[right]) >= sizeof v->texts[0])
            continue;
        concatenate(v->texts[n], s->texts[left], "", s->texts[right]);
        concatenate(v->lines[n], s->texts[left], " ", s->texts[right]);
        int32_t id = -1;
        for (size_t i = 257; i < s->n && id < 0; i++)
            id = strcmp(s->texts[i], v->texts[n]) == 0 ? (int32_t)i : -1;
        if (id < 0) {
            id = (int32_t)s->n;
            small_vocab_add(s, v->texts[n], 0, WEFT_TOKEN_NORMAL);
        }
        small_vocab_merge(s, v->lines[n]);
        v->merges[v->n_merges++] = (struct rule){left, right, id};
    }
}

START_TEST(equals_definition)
{
    uint64_t random = weft_test_seed() + (uint64_t)_i * 7919;
    static struct random_vocab v;
    struct vocab_file f;
    random_vocab_init(&v, &random);
    small_vocab_open(&v.small, &f);
    for (unsigned round = 0; round < 200; round++) {
        char text[128];
        int32_t expected[128], *ids;
        size_t n = weft_test_random(&random) % sizeof text;
        for (size_t i = 0; i < n; i++)
            expected[i] = text[i] = (char)('a' + (char)(weft_test_random(&random) % 3));
        size_t m = vocab_encode(f.t, text, n, 0, &ids);
        const size_t count = join_by_definition(v.merges, v.n_merges, expected, n);
        ck_assert_uint_eq(m, count);
        for (size_t i = 0; i < m; i++)
            ck_assert_msg(ids[i] == expected[i], "'%.*s': id %zu", (int)n, text, i);
        free(ids);
        vocab_expect_round_trip(f.t, text, n);
    }
    vocab_file_close(&f);
}
END_TEST

/* A megabyte without a word's end. The merges double, so the ids are known: as many of the longest
 * token as fit, then one of each that is left. */
START_TEST(megabyte_of_one_letter)
{
    static const char *const letters[] = {"a", "\xC4\xA0", "\xC4\x8A"};
    static const char bytes[] = {'a', ' ', '\n'};
    static char texts[5][64 + 1], lines[5][64 + 2];
    const size_t size = (1u << 20) + 21; /* 32 * 32768 + 16 + 4 + 1 */
    struct small_vocab s;
    struct vocab_file f;
    char *text = malloc(size);
    ck_assert_ptr_nonnull(text);
    memset(text, bytes[_i], size);
    small_vocab_init_bpe(&s, "gpt-2");
    const char *half = letters[_i];
    for (size_t i = 0; i < 5; i++) { /* ids 257..261 are 2, 4, 8, 16, 32 letters */
        concatenate(texts[i], half, "", half);
        concatenate(lines[i], half, " ", half);
        small_vocab_add(&s, texts[i], 0, WEFT_TOKEN_NORMAL);
        small_vocab_merge(&s, lines[i]);
        half = texts[i];
    }
    small_vocab_open(&s, &f);
    int32_t *ids;
    const size_t n = vocab_encode(f.t, text, size, 0, &ids);
    ck_assert_uint_eq(n, (1u << 15) + 3);
    for (size_t i = 0; i < 1u << 15; i++)
        if (ids[i] != 261)
            ck_abort_msg("id %zu is %d", i, ids[i]);
    ck_assert(ids[n - 3] == 260 && ids[n - 2] == 258 && ids[n - 1] == (uint8_t)bytes[_i]);
    free(ids);
    free(text);
    vocab_file_close(&f);
}
END_TEST

/* ---- files made to be slow ---- */

#define N_SLOW 2048u

static char slow_texts[N_SLOW][16], slow_lines[N_SLOW][20];

/* Pairs of bytes, and texts, that begin their look-ups in a small part of the table: what the
 * vocabulary hashes with is no secret. */
static size_t colliding_merges(const struct small_vocab *s)
{
    size_t n = 0;
    for (uint64_t left = 0; left < 256; left++) {
        for (uint64_t right = 0; right < 256 && n < N_SLOW; right++) {
            const uint64_t h = (left << 32 | right) * 0x9E3779B97F4A7C15u;
            if ((h >> 32 & 4095) >= 160)
                continue;
            snprintf(slow_texts[n], sizeof slow_texts[n], "%s%s", s->names[left], s->names[right]);
            snprintf(slow_lines[n++], sizeof slow_lines[0], "%s %s", s->names[left],
                     s->names[right]);
        }
    }
    return n;
}

static size_t colliding_texts(void)
{
    size_t n = 0;
    for (uint32_t i = 0; i < 1u << 20 && n < N_SLOW; i++) {
        uint64_t h = 0xCBF29CE484222325u;
        char *text = slow_texts[n];
        for (unsigned k = 0; k < 5; k++) {
            text[k] = (char)('a' + (i >> 4 * k & 15));
            h = (h ^ (uint8_t)text[k]) * 0x100000001B3u;
        }
        text[5] = '\0';
        n += ((h ^ h >> 32) & 8191) < 128;
    }
    return n;
}

START_TEST(slow_vocabularies)
{
    static const char *tokens[256 + N_SLOW], *lines[N_SLOW];
    static int32_t types[256 + N_SLOW];
    struct small_vocab s;
    struct gguf_writer w;
    struct vocab_file f;
    weft_err err = {0};
    small_vocab_init_bpe(&s, "gpt-2");
    const size_t n = _i == 0 ? colliding_merges(&s) : colliding_texts();
    ck_assert_uint_eq(n, N_SLOW);
    for (size_t i = 0; i < 256 + n; i++) {
        tokens[i] = i < 256 ? s.names[i] : slow_texts[i - 256];
        types[i] = WEFT_TOKEN_NORMAL;
    }
    for (size_t i = 0; i < n; i++)
        lines[i] = slow_lines[i];
    small_vocab_write(&s, &w);
    gguf_writer_strings(&w, "tokenizer.ggml.tokens", tokens, 256 + n);
    gguf_writer_array(&w, "tokenizer.ggml.token_type", WEFT_GGUF_I32, 256 + n, types,
                      4 * (256 + n));
    gguf_writer_strings(&w, "tokenizer.ggml.merges", lines, _i == 0 ? n : 0);
    ck_assert_int_eq(vocab_file_from(&w, &f, &err), -WEFT_EMODEL);
    ck_assert_msg(strstr(err.text, "looking it up passes more than 1024 others") != NULL, "%s",
                  err.text);
    vocab_file_close(&f);
}
END_TEST

/* Each length of special tokens is looked for at each place of a text. */
START_TEST(long_special)
{
    static char text[258];
    for (size_t size = 256; size <= 257; size++) {
        struct small_vocab s;
        struct gguf_writer w;
        struct vocab_file f;
        weft_err err = {0};
        memset(text, 'x', size);
        small_vocab_init_bpe(&s, "gpt-2");
        small_vocab_add(&s, text, 0, WEFT_TOKEN_USER_DEFINED);
        small_vocab_write(&s, &w);
        const int r = vocab_file_from(&w, &f, &err);
        ck_assert_int_eq(r, size == 256 ? 0 : -WEFT_EMODEL);
        if (r < 0)
            ck_assert_str_eq(err.text, "tokenizer.ggml.tokens[257]: a special token of 257 bytes, "
                                       "expected at most 256");
        vocab_file_close(&f);
    }
}
END_TEST

/* ---- there and back ---- */

START_TEST(random_round_trip)
{
    static const char *const published[] = {"gpt-2", "qwen2", "deepseek-llm"};
    uint64_t random = weft_test_seed();
    struct vocab_file f;
    char text[4 * 200], path[128];
    snprintf(path, sizeof path, "../shared/vocab/ggml-vocab-%s.gguf", published[_i]);
    if (!vocab_file_open(&f, path)) {
        weft_test_skip("%s is not there", path);
        return;
    }
    for (unsigned round = 0; round < 500; round++)
        vocab_expect_round_trip(f.t, text, vocab_random_text(&random, text, 200));
    vocab_file_close(&f);
}
END_TEST

START_TEST(qwen2_properties)
{
    struct vocab_file f;
    size_t n;
    if (!vocab_file_open(&f, "../shared/vocab/ggml-vocab-qwen2.gguf")) {
        weft_test_skip("no qwen2 vocabulary");
        return;
    }
    ck_assert_uint_eq(weft_tokenizer_vocab(f.t), 151665);
    ck_assert_int_eq(weft_tokenizer_eos(f.t), 151645);
    ck_assert(!weft_tokenizer_adds_bos(f.t));
    EXPECT_IDS(f.t, "<|im_start|>user\nHi<|im_end|>", WEFT_ENCODE_SPECIAL, 151644, 872, 198, 13048,
               151645);
    EXPECT_IDS(f.t, "<tool_call>", 0, 151657); /* user-defined */
    const int32_t *ids = weft_tokenizer_stops(f.t, &n);
    static const int32_t expected[] = {151643, 151645, 151662, 151663, 151664};
    ck_assert_uint_eq(n, 5);
    ck_assert_mem_eq(ids, expected, sizeof expected);
    vocab_file_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bpe");
    TCase *tc = tcase_create("bpe");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, words_of_every_rule, 0, N_RULES);
    tcase_add_test(tc, words_of_a_rule);
    tcase_add_test(tc, names);
    tcase_add_loop_test(tc, words_are_the_text, 0, N_RULES);
    tcase_add_loop_test(tc, long_runs, 0, N_RULES);
    tcase_add_test(tc, alphabet);
    tcase_add_test(tc, kinds_of_tokens);
    tcase_add_test(tc, spans);
    tcase_add_test(tc, ignore_merges);
    tcase_add_test(tc, bos_and_eos);
    tcase_add_test(tc, warnings);
    tcase_add_test(tc, missing_byte);
    tcase_add_test(tc, strips);
    tcase_add_test(tc, stops);
    tcase_add_loop_test(tc, malformed, 0, FAULT_COUNT);
    tcase_add_loop_test(tc, slow_vocabularies, 0, 2);
    tcase_add_test(tc, long_special);
    tcase_add_loop_test(tc, equals_definition, 0, 8);
    tcase_add_loop_test(tc, megabyte_of_one_letter, 0, 3);
    tcase_add_loop_test(tc, random_round_trip, 0, 3);
    tcase_add_test(tc, qwen2_properties);
    suite_add_tcase(suite, tc);
    return weft_test_main(suite);
}
