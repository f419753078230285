/*
 * Bench report, see bench_report.h.
 */
#include "coordinator/bench_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

char *weft_bench_name(char buf[WEFT_BENCH_NAME_SIZE], const struct weft_bench_test *t)
{
    if (t->prompt_tokens > 0)
        snprintf(buf, WEFT_BENCH_NAME_SIZE, "pp%" PRIu32, t->prompt_tokens);
    else
        snprintf(buf, WEFT_BENCH_NAME_SIZE, "tg%" PRIu32, t->answer_tokens);
    return buf;
}

static double speed_of(const struct weft_bench_result *r, uint32_t sample)
{
    const uint32_t tokens = r->test.prompt_tokens + r->test.answer_tokens;
    return (double)tokens * 1e9 / (double)r->sample_ns[sample];
}

void weft_bench_speed(const struct weft_bench_result *r, double *ret_mean, double *ret_stddev)
{
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < r->n_samples; i++)
        sum += speed_of(r, i);
    const double mean = r->n_samples > 0 ? sum / r->n_samples : 0;
    for (uint32_t i = 0; i < r->n_samples; i++)
        squares += (speed_of(r, i) - mean) * (speed_of(r, i) - mean);
    *ret_mean = mean;
    *ret_stddev = r->n_samples > 1 ? sqrt(squares / (r->n_samples - 1)) : 0;
}

static uint32_t threads_of(const struct weft_bench_setup *s)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < s->n_devices; i++)
        sum += s->devices[i].threads;
    return sum;
}

/* "avx512", or "avx512+neon" of different devices: each once. */
static void add_isas(const struct weft_bench_setup *s, struct weft_str *out)
{
    for (uint32_t i = 0; i < s->n_devices; i++) {
        uint32_t same = 0;
        while (strcmp(s->devices[same].isa, s->devices[i].isa) != 0)
            same++;
        if (same == i)
            weft_str_addf(out, "%s%s", i > 0 ? "+" : "", s->devices[i].isa);
    }
}

/* ------------------------------------------------------------------ Markdown */

/* Columns of the table. The model's name may be cut, so that a table stays within 100 columns. */
enum { COL_MODEL, COL_TYPE, COL_SIZE, COL_PARAMETERS, COL_THREADS, COL_TEST, COL_SPEED, COL_COUNT };
#define MODEL_COLUMNS 22

static const struct {
    const char *title;
    size_t columns;
    bool right;
} table[COL_COUNT] = {
    [COL_MODEL] = {"model", MODEL_COLUMNS, false},
    [COL_TYPE] = {"type", 6, false},
    [COL_SIZE] = {"size", 8, true},
    [COL_PARAMETERS] = {"params", 8, true},
    [COL_THREADS] = {"threads", 7, true},
    [COL_TEST] = {"test", 7, true},
    [COL_SPEED] = {"tokens/s", 19, true},
};

static void add_cell(int column, const char *text, struct weft_str *out)
{
    const size_t n = weft_text_columns(text);
    const int pad = n < table[column].columns ? (int)(table[column].columns - n) : 0;
    if (table[column].right)
        weft_str_addf(out, "| %*s%s ", pad, "", text);
    else
        weft_str_addf(out, "| %s%*s ", text, pad, "");
}

/* The name for a cell: a '|' would end it. */
static void format_model(char *buf, size_t n, const char *name)
{
    const size_t size = strlen(name);
    size_t used = size < n ? size : weft_utf8_prefix(name, n - sizeof "…");
    memcpy(buf, name, used);
    buf[used] = '\0';
    while (weft_text_columns(buf) > MODEL_COLUMNS - 1 && used > 0) {
        used = weft_utf8_prefix(name, used - 1);
        buf[used] = '\0';
    }
    if (used < size)
        snprintf(buf + used, n - used, "…");
    for (char *at = buf; *at != '\0'; at++)
        if (*at == '|')
            *at = '/';
}

/* "1.10 B", "3.8 M" */
static void format_parameters(char *buf, size_t n, uint64_t count)
{
    if (count >= 1000000000)
        snprintf(buf, n, "%.2f B", (double)count * 1e-9);
    else
        snprintf(buf, n, "%.2f M", (double)count * 1e-6);
}

static void md_begin(struct weft_str *out)
{
    for (int i = 0; i < COL_COUNT; i++)
        add_cell(i, table[i].title, out);
    weft_str_adds(out, "|\n");
    for (int i = 0; i < COL_COUNT; i++) {
        weft_str_adds(out, "| ");
        for (size_t k = table[i].right ? 1 : 0; k < table[i].columns; k++)
            weft_str_adds(out, "-");
        weft_str_adds(out, table[i].right ? ": " : " ");
    }
    weft_str_adds(out, "|\n");
}

static void md_add(const struct weft_bench_setup *s, const struct weft_bench_result *r,
                   struct weft_str *out)
{
    char model[128], size[32], parameters[32], threads[16], name[WEFT_BENCH_NAME_SIZE], speed[64];
    double mean, stddev;
    weft_bench_speed(r, &mean, &stddev);
    format_model(model, sizeof model, s->model);
    format_parameters(parameters, sizeof parameters, s->parameters);
    snprintf(threads, sizeof threads, "%" PRIu32, threads_of(s));
    snprintf(speed, sizeof speed, "%.2f ± %.2f", mean, stddev);
    add_cell(COL_MODEL, model, out);
    add_cell(COL_TYPE, s->type, out);
    add_cell(COL_SIZE, weft_format_size(size, sizeof size, s->model_bytes), out);
    add_cell(COL_PARAMETERS, parameters, out);
    add_cell(COL_THREADS, threads, out);
    add_cell(COL_TEST, weft_bench_name(name, &r->test), out);
    add_cell(COL_SPEED, speed, out);
    weft_str_adds(out, "|\n");
}

static void md_end(const struct weft_bench_setup *s, struct weft_str *out)
{
    weft_str_addf(out, "\nweft %s, isa ", WEFT_VERSION);
    add_isas(s, out);
    weft_str_addf(out, ", kv %s, gemm %s, context %" PRIu32 ", steps of %" PRIu32 " rows\n", s->kv,
                  s->gemm, s->context, s->batch_rows);
    weft_str_addf(out, "plan %s\n", s->plan);
}

/* ------------------------------------------------------------------ fields of CSV and JSON */

typedef void emit_fn(struct weft_str *out, const char *name, const char *value, bool text);

static void emit_number(emit_fn *emit, struct weft_str *out, const char *name, uint64_t value)
{
    char buf[32];
    snprintf(buf, sizeof buf, "%" PRIu64, value);
    emit(out, name, buf, false);
}

static void emit_double(emit_fn *emit, struct weft_str *out, const char *name, double value)
{
    char buf[64];
    snprintf(buf, sizeof buf, "%.4f", value);
    emit(out, name, buf, false);
}

static void each_field(const struct weft_bench_setup *s, const struct weft_bench_result *r,
                       emit_fn *emit, struct weft_str *out)
{
    char name[WEFT_BENCH_NAME_SIZE];
    struct weft_str isas = {0};
    double mean, stddev;
    weft_bench_speed(r, &mean, &stddev);
    add_isas(s, &isas);
    out->failed |= isas.failed;
    emit(out, "test", weft_bench_name(name, &r->test), true);
    emit_number(emit, out, "threads", threads_of(s));
    emit_double(emit, out, "tokens_per_second", mean);
    emit_double(emit, out, "stddev", stddev);
    emit_number(emit, out, "repetitions", r->n_samples);
    emit_number(emit, out, "prompt_tokens", r->test.prompt_tokens);
    emit_number(emit, out, "generated_tokens", r->test.answer_tokens);
    emit(out, "model", s->model, true);
    emit(out, "file", s->file, true);
    emit(out, "type", s->type, true);
    emit_number(emit, out, "model_bytes", s->model_bytes);
    emit_number(emit, out, "parameters", s->parameters);
    emit(out, "kv", s->kv, true);
    emit(out, "gemm", s->gemm, true);
    emit_number(emit, out, "context_positions", s->context);
    emit_number(emit, out, "batch_rows", s->batch_rows);
    emit(out, "isa", isas.data != NULL ? isas.data : "", true);
    emit(out, "plan", s->plan, true);
    emit(out, "version", WEFT_VERSION, true);
    weft_str_done(&isas);
}

/* ------------------------------------------------------------------ CSV, RFC 4180 */

static void csv_separate(struct weft_str *out)
{
    if (out->size > 0 && out->data[out->size - 1] != '\n')
        weft_str_adds(out, ",");
}

static void csv_name(struct weft_str *out, const char *name, const char *value, bool text)
{
    (void)value, (void)text;
    csv_separate(out);
    weft_str_adds(out, name);
}

static void csv_value(struct weft_str *out, const char *name, const char *value, bool text)
{
    (void)name;
    csv_separate(out);
    if (!text) {
        weft_str_adds(out, value);
        return;
    }
    weft_str_adds(out, "\"");
    for (; *value != '\0'; value++)
        weft_str_add(out, *value == '"' ? "\"\"" : value, *value == '"' ? 2 : 1);
    weft_str_adds(out, "\"");
}

/* ------------------------------------------------------------------ JSON */

/* Behind a brace it is the first. */
static void json_value(struct weft_str *out, const char *name, const char *value, bool text)
{
    weft_str_addf(out, "%s\"%s\": ", out->data[out->size - 1] != '{' ? ", " : "", name);
    if (text)
        weft_str_add_json(out, value, strlen(value));
    else
        weft_str_adds(out, value);
}

static void json_add(const struct weft_bench_setup *s, const struct weft_bench_result *r,
                     struct weft_str *out)
{
    weft_str_adds(out, "  {");
    if (out->failed)
        return;
    each_field(s, r, json_value, out);
    weft_str_adds(out, ", \"samples_tokens_per_second\": [");
    for (uint32_t i = 0; i < r->n_samples; i++)
        weft_str_addf(out, "%s%.4f", i > 0 ? ", " : "", speed_of(r, i));
    weft_str_adds(out, "], \"samples_ns\": [");
    for (uint32_t i = 0; i < r->n_samples; i++)
        weft_str_addf(out, "%s%" PRIu64, i > 0 ? ", " : "", r->sample_ns[i]);
    weft_str_adds(out, "], \"devices\": [");
    for (uint32_t i = 0; i < s->n_devices; i++) {
        weft_str_adds(out, i > 0 ? ", {" : "{");
        json_value(out, "name", s->devices[i].name, true);
        json_value(out, "isa", s->devices[i].isa, true);
        json_value(out, "cpu", s->devices[i].cpu, true);
        emit_number(json_value, out, "threads", s->devices[i].threads);
        weft_str_adds(out, "}");
    }
    weft_str_adds(out, "]}");
}

/* ------------------------------------------------------------------ public */

void weft_bench_begin(enum weft_bench_format f, const struct weft_bench_setup *s,
                      struct weft_str *out)
{
    const struct weft_bench_result none = {0};
    if (f == WEFT_BENCH_MD) {
        md_begin(out);
    } else if (f == WEFT_BENCH_CSV) {
        each_field(s, &none, csv_name, out);
        weft_str_adds(out, "\n");
    } else {
        weft_str_adds(out, "[\n");
    }
}

void weft_bench_add(enum weft_bench_format f, const struct weft_bench_setup *s,
                    const struct weft_bench_result *r, bool first, struct weft_str *out)
{
    if (f == WEFT_BENCH_MD) {
        md_add(s, r, out);
    } else if (f == WEFT_BENCH_CSV) {
        each_field(s, r, csv_value, out);
        weft_str_adds(out, "\n");
    } else {
        if (!first)
            weft_str_adds(out, ",\n");
        json_add(s, r, out);
    }
}

void weft_bench_end(enum weft_bench_format f, const struct weft_bench_setup *s,
                    struct weft_str *out)
{
    if (f == WEFT_BENCH_MD)
        md_end(s, out);
    else if (f == WEFT_BENCH_JSON)
        weft_str_adds(out, "\n]\n");
}
