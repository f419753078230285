/*
 * Where the time of a layer goes: each kernel call of daemon/layer.c at 1 and at 128 rows, on the
 * shape of a 1.1 B Llama (2048 wide, 32 heads, 4 KV heads, FFN 5632), beside the same layers run as
 * a stage; and what exact sums cost: o and down summed by pieces as the layer does it, against
 * plain products.
 *
 *     bench_layer [threads] [table]       default: 1 thread, every table but ref
 *
 * Rounds with pieces and rounds with plain products take turns; each goes through all layers, whose
 * weights do not fit a cache together. A figure is the best of its rounds, since other work on the
 * machine only ever adds time.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/layer.h"
#include "daemon/stage.h"
#include "tests/harness.h"
#include "tests/kernel_data.h"
#include "tests/synthetic_model.h"

enum {
    LAYERS = 4, /* Q4_0: 95 MiB */
    DIM = 2048,
    HEADS = 32,
    KV_HEADS = 4,
    HEAD_DIM = 64,
    FFN = 5632,
    Q_COLS = HEADS * HEAD_DIM,
    KV_COLS = KV_HEADS * HEAD_DIM,
    ROWS = 128,    /* of a prefill */
    CONTEXT = 256, /* positions; one row stands behind ROWS others */
};

enum part { NORM_1, QKV, ROPE, PUT, ATTENTION, HEADS_Q8, O, NORM_2, GATE_UP, DOWN, PART_COUNT };

static const char *const part_name[PART_COUNT] = {
    [NORM_1] = "norm, quantise", [QKV] = "q, k, v",           [ROPE] = "rope",
    [PUT] = "store k, v",        [ATTENTION] = "attention",   [HEADS_Q8] = "quantise heads",
    [O] = "o, residual",         [NORM_2] = "norm, quantise", [GATE_UP] = "gate, up, SwiGLU",
    [DOWN] = "down, residual",
};

static struct bench {
    struct wk_engine engine;
    struct weft_store *store;
    const struct weft_model *model;
    struct weft_layer_weights layers[LAYERS];
    struct wk_kv kv;
    struct wk_act act, hidden;
    float *x, *q, *k, *v, *heads, *y, *cos, *sin;
    void *q8, *hidden_q8;
    uint32_t n, position;
} b;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ------------------------------------------------------------------ one layer by parts */

/* The product that ends a half. */
static void finish(const struct wk_matrix *w, const struct wk_act *act, uint32_t piece, bool plain)
{
    if (plain)
        wk_matmul(&b.engine, w, act, b.y, w->rows, NULL);
    else
        ck_assert_int_eq(wk_matmul_add(&b.engine, w, act, piece, b.x), WK_SUM_OK);
}

static void run_part(enum part part, const struct weft_layer_weights *w, bool plain)
{
    const struct wk_engine *e = &b.engine;
    const struct wk_product products[] = {
        {w->q, b.q, Q_COLS}, {w->k, b.k, KV_COLS}, {w->v, b.v, KV_COLS}};
    switch (part) {
    case NORM_1:
        wk_act_norm(e, &b.act, b.x, w->attn_norm, 1e-5f, b.n, DIM, NULL, b.q8);
        break;
    case QKV:
        wk_matmul_many(e, products, 3, &b.act, NULL);
        break;
    case ROPE:
        wk_rope(e, WK_ROPE_PAIRS, b.q, b.n, HEADS, HEAD_DIM, HEAD_DIM, b.cos, b.sin);
        wk_rope(e, WK_ROPE_PAIRS, b.k, b.n, KV_HEADS, HEAD_DIM, HEAD_DIM, b.cos, b.sin);
        break;
    case PUT:
        wk_kv_put(e, &b.kv, b.position, b.n, b.k, b.v);
        break;
    case ATTENTION:
        wk_attention(e, &b.kv, b.q, b.n, HEADS, b.position,
                     &(struct wk_attention_spec){.scale = 0.125f}, b.heads, NULL);
        break;
    case HEADS_Q8:
        wk_act_set(e, &b.act, b.heads, b.n, Q_COLS, b.q8);
        break;
    case O:
        finish(w->o, &b.act, weft_layer_o_piece(b.model), plain);
        break;
    case NORM_2:
        wk_act_norm(e, &b.act, b.x, w->ffn_norm, 1e-5f, b.n, DIM, NULL, b.q8);
        break;
    case GATE_UP:
        wk_act_glu(e, &b.hidden, &(struct wk_glu){.gate = w->gate, .up = w->up}, &b.act, NULL,
                   b.hidden_q8, NULL);
        break;
    case DOWN:
        finish(w->down, &b.hidden, WEFT_FFN_PIECE, plain);
        break;
    case PART_COUNT:
        break;
    }
}

static void fill_x(void)
{
    for (size_t i = 0; i < (size_t)ROWS * DIM; i++)
        b.x[i] = (float)(i % 97) * 0.02f - 1;
}

/* Seconds of each part of all layers; keeps the least of before and now. */
static void round_by_parts(bool plain, double *least)
{
    double took[PART_COUNT] = {0};
    fill_x();
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        for (int part = 0; part < PART_COUNT; part++) {
            double start = now();
            run_part((enum part)part, &b.layers[layer], plain);
            took[part] += now() - start;
        }
    for (int part = 0; part < PART_COUNT; part++)
        least[part] = fmin(least[part], took[part]);
}

/* Seconds of the layers as a stage. */
static double round_by_stage(struct weft_stage *s)
{
    const struct weft_segment g = {.position = b.position, .rows = b.n};
    const struct weft_step step = {.segments = &g, .n_segments = 1, .n_rows = b.n, .x = b.x};
    weft_err err = {0};
    fill_x();
    double start = now();
    int r = weft_stage_run(s, &step, &err);
    double took = now() - start;
    ck_assert_msg(r == 0, "%s", err.text);
    weft_stage_trim(s, 0, b.position);
    return took;
}

/* ------------------------------------------------------------------ the report */

static double total(const double *parts)
{
    double sum = 0;
    for (int part = 0; part < PART_COUNT; part++)
        sum += parts[part];
    return sum;
}

static void bench_rows(const char *type, uint32_t n, uint32_t position, unsigned rounds)
{
    const struct weft_stage_options o = {.store = b.store,
                                         .engine = b.engine,
                                         .n_layers = LAYERS,
                                         .context = CONTEXT,
                                         .sessions = 1,
                                         .batch_rows = ROWS,
                                         .kv = WK_KV_F16};
    struct weft_stage *stage;
    weft_err err = {0};
    int r = weft_stage_open(&o, &stage, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    double sums[PART_COUNT], plain[PART_COUNT], whole = INFINITY;
    for (int part = 0; part < PART_COUNT; part++)
        sums[part] = plain[part] = INFINITY;
    b.n = ROWS; /* the rows before the one, in both caches */
    b.position = 0;
    (void)round_by_stage(stage);
    round_by_parts(true, plain);
    for (int part = 0; part < PART_COUNT; part++)
        plain[part] = INFINITY;
    b.n = n;
    b.position = position;
    if (position > 0) {
        const struct weft_segment g = {.rows = position};
        const struct weft_step step = {.segments = &g, .n_segments = 1, .n_rows = g.rows, .x = b.x};
        ck_assert_int_eq(weft_stage_run(stage, &step, &err), 0);
    }
    for (unsigned i = 0; i < rounds; i++) {
        round_by_parts(false, sums);
        round_by_parts(true, plain);
        whole = fmin(whole, round_by_stage(stage));
    }
    weft_stage_close(stage);

    const double us = 1e6 / LAYERS / n; /* a row and layer */
    printf("%-8s %s, %u rows, µs a row and layer:\n", wk_table_name(b.engine.table), type, n);
    for (int part = 0; part < PART_COUNT; part++)
        printf("         %-18s %9.2f  %5.1f %%\n", part_name[part], sums[part] * us,
               100 * sums[part] / total(sums));
    printf("         %-18s %9.2f\n         %-18s %9.2f\n", "together", total(sums) * us,
           "as a stage", whole * us);
    const double o_cost = sums[O] - plain[O], down_cost = sums[DOWN] - plain[DOWN];
    printf("         exact sums cost %.1f %%: o %+.2f µs, down %+.2f µs\n",
           100 * (o_cost + down_cost) / total(sums), o_cost * us, down_cost * us);
    fflush(stdout);
}

static void *room(size_t bytes)
{
    void *p = kd_alloc(bytes);
    memset(p, 0, bytes);
    return p;
}

static void open_buffers(void)
{
    b.kv = (struct wk_kv){WK_KV_F16, KV_HEADS, HEAD_DIM, CONTEXT, NULL};
    b.kv.data = room(wk_kv_bytes(b.kv.type, KV_HEADS, HEAD_DIM, CONTEXT));
    b.x = room(sizeof *b.x * ROWS * DIM);
    b.y = room(sizeof *b.y * ROWS * DIM);
    b.q = room(sizeof *b.q * ROWS * Q_COLS);
    b.k = room(sizeof *b.k * ROWS * KV_COLS);
    b.v = room(sizeof *b.v * ROWS * KV_COLS);
    b.heads = room(sizeof *b.heads * ROWS * Q_COLS);
    b.cos = room(sizeof *b.cos * ROWS * HEAD_DIM / 2);
    b.sin = room(sizeof *b.sin * ROWS * HEAD_DIM / 2);
    b.q8 = room(wk_act_bytes(ROWS, DIM > Q_COLS ? DIM : Q_COLS));
    b.hidden_q8 = room(wk_act_bytes(ROWS, FFN));
    int32_t positions[ROWS];
    for (int32_t i = 0; i < ROWS; i++)
        positions[i] = i;
    kd_angles(positions, ROWS, HEAD_DIM, 10000, NULL, b.cos, b.sin);
}

static void close_buffers(void)
{
    void *all[] = {b.kv.data, b.x, b.y, b.q, b.k, b.v, b.heads, b.cos, b.sin, b.q8, b.hidden_q8};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static int n_args;
static char **args;

static void bench_type(uint32_t type, const char *name)
{
    const struct synthetic_shape shape = {.n_layers = LAYERS,
                                          .dim = DIM,
                                          .n_heads = HEADS,
                                          .n_kv_heads = KV_HEADS,
                                          .head_dim = HEAD_DIM,
                                          .ffn_dim = FFN,
                                          .vocab = 16,
                                          .type = type,
                                          .seed = 1};
    struct synthetic_model m = synthetic_open(&shape);
    ck_assert_int_eq(weft_store_open(&b.store, NULL), 0);
    synthetic_load(&m, b.store, 0, LAYERS, false, false);
    synthetic_close(&m);
    b.model = weft_store_model(b.store);
    for (uint32_t i = 0; i < LAYERS; i++)
        ck_assert_int_eq(weft_layer_find(b.store, i, &b.layers[i], NULL), 0);
    const struct wk_table *tables[KD_TABLES_MAX];
    const size_t n = wk_table_list(tables, KD_TABLES_MAX);
    for (size_t i = 0; i < n; i++) {
        if (n_args > 2 ? strcmp(args[2], wk_table_name(tables[i])) != 0 : i == 0 && n > 1)
            continue;
        b.engine.table = tables[i];
        bench_rows(name, 1, ROWS, 20);
        bench_rows(name, ROWS, 0, 4);
    }
    weft_store_close(b.store);
}

static void bench(void)
{
    b.engine.pool = wk_pool_open(n_args > 1 ? (unsigned)strtoul(args[1], NULL, 10) : 1);
    open_buffers();
    bench_type(WEFT_Q4_0, "Q4_0");
    bench_type(WEFT_Q8_0, "Q8_0");
    close_buffers();
    wk_pool_close(b.engine.pool);
}

int main(int argc, char **argv)
{
    n_args = argc;
    args = argv;
    return weft_test_program(bench);
}
