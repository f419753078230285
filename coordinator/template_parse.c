/*
 * Parser of chat templates: recursive descent over the source, see template.h for the language and
 * template_ast.h for the result. Whatever it does not know it refuses; it never skips.
 */
#include "coordinator/template_ast.h"

#include <assert.h>
#include <string.h>

#include "coordinator/template_lex.h"

#define INT_DIGITS_MAX 9 /* so that integers cannot overflow */
#define POSTFIX_MAX 8 /* members, indices and filters behind one another; they nest in the tree */

/* A variable of a for block that is being parsed. */
struct scope {
    const struct scope *up;
    struct weft_lex_token name;
};

struct parser {
    struct weft_template *t;
    struct weft_lexer lex;
    unsigned nesting;
    const struct scope *scope; /* innermost */
    weft_err *err;
};

#define refuse(p, at, ...) weft_template_refuse((p)->t, (at), (p)->err, __VA_ARGS__)

static struct weft_node *new_node(struct parser *p, enum weft_node_kind kind, uint32_t at)
{
    struct weft_node *node = weft_arena_alloc(&p->t->arena, sizeof *node);
    if (node == NULL)
        weft_fail(p->err, WEFT_ENOMEM, "chat template: no memory");
    else
        *node = (struct weft_node){.kind = kind, .at = at};
    return node;
}

static int expect(struct parser *p, const char *text)
{
    char buf[64];
    if (!weft_lex_is(&p->lex.token, text))
        return refuse(p, p->lex.token.at, "found %s, expected '%s'",
                      weft_lex_show(&p->lex.token, buf), text);
    return weft_lex_next(&p->lex);
}

static int enter(struct parser *p, size_t at)
{
    if (p->nesting == WEFT_TEMPLATE_NESTING_MAX)
        return refuse(p, at, "nested more than %d deep", WEFT_TEMPLATE_NESTING_MAX);
    p->nesting++;
    return 0;
}

/* Takes the escapes out of a string token. */
static int unescape(struct parser *p, const struct weft_lex_token *token, struct weft_node *node)
{
    static const char from[] = "nrt\\'\"", to[] = "\n\r\t\\'\"";
    char *out = weft_arena_alloc(&p->t->arena, token->size);
    if (out == NULL)
        return weft_fail(p->err, WEFT_ENOMEM, "chat template: no memory");
    node->text = out;
    for (size_t i = 0; i < token->size; i++) {
        char c = token->text[i];
        if (c == '\\') {
            const char *escape = memchr(from, token->text[++i], sizeof from - 1);
            if (escape == NULL)
                return refuse(p, token->at + i,
                              "escape in a string other than "
                              "\\n \\r \\t \\\\ \\' \\\"");
            c = to[escape - from];
        }
        out[node->text_size++] = c;
    }
    return 0;
}

static int parse_int(struct parser *p, int64_t *ret)
{
    const struct weft_lex_token token = p->lex.token;
    *ret = 0;
    for (size_t i = 0; i < token.size; i++) {
        if (!weft_lex_is_digit(token.text[i]) || token.size > INT_DIGITS_MAX)
            return refuse(p, token.at, "number other than an integer of at most %d digits",
                          INT_DIGITS_MAX);
        *ret = 10 * *ret + (token.text[i] - '0');
    }
    int r = weft_lex_next(&p->lex);
    if (r == 0 && weft_lex_is(&p->lex.token, ".") && p->lex.at < p->lex.n &&
        weft_lex_is_digit(p->lex.s[p->lex.at]))
        return refuse(p, token.at, "number with a fraction");
    return r;
}

static bool is_known(const struct parser *p, const struct weft_lex_token *name)
{
    static const char *const globals[] = {"messages", "bos_token", "eos_token",
                                          "add_generation_prompt"};
    for (const struct scope *scope = p->scope; scope != NULL; scope = scope->up) {
        if (weft_lex_is(name, "loop") || (scope->name.size == name->size &&
                                          memcmp(scope->name.text, name->text, name->size) == 0))
            return true;
    }
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++) {
        if (weft_lex_is(name, globals[i]))
            return true;
    }
    return false;
}

static bool is_keyword(const struct weft_lex_token *token)
{
    static const char *const words[] = {"and", "or", "not", "in", "is", "if", "else"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (weft_lex_is(token, words[i]))
            return true;
    }
    return false;
}

static int parse_expression(struct parser *p, struct weft_node **ret);

static int parse_name(struct parser *p, struct weft_node **ret)
{
    static const struct {
        const char *word;
        enum weft_node_kind kind;
        int64_t number;
    } constants[] = {
        {"true", WEFT_NODE_BOOL, 1},  {"True", WEFT_NODE_BOOL, 1}, {"false", WEFT_NODE_BOOL, 0},
        {"False", WEFT_NODE_BOOL, 0}, {"none", WEFT_NODE_NONE, 0}, {"None", WEFT_NODE_NONE, 0},
    };
    const struct weft_lex_token name = p->lex.token;
    struct weft_node *node = new_node(p, WEFT_NODE_NAME, name.at);
    if (node == NULL)
        return -WEFT_ENOMEM;
    node->text = name.text;
    node->text_size = name.size;
    char buf[64];
    size_t i = 0, n = sizeof constants / sizeof constants[0];
    while (i < n && !weft_lex_is(&name, constants[i].word))
        i++;
    if (i < n) {
        node->kind = constants[i].kind;
        node->number = constants[i].number;
    } else if (!is_known(p, &name)) {
        return refuse(p, name.at, "unknown variable %s", weft_lex_show(&name, buf));
    }
    *ret = node;
    return weft_lex_next(&p->lex);
}

static int parse_primary(struct parser *p, struct weft_node **ret)
{
    const struct weft_lex_token token = p->lex.token;
    char buf[64];
    int r;
    if (token.kind == WEFT_LEX_NAME && !is_keyword(&token))
        return parse_name(p, ret);
    if (token.kind == WEFT_LEX_STRING || token.kind == WEFT_LEX_INT) {
        bool string = token.kind == WEFT_LEX_STRING;
        struct weft_node *node = new_node(p, string ? WEFT_NODE_STRING : WEFT_NODE_INT, token.at);
        if (node == NULL)
            return -WEFT_ENOMEM;
        *ret = node;
        if (!string)
            return parse_int(p, &node->number);
        r = unescape(p, &token, node);
        return r < 0 ? r : weft_lex_next(&p->lex);
    }
    if (!weft_lex_is(&token, "("))
        return refuse(p, token.at, "found %s, expected a value", weft_lex_show(&token, buf));
    if ((r = enter(p, token.at)) < 0 || (r = weft_lex_next(&p->lex)) < 0 ||
        (r = parse_expression(p, ret)) < 0)
        return r;
    p->nesting--;
    return expect(p, ")");
}

/* loop has these members only; they are known before anything runs. */
static int check_loop_member(struct parser *p, const struct weft_node *object,
                             const struct weft_lex_token *name)
{
    static const char *const members[] = {"first", "last", "index", "index0", "length"};
    char buf[64];
    if (object->kind != WEFT_NODE_NAME || object->text_size != 4 ||
        memcmp(object->text, "loop", 4) != 0)
        return 0;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (name->size == strlen(members[i]) && memcmp(name->text, members[i], name->size) == 0)
            return 0;
    }
    return refuse(p, name->at, "unknown member %s of loop", weft_lex_show(name, buf));
}

/* Behind '[': a string or an integer, then ']'. */
static int parse_subscript(struct parser *p, struct weft_node *node)
{
    char buf[64];
    int r;
    if (p->lex.token.kind == WEFT_LEX_STRING) {
        const struct weft_lex_token key = p->lex.token;
        if ((r = unescape(p, &key, node)) < 0 || (r = check_loop_member(p, node->a, &key)) < 0 ||
            (r = weft_lex_next(&p->lex)) < 0)
            return r;
        return expect(p, "]");
    }
    bool minus = weft_lex_is(&p->lex.token, "-");
    if (minus && (r = weft_lex_next(&p->lex)) < 0)
        return r;
    if (p->lex.token.kind != WEFT_LEX_INT)
        return refuse(p, p->lex.token.at, "found %s, expected a string or an integer as index",
                      weft_lex_show(&p->lex.token, buf));
    node->kind = WEFT_NODE_INDEX;
    if ((r = parse_int(p, &node->number)) < 0)
        return r;
    node->number = minus ? -node->number : node->number;
    return expect(p, "]");
}

static int parse_postfix(struct parser *p, struct weft_node **ret)
{
    char buf[64];
    int r = parse_primary(p, ret);
    for (unsigned n = 0; r == 0; n++) {
        const struct weft_lex_token sign = p->lex.token;
        if (weft_lex_is(&sign, "("))
            return refuse(p, sign.at, "call of a function");
        if (!weft_lex_is(&sign, ".") && !weft_lex_is(&sign, "[") && !weft_lex_is(&sign, "|"))
            return 0;
        if (n == POSTFIX_MAX)
            return refuse(p, sign.at, "more than %d members and filters in a row", POSTFIX_MAX);
        struct weft_node *node = new_node(p, WEFT_NODE_MEMBER, sign.at);
        if (node == NULL)
            return -WEFT_ENOMEM;
        node->a = *ret;
        *ret = node;
        if ((r = weft_lex_next(&p->lex)) < 0)
            return r;
        if (weft_lex_is(&sign, "[")) {
            r = parse_subscript(p, node);
            continue;
        }
        if (p->lex.token.kind != WEFT_LEX_NAME)
            return refuse(p, p->lex.token.at, "found %s, expected a name",
                          weft_lex_show(&p->lex.token, buf));
        if (weft_lex_is(&sign, "|")) {
            if (!weft_lex_is(&p->lex.token, "trim"))
                return refuse(p, p->lex.token.at, "unknown filter %s",
                              weft_lex_show(&p->lex.token, buf));
            node->kind = WEFT_NODE_TRIM;
        } else if ((r = check_loop_member(p, node->a, &p->lex.token)) < 0) {
            return r;
        }
        node->text = p->lex.token.text;
        node->text_size = p->lex.token.size;
        r = weft_lex_next(&p->lex);
    }
    return r;
}

/* operand (sign operand)*: one operand stays what it is, more become a node with a list. */
static int parse_list(struct parser *p, const char *sign, enum weft_node_kind kind,
                      int (*operand)(struct parser *, struct weft_node **), struct weft_node **ret)
{
    const uint32_t at = p->lex.token.at;
    int r = operand(p, ret);
    struct weft_node *list = NULL, *last = r == 0 ? *ret : NULL;
    while (r == 0 && weft_lex_is(&p->lex.token, sign)) {
        if (list == NULL) {
            if ((list = new_node(p, kind, at)) == NULL)
                return -WEFT_ENOMEM;
            list->a = *ret;
            *ret = list;
        }
        if ((r = weft_lex_next(&p->lex)) < 0 || (r = operand(p, &last->next)) < 0)
            return r;
        last = last->next;
    }
    return r;
}

static int parse_sum(struct parser *p, struct weft_node **ret)
{
    return parse_list(p, "+", WEFT_NODE_CONCAT, parse_postfix, ret);
}

static int parse_comparison(struct parser *p, struct weft_node **ret)
{
    int r = parse_sum(p, ret);
    if (r < 0 || (!weft_lex_is(&p->lex.token, "==") && !weft_lex_is(&p->lex.token, "!=")))
        return r;
    struct weft_node *node = new_node(p, WEFT_NODE_EQUAL, p->lex.token.at);
    if (node == NULL)
        return -WEFT_ENOMEM;
    node->number = weft_lex_is(&p->lex.token, "==");
    node->a = *ret;
    *ret = node;
    if ((r = weft_lex_next(&p->lex)) < 0 || (r = parse_sum(p, &node->a->next)) < 0)
        return r;
    if (weft_lex_is(&p->lex.token, "==") || weft_lex_is(&p->lex.token, "!="))
        return refuse(p, p->lex.token.at, "comparison of more than two values");
    return 0;
}

static int parse_not(struct parser *p, struct weft_node **ret)
{
    if (!weft_lex_is(&p->lex.token, "not"))
        return parse_comparison(p, ret);
    struct weft_node *node = new_node(p, WEFT_NODE_NOT, p->lex.token.at);
    if (node == NULL)
        return -WEFT_ENOMEM;
    int r = enter(p, p->lex.token.at);
    if (r < 0 || (r = weft_lex_next(&p->lex)) < 0 || (r = parse_not(p, &node->a)) < 0)
        return r;
    p->nesting--;
    *ret = node;
    return 0;
}

static int parse_and(struct parser *p, struct weft_node **ret)
{
    return parse_list(p, "and", WEFT_NODE_AND, parse_not, ret);
}

static int parse_expression(struct parser *p, struct weft_node **ret)
{
    return parse_list(p, "or", WEFT_NODE_OR, parse_and, ret);
}

/* An expression that fills the rest of the tag. */
static int parse_whole(struct parser *p, struct weft_node **ret)
{
    char buf[64];
    int r = parse_expression(p, ret);
    if (r == 0 && p->lex.token.kind != WEFT_LEX_END)
        return refuse(p, p->lex.token.at,
                      "found %s, expected the end of the tag or an operator of "
                      "+ == != and or | trim",
                      weft_lex_show(&p->lex.token, buf));
    return r;
}

static int parse_output(struct parser *p, struct weft_node **ret)
{
    struct weft_node *node = new_node(p, WEFT_NODE_OUTPUT, (uint32_t)p->lex.at);
    if (node == NULL)
        return -WEFT_ENOMEM;
    *ret = node;
    p->lex.variable = true;
    int r = weft_lex_next(&p->lex);
    if (r == 0)
        r = parse_whole(p, &node->a);
    if (r == 0)
        weft_lex_close(&p->lex, false);
    p->lex.variable = false;
    return r;
}

static int parse_body(struct parser *p, const struct weft_lex_token *opener,
                      struct weft_node **ret);

/* Behind a block's last name ("else", "endif"): nothing but the end of the tag. */
static int finish_tag(struct parser *p)
{
    char buf[64];
    int r = weft_lex_next(&p->lex);
    if (r == 0 && p->lex.token.kind != WEFT_LEX_END)
        return refuse(p, p->lex.token.at, "found %s, expected '%%}'",
                      weft_lex_show(&p->lex.token, buf));
    if (r == 0)
        weft_lex_close(&p->lex, true);
    return r;
}

static int parse_for(struct parser *p, const struct weft_lex_token *opener, struct weft_node *node)
{
    struct scope scope = {.up = p->scope};
    char buf[64];
    int r = weft_lex_next(&p->lex);
    if (r < 0)
        return r;
    scope.name = p->lex.token;
    if (p->lex.token.kind != WEFT_LEX_NAME || is_keyword(&p->lex.token) ||
        weft_lex_is(&p->lex.token, "loop"))
        return refuse(p, p->lex.token.at, "found %s, expected the name of a variable",
                      weft_lex_show(&p->lex.token, buf));
    node->kind = WEFT_NODE_FOR;
    node->text = p->lex.token.text;
    node->text_size = p->lex.token.size;
    if ((r = weft_lex_next(&p->lex)) < 0 || (r = expect(p, "in")) < 0 ||
        (r = parse_whole(p, &node->a)) < 0)
        return r;
    weft_lex_close(&p->lex, true);
    p->scope = &scope;
    r = parse_body(p, opener, &node->b);
    p->scope = scope.up;
    if (r < 0)
        return r;
    if (!weft_lex_is(&p->lex.token, "endfor"))
        return refuse(p, p->lex.token.at, "%s of a for block", weft_lex_show(&p->lex.token, buf));
    return finish_tag(p);
}

static int parse_if(struct parser *p, const struct weft_lex_token *opener, struct weft_node *node)
{
    char buf[64];
    int r;
    for (;;) {
        node->kind = WEFT_NODE_IF;
        if ((r = weft_lex_next(&p->lex)) < 0 || (r = parse_whole(p, &node->a)) < 0)
            return r;
        weft_lex_close(&p->lex, true);
        if ((r = parse_body(p, opener, &node->b)) < 0)
            return r;
        if (!weft_lex_is(&p->lex.token, "elif"))
            break;
        if ((node->c = new_node(p, WEFT_NODE_IF, p->lex.token.at)) == NULL)
            return -WEFT_ENOMEM;
        node = node->c;
        node->number = 1;
    }
    if (weft_lex_is(&p->lex.token, "else")) {
        if ((r = finish_tag(p)) < 0 || (r = parse_body(p, opener, &node->c)) < 0)
            return r;
    }
    if (!weft_lex_is(&p->lex.token, "endif"))
        return refuse(p, p->lex.token.at, "found %s, expected 'endif'",
                      weft_lex_show(&p->lex.token, buf));
    return finish_tag(p);
}

static bool ends_block(const struct weft_lex_token *token)
{
    return weft_lex_is(token, "endfor") || weft_lex_is(token, "endif") ||
           weft_lex_is(token, "elif") || weft_lex_is(token, "else");
}

/* A block tag whose name is in p->lex.token. */
static int parse_block(struct parser *p, struct weft_node **ret)
{
    const struct weft_lex_token name = p->lex.token;
    char buf[64];
    if (!weft_lex_is(&name, "for") && !weft_lex_is(&name, "if"))
        return refuse(p, name.at, "found %s, expected a for or an if block",
                      weft_lex_show(&name, buf));
    if ((*ret = new_node(p, WEFT_NODE_IF, name.at)) == NULL)
        return -WEFT_ENOMEM;
    int r = enter(p, name.at);
    if (r < 0)
        return r;
    r = weft_lex_is(&name, "for") ? parse_for(p, &name, *ret) : parse_if(p, &name, *ret);
    p->nesting--;
    return r;
}

/* Statements up to the tag that ends the block of opener (NULL: up to the end of the source). That
 * tag's name is left in p->lex.token. */
static int parse_body(struct parser *p, const struct weft_lex_token *opener, struct weft_node **ret)
{
    struct weft_node **tail = ret;
    char buf[64];
    for (;;) {
        struct weft_span text;
        int r = 0;
        char kind = weft_lex_text(&p->lex, &text);
        if (text.size > 0) {
            if ((*tail = new_node(p, WEFT_NODE_TEXT, (uint32_t)text.start)) == NULL)
                return -WEFT_ENOMEM;
            (*tail)->text = p->t->source + text.start;
            (*tail)->text_size = text.size;
            tail = &(*tail)->next;
        }
        if (kind == '\0')
            return opener == NULL ? 0
                                  : refuse(p, opener->at, "%s block without an end",
                                           weft_lex_show(opener, buf));
        if (kind == '%') {
            if ((r = weft_lex_next(&p->lex)) < 0)
                return r;
            if (ends_block(&p->lex.token))
                return opener != NULL ? 0
                                      : refuse(p, p->lex.token.at, "%s outside of a block",
                                               weft_lex_show(&p->lex.token, buf));
            r = parse_block(p, tail);
        } else if (kind == '{') {
            r = parse_output(p, tail);
        } else {
            r = weft_lex_comment(&p->lex);
        }
        if (r < 0)
            return r;
        if (kind != '#') {
            assert(*tail != NULL); /* the block or output just parsed */
            tail = &(*tail)->next;
        }
    }
}

int weft_template_parse(struct weft_template *t, weft_err *err)
{
    struct parser p = {
        .t = t,
        .lex = {.t = t, .s = t->source, .n = t->source_size, .err = err},
        .err = err,
    };
    return parse_body(&p, NULL, &t->body);
}
