/*
 * Token trie: tokens sorted by their bytes are already the depth-first order of the tree.
 */
#include "base/token_trie_nodes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

unsigned weft_byte_group(uint8_t byte)
{
    /* What JSON, source code and most grammars tell apart. */
    static const char singles[] = "\n \"\\{}[]():,.-+*/_<>='#";
    if (byte >= 'a' && byte <= 'z')
        return 0;
    if (byte >= 'A' && byte <= 'Z')
        return 1;
    if (byte >= '0' && byte <= '9')
        return 2;
    if (byte >= 0x80)
        return 3;
    const char *at = byte == 0 ? NULL : memchr(singles, byte, sizeof singles - 1);
    if (at != NULL)
        return 6 + (unsigned)(at - singles);
    return byte < 0x20 || byte == 0x7F ? 4 : 5;
}

static int compare(const void *a, const void *b, void *ctx)
{
    const struct weft_token_text *texts = ctx;
    const uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    const struct weft_token_text *x = &texts[i], *y = &texts[j];
    int r = memcmp(x->bytes, y->bytes, x->size < y->size ? x->size : y->size);
    if (r != 0)
        return r;
    if (x->size != y->size)
        return x->size < y->size ? -1 : 1;
    return i < j ? -1 : i > j;
}

static uint32_t common_prefix(const struct weft_token_text *a, const struct weft_token_text *b)
{
    uint32_t n = 0;
    while (n < a->size && n < b->size && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Nodes for the sorted tokens. path[d] is the open node of depth d + 1. */
static void fill(struct weft_token_trie *t, const struct weft_token_text *texts, uint32_t *path)
{
    uint32_t n = 0, depth = 0;
    for (uint32_t i = 0; i <= t->n_tokens; i++) {
        const struct weft_token_text *now = i < t->n_tokens ? &texts[t->tokens[i]] : NULL;
        const uint32_t shared =
            now != NULL && i > 0 ? common_prefix(&texts[t->tokens[i - 1]], now) : 0;
        for (; depth > shared; depth--) {
            struct weft_token_trie_node *node = &t->nodes[path[depth - 1]];
            node->end = n;
            if (depth > 1)
                t->nodes[path[depth - 2]].groups |=
                    node->groups | 1u << weft_byte_group(node->byte);
        }
        for (; now != NULL && depth < now->size; depth++) {
            path[depth] = n;
            t->nodes[n++] = (struct weft_token_trie_node){
                .first = i, .depth = (uint16_t)(depth + 1), .byte = (uint8_t)now->bytes[depth]};
        }
    }
    t->nodes[n] = (struct weft_token_trie_node){.end = n, .first = t->n_tokens};
}

/* Refuses what would not fit into the types of a node; counts what there is to store. */
static int measure(const struct weft_token_text *texts, uint32_t n, uint32_t *ret_tokens,
                   weft_err *err)
{
    uint64_t bytes = 0;
    uint32_t count = 0;
    if (n > WEFT_TOKEN_TRIE_TOKENS_MAX)
        return weft_fail(err, WEFT_ELIMIT, "vocabulary of %u tokens, at most %u are supported", n,
                         WEFT_TOKEN_TRIE_TOKENS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        if (texts[i].size > WEFT_TOKEN_TRIE_DEPTH_MAX)
            return weft_fail(err, WEFT_ELIMIT, "token %u has %u bytes, at most %u are supported", i,
                             texts[i].size, WEFT_TOKEN_TRIE_DEPTH_MAX);
        bytes += texts[i].size;
        count += texts[i].size > 0;
    }
    if (bytes > WEFT_TOKEN_TRIE_BYTES_MAX)
        return weft_fail(err, WEFT_ELIMIT, "vocabulary of %llu bytes, at most %u are supported",
                         (unsigned long long)bytes, WEFT_TOKEN_TRIE_BYTES_MAX);
    *ret_tokens = count;
    return 0;
}

int weft_token_trie_open(const struct weft_token_text *texts, uint32_t n,
                         struct weft_token_trie **ret, weft_err *err)
{
    uint32_t *path = NULL, n_tokens = 0;
    struct weft_token_trie *t = NULL;
    int r = measure(texts, n, &n_tokens, err);
    if (r < 0)
        return r;
    t = calloc(1, sizeof *t);
    if (t == NULL || (t->tokens = calloc((size_t)n_tokens + 1, sizeof *t->tokens)) == NULL)
        goto no_memory;
    t->n_texts = n;
    for (uint32_t i = 0; i < n; i++)
        if (texts[i].size > 0)
            t->tokens[t->n_tokens++] = i;
    qsort_r(t->tokens, t->n_tokens, sizeof *t->tokens, compare, (void *)texts);
    for (uint32_t i = 0; i < t->n_tokens; i++) {
        const struct weft_token_text *now = &texts[t->tokens[i]];
        t->n_nodes += now->size - (i > 0 ? common_prefix(&texts[t->tokens[i - 1]], now) : 0);
        t->max_depth = now->size > t->max_depth ? now->size : t->max_depth;
    }
    t->nodes = calloc((size_t)t->n_nodes + 1, sizeof *t->nodes);
    path = calloc((size_t)t->max_depth + 1, sizeof *path);
    if (t->nodes == NULL || path == NULL)
        goto no_memory;
    fill(t, texts, path);
    free(path);
    *ret = t;
    return 0;
no_memory:
    free(path);
    weft_token_trie_close(t);
    return weft_fail(err, WEFT_ENOMEM, "no memory for the trie of %u tokens", n);
}

void weft_token_trie_close(struct weft_token_trie *t)
{
    if (t == NULL)
        return;
    free(t->tokens);
    free(t->nodes);
    free(t);
}

uint32_t weft_token_trie_count(const struct weft_token_trie *t)
{
    return t->n_texts;
}
