/*
 * The table of published tensor types: name, elements and bytes of a block.
 * Invariant: an entry with a name has a block of at least one element and one byte.
 * Source: the block structures of the public ggml repository (ggml-common.h). Pure data.
 */
#include "base/gguf.h"

static const struct weft_tensor_type_info types[WEFT_TENSOR_TYPE_COUNT] = {
    [WEFT_F32] = {"F32", 1, 4},
    [WEFT_F16] = {"F16", 1, 2},
    [WEFT_Q4_0] = {"Q4_0", 32, 18},
    [WEFT_Q4_1] = {"Q4_1", 32, 20},
    [WEFT_Q5_0] = {"Q5_0", 32, 22},
    [WEFT_Q5_1] = {"Q5_1", 32, 24},
    [WEFT_Q8_0] = {"Q8_0", 32, 34},
    [WEFT_Q8_1] = {"Q8_1", 32, 36},
    [WEFT_Q2_K] = {"Q2_K", 256, 84},
    [WEFT_Q3_K] = {"Q3_K", 256, 110},
    [WEFT_Q4_K] = {"Q4_K", 256, 144},
    [WEFT_Q5_K] = {"Q5_K", 256, 176},
    [WEFT_Q6_K] = {"Q6_K", 256, 210},
    [WEFT_Q8_K] = {"Q8_K", 256, 292},
    [WEFT_IQ2_XXS] = {"IQ2_XXS", 256, 66},
    [WEFT_IQ2_XS] = {"IQ2_XS", 256, 74},
    [WEFT_IQ3_XXS] = {"IQ3_XXS", 256, 98},
    [WEFT_IQ1_S] = {"IQ1_S", 256, 50},
    [WEFT_IQ4_NL] = {"IQ4_NL", 32, 18},
    [WEFT_IQ3_S] = {"IQ3_S", 256, 110},
    [WEFT_IQ2_S] = {"IQ2_S", 256, 82},
    [WEFT_IQ4_XS] = {"IQ4_XS", 256, 136},
    [WEFT_I8] = {"I8", 1, 1},
    [WEFT_I16] = {"I16", 1, 2},
    [WEFT_I32] = {"I32", 1, 4},
    [WEFT_I64] = {"I64", 1, 8},
    [WEFT_F64] = {"F64", 1, 8},
    [WEFT_IQ1_M] = {"IQ1_M", 256, 56},
    [WEFT_BF16] = {"BF16", 1, 2},
    [WEFT_TQ1_0] = {"TQ1_0", 256, 54},
    [WEFT_TQ2_0] = {"TQ2_0", 256, 66},
    [WEFT_MXFP4] = {"MXFP4", 32, 17},
};

const struct weft_tensor_type_info *weft_tensor_type_info(uint32_t type)
{
    return type < WEFT_TENSOR_TYPE_COUNT && types[type].name != NULL ? &types[type] : NULL;
}
