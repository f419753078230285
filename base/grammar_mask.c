/*
 * Grammars: which tokens of a vocabulary are allowed.
 *
 * The trie is walked depth first beside the automaton of spots: a dead spot skips all that lies
 * below. Where a spot keeps to itself for every byte below a node (inside a string, say), all
 * tokens there are allowed without a look at them. Masks of the last spots are remembered.
 *
 * Invariant: a bit is set exactly when accept would take the token. One owner, any thread.
 */
#include <stdlib.h>
#include <string.h>

#include "base/grammar_walk.h"
#include "base/token_trie_nodes.h"

void weft_grammar_forget_masks(struct weft_grammar_state *s)
{
    for (size_t i = 0; i < WEFT_MASKS_MAX; i++) {
        s->masks[i].spot = WEFT_SPOT_NONE;
        s->masks[i].used = 0;
    }
}

void weft_grammar_drop_masks(struct weft_grammar_state *s)
{
    weft_grammar_forget_masks(s);
    for (size_t i = 0; i < WEFT_MASKS_MAX; i++) {
        free(s->masks[i].allowed);
        s->masks[i].allowed = NULL;
    }
    free(s->path);
    s->path = NULL;
    s->trie = NULL;
}

/* True in *ret when every byte of these groups leads from the spot back to it. */
static int keeps_to_itself(struct weft_grammar_state *s, uint16_t spot, uint32_t groups, bool *ret,
                           weft_err *err)
{
    uint32_t unknown = groups & ~s->spots[spot].groups_known;
    *ret = false;
    if ((groups & s->spots[spot].groups_known & ~s->spots[spot].groups_kept) != 0)
        return 0;
    while (unknown != 0) {
        const unsigned group = (unsigned)__builtin_ctz(unknown);
        uint16_t next = spot;
        for (unsigned byte = 0; byte < 256 && next == spot; byte++) {
            if (weft_byte_group((uint8_t)byte) != group)
                continue;
            int r = weft_grammar_next(s, spot, (uint8_t)byte, &next, err);
            if (r < 0)
                return r;
        }
        s->spots[spot].groups_known |= 1u << group;
        if (next != spot)
            return 0;
        s->spots[spot].groups_kept |= 1u << group;
        unknown &= unknown - 1;
    }
    *ret = true;
    return 0;
}

static void allow(const struct weft_token_trie *t, uint32_t from, uint32_t to, uint64_t *allowed)
{
    for (uint32_t i = from; i < to; i++)
        allowed[t->tokens[i] / 64] |= (uint64_t)1 << t->tokens[i] % 64;
}

static int walk(struct weft_grammar_state *s, uint64_t *allowed, bool *ret_any, weft_err *err)
{
    const struct weft_token_trie *t = s->trie;
    const uint64_t work = s->work;
    uint16_t over = WEFT_SPOT_DEAD;
    *ret_any = false;
    s->path[0] = s->now;
    for (uint32_t i = 0; i < t->n_nodes;) {
        const struct weft_token_trie_node *node = &t->nodes[i];
        uint16_t spot;
        bool all = true;
        int r = weft_grammar_next(s, s->path[node->depth - 1], node->byte, &spot, err);
        if (r < 0)
            return r;
        if (s->work - work > WEFT_GRAMMAR_WORK_MAX)
            return weft_fail(err, WEFT_ELIMIT,
                             "grammar: too ambiguous: more than %u places to visit for one token",
                             WEFT_GRAMMAR_WORK_MAX);
        if (spot < WEFT_SPOT_FIRST) {
            over = spot > over ? spot : over;
            i = node->end;
            continue;
        }
        s->path[node->depth] = spot;
        if (node->groups != 0 && (r = keeps_to_itself(s, spot, node->groups, &all, err)) < 0)
            return r;
        const uint32_t end = all ? node->end : i + 1;
        *ret_any |= t->nodes[end].first > node->first;
        allow(t, node->first, t->nodes[end].first, allowed);
        i = end;
    }
    if (!*ret_any && over != WEFT_SPOT_DEAD && !s->spots[s->now].may_end)
        return weft_grammar_refuse_spot(over, err);
    return 0;
}

/* Makes the trie that of this state: room for its masks. */
static int take_trie(struct weft_grammar_state *s, const struct weft_token_trie *t, weft_err *err)
{
    if (s->trie == t)
        return 0;
    weft_grammar_drop_masks(s);
    s->path = calloc((size_t)t->max_depth + 1, sizeof *s->path);
    if (s->path == NULL)
        return weft_fail(err, WEFT_ENOMEM, "grammar: no memory for tokens of %u bytes",
                         t->max_depth);
    s->trie = t;
    return 0;
}

/* The mask of this spot, or the one that was not used for longest, empty. */
static int find_mask(struct weft_grammar_state *s, size_t words, struct weft_mask **ret,
                     weft_err *err)
{
    struct weft_mask *oldest = &s->masks[0];
    for (size_t i = 0; i < WEFT_MASKS_MAX; i++) {
        struct weft_mask *mask = &s->masks[i];
        if (mask->spot == s->now) {
            *ret = mask;
            return 0;
        }
        if (mask->used < oldest->used)
            oldest = mask;
    }
    if (oldest->allowed == NULL &&
        (oldest->allowed = malloc((words + 1) * sizeof *oldest->allowed)) == NULL)
        return weft_fail(err, WEFT_ENOMEM, "grammar: no memory for a mask of %zu bytes",
                         words * sizeof *oldest->allowed);
    oldest->spot = WEFT_SPOT_NONE;
    *ret = oldest;
    return 0;
}

int weft_grammar_mask(struct weft_grammar_state *s, const struct weft_token_trie *t,
                      uint64_t *allowed, weft_err *err)
{
    const size_t words = ((size_t)t->n_texts + 63) / 64;
    uint16_t *const kept[] = {&s->start, &s->now};
    struct weft_mask *mask = NULL;
    int r = weft_grammar_make_room(s, kept, sizeof kept / sizeof kept[0], err);
    if (r < 0 || (r = take_trie(s, t, err)) < 0 || (r = find_mask(s, words, &mask, err)) < 0)
        return r;
    if (mask->spot == WEFT_SPOT_NONE) {
        memset(mask->allowed, 0, words * sizeof *mask->allowed);
        if ((r = walk(s, mask->allowed, &mask->any, err)) < 0)
            return r;
        mask->spot = s->now;
    }
    mask->used = ++s->clock;
    if (!mask->any && !weft_grammar_may_end(s))
        return weft_fail(err, WEFT_ESTATE, "grammar: no token of the vocabulary goes on from here");
    memcpy(allowed, mask->allowed, words * sizeof *allowed);
    return 0;
}
