/*
 * The models of tests/golden/arch: one small model of random weights for each architecture and rope
 * scaling, with the keys and tensors that converters write. Their logits, computed by other
 * engines, lie beside them, so a model's bytes never change (tests/test_tool_golden.c).
 */
#ifndef WEFT_TESTS_GOLDEN_MAKER_H
#define WEFT_TESTS_GOLDEN_MAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/gguf_writer.h"

#define GOLDEN_KEYS_MAX 8
#define GOLDEN_VOCAB 300u /* the bytes and some letters; no multiple of 16 */

/* What stands in a layer and in the header, beyond what every model has. */
enum golden_feature {
    GOLDEN_PRE_NORM = 1 << 0,      /* attn_norm and ffn_norm */
    GOLDEN_POST_NORM = 1 << 1,     /* post_attention_norm and post_ffw_norm */
    GOLDEN_HEAD_NORM = 1 << 2,     /* attn_q_norm and attn_k_norm of one head */
    GOLDEN_WIDE_NORM = 1 << 3,     /* the same over all heads together */
    GOLDEN_FUSED = 1 << 4,         /* attn_qkv, and gate and up in ffn_up */
    GOLDEN_QKV_BIAS = 1 << 5,      /* attn_q, attn_k, attn_v */
    GOLDEN_OTHER_BIAS = 1 << 6,    /* attn_output, ffn_gate, ffn_up, ffn_down */
    GOLDEN_TIED = 1 << 7,          /* no output.weight */
    GOLDEN_LONG_FACTORS = 1 << 8,  /* rope_factors_long and rope_factors_short */
    GOLDEN_HEAD_KEYS = 1 << 9,     /* attention.key_length and value_length */
    GOLDEN_ROPE_DIM = 1 << 10,     /* rope.dimension_count */
    GOLDEN_VOCAB_SIZE = 1 << 11,   /* vocab_size */
    GOLDEN_WINDOW_ARRAY = 1 << 12, /* attention.sliding_window_pattern: true but for every 4th */
};

struct golden_model {
    const char *name; /* of the file, without .gguf */
    const char *arch;
    uint64_t seed;
    struct golden_shape {
        uint32_t layers, dim, heads, kv_heads, head_dim, ffn;
    } shape;
    uint32_t context;                /* as the file has it */
    uint32_t rope_dim;               /* 0: head_dim */
    uint32_t experts, experts_used;  /* 0: dense */
    uint32_t expert_ffn, shared_ffn; /* 0: no such key; experts have `ffn`, none is shared */
    unsigned features;               /* golden_feature */
    float output_deviation;   /* of the values of the output matrix; 0: so that logits have 2 */
    float gain;               /* of what a layer adds to the residual; 0: 1. Where it is small
                                 beside a tied embedding the model repeats its last token */
    const char *rope_scaling; /* rope.scaling.type; NULL: no such key */
    struct golden_u32 {
        const char *key; /* behind "ARCH." */
        uint32_t value;
    } u32[GOLDEN_KEYS_MAX];
    struct golden_f32 {
        const char *key;
        float value;
    } f32[GOLDEN_KEYS_MAX];
};

/* Models by index; NULL behind the last. */
const struct golden_model *golden_model_at(uint32_t i);
/* The model of that name, or NULL. */
const struct golden_model *golden_model_find(const char *name);
/* Initialises w and fills it. Matrices are F16; with `wide` they are the same numbers in F32, for
 * engines that round activations where weights are F16. */
void golden_model_make(struct gguf_writer *w, const struct golden_model *m, bool wide);

#endif
