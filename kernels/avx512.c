/*
 * AVX-512 with VNNI: a tile's 16 rows are the lanes of one register. Weights become unsigned bytes
 * for vpdpbusd; what the offset adds is taken off through the sums of the activation block, in
 * integers.
 */
#include "kernels/table.h"

#include <immintrin.h>

typedef __m512 v16;
enum { V_ACCUMULATORS = 16 }; /* of 32 registers */

static inline v16 v_set(float x)
{
    return _mm512_set1_ps(x);
}

static inline v16 v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void v_store(float *p, v16 v)
{
    _mm512_storeu_ps(p, v);
}

static inline v16 v_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}

static inline void v_store_f16(uint16_t *p, v16 v)
{
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

static inline v16 v_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

static inline v16 v_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

static inline v16 v_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

static inline v16 v_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline v16 v_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}

static inline v16 v_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

static inline v16 v_where_less(v16 a, v16 b, v16 x, v16 y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}

static inline __m512i power_of_two(__m512i n)
{
    return _mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23);
}

static inline v16 v_scale_exp(v16 p, v16 t)
{
    __m512i n =
        _mm512_sub_epi32(_mm512_castps_si512(t), _mm512_set1_epi32(0x4b400000)); /* 1.5 * 2^23 */
    __m512i half = _mm512_srai_epi32(n, 1);
    p = _mm512_mul_ps(p, _mm512_castsi512_ps(power_of_two(half)));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(power_of_two(_mm512_sub_epi32(n, half))));
}

#include "kernels/lanes.h"

/* ------------------------------------------------------------------ activations and exact sums */

static void quantise(const float *x, size_t n_blocks, struct wk_q8 *out)
{
    const __m512i abs_mask = _mm512_set1_epi32(0x7fffffff);
    for (size_t b = 0; b < n_blocks; b++, x += WK_BLOCK, out++) {
        __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
        uint32_t top = (uint32_t)_mm512_reduce_max_epi32(
            _mm512_max_epi32(_mm512_and_epi32(_mm512_castps_si512(x0), abs_mask),
                             _mm512_and_epi32(_mm512_castps_si512(x1), abs_mask)));
        float amax = wk_from_bits(top);
        if (top >= 0x7f800000u || amax < 0x1p-100f) {
            *out = (struct wk_q8){.scale = top >= 0x7f800000u ? NAN : 0};
            continue;
        }
        __m512 inverse = _mm512_set1_ps(127.0f / amax);
        __m512i q0 = _mm512_cvtps_epi32(_mm512_mul_ps(x0, inverse));
        __m512i q1 = _mm512_cvtps_epi32(_mm512_mul_ps(x1, inverse));
        out->scale = amax / 127.0f;
        out->sum[0] = (int16_t)_mm512_reduce_add_epi32(q0);
        out->sum[1] = (int16_t)_mm512_reduce_add_epi32(q1);
        _mm_storeu_si128((void *)out->q, _mm512_cvtepi32_epi8(q0));
        _mm_storeu_si128((void *)(out->q + 16), _mm512_cvtepi32_epi8(q1));
    }
}

static bool sum_pieces(const float *x, int64_t *sum, size_t n)
{
    const __m512d unit = _mm512_set1_pd(0x1p30);
    __mmask16 bad = 0;
    for (size_t i = 0; i < n; i += WK_TILE) {
        __m512 v = _mm512_loadu_ps(x + i);
        __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
        __m512d hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
        bad |= _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(0x1p21f), _CMP_NLT_UQ);
        _mm512_storeu_si512(sum + i, _mm512_add_epi64(_mm512_loadu_si512(sum + i),
                                                      _mm512_cvtpd_epi64(_mm512_mul_pd(lo, unit))));
        _mm512_storeu_si512(sum + i + 8,
                            _mm512_add_epi64(_mm512_loadu_si512(sum + i + 8),
                                             _mm512_cvtpd_epi64(_mm512_mul_pd(hi, unit))));
    }
    return bad == 0;
}

/* ------------------------------------------------------------------ quantised products */

static inline __m512i load64(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}

/* 4 activations to every row. */
static inline __m512i spread(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* acc + (float)idot * (dw * dx) */
static inline __m512 add_block(__m512 acc, __m512i idot, __m512 dw, float dx)
{
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(idot), _mm512_mul_ps(dw, _mm512_set1_ps(dx)), acc);
}

/* One block of 32 columns: weights as 8 groups of unsigned bytes, `offset` too great each. */
WK_INLINE __m512i dot_groups(const __m512i *group, short offset, const struct wk_q8 *x)
{
    __m512i idot = _mm512_dpwssd_epi32(_mm512_setzero_si512(), _mm512_set1_epi16((short)-offset),
                                       spread(x->sum));
    WK_UNROLL
    for (unsigned g = 0; g < 8; g++)
        idot = _mm512_dpbusd_epi32(idot, group[g], spread(x->q + (size_t)g * 4));
    return idot;
}

WK_INLINE void unpack_q8_0(const uint8_t *w, __m512i *group)
{
    WK_UNROLL
    for (unsigned g = 0; g < 8; g++)
        group[g] = _mm512_xor_si512(load64(w + (size_t)g * 64), _mm512_set1_epi8((char)0x80));
}

WK_INLINE void unpack_q4_0(const uint8_t *w, __m512i *group)
{
    const __m512i low = _mm512_set1_epi8(15);
    WK_UNROLL
    for (unsigned g = 0; g < 4; g++) {
        __m512i v = load64(w + (size_t)g * 64);
        group[g] = _mm512_and_si512(v, low);
        group[g + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
    }
}

/* a | (b & c) */
static inline __m512i or_and(__m512i a, __m512i b, __m512i c)
{
    return _mm512_ternarylogic_epi32(a, b, c, 0xf8);
}

/* Upper bits of the groups g, g + 1, g + 4, g + 5 (g = 0, 2) lie in one vector. */
WK_INLINE void unpack_q6_k(const uint8_t *sub, __m512i *group)
{
    const __m512i high = _mm512_set1_epi8(0x30);
    unpack_q4_0(sub, group);
    WK_UNROLL
    for (unsigned g = 0; g < 4; g += 2) {
        __m512i v = load64(sub + 256 + (size_t)g * 32);
        group[g] = or_and(group[g], _mm512_slli_epi16(v, 4), high);
        group[g + 4] = or_and(group[g + 4], _mm512_slli_epi16(v, 2), high);
        group[g + 1] = or_and(group[g + 1], v, high);
        group[g + 5] = or_and(group[g + 5], _mm512_srli_epi16(v, 2), high);
    }
}

/* `rows` rows (a constant) of one tile; type Q8_0 or Q4_0 (a constant). */
WK_INLINE void dot_simple(const struct wk_dot *d, uint32_t t, uint32_t i, unsigned rows,
                          enum wk_type type, float *out)
{
    const size_t bytes = type == WK_Q8_0 ? WK_Q8_0_BYTES : WK_Q4_0_BYTES;
    const uint8_t *w = d->w + t * d->tile_bytes + d->col / WK_BLOCK * bytes;
    const struct wk_q8 *x = d->q8 + i * d->ldx + d->col / WK_BLOCK;
    __m512 acc[8];
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        acc[j] = _mm512_setzero_ps();
    for (uint32_t c = 0; c < d->cols; c += WK_BLOCK, w += bytes, x++) {
        __m512i group[8];
        __m512 dw = v_load_f16((const uint16_t *)(const void *)w);
        if (rows == 1)
            prefetch(w, bytes);
        if (type == WK_Q8_0)
            unpack_q8_0(w + WK_SCALES, group);
        else
            unpack_q4_0(w + WK_SCALES, group);
        WK_UNROLL
        for (unsigned j = 0; j < rows; j++) {
            const struct wk_q8 *xj = x + j * d->ldx;
            acc[j] =
                add_block(acc[j], dot_groups(group, type == WK_Q8_0 ? 128 : 8, xj), dw, xj->scale);
        }
    }
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        v_store(out + ((size_t)t * d->n + i + j) * WK_TILE, acc[j]);
}

WK_INLINE void dot_q6_k_rows(const struct wk_dot *d, uint32_t t, uint32_t i, unsigned rows,
                             float *out)
{
    const uint8_t *tile = d->w + t * d->tile_bytes;
    const struct wk_q8 *x = d->q8 + i * d->ldx + d->col / WK_BLOCK;
    __m512 acc[8];
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        acc[j] = _mm512_setzero_ps();
    for (uint32_t c = d->col; c < d->col + d->cols; c += WK_BLOCK, x++) {
        const uint8_t *w = tile + (size_t)(c / WK_Q6_K_COLS) * WK_Q6_K_BYTES;
        size_t s = c % WK_Q6_K_COLS / WK_BLOCK;
        const uint8_t *scales = w + WK_SCALES + s * 2 * WK_TILE;
        __m512i group[8];
        __m512 dw = v_load_f16((const uint16_t *)(const void *)w);
        __m512i first = _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)scales));
        __m512i second = _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(scales + WK_TILE)));
        /* pairs of -32 * scale in 16 bits, to multiply the pair of sums */
        __m512i pair = _mm512_mask_blend_epi16(0xaaaaaaaau, first, _mm512_slli_epi32(second, 16));
        __m512i offset = _mm512_sub_epi16(_mm512_setzero_si512(), _mm512_slli_epi16(pair, 5));
        if (rows == 1)
            prefetch(w + WK_Q6_K_QUANTS + s * WK_Q6_K_SUB, WK_Q6_K_SUB);
        unpack_q6_k(w + WK_Q6_K_QUANTS + s * WK_Q6_K_SUB, group);
        WK_UNROLL
        for (unsigned j = 0; j < rows; j++) {
            const struct wk_q8 *xj = x + j * d->ldx;
            __m512i a = _mm512_setzero_si512(), b = a;
            WK_UNROLL
            for (unsigned g = 0; g < 4; g++) {
                a = _mm512_dpbusd_epi32(a, group[g], spread(xj->q + (size_t)g * 4));
                b = _mm512_dpbusd_epi32(b, group[g + 4], spread(xj->q + 16 + (size_t)g * 4));
            }
            a = _mm512_add_epi32(_mm512_mullo_epi32(a, first), _mm512_mullo_epi32(b, second));
            a = _mm512_dpwssd_epi32(a, offset, spread(xj->sum));
            acc[j] = add_block(acc[j], a, dw, xj->scale);
        }
    }
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        v_store(out + ((size_t)t * d->n + i + j) * WK_TILE, acc[j]);
}

/* A constant number of rows of a constant type. */
WK_INLINE void dot_rows(const struct wk_dot *d, uint32_t t, uint32_t i, unsigned rows,
                        enum wk_type type, float *out)
{
    if (type == WK_Q6_K)
        dot_q6_k_rows(d, t, i, rows, out);
    else
        dot_simple(d, t, i, rows, type, out);
}

WK_INLINE void dot_tiles(const struct wk_dot *d, enum wk_type type, float *out)
{
    for (uint32_t t = 0; t < d->tiles; t++) {
        uint32_t i = 0;
        for (; d->n - i >= 8; i += 8)
            dot_rows(d, t, i, 8, type, out);
        for (; d->n - i >= 4; i += 4)
            dot_rows(d, t, i, 4, type, out);
        for (; d->n - i >= 2; i += 2)
            dot_rows(d, t, i, 2, type, out);
        for (; i < d->n; i++)
            dot_rows(d, t, i, 1, type, out);
    }
}

static void dot_q8_0(const struct wk_dot *d, float *out)
{
    dot_tiles(d, WK_Q8_0, out);
}

static void dot_q4_0(const struct wk_dot *d, float *out)
{
    dot_tiles(d, WK_Q4_0, out);
}

static void dot_q6_k(const struct wk_dot *d, float *out)
{
    dot_tiles(d, WK_Q6_K, out);
}

void wk_fill_avx512(struct wk_table *table)
{
    fill_lanes(table);
    table->blas_rows = 0;
    table->quantise = quantise;
    table->sum_pieces = sum_pieces;
    table->dot[WK_Q8_0] = dot_q8_0;
    table->dot[WK_Q4_0] = dot_q4_0;
    table->dot[WK_Q6_K] = dot_q6_k;
}
