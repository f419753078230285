/*
 * The tokenizer.* keys of a made-up model: another file's, cut or filled to a number of tokens, or
 * a byte-fallback vocabulary of our own.
 */
#ifndef WEFT_TESTS_MODEL_VOCAB_H
#define WEFT_TESTS_MODEL_VOCAB_H

#include "base/err.h"
#include "base/gguf.h"
#include "tests/gguf_writer.h"

/* Fewest tokens that a vocabulary can be made of or cut to: bytes, letters, special ones. */
#define MODEL_VOCAB_MIN 512u

/* Copies every tokenizer.* key of g. n tokens (0: as many as there are): too few are filled up with
 * "<unused0>" and so on; of too many the last are left out, but those that have an id of their own
 * (tokenizer.ggml.eos_token_id …) move into the last places. -WEFT_EMODEL naming the key. */
int model_vocab_copy(struct gguf_writer *w, const struct weft_gguf *g, uint32_t n,
                     weft_err *err) WEFT_MUST_USE;
/* A SentencePiece vocabulary of n tokens: <unk>, <s>, </s>, the bytes, the space mark, printable
 * ASCII and "<unused0>" and so on, as far as n goes (at least 260; all of ASCII from
 * MODEL_VOCAB_MIN on). */
void model_vocab_make(struct gguf_writer *w, uint32_t n);

#endif
