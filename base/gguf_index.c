/*
 * Names of keys and tensors of a GGUF file, found in O(1), and the memory of the reader.
 * Invariant: an index is never more than half full, so that every search ends.
 */
#include "base/gguf_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static_assert(offsetof(struct weft_gguf_kv, key) == 0, "index reads names at offset 0");
static_assert(offsetof(struct weft_gguf_tensor, name) == 0, "index reads names at offset 0");

static uint64_t hash_name(const char *s, uint64_t n)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, 64 bits */
    for (uint64_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * 0x100000001b3u;
    return h;
}

static int index_init(struct gguf_index *x, const void *items, size_t stride, uint64_t n)
{
    uint64_t slots = 4;
    while (slots < 2 * n)
        slots *= 2;
    x->slots = calloc((size_t)slots, sizeof *x->slots);
    x->mask = slots - 1;
    x->items = items;
    x->stride = stride;
    return x->slots != NULL ? 0 : -WEFT_ENOMEM;
}

/* The slot of the name, or the free one where it belongs. */
static struct gguf_slot *find(const struct gguf_index *x, const char *name, uint64_t n,
                              uint64_t hash)
{
    for (uint64_t i = hash;; i++) {
        struct gguf_slot *slot = &x->slots[i & x->mask];
        if (slot->item == 0)
            return slot;
        if (slot->hash != hash)
            continue;
        const char *item = (const char *)x->items + (slot->item - 1) * x->stride;
        const struct weft_gguf_string *s = (const void *)item;
        if (s->size == n && memcmp(s->data, name, (size_t)n) == 0)
            return slot;
    }
}

const void *gguf_index_get(const struct gguf_index *x, const char *name, uint64_t n)
{
    const struct gguf_slot *slot = find(x, name, n, hash_name(name, n));
    return slot->item == 0 ? NULL : (const char *)x->items + (slot->item - 1) * x->stride;
}

bool gguf_index_add(struct gguf_index *x, const struct weft_gguf_string *name, uint64_t item)
{
    uint64_t hash = hash_name(name->data, name->size);
    struct gguf_slot *slot = find(x, name->data, name->size, hash);
    if (slot->item != 0)
        return false;
    *slot = (struct gguf_slot){.hash = hash, .item = (uint32_t)item + 1};
    return true;
}

/* ------------------------------------------------------------------ memory */

int gguf_impl_open(uint64_t n_kvs, uint64_t n_tensors, uint64_t n_parts, struct gguf_impl **ret)
{
    struct gguf_impl *impl = calloc(1, sizeof *impl);
    *ret = impl;
    if (impl == NULL)
        return -WEFT_ENOMEM;
    /* + 1: calloc(0) may give NULL. Counts were held against the limits and the file's size. */
    impl->kvs = calloc((size_t)n_kvs + 1, sizeof *impl->kvs);
    impl->tensors = calloc((size_t)n_tensors + 1, sizeof *impl->tensors);
    impl->parts = calloc((size_t)n_parts, sizeof *impl->parts);
    if (impl->kvs == NULL || impl->tensors == NULL || impl->parts == NULL)
        return -WEFT_ENOMEM;
    int r = index_init(&impl->kv_index, impl->kvs, sizeof *impl->kvs, n_kvs);
    return r < 0 ? r
                 : index_init(&impl->tensor_index, impl->tensors, sizeof *impl->tensors, n_tensors);
}

void gguf_impl_close(struct gguf_impl *impl)
{
    if (impl == NULL)
        return;
    free(impl->kv_index.slots);
    free(impl->tensor_index.slots);
    free(impl->kvs);
    free(impl->tensors);
    free(impl->parts);
    free(impl);
}

/* ------------------------------------------------------------------ look-ups */

const struct weft_gguf_kv *weft_gguf_kv(const struct weft_gguf *g, const char *key)
{
    return gguf_index_get(&((const struct gguf_impl *)g->impl)->kv_index, key, strlen(key));
}

const struct weft_gguf_tensor *weft_gguf_tensor(const struct weft_gguf *g, const char *name)
{
    return gguf_index_get(&((const struct gguf_impl *)g->impl)->tensor_index, name, strlen(name));
}

const uint8_t *weft_gguf_data(const struct weft_gguf *g, const struct weft_gguf_tensor *t)
{
    return g->parts[t->part].data + t->offset;
}
