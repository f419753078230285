/* Data for the tests of kernels, see kernel_data.h. */
#include "tests/kernel_data.h"
#include "kernels/f16.h"
#include "tests/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const enum wk_type kd_types[KD_TYPES] = {WK_F32,  WK_F16,    WK_Q4_0,   WK_Q8_0,  WK_Q6_K, WK_BF16,
                                         WK_Q4_1, WK_Q5_0,   WK_Q5_1,   WK_Q2_K,  WK_Q3_K, WK_Q4_K,
                                         WK_Q5_K, WK_IQ4_NL, WK_IQ4_XS, WK_TQ1_0, WK_TQ2_0};

/* As in the GGUF specification; `scales` are where a block's f16 numbers lie (0xff: nowhere). */
static const struct {
    const char *name;
    uint32_t bytes, cols;
    uint8_t scales[2];
} types[WK_TYPE_COUNT] = {
    [WK_F32] = {"F32", 4, 1, {0xff, 0xff}},        [WK_F16] = {"F16", 2, 1, {0xff, 0xff}},
    [WK_BF16] = {"BF16", 2, 1, {0xff, 0xff}},      [WK_Q4_0] = {"Q4_0", 18, 32, {0, 0xff}},
    [WK_Q4_1] = {"Q4_1", 20, 32, {0, 2}},          [WK_Q5_0] = {"Q5_0", 22, 32, {0, 0xff}},
    [WK_Q5_1] = {"Q5_1", 24, 32, {0, 2}},          [WK_Q8_0] = {"Q8_0", 34, 32, {0, 0xff}},
    [WK_Q2_K] = {"Q2_K", 84, 256, {80, 82}},       [WK_Q3_K] = {"Q3_K", 110, 256, {108, 0xff}},
    [WK_Q4_K] = {"Q4_K", 144, 256, {0, 2}},        [WK_Q5_K] = {"Q5_K", 176, 256, {0, 2}},
    [WK_Q6_K] = {"Q6_K", 210, 256, {208, 0xff}},   [WK_IQ4_NL] = {"IQ4_NL", 18, 32, {0, 0xff}},
    [WK_IQ4_XS] = {"IQ4_XS", 136, 256, {0, 0xff}}, [WK_TQ1_0] = {"TQ1_0", 54, 256, {52, 0xff}},
    [WK_TQ2_0] = {"TQ2_0", 66, 256, {64, 0xff}},
};

const char *kd_type_name(enum wk_type type)
{
    return types[type].name;
}

uint32_t kd_type_cols(enum wk_type type)
{
    return types[type].cols;
}

bool kd_is_scale(enum wk_type type, size_t at)
{
    const uint8_t *s = types[type].scales;
    return (s[0] != 0xff && (at == s[0] || at == s[0] + 1u)) ||
           (s[1] != 0xff && (at == s[1] || at == s[1] + 1u));
}

void *kd_alloc(size_t bytes)
{
    void *p;
    if (posix_memalign(&p, WK_ALIGN, bytes + (bytes == 0)) != 0) {
        perror("posix_memalign");
        exit(1);
    }
    return p;
}

float *kd_floats(uint64_t *seed, size_t n)
{
    float *x = kd_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(weft_test_uniform(seed) * 2 - 1);
        uint64_t kind = weft_test_random(seed) % 64;
        if (kind == 0)
            x[i] = 0;
        else if (kind == 1)
            x[i] *= 50;
    }
    return x;
}

float *kd_any_floats(uint64_t *seed, size_t n)
{
    float *x = kd_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = wk_from_bits((uint32_t)(weft_test_random(seed) >> 32));
    return x;
}

size_t kd_gguf_bytes(enum wk_type type, uint32_t rows, uint32_t cols)
{
    return (size_t)rows * (cols / types[type].cols) * types[type].bytes;
}

uint8_t *kd_gguf(uint64_t *seed, enum wk_type type, uint32_t rows, uint32_t cols, bool any)
{
    size_t bytes = kd_gguf_bytes(type, rows, cols);
    uint8_t *data = kd_alloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(weft_test_random(seed) >> 40);
    for (size_t at = 0; at < bytes && !any; at += types[type].bytes) {
        float x = (float)(weft_test_uniform(seed) * 2 - 1);
        uint16_t h = wk_f32_to_f16(x), upper = (uint16_t)(wk_bits(x) >> 16);
        if (type == WK_F32)
            memcpy(data + at, &x, sizeof x);
        else if (type == WK_F16 || type == WK_BF16)
            memcpy(data + at, type == WK_F16 ? &h : &upper, sizeof h);
        for (unsigned i = 0; i < 2 && types[type].scales[i] != 0xff; i++) {
            h = wk_f32_to_f16(x * (i == 0 ? 0.02f : -0.03f));
            memcpy(data + at + types[type].scales[i], &h, sizeof h);
        }
    }
    return data;
}

struct wk_matrix kd_matrix(enum wk_type type, uint32_t rows, uint32_t cols, const uint8_t *gguf)
{
    size_t bytes = wk_matrix_bytes(type, rows, cols);
    struct wk_matrix m = {.type = type, .rows = rows, .cols = cols, .data = kd_alloc(bytes)};
    wk_matrix_pack(&m, 0, rows, gguf);
    return m;
}

struct wk_act kd_act(const struct wk_engine *e, enum wk_type type, const float *x, uint32_t n,
                     uint32_t cols)
{
    struct wk_act act;
    bool quantised = type != WK_F32 && type != WK_F16 && type != WK_BF16;
    wk_act_set(e, &act, x, n, cols, quantised ? kd_alloc(wk_act_bytes(n, cols)) : NULL);
    return act;
}

void kd_angles(const int32_t *positions, uint32_t n, uint32_t rope_dim, float base,
               const float *factors, float *cos_out, float *sin_out)
{
    double *frequency = kd_alloc(sizeof *frequency * (rope_dim / 2));
    const struct wk_rope_spec plain = {.rope_dim = rope_dim, .base = base, .factors = factors};
    wk_rope_frequencies(&plain, frequency);
    wk_rope_angles(positions, n, rope_dim / 2, frequency, 1, cos_out, sin_out);
    free(frequency);
}

size_t kd_differ(const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (wk_bits(a[i]) != wk_bits(b[i]) && !(isnan(a[i]) && isnan(b[i])))
            return i;
    return n;
}
