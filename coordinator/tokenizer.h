/*
 * Tokenizer: text to token ids and back, with the vocabulary of a GGUF file.
 *
 * Invariant: an opened tokenizer owns a copy of its vocabulary (the GGUF may be closed), every id
 * it gives is below weft_tokenizer_vocab, and text that is not marked as special never becomes a
 * control token, however it is spelt. Immutable once opened: any thread may read it.
 *
 * Source of the algorithm: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with
 * Subword Units" (2016): of all neighbours that can be joined the best is joined first, the
 * leftmost of equals. In the form of Kudo, Richardson, "SentencePiece" (2018), those can whose join
 * is a piece, and the highest score is best. In that of GPT-2 (Radford et al., 2019) a text is cut
 * into words by the pre-tokenizer (coordinator/pretokenizer.h), words start as bytes, those
 * neighbours can that a merge names, and the first merge is best.
 */
#ifndef WEFT_COORDINATOR_TOKENIZER_H
#define WEFT_COORDINATOR_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/gguf.h"

/* Bytes of one text: one per position of the longest context (base/model.h). */
#define WEFT_TOKENIZER_TEXT_MAX (16u << 20)
#define WEFT_TOKENIZER_PIECE_MAX \
    1024u                            /* bytes of one token's text; published ones stay below 256 */
#define WEFT_TOKENIZER_STOPS_MAX 32u /* ids that end an answer; more than the names known to us */

enum weft_tokenizer_kind {
    WEFT_TOKENIZER_SPM, /* tokenizer.ggml.model = llama: SentencePiece pairs by score */
    WEFT_TOKENIZER_BPE, /* tokenizer.ggml.model = gpt2: bytes of pre-tokenized words, by merges */
    WEFT_TOKENIZER_KIND_COUNT
};

/* What to do beside plain text. BOS and EOS obey the vocabulary's add_bos_token and add_eos_token.
 */
enum weft_encode_flags {
    WEFT_ENCODE_BOS = 1,
    WEFT_ENCODE_EOS = 2,
    WEFT_ENCODE_SPECIAL = 4 /* control and unknown tokens are read out of the whole text */
};

/* A run of a text in which control tokens may be read. */
struct weft_span {
    size_t start, size;
};

struct weft_tokenizer;

/* Reads and checks tokenizer.ggml.* of g (borrowed); gives *ret, close it. -WEFT_EUNSUPPORTED for
 * another tokenizer than those above, -WEFT_EMODEL naming the key, -WEFT_ENOMEM. Equal texts are
 * allowed: the lowest id is the one that text becomes. A normal token with the name of an end of
 * turn (<|im_end|>) counts as a control token, as it was meant. */
int weft_tokenizer_open(const struct weft_gguf *g, struct weft_tokenizer **ret,
                        weft_err *err) WEFT_MUST_USE;
void weft_tokenizer_close(struct weft_tokenizer *t); /* accepts NULL */

enum weft_tokenizer_kind weft_tokenizer_kind(const struct weft_tokenizer *t);
const char *weft_tokenizer_kind_name(enum weft_tokenizer_kind kind); /* "SentencePiece" */
uint32_t weft_tokenizer_vocab(const struct weft_tokenizer *t);       /* number of tokens */
int32_t weft_tokenizer_bos(const struct weft_tokenizer *t);          /* -1: none */
int32_t weft_tokenizer_eos(const struct weft_tokenizer *t);          /* -1: none */
bool weft_tokenizer_adds_bos(const struct weft_tokenizer *t);
bool weft_tokenizer_adds_space(const struct weft_tokenizer *t); /* add_space_prefix */
/* What had to be assumed because the file does not say, or says what is not known; NULL: nothing.
 * For the log; good as long as the tokenizer. */
const char *weft_tokenizer_warning(const struct weft_tokenizer *t);

/* Tokens that end an answer: EOS, EOT, EOM, and control tokens with a published name of that
 * meaning; ascending, at most WEFT_TOKENIZER_STOPS_MAX. */
bool weft_tokenizer_is_stop(const struct weft_tokenizer *t, int32_t id);
const int32_t *weft_tokenizer_stops(const struct weft_tokenizer *t, size_t *ret_n);

/* Ids of text[0..n); gives *ret_ids (free(); NULL when *ret_n is 0). User-defined tokens are always
 * read out of the text, control tokens only with WEFT_ENCODE_SPECIAL; of overlapping ones the
 * longest is taken, then the leftmost. With add_space_prefix a space goes before the text and
 * before what follows such a token. Blanks behind (before) a token that strips them are dropped.
 * -WEFT_EUSAGE for invalid UTF-8 (with the byte's offset), for more than WEFT_TOKENIZER_TEXT_MAX
 * bytes and for a byte that no token stands for, -WEFT_ENOMEM. O(n log n). */
int weft_tokenizer_encode(const struct weft_tokenizer *t, const char *text, size_t n,
                          unsigned flags, int32_t **ret_ids, size_t *ret_n,
                          weft_err *err) WEFT_MUST_USE;

/* The same; control tokens are read only where they lie wholly within one of the n_spans ascending
 * spans, or anywhere with WEFT_ENCODE_SPECIAL. Everything else is joined over the borders of spans
 * as if they were not there. */
int weft_tokenizer_encode_spans(const struct weft_tokenizer *t, const char *text, size_t n,
                                const struct weft_span *spans, size_t n_spans, unsigned flags,
                                int32_t **ret_ids, size_t *ret_n, weft_err *err) WEFT_MUST_USE;

/* The bytes that a token stands for in an answer: U+2581 is a space, a byte token its byte, a
 * control token nothing, an unknown token U+FFFD. Not 0-terminated, may end inside a character;
 * good as long as the tokenizer. NULL (and *ret_n 0) when id is not in the vocabulary. */
const char *weft_tokenizer_piece(const struct weft_tokenizer *t, int32_t id, size_t *ret_n);
/* The token as the vocabulary spells it ("<s>", "▁the", "<0x0A>"); else as weft_tokenizer_piece. */
const char *weft_tokenizer_text(const struct weft_tokenizer *t, int32_t id, size_t *ret_n);
/* True for tokens after which a space was put before text: control, unknown, user-defined. */
bool weft_tokenizer_is_special(const struct weft_tokenizer *t, int32_t id);
/* True for tokens that never come out of text: control alone. */
bool weft_tokenizer_is_control(const struct weft_tokenizer *t, int32_t id);

#endif
