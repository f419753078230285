/*
 * A validator of JSON schemas: each keyword for itself.
 */
#include "tests/json_check.h"

#include <check.h>
#include <math.h>
#include <regex.h>
#include <string.h>

#include "base/text.h"

static bool is_type(const char *type, const json_t *v)
{
    if (strcmp(type, "integer") == 0)
        return json_is_number(v) && floor(json_number_value(v)) == json_number_value(v);
    return strcmp(type, json_is_object(v)    ? "object"
                        : json_is_array(v)   ? "array"
                        : json_is_string(v)  ? "string"
                        : json_is_number(v)  ? "number"
                        : json_is_boolean(v) ? "boolean"
                                             : "null") == 0;
}

static bool check_type(const json_t *rule, const json_t *v)
{
    if (json_is_string(rule))
        return is_type(json_string_value(rule), v);
    for (size_t i = 0; i < json_array_size(rule); i++)
        if (is_type(json_string_value(json_array_get(rule, i)), v))
            return true;
    return false;
}

static bool check_enum(const json_t *rule, const json_t *v)
{
    for (size_t i = 0; i < json_array_size(rule); i++)
        if (json_equal(json_array_get(rule, i), v))
            return true;
    return false;
}

static size_t characters(const json_t *v)
{
    size_t n = 0;
    for (size_t i = 0; i < json_string_length(v); i++)
        n += ((uint8_t)json_string_value(v)[i] & 0xC0) != 0x80;
    return n;
}

static bool matches(const char *pattern, const char *text)
{
    regex_t regex;
    ck_assert_int_eq(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return found;
}

static bool check_numbers(const char *key, double n, const json_t *v)
{
    const double x = json_is_number(v) ? json_number_value(v) : NAN;
    if (strcmp(key, "minimum") == 0)
        return !(x < n);
    if (strcmp(key, "maximum") == 0)
        return !(x > n);
    if (strcmp(key, "exclusiveMinimum") == 0)
        return !(x <= n);
    if (strcmp(key, "exclusiveMaximum") == 0)
        return !(x >= n);
    if (strcmp(key, "minItems") == 0 || strcmp(key, "maxItems") == 0)
        return !json_is_array(v) ||
               (key[1] == 'i' ? (double)json_array_size(v) >= n : (double)json_array_size(v) <= n);
    if (strcmp(key, "minLength") == 0 || strcmp(key, "maxLength") == 0)
        return !json_is_string(v) ||
               (key[1] == 'i' ? (double)characters(v) >= n : (double)characters(v) <= n);
    ck_abort_msg("%s: not known to the test", key);
    return false;
}

static bool check_object(const json_t *root, const json_t *schema, const json_t *v)
{
    json_t *properties = json_object_get(schema, "properties"), *value;
    json_t *more = json_object_get(schema, "additionalProperties");
    json_t *required = json_object_get(schema, "required");
    const char *name;
    bool ok = true;
    json_object_foreach ((json_t *)v, name, value) {
        json_t *rule = json_object_get(properties, name);
        rule = rule == NULL ? more : rule;
        ok &= rule == NULL || json_check(root, rule, value);
    }
    for (size_t i = 0; json_is_object(v) && i < json_array_size(required); i++)
        ok &= json_object_get(v, json_string_value(json_array_get(required, i))) != NULL;
    return ok;
}

static bool check_array(const json_t *root, const json_t *schema, const json_t *v)
{
    const json_t *prefix = json_object_get(schema, "prefixItems");
    const json_t *items = json_object_get(schema, "items");
    bool ok = true;
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *rule = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
        ok &= rule == NULL || json_check(root, rule, json_array_get(v, i));
    }
    return ok;
}

static bool check_all(const json_t *root, const char *key, const json_t *rules, const json_t *v)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(rules); i++)
        n += json_check(root, json_array_get(rules, i), v);
    return strcmp(key, "allOf") == 0 ? n == json_array_size(rules) : n > 0;
}

static const json_t *referred(const json_t *root, const char *ref)
{
    if (strcmp(ref, "#") == 0)
        return root;
    ck_assert_int_eq(strncmp(ref, "#/$defs/", 8), 0);
    return json_object_get(json_object_get(root, "$defs"), ref + 8);
}

bool json_check(const json_t *root, const json_t *schema, const json_t *v)
{
    static const char *const elsewhere[] = {"properties", "required",    "additionalProperties",
                                            "items",      "prefixItems", "$defs",
                                            "title",      "description"};
    const char *key;
    json_t *rule;
    if (json_is_boolean(schema))
        return json_is_true(schema);
    bool ok = check_object(root, schema, v) && check_array(root, schema, v);
    json_object_foreach ((json_t *)schema, key, rule) {
        size_t i = 0;
        while (i < sizeof elsewhere / sizeof elsewhere[0] && strcmp(elsewhere[i], key) != 0)
            i++;
        if (i < sizeof elsewhere / sizeof elsewhere[0])
            continue;
        if (strcmp(key, "$ref") == 0)
            ok &= json_check(root, referred(root, json_string_value(rule)), v);
        else if (strcmp(key, "type") == 0)
            ok &= check_type(rule, v);
        else if (strcmp(key, "enum") == 0)
            ok &= check_enum(rule, v);
        else if (strcmp(key, "const") == 0)
            ok &= json_equal(rule, v);
        else if (strcmp(key, "pattern") == 0)
            ok &= !json_is_string(v) || matches(json_string_value(rule), json_string_value(v));
        else if (json_is_array(rule))
            ok &= check_all(root, key, rule, v);
        else
            ok &= check_numbers(key, json_number_value(rule), v);
    }
    return ok;
}
