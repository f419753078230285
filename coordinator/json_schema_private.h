/*
 * Inside of the translation of JSON schemas, shared by coordinator/json_schema*.c.
 *
 * Each schema becomes one rule; a function that makes one appends it to c->out and gives its
 * number.
 */
#ifndef WEFT_COORDINATOR_JSON_SCHEMA_PRIVATE_H
#define WEFT_COORDINATOR_JSON_SCHEMA_PRIVATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/intern.h"
#include "coordinator/json_schema.h"

struct weft_schema {
    json_t *root;
    json_t *made; /* array: merged schemas, kept so that no two schemas ever have one address */
    struct weft_str out;
    struct weft_str path;   /* JSON pointer of the schema that is being read */
    const json_t **of_rule; /* [n_rules] the schema of a rule, NULL for one of its parts */
    struct weft_intern ids; /* from schema to rule */
    uint32_t n_rules;
    uint64_t compared; /* pairs of values so far */
    unsigned depth;
    bool has_over; /* the rules that bounds of numbers share are in out */
    weft_err *err;
};

/* Fails with "JSON schema: POINTER: …". */
int weft_schema_refuse(struct weft_schema *c, int code, const char *fmt, ...) WEFT_PRINTF(3, 4);
/* A fresh number for a rule; the limit. */
int weft_schema_number(struct weft_schema *c, uint32_t *ret) WEFT_MUST_USE;
/* Appends "rN ::= BODY" and empties body; fails when memory ran out on the way. */
int weft_schema_emit(struct weft_schema *c, uint32_t rule, struct weft_str *body) WEFT_MUST_USE;
/* The rule of a schema found at path + step ("/items", "/properties/NAME"). */
int weft_schema_visit(struct weft_schema *c, const json_t *schema, const char *step,
                      const char *name, uint32_t *ret_rule) WEFT_MUST_USE;
/* A GBNF literal of text, which is printable. */
void weft_schema_literal(struct weft_str *body, const char *text);
/* A count such as minItems: *ret keeps its value when the key is absent. */
int weft_schema_count(struct weft_schema *c, const json_t *schema, const char *key, bool is_maximum,
                      uint32_t *ret) WEFT_MUST_USE;
#define WEFT_SCHEMA_ANY UINT32_MAX /* of a maximum: none */
/* "{m,n}" behind an item. */
void weft_schema_repeat(struct weft_str *body, uint32_t min, uint32_t max);

/* These append what follows `::=` to body. */
int weft_schema_object(struct weft_schema *c, const json_t *schema,
                       struct weft_str *body) WEFT_MUST_USE;
int weft_schema_array(struct weft_schema *c, const json_t *schema,
                      struct weft_str *body) WEFT_MUST_USE;
int weft_schema_string(struct weft_schema *c, const json_t *schema,
                       struct weft_str *body) WEFT_MUST_USE;
int weft_schema_integer(struct weft_schema *c, const json_t *schema,
                        struct weft_str *body) WEFT_MUST_USE;
int weft_schema_decimal(struct weft_schema *c, const json_t *schema,
                        struct weft_str *body) WEFT_MUST_USE; /* numbers */
int weft_schema_pattern(struct weft_schema *c, const char *pattern,
                        struct weft_str *body) WEFT_MUST_USE;

/* Follows $ref in the document. */
int weft_schema_resolve(struct weft_schema *c, const char *ref, json_t **ret) WEFT_MUST_USE;
/* What both schemas allow, as a schema without allOf, $ref at its top. Borrowed from c->made. */
int weft_schema_merge(struct weft_schema *c, const json_t *a, const json_t *b,
                      json_t **ret) WEFT_MUST_USE;
/* A copy of the schema without a key, borrowed from c->made. */
int weft_schema_without(struct weft_schema *c, const json_t *schema, const char *key,
                        json_t **ret) WEFT_MUST_USE;
/* Keeps a new schema (NULL: no memory), taken. */
int weft_schema_keep(struct weft_schema *c, json_t *schema) WEFT_MUST_USE;
/* Before each of n values is compared with each of m: -WEFT_ELIMIT when that takes too long. */
int weft_schema_spend(struct weft_schema *c, size_t n, size_t m) WEFT_MUST_USE;
bool weft_schema_is_note(const char *key);

#endif
