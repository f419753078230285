/*
 * Sessions: what is due to be sent: Begin, the vocabulary that a grammar needs, Prompt, Ack. See
 * session_private.h. Everything may be refused by a full link at any frame and goes on from there.
 */
#include "coordinator/session_private.h"

#include <stdlib.h>
#include <string.h>

#define PROMPT_FRAME_TOKENS (WEFT_PAYLOAD_MAX / 4u)

/* ------------------------------------------------------------------ Vocabulary */

static struct device *head_of(struct weft_cluster *c)
{
    return weft_stage_device(c, c->n_stages - 1);
}

/* Puts tokens from `first` on into a payload of WEFT_PAYLOAD_MAX bytes; returns how many. */
static uint32_t pack_texts(const struct weft_turn *t, uint32_t first, uint32_t vocab,
                           uint8_t *payload, uint32_t *ret_size)
{
    uint32_t id = first, at = 0;
    for (; id < vocab; id++) {
        const uint32_t n = id < t->n_texts ? t->texts[id].size : 0;
        if (n + 2 > WEFT_PAYLOAD_MAX - at)
            break;
        payload[at] = (uint8_t)n;
        payload[at + 1] = (uint8_t)(n >> 8);
        if (n > 0)
            memcpy(payload + at + 2, t->texts[id].bytes, n);
        at += n + 2;
    }
    *ret_size = at;
    return id - first;
}

/* 0 once the head's daemon has been sent the texts of all tokens, in this epoch. */
static int send_vocabulary(struct weft_session *s)
{
    struct weft_cluster *c = s->cluster;
    const uint32_t vocab = c->deployment.model->vocab;
    Weft__Vocabulary message = WEFT__VOCABULARY__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    int r = 0;
    if (c->vocab_sent == vocab)
        return 0;
    uint8_t *payload = malloc(WEFT_PAYLOAD_MAX);
    if (payload == NULL)
        return -WEFT_ENOMEM;
    message.epoch = &c->epoch;
    message.vocab = vocab;
    for (uint32_t i = 0; i < s->params.n_texts; i++)
        message.text_bytes += s->params.texts[i].size;
    env.body_case = WEFT__ENVELOPE__BODY_VOCABULARY;
    env.vocabulary = &message;
    while (r == 0 && c->vocab_sent < vocab) {
        uint32_t size;
        message.first = c->vocab_sent;
        message.count = pack_texts(&s->params, message.first, vocab, payload, &size);
        r = weft_peer_send(&head_of(c)->control, &env, payload, size);
        if (r == 0)
            c->vocab_sent += message.count;
    }
    free(payload);
    return r;
}

/* ------------------------------------------------------------------ Begin */

static void fill_sampling(const struct weft_turn_sampling *p, Weft__Sampling *w)
{
    w->temperature = p->temperature;
    w->top_k = p->top_k;
    w->top_p = p->top_p;
    w->min_p = p->min_p;
    w->repeat_penalty = p->repeat_penalty;
    w->repeat_last = p->repeat_last;
    w->seed = p->seed;
    w->typical_p = p->typical_p;
    w->presence_penalty = p->presence_penalty;
    w->frequency_penalty = p->frequency_penalty;
    w->mirostat = p->mirostat;
    w->mirostat_tau = p->mirostat_tau;
    w->mirostat_eta = p->mirostat_eta;
}

static int send_begin(struct weft_session *s, struct device *d)
{
    const struct weft_turn *p = &s->params;
    Weft__Begin begin = WEFT__BEGIN__INIT;
    Weft__Sampling sampling = WEFT__SAMPLING__INIT;
    Weft__LogitBias bias[WEFT_TURN_BIAS_MAX], *bias_at[WEFT_TURN_BIAS_MAX];
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    const bool grammar = p->grammar != NULL && d == head_of(s->cluster);
    uint32_t window = p->sampling.repeat_last;
    if (grammar && p->n_resumed > window)
        window = p->n_resumed; /* weft_session_turn checked that they fit */
    if (p->n_resumed > 0 && window == 0)
        window = 1; /* says that the answer has begun */
    uint32_t n = s->prompt_end < window ? s->prompt_end : window;
    int r = grammar ? send_vocabulary(s) : 0;
    if (r < 0)
        return r;
    fill_sampling(&p->sampling, &sampling);
    for (uint32_t i = 0; i < p->sampling.n_bias; i++) {
        weft__logit_bias__init(&bias[i]);
        bias[i].id = (uint32_t)p->sampling.bias[i].id;
        bias[i].bias = p->sampling.bias[i].bias;
        bias_at[i] = &bias[i];
    }
    sampling.bias = bias_at;
    sampling.n_bias = p->sampling.n_bias;
    begin.epoch = &s->cluster->epoch;
    begin.session = s->id;
    begin.turn = s->turn;
    begin.position = s->prompt_start;
    begin.sampling = &sampling;
    begin.stop_ids = s->stop_ids;
    begin.n_stop_ids = p->n_stop_ids;
    begin.max_tokens = p->max_tokens;
    begin.prompt_tokens = s->prompt_end - s->prompt_start;
    begin.history = (uint32_t *)(s->history + s->prompt_end - n);
    begin.n_history = n;
    begin.answer = p->n_resumed < n ? p->n_resumed : n;
    begin.mirostat_mu = s->mirostat_mu;
    begin.logprobs = p->logprobs;
    begin.top_logprobs = p->logprobs ? p->n_logprobs : 0;
    env.body_case = WEFT__ENVELOPE__BODY_BEGIN;
    env.begin = &begin;
    return weft_peer_send(&d->control, &env, p->grammar, grammar ? p->grammar_size : 0);
}

/* ------------------------------------------------------------------ Prompt and Ack */

static int send_prompt(struct weft_session *s)
{
    struct device *first = weft_stage_device(s->cluster, 0);
    while (s->sent < s->prompt_end) {
        Weft__Prompt prompt = WEFT__PROMPT__INIT;
        Weft__Envelope env = WEFT__ENVELOPE__INIT;
        uint32_t n = s->prompt_end - s->sent;
        if (n > PROMPT_FRAME_TOKENS)
            n = PROMPT_FRAME_TOKENS;
        prompt.epoch = &s->cluster->epoch;
        prompt.session = s->id;
        prompt.turn = s->turn;
        prompt.position = s->sent;
        prompt.want = s->params.want_logits ? WEFT__WANT__WANT_ALL : WEFT__WANT__WANT_NONE;
        prompt.last = s->sent + n == s->prompt_end;
        env.body_case = WEFT__ENVELOPE__BODY_PROMPT;
        env.prompt = &prompt;
        int r = weft_peer_send(&first->control, &env, s->history + s->sent, n * 4u);
        if (r < 0)
            return r;
        s->sent += n;
    }
    return 0;
}

static int send_ack(struct weft_session *s)
{
    Weft__Ack ack = WEFT__ACK__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    ack.epoch = &s->cluster->epoch;
    ack.session = s->id;
    ack.turn = s->turn;
    ack.position = s->n_history;
    env.body_case = WEFT__ENVELOPE__BODY_ACK;
    env.ack = &ack;
    int r = weft_peer_send(&head_of(s->cluster)->control, &env, NULL, 0);
    if (r == 0) {
        s->acked = s->n_history;
        s->ack_due = false;
    }
    return r;
}

/* ------------------------------------------------------------------ all of it */

void weft_session_pump(struct weft_session *s)
{
    struct weft_cluster *c = s->cluster;
    for (uint32_t i = 0; i < c->opt.n_devices; i++)
        if ((s->begin_due >> i & 1) && send_begin(s, &c->devices[i]) == 0)
            s->begin_due &= ~((uint64_t)1 << i);
    if (s->state == SESSION_RUNNING) {
        (void)!send_prompt(s);
        if (s->ack_due)
            (void)!send_ack(s);
    }
}
