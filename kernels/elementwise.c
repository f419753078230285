/*
 * What a layer does element by element: norm, rotation, activation function, adding exact sums.
 * Rows and runs of elements are spread over the pool only where that takes longer than waking it.
 */
#include "kernels/math.h"
#include "kernels/table.h"

#include <stddef.h>

/* Elements worth another thread: 16384 take about 5 µs, as long as waking a worker. */
enum { RUN = 16384 };

float wk_exp(float x)
{
    return wk_exp_f32(x);
}

double wk_log(double x)
{
    return wk_log_f64(x);
}

bool wk_sum_add(const struct wk_engine *e, const int64_t *sum, float *x, size_t n)
{
    (void)e;
    for (size_t i = 0; i < n; i++) {
        if (sum[i] <= -(INT64_C(1) << 53) || sum[i] >= INT64_C(1)
                                                           << 53) /* 2^23 in units of 2^-30 */
            return false;
        x[i] += (float)((double)sum[i] * 0x1p-30);
    }
    return true;
}

/* ------------------------------------------------------------------ norm */

struct norm {
    const struct wk_engine *e;
    const float *x, *weight; /* [n, dim], [dim] */
    float eps;
    uint32_t n, dim, rows; /* rows of an item */
    float *y;
};

static void norm_rows(void *arg, size_t item)
{
    const struct norm *p = arg;
    for (size_t i = item * p->rows; i < (item + 1) * p->rows && i < p->n; i++) {
        const float *x = p->x + i * p->dim;
        float mean = p->e->table->square(x, p->dim) / (float)p->dim;
        p->e->table->scale(x, 1.0f / sqrtf(mean + p->eps), p->weight, p->y + i * p->dim, p->dim);
    }
}

void wk_rms_norm(const struct wk_engine *e, const float *x, const float *weight, float eps,
                 uint32_t n, uint32_t dim, float *y)
{
    struct norm p = {e, x, weight, eps, n, dim, RUN / (dim + 1) + 1, y};
    wk_pool_run(e->pool, norm_rows, &p, (n + (size_t)p.rows - 1) / p.rows);
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

/* Plain products and sums: the compiler may use any vectors for them, the bits stay. */
void wk_rope(const struct wk_engine *e, float *x, uint32_t n, uint32_t heads, uint32_t head_dim,
             uint32_t rope_dim, const float *cos_in, const float *sin_in)
{
    (void)e;
    uint32_t half = rope_dim / 2;
    for (uint32_t i = 0; i < n; i++, cos_in += half, sin_in += half) {
        for (uint32_t h = 0; h < heads; h++, x += head_dim) {
            for (uint32_t j = 0; j < half; j++) {
                float a = x[2 * j], b = x[2 * j + 1];
                x[2 * j] = a * cos_in[j] - b * sin_in[j];
                x[2 * j + 1] = a * sin_in[j] + b * cos_in[j];
            }
        }
    }
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
