/*
 * Parser of statements, see jinja_parse.h and jinja_ast.h: text, {{ }} and {% %} tags, in the
 * spirit of Jinja's own: what it would refuse when it compiles is refused here.
 */
#include "coordinator/jinja_parse.h"

#include <stdio.h>
#include <string.h>

#include "coordinator/jinja_run.h"

static int parse_body(struct jinja_parser *p, const char *const *ends, struct jinja_node **ret);

/* ------------------------------------------------------------------ tools of both files */

struct jinja_node *jinja_node_new(struct jinja_parser *p, enum jinja_node_kind kind, size_t at)
{
    struct jinja_node *node = weft_arena_alloc(&p->source->arena, sizeof *node);
    if (node == NULL) {
        (void)weft_fail(p->err, WEFT_ENOMEM, "chat template: no memory for its tree");
        return NULL;
    }
    node->kind = kind;
    node->at = (uint32_t)at;
    return node;
}

struct jinja_node *jinja_node_pair(struct jinja_parser *p, enum jinja_node_kind kind, size_t at,
                                   struct jinja_node *a, struct jinja_node *b)
{
    struct jinja_node *node = jinja_node_new(p, kind, at);
    if (node == NULL)
        return NULL;
    node->a = a;
    node->b = b;
    return jinja_node_close(p, node) == 0 ? node : NULL;
}

int jinja_node_close(struct jinja_parser *p, struct jinja_node *node)
{
    const struct jinja_node *const lists[] = {node->a, node->b, node->c, node->d, node->e};
    uint32_t height = 0;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        for (const struct jinja_node *n = lists[i]; n != NULL; n = n->next)
            height = n->height > height ? n->height : height;
    node->height = height + 1;
    if (node->height > JINJA_HEIGHT_MAX)
        return jinja_parse_refuse(p, node->at, "an expression of more than %u levels",
                                  JINJA_HEIGHT_MAX);
    return 0;
}

int jinja_parse_enter(struct jinja_parser *p, size_t at)
{
    if (p->nesting == JINJA_NESTING_MAX)
        return jinja_parse_refuse(p, at, "tags and brackets nested more than %u deep",
                                  JINJA_NESTING_MAX);
    p->nesting++;
    return 0;
}

int jinja_parse_skip(struct jinja_parser *p, const char *text, bool *ret)
{
    *ret = jinja_token_is(&p->l.token, text);
    return *ret ? jinja_lex_next(&p->l) : 0;
}

int jinja_parse_found(struct jinja_parser *p, const char *expected)
{
    char shown[WEFT_QUOTE_SIZE];
    return jinja_parse_refuse(p, p->l.token.at, "found %s, expected %s",
                              jinja_token_show(&p->l.token, shown), expected);
}

int jinja_parse_expect(struct jinja_parser *p, const char *text)
{
    char expected[16];
    bool there;
    snprintf(expected, sizeof expected, "'%s'", text);
    int r = jinja_parse_skip(p, text, &there);
    return r == 0 && !there ? jinja_parse_found(p, expected) : r;
}

/* ------------------------------------------------------------------ ends of tags */

static int close_tag(struct jinja_parser *p)
{
    if (p->l.token.kind != JINJA_TOKEN_END)
        return jinja_parse_found(p, p->l.variable ? "'}}' or an operator" : "'%}'");
    jinja_lex_close(&p->l);
    return 0;
}

/* The body behind the tag that ends here, up to the tag that starts with one of `ends`, whose word
 * is then the token. */
static int parse_block(struct jinja_parser *p, const char *const *ends, struct jinja_node **ret)
{
    int r = close_tag(p);
    if (r == 0)
        r = jinja_parse_enter(p, p->l.at);
    if (r == 0)
        r = parse_body(p, ends, ret);
    p->nesting--;
    return r;
}

/* The same with one end, which is skipped, and its tag closed by the caller. */
static int parse_to(struct jinja_parser *p, const char *end, struct jinja_node **ret)
{
    const char *const ends[] = {end, NULL};
    int r = parse_block(p, ends, ret);
    return r == 0 ? jinja_lex_next(&p->l) : r;
}

/* ------------------------------------------------------------------ tags */

/* Names, or tuples of them; parsing has bounded how deep. */
static int check_target(struct jinja_parser *p, const struct jinja_node *target)
{
    int r = 0;
    if (target->kind == JINJA_NAME || target->kind == JINJA_MEMBER)
        return 0;
    if (target->kind != JINJA_TUPLE_OF)
        return jinja_parse_refuse(p, target->at, "only names can be assigned to");
    for (const struct jinja_node *n = target->a; r == 0 && n != NULL; n = n->next)
        r = check_target(p, n);
    return r;
}

/* A name, name.member of a namespace, or several with commas. */
static int parse_target(struct jinja_parser *p, bool members, struct jinja_node **ret)
{
    int r = jinja_parse_tuple(p, true, false, ret);
    if (r == 0 && members && (*ret)->kind == JINJA_NAME && jinja_token_is(&p->l.token, ".")) {
        struct jinja_node *node = jinja_node_new(p, JINJA_MEMBER, p->l.token.at);
        if (node == NULL)
            return jinja_parse_failed(p);
        node->a = *ret;
        *ret = node;
        r = jinja_lex_next(&p->l);
        if (r == 0)
            r = jinja_parse_name(p, node);
    }
    if (r < 0)
        return r;
    return check_target(p, *ret);
}

static int parse_for(struct jinja_parser *p, struct jinja_node *node)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    const struct jinja_node *n;
    bool there;
    int r = parse_target(p, false, &node->a);
    if (r < 0)
        return r;
    for (n = node->a->kind == JINJA_TUPLE_OF ? node->a->a : node->a; n != NULL; n = n->next)
        if (n->size == 4 && memcmp(n->text, "loop", 4) == 0)
            return jinja_parse_refuse(p, n->at, "'loop' cannot be the variable of a for block");
    r = jinja_parse_expect(p, "in");
    if (r == 0)
        r = jinja_parse_tuple(p, false, false, &node->b);
    if (r == 0)
        r = jinja_parse_skip(p, "if", &there);
    if (r == 0 && there)
        r = jinja_parse_expression(p, true, &node->e);
    if (r == 0 && jinja_token_is(&p->l.token, "recursive"))
        return jinja_parse_refuse(p, p->l.token.at, "recursive for blocks are not supported");
    p->loops++;
    if (r == 0)
        r = parse_block(p, ends, &node->c);
    p->loops--;
    if (r < 0)
        return r;
    there = jinja_token_is(&p->l.token, "else");
    r = jinja_lex_next(&p->l);
    return r == 0 && there ? parse_to(p, "endfor", &node->d) : r;
}

/* An elif is an if alone in the else: a list, not nesting. */
static int parse_if(struct jinja_parser *p, struct jinja_node *node)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    const struct jinja_node *unknown = p->unknown;
    int r = 0;
    for (bool more = true; r == 0 && more;) {
        r = jinja_parse_tuple(p, false, true, &node->a);
        if (r == 0 && node->a->kind == JINJA_TUPLE_OF && p->l.token.kind != JINJA_TOKEN_END)
            r = jinja_parse_found(p, "'%}'");
        if (r == 0)
            r = parse_block(p, ends, &node->b);
        if (r < 0)
            return r;
        more = jinja_token_is(&p->l.token, "elif");
        const bool last = jinja_token_is(&p->l.token, "else");
        r = jinja_lex_next(&p->l);
        if (r == 0 && last) {
            r = parse_to(p, "endif", &node->c);
        } else if (r == 0 && more) {
            node->c = jinja_node_new(p, JINJA_IF, p->l.token.at);
            node = node->c;
            r = node != NULL ? 0 : jinja_parse_failed(p);
        }
    }
    p->unknown = unknown;
    return r;
}

static int parse_set(struct jinja_parser *p, struct jinja_node *node)
{
    bool value = false;
    int r = parse_target(p, true, &node->a);
    if (r == 0)
        r = jinja_parse_skip(p, "=", &value);
    if (r < 0)
        return r;
    if (value)
        return jinja_parse_tuple(p, false, true, &node->b);
    node->kind = JINJA_SET_BLOCK;
    if (jinja_token_is(&p->l.token, "|")) {
        struct jinja_node *input = jinja_node_new(p, JINJA_INPUT, p->l.token.at);
        if (input == NULL)
            return jinja_parse_failed(p);
        r = jinja_parse_filters(p, input, true, &node->c);
    }
    return r == 0 ? parse_to(p, "endset", &node->b) : r;
}

/* ( name, name = default, … ), the token is "(". */
static int parse_params(struct jinja_parser *p, struct jinja_node **head)
{
    bool done = false, value = false;
    struct jinja_node **tail = head;
    int r = jinja_parse_expect(p, "(");
    if (r == 0)
        r = jinja_parse_skip(p, ")", &done);
    for (uint32_t n = 1; r == 0 && !done; n++) {
        struct jinja_node *param = jinja_node_new(p, JINJA_PARAM, p->l.token.at);
        if (param == NULL)
            return jinja_parse_failed(p);
        if (n > JINJA_ARGUMENTS_MAX)
            return jinja_parse_refuse(p, param->at, "more than %u arguments", JINJA_ARGUMENTS_MAX);
        *tail = param;
        tail = &param->next;
        const bool must = value; /* behind one with a default */
        r = jinja_parse_name(p, param);
        if (r == 0)
            r = jinja_parse_skip(p, "=", &value);
        if (r == 0 && value)
            r = jinja_parse_expression(p, true, &param->a);
        else if (r == 0 && must)
            return jinja_parse_refuse(p, param->at, "an argument without default behind one with");
        if (r == 0)
            r = jinja_node_close(p, param);
        if (r == 0)
            r = jinja_parse_skip(p, ")", &done);
        if (r == 0 && !done)
            r = jinja_parse_expect(p, ",");
        if (r == 0 && !done)
            r = jinja_parse_skip(p, ")", &done);
    }
    return r;
}

/* A body that break and continue do not leave. */
static int parse_own_body(struct jinja_parser *p, const char *end, struct jinja_node **ret)
{
    const uint32_t loops = p->loops;
    p->loops = 0;
    int r = parse_to(p, end, ret);
    p->loops = loops;
    return r;
}

static int parse_macro(struct jinja_parser *p, struct jinja_node *node)
{
    int r = jinja_parse_name(p, node);
    if (r == 0)
        r = parse_params(p, &node->a);
    return r == 0 ? parse_own_body(p, "endmacro", &node->b) : r;
}

static int parse_call_block(struct jinja_parser *p, struct jinja_node *node)
{
    int r = jinja_token_is(&p->l.token, "(") ? parse_params(p, &node->c) : 0;
    const uint32_t at = p->l.token.at;
    if (r == 0)
        r = jinja_parse_expression(p, true, &node->a);
    if (r == 0 && node->a->kind != JINJA_CALL)
        return jinja_parse_refuse(p, at, "found an expression, expected the call of a macro");
    return r == 0 ? parse_own_body(p, "endcall", &node->b) : r;
}

static int parse_filter_block(struct jinja_parser *p, struct jinja_node *node)
{
    struct jinja_node *input = jinja_node_new(p, JINJA_INPUT, p->l.token.at);
    if (input == NULL)
        return jinja_parse_failed(p);
    int r = jinja_parse_filter(p, input, &node->a);
    if (r == 0)
        r = jinja_parse_filters(p, node->a, true, &node->a);
    return r == 0 ? parse_to(p, "endfilter", &node->b) : r;
}

static int parse_with(struct jinja_parser *p, struct jinja_node *node)
{
    struct jinja_node **tail = &node->a;
    int r = 0;
    while (r == 0 && p->l.token.kind != JINJA_TOKEN_END) {
        if (node->a != NULL)
            r = jinja_parse_expect(p, ",");
        struct jinja_node *set = jinja_node_new(p, JINJA_SET, p->l.token.at);
        if (set == NULL)
            return jinja_parse_failed(p);
        *tail = set;
        tail = &set->next;
        set->a = jinja_node_new(p, JINJA_NAME, set->at);
        if (set->a == NULL)
            return jinja_parse_failed(p);
        if (r == 0)
            r = jinja_parse_name(p, set->a);
        if (r == 0)
            r = jinja_parse_expect(p, "=");
        if (r == 0)
            r = jinja_parse_expression(p, true, &set->b);
    }
    return r == 0 ? parse_to(p, "endwith", &node->b) : r;
}

/* What model hubs mark answers with for training; here only its body counts. */
static int parse_generation(struct jinja_parser *p, struct jinja_node *node)
{
    return parse_to(p, "endgeneration", &node->b);
}

static int parse_jump(struct jinja_parser *p, struct jinja_node *node)
{
    if (p->loops == 0)
        return jinja_parse_refuse(p, node->at, "'%s' outside of a for block",
                                  node->kind == JINJA_BREAK ? "break" : "continue");
    return 0;
}

static const struct {
    const char *word;
    enum jinja_node_kind kind;
    int (*parse)(struct jinja_parser *p, struct jinja_node *node);
} tags[] = {
    {"for", JINJA_FOR, parse_for},
    {"if", JINJA_IF, parse_if},
    {"set", JINJA_SET, parse_set},
    {"macro", JINJA_MACRO_BLOCK, parse_macro},
    {"call", JINJA_CALL_BLOCK, parse_call_block},
    {"filter", JINJA_FILTER_BLOCK, parse_filter_block},
    {"with", JINJA_WITH, parse_with},
    {"generation", JINJA_WITH, parse_generation},
    {"break", JINJA_BREAK, parse_jump},
    {"continue", JINJA_CONTINUE, parse_jump},
};

/* What Jinja has beyond these, so that the error can say so. */
static int unknown_tag(struct jinja_parser *p)
{
    static const char *const others[] = {"autoescape", "block",  "debug",   "do",   "extends",
                                         "from",       "import", "include", "trans"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (jinja_token_is(&p->l.token, others[i]))
            return jinja_parse_refuse(p, p->l.token.at, "tag '%s' is not supported", others[i]);
    return jinja_parse_found(p, "a tag such as for, if or set");
}

/* The token is the tag's first word. */
static int parse_tag(struct jinja_parser *p, struct jinja_node **ret)
{
    size_t i = 0;
    while (i < sizeof tags / sizeof tags[0] && !jinja_token_is(&p->l.token, tags[i].word))
        i++;
    if (i == sizeof tags / sizeof tags[0])
        return unknown_tag(p);
    struct jinja_node *node = jinja_node_new(p, tags[i].kind, p->l.token.at);
    if (node == NULL)
        return jinja_parse_failed(p);
    *ret = node;
    int r = jinja_lex_next(&p->l);
    if (r == 0)
        r = tags[i].parse(p, node);
    return r == 0 ? close_tag(p) : r;
}

/* ------------------------------------------------------------------ bodies */

static int parse_output(struct jinja_parser *p, struct jinja_node **ret)
{
    struct jinja_node *node;
    int r = jinja_lex_next(&p->l);
    if (r < 0)
        return r;
    if ((node = jinja_node_new(p, JINJA_OUTPUT, p->l.token.at)) == NULL)
        return jinja_parse_failed(p);
    *ret = node;
    r = jinja_parse_tuple(p, false, true, &node->a);
    return r == 0 ? close_tag(p) : r;
}

static bool is_end(const struct jinja_token *token, const char *const *ends)
{
    while (*ends != NULL && !jinja_token_is(token, *ends))
        ends++;
    return *ends != NULL;
}

static int add_text(struct jinja_parser *p, size_t start, size_t size, struct jinja_node ***tail)
{
    if (size == 0)
        return 0;
    struct jinja_node *node = jinja_node_new(p, JINJA_TEXT, start);
    if (node == NULL)
        return jinja_parse_failed(p);
    node->text = p->l.s + start;
    node->size = size;
    **tail = node;
    *tail = &node->next;
    return 0;
}

/* What a block without its end tag is called is known by the end that was expected. */
static int missing_end(struct jinja_parser *p, const char *const *ends, size_t opened)
{
    const char *end = ends[0];
    for (size_t i = 0; ends[i] != NULL; i++)
        end = strncmp(ends[i], "end", 3) == 0 ? ends[i] : end;
    return jinja_parse_refuse(p, opened, "block without its '%s'", end);
}

static int parse_body(struct jinja_parser *p, const char *const *ends, struct jinja_node **ret)
{
    struct jinja_node **tail = ret;
    const size_t opened = p->l.at;
    int r = 0;
    while (r == 0) {
        size_t start, size;
        bool raw = false;
        const char kind = jinja_lex_text(&p->l, &start, &size);
        r = add_text(p, start, size, &tail);
        if (r < 0 || kind == '\0')
            break;
        p->l.variable = kind == '{';
        if (kind == '#') {
            r = jinja_lex_comment(&p->l);
            continue;
        }
        if (kind == '{') {
            r = parse_output(p, tail);
        } else {
            r = jinja_lex_raw(&p->l, &raw, &start, &size);
            if (r == 0 && raw) {
                r = add_text(p, start, size, &tail);
                continue;
            }
            if (r == 0)
                r = jinja_lex_next(&p->l);
            if (r == 0 && is_end(&p->l.token, ends))
                return 0;
            if (r == 0)
                r = parse_tag(p, tail);
        }
        while (r == 0 && *tail != NULL)
            tail = jinja_node_behind(*tail);
    }
    return r == 0 && ends[0] != NULL ? missing_end(p, ends, opened) : r;
}

/* ------------------------------------------------------------------ the whole */

/* Line ends become \n, and the one at the end of the text goes, as in Jinja. */
static size_t copy_source(char *out, const char *text, size_t n)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r' && i + 1 < n && text[i + 1] == '\n')
            continue;
        out[m++] = (char)(text[i] == '\r' ? '\n' : text[i]);
    }
    return m > 0 && out[m - 1] == '\n' ? m - 1 : m;
}

int jinja_source_open(const char *text, size_t size, struct jinja_source *ret, weft_err *err)
{
    static const char *const no_ends[] = {NULL};
    weft_err own = {0}; /* parsing looks at it */
    char quoted[WEFT_QUOTE_SIZE];
    size_t offset;
    *ret = (struct jinja_source){0};
    weft_arena_init(&ret->arena, JINJA_TREE_MAX);
    if (size > JINJA_SOURCE_MAX)
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "chat template: found %zu bytes, expected at most %u", size,
                         JINJA_SOURCE_MAX);
    if (!weft_utf8_valid(text, size, &offset))
        return weft_fail(err, WEFT_EMODEL, "chat template: byte %zu is not valid UTF-8", offset);
    char *copy = weft_arena_alloc(&ret->arena, size);
    if (copy == NULL)
        return weft_fail(err, WEFT_ENOMEM, "chat template: no memory for %zu bytes", size);
    ret->text = copy;
    ret->size = copy_source(copy, text, size);
    struct jinja_parser p = {.source = ret, .err = &own};
    p.l = (struct jinja_lexer){.source = ret, .s = ret->text, .n = ret->size, .err = &own};
    int r = parse_body(&p, no_ends, &ret->body);
    const struct jinja_node *n = p.unknown;
    if (r == 0 && n != NULL)
        r = jinja_parse_refuse(&p, n->at, "%s %s is not supported",
                               n->kind == JINJA_TEST ? "test" : "filter",
                               weft_quote(quoted, sizeof quoted, n->text, n->size));
    if (r < 0 && err != NULL)
        *err = own;
    return r;
}

void jinja_source_done(struct jinja_source *s)
{
    weft_arena_done(&s->arena);
    *s = (struct jinja_source){0};
}
