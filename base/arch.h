/*
 * Architectures: how each family of models differs from the plain layer of Llama. Data, and a small
 * function where a file's keys need one.
 *
 * Invariant: what stands in this table has been compared with the logits of an independent engine
 * (tests/golden, ../shared/golden); everything else is refused by name.
 */
#ifndef WEFT_BASE_ARCH_H
#define WEFT_BASE_ARCH_H

#include "base/model.h"

enum weft_qk_norm {
    WEFT_QK_NORM_NONE,
    WEFT_QK_NORM_HEAD, /* each head of q and k on its own */
    WEFT_QK_NORM_ALL /* all heads of q, all heads of k: no head can be normed without the others */
};

struct weft_arch {
    const char *name;
    bool rope_halves; /* pairs are (i, i + rope_dim / 2), as in GPT-NeoX; else (2i, 2i + 1) */
    bool gelu;        /* the activation function of the FFN; else SiLU */
    bool pre_norm;    /* attn_norm and ffn_norm before the halves of a layer */
    bool post_norm;   /* post norms behind them, before the residual */
    bool shared;      /* a shared expert beside the others */
    bool tied;        /* the output head is always the embedding */
    enum weft_qk_norm qk_norm;
    enum { WEFT_EXPERTS_NEVER, WEFT_EXPERTS_MAYBE, WEFT_EXPERTS_ALWAYS } experts;
    bool experts_renormalise;
    uint64_t optional; /* bits of roles that a file may have or not */
    /* Fills in what only this architecture reads of the keys; NULL: nothing. */
    int (*read)(const struct weft_gguf *g, struct weft_model *m, weft_err *err);
};

/* NULL when weft does not know the name. */
const struct weft_arch *weft_arch_find(const char *name);
/* The same for a model that was checked: never NULL. */
const struct weft_arch *weft_arch_of(const struct weft_model *m);
/* -WEFT_EUNSUPPORTED naming the architecture and what is supported. */
int weft_arch_refuse(const char *name, weft_err *err) WEFT_MUST_USE;

/* Whether a model of this architecture and shape must, may or must not have a tensor. */
enum weft_presence { WEFT_ABSENT, WEFT_OPTIONAL, WEFT_REQUIRED };
enum weft_presence weft_arch_presence(const struct weft_model *m, enum weft_role role);
/* Rows and columns that the shape demands of it; rows of all experts. */
void weft_arch_dims(const struct weft_model *m, enum weft_role role, uint64_t *ret_rows,
                    uint32_t *ret_cols);

/* Keys of an architecture, "ARCH.REST". Integers and floats; *ret stays what it was where the key
 * is absent. -WEFT_EMODEL, -WEFT_EUNSUPPORTED for a value per layer. */
int weft_arch_u32(const struct weft_gguf *g, const struct weft_model *m, const char *rest,
                  uint32_t *ret, weft_err *err) WEFT_MUST_USE;
int weft_arch_f32(const struct weft_gguf *g, const struct weft_model *m, const char *rest,
                  float *ret, weft_err *err) WEFT_MUST_USE;
const struct weft_gguf_kv *weft_arch_kv(const struct weft_gguf *g, const struct weft_model *m,
                                        const char *rest);

#endif
