/*
 * Node: from Deploy to Ready. A plan that was accepted (node_plan.c) gets its shards, packed one
 * frame at a time on the compute thread, its stages are opened there, then the next ones dialled.
 *
 * Invariant: at most one epoch is in use and one is dying (ended, its work still in hand); a new
 * Deploy waits until the dying one has given its memory back.
 */
#include "daemon/node_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void shards_start(struct weft_node *n, struct weft_frame *f);
static void stages_open(struct node_epoch *e);

/* ------------------------------------------------------------------ Deploy */

static void send_missing(struct node_epoch *e, struct node_peer *p, uint32_t request)
{
    Weft__Missing missing = WEFT__MISSING__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    Weft__ShardRun *runs = calloc(e->n_missing + 1u, sizeof *runs);
    Weft__ShardRun **at = calloc(e->n_missing + 1u, sizeof(Weft__ShardRun *));
    weft_err why = {0};
    if (runs == NULL || at == NULL) {
        (void)weft_fail(&why, WEFT_ENOMEM, "Missing of %u runs", e->n_missing);
        node_epoch_fault(e, NULL, &why);
        goto out;
    }
    for (uint32_t i = 0; i < e->n_missing; i++) {
        weft__shard_run__init(&runs[i]);
        runs[i].kind = e->missing[i].run.kind;
        runs[i].layer = e->missing[i].run.layer;
        runs[i].first = e->missing[i].run.first;
        runs[i].count = e->missing[i].run.count;
        at[i] = &runs[i];
    }
    missing.request = request;
    missing.epoch = &e->id;
    missing.shards = at;
    missing.n_shards = e->n_missing;
    env.body_case = WEFT__ENVELOPE__BODY_MISSING;
    env.missing = &missing;
    node_answer(p, &env);
out:
    free(runs);
    free(at);
}

static void deploy_now(struct weft_node *n, const Weft__Deploy *d)
{
    struct node_peer *p = n->lease.control;
    struct node_epoch *e = NULL;
    weft_err why = {0};
    if (p == NULL)
        return; /* nobody to answer; the lease is about to end */
    int r = node_epoch_open(n, d, &e, &why);
    if (r < 0) {
        weft_err_prefix(&why, "deploy %s", node_epoch_text(d->epoch));
        node_deny(p, d->request, &why);
        return;
    }
    n->epoch = e;
    node_log(n, WEFT_LOG_INFO, "deploy", WEFT_U64("epoch", e->id.counter),
             WEFT_STR("model", e->model->name), WEFT_U64("stages", e->n_stages),
             WEFT_U64("context", e->context), WEFT_U64("sessions", e->n_slots),
             /* whether float products may differ in their last bits from those of other machines */
             WEFT_STR("gemm", e->engine.gemm == WK_GEMM_OPENBLAS ? "openblas" : "weft"),
             WEFT_U64("missing_runs", e->n_missing));
    send_missing(e, p, d->request);
    if (e->n_missing == 0 && !e->failed)
        stages_open(e);
}

void node_deploy_waiting(struct weft_node *n)
{
    struct weft_frame *f = n->deploy;
    n->deploy = NULL;
    deploy_now(n, f->env->deploy);
    weft_frame_free(f);
}

void node_deploy(struct node_peer *p, struct weft_frame **f)
{
    struct weft_node *n = p->node;
    const Weft__Deploy *d = (*f)->env->deploy;
    weft_err why = {0};
    if (n->draining)
        (void)weft_fail(&why, WEFT_ESTATE, "%s is shutting down", n->opt.name);
    else if (d->epoch == NULL || d->epoch->coordinator != n->lease.coordinator)
        (void)weft_fail(&why, WEFT_ESTALE, "Deploy for %s, the lease is another coordinator's",
                        node_epoch_text(d->epoch));
    else if (d->epoch->counter <= n->lease.counter)
        (void)weft_fail(&why, WEFT_ESTALE, "Deploy for epoch %u after epoch %u", d->epoch->counter,
                        n->lease.counter);
    else if (n->deploy != NULL)
        (void)weft_fail(&why, WEFT_ESTATE, "Deploy while %s waits",
                        node_epoch_text(n->deploy->env->deploy->epoch));
    if (why.code != 0) {
        node_deny(p, d->request, &why);
        return;
    }
    n->lease.counter = d->epoch->counter;
    node_epoch_end(n);
    n->deploy = *f; /* settle goes on when the memory of the last one is free */
    *f = NULL;
}

/* ------------------------------------------------------------------ shards */

static void put_run(struct weft_work *w)
{
    struct weft_node *n = w->owner;
    const struct weft_frame *f = n->put_frame;
    const Weft__Shard *s = f->env->shard;
    uint64_t hash = weft_frame_hash(f->payload, f->payload_size);
    char name[160];
    if (hash != s->hash)
        n->put_result = weft_fail(
            &n->put_err, WEFT_EDAMAGED,
            "shard %s, bytes from %" PRIu64 " on: hash %016" PRIx64 ", expected %016" PRIx64,
            weft_shard_name(name, sizeof name, &n->put_run, (enum weft_role)s->role), s->offset,
            hash, s->hash);
    else
        n->put_result = weft_store_put(n->store, &n->put_run, (enum weft_role)s->role, s->offset,
                                       f->payload, f->payload_size, &n->put_err);
}

/* Marks the runs that are whole now. */
static void count_runs(struct node_epoch *e)
{
    for (uint32_t i = 0; i < e->n_missing; i++)
        if (!e->missing[i].there && weft_store_has(e->node->store, &e->missing[i].run)) {
            e->missing[i].there = true;
            e->n_left--;
        }
}

static void shards_forget(struct weft_node *n)
{
    for (uint32_t i = 0; i < n->n_put_wait; i++)
        weft_frame_free(n->put_wait[i]);
    n->n_put_wait = 0;
    n->put_forget = n->put_frame != NULL; /* the compute thread fills it: when it is back */
    if (!n->put_forget)
        weft_store_abort(n->store);
}

static void put_done(struct weft_work *w)
{
    struct weft_node *n = w->owner;
    struct node_epoch *e = n->dying != NULL ? n->dying : n->epoch;
    const Weft__Shard *s = n->put_frame->env->shard;
    bool last = s->offset + n->put_frame->payload_size >= s->total;
    node_work_back(n);
    e->busy--;
    weft_frame_free(n->put_frame);
    n->put_frame = NULL;
    bool forget = n->put_forget;
    n->put_forget = false;
    if (forget)
        weft_store_abort(n->store);
    if (e != n->epoch || e->weights == NULL) {
        shards_forget(n);
    } else if (n->put_result < 0 && !forget) {
        node_epoch_fault(e, NULL, &n->put_err);
        node_refuse(e->weights, &n->put_err);
    } else {
        if (last && n->put_result == 0)
            count_runs(e);
        if (e->n_left == 0) {
            stages_open(e);
        } else if (n->n_put_wait > 0) {
            struct weft_frame *f = n->put_wait[0];
            n->n_put_wait--;
            memmove(n->put_wait, n->put_wait + 1, n->n_put_wait * sizeof(struct weft_frame *));
            shards_start(n, f);
        } else {
            weft_peer_pause(&e->weights->peer, false);
        }
    }
    node_settle(n);
}

static void shards_start(struct weft_node *n, struct weft_frame *f)
{
    weft_err why = {0};
    n->put_frame = f;
    n->put_err = (weft_err){0};
    (void)!weft_run_of_wire(f->env->shard->run, &n->put_run, &why); /* checked when it came */
    n->put = (struct weft_work){.run = put_run, .done = put_done, .owner = n};
    n->epoch->busy++;
    node_work(n, &n->put);
}

static int check_shard(const struct node_epoch *e, const struct weft_frame *f, weft_err *err)
{
    const Weft__Shard *s = f->env->shard;
    struct weft_shard_run run = {0};
    if (e->phase != NODE_LOADING)
        return weft_fail(err, WEFT_ESTATE, "Shard when all shards are there");
    if (s->run == NULL || s->role >= WEFT_ROLE_COUNT)
        return weft_fail(err, WEFT_EPROTOCOL, "Shard of role %u, expected below %u, and a run",
                         s->role, (unsigned)WEFT_ROLE_COUNT);
    int r = weft_run_of_wire(s->run, &run, err);
    if (r < 0)
        return r;
    if (s->total < s->offset || s->total - s->offset < f->payload_size || f->payload_size == 0)
        return weft_fail(err, WEFT_ESHAPE,
                         "Shard of %u bytes from %" PRIu64 " on, %" PRIu64 " in all",
                         f->payload_size, s->offset, s->total);
    for (uint32_t i = 0; i < e->n_missing; i++) {
        const struct weft_shard_run *m = &e->missing[i].run;
        if (m->kind == run.kind && m->layer == run.layer && m->first == run.first &&
            m->count == run.count)
            return 0;
    }
    char name[160];
    return weft_fail(err, WEFT_ESHAPE, "shard %s is not missing here",
                     weft_shard_name(name, sizeof name, &run, (enum weft_role)s->role));
}

void node_shard(struct node_peer *p, struct weft_frame **f)
{
    struct weft_node *n = p->node;
    weft_err why = {0};
    int r = node_epoch_check(n, (*f)->env->shard->epoch, &why);
    if (r == 0)
        r = check_shard(n->epoch, *f, &why);
    if (r == 0 && n->put_frame != NULL && n->n_put_wait == NODE_AFTER_PAUSE)
        r = weft_fail(&why, WEFT_ELIMIT, "more than %u Shard frames before they were asked for",
                      NODE_AFTER_PAUSE);
    if (r < 0) {
        if (n->epoch != NULL)
            node_epoch_fault(n->epoch, NULL, &why);
        node_refuse(p, &why);
        return;
    }
    weft_peer_pause(&p->peer, true); /* until this one is packed */
    if (n->put_frame != NULL)
        n->put_wait[n->n_put_wait++] = *f;
    else
        shards_start(n, *f);
    *f = NULL;
}

/* ------------------------------------------------------------------ opening the stages */

static void open_run(struct weft_work *w)
{
    struct node_epoch *e = w->owner;
    e->result = 0;
    for (uint32_t i = 0; e->result == 0 && i < e->n_stages; i++) {
        struct weft_stage_options o = node_stage_options(&e->stages[i]);
        e->result = weft_stage_open(&o, &e->stages[i].stage, &e->err);
    }
}

static void open_done(struct weft_work *w)
{
    struct node_epoch *e = w->owner;
    struct weft_node *n = e->node;
    node_work_back(n);
    e->busy--;
    if (e == n->epoch && e->result < 0) {
        node_epoch_fault(e, NULL, &e->err);
    } else if (e == n->epoch) {
        Weft__Loaded loaded = WEFT__LOADED__INIT;
        Weft__Envelope env = WEFT__ENVELOPE__INIT;
        e->phase = NODE_LOADED;
        loaded.epoch = &e->id;
        loaded.memory_bytes = weft_store_bytes(n->store) + e->stage_bytes;
        env.body_case = WEFT__ENVELOPE__BODY_LOADED;
        env.loaded = &loaded;
        node_log(n, WEFT_LOG_INFO, "loaded", WEFT_U64("epoch", e->id.counter),
                 WEFT_U64("memory_bytes", loaded.memory_bytes));
        if (n->lease.control != NULL)
            node_answer(n->lease.control, &env);
    }
    node_settle(n);
}

/* On the compute thread: it allocates and touches what may be gigabytes. */
static void stages_open(struct node_epoch *e)
{
    e->phase = NODE_OPENING;
    e->open = (struct weft_work){.run = open_run, .done = open_done, .owner = e};
    e->busy++;
    node_work(e->node, &e->open);
}

/* ------------------------------------------------------------------ lanes of an epoch */

int node_epoch_check(struct weft_node *n, const Weft__Epoch *id, weft_err *err)
{
    if (n->epoch == NULL)
        return weft_fail(err, WEFT_ESTALE, "%s: %s, but nothing is deployed here", n->opt.name,
                         node_epoch_text(id));
    if (!weft_epoch_equal(id, &n->epoch->id))
        return weft_fail(err, WEFT_ESTALE, "%s: %s, deployed is %s", n->opt.name,
                         node_epoch_text(id), node_epoch_text(&n->epoch->id));
    return 0;
}

static struct node_stage *stage_of(struct node_epoch *e, uint32_t index)
{
    for (uint32_t i = 0; i < e->n_stages; i++)
        if (e->stages[i].index == index)
            return &e->stages[i];
    return NULL;
}

bool node_lane_greeted(struct node_peer *p, weft_err *why)
{
    struct weft_node *n = p->node;
    const Weft__Hello *hello = p->peer.hello;
    if (node_epoch_check(n, hello->epoch, why) < 0)
        return false;
    struct node_epoch *e = n->epoch;
    if (p->lane == WEFT__LANE__LANE_WEIGHTS) {
        if (e->phase != NODE_LOADING || e->weights != NULL) {
            (void)weft_fail(why, WEFT_ESTATE, "lane weights: %s",
                            e->phase == NODE_LOADING ? "there is one" : "all shards are there");
            return false;
        }
        e->weights = p;
        return true;
    }
    if (p->lane == WEFT__LANE__LANE_RESULTS) {
        if (e->head == NULL || e->phase < NODE_LOADED) {
            (void)weft_fail(why, WEFT_ESTATE, "lane results: %s",
                            e->head == NULL ? "the output head is elsewhere" : "not loaded yet");
            return false;
        }
        if (e->results != NULL)
            node_drop(e->results, false); /* the coordinator dials again: the old one is dead */
        e->results = p;
        return true;
    }
    struct node_stage *st = stage_of(e, hello->stage);
    if (st == NULL || e->phase < NODE_LOADED || st->in != NULL) {
        (void)weft_fail(why, WEFT_ESTATE, "lane steps for stage %u: %s", hello->stage,
                        st == NULL               ? "it is not served here"
                        : e->phase < NODE_LOADED ? "not loaded yet"
                                                 : "there is one");
        return false;
    }
    uint32_t before = st->index > 0 ? st->index - 1 : e->n_plan - 1; /* to stage 0: tokens */
    if (e->plan[before].mine) {
        (void)weft_fail(why, WEFT_ESTATE, "lane steps for stage %u: stage %u is here too",
                        hello->stage, before);
        return false;
    }
    st->in = p;
    p->stage = st;
    return true;
}

void node_lane_gone(struct node_peer *p, const weft_err *why)
{
    struct weft_node *n = p->node;
    struct node_epoch *e = n->epoch;
    if (e == NULL)
        return;
    if (e->weights == p) {
        e->weights = NULL;
        if (e->phase == NODE_LOADING)
            shards_forget(n); /* a new lane would start from the first byte */
    } else if (e->results == p) {
        e->results = NULL;
    } else if (p->lane == WEFT__LANE__LANE_STEPS && p->stage != NULL && !p->dialled) {
        p->stage->in = NULL; /* the other end reports the loss */
    } else if (p->lane == WEFT__LANE__LANE_STEPS && p->dialled) {
        weft_err cause = *why;
        assert(p->stage != NULL); /* dial_stage, which alone dials this lane, names it */
        if (p->tokens)
            e->tokens = NULL;
        else
            p->stage->out = NULL;
        weft_err_prefix(&cause, "link to %s at %s for stage %u", p->name, p->address,
                        p->tokens ? 0 : p->stage->index + 1);
        if (e->phase == NODE_READY && cause.code == WEFT_ECANCELLED) {
            e->failed = true; /* that daemon was released, or has told its own cause */
        } else if (e->phase == NODE_CONNECTING && !e->failed && n->lease.control != NULL) {
            e->failed = true; /* said as the answer to Connect */
            node_deny(n->lease.control, e->connect_request, &cause);
        } else {
            node_epoch_fault(e, p->stage, &cause);
        }
    }
}

/* ------------------------------------------------------------------ Connect */

static void ready(struct node_epoch *e)
{
    struct weft_node *n = e->node;
    Weft__Ready answer = WEFT__READY__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    e->phase = NODE_READY;
    answer.request = e->connect_request;
    answer.epoch = &e->id;
    env.body_case = WEFT__ENVELOPE__BODY_READY;
    env.ready = &answer;
    node_log(n, WEFT_LOG_INFO, "ready", WEFT_U64("epoch", e->id.counter));
    if (n->lease.control != NULL)
        node_answer(n->lease.control, &env);
}

void node_step_link_up(struct node_peer *p)
{
    struct node_epoch *e = p->node->epoch;
    if (e != NULL && e->phase == NODE_CONNECTING && --e->links_open == 0)
        ready(e);
}

/* Dials from a stage to the stage with that index of the plan, unless it is here. */
static int dial_stage(struct node_stage *st, uint32_t to, bool tokens, weft_err *err)
{
    struct node_epoch *e = st->epoch;
    const struct node_hop *hop = &e->plan[to];
    if (hop->mine)
        return 0;
    struct node_peer *p = node_slot(e->node, true);
    if (p == NULL)
        return weft_fail(err, WEFT_ELIMIT, "no room for a link to stage %u", to);
    snprintf(p->address, sizeof p->address, "%s", hop->address);
    snprintf(p->name, sizeof p->name, "%s", hop->name);
    p->stage = st;
    p->tokens = tokens;
    if (tokens)
        e->tokens = p;
    else
        st->out = p;
    e->links_open++;
    node_dial(p, WEFT__LANE__LANE_STEPS, &e->id, to);
    return 0;
}

void node_connect(struct node_peer *p, const Weft__Connect *rq)
{
    struct weft_node *n = p->node;
    struct node_epoch *e = n->epoch;
    weft_err why = {0};
    int r = node_epoch_check(n, rq->epoch, &why);
    if (r == 0 && e->phase != NODE_LOADED)
        r = weft_fail(&why, WEFT_ESTATE, "Connect %s",
                      e->phase < NODE_LOADED ? "before Loaded" : "twice");
    if (r < 0) {
        node_deny(p, rq->request, &why);
        return;
    }
    e->phase = NODE_CONNECTING;
    e->connect_request = rq->request;
    e->links_open = 0;
    for (uint32_t i = 0; r == 0 && i < e->n_stages; i++) {
        struct node_stage *st = &e->stages[i];
        if (st->head)
            r = dial_stage(st, 0, true, &why);
        else if (st->next == NULL)
            r = dial_stage(st, st->index + 1, false, &why);
    }
    if (r < 0) {
        e->failed = true;
        node_deny(p, rq->request, &why);
    } else if (e->links_open == 0) {
        ready(e);
    }
}

void node_stats(struct node_peer *p, const Weft__StatsRequest *rq)
{
    struct weft_node *n = p->node;
    struct node_epoch *e = n->epoch;
    Weft__Stats stats = WEFT__STATS__INIT;
    Weft__StageStats list[WEFT_NODE_STAGES_MAX], *at[WEFT_NODE_STAGES_MAX];
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    weft_err why = {0};
    if (node_epoch_check(n, rq->epoch, &why) < 0) {
        node_deny(p, rq->request, &why);
        return;
    }
    for (uint32_t i = 0; i < e->n_stages; i++) {
        const struct node_stage *st = &e->stages[i];
        weft__stage_stats__init(&list[i]);
        list[i].stage = st->index;
        list[i].steps = st->steps;
        list[i].rows = st->rows;
        list[i].compute_ns = st->compute_ns;
        list[i].wait_ns = st->wait_ns;
        list[i].sent_bytes = st->sent_bytes;
        list[i].dropped = st->dropped;
        at[i] = &list[i];
    }
    stats.request = rq->request;
    stats.stages = at;
    stats.n_stages = e->n_stages;
    stats.memory_bytes = weft_store_bytes(n->store) + e->stage_bytes;
    env.body_case = WEFT__ENVELOPE__BODY_STATS;
    env.stats = &stats;
    node_answer(p, &env);
}

/* ------------------------------------------------------------------ the end of an epoch */

void node_epoch_fault(struct node_epoch *e, const struct node_stage *st, const weft_err *why)
{
    struct weft_node *n = e->node;
    Weft__Fault fault = weft_fault_of(why);
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    if (e->failed)
        return; /* the first cause is the one to be told */
    e->failed = true;
    node_log(n, WEFT_LOG_WARN, "fault", WEFT_U64("epoch", e->id.counter), WEFT_ERR(why));
    if (st != NULL) {
        fault.stage = st->index;
        fault.has_stage = true;
    }
    env.body_case = WEFT__ENVELOPE__BODY_FAULT;
    env.fault = &fault;
    if (n->lease.control != NULL)
        node_answer(n->lease.control, &env);
}

void node_epoch_end(struct weft_node *n)
{
    struct node_epoch *e = n->epoch;
    weft_err why = {0};
    if (e == NULL)
        return;
    n->epoch = NULL;
    n->dying = e; /* settle frees it when nothing of it is in hand */
    node_log(n, WEFT_LOG_INFO, "epoch-ended", WEFT_U64("epoch", e->id.counter));
    shards_forget(n);
    (void)weft_fail(&why, WEFT_ECANCELLED, "%s: %s has ended", n->opt.name,
                    node_epoch_text(&e->id));
    for (uint32_t i = 0; i < NODE_PEERS; i++) {
        struct node_peer *p = &n->peers[i];
        if (!p->used || (p->lane != WEFT__LANE__LANE_STEPS && p->lane != WEFT__LANE__LANE_WEIGHTS &&
                         p->lane != WEFT__LANE__LANE_RESULTS))
            continue;
        if (p->dialled || p->lane == WEFT__LANE__LANE_RESULTS)
            node_drop(p, true);
        else
            node_dismiss(p, &why); /* so that the stage before does not take it for a loss */
    }
}
