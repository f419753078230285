/*
 * GBNF: recursive descent over the text, straight into rules.
 *
 * Invariant: b->at never passes b->n; what is not understood is refused at its line and column. The
 * depth of recursion is that of groups.
 */
#include "base/grammar_private.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#define CODE_MAX 0x10FFFFu

int weft_grammar_refuse(struct weft_grammar_builder *b, int code, size_t at, const char *fmt, ...)
{
    char text[512];
    size_t line = 1, column = 1;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    for (size_t i = 0; i < at && i < b->n; i++) {
        if (b->text[i] == '\n') {
            line++;
            column = 1;
        } else if (((uint8_t)b->text[i] & 0xC0) != 0x80) { /* columns count characters */
            column++;
        }
    }
    return weft_fail(b->err, code, "grammar:%zu:%zu: %s", line, column, text);
}

static bool at_end(const struct weft_grammar_builder *b)
{
    return b->at == b->n;
}

static bool is(const struct weft_grammar_builder *b, char c)
{
    return b->at < b->n && b->text[b->at] == c;
}

static bool take(struct weft_grammar_builder *b, char c)
{
    if (!is(b, c))
        return false;
    b->at++;
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '-' || c == '_';
}

/* "found X, expected what" at the place where the text is. */
static int expected(struct weft_grammar_builder *b, const char *what)
{
    char quoted[WEFT_QUOTE_SIZE];
    if (at_end(b))
        return weft_grammar_refuse(b, WEFT_EUSAGE, b->at, "found the end, expected %s", what);
    uint32_t code;
    size_t n = weft_utf8_decode(b->text + b->at, b->n - b->at, &code);
    if (is(b, '\n') || is(b, '\r'))
        return weft_grammar_refuse(b, WEFT_EUSAGE, b->at, "found the end of the line, expected %s",
                                   what);
    weft_quote(quoted, sizeof quoted, b->text + b->at, n == 0 ? 1 : n);
    return weft_grammar_refuse(b, WEFT_EUSAGE, b->at, "found %s, expected %s", quoted, what);
}

static void skip_space(struct weft_grammar_builder *b, bool newlines)
{
    for (;;) {
        if (is(b, '#'))
            while (!at_end(b) && !is(b, '\n'))
                b->at++;
        else if (is(b, ' ') || is(b, '\t') || (newlines && (is(b, '\n') || is(b, '\r'))))
            b->at++;
        else
            return;
    }
}

/* ---- characters ---- */

static int read_hex(struct weft_grammar_builder *b, unsigned digits, uint32_t *ret_code)
{
    const size_t start = b->at - 2;
    uint64_t value = 0;
    for (unsigned i = 0; i < digits; i++, b->at++) {
        const char c = at_end(b) ? '\0' : b->text[b->at];
        if (is_digit(c))
            value = value << 4 | (uint64_t)(c - '0');
        else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
            value = value << 4 | (uint64_t)((c | 0x20) - 'a' + 10);
        else
            return expected(b, "a hexadecimal digit of an escape");
    }
    if (value > CODE_MAX || (value >= 0xD800 && value <= 0xDFFF))
        return weft_grammar_refuse(b, WEFT_EUSAGE, start,
                                   "escape of U+%04llX, which is no Unicode character",
                                   (unsigned long long)value);
    *ret_code = (uint32_t)value;
    return 0;
}

/* One character of a literal or class, with its escape. */
static int read_character(struct weft_grammar_builder *b, uint32_t *ret_code)
{
    static const char from[] = "nrt\\\"[]", to[] = "\n\r\t\\\"[]";
    if (!take(b, '\\')) {
        size_t n = weft_utf8_decode(b->text + b->at, b->n - b->at, ret_code);
        b->at += n;
        return n == 0 ? weft_grammar_refuse(b, WEFT_EUSAGE, b->at, "found a byte that is no UTF-8")
                      : 0;
    }
    const char c = at_end(b) ? '\0' : b->text[b->at];
    const char *at = c == '\0' ? NULL : memchr(from, c, sizeof from - 1);
    if (at != NULL) {
        *ret_code = (uint8_t)to[at - from];
        b->at++;
        return 0;
    }
    if (c != 'x' && c != 'u' && c != 'U')
        return expected(b, "an escape: \\n \\r \\t \\\\ \\\" \\[ \\] \\xHH \\uHHHH \\UHHHHHHHH");
    b->at++;
    return read_hex(b, c == 'x' ? 2 : c == 'u' ? 4 : 8, ret_code);
}

static int parse_literal(struct weft_grammar_builder *b)
{
    const size_t start = b->at - 1; /* of the quote */
    while (!take(b, '"')) {
        uint32_t code;
        uint8_t utf8[4];
        if (at_end(b))
            return weft_grammar_refuse(b, WEFT_EUSAGE, start, "literal without closing \"");
        int r = read_character(b, &code);
        if (r < 0)
            return r;
        const unsigned n = weft_build_encode(code, utf8);
        for (unsigned i = 0; i < n; i++)
            if ((r = weft_build_push(b, WEFT_SYMBOL_SET + utf8[i])) < 0)
                return r;
    }
    return 0;
}

/* Behind '['. */
static int parse_class(struct weft_grammar_builder *b)
{
    const size_t start = b->at - 1;
    struct weft_code_range *ranges = NULL;
    size_t n = 0, capacity = 0;
    const bool negated = take(b, '^');
    int r = 0;
    while (r == 0 && !take(b, ']')) {
        struct weft_code_range range;
        const size_t at = b->at;
        if (at_end(b)) {
            r = weft_grammar_refuse(b, WEFT_EUSAGE, start, "class without closing ]");
            break;
        }
        if ((r = read_character(b, &range.low)) < 0)
            break;
        range.high = range.low;
        if (is(b, '-') && b->at + 1 < b->n && b->text[b->at + 1] != ']') {
            b->at++;
            if ((r = read_character(b, &range.high)) < 0)
                break;
            if (range.low > range.high) {
                r = weft_grammar_refuse(b, WEFT_EUSAGE, at, "range from U+%04X down to U+%04X",
                                        range.low, range.high);
                break;
            }
        }
        r = weft_grammar_grow(&ranges, &capacity, n, 1, sizeof *ranges, b->err);
        if (r == 0)
            ranges[n++] = range;
    }
    if (r == 0)
        r = weft_build_class(b, ranges, n, negated, start);
    free(ranges);
    return r;
}

static int parse_any(struct weft_grammar_builder *b)
{
    struct weft_code_range all = {.low = 0, .high = CODE_MAX};
    return weft_build_class(b, &all, 1, false, b->at - 1);
}

/* ---- names ---- */

struct name_key {
    const struct weft_grammar_builder *b;
    const char *text;
    size_t size;
};

static bool equal_name(const void *ctx, uint32_t id)
{
    const struct name_key *key = ctx;
    const struct weft_name *name = &key->b->by_name[id];
    return name->size == key->size && memcmp(name->text, key->text, key->size) == 0;
}

/* The rule of the name text[at..at+size), made when it is new. */
static int find_rule(struct weft_grammar_builder *b, size_t at, size_t size, uint32_t *ret_rule)
{
    const struct name_key key = {.b = b, .text = b->text + at, .size = size};
    const uint32_t hash = weft_intern_hash(key.text, size);
    uint32_t id = weft_intern_find(&b->names, hash, equal_name, &key), rule = 0;
    if (id == WEFT_INTERN_NONE) {
        id = (uint32_t)b->n_names;
        int r = weft_build_rule(b, at, &rule);
        if (r < 0 ||
            (r = weft_grammar_grow(&b->by_name, &b->names_capacity, b->n_names, 1,
                                   sizeof *b->by_name, b->err)) < 0 ||
            (r = weft_intern_add(&b->names, hash, id, b->err)) < 0)
            return r;
        b->by_name[b->n_names++] = (struct weft_name){.text = key.text, .size = size, .rule = rule};
    }
    *ret_rule = b->by_name[id].rule;
    return 0;
}

static size_t word_size(const struct weft_grammar_builder *b)
{
    size_t n = 0;
    while (b->at + n < b->n && is_word(b->text[b->at + n]))
        n++;
    return n;
}

/* ---- rules ---- */

static int parse_alternatives(struct weft_grammar_builder *b, uint32_t rule, bool nested);

/* Behind '('. */
static int parse_group(struct weft_grammar_builder *b)
{
    const size_t start = b->at - 1;
    uint32_t rule = 0;
    if (b->nesting == WEFT_GRAMMAR_NESTING_MAX)
        return weft_grammar_refuse(b, WEFT_ELIMIT, start, "groups nested more than %u deep",
                                   WEFT_GRAMMAR_NESTING_MAX);
    int r = weft_build_rule(b, start, &rule);
    b->nesting++;
    if (r < 0 || (r = parse_alternatives(b, rule, true)) < 0)
        return r;
    b->nesting--;
    if (!take(b, ')'))
        return expected(b, "more of a group or ')'");
    return weft_build_push(b, WEFT_SYMBOL_RULE | rule);
}

static int read_count(struct weft_grammar_builder *b, uint32_t *ret)
{
    const size_t start = b->at;
    uint32_t value = 0;
    if (at_end(b) || !is_digit(b->text[b->at]))
        return expected(b, "a number of repetitions");
    for (; !at_end(b) && is_digit(b->text[b->at]); b->at++) {
        value = 10 * value + (uint32_t)(b->text[b->at] - '0');
        if (value > WEFT_GRAMMAR_REPEAT_MAX)
            return weft_grammar_refuse(b, WEFT_ELIMIT, start, "more than %u repetitions",
                                       WEFT_GRAMMAR_REPEAT_MAX);
    }
    *ret = value;
    return 0;
}

/* Behind '{': m}, m,} or m,n}. */
static int read_counts(struct weft_grammar_builder *b, bool nested, uint32_t *ret_min,
                       uint32_t *ret_max)
{
    const size_t start = b->at;
    skip_space(b, nested);
    int r = read_count(b, ret_min);
    if (r < 0)
        return r;
    *ret_max = *ret_min;
    skip_space(b, nested);
    if (take(b, ',')) {
        skip_space(b, nested);
        *ret_max = WEFT_REPEAT_ANY;
        if (!is(b, '}') && (r = read_count(b, ret_max)) < 0)
            return r;
        skip_space(b, nested);
    }
    if (!take(b, '}'))
        return expected(b, "'}'");
    if (*ret_max < *ret_min)
        return weft_grammar_refuse(b, WEFT_EUSAGE, start, "at least %u and at most %u repetitions",
                                   *ret_min, *ret_max);
    return 0;
}

/* The repetitions behind an item, whose symbols lie above `bottom`. */
static int parse_repetitions(struct weft_grammar_builder *b, size_t bottom, bool nested)
{
    int r = 0;
    skip_space(b, nested);
    while (r == 0) {
        const size_t at = b->at;
        uint32_t min = 0, max = WEFT_REPEAT_ANY;
        if (take(b, '?'))
            max = 1;
        else if (take(b, '+'))
            min = 1;
        else if (take(b, '{'))
            r = read_counts(b, nested, &min, &max);
        else if (!take(b, '*'))
            return 0;
        if (r == 0)
            r = weft_build_repeat(b, bottom, min, max, at);
        skip_space(b, nested);
    }
    return r;
}

static int parse_reference(struct weft_grammar_builder *b, size_t size)
{
    uint32_t rule = 0;
    int r = find_rule(b, b->at, size, &rule);
    b->at += size;
    return r < 0 ? r : weft_build_push(b, WEFT_SYMBOL_RULE | rule);
}

static int parse_sequence(struct weft_grammar_builder *b, bool nested)
{
    for (int r = 0;;) {
        const size_t bottom = b->n_stack, size = word_size(b);
        if (size > 0)
            r = parse_reference(b, size);
        else if (take(b, '"'))
            r = parse_literal(b);
        else if (take(b, '['))
            r = parse_class(b);
        else if (take(b, '.'))
            r = parse_any(b);
        else if (take(b, '('))
            r = parse_group(b);
        else if (is(b, '<') || is(b, '!'))
            return weft_grammar_refuse(b, WEFT_EUSAGE, b->at,
                                       "tokens such as <think> are not supported in grammars, "
                                       "write the text they stand for");
        else if (is(b, '*') || is(b, '+') || is(b, '?') || is(b, '{'))
            return expected(b, "something to repeat before it");
        else
            return 0;
        if (r < 0 || (r = parse_repetitions(b, bottom, nested)) < 0)
            return r;
    }
}

/* True when the next line goes on with '|', which is then where the text is. */
static bool continues(struct weft_grammar_builder *b)
{
    const size_t at = b->at;
    skip_space(b, true);
    if (is(b, '|'))
        return true;
    b->at = at;
    return false;
}

static int parse_alternatives(struct weft_grammar_builder *b, uint32_t rule, bool nested)
{
    const size_t bottom = b->n_stack;
    skip_space(b, true);
    int r = parse_sequence(b, nested);
    while (r == 0 && continues(b)) {
        b->at++;
        skip_space(b, true);
        if ((r = weft_build_push(b, WEFT_SYMBOL_END)) == 0)
            r = parse_sequence(b, nested);
    }
    return r < 0 ? r : weft_build_define(b, rule, bottom);
}

static int parse_rule(struct weft_grammar_builder *b)
{
    const size_t at = b->at, size = word_size(b);
    char quoted[WEFT_QUOTE_SIZE];
    uint32_t rule = 0;
    if (size == 0)
        return expected(b, "the name of a rule");
    int r = find_rule(b, at, size, &rule);
    if (r < 0)
        return r;
    weft_quote(quoted, sizeof quoted, b->text + at, size);
    if (b->g->rules[rule].defined)
        return weft_grammar_refuse(b, WEFT_EUSAGE, at, "rule %s is defined twice", quoted);
    b->g->rules[rule].at = (uint32_t)at;
    b->at += size;
    skip_space(b, false);
    if (b->n - b->at < 3 || memcmp(b->text + b->at, "::=", 3) != 0)
        return expected(b, "'::='");
    b->at += 3;
    /* its last line may be followed by the next rule's name: no sequence goes over a newline */
    if ((r = parse_alternatives(b, rule, false)) < 0)
        return r;
    if (!at_end(b) && !is(b, '\n') && !is(b, '\r'))
        return expected(b, "more of a rule or the end of the line");
    skip_space(b, true);
    return 0;
}

int weft_grammar_parse(struct weft_grammar_builder *b)
{
    char quoted[WEFT_QUOTE_SIZE];
    const struct weft_grammar *g = b->g;
    int r = 0;
    skip_space(b, true);
    while (r == 0 && !at_end(b))
        r = parse_rule(b);
    for (size_t i = 0; i < b->n_names && r == 0; i++) {
        const struct weft_name *name = &b->by_name[i];
        const struct weft_rule *rule = &g->rules[name->rule];
        weft_quote(quoted, sizeof quoted, name->text, name->size);
        if (!rule->defined)
            r = weft_grammar_refuse(b, WEFT_EUSAGE, rule->at, "rule %s is not defined", quoted);
    }
    const struct name_key key = {.b = b, .text = "root", .size = 4};
    const uint32_t id = weft_intern_find(&b->names, weft_intern_hash("root", 4), equal_name, &key);
    if (r == 0 && id == WEFT_INTERN_NONE)
        r = weft_fail(b->err, WEFT_EUSAGE, "grammar: rule 'root' is missing, the text as a whole");
    if (r == 0)
        b->g->root = b->by_name[id].rule;
    return r;
}
