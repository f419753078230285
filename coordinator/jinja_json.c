/*
 * JSON to values, see jinja_json.h.
 */
#include "coordinator/jinja_json.h"

#include <jansson.h>
#include <string.h>

static bool listed(const char *const *words, const json_t *json)
{
    if (words == NULL || !json_is_string(json))
        return false;
    while (*words != NULL && (strlen(*words) != json_string_length(json) ||
                              memcmp(*words, json_string_value(json), strlen(*words)) != 0))
        words++;
    return *words != NULL;
}

static int convert(struct jinja_run *run, const json_t *json, const char *const *roles,
                   unsigned level, struct jinja_value *ret);

static int convert_list(struct jinja_run *run, const json_t *json, const char *const *roles,
                        unsigned level, struct jinja_value *ret)
{
    struct jinja_value list;
    const size_t n = json_array_size(json);
    int r = jinja_list_new(run, JINJA_LIST, n, &list);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = convert(run, json_array_get(json, i), roles, level + 1, &list.list->items[i]);
    *ret = list;
    return r;
}

static int convert_object(struct jinja_run *run, const json_t *json, const char *const *roles,
                          unsigned level, struct jinja_value *ret)
{
    struct jinja_value dict;
    /* The iterator of jansson takes objects that may be changed; this does not change them. */
    json_t *object = (json_t *)(uintptr_t)json;
    int r = jinja_dict_new(run, JINJA_DICT, json_object_size(json), &dict);
    for (void *at = json_object_iter(object); r == 0 && at != NULL;
         at = json_object_iter_next(object, at)) {
        const char *name = json_object_iter_key(at);
        const json_t *value = json_object_iter_value(at);
        struct jinja_pair *pair = &dict.dict->pairs[dict.dict->n++]; /* keys differ already */
        r = jinja_text(run, name, strlen(name), false, &pair->key);
        if (r == 0 && level == 1 && strcmp(name, "role") == 0 && listed(roles, value))
            r = jinja_text(run, json_string_value(value), json_string_length(value), true,
                           &pair->value);
        else if (r == 0)
            r = convert(run, value, NULL, level + 1, &pair->value);
    }
    *ret = dict;
    return r;
}

static int convert(struct jinja_run *run, const json_t *json, const char *const *roles,
                   unsigned level, struct jinja_value *ret)
{
    int r = jinja_enter(run);
    if (r == 0)
        r = jinja_work(run, 0);
    if (r < 0)
        return r;
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        r = convert_object(run, json, roles, level, ret);
        break;
    case JSON_ARRAY:
        r = convert_list(run, json, roles, level, ret);
        break;
    case JSON_STRING:
        r = jinja_text(run, json_string_value(json), json_string_length(json), false, ret);
        break;
    case JSON_INTEGER:
        *ret = jinja_int(json_integer_value(json), false);
        break;
    case JSON_REAL:
        *ret = jinja_float(json_real_value(json), false);
        break;
    case JSON_NULL:
        *ret = jinja_none();
        break;
    default:
        *ret = jinja_bool(json_is_true(json));
    }
    ret->trusted = false;
    jinja_leave(run);
    return r;
}

int jinja_from_json(struct jinja_run *run, const struct json_t *json, const char *const *roles,
                    struct jinja_value *ret)
{
    return convert(run, json, roles, 0, ret);
}
