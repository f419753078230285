/*
 * YAML files: the walk of a table over the tree, from text to structs.
 *
 * Invariant: a place is written only with a whole, valid value, so that defaults survive every
 * error; each wrong node is reported once. One owner, any thread.
 */
#include "base/yaml_tree.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define EXPECTED_BYTES_MAX 256
#define TABLE_KEYS_MAX 64 /* of one table; more is a mistake in ours */

static void read_value(struct weft_yaml_doc *doc, const struct weft_yaml_node *node,
                       const struct weft_yaml_field *field, void *place);

/* ---- what is expected ---- */

/* Bounds of a field; without a bound, those of the type. */
static void bounds_u64(const struct weft_yaml_field *f, uint64_t type_max, uint64_t *ret_min,
                       uint64_t *ret_max)
{
    *ret_min = f->min > 0 ? (uint64_t)f->min : 0;
    bool bounded = (f->min != 0 || f->max != 0) && f->max >= f->min;
    *ret_max = bounded && f->max < 0x1p64 ? (uint64_t)f->max : type_max;
    if (*ret_max > type_max)
        *ret_max = type_max;
}

static void bounds_double(const struct weft_yaml_field *f, double *ret_min, double *ret_max)
{
    bool none = f->min == 0 && f->max == 0;
    *ret_min = none ? -INFINITY : f->min;
    *ret_max = none || f->max < f->min ? INFINITY : f->max;
}

/* "f32, f16 or q8_0", cut when it is too long. */
static void format_names(char *buf, size_t n, const char *const *names)
{
    size_t used = 0;
    buf[0] = '\0';
    for (size_t i = 0; names[i] != NULL && used < n; i++) {
        const char *between = i == 0 ? "" : names[i + 1] == NULL ? " or " : ", ";
        int r = snprintf(buf + used, n - used, "%s%s", between, names[i]);
        used += r > 0 ? (size_t)r : 0;
    }
}

static const char *format_expected(char *buf, size_t n, const struct weft_yaml_field *f)
{
    switch (f->kind) {
    case WEFT_YAML_STRING:
        return "text";
    case WEFT_YAML_BOOL:
        return "true or false";
    case WEFT_YAML_U32:
    case WEFT_YAML_U64:
        return "a whole number";
    case WEFT_YAML_DOUBLE:
        return "a number";
    case WEFT_YAML_SIZE:
        return "a size such as 512MiB or 6GiB";
    case WEFT_YAML_ENUM:
        format_names(buf, n, f->names);
        return buf;
    case WEFT_YAML_MAP:
        return "a mapping of keys";
    case WEFT_YAML_LIST:
        return "a list";
    case WEFT_YAML_CUSTOM:
        break;
    }
    return "a value";
}

/* Reports a node of the wrong kind. */
static void report_kind(struct weft_yaml_doc *doc, const struct weft_yaml_node *node,
                        const struct weft_yaml_field *field)
{
    char expected[EXPECTED_BYTES_MAX], quoted[WEFT_QUOTE_SIZE];
    const char *want = format_expected(expected, sizeof expected, field), *found = quoted;
    switch (node->kind) {
    case WEFT_YAML_NODE_SCALAR:
        weft_quote(quoted, sizeof quoted, node->text, strlen(node->text));
        break;
    case WEFT_YAML_NODE_NOTHING:
        found = "nothing";
        break;
    case WEFT_YAML_NODE_MAP:
        found = "a mapping";
        break;
    case WEFT_YAML_NODE_LIST:
        found = "a list";
        break;
    case WEFT_YAML_NODE_BAD:
        return;
    }
    weft_yaml_error(doc, node, "found %s, expected %s", found, want);
}

/* ---- scalars ---- */

static void read_string(struct weft_yaml_doc *doc, const struct weft_yaml_node *node,
                        const struct weft_yaml_field *f, char **place)
{
    uint64_t min, max, size = strlen(node->text);
    bounds_u64(f, UINT64_MAX, &min, &max);
    if (size < min && size == 0) {
        weft_yaml_error(doc, node, "found an empty text");
        return;
    }
    if (size < min || size > max) {
        char quoted[WEFT_QUOTE_SIZE];
        weft_quote(quoted, sizeof quoted, node->text, size);
        if (max == UINT64_MAX)
            weft_yaml_error(doc, node, "found %s of %llu bytes, expected at least %llu", quoted,
                            (unsigned long long)size, (unsigned long long)min);
        else
            weft_yaml_error(doc, node, "found %s of %llu bytes, expected %llu..%llu", quoted,
                            (unsigned long long)size, (unsigned long long)min,
                            (unsigned long long)max);
        return;
    }
    char *copy = weft_arena_strdup(&doc->arena, node->text);
    if (copy == NULL)
        doc->no_memory = true;
    else
        *place = copy;
}

static void read_bool(struct weft_yaml_doc *doc, const struct weft_yaml_node *node,
                      const struct weft_yaml_field *f, bool *place)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(node->text, words[i]) == 0) {
            *place = i % 2 == 1;
            return;
        }
    }
    report_kind(doc, node, f);
}

static void read_size(struct weft_yaml_doc *doc, const struct weft_yaml_node *node,
                      const struct weft_yaml_field *f, uint64_t *place)
{
    uint64_t min, max, value;
    weft_err err = {0};
    bounds_u64(f, UINT64_MAX, &min, &max);
    if (weft_parse_size(node->text, &value, &err) < 0) {
        weft_yaml_error(doc, node, "%s", err.text);
        return;
    }
    if (value < min || value > max) {
        char least[32], most[32];
        weft_format_size(least, sizeof least, min);
        weft_format_size(most, sizeof most, max);
        if (max == UINT64_MAX)
            weft_yaml_error(doc, node, "found %s, expected at least %s", node->text, least);
        else
            weft_yaml_error(doc, node, "found %s, expected %s..%s", node->text, least, most);
        return;
    }
    *place = value;
}

static void read_enum(struct weft_yaml_doc *doc, const struct weft_yaml_node *node,
                      const struct weft_yaml_field *f, int *place)
{
    for (int i = 0; f->names[i] != NULL; i++) {
        if (strcmp(node->text, f->names[i]) == 0) {
            *place = i;
            return;
        }
    }
    char expected[EXPECTED_BYTES_MAX], quoted[WEFT_QUOTE_SIZE];
    weft_quote(quoted, sizeof quoted, node->text, strlen(node->text));
    format_names(expected, sizeof expected, f->names);
    const char *near = weft_near_miss(node->text, f->names);
    if (near != NULL)
        weft_yaml_error(doc, node, "found %s, expected %s, did you mean '%s'?", quoted, expected,
                        near);
    else
        weft_yaml_error(doc, node, "found %s, expected %s", quoted, expected);
}

static void read_number(struct weft_yaml_doc *doc, const struct weft_yaml_node *node,
                        const struct weft_yaml_field *f, void *place)
{
    weft_err err = {0};
    int r;
    if (f->kind == WEFT_YAML_DOUBLE) {
        double min, max;
        bounds_double(f, &min, &max);
        r = weft_parse_double(node->text, min, max, place, &err);
    } else {
        uint64_t min, max, value = 0;
        bounds_u64(f, f->kind == WEFT_YAML_U32 ? UINT32_MAX : UINT64_MAX, &min, &max);
        r = weft_parse_u64(node->text, min, max, &value, &err);
        if (r >= 0 && f->kind == WEFT_YAML_U32)
            *(uint32_t *)place = (uint32_t)value;
        else if (r >= 0)
            *(uint64_t *)place = value;
    }
    if (r < 0)
        weft_yaml_error(doc, node, "%s", err.text);
}

/* ---- maps and lists ---- */

static void report_unknown_key(struct weft_yaml_doc *doc, const struct weft_yaml_node *entry,
                               const struct weft_yaml_field *fields)
{
    const char *keys[TABLE_KEYS_MAX + 1];
    size_t n = 0;
    for (; fields[n].key != NULL; n++) {
        assert(n < TABLE_KEYS_MAX);
        keys[n] = fields[n].key;
    }
    keys[n] = NULL;
    char quoted[WEFT_QUOTE_SIZE];
    weft_quote(quoted, sizeof quoted, entry->key, strlen(entry->key));
    const char *near = weft_near_miss(entry->key, keys);
    if (near != NULL)
        weft_yaml_error_at(doc, entry->key_mark, entry->parent,
                           "unknown key %s, did you mean '%s'?", quoted, near);
    else
        weft_yaml_error_at(doc, entry->key_mark, entry->parent, "unknown key %s", quoted);
}

static const struct weft_yaml_node *find_entry(const struct weft_yaml_node *map, const char *key)
{
    const struct weft_yaml_node *entry = map != NULL ? map->first : NULL;
    while (entry != NULL && strcmp(entry->key, key) != 0)
        entry = entry->next;
    return entry;
}

/* map NULL: an empty file. Entries are visited in file order, so that the limit on errors keeps the
 * first ones. */
static void read_map(struct weft_yaml_doc *doc, const struct weft_yaml_node *map,
                     const struct weft_yaml_field *fields, void *target)
{
    for (const struct weft_yaml_field *f = fields; f->key != NULL && !doc->broken; f++)
        if (f->required && find_entry(map, f->key) == NULL)
            weft_yaml_error(doc, map, "missing key '%s'", f->key);
    const struct weft_yaml_node *entry = map != NULL ? map->first : NULL;
    for (; entry != NULL; entry = entry->next) {
        const struct weft_yaml_field *f = fields;
        while (f->key != NULL && strcmp(f->key, entry->key) != 0)
            f++;
        if (f->key == NULL) {
            report_unknown_key(doc, entry, fields);
            continue;
        }
        if (f->seen_offset != 0)
            *(bool *)((char *)target + (f->seen_offset - 1)) = true;
        read_value(doc, entry, f, (char *)target + f->offset);
    }
}

static size_t item_size(const struct weft_yaml_field *f)
{
    if (f->fields != NULL)
        return f->item_size;
    switch (f->item_kind) {
    case WEFT_YAML_STRING:
        return sizeof(char *);
    case WEFT_YAML_BOOL:
        return sizeof(bool);
    case WEFT_YAML_U32:
        return sizeof(uint32_t);
    case WEFT_YAML_U64:
    case WEFT_YAML_SIZE:
        return sizeof(uint64_t);
    case WEFT_YAML_DOUBLE:
        return sizeof(double);
    case WEFT_YAML_ENUM:
        return sizeof(int);
    case WEFT_YAML_CUSTOM:
        return f->item_size;
    case WEFT_YAML_MAP:
    case WEFT_YAML_LIST:
        break;
    }
    assert(false && "a list of maps needs fields; lists of lists are read by CUSTOM");
    return 0;
}

static void read_list(struct weft_yaml_doc *doc, const struct weft_yaml_node *node,
                      const struct weft_yaml_field *f, struct weft_yaml_list *place)
{
    uint64_t min, max;
    bounds_u64(f, UINT64_MAX, &min, &max);
    if ((node->count < min && !doc->broken) || node->count > max) {
        if (max == UINT64_MAX)
            weft_yaml_error(doc, node, "found %zu item%s, expected at least %llu", node->count,
                            node->count == 1 ? "" : "s", (unsigned long long)min);
        else
            weft_yaml_error(doc, node, "found %zu item%s, expected %llu..%llu", node->count,
                            node->count == 1 ? "" : "s", (unsigned long long)min,
                            (unsigned long long)max);
    }
    const struct weft_yaml_field item = {
        .kind = f->fields != NULL ? WEFT_YAML_MAP : f->item_kind,
        .names = f->names,
        .fields = f->fields,
        .read = f->read,
    };
    size_t size = item_size(f);
    char *items = weft_arena_array(&doc->arena, node->count, size);
    if (items == NULL) {
        doc->no_memory = true;
        return;
    }
    const struct weft_yaml_node *n = node->first;
    for (size_t i = 0; n != NULL; n = n->next, i++)
        read_value(doc, n, &item, items + i * size);
    *place = (struct weft_yaml_list){.items = items, .count = node->count};
}

/* ---- any value ---- */

static void read_scalar(struct weft_yaml_doc *doc, const struct weft_yaml_node *node,
                        const struct weft_yaml_field *f, void *place)
{
    if (node->kind != WEFT_YAML_NODE_SCALAR)
        report_kind(doc, node, f);
    else if (f->kind == WEFT_YAML_STRING)
        read_string(doc, node, f, place);
    else if (f->kind == WEFT_YAML_BOOL)
        read_bool(doc, node, f, place);
    else if (f->kind == WEFT_YAML_SIZE)
        read_size(doc, node, f, place);
    else if (f->kind == WEFT_YAML_ENUM)
        read_enum(doc, node, f, place);
    else
        read_number(doc, node, f, place);
}

static void read_value(struct weft_yaml_doc *doc, const struct weft_yaml_node *node,
                       const struct weft_yaml_field *field, void *place)
{
    if (node->kind == WEFT_YAML_NODE_BAD)
        return;
    switch (field->kind) {
    case WEFT_YAML_CUSTOM:
        if (field->read(doc, node, place) == -WEFT_ENOMEM)
            doc->no_memory = true;
        return;
    case WEFT_YAML_MAP:
        if (node->kind == WEFT_YAML_NODE_MAP || node->kind == WEFT_YAML_NODE_NOTHING)
            read_map(doc, node, field->fields, place);
        else
            report_kind(doc, node, field);
        return;
    case WEFT_YAML_LIST:
        if (node->kind == WEFT_YAML_NODE_LIST)
            read_list(doc, node, field, place);
        else
            report_kind(doc, node, field);
        return;
    default:
        read_scalar(doc, node, field, place);
    }
}

void weft_yaml_read(struct weft_yaml_doc *doc, const struct weft_yaml_field *fields, void *target)
{
    const struct weft_yaml_field root = {.kind = WEFT_YAML_MAP, .fields = fields};
    if (doc->root != NULL)
        read_value(doc, doc->root, &root, target);
    else
        read_map(doc, NULL, fields, target);
}
