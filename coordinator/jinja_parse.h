/*
 * Parser of templates: what its three files share, statements (jinja_parse.c), operators
 * (jinja_parse_expr.c) and values (jinja_parse_value.c). Nobody else looks in here.
 *
 * Invariant: l.token is the first token that is not used yet; recursion is bounded by
 * JINJA_NESTING_MAX, the height of what is built by JINJA_HEIGHT_MAX.
 */
#ifndef WEFT_COORDINATOR_JINJA_PARSE_H
#define WEFT_COORDINATOR_JINJA_PARSE_H

#include <assert.h>

#include "coordinator/jinja_lex.h"

struct jinja_parser {
    struct jinja_source *source;
    struct jinja_lexer l;
    uint32_t nesting;
    /* The first filter or test that nobody knows and that is reached in any case: Jinja refuses it
     * before it runs, and others only where it comes to them. */
    const struct jinja_node *unknown;
    uint32_t loops; /* for blocks around, within the same macro */
    weft_err *err;
};

#define jinja_parse_refuse(p, at, ...) jinja_lex_refuse(&(p)->l, (at), __VA_ARGS__)

/* NULL with the error set. */
struct jinja_node *jinja_node_new(struct jinja_parser *p, enum jinja_node_kind kind, size_t at);
/* Sets the node's height from its children's, or refuses. */
int jinja_node_close(struct jinja_parser *p, struct jinja_node *node) WEFT_MUST_USE;

/* A closed node of one or two children; NULL with the error set. */
struct jinja_node *jinja_node_pair(struct jinja_parser *p, enum jinja_node_kind kind, size_t at,
                                   struct jinja_node *a, struct jinja_node *b);
/* What one of these failed with. */
static inline int jinja_parse_failed(const struct jinja_parser *p)
{
    assert(p->err->code > 0);
    return -p->err->code;
}

/* Where what follows node goes. */
static inline struct jinja_node **jinja_node_behind(struct jinja_node *node)
{
    assert(node != NULL);
    return &node->next;
}

int jinja_parse_enter(struct jinja_parser *p, size_t at) WEFT_MUST_USE;
/* The token is skipped if it reads so; else *ret is false, or (expect) an error says what was
 * expected. */
int jinja_parse_skip(struct jinja_parser *p, const char *text, bool *ret) WEFT_MUST_USE;
int jinja_parse_expect(struct jinja_parser *p, const char *text) WEFT_MUST_USE;
/* "found X, expected Y" at the current token. */
int jinja_parse_found(struct jinja_parser *p, const char *expected) WEFT_MUST_USE;

int jinja_parse_expression(struct jinja_parser *p, bool condition,
                           struct jinja_node **ret) WEFT_MUST_USE;
/* a, b: a tuple if there is a comma. `simple`: names and literals only, as before `in`. */
int jinja_parse_tuple(struct jinja_parser *p, bool simple, bool condition,
                      struct jinja_node **ret) WEFT_MUST_USE;
/* A literal, a name or something in brackets; then its members, elements and calls. */
int jinja_parse_primary(struct jinja_parser *p, struct jinja_node **ret) WEFT_MUST_USE;
int jinja_parse_postfix(struct jinja_parser *p, struct jinja_node *node,
                        struct jinja_node **ret) WEFT_MUST_USE;
/* Filters and tests behind `node`. */
int jinja_parse_filters(struct jinja_parser *p, struct jinja_node *node, bool filters_only,
                        struct jinja_node **ret) WEFT_MUST_USE;
/* `name(args)` of a filter, behind its bar. */
int jinja_parse_filter(struct jinja_parser *p, struct jinja_node *input,
                       struct jinja_node **ret) WEFT_MUST_USE;
/* An identifier that is no word of the language. */
int jinja_parse_name(struct jinja_parser *p, struct jinja_node *node) WEFT_MUST_USE;

#endif
