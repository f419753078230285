/*
 * Block check: what `weft inspect --check` finds in the tensors of a GGUF file: blocks of weights
 * that hold NaN or infinity (base/tensor_check.h), by tensor, row and place in the row.
 */
#ifndef WEFT_COORDINATOR_BLOCK_CHECK_H
#define WEFT_COORDINATOR_BLOCK_CHECK_H

#include "base/model_file.h"
#include "base/text.h"
#include "coordinator/progress.h"
#include "proto/io.h"

/* Bad blocks that are listed; the others are counted. */
#define WEFT_BAD_BLOCKS_SHOWN 20

struct weft_bad_block {
    const struct weft_gguf_tensor *tensor;
    uint64_t row, block;       /* block: in the row; of a plain float type, the element */
    const char *field, *found; /* "d", "NaN": see struct weft_block_fault */
};

struct weft_block_check {
    uint64_t tensors, bytes; /* looked at */
    uint64_t bad_blocks;
    struct weft_bad_block shown[WEFT_BAD_BLOCKS_SHOWN]; /* in file order */
    uint32_t n_shown;
    uint64_t unknown[WEFT_TENSOR_TYPE_COUNT]; /* tensors not looked at, by type */
};

/* Reads all tensors of the mapped files from front to back. progress may be NULL; io tells it the
 * time. */
void weft_block_check(const struct weft_model_file *file, struct weft_progress *progress,
                      struct weft_io *io, struct weft_block_check *ret);
/* -WEFT_EMODEL when there are bad blocks: how many, and the first. */
int weft_block_check_error(const struct weft_block_check *c, weft_err *err) WEFT_MUST_USE;
void weft_block_check_text(const struct weft_block_check *c, struct weft_str *out);
/* An object. */
void weft_block_check_json(const struct weft_block_check *c, struct weft_str *out);

#endif
