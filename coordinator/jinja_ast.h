/*
 * Syntax tree of a template: what jinja_parse.c builds and jinja_run.c runs.
 *
 * Invariant: no node has more than JINJA_HEIGHT_MAX levels below it, every tag in it is known, and
 * filters and tests are found, or unknown only where Jinja too would complain no earlier than when
 * they are reached. Nodes point into the arena of the source.
 */
#ifndef WEFT_COORDINATOR_JINJA_AST_H
#define WEFT_COORDINATOR_JINJA_AST_H

#include <stdarg.h>
#include <stdbool.h>

#include "base/arena.h"
#include "coordinator/jinja_value.h"

#define JINJA_SOURCE_MAX (256u << 10) /* bytes; the longest published ones have 50 KiB */
#define JINJA_NESTING_MAX 100u        /* tags and brackets within each other */
#define JINJA_HEIGHT_MAX 400u         /* a chain of operators is as high as it is long */
#define JINJA_TREE_MAX                                                        \
    (64u << 20) /* bytes: a node per byte of the longest source, and its text \
                 */

enum jinja_node_kind {
    /* Statements; `next` is the one that follows. */
    JINJA_TEXT,         /* text */
    JINJA_OUTPUT,       /* a: expression */
    JINJA_FOR,          /* a: target, b: what, c: body, d: else, e: condition */
    JINJA_IF,           /* a: condition, b: body, c: else; an elif is an IF alone in c */
    JINJA_SET,          /* a: target, b: value */
    JINJA_SET_BLOCK,    /* a: target, b: body, c: FILTER over INPUT or NULL */
    JINJA_MACRO_BLOCK,  /* text: name, a: PARAMs, b: body */
    JINJA_CALL_BLOCK,   /* a: CALL, c: PARAMs, b: body */
    JINJA_FILTER_BLOCK, /* a: FILTER over INPUT, b: body */
    JINJA_WITH,         /* a: SETs, b: body */
    JINJA_BREAK,
    JINJA_CONTINUE,
    JINJA_PARAM, /* text: name, a: default or NULL */
    /* Expressions; `next` is the next of the list they stand in. */
    JINJA_LITERAL,   /* value */
    JINJA_NAME,      /* text */
    JINJA_ARRAY,     /* a: items */
    JINJA_TUPLE_OF,  /* a: items */
    JINJA_OBJECT,    /* a: keys, each with its value in its a of a PAIR */
    JINJA_PAIR,      /* a: key, b: value */
    JINJA_MEMBER,    /* a: object, text: name */
    JINJA_INDEX,     /* a: object, b: key */
    JINJA_SLICE,     /* a: object, b, c, d: start, stop, step or NULL */
    JINJA_CALL,      /* a: callee, b: arguments */
    JINJA_KEYWORD,   /* text: name, a: value */
    JINJA_FILTER,    /* a: input, b: arguments, text: name, builtin (NULL: unknown) */
    JINJA_TEST,      /* the same */
    JINJA_CONDITION, /* a: condition, b: then, c: else or NULL */
    JINJA_INPUT,     /* of a filter block */
    JINJA_NOT,       /* a */
    JINJA_NEGATE,    /* a */
    JINJA_PLUS,      /* a */
    JINJA_AND,       /* a: operands, two or more */
    JINJA_OR,        /* the same */
    JINJA_CONCAT,    /* the same, as text */
    JINJA_COMPARE,   /* a: first, b: OPERANDs */
    JINJA_OPERAND,   /* a: operand, compare */
    JINJA_ADD,       /* a, b and so on */
    JINJA_SUBTRACT,
    JINJA_MULTIPLY,
    JINJA_DIVIDE,
    JINJA_FLOOR_DIVIDE,
    JINJA_MODULO,
    JINJA_POWER,
    JINJA_NODE_KIND_COUNT
};

enum jinja_compare {
    JINJA_EQ,
    JINJA_NE,
    JINJA_LT,
    JINJA_LE,
    JINJA_GT,
    JINJA_GE,
    JINJA_IN,
    JINJA_NOT_IN,
    JINJA_COMPARE_COUNT
};

struct jinja_node {
    enum jinja_node_kind kind;
    uint32_t at; /* offset in the source */
    uint32_t height;
    enum jinja_compare compare;
    struct jinja_node *a, *b, *c, *d, *e, *next;
    const char *text;
    size_t size;
    struct jinja_value value;
    struct jinja_string string; /* of a literal */
    const struct jinja_builtin *builtin;
};

struct jinja_source {
    struct weft_arena arena;
    const char *text; /* [size] in the arena; line ends are \n */
    size_t size;
    struct jinja_node *body;
};

/* Parses text (copied) into *ret, which jinja_source_done frees also after a failure.
 * -WEFT_EUNSUPPORTED with line and column for what is no Jinja or not supported, and over the
 * limits; -WEFT_EMODEL for what is no UTF-8; -WEFT_ENOMEM. */
int jinja_source_open(const char *text, size_t size, struct jinja_source *ret,
                      weft_err *err) WEFT_MUST_USE;
void jinja_source_done(struct jinja_source *s);

/* Sets err to code with line and column of offset at. */
void jinja_complain(const struct jinja_source *s, size_t at, int code, weft_err *err,
                    const char *fmt, va_list args);

#endif
