/*
 * Syntax tree of a chat template: what template_parse.c builds and template.c runs.
 *
 * Invariant: the tree is at most WEFT_TEMPLATE_NESTING_MAX brackets deep (chains of operators are
 * lists, not depth), every name in it is known, and nodes point into the template's own copy of the
 * source.
 */
#ifndef WEFT_COORDINATOR_TEMPLATE_AST_H
#define WEFT_COORDINATOR_TEMPLATE_AST_H

#include "base/arena.h"
#include "coordinator/template.h"

enum weft_node_kind {
    /* Statements; `next` is the one that follows. */
    WEFT_NODE_TEXT,   /* text */
    WEFT_NODE_OUTPUT, /* a: expression */
    WEFT_NODE_FOR,    /* text: variable, a: list, b: body */
    WEFT_NODE_IF,     /* a: condition, b: body, c: what else; number 1: an elif */
    /* Expressions; `next` is the next operand of the list they stand in. */
    WEFT_NODE_STRING, /* text */
    WEFT_NODE_INT,    /* number */
    WEFT_NODE_BOOL,   /* number */
    WEFT_NODE_NONE,
    WEFT_NODE_NAME,   /* text */
    WEFT_NODE_MEMBER, /* a: object, text: name */
    WEFT_NODE_INDEX,  /* a: object, number */
    WEFT_NODE_TRIM,   /* a */
    WEFT_NODE_NOT,    /* a */
    WEFT_NODE_CONCAT, /* a: operands, two or more */
    WEFT_NODE_AND,    /* a: operands */
    WEFT_NODE_OR,     /* a: operands */
    WEFT_NODE_EQUAL,  /* a: two operands; number 1: equal, 0: not equal */
    WEFT_NODE_KIND_COUNT
};

struct weft_node {
    enum weft_node_kind kind;
    uint32_t at; /* offset in the source */
    struct weft_node *a, *b, *c, *next;
    const char *text;
    size_t text_size;
    int64_t number;
};

struct weft_template {
    struct weft_arena arena;
    const char *source; /* in the arena; line ends are \n */
    size_t source_size;
    struct weft_node *body;
};

/* Parses t->source into t->body. */
int weft_template_parse(struct weft_template *t, weft_err *err) WEFT_MUST_USE;

/* Sets err to WEFT_EUNSUPPORTED with line and column of offset at, and the advice that helps. */
void weft_template_complain(const struct weft_template *t, size_t at, weft_err *err,
                            const char *fmt, ...) WEFT_PRINTF(4, 5);
/* Complains, and is -WEFT_EUNSUPPORTED: a macro, so that every caller's compiler sees that it is
 * never 0. */
#define weft_template_refuse(t, at, err, ...) \
    (weft_template_complain((t), (at), (err), __VA_ARGS__), -WEFT_EUNSUPPORTED)

#endif
