/*
 * Rotary position embedding: frequencies, angles, rotation. Frequencies and angles are made in f64
 * with pow, log, sin and cos of our own, so that every machine turns by the same bits; a rotation
 * is four products, a difference and a sum of f32. Runs on the caller; rotation of many rows on
 * its pool too.
 */
#include "kernels/math.h"
#include "kernels/table.h"

#include <stddef.h>
#include <string.h>

enum {
    RUN = 16384, /* elements worth another thread: about 5 µs, as long as waking a worker */
    PAIRS = 64,  /* of a rotation whose angles stay on the stack: whole heads of up to 128 */
};

/* ------------------------------------------------------------------ frequencies */

/* The pair, as a number with a fraction, that turns `turns` times in `context` positions: i of
 * context * base^(-2i / dim) = 2 pi turns. */
static double pair_of_turns(const struct wk_rope_spec *s, double turns)
{
    const double tau = 0x1.921fb54442d18p2; /* 2 pi */
    return s->rope_dim * wk_log_f64((double)s->original_context / (turns * tau)) /
           (2 * wk_log_f64((double)s->base));
}

/* Pairs up to `low` keep their frequency, those from `high` on are slowed down. */
struct ramp {
    double low, high;
};

/* Rounded outwards to whole pairs, and held to [0, rope_dim - 1] like the published ones (to
 * rope_dim - 1 though there are half as many pairs: the slope depends on it). */
static struct ramp yarn_ramp(const struct wk_rope_spec *s)
{
    struct ramp r = {floor(pair_of_turns(s, (double)s->beta_fast)),
                     ceil(pair_of_turns(s, (double)s->beta_slow))};
    const double last = (double)s->rope_dim - 1;
    r.low = r.low > 0 ? r.low : 0;
    r.high = r.high < last ? r.high : last;
    return r;
}

/* How much of pair i's own frequency stays: from 1 before the ramp to 0 behind it. */
static double stays(const struct ramp *r, double i)
{
    const double least = 0.001, width = r->high - r->low; /* as published: no division by 0 */
    const double y = (i - r->low) / (width > least ? width : least);
    return 1 - (y < 0 ? 0 : y > 1 ? 1 : y);
}

void wk_rope_frequencies(const struct wk_rope_spec *s, double *frequency)
{
    const struct ramp ramp = s->scaling == WK_ROPE_YARN ? yarn_ramp(s) : (struct ramp){0};
    for (uint32_t i = 0; i < s->rope_dim / 2; i++) {
        double f = wk_pow_f64((double)s->base, -2.0 * i / s->rope_dim), own;
        if (s->factors != NULL)
            f /= (double)s->factors[i];
        switch (s->scaling) {
        case WK_ROPE_PLAIN:
            break;
        case WK_ROPE_LINEAR:
            f /= (double)s->factor;
            break;
        case WK_ROPE_YARN:
            own = stays(&ramp, i) * (double)s->extrapolation;
            f = f / (double)s->factor * (1 - own) + f * own;
            break;
        }
        frequency[i] = f;
    }
}

float wk_yarn_magnitude(float factor)
{
    return factor > 1 ? (float)(1 + 0.1 * wk_log_f64((double)factor)) : 1;
}

void wk_rope_angles(const int32_t *positions, uint32_t n, uint32_t pairs, const double *frequency,
                    float magnitude, float *cos_out, float *sin_out)
{
    for (uint32_t j = 0; j < n; j++)
        for (uint32_t i = 0; i < pairs; i++) {
            double s, c;
            wk_sincos_f64(positions[j] * frequency[i], &s, &c);
            *cos_out++ = (float)(c * (double)magnitude);
            *sin_out++ = (float)(s * (double)magnitude);
        }
}

/* ------------------------------------------------------------------ rotation */

struct rope {
    enum wk_rope_style style;
    float *x; /* [n, heads, head_dim] */
    uint32_t n, heads, head_dim, half;
    const float *cos, *sin; /* [n, half] */
    uint32_t rows;          /* of an item */
};

/* Four floats: every processor we know has vectors of that size, and the compiler makes do without.
 */
typedef float v4 __attribute__((vector_size(16)));

static v4 load4(const float *x)
{
    v4 v;
    memcpy(&v, x, sizeof v);
    return v;
}

/* x[2j] * c - x[2j + 1] * s and x[2j] * s + x[2j + 1] * c for two pairs at once: each number times
 * its c, plus its neighbour times its s, which is -s for the first of a pair. */
static void rotate(float *x, const float *c, const float *s, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 4) {
        v4 v = load4(x + i);
        v = v * load4(c + i) + __builtin_shufflevector(v, v, 1, 0, 3, 2) * load4(s + i);
        memcpy(x + i, &v, sizeof v);
    }
}

static void rotate_pair(float *first, float *second, float c, float s)
{
    const float a = *first, b = *second;
    *first = a * c - b * s;
    *second = a * s + b * c;
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
            float *last = x + 2 * (size_t)pairs - 2;
            rotate_pair(last, last + 1, cos_in[pairs - 1], sin_in[pairs - 1]);
        }
    }
}

/* All heads of a row whose pairs lie half a rotation apart. */
static void rope_halves(const struct rope *p, float *x, const float *c, const float *s)
{
    for (uint32_t h = 0; h < p->heads; h++, x += p->head_dim) {
        float *y = x + p->half;
        uint32_t i = 0;
        for (; p->half - i >= 4; i += 4) {
            const v4 a = load4(x + i), b = load4(y + i), vc = load4(c + i), vs = load4(s + i);
            const v4 first = a * vc - b * vs, second = a * vs + b * vc;
            memcpy(x + i, &first, sizeof first);
            memcpy(y + i, &second, sizeof second);
        }
        for (; i < p->half; i++)
            rotate_pair(x + i, y + i, c[i], s[i]);
    }
}

static void rope_row(const struct rope *p, size_t row)
{
    float *x = p->x + row * p->heads * p->head_dim;
    const float *c = p->cos + row * p->half, *s = p->sin + row * p->half;
    if (p->style == WK_ROPE_HALVES) {
        rope_halves(p, x, c, s);
        return;
    }
    for (uint32_t j = 0; j < p->half; j += PAIRS)
        rope_pairs(p, x + 2 * (size_t)j, c + j, s + j, p->half - j < PAIRS ? p->half - j : PAIRS);
}

static void rope_rows(void *arg, size_t item)
{
    const struct rope *p = arg;
    for (size_t i = item * p->rows; i < (item + 1) * p->rows && i < p->n; i++)
        rope_row(p, i);
}

void wk_rope(const struct wk_engine *e, enum wk_rope_style style, float *x, uint32_t n,
             uint32_t heads, uint32_t head_dim, uint32_t rope_dim, const float *cos_in,
             const float *sin_in)
{
    struct rope p = {style, x, n, heads, head_dim, rope_dim / 2, cos_in, sin_in, 0};
    p.rows = (uint32_t)(RUN / ((size_t)heads * head_dim + 1)) + 1;
    wk_pool_run(e->pool, rope_rows, &p, (n + (size_t)p.rows - 1) / p.rows);
}
