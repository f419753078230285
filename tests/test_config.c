/*
 * weftd.yaml: the example loads and is the defaults; every key; every mistake with its words.
 */
#include "daemon/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/harness.h"

static int parse(const char *text, struct weft_config *c, struct weft_str *report)
{
    weft_err err = {0};
    weft_config_default(c);
    int r = weft_config_parse("weftd.yaml", text, strlen(text), c, report, &err);
    ck_assert_int_eq(r, -err.code);
    return r;
}

static void assert_equal(const struct weft_config *a, const struct weft_config *b)
{
    ck_assert_str_eq(a->name, b->name);
    ck_assert_str_eq(a->listen, b->listen);
    ck_assert_uint_eq(a->threads, b->threads);
    ck_assert(a->pin == b->pin);
    ck_assert(a->memory_bytes == b->memory_bytes);
    ck_assert(a->reserve_bytes == b->reserve_bytes);
    ck_assert(a->isa == b->isa);
    ck_assert_int_eq(a->log, b->log);
    ck_assert_str_eq(a->state_dir, b->state_dir);
    ck_assert(a->state_auto == b->state_auto);
    ck_assert_uint_eq(a->drain_s, b->drain_s);
}

START_TEST(example_is_the_defaults)
{
    struct weft_config c, defaults;
    struct weft_str report = {0};
    weft_err err = {0};
    const char *path = weft_test_path("configs/weftd.yaml");
    ck_assert_ptr_nonnull(path);
    weft_config_default(&defaults);
    memset(&c, 0x55, sizeof c); /* so that what is not set shows */
    ck_assert_msg(weft_config_load(path, &c, &report, &err) == 0, "%s", report.data);
    assert_equal(&c, &defaults);
    ck_assert_str_eq(c.listen, "127.0.0.1:7117");
    weft_str_done(&report);
}
END_TEST

START_TEST(empty_is_the_defaults)
{
    struct weft_config c, defaults;
    struct weft_str report = {0};
    weft_config_default(&defaults);
    ck_assert_int_eq(parse("# nothing\n", &c, &report), 0);
    assert_equal(&c, &defaults);
    weft_str_done(&report);
}
END_TEST

/* Every table that this machine's kernels have can be named. */
START_TEST(every_isa)
{
    const struct wk_table *table[8];
    size_t n = wk_table_list(table, sizeof table / sizeof table[0]);
    for (size_t i = 0; i < n; i++) {
        char text[64];
        struct weft_config c;
        struct weft_str report = {0};
        snprintf(text, sizeof text, "isa: %s\n", wk_table_name(table[i]));
        ck_assert_msg(parse(text, &c, &report) == 0, "%s", report.data);
        ck_assert_str_eq(c.isa, wk_table_name(table[i]));
        weft_str_done(&report);
    }
}
END_TEST

START_TEST(every_key)
{
    struct weft_config c;
    struct weft_str report = {0};
    int r = parse("name: pi5-a\nlisten: '[::1]:0'\nthreads: 3\npin: true\nmemory: 6GiB\nreserve: "
                  "1.5MiB\nisa: ref\n"
                  "log: debug\nstate_dir: /var/lib/weft\ndrain_s: 0\n",
                  &c, &report);
    ck_assert_msg(r == 0, "%s", report.data);
    ck_assert_str_eq(c.name, "pi5-a");
    ck_assert_str_eq(c.listen, "[::1]:0");
    ck_assert_uint_eq(c.threads, 3);
    ck_assert(c.pin);
    ck_assert(c.memory_bytes == (uint64_t)6 << 30);
    ck_assert(c.reserve_bytes == 3u << 19);
    ck_assert_str_eq(c.isa, "ref");
    ck_assert_int_eq(c.log, WEFT_LOG_DEBUG);
    ck_assert_str_eq(c.state_dir, "/var/lib/weft");
    ck_assert(!c.state_auto);
    ck_assert_uint_eq(c.drain_s, 0);
    weft_str_done(&report);
}
END_TEST

START_TEST(words_for_nothing)
{
    struct weft_config c;
    struct weft_str report = {0};
    ck_assert_int_eq(parse("state_dir: none\nlisten: ipc:///tmp/weft.sock\n", &c, &report), 0);
    ck_assert(!c.state_auto);
    ck_assert_str_eq(c.state_dir, "");
    ck_assert_str_eq(c.listen, "ipc:///tmp/weft.sock");
    weft_str_done(&report);
}
END_TEST

static const struct {
    const char *text, *expected;
} bad[] = {
    {"memmory: 6GiB\n", "weftd.yaml:1:1: unknown key 'memmory', did you mean 'memory'?"},
    {"memory: lots\n", "memory: found 'lots', expected a size such as 6GiB, or all"},
    {"memory: 0\n", "memory: found '0', expected a size"},
    {"memory: -1GiB\n", "expected a size"},
    {"threads: 0\n", "threads: found '0', expected 1 to 64, or all"},
    {"threads: 65\n", "threads: found '65', expected 1 to 64, or all"},
    {"threads: [1]\n", "threads: expected a single value"},
    {"pin: maybe\n", "pin: found 'maybe', expected true or false"},
    {"pin: [0, 1]\n", "pin: expected a single value"},
    {"pinn: true\n", "unknown key 'pinn', did you mean 'pin'?"},
    {"name: 'a b'\n", "name: found 'a b', expected 1 to 64 letters"},
    {"name: ''\n", "name: found '', expected"},
    {"listen: 'host:99999'\n", "listen: "},
    {"isa: sse9\n", "isa: "},
    {"log: loud\n", "log: "},
    {"state_dir: relative\n",
     "state_dir: found 'relative', expected a path from '/' on, auto or none"},
    {"drain_s: 3601\n", "drain_s: "},
    {"reserve: x\n", "reserve: "},
    {"name: a\nname: b\n", "name"},
    {"- a\n", "weftd.yaml:1:1: "},
    {"name: [\n", "weftd.yaml:"},
};

START_TEST(mistakes)
{
    struct weft_config c, defaults;
    struct weft_str report = {0};
    weft_config_default(&defaults);
    ck_assert_int_eq(parse(bad[_i].text, &c, &report), -WEFT_ECONFIG);
    ck_assert_ptr_nonnull(report.data);
    ck_assert_msg(strstr(report.data, bad[_i].expected) != NULL, "%s: %s", bad[_i].expected,
                  report.data);
    assert_equal(&c, &defaults); /* untouched */
    weft_str_done(&report);
}
END_TEST

START_TEST(all_mistakes_at_once)
{
    struct weft_config c;
    struct weft_str report = {0};
    ck_assert_int_eq(parse("threads: 0\nnmae: a\nmemory: much\n", &c, &report), -WEFT_ECONFIG);
    ck_assert_ptr_nonnull(strstr(report.data, "weftd.yaml:1:10: "));
    ck_assert_ptr_nonnull(strstr(report.data, "weftd.yaml:2:1: "));
    ck_assert_ptr_nonnull(strstr(report.data, "weftd.yaml:3:9: "));
    weft_str_done(&report);
}
END_TEST

START_TEST(missing_file)
{
    struct weft_config c;
    struct weft_str report = {0};
    weft_err err = {0};
    ck_assert_int_eq(weft_config_load("/nowhere/weftd.yaml", &c, &report, &err), -WEFT_ECONFIG);
    ck_assert_ptr_nonnull(strstr(err.text, "/nowhere/weftd.yaml"));
    weft_str_done(&report);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("config");
    TCase *t = tcase_create("weftd.yaml");
    tcase_add_test(t, example_is_the_defaults);
    tcase_add_test(t, empty_is_the_defaults);
    tcase_add_test(t, every_key);
    tcase_add_test(t, every_isa);
    tcase_add_test(t, words_for_nothing);
    tcase_add_loop_test(t, mistakes, 0, (int)(sizeof bad / sizeof bad[0]));
    tcase_add_test(t, all_mistakes_at_once);
    tcase_add_test(t, missing_file);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
