/*
 * Intern table: finds the id of an equal thing by its hash, so that equal things get one id. The
 * things themselves lie with the owner, numbered from 0.
 *
 * Invariant: an id is in the table at most once. One owner, any thread.
 */
#ifndef WEFT_BASE_INTERN_H
#define WEFT_BASE_INTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define WEFT_INTERN_NONE UINT32_MAX

struct weft_intern_slot {
    uint32_t hash, id; /* id WEFT_INTERN_NONE: free */
};

struct weft_intern {
    struct weft_intern_slot *slots;
    uint32_t n_slots, n_used; /* n_slots is 0 or a power of two, at most half of it used */
};

/* {0} is an empty table. */
void weft_intern_done(struct weft_intern *t);
void weft_intern_clear(struct weft_intern *t); /* keeps the memory */

uint32_t weft_intern_hash(const void *data, size_t n);
/* The id for which equal(ctx, id) holds among those added with this hash, or WEFT_INTERN_NONE. */
uint32_t weft_intern_find(const struct weft_intern *t, uint32_t hash,
                          bool (*equal)(const void *ctx, uint32_t id), const void *ctx);
/* Adds an id that is not yet there; -WEFT_ENOMEM leaves the table as it was. */
int weft_intern_add(struct weft_intern *t, uint32_t hash, uint32_t id, weft_err *err) WEFT_MUST_USE;

#endif
