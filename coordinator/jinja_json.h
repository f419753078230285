/*
 * JSON to values of the Jinja interpreter.
 */
#ifndef WEFT_COORDINATOR_JINJA_JSON_H
#define WEFT_COORDINATOR_JINJA_JSON_H

#include "coordinator/jinja_run.h"

struct json_t;

/* Values that point into json, which must outlive the run. Nothing in them is trusted but, with
 * `roles`, the texts of these (ends with NULL) at the key "role" of json's own elements: those of a
 * list of messages. */
int jinja_from_json(struct jinja_run *run, const struct json_t *json, const char *const *roles,
                    struct jinja_value *ret) WEFT_MUST_USE;

#endif
