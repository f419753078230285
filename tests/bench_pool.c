/*
 * Benchmark: what the thread pool costs, and how it deals with threads of unequal speed.
 *
 *     bench_pool [-t THREADS] [-p]    THREADS beside 1 and 2 (all); -p pins them, one to a CPU
 *
 * run: ns of a run whose items do nothing, and of one whose items wait until every thread has one
 * ("meet": the whole barrier, out and back), with the workers spinning, then asleep. uneven: a run
 * whose items take a worker four times as long as the caller, as a multiple of the time that the
 * best cut would take. read: a matrix larger than the caches, in runs of 2 MiB. Medians; the
 * machine should be otherwise idle.
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/table.h"
#include "tests/harness.h"
#include "tests/measure.h"

#define RUNS 5000u
#define RUNS_ASLEEP 200u
#define ASLEEP_NS UINT64_C(300000) /* longer than any worker spins */
#define UNEVEN_RUNS 200u
#define SLOWER 4u
#define ITEM_NS UINT64_C(1000) /* of the caller: about a tile of 16 rows from memory */
#define READ_BYTES ((size_t)256 << 20)
#define READ_ITEM_BYTES ((size_t)16 << 10) /* a tile of 2048 columns with 4 bits a weight */
#define READ_RUN_ITEMS 128u                /* a matrix of 2048 x 2048 of them */

static bool pinned;
static unsigned all_threads;
static int cpus[CPU_SETSIZE];

static struct wk_pool *open_pool(unsigned threads)
{
    struct wk_pool *pool = pinned ? wk_pool_open_pinned(cpus, threads) : wk_pool_open(threads);
    ck_assert_msg(pool != NULL, "%u threads could not be started", threads);
    return pool;
}

static void busy_ns(uint64_t ns)
{
    for (const uint64_t end = measure_clock_ns() + ns; measure_clock_ns() < end;)
        continue;
}

/* ------------------------------------------------------------------ the cost of a run */

static void nothing(void *arg, size_t item)
{
    (void)arg, (void)item;
}

struct meeting {
    atomic_uint begun;
    unsigned threads;
};

/* Nobody can run two of these, so every thread runs one. */
static void meet(void *arg, size_t item)
{
    struct meeting *m = arg;
    (void)item;
    atomic_fetch_add(&m->begun, 1);
    while (atomic_load(&m->begun) < m->threads)
        wk_cpu_relax();
}

static double time_runs(struct wk_pool *pool, bool meeting, size_t items, bool asleep)
{
    static double ns[RUNS];
    const unsigned runs = asleep ? RUNS_ASLEEP : RUNS;
    for (unsigned i = 0; i < runs; i++) {
        struct meeting m = {.threads = wk_pool_threads(pool)};
        if (asleep)
            busy_ns(ASLEEP_NS);
        const uint64_t start = measure_clock_ns();
        wk_pool_run(pool, meeting ? meet : nothing, &m, items);
        ns[i] = (double)(measure_clock_ns() - start);
    }
    return measure_median(ns, runs);
}

static void bench_run(unsigned threads)
{
    static const size_t items[] = {2, 16, 128};
    struct wk_pool *pool = open_pool(threads);
    for (int asleep = 0; asleep < 2; asleep++) {
        printf("run     %7u  %-8s", threads, asleep ? "asleep" : "spinning");
        for (size_t i = 0; i < sizeof items / sizeof items[0]; i++)
            printf(" %8.0f", time_runs(pool, false, items[i], asleep));
        printf(" %8.0f\n", time_runs(pool, true, threads, asleep));
    }
    wk_pool_close(pool);
}

/* ------------------------------------------------------------------ unequal threads */

static _Thread_local bool is_caller;

static void uneven_item(void *arg, size_t item)
{
    (void)arg, (void)item;
    busy_ns(is_caller ? ITEM_NS : SLOWER * ITEM_NS);
}

static void bench_uneven(unsigned threads)
{
    static const size_t items[] = {352, 128, 64, 16};
    static double ratio[UNEVEN_RUNS];
    struct wk_pool *pool = open_pool(threads);
    const double speed = 1 + (threads - 1.0) / SLOWER; /* of all, in callers */
    is_caller = true;
    printf("uneven  %7u          ", threads);
    for (size_t i = 0; i < sizeof items / sizeof items[0]; i++) {
        for (unsigned k = 0; k < UNEVEN_RUNS; k++) {
            const uint64_t start = measure_clock_ns();
            wk_pool_run(pool, uneven_item, NULL, items[i]);
            ratio[k] = (double)(measure_clock_ns() - start) * speed / (double)(items[i] * ITEM_NS);
        }
        printf(" %8.3f", measure_median(ratio, UNEVEN_RUNS));
    }
    printf("\n");
    wk_pool_close(pool);
}

/* ------------------------------------------------------------------ reading in order */

struct reading {
    const uint8_t *run; /* READ_RUN_ITEMS items */
    _Atomic uint64_t sum;
};

static void read_item(void *arg, size_t item)
{
    struct reading *r = arg;
    const uint8_t *at = r->run + item * READ_ITEM_BYTES;
    uint64_t sum = 0, v[8];
    for (size_t i = 0; i < READ_ITEM_BYTES; i += sizeof v) {
        memcpy(v, at + i, sizeof v);
        sum += v[0] ^ v[1] ^ v[2] ^ v[3] ^ v[4] ^ v[5] ^ v[6] ^ v[7];
    }
    atomic_fetch_add_explicit(&r->sum, sum, memory_order_relaxed);
}

static void bench_read(unsigned threads)
{
    const size_t run_bytes = READ_RUN_ITEMS * READ_ITEM_BYTES;
    static double rate[10];
    struct wk_pool *pool = open_pool(threads);
    uint8_t *data = aligned_alloc(WK_ALIGN, READ_BYTES);
    ck_assert_ptr_nonnull(data);
    memset(data, 1, READ_BYTES);
    for (size_t k = 0; k < sizeof rate / sizeof rate[0]; k++) {
        const uint64_t start = measure_clock_ns();
        for (size_t at = 0; at < READ_BYTES; at += run_bytes) {
            struct reading r = {.run = data + at};
            wk_pool_run(pool, read_item, &r, READ_RUN_ITEMS);
        }
        rate[k] = (double)READ_BYTES / (double)(measure_clock_ns() - start);
    }
    printf("read    %7u           %8.1f\n", threads,
           measure_median(rate, sizeof rate / sizeof rate[0]));
    free(data);
    wk_pool_close(pool);
}

/* ------------------------------------------------------------------ all of it */

static void body(void)
{
    unsigned counts[] = {1, 2, all_threads};
    const size_t n = all_threads > 2 ? 3 : all_threads;
    printf("        threads  workers   2 items       16      128     meet   (ns)\n");
    for (size_t i = 0; i < n; i++)
        bench_run(counts[i]);
    printf("        threads          352 items      128       64       16   (time / best time)\n");
    for (size_t i = 1; i < n; i++)
        bench_uneven(counts[i]);
    printf("        threads               GB/s\n");
    for (size_t i = 0; i < n; i++)
        bench_read(counts[i]);
}

int main(int argc, char **argv)
{
    cpu_set_t set;
    unsigned n = 0;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        CPU_ZERO(&set);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            cpus[n++] = i;
    all_threads = n > 0 ? n : 1;
    for (int c; (c = getopt(argc, argv, "t:p")) != -1;) {
        if (c == 't')
            all_threads = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'p')
            pinned = true;
        else
            return 2;
    }
    if (optind < argc || all_threads < 1 || (pinned && (n == 0 || all_threads > n))) {
        fprintf(stderr, "usage: bench_pool [-t THREADS] [-p], -p with at most %u threads\n", n);
        return 2;
    }
    if (pinned) {
        CPU_ZERO(&set);
        CPU_SET(cpus[0], &set);
        (void)sched_setaffinity(0, sizeof set, &set);
    }
    return weft_test_program(body);
}
