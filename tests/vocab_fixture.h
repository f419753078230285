/*
 * Vocabularies for tests of the tokenizer: published ones by their path, small ones made on the
 * spot, and what every such test asks of them. Failures fail the running test.
 */
#ifndef WEFT_TESTS_VOCAB_FIXTURE_H
#define WEFT_TESTS_VOCAB_FIXTURE_H

#include "base/gguf.h"
#include "base/text.h"
#include "coordinator/tokenizer.h"
#include "coordinator/vocab.h"
#include "tests/gguf_writer.h"

struct vocab_file {
    uint8_t *data;
    struct weft_gguf gguf;
    struct weft_tokenizer *t;
};

/* False when the file is not there. */
bool vocab_file_open(struct vocab_file *f, const char *path);
/* The file that w holds, which is done with; returns what weft_tokenizer_open says. */
int vocab_file_from(struct gguf_writer *w, struct vocab_file *f, weft_err *err);
void vocab_file_close(struct vocab_file *f);

/* Gives *ret (free()); returns how many. */
size_t vocab_encode(const struct weft_tokenizer *t, const char *text, size_t n, unsigned flags,
                    int32_t **ret);
/* Asserts the ids of a text; the list ends with -1. */
void vocab_expect_ids(const struct weft_tokenizer *t, const char *text, unsigned flags,
                      const int32_t *expected);
#define EXPECT_IDS(t, text, flags, ...) \
    vocab_expect_ids((t), (text), (flags), (const int32_t[]){__VA_ARGS__, -1})
void vocab_decode(const struct weft_tokenizer *t, const int32_t *ids, size_t n,
                  struct weft_str *out);
void vocab_expect_round_trip(const struct weft_tokenizer *t, const char *text, size_t n);
/* Any valid characters but U+2581, which SentencePiece reads as a space; at most 4 bytes each;
 * returns the bytes written. */
size_t vocab_random_text(uint64_t *random, char *out, size_t max_chars);

#define SMALL_VOCAB_MAX 1024

/* A vocabulary of few tokens. */
struct small_vocab {
    const char *texts[SMALL_VOCAB_MAX];
    float scores[SMALL_VOCAB_MAX];
    int32_t types[SMALL_VOCAB_MAX];
    char names[256][8]; /* of byte tokens */
    size_t n;
    const char *merges[SMALL_VOCAB_MAX]; /* byte-level BPE */
    size_t n_merges;
    const char *pre; /* byte-level BPE; NULL: SentencePiece */
};

void small_vocab_add(struct small_vocab *s, const char *text, float score,
                     enum weft_token_type type);
/* SentencePiece: <unk> 0, <s> 1, </s> 2, then byte tokens 3..258 if asked. */
void small_vocab_init(struct small_vocab *s, bool bytes);
/* Byte-level BPE: tokens 0..255 are the bytes, <s> is 256. */
void small_vocab_init_bpe(struct small_vocab *s, const char *pre);
void small_vocab_merge(struct small_vocab *s, const char *merge);
/* With add_space_prefix false. */
void small_vocab_write(const struct small_vocab *s, struct gguf_writer *w);
void small_vocab_open(const struct small_vocab *s, struct vocab_file *f);
/* GPT-2's character for a byte, 0-terminated. */
void small_vocab_letter(unsigned byte, char out[4]);

#endif
