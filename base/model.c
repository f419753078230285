/*
 * The model's shape and tensors: the checks that a file's model and one from the wire have in
 * common. Invariant: see model.h; weft_model_check is the only judge of it. Pure.
 */
#include "base/model.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arch.h"
#include "base/text.h"

/* weft_type_supported, for people */
#define TYPES_OF_MATRICES \
    "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS TQ1_0 TQ2_0"

/* Names in the file; ".weight" follows, or ".bias". Vectors are F32 and packed as they are. */
static const struct {
    const char *name, *text; /* text: name, and ".bias" */
    bool bias, vector, experts;
} roles[WEFT_ROLE_COUNT] = {
#define MATRIX(n)            \
    {                        \
        .name = n, .text = n \
    }
#define VECTOR(n)                            \
    {                                        \
        .name = n, .text = n, .vector = true \
    }
#define BIAS(n)                                                    \
    {                                                              \
        .name = n, .text = n ".bias", .bias = true, .vector = true \
    }
#define EXPERTS(n)                            \
    {                                         \
        .name = n, .text = n, .experts = true \
    }
    [WEFT_ROLE_EMBED] = MATRIX("token_embd"),
    [WEFT_ROLE_OUTPUT_NORM] = VECTOR("output_norm"),
    [WEFT_ROLE_OUTPUT] = MATRIX("output"),
    [WEFT_ROLE_ROPE_FREQS] = VECTOR("rope_freqs"),
    [WEFT_ROLE_ROPE_LONG] = VECTOR("rope_factors_long"),
    [WEFT_ROLE_ROPE_SHORT] = VECTOR("rope_factors_short"),
    [WEFT_ROLE_ATTN_NORM] = VECTOR("attn_norm"),
    [WEFT_ROLE_ATTN_Q] = MATRIX("attn_q"),
    [WEFT_ROLE_ATTN_K] = MATRIX("attn_k"),
    [WEFT_ROLE_ATTN_V] = MATRIX("attn_v"),
    [WEFT_ROLE_ATTN_O] = MATRIX("attn_output"),
    [WEFT_ROLE_ATTN_Q_BIAS] = BIAS("attn_q"),
    [WEFT_ROLE_ATTN_K_BIAS] = BIAS("attn_k"),
    [WEFT_ROLE_ATTN_V_BIAS] = BIAS("attn_v"),
    [WEFT_ROLE_ATTN_O_BIAS] = BIAS("attn_output"),
    [WEFT_ROLE_ATTN_Q_NORM] = VECTOR("attn_q_norm"),
    [WEFT_ROLE_ATTN_K_NORM] = VECTOR("attn_k_norm"),
    [WEFT_ROLE_ATTN_POST_NORM] = VECTOR("post_attention_norm"),
    [WEFT_ROLE_FFN_NORM] = VECTOR("ffn_norm"),
    [WEFT_ROLE_FFN_GATE] = MATRIX("ffn_gate"),
    [WEFT_ROLE_FFN_UP] = MATRIX("ffn_up"),
    [WEFT_ROLE_FFN_DOWN] = MATRIX("ffn_down"),
    [WEFT_ROLE_FFN_GATE_BIAS] = BIAS("ffn_gate"),
    [WEFT_ROLE_FFN_UP_BIAS] = BIAS("ffn_up"),
    [WEFT_ROLE_FFN_DOWN_BIAS] = BIAS("ffn_down"),
    [WEFT_ROLE_FFN_POST_NORM] = VECTOR("post_ffw_norm"),
    [WEFT_ROLE_ROUTER] = MATRIX("ffn_gate_inp"),
    [WEFT_ROLE_EXPERT_GATE] = EXPERTS("ffn_gate_exps"),
    [WEFT_ROLE_EXPERT_UP] = EXPERTS("ffn_up_exps"),
    [WEFT_ROLE_EXPERT_DOWN] = EXPERTS("ffn_down_exps"),
    [WEFT_ROLE_SHARED_ROUTER] = MATRIX("ffn_gate_inp_shexp"),
    [WEFT_ROLE_SHARED_GATE] = MATRIX("ffn_gate_shexp"),
    [WEFT_ROLE_SHARED_UP] = MATRIX("ffn_up_shexp"),
    [WEFT_ROLE_SHARED_DOWN] = MATRIX("ffn_down_shexp"),
};

const char *weft_role_name(enum weft_role role)
{
    assert(role < WEFT_ROLE_COUNT);
    return roles[role].text;
}

char *weft_role_tensor_name(char *buf, enum weft_role role, uint32_t layer)
{
    assert(role < WEFT_ROLE_COUNT);
    const char *name = roles[role].name, *what = roles[role].bias ? "bias" : "weight";
    if (role < WEFT_ROLE_GLOBAL_COUNT)
        snprintf(buf, WEFT_GGUF_NAME_MAX + 1, "%s.%s", name, what);
    else
        snprintf(buf, WEFT_GGUF_NAME_MAX + 1, "blk.%u.%s.%s", layer, name, what);
    return buf;
}

bool weft_role_matrix(enum weft_role role)
{
    return !roles[role].vector;
}

bool weft_role_experts(enum weft_role role)
{
    return roles[role].experts;
}

const struct weft_tensor *weft_model_tensor(const struct weft_model *m, enum weft_role role,
                                            uint32_t layer)
{
    return role < WEFT_ROLE_GLOBAL_COUNT ? &m->global[role]
                                         : &m->layers[layer].role[role - WEFT_ROLE_GLOBAL_COUNT];
}

uint64_t weft_row_bytes(uint32_t type, uint64_t cols)
{
    const struct weft_tensor_type_info *info = weft_tensor_type_info(type);
    uint64_t bytes;
    if (info == NULL || cols % info->block_elems != 0 ||
        __builtin_mul_overflow(cols / info->block_elems, (uint64_t)info->block_bytes, &bytes))
        return 0;
    return bytes;
}

bool weft_type_supported(uint32_t type)
{
    switch (type) {
    case WEFT_F32:
    case WEFT_F16:
    case WEFT_BF16:
    case WEFT_Q8_0:
    case WEFT_Q4_0:
    case WEFT_Q4_1:
    case WEFT_Q5_0:
    case WEFT_Q5_1:
    case WEFT_Q2_K:
    case WEFT_Q3_K:
    case WEFT_Q4_K:
    case WEFT_Q5_K:
    case WEFT_Q6_K:
    case WEFT_IQ4_NL:
    case WEFT_IQ4_XS:
    case WEFT_TQ1_0:
    case WEFT_TQ2_0:
        return true;
    default:
        return false;
    }
}

static bool quantised(const struct weft_tensor *t)
{
    return t->bytes != 0 && t->type != WEFT_F32 && t->type != WEFT_F16 && t->type != WEFT_BF16;
}

bool weft_model_quantised(const struct weft_model *m)
{
    for (int role = 0; role < WEFT_ROLE_GLOBAL_COUNT; role++)
        if (quantised(&m->global[role]))
            return true;
    for (uint32_t layer = 0; layer < m->n_layers; layer++)
        for (int role = 0; role < WEFT_ROLE_LAYER_COUNT; role++)
            if (quantised(&m->layers[layer].role[role]))
                return true;
    return false;
}

void weft_model_done(struct weft_model *m)
{
    free(m->layers);
    *m = (struct weft_model){0};
}

struct weft_traits weft_traits_plain(const struct weft_model *m)
{
    return (struct weft_traits){
        .embed_scale = 1,
        .residual_scale = 1,
        .logit_scale = 1,
        .attn_scale = 1.0f / sqrtf((float)m->head_dim),
        .rope_factor = 1,
        .rope_magnitude = 1,
        .rope_original = m->context_max,
        .yarn_extrapolation = 1,
        .yarn_fast = 32, /* the paper's */
        .yarn_slow = 1,
        .expert_scale = 1,
    };
}

bool weft_traits_equal(const struct weft_traits *a, const struct weft_traits *b)
{
    return a->embed_scale == b->embed_scale && a->residual_scale == b->residual_scale &&
           a->logit_scale == b->logit_scale && a->attn_scale == b->attn_scale &&
           a->attn_softcap == b->attn_softcap && a->logit_softcap == b->logit_softcap &&
           a->window == b->window && a->window_period == b->window_period &&
           a->rope_skip == b->rope_skip && a->rope_scaling == b->rope_scaling &&
           a->rope_factor == b->rope_factor && a->rope_magnitude == b->rope_magnitude &&
           a->rope_window_base == b->rope_window_base &&
           a->yarn_extrapolation == b->yarn_extrapolation && a->yarn_fast == b->yarn_fast &&
           a->yarn_slow == b->yarn_slow && a->rope_original == b->rope_original &&
           a->n_experts == b->n_experts && a->n_experts_used == b->n_experts_used &&
           a->expert_ffn == b->expert_ffn && a->expert_renormalise == b->expert_renormalise &&
           a->expert_scale == b->expert_scale;
}

/* ------------------------------------------------------------------ checks */

static int check_text(const char *text, size_t size, const char *what, weft_err *err)
{
    size_t n = strnlen(text, size);
    if (n == size)
        return weft_fail(err, WEFT_EMODEL, "%s: not terminated within %zu bytes", what, size);
    for (size_t i = 0, step; i < n; i += step) {
        uint32_t code = 0;
        step = weft_utf8_decode(text + i, n - i, &code);
        if (step == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0))
            return weft_fail(err, WEFT_EMODEL, "%s: byte %zu is no printable UTF-8", what, i);
    }
    return 0;
}

static int check_range(const char *what, uint32_t value, uint32_t max, weft_err *err)
{
    if (value >= 1 && value <= max)
        return 0;
    return weft_fail(err, WEFT_EMODEL, "%s: found %u, expected 1 to %u", what, value, max);
}

static int check_shape(const struct weft_model *m, weft_err *err)
{
    const struct {
        const char *what;
        uint32_t value, max;
    } ranges[] = {
        {"block_count", m->n_layers, WEFT_LAYERS_MAX},
        {"embedding_length", m->dim, WEFT_DIM_MAX},
        {"attention.head_count", m->n_heads, WEFT_HEADS_MAX},
        {"attention.head_count_kv", m->n_kv_heads, WEFT_HEADS_MAX},
        {"attention.key_length", m->head_dim, WEFT_DIM_MAX},
        {"vocab_size", m->vocab, WEFT_VOCAB_MAX},
        {"context_length", m->context_max, WEFT_CONTEXT_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        int r = check_range(ranges[i].what, ranges[i].value, ranges[i].max, err);
        if (r < 0)
            return r;
    }
    const bool experts_only = m->traits.n_experts > 0 && !weft_arch_of(m)->shared;
    if (experts_only && m->ffn_dim != 0)
        return weft_fail(err, WEFT_EMODEL,
                         "feed_forward_length: found %u, expected 0 beside the experts",
                         m->ffn_dim);
    if (!experts_only && (m->ffn_dim < 1 || m->ffn_dim > WEFT_FFN_MAX))
        return weft_fail(err, WEFT_EMODEL, "feed_forward_length: found %u, expected 1 to %u",
                         m->ffn_dim, WEFT_FFN_MAX);
    if (m->n_heads % m->n_kv_heads != 0)
        return weft_fail(err, WEFT_EMODEL,
                         "attention.head_count: found %u, expected a multiple of the %u KV heads",
                         m->n_heads, m->n_kv_heads);
    if ((uint64_t)m->n_heads * m->head_dim > WEFT_DIM_MAX)
        return weft_fail(err, WEFT_EMODEL,
                         "%u heads of %u: found %llu columns, expected at most %u", m->n_heads,
                         m->head_dim, (unsigned long long)m->n_heads * m->head_dim, WEFT_DIM_MAX);
    if (m->rope_dim == 0 || m->rope_dim % 2 != 0 || m->rope_dim > m->head_dim)
        return weft_fail(err, WEFT_EMODEL,
                         "rope.dimension_count: found %u, expected an even number from 2 to %u",
                         m->rope_dim, m->head_dim);
    if (!isfinite(m->rope_base) || m->rope_base <= 0)
        return weft_fail(err, WEFT_EMODEL, "rope.freq_base: found %g, expected a number above 0",
                         (double)m->rope_base);
    if (!isfinite(m->norm_eps) || m->norm_eps <= 0 || m->norm_eps >= 1)
        return weft_fail(err, WEFT_EMODEL,
                         "attention.layer_norm_rms_epsilon: found %g, expected a "
                         "number between 0 and 1",
                         (double)m->norm_eps);
    return 0;
}

static int check_numbers(const struct weft_model *m, weft_err *err)
{
    const struct weft_traits *t = &m->traits;
    const struct {
        const char *what;
        float value, least; /* and finite */
    } floats[] = {
        {"embedding_scale", t->embed_scale, FLT_MIN},
        {"residual_scale", t->residual_scale, FLT_MIN},
        {"attention.scale", t->attn_scale, FLT_MIN},
        {"attn_logit_softcapping", t->attn_softcap, 0},
        {"final_logit_softcapping", t->logit_softcap, 0},
        {"rope.scaling.factor", t->rope_factor, FLT_MIN},
        {"rope.scaling.attn_factor", t->rope_magnitude, FLT_MIN},
        {"rope.freq_base_swa", t->rope_window_base, 0},
        {"rope.scaling.yarn_ext_factor", t->yarn_extrapolation, 0},
        {"rope.scaling.yarn_beta_fast", t->yarn_fast, 0},
        {"rope.scaling.yarn_beta_slow", t->yarn_slow, 0},
        {"expert_weights_scale", t->expert_scale, FLT_MIN},
    };
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++)
        if (!isfinite(floats[i].value) || floats[i].value < floats[i].least)
            return weft_fail(err, WEFT_EMODEL, "%s: found %g, expected a number %s 0",
                             floats[i].what, (double)floats[i].value,
                             floats[i].least > 0 ? "above" : "not below");
    if (!isfinite(t->logit_scale) || t->logit_scale == 0)
        return weft_fail(err, WEFT_EMODEL, "logit_scale: found a factor of %g, expected another",
                         (double)t->logit_scale);
    if ((unsigned)t->rope_scaling >= WEFT_ROPE_SCALING_COUNT)
        return weft_fail(err, WEFT_EUNSUPPORTED, "rope scaling %u", (unsigned)t->rope_scaling);
    if (t->rope_original < 1 || t->rope_original > WEFT_CONTEXT_MAX)
        return weft_fail(err, WEFT_EMODEL,
                         "rope.scaling.original_context_length: found %u, expected 1 to %u",
                         t->rope_original, WEFT_CONTEXT_MAX);
    if (t->rope_scaling == WEFT_ROPE_YARN &&
        !(m->rope_base > 1 && t->yarn_slow > 0 && t->yarn_fast > t->yarn_slow))
        return weft_fail(
            err, WEFT_EMODEL,
            "rope scaling yarn of base %g between %g and %g turns: expected a base above "
            "1 and a falling range above 0",
            (double)m->rope_base, (double)t->yarn_fast, (double)t->yarn_slow);
    const bool long_there = m->global[WEFT_ROLE_ROPE_LONG].bytes > 0,
               short_there = m->global[WEFT_ROLE_ROPE_SHORT].bytes > 0;
    if (long_there != short_there || long_there != (t->rope_scaling == WEFT_ROPE_LONGROPE))
        return weft_fail(err, WEFT_EMODEL,
                         "rope scaling %s longrope, but the tensors rope_factors_long and "
                         "rope_factors_short are %s",
                         t->rope_scaling == WEFT_ROPE_LONGROPE ? "is" : "is not",
                         long_there && short_there   ? "there"
                         : long_there || short_there ? "not both there"
                                                     : "missing");
    return 0;
}

static uint32_t pieces_of(uint32_t ffn)
{
    return (ffn + WEFT_FFN_PIECE - 1) / WEFT_FFN_PIECE;
}

static int check_experts(const struct weft_model *m, weft_err *err)
{
    const struct weft_traits *t = &m->traits;
    const struct weft_arch *a = weft_arch_of(m);
    if (t->n_experts == 0 && (t->n_experts_used != 0 || t->expert_ffn != 0))
        return weft_fail(err, WEFT_EMODEL,
                         "a model without experts, but %u of them used, FFN %u each: expected 0 "
                         "and 0",
                         t->n_experts_used, t->expert_ffn);
    if (t->n_experts == 0 && a->experts != WEFT_EXPERTS_ALWAYS)
        return 0;
    if (a->experts == WEFT_EXPERTS_NEVER)
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "expert_count: found %u, supported for %s are models without experts",
                         t->n_experts, m->arch);
    int r = check_range("expert_count", t->n_experts, WEFT_EXPERTS_MAX, err);
    if (r == 0)
        r = check_range("expert_used_count", t->n_experts_used, t->n_experts, err);
    if (r == 0)
        r = check_range("expert_feed_forward_length", t->expert_ffn, WEFT_FFN_MAX, err);
    /* As many pieces as an exact sum holds when each is below 2^21 in units of 2^-30. */
    const uint64_t pieces = (uint64_t)t->n_experts_used * pieces_of(t->expert_ffn) +
                            (m->ffn_dim <= WEFT_FFN_MAX ? pieces_of(m->ffn_dim) : 0);
    if (r == 0 && pieces > WEFT_PIECES_MAX)
        r = weft_fail(err, WEFT_EUNSUPPORTED,
                      "%u experts a token, FFN %u each: sums of %llu pieces, supported are %u",
                      t->n_experts_used, t->expert_ffn, (unsigned long long)pieces,
                      WEFT_PIECES_MAX);
    return r;
}

static int check_type(uint32_t type, bool matrix, weft_err *err)
{
    if (matrix ? weft_type_supported(type) : type == WEFT_F32)
        return 0;
    const struct weft_tensor_type_info *info = weft_tensor_type_info(type);
    char number[16];
    snprintf(number, sizeof number, "%u", type);
    return weft_fail(err, WEFT_EUNSUPPORTED, "type %s: supported %s",
                     info != NULL ? info->name : number,
                     matrix ? "are: " TYPES_OF_MATRICES : "is: F32");
}

static int check_tensor(const struct weft_model *m, enum weft_role role, uint32_t layer,
                        weft_err *err)
{
    const struct weft_tensor *t = weft_model_tensor(m, role, layer);
    char name[WEFT_GGUF_NAME_MAX + 1];
    const enum weft_presence presence = weft_arch_presence(m, role);
    uint64_t rows;
    uint32_t cols;
    int r;
    weft_role_tensor_name(name, role, layer);
    if (t->bytes == 0)
        return presence != WEFT_REQUIRED
                   ? 0
                   : weft_fail(err, WEFT_EMODEL, "tensor %s is missing", name);
    if (presence == WEFT_ABSENT)
        return weft_fail(err, WEFT_EUNSUPPORTED, "tensor %s: not part of a %s%s as weft knows it",
                         name, m->arch, m->traits.n_experts > 0 ? " with experts" : "");
    weft_arch_dims(m, role, &rows, &cols);
    r = check_type(t->type, weft_role_matrix(role), err);
    if (r == 0 && (t->rows != rows || t->cols != cols))
        r = weft_fail(err, WEFT_EMODEL, "found %u x %u (rows x columns), expected %llu x %u",
                      t->rows, t->cols, (unsigned long long)rows, cols);
    /* Neither overflows: rows are below 2^32 and a row at most 2^22 bytes. */
    uint64_t row_bytes = weft_row_bytes(t->type, cols);
    if (r == 0 && row_bytes == 0)
        r = weft_fail(err, WEFT_EMODEL, "rows of %u elements, expected whole blocks of %u", cols,
                      weft_tensor_type_info(t->type)->block_elems);
    if (r == 0 && t->bytes != rows * row_bytes)
        r = weft_fail(err, WEFT_EMODEL, "found %llu bytes, expected %llu",
                      (unsigned long long)t->bytes, (unsigned long long)(rows * row_bytes));
    if (r < 0 && err != NULL)
        weft_err_prefix(err, "tensor %s", name);
    return r;
}

int weft_model_check(const struct weft_model *m, weft_err *err)
{
    int r = check_text(m->arch, sizeof m->arch, "architecture", err);
    if (r == 0)
        r = check_text(m->name, sizeof m->name, "model name", err);
    if (r < 0)
        return r;
    if (weft_arch_find(m->arch) == NULL)
        return weft_arch_refuse(m->arch, err);
    r = check_experts(m, err);
    if (r == 0)
        r = check_shape(m, err);
    if (r == 0)
        r = check_numbers(m, err);
    assert(r < 0 || m->layers != NULL);
    for (int role = 0; r == 0 && role < WEFT_ROLE_GLOBAL_COUNT; role++)
        r = check_tensor(m, (enum weft_role)role, 0, err);
    for (uint32_t layer = 0; r == 0 && layer < m->n_layers; layer++)
        for (int role = WEFT_ROLE_GLOBAL_COUNT; r == 0 && role < WEFT_ROLE_COUNT; role++)
            r = check_tensor(m, (enum weft_role)role, layer, err);
    if (r < 0)
        return r;
    if (m->tied != (m->global[WEFT_ROLE_OUTPUT].bytes == 0))
        return weft_fail(err, WEFT_EMODEL,
                         "the output head is said to be %s, but output.weight is %s",
                         m->tied ? "tied" : "its own", m->tied ? "there" : "missing");
    return 0;
}
