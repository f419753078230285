/*
 * Layer, see layer.h. Reads top to bottom like the paper (Llama 2, arXiv:2307.09288; grouped KV
 * heads, arXiv:2305.13245; SwiGLU, arXiv:2002.05202; RoPE, arXiv:2104.09864; norms behind the
 * halves and soft caps, Gemma 2, arXiv:2408.00118; norms of q and k, arXiv:2302.05442). Compute
 * thread.
 */
#include "daemon/layer.h"

#include <math.h>
#include <string.h>

#include "daemon/experts.h"
#include "daemon/stage.h"

#define DAMAGED "(values out of range; is the model damaged?)"
#define F16_LIMIT 65520.0f           /* from here on a value rounds to infinity in f16 */
#define Q8_0_LIMIT (127 * F16_LIMIT) /* the same for the scale, a 127th of the greatest value */

int weft_layer_find(const struct weft_store *s, uint32_t number, struct weft_layer_weights *ret,
                    weft_err *err)
{
    const struct weft_model *m = weft_store_model(s);
    for (int role = WEFT_ROLE_GLOBAL_COUNT; role < WEFT_ROLE_COUNT; role++) {
        char name[WEFT_GGUF_NAME_MAX + 1];
        if (weft_model_tensor(m, (enum weft_role)role, number)->bytes > 0 &&
            weft_store_matrix(s, (enum weft_role)role, number) == NULL)
            return weft_fail(err, WEFT_ESTATE, "%s is not loaded",
                             weft_role_tensor_name(name, (enum weft_role)role, number));
    }
    const bool experts = m->traits.n_experts > 0;
#define VECTOR(role) weft_store_vector(s, WEFT_ROLE_##role, number)
#define MATRIX(role) weft_store_matrix(s, WEFT_ROLE_##role, number)
    *ret = (struct weft_layer_weights){
        .attn_norm = VECTOR(ATTN_NORM),
        .ffn_norm = VECTOR(FFN_NORM),
        .attn_post_norm = VECTOR(ATTN_POST_NORM),
        .ffn_post_norm = VECTOR(FFN_POST_NORM),
        .q_norm = VECTOR(ATTN_Q_NORM),
        .k_norm = VECTOR(ATTN_K_NORM),
        .q_bias = VECTOR(ATTN_Q_BIAS),
        .k_bias = VECTOR(ATTN_K_BIAS),
        .v_bias = VECTOR(ATTN_V_BIAS),
        .o_bias = VECTOR(ATTN_O_BIAS),
        .gate_bias = VECTOR(FFN_GATE_BIAS),
        .up_bias = VECTOR(FFN_UP_BIAS),
        .down_bias = VECTOR(FFN_DOWN_BIAS),
        .q = MATRIX(ATTN_Q),
        .k = MATRIX(ATTN_K),
        .v = MATRIX(ATTN_V),
        .o = MATRIX(ATTN_O),
        .gate = experts ? MATRIX(SHARED_GATE) : MATRIX(FFN_GATE),
        .up = experts ? MATRIX(SHARED_UP) : MATRIX(FFN_UP),
        .down = experts ? MATRIX(SHARED_DOWN) : MATRIX(FFN_DOWN),
        .router = MATRIX(ROUTER),
        .shared_router = MATRIX(SHARED_ROUTER),
    };
#undef VECTOR
#undef MATRIX
    return 0;
}

bool weft_layer_direct(const struct weft_model *m)
{
    bool direct = !weft_arch_of(m)->post_norm && m->traits.residual_scale == 1;
    for (uint32_t i = 0; direct && i < m->n_layers; i++)
        direct = weft_model_tensor(m, WEFT_ROLE_ATTN_O_BIAS, i)->bytes == 0 &&
                 weft_model_tensor(m, WEFT_ROLE_FFN_DOWN_BIAS, i)->bytes == 0;
    return direct;
}

uint32_t weft_layer_o_piece(const struct weft_model *m)
{
    uint32_t cols = m->n_heads * m->head_dim;
    for (uint32_t end = m->head_dim; end < cols; end += m->head_dim)
        if (end % WK_BLOCK == 0)
            return end;
    return cols;
}

/* One of the two halves of a layer: what it is called, and what follows its sum. */
struct half {
    const char *name;
    const float *bias, *post_norm; /* [dim] or NULL */
};

static int overflow(const struct weft_layer *l, const char *half, const char *what, weft_err *err)
{
    return weft_fail(err, WEFT_EOVERFLOW, "layer %u, %s: %s", l->number, half, what);
}

/* ------------------------------------------------------------------ what both halves do */

/* The residual, normed if the architecture does so before the halves, in the forms that these
 * matrices want (those that are there). */
static void normed(const struct weft_layer *l, const float *weight,
                   const struct wk_matrix *const *w, size_t n, struct wk_act *act)
{
    const struct weft_layer_buffers *b = l->buffers;
    bool f32 = false, q8 = false;
    for (size_t i = 0; i < n; i++)
        if (w[i] != NULL && wk_type_quantised(w[i]->type))
            q8 = true;
        else if (w[i] != NULL)
            f32 = true;
    if (weight == NULL)
        wk_act_set(l->engine, act, b->x, l->n_rows, l->model->dim, q8 ? b->q8 : NULL);
    else
        wk_act_norm(l->engine, act, b->x, weight, l->model->norm_eps, l->n_rows, l->model->dim,
                    f32 ? b->normed : NULL, q8 ? b->q8 : NULL);
}

static const char piece_fault[] = "a partial sum is not below 2^21 " DAMAGED,
                  total_fault[] = "a sum is not below 2^23 " DAMAGED;

/* The product that ends a half: onto the residual, or aside where more follows, or, for the other
 * members, into buffers->sum. */
static int product(const struct weft_layer *l, const struct half *half, const struct wk_matrix *w,
                   const struct wk_act *act, uint32_t piece, weft_err *err)
{
    const struct weft_layer_buffers *b = l->buffers;
    if (!l->alone)
        return wk_matmul_sum(l->engine, w, act, piece, b->sum, b->matmul)
                   ? WEFT_LAYER_SUM
                   : overflow(l, half->name, piece_fault, err);
    if (b->half != NULL) /* 0 + a sum that never is -0: the sum itself */
        memset(b->half, 0, (size_t)l->n_rows * l->model->dim * sizeof *b->half);
    switch (wk_matmul_add(l->engine, w, act, piece, b->half != NULL ? b->half : b->x)) {
    case WK_SUM_OK:
        return 0;
    case WK_SUM_PIECE:
        return overflow(l, half->name, piece_fault, err);
    case WK_SUM_TOTAL:
        break;
    }
    return overflow(l, half->name, total_fault, err);
}

/* What follows the sum of all members, or (`summed`) of a half that keeps its sums in memory. */
static int residual(const struct weft_layer *l, const struct half *half, bool summed, weft_err *err)
{
    const struct weft_model *m = l->model;
    const struct weft_layer_buffers *b = l->buffers;
    const size_t n = (size_t)l->n_rows * m->dim;
    if (summed && !(b->half != NULL ? wk_sum_get(l->engine, b->sum, b->half, n)
                                    : wk_sum_add(l->engine, b->sum, b->x, n)))
        return overflow(l, half->name, total_fault, err);
    if (b->half == NULL)
        return 0;
    if (half->bias != NULL)
        wk_add_bias(l->engine, b->half, l->n_rows, m->dim, m->dim, half->bias);
    if (half->post_norm != NULL)
        wk_rms_norm(l->engine, b->half, half->post_norm, m->norm_eps, l->n_rows, m->dim, b->half);
    wk_add_scaled(l->engine, b->x, b->half, n, m->traits.residual_scale);
    return 0;
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

/* Biases, norms of heads and rotation: from the products to what is compared. */
static void finish_qkv(const struct weft_layer *l)
{
    const struct weft_model *m = l->model;
    const struct weft_layer_buffers *b = l->buffers;
    const struct weft_layer_weights *w = l->weights;
    const enum wk_rope_style style = l->arch->rope_halves ? WK_ROPE_HALVES : WK_ROPE_PAIRS;
    const struct {
        float *x;
        const float *bias, *norm;
        uint32_t heads;
        bool turns;
    } all[] = {{b->q, w->q_bias, w->q_norm, m->n_heads, true},
               {b->k, w->k_bias, w->k_norm, m->n_kv_heads, true},
               {b->v, w->v_bias, NULL, m->n_kv_heads, false}};
    const bool own = weft_layer_windowed(m, l->number) && m->traits.rope_window_base > 0;
    const struct weft_angles *angles = &b->angles[own];
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const uint32_t cols = all[i].heads * m->head_dim;
        if (all[i].bias != NULL)
            wk_add_bias(l->engine, all[i].x, l->n_rows, cols, cols, all[i].bias);
        if (all[i].norm != NULL && l->arch->qk_norm == WEFT_QK_NORM_ALL)
            wk_rms_norm(l->engine, all[i].x, all[i].norm, m->norm_eps, l->n_rows, cols, all[i].x);
        else if (all[i].norm != NULL)
            wk_rms_norm(l->engine, all[i].x, all[i].norm, m->norm_eps, l->n_rows * all[i].heads,
                        m->head_dim, all[i].x);
        if (all[i].turns && weft_layer_rotates(m, l->number))
            wk_rope(l->engine, style, all[i].x, l->n_rows, all[i].heads, m->head_dim, m->rope_dim,
                    angles->cos, angles->sin);
    }
}

/* Stores the rows' keys and values and lets their queries look at the cache, session by session. */
static void attend(struct weft_layer *l)
{
    const struct weft_model *m = l->model;
    const struct weft_layer_buffers *b = l->buffers;
    const size_t q_row = (size_t)m->n_heads * m->head_dim,
                 kv_row = (size_t)m->n_kv_heads * m->head_dim;
    const struct wk_attention_spec spec = {
        .scale = m->traits.attn_scale,
        .softcap = m->traits.attn_softcap,
        .window = weft_layer_windowed(m, l->number) ? m->traits.window : 0,
    };
    size_t row = 0;
    for (uint32_t i = 0; i < l->n_segments; i++) {
        const struct weft_segment *s = &l->segments[i];
        const struct wk_kv *kv = &l->kv[s->slot];
        wk_kv_put(l->engine, kv, s->position, s->rows, b->k + row * kv_row, b->v + row * kv_row);
        wk_attention(l->engine, kv, b->q + row * q_row, s->rows, m->n_heads, s->position, &spec,
                     b->heads + row * q_row, b->attention);
        row += s->rows;
    }
}

static int attention(struct weft_layer *l, const struct half *half, weft_err *err)
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
    finish_qkv(l);
    int r = check_range(l, b->k, (size_t)n * kv_cols, err);
    if (r == 0)
        r = check_range(l, b->v, (size_t)n * kv_cols, err);
    if (r < 0)
        return r;
    attend(l);
    wk_act_set(e, &act, b->heads, n, q_cols, wk_type_quantised(w->o->type) ? b->q8 : NULL);
    return product(l, half, w->o, &act, weft_layer_o_piece(m), err);
}

/* ------------------------------------------------------------------ FFN */

/* The rows' experts and, of those that have one, the shared expert. */
static int mixture(const struct weft_layer *l, weft_err *err)
{
    const struct weft_layer_weights *w = l->weights;
    const struct wk_matrix *const inputs[] = {
        w->router,
        w->shared_router,
        w->gate,
        w->up,
        weft_store_matrix(l->store, WEFT_ROLE_EXPERT_GATE, l->number),
        weft_store_matrix(l->store, WEFT_ROLE_EXPERT_UP, l->number),
    };
    struct wk_act act;
    normed(l, w->ffn_norm, inputs, sizeof inputs / sizeof inputs[0], &act);
    int r = weft_experts_run(l, &act, err);
    return r < 0 || l->alone ? r : WEFT_LAYER_SUM;
}

static int ffn(struct weft_layer *l, const struct half *half, weft_err *err)
{
    const struct weft_layer_weights *w = l->weights;
    const struct weft_layer_buffers *b = l->buffers;
    struct wk_act act, hidden;

    if (w->router != NULL)
        return mixture(l, err);
    normed(l, w->ffn_norm, (const struct wk_matrix *const[]){w->gate, w->up}, 2, &act);
    const bool q8 = wk_type_quantised(w->down->type);
    const struct wk_glu glu = {.gate = w->gate,
                               .up = w->up,
                               .gate_bias = w->gate_bias,
                               .up_bias = w->up_bias,
                               .activation = l->arch->gelu ? WK_GELU : WK_SILU};
    wk_act_glu(l->engine, &hidden, &glu, &act, q8 ? NULL : b->hidden, q8 ? b->hidden : NULL,
               b->matmul);
    return product(l, half, w->down, &hidden, WEFT_FFN_PIECE, err);
}

/* ------------------------------------------------------------------ the machine */

int weft_layer_resume(struct weft_layer *l, weft_err *err)
{
    const struct weft_layer_weights *w = l->weights;
    const struct half first = {"attention", w->o_bias, w->attn_post_norm},
                      second = {"FFN", w->down_bias, w->ffn_post_norm};
    int r;
    switch (l->next) {
    case WEFT_LAYER_ATTENTION:
        r = attention(l, &first, err);
        l->next = WEFT_LAYER_ATTENTION_SUM;
        if (r != 0)
            return r;
        __attribute__((fallthrough)); /* alone: no sum to wait for */
    case WEFT_LAYER_ATTENTION_SUM:
        r = residual(l, &first, !l->alone, err);
        if (r == 0)
            r = ffn(l, &second, err);
        l->next = WEFT_LAYER_FFN_SUM;
        if (r != 0)
            return r;
        __attribute__((fallthrough));
    case WEFT_LAYER_FFN_SUM:
        return residual(l, &second, !l->alone || w->router != NULL, err);
    }
    return weft_fail(err, WEFT_EINTERNAL, "layer %u: resumed at point %d", l->number, (int)l->next);
}
