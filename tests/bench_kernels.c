/*
 * What the kernels reach on this machine: products with one row in GB/s of weights beside plain
 * reading, products with many rows in GOP/s (a multiply and an add count two), exact sums,
 * attention, the rest.
 *
 *     bench_kernels [threads] [table]       default: 1 thread, every table but ref
 *
 * Each figure is the best of several rounds, since other work on the machine only ever adds time.
 */
#include "kernels/table.h"
#include "tests/harness.h"
#include "tests/kernel_data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MATRIX_BYTES = 96 << 20, /* beyond the caches of the boards we know */
    ROUNDS = 5,
};

static uint64_t seed = 1;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Seconds of the fastest of ROUNDS calls, after one that warms up. */
static double best(void (*fn)(void *), void *arg)
{
    double least = 1e9;
    fn(arg);
    for (int i = 0; i < ROUNDS; i++) {
        double start = now();
        fn(arg);
        double took = now() - start;
        least = took < least ? took : least;
    }
    return least;
}

/* ------------------------------------------------------------------ plain reading */

struct reading {
    struct wk_pool *pool;
    const uint64_t *data;
    size_t run; /* words of an item */
    uint64_t sum[64];
};

static void read_item(void *arg, size_t item)
{
    struct reading *r = arg;
    const uint64_t *p = r->data + item * r->run;
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (size_t i = 0; i + 8 <= r->run; i += 8) {
        a += p[i] ^ p[i + 1];
        b += p[i + 2] ^ p[i + 3];
        c += p[i + 4] ^ p[i + 5];
        d += p[i + 6] ^ p[i + 7];
    }
    r->sum[item % 64] = a + b + c + d;
}

static void read_all(void *arg)
{
    struct reading *r = arg;
    wk_pool_run(r->pool, read_item, r, MATRIX_BYTES / 8 / r->run);
}

/* ------------------------------------------------------------------ products */

struct product {
    struct wk_engine *e;
    struct wk_matrix w;
    struct wk_act act;
    float *y;
    int64_t *sum; /* NULL: wk_matmul */
    void *scratch;
};

static void multiply(void *arg)
{
    struct product *p = arg;
    if (p->sum != NULL)
        (void)wk_matmul_sum(p->e, &p->w, &p->act, 256, p->sum, p->scratch);
    else
        wk_matmul(p->e, &p->w, &p->act, p->y, p->w.rows, p->scratch);
}

/* Seconds of a product of n rows. */
static double product_time(struct wk_engine *e, enum wk_type type, uint32_t rows, uint32_t cols,
                           uint32_t n, bool sum)
{
    uint8_t *gguf = kd_gguf(&seed, type, 16, cols, false);
    float *x = kd_floats(&seed, (size_t)n * cols);
    struct product p = {.e = e,
                        .w = {type, rows, cols, kd_alloc(wk_matrix_bytes(type, rows, cols))}};
    for (uint32_t r = 0; r < rows; r += 16)
        wk_matrix_pack(&p.w, r, 16, gguf);
    p.act = kd_act(e, type, x, n, cols);
    p.y = kd_alloc(sizeof *p.y * n * rows);
    p.sum = sum ? kd_alloc(sizeof *p.sum * n * rows) : NULL;
    p.scratch = kd_alloc(wk_matmul_scratch(e, type, n, rows, cols));
    double t = best(multiply, &p);
    free(p.scratch);
    free(p.sum);
    free(p.y);
    free(p.act.q8);
    free(p.w.data);
    free(x);
    free(gguf);
    return t;
}

static void bench_products(struct wk_engine *e)
{
    printf("%-8s %-5s %10s %10s %10s %10s %10s %10s\n", wk_table_name(e->table), "type", "n=1 GB/s",
           "sums GB/s", "n=4 GOP/s", "n=16 GOP/s", "n=128", "sums n=128");
    for (size_t k = 0; k < KD_TYPES; k++) {
        enum wk_type type = kd_types[k];
        uint32_t cols = 4096;
        uint32_t rows = (uint32_t)(MATRIX_BYTES / kd_gguf_bytes(type, 1, cols)) / 16 * 16;
        double bytes = (double)wk_matrix_bytes(type, rows, cols), ops = 2.0 * 2048 * 2048;
        printf("%-8s %-5s", "", kd_type_name(type));
        for (int sum = 0; sum < 2; sum++)
            printf(" %10.1f", bytes / product_time(e, type, rows, cols, 1, sum != 0) * 1e-9);
        for (uint32_t n = 4; n <= 16; n *= 4)
            printf(" %10.1f", n * ops / product_time(e, type, 2048, 2048, n, false) * 1e-9);
        for (int sum = 0; sum < 2; sum++)
            printf(" %10.1f", 128 * ops / product_time(e, type, 2048, 2048, 128, sum != 0) * 1e-9);
        printf("\n");
        fflush(stdout);
    }
}

static void bench_blas(struct wk_engine *e)
{
    static const uint32_t rows[] = {4, 8, 16, 24, 32, 48, 64, 128, 512};
    const struct wk_table *table = e->table;
    struct wk_table always = *table;
    always.blas_rows = 1;
    e->table = &always;
    for (size_t k = 0; k < 2; k++) {
        printf("%s, GOP/s of weft and OpenBLAS by rows:", kd_type_name(kd_types[k]));
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            double ops = rows[i] * 2.0 * 2048 * 2048 * 1e-9;
            e->gemm = WK_GEMM_WEFT;
            double ours = product_time(e, kd_types[k], 2048, 2048, rows[i], false);
            e->gemm = WK_GEMM_OPENBLAS;
            double theirs = product_time(e, kd_types[k], 2048, 2048, rows[i], false);
            printf("  %u: %.1f %.1f", rows[i], ops / ours, ops / theirs);
        }
        e->gemm = WK_GEMM_WEFT;
        printf("\n");
    }
    e->table = table;
}

/* ------------------------------------------------------------------ the rest */

struct rest {
    struct wk_engine *e;
    struct wk_kv kv;
    float *x, *y, *w;
    uint32_t n, heads, position;
    struct wk_act act;
    void *q8;
};

static void run_attention(void *arg)
{
    struct rest *r = arg;
    wk_attention(r->e, &r->kv, r->x, r->n, r->heads, r->position, 0.1f, r->y);
}

static void run_swiglu(void *arg)
{
    struct rest *r = arg;
    wk_swiglu(r->e, r->x, r->w, r->y, 1 << 18);
}

static void run_norm(void *arg)
{
    struct rest *r = arg;
    wk_rms_norm(r->e, r->x, r->w, 1e-5f, 64, 4096, r->y);
}

static void run_quantise(void *arg)
{
    struct rest *r = arg;
    wk_act_set(r->e, &r->act, r->x, 64, 4096, r->q8);
}

static void bench_rest(struct wk_engine *e)
{
    enum { N = 1 << 18, DIM = 128, KV_HEADS = 8, HEADS = 32, LENGTH = 2048 };
    struct rest r = {.e = e, .heads = HEADS, .x = kd_floats(&seed, N), .w = kd_floats(&seed, N)};
    r.y = kd_alloc(N * sizeof *r.y);
    r.q8 = kd_alloc(wk_act_bytes(64, 4096));
    double ns = 1e9 / N;
    printf("%-8s ns per element: swiglu %.2f, norm %.2f, quantise %.2f\n", wk_table_name(e->table),
           best(run_swiglu, &r) * ns, best(run_norm, &r) * ns, best(run_quantise, &r) * ns);
    for (int type = WK_KV_F32; type <= WK_KV_F16; type++) {
        r.kv = (struct wk_kv){(enum wk_kv_type)type, KV_HEADS, DIM, LENGTH, NULL};
        r.kv.data = kd_alloc(wk_kv_bytes(r.kv.type, KV_HEADS, DIM, LENGTH));
        float *k = kd_floats(&seed, (size_t)LENGTH * KV_HEADS * DIM);
        wk_kv_put(e, &r.kv, 0, LENGTH, k, k);
        r.n = 1;
        r.position = LENGTH - 1;
        double one = best(run_attention, &r);
        r.n = 64;
        r.position = LENGTH - 64;
        double many = best(run_attention, &r);
        printf("%-8s attention %s, 32/8 heads of 128 at 2048: one row %.0f µs (%.1f GB/s), 64 rows "
               "%.1f GOP/s\n",
               "", type == WK_KV_F32 ? "f32" : "f16", one * 1e6,
               (double)wk_kv_bytes(r.kv.type, KV_HEADS, DIM, LENGTH) / one * 1e-9,
               64.0 * HEADS * (LENGTH - 32) * DIM * 4 / many * 1e-9);
        free(k);
        free(r.kv.data);
    }
    free(r.x);
    free(r.w);
    free(r.y);
    free(r.q8);
}

int main(int argc, char **argv)
{
    const struct wk_table *table[KD_TABLES_MAX];
    size_t n = wk_table_list(table, KD_TABLES_MAX);
    unsigned threads = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
    struct wk_engine e = {.pool = wk_pool_open(threads)};
    struct reading r = {.pool = e.pool, .data = kd_alloc(MATRIX_BYTES), .run = 1 << 15};
    memset((void *)(uintptr_t)r.data, 1, MATRIX_BYTES);
    printf("%u threads, plain reading %.1f GB/s\n", wk_pool_threads(e.pool),
           MATRIX_BYTES / best(read_all, &r) * 1e-9);
    free((void *)(uintptr_t)r.data);
    for (size_t i = 0; i < n; i++) {
        if (argc > 2 ? strcmp(argv[2], wk_table_name(table[i])) != 0 : i == 0 && n > 1)
            continue;
        e.table = table[i];
        bench_products(&e);
        bench_rest(&e);
        bench_blas(&e);
    }
    wk_pool_close(e.pool);
    return 0;
}
