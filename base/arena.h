/*
 * Arena: memory that is given out piece by piece and freed as a whole.
 *
 * Invariant: never gives out more than its limit (unused ends of chunks come on top, at most as
 * much again); a failed allocation leaves it as it was. Not thread-safe: one owner at any time.
 */
#ifndef WEFT_BASE_ARENA_H
#define WEFT_BASE_ARENA_H

#include <stddef.h>

struct weft_arena_chunk;

struct weft_arena {
    struct weft_arena_chunk *chunks;
    size_t used_bytes;  /* what callers asked for, rounded up to alignment */
    size_t limit_bytes; /* 0: no limit */
};

void weft_arena_init(struct weft_arena *a, size_t limit_bytes);
void weft_arena_done(struct weft_arena *a); /* frees all; the arena can be used again */

/* Zeroed memory aligned for any type (size 0 gives a valid pointer); NULL over the limit. */
void *weft_arena_alloc(struct weft_arena *a, size_t size);
/* count * size with overflow check. */
void *weft_arena_array(struct weft_arena *a, size_t count, size_t size);
char *weft_arena_strdup(struct weft_arena *a, const char *s);
char *weft_arena_strndup(struct weft_arena *a, const char *s, size_t n);

#endif
