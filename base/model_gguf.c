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

/* An integer key of the architecture; `fallback` (may be NULL) is its value where it is absent. */
static int shape_u32(const struct weft_gguf *g, const char *key, const uint32_t *fallback,
                     uint32_t *ret, weft_err *err)
{
    const struct weft_gguf_kv *kv = weft_gguf_kv(g, key);
    if (kv == NULL && fallback != NULL) {
        *ret = *fallback;
        return 0;
    }
    if (kv != NULL && kv->type == WEFT_GGUF_ARRAY)
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "key %s: found a value per layer, supported is one for all layers", key);
    return weft_gguf_u32(g, key, ret, err);
}

static int shape_f32(const struct weft_gguf *g, const char *key, const float *fallback, float *ret,
                     weft_err *err)
{
    if (fallback != NULL && weft_gguf_kv(g, key) == NULL) {
        *ret = *fallback;
        return 0;
    }
    return weft_gguf_f32(g, key, ret, err);
}

static int read_head_dim(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    uint32_t none = 0, key = 0, value = 0;
    if (m->n_heads == 0)
        return weft_fail(err, WEFT_EMODEL,
                         "key llama.attention.head_count: found 0, expected 1 to %u",
                         WEFT_HEADS_MAX);
    uint32_t natural = m->dim / m->n_heads;
    int r = shape_u32(g, "llama.attention.key_length", &none, &key, err);
    if (r == 0)
        r = shape_u32(g, "llama.attention.value_length", &none, &value, err);
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

/* What changes the arithmetic in ways weft does not know is refused, never ignored. */
static int refuse_unknown(const struct weft_gguf *g, weft_err *err)
{
    const uint32_t zero = 0;
    const float one = 1.0f;
    struct weft_gguf_string scaling = {0};
    uint32_t experts = 0, parts = 0;
    float factor = 1.0f, linear = 1.0f;
    int r = shape_u32(g, "split.count", &zero, &parts, err);
    if (r == 0 && parts > 1)
        r = weft_fail(err, WEFT_EUNSUPPORTED,
                      "the file is one of %u parts: supported are whole files, merge them first",
                      parts);
    if (r == 0)
        r = shape_u32(g, "llama.expert_count", &zero, &experts, err);
    if (r == 0 && experts > 0)
        r = weft_fail(err, WEFT_EUNSUPPORTED,
                      "llama.expert_count %u: supported are models without experts", experts);
    if (r == 0 && weft_gguf_kv(g, "llama.rope.scaling.type") != NULL) {
        r = weft_gguf_str(g, "llama.rope.scaling.type", &scaling, err);
        char name[64];
        copy_text(name, sizeof name, scaling);
        if (r == 0 && strcmp(name, "none") != 0)
            return weft_fail(err, WEFT_EUNSUPPORTED,
                             "rope scaling '%s': supported are: none, rope_freqs", name);
        return r;
    }
    /* Without a type a factor means linear scaling, under either of its names; 0 and 1 mean none.
     */
    if (r == 0)
        r = shape_f32(g, "llama.rope.scaling.factor", &one, &factor, err);
    if (r == 0)
        r = shape_f32(g, "llama.rope.scale_linear", &one, &linear, err);
    if (r == 0 && ((factor != 0 && factor != 1) || (linear != 0 && linear != 1)))
        r = weft_fail(err, WEFT_EUNSUPPORTED, "rope scaling by %g: supported are: none, rope_freqs",
                      (double)(factor != 0 && factor != 1 ? factor : linear));
    return r;
}

static int read_shape(const struct weft_gguf *g, struct weft_model *m, weft_err *err)
{
    const float base = ROPE_BASE_DEFAULT;
    int r = shape_u32(g, "llama.context_length", NULL, &m->context_max, err);
    if (r == 0)
        r = shape_u32(g, "llama.embedding_length", NULL, &m->dim, err);
    if (r == 0)
        r = shape_u32(g, "llama.block_count", NULL, &m->n_layers, err);
    if (r == 0)
        r = shape_u32(g, "llama.feed_forward_length", NULL, &m->ffn_dim, err);
    if (r == 0)
        r = shape_u32(g, "llama.attention.head_count", NULL, &m->n_heads, err);
    if (r == 0)
        r = shape_u32(g, "llama.attention.head_count_kv", &m->n_heads, &m->n_kv_heads, err);
    if (r == 0)
        r = shape_f32(g, "llama.attention.layer_norm_rms_epsilon", NULL, &m->norm_eps, err);
    if (r == 0)
        r = read_head_dim(g, m, err);
    if (r == 0)
        r = shape_u32(g, "llama.rope.dimension_count", &m->head_dim, &m->rope_dim, err);
    if (r == 0)
        r = shape_f32(g, "llama.rope.freq_base", &base, &m->rope_base, err);
    /* Before memory is taken by it. */
    if (r == 0 && (m->n_layers < 1 || m->n_layers > WEFT_LAYERS_MAX))
        r = weft_fail(err, WEFT_EMODEL, "key llama.block_count: found %u, expected 1 to %u",
                      m->n_layers, WEFT_LAYERS_MAX);
    return r;
}

/* ------------------------------------------------------------------ tensors */

static int read_tensor(const struct weft_gguf *g, enum weft_role role, uint32_t layer,
                       struct weft_tensor *ret, bool *used, weft_err *err)
{
    char name[WEFT_GGUF_NAME_MAX + 1];
    const struct weft_gguf_tensor *t =
        weft_gguf_tensor(g, weft_role_tensor_name(name, role, layer));
    if (t == NULL)
        return 0; /* the check says so where it is needed */
    if (t->dims[2] != 1 || t->dims[3] != 1)
        return weft_fail(err, WEFT_EMODEL, "tensor %s: found %u dimensions, expected at most 2",
                         name, t->n_dims);
    if (t->dims[0] > UINT32_MAX || t->dims[1] > UINT32_MAX)
        return weft_fail(err, WEFT_EMODEL,
                         "tensor %s: found %llu rows of %llu, expected less than 2^32", name,
                         (unsigned long long)t->dims[1], (unsigned long long)t->dims[0]);
    used[t - g->tensors] = true;
    *ret = (struct weft_tensor){
        .type = t->type,
        .rows = (uint32_t)t->dims[1],
        .cols = (uint32_t)t->dims[0],
        .offset = t->offset,
        .bytes = t->bytes,
    };
    return 0;
}

static int read_tensors(const struct weft_gguf *g, struct weft_model *m, bool *used, weft_err *err)
{
    int r = 0;
    for (int role = 0; r == 0 && role < WEFT_ROLE_GLOBAL_COUNT; role++)
        r = read_tensor(g, (enum weft_role)role, 0, &m->global[role], used, err);
    for (uint32_t layer = 0; r == 0 && layer < m->n_layers; layer++)
        for (int i = 0; r == 0 && i < WEFT_ROLE_LAYER_COUNT; i++)
            r = read_tensor(g, (enum weft_role)(WEFT_ROLE_GLOBAL_COUNT + i), layer,
                            &m->layers[layer].role[i], used, err);
    return r;
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

static void identify(const struct weft_gguf *g, const struct weft_mapping *map, uint64_t ret_id[2])
{
    struct hash h = {.a = 0x243f6a8885a308d3u, .b = 0x13198a2e03707344u}; /* digits of pi */
    hash_bytes(&h, g->data, g->data_offset);
    hash_word(&h, g->size);
    hash_word(&h, map != NULL ? map->mtime_ns : 0);
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const struct weft_gguf_tensor *t = &g->tensors[i];
        uint64_t n = t->bytes < SAMPLE_BYTES ? t->bytes : SAMPLE_BYTES;
        hash_bytes(&h, g->data + t->offset, n);
        hash_bytes(&h, g->data + t->offset + (t->bytes - n) / 2, n);
        hash_bytes(&h, g->data + t->offset + t->bytes - n, n);
    }
    ret_id[0] = hash_finish(h.a);
    ret_id[1] = hash_finish(h.b ^ h.a);
}

/* ------------------------------------------------------------------ the model */

static int read_names(const struct weft_gguf *g, const struct weft_mapping *map,
                      struct weft_model *m, weft_err *err)
{
    struct weft_gguf_string s = {0};
    int r = weft_gguf_str(g, "general.architecture", &s, err);
    if (r < 0)
        return r;
    copy_text(m->arch, sizeof m->arch, s);
    if (strcmp(m->arch, "llama") != 0)
        return weft_fail(err, WEFT_EUNSUPPORTED, "architecture '%s': supported are: llama",
                         m->arch);
    if (weft_gguf_kv(g, "general.name") != NULL) {
        r = weft_gguf_str(g, "general.name", &s, err);
        if (r < 0)
            return r;
    } else {
        const char *name = map != NULL ? map->name : m->arch;
        s = (struct weft_gguf_string){.data = name, .size = strlen(name)};
    }
    copy_text(m->name, sizeof m->name, s);
    return 0;
}

int weft_model_from_gguf(const struct weft_gguf *g, const struct weft_mapping *map,
                         struct weft_model *ret, weft_err *err)
{
    struct weft_model m = {0};
    bool *used = NULL;
    int r = read_names(g, map, &m, err);
    if (r == 0)
        r = refuse_unknown(g, err);
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
    r = shape_u32(g, "llama.vocab_size", &m.global[WEFT_ROLE_EMBED].rows, &m.vocab, err);
    if (r == 0)
        r = weft_model_check(&m, err);
    if (r == 0)
        r = refuse_unused(g, &m, used, err);
    if (r == 0)
        identify(g, map, m.id);
out:
    free(used);
    if (r < 0)
        weft_model_done(&m);
    else
        *ret = m;
    return r;
}
