/*
 * Products of packed matrices: cuts the work into runs of tiles for the pool and hands each run to
 * the table's inner loop. Every element is computed whole by one thread, so the cut never shows in
 * the result. Runs on the caller and its pool; results of a run lie on the stack until they are
 * stored.
 */
#include "kernels/table.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* ------------------------------------------------------------------ activations */

size_t wk_act_bytes(uint32_t n, uint32_t cols)
{
    return (size_t)n * ((cols + (size_t)WK_BLOCK - 1) / WK_BLOCK) * sizeof(struct wk_q8);
}

struct quantise {
    const struct wk_engine *e;
    const struct wk_act *act;
};

static void quantise_row(void *arg, size_t row)
{
    const struct quantise *job = arg;
    uint32_t cols = job->act->cols, whole = cols / WK_BLOCK, rest = cols % WK_BLOCK;
    const float *x = job->act->f32 + row * cols;
    struct wk_q8 *out = (struct wk_q8 *)job->act->q8 + row * (whole + (rest != 0));
    job->e->table->quantise(x, whole, out);
    if (rest != 0) { /* the last block is filled with zeros */
        float block[WK_BLOCK] = {0};
        memcpy(block, x + (size_t)whole * WK_BLOCK, rest * sizeof *x);
        job->e->table->quantise(block, 1, out + whole);
    }
}

void wk_act_set(const struct wk_engine *e, struct wk_act *act, const float *x, uint32_t n,
                uint32_t cols, void *q8_or_null)
{
    *act = (struct wk_act){
        .n = n, .cols = cols, .f32 = x, .q8 = q8_or_null, .quantised = q8_or_null != NULL};
    struct quantise job = {e, act};
    if (q8_or_null != NULL)
        wk_pool_run(e->pool, quantise_row, &job, n);
}

/* ------------------------------------------------------------------ products */

struct product {
    const struct wk_engine *e;
    const struct wk_matrix *w;
    const struct wk_act *x;
    float *y; /* [n, ldy], or NULL and */
    size_t ldy;
    int64_t *sum;   /* [n, rows] */
    uint32_t piece; /* columns of a piece of sum */
    uint32_t group; /* tiles of an item */
    atomic_bool failed;
};

/* Rows [row, row + d->n) of the run of tiles that begins at matrix row `lane0`. */
static void store(const struct product *p, const struct wk_dot *d, uint32_t row, uint32_t lane0,
                  const float *out, const int64_t *sum)
{
    for (uint32_t t = 0; t < d->tiles; t++) {
        uint32_t first = lane0 + t * WK_TILE, lanes = min_u32(WK_TILE, p->w->rows - first);
        for (uint32_t i = 0; i < d->n; i++) {
            size_t from = (size_t)(t * d->n + i) * WK_TILE;
            if (p->sum != NULL)
                memcpy(p->sum + (size_t)(row + i) * p->w->rows + first, sum + from,
                       lanes * sizeof *sum);
            else
                memcpy(p->y + (row + i) * p->ldy + first, out + from, lanes * sizeof *out);
        }
    }
}

static void product_item(void *arg, size_t item)
{
    struct product *p = arg;
    _Alignas(WK_ALIGN) float out[WK_GROUP * WK_ROWS * WK_TILE];
    _Alignas(WK_ALIGN) int64_t sum[WK_GROUP * WK_ROWS * WK_TILE];
    bool quantised = wk_type_quantised(p->w->type);
    uint32_t tile = (uint32_t)item * p->group, tiles = (p->w->rows + WK_TILE - 1) / WK_TILE;
    struct wk_dot d = {
        .tile_bytes = wk_tile_bytes(p->w->type, p->w->cols),
        .ldx = quantised ? p->x->cols / WK_BLOCK : p->x->cols,
        .tiles = min_u32(p->group, tiles - tile),
        .cols = p->w->cols,
        .piece = p->piece,
        .sum = p->sum != NULL ? sum : NULL,
    };
    d.w = (const uint8_t *)p->w->data + tile * d.tile_bytes;
    for (uint32_t row = 0; row < p->x->n; row += d.n) {
        d.n = min_u32(WK_ROWS, p->x->n - row);
        if (quantised)
            d.q8 = (const struct wk_q8 *)p->x->q8 + row * d.ldx;
        else
            d.f32 = p->x->f32 + row * d.ldx;
        /* A padding lane fails only beside real ones: its weights are 0, so only an activation that
         * is not finite can spoil it, and that spoils every row. */
        if (!p->e->table->dot[p->w->type](&d, out))
            atomic_store_explicit(&p->failed, true, memory_order_relaxed);
        store(p, &d, row, tile * WK_TILE, out, sum);
    }
}

/* Float weights: several tiles at once, for enough chains of fma and few loads of activations.
 * Quantised ones: one, read from end to end. Small matrices are cut fine, so that every thread gets
 * its part. */
static void product_run(struct product *p)
{
    assert(p->x->cols == p->w->cols && (!wk_type_quantised(p->w->type) || p->x->quantised));
    uint32_t tiles = (p->w->rows + WK_TILE - 1) / WK_TILE;
    bool many = tiles >= WK_GROUP * 2 * wk_pool_threads(p->e->pool);
    p->group = many && !wk_type_quantised(p->w->type) ? WK_GROUP : 1;
    wk_pool_run(p->e->pool, product_item, p, (tiles + p->group - 1) / p->group);
}

size_t wk_matmul_scratch(const struct wk_engine *e, enum wk_type type, uint32_t n, uint32_t rows,
                         uint32_t cols)
{
    (void)rows;
    return wk_blas_wants(e, type, n) ? wk_blas_scratch(e, cols) : 0;
}

void wk_matmul(const struct wk_engine *e, const struct wk_matrix *w, const struct wk_act *x,
               float *y, size_t ldy, void *scratch)
{
    if (wk_blas_wants(e, w->type, x->n)) {
        wk_blas_matmul(e, w, x, y, ldy, scratch);
        return;
    }
    struct product p = {.e = e, .w = w, .x = x, .y = y, .ldy = ldy};
    product_run(&p);
}

/* OpenBLAS takes no part here: a piece is 64 to 256 columns, and each would be a product of its
 * own. */
bool wk_matmul_sum(const struct wk_engine *e, const struct wk_matrix *w, const struct wk_act *x,
                   uint32_t piece, int64_t *sum, void *scratch)
{
    (void)scratch;
    assert(piece > 0 && (piece % WK_BLOCK == 0 || piece >= w->cols));
    struct product p = {.e = e, .w = w, .x = x, .sum = sum, .piece = piece};
    product_run(&p);
    return !atomic_load_explicit(&p.failed, memory_order_relaxed);
}
