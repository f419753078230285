/*
 * Products of packed matrices: cuts the work into runs of tiles for the pool and hands each run to
 * the table's inner loop; what follows a product (sums, activation function, the residual) is done
 * while its results lie on the stack. Every element is computed whole by one thread, so the cut
 * never shows in the result. Runs on the caller and its pool.
 */
#include "kernels/table.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

enum {
    ITEMS = 32,   /* for each thread: uneven threads end within 3 % of each other */
    FEW_ROWS = 8, /* up to these a tile is read faster than an item is taken */
    RESULTS = WK_GROUP * WK_ROWS * WK_TILE,
};

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static size_t align(size_t bytes)
{
    return (bytes + WK_ALIGN - 1) / WK_ALIGN * WK_ALIGN;
}

static uint32_t tiles_of(const struct wk_matrix *w)
{
    return (w->rows + WK_TILE - 1) / WK_TILE;
}

/* Tiles [tile, tile + tiles) of w and the rows of x from `row` on, WK_ROWS at most. */
static struct wk_dot dot_of(const struct wk_matrix *w, const struct wk_act *x, uint32_t tile,
                            uint32_t tiles, uint32_t row)
{
    bool quantised = wk_type_quantised(w->type);
    struct wk_dot d = {
        .tile_bytes = wk_tile_bytes(w->type, w->cols),
        .ldx = quantised ? w->cols / WK_BLOCK : w->cols,
        .tiles = tiles,
        .n = min_u32(WK_ROWS, x->n - row),
        .cols = w->cols,
        .cold = row == 0,
    };
    d.w = (const uint8_t *)w->data + tile * d.tile_bytes;
    if (quantised)
        d.q8 = (const struct wk_q8 *)x->q8 + row * d.ldx;
    else
        d.f32 = x->f32 + row * d.ldx;
    return d;
}

static void check(const struct wk_matrix *w, const struct wk_act *x)
{
    assert(x->cols == w->cols);
    assert(wk_type_quantised(w->type) ? x->quantised : x->f32 != NULL);
}

/* Tiles of an item when there are `tiles` in all. With many rows one tile is work enough; with few
 * a run of neighbours is, which is read from end to end. */
static uint32_t item_tiles(const struct wk_engine *e, size_t tiles, uint32_t n)
{
    size_t share = tiles / ((size_t)ITEMS * wk_pool_threads(e->pool));
    return n > FEW_ROWS || share < 1 ? 1 : (uint32_t)share;
}

/* Tiles of float weights are multiplied several at once, for enough chains of fma and few loads of
 * activations, unless that leaves threads without work. Quantised ones are read one after another.
 */
static uint32_t tiles_at_once(const struct wk_engine *e, const struct wk_matrix *w)
{
    bool many = tiles_of(w) >= WK_GROUP * 2 * wk_pool_threads(e->pool);
    return many && !wk_type_quantised(w->type) ? WK_GROUP : 1;
}

/* ------------------------------------------------------------------ plain products */

struct many {
    const struct wk_engine *e;
    const struct wk_act *x;
    struct part {
        const struct wk_product *product;
        uint32_t step, item; /* tiles at once, tiles of an item */
        size_t items;
    } part[WK_PRODUCTS_MAX];
};

/* Rows [row, row + d->n) of the tiles from `tile` on. */
static void store(const struct wk_product *p, const struct wk_dot *d, uint32_t tile, uint32_t row,
                  const float *out)
{
    for (uint32_t t = 0; t < d->tiles; t++) {
        uint32_t first = (tile + t) * WK_TILE, lanes = min_u32(WK_TILE, p->w->rows - first);
        for (uint32_t i = 0; i < d->n; i++, out += WK_TILE)
            memcpy(p->y + (row + i) * p->ldy + first, out, lanes * sizeof *out);
    }
}

static void many_item(void *arg, size_t item)
{
    const struct many *p = arg;
    const struct part *part = p->part;
    for (; item >= part->items; part++)
        item -= part->items;
    const struct wk_matrix *w = part->product->w;
    uint32_t tile = (uint32_t)item * part->item, end = min_u32(tile + part->item, tiles_of(w));
    _Alignas(WK_ALIGN) float out[RESULTS];
    for (uint32_t tiles; tile < end; tile += tiles) {
        tiles = min_u32(part->step, end - tile);
        for (uint32_t row = 0; row < p->x->n; row += WK_ROWS) {
            struct wk_dot d = dot_of(w, p->x, tile, tiles, row);
            p->e->table->dot[w->type](&d, out);
            store(part->product, &d, tile, row, out);
        }
    }
}

size_t wk_matmul_scratch(const struct wk_engine *e, enum wk_type type, uint32_t n, uint32_t rows,
                         uint32_t cols)
{
    (void)rows;
    return wk_blas_wants(e, type, n) ? wk_blas_scratch(e, cols) : 0;
}

void wk_matmul_many(const struct wk_engine *e, const struct wk_product *products, size_t n_products,
                    const struct wk_act *x, void *scratch)
{
    struct many p = {.e = e, .x = x};
    size_t tiles = 0, items = 0, n = 0;
    assert(n_products <= WK_PRODUCTS_MAX);
    for (size_t i = 0; i < n_products; i++) {
        const struct wk_product *product = &products[i];
        check(product->w, x);
        if (wk_blas_wants(e, product->w->type, x->n)) {
            wk_blas_matmul(e, product->w, x, product->y, product->ldy, scratch);
            continue;
        }
        p.part[n++] = (struct part){.product = product, .step = tiles_at_once(e, product->w)};
        tiles += tiles_of(product->w);
    }
    for (struct part *part = p.part; part < p.part + n; part++) {
        part->item = item_tiles(e, tiles, x->n);
        if (part->item < part->step)
            part->item = part->step;
        part->items = (tiles_of(part->product->w) + (size_t)part->item - 1) / part->item;
        items += part->items;
    }
    wk_pool_run(e->pool, many_item, &p, items);
}

void wk_matmul(const struct wk_engine *e, const struct wk_matrix *w, const struct wk_act *x,
               float *y, size_t ldy, void *scratch)
{
    wk_matmul_many(e, &(struct wk_product){w, y, ldy}, 1, x, scratch);
}

/* ------------------------------------------------------------------ gate, up, activation */

/* A unit is what becomes one block of the result: UNIT tiles of gate and of up. */
enum { UNIT = WK_BLOCK / WK_TILE };

struct glu {
    const struct wk_engine *e;
    const struct wk_glu *g;
    const struct wk_act *x;
    uint32_t units;   /* of an item */
    float *f32;       /* [n, rows], or NULL */
    struct wk_q8 *q8; /* blocks of the same, or NULL */
};

/* Adds the biases of `cols` rows of a matrix to lanes [tiles, n, WK_TILE]; bias may be NULL. */
static void add_biases(float *lane, const float *bias, uint32_t cols, uint32_t n)
{
    for (uint32_t first = 0; bias != NULL && first < cols; first += WK_TILE)
        for (uint32_t i = 0; i < n; i++, lane += WK_TILE)
            for (uint32_t r = 0; r < min_u32(WK_TILE, cols - first); r++)
                lane[r] += bias[first + r];
}

static const float *bias_from(const float *bias, uint32_t first)
{
    return bias != NULL ? bias + first : NULL;
}

/* One unit for rows [row, row + n) of x: lanes in gate and up [tiles, n, WK_TILE]. */
static void store_unit(const struct glu *p, uint32_t unit, uint32_t tiles, uint32_t row, uint32_t n,
                       float *gate, float *up)
{
    const uint32_t rows = p->g->gate->rows, first = unit * WK_BLOCK,
                   cols = min_u32(WK_BLOCK, rows - first);
    const size_t blocks = wk_act_bytes(1, rows) / sizeof *p->q8;
    add_biases(gate, bias_from(p->g->gate_bias, first), cols, n);
    add_biases(up, bias_from(p->g->up_bias, first), cols, n);
    p->e->table->glu[p->g->activation](gate, up, gate, (size_t)tiles * n * WK_TILE);
    for (uint32_t i = 0; i < n; i++) {
        float block[WK_BLOCK] = {0}; /* what padding lanes hold is left out */
        for (uint32_t t = 0; t < tiles; t++)
            memcpy(block + (size_t)t * WK_TILE, gate + (size_t)(t * n + i) * WK_TILE,
                   min_u32(WK_TILE, cols - t * WK_TILE) * sizeof *block);
        if (p->f32 != NULL)
            memcpy(p->f32 + (size_t)(row + i) * rows + first, block, cols * sizeof *block);
        if (p->q8 != NULL)
            p->e->table->quantise(block, 1, p->q8 + (row + i) * blocks + unit);
    }
}

static void glu_item(void *arg, size_t item)
{
    const struct glu *p = arg;
    const struct wk_matrix *w[] = {p->g->gate, p->g->up};
    _Alignas(WK_ALIGN) float out[2][UNIT * WK_ROWS * WK_TILE];
    uint32_t tiles = tiles_of(w[0]), unit = (uint32_t)item * p->units;
    for (uint32_t end = unit + p->units; unit < end && unit * UNIT < tiles; unit++) {
        uint32_t width = min_u32(UNIT, tiles - unit * UNIT);
        for (uint32_t row = 0, n; row < p->x->n; row += n) {
            for (unsigned k = 0; k < 2; k++) {
                struct wk_dot d = dot_of(w[k], p->x, unit * UNIT, width, row);
                n = d.n;
                p->e->table->dot[w[k]->type](&d, out[k]);
            }
            store_unit(p, unit, width, row, n, out[0], out[1]);
        }
    }
}

/* OpenBLAS, which multiplies whole matrices only, needs room for up beside the result. */
size_t wk_glu_scratch(const struct wk_engine *e, enum wk_type type, uint32_t n, uint32_t rows,
                      uint32_t cols)
{
    if (!wk_blas_wants(e, type, n))
        return 0;
    return align((size_t)n * rows * sizeof(float)) + wk_blas_scratch(e, cols);
}

static void glu_blas(const struct glu *p, void *scratch)
{
    const struct wk_glu *g = p->g;
    uint32_t n = p->x->n, rows = g->gate->rows;
    void *rest = (uint8_t *)scratch + align((size_t)n * rows * sizeof(float));
    wk_blas_matmul(p->e, g->gate, p->x, p->f32, rows, rest);
    wk_blas_matmul(p->e, g->up, p->x, scratch, rows, rest);
    if (g->gate_bias != NULL)
        wk_add_bias(p->e, p->f32, n, rows, rows, g->gate_bias);
    if (g->up_bias != NULL)
        wk_add_bias(p->e, scratch, n, rows, rows, g->up_bias);
    wk_glu(p->e, g->activation, p->f32, scratch, p->f32, (size_t)n * rows);
}

void wk_act_glu(const struct wk_engine *e, struct wk_act *act, const struct wk_glu *g,
                const struct wk_act *x, float *f32_or_null, void *q8_or_null, void *scratch)
{
    struct glu p = {.e = e, .g = g, .x = x, .f32 = f32_or_null, .q8 = q8_or_null};
    const uint32_t rows = g->gate->rows, units = (tiles_of(g->gate) + UNIT - 1) / UNIT;
    check(g->gate, x);
    check(g->up, x);
    assert(g->up->rows == rows);
    if (wk_blas_wants(e, g->gate->type, x->n) && wk_blas_wants(e, g->up->type, x->n) &&
        p.f32 != NULL) {
        glu_blas(&p, scratch);
        wk_act_set(e, act, p.f32, x->n, rows, q8_or_null);
        return;
    }
    p.units = item_tiles(e, units, x->n);
    wk_pool_run(e->pool, glu_item, &p, (units + (size_t)p.units - 1) / p.units);
    *act = (struct wk_act){.n = x->n,
                           .cols = rows,
                           .f32 = f32_or_null,
                           .q8 = q8_or_null,
                           .quantised = q8_or_null != NULL};
}

/* ------------------------------------------------------------------ exact sums */

/* What failed anywhere: bits. */
enum { PIECE = 1, TOTAL = 2 };

struct sums {
    const struct wk_engine *e;
    const struct wk_matrix *w;
    const struct wk_act *x;
    uint32_t piece, step, item; /* columns of a piece, tiles at once and of an item */
    int64_t *sum;               /* [.., rows]: set, or with `add` added to; or NULL and */
    float *residual;            /* [n, rows] */
    bool add;
    const uint32_t *row; /* [n]: the row of sum that each goes to; NULL: its own */
    const float *weight; /* [n], or NULL */
    atomic_uint failed;
};

/* A sum of too many pieces wraps around; a total beyond its limit is not ours to find. */
static void add_sums(int64_t *to, const int64_t *sum, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = (int64_t)((uint64_t)to[i] + (uint64_t)sum[i]);
}

/* Where the sums go. */
static bool deliver(const struct sums *p, const struct wk_dot *d, uint32_t tile, uint32_t row,
                    const int64_t *sum)
{
    bool ok = true;
    for (uint32_t t = 0; t < d->tiles; t++) {
        uint32_t first = (tile + t) * WK_TILE, lanes = min_u32(WK_TILE, p->w->rows - first);
        for (uint32_t i = 0; i < d->n; i++, sum += WK_TILE) {
            size_t to = p->row != NULL ? p->row[row + i] : row + i;
            size_t at = to * p->w->rows + first;
            if (p->add)
                add_sums(p->sum + at, sum, lanes);
            else if (p->sum != NULL)
                memcpy(p->sum + at, sum, lanes * sizeof *sum);
            else
                ok = p->e->table->sum_add(sum, p->residual + at, lanes) && ok;
        }
    }
    return ok;
}

static void sum_item(void *arg, size_t item)
{
    struct sums *p = arg;
    _Alignas(WK_ALIGN) int64_t sum[RESULTS];
    uint32_t tile = (uint32_t)item * p->item, end = min_u32(tile + p->item, tiles_of(p->w));
    unsigned failed = 0;
    for (uint32_t tiles; tile < end; tile += tiles) {
        tiles = min_u32(p->step, end - tile);
        for (uint32_t row = 0; row < p->x->n; row += WK_ROWS) {
            struct wk_dot d = dot_of(p->w, p->x, tile, tiles, row);
            d.piece = p->piece;
            d.sum = sum;
            d.weight = p->weight != NULL ? p->weight + row : NULL;
            /* A padding lane fails only beside real ones: its weights are 0, so only an activation
             * that is not finite can spoil it, and that spoils every row. */
            if (!p->e->table->dot[p->w->type](&d, NULL))
                failed |= PIECE;
            if (!deliver(p, &d, tile, row, sum))
                failed |= TOTAL;
        }
    }
    if (failed != 0)
        atomic_fetch_or_explicit(&p->failed, failed, memory_order_relaxed);
}

/* OpenBLAS takes no part here: a piece is 64 to 256 columns, and each would be a product of its
 * own. */
static unsigned sums_run(struct sums *p)
{
    assert(p->piece > 0 && (p->piece % WK_BLOCK == 0 || p->piece >= p->w->cols));
    check(p->w, p->x);
    uint32_t tiles = tiles_of(p->w);
    p->step = tiles_at_once(p->e, p->w);
    p->item = item_tiles(p->e, tiles, p->x->n);
    if (p->item < p->step)
        p->item = p->step;
    wk_pool_run(p->e->pool, sum_item, p, (tiles + (size_t)p->item - 1) / p->item);
    return atomic_load_explicit(&p->failed, memory_order_relaxed);
}

bool wk_matmul_sum(const struct wk_engine *e, const struct wk_matrix *w, const struct wk_act *x,
                   uint32_t piece, int64_t *sum, void *scratch)
{
    (void)scratch;
    struct sums p = {.e = e, .w = w, .x = x, .piece = piece, .sum = sum};
    return sums_run(&p) == 0;
}

bool wk_matmul_sum_rows(const struct wk_engine *e, const struct wk_matrix *w,
                        const struct wk_act *x, uint32_t piece, const uint32_t *row,
                        const float *weight, int64_t *sum)
{
    struct sums p = {.e = e,
                     .w = w,
                     .x = x,
                     .piece = piece,
                     .sum = sum,
                     .add = true,
                     .row = row,
                     .weight = weight};
    return sums_run(&p) == 0;
}

enum wk_sum_fault wk_matmul_add(const struct wk_engine *e, const struct wk_matrix *w,
                                const struct wk_act *x, uint32_t piece, float *residual)
{
    struct sums p = {.e = e, .w = w, .x = x, .piece = piece, .residual = residual};
    unsigned failed = sums_run(&p);
    return (failed & PIECE) != 0 ? WK_SUM_PIECE : failed != 0 ? WK_SUM_TOTAL : WK_SUM_OK;
}
