/*
 * Measuring, see measure.h.
 */
#include "tests/measure.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/harness.h"

#define DEMO "configs/demo/weft-stories-q8_0.gguf"
#define DEMO_VOCAB 1024

uint64_t measure_clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void measure_sleep_ns(uint64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000u),
                          .tv_nsec = (long)(ns % 1000000000u)};
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
        continue;
}

/* ------------------------------------------------------------------ processes */

static uint64_t status_bytes(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    ck_assert_msg(at != NULL, "/proc/…/status without %s", key);
    return strtoull(at + strlen(key), NULL, 10) * 1024;
}

void measure_memory(pid_t pid, struct measure_memory *ret)
{
    char path[64], text[8192];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    ret->rss_bytes = status_bytes(text, "\nVmRSS:");
    ret->peak_bytes = status_bytes(text, "\nVmHWM:");
    ret->file_bytes = status_bytes(text, "\nRssFile:");
    ret->own_bytes = status_bytes(text, "\nRssAnon:") + status_bytes(text, "\nRssShmem:");
}

void measure_memory_forget(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/clear_refs", (int)pid);
    FILE *f = fopen(path, "we");
    /* 5: the peak alone, proc(5) */
    bool ok = f != NULL && fputs("5", f) >= 0;
    if (f != NULL)
        ok = fclose(f) == 0 && ok;
    ck_assert_msg(ok, "%s: %s", path, strerror(errno));
}

uint64_t measure_cpu_ns(pid_t pid)
{
    char path[512];
    uint64_t sum = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    ck_assert_msg(dir != NULL, "%s: %s", path, strerror(errno));
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        uint64_t ns = 0;
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, e->d_name);
        FILE *f = fopen(path, "re");
        if (f == NULL) /* it ended meanwhile */
            continue;
        ck_assert_msg(fscanf(f, "%" SCNu64, &ns) == 1, "%s: no number", path);
        fclose(f);
        sum += ns;
    }
    closedir(dir);
    return sum;
}

/* ------------------------------------------------------------------ figures */

double measure_json(const char *json, const char *key)
{
    char quoted[64];
    int n = snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(json, quoted);
    ck_assert_msg(at != NULL, "no %s in %s", quoted, json);
    return strtod(at + n, NULL);
}

uint64_t measure_log(const char *path, const char *key)
{
    char name[64], line[2048];
    int n = snprintf(name, sizeof name, " %s=", key);
    uint64_t value = 0;
    bool found = false;
    FILE *f = fopen(path, "re");
    ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, f) != NULL) {
        const char *at = strstr(line, name);
        if (at != NULL) {
            value = strtoull(at + n, NULL, 10);
            found = true;
        }
    }
    fclose(f);
    ck_assert_msg(found, "no%s in %s", name, path);
    return value;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double measure_median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n % 2 != 0 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* ------------------------------------------------------------------ models */

char *measure_demo(void)
{
    const char *path = weft_test_path(DEMO);
    char *full = path != NULL ? realpath(path, NULL) : NULL;
    ck_assert_msg(full != NULL, "%s is missing", DEMO);
    return full;
}

static void copy_tokenizer(struct gguf_writer *w)
{
    struct weft_mapping map = {0};
    struct weft_gguf g = {0};
    weft_err err = {0};
    char *path = measure_demo();
    ck_assert_msg(weft_mapping_open(path, &map, &err) == 0 &&
                      weft_gguf_open(map.data, map.size, &g, &err) == 0,
                  "%s", err.text);
    for (uint64_t i = 0; i < g.n_kvs; i++) {
        const struct weft_gguf_kv *kv = &g.kvs[i];
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)kv->key.size, kv->key.data);
        if (strncmp(key, "tokenizer.", 10) != 0)
            continue;
        if (kv->type == WEFT_GGUF_ARRAY)
            gguf_writer_array(w, key, kv->item_type, kv->count, kv->data, (size_t)kv->size);
        else
            gguf_writer_raw(w, key, kv->type, kv->data, (size_t)kv->size);
    }
    weft_gguf_done(&g);
    weft_mapping_close(&map);
    free(path);
}

char *measure_model(const char *name, const struct gguf_writer_llama *o)
{
    struct gguf_writer_llama options = *o;
    struct gguf_writer w;
    char path[4200];
    options.vocab = DEMO_VOCAB;
    gguf_writer_llama(&w, &options);
    copy_tokenizer(&w);
    snprintf(path, sizeof path, "%s/%s.gguf", weft_test_tmpdir(), name);
    ck_assert_msg(gguf_writer_save(&w, path), "%s: %s", path, strerror(errno));
    gguf_writer_done(&w);
    char *copy = strdup(path);
    ck_assert_ptr_nonnull(copy);
    return copy;
}
