/*
 * Bad blocks of weights, see tensor_check.h. Pure.
 *
 * A float is NaN or infinite when all bits of its exponent are set, so that the exponent plus its
 * lowest bit carries into the sign. Plain floats are looked at eight bytes at a time by this sum,
 * which is as fast as memory delivers; only words that carry are looked at more closely.
 *
 * Invariant: a block is counted once, however many of its fields are bad. The places of the scales
 * are those of the block structures of the public ggml repository (ggml-common.h).
 */
#include "base/tensor_check.h"

#include <assert.h>
#include <string.h>

#include "base/gguf.h"

/* A width of float: where its exponent and sign are. */
struct float_format {
    uint32_t bytes;
    uint64_t exponent, sign; /* masks of one float */
};

static const struct float_format f32 = {4, 0x7f800000u, 0x80000000u};
static const struct float_format f16 = {2, 0x7c00u, 0x8000u};
static const struct float_format bf16 = {2, 0x7f80u, 0x8000u};

#define FIELDS_MAX 2

struct field {
    const char *name; /* NULL: the block has no further one */
    uint32_t offset;  /* in the block */
};

struct rule {
    const struct float_format *format; /* NULL: no rule for this type */
    struct field fields[FIELDS_MAX];
};

static const struct rule rules[WEFT_TENSOR_TYPE_COUNT] = {
    [WEFT_F32] = {&f32, {{"value", 0}}},
    [WEFT_F16] = {&f16, {{"value", 0}}},
    [WEFT_BF16] = {&bf16, {{"value", 0}}},
    [WEFT_Q4_0] = {&f16, {{"d", 0}}},
    [WEFT_Q4_1] = {&f16, {{"d", 0}, {"m", 2}}},
    [WEFT_Q5_0] = {&f16, {{"d", 0}}},
    [WEFT_Q5_1] = {&f16, {{"d", 0}, {"m", 2}}},
    [WEFT_Q8_0] = {&f16, {{"d", 0}}},
    [WEFT_Q2_K] = {&f16, {{"d", 80}, {"dmin", 82}}}, /* behind scales[16], qs[64] */
    [WEFT_Q3_K] = {&f16, {{"d", 108}}},              /* behind hmask[32], qs[64], scales[12] */
    [WEFT_Q4_K] = {&f16, {{"d", 0}, {"dmin", 2}}},
    [WEFT_Q5_K] = {&f16, {{"d", 0}, {"dmin", 2}}},
    [WEFT_Q6_K] = {&f16, {{"d", 208}}}, /* behind ql[128], qh[64], scales[16] */
    [WEFT_IQ4_NL] = {&f16, {{"d", 0}}},
    [WEFT_IQ4_XS] = {&f16, {{"d", 0}}},
    [WEFT_TQ1_0] = {&f16, {{"d", 52}}}, /* behind qs[48], qh[4] */
    [WEFT_TQ2_0] = {&f16, {{"d", 64}}}, /* behind qs[64] */
};

bool weft_tensor_checkable(uint32_t type)
{
    return type < WEFT_TENSOR_TYPE_COUNT && rules[type].format != NULL;
}

static uint64_t load(const struct float_format *f, const uint8_t *at)
{
    uint16_t narrow;
    uint32_t wide;
    if (f->bytes == sizeof narrow) {
        memcpy(&narrow, at, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, at, sizeof wide);
    return wide;
}

static bool is_bad(const struct float_format *f, uint64_t bits)
{
    return (bits & f->exponent) == f->exponent;
}

static const char *describe(const struct float_format *f, uint64_t bits)
{
    if ((bits & ~(f->exponent | f->sign)) != 0)
        return "NaN";
    return (bits & f->sign) != 0 ? "-infinity" : "infinity";
}

/* Where the bad blocks of one call are counted. */
struct tally {
    const struct rule *rule;
    struct weft_block_fault *faults; /* [room] */
    size_t room;
    uint64_t n;
};

/* Looks at one block. */
static void check_block(struct tally *t, const uint8_t *block, uint64_t index)
{
    const struct float_format *f = t->rule->format;
    for (size_t i = 0; i < FIELDS_MAX && t->rule->fields[i].name != NULL; i++) {
        const uint64_t bits = load(f, block + t->rule->fields[i].offset);
        if (!is_bad(f, bits))
            continue;
        if (t->n < t->room)
            t->faults[t->n] = (struct weft_block_fault){
                .block = index, .field = t->rule->fields[i].name, .found = describe(f, bits)};
        t->n++;
        return;
    }
}

/* The mask of one float in every float of a word. */
static uint64_t in_every_float(uint64_t mask, const struct float_format *f)
{
    return f->bytes == 2 ? mask * 0x0001000100010001u : mask * 0x0000000100000001u;
}

static void check_floats(struct tally *t, const uint8_t *data, uint64_t n)
{
    const struct float_format *f = t->rule->format;
    const uint64_t per_word = sizeof(uint64_t) / f->bytes;
    const uint64_t exponents = in_every_float(f->exponent, f);
    const uint64_t lowest = in_every_float(f->exponent & (0 - f->exponent), f);
    const uint64_t signs = in_every_float(f->sign, f);
    uint64_t i = 0;
    for (; n - i >= per_word; i += per_word) {
        uint64_t word;
        memcpy(&word, data + i * f->bytes, sizeof word);
        if ((((word & exponents) + lowest) & signs) == 0)
            continue;
        for (uint64_t k = i; k < i + per_word; k++)
            check_block(t, data + k * f->bytes, k);
    }
    for (; i < n; i++)
        check_block(t, data + i * f->bytes, i);
}

uint64_t weft_tensor_check_blocks(uint32_t type, const void *data, uint64_t n_blocks,
                                  struct weft_block_fault *faults, size_t room)
{
    assert(weft_tensor_checkable(type));
    struct tally t = {.rule = &rules[type], .faults = faults, .room = room};
    const struct weft_tensor_type_info *info = weft_tensor_type_info(type);
    const uint8_t *bytes = data;
    if (info->block_elems == 1) {
        check_floats(&t, bytes, n_blocks);
        return t.n;
    }
    for (uint64_t i = 0; i < n_blocks; i++)
        check_block(&t, bytes + i * info->block_bytes, i);
    return t.n;
}
