/*
 * Attention over one KV block in 16 lanes, written once: the second part of lanes.h, which includes
 * it. Each function repeats its namesake of ref.c operation by operation; see there for the why.
 */
#ifndef WEFT_KERNELS_ATTEND_H
#define WEFT_KERNELS_ATTEND_H

enum {
    STRIPS = WK_KV_BLOCK / WK_TILE,
    RUN = 4, /* queries that share the loads of K and V; 8 measured slower with AVX-512 */
};

/* 16 numbers of a cache from element i on. */
WK_INLINE v16 load_kv(const void *data, size_t i, enum wk_kv_type type)
{
    switch (type) {
    case WK_KV_F32:
        return v_load((const float *)data + i);
    case WK_KV_F16:
        return v_load_f16((const uint16_t *)data + i);
    case WK_KV_Q8_0:
        break;
    }
    return v_load_i8((const int8_t *)data + i);
}

/* 16 scales from a position on, of the run of columns that c is in. */
WK_INLINE v16 load_scales16(const uint16_t *scales, uint32_t c, unsigned position)
{
    return v_load_f16(scales + (size_t)(c / WK_BLOCK) * WK_KV_BLOCK + position);
}

/* Unscaled scores of `step` strips of 16 positions from strip s on, for n queries (n and step are
 * constants). */
WK_INLINE void score_strips(const struct wk_attend *a, const struct wk_query *query, unsigned n,
                            unsigned s, unsigned step, enum wk_kv_type type, float p[][WK_KV_BLOCK])
{
    const uint32_t run = type == WK_KV_Q8_0 ? WK_BLOCK : a->head_dim;
    uint32_t first = 0;
    do { /* head_dim is at least 1 */
        const uint32_t end = a->head_dim - first < run ? a->head_dim : first + run;
        v16 acc[V_ACCUMULATORS];
        WK_UNROLL
        for (unsigned k = 0; k < n * step; k++)
            acc[k] = v_set(0);
        for (uint32_t c = first; c < end; c++) {
            v16 key[STRIPS];
            WK_UNROLL
            for (unsigned k = 0; k < step; k++)
                key[k] = load_kv(a->k, (size_t)c * WK_KV_BLOCK + (s + k) * WK_TILE, type);
            WK_UNROLL
            for (unsigned i = 0; i < n; i++) {
                v16 q = v_set(query[i].q[c]);
                WK_UNROLL
                for (unsigned k = 0; k < step; k++)
                    acc[i * step + k] = v_fma(key[k], q, acc[i * step + k]);
            }
        }
        WK_UNROLL
        for (unsigned k = 0; k < n * step; k++) {
            float *at = &p[k / step][(s + k % step) * WK_TILE];
            if (type == WK_KV_Q8_0)
                acc[k] = v_fma(acc[k], load_scales16(a->k_scales, first, (s + k % step) * WK_TILE),
                               first == 0 ? v_set(0) : v_load(at));
            v_store(at, acc[k]);
        }
        first = end;
    } while (first < a->head_dim);
}

/* Unscaled scores for n queries (a constant); strips that none of them sees are 0. */
WK_INLINE void scores(const struct wk_attend *a, const struct wk_query *query, unsigned n,
                      enum wk_kv_type type, float p[][WK_KV_BLOCK])
{
    const unsigned strips = V_ACCUMULATORS / n < STRIPS ? V_ACCUMULATORS / n : STRIPS;
    const unsigned step = strips == 3 ? 2 : strips; /* a divisor of STRIPS */
    uint32_t seen = 0;
    unsigned s = 0;
    for (unsigned i = 0; i < n; i++)
        seen = query[i].end > seen ? query[i].end : seen;
    for (; s < STRIPS && s * WK_TILE < seen; s += step)
        score_strips(a, query, n, s, step, type, p);
    for (; s < STRIPS; s++)
        for (unsigned i = 0; i < n; i++)
            v_store(&p[i][s * WK_TILE], v_set(0));
}

/* Scores that are not plain: scaled, capped and without those before the window. Apart from
 * softmax_block, which then has plain ones of scale 1, so that it stays as short as it is. */
static void prepare_scores(const struct wk_attend *a, uint32_t first, float *p)
{
    if (a->softcap > 0) {
        softcap(p, a->scale, a->softcap, WK_KV_BLOCK);
    } else {
        for (unsigned i = 0; i < WK_KV_BLOCK; i += WK_TILE)
            v_store(p + i, v_mul(v_load(p + i), v_set(a->scale)));
    }
    for (uint32_t i = 0; i < first; i++)
        p[i] = -INFINITY;
}

/* p: scores in, probabilities out (0 from `end` on). */
WK_INLINE void softmax_block(float scale_by, uint32_t end, float *p, float *max, float *sum)
{
    static const float index[WK_TILE] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    v16 at = v_load(index), top = v_set(-INFINITY), total = v_set(0), v[STRIPS];
    WK_UNROLL
    for (unsigned s = 0; s < STRIPS; s++) {
        v16 limit = v_set((float)((int)end - (int)(s * WK_TILE)));
        v[s] = v_mul(v_load(p + (size_t)s * WK_TILE), v_set(scale_by));
        v[s] = v_where_less(at, limit, v[s], v_set(-INFINITY));
        top = v_max(v[s], top);
    }
    *max = merge_max(top);
    WK_UNROLL
    for (unsigned s = 0; s < STRIPS; s++) {
        v16 limit = v_set((float)((int)end - (int)(s * WK_TILE)));
        v[s] = v_where_less(at, limit, v_exp(v_sub(v[s], v_set(*max))), v_set(0));
        v_store(p + (size_t)s * WK_TILE, v[s]);
        total = v_add(total, v[s]);
    }
    *sum = merge_sum(total);
}

/* How the earlier blocks of up to 16 queries and this one enter their results: a lane each. */
struct blend {
    float old[WK_TILE], new[WK_TILE];
    bool begun[WK_TILE];
};

/* Takes the block's max and sum of n queries [16] into them. */
WK_INLINE void blend_block(struct wk_query *query, unsigned n, const float *max, const float *sum,
                           struct blend *b)
{
    float top[WK_TILE] = {0}, total[WK_TILE] = {0};
    for (unsigned i = 0; i < n; i++) {
        b->begun[i] = query[i].begun;
        top[i] = query[i].max;
        total[i] = query[i].sum;
    }
    v16 new_max = v_load(max), old_max = v_load(top), greater = v_max(new_max, old_max);
    v16 old = v_exp(v_sub(old_max, greater)), new = v_exp(v_sub(new_max, greater));
    v_store(b->old, old);
    v_store(b->new, new);
    v_store(top, greater);
    v_store(total, v_fma(v_load(sum), new, v_mul(v_load(total), old)));
    for (unsigned i = 0; i < n; i++) {
        query[i].max = b->begun[i] ? top[i] : max[i];
        query[i].sum = b->begun[i] ? total[i] : sum[i];
        query[i].begun = true;
    }
}

/* Weights of the run of columns at c: of Q8_0 the probabilities times the scale. */
WK_INLINE void weigh(const struct wk_attend *a, unsigned n, uint32_t c, float p[][WK_KV_BLOCK],
                     float weight[][WK_KV_BLOCK])
{
    WK_UNROLL
    for (unsigned s = 0; s < STRIPS; s++) {
        v16 d = load_scales16(a->v_scales, c, s * WK_TILE);
        for (unsigned i = 0; i < n; i++)
            v_store(&weight[i][s * WK_TILE], v_mul(v_load(&p[i][s * WK_TILE]), d));
    }
}

/* Adds positions [j, end) of 16 elements from c on. */
WK_INLINE v16 add_values(const struct wk_attend *a, enum wk_kv_type type, uint32_t c,
                         const float *weight, uint32_t j, uint32_t end, v16 sum)
{
    for (; j < end; j++)
        sum = v_fma(v_set(weight[j]), load_kv(a->v, (size_t)j * a->head_dim + c, type), sum);
    return sum;
}

/* Weighted V of `chunks` times 16 elements from c on, for n queries (both constants): together what
 * all of them see, before and after it alone. Of Q8_0 the weights of a second run of columns follow
 * those of the first. */
WK_INLINE void values(const struct wk_attend *a, const struct wk_query *query, unsigned n,
                      unsigned chunks, enum wk_kv_type type, uint32_t c,
                      float weight[][WK_KV_BLOCK], const struct blend *blend)
{
    const unsigned next = type == WK_KV_Q8_0 ? n : 0;
    v16 acc[V_ACCUMULATORS];
    uint32_t begin = 0, end = WK_KV_BLOCK;
    WK_UNROLL
    for (unsigned i = 0; i < n * chunks; i++)
        acc[i] = v_set(0);
    for (unsigned i = 0; i < n; i++) {
        begin = query[i].first > begin ? query[i].first : begin;
        end = query[i].end < end ? query[i].end : end;
    }
    if (begin > 0) { /* the first block of a window */
        end = begin > end ? begin : end;
        WK_UNROLL
        for (unsigned i = 0; i < n; i++) {
            const uint32_t alone = query[i].end < begin ? query[i].end : begin;
            WK_UNROLL
            for (unsigned k = 0; k < chunks; k++)
                acc[i * chunks + k] = add_values(a, type, c + k * WK_TILE, weight[k / 2 * next + i],
                                                 query[i].first, alone, acc[i * chunks + k]);
        }
    }
    for (uint32_t j = begin; j < end; j++)
        WK_UNROLL
    for (unsigned k = 0; k < chunks; k++) {
        v16 v = load_kv(a->v, (size_t)j * a->head_dim + c + k * WK_TILE, type);
        WK_UNROLL
        for (unsigned i = 0; i < n; i++)
            acc[i * chunks + k] = v_fma(v_set(weight[k / 2 * next + i][j]), v, acc[i * chunks + k]);
    }
    WK_UNROLL
    for (unsigned i = 0; i < n; i++) {
        WK_UNROLL
        for (unsigned k = 0; k < chunks; k++) {
            uint32_t at = c + k * WK_TILE;
            v16 sum = add_values(a, type, at, weight[k / 2 * next + i], end, query[i].end,
                                 acc[i * chunks + k]);
            if (blend->begun[i])
                sum = v_fma(sum, v_set(blend->new[i]),
                            v_mul(v_load(query[i].out + at), v_set(blend->old[i])));
            v_store(query[i].out + at, sum);
        }
    }
}

/* Element c alone: the end of a head whose size is no multiple of 16. */
WK_INLINE float value(const struct wk_attend *a, const struct wk_query *query, enum wk_kv_type type,
                      uint32_t c, const float *weight)
{
    float sum = 0;
    for (uint32_t j = query->first; j < query->end; j++) {
        size_t at = (size_t)j * a->head_dim + c;
        float v = type == WK_KV_F32   ? ((const float *)a->v)[at]
                  : type == WK_KV_F16 ? wk_f16_to_f32(((const uint16_t *)a->v)[at])
                                      : (float)((const int8_t *)a->v)[at];
        sum = fmaf(weight[j], v, sum);
    }
    return sum;
}

/* The block for n queries (a constant). */
WK_INLINE void attend_n(const struct wk_attend *a, struct wk_query *query, unsigned n,
                        enum wk_kv_type type)
{
    const bool q8 = type == WK_KV_Q8_0;
    float p[RUN][WK_KV_BLOCK], scaled[2 * RUN][WK_KV_BLOCK], max[WK_TILE] = {0}, sum[WK_TILE] = {0};
    float(*weight)[WK_KV_BLOCK] = q8 ? scaled : p;
    struct blend blend;
    scores(a, query, n, type, p);
    for (unsigned i = 0; i < n; i++) {
        float scale_by = a->scale;
        if (a->softcap > 0 || query[i].first > 0) {
            prepare_scores(a, query[i].first, p[i]);
            scale_by = 1;
        }
        softmax_block(scale_by, query[i].end, p[i], &max[i], &sum[i]);
    }
    blend_block(query, n, max, sum, &blend);

    const unsigned fit = V_ACCUMULATORS / n < 4 ? V_ACCUMULATORS / n : 4;
    const unsigned chunks = fit == 3 ? 2 : fit; /* whole runs of Q8_0, or half of one */
    uint32_t c = 0;
    for (; a->head_dim - c >= chunks * WK_TILE; c += chunks * WK_TILE) {
        if (q8 && c % WK_BLOCK == 0)
            weigh(a, n, c, p, weight);
        if (q8 && chunks == 4)
            weigh(a, n, c + WK_BLOCK, p, weight + n);
        values(a, query, n, chunks, type, c, weight, &blend);
    }
    for (; a->head_dim - c >= WK_TILE; c += WK_TILE) {
        if (q8 && c % WK_BLOCK == 0)
            weigh(a, n, c, p, weight);
        values(a, query, n, 1, type, c, weight, &blend);
    }
    for (; c < a->head_dim; c++) {
        if (q8 && c % WK_BLOCK == 0)
            weigh(a, n, c, p, weight);
        for (unsigned i = 0; i < n; i++) {
            float v = value(a, &query[i], type, c, weight[i]);
            query[i].out[c] =
                blend.begun[i] ? fmaf(v, blend.new[i], query[i].out[c] * blend.old[i]) : v;
        }
    }
}

WK_INLINE void attend_type(const struct wk_attend *a, enum wk_kv_type type)
{
    uint32_t i = 0;
    for (; a->n - i >= RUN; i += RUN)
        attend_n(a, a->query + i, RUN, type);
    if (a->n - i == 3)
        attend_n(a, a->query + i, 3, type);
    else if (a->n - i == 2)
        attend_n(a, a->query + i, 2, type);
    else if (a->n - i == 1)
        attend_n(a, a->query + i, 1, type);
}

static void attend(struct wk_attend *a)
{
    switch (a->type) {
    case WK_KV_F32:
        attend_type(a, WK_KV_F32);
        break;
    case WK_KV_F16:
        attend_type(a, WK_KV_F16);
        break;
    case WK_KV_Q8_0:
        attend_type(a, WK_KV_Q8_0);
        break;
    }
}

static void merge(struct wk_query *q, const struct wk_query *block, uint32_t head_dim)
{
    const float max[WK_TILE] = {block->max}, sum[WK_TILE] = {block->sum};
    struct blend blend;
    blend_block(q, 1, max, sum, &blend);
    if (!blend.begun[0]) {
        memcpy(q->out, block->out, head_dim * sizeof *q->out);
        return;
    }
    v16 old = v_set(blend.old[0]), new = v_set(blend.new[0]);
    uint32_t c = 0;
    for (; head_dim - c >= WK_TILE; c += WK_TILE)
        v_store(q->out + c, v_fma(v_load(block->out + c), new, v_mul(v_load(q->out + c), old)));
    for (; c < head_dim; c++)
        q->out[c] = fmaf(block->out[c], blend.new[0], q->out[c] * blend.old[0]);
}

#endif
