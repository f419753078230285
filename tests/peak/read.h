/*
 * Plain reading, the body of peak.read: included by every file of an instruction set, which builds
 * it with its own flags and so with its own width of vectors.
 */
#ifndef WEFT_TESTS_PEAK_READ_H
#define WEFT_TESTS_PEAK_READ_H

#include <string.h>

#include "kernels/inline.h"
#include "tests/peak/peak.h"

enum { LINE = 64 }; /* bytes of a cache line */

typedef uint64_t peak_line __attribute__((vector_size(LINE)));

WK_INLINE uint64_t read_streams(const uint8_t *p, size_t bytes, const size_t streams,
                                const size_t ahead)
{
    const size_t run = bytes / streams;
    peak_line sum[8] = {{0}};
    for (size_t at = 0; at < run; at += LINE)
        WK_UNROLL
    for (size_t s = 0; s < streams; s++) {
        peak_line line;
        if (ahead != 0)
            __builtin_prefetch((const void *)((uintptr_t)p + s * run + at + ahead));
        memcpy(&line, p + s * run + at, LINE);
        sum[s] += line;
    }
    for (size_t s = 1; s < streams; s++)
        sum[0] += sum[s];
    uint64_t total = 0;
    for (size_t i = 0; i < LINE / 8; i++)
        total += sum[0][i];
    return total;
}

static uint64_t read_memory(const void *p, size_t bytes, unsigned way)
{
    switch (way) {
    case 0:
        return read_streams(p, bytes, 1, 0);
    case 1:
        return read_streams(p, bytes, 1, 2048);
    case 2:
        return read_streams(p, bytes, 1, 4096);
    case 3:
        return read_streams(p, bytes, 1, 8192);
    case 4:
        return read_streams(p, bytes, 2, 0);
    case 5:
        return read_streams(p, bytes, 2, 4096);
    case 6:
        return read_streams(p, bytes, 4, 0);
    case 7:
        return read_streams(p, bytes, 4, 2048);
    case 8:
        return read_streams(p, bytes, 4, 8192);
    default:
        return read_streams(p, bytes, 8, 1024);
    }
}

#endif
