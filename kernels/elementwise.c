/*
 * What a layer does element by element: exact sums, activation function, bias, scale, soft cap.
 * Rows and runs of elements are spread over the pool only where that takes longer than waking it.
 */
#include "kernels/math.h"
#include "kernels/table.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

enum {
    RUN = 16384, /* elements worth another thread: about 5 µs, as long as waking a worker */
};

float wk_exp(float x)
{
    return wk_exp_f32(x);
}

float wk_tanh(float x)
{
    return wk_tanh_f32(x);
}

double wk_log(double x)
{
    return wk_log_f64(x);
}

/* ------------------------------------------------------------------ exact sums */

struct sums {
    const struct wk_engine *e;
    const int64_t *sum;
    float *x;
    size_t n;
    atomic_bool failed;
};

static void sum_add_run(void *arg, size_t item)
{
    struct sums *p = arg;
    size_t at = item * RUN, n = p->n - at < RUN ? p->n - at : RUN;
    if (!p->e->table->sum_add(p->sum + at, p->x + at, n))
        atomic_store_explicit(&p->failed, true, memory_order_relaxed);
}

bool wk_sum_add(const struct wk_engine *e, const int64_t *sum, float *x, size_t n)
{
    struct sums p = {.e = e, .sum = sum, .x = x, .n = n};
    wk_pool_run(e->pool, sum_add_run, &p, (n + RUN - 1) / RUN);
    return !atomic_load_explicit(&p.failed, memory_order_relaxed);
}

static void sum_get_run(void *arg, size_t item)
{
    struct sums *p = arg;
    size_t at = item * RUN, n = p->n - at < RUN ? p->n - at : RUN;
    memset(p->x + at, 0, n * sizeof *p->x); /* 0 and a sum are the sum */
    sum_add_run(arg, item);
}

bool wk_sum_get(const struct wk_engine *e, const int64_t *sum, float *y, size_t n)
{
    struct sums p = {.e = e, .sum = sum, .x = y, .n = n};
    wk_pool_run(e->pool, sum_get_run, &p, (n + RUN - 1) / RUN);
    return !atomic_load_explicit(&p.failed, memory_order_relaxed);
}

/* ------------------------------------------------------------------ activation function */

struct glu {
    const struct wk_engine *e;
    enum wk_activation activation;
    const float *gate, *up;
    float *out;
    size_t n;
};

static void glu_run(void *arg, size_t item)
{
    const struct glu *p = arg;
    size_t at = item * RUN, n = p->n - at < RUN ? p->n - at : RUN;
    p->e->table->glu[p->activation](p->gate + at, p->up + at, p->out + at, n);
}

void wk_glu(const struct wk_engine *e, enum wk_activation activation, const float *gate,
            const float *up, float *out, size_t n)
{
    struct glu p = {e, activation, gate, up, out, n};
    wk_pool_run(e->pool, glu_run, &p, (n + RUN - 1) / RUN);
}

/* ------------------------------------------------------------------ bias and scale */

struct biased {
    float *y; /* [n, cols], row stride ldy */
    uint32_t n, cols;
    size_t ldy;
    const float *bias;
    uint32_t rows; /* of an item */
};

static void add_bias_rows(void *arg, size_t item)
{
    const struct biased *p = arg;
    for (size_t i = item * p->rows; i < (item + 1) * p->rows && i < p->n; i++) {
        float *y = p->y + i * p->ldy;
        for (uint32_t c = 0; c < p->cols; c++)
            y[c] += p->bias[c];
    }
}

void wk_add_bias(const struct wk_engine *e, float *y, uint32_t n, uint32_t cols, size_t ldy,
                 const float *bias)
{
    struct biased p = {y, n, cols, ldy, bias, RUN / (cols + 1) + 1};
    wk_pool_run(e->pool, add_bias_rows, &p, (n + (size_t)p.rows - 1) / p.rows);
}

struct scaled {
    float *x;
    const float *y; /* of wk_add_scaled */
    size_t n;
    float by;
};

static void scale_run(void *arg, size_t item)
{
    const struct scaled *p = arg;
    const size_t end = p->n - item * RUN < RUN ? p->n : (item + 1) * RUN;
    for (size_t i = item * RUN; i < end; i++)
        p->x[i] *= p->by;
}

static void add_scaled_run(void *arg, size_t item)
{
    const struct scaled *p = arg;
    const size_t end = p->n - item * RUN < RUN ? p->n : (item + 1) * RUN;
    for (size_t i = item * RUN; i < end; i++)
        p->x[i] += p->y[i] * p->by;
}

void wk_scale(const struct wk_engine *e, float *x, size_t n, float by)
{
    struct scaled p = {.x = x, .n = n, .by = by};
    wk_pool_run(e->pool, scale_run, &p, (n + RUN - 1) / RUN);
}

void wk_add_scaled(const struct wk_engine *e, float *x, const float *y, size_t n, float by)
{
    struct scaled p = {.x = x, .y = y, .n = n, .by = by};
    wk_pool_run(e->pool, add_scaled_run, &p, (n + RUN - 1) / RUN);
}

/* ------------------------------------------------------------------ soft cap */

struct softcap {
    const struct wk_engine *e;
    float *x, cap;
    size_t n;
};

static void softcap_run(void *arg, size_t item)
{
    const struct softcap *p = arg;
    size_t at = item * RUN, n = p->n - at < RUN ? p->n - at : RUN;
    p->e->table->softcap(p->x + at, 1, p->cap, n);
}

void wk_softcap(const struct wk_engine *e, float *x, size_t n, float cap)
{
    struct softcap p = {e, x, cap, n};
    wk_pool_run(e->pool, softcap_run, &p, (n + RUN - 1) / RUN);
}
