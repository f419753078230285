/*
 * The pool: every item of a run is done exactly once before the run returns, for any number of
 * threads and items; writes of the items are seen by the caller; a pool can be closed at any time
 * between runs.
 */
#include "kernels/kernels.h"
#include "tests/harness.h"

#include <stdlib.h>
#include <string.h>

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

int main(void)
{
    Suite *s = suite_create("pool");
    TCase *t = tcase_create("pool");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, every_item_once, 0, 5);
    tcase_add_test(t, open_and_close);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
