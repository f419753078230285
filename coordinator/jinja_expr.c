/*
 * Expressions of the Jinja interpreter. Members and elements are looked for in Jinja's order: a.b
 * is first a method of a's type and then an element, a['b'] the other way round; what is not there
 * is undefined, and an error only when it is used.
 */
#include <string.h>

#include "base/text.h"
#include "coordinator/jinja_run.h"

int jinja_defined(struct jinja_run *run, const struct jinja_value *v)
{
    const struct jinja_missing *m = v->missing;
    if (v->kind != JINJA_UNDEFINED)
        return 0;
    if (m == NULL)
        return jinja_refuse(run, "a value is undefined");
    const int n = m->name_size < 100 ? (int)m->name_size : 100;
    switch (m->why) {
    case MISSING_NAME:
        return jinja_refuse(run, "'%.*s' is undefined", n, m->name);
    case MISSING_MEMBER:
        return jinja_refuse(run, "'%s' has no attribute '%.*s'", m->owner, n, m->name);
    case MISSING_ELEMENT:
        return jinja_refuse(run, "%s has no element '%.*s'", m->owner, n, m->name);
    case MISSING_UNSAFE:
        return jinja_refuse(run, "access to attribute '%.*s' of '%s' is unsafe.", n, m->name,
                            m->owner);
    default:
        return jinja_refuse(run, "%.*s is undefined", n, m->name);
    }
}

/* ------------------------------------------------------------------ members */

static int method_value(struct jinja_run *run, const struct jinja_value *self,
                        const struct jinja_builtin *what, struct jinja_value *ret)
{
    struct jinja_method *m = jinja_alloc(run, 1, sizeof *m);
    if (m == NULL)
        return jinja_failed(run);
    *m = (struct jinja_method){.self = *self, .what = what};
    *ret = (struct jinja_value){.kind = JINJA_METHOD, .method = m};
    return 0;
}

/* A neighbour of the loop's item. */
static int loop_neighbour(struct jinja_run *run, const struct jinja_loop *loop, bool next,
                          struct jinja_value *ret)
{
    const size_t i = next ? loop->index + 1 : loop->index - 1; /* wraps below 0: not below n */
    if (i < loop->n) {
        *ret = loop->items[i];
        return 0;
    }
    const char *what = next ? "there is no next item" : "there is no previous item";
    return jinja_missing(run, MISSING_TEXT, NULL, what, strlen(what), ret);
}

/* *ret stays undefined when loop has no such member. */
static int loop_member(struct jinja_run *run, const struct jinja_loop *loop, const char *name,
                       size_t size, struct jinja_value *ret)
{
    const struct {
        const char *name;
        size_t number;
    } numbers[] = {
        {"index", loop->index + 1},
        {"index0", loop->index},
        {"revindex", loop->n - loop->index},
        {"revindex0", loop->n - loop->index - 1},
        {"length", loop->n},
        {"depth", 1},
        {"depth0", 0},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (strlen(numbers[i].name) == size && memcmp(numbers[i].name, name, size) == 0)
            *ret = jinja_int((int64_t)numbers[i].number, true);
    if (size == 5 && memcmp(name, "first", size) == 0)
        *ret = jinja_bool(loop->index == 0);
    else if (size == 4 && memcmp(name, "last", size) == 0)
        *ret = jinja_bool(loop->index + 1 == loop->n);
    else if (size == 8 && memcmp(name, "previtem", size) == 0)
        return loop_neighbour(run, loop, false, ret);
    else if (size == 8 && memcmp(name, "nextitem", size) == 0)
        return loop_neighbour(run, loop, true, ret);
    return 0;
}

/* Attributes in Python's sense; *ret_found is false when the type has none of this name. */
static int attribute(struct jinja_run *run, const struct jinja_value *v, const char *name,
                     size_t size, bool *ret_found, struct jinja_value *ret)
{
    bool unsafe = false;
    *ret = (struct jinja_value){0};
    *ret_found = true;
    if (v->kind == JINJA_LOOP) {
        int r = loop_member(run, v->loop, name, size, ret);
        if (r < 0 || ret->kind != JINJA_UNDEFINED || ret->missing != NULL)
            return r;
    }
    if (v->kind == JINJA_NAMESPACE) {
        struct jinja_pair *pair = NULL;
        int r = jinja_dict_named(run, v->dict, name, size, &pair);
        *ret_found = pair != NULL;
        if (pair != NULL)
            *ret = pair->value;
        return r;
    }
    if (v->kind == JINJA_TUPLE && v->list->type == jinja_group_type) {
        const bool grouper = size == 7 && memcmp(name, "grouper", size) == 0;
        if (grouper || (size == 4 && memcmp(name, "list", size) == 0)) {
            *ret = v->list->items[grouper ? 0 : 1];
            return 0;
        }
    }
    const struct jinja_builtin *what = jinja_find_method(v, name, size, &unsafe);
    if (unsafe)
        return jinja_missing(run, MISSING_UNSAFE, jinja_owner(v), name, size, ret);
    *ret_found = what != NULL;
    return what != NULL ? method_value(run, v, what, ret) : 0;
}

int jinja_member(struct jinja_run *run, const struct jinja_value *v, const char *name, size_t size,
                 struct jinja_value *ret)
{
    const struct jinja_value self = *v; /* ret may be v */
    bool found = false;
    int r = jinja_defined(run, &self);
    if (r == 0)
        r = attribute(run, &self, name, size, &found, ret);
    if (r < 0 || found)
        return r;
    if (self.kind == JINJA_DICT) {
        struct jinja_pair *pair = NULL;
        r = jinja_dict_named(run, self.dict, name, size, &pair);
        if (pair != NULL)
            *ret = pair->value;
        if (r < 0 || pair != NULL)
            return r;
    }
    return jinja_missing(run, MISSING_MEMBER, jinja_owner(&self), name, size, ret);
}

/* Element `number` of a list or a text; undefined beyond its ends. */
static int element(struct jinja_run *run, const struct jinja_value *v, int64_t number,
                   struct jinja_value *ret)
{
    const bool text = v->kind == JINJA_STRING;
    int r = text ? jinja_work(run, v->string->size) : 0;
    if (r < 0)
        return r;
    const int64_t n = (int64_t)(text ? jinja_string_length(v->string) : v->list->n);
    const int64_t i = number < 0 ? number + n : number;
    if (i < 0 || i >= n)
        return jinja_missing(run, MISSING_ELEMENT, jinja_owner(v), "of this number", 14, ret);
    if (!text) {
        *ret = v->list->items[i];
        return 0;
    }
    const size_t start = jinja_string_offset(v->string, (size_t)i);
    return jinja_cut(run, v->string, start, jinja_string_offset(v->string, (size_t)i + 1) - start,
                     ret);
}

int jinja_item(struct jinja_run *run, const struct jinja_value *v, const struct jinja_value *key,
               struct jinja_value *ret)
{
    const struct jinja_value self = *v; /* ret may be v */
    const bool ordered = self.kind == JINJA_LIST || self.kind == JINJA_TUPLE ||
                         self.kind == JINJA_RANGE || self.kind == JINJA_STRING;
    struct jinja_pair *pair = NULL;
    bool found = false;
    int r = jinja_defined(run, &self);
    if (r == 0 && ordered && (key->kind == JINJA_INT || key->kind == JINJA_BOOL))
        return element(run, &self, jinja_whole(key), ret);
    if (r == 0 && self.kind == JINJA_DICT)
        r = jinja_dict_find(run, self.dict, key, &pair);
    if (r < 0)
        return r;
    if (pair != NULL) {
        *ret = pair->value;
        return 0;
    }
    if (key->kind != JINJA_STRING)
        return jinja_missing(run, MISSING_ELEMENT, jinja_owner(&self), jinja_type(key),
                             strlen(jinja_type(key)), ret);
    const struct jinja_string name = *key->string;
    r = attribute(run, &self, name.text, name.size, &found, ret);
    if (r < 0 || found)
        return r;
    return jinja_missing(run, MISSING_MEMBER, jinja_owner(&self), name.text, name.size, ret);
}

/* ------------------------------------------------------------------ calls */

int jinja_eval_args(struct jinja_run *run, const struct jinja_node *list, struct jinja_args *ret)
{
    size_t n = 0, named = 0;
    int r = 0;
    for (const struct jinja_node *a = list; a != NULL; a = a->next) {
        n += a->kind != JINJA_KEYWORD;
        named += a->kind == JINJA_KEYWORD;
    }
    *ret = (struct jinja_args){0};
    if (list == NULL)
        return 0;
    struct jinja_value *values = jinja_alloc(run, n, sizeof *values);
    struct jinja_keyword *keywords =
        values != NULL ? jinja_alloc(run, named, sizeof *keywords) : NULL;
    if (keywords == NULL)
        return jinja_failed(run);
    *ret = (struct jinja_args){.list = values, .n = n, .named = keywords, .n_named = named};
    for (const struct jinja_node *a = list; r == 0 && a != NULL; a = a->next) {
        if (a->kind != JINJA_KEYWORD) {
            r = jinja_eval(run, a, values++);
            continue;
        }
        *keywords = (struct jinja_keyword){.name = a->text, .size = a->size};
        r = jinja_eval(run, a->a, &keywords++->value);
    }
    return r;
}

int jinja_call(struct jinja_run *run, const struct jinja_value *callee,
               const struct jinja_args *args, struct jinja_value *ret)
{
    const struct jinja_builtin *what = NULL;
    const struct jinja_value *self = NULL;
    int r = jinja_work(run, 0);
    if (r == 0)
        r = jinja_defined(run, callee);
    if (r < 0)
        return r;
    if (callee->kind == JINJA_MACRO)
        return jinja_macro_call(run, callee->macro, args, NULL, ret);
    if (callee->kind == JINJA_FUNCTION) {
        what = callee->function;
    } else if (callee->kind == JINJA_METHOD) {
        what = callee->method->what;
        self = &callee->method->self;
    }
    if (what == NULL)
        return jinja_refuse(run, "'%s' object is not callable", jinja_type(callee));
    if (what->call == NULL)
        return jinja_refuse(run, "%s '%s' is not supported", self != NULL ? "method" : "function",
                            what->name);
    return what->call(run, self, args, ret);
}

static int eval_call(struct jinja_run *run, const struct jinja_node *node, struct jinja_value *ret)
{
    struct jinja_value callee;
    struct jinja_args args;
    int r = jinja_eval(run, node->a, &callee);
    if (r == 0)
        r = jinja_eval_args(run, node->b, &args);
    run->at = node->a->at;
    return r == 0 ? jinja_call(run, &callee, &args, ret) : r;
}

/* Filters and tests. */
static int eval_builtin(struct jinja_run *run, const struct jinja_node *node,
                        struct jinja_value *ret)
{
    char quoted[WEFT_QUOTE_SIZE];
    struct jinja_value input;
    struct jinja_args args;
    int r = jinja_eval(run, node->a, &input);
    if (r == 0)
        r = jinja_eval_args(run, node->b, &args);
    if (r < 0)
        return r;
    run->at = node->at;
    if (node->builtin == NULL || node->builtin->call == NULL)
        return jinja_refuse(run, "%s %s is not supported",
                            node->kind == JINJA_TEST ? "test" : "filter",
                            weft_quote(quoted, sizeof quoted, node->text, node->size));
    return node->builtin->call(run, &input, &args, ret);
}

/* ------------------------------------------------------------------ the kinds of nodes */

static int eval_name(struct jinja_run *run, const struct jinja_node *node, struct jinja_value *ret)
{
    const struct jinja_value *v = jinja_look_up(run, node->text, node->size);
    if (v != NULL) {
        *ret = *v;
        return 0;
    }
    const struct jinja_builtin *function = jinja_find_function(node->text, node->size);
    if (function == NULL)
        return jinja_missing(run, MISSING_NAME, NULL, node->text, node->size, ret);
    *ret = (struct jinja_value){.kind = JINJA_FUNCTION, .function = function};
    return 0;
}

static int eval_list(struct jinja_run *run, const struct jinja_node *node, struct jinja_value *ret)
{
    struct jinja_value list;
    size_t n = 0;
    for (const struct jinja_node *a = node->a; a != NULL; a = a->next)
        n++;
    int r = jinja_list_new(run, node->kind == JINJA_ARRAY ? JINJA_LIST : JINJA_TUPLE, n, &list);
    n = 0;
    for (const struct jinja_node *a = node->a; r == 0 && a != NULL; a = a->next)
        r = jinja_eval(run, a, &list.list->items[n++]);
    *ret = list;
    return r;
}

static int eval_dict(struct jinja_run *run, const struct jinja_node *node, struct jinja_value *ret)
{
    struct jinja_value dict, key, value;
    int r = jinja_dict_new(run, JINJA_DICT, 0, &dict);
    for (const struct jinja_node *pair = node->a; r == 0 && pair != NULL; pair = pair->next) {
        r = jinja_eval(run, pair->a, &key);
        if (r == 0)
            r = jinja_eval(run, pair->b, &value);
        run->at = pair->at;
        if (r == 0)
            r = jinja_dict_set(run, dict.dict, &key, &value);
    }
    *ret = dict;
    return r;
}

static int eval_slice(struct jinja_run *run, const struct jinja_node *node, struct jinja_value *ret)
{
    const struct jinja_node *const nodes[] = {node->b, node->c, node->d};
    struct jinja_value object, bounds[3];
    int r = jinja_eval(run, node->a, &object);
    for (size_t i = 0; r == 0 && i < 3; i++) {
        bounds[i] = jinja_none();
        if (nodes[i] != NULL)
            r = jinja_eval(run, nodes[i], &bounds[i]);
    }
    run->at = node->at;
    return r == 0 ? jinja_slice(run, &object, &bounds[0], &bounds[1], &bounds[2], ret) : r;
}

static int eval_condition(struct jinja_run *run, const struct jinja_node *node,
                          struct jinja_value *ret)
{
    static const char why[] = "an inline if whose condition is false and which has no else";
    struct jinja_value condition;
    int r = jinja_eval(run, node->a, &condition);
    if (r < 0)
        return r;
    if (jinja_truth(&condition))
        return jinja_eval(run, node->b, ret);
    if (node->c != NULL)
        return jinja_eval(run, node->c, ret);
    return jinja_missing(run, MISSING_TEXT, NULL, why, sizeof why - 1, ret);
}

/* and, or give the operand that decides, as in Python. */
static int eval_logic(struct jinja_run *run, const struct jinja_node *node, struct jinja_value *ret)
{
    int r = jinja_eval(run, node->a, ret);
    for (const struct jinja_node *n = node->a->next; n != NULL && r == 0; n = n->next) {
        if (jinja_truth(ret) == (node->kind == JINJA_OR))
            return 0;
        r = jinja_eval(run, n, ret);
    }
    return r;
}

/* a ~ b ~ c */
static int eval_concat(struct jinja_run *run, const struct jinja_node *node,
                       struct jinja_value *ret)
{
    struct jinja_value sum, v;
    const struct jinja_string *text = NULL;
    int r = jinja_eval(run, node->a, &v);
    if (r == 0)
        r = jinja_string_of(run, &v, &text);
    sum = (struct jinja_value){.kind = JINJA_STRING, .string = text};
    for (const struct jinja_node *n = node->a->next; n != NULL && r == 0; n = n->next) {
        r = jinja_eval(run, n, &v);
        run->at = n->at;
        if (r == 0)
            r = jinja_string_of(run, &v, &text);
        if (r == 0)
            r = jinja_concat(run, sum.string, text, &sum);
    }
    *ret = sum;
    return r;
}

/* a < b < c: each with its neighbour. */
static int eval_compare(struct jinja_run *run, const struct jinja_node *node,
                        struct jinja_value *ret)
{
    struct jinja_value left, right;
    bool holds = true;
    int r = jinja_eval(run, node->a, &left);
    for (const struct jinja_node *n = node->b; n != NULL && r == 0 && holds; n = n->next) {
        r = jinja_eval(run, n->a, &right);
        run->at = n->at;
        if (r == 0)
            r = jinja_compare(run, n->compare, &left, &right, &holds);
        left = right;
    }
    *ret = jinja_bool(holds);
    return r;
}

static int eval_sign(struct jinja_run *run, const struct jinja_node *node, struct jinja_value *ret)
{
    const struct jinja_value zero = jinja_int(0, true);
    struct jinja_value v;
    int r = jinja_eval(run, node->a, &v);
    run->at = node->at;
    if (r == 0)
        r = jinja_defined(run, &v);
    if (r == 0 && !jinja_is_number(&v))
        return jinja_refuse(run, "a sign before %s", jinja_type(&v));
    if (r == 0 && v.kind == JINJA_FLOAT) {
        *ret = jinja_float(node->kind == JINJA_NEGATE ? -v.real : v.real, v.trusted);
        return 0;
    }
    return r == 0 ? jinja_operate(run, node->kind == JINJA_NEGATE ? JINJA_SUBTRACT : JINJA_ADD,
                                  &zero, &v, ret)
                  : r;
}

static int eval_operator(struct jinja_run *run, const struct jinja_node *node,
                         struct jinja_value *ret)
{
    struct jinja_value a, b;
    int r = jinja_eval(run, node->a, &a);
    if (r == 0)
        r = jinja_eval(run, node->b, &b);
    run->at = node->at;
    return r == 0 ? jinja_operate(run, node->kind, &a, &b, ret) : r;
}

static int eval_member(struct jinja_run *run, const struct jinja_node *node,
                       struct jinja_value *ret)
{
    struct jinja_value object, key = {0};
    int r = jinja_eval(run, node->a, &object);
    if (r == 0 && node->kind == JINJA_INDEX)
        r = jinja_eval(run, node->b, &key);
    run->at = node->at;
    if (r < 0)
        return r;
    return node->kind == JINJA_INDEX ? jinja_item(run, &object, &key, ret)
                                     : jinja_member(run, &object, node->text, node->size, ret);
}

static int eval(struct jinja_run *run, const struct jinja_node *node, struct jinja_value *ret)
{
    int r;
    switch (node->kind) {
    case JINJA_LITERAL:
        *ret = node->value;
        return 0;
    case JINJA_NAME:
        return eval_name(run, node, ret);
    case JINJA_INPUT:
        *ret = run->input;
        return 0;
    case JINJA_ARRAY:
    case JINJA_TUPLE_OF:
        return eval_list(run, node, ret);
    case JINJA_OBJECT:
        return eval_dict(run, node, ret);
    case JINJA_MEMBER:
    case JINJA_INDEX:
        return eval_member(run, node, ret);
    case JINJA_SLICE:
        return eval_slice(run, node, ret);
    case JINJA_CALL:
        return eval_call(run, node, ret);
    case JINJA_FILTER:
    case JINJA_TEST:
        return eval_builtin(run, node, ret);
    case JINJA_CONDITION:
        return eval_condition(run, node, ret);
    case JINJA_NOT:
        r = jinja_eval(run, node->a, ret);
        *ret = jinja_bool(r == 0 && !jinja_truth(ret));
        return r;
    case JINJA_NEGATE:
    case JINJA_PLUS:
        return eval_sign(run, node, ret);
    case JINJA_AND:
    case JINJA_OR:
        return eval_logic(run, node, ret);
    case JINJA_CONCAT:
        return eval_concat(run, node, ret);
    case JINJA_COMPARE:
        return eval_compare(run, node, ret);
    default: /* the parser puts nothing else into expressions than what has two operands */
        return eval_operator(run, node, ret);
    }
}

int jinja_eval(struct jinja_run *run, const struct jinja_node *node, struct jinja_value *ret)
{
    run->at = node->at;
    int r = jinja_enter(run);
    if (r == 0)
        r = jinja_work(run, 0);
    if (r == 0)
        r = eval(run, node, ret);
    jinja_leave(run);
    return r;
}
