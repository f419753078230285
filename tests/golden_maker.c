/*
 * Makes the models of tests/golden/arch, see golden_maker.h.
 *
 * Invariant: a model's bytes depend on its line of the table alone. Its values come from one stream
 * of random numbers, in the order of its tensors: a change of that order, or of how a value becomes
 * a number, changes every model.
 */
#include "tests/golden_maker.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/f16.h"
#include "tests/harness.h"
#include "tests/model_vocab.h"

#define LAYERS_MAX 64 /* of a model with a pattern per layer */

/* ------------------------------------------------------------------ tensors */

enum {
    DENSE = 1 << 16, /* conditions beside golden_feature */
    SPARSE = 1 << 17,
    SHARED = 1 << 18,
};

enum extent {
    NONE,
    DIM,
    Q,
    KV,
    QKV,
    FFN,
    FFN_2,
    EXPERT_FFN,
    SHARED_FFN,
    HEAD,
    VOCAB,
    EXPERTS,
    ROPE
};
enum values {
    NORM,
    NORM_QK,
    NORM_ADDED,
    BIAS,
    ROUTER,
    MATRIX,
    MATRIX_ADDED,
    SHORT_FACTORS,
    LONG_FACTORS
};

/* Tensors of a layer in the order of the file: there where all of `needs` and none of `lacks` hold.
 */
static const struct part {
    const char *name;
    unsigned needs, lacks;
    enum values values;
    enum extent cols, rows;
    bool per_expert;
} parts[] = {
    {"attn_norm.weight", GOLDEN_PRE_NORM, 0, NORM, DIM, NONE, false},
    {"attn_qkv.weight", GOLDEN_FUSED, 0, MATRIX, DIM, QKV, false},
    {"attn_q.weight", 0, GOLDEN_FUSED, MATRIX, DIM, Q, false},
    {"attn_k.weight", 0, GOLDEN_FUSED, MATRIX, DIM, KV, false},
    {"attn_v.weight", 0, GOLDEN_FUSED, MATRIX, DIM, KV, false},
    {"attn_q.bias", GOLDEN_QKV_BIAS, 0, BIAS, Q, NONE, false},
    {"attn_k.bias", GOLDEN_QKV_BIAS, 0, BIAS, KV, NONE, false},
    {"attn_v.bias", GOLDEN_QKV_BIAS, 0, BIAS, KV, NONE, false},
    {"attn_q_norm.weight", GOLDEN_HEAD_NORM, 0, NORM_QK, HEAD, NONE, false},
    {"attn_k_norm.weight", GOLDEN_HEAD_NORM, 0, NORM_QK, HEAD, NONE, false},
    {"attn_q_norm.weight", GOLDEN_WIDE_NORM, 0, NORM_QK, Q, NONE, false},
    {"attn_k_norm.weight", GOLDEN_WIDE_NORM, 0, NORM_QK, KV, NONE, false},
    {"attn_output.weight", 0, 0, MATRIX_ADDED, Q, DIM, false},
    {"attn_output.bias", GOLDEN_OTHER_BIAS, 0, BIAS, DIM, NONE, false},
    {"post_attention_norm.weight", GOLDEN_POST_NORM, 0, NORM_ADDED, DIM, NONE, false},
    {"ffn_norm.weight", GOLDEN_PRE_NORM, 0, NORM, DIM, NONE, false},
    {"ffn_gate.weight", DENSE, GOLDEN_FUSED, MATRIX, DIM, FFN, false},
    {"ffn_up.weight", DENSE, GOLDEN_FUSED, MATRIX, DIM, FFN, false},
    {"ffn_up.weight", DENSE | GOLDEN_FUSED, 0, MATRIX, DIM, FFN_2, false},
    {"ffn_down.weight", DENSE, 0, MATRIX_ADDED, FFN, DIM, false},
    {"ffn_gate.bias", GOLDEN_OTHER_BIAS, 0, BIAS, FFN, NONE, false},
    {"ffn_up.bias", GOLDEN_OTHER_BIAS, 0, BIAS, FFN, NONE, false},
    {"ffn_down.bias", GOLDEN_OTHER_BIAS, 0, BIAS, DIM, NONE, false},
    {"ffn_gate_inp.weight", SPARSE, 0, ROUTER, DIM, EXPERTS, false},
    {"ffn_gate_exps.weight", SPARSE, 0, MATRIX, DIM, EXPERT_FFN, true},
    {"ffn_down_exps.weight", SPARSE, 0, MATRIX_ADDED, EXPERT_FFN, DIM, true},
    {"ffn_up_exps.weight", SPARSE, 0, MATRIX, DIM, EXPERT_FFN, true},
    {"ffn_gate_inp_shexp.weight", SHARED, 0, ROUTER, DIM, NONE, false},
    {"ffn_gate_shexp.weight", SHARED, 0, MATRIX, DIM, SHARED_FFN, false},
    {"ffn_down_shexp.weight", SHARED, 0, MATRIX_ADDED, SHARED_FFN, DIM, false},
    {"ffn_up_shexp.weight", SHARED, 0, MATRIX, DIM, SHARED_FFN, false},
    {"post_ffw_norm.weight", GOLDEN_POST_NORM, 0, NORM_ADDED, DIM, NONE, false},
};

static uint32_t rope_dim(const struct golden_model *m)
{
    return m->rope_dim != 0 ? m->rope_dim : m->shape.head_dim;
}

static uint32_t extent(const struct golden_model *m, enum extent e)
{
    switch (e) {
    case NONE:
        return 0;
    case DIM:
        return m->shape.dim;
    case Q:
        return m->shape.heads * m->shape.head_dim;
    case KV:
        return m->shape.kv_heads * m->shape.head_dim;
    case QKV:
        return (m->shape.heads + 2 * m->shape.kv_heads) * m->shape.head_dim;
    case FFN:
        return m->shape.ffn;
    case FFN_2:
        return 2 * m->shape.ffn;
    case EXPERT_FFN:
        return m->expert_ffn != 0 ? m->expert_ffn : m->shape.ffn;
    case SHARED_FFN:
        return m->shared_ffn;
    case HEAD:
        return m->shape.head_dim;
    case VOCAB:
        return GOLDEN_VOCAB;
    case EXPERTS:
        return m->experts;
    case ROPE:
        return rope_dim(m) / 2;
    }
    abort();
}

static float uniform(struct gguf_writer *w, float low, float high)
{
    return (float)(low + (high - low) * weft_test_uniform(&w->random));
}

/* Vectors: `cols` numbers from low to high. */
static void vector(struct gguf_writer *w, const char *name, uint64_t cols, uint64_t rows, float low,
                   float high)
{
    const uint64_t dims[2] = {cols, rows};
    struct gguf_writer_tensor *t = gguf_writer_declare(w, name, WEFT_F32, dims, rows != 0 ? 2 : 1);
    float *data = malloc(t->size);
    if (data == NULL)
        abort();
    for (size_t i = 0; i < t->size / sizeof *data; i++)
        data[i] = uniform(w, low, high);
    t->data = (uint8_t *)data;
}

/* Matrices of the given standard deviation, rounded to half precision. */
static void matrix(struct gguf_writer *w, const char *name, const uint64_t *dims, uint32_t n_dims,
                   float deviation, bool wide)
{
    const float most = deviation * 1.7320508f; /* of uniform numbers: sqrt(3) deviations */
    struct gguf_writer_tensor *t =
        gguf_writer_declare(w, name, wide ? WEFT_F32 : WEFT_F16, dims, n_dims);
    t->data = malloc(t->size);
    if (t->data == NULL)
        abort();
    for (size_t i = 0; i < t->size / (wide ? 4 : 2); i++) {
        uint16_t half = wk_f32_to_f16(uniform(w, -most, most));
        float exact = wk_f16_to_f32(half);
        if (wide)
            memcpy(t->data + 4 * i, &exact, sizeof exact);
        else
            memcpy(t->data + 2 * i, &half, sizeof half);
    }
}

/* Wide enough apart from what a missing or misplaced tensor stands for (norm 1, bias 0) that the
 * logits show it; queries and keys are large enough that attention picks few positions. */
static void tensor(struct gguf_writer *w, const struct golden_model *m, const char *name,
                   const struct part *p, bool wide)
{
    const uint64_t cols = extent(m, p->cols), rows = extent(m, p->rows);
    const uint64_t dims[3] = {cols, rows, m->experts};
    const float each = 1 / sqrtf((float)cols); /* inputs of variance 1 give outputs of variance 1 */
    const float gain = m->gain != 0 ? m->gain : 1;
    switch (p->values) {
    case NORM:
        vector(w, name, cols, rows, 0.5f, 1.5f);
        break;
    case NORM_QK:
        vector(w, name, cols, rows, 0.5f, 1.5f);
        break;
    case NORM_ADDED:
        vector(w, name, cols, rows, 0.5f * gain, 1.5f * gain);
        break;
    case BIAS:
        vector(w, name, cols, rows, -0.8f, 0.8f);
        break;
    case ROUTER:
        vector(w, name, cols, rows, -3 * each, 3 * each);
        break;
    case MATRIX:
        matrix(w, name, dims, p->per_expert ? 3 : 2, each, wide);
        break;
    case MATRIX_ADDED:
        matrix(w, name, dims, p->per_expert ? 3 : 2, gain * each, wide);
        break;
    case SHORT_FACTORS:
        vector(w, name, cols, rows, 1, 1.5f);
        break;
    case LONG_FACTORS:
        vector(w, name, cols, rows, 1, 8);
        break;
    }
}

static void tensors(struct gguf_writer *w, const struct golden_model *m, bool wide)
{
    static const struct part
        output_norm = {"output_norm.weight", 0, 0, NORM, DIM, NONE, false},
        longer = {"rope_factors_long.weight", 0, 0, LONG_FACTORS, ROPE, NONE, false},
        shorter = {"rope_factors_short.weight", 0, 0, SHORT_FACTORS, ROPE, NONE, false};
    const uint64_t vocab[2] = {m->shape.dim, GOLDEN_VOCAB};
    const float output =
        m->output_deviation != 0 ? m->output_deviation : 2 / sqrtf((float)m->shape.dim);
    const bool tied = (m->features & GOLDEN_TIED) != 0;
    const unsigned have = m->features | (unsigned)(m->experts != 0 ? SPARSE : DENSE) |
                          (m->shared_ffn != 0 ? (unsigned)SHARED : 0);

    matrix(w, "token_embd.weight", vocab, 2, tied ? output : 0.7f, wide);
    tensor(w, m, output_norm.name, &output_norm, wide);
    if (!tied)
        matrix(w, "output.weight", vocab, 2, output, wide);
    if (have & GOLDEN_LONG_FACTORS) {
        tensor(w, m, longer.name, &longer, wide);
        tensor(w, m, shorter.name, &shorter, wide);
    }
    for (uint32_t layer = 0; layer < m->shape.layers; layer++)
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            char name[64];
            if ((have & parts[i].needs) != parts[i].needs || (have & parts[i].lacks) != 0)
                continue;
            snprintf(name, sizeof name, "blk.%u.%s", layer, parts[i].name);
            tensor(w, m, name, &parts[i], wide);
        }
}

/* ------------------------------------------------------------------ keys */

static const char *key_of(const struct golden_model *m, const char *name)
{
    static char key[96];
    snprintf(key, sizeof key, "%s.%s", m->arch, name);
    return key;
}

static void keys(struct gguf_writer *w, const struct golden_model *m, bool wide)
{
    const struct {
        const char *name;
        uint32_t value; /* 0: no such key */
    } shape[] = {
        {"context_length", m->context},
        {"embedding_length", m->shape.dim},
        {"block_count", m->shape.layers},
        {"feed_forward_length", m->shape.ffn},
        {"attention.head_count", m->shape.heads},
        {"attention.head_count_kv", m->shape.kv_heads},
        {"attention.key_length", m->features & GOLDEN_HEAD_KEYS ? m->shape.head_dim : 0},
        {"attention.value_length", m->features & GOLDEN_HEAD_KEYS ? m->shape.head_dim : 0},
        {"rope.dimension_count", m->features & GOLDEN_ROPE_DIM ? rope_dim(m) : 0},
        {"vocab_size", m->features & GOLDEN_VOCAB_SIZE ? GOLDEN_VOCAB : 0},
        {"expert_count", m->experts},
        {"expert_used_count", m->experts_used},
        {"expert_feed_forward_length", m->expert_ffn},
        {"expert_shared_feed_forward_length", m->shared_ffn},
    };
    uint8_t windowed[LAYERS_MAX];

    gguf_writer_str(w, "general.architecture", m->arch);
    gguf_writer_str(w, "general.type", "model");
    gguf_writer_str(w, "general.name", "golden");
    for (size_t i = 0; i < sizeof shape / sizeof shape[0]; i++)
        if (shape[i].value != 0)
            gguf_writer_u32(w, key_of(m, shape[i].name), shape[i].value);
    gguf_writer_f32(w, key_of(m, "attention.layer_norm_rms_epsilon"), 1e-6f);
    if (m->rope_scaling != NULL)
        gguf_writer_str(w, key_of(m, "rope.scaling.type"), m->rope_scaling);
    for (size_t i = 0; i < GOLDEN_KEYS_MAX && m->f32[i].key != NULL; i++)
        gguf_writer_f32(w, key_of(m, m->f32[i].key), m->f32[i].value);
    for (size_t i = 0; i < GOLDEN_KEYS_MAX && m->u32[i].key != NULL; i++)
        gguf_writer_u32(w, key_of(m, m->u32[i].key), m->u32[i].value);
    if (m->features & GOLDEN_WINDOW_ARRAY) {
        for (uint32_t i = 0; i < m->shape.layers; i++)
            windowed[i] = (i + 1) % 4 != 0;
        gguf_writer_array(w, key_of(m, "attention.sliding_window_pattern"), WEFT_GGUF_BOOL,
                          m->shape.layers, windowed, m->shape.layers);
    }
    gguf_writer_u32(w, "general.file_type", wide ? 0 : 1); /* mostly F32, mostly F16 */
    gguf_writer_u32(w, "general.quantization_version", 2);
}

void golden_model_make(struct gguf_writer *w, const struct golden_model *m, bool wide)
{
    gguf_writer_init(w);
    w->random = m->seed;
    keys(w, m, wide);
    model_vocab_make(w, GOLDEN_VOCAB);
    tensors(w, m, wide);
}
