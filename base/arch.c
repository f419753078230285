/*
 * Architectures, see arch.h. The facts are those of the public converters and engines (the GGUF
 * specification in the ggml repository, docs/gguf.md, names keys and tensors). Pure.
 */
#include "base/arch.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define BIT(role) (UINT64_C(1) << WEFT_ROLE_##role)
#define QKV_BIASES (BIT(ATTN_Q_BIAS) | BIT(ATTN_K_BIAS) | BIT(ATTN_V_BIAS))
#define FFN_BIASES (BIT(FFN_GATE_BIAS) | BIT(FFN_UP_BIAS) | BIT(FFN_DOWN_BIAS))
#define LONGROPE (BIT(ROPE_LONG) | BIT(ROPE_SHORT))
#define LLAMA_OPTIONS (BIT(ROPE_FREQS) | LONGROPE | QKV_BIASES | BIT(ATTN_O_BIAS) | FFN_BIASES)

_Static_assert(WEFT_ROLE_COUNT <= 64, "roles fit a word");

/* ------------------------------------------------------------------ keys */

#define KEY_SIZE 128 /* the longest published key has 60 bytes */

const struct weft_gguf_kv *weft_arch_kv(const struct weft_gguf *g, const struct weft_model *m,
                                        const char *rest)
{
    char key[KEY_SIZE];
    snprintf(key, sizeof key, "%s.%s", m->arch, rest);
    return weft_gguf_kv(g, key);
}

int weft_arch_u32(const struct weft_gguf *g, const struct weft_model *m, const char *rest,
                  uint32_t *ret, weft_err *err)
{
    const struct weft_gguf_kv *kv = weft_arch_kv(g, m, rest);
    char key[KEY_SIZE];
    snprintf(key, sizeof key, "%s.%s", m->arch, rest);
    if (kv == NULL)
        return 0;
    if (kv->type == WEFT_GGUF_ARRAY)
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "key %s: found a value per layer, supported is one for all layers", key);
    return weft_gguf_u32(g, key, ret, err);
}

int weft_arch_f32(const struct weft_gguf *g, const struct weft_model *m, const char *rest,
                  float *ret, weft_err *err)
{
    char key[KEY_SIZE];
    snprintf(key, sizeof key, "%s.%s", m->arch, rest);
    return weft_gguf_kv(g, key) == NULL ? 0 : weft_gguf_f32(g, key, ret, err);
}

/* A window, and which layers have it: the key is a period, or newer a flag for each layer, which is
 * accepted where it says the same as a period. */
static int read_window(const struct weft_gguf *g, struct weft_model *m, uint32_t period,
                       weft_err *err)
{
    int r = weft_arch_u32(g, m, "attention.sliding_window", &m->traits.window, err);
    const struct weft_gguf_kv *kv = weft_arch_kv(g, m, "attention.sliding_window_pattern");
    if (r == 0 && kv != NULL && kv->type == WEFT_GGUF_ARRAY) {
        bool ok = kv->item_type == WEFT_GGUF_BOOL && kv->count == m->n_layers;
        for (uint64_t i = 0; ok && i < kv->count; i++)
            ok = (kv->data[i] != 0) == (i % period != period - 1);
        if (!ok)
            return weft_fail(
                err, WEFT_EUNSUPPORTED,
                "key %s.attention.sliding_window_pattern: supported is a flag for each "
                "of the %u layers, false for every %uth",
                m->arch, m->n_layers, period);
    } else if (r == 0) {
        r = weft_arch_u32(g, m, "attention.sliding_window_pattern", &period, err);
    }
    m->traits.window_period = m->traits.window > 0 ? period : 0;
    return r;
}

static float inverse_sqrt(uint32_t n)
{
    return 1.0f / sqrtf((float)n);
}

static int read_gemma(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    (void)g;
    (void)err;
    m->traits.embed_scale = sqrtf((float)m->dim);
    return 0;
}

static int read_gemma2(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    m->traits.embed_scale = sqrtf((float)m->dim);
    m->traits.window = 4096; /* of the published models, whose older files do not say it */
    m->traits.attn_softcap = 50;
    m->traits.logit_softcap = 30;
    if (m->n_layers == 46 &&
        m->n_heads > 0) /* 27B: queries are scaled as if heads filled the row */
        m->traits.attn_scale = inverse_sqrt(m->dim / m->n_heads);
    int r = weft_arch_f32(g, m, "attn_logit_softcapping", &m->traits.attn_softcap, err);
    if (r == 0)
        r = weft_arch_f32(g, m, "final_logit_softcapping", &m->traits.logit_softcap, err);
    return r == 0 ? read_window(g, m, 2, err) : r;
}

static int read_gemma3(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    m->traits.embed_scale = sqrtf((float)m->dim);
    if (m->n_layers == 62 && m->n_heads > 0) /* 27B */
        m->traits.attn_scale = inverse_sqrt(m->dim / m->n_heads);
    int r = weft_arch_f32(g, m, "final_logit_softcapping", &m->traits.logit_softcap, err);
    if (r == 0)
        r = read_window(g, m, 6, err);
    if (r == 0 && m->traits.window > 0) {
        m->traits.rope_window_base = 10000;
        r = weft_arch_f32(g, m, "rope.freq_base_swa", &m->traits.rope_window_base, err);
    }
    return r;
}

/* Olmo 3 calls itself olmo2 too; its windowed layers turn by plain angles. */
static int read_olmo2(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    int r = read_window(g, m, 4, err);
    m->traits.rope_window_base = m->traits.window > 0 ? m->rope_base : 0;
    return r;
}

static int read_phi3(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    return weft_arch_u32(g, m, "attention.sliding_window", &m->traits.window, err);
}

static int read_smollm3(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    (void)g;
    (void)err;
    m->traits.rope_skip = 4;
    return 0;
}

/* The keys hold a divisor of the logits. Hybrids turn rotation off with a flag of another purpose.
 */
static int read_granite(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    float divisor = 1;
    bool rotates = true;
    int r = weft_arch_f32(g, m, "logit_scale", &divisor, err);
    if (r == 0)
        r = weft_arch_f32(g, m, "embedding_scale", &m->traits.embed_scale, err);
    if (r == 0)
        r = weft_arch_f32(g, m, "residual_scale", &m->traits.residual_scale, err);
    if (r == 0)
        r = weft_arch_f32(g, m, "attention.scale", &m->traits.attn_scale, err);
    if (r == 0 && weft_gguf_kv(g, "granite.rope.scaling.finetuned") != NULL)
        r = weft_gguf_bool(g, "granite.rope.scaling.finetuned", &rotates, err);
    if (r == 0 && !rotates)
        r = weft_fail(err, WEFT_EUNSUPPORTED,
                      "key granite.rope.scaling.finetuned: found false (no rotation by positions), "
                      "supported is true");
    if (r == 0 && divisor == 0)
        r = weft_fail(err, WEFT_EMODEL,
                      "key granite.logit_scale: found 0, expected another number");
    if (r == 0)
        m->traits.logit_scale = 1.0f / divisor;
    return r;
}

/* ------------------------------------------------------------------ the table */

static const struct weft_arch archs[] = {
    {.name = "llama", /* Llama 1 to 3.3, Mistral, Mixtral, SmolLM, TinyLlama, … */
     .pre_norm = true,
     .experts = WEFT_EXPERTS_MAYBE,
     .experts_renormalise = true,
     .optional = BIT(OUTPUT) | LLAMA_OPTIONS},
    {.name = "qwen2", .pre_norm = true, .rope_halves = true, .optional = BIT(OUTPUT) | QKV_BIASES},
    {.name = "qwen2moe",
     .pre_norm = true,
     .rope_halves = true,
     .experts = WEFT_EXPERTS_ALWAYS,
     .shared = true,
     .optional = BIT(OUTPUT) | QKV_BIASES},
    {.name = "qwen3",
     .pre_norm = true,
     .rope_halves = true,
     .qk_norm = WEFT_QK_NORM_HEAD,
     .optional = BIT(OUTPUT)},
    {.name = "qwen3moe",
     .pre_norm = true,
     .rope_halves = true,
     .qk_norm = WEFT_QK_NORM_HEAD,
     .experts = WEFT_EXPERTS_ALWAYS,
     .experts_renormalise = true,
     .optional = BIT(OUTPUT)},
    {.name = "phi3",
     .pre_norm = true,
     .rope_halves = true,
     .optional = BIT(OUTPUT) | LONGROPE,
     .read = read_phi3},
    {.name = "gemma",
     .pre_norm = true,
     .rope_halves = true,
     .gelu = true,
     .tied = true,
     .read = read_gemma},
    {.name = "gemma2",
     .pre_norm = true,
     .post_norm = true,
     .rope_halves = true,
     .gelu = true,
     .tied = true,
     .read = read_gemma2},
    {.name = "gemma3",
     .pre_norm = true,
     .post_norm = true,
     .rope_halves = true,
     .gelu = true,
     .qk_norm = WEFT_QK_NORM_HEAD,
     .optional = BIT(OUTPUT),
     .read = read_gemma3},
    {.name = "smollm3", .pre_norm = true, .optional = BIT(OUTPUT), .read = read_smollm3},
    {.name = "granite",
     .pre_norm = true,
     .optional = BIT(OUTPUT) | LLAMA_OPTIONS,
     .read = read_granite},
    {.name = "olmo2",
     .post_norm = true,
     .rope_halves = true,
     .qk_norm = WEFT_QK_NORM_ALL,
     .optional = BIT(OUTPUT),
     .read = read_olmo2},
};
enum { N_ARCHS = sizeof archs / sizeof archs[0] };

const struct weft_arch *weft_arch_find(const char *name)
{
    for (size_t i = 0; i < N_ARCHS; i++)
        if (strcmp(archs[i].name, name) == 0)
            return &archs[i];
    return NULL;
}

const struct weft_arch *weft_arch_of(const struct weft_model *m)
{
    const struct weft_arch *arch = weft_arch_find(m->arch);
    assert(arch != NULL); /* weft_model_check accepted it */
    return arch;
}

int weft_arch_refuse(const char *name, weft_err *err)
{
    char list[256]; /* the names of the table */
    size_t n = 0;
    for (size_t i = 0; i < N_ARCHS && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, " %s", archs[i].name);
    assert(n < sizeof list);
    return weft_fail(err, WEFT_EUNSUPPORTED, "architecture '%s': supported are:%s", name, list);
}

/* Roles by what they depend on; those of no group are required of every model. */
enum weft_presence weft_arch_presence(const struct weft_model *m, enum weft_role role)
{
    const uint64_t pre = BIT(ATTN_NORM) | BIT(FFN_NORM),
                   post = BIT(ATTN_POST_NORM) | BIT(FFN_POST_NORM),
                   qk = BIT(ATTN_Q_NORM) | BIT(ATTN_K_NORM),
                   dense = BIT(FFN_GATE) | BIT(FFN_UP) | BIT(FFN_DOWN) | FFN_BIASES,
                   routed = BIT(ROUTER) | BIT(EXPERT_GATE) | BIT(EXPERT_UP) | BIT(EXPERT_DOWN),
                   shared =
                       BIT(SHARED_ROUTER) | BIT(SHARED_GATE) | BIT(SHARED_UP) | BIT(SHARED_DOWN);
    const uint64_t sometimes =
        BIT(OUTPUT) | BIT(ROPE_FREQS) | LONGROPE | QKV_BIASES | BIT(ATTN_O_BIAS) | FFN_BIASES;
    const struct weft_arch *a = weft_arch_of(m);
    const bool experts = m->traits.n_experts > 0;
    const struct {
        uint64_t roles;
        bool has;
    } groups[] = {
        {pre, a->pre_norm}, {post, a->post_norm}, {qk, a->qk_norm != WEFT_QK_NORM_NONE},
        {dense, !experts},  {routed, experts},    {shared, experts && a->shared},
    };
    const uint64_t bit = UINT64_C(1) << role;
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
        if ((groups[i].roles & bit) != 0 && !groups[i].has)
            return WEFT_ABSENT;
    if ((a->optional & bit) != 0)
        return WEFT_OPTIONAL;
    return (sometimes & bit) != 0 ? WEFT_ABSENT : WEFT_REQUIRED;
}

void weft_arch_dims(const struct weft_model *m, enum weft_role role, uint64_t *ret_rows,
                    uint32_t *ret_cols)
{
    const uint32_t q = m->n_heads * m->head_dim, kv = m->n_kv_heads * m->head_dim;
    const bool whole = weft_arch_of(m)->qk_norm == WEFT_QK_NORM_ALL;
    const uint32_t ffn = m->ffn_dim, experts = m->traits.n_experts, own = m->traits.expert_ffn;
    const struct {
        uint64_t rows;
        uint32_t cols;
    } dims[WEFT_ROLE_COUNT] = {
        [WEFT_ROLE_EMBED] = {m->vocab, m->dim},
        [WEFT_ROLE_OUTPUT_NORM] = {1, m->dim},
        [WEFT_ROLE_OUTPUT] = {m->vocab, m->dim},
        [WEFT_ROLE_ROPE_FREQS] = {1, m->rope_dim / 2},
        [WEFT_ROLE_ROPE_LONG] = {1, m->rope_dim / 2},
        [WEFT_ROLE_ROPE_SHORT] = {1, m->rope_dim / 2},
        [WEFT_ROLE_ATTN_NORM] = {1, m->dim},
        [WEFT_ROLE_ATTN_Q] = {q, m->dim},
        [WEFT_ROLE_ATTN_K] = {kv, m->dim},
        [WEFT_ROLE_ATTN_V] = {kv, m->dim},
        [WEFT_ROLE_ATTN_O] = {m->dim, q},
        [WEFT_ROLE_ATTN_Q_BIAS] = {1, q},
        [WEFT_ROLE_ATTN_K_BIAS] = {1, kv},
        [WEFT_ROLE_ATTN_V_BIAS] = {1, kv},
        [WEFT_ROLE_ATTN_O_BIAS] = {1, m->dim},
        [WEFT_ROLE_ATTN_Q_NORM] = {1, whole ? q : m->head_dim},
        [WEFT_ROLE_ATTN_K_NORM] = {1, whole ? kv : m->head_dim},
        [WEFT_ROLE_ATTN_POST_NORM] = {1, m->dim},
        [WEFT_ROLE_FFN_NORM] = {1, m->dim},
        [WEFT_ROLE_FFN_GATE] = {ffn, m->dim},
        [WEFT_ROLE_FFN_UP] = {ffn, m->dim},
        [WEFT_ROLE_FFN_DOWN] = {m->dim, ffn},
        [WEFT_ROLE_FFN_GATE_BIAS] = {1, ffn},
        [WEFT_ROLE_FFN_UP_BIAS] = {1, ffn},
        [WEFT_ROLE_FFN_DOWN_BIAS] = {1, m->dim},
        [WEFT_ROLE_FFN_POST_NORM] = {1, m->dim},
        [WEFT_ROLE_ROUTER] = {experts, m->dim},
        [WEFT_ROLE_EXPERT_GATE] = {(uint64_t)experts * own, m->dim},
        [WEFT_ROLE_EXPERT_UP] = {(uint64_t)experts * own, m->dim},
        [WEFT_ROLE_EXPERT_DOWN] = {(uint64_t)experts * m->dim, own},
        [WEFT_ROLE_SHARED_ROUTER] = {1, m->dim},
        [WEFT_ROLE_SHARED_GATE] = {ffn, m->dim},
        [WEFT_ROLE_SHARED_UP] = {ffn, m->dim},
        [WEFT_ROLE_SHARED_DOWN] = {m->dim, ffn},
    };
    *ret_rows = dims[role].rows;
    *ret_cols = dims[role].cols;
}

/* ------------------------------------------------------------------ layers */

bool weft_layer_windowed(const struct weft_model *m, uint32_t layer)
{
    const struct weft_traits *t = &m->traits;
    return t->window > 0 &&
           (t->window_period == 0 || layer % t->window_period + 1 < t->window_period);
}

bool weft_layer_rotates(const struct weft_model *m, uint32_t layer)
{
    return m->traits.rope_skip == 0 || (layer + 1) % m->traits.rope_skip != 0;
}
