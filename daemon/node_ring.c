/*
 * Node: the cycle of a stage. Rows come in (frames of the stage before, or tokens of sessions on
 * stage 0), one step is in hand, its rows go out; the next step is taken only when all of them have
 * been accepted.
 *
 * Invariant: hand belongs to the compute thread while the stage is COMPUTING and to the way out
 * while it is SENDING; fill belongs to the way in. A stage before on this daemon hands its rows
 * over through the same function that takes those of frames.
 */
#include "daemon/node_private.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

/* Statistics only: the io's clock belongs to the loop. */
static uint64_t compute_clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static bool batch_complete(const struct node_batch *b)
{
    return b->total_rows > 0 && b->have_rows == b->total_rows;
}

static void batch_clear(struct node_batch *b)
{
    b->n_segs = b->have_rows = b->total_rows = 0;
}

/* ------------------------------------------------------------------ rows in */

static int check_step(const struct node_stage *st, const struct weft_frame *f, weft_err *err)
{
    const struct node_epoch *e = st->epoch;
    const Weft__Step *s = f->env->step;
    uint32_t row_bytes = e->model->dim * 4u, rows = f->payload_size / row_bytes;
    uint64_t total = 0;
    if (s->stage != st->index)
        return weft_fail(err, WEFT_EPROTOCOL, "Step for stage %u on the link of stage %u", s->stage,
                         st->index);
    if (s->n_segments == 0 || s->n_segments > e->n_slots)
        return weft_fail(err, WEFT_ELIMIT, "Step of %zu segments, expected 1 to %u", s->n_segments,
                         e->n_slots);
    if (s->total_rows == 0 || s->total_rows > e->batch_rows)
        return weft_fail(err, WEFT_ELIMIT, "Step of %u rows, expected 1 to %u", s->total_rows,
                         e->batch_rows);
    for (size_t i = 0; i < s->n_segments; i++) {
        const Weft__Segment *g = s->segments[i];
        if (g->rows == 0 || g->want > WEFT__WANT__WANT_ALL || (int)g->want < 0)
            return weft_fail(err, WEFT_ESHAPE, "Step: segment %zu has %u rows and wants %d", i,
                             g->rows, (int)g->want);
        total += g->rows;
    }
    if (total != s->total_rows)
        return weft_fail(err, WEFT_ESHAPE,
                         "Step: its segments have %" PRIu64 " rows, total_rows is %u", total,
                         s->total_rows);
    if (rows == 0 || f->payload_size % row_bytes != 0 || s->first_row >= s->total_rows ||
        rows > s->total_rows - s->first_row)
        return weft_fail(
            err, WEFT_ESHAPE,
            "Step with a payload of %u bytes from row %u on, expected whole rows of %u bytes, "
            "%u rows in all",
            f->payload_size, s->first_row, row_bytes, s->total_rows);
    return 0;
}

int node_step_arrived(struct node_stage *st, struct weft_frame **f, weft_err *err)
{
    int r = check_step(st, *f, err);
    if (r < 0)
        return r;
    if (st->n_queue == WEFT_NODE_QUEUE_FRAMES + NODE_AFTER_PAUSE)
        return weft_fail(err, WEFT_ELIMIT, "more than %u Step frames wait for stage %u",
                         WEFT_NODE_QUEUE_FRAMES, st->index);
    st->queue[st->n_queue++] = *f;
    *f = NULL;
    if (st->n_queue >= WEFT_NODE_QUEUE_FRAMES)
        weft_peer_pause(&st->in->peer, true);
    return 0;
}

/* Rows of these segments are missing: what is left of their sessions' turns cannot be computed. */
static void rows_lost(struct node_stage *st, const struct node_seg *segs, uint32_t n,
                      const weft_err *why)
{
    for (uint32_t i = 0; i < n; i++) {
        struct node_session *s = node_session_find(st->epoch, segs[i].session);
        if (s != NULL && s->turn == segs[i].turn && !s->stopped)
            node_session_fault(st->epoch, s, s->id, s->turn, st, why);
    }
}

/* Takes rows into fill, which is not complete. A gap drops the step and faults its sessions. */
static void take_rows(struct node_stage *st, const struct node_rows *r)
{
    struct node_batch *b = &st->fill;
    uint32_t dim = st->epoch->model->dim;
    weft_err why = {0};
    bool fits = b->total_rows > 0 && r->number == b->number && r->first_row == b->have_rows &&
                r->total_rows == b->total_rows;
    if (!fits && b->total_rows > 0) {
        (void)weft_fail(&why, WEFT_EPOSITION, "step %" PRIu64 ": rows from %u of %u on were lost",
                        b->number, b->have_rows, b->total_rows);
        rows_lost(st, b->segs, b->n_segs, &why);
        st->dropped++;
        batch_clear(b);
    }
    if (!fits && r->first_row > 0) {
        (void)weft_fail(&why, WEFT_EPOSITION,
                        "step %" PRIu64 ": its rows start at %u, those before were lost", r->number,
                        r->first_row);
        rows_lost(st, r->segs, r->n_segs, &why);
        st->dropped++;
        return;
    }
    if (!fits) {
        b->number = r->number;
        b->total_rows = r->total_rows;
        b->n_segs = r->n_segs;
        memcpy(b->segs, r->segs, r->n_segs * sizeof *r->segs);
    }
    memcpy(b->x + (size_t)b->have_rows * dim, r->x, (size_t)r->n_rows * dim * sizeof *r->x);
    b->have_rows += r->n_rows;
    st->in_number = r->number + batch_complete(b);
}

static void take_frame(struct node_stage *st, const struct weft_frame *f)
{
    const Weft__Step *s = f->env->step;
    if (s->number < st->in_number) { /* dense per link: this one came before */
        st->dropped++;
        return;
    }
    for (size_t i = 0; i < s->n_segments; i++)
        st->parsed[i] = (struct node_seg){
            .session = s->segments[i]->session,
            .turn = s->segments[i]->turn,
            .position = s->segments[i]->position,
            .rows = s->segments[i]->rows,
            .want = s->segments[i]->want,
            .sample = s->segments[i]->sample,
        };
    struct node_rows rows = {
        .segs = st->parsed,
        .n_segs = (uint32_t)s->n_segments,
        .first_row = s->first_row,
        .n_rows = f->payload_size / (st->epoch->model->dim * 4u),
        .total_rows = s->total_rows,
        .number = s->number,
        .x = (const float *)(const void *)f->payload, /* aligned by the frame */
    };
    take_rows(st, &rows);
}

/* Frames that wait go into fill until a step is complete. */
static bool drain_queue(struct node_stage *st)
{
    uint32_t n = 0;
    while (n < st->n_queue && !batch_complete(&st->fill)) {
        take_frame(st, st->queue[n]);
        weft_frame_free(st->queue[n++]);
    }
    bool full = st->n_queue >= WEFT_NODE_QUEUE_FRAMES;
    st->n_queue -= n;
    memmove(st->queue, st->queue + n, st->n_queue * sizeof(struct weft_frame *));
    if (full && st->n_queue < WEFT_NODE_QUEUE_FRAMES && st->in != NULL)
        weft_peer_pause(&st->in->peer, false);
    return n > 0;
}

/* ------------------------------------------------------------------ the step in hand */

/* True when the rows of a segment may be computed; else they are dropped and counted, or fault the
 * turn. */
static bool segment_ok(struct node_stage *st, struct node_seg *g, uint32_t i)
{
    struct node_epoch *e = st->epoch;
    struct node_session *s = node_session_find(e, g->session);
    weft_err why = {0};
    if (s == NULL || g->turn < s->turn || s->stopped) {
        st->dropped++;
        return false;
    }
    g->slot = s->slot;
    uint32_t length = weft_stage_length(st->stage, s->slot);
    if (g->turn > s->turn)
        (void)weft_fail(&why, WEFT_ESTATE, "step of turn %u, begun is turn %u", g->turn, s->turn);
    else if (g->position != length)
        (void)weft_fail(&why, WEFT_EPOSITION, "rows from position %u on, %u are here", g->position,
                        length);
    else if ((uint64_t)g->position + g->rows > e->context)
        (void)weft_fail(&why, WEFT_ECONTEXT, "%u rows from position %u on, the context has %u",
                        g->rows, g->position, e->context);
    for (uint32_t k = 0; k < i && why.code == 0; k++)
        if (st->hand.segs[k].slot == g->slot)
            (void)weft_fail(&why, WEFT_EPOSITION, "a second segment in the same step");
    if (why.code == 0)
        return true;
    node_session_fault(e, s, s->id, g->turn, st, &why);
    return false;
}

/* Leaves out rows that are not to be computed, moving those behind them up. */
static void hand_check(struct node_stage *st)
{
    struct node_batch *b = &st->hand;
    uint32_t dim = st->epoch->model->dim, n = 0, row = 0, kept = 0;
    for (uint32_t i = 0; i < b->n_segs; i++) {
        struct node_seg g = b->segs[i];
        if (segment_ok(st, &g, n)) {
            if (kept < row)
                memmove(b->x + (size_t)kept * dim, b->x + (size_t)row * dim,
                        (size_t)g.rows * dim * sizeof *b->x);
            kept += g.rows;
            b->segs[n++] = g;
        }
        row += g.rows;
    }
    b->n_segs = n;
    b->total_rows = b->have_rows = kept;
}

/* Rows a session has for the next step of stage 0. */
static uint32_t rows_waiting(const struct node_session *s)
{
    return s->id != 0 && !s->stopped && s->begin == NULL ? s->n_tokens - s->n_stepped : 0;
}

static bool decoding(const struct node_session *s)
{
    return s->n_stepped >= s->prompt_end;
}

/* Puts the next rows of a session into the step. */
static void add_rows(struct node_stage *st, struct node_session *s, uint32_t rows)
{
    struct node_batch *b = &st->hand;
    uint32_t end = s->n_stepped + rows;
    bool prompt_over = s->prompt_done && end == s->n_tokens;
    struct node_seg *g = &b->segs[b->n_segs++];
    *g = (struct node_seg){
        .session = s->id,
        .turn = s->turn,
        .slot = s->slot,
        .position = s->n_stepped,
        .rows = rows,
        .want = s->want == WEFT__WANT__WANT_LAST && !prompt_over ? WEFT__WANT__WANT_NONE : s->want,
        .sample = prompt_over && s->max_tokens > 0,
    };
    memcpy(b->tokens + b->total_rows, s->tokens + s->n_stepped, rows * sizeof *b->tokens);
    b->total_rows += rows;
    b->have_rows = b->total_rows;
    s->n_stepped = end;
}

/* Stage 0: one row of every decoding session, what is left for prompts, sessions in turn. */
static void form_step(struct node_stage *st)
{
    struct node_epoch *e = st->epoch;
    struct node_batch *b = &st->hand;
    uint32_t n_decoding = 0;
    for (uint32_t i = 0; i < e->n_slots; i++)
        n_decoding += rows_waiting(&e->sessions[i]) > 0 && decoding(&e->sessions[i]);
    uint32_t for_prompts = e->batch_rows > n_decoding ? e->batch_rows - n_decoding : 0;
    uint32_t start = st->next_slot;
    batch_clear(b);
    for (uint32_t i = 0; i < e->n_slots && b->total_rows < e->batch_rows; i++) {
        struct node_session *s = &e->sessions[(start + i) % e->n_slots];
        uint32_t rows = rows_waiting(s), most = 1; /* one at least, so that nobody starves */
        if (!decoding(s) && for_prompts > 1)
            most = for_prompts;
        if (most > e->batch_rows - b->total_rows)
            most = e->batch_rows - b->total_rows;
        if (rows > most)
            rows = most;
        if (rows == 0)
            continue;
        if (!decoding(s))
            for_prompts -= rows < for_prompts ? rows : for_prompts;
        add_rows(st, s, rows);
        st->next_slot = (s->slot + 1) % e->n_slots;
    }
}

static void start_step(struct node_stage *st)
{
    struct node_epoch *e = st->epoch;
    uint64_t now = e->node->io->now_ns(e->node->io);
    bool waited = false, masks = false;
    for (uint32_t i = 0; i < st->hand.n_segs; i++) {
        const struct node_seg *g = &st->hand.segs[i];
        struct node_session *s = &e->sessions[g->slot];
        st->segments[i] = (struct weft_segment){
            .slot = g->slot,
            .position = g->position,
            .rows = g->rows,
            .logits = !st->head || node_logit_rows(g) == 0 ? WEFT_LOGITS_NONE
                      : g->want == WEFT__WANT__WANT_ALL    ? WEFT_LOGITS_ALL
                                                           : WEFT_LOGITS_LAST,
        };
        waited |= s->begun_ns <= st->done_ns; /* its turn ran when the last step ended */
        s->active_ns = now;
        masks |= s->grammar != NULL;
    }
    if (waited)
        st->wait_ns += now - st->done_ns;
    st->state = NODE_STAGE_COMPUTING;
    st->err = (weft_err){0};
    e->busy++;
    /* What a grammar's next mask costs is not known by the last one. */
    st->work.brief = !masks && st->row_ns > 0 && st->row_ns * st->hand.total_rows <= WEFT_BRIEF_NS;
    node_work(e->node, &st->work);
}

/* Compute thread, or the loop's when the step is brief. */
void node_work_stage_run(struct weft_work *w)
{
    struct node_stage *st = w->owner;
    struct weft_step step = {
        .segments = st->segments,
        .n_segments = st->hand.n_segs,
        .n_rows = st->hand.total_rows,
        .tokens = st->hand.tokens,
        .x = st->hand.x,
    };
    uint64_t start = compute_clock_ns();
    st->result = weft_stage_run(st->stage, &step, &st->err);
    if (st->result == 0 && st->head)
        node_head_sample(st);
    st->kernel_ns = compute_clock_ns() - start;
}

void node_work_stage_done(struct weft_work *w)
{
    struct node_stage *st = w->owner;
    struct node_epoch *e = st->epoch;
    struct weft_node *n = e->node;
    node_work_back(n);
    e->busy--;
    st->state = NODE_STAGE_IDLE;
    st->done_ns = n->io->now_ns(n->io);
    if (e == n->epoch && st->result < 0) {
        for (uint32_t i = 0; i < st->hand.n_segs; i++) {
            struct node_session *s = node_seg_session(e, &st->hand.segs[i]);
            if (s != NULL)
                node_session_fault(e, s, s->id, s->turn, st, &st->err);
        }
        batch_clear(&st->hand);
    } else if (e == n->epoch) {
        st->steps++;
        st->rows += st->hand.total_rows;
        st->compute_ns += st->kernel_ns;
        st->row_ns = st->kernel_ns / st->hand.total_rows + 1;
        st->state = NODE_STAGE_SENDING;
        st->out_row = st->out_seg = st->out_seg_row = st->out_value = 0;
        if (st->head)
            node_head_done(st);
    }
    node_settle(n);
}

/* ------------------------------------------------------------------ rows out */

/* To the next stage on this daemon; false while its fill is in use. */
static bool push_local(struct node_stage *st)
{
    const struct node_batch *b = &st->hand;
    struct node_rows rows = {
        .segs = b->segs,
        .n_segs = b->n_segs,
        .n_rows = b->total_rows,
        .total_rows = b->total_rows,
        .number = st->out_number,
        .x = weft_stage_output(st->stage),
    };
    if (st->next->fill.total_rows > 0)
        return false;
    take_rows(st->next, &rows);
    return true;
}

/* Over the link, cut to frames; false when it took not all of them. */
static bool push_link(struct node_stage *st)
{
    struct node_epoch *e = st->epoch;
    const struct node_batch *b = &st->hand;
    uint32_t dim = e->model->dim, per_frame = WEFT_PAYLOAD_MAX / (dim * 4u);
    const float *x = weft_stage_output(st->stage);
    Weft__Step step = WEFT__STEP__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    if (st->out == NULL)
        return false; /* lost; the epoch is about to end */
    for (uint32_t i = 0; i < b->n_segs; i++) {
        st->wire[i].session = b->segs[i].session;
        st->wire[i].turn = b->segs[i].turn;
        st->wire[i].position = b->segs[i].position;
        st->wire[i].rows = b->segs[i].rows;
        st->wire[i].want = b->segs[i].want;
        st->wire[i].sample = b->segs[i].sample;
    }
    step.epoch = &e->id;
    step.stage = st->index + 1;
    step.number = st->out_number;
    step.segments = st->wire_at;
    step.n_segments = b->n_segs;
    step.total_rows = b->total_rows;
    env.body_case = WEFT__ENVELOPE__BODY_STEP;
    env.step = &step;
    while (st->out_row < b->total_rows) {
        uint32_t rows = b->total_rows - st->out_row;
        if (rows > per_frame)
            rows = per_frame;
        step.first_row = st->out_row;
        int r =
            weft_peer_send(&st->out->peer, &env, x + (size_t)st->out_row * dim, rows * dim * 4u);
        if (r < 0) {
            node_send_failed(st, r);
            return false;
        }
        st->out_row += rows;
        st->sent_bytes += (uint64_t)rows * dim * 4u;
    }
    return true;
}

void node_send_failed(struct node_stage *st, int r)
{
    weft_err why = {0};
    if (r == -WEFT_EFULL || r == -WEFT_ELOST)
        return; /* `writable` or `down` will come */
    (void)weft_fail(&why, -r, "stage %u: its results could not be sent: %s", st->index,
                    weft_error_text(r));
    node_epoch_fault(st->epoch, st, &why);
}

/* One turn of the cycle; true when something moved. */
static bool stage_advance(struct node_stage *st)
{
    bool moved = drain_queue(st);
    if (st->state == NODE_STAGE_SENDING) {
        bool sent = st->head           ? node_head_push(st)
                    : st->next != NULL ? push_local(st)
                                       : push_link(st);
        if (!sent)
            return moved;
        st->out_number++;
        st->state = NODE_STAGE_IDLE;
        batch_clear(&st->hand);
        moved = true;
    }
    if (st->state != NODE_STAGE_IDLE)
        return moved;
    if (st->embed) {
        form_step(st);
    } else if (batch_complete(&st->fill)) {
        struct node_batch b = st->hand;
        st->hand = st->fill;
        st->fill = b;
        batch_clear(&st->fill);
        hand_check(st);
        moved = true;
    }
    if (st->hand.n_segs == 0)
        return moved;
    start_step(st);
    return true;
}

void node_ring_advance(struct node_epoch *e)
{
    bool moved;
    do {
        moved = node_tokens_settle(e);
        for (uint32_t i = 0; i < e->n_stages && !e->failed; i++)
            moved |= stage_advance(&e->stages[i]);
    } while (moved && !e->failed);
}
