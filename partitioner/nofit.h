/*
 * Why a plan does not fit and what would cure it, as text of several lines.
 */
#ifndef WEFT_PARTITIONER_NOFIT_H
#define WEFT_PARTITIONER_NOFIT_H

#include "partitioner/plan.h"

/* Sets err to the whole text and returns -WEFT_ENOFIT. p is the problem that has no placement,
 * `cause` the reason when it is not the memory of the cluster as a whole (a pinned plan), else
 * NULL. */
int weft_nofit(const struct weft_plan_request *rq, const struct weft_problem *p, const char *cause,
               weft_err *err);

#endif
