/*
 * JSON schemas: $ref and allOf, by merging schemas into one.
 *
 * Invariant: a merged schema allows nothing that one of its parts refuses; where that cannot be
 * said in one schema, the merge is refused. Schemas of the document are never changed.
 */
#include <stdlib.h>
#include <string.h>

#include "coordinator/json_schema_private.h"

#define REFS_MAX 64             /* references to references */
#define COMPARED_MAX (1u << 26) /* pairs of values of two lists: about a second */
#define MERGES_MAX 4096u        /* $ref and allOf can double the work at each of the REFS_MAX */

bool weft_schema_is_note(const char *key)
{
    static const char *const notes[] = {
        "title",       "description", "default",    "examples", "example",
        "$schema",     "$id",         "id",         "$comment", "$defs",
        "definitions", "$anchor",     "deprecated", "readOnly", "writeOnly",
    };
    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++)
        if (strcmp(key, notes[i]) == 0)
            return true;
    return false;
}

int weft_schema_keep(struct weft_schema *c, json_t *schema)
{
    if (json_array_size(c->made) >= MERGES_MAX) {
        json_decref(schema);
        return weft_schema_refuse(c, WEFT_ELIMIT, "more than %u schemas to merge", MERGES_MAX);
    }
    if (schema == NULL || json_array_append_new(c->made, schema) != 0)
        return weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory");
    return 0;
}

/* One step of a JSON pointer, with its escapes ~0 and ~1 and those of a URI (%25) undone. */
static bool read_step(const char **at, char *step, size_t size)
{
    size_t n = 0;
    const char *p = *at;
    for (; *p != '\0' && *p != '/' && n + 1 < size; p++) {
        char c = *p;
        if (c == '~' && (p[1] == '0' || p[1] == '1')) {
            c = *++p == '0' ? '~' : '/';
        } else if (c == '%') {
            char hex[3] = {p[1], p[1] == '\0' ? '\0' : p[2], '\0'}, *end;
            c = (char)strtol(hex, &end, 16);
            if (end != hex + 2)
                return false;
            p += 2;
        }
        step[n++] = c;
    }
    step[n] = '\0';
    *at = p;
    return *p == '\0' || *p == '/';
}

int weft_schema_resolve(struct weft_schema *c, const char *ref, json_t **ret)
{
    char step[256], quoted[WEFT_QUOTE_SIZE];
    json_t *at = c->root;
    weft_quote(quoted, sizeof quoted, ref, strlen(ref));
    if (ref[0] != '#' || (ref[1] != '\0' && ref[1] != '/'))
        return weft_schema_refuse(
            c, WEFT_EUNSUPPORTED,
            "$ref %s: only references within the document are supported, such as "
            "#/$defs/name",
            quoted);
    for (const char *p = ref + 1; *p == '/' && at != NULL;) {
        p++;
        if (!read_step(&p, step, sizeof step))
            at = NULL;
        else if (json_is_array(at))
            at = json_array_get(at, strtoul(step, NULL, 10));
        else
            at = json_object_get(at, step);
    }
    if (at == NULL)
        return weft_schema_refuse(c, WEFT_EUSAGE, "$ref %s: nothing is there", quoted);
    *ret = at;
    return 0;
}

int weft_schema_without(struct weft_schema *c, const json_t *schema, const char *key, json_t **ret)
{
    json_t *copy = json_copy((json_t *)schema);
    int r = weft_schema_keep(c, copy);
    if (r < 0)
        return r;
    json_object_del(copy, key);
    *ret = copy;
    return 0;
}

static int no_memory(struct weft_schema *c)
{
    return weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory");
}

/* A schema of which both must hold. */
static int both(struct weft_schema *c, const char *key, json_t *a, json_t *b, json_t **ret)
{
    (void)key;
    *ret = json_pack("{s:[O,O]}", "allOf", a, b);
    return *ret == NULL ? no_memory(c) : 0;
}

static int merge_properties(struct weft_schema *c, const char *key, json_t *a, json_t *b,
                            json_t **ret)
{
    const char *name;
    json_t *value;
    (void)key;
    if (!json_is_object(a) || !json_is_object(b))
        return weft_schema_refuse(c, WEFT_EUSAGE, "found 'properties' that is no object");
    json_t *all = json_copy(a);
    int r = all == NULL ? no_memory(c) : 0;
    json_object_foreach (b, name, value) {
        json_t *old = json_object_get(all, name), *merged = NULL;
        if (r == 0 && old != NULL) {
            r = both(c, name, old, value, &merged);
            if (r == 0 && json_object_set_new(all, name, merged) != 0)
                r = no_memory(c);
        } else if (r == 0 && json_object_set(all, name, value) != 0) {
            r = no_memory(c);
        }
    }
    *ret = all;
    return r;
}

int weft_schema_spend(struct weft_schema *c, size_t n, size_t m)
{
    c->compared += (uint64_t)n * m; /* neither is above WEFT_JSON_SCHEMA_BYTES_MAX */
    return c->compared <= COMPARED_MAX
               ? 0
               : weft_schema_refuse(c, WEFT_ELIMIT,
                                    "lists of %zu and %zu values are too long to be compared", n,
                                    m);
}

static bool contains(const json_t *array, const json_t *value)
{
    size_t i;
    json_t *item;
    json_array_foreach ((json_t *)array, i, item) {
        if (json_equal(item, (json_t *)value))
            return true;
    }
    return false;
}

static int merge_required(struct weft_schema *c, const char *key, json_t *a, json_t *b,
                          json_t **ret)
{
    size_t i;
    json_t *name;
    (void)key;
    if (!json_is_array(a) || !json_is_array(b))
        return weft_schema_refuse(c, WEFT_EUSAGE, "found 'required' that is no array");
    int r = weft_schema_spend(c, json_array_size(a) + json_array_size(b), json_array_size(b));
    if (r < 0)
        return r;
    *ret = json_copy(a);
    if (*ret == NULL)
        return no_memory(c);
    json_array_foreach (b, i, name) {
        if (!contains(*ret, name) && json_array_append(*ret, name) != 0)
            return no_memory(c);
    }
    return 0;
}

/* Whether a type or list of types has one; every integer is a number. */
static bool has_type(const json_t *types, const char *type)
{
    const bool integer = strcmp(type, "integer") == 0;
    const json_t *one;
    if (json_is_string(types))
        return strcmp(json_string_value(types), type) == 0 ||
               (integer && strcmp(json_string_value(types), "number") == 0);
    for (size_t i = 0; i < json_array_size(types); i++)
        if (json_is_string(one = json_array_get(types, i)) && has_type(one, type))
            return true;
    return false;
}

static int merge_type(struct weft_schema *c, const char *key, json_t *a, json_t *b, json_t **ret)
{
    static const char *const all[] = {"object",  "array",   "string", "number",
                                      "integer", "boolean", "null"};
    (void)key;
    *ret = json_array();
    for (size_t i = 0; *ret != NULL && i < sizeof all / sizeof all[0]; i++) {
        if (!has_type(a, all[i]) || !has_type(b, all[i]) ||
            (strcmp(all[i], "integer") == 0 && has_type(*ret, "number")))
            continue;
        if (json_array_append_new(*ret, json_string(all[i])) != 0)
            return no_memory(c);
    }
    if (*ret == NULL)
        return no_memory(c);
    return json_array_size(*ret) > 0
               ? 0
               : weft_schema_refuse(c, WEFT_EUSAGE, "no type is left that all of allOf allow");
}

static int merge_enum(struct weft_schema *c, const char *key, json_t *a, json_t *b, json_t **ret)
{
    size_t i;
    json_t *value;
    int r = weft_schema_spend(c, json_array_size(a), json_array_size(b));
    if (r < 0)
        return r;
    *ret = json_array();
    if (*ret == NULL)
        return no_memory(c);
    json_array_foreach (a, i, value) {
        if (contains(b, value) && json_array_append(*ret, value) != 0)
            return no_memory(c);
    }
    if (json_array_size(*ret) == 0)
        return weft_schema_refuse(c, WEFT_EUSAGE, "no value is left that all of '%s' allow", key);
    return 0;
}

static int merge_bound(struct weft_schema *c, const char *key, json_t *a, json_t *b, json_t **ret)
{
    if (!json_is_number(a) || !json_is_number(b))
        return weft_schema_refuse(c, WEFT_EUSAGE, "found '%s' that is no number", key);
    const bool is_minimum = key[1] == 'i' || strcmp(key, "exclusiveMinimum") == 0;
    const bool a_is_less =
        json_is_integer(a) && json_is_integer(b) /* beyond 2^53 doubles are equal */
            ? json_integer_value(a) < json_integer_value(b)
            : json_number_value(a) < json_number_value(b);
    *ret = json_incref(a_is_less == is_minimum ? b : a);
    return 0;
}

static int merge_equal(struct weft_schema *c, const char *key, json_t *a, json_t *b, json_t **ret)
{
    if (!json_equal(a, b))
        return weft_schema_refuse(c, WEFT_EUNSUPPORTED,
                                  "two schemas that must both hold have different '%s'", key);
    *ret = json_incref(a);
    return 0;
}

static const struct {
    const char *key;
    int (*merge)(struct weft_schema *, const char *, json_t *, json_t *, json_t **);
} merges[] = {
    {"properties", merge_properties},
    {"required", merge_required},
    {"type", merge_type},
    {"enum", merge_enum},
    {"items", both},
    {"minimum", merge_bound},
    {"maximum", merge_bound},
    {"exclusiveMinimum", merge_bound},
    {"exclusiveMaximum", merge_bound},
    {"minItems", merge_bound},
    {"maxItems", merge_bound},
    {"minLength", merge_bound},
    {"maxLength", merge_bound},
    {NULL, merge_equal},
};

/* A schema that says something about all other properties sees those of the other schema too. */
static int check_additional(struct weft_schema *c, const json_t *a, const json_t *b)
{
    const char *name;
    json_t *value;
    if (json_object_get(a, "additionalProperties") == NULL)
        return 0;
    json_object_foreach (json_object_get(b, "properties"), name, value) {
        if (json_object_get(json_object_get(a, "properties"), name) == NULL)
            return weft_schema_refuse(c, WEFT_EUNSUPPORTED,
                                      "'additionalProperties' beside the properties of another "
                                      "schema of allOf");
    }
    return 0;
}

/* `items` is about the items behind the schema's own prefixItems: behind those of the other schema
 * it would be about fewer. */
static int check_items(struct weft_schema *c, const json_t *a, const json_t *b)
{
    const json_t *prefix = json_object_get(a, "prefixItems");
    if (prefix == NULL || json_object_get(b, "items") == NULL ||
        json_equal((json_t *)prefix, json_object_get(b, "prefixItems")))
        return 0;
    return weft_schema_refuse(c, WEFT_EUNSUPPORTED,
                              "'prefixItems' beside the 'items' of another schema of allOf");
}

/* The parts of one schema, merged: its $ref, its allOf and the rest. */
static int flatten(struct weft_schema *c, const json_t *schema, unsigned depth, json_t **ret);

static int merge_flat(struct weft_schema *c, json_t *a, json_t *b, json_t **ret)
{
    const char *key;
    json_t *value;
    if (json_is_true(a) || json_is_true(b)) {
        *ret = json_is_true(a) ? b : a;
        return 0;
    }
    int r = check_additional(c, a, b);
    if (r == 0)
        r = check_additional(c, b, a);
    if (r == 0)
        r = check_items(c, a, b);
    if (r == 0)
        r = check_items(c, b, a);
    json_t *all = r == 0 ? json_copy(a) : NULL;
    if (r < 0 || (r = weft_schema_keep(c, all)) < 0)
        return r;
    json_object_foreach (b, key, value) {
        json_t *old = json_object_get(all, key), *merged = NULL;
        size_t i = 0;
        while (merges[i].key != NULL && strcmp(merges[i].key, key) != 0)
            i++;
        if (old == NULL)
            merged = json_incref(value);
        else if (weft_schema_is_note(key))
            continue;
        else
            r = merges[i].merge(c, key, old, value, &merged);
        if (r == 0 && json_object_set(all, key, merged) != 0)
            r = no_memory(c);
        json_decref(merged);
        if (r < 0)
            return r;
    }
    *ret = all;
    return 0;
}

static int merge_into(struct weft_schema *c, const json_t *part, unsigned depth, json_t **all)
{
    json_t *flat = NULL;
    int r = flatten(c, part, depth + 1, &flat);
    if (r == 0 && *all != NULL)
        r = merge_flat(c, *all, flat, &flat);
    if (r == 0)
        *all = flat;
    return r;
}

static int flatten(struct weft_schema *c, const json_t *schema, unsigned depth, json_t **ret)
{
    size_t i;
    json_t *part = NULL, *all = NULL, *rest = NULL;
    int r = 0;
    if (depth > REFS_MAX)
        return weft_schema_refuse(
            c, WEFT_ELIMIT, "$ref and allOf within one another more than %d deep, or in a circle",
            REFS_MAX);
    if (json_is_false(schema))
        return weft_schema_refuse(c, WEFT_EUSAGE, "the schema false allows nothing");
    if (!json_is_object(schema) && !json_is_true(schema))
        return weft_schema_refuse(c, WEFT_EUSAGE, "found no schema, expected an object or true");
    const json_t *ref = json_object_get(schema, "$ref"), *parts = json_object_get(schema, "allOf");
    if (ref == NULL && parts == NULL) {
        *ret = (json_t *)schema;
        return 0;
    }
    if ((ref != NULL && !json_is_string(ref)) || (parts != NULL && !json_is_array(parts)))
        return weft_schema_refuse(c, WEFT_EUSAGE, "found %s",
                                  ref != NULL && !json_is_string(ref)
                                      ? "a $ref that is no text"
                                      : "an allOf that is no array");
    if ((r = weft_schema_without(c, schema, "$ref", &rest)) < 0)
        return r;
    json_object_del(rest, "allOf");
    if (ref != NULL && ((r = weft_schema_resolve(c, json_string_value(ref), &part)) < 0 ||
                        (r = merge_into(c, part, depth, &all)) < 0))
        return r;
    json_array_foreach ((json_t *)parts, i, part) {
        if ((r = merge_into(c, part, depth, &all)) < 0)
            return r;
    }
    return all == NULL ? (*ret = rest, 0) : merge_flat(c, all, rest, ret);
}

int weft_schema_merge(struct weft_schema *c, const json_t *a, const json_t *b, json_t **ret)
{
    json_t *x = NULL, *y = NULL;
    int r = flatten(c, a, 0, &x);
    if (r == 0 && b == NULL)
        *ret = x;
    else if (r == 0 && (r = flatten(c, b, 0, &y)) == 0)
        r = merge_flat(c, x, y, ret);
    return r;
}
