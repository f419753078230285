/*
 * weft tokenize and weft detokenize: what a text becomes, and what tokens stand for, with the
 * vocabulary of a GGUF file alone. Runs on the main thread, without the loop.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/app.h"
#include "coordinator/detok.h"
#include "coordinator/input.h"
#include "coordinator/output.h"

/* Opens the file and its tokenizer (close it); a model that weft cannot run will do. */
static int open_tokenizer(struct weft_app *app, struct weft_tokenizer **ret, weft_err *err)
{
    int r = weft_app_open_model(app, err);
    if (r < 0)
        return r; /* names the file already */
    r = weft_tokenizer_open(&app->model_file.gguf, ret, err);
    if (r < 0) {
        weft_err_prefix(err, "%s", app->model_path);
        return r;
    }
    weft_app_warn(weft_tokenizer_warning(*ret));
    return 0;
}

/* The operand, or standard input as it is. */
static int read_operand(const struct weft_app *app, struct weft_str *out, weft_err *err)
{
    if (strcmp(app->opt->prompt, "-") == 0)
        return weft_input_file("-", out, err);
    weft_str_adds(out, app->opt->prompt);
    return out->failed ? weft_fail(err, WEFT_ENOMEM, "command line") : 0;
}

/* ------------------------------------------------------------------ tokenize */

/* In quotes, so that blanks can be seen; a part of a character as its bytes. */
static void add_quoted(const char *s, size_t n, struct weft_str *out)
{
    weft_str_adds(out, "\"");
    for (size_t i = 0; i < n;) {
        uint32_t code;
        const size_t step = weft_utf8_decode(s + i, n - i, &code);
        if (step == 0)
            weft_str_addf(out, "\\x%02X", (unsigned)(uint8_t)s[i]);
        else if (code == '\n' || code == '\r' || code == '\t')
            weft_str_adds(out, code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t");
        else if (code == '"' || code == '\\')
            weft_str_addf(out, "\\%c", (int)code);
        else if (!weft_code_printable(code))
            weft_str_addf(out, code < 0x10000 ? "\\u%04X" : "\\U%08X", (unsigned)code);
        else
            weft_str_add(out, s + i, step);
        i += step > 0 ? step : 1;
    }
    weft_str_adds(out, "\"");
}

static void print_ids(const int32_t *ids, size_t n, const char *between, struct weft_str *out)
{
    for (size_t i = 0; i < n; i++)
        weft_str_addf(out, "%s%d", i > 0 ? between : "", ids[i]);
}

/* A control token stands for no text: its name, without quotes. */
static void print_table(const struct weft_tokenizer *t, const int32_t *ids, size_t n,
                        struct weft_str *out)
{
    char quoted[WEFT_QUOTE_SIZE];
    for (size_t i = 0; i < n; i++) {
        size_t size;
        weft_str_addf(out, "%7d  ", ids[i]);
        if (weft_tokenizer_is_control(t, ids[i])) {
            const char *name = weft_tokenizer_text(t, ids[i], &size);
            weft_quote(quoted, sizeof quoted, name, size);
            weft_str_add(out, quoted + 1, strlen(quoted) - 2);
        } else {
            const char *piece = weft_tokenizer_piece(t, ids[i], &size);
            add_quoted(piece, size, out);
        }
        weft_str_adds(out, "\n");
    }
}

static void print_json(const struct weft_tokenizer *t, const int32_t *ids, size_t n, bool ids_only,
                       struct weft_str *out)
{
    weft_str_adds(out, "{\"ids\": [");
    print_ids(ids, n, ", ", out);
    weft_str_adds(out, ids_only ? "]" : "], \"tokens\": [");
    for (size_t i = 0; i < n && !ids_only; i++) {
        const bool control = weft_tokenizer_is_control(t, ids[i]);
        size_t size;
        const char *text = control ? weft_tokenizer_text(t, ids[i], &size)
                                   : weft_tokenizer_piece(t, ids[i], &size);
        weft_str_addf(out, "%s{\"id\": %d, \"text\": ", i > 0 ? ", " : "", ids[i]);
        weft_str_add_json(out, text, size);
        weft_str_addf(out, ", \"control\": %s}", control ? "true" : "false");
    }
    weft_str_adds(out, ids_only ? "}\n" : "]}\n");
}

int weft_cmd_tokenize(struct weft_app *app)
{
    const struct weft_options *opt = app->opt;
    struct weft_tokenizer *t = NULL;
    struct weft_str text = {0}, out = {0};
    int32_t *ids = NULL;
    size_t n = 0;
    weft_err err = {0};
    const unsigned flags =
        (opt->no_bos ? 0u : WEFT_ENCODE_BOS) | (opt->special ? WEFT_ENCODE_SPECIAL : 0u);
    int r = open_tokenizer(app, &t, &err);
    if (r == 0)
        r = read_operand(app, &text, &err);
    if (r == 0)
        r = weft_tokenizer_encode(t, text.size > 0 ? text.data : "", text.size, flags, &ids, &n,
                                  &err);
    if (r == 0 && opt->json) {
        print_json(t, ids, n, opt->ids_only, &out);
    } else if (r == 0 && opt->ids_only) {
        print_ids(ids, n, ",", &out);
        weft_str_adds(&out, "\n");
    } else if (r == 0) {
        print_table(t, ids, n, &out);
    }
    if (r == 0 && out.failed)
        r = weft_fail(&err, WEFT_ENOMEM, "no memory to show %zu tokens", n);
    if (r == 0 && out.size > 0)
        weft_output_write_all(app->out, out.data, out.size);
    free(ids);
    weft_str_done(&text);
    weft_str_done(&out);
    weft_tokenizer_close(t);
    return r < 0 ? weft_app_fail(app, &err) : WEFT_EXIT_OK;
}

/* ------------------------------------------------------------------ detokenize */

/* Appends the text of one id. */
static int push(struct weft_detok *d, int32_t id, bool special, struct weft_str *out, weft_err *err)
{
    size_t n;
    if (special && weft_tokenizer_is_control(d->tokenizer, id)) {
        const char *name = weft_tokenizer_text(d->tokenizer, id, &n);
        weft_detok_finish(d, out); /* a character that was cut off stands before the name */
        weft_str_add(out, name, n);
    }
    return weft_detok_push(d, id, out, err);
}

/* Text of ids with commas or blanks between them. */
static int decode(const struct weft_tokenizer *t, const struct weft_str *list, bool special,
                  struct weft_str *out, size_t *ret_n, weft_err *err)
{
    static const char between[] = ", \t\r\n";
    struct weft_detok d;
    size_t count = 0;
    int r = 0;
    weft_detok_init(&d, t, WEFT_DETOK_START);
    if (list->size > 0 && memchr(list->data, '\0', list->size) != NULL)
        return weft_fail(err, WEFT_EUSAGE, "ids: found a byte 0, expected numbers");
    const char *at = list->size > 0 ? list->data : "";
    for (at += strspn(at, between); r == 0 && *at != '\0'; at += strspn(at, between)) {
        const size_t n = strcspn(at, between);
        char number[16], quoted[WEFT_QUOTE_SIZE];
        uint64_t id = 0;
        /* Whatever is longer than the buffer is no id. */
        snprintf(number, sizeof number, "%.*s", n < sizeof number ? (int)n : 0, at);
        count++;
        if (weft_parse_u64(number, 0, INT32_MAX, &id, NULL) < 0)
            return weft_fail(err, WEFT_EUSAGE, "ids: number %zu is %s, expected 0..%u", count,
                             weft_quote(quoted, sizeof quoted, at, n), weft_tokenizer_vocab(t) - 1);
        r = push(&d, (int32_t)id, special, out, err);
        at += n;
    }
    weft_detok_finish(&d, out);
    *ret_n = count;
    return r;
}

int weft_cmd_detokenize(struct weft_app *app)
{
    const struct weft_options *opt = app->opt;
    struct weft_tokenizer *t = NULL;
    struct weft_str list = {0}, text = {0}, out = {0};
    size_t n = 0;
    weft_err err = {0};
    int r = open_tokenizer(app, &t, &err);
    if (r == 0)
        r = read_operand(app, &list, &err);
    if (r == 0)
        r = decode(t, &list, opt->special, &text, &n, &err);
    if (r == 0 && opt->json) {
        weft_str_addf(&out, "{\"tokens\": %zu, \"text\": ", n);
        weft_str_add_json(&out, text.size > 0 ? text.data : "", text.size);
        weft_str_adds(&out, "}\n");
    } else if (r == 0 && text.size > 0) {
        weft_str_add(&out, text.data, text.size);
        if (app->out_tty && text.data[text.size - 1] != '\n')
            weft_str_adds(&out, "\n");
    }
    if (r == 0 && (out.failed || text.failed))
        r = weft_fail(&err, WEFT_ENOMEM, "no memory to show %zu tokens", n);
    if (r == 0 && out.size > 0)
        weft_output_write_all(app->out, out.data, out.size);
    weft_str_done(&list);
    weft_str_done(&text);
    weft_str_done(&out);
    weft_tokenizer_close(t);
    return r < 0 ? weft_app_fail(app, &err) : WEFT_EXIT_OK;
}
