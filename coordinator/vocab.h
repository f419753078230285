/*
 * Vocabulary: the tokens of a GGUF file, checked once, and how a text finds them.
 *
 * Invariant: after weft_vocab_open every token has a text of at most WEFT_TOKENIZER_PIECE_MAX
 * bytes, a finite score and a known type; special ids are -1 or in range; every byte has its token,
 * or an unknown token stands for what has none. Only the tokenizer looks in here.
 */
#ifndef WEFT_COORDINATOR_VOCAB_H
#define WEFT_COORDINATOR_VOCAB_H

#include "base/text.h"
#include "coordinator/pretokenizer.h"
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
    float score; /* 0 with byte-level BPE */
    enum weft_token_type type;
    bool joins;          /* joining may make it */
    bool lstrip, rstrip; /* special: blanks before or behind it are dropped with it */
};

/* So many slots at most are looked at for one key, in either map: a file whose keys would need more
 * is refused, so that none can make look-ups slow. Some 100 are the worst that a million keys need
 * that were not made to fall together. */
#define WEFT_PROBES_MAX 1024u
/* Bytes of a special token; each length of them is looked for at each place of a text. Published
 * ones have less than 100. */
#define WEFT_SPECIAL_SIZE_MAX 256u

/* Text to id: open addressing, at most half full; slots hold id + 1, 0 is free. */
struct weft_piece_map {
    uint32_t *slots;
    uint32_t mask;
    bool by_piece; /* the key is what a token stands for, not its text */
};

/* Two tokens that byte-level BPE joins; the lowest rank first. */
struct weft_merge {
    int32_t left, right;
    uint32_t rank;
    int32_t id; /* what they become */
};

/* Pairs to merges: open addressing, at most half full; rank WEFT_MERGES_MAX is free. */
struct weft_merge_map {
    struct weft_merge *slots;
    uint32_t mask;
    uint32_t count; /* lines of tokenizer.ggml.merges */
};
/* Published vocabularies have about as many as tokens; exact in a float. */
#define WEFT_MERGES_MAX (1u << 22)

/* The special tokens of one length, so that a text is searched for the longest first. */
struct weft_special_length {
    uint32_t size;     /* bytes */
    bool user_defined; /* there are user-defined ones among them */
    uint8_t first[32]; /* bit set: bytes that one of them starts with */
};

struct weft_vocab {
    enum weft_tokenizer_kind kind;
    struct weft_token *tokens; /* [n_tokens] */
    uint32_t n_tokens;
    char *bytes;                         /* what texts and pieces point into */
    struct weft_piece_map pieces;        /* what joining may make */
    struct weft_merge_map merges;        /* byte-level BPE */
    struct weft_pretokenizer *pre;       /* byte-level BPE; NULL: SentencePiece */
    char pre_name[WEFT_QUOTE_SIZE];      /* for a terminal; "": the file names none */
    char warning[256];                   /* "": nothing had to be assumed */
    struct weft_piece_map specials;      /* control, unknown and user-defined: read literally */
    struct weft_special_length *lengths; /* [n_lengths], longest first */
    size_t n_lengths;
    int32_t byte_ids[256]; /* -1: no token of its own; SentencePiece: all or none */
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
/* The merge of two tokens, NULL when there is none. */
const struct weft_merge *weft_vocab_merge(const struct weft_vocab *v, int32_t left, int32_t right);

/* For vocab.c, in vocab_bpe.c: */

/* Bytes that text[0..n), written in the alphabet of GPT-2, stands for; out has room for n. SIZE_MAX
 * when there is another character in it. */
size_t weft_byte_alphabet_decode(const char *text, size_t n, char *out);
/* tokenizer.ggml.pre, byte_ids and tokenizer.ggml.merges of a vocabulary whose tokens and maps are
 * there. */
int weft_vocab_open_pre(const struct weft_gguf *g, struct weft_vocab *v,
                        weft_err *err) WEFT_MUST_USE;
int weft_vocab_open_merges(const struct weft_gguf *g, struct weft_vocab *v,
                           weft_err *err) WEFT_MUST_USE;

#endif
