/*
 * The real thing: weft and weftd as processes on loopback. Golden logits, golden texts, the same
 * bits for every cut and instruction set, one daemon or three.
 */
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/harness.h"
#include "tests/local_model.h"
#include "tests/procs.h"
#include "tests/stories.h"

#define VOCAB 1024
#define GOLDEN_TOKENS 22
#define GOLDEN_IDS \
    "1,300,5,900,412,77,1000,263,350,640,513,8,299,720,801,266,931,404,270,615,22,345"
#define DEMO "configs/demo/weft-stories-q8_0.gguf"

static struct daemon_proc daemons[3];

/* Three daemons of different instruction sets where the machine has them: bits must not care. */
static void start_daemons(void)
{
    static const char *const names[3] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++)
        daemon_start(&daemons[i], names[i], i == 1 ? "ref" : NULL, NULL);
}

/* A sanitizer's complaint or a leak at the end of a daemon fails the program. */
static void stop_daemons(void)
{
    int bad = 0;
    for (int i = 0; i < 3; i++)
        bad |= daemon_stop(&daemons[i]);
    ck_assert_msg(bad == 0, "a daemon did not end well");
}

static float *read_logits(const char *path, size_t *ret_n)
{
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s is missing", path);
    float *x = malloc(1024 * VOCAB * sizeof *x);
    ck_assert_ptr_nonnull(x);
    *ret_n = fread(x, sizeof *x, (size_t)1024 * VOCAB, f);
    fclose(f);
    return x;
}

/* Runs `weft eval`, on a cluster file or (NULL) a private daemon; gives the logits. */
static float *eval(const char *cluster, const char *model, const char *ids, const char *kv,
                   size_t *ret_n)
{
    struct command c;
    char out[4200];
    snprintf(out, sizeof out, "%s/logits.f32", weft_test_tmpdir());
    unlink(out);
    const char *with_cluster[] = {"eval", "-f",   cluster, "--ids",  ids,    "--logits",
                                  out,    "--kv", kv,      "--gemm", "weft", NULL};
    const char *alone[] = {"eval", "-m", model,    "--ids", ids,  "--logits", out,
                           "--kv", kv,   "--gemm", "weft",  "-t", "1",        NULL};
    command_run(&c, cluster != NULL ? with_cluster : alone, NULL, NULL);
    ck_assert_msg(c.status == 0, "weft eval: exit %d: %s", c.status, c.err);
    command_done(&c);
    return read_logits(out, ret_n);
}

/* ------------------------------------------------------------------ golden logits */

struct golden {
    const char *model, *logits;
    double max_f32, max_f16, rms; /* bounds of golden/README.md; rms 0: not used */
};

static const struct golden goldens[] = {
    {"tests/golden/llama.gguf", "tests/golden/llama.logits.f32", 1e-4, 1e-2, 0},
    {"tests/golden/llama3-rope.gguf", "tests/golden/llama3-rope.logits.f32", 1e-4, 1e-2, 0},
    {"../shared/golden/llama-256.gguf", "../shared/golden/llama-256.logits.f32", 1e-4, 1e-2, 0},
    {"tests/golden/llama-256-q8_0.gguf", "tests/golden/llama-256-q8_0.logits.f32", 0.3, 0.3, 0.03},
    {"tests/golden/llama-256-q4_0.gguf", "tests/golden/llama-256-q4_0.logits.f32", 0.3, 0.3, 0.03},
};
#define GOLDENS ((int)(sizeof goldens / sizeof goldens[0]))

static void compare(const struct golden *g, const float *x, size_t n, double max_bound)
{
    size_t size;
    float *want = (float *)(void *)weft_test_read(g->logits, &size);
    ck_assert_ptr_nonnull(want);
    ck_assert_uint_eq(n, GOLDEN_TOKENS * VOCAB);
    ck_assert_uint_eq(size, n * sizeof *want);
    double max = 0, error = 0, power = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)x[i] - (double)want[i]);
        max = d > max ? d : max;
        error += d * d;
        power += (double)want[i] * (double)want[i];
    }
    ck_assert_msg(max <= max_bound, "%s: max difference %g, bound %g", g->model, max, max_bound);
    if (g->rms > 0)
        ck_assert_msg(sqrt(error / power) <= g->rms, "%s: relative RMS %g", g->model,
                      sqrt(error / power));
    free(want);
}

/* A plan of `layers` layers over the first `count` daemons; with three the first has the embedding
 * alone. */
static void golden_stages(char *text, size_t n, size_t count, int layers)
{
    if (count == 1)
        snprintf(text, n, "stages:\n  - {device: a, layers: 0-%d}\n", layers - 1);
    else
        snprintf(text, n, "stages:\n%s  - {device: a, layers: 0}\n  - {device: %s, layers: 1-%d}\n",
                 count == 3 ? "  - {device: b, layers: none}\n" : "", count == 3 ? "c" : "b",
                 layers - 1);
}

/* One to three daemons, and a private one; every type of KV. */
START_TEST(golden_logits)
{
    const struct golden *g = &goldens[_i];
    char model[4200];
    const char *found = weft_test_path(g->model);
    if (found == NULL) {
        weft_test_skip("%s is not there", g->model);
        return;
    }
    snprintf(model, sizeof model, "%s", found);
    size_t n, n1;
    float *x = eval(NULL, model, GOLDEN_IDS, "f32", &n);
    compare(g, x, n, g->max_f32);
    for (size_t count = 1; count <= 3; count++) {
        char text[256];
        golden_stages(text, sizeof text, count, _i < 2 ? 3 : 2);
        float *y = eval(cluster_yaml(model, daemons, 3, text), NULL, GOLDEN_IDS, "f32", &n1);
        ck_assert_msg(n1 == n && memcmp(x, y, n * sizeof *x) == 0,
                      "%s: other bits through %zu daemons", g->model, count);
        free(y);
    }
    free(x);
    x = eval(NULL, model, GOLDEN_IDS, "f16", &n);
    compare(g, x, n, g->max_f16);
    free(x);
    /* an 8-bit cache: near enough, and the same bits through two daemons */
    const struct golden near = {g->model, g->logits, 0.3, 0.3, 0.03};
    char text[256];
    golden_stages(text, sizeof text, 2, _i < 2 ? 3 : 2);
    x = eval(NULL, model, GOLDEN_IDS, "q8_0", &n);
    compare(&near, x, n, 0.3);
    float *y = eval(cluster_yaml(model, daemons, 3, text), NULL, GOLDEN_IDS, "q8_0", &n1);
    ck_assert_msg(n1 == n && memcmp(x, y, n * sizeof *x) == 0, "%s: other bits with q8_0 through 2",
                  g->model);
    free(y);
    free(x);
}
END_TEST

/* ------------------------------------------------------------------ architectures */

static const char *const architectures[] = {
    "../shared/golden/qwen2",
    "../shared/golden/qwen3",
    "../shared/golden/qwen3moe",
    "../shared/golden/phi3",
    "../shared/golden/mixtral",
    "tests/golden/arch/gemma",
    "tests/golden/arch/gemma2",
    "tests/golden/arch/gemma3",
    "tests/golden/arch/gemma3-linear",
    "tests/golden/arch/granite",
    "tests/golden/arch/llama-bias",
    "tests/golden/arch/llama-linear",
    "tests/golden/arch/llama-longrope",
    "tests/golden/arch/olmo2",
    "tests/golden/arch/olmo2-window",
    "tests/golden/arch/phi3-longrope",
    "tests/golden/arch/phi3-longrope-short",
    "tests/golden/arch/phi3-window",
    "tests/golden/arch/qwen2-yarn",
    "tests/golden/arch/qwen2moe",
    "tests/golden/arch/smollm3",
};
#define ARCHITECTURES ((int)(sizeof architectures / sizeof architectures[0]))

/* The ids of `"prompt": [1, 2]`, as --ids wants them; and the context. */
static void read_prompt(const char *name, char *ids, size_t n, unsigned *ret_context)
{
    char path[256];
    size_t size, k = 0;
    snprintf(path, sizeof path, "%s.json", name);
    char *json = (char *)weft_test_read(path, &size);
    ck_assert_ptr_nonnull(json);
    const char *p = strstr(json, "\"prompt\""), *c = strstr(json, "\"context\":");
    for (p = strchr(p, '[') + 1; *p != ']'; p++)
        if (*p != ' ' && k + 1 < n)
            ids[k++] = *p;
    ids[k] = '\0';
    *ret_context = c != NULL ? (unsigned)strtoul(c + 10, NULL, 10) : 512;
    free(json);
}

/* Every architecture and scaling of positions: within its bound, and the same bits through one, two
 * and three daemons. */
START_TEST(every_architecture)
{
    char path[256], model[4200], ids[512], text[256];
    unsigned context;
    struct weft_model_file file;
    struct weft_model shape;
    snprintf(path, sizeof path, "%s.gguf", architectures[_i]);
    if (local_file_open(path, &file, &shape, NULL) < 0) {
        weft_test_skip("%s is not there", path);
        return;
    }
    const int layers = (int)shape.n_layers;
    weft_model_done(&shape);
    weft_model_file_close(&file);
    snprintf(model, sizeof model, "%s", weft_test_path(path));
    read_prompt(architectures[_i], ids, sizeof ids, &context);
    snprintf(path, sizeof path, "%s.logits.f32", architectures[_i]);
    size_t size, n;
    float *want = (float *)(void *)weft_test_read(path, &size);
    ck_assert_ptr_nonnull(want);
    static const char *const kinds[] = {"f32", "f16"};
    for (int kind = 0; kind < 2; kind++) {
        float *first = NULL;
        for (int count = 1; count <= 3; count++) {
            snprintf(text, sizeof text, "context: %u\n", context);
            golden_stages(text + strlen(text), sizeof text - strlen(text), (size_t)count, layers);
            float *x = eval(cluster_yaml(model, daemons, 3, text), NULL, ids, kinds[kind], &n);
            ck_assert_uint_eq(size, n * sizeof *x);
            for (size_t i = 0; kind == 0 && i < n; i++)
                ck_assert_msg(fabsf(x[i] - want[i]) <= 1e-4f, "%s: logit %zu is %g, expected %g",
                              model, i, (double)x[i], (double)want[i]);
            ck_assert_msg(first == NULL || memcmp(x, first, size) == 0,
                          "%s: other bits through %d daemons, kv %s", model, count, kinds[kind]);
            if (first == NULL)
                first = x;
            else
                free(x);
        }
        free(first);
    }
    free(want);
}
END_TEST

/* ------------------------------------------------------------------ golden texts */

static const char *const story_models[STORY_TYPES] = {
    [STORY_F32] = "../shared/models/weft-stories-f32.gguf",
    [STORY_F16] = "../shared/models/weft-stories-f16.gguf",
    [STORY_Q8_0] = DEMO,
    [STORY_Q4_0] = "../shared/models/weft-stories-q4_0.gguf",
};

/* Every text with 1, 2 or 3 daemons: the number varies with the story, so all are met. */
START_TEST(golden_texts)
{
    static const char *const stages[] = {
        "stages:\n  - {device: a, layers: 0-5}\n",
        "stages:\n  - {device: b, layers: 0-3}\n  - {device: c, layers: 4-5}\n",
        "stages:\n  - {device: a, layers: 0-1}\n  - {device: b, layers: 2-3}\n  - {device: c, "
        "layers: 4-5}\n",
        "stages:\n  - {device: a, layers: 0-1}\n  - {device: b, layers: 2-4}\n  - {device: a, "
        "layers: 5}\n",
    };
    struct story stories[STORIES_MAX];
    char model[4200];
    const char *found = weft_test_path(story_models[_i]);
    if (found == NULL) {
        weft_test_skip("%s is not there", story_models[_i]);
        return;
    }
    snprintf(model, sizeof model, "%s", found);
    size_t n = stories_load(stories);
    ck_assert_uint_gt(n, 0);
    for (size_t i = 0; i < n; i++) {
        if (stories[i].gap[_i] < 0.05)
            continue;
        const char *file = cluster_yaml(model, daemons, 3, stages[i % 4]);
        const char *argv[] = {"run", "-f", file, "--gemm", "weft", stories[i].prompt, NULL};
        struct command c;
        command_run(&c, argv, NULL, NULL);
        ck_assert_msg(c.status == 0, "exit %d: %s", c.status, c.err);
        ck_assert(c.out_size > 0 && c.out[c.out_size - 1] == '\n');
        c.out[c.out_size - 1] = '\0';
        ck_assert_str_eq(c.out, stories[i].text[_i]);
        ck_assert_ptr_nonnull(strstr(c.err, "answer"));
        command_done(&c);
    }
    stories_done(stories, n);
}
END_TEST

/* ------------------------------------------------------------------ every cut, the same bits */

#define CUT_IDS "1,4,300,5,900,412,77,1000,263,350,640,513,8,299,720,801,266,931"

/* Layers cut in two at every place, over daemons of different instruction sets. */
START_TEST(every_cut)
{
    char model[4200], text[256];
    const char *found = weft_test_path(story_models[_i]);
    if (found == NULL) {
        weft_test_skip("%s is not there", story_models[_i]);
        return;
    }
    snprintf(model, sizeof model, "%s", found);
    size_t n, m;
    float *x = eval(NULL, model, CUT_IDS, "f16", &n);
    for (int cut = 0; cut <= 6; cut++) {
        char first[16], second[16];
        snprintf(first, sizeof first, cut == 0 ? "none" : "0-%d", cut - 1);
        snprintf(second, sizeof second, cut == 6 ? "none" : "%d-5", cut);
        snprintf(
            text, sizeof text,
            "batch_rows: %d\nstages:\n  - {device: a, layers: %s}\n  - {device: b, layers: %s}\n",
            cut % 2 == 0 ? 1 : 64, first, second);
        float *y = eval(cluster_yaml(model, daemons, 3, text), NULL, CUT_IDS, "f16", &m);
        ck_assert_msg(n == m && memcmp(x, y, n * sizeof *x) == 0, "%s: cut at %d gives other bits",
                      model, cut);
        free(y);
    }
    free(x);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("e2e");
    TCase *t = tcase_create("cluster");
    tcase_add_unchecked_fixture(t, start_daemons, stop_daemons);
    tcase_set_timeout(t, 900);
    tcase_add_loop_test(t, golden_logits, 0, GOLDENS);
    tcase_add_loop_test(t, every_architecture, 0, ARCHITECTURES);
    tcase_add_loop_test(t, golden_texts, 0, STORY_TYPES);
    tcase_add_loop_test(t, every_cut, 0, STORY_TYPES);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
