/*
 * Inside of a grammar's state, shared by grammar_state.c (the automaton) and grammar_mask.c.
 *
 * Where a text may stand in a grammar is a *spot*: a set of points. A point is a place of the
 * grammar (a set of bytes comes next) and a node. A node says where to go on when a rule ends: the
 * set of points from which that rule was begun, all at one place of the text. So nodes share their
 * tails, and texts that can be read in many ways take no more room than one (J. Earley, 1970; M.
 * Tomita's graph-structured stack, 1985). Equal nodes and equal spots are one (interned), which
 * makes the spots a finite automaton that is built as it is walked, with a table of the next spot
 * for each class of bytes.
 */
#ifndef WEFT_BASE_GRAMMAR_WALK_H
#define WEFT_BASE_GRAMMAR_WALK_H

#include "base/grammar_private.h"

struct weft_point {
    uint32_t place; /* in a node: where to go on, WEFT_PLACE_END behind the root rule */
    uint32_t node;
};

#define WEFT_PLACE_END UINT32_MAX

struct weft_node_of_grammar {
    uint32_t first, n; /* run of `returns`, sorted */
    uint32_t depth;    /* longest way to the root rule's node, which has 1 */
};

struct weft_spot {
    uint32_t first, n;     /* run of `points`, sorted */
    uint32_t groups_known; /* groups of bytes (token_trie_nodes.h) that were tried */
    uint32_t groups_kept;  /* those among them whose bytes all lead back to this spot */
    bool may_end;
};

/* Spots are numbered from 0; the first ones have no points. */
enum {
    WEFT_SPOT_DEAD,          /* not allowed */
    WEFT_SPOT_DEEP,          /* over WEFT_GRAMMAR_DEPTH_MAX */
    WEFT_SPOT_WIDE,          /* over WEFT_GRAMMAR_WIDTH_MAX */
    WEFT_SPOT_FIRST,         /* from here on the text is allowed */
    WEFT_SPOT_NONE = 0xFFFF, /* not yet known */
};
#define WEFT_SPOTS_MAX 0xFFFFu

struct weft_call {
    struct weft_point back;
    uint32_t next; /* of the same rule, or none */
};

/* What one step needs: fixed sizes from WEFT_GRAMMAR_WIDTH_MAX. */
struct weft_step {
    struct weft_point *kernel, *found, *returns; /* [WIDTH_MAX] */
    struct weft_call *calls;                     /* [WIDTH_MAX] */
    uint32_t *heap;       /* [WIDTH_MAX] ranks of rules to begin, least first */
    uint32_t *first_call; /* [n_rules] or none */
    struct weft_seen {
        struct weft_point point;
        uint32_t step;
    } * seen; /* [SEEN_SLOTS] points of the kernel */
    uint32_t n_kernel, n_found, n_calls, n_heap, number;
    bool may_end;
    uint16_t over; /* WEFT_SPOT_DEEP or _WIDE, or 0 */
};

#define WEFT_MASKS_MAX 16 /* remembered: 19 KiB each for 150000 tokens */

struct weft_mask {
    uint16_t spot; /* WEFT_SPOT_NONE: empty */
    bool any;      /* a token is allowed */
    uint64_t used; /* clock of the last use */
    uint64_t *allowed;
};

struct weft_grammar_state {
    const struct weft_grammar *g;
    struct weft_point *returns, *points;
    struct weft_node_of_grammar *nodes;
    struct weft_spot *spots;
    uint16_t *next; /* [n_spots, n_classes] */
    size_t n_returns, n_points, n_nodes, n_spots;
    size_t returns_capacity, points_capacity, nodes_capacity, spots_capacity, next_capacity;
    struct weft_intern node_ids, spot_ids;
    uint16_t start, now;
    uint64_t work; /* points visited so far */
    struct weft_step step;
    /* masks */
    const struct weft_token_trie *trie;
    struct weft_mask masks[WEFT_MASKS_MAX];
    uint64_t clock;
    uint16_t *path; /* [max_depth + 1] spots above the node of the trie that is looked at */
};

/* The spot behind `byte` from a spot that is not dead; -WEFT_ELIMIT (memory), -WEFT_ENOMEM. */
int weft_grammar_make_next(struct weft_grammar_state *s, uint16_t spot, uint8_t byte, uint16_t *ret,
                           weft_err *err) WEFT_MUST_USE;

static inline int weft_grammar_next(struct weft_grammar_state *s, uint16_t spot, uint8_t byte,
                                    uint16_t *ret, weft_err *err)
{
    const uint16_t next = s->next[(size_t)spot * s->g->n_classes + s->g->class_of[byte]];
    if (next == WEFT_SPOT_NONE)
        return weft_grammar_make_next(s, spot, byte, ret, err);
    *ret = next;
    return 0;
}

/* Forgets all but the given spots when half of the memory is used; renumbers them. Masks are
 * forgotten too. */
int weft_grammar_make_room(struct weft_grammar_state *s, uint16_t *const *spots, size_t n,
                           weft_err *err) WEFT_MUST_USE;
/* Why a spot below WEFT_SPOT_FIRST cannot be entered. */
int weft_grammar_refuse_spot(uint16_t spot, weft_err *err);
void weft_grammar_forget_masks(struct weft_grammar_state *s); /* keeps their memory */
void weft_grammar_drop_masks(struct weft_grammar_state *s);

#endif
