/*
 * Deploying in two phases: lease → Deploy/Missing → shards → Loaded → Connect/Ready → results lane.
 * No step can be sent before every daemon is Ready.
 */
#include "coordinator/cluster_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ lease and plan */

static void ask_acquire(struct device *d)
{
    Weft__Acquire rq = WEFT__ACQUIRE__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    rq.epoch = &d->cluster->epoch;
    d->held = true; /* from here on it must be released, whether the answer comes or not */
    env.body_case = WEFT__ENVELOPE__BODY_ACQUIRE;
    env.acquire = &rq;
    weft_device_ask(d, &env, &rq.request, WEFT__ENVELOPE__BODY_ACQUIRED);
}

static void ask_connect(struct device *d)
{
    Weft__Connect rq = WEFT__CONNECT__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    rq.epoch = &d->cluster->epoch;
    env.body_case = WEFT__ENVELOPE__BODY_CONNECT;
    env.connect = &rq;
    weft_device_ask(d, &env, &rq.request, WEFT__ENVELOPE__BODY_READY);
}

static void ask_stats(struct device *d)
{
    Weft__StatsRequest rq = WEFT__STATS_REQUEST__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    rq.epoch = &d->cluster->epoch;
    env.body_case = WEFT__ENVELOPE__BODY_STATS_REQUEST;
    env.stats_request = &rq;
    weft_device_ask(d, &env, &rq.request, WEFT__ENVELOPE__BODY_STATS);
}

/* The runs that a member with everything holds: the same in each layer of the stage. */
static int member_runs(const struct weft_model *m, const struct weft_plan_stage *st,
                       struct weft_arena *a, Weft__Member *member)
{
    const bool layers = st->n_layers > 0;
    const struct {
        enum weft_shard_kind kind;
        bool has;
    } all[] = {
        {WEFT_SHARD_EMBED, st->embed},    {WEFT_SHARD_NORMS, layers},  {WEFT_SHARD_ATTN, layers},
        {WEFT_SHARD_FFN, layers},         {WEFT_SHARD_EXPERT, layers}, {WEFT_SHARD_ROPE, layers},
        {WEFT_SHARD_HEAD_NORM, st->head}, {WEFT_SHARD_HEAD, st->head},
    };
    enum weft_shard_kind kinds[WEFT_SHARD_KIND_COUNT];
    size_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i].has && weft_shard_space(m, all[i].kind) > 0)
            kinds[n++] = all[i].kind;
    member->shards = weft_arena_array(a, n, sizeof *member->shards);
    if (member->shards == NULL)
        return -WEFT_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        Weft__ShardRun *run = weft_arena_alloc(a, sizeof *run);
        if (run == NULL)
            return -WEFT_ENOMEM;
        weft__shard_run__init(run);
        run->kind = kinds[i];
        run->count = weft_shard_space(m, kinds[i]);
        member->shards[i] = run;
    }
    member->n_shards = n;
    return 0;
}

static int wire_stages(struct weft_cluster *c, struct weft_arena *a, Weft__Deploy *deploy)
{
    deploy->stages = weft_arena_array(a, c->n_stages, sizeof *deploy->stages);
    if (deploy->stages == NULL)
        return -WEFT_ENOMEM;
    for (uint32_t i = 0; i < c->n_stages; i++) {
        const struct weft_plan_stage *st = &c->stages[i];
        const struct weft_cluster_device *dev = &c->opt.devices[st->device];
        Weft__Stage *stage = weft_arena_alloc(a, sizeof *stage);
        Weft__Member *member = weft_arena_alloc(a, sizeof *member);
        Weft__Member **members = weft_arena_array(a, 1, sizeof *members);
        if (stage == NULL || member == NULL || members == NULL)
            return -WEFT_ENOMEM;
        weft__stage__init(stage);
        weft__member__init(member);
        member->name = (char *)dev->name;
        member->address = (char *)dev->address;
        int r = member_runs(c->deployment.model, st, a, member);
        if (r < 0)
            return r;
        members[0] = member;
        stage->first_layer = st->first_layer;
        stage->n_layers = st->n_layers;
        stage->embed = st->embed;
        stage->head = st->head;
        stage->members = members;
        stage->n_members = 1;
        deploy->stages[i] = stage;
    }
    deploy->n_stages = c->n_stages;
    return 0;
}

/* The Deploy of one device: like the others', but for `mine`. */
static void ask_deploy(struct device *d)
{
    struct weft_cluster *c = d->cluster;
    struct weft_arena a;
    Weft__Deploy deploy = WEFT__DEPLOY__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    weft_err why = {0};
    weft_arena_init(&a, WEFT_FRAME_ARENA_MAX);

    int r = weft_model_to_wire(c->deployment.model, &a, &deploy.model, &why);
    if (r == 0)
        r = wire_stages(c, &a, &deploy);
    deploy.mine = weft_arena_array(&a, c->n_stages, sizeof *deploy.mine);
    if (r < 0 || deploy.mine == NULL) {
        (void)weft_fail(&why, WEFT_ENOMEM, "Deploy of %u stages", c->n_stages);
        weft_arena_done(&a);
        weft_device_failed(d, &why);
        return;
    }
    for (uint32_t i = 0; i < c->n_stages; i++)
        if (c->stages[i].device == d->index)
            deploy.mine[deploy.n_mine++] = i;
    deploy.epoch = &c->epoch;
    deploy.context = c->deployment.context;
    deploy.sessions = c->deployment.sessions;
    deploy.batch_rows = c->deployment.batch_rows;
    deploy.kv = (Weft__KvType)c->deployment.kv; /* the same numbers */
    deploy.gemm = c->deployment.gemm_weft ? WEFT__GEMM__GEMM_WEFT : WEFT__GEMM__GEMM_OPENBLAS;
    env.body_case = WEFT__ENVELOPE__BODY_DEPLOY;
    env.deploy = &deploy;
    weft_device_ask(d, &env, &deploy.request, WEFT__ENVELOPE__BODY_MISSING);
    weft_arena_done(&a);
}

/* ------------------------------------------------------------------ shards */

static void load_done(struct device *d)
{
    free(d->load.runs);
    memset(&d->load, 0, sizeof d->load);
}

/* Opens the parts of the run at the cursor, skipping runs without any; false at the end. */
static bool load_open_run(struct weft_cluster *c, struct load_cursor *l, weft_err *err, int *ret)
{
    *ret = 0;
    for (; l->run < l->n_runs; l->run++) {
        *ret = weft_shard_parts(c->deployment.model, &l->runs[l->run], l->parts, &l->n_parts, err);
        if (*ret < 0)
            return false;
        l->part = 0;
        l->offset = 0;
        if (l->n_parts > 0)
            return true;
    }
    return false;
}

static int send_piece(struct device *d, uint8_t *buffer, size_t *ret_size)
{
    struct weft_cluster *c = d->cluster;
    struct load_cursor *l = &d->load;
    const struct weft_shard_part *part = &l->parts[l->part];
    uint64_t left = part->bytes - l->offset;
    size_t size = left < WEFT_PAYLOAD_MAX ? (size_t)left : WEFT_PAYLOAD_MAX;
    weft_shard_read(c->deployment.model, c->deployment.files, part, l->offset, buffer, size);
    Weft__Shard shard = WEFT__SHARD__INIT;
    Weft__ShardRun run = WEFT__SHARD_RUN__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    run.kind = l->runs[l->run].kind;
    run.layer = l->runs[l->run].layer;
    run.first = l->runs[l->run].first;
    run.count = l->runs[l->run].count;
    shard.epoch = &c->epoch;
    shard.run = &run;
    shard.role = part->role;
    shard.offset = l->offset;
    shard.total = part->bytes;
    shard.hash = weft_frame_hash(buffer, size);
    env.body_case = WEFT__ENVELOPE__BODY_SHARD;
    env.shard = &shard;
    *ret_size = size;
    return weft_peer_send(&d->weights, &env, buffer, (uint32_t)size);
}

/* Sends until the link is full or everything has been sent. */
static void load_pump(struct device *d)
{
    struct weft_cluster *c = d->cluster;
    struct load_cursor *l = &d->load;
    weft_err why = {0};
    int r = 0;
    if (c->phase != PHASE_LOAD)
        return;
    uint8_t *buffer = malloc(WEFT_PAYLOAD_MAX);
    if (buffer == NULL)
        r = weft_fail(&why, WEFT_ENOMEM, "a buffer of %u bytes", WEFT_PAYLOAD_MAX);
    while (r == 0 && l->run < l->n_runs) {
        size_t size;
        r = send_piece(d, buffer, &size);
        if (r < 0)
            break;
        weft_device_patience(d); /* it takes what is sent: it is alive */
        l->sent_bytes += size;
        l->offset += size;
        if (l->offset == l->parts[l->part].bytes) {
            l->offset = 0;
            if (++l->part == l->n_parts) {
                l->run++;
                load_open_run(c, l, &why, &r);
            }
        }
        if (c->opt.progress != NULL)
            c->opt.progress(c->opt.arg, d->index, l->sent_bytes, l->total_bytes);
    }
    free(buffer);
    if (r == 0 || r == -WEFT_EFULL || r == -WEFT_ELOST) /* lost: the peer's down says it better */
        return;
    if (why.code == 0)
        (void)weft_fail(&why, -r, "%s", weft_error_text(r));
    weft_err_prefix(&why, "%s: sending shards", weft_device_name(d));
    weft_device_failed(d, &why);
}

static void weights_up(struct weft_peer *p)
{
    load_pump(p->opt.owner);
}

static void weights_frame(struct weft_peer *p, struct weft_frame *f)
{
    struct device *d = p->opt.owner;
    weft_err why = {0};
    if (f->env->body_case == WEFT__ENVELOPE__BODY_FAULT)
        (void)weft_fault_err(f->env->fault, weft_device_name(d), &why);
    else
        (void)weft_fail(&why, WEFT_EPROTOCOL, "%s: %s on the weights lane", weft_device_name(d),
                        weft_body_name(f->env->body_case));
    weft_frame_free(f);
    weft_device_failed(d, &why);
}

static void weights_down(struct weft_peer *p, const weft_err *why)
{
    struct device *d = p->opt.owner;
    weft_err reason = *why;
    weft_err_prefix(&reason, "%s: sending shards", weft_device_name(d));
    d->weights_open = false;
    if (d->cluster->phase == PHASE_LOAD && d->awaiting == WEFT__ENVELOPE__BODY_LOADED)
        weft_device_failed(d, &reason);
}

static const struct weft_peer_events weights_events = {
    .up = weights_up,
    .frame = weights_frame,
    .writable = weights_up,
    .down = weights_down,
};

/* True if the Deploy gave the device this run, or a part of it. */
static bool deployed_there(const struct device *d, const struct weft_shard_run *run)
{
    const struct weft_cluster *c = d->cluster;
    for (uint32_t i = 0; i < c->n_stages; i++) {
        const struct weft_plan_stage *st = &c->stages[i];
        if (st->device != d->index)
            continue;
        switch (run->kind) {
        case WEFT_SHARD_EMBED:
            if (st->embed)
                return true;
            break;
        case WEFT_SHARD_HEAD:
        case WEFT_SHARD_HEAD_NORM:
            if (st->head)
                return true;
            break;
        case WEFT_SHARD_ROPE:
            if (st->n_layers > 0)
                return true;
            break;
        default:
            if (run->layer >= st->first_layer && run->layer - st->first_layer < st->n_layers)
                return true;
        }
    }
    return false;
}

/* What all shards of a model can take on the wire: twice its weights, since the columns of each run
 * are widened to whole blocks. */
static uint64_t most_bytes(const struct weft_model *m)
{
    uint64_t sum = weft_embed_weight_bytes(m) + weft_head_weight_bytes(m);
    for (uint32_t i = 0; i < m->n_layers; i++)
        sum += weft_layer_weight_bytes(m, i);
    return 2 * sum;
}

static int take_run(struct device *d, const Weft__ShardRun *wire, struct weft_shard_run *ret,
                    weft_err *err)
{
    struct weft_cluster *c = d->cluster;
    struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
    size_t n_parts = 0;
    int r = weft_run_of_wire(wire, ret, err);
    if (r == 0)
        r = weft_shard_parts(c->deployment.model, ret, parts, &n_parts, err);
    if (r == 0 && !deployed_there(d, ret))
        r = weft_fail(err, WEFT_EPROTOCOL,
                      "shards of kind %u, layer %u, which the plan places "
                      "elsewhere",
                      ret->kind, ret->layer);
    for (size_t k = 0; r == 0 && k < n_parts; k++)
        d->load.total_bytes += parts[k].bytes;
    if (r == 0 && d->load.total_bytes > most_bytes(c->deployment.model))
        r = weft_fail(err, WEFT_EPROTOCOL, "more shards than the whole model has");
    return r;
}

static int take_missing(struct device *d, const Weft__Missing *missing, weft_err *err)
{
    struct weft_cluster *c = d->cluster;
    struct load_cursor *l = &d->load;
    int r = 0;
    load_done(d);
    if (missing->n_shards == 0)
        return 0;
    if (d->loaded)
        return weft_fail(err, WEFT_EPROTOCOL, "%zu runs of shards after Loaded", missing->n_shards);
    l->runs = calloc(missing->n_shards, sizeof *l->runs);
    if (l->runs == NULL)
        return weft_fail(err, WEFT_ENOMEM, "%zu runs of shards", missing->n_shards);
    for (size_t i = 0; i < missing->n_shards; i++) {
        r = take_run(d, missing->shards[i], &l->runs[i], err);
        if (r < 0)
            return r;
    }
    l->n_runs = missing->n_shards;
    load_open_run(c, l, err, &r);
    return r;
}

static void start_load(struct device *d)
{
    struct weft_cluster *c = d->cluster;
    d->asked = true;
    if (d->loaded)
        return;
    d->awaiting = WEFT__ENVELOPE__BODY_LOADED;
    weft_device_patience(d);
    if (d->load.n_runs == 0)
        return; /* all is there; Loaded is on its way */
    struct weft_peer_options po = {
        .events = &weights_events,
        .owner = d,
        .address = c->opt.devices[d->index].address,
        .hello = WEFT__HELLO__INIT,
    };
    po.hello.name = (char *)c->opt.name;
    po.hello.software = (char *)"weft " WEFT_VERSION;
    po.hello.lane = WEFT__LANE__LANE_WEIGHTS;
    po.hello.epoch = &c->epoch;
    d->weights_open = true;
    weft_peer_dial(&d->weights, c->io, &po);
}

/* ------------------------------------------------------------------ results lane */

static void results_up(struct weft_peer *p)
{
    struct weft_cluster *c = p->opt.owner;
    if (c->phase != PHASE_RESULTS)
        return;
    weft_device_answered(weft_stage_device(c, c->n_stages - 1));
    weft_cluster_advance(c);
}

static void results_frame(struct weft_peer *p, struct weft_frame *f)
{
    struct weft_cluster *c = p->opt.owner;
    weft_sessions_result(c, f);
    weft_frame_free(f);
}

static void results_down(struct weft_peer *p, const weft_err *why)
{
    struct weft_cluster *c = p->opt.owner;
    struct device *head = weft_stage_device(c, c->n_stages - 1);
    weft_err reason = *why;
    weft_err_prefix(&reason, "%s: results", weft_device_name(head));
    c->results_open = false;
    weft_device_failed(head, &reason);
}

static const struct weft_peer_events results_events = {
    .up = results_up,
    .frame = results_frame,
    .down = results_down,
};

static void dial_results(struct weft_cluster *c)
{
    struct device *head = weft_stage_device(c, c->n_stages - 1);
    struct weft_peer_options po = {
        .events = &results_events,
        .owner = c,
        .address = c->opt.devices[head->index].address,
        .dead_ms = WEFT_BULK_DEAD_MS, /* Logits */
        .hello = WEFT__HELLO__INIT,
    };
    po.hello.name = (char *)c->opt.name;
    po.hello.software = (char *)"weft " WEFT_VERSION;
    po.hello.lane = WEFT__LANE__LANE_RESULTS;
    po.hello.epoch = &c->epoch;
    head->asked = true;
    head->awaiting = WEFT__ENVELOPE__BODY_HELLO;
    weft_device_patience(head);
    c->results_open = true;
    weft_peer_dial(&c->results, c->io, &po);
}

/* ------------------------------------------------------------------ the phases in order */

/* Asks every used device; stops when one failed on the spot and ended the phase. */
static void ask_all(struct weft_cluster *c, enum cluster_phase phase, void (*ask)(struct device *d))
{
    weft_cluster_begin_phase(c, phase);
    for (uint32_t i = 0; i < c->opt.n_devices && c->phase == phase; i++)
        if (c->devices[i].used)
            ask(&c->devices[i]);
}

void weft_deploy_start(struct weft_cluster *c)
{
    switch (c->phase) {
    case PHASE_ACQUIRE:
        ask_all(c, PHASE_DEPLOY, ask_deploy);
        return;
    case PHASE_DEPLOY:
        ask_all(c, PHASE_LOAD, start_load);
        weft_cluster_advance(c); /* everybody may have said Loaded already */
        return;
    case PHASE_LOAD:
        for (uint32_t i = 0; i < c->opt.n_devices; i++) {
            struct device *d = &c->devices[i];
            if (d->weights_open) {
                weft_peer_close(&d->weights, false);
                d->weights_open = false;
            }
            load_done(d);
        }
        ask_all(c, PHASE_CONNECT, ask_connect);
        return;
    case PHASE_CONNECT:
        weft_cluster_begin_phase(c, PHASE_RESULTS);
        dial_results(c);
        return;
    case PHASE_RESULTS:
        c->ready = true;
        weft_cluster_end_phase(c, NULL);
        return;
    case PHASE_STATS:
        weft_cluster_end_phase(c, NULL);
        return;
    default:
        return;
    }
}

static void take_stats(struct device *d, const Weft__Stats *stats)
{
    struct weft_cluster *c = d->cluster;
    for (size_t i = 0; i < stats->n_stages; i++) {
        const Weft__StageStats *s = stats->stages[i];
        if (s->stage >= c->n_stages || c->stages[s->stage].device != d->index)
            continue;
        c->report[s->stage] = (struct weft_stage_report){
            .device = d->index,
            .steps = s->steps,
            .rows = s->rows,
            .compute_ns = s->compute_ns,
            .wait_ns = s->wait_ns,
            .sent_bytes = s->sent_bytes,
            .dropped = s->dropped,
        };
    }
}

/* The number or the epoch that an answer carries back is the one of the open question. */
static bool answer_fits(const struct device *d, const Weft__Envelope *env)
{
    const Weft__Epoch *epoch = &d->cluster->epoch;
    switch (env->body_case) {
    case WEFT__ENVELOPE__BODY_ACQUIRED:
        return env->acquired->request == d->request;
    case WEFT__ENVELOPE__BODY_MISSING:
        return env->missing->request == d->request && weft_epoch_equal(env->missing->epoch, epoch);
    case WEFT__ENVELOPE__BODY_LOADED:
        return weft_epoch_equal(env->loaded->epoch, epoch);
    case WEFT__ENVELOPE__BODY_READY:
        return env->ready->request == d->request && weft_epoch_equal(env->ready->epoch, epoch);
    case WEFT__ENVELOPE__BODY_STATS:
        return env->stats->request == d->request;
    default:
        return false;
    }
}

void weft_deploy_frame(struct device *d, struct weft_frame *f)
{
    const Weft__Envelope *env = f->env;
    weft_err why = {0};
    if (!answer_fits(d, env))
        return;
    if (env->body_case == WEFT__ENVELOPE__BODY_LOADED && d->awaiting != env->body_case) {
        d->loaded = true; /* it lacked nothing, and others are still being asked */
        return;
    }
    int r = 0;
    if (env->body_case == WEFT__ENVELOPE__BODY_STATS)
        take_stats(d, env->stats);
    else if (env->body_case == WEFT__ENVELOPE__BODY_MISSING)
        r = take_missing(d, env->missing, &why);
    else if (env->body_case == WEFT__ENVELOPE__BODY_LOADED && d->load.run < d->load.n_runs)
        r = weft_fail(&why, WEFT_EPROTOCOL, "%llu of %llu bytes were sent",
                      (unsigned long long)d->load.sent_bytes,
                      (unsigned long long)d->load.total_bytes);
    if (r < 0) {
        weft_err_prefix(&why, "%s: %s", weft_device_name(d), weft_body_name(env->body_case));
        weft_device_failed(d, &why);
        return;
    }
    weft_device_answered(d);
    weft_cluster_advance(d->cluster);
}

void weft_deploy_done(struct weft_cluster *c)
{
    if (c->results_open) /* its events look at the stages */
        weft_peer_close(&c->results, false);
    c->results_open = false;
    for (uint32_t i = 0; i < c->opt.n_devices; i++)
        load_done(&c->devices[i]);
    free(c->stages);
    free(c->report);
    c->stages = NULL;
    c->report = NULL;
    c->n_stages = 0;
}

/* ------------------------------------------------------------------ public */

void weft_cluster_deploy(struct weft_cluster *c, const struct weft_deployment *dep,
                         weft_done_fn *done, void *arg)
{
    const struct weft_plan *plan = dep->plan;
    weft_err why = {0};
    c->done = done;
    c->done_arg = arg;
    c->ready = false;
    weft_cluster_begin_phase(c, PHASE_ACQUIRE);
    weft_deploy_done(c);
    c->stages = calloc(plan->n_stages, sizeof *c->stages);
    c->report = calloc(plan->n_stages, sizeof *c->report);
    if (c->stages == NULL || c->report == NULL) {
        (void)weft_fail(&why, WEFT_ENOMEM, "plan of %u stages", plan->n_stages);
        weft_cluster_end_phase(c, &why);
        return;
    }
    memcpy(c->stages, plan->stages, plan->n_stages * sizeof *c->stages);
    c->n_stages = plan->n_stages;
    c->deployment = *dep;
    c->deployment.plan = NULL; /* the caller's; ours is in stages */
    c->epoch.counter = ++c->epoch_counter;
    c->vocab_sent = 0;
    c->predicted_token_ns = plan->predicted ? plan->latency_ns : 0;
    c->predicted_row_ns =
        plan->predicted && plan->prefill_rows > 0 ? plan->prefill_ns / plan->prefill_rows : 0;
    for (uint32_t i = 0; i < c->opt.n_devices; i++) {
        c->devices[i].used = false;
        c->devices[i].loaded = false;
    }
    for (uint32_t i = 0; i < c->n_stages; i++) {
        struct device *d = weft_stage_device(c, i);
        d->used = true;
        if (!d->status.reachable) {
            why = d->status.why;
            weft_cluster_end_phase(c, &why);
            return;
        }
    }
    ask_all(c, PHASE_ACQUIRE, ask_acquire);
}

void weft_cluster_stats(struct weft_cluster *c, weft_done_fn *done, void *arg)
{
    c->done = done;
    c->done_arg = arg;
    if (!c->ready) {
        weft_err why = {0};
        (void)weft_fail(&why, WEFT_ESTATE, "statistics of a cluster that is not deployed");
        weft_cluster_end_phase(c, &why);
        return;
    }
    ask_all(c, PHASE_STATS, ask_stats);
}
