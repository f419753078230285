/*
 * Whole models against their golden logits, and against themselves: every cut, thread count, number
 * of rows and instruction set gives the same bits (ARCHITECTURE.md, "One answer").
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"
#include "tests/local_model.h"

#define PROMPT_MAX 64
#define TABLES_MAX 8
#define PATH_SIZE 256

/* Bounds of tests/golden/README.md: a greatest difference, and for 8-bit activations also the RMS
 * of the difference relative to that of the logits. */
struct bound {
    double max, relative_rms;
};
static const struct bound float_f32 = {1e-4, 1}, float_f16 = {1e-2, 1}, quantised = {0.3, 0.03};

/* Of an engine whose GELU looks its result up by 16 bits and rounds it to 16: what that moves. A
 * float64 reference, and that engine without its table, agree with weft to 1e-5 on
 * tests/golden/arch/gemma*. */
static const struct bound half_gelu = {3e-2, 3e-3};

static const struct golden {
    const char *path; /* without extension */
    bool quantised, half_gelu;
} goldens[] = {
    {"tests/golden/llama", false, false},
    {"tests/golden/llama3-rope", false, false},
    {"tests/golden/llama-256-q8_0", true, false},
    {"tests/golden/llama-256-q4_0", true, false},
    {"../shared/golden/llama-256", false, false},
    {"../shared/golden/llama-256-q4_1", true, false},
    {"../shared/golden/llama-256-q5_0", true, false},
    {"../shared/golden/llama-256-q5_1", true, false},
    {"../shared/golden/llama-256-q2_k", true, false},
    {"../shared/golden/llama-256-q3_k_m", true, false},
    {"../shared/golden/llama-256-q4_k_m", true, false},
    {"../shared/golden/llama-256-q5_k_m", true, false},
    {"../shared/golden/llama-256-q6_k", true, false},
    {"../shared/golden/llama-256-iq4_nl", true, false},
    {"../shared/golden/llama-256-iq4_xs", true, false},
    {"../shared/golden/qwen2", false, false},
    {"../shared/golden/qwen3", false, false},
    {"../shared/golden/qwen3moe", false, false},
    {"../shared/golden/phi3", false, false},
    {"../shared/golden/gemma2", false, true},
    {"../shared/golden/mixtral", false, false},
    {"tests/golden/arch/gemma", false, false},
    {"tests/golden/arch/gemma2", false, false},
    {"tests/golden/arch/gemma2-46-layers", false, false},
    {"tests/golden/arch/gemma3", false, false},
    {"tests/golden/arch/gemma3-62-layers", false, false},
    {"tests/golden/arch/gemma3-keys", false, false},
    {"tests/golden/arch/gemma3-linear", false, false},
    {"tests/golden/arch/granite", false, false},
    {"tests/golden/arch/llama-bias", false, false},
    {"tests/golden/arch/llama-head", false, false},
    {"tests/golden/arch/llama-linear", false, false},
    {"tests/golden/arch/llama-longrope", false, false},
    {"tests/golden/arch/llama-yarn", false, false},
    {"tests/golden/arch/olmo2", false, false},
    {"tests/golden/arch/olmo2-window", false, false},
    {"tests/golden/arch/phi3-longrope", false, false},
    {"tests/golden/arch/phi3-longrope-short", false, false},
    {"tests/golden/arch/phi3-window", false, false},
    {"tests/golden/arch/qwen2-yarn", false, false},
    {"tests/golden/arch/qwen2moe", false, false},
    {"tests/golden/arch/qwen3-tied", false, false},
    {"tests/golden/arch/smollm3", false, false},
};
enum { N_GOLDENS = sizeof goldens / sizeof goldens[0] };

struct expected {
    int32_t prompt[PROMPT_MAX], greedy[PROMPT_MAX];
    uint32_t n_prompt, n_greedy;
    uint32_t context; /* that the logits were computed with; 0: it does not matter */
    float *logits;    /* [n_prompt, vocab] */
    size_t n_logits;
};

/* The integers of `"key": [1, 2]`. */
static uint32_t read_ids(const char *json, const char *key, int32_t *ret)
{
    uint32_t n = 0;
    const char *p = strstr(json, key);
    ck_assert_ptr_nonnull(p);
    p = strchr(p, '[');
    while (*p != ']') {
        char *end;
        ck_assert_uint_lt(n, PROMPT_MAX);
        ret[n++] = (int32_t)strtol(p + 1, &end, 10);
        ck_assert_ptr_ne(end, p + 1);
        p = end;
    }
    return n;
}

static char *with_extension(char buf[PATH_SIZE], const struct golden *g, const char *extension)
{
    snprintf(buf, PATH_SIZE, "%s%s", g->path, extension);
    return buf;
}

/* False, and the test is counted as skipped, when the files are not there. */
static bool expected_open(const struct golden *g, struct expected *ret)
{
    char path[PATH_SIZE];
    size_t size = 0;
    char *json = (char *)weft_test_read(with_extension(path, g, ".json"), &size);
    if (json == NULL) {
        weft_test_skip("%s is not there", path);
        return false;
    }
    ret->n_prompt = read_ids(json, "\"prompt\"", ret->prompt);
    ret->n_greedy = read_ids(json, "\"greedy\"", ret->greedy);
    const char *context = strstr(json, "\"context\":");
    ret->context = context != NULL ? (uint32_t)strtoul(context + 10, NULL, 10) : 0;
    free(json);
    ret->logits = (float *)(void *)weft_test_read(with_extension(path, g, ".logits.f32"), &size);
    ck_assert_ptr_nonnull(ret->logits);
    ret->n_logits = size / sizeof(float);
    return true;
}

static void model_open(const struct local_model_options *o, struct local_model *ret)
{
    weft_err err = {0};
    int r = local_model_open(o, ret, &err);
    ck_assert_msg(r == 0, "%s: %s", o->path, err.text);
}

/* Logits of all prompt rows, in steps of at most `rows`; the caller frees. */
static float *prompt_logits(const struct local_model_options *o, const struct expected *x,
                            uint32_t rows)
{
    struct local_model m;
    weft_err err = {0};
    model_open(o, &m);
    float *logits = calloc((size_t)x->n_prompt * m.model.vocab, sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    ck_assert_uint_eq(x->n_logits, (size_t)x->n_prompt * m.model.vocab);
    int r = local_model_feed(&m, x->prompt, x->n_prompt, rows, logits, &err);
    ck_assert_msg(r == 0, "%s: %s", o->path, err.text);
    local_model_close(&m);
    return logits;
}

static void check_bound(const char *what, const float *found, const struct expected *x,
                        const struct bound *bound)
{
    double max = 0, error = 0, power = 0;
    for (size_t i = 0; i < x->n_logits; i++) {
        double d = fabs((double)found[i] - (double)x->logits[i]);
        ck_assert_msg(!isnan(d), "%s: NaN", what);
        max = d > max ? d : max;
        error += d * d;
        power += (double)x->logits[i] * (double)x->logits[i];
    }
    printf("%s: max %.3g, relative RMS %.3g\n", what, max, sqrt(error / power));
    ck_assert_msg(max <= bound->max, "%s: max %g, bound %g", what, max, bound->max);
    ck_assert_msg(sqrt(error / power) <= bound->relative_rms, "%s: relative RMS %g, bound %g", what,
                  sqrt(error / power), bound->relative_rms);
}

static const struct bound *bound_of(const struct golden *g, enum wk_kv_type kv)
{
    return g->quantised || kv == WK_KV_Q8_0 ? &quantised
           : g->half_gelu                   ? &half_gelu
           : kv == WK_KV_F32                ? &float_f32
                                            : &float_f16;
}

static const char *const kv_names[] = {"f32", "f16", "q8_0"}; /* of enum wk_kv_type */

/* Every table of this processor and every type of the cache. */
START_TEST(logits_are_golden)
{
    const struct golden *g = &goldens[_i];
    const struct wk_table *tables[TABLES_MAX];
    size_t n_tables = wk_table_list(tables, TABLES_MAX);
    struct expected x;
    if (!expected_open(g, &x))
        return;
    for (size_t t = 0; t < n_tables; t++)
        for (int kv = WK_KV_F32; kv <= WK_KV_Q8_0; kv++) {
            char path[PATH_SIZE], what[2 * PATH_SIZE];
            struct local_model_options o = {
                .path = with_extension(path, g, ".gguf"),
                .context = x.context,
                .isa = wk_table_name(tables[t]),
                .kv = (enum wk_kv_type)kv,
            };
            snprintf(what, sizeof what, "%s %s kv %s", path, o.isa, kv_names[kv]);
            float *found = prompt_logits(&o, &x, PROMPT_MAX);
            check_bound(what, found, &x, bound_of(g, o.kv));
            free(found);
        }
    free(x.logits);
}
END_TEST

/* Four sessions with the same prompt in one step make rows enough for OpenBLAS. A quantised model
 * does not use it, whatever is asked for: its bits stay. */
START_TEST(openblas_is_within_the_bound)
{
    const struct golden *g = &goldens[_i];
    char path[PATH_SIZE];
    weft_err err = {0};
    struct expected x;
    struct local_model m;
    if (!expected_open(g, &x))
        return;
    struct local_model_options o = {.path = with_extension(path, g, ".gguf"),
                                    .context = x.context,
                                    .isa = "ref", /* always gives way to it */
                                    .gemm = WK_GEMM_OPENBLAS,
                                    .kv = WK_KV_F32,
                                    .threads = 2,
                                    .sessions = 4,
                                    .batch_rows = 4 * PROMPT_MAX};
    struct weft_segment segments[4];
    int32_t tokens[4 * PROMPT_MAX];
    for (uint32_t i = 0; i < 4; i++) {
        segments[i] =
            (struct weft_segment){.slot = i, .rows = x.n_prompt, .logits = WEFT_LOGITS_ALL};
        memcpy(tokens + (size_t)i * x.n_prompt, x.prompt, x.n_prompt * sizeof *tokens);
    }
    model_open(&o, &m);
    ck_assert_msg(local_model_step(&m, segments, 4, tokens, &err) == 0, "%s", err.text);
    uint32_t rows;
    const float *found = local_model_logits(&m, &rows);
    ck_assert_uint_eq(rows, 4 * x.n_prompt);
    o.gemm = WK_GEMM_WEFT;
    float *weft = prompt_logits(&o, &x, PROMPT_MAX);
    for (uint32_t i = 0; i < 4; i++, found += x.n_logits) {
        check_bound(path, found, &x, bound_of(g, o.kv));
        if (g->quantised)
            ck_assert_mem_eq(found, weft, x.n_logits * sizeof *weft);
    }
    free(weft);
    local_model_close(&m);
    free(x.logits);
}
END_TEST

/* The golden answer is fed whatever is found, so that every token is compared; where the two best
 * logits are nearer than twice the bound, the other of them may win. */
START_TEST(greedy_tokens_are_golden)
{
    const struct golden *g = &goldens[_i];
    char path[PATH_SIZE];
    struct local_model_options o = {.path = with_extension(path, g, ".gguf"), .kv = WK_KV_F32};
    struct expected x;
    struct local_model m;
    weft_err err = {0};
    if (!expected_open(g, &x))
        return;
    o.context = x.context;
    model_open(&o, &m);
    ck_assert_int_eq(local_model_feed(&m, x.prompt, x.n_prompt, 5, NULL, &err), 0);
    uint32_t same = 0;
    for (uint32_t i = 0; i < x.n_greedy; i++) {
        uint32_t rows;
        const float *logits = local_model_logits(&m, &rows);
        int32_t best = local_argmax(logits, m.model.vocab);
        double gap = (double)logits[best] - (double)logits[x.greedy[i]];
        ck_assert_uint_eq(rows, 1);
        ck_assert_msg(gap <= 2 * bound_of(g, o.kv)->max, "%s: token %u is %d, expected %d, gap %g",
                      path, i, best, x.greedy[i], gap);
        same += best == x.greedy[i];
        ck_assert_int_eq(local_model_feed(&m, &x.greedy[i], 1, 1, NULL, &err), 0);
    }
    ck_assert_uint_ge(same, x.n_greedy - 2);
    local_model_close(&m);
    free(x.logits);
}
END_TEST

/* ------------------------------------------------------------------ the same bits */

/* Compares a variant with the bits of `expected`. */
static void check_bits(const struct local_model_options *o, const struct expected *x, uint32_t rows,
                       const float *expected)
{
    float *found = prompt_logits(o, x, rows);
    if (memcmp(found, expected, x->n_logits * sizeof *found) != 0) {
        size_t i = 0;
        while (memcmp(&found[i], &expected[i], sizeof *found) == 0)
            i++;
        ck_abort_msg(
            "%s %s, %u threads, steps of %u, %zu cuts (%u, %u): logit %zu is %a, expected %a",
            o->path, o->isa, o->threads, rows, o->n_cuts, o->cuts[0], o->cuts[1], i,
            (double)found[i], (double)expected[i]);
    }
    free(found);
}

/* Every cut [0, k) + [k, L) and every two of them. */
static void check_cuts(struct local_model_options o, const struct expected *x, uint32_t n_layers,
                       const float *expected)
{
    static const uint32_t rows[] = {PROMPT_MAX, 1, 5};
    const bool slow = strcmp(o.isa, "ref") == 0; /* one cut at a time is enough for it */
    const uint32_t stride = 1 + n_layers / 8;    /* of many layers not every place */
    uint32_t count = 0;
    for (uint32_t a = 0; a <= n_layers; a += stride) {
        o.cuts[0] = a;
        o.n_cuts = 1;
        check_bits(&o, x, rows[count++ % 3], expected);
        for (uint32_t b = a; b <= n_layers && !slow; b += stride) {
            o.cuts[1] = b;
            o.n_cuts = 2;
            check_bits(&o, x, rows[count++ % 3], expected);
        }
    }
}

START_TEST(cuts_threads_rows_and_tables_give_the_same_bits)
{
    const struct golden *g = &goldens[_i];
    const struct wk_table *tables[TABLES_MAX];
    size_t n_tables = wk_table_list(tables, TABLES_MAX);
    char path[PATH_SIZE];
    struct expected x;
    struct weft_model_file file;
    struct weft_model model;
    if (!expected_open(g, &x))
        return;
    struct local_model_options o = {.path = with_extension(path, g, ".gguf"),
                                    .context = x.context,
                                    .isa = "ref",
                                    .gemm = WK_GEMM_WEFT,
                                    .kv = WK_KV_F16};
    ck_assert_int_eq(local_file_open(o.path, &file, &model, NULL), 0);
    float *expected = prompt_logits(&o, &x, PROMPT_MAX);
    for (size_t t = 0; t < n_tables; t++)
        for (unsigned threads = 1; threads <= 2; threads++) {
            o.isa = wk_table_name(tables[t]);
            o.threads = threads;
            check_bits(&o, &x, 1, expected);
            check_bits(&o, &x, 7, expected);
            check_cuts(o, &x, model.n_layers, expected);
        }
    free(expected);
    free(x.logits);
    weft_model_done(&model);
    weft_model_file_close(&file);
}
END_TEST

/* Rows of several sessions, at different positions, in one step. */
START_TEST(sessions_of_one_step_do_not_see_each_other)
{
    const struct golden *g = &goldens[_i];
    char path[PATH_SIZE];
    struct expected x;
    weft_err err = {0};
    if (!expected_open(g, &x))
        return;
    struct local_model_options o = {.path = with_extension(path, g, ".gguf"),
                                    .context = x.context,
                                    .kv = WK_KV_F16,
                                    .sessions = 3,
                                    .cuts = {1},
                                    .n_cuts = 1};
    float *expected = prompt_logits(&o, &x, PROMPT_MAX);
    struct local_model m;
    model_open(&o, &m);
    const size_t vocab = m.model.vocab;
    /* Session 2 runs ahead; then it decodes beside the prompts of 0 and 1. */
    const struct weft_segment ahead = {.slot = 2, .rows = 6, .logits = WEFT_LOGITS_LAST};
    ck_assert_int_eq(local_model_step(&m, &ahead, 1, x.prompt, &err), 0);
    const struct weft_segment segments[] = {
        {.slot = 1, .rows = 9, .logits = WEFT_LOGITS_LAST},
        {.slot = 2, .position = 6, .rows = 1, .logits = WEFT_LOGITS_ALL},
        {.slot = 0, .rows = 4, .logits = WEFT_LOGITS_NONE},
    };
    int32_t tokens[14];
    memcpy(tokens, x.prompt, 9 * sizeof *tokens);
    tokens[9] = x.prompt[6];
    memcpy(tokens + 10, x.prompt, 4 * sizeof *tokens);
    ck_assert_msg(local_model_step(&m, segments, 3, tokens, &err) == 0, "%s", err.text);
    uint32_t rows;
    const float *logits = local_model_logits(&m, &rows);
    ck_assert_uint_eq(rows, 2);
    ck_assert_mem_eq(logits, expected + 8 * vocab, vocab * sizeof(float));
    ck_assert_mem_eq(logits + vocab, expected + 6 * vocab, vocab * sizeof(float));
    const struct weft_segment next = {
        .slot = 0, .position = 4, .rows = 3, .logits = WEFT_LOGITS_ALL};
    ck_assert_int_eq(local_model_step(&m, &next, 1, x.prompt + 4, &err), 0);
    logits = local_model_logits(&m, &rows);
    ck_assert_uint_eq(rows, 3);
    ck_assert_mem_eq(logits, expected + 4 * vocab, 3 * vocab * sizeof(float));
    local_model_close(&m);
    free(expected);
    free(x.logits);
}
END_TEST

/* Decoding one by one after a cut gives what the prefill gave. */
START_TEST(replay_gives_the_same_bits)
{
    const struct golden *g = &goldens[_i];
    char path[PATH_SIZE];
    struct expected x;
    weft_err err = {0};
    if (!expected_open(g, &x))
        return;
    struct local_model_options o = {
        .path = with_extension(path, g, ".gguf"), .context = x.context, .kv = WK_KV_F16};
    float *expected = prompt_logits(&o, &x, PROMPT_MAX);
    struct local_model m;
    model_open(&o, &m);
    float *found = calloc(x.n_logits, sizeof *found);
    ck_assert_ptr_nonnull(found);
    for (uint32_t cut = 0; cut < x.n_prompt; cut += 7) {
        const uint32_t n = x.n_prompt - cut;
        int32_t wrong[PROMPT_MAX]; /* positions that are cut again */
        for (uint32_t i = 0; i < n; i++)
            wrong[i] = x.prompt[x.n_prompt - 1 - i];
        local_model_trim(&m, 0, cut);
        ck_assert_int_eq(local_model_feed(&m, wrong, n, 4, NULL, &err), 0);
        local_model_trim(&m, 0, cut);
        ck_assert_int_eq(local_model_feed(&m, x.prompt + cut, n, 1, found, &err), 0);
        ck_assert_mem_eq(found, expected + (size_t)cut * m.model.vocab,
                         (size_t)n * m.model.vocab * sizeof *found);
    }
    free(found);
    local_model_close(&m);
    free(expected);
    free(x.logits);
}
END_TEST

/* ------------------------------------------------------------------ golden bits */

/* FNV-1a, 64 bits, over the bytes of the logits. */
static uint64_t hash(const float *x, size_t n)
{
    uint64_t h = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        for (int shift = 0; shift < 32; shift += 8)
            h = (h ^ (u >> shift & 0xff)) * 0x100000001b3ull;
    }
    return h;
}

static enum wk_kv_type kv_named(const char *name)
{
    int kv = WK_KV_F32;
    while (kv < WK_KV_Q8_0 && strcmp(kv_names[kv], name) != 0)
        kv++;
    ck_assert_str_eq(kv_names[kv], name);
    return (enum wk_kv_type)kv;
}

/* Every machine that ever runs this test computes the hashes of bits.txt: the one proof that does
 * not compare a machine with itself. */
START_TEST(bits_are_golden)
{
    const struct wk_table *tables[TABLES_MAX];
    size_t n_tables = wk_table_list(tables, TABLES_MAX), size = 0;
    char *text = (char *)weft_test_read("tests/golden/bits.txt", &size), name[64], kv[8];
    ck_assert_ptr_nonnull(text);
    unsigned long long bits;
    int lines = 0, used;
    for (const char *p = text; sscanf(p, "%63s %7s %llx%n", name, kv, &bits, &used) == 3;
         p += used) {
        char path[128];
        snprintf(path, sizeof path, "tests/golden/%s", name);
        struct golden g = {.path = path};
        struct expected x;
        char file[PATH_SIZE];
        ck_assert(expected_open(&g, &x));
        for (size_t t = 0; t < n_tables; t++) {
            struct local_model_options o = {.path = with_extension(file, &g, ".gguf"),
                                            .context = x.context,
                                            .isa = wk_table_name(tables[t]),
                                            .kv = kv_named(kv)};
            float *found = prompt_logits(&o, &x, PROMPT_MAX);
            uint64_t h = hash(found, x.n_logits);
            ck_assert_msg(h == bits, "%s kv %s on %s: %016llx, expected %016llx", name, kv, o.isa,
                          (unsigned long long)h, bits);
            free(found);
        }
        free(x.logits);
        lines++;
    }
    free(text);
    ck_assert_int_eq(lines, 22);
}
END_TEST

/* An emulator (WEFT_QEMU, scripts/test) is slow: there the first ones do, and the bits of all. */
static int n_loops(void)
{
    const char *emulator = getenv("WEFT_QEMU");
    return emulator != NULL && emulator[0] != '\0' ? 4 : N_GOLDENS;
}

int main(void)
{
    Suite *s = suite_create("golden");
    TCase *c = tcase_create("golden");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, logits_are_golden, 0, n_loops());
    tcase_add_loop_test(c, openblas_is_within_the_bound, 0, n_loops());
    tcase_add_loop_test(c, greedy_tokens_are_golden, 0, n_loops());
    tcase_add_loop_test(c, cuts_threads_rows_and_tables_give_the_same_bits, 0, n_loops());
    tcase_add_loop_test(c, sessions_of_one_step_do_not_see_each_other, 0, n_loops());
    tcase_add_loop_test(c, replay_gives_the_same_bits, 0, n_loops());
    suite_add_tcase(s, c);
    TCase *bits = tcase_create("bits");
    tcase_set_timeout(bits, 600);
    tcase_add_test(bits, bits_are_golden);
    suite_add_tcase(s, bits);
    return weft_test_main(s);
}
