/*
 * Vocabulary: the tokens of a GGUF file, checked once, and how a text finds them.
 *
 * Invariant: after weft_vocab_open every token has a text of 1..WEFT_TOKENIZER_PIECE_MAX bytes, a
 * finite score and a known type; special ids are -1 or in range; every byte has its token, or an
 * unknown token stands for what has none. Only the tokenizer looks in here.
 */
#ifndef WEFT_COORDINATOR_VOCAB_H
#define WEFT_COORDINATOR_VOCAB_H

#include "coordinator/tokenizer.h"

/* U+2581, which SentencePiece writes for a space. */
#define WEFT_SPACE_MARK "\xE2\x96\x81"
#define WEFT_SPACE_MARK_SIZE 3u

/* Types of tokens, numbered as in tokenizer.ggml.token_type. */
enum weft_token_type {
    WEFT_TOKEN_NORMAL = 1,
    WEFT_TOKEN_UNKNOWN,
    WEFT_TOKEN_CONTROL,
    WEFT_TOKEN_USER_DEFINED,
    WEFT_TOKEN_UNUSED,
    WEFT_TOKEN_BYTE,
    WEFT_TOKEN_TYPE_COUNT
};

struct weft_token {
    const char *text;  /* as in the file */
    const char *piece; /* what it stands for */
    uint32_t text_size, piece_size;
    float score;
    enum weft_token_type type;
};

/* Text to id: open addressing, at most half full; slots hold id + 1, 0 is free. */
struct weft_piece_map {
    uint32_t *slots;
    uint32_t mask;
};

/* The special tokens of one length, so that a text is searched for the longest first. */
struct weft_special_length {
    uint32_t size;     /* bytes */
    bool user_defined; /* there are user-defined ones among them */
    uint8_t first[32]; /* bit set: bytes that one of them starts with */
};

struct weft_vocab {
    struct weft_token *tokens; /* [n_tokens] */
    uint32_t n_tokens;
    char *bytes;                         /* what texts and pieces point into */
    struct weft_piece_map pieces;        /* normal and user-defined: what joining may make */
    struct weft_piece_map specials;      /* control, unknown and user-defined: read literally */
    struct weft_special_length *lengths; /* [n_lengths], longest first */
    size_t n_lengths;
    int32_t byte_ids[256]; /* all -1 when the vocabulary has no byte tokens */
    int32_t bos, eos, eot, eom, unknown;
    bool add_bos, add_eos, add_space_prefix;
    bool words; /* no piece has a space mark behind another character: words can be joined alone */
    int32_t stops[WEFT_TOKENIZER_STOPS_MAX];
    size_t n_stops;
};

int weft_vocab_open(const struct weft_gguf *g, struct weft_vocab *ret, weft_err *err) WEFT_MUST_USE;
void weft_vocab_done(struct weft_vocab *v); /* accepts zeroed and half-built ones */

/* Control, unknown, user-defined: read literally out of a text. */
bool weft_token_is_special(enum weft_token_type type);

/* The id of a text of n bytes, -1 when there is none. */
int32_t weft_vocab_find(const struct weft_vocab *v, const struct weft_piece_map *map,
                        const char *text, size_t n);

#endif
