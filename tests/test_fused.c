/*
 * Fused kernels: the bits of the separate steps, on every table, for every type and odd shapes,
 * with any number of threads, rows alone and in company; exact sums that fail by name; a layer
 * that is alone equals one that stops at its sums.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/layer.h"
#include "daemon/stage.h"
#include "tests/harness.h"
#include "tests/kernel_data.h"
#include "tests/synthetic_model.h"

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

/* A width that rows of this type have. */
static uint32_t draw_cols(enum wk_type type)
{
    uint32_t unit = kd_type_cols(type);
    return unit == 1 ? draw(1, 300) : unit * draw(1, unit == 256 ? 3 : 20);
}

static struct wk_matrix draw_matrix(enum wk_type type, uint32_t rows, uint32_t cols)
{
    uint8_t *gguf = kd_gguf(&seed, type, rows, cols, false);
    struct wk_matrix w = kd_matrix(type, rows, cols, gguf);
    free(gguf);
    return w;
}

/* Each table with 1 to 4 threads; NULL pool for one. */
struct machine {
    struct wk_engine e;
    unsigned left;
    size_t table;
};

static bool next_machine(struct machine *m)
{
    if (m->left == 0) {
        if (m->table == n_tables)
            return false;
        m->e.table = table[m->table++];
        m->left = 4;
    }
    wk_pool_close(m->e.pool);
    unsigned threads = 5 - m->left--;
    m->e.pool = threads == 1 ? NULL : wk_pool_open(threads);
    ck_assert(threads == 1 || m->e.pool != NULL);
    return true;
}

/* ------------------------------------------------------------------ norm */

START_TEST(norm_and_quantise_in_one_pass)
{
    static const uint32_t cols_of[] = {1, 31, 32, 33, 512, 544, 1056, 2048};
    for (size_t k = 0; k < sizeof cols_of / sizeof *cols_of; k++) {
        uint32_t cols = cols_of[k], n = draw(1, 40);
        size_t bytes = wk_act_bytes(n, cols), floats = (size_t)n * cols;
        float *x = k % 3 == 2 ? kd_any_floats(&seed, floats) : kd_floats(&seed, floats);
        float *weight = kd_floats(&seed, cols), *normed = kd_alloc(floats * sizeof *normed);
        float *expected = kd_alloc(floats * sizeof *expected);
        void *q8 = kd_alloc(bytes), *expected_q8 = kd_alloc(bytes);
        struct wk_act act, found;
        struct wk_engine ref = {.table = table[0]};
        memset(expected_q8, 0, bytes);
        wk_rms_norm(&ref, x, weight, 1e-5f, n, cols, expected);
        wk_act_set(&ref, &act, expected, n, cols, expected_q8);
        for (struct machine m = {0}; next_machine(&m);)
            for (int f32 = 0; f32 < 2; f32++) {
                memset(q8, 0, bytes);
                wk_act_norm(&m.e, &found, x, weight, 1e-5f, n, cols, f32 != 0 ? normed : NULL, q8);
                ck_assert(found.n == n && found.cols == cols && found.quantised);
                ck_assert_ptr_eq(found.f32, f32 != 0 ? normed : NULL);
                /* Two NaN may differ in their bits, so blocks with them are not compared. */
                if (k % 3 != 2)
                    ck_assert_mem_eq(q8, expected_q8, bytes);
                if (f32 != 0)
                    ck_assert_uint_eq(kd_differ(expected, normed, floats), floats);
            }
        free(x);
        free(weight);
        free(normed);
        free(expected);
        free(q8);
        free(expected_q8);
    }
}
END_TEST

/* ------------------------------------------------------------------ products */

/* q, k and v of different types and rows in one run, each as alone. */
START_TEST(many_products_equal_single_ones)
{
    for (unsigned k = 0; k < 6; k++) {
        uint32_t cols = 256 * draw(1, 2), n = draw(1, 40);
        struct wk_matrix w[3];
        float *x = kd_floats(&seed, (size_t)n * cols), *expected[3], *y[3];
        for (unsigned i = 0; i < 3; i++) {
            w[i] = draw_matrix(kd_types[draw(0, N_TYPES - 1)], draw(1, 500), cols);
            expected[i] = kd_alloc(sizeof(float) * n * w[i].rows);
            y[i] = kd_alloc(sizeof(float) * n * w[i].rows);
        }
        struct wk_engine ref = {.table = table[0]};
        struct wk_act act;
        void *q8 = kd_alloc(wk_act_bytes(n, cols));
        wk_act_set(&ref, &act, x, n, cols, q8);
        for (unsigned i = 0; i < 3; i++)
            wk_matmul(&ref, &w[i], &act, expected[i], w[i].rows, NULL);
        for (struct machine m = {0}; next_machine(&m);) {
            struct wk_product products[3];
            for (unsigned i = 0; i < 3; i++)
                products[i] = (struct wk_product){&w[i], y[i], w[i].rows};
            wk_act_set(&m.e, &act, x, n, cols, q8);
            wk_matmul_many(&m.e, products, 3, &act, NULL);
            for (unsigned i = 0; i < 3; i++)
                ck_assert_msg(memcmp(y[i], expected[i], sizeof(float) * n * w[i].rows) == 0,
                              "%s, matrix %u %s [%u, %u], n %u", wk_table_name(m.e.table), i,
                              kd_type_name(w[i].type), w[i].rows, cols, n);
        }
        for (unsigned i = 0; i < 3; i++) {
            free(w[i].data);
            free(expected[i]);
            free(y[i]);
        }
        free(q8);
        free(x);
    }
}
END_TEST

/* A gated FFN with all that it may have; free with close_glu. */
static struct wk_glu draw_glu(enum wk_type gate_type, enum wk_type up_type, uint32_t rows,
                              uint32_t cols, struct wk_matrix w[2])
{
    w[0] = draw_matrix(gate_type, rows, cols);
    w[1] = draw_matrix(up_type, rows, cols);
    return (struct wk_glu){
        .gate = &w[0],
        .up = &w[1],
        .gate_bias = draw(0, 1) != 0 ? kd_floats(&seed, rows) : NULL,
        .up_bias = draw(0, 1) != 0 ? kd_floats(&seed, rows) : NULL,
        .activation = (enum wk_activation)draw(0, WK_ACTIVATION_COUNT - 1),
    };
}

static void close_glu(struct wk_glu *g)
{
    free(g->gate->data);
    free(g->up->data);
    free((void *)(uintptr_t)g->gate_bias);
    free((void *)(uintptr_t)g->up_bias);
}

/* The steps, one by one, for x [n, cols] into out [n, rows]. */
static void glu_in_steps(const struct wk_glu *g, const struct wk_act *x, float *out)
{
    const struct wk_engine ref = {.table = table[0]};
    const uint32_t rows = g->gate->rows;
    float *up = kd_alloc(sizeof *up * x->n * rows);
    wk_matmul(&ref, g->gate, x, out, rows, NULL);
    wk_matmul(&ref, g->up, x, up, rows, NULL);
    for (size_t i = 0; i < (size_t)x->n * rows; i++) {
        if (g->gate_bias != NULL)
            out[i] += g->gate_bias[i % rows];
        if (g->up_bias != NULL)
            up[i] += g->up_bias[i % rows];
    }
    wk_glu(&ref, g->activation, out, up, out, (size_t)x->n * rows);
    free(up);
}

/* Gate and up, biases, activation, 8 bits: its steps, one run; also the last row alone. */
static void check_glu(enum wk_type gate_type, enum wk_type up_type, uint32_t rows, uint32_t cols,
                      uint32_t n)
{
    struct wk_matrix w[2];
    struct wk_glu g = draw_glu(gate_type, up_type, rows, cols, w);
    float *x = kd_floats(&seed, (size_t)n * cols);
    size_t floats = (size_t)n * rows, bytes = wk_act_bytes(n, rows);
    float *a = kd_alloc(floats * 4), *f32 = kd_alloc(floats * 4);
    void *in = cols % WK_BLOCK == 0 ? kd_alloc(wk_act_bytes(n, cols)) : NULL;
    void *q8 = kd_alloc(bytes), *expected = kd_alloc(bytes);
    struct wk_act act, hidden;
    struct wk_engine ref = {.table = table[0]};
    memset(expected, 0, bytes);
    wk_act_set(&ref, &act, x, n, cols, in);
    glu_in_steps(&g, &act, a);
    wk_act_set(&ref, &hidden, a, n, rows, expected);
    for (struct machine m = {0}; next_machine(&m);) {
        wk_act_set(&m.e, &act, x, n, cols, in);
        memset(q8, 0, bytes);
        wk_act_glu(&m.e, &hidden, &g, &act, NULL, q8, NULL);
        ck_assert(hidden.quantised && hidden.n == n && hidden.cols == rows && hidden.f32 == NULL);
        ck_assert_msg(memcmp(q8, expected, bytes) == 0, "%s %s %s [%u, %u] n %u activation %u%s%s",
                      wk_table_name(m.e.table), kd_type_name(gate_type), kd_type_name(up_type),
                      rows, cols, n, (unsigned)g.activation,
                      g.gate_bias != NULL ? " gate bias" : "", g.up_bias != NULL ? " up bias" : "");
        wk_act_glu(&m.e, &hidden, &g, &act, f32, NULL, NULL);
        ck_assert(!hidden.quantised && hidden.f32 == f32);
        ck_assert_mem_eq(f32, a, floats * 4);
        wk_act_set(&m.e, &act, x + (size_t)(n - 1) * cols, 1, cols, in);
        memset(q8, 0, bytes / n);
        wk_act_glu(&m.e, &hidden, &g, &act, NULL, q8, NULL);
        ck_assert_mem_eq(q8, (uint8_t *)expected + bytes / n * (n - 1), bytes / n);
    }
    free(x);
    free(a);
    free(f32);
    free(in);
    free(q8);
    free(expected);
    close_glu(&g);
}

START_TEST(glu_equals_its_steps)
{
    enum wk_type type = kd_types[_i];
    for (unsigned k = 0; k < 8; k++)
        check_glu(type, type, draw(1, 200), draw_cols(type), draw(1, k == 0 ? 40 : 9));
    check_glu(type, kd_types[draw(0, N_TYPES - 1)], draw(1, 700), 256, 3);
}
END_TEST

START_TEST(glu_through_openblas_agrees)
{
    uint32_t rows = 333, cols = 200, n = 70;
    struct wk_matrix w[2];
    struct wk_glu g = draw_glu(WK_F32, WK_F16, rows, cols, w);
    float *x = kd_floats(&seed, (size_t)n * cols);
    struct wk_engine ours = {.table = table[0]}, theirs = {.table = table[0]};
    theirs.gemm = WK_GEMM_OPENBLAS; /* ref always gives way to it */
    theirs.pool = wk_pool_open(2);
    float *a = kd_alloc(sizeof *a * n * rows), *b = kd_alloc(sizeof *b * n * rows);
    void *scratch = kd_alloc(wk_glu_scratch(&theirs, WK_F32, n, rows, cols));
    struct wk_act act, hidden;
    ck_assert_uint_eq(wk_glu_scratch(&ours, WK_F32, n, rows, cols), 0);
    wk_act_set(&ours, &act, x, n, cols, NULL);
    wk_act_glu(&ours, &hidden, &g, &act, a, NULL, NULL);
    wk_act_glu(&theirs, &hidden, &g, &act, b, NULL, scratch);
    ck_assert(hidden.f32 == b && hidden.n == n && hidden.cols == rows && !hidden.quantised);
    /* Products of about 10 differ by at most 200 roundings each; then they are multiplied. */
    for (size_t i = 0; i < (size_t)n * rows; i++)
        ck_assert_float_le(fabsf(a[i] - b[i]), 1e-3f * (1 + fabsf(a[i])));
    wk_pool_close(theirs.pool);
    free(scratch);
    free(x);
    free(a);
    free(b);
    close_glu(&g);
}
END_TEST

/* ------------------------------------------------------------------ exact sums */

START_TEST(add_equals_sum_and_add)
{
    enum wk_type type = kd_types[_i];
    static const uint32_t pieces[] = {32, 64, 96, 256, 8192};
    for (unsigned k = 0; k < 15; k++) {
        uint32_t cols = draw_cols(type), rows = draw(1, 300), n = draw(1, k % 5 == 0 ? 70 : 12);
        size_t floats = (size_t)n * rows;
        struct wk_matrix w = draw_matrix(type, rows, cols);
        float *x = kd_floats(&seed, (size_t)n * cols), *before = kd_floats(&seed, floats);
        float *expected = kd_alloc(floats * 4), *found = kd_alloc(floats * 4);
        int64_t *sum = kd_alloc(floats * sizeof *sum);
        struct wk_engine ref = {.table = table[0]};
        struct wk_act act = kd_act(&ref, type, x, n, cols);
        memcpy(expected, before, floats * 4);
        ck_assert(wk_matmul_sum(&ref, &w, &act, pieces[k % 5], sum, NULL));
        ck_assert(wk_sum_add(&ref, sum, expected, floats));
        free(act.q8);
        for (struct machine m = {0}; next_machine(&m);) {
            act = kd_act(&m.e, type, x, n, cols);
            memcpy(found, before, floats * 4);
            ck_assert_int_eq(wk_matmul_add(&m.e, &w, &act, pieces[k % 5], found), WK_SUM_OK);
            ck_assert_msg(memcmp(found, expected, floats * 4) == 0, "%s %s [%u, %u] n %u piece %u",
                          wk_table_name(m.e.table), kd_type_name(type), rows, cols, n,
                          pieces[k % 5]);
            free(act.q8);
            act = kd_act(&m.e, type, x + (size_t)(n - 1) * cols, 1, cols);
            memcpy(found, before + (size_t)(n - 1) * rows, rows * 4);
            ck_assert_int_eq(wk_matmul_add(&m.e, &w, &act, pieces[k % 5], found), WK_SUM_OK);
            ck_assert_mem_eq(found, expected + (size_t)(n - 1) * rows, rows * 4);
            free(act.q8);
        }
        free(w.data);
        free(x);
        free(before);
        free(expected);
        free(found);
        free(sum);
    }
}
END_TEST

/* Weights of 1 and five pieces, in each of which one activation counts. */
START_TEST(sums_beyond_the_limits_are_refused)
{
    static const struct {
        float x[5];
        enum wk_sum_fault fault;
    } cases[] = {
        {{0x1.fffffep20f, 0x1.fffffep20f, 0x1.fffffep20f}, WK_SUM_OK},
        {{0x1.fffffep20f, 0x1.fffffep20f, 0x1.fffffep20f, 0x1.fffffep20f, 1}, WK_SUM_TOTAL},
        {{-0x1.fffffep20f, -0x1.fffffep20f, -0x1.fffffep20f, -0x1.fffffep20f, -1}, WK_SUM_TOTAL},
        {{0x1p21f}, WK_SUM_PIECE},
        {{0x1p21f, 0x1.fffffep20f, 0x1.fffffep20f, 0x1.fffffep20f, 0x1p20f}, WK_SUM_PIECE},
        {{0, NAN}, WK_SUM_PIECE},
        {{0, 0, INFINITY}, WK_SUM_PIECE},
        {{0, 0, 0, -INFINITY}, WK_SUM_PIECE},
    };
    enum { ROWS = 35, COLS = 5 * WK_BLOCK, N = 3 };
    float *ones = kd_alloc(sizeof *ones * ROWS * COLS), *x = kd_alloc(sizeof *x * N * COLS);
    float residual[N * ROWS];
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
        ones[i] = 1;
    struct wk_matrix w = kd_matrix(WK_F32, ROWS, COLS, (const uint8_t *)ones);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        memset(x, 0, sizeof *x * N * COLS);
        for (size_t i = 0; i < 5; i++)
            x[COLS + i * WK_BLOCK] = cases[k].x[i]; /* the second of three rows */
        for (struct machine m = {0}; next_machine(&m);) {
            struct wk_act act = kd_act(&m.e, WK_F32, x, N, COLS);
            memset(residual, 0, sizeof residual);
            ck_assert_int_eq(wk_matmul_add(&m.e, &w, &act, WK_BLOCK, residual), cases[k].fault);
        }
    }
    free(w.data);
    free(ones);
    free(x);
}
END_TEST

/* Sums of every size against the definition, on every table and as the pool cuts them. */
START_TEST(sums_of_every_size_are_added_alike)
{
    enum { N = 40000 };
    int64_t *sum = kd_alloc(sizeof *sum * N);
    float *before = kd_floats(&seed, N), *expected = kd_alloc(N * 4), *found = kd_alloc(N * 4);
    struct wk_engine ref = {.table = table[0]};
    for (size_t i = 0; i < N; i++) {
        sum[i] = (int64_t)(weft_test_random(&seed) >> draw(11, 63));
        sum[i] = draw(0, 1) != 0 ? sum[i] : -sum[i];
    }
    for (int far = 0; far < 3; far++) { /* then a total at the limit, then one beyond it */
        sum[N - 9] = far == 0 ? 0 : (INT64_C(1) << 53) - (far == 1);
        memcpy(expected, before, N * 4);
        ck_assert_int_eq(wk_sum_add(&ref, sum, expected, N), far < 2);
        for (struct machine m = {0}; next_machine(&m);) {
            memcpy(found, before, N * 4);
            ck_assert_int_eq(wk_sum_add(&m.e, sum, found, N), far < 2);
            if (far < 2)
                ck_assert_mem_eq(found, expected, N * 4);
            memcpy(found, before, N * 4);
            ck_assert_int_eq(wk_sum_get(&m.e, sum, found, N), far < 2);
            for (size_t i = 0; i < N && far < 2; i++)
                ck_assert(found[i] == (float)ldexp((double)sum[i], -30));
        }
    }
    free(sum);
    free(before);
    free(expected);
    free(found);
}
END_TEST

/* ------------------------------------------------------------------ a layer */

/* A member that is alone, and one that stops at its sums with nobody to add to them. */
START_TEST(a_layer_alone_equals_one_that_stops)
{
    static const uint32_t types[] = {WEFT_F32, WEFT_F16, WEFT_Q8_0, WEFT_Q4_0};
    enum { N = 5, DIM = 96, FFN = 544, KV = 32 };
    const struct synthetic_shape shape = {.n_layers = 1,
                                          .dim = DIM,
                                          .n_heads = 6,
                                          .n_kv_heads = 2,
                                          .head_dim = 16,
                                          .ffn_dim = FFN,
                                          .vocab = 16,
                                          .type = types[_i],
                                          .seed = 4};
    struct synthetic_model m = synthetic_open(&shape);
    struct weft_store *store;
    struct weft_layer_weights w;
    ck_assert_int_eq(weft_store_open(&store, NULL), 0);
    synthetic_load(&m, store, 0, 1, false, false);
    ck_assert_int_eq(weft_layer_find(store, 0, &w, NULL), 0);
    struct wk_kv kv = {.type = WK_KV_F16, .kv_heads = 2, .head_dim = 16, .capacity = 64};
    kv.data = kd_alloc(wk_kv_bytes(kv.type, 2, 16, 64));
    float x[2][N * DIM], cosines[N * 8], sines[N * 8];
    struct weft_layer_buffers b = {.normed = kd_alloc(sizeof(float) * N * DIM),
                                   .q = kd_alloc(sizeof(float) * N * DIM),
                                   .k = kd_alloc(sizeof(float) * N * KV),
                                   .v = kd_alloc(sizeof(float) * N * KV),
                                   .heads = kd_alloc(sizeof(float) * N * DIM),
                                   .hidden = kd_alloc(sizeof(float) * N * FFN),
                                   .angles = {{cosines, sines}},
                                   .q8 = kd_alloc(wk_act_bytes(N, DIM)),
                                   .sum = kd_alloc(sizeof(int64_t) * N * DIM)};
    kd_angles((const int32_t[N]){0, 1, 2, 3, 4}, N, 16, 10000, NULL, cosines, sines);
    const struct wk_engine e = {.table = wk_table_select(NULL)};
    const struct weft_segment g = {.rows = N};
    for (int alone = 0; alone < 2; alone++) {
        for (int i = 0; i < N * DIM; i++)
            x[alone][i] = (float)(i % 29) * 0.1f - 1;
        b.x = x[alone];
        struct weft_layer l = {.model = weft_store_model(store),
                               .arch = weft_arch_find("llama"),
                               .store = store,
                               .engine = &e,
                               .weights = &w,
                               .buffers = &b,
                               .kv = &kv,
                               .segments = &g,
                               .n_segments = 1,
                               .n_rows = N,
                               .alone = alone != 0};
        int stops = 0, r;
        while ((r = weft_layer_resume(&l, NULL)) == WEFT_LAYER_SUM)
            stops++;
        ck_assert_int_eq(r, 0);
        ck_assert_int_eq(stops, alone != 0 ? 0 : 2);
    }
    ck_assert_mem_eq(x[0], x[1], sizeof x[0]);
    free(b.normed);
    free(b.q);
    free(b.k);
    free(b.v);
    free(b.heads);
    free(b.hidden);
    free(b.q8);
    free(b.sum);
    free(kv.data);
    weft_store_close(store);
    synthetic_close(&m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("fused");
    TCase *t = tcase_create("fused");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, norm_and_quantise_in_one_pass);
    tcase_add_test(t, many_products_equal_single_ones);
    tcase_add_loop_test(t, glu_equals_its_steps, 0, N_TYPES);
    tcase_add_loop_test(t, glu_through_openblas_agrees, 0, 4);
    tcase_add_loop_test(t, add_equals_sum_and_add, 0, N_TYPES);
    tcase_add_test(t, sums_beyond_the_limits_are_refused);
    tcase_add_test(t, sums_of_every_size_are_added_alike);
    tcase_add_loop_test(t, a_layer_alone_equals_one_that_stops, 0, 4);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
