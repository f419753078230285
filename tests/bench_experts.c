/*
 * Benchmark: the experts of one row, as a mixture with many small experts decodes (gate and up 768
 * x 2048, down 2048 x 768, Q4_K, 8 experts a row), against one FFN of the same bytes.
 *
 *     bench_experts [THREADS] [ISA]    1 and the best by default
 *
 * Times in µs a row and layer, the best of many rows by turns, over matrices larger than the
 * caches; the machine should be otherwise idle. The difference is what small matrices cost: more
 * runs of the pool, fewer items in each.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/layer.h"
#include "daemon/pages.h"
#include "tests/harness.h"
#include "tests/kernel_data.h"
#include "tests/measure.h"
#include "tests/random_blocks.h"

enum {
    DIM = 2048,
    FFN = 768,
    USED = 8,
    EXPERTS = 64, /* 170 MB: nothing is in a cache when it comes round again */
    ROWS_A_ROUND = EXPERTS / USED,
    ROUNDS = 200,
};

/* Matrices lie one behind the other in one region of huge pages; alone they are too small. */
static uint8_t *region;
static size_t region_used;

static size_t matrix_bytes(uint32_t rows, uint32_t cols)
{
    return wk_matrix_bytes(WK_Q4_K, rows, cols); /* a multiple of WK_ALIGN: whole tiles */
}

static struct wk_matrix random_matrix(uint64_t *seed, uint32_t rows, uint32_t cols)
{
    const size_t bytes = kd_gguf_bytes(WK_Q4_K, WK_TILE, cols);
    struct wk_matrix w = {WK_Q4_K, rows, cols, NULL};
    struct random_blocks blocks;
    uint8_t *tile = kd_alloc(bytes);
    w.data = region + region_used;
    region_used += matrix_bytes(rows, cols);
    random_blocks_init(&blocks, WK_Q4_K, 0.02f);
    random_blocks_fill(&blocks, seed, tile, bytes / 144); /* bytes of a block */
    for (uint32_t r = 0; r < rows; r += WK_TILE)
        wk_matrix_pack(&w, r, WK_TILE, tile);
    free(tile);
    return w;
}

struct ffn {
    struct wk_matrix gate, up, down;
};

static struct {
    struct wk_engine e;
    struct ffn expert[EXPERTS], one[ROWS_A_ROUND]; /* `one` has the bytes of USED experts */
    struct wk_act x;
    void *hidden;
    float *residual;
    int64_t sum[DIM];
} b;

static void open_ffn(struct ffn *f, uint64_t *seed, uint32_t width)
{
    f->gate = random_matrix(seed, width, DIM);
    f->up = random_matrix(seed, width, DIM);
    f->down = random_matrix(seed, DIM, width);
}

static void run_ffn(const struct ffn *f, const float *weight)
{
    const struct wk_glu glu = {.gate = &f->gate, .up = &f->up};
    struct wk_act hidden;
    bool ok;
    wk_act_glu(&b.e, &hidden, &glu, &b.x, NULL, b.hidden, NULL);
    if (weight != NULL)
        ok = wk_matmul_sum_rows(&b.e, &f->down, &hidden, WEFT_FFN_PIECE, NULL, weight, b.sum);
    else
        ok = wk_matmul_add(&b.e, &f->down, &hidden, WEFT_FFN_PIECE, b.residual) == WK_SUM_OK;
    ck_assert(ok);
}

/* Seconds of row `row` of a round. */
static double experts_s(unsigned row)
{
    const float weight = 0.125f;
    const uint64_t start = measure_clock_ns();
    memset(b.sum, 0, sizeof b.sum);
    for (unsigned i = 0; i < USED; i++)
        run_ffn(&b.expert[row * USED + i], &weight);
    ck_assert(wk_sum_add(&b.e, b.sum, b.residual, DIM));
    return (double)(measure_clock_ns() - start) * 1e-9;
}

static double one_s(unsigned row)
{
    const uint64_t start = measure_clock_ns();
    run_ffn(&b.one[row], NULL);
    return (double)(measure_clock_ns() - start) * 1e-9;
}

static int n_args;
static char **args;

static void bench(void)
{
    uint64_t seed = 1;
    float *x = kd_floats(&seed, DIM);
    const unsigned threads = n_args > 1 ? (unsigned)strtoul(args[1], NULL, 10) : 1;
    b.e.table = wk_table_select(n_args > 2 ? args[2] : NULL);
    ck_assert_msg(b.e.table != NULL, "this CPU has no %s", n_args > 2 ? args[2] : "table");
    b.e.pool = wk_pool_open(threads);
    b.hidden = kd_alloc(wk_act_bytes(1, FFN * USED));
    b.residual = kd_alloc(sizeof *b.residual * DIM);
    memset(b.residual, 0, sizeof *b.residual * DIM);
    region =
        weft_pages_alloc_huge(2 * EXPERTS * (2 * matrix_bytes(FFN, DIM) + matrix_bytes(DIM, FFN)));
    ck_assert_ptr_nonnull(region);
    for (unsigned i = 0; i < EXPERTS; i++)
        open_ffn(&b.expert[i], &seed, FFN);
    for (unsigned i = 0; i < ROWS_A_ROUND; i++)
        open_ffn(&b.one[i], &seed, FFN * USED);
    wk_act_set(&b.e, &b.x, x, 1, DIM, kd_alloc(wk_act_bytes(1, DIM)));
    double experts = INFINITY, one = INFINITY;
    for (unsigned i = 0; i < ROUNDS * ROWS_A_ROUND;
         i++) { /* by turns: other work takes from both */
        experts = fmin(experts, experts_s(i % ROWS_A_ROUND));
        one = fmin(one, one_s(i % ROWS_A_ROUND));
    }
    const double bytes = 3.0 * (double)wk_matrix_bytes(WK_Q4_K, FFN * USED, DIM);
    printf("%s, %u threads: %u experts %.1f µs, %.1f GB/s; one FFN %.1f µs, %.1f GB/s; %+.1f %%\n",
           wk_table_name(b.e.table), threads, (unsigned)USED, experts * 1e6, bytes / experts * 1e-9,
           one * 1e6, bytes / one * 1e-9, (experts / one - 1) * 100);
}

int main(int argc, char **argv)
{
    n_args = argc;
    args = argv;
    return weft_test_program(bench);
}
