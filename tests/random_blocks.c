/*
 * Random weights in block formats, see random_blocks.h. Every byte is random first; then each block
 * gets its scale, one of 256 made beforehand, picked by the random byte that lies in its place.
 *
 * Source of the formats: the block structures of the public ggml repository (ggml-common.h).
 */
#include "tests/random_blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/f16.h"
#include "tests/harness.h"

#define HALF_STEPS 256 /* of a range of scales */

enum mend { /* what random bytes need besides a scale */
            MEND_NONE,
            MEND_NIBBLES, /* Q2_K: 16 bytes of a 4-bit scale and a 4-bit minimum */
            MEND_SIX_BIT, /* Q4_K and Q5_K: 8 scales and 8 minima of 6 bits, packed */
            MEND_TERNARY_243,
            MEND_TERNARY_2_BIT,
};

static const struct rule {
    bool known, both_signs; /* quantisers use scales of either sign */
    float rms;              /* of a weight in units of the scale, all quants equally likely */
    uint32_t scale_at;      /* offset of the f16 scale */
    uint32_t min_at;        /* of the f16 minimum; 0: there is none */
    float min;              /* in units of the scale: what makes the mean 0 */
    enum mend mend;
    uint32_t mend_at, mend_bytes;
} rules[WEFT_TENSOR_TYPE_COUNT] = {
    [WEFT_F32] = {.known = true},
    [WEFT_F16] = {.known = true},
    [WEFT_BF16] = {.known = true},
    /* q - 128: uniform int8; q - 8 and q - 16: sqrt((n^2 - 1) / 12 + 1 / 4) for n values */
    [WEFT_Q8_0] = {.known = true, .rms = 73.9f},
    [WEFT_Q4_0] = {.known = true, .both_signs = true, .rms = 4.637f},
    [WEFT_Q5_0] = {.known = true, .both_signs = true, .rms = 9.247f},
    [WEFT_Q4_1] = {.known = true, .rms = 4.61f, .min_at = 2, .min = -7.5f},
    [WEFT_Q5_1] = {.known = true, .rms = 9.233f, .min_at = 2, .min = -15.5f},
    /* 4-bit scales 8 to 15 (rms 11.73), equal minima, so that q - 1.5 (rms 1.118) is left */
    [WEFT_Q2_K] = {.known = true,
                   .rms = 1.118f * 11.73f,
                   .scale_at = 80,
                   .min_at = 82,
                   .min = 1.5f,
                   .mend = MEND_NIBBLES,
                   .mend_bytes = 16},
    /* (q - 4) with a 6-bit scale - 32 */
    [WEFT_Q3_K] = {.known = true, .both_signs = true, .rms = 2.345f * 18.48f, .scale_at = 108},
    /* 6-bit scales 32 to 63 (rms 48.39), equal minima */
    [WEFT_Q4_K] = {.known = true,
                   .rms = 4.61f * 48.39f,
                   .min_at = 2,
                   .min = 7.5f,
                   .mend = MEND_SIX_BIT,
                   .mend_at = 4},
    [WEFT_Q5_K] = {.known = true,
                   .rms = 9.233f * 48.39f,
                   .min_at = 2,
                   .min = 15.5f,
                   .mend = MEND_SIX_BIT,
                   .mend_at = 4},
    /* (q - 32) with an int8 scale */
    [WEFT_Q6_K] = {.known = true, .both_signs = true, .rms = 18.48f * 73.9f, .scale_at = 208},
    /* the 16 values of the format's table have an rms of 67.4; IQ4_XS: with a 6-bit scale - 32 */
    [WEFT_IQ4_NL] = {.known = true, .both_signs = true, .rms = 67.4f},
    [WEFT_IQ4_XS] = {.known = true, .both_signs = true, .rms = 67.4f * 18.48f},
    /* -1, 0 and 1 */
    [WEFT_TQ1_0] =
        {.known = true, .rms = 0.816f, .scale_at = 52, .mend = MEND_TERNARY_243, .mend_bytes = 52},
    [WEFT_TQ2_0] = {.known = true,
                    .rms = 0.816f,
                    .scale_at = 64,
                    .mend = MEND_TERNARY_2_BIT,
                    .mend_bytes = 64},
};

bool random_blocks_known(uint32_t type)
{
    return type < WEFT_TENSOR_TYPE_COUNT && rules[type].known;
}

/* Truncates: BF16 is the upper half of F32. */
static uint16_t bf16(float x)
{
    return (uint16_t)(wk_bits(x) >> 16);
}

void random_blocks_init(struct random_blocks *b, uint32_t type, float deviation)
{
    if (!random_blocks_known(type))
        abort();
    const struct rule *rule = &rules[type];
    const float width = sqrtf(12) * deviation; /* of a uniform distribution */
    *b = (struct random_blocks){.type = type, .f32_step = width * 0x1p-32f};
    for (int i = 0; i < HALF_STEPS; i++) {
        float element = ((float)i + 0.5f) / HALF_STEPS - 0.5f;
        if (rule->rms == 0) {
            b->scale[i] = type == WEFT_F16 ? wk_f32_to_f16(element * width) : bf16(element * width);
            continue;
        }
        /* 0.75 to 1.25 of what the deviation asks for; the odd ones negative where they may be */
        float d = deviation / rule->rms * (1 + element / 2);
        if (rule->both_signs && i % 2 != 0)
            d = -d;
        b->scale[i] = wk_f32_to_f16(d);
        b->min[i] = wk_f32_to_f16(wk_f16_to_f32(b->scale[i]) * rule->min);
    }
}

/* ------------------------------------------------------------------ filling */

static void random_bytes(uint64_t *random, uint8_t *data, size_t n)
{
    for (; n >= 8; data += 8, n -= 8) {
        uint64_t r = weft_test_random(random);
        memcpy(data, &r, 8);
    }
    if (n > 0) {
        uint64_t r = weft_test_random(random);
        memcpy(data, &r, n);
    }
}

/* Scales 32 to 63: bit 5 of the lower four lies in bit 5 of their bytes, that of the upper four in
 * bit 7. With equal minima the packed bytes repeat. */
static void mend_six_bit(uint8_t *scales)
{
    for (int i = 0; i < 4; i++) {
        scales[i] |= 0xa0;
        scales[4 + i] = scales[i];
        scales[8 + i] = (uint8_t)((scales[8 + i] & 15) * 17);
    }
}

/* Four digits 0 to 2 of two bits each out of a number below 81. */
static uint8_t digits_2_bit(unsigned x)
{
    return (uint8_t)(x % 3 | x / 3 % 3 << 2 | x / 9 % 3 << 4 | x / 27 << 6);
}

static void mend(const struct rule *rule, uint8_t *block)
{
    uint8_t *p = block + rule->mend_at;
    switch (rule->mend) {
    case MEND_NONE:
        break;
    case MEND_NIBBLES:
        for (uint32_t i = 0; i < rule->mend_bytes; i++)
            p[i] = (uint8_t)((8 | (p[i] & 7)) * 17);
        break;
    case MEND_SIX_BIT:
        mend_six_bit(p);
        break;
    case MEND_TERNARY_243: /* five digits to base 3 stand for themselves times 256 / 243, rounded up
                            */
        for (uint32_t i = 0; i < rule->mend_bytes; i++)
            p[i] = (uint8_t)(((unsigned)p[i] * 243 / 256 * 256 + 242) / 243);
        break;
    case MEND_TERNARY_2_BIT:
        for (uint32_t i = 0; i < rule->mend_bytes; i++)
            p[i] = digits_2_bit((unsigned)p[i] * 81 / 256);
        break;
    }
}

void random_blocks_fill(const struct random_blocks *b, uint64_t *random, uint8_t *data,
                        size_t n_blocks)
{
    const struct rule *rule = &rules[b->type];
    const size_t bytes = weft_tensor_type_info(b->type)->block_bytes;
    random_bytes(random, data, n_blocks * bytes);
    for (size_t i = 0; i < n_blocks; i++, data += bytes) {
        if (b->type == WEFT_F32) {
            int32_t r;
            memcpy(&r, data, sizeof r);
            float x = (float)r * b->f32_step;
            memcpy(data, &x, sizeof x);
            continue;
        }
        const uint8_t pick = data[rule->scale_at];
        memcpy(data + rule->scale_at, &b->scale[pick], 2);
        if (rule->min_at != 0)
            memcpy(data + rule->min_at, &b->min[pick], 2);
        mend(rule, data);
    }
}
