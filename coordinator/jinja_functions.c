/*
 * What is built in and can be called by name, and how all builtins take their arguments.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "coordinator/jinja_run.h"

#define REASON_MAX 400 /* bytes of raise_exception's message that are shown */
#define DATE_FORMAT_MAX 128
#define DATE_MAX 512

/* ------------------------------------------------------------------ arguments */

const struct jinja_builtin *jinja_lookup(const struct jinja_builtin *table, const char *name,
                                         size_t size)
{
    for (; table->name != NULL; table++)
        if (strlen(table->name) == size && memcmp(table->name, name, size) == 0)
            return table;
    return NULL;
}

int jinja_bind(struct jinja_run *run, const char *what, const struct jinja_args *args,
               const char *const *names, struct jinja_value *values)
{
    char quoted[WEFT_QUOTE_SIZE];
    size_t n = 0;
    while (names[n] != NULL)
        n++;
    if (args->n > n)
        return jinja_refuse(run, "%s takes at most %zu arguments, found %zu", what, n, args->n);
    for (size_t i = 0; i < args->n; i++)
        values[i] = args->list[i];
    for (size_t k = 0; k < args->n_named; k++) {
        const struct jinja_keyword *a = &args->named[k];
        size_t i = 0;
        while (i < n && (strlen(names[i]) != a->size || memcmp(names[i], a->name, a->size) != 0))
            i++;
        if (i == n || i < args->n)
            return jinja_refuse(run, "%s: argument %s is %s", what,
                                weft_quote(quoted, sizeof quoted, a->name, a->size),
                                i == n ? "not known" : "given twice");
        values[i] = a->value;
    }
    return 0;
}

int jinja_want_string(struct jinja_run *run, const char *what, const struct jinja_value *v,
                      const struct jinja_string **ret)
{
    int r = jinja_defined(run, v);
    if (r == 0 && v->kind != JINJA_STRING)
        r = jinja_refuse(run, "%s: found %s, expected a string", what, jinja_type(v));
    if (r == 0)
        *ret = v->string;
    return r;
}

int jinja_want_int(struct jinja_run *run, const char *what, const struct jinja_value *v,
                   int64_t *ret)
{
    int r = jinja_defined(run, v);
    if (r == 0 && v->kind != JINJA_INT && v->kind != JINJA_BOOL)
        r = jinja_refuse(run, "%s: found %s, expected an integer", what, jinja_type(v));
    if (r == 0)
        *ret = jinja_whole(v);
    return r;
}

/* ------------------------------------------------------------------ functions */

static int call_range(struct jinja_run *run, const struct jinja_value *self,
                      const struct jinja_args *args, struct jinja_value *ret)
{
    int64_t numbers[3] = {0, 0, 1}; /* start, stop, step */
    bool trusted = true;
    int r = 0;
    (void)self;
    if (args->n < 1 || args->n > 3 || args->n_named > 0)
        return jinja_refuse(run, "range takes one to three integers");
    for (size_t i = 0; r == 0 && i < args->n; i++) {
        r = jinja_want_int(run, "range", &args->list[i], &numbers[args->n == 1 ? 1 : i]);
        trusted = trusted && args->list[i].trusted;
    }
    const int64_t start = numbers[0], stop = numbers[1], step = numbers[2];
    if (r != 0)
        return r;
    if (step == 0)
        return jinja_refuse(run, "range: the step cannot be zero");
    uint64_t n = 0;
    if (step > 0 && stop > start)
        n = ((uint64_t)stop - (uint64_t)start - 1) / (uint64_t)step + 1;
    else if (step < 0 && stop < start)
        n = ((uint64_t)start - (uint64_t)stop - 1) / (0 - (uint64_t)step) + 1;
    if (n > JINJA_RANGE_MAX)
        return jinja_refuse(run, "range of more than %d numbers", JINJA_RANGE_MAX);
    r = jinja_work(run, (size_t)n * sizeof *ret);
    if (r == 0)
        r = jinja_list_new(run, JINJA_RANGE, (size_t)n, ret);
    for (uint64_t i = 0; r == 0 && i < n; i++)
        ret->list->items[i] = jinja_int(start + (int64_t)i * step, trusted);
    return r;
}

/* dict(…) and namespace(…): the pairs of another one, then the named arguments. */
static int make_dict(struct jinja_run *run, enum jinja_kind kind, const struct jinja_args *args,
                     struct jinja_value *ret)
{
    struct jinja_value dict, key;
    if (args->n > 1 || (args->n == 1 && args->list[0].kind != JINJA_DICT))
        return jinja_refuse(run, "found %s, expected a dict and named arguments",
                            jinja_type(&args->list[args->n - 1]));
    int r = jinja_dict_new(run, kind, args->n_named, &dict);
    for (size_t i = 0; r == 0 && args->n == 1 && i < args->list[0].dict->n; i++) {
        const struct jinja_pair *pair = &args->list[0].dict->pairs[i];
        r = jinja_dict_set(run, dict.dict, &pair->key, &pair->value);
    }
    for (size_t i = 0; r == 0 && i < args->n_named; i++) {
        r = jinja_text(run, args->named[i].name, args->named[i].size, true, &key);
        if (r == 0)
            r = jinja_dict_set(run, dict.dict, &key, &args->named[i].value);
    }
    *ret = dict;
    return r;
}

static int call_dict(struct jinja_run *run, const struct jinja_value *self,
                     const struct jinja_args *args, struct jinja_value *ret)
{
    (void)self;
    return make_dict(run, JINJA_DICT, args, ret);
}

static int call_namespace(struct jinja_run *run, const struct jinja_value *self,
                          const struct jinja_args *args, struct jinja_value *ret)
{
    (void)self;
    return make_dict(run, JINJA_NAMESPACE, args, ret);
}

/* Text for one line of an error; what could forge or break it becomes a space. */
static void copy_printable(char out[REASON_MAX + 1], const struct jinja_string *s)
{
    size_t used = 0;
    for (size_t at = 0, size; at < s->size; at += size) {
        uint32_t code;
        size = weft_utf8_decode(s->text + at, s->size - at, &code);
        const bool plain = weft_code_printable(code);
        if (used + (plain ? size : 1) > REASON_MAX)
            break;
        memcpy(out + used, plain ? s->text + at : " ", plain ? size : 1);
        used += plain ? size : 1;
    }
    out[used] = '\0';
}

static int call_raise(struct jinja_run *run, const struct jinja_value *self,
                      const struct jinja_args *args, struct jinja_value *ret)
{
    static const char *const names[] = {"message", NULL};
    const struct jinja_string *text;
    struct jinja_value message = {0};
    char reason[REASON_MAX + 1];
    (void)self;
    *ret = jinja_none();
    int r = jinja_bind(run, "raise_exception", args, names, &message);
    if (r == 0)
        r = jinja_string_of(run, &message, &text);
    if (r != 0)
        return r;
    copy_printable(reason, text);
    return jinja_fail(run, WEFT_EUSAGE, "the template refuses this conversation: %s", reason);
}

static int call_strftime(struct jinja_run *run, const struct jinja_value *self,
                         const struct jinja_args *args, struct jinja_value *ret)
{
    static const char *const names[] = {"format", NULL};
    const struct jinja_string *format;
    struct jinja_value value = {0};
    char copy[DATE_FORMAT_MAX + 1];
    struct tm now;
    (void)self;
    int r = jinja_bind(run, "strftime_now", args, names, &value);
    if (r == 0)
        r = jinja_want_string(run, "strftime_now", &value, &format);
    if (r != 0)
        return r;
    if (format->size > DATE_FORMAT_MAX || memchr(format->text, '\0', format->size) != NULL)
        return jinja_refuse(run, "strftime_now: a format of more than %d bytes", DATE_FORMAT_MAX);
    memcpy(copy, format->text, format->size);
    copy[format->size] = '\0';
    const time_t clock = time(NULL);
    if (run->now != NULL)
        now = *run->now;
    else if (localtime_r(&clock, &now) == NULL)
        return jinja_refuse(run, "strftime_now: the clock cannot be read");
    char *date = jinja_alloc(run, DATE_MAX, 1);
    if (date == NULL)
        return jinja_failed(run);
        /* The programs never leave the C locale, so names of days and months are English. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    const size_t n = strftime(date, DATE_MAX, copy, &now);
#pragma GCC diagnostic pop
    if (!weft_utf8_valid(date, n, NULL)) /* the name of a time zone may be anything */
        return jinja_refuse(run, "strftime_now: the date is not valid UTF-8");
    return jinja_text(run, date, n, jinja_string_trusted(format), ret);
}

const struct jinja_builtin *jinja_find_function(const char *name, size_t size)
{
    static const struct jinja_builtin table[] = {
        {"range", call_range},
        {"dict", call_dict},
        {"namespace", call_namespace},
        {"raise_exception", call_raise},
        {"strftime_now", call_strftime},
        {"lipsum", NULL},
        {"cycler", NULL},
        {"joiner", NULL},
        {NULL, NULL},
    };
    return jinja_lookup(table, name, size);
}
