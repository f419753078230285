/*
 * A model made up in memory, for tests that need odd shapes or particular weights. Norm weights are
 * 1, biases small, matrices random and of one type; the test may change them before it loads them
 * into a store.
 */
#ifndef WEFT_TESTS_SYNTHETIC_MODEL_H
#define WEFT_TESTS_SYNTHETIC_MODEL_H

#include "base/model.h"
#include "daemon/store.h"

struct synthetic_shape {
    uint32_t n_layers, dim, n_heads, n_kv_heads, head_dim, ffn_dim, vocab;
    uint32_t type; /* of the matrices: F32, F16, Q8_0 or Q4_0 */
    bool tied, rope_freqs;
    uint64_t seed;
    const char *arch; /* NULL: llama */
    bool optional;    /* with all tensors that the architecture may have, but those of longrope */
    uint32_t n_experts, n_experts_used, expert_ffn, window;
};

struct synthetic_model {
    struct weft_model model;
    uint8_t **data; /* by tensor, in GGUF layout; NULL where absent */
};

/* Shape and tensor table alone; weft_model_done frees it. */
struct weft_model synthetic_shape_model(const struct synthetic_shape *shape);
struct synthetic_model synthetic_open(const struct synthetic_shape *shape);
void synthetic_close(struct synthetic_model *m);

/* The bytes of a tensor, floats where its type is F32. */
void *synthetic_data(const struct synthetic_model *m, enum weft_role role, uint32_t layer);
/* Sets every element of an F32 tensor. */
void synthetic_set(const struct synthetic_model *m, enum weft_role role, uint32_t layer,
                   float value);

/* Gives a store the model and the runs of a stage; aborts on errors. */
void synthetic_load(const struct synthetic_model *m, struct weft_store *store, uint32_t first_layer,
                    uint32_t n_layers, bool embed, bool head);

#endif
