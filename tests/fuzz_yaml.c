/*
 * Fuzzer of settings: the input is read as weftd.yaml, as a cluster file and as a plan file. Errors
 * must come with a report that is safe on a terminal; what loads keeps the promises of its header.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "coordinator/cluster_file.h"
#include "daemon/config.h"
#include "tests/fuzz.h"

/* A result agrees with err and report. */
static void expect_report(int r, const weft_err *err, struct weft_str *report)
{
    FUZZ_EXPECT(r == -err->code && !report->failed);
    FUZZ_EXPECT(r == 0 || err->text[0] != '\0');
    for (size_t i = 0; i < report->size;) {
        uint32_t code = 0;
        size_t step = weft_utf8_decode(report->data + i, report->size - i, &code);
        FUZZ_EXPECT(step != 0 && (code == '\n' || weft_code_printable(code)));
        i += step;
    }
    weft_str_done(report);
}

static void fuzz_config(const char *text, size_t size)
{
    struct weft_config c;
    struct weft_str report = {0};
    weft_err err = {0};
    weft_config_default(&c);
    int r = weft_config_parse("weftd.yaml", text, size, &c, &report, &err);
    FUZZ_EXPECT(r == 0 || report.size > 0);
    FUZZ_EXPECT(c.threads <= WEFT_CONFIG_THREADS_MAX && c.drain_s <= WEFT_CONFIG_DRAIN_S_MAX);
    FUZZ_EXPECT(strlen(c.name) <= WEFT_NAME_MAX && c.listen[0] != '\0');
    expect_report(r, &err, &report);
}

static void expect_stages(const struct weft_cluster_file *f)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < f->n_stages; i++) {
        FUZZ_EXPECT(f->stages[i].first_layer == next && f->stages[i].n_layers <= UINT32_MAX - next);
        FUZZ_EXPECT(f->stages[i].device < f->n_devices);
        next += f->stages[i].n_layers;
    }
    FUZZ_EXPECT(f->pin_embed >= -1 && f->pin_embed < (int32_t)f->n_devices);
    FUZZ_EXPECT(f->pin_head >= -1 && f->pin_head < (int32_t)f->n_devices);
}

/* The loaders take paths: a file in memory has one. */
static const char *file_of(const char *text, size_t size)
{
    static char path[32];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("fuzz.yaml", MFD_CLOEXEC);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    FUZZ_EXPECT(fd >= 0 && ftruncate(fd, 0) == 0);
    FUZZ_EXPECT(size == 0 || pwrite(fd, text, size, 0) == (ssize_t)size);
    return path;
}

static void fuzz_cluster(const char *path)
{
    struct weft_cluster_file f = {0};
    struct weft_str report = {0};
    weft_err err = {0};
    int r = weft_cluster_file_load(path, &f, &report, &err);
    expect_report(r, &err, &report);
    if (r == 0) {
        FUZZ_EXPECT(f.n_devices > 0);
        expect_stages(&f);
        /* a cluster file has keys that a plan lacks; whatever comes out must stay whole */
        struct weft_str plan_report = {0};
        r = weft_cluster_file_plan(&f, path, &plan_report, &err);
        expect_report(r, &err, &plan_report);
        if (r == 0)
            expect_stages(&f);
    }
    weft_cluster_file_done(&f);
}

static void fuzz_plan(const char *path)
{
    struct weft_cluster_file f = {0};
    struct weft_str report = {0};
    weft_err err = {0};
    FUZZ_EXPECT(weft_cluster_file_private("127.0.0.1:7117", &f, &err) == 0);
    int r = weft_cluster_file_plan(&f, path, &report, &err);
    expect_report(r, &err, &report);
    if (r == 0)
        expect_stages(&f);
    weft_cluster_file_done(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = file_of((const char *)data, size);
    fuzz_config((const char *)data, size);
    fuzz_cluster(path);
    fuzz_plan(path);
    return 0;
}
