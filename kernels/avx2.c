/*
 * AVX2 with FMA and F16C: 16 lanes are two registers, rows 0 to 7 and 8 to 15 of a tile. Byte
 * products go through vpmaddubsw, whose 16-bit sums saturate: each use says why its sums stay below
 * 2^15.
 */
#include "kernels/table.h"

#include <immintrin.h>

typedef struct {
    __m256 lo, hi;
} v16;
enum { V_ACCUMULATORS = 4 }; /* 8 of 16 registers */

static inline v16 v_set(float x)
{
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

static inline v16 v_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

static inline void v_store(float *p, v16 v)
{
    _mm256_storeu_ps(p, v.lo);
    _mm256_storeu_ps(p + 8, v.hi);
}

static inline v16 v_load_f16(const uint16_t *p)
{
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 8)))};
}

static inline void v_store_f16(uint16_t *p, v16 v)
{
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(v.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((void *)(p + 8), _mm256_cvtps_ph(v.hi, _MM_FROUND_TO_NEAREST_INT));
}

static inline v16 v_add(v16 a, v16 b)
{
    return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}

static inline v16 v_sub(v16 a, v16 b)
{
    return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}

static inline v16 v_mul(v16 a, v16 b)
{
    return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}

static inline v16 v_div(v16 a, v16 b)
{
    return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}

static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

static inline v16 v_min(v16 a, v16 b)
{
    return (v16){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}

static inline v16 v_max(v16 a, v16 b)
{
    return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}

static inline v16 v_where_less(v16 a, v16 b, v16 x, v16 y)
{
    return (v16){_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
                 _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}

static inline __m256 power_of_two(__m256i n)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

static inline __m256 scale_exp(__m256 p, __m256 t)
{
    __m256i n =
        _mm256_sub_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(0x4b400000)); /* 1.5 * 2^23 */
    __m256i half = _mm256_srai_epi32(n, 1);
    p = _mm256_mul_ps(p, power_of_two(half));
    return _mm256_mul_ps(p, power_of_two(_mm256_sub_epi32(n, half)));
}

static inline v16 v_scale_exp(v16 p, v16 t)
{
    return (v16){scale_exp(p.lo, t.lo), scale_exp(p.hi, t.hi)};
}

#include "kernels/lanes.h"

/* ------------------------------------------------------------------ activations and exact sums */

static inline uint32_t greatest(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(1, 0, 3, 2)));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(2, 3, 0, 1)));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

/* 16 numbers to bytes (in -127..127) at q; their sum. */
static inline int16_t store_q8(const float *x, __m256 inverse, int8_t *q)
{
    __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), inverse));
    __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), inverse));
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), _MM_SHUFFLE(3, 1, 2, 0));
    __m128i sum = _mm_add_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((void *)q, _mm_packs_epi16(_mm256_castsi256_si128(words),
                                                _mm256_extracti128_si256(words, 1)));
    sum = _mm_madd_epi16(sum, _mm_set1_epi16(1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(1, 0, 3, 2)));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(2, 3, 0, 1)));
    return (int16_t)_mm_cvtsi128_si32(sum);
}

static void quantise(const float *x, size_t n_blocks, struct wk_q8 *out)
{
    const __m256i abs_mask = _mm256_set1_epi32(0x7fffffff);
    for (size_t b = 0; b < n_blocks; b++, x += WK_BLOCK, out++) {
        __m256i most = _mm256_setzero_si256();
        WK_UNROLL
        for (unsigned i = 0; i < WK_BLOCK; i += 8)
            most = _mm256_max_epi32(
                most, _mm256_and_si256(_mm256_loadu_si256((const void *)(x + i)), abs_mask));
        uint32_t top = greatest(most);
        float amax = wk_from_bits(top);
        if (top >= 0x7f800000u || amax < 0x1p-100f) {
            *out = (struct wk_q8){.scale = top >= 0x7f800000u ? NAN : 0};
            continue;
        }
        __m256 inverse = _mm256_set1_ps(127.0f / amax);
        out->scale = amax / 127.0f;
        out->sum[0] = store_q8(x, inverse, out->q);
        out->sum[1] = store_q8(x + 16, inverse, out->q + 16);
    }
}

/* AVX2 converts no f64 to int64: below 2^51 adding 1.5 * 2^52 leaves the integer in the low bits.
 */
static bool sum_pieces(const float *x, int64_t *sum, size_t n)
{
    const __m256d unit = _mm256_set1_pd(0x1p30), magic = _mm256_set1_pd(WK_MAGIC64);
    const __m128 limit = _mm_set1_ps(0x1p21f), sign = _mm_set1_ps(-0.0f);
    __m128 bad = _mm_setzero_ps();
    for (size_t i = 0; i < n; i += 4) {
        __m128 v = _mm_loadu_ps(x + i);
        __m256d t = _mm256_add_pd(_mm256_mul_pd(_mm256_cvtps_pd(v), unit), magic);
        __m256i whole = _mm256_sub_epi64(_mm256_castpd_si256(t), _mm256_castpd_si256(magic));
        __m256i old = _mm256_loadu_si256((const void *)(sum + i));
        bad = _mm_or_ps(bad, _mm_cmpnlt_ps(_mm_andnot_ps(sign, v), limit));
        _mm256_storeu_si256((void *)(sum + i), _mm256_add_epi64(old, whole));
    }
    return _mm_movemask_ps(bad) == 0;
}

/* ------------------------------------------------------------------ quantised products */

static inline __m256i load32(const uint8_t *p)
{
    return _mm256_loadu_si256((const void *)p);
}

/* 4 activations (or 2 sums) to every row. */
static inline __m256i spread(const void *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

static inline __m256 load_scales(const uint8_t *w, unsigned half)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)(w + half * 16)));
}

static inline __m256 add_block(__m256 acc, __m256i idot, __m256 dw, float dx)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(idot), _mm256_mul_ps(dw, _mm256_set1_ps(dx)), acc);
}

/* idot[j] of 8 rows of a tile (w at their first quants) with `rows` rows of activations. |w| <= 128
 * as an unsigned byte and +-x: two products are at most 2 * 128 * 127 = 32512. */
WK_INLINE void idot_q8_0(const uint8_t *w, const struct wk_q8 *x, size_t ldx, unsigned rows,
                         __m256i *idot)
{
    const __m256i ones = _mm256_set1_epi16(1);
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        idot[j] = _mm256_setzero_si256();
    WK_UNROLL
    for (unsigned g = 0; g < 8; g++) {
        __m256i v = load32(w + (size_t)g * 64), size = _mm256_abs_epi8(v);
        WK_UNROLL
        for (unsigned j = 0; j < rows; j++) {
            __m256i signed_x = _mm256_sign_epi8(spread(x[j * ldx].q + (size_t)g * 4), v);
            __m256i pairs = _mm256_maddubs_epi16(size, signed_x);
            idot[j] = _mm256_add_epi32(idot[j], _mm256_madd_epi16(pairs, ones));
        }
    }
}

/* Nibbles 0 to 15: eight pairs of products are at most 8 * 2 * 15 * 127 = 30480. */
WK_INLINE void idot_q4_0(const uint8_t *w, const struct wk_q8 *x, size_t ldx, unsigned rows,
                         __m256i *idot)
{
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        idot[j] = _mm256_setzero_si256();
    WK_UNROLL
    for (unsigned g = 0; g < 4; g++) {
        __m256i v = load32(w + (size_t)g * 64);
        __m256i lo = _mm256_and_si256(v, low), hi = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
        WK_UNROLL
        for (unsigned j = 0; j < rows; j++) {
            const int8_t *q = x[j * ldx].q + (size_t)g * 4;
            __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16(lo, spread(q)),
                                             _mm256_maddubs_epi16(hi, spread(q + 16)));
            idot[j] = _mm256_add_epi16(idot[j], pairs);
        }
    }
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++) { /* nibbles are 8 too great */
        __m256i offset = _mm256_madd_epi16(spread(x[j * ldx].sum), _mm256_set1_epi16(8));
        idot[j] = _mm256_sub_epi32(_mm256_madd_epi16(idot[j], ones), offset);
    }
}

/* Weights 0 to 63: two pairs of products are at most 2 * 2 * 63 * 127 = 32004; the scale is
 * multiplied as pairs become 32 bits wide. `scales` are those of the 8 rows. */
WK_INLINE void idot_q6_k(const uint8_t *w, const uint8_t *scales, const struct wk_q8 *x, size_t ldx,
                         unsigned rows, __m256i *idot)
{
    const __m256i low = _mm256_set1_epi8(15), high = _mm256_set1_epi8(0x30);
    __m128i first = _mm_cvtepi8_epi16(_mm_loadl_epi64((const void *)scales));
    __m128i second = _mm_cvtepi8_epi16(_mm_loadl_epi64((const void *)(scales + WK_TILE)));
    __m256i a =
        _mm256_set_m128i(_mm_unpackhi_epi16(first, first), _mm_unpacklo_epi16(first, first));
    __m256i b =
        _mm256_set_m128i(_mm_unpackhi_epi16(second, second), _mm_unpacklo_epi16(second, second));
    __m256i pair =
        _mm256_set_m128i(_mm_unpackhi_epi16(first, second), _mm_unpacklo_epi16(first, second));
    pair = _mm256_slli_epi16(pair, 5); /* weights are 32 too great */
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        idot[j] = _mm256_sub_epi32(_mm256_setzero_si256(),
                                   _mm256_madd_epi16(pair, spread(x[j * ldx].sum)));
    WK_UNROLL
    for (unsigned g = 0; g < 4; g += 2) {
        __m256i v0 = load32(w + (size_t)g * 64), v1 = load32(w + (size_t)g * 64 + 64);
        __m256i top = load32(w + 256 + (size_t)g * 32), top4 = _mm256_slli_epi16(top, 4);
        __m256i top2 = _mm256_slli_epi16(top, 2), down2 = _mm256_srli_epi16(top, 2);
        __m256i a0 = _mm256_or_si256(_mm256_and_si256(v0, low), _mm256_and_si256(top4, high));
        __m256i a1 = _mm256_or_si256(_mm256_and_si256(v1, low), _mm256_and_si256(top, high));
        __m256i b0 = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(v0, 4), low),
                                     _mm256_and_si256(top2, high));
        __m256i b1 = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(v1, 4), low),
                                     _mm256_and_si256(down2, high));
        WK_UNROLL
        for (unsigned j = 0; j < rows; j++) {
            const int8_t *q = x[j * ldx].q + (size_t)g * 4;
            __m256i in_a = _mm256_add_epi16(_mm256_maddubs_epi16(a0, spread(q)),
                                            _mm256_maddubs_epi16(a1, spread(q + 4)));
            __m256i in_b = _mm256_add_epi16(_mm256_maddubs_epi16(b0, spread(q + 16)),
                                            _mm256_maddubs_epi16(b1, spread(q + 20)));
            idot[j] = _mm256_add_epi32(
                idot[j], _mm256_add_epi32(_mm256_madd_epi16(in_a, a), _mm256_madd_epi16(in_b, b)));
        }
    }
}

/* `rows` rows (a constant, at most 4) of one tile; the type is a constant. */
WK_INLINE void dot_rows(const struct wk_dot *d, uint32_t t, uint32_t i, unsigned rows,
                        enum wk_type type, float *out)
{
    const size_t bytes = type == WK_Q8_0   ? WK_Q8_0_BYTES
                         : type == WK_Q4_0 ? WK_Q4_0_BYTES
                                           : WK_Q6_K_SUB; /* of 32 columns */
    const uint8_t *tile = d->w + t * d->tile_bytes;
    const struct wk_q8 *x = d->q8 + i * d->ldx + d->col / WK_BLOCK;
    __m256 acc[2][4];
    WK_UNROLL
    for (unsigned j = 0; j < 2 * rows; j++)
        acc[j / rows][j % rows] = _mm256_setzero_ps();
    for (uint32_t c = d->col; c < d->col + d->cols; c += WK_BLOCK, x++) {
        const uint8_t *w = tile;
        size_t s = c % WK_Q6_K_COLS / WK_BLOCK;
        if (type == WK_Q6_K)
            w += (size_t)(c / WK_Q6_K_COLS) * WK_Q6_K_BYTES;
        else
            w += c / WK_BLOCK * bytes;
        if (rows == 1)
            prefetch(w + (type == WK_Q6_K ? s * WK_Q6_K_SUB : 0), bytes);
        WK_UNROLL
        for (unsigned half = 0; half < 2; half++) {
            __m256i idot[4];
            __m256 dw = load_scales(w, half);
            if (type == WK_Q8_0)
                idot_q8_0(w + WK_SCALES + half * 32, x, d->ldx, rows, idot);
            else if (type == WK_Q4_0)
                idot_q4_0(w + WK_SCALES + half * 32, x, d->ldx, rows, idot);
            else
                idot_q6_k(w + WK_Q6_K_QUANTS + s * WK_Q6_K_SUB + half * 32,
                          w + WK_SCALES + s * 2 * WK_TILE + half * 8, x, d->ldx, rows, idot);
            WK_UNROLL
            for (unsigned j = 0; j < rows; j++)
                acc[half][j] = add_block(acc[half][j], idot[j], dw, x[j * d->ldx].scale);
        }
    }
    WK_UNROLL
    for (unsigned j = 0; j < rows; j++)
        v_store(out + ((size_t)t * d->n + i + j) * WK_TILE, (v16){acc[0][j], acc[1][j]});
}

WK_INLINE void dot_tiles(const struct wk_dot *d, enum wk_type type, float *out)
{
    for (uint32_t t = 0; t < d->tiles; t++) {
        uint32_t i = 0;
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

void wk_fill_avx2(struct wk_table *table)
{
    fill_lanes(table);
    table->blas_rows = 64;
    table->quantise = quantise;
    table->sum_pieces = sum_pieces;
    table->dot[WK_Q8_0] = dot_q8_0;
    table->dot[WK_Q4_0] = dot_q4_0;
    table->dot[WK_Q6_K] = dot_q6_k;
}
