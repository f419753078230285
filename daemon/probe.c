/*
 * Probe, see probe.h. Allocates, measures, frees; nothing is kept.
 */
#include "daemon/probe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROBE_COLS 4096u             /* the width of an 8 B model */
#define PROBE_ROWS 64u               /* of a prompt; beyond, a product gains little */
#define PROBE_SLICE_ROWS 512u        /* of the matrix at a time; a layer's own have 1000 and more */
#define PROBE_PIECE 256u             /* columns of an exact sum, as of the FFN's */
#define PROBE_NS UINT64_C(300000000) /* of repetitions for each figure; their median counts */
#define PROBE_TIMES_MAX 256u
#define Q8_0_BLOCK_BYTES 34u /* f16 scale and 32 values */

static uint64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void *probe_alloc(size_t bytes)
{
    return aligned_alloc(WK_ALIGN, (bytes + WK_ALIGN - 1) / WK_ALIGN * WK_ALIGN);
}

/* One tile of rows in GGUF layout: scale 2^-7, values that differ from place to place. */
static void fill_tile(uint8_t *tile, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        size_t at = i % Q8_0_BLOCK_BYTES;
        tile[i] = at == 0 ? 0x00 : at == 1 ? 0x20 : (uint8_t)(i * 37u >> 3);
    }
}

struct products {
    const struct wk_engine *engine;
    struct wk_matrix m; /* [rows, PROBE_COLS], larger than the caches */
    uint32_t next;      /* row where the next slice begins */
    float *x;           /* [PROBE_ROWS, PROBE_COLS] */
    float *y;           /* [rows] or [PROBE_ROWS, PROBE_SLICE_ROWS] */
    int64_t *sum;       /* [PROBE_ROWS, PROBE_SLICE_ROWS] */
    void *q8, *scratch;
};

/* A token: one row through all of the matrix. */
static void one_row(struct products *p)
{
    struct wk_act act = {0};
    wk_act_set(p->engine, &act, p->x, 1, PROBE_COLS, p->q8);
    wk_matmul(p->engine, &p->m, &act, p->y, p->m.rows, p->scratch);
}

static uint32_t slice_rows(const struct products *p)
{
    return p->m.rows < PROBE_SLICE_ROWS ? p->m.rows : PROBE_SLICE_ROWS;
}

/* Going round, so that every slice comes from memory, as a layer does. */
static struct wk_matrix slice(struct products *p)
{
    struct wk_matrix s = p->m;
    s.rows = slice_rows(p);
    if (p->next + s.rows > p->m.rows)
        p->next = 0;
    s.data = (uint8_t *)p->m.data + wk_matrix_bytes(p->m.type, p->next, p->m.cols);
    p->next += s.rows;
    return s;
}

/* A prompt's step: two plain products for an exact sum, which costs more; o and down are about a
 * third of a layer. */
static void many_rows(struct products *p)
{
    struct wk_act act = {0};
    for (int i = 0; i < 3; i++) {
        const struct wk_matrix s = slice(p);
        wk_act_set(p->engine, &act, p->x, PROBE_ROWS, PROBE_COLS, p->q8);
        if (i < 2)
            wk_matmul(p->engine, &s, &act, p->y, s.rows, p->scratch);
        else /* no sum is too large with these values */
            (void)!wk_matmul_sum(p->engine, &s, &act, PROBE_PIECE, p->sum, p->scratch);
    }
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The median time of calls repeated for PROBE_NS, at least of one. The best would be what an
 * answer reaches now and then, not its speed. */
static uint64_t time_calls(void (*call)(struct products *p), struct products *p)
{
    uint64_t times[PROBE_TIMES_MAX], start = clock_ns(), now = start;
    size_t n = 0;
    do {
        const uint64_t before = now;
        call(p);
        now = clock_ns();
        times[n++] = now - before;
    } while (now - start < PROBE_NS && n < PROBE_TIMES_MAX);
    qsort(times, n, sizeof times[0], by_value);
    return times[n / 2] > 0 ? times[n / 2] : 1;
}

static uint64_t rate(double amount, uint64_t ns)
{
    return (uint64_t)(amount * 1e9 / (double)ns);
}

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

int weft_probe_run(const struct wk_engine *engine, uint64_t memory_bytes, struct weft_probe *ret,
                   weft_err *err)
{
    const size_t row_bytes = PROBE_COLS / 32u * Q8_0_BLOCK_BYTES;
    uint64_t bytes = WEFT_PROBE_BYTES;
    if (memory_bytes < bytes)
        bytes = memory_bytes > 0 ? memory_bytes : WEFT_PROBE_BYTES / 4;
    if (bytes < WEFT_PROBE_BYTES_MIN)
        return weft_fail(err, WEFT_ENOMEM,
                         "probe: %" PRIu64 " bytes are free, at least %u are needed", bytes,
                         WEFT_PROBE_BYTES_MIN);
    struct products p = {
        .engine = engine,
        .m = {.type = WK_Q8_0,
              .rows = (uint32_t)(bytes / row_bytes) / WK_TILE * WK_TILE,
              .cols = PROBE_COLS},
    };
    const size_t step_rows = (size_t)PROBE_ROWS * slice_rows(&p);

    int r = 0;
    size_t scratch_bytes =
        max_size(wk_matmul_scratch(engine, WK_Q8_0, 1, p.m.rows, PROBE_COLS),
                 wk_matmul_scratch(engine, WK_Q8_0, PROBE_ROWS, PROBE_SLICE_ROWS, PROBE_COLS));
    uint8_t *tile = malloc(WK_TILE * row_bytes);
    p.x = probe_alloc((size_t)PROBE_ROWS * PROBE_COLS * sizeof *p.x);
    p.y = probe_alloc(max_size(p.m.rows, step_rows) * sizeof *p.y);
    p.sum = probe_alloc(step_rows * sizeof *p.sum);
    p.q8 = probe_alloc(wk_act_bytes(PROBE_ROWS, PROBE_COLS));
    p.scratch = probe_alloc(scratch_bytes + WK_ALIGN);
    p.m.data = probe_alloc(wk_matrix_bytes(WK_Q8_0, p.m.rows, PROBE_COLS));
    if (tile == NULL || p.x == NULL || p.y == NULL || p.sum == NULL || p.q8 == NULL ||
        p.scratch == NULL || p.m.data == NULL) {
        r = weft_fail(err, WEFT_ENOMEM, "probe of %" PRIu64 " bytes", bytes);
        goto out;
    }
    fill_tile(tile, WK_TILE * row_bytes);
    for (uint32_t row = 0; row < p.m.rows; row += WK_TILE)
        wk_matrix_pack(&p.m, row, WK_TILE, tile);
    for (size_t i = 0; i < (size_t)PROBE_ROWS * PROBE_COLS; i++)
        p.x[i] = (float)(int)(i % 255u) * 0x1p-8f - 0.5f;

    uint64_t ns = time_calls(one_row, &p);
    ret->bytes_per_s = rate((double)p.m.rows * (double)row_bytes, ns);
    ns = time_calls(many_rows, &p);
    ret->flops_per_s = rate(3.0 * 2.0 * (double)step_rows * PROBE_COLS, ns);
out:
    free(tile);
    free(p.x);
    free(p.y);
    free(p.sum);
    free(p.q8);
    free(p.scratch);
    free(p.m.data);
    return r;
}

/* ------------------------------------------------------------------ the file */

#define PROBE_FILE_FORMAT                                                      \
    "weft-probe 1\ntime %" PRId64 "\nisa %s\nthreads %u\nbytes_per_s %" PRIu64 \
    "\nflops_per_s %" PRIu64 "\nstage_ns %" PRIu64 "\n"

bool weft_probe_load(const char *dir, const struct wk_engine *engine, struct weft_probe *ret,
                     uint64_t *ret_age_s)
{
    char path[4096], isa[16] = "";
    struct weft_probe p = {0};
    int64_t when = 0, now = (int64_t)time(NULL);
    unsigned threads = 0;
    if ((size_t)snprintf(path, sizeof path, "%s/probe", dir) >= sizeof path)
        return false;
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    int n = fscanf(f,
                   "weft-probe 1 time %" SCNd64 " isa %15s threads %u bytes_per_s %" SCNu64
                   " flops_per_s %" SCNu64 " stage_ns %" SCNu64,
                   &when, isa, &threads, &p.bytes_per_s, &p.flops_per_s, &p.stage_ns);
    fclose(f);
    if (n != 6 || when <= 0 || when > now || strcmp(isa, wk_table_name(engine->table)) != 0 ||
        threads != wk_pool_threads(engine->pool) || p.bytes_per_s == 0 || p.flops_per_s == 0)
        return false;
    *ret = p;
    *ret_age_s = (uint64_t)(now - when);
    return true;
}

int weft_probe_save(const char *dir, const struct wk_engine *engine, const struct weft_probe *p,
                    weft_err *err)
{
    char path[4096], fresh[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/probe", dir) >= sizeof path ||
        (size_t)snprintf(fresh, sizeof fresh, "%s/probe.new", dir) >= sizeof fresh)
        return weft_fail(err, WEFT_EIO, "state folder %.100s…: its name is too long", dir);
    FILE *f = fopen(fresh, "we");
    if (f == NULL)
        return weft_fail_errno(err, errno, "%s", fresh);
    int n = fprintf(f, PROBE_FILE_FORMAT, (int64_t)time(NULL), wk_table_name(engine->table),
                    wk_pool_threads(engine->pool), p->bytes_per_s, p->flops_per_s, p->stage_ns);
    int r = n < 0 ? weft_fail_errno(err, errno, "%s", fresh) : 0;
    if (fclose(f) != 0 && r == 0)
        r = weft_fail_errno(err, errno, "%s", fresh); /* a full disk shows here */
    if (r == 0 && rename(fresh, path) != 0)
        r = weft_fail_errno(err, errno, "%s", path);
    if (r < 0)
        unlink(fresh);
    return r;
}
