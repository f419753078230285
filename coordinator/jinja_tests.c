/*
 * Tests: what stands behind `is`. As Jinja's; an undefined value may be tested for everything that
 * does not compare it.
 */
#include <string.h>

#include "coordinator/jinja_run.h"

#define TEST(name)                                                         \
    static int name(struct jinja_run *run, const struct jinja_value *self, \
                    const struct jinja_args *args, struct jinja_value *ret)

static const char *const no_names[] = {NULL};

static int answer(struct jinja_run *run, const struct jinja_args *args, bool holds,
                  struct jinja_value *ret)
{
    *ret = jinja_bool(holds);
    return jinja_bind(run, "a test without arguments", args, no_names, NULL);
}

TEST(is_defined)
{
    return answer(run, args, self->kind != JINJA_UNDEFINED, ret);
}
TEST(is_undefined)
{
    return answer(run, args, self->kind == JINJA_UNDEFINED, ret);
}
TEST(is_none)
{
    return answer(run, args, self->kind == JINJA_NONE, ret);
}
TEST(is_boolean)
{
    return answer(run, args, self->kind == JINJA_BOOL, ret);
}
TEST(is_true)
{
    return answer(run, args, self->kind == JINJA_BOOL && self->truth, ret);
}
TEST(is_false)
{
    return answer(run, args, self->kind == JINJA_BOOL && !self->truth, ret);
}
TEST(is_integer)
{
    return answer(run, args, self->kind == JINJA_INT, ret);
}
TEST(is_float)
{
    return answer(run, args, self->kind == JINJA_FLOAT, ret);
}
TEST(is_number)
{
    return answer(run, args, jinja_is_number(self), ret);
}
TEST(is_string)
{
    return answer(run, args, self->kind == JINJA_STRING, ret);
}
TEST(is_mapping)
{
    return answer(run, args, self->kind == JINJA_DICT, ret);
}

/* What has a length and elements; an undefined value counts, as in Jinja. */
TEST(is_sequence)
{
    const bool holds = self->kind == JINJA_UNDEFINED || self->kind == JINJA_STRING ||
                       self->kind == JINJA_LIST || self->kind == JINJA_TUPLE ||
                       self->kind == JINJA_RANGE || self->kind == JINJA_DICT;
    return answer(run, args, holds, ret);
}
TEST(is_iterable)
{
    const bool holds = self->kind == JINJA_UNDEFINED || self->kind == JINJA_STRING ||
                       self->kind == JINJA_DICT || self->kind == JINJA_LOOP ||
                       jinja_is_sequence(self);
    return answer(run, args, holds, ret);
}
TEST(is_callable)
{
    const bool holds = self->kind == JINJA_UNDEFINED || self->kind == JINJA_MACRO ||
                       self->kind == JINJA_METHOD || self->kind == JINJA_FUNCTION;
    return answer(run, args, holds, ret);
}
TEST(is_escaped)
{
    return answer(run, args, self->kind == JINJA_STRING && self->string->safe, ret);
}

static int divided(struct jinja_run *run, const struct jinja_value *v, int64_t by, int64_t rest,
                   struct jinja_value *ret)
{
    const struct jinja_value divisor = jinja_int(by, true);
    struct jinja_value left;
    int r = jinja_operate(run, JINJA_MODULO, v, &divisor, &left);
    *ret = jinja_bool(r == 0 && jinja_is_number(&left) && jinja_real(&left) == (double)rest);
    return r;
}

TEST(is_even)
{
    int r = answer(run, args, false, ret);
    return r == 0 ? divided(run, self, 2, 0, ret) : r;
}
TEST(is_odd)
{
    int r = answer(run, args, false, ret);
    return r == 0 ? divided(run, self, 2, 1, ret) : r;
}
TEST(is_divisibleby)
{
    static const char *const names[] = {"num", NULL};
    struct jinja_value value = {0};
    int64_t by = 0;
    int r = jinja_bind(run, "divisibleby", args, names, &value);
    if (r == 0)
        r = jinja_want_int(run, "divisibleby", &value, &by);
    return r == 0 ? divided(run, self, by, 0, ret) : r;
}

static int is_case(struct jinja_run *run, const struct jinja_value *self,
                   const struct jinja_args *args, const char *method, struct jinja_value *ret)
{
    const struct jinja_string *s = NULL;
    bool unsafe;
    int r = answer(run, args, false, ret);
    if (r == 0)
        r = jinja_string_of(run, self, &s);
    if (r != 0)
        return r;
    const struct jinja_value text = {.kind = JINJA_STRING, .string = s};
    return jinja_find_method(&text, method, strlen(method), &unsafe)->call(run, &text, args, ret);
}

TEST(is_lower)
{
    return is_case(run, self, args, "islower", ret);
}
TEST(is_upper)
{
    return is_case(run, self, args, "isupper", ret);
}

static int compared(struct jinja_run *run, const struct jinja_value *self,
                    const struct jinja_args *args, enum jinja_compare op, struct jinja_value *ret)
{
    static const char *const names[] = {"other", NULL};
    struct jinja_value other = {0};
    bool holds = false;
    int r = jinja_bind(run, "a test that compares", args, names, &other);
    if (r == 0)
        r = jinja_compare(run, op, self, &other, &holds);
    *ret = jinja_bool(holds);
    return r;
}

TEST(is_eq)
{
    return compared(run, self, args, JINJA_EQ, ret);
}
TEST(is_ne)
{
    return compared(run, self, args, JINJA_NE, ret);
}
TEST(is_lt)
{
    return compared(run, self, args, JINJA_LT, ret);
}
TEST(is_le)
{
    return compared(run, self, args, JINJA_LE, ret);
}
TEST(is_gt)
{
    return compared(run, self, args, JINJA_GT, ret);
}
TEST(is_ge)
{
    return compared(run, self, args, JINJA_GE, ret);
}
TEST(is_in)
{
    return compared(run, self, args, JINJA_IN, ret);
}

/* The same object: of values that are no objects here, equal ones of one type. */
TEST(is_sameas)
{
    int r = compared(run, self, args, JINJA_EQ, ret);
    const struct jinja_value *other = args->n == 1 ? &args->list[0] : self;
    bool same = ret->truth && self->kind == other->kind;
    if (same && self->kind == JINJA_DICT)
        same = self->dict == other->dict;
    else if (same && jinja_is_sequence(self))
        same = self->list == other->list;
    *ret = jinja_bool(same);
    return r;
}

static int known(const struct jinja_builtin *what, struct jinja_value *ret)
{
    *ret = jinja_bool(what != NULL && what->call != NULL);
    return 0;
}

TEST(is_filter)
{
    (void)args;
    if (self->kind != JINJA_STRING)
        return jinja_refuse(run, "filter: found %s, expected a name", jinja_type(self));
    return known(jinja_find_filter(self->string->text, self->string->size), ret);
}
TEST(is_test)
{
    (void)args;
    if (self->kind != JINJA_STRING)
        return jinja_refuse(run, "test: found %s, expected a name", jinja_type(self));
    return known(jinja_find_test(self->string->text, self->string->size), ret);
}

const struct jinja_builtin *jinja_find_test(const char *name, size_t size)
{
    static const struct jinja_builtin table[] = {
        {"boolean", is_boolean},
        {"callable", is_callable},
        {"defined", is_defined},
        {"divisibleby", is_divisibleby},
        {"eq", is_eq},
        {"equalto", is_eq},
        {"==", is_eq},
        {"escaped", is_escaped},
        {"even", is_even},
        {"false", is_false},
        {"filter", is_filter},
        {"float", is_float},
        {"ge", is_ge},
        {">=", is_ge},
        {"greaterthan", is_gt},
        {"gt", is_gt},
        {">", is_gt},
        {"in", is_in},
        {"integer", is_integer},
        {"iterable", is_iterable},
        {"le", is_le},
        {"<=", is_le},
        {"lessthan", is_lt},
        {"lower", is_lower},
        {"lt", is_lt},
        {"<", is_lt},
        {"mapping", is_mapping},
        {"ne", is_ne},
        {"!=", is_ne},
        {"none", is_none},
        {"number", is_number},
        {"odd", is_odd},
        {"sameas", is_sameas},
        {"sequence", is_sequence},
        {"string", is_string},
        {"test", is_test},
        {"true", is_true},
        {"undefined", is_undefined},
        {"upper", is_upper},
        {NULL, NULL},
    };
    return jinja_lookup(table, name, size);
}
