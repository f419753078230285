/*
 * GGUF reader: header, metadata and tensor table, all over untrusted bytes.
 * Invariant: the parser never reads outside [data, data + size), never allocates more than a small
 * multiple of the bytes it was given, and gives out only what gguf.h promises.
 */
#include "base/gguf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/gguf_private.h"
#include "base/text.h"

#define ALIGNMENT_DEFAULT 32u    /* the format's, where general.alignment is absent */
#define ALIGNMENT_MIN 8u         /* the format: a multiple of 8 */
#define ALIGNMENT_MAX (1u << 20) /* beyond any page size; keeps padding small */
#define KV_BYTES_MIN 14u         /* length 8, key 1, type 4, value 1 */
#define TENSOR_BYTES_MIN 33u     /* length 8, name 1, dims 4 + 8, type 4, offset 8 */
#define NAME_SHOWN 200           /* bytes of a key in an error text */

/* Where the parser is, and in what, for errors. */
struct parser {
    const uint8_t *data;
    uint64_t size, pos;
    const char *what;             /* "header", "key", "tensor" */
    uint64_t number;              /* of the key or tensor, from 0 */
    uint64_t start;               /* where it begins */
    struct weft_gguf_string name; /* data is NULL until it was read and checked */
    weft_err *err;
};

static const uint8_t value_bytes[WEFT_GGUF_TYPE_COUNT] = {
    [WEFT_GGUF_U8] = 1,  [WEFT_GGUF_I8] = 1,  [WEFT_GGUF_U16] = 2, [WEFT_GGUF_I16] = 2,
    [WEFT_GGUF_U32] = 4, [WEFT_GGUF_I32] = 4, [WEFT_GGUF_F32] = 4, [WEFT_GGUF_BOOL] = 1,
    [WEFT_GGUF_U64] = 8, [WEFT_GGUF_I64] = 8, [WEFT_GGUF_F64] = 8,
};

static uint64_t load(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* How much of a name an error shows; never half a character. */
static int shown(struct weft_gguf_string s)
{
    return s.size <= NAME_SHOWN ? (int)s.size : (int)weft_utf8_prefix(s.data, NAME_SHOWN);
}

/* ------------------------------------------------------------------ errors */

static WEFT_PRINTF(2, 3) int fail(struct parser *p, const char *fmt, ...)
{
    if (p->err == NULL)
        return -WEFT_EMODEL;
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (p->name.data != NULL)
        (void)weft_fail(p->err, WEFT_EMODEL, "%s %.*s at byte %llu: %s", p->what, shown(p->name),
                        p->name.data, (unsigned long long)p->start, text);
    else if (p->start != 0)
        (void)weft_fail(p->err, WEFT_EMODEL, "%s %llu at byte %llu: %s", p->what,
                        (unsigned long long)p->number, (unsigned long long)p->start, text);
    else
        (void)weft_fail(p->err, WEFT_EMODEL, "%s: %s", p->what, text);
    return -WEFT_EMODEL;
}

static int fail_truncated(struct parser *p, uint64_t need)
{
    (void)fail(
        p, "%llu bytes at %llu of a file of %llu bytes: the file is truncated; download it again",
        (unsigned long long)need, (unsigned long long)p->pos, (unsigned long long)p->size);
    return -WEFT_EMODEL;
}

/* ------------------------------------------------------------------ reading */

static int take(struct parser *p, uint64_t n, const uint8_t **ret)
{
    if (n > p->size - p->pos)
        return fail_truncated(p, n);
    *ret = p->data + p->pos;
    p->pos += n;
    return 0;
}

static int take_int(struct parser *p, unsigned bytes, uint64_t *ret)
{
    const uint8_t *at = NULL;
    int r = take(p, bytes, &at);
    if (r == 0)
        *ret = load(at, bytes);
    return r;
}

static int take_string(struct parser *p, struct weft_gguf_string *ret)
{
    const uint8_t *at = NULL;
    uint64_t n = 0;
    int r = take_int(p, 8, &n);
    if (r == 0)
        r = take(p, n, &at);
    if (r == 0)
        *ret = (struct weft_gguf_string){.data = (const char *)at, .size = n};
    return r;
}

/* A key or tensor name: it will be printed and compared as text. */
static int take_name(struct parser *p, uint64_t max, struct weft_gguf_string *ret)
{
    struct weft_gguf_string s = {0};
    size_t bad;
    int r = take_string(p, &s);
    if (r < 0)
        return r;
    if (s.size == 0 || s.size > max)
        return fail(p, "found a name of %llu bytes, expected 1 to %llu", (unsigned long long)s.size,
                    (unsigned long long)max);
    if (!weft_utf8_valid(s.data, (size_t)s.size, &bad))
        return fail(p, "byte %zu of the name is not valid UTF-8", bad);
    for (uint64_t i = 0; i < s.size; i++) {
        uint8_t c = (uint8_t)s.data[i];
        /* C0, DEL and, behind 0xc2, C1: names reach terminals. */
        bool control =
            c < 0x20 || c == 0x7f || (c == 0xc2 && i + 1 < s.size && (uint8_t)s.data[i + 1] < 0xa0);
        if (control)
            return fail(p, "byte %llu of the name is a control character (0x%02x)",
                        (unsigned long long)i, c);
    }
    *ret = s;
    return 0;
}

static int take_type(struct parser *p, uint32_t *ret)
{
    uint64_t type = 0;
    int r = take_int(p, 4, &type);
    if (r < 0)
        return r;
    if (type >= WEFT_GGUF_TYPE_COUNT)
        return fail(p, "value type %llu is unknown, expected 0 to %d", (unsigned long long)type,
                    WEFT_GGUF_TYPE_COUNT - 1);
    *ret = (uint32_t)type;
    return 0;
}

/* The item type and count of an array; the count is held against the bytes that are left. */
static int take_array_head(struct parser *p, uint32_t *ret_type, uint64_t *ret_count)
{
    uint32_t type = 0;
    uint64_t count = 0;
    int r = take_type(p, &type);
    if (r == 0)
        r = take_int(p, 8, &count);
    if (r < 0)
        return r;
    /* A string is at least its length, an array its type and count. */
    uint64_t item = type == WEFT_GGUF_STRING ? 8 : type == WEFT_GGUF_ARRAY ? 12 : value_bytes[type];
    uint64_t left = p->size - p->pos;
    if (count > left / item)
        return fail(p,
                    "an array of %llu %s in the %llu bytes left of the file: the file is "
                    "truncated; download it again",
                    (unsigned long long)count, weft_gguf_type_name(type), (unsigned long long)left);
    *ret_type = type;
    *ret_count = count;
    return 0;
}

/* Steps over `count` values and checks them. Recursion ends at WEFT_GGUF_ARRAY_DEPTH_MAX. */
static int skip_values(struct parser *p, uint32_t type, uint64_t count, unsigned depth)
{
    int r = 0;
    const uint8_t *at = NULL;
    if (type == WEFT_GGUF_STRING) {
        struct weft_gguf_string s;
        for (uint64_t i = 0; i < count && r == 0; i++)
            r = take_string(p, &s);
        return r;
    }
    if (type == WEFT_GGUF_ARRAY) {
        if (depth >= WEFT_GGUF_ARRAY_DEPTH_MAX)
            return fail(p, "arrays nested more than %d deep", WEFT_GGUF_ARRAY_DEPTH_MAX);
        for (uint64_t i = 0; i < count && r == 0; i++) {
            uint32_t inner = 0;
            uint64_t n = 0;
            r = take_array_head(p, &inner, &n);
            if (r == 0)
                r = skip_values(p, inner, n, depth + 1);
        }
        return r;
    }
    /* No overflow: counts of arrays are at most the bytes left over the size of an item. */
    r = take(p, count * value_bytes[type], &at);
    if (r < 0 || type != WEFT_GGUF_BOOL)
        return r;
    for (uint64_t i = 0; i < count; i++)
        if (at[i] > 1)
            return fail(p, "found %u for a bool, expected 0 or 1", at[i]);
    return 0;
}

static int take_kv(struct parser *p, struct weft_gguf_kv *kv)
{
    uint32_t type = 0, item = 0;
    uint64_t count = 1;
    int r = take_name(p, WEFT_GGUF_KEY_MAX, &kv->key);
    if (r < 0)
        return r;
    p->name = kv->key;
    r = take_type(p, &type);
    if (r < 0)
        return r;
    item = type;
    if (type == WEFT_GGUF_ARRAY) {
        r = take_array_head(p, &item, &count);
        if (r < 0)
            return r;
    }
    kv->type = (enum weft_gguf_type)type;
    kv->item_type = (enum weft_gguf_type)item;
    kv->count = count;
    kv->data = p->data + p->pos;
    r = skip_values(p, item, count, 1);
    kv->size = (uint64_t)(p->data + p->pos - kv->data);
    return r;
}

/* Fills name, dims, type, bytes and the offset from the start of the tensor data. */
static int take_tensor(struct parser *p, struct weft_gguf_tensor *t)
{
    uint64_t n = 0;
    int r = take_name(p, WEFT_GGUF_NAME_MAX, &t->name);
    if (r < 0)
        return r;
    p->name = t->name;
    r = take_int(p, 4, &n);
    if (r < 0)
        return r;
    if (n < 1 || n > 4)
        return fail(p, "found %llu dimensions, expected 1 to 4", (unsigned long long)n);
    t->n_dims = (uint32_t)n;
    for (uint32_t i = 0; i < 4; i++)
        t->dims[i] = 1;
    for (uint32_t i = 0; i < t->n_dims && r == 0; i++)
        r = take_int(p, 8, &t->dims[i]);
    if (r == 0)
        r = take_int(p, 4, &n);
    if (r == 0)
        r = take_int(p, 8, &t->offset);
    if (r < 0)
        return r;

    const struct weft_tensor_type_info *info =
        n < WEFT_TENSOR_TYPE_COUNT ? weft_tensor_type_info((uint32_t)n) : NULL;
    if (info == NULL)
        return fail(p, "tensor type %llu is unknown", (unsigned long long)n);
    t->type = (uint32_t)n;
    uint64_t elems = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] == 0)
            return fail(p, "dimension %u is 0", i);
        if (__builtin_mul_overflow(elems, t->dims[i], &elems))
            return fail(p, "the product of its dimensions overflows");
    }
    if (t->dims[0] % info->block_elems != 0)
        return fail(p, "rows of %llu elements, expected a multiple of %u (%s)",
                    (unsigned long long)t->dims[0], info->block_elems, info->name);
    if (__builtin_mul_overflow(elems / info->block_elems, (uint64_t)info->block_bytes, &t->bytes))
        return fail(p, "its size in bytes overflows");
    return 0;
}

/* ------------------------------------------------------------------ the file */

static int take_header(struct parser *p, struct weft_gguf *g)
{
    const uint8_t *magic = NULL;
    uint64_t version = 0;
    int r = take(p, 4, &magic);
    if (r < 0)
        return r;
    if (memcmp(magic, "GGUF", 4) != 0)
        return fail(p,
                    "starts with %02x %02x %02x %02x, expected \"GGUF\": this is not a GGUF file",
                    magic[0], magic[1], magic[2], magic[3]);
    r = take_int(p, 4, &version);
    if (r < 0)
        return r;
    if (version != 0 && (version & 0xffff) == 0)
        return fail(p, "the file is big-endian; weft reads little-endian GGUF: convert it again");
    if (version != 2 && version != 3)
        return fail(p, "GGUF version %llu, expected 2 or 3: convert the model again",
                    (unsigned long long)version);
    g->version = (uint32_t)version;
    r = take_int(p, 8, &g->n_tensors);
    if (r == 0)
        r = take_int(p, 8, &g->n_kvs);
    if (r < 0)
        return r;
    if (g->n_tensors > WEFT_GGUF_TENSORS_MAX)
        return fail(p, "%llu tensors, at most %d are allowed", (unsigned long long)g->n_tensors,
                    WEFT_GGUF_TENSORS_MAX);
    if (g->n_kvs > WEFT_GGUF_KV_MAX)
        return fail(p, "%llu keys, at most %d are allowed", (unsigned long long)g->n_kvs,
                    WEFT_GGUF_KV_MAX);
    uint64_t need = g->n_kvs * KV_BYTES_MIN + g->n_tensors * TENSOR_BYTES_MIN;
    if (need > p->size - p->pos)
        return fail(p,
                    "%llu keys and %llu tensors in a file of %llu bytes: the file is truncated; "
                    "download it again",
                    (unsigned long long)g->n_kvs, (unsigned long long)g->n_tensors,
                    (unsigned long long)p->size);
    return 0;
}

static int take_kvs(struct parser *p, struct gguf_impl *impl, uint64_t n)
{
    p->what = "key";
    for (uint64_t i = 0; i < n; i++) {
        p->number = i;
        p->start = p->pos;
        p->name.data = NULL;
        int r = take_kv(p, &impl->kvs[i]);
        if (r < 0)
            return r;
        if (!gguf_index_add(&impl->kv_index, &impl->kvs[i].key, i))
            return fail(p, "the key stands twice in the file");
    }
    return 0;
}

static int take_tensors(struct parser *p, struct gguf_impl *impl, uint64_t n)
{
    p->what = "tensor";
    for (uint64_t i = 0; i < n; i++) {
        p->number = i;
        p->start = p->pos;
        p->name.data = NULL;
        int r = take_tensor(p, &impl->tensors[i]);
        if (r < 0)
            return r;
        if (!gguf_index_add(&impl->tensor_index, &impl->tensors[i].name, i))
            return fail(p, "the tensor stands twice in the file");
    }
    return 0;
}

static int read_alignment(struct weft_gguf *g, weft_err *err)
{
    uint32_t a;
    if (weft_gguf_kv(g, "general.alignment") == NULL)
        return 0;
    int r = weft_gguf_u32(g, "general.alignment", &a, err);
    if (r < 0)
        return r;
    if (a < ALIGNMENT_MIN || a > ALIGNMENT_MAX || (a & (a - 1)) != 0)
        return weft_fail(err, WEFT_EMODEL,
                         "key general.alignment: found %u, expected a power of two "
                         "from %u to %u",
                         a, ALIGNMENT_MIN, ALIGNMENT_MAX);
    g->alignment = a;
    return 0;
}

static int compare_offsets(const void *a, const void *b)
{
    const struct weft_gguf_tensor *x = *(const struct weft_gguf_tensor *const *)a;
    const struct weft_gguf_tensor *y = *(const struct weft_gguf_tensor *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Makes offsets absolute; each tensor lies aligned inside the file and none in another. */
static int place_tensors(struct weft_gguf *g, struct gguf_impl *impl, weft_err *err)
{
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct weft_gguf_tensor *t = &impl->tensors[i];
        uint64_t end;
        if (t->offset % g->alignment != 0)
            return weft_fail(err, WEFT_EMODEL,
                             "tensor %.*s: offset %llu, expected a multiple of %u", shown(t->name),
                             t->name.data, (unsigned long long)t->offset, g->alignment);
        if (__builtin_add_overflow(t->offset, g->data_offset, &t->offset) ||
            __builtin_add_overflow(t->offset, t->bytes, &end))
            return weft_fail(err, WEFT_EMODEL, "tensor %.*s: its offset overflows", shown(t->name),
                             t->name.data);
        if (end > g->size)
            return weft_fail(err, WEFT_EMODEL,
                             "tensor %.*s: data at %llu..%llu of a file of %llu "
                             "bytes: the file is truncated; download it again",
                             shown(t->name), t->name.data, (unsigned long long)t->offset,
                             (unsigned long long)end, (unsigned long long)g->size);
    }
    if (g->n_tensors < 2)
        return 0;
    const struct weft_gguf_tensor **sorted = calloc((size_t)g->n_tensors, sizeof *sorted);
    if (sorted == NULL)
        return weft_fail(err, WEFT_ENOMEM, "out of memory for %llu tensors",
                         (unsigned long long)g->n_tensors);
    for (uint64_t i = 0; i < g->n_tensors; i++)
        sorted[i] = &impl->tensors[i];
    qsort(sorted, (size_t)g->n_tensors, sizeof *sorted, compare_offsets);
    int r = 0;
    for (uint64_t i = 1; i < g->n_tensors && r == 0; i++) {
        const struct weft_gguf_tensor *a = sorted[i - 1], *b = sorted[i];
        if (a->offset + a->bytes > b->offset)
            r = weft_fail(err, WEFT_EMODEL,
                          "tensor %.*s: data at %llu..%llu overlaps tensor %.*s at "
                          "%llu",
                          shown(a->name), a->name.data, (unsigned long long)a->offset,
                          (unsigned long long)a->offset + a->bytes, shown(b->name), b->name.data,
                          (unsigned long long)b->offset);
    }
    free(sorted);
    return r;
}

int weft_gguf_open(const void *data, uint64_t size, struct weft_gguf *ret, weft_err *err)
{
    struct parser p = {.data = data, .size = size, .what = "header", .err = err};
    struct weft_gguf g = {.data = data, .size = size, .alignment = ALIGNMENT_DEFAULT};
    struct gguf_impl *impl = NULL;
    int r = take_header(&p, &g);
    if (r < 0)
        goto out;
    r = gguf_impl_open(g.n_kvs, g.n_tensors, 1, &impl);
    g.impl = impl;
    if (r < 0) {
        r = weft_fail(err, WEFT_ENOMEM, "out of memory for %llu keys and %llu tensors",
                      (unsigned long long)g.n_kvs, (unsigned long long)g.n_tensors);
        goto out;
    }
    g.kvs = impl->kvs;
    g.tensors = impl->tensors;
    g.parts = impl->parts;
    g.n_parts = 1;
    r = take_kvs(&p, impl, g.n_kvs);
    if (r == 0)
        r = take_tensors(&p, impl, g.n_tensors);
    if (r == 0)
        r = read_alignment(&g, err);
    if (r < 0)
        goto out;
    /* No overflow: pos is at most the size of something in memory. Without tensors the padding may
     * be missing from the file. */
    g.data_offset = (p.pos + g.alignment - 1) & ~(uint64_t)(g.alignment - 1);
    if (g.data_offset > size && g.n_tensors == 0)
        g.data_offset = size;
    impl->parts[0] =
        (struct weft_gguf_part){.data = data, .size = size, .data_offset = g.data_offset};
    r = place_tensors(&g, impl, err);
out:
    if (r < 0)
        weft_gguf_done(&g);
    else
        *ret = g;
    return r;
}

void weft_gguf_done(struct weft_gguf *g)
{
    gguf_impl_close(g->impl);
    *g = (struct weft_gguf){0};
}
