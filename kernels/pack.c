/*
 * Packing: rows of GGUF tensors into tiles of 16 rows (formats.h has the layouts) and back to f32.
 * Codes are rearranged, never changed: a packed row gives exactly the values of the file. Any
 * thread; different row ranges of one matrix may be packed at once.
 */
#include "kernels/f16.h"
#include "kernels/formats.h"
#include "kernels/math.h"
#include "kernels/table.h"

#include <assert.h>
#include <string.h>

bool wk_type_supported(uint32_t type)
{
    return type < WK_TYPE_COUNT && wk_formats[type].bytes != 0;
}

bool wk_type_quantised(enum wk_type type)
{
    return wk_quantised(type);
}

static size_t row_bytes(enum wk_type type, uint32_t cols)
{
    return (size_t)(cols / wk_formats[type].cols) * wk_formats[type].bytes;
}

size_t wk_tile_bytes(enum wk_type type, uint32_t cols)
{
    const struct wk_format *f = &wk_formats[type];
    if (!wk_quantised(type))
        return (size_t)cols * f->bytes * WK_TILE;
    return wk_runs_bytes(type, cols / WK_BLOCK);
}

size_t wk_matrix_bytes(enum wk_type type, uint32_t rows, uint32_t cols)
{
    size_t bytes;
    if (!wk_type_supported(type) || cols % wk_formats[type].cols != 0)
        return 0;
    size_t tiles = ((size_t)rows + WK_TILE - 1) / WK_TILE;
    return __builtin_mul_overflow(tiles, wk_tile_bytes(type, cols), &bytes) ? 0 : bytes;
}

/* ------------------------------------------------------------------ 32 columns, as in the file */

static int16_t signed_byte(uint8_t x)
{
    return (int16_t)(x < 128 ? x : x - 256);
}

/* Nibbles of 32 columns in 16 bytes: column j low in byte j, column 16 + j high in it. */
static void nibbles(const uint8_t *qs, uint8_t *code)
{
    for (unsigned j = 0; j < 16; j++) {
        code[j] = qs[j] & 15;
        code[16 + j] = qs[j] >> 4;
    }
}

/* Bits [shift, shift + bits) of 32 bytes, above what is there. */
static void add_bits(const uint8_t *from, unsigned shift, unsigned bits, unsigned at, uint8_t *code)
{
    for (unsigned j = 0; j < WK_BLOCK; j++)
        code[j] = (uint8_t)(code[j] | (from[j] >> shift & ((1u << bits) - 1)) << at);
}

static void fifth_bits(const uint8_t *qh, uint8_t *code)
{
    uint32_t bits =
        (uint32_t)qh[0] | (uint32_t)qh[1] << 8 | (uint32_t)qh[2] << 16 | (uint32_t)qh[3] << 24;
    for (unsigned j = 0; j < WK_BLOCK; j++)
        code[j] = (uint8_t)(code[j] | (bits >> j & 1) << 4);
}

/* Q4_K and Q5_K: eight pairs (scale, min) of 6 bits in 12 bytes. */
static void scale_and_min(const uint8_t *q, unsigned s, struct wk_sub *ret)
{
    if (s < 4) {
        ret->sc[0] = q[s] & 63;
        ret->mn[0] = q[s + 4] & 63;
    } else {
        ret->sc[0] = (int16_t)((q[s + 4] & 15) | q[s - 4] >> 6 << 4);
        ret->mn[0] = (int16_t)(q[s + 4] >> 4 | q[s] >> 6 << 4);
    }
}

/* Q3_K: sixteen scales of 6 bits in 12 bytes, 32 too great. */
static int16_t q3_k_scale(const uint8_t *q, unsigned i)
{
    int low = i < 8 ? q[i] & 15 : q[i - 8] >> 4;
    return (int16_t)((low | (q[8 + i % 4] >> (i / 4 * 2) & 3) << 4) - 32);
}

/* TQ1_0: digit n of a byte v of five digits, as a fraction in base 3: v * 3^n mod 256, then
 * its first digit. 160 columns lie in 32 bytes, 80 in 16, 16 in 4. */
static uint8_t tq1_0_code(const uint8_t *qs, unsigned c)
{
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    unsigned n, at;
    if (c < 160) {
        n = c / 32;
        at = c % 32;
    } else if (c < 240) {
        n = (c - 160) / 16;
        at = 32 + (c - 160) % 16;
    } else {
        n = (c - 240) / 4;
        at = 48 + (c - 240) % 4;
    }
    uint8_t q = (uint8_t)(qs[at] * power[n]);
    return (uint8_t)(q * 3u >> 8);
}

void wk_sub_of_row(enum wk_type type, const uint8_t *row, uint32_t c, struct wk_sub *ret)
{
    const struct wk_format *f = &wk_formats[type];
    const uint8_t *b = row + (size_t)(c / f->cols) * f->bytes;
    const unsigned s = c % f->cols / WK_BLOCK; /* of the block's runs */
    const unsigned part = s / 4, quarter = s % 4;
    *ret = (struct wk_sub){.sc = {1, 1}};
    switch (type) {
    case WK_Q8_0:
        ret->d = wk_load_u16(b);
        memcpy(ret->code, b + 2, WK_BLOCK);
        break;
    case WK_Q4_0:
    case WK_IQ4_NL:
        ret->d = wk_load_u16(b);
        nibbles(b + 2, ret->code);
        break;
    case WK_Q4_1:
    case WK_Q5_1:
        ret->d = wk_load_u16(b);
        ret->m = wk_load_u16(b + 2);
        ret->mn[0] = ret->mn[1] = -1;
        nibbles(b + (type == WK_Q4_1 ? 4 : 8), ret->code);
        if (type == WK_Q5_1)
            fifth_bits(b + 4, ret->code);
        break;
    case WK_Q5_0:
        ret->d = wk_load_u16(b);
        nibbles(b + 6, ret->code);
        fifth_bits(b + 2, ret->code);
        break;
    case WK_Q2_K: /* scales [16], qs [64], d, m */
        ret->d = wk_load_u16(b + 80);
        ret->m = wk_load_u16(b + 82);
        for (unsigned h = 0; h < 2; h++) {
            ret->sc[h] = b[2 * s + h] & 15;
            ret->mn[h] = b[2 * s + h] >> 4;
        }
        add_bits(b + 16 + (size_t)part * 32, 2 * quarter, 2, 0, ret->code);
        break;
    case WK_Q3_K: /* hmask [32], qs [64], scales [12], d */
        ret->d = wk_load_u16(b + 108);
        ret->sc[0] = q3_k_scale(b + 96, 2 * s);
        ret->sc[1] = q3_k_scale(b + 96, 2 * s + 1);
        add_bits(b + 32 + (size_t)part * 32, 2 * quarter, 2, 0, ret->code);
        add_bits(b, s, 1, 2, ret->code);
        break;
    case WK_Q4_K: /* d, m, scales [12], qs [128] */
    case WK_Q5_K: /* d, m, scales [12], qh [32], qs [128] */
        ret->d = wk_load_u16(b);
        ret->m = wk_load_u16(b + 2);
        scale_and_min(b + 4, s, ret);
        ret->sc[1] = ret->sc[0];
        ret->mn[1] = ret->mn[0];
        add_bits(b + (type == WK_Q4_K ? 16 : 48) + (size_t)(s / 2) * 32, s % 2 * 4, 4, 0,
                 ret->code);
        if (type == WK_Q5_K)
            add_bits(b + 16, s, 1, 4, ret->code);
        break;
    case WK_Q6_K: /* ql [128], qh [64], scales [16], d */
        ret->d = wk_load_u16(b + 208);
        for (unsigned h = 0; h < 2; h++)
            ret->sc[h] = signed_byte(b[192 + 2 * s + h]);
        add_bits(b + (size_t)part * 64 + (size_t)(quarter % 2) * 32, quarter / 2 * 4, 4, 0,
                 ret->code);
        add_bits(b + 128 + (size_t)part * 32, 2 * quarter, 2, 4, ret->code);
        break;
    case WK_IQ4_XS: /* d, upper bits of scales [2], low nibbles [4], qs [128] */
        ret->d = wk_load_u16(b);
        ret->sc[0] = (int16_t)(((b[4 + s / 2] >> (s % 2 * 4) & 15) |
                                (wk_load_u16(b + 2) >> (2 * s) & 3) << 4) -
                               32);
        ret->sc[1] = ret->sc[0];
        nibbles(b + 8 + (size_t)s * 16, ret->code);
        break;
    case WK_TQ1_0: /* qs [48], qh [4], d */
        ret->d = wk_load_u16(b + 52);
        for (unsigned j = 0; j < WK_BLOCK; j++)
            ret->code[j] = tq1_0_code(b, s * WK_BLOCK + j);
        break;
    case WK_TQ2_0: /* qs [64], d */
        ret->d = wk_load_u16(b + 64);
        add_bits(b + (size_t)part * 32, 2 * quarter, 2, 0, ret->code);
        break;
    case WK_F32:
    case WK_F16:
    case WK_BF16:
    case WK_TYPE_COUNT:
        break;
    }
}

/* ------------------------------------------------------------------ 32 columns, packed */

/* The bytes of a lane in 64-byte vector v. */
static uint8_t *lane_of(uint8_t *run, unsigned v, unsigned lane)
{
    return run + (size_t)v * 64 + (size_t)lane * 4;
}

/* One plane of `bits` bits of the codes, those from bit `at` on; returns where the next begins. */
static uint8_t *put_plane(uint8_t *run, unsigned lane, unsigned bits, unsigned at,
                          const uint8_t *code)
{
    unsigned vectors = bits, each = 8 / bits; /* groups that share a vector */
    for (unsigned v = 0; v < vectors; v++)
        for (unsigned j = 0; j < 4; j++) {
            unsigned byte = 0;
            for (unsigned k = 0; k < each; k++) {
                unsigned group = bits == 4 ? v + 4 * k : v * each + k;
                byte |= (code[group * 4 + j] >> at & ((1u << bits) - 1)) << (k * bits);
            }
            lane_of(run, v, lane)[j] = (uint8_t)byte;
        }
    return run + (size_t)vectors * 64;
}

static const uint8_t *get_plane(const uint8_t *run, unsigned lane, unsigned bits, unsigned at,
                                uint8_t *code)
{
    unsigned vectors = bits, each = 8 / bits;
    for (unsigned v = 0; v < vectors; v++)
        for (unsigned j = 0; j < 4; j++) {
            unsigned byte = run[(size_t)v * 64 + (size_t)lane * 4 + j];
            for (unsigned k = 0; k < each; k++) {
                unsigned group = bits == 4 ? v + 4 * k : v * each + k;
                code[group * 4 + j] = (uint8_t)(code[group * 4 + j] |
                                                (byte >> (k * bits) & ((1u << bits) - 1)) << at);
            }
        }
    return run + (size_t)vectors * 64;
}

/* Widths of a type's planes, lower bits first; 0 ends. */
static void planes(enum wk_type type, unsigned width[3])
{
    unsigned bits = wk_formats[type].bits;
    width[0] = bits >= 8 ? 8 : bits >= 4 ? 4 : 2;
    width[1] = bits - width[0];
    width[2] = 0;
}

static uint8_t *head_of(enum wk_type type, uint8_t *tile, uint32_t cols, uint32_t c)
{
    return tile + wk_head_at(type, c / WK_BLOCK, cols / WK_BLOCK);
}

/* The head's small scales: where the first of them lies for a lane. */
static size_t small_scales(enum wk_type type)
{
    return wk_has_min(type) ? 2 * WK_SCALES : WK_SCALES;
}

/* Two numbers of 6 bits for run s. */
static void put_pair(uint8_t *at, unsigned s, unsigned first, unsigned second)
{
    uint8_t *high = at + (size_t)(8 + s / 2) * WK_TILE;
    unsigned kept = s % 2 == 0 ? 0 : *high & 15u;
    at[(size_t)s * WK_TILE] = (uint8_t)((first & 15) | (second & 15) << 4);
    *high = (uint8_t)(kept | (first >> 4 | second >> 4 << 2) << (s % 2 * 4));
}

static void get_pair(const uint8_t *at, unsigned s, int16_t *first, int16_t *second)
{
    unsigned low = at[(size_t)s * WK_TILE];
    unsigned high = at[(size_t)(8 + s / 2) * WK_TILE] >> (s % 2 * 4);
    *first = (int16_t)((low & 15) | (high & 3) << 4);
    *second = (int16_t)(low >> 4 | (high >> 2 & 3) << 4);
}

static void put_head(enum wk_type type, uint8_t *head, unsigned lane, unsigned s,
                     const struct wk_sub *sub)
{
    uint8_t *small = head + small_scales(type) + lane;
    memcpy(head + (size_t)lane * 2, &sub->d, 2);
    if (wk_has_min(type))
        memcpy(head + WK_SCALES + (size_t)lane * 2, &sub->m, 2);
    if (type == WK_Q6_K || type == WK_Q2_K) {
        for (unsigned h = 0; h < 2; h++)
            small[(size_t)(2 * s + h) * WK_TILE] = (uint8_t)(sub->sc[h] | sub->mn[h] << 4);
    } else if (type == WK_Q3_K) {
        put_pair(small, s, (unsigned)(sub->sc[0] + 32), (unsigned)(sub->sc[1] + 32));
    } else if (type == WK_Q4_K || type == WK_Q5_K) {
        put_pair(small, s, (unsigned)sub->sc[0], (unsigned)sub->mn[0]);
    } else if (type == WK_IQ4_XS) {
        unsigned code = (unsigned)(sub->sc[0] + 32), low = s % 2 * 4, high = s % 4 * 2;
        uint8_t *l = small + (size_t)(s / 2) * WK_TILE, *h = small + (size_t)(4 + s / 4) * WK_TILE;
        *l = (uint8_t)((low == 0 ? 0 : *l & 15) | (code & 15) << low);
        *h = (uint8_t)((*h & ((1u << high) - 1)) | code >> 4 << high);
    }
}

static void get_head(enum wk_type type, const uint8_t *head, unsigned lane, unsigned s,
                     struct wk_sub *ret)
{
    const uint8_t *small = head + small_scales(type) + lane;
    *ret = (struct wk_sub){.d = wk_load_u16(head + (size_t)lane * 2), .sc = {1, 1}};
    if (wk_has_min(type))
        ret->m = wk_load_u16(head + WK_SCALES + (size_t)lane * 2);
    if (type == WK_Q4_1 || type == WK_Q5_1)
        ret->mn[0] = ret->mn[1] = -1;
    if (type == WK_Q6_K || type == WK_Q2_K) {
        for (unsigned h = 0; h < 2; h++) {
            uint8_t v = small[(size_t)(2 * s + h) * WK_TILE];
            ret->sc[h] = type == WK_Q6_K ? signed_byte(v) : v & 15;
            ret->mn[h] = type == WK_Q6_K ? 0 : v >> 4;
        }
    } else if (type == WK_Q3_K) {
        get_pair(small, s, &ret->sc[0], &ret->sc[1]);
        ret->sc[0] = (int16_t)(ret->sc[0] - 32);
        ret->sc[1] = (int16_t)(ret->sc[1] - 32);
    } else if (type == WK_Q4_K || type == WK_Q5_K) {
        get_pair(small, s, &ret->sc[0], &ret->mn[0]);
        ret->sc[1] = ret->sc[0];
        ret->mn[1] = ret->mn[0];
    } else if (type == WK_IQ4_XS) {
        unsigned low = small[(size_t)(s / 2) * WK_TILE] >> (s % 2 * 4) & 15u;
        unsigned high = small[(size_t)(4 + s / 4) * WK_TILE] >> (s % 4 * 2) & 3u;
        ret->sc[0] = ret->sc[1] = (int16_t)((int)(low | high << 4) - 32);
    }
}

void wk_sub_of_tile(enum wk_type type, const uint8_t *tile, uint32_t cols, unsigned lane,
                    uint32_t c, struct wk_sub *ret)
{
    unsigned width[3], at = 0;
    const uint8_t *run = tile + wk_run_at(type, c / WK_BLOCK);
    get_head(type, head_of(type, (uint8_t *)(uintptr_t)tile, cols, c), lane,
             c % wk_formats[type].cols / WK_BLOCK, ret);
    planes(type, width);
    for (unsigned i = 0; width[i] != 0; at += width[i++])
        run = get_plane(run, lane, width[i], at, ret->code);
}

/* ------------------------------------------------------------------ rows into tiles */

static void pack_float(uint8_t *tile, unsigned lane, const uint8_t *row, uint32_t cols, size_t size)
{
    for (uint32_t c = 0; c < cols; c++)
        memcpy(tile + ((size_t)c * WK_TILE + lane) * size, row + (size_t)c * size, size);
}

/* Codes in the file that already lie as a plane wants them, 4 by 4: bytes, or nibbles as in Q4_0.
 */
static bool packed_in_file(enum wk_type type)
{
    return type == WK_Q8_0 || type == WK_Q4_0 || type == WK_IQ4_NL;
}

static void pack_row(enum wk_type type, uint8_t *tile, unsigned lane, const uint8_t *row,
                     uint32_t cols)
{
    const struct wk_format *f = &wk_formats[type];
    unsigned width[3];
    planes(type, width);
    for (uint32_t c = 0; c < cols; c += WK_BLOCK) {
        uint8_t *run = tile + wk_run_at(type, c / WK_BLOCK);
        struct wk_sub sub;
        if (packed_in_file(type)) {
            const uint8_t *b = row + (size_t)(c / WK_BLOCK) * f->bytes;
            memcpy(head_of(type, tile, cols, c) + (size_t)lane * 2, b, 2);
            for (unsigned j = 0; j < f->bytes - 2u; j += 4)
                memcpy(lane_of(run, j / 4, lane), b + 2 + j, 4);
            continue;
        }
        wk_sub_of_row(type, row, c, &sub);
        put_head(type, head_of(type, tile, cols, c), lane, c % f->cols / WK_BLOCK, &sub);
        for (unsigned i = 0, at = 0; width[i] != 0; at += width[i++])
            run = put_plane(run, lane, width[i], at, sub.code);
    }
}

void wk_matrix_pack(struct wk_matrix *m, uint32_t row, uint32_t n, const void *src)
{
    assert(row % WK_TILE == 0 && n <= m->rows - row && (n % WK_TILE == 0 || row + n == m->rows));
    size_t tile_bytes = wk_tile_bytes(m->type, m->cols), bytes = row_bytes(m->type, m->cols);
    const uint8_t *from = src;
    for (uint32_t i = 0; i < n; i++, from += bytes) {
        uint8_t *tile = (uint8_t *)m->data + (size_t)((row + i) / WK_TILE) * tile_bytes;
        unsigned lane = i % WK_TILE;
        if (lane == 0 && n - i < WK_TILE)
            memset(tile, 0, tile_bytes);
        if (wk_quantised(m->type))
            pack_row(m->type, tile, lane, from, m->cols);
        else
            pack_float(tile, lane, from, m->cols, wk_formats[m->type].bytes);
    }
}

/* ------------------------------------------------------------------ back to f32 */

/* d * sc is exact (11 and 8 bits), and so is m * mn: only the product with the code and the
 * difference round, as in the public description. */
static void dequantise_sub(enum wk_type type, const struct wk_sub *s, float *out)
{
    for (unsigned j = 0; j < WK_BLOCK; j++) {
        const unsigned half = j / 16;
        float scale = wk_f16_to_f32(s->d) * (float)s->sc[half];
        out[j] = scale * (float)wk_code_value(type, s->code[j]);
        if (wk_has_min(type))
            out[j] -= wk_f16_to_f32(s->m) * (float)s->mn[half];
    }
}

static float float_value(enum wk_type type, const uint8_t *p)
{
    float x;
    if (type == WK_F16)
        return wk_f16_to_f32(wk_load_u16(p));
    if (type == WK_BF16)
        return wk_from_bits((uint32_t)wk_load_u16(p) << 16);
    memcpy(&x, p, sizeof x);
    return x;
}

void wk_dequantise(enum wk_type type, const void *src, uint32_t cols, float *out)
{
    struct wk_sub sub;
    if (!wk_quantised(type)) {
        for (uint32_t c = 0; c < cols; c++)
            out[c] = float_value(type, (const uint8_t *)src + (size_t)c * wk_formats[type].bytes);
        return;
    }
    for (uint32_t c = 0; c < cols; c += WK_BLOCK) {
        wk_sub_of_row(type, src, c, &sub);
        dequantise_sub(type, &sub, out + c);
    }
}

void wk_matrix_row(const struct wk_matrix *m, uint32_t row, float *out)
{
    assert(row < m->rows);
    const size_t size = wk_formats[m->type].bytes;
    const unsigned lane = row % WK_TILE;
    const uint8_t *tile =
        (const uint8_t *)m->data + (size_t)(row / WK_TILE) * wk_tile_bytes(m->type, m->cols);
    struct wk_sub sub;
    if (!wk_quantised(m->type)) {
        for (uint32_t c = 0; c < m->cols; c++)
            out[c] = float_value(m->type, tile + ((size_t)c * WK_TILE + lane) * size);
        return;
    }
    for (uint32_t c = 0; c < m->cols; c += WK_BLOCK) {
        wk_sub_of_tile(m->type, tile, m->cols, lane, c, &sub);
        dequantise_sub(m->type, &sub, out + c);
    }
}
