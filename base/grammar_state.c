/*
 * Grammars: the automaton of spots (base/grammar_walk.h), built as it is walked.
 *
 * One step has two parts. First the byte is taken and every rule that ends with it is left: this
 * meets only nodes of earlier places of the text, which do not change. Then rules are begun, in the
 * order of their ranks: since no rule begins with itself, all points that begin a rule are known
 * when its turn comes, and its node is made once, complete. A rule that may be empty is also
 * stepped over at once, so that an empty rule never needs to be left.
 *
 * Invariant: nodes only point to nodes of lower numbers. One owner, any thread.
 */
#include "base/grammar_walk.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define SEEN_SLOTS (4 * WEFT_GRAMMAR_WIDTH_MAX) /* a power of two; at most a quarter is used */
/* Symbols that are only passed over, in the time of one that is visited. */
#define PASSED_PER_VISIT 32

/* ---- memory ---- */

/* With two slots of its table for each node and spot. */
static size_t memory_used(const struct weft_grammar_state *s)
{
    const size_t slots = 2 * sizeof(struct weft_intern_slot);
    return (s->n_returns + s->n_points) * sizeof(struct weft_point) +
           s->n_nodes * (sizeof *s->nodes + slots) +
           s->n_spots * (sizeof *s->spots + s->g->n_classes * sizeof *s->next + slots);
}

static int check_memory(const struct weft_grammar_state *s, size_t more, weft_err *err)
{
    if (s->n_spots < WEFT_SPOTS_MAX && memory_used(s) + more <= WEFT_GRAMMAR_MEMORY_MAX)
        return 0;
    return weft_fail(err, WEFT_ELIMIT,
                     "grammar: too ambiguous here: more than %u MiB or %u places to remember",
                     WEFT_GRAMMAR_MEMORY_MAX >> 20, WEFT_SPOTS_MAX);
}

static int compare_point(const void *a, const void *b)
{
    const struct weft_point *x = a, *y = b;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    return (x->node > y->node) - (x->node < y->node);
}

/* Sorts and takes out what is there twice; returns the new number. */
static uint32_t sort_points(struct weft_point *points, uint32_t n)
{
    uint32_t kept = 0;
    if (n > 1)
        qsort(points, n, sizeof *points, compare_point);
    for (uint32_t i = 0; i < n; i++)
        if (kept == 0 || compare_point(&points[kept - 1], &points[i]) != 0)
            points[kept++] = points[i];
    return kept;
}

struct key {
    const struct weft_grammar_state *s;
    const struct weft_point *points;
    uint32_t n;
    bool may_end;
};

static bool equal_node(const void *ctx, uint32_t id)
{
    const struct key *key = ctx;
    const struct weft_node_of_grammar *node = &key->s->nodes[id];
    return node->n == key->n &&
           memcmp(key->s->returns + node->first, key->points, key->n * sizeof *key->points) == 0;
}

static bool equal_spot(const void *ctx, uint32_t id)
{
    const struct key *key = ctx;
    const struct weft_spot *spot = &key->s->spots[id];
    return spot->n == key->n && spot->may_end == key->may_end &&
           (key->n == 0 ||
            memcmp(key->s->points + spot->first, key->points, key->n * sizeof *key->points) == 0);
}

/* The node of sorted returns. */
static int intern_node(struct weft_grammar_state *s, const struct weft_point *returns, uint32_t n,
                       uint32_t *ret, weft_err *err)
{
    const struct key key = {.s = s, .points = returns, .n = n};
    const uint32_t hash = weft_intern_hash(returns, n * sizeof *returns);
    *ret = weft_intern_find(&s->node_ids, hash, equal_node, &key);
    if (*ret != WEFT_INTERN_NONE)
        return 0;
    int r = check_memory(s, n * sizeof *returns, err);
    if (r < 0 ||
        (r = weft_grammar_grow(&s->returns, &s->returns_capacity, s->n_returns, n,
                               sizeof *s->returns, err)) < 0 ||
        (r = weft_grammar_grow(&s->nodes, &s->nodes_capacity, s->n_nodes, 1, sizeof *s->nodes,
                               err)) < 0 ||
        (r = weft_intern_add(&s->node_ids, hash, (uint32_t)s->n_nodes, err)) < 0)
        return r;
    uint32_t depth = 0;
    for (uint32_t i = 0; i < n; i++)
        if (returns[i].place != WEFT_PLACE_END && s->nodes[returns[i].node].depth > depth)
            depth = s->nodes[returns[i].node].depth;
    memcpy(s->returns + s->n_returns, returns, n * sizeof *returns);
    *ret = (uint32_t)s->n_nodes;
    s->nodes[s->n_nodes++] =
        (struct weft_node_of_grammar){.first = (uint32_t)s->n_returns, .n = n, .depth = depth + 1};
    s->n_returns += n;
    return 0;
}

static int add_spot(struct weft_grammar_state *s, const struct weft_point *points, uint32_t n,
                    bool may_end, weft_err *err)
{
    const size_t n_classes = s->g->n_classes;
    int r =
        weft_grammar_grow(&s->points, &s->points_capacity, s->n_points, n, sizeof *s->points, err);
    if (r < 0 ||
        (r = weft_grammar_grow(&s->spots, &s->spots_capacity, s->n_spots, 1, sizeof *s->spots,
                               err)) < 0 ||
        (r = weft_grammar_grow(&s->next, &s->next_capacity, s->n_spots * n_classes, n_classes,
                               sizeof *s->next, err)) < 0)
        return r;
    if (n > 0)
        memcpy(s->points + s->n_points, points, n * sizeof *points);
    memset(s->next + s->n_spots * n_classes, 0xFF, n_classes * sizeof *s->next);
    s->spots[s->n_spots++] =
        (struct weft_spot){.first = (uint32_t)s->n_points, .n = n, .may_end = may_end};
    s->n_points += n;
    return 0;
}

/* The spot of sorted points. */
static int intern_spot(struct weft_grammar_state *s, const struct weft_point *points, uint32_t n,
                       bool may_end, uint16_t *ret, weft_err *err)
{
    if (n == 0 && !may_end) {
        *ret = WEFT_SPOT_DEAD;
        return 0;
    }
    const struct key key = {.s = s, .points = points, .n = n, .may_end = may_end};
    const uint32_t hash = weft_intern_hash(points, n * sizeof *points) + may_end;
    uint32_t id = weft_intern_find(&s->spot_ids, hash, equal_spot, &key);
    if (id == WEFT_INTERN_NONE) {
        id = (uint32_t)s->n_spots;
        int r = check_memory(s, n * sizeof *points, err);
        if (r < 0 || (r = add_spot(s, points, n, may_end, err)) < 0)
            return r;
        if ((r = weft_intern_add(&s->spot_ids, hash, id, err)) < 0) {
            s->n_spots--;
            s->n_points -= n;
            return r;
        }
    }
    *ret = (uint16_t)id;
    return 0;
}

/* ---- one step ---- */

static void begin_step(struct weft_step *w)
{
    w->n_kernel = w->n_found = w->n_calls = 0;
    w->may_end = false;
    w->over = 0;
    if (++w->number == 0) { /* after 2^32 steps old marks would count again */
        memset(w->seen, 0, SEEN_SLOTS * sizeof *w->seen);
        w->number = 1;
    }
}

/* Adds a point to go on from, once. */
static void add_kernel(struct weft_step *w, struct weft_point point)
{
    uint32_t i = (point.place * 0x9E3779B1u ^ point.node * 0x85EBCA77u) >> 7 & (SEEN_SLOTS - 1);
    while (w->seen[i].step == w->number) {
        if (w->seen[i].point.place == point.place && w->seen[i].point.node == point.node)
            return;
        i = (i + 1) & (SEEN_SLOTS - 1);
    }
    if (w->n_kernel == WEFT_GRAMMAR_WIDTH_MAX) {
        w->over = WEFT_SPOT_WIDE;
        return;
    }
    w->seen[i] = (struct weft_seen){.point = point, .step = w->number};
    w->kernel[w->n_kernel++] = point;
}

static void add_found(struct weft_step *w, struct weft_point point)
{
    if (w->n_found == WEFT_GRAMMAR_WIDTH_MAX)
        w->over = WEFT_SPOT_WIDE;
    else
        w->found[w->n_found++] = point;
}

static void push_rank(struct weft_step *w, uint32_t rank)
{
    uint32_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2] > rank; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = rank;
}

static uint32_t pop_rank(struct weft_step *w)
{
    const uint32_t least = w->heap[0], last = w->heap[--w->n_heap];
    uint32_t i = 0;
    for (uint32_t child = 1; child < w->n_heap; child = 2 * i + 1) {
        if (child + 1 < w->n_heap && w->heap[child + 1] < w->heap[child])
            child++;
        if (last <= w->heap[child])
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return least;
}

static void add_call(struct weft_grammar_state *s, uint32_t rule, struct weft_point back)
{
    struct weft_step *w = &s->step;
    if (w->n_calls == WEFT_GRAMMAR_WIDTH_MAX) {
        w->over = WEFT_SPOT_WIDE;
        return;
    }
    if (w->first_call[rule] == NONE)
        push_rank(w, s->g->rules[rule].rank);
    w->calls[w->n_calls] = (struct weft_call){.back = back, .next = w->first_call[rule]};
    w->first_call[rule] = w->n_calls++;
}

/* Begins the rule that stands at a point. At the end of an alternative it goes back where that one
 * goes, so that lists written as `list ::= item list` do not pile up. */
static void begin_rule(struct weft_grammar_state *s, struct weft_point at)
{
    const struct weft_grammar *g = s->g;
    const uint32_t rule = weft_symbol_rule(g->symbols[at.place]);
    if (g->symbols[at.place + 1] != WEFT_SYMBOL_END) {
        add_call(s, rule, (struct weft_point){.place = at.place + 1, .node = at.node});
        return;
    }
    const struct weft_node_of_grammar *node = &s->nodes[at.node];
    for (uint32_t i = 0; i < node->n && s->step.over == 0; i++)
        add_call(s, rule, s->returns[node->first + i]);
}

/* First part: leaves the rules that end, notes those that begin. */
static void leave_rules(struct weft_grammar_state *s)
{
    const struct weft_grammar *g = s->g;
    struct weft_step *w = &s->step;
    for (uint32_t i = 0; i < w->n_kernel && w->over == 0; i++) {
        const struct weft_point at = w->kernel[i];
        if (at.place == WEFT_PLACE_END) {
            w->may_end = true;
            continue;
        }
        const uint32_t symbol = g->symbols[at.place];
        if (symbol == WEFT_SYMBOL_END) {
            const struct weft_node_of_grammar *node = &s->nodes[at.node];
            for (uint32_t k = 0; k < node->n && w->over == 0; k++)
                add_kernel(w, s->returns[node->first + k]);
            s->work += node->n;
        } else if (weft_symbol_is_set(symbol)) {
            add_found(w, at);
        } else {
            begin_rule(s, at);
            if (g->rules[weft_symbol_rule(symbol)].nullable)
                add_kernel(w, (struct weft_point){.place = at.place + 1, .node = at.node});
        }
    }
}

/* Begins one rule: its alternatives up to the first symbol that may not be empty. */
static void enter_rule(struct weft_grammar_state *s, uint32_t rule, uint32_t node)
{
    const struct weft_grammar *g = s->g;
    s->work += (g->rules[rule].end - g->rules[rule].begin) / PASSED_PER_VISIT;
    for (uint32_t place = g->rules[rule].begin; place < g->rules[rule].end; place++) {
        for (bool empty = true; g->symbols[place] != WEFT_SYMBOL_END; place++) {
            const uint32_t symbol = g->symbols[place];
            const struct weft_point at = {.place = place, .node = node};
            if (!empty)
                continue;
            s->work++;
            if (weft_symbol_is_set(symbol))
                add_found(&s->step, at);
            else if (weft_symbol_rule(symbol) != rule ||
                     g->symbols[place + 1] != WEFT_SYMBOL_END) /* else: it has begun already */
                begin_rule(s, at);
            empty = weft_symbol_is_rule(symbol) && g->rules[weft_symbol_rule(symbol)].nullable;
        }
    }
}

/* Second part: begins rules, callers before those they call. Empties the heap in any case. */
static int enter_rules(struct weft_grammar_state *s, weft_err *err)
{
    struct weft_step *w = &s->step;
    int r = 0;
    while (w->n_heap > 0) {
        const uint32_t rule = s->g->by_rank[pop_rank(w)];
        uint32_t n = 0, node = 0;
        for (uint32_t call = w->first_call[rule]; call != NONE; call = w->calls[call].next)
            w->returns[n++] = w->calls[call].back;
        w->first_call[rule] = NONE;
        if (r < 0 || w->over != 0)
            continue;
        s->work += n;
        n = sort_points(w->returns, n);
        r = intern_node(s, w->returns, n, &node, err);
        if (r < 0)
            continue;
        if (s->nodes[node].depth > WEFT_GRAMMAR_DEPTH_MAX)
            w->over = WEFT_SPOT_DEEP;
        else
            enter_rule(s, rule, node);
    }
    return r;
}

/* The spot of the kernel that has been filled. */
static int finish_step(struct weft_grammar_state *s, uint16_t *ret, weft_err *err)
{
    struct weft_step *w = &s->step;
    leave_rules(s);
    int r = enter_rules(s, err);
    s->work += w->n_kernel + w->n_found + w->n_calls;
    if (r < 0)
        return r;
    if (w->over != 0) {
        *ret = w->over;
        return 0;
    }
    w->n_found = sort_points(w->found, w->n_found);
    return intern_spot(s, w->found, w->n_found, w->may_end, ret, err);
}

int weft_grammar_make_next(struct weft_grammar_state *s, uint16_t spot, uint8_t byte, uint16_t *ret,
                           weft_err *err)
{
    const struct weft_grammar *g = s->g;
    const struct weft_spot *from = &s->spots[spot];
    begin_step(&s->step);
    for (uint32_t i = 0; i < from->n; i++) {
        const struct weft_point *point = &s->points[from->first + i];
        if (weft_byte_set_has(&g->sets[g->symbols[point->place] - WEFT_SYMBOL_SET], byte))
            add_kernel(&s->step,
                       (struct weft_point){.place = point->place + 1, .node = point->node});
    }
    s->work += 1 + from->n;
    int r = finish_step(s, ret, err);
    if (r == 0)
        s->next[(size_t)spot * g->n_classes + g->class_of[byte]] = *ret;
    return r;
}

int weft_grammar_refuse_spot(uint16_t spot, weft_err *err)
{
    if (spot == WEFT_SPOT_DEEP)
        return weft_fail(err, WEFT_ELIMIT, "grammar: rules within rules more than %u deep",
                         WEFT_GRAMMAR_DEPTH_MAX);
    if (spot == WEFT_SPOT_WIDE)
        return weft_fail(err, WEFT_ELIMIT,
                         "grammar: too ambiguous: the text stands at more than %u places at once",
                         WEFT_GRAMMAR_WIDTH_MAX);
    return weft_fail(err, WEFT_ESTATE, "grammar: text that is not allowed here");
}

/* ---- forgetting ---- */

/* Keeps nodes that the kept spots reach, in their order, so that runs stay sorted. map[old] is the
 * new number, NONE for those that go. */
static void keep_nodes(struct weft_grammar_state *s, uint32_t *map)
{
    uint32_t n_nodes = 0, n_returns = 0;
    for (size_t i = s->n_nodes; i-- > 0;) {
        const struct weft_node_of_grammar *node = &s->nodes[i];
        for (uint32_t k = 0; map[i] != NONE && k < node->n; k++)
            if (s->returns[node->first + k].place != WEFT_PLACE_END)
                map[s->returns[node->first + k].node] = 0;
    }
    for (size_t i = 0; i < s->n_nodes; i++) {
        if (map[i] == NONE)
            continue;
        struct weft_node_of_grammar node = s->nodes[i];
        for (uint32_t k = 0; k < node.n; k++) {
            struct weft_point back = s->returns[node.first + k];
            if (back.place != WEFT_PLACE_END)
                back.node = map[back.node];
            s->returns[n_returns + k] = back;
        }
        node.first = n_returns;
        n_returns += node.n;
        map[i] = n_nodes;
        s->nodes[n_nodes++] = node;
    }
    s->n_nodes = n_nodes;
    s->n_returns = n_returns;
}

static int rebuild_ids(struct weft_grammar_state *s, weft_err *err)
{
    int r = 0;
    weft_intern_clear(&s->node_ids);
    weft_intern_clear(&s->spot_ids);
    for (uint32_t i = 0; i < s->n_nodes && r == 0; i++)
        r = weft_intern_add(
            &s->node_ids,
            weft_intern_hash(s->returns + s->nodes[i].first, s->nodes[i].n * sizeof *s->returns), i,
            err);
    for (uint32_t i = WEFT_SPOT_FIRST; i < s->n_spots && r == 0; i++)
        r = weft_intern_add(
            &s->spot_ids,
            weft_intern_hash(s->points + s->spots[i].first, s->spots[i].n * sizeof *s->points) +
                s->spots[i].may_end,
            i, err);
    return r;
}

static int compare_spot(const void *a, const void *b)
{
    return (int)*(const uint16_t *)a - (int)*(const uint16_t *)b;
}

#define KEPT_MAX 4 /* start, now, and two of the caller */

int weft_grammar_make_room(struct weft_grammar_state *s, uint16_t *const *spots, size_t n,
                           weft_err *err)
{
    uint16_t kept[KEPT_MAX], n_kept = 0;
    if (memory_used(s) <= WEFT_GRAMMAR_MEMORY_MAX / 2 && s->n_spots <= WEFT_SPOTS_MAX / 2)
        return 0;
    uint32_t *map = malloc(s->n_nodes * sizeof *map);
    if (map == NULL)
        return weft_fail(err, WEFT_ENOMEM, "grammar: no memory to forget %zu nodes", s->n_nodes);
    assert(n <= KEPT_MAX);
    memset(map, 0xFF, s->n_nodes * sizeof *map);
    for (size_t i = 0; i < n; i++)
        kept[i] = *spots[i];
    qsort(kept, n, sizeof *kept, compare_spot);
    for (size_t i = 0; i < n; i++) {
        const struct weft_spot *spot = &s->spots[kept[i]];
        for (uint32_t k = 0; k < spot->n; k++)
            map[s->points[spot->first + k].node] = 0;
        if (i == 0 || kept[i] != kept[i - 1])
            kept[n_kept++] = kept[i];
    }
    keep_nodes(s, map);
    s->n_spots = WEFT_SPOT_FIRST;
    s->n_points = 0;
    for (uint16_t i = 0; i < n_kept; i++) {
        struct weft_spot spot = s->spots[kept[i]];
        for (uint32_t k = 0; k < spot.n; k++) {
            struct weft_point point = s->points[spot.first + k];
            point.node = map[point.node];
            s->points[s->n_points + k] = point;
        }
        spot.first = (uint32_t)s->n_points;
        s->n_points += spot.n;
        spot.groups_known = spot.groups_kept = 0;
        s->spots[s->n_spots++] = spot;
    }
    memset(s->next, 0xFF, s->n_spots * s->g->n_classes * sizeof *s->next);
    for (size_t i = 0; i < n; i++)
        for (uint16_t k = 0; k < n_kept; k++)
            if (*spots[i] == kept[k]) {
                *spots[i] = (uint16_t)(WEFT_SPOT_FIRST + k);
                break;
            }
    free(map);
    weft_grammar_forget_masks(s);
    return rebuild_ids(s, err);
}

/* ---- the life of a state ---- */

static int open_step(struct weft_grammar_state *s)
{
    struct weft_step *w = &s->step;
    const size_t n = WEFT_GRAMMAR_WIDTH_MAX, n_rules = s->g->n_rules;
    w->kernel = calloc(n, sizeof *w->kernel);
    w->found = calloc(n, sizeof *w->found);
    w->returns = calloc(n, sizeof *w->returns);
    w->calls = calloc(n, sizeof *w->calls);
    w->heap = calloc(n, sizeof *w->heap);
    w->seen = calloc(SEEN_SLOTS, sizeof *w->seen);
    w->first_call = malloc(n_rules * sizeof *w->first_call);
    if (w->kernel == NULL || w->found == NULL || w->returns == NULL || w->calls == NULL ||
        w->heap == NULL || w->seen == NULL || w->first_call == NULL)
        return -WEFT_ENOMEM;
    memset(w->first_call, 0xFF, n_rules * sizeof *w->first_call);
    return 0;
}

int weft_grammar_state_open(const struct weft_grammar *g, struct weft_grammar_state **ret,
                            weft_err *err)
{
    struct weft_grammar_state *s = calloc(1, sizeof *s);
    if (s == NULL)
        return weft_fail(err, WEFT_ENOMEM, "grammar: no memory for a state");
    s->g = g;
    weft_grammar_forget_masks(s);
    int r = open_step(s);
    if (r < 0)
        weft_fail(err, WEFT_ENOMEM, "grammar: no memory for a state");
    for (int i = 0; i < WEFT_SPOT_FIRST && r == 0; i++)
        r = add_spot(s, NULL, 0, false, err);
    if (r == 0) {
        begin_step(&s->step);
        add_call(s, g->root, (struct weft_point){.place = WEFT_PLACE_END, .node = 0});
        s->step.may_end = g->rules[g->root].nullable;
        r = finish_step(s, &s->start, err);
    }
    if (r == 0 && s->start == WEFT_SPOT_DEAD) /* such as "root ::= root" */
        r = weft_fail(err, WEFT_EUSAGE, "grammar: no text matches rule 'root'");
    else if (r == 0 && s->start < WEFT_SPOT_FIRST)
        r = weft_grammar_refuse_spot(s->start, err);
    if (r < 0) {
        weft_grammar_state_close(s);
        return r;
    }
    s->now = s->start;
    *ret = s;
    return 0;
}

void weft_grammar_state_close(struct weft_grammar_state *s)
{
    if (s == NULL)
        return;
    struct weft_step *w = &s->step;
    free(w->kernel);
    free(w->found);
    free(w->returns);
    free(w->calls);
    free(w->heap);
    free(w->seen);
    free(w->first_call);
    weft_intern_done(&s->node_ids);
    weft_intern_done(&s->spot_ids);
    free(s->returns);
    free(s->points);
    free(s->nodes);
    free(s->spots);
    free(s->next);
    weft_grammar_drop_masks(s);
    free(s);
}

void weft_grammar_reset(struct weft_grammar_state *s)
{
    s->now = s->start;
}

int weft_grammar_accept(struct weft_grammar_state *s, const char *bytes, size_t n, weft_err *err)
{
    uint16_t spot = s->now;
    for (size_t i = 0; i < n; i++) {
        uint16_t next = 0, *const kept[] = {&s->start, &s->now, &spot};
        int r = weft_grammar_make_room(s, kept, sizeof kept / sizeof kept[0], err);
        if (r < 0 || (r = weft_grammar_next(s, spot, (uint8_t)bytes[i], &next, err)) < 0)
            return r;
        if (next < WEFT_SPOT_FIRST)
            return weft_grammar_refuse_spot(next, err);
        spot = next;
    }
    s->now = spot;
    return 0;
}

bool weft_grammar_may_end(const struct weft_grammar_state *s)
{
    return s->spots[s->now].may_end;
}
