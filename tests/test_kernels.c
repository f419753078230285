/*
 * Products: every table of this CPU gives the bits of ref, for every shape, thread count and
 * company; ref agrees with plain sums over the dequantised weights; dequantisation is that of the
 * format.
 */
#include "tests/harness.h"
#include "tests/kernel_data.h"

#include <math.h>
#include <stdio.h>
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

static float *product(const struct wk_engine *e, const struct wk_matrix *w, const float *x,
                      uint32_t n, uint32_t ldy)
{
    struct wk_act act = kd_act(e, w->type, x, n, w->cols);
    float *y = kd_alloc((size_t)n * ldy * sizeof *y);
    void *scratch = kd_alloc(wk_matmul_scratch(e, w->type, n, w->rows, w->cols));
    for (size_t i = 0; i < (size_t)n * ldy; i++)
        y[i] = 12345;
    wk_matmul(e, w, &act, y, ldy, scratch);
    free(scratch);
    free(act.q8);
    return y;
}

/* One shape on every table against ref, whole and with each row alone. */
static void check_shape(enum wk_type type, uint32_t rows, uint32_t cols, uint32_t n, bool any)
{
    uint8_t *gguf = kd_gguf(&seed, type, rows, cols, any);
    float *x = any ? kd_any_floats(&seed, (size_t)n * cols) : kd_floats(&seed, (size_t)n * cols);
    struct wk_matrix w = kd_matrix(type, rows, cols, gguf);
    uint32_t ldy = rows + 3;
    struct wk_engine ref = {.table = table[0]};
    float *expected = product(&ref, &w, x, n, ldy);
    for (size_t t = 0; t < n_tables; t++) {
        struct wk_engine e = {.table = table[t]};
        float *y = product(&e, &w, x, n, ldy);
        size_t at = kd_differ(expected, y, (size_t)n * ldy);
        ck_assert_msg(at == (size_t)n * ldy,
                      "%s %s rows %u cols %u n %u: row %zu of x, %zu of w: %a not %a",
                      wk_table_name(table[t]), kd_type_name(type), rows, cols, n, at / ldy,
                      at % ldy, y[at], expected[at]);
        free(y);
        uint32_t alone = draw(0, n - 1);
        y = product(&e, &w, x + (size_t)alone * cols, 1, rows);
        ck_assert_uint_eq(kd_differ(expected + (size_t)alone * ldy, y, rows), rows);
        free(y);
    }
    free(expected);
    free(w.data);
    free(x);
    free(gguf);
}

START_TEST(every_table_gives_the_bits_of_ref)
{
    enum wk_type type = kd_types[_i];
    uint32_t unit = kd_type_cols(type), most = unit == 1 ? 300 : unit == 32 ? 320 : 768;
    for (uint32_t cols = unit; cols <= most; cols += unit)
        for (unsigned i = 0; i < (unit == 1 ? 3u : 12u); i++)
            check_shape(type, draw(1, 40), cols, draw(1, 17), false);
}
END_TEST

START_TEST(every_number_of_rows)
{
    enum wk_type type = kd_types[_i];
    uint32_t cols = kd_type_cols(type) == 1 ? 7 : kd_type_cols(type);
    for (uint32_t rows = 1; rows <= 40; rows++)
        for (uint32_t n = 1; n <= 17; n++)
            check_shape(type, rows, cols, n, false);
}
END_TEST

/* Runs of several tiles, and more rows than a pass takes. */
START_TEST(large_shapes)
{
    enum wk_type type = kd_types[_i];
    uint32_t unit = kd_type_cols(type), cols = unit == 256 ? 256 : 64;
    for (uint32_t n = 1; n <= 9; n++)
        check_shape(type, 258 + 16 * n, cols, n, false);
    check_shape(type, 20, cols, 33, false);
    check_shape(type, 33, cols, 70, false);
}
END_TEST

START_TEST(hostile_weights_and_activations)
{
    enum wk_type type = kd_types[_i];
    uint32_t unit = kd_type_cols(type);
    for (unsigned i = 0; i < 60; i++)
        check_shape(type, draw(1, 40), unit * draw(1, unit == 256 ? 2 : 9), draw(1, 9), true);
}
END_TEST

/* The ends of the integer ranges: every weight least or greatest, activations at +-127. */
START_TEST(extreme_integers)
{
    enum wk_type type = kd_types[_i];
    uint32_t cols = 512, rows = 17, n = 6;
    if (kd_type_cols(type) == 1)
        return;
    float *x = kd_alloc(sizeof *x * n * cols);
    for (size_t i = 0; i < (size_t)n * cols; i++)
        x[i] = i / cols == 0 ? 1.0f : i / cols == 1 ? -1.0f : draw(0, 1) != 0 ? 1.0f : -1.0f;
    static const uint8_t bytes[] = {0x80, 0x7f, 0x00, 0xff, 0x88, 0x81};
    for (size_t b = 0; b < sizeof bytes; b++) {
        uint8_t *gguf = kd_gguf(&seed, type, rows, cols, false);
        uint32_t size = (uint32_t)kd_gguf_bytes(type, 1, kd_type_cols(type));
        for (size_t at = 0; at < kd_gguf_bytes(type, rows, cols); at++) {
            size_t in = at % size;
            bool scale = kd_is_scale(type, in);
            gguf[at] = scale ? gguf[at] : bytes[b];
        }
        struct wk_matrix w = kd_matrix(type, rows, cols, gguf);
        struct wk_engine ref = {.table = table[0]};
        float *expected = product(&ref, &w, x, n, rows);
        float *row = kd_alloc(cols * sizeof *row);
        for (uint32_t r = 0; r < rows; r++) {
            wk_matrix_row(&w, r, row);
            for (uint32_t i = 0; i < n; i++) {
                double sum = 0, size_sum = 0;
                for (uint32_t c = 0; c < cols; c++) {
                    sum += (double)row[c] * (double)x[i * cols + c];
                    size_sum += fabs((double)row[c]);
                }
                ck_assert_double_le(fabs(sum - (double)expected[i * rows + r]), size_sum * 0x1p-18);
            }
        }
        for (size_t t = 1; t < n_tables; t++) {
            struct wk_engine e = {.table = table[t]};
            float *y = product(&e, &w, x, n, rows);
            ck_assert_uint_eq(kd_differ(expected, y, (size_t)n * rows), (size_t)n * rows);
            free(y);
        }
        free(row);
        free(expected);
        free(w.data);
        free(gguf);
    }
    free(x);
}
END_TEST

START_TEST(threads_never_show)
{
    enum wk_type type = kd_types[_i];
    for (uint32_t rows = 1; rows < 1500; rows = rows * 3 + 7) {
        uint32_t cols = kd_type_cols(type) == 256 ? 256 : 64, n = draw(1, 5);
        uint8_t *gguf = kd_gguf(&seed, type, rows, cols, false);
        float *x = kd_floats(&seed, (size_t)n * cols);
        struct wk_matrix w = kd_matrix(type, rows, cols, gguf);
        struct wk_engine e = {.table = table[n_tables - 1]};
        float *expected = product(&e, &w, x, n, rows);
        for (unsigned threads = 2; threads <= 4; threads++) {
            e.pool = wk_pool_open(threads);
            ck_assert_ptr_nonnull(e.pool);
            float *y = product(&e, &w, x, n, rows);
            ck_assert_int_eq(memcmp(expected, y, sizeof *y * n * rows), 0);
            free(y);
            wk_pool_close(e.pool);
        }
        free(expected);
        free(w.data);
        free(x);
        free(gguf);
    }
}
END_TEST

/* Bound: n epsilon sum |a b|, and for quantised weights half a step of each activation. */
START_TEST(ref_agrees_with_plain_sums)
{
    enum wk_type type = kd_types[_i];
    for (unsigned k = 0; k < 20; k++) {
        uint32_t unit = kd_type_cols(type), rows = draw(1, 20), n = draw(1, 4);
        uint32_t cols = unit == 1 ? draw(1, 300) : unit * draw(1, unit == 256 ? 3 : 10);
        uint8_t *gguf = kd_gguf(&seed, type, rows, cols, false);
        float *x = kd_floats(&seed, (size_t)n * cols), *row = kd_alloc(cols * sizeof *row);
        struct wk_matrix w = kd_matrix(type, rows, cols, gguf);
        struct wk_engine e = {.table = table[0]};
        float *y = product(&e, &w, x, n, rows);
        for (uint32_t r = 0; r < rows; r++) {
            wk_dequantise(type, gguf + kd_gguf_bytes(type, r, cols), cols, row);
            for (uint32_t i = 0; i < n; i++) {
                double sum = 0, size = 0, steps = 0;
                for (uint32_t c = 0; c < cols; c++) {
                    double v = (double)row[c], amax = 0;
                    for (uint32_t j = c / 32 * 32; j < c / 32 * 32 + 32 && j < cols; j++)
                        amax = fmax(amax, fabs((double)x[i * cols + j]));
                    sum += v * (double)x[i * cols + c];
                    size += fabs(v * (double)x[i * cols + c]);
                    steps += unit == 1 ? 0 : fabs(v) * amax / 127 * 0.5001;
                }
                double bound = steps + (cols + 4) * 0x1p-23 * (size + steps);
                ck_assert_msg(fabs(sum - (double)y[i * rows + r]) <= bound, "%s %u x %u: %g not %g",
                              kd_type_name(type), rows, cols, (double)y[i * rows + r], sum);
            }
        }
        free(y);
        free(w.data);
        free(row);
        free(x);
        free(gguf);
    }
}
END_TEST

/* ------------------------------------------------------------------ exact sums */

/* Activations that are zero outside a piece give exactly that piece's product. */
START_TEST(pieces_are_summed_exactly)
{
    enum wk_type type = kd_types[_i];
    for (unsigned k = 0; k < 12; k++) {
        static const uint32_t pieces[] = {32, 64, 96, 256, 1024};
        uint32_t unit = kd_type_cols(type), rows = draw(1, 40), n = draw(1, 9),
                 piece = pieces[k % 5];
        uint32_t cols = unit == 1 ? draw(1, 600) : unit * draw(1, unit == 256 ? 3 : 20);
        uint8_t *gguf = kd_gguf(&seed, type, rows, cols, false);
        float *x = kd_floats(&seed, (size_t)n * cols), *part = kd_alloc(sizeof *part * n * cols);
        struct wk_matrix w = kd_matrix(type, rows, cols, gguf);
        int64_t *expected = calloc((size_t)n * rows, sizeof *expected);
        int64_t *sum = kd_alloc(sizeof *sum * n * rows);
        struct wk_engine e = {.table = table[0]};
        for (uint32_t c = 0; c < cols; c += piece) {
            for (size_t i = 0; i < (size_t)n * cols; i++)
                part[i] = i % cols >= c && i % cols - c < piece ? x[i] : 0;
            float *y = product(&e, &w, part, n, rows);
            for (size_t i = 0; i < (size_t)n * rows; i++)
                expected[i] += llrint((double)y[i] * 0x1p30);
            free(y);
        }
        for (size_t t = 0; t < n_tables; t++) {
            e.table = table[t];
            e.pool = k % 3 == 0 ? wk_pool_open(3) : NULL;
            struct wk_act act = kd_act(&e, type, x, n, cols);
            memset(sum, 0x55, sizeof *sum * n * rows);
            ck_assert(wk_matmul_sum(&e, &w, &act, piece, sum, NULL));
            ck_assert_msg(memcmp(sum, expected, sizeof *sum * n * rows) == 0,
                          "%s %s %u x %u, n %u, pieces of %u", wk_table_name(table[t]),
                          kd_type_name(type), rows, cols, n, piece);
            free(act.q8);
            wk_pool_close(e.pool);
        }
        free(sum);
        free(expected);
        free(w.data);
        free(part);
        free(x);
        free(gguf);
    }
}
END_TEST

START_TEST(pieces_beyond_the_limit_are_refused)
{
    static const struct {
        float x;
        bool ok;
    } cases[] = {{0x1.fffffep20f, true}, {-0x1.fffffep20f, true}, {0x1p21f, false},
                 {-0x1p21f, false},      {INFINITY, false},       {-INFINITY, false},
                 {NAN, false},           {0x1p-149f, true}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        uint8_t one[4];
        memcpy(one, &(float){1}, sizeof one);
        for (size_t t = 0; t < n_tables; t++) {
            struct wk_matrix w = kd_matrix(WK_F32, 1, 1, one);
            struct wk_engine e = {.table = table[t]};
            struct wk_act act = kd_act(&e, WK_F32, &cases[k].x, 1, 1);
            int64_t sum;
            ck_assert_int_eq(wk_matmul_sum(&e, &w, &act, 32, &sum, NULL), cases[k].ok);
            if (cases[k].ok)
                ck_assert_int_eq(sum, llrint((double)cases[k].x * 0x1p30));
            free(w.data);
        }
    }
}
END_TEST

/* Ties go to the even multiple of 2^-30. */
START_TEST(pieces_round_to_nearest_even)
{
    static const struct {
        float x;
        int64_t sum;
    } cases[] = {{0x1p-31f, 0},        {0x3p-31f, 2},   {0x5p-31f, 2},
                 {-0x1p-31f, 0},       {-0x3p-31f, -2}, {0x1.000002p-31f, 1},
                 {0x1.fffffep-32f, 0}, {-0.0f, 0},      {1.0f, 1 << 30}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (size_t t = 0; t < n_tables; t++) {
            uint8_t one[4];
            memcpy(one, &(float){1}, sizeof one);
            struct wk_matrix w = kd_matrix(WK_F32, 1, 1, one);
            struct wk_engine e = {.table = table[t]};
            struct wk_act act = kd_act(&e, WK_F32, &cases[k].x, 1, 1);
            int64_t sum;
            ck_assert(wk_matmul_sum(&e, &w, &act, 32, &sum, NULL));
            ck_assert_int_eq(sum, cases[k].sum);
            free(w.data);
        }
}
END_TEST

START_TEST(totals_beyond_the_limit_are_refused)
{
    struct wk_engine e = {.table = table[0]};
    int64_t limit = INT64_C(1) << 53;
    float x[3] = {1, 2, 3};
    ck_assert(wk_sum_add(&e, (int64_t[]){1 << 30, limit - 1, -limit + 1}, x, 3));
    ck_assert(x[0] == 2 && x[1] == 2 + 0x1p23f && x[2] == 3 - 0x1p23f);
    float y[3] = {1, 2, 3};
    ck_assert(!wk_sum_add(&e, (int64_t[]){1 << 30, limit, 1 << 30}, y, 3));
    ck_assert(y[0] == 2 && y[1] == 2 && y[2] == 3);
    ck_assert(!wk_sum_add(&e, (int64_t[]){-limit}, y, 1));
}
END_TEST

/* ------------------------------------------------------------------ formats */

START_TEST(matrix_bytes)
{
    for (size_t k = 0; k < KD_TYPES; k++) {
        enum wk_type type = kd_types[k];
        uint32_t unit = kd_type_cols(type);
        ck_assert(wk_type_supported(type));
        enum wk_type as = type == WK_TQ1_0 ? WK_TQ2_0 : type; /* packed as that */
        ck_assert_uint_eq(wk_matrix_bytes(type, 16, unit * 3), kd_gguf_bytes(as, 16, unit * 3));
        ck_assert_uint_eq(wk_matrix_bytes(type, 17, unit), kd_gguf_bytes(as, 32, unit));
        ck_assert_uint_eq(wk_matrix_bytes(type, 0, unit), 0);
        if (unit > 1)
            ck_assert_uint_eq(wk_matrix_bytes(type, 16, unit + 1), 0);
    }
    ck_assert_uint_eq(wk_matrix_bytes(WK_F32, UINT32_MAX, UINT32_MAX), 0);
    ck_assert_uint_eq(wk_matrix_bytes((enum wk_type)9, 16, 256), 0);
    ck_assert(!wk_type_supported(1u << 20) && !wk_type_supported(WK_TYPE_COUNT));
}
END_TEST

/* Rows packed in parts come back as the format says, whatever their bytes. */
START_TEST(packing_keeps_values)
{
    enum wk_type type = kd_types[_i];
    uint32_t unit = kd_type_cols(type), cols = unit == 1 ? 37 : unit * 2, rows = 53;
    for (int any = 0; any < 2; any++) {
        uint8_t *gguf = kd_gguf(&seed, type, rows, cols, any != 0);
        struct wk_matrix m = kd_matrix(type, rows, cols, gguf), parts = m;
        size_t bytes = wk_matrix_bytes(type, rows, cols);
        parts.data = kd_alloc(bytes);
        wk_matrix_pack(&parts, 32, 21, gguf + kd_gguf_bytes(type, 32, cols));
        wk_matrix_pack(&parts, 0, 16, gguf);
        wk_matrix_pack(&parts, 16, 16, gguf + kd_gguf_bytes(type, 16, cols));
        ck_assert_int_eq(memcmp(m.data, parts.data, bytes), 0);
        float *a = kd_alloc(cols * sizeof *a), *b = kd_alloc(cols * sizeof *b);
        for (uint32_t r = 0; r < rows; r++) {
            wk_dequantise(type, gguf + kd_gguf_bytes(type, r, cols), cols, a);
            wk_matrix_row(&m, r, b);
            ck_assert_uint_eq(kd_differ(a, b, cols), cols);
        }
        free(a);
        free(b);
        free(parts.data);
        free(m.data);
        free(gguf);
    }
}
END_TEST

static const char *after(const char *text, const char *key)
{
    const char *at = text != NULL ? strstr(text, key) : NULL;
    return at != NULL ? at + strlen(key) : NULL;
}

START_TEST(golden_dequantisation)
{
    enum wk_type type = kd_types[_i];
    size_t size;
    char *json = (char *)weft_test_read("../shared/golden/dequant.json", &size), key[32];
    if (json == NULL) {
        weft_test_skip("no ../shared/golden/dequant.json");
        return;
    }
    snprintf(key, sizeof key, "\"%s\": {", kd_type_name(type));
    const char *entry = after(json, key);
    if (entry != NULL) {
        uint32_t rows = (uint32_t)strtoul(after(entry, "\"rows\": "), NULL, 10);
        uint32_t cols = (uint32_t)strtoul(after(entry, "\"columns\": "), NULL, 10);
        const char *hex = after(entry, "\"bytes_hex\": \""), *values = after(entry, "\"values\": ");
        size_t bytes = kd_gguf_bytes(type, rows, cols);
        ck_assert_uint_eq(strspn(hex, "0123456789abcdef"), 2 * bytes);
        uint8_t *gguf = kd_alloc(bytes);
        for (size_t i = 0; i < bytes; i++)
            gguf[i] = (uint8_t)strtoul((char[]){hex[2 * i], hex[2 * i + 1], 0}, NULL, 16);
        float *x = kd_alloc(cols * sizeof *x);
        for (uint32_t r = 0; r < rows; r++) {
            wk_dequantise(type, gguf + kd_gguf_bytes(type, r, cols), cols, x);
            for (uint32_t c = 0; c < cols; c++) {
                char *end;
                values += strspn(values, "[], \n");
                float expected = (float)strtod(values, &end);
                ck_assert(end != values);
                values = end;
                ck_assert_msg(x[c] == expected, "row %u column %u: %a not %a", r, c, x[c],
                              expected);
            }
        }
        free(x);
        free(gguf);
    } else {
        ck_assert_msg(kd_type_cols(type) == 1 || type == WK_TQ1_0 || type == WK_TQ2_0,
                      "no %s in dequant.json", kd_type_name(type));
    }
    free(json);
}
END_TEST

/* Ternary blocks and bfloat16, encoded here from the public descriptions: five digits of base 3 in
 * a byte are the fraction ceil(256 / 243 * number); pairs of bits hold four columns 32 apart. */
START_TEST(ternary_and_bfloat)
{
    int digit[256];
    uint8_t one[54] = {0}, two[66] = {0};
    float found[256];
    for (unsigned c = 0; c < 256; c++)
        digit[c] = (int)draw(0, 2);
    for (unsigned at = 0; at < 52; at++) {
        /* first column of a byte, distance to the next, how many */
        unsigned first = at < 32 ? at : at < 48 ? 160 + at - 32 : 240 + at - 48;
        unsigned step = at < 32 ? 32 : at < 48 ? 16 : 4, digits = at < 48 ? 5 : 4, number = 0;
        for (unsigned k = 0; k < 5; k++)
            number = number * 3 + (k < digits ? (unsigned)digit[first + k * step] : 0);
        one[at] = (uint8_t)((number * 256 + 242) / 243);
    }
    for (unsigned c = 0; c < 256; c++) {
        uint8_t *byte = &two[c / 128 * 32 + c % 32];
        *byte = (uint8_t)(*byte | digit[c] << (c % 128 / 32 * 2));
    }
    one[52] = two[64] = 0x00;
    one[53] = two[65] = 0x35; /* 0.3125 */
    wk_dequantise(WK_TQ1_0, one, 256, found);
    for (unsigned c = 0; c < 256; c++)
        ck_assert_msg(found[c] == 0.3125f * (float)(digit[c] - 1), "TQ1_0, column %u", c);
    wk_dequantise(WK_TQ2_0, two, 256, found);
    for (unsigned c = 0; c < 256; c++)
        ck_assert_msg(found[c] == 0.3125f * (float)(digit[c] - 1), "TQ2_0, column %u", c);
    static const uint16_t bits[] = {0x3f80, 0xc040, 0x0000, 0x8000, 0x7f80, 0x0001, 0x4049};
    static const float values[] = {1, -3, 0, -0.0f, INFINITY, 0x1p-133f, 3.140625f};
    wk_dequantise(WK_BF16, bits, 7, found);
    ck_assert_uint_eq(kd_differ(found, values, 7), 7);
}
END_TEST

START_TEST(tables)
{
    ck_assert_uint_ge(n_tables, 1);
    ck_assert_str_eq(wk_table_name(table[0]), "ref");
    for (size_t i = 0; i < n_tables; i++)
        ck_assert_ptr_eq(wk_table_select(wk_table_name(table[i])), table[i]);
    ck_assert_ptr_null(wk_table_select("mmx"));
    unsetenv("WEFT_ISA");
    ck_assert_ptr_eq(wk_table_select(NULL), table[n_tables - 1]);
    setenv("WEFT_ISA", "ref", 1);
    ck_assert_ptr_eq(wk_table_select(NULL), table[0]);
    unsetenv("WEFT_ISA");
    ck_assert_uint_eq(wk_table_list(table, 1), 1);
}
END_TEST

/* FNV-1a over what ref computes from a fixed seed. The number was written down on x86-64; arm64
 * must find the same, so that machines of different kinds agree. Where arithmetic is changed on
 * purpose, so is it. */
START_TEST(every_architecture_finds_these_bits)
{
    enum { N = 5, COLS = 512, ROWS = 35 };
    for (size_t t = 0; t < n_tables; t++) {
        struct wk_engine e = {.table = table[t]};
        uint64_t fixed = 42, h = UINT64_C(14695981039346656037);
        for (size_t k = 0; k < KD_TYPES; k++) {
            uint8_t *gguf = kd_gguf(&fixed, kd_types[k], ROWS, COLS, false);
            float *x = kd_floats(&fixed, (size_t)N * COLS), c[N * COLS / 2], s[N * COLS / 2];
            struct wk_matrix w = kd_matrix(kd_types[k], ROWS, COLS, gguf);
            kd_angles((int32_t[]){0, 9, 500, 70000, 1 << 23}, N, COLS, 10000, NULL, c, s);
            wk_rope(&e, WK_ROPE_PAIRS, x, N, 1, COLS, COLS, c, s);
            float *weight = kd_floats(&fixed, COLS);
            wk_rms_norm(&e, x, weight, 1e-6f, N, COLS, x);
            free(weight);
            wk_glu(&e, WK_SILU, x, c, x, (size_t)N * COLS / 2);
            float *y = product(&e, &w, x, N, ROWS);
            const uint8_t *bytes = (const uint8_t *)y;
            for (size_t i = 0; i < sizeof *y * N * ROWS; i++)
                h = (h ^ bytes[i]) * 1099511628211u;
            free(y);
            free(w.data);
            free(x);
            free(gguf);
        }
        ck_assert_msg(h == UINT64_C(0x5f876733c59c292a), "%s finds %#llx", wk_table_name(table[t]),
                      (unsigned long long)h);
    }
}
END_TEST

/* OpenBLAS sums in its own order: agreement within n epsilon sum |a b| on both sides. */
START_TEST(openblas_agrees_within_rounding)
{
    static const enum wk_type floats[] = {WK_F32, WK_F16, WK_BF16};
    enum wk_type type = floats[_i];
    for (unsigned k = 0; k < 6; k++) {
        uint32_t rows = draw(1, 600), cols = draw(1, 700), n = draw(64, 100);
        uint8_t *gguf = kd_gguf(&seed, type, rows, cols, false);
        float *x = kd_floats(&seed, (size_t)n * cols), *row = kd_alloc(cols * sizeof *row);
        struct wk_matrix w = kd_matrix(type, rows, cols, gguf);
        struct wk_engine ours = {.table = table[n_tables - 1]}, theirs = ours;
        theirs.gemm = WK_GEMM_OPENBLAS;
        theirs.table = table[0]; /* ref, which always gives way to it */
        theirs.pool = wk_pool_open(1 + k % 3);
        float *a = product(&ours, &w, x, n, rows + 1), *b = product(&theirs, &w, x, n, rows + 1);
        for (uint32_t r = 0; r < rows; r++) {
            wk_matrix_row(&w, r, row);
            for (uint32_t i = 0; i < n; i++) {
                float size = 0;
                for (uint32_t c = 0; c < cols; c++)
                    size += fabsf(row[c] * x[i * cols + c]);
                float gap = fabsf(a[i * (rows + 1) + r] - b[i * (rows + 1) + r]);
                ck_assert_float_le(gap, (float)(cols + 2) * 0x1p-22f * size);
            }
        }
        ck_assert_float_eq(b[rows], 12345); /* the gap between rows is untouched */
        wk_pool_close(theirs.pool);
        free(a);
        free(b);
        free(w.data);
        free(row);
        free(x);
        free(gguf);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("kernels");
    TCase *t = tcase_create("products");
    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, tables);
    tcase_add_test(t, matrix_bytes);
    tcase_add_test(t, ternary_and_bfloat);
    tcase_add_loop_test(t, packing_keeps_values, 0, KD_TYPES);
    tcase_add_loop_test(t, golden_dequantisation, 0, KD_TYPES);
    tcase_add_loop_test(t, ref_agrees_with_plain_sums, 0, KD_TYPES);
    tcase_add_loop_test(t, every_table_gives_the_bits_of_ref, 0, KD_TYPES);
    tcase_add_loop_test(t, every_number_of_rows, 0, KD_TYPES);
    tcase_add_loop_test(t, large_shapes, 0, KD_TYPES);
    tcase_add_loop_test(t, hostile_weights_and_activations, 0, KD_TYPES);
    tcase_add_loop_test(t, extreme_integers, 0, KD_TYPES);
    tcase_add_loop_test(t, threads_never_show, 0, KD_TYPES);
    tcase_add_loop_test(t, pieces_are_summed_exactly, 0, KD_TYPES);
    tcase_add_test(t, pieces_beyond_the_limit_are_refused);
    tcase_add_test(t, pieces_round_to_nearest_even);
    tcase_add_test(t, totals_beyond_the_limit_are_refused);
    tcase_add_test(t, every_architecture_finds_these_bits);
    tcase_add_loop_test(t, openblas_agrees_within_rounding, 0, 3);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
