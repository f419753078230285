/*
 * Benchmark: what three daemons take from their machine while nobody asks anything of them.
 *
 *     bench_daemon [-s SECONDS]    for each state; 10 without it
 *
 * Processor time, as % of one core, of all threads of a daemon: fresh; after an answer, with the
 * shards still loaded; held by a `weft chat` that waits for its user, with the ring connected. Then
 * memory while held: what is not file pages, beside what the daemon says it takes (packed shards,
 * KV of the whole context, scratch), for the demo model and a larger one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/harness.h"
#include "tests/measure.h"
#include "tests/procs.h"

#define DAEMONS 3
#define CONTEXT "128" /* little KV that is reserved and not yet touched */
#define SECONDS_MAX 3600
#define SETTLE_NS UINT64_C(1000000000) /* what starting and answering leave behind has ended */

static struct daemon_proc daemons[DAEMONS];
static unsigned seconds = 10;

/* 137 million weights. */
static const struct gguf_writer_llama large = {
    .layers = 12,
    .dim = 1024,
    .heads = 16,
    .kv_heads = 4,
    .ffn = 2816,
    .context = 1024,
    .type = WEFT_Q8_0,
};

/* ------------------------------------------------------------------ processor time */

static void idle(const char *state)
{
    uint64_t before[DAEMONS];
    measure_sleep_ns(SETTLE_NS);
    const uint64_t start = measure_clock_ns();
    for (int i = 0; i < DAEMONS; i++)
        before[i] = measure_cpu_ns(daemons[i].pid);
    measure_sleep_ns(seconds * UINT64_C(1000000000));
    printf("%-8s", state);
    for (int i = 0; i < DAEMONS; i++) {
        const uint64_t ns = measure_cpu_ns(daemons[i].pid) - before[i];
        printf(" %10.4f", 100 * (double)ns / (double)(measure_clock_ns() - start));
    }
    printf("\n");
    fflush(stdout);
}

/* ------------------------------------------------------------------ states */

struct chat {
    pid_t pid;
    int in, out;
    char err[4200];
};

/* A chat that got its first answer and waits for the next line. */
static void chat_start(struct chat *c, const char *cluster)
{
    static const char line[] = "Tell me a story about a fox and a lantern.\n";
    c->pid = command_start((const char *[]){"chat", "-f", cluster, "-c", CONTEXT, "-n", "32", NULL},
                           &c->in, &c->out, c->err);
    ck_assert_int_eq(write(c->in, line, sizeof line - 1), sizeof line - 1);
    command_said(c->pid, c->err, "/token");
}

static void chat_end(struct chat *c)
{
    close(c->in);
    ck_assert_int_eq(command_wait(c->pid, 20000), 0);
    close(c->out);
}

/* Good until the next call. */
static const char *cluster_of(const char *model, unsigned layers)
{
    static char path[4200];
    char text[256];
    const unsigned a = layers / 3, b = 2 * layers / 3;
    snprintf(text, sizeof text,
             "stages:\n  - {device: a, layers: 0-%u}\n  - {device: b, layers: %u-%u}\n"
             "  - {device: c, layers: %u-%u}\n",
             a - 1, a, b - 1, b, layers - 1);
    snprintf(path, sizeof path, "%s", cluster_yaml(model, daemons, DAEMONS, text));
    return path;
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static void memory(const char *model)
{
    for (int i = 0; i < DAEMONS; i++) {
        struct measure_memory m;
        const uint64_t said = measure_log(daemons[i].log, "memory_bytes");
        measure_memory(daemons[i].pid, &m);
        printf("%-8s %-2s %10.1f %10.1f %10.1f %10.1f\n", model, daemons[i].name, mib(m.rss_bytes),
               mib(m.own_bytes), mib(said), mib(m.own_bytes) - mib(said));
    }
    fflush(stdout);
}

static void body(void)
{
    static const char *const names[DAEMONS] = {"a", "b", "c"};
    char *demo = measure_demo();
    struct chat chat;
    struct command c;
    for (int i = 0; i < DAEMONS; i++)
        daemon_start(&daemons[i], names[i], NULL, NULL);
    const char *cluster = cluster_of(demo, 6);

    printf("idle for %u s, %% of one core\n%-8s %10s %10s %10s\n", seconds, "", "a", "b", "c");
    idle("fresh");
    command_run(&c, (const char *[]){"run", "-f", cluster, "-n", "32", "A fox.", NULL}, NULL, NULL);
    ck_assert_msg(c.status == 0, "exit %d: %s", c.status, c.err);
    command_done(&c);
    idle("loaded");
    chat_start(&chat, cluster);
    idle("held");

    printf("\nmemory while held, MiB\n%-8s %-2s %10s %10s %10s %10s\n", "model", "", "VmRSS",
           "not files", "says", "excess");
    memory("demo");
    chat_end(&chat);
    char *model = measure_model("large", &large);
    chat_start(&chat, cluster_of(model, large.layers));
    memory("137M");
    chat_end(&chat);
    free(model);
    free(demo);
    for (int i = 0; i < DAEMONS; i++)
        ck_assert_int_eq(daemon_stop(&daemons[i]), 0);
}

int main(int argc, char **argv)
{
    char *end = NULL;
    if (argc == 3 && strcmp(argv[1], "-s") == 0)
        seconds = (unsigned)strtoul(argv[2], &end, 10);
    if ((argc != 1 && argc != 3) || (argc == 3 && (end == NULL || *end != '\0')) || seconds == 0 ||
        seconds > SECONDS_MAX) {
        fprintf(stderr, "usage: bench_daemon [-s SECONDS, at most %d]\n", SECONDS_MAX);
        return 2;
    }
    return weft_test_program(body);
}
