/*
 * Benchmark: tokens per second through 1, 2 and 3 daemons of one thread each on this machine,
 * beside a private daemon and beside what `weft plan` had predicted.
 *
 *     bench_cluster [-r RUNS]    median of so many runs; 5 without it
 *
 * A prompt of about 128 tokens (what the plan's prefill is about) and 64 tokens of answer at a
 * context of 256, so that the middle of the answer stands where the plan assumes it, at about half
 * of the context. The daemons share the machine: more of them can only make a prompt faster, whose
 * chunks they work on together.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"
#include "tests/measure.h"
#include "tests/procs.h"

#define DAEMONS 3
#define ANSWER 64
#define RUNS_MAX 101

static struct daemon_proc daemons[DAEMONS];
static size_t runs = 5;

struct speeds {
    double prefill, decode; /* tokens per second */
};

struct bench_model {
    const char *name;
    struct gguf_writer_llama shape; /* layers 0: the demo model */
    unsigned layers;
};

static const struct bench_model models[] = {
    {"demo Q8_0", {0}, 6},
    {"137M Q8_0",
     {.layers = 12,
      .dim = 1024,
      .heads = 16,
      .kv_heads = 4,
      .ffn = 2816,
      .context = 256,
      .type = WEFT_Q8_0},
     12},
    {"137M Q4_0",
     {.layers = 12,
      .dim = 1024,
      .heads = 16,
      .kv_heads = 4,
      .ffn = 2816,
      .context = 256,
      .type = WEFT_Q4_0},
     12},
};
#define MODELS (sizeof models / sizeof models[0])

/* ------------------------------------------------------------------ runs */

static const char *prompt(void)
{
    static char text[4 * 120 + 1];
    for (size_t i = 0; i < 120; i++) /* a token each, then the template's */
        memcpy(text + 4 * i, " fox", 4);
    return text;
}

/* The answer of weft run or weft plan as JSON. */
static void json(struct command *c, const char *const argv[])
{
    command_run(c, argv, NULL, NULL);
    ck_assert_msg(c->status == 0, "weft %s: exit %d: %s", argv[0], c->status, c->err);
}

/* Median of the runs; with a cluster file or (NULL) a private daemon. */
static struct speeds measure(const char *cluster, const char *model)
{
    double prefill[RUNS_MAX], decode[RUNS_MAX];
    for (size_t i = 0; i < runs; i++) {
        struct command c;
        /* A sampled answer: a random model's greedy one may stop at once. */
        const char *with[] = {"run", "-f",     cluster, "-c",     "256",   "-n",     "64", "--temp",
                              "1",   "--seed", "7",     "--json", "--raw", prompt(), NULL};
        const char *alone[] = {"run", "-m",     model,   "-t",     "1", "-c",
                               "256", "-n",     "64",    "--temp", "1", "--seed",
                               "7",   "--json", "--raw", prompt(), NULL};
        json(&c, cluster != NULL ? with : alone);
        ck_assert_msg(measure_json(c.out, "answer_tokens") == ANSWER,
                      "the answer is not of %d tokens: %s", ANSWER, c.out);
        prefill[i] = measure_json(c.out, "prompt_tokens_per_second");
        decode[i] = measure_json(c.out, "answer_tokens_per_second");
        command_done(&c);
    }
    return (struct speeds){measure_median(prefill, runs), measure_median(decode, runs)};
}

static struct speeds predict(const char *cluster)
{
    struct command c;
    json(&c, (const char *[]){"plan", "-f", cluster, "-c", "256", "--json", NULL});
    const struct speeds s = {
        measure_json(c.out, "prefill_rows") * 1e9 / measure_json(c.out, "prefill_ns"),
        1e9 / measure_json(c.out, "latency_ns"),
    };
    command_done(&c);
    return s;
}

/* Good until the next call. */
static const char *cluster_of(const char *model, unsigned layers, unsigned n)
{
    static char path[4200];
    char text[256];
    size_t used = (size_t)snprintf(text, sizeof text, "stages:\n");
    for (unsigned i = 0; i < n; i++)
        used +=
            (size_t)snprintf(text + used, sizeof text - used, "  - {device: %s, layers: %u-%u}\n",
                             daemons[i].name, i * layers / n, (i + 1) * layers / n - 1);
    snprintf(path, sizeof path, "%s", cluster_yaml(model, daemons, n, text));
    return path;
}

static void line(const char *model, const char *where, const struct speeds *seen,
                 const struct speeds *said)
{
    printf("%-10s %-10s %9.0f", model, where, seen->prefill);
    if (said != NULL)
        printf(" %9.0f %6.2f", said->prefill, said->prefill / seen->prefill);
    else
        printf(" %9s %6s", "-", "-");
    printf(" %9.1f", seen->decode);
    if (said != NULL)
        printf(" %9.1f %6.2f\n", said->decode, said->decode / seen->decode);
    else
        printf(" %9s %6s\n", "-", "-");
    fflush(stdout);
}

static void bench(const struct bench_model *m)
{
    char *path = m->shape.layers > 0 ? measure_model("bench", &m->shape) : measure_demo();
    struct speeds seen = measure(NULL, path);
    line(m->name, "run -m", &seen, NULL);
    for (unsigned n = 1; n <= DAEMONS; n++) {
        char where[32];
        const char *cluster = cluster_of(path, m->layers, n);
        const struct speeds said = predict(cluster);
        seen = measure(cluster, path);
        snprintf(where, sizeof where, "%u daemon%s", n, n > 1 ? "s" : "");
        line(m->name, where, &seen, &said);
    }
    free(path);
}

static void body(void)
{
    static const char *const names[DAEMONS] = {"a", "b", "c"};
    for (int i = 0; i < DAEMONS; i++)
        daemon_start(&daemons[i], names[i], NULL, NULL);
    printf("tokens/s, median of %zu: measured, as the plan says, said / measured\n", runs);
    printf("%-10s %-10s %9s %9s %6s %9s %9s %6s\n", "model", "", "prefill", "plan", "", "decode",
           "plan", "");
    for (size_t i = 0; i < MODELS; i++)
        bench(&models[i]);
    for (int i = 0; i < DAEMONS; i++)
        ck_assert_int_eq(daemon_stop(&daemons[i]), 0);
}

int main(int argc, char **argv)
{
    char *end = NULL;
    if (argc == 3 && strcmp(argv[1], "-r") == 0)
        runs = strtoul(argv[2], &end, 10);
    if ((argc != 1 && argc != 3) || (argc == 3 && (end == NULL || *end != '\0')) || runs == 0 ||
        runs > RUNS_MAX) {
        fprintf(stderr, "usage: bench_cluster [-r RUNS, at most %d]\n", RUNS_MAX);
        return 2;
    }
    return weft_test_program(body);
}
