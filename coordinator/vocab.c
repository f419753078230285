/*
 * Vocabulary, see vocab.h. The file is hostile until checked: every array is measured against the
 * others before anything is read out of it.
 */
#include "coordinator/vocab.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/model.h"

#define KEY_MODEL "tokenizer.ggml.model"
#define KEY_TOKENS "tokenizer.ggml.tokens"
#define KEY_SCORES "tokenizer.ggml.scores"
#define KEY_TYPES "tokenizer.ggml.token_type"
#define KEY_PRE "tokenizer.ggml.pre"

static const uint8_t unknown_piece[] = {0xEF, 0xBF, 0xBD}; /* U+FFFD */

/* Names under which publishers end a turn or a text: some files lack eot_token_id, or name as EOS
 * the end of a document only. The file separators end what models of code write. */
static const char *const stop_names[] = {
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<end_of_utterance>",
    "<turn|>",
    "<|tool_response>",
    "[e~[",
    "<｜end▁of▁sentence｜>", /* DeepSeek: full-width bars */
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
};
#define N_STOP_NAMES (sizeof stop_names / sizeof stop_names[0])

/* Families whose special tokens take blanks beside them along; no key of GGUF says so. */
static const struct strip {
    const char *key, *part; /* the lower-case value of key holds part */
    const char *token;      /* NULL: all special ones but those below */
    bool left;
} strips[] = {
    {"general.name", "phi-3", NULL, false},          {"general.name", "phi3", NULL, false},
    {"general.name", "modern-bert", "[MASK]", true}, {KEY_PRE, "jina-v2-de", "<mask>", true},
    {KEY_PRE, "jina-v2-es", "<mask>", true},         {KEY_PRE, "jina-v2-code", "<mask>", true},
};
static const char *const never_stripped[] = {"<unk>", "<s>", "<|endoftext|>"};
#define N_NEVER_STRIPPED (sizeof never_stripped / sizeof never_stripped[0])

static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 0xCBF29CE484222325u; /* FNV-1a, 64 bits */
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * 0x100000001B3u;
    return h ^ h >> 32;
}

struct key {
    const char *data;
    size_t size;
};

static struct key key_of(const struct weft_piece_map *map, const struct weft_token *token)
{
    if (map->by_piece)
        return (struct key){token->piece, token->piece_size};
    return (struct key){token->text, token->text_size};
}

int32_t weft_vocab_find(const struct weft_vocab *v, const struct weft_piece_map *map,
                        const char *text, size_t n)
{
    const uint32_t first = (uint32_t)hash_bytes(text, n);
    for (uint32_t i = 0; i < WEFT_PROBES_MAX; i++) {
        uint32_t slot = map->slots[(first + i) & map->mask];
        if (slot == 0)
            return -1;
        const struct key key = key_of(map, &v->tokens[slot - 1]);
        if (key.size == n && memcmp(key.data, text, n) == 0)
            return (int32_t)(slot - 1);
    }
    return -1;
}

static int map_init(struct weft_piece_map *map, uint32_t count, weft_err *err)
{
    uint32_t slots = 2;
    while (slots < 2 * count) /* count is at most WEFT_VOCAB_MAX */
        slots *= 2;
    map->slots = calloc(slots, sizeof *map->slots);
    if (map->slots == NULL)
        return weft_fail(err, WEFT_ENOMEM, "vocabulary: no memory for %u slots", slots);
    map->mask = slots - 1;
    return 0;
}

/* Ids come in ascending order, so that the lowest of equal texts stays. */
static int map_add(struct weft_vocab *v, struct weft_piece_map *map, uint32_t id, weft_err *err)
{
    const struct key key = key_of(map, &v->tokens[id]);
    if (weft_vocab_find(v, map, key.data, key.size) >= 0)
        return 0;
    const uint32_t first = (uint32_t)hash_bytes(key.data, key.size);
    for (uint32_t i = 0; i < WEFT_PROBES_MAX; i++) {
        uint32_t *slot = &map->slots[(first + i) & map->mask];
        if (*slot == 0) {
            *slot = id + 1;
            return 0;
        }
    }
    return weft_fail(err, WEFT_EMODEL,
                     KEY_TOKENS "[%u]: looking it up passes more than %u others; the texts were "
                                "chosen to make it slow",
                     id, WEFT_PROBES_MAX);
}

bool weft_token_is_special(enum weft_token_type type)
{
    return type == WEFT_TOKEN_CONTROL || type == WEFT_TOKEN_UNKNOWN ||
           type == WEFT_TOKEN_USER_DEFINED;
}

static bool text_is(const char *text, size_t n, const char *name)
{
    return n == strlen(name) && memcmp(text, name, n) == 0;
}

static int read_kind(const struct weft_gguf *g, enum weft_tokenizer_kind *ret, weft_err *err)
{
    static const char *const models[WEFT_TOKENIZER_KIND_COUNT] = {
        [WEFT_TOKENIZER_SPM] = "llama",
        [WEFT_TOKENIZER_BPE] = "gpt2",
    };
    struct weft_gguf_string model;
    char quoted[WEFT_QUOTE_SIZE];
    int r = weft_gguf_str(g, KEY_MODEL, &model, err);
    if (r < 0)
        return r;
    for (int kind = 0; kind < WEFT_TOKENIZER_KIND_COUNT; kind++) {
        *ret = (enum weft_tokenizer_kind)kind;
        if (text_is(model.data, (size_t)model.size, models[kind]))
            return 0;
    }
    return weft_fail(err, WEFT_EUNSUPPORTED,
                     KEY_MODEL ": found %s, expected 'llama' (SentencePiece) or 'gpt2' (byte-level "
                               "BPE), the kinds of tokenizer that are supported",
                     weft_quote(quoted, sizeof quoted, model.data, (size_t)model.size));
}

/* The array of a key with items of either type; count 0 leaves the number of items open. */
static int find_array(const struct weft_gguf *g, const char *key, enum weft_gguf_type type,
                      enum weft_gguf_type other, uint64_t count, const struct weft_gguf_kv **ret,
                      weft_err *err)
{
    const struct weft_gguf_kv *kv = weft_gguf_kv(g, key);
    if (kv == NULL)
        return weft_fail(err, WEFT_EMODEL, "key %s is missing", key);
    if (kv->type != WEFT_GGUF_ARRAY || (kv->item_type != type && kv->item_type != other))
        return weft_fail(err, WEFT_EMODEL, "%s: found type %d of %d, expected an array of type %d",
                         key, (int)kv->type, (int)kv->item_type, (int)type);
    if (count != 0 && kv->count != count)
        return weft_fail(err, WEFT_EMODEL, "%s: found %llu items, expected %llu as in " KEY_TOKENS,
                         key, (unsigned long long)kv->count, (unsigned long long)count);
    *ret = kv;
    return 0;
}

static int check_token(uint32_t id, const struct weft_gguf_string *text, float score, int32_t type,
                       weft_err *err)
{
    if (text->size > WEFT_TOKENIZER_PIECE_MAX)
        return weft_fail(err, WEFT_EMODEL, KEY_TOKENS "[%u]: found %llu bytes, expected at most %u",
                         id, (unsigned long long)text->size, WEFT_TOKENIZER_PIECE_MAX);
    if (!isfinite(score))
        return weft_fail(err, WEFT_EMODEL, KEY_SCORES "[%u]: found %f, expected a finite number",
                         id, (double)score);
    if (type < WEFT_TOKEN_NORMAL || type >= WEFT_TOKEN_TYPE_COUNT)
        return weft_fail(err, WEFT_EMODEL, KEY_TYPES "[%u]: found %d, expected %d to %d", id, type,
                         WEFT_TOKEN_NORMAL, WEFT_TOKEN_TYPE_COUNT - 1);
    return 0;
}

static bool is_text_type(int32_t type)
{
    return type == WEFT_TOKEN_NORMAL || type == WEFT_TOKEN_USER_DEFINED;
}

/* Writes text[0..n) with marks as spaces; returns the bytes written. */
static size_t unmark_spaces(const char *text, size_t n, char *out)
{
    size_t m = 0;
    for (size_t i = 0; i < n; m++) {
        bool mark = n - i >= WEFT_SPACE_MARK_SIZE &&
                    memcmp(text + i, WEFT_SPACE_MARK, WEFT_SPACE_MARK_SIZE) == 0;
        out[m] = (char)(mark ? ' ' : text[i]);
        i += mark ? WEFT_SPACE_MARK_SIZE : 1;
    }
    return m;
}

/* What a token of byte-level BPE stands for. A user-defined one is spelt as in texts; so is what
 * its publisher added as normal without the alphabet, which joining cannot make. */
static size_t decode_bytes(struct weft_token *token, char *out)
{
    size_t m = SIZE_MAX;
    if (token->type != WEFT_TOKEN_USER_DEFINED)
        m = weft_byte_alphabet_decode(token->text, token->text_size, out);
    token->joins = token->joins && (m != SIZE_MAX || token->type == WEFT_TOKEN_USER_DEFINED);
    if (m != SIZE_MAX)
        return m;
    memcpy(out, token->text, token->text_size);
    return token->text_size;
}

/* Copies text and what it stands for behind each other to out; returns the bytes written. */
static size_t copy_token(enum weft_tokenizer_kind kind, struct weft_token *token, char *out)
{
    size_t n = token->text_size, m = 0;
    memcpy(out, token->text, n);
    char *piece = out + n;
    token->joins = n > 0 && is_text_type(token->type);
    if (token->type == WEFT_TOKEN_UNKNOWN) {
        memcpy(piece, unknown_piece, sizeof unknown_piece);
        m = sizeof unknown_piece;
    } else if (token->type == WEFT_TOKEN_BYTE) {
        m = 1; /* read_bytes fills it in */
    } else if (token->type != WEFT_TOKEN_CONTROL) {
        m = kind == WEFT_TOKENIZER_BPE ? decode_bytes(token, piece)
                                       : unmark_spaces(token->text, n, piece);
    }
    token->text = out;
    token->piece = piece;
    token->piece_size = (uint32_t)m;
    return n + m;
}

static bool is_stop_name(const char *text, size_t n)
{
    for (size_t i = 0; i < N_STOP_NAMES; i++) {
        if (text_is(text, n, stop_names[i]))
            return true;
    }
    return false;
}

/* Some files give the end of a turn as a normal token: then text could end an answer. */
static enum weft_token_type true_type(const struct weft_gguf_string *text, int32_t type)
{
    return is_text_type(type) && is_stop_name(text->data, (size_t)text->size)
               ? WEFT_TOKEN_CONTROL
               : (enum weft_token_type)type;
}

static int read_tokens(const struct weft_gguf *g, struct weft_vocab *v, weft_err *err)
{
    const struct weft_gguf_kv *texts, *scores = NULL, *types;
    int r = find_array(g, KEY_TOKENS, WEFT_GGUF_STRING, WEFT_GGUF_STRING, 0, &texts, err);
    if (r < 0)
        return r;
    if (texts->count == 0 || texts->count > WEFT_VOCAB_MAX)
        return weft_fail(err, WEFT_EMODEL, KEY_TOKENS ": found %llu tokens, expected 1 to %u",
                         (unsigned long long)texts->count, WEFT_VOCAB_MAX);
    if (v->kind == WEFT_TOKENIZER_SPM)
        r = find_array(g, KEY_SCORES, WEFT_GGUF_F32, WEFT_GGUF_F32, texts->count, &scores, err);
    if (r == 0)
        r = find_array(g, KEY_TYPES, WEFT_GGUF_I32, WEFT_GGUF_U32, texts->count, &types, err);
    if (r < 0)
        return r;

    v->n_tokens = (uint32_t)texts->count;
    v->tokens = calloc(v->n_tokens, sizeof *v->tokens);
    if (v->tokens == NULL)
        return weft_fail(err, WEFT_ENOMEM, "vocabulary: no memory for %u tokens", v->n_tokens);
    uint64_t pos = 0;
    size_t total = 0;
    for (uint32_t id = 0; id < v->n_tokens; id++) {
        struct weft_gguf_string text;
        float score = 0;
        int32_t type;
        if (!weft_gguf_next_string(texts, &pos, &text))
            return weft_fail(err, WEFT_EMODEL, KEY_TOKENS "[%u]: missing", id);
        if (scores != NULL)
            memcpy(&score, scores->data + 4 * (size_t)id, sizeof score);
        memcpy(&type, types->data + 4 * (size_t)id, sizeof type);
        if ((r = check_token(id, &text, score, type, err)) < 0)
            return r;
        v->tokens[id] = (struct weft_token){.text = text.data,
                                            .text_size = (uint32_t)text.size,
                                            .score = score,
                                            .type = true_type(&text, type)};
        total += 2 * (size_t)text.size + 3; /* the piece is no longer than its text or U+FFFD */
    }
    v->bytes = malloc(total);
    if (v->bytes == NULL)
        return weft_fail(err, WEFT_ENOMEM, "vocabulary: no memory for %zu bytes of text", total);
    size_t used = 0;
    for (uint32_t id = 0; id < v->n_tokens; id++)
        used += copy_token(v->kind, &v->tokens[id], v->bytes + used);
    return 0;
}

static int hex_digit(char c)
{
    const char *digits = "0123456789ABCDEF", *at = c != '\0' ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

/* Byte tokens are spelt <0xNN>: either all 256 of them or none. Byte-level BPE has others. */
static int read_bytes(struct weft_vocab *v, weft_err *err)
{
    unsigned found = 0;
    for (size_t i = 0; i < 256; i++)
        v->byte_ids[i] = -1;
    for (uint32_t id = 0; id < v->n_tokens; id++) {
        const struct weft_token *token = &v->tokens[id];
        if (token->type != WEFT_TOKEN_BYTE)
            continue;
        const char *s = token->text;
        bool shaped = token->text_size == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>';
        int high = shaped ? hex_digit(s[3]) : -1, low = shaped ? hex_digit(s[4]) : -1;
        if (high < 0 || low < 0)
            return weft_fail(err, WEFT_EMODEL,
                             KEY_TOKENS "[%u]: is a byte token, expected a text like <0x0A>", id);
        int byte = 16 * high + low;
        v->bytes[token->piece - v->bytes] = (char)byte;
        found += v->byte_ids[byte] < 0;
        if (v->byte_ids[byte] < 0)
            v->byte_ids[byte] = (int32_t)id;
    }
    if (v->kind == WEFT_TOKENIZER_SPM && found != 0 && found != 256)
        return weft_fail(err, WEFT_EMODEL,
                         KEY_TYPES ": found tokens for %u bytes, expected all 256 or none", found);
    return 0;
}

/* The id a key gives; where the key is missing, that of SentencePiece's own order (-1: none), if
 * the token there has the type that goes with it; else -1. */
static int read_id(const struct weft_gguf *g, const struct weft_vocab *v, const char *key,
                   int32_t usual, enum weft_token_type type, int32_t *ret, weft_err *err)
{
    uint32_t id;
    if (weft_gguf_kv(g, key) == NULL) {
        bool there = usual >= 0 && (uint32_t)usual < v->n_tokens && v->tokens[usual].type == type;
        *ret = there ? usual : -1;
        return 0;
    }
    int r = weft_gguf_u32(g, key, &id, err);
    if (r < 0)
        return r;
    if (id >= v->n_tokens)
        return weft_fail(err, WEFT_EMODEL, "%s: found %u, expected an id below %u", key, id,
                         v->n_tokens);
    *ret = (int32_t)id;
    return 0;
}

static int read_flag(const struct weft_gguf *g, const char *key, bool usual, bool *ret,
                     weft_err *err)
{
    *ret = usual;
    return weft_gguf_kv(g, key) != NULL ? weft_gguf_bool(g, key, ret, err) : 0;
}

static int read_special_ids(const struct weft_gguf *g, struct weft_vocab *v, weft_err *err)
{
    const bool spm = v->kind == WEFT_TOKENIZER_SPM;
    const struct {
        const char *key;
        int32_t usual;
        enum weft_token_type type;
        int32_t *id;
    } ids[] = {
        {"tokenizer.ggml.unknown_token_id", spm ? 0 : -1, WEFT_TOKEN_UNKNOWN, &v->unknown},
        {"tokenizer.ggml.bos_token_id", spm ? 1 : -1, WEFT_TOKEN_CONTROL, &v->bos},
        {"tokenizer.ggml.eos_token_id", spm ? 2 : -1, WEFT_TOKEN_CONTROL, &v->eos},
        {"tokenizer.ggml.eot_token_id", -1, WEFT_TOKEN_CONTROL, &v->eot},
        {"tokenizer.ggml.eom_token_id", -1, WEFT_TOKEN_CONTROL, &v->eom},
    };
    const struct {
        const char *key;
        bool usual;
        bool *flag;
    } flags[] = {
        {"tokenizer.ggml.add_bos_token",
         spm || (weft_pretokenizer_flags(v->pre) & WEFT_PRE_ADD_BOS) != 0, &v->add_bos},
        {"tokenizer.ggml.add_eos_token", false, &v->add_eos},
        {"tokenizer.ggml.add_space_prefix", spm, &v->add_space_prefix},
    };
    int r = 0;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0] && r == 0; i++)
        r = read_id(g, v, ids[i].key, ids[i].usual, ids[i].type, ids[i].id, err);
    for (size_t i = 0; i < sizeof flags / sizeof flags[0] && r == 0; i++)
        r = read_flag(g, flags[i].key, flags[i].usual, flags[i].flag, err);
    if (r < 0)
        return r;
    v->add_space_prefix = v->add_space_prefix && spm; /* BPE never does, whatever its file says */
    if (spm && v->byte_ids[0] < 0 && v->unknown < 0)
        return weft_fail(
            err, WEFT_EMODEL,
            "key tokenizer.ggml.unknown_token_id is missing, and there are no byte tokens: "
            "nothing could stand for a character that is not in the vocabulary");
    return 0;
}

static void add_stop(struct weft_vocab *v, int32_t id)
{
    size_t at = 0;
    while (at < v->n_stops && v->stops[at] < id)
        at++;
    if (id < 0 || (at < v->n_stops && v->stops[at] == id) || v->n_stops == WEFT_TOKENIZER_STOPS_MAX)
        return;
    memmove(&v->stops[at + 1], &v->stops[at], (v->n_stops - at) * sizeof v->stops[0]);
    v->stops[at] = id;
    v->n_stops++;
}

/* The control token of a name, -1: none. */
static int32_t find_control(const struct weft_vocab *v, const char *name)
{
    int32_t id = weft_vocab_find(v, &v->specials, name, strlen(name));
    return id >= 0 && v->tokens[id].type == WEFT_TOKEN_CONTROL ? id : -1;
}

static void read_stops(struct weft_vocab *v)
{
    _Static_assert(N_STOP_NAMES + 3 <= WEFT_TOKENIZER_STOPS_MAX, "all names and three ids fit");
    /* There <|end|> closes one message of several, and the others the answer. */
    const bool harmony = find_control(v, "<|return|>") >= 0 && find_control(v, "<|call|>") >= 0;
    add_stop(v, v->eos);
    add_stop(v, v->eot);
    add_stop(v, v->eom);
    for (size_t i = 0; i < N_STOP_NAMES; i++) {
        if (!harmony || strcmp(stop_names[i], "<|end|>") != 0)
            add_stop(v, find_control(v, stop_names[i]));
    }
}

/* True if the lower-case text of a key holds part. */
static bool key_holds(const struct weft_gguf *g, const char *key, const char *part)
{
    struct weft_gguf_string value;
    if (weft_gguf_kv(g, key) == NULL || weft_gguf_str(g, key, &value, NULL) < 0)
        return false;
    const size_t n = strlen(part);
    for (size_t i = 0; i + n <= value.size; i++) {
        if (strncasecmp(value.data + i, part, n) == 0)
            return true;
    }
    return false;
}

static void set_strip(const struct strip *strip, struct weft_token *token)
{
    if (strip->token != NULL && !text_is(token->text, token->text_size, strip->token))
        return;
    for (size_t i = 0; strip->token == NULL && i < N_NEVER_STRIPPED; i++) {
        if (text_is(token->text, token->text_size, never_stripped[i]))
            return;
    }
    token->lstrip = token->lstrip || strip->left;
    token->rstrip = token->rstrip || !strip->left;
}

static void read_strips(const struct weft_gguf *g, struct weft_vocab *v)
{
    for (size_t i = 0; i < sizeof strips / sizeof strips[0]; i++) {
        if (!key_holds(g, strips[i].key, strips[i].part))
            continue;
        for (uint32_t id = 0; id < v->n_tokens; id++) {
            if (weft_token_is_special(v->tokens[id].type))
                set_strip(&strips[i], &v->tokens[id]);
        }
    }
}

/* True if a space mark stands behind another character. */
static bool holds_inner_space(const struct weft_token *token)
{
    for (size_t i = 1; i + WEFT_SPACE_MARK_SIZE <= token->text_size; i++) {
        if (memcmp(token->text + i, WEFT_SPACE_MARK, WEFT_SPACE_MARK_SIZE) != 0)
            continue;
        if (i < WEFT_SPACE_MARK_SIZE || memcmp(token->text + i - WEFT_SPACE_MARK_SIZE,
                                               WEFT_SPACE_MARK, WEFT_SPACE_MARK_SIZE) != 0)
            return true;
    }
    return false;
}

/* Notes the length and the first byte of special token id. */
static int add_length(struct weft_vocab *v, uint32_t id, weft_err *err)
{
    const struct weft_token *token = &v->tokens[id];
    size_t at = 0;
    if (token->text_size > WEFT_SPECIAL_SIZE_MAX)
        return weft_fail(err, WEFT_EMODEL,
                         KEY_TOKENS "[%u]: a special token of %u bytes, expected at most %u", id,
                         token->text_size, WEFT_SPECIAL_SIZE_MAX);
    while (at < v->n_lengths && v->lengths[at].size > token->text_size)
        at++;
    if (at == v->n_lengths || v->lengths[at].size != token->text_size) {
        struct weft_special_length *grown =
            realloc(v->lengths, (v->n_lengths + 1) * sizeof *v->lengths);
        if (grown == NULL)
            return weft_fail(err, WEFT_ENOMEM, "vocabulary: no memory for %zu lengths",
                             v->n_lengths + 1);
        v->lengths = grown;
        memmove(&grown[at + 1], &grown[at], (v->n_lengths - at) * sizeof *grown);
        grown[at] = (struct weft_special_length){.size = token->text_size};
        v->n_lengths++;
    }
    uint8_t first = (uint8_t)token->text[0];
    v->lengths[at].first[first / 8] |= (uint8_t)(1u << first % 8);
    v->lengths[at].user_defined |= token->type == WEFT_TOKEN_USER_DEFINED;
    return 0;
}

static int build_maps(struct weft_vocab *v, weft_err *err)
{
    uint32_t n_specials = 0;
    for (uint32_t id = 0; id < v->n_tokens; id++)
        n_specials += weft_token_is_special(v->tokens[id].type);
    v->pieces.by_piece = v->kind == WEFT_TOKENIZER_BPE;
    int r = map_init(&v->pieces, v->n_tokens, err);
    if (r == 0)
        r = map_init(&v->specials, n_specials, err);
    v->words = true;
    for (uint32_t id = 0; id < v->n_tokens && r == 0; id++) {
        const struct weft_token *token = &v->tokens[id];
        if (token->joins) {
            r = map_add(v, &v->pieces, id, err);
            v->words = v->words && !holds_inner_space(token);
        }
        if (r < 0 || !weft_token_is_special(token->type) || token->text_size == 0)
            continue;
        r = map_add(v, &v->specials, id, err);
        if (r == 0)
            r = add_length(v, id, err);
    }
    return r;
}

int weft_vocab_open(const struct weft_gguf *g, struct weft_vocab *ret, weft_err *err)
{
    struct weft_vocab v = {0};
    int r = read_kind(g, &v.kind, err);
    if (r == 0 && v.kind == WEFT_TOKENIZER_BPE)
        r = weft_vocab_open_pre(g, &v, err);
    if (r == 0)
        r = read_tokens(g, &v, err);
    if (r == 0)
        r = read_bytes(&v, err);
    if (r == 0)
        r = read_special_ids(g, &v, err);
    if (r == 0)
        r = build_maps(&v, err);
    if (r == 0 && v.kind == WEFT_TOKENIZER_BPE)
        r = weft_vocab_open_merges(g, &v, err);
    if (r < 0) {
        weft_vocab_done(&v);
        return r;
    }
    read_stops(&v);
    read_strips(g, &v);
    *ret = v;
    return 0;
}

void weft_vocab_done(struct weft_vocab *v)
{
    free(v->tokens);
    free(v->bytes);
    free(v->pieces.slots);
    free(v->specials.slots);
    free(v->lengths);
    free(v->merges.slots);
    weft_pretokenizer_close(v->pre);
    *v = (struct weft_vocab){0};
}
