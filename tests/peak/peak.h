/*
 * What a processor can do at best, by instruction set: loops that keep everything in registers and
 * use nothing but the instructions that the products of kernels/NAME.c are made of, and plain
 * reading of memory. One file per instruction set, built with its flags; chosen at run time by the
 * name of the kernels' table. Thread-safe.
 */
#ifndef WEFT_TESTS_PEAK_PEAK_H
#define WEFT_TESTS_PEAK_PEAK_H

#include <stddef.h>
#include <stdint.h>

/* Ways to read: how many places at once, and how far ahead the memory is asked. Which is the
 * fastest differs between processors, so all of them are tried. */
enum { PEAK_READS = 10 };

struct peak {
    const char *isa; /* as wk_table_name */
    /* Computes `rounds` rounds; the operations of one, a multiply and an add counting two. NULL
     * where the table has nothing of its own to measure. */
    void (*integers)(uint64_t rounds);
    double integer_ops;
    void (*floats)(uint64_t rounds);
    double float_ops;
    /* Reads all bytes at p (64-byte aligned, a multiple of 64 * 8), in one of PEAK_READS ways. */
    uint64_t (*read)(const void *p, size_t bytes, unsigned way);
};

/* Of the architecture this is built for (list_ARCH.c); ends with NULL. */
extern const struct peak *const peaks[];

extern const struct peak peak_generic;
extern const struct peak peak_avx2, peak_avx512, peak_avx512vnni;
extern const struct peak peak_neon, peak_dotprod, peak_i8mm;

/* Takes what a loop computed, so that it is computed. */
void peak_keep(const void *data);

#endif
