/*
 * The KV cache of a layer and attention over it. Blocks of 64 positions, aligned to position 0;
 * every query walks the blocks up to its own position in order, so its bits depend on nothing but
 * itself. Positions behind its own are never used, whatever the memory holds there.
 */
#include "kernels/f16.h"
#include "kernels/table.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

static size_t element_bytes(enum wk_kv_type type)
{
    return type == WK_KV_F32 ? sizeof(float) : sizeof(uint16_t);
}

size_t wk_kv_bytes(enum wk_kv_type type, uint32_t kv_heads, uint32_t head_dim, uint32_t capacity)
{
    size_t bytes;
    if (capacity % WK_KV_BLOCK != 0 ||
        __builtin_mul_overflow((size_t)capacity * kv_heads, (size_t)head_dim, &bytes) ||
        __builtin_mul_overflow(bytes, 2 * element_bytes(type), &bytes))
        return 0;
    return bytes;
}

/* Block `block` of a KV head: K; V follows after head_dim * 64 elements. */
static uint8_t *kv_block(const struct wk_kv *kv, uint32_t head, uint32_t block)
{
    size_t blocks = kv->capacity / WK_KV_BLOCK;
    size_t bytes = 2 * (size_t)WK_KV_BLOCK * kv->head_dim * element_bytes(kv->type);
    return (uint8_t *)kv->data + (head * blocks + block) * bytes;
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

void wk_kv_put(const struct wk_engine *e, const struct wk_kv *kv, uint32_t position, uint32_t n,
               const float *k, const float *v)
{
    assert(n <= kv->capacity && position <= kv->capacity - n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t block = (position + i) / WK_KV_BLOCK, slot = (position + i) % WK_KV_BLOCK;
        for (uint32_t h = 0; h < kv->kv_heads; h++, k += kv->head_dim, v += kv->head_dim) {
            void *at = kv_block(kv, h, block);
            if (kv->type == WK_KV_F32)
                put_f32(at, slot, kv->head_dim, k, v);
            else
                put_f16(e->table, at, slot, kv->head_dim, k, v);
        }
    }
}

/* ------------------------------------------------------------------ attention */

struct attention {
    const struct wk_engine *e;
    const struct wk_kv *kv;
    const float *q; /* [n, heads, head_dim] */
    float *out;     /* likewise */
    uint32_t n, heads, group, position;
    uint32_t runs; /* runs of WK_QUERIES queries of a KV head */
    float scale;
};

/* Queries of a KV head are numbered row by row, within a row by head. */
static void attend_run(void *arg, size_t item)
{
    const struct attention *p = arg;
    uint32_t kv_head = (uint32_t)(item / p->runs), dim = p->kv->head_dim;
    size_t first = item % p->runs * WK_QUERIES, queries = (size_t)p->n * p->group;
    size_t n = queries - first < WK_QUERIES ? queries - first : WK_QUERIES;
    assert(n > 0); /* wk_attention counts the runs: none is empty */
    struct wk_query state[WK_QUERIES] = {0};
    uint32_t last[WK_QUERIES] = {0}; /* position a query sees last */
    for (size_t i = 0; i < n; i++) {
        size_t row = (first + i) / p->group, head = kv_head * p->group + (first + i) % p->group;
        size_t at = (row * p->heads + head) * dim;
        state[i] = (struct wk_query){.q = p->q + at, .out = p->out + at};
        last[i] = p->position + (uint32_t)row;
    }
    for (uint32_t start = 0; start <= last[n - 1]; start += WK_KV_BLOCK) {
        struct wk_attend a = {.type = p->kv->type, .head_dim = dim, .scale = p->scale};
        size_t begin =
            0; /* later queries see at least as much: those that see nothing come first */
        while (last[begin] < start)
            begin++;
        a.n = (uint32_t)(n - begin);
        a.k = kv_block(p->kv, kv_head, start / WK_KV_BLOCK);
        a.v = (const uint8_t *)a.k + (size_t)WK_KV_BLOCK * dim * element_bytes(a.type);
        for (size_t i = begin; i < n; i++) {
            uint32_t seen = last[i] - start + 1;
            state[i].valid = seen < WK_KV_BLOCK ? seen : WK_KV_BLOCK;
            a.query[i - begin] = state[i];
        }
        p->e->table->attend(&a);
        memcpy(&state[begin], a.query, a.n * sizeof a.query[0]);
    }
    for (size_t i = 0; i < n; i++)
        for (uint32_t c = 0; c < dim; c++)
            state[i].out[c] /= state[i].sum;
}

void wk_attention(const struct wk_engine *e, const struct wk_kv *kv, const float *q, uint32_t n,
                  uint32_t heads, uint32_t position, float scale, float *out)
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
                          .scale = scale};
    p.runs = (uint32_t)(((size_t)n * p.group + WK_QUERIES - 1) / WK_QUERIES);
    wk_pool_run(e->pool, attend_run, &p, (size_t)p.runs * kv->kv_heads);
}
