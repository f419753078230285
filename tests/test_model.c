/*
 * The model: shape and tensors out of GGUF files, malformed ones by their exact errors, and shards.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arch.h"
#include "base/model.h"
#include "kernels/kernels.h"
#include "tests/gguf_writer.h"
#include "tests/harness.h"

/* A model with the bytes it was read from. */
struct loaded {
    uint8_t *data;
    size_t size;
    struct weft_gguf g;
    struct weft_model m;
};

static void load_writer(struct loaded *l, struct gguf_writer *w)
{
    weft_err err = {0};
    *l = (struct loaded){0};
    l->data = gguf_writer_finish(w, &l->size);
    gguf_writer_done(w);
    int r = weft_gguf_open(l->data, l->size, &l->g, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    r = weft_model_from_gguf(&l->g, NULL, &l->m, &err);
    ck_assert_msg(r == 0, "%s", err.text);
}

static void load_llama(struct loaded *l, const struct gguf_writer_llama *options)
{
    struct gguf_writer w;
    gguf_writer_llama(&w, options);
    load_writer(l, &w);
}

static void unload(struct loaded *l)
{
    weft_model_done(&l->m);
    weft_gguf_done(&l->g);
    free(l->data);
}

/* ------------------------------------------------------------------ shape */

START_TEST(shape)
{
    struct loaded l;
    load_llama(&l, &(struct gguf_writer_llama){.layers = 3, .rope_freqs = true});
    ck_assert_str_eq(l.m.arch, "llama");
    ck_assert_str_eq(l.m.name, "random");
    ck_assert(l.m.n_layers == 3 && l.m.dim == 64 && l.m.n_heads == 4 && l.m.n_kv_heads == 2);
    ck_assert(l.m.head_dim == 16 && l.m.ffn_dim == 320 && l.m.vocab == 100 &&
              l.m.context_max == 512);
    ck_assert(l.m.rope_dim == 16 && l.m.rope_base == 10000 && l.m.norm_eps == 1e-5f);
    ck_assert(!l.m.tied && !weft_model_quantised(&l.m));
    ck_assert_int_eq(weft_model_check(&l.m, NULL), 0);

    char name[WEFT_GGUF_NAME_MAX + 1];
    for (int role = 0; role < WEFT_ROLE_COUNT; role++) {
        for (uint32_t layer = 0; layer < 3; layer++) {
            const struct weft_tensor *t = weft_model_tensor(&l.m, role, layer);
            weft_role_tensor_name(name, role, layer);
            const struct weft_gguf_tensor *file = weft_gguf_tensor(&l.g, name);
            ck_assert_msg((file != NULL) == (t->bytes > 0), "%s", name);
            ck_assert((file != NULL) == (weft_arch_presence(&l.m, role) == WEFT_REQUIRED ||
                                         role == WEFT_ROLE_OUTPUT || role == WEFT_ROLE_ROPE_FREQS));
            if (file == NULL)
                continue;
            ck_assert(t->offset == file->offset && t->bytes == file->bytes);
            ck_assert(t->cols == file->dims[0] && t->rows == file->dims[1]);
            ck_assert_uint_eq(t->bytes, t->rows * weft_row_bytes(t->type, t->cols));
        }
    }
    ck_assert_str_eq(weft_role_tensor_name(name, WEFT_ROLE_ATTN_O, 2), "blk.2.attn_output.weight");
    ck_assert_str_eq(weft_role_tensor_name(name, WEFT_ROLE_ROPE_FREQS, 2), "rope_freqs.weight");
    unload(&l);
    weft_model_done(&l.m);
}
END_TEST

START_TEST(defaults)
{
    struct gguf_writer w;
    struct loaded l;
    gguf_writer_llama(&w, &(struct gguf_writer_llama){
                              .heads = 4, .kv_heads = 4, .tied = true, .type = WEFT_Q8_0});
    gguf_writer_remove(&w, "llama.attention.head_count_kv");
    gguf_writer_remove(&w, "llama.rope.dimension_count");
    gguf_writer_remove(&w, "llama.rope.freq_base");
    gguf_writer_remove(&w, "llama.vocab_size");
    gguf_writer_remove(&w, "general.name");
    gguf_writer_str(&w, "llama.rope.scaling.type", "none");
    gguf_writer_f32(&w, "llama.rope.scaling.factor", 4); /* of no meaning with "none" */
    gguf_writer_u32(&w, "llama.expert_count", 0);
    gguf_writer_u32(&w, "llama.expert_used_count", 2); /* nor this without experts */
    gguf_writer_int(&w, "split.count", WEFT_GGUF_U16, 1);
    load_writer(&l, &w);
    ck_assert(l.m.n_kv_heads == 4 && l.m.rope_dim == 16 && l.m.rope_base == 10000 &&
              l.m.vocab == 100);
    ck_assert(l.m.tied && weft_model_quantised(&l.m));
    ck_assert_str_eq(l.m.name, "llama");
    unload(&l);
}
END_TEST

START_TEST(head_dim_of_its_own)
{
    struct gguf_writer w;
    struct loaded l;
    load_llama(&l, &(struct gguf_writer_llama){.head_dim = 32});
    ck_assert_uint_eq(l.m.head_dim, 32);
    ck_assert_uint_eq(weft_model_tensor(&l.m, WEFT_ROLE_ATTN_Q, 0)->rows, 128);
    unload(&l);
    gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
    gguf_writer_u32(&w, "llama.attention.key_length", 16); /* alone, and what it is anyway */
    load_writer(&l, &w);
    ck_assert_uint_eq(l.m.head_dim, 16);
    unload(&l);
}
END_TEST

/* Text that reaches terminals. */
START_TEST(names_are_clean)
{
    struct gguf_writer w;
    struct loaded l;
    char longer[300];
    gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
    gguf_writer_str(&w, "general.name", "a\033[2J\xff\xc2\x9b ü");
    load_writer(&l, &w);
    ck_assert_str_eq(l.m.name, "a?[2J?? ü");
    unload(&l);
    gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
    memset(longer, 'x', sizeof longer);
    memcpy(longer + 126, "ü", 3); /* would be cut in the middle */
    gguf_writer_str(&w, "general.name", longer);
    load_writer(&l, &w);
    ck_assert_uint_eq(strlen(l.m.name), 126);
    unload(&l);
}
END_TEST

/* ------------------------------------------------------------------ malformed */

#define LLAMA(name) "llama." name
static void bend_arch(struct gguf_writer *w)
{
    gguf_writer_str(w, "general.architecture", "mamba");
}
static void bend_arch_odd(struct gguf_writer *w)
{
    gguf_writer_str(w, "general.architecture", "\033c");
}
static void bend_arch_none(struct gguf_writer *w)
{
    gguf_writer_remove(w, "general.architecture");
}
static void bend_arch_type(struct gguf_writer *w)
{
    gguf_writer_u32(w, "general.architecture", 1);
}
static void bend_split(struct gguf_writer *w)
{
    gguf_writer_int(w, "split.no", WEFT_GGUF_U16, 1);
    gguf_writer_int(w, "split.count", WEFT_GGUF_U16, 3);
    gguf_writer_int(w, "split.tensors.count", WEFT_GGUF_I32, 60);
}
static void bend_experts(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("expert_count"), 8);
}
static void bend_ntk(struct gguf_writer *w)
{
    gguf_writer_str(w, LLAMA("rope.scaling.type"), "ntk");
}
static void bend_scaling_type(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("rope.scaling.type"), 1);
}
static void bend_factor(struct gguf_writer *w)
{
    gguf_writer_f32(w, LLAMA("rope.scaling.factor"), -4);
}
static void bend_yarn_bounds(struct gguf_writer *w)
{
    gguf_writer_str(w, LLAMA("rope.scaling.type"), "yarn");
    gguf_writer_f32(w, LLAMA("rope.scaling.factor"), 4);
    gguf_writer_f32(w, LLAMA("rope.scaling.yarn_beta_slow"), 64);
}
static void bend_yarn_logs(struct gguf_writer *w)
{
    gguf_writer_f32(w, LLAMA("rope.scaling.yarn_log_multiplier"), 0.1f);
}
static void bend_longrope(struct gguf_writer *w)
{
    gguf_writer_str(w, LLAMA("rope.scaling.type"), "longrope");
}
static void bend_window(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("attention.sliding_window"), 128);
}
static void bend_clamp(struct gguf_writer *w)
{
    gguf_writer_f32(w, LLAMA("attention.clamp_kqv"), 8);
}
static void bend_not_causal(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("expert_gating_func"), 2);
}
static void bend_no_dim(struct gguf_writer *w)
{
    gguf_writer_remove(w, LLAMA("embedding_length"));
}
static void bend_no_eps(struct gguf_writer *w)
{
    gguf_writer_remove(w, LLAMA("attention.layer_norm_rms_epsilon"));
}
static void bend_dim_text(struct gguf_writer *w)
{
    gguf_writer_str(w, LLAMA("embedding_length"), "64");
}
static void bend_dim_0(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("embedding_length"), 0);
}
static void bend_dim_66(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("embedding_length"), 66);
}
static void bend_dim_huge(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("embedding_length"), 1u << 20);
}
static void bend_dim_other(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("embedding_length"), 128);
}
static void bend_layers_0(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("block_count"), 0);
}
static void bend_layers_huge(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("block_count"), UINT32_MAX);
}
static void bend_layers_more(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("block_count"), 3);
}
static void bend_layers_less(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("block_count"), 1);
}
static void bend_heads_0(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("attention.head_count"), 0);
}
static void bend_heads_huge(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("embedding_length"), 2048);
    gguf_writer_u32(w, LLAMA("attention.head_count"), 2048);
}
static void bend_heads_wide(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("attention.key_length"), 32768);
    gguf_writer_u32(w, LLAMA("attention.value_length"), 32768);
}
static void bend_kv_heads_3(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("attention.head_count_kv"), 3);
}
static void bend_kv_heads_0(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("attention.head_count_kv"), 0);
}
static void bend_kv_heads_array(struct gguf_writer *w)
{
    gguf_writer_array(w, LLAMA("attention.head_count_kv"), WEFT_GGUF_U32, 2, "\2\0\0\0\2\0\0\0", 8);
}
static void bend_key_length(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("attention.key_length"), 32);
}
static void bend_rope_odd(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("rope.dimension_count"), 15);
}
static void bend_rope_wide(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("rope.dimension_count"), 18);
}
static void bend_rope_0(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("rope.dimension_count"), 0);
}
static void bend_base_0(struct gguf_writer *w)
{
    gguf_writer_f32(w, LLAMA("rope.freq_base"), 0);
}
static void bend_base_nan(struct gguf_writer *w)
{
    gguf_writer_f32(w, LLAMA("rope.freq_base"), NAN);
}
static void bend_eps_0(struct gguf_writer *w)
{
    gguf_writer_f32(w, LLAMA("attention.layer_norm_rms_epsilon"), 0);
}
static void bend_context_0(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("context_length"), 0);
}
static void bend_context_huge(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("context_length"), (1u << 24) + 1);
}
static void bend_vocab(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("vocab_size"), 99);
}
static void bend_ffn(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("feed_forward_length"), 300);
}
static void bend_ffn_huge(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("feed_forward_length"), 1u << 21);
}
static void bend_no_tensors(struct gguf_writer *w)
{
    while (w->n_tensors > 0)
        gguf_writer_remove_tensor(w, w->tensors[0].name);
}
static void bend_no_embed(struct gguf_writer *w)
{
    gguf_writer_remove_tensor(w, "token_embd.weight");
}
static void bend_no_norm(struct gguf_writer *w)
{
    gguf_writer_remove_tensor(w, "output_norm.weight");
}
static void bend_no_down(struct gguf_writer *w)
{
    gguf_writer_remove_tensor(w, "blk.1.ffn_down.weight");
}
static void bend_bias(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "blk.0.attn_q.bias", WEFT_F32, 63, 0);
}
static void bend_stranger(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "blk.0.attn_sinks.weight", WEFT_F32, 4, 0);
}
static void bend_long_alone(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "rope_factors_long.weight", WEFT_F32, 8, 0);
}
static void bend_q_norm(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "blk.0.attn_q_norm.weight", WEFT_F32, 16, 0);
}
static void bend_old_experts(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("expert_count"), 4);
    gguf_writer_u32(w, LLAMA("expert_used_count"), 2);
    gguf_writer_tensor(w, "blk.0.ffn_gate.0.weight", WEFT_F32, 64, 320);
}
static void bend_expert_tensors(struct gguf_writer *w)
{
    gguf_writer_u32(w, LLAMA("expert_count"), 4);
    gguf_writer_u32(w, LLAMA("expert_used_count"), 2);
}
/* As many numbers as expected, but the experts are the second dimension. */
static void bend_experts_turned(struct gguf_writer *w)
{
    static const char *const dense[] = {"ffn_gate", "ffn_up", "ffn_down"};
    char name[64];
    gguf_writer_u32(w, LLAMA("expert_count"), 4);
    gguf_writer_u32(w, LLAMA("expert_used_count"), 2);
    for (int layer = 0; layer < 2; layer++) {
        snprintf(name, sizeof name, "blk.%d.ffn_gate_inp.weight", layer);
        gguf_writer_tensor(w, name, WEFT_F32, 64, 4);
        for (int i = 0; i < 3; i++) {
            const uint64_t cols = i == 2 ? 320 : 64, rows = i == 2 ? 64 : 320;
            const bool turned = layer == 1 && i == 1;
            snprintf(name, sizeof name, "blk.%d.%s.weight", layer, dense[i]);
            gguf_writer_remove_tensor(w, name);
            snprintf(name, sizeof name, "blk.%d.%s_exps.weight", layer, dense[i]);
            struct gguf_writer_tensor *t = gguf_writer_tensor(w, name, WEFT_F32, cols, 4 * rows);
            t->n_dims = 3;
            t->dims[1] = turned ? 4 : rows;
            t->dims[2] = turned ? rows : 4;
        }
    }
}
static void bend_matrix_type(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "blk.0.attn_q.weight", WEFT_I32, 64, 64);
}
static void bend_matrix_q8_1(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "token_embd.weight", WEFT_Q8_1, 64, 100);
}
static void bend_norm_type(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "blk.0.attn_norm.weight", WEFT_F16, 64, 0);
}
static void bend_q_rows(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "blk.1.attn_q.weight", WEFT_F32, 64, 48);
}
static void bend_k_vector(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "blk.1.attn_k.weight", WEFT_F32, 64, 0);
}
static void bend_o_turned(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "blk.0.ffn_down.weight", WEFT_F32, 64, 320);
}
static void bend_norm_rows(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "output_norm.weight", WEFT_F32, 64, 2);
}
static void bend_output_rows(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "output.weight", WEFT_F32, 64, 101);
}
static void bend_freqs(struct gguf_writer *w)
{
    gguf_writer_tensor(w, "rope_freqs.weight", WEFT_F32, 16, 0);
}
static void bend_three_dims(struct gguf_writer *w)
{
    struct gguf_writer_tensor *t = gguf_writer_find(w, "blk.0.ffn_up.weight");
    t->n_dims = 3;
    t->dims[1] = 160;
    t->dims[2] = 2;
}

#define ARCHITECTURES                                                                              \
    "supported are: llama qwen2 qwen2moe qwen3 qwen3moe phi3 gemma gemma2 gemma3 smollm3 granite " \
    "olmo2"
#define MATRIX_TYPES                                                                               \
    "supported are: F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS " \
    "TQ1_0 TQ2_0"
static const struct {
    void (*bend)(struct gguf_writer *w);
    int code;
    const char *error;
} bent[] = {
    {bend_arch, WEFT_EUNSUPPORTED, "architecture 'mamba': " ARCHITECTURES},
    {bend_arch_odd, WEFT_EUNSUPPORTED, "architecture '?c': " ARCHITECTURES},
    {bend_arch_none, WEFT_EMODEL, "key general.architecture is missing"},
    {bend_arch_type, WEFT_EMODEL, "key general.architecture: found a u32, expected a string"},
    {bend_split, WEFT_EMODEL, "the file is part 2 of 3, found 1 of them"},
    {bend_experts, WEFT_EMODEL, "expert_used_count: found 0, expected 1 to 8"},
    {bend_expert_tensors, WEFT_EUNSUPPORTED,
     "tensor blk.0.ffn_gate.weight: not part of a llama with experts as weft knows it"},
    {bend_experts_turned, WEFT_EMODEL,
     "tensor blk.1.ffn_up_exps.weight: found 320 matrices, expected one for each of 4 experts"},
    {bend_old_experts, WEFT_EUNSUPPORTED,
     "tensor blk.0.ffn_gate.0.weight: experts in tensors of their own, as files of before April "
     "2024 "
     "have them: convert the model again"},
    {bend_ntk, WEFT_EUNSUPPORTED, "rope scaling 'ntk': supported are: none linear yarn longrope"},
    {bend_scaling_type, WEFT_EMODEL, "key llama.rope.scaling.type: found a u32, expected a string"},
    {bend_factor, WEFT_EMODEL, "rope.scaling.factor: found -4, expected a number above 0"},
    {bend_yarn_bounds, WEFT_EMODEL,
     "rope scaling yarn of base 10000 between 32 and 64 turns: expected a base above 1 and a "
     "falling "
     "range above 0"},
    {bend_yarn_logs, WEFT_EUNSUPPORTED,
     "key llama.rope.scaling.yarn_log_multiplier: found 0.1, weft does not know it in a llama"},
    {bend_longrope, WEFT_EMODEL,
     "rope scaling is longrope, but the tensors rope_factors_long and rope_factors_short are "
     "missing"},
    {bend_long_alone, WEFT_EMODEL,
     "rope scaling is longrope, but the tensors rope_factors_long and rope_factors_short are not "
     "both there"},
    {bend_window, WEFT_EUNSUPPORTED,
     "key llama.attention.sliding_window: found 128, less than the context of 512: weft does not "
     "know it in a llama"},
    {bend_clamp, WEFT_EUNSUPPORTED,
     "key llama.attention.clamp_kqv: found 8, which stands for clamped q, k and v: weft does not "
     "know it in a llama"},
    {bend_not_causal, WEFT_EUNSUPPORTED,
     "key llama.expert_gating_func: found 2, which stands for another router than softmax: weft "
     "does not know it in a llama"},
    {bend_no_dim, WEFT_EMODEL, "key llama.embedding_length is missing"},
    {bend_no_eps, WEFT_EMODEL, "key llama.attention.layer_norm_rms_epsilon is missing"},
    {bend_dim_text, WEFT_EMODEL, "key llama.embedding_length: found a string, expected an integer"},
    {bend_dim_0, WEFT_EMODEL, "embedding_length: found 0, expected 1 to 65536"},
    {bend_dim_66, WEFT_EMODEL, "embedding_length: found 66, expected a multiple of the 4 heads"},
    {bend_dim_huge, WEFT_EMODEL, "embedding_length: found 1048576, expected 1 to 65536"},
    {bend_dim_other, WEFT_EMODEL,
     "tensor token_embd.weight: found 100 x 64 (rows x columns), expected 100 x 128"},
    {bend_layers_0, WEFT_EMODEL, "key llama.block_count: found 0, expected 1 to 1024"},
    {bend_layers_huge, WEFT_EMODEL, "key llama.block_count: found 4294967295, expected 1 to 1024"},
    {bend_layers_more, WEFT_EMODEL, "tensor blk.2.attn_norm.weight is missing"},
    {bend_layers_less, WEFT_EUNSUPPORTED,
     "tensor blk.1.attn_norm.weight: not part of a llama of 1 layers as weft knows it"},
    {bend_heads_0, WEFT_EMODEL, "key llama.attention.head_count: found 0, expected 1 to 1024"},
    {bend_heads_huge, WEFT_EMODEL, "attention.head_count: found 2048, expected 1 to 1024"},
    {bend_heads_wide, WEFT_EMODEL,
     "4 heads of 32768: found 131072 columns, expected at most 65536"},
    {bend_kv_heads_3, WEFT_EMODEL,
     "attention.head_count: found 4, expected a multiple of the 3 KV heads"},
    {bend_kv_heads_0, WEFT_EMODEL, "attention.head_count_kv: found 0, expected 1 to 1024"},
    {bend_kv_heads_array, WEFT_EUNSUPPORTED,
     "key llama.attention.head_count_kv: found a value per "
     "layer, supported is one for all layers"},
    {bend_key_length, WEFT_EUNSUPPORTED,
     "attention.key_length 32 and attention.value_length 16: supported are equal ones"},
    {bend_rope_odd, WEFT_EMODEL,
     "rope.dimension_count: found 15, expected an even number from 2 to 16"},
    {bend_rope_wide, WEFT_EMODEL,
     "rope.dimension_count: found 18, expected an even number from 2 to 16"},
    {bend_rope_0, WEFT_EMODEL,
     "rope.dimension_count: found 0, expected an even number from 2 to 16"},
    {bend_base_0, WEFT_EMODEL, "rope.freq_base: found 0, expected a number above 0"},
    {bend_base_nan, WEFT_EMODEL, "key llama.rope.freq_base: found nan, expected a finite f32"},
    {bend_eps_0, WEFT_EMODEL,
     "attention.layer_norm_rms_epsilon: found 0, expected a number between 0 and 1"},
    {bend_context_0, WEFT_EMODEL, "context_length: found 0, expected 1 to 16777216"},
    {bend_context_huge, WEFT_EMODEL, "context_length: found 16777217, expected 1 to 16777216"},
    {bend_vocab, WEFT_EMODEL,
     "tensor token_embd.weight: found 100 x 64 (rows x columns), expected 99 x 64"},
    {bend_ffn, WEFT_EMODEL,
     "tensor blk.0.ffn_gate.weight: found 320 x 64 (rows x columns), expected 300 x 64"},
    {bend_ffn_huge, WEFT_EMODEL, "feed_forward_length: found 2097152, expected 1 to 1048576"},
    {bend_no_tensors, WEFT_EMODEL,
     "tensor token_embd.weight is missing: the file holds a vocabulary and no tensors"},
    {bend_no_embed, WEFT_EMODEL, "tensor token_embd.weight is missing"},
    {bend_no_norm, WEFT_EMODEL, "tensor output_norm.weight is missing"},
    {bend_no_down, WEFT_EMODEL, "tensor blk.1.ffn_down.weight is missing"},
    {bend_bias, WEFT_EMODEL,
     "tensor blk.0.attn_q.bias: found 1 x 63 (rows x columns), expected 1 x 64"},
    {bend_stranger, WEFT_EUNSUPPORTED,
     "tensor blk.0.attn_sinks.weight: not part of a llama of 2 layers as weft knows it"},
    {bend_q_norm, WEFT_EUNSUPPORTED,
     "tensor blk.0.attn_q_norm.weight: not part of a llama as weft knows it"},
    {bend_matrix_type, WEFT_EUNSUPPORTED, "tensor blk.0.attn_q.weight: type I32: " MATRIX_TYPES},
    {bend_matrix_q8_1, WEFT_EUNSUPPORTED, "tensor token_embd.weight: type Q8_1: " MATRIX_TYPES},
    {bend_norm_type, WEFT_EUNSUPPORTED,
     "tensor blk.0.attn_norm.weight: type F16: supported is: F32"},
    {bend_q_rows, WEFT_EMODEL,
     "tensor blk.1.attn_q.weight: found 48 x 64 (rows x columns), expected 64 x 64"},
    {bend_k_vector, WEFT_EMODEL,
     "tensor blk.1.attn_k.weight: found 1 x 64 (rows x columns), expected 32 x 64"},
    {bend_o_turned, WEFT_EMODEL,
     "tensor blk.0.ffn_down.weight: found 320 x 64 (rows x columns), expected 64 x 320"},
    {bend_norm_rows, WEFT_EMODEL,
     "tensor output_norm.weight: found 2 x 64 (rows x columns), expected 1 x 64"},
    {bend_output_rows, WEFT_EMODEL,
     "tensor output.weight: found 101 x 64 (rows x columns), expected 100 x 64"},
    {bend_freqs, WEFT_EMODEL,
     "tensor rope_freqs.weight: found 1 x 16 (rows x columns), expected 1 x 8"},
    {bend_three_dims, WEFT_EMODEL,
     "tensor blk.0.ffn_up.weight: found 3 dimensions, expected at most 2"},
};

START_TEST(malformed)
{
    struct gguf_writer w;
    struct weft_gguf g;
    struct weft_model m = {.dim = 77};
    weft_err err = {0};
    size_t size;
    gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
    bent[_i].bend(&w);
    uint8_t *data = gguf_writer_finish(&w, &size);
    int r = weft_gguf_open(data, size, &g, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_int_eq(weft_model_from_gguf(&g, NULL, &m, &err), -bent[_i].code);
    ck_assert_str_eq(err.text, bent[_i].error);
    ck_assert_int_eq(weft_model_from_gguf(&g, NULL, &m, NULL), -bent[_i].code);
    ck_assert_uint_eq(m.dim, 77); /* untouched */
    weft_gguf_done(&g);
    free(data);
    gguf_writer_done(&w);
}
END_TEST

/* What only the wire can bring. */
START_TEST(wire)
{
    struct loaded l;
    weft_err err = {0};
    load_llama(&l, &(struct gguf_writer_llama){.type = WEFT_Q8_0});
    struct weft_model m = l.m;

    m.layers = malloc(m.n_layers * sizeof *m.layers);
    memcpy(m.layers, l.m.layers, m.n_layers * sizeof *m.layers);
    struct weft_tensor *q = &m.layers[1].role[WEFT_ROLE_ATTN_Q - WEFT_ROLE_GLOBAL_COUNT];
    q->bytes++;
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "tensor blk.1.attn_q.weight: found 4353 bytes, expected 4352");
    q->bytes = 0;
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "tensor blk.1.attn_q.weight is missing");
    q->bytes = 4352;
    q->type = 1000;
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EUNSUPPORTED);
    ck_assert_str_eq(err.text, "tensor blk.1.attn_q.weight: type 1000: " MATRIX_TYPES);
    q->type = WEFT_Q6_K; /* 64 columns are no block of 256 */
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(
        err.text, "tensor blk.1.attn_q.weight: rows of 64 elements, expected whole blocks of 256");
    q->type = WEFT_Q8_0;
    ck_assert_int_eq(weft_model_check(&m, &err), 0);

    m.tied = true;
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "the output head is said to be tied, but output.weight is there");
    m.global[WEFT_ROLE_OUTPUT] = (struct weft_tensor){0};
    ck_assert_int_eq(weft_model_check(&m, &err), 0);
    m.tied = false;
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text,
                     "the output head is said to be its own, but output.weight is missing");
    m.tied = true;

    m.n_layers = UINT32_MAX; /* no table of that length is looked at */
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "block_count: found 4294967295, expected 1 to 1024");
    m.n_layers = 2;
    m.head_dim = 0;
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "attention.key_length: found 0, expected 1 to 65536");
    m.head_dim = 16;
    m.rope_base = INFINITY;
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "rope.freq_base: found inf, expected a number above 0");
    m.rope_base = 10000;
    m.norm_eps = NAN;
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    m.norm_eps = 1e-5f;
    m.traits.expert_ffn = UINT32_MAX; /* buffers are sized by it */
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "a model without experts, but 0 of them used, FFN 4294967295 each: "
                               "expected 0 and 0");
    m.traits.expert_ffn = 0;
    m.traits.n_experts_used = 2;
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    m.traits.n_experts = 4; /* a llama with experts has no FFN beside them */
    m.traits.expert_ffn = 32;
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "feed_forward_length: found 320, expected 0 beside the experts");
    m.traits.n_experts = m.traits.n_experts_used = m.traits.expert_ffn = 0;
    ck_assert_int_eq(weft_model_check(&m, &err), 0);
    memset(m.name, 'x', sizeof m.name);
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "model name: not terminated within 128 bytes");
    strcpy(m.name, "ab\033");
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "model name: byte 2 is no printable UTF-8");
    m.name[0] = '\0';
    memset(m.arch, 'x', sizeof m.arch);
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EMODEL);
    strcpy(m.arch, "mamba");
    ck_assert_int_eq(weft_model_check(&m, &err), -WEFT_EUNSUPPORTED);
    ck_assert_str_eq(err.text, "architecture 'mamba': " ARCHITECTURES);
    free(m.layers);
    unload(&l);
}
END_TEST

/* ------------------------------------------------------------------ identity */

static void id_of(uint8_t *data, size_t size, const struct weft_mapping *map, uint64_t id[2])
{
    struct weft_gguf g;
    struct weft_model m;
    ck_assert_int_eq(weft_gguf_open(data, size, &g, NULL), 0);
    ck_assert_int_eq(weft_model_from_gguf(&g, map, &m, NULL), 0);
    memcpy(id, m.id, sizeof m.id);
    weft_model_done(&m);
    weft_gguf_done(&g);
}

START_TEST(identity)
{
    struct gguf_writer w;
    size_t size, last;
    uint64_t a[2], b[2];
    gguf_writer_llama(&w, &(struct gguf_writer_llama){.type = WEFT_Q4_0});
    uint8_t *data = gguf_writer_finish(&w, &size);
    last = size - 1;
    id_of(data, size, NULL, a);
    id_of(data, size, NULL, b);
    ck_assert_mem_eq(a, b, sizeof a);
    ck_assert(a[0] != a[1] && a[0] != 0 && a[1] != 0);

    data[last] ^= 1; /* data */
    id_of(data, size, NULL, b);
    ck_assert(a[0] != b[0] && a[1] != b[1]);
    data[last] ^= 1;
    id_of(data, size, &(struct weft_mapping){.mtime_ns = 1}, b);
    ck_assert(a[0] != b[0] && a[1] != b[1]);
    free(data);

    gguf_writer_str(&w, "general.name", "another"); /* header */
    data = gguf_writer_finish(&w, &size);
    id_of(data, size, NULL, b);
    ck_assert(a[0] != b[0] && a[1] != b[1]);
    free(data);
    gguf_writer_done(&w);
}
END_TEST

/* The same on every machine and in every version: it is kept in daemons. */
START_TEST(identity_is_fixed)
{
    size_t size;
    uint64_t id[2];
    uint8_t *data = weft_test_read("../shared/golden/llama.gguf", &size);
    if (data == NULL) {
        weft_test_skip("no ../shared/golden/llama.gguf");
        return;
    }
    id_of(data, size, NULL, id);
    ck_assert_uint_eq(id[0], 0xd13dc1da7e30837bu);
    ck_assert_uint_eq(id[1], 0xf4346e09bbe49eecu);
    free(data);
}
END_TEST

/* ------------------------------------------------------------------ real files */

static const struct {
    const char *path;
    int code;
    const char *error;
} files[] = {
    {"golden/llama.gguf", 0, NULL},
    {"golden/llama3-rope.gguf", 0, NULL},
    {"golden/llama-256.gguf", 0, NULL},
    {"golden/llama-256-q8_0.gguf", 0, NULL},
    {"golden/llama-256-q4_0.gguf", 0, NULL},
    {"golden/llama-256-q6_k.gguf", 0, NULL},
    {"models/weft-stories-q8_0.gguf", 0, NULL},
    {"models/weft-stories-q4_0.gguf", 0, NULL},
    {"models/weft-stories-f16.gguf", 0, NULL},
    {"models/weft-stories-f32.gguf", 0, NULL},
    {"golden/qwen2.gguf", 0, NULL},
    {"golden/qwen3.gguf", 0, NULL},
    {"golden/qwen3moe.gguf", 0, NULL},
    {"golden/phi3.gguf", 0, NULL},
    {"golden/gemma2.gguf", 0, NULL},
    {"golden/mixtral.gguf", 0, NULL},
    {"golden/llama-256-iq4_nl.gguf", 0, NULL},
    {"golden/llama-256-iq4_xs.gguf", 0, NULL},
    {"golden/llama-256-q2_k.gguf", 0, NULL},
    {"golden/llama-256-q3_k_m.gguf", 0, NULL},
    {"golden/llama-256-q4_1.gguf", 0, NULL},
    {"golden/llama-256-q4_k_m.gguf", 0, NULL},
    {"golden/llama-256-q5_0.gguf", 0, NULL},
    {"golden/llama-256-q5_1.gguf", 0, NULL},
    {"golden/llama-256-q5_k_m.gguf", 0, NULL},
    {"vocab/ggml-vocab-llama-spm.gguf", WEFT_EMODEL,
     "tensor token_embd.weight is missing: the file holds a vocabulary and no tensors"},
    {"vocab/ggml-vocab-gpt-2.gguf", WEFT_EUNSUPPORTED, "architecture 'gpt2': " ARCHITECTURES},
    {"vocab/ggml-vocab-falcon.gguf", WEFT_EUNSUPPORTED, "architecture 'falcon': " ARCHITECTURES},
    {"vocab/ggml-vocab-qwen2.gguf", WEFT_EMODEL, "key qwen2.context_length is missing"},
};

START_TEST(real_files)
{
    char relative[128];
    struct weft_mapping map;
    struct weft_gguf g;
    struct weft_model m;
    weft_err err = {0};
    snprintf(relative, sizeof relative, "../shared/%s", files[_i].path);
    const char *path = weft_test_path(relative);
    if (path == NULL) {
        weft_test_skip("no %s", relative);
        return;
    }
    int r = weft_mapping_open(path, &map, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    r = weft_gguf_open(map.data, map.size, &g, &err);
    ck_assert_msg(r == 0, "%s: %s", path, err.text);
    r = weft_model_from_gguf(&g, &map, &m, &err);
    ck_assert_msg(r == -files[_i].code, "%s: %d %s", path, r, err.text);
    if (files[_i].error != NULL)
        ck_assert_str_eq(err.text, files[_i].error);
    if (r == 0)
        weft_model_done(&m);
    weft_gguf_done(&g);
    weft_mapping_close(&map);
}
END_TEST

START_TEST(demo_model)
{
    size_t size;
    struct weft_gguf g;
    struct weft_model m;
    uint8_t *data = weft_test_read("../shared/models/weft-stories-q8_0.gguf", &size);
    if (data == NULL) {
        weft_test_skip("no ../shared/models/weft-stories-q8_0.gguf");
        return;
    }
    ck_assert_int_eq(weft_gguf_open(data, size, &g, NULL), 0);
    ck_assert_int_eq(weft_model_from_gguf(&g, NULL, &m, NULL), 0);
    ck_assert_str_eq(m.name, "weft-stories 4M");
    ck_assert(m.n_layers == 6 && m.dim == 256 && m.n_heads == 8 && m.n_kv_heads == 4 && m.tied);
    ck_assert(m.head_dim == 32 && m.ffn_dim == 512 && m.vocab == 1024 && m.context_max == 1024);
    /* 34 / 32 bytes an element: q and o 256², k and v 256 * 128, three of 512 * 256; two norms. */
    ck_assert_uint_eq(weft_layer_weight_bytes(&m, 0),
                      (2 * 65536 + 2 * 32768 + 3 * 131072) / 32 * 34 + 2 * 1024);
    ck_assert_uint_eq(weft_embed_weight_bytes(&m), 1024 * 256 / 32 * 34);
    ck_assert_uint_eq(weft_head_weight_bytes(&m), 1024 * 256 / 32 * 34 + 1024);
    ck_assert_uint_eq(weft_kv_position_bytes(&m, WEFT_KV_F16), 2 * 4 * 32 * 2);
    ck_assert_uint_eq(weft_kv_position_bytes(&m, WEFT_KV_Q8_0), 2 * 4 * 34);
    weft_model_done(&m);
    weft_gguf_done(&g);
    free(data);
}
END_TEST

/* ------------------------------------------------------------------ architectures */

static const char *const architectures[] = {
    "gemma", "gemma3-keys",  "granite",     "llama-bias", "llama-longrope", "llama-yarn",
    "olmo2", "olmo2-window", "phi3-window", "qwen2-yarn", "qwen2moe",       "smollm3",
};
enum { N_ARCHITECTURES = sizeof architectures / sizeof architectures[0] };

static void load_architecture(struct loaded *l, int i)
{
    char path[128];
    weft_err err = {0};
    *l = (struct loaded){0};
    snprintf(path, sizeof path, "tests/golden/arch/%s.gguf", architectures[i]);
    l->data = weft_test_read(path, &l->size);
    ck_assert_msg(l->data != NULL, "%s", path);
    ck_assert_int_eq(weft_gguf_open(l->data, l->size, &l->g, &err), 0);
    int r = weft_model_from_gguf(&l->g, NULL, &l->m, &err);
    ck_assert_msg(r == 0, "%s: %s", path, err.text);
}

/* All parts of all shards of a model lie within its file, and each byte of a tensor in one of them.
 */
static void check_all_shards(const struct loaded *l)
{
    const struct weft_model *m = &l->m;
    uint64_t sum = 0, tensors = 0;
    for (int k = 0; k < WEFT_SHARD_KIND_COUNT; k++) {
        const enum weft_shard_kind kind = (enum weft_shard_kind)k;
        const uint32_t space = weft_shard_space(m, kind);
        for (uint32_t layer = 0; layer < (weft_shard_layered(kind) ? m->n_layers : 1); layer++)
            for (uint32_t i = 0; i < space; i++) {
                const struct weft_shard_run run = {kind, layer, i, 1};
                struct weft_shard_part p[WEFT_SHARD_PARTS_MAX];
                size_t n = 0;
                ck_assert_int_eq(weft_shard_parts(m, &run, p, &n, NULL), 0);
                for (size_t j = 0; j < n; j++) {
                    uint8_t *buf = malloc(p[j].bytes);
                    weft_shard_read(m, &(struct weft_mapping){.data = l->data}, &p[j], 0, buf,
                                    p[j].bytes);
                    free(buf);
                    sum += kind == WEFT_SHARD_HEAD && m->tied ? 0 : p[j].bytes;
                }
            }
    }
    for (uint64_t i = 0; i < l->g.n_tensors; i++)
        tensors += l->g.tensors[i].bytes;
    ck_assert_uint_eq(sum, tensors); /* F16: no block straddles a cut */
}

START_TEST(shards_of_an_architecture_cover_it)
{
    struct loaded l;
    load_architecture(&l, _i);
    check_all_shards(&l);
    unload(&l);
}
END_TEST

/* A header with some bytes changed gives an error by name, or a model that is sound. */
START_TEST(damaged_headers)
{
    uint64_t seed = weft_test_seed();
    struct loaded l;
    load_architecture(&l, _i);
    uint8_t *copy = malloc(l.size);
    int loaded = 0;
    for (int round = 0; round < 400; round++) {
        struct loaded bad = {.data = copy, .size = l.size};
        weft_err err = {0};
        memcpy(copy, l.data, l.size);
        for (uint64_t n = 1 + weft_test_random(&seed) % 3; n > 0; n--)
            copy[weft_test_random(&seed) % l.g.data_offset] =
                (uint8_t)(weft_test_random(&seed) >> 9);
        if (weft_gguf_open(copy, l.size, &bad.g, &err) < 0)
            continue;
        int r = weft_model_from_gguf(&bad.g, NULL, &bad.m, &err);
        ck_assert_msg(r == 0 || (r == -err.code && err.text[0] != '\0'), "%d: %s", r, err.text);
        if (r == 0) {
            ck_assert_int_eq(weft_model_check(&bad.m, NULL), 0);
            check_all_shards(&bad);
            weft_model_done(&bad.m);
            loaded++;
        }
        weft_gguf_done(&bad.g);
    }
    ck_assert_int_gt(loaded, 0);
    free(copy);
    unload(&l);
}
END_TEST

START_TEST(what_cannot_be_divided)
{
    struct loaded l;
    load_architecture(&l, 6); /* olmo2 */
    ck_assert_str_eq(weft_shard_whole(&l.m, WEFT_SHARD_ATTN), "its q and k norms span all heads");
    ck_assert_ptr_null(weft_shard_whole(&l.m, WEFT_SHARD_FFN));
    unload(&l);
    load_architecture(&l, 10); /* qwen2moe */
    for (int kind = 0; kind < WEFT_SHARD_KIND_COUNT; kind++)
        ck_assert_ptr_null(weft_shard_whole(&l.m, (enum weft_shard_kind)kind));
    ck_assert_uint_eq(weft_shard_space(&l.m, WEFT_SHARD_EXPERT), 7);
    ck_assert_uint_ge(weft_shard_space(&l.m, WEFT_SHARD_FFN), 1); /* of the shared expert */
    const uint64_t all = weft_layer_weight_bytes(&l.m, 0);
    ck_assert_uint_lt(weft_layer_read_bytes(&l.m, 0, 1), all);
    ck_assert_uint_lt(weft_layer_read_bytes(&l.m, 0, 1), weft_layer_read_bytes(&l.m, 0, 2));
    ck_assert_uint_ge(weft_layer_read_bytes(&l.m, 0, 500), all - all / 1000);
    unload(&l);
}
END_TEST

/* ------------------------------------------------------------------ shards */

START_TEST(sizes_pad_rows)
{
    struct loaded l;
    load_llama(&l, &(struct gguf_writer_llama){.dim = 40, .heads = 4, .kv_heads = 1, .ffn = 50});
    /* rows: q 40, k 10, v 10, o 40, gate 50, up 50, down 40, each to the next multiple of 16 */
    ck_assert_uint_eq(weft_layer_weight_bytes(&l.m, 1),
                      (48 + 16 + 16 + 64 + 64) * 40 * 4 + 48 * 40 * 4 + 48 * 50 * 4 + 2 * 40 * 4);
    ck_assert_uint_eq(weft_embed_weight_bytes(&l.m), 112 * 40 * 4);
    ck_assert_uint_eq(weft_head_weight_bytes(&l.m), 112 * 40 * 4 + 40 * 4);
    ck_assert_uint_eq(weft_kv_position_bytes(&l.m, WEFT_KV_F32), 2 * 10 * 4);
    ck_assert_uint_eq(weft_kv_position_bytes(&l.m, WEFT_KV_Q8_0), 2 * (10 + 2));
    unload(&l);
}
END_TEST

static void expect_part(const struct weft_shard_part *p, enum weft_role role, uint32_t row,
                        uint32_t n_rows, uint32_t col, uint32_t n_cols, uint64_t bytes)
{
    ck_assert_int_eq(p->role, role);
    ck_assert_uint_eq(p->row, row);
    ck_assert_uint_eq(p->n_rows, n_rows);
    ck_assert_uint_eq(p->col, col);
    ck_assert_uint_eq(p->n_cols, n_cols);
    ck_assert_uint_eq(p->bytes, bytes);
}

START_TEST(parts)
{
    struct loaded l;
    struct weft_shard_part p[WEFT_SHARD_PARTS_MAX];
    size_t n;
    load_llama(&l, &(struct gguf_writer_llama){.rope_freqs = true});
    ck_assert_uint_eq(weft_shard_space(&l.m, WEFT_SHARD_ATTN), 2);
    ck_assert_uint_eq(weft_shard_space(&l.m, WEFT_SHARD_FFN), 2);
    ck_assert_uint_eq(weft_shard_space(&l.m, WEFT_SHARD_HEAD), 100);
    ck_assert_uint_eq(weft_shard_space(&l.m, WEFT_SHARD_EMBED), 1);

    struct weft_shard_run run = {.kind = WEFT_SHARD_ATTN, .layer = 1, .first = 1, .count = 1};
    ck_assert_int_eq(weft_shard_parts(&l.m, &run, p, &n, NULL), 0);
    ck_assert_uint_eq(n, 4);
    expect_part(&p[0], WEFT_ROLE_ATTN_Q, 32, 32, 0, 64, 32 * 64 * 4);
    expect_part(&p[1], WEFT_ROLE_ATTN_K, 16, 16, 0, 64, 16 * 64 * 4);
    expect_part(&p[2], WEFT_ROLE_ATTN_V, 16, 16, 0, 64, 16 * 64 * 4);
    expect_part(&p[3], WEFT_ROLE_ATTN_O, 0, 64, 32, 32, 64 * 32 * 4);
    ck_assert_uint_eq(p[3].layer, 1);

    run = (struct weft_shard_run){.kind = WEFT_SHARD_FFN, .first = 1, .count = 1};
    ck_assert_int_eq(weft_shard_parts(&l.m, &run, p, &n, NULL), 0);
    ck_assert_uint_eq(n, 3);
    expect_part(&p[0], WEFT_ROLE_FFN_GATE, 256, 64, 0, 64, 64 * 64 * 4);
    expect_part(&p[1], WEFT_ROLE_FFN_UP, 256, 64, 0, 64, 64 * 64 * 4);
    expect_part(&p[2], WEFT_ROLE_FFN_DOWN, 0, 64, 256, 64, 64 * 64 * 4);

    run = (struct weft_shard_run){.kind = WEFT_SHARD_HEAD, .first = 16, .count = 84};
    ck_assert_int_eq(weft_shard_parts(&l.m, &run, p, &n, NULL), 0);
    ck_assert_uint_eq(n, 1);
    expect_part(&p[0], WEFT_ROLE_OUTPUT, 16, 84, 0, 64, 84 * 64 * 4);

    run = (struct weft_shard_run){.kind = WEFT_SHARD_EMBED, .count = 1};
    ck_assert_int_eq(weft_shard_parts(&l.m, &run, p, &n, NULL), 0);
    ck_assert_uint_eq(n, 1);
    expect_part(&p[0], WEFT_ROLE_EMBED, 0, 100, 0, 64, 100 * 64 * 4);

    run = (struct weft_shard_run){.kind = WEFT_SHARD_NORMS, .layer = 1, .count = 1};
    ck_assert_int_eq(weft_shard_parts(&l.m, &run, p, &n, NULL), 0);
    ck_assert_uint_eq(n, 2);
    expect_part(&p[0], WEFT_ROLE_ATTN_NORM, 0, 1, 0, 64, 256);
    expect_part(&p[1], WEFT_ROLE_FFN_NORM, 0, 1, 0, 64, 256);

    run = (struct weft_shard_run){.kind = WEFT_SHARD_HEAD_NORM, .count = 1};
    ck_assert_int_eq(weft_shard_parts(&l.m, &run, p, &n, NULL), 0);
    ck_assert_uint_eq(n, 1);
    expect_part(&p[0], WEFT_ROLE_OUTPUT_NORM, 0, 1, 0, 64, 256);

    run = (struct weft_shard_run){.kind = WEFT_SHARD_ROPE, .count = 1};
    ck_assert_int_eq(weft_shard_parts(&l.m, &run, p, &n, NULL), 0);
    ck_assert_uint_eq(n, 1);
    expect_part(&p[0], WEFT_ROLE_ROPE_FREQS, 0, 1, 0, 8, 32);
    unload(&l);

    load_llama(&l, &(struct gguf_writer_llama){.tied = true}); /* and without rope_freqs */
    weft_err err = {0};
    ck_assert_int_eq(weft_shard_parts(&l.m, &run, p, &n, &err), -WEFT_ESHAPE);
    ck_assert_str_eq(err.text, "rope shards: the model has none");
    run = (struct weft_shard_run){.kind = WEFT_SHARD_HEAD, .first = 3, .count = 2};
    ck_assert_int_eq(weft_shard_parts(&l.m, &run, p, &n, NULL), 0);
    expect_part(&p[0], WEFT_ROLE_EMBED, 3, 2, 0, 64, 2 * 64 * 4);
    unload(&l);
}
END_TEST

/* Blocks of 256 columns straddle the cuts between groups of 96. */
START_TEST(parts_widen_to_blocks)
{
    struct loaded l;
    struct weft_shard_part p[WEFT_SHARD_PARTS_MAX];
    size_t n;
    load_llama(
        &l, &(struct gguf_writer_llama){
                .layers = 1, .dim = 768, .heads = 8, .kv_heads = 8, .ffn = 512, .type = WEFT_Q6_K});
    static const uint32_t expected[8][2] = {{0, 256},   {0, 256},   {0, 512},   {256, 256},
                                            {256, 256}, {256, 512}, {512, 256}, {512, 256}};
    for (uint32_t i = 0; i < 8; i++) {
        struct weft_shard_run run = {.kind = WEFT_SHARD_ATTN, .first = i, .count = 1};
        ck_assert_int_eq(weft_shard_parts(&l.m, &run, p, &n, NULL), 0);
        expect_part(&p[3], WEFT_ROLE_ATTN_O, 0, 768, expected[i][0], expected[i][1],
                    768ull * expected[i][1] / 256 * 210);
    }
    unload(&l);
}
END_TEST

START_TEST(runs_outside)
{
    static const struct {
        struct weft_shard_run run;
        const char *error;
    } cases[] = {
        {{WEFT_SHARD_ATTN, 0, 0, 3}, "attn shards: found 3 from 0 on, expected 1 to 2 within 0..1"},
        {{WEFT_SHARD_ATTN, 0, 2, 1}, "attn shards: found 1 from 2 on, expected 1 to 2 within 0..1"},
        {{WEFT_SHARD_ATTN, 0, 1, 0}, "attn shards: found 0 from 1 on, expected 1 to 2 within 0..1"},
        {{WEFT_SHARD_ATTN, 2, 0, 1}, "attn shards of layer 2, expected 0 to 1"},
        {{WEFT_SHARD_FFN, 0, UINT32_MAX, 2},
         "ffn shards: found 2 from 4294967295 on, expected 1 to 2 within 0..1"},
        {{WEFT_SHARD_HEAD, 0, 50, UINT32_MAX},
         "head shards: found 4294967295 from 50 on, expected 1 to 100 within 0..99"},
        {{WEFT_SHARD_HEAD, 1, 0, 1}, "head shards of layer 1, expected 0 to 0"},
        {{WEFT_SHARD_EMBED, 0, 1, 1},
         "embed shards: found 1 from 1 on, expected 1 to 1 within 0..0"},
        {{WEFT_SHARD_NORMS, 0, 0, 2},
         "norms shards: found 2 from 0 on, expected 1 to 1 within 0..0"},
        {{WEFT_SHARD_KIND_COUNT, 0, 0, 1}, "shard kind 8 is unknown"},
        {{(enum weft_shard_kind) - 1, 0, 0, 1}, "shard kind 4294967295 is unknown"},
    };
    struct loaded l;
    struct weft_shard_part p[WEFT_SHARD_PARTS_MAX];
    size_t n = 77;
    load_llama(&l, &(struct gguf_writer_llama){0});
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        weft_err err = {0};
        ck_assert_int_eq(weft_shard_parts(&l.m, &cases[i].run, p, &n, &err), -WEFT_ESHAPE);
        ck_assert_str_eq(err.text, cases[i].error);
    }
    ck_assert_uint_eq(n, 77);
    unload(&l);
}
END_TEST

START_TEST(shard_names)
{
    char buf[96];
    struct weft_shard_run run = {WEFT_SHARD_ATTN, 3, 0, 8};
    ck_assert_str_eq(weft_shard_name(buf, sizeof buf, &run, WEFT_ROLE_ATTN_Q),
                     "blk.3 kv groups 0..7 (attn_q)");
    run = (struct weft_shard_run){WEFT_SHARD_FFN, 0, 2, 1};
    ck_assert_str_eq(weft_shard_name(buf, sizeof buf, &run, WEFT_ROLE_FFN_DOWN),
                     "blk.0 ffn blocks 2..2 (ffn_down)");
    run = (struct weft_shard_run){WEFT_SHARD_HEAD, 0, 16, 84};
    ck_assert_str_eq(weft_shard_name(buf, sizeof buf, &run, WEFT_ROLE_OUTPUT),
                     "head rows 16..99 (output)");
    run = (struct weft_shard_run){WEFT_SHARD_NORMS, 1, 0, 1};
    ck_assert_str_eq(weft_shard_name(buf, sizeof buf, &run, WEFT_ROLE_FFN_NORM),
                     "blk.1 norms (ffn_norm)");
    ck_assert_str_eq(weft_shard_name(buf, 6, &run, WEFT_ROLE_FFN_NORM), "blk.1");
    ck_assert_str_eq(weft_shard_kind_name(WEFT_SHARD_HEAD_NORM), "head-norm");
    ck_assert_str_eq(weft_shard_kind_name(WEFT_SHARD_KIND_COUNT), "unknown");
}
END_TEST

/* The part's bytes, copied row by row and block by block from the tensor. */
static uint8_t *naive_copy(const struct loaded *l, const struct weft_shard_part *p)
{
    const struct weft_tensor *t = weft_model_tensor(&l->m, p->role, p->layer);
    const struct weft_tensor_type_info *info = weft_tensor_type_info(t->type);
    uint8_t *copy = malloc(p->bytes);
    size_t n = 0;
    for (uint32_t row = p->row; row < p->row + p->n_rows; row++) {
        for (uint32_t b = p->col / info->block_elems; b < (p->col + p->n_cols) / info->block_elems;
             b++) {
            uint64_t block = (uint64_t)row * (t->cols / info->block_elems) + b;
            memcpy(copy + n, l->data + t->offset + block * info->block_bytes, info->block_bytes);
            n += info->block_bytes;
        }
    }
    ck_assert_uint_eq(n, p->bytes);
    return copy;
}

START_TEST(reading)
{
    static const uint32_t types[] = {WEFT_F32,  WEFT_F16,    WEFT_Q8_0, WEFT_Q4_0, WEFT_Q6_K,
                                     WEFT_Q4_K, WEFT_IQ4_NL, WEFT_BF16, WEFT_Q5_1, WEFT_TQ1_0};
    uint64_t random = weft_test_seed();
    struct loaded l;
    struct weft_shard_part p[WEFT_SHARD_PARTS_MAX];
    size_t n;
    load_llama(&l, &(struct gguf_writer_llama){.layers = 2,
                                               .dim = 768,
                                               .heads = 12,
                                               .kv_heads = 6,
                                               .ffn = 768,
                                               .vocab = 50,
                                               .type = types[_i]});
    for (int i = 0; i < 60; i++) {
        enum weft_shard_kind kind = weft_test_random(&random) % WEFT_SHARD_KIND_COUNT;
        uint32_t space = weft_shard_space(&l.m, kind);
        struct weft_shard_run run = {.kind = kind};
        if (space == 0)
            continue;
        run.layer = weft_shard_layered(kind) ? (uint32_t)(weft_test_random(&random) % 2) : 0;
        run.first = (uint32_t)(weft_test_random(&random) % space);
        run.count = 1 + (uint32_t)(weft_test_random(&random) % (space - run.first));
        ck_assert_int_eq(weft_shard_parts(&l.m, &run, p, &n, NULL), 0);
        for (size_t k = 0; k < n; k++) {
            uint8_t *whole = naive_copy(&l, &p[k]);
            for (int j = 0; j < 20; j++) {
                uint64_t offset = j == 0 ? 0 : weft_test_random(&random) % (p[k].bytes + 1);
                uint64_t left = p[k].bytes - offset;
                size_t size = j == 0 ? left : weft_test_random(&random) % (left + 1);
                uint8_t *buf = malloc(size + (size == 0));
                weft_shard_read(&l.m, &(struct weft_mapping){.data = l.data}, &p[k], offset, buf,
                                size);
                bool same = memcmp(buf, whole + offset, size) == 0;
                free(buf);
                if (!same)
                    ck_abort_msg("%s %u+%u, part %zu: bytes %llu+%zu differ",
                                 weft_shard_kind_name(kind), run.first, run.count, k,
                                 (unsigned long long)offset, size);
            }
            free(whole);
        }
    }
    unload(&l);
}
END_TEST

START_TEST(rows_and_types)
{
    ck_assert_uint_eq(weft_row_bytes(WEFT_Q8_0, 64), 68);
    ck_assert_uint_eq(weft_row_bytes(WEFT_Q8_0, 65), 0);
    ck_assert_uint_eq(weft_row_bytes(WEFT_Q6_K, 512), 420);
    ck_assert_uint_eq(weft_row_bytes(WEFT_F16, 3), 6);
    ck_assert_uint_eq(weft_row_bytes(4, 32), 0);
    ck_assert_uint_eq(weft_row_bytes(WEFT_F64, UINT64_MAX), 0);
    for (uint32_t type = 0; type < WEFT_TENSOR_TYPE_COUNT + 1; type++) {
        /* What the planner counts on is what the kernels have. */
        ck_assert(weft_type_supported(type) == wk_type_supported(type));
        if (!wk_type_supported(type))
            continue;
        const struct weft_tensor_type_info *info = weft_tensor_type_info(type);
        uint32_t packed = type == WEFT_TQ1_0 ? WEFT_TQ2_0 : type;
        ck_assert_uint_eq(wk_matrix_bytes((enum wk_type)type, 16, 3 * info->block_elems),
                          16 * weft_row_bytes(packed, 3 * info->block_elems));
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("model");
    TCase *model = tcase_create("model"), *shards = tcase_create("shards");
    tcase_set_timeout(model, 60); /* sanitizers and emulators are slow */
    tcase_add_test(model, shape);
    tcase_add_test(model, defaults);
    tcase_add_test(model, head_dim_of_its_own);
    tcase_add_test(model, names_are_clean);
    tcase_add_loop_test(model, malformed, 0, sizeof bent / sizeof bent[0]);
    tcase_add_test(model, wire);
    tcase_add_test(model, identity);
    tcase_add_test(model, identity_is_fixed);
    tcase_add_loop_test(model, real_files, 0, sizeof files / sizeof files[0]);
    tcase_add_test(model, demo_model);
    tcase_add_loop_test(model, shards_of_an_architecture_cover_it, 0, N_ARCHITECTURES);
    tcase_add_loop_test(model, damaged_headers, 0, N_ARCHITECTURES);
    tcase_add_test(model, what_cannot_be_divided);
    suite_add_tcase(s, model);
    tcase_set_timeout(shards, 60);
    tcase_add_test(shards, rows_and_types);
    tcase_add_test(shards, sizes_pad_rows);
    tcase_add_test(shards, parts);
    tcase_add_test(shards, parts_widen_to_blocks);
    tcase_add_test(shards, runs_outside);
    tcase_add_test(shards, shard_names);
    tcase_add_loop_test(shards, reading, 0, 10);
    suite_add_tcase(s, shards);
    return weft_test_main(s);
}
