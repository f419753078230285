/*
 * Mixtures of tensor types, see mixture.h.
 */
#include "tests/mixture.h"

#include <stddef.h>
#include <strings.h>

#include "base/gguf.h"

enum { /* numbers of general.file_type that rules ask for */
       FILE_Q2_K = 10,
       FILE_Q3_K_S = 11,
       FILE_Q3_K_M = 12,
       FILE_Q3_K_L = 13,
       FILE_Q4_K_S = 14,
       FILE_Q4_K_M = 15,
       FILE_Q5_K_M = 17,
       FILE_IQ4_NL = 25,
       FILE_IQ4_XS = 30,
       FILE_TQ1_0 = 36,
       FILE_TQ2_0 = 37,
};

static const struct mixture mixtures[] = {
    {"f32", WEFT_F32, 0},
    {"f16", WEFT_F16, 1},
    {"bf16", WEFT_BF16, 32},
    {"q4_0", WEFT_Q4_0, 2},
    {"q4_1", WEFT_Q4_1, 3},
    {"q5_0", WEFT_Q5_0, 8},
    {"q5_1", WEFT_Q5_1, 9},
    {"q8_0", WEFT_Q8_0, 7},
    {"q2_k", WEFT_Q2_K, FILE_Q2_K},
    {"q3_k_s", WEFT_Q3_K, FILE_Q3_K_S},
    {"q3_k_m", WEFT_Q3_K, FILE_Q3_K_M},
    {"q3_k_l", WEFT_Q3_K, FILE_Q3_K_L},
    {"q4_k_s", WEFT_Q4_K, FILE_Q4_K_S},
    {"q4_k_m", WEFT_Q4_K, FILE_Q4_K_M},
    {"q5_k_s", WEFT_Q5_K, 16},
    {"q5_k_m", WEFT_Q5_K, FILE_Q5_K_M},
    {"q6_k", WEFT_Q6_K, 18},
    {"iq4_nl", WEFT_IQ4_NL, FILE_IQ4_NL},
    {"iq4_xs", WEFT_IQ4_XS, FILE_IQ4_XS},
    {"tq1_0", WEFT_TQ1_0, FILE_TQ1_0},
    {"tq2_0", WEFT_TQ2_0, FILE_TQ2_0},
};
enum { N_MIXTURES = sizeof mixtures / sizeof mixtures[0] };

const struct mixture *mixture_at(uint32_t i)
{
    return i < N_MIXTURES ? &mixtures[i] : NULL;
}

const struct mixture *mixture_find(const char *name)
{
    for (uint32_t i = 0; i < N_MIXTURES; i++)
        if (strcasecmp(mixtures[i].name, name) == 0)
            return &mixtures[i];
    return NULL;
}

/* The first and the last eighth of the layers, and every third between. */
static bool more_bits(const struct mixture_tensor *t)
{
    uint32_t n = t->n_layers, i = t->layer;
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

static uint32_t type_of_output(const struct mixture *m, const struct mixture_tensor *t)
{
    const struct weft_tensor_type_info *info = weft_tensor_type_info(m->type);
    return m->type == WEFT_Q8_0 || t->cols % info->block_elems != 0 ? WEFT_Q8_0 : WEFT_Q6_K;
}

static uint32_t type_of_v(const struct mixture *m, const struct mixture_tensor *t)
{
    uint32_t type = m->type;
    const bool grouped = t->heads_per_kv >= 4;
    if (m->file_type == FILE_Q2_K)
        type = grouped ? WEFT_Q4_K : WEFT_Q3_K;
    else if (m->file_type == FILE_Q3_K_M)
        type = t->layer < 2 ? WEFT_Q5_K : WEFT_Q4_K;
    else if (m->file_type == FILE_Q3_K_L)
        type = WEFT_Q5_K;
    else if (m->file_type == FILE_IQ4_NL || m->file_type == FILE_IQ4_XS)
        type = grouped ? WEFT_Q5_K : type;
    else if (m->file_type == FILE_Q4_K_M || m->file_type == FILE_Q5_K_M)
        type = more_bits(t) ? WEFT_Q6_K : type;
    else if (m->file_type == FILE_Q4_K_S && t->layer < 4)
        type = WEFT_Q5_K;
    /* 70B: eight heads share each row of V */
    if (t->n_layers == 80 && t->heads_per_kv > 1 && (type == WEFT_Q3_K || type == WEFT_Q4_K))
        type = WEFT_Q5_K;
    return t->n_experts == 8 ? WEFT_Q8_0 : type;
}

static uint32_t type_of_o(const struct mixture *m, const struct mixture_tensor *t)
{
    if (t->n_experts == 8) {
        static const uint32_t finer[] = {FILE_Q2_K,   FILE_Q3_K_S, FILE_Q3_K_M, FILE_Q4_K_S,
                                         FILE_Q4_K_M, FILE_IQ4_NL, FILE_IQ4_XS};
        for (size_t i = 0; i < sizeof finer / sizeof finer[0]; i++)
            if (m->file_type == finer[i])
                return WEFT_Q5_K;
        return m->type;
    }
    return m->file_type == FILE_Q2_K     ? WEFT_Q3_K
           : m->file_type == FILE_Q3_K_M ? WEFT_Q4_K
           : m->file_type == FILE_Q3_K_L ? WEFT_Q5_K
                                         : m->type;
}

static uint32_t type_of_down(const struct mixture *m, const struct mixture_tensor *t)
{
    const bool early = t->layer < t->n_layers / 8;
    switch (m->file_type) {
    case FILE_Q2_K:
        return WEFT_Q3_K;
    case FILE_Q3_K_M:
        return t->layer < t->n_layers / 16 ? WEFT_Q5_K : WEFT_Q4_K;
    case FILE_Q3_K_L:
        return WEFT_Q5_K;
    case FILE_Q4_K_M:
    case FILE_Q5_K_M:
        return more_bits(t) ? WEFT_Q6_K : m->type;
    case FILE_Q4_K_S:
    case FILE_IQ4_NL:
    case FILE_IQ4_XS:
        return early ? WEFT_Q5_K : m->type;
    default:
        return m->type;
    }
}

static uint32_t type_of_role(const struct mixture *m, const struct mixture_tensor *t)
{
    switch (t->role) {
    case MIXTURE_EMBED:
        if (t->tied)
            return type_of_output(m, t);
        return m->file_type == FILE_TQ1_0 || m->file_type == FILE_TQ2_0 ? WEFT_Q4_K : m->type;
    case MIXTURE_OUTPUT:
        return type_of_output(m, t);
    case MIXTURE_K:
        return t->n_experts == 8 ? WEFT_Q8_0 : m->type;
    case MIXTURE_V:
    case MIXTURE_QKV: /* the quantiser knows no other rule for it than that of V */
        return type_of_v(m, t);
    case MIXTURE_O:
        return type_of_o(m, t);
    case MIXTURE_DOWN:
        return type_of_down(m, t);
    case MIXTURE_Q:
    case MIXTURE_GATE:
    case MIXTURE_UP:
        break;
    }
    return m->type;
}

/* Another type for rows that are no whole blocks. */
static uint32_t fitting(uint32_t type, uint32_t cols)
{
    if (cols % weft_tensor_type_info(type)->block_elems == 0)
        return type;
    switch (type) {
    case WEFT_IQ4_XS:
        type = WEFT_IQ4_NL;
        break;
    case WEFT_Q2_K:
    case WEFT_Q3_K:
    case WEFT_TQ1_0:
    case WEFT_TQ2_0:
        type = WEFT_Q4_0;
        break;
    case WEFT_Q4_K:
        type = WEFT_Q5_0;
        break;
    case WEFT_Q5_K:
        type = WEFT_Q5_1;
        break;
    case WEFT_Q6_K:
        type = WEFT_Q8_0;
        break;
    default:
        break;
    }
    return cols % weft_tensor_type_info(type)->block_elems == 0 ? type : WEFT_F16;
}

uint32_t mixture_type(const struct mixture *m, bool pure, const struct mixture_tensor *t)
{
    const bool quantised = m->type != WEFT_F32 && m->type != WEFT_F16 && m->type != WEFT_BF16;
    return fitting(pure || !quantised ? m->type : type_of_role(m, t), t->cols);
}
