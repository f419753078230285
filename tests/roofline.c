/*
 * The limits of the machine, see roofline.h.
 */
#include "tests/roofline.h"

#include <stdint.h>
#include <string.h>
#include <time.h>

#include "kernels/table.h"
#include "tests/kernel_data.h"
#include "tests/peak/peak.h"

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double roofline_best(void (*fn)(void *), void *arg, double budget_s)
{
    double start = now_s(), least = 1e9, end;
    fn(arg);
    do {
        double before = now_s();
        fn(arg);
        end = now_s();
        least = end - before < least ? end - before : least;
    } while (end - start < budget_s);
    return least;
}

/* ------------------------------------------------------------------ reading */

struct reading {
    struct wk_pool *pool;
    const struct peak *peak;
    unsigned way;
    const uint8_t *data;
    size_t bytes, item_bytes;
};

static void read_item(void *arg, size_t item)
{
    const struct reading *r = arg;
    const size_t at = item * r->item_bytes;
    uint64_t sum = r->peak->read(
        r->data + at, r->bytes - at < r->item_bytes ? r->bytes - at : r->item_bytes, r->way);
    peak_keep(&sum);
}

static void read_all(void *arg)
{
    struct reading *r = arg;
    wk_pool_run(r->pool, read_item, r, (r->bytes + r->item_bytes - 1) / r->item_bytes);
}

static bool usable(const struct peak *p)
{
    const struct wk_table *tables[KD_TABLES_MAX];
    const size_t n = wk_table_list(tables, KD_TABLES_MAX);
    for (size_t i = 0; i < n; i++)
        if (strcmp(wk_table_name(tables[i]), p->isa) == 0)
            return true;
    return false;
}

double roofline_read_s(struct wk_pool *pool, const void *data, size_t bytes, double budget_s)
{
    double least = 1e9;
    struct reading r = {.pool = pool, .data = data, .bytes = bytes / 4096 * 4096};
    for (size_t i = 0; peaks[i] != NULL; i++) {
        if (!usable(peaks[i]))
            continue;
        r.peak = peaks[i];
        for (r.way = 0; r.way < PEAK_READS; r.way++)
            for (int fine = 0; fine < 2; fine++) { /* a run for each thread, or by megabytes */
                r.item_bytes =
                    fine != 0 ? 1 << 20 : (r.bytes / wk_pool_threads(pool) + 4095) / 4096 * 4096;
                double t = roofline_best(read_all, &r, budget_s);
                least = t < least ? t : least;
            }
    }
    return least;
}

/* ------------------------------------------------------------------ computing */

struct computing {
    struct wk_pool *pool;
    void (*fn)(uint64_t rounds);
    uint64_t rounds;
};

static void compute_item(void *arg, size_t item)
{
    const struct computing *c = arg;
    (void)item;
    c->fn(c->rounds);
}

static void compute(void *arg)
{
    struct computing *c = arg;
    wk_pool_run(c->pool, compute_item, c, wk_pool_threads(c->pool));
}

double roofline_peak(struct wk_pool *pool, const char *isa, bool floats, double budget_s)
{
    for (size_t i = 0; peaks[i] != NULL; i++) {
        const struct peak *p = peaks[i];
        if (strcmp(p->isa, isa) != 0 || p->integers == NULL || !usable(p))
            continue;
        const double ops = floats ? p->float_ops : p->integer_ops;
        /* 2^20 rounds take some milliseconds: long against waking the pool. */
        struct computing c = {pool, floats ? p->floats : p->integers, 1 << 20};
        return ops * (double)c.rounds * wk_pool_threads(pool) /
               roofline_best(compute, &c, budget_s);
    }
    return 0;
}
