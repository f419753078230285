/*
 * Tests of weft bench: its three formats from made-up figures, then the command itself with private
 * daemons and with a cluster of two. What is measured is looked at, how fast it was never.
 */
#include "base/yaml.h"
#include "coordinator/bench_report.h"
#include "tests/damaged_model.h"
#include "tests/harness.h"
#include "tests/procs.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define LINE_WIDTH 100

static char model[4200];

/* ---- figures ---- */

START_TEST(names)
{
    char buf[WEFT_BENCH_NAME_SIZE];
    ck_assert_str_eq(weft_bench_name(buf, &(struct weft_bench_test){.prompt_tokens = 128}),
                     "pp128");
    ck_assert_str_eq(weft_bench_name(buf, &(struct weft_bench_test){.answer_tokens = 32}), "tg32");
    /* the longest there is room for */
    ck_assert_str_eq(weft_bench_name(buf, &(struct weft_bench_test){.answer_tokens = UINT32_MAX}),
                     "tg4294967295");
}
END_TEST

START_TEST(mean_and_deviation)
{
    double mean, stddev;
    /* 100 tokens in 1, 0.5 and 0.25 s: 100, 200 and 400 tokens/s */
    const uint64_t ns[] = {1000000000, 500000000, 250000000};
    struct weft_bench_result r = {.test = {.prompt_tokens = 100}, .sample_ns = ns, .n_samples = 3};
    weft_bench_speed(&r, &mean, &stddev);
    ck_assert_double_eq_tol(mean, 700.0 / 3, 1e-9);
    ck_assert_double_eq_tol(stddev, sqrt(70000.0 / 3),
                            1e-9); /* squares 17777.8, 1111.1, 27777.8 / 2 */
    r.n_samples = 1;
    weft_bench_speed(&r, &mean, &stddev);
    ck_assert(mean == 100 && stddev == 0);
    r.n_samples = 0;
    weft_bench_speed(&r, &mean, &stddev);
    ck_assert(mean == 0 && stddev == 0);
}
END_TEST

/* ---- formats ---- */

static const struct weft_bench_device devices[] = {
    {.name = "pi-a", .isa = "neon", .cpu = "Cortex-A76", .threads = 4},
    {.name = "pc", .isa = "avx2", .cpu = "a \"cpu\"", .threads = 2},
    {.name = "pi-b", .isa = "neon", .cpu = "Cortex-A76", .threads = 4},
};
static const struct weft_bench_setup setup = {
    .model = "tiny | \"llama\"",
    .file = "a,b.gguf",
    .type = "Q4_0",
    .kv = "f16",
    .gemm = "weft",
    .plan = "pi-a 0-2, pc 3, pi-b head",
    .model_bytes = 638 << 20,
    .parameters = 1100048384,
    .context = 4096,
    .batch_rows = 64,
    .devices = devices,
    .n_devices = 3,
};
static const uint64_t samples[] = {1000000000, 500000000};
static const struct weft_bench_result results[] = {
    {.test = {.prompt_tokens = 128}, .sample_ns = samples, .n_samples = 2},
    {.test = {.answer_tokens = 32}, .sample_ns = samples, .n_samples = 1},
};

static void report(enum weft_bench_format f, struct weft_str *out)
{
    weft_bench_begin(f, &setup, out);
    for (size_t i = 0; i < 2; i++)
        weft_bench_add(f, &setup, &results[i], i == 0, out);
    weft_bench_end(f, &setup, out);
    ck_assert(!out->failed);
}

START_TEST(markdown)
{
    struct weft_str out = {0};
    report(WEFT_BENCH_MD, &out);
    char expected[2048];
    snprintf(
        expected, sizeof expected,
        "| model                  | type   |     size |   params | threads |    test |            "
        "tokens/s |\n"
        "| ---------------------- | ------ | -------: | -------: | ------: | ------: | "
        "------------------: |\n"
        "| tiny / \"llama\"         | Q4_0   |  638 MiB |   1.10 B |      10 |   pp128 |      "
        "192.00 ± 90.51 |\n"
        "| tiny / \"llama\"         | Q4_0   |  638 MiB |   1.10 B |      10 |    tg32 |        "
        "32.00 ± 0.00 |\n"
        "\n"
        "weft %s, isa neon+avx2, kv f16, gemm weft, context 4096, steps of 64 rows\n"
        "plan pi-a 0-2, pc 3, pi-b head\n",
        WEFT_VERSION);
    ck_assert_str_eq(out.data, expected);
    weft_str_done(&out);
}
END_TEST

/* A long name is cut between characters, so that the table keeps its width. */
START_TEST(markdown_width)
{
    char name[128];
    for (size_t odd = 0; odd < 2; odd++) {
        struct weft_bench_setup s = setup;
        struct weft_str out = {0};
        size_t n = 0;
        if (odd)
            name[n++] = 'x';
        while (n + 2 < sizeof name) {
            memcpy(name + n, "é", 2);
            n += 2;
        }
        name[n] = '\0';
        s.model = name;
        weft_bench_begin(WEFT_BENCH_MD, &s, &out);
        weft_bench_add(WEFT_BENCH_MD, &s, &results[0], true, &out);
        ck_assert(weft_utf8_valid(out.data, out.size, NULL));
        ck_assert_ptr_nonnull(strstr(out.data, "é… |"));
        size_t width = 0;
        for (char *line = strtok(out.data, "\n"); line != NULL; line = strtok(NULL, "\n")) {
            ck_assert_uint_le(weft_text_columns(line), LINE_WIDTH);
            ck_assert(width == 0 || width == weft_text_columns(line));
            width = weft_text_columns(line);
        }
        weft_str_done(&out);
    }
}
END_TEST

START_TEST(csv)
{
    struct weft_str out = {0};
    report(WEFT_BENCH_CSV, &out);
    ck_assert_str_eq(
        out.data,
        "test,threads,tokens_per_second,stddev,repetitions,prompt_tokens,generated_tokens,model,"
        "file,type,model_bytes,parameters,kv,gemm,context_positions,batch_rows,isa,plan,version\n"
        "\"pp128\",10,192.0000,90.5097,2,128,0,\"tiny | \"\"llama\"\"\",\"a,b.gguf\",\"Q4_0\","
        "668991488,1100048384,\"f16\",\"weft\",4096,64,\"neon+avx2\",\"pi-a 0-2, pc 3, pi-b head\","
        "\"" WEFT_VERSION "\"\n"
        "\"tg32\",10,32.0000,0.0000,1,0,32,\"tiny | \"\"llama\"\"\",\"a,b.gguf\",\"Q4_0\","
        "668991488,1100048384,\"f16\",\"weft\",4096,64,\"neon+avx2\",\"pi-a 0-2, pc 3, pi-b head\","
        "\"" WEFT_VERSION "\"\n");
    weft_str_done(&out);
}
END_TEST

/* JSON is YAML. */
static struct weft_yaml_doc *parse(const char *text, size_t size)
{
    struct weft_yaml_doc *doc = NULL;
    weft_err err = {0};
    ck_assert_int_eq(weft_yaml_open("json", text, size, &doc, &err), 0);
    ck_assert_msg(weft_yaml_error_count(doc) == 0, "%s", text);
    return doc;
}

/* NULL when there is nothing. */
static const char *value_at(const struct weft_yaml_doc *doc, const char *path)
{
    return weft_yaml_scalar(weft_yaml_find(doc, path));
}

static void expect_value(const struct weft_yaml_doc *doc, const char *path, const char *expected)
{
    const char *value = value_at(doc, path);
    ck_assert_msg(value != NULL && strcmp(value, expected) == 0, "%s: found '%s', expected '%s'",
                  path, value != NULL ? value : "nothing", expected);
}

START_TEST(json)
{
    static const char *const expected[][2] = {
        {"[0].test", "pp128"},
        {"[0].threads", "10"},
        {"[0].tokens_per_second", "192.0000"},
        {"[0].stddev", "90.5097"},
        {"[0].repetitions", "2"},
        {"[0].prompt_tokens", "128"},
        {"[0].generated_tokens", "0"},
        {"[0].model", "tiny | \"llama\""},
        {"[0].file", "a,b.gguf"},
        {"[0].type", "Q4_0"},
        {"[0].model_bytes", "668991488"},
        {"[0].parameters", "1100048384"},
        {"[0].kv", "f16"},
        {"[0].gemm", "weft"},
        {"[0].context_positions", "4096"},
        {"[0].batch_rows", "64"},
        {"[0].isa", "neon+avx2"},
        {"[0].plan", "pi-a 0-2, pc 3, pi-b head"},
        {"[0].version", WEFT_VERSION},
        {"[0].samples_tokens_per_second[1]", "256.0000"},
        {"[0].samples_ns[0]", "1000000000"},
        {"[0].devices[1].name", "pc"},
        {"[0].devices[1].isa", "avx2"},
        {"[0].devices[1].cpu", "a \"cpu\""},
        {"[0].devices[2].threads", "4"},
        {"[1].test", "tg32"},
        {"[1].generated_tokens", "32"},
        {"[1].samples_ns[0]", "1000000000"},
    };
    struct weft_str out = {0};
    report(WEFT_BENCH_JSON, &out);
    struct weft_yaml_doc *doc = parse(out.data, out.size);
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
        expect_value(doc, expected[i][0], expected[i][1]);
    ck_assert_ptr_null(weft_yaml_find(doc, "[2]"));
    ck_assert_ptr_null(weft_yaml_find(doc, "[1].samples_ns[1]"));
    ck_assert_ptr_null(weft_yaml_find(doc, "[0].devices[3]"));
    weft_yaml_close(doc);
    weft_str_done(&out);
}
END_TEST

/* ---- the command ---- */

static struct daemon_proc daemons[2];

static void start_daemons(void)
{
    snprintf(model, sizeof model, "%s", weft_test_path("configs/demo/weft-stories-q8_0.gguf"));
    daemon_start(&daemons[0], "a", NULL, NULL);
    daemon_start(&daemons[1], "b", "ref", NULL);
}

static void stop_daemons(void)
{
    int bad = daemon_stop(&daemons[0]) | daemon_stop(&daemons[1]);
    ck_assert_msg(bad == 0, "a daemon did not end well");
}

/* Runs to a good end without a word on stderr, which is no terminal here; gives what it printed. */
static struct weft_yaml_doc *bench(const char *const *args, struct command *c)
{
    command_run(c, args, NULL, NULL);
    ck_assert_msg(c->status == 0, "exit %d: %s", c->status, c->err);
    ck_assert_str_eq(c->err, "");
    return parse(c->out, c->out_size);
}

/* A result as it must be: the tokens of the test, as many samples as repetitions, each of some
 * speed, their mean between them. */
static void expect_result(const struct weft_yaml_doc *doc, unsigned at, const char *test,
                          const char *threads, unsigned repetitions)
{
    char path[128], number[16];
    double least = INFINITY, most = 0;
    snprintf(path, sizeof path, "[%u].test", at);
    expect_value(doc, path, test);
    snprintf(path, sizeof path, "[%u].threads", at);
    expect_value(doc, path, threads);
    snprintf(path, sizeof path, "[%u].%s", at,
             test[0] == 'p' ? "prompt_tokens" : "generated_tokens");
    expect_value(doc, path, test + 2);
    snprintf(path, sizeof path, "[%u].repetitions", at);
    snprintf(number, sizeof number, "%u", repetitions);
    expect_value(doc, path, number);
    for (unsigned i = 0; i <= repetitions; i++) {
        snprintf(path, sizeof path, "[%u].samples_ns[%u]", at, i);
        const char *ns = value_at(doc, path);
        snprintf(path, sizeof path, "[%u].samples_tokens_per_second[%u]", at, i);
        const char *speed = value_at(doc, path);
        ck_assert_msg((ns != NULL) == (i < repetitions) && (speed != NULL) == (i < repetitions),
                      "sample %u of %u", i, repetitions);
        if (i == repetitions)
            break;
        const double tokens = strtod(test + 2, NULL), x = strtod(speed, NULL);
        ck_assert(x > 0 && fabs(x - tokens * 1e9 / strtod(ns, NULL)) <= 1e-4);
        least = x < least ? x : least;
        most = x > most ? x : most;
    }
    snprintf(path, sizeof path, "[%u].tokens_per_second", at);
    const double mean = strtod(value_at(doc, path), NULL);
    ck_assert(mean >= least - 1e-3 && mean <= most + 1e-3); /* both are printed rounded */
    snprintf(path, sizeof path, "[%u].stddev", at);
    const double stddev = strtod(value_at(doc, path), NULL);
    ck_assert(stddev >= 0 && (repetitions > 1 || stddev == 0));
}

START_TEST(private_daemon)
{
    struct command c;
    /* a prompt of several steps, and one of a single token */
    struct weft_yaml_doc *doc = bench(
        ARGS("bench", "-m", model, "-t", "1", "-p", "100,1", "-n", "20", "-r", "3", "-ojson"), &c);
    expect_result(doc, 0, "pp100", "1", 3);
    expect_result(doc, 1, "pp1", "1", 3);
    expect_result(doc, 2, "tg20", "1", 3);
    ck_assert_ptr_null(weft_yaml_find(doc, "[3]"));
    expect_value(doc, "[0].model", "weft-stories 4M");
    expect_value(doc, "[0].file", model);
    expect_value(doc, "[0].type", "Q8_0");
    expect_value(doc, "[0].model_bytes", "4051968");
    expect_value(doc, "[0].parameters", "3804416");
    expect_value(doc, "[0].kv", "f16");
    expect_value(doc, "[0].gemm", "weft");
    expect_value(doc, "[0].context_positions", "1024");
    expect_value(doc, "[0].plan", "local 0-5");
    expect_value(doc, "[0].devices[0].name", "local");
    expect_value(doc, "[0].isa", value_at(doc, "[0].devices[0].isa"));
    expect_value(doc, "[0].version", WEFT_VERSION);
    weft_yaml_close(doc);
    command_done(&c);
}
END_TEST

/* A daemon for each number of threads, one after the other. A zero drops a test, not its list. */
START_TEST(lists)
{
    struct command c;
    struct weft_yaml_doc *doc = bench(ARGS("bench", "-m", model, "-t", "2,1", "-p", "0,8", "-n",
                                           "4,0,2", "-r", "1", "--json", "--kv=f32"),
                                      &c);
    for (unsigned i = 0; i < 2; i++) {
        const char *threads = i == 0 ? "2" : "1";
        expect_result(doc, 3 * i, "pp8", threads, 1);
        expect_result(doc, 3 * i + 1, "tg4", threads, 1);
        expect_result(doc, 3 * i + 2, "tg2", threads, 1);
    }
    ck_assert_ptr_null(weft_yaml_find(doc, "[6]"));
    expect_value(doc, "[0].kv", "f32");
    weft_yaml_close(doc);
    command_done(&c);
}
END_TEST

START_TEST(two_daemons)
{
    const char *stages = "stages:\n  - {device: a, layers: 0-3}\n  - {device: b, layers: 4-5}\n";
    struct command c;
    struct weft_yaml_doc *doc = bench(ARGS("bench", "-f", cluster_yaml(model, daemons, 2, stages),
                                           "-p", "70", "-n", "40", "-r", "2", "-o", "json"),
                                      &c);
    expect_result(doc, 0, "pp70", "2", 2);
    expect_result(doc, 1, "tg40", "2", 2); /* more than the ring runs ahead of us */
    expect_value(doc, "[1].plan", "a 0-3, b 4-5");
    expect_value(doc, "[1].devices[0].name", "a");
    expect_value(doc, "[1].devices[1].name", "b");
    expect_value(doc, "[1].devices[1].isa", "ref");
    expect_value(doc, "[1].devices[1].threads", "1");
    weft_yaml_close(doc);
    command_done(&c);
    /* The embedding alone, one layer alone, a device twice. */
    stages = "stages:\n  - {device: b, layers: none}\n  - {device: a, layers: 0-4}\n"
             "  - {device: b, layers: 5}\n";
    doc = bench(ARGS("bench", "-f", cluster_yaml(model, daemons, 2, stages), "-p", "0", "-n", "1",
                     "-r", "1", "-o", "json"),
                &c);
    expect_result(doc, 0, "tg1", "2", 1);
    expect_value(doc, "[0].plan", "b embedding, a 0-4, b 5");
    ck_assert_ptr_null(weft_yaml_find(doc, "[0].devices[2]"));
    weft_yaml_close(doc);
    command_done(&c);
}
END_TEST

/* Rows come as they are measured, the header once. */
START_TEST(tables)
{
    struct command c;
    command_run(&c, ARGS("bench", "-m", model, "-t", "1,2", "-p", "8", "-n", "2", "-r", "1"), NULL,
                NULL);
    ck_assert_msg(c.status == 0, "exit %d: %s", c.status, c.err);
    ck_assert_str_eq(c.err, "");
    unsigned rows = 0, others = 0;
    for (char *line = strtok(c.out, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        rows += strncmp(line, "| weft-stories 4M ", 18) == 0 && strstr(line, " ± 0.00 |") != NULL;
        others += line[0] != '|';
    }
    ck_assert_uint_eq(rows, 4);
    ck_assert_uint_eq(others, 2);
    command_done(&c);
    command_run(&c, ARGS("bench", "-m", model, "-t", "1,2", "-p", "8", "-n", "2", "-r1", "-ocsv"),
                NULL, NULL);
    ck_assert_int_eq(c.status, 0);
    unsigned lines = 0;
    for (const char *p = c.out; (p = strchr(p, '\n')) != NULL; p++)
        lines++;
    ck_assert_uint_eq(lines, 5);
    ck_assert(strncmp(c.out, "test,threads,", 13) == 0);
    command_done(&c);
}
END_TEST

static void expect_error(const char *const *args, int status, const char *words)
{
    struct command c;
    command_run(&c, args, NULL, NULL);
    ck_assert_msg(c.status == status, "exit %d, expected %d: %s", c.status, status, c.err);
    ck_assert_msg(strstr(c.err, words) != NULL, "found '%s', expected '%s' in it", c.err, words);
    ck_assert_str_eq(c.out, "");
    command_done(&c);
}

START_TEST(errors)
{
    expect_error(ARGS("bench", "-m", model, "-p", "8,1024"), 5,
                 "weft: pp1024 needs 1025 positions, the context has 1024, which is what the model "
                 "was made for\n");
    expect_error(ARGS("bench", "-m", model, "-c", "32", "-p", "8", "-n", "32"), 5,
                 "weft: tg32 needs 33 positions, the context has 32: raise -c\n");
    expect_error(ARGS("bench", "-m", "/nonexistent.gguf"), 4, "/nonexistent.gguf: No such file");
    expect_error(ARGS("bench", "-p", "8"), 2, "weft bench needs a cluster file");
    /* A device that is not there. */
    struct daemon_proc gone = {.name = "gone", .port = 1};
    expect_error(ARGS("bench", "-f", cluster_yaml(model, &gone, 1, NULL)), 6, "gone");
}
END_TEST

/* Weights that nothing can be computed with: named with the test, without half a JSON. */
START_TEST(step_that_fails)
{
    const char *path = damaged_model("configs/demo/weft-stories-q8_0.gguf",
                                     &(struct damage){"blk.3.ffn_up.weight", .bits = 0x7e00});
    expect_error(ARGS("bench", "-m", path, "-t", "1,2", "-p", "8", "-n", "2", "-o", "json"), 4,
                 "weft: pp8: local: layer 3, FFN: ");
}
END_TEST

/* Ctrl-C, from before the daemon is there to the middle of a test: 130, and nothing is said. */
START_TEST(interrupt)
{
    int in, out;
    char err_path[4200], text[64];
    pid_t pid = command_start(ARGS("bench", "-f", cluster_yaml(model, daemons, 2, NULL), "-p",
                                   "1000", "-n", "1", "-r", "10000", "-o", "csv"),
                              &in, &out, err_path);
    const useconds_t wait_us = 1000u << _i; /* anywhere: every moment must do */
    usleep(wait_us);
    kill(pid, SIGINT);
    ck_assert_int_eq(command_wait(pid, 20000), 130);
    ck_assert_int_eq(read(out, text, sizeof text), 0);
    close(in);
    close(out);
    /* The daemons are free. */
    struct command c;
    struct weft_yaml_doc *doc = bench(ARGS("bench", "-f", cluster_yaml(model, daemons, 2, NULL),
                                           "-p", "0", "-n", "1", "-r", "1", "-o", "json"),
                                      &c);
    weft_yaml_close(doc);
    command_done(&c);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bench");
    TCase *t = tcase_create("report");
    tcase_add_test(t, names);
    tcase_add_test(t, mean_and_deviation);
    tcase_add_test(t, markdown);
    tcase_add_test(t, markdown_width);
    tcase_add_test(t, csv);
    tcase_add_test(t, json);
    suite_add_tcase(s, t);
    t = tcase_create("command");
    tcase_add_unchecked_fixture(t, start_daemons, stop_daemons);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, private_daemon);
    tcase_add_test(t, lists);
    tcase_add_test(t, two_daemons);
    tcase_add_test(t, tables);
    tcase_add_test(t, errors);
    tcase_add_test(t, step_that_fails);
    tcase_add_loop_test(t, interrupt, 0, 11);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
