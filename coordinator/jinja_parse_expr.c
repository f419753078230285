/*
 * Parser of operators, see jinja_parse.h. Their order is Jinja's, from the weakest: if/else, or,
 * and, not, comparisons, + -, ~, * / // %, **, signs, then . [] () and filters. Source: the
 * template designer documentation of Jinja 3.1 and, where that is silent, what its parser does.
 */
#include "coordinator/jinja_parse.h"

struct operator_sign {
    const char *sign;
    enum jinja_node_kind kind;
};

static int parse_unary(struct jinja_parser *p, bool filters, struct jinja_node **ret)
{
    const uint32_t at = p->l.token.at;
    const bool minus = jinja_token_is(&p->l.token, "-");
    int r;
    if (minus || jinja_token_is(&p->l.token, "+")) {
        r = jinja_parse_enter(p, at);
        if (r == 0)
            r = jinja_lex_next(&p->l);
        if (r == 0)
            r = parse_unary(p, false, ret);
        if (r < 0)
            return r;
        p->nesting--;
        *ret = jinja_node_pair(p, minus ? JINJA_NEGATE : JINJA_PLUS, at, *ret, NULL);
        if (*ret == NULL)
            return jinja_parse_failed(p);
    } else {
        r = jinja_parse_primary(p, ret);
    }
    if (r == 0)
        r = jinja_parse_postfix(p, *ret, ret);
    if (r == 0 && filters)
        r = jinja_parse_filters(p, *ret, false, ret);
    return r;
}

/* Left-associative operators of one strength, over operands of the next one. */
static int parse_chain(struct jinja_parser *p, const struct operator_sign *signs,
                       int (*operand)(struct jinja_parser *, struct jinja_node **),
                       struct jinja_node **ret)
{
    int r = operand(p, ret);
    while (r == 0) {
        const struct operator_sign *s = signs;
        const uint32_t at = p->l.token.at;
        while (s->sign != NULL && !jinja_token_is(&p->l.token, s->sign))
            s++;
        if (s->sign == NULL)
            break;
        struct jinja_node *right = NULL;
        r = jinja_lex_next(&p->l);
        if (r == 0)
            r = operand(p, &right);
        if (r < 0)
            break;
        *ret = jinja_node_pair(p, s->kind, at, *ret, right);
        if (*ret == NULL)
            return jinja_parse_failed(p);
    }
    return r;
}

/* Operators whose operands stand in one list: no height for a long chain. */
static int parse_flat(struct jinja_parser *p, const char *sign, enum jinja_node_kind kind,
                      int (*operand)(struct jinja_parser *, struct jinja_node **),
                      struct jinja_node **ret)
{
    const uint32_t at = p->l.token.at;
    int r = operand(p, ret);
    if (r < 0 || !jinja_token_is(&p->l.token, sign))
        return r;
    struct jinja_node *node = jinja_node_new(p, kind, at), **tail = jinja_node_behind(*ret);
    if (node == NULL)
        return jinja_parse_failed(p);
    node->a = *ret;
    *ret = node;
    for (bool more = true; r == 0;) {
        r = jinja_parse_skip(p, sign, &more);
        if (r < 0 || !more)
            break;
        r = operand(p, tail);
        if (r == 0)
            tail = jinja_node_behind(*tail);
    }
    return r == 0 ? jinja_node_close(p, node) : r;
}

static int parse_signed(struct jinja_parser *p, struct jinja_node **ret)
{
    return parse_unary(p, true, ret);
}

static int parse_power(struct jinja_parser *p, struct jinja_node **ret)
{
    static const struct operator_sign signs[] = {{"**", JINJA_POWER}, {NULL, JINJA_POWER}};
    return parse_chain(p, signs, parse_signed, ret);
}

static int parse_product(struct jinja_parser *p, struct jinja_node **ret)
{
    static const struct operator_sign signs[] = {{"*", JINJA_MULTIPLY},
                                                 {"/", JINJA_DIVIDE},
                                                 {"//", JINJA_FLOOR_DIVIDE},
                                                 {"%", JINJA_MODULO},
                                                 {NULL, JINJA_MODULO}};
    return parse_chain(p, signs, parse_power, ret);
}

static int parse_concat(struct jinja_parser *p, struct jinja_node **ret)
{
    return parse_flat(p, "~", JINJA_CONCAT, parse_product, ret);
}

static int parse_sum(struct jinja_parser *p, struct jinja_node **ret)
{
    static const struct operator_sign signs[] = {
        {"+", JINJA_ADD}, {"-", JINJA_SUBTRACT}, {NULL, JINJA_ADD}};
    return parse_chain(p, signs, parse_concat, ret);
}

/* Reads a comparison's sign; *ret is COUNT when there is none. */
static int parse_compare_sign(struct jinja_parser *p, enum jinja_compare *ret)
{
    static const char *const signs[JINJA_COMPARE_COUNT] = {
        [JINJA_EQ] = "==", [JINJA_NE] = "!=", [JINJA_LT] = "<",  [JINJA_LE] = "<=",
        [JINJA_GT] = ">",  [JINJA_GE] = ">=", [JINJA_IN] = "in", [JINJA_NOT_IN] = "not",
    };
    struct jinja_token next;
    int op = 0, r = 0;
    while (op < JINJA_COMPARE_COUNT && !jinja_token_is(&p->l.token, signs[op]))
        op++;
    if (op == JINJA_NOT_IN) {
        r = jinja_lex_peek(&p->l, &next);
        if (r == 0 && !jinja_token_is(&next, "in"))
            op = JINJA_COMPARE_COUNT;
        else if (r == 0)
            r = jinja_lex_next(&p->l);
    }
    *ret = (enum jinja_compare)op;
    return r == 0 && op != JINJA_COMPARE_COUNT ? jinja_lex_next(&p->l) : r;
}

static int parse_compare(struct jinja_parser *p, struct jinja_node **ret)
{
    struct jinja_node *node = NULL, **tail = NULL;
    int r = parse_sum(p, ret);
    while (r == 0) {
        const uint32_t at = p->l.token.at;
        enum jinja_compare op;
        r = parse_compare_sign(p, &op);
        if (r < 0 || op == JINJA_COMPARE_COUNT)
            break;
        if (node == NULL) {
            if ((node = jinja_node_pair(p, JINJA_COMPARE, at, *ret, NULL)) == NULL)
                return jinja_parse_failed(p);
            tail = &node->b;
            *ret = node;
        }
        struct jinja_node *operand = jinja_node_new(p, JINJA_OPERAND, at);
        if (operand == NULL)
            return jinja_parse_failed(p);
        operand->compare = op;
        *tail = operand;
        tail = &operand->next;
        r = parse_sum(p, &operand->a);
        if (r == 0)
            r = jinja_node_close(p, operand);
    }
    return r == 0 && node != NULL ? jinja_node_close(p, node) : r;
}

static int parse_not(struct jinja_parser *p, struct jinja_node **ret)
{
    const uint32_t at = p->l.token.at;
    bool negated;
    int r = jinja_parse_skip(p, "not", &negated);
    if (r < 0 || !negated)
        return r < 0 ? r : parse_compare(p, ret);
    r = jinja_parse_enter(p, at);
    if (r == 0)
        r = parse_not(p, ret);
    if (r != 0)
        return r;
    p->nesting--;
    *ret = jinja_node_pair(p, JINJA_NOT, at, *ret, NULL);
    return *ret != NULL ? 0 : jinja_parse_failed(p);
}

static int parse_and(struct jinja_parser *p, struct jinja_node **ret)
{
    return parse_flat(p, "and", JINJA_AND, parse_not, ret);
}

static int parse_or(struct jinja_parser *p, struct jinja_node **ret)
{
    return parse_flat(p, "or", JINJA_OR, parse_and, ret);
}

/* then if condition else other; what is unknown in any part may never be reached. */
static int parse_conditional(struct jinja_parser *p, struct jinja_node **ret)
{
    const struct jinja_node *unknown = p->unknown;
    bool more = false;
    int r = parse_or(p, ret);
    while (r == 0 && jinja_token_is(&p->l.token, "if")) {
        struct jinja_node *node = jinja_node_new(p, JINJA_CONDITION, p->l.token.at);
        if (node == NULL)
            return jinja_parse_failed(p);
        node->b = *ret;
        *ret = node;
        r = jinja_lex_next(&p->l);
        if (r == 0)
            r = parse_or(p, &node->a);
        if (r == 0)
            r = jinja_parse_skip(p, "else", &more);
        if (r == 0 && more)
            r = jinja_parse_expression(p, true, &node->c);
        if (r == 0)
            r = jinja_node_close(p, node);
        p->unknown = unknown;
    }
    return r;
}

int jinja_parse_expression(struct jinja_parser *p, bool condition, struct jinja_node **ret)
{
    int r = jinja_parse_enter(p, p->l.token.at);
    if (r == 0)
        r = condition ? parse_conditional(p, ret) : parse_or(p, ret);
    p->nesting--;
    return r;
}

/* True where a tuple may end behind a comma. */
static bool tuple_ends(const struct jinja_token *token)
{
    return token->kind == JINJA_TOKEN_END || jinja_token_is(token, ")") ||
           jinja_token_is(token, "in") || jinja_token_is(token, "=");
}

int jinja_parse_tuple(struct jinja_parser *p, bool simple, bool condition, struct jinja_node **ret)
{
    const uint32_t at = p->l.token.at;
    int r = simple ? jinja_parse_primary(p, ret) : jinja_parse_expression(p, condition, ret);
    if (r < 0 || !jinja_token_is(&p->l.token, ","))
        return r;
    struct jinja_node *node = jinja_node_new(p, JINJA_TUPLE_OF, at),
                      **tail = jinja_node_behind(*ret);
    if (node == NULL)
        return jinja_parse_failed(p);
    node->a = *ret;
    *ret = node;
    while (r == 0 && jinja_token_is(&p->l.token, ",")) {
        r = jinja_lex_next(&p->l);
        if (r < 0 || tuple_ends(&p->l.token))
            break;
        r = simple ? jinja_parse_primary(p, tail) : jinja_parse_expression(p, condition, tail);
        if (r == 0)
            tail = jinja_node_behind(*tail);
    }
    return r == 0 ? jinja_node_close(p, node) : r;
}
