/*
 * Rows of activations in the forms that weights want: f32 as they are, or 8-bit blocks. A norm is
 * quantised as it is made, a stretch of columns at a time, so that its f32 never reach memory
 * unless a float matrix wants them. Runs on the caller, and on its pool where the rows are worth
 * waking it.
 */
#include "kernels/table.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    RUN = 16384,   /* elements worth another thread: about 5 µs, as long as waking a worker */
    STRETCH = 512, /* columns of a norm on their way to 8 bits; whole blocks */
};

size_t wk_act_bytes(uint32_t n, uint32_t cols)
{
    return (size_t)n * ((cols + (size_t)WK_BLOCK - 1) / WK_BLOCK) * sizeof(struct wk_q8);
}

/* The last block is filled with zeros. */
static void quantise(const struct wk_table *table, const float *x, uint32_t cols, struct wk_q8 *out)
{
    uint32_t whole = cols / WK_BLOCK, rest = cols % WK_BLOCK;
    table->quantise(x, whole, out);
    if (rest != 0) {
        float block[WK_BLOCK] = {0};
        memcpy(block, x + (size_t)whole * WK_BLOCK, rest * sizeof *x);
        table->quantise(block, 1, out + whole);
    }
}

/* ------------------------------------------------------------------ rows as they are */

struct rows {
    const struct wk_table *table;
    const float *x; /* [n, cols] */
    uint32_t n, cols;
    uint32_t rows;       /* of an item */
    struct wk_q8 *q8;    /* NULL: not wanted */
    const float *weight; /* [cols] of the norm, */
    float eps, *normed;  /* which goes to normed [n, cols] unless that is NULL */
};

static void quantise_rows(void *arg, size_t item)
{
    const struct rows *p = arg;
    size_t blocks = wk_act_bytes(1, p->cols) / sizeof *p->q8;
    for (size_t i = item * p->rows; i < (item + 1) * p->rows && i < p->n; i++)
        quantise(p->table, p->x + i * p->cols, p->cols, p->q8 + i * blocks);
}

static void run_rows(const struct wk_engine *e, struct rows *p, void (*fn)(void *, size_t))
{
    p->table = e->table;
    p->rows = RUN / (p->cols + 1) + 1;
    wk_pool_run(e->pool, fn, p, (p->n + (size_t)p->rows - 1) / p->rows);
}

void wk_act_set(const struct wk_engine *e, struct wk_act *act, const float *x, uint32_t n,
                uint32_t cols, void *q8_or_null)
{
    *act = (struct wk_act){
        .n = n, .cols = cols, .f32 = x, .q8 = q8_or_null, .quantised = q8_or_null != NULL};
    struct rows p = {.x = x, .n = n, .cols = cols, .q8 = q8_or_null};
    if (q8_or_null != NULL)
        run_rows(e, &p, quantise_rows);
}

void wk_act_gather(const struct wk_act *x, const uint32_t *row, uint32_t n, struct wk_act *ret,
                   float *f32_or_null, void *q8_or_null)
{
    const size_t floats = x->cols, bytes = wk_act_bytes(1, x->cols);
    float *f32 = x->f32 != NULL ? f32_or_null : NULL;
    uint8_t *q8 = x->quantised ? q8_or_null : NULL;
    *ret = (struct wk_act){.n = n, .cols = x->cols, .f32 = f32, .q8 = q8, .quantised = q8 != NULL};
    for (size_t i = 0; i < n; i++) {
        assert(row[i] < x->n);
        if (f32 != NULL)
            memcpy(f32 + i * floats, x->f32 + row[i] * floats, floats * sizeof *f32);
        if (q8 != NULL)
            memcpy(q8 + i * bytes, (const uint8_t *)x->q8 + row[i] * bytes, bytes);
    }
}

/* ------------------------------------------------------------------ norm */

static void norm_row(const struct rows *p, size_t i, struct wk_q8 *q8)
{
    const float *x = p->x + i * p->cols;
    float mean = p->table->square(x, p->cols) / (float)p->cols;
    float by = 1.0f / sqrtf(mean + p->eps), y[STRETCH];
    if (p->normed != NULL) {
        float *normed = p->normed + i * p->cols;
        p->table->scale(x, by, p->weight, normed, p->cols);
        if (q8 != NULL)
            quantise(p->table, normed, p->cols, q8);
        return;
    }
    for (uint32_t c = 0; c < p->cols; c += STRETCH) {
        uint32_t n = p->cols - c < STRETCH ? p->cols - c : STRETCH;
        p->table->scale(x + c, by, p->weight + c, y, n);
        quantise(p->table, y, n, q8 + c / WK_BLOCK);
    }
}

static void norm_rows(void *arg, size_t item)
{
    const struct rows *p = arg;
    size_t blocks = wk_act_bytes(1, p->cols) / sizeof *p->q8;
    for (size_t i = item * p->rows; i < (item + 1) * p->rows && i < p->n; i++)
        norm_row(p, i, p->q8 != NULL ? p->q8 + i * blocks : NULL);
}

void wk_act_norm(const struct wk_engine *e, struct wk_act *act, const float *x, const float *weight,
                 float eps, uint32_t n, uint32_t cols, float *f32_or_null, void *q8_or_null)
{
    *act = (struct wk_act){.n = n,
                           .cols = cols,
                           .f32 = f32_or_null,
                           .q8 = q8_or_null,
                           .quantised = q8_or_null != NULL};
    struct rows p = {.x = x,
                     .n = n,
                     .cols = cols,
                     .q8 = q8_or_null,
                     .weight = weight,
                     .eps = eps,
                     .normed = f32_or_null};
    if (f32_or_null != NULL || q8_or_null != NULL)
        run_rows(e, &p, norm_rows);
}

void wk_rms_norm(const struct wk_engine *e, const float *x, const float *weight, float eps,
                 uint32_t n, uint32_t dim, float *y)
{
    struct wk_act act;
    wk_act_norm(e, &act, x, weight, eps, n, dim, y, NULL);
}
