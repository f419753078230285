/*
 * Bench report: what `weft bench` prints, as a Markdown table, as CSV or as JSON. Pure: numbers and
 * names in, text out.
 *
 * Invariant: CSV and JSON have the same fields by the same names, units in them; JSON adds the
 * samples and the devices one by one.
 */
#ifndef WEFT_COORDINATOR_BENCH_REPORT_H
#define WEFT_COORDINATOR_BENCH_REPORT_H

#include "base/text.h"

struct weft_bench_device {
    const char *name; /* in the cluster file */
    char isa[32];     /* kernel table */
    char cpu[128];    /* as the daemon names it */
    uint32_t threads;
};

/* What is the same for all tests of a deployed model; borrowed. */
struct weft_bench_setup {
    const char *model, *file;         /* general.name; path */
    const char *type;                 /* of most weight bytes: "Q4_0" */
    const char *kv, *gemm;            /* as in the cluster file */
    const char *plan;                 /* "a 0-2, b 3-5" */
    uint64_t model_bytes, parameters; /* of all tensors */
    uint32_t context, batch_rows;
    const struct weft_bench_device *devices; /* [n_devices], those of the plan */
    uint32_t n_devices;
};

/* One of the two is 0. */
struct weft_bench_test {
    uint32_t prompt_tokens; /* time from the prompt to the first token of the answer */
    uint32_t answer_tokens; /* time from a prompt of one token to the last token of the answer */
};

struct weft_bench_result {
    struct weft_bench_test test;
    const uint64_t *sample_ns; /* [n_samples], each more than 0 */
    uint32_t n_samples;
};

enum weft_bench_format { WEFT_BENCH_MD, WEFT_BENCH_CSV, WEFT_BENCH_JSON };

/* "pp128", "tg32"; returns buf. */
#define WEFT_BENCH_NAME_SIZE 16
char *weft_bench_name(char buf[WEFT_BENCH_NAME_SIZE], const struct weft_bench_test *t);
/* Mean and standard deviation (of a sample: n - 1) of tokens per second. */
void weft_bench_speed(const struct weft_bench_result *r, double *ret_mean, double *ret_stddev);

/* Before the first result, for each, and after the last. */
void weft_bench_begin(enum weft_bench_format f, const struct weft_bench_setup *s,
                      struct weft_str *out);
void weft_bench_add(enum weft_bench_format f, const struct weft_bench_setup *s,
                    const struct weft_bench_result *r, bool first, struct weft_str *out);
void weft_bench_end(enum weft_bench_format f, const struct weft_bench_setup *s,
                    struct weft_str *out);

#endif
