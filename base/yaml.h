/*
 * YAML files read by tables of key, type and place; all errors of a file at once.
 *
 * base/yaml.c is the only file that includes libyaml. A file is parsed into a tree of nodes with
 * marks, then a table walks it. Limits: 1 MiB of text, 10000 nodes, 32 levels; no aliases, anchors,
 * tags or second documents, and no characters that are not printable. One owner, any thread.
 *
 *     configs/pi.yaml:8:5: devices[1]: unknown key 'memmory', did you mean 'memory'?
 *         memmory: 6GiB
 *         ^
 */
#ifndef WEFT_BASE_YAML_H
#define WEFT_BASE_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/text.h"

#define WEFT_YAML_TEXT_MAX (1u << 20)
#define WEFT_YAML_NODES_MAX 10000
#define WEFT_YAML_DEPTH_MAX 32
#define WEFT_YAML_ERRORS_MAX 50 /* then "too many errors" */

enum weft_yaml_kind {
    WEFT_YAML_STRING, /* char *, in the document's arena */
    WEFT_YAML_BOOL,   /* bool: true, false, yes, no, on, off */
    WEFT_YAML_U32,    /* uint32_t within [min, max] */
    WEFT_YAML_U64,
    WEFT_YAML_DOUBLE, /* double within [min, max] */
    WEFT_YAML_SIZE,   /* uint64_t bytes, "6GiB", within [min, max] */
    WEFT_YAML_ENUM,   /* int: index in `names` */
    WEFT_YAML_MAP,   /* nested struct at offset, read by `fields`; nothing counts as an empty one */
    WEFT_YAML_LIST,  /* array of structs or scalars: place is struct weft_yaml_list */
    WEFT_YAML_CUSTOM /* `read` is called with the node */
};

struct weft_yaml_doc;
struct weft_yaml_node;

struct weft_yaml_list {
    void *items; /* arena */
    size_t count;
};

struct weft_yaml_field {
    const char *key;
    enum weft_yaml_kind kind;
    size_t offset; /* of the place in the target struct */
    bool required;
    double min, max;                      /* of numbers and sizes, the length in bytes of strings,
                                             the item count of lists; both 0: no bound; max below
                                             min: only min counts; exact below 2^53 */
    const char *const *names;             /* ENUM, ends with NULL */
    const struct weft_yaml_field *fields; /* MAP, LIST of maps; ends with key NULL */
    size_t item_size;              /* LIST of maps or CUSTOM: sizeof the item, zeroed first */
    enum weft_yaml_kind item_kind; /* LIST of scalars or CUSTOM (fields NULL) */
    /* CUSTOM: reads node into place; reports by weft_yaml_error; returns 0 also after reporting,
     * -WEFT_ENOMEM out of memory. */
    int (*read)(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, void *place);
    size_t seen_offset; /* if not 0: offset+1 of a bool set when the key is present */
};

/* Parses `text` named `name` in messages; borrows both. Syntax errors, duplicate keys, limits and
 * non-UTF-8 are recorded like all others; behind a syntax error or limit nothing is read, and no
 * key is called missing. Gives the document; close it. Fails (-WEFT_ENOMEM) only out of memory. */
int weft_yaml_open(const char *name, const char *text, size_t size, struct weft_yaml_doc **ret,
                   weft_err *err) WEFT_MUST_USE;
/* Reads a file; a missing or unreadable one fails with -WEFT_ECONFIG. */
int weft_yaml_open_file(const char *path, struct weft_yaml_doc **ret, weft_err *err) WEFT_MUST_USE;
void weft_yaml_close(struct weft_yaml_doc *doc); /* frees the arena with all strings read */

/* Reads the root mapping into target. Keys that are not in the table, wrong types and values out of
 * range are recorded; reading goes on. Target keeps its defaults where a key is absent or wrong. */
void weft_yaml_read(struct weft_yaml_doc *doc, const struct weft_yaml_field *fields, void *target);

/* Records an error at a node (NULL: the file as a whole), from CUSTOM readers or later checks. The
 * path of the node is put before the text, which becomes printable. */
void weft_yaml_error(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, const char *fmt,
                     ...) WEFT_PRINTF(3, 4);
/* Finds the node of a path such as "devices[1].address" or "stages[0]"; NULL when absent. */
const struct weft_yaml_node *weft_yaml_find(const struct weft_yaml_doc *doc, const char *path);
/* A scalar's text, NULL for maps, lists and nothing. */
const char *weft_yaml_scalar(const struct weft_yaml_node *node);
struct weft_arena *weft_yaml_arena(struct weft_yaml_doc *doc);

/* Number of errors so far, and all of them in file order as text ("file:line:col: …", line, caret;
 * the column counts characters from 1). */
size_t weft_yaml_error_count(const struct weft_yaml_doc *doc);
void weft_yaml_report(const struct weft_yaml_doc *doc, struct weft_str *out);
/* 0, or -WEFT_ECONFIG with err->text "N errors in NAME" and the report appended to `report`, or
 * -WEFT_ENOMEM when memory ran out on the way. */
int weft_yaml_check(const struct weft_yaml_doc *doc, struct weft_str *report,
                    weft_err *err) WEFT_MUST_USE;

#endif
