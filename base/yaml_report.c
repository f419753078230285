/*
 * YAML files: the list of errors and its text, file:line:col with the source line and a caret.
 *
 * Invariant: a report holds printable UTF-8 and line ends only, and no line of source longer than
 * LINE_CHARS_MAX, whatever the file holds. One owner, any thread.
 */
#include "base/yaml_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* With the four spaces before it a line of source fits a terminal of 100 columns. */
#define LINE_CHARS_MAX 94
/* A caret further right makes the start of its line be cut, so that it stands in the middle. */
#define CARET_CHARS_MAX (LINE_CHARS_MAX * 3 / 4)
#define CARET_CHARS (LINE_CHARS_MAX / 2)
#define MESSAGE_BYTES_MAX 1024
#define PATH_KEY_BYTES_MAX 40 /* of one key within a path */

/* Copies n bytes into out (n + 1 bytes) with what is not printable as '?'. */
static void copy_printable(char *out, const char *s, size_t n)
{
    size_t used = 0;
    for (size_t at = 0, step; at < n; at += step) {
        uint32_t code;
        step = weft_utf8_decode(s + at, n - at, &code);
        if (step != 0 && weft_code_printable(code)) {
            memcpy(out + used, s + at, step);
            used += step;
        } else {
            out[used++] = '?';
            step = step != 0 ? step : 1;
        }
    }
    out[used] = '\0';
}

/* "devices[1].memory: ", or nothing for the root; ends above an entry whose key was refused.
 * Returns the length, at most n - 1. */
static size_t format_path(char *buf, size_t n, const struct weft_yaml_node *node)
{
    const struct weft_yaml_node *steps[WEFT_YAML_DEPTH_MAX + 1] = {NULL};
    size_t depth = 0, used = 0;
    for (; node != NULL && node->parent != NULL && depth <= WEFT_YAML_DEPTH_MAX;
         node = node->parent) {
        if (node->parent->kind == WEFT_YAML_NODE_MAP && node->key == NULL)
            depth = 0;
        else
            steps[depth++] = node;
    }
    buf[0] = '\0';
    for (size_t i = depth; i-- > 0 && used < n;) {
        int r;
        if (steps[i]->parent->kind == WEFT_YAML_NODE_LIST)
            r = snprintf(buf + used, n - used, "[%zu]", steps[i]->index);
        else
            r = snprintf(buf + used, n - used, "%s%.*s", used > 0 ? "." : "", PATH_KEY_BYTES_MAX,
                         steps[i]->key);
        used += r > 0 ? (size_t)r : 0;
    }
    if (used > 0 && used < n)
        used += (size_t)snprintf(buf + used, n - used, ": ");
    return used < n ? used : n - 1;
}

static void record(struct weft_yaml_doc *doc, const struct weft_yaml_mark *mark,
                   const struct weft_yaml_node *node, const char *fmt, va_list args)
    __attribute__((format(printf, 4, 0)));

/* mark NULL: the file as a whole. */
static void record(struct weft_yaml_doc *doc, const struct weft_yaml_mark *mark,
                   const struct weft_yaml_node *node, const char *fmt, va_list args)
{
    char message[MESSAGE_BYTES_MAX];
    if (doc->n_problems == WEFT_YAML_ERRORS_MAX) {
        doc->too_many = true;
        return;
    }
    size_t used = format_path(message, sizeof message / 2, node);
    vsnprintf(message + used, sizeof message - used, fmt, args);
    size_t n = strlen(message);
    char *text = weft_arena_alloc(&doc->arena, n + 1);
    if (text == NULL) {
        doc->no_memory = true;
        return;
    }
    copy_printable(text, message, n);
    struct weft_yaml_problem *problem = &doc->problems[doc->n_problems];
    *problem = (struct weft_yaml_problem){
        .order = doc->n_problems, .whole_file = mark == NULL, .text = text};
    if (mark != NULL)
        problem->mark = *mark;
    doc->n_problems++;
}

void weft_yaml_error_at(struct weft_yaml_doc *doc, struct weft_yaml_mark mark,
                        const struct weft_yaml_node *node, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    record(doc, &mark, node, fmt, args);
    va_end(args);
}

void weft_yaml_error(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, const char *fmt,
                     ...)
{
    va_list args;
    va_start(args, fmt);
    record(doc, node != NULL ? &node->mark : NULL, node, fmt, args);
    va_end(args);
}

size_t weft_yaml_error_count(const struct weft_yaml_doc *doc)
{
    return doc->n_problems + doc->too_many + doc->no_memory;
}

/* ---- the report ---- */

/* The bytes of a line without its end; NULL when the file has no such line or an empty one. */
static const char *find_line(const struct weft_yaml_doc *doc, size_t line, size_t *ret_size)
{
    if (doc->text == NULL)
        return NULL;
    const char *p = doc->text, *end = p + doc->size;
    for (; line > 0 && p < end; p++)
        if (*p == '\n' || (*p == '\r' && p[1] != '\n')) /* a 0 stands behind the text */
            line--;
    size_t n = 0;
    while (p + n < end && p[n] != '\n' && p[n] != '\r')
        n++;
    *ret_size = n;
    return line == 0 && n > 0 ? p : NULL;
}

/* One character of a source line, made harmless. Returns the bytes it takes in the line. */
static size_t add_char(struct weft_str *out, const char *s, size_t n)
{
    uint32_t code;
    size_t step = weft_utf8_decode(s, n, &code);
    if (step == 0 || (code != '\t' && !weft_code_printable(code)))
        weft_str_add(out, "?", 1);
    else if (code == '\t')
        weft_str_add(out, " ", 1); /* one column, so that the caret below stays right */
    else
        weft_str_add(out, s, step);
    return step != 0 ? step : 1;
}

/* The line of a mark, from its first character that is no blank, and the caret below. Long lines
 * are cut at both sides of the caret. */
static void add_source(const struct weft_yaml_doc *doc, struct weft_yaml_mark mark,
                       struct weft_str *out)
{
    size_t n, from = 0;
    const char *line = find_line(doc, mark.line, &n);
    if (line == NULL)
        return;
    while (from < n && from < mark.column && (line[from] == ' ' || line[from] == '\t'))
        from++;
    bool cut = mark.column - from > CARET_CHARS_MAX;
    if (cut)
        from = mark.column - CARET_CHARS; /* blanks are one byte each, others are skipped below */
    weft_str_adds(out, "    ");
    if (cut)
        weft_str_adds(out, "…");
    size_t column = 0, shown = cut ? 1 : 0;
    uint32_t code;
    for (size_t at = 0, step; at < n; at += step, column++) {
        if (column < from) {
            step = weft_utf8_decode(line + at, n - at, &code);
            step = step != 0 ? step : 1;
            continue;
        }
        step = weft_utf8_decode(line + at, n - at, &code);
        if (shown + 1 >= LINE_CHARS_MAX && at + (step != 0 ? step : 1) < n) {
            weft_str_adds(out, "…");
            break;
        }
        step = add_char(out, line + at, n - at);
        shown++;
    }
    weft_str_addf(out, "\n    %*s^\n", (int)(mark.column - from + (cut ? 1 : 0)), "");
}

/* By place, whole-file errors first; equal ones as they were recorded. */
static int compare_problems(const void *a, const void *b)
{
    const struct weft_yaml_problem *x = a, *y = b;
    if (x->whole_file != y->whole_file)
        return x->whole_file ? -1 : 1;
    if (x->mark.line != y->mark.line)
        return x->mark.line < y->mark.line ? -1 : 1;
    if (x->mark.column != y->mark.column)
        return x->mark.column < y->mark.column ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

void weft_yaml_report(const struct weft_yaml_doc *doc, struct weft_str *out)
{
    struct weft_yaml_problem sorted[WEFT_YAML_ERRORS_MAX];
    memcpy(sorted, doc->problems, sizeof sorted);
    qsort(sorted, doc->n_problems, sizeof sorted[0], compare_problems);
    for (size_t i = 0; i < doc->n_problems; i++) {
        const struct weft_yaml_problem *p = &sorted[i];
        if (p->whole_file) {
            weft_str_addf(out, "%s: %s\n", doc->name, p->text);
            continue;
        }
        weft_str_addf(out, "%s:%zu:%zu: %s\n", doc->name, p->mark.line + 1, p->mark.column + 1,
                      p->text);
        add_source(doc, p->mark, out);
    }
    if (doc->too_many)
        weft_str_addf(out, "%s: too many errors, only %d are shown\n", doc->name,
                      WEFT_YAML_ERRORS_MAX);
    if (doc->no_memory)
        weft_str_addf(out, "%s: out of memory\n", doc->name);
}

int weft_yaml_check(const struct weft_yaml_doc *doc, struct weft_str *report, weft_err *err)
{
    if (weft_yaml_error_count(doc) == 0)
        return 0;
    weft_yaml_report(doc, report);
    if (doc->no_memory || report->failed)
        return weft_fail(err, WEFT_ENOMEM, "%s: out of memory", doc->name);
    if (doc->too_many)
        return weft_fail(err, WEFT_ECONFIG, "more than %d errors in %s", WEFT_YAML_ERRORS_MAX,
                         doc->name);
    return weft_fail(err, WEFT_ECONFIG, "%zu error%s in %s", doc->n_problems,
                     doc->n_problems == 1 ? "" : "s", doc->name);
}
