/*
 * Wire: structs of weft to messages and back (declared in proto/peer.h). What comes from the wire
 * is checked here once: counts before memory, then shapes by weft_model_check. Pure; any thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/model.h"
#include "base/text.h"
#include "proto/peer.h"

/* ------------------------------------------------------------------ faults, epochs, runs */

int weft_fault_err(const Weft__Fault *f, const char *who, weft_err *err)
{
    int code = f->code <= INT16_MAX ? (int)f->code : 0;
    if (code == 0 || strcmp(weft_error_name(code), "UNKNOWN") == 0)
        code = WEFT_EREFUSED; /* of a newer weft: its text says more than its number */
    const char *text = f->text != NULL && f->text[0] != '\0' ? f->text : weft_error_text(code);
    weft_err why;
    size_t size = 0;
    for (size_t at = 0, left = strlen(text), step; left > 0; at += step, left -= step) {
        uint32_t point;
        step = weft_utf8_decode(text + at, left, &point);
        bool good = step > 0 && weft_code_printable(point);
        if (size + (good ? step : 1) >= sizeof why.text)
            break;
        /* Another machine's words must not move a person's cursor or forge a line. */
        memcpy(why.text + size, good ? text + at : "?", good ? step : 1);
        size += good ? step : 1;
        step += step == 0;
    }
    why.text[size] = '\0';
    return weft_fail(err, code, "%s: %s", who, why.text);
}

Weft__Fault weft_fault_of(const weft_err *err)
{
    Weft__Fault f = WEFT__FAULT__INIT;
    f.code = err->code > 0 ? (uint32_t)err->code : WEFT_EINTERNAL;
    f.text = (char *)err->text; /* protobuf-c reads only */
    return f;
}

bool weft_epoch_equal(const Weft__Epoch *a, const Weft__Epoch *b)
{
    return a != NULL && b != NULL && a->coordinator == b->coordinator && a->counter == b->counter;
}

int weft_run_of_wire(const Weft__ShardRun *w, struct weft_shard_run *ret, weft_err *err)
{
    if (w == NULL)
        return weft_fail(err, WEFT_EPROTOCOL, "no run of shards given");
    if (w->kind >= WEFT_SHARD_KIND_COUNT)
        return weft_fail(err, WEFT_EPROTOCOL, "run of shards of unknown kind %u", w->kind);
    if (w->layer >= WEFT_LAYERS_MAX)
        return weft_fail(err, WEFT_EPROTOCOL, "run of shards in layer %u, at most %u are allowed",
                         w->layer, WEFT_LAYERS_MAX - 1);
    if (w->count == 0 || w->count > UINT32_MAX - w->first)
        return weft_fail(err, WEFT_EPROTOCOL, "run of %u shards from %u on", w->count, w->first);
    *ret = (struct weft_shard_run){.kind = (enum weft_shard_kind)w->kind,
                                   .layer = w->layer,
                                   .first = w->first,
                                   .count = w->count};
    return 0;
}

/* ------------------------------------------------------------------ model */

static bool copy_text(char *to, size_t size, const char *from)
{
    return from != NULL && (size_t)snprintf(to, size, "%s", from) < size;
}

static struct weft_tensor *tensor_slot(struct weft_model *m, uint32_t role, uint32_t layer)
{
    return role < WEFT_ROLE_GLOBAL_COUNT ? &m->global[role]
                                         : &m->layers[layer].role[role - WEFT_ROLE_GLOBAL_COUNT];
}

static int tensor_of_wire(const Weft__Tensor *w, struct weft_model *m, weft_err *err)
{
    if (w->role >= WEFT_ROLE_COUNT)
        return weft_fail(err, WEFT_EPROTOCOL, "model with a tensor of unknown role %u", w->role);
    const uint32_t layers = w->role < WEFT_ROLE_GLOBAL_COUNT ? 1 : m->n_layers;
    if (w->layers == 0 || w->layer >= layers || w->layers > layers - w->layer)
        return weft_fail(err, WEFT_EPROTOCOL,
                         "model with tensors of role %u in %u layers from %u on, of %u in all",
                         w->role, w->layers, w->layer, layers);
    char name[WEFT_GGUF_NAME_MAX + 1];
    weft_role_tensor_name(name, (enum weft_role)w->role, w->layer);
    const uint64_t row_bytes = weft_row_bytes(w->type, w->cols);
    if (w->rows == 0 || w->cols == 0 || row_bytes == 0)
        return weft_fail(err, WEFT_EPROTOCOL, "model with tensor %s of shape [%u, %u] and type %u",
                         name, w->rows, w->cols, w->type);
    /* rows and cols are 32 bits and a block has at most 8 bytes an element: below 2^67, so check */
    if (row_bytes > UINT64_MAX / w->rows)
        return weft_fail(err, WEFT_EOVERFLOW, "model with tensor %s of shape [%u, %u]", name,
                         w->rows, w->cols);
    for (uint32_t i = w->layer; i < w->layer + w->layers; i++) {
        struct weft_tensor *t = tensor_slot(m, w->role, i);
        if (t->bytes != 0)
            return weft_fail(err, WEFT_EPROTOCOL, "model with tensor %s twice",
                             weft_role_tensor_name(name, (enum weft_role)w->role, i));
        *t = (struct weft_tensor){
            .type = w->type, .rows = w->rows, .cols = w->cols, .bytes = row_bytes * w->rows};
    }
    return 0;
}

static struct weft_traits traits_of_wire(const Weft__Traits *w)
{
    return (struct weft_traits){
        .embed_scale = w->embed_scale,
        .residual_scale = w->residual_scale,
        .logit_scale = w->logit_scale,
        .attn_scale = w->attn_scale,
        .attn_softcap = w->attn_softcap,
        .logit_softcap = w->logit_softcap,
        .window = w->window,
        .window_period = w->window_period,
        .rope_skip = w->rope_skip,
        .rope_factor = w->rope_factor,
        .rope_magnitude = w->rope_magnitude,
        .rope_window_base = w->rope_window_base,
        .yarn_extrapolation = w->yarn_extrapolation,
        .yarn_fast = w->yarn_fast,
        .yarn_slow = w->yarn_slow,
        .rope_original = w->rope_original,
        .n_experts = w->n_experts,
        .n_experts_used = w->n_experts_used,
        .expert_ffn = w->expert_ffn,
        .expert_renormalise = w->expert_renormalise,
        .expert_scale = w->expert_scale,
        .rope_scaling = (enum weft_rope_scaling)w->rope_scaling, /* checked with the others */
    };
}

static void traits_to_wire(const struct weft_traits *t, Weft__Traits *w)
{
    weft__traits__init(w);
    w->embed_scale = t->embed_scale;
    w->residual_scale = t->residual_scale;
    w->logit_scale = t->logit_scale;
    w->attn_scale = t->attn_scale;
    w->attn_softcap = t->attn_softcap;
    w->logit_softcap = t->logit_softcap;
    w->window = t->window;
    w->window_period = t->window_period;
    w->rope_skip = t->rope_skip;
    w->rope_factor = t->rope_factor;
    w->rope_magnitude = t->rope_magnitude;
    w->rope_window_base = t->rope_window_base;
    w->yarn_extrapolation = t->yarn_extrapolation;
    w->yarn_fast = t->yarn_fast;
    w->yarn_slow = t->yarn_slow;
    w->rope_original = t->rope_original;
    w->n_experts = t->n_experts;
    w->n_experts_used = t->n_experts_used;
    w->expert_ffn = t->expert_ffn;
    w->expert_renormalise = t->expert_renormalise;
    w->expert_scale = t->expert_scale;
    w->rope_scaling = t->rope_scaling;
}

int weft_model_of_wire(const Weft__Model *w, struct weft_model *ret, weft_err *err)
{
    if (w == NULL)
        return weft_fail(err, WEFT_EPROTOCOL, "no model given");
    if (w->n_layers == 0 || w->n_layers > WEFT_LAYERS_MAX)
        return weft_fail(err, WEFT_EPROTOCOL, "model with %u layers, 1 to %u are allowed",
                         w->n_layers, WEFT_LAYERS_MAX);
    if (w->traits == NULL)
        return weft_fail(err, WEFT_EPROTOCOL, "model without its traits");
    struct weft_model m = {.id = {w->id0, w->id1},
                           .n_layers = w->n_layers,
                           .dim = w->dim,
                           .n_heads = w->n_heads,
                           .n_kv_heads = w->n_kv_heads,
                           .head_dim = w->head_dim,
                           .ffn_dim = w->ffn_dim,
                           .vocab = w->vocab,
                           .context_max = w->context_max,
                           .rope_dim = w->rope_dim,
                           .rope_base = w->rope_base,
                           .norm_eps = w->norm_eps,
                           .tied = w->tied,
                           .traits = traits_of_wire(w->traits)};
    if (!copy_text(m.arch, sizeof m.arch, w->arch) || !copy_text(m.name, sizeof m.name, w->name))
        return weft_fail(err, WEFT_EPROTOCOL, "model whose name or architecture is too long");
    int r;
    m.layers = calloc(m.n_layers, sizeof *m.layers);
    if (m.layers == NULL)
        return weft_fail(err, WEFT_ENOMEM, "model %s: out of memory", m.name);
    for (size_t i = 0; i < w->n_tensors; i++) {
        r = tensor_of_wire(w->tensors[i], &m, err);
        if (r < 0)
            goto out;
    }
    r = weft_model_check(&m, err);
    if (r < 0)
        goto out;
    *ret = m;
    return 0;
out:
    weft_model_done(&m);
    return r;
}

int weft_model_to_wire(const struct weft_model *m, struct weft_arena *a, Weft__Model **ret,
                       weft_err *err)
{
    const size_t n_max = WEFT_ROLE_GLOBAL_COUNT + (size_t)m->n_layers * WEFT_ROLE_LAYER_COUNT;
    Weft__Model *w = weft_arena_alloc(a, sizeof *w);
    Weft__Traits *traits = weft_arena_alloc(a, sizeof *traits);
    Weft__Tensor *tensors = weft_arena_array(a, n_max, sizeof *tensors);
    Weft__Tensor **list = weft_arena_array(a, n_max, sizeof *list);
    char *arch = weft_arena_strdup(a, m->arch), *name = weft_arena_strdup(a, m->name);
    if (w == NULL || traits == NULL || tensors == NULL || list == NULL || arch == NULL ||
        name == NULL)
        return weft_fail(err, WEFT_ENOMEM, "model %s: out of memory", m->name);
    weft__model__init(w);
    w->arch = arch;
    w->name = name;
    w->id0 = m->id[0];
    w->id1 = m->id[1];
    w->n_layers = m->n_layers;
    w->dim = m->dim;
    w->n_heads = m->n_heads;
    w->n_kv_heads = m->n_kv_heads;
    w->head_dim = m->head_dim;
    w->ffn_dim = m->ffn_dim;
    w->vocab = m->vocab;
    w->context_max = m->context_max;
    w->rope_dim = m->rope_dim;
    w->rope_base = m->rope_base;
    w->norm_eps = m->norm_eps;
    w->tied = m->tied;
    traits_to_wire(&m->traits, traits);
    w->traits = traits;
    w->tensors = list;
    for (uint32_t role = 0; role < WEFT_ROLE_COUNT; role++) {
        const uint32_t layers = role < WEFT_ROLE_GLOBAL_COUNT ? 1 : m->n_layers;
        for (uint32_t layer = 0; layer < layers; layer++) {
            const struct weft_tensor *t = weft_model_tensor(m, (enum weft_role)role, layer);
            Weft__Tensor *last = w->n_tensors > 0 ? list[w->n_tensors - 1] : NULL;
            if (t->bytes == 0)
                continue;
            if (last != NULL && last->role == role && last->layer + last->layers == layer &&
                last->type == t->type && last->rows == t->rows && last->cols == t->cols) {
                last->layers++;
                continue;
            }
            Weft__Tensor *wt = &tensors[w->n_tensors];
            weft__tensor__init(wt);
            wt->role = role;
            wt->layer = layer;
            wt->layers = 1;
            wt->type = t->type;
            wt->rows = t->rows;
            wt->cols = t->cols;
            list[w->n_tensors++] = wt;
        }
    }
    *ret = w;
    return 0;
}
