/*
 * Data for the tests of kernels: buffers of exact size (so that AddressSanitizer sees a read past
 * the end), random and hostile weights, comparison of floats bit by bit.
 */
#ifndef WEFT_TESTS_KERNEL_DATA_H
#define WEFT_TESTS_KERNEL_DATA_H

#include "kernels/kernels.h"

/* WK_ALIGN aligned, exactly `bytes` long (at least 1); free() it. Exits when there is no memory. */
void *kd_alloc(size_t bytes);

/* Tables of this CPU, ref first. */
enum { KD_TABLES_MAX = 8 };

/* n floats, uniform in [-1, 1) with a few zeros and a few large ones. */
float *kd_floats(uint64_t *seed, size_t n);
/* n floats of any bits: infinities, NaNs, subnormals. */
float *kd_any_floats(uint64_t *seed, size_t n);

/* Bytes of `rows` rows in GGUF layout. */
size_t kd_gguf_bytes(enum wk_type type, uint32_t rows, uint32_t cols);
/* Rows in GGUF layout: values of order 1, or any bytes at all. */
uint8_t *kd_gguf(uint64_t *seed, enum wk_type type, uint32_t rows, uint32_t cols, bool any);
/* A packed matrix of such rows; free .data. */
struct wk_matrix kd_matrix(enum wk_type type, uint32_t rows, uint32_t cols, const uint8_t *gguf);
/* Activations for w: quantised if it is; free .q8. */
struct wk_act kd_act(const struct wk_engine *e, enum wk_type type, const float *x, uint32_t n,
                     uint32_t cols);

/* Angles of RoPE without scaling: cos and sin [n, rope_dim / 2] of positions [n]. */
void kd_angles(const int32_t *positions, uint32_t n, uint32_t rope_dim, float base,
               const float *factors, float *cos_out, float *sin_out);

/* Index of the first element that differs in its bits, two NaNs being equal; n when there is none.
 */
size_t kd_differ(const float *a, const float *b, size_t n);

enum { KD_TYPES = 17 };
extern const enum wk_type kd_types[KD_TYPES];
const char *kd_type_name(enum wk_type type);
/* The columns a type's rows are made of. */
uint32_t kd_type_cols(enum wk_type type);
/* Whether byte `at` of a block belongs to one of its f16 scales. */
bool kd_is_scale(enum wk_type type, size_t at);

#endif
