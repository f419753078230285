/*
 * The router of a mixture of experts: which experts a row goes to and with what weights. One row at
 * a time in plain C, so that there is one order of operations. Any thread, no state.
 */
#include "kernels/math.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <stdbool.h>

float wk_sigmoid(float x)
{
    return 1.0f / (1.0f + wk_exp_f32(-x));
}

static bool finite_all(const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!(fabsf(x[i]) < INFINITY))
            return false;
    return true;
}

/* Whether logit a of expert i comes before logit b of expert j. */
static bool before(float a, uint32_t i, float b, uint32_t j)
{
    return a > b || (a == b && i < j);
}

/* The first in order behind expert `last` (n: the first of all). */
static uint32_t next_expert(const float *logits, uint32_t n, uint32_t last)
{
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++)
        if ((last == n || before(logits[last], last, logits[i], i)) &&
            (best == n || before(logits[i], i, logits[best], best)))
            best = i;
    return best;
}

bool wk_route(const float *logits, uint32_t n_experts, uint32_t used, bool renormalise, float scale,
              uint32_t *expert, float *weight)
{
    float sum = 0;
    assert(used >= 1 && used <= n_experts);
    if (!finite_all(logits, n_experts))
        return false;
    for (uint32_t k = 0; k < used; k++) {
        expert[k] = next_expert(logits, n_experts, k > 0 ? expert[k - 1] : n_experts);
        weight[k] = wk_exp_f32(logits[expert[k]] - logits[expert[0]]);
        sum += weight[k];
    }
    if (!renormalise) {
        sum = 0;
        for (uint32_t i = 0; i < n_experts; i++)
            sum += wk_exp_f32(logits[i] - logits[expert[0]]);
    }
    for (uint32_t k = 0; k < used; k++)
        weight[k] = weight[k] / sum * scale;
    return true;
}
