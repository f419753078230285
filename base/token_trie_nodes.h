/*
 * Inside of the token trie, for its walk by a grammar (base/grammar_mask.c).
 */
#ifndef WEFT_BASE_TOKEN_TRIE_NODES_H
#define WEFT_BASE_TOKEN_TRIE_NODES_H

#include "base/token_trie.h"

/* Bytes come in groups, one bit each, that a grammar is likely to treat alike. */
#define WEFT_BYTE_GROUPS 32u
unsigned weft_byte_group(uint8_t byte);

struct weft_token_trie_node {
    uint32_t end; /* index of the first node that is not below this one */
    uint32_t
        first; /* tokens[first .. next node's first) end here, up to nodes[end].first lie below */
    uint32_t groups; /* of all bytes below this node, its own not among them */
    uint16_t depth;  /* from 1 */
    uint8_t byte;
};

struct weft_token_trie {
    uint32_t n_texts, n_tokens, n_nodes, max_depth;
    uint32_t *tokens;                   /* [n_tokens] ids in the order of their bytes */
    struct weft_token_trie_node *nodes; /* [n_nodes + 1]; the last is only an end */
};

#endif
