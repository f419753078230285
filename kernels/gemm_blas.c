/*
 * OpenBLAS for float weights and many rows (`gemm: openblas`). Panels of tiles are unpacked to f32
 * and multiplied by single-threaded sgemm, one panel per thread at a time. The order of its sums is
 * its own, so these products agree with ref within rounding only. The only file that includes
 * cblas.h.
 */
#include "kernels/f16.h"
#include "kernels/table.h"

#include <cblas.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum {
    PANEL_TILES = 16, /* 256 rows: wide enough for sgemm, and a panel of */
    PANEL_COLS = 512, /* 512 columns (512 KiB) stays in a second-level cache */
    PANEL_WIDTH = PANEL_TILES * WK_TILE,
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void single_thread(void)
{
    openblas_set_num_threads(1); /* the pool is ours */
}

/* Which tables have a blas_rows, measured on a Zen 5 core (2048 x 2048, GOP/s, Debian's OpenBLAS
 * 0.3.21, which uses AVX2 there; tests/bench_kernels.c prints it): OpenBLAS 69, 81, 86, 98, 105
 * with 32, 48, 64, 128, 512 rows; our AVX2 loops 82 to 87 with any of them, our AVX-512 loops 195
 * to 220. So AVX2 gives way from 64 rows on and AVX-512 never; NEON, like AVX2, has 16 lanes in
 * registers that OpenBLAS uses as well. ref is no loop to be fast. */
bool wk_blas_wants(const struct wk_engine *e, enum wk_type type, uint32_t n)
{
    return e->gemm == WK_GEMM_OPENBLAS && !wk_type_quantised(type) && e->table->blas_rows > 0 &&
           n >= e->table->blas_rows;
}

size_t wk_blas_scratch(const struct wk_engine *e, uint32_t cols)
{
    size_t panel = (size_t)(cols < PANEL_COLS ? cols : PANEL_COLS) * PANEL_WIDTH * sizeof(float);
    return panel * wk_pool_threads(e->pool);
}

struct blas {
    const struct wk_engine *e;
    const struct wk_matrix *w;
    const struct wk_act *x;
    float *y;
    size_t ldy;
    float *scratch; /* [threads, cols of a panel, PANEL_WIDTH] */
    atomic_uint next;
};

/* Columns [col, col + cols) of `tiles` tiles into b [cols, PANEL_WIDTH]. */
static void unpack(const struct blas *p, uint32_t tile, uint32_t tiles, uint32_t col, uint32_t cols,
                   float *b)
{
    size_t size = p->w->type == WK_F32 ? sizeof(float) : sizeof(uint16_t);
    for (uint32_t t = 0; t < tiles; t++) {
        const uint8_t *w = (const uint8_t *)p->w->data +
                           (tile + t) * wk_tile_bytes(p->w->type, p->w->cols) +
                           (size_t)col * WK_TILE * size;
        for (uint32_t c = 0; c < cols; c++, w += WK_TILE * size) {
            float *to = b + (size_t)c * PANEL_WIDTH + (size_t)t * WK_TILE;
            const uint16_t *halves = (const uint16_t *)(const void *)w;
            if (p->w->type == WK_F32)
                memcpy(to, w, WK_TILE * sizeof *to);
            else if (p->w->type == WK_F16)
                p->e->table->widen(halves, to, WK_TILE);
            else
                for (unsigned r = 0; r < WK_TILE; r++)
                    to[r] = wk_from_bits((uint32_t)halves[r] << 16);
        }
    }
}

/* Item i owns scratch i and takes panels until none is left. */
static void blas_item(void *arg, size_t item)
{
    struct blas *p = arg;
    uint32_t cols = p->w->cols, rows = p->w->rows, tiles = (rows + WK_TILE - 1) / WK_TILE;
    float *b = p->scratch + item * (size_t)(cols < PANEL_COLS ? cols : PANEL_COLS) * PANEL_WIDTH;
    for (;;) {
        uint32_t tile = atomic_fetch_add(&p->next, 1) * PANEL_TILES;
        if (tile >= tiles)
            return;
        uint32_t first = tile * WK_TILE, n_tiles = tiles - tile, width = rows - first;
        n_tiles = n_tiles < PANEL_TILES ? n_tiles : PANEL_TILES;
        width = width < PANEL_WIDTH ? width : PANEL_WIDTH;
        for (uint32_t c = 0; c < cols; c += PANEL_COLS) {
            uint32_t n = cols - c < PANEL_COLS ? cols - c : PANEL_COLS;
            unpack(p, tile, n_tiles, c, n, b);
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)p->x->n, (blasint)width,
                        (blasint)n, 1, p->x->f32 + c, (blasint)cols, b, PANEL_WIDTH, c > 0 ? 1 : 0,
                        p->y + first, (blasint)p->ldy);
        }
    }
}

void wk_blas_matmul(const struct wk_engine *e, const struct wk_matrix *w, const struct wk_act *x,
                    float *y, size_t ldy, void *scratch)
{
    pthread_once(&once, single_thread);
    struct blas p = {.e = e, .w = w, .x = x, .y = y, .ldy = ldy, .scratch = scratch};
    wk_pool_run(e->pool, blas_item, &p, wk_pool_threads(e->pool));
}
