/*
 * The coordinator's cluster against daemons that lie, on virtual time: frames of any kind in any
 * phase, answers left out, doubled or for another question, faults, connections closed, machines
 * that fall silent, interrupts. Whatever comes, every wait ends once, and what failed names a
 * device.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cluster.h"
#include "tests/harness.h"
#include "tests/sim.h"

#define HOSTS_MAX 3
#define PEERS_MAX 64 /* connections of one run */
#define MODEL_PATH "configs/demo/weft-stories-q8_0.gguf"
#define CONTEXT 64
#define DELAY_MIN_NS 5000u
#define LIMIT_NS ((uint64_t)7200 * 1000000000u)
#define SEEDS 3000
#define LOGPROBS 2

static struct {
    struct weft_mapping map;
    struct weft_gguf gguf;
    struct weft_model model;
} file;

/* Texts of the first tokens; the others have none. */
#define texts_bytes "onetwothree"
static const struct weft_token_text texts[] = {{"one", 3}, {NULL, 0}, {"two", 3}, {"three", 5}};
#define N_TEXTS (sizeof texts / sizeof texts[0])

struct world;

struct fake {
    struct world *world;
    unsigned index;
    uint32_t layer; /* whose norms it says it lacks */
    uint32_t parts; /* of these that have come */
    struct weft_peer *control;
};

struct world {
    struct sim *sim;
    uint64_t random;
    unsigned n;
    double evil; /* part of the answers that are not what they should be */
    struct fake fakes[HOSTS_MAX];
    struct weft_peer peers[PEERS_MAX]; /* the daemons' ends */
    unsigned n_peers;
    struct weft_peer *results;
    struct weft_cluster_device devices[HOSTS_MAX];
    struct weft_cluster *cluster;
    struct weft_session *session;
    Weft__Epoch epoch;
    uint32_t max_tokens;
    unsigned waits, ends; /* begun and ended */
    bool ended, closed, noise;
    weft_err why;
    struct weft_timer trouble;
    uint32_t n_logits;
    bool logprobs;       /* the turn asks for them, and has a grammar */
    uint32_t n_logprobs; /* events in this turn */
    uint32_t n_tokens,
        stop_at;      /* tokens of this turn; the one at which the test ends it, 0: none */
    uint32_t n_texts; /* that came in Vocabulary frames of this epoch */
};

static const char *const names[HOSTS_MAX] = {"n0", "n1", "n2"};
static const char *const addresses[HOSTS_MAX] = {"n0:1", "n1:1", "n2:1"};

static void setup(void)
{
    weft_err err = {0};
    const char *path = weft_test_path(MODEL_PATH);
    ck_assert_ptr_nonnull(path);
    ck_assert_msg(weft_mapping_open(path, &file.map, &err) == 0, "%s", err.text);
    ck_assert_msg(weft_gguf_open(file.map.data, file.map.size, &file.gguf, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(weft_model_from_gguf(&file.gguf, &file.map, &file.model, &err) == 0, "%s",
                  err.text);
}

static void teardown(void)
{
    weft_model_done(&file.model);
    weft_gguf_done(&file.gguf);
    weft_mapping_close(&file.map);
}

static uint32_t below(struct world *w, uint32_t n)
{
    return (uint32_t)(weft_test_random(&w->random) % n);
}

static bool chance(struct world *w, double p)
{
    return weft_test_uniform(&w->random) < p;
}

/* ------------------------------------------------------------------ frames that lie */

/* Numbers at which something may break. */
static uint32_t number(struct world *w)
{
    const uint32_t some[] = {
        0,  1,          2,          3,    CONTEXT - 1, CONTEXT,       file.model.vocab,
        31, UINT32_MAX, 0x7fffffff, 1024, 65536,       below(w, 1000)};
    return some[below(w, sizeof some / sizeof some[0])];
}

static uint64_t wide(struct world *w)
{
    return chance(w, 0.3) ? UINT64_MAX : chance(w, 0.5) ? number(w) : weft_test_random(&w->random);
}

static char *words(struct world *w)
{
    static char huge[2001];
    memset(huge, 'x', sizeof huge - 1);
    static char forged[] = "\033[2Jforged\nline";
    char *const some[] = {(char *)"", (char *)"idle", forged, huge};
    return some[below(w, 4)];
}

/* Sends a frame of a random kind with random contents. */
static void lie(struct world *w, struct weft_peer *p)
{
    static float payload[1024];
    union {
        Weft__Status status;
        Weft__LinkReport report;
        Weft__Fault fault;
        Weft__Acquired acquired;
        Weft__Released released;
        Weft__Missing missing;
        Weft__Loaded loaded;
        Weft__Ready ready;
        Weft__Begun begun;
        Weft__Token token;
        Weft__Logits logits;
        Weft__Stats stats;
        Weft__Step step;
    } m;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    Weft__ShardRun run = WEFT__SHARD_RUN__INIT, *runs[300];
    Weft__StageStats stage = WEFT__STAGE_STATS__INIT, *stages[] = {&stage, &stage};
    Weft__Logprob top = WEFT__LOGPROB__INIT, *tops[20];
    Weft__Epoch epoch = w->epoch;
    uint32_t size = 0;
    if (chance(w, 0.2))
        epoch.counter = number(w);
    switch (below(w, 13)) {
    case 0:
        weft__status__init(&m.status);
        m.status.request = number(w);
        m.status.name = m.status.state = m.status.holder = words(w);
        m.status.boot_id = m.status.isa = words(w);
        m.status.memory_free_bytes = wide(w);
        m.status.probed = true;
        m.status.bytes_per_s = wide(w);
        m.status.flops_per_s = wide(w);
        m.status.stage_ns = wide(w);
        env.body_case = WEFT__ENVELOPE__BODY_STATUS;
        env.status = &m.status;
        break;
    case 1:
        weft__link_report__init(&m.report);
        m.report.request = number(w);
        m.report.bytes_per_s = m.report.latency_ns = wide(w);
        env.body_case = WEFT__ENVELOPE__BODY_LINK_REPORT;
        env.link_report = &m.report;
        break;
    case 2:
        weft__fault__init(&m.fault);
        m.fault.code = number(w);
        m.fault.text = words(w);
        m.fault.session = number(w);
        m.fault.turn = number(w);
        m.fault.request = number(w);
        env.body_case = WEFT__ENVELOPE__BODY_FAULT;
        env.fault = &m.fault;
        break;
    case 3:
        weft__acquired__init(&m.acquired);
        m.acquired.request = number(w);
        env.body_case = WEFT__ENVELOPE__BODY_ACQUIRED;
        env.acquired = &m.acquired;
        break;
    case 4:
        weft__released__init(&m.released);
        m.released.request = number(w);
        env.body_case = WEFT__ENVELOPE__BODY_RELEASED;
        env.released = &m.released;
        break;
    case 5:
        weft__missing__init(&m.missing);
        m.missing.request = number(w);
        m.missing.epoch = &epoch;
        run.kind = below(w, WEFT_SHARD_KIND_COUNT + 1);
        run.layer = below(w, file.model.n_layers + 2);
        run.first = below(w, 3);
        run.count = number(w);
        m.missing.n_shards = below(w, 300);
        m.missing.shards = runs;
        for (size_t i = 0; i < m.missing.n_shards; i++)
            runs[i] = &run;
        env.body_case = WEFT__ENVELOPE__BODY_MISSING;
        env.missing = &m.missing;
        break;
    case 6:
        weft__loaded__init(&m.loaded);
        m.loaded.epoch = &epoch;
        env.body_case = WEFT__ENVELOPE__BODY_LOADED;
        env.loaded = &m.loaded;
        break;
    case 7:
        weft__ready__init(&m.ready);
        m.ready.request = number(w);
        m.ready.epoch = chance(w, 0.5) ? &epoch : NULL;
        env.body_case = WEFT__ENVELOPE__BODY_READY;
        env.ready = &m.ready;
        break;
    case 8:
        weft__begun__init(&m.begun);
        m.begun.epoch = &epoch;
        m.begun.session = number(w);
        m.begun.turn = number(w);
        env.body_case = WEFT__ENVELOPE__BODY_BEGUN;
        env.begun = &m.begun;
        break;
    case 9:
        weft__token__init(&m.token);
        m.token.epoch = &epoch;
        m.token.session = m.token.turn = 1;
        m.token.position = below(w, CONTEXT + 2);
        m.token.id = number(w);
        m.token.finish = (Weft__Finish)below(w, 4);
        top.id = number(w);
        m.token.logprob = chance(w, 0.5) ? &top : NULL;
        m.token.n_top = below(w, 21);
        m.token.top = tops;
        for (size_t i = 0; i < m.token.n_top; i++)
            tops[i] = &top;
        env.body_case = WEFT__ENVELOPE__BODY_TOKEN;
        env.token = &m.token;
        break;
    case 10:
        weft__logits__init(&m.logits);
        m.logits.epoch = &epoch;
        m.logits.session = m.logits.turn = 1;
        m.logits.position = below(w, CONTEXT + 2);
        m.logits.first = chance(w, 0.5) ? 0 : number(w);
        m.logits.vocab = chance(w, 0.7) ? file.model.vocab : number(w);
        size = below(w, 1025) * 4;
        env.body_case = WEFT__ENVELOPE__BODY_LOGITS;
        env.logits = &m.logits;
        break;
    case 11:
        weft__stats__init(&m.stats);
        m.stats.request = number(w);
        stage.stage = number(w);
        m.stats.stages = stages;
        m.stats.n_stages = 2;
        env.body_case = WEFT__ENVELOPE__BODY_STATS;
        env.stats = &m.stats;
        break;
    default:
        weft__step__init(&m.step);
        m.step.stage = number(w);
        env.body_case = WEFT__ENVELOPE__BODY_STEP;
        env.step = &m.step;
        break;
    }
    (void)!weft_peer_send(p, &env, payload, size);
}

/* Sends what a daemon should, or not. */
static void answer(struct fake *f, struct weft_peer *p, const Weft__Envelope *env,
                   const void *payload, uint32_t size)
{
    struct world *w = f->world;
    bool good = true;
    if (chance(w, w->evil)) {
        switch (below(w, 6)) {
        case 0:
            good = false;
            break;
        case 1:
            (void)!weft_peer_send(p, env, payload, size);
            break;
        case 2:
            weft_peer_close(p, false);
            return;
        case 3:
            weft_peer_refuse(p, (int)below(w, 30), "%s", words(w));
            return;
        case 4:
            lie(w, p);
            good = chance(w, 0.5);
            break;
        default:
            if (chance(w, 0.5)) {
                sim_cut(w->sim, f->index);
                return;
            }
        }
    }
    if (good)
        (void)!weft_peer_send(p, env, payload, size);
}

/* ------------------------------------------------------------------ a daemon that works */

static void answer_status(struct fake *f, struct weft_peer *p, const Weft__StatusRequest *rq)
{
    Weft__Status m = WEFT__STATUS__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    m.request = rq->request;
    m.name = (char *)names[f->index];
    m.boot_id = (char *)(chance(f->world, 0.5) ? "one machine" : names[f->index]);
    m.memory_free_bytes = m.machine_free_bytes = (uint64_t)1 << 30;
    m.probed = rq->probe;
    m.bytes_per_s = m.flops_per_s = 1000000000;
    env.body_case = WEFT__ENVELOPE__BODY_STATUS;
    env.status = &m;
    answer(f, p, &env, NULL, 0);
}

static void say_loaded(struct fake *f, struct weft_peer *p)
{
    Weft__Loaded m = WEFT__LOADED__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    m.epoch = &f->world->epoch;
    env.body_case = WEFT__ENVELOPE__BODY_LOADED;
    env.loaded = &m;
    answer(f, p, &env, NULL, 0);
}

static void answer_deploy(struct fake *f, struct weft_peer *p, const Weft__Deploy *rq)
{
    struct world *w = f->world;
    Weft__Missing m = WEFT__MISSING__INIT;
    Weft__ShardRun run = WEFT__SHARD_RUN__INIT, *runs[] = {&run};
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    w->epoch = *rq->epoch;
    w->n_texts = 0;
    f->layer = rq->stages[rq->mine[0]]->first_layer;
    f->parts = 0;
    run.kind = WEFT_SHARD_NORMS;
    run.layer = f->layer;
    run.count = 1;
    m.request = rq->request;
    m.epoch = &w->epoch;
    m.shards = runs;
    m.n_shards = chance(w, 0.7);
    env.body_case = WEFT__ENVELOPE__BODY_MISSING;
    env.missing = &m;
    answer(f, p, &env, NULL, 0);
    if (m.n_shards == 0)
        say_loaded(f, p);
}

static void take_shard(struct fake *f, const struct weft_frame *frame)
{
    const Weft__Shard *s = frame->env->shard;
    ck_assert_uint_eq(s->run->kind, WEFT_SHARD_NORMS);
    if (s->offset + frame->payload_size == s->total && ++f->parts == 2 && f->control != NULL)
        say_loaded(f, f->control);
}

static void send_row(struct fake *f, const Weft__Prompt *pr, uint32_t position)
{
    struct world *w = f->world;
    static float row[65536];
    uint32_t vocab = file.model.vocab, half = vocab / 2;
    for (uint32_t first = 0; first < vocab; first += half) {
        Weft__Logits m = WEFT__LOGITS__INIT;
        Weft__Envelope env = WEFT__ENVELOPE__INIT;
        uint32_t n = vocab - first < half ? vocab - first : half;
        m.epoch = &w->epoch;
        m.session = pr->session;
        m.turn = pr->turn;
        m.position = position;
        m.first = first;
        m.vocab = vocab;
        env.body_case = WEFT__ENVELOPE__BODY_LOGITS;
        env.logits = &m;
        if (w->results != NULL)
            answer(f, w->results, &env, row, n * 4);
    }
}

/* The whole answer at once. */
static void answer_prompt(struct fake *f, const Weft__Prompt *pr, uint32_t n)
{
    struct world *w = f->world;
    uint32_t position = pr->position;
    for (uint32_t i = 0; pr->want == WEFT__WANT__WANT_ALL && i < n; i++)
        send_row(f, pr, position + i);
    position += n;
    for (uint32_t i = 0; i < w->max_tokens && w->results != NULL; i++) {
        Weft__Token m = WEFT__TOKEN__INIT;
        Weft__Logprob own = WEFT__LOGPROB__INIT, *top[LOGPROBS] = {&own, &own};
        Weft__Envelope env = WEFT__ENVELOPE__INIT;
        m.epoch = &w->epoch;
        m.session = pr->session;
        m.turn = pr->turn;
        m.position = position + i;
        m.id = own.id = below(w, file.model.vocab);
        m.logprob = w->logprobs ? &own : NULL;
        m.top = top;
        m.n_top = w->logprobs ? LOGPROBS : 0;
        m.finish = i + 1 == w->max_tokens ? WEFT__FINISH__FINISH_LENGTH : WEFT__FINISH__FINISH_NONE;
        env.body_case = WEFT__ENVELOPE__BODY_TOKEN;
        env.token = &m;
        answer(f, w->results, &env, NULL, 0);
        if (pr->want == WEFT__WANT__WANT_ALL && m.finish == WEFT__FINISH__FINISH_NONE)
            send_row(f, pr, position + i);
    }
}

/* What a grammar needs comes before it, whole and once, and to the head alone. */
static void check_grammar(struct fake *f, const struct weft_frame *frame)
{
    struct world *w = f->world;
    const bool head = f->index + 1 == w->n;
    ck_assert_int_eq(frame->payload_size > 0, w->logprobs && head);
    if (w->logprobs && head)
        ck_assert_uint_eq(w->n_texts, file.model.vocab);
}

static void take_texts(struct fake *f, const struct weft_frame *frame)
{
    const Weft__Vocabulary *v = frame->env->vocabulary;
    uint32_t at = 0;
    ck_assert_uint_eq(f->index + 1, f->world->n);
    ck_assert_uint_eq(v->first, f->world->n_texts);
    ck_assert(v->vocab == file.model.vocab && v->text_bytes == sizeof texts_bytes - 1);
    for (uint32_t i = 0; i < v->count; i++) {
        const uint32_t n = frame->payload[at] | (uint32_t)frame->payload[at + 1] << 8;
        ck_assert_uint_eq(n, v->first + i < N_TEXTS ? texts[v->first + i].size : 0);
        ck_assert(n == 0 || memcmp(frame->payload + at + 2, texts[v->first + i].bytes, n) == 0);
        at += 2 + n;
    }
    ck_assert_uint_eq(at, frame->payload_size);
    f->world->n_texts += v->count;
}

static void answer_begin(struct fake *f, struct weft_peer *p, const Weft__Begin *rq)
{
    Weft__Begun m = WEFT__BEGUN__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    m.epoch = &f->world->epoch;
    m.session = rq->session;
    m.turn = rq->turn;
    env.body_case = WEFT__ENVELOPE__BODY_BEGUN;
    env.begun = &m;
    answer(f, p, &env, NULL, 0);
}

/* Requests whose answer is a number given back. */
static void answer_small(struct fake *f, struct weft_peer *p, const Weft__Envelope *rq)
{
    Weft__LinkReport report = WEFT__LINK_REPORT__INIT;
    Weft__Acquired acquired = WEFT__ACQUIRED__INIT;
    Weft__Released released = WEFT__RELEASED__INIT;
    Weft__Ready ready = WEFT__READY__INIT;
    Weft__Stats stats = WEFT__STATS__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    switch (rq->body_case) {
    case WEFT__ENVELOPE__BODY_LINK_REQUEST:
        report.request = rq->link_request->request;
        report.bytes_per_s = 1000000;
        env.body_case = WEFT__ENVELOPE__BODY_LINK_REPORT;
        env.link_report = &report;
        break;
    case WEFT__ENVELOPE__BODY_ACQUIRE:
        acquired.request = rq->acquire->request;
        env.body_case = WEFT__ENVELOPE__BODY_ACQUIRED;
        env.acquired = &acquired;
        break;
    case WEFT__ENVELOPE__BODY_RELEASE:
        released.request = rq->release->request;
        env.body_case = WEFT__ENVELOPE__BODY_RELEASED;
        env.released = &released;
        break;
    case WEFT__ENVELOPE__BODY_CONNECT:
        ready.request = rq->connect->request;
        ready.epoch = &f->world->epoch;
        env.body_case = WEFT__ENVELOPE__BODY_READY;
        env.ready = &ready;
        break;
    case WEFT__ENVELOPE__BODY_STATS_REQUEST:
        stats.request = rq->stats_request->request;
        env.body_case = WEFT__ENVELOPE__BODY_STATS;
        env.stats = &stats;
        break;
    default: /* Ack, Cancel, Close */
        return;
    }
    answer(f, p, &env, NULL, 0);
}

static void fake_up(struct weft_peer *p)
{
    struct fake *f = p->opt.owner;
    if (p->hello->lane == WEFT__LANE__LANE_CONTROL)
        f->control = p;
    else if (p->hello->lane == WEFT__LANE__LANE_RESULTS)
        f->world->results = p;
    if (chance(f->world, f->world->evil / 2))
        lie(f->world, p);
}

static void fake_frame(struct weft_peer *p, struct weft_frame *frame)
{
    struct fake *f = p->opt.owner;
    const Weft__Envelope *env = frame->env;
    switch (env->body_case) {
    case WEFT__ENVELOPE__BODY_STATUS_REQUEST:
        answer_status(f, p, env->status_request);
        break;
    case WEFT__ENVELOPE__BODY_DEPLOY:
        answer_deploy(f, p, env->deploy);
        break;
    case WEFT__ENVELOPE__BODY_SHARD:
        if (f->world->evil == 0)
            take_shard(f, frame);
        else if (env->shard->offset + frame->payload_size == env->shard->total && ++f->parts == 2 &&
                 f->control != NULL)
            say_loaded(f, f->control);
        break;
    case WEFT__ENVELOPE__BODY_BEGIN:
        if (f->world->evil == 0)
            check_grammar(f, frame);
        answer_begin(f, p, env->begin);
        break;
    case WEFT__ENVELOPE__BODY_VOCABULARY:
        if (f->world->evil == 0)
            take_texts(f, frame);
        break;
    case WEFT__ENVELOPE__BODY_PROMPT:
        answer_prompt(f, env->prompt, frame->payload_size / 4);
        break;
    default:
        answer_small(f, p, env);
        break;
    }
    weft_frame_free(frame);
}

static void fake_down(struct weft_peer *p, const weft_err *why)
{
    struct fake *f = p->opt.owner;
    (void)why;
    if (f->control == p)
        f->control = NULL;
    if (f->world->results == p)
        f->world->results = NULL;
}

static const struct weft_peer_events fake_events = {
    .up = fake_up, .frame = fake_frame, .down = fake_down};

static void fake_accept(void *arg, struct weft_conn *c)
{
    struct fake *f = arg;
    struct world *w = f->world;
    struct weft_peer_options po = {.events = &fake_events, .owner = f, .hello = WEFT__HELLO__INIT};
    ck_assert_uint_lt(w->n_peers, PEERS_MAX);
    po.hello.name = (char *)names[f->index];
    po.hello.software = words(w);
    if (chance(w, w->evil / 4)) /* accepts and never says a word */
        return;
    weft_peer_accept(&w->peers[w->n_peers++], sim_io(w->sim, f->index), c, &po);
}

/* ------------------------------------------------------------------ a run */

/* From time to time somebody says something that nobody asked for, or a person loses patience. */
static void trouble(struct weft_timer *t)
{
    struct world *w = t->owner;
    struct weft_io *io = sim_io(w->sim, HOSTS_MAX);
    if (w->n_peers > 0 && w->noise)
        lie(w, &w->peers[below(w, w->n_peers)]);
    if (chance(w, 0.02))
        weft_cluster_interrupt(w->cluster);
    if (!w->closed)
        io->timer_start(io, t, 1 + below(w, 20000000));
}

static void end(struct world *w, const weft_err *err)
{
    w->ends++;
    ck_assert_uint_eq(w->ends, w->waits);
    w->ended = true;
    w->why = err != NULL ? *err : (weft_err){0};
}

static void on_phase(void *arg, const weft_err *err)
{
    end(arg, err);
}

static void on_token(void *arg, int32_t id, enum weft_finish finish)
{
    struct world *w = arg;
    ck_assert(id >= 0 && (uint32_t)id < file.model.vocab && finish <= WEFT_FINISH_CONTEXT);
    if (w->evil > 0 && chance(w, 0.01))
        weft_session_cancel(w->session);
    else if (++w->n_tokens == w->stop_at)
        weft_session_stop(w->session);
}

static void on_logprobs(void *arg, const struct weft_token_logprob *list, uint32_t n)
{
    struct world *w = arg;
    ck_assert(w->logprobs && n == 1 + LOGPROBS);
    ck_assert_uint_eq(w->n_logprobs++, w->n_tokens); /* before its token */
    for (uint32_t i = 0; i < n; i++)
        ck_assert(list[i].id >= 0 && (uint32_t)list[i].id < file.model.vocab);
}

static void on_logits(void *arg, uint32_t position, const float *row, uint32_t vocab)
{
    struct world *w = arg;
    ck_assert_uint_eq(position, w->n_logits++);
    ck_assert(row != NULL && vocab == file.model.vocab);
}

static void on_done(void *arg, const weft_err *err, enum weft_finish finish)
{
    (void)finish;
    end(arg, err);
}

static void on_broken(void *arg, const weft_err *why)
{
    (void)arg;
    ck_assert_int_ne(why->code, 0);
}

static void on_closed(void *arg)
{
    ((struct world *)arg)->closed = true;
}

static void wait_begin(struct world *w)
{
    w->waits++;
    w->ended = false;
}

/* Runs until the wait ends; true if it ended well. */
static bool wait_end(struct world *w, const char *what, uint64_t seed)
{
    bool named = false;
    bool ended = sim_run(w->sim, &w->ended, sim_now_ns(w->sim) + LIMIT_NS);
    ck_assert_msg(ended, "seed %llu: %s never ended", (unsigned long long)seed, what);
    if (w->why.code == 0) {
        ck_assert_str_eq(w->why.text, "");
        return true;
    }
    for (unsigned i = 0; i < w->n; i++)
        named |= strstr(w->why.text, names[i]) != NULL;
    ck_assert_msg(named || w->why.code == WEFT_EINTERRUPTED || w->why.code == WEFT_ECANCELLED,
                  "seed %llu: %s: '%s' names no device", (unsigned long long)seed, what,
                  w->why.text);
    ck_assert_msg(strpbrk(w->why.text, "\033\n") == NULL, "seed %llu: forged: %s",
                  (unsigned long long)seed, w->why.text);
    return false;
}

static void world_open(struct world *w, uint64_t seed, double evil)
{
    weft_err err = {0};
    memset(w, 0, sizeof *w);
    w->random = seed * 2654435761u + 11;
    w->n = 1 + below(w, HOSTS_MAX);
    w->evil = evil;
    w->noise = evil > 0;
    weft__epoch__init(&w->epoch);
    const struct sim_options so = {
        .seed = seed, .delay_min_ns = DELAY_MIN_NS, .delay_max_ns = 20000000, .work_max_ns = 1};
    w->sim = sim_open(&so);
    for (unsigned i = 0; i < w->n; i++) {
        w->fakes[i] = (struct fake){.world = w, .index = i};
        w->devices[i] = (struct weft_cluster_device){.name = names[i], .address = addresses[i]};
        if (!chance(w, evil / 4))
            sim_listen(w->sim, i, addresses[i], fake_accept, &w->fakes[i]);
    }
    const struct weft_cluster_options co = {
        .io = sim_io(w->sim, HOSTS_MAX),
        .name = "test",
        .devices = w->devices,
        .n_devices = w->n,
        .broken = on_broken,
        .arg = w,
    };
    ck_assert_msg(weft_cluster_open(&co, &w->cluster, &err) == 0, "%s", err.text);
    w->trouble = (struct weft_timer){.fire = trouble, .owner = w};
    if (evil > 0)
        trouble(&w->trouble);
}

static void world_close(struct world *w, uint64_t seed)
{
    weft_cluster_close(w->cluster, on_closed, w);
    ck_assert_msg(sim_run(w->sim, &w->closed, sim_now_ns(w->sim) + LIMIT_NS),
                  "seed %llu: the cluster never closed", (unsigned long long)seed);
    sim_io(w->sim, HOSTS_MAX)->timer_stop(sim_io(w->sim, HOSTS_MAX), &w->trouble);
    for (unsigned i = 0; i < w->n_peers; i++)
        weft_peer_close(&w->peers[i], false);
    sim_close(w->sim);
}

/* A stage for each device. */
static bool deploy(struct world *w, uint64_t seed)
{
    struct weft_plan_stage stages[HOSTS_MAX];
    uint32_t layers = file.model.n_layers;
    for (unsigned i = 0; i < w->n; i++) {
        uint32_t first = layers * i / w->n, after = layers * (i + 1) / w->n;
        stages[i] = (struct weft_plan_stage){.device = i,
                                             .first_layer = first,
                                             .n_layers = after - first,
                                             .embed = i == 0,
                                             .head = i + 1 == w->n};
    }
    const struct weft_plan plan = {.stages = stages, .n_stages = w->n};
    const struct weft_deployment d = {
        .model = &file.model,
        .files = &file.map,
        .plan = &plan,
        .context = CONTEXT,
        .sessions = 1,
        .batch_rows = 8,
    };
    wait_begin(w);
    weft_cluster_deploy(w->cluster, &d, on_phase, w);
    return wait_end(w, "deploy", seed);
}

static const struct weft_session_events session_events = {
    .token = on_token, .logprobs = on_logprobs, .logits = on_logits, .done = on_done};

/* Of a turn of honest devices: Begin and Begun, then the prompt and what comes back, each half at
 * least the shortest way of a frame. */
static bool times_hold(const struct world *w)
{
    uint64_t prompt_ns, answer_ns, begin_ns = weft_session_begin_ns(w->session);
    uint32_t tokens;
    weft_session_times(w->session, &prompt_ns, &answer_ns, &tokens);
    ck_assert_uint_eq(tokens, w->max_tokens);
    ck_assert_uint_ge(begin_ns, 2 * DELAY_MIN_NS);
    ck_assert_uint_ge(prompt_ns, begin_ns + 2 * DELAY_MIN_NS);
    return true;
}

static bool turn(struct world *w, bool logits, bool logprobs, uint64_t seed)
{
    static const char grammar[] = "root ::= \"one\" \"two\"\n";
    const int32_t tokens[] = {1, 5, 6, 7}, stop_ids[] = {2};
    weft_err err = {0};
    uint32_t kept;
    if (w->session == NULL && weft_session_open(w->cluster, &session_events, w, &w->session, &err))
        return false;
    (void)weft_session_history(w->session, &kept);
    w->max_tokens = logits && chance(w, 0.5) ? 0 : 1 + below(w, 12);
    w->n_logits = kept;
    w->logprobs = logprobs;
    w->n_logprobs = w->n_tokens = w->stop_at = 0;
    if (logprobs && chance(w, 0.5))
        w->stop_at = 1 + below(w, w->max_tokens);
    const struct weft_turn t = {
        .keep = kept,
        .tokens = tokens,
        .n_tokens = 4,
        .max_tokens = w->max_tokens,
        .want_logits = logits,
        .logprobs = logprobs,
        .n_logprobs = LOGPROBS,
        .sampling = {.top_p = 1, .repeat_penalty = 1},
        .stop_ids = stop_ids,
        .n_stop_ids = 1,
        .grammar = logprobs ? grammar : NULL,
        .grammar_size = sizeof grammar - 1,
        .texts = texts,
        .n_texts = N_TEXTS,
    };
    wait_begin(w);
    if (weft_session_turn(w->session, &t, &err) <
        0) { /* broken meanwhile, or the context is full */
        w->waits--;
        ck_assert(err.text[0] != '\0');
        return false;
    }
    bool well = wait_end(w, "turn", seed);
    if (w->stop_at > 0 && w->n_tokens == w->stop_at)
        w->max_tokens = w->stop_at; /* what was sent beyond is not counted */
    ck_assert_uint_le(w->n_tokens, w->max_tokens);
    return well && (w->evil > 0 || times_hold(w));
}

static bool run(struct world *w, uint64_t seed)
{
    bool well = true;
    wait_begin(w);
    weft_cluster_gather(w->cluster, WEFT_GATHER_PROBE | WEFT_GATHER_LINKS, on_phase, w);
    well &= wait_end(w, "gather", seed);
    ck_assert(well || w->why.code == WEFT_EINTERRUPTED);
    for (unsigned i = 0; i < w->n; i++) {
        struct weft_device_facts facts;
        const struct weft_device_status *st = weft_cluster_status(w->cluster, i);
        weft_cluster_facts(w->cluster, i, &facts);
        ck_assert(st->reachable || st->why.code != 0);
    }
    if (!deploy(w, seed))
        return false;
    for (unsigned i = 0; i < 3 && well; i++)
        well &= turn(w, i == 1, i == 2, seed);
    wait_begin(w);
    weft_cluster_stats(w->cluster, on_phase, w);
    sim_run(w->sim, &w->ended, sim_now_ns(w->sim) + LIMIT_NS);
    ck_assert_uint_eq(w->ends, w->waits);
    return well && w->why.code == 0;
}

START_TEST(honest)
{
    struct world *w = calloc(1, sizeof *w);
    uint64_t seed = weft_test_seed() * 100000 + (uint64_t)_i;
    ck_assert_ptr_nonnull(w);
    world_open(w, seed, 0);
    ck_assert_msg(run(w, seed), "seed %llu: %s", (unsigned long long)seed, w->why.text);
    ck_assert(deploy(w, seed) || w->session != NULL); /* a second time, over the first */
    ck_assert_uint_eq(w->n_texts, 0);
    world_close(w, seed);
    free(w);
}
END_TEST

START_TEST(hostile)
{
    static const double evil[] = {0.002, 0.01, 0.05, 0.2};
    struct world *w = calloc(1, sizeof *w);
    uint64_t seed = weft_test_seed() * 100000 + (uint64_t)_i;
    ck_assert_ptr_nonnull(w);
    world_open(w, seed, evil[_i % 4]);
    w->noise = _i % 3 != 0;
    (void)run(w, seed);
    world_close(w, seed);
    free(w);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("cluster");
    TCase *t = tcase_create("daemons");
    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 600);
    tcase_add_loop_test(t, honest, 0, 30);
    tcase_add_loop_test(t, hostile, 0, SEEDS);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
