/*
 * Tokenizer, see tokenizer.h: special tokens are found first, what lies between them is joined from
 * single characters, word by word where the vocabulary allows.
 */
#include "coordinator/tokenizer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "coordinator/vocab.h"

/* What is known of a byte of the text: the id of the special token that starts at it, or one of: */
enum { MARK_TEXT = -1, MARK_TRUSTED = -2 /* may be part of a control token */, MARK_TAKEN = -3 };

struct weft_tokenizer {
    struct weft_vocab vocab;
};

/* A run of characters that are joined so far; a double linked list in text order. */
struct symbol {
    uint32_t start, size; /* in the fragment; size 0: swallowed by its left neighbour */
    int32_t prev, next;   /* -1: none */
    int32_t id;           /* -1: not in the vocabulary */
};

/* A join that the vocabulary knows: symbol left with its right neighbour gives size bytes. */
struct join {
    float score;
    int32_t left;
    uint32_t size;
    int32_t id;
};

struct encoder {
    const struct weft_vocab *v;
    int32_t *marks; /* [bytes of the text]; NULL when no special token can be in it */
    char *escaped;  /* one fragment, spaces written as marks */
    struct symbol *symbols;
    struct join *heap;       /* best first */
    size_t n_heap, room;     /* room: symbols, and half the joins */
    struct weft_words words; /* byte-level BPE: of one fragment */
    int32_t *ids;
    size_t n_ids, ids_room;
};

int weft_tokenizer_open(const struct weft_gguf *g, struct weft_tokenizer **ret, weft_err *err)
{
    struct weft_tokenizer *t = calloc(1, sizeof *t);
    if (t == NULL)
        return weft_fail(err, WEFT_ENOMEM, "tokenizer: no memory");
    int r = weft_vocab_open(g, &t->vocab, err);
    if (r < 0) {
        free(t);
        return r;
    }
    *ret = t;
    return 0;
}

void weft_tokenizer_close(struct weft_tokenizer *t)
{
    if (t == NULL)
        return;
    weft_vocab_done(&t->vocab);
    free(t);
}

static int push_id(struct encoder *e, int32_t id, weft_err *err)
{
    if (e->n_ids == e->ids_room) {
        size_t room = 2 * e->ids_room + 64; /* bounded by three ids per byte of a bounded text */
        int32_t *grown = realloc(e->ids, room * sizeof *grown);
        if (grown == NULL)
            return weft_fail(err, WEFT_ENOMEM, "tokenizer: no memory for %zu ids", room);
        e->ids = grown;
        e->ids_room = room;
    }
    e->ids[e->n_ids++] = id;
    return 0;
}

static bool better(const struct join *a, const struct join *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void heap_push(struct encoder *e, struct join join)
{
    size_t i = e->n_heap++;
    for (; i > 0 && better(&join, &e->heap[(i - 1) / 2]); i = (i - 1) / 2)
        e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = join;
}

static struct join heap_pop(struct encoder *e)
{
    struct join top = e->heap[0], last = e->heap[--e->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= e->n_heap)
            break;
        if (child + 1 < e->n_heap && better(&e->heap[child + 1], &e->heap[child]))
            child++;
        if (!better(&e->heap[child], &last))
            break;
        e->heap[i] = e->heap[child];
        i = child;
    }
    e->heap[i] = last;
    return top;
}

/* Remembers the join of symbol left and its right neighbour if it is a piece. */
static void propose(struct encoder *e, const char *text, int32_t left)
{
    if (left < 0 || e->symbols[left].next < 0)
        return;
    const struct symbol *a = &e->symbols[left], *b = &e->symbols[a->next];
    uint32_t size = a->size + b->size;
    if (size > WEFT_TOKENIZER_PIECE_MAX)
        return;
    if (e->v->kind == WEFT_TOKENIZER_BPE) {
        const struct weft_merge *merge = weft_vocab_merge(e->v, a->id, b->id);
        if (merge != NULL)
            heap_push(e, (struct join){-(float)merge->rank, left, size, merge->id});
        return;
    }
    int32_t id = weft_vocab_find(e->v, &e->v->pieces, text + a->start, size);
    if (id >= 0)
        heap_push(e, (struct join){e->v->tokens[id].score, left, size, id});
}

/* Every character becomes a symbol; a merge proposes two joins at most and leaves one symbol less,
 * so a word of m characters never has more than 2 m joins waiting. */
static int reserve(struct encoder *e, size_t n_chars, weft_err *err)
{
    if (n_chars <= e->room)
        return 0;
    size_t room = n_chars > 2 * e->room ? n_chars : 2 * e->room;
    struct symbol *symbols = realloc(e->symbols, room * sizeof *symbols);
    if (symbols != NULL)
        e->symbols = symbols;
    struct join *heap = realloc(e->heap, 2 * room * sizeof *heap);
    if (heap != NULL)
        e->heap = heap;
    if (symbols == NULL || heap == NULL)
        return weft_fail(err, WEFT_ENOMEM, "tokenizer: no memory for %zu characters", room);
    e->room = room;
    return 0;
}

/* Ids of one symbol that is not in the vocabulary: its bytes, or the unknown token. With byte-level
 * BPE it is one byte, which some vocabularies lack; an unknown token that is a control token is not
 * for text. */
static int push_unknown(struct encoder *e, const char *s, size_t n, weft_err *err)
{
    const struct weft_vocab *v = e->v;
    if (v->kind == WEFT_TOKENIZER_BPE &&
        (v->unknown < 0 || v->tokens[v->unknown].type != WEFT_TOKEN_UNKNOWN))
        return weft_fail(err, WEFT_EUSAGE,
                         "text: byte 0x%02X has no token in this vocabulary; leave its character "
                         "out",
                         (unsigned)(uint8_t)*s);
    if (v->kind == WEFT_TOKENIZER_BPE || v->byte_ids[0] < 0)
        return push_id(e, v->unknown, err);
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++)
        r = push_id(e, v->byte_ids[(uint8_t)s[i]], err);
    return r;
}

static size_t char_size(const char *s)
{
    uint8_t lead = (uint8_t)*s; /* of valid UTF-8 */
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* The symbols that joining starts from: bytes for byte-level BPE, else characters. */
static int make_symbols(struct encoder *e, const char *text, size_t n, size_t *ret_n, weft_err *err)
{
    const bool bytes = e->v->kind == WEFT_TOKENIZER_BPE;
    size_t n_symbols = bytes ? n : 0;
    for (size_t i = 0; i < n && !bytes; i += char_size(text + i))
        n_symbols++;
    int r = reserve(e, n_symbols, err);
    if (r < 0)
        return r;
    uint32_t start = 0;
    for (size_t i = 0; i < n_symbols; i++) {
        uint32_t size = bytes ? 1 : (uint32_t)char_size(text + start);
        e->symbols[i] = (struct symbol){
            .start = start,
            .size = size,
            .prev = (int32_t)i - 1,
            .next = i + 1 < n_symbols ? (int32_t)i + 1 : -1,
            .id = bytes ? e->v->byte_ids[(uint8_t)text[start]]
                        : weft_vocab_find(e->v, &e->v->pieces, text + start, size),
        };
        start += size;
    }
    *ret_n = n_symbols;
    return 0;
}

/* Joins text[0..n), which is valid UTF-8, and appends its ids. */
static int encode_word(struct encoder *e, const char *text, size_t n, weft_err *err)
{
    size_t n_chars;
    int r = make_symbols(e, text, n, &n_chars, err);
    if (r < 0)
        return r;
    e->n_heap = 0;
    for (size_t i = 0; i + 1 < n_chars; i++)
        propose(e, text, (int32_t)i);
    while (e->n_heap > 0) {
        struct join join = heap_pop(e);
        struct symbol *a = &e->symbols[join.left];
        /* Out of date when a side has grown or gone meanwhile. */
        if (a->size == 0 || a->next < 0 || a->size + e->symbols[a->next].size != join.size)
            continue;
        struct symbol *b = &e->symbols[a->next];
        a->size = join.size;
        a->id = join.id;
        a->next = b->next;
        if (b->next >= 0)
            e->symbols[b->next].prev = join.left;
        b->size = 0;
        propose(e, text, a->prev);
        propose(e, text, join.left);
    }
    for (int32_t i = n_chars > 0 ? 0 : -1; i >= 0 && r == 0; i = e->symbols[i].next) {
        const struct symbol *s = &e->symbols[i];
        r = s->id >= 0 ? push_id(e, s->id, err) : push_unknown(e, text + s->start, s->size, err);
    }
    return r;
}

static bool at_space(const char *s, size_t i, size_t n)
{
    return n - i >= WEFT_SPACE_MARK_SIZE &&
           memcmp(s + i, WEFT_SPACE_MARK, WEFT_SPACE_MARK_SIZE) == 0;
}

/* Text between special tokens, byte-level BPE: each word of the pre-tokenizer is joined alone. */
static int encode_words(struct encoder *e, const char *text, size_t n, weft_err *err)
{
    const bool whole_words = (weft_pretokenizer_flags(e->v->pre) & WEFT_PRE_IGNORE_MERGES) != 0;
    int r = weft_pretokenizer_split(e->v->pre, text, n, &e->words, err);
    for (size_t i = 0, start = 0; i < e->words.n && r == 0; start = e->words.ends[i++]) {
        const size_t size = e->words.ends[i] - start;
        int32_t id = -1;
        if (whole_words && size <= WEFT_TOKENIZER_PIECE_MAX)
            id = weft_vocab_find(e->v, &e->v->pieces, text + start, size);
        r = id >= 0 ? push_id(e, id, err) : encode_word(e, text + start, size, err);
    }
    return r;
}

/* Text between special tokens, SentencePiece: spaces become marks, then it is joined; where no
 * piece reaches over the start of a word, each word alone, which gives the same ids and keeps the
 * heap small. */
static int encode_fragment(struct encoder *e, const char *text, size_t n, bool prefix,
                           weft_err *err)
{
    size_t m = 0;
    if (prefix) {
        memcpy(e->escaped, WEFT_SPACE_MARK, WEFT_SPACE_MARK_SIZE);
        m = WEFT_SPACE_MARK_SIZE;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ') {
            memcpy(e->escaped + m, WEFT_SPACE_MARK, WEFT_SPACE_MARK_SIZE);
            m += WEFT_SPACE_MARK_SIZE;
        } else {
            e->escaped[m++] = text[i];
        }
    }
    const char *s = e->escaped;
    size_t word = 0;
    int r = 0;
    bool space = true; /* the character before was a space mark, or there was none */
    for (size_t i = 0; i < m && r == 0 && e->v->words; i += char_size(s + i)) {
        bool mark = at_space(s, i, m);
        if (mark && !space) {
            r = encode_word(e, s + word, i - word, err);
            word = i;
        }
        space = mark;
    }
    return r < 0 ? r : encode_word(e, s + word, m - word, err);
}

static bool can_take(const struct encoder *e, size_t start, size_t size, bool trusted_only)
{
    for (size_t i = start; i < start + size; i++) {
        if (e->marks[i] != MARK_TRUSTED && (trusted_only || e->marks[i] != MARK_TEXT))
            return false;
    }
    return true;
}

/* Marks the special tokens in text, longest first. */
static void find_specials(struct encoder *e, const char *text, size_t n, bool any_trusted)
{
    const struct weft_vocab *v = e->v;
    for (size_t k = 0; k < v->n_lengths; k++) {
        const struct weft_special_length *length = &v->lengths[k];
        if (!length->user_defined && !any_trusted)
            continue;
        for (size_t at = 0; at + length->size <= n;) {
            uint8_t first = (uint8_t)text[at];
            int32_t id = -1;
            if ((length->first[first / 8] >> first % 8 & 1) != 0)
                id = weft_vocab_find(v, &v->specials, text + at, length->size);
            if (id < 0 ||
                !can_take(e, at, length->size, v->tokens[id].type != WEFT_TOKEN_USER_DEFINED)) {
                at++;
                continue;
            }
            e->marks[at] = id;
            for (size_t i = 1; i < length->size; i++)
                e->marks[at + i] = MARK_TAKEN;
            at += length->size;
        }
    }
}

static int mark_specials(struct encoder *e, const char *text, size_t n,
                         const struct weft_span *spans, size_t n_spans, weft_err *err)
{
    bool needed = n_spans > 0;
    for (size_t k = 0; k < e->v->n_lengths; k++)
        needed = needed || e->v->lengths[k].user_defined;
    if (!needed || n == 0)
        return 0;
    e->marks = malloc(n * sizeof *e->marks);
    if (e->marks == NULL)
        return weft_fail(err, WEFT_ENOMEM, "tokenizer: no memory for %zu bytes of text", n);
    for (size_t i = 0; i < n; i++)
        e->marks[i] = MARK_TEXT;
    for (size_t k = 0; k < n_spans; k++) {
        assert(spans[k].start <= n && spans[k].size <= n - spans[k].start);
        for (size_t i = 0; i < spans[k].size; i++)
            e->marks[spans[k].start + i] = MARK_TRUSTED;
    }
    find_specials(e, text, n, n_spans > 0);
    return 0;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Text between two special tokens (-1: none there), less the blanks that they take along. */
static int encode_between(struct encoder *e, const char *text, size_t n, int32_t before,
                          int32_t behind, bool prefix, weft_err *err)
{
    const struct weft_token *tokens = e->v->tokens;
    for (; before >= 0 && tokens[before].rstrip && n > 0 && is_blank(text[0]); n--)
        text++;
    while (behind >= 0 && tokens[behind].lstrip && n > 0 && is_blank(text[n - 1]))
        n--;
    if (n == 0)
        return 0;
    return e->v->kind == WEFT_TOKENIZER_BPE ? encode_words(e, text, n, err)
                                            : encode_fragment(e, text, n, prefix, err);
}

static int encode_text(struct encoder *e, const char *text, size_t n, weft_err *err)
{
    int r = 0;
    int32_t before = -1;
    for (size_t at = 0; at < n && r == 0;) {
        if (e->marks != NULL && e->marks[at] >= 0) {
            before = e->marks[at];
            r = push_id(e, before, err);
            at += e->v->tokens[before].text_size;
            continue;
        }
        size_t end = at + 1;
        while (end < n && (e->marks == NULL || e->marks[end] < 0))
            end++;
        /* What stands here is at the start or behind a special token. */
        r = encode_between(e, text + at, end - at, before, end < n ? e->marks[end] : -1,
                           e->v->add_space_prefix, err);
        at = end;
    }
    return r;
}

static int check_text(const char *text, size_t n, weft_err *err)
{
    size_t offset;
    if (n > WEFT_TOKENIZER_TEXT_MAX)
        return weft_fail(err, WEFT_EUSAGE, "text: found %zu bytes, expected at most %u", n,
                         WEFT_TOKENIZER_TEXT_MAX);
    if (!weft_utf8_valid(text, n, &offset))
        return weft_fail(err, WEFT_EUSAGE,
                         "text: byte %zu (0x%02X) is not valid UTF-8; convert the text to UTF-8",
                         offset, (unsigned)(uint8_t)text[offset]);
    return 0;
}

int weft_tokenizer_encode_spans(const struct weft_tokenizer *t, const char *text, size_t n,
                                const struct weft_span *spans, size_t n_spans, unsigned flags,
                                int32_t **ret_ids, size_t *ret_n, weft_err *err)
{
    const struct weft_vocab *v = &t->vocab;
    struct encoder e = {.v = v};
    struct weft_span whole = {0, n};
    size_t escaped_size = n + WEFT_SPACE_MARK_SIZE; /* with the prefix */
    int r = check_text(text, n, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < n; i++)
        escaped_size += text[i] == ' ' ? WEFT_SPACE_MARK_SIZE - 1 : 0;
    char *escaped = v->kind == WEFT_TOKENIZER_SPM ? malloc(escaped_size) : NULL;
    if (v->kind == WEFT_TOKENIZER_SPM && escaped == NULL) {
        r = weft_fail(err, WEFT_ENOMEM, "tokenizer: no memory for %zu bytes of text", escaped_size);
        goto out;
    }
    e.escaped = escaped;
    if ((flags & WEFT_ENCODE_SPECIAL) != 0) {
        spans = &whole;
        n_spans = 1;
    }
    if ((r = mark_specials(&e, text, n, spans, n_spans, err)) < 0)
        goto out;
    if ((flags & WEFT_ENCODE_BOS) != 0 && v->add_bos && v->bos >= 0)
        r = push_id(&e, v->bos, err);
    if (r == 0)
        r = encode_text(&e, text, n, err);
    if (r == 0 && (flags & WEFT_ENCODE_EOS) != 0 && v->add_eos && v->eos >= 0)
        r = push_id(&e, v->eos, err);
    if (r < 0)
        goto out;
    *ret_ids = e.ids;
    *ret_n = e.n_ids;
    e.ids = NULL;
out:
    free(e.marks);
    free(escaped);
    free(e.symbols);
    free(e.heap);
    free(e.ids);
    weft_words_done(&e.words);
    return r;
}

int weft_tokenizer_encode(const struct weft_tokenizer *t, const char *text, size_t n,
                          unsigned flags, int32_t **ret_ids, size_t *ret_n, weft_err *err)
{
    return weft_tokenizer_encode_spans(t, text, n, NULL, 0, flags, ret_ids, ret_n, err);
}

static const struct weft_token *find_token(const struct weft_tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->vocab.n_tokens ? &t->vocab.tokens[id] : NULL;
}

const char *weft_tokenizer_piece(const struct weft_tokenizer *t, int32_t id, size_t *ret_n)
{
    const struct weft_token *token = find_token(t, id);
    *ret_n = token != NULL ? token->piece_size : 0;
    return token != NULL ? token->piece : NULL;
}

const char *weft_tokenizer_text(const struct weft_tokenizer *t, int32_t id, size_t *ret_n)
{
    const struct weft_token *token = find_token(t, id);
    *ret_n = token != NULL ? token->text_size : 0;
    return token != NULL ? token->text : NULL;
}

bool weft_tokenizer_is_special(const struct weft_tokenizer *t, int32_t id)
{
    const struct weft_token *token = find_token(t, id);
    return token != NULL && weft_token_is_special(token->type);
}

bool weft_tokenizer_is_control(const struct weft_tokenizer *t, int32_t id)
{
    const struct weft_token *token = find_token(t, id);
    return token != NULL && token->type == WEFT_TOKEN_CONTROL;
}

const char *weft_tokenizer_warning(const struct weft_tokenizer *t)
{
    return t->vocab.warning[0] != '\0' ? t->vocab.warning : NULL;
}

enum weft_tokenizer_kind weft_tokenizer_kind(const struct weft_tokenizer *t)
{
    return t->vocab.kind;
}

const char *weft_tokenizer_kind_name(enum weft_tokenizer_kind kind)
{
    static const char *const names[WEFT_TOKENIZER_KIND_COUNT] = {
        [WEFT_TOKENIZER_SPM] = "SentencePiece",
        [WEFT_TOKENIZER_BPE] = "byte-level BPE",
    };
    return (unsigned)kind < WEFT_TOKENIZER_KIND_COUNT ? names[kind] : "unknown";
}

uint32_t weft_tokenizer_vocab(const struct weft_tokenizer *t)
{
    return t->vocab.n_tokens;
}

int32_t weft_tokenizer_bos(const struct weft_tokenizer *t)
{
    return t->vocab.bos;
}

int32_t weft_tokenizer_eos(const struct weft_tokenizer *t)
{
    return t->vocab.eos;
}

bool weft_tokenizer_adds_bos(const struct weft_tokenizer *t)
{
    return t->vocab.add_bos && t->vocab.bos >= 0;
}

bool weft_tokenizer_adds_space(const struct weft_tokenizer *t)
{
    return t->vocab.add_space_prefix;
}

const int32_t *weft_tokenizer_stops(const struct weft_tokenizer *t, size_t *ret_n)
{
    *ret_n = t->vocab.n_stops;
    return t->vocab.stops;
}

bool weft_tokenizer_is_stop(const struct weft_tokenizer *t, int32_t id)
{
    for (size_t i = 0; i < t->vocab.n_stops; i++) {
        if (t->vocab.stops[i] == id)
            return true;
    }
    return false;
}
