/*
 * Experts, see experts.h: route → lists of rows by expert → one expert after the other. A row alone
 * meets its experts' matrices as they lie in memory; of many rows each expert takes its own,
 * gathered.
 */
#include "daemon/experts.h"

#include <string.h>

static int overflow(const struct weft_layer *l, const char *what, weft_err *err)
{
    return weft_fail(err, WEFT_EOVERFLOW,
                     "layer %u, FFN: %s (values out of range; is the model damaged?)", l->number,
                     what);
}

/* Which experts each row takes, and the pairs in order of experts, then rows. */
static int route(const struct weft_layer *l, const struct wk_act *x, weft_err *err)
{
    const struct weft_traits *t = &l->model->traits;
    const struct weft_expert_buffers *b = &l->buffers->experts;
    const uint32_t n = l->n_rows, used = t->n_experts_used;
    wk_matmul(l->engine, l->weights->router, x, b->logits, t->n_experts, l->buffers->matmul);
    memset(b->first, 0, (t->n_experts + (size_t)1) * sizeof *b->first);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t *chosen = b->chosen + (size_t)i * used;
        if (!wk_route(b->logits + (size_t)i * t->n_experts, t->n_experts, used,
                      t->expert_renormalise, t->expert_scale, chosen, b->weight + (size_t)i * used))
            return overflow(l, "the router's choice is not a number", err);
        for (uint32_t k = 0; k < used; k++)
            b->first[chosen[k] + 1]++;
    }
    for (uint32_t e = 0; e < t->n_experts; e++)
        b->first[e + 1] += b->first[e];
    /* Each pair goes to its expert's next place; `first` moves with it, and back at the end. */
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < used; k++) {
            uint32_t at = b->first[b->chosen[(size_t)i * used + k]]++;
            b->pair_row[at] = i;
            b->pair_weight[at] = b->weight[(size_t)i * used + k];
        }
    memmove(b->first + 1, b->first, t->n_experts * sizeof *b->first);
    b->first[0] = 0;
    return 0;
}

/* sum[row[i]] += weight[i] * down · (act(gate · x[i]) * (up · x[i])), piece by piece. */
static int expert(const struct weft_layer *l, const struct wk_glu *glu,
                  const struct wk_matrix *down, const struct wk_act *x, const uint32_t *row,
                  const float *weight, weft_err *err)
{
    const struct weft_layer_buffers *b = l->buffers;
    const bool q8 = wk_type_quantised(down->type);
    struct wk_act hidden;
    wk_act_glu(l->engine, &hidden, glu, x, q8 ? NULL : b->hidden, q8 ? b->hidden : NULL, b->matmul);
    if (!wk_matmul_sum_rows(l->engine, down, &hidden, WEFT_FFN_PIECE, row, weight, b->sum))
        return overflow(l, "a partial sum is not below 2^21", err);
    return 0;
}

static int shared(const struct weft_layer *l, const struct wk_act *x, weft_err *err)
{
    const struct weft_layer_weights *w = l->weights;
    const struct weft_layer_buffers *b = l->buffers;
    const struct wk_glu glu = {
        .gate = w->gate, .up = w->up, .activation = l->arch->gelu ? WK_GELU : WK_SILU};
    wk_matmul(l->engine, w->shared_router, x, b->experts.shared, 1, b->matmul);
    for (uint32_t i = 0; i < l->n_rows; i++)
        b->experts.shared[i] = wk_sigmoid(b->experts.shared[i]);
    return expert(l, &glu, w->down, x, NULL, b->experts.shared, err);
}

static int routed(const struct weft_layer *l, uint32_t number, const struct wk_act *x,
                  weft_err *err)
{
    const struct weft_expert_buffers *b = &l->buffers->experts;
    const uint32_t first = b->first[number], n = b->first[number + 1] - first;
    if (n == 0)
        return 0;
    const struct wk_matrix gate = weft_store_expert(l->store, WEFT_ROLE_EXPERT_GATE, l->number,
                                                    number),
                           up = weft_store_expert(l->store, WEFT_ROLE_EXPERT_UP, l->number, number),
                           down = weft_store_expert(l->store, WEFT_ROLE_EXPERT_DOWN, l->number,
                                                    number);
    const struct wk_glu glu = {
        .gate = &gate, .up = &up, .activation = l->arch->gelu ? WK_GELU : WK_SILU};
    struct wk_act own = *x;
    if (n < l->n_rows) /* else it takes all of them, in order */
        wk_act_gather(x, b->pair_row + first, n, &own, b->x, b->q8);
    return expert(l, &glu, &down, &own, b->pair_row + first, b->pair_weight + first, err);
}

int weft_experts_run(const struct weft_layer *l, const struct wk_act *x, weft_err *err)
{
    int r = route(l, x, err);
    memset(l->buffers->sum, 0, (size_t)l->n_rows * l->model->dim * sizeof *l->buffers->sum);
    if (r == 0 && l->weights->gate != NULL)
        r = shared(l, x, err);
    for (uint32_t e = 0; r == 0 && e < l->model->traits.n_experts; e++)
        r = routed(l, e, x, err);
    return r;
}
