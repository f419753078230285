/*
 * Shard store, see store.h.
 *
 * Invariant: of a tensor `data` is allocated from its first byte on, `received` counts the bytes
 * that are packed or wait in `tile`, and `ready` is set, with release, once all of them are packed.
 * The loop thread owns all of it, except the tensor that a weft_store_put on the compute thread is
 * filling.
 */
#include "daemon/store.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/pages.h"

struct tensor {
    struct wk_matrix matrix; /* a vector is [1, cols] of WK_F32, not in tiles */
    uint32_t n;              /* matrices of that shape one behind the other: experts, else 1 */
    uint64_t bytes;          /* of matrix.data */
    atomic_bool ready;
    bool wanted;       /* mark of weft_store_keep_only */
    uint64_t received; /* GGUF bytes taken so far */
    uint8_t *tile;     /* rows of the tile that is not complete yet */
};

struct weft_store {
    bool has_model;
    struct weft_model model;
    struct tensor *tensors; /* [n_tensors]: the model's, then each layer's */
    size_t n_tensors;
    _Atomic uint64_t bytes; /* of all matrix.data */
};

int weft_store_open(struct weft_store **ret, weft_err *err)
{
    struct weft_store *s = calloc(1, sizeof *s);
    if (s == NULL)
        return weft_fail(err, WEFT_ENOMEM, "shard store");
    *ret = s;
    return 0;
}

/* ------------------------------------------------------------------ tensors */

/* Where a role stands; the head of a tied model is its embedding. */
static struct tensor *find(const struct weft_store *s, enum weft_role role, uint32_t layer)
{
    if (!s->has_model || (unsigned)role >= WEFT_ROLE_COUNT)
        return NULL;
    if (role < WEFT_ROLE_GLOBAL_COUNT) {
        if (role == WEFT_ROLE_OUTPUT && s->model.tied)
            role = WEFT_ROLE_EMBED;
        return &s->tensors[role];
    }
    if (layer >= s->model.n_layers)
        return NULL;
    return &s->tensors[WEFT_ROLE_GLOBAL_COUNT + (size_t)layer * WEFT_ROLE_LAYER_COUNT +
                       (size_t)(role - WEFT_ROLE_GLOBAL_COUNT)];
}

static bool is_ready(const struct tensor *t)
{
    return t != NULL && atomic_load_explicit(&t->ready, memory_order_acquire);
}

/* Matrices in the tensor of a role. */
static uint32_t matrices(const struct weft_store *s, enum weft_role role)
{
    return weft_role_experts(role) ? s->model.traits.n_experts : 1;
}

/* Bytes of a tensor of this role and shape once packed. */
static uint64_t packed_bytes(const struct weft_store *s, enum weft_role role,
                             const struct weft_tensor *t)
{
    const uint32_t n = matrices(s, role);
    if (!weft_role_matrix(role))
        return (uint64_t)t->cols * sizeof(float);
    return (uint64_t)n * wk_matrix_bytes((enum wk_type)t->type, t->rows / n, t->cols);
}

static void drop(struct weft_store *s, struct tensor *t)
{
    weft_pages_free(t->matrix.data, t->bytes);
    free(t->tile);
    atomic_fetch_sub(&s->bytes, t->bytes);
    memset(t, 0, sizeof *t);
}

static void drop_model(struct weft_store *s)
{
    for (size_t i = 0; i < s->n_tensors; i++)
        drop(s, &s->tensors[i]);
    free(s->tensors);
    s->tensors = NULL;
    s->n_tensors = 0;
    if (s->has_model)
        weft_model_done(&s->model);
    s->has_model = false;
}

void weft_store_close(struct weft_store *s)
{
    if (s == NULL)
        return;
    drop_model(s);
    free(s);
}

/* ------------------------------------------------------------------ the model */

static bool same_tensor(const struct weft_tensor *a, const struct weft_tensor *b)
{
    return a->type == b->type && a->rows == b->rows && a->cols == b->cols && a->bytes == b->bytes;
}

/* The id alone would do among honest peers; a shape that changed under an equal id must not meet
 * matrices of the old one. */
static bool same_model(const struct weft_model *a, const struct weft_model *b)
{
    if (memcmp(a->id, b->id, sizeof a->id) != 0 || strcmp(a->arch, b->arch) != 0 ||
        a->n_layers != b->n_layers || a->dim != b->dim || a->n_heads != b->n_heads ||
        a->n_kv_heads != b->n_kv_heads || a->head_dim != b->head_dim || a->ffn_dim != b->ffn_dim ||
        a->vocab != b->vocab || a->context_max != b->context_max || a->rope_dim != b->rope_dim ||
        a->rope_base != b->rope_base || a->norm_eps != b->norm_eps || a->tied != b->tied ||
        !weft_traits_equal(&a->traits, &b->traits))
        return false;
    for (size_t i = 0; i < WEFT_ROLE_GLOBAL_COUNT; i++)
        if (!same_tensor(&a->global[i], &b->global[i]))
            return false;
    for (size_t l = 0; l < a->n_layers; l++)
        for (size_t i = 0; i < WEFT_ROLE_LAYER_COUNT; i++)
            if (!same_tensor(&a->layers[l].role[i], &b->layers[l].role[i]))
                return false;
    return true;
}

int weft_store_set_model(struct weft_store *s, const struct weft_model *m, weft_err *err)
{
    if (s->has_model && same_model(&s->model, m))
        return 0;
    size_t n_tensors = WEFT_ROLE_GLOBAL_COUNT + (size_t)m->n_layers * WEFT_ROLE_LAYER_COUNT;
    struct weft_layer_tensors *layers = calloc(m->n_layers, sizeof *layers);
    struct tensor *tensors = calloc(n_tensors, sizeof *tensors);
    if (layers == NULL || tensors == NULL) {
        free(layers);
        free(tensors);
        return weft_fail(err, WEFT_ENOMEM, "tensor table of %u layers", m->n_layers);
    }
    memcpy(layers, m->layers, m->n_layers * sizeof *layers);
    drop_model(s);
    s->model = *m;
    s->model.layers = layers;
    s->tensors = tensors;
    s->n_tensors = n_tensors;
    s->has_model = true;
    return 0;
}

const struct weft_model *weft_store_model(const struct weft_store *s)
{
    return s->has_model ? &s->model : NULL;
}

/* ------------------------------------------------------------------ runs */

bool weft_store_has(const struct weft_store *s, const struct weft_shard_run *run)
{
    struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
    size_t n;
    if (!s->has_model || weft_shard_parts(&s->model, run, parts, &n, NULL) < 0)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!is_ready(find(s, parts[i].role, parts[i].layer)))
            return false;
    return true;
}

uint64_t weft_store_need_bytes(const struct weft_store *s, const struct weft_shard_run *run)
{
    struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
    size_t n;
    if (!s->has_model || weft_shard_parts(&s->model, run, parts, &n, NULL) < 0)
        return 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        enum weft_role role = parts[i].role;
        if (!is_ready(find(s, role, parts[i].layer)))
            bytes += packed_bytes(s, role, weft_model_tensor(&s->model, role, parts[i].layer));
    }
    return bytes;
}

uint64_t weft_store_bytes(const struct weft_store *s)
{
    return atomic_load(&s->bytes);
}

void weft_store_keep_only(struct weft_store *s, const struct weft_shard_run *runs, size_t n)
{
    for (size_t i = 0; i < s->n_tensors; i++)
        s->tensors[i].wanted = false;
    for (size_t i = 0; s->has_model && i < n; i++) {
        struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
        size_t n_parts;
        if (weft_shard_parts(&s->model, &runs[i], parts, &n_parts, NULL) < 0)
            continue;
        for (size_t k = 0; k < n_parts; k++)
            find(s, parts[k].role, parts[k].layer)->wanted = true;
    }
    for (size_t i = 0; i < s->n_tensors; i++)
        if (!s->tensors[i].wanted)
            drop(s, &s->tensors[i]);
}

void weft_store_abort(struct weft_store *s)
{
    for (size_t i = 0; i < s->n_tensors; i++)
        if (!is_ready(&s->tensors[i]))
            drop(s, &s->tensors[i]);
}

/* ------------------------------------------------------------------ receiving */

/* Memory for a tensor of which the first bytes came. */
static int begin(struct weft_store *s, struct tensor *t, enum weft_role role,
                 const struct weft_tensor *shape)
{
    uint64_t bytes = packed_bytes(s, role, shape);
    size_t tile = WK_TILE * (size_t)weft_row_bytes(shape->type, shape->cols);
    void *data = weft_pages_alloc_huge(bytes);
    uint8_t *rows = weft_role_matrix(role) ? malloc(tile) : NULL;
    if (data == NULL || (rows == NULL && weft_role_matrix(role))) {
        weft_pages_free(data, bytes);
        free(rows);
        return -WEFT_ENOMEM;
    }
    t->matrix = (struct wk_matrix){
        .type = (enum wk_type)shape->type,
        .rows = shape->rows / matrices(s, role),
        .cols = shape->cols,
        .data = data,
    };
    t->n = matrices(s, role);
    t->bytes = bytes;
    t->tile = rows;
    atomic_fetch_add(&s->bytes, bytes);
    return 0;
}

/* The i-th matrix of a tensor. */
static struct wk_matrix matrix_of(const struct tensor *t, uint32_t i)
{
    struct wk_matrix m = t->matrix;
    m.data = (uint8_t *)m.data + t->bytes / t->n * i;
    return m;
}

/* Packs as many whole tiles as data holds, or fills the tile under way; returns the bytes taken.
 * The last tile of a matrix may have fewer rows. */
static size_t pack(struct tensor *t, const uint8_t *data, size_t size)
{
    uint64_t row_bytes = weft_row_bytes(t->matrix.type, t->matrix.cols);
    uint64_t matrix_bytes = t->matrix.rows * row_bytes, tile_bytes = WK_TILE * row_bytes;
    uint64_t at = t->received % matrix_bytes; /* in the matrix under way */
    struct wk_matrix m = matrix_of(t, (uint32_t)(t->received / matrix_bytes));
    uint32_t row = (uint32_t)(at / tile_bytes * WK_TILE); /* the tile's first */
    uint32_t rows_left = m.rows - row;
    size_t have = (size_t)(at % tile_bytes);
    size_t want = (size_t)((rows_left < WK_TILE ? rows_left : WK_TILE) * row_bytes);

    if (have == 0 && size >= want) {
        uint64_t whole = size / tile_bytes * WK_TILE;
        uint32_t n = size >= rows_left * row_bytes ? rows_left : (uint32_t)whole;
        wk_matrix_pack(&m, row, n, data);
        return (size_t)(n * row_bytes);
    }
    size_t n = size < want - have ? size : want - have;
    assert(t->tile != NULL); /* begin made it */
    memcpy(t->tile + have, data, n);
    if (have + n == want)
        wk_matrix_pack(&m, row, (uint32_t)(want / row_bytes), t->tile);
    return n;
}

/* Takes bytes that are within the tensor. */
static void take(struct tensor *t, bool matrix, const uint8_t *data, size_t size)
{
    if (!matrix) {
        memcpy((uint8_t *)t->matrix.data + t->received, data, size);
        t->received += size;
        return;
    }
    while (size > 0) {
        size_t n = pack(t, data, size);
        t->received += n;
        data += n;
        size -= n;
    }
}

/* The part of the run that has this role; refuses what this version cannot hold. */
static int find_part(const struct weft_store *s, const struct weft_shard_run *run,
                     enum weft_role role, struct weft_shard_part *ret, weft_err *err)
{
    struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
    size_t n;
    if (!s->has_model)
        return weft_fail(err, WEFT_ESTATE, "a shard came before its model");
    if ((unsigned)role >= WEFT_ROLE_COUNT)
        return weft_fail(err, WEFT_ESHAPE, "shard of tensor role %u, expected 0 to %u",
                         (unsigned)role, WEFT_ROLE_COUNT - 1);
    int r = weft_shard_parts(&s->model, run, parts, &n, err);
    if (r < 0)
        return r;
    char name[160];
    weft_shard_name(name, sizeof name, run, role);
    uint32_t space = weft_shard_space(&s->model, run->kind);
    if (run->first != 0 || run->count != space)
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "shard %s: found %u from %u on, this version holds only whole runs of %u",
                         name, run->count, run->first, space);
    if (role == WEFT_ROLE_OUTPUT && s->model.tied)
        role = WEFT_ROLE_EMBED;
    for (size_t i = 0; i < n; i++)
        if (parts[i].role == role) {
            *ret = parts[i];
            return 0;
        }
    return weft_fail(err, WEFT_ESHAPE, "shard %s: the model has no such tensor there", name);
}

int weft_store_put(struct weft_store *s, const struct weft_shard_run *run, enum weft_role role,
                   uint64_t offset, const void *data, size_t size, weft_err *err)
{
    struct weft_shard_part part = {0};
    int r = find_part(s, run, role, &part, err);
    if (r < 0)
        return r;
    char name[160];
    weft_shard_name(name, sizeof name, run, role);
    struct tensor *t = find(s, part.role, part.layer);
    if (offset > part.bytes || size > part.bytes - offset)
        return weft_fail(err, WEFT_ESHAPE, "shard %s: %zu bytes from %llu on, expected %llu in all",
                         name, size, (unsigned long long)offset, (unsigned long long)part.bytes);
    if (is_ready(t) || size == 0)
        return 0;
    if (offset != t->received)
        return weft_fail(err, WEFT_ESHAPE,
                         "shard %s: bytes from %llu on, expected them from %llu on", name,
                         (unsigned long long)offset, (unsigned long long)t->received);
    if (t->matrix.data == NULL) {
        const struct weft_tensor *shape = weft_model_tensor(&s->model, part.role, part.layer);
        assert(part.bytes == shape->rows * weft_row_bytes(shape->type, shape->cols));
        r = begin(s, t, part.role, shape);
        if (r < 0)
            return weft_fail(err, -r, "shard %s: %llu bytes of memory", name,
                             (unsigned long long)packed_bytes(s, part.role, shape));
    }
    take(t, weft_role_matrix(part.role), data, size);
    if (t->received == part.bytes) {
        free(t->tile);
        t->tile = NULL;
        atomic_store_explicit(&t->ready, true, memory_order_release);
    }
    return 0;
}

/* ------------------------------------------------------------------ using */

const struct wk_matrix *weft_store_matrix(const struct weft_store *s, enum weft_role role,
                                          uint32_t layer)
{
    const struct tensor *t = find(s, role, layer);
    return is_ready(t) ? &t->matrix : NULL;
}

struct wk_matrix weft_store_expert(const struct weft_store *s, enum weft_role role, uint32_t layer,
                                   uint32_t expert)
{
    const struct tensor *t = find(s, role, layer);
    assert(is_ready(t) && expert < t->n);
    return matrix_of(t, expert);
}

const float *weft_store_vector(const struct weft_store *s, enum weft_role role, uint32_t layer)
{
    const struct tensor *t = find(s, role, layer);
    return is_ready(t) && !weft_role_matrix(role) ? t->matrix.data : NULL;
}

struct run_list {
    const struct weft_model *m;
    struct weft_shard_run *runs; /* [n] */
    size_t n, count;
};

/* All of a kind: a run of its whole index space, if the model has any of it. */
static void add_run(struct run_list *list, enum weft_shard_kind kind, uint32_t layer)
{
    const uint32_t space = weft_shard_space(list->m, kind);
    if (space == 0)
        return;
    if (list->count < list->n)
        list->runs[list->count] =
            (struct weft_shard_run){.kind = kind, .layer = layer, .count = space};
    list->count++;
}

size_t weft_stage_runs(const struct weft_model *m, uint32_t first_layer, uint32_t n_layers,
                       bool embed, bool head, struct weft_shard_run *runs, size_t n)
{
    struct run_list list = {.m = m, .runs = runs, .n = n};
    if (embed)
        add_run(&list, WEFT_SHARD_EMBED, 0);
    if (n_layers > 0)
        add_run(&list, WEFT_SHARD_ROPE, 0);
    for (uint32_t layer = first_layer; layer < first_layer + n_layers; layer++) {
        add_run(&list, WEFT_SHARD_NORMS, layer);
        add_run(&list, WEFT_SHARD_ATTN, layer);
        add_run(&list, WEFT_SHARD_FFN, layer);
        add_run(&list, WEFT_SHARD_EXPERT, layer);
    }
    if (head) {
        add_run(&list, WEFT_SHARD_HEAD_NORM, 0);
        add_run(&list, WEFT_SHARD_HEAD, 0);
    }
    return list.count;
}
