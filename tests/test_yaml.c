/*
 * Tests of base/yaml: the golden reports of tests/yaml/, limits, hostile files, values and
 * defaults.
 *
 * Every tests/yaml/NAME.yaml is read by the table below; the report must be NAME.errors byte by
 * byte (no such file: no errors). WEFT_TEST_UPDATE=1 writes them anew; look at the difference.
 */
#include "base/yaml.h"
#include "tests/harness.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a table with every kind ---- */

struct device {
    char *name, *address;
    uint64_t memory;
    uint32_t port;
    bool port_seen;
    double weight;
};

struct sampling {
    uint32_t top_k;
    char *stop;
};

struct cluster {
    char *model;
    bool verbose, verbose_seen;
    uint32_t context;
    uint64_t seed;
    double temperature;
    uint64_t budget;
    int kv;
    struct sampling sampling;
    struct weft_yaml_list devices, ports, words, kinds;
    unsigned first, last; /* of `layers` */
};

static const char *const kv_names[] = {"f32", "f16", "q8_0", NULL};

static int read_layers(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, void *place)
{
    unsigned first, last;
    const char *text = weft_yaml_scalar(node);
    if (text == NULL || sscanf(text, "%u..%u", &first, &last) != 2)
        weft_yaml_error(doc, node, "expected layers such as 0..15");
    else
        ((unsigned *)place)[0] = first, ((unsigned *)place)[1] = last;
    return 0;
}

static int read_no_memory(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, void *place)
{
    (void)doc, (void)node, (void)place;
    return -WEFT_ENOMEM;
}

#define FIELD(key_, kind_, type, member) \
    .key = (key_), .kind = (kind_), .offset = offsetof(type, member)

static const struct weft_yaml_field device_fields[] = {
    {FIELD("name", WEFT_YAML_STRING, struct device, name), .required = true, .min = 1, .max = 16},
    {FIELD("address", WEFT_YAML_STRING, struct device, address), .required = true},
    {FIELD("memory", WEFT_YAML_SIZE, struct device, memory), .min = 1 << 20, .max = 0x1p40},
    {FIELD("port", WEFT_YAML_U32, struct device, port), .min = 1, .max = 65535,
     .seen_offset = offsetof(struct device, port_seen) + 1},
    {FIELD("weight", WEFT_YAML_DOUBLE, struct device, weight), .min = 0, .max = -1},
    {0},
};

static const struct weft_yaml_field sampling_fields[] = {
    {FIELD("top_k", WEFT_YAML_U32, struct sampling, top_k), .min = 1, .max = 1000},
    {FIELD("stop", WEFT_YAML_STRING, struct sampling, stop)},
    {0},
};

#define TOP(key_, kind_, member) FIELD(key_, kind_, struct cluster, member)

static const struct weft_yaml_field cluster_fields[] = {
    {TOP("model", WEFT_YAML_STRING, model), .required = true, .min = 1, .max = 0},
    {TOP("verbose", WEFT_YAML_BOOL, verbose),
     .seen_offset = offsetof(struct cluster, verbose_seen) + 1},
    {TOP("context", WEFT_YAML_U32, context)},
    {TOP("seed", WEFT_YAML_U64, seed)},
    {TOP("temperature", WEFT_YAML_DOUBLE, temperature), .min = 0, .max = 2},
    {TOP("budget", WEFT_YAML_SIZE, budget), .min = 1024, .max = 0},
    {TOP("kv", WEFT_YAML_ENUM, kv), .names = kv_names},
    {TOP("sampling", WEFT_YAML_MAP, sampling), .fields = sampling_fields},
    {TOP("devices", WEFT_YAML_LIST, devices), .required = true, .min = 1, .max = 4,
     .fields = device_fields, .item_size = sizeof(struct device)},
    {TOP("ports", WEFT_YAML_LIST, ports), .item_kind = WEFT_YAML_U32},
    {TOP("words", WEFT_YAML_LIST, words), .min = 2, .max = 0, .item_kind = WEFT_YAML_STRING},
    {TOP("kinds", WEFT_YAML_LIST, kinds), .item_kind = WEFT_YAML_ENUM, .names = kv_names},
    {TOP("layers", WEFT_YAML_CUSTOM, first), .read = read_layers},
    {0},
};

static struct weft_yaml_doc *open_text(const char *text, size_t size)
{
    struct weft_yaml_doc *doc = NULL;
    weft_err err = {0};
    ck_assert_msg(weft_yaml_open("t.yaml", text, size, &doc, &err) == 0, "%s", err.text);
    return doc;
}

/* The report of a text read by the table, to be freed. */
static char *report_of(const char *text, size_t size)
{
    struct weft_yaml_doc *doc = open_text(text, size);
    struct cluster c = {0};
    struct weft_str report = {0};
    weft_yaml_read(doc, cluster_fields, &c);
    weft_yaml_report(doc, &report);
    weft_str_adds(&report, "");
    ck_assert(!report.failed);
    weft_yaml_close(doc);
    return report.data;
}

static void expect_report(const char *text, const char *want)
{
    char *report = report_of(text, strlen(text));
    ck_assert_str_eq(report, want);
    free(report);
}

/* A file without mistakes; every kind occurs. */
static const char valid[] = "# a comment\n"
                            "model: \"tiny 'model'.gguf\"\n"
                            "verbose: on\n"
                            "context: 4096\n"
                            "seed: 18446744073709551615\n"
                            "temperature: 0.8\n"
                            "budget: 1.5GiB\n"
                            "kv: q8_0\n"
                            "sampling: {top_k: 40, stop: \"\\n\"}\n"
                            "devices:\n"
                            "  - name: pi5-ä\n"
                            "    address: 192.168.1.7\n"
                            "    memory: 6 GiB\n"
                            "    port: 65535\n"
                            "  - {name: jetson, address: jetson.local, weight: 1e3}\n"
                            "ports: [1, 2, 3]\n"
                            "words:\n"
                            "- one\n"
                            "- 'two'\n"
                            "kinds: [f16, f32]\n"
                            "layers: 3..17\n";

START_TEST(reads_every_kind)
{
    struct weft_yaml_doc *doc = open_text(valid, strlen(valid));
    struct cluster c = {0};
    weft_yaml_read(doc, cluster_fields, &c);
    ck_assert_uint_eq(weft_yaml_error_count(doc), 0);
    ck_assert_int_eq(weft_yaml_check(doc, NULL, NULL), 0);
    ck_assert_str_eq(c.model, "tiny 'model'.gguf");
    ck_assert(c.verbose && c.verbose_seen);
    ck_assert_uint_eq(c.context, 4096);
    ck_assert_uint_eq(c.seed, UINT64_MAX);
    ck_assert_double_eq(c.temperature, 0.8);
    ck_assert_uint_eq(c.budget, 3ull << 29);
    ck_assert_int_eq(c.kv, 2);
    ck_assert_uint_eq(c.sampling.top_k, 40);
    ck_assert_str_eq(c.sampling.stop, "\n");
    ck_assert_uint_eq(c.devices.count, 2);
    const struct device *d = c.devices.items;
    ck_assert_str_eq(d[0].name, "pi5-ä");
    ck_assert_str_eq(d[0].address, "192.168.1.7");
    ck_assert_uint_eq(d[0].memory, 6ull << 30);
    ck_assert_uint_eq(d[0].port, 65535);
    ck_assert(d[0].port_seen && !d[1].port_seen);
    ck_assert_double_eq(d[1].weight, 1000);
    ck_assert_uint_eq(c.ports.count, 3);
    ck_assert_uint_eq(((const uint32_t *)c.ports.items)[2], 3);
    ck_assert_str_eq(((char **)c.words.items)[1], "two");
    ck_assert_int_eq(((const int *)c.kinds.items)[0], 1);
    ck_assert_uint_eq(c.first, 3);
    ck_assert_uint_eq(c.last, 17);

    ck_assert_str_eq(weft_yaml_scalar(weft_yaml_find(doc, "devices[1].address")), "jetson.local");
    ck_assert_str_eq(weft_yaml_scalar(weft_yaml_find(doc, "ports[2]")), "3");
    ck_assert_ptr_nonnull(weft_yaml_find(doc, "devices[0]"));
    ck_assert_ptr_nonnull(weft_yaml_find(doc, ""));
    ck_assert_ptr_null(weft_yaml_scalar(weft_yaml_find(doc, "devices")));
    ck_assert_ptr_null(weft_yaml_scalar(NULL));
    static const char *const absent[] = {
        "devices[2]", "devices[0].port.x", "devices.name", "model[0]", "mode",
        "models",     "devices[",          "devices[x]"};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++)
        ck_assert_ptr_null(weft_yaml_find(doc, absent[i]));
    weft_yaml_close(doc);
}
END_TEST

START_TEST(keeps_defaults)
{
    static const char text[] = "model: ''\n"
                               "verbose: perhaps\n"
                               "context: -1\n"
                               "temperature: hot\n"
                               "kv: f64\n"
                               "sampling:\n" /* all of its keys commented out */
                               "devices: [{name: a, address: b, port: }]\n"
                               "layers: all\n";
    struct weft_yaml_doc *doc = open_text(text, strlen(text));
    char model[] = "default.gguf";
    struct cluster c = {
        .model = model, .context = 7, .temperature = 0.5, .kv = 1, .sampling.top_k = 9, .first = 3};
    weft_yaml_read(doc, cluster_fields, &c);
    ck_assert_uint_eq(weft_yaml_error_count(doc), 7);
    ck_assert_ptr_eq(c.model, model);
    ck_assert(!c.verbose);
    ck_assert(c.verbose_seen); /* the key is there, its value is wrong */
    ck_assert_uint_eq(c.context, 7);
    ck_assert_double_eq(c.temperature, 0.5);
    ck_assert_int_eq(c.kv, 1);
    ck_assert_uint_eq(c.sampling.top_k, 9);
    ck_assert_uint_eq(c.first, 3);
    const struct device *d = c.devices.items;
    ck_assert_uint_eq(d[0].port, 0);
    ck_assert(d[0].port_seen);
    weft_yaml_close(doc);
}
END_TEST

/* ---- golden reports ---- */

static void check_golden(const char *name, bool update)
{
    char yaml[512], errors[512], wrong[128];
    snprintf(yaml, sizeof yaml, "tests/yaml/%s.yaml", name);
    snprintf(errors, sizeof errors, "tests/yaml/%s.errors", name);
    size_t size = 0, want_size = 0;
    uint8_t *text = weft_test_read(yaml, &size);
    uint8_t *want = weft_test_read(errors, &want_size);
    ck_assert_ptr_nonnull(text);

    struct weft_yaml_doc *doc = NULL;
    struct cluster c = {0};
    struct weft_str report = {0};
    weft_err err = {0};
    ck_assert_int_eq(weft_yaml_open(yaml, (const char *)text, size, &doc, &err), 0);
    weft_yaml_read(doc, cluster_fields, &c);
    int r = weft_yaml_check(doc, &report, &err);
    size_t n = weft_yaml_error_count(doc);
    weft_yaml_close(doc);
    weft_str_adds(&report, "");
    if (update && n > 0) {
        FILE *f = fopen(errors, "wb");
        ck_assert_ptr_nonnull(f);
        fputs(report.data, f);
        fclose(f);
    } else {
        ck_assert_str_eq(report.data, want != NULL ? (char *)want : "");
        ck_assert_int_eq(r, want != NULL ? -WEFT_ECONFIG : 0);
        if (want != NULL && n <= WEFT_YAML_ERRORS_MAX) {
            snprintf(wrong, sizeof wrong, "%zu error%s in ", n, n == 1 ? "" : "s");
            ck_assert_ptr_eq(strstr(err.text, wrong), err.text);
            ck_assert_ptr_nonnull(strstr(err.text, yaml));
        }
    }
    weft_str_done(&report);
    free(text);
    free(want);
}

START_TEST(golden)
{
    const char *path = weft_test_path("tests/yaml");
    ck_assert_ptr_nonnull(path);
    DIR *dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    bool update = getenv("WEFT_TEST_UPDATE") != NULL;
    int n_checked = 0;
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
        const char *dot = strrchr(e->d_name, '.');
        if (dot == NULL || strcmp(dot, ".yaml") != 0)
            continue;
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)(dot - e->d_name), e->d_name);
        check_golden(name, update);
        n_checked++;
    }
    closedir(dir);
    ck_assert_int_ge(n_checked, 20);
}
END_TEST

/* ---- limits ---- */

static char *repeat(const char *before, const char *unit, size_t times, const char *after)
{
    struct weft_str s = {0};
    weft_str_adds(&s, before);
    for (size_t i = 0; i < times; i++)
        weft_str_adds(&s, unit);
    weft_str_adds(&s, after);
    ck_assert(!s.failed);
    return s.data;
}

START_TEST(limit_of_text)
{
    char *text = malloc(WEFT_YAML_TEXT_MAX + 1);
    ck_assert_ptr_nonnull(text);
    memset(text, '#', WEFT_YAML_TEXT_MAX + 1);
    char *report = report_of(text, WEFT_YAML_TEXT_MAX + 1);
    ck_assert_str_eq(report, "t.yaml: found more than 1048576 bytes of text\n");
    free(report);
    report = report_of(text, WEFT_YAML_TEXT_MAX); /* one long comment: an empty file */
    ck_assert_str_eq(report, "t.yaml: missing key 'model'\nt.yaml: missing key 'devices'\n");
    free(report);
    free(text);
}
END_TEST

START_TEST(limit_of_depth)
{
    /* The root and 31 lists are 32 levels; the innermost is empty. */
    char *text = repeat("layers: ", "[", 31, "");
    char *closed = repeat(text, "]", 31, "\nmodel: m\ndevices: [{name: a, address: b}]\n");
    expect_report(closed,
                  "t.yaml:1:9: layers: expected layers such as 0..15\n"
                  "    layers: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n"
                  "            ^\n");
    free(text);
    free(closed);
    text = repeat("a: ", "[", 100000, "");
    char *report = report_of(text, strlen(text));
    ck_assert_ptr_nonnull(strstr(report, "t.yaml:1:35: more than 32 levels\n"));
    free(report);
    free(text);
    /* Block style, where libyaml's own stacks grow. */
    struct weft_str s = {0};
    for (int i = 0; i < 40; i++)
        weft_str_addf(&s, "%*sa:\n", i, "");
    report = report_of(s.data, s.size);
    ck_assert_ptr_nonnull(strstr(report, "t.yaml:33:33: more than 32 levels\n"));
    free(report);
    weft_str_done(&s);
}
END_TEST

START_TEST(limit_of_nodes)
{
    /* root, key, list and 9997 items are 10000 */
    char *text = repeat("words: [", "a,", 9997, "]");
    char *report = report_of(text, strlen(text));
    ck_assert_ptr_null(strstr(report, "more than"));
    free(report);
    free(text);
    text = repeat("words: [", "a,", 9998, "]");
    report = report_of(text, strlen(text));
    ck_assert_ptr_nonnull(strstr(report, ": more than 10000 values and keys\n"));
    ck_assert_ptr_null(strstr(report, "missing"));
    free(report);
    free(text);
}
END_TEST

START_TEST(limit_of_errors)
{
    struct weft_str s = {0};
    for (int i = 0; i < 60; i++)
        weft_str_addf(&s, "zz%d: 1\n", i);
    struct weft_yaml_doc *doc = open_text(s.data, s.size);
    struct cluster c = {0};
    struct weft_str report = {0};
    weft_err err = {0};
    weft_yaml_read(doc, cluster_fields, &c);
    ck_assert_uint_eq(weft_yaml_error_count(doc), WEFT_YAML_ERRORS_MAX + 1);
    ck_assert_int_eq(weft_yaml_check(doc, &report, &err), -WEFT_ECONFIG);
    ck_assert_str_eq(err.text, "more than 50 errors in t.yaml");
    const char *last = strstr(report.data, "t.yaml: too many errors, only 50 are shown\n");
    ck_assert_ptr_nonnull(last);
    ck_assert_uint_eq(strlen(last), strlen("t.yaml: too many errors, only 50 are shown\n"));
    weft_str_done(&report);
    weft_str_done(&s);
    weft_yaml_close(doc);
}
END_TEST

START_TEST(out_of_memory)
{
    /* Every limit of the arena from what parsing took upwards: an error by name until all fits. */
    weft_err err;
    bool done = false;
    for (size_t extra = 0; !done; extra += 16) {
        struct weft_yaml_doc *doc = open_text(valid, strlen(valid));
        struct weft_arena *arena = weft_yaml_arena(doc);
        arena->limit_bytes = arena->used_bytes + extra;
        struct cluster c = {0};
        struct weft_str report = {0};
        err = (weft_err){0};
        weft_yaml_read(doc, cluster_fields, &c);
        int r = weft_yaml_check(doc, &report, &err);
        done = r == 0;
        ck_assert(done || r == -WEFT_ENOMEM);
        if (!done) {
            ck_assert_str_eq(err.text, "t.yaml: out of memory");
            ck_assert_str_eq(report.data, "t.yaml: out of memory\n");
        }
        ck_assert(done ? extra > 0 : extra < 8192); /* strings and lists of a small file */
        weft_str_done(&report);
        weft_yaml_close(doc);
    }
    static const struct weft_yaml_field fields[] = {
        {.key = "a", .kind = WEFT_YAML_CUSTOM, .read = read_no_memory}, {0}};
    struct weft_yaml_doc *doc = open_text("a: 1", 4);
    struct weft_str report = {0};
    weft_yaml_read(doc, fields, NULL);
    ck_assert_int_eq(weft_yaml_check(doc, &report, NULL), -WEFT_ENOMEM);
    weft_str_done(&report);
    weft_yaml_close(doc);
}
END_TEST

/* ---- allocations that fail, see WRAP_test_yaml in the Makefile ---- */

static long allowed = -1; /* allocations until one fails; negative: all are allowed */

static bool allow(void)
{
    return allowed < 0 || allowed-- > 0;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
    return allow() ? __real_malloc(size) : NULL;
}

void *__wrap_calloc(size_t count, size_t size)
{
    return allow() ? __real_calloc(count, size) : NULL;
}

void *__wrap_realloc(void *old, size_t size)
{
    return allow() ? __real_realloc(old, size) : NULL;
}

START_TEST(allocations_fail)
{
    /* Large enough for several chunks, and with errors to report. */
    char *text = repeat("zebra: 1\nmodel: \"", "x", 6000, "\"\ndevices: [{name: a, address: b}]\n");
    int n = 0, r = -WEFT_ENOMEM;
    for (; r == -WEFT_ENOMEM; n++) {
        struct weft_yaml_doc *doc = NULL;
        struct cluster c = {0};
        struct weft_str report = {0};
        weft_err err = {0};
        allowed = n;
        r = weft_yaml_open("t.yaml", text, strlen(text), &doc, &err);
        if (r == 0) {
            weft_yaml_read(doc, cluster_fields, &c);
            r = weft_yaml_check(doc, &report, &err);
        }
        allowed = -1;
        ck_assert_int_lt(r, 0);
        ck_assert_str_eq(err.text,
                         r == -WEFT_ENOMEM ? "t.yaml: out of memory" : "1 error in t.yaml");
        weft_str_done(&report);
        weft_yaml_close(doc);
    }
    ck_assert_int_eq(r, -WEFT_ECONFIG);
    ck_assert_int_ge(n, 5);
    free(text);
}
END_TEST

START_TEST(allocations_fail_file)
{
    struct weft_yaml_doc *doc = NULL;
    weft_err err = {0};
    allowed = 0;
    int r = weft_yaml_open_file("/dev/null", &doc, &err);
    allowed = -1;
    ck_assert_int_eq(r, -WEFT_ENOMEM);
    ck_assert_str_eq(err.text, "/dev/null: out of memory");
    ck_assert_ptr_null(doc);
}
END_TEST

/* ---- hostile bytes ---- */

#define BYTES(literal) (literal), sizeof(literal) - 1

START_TEST(hostile_bytes)
{
    static const struct {
        const char *text;
        size_t size;
        const char *error;
    } cases[] = {
        {BYTES("a: b\nc: \xff\n"), "2:4: byte 0xFF is not UTF-8\n    c: ?\n       ^\n"},
        {BYTES("a: \xC3"), "1:4: byte 0xC3 is not UTF-8\n    a: ?\n       ^\n"},
        {BYTES("é: \x1b[2J"), "1:4: character U+001B is not printable\n    é: ?[2J\n       ^\n"},
        {BYTES("a\0b: c"), "1:2: character U+0000 is not printable\n    a?b: c\n     ^\n"},
        {BYTES("a: \xE2\x80\xAE"), "1:4: character U+202E is not printable\n    a: ?\n       ^\n"},
        /* UTF-16 */
        {BYTES("\xFF\xFE:\0"), "1:1: byte 0xFF is not UTF-8\n    ?"
                               "?:?\n    ^\n"},
        {BYTES("a: 1\ra: 2\r\nb: \x01"),
         "3:4: character U+0001 is not printable\n    b: ?\n       ^\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *report = report_of(cases[i].text, cases[i].size), want[200];
        snprintf(want, sizeof want, "t.yaml:%s", cases[i].error);
        ck_assert_str_eq(report, want);
        free(report);
    }
    /* A byte order mark is skipped and takes no column. */
    expect_report("\xEF\xBB\xBFmodle: x\nmodel: m\ndevices: [{name: a, address: b}]\n",
                  "t.yaml:1:1: unknown key 'modle', did you mean 'model'?\n    modle: x\n    ^\n");
}
END_TEST

/* True if a report is nothing but printable lines of valid UTF-8. */
static void check_printable(const char *report)
{
    size_t n = strlen(report);
    for (size_t at = 0, step; at < n; at += step) {
        uint32_t code = 0;
        step = weft_utf8_decode(report + at, n - at, &code);
        ck_assert_uint_ne(step, 0);
        ck_assert_msg(code == '\n' || weft_code_printable(code), "U+%04X in %s", code, report);
    }
}

static void survive(const char *text, size_t size)
{
    char *copy = malloc(size + (size == 0)); /* exact, for the sanitizer */
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, text, size);
    char *report = report_of(copy, size);
    check_printable(report);
    free(report);
    free(copy);
}

START_TEST(every_prefix)
{
    for (size_t n = 0; n <= strlen(valid); n++)
        survive(valid, n);
}
END_TEST

START_TEST(every_flipped_bit)
{
    char text[sizeof valid];
    memcpy(text, valid, sizeof valid);
    for (size_t i = 0; i < sizeof valid - 1; i++) {
        for (int bit = 0; bit < 8; bit++) {
            text[i] = (char)(valid[i] ^ (1 << bit));
            survive(text, sizeof valid - 1);
        }
        text[i] = valid[i];
    }
}
END_TEST

START_TEST(random_syntax)
{
    static const char alphabet[] = "-?:,[]{}#&*!|>'\"%@` \n\n\t\rab~0\xC3\xA9\\.";
    uint64_t seed = weft_test_seed();
    for (int i = 0; i < 3000; i++) {
        char text[200];
        size_t n = weft_test_random(&seed) % sizeof text;
        for (size_t j = 0; j < n; j++)
            text[j] = alphabet[weft_test_random(&seed) % (sizeof alphabet - 1)];
        survive(text, n);
    }
}
END_TEST

/* ---- files ---- */

START_TEST(files)
{
    char path[5000], want[5200];
    struct weft_yaml_doc *doc = NULL;
    weft_err err = {0};
    snprintf(path, sizeof path, "%s/absent.yaml", weft_test_tmpdir());
    ck_assert_int_eq(weft_yaml_open_file(path, &doc, &err), -WEFT_ECONFIG);
    snprintf(want, sizeof want, "%s: No such file or directory", path);
    ck_assert_str_eq(err.text, want);
    ck_assert_int_eq(err.code, WEFT_ECONFIG);
    ck_assert_int_eq(weft_yaml_open_file(weft_test_tmpdir(), &doc, NULL), -WEFT_ECONFIG);
    ck_assert_int_eq(weft_yaml_open_file(weft_test_tmpdir(), &doc, &err), -WEFT_ECONFIG);
    snprintf(want, sizeof want, "%s: Is a directory", weft_test_tmpdir());
    ck_assert_str_eq(err.text, want);
    ck_assert_ptr_null(doc);

    snprintf(path, sizeof path, "%s/there.yaml", weft_test_tmpdir());
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(valid, 1, strlen(valid), f), strlen(valid));
    ck_assert_int_eq(fclose(f), 0);
    ck_assert_int_eq(weft_yaml_open_file(path, &doc, &err), 0);
    struct cluster c = {0};
    weft_yaml_read(doc, cluster_fields, &c);
    ck_assert_uint_eq(weft_yaml_error_count(doc), 0);
    ck_assert_uint_eq(c.context, 4096);
    weft_yaml_close(doc);

    ck_assert_int_eq(truncate(path, WEFT_YAML_TEXT_MAX + 5), 0);
    ck_assert_int_eq(weft_yaml_open_file(path, &doc, &err), 0);
    struct weft_str report = {0};
    ck_assert_int_eq(weft_yaml_check(doc, &report, &err), -WEFT_ECONFIG);
    snprintf(want, sizeof want, "%s: found more than 1048576 bytes of text\n", path);
    ck_assert_str_eq(report.data, want);
    snprintf(want, sizeof want, "1 error in %s", path);
    ck_assert_mem_eq(err.text, want, 900 < strlen(want) ? 900 : strlen(want));
    weft_str_done(&report);
    weft_yaml_close(doc);
    weft_yaml_close(NULL);
}
END_TEST

START_TEST(later_checks)
{
    /* What a caller reports after reading, sorted in between. */
    static const char text[] = "model: m\ndevices: [{name: a, address: b}]\nzebra: 1\n";
    struct weft_yaml_doc *doc = open_text(text, strlen(text));
    struct cluster c = {0};
    struct weft_str report = {0};
    weft_yaml_read(doc, cluster_fields, &c);
    weft_yaml_error(doc, weft_yaml_find(doc, "devices[0].address"), "no route to '%s'", "b\x1b");
    weft_yaml_error(doc, NULL, "as a whole");
    weft_yaml_report(doc, &report);
    ck_assert_str_eq(report.data, "t.yaml: as a whole\n"
                                  "t.yaml:2:30: devices[0].address: no route to 'b?'\n"
                                  "    devices: [{name: a, address: b}]\n"
                                  "                                 ^\n"
                                  "t.yaml:3:1: unknown key 'zebra'\n"
                                  "    zebra: 1\n"
                                  "    ^\n");
    weft_str_done(&report);
    weft_yaml_close(doc);
}
END_TEST

static void add_case(Suite *s, const char *name, const TTest *const *tests)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, 60);
    for (; *tests != NULL; tests++)
        tcase_add_test(tc, *tests);
    suite_add_tcase(s, tc);
}

int main(void)
{
    Suite *s = suite_create("yaml");
    add_case(s, "values", (const TTest *[]){reads_every_kind, keeps_defaults, later_checks, NULL});
    add_case(s, "golden", (const TTest *[]){golden, NULL});
    add_case(
        s, "limits",
        (const TTest *[]){limit_of_text, limit_of_depth, limit_of_nodes, limit_of_errors, NULL});
    add_case(s, "memory",
             (const TTest *[]){out_of_memory, allocations_fail, allocations_fail_file, NULL});
    add_case(
        s, "hostile",
        (const TTest *[]){hostile_bytes, every_prefix, every_flipped_bit, random_syntax, NULL});
    add_case(s, "files", (const TTest *[]){files, NULL});
    return weft_test_main(s);
}
