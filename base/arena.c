/*
 * Arena: a list of zeroed chunks, each filled from its start; nothing given out is ever reused.
 *
 * Invariant: used_bytes is the sum of what was given out and never above limit_bytes. The first
 * chunk of the list is the one being filled. One owner, any thread.
 */
#include "base/arena.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT _Alignof(max_align_t)
/* Chunks double from a page, enough for a control frame, to 256 KiB, the size of a frame. */
#define CHUNK_BYTES_MIN ((size_t)4096)
#define CHUNK_BYTES_MAX ((size_t)256 * 1024)

struct weft_arena_chunk {
    struct weft_arena_chunk *next;
    size_t used, capacity; /* bytes of data */
    _Alignas(max_align_t) unsigned char data[];
};

void weft_arena_init(struct weft_arena *a, size_t limit_bytes)
{
    *a = (struct weft_arena){.limit_bytes = limit_bytes};
}

void weft_arena_done(struct weft_arena *a)
{
    if (a == NULL)
        return;
    struct weft_arena_chunk *next;
    for (struct weft_arena_chunk *c = a->chunks; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    a->chunks = NULL;
    a->used_bytes = 0;
}

/* A chunk with room for size bytes, linked into the list. */
static struct weft_arena_chunk *add_chunk(struct weft_arena *a, size_t size)
{
    struct weft_arena_chunk *head = a->chunks;
    size_t capacity = CHUNK_BYTES_MIN;
    if (head != NULL)
        capacity = head->capacity < CHUNK_BYTES_MAX / 2 ? head->capacity * 2 : CHUNK_BYTES_MAX;
    if (a->limit_bytes != 0 && capacity > a->limit_bytes - a->used_bytes)
        capacity = a->limit_bytes - a->used_bytes;
    const bool own = size > capacity / 2; /* large: a chunk of its own, exactly filled */
    if (own)
        capacity = size;
    if (capacity > SIZE_MAX - sizeof(struct weft_arena_chunk))
        return NULL;
    struct weft_arena_chunk *c = calloc(1, sizeof *c + capacity);
    if (c == NULL)
        return NULL;
    c->capacity = capacity;
    if (own && head != NULL) { /* the head goes on being filled */
        c->next = head->next;
        head->next = c;
    } else {
        c->next = head;
        a->chunks = c;
    }
    return c;
}

void *weft_arena_alloc(struct weft_arena *a, size_t size)
{
    if (size > SIZE_MAX - ALIGNMENT)
        return NULL;
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (size == 0)
        size = ALIGNMENT;
    assert(a->limit_bytes == 0 || a->used_bytes <= a->limit_bytes);
    if (a->limit_bytes != 0 && size > a->limit_bytes - a->used_bytes)
        return NULL;
    if (size > SIZE_MAX - a->used_bytes)
        return NULL;
    struct weft_arena_chunk *c = a->chunks;
    if (c == NULL || size > c->capacity - c->used) {
        c = add_chunk(a, size);
        if (c == NULL)
            return NULL;
    }
    void *place = c->data + c->used;
    c->used += size;
    a->used_bytes += size;
    return place;
}

void *weft_arena_array(struct weft_arena *a, size_t count, size_t size)
{
    if (size != 0 && count > SIZE_MAX / size)
        return NULL;
    return weft_arena_alloc(a, count * size);
}

char *weft_arena_strdup(struct weft_arena *a, const char *s)
{
    return weft_arena_strndup(a, s, strlen(s));
}

char *weft_arena_strndup(struct weft_arena *a, const char *s, size_t n)
{
    n = strnlen(s, n);
    char *copy = weft_arena_alloc(a, n + 1);
    if (copy != NULL)
        memcpy(copy, s, n);
    return copy;
}
