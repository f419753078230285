/*
 * Vocabularies for tests, see vocab_fixture.h.
 */
#include "tests/vocab_fixture.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/detok.h"
#include "tests/harness.h"

bool vocab_file_open(struct vocab_file *f, const char *path)
{
    size_t size;
    weft_err err = {0};
    *f = (struct vocab_file){.data = weft_test_read(path, &size)};
    if (f->data == NULL)
        return false;
    ck_assert_msg(weft_gguf_open(f->data, size, &f->gguf, &err) == 0, "%s", err.text);
    ck_assert_msg(weft_tokenizer_open(&f->gguf, &f->t, &err) == 0, "%s", err.text);
    return true;
}

void vocab_file_close(struct vocab_file *f)
{
    weft_tokenizer_close(f->t);
    weft_gguf_done(&f->gguf);
    free(f->data);
}

size_t vocab_encode(const struct weft_tokenizer *t, const char *text, size_t n, unsigned flags,
                    int32_t **ret)
{
    size_t n_ids;
    weft_err err = {0};
    int r = weft_tokenizer_encode(t, text, n, flags, ret, &n_ids, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    return n_ids;
}

void vocab_expect_ids(const struct weft_tokenizer *t, const char *text, unsigned flags,
                      const int32_t *expected)
{
    int32_t *ids;
    size_t n = vocab_encode(t, text, strlen(text), flags, &ids), i = 0;
    for (; i < n && expected[i] >= 0; i++)
        ck_assert_msg(ids[i] == expected[i], "'%s': id %zu is %d, expected %d", text, i, ids[i],
                      expected[i]);
    ck_assert_msg(i == n && expected[i] < 0, "'%s': %zu ids", text, n);
    free(ids);
}

void vocab_decode(const struct weft_tokenizer *t, const int32_t *ids, size_t n,
                  struct weft_str *out)
{
    struct weft_detok d;
    weft_err err = {0};
    weft_detok_init(&d, t, WEFT_DETOK_START);
    for (size_t i = 0; i < n; i++) {
        ck_assert_msg(weft_detok_push(&d, ids[i], out, &err) == 0, "%s", err.text);
        ck_assert(weft_utf8_valid(out->data, out->size, NULL));
    }
    weft_detok_finish(&d, out);
    ck_assert(!out->failed);
}

void vocab_expect_round_trip(const struct weft_tokenizer *t, const char *text, size_t n)
{
    int32_t *ids;
    struct weft_str out = {0};
    size_t n_ids = vocab_encode(t, text, n, 0, &ids);
    vocab_decode(t, ids, n_ids, &out);
    ck_assert_msg(out.size == n && (n == 0 || memcmp(out.data, text, n) == 0),
                  "'%.*s' came back as '%.*s'", (int)n, text, (int)out.size, out.data);
    weft_str_done(&out);
    free(ids);
}

void small_vocab_add(struct small_vocab *s, const char *text, float score,
                     enum weft_token_type type)
{
    assert(s->n < SMALL_VOCAB_MAX); /* not Check's: the fuzzer has no test around it */
    s->texts[s->n] = text;
    s->scores[s->n] = score;
    s->types[s->n++] = type;
}

void small_vocab_init(struct small_vocab *s, bool bytes)
{
    *s = (struct small_vocab){0};
    small_vocab_add(s, "<unk>", 0, WEFT_TOKEN_UNKNOWN);
    small_vocab_add(s, "<s>", 0, WEFT_TOKEN_CONTROL);
    small_vocab_add(s, "</s>", 0, WEFT_TOKEN_CONTROL);
    for (unsigned i = 0; i < 256 && bytes; i++) {
        snprintf(s->names[i], sizeof s->names[i], "<0x%02X>", i);
        small_vocab_add(s, s->names[i], 0, WEFT_TOKEN_BYTE);
    }
}

void small_vocab_letter(unsigned byte, char out[4])
{
    const bool itself = (byte > ' ' && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    unsigned code = byte, before = 0; /* bytes before it that are not their own letter */
    for (unsigned i = 0; i < byte; i++)
        before += !((i > ' ' && i < 0x7F) || (i > 0xA0 && i != 0xAD));
    if (!itself)
        code = 0x100 + before;
    if (code < 0x80)
        snprintf(out, 4, "%c", (int)code);
    else
        snprintf(out, 4, "%c%c", (int)(0xC0 | code >> 6), (int)(0x80 | (code & 0x3F)));
}

void small_vocab_init_bpe(struct small_vocab *s, const char *pre)
{
    *s = (struct small_vocab){.pre = pre};
    for (unsigned i = 0; i < 256; i++) {
        small_vocab_letter(i, s->names[i]);
        small_vocab_add(s, s->names[i], 0, WEFT_TOKEN_NORMAL);
    }
    small_vocab_add(s, "<s>", 0, WEFT_TOKEN_CONTROL);
}

void small_vocab_merge(struct small_vocab *s, const char *merge)
{
    assert(s->n_merges < SMALL_VOCAB_MAX);
    s->merges[s->n_merges++] = merge;
}

void small_vocab_write(const struct small_vocab *s, struct gguf_writer *w)
{
    gguf_writer_init(w);
    gguf_writer_str(w, "tokenizer.ggml.model", s->pre != NULL ? "gpt2" : "llama");
    gguf_writer_strings(w, "tokenizer.ggml.tokens", s->texts, s->n);
    gguf_writer_array(w, "tokenizer.ggml.token_type", WEFT_GGUF_I32, s->n, s->types, 4 * s->n);
    if (s->pre != NULL) {
        gguf_writer_str(w, "tokenizer.ggml.pre", s->pre);
        gguf_writer_strings(w, "tokenizer.ggml.merges", s->merges, s->n_merges);
        return;
    }
    gguf_writer_array(w, "tokenizer.ggml.scores", WEFT_GGUF_F32, s->n, s->scores, 4 * s->n);
    gguf_writer_bool(w, "tokenizer.ggml.add_space_prefix", false);
}

int vocab_file_from(struct gguf_writer *w, struct vocab_file *f, weft_err *err)
{
    size_t size;
    *f = (struct vocab_file){.data = gguf_writer_finish(w, &size)};
    gguf_writer_done(w);
    weft_err unexpected = {0};
    ck_assert_msg(weft_gguf_open(f->data, size, &f->gguf, &unexpected) == 0, "%s", unexpected.text);
    return weft_tokenizer_open(&f->gguf, &f->t, err);
}

void small_vocab_open(const struct small_vocab *s, struct vocab_file *f)
{
    struct gguf_writer w;
    weft_err err = {0};
    small_vocab_write(s, &w);
    ck_assert_msg(vocab_file_from(&w, f, &err) == 0, "%s", err.text);
}

/* Any valid character but U+2581, which is read as a space. */
static size_t random_char(uint64_t *random, char *out)
{
    static const uint32_t below[] = {0x80, 0x80, 0x80, 0x800, 0xD800, 0x110000};
    uint32_t code = (uint32_t)(weft_test_random(random) % below[weft_test_random(random) % 6]);
    if (weft_test_random(random) % 4 == 0)
        code = ' ';
    if ((code >= 0xD800 && code < 0xE000) || code == 0x2581)
        code = 'x';
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((0xF00 >> n & 0xF0) | code);
    return n;
}

size_t vocab_random_text(uint64_t *random, char *out, size_t max_chars)
{
    size_t n = 0;
    for (size_t i = weft_test_random(random) % (max_chars + 1); i > 0; i--)
        n += random_char(random, out + n);
    return n;
}
