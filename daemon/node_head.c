/*
 * Node: what only the stage with the output head does: it samples on the compute thread, sends
 * logits and tokens to the coordinator, and leaves each token that goes on with its session for
 * stage 0.
 */
#include "daemon/node_private.h"

#include <string.h>

uint32_t node_logit_rows(const struct node_seg *seg)
{
    if (seg->want == WEFT__WANT__WANT_ALL)
        return seg->rows;
    return seg->want == WEFT__WANT__WANT_LAST || seg->sample ? 1 : 0;
}

/* What the grammar allows next; where the text may end, stop tokens, and nowhere else. */
static int allow(struct node_stage *st, const struct node_session *s, weft_err *err)
{
    const struct node_epoch *e = st->epoch;
    int r = weft_grammar_mask(s->grammar_state, e->vocab.trie, st->allowed, err);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < s->n_stop_ids; i++) {
        uint64_t bit = UINT64_C(1) << s->stop_ids[i] % 64;
        if (weft_grammar_may_end(s->grammar_state))
            st->allowed[s->stop_ids[i] / 64] |= bit;
        else
            st->allowed[s->stop_ids[i] / 64] &= ~bit;
    }
    return 0;
}

static bool stops(const struct node_session *s, int32_t id)
{
    for (uint32_t i = 0; i < s->n_stop_ids; i++)
        if (s->stop_ids[i] == (uint32_t)id)
            return true;
    return false;
}

/* Samples behind a row of logits [vocab] and moves the grammar on. */
static int sample(struct node_stage *st, const struct node_session *s, const float *logits,
                  struct node_sample *out)
{
    const struct node_epoch *e = st->epoch;
    const struct weft_sample_place place = {
        .logits = logits,
        .vocab = e->model->vocab,
        .position = out->position,
        .history = s->history,
        .n_history = s->n_history,
        .allowed = s->grammar_state != NULL ? st->allowed : NULL,
        .mu = &out->mu,
        .work = st->candidates,
    };
    int r = s->grammar_state != NULL ? allow(st, s, &out->err) : 0;
    out->mu = s->mu;
    if (r == 0)
        r = weft_sample(&s->sampling, &place, &out->id, &out->err);
    if (r < 0)
        return r;
    if (s->logprobs)
        weft_logprobs(logits, e->model->vocab, out->id, s->top_logprobs, out->logprobs);
    if (s->grammar_state == NULL || stops(s, out->id))
        return 0;
    const struct weft_token_text *text = &e->vocab.texts[out->id];
    return weft_grammar_accept(s->grammar_state, text->bytes, text->size, &out->err);
}

void node_head_sample(struct node_stage *st)
{
    const struct node_epoch *e = st->epoch;
    uint32_t n_rows, vocab = e->model->vocab;
    const float *logits = weft_stage_logits(st->stage, &n_rows); /* [n_rows, vocab] */
    for (uint32_t i = 0; i < st->hand.n_segs; i++) {
        const struct node_seg *g = &st->hand.segs[i];
        struct node_sample *out = &st->samples[i];
        logits += (size_t)node_logit_rows(g) * vocab;
        out->made = g->sample;
        if (!g->sample)
            continue;
        out->position = g->position + g->rows;
        out->result = sample(st, &e->sessions[g->slot], logits - vocab, out);
    }
}

static void remember(struct node_session *s, int32_t id)
{
    if (s->n_history == WEFT_HISTORY_MAX) {
        s->n_history--;
        memmove(s->history, s->history + 1, s->n_history * sizeof *s->history);
    }
    s->history[s->n_history++] = id;
}

static Weft__Finish finish_of(const struct node_epoch *e, const struct node_session *s, int32_t id,
                              uint32_t position)
{
    if (stops(s, id))
        return WEFT__FINISH__FINISH_STOP;
    if (s->n_sampled >= s->max_tokens)
        return WEFT__FINISH__FINISH_LENGTH;
    return position + 1 >= e->context ? WEFT__FINISH__FINISH_CONTEXT : WEFT__FINISH__FINISH_NONE;
}

void node_head_done(struct node_stage *st)
{
    struct node_epoch *e = st->epoch;
    for (uint32_t i = 0; i < st->hand.n_segs; i++) {
        struct node_sample *out = &st->samples[i];
        struct node_session *s = node_seg_session(e, &st->hand.segs[i]);
        if (!out->made || s == NULL)
            continue;
        if (out->result < 0) {
            node_session_fault(e, s, s->id, s->turn, st, &out->err);
            continue;
        }
        remember(s, out->id);
        s->mu = out->mu;
        s->n_sampled++;
        out->finish = finish_of(e, s, out->id, out->position);
        if (out->finish == WEFT__FINISH__FINISH_NONE) {
            s->held = true; /* node_tokens_settle sends it on */
            s->held_position = out->position;
            s->held_id = (uint32_t)out->id;
        } else {
            s->running = false;
            node_log(e->node, WEFT_LOG_DEBUG, "finished", WEFT_U64("session", s->id),
                     WEFT_U64("turn", s->turn), WEFT_U64("tokens", s->n_sampled),
                     WEFT_U64("finish", out->finish));
        }
    }
}

/* Logits of one wanted row from out_value on, cut to frames. 0, or why it stopped. */
static int push_logits(struct node_stage *st, const struct node_seg *g, const float *row,
                       uint32_t position)
{
    struct node_epoch *e = st->epoch;
    uint32_t vocab = e->model->vocab;
    Weft__Logits logits = WEFT__LOGITS__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    logits.epoch = &e->id;
    logits.session = g->session;
    logits.turn = g->turn;
    logits.position = position;
    logits.vocab = vocab;
    env.body_case = WEFT__ENVELOPE__BODY_LOGITS;
    env.logits = &logits;
    while (st->out_value < vocab) {
        uint32_t n = vocab - st->out_value;
        if (n > NODE_LOGITS_CUT)
            n = NODE_LOGITS_CUT;
        logits.first = st->out_value;
        int r = weft_peer_send(&e->results->peer, &env, row + st->out_value, n * 4u);
        if (r < 0)
            return r;
        st->out_value += n;
    }
    st->out_value = 0;
    return 0;
}

static int push_token(struct node_stage *st, const struct node_seg *g,
                      const struct node_sample *out)
{
    struct node_epoch *e = st->epoch;
    const struct node_session *s = &e->sessions[g->slot];
    Weft__Logprob logprobs[1 + WEFT_LOGPROBS_MAX], *at[1 + WEFT_LOGPROBS_MAX];
    Weft__Token token = WEFT__TOKEN__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    token.epoch = &e->id;
    token.session = g->session;
    token.turn = g->turn;
    token.position = out->position;
    token.id = (uint32_t)out->id;
    token.finish = out->finish;
    if (s->sampling.mirostat != 0)
        token.mirostat_mu = out->mu;
    for (uint32_t i = 0; s->logprobs && i <= s->top_logprobs; i++) {
        weft__logprob__init(&logprobs[i]);
        logprobs[i].id = (uint32_t)out->logprobs[i].id;
        logprobs[i].logprob = out->logprobs[i].logprob;
        at[i] = &logprobs[i];
    }
    if (s->logprobs) {
        token.logprob = at[0];
        token.top = at + 1;
        token.n_top = s->top_logprobs;
    }
    env.body_case = WEFT__ENVELOPE__BODY_TOKEN;
    env.token = &token;
    return weft_peer_send(&e->results->peer, &env, NULL, 0);
}

/* The logits of a segment that are wanted, then its token. */
static int push_segment(struct node_stage *st, const struct node_seg *g, const float *logits)
{
    const struct node_sample *out = &st->samples[st->out_seg];
    uint32_t n = g->want == WEFT__WANT__WANT_NONE ? 0 : node_logit_rows(g);
    uint32_t end = g->position + g->rows;
    for (; st->out_seg_row < n; st->out_seg_row++) {
        int r = push_logits(st, g, logits + (size_t)st->out_seg_row * st->epoch->model->vocab,
                            end - n + st->out_seg_row);
        if (r < 0)
            return r;
    }
    return out->made ? push_token(st, g, out) : 0;
}

bool node_head_push(struct node_stage *st)
{
    struct node_epoch *e = st->epoch;
    uint32_t n_rows, vocab = e->model->vocab;
    const float *logits = weft_stage_logits(st->stage, &n_rows);
    for (uint32_t i = 0; i < st->out_seg; i++)
        logits += (size_t)node_logit_rows(&st->hand.segs[i]) * vocab;
    while (st->out_seg < st->hand.n_segs) {
        const struct node_seg *g = &st->hand.segs[st->out_seg];
        bool wanted = node_seg_session(e, g) != NULL; /* of an older or broken turn: dropped */
        if (wanted && (g->want != WEFT__WANT__WANT_NONE || g->sample)) {
            if (e->results == NULL)
                return false; /* until the coordinator has dialled it again */
            int r = push_segment(st, g, logits);
            if (r < 0) {
                node_send_failed(st, r);
                return false;
            }
        }
        logits += (size_t)node_logit_rows(g) * vocab;
        st->out_seg++;
        st->out_seg_row = st->out_value = 0;
    }
    return true;
}
