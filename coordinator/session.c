/*
 * Sessions: turns, tokens and logits of conversations that the cluster serves.
 *
 * The coordinator keeps every session's token history (design 1.4); the ring of daemons produces
 * tokens on its own and is told how far they have arrived. Invariant: a token or row of logits is
 * taken only from the running turn and at the next position; anything else ends the turn with a
 * reason.
 */
#include "coordinator/session_private.h"

#include <stdlib.h>
#include <string.h>

/* The ring may run 32 tokens beyond what was acknowledged: acknowledging every 8th keeps it
 * running. */
#define ACK_EVERY 8u
/* A turn is late after eight times the predicted time, but never before this: without replay of
 * lost sessions a false alarm costs a person the answer, a late one only some waiting. */
#define LATE_FLOOR_NS ((uint64_t)10 * 1000 * 1000 * 1000)
/* Without a prediction: a row of the largest model on the slowest board takes seconds, and one of a
 * long prompt, which shares the reading of the weights with others, up to one. */
#define LATE_UNPREDICTED_NS ((uint64_t)120 * 1000 * 1000 * 1000)
#define LATE_UNPREDICTED_ROW_NS ((uint64_t)1000 * 1000 * 1000)

/* ------------------------------------------------------------------ the end of a turn */

static void turn_done(struct weft_session *s, const weft_err *err, enum weft_finish finish)
{
    s->cluster->io->timer_stop(s->cluster->io, &s->late);
    s->state = SESSION_IDLE;
    s->begin_due = 0;
    s->begun_missing = 0;
    s->ack_due = false;
    s->events->done(s->arg, err, finish);
}

static void send_cancel(struct weft_session *s)
{
    struct weft_cluster *c = s->cluster;
    Weft__Cancel cancel = WEFT__CANCEL__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    cancel.epoch = &c->epoch;
    cancel.session = s->id;
    cancel.turn = s->turn;
    env.body_case = WEFT__ENVELOPE__BODY_CANCEL;
    env.cancel = &cancel;
    for (uint32_t i = 0; i < c->opt.n_devices; i++)
        if (c->devices[i].used && c->devices[i].control_open)
            (void)!weft_peer_send(&c->devices[i].control, &env, NULL, 0); /* Begin says it again */
}

static void turn_failed(struct weft_session *s, const weft_err *err)
{
    if (s->state == SESSION_IDLE)
        return;
    if (s->cluster->ready)
        send_cancel(s);
    turn_done(s, err, WEFT_FINISH_NONE);
}

static void late(struct weft_timer *t)
{
    struct weft_session *s = t->owner;
    struct weft_cluster *c = s->cluster;
    weft_err why = {0};
    if (s->state == SESSION_BEGINNING) {
        for (uint32_t i = 0; i < c->opt.n_devices; i++)
            if (s->begun_missing >> i & 1) {
                (void)weft_fail(
                    &why, WEFT_ELATE, "%s: no answer to Begin of session %u within %.3g s",
                    weft_device_name(&c->devices[i]), s->id, (double)s->patience_ns * 1e-9);
                break;
            }
    } else {
        (void)weft_fail(&why, WEFT_ELATE,
                        "%s: no %s for position %u of session %u within %.3g s: a frame between "
                        "the stages was lost, or a device is stuck or far slower than measured",
                        weft_device_name(weft_stage_device(c, c->n_stages - 1)),
                        s->params.max_tokens > 0 ? "Token" : "Logits", s->n_history, s->id,
                        (double)s->patience_ns * 1e-9);
    }
    turn_failed(s, &why);
}

/* Starts the watch anew: the next sign of life is due after `rows` rows of prompt and one token. */
static void watch(struct weft_session *s, uint32_t rows)
{
    struct weft_cluster *c = s->cluster;
    uint64_t ns = LATE_UNPREDICTED_NS + LATE_UNPREDICTED_ROW_NS * rows;
    if (c->predicted_token_ns > 0) {
        ns = 8 * (c->predicted_token_ns + c->predicted_row_ns * rows);
        if (ns < LATE_FLOOR_NS)
            ns = LATE_FLOOR_NS;
    }
    s->patience_ns = ns;
    c->io->timer_start(c->io, &s->late, ns);
}

/* ------------------------------------------------------------------ what comes */

void weft_sessions_writable(struct weft_cluster *c)
{
    for (struct weft_session *s = c->sessions; s != NULL; s = s->next)
        weft_session_pump(s);
}

static struct weft_session *find(struct weft_cluster *c, uint32_t id)
{
    for (struct weft_session *s = c->sessions; s != NULL; s = s->next)
        if (s->id == id)
            return s;
    return NULL;
}

static void take_begun(struct weft_session *s, const struct device *d, const Weft__Begun *begun)
{
    if (s->state != SESSION_BEGINNING || begun->turn != s->turn)
        return;
    s->begun_missing &= ~((uint64_t)1 << d->index);
    if (s->begun_missing != 0)
        return;
    s->state = SESSION_RUNNING;
    s->begun_ns = s->cluster->io->now_ns(s->cluster->io);
    watch(s, s->prompt_end - s->prompt_start);
    weft_session_pump(s);
}

void weft_sessions_control(struct device *d, struct weft_frame *f)
{
    struct weft_cluster *c = d->cluster;
    if (f->env->body_case == WEFT__ENVELOPE__BODY_BEGUN) {
        const Weft__Begun *begun = f->env->begun;
        struct weft_session *s = find(c, begun->session);
        if (s != NULL && weft_epoch_equal(begun->epoch, &c->epoch))
            take_begun(s, d, begun);
        return;
    }
    const Weft__Fault *fault = f->env->fault;
    struct weft_session *s = find(c, fault->session);
    if (s != NULL && (fault->turn == 0 || fault->turn == s->turn)) {
        weft_err why = {0};
        (void)weft_fault_err(fault, weft_device_name(d), &why);
        turn_failed(s, &why);
    }
}

static void protocol_error(struct weft_session *s, const char *what, uint32_t found,
                           uint32_t expected)
{
    struct weft_cluster *c = s->cluster;
    weft_err why = {0};
    (void)weft_fail(&why, WEFT_EPROTOCOL, "%s: session %u: %s: found %u, expected %u",
                    weft_device_name(weft_stage_device(c, c->n_stages - 1)), s->id, what, found,
                    expected);
    turn_failed(s, &why);
}

/* False: the turn has failed. */
static bool token_fits(struct weft_session *s, const Weft__Token *t)
{
    const struct weft_cluster *c = s->cluster;
    const char *what = NULL;
    uint32_t found = 0, expected = 0;
    if (t->position != s->n_history) {
        what = "position of a token";
        found = t->position;
        expected = s->n_history;
    } else if (s->n_answer >= s->params.max_tokens || s->n_history >= c->deployment.context) {
        what = "number of a token, at most";
        found = s->n_answer + 1;
        expected = s->n_answer;
    } else if (t->id >= c->deployment.model->vocab) {
        what = "id of a token, at most";
        found = t->id;
        expected = c->deployment.model->vocab - 1;
    } else if (s->params.want_logits && s->logits_position != t->position) {
        what = "rows of logits before a token";
        found = s->logits_position;
        expected = t->position;
    } else if (s->params.logprobs && (t->logprob == NULL || t->n_top != s->params.n_logprobs)) {
        what = "log-probabilities of a token";
        found = t->logprob == NULL ? 0 : 1 + (uint32_t)t->n_top;
        expected = 1 + s->params.n_logprobs;
    }
    for (size_t i = 0; what == NULL && s->params.logprobs && i < t->n_top; i++) {
        if (t->top[i]->id < c->deployment.model->vocab)
            continue;
        what = "id of a likely token, at most";
        found = t->top[i]->id;
        expected = c->deployment.model->vocab - 1;
    }
    if (what != NULL)
        protocol_error(s, what, found, expected);
    return what == NULL;
}

/* Checked by token_fits. */
static void tell_logprobs(struct weft_session *s, const Weft__Token *t)
{
    struct weft_token_logprob list[1 + WEFT_TURN_LOGPROBS_MAX];
    list[0] = (struct weft_token_logprob){(int32_t)t->id, t->logprob->logprob};
    for (size_t i = 0; i < t->n_top; i++)
        list[1 + i] = (struct weft_token_logprob){(int32_t)t->top[i]->id, t->top[i]->logprob};
    if (s->events->logprobs != NULL)
        s->events->logprobs(s->arg, list, 1 + (uint32_t)t->n_top);
}

static void take_token(struct weft_session *s, const Weft__Token *t)
{
    struct weft_cluster *c = s->cluster;
    if (t->position > s->n_history) {
        weft_err why = {0};
        (void)weft_fail(
            &why, WEFT_ELOST, "%s: session %u: the token for position %u was lost on its way",
            weft_device_name(weft_stage_device(c, c->n_stages - 1)), s->id, s->n_history);
        turn_failed(s, &why);
        return;
    }
    if (!token_fits(s, t))
        return;
    s->n_computed = s->n_history; /* it was sampled from a row that has been through all stages */
    s->history[s->n_history++] = (int32_t)t->id;
    s->n_answer++;
    s->mirostat_mu = t->mirostat_mu;
    s->last_ns = c->io->now_ns(c->io);
    if (s->n_answer == 1)
        s->first_ns = s->last_ns;
    if (s->params.logprobs)
        tell_logprobs(s, t);
    uint32_t turn = s->turn, id = s->id;
    enum weft_finish finish = (enum weft_finish)t->finish;
    if (finish == WEFT_FINISH_NONE) {
        watch(s, 0);
        if (s->n_history - s->acked >= ACK_EVERY) {
            s->ack_due = true;
            weft_session_pump(s);
        }
    }
    s->events->token(s->arg, (int32_t)t->id, finish);
    if (finish == WEFT_FINISH_NONE)
        return;
    s = find(c, id); /* the event may have closed or cancelled it */
    if (s != NULL && s->turn == turn && s->state == SESSION_RUNNING)
        turn_done(s, NULL, finish);
}

static void take_logits(struct weft_session *s, const Weft__Logits *l, const float *values,
                        uint32_t n)
{
    struct weft_cluster *c = s->cluster;
    uint32_t vocab = c->deployment.model->vocab;
    if (!s->params.want_logits)
        return;
    if (l->vocab != vocab) {
        protocol_error(s, "vocabulary of logits", l->vocab, vocab);
        return;
    }
    if (l->first != s->logits_filled) {
        protocol_error(s, "first of a piece of logits", l->first, s->logits_filled);
        return;
    }
    if (n == 0 || n > vocab - l->first) {
        protocol_error(s, "length of a piece of logits, at most", n, vocab - l->first);
        return;
    }
    if (l->position != s->logits_position || l->position >= s->n_history) {
        protocol_error(s, "position of logits", l->position, s->logits_position);
        return;
    }
    memcpy(s->logits + l->first, values, (size_t)n * sizeof *values);
    s->logits_filled += n;
    watch(s, s->prompt_end - s->prompt_start);
    if (s->logits_filled < vocab)
        return;
    uint32_t turn = s->turn, id = s->id, position = s->logits_position++;
    s->logits_filled = 0;
    s->events->logits(s->arg, position, s->logits, vocab);
    s = find(c, id);
    if (s != NULL && s->turn == turn && s->state == SESSION_RUNNING && s->params.max_tokens == 0 &&
        position + 1 == s->prompt_end) {
        s->n_computed = s->prompt_end;
        s->first_ns = s->last_ns = c->io->now_ns(c->io);
        turn_done(s, NULL, WEFT_FINISH_NONE);
    }
}

void weft_sessions_result(struct weft_cluster *c, struct weft_frame *f)
{
    const Weft__Envelope *env = f->env;
    struct weft_session *s;
    if (env->body_case == WEFT__ENVELOPE__BODY_TOKEN) {
        s = find(c, env->token->session);
        if (s != NULL && s->state == SESSION_RUNNING && env->token->turn == s->turn &&
            weft_epoch_equal(env->token->epoch, &c->epoch))
            take_token(s, env->token);
    } else if (env->body_case == WEFT__ENVELOPE__BODY_LOGITS && f->payload_size % 4 == 0) {
        s = find(c, env->logits->session);
        if (s != NULL && s->state == SESSION_RUNNING && env->logits->turn == s->turn &&
            weft_epoch_equal(env->logits->epoch, &c->epoch))
            take_logits(s, env->logits, (const float *)(const void *)f->payload,
                        f->payload_size / 4);
    }
}

void weft_sessions_fail(struct weft_cluster *c, const weft_err *why)
{
    weft_err reason = *why;
    struct weft_session *s;
    do { /* from the start each time: `done` may have closed any session */
        for (s = c->sessions; s != NULL && s->state == SESSION_IDLE; s = s->next)
            ;
        if (s != NULL)
            turn_failed(s, &reason);
    } while (s != NULL);
}

/* ------------------------------------------------------------------ public */

int weft_session_open(struct weft_cluster *c, const struct weft_session_events *events, void *arg,
                      struct weft_session **ret, weft_err *err)
{
    if (!c->ready)
        return weft_fail(err, WEFT_ESTATE, "a session before the cluster is deployed");
    if (c->n_sessions >= c->deployment.sessions)
        return weft_fail(err, WEFT_ELIMIT,
                         "%u sessions are open, the plan has room for %u: raise "
                         "'sessions' in the cluster file",
                         c->n_sessions, c->deployment.sessions);
    struct weft_session *s = calloc(1, sizeof *s);
    int32_t *history = calloc(c->deployment.context, sizeof *history);
    if (s == NULL || history == NULL) {
        free(s);
        free(history);
        return weft_fail(err, WEFT_ENOMEM, "a session of %u positions", c->deployment.context);
    }
    s->cluster = c;
    s->events = events;
    s->arg = arg;
    s->id = ++c->session_ids;
    s->history = history;
    s->late = (struct weft_timer){.fire = late, .owner = s};
    s->next = c->sessions;
    c->sessions = s;
    c->n_sessions++;
    *ret = s;
    return 0;
}

/* True for what a daemon without the capability would not notice. */
static bool beyond_first(const struct weft_turn *t)
{
    const struct weft_turn_sampling *p = &t->sampling;
    return t->grammar != NULL || t->logprobs || p->n_bias > 0 || p->mirostat != 0 ||
           (p->typical_p != 0 && p->typical_p != 1) || p->presence_penalty != 0 ||
           p->frequency_penalty != 0;
}

static int check_sampling(const struct weft_session *s, const struct weft_turn *t, weft_err *err)
{
    struct weft_cluster *c = s->cluster;
    const uint32_t vocab = c->deployment.model->vocab;
    struct device *head = weft_stage_device(c, c->n_stages - 1);
    const struct weft_turn_sampling *p = &t->sampling;
    if (beyond_first(t) && !weft_peer_can(&head->control, "sampling"))
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "%s: its weftd (%s) is too old for this kind of sampling: update it",
                         weft_device_name(head), head->status.software);
    if (p->n_bias > WEFT_TURN_BIAS_MAX || t->n_logprobs > WEFT_TURN_LOGPROBS_MAX)
        return weft_fail(err, WEFT_ELIMIT,
                         "%u logit biases and %u log-probabilities, at most %u and %u", p->n_bias,
                         t->n_logprobs, WEFT_TURN_BIAS_MAX, WEFT_TURN_LOGPROBS_MAX);
    for (uint32_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].id < 0 || (uint32_t)p->bias[i].id >= vocab)
            return weft_fail(err, WEFT_ESHAPE, "logit bias of token %d: the vocabulary has 0..%u",
                             p->bias[i].id, vocab - 1);
    if ((uint64_t)t->n_resumed > (uint64_t)t->keep + t->n_tokens)
        return weft_fail(err, WEFT_ESHAPE, "%u tokens of the answer, the prompt has %u",
                         t->n_resumed, t->keep + t->n_tokens);
    if (t->grammar == NULL)
        return 0;
    if (t->n_resumed > WEFT_TURN_RESUMED_MAX)
        return weft_fail(err, WEFT_ELIMIT,
                         "an answer that obeys a grammar can go on in a new context up to %u "
                         "tokens, found %u: raise -c",
                         WEFT_TURN_RESUMED_MAX, t->n_resumed);
    if (t->grammar_size == 0 || t->grammar_size > WEFT_PAYLOAD_MAX)
        return weft_fail(err, WEFT_ELIMIT, "a grammar of %u bytes, expected 1 to %u",
                         t->grammar_size, WEFT_PAYLOAD_MAX);
    if (t->n_stop_ids == 0)
        return weft_fail(err, WEFT_EUSAGE,
                         "a grammar, but the vocabulary has no token that ends an answer");
    if (t->n_texts > vocab)
        return weft_fail(err, WEFT_ESHAPE, "texts of %u tokens, the vocabulary has %u", t->n_texts,
                         vocab);
    return 0;
}

static int check_turn(const struct weft_session *s, const struct weft_turn *t, weft_err *err)
{
    const struct weft_cluster *c = s->cluster;
    uint32_t context = c->deployment.context;
    if (!c->ready || s->state != SESSION_IDLE)
        return weft_fail(err, WEFT_ESTATE, "session %u: a turn while %s", s->id,
                         c->ready ? "another one runs" : "the cluster is not deployed");
    if (t->keep > s->n_computed)
        return weft_fail(err, WEFT_EPOSITION, "session %u: keep %u of %u positions", s->id, t->keep,
                         s->n_computed);
    if (t->n_tokens == 0 || (t->max_tokens == 0 && !t->want_logits))
        return weft_fail(err, WEFT_EUSAGE, "session %u: a turn of %u tokens that asks for nothing",
                         s->id, t->n_tokens);
    /* An answer needs a position of its own. */
    uint64_t need = (uint64_t)t->keep + t->n_tokens + (t->max_tokens > 0 ? 1 : 0);
    if (need > context)
        return weft_fail(err, WEFT_ECONTEXT,
                         "the prompt has %llu tokens, the context %u positions%s: shorten the "
                         "prompt%s",
                         (unsigned long long)t->keep + t->n_tokens, context,
                         t->max_tokens > 0 ? " and the answer needs one" : "",
                         context < c->deployment.model->context_max ? " or raise -c" : "");
    if (t->n_stop_ids > STOP_IDS_MAX)
        return weft_fail(err, WEFT_ELIMIT, "%u stop tokens, at most %u", t->n_stop_ids,
                         STOP_IDS_MAX);
    for (uint32_t i = 0; i < t->n_tokens; i++)
        if (t->tokens[i] < 0 || (uint32_t)t->tokens[i] >= c->deployment.model->vocab)
            return weft_fail(err, WEFT_ESHAPE, "token id %d at place %u: the vocabulary has 0..%u",
                             t->tokens[i], i, c->deployment.model->vocab - 1);
    return check_sampling(s, t, err);
}

int weft_session_turn(struct weft_session *s, const struct weft_turn *t, weft_err *err)
{
    struct weft_cluster *c = s->cluster;
    int r = check_turn(s, t, err);
    if (r < 0)
        return r;
    if (t->want_logits && s->logits == NULL) {
        s->logits = calloc(c->deployment.model->vocab, sizeof *s->logits);
        if (s->logits == NULL)
            return weft_fail(err, WEFT_ENOMEM, "logits of %u ids", c->deployment.model->vocab);
    }
    memcpy(s->history + t->keep, t->tokens, t->n_tokens * sizeof *t->tokens);
    for (uint32_t i = 0; i < t->n_stop_ids; i++)
        s->stop_ids[i] = (uint32_t)t->stop_ids[i];
    s->params = *t;
    s->params.tokens = NULL;
    s->params.stop_ids = NULL;
    s->turn++;
    s->prompt_start = s->sent = s->n_computed = t->keep;
    s->prompt_end = s->n_history = s->acked = t->keep + t->n_tokens;
    s->logits_filled = 0;
    s->logits_position = t->keep;
    s->n_answer = 0;
    s->started_ns = s->begun_ns = s->first_ns = s->last_ns = c->io->now_ns(c->io);
    s->state = SESSION_BEGINNING;
    for (uint32_t i = 0; i < c->opt.n_devices; i++)
        if (c->devices[i].used)
            s->begin_due |= (uint64_t)1 << i;
    s->begun_missing = s->begin_due;
    watch(s, 0);
    weft_session_pump(s);
    return 0;
}

void weft_session_cancel(struct weft_session *s)
{
    weft_err why = {0};
    (void)weft_fail(&why, WEFT_ECANCELLED, "cancelled");
    turn_failed(s, &why);
}

void weft_session_stop(struct weft_session *s)
{
    if (s->state != SESSION_RUNNING)
        return;
    if (s->cluster->ready)
        send_cancel(s);
    turn_done(s, NULL, WEFT_FINISH_STOP);
}

void weft_session_close(struct weft_session *s)
{
    if (s == NULL)
        return;
    struct weft_cluster *c = s->cluster;
    Weft__Close message = WEFT__CLOSE__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    message.epoch = &c->epoch;
    message.session = s->id;
    env.body_case = WEFT__ENVELOPE__BODY_CLOSE;
    env.close = &message;
    for (uint32_t i = 0; c->ready && i < c->opt.n_devices; i++)
        if (c->devices[i].used && c->devices[i].control_open)
            (void)!weft_peer_send(&c->devices[i].control, &env, NULL, 0);
    c->io->timer_stop(c->io, &s->late);
    struct weft_session **at = &c->sessions;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    c->n_sessions--;
    free(s->history);
    free(s->logits);
    free(s);
}

const int32_t *weft_session_history(const struct weft_session *s, uint32_t *ret_n)
{
    *ret_n = s->n_computed;
    return s->history;
}

void weft_session_times(const struct weft_session *s, uint64_t *ret_prompt_ns,
                        uint64_t *ret_answer_ns, uint32_t *ret_answer_tokens)
{
    *ret_prompt_ns = s->first_ns - s->started_ns;
    *ret_answer_ns = s->last_ns - s->first_ns;
    *ret_answer_tokens = s->n_answer;
}

uint64_t weft_session_begin_ns(const struct weft_session *s)
{
    return s->begun_ns - s->started_ns;
}
