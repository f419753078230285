/*
 * A run of the Jinja interpreter: its memory, limits and errors, and the parts it is made of. Only
 * files of the interpreter (coordinator/jinja_*.c) and coordinator/template.c look in here.
 *
 * Invariant: every loop and every copy is paid for in steps, every recursion in depth, every byte
 * in the arena; each has a limit with a name. `at` is the place in the source that errors name.
 */
#ifndef WEFT_COORDINATOR_JINJA_RUN_H
#define WEFT_COORDINATOR_JINJA_RUN_H

#include <assert.h>
#include <time.h>

#include "base/arena.h"
#include "coordinator/jinja_ast.h"
#include "coordinator/jinja_value.h"

#define JINJA_STEPS_MAX (8u << 20) /* nodes run: thousands of messages, about a second */
#define JINJA_STEP_BYTES 64u       /* text that is read or copied within one step */
/* Nodes within each other, over calls of macros: about 1 KiB of stack each, 4 under sanitizers. */
#define JINJA_DEPTH_MAX 600u
#define JINJA_MEMORY_MAX (256u << 20) /* bytes of values: the longest text about eight times */
#define JINJA_OUTPUT_MAX (16u << 20)  /* bytes: what the tokenizer takes */
#define JINJA_RANGE_MAX 100000        /* numbers, as in Jinja's sandbox */
#define JINJA_ARGUMENTS_MAX 32u       /* of one call */

struct jinja_scope {
    struct jinja_scope *up;
    struct jinja_binding *bindings;
};

struct jinja_loop {
    const struct jinja_value *items;
    size_t n, index;
    struct jinja_value changed; /* what loop.changed() saw last */
    bool seen;
};

struct jinja_run {
    const struct jinja_source *source;
    struct weft_arena arena;
    uint64_t steps, steps_max;
    uint32_t depth;
    uint32_t at;
    struct jinja_scope *scope; /* innermost */
    struct jinja_buffer *out;
    struct jinja_value input; /* of a filter block */
    const struct tm *now;     /* NULL: the clock's */
    weft_err *err;
};

/* Sets run->err with line and column and returns -code. */
int jinja_fail(struct jinja_run *run, int code, const char *fmt, ...) WEFT_PRINTF(3, 4);
/* Macros, so that every caller's compiler sees that they are never 0. */
#define jinja_fail(run, code, ...) ((void)(jinja_fail)((run), (code), __VA_ARGS__), -(code))
#define jinja_refuse(run, ...) jinja_fail((run), WEFT_EUNSUPPORTED, __VA_ARGS__)
/* What a function without a result of its own failed with. */
static inline int jinja_failed(const struct jinja_run *run)
{
    assert(run->err->code > 0);
    return -run->err->code;
}

/* Pays for work on so many bytes and one node. */
int jinja_work(struct jinja_run *run, size_t bytes) WEFT_MUST_USE;
/* The same for looking at b bytes at each of a places. */
int jinja_work_at(struct jinja_run *run, size_t a, size_t b) WEFT_MUST_USE;
/* NULL with run->err set over the limit. */
void *jinja_alloc(struct jinja_run *run, size_t count, size_t size);
/* Pays for one level of recursion; jinja_leave gives it back, after a success only. */
int jinja_enter(struct jinja_run *run) WEFT_MUST_USE;
void jinja_leave(struct jinja_run *run);

/* ------------------------------------------------------------------ statements, jinja_run.c */

/* Starts an empty run of source; jinja_done frees its arena. */
void jinja_init(struct jinja_run *run, const struct jinja_source *source, weft_err *err);
void jinja_done(struct jinja_run *run);
int jinja_set(struct jinja_run *run, struct jinja_scope *scope, const char *name, size_t size,
              const struct jinja_value *value) WEFT_MUST_USE;
/* NULL: no scope has it. */
const struct jinja_value *jinja_look_up(struct jinja_run *run, const char *name, size_t size);
/* Runs the whole template into run->out. */
int jinja_execute(struct jinja_run *run) WEFT_MUST_USE;
int jinja_macro_call(struct jinja_run *run, const struct jinja_macro *m,
                     const struct jinja_args *args, const struct jinja_value *caller,
                     struct jinja_value *ret) WEFT_MUST_USE;

/* ------------------------------------------------------------------ expressions, jinja_expr.c */

int jinja_eval(struct jinja_run *run, const struct jinja_node *node,
               struct jinja_value *ret) WEFT_MUST_USE;
int jinja_eval_args(struct jinja_run *run, const struct jinja_node *list,
                    struct jinja_args *ret) WEFT_MUST_USE;
int jinja_call(struct jinja_run *run, const struct jinja_value *callee,
               const struct jinja_args *args, struct jinja_value *ret) WEFT_MUST_USE;
/* value.name and value[key]; undefined when there is none. */
int jinja_member(struct jinja_run *run, const struct jinja_value *v, const char *name, size_t size,
                 struct jinja_value *ret) WEFT_MUST_USE;
int jinja_item(struct jinja_run *run, const struct jinja_value *v, const struct jinja_value *key,
               struct jinja_value *ret) WEFT_MUST_USE;
/* An error that says what is undefined, if v is. */
int jinja_defined(struct jinja_run *run, const struct jinja_value *v) WEFT_MUST_USE;

/* ------------------------------------------------------------------ operators, jinja_operators.c
 */

int jinja_operate(struct jinja_run *run, enum jinja_node_kind op, const struct jinja_value *a,
                  const struct jinja_value *b, struct jinja_value *ret) WEFT_MUST_USE;
int jinja_compare(struct jinja_run *run, enum jinja_compare op, const struct jinja_value *a,
                  const struct jinja_value *b, bool *ret) WEFT_MUST_USE;
int jinja_slice(struct jinja_run *run, const struct jinja_value *v, const struct jinja_value *start,
                const struct jinja_value *stop, const struct jinja_value *step,
                struct jinja_value *ret) WEFT_MUST_USE;

/* ------------------------------------------------------------------ text, jinja_print.c */

/* str(v) of Python, appended; repr(v) for what is inside lists. */
int jinja_print(struct jinja_run *run, const struct jinja_value *v,
                struct jinja_buffer *out) WEFT_MUST_USE;
int jinja_repr(struct jinja_run *run, const struct jinja_value *v,
               struct jinja_buffer *out) WEFT_MUST_USE;
/* str(v) as a string value; gives v itself when it is one. */
int jinja_string_of(struct jinja_run *run, const struct jinja_value *v,
                    const struct jinja_string **ret) WEFT_MUST_USE;
/* json.dumps of Python. */
struct jinja_json {
    bool ensure_ascii, sort_keys;
    const struct jinja_string *indent; /* NULL: all on one line */
    const struct jinja_string *between, *colon;
};
int jinja_json_print(struct jinja_run *run, const struct jinja_value *v,
                     const struct jinja_json *how, struct jinja_buffer *out) WEFT_MUST_USE;

/* ------------------------------------------------------------------ case, jinja_case.c */

enum jinja_case {
    JINJA_LOWER,
    JINJA_UPPER,
    JINJA_SWAP,
    JINJA_CAPITALIZE,  /* the first character upper, the others lower */
    JINJA_TITLE,       /* str.title(): every run of letters so */
    JINJA_TITLE_WORDS, /* the filter: every word between spaces, dashes and brackets so */
    JINJA_CASE_COUNT
};
int jinja_case(struct jinja_run *run, const struct jinja_string *s, enum jinja_case how,
               struct jinja_value *ret) WEFT_MUST_USE;

/* ------------------------------------------------------------------ what is built in */

/* NULL: neither we nor Jinja know it. `call` is NULL for what only Jinja knows. */
const struct jinja_builtin *jinja_find_filter(const char *name, size_t size);
const struct jinja_builtin *jinja_find_test(const char *name, size_t size);
const struct jinja_builtin *jinja_find_function(const char *name, size_t size);
/* Methods of v's type; *ret_unsafe: it would change v, which the sandbox forbids. */
const struct jinja_builtin *jinja_find_method(const struct jinja_value *v, const char *name,
                                              size_t size, bool *ret_unsafe);
const struct jinja_builtin *jinja_lookup(const struct jinja_builtin *table, const char *name,
                                         size_t size); /* table ends with a NULL name */

extern const struct jinja_builtin jinja_text_methods[]; /* ends with a NULL name */
/* Tables of filters by what they work on; each ends with a NULL name. */
extern const struct jinja_builtin jinja_text_filters[], jinja_list_filters[],
    jinja_select_filters[];

/* Puts arguments where their names say: values[i] of names[i]; what is not given stays as it is.
 * names ends with NULL. */
int jinja_bind(struct jinja_run *run, const char *what, const struct jinja_args *args,
               const char *const *names, struct jinja_value *values) WEFT_MUST_USE;
/* Arguments of one type, or an error that names it. */
int jinja_want_string(struct jinja_run *run, const char *what, const struct jinja_value *v,
                      const struct jinja_string **ret) WEFT_MUST_USE;
int jinja_want_int(struct jinja_run *run, const char *what, const struct jinja_value *v,
                   int64_t *ret) WEFT_MUST_USE;

/* ------------------------------------------------------------------ shared by methods, filters */

/* str.strip with characters to strip (NULL: white space), at the ends that are asked for. */
int jinja_strip(struct jinja_run *run, const struct jinja_string *s,
                const struct jinja_string *chars, bool left, bool right,
                struct jinja_value *ret) WEFT_MUST_USE;
/* str.replace; count below 0: all. */
int jinja_replace(struct jinja_run *run, const struct jinja_string *s,
                  const struct jinja_string *old, const struct jinja_string *new, int64_t count,
                  struct jinja_value *ret) WEFT_MUST_USE;
/* s as safe for HTML: as it is, or with its signs escaped. Nothing else is escaped here, as model
 * hubs run Jinja, but that s + text escapes the other one when one of the two is safe. */
int jinja_safe(struct jinja_run *run, const struct jinja_string *s,
               struct jinja_value *ret) WEFT_MUST_USE;
int jinja_escape(struct jinja_run *run, const struct jinja_string *s,
                 struct jinja_value *ret) WEFT_MUST_USE;
/* str.splitlines without line ends. */
int jinja_splitlines(struct jinja_run *run, const struct jinja_string *s,
                     struct jinja_value *ret) WEFT_MUST_USE;
/* str.format, and the % operator. */
int jinja_format(struct jinja_run *run, const struct jinja_string *s, const struct jinja_args *args,
                 struct jinja_value *ret) WEFT_MUST_USE;
int jinja_percent(struct jinja_run *run, const struct jinja_string *s,
                  const struct jinja_value *args, size_t n, struct jinja_value *ret) WEFT_MUST_USE;
/* A list (kind) of the pairs, keys or values of a dict. */
enum jinja_part { JINJA_KEYS, JINJA_VALUES, JINJA_PAIRS };
int jinja_dict_list(struct jinja_run *run, const struct jinja_dict *d, enum jinja_part part,
                    enum jinja_kind kind, struct jinja_value *ret) WEFT_MUST_USE;

#endif
