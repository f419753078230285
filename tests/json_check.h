/*
 * A validator of JSON schemas, as plain as it can be, for the tests of json_schema: it reads the
 * document as the schema's words say, and knows nothing of grammars.
 */
#ifndef WEFT_TESTS_JSON_CHECK_H
#define WEFT_TESTS_JSON_CHECK_H

#include <jansson.h>
#include <stdbool.h>

/* Whether value is valid by schema, whose $ref are looked up in root (#, #/$defs/NAME only).
 * Patterns are POSIX extended ones. Fails the test for a keyword that it does not know. */
bool json_check(const json_t *root, const json_t *schema, const json_t *value);

#endif
