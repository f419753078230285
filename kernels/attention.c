/*
 * The KV cache of a layer and attention over it. Blocks of 64 positions, aligned to position 0;
 * every query takes in the blocks that it sees of them in order, so its bits depend on nothing but
 * itself. Positions behind its own or before its window are never used, whatever the memory holds
 * there.
 *
 * Work is cut into tiles of queries of one KV head, which share each read of a block. Where that
 * leaves threads idle (few rows, few KV heads), runs of blocks are items too: each block's own
 * result goes to scratch and is merged in order afterwards, by the same operations.
 */
#include "kernels/f16.h"
#include "kernels/table.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

/* ------------------------------------------------------------------ the cache */

/* What lies in a block of a KV head, in bytes from its begin. Q8_0 has scales for each run of
 * WK_BLOCK columns of a head, and a shorter last run where head_dim is no multiple of it. */
struct layout {
    size_t k_scales, v, v_scales, end;
};

static bool layout_of(enum wk_kv_type type, uint32_t head_dim, struct layout *ret)
{
    const size_t element = type == WK_KV_F32 ? 4 : type == WK_KV_F16 ? 2 : 1;
    const size_t runs = ((size_t)head_dim + WK_BLOCK - 1) / WK_BLOCK;
    const size_t scales = type == WK_KV_Q8_0 ? runs * WK_KV_BLOCK * sizeof(uint16_t) : 0;
    size_t matrix;
    if (__builtin_mul_overflow((size_t)head_dim, WK_KV_BLOCK * element, &matrix) ||
        matrix > SIZE_MAX / 4 || scales > SIZE_MAX / 4)
        return false;
    *ret = (struct layout){matrix, matrix + scales, 2 * matrix + scales, 2 * (matrix + scales)};
    return true;
}

size_t wk_kv_bytes(enum wk_kv_type type, uint32_t kv_heads, uint32_t head_dim, uint32_t capacity)
{
    struct layout l;
    size_t blocks, bytes;
    if (capacity % WK_KV_BLOCK != 0 || !layout_of(type, head_dim, &l) ||
        __builtin_mul_overflow((size_t)(capacity / WK_KV_BLOCK), (size_t)kv_heads, &blocks) ||
        __builtin_mul_overflow(blocks, l.end, &bytes))
        return 0;
    return bytes;
}

/* Block `block` of a KV head, and where its parts lie. */
static uint8_t *kv_block(const struct wk_kv *kv, uint32_t head, uint32_t block, struct layout *l)
{
    size_t blocks = kv->capacity / WK_KV_BLOCK;
    bool ok = layout_of(kv->type, kv->head_dim, l);
    assert(ok); /* wk_kv_bytes gave the size of the cache */
    return (uint8_t *)kv->data + (head * blocks + block) * l->end;
}

static void put_f32(float *k_block, uint32_t slot, uint32_t dim, const float *k, const float *v)
{
    for (uint32_t c = 0; c < dim; c++)
        k_block[(size_t)c * WK_KV_BLOCK + slot] = k[c];
    memcpy(k_block + (size_t)(WK_KV_BLOCK + slot) * dim, v, dim * sizeof *v);
}

static void put_f16(const struct wk_table *table, uint16_t *k_block, uint32_t slot, uint32_t dim,
                    const float *k, const float *v)
{
    uint16_t run[64]; /* narrowed a run at a time, then scattered */
    for (uint32_t c = 0; c < dim; c += 64) {
        uint32_t n = dim - c < 64 ? dim - c : 64;
        table->narrow(k + c, run, n);
        for (uint32_t j = 0; j < n; j++)
            k_block[(size_t)(c + j) * WK_KV_BLOCK + slot] = run[j];
    }
    table->narrow(v, k_block + (size_t)(WK_KV_BLOCK + slot) * dim, dim);
}

/* A run of `n` (at most WK_BLOCK) numbers as activations are quantised, the scale as f16: one that
 * is too large for it becomes infinite, one of NaN or infinity is NaN already. */
static uint16_t quantise_run(const struct wk_table *table, const float *x, uint32_t n,
                             struct wk_q8 *ret)
{
    float run[WK_BLOCK] = {0};
    memcpy(run, x, n * sizeof *x);
    table->quantise(run, 1, ret);
    return wk_f32_to_f16(ret->scale);
}

static void put_q8_0(const struct wk_table *table, uint8_t *at, const struct layout *l,
                     uint32_t slot, uint32_t dim, const float *k, const float *v)
{
    int8_t *k_block = (int8_t *)at, *v_block = (int8_t *)at + l->v;
    uint16_t *k_scales = (uint16_t *)(void *)(at + l->k_scales);
    uint16_t *v_scales = (uint16_t *)(void *)(at + l->v_scales);
    for (uint32_t c = 0; c < dim; c += WK_BLOCK) {
        const uint32_t n = dim - c < WK_BLOCK ? dim - c : WK_BLOCK;
        const size_t scale = (size_t)(c / WK_BLOCK) * WK_KV_BLOCK + slot;
        struct wk_q8 run;
        k_scales[scale] = quantise_run(table, k + c, n, &run);
        for (uint32_t j = 0; j < n; j++)
            k_block[(size_t)(c + j) * WK_KV_BLOCK + slot] = run.q[j];
        v_scales[scale] = quantise_run(table, v + c, n, &run);
        memcpy(v_block + (size_t)slot * dim + c, run.q, n);
    }
}

void wk_kv_put(const struct wk_engine *e, const struct wk_kv *kv, uint32_t position, uint32_t n,
               const float *k, const float *v)
{
    assert(n <= kv->capacity && position <= kv->capacity - n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t block = (position + i) / WK_KV_BLOCK, slot = (position + i) % WK_KV_BLOCK;
        for (uint32_t h = 0; h < kv->kv_heads; h++, k += kv->head_dim, v += kv->head_dim) {
            struct layout l;
            uint8_t *at = kv_block(kv, h, block, &l);
            switch (kv->type) {
            case WK_KV_F32:
                put_f32((float *)(void *)at, slot, kv->head_dim, k, v);
                break;
            case WK_KV_F16:
                put_f16(e->table, (uint16_t *)(void *)at, slot, kv->head_dim, k, v);
                break;
            case WK_KV_Q8_0:
                put_q8_0(e->table, at, &l, slot, kv->head_dim, k, v);
                break;
            }
        }
    }
}

/* ------------------------------------------------------------------ tiles of queries */

enum {
    /* Queries of a tile: with heads of 128 their q and out are 32 KiB, which a second-level cache
     * holds beside a block. */
    TILE = 32,
    TILE_LEAST = 8, /* fewer cost more reads than idle threads do */
    TILES_PER_THREAD = 4,
};

struct attention {
    const struct wk_engine *e;
    const struct wk_kv *kv;
    const float *q; /* [n, heads, head_dim] */
    float *out;     /* likewise */
    uint32_t n, heads, group, position;
    const struct wk_attention_spec *spec;
    uint32_t tile, tiles; /* queries of a tile; tiles of a KV head */

    /* With blocks as items, a round at a time: */
    uint32_t first, count;  /* blocks of the round */
    uint32_t run, runs;     /* blocks of an item, items of a tile */
    uint32_t stride;        /* blocks that parts has room for, of each query */
    struct wk_query *state; /* [kv_heads, n * group]: the blocks before the round */
    float *parts;           /* [kv_heads, n * group, stride, part_floats] */
};

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static uint32_t div_up(uint32_t a, uint32_t b)
{
    return a / b + (a % b != 0);
}

/* Queries of a KV head are numbered row by row, within a row by head. */
static uint32_t queries(const struct attention *p)
{
    return p->n * p->group;
}

static uint32_t last_position(const struct attention *p, uint32_t query)
{
    return p->position + query / p->group;
}

/* The first position that a query at `last` sees: of all of them, or of the last `window`. */
static uint32_t first_position(const struct attention *p, uint32_t last)
{
    const uint32_t window = p->spec->window;
    return window > 0 && last >= window ? last - window + 1 : 0;
}

/* The first and last block of which a query sees something. Later queries have later ones, or the
 * same. */
static uint32_t first_block(const struct attention *p, uint32_t query)
{
    return first_position(p, last_position(p, query)) / WK_KV_BLOCK;
}

static uint32_t last_block(const struct attention *p, uint32_t query)
{
    return last_position(p, query) / WK_KV_BLOCK;
}

/* Where q and out of a query lie. */
static size_t query_at(const struct attention *p, uint32_t kv_head, uint32_t query)
{
    size_t row = query / p->group, head = (size_t)kv_head * p->group + query % p->group;
    return (row * p->heads + head) * p->kv->head_dim;
}

static struct wk_query query_begin(const struct attention *p, uint32_t kv_head, uint32_t query)
{
    size_t at = query_at(p, kv_head, query);
    return (struct wk_query){.q = p->q + at, .out = p->out + at};
}

static void query_end(struct wk_query *q, uint32_t head_dim)
{
    for (uint32_t c = 0; c < head_dim; c++)
        q->out[c] /= q->sum;
}

/* Lets queries [first, first + n) see a block, as far as each may; those that see nothing of it are
 * left as they are. */
static void attend(const struct attention *p, uint32_t kv_head, uint32_t block, uint32_t first,
                   uint32_t n, struct wk_query *query)
{
    struct layout l;
    const uint8_t *at = kv_block(p->kv, kv_head, block, &l);
    const uint32_t start = block * WK_KV_BLOCK;
    for (; n > 0 && last_block(p, first) < block; first++, query++)
        n--;
    while (n > 0 && first_block(p, first + n - 1) > block)
        n--;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t last = last_position(p, first + i);
        query[i].first = max_u32(first_position(p, last), start) - start;
        query[i].end = min_u32(last - start + 1, WK_KV_BLOCK);
    }
    const bool scaled = p->kv->type == WK_KV_Q8_0;
    struct wk_attend a = {
        .type = p->kv->type,
        .head_dim = p->kv->head_dim,
        .k = at,
        .v = at + l.v,
        .k_scales = scaled ? (const uint16_t *)(const void *)(at + l.k_scales) : NULL,
        .v_scales = scaled ? (const uint16_t *)(const void *)(at + l.v_scales) : NULL,
        .scale = p->spec->scale,
        .softcap = p->spec->softcap,
        .n = n,
        .query = query,
    };
    p->e->table->attend(&a);
}

/* Tiles that see most come first, so that no thread begins with one when the others end. */
static void attend_tile(void *arg, size_t item)
{
    const struct attention *p = arg;
    const uint32_t kv_head = (uint32_t)(item % p->kv->kv_heads);
    const uint32_t first = (p->tiles - 1 - (uint32_t)(item / p->kv->kv_heads)) * p->tile;
    const uint32_t n = min_u32(queries(p) - first, p->tile);
    struct wk_query query[TILE];
    for (uint32_t i = 0; i < n; i++)
        query[i] = query_begin(p, kv_head, first + i);
    const uint32_t last = last_block(p, first + n - 1);
    for (uint32_t b = first_block(p, first); b <= last; b++)
        attend(p, kv_head, b, first, n, query);
    for (uint32_t i = 0; i < n; i++)
        query_end(&query[i], p->kv->head_dim);
}

/* ------------------------------------------------------------------ blocks as items */

enum {
    ROUND = 64,      /* blocks of a round for one row: 4096 positions between two barriers */
    ROUND_LEAST = 4, /* fewer are not worth the barriers */
    RUNS_PER_THREAD = 4,
};
/* States of a head: ROUND_LEAST is met by at most so many rows. Keeps the parts aligned. */
#define STATE_BYTES (ROUND / ROUND_LEAST * sizeof(struct wk_query))

/* A block's own result for a query: max, sum, and v aligned to a cache line. */
static size_t part_floats(uint32_t head_dim)
{
    return ((size_t)head_dim + WK_TILE - 1) / WK_TILE * WK_TILE + WK_TILE;
}

static float *part_of(const struct attention *p, uint32_t kv_head, uint32_t query, uint32_t block)
{
    size_t at = ((size_t)kv_head * queries(p) + query) * p->stride + (block - p->first);
    return p->parts + at * part_floats(p->kv->head_dim);
}

/* A run of blocks, each alone. */
static void attend_run(void *arg, size_t item)
{
    const struct attention *p = arg;
    const uint32_t kv_head = (uint32_t)(item / p->runs / p->tiles);
    const uint32_t first = (uint32_t)(item / p->runs % p->tiles) * p->tile;
    const uint32_t n = min_u32(queries(p) - first, p->tile);
    const uint32_t run = p->first + (uint32_t)(item % p->runs) * p->run;
    const uint32_t begin = max_u32(run, first_block(p, first));
    const uint32_t end =
        min_u32(min_u32(run + p->run, p->first + p->count), last_block(p, first + n - 1) + 1);
    for (uint32_t b = begin; b < end; b++) {
        struct wk_query query[TILE];
        for (uint32_t i = 0; i < n; i++)
            query[i] = (struct wk_query){.q = p->q + query_at(p, kv_head, first + i),
                                         .out = part_of(p, kv_head, first + i, b) + WK_TILE};
        attend(p, kv_head, b, first, n, query);
        for (uint32_t i = 0; i < n; i++)
            if (query[i].begun) {
                float *part = part_of(p, kv_head, first + i, b);
                part[0] = query[i].max;
                part[1] = query[i].sum;
            }
    }
}

/* The blocks of a round into one query. */
static void merge_query(void *arg, size_t item)
{
    const struct attention *p = arg;
    const uint32_t kv_head = (uint32_t)(item / queries(p)), i = (uint32_t)(item % queries(p));
    const uint32_t begin = max_u32(p->first, first_block(p, i)), last = last_block(p, i);
    const uint32_t end = p->first + p->count;
    struct wk_query *q = &p->state[item];
    if (p->first == first_block(p, 0)) /* the first round */
        *q = query_begin(p, kv_head, i);
    for (uint32_t b = begin; b < min_u32(end, last + 1); b++) {
        float *part = part_of(p, kv_head, i, b);
        const struct wk_query block = {.out = part + WK_TILE, .max = part[0], .sum = part[1]};
        p->e->table->merge(q, &block, p->kv->head_dim);
    }
    if (p->first <= last && last < end)
        query_end(q, p->kv->head_dim);
}

/* Blocks [begin, end). */
static void attend_rounds(struct attention *p, uint32_t begin, uint32_t end)
{
    const uint32_t items = p->tiles * p->kv->kv_heads;
    for (p->first = begin; p->first < end; p->first += p->count) {
        p->count = min_u32(end - p->first, p->stride);
        p->runs = min_u32(div_up(wk_pool_threads(p->e->pool) * RUNS_PER_THREAD, items), p->count);
        p->run = div_up(p->count, p->runs);
        p->runs = div_up(p->count, p->run);
        wk_pool_run(p->e->pool, attend_run, p, (size_t)items * p->runs);
        wk_pool_run(p->e->pool, merge_query, p, (size_t)queries(p) * p->kv->kv_heads);
    }
}

size_t wk_attention_scratch(const struct wk_engine *e, uint32_t heads, uint32_t head_dim)
{
    if (wk_pool_threads(e->pool) == 1)
        return 0;
    return heads * (STATE_BYTES + ROUND * part_floats(head_dim) * sizeof(float));
}

/* ------------------------------------------------------------------ the choice */

/* Whether n items leave more than an eighth of the threads' time idle. */
static bool leaves_idle(uint32_t n, uint32_t threads)
{
    uint32_t slots = div_up(n, threads) * threads;
    return (slots - n) * 8 > slots;
}

void wk_attention(const struct wk_engine *e, const struct wk_kv *kv, const float *q, uint32_t n,
                  uint32_t heads, uint32_t position, const struct wk_attention_spec *spec,
                  float *out, void *scratch)
{
    assert(n <= kv->capacity && position <= kv->capacity - n && heads % kv->kv_heads == 0);
    struct attention p = {.e = e,
                          .kv = kv,
                          .q = q,
                          .out = out,
                          .n = n,
                          .heads = heads,
                          .group = heads / kv->kv_heads,
                          .position = position,
                          .spec = spec,
                          .tile = TILE};
    if (n == 0)
        return;
    const uint32_t threads = wk_pool_threads(e->pool);
    const uint32_t begin = first_block(&p, 0), end = last_block(&p, queries(&p) - 1) + 1;
    p.tiles = div_up(queries(&p), p.tile);
    p.stride = ROUND / n;
    if (threads > 1 && scratch != NULL && min_u32(p.stride, end - begin) >= ROUND_LEAST &&
        leaves_idle(p.tiles * kv->kv_heads, threads)) {
        p.state = scratch;
        p.parts = (float *)scratch + heads * STATE_BYTES / sizeof(float);
        attend_rounds(&p, begin, end);
        return;
    }
    while (p.tile > TILE_LEAST && p.tiles * kv->kv_heads < TILES_PER_THREAD * threads) {
        p.tile /= 2;
        p.tiles = div_up(queries(&p), p.tile);
    }
    wk_pool_run(e->pool, attend_tile, &p, (size_t)p.tiles * kv->kv_heads);
}
