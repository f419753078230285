/*
 * Stage and layer: refusals, overflow, lengths, memory, and equal bits beyond a KV block.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/layer.h"
#include "daemon/stage.h"
#include "tests/harness.h"
#include "tests/kernel_data.h"
#include "tests/synthetic_model.h"

static const struct synthetic_shape small = {
    .n_layers = 4,
    .dim = 64,
    .n_heads = 4,
    .n_kv_heads = 2,
    .head_dim = 16,
    .ffn_dim = 288, /* two pieces, the second shorter */
    .vocab = 50,
    .type = WEFT_F32,
    .seed = 3,
};

/* A model, its store and one stage of all layers. */
struct rig {
    struct synthetic_model m;
    struct weft_store *store;
    struct weft_stage_options o;
    struct weft_stage *stage;
    float x[64 * 64]; /* activations, where the stage has no embedding */
};

static void rig_init(struct rig *rig, const struct synthetic_shape *shape)
{
    *rig = (struct rig){.m = synthetic_open(shape)};
    ck_assert_int_eq(weft_store_open(&rig->store, NULL), 0);
    rig->o = (struct weft_stage_options){
        .store = rig->store,
        .engine = {.table = wk_table_select(NULL)},
        .n_layers = shape->n_layers,
        .embed = true,
        .head = true,
        .context = 100,
        .sessions = 2,
        .batch_rows = 16,
        .kv = WK_KV_F16,
    };
}

/* Loads the weights as they are now and opens the stage. */
static void rig_open(struct rig *rig)
{
    weft_err err = {0};
    synthetic_load(&rig->m, rig->store, rig->o.first_layer, rig->o.n_layers, rig->o.embed,
                   rig->o.head);
    int r = weft_stage_open(&rig->o, &rig->stage, &err);
    ck_assert_msg(r == 0, "%s", err.text);
}

static void rig_done(struct rig *rig)
{
    weft_stage_close(rig->stage);
    weft_store_close(rig->store);
    synthetic_close(&rig->m);
}

static int run(struct rig *rig, struct weft_segment segment, const int32_t *tokens, weft_err *err)
{
    const struct weft_step step = {.segments = &segment,
                                   .n_segments = 1,
                                   .n_rows = segment.rows,
                                   .tokens = tokens,
                                   .x = rig->x};
    return weft_stage_run(rig->stage, &step, err);
}

static const int32_t tokens[64] = {1, 7, 49, 0, 13, 5, 5, 22, 48, 3, 30, 31, 8, 9, 40, 2};

/* ------------------------------------------------------------------ opening */

static void refuse_open(const struct weft_stage_options *o, int code, const char *text)
{
    struct weft_stage *s = NULL;
    weft_err err = {0};
    ck_assert_int_eq(weft_stage_open(o, &s, &err), -code);
    ck_assert_str_eq(err.text, text);
    ck_assert_ptr_null(s);
}

START_TEST(options_are_checked)
{
    struct rig rig;
    rig_init(&rig, &small);
    refuse_open(&rig.o, WEFT_ESTATE, "the store has no model");
    rig_open(&rig);
    struct weft_stage_options o = rig.o;
    o.context = 0;
    refuse_open(&o, WEFT_ELIMIT, "context of 0, expected 1 to 16777216");
    o = rig.o;
    o.context = WEFT_CONTEXT_MAX + 1;
    refuse_open(&o, WEFT_ELIMIT, "context of 16777217, expected 1 to 16777216");
    o = rig.o;
    o.sessions = 65;
    refuse_open(&o, WEFT_ELIMIT, "sessions of 65, expected 1 to 64");
    o = rig.o;
    o.batch_rows = 513;
    refuse_open(&o, WEFT_ELIMIT, "batch_rows of 513, expected 1 to 512");
    o = rig.o;
    o.first_layer = 2;
    o.n_layers = 3;
    refuse_open(&o, WEFT_ESHAPE, "3 layers from 2 on, the model has 4");
    o.first_layer = UINT32_MAX;
    refuse_open(&o, WEFT_ESHAPE, "3 layers from 4294967295 on, the model has 4");
    weft_stage_close(NULL);
    rig_done(&rig);
}
END_TEST

START_TEST(missing_tensors_are_named)
{
    static const struct {
        enum weft_role role;
        uint32_t layer;
        const char *text;
    } cases[] = {
        {WEFT_ROLE_EMBED, 0, "token_embd.weight is not loaded"},
        {WEFT_ROLE_OUTPUT_NORM, 0, "output_norm.weight is not loaded"},
        {WEFT_ROLE_OUTPUT, 0, "output.weight is not loaded"},
        {WEFT_ROLE_ROPE_FREQS, 0, "rope_freqs.weight is not loaded"},
        {WEFT_ROLE_ATTN_NORM, 0, "blk.0.attn_norm.weight is not loaded"},
        {WEFT_ROLE_ATTN_Q, 3, "blk.3.attn_q.weight is not loaded"},
        {WEFT_ROLE_FFN_GATE, 2, "blk.2.ffn_gate.weight is not loaded"},
    };
    struct synthetic_shape shape = small;
    shape.rope_freqs = true;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rig rig;
        rig_init(&rig, &shape);
        synthetic_load(&rig.m, rig.store, 0, 4, true, true);
        /* All runs but the one with this tensor. */
        struct weft_shard_run runs[32], kept[32];
        size_t n = weft_stage_runs(&rig.m.model, 0, 4, true, true, runs, 32), n_kept = 0;
        for (size_t k = 0; k < n; k++) {
            struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
            size_t n_parts = 0;
            bool in = false;
            ck_assert_int_eq(weft_shard_parts(&rig.m.model, &runs[k], parts, &n_parts, NULL), 0);
            for (size_t p = 0; p < n_parts; p++)
                in = in || (parts[p].role == cases[i].role && parts[p].layer == cases[i].layer);
            if (!in)
                kept[n_kept++] = runs[k];
        }
        ck_assert_uint_eq(n_kept, n - 1);
        weft_store_keep_only(rig.store, kept, n_kept);
        refuse_open(&rig.o, WEFT_ESTATE, cases[i].text);
        rig_done(&rig);
    }
}
END_TEST

/* ------------------------------------------------------------------ steps */

static void refuse_step(struct rig *rig, struct weft_step step, int code, const char *text)
{
    weft_err err = {0};
    uint32_t rows = 9,
             before[2] = {weft_stage_length(rig->stage, 0), weft_stage_length(rig->stage, 1)};
    ck_assert_int_eq(weft_stage_run(rig->stage, &step, &err), -code);
    ck_assert_str_eq(err.text, text);
    ck_assert_uint_eq(weft_stage_length(rig->stage, 0), before[0]);
    ck_assert_uint_eq(weft_stage_length(rig->stage, 1), before[1]);
    ck_assert_ptr_null(weft_stage_logits(rig->stage, &rows));
    ck_assert_uint_eq(rows, 0);
    ck_assert_ptr_null(weft_stage_output(rig->stage));
}

START_TEST(wrong_steps_are_refused_by_name)
{
    struct rig rig;
    rig_init(&rig, &small);
    rig_open(&rig);
    weft_err err = {0};
    ck_assert_int_eq(run(&rig, (struct weft_segment){.rows = 5}, tokens, &err), 0);
    ck_assert_uint_eq(weft_stage_length(rig.stage, 0), 5);

    struct weft_segment g[2] = {{.slot = 0, .position = 5, .rows = 2}, {.slot = 1, .rows = 2}};
    const struct weft_step good = {.segments = g, .n_segments = 2, .n_rows = 4, .tokens = tokens};
    struct weft_step step = good;
    step.n_segments = 0;
    refuse_step(&rig, step, WEFT_ESHAPE, "step of 4 rows with segments of 0, expected 1 to 16");
    step = good;
    step.n_rows = 5;
    refuse_step(&rig, step, WEFT_ESHAPE, "step of 5 rows with segments of 4, expected 1 to 16");
    step = good;
    step.tokens = NULL;
    refuse_step(&rig, step, WEFT_ESHAPE, "step without tokens");

    const struct {
        struct weft_segment second;
        int code;
        const char *text;
    } cases[] = {
        {{.slot = 2, .rows = 2}, WEFT_ESESSION, "slot 2, this stage has 2"},
        {{.slot = 0, .position = 7, .rows = 2}, WEFT_ESHAPE, "slot 0 stands twice in a step"},
        {{.slot = 1, .rows = 0}, WEFT_ESHAPE, "slot 1: segment of 0 rows, wish 0 for logits"},
        {{.slot = 1, .rows = 2, .logits = 3},
         WEFT_ESHAPE,
         "slot 1: segment of 2 rows, wish 3 for logits"},
        {{.slot = 1, .position = 1, .rows = 2},
         WEFT_EPOSITION,
         "slot 1: rows from position 1 on, expected 0"},
        {{.slot = 1, .rows = 101},
         WEFT_ECONTEXT,
         "slot 1: 101 rows from position 0 on, the context has 100"},
        {{.slot = 1, .rows = 15},
         WEFT_ESHAPE,
         "step of 17 rows with segments of 17, expected 1 to 16"},
        {{.slot = 1, .rows = UINT32_MAX},
         WEFT_ECONTEXT,
         "slot 1: 4294967295 rows from position 0 on, the context has 100"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        g[1] = cases[i].second;
        step = good;
        step.n_rows = 2 + cases[i].second.rows;
        refuse_step(&rig, step, cases[i].code, cases[i].text);
    }
    g[1] = (struct weft_segment){.slot = 1, .rows = 2};
    const int32_t beyond[] = {1, 2, 3, 50}, negative[] = {1, -1, 2, 3};
    step = good;
    step.tokens = beyond;
    refuse_step(&rig, step, WEFT_ESHAPE, "token 50, expected 0 to 49");
    step.tokens = negative;
    refuse_step(&rig, step, WEFT_ESHAPE, "token -1, expected 0 to 49");
    ck_assert_int_eq(weft_stage_run(rig.stage, &good, &err), 0);
    ck_assert_uint_eq(weft_stage_length(rig.stage, 0), 7);
    ck_assert_uint_eq(weft_stage_length(rig.stage, 1), 2);
    ck_assert_uint_eq(weft_stage_length(rig.stage, 2), 0);
    rig_done(&rig);
}
END_TEST

START_TEST(a_stage_without_embedding_needs_activations)
{
    struct rig rig;
    rig_init(&rig, &small);
    rig.o.embed = rig.o.head = false;
    rig.o.first_layer = 1;
    rig.o.n_layers = 1;
    rig_open(&rig);
    const struct weft_segment g = {.rows = 1, .logits = WEFT_LOGITS_ALL};
    struct weft_step step = {.segments = &g, .n_segments = 1, .n_rows = 1, .tokens = tokens};
    refuse_step(&rig, step, WEFT_ESHAPE, "step without activations");
    step.x = rig.x;
    for (int i = 0; i < 64; i++)
        rig.x[i] = NAN;
    refuse_step(&rig, step, WEFT_EOVERFLOW,
                "layer 1, attention: a key or value is too large for an f16 cache (kv: f32 holds "
                "more; or is "
                "the model damaged?)");
    for (int i = 0; i < 64; i++)
        rig.x[i] = (float)i;
    ck_assert_int_eq(weft_stage_run(rig.stage, &step, NULL), 0);
    uint32_t rows;
    ck_assert_ptr_null(weft_stage_logits(rig.stage, &rows));
    ck_assert_ptr_nonnull(weft_stage_output(rig.stage));
    rig_done(&rig);
}
END_TEST

START_TEST(the_context_can_be_filled_to_its_end)
{
    struct rig rig;
    rig_init(&rig, &small);
    rig.o.n_layers = 1;
    rig.o.head = false;
    rig.o.context = 65; /* one position into the second KV block */
    rig_open(&rig);
    uint32_t at = 0;
    for (; at < 64; at += 16)
        ck_assert_int_eq(run(&rig, (struct weft_segment){.position = at, .rows = 16}, tokens, NULL),
                         0);
    weft_err err = {0};
    struct weft_segment g = {.position = 64, .rows = 2};
    ck_assert_int_eq(run(&rig, g, tokens, &err), -WEFT_ECONTEXT);
    ck_assert_str_eq(err.text, "slot 0: 2 rows from position 64 on, the context has 65");
    g.rows = 1;
    ck_assert_int_eq(run(&rig, g, tokens, NULL), 0);
    g.position = 65;
    ck_assert_int_eq(run(&rig, g, tokens, NULL), -WEFT_ECONTEXT);
    ck_assert_uint_eq(weft_stage_length(rig.stage, 0), 65);
    rig_done(&rig);
}
END_TEST

/* ------------------------------------------------------------------ overflow */

/* Opens the rig, whose first step fails with this text and leaves the slot empty; ends the rig. */
static void expect_overflow(struct rig *rig, const char *text)
{
    weft_err err = {0};
    rig_open(rig);
    ck_assert_int_eq(run(rig, (struct weft_segment){.rows = 3}, tokens, &err), -WEFT_EOVERFLOW);
    ck_assert_str_eq(err.text, text);
    ck_assert_uint_eq(weft_stage_length(rig->stage, 0), 0);
    rig_done(rig);
}

static void scale(struct rig *rig, enum weft_role role, uint32_t layer, float by)
{
    const struct weft_tensor *t = weft_model_tensor(&rig->m.model, role, layer);
    float *x = synthetic_data(&rig->m, role, layer);
    for (size_t i = 0; i < (size_t)t->rows * t->cols; i++)
        x[i] *= by;
}

START_TEST(overflow_names_layer_and_half)
{
    struct rig rig;
    rig_init(&rig, &small);
    scale(&rig, WEFT_ROLE_ATTN_O, 3, 1e9f);
    expect_overflow(
        &rig, "layer 3, attention: a partial sum is not below 2^21 (values out of range; is the "
              "model damaged?)");
    rig_init(&rig, &small);
    scale(&rig, WEFT_ROLE_FFN_DOWN, 1, 1e12f);
    expect_overflow(&rig, "layer 1, FFN: a partial sum is not below 2^21 (values out of range; is "
                          "the model damaged?)");
    rig_init(&rig, &small);
    scale(&rig, WEFT_ROLE_ATTN_V, 2, 1e6f);
    expect_overflow(
        &rig, "layer 2, attention: a key or value is too large for an f16 cache (kv: f32 holds "
              "more; or is the model damaged?)");
    rig_init(&rig, &small);
    scale(&rig, WEFT_ROLE_ATTN_K, 0, INFINITY);
    rig.o.kv = WK_KV_F32;
    expect_overflow(&rig,
                    "layer 0, attention: a key or value is not finite (values out of range; is the "
                    "model damaged?)");
    /* A NaN in a down matrix that no other check would see. */
    rig_init(&rig, &small);
    ((float *)synthetic_data(&rig.m, WEFT_ROLE_FFN_DOWN, 3))[17] = NAN;
    expect_overflow(&rig, "layer 3, FFN: a partial sum is not below 2^21 (values out of range; is "
                          "the model damaged?)");
}
END_TEST

/* What architectures add has no check of its own: it ends in one of those that there are. */
START_TEST(damaged_vectors_are_found)
{
    static const struct {
        const char *arch;
        enum weft_role role;
    } cases[] = {
        {"qwen3", WEFT_ROLE_ATTN_Q_NORM},     {"qwen3", WEFT_ROLE_ATTN_K_NORM},
        {"olmo2", WEFT_ROLE_ATTN_Q_NORM},     {"qwen2", WEFT_ROLE_ATTN_Q_BIAS},
        {"gemma3", WEFT_ROLE_ATTN_POST_NORM}, {"gemma3", WEFT_ROLE_FFN_POST_NORM},
        {"llama", WEFT_ROLE_ATTN_O_BIAS},     {"llama", WEFT_ROLE_FFN_GATE_BIAS},
        {"llama", WEFT_ROLE_FFN_UP_BIAS},     {"llama", WEFT_ROLE_FFN_DOWN_BIAS},
        {"qwen2moe", WEFT_ROLE_ROUTER},
    };
    static const float values[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (size_t k = 0; k < 3; k++) {
            const bool mixture = strcmp(cases[i].arch, "qwen2moe") == 0;
            const struct synthetic_shape shape = {.n_layers = 2,
                                                  .dim = 64,
                                                  .n_heads = 4,
                                                  .n_kv_heads = 2,
                                                  .head_dim = 16,
                                                  .ffn_dim = 288,
                                                  .vocab = small.vocab,
                                                  .type = WEFT_Q8_0,
                                                  .seed = 3,
                                                  .arch = cases[i].arch,
                                                  .optional = true,
                                                  .n_experts = mixture ? 4 : 0,
                                                  .n_experts_used = mixture ? 2 : 0,
                                                  .expert_ffn = mixture ? 32 : 0};
            struct rig rig;
            weft_err err = {0};
            rig_init(&rig, &shape);
            ((float *)synthetic_data(&rig.m, cases[i].role, 0))[5] = values[k];
            rig_open(&rig);
            int r = run(&rig, (struct weft_segment){.rows = 3}, tokens, &err);
            ck_assert_msg(r == -WEFT_EOVERFLOW, "%s, %s: %d", cases[i].arch,
                          weft_role_name(cases[i].role), r);
            rig_done(&rig);
        }
}
END_TEST

/* Values of 1 everywhere make each of the 8 pieces of o 32 * s: below 2^21, but not their sum 2^23.
 */
START_TEST(overflow_of_a_total)
{
    static const struct {
        float s;
        const char *text;
    } cases[] = {
        {32000, NULL},
        {33000, "layer 0, attention: a sum is not below 2^23 (values out of range; is the model "
                "damaged?)"},
    };
    for (size_t i = 0; i < 2; i++) {
        struct synthetic_shape shape = small;
        shape.n_heads = shape.n_kv_heads = 8;
        shape.head_dim = 32;
        shape.n_layers = 1;
        struct rig rig;
        rig_init(&rig, &shape);
        synthetic_set(&rig.m, WEFT_ROLE_EMBED, 0, 1);
        synthetic_set(&rig.m, WEFT_ROLE_ATTN_V, 0, 1.0f / 64);
        synthetic_set(&rig.m, WEFT_ROLE_ATTN_O, 0, cases[i].s);
        if (cases[i].text != NULL) {
            expect_overflow(&rig, cases[i].text);
            continue;
        }
        rig_open(&rig);
        weft_err err = {0};
        int r = run(&rig, (struct weft_segment){.rows = 3}, tokens, &err);
        ck_assert_msg(r == 0, "%s", err.text);
        rig_done(&rig);
    }
}
END_TEST

/* After a failed step the slot goes on as if it had never been. */
START_TEST(a_failed_step_leaves_no_trace)
{
    struct rig rig;
    uint32_t rows;
    rig_init(&rig, &small);
    rig.o.embed = false;
    rig.o.head = false;
    rig.o.n_layers = 2;
    rig_open(&rig);
    const struct weft_segment first = {.rows = 4}, second = {.position = 4, .rows = 4};
    float expected[4 * 64];
    uint64_t seed = 5;
    for (size_t i = 0; i < (size_t)8 * 64; i++)
        rig.x[i] = (float)weft_test_uniform(&seed) - 0.5f;
    float good[8 * 64];
    memcpy(good, rig.x, sizeof good);
    ck_assert_int_eq(run(&rig, first, NULL, NULL), 0);
    memcpy(rig.x, good + (size_t)4 * 64, sizeof expected);
    ck_assert_int_eq(run(&rig, second, NULL, NULL), 0);
    memcpy(expected, weft_stage_output(rig.stage), sizeof expected);

    weft_stage_trim(rig.stage, 0, 4);
    rig.x[3 * 64] =
        1e30f; /* the last row: its square overflows, its keys are cached before it fails */
    rig.x[3 * 64 + 1] = INFINITY;
    ck_assert_int_eq(run(&rig, second, NULL, NULL), -WEFT_EOVERFLOW);
    ck_assert_uint_eq(weft_stage_length(rig.stage, 0), 4);
    memcpy(rig.x, good + (size_t)4 * 64, sizeof expected);
    ck_assert_int_eq(run(&rig, second, NULL, NULL), 0);
    ck_assert_mem_eq(weft_stage_output(rig.stage), expected, sizeof expected);
    ck_assert_ptr_null(weft_stage_logits(rig.stage, &rows));
    rig_done(&rig);
}
END_TEST

/* ------------------------------------------------------------------ the same bits */

/* Logits of n random tokens in steps of at most `rows`, on one table. */
static float *logits_of(const struct synthetic_shape *shape, const struct wk_table *table,
                        unsigned threads, enum wk_kv_type kv, uint32_t n, uint32_t rows)
{
    struct rig rig;
    rig_init(&rig, shape);
    struct wk_pool *pool = threads > 1 ? wk_pool_open(threads) : NULL;
    rig.o.engine = (struct wk_engine){.table = table, .pool = pool};
    rig.o.context = n;
    rig.o.batch_rows = 256;
    rig.o.kv = kv;
    rig_open(&rig);
    float *ret = malloc((size_t)n * shape->vocab * sizeof *ret);
    int32_t *ids = malloc(n * sizeof *ids);
    ck_assert(ret != NULL && ids != NULL);
    uint64_t seed = 11;
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)(weft_test_random(&seed) % shape->vocab);
    for (uint32_t at = 0, count; at < n; at += count) {
        uint32_t got;
        weft_err err = {0};
        count = n - at < rows ? n - at : rows;
        int r = run(&rig,
                    (struct weft_segment){.position = at, .rows = count, .logits = WEFT_LOGITS_ALL},
                    ids + at, &err);
        ck_assert_msg(r == 0, "%s", err.text);
        const float *logits = weft_stage_logits(rig.stage, &got);
        ck_assert_uint_eq(got, count);
        memcpy(ret + (size_t)at * shape->vocab, logits, (size_t)count * shape->vocab * sizeof *ret);
    }
    free(ids);
    rig_done(&rig);
    wk_pool_close(pool);
    return ret;
}

/* Several KV blocks, odd shapes, every type: prefill in any chunks equals decoding one by one, on
 * every table and with several threads. */
START_TEST(prefill_equals_decoding_across_kv_blocks)
{
    static const struct synthetic_shape shapes[] = {
#define SHAPE(layers, d, heads, kv, head, ffn, v, t, s)                                           \
    .n_layers = (layers), .dim = (d), .n_heads = (heads), .n_kv_heads = (kv), .head_dim = (head), \
    .ffn_dim = (ffn), .vocab = (v), .type = WEFT_##t, .seed = (s)
        {SHAPE(2, 96, 6, 2, 16, 320, 77, F32, 21), .rope_freqs = true},
        /* o: pieces of 4 heads of 40, so one of 3 */
        {SHAPE(2, 64, 3, 1, 40, 288, 50, F16, 22), .tied = true},
        {SHAPE(2, 128, 4, 4, 32, 544, 100, Q8_0, 23)},
        /* o: pieces of 4 heads of 8 */
        {SHAPE(2, 64, 8, 2, 8, 288, 33, Q4_0, 24), .tied = true},
        /* what architectures add: biases, experts, norms behind the halves and of all heads,
           windows */
        {SHAPE(2, 96, 6, 2, 16, 544, 50, Q8_0, 25), .arch = "llama", .optional = true},
        {SHAPE(2, 64, 4, 2, 16, 288, 40, Q4_0, 26), .arch = "qwen2moe", .optional = true,
         .n_experts = 7, .n_experts_used = 3, .expert_ffn = 544},
        /* one expert for all; every expert for each row, in floats and no whole tile wide */
        {SHAPE(2, 64, 4, 2, 16, 0, 33, Q8_0, 29), .n_experts = 1, .n_experts_used = 1,
         .expert_ffn = 32},
        {SHAPE(2, 64, 4, 2, 16, 288, 40, F16, 30), .arch = "qwen2moe", .n_experts = 5,
         .n_experts_used = 5, .expert_ffn = 33},
        {SHAPE(2, 96, 6, 2, 16, 320, 33, Q8_0, 27), .arch = "olmo2"},
        {SHAPE(3, 64, 4, 1, 32, 288, 33, Q4_0, 28), .arch = "gemma3", .window = 70},
#undef SHAPE
    };
    const struct synthetic_shape *shape = &shapes[_i];
    const struct wk_table *tables[8];
    const size_t n_tables = wk_table_list(tables, 8);
    const uint32_t n = 150;
    for (int kv = WK_KV_F32; kv <= WK_KV_Q8_0; kv++) {
        float *expected = logits_of(shape, tables[0], 1, (enum wk_kv_type)kv, n, n);
        for (size_t t = 0; t < n_tables; t++)
            for (unsigned threads = 1; threads <= 2; threads++) {
                static const uint32_t rows[] = {1, 65, 13};
                for (size_t k = 0; k < (t == 0 ? 1 : 3); k++) { /* ref is slow */
                    float *found =
                        logits_of(shape, tables[t], threads, (enum wk_kv_type)kv, n, rows[k]);
                    ck_assert_msg(
                        memcmp(found, expected, (size_t)n * shape->vocab * sizeof *found) == 0,
                        "%s, %u threads, steps of %u, kv %d", wk_table_name(tables[t]), threads,
                        rows[k], kv);
                    free(found);
                }
            }
        free(expected);
    }
}
END_TEST

START_TEST(pieces_of_o_end_on_blocks)
{
    static const struct {
        uint32_t heads, head_dim, piece;
    } cases[] = {
        {8, 64, 64},  {8, 32, 32},  {32, 128, 128}, {8, 16, 32},   {8, 8, 32},
        {4, 80, 160}, {6, 48, 96},  {3, 48, 96},    {2, 16, 32},   {1, 16, 16},
        {3, 8, 24},   {5, 40, 160}, {3, 40, 120},   {1, 256, 256},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct weft_model m = {.n_heads = cases[i].heads, .head_dim = cases[i].head_dim};
        ck_assert_uint_eq(weft_layer_o_piece(&m), cases[i].piece);
    }
}
END_TEST

/* The machine stops at both sums, and what is added to them there reaches the residual: as if two
 * members had each computed the same part. */
START_TEST(a_layer_stops_only_at_its_sums)
{
    struct rig rig;
    rig_init(&rig, &small);
    rig.o.n_layers = 1;
    rig.o.embed = rig.o.head = false;
    rig_open(&rig);
    enum { N = 3, DIM = 64 };
    static float x[N * DIM], normed[N * DIM], q[N * DIM], k[N * 32], v[N * 32], heads[N * DIM];
    static float hidden[N * 288], cosines[N * 8], sines[N * 8];
    static int64_t sum[N * DIM];
    const struct weft_layer_buffers b = {.x = x,
                                         .normed = normed,
                                         .q = q,
                                         .k = k,
                                         .v = v,
                                         .heads = heads,
                                         .hidden = hidden,
                                         .angles = {{cosines, sines}},
                                         .sum = sum};
    struct weft_layer_weights w;
    ck_assert_int_eq(weft_layer_find(rig.store, 0, &w, NULL), 0);
    struct wk_kv kv = {.type = WK_KV_F16, .kv_heads = 2, .head_dim = 16, .capacity = 64};
    kv.data = aligned_alloc(64, wk_kv_bytes(kv.type, 2, 16, 64));
    ck_assert_ptr_nonnull(kv.data);
    const int32_t positions[N] = {0, 1, 2};
    kd_angles(positions, N, 16, 10000, NULL, cosines, sines);
    for (int i = 0; i < N * DIM; i++)
        x[i] = (float)(i % 13) - 6;
    const struct weft_segment g = {.rows = N};
    struct weft_layer l = {.model = &rig.m.model,
                           .arch = weft_arch_find("llama"),
                           .store = rig.store,
                           .engine = &rig.o.engine,
                           .weights = &w,
                           .buffers = &b,
                           .kv = &kv,
                           .segments = &g,
                           .n_segments = 1,
                           .n_rows = N};
    float before[N * DIM];
    ck_assert_int_eq(weft_layer_resume(&l, NULL), WEFT_LAYER_SUM);
    ck_assert_int_eq(l.next, WEFT_LAYER_ATTENTION_SUM);
    for (int i = 0; i < N * DIM; i++)
        before[i] = x[i] + (float)((double)(sum[i] *= 2) * 0x1p-30);
    ck_assert_int_eq(weft_layer_resume(&l, NULL), WEFT_LAYER_SUM);
    ck_assert_int_eq(l.next, WEFT_LAYER_FFN_SUM);
    ck_assert_mem_eq(x, before, sizeof x);
    for (int i = 0; i < N * DIM; i++)
        before[i] = x[i] + (float)((double)(sum[i] *= 2) * 0x1p-30);
    ck_assert_int_eq(weft_layer_resume(&l, NULL), 0);
    ck_assert_mem_eq(x, before, sizeof x);
    free(kv.data);
    rig_done(&rig);
}
END_TEST

/* ------------------------------------------------------------------ memory */

static void check_scratch(const struct synthetic_shape *shape, struct wk_pool *pool,
                          uint32_t batch_rows)
{
    struct weft_model m = synthetic_shape_model(shape);
    for (int gemm = WK_GEMM_WEFT; gemm <= WK_GEMM_OPENBLAS; gemm++)
        for (int kind = 0; kind < 4; kind++) {
            const struct weft_stage_options o = {
                .engine = {.table = wk_table_select(NULL),
                           .pool = pool,
                           .gemm = (enum wk_gemm)gemm},
                .n_layers = kind == 3 ? 0 : shape->n_layers,
                .embed = (kind & 1) != 0,
                .head = (kind & 2) != 0,
                .context = 100,
                .sessions = 1,
                .batch_rows = batch_rows,
            };
            uint64_t found = weft_stage_scratch_bytes(&m, &o),
                     bound = weft_stage_scratch_bound(&m, batch_rows);
            ck_assert_msg(
                found <= bound,
                "%s: dim %u, %u heads of %u, ffn %u, vocab %u, type %u, %u rows: %llu, bound %llu",
                shape->arch, shape->dim, shape->n_heads, shape->head_dim, shape->ffn_dim,
                shape->vocab, shape->type, batch_rows, (unsigned long long)found,
                (unsigned long long)bound);
        }
    weft_model_done(&m);
}

/* With 64 threads, the most a pool has. */
START_TEST(scratch_is_within_the_bound)
{
    static const uint32_t types[] = {WEFT_F32, WEFT_F16, WEFT_Q8_0, WEFT_Q4_0};
    static const char *const archs[] = {"llama", "qwen2moe", "gemma3", "olmo2", "qwen3moe", "phi3"};
    uint64_t seed = weft_test_seed();
    struct wk_pool *pool = wk_pool_open(64);
    ck_assert_ptr_nonnull(pool);
    for (int i = 0; i < 500; i++) {
        const uint32_t kv = 1 + (uint32_t)(weft_test_random(&seed) % 8);
        struct synthetic_shape shape = {
            .n_layers = 1,
            .dim = 32 * (1 + (uint32_t)(weft_test_random(&seed) % 256)),
            .n_kv_heads = kv,
            .n_heads = kv * (1 + (uint32_t)(weft_test_random(&seed) % 8)),
            .head_dim = 32 * (1 + (uint32_t)(weft_test_random(&seed) % 4)),
            .ffn_dim = 32 * (1 + (uint32_t)(weft_test_random(&seed) % 1024)),
            .vocab = 1 + (uint32_t)(weft_test_random(&seed) % 200000),
            .type = types[weft_test_random(&seed) % 4],
            .tied = weft_test_random(&seed) % 2 == 0,
            .arch = archs[i % (sizeof archs / sizeof archs[0])],
            .optional = weft_test_random(&seed) % 2 == 0,
        };
        if (strstr(shape.arch, "moe") != NULL || i % 7 == 0) {
            shape.arch = i % 7 == 0 ? "llama" : shape.arch;
            shape.n_experts = 1 + (uint32_t)(weft_test_random(&seed) % 64);
            shape.n_experts_used = 1 + (uint32_t)(weft_test_random(&seed) % shape.n_experts);
            shape.expert_ffn = 32 * (1 + (uint32_t)(weft_test_random(&seed) % 64));
        }
        check_scratch(&shape, pool, 1 + (uint32_t)(weft_test_random(&seed) % WEFT_BATCH_ROWS_MAX));
    }
    wk_pool_close(pool);
}
END_TEST

/* Of a row with a wide FFN most is what down takes: below 2 bytes a column where down is quantised.
 */
START_TEST(the_bound_knows_quantised_downs)
{
    static const char *const archs[] = {"llama", "qwen3moe", "qwen2moe"};
    enum { FFN = 32768 };
    for (int i = 0; i < 6; i++) {
        const bool experts = i % 3 > 0, quantised = i < 3;
        struct synthetic_shape shape = small;
        shape.arch = archs[i % 3];
        shape.type = quantised ? WEFT_Q8_0 : WEFT_F16;
        shape.ffn_dim = FFN;
        shape.n_experts = shape.n_experts_used = experts;
        shape.expert_ffn = experts ? FFN : 0;
        struct weft_model m = synthetic_shape_model(&shape);
        const uint64_t row = weft_stage_scratch_bound(&m, 2) - weft_stage_scratch_bound(&m, 1);
        ck_assert_msg((row < 3 * FFN) == quantised, "%s: %llu bytes a row", shape.arch,
                      (unsigned long long)row);
        weft_model_done(&m);
    }
}
END_TEST

START_TEST(kv_memory_is_what_the_plan_counts)
{
    struct weft_model m = synthetic_shape_model(&small);
    struct weft_stage_options o = {.n_layers = 3, .context = 65, .sessions = 2, .kv = WK_KV_F16};
    ck_assert_uint_eq(weft_stage_kv_bytes(&m, &o),
                      3 * 2 * 128 * weft_kv_position_bytes(&m, WEFT_KV_F16));
    o.kv = WK_KV_F32;
    o.context = 64;
    ck_assert_uint_eq(weft_stage_kv_bytes(&m, &o),
                      3 * 2 * 64 * weft_kv_position_bytes(&m, WEFT_KV_F32));
    o.kv = WK_KV_Q8_0;
    ck_assert_uint_eq(weft_stage_kv_bytes(&m, &o),
                      3 * 2 * 64 * weft_kv_position_bytes(&m, WEFT_KV_Q8_0));
    o.n_layers = 0;
    ck_assert_uint_eq(weft_stage_kv_bytes(&m, &o), 0);
    weft_model_done(&m);
}
END_TEST

/* A cache for the longest context is larger than any machine of the suite, but takes no memory
 * until it is used. */
START_TEST(a_long_context_takes_no_memory_until_used)
{
    struct rig rig;
    rig_init(&rig, &small);
    rig.o.context = WEFT_CONTEXT_MAX;
    rig_open(&rig);
    ck_assert_uint_ge(weft_stage_kv_bytes(&rig.m.model, &rig.o), 1ull << 33);
    ck_assert_int_eq(run(&rig, (struct weft_segment){.rows = 16}, tokens, NULL), 0);
    weft_stage_trim(rig.stage, 0, 20); /* more than there is, and a slot that is not there */
    weft_stage_trim(rig.stage, 9, 0);
    ck_assert_uint_eq(weft_stage_length(rig.stage, 0), 16);
    weft_stage_trim(rig.stage, 0, 0);
    ck_assert_uint_eq(weft_stage_length(rig.stage, 0), 0);
    ck_assert_int_eq(run(&rig, (struct weft_segment){.rows = 16}, tokens, NULL), 0);
    rig_done(&rig);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("stage");
    TCase *c = tcase_create("stage");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, options_are_checked);
    tcase_add_test(c, missing_tensors_are_named);
    tcase_add_test(c, wrong_steps_are_refused_by_name);
    tcase_add_test(c, a_stage_without_embedding_needs_activations);
    tcase_add_test(c, the_context_can_be_filled_to_its_end);
    tcase_add_test(c, overflow_names_layer_and_half);
    tcase_add_test(c, overflow_of_a_total);
    tcase_add_test(c, damaged_vectors_are_found);
    tcase_add_test(c, a_failed_step_leaves_no_trace);
    tcase_add_loop_test(c, prefill_equals_decoding_across_kv_blocks, 0, 10);
    tcase_add_test(c, pieces_of_o_end_on_blocks);
    tcase_add_test(c, a_layer_stops_only_at_its_sums);
    tcase_add_test(c, scratch_is_within_the_bound);
    tcase_add_test(c, the_bound_knows_quantised_downs);
    tcase_add_test(c, kv_memory_is_what_the_plan_counts);
    tcase_add_test(c, a_long_context_takes_no_memory_until_used);
    suite_add_tcase(s, c);
    return weft_test_main(s);
}
