/*
 * YAML files: from libyaml's events to a tree of nodes with marks. The only user of libyaml.
 *
 * Invariant: recursion is bounded by WEFT_YAML_DEPTH_MAX and memory by WEFT_YAML_NODES_MAX and
 * WEFT_YAML_TEXT_MAX, whatever the file holds. A document belongs to one owner; any thread.
 */
#include "base/yaml_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

/* Parsing stops: the reason is recorded in the document. Not an error for the caller of open. */
#define STOP (-WEFT_ECONFIG)

struct builder {
    yaml_parser_t parser;
    struct weft_yaml_doc *doc;
    size_t n_nodes; /* with keys */
};

static struct weft_yaml_mark mark_of(yaml_mark_t mark)
{
    return (struct weft_yaml_mark){.line = mark.line, .column = mark.column};
}

static int stop(struct builder *b)
{
    b->doc->broken = true;
    return STOP;
}

/* ---- before libyaml sees the text ---- */

/* False, with the first offender recorded, if the text is not UTF-8 or holds a character that is
 * not printable other than tab and line ends. So the only line ends are \n, \r\n and \r. */
static bool check_characters(struct weft_yaml_doc *doc)
{
    struct weft_yaml_mark mark = {0};
    for (size_t at = 0; at < doc->size;) {
        uint32_t code;
        size_t step = weft_utf8_decode(doc->text + at, doc->size - at, &code);
        if (step == 0) {
            weft_yaml_error_at(doc, mark, NULL, "byte 0x%02X is not UTF-8",
                               (unsigned)(unsigned char)doc->text[at]);
            return false;
        }
        if (code == '\n' || (code == '\r' && doc->text[at + 1] != '\n')) {
            mark.line++;
            mark.column = 0;
        } else if (code == '\r' || code == '\t' || weft_code_printable(code)) {
            mark.column++;
        } else {
            weft_yaml_error_at(doc, mark, NULL, "character U+%04X is not printable",
                               (unsigned)code);
            return false;
        }
        at += step;
    }
    return true;
}

/* ---- events ---- */

/* What libyaml says in its own terms, said in those of the writer. */
static const struct {
    const char *problem, *text;
} plainer[] = {
    {"mapping values are not allowed in this context",
     "found a second ':', expected quotes around a text with ': '"},
    {"found character that cannot start any token",
     "found a character that cannot start a text, expected quotes around it"},
};

/* True if the character at the mark is a tab, of which libyaml says only that it starts no token.
 */
static bool is_tab(const struct weft_yaml_doc *doc, yaml_mark_t mark)
{
    size_t at = 0;
    uint32_t code;
    for (size_t i = 0; i < mark.index && at < doc->size; i++) /* index counts characters */
        at += weft_utf8_decode(doc->text + at, doc->size - at, &code);
    return at < doc->size && doc->text[at] == '\t';
}

static void record_syntax_error(struct builder *b)
{
    const yaml_parser_t *p = &b->parser;
    const char *problem = p->problem != NULL ? p->problem : "malformed YAML";
    const char *plain = is_tab(b->doc, p->problem_mark) ? "found a tab, expected spaces" : NULL;
    struct weft_yaml_mark mark = mark_of(p->problem_mark);
    for (size_t i = 0; i < sizeof plainer / sizeof plainer[0] && plain == NULL; i++)
        if (strcmp(problem, plainer[i].problem) == 0)
            plain = plainer[i].text;
    if (plain != NULL || p->context == NULL)
        weft_yaml_error_at(b->doc, mark, NULL, "syntax: %s", plain != NULL ? plain : problem);
    else
        weft_yaml_error_at(b->doc, mark, NULL, "syntax: %s %s (from line %zu)", problem, p->context,
                           p->context_mark.line + 1);
}

static int next_event(struct builder *b, yaml_event_t *event)
{
    if (yaml_parser_parse(&b->parser, event))
        return 0;
    if (b->parser.error == YAML_MEMORY_ERROR)
        return -WEFT_ENOMEM;
    record_syntax_error(b);
    return stop(b);
}

/* Counts a node or key against the limit. */
static int count_node(struct builder *b, yaml_mark_t mark)
{
    if (++b->n_nodes <= WEFT_YAML_NODES_MAX)
        return 0;
    weft_yaml_error_at(b->doc, mark_of(mark), NULL, "more than %d values and keys",
                       WEFT_YAML_NODES_MAX);
    return stop(b);
}

/* Refuses what may stand before a node. The node itself is read. */
static void refuse_properties(struct builder *b, const struct weft_yaml_node *node,
                              yaml_mark_t mark, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor != NULL)
        weft_yaml_error_at(b->doc, mark_of(mark), node, "anchor '&%s': anchors are not supported",
                           (const char *)anchor);
    static const char standard[] = "tag:yaml.org,2002:"; /* what !! stands for */
    const char *name = (const char *)tag;
    if (name != NULL && strncmp(name, standard, sizeof standard - 1) == 0)
        weft_yaml_error_at(b->doc, mark_of(mark), node, "tag '!!%s': tags are not supported",
                           name + sizeof standard - 1);
    else if (name != NULL)
        weft_yaml_error_at(b->doc, mark_of(mark), node, "tag '%s': tags are not supported", name);
}

static void refuse_alias(struct builder *b, const struct weft_yaml_node *node,
                         const yaml_event_t *event)
{
    weft_yaml_error_at(b->doc, mark_of(event->start_mark), node,
                       "alias '*%s': aliases are not supported, write the value out",
                       (const char *)event->data.alias.anchor);
}

/* Copies a scalar's text into *ret; NULL (and reported) when it holds a zero byte. */
static int copy_text(struct builder *b, const struct weft_yaml_node *node,
                     const yaml_event_t *event, const char **ret)
{
    const char *text = (const char *)event->data.scalar.value;
    size_t size = event->data.scalar.length;
    *ret = NULL;
    if (memchr(text, '\0', size) != NULL) {
        weft_yaml_error_at(b->doc, mark_of(event->start_mark), node, "found a zero byte in a text");
        return 0;
    }
    *ret = weft_arena_strndup(&b->doc->arena, text, size);
    return *ret != NULL ? 0 : -WEFT_ENOMEM;
}

/* ---- nodes ---- */

static int build_node(struct builder *b, yaml_event_t *event, struct weft_yaml_node *node,
                      unsigned depth);

static void link_child(struct weft_yaml_node *parent, struct weft_yaml_node *child)
{
    if (parent->last != NULL)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
    parent->count++;
}

static struct weft_yaml_node *new_node(struct builder *b, struct weft_yaml_node *parent)
{
    struct weft_yaml_node *node = weft_arena_alloc(&b->doc->arena, sizeof *node);
    if (node != NULL)
        node->parent = parent;
    return node;
}

static int build_scalar(struct builder *b, const yaml_event_t *event, struct weft_yaml_node *node)
{
    refuse_properties(b, node, event->start_mark, event->data.scalar.anchor,
                      event->data.scalar.tag);
    int r = copy_text(b, node, event, &node->text);
    if (r < 0)
        return r;
    if (node->text == NULL)
        node->kind = WEFT_YAML_NODE_BAD;
    else if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
             (node->text[0] == '\0' || strcmp(node->text, "~") == 0 ||
              strcmp(node->text, "null") == 0))
        node->kind = WEFT_YAML_NODE_NOTHING;
    else
        node->kind = WEFT_YAML_NODE_SCALAR;
    return 0;
}

static int build_list(struct builder *b, struct weft_yaml_node *list, unsigned depth)
{
    for (;;) {
        yaml_event_t event;
        int r = next_event(b, &event);
        if (r < 0)
            return r;
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return 0;
        }
        struct weft_yaml_node *item = new_node(b, list);
        if (item == NULL) {
            yaml_event_delete(&event);
            return -WEFT_ENOMEM;
        }
        item->index = list->count;
        link_child(list, item);
        r = build_node(b, &event, item, depth + 1);
        if (r < 0)
            return r;
    }
}

/* Reads a key from event (takes it) into entry; entry->key stays NULL, and is reported, when it is
 * no text or has come before. */
static int build_key(struct builder *b, yaml_event_t *event, struct weft_yaml_node *map,
                     struct weft_yaml_node *entry, unsigned depth)
{
    entry->key_mark = mark_of(event->start_mark);
    if (event->type == YAML_MAPPING_START_EVENT || event->type == YAML_SEQUENCE_START_EVENT) {
        weft_yaml_error_at(b->doc, entry->key_mark, map, "found a %s as key, expected text",
                           event->type == YAML_MAPPING_START_EVENT ? "mapping" : "list");
        struct weft_yaml_node *ignored = new_node(b, map);
        if (ignored != NULL)
            return build_node(b, event, ignored, depth + 1);
        yaml_event_delete(event);
        return -WEFT_ENOMEM;
    }
    int r = count_node(b, event->start_mark);
    if (r < 0)
        goto out;
    if (event->type == YAML_ALIAS_EVENT) {
        refuse_alias(b, map, event);
        goto out;
    }
    refuse_properties(b, map, event->start_mark, event->data.scalar.anchor, event->data.scalar.tag);
    if (event->data.scalar.length == 0) {
        weft_yaml_error_at(b->doc, entry->key_mark, map, "found an empty key");
        goto out;
    }
    const char *key;
    r = copy_text(b, map, event, &key);
    if (r < 0 || key == NULL)
        goto out;
    for (const struct weft_yaml_node *n = map->first; n != NULL; n = n->next) {
        if (strcmp(n->key, key) == 0) {
            weft_yaml_error_at(b->doc, entry->key_mark, map,
                               "duplicate key '%s', first in line %zu", key, n->key_mark.line + 1);
            goto out;
        }
    }
    entry->key = key;
out:
    yaml_event_delete(event);
    return r;
}

static int build_map(struct builder *b, struct weft_yaml_node *map, unsigned depth)
{
    for (;;) {
        yaml_event_t event;
        int r = next_event(b, &event);
        if (r < 0)
            return r;
        if (event.type == YAML_MAPPING_END_EVENT) {
            yaml_event_delete(&event);
            return 0;
        }
        struct weft_yaml_node *entry = new_node(b, map);
        if (entry == NULL) {
            yaml_event_delete(&event);
            return -WEFT_ENOMEM;
        }
        r = build_key(b, &event, map, entry, depth);
        if (r < 0)
            return r;
        r = next_event(b, &event);
        if (r < 0)
            return r;
        if (entry->key != NULL)
            link_child(map, entry);
        r = build_node(b, &event, entry, depth + 1);
        if (r < 0)
            return r;
    }
}

/* Reads the node that starts with event (takes it); depth counts the levels above it. */
static int build_node(struct builder *b, yaml_event_t *event, struct weft_yaml_node *node,
                      unsigned depth)
{
    node->kind = WEFT_YAML_NODE_BAD; /* until it is whole: parsing may stop within */
    node->mark = mark_of(event->start_mark);
    int r = count_node(b, event->start_mark);
    if (r >= 0 && depth >= WEFT_YAML_DEPTH_MAX) {
        weft_yaml_error_at(b->doc, node->mark, NULL, "more than %d levels", WEFT_YAML_DEPTH_MAX);
        r = stop(b);
    }
    yaml_event_type_t type = event->type;
    if (r >= 0 && type == YAML_ALIAS_EVENT) {
        refuse_alias(b, node, event);
    } else if (r >= 0 && type == YAML_SCALAR_EVENT) {
        r = build_scalar(b, event, node);
    } else if (r >= 0 && type == YAML_SEQUENCE_START_EVENT) {
        refuse_properties(b, node, event->start_mark, event->data.sequence_start.anchor,
                          event->data.sequence_start.tag);
        node->kind = WEFT_YAML_NODE_LIST;
    } else if (r >= 0) {
        refuse_properties(b, node, event->start_mark, event->data.mapping_start.anchor,
                          event->data.mapping_start.tag);
        node->kind = WEFT_YAML_NODE_MAP;
    }
    yaml_event_delete(event);
    if (r >= 0 && node->kind == WEFT_YAML_NODE_LIST)
        r = build_list(b, node, depth);
    else if (r >= 0 && node->kind == WEFT_YAML_NODE_MAP)
        r = build_map(b, node, depth);
    return r;
}

/* The whole stream: at most one document. */
static int build_document(struct builder *b)
{
    for (;;) {
        yaml_event_t event;
        int r = next_event(b, &event);
        if (r < 0)
            return r;
        yaml_event_type_t type = event.type;
        if (type == YAML_DOCUMENT_START_EVENT && b->doc->root != NULL) {
            weft_yaml_error_at(b->doc, mark_of(event.start_mark), NULL,
                               "found a second document, expected one");
            r = stop(b);
        } else if (type != YAML_STREAM_START_EVENT && type != YAML_STREAM_END_EVENT &&
                   type != YAML_DOCUMENT_START_EVENT && type != YAML_DOCUMENT_END_EVENT) {
            b->doc->root = new_node(b, NULL);
            if (b->doc->root == NULL) {
                yaml_event_delete(&event);
                return -WEFT_ENOMEM;
            }
            r = build_node(b, &event, b->doc->root, 0);
            if (r < 0)
                return r;
            continue;
        }
        yaml_event_delete(&event);
        if (r < 0 || type == YAML_STREAM_END_EVENT)
            return r;
    }
}

/* ---- documents ---- */

int weft_yaml_open(const char *name, const char *text, size_t size, struct weft_yaml_doc **ret,
                   weft_err *err)
{
    int r = -WEFT_ENOMEM;
    struct builder b = {.doc = calloc(1, sizeof(struct weft_yaml_doc))};
    if (b.doc == NULL)
        return weft_fail(err, WEFT_ENOMEM, "%s: out of memory", name);
    weft_arena_init(&b.doc->arena, 0);
    b.doc->name = weft_arena_strdup(&b.doc->arena, name);
    if (b.doc->name == NULL)
        goto out;
    if (size > WEFT_YAML_TEXT_MAX) {
        weft_yaml_error(b.doc, NULL, "found more than %u bytes of text", WEFT_YAML_TEXT_MAX);
        r = stop(&b);
        goto out;
    }
    if (size >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0) { /* byte order mark */
        text += 3;
        size -= 3;
    }
    char *copy = weft_arena_array(&b.doc->arena, size + 1, 1);
    if (copy == NULL)
        goto out;
    if (size > 0)
        memcpy(copy, text, size);
    b.doc->text = copy;
    b.doc->size = size;
    if (!check_characters(b.doc)) {
        r = stop(&b);
        goto out;
    }
    if (!yaml_parser_initialize(&b.parser))
        goto out;
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)copy, size);
    r = build_document(&b);
    yaml_parser_delete(&b.parser);
out:
    if (r == -WEFT_ENOMEM || b.doc->no_memory) {
        weft_yaml_close(b.doc);
        return weft_fail(err, WEFT_ENOMEM, "%s: out of memory", name);
    }
    *ret = b.doc;
    return 0;
}

int weft_yaml_open_file(const char *path, struct weft_yaml_doc **ret, weft_err *err)
{
    int r = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    /* One byte above the limit is enough to see that there is more. */
    size_t size = 0, capacity = WEFT_YAML_TEXT_MAX + 1;
    char *text = malloc(capacity);
    if (text == NULL) {
        r = weft_fail(err, WEFT_ENOMEM, "%s: out of memory", path);
        goto out;
    }
    if (fd < 0) {
        weft_fail_errno(err, errno, "%s", path);
        goto unreadable;
    }
    while (size < capacity) {
        ssize_t n = read(fd, text + size, capacity - size);
        if (n == 0)
            break;
        if (n < 0 && errno != EINTR) {
            weft_fail_errno(err, errno, "%s", path);
            goto unreadable;
        }
        size += n > 0 ? (size_t)n : 0;
    }
    r = weft_yaml_open(path, text, size, ret, err);
    goto out;

unreadable:
    r = -WEFT_ECONFIG;
    if (err != NULL)
        err->code = WEFT_ECONFIG;
out:
    free(text);
    if (fd >= 0)
        close(fd);
    return r;
}

void weft_yaml_close(struct weft_yaml_doc *doc)
{
    if (doc == NULL)
        return;
    weft_arena_done(&doc->arena);
    free(doc);
}

const char *weft_yaml_scalar(const struct weft_yaml_node *node)
{
    return node != NULL && node->kind == WEFT_YAML_NODE_SCALAR ? node->text : NULL;
}

struct weft_arena *weft_yaml_arena(struct weft_yaml_doc *doc)
{
    return &doc->arena;
}

const struct weft_yaml_node *weft_yaml_find(const struct weft_yaml_doc *doc, const char *path)
{
    const struct weft_yaml_node *node = doc->root;
    while (node != NULL && *path != '\0') {
        const struct weft_yaml_node *child = node->first;
        if (*path == '[') {
            char *end;
            unsigned long index = strtoul(path + 1, &end, 10);
            if (end == path + 1 || *end != ']' || node->kind != WEFT_YAML_NODE_LIST)
                return NULL;
            while (child != NULL && child->index != index)
                child = child->next;
            path = end + 1;
        } else {
            path += *path == '.';
            size_t n = strcspn(path, ".[");
            if (node->kind != WEFT_YAML_NODE_MAP)
                return NULL;
            while (child != NULL && (strncmp(child->key, path, n) != 0 || child->key[n] != '\0'))
                child = child->next;
            path += n;
        }
        node = child;
    }
    return node;
}
