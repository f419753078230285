/*
 * The tree of a YAML file: what base/yaml.c builds, yaml_read.c walks and yaml_report.c points at.
 * Private to these three files.
 *
 * Invariant: every node, key and text lies in the document's arena; a node's parent outlives it.
 */
#ifndef WEFT_BASE_YAML_TREE_H
#define WEFT_BASE_YAML_TREE_H

#include "base/yaml.h"

/* A place in the file, counted from 0; columns in characters. */
struct weft_yaml_mark {
    size_t line, column;
};

struct weft_yaml_node {
    enum {
        WEFT_YAML_NODE_SCALAR,
        WEFT_YAML_NODE_NOTHING, /* `key:` without a value, ~ or null */
        WEFT_YAML_NODE_MAP,
        WEFT_YAML_NODE_LIST,
        WEFT_YAML_NODE_BAD /* reported already, such as an alias: nothing more is said about it */
    } kind;
    struct weft_yaml_mark mark;
    const char *text; /* SCALAR: without zero bytes inside */

    struct weft_yaml_node *parent; /* NULL: the root */
    struct weft_yaml_node *next;   /* the next item or entry of the parent */
    const char *key;               /* in a map; NULL in a list */
    struct weft_yaml_mark key_mark;
    size_t index; /* in a list */

    struct weft_yaml_node *first, *last; /* MAP, LIST */
    size_t count;
};

struct weft_yaml_problem {
    size_t order;    /* in which they were recorded */
    bool whole_file; /* mark means nothing */
    struct weft_yaml_mark mark;
    const char *text;
};

struct weft_yaml_doc {
    struct weft_arena arena;
    const char *name;
    const char *text; /* a copy without byte order mark; NULL when the file is too large */
    size_t size;
    struct weft_yaml_node *root; /* NULL: an empty file, or nothing was understood */
    bool broken;                 /* parsing stopped early: the tree lacks what came behind */
    bool no_memory;
    bool too_many;
    size_t n_problems;
    struct weft_yaml_problem problems[WEFT_YAML_ERRORS_MAX];
};

/* Records an error at a mark, with the path of node (may be NULL) before the text. */
void weft_yaml_error_at(struct weft_yaml_doc *doc, struct weft_yaml_mark mark,
                        const struct weft_yaml_node *node, const char *fmt, ...) WEFT_PRINTF(4, 5);

#endif
