/*
 * JSON schemas: strings, by length, format or pattern.
 *
 * A pattern is a regular expression over the characters of a string; in the grammar each character
 * is written as JSON writes it. Invariant: what of regular expressions is not regular, or not known
 * here, is refused by name and column.
 */
#include <stdlib.h>
#include <string.h>

#include "coordinator/json_schema_private.h"

#define CODE_MAX 0x10FFFFu
#define RANGES_MAX 256u /* of one class of a pattern */
#define NESTING_MAX 32u /* groups of a pattern */

/* ---- sets of characters ---- */

struct code_set {
    struct code_range {
        uint32_t low, high;
    } ranges[RANGES_MAX];
    size_t n;
    bool failed; /* there were more */
};

static void add_codes(struct code_set *s, uint32_t low, uint32_t high)
{
    if (s->n == RANGES_MAX)
        s->failed = true;
    else
        s->ranges[s->n++] = (struct code_range){.low = low, .high = high};
}

static int compare(const void *a, const void *b)
{
    const struct code_range *x = a, *y = b;
    return (x->low > y->low) - (x->low < y->low);
}

/* All characters that are not in the set. */
static void negate(struct code_set *s)
{
    struct code_set out = {.failed = s->failed};
    uint32_t next = 0;
    qsort(s->ranges, s->n, sizeof s->ranges[0], compare);
    for (size_t i = 0; i < s->n; i++) {
        if (s->ranges[i].low > next)
            add_codes(&out, next, s->ranges[i].low - 1);
        if (s->ranges[i].high >= next)
            next = s->ranges[i].high + 1;
    }
    if (next <= CODE_MAX)
        add_codes(&out, next, CODE_MAX);
    *s = out;
}

static bool has(const struct code_set *s, uint32_t code)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->ranges[i].low <= code && code <= s->ranges[i].high)
            return true;
    return false;
}

/* The part of low..high between two characters, as a range of a class. */
static bool print_range(struct weft_str *body, uint32_t low, uint32_t high, uint32_t from,
                        uint32_t to)
{
    low = low < from ? from : low;
    high = high > to ? to : high;
    if (low <= high)
        weft_str_addf(body, "\\U%08X-\\U%08X", low, high);
    return low <= high;
}

/* The set as JSON writes it: as they are, but for those that need an escape. */
static void print_set(struct weft_str *body, const struct code_set *s, size_t *ret_parts)
{
    static const struct code_range plain[] = {
        {0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x7E}, {0x80, 0xD7FF}, {0xE000, CODE_MAX}};
    static const struct {
        uint32_t code;
        const char *text;
    } escapes[] = {{'"', "\\\\\\\""}, {'\\', "\\\\\\\\"}, {8, "\\\\b"}, {9, "\\\\t"},
                   {10, "\\\\n"},     {12, "\\\\f"},      {13, "\\\\r"}};
    struct weft_str class = {0};
    *ret_parts = 0;
    for (size_t i = 0; i < s->n; i++)
        for (size_t k = 0; k < sizeof plain / sizeof plain[0]; k++)
            print_range(&class, s->ranges[i].low, s->ranges[i].high, plain[k].low, plain[k].high);
    weft_str_adds(body, "(");
    if (class.size > 0) {
        weft_str_addf(body, "[%s]", class.data);
        ++*ret_parts;
    }
    for (size_t i = 0; i < sizeof escapes / sizeof escapes[0]; i++)
        if (has(s, escapes[i].code))
            weft_str_addf(body, (*ret_parts)++ > 0 ? " | \"%s\"" : "\"%s\"", escapes[i].text);
    weft_str_adds(body, ")");
    body->failed |= class.failed;
    weft_str_done(&class);
}

/* ---- patterns ---- */

struct pattern {
    struct weft_schema *c;
    const char *text, *at;
    struct weft_str *body;
    unsigned nesting;
};

static int refuse(struct pattern *p, int code, const char *what)
{
    char quoted[WEFT_QUOTE_SIZE];
    return weft_schema_refuse(p->c, code, "'pattern' %s: column %zu: %s",
                              weft_quote(quoted, sizeof quoted, p->text, strlen(p->text)),
                              (size_t)(p->at - p->text) + 1, what);
}

static void add_digit(struct code_set *s)
{
    add_codes(s, '0', '9');
}

static void add_word(struct code_set *s)
{
    add_digit(s);
    add_codes(s, 'A', 'Z');
    add_codes(s, '_', '_');
    add_codes(s, 'a', 'z');
}

/* As ECMA-262 has it. */
static void add_space(struct code_set *s)
{
    static const struct code_range spaces[] = {
        {9, 13},          {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
        {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF},
    };
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++)
        add_codes(s, spaces[i].low, spaces[i].high);
}

static void add_class(struct code_set *s, char letter)
{
    struct code_set one = {0};
    if (letter == 'd' || letter == 'D')
        add_digit(&one);
    else if (letter == 'w' || letter == 'W')
        add_word(&one);
    else
        add_space(&one);
    if (letter < 'a')
        negate(&one);
    for (size_t i = 0; i < one.n; i++)
        add_codes(s, one.ranges[i].low, one.ranges[i].high);
}

static int read_hex(struct pattern *p, unsigned digits, uint32_t *ret)
{
    *ret = 0;
    for (unsigned i = 0; i < digits; i++, p->at++) {
        static const char hex[] = "0123456789abcdef";
        const char c = (char)(*p->at >= 'A' && *p->at <= 'F' ? *p->at + 32 : *p->at);
        const char *digit = c == '\0' ? NULL : strchr(hex, c);
        if (digit == NULL)
            return refuse(p, WEFT_EUSAGE, "expected a hexadecimal digit");
        *ret = *ret << 4 | (uint32_t)(digit - hex);
    }
    return 0;
}

/* Behind '\\': a class of characters (*ret_class) or one character. */
static int read_escape(struct pattern *p, struct code_set *s, bool *ret_class, uint32_t *ret_code)
{
    static const char from[] = "nrtfv0", to[] = "\n\r\t\f\v";
    const char c = *p->at;
    const char *at = c == '\0' ? NULL : strchr(from, c);
    *ret_class = c != '\0' && strchr("dDwWsS", c) != NULL;
    if (*ret_class) {
        add_class(s, c);
        p->at++;
        return 0;
    }
    if (at != NULL) {
        *ret_code = (uint8_t)to[at - from];
        p->at++;
        return 0;
    }
    if (c == 'x' || c == 'u') {
        p->at++;
        return read_hex(p, c == 'x' ? 2 : 4, ret_code);
    }
    if (c == '\0')
        return refuse(p, WEFT_EUSAGE, "expected a character behind \\");
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return refuse(
            p, WEFT_EUNSUPPORTED,
            "this escape is not supported (\\d \\w \\s \\D \\W \\S \\n \\r \\t \\f \\v \\0 "
            "\\xHH \\uHHHH are)");
    p->at += weft_utf8_decode(p->at, strlen(p->at), ret_code);
    return 0;
}

/* One end of a range, or a class within a class. */
static int read_member(struct pattern *p, struct code_set *s, bool *ret_class, uint32_t *ret_code)
{
    *ret_class = false;
    if (*p->at == '\\') {
        p->at++;
        return read_escape(p, s, ret_class, ret_code);
    }
    p->at += weft_utf8_decode(p->at, strlen(p->at), ret_code);
    return 0;
}

/* Behind '['. */
static int read_class(struct pattern *p, struct code_set *s)
{
    const bool negated = *p->at == '^';
    p->at += negated;
    while (*p->at != ']') {
        uint32_t low = 0, high = 0;
        bool is_class = false;
        if (*p->at == '\0')
            return refuse(p, WEFT_EUSAGE, "class without closing ]");
        int r = read_member(p, s, &is_class, &low);
        if (r < 0)
            return r;
        if (is_class)
            continue;
        high = low;
        if (p->at[0] == '-' && p->at[1] != ']' && p->at[1] != '\0') {
            p->at++;
            if ((r = read_member(p, s, &is_class, &high)) < 0)
                return r;
            if (is_class || high < low)
                return refuse(p, WEFT_EUSAGE, "range that does not rise");
        }
        add_codes(s, low, high);
    }
    p->at++;
    if (negated)
        negate(s);
    return 0;
}

static int print_class(struct pattern *p, const struct code_set *s)
{
    size_t parts = 0;
    if (s->failed)
        return refuse(p, WEFT_ELIMIT, "class of more than 256 ranges");
    print_set(p->body, s, &parts);
    return parts > 0 ? 0 : refuse(p, WEFT_EUNSUPPORTED, "class without any character of a text");
}

static int parse_alternatives(struct pattern *p, bool top);

static int parse_group(struct pattern *p)
{
    if (p->nesting == NESTING_MAX)
        return refuse(p, WEFT_ELIMIT, "groups nested more than 32 deep");
    if (*p->at == '?') {
        if (p->at[1] != ':')
            return refuse(p, WEFT_EUNSUPPORTED,
                          "groups that look ahead or behind, or have a name, are not supported");
        p->at += 2;
    }
    p->nesting++;
    weft_str_adds(p->body, "(");
    int r = parse_alternatives(p, false);
    weft_str_adds(p->body, ")");
    p->nesting--;
    if (r < 0)
        return r;
    if (*p->at != ')')
        return refuse(p, WEFT_EUSAGE, "group without closing )");
    p->at++;
    return 0;
}

/* One character, class or group. */
static int parse_atom(struct pattern *p)
{
    struct code_set set = {0};
    bool is_class = false;
    uint32_t code = 0;
    int r = 0;
    switch (*p->at) {
    case '(':
        p->at++;
        return parse_group(p);
    case '[':
        p->at++;
        r = read_class(p, &set);
        break;
    case '.': /* not the ends of lines */
        p->at++;
        add_codes(&set, '\n', '\n');
        add_codes(&set, '\r', '\r');
        add_codes(&set, 0x2028, 0x2029);
        negate(&set);
        break;
    case '^':
    case '$':
        return refuse(p, WEFT_EUNSUPPORTED,
                      "^ and $ are supported only at the ends of the pattern's alternatives");
    case '*':
    case '+':
    case '?':
    case '{':
        return refuse(p, WEFT_EUSAGE, "nothing to repeat");
    default:
        r = read_member(p, &set, &is_class, &code);
        if (r == 0 && !is_class)
            add_codes(&set, code, code);
    }
    return r < 0 ? r : print_class(p, &set);
}

static int parse_quantifier(struct pattern *p)
{
    const char c = *p->at;
    if (c == '*' || c == '+' || c == '?') {
        weft_str_addf(p->body, "%c", c);
        p->at++;
    } else if (c == '{') {
        const size_t n = strspn(p->at + 1, "0123456789,");
        char *end = NULL;
        const unsigned long min = strtoul(p->at + 1, &end, 10);
        unsigned long max = min;
        if (p->at[1] < '0' || p->at[1] > '9' || p->at[n + 1] != '}')
            return refuse(p, WEFT_EUSAGE, "expected {m}, {m,} or {m,n}");
        bool any = *end == ',' && end[1] == '}';
        if (*end == ',' && !any)
            max = strtoul(end + 1, &end, 10);
        if (any)
            end++;
        if (*end != '}' || max < min)
            return refuse(p, WEFT_EUSAGE, "expected {m}, {m,} or {m,n}");
        if (max > WEFT_JSON_SCHEMA_COUNT_MAX)
            return refuse(p, WEFT_ELIMIT, "more than 16384 repetitions");
        weft_schema_repeat(p->body, (uint32_t)min, any ? WEFT_SCHEMA_ANY : (uint32_t)max);
        p->at = end + 1;
    } else {
        return 0;
    }
    if (*p->at == '?') /* lazy: the same texts */
        p->at++;
    else if (*p->at == '+' || *p->at == '*' || *p->at == '{')
        return refuse(p, WEFT_EUNSUPPORTED, "two quantifiers in a row");
    return 0;
}

/* Alternatives; at the top each without ^ or $ may stand anywhere in the string. */
static int parse_alternatives(struct pattern *p, bool top)
{
    for (;;) {
        int r = 0;
        if (top && *p->at == '^')
            p->at++;
        else if (top)
            weft_str_adds(p->body, "char* ");
        bool ended = false;
        while (r == 0 && *p->at != '\0' && *p->at != '|' && *p->at != ')' && !ended) {
            if (top && p->at[0] == '$' && (p->at[1] == '\0' || p->at[1] == '|')) {
                ended = true;
                p->at++;
            } else if ((r = parse_atom(p)) == 0) {
                r = parse_quantifier(p);
                weft_str_adds(p->body, " ");
            }
        }
        if (r < 0)
            return r;
        if (top && !ended)
            weft_str_adds(p->body, "char*");
        if (*p->at != '|')
            return 0;
        p->at++;
        weft_str_adds(p->body, " | ");
    }
}

int weft_schema_pattern(struct weft_schema *c, const char *pattern, struct weft_str *body)
{
    struct pattern p = {.c = c, .text = pattern, .at = pattern, .body = body};
    weft_str_adds(body, "\"\\\"\" (");
    int r = parse_alternatives(&p, true);
    if (r == 0 && *p.at != '\0')
        r = refuse(&p, WEFT_EUSAGE, ") without (");
    weft_str_adds(body, ") \"\\\"\"");
    return r;
}

/* ---- strings ---- */

int weft_schema_string(struct weft_schema *c, const json_t *schema, struct weft_str *body)
{
    static const char *const formats[] = {"date", "time", "date-time", "uuid"};
    const json_t *pattern = json_object_get(schema, "pattern");
    const json_t *format = json_object_get(schema, "format");
    char quoted[WEFT_QUOTE_SIZE];
    uint32_t min = 0, max = WEFT_SCHEMA_ANY;
    int r = weft_schema_count(c, schema, "minLength", false, &min);
    if (r == 0)
        r = weft_schema_count(c, schema, "maxLength", true, &max);
    if (r < 0)
        return r;
    const bool length = min > 0 || max != WEFT_SCHEMA_ANY;
    if (max < min)
        return weft_schema_refuse(c, WEFT_EUSAGE, "'minLength' is more than 'maxLength'");
    if ((pattern != NULL) + (format != NULL) + length > 1)
        return weft_schema_refuse(c, WEFT_EUNSUPPORTED,
                                  "two of 'pattern', 'format' and a length in one schema");
    if (pattern != NULL) {
        if (!json_is_string(pattern))
            return weft_schema_refuse(c, WEFT_EUSAGE, "'pattern' is no text");
        return weft_schema_pattern(c, json_string_value(pattern), body);
    }
    if (format != NULL) {
        const char *name = json_is_string(format) ? json_string_value(format) : "";
        for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
            if (strcmp(name, formats[i]) == 0) {
                weft_str_addf(body, "\"\\\"\" %s \"\\\"\"", name);
                return 0;
            }
        return weft_schema_refuse(c, WEFT_EUNSUPPORTED,
                                  "'format' %s is not supported (date, time, date-time, uuid are)",
                                  weft_quote(quoted, sizeof quoted, name, strlen(name)));
    }
    if (!length) {
        weft_str_adds(body, "string");
        return 0;
    }
    weft_str_adds(body, "\"\\\"\" char");
    weft_schema_repeat(body, min, max);
    weft_str_adds(body, " \"\\\"\"");
    return 0;
}
