/*
 * Nodes and a hand-driven coordinator, see node_net.h.
 */
#include "tests/node_net.h"

#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"
#include "tests/local_model.h"

#define MODEL "tests/golden/llama.gguf"
#define PIECE_BYTES 65536u

static const char *const names[NET_NODES_MAX] = {"n0", "n1", "n2", "n3"};

const char *net_address(unsigned node)
{
    static const char *const addresses[NET_NODES_MAX] = {"n0:1", "n1:1", "n2:1", "n3:1"};
    return addresses[node];
}

/* ------------------------------------------------------------------ nodes */

static void look(void *arg, struct weft_look *ret)
{
    const struct net *n = arg;
    *ret = n->look;
}

static int measure(void *arg, struct weft_probe *ret, weft_err *err)
{
    struct net *n = arg;
    (void)err;
    n->measured++;
    n->probing = true;
    *ret = (struct weft_probe){.bytes_per_s = 1000, .flops_per_s = 2000};
    return 0;
}

static void accept_conn(void *arg, struct weft_conn *c)
{
    weft_node_accept(arg, c);
}

struct net *net_open(unsigned n_nodes, uint64_t seed)
{
    struct net *n = calloc(1, sizeof *n);
    weft_err err = {0};
    const struct sim_options so = {
        .seed = seed, .delay_min_ns = 1000, .delay_max_ns = 1000000, .work_max_ns = 1000000};
    ck_assert_ptr_nonnull(n);
    ck_assert_msg(local_file_open(MODEL, &n->file, &n->model, &err) == 0, "%s", err.text);
    n->sim = sim_open(&so);
    n->n_nodes = n_nodes;
    n->look = (struct weft_look){
        .total_bytes = UINT64_C(8) << 30,
        .available_bytes = UINT64_C(4) << 30,
        .machine_bytes = UINT64_C(4) << 30,
        .cap_bytes = UINT64_MAX,
        .reserve_bytes = 256u << 20,
    };
    weft__epoch__init(&n->epoch);
    n->epoch.coordinator = 0x1122334455667788u;
    n->epoch.counter = 1;
    for (unsigned i = 0; i < n_nodes; i++) {
        const struct weft_node_options o = {
            .name = names[i],
            .cpu = "simulated",
            .boot_id = "boot",
            .io = sim_io(n->sim, i),
            .engine = {.table = wk_table_select(NULL)},
            .drain_ns = 5 * NET_SECOND_NS,
            .look = look,
            .measure = measure,
            .arg = n,
        };
        ck_assert_msg(weft_node_open(&o, &n->nodes[i], &err) == 0, "%s", err.text);
        sim_listen(n->sim, i, net_address(i), accept_conn, n->nodes[i]);
    }
    return n;
}

static void set_true(void *arg)
{
    *(bool *)arg = true;
}

void net_close(struct net *n)
{
    for (unsigned i = 0; i < NET_NODES_MAX; i++) {
        net_hang_up(&n->control[i]);
        net_hang_up(&n->weights[i]);
    }
    net_hang_up(&n->results);
    for (unsigned i = 0; i < n->n_nodes; i++) {
        bool closed = false;
        if (n->nodes[i] == NULL)
            continue;
        weft_node_close(n->nodes[i], set_true, &closed);
        if (!closed)
            ck_assert(sim_run(n->sim, &closed, sim_now_ns(n->sim) + 60 * NET_SECOND_NS));
    }
    sim_close(n->sim);
    weft_model_done(&n->model);
    weft_model_file_close(&n->file);
    free(n);
}

void net_run(struct net *n, uint64_t ns)
{
    const bool never = false;
    sim_run(n->sim, &never, sim_now_ns(n->sim) + ns);
}

/* ------------------------------------------------------------------ clients */

static void on_up(struct weft_peer *p)
{
    struct net_client *c = p->opt.owner;
    c->up = c->event = true;
}

static void on_frame(struct weft_peer *p, struct weft_frame *f)
{
    struct net_client *c = p->opt.owner;
    ck_assert_uint_lt(c->n_inbox, NET_INBOX_MAX);
    c->inbox[c->n_inbox++] = f;
    c->event = true;
}

static void on_writable(struct weft_peer *p)
{
    struct net_client *c = p->opt.owner;
    c->event = true;
}

static void on_down(struct weft_peer *p, const weft_err *why)
{
    struct net_client *c = p->opt.owner;
    c->down = c->event = true;
    c->why = *why;
}

static const struct weft_peer_events events = {
    .up = on_up, .frame = on_frame, .writable = on_writable, .down = on_down};

/* Runs until something happens on the connection. */
static void next_event(struct net *n, struct net_client *c, const char *what)
{
    c->event = false;
    ck_assert_msg(sim_run(n->sim, &c->event, sim_now_ns(n->sim) + 20 * NET_SECOND_NS),
                  "nothing came while waiting for %s", what);
}

void net_dial(struct net *n, struct net_client *c, unsigned node, Weft__Lane lane,
              const Weft__Epoch *epoch, uint32_t stage, const char *name)
{
    struct weft_peer_options o = {
        .events = &events, .owner = c, .address = net_address(node), .hello = WEFT__HELLO__INIT};
    net_hang_up(c);
    o.hello.name = (char *)name;
    o.hello.software = (char *)"test";
    o.hello.lane = lane;
    o.hello.epoch = (Weft__Epoch *)epoch;
    o.hello.stage = stage;
    c->open = true;
    weft_peer_dial(&c->peer, sim_io(n->sim, NET_CLIENT_HOST), &o);
    while (!c->up && !c->down)
        next_event(n, c, "Hello");
}

void net_accept(struct net *n, struct net_client *c, struct weft_conn *conn, const char *name)
{
    struct weft_peer_options o = {.events = &events, .owner = c, .hello = WEFT__HELLO__INIT};
    net_hang_up(c);
    o.hello.name = (char *)name;
    o.hello.software = (char *)"test";
    c->open = true;
    weft_peer_accept(&c->peer, sim_io(n->sim, NET_CLIENT_HOST), conn, &o);
}

void net_hang_up(struct net_client *c)
{
    if (c->open)
        weft_peer_close(&c->peer, false);
    for (unsigned i = 0; i < c->n_inbox; i++)
        weft_frame_free(c->inbox[i]);
    memset(c, 0, sizeof *c);
}

void net_send(struct net_client *c, Weft__Envelope *env, const void *payload, uint32_t size)
{
    ck_assert_int_eq(weft_peer_send(&c->peer, env, payload, size), 0);
}

static struct weft_frame *take(struct net_client *c, Weft__Envelope__BodyCase body)
{
    for (unsigned i = 0; i < c->n_inbox; i++) {
        struct weft_frame *f = c->inbox[i];
        if (f->env->body_case != body)
            continue;
        memmove(c->inbox + i, c->inbox + i + 1, (--c->n_inbox - i) * sizeof(struct weft_frame *));
        return f;
    }
    return NULL;
}

struct weft_frame *net_wait(struct net *n, struct net_client *c, Weft__Envelope__BodyCase body)
{
    for (;;) {
        struct weft_frame *f = take(c, body);
        if (f != NULL)
            return f;
        ck_assert_msg(!c->down, "closed while waiting for %s: %s", weft_body_name(body),
                      c->why.text);
        if (body != WEFT__ENVELOPE__BODY_FAULT) {
            f = take(c, WEFT__ENVELOPE__BODY_FAULT);
            ck_assert_msg(f == NULL, "waiting for %s: Fault %s", weft_body_name(body),
                          f != NULL ? f->env->fault->text : "");
        }
        next_event(n, c, weft_body_name(body));
    }
}

void net_expect(struct net *n, struct net_client *c, Weft__Envelope__BodyCase body)
{
    weft_frame_free(net_wait(n, c, body));
}

bool net_comes(struct net *n, struct net_client *c, Weft__Envelope__BodyCase body, uint64_t ns)
{
    uint64_t end = sim_now_ns(n->sim) + ns;
    for (;;) {
        for (unsigned i = 0; i < c->n_inbox; i++)
            if (c->inbox[i]->env->body_case == body)
                return true;
        c->event = false;
        if (!sim_run(n->sim, &c->event, end))
            return false;
    }
}

void net_expect_fault(struct net *n, struct net_client *c, int code, uint32_t session,
                      const char *text)
{
    struct weft_frame *f = net_wait(n, c, WEFT__ENVELOPE__BODY_FAULT);
    const Weft__Fault *fault = f->env->fault;
    ck_assert_msg(
        (int)fault->code == code && fault->session == session && strstr(fault->text, text) != NULL,
        "found %s, session %u: %s\nexpected %s, session %u: %s", weft_error_name((int)fault->code),
        fault->session, fault->text, weft_error_name(code), session, text);
    weft_frame_free(f);
}

void net_expect_refused(struct net *n, struct net_client *c, int code, const char *text)
{
    while (!c->down)
        next_event(n, c, "the end");
    struct weft_frame *f = take(c, WEFT__ENVELOPE__BODY_FAULT);
    weft_err why = c->why;
    if (f != NULL)
        (void)weft_fault_err(f->env->fault, "node", &why);
    ck_assert_msg(why.code == code && strstr(why.text, text) != NULL,
                  "found %s: %s\nexpected %s: %s", weft_error_name(why.code), why.text,
                  weft_error_name(code), text);
    weft_frame_free(f);
}

/* ------------------------------------------------------------------ requests */

#define ENVELOPE(name, NAME, body)                                    \
    {                                                                 \
        .base = PROTOBUF_C_MESSAGE_INIT(&weft__envelope__descriptor), \
        .body_case = WEFT__ENVELOPE__BODY_##NAME, .name = (body)      \
    }

void net_acquire(struct net *n, unsigned node)
{
    Weft__Acquire a = WEFT__ACQUIRE__INIT;
    Weft__Envelope env = ENVELOPE(acquire, ACQUIRE, &a);
    a.request = ++n->request;
    a.epoch = &n->epoch;
    net_send(&n->control[node], &env, NULL, 0);
    net_expect(n, &n->control[node], WEFT__ENVELOPE__BODY_ACQUIRED);
}

static void add_run(const struct weft_model *m, struct weft_arena *a, Weft__Member *member,
                    enum weft_shard_kind kind)
{
    Weft__ShardRun *run = weft_arena_alloc(a, sizeof *run);
    weft__shard_run__init(run);
    run->kind = kind;
    run->count = weft_shard_space(m, kind);
    member->shards[member->n_shards++] = run;
}

static Weft__Stage *stage_of(struct net *n, const struct net_plan *plan, uint32_t i,
                             struct weft_arena *a)
{
    const struct net_stage *s = &plan->stages[i];
    Weft__Stage *stage = weft_arena_alloc(a, sizeof *stage);
    Weft__Member *member = weft_arena_alloc(a, sizeof *member);
    weft__stage__init(stage);
    weft__member__init(member);
    member->name = (char *)names[s->node];
    member->address = (char *)net_address(s->node);
    member->shards = weft_arena_array(a, WEFT_SHARD_KIND_COUNT, sizeof *member->shards);
    stage->first_layer = s->first_layer;
    stage->n_layers = s->n_layers;
    stage->embed = i == 0;
    stage->head = i + 1 == plan->n_stages;
    stage->members = weft_arena_array(a, 2, sizeof *stage->members);
    stage->members[stage->n_members++] = member;
    if (stage->embed)
        add_run(&n->model, a, member, WEFT_SHARD_EMBED);
    if (s->n_layers > 0) {
        add_run(&n->model, a, member, WEFT_SHARD_NORMS);
        add_run(&n->model, a, member, WEFT_SHARD_ATTN);
        add_run(&n->model, a, member, WEFT_SHARD_FFN);
    }
    if (stage->head) {
        add_run(&n->model, a, member, WEFT_SHARD_HEAD_NORM);
        add_run(&n->model, a, member, WEFT_SHARD_HEAD);
    }
    return stage;
}

Weft__Deploy *net_deploy_of(struct net *n, const struct net_plan *plan, unsigned node,
                            struct weft_arena *a)
{
    weft_err err = {0};
    Weft__Deploy *d = weft_arena_alloc(a, sizeof *d);
    weft__deploy__init(d);
    ck_assert_msg(weft_model_to_wire(&n->model, a, &d->model, &err) == 0, "%s", err.text);
    d->request = ++n->request;
    d->epoch = &n->epoch;
    d->stages = weft_arena_array(a, NET_STAGES_MAX, sizeof *d->stages);
    d->mine = weft_arena_array(a, NET_STAGES_MAX, sizeof *d->mine);
    for (uint32_t i = 0; i < plan->n_stages; i++) {
        d->stages[d->n_stages++] = stage_of(n, plan, i, a);
        if (plan->stages[i].node == node)
            d->mine[d->n_mine++] = i;
    }
    d->context = plan->context != 0 ? plan->context : 64;
    d->sessions = plan->sessions != 0 ? plan->sessions : 2;
    d->batch_rows = plan->batch_rows != 0 ? plan->batch_rows : 16;
    d->kv = WEFT__KV_TYPE__KV_F32;
    d->gemm = WEFT__GEMM__GEMM_WEFT;
    return d;
}

void net_send_deploy(struct net *n, unsigned node, Weft__Deploy *d)
{
    Weft__Envelope env = ENVELOPE(deploy, DEPLOY, d);
    net_send(&n->control[node], &env, NULL, 0);
}

static void send_part(struct net *n, struct net_client *c, Weft__ShardRun *run,
                      const struct weft_shard_part *part)
{
    static uint8_t buf[PIECE_BYTES];
    for (uint64_t at = 0; at < part->bytes;) {
        uint64_t left = part->bytes - at;
        size_t size = left < sizeof buf ? (size_t)left : sizeof buf;
        Weft__Shard s = WEFT__SHARD__INIT;
        Weft__Envelope env = ENVELOPE(shard, SHARD, &s);
        weft_shard_read(&n->model, n->file.maps, part, at, buf, size);
        s.epoch = &n->epoch;
        s.run = run;
        s.role = part->role;
        s.offset = at;
        s.total = part->bytes;
        s.hash = weft_frame_hash(buf, size);
        int r = weft_peer_send(&c->peer, &env, buf, (uint32_t)size);
        if (r == -WEFT_EFULL) {
            next_event(n, c, "room for shards");
            continue;
        }
        ck_assert_int_eq(r, 0);
        at += size;
    }
}

void net_send_missing(struct net *n, unsigned node, const Weft__Missing *missing)
{
    weft_err err = {0};
    for (size_t i = 0; i < missing->n_shards; i++) {
        struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
        struct weft_shard_run run;
        size_t n_parts;
        ck_assert_int_eq(weft_run_of_wire(missing->shards[i], &run, &err), 0);
        ck_assert_int_eq(weft_shard_parts(&n->model, &run, parts, &n_parts, &err), 0);
        for (size_t k = 0; k < n_parts; k++)
            send_part(n, &n->weights[node], missing->shards[i], &parts[k]);
    }
}

void net_send_connect(struct net *n, unsigned node)
{
    Weft__Connect c = WEFT__CONNECT__INIT;
    Weft__Envelope env = ENVELOPE(connect, CONNECT, &c);
    c.request = ++n->request;
    c.epoch = &n->epoch;
    net_send(&n->control[node], &env, NULL, 0);
}

static bool in_plan(const struct net_plan *plan, unsigned node)
{
    for (uint32_t i = 0; i < plan->n_stages; i++)
        if (plan->stages[i].node == node)
            return true;
    return false;
}

void net_bring_up(struct net *n, const struct net_plan *plan)
{
    struct weft_arena a;
    weft_arena_init(&a, 0);
    for (unsigned i = 0; i < n->n_nodes; i++) {
        if (!in_plan(plan, i))
            continue;
        if (!n->control[i].up)
            net_dial(n, &n->control[i], i, WEFT__LANE__LANE_CONTROL, NULL, 0, "alice@pc:1");
        net_acquire(n, i);
        net_send_deploy(n, i, net_deploy_of(n, plan, i, &a));
        struct weft_frame *f = net_wait(n, &n->control[i], WEFT__ENVELOPE__BODY_MISSING);
        if (f->env->missing->n_shards > 0) {
            net_dial(n, &n->weights[i], i, WEFT__LANE__LANE_WEIGHTS, &n->epoch, 0, "alice@pc:1");
            net_send_missing(n, i, f->env->missing);
        }
        weft_frame_free(f);
        net_expect(n, &n->control[i], WEFT__ENVELOPE__BODY_LOADED);
        net_hang_up(&n->weights[i]);
    }
    for (unsigned i = 0; i < n->n_nodes; i++)
        if (in_plan(plan, i))
            net_send_connect(n, i);
    for (unsigned i = 0; i < n->n_nodes; i++)
        if (in_plan(plan, i))
            net_expect(n, &n->control[i], WEFT__ENVELOPE__BODY_READY);
    net_dial(n, &n->results, plan->stages[plan->n_stages - 1].node, WEFT__LANE__LANE_RESULTS,
             &n->epoch, 0, "alice@pc:1");
    ck_assert_msg(n->results.up, "%s", n->results.why.text);
    weft_arena_done(&a);
}

/* ------------------------------------------------------------------ sessions */

void net_send_begin(struct net *n, unsigned node, const struct net_turn *t)
{
    Weft__Begin b = WEFT__BEGIN__INIT;
    Weft__Sampling s = WEFT__SAMPLING__INIT;
    Weft__Envelope env = ENVELOPE(begin, BEGIN, &b);
    uint32_t stop = t->stop_id;
    s.top_p = 1;
    s.repeat_penalty = 1;
    b.epoch = &n->epoch;
    b.session = t->session;
    b.turn = t->turn;
    b.position = t->position;
    b.sampling = &s;
    b.stop_ids = &stop;
    b.n_stop_ids = stop != 0;
    b.max_tokens = t->max_tokens;
    b.prompt_tokens = t->n_prompt;
    net_send(&n->control[node], &env, NULL, 0);
}

void net_send_prompt(struct net *n, unsigned node, const struct net_turn *t)
{
    Weft__Prompt p = WEFT__PROMPT__INIT;
    Weft__Envelope env = ENVELOPE(prompt, PROMPT, &p);
    p.epoch = &n->epoch;
    p.session = t->session;
    p.turn = t->turn;
    p.position = t->position;
    p.want = t->want;
    p.last = true;
    net_send(&n->control[node], &env, t->prompt, t->n_prompt * 4u);
}

void net_start_turn(struct net *n, const struct net_plan *plan, const struct net_turn *t)
{
    for (unsigned i = 0; i < n->n_nodes; i++)
        if (in_plan(plan, i))
            net_send_begin(n, i, t);
    for (unsigned i = 0; i < n->n_nodes; i++)
        if (in_plan(plan, i))
            net_expect(n, &n->control[i], WEFT__ENVELOPE__BODY_BEGUN);
    net_send_prompt(n, plan->stages[0].node, t);
}

void net_send_ack(struct net *n, unsigned node, const struct net_turn *t, uint32_t position)
{
    Weft__Ack a = WEFT__ACK__INIT;
    Weft__Envelope env = ENVELOPE(ack, ACK, &a);
    a.epoch = &n->epoch;
    a.session = t->session;
    a.turn = t->turn;
    a.position = position;
    net_send(&n->control[node], &env, NULL, 0);
}

void net_send_cancel(struct net *n, unsigned node, uint32_t session, uint32_t turn)
{
    Weft__Cancel c = WEFT__CANCEL__INIT;
    Weft__Envelope env = ENVELOPE(cancel, CANCEL, &c);
    c.epoch = &n->epoch;
    c.session = session;
    c.turn = turn;
    net_send(&n->control[node], &env, NULL, 0);
}

void net_send_close(struct net *n, unsigned node, uint32_t session)
{
    Weft__Close c = WEFT__CLOSE__INIT;
    Weft__Envelope env = ENVELOPE(close, CLOSE, &c);
    c.epoch = &n->epoch;
    c.session = session;
    net_send(&n->control[node], &env, NULL, 0);
}
