/*
 * Lexer of chat templates, see template_lex.h.
 */
#include "coordinator/template_lex.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void weft_template_complain(const struct weft_template *t, size_t at, weft_err *err,
                            const char *fmt, ...)
{
    char what[256];
    size_t line = 1, column = 1; /* in characters */
    va_list args;
    for (size_t i = 0; i < at && i < t->source_size; i++) {
        bool newline = t->source[i] == '\n';
        line += newline;
        column = newline ? 1 : column + (((uint8_t)t->source[i] & 0xC0) != 0x80);
    }
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    (void)weft_fail(err, WEFT_EUNSUPPORTED,
                    "chat template:%zu:%zu: %s; use --raw to send a prompt without the template",
                    line, column, what);
}

#define refuse(l, at, ...) weft_template_refuse((l)->t, (at), (l)->err, __VA_ARGS__)

const char *weft_lex_show(const struct weft_lex_token *token, char buf[static 64])
{
    static const char *const kinds[] = {
        [WEFT_LEX_END] = "the end of the tag",
        [WEFT_LEX_STRING] = "a string",
        [WEFT_LEX_INT] = "a number",
    };
    if (token->kind != WEFT_LEX_NAME && token->kind != WEFT_LEX_PUNCT)
        return kinds[token->kind];
    if (token->size == 1 && (token->text[0] <= ' ' || token->text[0] > '~'))
        snprintf(buf, 64, "byte 0x%02X", (unsigned)(uint8_t)token->text[0]);
    else
        snprintf(buf, 64, "'%.*s'", token->size < 48 ? (int)token->size : 48, token->text);
    return buf;
}

bool weft_lex_is(const struct weft_lex_token *token, const char *text)
{
    return (token->kind == WEFT_LEX_NAME || token->kind == WEFT_LEX_PUNCT) &&
           token->size == strlen(text) && memcmp(token->text, text, token->size) == 0;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool weft_lex_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || weft_lex_is_digit(c);
}

static bool at_text(const struct weft_lexer *l, size_t at, const char *text)
{
    size_t n = strlen(text);
    return at <= l->n && n <= l->n - at && memcmp(l->s + at, text, n) == 0;
}

static int next_string(struct weft_lexer *l)
{
    size_t start = l->at, i = start + 1;
    while (i < l->n && l->s[i] != l->s[start])
        i += l->s[i] == '\\' ? 2 : 1;
    if (i >= l->n)
        return refuse(l, start, "string without an end");
    l->token =
        (struct weft_lex_token){WEFT_LEX_STRING, (uint32_t)start, l->s + start + 1, i - start - 1};
    l->at = i + 1;
    return 0;
}

int weft_lex_next(struct weft_lexer *l)
{
    static const char *const pairs[] = {"==", "!=", "<=", ">=", "//", "**"};
    const char *close = l->variable ? "}}" : "%}";
    while (l->at < l->n && is_space(l->s[l->at]))
        l->at++;
    size_t start = l->at, size = 1;
    if (start == l->n)
        return refuse(l, start, "found the end of the template, expected '%s'", close);
    char c = l->s[start];
    bool sign = c == '-' || (c == '+' && !l->variable);
    if (at_text(l, start, close) || (sign && at_text(l, start + 1, close))) {
        l->token = (struct weft_lex_token){WEFT_LEX_END, (uint32_t)start, l->s + start, 2};
        return 0;
    }
    if (c == '\'' || c == '"')
        return next_string(l);
    enum weft_lex_kind kind = weft_lex_is_digit(c) ? WEFT_LEX_INT
                              : is_name(c)         ? WEFT_LEX_NAME
                                                   : WEFT_LEX_PUNCT;
    if (kind == WEFT_LEX_PUNCT) {
        for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
            size = at_text(l, start, pairs[i]) ? 2 : size;
    } else {
        while (start + size < l->n && is_name(l->s[start + size]))
            size++;
    }
    l->token = (struct weft_lex_token){kind, (uint32_t)start, l->s + start, size};
    l->at = start + size;
    return 0;
}

void weft_lex_close(struct weft_lexer *l, bool block)
{
    char sign = l->s[l->at];
    l->at += sign == '-' || sign == '+' ? 3 : 2;
    if (sign == '-') {
        while (l->at < l->n && is_space(l->s[l->at]))
            l->at++;
    } else if (block && sign != '+' && at_text(l, l->at, "\n")) {
        l->at++; /* trim_blocks */
    }
}

char weft_lex_text(struct weft_lexer *l, struct weft_span *ret)
{
    size_t start = l->at, open = start;
    while (open < l->n && !at_text(l, open, "{{") && !at_text(l, open, "{%") &&
           !at_text(l, open, "{#"))
        open++;
    char kind = open < l->n ? l->s[open + 1] : '\0';
    char sign = open + 2 < l->n ? l->s[open + 2] : '\0';
    size_t end = open;
    if (kind != '\0' && sign == '-') {
        while (end > start && is_space(l->s[end - 1]))
            end--;
    } else if ((kind == '%' || kind == '#') && sign != '+') {
        size_t line = open; /* lstrip_blocks: only white space before it on its line */
        while (line > start && (l->s[line - 1] == ' ' || l->s[line - 1] == '\t'))
            line--;
        if (line == 0 || l->s[line - 1] == '\n')
            end = line;
    }
    l->at = open;
    if (kind != '\0')
        l->at += sign == '-' || sign == '+' ? 3 : 2;
    *ret = (struct weft_span){start, end - start};
    return kind;
}

int weft_lex_comment(struct weft_lexer *l)
{
    size_t start = l->at;
    while (l->at < l->n && !at_text(l, l->at, "#}"))
        l->at++;
    if (l->at == l->n)
        return refuse(l, start, "comment without an end");
    if (l->at > start && (l->s[l->at - 1] == '-' || l->s[l->at - 1] == '+'))
        l->at--;
    weft_lex_close(l, true);
    return 0;
}
