/*
 * The products of all quantised types, written once over bytes and integers in registers. Included
 * by the file of an instruction set after it has defined, for Q_ROWS of a tile's 16 rows at a time,
 *
 *   qb qi qf                         Q_ROWS x 4 bytes, Q_ROWS int32, Q_ROWS floats
 *   q_load(p) q_byte(x)              bytes; p has what q_load asks of alignment: none
 *   q_and(a, b) q_or_and(a, b, c)    a & b, a | (b & c)
 *   q_shl(v, n) q_shr(v, n)          shifts of bytes, n a constant; bits may come in from
 *                                    neighbours: callers mask
 *   q_iq4(v)                         the values of codes 0 to 15 of IQ4
 *   q_small(p) q_small_signed(p)     Q_ROWS bytes to integers
 *   q_iand(v, x) q_ior(a, b) q_ishl(v, n) q_ishr(v, n) q_iadd(v, x) q_ineg(v)    integers, x one
 * number q_float(qi) q_zero() q_mul(a, b) q_fma(a, b, c) q_mul1(a, x) q_fma1(a, x, c)   x one float
 *   q_scales(p) q_store(p, v)        Q_ROWS halves to floats; floats to memory
 *   q_add_units(sum, v)              as v_add_units of lanes.h
 *   q_none() q_top(top, v) q_greatest(v)    zeros; the greater of top and the bits of v without
 *                                    sign; the greatest lane
 *   q_dots(type, group, x, ldx, rows, idot)
 *   q_half_dots(type, group, first, second, x, ldx, rows, idot)
 *       exact integer dots of 8 groups of code values (codes, not yet less their offset, for the
 *       small types; signed bytes for the wide ones) with rows x[j * ldx]: the first plainly, the
 *       second the sum of first * (dot of groups 0-3) + second * (dot of groups 4-7)
 *   q_pair_sums(first, second, sum)  first * sum[0] + second * sum[1]
 *   Q_MOST_ROWS                      rows of activations that share an unpacked block: 4 or 8
 *
 * `type` and `rows` are constants everywhere, so that each instance is straight code. The order of
 * floating-point operations is that of add_block in ref.c.
 */
#ifndef WEFT_KERNELS_QUANTS_H
#define WEFT_KERNELS_QUANTS_H

#include "kernels/formats.h"
#include "kernels/inline.h"
#include "kernels/table.h"

enum { Q_PARTS = WK_TILE / Q_ROWS };

WK_INLINE void q_unpack_nibbles(const uint8_t *run, qb *group)
{
    WK_UNROLL
    for (unsigned v = 0; v < 4; v++) {
        qb w = q_load(run + (size_t)v * 64);
        group[v] = q_and(w, q_byte(15));
        group[v + 4] = q_and(q_shr(w, 4), q_byte(15));
    }
}

WK_INLINE void q_unpack_pairs(const uint8_t *run, qb *group)
{
    WK_UNROLL
    for (unsigned v = 0; v < 2; v++) {
        qb w = q_load(run + (size_t)v * 64);
        group[4 * v] = q_and(w, q_byte(3));
        group[4 * v + 1] = q_and(q_shr(w, 2), q_byte(3));
        group[4 * v + 2] = q_and(q_shr(w, 4), q_byte(3));
        group[4 * v + 3] = q_and(q_shr(w, 6), q_byte(3));
    }
}

/* A plane of single bits becomes bit 2 or 4 (`to`, a constant) of the codes. */
WK_INLINE void q_add_bits(const uint8_t *plane, unsigned to, qb *group)
{
    qb w = q_load(plane), mask = q_byte((uint8_t)(1u << to));
    if (to == 2) {
        group[0] = q_or_and(group[0], q_shl(w, 2), mask);
        group[1] = q_or_and(group[1], q_shl(w, 1), mask);
        group[2] = q_or_and(group[2], w, mask);
        group[3] = q_or_and(group[3], q_shr(w, 1), mask);
        group[4] = q_or_and(group[4], q_shr(w, 2), mask);
        group[5] = q_or_and(group[5], q_shr(w, 3), mask);
        group[6] = q_or_and(group[6], q_shr(w, 4), mask);
        group[7] = q_or_and(group[7], q_shr(w, 5), mask);
    } else {
        group[0] = q_or_and(group[0], q_shl(w, 4), mask);
        group[1] = q_or_and(group[1], q_shl(w, 3), mask);
        group[2] = q_or_and(group[2], q_shl(w, 2), mask);
        group[3] = q_or_and(group[3], q_shl(w, 1), mask);
        group[4] = q_or_and(group[4], w, mask);
        group[5] = q_or_and(group[5], q_shr(w, 1), mask);
        group[6] = q_or_and(group[6], q_shr(w, 2), mask);
        group[7] = q_or_and(group[7], q_shr(w, 3), mask);
    }
}

/* A plane of pairs of bits becomes bits 4 and 5 of the codes. */
WK_INLINE void q_add_pairs(const uint8_t *plane, qb *group)
{
    const qb mask = q_byte(0x30);
    WK_UNROLL
    for (unsigned v = 0; v < 2; v++) {
        qb w = q_load(plane + (size_t)v * 64);
        group[4 * v] = q_or_and(group[4 * v], q_shl(w, 4), mask);
        group[4 * v + 1] = q_or_and(group[4 * v + 1], q_shl(w, 2), mask);
        group[4 * v + 2] = q_or_and(group[4 * v + 2], w, mask);
        group[4 * v + 3] = q_or_and(group[4 * v + 3], q_shr(w, 2), mask);
    }
}

/* Codes of a run (values of the wide types) in 8 groups; `run` at the part's bytes. */
WK_INLINE void q_unpack(enum wk_type type, const uint8_t *run, qb *group)
{
    switch (wk_formats[type].bits) {
    case 8:
        WK_UNROLL
        for (unsigned g = 0; g < 8; g++)
            group[g] = q_load(run + (size_t)g * 64);
        break;
    case 6:
        q_unpack_nibbles(run, group);
        q_add_pairs(run + 256, group);
        break;
    case 5:
        q_unpack_nibbles(run, group);
        q_add_bits(run + 256, 4, group);
        break;
    case 4:
        q_unpack_nibbles(run, group);
        break;
    case 3:
        q_unpack_pairs(run, group);
        q_add_bits(run + 128, 2, group);
        break;
    default:
        q_unpack_pairs(run, group);
        break;
    }
    if (type == WK_IQ4_NL || type == WK_IQ4_XS)
        WK_UNROLL
    for (unsigned g = 0; g < 8; g++)
        group[g] = q_iq4(group[g]);
}

/* ------------------------------------------------------------------ scales */

/* What a block's head says of 32 columns: their scale; their minimum (to be multiplied by the
 * scaled sum, for Q2_K by the pair of sums); scales and minima of 16 columns as integers. */
struct q_head {
    qf d, m;
    qi sc[2], mn[2];
};

/* Pair s of numbers of 6 bits. */
WK_INLINE void q_pair(const uint8_t *small, unsigned s, qi *first, qi *second)
{
    qi low = q_small(small + (size_t)s * WK_TILE);
    qi high = q_small(small + (size_t)(8 + s / 2) * WK_TILE);
    if (s % 2 == 1)
        high = q_ishr(high, 4);
    *first = q_ior(q_iand(low, 15), q_ishl(q_iand(high, 3), 4));
    *second = q_ior(q_ishr(low, 4), q_ishl(q_iand(q_ishr(high, 2), 3), 4));
}

WK_INLINE struct q_head q_read_head(enum wk_type type, const uint8_t *head, unsigned s,
                                    unsigned part)
{
    struct q_head h = {.d = q_scales(head + (size_t)part * Q_ROWS * 2)};
    const uint8_t *small = head + (wk_has_min(type) ? 2 * WK_SCALES : WK_SCALES) + part * Q_ROWS;
    if (wk_has_min(type))
        h.m = q_scales(head + WK_SCALES + (size_t)part * Q_ROWS * 2);
    if (type == WK_Q6_K) {
        h.sc[0] = q_small_signed(small + (size_t)2 * s * WK_TILE);
        h.sc[1] = q_small_signed(small + (size_t)(2 * s + 1) * WK_TILE);
    } else if (type == WK_Q2_K) {
        qi first = q_small(small + (size_t)2 * s * WK_TILE);
        qi second = q_small(small + (size_t)(2 * s + 1) * WK_TILE);
        h.sc[0] = q_iand(first, 15);
        h.sc[1] = q_iand(second, 15);
        h.mn[0] = q_ishr(first, 4);
        h.mn[1] = q_ishr(second, 4);
    } else if (type == WK_Q3_K) {
        q_pair(small, s, &h.sc[0], &h.sc[1]);
        h.sc[0] = q_iadd(h.sc[0], -32);
        h.sc[1] = q_iadd(h.sc[1], -32);
    } else if (type == WK_Q4_K || type == WK_Q5_K) {
        q_pair(small, s, &h.sc[0], &h.mn[0]);
        h.d = q_mul(h.d, q_float(h.sc[0]));
        h.m = q_mul(h.m, q_float(q_ineg(h.mn[0])));
    } else if (type == WK_IQ4_XS) {
        qi low = q_small(small + (size_t)(s / 2) * WK_TILE);
        qi high = q_small(small + (size_t)(4 + s / 4) * WK_TILE);
        low = s % 2 == 0 ? q_iand(low, 15) : q_ishr(low, 4);
        high = q_ishl(q_iand(q_ishr(high, s % 4 * 2), 3), 4);
        h.d = q_mul(h.d, q_float(q_iadd(q_ior(low, high), -32)));
    }
    return h;
}

/* ------------------------------------------------------------------ products */

/* What some rows of activations have summed of some parts of a tile. */
struct q_sums {
    qf acc[Q_PARTS][Q_MOST_ROWS];
    qi top; /* greatest magnitude of a piece, as bits */
};

WK_INLINE void q_begin(unsigned parts, unsigned rows, struct q_sums *sums)
{
    WK_UNROLL
    for (unsigned p = 0; p < parts; p++)
        WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        sums->acc[p][j] = q_zero();
}

/* A piece is done: its rows, times weight [rows] unless that is NULL, go to sum [rows, WK_TILE],
 * which begins at the first part. */
WK_INLINE void q_end_piece(unsigned parts, unsigned rows, struct q_sums *sums, const float *weight,
                           int64_t *sum)
{
    if (weight != NULL)
        WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        WK_UNROLL
    for (unsigned p = 0; p < parts; p++)
        sums->acc[p][j] = q_mul1(sums->acc[p][j], weight[j]);
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        WK_UNROLL
    for (unsigned p = 0; p < parts; p++) {
        sums->top = q_top(sums->top, sums->acc[p][j]);
        q_add_units(sum + (size_t)j * WK_TILE + (size_t)p * Q_ROWS, sums->acc[p][j]);
    }
}

/* Adds a run, number s of its block, to `parts` parts from `part` on. */
WK_INLINE void q_add_run(enum wk_type type, const uint8_t *run, const uint8_t *head, unsigned s,
                         unsigned part, unsigned parts, const struct wk_q8 *x, size_t ldx,
                         unsigned rows, struct q_sums *sums)
{
    WK_UNROLL
    for (unsigned p = 0; p < parts; p++) {
        struct q_head h = q_read_head(type, head, s, part + p);
        qf *acc = sums->acc[p];
        qb group[8];
        qi idot[Q_MOST_ROWS];
        q_unpack(type, run + (size_t)(part + p) * Q_ROWS * 4, group);
        if (wk_half_scales(type))
            q_half_dots(type, group, h.sc[0], h.sc[1], x, ldx, rows, idot);
        else
            q_dots(type, group, x, ldx, rows, idot);
        WK_UNROLL
        for (unsigned j = 0; j < rows; j++) {
            const struct wk_q8 *xj = x + j * ldx;
            acc[j] = q_fma(q_float(idot[j]), q_mul1(h.d, xj->scale), acc[j]);
            if (type == WK_Q2_K)
                acc[j] = q_fma(q_float(q_pair_sums(h.mn[0], h.mn[1], xj->sum)),
                               q_mul1(h.m, -xj->scale), acc[j]);
            else if (wk_has_min(type))
                acc[j] = q_fma1(h.m, xj->scaled_sum, acc[j]);
        }
    }
}

/* `rows` rows of activations from i on with `parts` parts of tile t, stretch by stretch; false when
 * a piece is out of range. */
WK_INLINE bool q_parts(enum wk_type type, const struct wk_dot *d, uint32_t t, uint32_t i,
                       unsigned part, unsigned parts, unsigned rows, float *out)
{
    const size_t run_bytes = wk_formats[type].run, head_bytes = wk_formats[type].head;
    const uint32_t block = wk_block_runs(type), n = wk_tile_runs(type, d->tile_bytes);
    const uint8_t *tile = d->w + t * d->tile_bytes;
    const struct wk_q8 *x = d->q8 + i * d->ldx;
    const size_t at = ((size_t)t * d->n + i) * WK_TILE + (size_t)part * Q_ROWS;
    const uint32_t end = (d->col + d->cols) / WK_BLOCK;
    const float *weight = d->weight != NULL ? d->weight + i : NULL;
    const uint32_t piece = d->sum != NULL ? d->piece / WK_BLOCK : UINT32_MAX;
    uint32_t b = d->col / WK_BLOCK, left = piece;
    const bool cold = rows == 1 || (d->cold && i == 0 && part == 0);
    /* of this run and its part of the heads; so far asked for, and to be */
    const size_t share = (block * run_bytes + head_bytes) / block;
    uintptr_t asked = (uintptr_t)tile + wk_run_at(type, b), due = asked;
    struct q_sums sums = {.top = q_none()};
    if (d->sum != NULL) { /* every piece adds the bits of WK_UNIT64 */
        const uint32_t pieces = (end - b + piece - 1) / piece;
        for (unsigned j = 0; j < rows; j++)
            for (unsigned k = 0; k < parts * Q_ROWS; k++)
                d->sum[at + j * WK_TILE + k] = (int64_t)(0 - pieces * wk_bits64(WK_UNIT64));
    }
    q_begin(parts, rows, &sums);
    while (b < end) {
        const uint32_t stretch = (b / WK_STRETCH + 1) * WK_STRETCH;
        const uint32_t last = stretch < end ? stretch : end;
        const uint8_t *run = tile + wk_run_at(type, b), *head = tile + wk_head_at(type, b, n);
        for (; b < last; b++, run += run_bytes) {
            if (cold)
                for (due += share; asked < due; asked += 64)
                    __builtin_prefetch((const void *)(asked + PREFETCH));
            q_add_run(type, run, head, b % block, part, parts, x + b, d->ldx, rows, &sums);
            if (block == 1)
                head += head_bytes;
            if (--left == 0) {
                q_end_piece(parts, rows, &sums, weight, d->sum + at);
                q_begin(parts, rows, &sums);
                left = piece;
            }
        }
    }
    if (d->sum == NULL) {
        WK_UNROLL
        for (unsigned j = 0; j < rows; j++)
            WK_UNROLL
        for (unsigned p = 0; p < parts; p++)
            q_store(out + at + (size_t)j * WK_TILE + (size_t)p * Q_ROWS, sums.acc[p][j]);
    } else if (left != piece) {
        q_end_piece(parts, rows, &sums, weight, d->sum + at); /* the last one is shorter */
    }
    return q_greatest(sums.top) < wk_bits(0x1p21f);
}

/* Few rows read a tile once, all of its parts; more rows part by part, so that what is unpacked and
 * what is summed stays in registers. */
WK_INLINE bool q_rows(enum wk_type type, const struct wk_dot *d, uint32_t t, uint32_t i,
                      unsigned rows, float *out)
{
    bool ok = true;
    if (rows < 4)
        return q_parts(type, d, t, i, 0, Q_PARTS, rows, out);
    for (unsigned part = 0; part < Q_PARTS; part++)
        ok = q_parts(type, d, t, i, part, 1, rows, out) && ok;
    return ok;
}

WK_INLINE bool q_tiles(enum wk_type type, const struct wk_dot *d, float *out)
{
    bool ok = true;
    for (uint32_t t = 0; t < d->tiles; t++) {
        uint32_t i = 0;
        if (Q_MOST_ROWS >= 8)
            for (; d->n - i >= 8; i += 8)
                ok = q_rows(type, d, t, i, 8, out) && ok;
        for (; d->n - i >= 4; i += 4)
            ok = q_rows(type, d, t, i, 4, out) && ok;
        for (; d->n - i >= 2; i += 2)
            ok = q_rows(type, d, t, i, 2, out) && ok;
        for (; i < d->n; i++)
            ok = q_rows(type, d, t, i, 1, out) && ok;
    }
    return ok;
}

#define Q_DOT(name, type, kind)                          \
    static bool name(const struct wk_dot *d, float *out) \
    {                                                    \
        return q_tiles(type, d, out);                    \
    }
WK_QUANTISED_TYPES(Q_DOT)
#undef Q_DOT

/* The slots this file fills. */
static void fill_quants(struct wk_table *table)
{
#define SLOT(name, type, kind) table->dot[type] = name;
    WK_QUANTISED_TYPES(SLOT)
#undef SLOT
}

#endif
