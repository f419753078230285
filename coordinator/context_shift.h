/*
 * Context shift: what of a conversation goes when its tokens no longer fit the context. A turn is
 * what a person said and the answer to it; turns go whole, oldest first, the newest never. Pure.
 */
#ifndef WEFT_COORDINATOR_CONTEXT_SHIFT_H
#define WEFT_COORDINATOR_CONTEXT_SHIFT_H

#include <stdint.h>

#include "base/text.h"

/* What must fit into how much. */
struct weft_shift_ask {
    uint32_t context; /* positions of a session */
    uint32_t turns;   /* that may go */
    uint32_t answer;  /* tokens behind the prompt: those of an answer that has begun */
    uint32_t predict; /* tokens of the answer that are still to come at most; 0: no limit */
    /* Tokens of the prompt without its `dropped` oldest turns, 1 to `turns`; fewer for more. Its
     * failure is that of the plan. */
    int (*tokens)(void *arg, uint32_t dropped, uint32_t *ret, weft_err *err);
    void *arg;
};

struct weft_shift {
    uint32_t turns;  /* to drop, all at once; 0: dropping makes no room */
    uint32_t tokens; /* of the prompt then */
};

/* The fewest turns without which a quarter of the context is free (fewer positions when `predict`
 * needs no more), so that what is kept is not computed again for each few tokens; all that may go
 * when that is not enough, as long as one position gets free. Asks for O(log turns) counts. */
int weft_shift_plan(const struct weft_shift_ask *a, struct weft_shift *ret,
                    weft_err *err) WEFT_MUST_USE;
/* For text without turns: how many of its n tokens go, those behind the first `keep`: half of them,
 * rounded up; 0 when there is none. */
uint32_t weft_shift_half(uint32_t n, uint32_t keep);

#endif
