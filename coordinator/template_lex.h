/*
 * Lexer of chat templates: text between tags with the white space that tags swallow, and the tokens
 * inside a tag.
 *
 * Invariant: `at` never goes back and never beyond n; tokens point into the source.
 */
#ifndef WEFT_COORDINATOR_TEMPLATE_LEX_H
#define WEFT_COORDINATOR_TEMPLATE_LEX_H

#include "coordinator/template_ast.h"

enum weft_lex_kind {
    WEFT_LEX_END, /* of the tag */
    WEFT_LEX_NAME,
    WEFT_LEX_STRING, /* text is without quotes, escapes still in it */
    WEFT_LEX_INT,    /* starts with a digit */
    WEFT_LEX_PUNCT,
    WEFT_LEX_KIND_COUNT
};

struct weft_lex_token {
    enum weft_lex_kind kind;
    uint32_t at;
    const char *text;
    size_t size;
};

struct weft_lexer {
    const struct weft_template *t;
    const char *s; /* [n] the source */
    size_t n, at;
    bool variable; /* inside {{ }}, not {% %} */
    struct weft_lex_token token;
    weft_err *err;
};

/* Reads the next token of a tag into l->token. At WEFT_LEX_END l->at stays before the closing sign.
 */
int weft_lex_next(struct weft_lexer *l) WEFT_MUST_USE;
/* Goes behind the tag that l->token ends, and behind the white space that it swallows. */
void weft_lex_close(struct weft_lexer *l, bool block);
/* Text up to the next tag, less what the tag swallows to its left. Returns what the tag opens with:
 * '{', '%', '#', or 0 at the end of the source; l->at is then behind the opening sign. */
char weft_lex_text(struct weft_lexer *l, struct weft_span *ret);
/* Goes behind a comment whose opening sign has been read. */
int weft_lex_comment(struct weft_lexer *l) WEFT_MUST_USE;

/* True for a name or a sign that reads so. */
bool weft_lex_is(const struct weft_lex_token *token, const char *text);
bool weft_lex_is_digit(char c);
/* How an error shows a token: names and signs are short and printable, others are described. */
const char *weft_lex_show(const struct weft_lex_token *token, char buf[static 64]);

#endif
