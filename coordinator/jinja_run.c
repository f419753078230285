/*
 * Running a template: statements, scopes and macros. Assignment is to the innermost for block,
 * macro or with block, as in Jinja; reading goes outwards, from a macro to where it was defined.
 */
#include "coordinator/jinja_run.h"

#include <string.h>

#define NAMES_PER_STEP 16

struct jinja_binding {
    struct jinja_binding *next;
    const char *name;
    size_t size;
    struct jinja_value value;
};

/* How a body ended. */
enum leave { GOES_ON, BREAKS, CONTINUES };

static int execute(struct jinja_run *run, const struct jinja_node *node, enum leave *leave);

/* ------------------------------------------------------------------ limits and errors */

int(jinja_fail)(struct jinja_run *run, int code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    jinja_complain(run->source, run->at, code, run->err, fmt, args);
    va_end(args);
    return -code;
}

int jinja_work(struct jinja_run *run, size_t bytes)
{
    run->steps += 1 + bytes / JINJA_STEP_BYTES;
    if (run->steps > run->steps_max)
        return jinja_refuse(run, "more than %llu steps for this conversation",
                            (unsigned long long)run->steps_max);
    return 0;
}

int jinja_work_at(struct jinja_run *run, size_t a, size_t b)
{
    size_t bytes;
    return jinja_work(run, __builtin_mul_overflow(a, b, &bytes) ? SIZE_MAX : bytes);
}

void *jinja_alloc(struct jinja_run *run, size_t count, size_t size)
{
    void *place = weft_arena_array(&run->arena, count, size);
    if (place != NULL)
        return place;
    const size_t used = run->arena.used_bytes;
    if (size > 0 && count > (JINJA_MEMORY_MAX - used) / size)
        (void)jinja_refuse(run, "more than %u bytes of values for this conversation",
                           JINJA_MEMORY_MAX);
    else
        (void)jinja_fail(run, WEFT_ENOMEM, "no memory for %zu bytes", count * size);
    return NULL;
}

int jinja_enter(struct jinja_run *run)
{
    if (run->depth >= JINJA_DEPTH_MAX)
        return jinja_refuse(run, "macros and values nested more than %u deep", JINJA_DEPTH_MAX);
    run->depth++;
    return 0;
}

void jinja_leave(struct jinja_run *run)
{
    run->depth -= run->depth > 0;
}

void jinja_init(struct jinja_run *run, const struct jinja_source *source, weft_err *err)
{
    *run = (struct jinja_run){.source = source, .steps_max = JINJA_STEPS_MAX, .err = err};
    weft_arena_init(&run->arena, JINJA_MEMORY_MAX);
}

void jinja_done(struct jinja_run *run)
{
    weft_arena_done(&run->arena);
}

/* ------------------------------------------------------------------ scopes */

/* The names of a scope are few; where there are many, looking is paid for in steps. */
static struct jinja_binding *binding(struct jinja_run *run, const struct jinja_scope *scope,
                                     const char *name, size_t size)
{
    struct jinja_binding *b = scope->bindings;
    uint32_t seen = 0;
    for (; b != NULL && (b->size != size || memcmp(b->name, name, size) != 0); b = b->next)
        seen++;
    run->steps += seen / NAMES_PER_STEP;
    return b;
}

const struct jinja_value *jinja_look_up(struct jinja_run *run, const char *name, size_t size)
{
    for (const struct jinja_scope *s = run->scope; s != NULL; s = s->up) {
        const struct jinja_binding *b = binding(run, s, name, size);
        if (b != NULL)
            return &b->value;
    }
    return NULL;
}

int jinja_set(struct jinja_run *run, struct jinja_scope *scope, const char *name, size_t size,
              const struct jinja_value *value)
{
    struct jinja_binding *b = binding(run, scope, name, size);
    if (b == NULL) {
        b = jinja_alloc(run, 1, sizeof *b);
        if (b == NULL)
            return jinja_failed(run);
        *b = (struct jinja_binding){.next = scope->bindings, .name = name, .size = size};
        scope->bindings = b;
    }
    b->value = *value;
    return 0;
}

/* A scope within the current one. It lives as long as the run: a macro may keep it. */
static struct jinja_scope *open_scope(struct jinja_run *run, struct jinja_scope *up)
{
    struct jinja_scope *s = jinja_alloc(run, 1, sizeof *s);
    if (s != NULL) {
        s->up = up;
        run->scope = s;
    }
    return s;
}

/* ------------------------------------------------------------------ assignment */

static int set_member(struct jinja_run *run, const struct jinja_node *target,
                      const struct jinja_value *value)
{
    struct jinja_value object, key;
    struct jinja_pair *pair = NULL;
    int r = jinja_eval(run, target->a, &object);
    run->at = target->at;
    if (r == 0 && object.kind != JINJA_NAMESPACE)
        return jinja_refuse(run, "cannot assign attribute on non-namespace object");
    if (r == 0)
        r = jinja_dict_named(run, object.dict, target->text, target->size, &pair);
    if (pair != NULL) {
        pair->value = *value;
        return 0;
    }
    if (r == 0)
        r = jinja_text(run, target->text, target->size, true, &key);
    return r == 0 ? jinja_dict_set(run, object.dict, &key, value) : r;
}

static int assign(struct jinja_run *run, const struct jinja_node *target,
                  const struct jinja_value *value)
{
    if (target->kind == JINJA_NAME)
        return jinja_set(run, run->scope, target->text, target->size, value);
    if (target->kind == JINJA_MEMBER)
        return set_member(run, target, value);
    const struct jinja_value *items = NULL;
    size_t n, names = 0;
    for (const struct jinja_node *t = target->a; t != NULL; t = t->next)
        names++;
    run->at = target->at;
    int r = jinja_items(run, value, &items, &n);
    if (r == 0 && n != names)
        return jinja_refuse(run, "found %zu values to unpack, expected %zu", n, names);
    for (const struct jinja_node *t = target->a; r == 0 && t != NULL; t = t->next)
        r = assign(run, t, items++);
    return r;
}

/* Runs body into a buffer of its own; gives its text. */
static int capture(struct jinja_run *run, const struct jinja_node *body, enum leave *leave,
                   struct jinja_value *ret)
{
    struct jinja_buffer *outer = run->out, *own = jinja_buffer_new(run);
    if (own == NULL)
        return jinja_failed(run);
    run->out = own;
    int r = execute(run, body, leave);
    run->out = outer;
    return r == 0 ? jinja_buffer_value(run, own, ret) : r;
}

/* The same in a scope of its own. */
static int capture_scoped(struct jinja_run *run, const struct jinja_node *body, enum leave *leave,
                          struct jinja_value *ret)
{
    struct jinja_scope *outer = run->scope;
    int r = open_scope(run, outer) != NULL ? capture(run, body, leave, ret) : jinja_failed(run);
    run->scope = outer;
    return r;
}

/* Filters over a text that is no expression of the template. */
static int filtered(struct jinja_run *run, const struct jinja_node *filters,
                    const struct jinja_value *text, struct jinja_value *ret)
{
    const struct jinja_value outer = run->input;
    run->input = *text;
    int r = jinja_eval(run, filters, ret);
    run->input = outer;
    return r;
}

static int execute_set(struct jinja_run *run, const struct jinja_node *node, enum leave *leave)
{
    struct jinja_value value;
    int r;
    if (node->kind == JINJA_SET) {
        r = jinja_eval(run, node->b, &value);
    } else {
        r = capture_scoped(run, node->b, leave, &value);
        if (r == 0 && node->c != NULL)
            r = filtered(run, node->c, &value, &value);
    }
    return r == 0 ? assign(run, node->a, &value) : r;
}

/* ------------------------------------------------------------------ macros */

static const struct jinja_keyword *named_argument(const struct jinja_args *args, const char *name,
                                                  size_t size)
{
    for (size_t i = 0; i < args->n_named; i++)
        if (args->named[i].size == size && memcmp(args->named[i].name, name, size) == 0)
            return &args->named[i];
    return NULL;
}

/* Parameters into the macro's scope, which is the current one. */
static int bind_params(struct jinja_run *run, const struct jinja_node *params,
                       const struct jinja_args *args, size_t *ret_positional, size_t *ret_named)
{
    size_t i = 0, named = 0;
    int r = 0;
    for (const struct jinja_node *p = params; r == 0 && p != NULL; p = p->next, i++) {
        const struct jinja_keyword *k = named_argument(args, p->text, p->size);
        struct jinja_value value = {0};
        run->at = p->at;
        if (k != NULL && i < args->n)
            return jinja_refuse(run, "argument '%.*s' is given twice", (int)p->size, p->text);
        named += k != NULL;
        if (k != NULL)
            value = k->value;
        else if (i < args->n)
            value = args->list[i];
        else if (p->a != NULL)
            r = jinja_eval(run, p->a, &value);
        else
            r = jinja_missing(run, MISSING_NAME, NULL, p->text, p->size, &value);
        if (r == 0)
            r = jinja_set(run, run->scope, p->text, p->size, &value);
    }
    *ret_positional = i;
    *ret_named = named;
    return r;
}

/* varargs, kwargs and caller of the macro. */
static int bind_rest(struct jinja_run *run, const struct jinja_args *args, size_t positional,
                     const struct jinja_value *caller)
{
    struct jinja_value rest, named, key;
    const size_t n = args->n > positional ? args->n - positional : 0;
    int r = jinja_list_new(run, JINJA_TUPLE, n, &rest);
    for (size_t i = 0; r == 0 && i < n; i++)
        rest.list->items[i] = args->list[positional + i];
    if (r == 0)
        r = jinja_set(run, run->scope, "varargs", 7, &rest);
    if (r == 0)
        r = jinja_dict_new(run, JINJA_DICT, args->n_named, &named);
    for (size_t i = 0; r == 0 && i < args->n_named; i++) {
        const struct jinja_keyword *k = &args->named[i];
        if (binding(run, run->scope, k->name, k->size) != NULL)
            continue;
        r = jinja_text(run, k->name, k->size, true, &key);
        if (r == 0)
            r = jinja_dict_set(run, named.dict, &key, &k->value);
    }
    if (r == 0)
        r = jinja_set(run, run->scope, "kwargs", 6, &named);
    return r == 0 && caller != NULL ? jinja_set(run, run->scope, "caller", 6, caller) : r;
}

/* True if a macro says the name anywhere: only then may it be called with more than it lists. Its
 * body may be long and the calls many, so each node looked at counts. */
static bool mentions(struct jinja_run *run, const struct jinja_node *node, const char *name)
{
    for (; node != NULL; node = node->next) {
        run->steps++;
        if (node->kind == JINJA_NAME && node->size == strlen(name) &&
            memcmp(node->text, name, node->size) == 0)
            return true;
        if (mentions(run, node->a, name) || mentions(run, node->b, name) ||
            mentions(run, node->c, name) || mentions(run, node->d, name) ||
            mentions(run, node->e, name))
            return true;
    }
    return false;
}

int jinja_macro_call(struct jinja_run *run, const struct jinja_macro *m,
                     const struct jinja_args *args, const struct jinja_value *caller,
                     struct jinja_value *ret)
{
    const struct jinja_node *node = m->node;
    const struct jinja_node *params = node->kind == JINJA_MACRO_BLOCK ? node->a : node->c;
    struct jinja_scope *outer = run->scope;
    const uint32_t at = run->at;
    enum leave leave = GOES_ON;
    size_t positional = 0, named = 0;
    int r = jinja_enter(run);
    if (r < 0)
        return r;
    r = open_scope(run, m->scope) != NULL ? bind_params(run, params, args, &positional, &named)
                                          : jinja_failed(run);
    run->at = at;
    if (r == 0 && args->n > positional && !mentions(run, node->b, "varargs"))
        r = jinja_refuse(run, "macro '%.*s' takes not more than %zu arguments, found %zu",
                         (int)node->size, node->size > 0 ? node->text : "", positional, args->n);
    if (r == 0 && args->n_named > named && !mentions(run, node->b, "kwargs"))
        r = jinja_refuse(run, "macro '%.*s' has no argument of a name it is called with",
                         (int)node->size, node->size > 0 ? node->text : "");
    if (r == 0)
        r = bind_rest(run, args, positional, caller);
    if (r == 0)
        r = capture(run, node->b, &leave, ret);
    run->scope = outer;
    jinja_leave(run);
    return r;
}

static int macro_value(struct jinja_run *run, const struct jinja_node *node,
                       struct jinja_value *ret)
{
    struct jinja_macro *m = jinja_alloc(run, 1, sizeof *m);
    if (m == NULL)
        return jinja_failed(run);
    *m = (struct jinja_macro){.node = node, .scope = run->scope};
    *ret = (struct jinja_value){.kind = JINJA_MACRO, .macro = m};
    return 0;
}

static int execute_macro(struct jinja_run *run, const struct jinja_node *node)
{
    struct jinja_value macro;
    int r = macro_value(run, node, &macro);
    return r == 0 ? jinja_set(run, run->scope, node->text, node->size, &macro) : r;
}

static int execute_call(struct jinja_run *run, const struct jinja_node *node)
{
    const struct jinja_node *call = node->a;
    struct jinja_value callee, caller, text;
    struct jinja_args args;
    int r = jinja_eval(run, call->a, &callee);
    if (r == 0)
        r = jinja_eval_args(run, call->b, &args);
    run->at = call->at;
    if (r == 0 && callee.kind != JINJA_MACRO)
        return jinja_refuse(run, "a call block calls macros, found %s", jinja_type(&callee));
    if (r == 0)
        r = macro_value(run, node, &caller);
    if (r == 0)
        r = jinja_macro_call(run, callee.macro, &args, &caller, &text);
    return r == 0 ? jinja_buffer_string(run, run->out, text.string) : r;
}

/* ------------------------------------------------------------------ for */

/* The items for which the condition holds. */
static int select_items(struct jinja_run *run, const struct jinja_node *node,
                        const struct jinja_value **items, size_t *n)
{
    struct jinja_value kept, holds;
    struct jinja_scope *outer = run->scope;
    size_t used = 0;
    int r = jinja_list_new(run, JINJA_LIST, *n, &kept);
    for (size_t i = 0; r == 0 && i < *n; i++) {
        r = open_scope(run, outer) != NULL ? assign(run, node->a, &(*items)[i]) : jinja_failed(run);
        if (r == 0)
            r = jinja_eval(run, node->e, &holds);
        if (r == 0 && jinja_truth(&holds))
            kept.list->items[used++] = (*items)[i];
    }
    run->scope = outer;
    *items = r == 0 ? kept.list->items : NULL;
    *n = used;
    return r;
}

static int execute_for(struct jinja_run *run, const struct jinja_node *node)
{
    struct jinja_value list, self = {.kind = JINJA_LOOP};
    struct jinja_scope *outer = run->scope;
    const struct jinja_value *items = NULL;
    enum leave leave = GOES_ON;
    size_t n = 0;
    int r = jinja_eval(run, node->b, &list);
    run->at = node->b->at;
    if (r == 0)
        r = jinja_items(run, &list, &items, &n);
    if (r == 0 && node->e != NULL)
        r = select_items(run, node, &items, &n);
    struct jinja_loop *loop = r == 0 ? jinja_alloc(run, 1, sizeof *loop) : NULL;
    if (loop == NULL)
        return r < 0 ? r : jinja_failed(run);
    *loop = (struct jinja_loop){.items = items, .n = n};
    self.loop = loop;
    for (; r == 0 && leave != BREAKS && loop->index < n; loop->index++) {
        leave = GOES_ON;
        r = jinja_work(run, 0);
        if (r == 0)
            r = open_scope(run, outer) != NULL ? jinja_set(run, run->scope, "loop", 4, &self)
                                               : jinja_failed(run);
        if (r == 0)
            r = assign(run, node->a, &items[loop->index]);
        if (r == 0)
            r = execute(run, node->c, &leave);
    }
    if (r == 0 && n == 0 && node->d != NULL)
        r = open_scope(run, outer) != NULL ? execute(run, node->d, &leave) : jinja_failed(run);
    run->scope = outer;
    return r;
}

/* ------------------------------------------------------------------ the others */

static int execute_if(struct jinja_run *run, const struct jinja_node *node, enum leave *leave)
{
    struct jinja_value condition;
    for (;;) {
        int r = jinja_eval(run, node->a, &condition);
        if (r < 0)
            return r;
        const bool taken = jinja_truth(&condition);
        const struct jinja_node *other = node->c;
        if (!taken && other != NULL && other->kind == JINJA_IF && other->next == NULL) {
            node = other;
            continue;
        }
        return execute(run, taken ? node->b : other, leave);
    }
}

/* Values are made in the scope around the block. */
static int execute_with(struct jinja_run *run, const struct jinja_node *node, enum leave *leave)
{
    struct jinja_scope *outer = run->scope, *inner = open_scope(run, outer);
    struct jinja_value value;
    int r = inner != NULL ? 0 : jinja_failed(run);
    for (const struct jinja_node *set = node->a; r == 0 && set != NULL; set = set->next) {
        run->scope = outer;
        r = jinja_eval(run, set->b, &value);
        run->scope = inner;
        if (r == 0)
            r = assign(run, set->a, &value);
    }
    if (r == 0)
        r = execute(run, node->b, leave);
    run->scope = outer;
    return r;
}

static int execute_filter(struct jinja_run *run, const struct jinja_node *node, enum leave *leave)
{
    struct jinja_value text;
    int r = capture_scoped(run, node->b, leave, &text);
    if (r == 0)
        r = filtered(run, node->a, &text, &text);
    return r == 0 ? jinja_print(run, &text, run->out) : r;
}

static int execute_output(struct jinja_run *run, const struct jinja_node *node)
{
    struct jinja_value v;
    int r = jinja_eval(run, node->a, &v);
    run->at = node->at;
    return r == 0 ? jinja_print(run, &v, run->out) : r;
}

static int execute_one(struct jinja_run *run, const struct jinja_node *node, enum leave *leave)
{
    run->at = node->at;
    switch (node->kind) {
    case JINJA_TEXT:
        return jinja_buffer_add(run, run->out, node->text, node->size, NULL, true);
    case JINJA_OUTPUT:
        return execute_output(run, node);
    case JINJA_FOR:
        return execute_for(run, node);
    case JINJA_IF:
        return execute_if(run, node, leave);
    case JINJA_SET:
    case JINJA_SET_BLOCK:
        return execute_set(run, node, leave);
    case JINJA_MACRO_BLOCK:
        return execute_macro(run, node);
    case JINJA_CALL_BLOCK:
        return execute_call(run, node);
    case JINJA_FILTER_BLOCK:
        return execute_filter(run, node, leave);
    case JINJA_WITH:
        return execute_with(run, node, leave);
    default:
        *leave = node->kind == JINJA_BREAK ? BREAKS : CONTINUES;
        return 0;
    }
}

static int execute(struct jinja_run *run, const struct jinja_node *node, enum leave *leave)
{
    int r = jinja_enter(run);
    for (; node != NULL && r == 0 && *leave == GOES_ON; node = node->next) {
        r = jinja_work(run, 0);
        if (r == 0)
            r = execute_one(run, node, leave);
        if (r == 0 && run->out->used > JINJA_OUTPUT_MAX)
            r = jinja_fail(run, WEFT_ECONTEXT, "more than %u bytes of text for this conversation",
                           JINJA_OUTPUT_MAX);
    }
    jinja_leave(run);
    return r;
}

int jinja_execute(struct jinja_run *run)
{
    enum leave leave = GOES_ON;
    run->out = jinja_buffer_new(run);
    return run->out != NULL ? execute(run, run->source->body, &leave) : jinja_failed(run);
}
