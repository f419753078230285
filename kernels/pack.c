/*
 * Packing: rows of GGUF tensors into tiles of 16 rows (table.h has the layouts) and back to f32.
 * The bytes are rearranged, never changed: a packed row gives exactly the values of the file. Any
 * thread; different row ranges of one matrix may be packed at once.
 */
#include "kernels/f16.h"
#include "kernels/table.h"

#include <assert.h>
#include <string.h>

/* The types we compute with, as GGUF stores a row: `bytes` hold `cols` columns. A packed tile takes
 * WK_TILE times the bytes of a row. */
static const struct {
    uint16_t bytes, cols;
    bool quantised;
} types[WK_TYPE_COUNT] = {
    [WK_F32] = {4, 1, false},
    [WK_F16] = {2, 1, false},
    [WK_Q4_0] = {18, 32, true},
    [WK_Q8_0] = {34, 32, true},
    [WK_Q6_K] = {210, WK_Q6_K_COLS, true},
};

bool wk_type_supported(uint32_t type)
{
    return type < WK_TYPE_COUNT && types[type].bytes != 0;
}

bool wk_type_quantised(enum wk_type type)
{
    return types[type].quantised;
}

static size_t row_bytes(enum wk_type type, uint32_t cols)
{
    return (size_t)(cols / types[type].cols) * types[type].bytes;
}

size_t wk_tile_bytes(enum wk_type type, uint32_t cols)
{
    return row_bytes(type, cols) * WK_TILE;
}

size_t wk_matrix_bytes(enum wk_type type, uint32_t rows, uint32_t cols)
{
    size_t bytes;
    if (!wk_type_supported(type) || cols % types[type].cols != 0)
        return 0;
    size_t tiles = ((size_t)rows + WK_TILE - 1) / WK_TILE;
    return __builtin_mul_overflow(tiles, wk_tile_bytes(type, cols), &bytes) ? 0 : bytes;
}

/* ------------------------------------------------------------------ Q6_K, as in the file */

enum { Q6_K_QH = 128, Q6_K_SCALES = 192, Q6_K_D = 208 };

/* Where the bits of column c of a superblock lie: 128 columns share 64 bytes of nibbles and 32
 * bytes of upper bits. */
static unsigned q6_k_get(const uint8_t *block, unsigned c)
{
    unsigned half = c / 128, quarter = c % 128 / 32, l = c % 32;
    unsigned low = block[half * 64 + quarter % 2 * 32 + l] >> (quarter / 2 * 4) & 15u;
    unsigned high = block[Q6_K_QH + half * 32 + l] >> (quarter * 2) & 3u;
    return low | high << 4;
}

/* ------------------------------------------------------------------ one row into a tile */

static void pack_plain(uint8_t *tile, unsigned lane, const uint8_t *row, uint32_t cols, size_t size)
{
    for (uint32_t c = 0; c < cols; c++)
        memcpy(tile + ((size_t)c * WK_TILE + lane) * size, row + (size_t)c * size, size);
}

/* Q8_0 and Q4_0: a scale and `bytes` of quants that keep their order, 4 by 4. */
static void pack_simple(uint8_t *tile, unsigned lane, const uint8_t *row, uint32_t blocks,
                        unsigned bytes)
{
    for (uint32_t b = 0; b < blocks; b++, row += 2 + bytes, tile += WK_SCALES + bytes * WK_TILE) {
        memcpy(tile + (size_t)lane * 2, row, 2);
        for (unsigned j = 0; j < bytes; j += 4)
            memcpy(tile + WK_SCALES + (size_t)j * WK_TILE + (size_t)lane * 4, row + 2 + j, 4);
    }
}

static void pack_q6_k(uint8_t *tile, unsigned lane, const uint8_t *row, uint32_t blocks)
{
    for (uint32_t b = 0; b < blocks; b++, row += types[WK_Q6_K].bytes, tile += WK_Q6_K_BYTES) {
        memcpy(tile + (size_t)lane * 2, row + Q6_K_D, 2);
        for (unsigned s = 0; s < 16; s++)
            tile[WK_SCALES + s * WK_TILE + lane] = row[Q6_K_SCALES + s];
        for (unsigned c = 0; c < WK_Q6_K_COLS; c += 32) {
            uint8_t *sub =
                tile + WK_Q6_K_QUANTS + (size_t)(c / 32) * WK_Q6_K_SUB + (size_t)lane * 4;
            for (unsigned j = 0; j < 16; j++) {
                unsigned first = q6_k_get(row, c + j), second = q6_k_get(row, c + 16 + j);
                unsigned group = j / 4, shift = group % 2 * 4;
                uint8_t *high = &sub[256 + group / 2 * 64 + j % 4];
                unsigned kept = shift == 0 ? 0 : *high; /* group 0 or 2 writes the byte first */
                sub[group * 64 + j % 4] = (uint8_t)((first & 15) | (second & 15) << 4);
                *high = (uint8_t)(kept | (first >> 4) << shift | (second >> 4) << (shift + 2));
            }
        }
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
        switch (m->type) {
        case WK_F32:
        case WK_F16:
            pack_plain(tile, lane, from, m->cols, types[m->type].bytes);
            break;
        case WK_Q4_0:
        case WK_Q8_0:
            pack_simple(tile, lane, from, m->cols / 32, types[m->type].bytes - 2u);
            break;
        case WK_Q6_K:
            pack_q6_k(tile, lane, from, m->cols / WK_Q6_K_COLS);
            break;
        case WK_TYPE_COUNT:
            break;
        }
    }
}

/* ------------------------------------------------------------------ back to f32 */

/* Row `lane` of a tile in GGUF layout, superblock or block b: the inverse of packing. */
static void unpack_block(enum wk_type type, const uint8_t *tile, unsigned lane, uint32_t b,
                         uint8_t *block)
{
    unsigned bytes = types[type].bytes;
    tile += (size_t)b * bytes * WK_TILE;
    if (type == WK_F32 || type == WK_F16) {
        memcpy(block, tile + (size_t)lane * bytes, bytes);
    } else if (type == WK_Q4_0 || type == WK_Q8_0) {
        memcpy(block, tile + (size_t)lane * 2, 2);
        for (unsigned j = 0; j < bytes - 2; j += 4)
            memcpy(block + 2 + j, tile + WK_SCALES + (size_t)j * WK_TILE + (size_t)lane * 4, 4);
    } else {
        memset(block, 0, bytes);
        memcpy(block + Q6_K_D, tile + (size_t)lane * 2, 2);
        for (unsigned s = 0; s < 16; s++)
            block[Q6_K_SCALES + s] = tile[WK_SCALES + s * WK_TILE + lane];
        for (unsigned c = 0; c < WK_Q6_K_COLS; c++) {
            const uint8_t *sub = tile + WK_Q6_K_QUANTS + (size_t)(c / 32) * WK_Q6_K_SUB;
            unsigned group = c % 16 / 4, half = c / 16 % 2, at = lane * 4 + c % 4;
            unsigned low = sub[group * 64 + at] >> (4 * half) & 15u;
            unsigned high = sub[256 + group / 2 * 64 + at] >> (group % 2 * 4 + half * 2) & 3u;
            unsigned h = c / 128, quarter = c % 128 / 32, l = c % 32;
            block[h * 64 + quarter % 2 * 32 + l] |= (uint8_t)(low << (quarter / 2 * 4));
            block[Q6_K_QH + h * 32 + l] |= (uint8_t)(high << (quarter * 2));
        }
    }
}

/* The values of one block (one column of a float type). */
static void dequantise_block(enum wk_type type, const uint8_t *block, float *out)
{
    float d = wk_f16_to_f32(wk_load_u16(type == WK_Q6_K ? block + Q6_K_D : block));
    switch (type) {
    case WK_F32:
        memcpy(out, block, sizeof *out);
        break;
    case WK_F16:
        out[0] = d;
        break;
    case WK_Q4_0: /* low nibbles: columns 0 to 15 */
        for (unsigned c = 0; c < 32; c++)
            out[c] = d * (float)((block[2 + c % 16] >> (c / 16 * 4) & 15) - 8);
        break;
    case WK_Q8_0:
        for (unsigned c = 0; c < 32; c++)
            out[c] = d * (float)(int8_t)block[2 + c];
        break;
    case WK_Q6_K:
        for (unsigned c = 0; c < WK_Q6_K_COLS; c++) {
            float ds = d * (float)(int8_t)block[Q6_K_SCALES + c / 16];
            out[c] = ds * (float)((int)q6_k_get(block, c) - 32);
        }
        break;
    case WK_TYPE_COUNT:
        break;
    }
}

void wk_dequantise(enum wk_type type, const void *src, uint32_t cols, float *out)
{
    const uint8_t *block = src;
    for (uint32_t c = 0; c < cols; c += types[type].cols, block += types[type].bytes)
        dequantise_block(type, block, out + c);
}

void wk_matrix_row(const struct wk_matrix *m, uint32_t row, float *out)
{
    uint8_t block[256]; /* the longest is 210 */
    const uint8_t *tile =
        (const uint8_t *)m->data + (size_t)(row / WK_TILE) * wk_tile_bytes(m->type, m->cols);
    assert(row < m->rows);
    for (uint32_t b = 0; b < m->cols / types[m->type].cols; b++) {
        unpack_block(m->type, tile, row % WK_TILE, b, block);
        dequantise_block(m->type, block, out + (size_t)b * types[m->type].cols);
    }
}
