/*
 * Shares, see shares.h. Invariant: the speeds are positive and add up to 1; the cuts run from 0 to
 * 65536 and never fall.
 */
#include "kernels/shares.h"

#define WHOLE 65536u
#define BUSY_NS_MIN UINT64_C(10000) /* a hundred times what reading the clock twice costs */
/* Of a new run in the average: a core that became slower is known after a layer or two, one that
 * was interrupted once is forgotten as soon. */
#define NEWEST 0.125f

static void cut(struct wk_shares *s)
{
    float sum = 0;
    for (unsigned t = 0; t < s->n; t++) {
        s->cut[t] = sum < 1 ? (uint32_t)(sum * WHOLE) : WHOLE;
        sum += s->speed[t];
    }
    s->cut[s->n] = WHOLE;
}

void wk_shares_init(struct wk_shares *s, unsigned n)
{
    s->n = n;
    for (unsigned t = 0; t < n; t++)
        s->speed[t] = 1 / (float)n;
    cut(s);
}

uint32_t wk_shares_begin(const struct wk_shares *s, unsigned t, uint32_t n_items)
{
    if (n_items <= s->n)
        return t < n_items ? t : n_items;
    return (uint32_t)(((uint64_t)n_items * s->cut[t] + WHOLE / 2) / WHOLE);
}

void wk_shares_learn(struct wk_shares *s, const uint32_t *items, const uint64_t *busy_ns)
{
    float rate[WK_THREADS_MAX], sum = 0;
    for (unsigned t = 0; t < s->n; t++) {
        if (items[t] == 0 || busy_ns[t] < BUSY_NS_MIN)
            return;
        rate[t] = (float)items[t] / (float)busy_ns[t];
        sum += rate[t];
    }
    for (unsigned t = 0; t < s->n; t++)
        s->speed[t] += NEWEST * (rate[t] / sum - s->speed[t]);
    cut(s);
}
