/*
 * From a GGUF file to the model: keys to shape, names to roles, and the identity of the file.
 * Invariant: what this gives was accepted by weft_model_check, and every tensor of the file has a
 * role. Keys: the GGUF specification in the public ggml repository (docs/gguf.md). Pure.
 */
#include "base/model.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arch.h"
#include "base/text.h"

#define ROPE_BASE_DEFAULT 10000.0f /* the format's, where rope.freq_base is absent */
#define SAMPLE_BYTES 4096u         /* of each tensor at start, middle and end go into the id */

/* Copies text for people and terminals: control characters and broken UTF-8 become '?'. */
static void copy_text(char *buf, size_t size, struct weft_gguf_string s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.size;) {
        uint32_t code = 0;
        size_t step = weft_utf8_decode(s.data + i, (size_t)s.size - i, &code);
        bool bad = step == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0);
        size_t out = bad ? 1 : step;
        if (n + out >= size)
            break;
        memcpy(buf + n, bad ? "?" : s.data + i, out);
        n += out;
        i += step + (step == 0);
    }
    buf[n] = '\0';
}

/* ------------------------------------------------------------------ keys */

static int read_head_dim(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    uint32_t key = 0, value = 0;
    if (m->n_heads == 0)
        return weft_fail(err, WEFT_EMODEL, "key %s.attention.head_count: found 0, expected 1 to %u",
                         m->arch, WEFT_HEADS_MAX);
    uint32_t natural = m->dim / m->n_heads;
    int r = weft_arch_u32(g, m, "attention.key_length", &key, err);
    if (r == 0)
        r = weft_arch_u32(g, m, "attention.value_length", &value, err);
    if (r < 0)
        return r;
    if (key == 0 && value == 0) {
        if (m->dim % m->n_heads != 0)
            return weft_fail(err, WEFT_EMODEL,
                             "embedding_length: found %u, expected a multiple of the %u heads",
                             m->dim, m->n_heads);
        m->head_dim = natural;
        return 0;
    }
    /* One alone must agree with the other's default. */
    key = key != 0 ? key : natural;
    value = value != 0 ? value : natural;
    if (key != value)
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "attention.key_length %u and attention.value_length %u: "
                         "supported are equal ones",
                         key, value);
    m->head_dim = key;
    return 0;
}

static int check_parts(const struct weft_gguf *g, weft_err *err)
{
    struct weft_gguf_split split = {0};
    int r = weft_gguf_split(g, &split, err);
    if (r == 0 && split.count != g->n_parts)
        r = weft_fail(err, WEFT_EMODEL, "the file is part %u of %u, found %u of them", split.no + 1,
                      split.count, g->n_parts);
    return r;
}

/* Keys that change the arithmetic in ways weft does not know, with the values that change nothing.
 * A file with others is refused, never read as if they were not there. */
static int refuse_unknown(const struct weft_gguf *g, const struct weft_model *m, weft_err *err)
{
    static const struct {
        const char *key;
        float none; /* the value that changes nothing; 0 does not either */
        const char *why;
    } unknown[] = {
        {"attention.clamp_kqv", 0, "clamped q, k and v"},
        {"attention.max_alibi_bias", 0, "ALiBi"},
        {"attention.causal", 1, "attention to later positions"},
        {"use_parallel_residual", 0, "attention and FFN side by side"},
        {"expert_gating_func", 1, "another router than softmax"},
        {"expert_group_count", 1, "groups of experts"},
        {"expert_shared_count", 1, "several shared experts"},
        {"leading_dense_block_count", 0, "layers without experts among others"},
        {"interleave_moe_layer_step", 1, "layers without experts among others"},
        {"swin_norm", 0, "norms in other places"},
        {"nextn_predict_layers", 0, "layers that predict several tokens"},
    };
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof unknown / sizeof unknown[0]; i++) {
        const struct weft_gguf_kv *kv = weft_arch_kv(g, m, unknown[i].key);
        float value = 0;
        if (kv != NULL && kv->type == WEFT_GGUF_BOOL)
            value = kv->data[0] != 0;
        else if (kv != NULL && (kv->type == WEFT_GGUF_F32 || kv->type == WEFT_GGUF_F64))
            r = weft_arch_f32(g, m, unknown[i].key, &value, err);
        else if (kv != NULL) {
            uint32_t number = 0;
            r = weft_arch_u32(g, m, unknown[i].key, &number, err);
            value = (float)number;
        }
        if (r == 0 && kv != NULL && value != 0 && value != unknown[i].none)
            r = weft_fail(err, WEFT_EUNSUPPORTED,
                          "key %s.%s: found %g, which stands for %s: weft does "
                          "not know it in a %s",
                          m->arch, unknown[i].key, (double)value, unknown[i].why, m->arch);
    }
    /* A window that is read by those that have one; it changes nothing where no context is longer.
     */
    uint32_t window = 0;
    if (r == 0 && m->traits.window == 0)
        r = weft_arch_u32(g, m, "attention.sliding_window", &window, err);
    if (r == 0 && window > 0 && window < m->context_max &&
        weft_arch_kv(g, m, "attention.sliding_window") != NULL)
        r = weft_fail(
            err, WEFT_EUNSUPPORTED,
            "key %s.attention.sliding_window: found %u, less than the context of %u: weft does "
            "not know it in a %s",
            m->arch, window, m->context_max, m->arch);
    return r;
}

/* Scaling of rotary positions. Without a type a factor means linear, under either of its names; 0
 * and 1 mean none. */
static int read_rope_scaling(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    static const char *const names[] = {"none", "linear", "yarn", "longrope"};
    struct weft_traits *t = &m->traits;
    float factor = 0, magnitude = 1, log_multiplier = 0;
    uint32_t scaling = WEFT_ROPE_SCALING_COUNT;
    int r = weft_arch_f32(g, m, "rope.scaling.factor", &factor, err);
    if (r == 0 && factor == 0)
        r = weft_arch_f32(g, m, "rope.scale_linear", &factor, err);
    if (r == 0)
        r = weft_arch_f32(g, m, "rope.scaling.attn_factor", &magnitude, err);
    if (r == 0)
        r = weft_arch_u32(g, m, "rope.scaling.original_context_length", &t->rope_original, err);
    const struct weft_gguf_kv *kv = weft_arch_kv(g, m, "rope.scaling.type");
    if (r == 0 && kv != NULL) {
        char key[128], name[64];
        struct weft_gguf_string s = {0};
        snprintf(key, sizeof key, "%s.rope.scaling.type", m->arch);
        r = weft_gguf_str(g, key, &s, err);
        copy_text(name, sizeof name, s);
        for (scaling = 0; r == 0 && scaling < WEFT_ROPE_SCALING_COUNT; scaling++)
            if (strcmp(name, names[scaling]) == 0)
                break;
        if (r == 0 && scaling == WEFT_ROPE_SCALING_COUNT)
            r = weft_fail(err, WEFT_EUNSUPPORTED,
                          "rope scaling '%s': supported are: none linear yarn longrope", name);
    } else if (r == 0) { /* older files of longrope have only the factors */
        scaling = m->global[WEFT_ROLE_ROPE_LONG].bytes > 0 ? WEFT_ROPE_LONGROPE
                  : factor != 0 && factor != 1             ? WEFT_ROPE_LINEAR
                                                           : WEFT_ROPE_PLAIN;
    }
    if (r < 0)
        return r;
    t->rope_scaling =
        scaling < WEFT_ROPE_SCALING_COUNT ? (enum weft_rope_scaling)scaling : WEFT_ROPE_PLAIN;
    if (t->rope_scaling == WEFT_ROPE_LINEAR || t->rope_scaling == WEFT_ROPE_YARN)
        t->rope_factor = factor != 0 ? factor : 1;
    if (t->rope_scaling == WEFT_ROPE_YARN || t->rope_scaling == WEFT_ROPE_LONGROPE)
        t->rope_magnitude = magnitude;
    r = weft_arch_f32(g, m, "rope.scaling.yarn_ext_factor", &t->yarn_extrapolation, err);
    if (r == 0)
        r = weft_arch_f32(g, m, "rope.scaling.yarn_beta_fast", &t->yarn_fast, err);
    if (r == 0)
        r = weft_arch_f32(g, m, "rope.scaling.yarn_beta_slow", &t->yarn_slow, err);
    if (r == 0)
        r = weft_arch_f32(g, m, "rope.scaling.yarn_log_multiplier", &log_multiplier, err);
    if (r == 0 && log_multiplier != 0)
        r = weft_fail(
            err, WEFT_EUNSUPPORTED,
            "key %s.rope.scaling.yarn_log_multiplier: found %g, weft does not know it in a %s",
            m->arch, (double)log_multiplier, m->arch);
    return r;
}

static int read_experts(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    struct weft_traits *t = &m->traits;
    const struct weft_arch *a = weft_arch_of(m);
    int r = weft_arch_u32(g, m, "expert_count", &t->n_experts, err);
    if (r < 0 || t->n_experts == 0)
        return r;
    r = weft_arch_u32(g, m, "expert_used_count", &t->n_experts_used, err);
    if (r < 0)
        return r;
    if (weft_gguf_tensor(g, "blk.0.ffn_gate.0.weight") != NULL)
        return weft_fail(
            err, WEFT_EUNSUPPORTED,
            "tensor blk.0.ffn_gate.0.weight: experts in tensors of their own, as files "
            "of before April 2024 have them: convert the model again");
    t->expert_renormalise = a->experts_renormalise;
    /* Files of mixtures that have only such layers may leave their width to the plain one's key. */
    t->expert_ffn = a->experts == WEFT_EXPERTS_MAYBE ? m->ffn_dim
                    : t->n_experts_used > 0          ? m->ffn_dim / t->n_experts_used
                                                     : 0;
    r = weft_arch_u32(g, m, "expert_feed_forward_length", &t->expert_ffn, err);
    if (!a->shared)
        m->ffn_dim = 0;
    else if (r == 0)
        r = weft_arch_u32(g, m, "expert_shared_feed_forward_length", &m->ffn_dim, err);
    if (r == 0)
        r = weft_arch_f32(g, m, "expert_weights_scale", &t->expert_scale, err);
    if (r == 0 && t->expert_scale == 0) /* as some files write "none" */
        t->expert_scale = 1;
    return r;
}

/* A key that every model has. */
static int need_u32(const struct weft_gguf *g, const struct weft_model *m, const char *rest,
                    uint32_t *ret, weft_err *err)
{
    char key[128];
    if (weft_arch_kv(g, m, rest) != NULL)
        return weft_arch_u32(g, m, rest, ret, err);
    snprintf(key, sizeof key, "%s.%s", m->arch, rest);
    return weft_gguf_u32(g, key, ret, err); /* says that it is missing */
}

static int read_shape(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    char key[128];
    int r = need_u32(g, m, "context_length", &m->context_max, err);
    if (r == 0)
        r = need_u32(g, m, "embedding_length", &m->dim, err);
    if (r == 0)
        r = need_u32(g, m, "block_count", &m->n_layers, err);
    if (r == 0)
        r = need_u32(g, m, "feed_forward_length", &m->ffn_dim, err);
    if (r == 0)
        r = need_u32(g, m, "attention.head_count", &m->n_heads, err);
    m->n_kv_heads = m->n_heads;
    if (r == 0)
        r = weft_arch_u32(g, m, "attention.head_count_kv", &m->n_kv_heads, err);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", m->arch);
    if (r == 0)
        r = weft_gguf_f32(g, key, &m->norm_eps, err);
    if (r == 0)
        r = read_head_dim(g, m, err);
    m->rope_dim = m->head_dim;
    m->rope_base = ROPE_BASE_DEFAULT;
    if (r == 0)
        r = weft_arch_u32(g, m, "rope.dimension_count", &m->rope_dim, err);
    if (r == 0)
        r = weft_arch_f32(g, m, "rope.freq_base", &m->rope_base, err);
    /* Before memory is taken by it. */
    if (r == 0 && (m->n_layers < 1 || m->n_layers > WEFT_LAYERS_MAX))
        r = weft_fail(err, WEFT_EMODEL, "key %s.block_count: found %u, expected 1 to %u", m->arch,
                      m->n_layers, WEFT_LAYERS_MAX);
    return r;
}

static int read_traits(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    const struct weft_arch *a = weft_arch_of(m);
    m->traits = weft_traits_plain(m);
    int r = read_rope_scaling(g, m, err);
    if (r == 0)
        r = read_experts(g, m, err);
    if (r == 0 && a->read != NULL)
        r = a->read(g, m, err);
    return r == 0 ? refuse_unknown(g, m, err) : r;
}

/* ------------------------------------------------------------------ tensors */

static int take_tensor(const struct weft_gguf_tensor *t, bool experts, struct weft_tensor *ret,
                       weft_err *err)
{
    uint64_t rows = 0;
    char name[WEFT_GGUF_NAME_MAX + 1];
    snprintf(name, sizeof name, "%.*s", (int)t->name.size, t->name.data);
    if (t->dims[3] != 1 || (t->dims[2] != 1 && !experts))
        return weft_fail(err, WEFT_EMODEL, "tensor %s: found %u dimensions, expected at most %u",
                         name, t->n_dims, experts ? 3 : 2);
    if (__builtin_mul_overflow(t->dims[1], t->dims[2], &rows) || t->dims[0] > UINT32_MAX ||
        rows > UINT32_MAX)
        return weft_fail(err, WEFT_EMODEL,
                         "tensor %s: found %llu x %llu rows of %llu, expected less than 2^32", name,
                         (unsigned long long)t->dims[1], (unsigned long long)t->dims[2],
                         (unsigned long long)t->dims[0]);
    *ret = (struct weft_tensor){
        .type = t->type,
        .rows = (uint32_t)rows,
        .cols = (uint32_t)t->dims[0],
        .part = (uint16_t)t->part,
        .offset = t->offset,
        .bytes = t->bytes,
    };
    return 0;
}

static int read_tensor(const struct weft_gguf *g, enum weft_role role, uint32_t layer,
                       struct weft_tensor *ret, bool *used, weft_err *err)
{
    char name[WEFT_GGUF_NAME_MAX + 1];
    const struct weft_gguf_tensor *t =
        weft_gguf_tensor(g, weft_role_tensor_name(name, role, layer));
    if (t == NULL)
        return 0; /* the check says so where it is needed */
    used[t - g->tensors] = true;
    return take_tensor(t, weft_role_experts(role), ret, err);
}

/* Several matrices in one tensor, one below the other: each role is a run of its rows. */
struct fused {
    const char *name; /* "blk.N.NAME.weight" or ".bias" */
    bool bias;
    size_t n;
    enum weft_role role[3];
    uint32_t rows[3];
};

static int read_fused(const struct weft_gguf *g, const struct fused *f, uint32_t layer,
                      struct weft_layer_tensors *ret, bool *used, weft_err *err)
{
    char name[WEFT_GGUF_NAME_MAX + 1];
    struct weft_tensor all = {0};
    snprintf(name, sizeof name, "blk.%u.%s.%s", layer, f->name, f->bias ? "bias" : "weight");
    const struct weft_gguf_tensor *t = weft_gguf_tensor(g, name);
    if (t == NULL)
        return 0;
    int r = take_tensor(t, false, &all, err);
    if (r < 0)
        return r;
    /* a bias is one row, of which each takes some columns */
    uint64_t unit = f->bias ? sizeof(float) : weft_row_bytes(all.type, all.cols), sum = 0;
    for (size_t i = 0; i < f->n; i++)
        sum += f->rows[i];
    if (sum != (f->bias ? all.cols : all.rows) || unit == 0 || (f->bias && all.type != WEFT_F32))
        return weft_fail(err, WEFT_EMODEL,
                         "tensor %s: found %u x %u (rows x columns), expected %llu "
                         "%s",
                         name, all.rows, all.cols, (unsigned long long)sum,
                         f->bias ? "columns of F32" : "rows");
    used[t - g->tensors] = true;
    uint64_t offset = all.offset;
    for (size_t i = 0; i < f->n; i++) {
        struct weft_tensor *part = &ret->role[f->role[i] - WEFT_ROLE_GLOBAL_COUNT];
        if (part->bytes != 0)
            return weft_fail(err, WEFT_EMODEL, "tensor %s: %s stands in the file a second time",
                             name, weft_role_name(f->role[i]));
        *part = all;
        *(f->bias ? &part->cols : &part->rows) = f->rows[i];
        part->offset = offset;
        part->bytes = f->rows[i] * unit;
        offset += part->bytes;
    }
    return 0;
}

/* What a file may hold as one, where its architecture's converter does so. */
static int read_all_fused(const struct weft_gguf *g, struct weft_model *m, uint32_t layer,
                          bool *used, weft_err *err)
{
    const uint32_t q = m->n_heads * m->head_dim, kv = m->n_kv_heads * m->head_dim;
    const struct fused list[] = {
        {"attn_qkv", false, 3, {WEFT_ROLE_ATTN_Q, WEFT_ROLE_ATTN_K, WEFT_ROLE_ATTN_V}, {q, kv, kv}},
        {"attn_qkv",
         true,
         3,
         {WEFT_ROLE_ATTN_Q_BIAS, WEFT_ROLE_ATTN_K_BIAS, WEFT_ROLE_ATTN_V_BIAS},
         {q, kv, kv}},
        {"ffn_up", false, 2, {WEFT_ROLE_FFN_GATE, WEFT_ROLE_FFN_UP}, {m->ffn_dim, m->ffn_dim}},
    };
    struct weft_layer_tensors *l = &m->layers[layer];
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof list / sizeof list[0]; i++) {
        struct weft_tensor *up = &l->role[WEFT_ROLE_FFN_UP - WEFT_ROLE_GLOBAL_COUNT];
        if (list[i].role[0] == WEFT_ROLE_FFN_GATE) { /* its name is also that of up alone */
            if (strcmp(m->arch, "phi3") != 0 || up->rows != 2 * (uint64_t)m->ffn_dim)
                continue;
            *up = (struct weft_tensor){0};
        }
        r = read_fused(g, &list[i], layer, l, used, err);
    }
    return r;
}

static int read_tensors(const struct weft_gguf *g, struct weft_model *m, bool *used, weft_err *err)
{
    int r = 0;
    for (int role = 0; r == 0 && role < WEFT_ROLE_GLOBAL_COUNT; role++)
        r = read_tensor(g, (enum weft_role)role, 0, &m->global[role], used, err);
    for (uint32_t layer = 0; r == 0 && layer < m->n_layers; layer++) {
        for (int i = 0; r == 0 && i < WEFT_ROLE_LAYER_COUNT; i++)
            r = read_tensor(g, (enum weft_role)(WEFT_ROLE_GLOBAL_COUNT + i), layer,
                            &m->layers[layer].role[i], used, err);
        if (r == 0)
            r = read_all_fused(g, m, layer, used, err);
    }
    return r;
}

/* The model counts rows of all experts together; here the file says where one ends. */
static int check_matrices(const struct weft_gguf *g, const struct weft_model *m, weft_err *err)
{
    char name[WEFT_GGUF_NAME_MAX + 1];
    for (uint32_t layer = 0; layer < m->n_layers; layer++)
        for (int role = WEFT_ROLE_GLOBAL_COUNT; role < WEFT_ROLE_COUNT; role++) {
            if (!weft_role_experts((enum weft_role)role))
                continue;
            const struct weft_gguf_tensor *t =
                weft_gguf_tensor(g, weft_role_tensor_name(name, (enum weft_role)role, layer));
            if (t != NULL && t->dims[2] != m->traits.n_experts)
                return weft_fail(err, WEFT_EMODEL,
                                 "tensor %s: found %llu matrices, expected one for each of %u "
                                 "experts",
                                 name, (unsigned long long)t->dims[2], m->traits.n_experts);
        }
    return 0;
}

static int refuse_unused(const struct weft_gguf *g, const struct weft_model *m, const bool *used,
                         weft_err *err)
{
    for (uint64_t i = 0; i < g->n_tensors; i++)
        if (!used[i])
            return weft_fail(err, WEFT_EUNSUPPORTED,
                             "tensor %.*s: not part of a %s of %u layers as weft knows it",
                             (int)g->tensors[i].name.size, g->tensors[i].name.data, m->arch,
                             m->n_layers);
    return 0;
}

/* ------------------------------------------------------------------ identity */

/* Two independent 64-bit streams of multiply and xor-shift, finished as in MurmurHash3 (public
 * domain, Austin Appleby). Tells files apart; no defence against someone who makes equal ones. */
struct hash {
    uint64_t a, b;
};

static uint64_t load64(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void hash_word(struct hash *h, uint64_t w)
{
    h->a = (h->a ^ w) * 0x9e3779b97f4a7c15u; /* 2^64 / golden ratio */
    h->a ^= h->a >> 29;
    h->b = (h->b + w) * 0xff51afd7ed558ccdu; /* MurmurHash3's finaliser */
    h->b ^= h->b >> 33;
}

static void hash_bytes(struct hash *h, const uint8_t *p, uint64_t n)
{
    hash_word(h, n);
    for (; n >= 8; p += 8, n -= 8)
        hash_word(h, load64(p, 8));
    if (n > 0)
        hash_word(h, load64(p, (size_t)n));
}

static uint64_t hash_finish(uint64_t x)
{
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdu;
    x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53u;
    return x ^ (x >> 33);
}

static void identify(const struct weft_gguf *g, const struct weft_mapping *maps, uint64_t ret_id[2])
{
    struct hash h = {.a = 0x243f6a8885a308d3u, .b = 0x13198a2e03707344u}; /* digits of pi */
    for (uint32_t i = 0; i < g->n_parts; i++) {
        hash_bytes(&h, g->parts[i].data, g->parts[i].data_offset);
        hash_word(&h, g->parts[i].size);
        hash_word(&h, maps != NULL ? maps[i].mtime_ns : 0);
    }
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const struct weft_gguf_tensor *t = &g->tensors[i];
        const uint8_t *data = weft_gguf_data(g, t);
        uint64_t n = t->bytes < SAMPLE_BYTES ? t->bytes : SAMPLE_BYTES;
        hash_bytes(&h, data, n);
        hash_bytes(&h, data + (t->bytes - n) / 2, n);
        hash_bytes(&h, data + t->bytes - n, n);
    }
    ret_id[0] = hash_finish(h.a);
    ret_id[1] = hash_finish(h.b ^ h.a);
}

/* ------------------------------------------------------------------ the model */

static int read_names(const struct weft_gguf *g, const struct weft_mapping *maps,
                      struct weft_model *m, weft_err *err)
{
    struct weft_gguf_string s = {0};
    int r = weft_gguf_str(g, "general.architecture", &s, err);
    if (r < 0)
        return r;
    copy_text(m->arch, sizeof m->arch, s);
    if (weft_arch_find(m->arch) == NULL)
        return weft_arch_refuse(m->arch, err);
    if (weft_gguf_kv(g, "general.name") != NULL) {
        r = weft_gguf_str(g, "general.name", &s, err);
        if (r < 0)
            return r;
    } else {
        const char *name = maps != NULL ? maps[0].name : m->arch;
        s = (struct weft_gguf_string){.data = name, .size = strlen(name)};
    }
    copy_text(m->name, sizeof m->name, s);
    return 0;
}

int weft_model_from_gguf(const struct weft_gguf *g, const struct weft_mapping *maps,
                         struct weft_model *ret, weft_err *err)
{
    struct weft_model m = {0};
    bool *used = NULL;
    int r = read_names(g, maps, &m, err);
    if (r == 0)
        r = check_parts(g, err);
    if (r == 0)
        r = read_shape(g, &m, err);
    if (r < 0)
        goto out;
    assert(m.n_layers > 0); /* read_shape refuses a model without layers */
    m.layers = calloc(m.n_layers, sizeof *m.layers);
    used = calloc((size_t)g->n_tensors + 1, sizeof *used); /* + 1: calloc(0) may give NULL */
    if (m.layers == NULL || used == NULL) {
        r = weft_fail(err, WEFT_ENOMEM, "out of memory for %u layers", m.n_layers);
        goto out;
    }
    r = read_tensors(g, &m, used, err);
    if (r < 0)
        goto out;
    m.tied = m.global[WEFT_ROLE_OUTPUT].bytes == 0;
    if (m.global[WEFT_ROLE_EMBED].bytes == 0) {
        r = weft_fail(err, WEFT_EMODEL, "tensor token_embd.weight is missing%s",
                      g->n_tensors == 0 ? ": the file holds a vocabulary and no tensors" : "");
        goto out;
    }
    m.vocab = m.global[WEFT_ROLE_EMBED].rows;
    r = weft_arch_u32(g, &m, "vocab_size", &m.vocab, err);
    if (r == 0)
        r = read_traits(g, &m, err);
    if (r == 0)
        r = weft_model_check(&m, err);
    if (r == 0)
        r = check_matrices(g, &m, err);
    if (r == 0)
        r = refuse_unused(g, &m, used, err);
    if (r == 0)
        identify(g, maps, m.id);
out:
    free(used);
    if (r < 0)
        weft_model_done(&m);
    else
        *ret = m;
    return r;
}
