/*
 * Fuzzer of tokenizing: byte 0 of the input chooses flags and kind, byte 1 the span in which
 * control tokens are read, byte 2 the pre-tokenizer, the rest is the text; then its bytes are token
 * ids. Ids must be in the vocabulary, control tokens must not come out of text, text must come back
 * as it was, and any ids must give valid UTF-8.
 */
#include <string.h>

#include "base/text.h"
#include "coordinator/detok.h"
#include "coordinator/pretokenizer.h"
#include "coordinator/tokenizer.h"
#include "coordinator/vocab.h"
#include "tests/fuzz.h"
#include "tests/vocab_fixture.h"

#define HEAD 3u   /* bytes before the text */
#define IS_BPE 8u /* bit of byte 0; below it are the flags */

/* Behind <unk>, <s>, </s> and the 256 bytes. Joins that overlap, marks of spaces in front, and
 * control and user-defined tokens that are prefixes of each other. */
static const struct {
    const char *text;
    float score;
    enum weft_token_type type;
} pieces[] = {
    {WEFT_SPACE_MARK, -1, WEFT_TOKEN_NORMAL},
    {"t", -2, WEFT_TOKEN_NORMAL},
    {"h", -2, WEFT_TOKEN_NORMAL},
    {"e", -2, WEFT_TOKEN_NORMAL},
    {"th", -0.5f, WEFT_TOKEN_NORMAL},
    {"he", -0.5f, WEFT_TOKEN_NORMAL},
    {"the", -0.25f, WEFT_TOKEN_NORMAL},
    {WEFT_SPACE_MARK "t", -0.75f, WEFT_TOKEN_NORMAL},
    {WEFT_SPACE_MARK "the", -0.125f, WEFT_TOKEN_NORMAL},
    {WEFT_SPACE_MARK WEFT_SPACE_MARK, -0.5f, WEFT_TOKEN_NORMAL},
    {"\xC3\xA9", -1, WEFT_TOKEN_NORMAL},
    {"e\xC3\xA9", -0.5f, WEFT_TOKEN_NORMAL},
    {"<|end|>", 0, WEFT_TOKEN_CONTROL},
    {"<|end|><s>", 0, WEFT_TOKEN_CONTROL},
    {"<|", 0, WEFT_TOKEN_USER_DEFINED},
    {"<|user|>", 0, WEFT_TOKEN_USER_DEFINED},
};

/* The same for byte-level BPE, whose space is U+0120. A merge also names a control token. */
static const struct {
    const char *text;
    enum weft_token_type type;
    const char *merge; /* NULL: none */
} joined[] = {
    {"th", WEFT_TOKEN_NORMAL, "t h"},
    {"he", WEFT_TOKEN_NORMAL, "h e"},
    {"the", WEFT_TOKEN_NORMAL, "th e"},
    {"\xC4\xA0t", WEFT_TOKEN_NORMAL, "\xC4\xA0 t"},
    {"\xC4\xA0the", WEFT_TOKEN_NORMAL, "\xC4\xA0 the"},
    {"\xC4\xA0\xC4\xA0", WEFT_TOKEN_NORMAL, "\xC4\xA0 \xC4\xA0"},
    {"\xC3\x83\xC2\xA9", WEFT_TOKEN_NORMAL, "\xC3\x83 \xC2\xA9"},
    {"12", WEFT_TOKEN_NORMAL, "1 2"},
    {"\xC4\xA0word", WEFT_TOKEN_NORMAL, NULL},
    {"s>", WEFT_TOKEN_CONTROL, "s >"},
    {"<|end|>", WEFT_TOKEN_CONTROL, NULL},
    {"<|end|><s>", WEFT_TOKEN_CONTROL, NULL},
    {"<|", WEFT_TOKEN_USER_DEFINED, NULL},
    {"  ", WEFT_TOKEN_USER_DEFINED, NULL},
};

/* One name of each rule; the last is not known. */
static const char *const rules[] = {
    "default",    "gpt-2",    "starcoder",    "falcon",         "llama-bpe",  "qwen2",
    "qwen35",     "gpt-4o",   "tekken",       "deepseek-v3",    "bloom",      "viking",
    "chameleon",  "superbpe", "deepseek-llm", "deepseek-coder", "bailingmoe", "afmoe",
    "seed-coder", "kimi-k2",  "tiny_aya",     "youtu",          "exaone-moe", "jais-2",
    "laguna",     "minicpm5", "nobody's"};
#define N_RULES (sizeof rules / sizeof rules[0])

static struct weft_tokenizer *open_small(const struct small_vocab *s, bool prefix)
{
    struct gguf_writer w;
    small_vocab_write(s, &w);
    if (prefix)
        gguf_writer_remove(&w, "tokenizer.ggml.add_space_prefix");
    size_t size;
    uint8_t *file = gguf_writer_finish(&w, &size);
    struct weft_gguf g;
    struct weft_tokenizer *t = NULL;
    weft_err err = {0};
    FUZZ_EXPECT(weft_gguf_open(file, size, &g, &err) == 0);
    FUZZ_EXPECT(weft_tokenizer_open(&g, &t, &err) == 0);
    weft_gguf_done(&g);
    gguf_writer_done(&w);
    free(file);
    return t;
}

/* They live as long as the program. */
static struct weft_tokenizer *vocabulary(bool bpe, size_t rule)
{
    static struct weft_tokenizer *spm, *bpes[N_RULES];
    static struct small_vocab s; /* too large for a stack */
    struct weft_tokenizer **t = bpe ? &bpes[rule] : &spm;
    if (*t != NULL)
        return *t;
    if (bpe)
        small_vocab_init_bpe(&s, rules[rule]);
    else
        small_vocab_init(&s, true);
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0] && !bpe; i++)
        small_vocab_add(&s, pieces[i].text, pieces[i].score, pieces[i].type);
    for (size_t i = 0; i < sizeof joined / sizeof joined[0] && bpe; i++) {
        small_vocab_add(&s, joined[i].text, 0, joined[i].type);
        if (joined[i].merge != NULL)
            small_vocab_merge(&s, joined[i].merge);
    }
    return *t = open_small(&s, !bpe);
}

static void decode(const struct weft_tokenizer *t, const int32_t *ids, size_t n,
                   struct weft_str *out)
{
    struct weft_detok d;
    weft_err err = {0};
    weft_detok_init(&d, t, WEFT_DETOK_START);
    for (size_t i = 0; i < n; i++)
        FUZZ_EXPECT(weft_detok_push(&d, ids[i], out, &err) == 0);
    weft_detok_finish(&d, out);
    FUZZ_EXPECT(!out->failed && weft_utf8_valid(out->data, out->size, NULL));
}

/* Out of text come no control tokens; the ids stand for the text, with SentencePiece U+2581 being a
 * space. */
static void expect_text(const struct weft_tokenizer *t, const int32_t *ids, size_t n_ids,
                        const char *text, size_t n)
{
    const bool spm = weft_tokenizer_kind(t) == WEFT_TOKENIZER_SPM;
    struct weft_str out = {0};
    for (size_t i = 0; i < n_ids; i++)
        FUZZ_EXPECT(!weft_tokenizer_is_control(t, ids[i]));
    decode(t, ids, n_ids, &out);
    size_t at = 0;
    for (size_t i = 0; i < n; at++) {
        const bool mark = spm && n - i >= WEFT_SPACE_MARK_SIZE &&
                          memcmp(text + i, WEFT_SPACE_MARK, WEFT_SPACE_MARK_SIZE) == 0;
        FUZZ_EXPECT(at < out.size && out.data[at] == (mark ? ' ' : text[i]));
        i += mark ? WEFT_SPACE_MARK_SIZE : 1;
    }
    FUZZ_EXPECT(at == out.size);
    weft_str_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    const struct weft_tokenizer *t = vocabulary((data[0] & IS_BPE) != 0, data[2] % N_RULES);
    const unsigned flags = data[0] % IS_BPE;
    const char *text = (const char *)data + HEAD;
    const size_t n = size - HEAD;
    const struct weft_span span = {.start = data[1] < n ? data[1] : n,
                                   .size = data[1] < n ? (n - data[1]) / 2 : 0};
    int32_t *ids = NULL;
    size_t n_ids = 0;
    weft_err err = {0};
    int r = weft_tokenizer_encode_spans(t, text, n, &span, 1, flags, &ids, &n_ids, &err);
    FUZZ_EXPECT(r == -err.code && (r == 0) == weft_utf8_valid(text, n, NULL));
    for (size_t i = 0; i < n_ids; i++)
        FUZZ_EXPECT(ids[i] >= 0 && (uint32_t)ids[i] < weft_tokenizer_vocab(t));
    free(ids);
    if (r == 0) {
        FUZZ_EXPECT(weft_tokenizer_encode(t, text, n, 0, &ids, &n_ids, &err) == 0);
        expect_text(t, ids, n_ids, text, n);
        free(ids);
    }
    ids = malloc((n + 1) * sizeof *ids);
    FUZZ_EXPECT(ids != NULL);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((data[HEAD + i] + (data[0] >= 128 ? 19u : 0)) % weft_tokenizer_vocab(t));
    struct weft_str out = {0};
    decode(t, ids, n, &out);
    weft_str_done(&out);
    free(ids);
    return 0;
}
