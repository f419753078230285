/*
 * What a layer does element by element: rotation, activation function, adding exact sums.
 * Rows and runs of elements are spread over the pool only where that takes longer than waking it.
 */
#include "kernels/math.h"
#include "kernels/table.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

enum {
    RUN = 16384, /* elements worth another thread: about 5 µs, as long as waking a worker */
    PAIRS = 64,  /* of a rotation whose angles stay on the stack: whole heads of up to 128 */
};

float wk_exp(float x)
{
    return wk_exp_f32(x);
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

/* ------------------------------------------------------------------ rotation */

void wk_rope_angles(const int32_t *positions, uint32_t n, uint32_t rope_dim, float base,
                    const float *factors, float *cos_out, float *sin_out)
{
    uint32_t half = rope_dim / 2;
    for (uint32_t i = 0; i < half; i++) {
        double frequency = wk_pow_f64(base, -2.0 * i / rope_dim);
        if (factors != NULL)
            frequency /= factors[i];
        for (uint32_t j = 0; j < n; j++) {
            double s, c;
            wk_sincos_f64(positions[j] * frequency, &s, &c);
            cos_out[(size_t)j * half + i] = (float)c;
            sin_out[(size_t)j * half + i] = (float)s;
        }
    }
}

struct rope {
    float *x; /* [n, heads, head_dim] */
    uint32_t n, heads, head_dim, half;
    const float *cos, *sin; /* [n, half] */
    uint32_t rows;          /* of an item */
};

/* Four floats: every processor we know has vectors of that size, and the compiler makes do without.
 */
typedef float v4 __attribute__((vector_size(16)));

/* x[2j] * c - x[2j + 1] * s and x[2j] * s + x[2j + 1] * c for two pairs at once: each number times
 * its c, plus its neighbour times its s, which is -s for the first of a pair. */
static void rotate(float *x, const float *c, const float *s, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 4) {
        v4 v, vc, vs;
        memcpy(&v, x + i, sizeof v);
        memcpy(&vc, c + i, sizeof vc);
        memcpy(&vs, s + i, sizeof vs);
        v = v * vc + __builtin_shufflevector(v, v, 1, 0, 3, 2) * vs;
        memcpy(x + i, &v, sizeof v);
    }
}

/* Pairs [j, j + pairs) of all heads of a row; their angles are spread to pairs only once. */
static void rope_pairs(const struct rope *p, float *x, const float *cos_in, const float *sin_in,
                       uint32_t pairs)
{
    float c[2 * PAIRS], s[2 * PAIRS];
    for (uint32_t j = 0; j < pairs; j++) {
        c[2 * j] = c[2 * j + 1] = cos_in[j];
        s[2 * j] = -sin_in[j];
        s[2 * j + 1] = sin_in[j];
    }
    for (uint32_t h = 0; h < p->heads; h++, x += p->head_dim) {
        rotate(x, c, s, pairs / 2 * 4);
        if (pairs % 2 != 0) {
            float *last = x + 2 * (size_t)pairs - 2, a = last[0], b = last[1];
            last[0] = a * cos_in[pairs - 1] - b * sin_in[pairs - 1];
            last[1] = a * sin_in[pairs - 1] + b * cos_in[pairs - 1];
        }
    }
}

static void rope_rows(void *arg, size_t item)
{
    const struct rope *p = arg;
    for (size_t i = item * p->rows; i < (item + 1) * p->rows && i < p->n; i++)
        for (uint32_t j = 0; j < p->half; j += PAIRS)
            rope_pairs(p, p->x + i * p->heads * p->head_dim + 2 * (size_t)j,
                       p->cos + i * p->half + j, p->sin + i * p->half + j,
                       p->half - j < PAIRS ? p->half - j : PAIRS);
}

void wk_rope(const struct wk_engine *e, float *x, uint32_t n, uint32_t heads, uint32_t head_dim,
             uint32_t rope_dim, const float *cos_in, const float *sin_in)
{
    struct rope p = {x, n, heads, head_dim, rope_dim / 2, cos_in, sin_in, 0};
    p.rows = (uint32_t)(RUN / ((size_t)heads * head_dim + 1)) + 1;
    wk_pool_run(e->pool, rope_rows, &p, (n + (size_t)p.rows - 1) / p.rows);
}

/* ------------------------------------------------------------------ activation function */

struct swiglu {
    const struct wk_engine *e;
    const float *gate, *up;
    float *out;
    size_t n;
};

static void swiglu_run(void *arg, size_t item)
{
    const struct swiglu *p = arg;
    size_t at = item * RUN, n = p->n - at < RUN ? p->n - at : RUN;
    p->e->table->swiglu(p->gate + at, p->up + at, p->out + at, n);
}

void wk_swiglu(const struct wk_engine *e, const float *gate, const float *up, float *out, size_t n)
{
    struct swiglu p = {e, gate, up, out, n};
    wk_pool_run(e->pool, swiglu_run, &p, (n + RUN - 1) / RUN);
}
