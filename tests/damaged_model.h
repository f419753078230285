/*
 * Copies of model files with particular bytes of a tensor overwritten: weights that nothing can be
 * computed with.
 */
#ifndef WEFT_TESTS_DAMAGED_MODEL_H
#define WEFT_TESTS_DAMAGED_MODEL_H

#include <stddef.h>
#include <stdint.h>

struct damage {
    const char *tensor;
    size_t offset, step, n; /* n times, step bytes apart, from offset in the tensor; n 0: once */
    uint16_t bits;          /* 0x7e00: NaN as a scale of half precision */
};

/* Copies `model`, a path for weft_test_read, below weft_test_tmpdir() and gives the path of the
 * copy: static, good until the next call. Fails the test when the model is not there. */
const char *damaged_model(const char *model, const struct damage *d);

#endif
