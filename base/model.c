/*
 * The model's shape and tensors: the checks that a file's model and one from the wire have in
 * common. Invariant: see model.h; weft_model_check is the only judge of it. Pure.
 */
#include "base/model.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* weft_type_supported, for people */
#define TYPES_OF_MATRICES \
    "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS TQ1_0 TQ2_0"

static const char *const role_names[WEFT_ROLE_COUNT] = {
    [WEFT_ROLE_EMBED] = "token_embd",    [WEFT_ROLE_OUTPUT_NORM] = "output_norm",
    [WEFT_ROLE_OUTPUT] = "output",       [WEFT_ROLE_ROPE_FREQS] = "rope_freqs",
    [WEFT_ROLE_ATTN_NORM] = "attn_norm", [WEFT_ROLE_ATTN_Q] = "attn_q",
    [WEFT_ROLE_ATTN_K] = "attn_k",       [WEFT_ROLE_ATTN_V] = "attn_v",
    [WEFT_ROLE_ATTN_O] = "attn_output",  [WEFT_ROLE_FFN_NORM] = "ffn_norm",
    [WEFT_ROLE_FFN_GATE] = "ffn_gate",   [WEFT_ROLE_FFN_UP] = "ffn_up",
    [WEFT_ROLE_FFN_DOWN] = "ffn_down",
};

const char *weft_role_name(enum weft_role role)
{
    assert(role < WEFT_ROLE_COUNT);
    return role_names[role];
}

char *weft_role_tensor_name(char *buf, enum weft_role role, uint32_t layer)
{
    const char *name = weft_role_name(role);
    if (role < WEFT_ROLE_GLOBAL_COUNT)
        snprintf(buf, WEFT_GGUF_NAME_MAX + 1, "%s.weight", name);
    else
        snprintf(buf, WEFT_GGUF_NAME_MAX + 1, "blk.%u.%s.weight", layer, name);
    return buf;
}

bool weft_role_matrix(enum weft_role role)
{
    return role != WEFT_ROLE_OUTPUT_NORM && role != WEFT_ROLE_ROPE_FREQS &&
           role != WEFT_ROLE_ATTN_NORM && role != WEFT_ROLE_FFN_NORM;
}

const struct weft_tensor *weft_model_tensor(const struct weft_model *m, enum weft_role role,
                                            uint32_t layer)
{
    return role < WEFT_ROLE_GLOBAL_COUNT ? &m->global[role]
                                         : &m->layers[layer].role[role - WEFT_ROLE_GLOBAL_COUNT];
}

uint64_t weft_row_bytes(uint32_t type, uint64_t cols)
{
    const struct weft_tensor_type_info *info = weft_tensor_type_info(type);
    uint64_t bytes;
    if (info == NULL || cols % info->block_elems != 0 ||
        __builtin_mul_overflow(cols / info->block_elems, (uint64_t)info->block_bytes, &bytes))
        return 0;
    return bytes;
}

bool weft_type_supported(uint32_t type)
{
    switch (type) {
    case WEFT_F32:
    case WEFT_F16:
    case WEFT_BF16:
    case WEFT_Q8_0:
    case WEFT_Q4_0:
    case WEFT_Q4_1:
    case WEFT_Q5_0:
    case WEFT_Q5_1:
    case WEFT_Q2_K:
    case WEFT_Q3_K:
    case WEFT_Q4_K:
    case WEFT_Q5_K:
    case WEFT_Q6_K:
    case WEFT_IQ4_NL:
    case WEFT_IQ4_XS:
    case WEFT_TQ1_0:
    case WEFT_TQ2_0:
        return true;
    default:
        return false;
    }
}

static bool quantised(const struct weft_tensor *t)
{
    return t->bytes != 0 && t->type != WEFT_F32 && t->type != WEFT_F16 && t->type != WEFT_BF16;
}

bool weft_model_quantised(const struct weft_model *m)
{
    for (int role = 0; role < WEFT_ROLE_GLOBAL_COUNT; role++)
        if (quantised(&m->global[role]))
            return true;
    for (uint32_t layer = 0; layer < m->n_layers; layer++)
        for (int role = 0; role < WEFT_ROLE_LAYER_COUNT; role++)
            if (quantised(&m->layers[layer].role[role]))
                return true;
    return false;
}

void weft_model_done(struct weft_model *m)
{
    free(m->layers);
    *m = (struct weft_model){0};
}

/* ------------------------------------------------------------------ checks */

static int check_text(const char *text, size_t size, const char *what, weft_err *err)
{
    size_t n = strnlen(text, size);
    if (n == size)
        return weft_fail(err, WEFT_EMODEL, "%s: not terminated within %zu bytes", what, size);
    for (size_t i = 0, step; i < n; i += step) {
        uint32_t code = 0;
        step = weft_utf8_decode(text + i, n - i, &code);
        if (step == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0))
            return weft_fail(err, WEFT_EMODEL, "%s: byte %zu is no printable UTF-8", what, i);
    }
    return 0;
}

static int check_range(const char *what, uint32_t value, uint32_t max, weft_err *err)
{
    if (value >= 1 && value <= max)
        return 0;
    return weft_fail(err, WEFT_EMODEL, "%s: found %u, expected 1 to %u", what, value, max);
}

static int check_shape(const struct weft_model *m, weft_err *err)
{
    const struct {
        const char *what;
        uint32_t value, max;
    } ranges[] = {
        {"block_count", m->n_layers, WEFT_LAYERS_MAX},
        {"embedding_length", m->dim, WEFT_DIM_MAX},
        {"attention.head_count", m->n_heads, WEFT_HEADS_MAX},
        {"attention.head_count_kv", m->n_kv_heads, WEFT_HEADS_MAX},
        {"attention.key_length", m->head_dim, WEFT_DIM_MAX},
        {"feed_forward_length", m->ffn_dim, WEFT_FFN_MAX},
        {"vocab_size", m->vocab, WEFT_VOCAB_MAX},
        {"context_length", m->context_max, WEFT_CONTEXT_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        int r = check_range(ranges[i].what, ranges[i].value, ranges[i].max, err);
        if (r < 0)
            return r;
    }
    if (m->n_heads % m->n_kv_heads != 0)
        return weft_fail(err, WEFT_EMODEL,
                         "attention.head_count: found %u, expected a multiple of the %u KV heads",
                         m->n_heads, m->n_kv_heads);
    if ((uint64_t)m->n_heads * m->head_dim > WEFT_DIM_MAX)
        return weft_fail(err, WEFT_EMODEL,
                         "%u heads of %u: found %llu columns, expected at most %u", m->n_heads,
                         m->head_dim, (unsigned long long)m->n_heads * m->head_dim, WEFT_DIM_MAX);
    if (m->rope_dim == 0 || m->rope_dim % 2 != 0 || m->rope_dim > m->head_dim)
        return weft_fail(err, WEFT_EMODEL,
                         "rope.dimension_count: found %u, expected an even number from 2 to %u",
                         m->rope_dim, m->head_dim);
    if (!isfinite(m->rope_base) || m->rope_base <= 0)
        return weft_fail(err, WEFT_EMODEL, "rope.freq_base: found %g, expected a number above 0",
                         (double)m->rope_base);
    if (!isfinite(m->norm_eps) || m->norm_eps <= 0 || m->norm_eps >= 1)
        return weft_fail(err, WEFT_EMODEL,
                         "attention.layer_norm_rms_epsilon: found %g, expected a "
                         "number between 0 and 1",
                         (double)m->norm_eps);
    return 0;
}

/* What the shape demands of a tensor. */
static void expected_dims(const struct weft_model *m, enum weft_role role, uint32_t *ret_rows,
                          uint32_t *ret_cols)
{
    uint32_t q = m->n_heads * m->head_dim, kv = m->n_kv_heads * m->head_dim;
    const uint32_t dims[WEFT_ROLE_COUNT][2] = {
        [WEFT_ROLE_EMBED] = {m->vocab, m->dim},
        [WEFT_ROLE_OUTPUT_NORM] = {1, m->dim},
        [WEFT_ROLE_OUTPUT] = {m->vocab, m->dim},
        [WEFT_ROLE_ROPE_FREQS] = {1, m->rope_dim / 2},
        [WEFT_ROLE_ATTN_NORM] = {1, m->dim},
        [WEFT_ROLE_ATTN_Q] = {q, m->dim},
        [WEFT_ROLE_ATTN_K] = {kv, m->dim},
        [WEFT_ROLE_ATTN_V] = {kv, m->dim},
        [WEFT_ROLE_ATTN_O] = {m->dim, q},
        [WEFT_ROLE_FFN_NORM] = {1, m->dim},
        [WEFT_ROLE_FFN_GATE] = {m->ffn_dim, m->dim},
        [WEFT_ROLE_FFN_UP] = {m->ffn_dim, m->dim},
        [WEFT_ROLE_FFN_DOWN] = {m->dim, m->ffn_dim},
    };
    *ret_rows = dims[role][0];
    *ret_cols = dims[role][1];
}

static int check_type(uint32_t type, bool matrix, weft_err *err)
{
    if (matrix ? weft_type_supported(type) : type == WEFT_F32)
        return 0;
    const struct weft_tensor_type_info *info = weft_tensor_type_info(type);
    char number[16];
    snprintf(number, sizeof number, "%u", type);
    return weft_fail(err, WEFT_EUNSUPPORTED, "type %s: supported %s",
                     info != NULL ? info->name : number,
                     matrix ? "are: " TYPES_OF_MATRICES : "is: F32");
}

static int check_tensor(const struct weft_model *m, enum weft_role role, uint32_t layer,
                        weft_err *err)
{
    const struct weft_tensor *t = weft_model_tensor(m, role, layer);
    char name[WEFT_GGUF_NAME_MAX + 1];
    uint32_t rows, cols;
    int r;
    weft_role_tensor_name(name, role, layer);
    if (t->bytes == 0) {
        if (role == WEFT_ROLE_OUTPUT || role == WEFT_ROLE_ROPE_FREQS)
            return 0;
        return weft_fail(err, WEFT_EMODEL, "tensor %s is missing", name);
    }
    expected_dims(m, role, &rows, &cols);
    r = check_type(t->type, weft_role_matrix(role), err);
    if (r == 0 && (t->rows != rows || t->cols != cols))
        r = weft_fail(err, WEFT_EMODEL, "found %u x %u (rows x columns), expected %u x %u", t->rows,
                      t->cols, rows, cols);
    /* Neither overflows: rows are at most 2^20 and a row at most 2^22 bytes. */
    uint64_t row_bytes = weft_row_bytes(t->type, cols);
    if (r == 0 && row_bytes == 0)
        r = weft_fail(err, WEFT_EMODEL, "rows of %u elements, expected whole blocks of %u", cols,
                      weft_tensor_type_info(t->type)->block_elems);
    if (r == 0 && t->bytes != rows * row_bytes)
        r = weft_fail(err, WEFT_EMODEL, "found %llu bytes, expected %llu",
                      (unsigned long long)t->bytes, (unsigned long long)rows * row_bytes);
    if (r < 0 && err != NULL)
        weft_err_prefix(err, "tensor %s", name);
    return r;
}

int weft_model_check(const struct weft_model *m, weft_err *err)
{
    int r = check_text(m->arch, sizeof m->arch, "architecture", err);
    if (r == 0)
        r = check_text(m->name, sizeof m->name, "model name", err);
    if (r < 0)
        return r;
    if (strcmp(m->arch, "llama") != 0)
        return weft_fail(err, WEFT_EUNSUPPORTED, "architecture '%s': supported are: llama",
                         m->arch);
    r = check_shape(m, err);
    assert(r < 0 || m->layers != NULL);
    for (int role = 0; r == 0 && role < WEFT_ROLE_GLOBAL_COUNT; role++)
        r = check_tensor(m, (enum weft_role)role, 0, err);
    for (uint32_t layer = 0; r == 0 && layer < m->n_layers; layer++)
        for (int role = WEFT_ROLE_GLOBAL_COUNT; r == 0 && role < WEFT_ROLE_COUNT; role++)
            r = check_tensor(m, (enum weft_role)role, layer, err);
    if (r < 0)
        return r;
    if (m->tied != (m->global[WEFT_ROLE_OUTPUT].bytes == 0))
        return weft_fail(err, WEFT_EMODEL,
                         "the output head is said to be %s, but output.weight is %s",
                         m->tied ? "tied" : "its own", m->tied ? "there" : "missing");
    return 0;
}
