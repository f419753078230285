/*
 * Byte-level BPE's part of the vocabulary, see vocab.h: the alphabet in which its tokens are
 * written, and its merges. Runs while a vocabulary is opened, on the caller's thread.
 *
 * Invariant: both sides of a merge and what they become are tokens that joining may make, so no
 * merge ever gives a control token.
 *
 * Source: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), and the
 * encoder.py published with it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/vocab.h"

#define KEY_PRE "tokenizer.ggml.pre"
#define KEY_MERGES "tokenizer.ggml.merges"

/* ------------------------------------------------------------------ alphabet */

/* GPT-2 writes a byte as the character of its number where that is printable, and the other 68 in
 * their order as U+0100 and on. */
static bool printable_byte(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

/* The byte of a character, -1 when it is none of the alphabet. */
static int alphabet_byte(uint32_t code)
{
    if (code < 0x100)
        return printable_byte(code) ? (int)code : -1;
    if (code <= 0x120) /* 0x00..0x20 */
        return (int)code - 0x100;
    if (code <= 0x142) /* 0x7F..0xA0 */
        return (int)code - 0x121 + 0x7F;
    return code == 0x143 ? 0xAD : -1;
}

size_t weft_byte_alphabet_decode(const char *text, size_t n, char *out)
{
    size_t size = 0;
    for (size_t i = 0; i < n;) {
        uint32_t code;
        size_t step = weft_utf8_decode(text + i, n - i, &code);
        int byte = step > 0 ? alphabet_byte(code) : -1;
        if (byte < 0)
            return SIZE_MAX;
        out[size++] = (char)byte;
        i += step;
    }
    return size;
}

/* ------------------------------------------------------------------ pre-tokenizer and bytes */

int weft_vocab_open_pre(const struct weft_gguf *g, struct weft_vocab *v, weft_err *err)
{
    struct weft_gguf_string name = {.data = "", .size = 0};
    int r = weft_gguf_kv(g, KEY_PRE) != NULL ? weft_gguf_str(g, KEY_PRE, &name, err) : 0;
    if (r < 0)
        return r;
    if (name.size > 0) {
        char quoted[WEFT_QUOTE_SIZE];
        weft_quote(quoted, sizeof quoted, name.data, (size_t)name.size);
        memcpy(v->pre_name, quoted + 1, strlen(quoted) - 2); /* without its quotes */
    }
    r = weft_pretokenizer_open(name.data, (size_t)name.size, &v->pre, err);
    if (r == 0 && !weft_pretokenizer_known(v->pre))
        snprintf(v->warning, sizeof v->warning,
                 "%s%s%s; text is cut by the default rule, so its tokens may not be those that the "
                 "model was made for",
                 name.size > 0 ? KEY_PRE ": pre-tokenizer '" : "key " KEY_PRE " is missing",
                 v->pre_name, name.size > 0 ? "' is not known" : "");
    return r;
}

static void find_bytes(struct weft_vocab *v)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        v->byte_ids[byte] = weft_vocab_find(v, &v->pieces, &text, 1);
    }
}

/* ------------------------------------------------------------------ merges */

static uint32_t hash_pair(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32); /* Fibonacci hashing: the upper bits are the mixed ones */
}

/* The slot of a pair or a free one; NULL: neither within WEFT_PROBES_MAX. */
static struct weft_merge *find_slot(const struct weft_merge_map *map, int32_t left, int32_t right)
{
    const uint32_t first = hash_pair(left, right);
    for (uint32_t i = 0; i < WEFT_PROBES_MAX; i++) {
        struct weft_merge *slot = &map->slots[(first + i) & map->mask];
        if (slot->rank == WEFT_MERGES_MAX || (slot->left == left && slot->right == right))
            return slot;
    }
    return NULL;
}

const struct weft_merge *weft_vocab_merge(const struct weft_vocab *v, int32_t left, int32_t right)
{
    const struct weft_merge *slot = find_slot(&v->merges, left, right);
    return slot != NULL && slot->rank != WEFT_MERGES_MAX ? slot : NULL;
}

static int map_init(struct weft_merge_map *map, uint32_t count, weft_err *err)
{
    uint32_t n = 2;
    while (n < 2 * count) /* count is at most WEFT_MERGES_MAX */
        n *= 2;
    map->slots = malloc(n * sizeof *map->slots);
    if (map->slots == NULL)
        return weft_fail(err, WEFT_ENOMEM, "vocabulary: no memory for %u merges", count);
    for (uint32_t i = 0; i < n; i++)
        map->slots[i].rank = WEFT_MERGES_MAX;
    map->mask = n - 1;
    map->count = count;
    return 0;
}

/* "Ġt he": the tokens of both sides and of the whole. Sides or a whole that are no tokens make a
 * merge that never happens; of equal merges the first counts. */
static int add_merge(struct weft_vocab *v, uint32_t rank, const struct weft_gguf_string *line,
                     weft_err *err)
{
    char text[2 * WEFT_TOKENIZER_PIECE_MAX + 1], bytes[2 * WEFT_TOKENIZER_PIECE_MAX];
    /* A side is never empty, and the alphabet has no space. */
    const char *space = line->size > 1 ? memchr(line->data + 1, ' ', (size_t)line->size - 1) : NULL;
    if (space == NULL || line->size > sizeof text)
        return weft_fail(err, WEFT_EMODEL,
                         KEY_MERGES "[%u]: found %llu bytes, expected two tokens with a space "
                                    "between them",
                         rank, (unsigned long long)line->size);
    const size_t n = (size_t)line->size - 1, n_left = (size_t)(space - line->data);
    memcpy(text, line->data, n_left);
    memcpy(text + n_left, space + 1, n - n_left);
    const size_t left_size = weft_byte_alphabet_decode(text, n_left, bytes);
    const size_t size = weft_byte_alphabet_decode(text, n, bytes);
    if (size == SIZE_MAX || size > WEFT_TOKENIZER_PIECE_MAX)
        return 0;
    struct weft_merge merge = {
        .left = weft_vocab_find(v, &v->pieces, bytes, left_size),
        .right = weft_vocab_find(v, &v->pieces, bytes + left_size, size - left_size),
        .rank = rank,
        .id = weft_vocab_find(v, &v->pieces, bytes, size),
    };
    if (merge.left < 0 || merge.right < 0 || merge.id < 0)
        return 0;
    struct weft_merge *slot = find_slot(&v->merges, merge.left, merge.right);
    if (slot == NULL)
        return weft_fail(err, WEFT_EMODEL,
                         KEY_MERGES "[%u]: looking it up passes more than %u others; the pairs "
                                    "were chosen to make it slow",
                         rank, WEFT_PROBES_MAX);
    if (slot->rank == WEFT_MERGES_MAX)
        *slot = merge;
    return 0;
}

int weft_vocab_open_merges(const struct weft_gguf *g, struct weft_vocab *v, weft_err *err)
{
    const struct weft_gguf_kv *kv = weft_gguf_kv(g, KEY_MERGES);
    if (kv == NULL)
        return weft_fail(err, WEFT_EMODEL, "key " KEY_MERGES " is missing");
    if (kv->type != WEFT_GGUF_ARRAY || kv->item_type != WEFT_GGUF_STRING)
        return weft_fail(err, WEFT_EMODEL, KEY_MERGES ": found %s, expected an array of strings",
                         kv->type == WEFT_GGUF_ARRAY ? "an array of another type"
                                                     : weft_gguf_type_name(kv->type));
    if (kv->count > WEFT_MERGES_MAX)
        return weft_fail(err, WEFT_EMODEL, KEY_MERGES ": found %llu merges, expected at most %u",
                         (unsigned long long)kv->count, WEFT_MERGES_MAX);
    find_bytes(v);
    int r = map_init(&v->merges, (uint32_t)kv->count, err);
    uint64_t pos = 0;
    struct weft_gguf_string line;
    for (uint32_t rank = 0; r == 0 && weft_gguf_next_string(kv, &pos, &line); rank++)
        r = add_merge(v, rank, &line, err);
    return r;
}
