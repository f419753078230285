/*
 * What a daemon takes from its machine, as the kernel counts it: while it loads, answers and is
 * held, no more than it says (shards, KV, scratch) and a fixed margin; KV is given back when the
 * coordinator leaves.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/harness.h"
#include "tests/measure.h"
#include "tests/procs.h"

#define MIB ((uint64_t)1 << 20)
#define MARGIN (64 * MIB) /* code's data, stacks, frames under way, the allocator's reserve */
#define WORDS 900         /* of the prompt: nearly as many tokens, and a context of 1024 */
#define GIVEN_BACK_NS UINT64_C(10000000000)

/* 87 MiB of weights and, in F32, 64 MiB of KV, so that its fate shows. */
static const struct gguf_writer_llama shape = {
    .layers = 8,
    .dim = 1024,
    .heads = 16,
    .kv_heads = 16,
    .ffn = 2048,
    .context = 1024,
    .type = WEFT_Q8_0,
};

static bool sanitized(void)
{
    const char *build = getenv("WEFT_BUILD_DIR");
    size_t n = build != NULL ? strlen(build) : 0;
    return n >= 4 && (strcmp(build + n - 4, "asan") == 0 || strcmp(build + n - 4, "tsan") == 0);
}

/* Probed daemons, so that the probe's matrix is not in the peaks. */
static double plan_kv_bytes(const char *cluster)
{
    struct command c;
    command_run(&c, (const char *[]){"plan", "-f", cluster, "--json", NULL}, NULL, NULL);
    ck_assert_msg(c.status == 0, "exit %d: %s", c.status, c.err);
    double bytes = measure_json(c.out, "kv_bytes"); /* of the first stage, half of the layers */
    command_done(&c);
    return bytes;
}

static void say_words(int fd)
{
    char text[WORDS * 4 + 1];
    for (size_t i = 0; i < WORDS; i++)
        memcpy(text + 4 * i, " fox", 4);
    text[sizeof text - 1] = '\n';
    ck_assert_int_eq(write(fd, text, sizeof text), sizeof text);
}

static void check_held(const struct daemon_proc *d, uint64_t file_before)
{
    struct measure_memory m;
    const uint64_t said = measure_log(d->log, "memory_bytes");
    measure_memory(d->pid, &m);
    ck_assert_msg(said > 70 * MIB, "%s says it holds %llu bytes", d->name,
                  (unsigned long long)said);
    ck_assert_msg(m.own_bytes > said * 9 / 10,
                  "%s: %llu bytes of its own, it says %llu: a figure is wrong", d->name,
                  (unsigned long long)m.own_bytes, (unsigned long long)said);
    ck_assert_msg(m.own_bytes < said + MARGIN, "%s: %llu bytes of its own, it says %llu", d->name,
                  (unsigned long long)m.own_bytes, (unsigned long long)said);
    /* File pages only come while memory is not short: those of before were there at the peak. */
    ck_assert_msg(m.peak_bytes - file_before < said + MARGIN,
                  "%s: a peak of %llu bytes, %llu of files; it says %llu", d->name,
                  (unsigned long long)m.peak_bytes, (unsigned long long)file_before,
                  (unsigned long long)said);
}

static void check_given_back(const struct daemon_proc *d, uint64_t held, uint64_t kv)
{
    const uint64_t end = measure_clock_ns() + GIVEN_BACK_NS;
    struct measure_memory m;
    do {
        measure_memory(d->pid, &m);
        measure_sleep_ns(1000000);
    } while (m.own_bytes + kv * 3 / 4 > held && measure_clock_ns() < end);
    ck_assert_msg(m.own_bytes + kv * 3 / 4 <= held,
                  "%s: %llu bytes of its own, %llu while held with a KV cache of %llu", d->name,
                  (unsigned long long)m.own_bytes, (unsigned long long)held,
                  (unsigned long long)kv);
    ck_assert_msg(m.own_bytes > held / 4, "%s: %llu bytes of its own: the shards are gone", d->name,
                  (unsigned long long)m.own_bytes);
}

START_TEST(bounds)
{
    struct daemon_proc d[2];
    struct measure_memory fresh[2], held[2];
    char err[4200], cluster[4300];
    int in, out;
    if (sanitized()) {
        weft_test_skip("a sanitizer's memory is not the daemon's");
        return;
    }
    char *model = measure_model("memory", &shape);
    daemon_start(&d[0], "a", NULL, NULL);
    daemon_start(&d[1], "b", NULL, NULL);
    snprintf(cluster, sizeof cluster, "%s",
             cluster_yaml(model, d, 2,
                          "kv: f32\nstages:\n  - {device: a, layers: 0-3}\n"
                          "  - {device: b, layers: 4-7}\n"));
    const uint64_t kv = (uint64_t)plan_kv_bytes(cluster);
    ck_assert_uint_eq(kv, 4 * 1024 * 2 * 1024 * sizeof(float)); /* layers, context, K and V, cols */
    for (int i = 0; i < 2; i++) {
        measure_memory_forget(d[i].pid);
        measure_memory(d[i].pid, &fresh[i]);
        ck_assert_msg(fresh[i].own_bytes < MARGIN, "%s: %llu bytes of its own without a model",
                      d[i].name, (unsigned long long)fresh[i].own_bytes);
    }
    pid_t pid = command_start((const char *[]){"chat", "-f", cluster, "--raw", "-n", "4", NULL},
                              &in, &out, err);
    say_words(in);
    command_said(pid, err, "ms/token");
    for (int i = 0; i < 2; i++) {
        check_held(&d[i], fresh[i].file_bytes);
        measure_memory(d[i].pid, &held[i]);
    }
    close(in); /* the end of its input ends the chat */
    ck_assert_int_eq(command_wait(pid, 20000), 0);
    close(out);
    for (int i = 0; i < 2; i++)
        check_given_back(&d[i], held[i].own_bytes, kv);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(daemon_stop(&d[i]), 0);
    free(model);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("memory");
    TCase *t = tcase_create("daemons");
    tcase_set_timeout(t, 300);
    tcase_add_test(t, bounds);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
