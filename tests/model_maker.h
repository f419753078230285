/*
 * Synthetic models: GGUF files of any shape, architecture and type with random weights, so that
 * speed can be measured on shapes whose weights nobody has here. Metadata and tensors are named and
 * typed as converters and quantisers write them: other engines open the files too.
 */
#ifndef WEFT_TESTS_MODEL_MAKER_H
#define WEFT_TESTS_MODEL_MAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct model_shape {
    const char *name; /* "1.1b" */
    const char *arch; /* "llama" */
    uint32_t dim, layers, heads, kv_heads, head_dim, ffn, vocab, context;
    uint32_t experts, experts_used; /* 0: dense; ffn is that of one expert */
    float rope_base;
    bool tied, rope_freqs;
};

/* Shapes people know, by index; NULL behind the last. */
const struct model_shape *model_shape_at(uint32_t i);
/* Names of architectures by index; NULL behind the last. */
const char *model_arch_at(uint32_t i);

/* What to make. Zero and NULL take the default in the comment. */
struct model_maker {
    const char *shape;          /* "1.1b" */
    struct model_shape changed; /* what is not zero or NULL replaces the shape's */
    const char *type;           /* a mixture's name; "q4_k_m" */
    bool pure;                  /* every matrix of the mixture's own type */
    const char *vocab_path;     /* GGUF file whose tokenizer is taken; made up */
    uint64_t seed;              /* 1 */
};

/* Writes the file; the same bytes for the same options. Memory does not grow with the file. On
 * failure no file is left. -WEFT_EUSAGE naming the option, -WEFT_EMODEL for the vocabulary,
 * -WEFT_EIO. */
int model_maker_write(const struct model_maker *o, const char *path, weft_err *err) WEFT_MUST_USE;

#endif
