/*
 * Sampling through nodes, frame by frame: grammars and the vocabulary they need, log-probabilities,
 * what a replay in the middle of an answer carries, and everything about them that is refused.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/grammar.h"
#include "daemon/sampler.h"
#include "tests/harness.h"
#include "tests/node_net.h"

#define BODY(x) WEFT__ENVELOPE__BODY_##x
#define STOP_ID 2u
#define MANY 24 /* tokens of an answer at most */

/* tests/golden/llama.json */
static const int32_t prompt[] = {1, 300, 5,   900, 412, 77,  1000, 263, 350, 640, 513,
                                 8, 299, 720, 801, 266, 931, 404,  270, 615, 22,  345};
#define N_PROMPT (sizeof prompt / sizeof prompt[0])

/* ------------------------------------------------------------------ plans and turns */

static struct net_plan plan_one(const struct net *n)
{
    return (struct net_plan){.stages = {{0, n->model.n_layers, 0}}, .n_stages = 1};
}

/* Two stages on two nodes: the head is on the second. */
static struct net_plan plan_two(const struct net *n)
{
    return (struct net_plan){.stages = {{0, 1, 0}, {1, n->model.n_layers - 1, 1}}, .n_stages = 2};
}

static unsigned head_of(const struct net_plan *p)
{
    return p->stages[p->n_stages - 1].node;
}

/* A Begin to be changed before it is sent. */
struct ask {
    Weft__Begin b;
    Weft__Sampling s;
    uint32_t stop, history[64];
    Weft__LogitBias bias[2], *bias_at[2];
    const char *grammar; /* to the head alone */
};

static void ask_init(struct ask *a, struct net *n, const struct net_turn *t)
{
    *a = (struct ask){.b = WEFT__BEGIN__INIT, .s = WEFT__SAMPLING__INIT, .stop = STOP_ID};
    a->s.temperature = 1.5f;
    a->s.top_p = 1;
    a->s.repeat_penalty = 1;
    a->s.seed = 17;
    a->b.epoch = &n->epoch;
    a->b.session = t->session;
    a->b.turn = t->turn;
    a->b.position = t->position;
    a->b.sampling = &a->s;
    a->b.stop_ids = &a->stop;
    a->b.n_stop_ids = 1;
    a->b.max_tokens = t->max_tokens;
    a->b.prompt_tokens = t->n_prompt;
    a->b.history = a->history;
    for (int i = 0; i < 2; i++) {
        weft__logit_bias__init(&a->bias[i]);
        a->bias_at[i] = &a->bias[i];
    }
    a->s.bias = a->bias_at;
}

static void ask_send(struct net *n, unsigned node, struct ask *a, bool head)
{
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    env.body_case = BODY(BEGIN);
    env.begin = &a->b;
    net_send(&n->control[node], &env, a->grammar,
             head && a->grammar != NULL ? (uint32_t)strlen(a->grammar) : 0);
}

static void ask_start(struct net *n, const struct net_plan *p, struct ask *a,
                      const struct net_turn *t)
{
    for (uint32_t i = 0; i < p->n_stages; i++)
        ask_send(n, p->stages[i].node, a, p->stages[i].node == head_of(p));
    for (uint32_t i = 0; i < p->n_stages; i++)
        net_expect(n, &n->control[p->stages[i].node], BODY(BEGUN));
    net_send_prompt(n, p->stages[0].node, t);
}

static struct net_turn turn_of(uint32_t session, uint32_t turn, uint32_t max_tokens)
{
    return (struct net_turn){.session = session,
                             .turn = turn,
                             .max_tokens = max_tokens,
                             .prompt = prompt,
                             .n_prompt = N_PROMPT};
}

struct answer {
    uint32_t n;
    int32_t ids[MANY];
    float mu[MANY];
    Weft__Finish finish;
};

/* Takes tokens, acknowledging each, until one finishes. */
static void take_answer(struct net *n, const struct net_plan *p, const struct net_turn *t,
                        struct answer *a)
{
    *a = (struct answer){0};
    while (a->finish == WEFT__FINISH__FINISH_NONE) {
        struct weft_frame *f = net_wait(n, &n->results, BODY(TOKEN));
        const Weft__Token *token = f->env->token;
        ck_assert_uint_lt(a->n, MANY);
        ck_assert_uint_eq(token->position, t->position + t->n_prompt + a->n);
        a->ids[a->n] = (int32_t)token->id;
        a->mu[a->n++] = token->mirostat_mu;
        a->finish = token->finish;
        weft_frame_free(f);
        net_send_ack(n, head_of(p), t, t->position + t->n_prompt + a->n);
    }
}

/* ------------------------------------------------------------------ a vocabulary */

/* Token i: nothing for the first three, else one or two letters. */
static uint32_t text_of(uint32_t id, char text[2])
{
    text[0] = (char)('a' + id % 26);
    text[1] = (char)('a' + id / 26 % 26);
    return id < 3 ? 0 : id < 60 ? 1 : 2;
}

static uint32_t text_bytes(uint32_t vocab)
{
    char text[2];
    uint32_t sum = 0;
    for (uint32_t i = 0; i < vocab; i++)
        sum += text_of(i, text);
    return sum;
}

/* Tokens [first, first + count) packed; returns the size. */
static uint32_t pack(uint32_t first, uint32_t count, uint8_t *to)
{
    uint32_t at = 0;
    for (uint32_t id = first; id < first + count; id++) {
        char text[2];
        const uint32_t size = text_of(id, text);
        to[at] = (uint8_t)size;
        to[at + 1] = 0;
        memcpy(to + at + 2, text, size);
        at += 2 + size;
    }
    return at;
}

static void send_texts(struct net *n, unsigned node, uint32_t first, uint32_t count, uint32_t vocab,
                       uint32_t bytes, const uint8_t *payload, uint32_t size)
{
    Weft__Vocabulary v = WEFT__VOCABULARY__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    v.epoch = &n->epoch;
    v.first = first;
    v.count = count;
    v.vocab = vocab;
    v.text_bytes = bytes;
    env.body_case = BODY(VOCABULARY);
    env.vocabulary = &v;
    net_send(&n->control[node], &env, payload, size);
}

/* All of it, in frames of `step` tokens. */
static void send_vocabulary(struct net *n, unsigned node, uint32_t step)
{
    static uint8_t payload[1 << 16];
    const uint32_t vocab = n->model.vocab;
    for (uint32_t first = 0; first < vocab; first += step) {
        const uint32_t count = vocab - first < step ? vocab - first : step;
        send_texts(n, node, first, count, vocab, text_bytes(vocab), payload,
                   pack(first, count, payload));
    }
}

/* ------------------------------------------------------------------ grammars */

static const char gbnf[] = "root ::= \"x\" [a-m]{3,9} tail\ntail ::= \"zz\" | \"y\" [n-z]*\n";

/* What was written obeys the grammar, and ends where it may. */
static void check_text(const struct answer *a, const char *grammar)
{
    struct weft_grammar *g = NULL;
    struct weft_grammar_state *s = NULL;
    weft_err err = {0};
    ck_assert_msg(weft_grammar_open(grammar, strlen(grammar), &g, &err) == 0, "%s", err.text);
    ck_assert_int_eq(weft_grammar_state_open(g, &s, &err), 0);
    for (uint32_t i = 0; i < a->n; i++) {
        char text[2];
        if (a->ids[i] == STOP_ID) {
            ck_assert(i + 1 == a->n && a->finish == WEFT__FINISH__FINISH_STOP);
            ck_assert(weft_grammar_may_end(s));
            continue;
        }
        const uint32_t size = text_of((uint32_t)a->ids[i], text);
        ck_assert_uint_gt(size, 0);
        ck_assert_msg(weft_grammar_accept(s, text, size, &err) == 0, "token %u: %s", i, err.text);
    }
    weft_grammar_state_close(s);
    weft_grammar_close(g);
}

/* On one node and on two, greedy and drawn; the same tokens on both. */
START_TEST(a_grammar_rules_the_answer)
{
    struct answer answers[2][4];
    for (unsigned nodes = 1; nodes <= 2; nodes++) {
        struct net *n = net_open(nodes, weft_test_seed());
        const struct net_plan p = nodes == 1 ? plan_one(n) : plan_two(n);
        net_bring_up(n, &p);
        send_vocabulary(n, head_of(&p), nodes == 1 ? 1024 : 100);
        for (uint32_t i = 0; i < 4; i++) { /* the first Begin waits for the trie */
            struct ask a;
            const struct net_turn t = turn_of(1, i + 1, MANY);
            ask_init(&a, n, &t);
            a.grammar = gbnf;
            a.s.temperature = (float)i;
            a.s.seed = 100 + i;
            ask_start(n, &p, &a, &t);
            take_answer(n, &p, &t, &answers[nodes - 1][i]);
            check_text(&answers[nodes - 1][i], gbnf);
        }
        /* the next turn is free again */
        struct ask a;
        const struct net_turn t = turn_of(1, 9, 3);
        ask_init(&a, n, &t);
        a.s.temperature = 0;
        ask_start(n, &p, &a, &t);
        struct answer free_one;
        take_answer(n, &p, &t, &free_one);
        ck_assert_int_eq(free_one.ids[0], 245); /* of tests/golden/llama.json */
        net_close(n);
    }
    ck_assert_mem_eq(answers[0], answers[1], sizeof answers[0]);
}
END_TEST

START_TEST(grammars_that_are_refused)
{
    struct net *n = net_open(2, weft_test_seed());
    const struct net_plan p = plan_two(n);
    struct net_client *head = &n->control[1];
    net_bring_up(n, &p);
    struct ask a;
    uint32_t turn = 1;
    struct net_turn t = turn_of(1, turn, 4);
    ask_init(&a, n, &t);
    a.grammar = gbnf;
    ask_send(n, 1, &a, true);
    net_expect_fault(n, head, WEFT_ESTATE, 1, "after 0 of 1024 tokens of the Vocabulary");
    ask_send(n, 0, &a, true);
    net_expect_fault(n, &n->control[0], WEFT_EPROTOCOL, 1, "but the head is elsewhere");
    send_vocabulary(n, 1, 1000);
    a.b.n_stop_ids = 0;
    a.b.turn = ++turn;
    ask_send(n, 1, &a, true);
    net_expect_fault(n, head, WEFT_EUSAGE, 1, "a grammar without a stop token");
    a.b.n_stop_ids = 1;
    a.b.turn = ++turn;
    a.grammar = "root ::= \"a\" missing\n";
    ask_send(n, 1, &a, true);
    net_expect_fault(n, head, WEFT_EUSAGE, 1, "grammar:1:");
    a.b.turn = ++turn;
    a.grammar = "root ::= \"";
    ask_send(n, 1, &a, true);
    net_expect_fault(n, head, WEFT_EUSAGE, 1, "grammar:1:");
    /* tokens of the answer so far that the grammar does not allow */
    a.b.turn = ++turn;
    a.grammar = gbnf;
    a.history[0] = 3; /* "d" */
    a.b.n_history = a.b.answer = 1;
    ask_send(n, 1, &a, true);
    net_expect_fault(n, head, WEFT_ESTATE, 1, "");
    /* a grammar that no token of this vocabulary can begin: while sampling */
    t = turn_of(1, ++turn, 4);
    ask_init(&a, n, &t);
    a.grammar = "root ::= \"0\" [0-9]+\n";
    ask_start(n, &p, &a, &t);
    net_expect_fault(n, head, WEFT_ESTATE, 1, "");
    /* all of that has cost only turns */
    t = turn_of(1, ++turn, 4);
    ask_init(&a, n, &t);
    a.grammar = gbnf;
    ask_start(n, &p, &a, &t);
    struct answer answer;
    take_answer(n, &p, &t, &answer);
    check_text(&answer, gbnf);
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ Vocabulary */

static const struct {
    uint32_t first, count, vocab, bytes; /* vocab 0: the model's; bytes 0: the right ones */
    int damage;                          /* to the payload's size */
    int code;
    const char *text;
} lies[] = {
    {1, 10, 0, 0, 0, WEFT_EPOSITION, "of 10 tokens from 1 on, expected from 0 on, 1024 in all"},
    {0, 0, 0, 0, 0, WEFT_EPOSITION, "of 0 tokens from 0 on"},
    {0, 1025, 0, 0, 0, WEFT_EPOSITION, "of 1025 tokens from 0 on"},
    {0, UINT32_MAX, 0, 0, 0, WEFT_EPOSITION, "of 4294967295 tokens"},
    {0, 1000, 1000, 0, 0, WEFT_ESHAPE, "of 1000 tokens, the model has 1024"},
    {0, 1024, 0, (16u << 20) + 1, 0, WEFT_ELIMIT, "of 16777217 bytes, expected at most 16777216"},
    {0, 1024, 0, UINT32_MAX, 0, WEFT_ELIMIT, "of 4294967295 bytes"},
    {0, 1024, 0, 5, 0, WEFT_ESHAPE, "token 8 has 1 bytes"},
    {0, 1024, 0, 1000000, 0, WEFT_ESHAPE, "its tokens have 1985 bytes, announced were 1000000"},
    {0, 1024, 0, 0, -1, WEFT_ESHAPE, "token 1023 has 2 bytes, 1 are left"},
    {0, 1024, 0, 0, -3, WEFT_ESHAPE, "1023 of its 1024 tokens are there"},
    {0, 1024, 0, 0, 1, WEFT_ESHAPE, "1 bytes behind its 1024 tokens"},
    {0, 1023, 0, 0, 4, WEFT_ESHAPE, "4 bytes behind its 1023 tokens"},
};
#define LIES ((int)(sizeof lies / sizeof lies[0]))

/* A broken one ends the epoch by name; the lease goes on. */
START_TEST(vocabularies_that_lie)
{
    static uint8_t payload[1 << 16];
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan p = plan_one(n);
    net_bring_up(n, &p);
    ck_assert_uint_eq(text_bytes(n->model.vocab), 1985);
    memset(payload, 0, sizeof payload);
    const uint32_t count = lies[_i].count < 1024 ? lies[_i].count : 1024;
    const uint32_t size = pack(0, count, payload) + (uint32_t)lies[_i].damage;
    send_texts(n, 0, lies[_i].first, lies[_i].count, lies[_i].vocab != 0 ? lies[_i].vocab : 1024,
               lies[_i].bytes != 0 ? lies[_i].bytes : 1985, payload, size);
    net_expect_fault(n, &n->control[0], lies[_i].code, 0, lies[_i].text);
    net_close(n);
}
END_TEST

START_TEST(vocabularies_out_of_place)
{
    static uint8_t payload[1 << 16];
    struct net *n = net_open(2, weft_test_seed());
    struct net_plan p = plan_two(n);
    net_bring_up(n, &p);
    send_vocabulary(n, 0, 1024);
    net_expect_fault(n, &n->control[0], WEFT_ESTATE, 0, "the head is elsewhere");
    net_close(n);

    n = net_open(1, weft_test_seed());
    p = plan_one(n);
    net_bring_up(n, &p);
    n->epoch.counter++; /* of no epoch of theirs: dropped, as a late one would be */
    send_vocabulary(n, 0, 1024);
    n->epoch.counter--;
    send_texts(n, 0, 0, 500, 1024, 1985, payload, pack(0, 500, payload));
    send_texts(n, 0, 500, 10, 1024, 1984, payload, pack(500, 10, payload));
    net_expect_fault(n, &n->control[0], WEFT_ESHAPE, 0, "of 1984 bytes, it began with 1985");
    net_close(n);

    n = net_open(1, weft_test_seed());
    p = plan_one(n);
    net_bring_up(n, &p);
    send_vocabulary(n, 0, 1024);
    send_vocabulary(n, 0, 1024); /* again, also while the trie is being made */
    net_expect_fault(n, &n->control[0], WEFT_EPOSITION, 0, "expected from 1024 on, 1024 in all");
    net_close(n);

    n = net_open(1, weft_test_seed());
    p = plan_one(n);
    net_bring_up(n, &p);
    n->look.available_bytes = 1000;
    send_vocabulary(n, 0, 1024);
    net_expect_fault(n, &n->control[0], WEFT_ENOFIT, 0, "the vocabulary of a grammar needs");
    net_close(n);
}
END_TEST

/* The epoch ends, and the node, while the trie is being made or a Begin waits for it. */
START_TEST(the_end_comes_first)
{
    for (int close = 0; close < 2; close++) {
        struct net *n = net_open(1, weft_test_seed());
        const struct net_plan p = plan_one(n);
        struct ask a;
        const struct net_turn t = turn_of(1, 1, 4);
        net_bring_up(n, &p);
        send_vocabulary(n, 0, 1024);
        ask_init(&a, n, &t);
        a.grammar = gbnf;
        ask_send(n, 0, &a, true);
        if (close == 0)
            net_hang_up(&n->control[0]);
        net_run(n, close == 0 ? 10 * NET_SECOND_NS : 1000);
        net_close(n);
    }
}
END_TEST

static struct weft_work *held; /* run, and not handed back yet */

static void hold_work(struct weft_io *io, struct weft_work *w)
{
    (void)io;
    ck_assert_ptr_null(held);
    w->run(w);
    held = w;
}

/* What the compute thread has made so far is not looked at before it hands it over. */
START_TEST(a_begin_waits_for_the_whole_trie)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan p = plan_one(n);
    struct weft_io *io = sim_io(n->sim, 0);
    struct ask a;
    const struct net_turn t = turn_of(1, 1, 4);
    net_bring_up(n, &p);
    void (*const work)(struct weft_io *, struct weft_work *) = io->work;
    held = NULL;
    io->work = hold_work;
    send_vocabulary(n, 0, 1024);
    ask_init(&a, n, &t);
    a.grammar = gbnf;
    ask_send(n, 0, &a, true);
    ck_assert(!net_comes(n, &n->control[0], BODY(BEGUN), NET_SECOND_NS));
    ck_assert_ptr_nonnull(held);
    io->work = work;
    held->done(held);
    net_expect(n, &n->control[0], BODY(BEGUN));
    net_close(n);
}
END_TEST

/* A turn that is cancelled while its Begin waits does not begin, and the next one does. */
START_TEST(a_waiting_begin_is_cancelled)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan p = plan_one(n);
    struct weft_io *io = sim_io(n->sim, 0);
    struct ask a;
    struct answer answer;
    struct net_turn t = turn_of(1, 1, 4);
    net_bring_up(n, &p);
    void (*const work)(struct weft_io *, struct weft_work *) = io->work;
    held = NULL;
    io->work = hold_work;
    send_vocabulary(n, 0, 1024);
    ask_init(&a, n, &t);
    a.grammar = gbnf;
    ask_send(n, 0, &a, true);
    net_send_cancel(n, 0, 1, 1);
    net_run(n, NET_SECOND_NS);
    ck_assert_ptr_nonnull(held);
    io->work = work;
    held->done(held);
    ck_assert(!net_comes(n, &n->control[0], BODY(BEGUN), NET_SECOND_NS));
    t = turn_of(1, 2, MANY);
    ask_init(&a, n, &t);
    a.grammar = gbnf;
    ask_start(n, &p, &a, &t);
    take_answer(n, &p, &t, &answer);
    check_text(&answer, gbnf);
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ log-probabilities */

START_TEST(logprobs_come_with_the_tokens)
{
    struct net *n = net_open(2, weft_test_seed());
    const struct net_plan p = plan_two(n);
    const uint32_t vocab = n->model.vocab;
    struct net_turn t = turn_of(1, 1, 5);
    struct ask a;
    net_bring_up(n, &p);
    t.want = WEFT__WANT__WANT_LAST;
    ask_init(&a, n, &t);
    a.b.logprobs = true;
    a.b.top_logprobs = 3;
    a.s.n_bias = 1; /* what alters the draw does not alter them */
    a.bias[0].id = 77;
    a.bias[0].bias = 1000;
    ask_start(n, &p, &a, &t);
    for (uint32_t k = 0; k < 5; k++) {
        struct weft_frame *l = net_wait(n, &n->results, BODY(LOGITS));
        struct weft_frame *f = net_wait(n, &n->results, BODY(TOKEN));
        const float *x = (const float *)(const void *)l->payload;
        const Weft__Token *token = f->env->token;
        double total = 0;
        uint32_t above = 0;
        ck_assert_uint_eq(l->payload_size, vocab * 4);
        for (uint32_t i = 0; i < vocab; i++)
            total += exp((double)x[i]);
        ck_assert_uint_eq(token->id, 77);
        ck_assert(token->logprob != NULL && token->logprob->id == 77);
        ck_assert_double_eq_tol((double)token->logprob->logprob, (double)x[77] - log(total), 1e-5);
        ck_assert_uint_eq(token->n_top, 3);
        for (uint32_t i = 0; i < 3; i++)
            ck_assert_double_eq_tol((double)token->top[i]->logprob,
                                    (double)x[token->top[i]->id] - log(total), 1e-5);
        for (uint32_t i = 0; i < vocab; i++)
            above += x[i] > x[token->top[2]->id];
        ck_assert_uint_le(above, 2);
        net_send_ack(n, 1, &t, token->position + 1);
        weft_frame_free(f);
        weft_frame_free(l);
    }
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ going on in the middle */

/* A session that is given the first half of an answer makes the second as the first session did. */
START_TEST(an_answer_goes_on)
{
    enum { HALF = 6, ALL = 12 };
    static const char loop[] = "root ::= [a-z]*\n";
    struct net *n = net_open(2, weft_test_seed());
    const struct net_plan p = plan_two(n);
    struct answer whole, rest;
    struct ask a;
    int32_t longer[N_PROMPT + HALF];
    net_bring_up(n, &p);
    send_vocabulary(n, 1, 1024);
    struct net_turn t = turn_of(1, 1, ALL);
    for (int half = 0; half < 2; half++) {
        if (half == 1) {
            t = turn_of(2, 1, ALL - HALF);
            memcpy(longer, prompt, sizeof prompt);
            memcpy(longer + N_PROMPT, whole.ids, HALF * sizeof *whole.ids);
            t.prompt = longer;
            t.n_prompt = N_PROMPT + HALF;
        }
        ask_init(&a, n, &t);
        a.grammar = loop;
        a.s.mirostat = 2;
        a.s.mirostat_tau = 3;
        a.s.mirostat_eta = 0.7f;
        a.s.frequency_penalty = 1;
        a.s.repeat_last = 16;
        a.b.n_history = t.n_prompt;
        for (uint32_t i = 0; i < t.n_prompt; i++)
            a.history[i] = (uint32_t)t.prompt[i];
        a.b.answer = half * HALF;
        a.b.mirostat_mu = half == 1 ? whole.mu[HALF - 1] : NAN; /* not used without an answer */
        ask_start(n, &p, &a, &t);
        take_answer(n, &p, &t, half == 0 ? &whole : &rest);
    }
    ck_assert(whole.n == ALL && rest.n == ALL - HALF); /* by this seed none is a stop token */
    ck_assert_float_ne(whole.mu[0], whole.mu[1]);
    ck_assert_mem_eq(rest.ids, whole.ids + HALF, (ALL - HALF) * sizeof *rest.ids);
    ck_assert_mem_eq(rest.mu, whole.mu + HALF, (ALL - HALF) * sizeof *rest.mu);
    net_close(n);
}
END_TEST

/* A long answer of little surprise takes mu as far as it likes: the next one begins nevertheless.
 */
START_TEST(an_answer_goes_on_from_any_mu)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan p = plan_one(n);
    const struct net_turn t = turn_of(1, 1, 2);
    struct answer answer;
    struct ask a;
    net_bring_up(n, &p);
    ask_init(&a, n, &t);
    a.s.mirostat = 2;
    a.s.mirostat_tau = 100;
    a.s.mirostat_eta = 1;
    a.b.n_history = a.b.answer = 1;
    a.b.mirostat_mu = 3e6f;
    ask_start(n, &p, &a, &t);
    take_answer(n, &p, &t, &answer);
    ck_assert_float_gt(answer.mu[0], 2.9e6f);
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ a Begin that lies */

static void bad_typical(struct ask *a)
{
    a->s.typical_p = NAN;
}
static void bad_presence(struct ask *a)
{
    a->s.presence_penalty = 11;
}
static void bad_mirostat(struct ask *a)
{
    a->s.mirostat = 1;
}
static void bad_mu(struct ask *a)
{
    a->b.n_history = a->b.answer = 1;
    a->b.mirostat_mu = INFINITY;
}
static void bad_answer(struct ask *a)
{
    a->b.answer = 1;
}
static void bad_top(struct ask *a)
{
    a->b.top_logprobs = 21;
}
static void bad_bias_id(struct ask *a)
{
    a->s.n_bias = 2;
    a->bias[1].id = 1024;
}
static void bad_bias(struct ask *a)
{
    a->s.n_bias = 1;
    a->bias[0].bias = INFINITY;
}
static void no_sampling(struct ask *a)
{
    a->b.sampling = NULL;
}

START_TEST(begins_that_lie)
{
    static const struct {
        void (*change)(struct ask *a);
        int code;
        const char *text;
    } cases[] = {
        {bad_typical, WEFT_EUSAGE, "typical-p nan, expected 0 to 1"},
        {bad_presence, WEFT_EUSAGE, "presence penalty 11, expected -10 to 10"},
        {bad_mirostat, WEFT_EUSAGE, "mirostat 1, expected 0 or 2"},
        {bad_mu, WEFT_EUSAGE, "mirostat mu inf"},
        {bad_answer, WEFT_ELIMIT, "1 tokens of the answer in a history of 0"},
        {bad_top, WEFT_ELIMIT, "log-probabilities of 21 tokens, expected at most 20"},
        {bad_bias_id, WEFT_ESHAPE, "logit bias of token 1024, the vocabulary has 1024"},
        {bad_bias, WEFT_EUSAGE, "logit bias inf of token 0"},
        {no_sampling, WEFT_EPROTOCOL, "Begin of an answer without sampling"},
    };
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan p = plan_one(n);
    net_bring_up(n, &p);
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct ask a;
        const struct net_turn t = turn_of(1, i + 1, 4);
        ask_init(&a, n, &t);
        cases[i].change(&a);
        ask_send(n, 0, &a, true);
        net_expect_fault(n, &n->control[0], cases[i].code, 1, cases[i].text);
    }
    net_close(n);
}
END_TEST

/* Biases that leave nothing end the turn, not more. */
START_TEST(a_bias_bans)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan p = plan_one(n);
    struct ask a;
    struct answer free_one, banned;
    net_bring_up(n, &p);
    struct net_turn t = turn_of(1, 1, 3);
    ask_init(&a, n, &t);
    a.s.temperature = 0;
    ask_start(n, &p, &a, &t);
    take_answer(n, &p, &t, &free_one);
    t = turn_of(1, 2, 3);
    ask_init(&a, n, &t);
    a.s.temperature = 0;
    a.s.n_bias = 1;
    a.bias[0].id = (uint32_t)free_one.ids[0];
    a.bias[0].bias = -INFINITY;
    ask_start(n, &p, &a, &t);
    take_answer(n, &p, &t, &banned);
    for (uint32_t i = 0; i < banned.n; i++)
        ck_assert_int_ne(banned.ids[i], free_one.ids[0]);
    net_close(n);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("node_sampling");
    TCase *c = tcase_create("node_sampling");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, a_grammar_rules_the_answer);
    tcase_add_test(c, grammars_that_are_refused);
    tcase_add_loop_test(c, vocabularies_that_lie, 0, LIES);
    tcase_add_test(c, vocabularies_out_of_place);
    tcase_add_test(c, the_end_comes_first);
    tcase_add_test(c, a_begin_waits_for_the_whole_trie);
    tcase_add_test(c, a_waiting_begin_is_cancelled);
    tcase_add_test(c, logprobs_come_with_the_tokens);
    tcase_add_test(c, an_answer_goes_on);
    tcase_add_test(c, an_answer_goes_on_from_any_mu);
    tcase_add_test(c, begins_that_lie);
    tcase_add_test(c, a_bias_bans);
    suite_add_tcase(s, c);
    return weft_test_main(s);
}
