/*
 * Shares: how many of a run's items each thread is given, by the speed it has shown. Cores may be
 * unequal by nature (big.LITTLE) or because somebody else uses one; a wrong share costs time and
 * never a result, for a thread that is done helps the others (kernels/pool.c).
 *
 * Pure arithmetic; the thread that starts the runs calls it.
 */
#ifndef WEFT_KERNELS_SHARES_H
#define WEFT_KERNELS_SHARES_H

#include <stdint.h>

#define WK_THREADS_MAX 64u
#define WK_SHARES_ITEMS_MAX 65535u

struct wk_shares {
    unsigned n;                       /* threads */
    float speed[WK_THREADS_MAX];      /* of each, as a part of the speed of all */
    uint32_t cut[WK_THREADS_MAX + 1]; /* where each share begins, in 1/65536 of the items */
};

/* Equal shares for n threads, 1 to WK_THREADS_MAX. */
void wk_shares_init(struct wk_shares *s, unsigned n);
/* The first item of thread t's share of n_items (at most WK_SHARES_ITEMS_MAX); n_items for t = n.
 * Grows with t. No more items than threads: one each. */
uint32_t wk_shares_begin(const struct wk_shares *s, unsigned t, uint32_t n_items);
/* Takes in what a run showed: thread t did items[t] in busy_ns[t]. A run in which a thread had no
 * part, or was busy for too short a time to be measured, is left out. */
void wk_shares_learn(struct wk_shares *s, const uint32_t *items, const uint64_t *busy_ns);

#endif
