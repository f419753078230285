/*
 * Mixtures: which type a quantiser gives to each tensor of a model ("q4_k_m": most matrices Q4_K,
 * some Q6_K). Pure tables and rules; they follow what the public llama.cpp's llama-quantize does
 * without an importance matrix (src/llama-quant.cpp, general.file_type).
 */
#ifndef WEFT_TESTS_MIXTURE_H
#define WEFT_TESTS_MIXTURE_H

#include <stdbool.h>
#include <stdint.h>

enum mixture_role { /* of a matrix; norms, biases and routers are F32 in every mixture */
                    MIXTURE_EMBED,
                    MIXTURE_OUTPUT,
                    MIXTURE_Q,
                    MIXTURE_K,
                    MIXTURE_V,
                    MIXTURE_QKV, /* in one tensor */
                    MIXTURE_O,
                    MIXTURE_GATE,
                    MIXTURE_UP,
                    MIXTURE_DOWN,
};

struct mixture {
    const char *name;
    uint32_t type;      /* weft_tensor_type of most matrices */
    uint32_t file_type; /* general.file_type */
};

struct mixture_tensor {
    enum mixture_role role;
    uint32_t layer, n_layers, cols;
    uint32_t heads_per_kv, n_experts;
    bool tied; /* the embedding is also the output matrix */
};

/* Mixtures by index, NULL behind the last; and by name, NULL when there is none. */
const struct mixture *mixture_at(uint32_t i);
const struct mixture *mixture_find(const char *name);
/* The type of a tensor. `pure` gives all the mixture's own; either way a type whose blocks do not
 * fit the row gives way to another as in llama-quantize, at last to F16. */
uint32_t mixture_type(const struct mixture *m, bool pure, const struct mixture_tensor *t);

#endif
