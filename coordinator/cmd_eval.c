/*
 * weft eval: what the model computes, for comparison: logits of every position of a prompt given as
 * ids, greedy continuation, or the perplexity of a text. Through a cluster or a private daemon, the
 * same code.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "coordinator/app.h"
#include "coordinator/input.h"
#include "coordinator/output.h"

struct eval {
    struct weft_app *app;
    struct weft_session *session;
    int32_t *ids; /* prompt, or all tokens of the text */
    uint32_t n_ids;
    uint32_t n_predict;
    struct weft_str greedy; /* "3, 4, 5" */
    FILE *logits;           /* temporary file beside the wanted one */
    char *logits_tmp;
    /* perplexity: windows of the context, each from an empty cache */
    bool perplexity;
    uint32_t window_start, window_n;
    double nll, nll_squares;
    uint64_t scored;
};

static void fail(struct eval *e, const weft_err *err)
{
    weft_app_close_cluster(e->app, weft_app_fail(e->app, err));
}

/* ------------------------------------------------------------------ logits file: whole or not at
 * all */

static int open_logits(struct eval *e, weft_err *err)
{
    const char *path = e->app->opt->logits;
    struct weft_str tmp = {0};
    struct stat st;
    /* A device or a pipe is written as it is: renaming onto it would replace it. */
    bool direct = stat(path, &st) == 0 && !S_ISREG(st.st_mode);
    if (!direct) {
        weft_str_addf(&tmp, "%s.%d.tmp", path, (int)getpid());
        if (tmp.failed)
            return weft_fail(err, WEFT_ENOMEM, "%s", path);
        e->logits_tmp = tmp.data;
    }
    e->logits = fopen(direct ? path : e->logits_tmp, "wb");
    if (e->logits == NULL)
        return weft_fail_errno(err, errno, "%s", direct ? path : e->logits_tmp);
    return 0;
}

static int finish_logits(struct eval *e, weft_err *err)
{
    const char *path = e->app->opt->logits;
    FILE *f = e->logits;
    e->logits = NULL;
    int bad = fflush(f) != 0 || (e->logits_tmp != NULL && fsync(fileno(f)) != 0);
    int errnum = errno;
    if (fclose(f) != 0 && !bad) {
        bad = 1;
        errnum = errno;
    }
    if (!bad && e->logits_tmp != NULL && rename(e->logits_tmp, path) != 0) {
        bad = 1;
        errnum = errno;
    }
    return bad ? weft_fail_errno(err, errnum, "%s: the logits could not be written", path) : 0;
}

/* ------------------------------------------------------------------ perplexity */

/* -ln p(id) under softmax(row), in f64. */
static double nll_of(const float *row, uint32_t vocab, int32_t id)
{
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < vocab; i++)
        max = row[i] > max ? (double)row[i] : max;
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp((double)row[i] - max);
    return log(sum) + max - (double)row[id];
}

static int start_window(struct eval *e, weft_err *err)
{
    uint32_t left = e->n_ids - e->window_start;
    e->window_n = left < e->app->file.context ? left : e->app->file.context;
    const struct weft_turn turn = {
        .tokens = e->ids + e->window_start,
        .n_tokens = e->window_n,
        .want_logits = true,
        .sampling = {.top_p = 1, .repeat_penalty = 1},
    };
    return weft_session_turn(e->session, &turn, err);
}

static void print_perplexity(struct eval *e)
{
    struct weft_str out = {0};
    double n = (double)e->scored, mean = e->nll / n;
    double variance = n > 1 ? (e->nll_squares / n - mean * mean) / (n - 1) : 0;
    double ppl = exp(mean), error = ppl * sqrt(variance > 0 ? variance : 0);
    if (e->app->opt->json)
        weft_str_addf(
            &out,
            "{\"perplexity\": %.6f, \"standard_error\": %.6f, \"tokens\": %llu, \"context\": %u}\n",
            ppl, error, (unsigned long long)e->scored, e->app->file.context);
    else
        weft_str_addf(&out, "perplexity %.4f ± %.4f over %llu tokens, context %u\n", ppl, error,
                      (unsigned long long)e->scored, e->app->file.context);
    weft_output_write(e->app->out, out.data, out.size);
    weft_str_done(&out);
}

/* ------------------------------------------------------------------ events */

static void on_token(void *arg, int32_t id, enum weft_finish finish)
{
    struct eval *e = arg;
    (void)finish;
    weft_str_addf(&e->greedy, "%s%d", e->greedy.size > 0 ? ", " : "", id);
}

static void on_logits(void *arg, uint32_t position, const float *row, uint32_t vocab)
{
    struct eval *e = arg;
    if (e->perplexity) {
        if (position + 1 < e->window_n) {
            double x = nll_of(row, vocab, e->ids[e->window_start + position + 1]);
            e->nll += x;
            e->nll_squares += x * x;
            e->scored++;
        }
    } else if (position < e->n_ids && e->logits != NULL &&
               fwrite(row, sizeof *row, vocab, e->logits) != vocab) {
        weft_err why = {0};
        (void)weft_fail_errno(&why, errno, "%s: the logits could not be written",
                              e->app->opt->logits);
        fail(e, &why);
    }
}

static void print_greedy(struct eval *e)
{
    struct weft_str out = {0};
    weft_str_adds(&out, "{\"prompt\": [");
    for (uint32_t i = 0; i < e->n_ids; i++)
        weft_str_addf(&out, "%s%d", i > 0 ? ", " : "", e->ids[i]);
    weft_str_addf(&out, "], \"greedy\": [%s]", e->greedy.size > 0 ? e->greedy.data : "");
    if (e->app->opt->logits != NULL) {
        weft_str_adds(&out, ", \"logits\": ");
        weft_str_add_json(&out, e->app->opt->logits, strlen(e->app->opt->logits));
        weft_str_addf(&out, ", \"shape\": [%u, %u]", e->n_ids, e->app->model.vocab);
    }
    weft_str_adds(&out, "}\n");
    weft_output_write(e->app->out, out.data, out.size);
    weft_str_done(&out);
}

static void on_done(void *arg, const weft_err *err, enum weft_finish finish)
{
    struct eval *e = arg;
    weft_err why = {0};
    int r = 0;
    (void)finish;
    if (e->app->closing)
        return;
    if (err != NULL) {
        fail(e, err);
        return;
    }
    if (e->perplexity) {
        e->window_start += e->window_n;
        if (e->n_ids - e->window_start >= 2) {
            if (start_window(e, &why) < 0)
                fail(e, &why);
            return;
        }
        print_perplexity(e);
    } else {
        if (e->logits != NULL)
            r = finish_logits(e, &why);
        if (r == 0)
            print_greedy(e);
    }
    weft_app_close_cluster(e->app, r < 0 ? weft_app_fail(e->app, &why) : WEFT_EXIT_OK);
}

static const struct weft_session_events events = {
    .token = on_token,
    .logits = on_logits,
    .done = on_done,
};

static void on_open(void *arg, const weft_err *err)
{
    struct weft_app *app = arg;
    struct eval *e = app->command;
    weft_err why = {0};
    if (err != NULL) {
        fail(e, err);
        return;
    }
    int r = weft_session_open(app->cluster, &events, e, &e->session, &why);
    if (r == 0 && app->opt->logits != NULL)
        r = open_logits(e, &why);
    if (r == 0 && e->perplexity)
        r = start_window(e, &why);
    else if (r == 0) {
        const struct weft_turn turn = {
            .tokens = e->ids,
            .n_tokens = e->n_ids,
            .max_tokens = e->n_predict,
            .want_logits = true,
            .sampling = {.top_p = 1, .repeat_penalty = 1},
        };
        r = weft_session_turn(e->session, &turn, &why);
    }
    if (r < 0)
        fail(e, &why);
}

static int take_ids(struct eval *e, weft_err *err)
{
    uint32_t vocab = e->app->model.vocab;
    int r = weft_options_ids(e->app->opt->ids, &e->ids, &e->n_ids, err);
    for (uint32_t i = 0; r == 0 && i < e->n_ids; i++)
        if ((uint32_t)e->ids[i] >= vocab)
            r = weft_fail(err, WEFT_EUSAGE,
                          "--ids: token %d, expected below %u, the vocabulary of %s", e->ids[i],
                          vocab, e->app->model.name);
    return r;
}

/* Ids of the command line, or of the text for perplexity. */
static int prepare(struct eval *e, weft_err *err)
{
    struct weft_app *app = e->app;
    if (app->opt->ids != NULL)
        return take_ids(e, err);
    struct weft_str text = {0};
    struct weft_tokenizer *tokenizer = NULL;
    size_t n = 0;
    int r = weft_input_file(app->opt->file, &text, err);
    if (r == 0)
        r = weft_tokenizer_open(&app->model_file.gguf, &tokenizer, err);
    if (r == 0)
        weft_app_warn(weft_tokenizer_warning(tokenizer));
    if (r == 0)
        r = weft_tokenizer_encode(tokenizer, text.size > 0 ? text.data : "", text.size,
                                  WEFT_ENCODE_BOS, &e->ids, &n, err);
    if (r == 0 && n < 2)
        r = weft_fail(err, WEFT_EUSAGE, "%s: %zu tokens; perplexity needs at least 2",
                      app->opt->file, n);
    e->n_ids = (uint32_t)n;
    e->perplexity = true;
    weft_tokenizer_close(tokenizer);
    weft_str_done(&text);
    return r;
}

int weft_cmd_eval(struct weft_app *app)
{
    struct eval e = {.app = app};
    weft_err err = {0};
    int code;
    app->command = &e;
    int r = weft_app_load(app, true, &err);
    if (r == 0)
        r = prepare(&e, &err);
    e.n_predict = app->opt->predict > 0 ? (uint32_t)app->opt->predict : 0;
    if (r < 0) {
        code = weft_app_fail(app, &err);
    } else {
        weft_app_open_cluster(app, WEFT_APP_DEPLOY, on_open);
        code = app->loop(app);
    }
    if (e.logits != NULL)
        fclose(e.logits);
    if (e.logits_tmp != NULL)
        unlink(e.logits_tmp); /* gone already when all went well */
    free(e.logits_tmp);
    free(e.ids);
    weft_str_done(&e.greedy);
    return code;
}
