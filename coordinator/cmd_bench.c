/*
 * weft bench: how fast a model runs. A prompt test (ppN) is the time from N tokens of prompt to the
 * first token of the answer, a generation test (tgN) that of N tokens from a prompt of one: N steps
 * of one row, each through the whole ring. Both start when the daemons have begun the turn and end
 * when the last token is here, so they hold what a person gets: network and sampling included,
 * terminal and tokenizer not.
 *
 * Invariant: while a repetition runs this process does nothing but take its tokens; what is said is
 * said between two of them. No stop token ends an answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/app.h"
#include "coordinator/bench_report.h"
#include "coordinator/output.h"

#define TESTS_MAX (2 * WEFT_LIST_MAX)

struct bench {
    struct weft_app *app;
    enum weft_bench_format format;
    struct weft_session *session;
    struct weft_bench_test tests[TESTS_MAX];
    uint32_t n_tests, test;
    uint32_t taken;      /* repetitions of this test; the one to warm up is not counted */
    bool warm;           /* that one is done */
    uint64_t *sample_ns; /* [repetitions] */
    int32_t *ids;        /* [longest prompt] */
    struct weft_bench_setup setup;
    struct weft_bench_device devices[WEFT_CLUSTER_DEVICES_MAX];
    struct weft_str plan;
    struct weft_str json; /* whole at the end or not at all */
    uint32_t n_results;
};

static void fail(struct bench *b, const weft_err *err)
{
    weft_app_close_cluster(b->app, weft_app_fail(b->app, err));
}

/* ------------------------------------------------------------------ terminal */

/* The cursor goes back to the start of the line: a row of the table, which is longer, may come over
 * the words at any time. */
static void say_progress(const struct bench *b)
{
    char name[WEFT_BENCH_NAME_SIZE];
    if (!b->app->err_tty)
        return;
    weft_bench_name(name, &b->tests[b->test]);
    if (b->warm)
        fprintf(stderr, "\033[K%s %u of %u\r", name, b->taken + 1, b->app->opt->repetitions);
    else
        fprintf(stderr, "\033[K%s warm-up\r", name);
}

static void erase_progress(const struct bench *b)
{
    if (b->app->err_tty)
        fputs("\033[K", stderr);
}

static void print(struct bench *b, struct weft_str *text)
{
    if (b->format == WEFT_BENCH_JSON) {
        weft_str_add(&b->json, text->data != NULL ? text->data : "", text->size);
    } else {
        erase_progress(b);
        weft_output_write(b->app->out, text->data != NULL ? text->data : "", text->size);
    }
    weft_str_done(text);
}

/* ------------------------------------------------------------------ tests */

static int start(struct bench *b, weft_err *err)
{
    const struct weft_bench_test *t = &b->tests[b->test];
    const struct weft_turn turn = {
        .tokens = b->ids,
        .n_tokens = t->prompt_tokens > 0 ? t->prompt_tokens : 1,
        .max_tokens = t->prompt_tokens > 0 ? 1 : t->answer_tokens,
        .sampling = {.top_p = 1, .repeat_penalty = 1}, /* the likeliest token */
    };
    say_progress(b);
    return weft_session_turn(b->session, &turn, err);
}

static void add_result(struct bench *b)
{
    struct weft_str text = {0};
    const struct weft_bench_result result = {
        .test = b->tests[b->test], .sample_ns = b->sample_ns, .n_samples = b->taken};
    if (b->n_results == 0)
        weft_bench_begin(b->format, &b->setup, &text);
    weft_bench_add(b->format, &b->setup, &result, b->n_results == 0, &text);
    b->n_results++;
    print(b, &text);
}

/* Takes the time of a turn that ended well. */
static int take_time(struct bench *b, weft_err *err)
{
    const struct weft_bench_test *t = &b->tests[b->test];
    const uint32_t expected = t->prompt_tokens > 0 ? 1 : t->answer_tokens;
    uint64_t prompt_ns, answer_ns;
    uint32_t tokens;
    weft_session_times(b->session, &prompt_ns, &answer_ns, &tokens);
    if (tokens != expected)
        return weft_fail(err, WEFT_EPROTOCOL, "an answer of %u tokens, expected %u", tokens,
                         expected);
    const uint64_t ns = prompt_ns - weft_session_begin_ns(b->session) + answer_ns;
    if (b->warm)
        b->sample_ns[b->taken++] = ns > 0 ? ns : 1;
    b->warm = true;
    return 0;
}

static void on_token(void *arg, int32_t id, enum weft_finish finish)
{
    (void)arg, (void)id, (void)finish; /* the session counts them */
}

static void on_done(void *arg, const weft_err *err, enum weft_finish finish)
{
    struct bench *b = arg;
    char name[WEFT_BENCH_NAME_SIZE];
    weft_err why = {0};
    int r = 0;
    (void)finish;
    if (b->app->closing)
        return;
    if (err != NULL) {
        why = *err;
        r = -err->code;
    } else {
        r = take_time(b, &why);
    }
    weft_bench_name(name, &b->tests[b->test]);
    if (r == 0 && b->taken == b->app->opt->repetitions) {
        add_result(b);
        b->taken = 0;
        b->warm = false;
        if (++b->test == b->n_tests) {
            erase_progress(b);
            weft_app_close_cluster(b->app, WEFT_EXIT_OK);
            return;
        }
        weft_bench_name(name, &b->tests[b->test]);
    }
    if (r == 0)
        r = start(b, &why);
    if (r < 0) {
        erase_progress(b);
        weft_err_prefix(&why, "%s", name);
        fail(b, &why);
    }
}

static const struct weft_session_events events = {.token = on_token, .done = on_done};

/* ------------------------------------------------------------------ what is measured */

/* "a 0-2, b 3-5"; a stage without layers holds the embedding or the head. */
static void describe_plan(struct bench *b)
{
    const struct weft_app *app = b->app;
    weft_str_clear(&b->plan);
    b->setup.n_devices = 0;
    for (uint32_t i = 0; i < app->plan.n_stages; i++) {
        const struct weft_plan_stage *st = &app->plan.stages[i];
        const struct weft_device_status *status = weft_cluster_status(app->cluster, st->device);
        const char *device = app->file.devices[st->device].name;
        weft_str_addf(&b->plan, "%s%s ", i > 0 ? ", " : "", device);
        if (st->n_layers == 0)
            weft_str_adds(&b->plan, st->embed ? "embedding" : "head");
        else if (st->n_layers == 1)
            weft_str_addf(&b->plan, "%u", st->first_layer);
        else
            weft_str_addf(&b->plan, "%u-%u", st->first_layer, st->first_layer + st->n_layers - 1);
        uint32_t k = 0; /* a device may serve several stages */
        while (k < b->setup.n_devices && b->devices[k].name != device)
            k++;
        if (k < b->setup.n_devices)
            continue;
        struct weft_bench_device *d = &b->devices[b->setup.n_devices++];
        *d = (struct weft_bench_device){.name = device, .threads = status->threads};
        snprintf(d->isa, sizeof d->isa, "%s", status->isa);
        snprintf(d->cpu, sizeof d->cpu, "%s", status->cpu);
    }
    b->setup.plan = b->plan.data != NULL ? b->plan.data : "";
    b->setup.devices = b->devices;
}

/* Sizes, and the type that most bytes are of. */
static void describe_model(struct bench *b)
{
    const struct weft_app *app = b->app;
    const struct weft_gguf *g = &app->model_file.gguf;
    uint64_t bytes[WEFT_TENSOR_TYPE_COUNT] = {0};
    uint32_t most = 0;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const struct weft_gguf_tensor *t = &g->tensors[i];
        b->setup.model_bytes += t->bytes;
        b->setup.parameters += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        bytes[t->type] += t->bytes;
        if (bytes[t->type] > bytes[most])
            most = t->type;
    }
    b->setup.model = app->model.name;
    b->setup.file = app->opt->model != NULL ? app->opt->model : app->file.model;
    b->setup.type = weft_tensor_type_info(most)->name;
    b->setup.kv = weft_kv_names[app->file.kv];
    b->setup.gemm = app->file.gemm_weft || weft_model_quantised(&app->model) ? "weft" : "openblas";
    b->setup.context = app->file.context;
    b->setup.batch_rows = app->file.batch_rows;
}

static void on_open(void *arg, const weft_err *err)
{
    struct weft_app *app = arg;
    struct bench *b = app->command;
    weft_err why = {0};
    if (err != NULL) {
        fail(b, err);
        return;
    }
    describe_plan(b);
    b->test = 0;
    int r = weft_session_open(app->cluster, &events, b, &b->session, &why);
    if (r == 0)
        r = start(b, &why);
    if (r < 0)
        fail(b, &why);
}

/* ------------------------------------------------------------------ before and after */

static enum weft_bench_format format_of(const char *name)
{
    return strcmp(name, "md") == 0    ? WEFT_BENCH_MD
           : strcmp(name, "csv") == 0 ? WEFT_BENCH_CSV
                                      : WEFT_BENCH_JSON;
}

/* Tests in the order of llama-bench: all prompts, then all answers. Returns the positions that the
 * longest one needs, one for the token that is sampled last included. */
static uint32_t list_tests(struct bench *b)
{
    const struct weft_options *o = b->app->opt;
    uint32_t most = 0;
    for (uint32_t i = 0; i < o->prompts.n; i++)
        if (o->prompts.values[i] > 0)
            b->tests[b->n_tests++].prompt_tokens = o->prompts.values[i];
    for (uint32_t i = 0; i < o->answers.n; i++)
        if (o->answers.values[i] > 0)
            b->tests[b->n_tests++].answer_tokens = o->answers.values[i];
    for (uint32_t i = 0; i < b->n_tests; i++) {
        uint32_t n = b->tests[i].prompt_tokens + b->tests[i].answer_tokens + 1;
        most = n > most ? n : most;
    }
    return most;
}

static int check_context(const struct bench *b, weft_err *err)
{
    const struct weft_app *app = b->app;
    char name[WEFT_BENCH_NAME_SIZE];
    for (uint32_t i = 0; i < b->n_tests; i++) {
        uint32_t need = b->tests[i].prompt_tokens + b->tests[i].answer_tokens + 1;
        if (need > app->file.context)
            return weft_fail(err, WEFT_ECONTEXT, "%s needs %u positions, the context has %u%s",
                             weft_bench_name(name, &b->tests[i]), need, app->file.context,
                             app->file.context < app->model.context_max
                                 ? ": raise -c"
                                 : ", which is what the model was made for");
    }
    return 0;
}

/* The same ids in every run, all over the vocabulary: the multiplier is that of a 32-bit linear
 * congruential generator (Steele and Vigna, Computationally easy, spectrally good multipliers for
 * congruential pseudorandom number generators, 2021). */
static int make_ids(struct bench *b, weft_err *err)
{
    const uint32_t n = b->app->context_least, vocab = b->app->model.vocab;
    uint32_t state = 1;
    b->ids = malloc(n * sizeof *b->ids);
    b->sample_ns = calloc(b->app->opt->repetitions, sizeof *b->sample_ns);
    if (b->ids == NULL || b->sample_ns == NULL)
        return weft_fail(err, WEFT_ENOMEM, "a prompt of %u tokens", n);
    for (uint32_t i = 0; i < n; i++) {
        state = state * 0x915f77f5u + 1;
        b->ids[i] = (int32_t)((uint64_t)state * vocab >> 32);
    }
    return 0;
}

static int prepare(struct bench *b, weft_err *err)
{
    struct weft_app *app = b->app;
    app->context_least = list_tests(b);
    int r = weft_app_load(app, true, err);
    if (r == 0)
        r = check_context(b, err);
    if (r == 0)
        r = make_ids(b, err);
    if (r == 0)
        describe_model(b);
    return r;
}

/* All tests with the daemons as they are, or a private one of `threads` threads. */
static int measure(struct bench *b, uint32_t threads)
{
    b->app->threads = threads;
    weft_app_open_cluster(b->app, WEFT_APP_DEPLOY, on_open);
    int code = b->app->loop(b->app);
    erase_progress(b);
    weft_app_leave_cluster(b->app);
    return code;
}

int weft_cmd_bench(struct weft_app *app)
{
    const struct weft_u32_list *threads = &app->opt->thread_counts;
    struct bench b = {.app = app, .format = format_of(app->opt->output)};
    struct weft_str text = {0};
    weft_err err = {0};
    int code;
    app->command = &b;
    if (prepare(&b, &err) < 0) {
        code = weft_app_fail(app, &err);
    } else {
        code = measure(&b, threads->n > 0 ? threads->values[0] : 0);
        for (uint32_t i = 1; i < threads->n && code == WEFT_EXIT_OK; i++)
            code = measure(&b, threads->values[i]);
    }
    if (code == WEFT_EXIT_OK) {
        weft_bench_end(b.format, &b.setup, &text);
        print(&b, &text);
        if (b.json.size > 0)
            weft_output_write(app->out, b.json.data, b.json.size);
    }
    weft_str_done(&b.json);
    weft_str_done(&b.plan);
    free(b.sample_ns);
    free(b.ids);
    return code;
}
