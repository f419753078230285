/*
 * Tests of base/tensor_check: blocks of every type with each scale made NaN or infinite in turn.
 * Where the scales lie is written here once more, as the structures of the format's public
 * description.
 */
#include "base/gguf.h"
#include "base/tensor_check.h"
#include "tests/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ggml-common.h of the public ggml repository; half precision as its bits. */
struct q4_0 {
    uint16_t d;
    uint8_t qs[16];
};
struct q4_1 {
    uint16_t d, m;
    uint8_t qs[16];
};
struct q5_0 {
    uint16_t d;
    uint8_t qh[4], qs[16];
};
struct q5_1 {
    uint16_t d, m;
    uint8_t qh[4], qs[16];
};
struct q8_0 {
    uint16_t d;
    int8_t qs[32];
};
struct q2_k {
    uint8_t scales[16], qs[64];
    uint16_t d, dmin;
};
struct q3_k {
    uint8_t hmask[32], qs[64], scales[12];
    uint16_t d;
};
struct q4_k {
    uint16_t d, dmin;
    uint8_t scales[12], qs[128];
};
struct q5_k {
    uint16_t d, dmin;
    uint8_t scales[12], qh[32], qs[128];
};
struct q6_k {
    uint8_t ql[128], qh[64];
    int8_t scales[16];
    uint16_t d;
};
struct iq4_nl {
    uint16_t d;
    uint8_t qs[16];
};
struct iq4_xs {
    uint16_t d, scales_h;
    uint8_t scales_l[4], qs[128];
};
struct tq1_0 {
    uint8_t qs[48], qh[4];
    uint16_t d;
};
struct tq2_0 {
    uint8_t qs[64];
    uint16_t d;
};

/* Kinds of float: f16, bf16, f32. */
enum kind { HALF, BRAIN, SINGLE };

struct place {
    const char *name; /* NULL: none */
    size_t offset;
};

static const struct layout {
    uint32_t type;
    size_t block_bytes;
    enum kind kind;
    struct place places[2];
} layouts[] = {
    {WEFT_F32, 4, SINGLE, {{"value", 0}}},
    {WEFT_F16, 2, HALF, {{"value", 0}}},
    {WEFT_BF16, 2, BRAIN, {{"value", 0}}},
    {WEFT_Q4_0, sizeof(struct q4_0), HALF, {{"d", offsetof(struct q4_0, d)}}},
    {WEFT_Q4_1,
     sizeof(struct q4_1),
     HALF,
     {{"d", offsetof(struct q4_1, d)}, {"m", offsetof(struct q4_1, m)}}},
    {WEFT_Q5_0, sizeof(struct q5_0), HALF, {{"d", offsetof(struct q5_0, d)}}},
    {WEFT_Q5_1,
     sizeof(struct q5_1),
     HALF,
     {{"d", offsetof(struct q5_1, d)}, {"m", offsetof(struct q5_1, m)}}},
    {WEFT_Q8_0, sizeof(struct q8_0), HALF, {{"d", offsetof(struct q8_0, d)}}},
    {WEFT_Q2_K,
     sizeof(struct q2_k),
     HALF,
     {{"d", offsetof(struct q2_k, d)}, {"dmin", offsetof(struct q2_k, dmin)}}},
    {WEFT_Q3_K, sizeof(struct q3_k), HALF, {{"d", offsetof(struct q3_k, d)}}},
    {WEFT_Q4_K,
     sizeof(struct q4_k),
     HALF,
     {{"d", offsetof(struct q4_k, d)}, {"dmin", offsetof(struct q4_k, dmin)}}},
    {WEFT_Q5_K,
     sizeof(struct q5_k),
     HALF,
     {{"d", offsetof(struct q5_k, d)}, {"dmin", offsetof(struct q5_k, dmin)}}},
    {WEFT_Q6_K, sizeof(struct q6_k), HALF, {{"d", offsetof(struct q6_k, d)}}},
    {WEFT_IQ4_NL, sizeof(struct iq4_nl), HALF, {{"d", offsetof(struct iq4_nl, d)}}},
    {WEFT_IQ4_XS, sizeof(struct iq4_xs), HALF, {{"d", offsetof(struct iq4_xs, d)}}},
    {WEFT_TQ1_0, sizeof(struct tq1_0), HALF, {{"d", offsetof(struct tq1_0, d)}}},
    {WEFT_TQ2_0, sizeof(struct tq2_0), HALF, {{"d", offsetof(struct tq2_0, d)}}},
};
#define LAYOUTS ((int)(sizeof layouts / sizeof layouts[0]))

/* Hostile bits of each kind of float. */
#define BAD 5
static const struct {
    uint32_t bits;
    const char *found;
} bad[][BAD] = {
    [HALF] = {{0x7e00, "NaN"},
              {0xfe00, "NaN"},
              {0x7c01, "NaN"},
              {0x7c00, "infinity"},
              {0xfc00, "-infinity"}},
    [BRAIN] = {{0x7fc0, "NaN"},
               {0xffc0, "NaN"},
               {0x7f81, "NaN"},
               {0x7f80, "infinity"},
               {0xff80, "-infinity"}},
    [SINGLE] = {{0x7fc00000, "NaN"},
                {0xffffffff, "NaN"},
                {0x7f800001, "NaN"},
                {0x7f800000, "infinity"},
                {0xff800000, "-infinity"}},
};
/* The largest ones that are not, negative. */
static const uint32_t largest[] = {[HALF] = 0xfbff, [BRAIN] = 0xff7f, [SINGLE] = 0xff7fffff};

static void set(const struct layout *l, uint8_t *data, size_t block, size_t place, uint32_t bits)
{
    uint8_t *at = data + block * l->block_bytes + l->places[place].offset;
    const uint16_t narrow = (uint16_t)bits;
    if (l->kind == SINGLE)
        memcpy(at, &bits, sizeof bits);
    else
        memcpy(at, &narrow, sizeof narrow);
}

/* n good blocks that look as bad as good ones can: all bits set but those of the largest floats.
 * The buffer ends with the last block, at an odd address. free(result - 1) */
static uint8_t *good_blocks(const struct layout *l, size_t n)
{
    uint8_t *data = malloc(n * l->block_bytes + 1);
    ck_assert_ptr_nonnull(data);
    memset(data, 0xff, n * l->block_bytes + 1);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 2 && l->places[k].name != NULL; k++)
            set(l, data + 1, i, k, largest[l->kind]);
    return data + 1;
}

START_TEST(every_scale)
{
    const struct layout *l = &layouts[_i];
    ck_assert(weft_tensor_checkable(l->type));
    ck_assert_uint_eq(weft_tensor_type_info(l->type)->block_bytes, l->block_bytes);
    for (size_t n = 1; n <= 11; n++) { /* words of floats, and what is left of them */
        uint8_t *data = good_blocks(l, n);
        ck_assert_uint_eq(weft_tensor_check_blocks(l->type, data, n, NULL, 0), 0);
        for (size_t at = 0; at < n * 2 * BAD; at++) {
            const size_t block = at / 2 / BAD, place = at / BAD % 2;
            struct weft_block_fault faults[2] = {{.block = 77}, {.block = 77}};
            if (l->places[place].name == NULL)
                continue;
            set(l, data, block, place, bad[l->kind][at % BAD].bits);
            ck_assert_uint_eq(weft_tensor_check_blocks(l->type, data, n, faults, 2), 1);
            ck_assert_uint_eq(faults[0].block, block);
            ck_assert_str_eq(faults[0].field, l->places[place].name);
            ck_assert_str_eq(faults[0].found, bad[l->kind][at % BAD].found);
            ck_assert_uint_eq(faults[1].block, 77); /* untouched */
            set(l, data, block, place, largest[l->kind]);
        }
        free(data - 1);
    }
}
END_TEST

/* A block counts once, with its first field; only so many are told as there is room for. */
START_TEST(counts)
{
    const struct layout *l = &layouts[_i];
    const size_t n = 37;
    struct weft_block_fault faults[4] = {{.block = 0}, {.block = 0}, {.block = 0}, {.block = 77}};
    uint8_t *data = good_blocks(l, n);
    for (size_t i = 1; i < n; i += 2)
        for (size_t k = 0; k < 2 && l->places[k].name != NULL; k++)
            set(l, data, i, k, bad[l->kind][k].bits);
    ck_assert_uint_eq(weft_tensor_check_blocks(l->type, data, n, faults, 3), n / 2);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(faults[i].block, 2 * i + 1);
        ck_assert_str_eq(faults[i].field, l->places[0].name);
    }
    ck_assert_uint_eq(faults[3].block, 77);
    ck_assert_uint_eq(weft_tensor_check_blocks(l->type, data, n, NULL, 0), n / 2);
    ck_assert_uint_eq(weft_tensor_check_blocks(l->type, data, 0, faults, 4), 0);
    free(data - 1);
}
END_TEST

/* Any bits as floats: what isfinite says. */
START_TEST(any_floats)
{
    uint64_t random = weft_test_seed();
    for (size_t n = 0; n < 300; n++) {
        float *x = malloc(n * sizeof *x + 1);
        ck_assert_ptr_nonnull(x);
        uint64_t n_bad = 0, first = 0;
        for (size_t i = 0; i < n; i++) {
            /* half of them with an exponent near the largest */
            uint32_t bits = (uint32_t)weft_test_random(&random);
            if (weft_test_random(&random) % 2 == 0)
                bits |= 0x7f000000u;
            memcpy(&x[i], &bits, sizeof bits);
            if (!isfinite(x[i]) && n_bad++ == 0)
                first = i;
        }
        struct weft_block_fault fault = {.block = 0};
        ck_assert_uint_eq(weft_tensor_check_blocks(WEFT_F32, x, n, &fault, 1), n_bad);
        ck_assert_uint_eq(fault.block, first);
        free(x);
    }
}
END_TEST

START_TEST(without_a_rule)
{
    static const uint32_t types[] = {
        WEFT_Q8_1,  WEFT_Q8_K, WEFT_IQ2_XXS,           WEFT_IQ1_M, WEFT_I8, WEFT_F64,
        WEFT_MXFP4, 4,         WEFT_TENSOR_TYPE_COUNT, UINT32_MAX};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        ck_assert_msg(!weft_tensor_checkable(types[i]), "type %u", types[i]);
    int n = 0;
    for (uint32_t t = 0; t < WEFT_TENSOR_TYPE_COUNT; t++)
        n += weft_tensor_checkable(t);
    ck_assert_int_eq(n, LAYOUTS); /* a new rule needs a layout here */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tensor_check");
    TCase *t = tcase_create("blocks");
    tcase_add_loop_test(t, every_scale, 0, LAYOUTS);
    tcase_add_loop_test(t, counts, 0, LAYOUTS);
    tcase_add_test(t, any_floats);
    tcase_add_test(t, without_a_rule);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
