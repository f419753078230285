/*
 * Random weights written straight in a type's block format, for models and matrices whose values do
 * not matter but must be sane: mean about 0, a given standard deviation, no NaN, sub-scales in the
 * range that quantisers use. Thread-safe; the bytes follow from the random state alone.
 */
#ifndef WEFT_TESTS_RANDOM_BLOCKS_H
#define WEFT_TESTS_RANDOM_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/gguf.h"

struct random_blocks {
    uint32_t type;
    uint16_t scale[256]; /* of a block; BF16 and F16: of an element */
    uint16_t min[256];   /* that belongs to scale */
    float f32_step;      /* F32: what one of 2^32 steps is worth */
};

/* True for the weight types that have a rule here. */
bool random_blocks_known(uint32_t type);
/* Prepares blocks of a known type; aborts for others. */
void random_blocks_init(struct random_blocks *b, uint32_t type, float deviation);
/* Writes n_blocks blocks (elements of F32, F16 and BF16). `random` is weft_test_random's state. */
void random_blocks_fill(const struct random_blocks *b, uint64_t *random, uint8_t *data,
                        size_t n_blocks);

#endif
