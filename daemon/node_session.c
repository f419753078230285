/*
 * Node: sessions and their turns: Begin, Prompt, Cancel, Close, Ack, and the tokens on their way
 * from the head back to stage 0.
 *
 * Invariant: a session's turn is the newest that was begun, and frames of older ones are dropped
 * from then on; what a step in hand reads of it (KV, sampling, history) changes only when that step
 * is done.
 */
#include "daemon/node_private.h"

#include <inttypes.h>
#include <string.h>

/* On a daemon without the head nothing tells that a turn is over: a drain takes it to be when no
 * step came for so long. */
#define QUIET_NS UINT64_C(2000000000)

struct node_session *node_session_find(struct node_epoch *e, uint32_t id)
{
    for (uint32_t i = 0; id != 0 && i < e->n_slots; i++)
        if (e->sessions[i].id == id && !e->sessions[i].closing)
            return &e->sessions[i];
    return NULL;
}

bool node_session_touched(const struct node_epoch *e, const struct node_session *s)
{
    for (uint32_t i = 0; i < e->n_stages; i++) {
        const struct node_stage *st = &e->stages[i];
        if (st->state != NODE_STAGE_COMPUTING)
            continue;
        for (uint32_t k = 0; k < st->hand.n_segs; k++)
            if (st->hand.segs[k].slot == s->slot)
                return true;
    }
    return false;
}

bool node_sessions_running(const struct node_epoch *e, uint64_t now_ns)
{
    for (uint32_t i = 0; i < e->n_slots; i++) {
        const struct node_session *s = &e->sessions[i];
        if (s->running && (e->head != NULL || now_ns - s->active_ns < QUIET_NS))
            return true;
    }
    return false;
}

void node_session_fault(struct node_epoch *e, struct node_session *s, uint32_t id, uint32_t turn,
                        const struct node_stage *st, const weft_err *why)
{
    struct weft_node *n = e->node;
    Weft__Fault fault = weft_fault_of(why);
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    if (s != NULL && s->turn == turn) {
        if (s->stopped && s->begin == NULL)
            return; /* the first cause is the one to be told */
        s->stopped = true;
        s->running = false;
        s->held = false;
    }
    node_log(n, WEFT_LOG_WARN, "session-fault", WEFT_U64("epoch", e->id.counter),
             WEFT_U64("session", id), WEFT_U64("turn", turn), WEFT_ERR(why));
    fault.session = id;
    fault.turn = turn;
    if (st != NULL) {
        fault.stage = st->index;
        fault.has_stage = true;
    }
    env.body_case = WEFT__ENVELOPE__BODY_FAULT;
    env.fault = &fault;
    if (n->lease.control != NULL)
        node_answer(n->lease.control, &env);
}

struct node_session *node_seg_session(struct node_epoch *e, const struct node_seg *seg)
{
    struct node_session *s = &e->sessions[seg->slot];
    return s->id == seg->session && s->turn == seg->turn && !s->stopped ? s : NULL;
}

/* The slot is free again; buffers stay with it. */
static void session_free(struct node_epoch *e, struct node_session *s)
{
    for (uint32_t i = 0; i < e->n_stages; i++)
        weft_stage_trim(e->stages[i].stage, s->slot, 0);
    weft_frame_free(s->begin);
    node_sampling_done(s);
    *s = (struct node_session){
        .slot = s->slot, .tokens = s->tokens, .history = s->history, .bias = s->bias};
}

/* ------------------------------------------------------------------ Begin */

static int check_begin(const struct node_epoch *e, const struct weft_frame *f, weft_err *err)
{
    const Weft__Begin *b = f->env->begin;
    if ((uint64_t)b->position + b->prompt_tokens > e->context)
        return weft_fail(err, WEFT_ECONTEXT,
                         "%u positions and a prompt of %u tokens, the context has %u", b->position,
                         b->prompt_tokens, e->context);
    if (b->prompt_tokens == 0)
        return weft_fail(err, WEFT_EPROTOCOL, "Begin of a turn without a prompt");
    if (b->n_stop_ids > WEFT_NODE_STOP_IDS_MAX || b->n_history > WEFT_HISTORY_MAX)
        return weft_fail(
            err, WEFT_ELIMIT, "%zu stop ids and %zu tokens of history, expected at most %u and %u",
            b->n_stop_ids, b->n_history, WEFT_NODE_STOP_IDS_MAX, (unsigned)WEFT_HISTORY_MAX);
    for (size_t i = 0; i < b->n_stop_ids; i++)
        if (b->stop_ids[i] >= e->model->vocab)
            return weft_fail(err, WEFT_ESHAPE, "stop id %u, the vocabulary has %u", b->stop_ids[i],
                             e->model->vocab);
    for (size_t i = 0; i < b->n_history; i++)
        if (b->history[i] >= e->model->vocab)
            return weft_fail(err, WEFT_ESHAPE, "token %u in the history, the vocabulary has %u",
                             b->history[i], e->model->vocab);
    return b->max_tokens > 0 ? node_sampling_check(e, f, err) : 0;
}

/* KV is cut, the session starts afresh at b->position; answered by Begun. No step of it is in hand.
 */
static void begin_now(struct node_epoch *e, struct node_session *s, const struct weft_frame *f)
{
    struct weft_node *n = e->node;
    const Weft__Begin *b = f->env->begin;
    weft_err why = {0};
    s->stopped = s->held = s->prompt_done = false;
    for (uint32_t i = 0; i < e->n_stages; i++) {
        uint32_t length = weft_stage_length(e->stages[i].stage, s->slot);
        if (length >= b->position)
            continue;
        (void)weft_fail(&why, WEFT_EPOSITION, "Begin at position %u, %u are here", b->position,
                        length);
        node_session_fault(e, s, s->id, s->turn, &e->stages[i], &why);
        return;
    }
    for (uint32_t i = 0; i < e->n_stages; i++)
        weft_stage_trim(e->stages[i].stage, s->slot, b->position);
    s->n_history = 0;
    for (size_t i = 0; s->history != NULL && i < b->n_history; i++)
        s->history[s->n_history++] = (int32_t)b->history[i];
    if (node_sampling_begin(e, s, f, &why) < 0) {
        node_session_fault(e, s, s->id, s->turn, e->head, &why);
        return;
    }
    s->running = true;
    s->begun_ns = s->active_ns = n->io->now_ns(n->io);
    s->n_tokens = s->n_stepped = b->position;
    s->prompt_end = b->position + b->prompt_tokens;
    s->want = WEFT__WANT__WANT_NONE;
    s->max_tokens = b->max_tokens;
    s->n_sampled = 0;
    s->acked = s->prompt_end; /* the coordinator has the prompt */
    s->n_stop_ids = (uint32_t)b->n_stop_ids;
    if (b->n_stop_ids > 0)
        memcpy(s->stop_ids, b->stop_ids, b->n_stop_ids * sizeof *b->stop_ids);

    Weft__Begun begun = WEFT__BEGUN__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    begun.epoch = &e->id;
    begun.session = s->id;
    begun.turn = s->turn;
    env.body_case = WEFT__ENVELOPE__BODY_BEGUN;
    env.begun = &begun;
    node_log(n, WEFT_LOG_DEBUG, "begun", WEFT_U64("session", s->id), WEFT_U64("turn", s->turn),
             WEFT_U64("position", b->position), WEFT_U64("prompt_tokens", b->prompt_tokens));
    if (n->lease.control != NULL)
        node_answer(n->lease.control, &env);
}

/* A slot for a new session: a free one, else one that is free after the step in hand. */
static struct node_session *free_slot(struct node_epoch *e)
{
    struct node_session *closing = NULL;
    for (uint32_t i = 0; i < e->n_slots; i++) {
        if (e->sessions[i].id == 0)
            return &e->sessions[i];
        if (e->sessions[i].closing && closing == NULL)
            closing = &e->sessions[i];
    }
    return closing;
}

void node_begin(struct node_peer *p, struct weft_frame **f)
{
    struct weft_node *n = p->node;
    struct node_epoch *e = n->epoch;
    const Weft__Begin *b = (*f)->env->begin;
    struct node_session *s = node_session_find(e, b->session);
    weft_err why = {0};
    if (e->phase != NODE_READY)
        (void)weft_fail(&why, WEFT_ESTATE, "Begin before Ready");
    else if (n->draining)
        (void)weft_fail(&why, WEFT_ESTATE, "%s is shutting down", n->opt.name);
    else if (b->session == 0 || b->turn == 0)
        (void)weft_fail(&why, WEFT_EPROTOCOL, "Begin of session %u, turn %u: both count from 1",
                        b->session, b->turn);
    else if (s != NULL && b->turn <= s->turn)
        (void)weft_fail(&why, WEFT_ESTATE, "Begin of turn %u after turn %u", b->turn, s->turn);
    else if (s == NULL && (s = free_slot(e)) == NULL)
        (void)weft_fail(&why, WEFT_ELIMIT, "all %u session slots are taken", e->n_slots);
    else
        (void)!check_begin(e, *f, &why);
    if (why.code != 0) {
        node_session_fault(e, NULL, b->session, b->turn, NULL, &why);
        return;
    }
    s->fresh |= s->closing;
    s->closing = false;
    s->id = b->session;
    s->turn = b->turn;
    s->stopped = true; /* until begun: nothing of it goes into a step */
    s->held = false;
    weft_frame_free(s->begin);
    s->begin = *f; /* node_sessions_settle goes on */
    *f = NULL;
}

void node_sessions_settle(struct node_epoch *e)
{
    for (uint32_t i = 0; i < e->n_slots; i++) {
        struct node_session *s = &e->sessions[i];
        if ((s->begin == NULL && !s->closing) || node_session_touched(e, s) ||
            (!s->closing && node_sampling_waits(e, s->begin)))
            continue;
        struct weft_frame *f = s->begin;
        bool closing = s->closing;
        s->begin = NULL;
        if (closing || s->fresh)
            session_free(e, s);
        if (f != NULL && !closing) {
            s->id = f->env->begin->session;
            s->turn = f->env->begin->turn;
            begin_now(e, s, f);
        }
        weft_frame_free(f);
    }
}

/* ------------------------------------------------------------------ the turn */

/* The session of a frame of its turn; NULL when the frame is to be dropped, or was answered by a
 * Fault. */
static struct node_session *session_of(struct node_epoch *e, const char *what, uint32_t id,
                                       uint32_t turn)
{
    struct node_session *s = node_session_find(e, id);
    weft_err why = {0};
    if (s == NULL)
        (void)weft_fail(&why, WEFT_ESESSION, "%s for session %u, which is not open here", what, id);
    else if (turn > s->turn)
        (void)weft_fail(&why, WEFT_ESTATE, "%s of turn %u, begun is turn %u", what, turn, s->turn);
    if (why.code != 0) {
        node_session_fault(e, NULL, id, turn, NULL, &why);
        return NULL;
    }
    return s;
}

static int take_prompt(struct node_epoch *e, struct node_session *s, const struct weft_frame *f,
                       weft_err *err)
{
    const Weft__Prompt *pr = f->env->prompt;
    uint32_t n = f->payload_size / 4u;
    const int32_t *ids = (const int32_t *)(const void *)f->payload; /* aligned by the frame */
    if (s->begin != NULL)
        return weft_fail(err, WEFT_ESTATE, "Prompt before Begun");
    if (f->payload_size % 4u != 0 || n == 0)
        return weft_fail(err, WEFT_ESHAPE, "Prompt of %u bytes, expected a multiple of 4 above 0",
                         f->payload_size);
    if (s->prompt_done || pr->position != s->n_tokens)
        return weft_fail(err, WEFT_EPOSITION, "Prompt at position %u, expected %u%s", pr->position,
                         s->n_tokens, s->prompt_done ? " and nothing behind the last one" : "");
    if (n > e->context - s->n_tokens)
        return weft_fail(err, WEFT_ECONTEXT,
                         "Prompt of %u tokens at position %u, the context has %u", n, s->n_tokens,
                         e->context);
    if (n > s->prompt_end - s->n_tokens || pr->last != (s->n_tokens + n == s->prompt_end))
        return weft_fail(err, WEFT_ESHAPE, "Prompt up to position %u%s, Begin announced %u",
                         s->n_tokens + n, pr->last ? ", the last" : "", s->prompt_end);
    if (pr->want > WEFT__WANT__WANT_ALL || pr->want < s->want)
        return weft_fail(err, WEFT_EPROTOCOL,
                         "Prompt wants %d after %d, expected no less and at most %d", (int)pr->want,
                         (int)s->want, (int)WEFT__WANT__WANT_ALL);
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= e->model->vocab)
            return weft_fail(err, WEFT_ESHAPE, "token %d at position %u, the vocabulary has %u",
                             ids[i], s->n_tokens + i, e->model->vocab);
    memcpy(s->tokens + s->n_tokens, ids, (size_t)n * sizeof *ids);
    s->n_tokens += n;
    s->want = pr->want;
    s->prompt_done = pr->last;
    return 0;
}

void node_prompt(struct node_peer *p, struct weft_frame *f)
{
    struct node_epoch *e = p->node->epoch;
    const Weft__Prompt *pr = f->env->prompt;
    struct node_session *s = session_of(e, "Prompt", pr->session, pr->turn);
    weft_err why = {0};
    if (s == NULL)
        return;
    if (e->first == NULL) {
        (void)weft_fail(&why, WEFT_ESTATE, "Prompt, but stage 0 is elsewhere");
    } else if (pr->turn < s->turn || (s->stopped && s->begin == NULL)) {
        e->first->dropped++;
        return;
    } else if (take_prompt(e, s, f, &why) == 0) {
        return;
    }
    node_session_fault(e, s, s->id, s->turn, e->first, &why);
}

void node_cancel(struct node_peer *p, const Weft__Cancel *c)
{
    struct node_epoch *e = p->node->epoch;
    struct node_session *s = node_session_find(e, c->session);
    if (s == NULL || c->turn != s->turn)
        return;                /* it is over already */
    weft_frame_free(s->begin); /* one that waits for a step or a vocabulary */
    s->begin = NULL;
    node_log(p->node, WEFT_LOG_DEBUG, "cancelled", WEFT_U64("session", s->id),
             WEFT_U64("turn", s->turn));
    s->stopped = true;
    s->running = false;
    s->held = false;
}

void node_close_session(struct node_peer *p, const Weft__Close *c)
{
    struct node_session *s = node_session_find(p->node->epoch, c->session);
    if (s == NULL)
        return; /* closing twice is no fault */
    node_log(p->node, WEFT_LOG_DEBUG, "closed", WEFT_U64("session", s->id));
    s->closing = true;
    s->stopped = true;
    s->running = false;
    s->held = false;
}

void node_ack(struct node_peer *p, const Weft__Ack *a)
{
    struct node_epoch *e = p->node->epoch;
    struct node_session *s = node_session_find(e, a->session);
    if (s == NULL || a->turn != s->turn || s->begin != NULL || e->head == NULL)
        return; /* of an older turn, or late */
    uint32_t known = s->prompt_end + s->n_sampled;
    if (a->position > s->acked)
        s->acked = a->position < known ? a->position : known; /* nobody has what was not sampled */
}

/* ------------------------------------------------------------------ tokens back to stage 0 */

/* A sampled token becomes a row of the next step. */
static int take_token(struct node_epoch *e, struct node_session *s, uint32_t position, uint32_t id,
                      weft_err *err)
{
    if (!s->prompt_done || position != s->n_tokens || position >= e->context)
        return weft_fail(err, WEFT_EPOSITION,
                         "Token at position %u, expected %u, the context has %u", position,
                         s->n_tokens, e->context);
    if (id >= e->model->vocab)
        return weft_fail(err, WEFT_ESHAPE, "Token %u, the vocabulary has %u", id, e->model->vocab);
    s->tokens[s->n_tokens++] = (int32_t)id;
    return 0;
}

int node_token(struct node_peer *p, const Weft__Token *t, weft_err *err)
{
    struct node_epoch *e = p->node->epoch;
    struct node_session *s = node_session_find(e, t->session);
    weft_err why = {0};
    if (t->finish != WEFT__FINISH__FINISH_NONE)
        return weft_fail(err, WEFT_EPROTOCOL,
                         "Token that finishes session %u, it is for the coordinator alone",
                         t->session);
    if (s == NULL || t->turn < s->turn || s->stopped) {
        e->first->dropped++;
        return 0;
    }
    if (t->turn > s->turn)
        (void)weft_fail(&why, WEFT_ESTATE, "Token of turn %u, begun is turn %u", t->turn, s->turn);
    else if (take_token(e, s, t->position, t->id, &why) == 0)
        return 0;
    node_session_fault(e, s, s->id, t->turn, e->first, &why);
    return 0;
}

/* -WEFT_EFULL or -WEFT_ELOST when it could not go. */
static int token_home(struct node_epoch *e, struct node_session *s)
{
    weft_err why = {0};
    if (e->first != NULL) {
        s->held = false;
        if (take_token(e, s, s->held_position, s->held_id, &why) < 0)
            node_session_fault(e, s, s->id, s->turn, e->first, &why);
        return 0;
    }
    if (e->tokens == NULL)
        return -WEFT_ELOST;
    Weft__Token token = WEFT__TOKEN__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    token.epoch = &e->id;
    token.session = s->id;
    token.turn = s->turn;
    token.position = s->held_position;
    token.id = s->held_id;
    env.body_case = WEFT__ENVELOPE__BODY_TOKEN;
    env.token = &token;
    int r = weft_peer_send(&e->tokens->peer, &env, NULL, 0);
    if (r == 0)
        s->held = false;
    return r;
}

bool node_tokens_settle(struct node_epoch *e)
{
    bool moved = false;
    for (uint32_t i = 0; e->head != NULL && i < e->n_slots; i++) {
        struct node_session *s = &e->sessions[i];
        if (s->held && s->held_position < (uint64_t)s->acked + WEFT_NODE_RUN_AHEAD)
            moved |= token_home(e, s) == 0;
    }
    return moved;
}
