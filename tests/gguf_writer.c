/*
 * The GGUF writer of tests, see gguf_writer.h.
 */
#include "tests/gguf_writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"

/* A growing byte string. */
struct bytes {
    uint8_t *data;
    size_t size, capacity;
};

static void *must(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

static void put(struct bytes *b, const void *data, size_t n)
{
    if (b->size + n > b->capacity) {
        b->capacity = 2 * b->capacity + n;
        b->data = must(realloc(b->data, b->capacity));
    }
    if (n > 0)
        memcpy(b->data + b->size, data, n);
    b->size += n;
}

static void put_int(struct bytes *b, uint64_t v, size_t n)
{
    uint8_t le[8];
    for (size_t i = 0; i < n; i++)
        le[i] = (uint8_t)(v >> (8 * i));
    put(b, le, n);
}

static void put_string(struct bytes *b, const char *s, size_t n)
{
    put_int(b, n, 8);
    put(b, s, n);
}

static void pad(struct bytes *b, size_t alignment)
{
    while (b->size % alignment != 0)
        put(b, "", 1);
}

void gguf_writer_init(struct gguf_writer *w)
{
    *w = (struct gguf_writer){.version = 3, .alignment = 32, .random = 1};
}

void gguf_writer_done(struct gguf_writer *w)
{
    for (size_t i = 0; i < w->n_kvs; i++) {
        free(w->kvs[i].key);
        free(w->kvs[i].data);
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        free(w->tensors[i].name);
        free(w->tensors[i].data);
    }
    free(w->kvs);
    free(w->tensors);
    *w = (struct gguf_writer){0};
}

/* ------------------------------------------------------------------ keys */

void gguf_writer_raw(struct gguf_writer *w, const char *key, uint32_t type, const void *data,
                     size_t bytes)
{
    size_t i = w->n_kvs;
    for (size_t k = 0; !w->duplicates && k < w->n_kvs; k++)
        if (strcmp(w->kvs[k].key, key) == 0)
            i = k;
    if (i == w->n_kvs) {
        w->kvs = must(realloc(w->kvs, (w->n_kvs + 1) * sizeof *w->kvs));
        w->kvs[w->n_kvs++] =
            (struct gguf_writer_kv){.key = must(strdup(key)), .key_size = strlen(key)};
    }
    struct bytes b = {0};
    put(&b, data, bytes);
    free(w->kvs[i].data);
    w->kvs[i].type = type;
    w->kvs[i].data = b.data;
    w->kvs[i].size = b.size;
}

void gguf_writer_int(struct gguf_writer *w, const char *key, enum weft_gguf_type type,
                     uint64_t value)
{
    static const uint8_t width[WEFT_GGUF_TYPE_COUNT] = {
        [WEFT_GGUF_U8] = 1,  [WEFT_GGUF_I8] = 1,  [WEFT_GGUF_BOOL] = 1,
        [WEFT_GGUF_U16] = 2, [WEFT_GGUF_I16] = 2, [WEFT_GGUF_U32] = 4,
        [WEFT_GGUF_I32] = 4, [WEFT_GGUF_U64] = 8, [WEFT_GGUF_I64] = 8,
    };
    struct bytes b = {0};
    put_int(&b, value, width[type]);
    gguf_writer_raw(w, key, type, b.data, b.size);
    free(b.data);
}

void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value)
{
    gguf_writer_int(w, key, WEFT_GGUF_U32, value);
}

void gguf_writer_f32(struct gguf_writer *w, const char *key, float value)
{
    gguf_writer_raw(w, key, WEFT_GGUF_F32, &value, sizeof value);
}

void gguf_writer_f64(struct gguf_writer *w, const char *key, double value)
{
    gguf_writer_raw(w, key, WEFT_GGUF_F64, &value, sizeof value);
}

void gguf_writer_bool(struct gguf_writer *w, const char *key, bool value)
{
    gguf_writer_int(w, key, WEFT_GGUF_BOOL, value);
}

void gguf_writer_str(struct gguf_writer *w, const char *key, const char *value)
{
    struct bytes b = {0};
    put_string(&b, value, strlen(value));
    gguf_writer_raw(w, key, WEFT_GGUF_STRING, b.data, b.size);
    free(b.data);
}

void gguf_writer_array(struct gguf_writer *w, const char *key, enum weft_gguf_type item_type,
                       uint64_t count, const void *items, size_t bytes)
{
    struct bytes b = {0};
    put_int(&b, item_type, 4);
    put_int(&b, count, 8);
    put(&b, items, bytes);
    gguf_writer_raw(w, key, WEFT_GGUF_ARRAY, b.data, b.size);
    free(b.data);
}

void gguf_writer_strings(struct gguf_writer *w, const char *key, const char *const *items, size_t n)
{
    struct bytes b = {0};
    for (size_t i = 0; i < n; i++)
        put_string(&b, items[i], strlen(items[i]));
    gguf_writer_array(w, key, WEFT_GGUF_STRING, n, b.data, b.size);
    free(b.data);
}

void gguf_writer_remove(struct gguf_writer *w, const char *key)
{
    for (size_t i = 0; i < w->n_kvs; i++) {
        if (strcmp(w->kvs[i].key, key) != 0)
            continue;
        free(w->kvs[i].key);
        free(w->kvs[i].data);
        memmove(&w->kvs[i], &w->kvs[i + 1], (--w->n_kvs - i) * sizeof *w->kvs);
        return;
    }
    abort();
}

/* ------------------------------------------------------------------ tensors */

/* Truncates; values of tests are far from the ends of the range, smaller ones become 0. */
static uint16_t half_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    uint32_t exponent = u >> 23 & 0xff;
    if (exponent < 113)
        return (uint16_t)(u >> 16 & 0x8000);
    return (uint16_t)((u >> 16 & 0x8000) | (exponent - 112) << 10 | (u >> 13 & 0x3ff));
}

static void random_bytes(uint64_t *random, uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        data[i] = (uint8_t)(weft_test_random(random) >> 56);
}

static void fill_half(uint8_t *data, float x)
{
    uint16_t h = half_bits(x);
    memcpy(data, &h, sizeof h);
}

void gguf_writer_fill(uint64_t *random, uint32_t type, void *data, uint64_t n, float scale)
{
    const struct weft_tensor_type_info *info = weft_tensor_type_info(type);
    uint8_t *block = data;
    for (uint64_t i = 0; i < n / info->block_elems; i++, block += info->block_bytes) {
        /* 1.7: uniform numbers of variance 1; quantised ones use their block's whole range. */
        float x = (float)(2 * weft_test_uniform(random) - 1) * 1.7f * scale;
        float d = (float)(weft_test_uniform(random) + 0.5) * 1.7f * scale;
        random_bytes(random, block, info->block_bytes);
        switch (type) {
        case WEFT_F32:
            memcpy(block, &x, sizeof x);
            break;
        case WEFT_F16:
            fill_half(block, x);
            break;
        case WEFT_Q8_0:
            fill_half(block, d / 127);
            break;
        case WEFT_Q4_0:
            fill_half(block, d / 8);
            break;
        case WEFT_Q6_K: /* 32 steps of scales to 127 */
            fill_half(block + 208, d / (32 * 127));
            break;
        default:
            break;
        }
    }
}

struct gguf_writer_tensor *gguf_writer_declare(struct gguf_writer *w, const char *name,
                                               uint32_t type, const uint64_t *dims, uint32_t n_dims)
{
    const struct weft_tensor_type_info *info = must((void *)weft_tensor_type_info(type));
    size_t i = w->n_tensors;
    for (size_t k = 0; !w->duplicates && k < w->n_tensors; k++)
        if (strcmp(w->tensors[k].name, name) == 0)
            i = k;
    if (i == w->n_tensors) {
        w->tensors = must(realloc(w->tensors, (w->n_tensors + 1) * sizeof *w->tensors));
        w->tensors[w->n_tensors++] = (struct gguf_writer_tensor){0};
    }
    struct gguf_writer_tensor *t = &w->tensors[i];
    free(t->name);
    free(t->data);
    *t = (struct gguf_writer_tensor){
        .name = must(strdup(name)),
        .name_size = strlen(name),
        .type = type,
        .n_dims = n_dims,
        .dims = {1, 1, 1, 1},
        .offset = GGUF_WRITER_AUTO,
    };
    memcpy(t->dims, dims, n_dims * sizeof *dims);
    t->size = (size_t)(t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3] / info->block_elems *
                       info->block_bytes);
    return t;
}

struct gguf_writer_tensor *gguf_writer_tensor(struct gguf_writer *w, const char *name,
                                              uint32_t type, uint64_t cols, uint64_t rows)
{
    const uint64_t dims[2] = {cols, rows}, n = cols * (rows != 0 ? rows : 1);
    struct gguf_writer_tensor *t = gguf_writer_declare(w, name, type, dims, rows != 0 ? 2 : 1);
    t->data = must(malloc(t->size + 1));
    gguf_writer_fill(&w->random, type, t->data, n, 1 / sqrtf((float)cols));
    if (rows == 0 && type == WEFT_F32) {
        for (uint64_t k = 0; k < n; k++) { /* norms and rope_freqs: near 1 */
            float x = (float)(0.9 + 0.2 * weft_test_uniform(&w->random));
            memcpy(t->data + 4 * k, &x, sizeof x);
        }
    }
    return t;
}

struct gguf_writer_tensor *gguf_writer_find(struct gguf_writer *w, const char *name)
{
    for (size_t i = 0; i < w->n_tensors; i++)
        if (strcmp(w->tensors[i].name, name) == 0)
            return &w->tensors[i];
    abort();
}

void gguf_writer_rename(struct gguf_writer *w, const char *name, const char *to)
{
    struct gguf_writer_tensor *t = gguf_writer_find(w, name);
    free(t->name);
    t->name = must(strdup(to));
    t->name_size = strlen(to);
}

void gguf_writer_remove_tensor(struct gguf_writer *w, const char *name)
{
    struct gguf_writer_tensor *t = gguf_writer_find(w, name);
    free(t->name);
    free(t->data);
    memmove(t, t + 1, (size_t)(w->tensors + --w->n_tensors - t) * sizeof *t);
}

/* ------------------------------------------------------------------ the file */

static uint64_t align_up(uint64_t n, uint64_t alignment)
{
    return (n + alignment - 1) / alignment * alignment;
}

static void put_head(const struct gguf_writer *w, struct bytes *b)
{
    uint64_t end = 0;
    put(b, "GGUF", 4);
    put_int(b, w->version, 4);
    put_int(b, w->n_tensors, 8);
    put_int(b, w->n_kvs, 8);
    for (size_t i = 0; i < w->n_kvs; i++) {
        put_string(b, w->kvs[i].key, w->kvs[i].key_size);
        put_int(b, w->kvs[i].type, 4);
        put(b, w->kvs[i].data, w->kvs[i].size);
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct gguf_writer_tensor *t = &w->tensors[i];
        put_string(b, t->name, t->name_size);
        put_int(b, t->n_dims, 4);
        for (uint32_t k = 0; k < t->n_dims; k++)
            put_int(b, k < 4 ? t->dims[k] : 1, 8);
        put_int(b, t->type, 4);
        if (t->offset == GGUF_WRITER_AUTO)
            end = align_up(end, w->alignment);
        put_int(b, t->offset == GGUF_WRITER_AUTO ? end : t->offset, 8);
        end += t->size;
    }
    if (w->n_tensors > 0)
        pad(b, w->alignment);
}

uint8_t *gguf_writer_head(const struct gguf_writer *w, size_t *ret_size)
{
    struct bytes b = {0};
    put_head(w, &b);
    *ret_size = b.size;
    return b.data;
}

uint8_t *gguf_writer_finish(const struct gguf_writer *w, size_t *ret_size)
{
    struct bytes b = {0}, data = {0};
    put_head(w, &b);
    for (size_t i = 0; i < w->n_tensors; i++) {
        if (w->tensors[i].offset == GGUF_WRITER_AUTO)
            pad(&data, w->alignment);
        put(&data, w->tensors[i].data, w->tensors[i].size);
    }
    put(&b, data.data, data.size);
    free(data.data);
    *ret_size = b.size;
    return must(realloc(b.data, b.size)); /* exact: a sanitizer sees a read beyond the end */
}

bool gguf_writer_save(const struct gguf_writer *w, const char *path)
{
    size_t size;
    uint8_t *data = gguf_writer_finish(w, &size);
    FILE *f = fopen(path, "wb");
    bool ok = f != NULL && fwrite(data, 1, size, f) == size;
    if (f != NULL)
        ok = fclose(f) == 0 && ok;
    free(data);
    return ok;
}

/* ------------------------------------------------------------------ models */

static uint32_t or_else(uint32_t value, uint32_t fallback)
{
    return value != 0 ? value : fallback;
}

static void llama_layer(struct gguf_writer *w, uint32_t layer, uint32_t type, uint32_t dim,
                        uint32_t q, uint32_t kv, uint32_t ffn)
{
    const struct {
        const char *name;
        uint32_t type, cols, rows;
    } tensors[] = {
        {"attn_norm", WEFT_F32, dim, 0}, {"attn_q", type, dim, q},
        {"attn_k", type, dim, kv},       {"attn_v", type, dim, kv},
        {"attn_output", type, q, dim},   {"ffn_norm", WEFT_F32, dim, 0},
        {"ffn_gate", type, dim, ffn},    {"ffn_up", type, dim, ffn},
        {"ffn_down", type, ffn, dim},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.%s.weight", layer, tensors[i].name);
        gguf_writer_tensor(w, name, tensors[i].type, tensors[i].cols, tensors[i].rows);
    }
}

void gguf_writer_llama(struct gguf_writer *w, const struct gguf_writer_llama *o)
{
    uint32_t layers = or_else(o->layers, 2), dim = or_else(o->dim, 64),
             heads = or_else(o->heads, 4), kv_heads = or_else(o->kv_heads, 2),
             head_dim = or_else(o->head_dim, dim / heads), ffn = or_else(o->ffn, 320),
             vocab = or_else(o->vocab, 100);
    gguf_writer_init(w);
    w->random = o->seed != 0 ? o->seed : 1;
    gguf_writer_str(w, "general.architecture", "llama");
    gguf_writer_str(w, "general.name", "random");
    gguf_writer_u32(w, "llama.context_length", or_else(o->context, 512));
    gguf_writer_u32(w, "llama.embedding_length", dim);
    gguf_writer_u32(w, "llama.block_count", layers);
    gguf_writer_u32(w, "llama.feed_forward_length", ffn);
    gguf_writer_u32(w, "llama.vocab_size", vocab);
    gguf_writer_u32(w, "llama.attention.head_count", heads);
    gguf_writer_u32(w, "llama.attention.head_count_kv", kv_heads);
    gguf_writer_f32(w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_writer_u32(w, "llama.rope.dimension_count", head_dim);
    gguf_writer_f32(w, "llama.rope.freq_base", 10000);
    if (o->head_dim != 0) {
        gguf_writer_u32(w, "llama.attention.key_length", head_dim);
        gguf_writer_u32(w, "llama.attention.value_length", head_dim);
    }
    gguf_writer_tensor(w, "token_embd.weight", o->type, dim, vocab);
    gguf_writer_tensor(w, "output_norm.weight", WEFT_F32, dim, 0);
    if (!o->tied)
        gguf_writer_tensor(w, "output.weight", o->type, dim, vocab);
    if (o->rope_freqs)
        gguf_writer_tensor(w, "rope_freqs.weight", WEFT_F32, head_dim / 2, 0);
    for (uint32_t layer = 0; layer < layers; layer++)
        llama_layer(w, layer, o->type, dim, heads * head_dim, kv_heads * head_dim, ffn);
}
