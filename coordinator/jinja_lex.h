/*
 * Lexer of templates: text between tags with the white space that tags swallow (trim_blocks and
 * lstrip_blocks, as model hubs set them), and the tokens inside a tag.
 *
 * Invariant: `at` never goes back and never beyond n; tokens point into the source.
 */
#ifndef WEFT_COORDINATOR_JINJA_LEX_H
#define WEFT_COORDINATOR_JINJA_LEX_H

#include "base/text.h"
#include "coordinator/jinja_ast.h"

enum jinja_token_kind {
    JINJA_TOKEN_END, /* of the tag */
    JINJA_TOKEN_NAME,
    JINJA_TOKEN_STRING, /* text is without quotes, escapes still in it */
    JINJA_TOKEN_INT,
    JINJA_TOKEN_FLOAT,
    JINJA_TOKEN_SIGN,
    JINJA_TOKEN_KIND_COUNT
};

struct jinja_token {
    enum jinja_token_kind kind;
    uint32_t at;
    const char *text;
    size_t size;
};

struct jinja_lexer {
    const struct jinja_source *source;
    const char *s; /* [n] */
    size_t n, at;
    bool variable;     /* inside {{ }}, not {% %} */
    uint32_t brackets; /* open in this tag: inside them }} does not end it */
    struct jinja_token token;
    weft_err *err;
};

/* -WEFT_EUNSUPPORTED with line and column of `at`. */
int jinja_lex_refuse(const struct jinja_lexer *l, size_t at, const char *fmt, ...)
    WEFT_PRINTF(3, 4);
/* A macro, so that every caller's compiler sees that it is never 0. */
#define jinja_lex_refuse(l, at, ...) \
    ((void)(jinja_lex_refuse)((l), (at), __VA_ARGS__), -WEFT_EUNSUPPORTED)

/* Reads the next token of a tag into l->token. At JINJA_TOKEN_END l->at stays before the closing
 * sign. */
int jinja_lex_next(struct jinja_lexer *l) WEFT_MUST_USE;
/* The token behind the current one, which stays. */
int jinja_lex_peek(struct jinja_lexer *l, struct jinja_token *ret) WEFT_MUST_USE;
/* Goes behind the tag that l->token ends, and behind the white space that it swallows. */
void jinja_lex_close(struct jinja_lexer *l);
/* Text up to the next tag, less what the tag swallows to its left. Returns what the tag opens with:
 * '{', '%', '#', or 0 at the end of the source; l->at is then behind the opening sign. */
char jinja_lex_text(struct jinja_lexer *l, size_t *ret_start, size_t *ret_size);
/* Goes behind a comment whose opening sign has been read. */
int jinja_lex_comment(struct jinja_lexer *l) WEFT_MUST_USE;
/* If a {% raw %} tag is open here, its text up to {% endraw %}, behind which l->at is then. */
int jinja_lex_raw(struct jinja_lexer *l, bool *ret_raw, size_t *ret_start,
                  size_t *ret_size) WEFT_MUST_USE;

/* True for a name or a sign that reads so. */
bool jinja_token_is(const struct jinja_token *token, const char *text);
/* How an error shows a token: names and signs are short and printable, others are described. */
const char *jinja_token_show(const struct jinja_token *token, char buf[static WEFT_QUOTE_SIZE]);

#endif
