/*
 * Fuzzer of tokenizing with a fixed vocabulary: byte 0 of the input chooses flags, byte 1 the span
 * in which control tokens are read, the rest is the text; then its bytes are token ids. Ids must be
 * in the vocabulary, text must come back as it was, and any ids must give valid UTF-8.
 */
#include <string.h>

#include "base/text.h"
#include "coordinator/detok.h"
#include "coordinator/tokenizer.h"
#include "coordinator/vocab.h"
#include "tests/fuzz.h"
#include "tests/gguf_writer.h"

#define HEAD 2u /* bytes before the text */

/* Behind <unk>, <s>, </s> and the 256 bytes. Joins that overlap, marks of spaces in front, and
 * control and user-defined tokens that are prefixes of each other. */
static const struct {
    const char *text;
    float score;
    int32_t type;
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
#define N_PIECES (sizeof pieces / sizeof pieces[0])
#define N_TOKENS (3 + 256 + N_PIECES)

static struct weft_tokenizer *vocabulary(void)
{
    static char bytes[256][8];
    const char *texts[N_TOKENS] = {"<unk>", "<s>", "</s>"};
    float scores[N_TOKENS] = {0};
    int32_t types[N_TOKENS] = {WEFT_TOKEN_UNKNOWN, WEFT_TOKEN_CONTROL, WEFT_TOKEN_CONTROL};
    for (unsigned i = 0; i < 256; i++) {
        snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", i);
        texts[3 + i] = bytes[i];
        types[3 + i] = WEFT_TOKEN_BYTE;
    }
    for (size_t i = 0; i < N_PIECES; i++) {
        texts[3 + 256 + i] = pieces[i].text;
        scores[3 + 256 + i] = pieces[i].score;
        types[3 + 256 + i] = pieces[i].type;
    }
    struct gguf_writer w;
    gguf_writer_init(&w);
    gguf_writer_str(&w, "tokenizer.ggml.model", "llama");
    gguf_writer_strings(&w, "tokenizer.ggml.tokens", texts, N_TOKENS);
    gguf_writer_array(&w, "tokenizer.ggml.scores", WEFT_GGUF_F32, N_TOKENS, scores, sizeof scores);
    gguf_writer_array(&w, "tokenizer.ggml.token_type", WEFT_GGUF_I32, N_TOKENS, types,
                      sizeof types);
    gguf_writer_u32(&w, "tokenizer.ggml.unknown_token_id", 0);
    gguf_writer_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    gguf_writer_u32(&w, "tokenizer.ggml.eos_token_id", 2);
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

/* Without control tokens the ids stand for the text, U+2581 being a space. */
static void expect_text(const struct weft_tokenizer *t, const int32_t *ids, size_t n_ids,
                        const char *text, size_t n)
{
    struct weft_str out = {0};
    decode(t, ids, n_ids, &out);
    size_t at = 0;
    for (size_t i = 0; i < n; at++) {
        const bool mark = n - i >= WEFT_SPACE_MARK_SIZE &&
                          memcmp(text + i, WEFT_SPACE_MARK, WEFT_SPACE_MARK_SIZE) == 0;
        FUZZ_EXPECT(at < out.size && out.data[at] == (mark ? ' ' : text[i]));
        i += mark ? WEFT_SPACE_MARK_SIZE : 1;
    }
    FUZZ_EXPECT(at == out.size);
    weft_str_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct weft_tokenizer *t; /* lives as long as the program */
    if (t == NULL)
        t = vocabulary();
    if (size < HEAD)
        return 0;
    const unsigned flags = data[0] % 8u;
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
        ids[i] = (int32_t)((data[HEAD + i] + (data[0] >= 128 ? 19u : 0)) % N_TOKENS);
    struct weft_str out = {0};
    decode(t, ids, n, &out);
    weft_str_done(&out);
    free(ids);
    return 0;
}
