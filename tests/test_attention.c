/*
 * Attention, with and without windows and soft caps: every table gives the bits of ref; a row gives
 * the same bits alone and in company, whatever lies behind its position or before its window; ref
 * agrees with a plain softmax in f64.
 */
#include "kernels/f16.h"
#include "tests/harness.h"
#include "tests/kernel_data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed;
static const struct wk_table *table[KD_TABLES_MAX];
static size_t n_tables;

static void setup(void)
{
    seed = weft_test_seed();
    n_tables = wk_table_list(table, KD_TABLES_MAX);
}

static uint32_t draw(uint32_t lo, uint32_t hi)
{
    return lo + (uint32_t)(weft_test_random(&seed) % (hi - lo + 1));
}

/* `length` positions of keys and values, and queries for the last n of them. */
struct scene {
    struct wk_kv kv;
    uint32_t heads, length, n;
    float *k, *v, *q; /* [length, kv_heads, head_dim] twice, [n, heads, head_dim] */
    struct wk_attention_spec spec;
};

static struct scene scene_open(enum wk_kv_type type, uint32_t kv_heads, uint32_t group,
                               uint32_t dim, uint32_t length, uint32_t n)
{
    struct scene s = {
        .heads = kv_heads * group, .length = length, .n = n, .spec = {.scale = 0.25f}};
    uint32_t capacity = (length + 2 * WK_KV_BLOCK - 1) / WK_KV_BLOCK * WK_KV_BLOCK;
    s.kv =
        (struct wk_kv){.type = type, .kv_heads = kv_heads, .head_dim = dim, .capacity = capacity};
    size_t bytes = wk_kv_bytes(type, kv_heads, dim, capacity);
    s.kv.data = kd_alloc(bytes);
    memset(s.kv.data, 0xff, bytes); /* NaN in every type, as the scale of Q8_0 */
    s.k = kd_floats(&seed, (size_t)length * kv_heads * dim);
    s.v = kd_floats(&seed, (size_t)length * kv_heads * dim);
    s.q = kd_floats(&seed, (size_t)n * s.heads * dim);
    return s;
}

static void scene_close(struct scene *s)
{
    free(s->kv.data);
    free(s->k);
    free(s->v);
    free(s->q);
}

/* Windows from one position to more than there are, many of them at the borders of blocks; soft
 * caps that matter and that do not; often neither. */
static struct wk_attention_spec draw_spec(uint32_t length)
{
    static const uint32_t windows[] = {0, 1, 2, 63, 64, 65, 127, 128, 129};
    static const float caps[] = {0, 0, 0.5f, 50};
    const uint32_t k = draw(0, 14);
    return (struct wk_attention_spec){.scale = 0.25f,
                                      .softcap = caps[draw(0, 3)],
                                      .window = k < 9 ? windows[k] : draw(1, length + 70)};
}

/* Attention of the scene's rows; `scratch` says whether the context may be divided. */
static float *look(const struct wk_engine *e, const struct scene *s, bool scratch)
{
    float *out = kd_alloc(sizeof *out * s->n * s->heads * s->kv.head_dim);
    void *memory = scratch ? kd_alloc(wk_attention_scratch(e, s->heads, s->kv.head_dim)) : NULL;
    memset(out, 0xff, sizeof *out * s->n * s->heads * s->kv.head_dim);
    wk_attention(e, &s->kv, s->q, s->n, s->heads, s->length - s->n, &s->spec, out, memory);
    free(memory);
    return out;
}

static float *attend(const struct wk_engine *e, const struct scene *s)
{
    wk_kv_put(e, &s->kv, 0, s->length, s->k, s->v);
    return look(e, s, false);
}

START_TEST(every_table_gives_the_bits_of_ref)
{
    static const uint32_t dims[] = {1, 8, 16, 20, 32, 36, 48, 64, 80, 100, 128, 130, 33};
    for (unsigned k = 0; k < 234; k++) { /* every type with every size of a head, 6 times */
        uint32_t length = draw(1, 300), n = draw(1, length < 12 ? length : 12);
        struct scene s =
            scene_open((enum wk_kv_type)(k % 3), draw(1, 3), 1 + k % 9, dims[k % 13], length, n);
        if (k >= 39)
            s.spec = draw_spec(length);
        size_t size = (size_t)n * s.heads * s.kv.head_dim,
               kv_bytes = wk_kv_bytes(s.kv.type, s.kv.kv_heads, s.kv.head_dim, s.kv.capacity);
        struct wk_engine e = {.table = table[0]};
        float *expected = attend(&e, &s);
        uint8_t *stored = kd_alloc(kv_bytes);
        memcpy(stored, s.kv.data, kv_bytes);
        for (size_t i = 0; i < size; i++)
            ck_assert(isfinite(expected[i]));
        for (size_t t = 1; t < n_tables; t++) {
            e.table = table[t];
            float *out = attend(&e, &s);
            ck_assert_int_eq(memcmp(stored, s.kv.data, kv_bytes), 0);
            size_t at = kd_differ(expected, out, size);
            ck_assert_msg(
                at == size,
                "%s head_dim %u length %u n %u window %u cap %g: element %zu is %a, not %a",
                wk_table_name(table[t]), s.kv.head_dim, length, n, s.spec.window,
                (double)s.spec.softcap, at, out[at], expected[at]);
            free(out);
        }
        free(stored);
        free(expected);
        scene_close(&s);
    }
}
END_TEST

/* A prompt at once, in parts, or token by token: the same bits, though the cache behind differs. */
START_TEST(company_and_threads_never_show)
{
    for (unsigned k = 0; k < 27; k++) {
        uint32_t n = draw(66, 150);
        struct scene s = scene_open((enum wk_kv_type)(k % 3), 2, 1 + k % 4, 24, n, n);
        if (k >= 9)
            s.spec = draw_spec(n);
        size_t row = (size_t)s.heads * s.kv.head_dim;
        size_t kv_row = (size_t)s.kv.kv_heads * s.kv.head_dim;
        struct wk_engine e = {.table = table[k % n_tables]};
        float *expected = attend(&e, &s), *out = kd_alloc(sizeof *out * n * row);
        for (unsigned threads = 1; threads <= 3; threads += 2) {
            size_t bytes = wk_kv_bytes(s.kv.type, 2, 24, s.kv.capacity);
            memset(s.kv.data, 0xff, bytes);
            e.pool = wk_pool_open(threads);
            for (uint32_t at = 0, rows; at < n; at += rows) {
                rows = threads == 1 ? 1 : draw(1, n - at < 40 ? n - at : 40);
                wk_kv_put(&e, &s.kv, at, rows, s.k + at * kv_row, s.v + at * kv_row);
                wk_attention(&e, &s.kv, s.q + at * row, rows, s.heads, at, &s.spec, out + at * row,
                             NULL);
            }
            ck_assert_uint_eq(kd_differ(expected, out, n * row), n * row);
            wk_pool_close(e.pool);
        }
        free(out);
        free(expected);
        scene_close(&s);
    }
}
END_TEST

/* A position of NaN in K or V: rows that see it feel it, the others keep their bits, also in the
 * same block, tile or run of rows. */
START_TEST(only_rows_that_see_a_position_feel_it)
{
    for (unsigned k = 0; k < 120; k++) {
        const uint32_t length = draw(1, 300), n = draw(1, length < 40 ? length : 40),
                       group = 1 + k % 3;
        struct scene s = scene_open((enum wk_kv_type)(k % 3), 1, group, 20, length, n);
        s.spec = draw_spec(length);
        struct wk_engine e = {.table = table[k % n_tables], .pool = wk_pool_open(1 + k % 2 * 2)};
        const size_t row = (size_t)group * 20;
        const uint32_t p = draw(length - n, length - 1) - (k % 4 != 0 ? draw(0, length - n) : 0);
        float *expected = attend(&e, &s), *bad = kd_alloc(20 * sizeof *bad);
        for (unsigned c = 0; c < 20; c++)
            bad[c] = NAN;
        const bool in_k = k % 8 < 4;
        wk_kv_put(&e, &s.kv, p, 1, in_k ? bad : s.k + (size_t)p * 20,
                  in_k ? s.v + (size_t)p * 20 : bad);
        float *out = look(&e, &s, k % 5 != 0);
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t at = length - n + i;
            const bool seen = p <= at && (s.spec.window == 0 || at - p < s.spec.window);
            for (size_t c = 0; c < row && seen; c++)
                ck_assert(isnan(out[i * row + c]));
            if (!seen)
                ck_assert_int_eq(memcmp(out + i * row, expected + i * row, row * sizeof *out), 0);
        }
        wk_pool_close(e.pool);
        free(bad);
        free(out);
        free(expected);
        scene_close(&s);
    }
}
END_TEST

/* A context divided between threads, in one round or several, gives the bits of one that is not; so
 * does every number of rows, whether it is divided or not. */
START_TEST(a_divided_context_gives_the_same_bits)
{
    static const struct {
        uint32_t kv_heads, group, dim, length, n;
    } cases[] = {
        {1, 1, 16, 4500, 1}, /* 71 blocks: two rounds */
        {1, 8, 20, 1000, 1}, {1, 7, 80, 300, 1},   {3, 5, 36, 700, 2},
        {1, 9, 40, 600, 5},  {1, 2, 16, 1100, 16}, {1, 1, 16, 1100, 17},
        {2, 3, 64, 260, 1},  {1, 4, 32, 200, 1},   {5, 1, 8, 330, 3},
    };
    static const struct wk_attention_spec specs[] = {
        {.scale = 0.25f},
        {.scale = 0.25f, .window = 4200}, /* of the first case: still two rounds */
        {.scale = 0.25f, .window = 257, .softcap = 2},
        {.scale = 0.25f, .window = 40},
    };
    enum { TYPES = 3, SPECS = sizeof specs / sizeof specs[0] };
    for (size_t k = 0; k < sizeof cases / sizeof cases[0] * TYPES * SPECS; k++) {
        const size_t c = k / TYPES / SPECS;
        struct scene s = scene_open((enum wk_kv_type)(k % TYPES), cases[c].kv_heads, cases[c].group,
                                    cases[c].dim, cases[c].length, cases[c].n);
        s.spec = specs[k / TYPES % SPECS];
        struct wk_engine e = {.table = table[n_tables - 1]};
        size_t size = (size_t)s.n * s.heads * s.kv.head_dim;
        float *expected = attend(&e, &s);
        for (unsigned threads = 2; threads <= 4; threads++) {
            e.pool = wk_pool_open(threads);
            for (size_t t = cases[c].length > 1000 ? n_tables - 1 : 0; t < n_tables; t++)
                for (int divided = 0; divided < 2; divided++) {
                    e.table = table[t];
                    float *out = look(&e, &s, divided != 0);
                    size_t at = kd_differ(expected, out, size);
                    ck_assert_msg(at == size, "case %zu, %s, type %d, window %u, %u threads: %zu",
                                  c, wk_table_name(table[t]), (int)s.kv.type, s.spec.window,
                                  threads, at);
                    free(out);
                }
            wk_pool_close(e.pool);
        }
        free(expected);
        scene_close(&s);
    }
}
END_TEST

/* A position of a cache of one KV head, decoded by hand from the layout of kernels.h. */
static void decode_q8_0(const struct wk_kv *kv, uint32_t position, float *k, float *v)
{
    const uint32_t dim = kv->head_dim, runs = (dim + 31) / 32, slot = position % 64;
    const uint8_t *at = (const uint8_t *)kv->data +
                        (size_t)(position / 64) * (2 * (size_t)64 * dim + 2 * (size_t)128 * runs);
    const int8_t *kq = (const int8_t *)at, *vq = kq + (size_t)64 * dim + (size_t)128 * runs;
    const uint16_t *kd = (const uint16_t *)(const void *)(kq + (size_t)64 * dim);
    const uint16_t *vd = (const uint16_t *)(const void *)(vq + (size_t)64 * dim);
    for (uint32_t c = 0; c < dim; c++) {
        k[c] = (float)kq[c * 64 + slot] * wk_f16_to_f32(kd[c / 32 * 64 + slot]);
        v[c] = (float)vq[slot * dim + c] * wk_f16_to_f32(vd[c / 32 * 64 + slot]);
    }
}

/* Replaces the scene's keys and values by what the cache (of one KV head) holds of them. */
static void as_stored(struct scene *s)
{
    const uint32_t dim = s->kv.head_dim;
    for (uint32_t j = 0; j < s->length && s->kv.type == WK_KV_Q8_0; j++)
        decode_q8_0(&s->kv, j, s->k + (size_t)j * dim, s->v + (size_t)j * dim);
    for (size_t i = 0; i < (size_t)s->length * dim && s->kv.type == WK_KV_F16; i++) {
        s->k[i] = wk_f16_to_f32(wk_f32_to_f16(s->k[i]));
        s->v[i] = wk_f16_to_f32(wk_f32_to_f16(s->v[i]));
    }
}

/* Within half a step, a 127th of the greatest of the run, and 2^-11 of it for the f16 scale (127
 * times half of 2^-24 where that is subnormal). */
START_TEST(q8_0_holds_what_was_put)
{
    for (unsigned round = 0; round < 30; round++) {
        uint32_t length = draw(1, 130), dim = draw(1, 130);
        struct scene s = scene_open(WK_KV_Q8_0, 1, 1, dim, length, 1);
        struct wk_engine e = {.table = table[round % n_tables]};
        float k[256], v[256];
        free(attend(&e, &s));
        for (uint32_t j = 0; j < length; j++) {
            decode_q8_0(&s.kv, j, k, v);
            for (uint32_t c = 0; c < dim; c++) {
                float most[2] = {0, 0};
                for (uint32_t i = c / 32 * 32; i < dim && i < c / 32 * 32 + 32; i++) {
                    most[0] = fmaxf(most[0], fabsf(s.k[j * dim + i]));
                    most[1] = fmaxf(most[1], fabsf(s.v[j * dim + i]));
                }
                const float bound = 0.5f / 127 + 0x1p-11f + 0x1p-20f;
                ck_assert_float_le(fabsf(k[c] - s.k[j * dim + c]), most[0] * bound + 0x1p-17f);
                ck_assert_float_le(fabsf(v[c] - s.v[j * dim + c]), most[1] * bound + 0x1p-17f);
            }
        }
        scene_close(&s);
    }
}
END_TEST

/* Row i, head h of a scene of one KV head, all in f64, against out [head_dim]. Rounding: scores
 * within (dim + 2) eps sum |k q|, then exp and sums; measured against the spread. A soft cap never
 * widens a difference of scores and adds 3 ulp of tanh, half of one each for a quotient, a product
 * and a sum: 5 ulp of the score. */
static void check_softmax(const struct scene *s, uint32_t i, uint32_t h, const float *out)
{
    const uint32_t dim = s->kv.head_dim, end = s->length - s->n + i + 1;
    const uint32_t first = s->spec.window > 0 && end > s->spec.window ? end - s->spec.window : 0;
    const float *q = s->q + ((size_t)i * s->heads + h) * dim;
    const double cap = (double)s->spec.softcap;
    double score[400], max = -INFINITY, sum = 0, slack = 0;
    ck_assert_uint_le(end, 400);
    for (uint32_t j = first; j < end; j++) {
        double size = 0;
        score[j] = 0;
        for (uint32_t c = 0; c < dim; c++) {
            double term = (double)s->k[j * dim + c] * (double)q[c] * (double)s->spec.scale;
            score[j] += term;
            size += fabs(term);
        }
        size *= (dim + 2) * 0x1p-24;
        if (cap > 0) {
            score[j] = cap * tanh(score[j] / cap);
            size += 5 * 0x1p-23 * fabs(score[j]);
        }
        max = fmax(max, score[j]);
        slack = fmax(slack, size);
    }
    for (uint32_t j = first; j < end; j++)
        sum += exp(score[j] - max);
    for (uint32_t c = 0; c < dim; c++) {
        double v = 0, size = 0;
        for (uint32_t j = first; j < end; j++) {
            double p = exp(score[j] - max) / sum;
            v += p * (double)s->v[j * dim + c];
            size += p * fabs((double)s->v[j * dim + c]);
        }
        double bound = size * (2 * expm1(slack) + (s->length + 20) * 0x1p-23);
        bound += s->length * 50 * 0x1p-149; /* probabilities in the subnormal range */
        ck_assert_double_le(fabs(v - (double)out[c]), bound);
    }
}

START_TEST(ref_agrees_with_plain_softmax)
{
    for (unsigned k = 0; k < 150; k++) {
        uint32_t length = draw(1, k < 60 ? 180 : 400), dim = draw(1, 70);
        uint32_t n = k < 30 ? 1 : draw(1, length < 20 ? length : 20);
        struct scene s = scene_open((enum wk_kv_type)(k % 3), 1, 2, dim, length, n);
        if (k >= 30)
            s.spec = draw_spec(length);
        struct wk_engine e = {.table = table[0]};
        float *out = attend(&e, &s);
        as_stored(&s);
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t h = 0; h < 2; h++)
                check_softmax(&s, i, h, out + ((size_t)i * 2 + h) * dim);
        free(out);
        scene_close(&s);
    }
}
END_TEST

/* What does not fit the cache, and what is no number, must not vanish. */
START_TEST(overflow_surfaces)
{
    const float bad[] = {1e6f, 127 * 65520.0f, NAN, INFINITY, -INFINITY, 3e38f};
    for (unsigned k = 0; k < 2 * 3 * 2 * 6 * n_tables; k++) {
        const size_t t = k / 72;
        const bool capped = k / 36 % 2 != 0;
        const bool in_v = k / 18 % 2 != 0;
        const enum wk_kv_type type = (enum wk_kv_type)(k / 6 % 3);
        const float x = bad[k % 6];
        if ((type == WK_KV_F32 && isfinite(x)) || (type == WK_KV_Q8_0 && x == 1e6f))
            continue; /* fits */
        if (type != WK_KV_Q8_0 && !in_v && x == -INFINITY && !capped)
            continue; /* a score of -infinity has no weight: daemon/layer.c looks before */
        struct scene s = scene_open(type, 1, 1, 16, 70, 3);
        s.spec.softcap = capped ? 50 : 0;
        struct wk_engine e = {.table = table[t]};
        (in_v ? s.v : s.k)[5 * 16 + 3] = x;
        s.q[3] = s.q[16 + 3] = s.q[32 + 3] = 1;
        float *out = attend(&e, &s);
        for (unsigned i = 0; i < 3; i++)
            ck_assert(!isfinite(out[i * 16 + 3]));
        free(out);
        scene_close(&s);
    }
}
END_TEST

START_TEST(kv_bytes)
{
    ck_assert_uint_eq(wk_kv_bytes(WK_KV_F32, 2, 10, 128), 2u * 10 * 128 * 2 * 4);
    ck_assert_uint_eq(wk_kv_bytes(WK_KV_F16, 2, 10, 128), 2u * 10 * 128 * 2 * 2);
    ck_assert_uint_eq(wk_kv_bytes(WK_KV_Q8_0, 2, 64, 128), 2u * 128 * 2 * 2 * 34);
    ck_assert_uint_eq(wk_kv_bytes(WK_KV_Q8_0, 2, 80, 64), 2u * 64 * 2 * (80 + 3 * 2));
    ck_assert_uint_eq(wk_kv_bytes(WK_KV_Q8_0, 3, 10, 128), 3u * 128 * 2 * (10 + 2));
    ck_assert_uint_eq(wk_kv_bytes(WK_KV_Q8_0, 1u << 31, 1u << 31, 64), 0);
    ck_assert_uint_eq(wk_kv_bytes(WK_KV_F16, 2, 10, 100), 0);
    ck_assert_uint_eq(wk_kv_bytes(WK_KV_F16, 1u << 31, 1u << 31, 64), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("attention");
    TCase *t = tcase_create("attention");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, kv_bytes);
    tcase_add_test(t, every_table_gives_the_bits_of_ref);
    tcase_add_test(t, company_and_threads_never_show);
    tcase_add_test(t, only_rows_that_see_a_position_feel_it);
    tcase_add_test(t, a_divided_context_gives_the_same_bits);
    tcase_add_test(t, q8_0_holds_what_was_put);
    tcase_add_test(t, ref_agrees_with_plain_softmax);
    tcase_add_test(t, overflow_surfaces);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
