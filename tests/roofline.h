/*
 * The limits that kernels are measured against: how fast this machine reads memory, and how fast it
 * computes, with the threads of a pool.
 */
#ifndef WEFT_TESTS_ROOFLINE_H
#define WEFT_TESTS_ROOFLINE_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/kernels.h"

/* Seconds of the fastest of several calls, after one that warms up: other work on the machine only
 * ever adds time. Calls until `budget_s` has passed. */
double roofline_best(void (*fn)(void *), void *arg, double budget_s);

/* Seconds in which all `bytes` at data are read, by the fastest of all loops that this CPU can run
 * (tests/peak). `data` is larger than the caches, 64-byte aligned, in memory of the same kind as
 * that of the matrices. */
double roofline_read_s(struct wk_pool *pool, const void *data, size_t bytes, double budget_s);
/* Operations per second of a table's instructions for float or quantised weights; 0 for a table
 * whose peak is not known. */
double roofline_peak(struct wk_pool *pool, const char *isa, bool floats, double budget_s);

#endif
