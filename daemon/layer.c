/*
 * Layer, see layer.h. Reads top to bottom like the paper (Llama 2, arXiv:2307.09288; grouped KV
 * heads, arXiv:2305.13245; SwiGLU, arXiv:2002.05202; RoPE, arXiv:2104.09864). Compute thread.
 */
#include "daemon/layer.h"

#include <math.h>

#include "daemon/stage.h"

#define DAMAGED "(values out of range; is the model damaged?)"
#define F16_LIMIT 65520.0f           /* from here on a value rounds to infinity in f16 */
#define Q8_0_LIMIT (127 * F16_LIMIT) /* the same for the scale, a 127th of the greatest value */

int weft_layer_find(const struct weft_store *s, uint32_t number, struct weft_layer_weights *ret,
                    weft_err *err)
{
    struct weft_layer_weights w = {
        .attn_norm = weft_store_vector(s, WEFT_ROLE_ATTN_NORM, number),
        .ffn_norm = weft_store_vector(s, WEFT_ROLE_FFN_NORM, number),
        .q = weft_store_matrix(s, WEFT_ROLE_ATTN_Q, number),
        .k = weft_store_matrix(s, WEFT_ROLE_ATTN_K, number),
        .v = weft_store_matrix(s, WEFT_ROLE_ATTN_V, number),
        .o = weft_store_matrix(s, WEFT_ROLE_ATTN_O, number),
        .gate = weft_store_matrix(s, WEFT_ROLE_FFN_GATE, number),
        .up = weft_store_matrix(s, WEFT_ROLE_FFN_UP, number),
        .down = weft_store_matrix(s, WEFT_ROLE_FFN_DOWN, number),
    };
    for (int role = WEFT_ROLE_GLOBAL_COUNT; role < WEFT_ROLE_COUNT; role++) {
        char name[WEFT_GGUF_NAME_MAX + 1];
        if (weft_store_matrix(s, (enum weft_role)role, number) == NULL)
            return weft_fail(err, WEFT_ESTATE, "%s is not loaded",
                             weft_role_tensor_name(name, (enum weft_role)role, number));
    }
    *ret = w;
    return 0;
}

uint32_t weft_layer_o_piece(const struct weft_model *m)
{
    uint32_t cols = m->n_heads * m->head_dim;
    for (uint32_t end = m->head_dim; end < cols; end += m->head_dim)
        if (end % WK_BLOCK == 0)
            return end;
    return cols;
}

static int overflow(const struct weft_layer *l, const char *half, const char *what, weft_err *err)
{
    return weft_fail(err, WEFT_EOVERFLOW, "layer %u, %s: %s", l->number, half, what);
}

/* ------------------------------------------------------------------ what both halves do */

/* The residual's norm in the forms that these matrices want. */
static void normed(const struct weft_layer *l, const float *weight,
                   const struct wk_matrix *const *w, size_t n, struct wk_act *act)
{
    const struct weft_layer_buffers *b = l->buffers;
    bool f32 = false, q8 = false;
    for (size_t i = 0; i < n; i++)
        if (wk_type_quantised(w[i]->type))
            q8 = true;
        else
            f32 = true;
    wk_act_norm(l->engine, act, b->x, weight, l->model->norm_eps, l->n_rows, l->model->dim,
                f32 ? b->normed : NULL, q8 ? b->q8 : NULL);
}

static const char piece_fault[] = "a partial sum is not below 2^21 " DAMAGED,
                  total_fault[] = "a sum is not below 2^23 " DAMAGED;

/* The product that ends a half: onto the residual, or, for the other members, into buffers->sum. */
static int product(const struct weft_layer *l, const char *half, const struct wk_matrix *w,
                   const struct wk_act *act, uint32_t piece, weft_err *err)
{
    const struct weft_layer_buffers *b = l->buffers;
    if (!l->alone)
        return wk_matmul_sum(l->engine, w, act, piece, b->sum, b->matmul)
                   ? WEFT_LAYER_SUM
                   : overflow(l, half, piece_fault, err);
    switch (wk_matmul_add(l->engine, w, act, piece, b->x)) {
    case WK_SUM_OK:
        return 0;
    case WK_SUM_PIECE:
        return overflow(l, half, piece_fault, err);
    case WK_SUM_TOTAL:
        break;
    }
    return overflow(l, half, total_fault, err);
}

/* What follows the sum of all members. */
static int residual(const struct weft_layer *l, const char *half, weft_err *err)
{
    const struct weft_layer_buffers *b = l->buffers;
    if (l->alone || wk_sum_add(l->engine, b->sum, b->x, (size_t)l->n_rows * l->model->dim))
        return 0;
    return overflow(l, half, total_fault, err);
}

/* ------------------------------------------------------------------ attention */

/* A key or value that is infinite in the cache could pass unseen: a score of -infinity has no
 * weight. */
static int check_range(const struct weft_layer *l, const float *x, size_t n, weft_err *err)
{
    static const struct {
        float limit;
        const char *text;
    } types[] = {
        [WK_KV_F32] = {INFINITY, "a key or value is not finite " DAMAGED},
        [WK_KV_F16] = {F16_LIMIT, "a key or value is too large for an f16 cache "
                                  "(kv: f32 holds more; or is the model damaged?)"},
        [WK_KV_Q8_0] = {Q8_0_LIMIT, "a key or value is too large for a q8_0 cache "
                                    "(kv: f32 holds more; or is the model damaged?)"},
    };
    const float limit = types[l->kv->type].limit;
    bool ok = true;
    for (size_t i = 0; i < n; i++)
        ok &= fabsf(x[i]) < limit; /* false for NaN */
    return ok ? 0 : overflow(l, "attention", types[l->kv->type].text, err);
}

/* Stores the rows' keys and values and lets their queries look at the cache, session by session. */
static void attend(struct weft_layer *l)
{
    const struct weft_model *m = l->model;
    const struct weft_layer_buffers *b = l->buffers;
    const size_t q_row = (size_t)m->n_heads * m->head_dim,
                 kv_row = (size_t)m->n_kv_heads * m->head_dim;
    const float scale = 1.0f / sqrtf((float)m->head_dim);
    size_t row = 0;
    for (uint32_t i = 0; i < l->n_segments; i++) {
        const struct weft_segment *s = &l->segments[i];
        const struct wk_kv *kv = &l->kv[s->slot];
        wk_kv_put(l->engine, kv, s->position, s->rows, b->k + row * kv_row, b->v + row * kv_row);
        wk_attention(l->engine, kv, b->q + row * q_row, s->rows, m->n_heads, s->position, scale,
                     b->heads + row * q_row, b->attention);
        row += s->rows;
    }
}

static int attention(struct weft_layer *l, weft_err *err)
{
    const struct weft_model *m = l->model;
    const struct wk_engine *e = l->engine;
    const struct weft_layer_weights *w = l->weights;
    const struct weft_layer_buffers *b = l->buffers;
    const uint32_t n = l->n_rows, q_cols = m->n_heads * m->head_dim,
                   kv_cols = m->n_kv_heads * m->head_dim;
    struct wk_act act;

    normed(l, w->attn_norm, (const struct wk_matrix *const[]){w->q, w->k, w->v}, 3, &act);
    const struct wk_product products[] = {
        {w->q, b->q, q_cols}, {w->k, b->k, kv_cols}, {w->v, b->v, kv_cols}};
    wk_matmul_many(e, products, 3, &act, b->matmul);
    wk_rope(e, WK_ROPE_PAIRS, b->q, n, m->n_heads, m->head_dim, m->rope_dim, b->cos, b->sin);
    wk_rope(e, WK_ROPE_PAIRS, b->k, n, m->n_kv_heads, m->head_dim, m->rope_dim, b->cos, b->sin);
    int r = check_range(l, b->k, (size_t)n * kv_cols, err);
    if (r == 0)
        r = check_range(l, b->v, (size_t)n * kv_cols, err);
    if (r < 0)
        return r;
    attend(l);
    wk_act_set(e, &act, b->heads, n, q_cols, wk_type_quantised(w->o->type) ? b->q8 : NULL);
    return product(l, "attention", w->o, &act, weft_layer_o_piece(m), err);
}

/* ------------------------------------------------------------------ FFN */

static int ffn(struct weft_layer *l, weft_err *err)
{
    const struct weft_layer_weights *w = l->weights;
    const struct weft_layer_buffers *b = l->buffers;
    const bool q8 = wk_type_quantised(w->down->type);
    struct wk_act act, hidden;

    normed(l, w->ffn_norm, (const struct wk_matrix *const[]){w->gate, w->up}, 2, &act);
    const struct wk_glu glu = {.gate = w->gate, .up = w->up};
    wk_act_glu(l->engine, &hidden, &glu, &act, q8 ? NULL : b->hidden, q8 ? b->hidden : NULL,
               b->matmul);
    return product(l, "FFN", w->down, &hidden, WEFT_FFN_PIECE, err);
}

/* ------------------------------------------------------------------ the machine */

int weft_layer_resume(struct weft_layer *l, weft_err *err)
{
    int r;
    switch (l->next) {
    case WEFT_LAYER_ATTENTION:
        r = attention(l, err);
        l->next = WEFT_LAYER_ATTENTION_SUM;
        if (r != 0)
            return r;
        __attribute__((fallthrough)); /* alone: no sum to wait for */
    case WEFT_LAYER_ATTENTION_SUM:
        r = residual(l, "attention", err);
        if (r == 0)
            r = ffn(l, err);
        l->next = WEFT_LAYER_FFN_SUM;
        if (r != 0)
            return r;
        __attribute__((fallthrough));
    case WEFT_LAYER_FFN_SUM:
        return residual(l, "FFN", err);
    }
    return weft_fail(err, WEFT_EINTERNAL, "layer %u: resumed at point %d", l->number, (int)l->next);
}
