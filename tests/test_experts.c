/*
 * What a mixture of experts adds to the kernels: the router's choice, rows gathered for an expert,
 * exact sums that go back to their rows times a weight. Each against a plain oracle and, on every
 * table with every number of threads, bit by bit.
 */
#include "kernels/kernels.h"
#include "tests/harness.h"
#include "tests/kernel_data.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_TYPES = sizeof kd_types / sizeof *kd_types };

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

static uint32_t draw_cols(enum wk_type type)
{
    uint32_t unit = kd_type_cols(type);
    return unit == 1 ? draw(1, 300) : unit * draw(1, unit == 256 ? 3 : 20);
}

static struct wk_matrix draw_matrix(uint64_t *from, enum wk_type type, uint32_t rows, uint32_t cols)
{
    uint8_t *gguf = kd_gguf(from, type, rows, cols, false);
    struct wk_matrix w = kd_matrix(type, rows, cols, gguf);
    free(gguf);
    return w;
}

/* The first n of a shuffled [0, all). */
static uint32_t *draw_rows(uint32_t n, uint32_t all)
{
    uint32_t *row = kd_alloc(sizeof *row * all);
    for (uint32_t i = 0; i < all; i++)
        row[i] = i;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = draw(i, all - 1), t = row[i];
        row[i] = row[k];
        row[k] = t;
    }
    uint32_t *ret = kd_alloc(sizeof *ret * n); /* exactly n long */
    memcpy(ret, row, sizeof *ret * n);
    free(row);
    return ret;
}

/* ------------------------------------------------------------------ router */

static void check_route(const float *logits, uint32_t n, uint32_t used, bool renormalise)
{
    const float scale = 2.5f;
    uint32_t *expert = kd_alloc(sizeof *expert * used);
    float *weight = kd_alloc(sizeof *weight * used);
    double all = 0, chosen = 0;
    ck_assert(wk_route(logits, n, used, renormalise, scale, expert, weight));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t before = 0, k = 0; /* its rank, by counting */
        for (uint32_t j = 0; j < n; j++)
            before += logits[j] > logits[i] || (j < i && logits[j] == logits[i]);
        while (k < used && expert[k] != i)
            k++;
        ck_assert_msg(before < used ? k == before : k == used, "expert %u of %u: rank %u, found %u",
                      i, n, before, k);
        all += exp((double)logits[i]);
        chosen += before < used ? exp((double)logits[i]) : 0;
    }
    for (uint32_t k = 0; k < used; k++) {
        double p = exp((double)logits[expert[k]]) / (renormalise ? chosen : all) * (double)scale;
        /* exp of a difference of up to 10, rounded; n additions; three more operations */
        ck_assert_double_le(fabs((double)weight[k] - p), (n + 16) * 0x1p-24 * p);
        ck_assert(k == 0 || weight[k] <= weight[k - 1]);
    }
    free(expert);
    free(weight);
}

START_TEST(route_is_softmax_of_the_greatest)
{
    for (unsigned k = 0; k < 300; k++) {
        const uint32_t n = draw(1, k % 10 == 0 ? 512 : 70), used = draw(1, n < 12 ? n : 12);
        float *logits = kd_alloc(sizeof *logits * n);
        for (uint32_t i = 0; i < n; i++) /* every third time with many ties */
            logits[i] = k % 3 == 0 ? (float)draw(0, 5) : (float)weft_test_uniform(&seed) * 10 - 5;
        check_route(logits, n, used, k % 2 != 0);
        check_route(logits, n, n, k % 2 == 0);
        free(logits);
    }
}
END_TEST

START_TEST(route_at_the_ends_of_floats)
{
    uint32_t expert[3];
    float weight[3];
    /* Differences beyond any exponent leave probability 0, not NaN. */
    const float far[4] = {-FLT_MAX, FLT_MAX, -FLT_MAX, 0};
    ck_assert(wk_route(far, 4, 3, true, 1, expert, weight));
    ck_assert(expert[0] == 1 && expert[1] == 3 && expert[2] == 0);
    ck_assert(weight[0] == 1 && weight[1] == 0 && weight[2] == 0);
    /* The sum of the chosen is 1; that of few of many equal ones is not, unless asked for. */
    const float equal[8] = {0};
    ck_assert(wk_route(equal, 8, 2, false, 1, expert, weight));
    ck_assert(expert[0] == 0 && expert[1] == 1 && weight[0] == 0.125f && weight[1] == 0.125f);
    ck_assert(wk_route(equal, 8, 2, true, 3, expert, weight));
    ck_assert(weight[0] == 1.5f && weight[1] == 1.5f);
    for (unsigned i = 0; i < 4; i++) {
        static const float faults[] = {NAN, INFINITY, -INFINITY};
        for (unsigned k = 0; k < 3; k++) {
            float logits[4] = {0, 1, 2, 3};
            logits[i] = faults[k];
            ck_assert(!wk_route(logits, 4, 2, true, 1, expert, weight));
            ck_assert(!wk_route(logits, 4, 2, false, 1, expert, weight));
        }
    }
}
END_TEST

/* ------------------------------------------------------------------ gathered rows */

START_TEST(gather_copies_rows)
{
    static const uint32_t cols_of[] = {1, 31, 32, 33, 256, 1000};
    const struct wk_engine e = {.table = table[n_tables - 1]};
    for (unsigned k = 0; k < 60; k++) {
        const uint32_t cols = cols_of[k % 6], all = draw(1, 20), n = draw(1, 30);
        const bool f32 = k % 3 != 0, q8 = k % 3 != 1;
        float *x = kd_floats(&seed, (size_t)all * cols), *out = kd_alloc((size_t)n * cols * 4);
        uint8_t *in = kd_alloc(wk_act_bytes(all, cols)), *blocks = kd_alloc(wk_act_bytes(n, cols));
        uint32_t *row = kd_alloc(sizeof *row * n);
        const size_t bytes = wk_act_bytes(1, cols);
        struct wk_act act, found;
        for (uint32_t i = 0; i < n; i++)
            row[i] = draw(0, all - 1); /* some of them twice */
        wk_act_set(&e, &act, x, all, cols, q8 ? in : NULL);
        if (!f32)
            act.f32 = NULL;
        wk_act_gather(&act, row, n, &found, out, blocks); /* room for both, also when x has one */
        ck_assert(found.n == n && found.cols == cols && found.quantised == q8);
        ck_assert(found.f32 == (f32 ? out : NULL) && found.q8 == (q8 ? blocks : NULL));
        for (uint32_t i = 0; i < n; i++) {
            if (f32)
                ck_assert_mem_eq(out + (size_t)i * cols, x + (size_t)row[i] * cols, cols * 4);
            if (q8)
                ck_assert_mem_eq(blocks + i * bytes, in + row[i] * bytes, bytes);
        }
        wk_act_gather(&act, row, n, &found, f32 ? out : NULL, NULL);
        ck_assert(!found.quantised && found.q8 == NULL && found.f32 == (f32 ? out : NULL));
        free(x);
        free(out);
        free(in);
        free(blocks);
        free(row);
    }
}
END_TEST

/* ------------------------------------------------------------------ sums by rows */

/* By the words of the header: the product with the columns of one piece (all others 0), times the
 * weight in f32, to the nearest multiple of 2^-30, piece after piece. */
static void add_plainly(const struct wk_matrix *w, const float *x, uint32_t n, uint32_t piece,
                        const uint32_t *row, const float *weight, int64_t *sum)
{
    const struct wk_engine ref = {.table = table[0]};
    float *part = kd_alloc(sizeof *part * w->cols), *y = kd_alloc(sizeof *y * w->rows);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t first = 0; first < w->cols; first += piece) {
            for (uint32_t c = 0; c < w->cols; c++)
                part[c] = c >= first && c - first < piece ? x[(size_t)i * w->cols + c] : 0;
            struct wk_act act = kd_act(&ref, w->type, part, 1, w->cols);
            wk_matmul(&ref, w, &act, y, w->rows, NULL);
            free(act.q8);
            for (uint32_t r = 0; r < w->rows; r++) {
                volatile float f = weight != NULL ? y[r] * weight[i] : y[r];
                sum[(size_t)(row != NULL ? row[i] : i) * w->rows + r] +=
                    llrint(ldexp((double)f, 30));
            }
        }
    free(part);
    free(y);
}

static int64_t *draw_sums(size_t n)
{
    int64_t *sum = kd_alloc(sizeof *sum * n);
    for (size_t i = 0; i < n; i++)
        sum[i] = (int64_t)(weft_test_random(&seed) >> 14) - (INT64_C(1) << 49);
    return sum;
}

static void check_sum_rows(enum wk_type type, uint32_t rows, uint32_t cols, uint32_t n,
                           uint32_t piece, unsigned how)
{
    const uint32_t all = n + draw(0, 5);
    const size_t sums = (size_t)all * rows;
    struct wk_matrix w = draw_matrix(&seed, type, rows, cols);
    float *x = kd_floats(&seed, (size_t)n * cols);
    float *weight = (how & 1) != 0 ? kd_floats(&seed, n) : NULL;
    uint32_t *row = (how & 2) != 0 ? draw_rows(n, all) : NULL;
    int64_t *before = draw_sums(sums), *expected = kd_alloc(sizeof *expected * sums);
    int64_t *found = kd_alloc(sizeof *found * sums);
    memcpy(expected, before, sizeof *before * sums);
    add_plainly(&w, x, n, piece, row, weight, expected);
    for (size_t t = 0; t < n_tables; t++)
        for (unsigned threads = 1; threads <= 3; threads += 2) {
            struct wk_engine e = {.table = table[t],
                                  .pool = threads > 1 ? wk_pool_open(threads) : NULL};
            struct wk_act act = kd_act(&e, type, x, n, cols);
            memcpy(found, before, sizeof *before * sums);
            ck_assert(wk_matmul_sum_rows(&e, &w, &act, piece, row, weight, found));
            ck_assert_msg(memcmp(found, expected, sizeof *found * sums) == 0,
                          "%s %s [%u, %u] n %u of %u piece %u how %u", wk_table_name(e.table),
                          kd_type_name(type), rows, cols, n, all, piece, how);
            free(act.q8);
            /* the last row alone, into a sum of its own */
            const size_t last = (size_t)(row != NULL ? row[n - 1] : n - 1) * rows;
            act = kd_act(&e, type, x + (size_t)(n - 1) * cols, 1, cols);
            memcpy(found, before + last, sizeof *found * rows);
            ck_assert(wk_matmul_sum_rows(&e, &w, &act, piece, NULL,
                                         weight != NULL ? weight + n - 1 : NULL, found));
            ck_assert_mem_eq(found, expected + last, sizeof *found * rows);
            free(act.q8);
            wk_pool_close(e.pool);
        }
    free(w.data);
    free(x);
    free(weight);
    free(row);
    free(before);
    free(expected);
    free(found);
}

START_TEST(sum_rows_is_its_definition)
{
    enum wk_type type = kd_types[_i];
    static const uint32_t pieces[] = {32, 64, 96, 256, 8192};
    for (unsigned k = 0; k < 12; k++)
        check_sum_rows(type, draw(1, k == 0 ? 300 : 70), draw_cols(type), draw(1, k == 1 ? 70 : 12),
                       pieces[k % 5], k % 4);
}
END_TEST

START_TEST(sum_rows_to_zero_is_sum)
{
    enum { N = 7, ROWS = 100, COLS = 512 };
    const struct wk_engine e = {.table = table[n_tables - 1]};
    struct wk_matrix w = draw_matrix(&seed, WK_Q4_K, ROWS, COLS);
    float *x = kd_floats(&seed, (size_t)N * COLS);
    struct wk_act act = kd_act(&e, WK_Q4_K, x, N, COLS);
    int64_t a[N * ROWS], b[N * ROWS] = {0};
    ck_assert(wk_matmul_sum(&e, &w, &act, 256, a, NULL));
    ck_assert(wk_matmul_sum_rows(&e, &w, &act, 256, NULL, NULL, b));
    ck_assert_mem_eq(a, b, sizeof a);
    free(w.data);
    free(x);
    free(act.q8);
}
END_TEST

/* The limit of 2^21 holds for a piece times its weight. */
START_TEST(weighted_pieces_beyond_the_limit_are_refused)
{
    static const struct {
        float x, weight;
        bool ok;
    } cases[] = {
        {0x1.fffffep20f, 1, true}, {0x1p21f, 1, false},
        {0x1p21f, 0.5f, true},     {-0x1p22f, 0.25f, true},
        {0x1p20f, 2, false},       {-0x1p20f, 2, false},
        {1, NAN, false},           {1, INFINITY, false},
        {0, INFINITY, false},      {0x1p100f, 0x1p-90f, true},
        {INFINITY, 0, false},      {NAN, 0, false},
        {1, -0.0f, true},          {0x1p100f, 1e30f, false},
        {0x1p20f, -1.9f, true},
    };
    enum { ROWS = 35, COLS = 5 * WK_BLOCK, N = 3 };
    /* F32 takes the loops of floats, Q8_0 those of blocks. */
    const enum wk_type type = _i == 0 ? WK_F32 : WK_Q8_0;
    uint8_t *gguf = kd_alloc(kd_gguf_bytes(type, ROWS, COLS));
    const float one = 1;
    for (size_t i = 0; i < (size_t)ROWS * COLS && type == WK_F32; i++)
        memcpy(gguf + i * 4, &one, 4);
    for (size_t i = 0; i < (size_t)ROWS * (COLS / 32) && type == WK_Q8_0; i++) {
        memset(gguf + i * 34, 1, 34);
        memcpy(gguf + i * 34, (const uint8_t[]){0x00, 0x3c}, 2); /* 1 as a half */
    }
    struct wk_matrix w = kd_matrix(type, ROWS, COLS, gguf);
    int64_t sum[N * ROWS];
    float x[N * COLS];
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (size_t t = 0; t < n_tables; t++) {
            const struct wk_engine e = {.table = table[t]};
            const float weight[N] = {1, cases[k].weight, 1};
            /* 127 / 127 of an activation of 8 bits need not be exact */
            if (type == WK_Q8_0 && fabsf(cases[k].x * cases[k].weight) > 0x1p20f &&
                fabsf(cases[k].x * cases[k].weight) <= 0x1p21f)
                continue;
            memset(x, 0, sizeof x);
            memset(sum, 0, sizeof sum);
            x[COLS + 70] = cases[k].x;
            struct wk_act act = kd_act(&e, type, x, N, COLS);
            ck_assert_msg(wk_matmul_sum_rows(&e, &w, &act, WK_BLOCK, NULL, weight, sum) ==
                              cases[k].ok,
                          "%s %s %a * %a", wk_table_name(e.table), kd_type_name(type),
                          (double)cases[k].x, (double)cases[k].weight);
            free(act.q8);
        }
    free(w.data);
    free(gguf);
}
END_TEST

/* ------------------------------------------------------------------ a mixture */

enum { TOKENS = 23, DIM = 256, FFN = 288, EXPERTS = 6, USED = 3 };

struct mixture {
    struct wk_matrix router, gate[EXPERTS], up[EXPERTS], down[EXPERTS];
    float *gate_bias;
};

/* Floats small enough for sums far from their limits. */
static float *small_floats(uint64_t *from, size_t n)
{
    const struct wk_engine ref = {.table = table[0]};
    float *x = kd_floats(from, n);
    wk_scale(&ref, x, n, 1.0f / 64);
    return x;
}

static struct mixture open_mixture(uint64_t *from)
{
    struct mixture m = {.router = draw_matrix(from, WK_F32, EXPERTS, DIM),
                        .gate_bias = small_floats(from, FFN)};
    for (unsigned i = 0; i < EXPERTS; i++) {
        m.gate[i] = draw_matrix(from, WK_Q4_K, FFN, DIM);
        m.up[i] = draw_matrix(from, WK_Q6_K, FFN, DIM);
        m.down[i] = draw_matrix(from, WK_Q8_0, DIM, FFN);
    }
    return m;
}

static void close_mixture(struct mixture *m)
{
    free(m->router.data);
    free(m->gate_bias);
    for (unsigned i = 0; i < EXPERTS; i++) {
        free(m->gate[i].data);
        free(m->up[i].data);
        free(m->down[i].data);
    }
}

/* Tokens [first, first + n) of x, the experts in the order given: sums to sum [TOKENS, DIM]. */
static void run_mixture(const struct wk_engine *e, const struct mixture *m, const float *x,
                        uint32_t first, uint32_t n, const uint32_t *order, int64_t *sum)
{
    float logits[TOKENS * EXPERTS], weight[TOKENS][USED], rows_weight[TOKENS];
    uint32_t expert[TOKENS][USED], row[TOKENS], to[TOKENS];
    const size_t q8_bytes = wk_act_bytes(n, DIM > FFN ? DIM : FFN);
    void *q8 = kd_alloc(q8_bytes), *gathered = kd_alloc(q8_bytes), *hidden = kd_alloc(q8_bytes);
    struct wk_act act, in, out;
    wk_act_set(e, &act, x + (size_t)first * DIM, n, DIM, q8);
    wk_matmul(e, &m->router, &act, logits, EXPERTS, NULL);
    for (uint32_t i = 0; i < n; i++)
        ck_assert(
            wk_route(logits + (size_t)i * EXPERTS, EXPERTS, USED, true, 1, expert[i], weight[i]));
    for (uint32_t k = 0; k < EXPERTS; k++) {
        uint32_t found = 0;
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < USED; j++)
                if (expert[i][j] == order[k]) {
                    row[found] = i;
                    to[found] = first + i;
                    rows_weight[found++] = weight[i][j];
                }
        if (found == 0)
            continue;
        const struct wk_glu glu = {.gate = &m->gate[order[k]],
                                   .up = &m->up[order[k]],
                                   .gate_bias = m->gate_bias,
                                   .activation = WK_GELU};
        wk_act_gather(&act, row, found, &in, NULL, gathered);
        wk_act_glu(e, &out, &glu, &in, NULL, hidden, NULL);
        ck_assert(wk_matmul_sum_rows(e, &m->down[order[k]], &out, 256, to, rows_weight, sum));
    }
    free(q8);
    free(gathered);
    free(hidden);
}

/* All tokens with experts in one order, token by token in another, on any table: the same sums. */
START_TEST(a_mixture_does_not_depend_on_company_or_order)
{
    static const uint32_t up[EXPERTS] = {0, 1, 2, 3, 4, 5}, down[EXPERTS] = {5, 4, 3, 2, 1, 0};
    struct mixture m = open_mixture(&seed);
    float *x = small_floats(&seed, (size_t)TOKENS * DIM);
    const size_t bytes = sizeof(int64_t) * TOKENS * DIM;
    int64_t *expected = kd_alloc(bytes), *found = kd_alloc(bytes);
    const struct wk_engine ref = {.table = table[0]};
    memset(expected, 0, bytes);
    run_mixture(&ref, &m, x, 0, TOKENS, up, expected);
    for (size_t t = 0; t < n_tables; t++) {
        const struct wk_engine e = {.table = table[t], .pool = wk_pool_open(2)};
        memset(found, 0, bytes);
        run_mixture(&e, &m, x, 0, TOKENS, down, found);
        ck_assert_mem_eq(found, expected, bytes);
        memset(found, 0, bytes);
        for (uint32_t i = TOKENS; i-- > 0;)
            run_mixture(&e, &m, x, i, 1, t % 2 == 0 ? down : up, found);
        ck_assert_mem_eq(found, expected, bytes);
        wk_pool_close(e.pool);
    }
    free(x);
    free(expected);
    free(found);
    close_mixture(&m);
}
END_TEST

/* FNV-1a over what a mixture behind a YaRN rotation and a soft cap computes from a fixed seed. The
 * number was written down on x86-64; arm64 must find the same. */
START_TEST(every_architecture_finds_these_bits)
{
    static const uint32_t order[EXPERTS] = {0, 1, 2, 3, 4, 5};
    const struct wk_rope_spec yarn = {.rope_dim = 64,
                                      .base = 1e6f,
                                      .scaling = WK_ROPE_YARN,
                                      .factor = 4,
                                      .original_context = 32768,
                                      .beta_fast = 32,
                                      .beta_slow = 1,
                                      .extrapolation = 1};
    double frequency[32];
    float c[TOKENS * 32], s[TOKENS * 32];
    int32_t positions[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++)
        positions[i] = i * 5003;
    wk_rope_frequencies(&yarn, frequency);
    wk_rope_angles(positions, TOKENS, 32, frequency, wk_yarn_magnitude(4), c, s);
    for (size_t t = 0; t < n_tables; t++) {
        uint64_t fixed = 42, h = UINT64_C(14695981039346656037);
        const struct wk_engine e = {.table = table[t]};
        struct mixture m = open_mixture(&fixed);
        float *x = small_floats(&fixed, (size_t)TOKENS * DIM);
        int64_t *sum = kd_alloc(sizeof *sum * TOKENS * DIM);
        memset(sum, 0, sizeof *sum * TOKENS * DIM);
        wk_rope(&e, WK_ROPE_HALVES, x, TOKENS, DIM / 64, 64, 64, c, s);
        wk_softcap(&e, x, (size_t)TOKENS * DIM, 0.5f);
        run_mixture(&e, &m, x, 0, TOKENS, order, sum);
        const uint8_t *bytes = (const uint8_t *)sum;
        for (size_t i = 0; i < sizeof *sum * TOKENS * DIM; i++)
            h = (h ^ bytes[i]) * 1099511628211u;
        free(x);
        free(sum);
        close_mixture(&m);
        ck_assert_msg(h == UINT64_C(0x12e59f88deea717a), "%s finds %#llx", wk_table_name(table[t]),
                      (unsigned long long)h);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("experts");
    TCase *t = tcase_create("experts");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, route_is_softmax_of_the_greatest);
    tcase_add_test(t, route_at_the_ends_of_floats);
    tcase_add_test(t, gather_copies_rows);
    tcase_add_loop_test(t, sum_rows_is_its_definition, 0, N_TYPES);
    tcase_add_test(t, sum_rows_to_zero_is_sum);
    tcase_add_loop_test(t, weighted_pieces_beyond_the_limit_are_refused, 0, 2);
    tcase_add_test(t, a_mixture_does_not_depend_on_company_or_order);
    tcase_add_test(t, every_architecture_finds_these_bits);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
