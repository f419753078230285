/*
 * JSON schema to GBNF: which rule a schema becomes. One owner, any thread.
 *
 * Invariant: a schema of the document becomes one rule however often it is referred to, known
 * before its body is made, so that recursive schemas end.
 */
#include "coordinator/json_schema.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/grammar.h"
#include "coordinator/json_schema_private.h"

/* What every grammar begins with; rules that are not used cost nothing. */
static const char preamble[] =
    /* one space or line break with indentation: never blanks without end */
    "ws ::= (\" \" | \"\\n\" [ \\t]{0,32})?\n"
    "hex ::= [0-9a-fA-F]\n"
    /* surrogates are left out: half of a pair is no text */
    "escape ::= \"\\\\\" ([\"\\\\/bfnrt] | \"u\" ([0-9a-cA-CefEF] hex hex hex | [dD] [0-7] hex "
    "hex))\n"
    "raw ::= [^\"\\\\\\x7F\\x00-\\x1F]\n"
    "char ::= raw | escape\n"
    "string ::= \"\\\"\" char* \"\\\"\"\n"
    "digits ::= \"0\" | [1-9] [0-9]{0,17}\n"
    "integer ::= \"-\"? digits\n"
    "number ::= integer (\".\" [0-9]{1,18})? ([eE] [+-]? [0-9]{1,2})?\n"
    "boolean ::= \"true\" | \"false\"\n"
    "null ::= \"null\"\n"
    "object ::= \"{\" ws (member (\",\" ws member)* ws)? \"}\"\n"
    "member ::= string \":\" ws value\n"
    "array ::= \"[\" ws (value (\",\" ws value)* ws)? \"]\"\n"
    "value ::= object | array | string | number | boolean | null\n"
    "year ::= [0-9]{4}\n"
    "leap ::= [0-9]{2} (\"0\" [48] | [2468] [048] | [13579] [26]) | ([02468] [048] | [13579] [26]) "
    "\"00\"\n"
    "date ::= year \"-\" (\"02-\" (\"0\" [1-9] | \"1\" [0-9] | \"2\" [0-8]) | (\"0\" [469] | "
    "\"11\") "
    "\"-\" (\"0\" [1-9] | [12] [0-9] | \"30\") | (\"0\" [13578] | \"10\" | \"12\") \"-\" (\"0\" "
    "[1-9] | "
    "[12] [0-9] | \"3\" [01])) | leap \"-02-29\"\n"
    "hour ::= [01] [0-9] | \"2\" [0-3]\n"
    "minute ::= [0-5] [0-9]\n"
    "time ::= hour \":\" minute \":\" minute (\".\" [0-9]{1,9})? (\"Z\" | [+-] hour \":\" minute)\n"
    "date-time ::= date \"T\" time\n"
    "uuid ::= hex{8} \"-\" hex{4} \"-\" hex{4} \"-\" hex{4} \"-\" hex{12}\n";

int weft_schema_refuse(struct weft_schema *c, int code, const char *fmt, ...)
{
    char text[512], quoted[WEFT_QUOTE_SIZE];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (c->path.failed)
        return weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory");
    weft_quote(quoted, sizeof quoted, c->path.data, c->path.size);
    quoted[strlen(quoted) - 1] = '\0'; /* a pointer needs no quotes */
    return weft_fail(c->err, code, "JSON schema: %s: %s", quoted + 1, text);
}

int weft_schema_number(struct weft_schema *c, uint32_t *ret)
{
    if (c->n_rules == WEFT_JSON_SCHEMA_RULES_MAX)
        return weft_schema_refuse(c, WEFT_ELIMIT, "more than %u rules", WEFT_JSON_SCHEMA_RULES_MAX);
    *ret = c->n_rules++;
    return 0;
}

int weft_schema_emit(struct weft_schema *c, uint32_t rule, struct weft_str *body)
{
    weft_str_addf(&c->out, "r%u ::= ", rule);
    weft_str_adds(&c->out,
                  body->size == 0 ? "\"\"" : body->data); /* else the next line would be it */
    weft_str_adds(&c->out, "\n");
    if (c->out.failed || body->failed)
        return weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory");
    weft_str_clear(body);
    return 0;
}

void weft_schema_literal(struct weft_str *body, const char *text)
{
    weft_str_adds(body, "\"");
    for (; *text != '\0'; text++)
        weft_str_addf(body, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    weft_str_adds(body, "\"");
}

void weft_schema_repeat(struct weft_str *body, uint32_t min, uint32_t max)
{
    if (max == WEFT_SCHEMA_ANY)
        weft_str_addf(body, "{%u,}", min);
    else
        weft_str_addf(body, "{%u,%u}", min, max);
}

int weft_schema_count(struct weft_schema *c, const json_t *schema, const char *key, bool is_maximum,
                      uint32_t *ret)
{
    const json_t *value = json_object_get(schema, key);
    if (value == NULL)
        return 0;
    const double n = json_is_number(value) ? json_number_value(value) : -1;
    if (!(n >= 0) || floor(n) != n)
        return weft_schema_refuse(c, WEFT_EUSAGE, "'%s' is no whole number", key);
    if (n > WEFT_JSON_SCHEMA_COUNT_MAX && !is_maximum)
        return weft_schema_refuse(c, WEFT_ELIMIT, "'%s' is above %u", key,
                                  WEFT_JSON_SCHEMA_COUNT_MAX);
    *ret = n > WEFT_JSON_SCHEMA_COUNT_MAX ? WEFT_JSON_SCHEMA_COUNT_MAX : (uint32_t)n;
    return 0;
}

/* ---- const and enum ---- */

/* JSON with the fewest digits that give the same numbers back. */
static char *dump(const json_t *value)
{
    static const size_t precisions[] = {15, 16, 17};
    char *text = NULL;
    for (size_t i = 0; i < sizeof precisions / sizeof precisions[0]; i++) {
        free(text);
        text =
            json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(precisions[i]));
        json_t *back =
            text == NULL ? NULL : json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        const bool equal = json_equal(value, back);
        json_decref(back);
        if (equal)
            break;
    }
    return text;
}

static int add_constant(struct weft_schema *c, const json_t *value, struct weft_str *body)
{
    char *text = dump(value);
    if (text == NULL)
        return weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory");
    weft_schema_literal(body, text);
    free(text);
    return 0;
}

static bool is_type(const json_t *value, const char *type)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return strcmp(type, "object") == 0;
    case JSON_ARRAY:
        return strcmp(type, "array") == 0;
    case JSON_STRING:
        return strcmp(type, "string") == 0;
    case JSON_NULL:
        return strcmp(type, "null") == 0;
    case JSON_TRUE:
    case JSON_FALSE:
        return strcmp(type, "boolean") == 0;
    case JSON_INTEGER:
        return strcmp(type, "integer") == 0 || strcmp(type, "number") == 0;
    case JSON_REAL:
        return strcmp(type, "number") == 0 ||
               (strcmp(type, "integer") == 0 &&
                floor(json_real_value(value)) == json_real_value(value));
    }
    return false;
}

/* Whether `type` of the schema, if there is one, allows a value. */
static bool type_allows(const json_t *schema, const json_t *value)
{
    const json_t *types = json_object_get(schema, "type");
    if (json_is_string(types))
        return is_type(value, json_string_value(types));
    bool any = types == NULL;
    for (size_t i = 0; i < json_array_size(types); i++) {
        const json_t *type = json_array_get(types, i);
        any |= json_is_string(type) && is_type(value, json_string_value(type));
    }
    return any;
}

/* Values that are listed; only `type` may stand beside them. */
static int add_values(struct weft_schema *c, const json_t *schema, struct weft_str *body)
{
    const json_t *constant = json_object_get(schema, "const");
    json_t *values = json_object_get(schema, "enum"), *value;
    const char *key;
    size_t i, n = 0;
    int r = 0;
    json_object_foreach ((json_t *)schema, key, value) {
        if (strcmp(key, "const") != 0 && strcmp(key, "enum") != 0 && strcmp(key, "type") != 0 &&
            !weft_schema_is_note(key))
            return weft_schema_refuse(c, WEFT_EUNSUPPORTED, "'%s' beside '%s'", key,
                                      constant != NULL ? "const" : "enum");
    }
    if (values != NULL && !json_is_array(values))
        return weft_schema_refuse(c, WEFT_EUSAGE, "'enum' is no array");
    if (constant != NULL && values == NULL) {
        if (type_allows(schema, constant))
            return add_constant(c, constant, body);
        return weft_schema_refuse(c, WEFT_EUSAGE, "'const' is not of its 'type'");
    }
    json_array_foreach (values, i, value) {
        if (!type_allows(schema, value) || (constant != NULL && !json_equal(constant, value)))
            continue;
        weft_str_adds(body, n++ > 0 ? " | " : "");
        if ((r = add_constant(c, value, body)) < 0)
            return r;
    }
    if (n == 0)
        return weft_schema_refuse(c, WEFT_EUSAGE, "'enum' has no value that is allowed");
    return 0;
}

/* ---- types ---- */

static int plain(const char *rule, struct weft_str *body)
{
    weft_str_adds(body, rule);
    return 0;
}

static const struct {
    const char *type, *keys[6]; /* keywords that are about this type */
} types[] = {
    {"object", {"properties", "required", "additionalProperties"}},
    {"array", {"items", "prefixItems", "minItems", "maxItems"}},
    {"string", {"minLength", "maxLength", "pattern", "format"}},
    {"integer", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
    {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}},
    {"boolean", {0}},
    {"null", {0}},
};
#define N_TYPES (sizeof types / sizeof types[0])

static int add_type(struct weft_schema *c, const json_t *schema, const char *type,
                    struct weft_str *body)
{
    char quoted[WEFT_QUOTE_SIZE];
    if (strcmp(type, "object") == 0)
        return weft_schema_object(c, schema, body);
    if (strcmp(type, "array") == 0)
        return weft_schema_array(c, schema, body);
    if (strcmp(type, "string") == 0)
        return weft_schema_string(c, schema, body);
    if (strcmp(type, "integer") == 0)
        return weft_schema_integer(c, schema, body);
    if (strcmp(type, "number") == 0)
        return weft_schema_decimal(c, schema, body);
    if (strcmp(type, "boolean") == 0 || strcmp(type, "null") == 0)
        return plain(type, body);
    return weft_schema_refuse(c, WEFT_EUSAGE,
                              "unknown type %s, expected object, array, string, number, integer, "
                              "boolean or null",
                              weft_quote(quoted, sizeof quoted, type, strlen(type)));
}

/* Every keyword must be known; a bit per type that one of them is about. */
static int check_keys(struct weft_schema *c, const json_t *schema, unsigned *ret_types)
{
    static const char *const rest[] = {"type", "anyOf", "oneOf", NULL};
    const char *key;
    json_t *value;
    char quoted[WEFT_QUOTE_SIZE];
    *ret_types = 0;
    json_object_foreach ((json_t *)schema, key, value) {
        bool known =
            weft_schema_is_note(key) || (strcmp(key, "uniqueItems") == 0 && json_is_false(value));
        for (size_t i = 0; rest[i] != NULL; i++)
            known |= strcmp(key, rest[i]) == 0;
        for (unsigned i = 0; i < N_TYPES; i++)
            for (size_t k = 0; k < 6 && types[i].keys[k] != NULL; k++)
                if (strcmp(key, types[i].keys[k]) == 0) {
                    known = true;
                    *ret_types |= 1u << i;
                }
        weft_quote(quoted, sizeof quoted, key, strlen(key));
        if (!known)
            return weft_schema_refuse(c, WEFT_EUNSUPPORTED, "%s is not supported", quoted);
    }
    return 0;
}

/* The types that are named, or those that keywords are about, or any value. */
static int add_types(struct weft_schema *c, const json_t *schema, unsigned about,
                     struct weft_str *body)
{
    const json_t *named = json_object_get(schema, "type");
    size_t n = 0;
    int r = 0;
    if (named == NULL && about == 0)
        return plain("value", body);
    if (json_is_string(named))
        return add_type(c, schema, json_string_value(named), body);
    if (named != NULL && (!json_is_array(named) || json_array_size(named) == 0))
        return weft_schema_refuse(c, WEFT_EUSAGE, "'type' is neither text nor a list of texts");
    if (named == NULL && (about & 1u << 4) != 0)
        about &= ~(1u << 3); /* bounds without a type: every integer is a number */
    for (size_t i = 0; i < (named == NULL ? N_TYPES : json_array_size(named)) && r == 0; i++) {
        const json_t *one = named == NULL ? NULL : json_array_get(named, i);
        if (named == NULL && (about >> i & 1) == 0)
            continue;
        if (named != NULL && !json_is_string(one))
            return weft_schema_refuse(c, WEFT_EUSAGE, "'type' is neither text nor a list of texts");
        weft_str_adds(body, n++ > 0 ? " | " : "");
        r = add_type(c, schema, one == NULL ? types[i].type : json_string_value(one), body);
    }
    return r;
}

/* ---- schemas ---- */

/* anyOf or oneOf: each of them with what stands beside it. */
static int add_choice(struct weft_schema *c, const json_t *schema, const char *key,
                      struct weft_str *body)
{
    const json_t *branches = json_object_get(schema, key);
    json_t *base = NULL, *merged = NULL;
    const char *other;
    json_t *value;
    bool alone = true;
    int r = weft_schema_without(c, schema, key, &base);
    if (r < 0)
        return r;
    if (!json_is_array(branches) || json_array_size(branches) == 0)
        return weft_schema_refuse(c, WEFT_EUSAGE, "'%s' is no list of schemas", key);
    json_object_foreach (base, other, value) {
        alone &= weft_schema_is_note(other);
    }
    for (size_t i = 0; i < json_array_size(branches); i++) {
        const json_t *branch = json_array_get(branches, i);
        char step[32];
        uint32_t rule = 0;
        if (!alone) {
            if ((r = weft_schema_merge(c, base, branch, &merged)) < 0)
                return r;
            branch = merged;
        }
        snprintf(step, sizeof step, "/%s/%zu", key, i);
        if ((r = weft_schema_visit(c, branch, step, "", &rule)) < 0)
            return r;
        weft_str_addf(body, i > 0 ? " | r%u" : "r%u", rule);
    }
    return 0;
}

static int add_schema(struct weft_schema *c, const json_t *schema, struct weft_str *body)
{
    unsigned about = 0;
    if (json_is_true(schema))
        return plain("value", body);
    if (json_object_get(schema, "const") != NULL || json_object_get(schema, "enum") != NULL)
        return add_values(c, schema, body);
    int r = check_keys(c, schema, &about);
    if (r < 0)
        return r;
    if (json_object_get(schema, "anyOf") != NULL)
        return add_choice(c, schema, "anyOf", body);
    if (json_object_get(schema, "oneOf") != NULL)
        return add_choice(c, schema, "oneOf", body);
    return add_types(c, schema, about, body);
}

/* The schema that a lone $ref or a lone part of allOf stands for, or NULL. */
static int lone_part(struct weft_schema *c, const json_t *schema, const json_t **ret)
{
    const json_t *ref = json_object_get(schema, "$ref"), *parts = json_object_get(schema, "allOf");
    const char *key;
    json_t *value, *target = NULL;
    *ret = NULL;
    json_object_foreach ((json_t *)schema, key, value) {
        if (!weft_schema_is_note(key) && strcmp(key, "$ref") != 0 && strcmp(key, "allOf") != 0)
            return 0;
    }
    if (parts == NULL && json_is_string(ref)) {
        int r = weft_schema_resolve(c, json_string_value(ref), &target);
        *ret = target;
        return r;
    }
    if (ref == NULL && json_is_array(parts) && json_array_size(parts) == 1)
        *ret = json_array_get(parts, 0);
    return 0;
}

struct schema_key {
    const struct weft_schema *c;
    const json_t *schema;
};

static bool equal_schema(const void *ctx, uint32_t id)
{
    const struct schema_key *key = ctx;
    return key->c->of_rule[id] == key->schema;
}

/* The rule of a schema, made when it is new. */
static int find_or_make(struct weft_schema *c, const json_t *schema, uint32_t *ret_rule)
{
    const struct schema_key key = {.c = c, .schema = schema};
    const uint32_t hash = weft_intern_hash(&schema, sizeof schema);
    struct weft_str body = {0};
    json_t *flat = NULL;
    *ret_rule = weft_intern_find(&c->ids, hash, equal_schema, &key);
    if (*ret_rule != WEFT_INTERN_NONE)
        return 0;
    int r = weft_schema_number(c, ret_rule);
    if (r < 0)
        return r;
    c->of_rule[*ret_rule] = schema;
    if ((r = weft_intern_add(&c->ids, hash, *ret_rule, c->err)) < 0 ||
        (r = weft_schema_merge(c, schema, NULL, &flat)) < 0)
        return r;
    r = add_schema(c, flat, &body);
    if (r == 0)
        r = weft_schema_emit(c, *ret_rule, &body);
    weft_str_done(&body);
    return r;
}

int weft_schema_visit(struct weft_schema *c, const json_t *schema, const char *step,
                      const char *name, uint32_t *ret_rule)
{
    const size_t size = c->path.size;
    const json_t *part = NULL;
    int r;
    weft_str_adds(&c->path, step);
    for (; *name != '\0'; name++)
        weft_str_addf(&c->path, *name == '~' ? "~0" : *name == '/' ? "~1" : "%c", *name);
    if (c->depth == WEFT_JSON_SCHEMA_DEPTH_MAX)
        return weft_schema_refuse(c, WEFT_ELIMIT, "schemas within schemas more than %d deep",
                                  WEFT_JSON_SCHEMA_DEPTH_MAX);
    c->depth++;
    unsigned hops = 0;
    while ((r = lone_part(c, schema, &part)) == 0 && part != NULL &&
           hops++ < WEFT_JSON_SCHEMA_DEPTH_MAX)
        schema = part;
    if (r == 0)
        r = find_or_make(c, schema, ret_rule);
    if (r < 0)
        return r;
    c->depth--;
    c->path.size = size;
    c->path.data[size] = '\0';
    return 0;
}

static int translate(struct weft_schema *c, struct weft_str *ret)
{
    struct weft_grammar *g = NULL;
    weft_err why = {0};
    uint32_t rule = 0;
    weft_str_adds(&c->path, "#");
    weft_str_adds(&c->out, preamble);
    int r = weft_schema_visit(c, c->root, "", "", &rule);
    if (r < 0)
        return r;
    weft_str_addf(&c->out, "root ::= r%u\n", rule);
    if (c->out.failed)
        return weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory");
    r = weft_grammar_open(c->out.data, c->out.size, &g, &why);
    if (r < 0) /* too large, or a schema that is its own alternative: {"anyOf": [{"$ref": "#"}]} */
        return weft_fail(c->err, why.code, "JSON schema: as a grammar: %s", why.text);
    weft_grammar_close(g);
    weft_str_add(ret, c->out.data, c->out.size);
    return ret->failed ? weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory") : 0;
}

int weft_json_schema_to_gbnf(const char *json, size_t n, struct weft_str *ret, weft_err *err)
{
    struct weft_schema c = {.err = err};
    json_error_t error;
    int r;
    if (n > WEFT_JSON_SCHEMA_BYTES_MAX)
        return weft_fail(err, WEFT_ELIMIT, "JSON schema: %zu bytes, at most %u are supported", n,
                         WEFT_JSON_SCHEMA_BYTES_MAX);
    c.root = json_loadb(json, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (c.root == NULL) { /* the text may hold bytes of the schema */
        char quoted[sizeof error.text];
        return weft_fail(err, WEFT_EUSAGE, "JSON schema:%d:%d: no JSON: %s", error.line,
                         error.column,
                         weft_quote(quoted, sizeof quoted, error.text, strlen(error.text)));
    }
    c.made = json_array();
    c.of_rule = calloc(WEFT_JSON_SCHEMA_RULES_MAX, sizeof(const json_t *));
    if (c.made == NULL || c.of_rule == NULL)
        r = weft_fail(err, WEFT_ENOMEM, "JSON schema: no memory");
    else
        r = translate(&c, ret);
    json_decref(c.made);
    json_decref(c.root);
    free(c.of_rule);
    weft_intern_done(&c.ids);
    weft_str_done(&c.out);
    weft_str_done(&c.path);
    return r;
}
