/*
 * Node: what a Begin says of sampling, and the grammar of an answer with the vocabulary it needs.
 *
 * Invariant: a session samples by values that weft_sampling_check has seen. The vocabulary comes
 * once per epoch, its trie is made on the compute thread, and Begins with a grammar wait for it; it
 * and all grammars are freed with the epoch. What a grammar's state may remember is bounded by
 * base/grammar.h. Loop thread but for make_run.
 */
#include "daemon/node_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of all tokens: the largest vocabularies of today have 2 MiB. */
#define TEXT_BYTES_MAX (16u << 20)
#define TRIE_BYTES 16u /* of a trie for a byte of text, at most (base/token_trie.h) */

/* ------------------------------------------------------------------ Begin */

/* bias has room for WEFT_LOGIT_BIAS_MAX. */
static struct weft_sampling sampling_of(const Weft__Sampling *w, struct weft_logit_bias *bias)
{
    for (size_t i = 0; i < w->n_bias; i++)
        bias[i] = (struct weft_logit_bias){(int32_t)w->bias[i]->id, w->bias[i]->bias};
    return (struct weft_sampling){
        .temperature = w->temperature,
        .top_k = w->top_k,
        .typical_p = w->typical_p,
        .top_p = w->top_p,
        .min_p = w->min_p,
        .repeat_penalty = w->repeat_penalty,
        .presence_penalty = w->presence_penalty,
        .frequency_penalty = w->frequency_penalty,
        .repeat_last = w->repeat_last,
        .mirostat = w->mirostat,
        .mirostat_tau = w->mirostat_tau,
        .mirostat_eta = w->mirostat_eta,
        .seed = w->seed,
        .bias = bias,
        .n_bias = (uint32_t)w->n_bias,
    };
}

static int check_grammar(const struct node_epoch *e, const struct weft_frame *f, weft_err *err)
{
    if (e->head == NULL)
        return weft_fail(err, WEFT_EPROTOCOL, "Begin with a grammar, but the head is elsewhere");
    if (f->env->begin->n_stop_ids == 0)
        return weft_fail(err, WEFT_EUSAGE,
                         "a grammar without a stop token: the answer could not end where it does");
    if (e->vocab.texts == NULL || e->vocab.n < e->model->vocab)
        return weft_fail(err, WEFT_ESTATE,
                         "Begin with a grammar after %u of %u tokens of the Vocabulary", e->vocab.n,
                         e->model->vocab);
    return 0;
}

int node_sampling_check(const struct node_epoch *e, const struct weft_frame *f, weft_err *err)
{
    const Weft__Begin *b = f->env->begin;
    const Weft__Sampling *w = b->sampling;
    const uint32_t vocab = e->model->vocab;
    struct weft_logit_bias bias[WEFT_LOGIT_BIAS_MAX];
    if (w == NULL)
        return weft_fail(err, WEFT_EPROTOCOL, "Begin of an answer without sampling");
    if (w->n_bias > WEFT_LOGIT_BIAS_MAX)
        return weft_fail(err, WEFT_ELIMIT, "%zu logit biases, expected at most %u", w->n_bias,
                         (unsigned)WEFT_LOGIT_BIAS_MAX);
    for (size_t i = 0; i < w->n_bias; i++)
        if (w->bias[i]->id >= vocab)
            return weft_fail(err, WEFT_ESHAPE, "logit bias of token %u, the vocabulary has %u",
                             w->bias[i]->id, vocab);
    if (b->top_logprobs > WEFT_LOGPROBS_MAX || b->top_logprobs > vocab)
        return weft_fail(err, WEFT_ELIMIT, "log-probabilities of %u tokens, expected at most %u",
                         b->top_logprobs, vocab < WEFT_LOGPROBS_MAX ? vocab : WEFT_LOGPROBS_MAX);
    if (b->answer > b->n_history)
        return weft_fail(err, WEFT_ELIMIT, "%u tokens of the answer in a history of %zu", b->answer,
                         b->n_history);
    if (b->answer > 0 && !isfinite(b->mirostat_mu))
        return weft_fail(err, WEFT_EUSAGE, "mirostat mu %g, expected a finite number",
                         (double)b->mirostat_mu);
    const struct weft_sampling sampling = sampling_of(w, bias);
    int r = weft_sampling_check(&sampling, err);
    return r == 0 && f->payload_size > 0 ? check_grammar(e, f, err) : r;
}

/* Compiles the grammar and goes over what of the answer is there already. */
static int open_grammar(struct node_epoch *e, struct node_session *s, const struct weft_frame *f,
                        weft_err *err)
{
    const Weft__Begin *b = f->env->begin;
    if (e->vocab.trie == NULL) { /* it was made, or there is a reason */
        *err = e->vocab.err;
        return -err->code;
    }
    int r = weft_grammar_open((const char *)f->payload, f->payload_size, &s->grammar, err);
    if (r == 0)
        r = weft_grammar_state_open(s->grammar, &s->grammar_state, err);
    for (uint32_t i = s->n_history - b->answer; r == 0 && i < s->n_history; i++) {
        const struct weft_token_text *t = &e->vocab.texts[s->history[i]];
        r = weft_grammar_accept(s->grammar_state, t->bytes, t->size, err);
    }
    if (r < 0)
        node_sampling_done(s);
    return r;
}

int node_sampling_begin(struct node_epoch *e, struct node_session *s, const struct weft_frame *f,
                        weft_err *err)
{
    const Weft__Begin *b = f->env->begin;
    node_sampling_done(s);
    s->sampling = (struct weft_sampling){.top_p = 1, .repeat_penalty = 1};
    s->logprobs = false;
    if (b->max_tokens == 0 || e->head == NULL)
        return 0; /* of a prompt alone node_sampling_check has not looked at it */
    s->sampling = sampling_of(b->sampling, s->bias);
    s->mu = b->answer > 0 ? b->mirostat_mu : weft_sampling_mu(&s->sampling);
    s->logprobs = b->logprobs;
    s->top_logprobs = b->top_logprobs;
    return f->payload_size > 0 ? open_grammar(e, s, f, err) : 0;
}

void node_sampling_done(struct node_session *s)
{
    weft_grammar_state_close(s->grammar_state);
    weft_grammar_close(s->grammar);
    s->grammar_state = NULL;
    s->grammar = NULL;
}

/* ------------------------------------------------------------------ Vocabulary */

bool node_sampling_waits(const struct node_epoch *e, const struct weft_frame *begin)
{
    return begin != NULL && begin->payload_size > 0 && begin->env->begin->max_tokens > 0 &&
           e->vocab.trie == NULL && e->vocab.err.code == 0;
}

/* Compute thread. */
static void make_run(struct weft_work *w)
{
    struct node_epoch *e = w->owner;
    struct node_vocab *v = &e->vocab;
    (void)!weft_token_trie_open(v->texts, v->n, &v->made, &v->made_err);
}

static void make_done(struct weft_work *w)
{
    struct node_epoch *e = w->owner;
    struct node_vocab *v = &e->vocab;
    struct weft_node *n = e->node;
    node_work_back(n);
    e->busy--;
    v->trie = v->made;
    v->made = NULL;
    v->err = v->made_err;
    if (v->trie == NULL)
        weft_err_prefix(&v->err, "vocabulary");
    else if (e == n->epoch)
        node_log(n, WEFT_LOG_INFO, "vocabulary", WEFT_U64("epoch", e->id.counter),
                 WEFT_U64("tokens", v->n), WEFT_U64("bytes", v->used));
    node_settle(n);
}

/* What the first frame announces gets its memory, if the machine has it. */
static int vocab_open(struct node_epoch *e, const Weft__Vocabulary *m, weft_err *err)
{
    struct weft_node *n = e->node;
    struct node_vocab *v = &e->vocab;
    struct weft_look look = {0};
    char t[2][32];
    if (m->text_bytes > TEXT_BYTES_MAX)
        return weft_fail(err, WEFT_ELIMIT, "Vocabulary of %u bytes, expected at most %u",
                         m->text_bytes, TEXT_BYTES_MAX);
    uint64_t need =
        (uint64_t)m->vocab * sizeof *v->texts + (uint64_t)m->text_bytes * (1 + TRIE_BYTES);
    n->opt.look(n->opt.arg, &look);
    uint64_t room = node_free_bytes(n, &look);
    if (need > room)
        return weft_fail(err, WEFT_ENOFIT, "%s: the vocabulary of a grammar needs %s, %s are free",
                         n->opt.name, weft_format_size(t[0], sizeof t[0], need),
                         weft_format_size(t[1], sizeof t[1], room));
    v->texts = calloc(m->vocab, sizeof *v->texts);
    v->bytes = malloc(m->text_bytes + 1u); /* malloc(0) may give NULL */
    v->size = m->text_bytes;
    if (v->texts == NULL || v->bytes == NULL)
        return weft_fail(err, WEFT_ENOMEM, "Vocabulary of %u bytes", m->text_bytes);
    return 0;
}

/* Takes the tokens of a payload. */
static int vocab_take(struct node_vocab *v, const Weft__Vocabulary *m, const uint8_t *payload,
                      uint32_t size, weft_err *err)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        if (size - at < 2)
            return weft_fail(err, WEFT_ESHAPE, "Vocabulary: %u of its %u tokens are there", i,
                             m->count);
        uint32_t n = payload[at] | (uint32_t)payload[at + 1] << 8;
        at += 2;
        if (n > size - at || n > v->size - v->used)
            return weft_fail(err, WEFT_ESHAPE,
                             "Vocabulary: token %u has %u bytes, %u are left of the frame, %u of "
                             "the %u announced",
                             v->n, n, size - at, v->size - v->used, v->size);
        memcpy(v->bytes + v->used, payload + at, n);
        v->texts[v->n++] = (struct weft_token_text){.bytes = v->bytes + v->used, .size = n};
        v->used += n;
        at += n;
    }
    if (at != size)
        return weft_fail(err, WEFT_ESHAPE, "Vocabulary: %u bytes behind its %u tokens", size - at,
                         m->count);
    return 0;
}

static int take_vocabulary(struct node_epoch *e, const struct weft_frame *f, weft_err *err)
{
    const Weft__Vocabulary *m = f->env->vocabulary;
    struct node_vocab *v = &e->vocab;
    if (e->phase != NODE_READY)
        return weft_fail(err, WEFT_ESTATE, "Vocabulary before Ready");
    if (e->head == NULL)
        return weft_fail(err, WEFT_ESTATE, "Vocabulary, but the head is elsewhere");
    if (m->vocab != e->model->vocab)
        return weft_fail(err, WEFT_ESHAPE, "Vocabulary of %u tokens, the model has %u", m->vocab,
                         e->model->vocab);
    if (m->first != v->n || m->count == 0 || m->count > m->vocab - v->n)
        return weft_fail(err, WEFT_EPOSITION,
                         "Vocabulary of %u tokens from %u on, expected from %u on, %u in all",
                         m->count, m->first, v->n, m->vocab);
    int r = v->texts == NULL ? vocab_open(e, m, err) : 0;
    if (r == 0 && m->text_bytes != v->size)
        r = weft_fail(err, WEFT_ESHAPE, "Vocabulary of %u bytes, it began with %u", m->text_bytes,
                      v->size);
    if (r == 0)
        r = vocab_take(v, m, f->payload, f->payload_size, err);
    if (r == 0 && v->n == m->vocab && v->used != v->size)
        r = weft_fail(err, WEFT_ESHAPE, "Vocabulary: its tokens have %u bytes, announced were %u",
                      v->used, v->size);
    return r;
}

void node_vocabulary(struct node_peer *p, const struct weft_frame *f)
{
    struct node_epoch *e = p->node->epoch;
    weft_err why = {0};
    if (take_vocabulary(e, f, &why) < 0) {
        node_epoch_fault(e, e->head, &why);
        return;
    }
    if (e->vocab.n < e->model->vocab)
        return;
    e->vocab.make = (struct weft_work){.run = make_run, .done = make_done, .owner = e};
    e->busy++;
    node_work(e->node, &e->vocab.make);
}

void node_vocab_done(struct node_vocab *v)
{
    weft_token_trie_close(v->trie);
    free(v->texts);
    free(v->bytes);
    *v = (struct node_vocab){0};
}
