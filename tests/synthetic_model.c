/*
 * A model made up in memory, see synthetic_model.h.
 */
#include "tests/synthetic_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arch.h"
#include "tests/harness.h"

static void *must(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

static struct weft_tensor tensor(uint32_t type, uint32_t rows, uint32_t cols)
{
    return (struct weft_tensor){
        .type = type, .rows = rows, .cols = cols, .bytes = rows * weft_row_bytes(type, cols)};
}

static struct weft_tensor *role_of(struct weft_model *m, enum weft_role role, uint32_t layer)
{
    return &m->layers[layer].role[role - WEFT_ROLE_GLOBAL_COUNT];
}

static bool has_role(const struct synthetic_shape *s, const struct weft_model *m,
                     enum weft_role role)
{
    switch (weft_arch_presence(m, role)) {
    case WEFT_REQUIRED:
        return true;
    case WEFT_OPTIONAL:
        if (role == WEFT_ROLE_OUTPUT)
            return !s->tied;
        if (role == WEFT_ROLE_ROPE_FREQS)
            return s->rope_freqs;
        return s->optional && role != WEFT_ROLE_ROPE_LONG && role != WEFT_ROLE_ROPE_SHORT;
    case WEFT_ABSENT:
        break;
    }
    return false;
}

struct weft_model synthetic_shape_model(const struct synthetic_shape *s)
{
    struct weft_model m = {
        .name = "synthetic",
        .id = {s->seed, 1},
        .n_layers = s->n_layers,
        .dim = s->dim,
        .n_heads = s->n_heads,
        .n_kv_heads = s->n_kv_heads,
        .head_dim = s->head_dim,
        .ffn_dim = s->ffn_dim,
        .vocab = s->vocab,
        .context_max = 4096,
        .rope_dim = s->head_dim,
        .rope_base = 10000,
        .norm_eps = 1e-5f,
    };
    snprintf(m.arch, sizeof m.arch, "%s", s->arch != NULL ? s->arch : "llama");
    m.traits = weft_traits_plain(&m);
    m.traits.n_experts = s->n_experts;
    m.traits.n_experts_used = s->n_experts_used;
    m.traits.expert_ffn = s->expert_ffn;
    if (s->n_experts > 0 && !weft_arch_of(&m)->shared)
        m.ffn_dim = 0;
    m.traits.window = s->window;
    m.traits.window_period = s->window > 0 ? 2 : 0;
    m.layers = must(calloc(s->n_layers, sizeof *m.layers));
    for (uint32_t l = 0; l < s->n_layers; l++)
        for (int i = l == 0 ? 0 : WEFT_ROLE_GLOBAL_COUNT; i < WEFT_ROLE_COUNT; i++) {
            const enum weft_role role = (enum weft_role)i;
            uint64_t rows;
            uint32_t cols;
            weft_arch_dims(&m, role, &rows, &cols);
            if (has_role(s, &m, role))
                *(role < WEFT_ROLE_GLOBAL_COUNT ? &m.global[role] : role_of(&m, role, l)) =
                    tensor(weft_role_matrix(role) && role != WEFT_ROLE_ROUTER ? s->type : WEFT_F32,
                           (uint32_t)rows, cols);
        }
    m.tied = m.global[WEFT_ROLE_OUTPUT].bytes == 0;
    weft_err err = {0};
    if (weft_model_check(&m, &err) < 0) {
        fprintf(stderr, "synthetic model: %s\n", err.text);
        abort();
    }
    return m;
}

/* ------------------------------------------------------------------ data */

static size_t n_tensors(const struct weft_model *m)
{
    return WEFT_ROLE_GLOBAL_COUNT + (size_t)m->n_layers * WEFT_ROLE_LAYER_COUNT;
}

static size_t place(enum weft_role role, uint32_t layer)
{
    return role < WEFT_ROLE_GLOBAL_COUNT ? role : role + (size_t)layer * WEFT_ROLE_LAYER_COUNT;
}

/* An f16 of random sign and mantissa between 2^exponent and 2^(exponent + 1). */
static void put_f16(uint8_t *p, int exponent, uint64_t bits)
{
    uint16_t u = (uint16_t)((bits & 0x83ff) | (unsigned)(exponent + 15) << 10);
    memcpy(p, &u, sizeof u);
}

static void fill(uint8_t *data, const struct weft_tensor *t, uint64_t *seed)
{
    const struct weft_tensor_type_info *info = weft_tensor_type_info(t->type);
    for (uint64_t i = 0; i < t->bytes; i++)
        data[i] = (uint8_t)(weft_test_random(seed) >> 32);
    for (uint64_t at = 0; at < t->bytes; at += info->block_bytes)
        if (t->type == WEFT_F32) {
            float x = (float)(weft_test_uniform(seed) - 0.5) * 0.5f;
            memcpy(data + at, &x, sizeof x);
        } else { /* F16: the value; Q8_0 and Q4_0: the block's scale comes first */
            put_f16(data + at,
                    t->type == WEFT_F16    ? -4
                    : t->type == WEFT_Q8_0 ? -9
                                           : -5,
                    weft_test_random(seed) >> 32);
        }
}

struct synthetic_model synthetic_open(const struct synthetic_shape *shape)
{
    struct synthetic_model m = {.model = synthetic_shape_model(shape)};
    uint64_t seed = shape->seed + 1;
    m.data = must(calloc(n_tensors(&m.model), sizeof *m.data));
    for (uint32_t l = 0; l < shape->n_layers; l++)
        for (int role = l == 0 ? 0 : WEFT_ROLE_GLOBAL_COUNT; role < WEFT_ROLE_COUNT; role++) {
            const struct weft_tensor *t = weft_model_tensor(&m.model, (enum weft_role)role, l);
            if (t->bytes == 0)
                continue;
            uint8_t *data = must(malloc((size_t)t->bytes));
            m.data[place((enum weft_role)role, l)] = data;
            if (weft_role_matrix((enum weft_role)role))
                fill(data, t, &seed);
            else
                synthetic_set(&m, (enum weft_role)role, l,
                              strstr(weft_role_name((enum weft_role)role), ".bias") != NULL ? 0.01f
                                                                                            : 1);
        }
    return m;
}

void synthetic_close(struct synthetic_model *m)
{
    for (size_t i = 0; i < n_tensors(&m->model); i++)
        free(m->data[i]);
    free(m->data);
    weft_model_done(&m->model);
}

void *synthetic_data(const struct synthetic_model *m, enum weft_role role, uint32_t layer)
{
    return m->data[place(role, layer)];
}

void synthetic_set(const struct synthetic_model *m, enum weft_role role, uint32_t layer,
                   float value)
{
    float *x = synthetic_data(m, role, layer);
    const struct weft_tensor *t = weft_model_tensor(&m->model, role, layer);
    for (uint64_t i = 0; i < (uint64_t)t->rows * t->cols; i++)
        x[i] = value;
}

void synthetic_load(const struct synthetic_model *m, struct weft_store *store, uint32_t first_layer,
                    uint32_t n_layers, bool embed, bool head)
{
    struct weft_shard_run runs[256];
    size_t n = weft_stage_runs(&m->model, first_layer, n_layers, embed, head, runs, 256);
    weft_err err = {0};
    int r = weft_store_set_model(store, &m->model, &err);
    for (size_t i = 0; r == 0 && i < n; i++) {
        struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
        size_t n_parts = 0;
        r = weft_shard_parts(&m->model, &runs[i], parts, &n_parts, &err);
        for (size_t k = 0; r == 0 && k < n_parts; k++)
            r = weft_store_put(store, &runs[i], parts[k].role, 0,
                               synthetic_data(m, parts[k].role, parts[k].layer),
                               (size_t)parts[k].bytes, &err);
    }
    if (r < 0 || n > 256) {
        fprintf(stderr, "synthetic model: %s\n", err.text);
        abort();
    }
}
