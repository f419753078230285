/*
 * The pool: every item of a run is done exactly once before the run returns, for any number of
 * threads and items, also when threads sleep or are stuck; writes of the items are seen by the
 * caller; a pool can be closed at any time between runs; pinned workers are where they should be.
 * The shares: they cover the items and follow the speeds.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"
#include "kernels/shares.h"
#include "tests/harness.h"

/* ------------------------------------------------------------------ every item once */

struct job {
    unsigned count[300]; /* plain, so that ThreadSanitizer judges the hand-over */
    unsigned add;
};

static void count(void *arg, size_t item)
{
    struct job *job = arg;
    job->count[item] += job->add;
}

START_TEST(every_item_once)
{
    unsigned threads = (unsigned)_i;
    struct wk_pool *pool = threads == 0 ? NULL : wk_pool_open(threads);
    ck_assert_uint_eq(wk_pool_threads(pool), threads == 0 ? 1 : threads);
    uint64_t seed = weft_test_seed();
    struct job job = {.add = 0};
    unsigned expected[300] = {0};
    for (unsigned run = 0; run < 3000; run++) {
        size_t n = weft_test_random(&seed) % (run % 8 == 0 ? 301 : 9);
        job.add = run;
        wk_pool_run(pool, count, &job, n);
        for (size_t i = 0; i < n; i++)
            expected[i] += run;
    }
    ck_assert_int_eq(memcmp(job.count, expected, sizeof expected), 0);
    wk_pool_close(pool);
}
END_TEST

START_TEST(open_and_close)
{
    for (unsigned i = 0; i < 50; i++) {
        struct wk_pool *pool = wk_pool_open(i % 5);
        struct job job = {.add = 1};
        ck_assert_ptr_nonnull(pool);
        if (i % 2 == 0)
            wk_pool_run(pool, count, &job, 7);
        ck_assert_uint_eq(job.count[6], i % 2 == 0);
        wk_pool_close(pool);
    }
    struct wk_pool *pool = wk_pool_open(1000);
    ck_assert_uint_eq(wk_pool_threads(pool), 64);
    wk_pool_close(pool);
    wk_pool_close(NULL);
}
END_TEST

/* More than the word of a share can count. */
#define MANY (3 * (size_t)WK_SHARES_ITEMS_MAX + 5)

static void count_bytes(void *arg, size_t item)
{
    uint8_t *count = arg;
    count[item]++;
}

START_TEST(many_items)
{
    struct wk_pool *pool = wk_pool_open(3);
    uint8_t *counts = calloc(MANY, 1);
    ck_assert_ptr_nonnull(counts);
    for (size_t n = MANY - 8; n <= MANY; n += 4)
        wk_pool_run(pool, count_bytes, counts, n);
    for (size_t i = 0; i < MANY; i++)
        ck_assert_uint_eq(counts[i], i < MANY - 8 ? 3 : i < MANY - 4 ? 2 : 1);
    free(counts);
    wk_pool_close(pool);
}
END_TEST

/* ------------------------------------------------------------------ threads that are not there */

static _Thread_local bool is_caller;

static void busy_ns(uint64_t ns)
{
    struct timespec ts;
    uint64_t now, end = 0;
    do {
        clock_gettime(CLOCK_MONOTONIC, &ts);
        now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
        end = end == 0 ? now + ns : end;
    } while (now < end);
}

/* Longer than anybody spins: the workers sleep between runs, the caller until a worker is done. */
#define ASLEEP_NS UINT64_C(200000)

static void slow_worker(void *arg, size_t item)
{
    if (!is_caller)
        busy_ns(ASLEEP_NS);
    count(arg, item);
}

START_TEST(asleep)
{
    struct wk_pool *pool = wk_pool_open(3);
    struct job job = {.add = 1};
    is_caller = true;
    for (unsigned run = 0; run < 100; run++) {
        busy_ns(run % 2 == 0 ? ASLEEP_NS : 0);
        wk_pool_run(pool, slow_worker, &job, 4);
        for (unsigned i = 0; i < 4; i++)
            ck_assert_uint_eq(job.count[i], run + 1);
    }
    wk_pool_close(pool);
}
END_TEST

#define STUCK_ITEMS 200u /* enough for speeds to be learnt: from what a stuck thread shows, too */

struct stuck {
    bool caller; /* gets stuck; else the first worker that comes */
    atomic_bool taken;
    atomic_uint done;
};

/* One item ends only when all others have been done. The caller gives the worker time to come. */
static void stuck_item(void *arg, size_t item)
{
    struct stuck *s = arg;
    (void)item;
    if (is_caller == s->caller && !atomic_exchange(&s->taken, true))
        while (atomic_load(&s->done) < STUCK_ITEMS - 1)
            sched_yield();
    while (!atomic_load(&s->taken))
        sched_yield();
    atomic_fetch_add(&s->done, 1);
}

START_TEST(others_do_the_rest)
{
    struct wk_pool *pool = wk_pool_open(2 + (unsigned)_i);
    is_caller = true;
    for (unsigned run = 0; run < 20; run++) {
        struct stuck s = {.caller = run % 2 == 0};
        wk_pool_run(pool, stuck_item, &s, STUCK_ITEMS);
        ck_assert_uint_eq(atomic_load(&s.done), STUCK_ITEMS);
    }
    wk_pool_close(pool);
}
END_TEST

/* ------------------------------------------------------------------ pinned workers */

struct place {
    unsigned threads;
    atomic_uint begun;
    int cpu[4]; /* of each item's thread: its only one, SEVERAL or CALLER */
};

enum { SEVERAL = -1, CALLER = -2 };

static int only_cpu(void)
{
    cpu_set_t set;
    ck_assert_int_eq(sched_getaffinity(0, sizeof set, &set), 0);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            return CPU_COUNT(&set) == 1 ? i : SEVERAL;
    return SEVERAL;
}

/* Ends only when every thread has one. */
static void place_item(void *arg, size_t item)
{
    struct place *p = arg;
    p->cpu[item] = is_caller ? CALLER : only_cpu();
    atomic_fetch_add(&p->begun, 1);
    while (atomic_load(&p->begun) < p->threads)
        sched_yield();
}

START_TEST(pinned)
{
    cpu_set_t before, after;
    int cpus[4] = {0}, n = 0;
    ck_assert_int_eq(sched_getaffinity(0, sizeof before, &before), 0);
    for (int i = 0; i < CPU_SETSIZE && n < 3; i++)
        if (CPU_ISSET(i, &before))
            cpus[n++] = i;
    struct place p = {.threads = (unsigned)n + 1};
    cpus[n] = cpus[0]; /* two threads on one CPU are allowed */
    struct wk_pool *pool = wk_pool_open_pinned(cpus, p.threads);
    ck_assert_ptr_nonnull(pool);
    ck_assert_uint_eq(wk_pool_threads(pool), p.threads);
    is_caller = true;
    wk_pool_run(pool, place_item, &p, p.threads);
    unsigned callers = 0;
    for (int i = 0; i <= n; i++) {
        unsigned workers = 0; /* each CPU of 1 to n has its one, the first as the last of them */
        for (int k = 0; k <= n; k++)
            workers += p.cpu[k] == cpus[i];
        ck_assert_uint_eq(workers, 1);
        callers += p.cpu[i] == CALLER;
    }
    ck_assert_uint_eq(callers, 1);
    ck_assert_int_eq(sched_getaffinity(0, sizeof after, &after), 0);
    ck_assert(CPU_EQUAL(&before, &after)); /* the caller stays where it is */
    wk_pool_close(pool);
}
END_TEST

START_TEST(pinned_nowhere)
{
    static const int bad[] = {-1, CPU_SETSIZE - 1, CPU_SETSIZE, 1 << 30};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const int cpus[] = {bad[i], bad[i]};
        ck_assert_ptr_null(wk_pool_open_pinned(cpus, 2));
        struct wk_pool *pool = wk_pool_open_pinned(cpus, 1); /* there is nobody to pin */
        ck_assert_uint_eq(wk_pool_threads(pool), 1);
        wk_pool_close(pool);
    }
}
END_TEST

/* ------------------------------------------------------------------ shares */

static uint32_t share(const struct wk_shares *s, unsigned t, uint32_t items)
{
    return wk_shares_begin(s, t + 1, items) - wk_shares_begin(s, t, items);
}

static void assert_covers(const struct wk_shares *s, uint32_t items)
{
    ck_assert_uint_eq(wk_shares_begin(s, 0, items), 0);
    ck_assert_uint_eq(wk_shares_begin(s, s->n, items), items);
    for (unsigned t = 0; t < s->n; t++) {
        ck_assert_uint_le(wk_shares_begin(s, t, items), wk_shares_begin(s, t + 1, items));
        ck_assert_uint_le(share(s, t, items), items <= s->n ? 1 : items);
    }
}

START_TEST(equal_shares)
{
    struct wk_shares s;
    for (unsigned n = 1; n <= WK_THREADS_MAX; n++) {
        wk_shares_init(&s, n);
        for (uint32_t items = 0; items <= WK_SHARES_ITEMS_MAX; items += items < 300 ? 1 : 997) {
            assert_covers(&s, items);
            for (unsigned t = 0; t < n; t++)
                /* rounded up, and a cut is no finer than 1/65536 */
                ck_assert_uint_le(share(&s, t, items), items / n + 2);
        }
    }
}
END_TEST

/* Threads 0 and 1 four times as fast as 2 and 3, whatever the items cost: the shares follow. */
START_TEST(uneven_shares)
{
    static const uint64_t item_ns[] = {700, 700, 2800, 2800};
    struct wk_shares s;
    wk_shares_init(&s, 4);
    for (unsigned run = 0; run < 60; run++) {
        uint32_t items[4];
        uint64_t busy[4];
        for (unsigned t = 0; t < 4; t++) {
            items[t] = share(&s, t, 1000);
            busy[t] = items[t] * item_ns[t] * (run % 3 + 1);
        }
        wk_shares_learn(&s, items, busy);
        assert_covers(&s, 1000);
    }
    for (unsigned t = 0; t < 4; t++)
        ck_assert_uint_le(share(&s, t, 1000) - (t < 2 ? 399 : 99), 2);
    /* one interrupted run moves little; what cannot be measured, nothing */
    wk_shares_learn(&s, (uint32_t[]){400, 400, 100, 100},
                    (uint64_t[]){40000000, 280000, 280000, 280000});
    ck_assert_uint_ge(share(&s, 0, 1000), 340);
    const struct wk_shares before = s;
    wk_shares_learn(&s, (uint32_t[]){0, 1000, 1000, 1000}, (uint64_t[]){0, 50000, 50000, 50000});
    wk_shares_learn(&s, (uint32_t[]){1, 1, 1, 9}, (uint64_t[]){50000, 50000, 50000, 100});
    for (unsigned t = 0; t <= 4; t++)
        ck_assert_uint_eq(wk_shares_begin(&s, t, 1000), wk_shares_begin(&before, t, 1000));
}
END_TEST

START_TEST(any_speeds)
{
    uint64_t seed = weft_test_seed();
    for (unsigned round = 0; round < 100; round++) {
        struct wk_shares s;
        wk_shares_init(&s, 1 + (unsigned)(weft_test_random(&seed) % WK_THREADS_MAX));
        for (unsigned run = 0; run < 200; run++) {
            uint32_t items[WK_THREADS_MAX];
            uint64_t busy[WK_THREADS_MAX];
            for (unsigned t = 0; t < s.n; t++) {
                items[t] = (uint32_t)weft_test_random(&seed) >> weft_test_random(&seed) % 32;
                busy[t] = weft_test_random(&seed) >> weft_test_random(&seed) % 64;
            }
            wk_shares_learn(&s, items, busy);
            assert_covers(&s, (uint32_t)weft_test_random(&seed) % (WK_SHARES_ITEMS_MAX + 1));
        }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pool");
    TCase *t = tcase_create("pool");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, every_item_once, 0, 5);
    tcase_add_test(t, open_and_close);
    tcase_add_test(t, many_items);
    tcase_add_test(t, asleep);
    tcase_add_loop_test(t, others_do_the_rest, 0, 3);
    tcase_add_test(t, pinned);
    tcase_add_test(t, pinned_nowhere);
    suite_add_tcase(s, t);
    t = tcase_create("shares");
    tcase_add_test(t, equal_shares);
    tcase_add_test(t, uneven_shares);
    tcase_add_test(t, any_speeds);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
