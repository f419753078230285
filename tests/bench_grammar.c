/*
 * Benchmark: masks of a grammar over a real vocabulary (../shared/vocab, Qwen2: 152 k tokens).
 *
 *     bench_grammar
 *
 * A JSON text is written token by token, as a model would, under the grammar of any JSON and under
 * that of a schema. "new" is the time of a mask at a spot that was not met before (the automaton is
 * built on the way), "again" the same texts a second time (the automaton is there, most masks are
 * not remembered), "same" the mask of the same spot once more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/gguf.h"
#include "base/grammar.h"
#include "coordinator/json_schema.h"
#include "tests/harness.h"
#include "tests/measure.h"

#define VOCABULARY "../shared/vocab/ggml-vocab-qwen2.gguf"

static const char text[] =
    "{\"name\": \"Ada \xC3\xA9 Lovelace, born 1815 in London\", \"age\": 36, \"tags\": [\"first\", "
    "\"\xE6\x95\xB0\xE5\xAD\xA6\"], \"home\": {\"city\": \"London\", \"zip\": null}, \"likes\": "
    "[{\"a\": 1.5e3}, true]}";

static const char schema[] = "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\","
                             "\"maxLength\":100},\"age\":{"
                             "\"type\":\"integer\",\"minimum\":0,\"maximum\":150},\"tags\":{"
                             "\"type\":\"array\",\"items\":{\"type\":"
                             "\"string\"}},\"home\":{\"type\":\"object\",\"properties\":{\"city\":{"
                             "\"type\":\"string\"},\"zip\":{"
                             "\"type\":[\"string\",\"null\"]}}},\"likes\":{\"type\":\"array\"}},"
                             "\"required\":[\"name\",\"age\"]}";

/* Processor time: other processes do not count. */
static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Byte-level tokens are written with a character per byte: the printable ones of Latin-1 for
 * themselves, the others from U+0100 on. */
static int byte_of(uint32_t code)
{
    static const uint32_t gaps[][2] = {{0, 0x20}, {0x7F, 0xA0}, {0xAD, 0xAD}};
    if (code < 0x100)
        return (int)code;
    uint32_t k = code - 0x100;
    for (size_t i = 0; i < 3; i++) {
        const uint32_t n = gaps[i][1] - gaps[i][0] + 1;
        if (k < n)
            return (int)(gaps[i][0] + k);
        k -= n;
    }
    return -1;
}

static struct weft_token_trie *open_vocabulary(char **ret_bytes, struct weft_token_text **ret_texts,
                                               uint32_t *ret_n)
{
    struct weft_gguf g = {0};
    size_t size = 0, used = 0;
    uint8_t *data = weft_test_read(VOCABULARY, &size);
    ck_assert_msg(data != NULL, "%s is missing", VOCABULARY);
    ck_assert_int_eq(weft_gguf_open(data, size, &g, NULL), 0);
    const struct weft_gguf_kv *kv = weft_gguf_kv(&g, "tokenizer.ggml.tokens");
    char *bytes = malloc(kv->size);
    struct weft_token_text *texts = calloc(kv->count, sizeof *texts);
    struct weft_gguf_string s;
    uint64_t pos = 0;
    for (uint64_t i = 0; i < kv->count && weft_gguf_next_string(kv, &pos, &s); i++) {
        texts[i].bytes = bytes + used;
        for (uint64_t k = 0; k < s.size;) {
            uint32_t code = 0;
            k += weft_utf8_decode(s.data + k, s.size - k, &code);
            if (byte_of(code) >= 0)
                bytes[used + texts[i].size++] = (char)byte_of(code);
        }
        used += texts[i].size;
    }
    struct weft_token_trie *t = NULL;
    const uint64_t begin = cpu_ns();
    ck_assert_int_eq(weft_token_trie_open(texts, (uint32_t)kv->count, &t, NULL), 0);
    printf("trie of %u tokens: %.1f ms\n", weft_token_trie_count(t),
           (double)(cpu_ns() - begin) / 1e6);
    *ret_bytes = bytes;
    *ret_texts = texts;
    *ret_n = (uint32_t)kv->count;
    weft_gguf_done(&g);
    free(data);
    return t;
}

/* The longest allowed token that the rest of the text begins with. */
static uint32_t next_token(const struct weft_token_text *texts, uint32_t n, const uint64_t *allowed,
                           const char *rest)
{
    uint32_t best = n;
    const size_t size = strlen(rest);
    for (uint32_t i = 0; i < n; i++)
        if ((allowed[i / 64] >> i % 64 & 1) != 0 && texts[i].size <= size &&
            memcmp(texts[i].bytes, rest, texts[i].size) == 0 &&
            (best == n || texts[i].size > texts[best].size))
            best = i;
    ck_assert_uint_lt(best, n);
    return best;
}

static void report(const char *grammar, const char *what, double *ms, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ms[i];
    const double median = measure_median(ms, n);
    printf("%-8s %-6s %3zu masks: mean %.3f ms, median %.3f, worst %.3f\n", grammar, what, n,
           sum / (double)n, median, ms[n - 1]);
}

static void measure_grammar(const char *name, const char *json_schema,
                            const struct weft_token_trie *t, const struct weft_token_text *texts,
                            uint32_t n)
{
    struct weft_str gbnf = {0};
    struct weft_grammar *g = NULL;
    struct weft_grammar_state *s = NULL;
    double ms[2][sizeof text], same[sizeof text];
    size_t n_masks = 0;
    uint64_t *allowed = calloc((n + 63) / 64, sizeof *allowed);
    ck_assert_int_eq(weft_json_schema_to_gbnf(json_schema, strlen(json_schema), &gbnf, NULL), 0);
    ck_assert_int_eq(weft_grammar_open(gbnf.data, gbnf.size, &g, NULL), 0);
    ck_assert_int_eq(weft_grammar_state_open(g, &s, NULL), 0);
    for (int round = 0; round < 2; round++) {
        n_masks = 0;
        weft_grammar_reset(s);
        for (size_t at = 0; at < sizeof text - 1; n_masks++) {
            const uint64_t begin = cpu_ns();
            ck_assert_int_eq(weft_grammar_mask(s, t, allowed, NULL), 0);
            const uint64_t middle = cpu_ns();
            ck_assert_int_eq(weft_grammar_mask(s, t, allowed, NULL), 0);
            same[n_masks] = (double)(cpu_ns() - middle) / 1e6;
            ms[round][n_masks] = (double)(middle - begin) / 1e6;
            const uint32_t token = next_token(texts, n, allowed, text + at);
            ck_assert_int_eq(weft_grammar_accept(s, texts[token].bytes, texts[token].size, NULL),
                             0);
            at += texts[token].size;
        }
        ck_assert(weft_grammar_may_end(s));
    }
    report(name, "new", ms[0], n_masks);
    report(name, "again", ms[1], n_masks);
    report(name, "same", same, n_masks);
    free(allowed);
    weft_str_done(&gbnf);
    weft_grammar_state_close(s);
    weft_grammar_close(g);
}

static void body(void)
{
    char *bytes = NULL;
    struct weft_token_text *texts = NULL;
    uint32_t n = 0;
    if (weft_test_path(VOCABULARY) == NULL) {
        printf("%s is not there: nothing to measure\n", VOCABULARY);
        return;
    }
    struct weft_token_trie *t = open_vocabulary(&bytes, &texts, &n);
    measure_grammar("json", "{}", t, texts, n);
    measure_grammar("schema", schema, t, texts, n);
    weft_token_trie_close(t);
    free(texts);
    free(bytes);
}

int main(void)
{
    return weft_test_program(body);
}
