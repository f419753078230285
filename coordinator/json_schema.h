/*
 * JSON schema to GBNF: a grammar (base/grammar.h) whose texts are JSON that the schema allows.
 *
 * Every text of the grammar is valid; not every valid text is in the grammar. Chosen so that a
 * model is led, and cannot go on forever between two values:
 *
 * - properties come in the order of the schema, optional ones may be left out; objects that name
 * properties have no others unless additionalProperties says so, lists with prefixItems none behind
 * them;
 * - between values there is at most one space, or a line break and up to 32 blanks;
 * - numbers have at most 18 digits before the point; those of type number with bounds are plain
 *   decimals of at most 15 digits, and so are the bounds; counts without a maximum are not bounded,
 * a maximum above 16384 is taken as 16384;
 * - characters are written as themselves, or as \" \\ \/ \b \f \n \r \t \uHHHH in strings without a
 * pattern;
 * - oneOf is read as anyOf: a text that two of its schemas allow is not refused;
 * - without `type`, the keywords say which types are meant.
 *
 * Keywords: type, properties, required, additionalProperties, items, prefixItems, minItems,
 * maxItems, minLength, maxLength, pattern, format (date, time, date-time, uuid), enum, const,
 * minimum, maximum, exclusiveMinimum, exclusiveMaximum, anyOf, oneOf, allOf, $ref within
 * the document, $defs. Notes (title, description, default, examples …) are skipped; anything else
 * is refused by name. Pure.
 */
#ifndef WEFT_COORDINATOR_JSON_SCHEMA_H
#define WEFT_COORDINATOR_JSON_SCHEMA_H

#include <stddef.h>

#include "base/err.h"
#include "base/text.h"

#define WEFT_JSON_SCHEMA_BYTES_MAX (1u << 20)
#define WEFT_JSON_SCHEMA_DEPTH_MAX 64     /* schemas within schemas */
#define WEFT_JSON_SCHEMA_RULES_MAX 20000u /* of the grammar */
#define WEFT_JSON_SCHEMA_COUNT_MAX 16384u /* items of an array, characters of a string */

/* Appends the grammar of the schema json[0..n), borrowed, to *ret (on success only). The grammar
 * has been opened once, so that it is known to be one. "JSON schema: #/properties/a: …":
 * -WEFT_EUSAGE for what is no schema, -WEFT_EUNSUPPORTED for a keyword or value that is not
 * supported, -WEFT_ELIMIT, -WEFT_ENOMEM. */
int weft_json_schema_to_gbnf(const char *json, size_t n, struct weft_str *ret,
                             weft_err *err) WEFT_MUST_USE;

#endif
