/*
 * JSON schemas: objects, arrays and ranges of integers.
 *
 * Invariant: rules grow linearly with properties and digits, whatever may be left out.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/json_schema_private.h"

/* ---- objects ---- */

struct property {
    const char *name;
    const json_t *schema;
    bool required;
};

struct object {
    struct property *properties;
    size_t n;
    bool more;           /* other properties may follow */
    uint32_t more_key;   /* rule: names that are none of these */
    uint32_t more_value; /* rule */
    uint32_t first_tail; /* rule n + i: what may follow behind property i - 1 */
};

static bool is_required(const json_t *required, const char *name)
{
    for (size_t i = 0; i < json_array_size(required); i++)
        if (strcmp(json_string_value(json_array_get(required, i)), name) == 0)
            return true;
    return false;
}

/* Those of `properties` in their order, then those that are only required. */
static int collect(struct weft_schema *c, const json_t *schema, struct object *o)
{
    json_t *named = json_object_get(schema, "properties"), *value;
    json_t *required = json_object_get(schema, "required");
    const json_t *more = json_object_get(schema, "additionalProperties");
    const char *name;
    size_t i;
    if ((named != NULL && !json_is_object(named)) || (required != NULL && !json_is_array(required)))
        return weft_schema_refuse(c, WEFT_EUSAGE,
                                  "'properties' must be an object and 'required' a list of texts");
    json_array_foreach (required, i, value) {
        if (!json_is_string(value))
            return weft_schema_refuse(c, WEFT_EUSAGE, "'required' is no list of texts");
    }
    int r = weft_schema_spend(c, json_object_size(named) + json_array_size(required),
                              2 * json_array_size(required));
    if (r < 0)
        return r;
    o->properties =
        calloc(json_object_size(named) + json_array_size(required) + 1, sizeof *o->properties);
    if (o->properties == NULL)
        return weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory");
    json_object_foreach (named, name, value) {
        o->properties[o->n++] = (struct property){
            .name = name, .schema = value, .required = is_required(required, name)};
    }
    json_array_foreach (required, i, value) {
        name = json_string_value(value);
        bool known = false;
        for (size_t k = 0; k < o->n; k++)
            known |= strcmp(o->properties[k].name, name) == 0;
        if (known)
            continue;
        if (json_is_false(more))
            return weft_schema_refuse(c, WEFT_EUSAGE,
                                      "'required' names %s, which 'properties' does not have",
                                      json_string_value(value));
        o->properties[o->n++] = (struct property){.name = name, .schema = more, .required = true};
    }
    o->more = more == NULL ? named == NULL : !json_is_false(more);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct property *)a)->name, ((const struct property *)b)->name);
}

/* Characters of a name that may stand in a class or literal as they are, or as an escape. */
static void add_code(struct weft_str *body, uint32_t code)
{
    weft_str_addf(body, code < 0x100 ? "\\x%02X" : code < 0x10000 ? "\\u%04X" : "\\U%08X", code);
}

/* The names in properties[0..n), sorted, share their first `at` bytes: a rule for what may follow
 * there so that the whole is none of them. Names are written without escapes, so each has one
 * spelling. */
static int other_names(struct weft_schema *c, const struct property *p, size_t n, size_t at,
                       unsigned depth, uint32_t *ret_rule)
{
    struct weft_str body = {0}, class = {0};
    if (depth > WEFT_JSON_SCHEMA_DEPTH_MAX * 2)
        return weft_schema_refuse(c, WEFT_ELIMIT, "name of more than %d characters beside others",
                                  WEFT_JSON_SCHEMA_DEPTH_MAX * 2);
    int r = weft_schema_number(c, ret_rule);
    bool ends_here = false;
    for (size_t i = 0; i < n && r == 0;) {
        uint32_t code = 0, inner = 0;
        const size_t size = weft_utf8_decode(p[i].name + at, strlen(p[i].name + at), &code);
        size_t end = i + 1;
        if (size == 0) { /* sorted first */
            ends_here = true;
            i++;
            continue;
        }
        while (end < n && strncmp(p[end].name + at, p[i].name + at, size) == 0)
            end++;
        add_code(&class, code);
        /* a name with such a character cannot be written raw, so nothing is kept out behind it */
        if (code >= 0x20 && code != 0x7F && code != '"' && code != '\\') {
            r = other_names(c, p + i, end - i, at + size, depth + 1, &inner);
            weft_str_adds(&body, "\"");
            add_code(&body, code);
            weft_str_addf(&body, "\" r%u | ", inner);
        }
        i = end;
    }
    weft_str_adds(&body, "[^\"\\\\\\x7F\\x00-\\x1F");
    weft_str_add(&body, class.data == NULL ? "" : class.data, class.size);
    weft_str_adds(&body, ends_here ? "] raw*" : "] raw* | \"\"");
    if (r == 0 && class.failed)
        r = weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory");
    if (r == 0)
        r = weft_schema_emit(c, *ret_rule, &body);
    weft_str_done(&body);
    weft_str_done(&class);
    return r;
}

static int prepare_more(struct weft_schema *c, const json_t *schema, struct object *o)
{
    const json_t *more = json_object_get(schema, "additionalProperties");
    struct property *sorted = calloc(o->n + 1, sizeof *sorted);
    if (sorted == NULL)
        return weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory");
    if (o->n > 0)
        memcpy(sorted, o->properties, o->n * sizeof *sorted);
    qsort(sorted, o->n, sizeof *sorted, by_name);
    int r = other_names(c, sorted, o->n, 0, 0, &o->more_key);
    free(sorted);
    if (r == 0)
        r = weft_schema_visit(c, more == NULL ? json_true() : more, "/additionalProperties", "",
                              &o->more_value);
    return r;
}

/* `"name": value` */
static int add_member(struct weft_schema *c, const struct property *p, struct weft_str *body)
{
    struct weft_str name = {0};
    uint32_t rule = 0;
    int r = weft_schema_visit(c, p->schema == NULL ? json_true() : p->schema, "/properties/",
                              p->name, &rule);
    if (r < 0)
        return r;
    weft_str_add_json(&name, p->name, strlen(p->name));
    if (name.failed)
        return weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory");
    weft_schema_literal(body, name.data);
    weft_str_addf(body, " \":\" ws r%u ", rule);
    weft_str_done(&name);
    return 0;
}

/* Rule first_tail + i: the properties from i on when one stands before them. */
static int emit_tails(struct weft_schema *c, const struct object *o, const uint32_t *members)
{
    struct weft_str body = {0};
    int r = 0;
    for (size_t i = 0; i <= o->n && r == 0; i++) {
        if (i < o->n) {
            const uint32_t next = o->first_tail + (uint32_t)i + 1;
            weft_str_addf(&body, "\",\" ws r%u r%u", members[i], next);
            if (!o->properties[i].required)
                weft_str_addf(&body, " | r%u", next);
        } else if (o->more) {
            weft_str_addf(&body, "(\",\" ws \"\\\"\" r%u \"\\\":\" ws r%u)*", o->more_key,
                          o->more_value);
        }
        r = weft_schema_emit(c, o->first_tail + (uint32_t)i, &body);
    }
    weft_str_done(&body);
    return r;
}

int weft_schema_object(struct weft_schema *c, const json_t *schema, struct weft_str *body)
{
    struct object o = {0};
    struct weft_str member = {0};
    uint32_t *members = NULL, tail = 0;
    bool required = false;
    int r = collect(c, schema, &o);
    if (r == 0 && o.n == 0 && json_object_get(schema, "additionalProperties") == NULL && o.more) {
        weft_str_adds(body, "object");
        goto out;
    }
    if (r == 0 && o.more)
        r = prepare_more(c, schema, &o);
    members = calloc(o.n + 1, sizeof *members);
    if (r == 0 && members == NULL)
        r = weft_fail(c->err, WEFT_ENOMEM, "JSON schema: no memory");
    for (size_t i = 0; i < o.n && r == 0; i++) {
        if ((r = weft_schema_number(c, &members[i])) == 0 &&
            (r = add_member(c, &o.properties[i], &member)) == 0)
            r = weft_schema_emit(c, members[i], &member);
    }
    for (size_t i = 0; i <= o.n && r == 0; i++) {
        r = weft_schema_number(c, &tail); /* in a row: nothing else takes a number here */
        o.first_tail = i == 0 ? tail : o.first_tail;
    }
    if (r < 0 || (r = emit_tails(c, &o, members)) < 0)
        goto out;
    /* the first property that is there: any up to the first one that must be */
    weft_str_adds(body, "\"{\" ws ((");
    for (size_t i = 0; i < o.n && !required; i++) {
        weft_str_addf(body, i > 0 ? " | r%u r%u" : "r%u r%u", members[i],
                      o.first_tail + (uint32_t)i + 1);
        required = o.properties[i].required;
    }
    if (!required && o.more)
        weft_str_addf(body, "%s\"\\\"\" r%u \"\\\":\" ws r%u r%u", o.n > 0 ? " | " : "", o.more_key,
                      o.more_value, o.first_tail + (uint32_t)o.n);
    weft_str_adds(body, required || o.n > 0 || o.more ? ") ws)" : "))");
    weft_str_adds(body, required ? " \"}\"" : "? \"}\"");
out:
    weft_str_done(&member);
    free(members);
    free(o.properties);
    return r;
}

/* ---- arrays ---- */

/* `more` repetitions of ", item" behind the first n items. */
static void add_rest(struct weft_str *body, uint32_t rule, uint32_t n, uint32_t min, uint32_t max)
{
    weft_str_addf(body, " (\",\" ws r%u)", rule);
    weft_schema_repeat(body, min > n ? min - n : 0, max == WEFT_SCHEMA_ANY ? max : max - n);
}

/* Items 0..n of prefixItems, each behind the one before: rule by rule from the last to the first.
 */
static int add_prefix(struct weft_schema *c, const json_t *prefix, uint32_t rest, uint32_t min,
                      uint32_t max, bool more, uint32_t *ret_rule)
{
    struct weft_str body = {0};
    const uint32_t n = json_array_size(prefix) < max ? (uint32_t)json_array_size(prefix) : max;
    uint32_t next = 0;
    int r = 0;
    for (uint32_t i = n + 1; i-- > 0 && r == 0;) {
        uint32_t item = 0, rule = 0;
        char step[32];
        snprintf(step, sizeof step, "/prefixItems/%u", i);
        if (i < n)
            r = weft_schema_visit(c, json_array_get(prefix, i), step, "", &item);
        if (r < 0 || (r = weft_schema_number(c, &rule)) < 0)
            break;
        if (i < n)
            weft_str_addf(&body, "%sr%u r%u%s", i > 0 ? "\",\" ws " : "", item, next,
                          i >= min ? " | \"\"" : "");
        else if (more && n < max)
            add_rest(&body, rest, n, min, max);
        r = weft_schema_emit(c, rule, &body);
        next = rule;
    }
    *ret_rule = next;
    weft_str_done(&body);
    return r;
}

int weft_schema_array(struct weft_schema *c, const json_t *schema, struct weft_str *body)
{
    const json_t *items = json_object_get(schema, "items");
    const json_t *prefix = json_object_get(schema, "prefixItems");
    uint32_t min = 0, max = WEFT_SCHEMA_ANY, rest = 0, first = 0;
    int r = weft_schema_count(c, schema, "minItems", false, &min);
    if (r == 0)
        r = weft_schema_count(c, schema, "maxItems", true, &max);
    if (r < 0)
        return r;
    if (json_is_array(items))
        return weft_schema_refuse(c, WEFT_EUNSUPPORTED, "'items' as a list, write 'prefixItems'");
    if (prefix != NULL && !json_is_array(prefix))
        return weft_schema_refuse(c, WEFT_EUSAGE, "'prefixItems' is no list of schemas");
    const size_t n = json_array_size(prefix);
    const bool more = items == NULL ? n == 0 || min > n : !json_is_false(items);
    if (max < min || (!more && min > n))
        return weft_schema_refuse(c, WEFT_EUSAGE, "'minItems' is more than there can be");
    if (!more && n == 0)
        max = 0;
    if (more && max > n &&
        (r = weft_schema_visit(c, items == NULL ? json_true() : items, "/items", "", &rest)) < 0)
        return r;
    if (max == 0) {
        weft_str_adds(body, "\"[\" ws \"]\"");
    } else if (n == 0) {
        weft_str_addf(body, "\"[\" ws (r%u", rest);
        add_rest(body, rest, 1, min, max);
        weft_str_addf(body, " ws)%s \"]\"", min == 0 ? "?" : "");
    } else {
        r = add_prefix(c, prefix, rest, min, max, more, &first);
        weft_str_addf(body, "\"[\" ws r%u ws \"]\"", first);
    }
    return r;
}

/* ---- ranges of integers ---- */

#define INTEGER_MAX 999999999999999999 /* 18 digits, as in the rule `digits` */

/* Numbers of exactly n digits from low to high: digits that they share, then the first one that
 * differs. */
static void add_digits(struct weft_str *body, const char *low, const char *high, size_t n)
{
    const size_t zeros = strspn(low, "0"), nines = strspn(high, "9");
    if (n == 0)
        return;
    if (zeros >= n && nines >= n) {
        weft_str_addf(body, " [0-9]{%zu}", n);
        return;
    }
    if (low[0] == high[0]) {
        weft_str_addf(body, " \"%c\"", low[0]);
        add_digits(body, low + 1, high + 1, n - 1);
        return;
    }
    char first = low[0], last = high[0];
    weft_str_adds(body, " (");
    if (strspn(low + 1, "0") < n - 1) { /* the lowest first digit has not all digits behind it */
        weft_str_addf(body, "\"%c\"", first++);
        add_digits(body, low + 1, "99999999999999999999", n - 1);
        weft_str_adds(body, " | ");
    }
    const bool cut = strspn(high + 1, "9") < n - 1;
    if (cut)
        last--;
    if (first <= last) {
        weft_str_addf(body, "[%c-%c]", first, last);
        if (n > 1)
            weft_str_addf(body, " [0-9]{%zu}", n - 1);
        weft_str_adds(body, cut ? " | " : "");
    }
    if (cut) {
        weft_str_addf(body, "\"%c\"", high[0]);
        add_digits(body, "00000000000000000000", high + 1, n - 1);
    }
    weft_str_adds(body, ")");
}

/* Alternatives for low..high, neither negative, one for each number of digits. */
static void add_range(struct weft_str *body, int64_t low, int64_t high)
{
    bool first = true;
    for (int64_t from = 0, to = 9; from <= high; from = to + 1, to = 10 * to + 9) {
        char a[24], b[24];
        if (to < low)
            continue;
        snprintf(a, sizeof a, "%" PRId64, low > from ? low : from);
        snprintf(b, sizeof b, "%" PRId64, high < to ? high : to);
        weft_str_adds(body, first ? "" : " |");
        first = false;
        add_digits(body, a, b, strlen(a));
        if (to == INTEGER_MAX)
            break;
    }
}

/* A bound as the nearest integer inside of it. */
static int read_bound(struct weft_schema *c, const json_t *schema, const char *key, int direction,
                      bool exclusive, int64_t *bound)
{
    const json_t *value = json_object_get(schema, key);
    if (value == NULL)
        return 0;
    if (!json_is_number(value))
        return weft_schema_refuse(c, WEFT_EUSAGE, "'%s' is no number", key);
    int64_t n = 0;
    if (json_is_integer(value)) {
        n = json_integer_value(value);
        if (n > INTEGER_MAX || n < -INTEGER_MAX)
            n = n > 0 ? INTEGER_MAX + 2LL : -INTEGER_MAX - 2LL;
    } else {
        double d = json_real_value(value);
        d = d > 2e18 ? 2e18 : d < -2e18 ? -2e18 : d;
        n = (int64_t)(direction > 0 ? ceil(d) : floor(d));
        exclusive = exclusive && (double)n == d;
    }
    n += exclusive ? direction : 0;
    if ((direction > 0 && n > *bound) || (direction < 0 && n < *bound))
        *bound = n;
    return 0;
}

int weft_schema_integer(struct weft_schema *c, const json_t *schema, struct weft_str *body)
{
    int64_t low = -INTEGER_MAX, high = INTEGER_MAX;
    int r = read_bound(c, schema, "minimum", 1, false, &low);
    if (r == 0)
        r = read_bound(c, schema, "exclusiveMinimum", 1, true, &low);
    if (r == 0)
        r = read_bound(c, schema, "maximum", -1, false, &high);
    if (r == 0)
        r = read_bound(c, schema, "exclusiveMaximum", -1, true, &high);
    if (r < 0)
        return r;
    if (low > high || low > INTEGER_MAX || high < -INTEGER_MAX)
        return weft_schema_refuse(c, WEFT_EUNSUPPORTED,
                                  "no integer of at most 18 digits is within the bounds");
    if (low == -INTEGER_MAX && high == INTEGER_MAX) {
        weft_str_adds(body, "integer");
        return 0;
    }
    if (low < 0) {
        weft_str_adds(body, "\"-\" (");
        add_range(body, high < 0 ? -high : 1, -low);
        weft_str_adds(body, high < 0 ? ")" : ") |");
    }
    if (high >= 0)
        add_range(body, low > 0 ? low : 0, high);
    return 0;
}
