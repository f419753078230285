/*
 * What the parts of the GGUF reader share: the memory behind a struct weft_gguf and the index of
 * its names. Nobody outside base/gguf*.c includes it.
 */
#ifndef WEFT_BASE_GGUF_PRIVATE_H
#define WEFT_BASE_GGUF_PRIVATE_H

#include "base/gguf.h"

/* Open addressing over names; slot.item is the index + 1, 0 in a free slot. The whole hash is kept,
 * so that a file made of colliding names costs integer compares and not string compares. */
struct gguf_slot {
    uint64_t hash;
    uint32_t item;
};

struct gguf_index {
    struct gguf_slot *slots;
    uint64_t mask; /* slots - 1; at most half of them are used */
    const void *items;
    size_t stride; /* bytes of an item; its first member is the name */
};

struct gguf_impl {
    struct weft_gguf_kv *kvs;
    struct weft_gguf_tensor *tensors;
    struct weft_gguf_part *parts;
    struct gguf_index kv_index, tensor_index;
};

/* Room for so many, zeroed, and empty indexes. *ret is set also on failure (-WEFT_ENOMEM) and
 * must be closed then too. */
int gguf_impl_open(uint64_t n_kvs, uint64_t n_tensors, uint64_t n_parts,
                   struct gguf_impl **ret) WEFT_MUST_USE;
void gguf_impl_close(struct gguf_impl *impl); /* accepts NULL and half-built ones */

/* False when the name is there already. */
bool gguf_index_add(struct gguf_index *x, const struct weft_gguf_string *name, uint64_t item);
/* The item of that name, NULL when there is none. */
const void *gguf_index_get(const struct gguf_index *x, const char *name, uint64_t n);

#endif
