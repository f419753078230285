/*
 * Attention: every table gives the bits of ref; a row gives the same bits alone and in company,
 * whatever lies behind its position; ref agrees with a plain softmax in f64.
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
    float scale;
};

static struct scene scene_open(enum wk_kv_type type, uint32_t kv_heads, uint32_t group,
                               uint32_t dim, uint32_t length, uint32_t n)
{
    struct scene s = {.heads = kv_heads * group, .length = length, .n = n, .scale = 0.25f};
    uint32_t capacity = (length + 2 * WK_KV_BLOCK - 1) / WK_KV_BLOCK * WK_KV_BLOCK;
    s.kv =
        (struct wk_kv){.type = type, .kv_heads = kv_heads, .head_dim = dim, .capacity = capacity};
    size_t bytes = wk_kv_bytes(type, kv_heads, dim, capacity);
    s.kv.data = kd_alloc(bytes);
    memset(s.kv.data, 0xff, bytes); /* NaN in both types */
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

static float *attend(const struct wk_engine *e, const struct scene *s)
{
    float *out = kd_alloc(sizeof *out * s->n * s->heads * s->kv.head_dim);
    memset(out, 0xff, sizeof *out * s->n * s->heads * s->kv.head_dim);
    wk_kv_put(e, &s->kv, 0, s->length, s->k, s->v);
    wk_attention(e, &s->kv, s->q, s->n, s->heads, s->length - s->n, s->scale, out);
    return out;
}

START_TEST(every_table_gives_the_bits_of_ref)
{
    static const uint32_t dims[] = {1, 8, 16, 20, 32, 48, 64, 80, 128, 130};
    for (unsigned k = 0; k < 60; k++) {
        uint32_t length = draw(1, 200), n = draw(1, length < 12 ? length : 12);
        struct scene s = scene_open(k % 2 != 0 ? WK_KV_F16 : WK_KV_F32, draw(1, 3), draw(1, 5),
                                    dims[k % 10], length, n);
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
            ck_assert_msg(at == size, "%s head_dim %u length %u n %u: element %zu is %a, not %a",
                          wk_table_name(table[t]), s.kv.head_dim, length, n, at, out[at],
                          expected[at]);
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
    for (unsigned k = 0; k < 6; k++) {
        uint32_t n = draw(66, 150);
        struct scene s = scene_open(k % 2 != 0 ? WK_KV_F16 : WK_KV_F32, 2, 1 + k % 3, 24, n, n);
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
                wk_attention(&e, &s.kv, s.q + at * row, rows, s.heads, at, s.scale, out + at * row);
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

/* Rounding: scores within (dim + 2) eps sum |k q|, then exp and sums; measured against the spread.
 */
START_TEST(ref_agrees_with_plain_softmax)
{
    for (unsigned k = 0; k < 20; k++) {
        uint32_t length = draw(1, 180), dim = draw(1, 70);
        struct scene s = scene_open(k % 2 != 0 ? WK_KV_F16 : WK_KV_F32, 1, 2, dim, length, 1);
        struct wk_engine e = {.table = table[0]};
        float *out = attend(&e, &s);
        for (size_t i = 0; i < (size_t)length * dim && s.kv.type == WK_KV_F16; i++) {
            s.k[i] = wk_f16_to_f32(wk_f32_to_f16(s.k[i]));
            s.v[i] = wk_f16_to_f32(wk_f32_to_f16(s.v[i]));
        }
        for (uint32_t h = 0; h < 2; h++) {
            double score[180], max = -INFINITY, sum = 0, slack = 0;
            for (uint32_t j = 0; j < length; j++) {
                double size = 0;
                score[j] = 0;
                for (uint32_t c = 0; c < dim; c++) {
                    double term = (double)s.k[j * dim + c] * (double)s.q[h * dim + c];
                    score[j] += term * 0.25;
                    size += fabs(term) * 0.25;
                }
                max = fmax(max, score[j]);
                slack = fmax(slack, (dim + 2) * 0x1p-24 * size);
            }
            for (uint32_t j = 0; j < length; j++)
                sum += exp(score[j] - max);
            for (uint32_t c = 0; c < dim; c++) {
                double v = 0, size = 0;
                for (uint32_t j = 0; j < length; j++) {
                    double p = exp(score[j] - max) / sum;
                    v += p * (double)s.v[j * dim + c];
                    size += p * fabs((double)s.v[j * dim + c]);
                }
                double bound = size * (2 * expm1(slack) + (length + 20) * 0x1p-23);
                bound += length * 50 * 0x1p-149; /* probabilities in the subnormal range */
                ck_assert_double_le(fabs(v - (double)out[h * dim + c]), bound);
            }
        }
        free(out);
        scene_close(&s);
    }
}
END_TEST

/* What does not fit f16 must not vanish. */
START_TEST(overflow_surfaces)
{
    for (size_t t = 0; t < n_tables; t++)
        for (int in_v = 0; in_v < 2; in_v++) {
            struct scene s = scene_open(WK_KV_F16, 1, 1, 16, 70, 3);
            struct wk_engine e = {.table = table[t]};
            (in_v != 0 ? s.v : s.k)[5 * 16 + 3] = 1e6f;
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
    tcase_add_test(t, ref_agrees_with_plain_softmax);
    tcase_add_test(t, overflow_surfaces);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
