/*
 * Tests of the cluster file: golden reports of what is wrong, every example, defaults, limits.
 *
 * Every tests/cluster/NAME.yaml is read as a cluster file, plan-NAME.yaml as a plan file for
 * devices a and b; the report must be NAME.errors byte by byte. WEFT_TEST_UPDATE=1 writes them
 * anew; look at the difference.
 */
#include "coordinator/cluster_file.h"
#include "tests/harness.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Writes text into a file of the temporary directory; the path is static. */
static const char *write_file(const char *name, const char *text)
{
    static char path[4200];
    snprintf(path, sizeof path, "%s/%s", weft_test_tmpdir(), name);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    ck_assert_int_eq(fclose(f), 0);
    return path;
}

static struct weft_cluster_file load_good(const char *path)
{
    struct weft_cluster_file f = {0};
    struct weft_str report = {0};
    weft_err err = {0};
    int r = weft_cluster_file_load(path, &f, &report, &err);
    ck_assert_msg(r == 0 && report.size == 0, "%s: %s\n%s", path, err.text,
                  report.data != NULL ? report.data : "");
    return f;
}

static struct weft_cluster_file load_text(const char *text)
{
    return load_good(write_file("cluster.yaml", text));
}

#define AB                              \
    "devices:\n"                        \
    "  - {name: a, address: a.local}\n" \
    "  - {name: b, address: b.local}\n"

/* ---- golden reports ---- */

static int read_golden(const char *name, const char *path, struct weft_str *report, weft_err *err)
{
    if (strncmp(name, "plan-", 5) == 0) {
        struct weft_cluster_file f = load_text(AB);
        int r = weft_cluster_file_plan(&f, path, report, err);
        weft_cluster_file_done(&f);
        return r;
    }
    struct weft_cluster_file f = {.context = 77};
    int r = weft_cluster_file_load(path, &f, report, err);
    ck_assert_uint_eq(f.context, 77); /* untouched */
    return r;
}

static void check_golden(const char *name, bool update)
{
    char yaml[512], errors[512];
    struct weft_str report = {0};
    weft_err err = {0};
    size_t size;
    snprintf(yaml, sizeof yaml, "tests/cluster/%s.yaml", name);
    snprintf(errors, sizeof errors, "tests/cluster/%s.errors", name);
    int r = read_golden(name, yaml, &report, &err);
    ck_assert_int_eq(r, -WEFT_ECONFIG);
    ck_assert_int_eq(err.code, WEFT_ECONFIG);
    ck_assert_msg(strstr(err.text, "in ") != NULL && strstr(err.text, yaml) != NULL, "%s",
                  err.text);
    if (update) {
        FILE *f = fopen(errors, "wb");
        ck_assert_ptr_nonnull(f);
        fputs(report.data, f);
        fclose(f);
    } else {
        uint8_t *want = weft_test_read(errors, &size);
        ck_assert_msg(want != NULL, "%s is missing", errors);
        ck_assert_str_eq(report.data, (char *)want);
        free(want);
    }
    weft_str_done(&report);
}

START_TEST(golden)
{
    DIR *dir = opendir("tests/cluster");
    struct dirent *entry;
    size_t n = 0;
    ck_assert_ptr_nonnull(dir);
    while ((entry = readdir(dir)) != NULL) {
        char name[256];
        const size_t size = strlen(entry->d_name);
        if (size < 6 || strcmp(entry->d_name + size - 5, ".yaml") != 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)(size - 5), entry->d_name);
        check_golden(name, getenv("WEFT_TEST_UPDATE") != NULL);
        n++;
    }
    closedir(dir);
    ck_assert_uint_ge(n, 10);
}
END_TEST

/* ---- what is right ---- */

START_TEST(defaults)
{
    struct weft_cluster_file f = load_text("devices: [{name: a, address: a.local}]\n");
    ck_assert_ptr_null(f.model);
    ck_assert_ptr_null(f.system);
    ck_assert(f.context == 0 && !f.context_shift);
    ck_assert_uint_eq(f.sessions, 1);
    ck_assert_uint_eq(f.predict, 0);
    ck_assert_uint_eq(f.batch_rows, 64);
    ck_assert_int_eq(f.goal, WEFT_GOAL_LATENCY);
    ck_assert(f.kv == WEFT_KV_F16 && !f.gemm_weft);
    ck_assert_mem_eq(&f.sampling, &weft_sampling_defaults, sizeof f.sampling);
    ck_assert(!f.sampling.seed_set);
    ck_assert_uint_eq(f.n_devices, 1);
    ck_assert_str_eq(f.devices[0].name, "a");
    ck_assert_str_eq(f.devices[0].address, "a.local:7117");
    ck_assert_uint_eq(f.devices[0].memory_cap_bytes, 0);
    ck_assert_uint_eq(f.n_stages, 0);
    ck_assert_int_eq(f.pin_embed, -1);
    ck_assert_int_eq(f.pin_head, -1);
    weft_cluster_file_done(&f);
    weft_cluster_file_done(&f); /* zeroed: allowed */
}
END_TEST

START_TEST(sampling_defaults)
{
    const struct weft_sampling_options *s = &weft_sampling_defaults;
    ck_assert(s->temperature == 0.8 && s->top_p == 0.95 && s->min_p == 0.05);
    ck_assert(s->repeat_penalty == 1.0 && s->top_k == 40 && s->repeat_last == 64 && !s->seed_set);
    ck_assert(s->typical == 1.0 && s->presence_penalty == 0 && s->frequency_penalty == 0);
    ck_assert(s->mirostat == 0 && s->mirostat_tau == 5.0 && s->mirostat_eta == 0.1);
}
END_TEST

START_TEST(every_key)
{
    struct weft_cluster_file f =
        load_text("model: /m.gguf\n"
                  "context: 512\n"
                  "context_shift: yes\n"
                  "sessions: 64\n"
                  "predict: 9\n"
                  "batch_rows: 512\n"
                  "goal: throughput\n"
                  "kv: f32\n"
                  "gemm: weft\n"
                  "system: Be brief.\n"
                  "sampling: {temperature: 0, top_k: 0, top_p: 1, min_p: 0,\n"
                  "  repeat_penalty: 1.5, repeat_last: 0, seed: 0, typical: 0.5,\n"
                  "  presence_penalty: -1, frequency_penalty: 10, mirostat: 2,\n"
                  "  mirostat_tau: 3, mirostat_eta: 1}\n"
                  "devices:\n"
                  "  - {name: a, address: a.local:1, memory: 1MiB}\n"
                  "  - {name: b, address: 'ipc:///run/weftd'}\n"
                  "  - {name: C-3_.x, address: '[::1]:65535', memory: 6GiB}\n"
                  "stages:\n"
                  "  - {device: b, layers: none}\n"
                  "  - {device: a, layers: 0-11}\n"
                  "  - {device: C-3_.x, layers: 12}\n"
                  "  - {device: a, layers: none}\n"
                  "  - {device: a, layers: 13-1023}\n"
                  "embedding: b\n"
                  "head: a\n");
    ck_assert_str_eq(f.model, "/m.gguf");
    ck_assert_str_eq(f.model_name, "/m.gguf");
    ck_assert_str_eq(f.system, "Be brief.");
    ck_assert(f.context == 512 && f.context_shift && f.sessions == 64 && f.predict == 9 &&
              f.batch_rows == 512);
    ck_assert(f.goal == WEFT_GOAL_THROUGHPUT && f.kv == WEFT_KV_F32 && f.gemm_weft);
    ck_assert(f.sampling.temperature == 0 && f.sampling.top_k == 0 && f.sampling.top_p == 1);
    ck_assert(f.sampling.min_p == 0 && f.sampling.repeat_penalty == 1.5);
    ck_assert(f.sampling.repeat_last == 0 && f.sampling.seed == 0 && f.sampling.seed_set);
    ck_assert(f.sampling.typical == 0.5 && f.sampling.presence_penalty == -1);
    ck_assert(f.sampling.frequency_penalty == 10 && f.sampling.mirostat == 1);
    ck_assert_str_eq(weft_mirostat_names[f.sampling.mirostat], "2");
    ck_assert(f.sampling.mirostat_tau == 3 && f.sampling.mirostat_eta == 1);
    ck_assert_uint_eq(f.n_devices, 3);
    ck_assert_str_eq(f.devices[0].address, "a.local:1");
    ck_assert_uint_eq(f.devices[0].memory_cap_bytes, 1u << 20);
    ck_assert_str_eq(f.devices[1].address, "ipc:///run/weftd");
    ck_assert_str_eq(f.devices[2].address, "[::1]:65535");
    ck_assert_uint_eq(f.devices[2].memory_cap_bytes, UINT64_C(6) << 30);
    static const struct weft_pinned_stage want[] = {
        {1, 0, 0}, {0, 0, 12}, {2, 12, 1}, {0, 13, 0}, {0, 13, 1011}};
    ck_assert_uint_eq(f.n_stages, 5);
    for (size_t i = 0; i < 5; i++) {
        ck_assert_uint_eq(f.stages[i].device, want[i].device);
        ck_assert_uint_eq(f.stages[i].first_layer, want[i].first_layer);
        ck_assert_uint_eq(f.stages[i].n_layers, want[i].n_layers);
    }
    ck_assert_int_eq(f.pin_embed, 1);
    ck_assert_int_eq(f.pin_head, 0);
    weft_cluster_file_done(&f);
}
END_TEST

START_TEST(model_paths)
{
    char expected[4200];
    struct weft_cluster_file f = load_text("model: m/x.gguf\n" AB);
    snprintf(expected, sizeof expected, "%s/m/x.gguf", weft_test_tmpdir());
    ck_assert_str_eq(f.model, expected);
    snprintf(expected, sizeof expected, "%s/cluster.yaml", weft_test_tmpdir());
    ck_assert_str_eq(f.path, expected);
    weft_cluster_file_done(&f);

    /* A file named without a folder: the working directory is its folder. */
    char back[4096];
    ck_assert_ptr_nonnull(getcwd(back, sizeof back));
    ck_assert_int_eq(chdir(weft_test_tmpdir()), 0);
    f = load_good("cluster.yaml");
    ck_assert_int_eq(chdir(back), 0);
    ck_assert_str_eq(f.model, "m/x.gguf");
    weft_cluster_file_done(&f);
}
END_TEST

START_TEST(empty_system_prompt)
{
    struct weft_cluster_file f = load_text("system: ''\n" AB);
    ck_assert_ptr_null(f.system);
    weft_cluster_file_done(&f);
}
END_TEST

START_TEST(missing_file)
{
    struct weft_cluster_file f = {.context = 77};
    struct weft_str report = {0};
    weft_err err = {0};
    ck_assert_int_eq(weft_cluster_file_load("/nonexistent/c.yaml", &f, &report, &err),
                     -WEFT_ECONFIG);
    ck_assert_str_eq(err.text, "/nonexistent/c.yaml: No such file or directory");
    ck_assert_uint_eq(f.context, 77);
    ck_assert_uint_eq(report.size, 0);
    weft_str_done(&report);
}
END_TEST

/* ---- limits ---- */

/* A file of n devices and n_stages stages, one layer each. */
static char *many(unsigned n, unsigned n_stages)
{
    struct weft_str text = {0};
    weft_str_adds(&text, "devices:\n");
    for (unsigned i = 0; i < n; i++)
        weft_str_addf(&text, "  - {name: d%u, address: 10.0.0.%u}\n", i, i);
    if (n_stages > 0)
        weft_str_adds(&text, "stages:\n");
    for (unsigned i = 0; i < n_stages; i++)
        weft_str_addf(&text, "  - {device: d%u, layers: %u}\n", i % n, i);
    ck_assert(!text.failed);
    return text.data;
}

static void expect_too_many(unsigned n, unsigned n_stages, const char *words)
{
    char *text = many(n, n_stages);
    struct weft_cluster_file f;
    struct weft_str report = {0};
    weft_err err = {0};
    const char *path = write_file("many.yaml", text);
    ck_assert_int_eq(weft_cluster_file_load(path, &f, &report, &err), -WEFT_ECONFIG);
    ck_assert_msg(strstr(report.data, words) != NULL, "%s", report.data);
    ck_assert_msg(strncmp(err.text, "1 error in ", 11) == 0, "%s", err.text);
    weft_str_done(&report);
    free(text);
}

START_TEST(limits)
{
    char *text = many(64, 256);
    struct weft_cluster_file f = load_text(text);
    ck_assert_uint_eq(f.n_devices, 64);
    ck_assert_uint_eq(f.n_stages, 256);
    weft_cluster_file_done(&f);
    free(text);
    expect_too_many(65, 0, "devices: found 65 items, expected 1..64");
    expect_too_many(64, 257, "stages: found 257 items, expected 1..256");
}
END_TEST

/* ---- plan files ---- */

START_TEST(plan_replaces)
{
    struct weft_cluster_file f = load_text("context: 99\n" AB "stages:\n"
                                           "  - {device: a, layers: 0-5}\n"
                                           "embedding: b\nhead: b\n");
    struct weft_str report = {0};
    weft_err err = {0};
    const char *path = write_file("plan.yaml", "stages:\n"
                                               "  - {device: b, layers: 0-1}\n"
                                               "  - {device: a, layers: 2-7}\n"
                                               "head: a\n");
    ck_assert_int_eq(weft_cluster_file_plan(&f, path, &report, &err), 0);
    ck_assert_uint_eq(f.n_stages, 2);
    ck_assert(f.stages[0].device == 1 && f.stages[0].n_layers == 2);
    ck_assert(f.stages[1].device == 0 && f.stages[1].first_layer == 2 && f.stages[1].n_layers == 6);
    ck_assert_int_eq(f.pin_embed, -1); /* replaced by nothing */
    ck_assert_int_eq(f.pin_head, 0);
    ck_assert_uint_eq(f.context, 99);

    /* A wrong one changes nothing. */
    path = write_file("plan.yaml", "stages:\n  - {device: c, layers: 0-1}\n");
    ck_assert_int_eq(weft_cluster_file_plan(&f, path, &report, &err), -WEFT_ECONFIG);
    ck_assert_ptr_nonnull(strstr(report.data, "there is no device 'c'"));
    ck_assert_uint_eq(f.n_stages, 2);
    ck_assert_int_eq(f.pin_head, 0);
    ck_assert_int_eq(weft_cluster_file_plan(&f, "/nonexistent.yaml", &report, &err), -WEFT_ECONFIG);
    ck_assert_str_eq(err.text, "/nonexistent.yaml: No such file or directory");
    weft_str_done(&report);
    weft_cluster_file_done(&f);
}
END_TEST

START_TEST(private_cluster)
{
    struct weft_cluster_file f = {0};
    weft_err err = {0};
    ck_assert_int_eq(weft_cluster_file_private("127.0.0.1:0", &f, &err), 0);
    ck_assert_uint_eq(f.n_devices, 1);
    ck_assert_str_eq(f.devices[0].address, "127.0.0.1:0");
    ck_assert_str_eq(f.devices[0].name, "local");
    ck_assert(f.n_stages == 0 && f.pin_embed == -1 && f.pin_head == -1 && f.model == NULL);
    ck_assert(f.sessions == 1 && f.batch_rows == 64 && f.context == 0);
    ck_assert_mem_eq(&f.sampling, &weft_sampling_defaults, sizeof f.sampling);
    weft_cluster_file_done(&f);
}
END_TEST

/* ---- the examples ---- */

START_TEST(demo_example)
{
    struct weft_cluster_file f = load_good("configs/demo/cluster.yaml");
    ck_assert_str_eq(f.model, "configs/demo/weft-stories-q8_0.gguf");
    ck_assert_int_eq(access(f.model, R_OK), 0);
    ck_assert_uint_eq(f.n_devices, 3);
    ck_assert_uint_eq(f.n_stages, 3);
    ck_assert(f.sampling.temperature == 0);
    for (uint32_t i = 0; i < 3; i++)
        ck_assert(f.stages[i].device == i && f.stages[i].n_layers == 2);
    weft_cluster_file_done(&f);
}
END_TEST

/* Every key stands in it with its default: reading it gives what a file without them gives. */
START_TEST(commented_example)
{
    struct weft_cluster_file f = load_good("configs/cluster.yaml");
    struct weft_cluster_file d = load_text("devices: [{name: a, address: a.local}]\n");
    ck_assert(f.context == d.context && f.sessions == d.sessions && f.predict == d.predict);
    ck_assert(f.batch_rows == d.batch_rows && f.goal == d.goal);
    ck_assert(f.kv == d.kv && f.gemm_weft == d.gemm_weft);
    ck_assert_mem_eq(&f.sampling, &d.sampling, sizeof f.sampling);
    ck_assert_uint_eq(f.n_devices, 5);
    ck_assert_uint_eq(f.n_stages, 0);
    weft_cluster_file_done(&d);
    weft_cluster_file_done(&f);
}
END_TEST

/* What is commented out in the example is right too. */
START_TEST(commented_keys_of_the_example)
{
    static const char *const starts[] = {"# stages:", "#   - {",
                                         "# embedding:", "# head:", "  # seed:"};
    size_t size, used = 0;
    char *text = (char *)weft_test_read("configs/cluster.yaml", &size);
    ck_assert_ptr_nonnull(text);
    for (char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
            if (strncmp(line, starts[i], strlen(starts[i])) != 0)
                continue;
            char *hash = strchr(line, '#');
            memmove(hash, hash + 2, strlen(hash + 2) + 1); /* "# " */
            used++;
            break;
        }
    }
    ck_assert_uint_eq(used, 9);
    struct weft_cluster_file f = load_text(text);
    ck_assert_uint_eq(f.n_stages, 5);
    ck_assert_str_eq(f.devices[f.pin_embed].name, "jetson");
    ck_assert_str_eq(f.devices[f.pin_head].name, "jetson");
    ck_assert(f.sampling.seed_set && f.sampling.seed == 42);
    weft_cluster_file_done(&f);
    free(text);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cluster_file");
    TCase *t = tcase_create("read");
    const char *root = getenv("WEFT_SOURCE_DIR");
    if (root != NULL && chdir(root) != 0) /* so that golden reports hold short paths */
        return 1;
    tcase_add_test(t, golden);
    tcase_add_test(t, defaults);
    tcase_add_test(t, sampling_defaults);
    tcase_add_test(t, every_key);
    tcase_add_test(t, model_paths);
    tcase_add_test(t, empty_system_prompt);
    tcase_add_test(t, missing_file);
    tcase_add_test(t, limits);
    tcase_add_test(t, plan_replaces);
    tcase_add_test(t, private_cluster);
    tcase_add_test(t, demo_example);
    tcase_add_test(t, commented_example);
    tcase_add_test(t, commented_keys_of_the_example);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
