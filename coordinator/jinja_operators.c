/*
 * Operators of the Jinja interpreter: arithmetic, comparison and slices with Python's meaning, but
 * integers of 64 bits: what does not fit them is refused by name.
 */
#include <math.h>
#include <stdint.h>

#include "coordinator/jinja_run.h"

static const char *const signs[JINJA_NODE_KIND_COUNT] = {
    [JINJA_ADD] = "+",    [JINJA_SUBTRACT] = "-", [JINJA_MULTIPLY] = "*",      [JINJA_DIVIDE] = "/",
    [JINJA_MODULO] = "%", [JINJA_POWER] = "**",   [JINJA_FLOOR_DIVIDE] = "//",
};

static int too_large(struct jinja_run *run)
{
    return jinja_refuse(run, "a number that does not fit 64 bits");
}

/* Rounded towards minus infinity, as Python divides. */
static int floor_divide(struct jinja_run *run, int64_t a, int64_t b, int64_t *quotient,
                        int64_t *rest)
{
    if (b == 0)
        return jinja_refuse(run, "division by zero");
    if (a == INT64_MIN && b == -1)
        return too_large(run);
    *quotient = a / b;
    *rest = a % b;
    if (*rest != 0 && (*rest < 0) != (b < 0)) {
        *rest += b;
        (*quotient)--;
    }
    return 0;
}

static int power(struct jinja_run *run, int64_t base, int64_t exponent, int64_t *ret)
{
    *ret = 1;
    for (; exponent > 0; exponent /= 2) { /* squares: 63 rounds at most */
        if (exponent % 2 != 0 && __builtin_mul_overflow(*ret, base, ret))
            return too_large(run);
        if (exponent > 1 && __builtin_mul_overflow(base, base, &base))
            return too_large(run);
    }
    return 0;
}

static int whole(struct jinja_run *run, enum jinja_node_kind op, int64_t a, int64_t b, bool trusted,
                 struct jinja_value *ret)
{
    int64_t n = 0, rest = 0;
    bool over = false;
    int r = 0;
    if (op == JINJA_ADD)
        over = __builtin_add_overflow(a, b, &n);
    else if (op == JINJA_SUBTRACT)
        over = __builtin_sub_overflow(a, b, &n);
    else if (op == JINJA_MULTIPLY)
        over = __builtin_mul_overflow(a, b, &n);
    else if (op == JINJA_POWER)
        r = power(run, a, b, &n);
    else
        r = floor_divide(run, a, b, &n, &rest);
    if (over)
        return too_large(run);
    *ret = jinja_int(op == JINJA_MODULO ? rest : n, trusted);
    return r;
}

static int real(struct jinja_run *run, enum jinja_node_kind op, double a, double b, bool trusted,
                struct jinja_value *ret)
{
    double x;
    if (b == 0 && (op == JINJA_DIVIDE || op == JINJA_FLOOR_DIVIDE || op == JINJA_MODULO))
        return jinja_refuse(run, "division by zero");
    switch (op) {
    case JINJA_ADD:
        x = a + b;
        break;
    case JINJA_SUBTRACT:
        x = a - b;
        break;
    case JINJA_MULTIPLY:
        x = a * b;
        break;
    case JINJA_DIVIDE:
        x = a / b;
        break;
    case JINJA_POWER:
        x = pow(a, b);
        break;
    case JINJA_MODULO:
        x = fmod(a, b);
        x += x != 0 && (x < 0) != (b < 0) ? b : 0;
        break;
    default:
        x = floor(a / b);
    }
    *ret = jinja_float(x, trusted);
    return 0;
}

static int numbers(struct jinja_run *run, enum jinja_node_kind op, const struct jinja_value *a,
                   const struct jinja_value *b, struct jinja_value *ret)
{
    const bool trusted = a->trusted && b->trusted;
    const bool ints = a->kind != JINJA_FLOAT && b->kind != JINJA_FLOAT;
    if (ints && op != JINJA_DIVIDE && !(op == JINJA_POWER && jinja_whole(b) < 0))
        return whole(run, op, jinja_whole(a), jinja_whole(b), trusted, ret);
    return real(run, op, jinja_real(a), jinja_real(b), trusted, ret);
}

/* 'ab' * 3, [1] * 3 */
static int repeat(struct jinja_run *run, const struct jinja_value *v, const struct jinja_value *by,
                  struct jinja_value *ret)
{
    const int64_t times = jinja_whole(by) > 0 ? jinja_whole(by) : 0;
    const size_t size = v->kind == JINJA_STRING ? v->string->size : v->list->n * sizeof *ret;
    int r = 0;
    if (size > 0 && (uint64_t)times > JINJA_MEMORY_MAX / size)
        return jinja_refuse(run, "a repetition of more than %u bytes", JINJA_MEMORY_MAX);
    if (v->kind == JINJA_STRING) {
        struct jinja_buffer *b = jinja_buffer_new(run);
        if (b == NULL)
            return jinja_failed(run);
        const size_t whole_size = size * (size_t)times;
        if (times > 0)
            r = jinja_buffer_string(run, b, v->string);
        while (r == 0 && b->used < whole_size) { /* doubles what is there; it stays in the arena */
            const size_t rest = whole_size - b->used, n = rest < b->used ? rest : b->used;
            r = jinja_buffer_add(run, b, b->text, n, b->marks, b->trusted);
        }
        return r == 0 ? jinja_buffer_value(run, b, ret) : r;
    }
    const size_t n = v->list->n * (size_t)times;
    r = jinja_list_new(run, v->kind, n, ret);
    for (size_t i = 0; r == 0 && i < n; i++)
        ret->list->items[i] = v->list->items[i % v->list->n];
    return r;
}

static int join_lists(struct jinja_run *run, const struct jinja_value *a,
                      const struct jinja_value *b, struct jinja_value *ret)
{
    const size_t n = a->list->n;
    int r = jinja_work(run, (n + b->list->n) * sizeof *ret);
    if (r == 0)
        r = jinja_list_new(run, a->kind, n + b->list->n, ret);
    for (size_t i = 0; r == 0 && i < ret->list->n; i++)
        ret->list->items[i] = i < n ? a->list->items[i] : b->list->items[i - n];
    return r;
}

/* text + text; one that is safe for HTML makes the whole so. */
static int join_texts(struct jinja_run *run, const struct jinja_string *a,
                      const struct jinja_string *b, struct jinja_value *ret)
{
    struct jinja_value left, right;
    if (!a->safe && !b->safe)
        return jinja_concat(run, a, b, ret);
    int r = jinja_escape(run, a, &left);
    if (r == 0)
        r = jinja_escape(run, b, &right);
    if (r == 0)
        r = jinja_concat(run, left.string, right.string, ret);
    return r == 0 ? jinja_safe(run, ret->string, ret) : r;
}

int jinja_operate(struct jinja_run *run, enum jinja_node_kind op, const struct jinja_value *a,
                  const struct jinja_value *b, struct jinja_value *ret)
{
    const bool list = a->kind == JINJA_LIST || a->kind == JINJA_TUPLE;
    const bool list_right = b->kind == JINJA_LIST || b->kind == JINJA_TUPLE;
    if (op == JINJA_MODULO && a->kind == JINJA_STRING) {
        const bool many = b->kind == JINJA_TUPLE;
        return jinja_percent(run, a->string, many ? b->list->items : b, many ? b->list->n : 1, ret);
    }
    int r = jinja_defined(run, a);
    if (r == 0)
        r = jinja_defined(run, b);
    if (r != 0)
        return r;
    if (jinja_is_number(a) && jinja_is_number(b))
        return numbers(run, op, a, b, ret);
    if (op == JINJA_ADD && a->kind == JINJA_STRING && b->kind == JINJA_STRING)
        return join_texts(run, a->string, b->string, ret);
    if (op == JINJA_ADD && list && a->kind == b->kind)
        return join_lists(run, a, b, ret);
    if (op == JINJA_MULTIPLY && (list || a->kind == JINJA_STRING) &&
        (b->kind == JINJA_INT || b->kind == JINJA_BOOL))
        return repeat(run, a, b, ret);
    if (op == JINJA_MULTIPLY && (list_right || b->kind == JINJA_STRING) &&
        (a->kind == JINJA_INT || a->kind == JINJA_BOOL))
        return repeat(run, b, a, ret);
    if (op == JINJA_ADD && a->kind == JINJA_STRING)
        return jinja_refuse(run, "can only concatenate str (not \"%s\") to str", jinja_type(b));
    return jinja_refuse(run, "'%s' is not supported between %s and %s", signs[op], jinja_type(a),
                        jinja_type(b));
}

/* ------------------------------------------------------------------ comparison */

/* a in b */
static int contains(struct jinja_run *run, const struct jinja_value *a, const struct jinja_value *b,
                    bool *ret)
{
    const struct jinja_value *items = NULL;
    struct jinja_pair *pair;
    size_t n = 0;
    int r;
    *ret = false;
    if (b->kind == JINJA_STRING) {
        r = jinja_defined(run, a);
        if (r == 0 && a->kind != JINJA_STRING)
            r = jinja_refuse(run, "'in <string>' requires string as left operand, not %s",
                             jinja_type(a));
        if (r == 0)
            r = jinja_work(run, b->string->size);
        if (r == 0)
            *ret = jinja_find(b->string, a->string->text, a->string->size, 0) != SIZE_MAX;
        return r;
    }
    if (b->kind == JINJA_DICT) {
        r = jinja_dict_find(run, b->dict, a, &pair);
        *ret = pair != NULL;
        return r;
    }
    r = jinja_items(run, b, &items, &n);
    for (size_t i = 0; r == 0 && !*ret && i < n; i++)
        r = jinja_equal(run, a, &items[i], ret);
    return r;
}

int jinja_compare(struct jinja_run *run, enum jinja_compare op, const struct jinja_value *a,
                  const struct jinja_value *b, bool *ret)
{
    static const char *const compares[JINJA_COMPARE_COUNT] = {
        [JINJA_LT] = "<", [JINJA_LE] = "<=", [JINJA_GT] = ">", [JINJA_GE] = ">="};
    int r, order = 0;
    switch (op) {
    case JINJA_EQ:
    case JINJA_NE:
        r = jinja_equal(run, a, b, ret);
        *ret = *ret == (op == JINJA_EQ);
        return r;
    case JINJA_IN:
    case JINJA_NOT_IN:
        r = contains(run, a, b, ret);
        *ret = *ret == (op == JINJA_IN);
        return r;
    default:
        r = jinja_order(run, a, b, compares[op], &order);
        *ret = op == JINJA_LT   ? order < 0
               : op == JINJA_LE ? order <= 0
               : op == JINJA_GT ? order > 0
                                : order >= 0;
        return r;
    }
}

/* ------------------------------------------------------------------ slices */

/* A bound of a slice, within [low, high] after Python's rules for negative ones. */
static int bound(struct jinja_run *run, const struct jinja_value *v, int64_t n, int64_t low,
                 int64_t high, int64_t otherwise, int64_t *ret)
{
    *ret = otherwise;
    if (v == NULL || v->kind == JINJA_NONE)
        return 0;
    int r = jinja_want_int(run, "slice", v, ret);
    if (r != 0)
        return r;
    if (*ret < 0)
        *ret = *ret < -n ? low : *ret + n;
    *ret = *ret < low ? low : *ret > high ? high : *ret;
    return 0;
}

/* Characters from `first` on, `step` apart, `count` of them. */
static int slice_text(struct jinja_run *run, const struct jinja_string *s, int64_t first,
                      int64_t step, int64_t count, struct jinja_value *ret)
{
    const struct jinja_value *items = NULL, whole_text = {.kind = JINJA_STRING, .string = s};
    size_t n = 0;
    if (step == 1 || count == 0) {
        const size_t start = count > 0 ? jinja_string_offset(s, (size_t)first) : 0;
        const size_t end = count > 0 ? jinja_string_offset(s, (size_t)(first + count)) : 0;
        return jinja_cut(run, s, start, end - start, ret);
    }
    struct jinja_buffer *b = jinja_buffer_new(run);
    int r = b != NULL ? jinja_items(run, &whole_text, &items, &n) : jinja_failed(run);
    for (int64_t i = 0; r == 0 && items != NULL && i < count; i++)
        r = jinja_buffer_string(run, b, items[first + i * step].string);
    return r == 0 ? jinja_buffer_value(run, b, ret) : r;
}

int jinja_slice(struct jinja_run *run, const struct jinja_value *v, const struct jinja_value *start,
                const struct jinja_value *stop, const struct jinja_value *step_value,
                struct jinja_value *ret)
{
    int64_t step = 1, first, last;
    const bool text = v->kind == JINJA_STRING;
    int r = jinja_defined(run, v);
    if (r == 0 && !text && v->kind != JINJA_LIST && v->kind != JINJA_TUPLE &&
        v->kind != JINJA_RANGE)
        return jinja_missing(run, MISSING_TEXT, NULL, "a slice of what has no order", 28, ret);
    if (r == 0 && text)
        r = jinja_work(run, v->string->size);
    if (r == 0 && step_value != NULL && step_value->kind != JINJA_NONE)
        r = jinja_want_int(run, "slice", step_value, &step);
    if (r != 0)
        return r;
    if (step == 0)
        return jinja_refuse(run, "a slice's step cannot be zero");
    const int64_t n = (int64_t)(text ? jinja_string_length(v->string) : v->list->n);
    const bool back = step < 0;
    step = step < -n - 1 ? -n - 1 : step > n + 1 ? n + 1 : step; /* the same items, no overflow */
    r = bound(run, start, n, back ? -1 : 0, back ? n - 1 : n, back ? n - 1 : 0, &first);
    if (r == 0)
        r = bound(run, stop, n, back ? -1 : 0, back ? n - 1 : n, back ? -1 : n, &last);
    if (r != 0)
        return r;
    const int64_t range = back ? first - last : last - first, apart = back ? -step : step;
    const int64_t count = range > 0 ? (range + apart - 1) / apart : 0;
    if (text)
        return slice_text(run, v->string, first, step, count, ret);
    r = jinja_work(run, (size_t)count * sizeof *ret);
    if (r == 0)
        r = jinja_list_new(run, v->kind, (size_t)count, ret);
    for (int64_t i = 0; r == 0 && i < count; i++)
        ret->list->items[i] = v->list->items[first + i * step];
    return r;
}
