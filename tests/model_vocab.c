/*
 * Vocabularies of made-up models, see model_vocab.h.
 *
 * Invariant: no two tokens of a result that the source did not have twice are equal (engines look
 * tokens up by their text).
 */
#include "tests/model_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/model.h"
#include "coordinator/vocab.h"

#define TOKENS_KEY "tokenizer.ggml.tokens"
#define UNUSED_SCORE (-10000.0f) /* as converters give to tokens that stand for nothing */
#define SPECIALS_MAX 64          /* keys that name an id; published files have about ten */

static void *must(void *p)
{
    if (p == NULL)
        abort();
    return p;
}

/* An array of strings that grows, as the file has it, and the strings in order for look-ups. */
struct texts {
    uint8_t *data;
    size_t size, capacity;
    struct weft_gguf_string *sorted;
    size_t n;
};

static void texts_add(struct texts *t, const char *text, uint64_t size)
{
    const size_t n = (size_t)size;
    if (t->size + n + 8 > t->capacity) {
        t->capacity = 2 * t->capacity + n + 8;
        t->data = must(realloc(t->data, t->capacity));
    }
    memcpy(t->data + t->size, &size, 8);
    memcpy(t->data + t->size + 8, text, n);
    t->size += n + 8;
    t->n++;
}

static void texts_done(struct texts *t)
{
    free(t->data);
    free(t->sorted);
}

static int by_text(const void *a, const void *b)
{
    const struct weft_gguf_string *x = a, *y = b;
    int r = memcmp(x->data, y->data, (size_t)(x->size < y->size ? x->size : y->size));
    return r != 0 ? r : (x->size > y->size) - (x->size < y->size);
}

static void texts_sort(struct texts *t)
{
    t->sorted = must(malloc((t->n + 1) * sizeof *t->sorted));
    const uint8_t *p = t->data;
    for (size_t i = 0; i < t->n; i++) {
        memcpy(&t->sorted[i].size, p, 8);
        t->sorted[i].data = (const char *)p + 8;
        p += 8 + t->sorted[i].size;
    }
    qsort(t->sorted, t->n, sizeof *t->sorted, by_text);
}

static bool texts_have(const struct texts *t, const char *text, uint64_t size)
{
    struct weft_gguf_string s = {text, size};
    return bsearch(&s, t->sorted, t->n, sizeof s, by_text) != NULL;
}

static bool key_is(const struct weft_gguf_kv *kv, const char *key)
{
    return kv->key.size == strlen(key) && memcmp(kv->key.data, key, kv->key.size) == 0;
}

static bool key_ends(const struct weft_gguf_kv *kv, const char *end)
{
    const size_t n = strlen(end);
    return kv->key.size >= n && memcmp(kv->key.data + kv->key.size - n, end, n) == 0;
}

/* ------------------------------------------------------------------ copying */

struct copying {
    struct gguf_writer *w;
    const struct weft_gguf *g;
    struct weft_gguf_string *tokens; /* [have] of the source */
    uint32_t have, n;
    uint32_t *from; /* [n] source of each token; have: filled up */
    struct texts texts;
};

static int read_tokens(struct copying *c, weft_err *err)
{
    const struct weft_gguf_kv *kv = weft_gguf_kv(c->g, TOKENS_KEY);
    if (kv == NULL || kv->type != WEFT_GGUF_ARRAY || kv->item_type != WEFT_GGUF_STRING ||
        kv->count == 0 || kv->count > WEFT_VOCAB_MAX)
        return weft_fail(err, WEFT_EMODEL, "key %s: expected an array of 1 to %u strings",
                         TOKENS_KEY, WEFT_VOCAB_MAX);
    c->have = (uint32_t)kv->count;
    c->n = c->n != 0 ? c->n : c->have;
    c->tokens = must(calloc(c->have, sizeof *c->tokens));
    c->from = must(calloc(c->n, sizeof *c->from));
    uint64_t pos = 0;
    for (uint32_t i = 0; i < c->have && weft_gguf_next_string(kv, &pos, &c->tokens[i]); i++)
        continue;
    return 0;
}

/* Which token stands where. Tokens that a key names and that would be left out take the last
 * places which no other key names. */
static int place_tokens(struct copying *c, weft_err *err)
{
    uint32_t special[SPECIALS_MAX], n_special = 0, at = c->n;
    for (uint32_t i = 0; i < c->n; i++)
        c->from[i] = i < c->have ? i : c->have;
    for (uint64_t i = 0; i < c->g->n_kvs; i++) {
        const struct weft_gguf_kv *kv = &c->g->kvs[i];
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)kv->key.size, kv->key.data);
        if (strncmp(key, "tokenizer.", 10) != 0 || !key_ends(kv, "_token_id"))
            continue;
        if (n_special == SPECIALS_MAX)
            return weft_fail(err, WEFT_EMODEL, "key %s: found more than %d such keys", key,
                             SPECIALS_MAX);
        int r = weft_gguf_u32(c->g, key, &special[n_special], err);
        if (r < 0)
            return r;
        if (special[n_special] >= c->have)
            return weft_fail(err, WEFT_EMODEL, "key %s: found %u, expected less than %u", key,
                             special[n_special], c->have);
        n_special++;
    }
    for (uint32_t i = 0; i < n_special; i++) {
        bool placed = special[i] < c->n;
        for (uint32_t k = at; k < c->n && !placed; k++)
            placed = c->from[k] == special[i];
        if (placed)
            continue;
        for (bool taken = true; taken;) {
            at--; /* ends: MODEL_VOCAB_MIN is far above SPECIALS_MAX */
            taken = false;
            for (uint32_t k = 0; k < n_special; k++)
                taken = taken || special[k] == at;
        }
        c->from[at] = special[i];
    }
    return 0;
}

static void make_texts(struct copying *c)
{
    struct texts known = {0};
    uint32_t unused = 0;
    for (uint32_t i = 0; i < c->have; i++)
        texts_add(&known, c->tokens[i].data, c->tokens[i].size);
    texts_sort(&known);
    for (uint32_t i = 0; i < c->n; i++) {
        char text[32];
        if (c->from[i] < c->have) {
            texts_add(&c->texts, c->tokens[c->from[i]].data, c->tokens[c->from[i]].size);
            continue;
        }
        do
            snprintf(text, sizeof text, "<unused%u>", unused++);
        while (texts_have(&known, text, strlen(text)));
        texts_add(&c->texts, text, strlen(text));
    }
    texts_sort(&c->texts);
    texts_done(&known);
}

/* An array of one value of 4 bytes for each token. */
static void copy_values(const struct copying *c, const char *key, const struct weft_gguf_kv *kv,
                        const void *filler)
{
    uint8_t *values = must(malloc((size_t)c->n * 4));
    for (uint32_t i = 0; i < c->n; i++)
        memcpy(values + (size_t)i * 4,
               c->from[i] < c->have ? kv->data + (size_t)c->from[i] * 4 : filler, 4);
    gguf_writer_array(c->w, key, kv->item_type, c->n, values, (size_t)c->n * 4);
    free(values);
}

/* Joins of byte-pair encoding: those whose result is still a token. */
static void copy_merges(const struct copying *c, const char *key, const struct weft_gguf_kv *kv)
{
    struct texts kept = {0};
    struct weft_gguf_string s;
    char joined[2 * WEFT_TOKENIZER_PIECE_MAX];
    for (uint64_t pos = 0; weft_gguf_next_string(kv, &pos, &s);) {
        const char *space =
            s.size >= 3 && s.size < sizeof joined ? memchr(s.data + 1, ' ', s.size - 1) : NULL;
        if (space == NULL)
            continue;
        const size_t left = (size_t)(space - s.data), right = (size_t)s.size - left - 1;
        memcpy(joined, s.data, left);
        memcpy(joined + left, space + 1, right);
        if (texts_have(&c->texts, joined, left + right))
            texts_add(&kept, s.data, s.size);
    }
    gguf_writer_array(c->w, key, WEFT_GGUF_STRING, kept.n, kept.data, kept.size);
    texts_done(&kept);
}

static uint32_t new_id(const struct copying *c, uint32_t id)
{
    for (uint32_t i = 0; i < c->n; i++)
        if (c->from[i] == id)
            return i;
    abort(); /* place_tokens has placed it */
}

static int copy_key(const struct copying *c, const struct weft_gguf_kv *kv, weft_err *err)
{
    const float score = UNUSED_SCORE;
    const int32_t type = WEFT_TOKEN_UNUSED;
    char key[128];
    const int size = snprintf(key, sizeof key, "%.*s", (int)kv->key.size, kv->key.data);
    if (size < 0 || (size_t)size >= sizeof key)
        return weft_fail(err, WEFT_EMODEL, "key %s…: found %llu bytes, expected at most %zu", key,
                         (unsigned long long)kv->key.size, sizeof key - 1);
    if (key_is(kv, TOKENS_KEY)) {
        gguf_writer_array(c->w, key, WEFT_GGUF_STRING, c->n, c->texts.data, c->texts.size);
    } else if (key_is(kv, "tokenizer.ggml.scores") || key_is(kv, "tokenizer.ggml.token_type")) {
        const bool scores = key_is(kv, "tokenizer.ggml.scores");
        if (kv->type != WEFT_GGUF_ARRAY || kv->count != c->have || kv->size != 4 * kv->count ||
            kv->item_type != (scores ? WEFT_GGUF_F32 : WEFT_GGUF_I32))
            return weft_fail(err, WEFT_EMODEL, "key %s: expected an array of %u %s", key, c->have,
                             scores ? "f32" : "i32");
        copy_values(c, key, kv, scores ? (const void *)&score : &type);
    } else if (key_is(kv, "tokenizer.ggml.merges")) {
        if (kv->type != WEFT_GGUF_ARRAY || kv->item_type != WEFT_GGUF_STRING)
            return weft_fail(err, WEFT_EMODEL, "key %s: expected an array of strings", key);
        copy_merges(c, key, kv);
    } else if (key_ends(kv, "_token_id")) {
        uint32_t id = 0;
        int r = weft_gguf_u32(c->g, key, &id, err);
        if (r < 0)
            return r;
        gguf_writer_u32(c->w, key, new_id(c, id));
    } else if (kv->type == WEFT_GGUF_ARRAY) {
        gguf_writer_array(c->w, key, kv->item_type, kv->count, kv->data, (size_t)kv->size);
    } else {
        gguf_writer_raw(c->w, key, kv->type, kv->data, (size_t)kv->size);
    }
    return 0;
}

int model_vocab_copy(struct gguf_writer *w, const struct weft_gguf *g, uint32_t n, weft_err *err)
{
    struct copying c = {.w = w, .g = g, .n = n};
    int r = read_tokens(&c, err);
    if (r == 0 && n != 0 && n < c.have && n < MODEL_VOCAB_MIN)
        r = weft_fail(err, WEFT_EUSAGE, "vocabulary of %u: found %u, expected at least %u", c.have,
                      n, MODEL_VOCAB_MIN);
    if (r == 0)
        r = place_tokens(&c, err);
    if (r == 0)
        make_texts(&c);
    for (uint64_t i = 0; r == 0 && i < g->n_kvs; i++)
        if (g->kvs[i].key.size > 10 && memcmp(g->kvs[i].key.data, "tokenizer.", 10) == 0)
            r = copy_key(&c, &g->kvs[i], err);
    texts_done(&c.texts);
    free(c.tokens);
    free(c.from);
    return r;
}

/* ------------------------------------------------------------------ making */

void model_vocab_make(struct gguf_writer *w, uint32_t n)
{
    static const char *const specials[] = {"<unk>", "<s>", "</s>"};
    struct texts t = {0};
    float *scores = must(calloc(n, sizeof *scores));
    int32_t *types = must(calloc(n, sizeof *types));
    char text[32];
    for (uint32_t i = 0; i < n; i++) {
        if (i < 3) {
            snprintf(text, sizeof text, "%s", specials[i]);
            types[i] = i == 0 ? WEFT_TOKEN_UNKNOWN : WEFT_TOKEN_CONTROL;
        } else if (i < 3 + 256) {
            snprintf(text, sizeof text, "<0x%02X>", i - 3);
            types[i] = WEFT_TOKEN_BYTE;
        } else if (i < 3 + 256 + 95) { /* the space mark and the printable characters from '!' on */
            const char one[2] = {(char)(' ' + (i - 3 - 256)), '\0'};
            snprintf(text, sizeof text, "%s", one[0] == ' ' ? WEFT_SPACE_MARK : one);
            types[i] = WEFT_TOKEN_NORMAL;
            scores[i] = -1;
        } else {
            snprintf(text, sizeof text, "<unused%u>", i - 3 - 256 - 95);
            types[i] = WEFT_TOKEN_UNUSED;
            scores[i] = UNUSED_SCORE;
        }
        texts_add(&t, text, strlen(text));
    }
    gguf_writer_str(w, "tokenizer.ggml.model", "llama");
    gguf_writer_str(w, "tokenizer.ggml.pre", "default");
    gguf_writer_array(w, TOKENS_KEY, WEFT_GGUF_STRING, n, t.data, t.size);
    gguf_writer_array(w, "tokenizer.ggml.scores", WEFT_GGUF_F32, n, scores, n * sizeof *scores);
    gguf_writer_array(w, "tokenizer.ggml.token_type", WEFT_GGUF_I32, n, types, n * sizeof *types);
    gguf_writer_u32(w, "tokenizer.ggml.unknown_token_id", 0);
    gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", 1);
    gguf_writer_u32(w, "tokenizer.ggml.eos_token_id", 2);
    gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", true);
    gguf_writer_bool(w, "tokenizer.ggml.add_eos_token", false);
    free(scores);
    free(types);
    texts_done(&t);
}
