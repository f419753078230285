/*
 * Blocks of weights that no model can be computed with: a scale, or in a plain float type a value,
 * that is NaN or infinite. Pure functions over the bytes of a tensor as GGUF has them.
 */
#ifndef WEFT_BASE_TENSOR_CHECK_H
#define WEFT_BASE_TENSOR_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct weft_block_fault {
    uint64_t block;    /* index among the blocks looked at; in F32, F16 and BF16 an element each */
    const char *field; /* "d", "dmin" or "m", as the format's public description names scales;
                          "value" */
    const char *found; /* "NaN", "infinity" or "-infinity" */
};

/* True when weft_tensor_check_blocks knows where the floats of a block of this type lie. */
bool weft_tensor_checkable(uint32_t type);
/* Counts the bad ones among n_blocks blocks of a checkable type. data: their bytes, of any
 * alignment, n_blocks times the block_bytes of weft_tensor_type_info. The first `room` of them go
 * into faults, each with the first field that is bad. */
uint64_t weft_tensor_check_blocks(uint32_t type, const void *data, uint64_t n_blocks,
                                  struct weft_block_fault *faults, size_t room);

#endif
