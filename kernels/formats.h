/*
 * The weight types: what a block is in a GGUF file and how it is packed. Private to kernels/.
 *
 * Packed, 16 rows are a tile, one lane each. A tile of a quantised type is one stretch per 256
 * columns (the last may be shorter, where blocks have 32): first its runs of quants, one for every
 * 32 columns and `run` bytes long, then the heads of its blocks, `head` bytes each. So all of it is
 * read in one stream, and quants are aligned to 64 bytes. A run holds one code per column and row,
 * in planes; a group is 4 neighbouring columns of all rows, 64 bytes, byte 4 r + j for column j of
 * row r:
 *
 *     8 bits    8 x 64 bytes: group g
 *     4 bits    4 x 64 bytes: in vector v the low nibbles are group v, the high ones group v + 4
 *     2 bits    2 x 64 bytes: in vector v bits 2 k and 2 k + 1 are group 4 v + k
 *     1 bit     64 bytes: bit g is group g
 *
 * with the lower bits' plane first. A head holds, each for 16 rows side by side: the f16 scale d;
 * the f16 minimum m if the type has one; then the small integer scales (struct wk_sub says what
 * they mean): Q6_K 16 x int8; Q2_K 16 bytes sc | mn << 4; Q3_K, Q4_K, Q5_K, numbers of 6 bits in
 * pairs, one pair for 32 columns: 8 bytes of low nibbles, first | second << 4, and 4 bytes of upper
 * bits, pair s in nibble s % 2 of byte s / 2; IQ4_XS 4 bytes of low nibbles and 2 of upper bits.
 * Packed bytes are those of the file, but for TQ1_0, which is packed as TQ2_0: base-3 digits would
 * cost more to take apart than the fifth of memory they save.
 */
#ifndef WEFT_KERNELS_FORMATS_H
#define WEFT_KERNELS_FORMATS_H

#include "kernels/kernels.h"

/* Every type: the name of its product, the type, its kind. */
#define WK_TYPES(X)             \
    X(dot_f32, WK_F32, float)   \
    X(dot_f16, WK_F16, float)   \
    X(dot_bf16, WK_BF16, float) \
    WK_QUANTISED_TYPES(X)
#define WK_QUANTISED_TYPES(X)           \
    X(dot_q8_0, WK_Q8_0, quantised)     \
    X(dot_q4_0, WK_Q4_0, quantised)     \
    X(dot_q4_1, WK_Q4_1, quantised)     \
    X(dot_q5_0, WK_Q5_0, quantised)     \
    X(dot_q5_1, WK_Q5_1, quantised)     \
    X(dot_q2_k, WK_Q2_K, quantised)     \
    X(dot_q3_k, WK_Q3_K, quantised)     \
    X(dot_q4_k, WK_Q4_K, quantised)     \
    X(dot_q5_k, WK_Q5_K, quantised)     \
    X(dot_q6_k, WK_Q6_K, quantised)     \
    X(dot_iq4_nl, WK_IQ4_NL, quantised) \
    X(dot_iq4_xs, WK_IQ4_XS, quantised) \
    X(dot_tq1_0, WK_TQ1_0, quantised)   \
    X(dot_tq2_0, WK_TQ2_0, quantised)

struct wk_format {
    const char *name;
    uint16_t bytes, cols; /* of a block in the file; bytes 0: not a type of ours */
    uint16_t head, run;   /* packed bytes of a tile: of a block's head, of 32 columns of quants */
    uint8_t bits;         /* of a code */
};

enum {
    WK_SCALES = 2 * WK_TILE, /* bytes of a tile's f16 scales */
    WK_STRETCH = 8,          /* runs of a stretch */
};

static const struct wk_format wk_formats[WK_TYPE_COUNT] = {
    [WK_F32] = {"F32", 4, 1, 0, 0, 0},
    [WK_F16] = {"F16", 2, 1, 0, 0, 0},
    [WK_BF16] = {"BF16", 2, 1, 0, 0, 0},
    [WK_Q8_0] = {"Q8_0", 34, 32, 32, 512, 8},
    [WK_Q4_0] = {"Q4_0", 18, 32, 32, 256, 4},
    [WK_Q4_1] = {"Q4_1", 20, 32, 64, 256, 4},
    [WK_Q5_0] = {"Q5_0", 22, 32, 32, 320, 5},
    [WK_Q5_1] = {"Q5_1", 24, 32, 64, 320, 5},
    [WK_Q2_K] = {"Q2_K", 84, 256, 320, 128, 2},
    [WK_Q3_K] = {"Q3_K", 110, 256, 224, 192, 3},
    [WK_Q4_K] = {"Q4_K", 144, 256, 256, 256, 4},
    [WK_Q5_K] = {"Q5_K", 176, 256, 256, 320, 5},
    [WK_Q6_K] = {"Q6_K", 210, 256, 288, 384, 6},
    [WK_IQ4_NL] = {"IQ4_NL", 18, 32, 32, 256, 4},
    [WK_IQ4_XS] = {"IQ4_XS", 136, 256, 128, 256, 4},
    [WK_TQ1_0] = {"TQ1_0", 54, 256, 32, 128, 2},
    [WK_TQ2_0] = {"TQ2_0", 66, 256, 32, 128, 2},
};

/* The values of the 16 codes of IQ4_NL and IQ4_XS. */
static const int8_t wk_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

/* How codes become numbers: value = code - offset, but for IQ4 (a table) and Q8_0 (two's
 * complement). All are powers of two. */
static inline int wk_code_offset(enum wk_type type)
{
    switch (type) {
    case WK_Q4_0:
        return 8;
    case WK_Q5_0:
        return 16;
    case WK_Q6_K:
        return 32;
    case WK_Q3_K:
        return 4;
    case WK_TQ1_0:
    case WK_TQ2_0:
        return 1;
    default:
        return 0;
    }
}

/* Values of 8 bits and a sign, or small codes that a signed and an unsigned byte hold alike. */
static inline bool wk_wide_values(enum wk_type type)
{
    return type == WK_Q8_0 || type == WK_IQ4_NL || type == WK_IQ4_XS;
}

/* A scale for every 16 columns instead of 32. */
static inline bool wk_half_scales(enum wk_type type)
{
    return type == WK_Q6_K || type == WK_Q3_K || type == WK_Q2_K;
}

/* m in the head. */
static inline bool wk_has_min(enum wk_type type)
{
    return type == WK_Q4_1 || type == WK_Q5_1 || type == WK_Q2_K || type == WK_Q4_K ||
           type == WK_Q5_K;
}

/* 32 columns of a row. A column's value is d * sc[h] * code value - mins, h its half (0 where the
 * type has one scale for 32), mins = m * mn[h]. Q4_1 and Q5_1 add m: their mn is -1. */
struct wk_sub {
    uint16_t d, m; /* f16 */
    int16_t sc[2], mn[2];
    uint8_t code[WK_BLOCK];
};

static inline int wk_code_value(enum wk_type type, uint8_t code)
{
    if (type == WK_Q8_0)
        return (int8_t)code;
    return wk_wide_values(type) ? wk_iq4_values[code] : code - wk_code_offset(type);
}

/* Columns [c, c + 32) of one row of a quantised type: out of a row in GGUF layout, and out of lane
 * `lane` of a packed tile of `cols` columns. */
void wk_sub_of_row(enum wk_type type, const uint8_t *row, uint32_t c, struct wk_sub *ret);
void wk_sub_of_tile(enum wk_type type, const uint8_t *tile, uint32_t cols, unsigned lane,
                    uint32_t c, struct wk_sub *ret);

static inline bool wk_quantised(enum wk_type type)
{
    return wk_formats[type].bits != 0;
}

/* Runs that share a head. */
static inline uint32_t wk_block_runs(enum wk_type type)
{
    return wk_formats[type].cols / WK_BLOCK;
}

/* Bytes of n runs of a tile with their heads; n counts whole blocks. */
static inline size_t wk_runs_bytes(enum wk_type type, uint32_t n)
{
    return (size_t)n * wk_formats[type].run +
           (size_t)(n / wk_block_runs(type)) * wk_formats[type].head;
}

/* Runs of a tile of so many bytes. */
static inline uint32_t wk_tile_runs(enum wk_type type, size_t tile_bytes)
{
    const uint32_t block = wk_block_runs(type);
    return (uint32_t)(tile_bytes / wk_runs_bytes(type, block)) * block;
}

/* Where run b of a tile of n runs lies, and its head. */
static inline size_t wk_run_at(enum wk_type type, uint32_t b)
{
    return wk_runs_bytes(type, b / WK_STRETCH * WK_STRETCH) +
           (size_t)(b % WK_STRETCH) * wk_formats[type].run;
}

static inline size_t wk_head_at(enum wk_type type, uint32_t b, uint32_t n)
{
    const uint32_t first = b / WK_STRETCH * WK_STRETCH;
    const uint32_t here = n - first < WK_STRETCH ? n - first : WK_STRETCH;
    return wk_runs_bytes(type, first) + (size_t)here * wk_formats[type].run +
           (size_t)(b % WK_STRETCH / wk_block_runs(type)) * wk_formats[type].head;
}

#endif
