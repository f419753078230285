/*
 * Parser of values, see jinja_parse.h: literals, brackets, and what stands behind a value: members,
 * calls, filters and tests.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/jinja_parse.h"
#include "coordinator/jinja_run.h"

/* ------------------------------------------------------------------ literals */

/* One escape of a string; `*i` is behind the backslash and goes behind what was read. Python's
 * rules: what is no escape keeps its backslash. */
static int parse_escape(struct jinja_parser *p, size_t *i, size_t end, char *out, size_t *used)
{
    static const char letters[] = "ntr\\'\"abfv", values[] = "\n\t\r\\'\"\a\b\f\v";
    const char *s = p->l.s;
    const char c = s[(*i)++];
    const char *known = c != '\0' ? strchr(letters, c) : NULL;
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0, base = 16;
    uint32_t code = 0;
    if (known != NULL) {
        out[(*used)++] = values[known - letters];
        return 0;
    }
    if (c == '\n')
        return 0;
    if (c >= '0' && c <= '7') {
        digits = 3;
        base = 8;
        (*i)--;
    } else if (digits == 0 && c != 'N') {
        out[(*used)++] = '\\';
        out[(*used)++] = c;
        return 0;
    }
    size_t n = 0;
    for (; n < digits && *i < end; n++, (*i)++) {
        const char d = s[*i], lower = (char)(d | 0x20);
        const unsigned value = d >= '0' && d <= '9'           ? (unsigned)(d - '0')
                               : lower >= 'a' && lower <= 'f' ? (unsigned)(lower - 'a' + 10)
                                                              : 99;
        if (value >= base)
            break;
        code = code * (uint32_t)base + value;
    }
    if (c == 'N' || (base == 16 && n < digits) || code > 0x10FFFF ||
        (code >= 0xD800 && code <= 0xDFFF))
        return jinja_parse_refuse(p, *i - n - 1, "escape '\\%c' is not supported here", c);
    *used += jinja_encode(code, out + *used);
    return 0;
}

/* The token's text without escapes, appended to out, which has room for it. */
static int unescape(struct jinja_parser *p, const struct jinja_token *token, char *out,
                    size_t *used)
{
    const size_t start = (size_t)(token->text - p->l.s), end = start + token->size;
    for (size_t i = start; i < end;) {
        if (p->l.s[i] != '\\') {
            out[(*used)++] = p->l.s[i++];
            continue;
        }
        i++;
        int r = parse_escape(p, &i, end, out, used);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Strings beside each other are one. No escape is longer than what it stands for. */
static int parse_string(struct jinja_parser *p, struct jinja_node *node)
{
    int r = 0;
    size_t room = 0, used = 0;
    struct jinja_lexer ahead = p->l;
    while (r == 0 && ahead.token.kind == JINJA_TOKEN_STRING) {
        room += ahead.token.size;
        r = jinja_lex_next(&ahead);
    }
    char *text = weft_arena_alloc(&p->source->arena, room);
    if (text == NULL)
        return weft_fail(p->err, WEFT_ENOMEM, "chat template: no memory for its tree");
    while (r == 0 && p->l.token.kind == JINJA_TOKEN_STRING) {
        r = unescape(p, &p->l.token, text, &used);
        if (r == 0)
            r = jinja_lex_next(&p->l);
    }
    node->string = (struct jinja_string){.text = text, .size = used, .trusted = true};
    node->value = (struct jinja_value){.kind = JINJA_STRING, .string = &node->string};
    return r;
}

/* Digits with _ between them; 0b, 0o and 0x in front. */
static int parse_number(struct jinja_parser *p, struct jinja_node *node)
{
    const struct jinja_token *token = &p->l.token;
    const bool real = token->kind == JINJA_TOKEN_FLOAT;
    char digits[64], *end = NULL;
    size_t n = 0;
    for (size_t i = 0; i < token->size && n < sizeof digits - 1; i++)
        if (token->text[i] != '_')
            digits[n++] = token->text[i];
    digits[n] = '\0';
    const char *start = digits;
    int base = 10;
    if (n > 1 && digits[0] == '0' && !real) {
        const char kind = (char)(digits[1] | 0x20);
        base = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
        start += base != 10 ? 2 : 0;
    }
    errno = 0;
    if (real)
        node->value = jinja_float(strtod(start, &end), true);
    else
        node->value = jinja_int(strtoll(start, &end, base), true);
    if ((errno != 0 && !real) || end == start || *end != '\0' || n == sizeof digits - 1 ||
        (real && !isfinite(node->value.real)))
        return jinja_parse_refuse(p, token->at,
                                  "found a number that is malformed or does not fit 64 bits");
    return jinja_lex_next(&p->l);
}

/* true, False, none and the like; false when the name is none of them. */
static bool constant(const struct jinja_token *token, struct jinja_value *ret)
{
    if (jinja_token_is(token, "true") || jinja_token_is(token, "True"))
        *ret = jinja_bool(true);
    else if (jinja_token_is(token, "false") || jinja_token_is(token, "False"))
        *ret = jinja_bool(false);
    else if (jinja_token_is(token, "none") || jinja_token_is(token, "None"))
        *ret = jinja_none();
    else
        return false;
    return true;
}

int jinja_parse_name(struct jinja_parser *p, struct jinja_node *node)
{
    static const char *const words[] = {"and", "else", "elif", "for", "if",
                                        "in",  "is",   "not",  "or",  NULL};
    struct jinja_value ignored;
    bool reserved = p->l.token.kind != JINJA_TOKEN_NAME || constant(&p->l.token, &ignored);
    for (size_t i = 0; words[i] != NULL; i++)
        reserved |= jinja_token_is(&p->l.token, words[i]);
    if (reserved)
        return jinja_parse_found(p, "a name");
    node->text = p->l.token.text;
    node->size = p->l.token.size;
    return jinja_lex_next(&p->l);
}

/* ------------------------------------------------------------------ primaries */

/* Items up to `close`, in a list at *head. */
static int parse_items(struct jinja_parser *p, const char *close, struct jinja_node **head)
{
    bool done = false;
    struct jinja_node **tail = head;
    int r = jinja_parse_skip(p, close, &done);
    while (r == 0 && !done) {
        r = jinja_parse_expression(p, true, tail);
        if (r < 0)
            return r;
        tail = jinja_node_behind(*tail);
        r = jinja_parse_skip(p, close, &done);
        if (r == 0 && !done)
            r = jinja_parse_expect(p, ",");
        if (r == 0 && !done)
            r = jinja_parse_skip(p, close, &done);
    }
    return r;
}

static int parse_pairs(struct jinja_parser *p, struct jinja_node **head)
{
    bool done = false;
    struct jinja_node **tail = head;
    int r = jinja_parse_skip(p, "}", &done);
    while (r == 0 && !done) {
        struct jinja_node *key = NULL, *value = NULL;
        const uint32_t at = p->l.token.at;
        r = jinja_parse_expression(p, true, &key);
        if (r == 0)
            r = jinja_parse_expect(p, ":");
        if (r == 0)
            r = jinja_parse_expression(p, true, &value);
        if (r < 0)
            return r;
        *tail = jinja_node_pair(p, JINJA_PAIR, at, key, value);
        if (*tail == NULL)
            return jinja_parse_failed(p);
        tail = jinja_node_behind(*tail);
        r = jinja_parse_skip(p, "}", &done);
        if (r == 0 && !done)
            r = jinja_parse_expect(p, ",");
        if (r == 0 && !done)
            r = jinja_parse_skip(p, "}", &done);
    }
    return r;
}

/* ( … ), [ … ], { … } */
static int parse_bracket(struct jinja_parser *p, struct jinja_node **ret)
{
    const struct jinja_token open = p->l.token;
    bool empty = false;
    int r = jinja_parse_enter(p, open.at);
    if (r == 0)
        r = jinja_lex_next(&p->l);
    if (r < 0)
        return r;
    if (open.text[0] == '(') {
        r = jinja_parse_skip(p, ")", &empty);
        if (r == 0 && !empty) {
            r = jinja_parse_tuple(p, false, true, ret);
            if (r == 0)
                r = jinja_parse_expect(p, ")");
        }
        p->nesting--;
        if (r < 0 || !empty)
            return r;
    }
    struct jinja_node *node = jinja_node_new(p,
                                             open.text[0] == '('   ? JINJA_TUPLE_OF
                                             : open.text[0] == '[' ? JINJA_ARRAY
                                                                   : JINJA_OBJECT,
                                             open.at);
    if (node == NULL)
        return jinja_parse_failed(p);
    *ret = node;
    if (open.text[0] == '(')
        return jinja_node_close(p, node);
    r = open.text[0] == '[' ? parse_items(p, "]", &node->a) : parse_pairs(p, &node->a);
    p->nesting--;
    return r == 0 ? jinja_node_close(p, node) : r;
}

int jinja_parse_primary(struct jinja_parser *p, struct jinja_node **ret)
{
    const struct jinja_token *token = &p->l.token;
    if (jinja_token_is(token, "(") || jinja_token_is(token, "[") || jinja_token_is(token, "{"))
        return parse_bracket(p, ret);
    struct jinja_node *node = jinja_node_new(p, JINJA_LITERAL, token->at);
    if (node == NULL)
        return jinja_parse_failed(p);
    *ret = node;
    switch (token->kind) {
    case JINJA_TOKEN_STRING:
        return parse_string(p, node);
    case JINJA_TOKEN_INT:
    case JINJA_TOKEN_FLOAT:
        return parse_number(p, node);
    case JINJA_TOKEN_NAME:
        if (constant(token, &node->value))
            return jinja_lex_next(&p->l);
        node->kind = JINJA_NAME;
        return jinja_parse_name(p, node);
    default:
        return jinja_parse_found(p, "a value");
    }
}

/* ------------------------------------------------------------------ what stands behind a value */

static int parse_argument(struct jinja_parser *p, bool named_before, struct jinja_node **ret)
{
    struct jinja_token next;
    if (jinja_token_is(&p->l.token, "*") || jinja_token_is(&p->l.token, "**"))
        return jinja_parse_refuse(p, p->l.token.at, "arguments with '*' are not supported");
    int r = jinja_lex_peek(&p->l, &next);
    if (r < 0)
        return r;
    if (p->l.token.kind != JINJA_TOKEN_NAME || !jinja_token_is(&next, "=")) {
        if (named_before)
            return jinja_parse_found(p, "the name of an argument");
        return jinja_parse_expression(p, true, ret);
    }
    struct jinja_node *node = jinja_node_new(p, JINJA_KEYWORD, p->l.token.at);
    if (node == NULL)
        return jinja_parse_failed(p);
    *ret = node;
    r = jinja_parse_name(p, node);
    if (r == 0)
        r = jinja_lex_next(&p->l);
    if (r == 0)
        r = jinja_parse_expression(p, true, &node->a);
    return r == 0 ? jinja_node_close(p, node) : r;
}

/* The token is "(". */
static int parse_arguments(struct jinja_parser *p, struct jinja_node **head)
{
    bool done = false, named = false;
    struct jinja_node **tail = head;
    const uint32_t at = p->l.token.at;
    int r = jinja_parse_enter(p, at);
    if (r == 0)
        r = jinja_lex_next(&p->l);
    if (r == 0)
        r = jinja_parse_skip(p, ")", &done);
    for (uint32_t n = 1; r == 0 && !done; n++) {
        if (n > JINJA_ARGUMENTS_MAX)
            return jinja_parse_refuse(p, at, "more than %u arguments", JINJA_ARGUMENTS_MAX);
        r = parse_argument(p, named, tail);
        if (r < 0)
            return r;
        named = (*tail)->kind == JINJA_KEYWORD;
        tail = jinja_node_behind(*tail);
        r = jinja_parse_skip(p, ")", &done);
        if (r == 0 && !done)
            r = jinja_parse_expect(p, ",");
        if (r == 0 && !done)
            r = jinja_parse_skip(p, ")", &done);
    }
    p->nesting--;
    return r;
}

/* One part of a slice: nothing before `:` and `]`. */
static int parse_bound(struct jinja_parser *p, struct jinja_node **ret)
{
    if (jinja_token_is(&p->l.token, ":") || jinja_token_is(&p->l.token, "]"))
        return 0;
    return jinja_parse_expression(p, true, ret);
}

/* Behind "[". */
static int parse_index(struct jinja_parser *p, struct jinja_node *object, uint32_t at,
                       struct jinja_node **ret)
{
    struct jinja_node *node = jinja_node_new(p, JINJA_INDEX, at);
    bool slice = false, step = false;
    if (node == NULL)
        return jinja_parse_failed(p);
    *ret = node;
    node->a = object;
    int r = parse_bound(p, &node->b);
    if (r == 0)
        r = jinja_parse_skip(p, ":", &slice);
    if (r == 0 && slice) {
        node->kind = JINJA_SLICE;
        r = parse_bound(p, &node->c);
        if (r == 0)
            r = jinja_parse_skip(p, ":", &step);
        if (r == 0 && step)
            r = parse_bound(p, &node->d);
    } else if (r == 0 && node->b == NULL) {
        return jinja_parse_found(p, "a value");
    }
    if (r == 0)
        r = jinja_parse_expect(p, "]");
    return r == 0 ? jinja_node_close(p, node) : r;
}

/* .name, .0 */
static int parse_member(struct jinja_parser *p, struct jinja_node *object, uint32_t at,
                        struct jinja_node **ret)
{
    struct jinja_node *node = jinja_node_new(p, JINJA_MEMBER, at);
    if (node == NULL)
        return jinja_parse_failed(p);
    *ret = node;
    node->a = object;
    node->text = p->l.token.text;
    node->size = p->l.token.size;
    if (p->l.token.kind == JINJA_TOKEN_INT) {
        node->kind = JINJA_INDEX;
        int r = jinja_parse_primary(p, &node->b);
        return r == 0 ? jinja_node_close(p, node) : r;
    }
    if (p->l.token.kind != JINJA_TOKEN_NAME)
        return jinja_parse_found(p, "a name");
    int r = jinja_lex_next(&p->l);
    return r == 0 ? jinja_node_close(p, node) : r;
}

static int parse_call(struct jinja_parser *p, struct jinja_node *callee, struct jinja_node **ret)
{
    struct jinja_node *node = jinja_node_new(p, JINJA_CALL, p->l.token.at);
    if (node == NULL)
        return jinja_parse_failed(p);
    *ret = node;
    node->a = callee;
    int r = parse_arguments(p, &node->b);
    return r == 0 ? jinja_node_close(p, node) : r;
}

int jinja_parse_postfix(struct jinja_parser *p, struct jinja_node *node, struct jinja_node **ret)
{
    int r = 0;
    while (r == 0) {
        const struct jinja_token token = p->l.token;
        if (jinja_token_is(&token, "(")) {
            r = parse_call(p, node, &node);
        } else if (jinja_token_is(&token, ".")) {
            r = jinja_lex_next(&p->l);
            if (r == 0)
                r = parse_member(p, node, p->l.token.at, &node);
        } else if (jinja_token_is(&token, "[")) {
            r = jinja_parse_enter(p, token.at);
            if (r == 0)
                r = jinja_lex_next(&p->l);
            if (r == 0)
                r = parse_index(p, node, token.at, &node);
            p->nesting--;
        } else {
            break;
        }
    }
    *ret = node;
    return r;
}

/* The name of a filter or test; `is none`, `is in` and `is true` are names here. */
static int parse_builtin(struct jinja_parser *p, bool test, struct jinja_node *node)
{
    node->at = p->l.token.at;
    node->text = p->l.token.text;
    node->size = p->l.token.size;
    if (p->l.token.kind != JINJA_TOKEN_NAME)
        return jinja_parse_found(p, test ? "the name of a test" : "the name of a filter");
    node->builtin =
        test ? jinja_find_test(node->text, node->size) : jinja_find_filter(node->text, node->size);
    if (p->unknown == NULL && (node->builtin == NULL || node->builtin->call == NULL))
        p->unknown = node;
    return jinja_lex_next(&p->l);
}

int jinja_parse_filter(struct jinja_parser *p, struct jinja_node *input, struct jinja_node **ret)
{
    struct jinja_node *node = jinja_node_new(p, JINJA_FILTER, p->l.token.at);
    if (node == NULL)
        return jinja_parse_failed(p);
    *ret = node;
    node->a = input;
    int r = parse_builtin(p, false, node);
    if (r == 0 && jinja_token_is(&p->l.token, "("))
        r = parse_arguments(p, &node->b);
    return r == 0 ? jinja_node_close(p, node) : r;
}

/* Behind `is`: [not] name [argument | (arguments)] */
static int parse_test(struct jinja_parser *p, struct jinja_node *input, struct jinja_node **ret)
{
    struct jinja_node *node = jinja_node_new(p, JINJA_TEST, p->l.token.at);
    bool negated = false;
    if (node == NULL)
        return jinja_parse_failed(p);
    node->a = input;
    int r = jinja_parse_skip(p, "not", &negated);
    if (r == 0)
        r = parse_builtin(p, true, node);
    if (r < 0)
        return r;
    const struct jinja_token *token = &p->l.token;
    const bool open = jinja_token_is(token, "[") || jinja_token_is(token, "{");
    const bool word = token->kind == JINJA_TOKEN_NAME && !jinja_token_is(token, "else") &&
                      !jinja_token_is(token, "or") && !jinja_token_is(token, "and");
    if (jinja_token_is(token, "is"))
        return jinja_parse_refuse(p, token->at, "tests cannot be chained with 'is'");
    if (jinja_token_is(token, "(")) {
        r = parse_arguments(p, &node->b);
    } else if (open || token->kind == JINJA_TOKEN_STRING || token->kind == JINJA_TOKEN_INT ||
               token->kind == JINJA_TOKEN_FLOAT ||
               (word && !jinja_token_is(token, "if") && !jinja_token_is(token, "in") &&
                !jinja_token_is(token, "not"))) {
        r = jinja_parse_primary(p, &node->b);
        if (r == 0)
            r = jinja_parse_postfix(p, node->b, &node->b);
    }
    if (r == 0)
        r = jinja_node_close(p, node);
    if (r < 0 || !negated) {
        *ret = node;
        return r;
    }
    *ret = jinja_node_pair(p, JINJA_NOT, node->at, node, NULL);
    return *ret != NULL ? 0 : jinja_parse_failed(p);
}

int jinja_parse_filters(struct jinja_parser *p, struct jinja_node *node, bool filters_only,
                        struct jinja_node **ret)
{
    bool more = true;
    int r = 0;
    while (r == 0 && more) {
        if (!filters_only && jinja_token_is(&p->l.token, "is")) {
            r = jinja_lex_next(&p->l);
            if (r == 0)
                r = parse_test(p, node, &node);
        } else if (!filters_only && jinja_token_is(&p->l.token, "(")) {
            r = parse_call(p, node, &node);
        } else {
            r = jinja_parse_skip(p, "|", &more);
            if (r == 0 && more)
                r = jinja_parse_filter(p, node, &node);
        }
    }
    *ret = node;
    return r;
}
