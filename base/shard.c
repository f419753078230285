/*
 * Shards: how the tensors of a model are cut, and what the pieces weigh (ARCHITECTURE.md,
 * "Shards"). Invariant: the runs [0, space) of every kind and layer cover each tensor exactly once,
 * but for columns widened to whole blocks and the matrix of a tied model, which is embedding and
 * head. Pure.
 */
#include "base/model.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/arch.h"

#define TILE_ROWS \
    16u /* packed matrices are padded to this many rows (kernels/kernels.h, WK_TILE) */

static const struct {
    const char *name;
    const char *unit; /* of the index, for people */
    bool layered;
} kinds[WEFT_SHARD_KIND_COUNT] = {
    [WEFT_SHARD_EMBED] = {"embed", "embedding", false},
    [WEFT_SHARD_HEAD] = {"head", "head rows", false},
    [WEFT_SHARD_HEAD_NORM] = {"head-norm", "head norm", false},
    [WEFT_SHARD_ROPE] = {"rope", "rope", false},
    [WEFT_SHARD_NORMS] = {"norms", "norms", true},
    [WEFT_SHARD_ATTN] = {"attn", "kv groups", true},
    [WEFT_SHARD_FFN] = {"ffn", "ffn blocks", true},
    [WEFT_SHARD_EXPERT] = {"expert", "experts", true},
};

const char *weft_shard_kind_name(enum weft_shard_kind kind)
{
    return (unsigned)kind < WEFT_SHARD_KIND_COUNT ? kinds[kind].name : "unknown";
}

uint32_t weft_shard_space(const struct weft_model *m, enum weft_shard_kind kind)
{
    switch (kind) {
    case WEFT_SHARD_HEAD:
        return m->vocab;
    case WEFT_SHARD_ATTN:
        return m->n_kv_heads;
    case WEFT_SHARD_FFN:
        return (m->ffn_dim + WEFT_FFN_PIECE - 1) / WEFT_FFN_PIECE;
    case WEFT_SHARD_EXPERT:
        return m->traits.n_experts;
    case WEFT_SHARD_ROPE:
        return m->global[WEFT_ROLE_ROPE_FREQS].bytes > 0 ||
               m->global[WEFT_ROLE_ROPE_LONG].bytes > 0;
    default:
        return 1;
    }
}

bool weft_shard_layered(enum weft_shard_kind kind)
{
    return (unsigned)kind < WEFT_SHARD_KIND_COUNT && kinds[kind].layered;
}

const char *weft_shard_whole(const struct weft_model *m, enum weft_shard_kind kind)
{
    if (kind == WEFT_SHARD_ATTN && weft_arch_of(m)->qk_norm == WEFT_QK_NORM_ALL)
        return "its q and k norms span all heads";
    return NULL;
}

char *weft_shard_name(char *buf, size_t n, const struct weft_shard_run *run, enum weft_role role)
{
    char place[24] = "", range[32] = "";
    const char *unit = "shards";
    bool many = run->kind == WEFT_SHARD_HEAD || run->kind == WEFT_SHARD_ATTN ||
                run->kind == WEFT_SHARD_FFN || run->kind == WEFT_SHARD_EXPERT;
    if ((unsigned)run->kind < WEFT_SHARD_KIND_COUNT) {
        unit = kinds[run->kind].unit;
        if (kinds[run->kind].layered)
            snprintf(place, sizeof place, "blk.%u ", run->layer);
    }
    if (many)
        snprintf(range, sizeof range, " %u..%llu", run->first,
                 (unsigned long long)run->first + run->count - (run->count > 0));
    snprintf(buf, n, "%s%s%s (%s)", place, unit, range, weft_role_name(role));
    return buf;
}

/* ------------------------------------------------------------------ parts */

struct parts {
    const struct weft_model *m;
    uint32_t layer;
    struct weft_shard_part *items;
    size_t count;
};

static void add(struct parts *p, enum weft_role role, uint32_t row, uint32_t n_rows, uint32_t col,
                uint32_t n_cols)
{
    const struct weft_tensor *t = weft_model_tensor(p->m, role, p->layer);
    assert(p->count < WEFT_SHARD_PARTS_MAX);
    p->items[p->count++] = (struct weft_shard_part){
        .role = role,
        .layer = p->layer,
        .row = row,
        .n_rows = n_rows,
        .col = col,
        .n_cols = n_cols,
        .bytes = n_rows * weft_row_bytes(t->type, n_cols),
    };
}

/* Whole rows; nothing for a tensor that is absent. */
static void add_rows(struct parts *p, enum weft_role role, uint32_t row, uint32_t n_rows)
{
    const struct weft_tensor *t = weft_model_tensor(p->m, role, p->layer);
    if (t->bytes != 0)
        add(p, role, row, n_rows, 0, t->cols);
}

static void add_all(struct parts *p, enum weft_role role)
{
    add_rows(p, role, 0, weft_model_tensor(p->m, role, p->layer)->rows);
}

/* All rows of columns [col, col + n), widened to whole blocks: a block that straddles a cut goes to
 * both sides. */
static void add_columns(struct parts *p, enum weft_role role, uint32_t col, uint32_t n)
{
    const struct weft_tensor *t = weft_model_tensor(p->m, role, p->layer);
    uint32_t block = weft_tensor_type_info(t->type)->block_elems;
    uint32_t begin = col / block * block;
    uint32_t end =
        (col + n + block - 1) / block * block; /* within the row, which is whole blocks */
    add(p, role, 0, t->rows, begin, end - begin);
}

static void add_attn(struct parts *p, uint32_t first, uint32_t count)
{
    const struct weft_model *m = p->m;
    uint32_t kv = m->head_dim, q = m->n_heads / m->n_kv_heads * m->head_dim; /* rows of one group */
    add_rows(p, WEFT_ROLE_ATTN_Q, first * q, count * q);
    add_rows(p, WEFT_ROLE_ATTN_K, first * kv, count * kv);
    add_rows(p, WEFT_ROLE_ATTN_V, first * kv, count * kv);
    add_columns(p, WEFT_ROLE_ATTN_O, first * q, count * q);
}

/* The plain FFN, or the shared expert of a mixture: a model has one of the two. */
static void add_ffn(struct parts *p, uint32_t first, uint32_t count)
{
    const bool shared = p->m->traits.n_experts > 0;
    uint32_t begin = first * WEFT_FFN_PIECE, end = (first + count) * WEFT_FFN_PIECE;
    if (end > p->m->ffn_dim)
        end = p->m->ffn_dim;
    add_rows(p, shared ? WEFT_ROLE_SHARED_GATE : WEFT_ROLE_FFN_GATE, begin, end - begin);
    add_rows(p, shared ? WEFT_ROLE_SHARED_UP : WEFT_ROLE_FFN_UP, begin, end - begin);
    add_columns(p, shared ? WEFT_ROLE_SHARED_DOWN : WEFT_ROLE_FFN_DOWN, begin, end - begin);
}

static void add_experts(struct parts *p, uint32_t first, uint32_t count)
{
    const uint32_t ffn = p->m->traits.expert_ffn, dim = p->m->dim;
    add_rows(p, WEFT_ROLE_EXPERT_GATE, first * ffn, count * ffn);
    add_rows(p, WEFT_ROLE_EXPERT_UP, first * ffn, count * ffn);
    add_rows(p, WEFT_ROLE_EXPERT_DOWN, first * dim, count * dim);
}

/* What every member of a stage needs of a layer, whatever it computes of it. */
static void add_norms(struct parts *p)
{
    static const enum weft_role with_all[] = {
        WEFT_ROLE_ATTN_NORM,     WEFT_ROLE_ATTN_Q_BIAS,    WEFT_ROLE_ATTN_K_BIAS,
        WEFT_ROLE_ATTN_V_BIAS,   WEFT_ROLE_ATTN_O_BIAS,    WEFT_ROLE_ATTN_Q_NORM,
        WEFT_ROLE_ATTN_K_NORM,   WEFT_ROLE_ATTN_POST_NORM, WEFT_ROLE_FFN_NORM,
        WEFT_ROLE_FFN_GATE_BIAS, WEFT_ROLE_FFN_UP_BIAS,    WEFT_ROLE_FFN_DOWN_BIAS,
        WEFT_ROLE_FFN_POST_NORM, WEFT_ROLE_ROUTER,         WEFT_ROLE_SHARED_ROUTER,
    };
    for (size_t i = 0; i < sizeof with_all / sizeof with_all[0]; i++)
        add_all(p, with_all[i]);
}

int weft_shard_parts(const struct weft_model *m, const struct weft_shard_run *run,
                     struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX], size_t *ret_count,
                     weft_err *err)
{
    if ((unsigned)run->kind >= WEFT_SHARD_KIND_COUNT)
        return weft_fail(err, WEFT_ESHAPE, "shard kind %u is unknown", (unsigned)run->kind);
    uint32_t layers = kinds[run->kind].layered ? m->n_layers : 1;
    if (run->layer >= layers)
        return weft_fail(err, WEFT_ESHAPE, "%s shards of layer %u, expected 0 to %u",
                         kinds[run->kind].name, run->layer, layers - 1);
    uint32_t space = weft_shard_space(m, run->kind);
    if (space == 0)
        return weft_fail(err, WEFT_ESHAPE, "%s shards: the model has none", kinds[run->kind].name);
    if (run->count == 0 || run->count > space || run->first > space - run->count)
        return weft_fail(err, WEFT_ESHAPE,
                         "%s shards: found %u from %u on, expected 1 to %u within 0..%u",
                         kinds[run->kind].name, run->count, run->first, space, space - 1);

    struct parts p = {.m = m, .layer = run->layer, .items = parts};
    switch (run->kind) {
    case WEFT_SHARD_EMBED:
        add_all(&p, WEFT_ROLE_EMBED);
        break;
    case WEFT_SHARD_HEAD:
        add_rows(&p, m->tied ? WEFT_ROLE_EMBED : WEFT_ROLE_OUTPUT, run->first, run->count);
        break;
    case WEFT_SHARD_HEAD_NORM:
        add_all(&p, WEFT_ROLE_OUTPUT_NORM);
        break;
    case WEFT_SHARD_ROPE:
        add_all(&p, WEFT_ROLE_ROPE_FREQS);
        add_all(&p, WEFT_ROLE_ROPE_LONG);
        add_all(&p, WEFT_ROLE_ROPE_SHORT);
        break;
    case WEFT_SHARD_NORMS:
        add_norms(&p);
        break;
    case WEFT_SHARD_ATTN:
        add_attn(&p, run->first, run->count);
        break;
    case WEFT_SHARD_FFN:
        add_ffn(&p, run->first, run->count);
        break;
    case WEFT_SHARD_EXPERT:
        add_experts(&p, run->first, run->count);
        break;
    case WEFT_SHARD_KIND_COUNT:
        break;
    }
    *ret_count = p.count;
    return 0;
}

void weft_shard_read(const struct weft_model *m, const struct weft_mapping *files,
                     const struct weft_shard_part *part, uint64_t offset, void *buf, size_t size)
{
    const struct weft_tensor *t = weft_model_tensor(m, part->role, part->layer);
    uint64_t stride = weft_row_bytes(t->type, t->cols); /* of a row in the file */
    uint64_t row_bytes = weft_row_bytes(t->type, part->n_cols);
    const uint8_t *src =
        files[t->part].data + t->offset + part->row * stride + weft_row_bytes(t->type, part->col);
    uint8_t *dst = buf;
    assert(offset <= part->bytes && size <= part->bytes - offset);
    if (row_bytes == stride) { /* whole rows lie together */
        memcpy(dst, src + offset, size);
        return;
    }
    while (size > 0) {
        uint64_t row = offset / row_bytes, at = offset % row_bytes;
        size_t n = (size_t)(row_bytes - at) < size ? (size_t)(row_bytes - at) : size;
        memcpy(dst, src + row * stride + at, n);
        dst += n;
        offset += n;
        size -= n;
    }
}

/* ------------------------------------------------------------------ sizes */

static uint64_t packed_bytes(const struct weft_model *m, enum weft_role role, uint32_t layer)
{
    const struct weft_tensor *t = weft_model_tensor(m, role, layer);
    if (!weft_role_matrix(role) || t->bytes == 0)
        return t->bytes;
    const uint64_t n = weft_role_experts(role) ? m->traits.n_experts : 1;
    uint64_t rows = (t->rows / n + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    /* The kernels pack digits of base 3 as pairs of bits (kernels/formats.h). */
    return n * rows * weft_row_bytes(t->type == WEFT_TQ1_0 ? WEFT_TQ2_0 : t->type, t->cols);
}

uint64_t weft_layer_weight_bytes(const struct weft_model *m, uint32_t layer)
{
    uint64_t sum = 0;
    for (int role = WEFT_ROLE_GLOBAL_COUNT; role < WEFT_ROLE_COUNT; role++)
        sum += packed_bytes(m, (enum weft_role)role, layer);
    return sum;
}

uint64_t weft_layer_read_bytes(const struct weft_model *m, uint32_t layer, uint32_t rows)
{
    const uint64_t n = m->traits.n_experts, used = m->traits.n_experts_used;
    uint64_t sum = weft_layer_weight_bytes(m, layer), experts = 0;
    if (n == 0)
        return sum;
    for (int role = WEFT_ROLE_EXPERT_GATE; role <= WEFT_ROLE_EXPERT_DOWN; role++)
        experts += packed_bytes(m, (enum weft_role)role, layer);
    /* (1 - used / n)^rows of them are met by no row: in units of 2^-32, rounded down */
    uint64_t unmet = UINT64_C(1) << 32;
    for (uint32_t i = 0; i < rows && unmet > 0; i++)
        unmet = unmet * (n - used) / n;
    return sum - (experts >> 16) * (unmet >> 16);
}

uint64_t weft_layer_active_params(const struct weft_model *m, uint32_t layer)
{
    uint64_t sum = 0;
    for (int role = WEFT_ROLE_GLOBAL_COUNT; role < WEFT_ROLE_COUNT; role++) {
        const struct weft_tensor *t = weft_model_tensor(m, (enum weft_role)role, layer);
        const uint64_t params = t->bytes == 0 ? 0 : (uint64_t)t->rows * t->cols;
        sum += params > 0 && weft_role_experts((enum weft_role)role)
                   ? params / m->traits.n_experts * m->traits.n_experts_used
                   : params;
    }
    return sum;
}

uint64_t weft_embed_weight_bytes(const struct weft_model *m)
{
    return packed_bytes(m, WEFT_ROLE_EMBED, 0);
}

uint64_t weft_head_weight_bytes(const struct weft_model *m)
{
    return packed_bytes(m, m->tied ? WEFT_ROLE_EMBED : WEFT_ROLE_OUTPUT, 0) +
           packed_bytes(m, WEFT_ROLE_OUTPUT_NORM, 0);
}

const char *const weft_kv_names[WEFT_KV_COUNT + 1] = {
    [WEFT_KV_F16] = "f16", [WEFT_KV_F32] = "f32", [WEFT_KV_Q8_0] = "q8_0"};

uint64_t weft_kv_position_bytes(const struct weft_model *m, enum weft_kv kv)
{
    const uint64_t dim = m->head_dim, runs = (dim + 31) / 32; /* they begin anew at each head */
    const uint64_t head = kv == WEFT_KV_F32   ? 4 * dim
                          : kv == WEFT_KV_F16 ? 2 * dim
                                              : dim + 2 * runs;
    return 2 * m->n_kv_heads * head; /* K and V */
}
