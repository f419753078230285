/*
 * Experts: the FFN of a mixture (Shazeer et al., arXiv:1701.06538; as in Mixtral,
 * arXiv:2401.04088). A router chooses some experts for each row; what they give is weighted and
 * summed.
 *
 * Invariant: sums are exact integers, so neither the order of experts nor the rows beside a row
 * show in its bits. Compute thread; allocates nothing.
 */
#ifndef WEFT_DAEMON_EXPERTS_H
#define WEFT_DAEMON_EXPERTS_H

#include "daemon/layer.h"

/* Sets buffers->sum to the weighted sum of the experts that each row of x, the norm in all forms
 * that the matrices want, chooses, and of the shared expert. -WEFT_EOVERFLOW naming the layer. */
int weft_experts_run(const struct weft_layer *l, const struct wk_act *x,
                     weft_err *err) WEFT_MUST_USE;

#endif
