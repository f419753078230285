/*
 * Context shift, see context_shift.h.
 */
#include "coordinator/context_shift.h"

/* Part of the context that is free after a shift. Computing what is kept again costs 3 rows of a
 * prompt for each token that then fits, which is little beside the token itself. */
#define FREE_PART 4u

static bool fits(const struct weft_shift_ask *a, uint32_t tokens, uint32_t room)
{
    return (uint64_t)tokens + a->answer + room <= a->context;
}

int weft_shift_plan(const struct weft_shift_ask *a, struct weft_shift *ret, weft_err *err)
{
    uint32_t room = a->context / FREE_PART, tokens = 0;
    if (a->predict > 0 && a->predict < room)
        room = a->predict;
    if (room == 0)
        room = 1;
    *ret = (struct weft_shift){0};
    if (a->turns == 0)
        return 0;
    int r = a->tokens(a->arg, a->turns, &tokens, err);
    if (r < 0 || !fits(a, tokens, 1))
        return r;
    struct weft_shift best = {a->turns, tokens};
    /* Dropping `high` turns is what is known to do; fewer than `low` are not. */
    for (uint32_t low = 1, high = a->turns; fits(a, best.tokens, room) && low < high;) {
        const uint32_t middle = low + (high - low) / 2;
        r = a->tokens(a->arg, middle, &tokens, err);
        if (r < 0)
            return r;
        if (fits(a, tokens, room)) {
            best = (struct weft_shift){middle, tokens};
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    *ret = best;
    return 0;
}

uint32_t weft_shift_half(uint32_t n, uint32_t keep)
{
    return n > keep ? (n - keep + 1) / 2 : 0;
}
