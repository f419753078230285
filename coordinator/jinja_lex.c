/*
 * Lexer of templates, see jinja_lex.h.
 */
#include "coordinator/jinja_lex.h"

#include <stdio.h>
#include <string.h>

void jinja_complain(const struct jinja_source *s, size_t at, int code, weft_err *err,
                    const char *fmt, va_list args)
{
    char what[512];
    size_t line = 1, column = 1; /* in characters */
    for (size_t i = 0; i < at && i < s->size; i++) {
        const bool newline = s->text[i] == '\n';
        line += newline;
        column = newline ? 1 : column + (((uint8_t)s->text[i] & 0xC0) != 0x80);
    }
    vsnprintf(what, sizeof what, fmt, args);
    what[weft_utf8_prefix(what, strlen(what))] = '\0'; /* not cut inside a character */
    (void)weft_fail(err, code, "chat template %zu:%zu: %s", line, column, what);
}

int(jinja_lex_refuse)(const struct jinja_lexer *l, size_t at, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    jinja_complain(l->source, at, WEFT_EUNSUPPORTED, l->err, fmt, args);
    va_end(args);
    return -WEFT_EUNSUPPORTED;
}

const char *jinja_token_show(const struct jinja_token *token, char buf[static WEFT_QUOTE_SIZE])
{
    static const char *const kinds[] = {
        [JINJA_TOKEN_END] = "the end of the tag",
        [JINJA_TOKEN_STRING] = "a string",
        [JINJA_TOKEN_INT] = "a number",
        [JINJA_TOKEN_FLOAT] = "a number",
    };
    if (token->kind != JINJA_TOKEN_NAME && token->kind != JINJA_TOKEN_SIGN)
        return kinds[token->kind];
    if (token->size == 1 && (token->text[0] <= ' ' || token->text[0] > '~'))
        snprintf(buf, WEFT_QUOTE_SIZE, "byte 0x%02X", (unsigned)(uint8_t)token->text[0]);
    else
        weft_quote(buf, WEFT_QUOTE_SIZE, token->text, token->size);
    return buf;
}

bool jinja_token_is(const struct jinja_token *token, const char *text)
{
    return (token->kind == JINJA_TOKEN_NAME || token->kind == JINJA_TOKEN_SIGN) &&
           token->size == strlen(text) && memcmp(token->text, text, token->size) == 0;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Of a name; whatever is not ASCII counts as a letter. */
static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c) ||
           (uint8_t)c >= 0x80;
}

static bool at_text(const struct jinja_lexer *l, size_t at, const char *text)
{
    const size_t n = strlen(text);
    return at <= l->n && n <= l->n - at && memcmp(l->s + at, text, n) == 0;
}

static void set_token(struct jinja_lexer *l, enum jinja_token_kind kind, size_t start, size_t size)
{
    l->token = (struct jinja_token){kind, (uint32_t)start, l->s + start, size};
    l->at = start + size;
}

static int next_string(struct jinja_lexer *l)
{
    const size_t start = l->at;
    size_t i = start + 1;
    while (i < l->n && l->s[i] != l->s[start])
        i += l->s[i] == '\\' ? 2 : 1;
    if (i >= l->n)
        return jinja_lex_refuse(l, start, "string without an end");
    l->token =
        (struct jinja_token){JINJA_TOKEN_STRING, (uint32_t)start, l->s + start + 1, i - start - 1};
    l->at = i + 1;
    return 0;
}

/* 12, 1_000, 0x1F, 1.5, 1e-3: what it means is read by the parser. */
static void next_number(struct jinja_lexer *l)
{
    const size_t start = l->at;
    size_t i = start;
    bool real = false;
    while (i < l->n && is_name(l->s[i]) && (uint8_t)l->s[i] < 0x80)
        i++;
    const bool member = l->s[start - 1] == '.'; /* list.1.0; a tag has opened before it */
    if (!member && i + 1 < l->n && l->s[i] == '.' && is_digit(l->s[i + 1])) {
        real = true;
        i++;
        while (i < l->n &&
               (is_digit(l->s[i]) || l->s[i] == '_' || l->s[i] == 'e' || l->s[i] == 'E'))
            i++;
    }
    const bool prefixed = l->s[start] == '0' && i - start > 1 && !is_digit(l->s[start + 1]) &&
                          l->s[start + 1] != '_' && !real;
    if (!prefixed && i > start && (l->s[i - 1] == 'e' || l->s[i - 1] == 'E') && i + 1 < l->n &&
        (l->s[i] == '-' || l->s[i] == '+') && is_digit(l->s[i + 1])) {
        i++;
        while (i < l->n && (is_digit(l->s[i]) || l->s[i] == '_'))
            i++;
        real = true;
    }
    if (!prefixed && (memchr(l->s + start, 'e', i - start) != NULL ||
                      memchr(l->s + start, 'E', i - start) != NULL))
        real = true;
    set_token(l, real ? JINJA_TOKEN_FLOAT : JINJA_TOKEN_INT, start, i - start);
}

static void next_sign(struct jinja_lexer *l)
{
    static const char *const pairs[] = {"==", "!=", "<=", ">=", "//", "**"};
    const size_t start = l->at;
    size_t size = 1;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        size = at_text(l, start, pairs[i]) ? 2 : size;
    if (size == 1 && strchr("([{", l->s[start]) != NULL)
        l->brackets++;
    else if (size == 1 && strchr(")]}", l->s[start]) != NULL && l->brackets > 0)
        l->brackets--;
    set_token(l, JINJA_TOKEN_SIGN, start, size);
}

int jinja_lex_next(struct jinja_lexer *l)
{
    const char *close = l->variable ? "}}" : "%}";
    while (l->at < l->n && is_space(l->s[l->at]))
        l->at++;
    const size_t start = l->at;
    if (start == l->n)
        return jinja_lex_refuse(l, start, "found the end of the template, expected '%s'", close);
    const char c = l->s[start];
    const bool sign = c == '-' || (c == '+' && !l->variable);
    if (l->brackets == 0 && (at_text(l, start, close) || (sign && at_text(l, start + 1, close)))) {
        l->token = (struct jinja_token){JINJA_TOKEN_END, (uint32_t)start, l->s + start, 2};
        return 0;
    }
    if (c == '\'' || c == '"')
        return next_string(l);
    if (is_digit(c)) {
        next_number(l);
    } else if (is_name(c)) {
        size_t size = 1;
        while (start + size < l->n && is_name(l->s[start + size]))
            size++;
        set_token(l, JINJA_TOKEN_NAME, start, size);
    } else if (c == '\0') {
        return jinja_lex_refuse(l, start, "found byte 0x00");
    } else {
        next_sign(l);
    }
    return 0;
}

int jinja_lex_peek(struct jinja_lexer *l, struct jinja_token *ret)
{
    const struct jinja_lexer before = *l;
    int r = jinja_lex_next(l);
    *ret = l->token;
    *l = before;
    return r;
}

/* Behind a sign that may be there and the two characters that end a tag. */
static void close_tag(struct jinja_lexer *l, bool trims)
{
    const char sign = l->s[l->at];
    l->at += sign == '-' || sign == '+' ? 3 : 2;
    if (sign == '-') {
        while (l->at < l->n && is_space(l->s[l->at]))
            l->at++;
    } else if (trims && sign != '+' && at_text(l, l->at, "\n")) {
        l->at++; /* trim_blocks */
    }
}

void jinja_lex_close(struct jinja_lexer *l)
{
    close_tag(l, !l->variable);
}

/* The end of text that starts at `start`, before a tag at `open`. */
static size_t text_end(const struct jinja_lexer *l, size_t start, size_t open)
{
    const char kind = l->s[open + 1], sign = open + 2 < l->n ? l->s[open + 2] : '\0';
    size_t end = open;
    if (sign == '-') {
        while (end > start && is_space(l->s[end - 1]))
            end--;
    } else if (kind != '{' && sign != '+') {
        size_t line = open; /* lstrip_blocks: only white space before it on its line */
        while (line > start && l->s[line - 1] != '\n' && is_space(l->s[line - 1]))
            line--;
        if (line == 0 || l->s[line - 1] == '\n')
            end = line;
    }
    return end;
}

char jinja_lex_text(struct jinja_lexer *l, size_t *ret_start, size_t *ret_size)
{
    const size_t start = l->at;
    size_t open = start;
    while (open < l->n && !at_text(l, open, "{{") && !at_text(l, open, "{%") &&
           !at_text(l, open, "{#"))
        open++;
    *ret_start = start;
    *ret_size = open - start;
    l->at = open;
    l->brackets = 0;
    if (open == l->n)
        return '\0';
    const char kind = l->s[open + 1], sign = open + 2 < l->n ? l->s[open + 2] : '\0';
    *ret_size = text_end(l, start, open) - start;
    l->at += sign == '-' || (sign == '+' && kind != '{') ? 3 : 2;
    return kind;
}

int jinja_lex_comment(struct jinja_lexer *l)
{
    const size_t start = l->at;
    while (l->at < l->n && !at_text(l, l->at, "#}"))
        l->at++;
    if (l->at == l->n)
        return jinja_lex_refuse(l, start, "comment without an end");
    if (l->at > start && (l->s[l->at - 1] == '-' || l->s[l->at - 1] == '+'))
        l->at--;
    close_tag(l, true);
    return 0;
}

/* Where the tag `{% name %}` at `at` has its name's end; 0 when it is no such tag. */
static size_t behind_name(const struct jinja_lexer *l, size_t at, const char *name)
{
    while (at < l->n && is_space(l->s[at]))
        at++;
    if (!at_text(l, at, name))
        return 0;
    at += strlen(name);
    while (at < l->n && is_space(l->s[at]))
        at++;
    const bool sign = at < l->n && (l->s[at] == '-' || l->s[at] == '+');
    return at_text(l, at + sign, "%}") ? at : 0;
}

int jinja_lex_raw(struct jinja_lexer *l, bool *ret_raw, size_t *ret_start, size_t *ret_size)
{
    const size_t tag = l->at;
    size_t at = behind_name(l, tag, "raw");
    *ret_raw = at != 0 && l->s[at] != '+';
    if (!*ret_raw)
        return 0;
    l->at = at;
    close_tag(l, false); /* Jinja keeps the line end behind it */
    const size_t start = l->at;
    for (size_t open = start; open < l->n; open++) {
        if (!at_text(l, open, "{%"))
            continue;
        const size_t signs = open + 2 < l->n && strchr("-+", l->s[open + 2]) != NULL ? 1 : 0;
        at = behind_name(l, open + 2 + signs, "endraw");
        if (at == 0)
            continue;
        *ret_start = start;
        *ret_size = text_end(l, start, open) - start;
        l->at = at;
        close_tag(l, true);
        return 0;
    }
    return jinja_lex_refuse(l, tag, "'raw' block without an end");
}
