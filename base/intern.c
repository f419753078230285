/*
 * Intern table: open addressing with linear probing. One owner, any thread.
 */
#include "base/intern.h"

#include <stdlib.h>
#include <string.h>

#define SLOTS_MIN 64u

void weft_intern_done(struct weft_intern *t)
{
    free(t->slots);
    *t = (struct weft_intern){0};
}

void weft_intern_clear(struct weft_intern *t)
{
    for (uint32_t i = 0; i < t->n_slots; i++)
        t->slots[i].id = WEFT_INTERN_NONE;
    t->n_used = 0;
}

/* FNV-1a, 64 bits wide, folded: short keys, spread over the low bits. */
uint32_t weft_intern_hash(const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001B3u;
    return (uint32_t)(h ^ h >> 32);
}

uint32_t weft_intern_find(const struct weft_intern *t, uint32_t hash,
                          bool (*equal)(const void *ctx, uint32_t id), const void *ctx)
{
    if (t->n_slots == 0)
        return WEFT_INTERN_NONE;
    for (uint32_t i = hash & (t->n_slots - 1); t->slots[i].id != WEFT_INTERN_NONE;
         i = (i + 1) & (t->n_slots - 1)) {
        if (t->slots[i].hash == hash && equal(ctx, t->slots[i].id))
            return t->slots[i].id;
    }
    return WEFT_INTERN_NONE;
}

static void put(struct weft_intern *t, uint32_t hash, uint32_t id)
{
    uint32_t i = hash & (t->n_slots - 1);
    while (t->slots[i].id != WEFT_INTERN_NONE)
        i = (i + 1) & (t->n_slots - 1);
    t->slots[i] = (struct weft_intern_slot){.hash = hash, .id = id};
}

int weft_intern_add(struct weft_intern *t, uint32_t hash, uint32_t id, weft_err *err)
{
    if (t->n_used >= t->n_slots / 2) {
        struct weft_intern wide = {.n_slots = t->n_slots == 0 ? SLOTS_MIN : 2 * t->n_slots};
        wide.slots = calloc(wide.n_slots, sizeof *wide.slots);
        if (wide.slots == NULL)
            return weft_fail(err, WEFT_ENOMEM, "no memory for a table of %u entries", wide.n_slots);
        weft_intern_clear(&wide);
        wide.n_used = t->n_used;
        for (uint32_t i = 0; i < t->n_slots; i++)
            if (t->slots[i].id != WEFT_INTERN_NONE)
                put(&wide, t->slots[i].hash, t->slots[i].id);
        free(t->slots);
        *t = wide;
    }
    put(t, hash, id);
    t->n_used++;
    return 0;
}
