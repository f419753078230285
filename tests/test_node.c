/*
 * The node's state machine, frame by frame: looking, lease, deploying, turns, the end; and
 * everything that is to be refused, with its code and its words. Whole clusters with the program's
 * coordinator are in test_sim.c.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"
#include "tests/node_net.h"

#define BODY(x) WEFT__ENVELOPE__BODY_##x
#define LANE(x) WEFT__LANE__LANE_##x

/* tests/golden/llama.json */
static const int32_t prompt[] = {1, 300, 5,   900, 412, 77,  1000, 263, 350, 640, 513,
                                 8, 299, 720, 801, 266, 931, 404,  270, 615, 22,  345};
static const int32_t greedy[] = {245, 541, 119, 366, 472, 242, 197, 245, 874, 54, 781, 64};
#define N_PROMPT (sizeof prompt / sizeof prompt[0])
#define N_GREEDY (sizeof greedy / sizeof greedy[0])

static struct net_turn turn_of(uint32_t session, uint32_t turn, uint32_t max_tokens)
{
    return (struct net_turn){.session = session,
                             .turn = turn,
                             .max_tokens = max_tokens,
                             .prompt = prompt,
                             .n_prompt = N_PROMPT};
}

/* Everything on one node. */
static struct net_plan plan_one(const struct net *n)
{
    return (struct net_plan){.stages = {{0, n->model.n_layers, 0}}, .n_stages = 1};
}

/* Two stages on two nodes. */
static struct net_plan plan_two(const struct net *n)
{
    return (struct net_plan){.stages = {{0, 1, 0}, {1, n->model.n_layers - 1, 1}}, .n_stages = 2};
}

static void control(struct net *n, struct net_client *c, unsigned node)
{
    net_dial(n, c, node, LANE(CONTROL), NULL, 0, "alice@pc:1");
    ck_assert_msg(c->up, "%s", c->why.text);
}

static void send_status(struct net_client *c, uint32_t request, bool probe)
{
    Weft__StatusRequest rq = WEFT__STATUS_REQUEST__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    rq.request = request;
    rq.probe = probe;
    env.body_case = BODY(STATUS_REQUEST);
    env.status_request = &rq;
    net_send(c, &env, NULL, 0);
}

static struct weft_frame *status(struct net *n, struct net_client *c, bool probe)
{
    send_status(c, ++n->request, probe);
    struct weft_frame *f = net_wait(n, c, BODY(STATUS));
    ck_assert_uint_eq(f->env->status->request, n->request);
    return f;
}

/* The node is still of use: it answers, in this state. */
static void assert_state(struct net *n, struct net_client *c, const char *state, const char *holder)
{
    struct weft_frame *f = status(n, c, false);
    ck_assert_str_eq(f->env->status->state, state);
    ck_assert_str_eq(f->env->status->holder, holder);
    weft_frame_free(f);
}

static void expect_token(struct net *n, const struct net_turn *t, uint32_t position, int32_t id,
                         Weft__Finish finish)
{
    struct weft_frame *f = net_wait(n, &n->results, BODY(TOKEN));
    const Weft__Token *token = f->env->token;
    ck_assert_uint_eq(token->session, t->session);
    ck_assert_uint_eq(token->turn, t->turn);
    ck_assert_uint_eq(token->position, position);
    ck_assert_int_eq((int32_t)token->id, id);
    ck_assert_int_eq((int)token->finish, (int)finish);
    weft_frame_free(f);
}

/* ------------------------------------------------------------------ looking */

START_TEST(looking)
{
    struct net *n = net_open(1, weft_test_seed());
    struct net_client *c = &n->control[0];
    control(n, c, 0);
    struct weft_frame *f = status(n, c, false);
    const Weft__Status *s = f->env->status;
    ck_assert_str_eq(s->name, "n0");
    ck_assert_str_eq(s->state, "idle");
    ck_assert_str_eq(s->holder, "");
    ck_assert_str_eq(s->boot_id, "boot");
    ck_assert(s->memory_free_bytes == UINT64_C(4) << 30);
    ck_assert(!s->probed && s->shard_bytes == 0);
    weft_frame_free(f);
    ck_assert_uint_eq(n->measured, 0);
    net_close(n);
}
END_TEST

START_TEST(probing)
{
    struct net *n = net_open(1, weft_test_seed());
    struct net_client *c = &n->control[0], *other = &n->control[1];
    control(n, c, 0);
    control(n, other, 0);
    send_status(c, 1, true);
    send_status(other, 2, true); /* both wait for the same measurement */
    for (int i = 0; i < 2; i++) {
        struct weft_frame *f = net_wait(n, i == 0 ? c : other, BODY(STATUS));
        ck_assert(f->env->status->probed && f->env->status->bytes_per_s == 1000 &&
                  f->env->status->flops_per_s == 2000 && f->env->status->stage_ns > 0);
        weft_frame_free(f);
    }
    ck_assert_uint_eq(n->measured, 1);
    net_run(n, 3600 * NET_SECOND_NS);
    struct weft_frame *f = status(n, c, true); /* fresh enough */
    ck_assert(f->env->status->probe_age_s >= 3599);
    weft_frame_free(f);
    ck_assert_uint_eq(n->measured, 1);
    net_run(n, WEFT_NODE_PROBE_AGE_S * NET_SECOND_NS);
    net_acquire(n, 0);
    weft_frame_free(status(n, other, true)); /* never while somebody holds it */
    ck_assert_uint_eq(n->measured, 1);
    net_hang_up(c);
    net_run(n, 6 * NET_SECOND_NS);
    weft_frame_free(status(n, other, true));
    ck_assert_uint_eq(n->measured, 2);
    net_close(n);
}
END_TEST

static void send_link(struct net_client *c, uint32_t request, const char *address, const char *name)
{
    Weft__LinkRequest rq = WEFT__LINK_REQUEST__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    rq.request = request;
    rq.address = (char *)address;
    rq.name = (char *)name;
    env.body_case = BODY(LINK_REQUEST);
    env.link_request = &rq;
    net_send(c, &env, NULL, 0);
}

START_TEST(measuring_links)
{
    struct net *n = net_open(3, weft_test_seed());
    struct net_client *c = &n->control[0];
    control(n, c, 0);
    send_link(c, 11, net_address(1), "n1"); /* they are measured one after the other */
    send_link(c, 12, "nowhere:1", "nowhere");
    send_link(c, 13, net_address(2), "n2");
    for (uint32_t i = 0; i < 2; i++) {
        struct weft_frame *f;
        if (i == 1)
            net_expect_fault(n, c, WEFT_EUNREACHABLE, 0, "link to nowhere at nowhere:1");
        f = net_wait(n, c, BODY(LINK_REPORT));
        ck_assert_uint_eq(f->env->link_report->request, i == 0 ? 11 : 13);
        ck_assert(f->env->link_report->latency_ns > 500 &&
                  f->env->link_report->latency_ns < 2000000);
        ck_assert(f->env->link_report->bytes_per_s > 0);
        weft_frame_free(f);
    }
    send_link(c, 14, "", "empty");
    net_expect_fault(n, c, WEFT_EPROTOCOL, 0, "an address of 0 bytes");
    for (uint32_t i = 0; i <= WEFT_NODE_LINK_REQUESTS_MAX; i++)
        send_link(c, 20 + i, net_address(1), "n1");
    net_expect_fault(n, c, WEFT_ELIMIT, 0, "too many links");
    net_hang_up(c); /* the asker goes while a link is being measured */
    net_run(n, 10 * NET_SECOND_NS);
    control(n, c, 0);
    assert_state(n, c, "idle", "");
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ lease */

static void send_acquire(struct net *n, struct net_client *c, uint64_t coordinator)
{
    Weft__Epoch epoch = WEFT__EPOCH__INIT;
    Weft__Acquire a = WEFT__ACQUIRE__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    epoch.coordinator = coordinator;
    a.request = ++n->request;
    a.epoch = &epoch;
    env.body_case = BODY(ACQUIRE);
    env.acquire = &a;
    net_send(c, &env, NULL, 0);
}

static void send_release(struct net *n, struct net_client *c)
{
    Weft__Release r = WEFT__RELEASE__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    r.request = ++n->request;
    env.body_case = BODY(RELEASE);
    env.release = &r;
    net_send(c, &env, NULL, 0);
}

START_TEST(second_coordinator)
{
    struct net *n = net_open(1, weft_test_seed());
    struct net_client *alice = &n->control[0], *bob = &n->control[1];
    struct weft_arena a;
    weft_arena_init(&a, 0);
    const struct net_plan plan = plan_one(n);
    control(n, alice, 0);
    net_dial(n, bob, 0, LANE(CONTROL), NULL, 0, "bob@laptop:7");
    send_release(n, bob);
    net_expect_fault(n, bob, WEFT_ESTATE, 0, "n0: Acquire the lease first");
    send_acquire(n, bob, 0);
    net_expect_fault(n, bob, WEFT_EPROTOCOL, 0, "names no coordinator");
    net_acquire(n, 0);
    net_run(n, 12 * NET_SECOND_NS + NET_SECOND_NS / 2);
    send_acquire(n, bob, 99);
    net_expect_fault(n, bob, WEFT_EBUSY, 0, "n0: held by alice@pc:1 for 12 s");
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    env.body_case = BODY(DEPLOY);
    env.deploy = net_deploy_of(n, &plan, 0, &a);
    net_send(bob, &env, NULL, 0);
    net_expect_fault(n, bob, WEFT_EBUSY, 0, "held by alice@pc:1");
    send_release(n, bob);
    net_expect_fault(n, bob, WEFT_EBUSY, 0, "held by alice@pc:1");
    assert_state(n, bob, "held", "alice@pc:1"); /* looking needs no lease */
    send_release(n, alice);
    net_expect(n, alice, BODY(RELEASED));
    send_acquire(n, bob, 99);
    net_expect(n, bob, BODY(ACQUIRED));
    weft_arena_done(&a);
    net_close(n);
}
END_TEST

START_TEST(lost_coordinator)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = plan_one(n);
    struct net_client *watcher = &n->control[3];
    net_bring_up(n, &plan);
    control(n, watcher, 0);
    const struct net_turn t = turn_of(1, 1, 5);
    net_start_turn(n, &plan, &t);
    net_hang_up(&n->control[0]);
    net_run(n, 4 * NET_SECOND_NS);
    assert_state(n, watcher, "ready", "alice@pc:1");
    control(n, &n->control[0], 0);
    net_acquire(n, 0); /* the same one comes back in time: all is as it was */
    net_run(n, 60 * NET_SECOND_NS);
    assert_state(n, watcher, "ready", "alice@pc:1");
    net_hang_up(&n->control[0]);
    net_run(n, 5 * NET_SECOND_NS + NET_SECOND_NS / 2);
    struct weft_frame *f = status(n, watcher, false);
    ck_assert_str_eq(f->env->status->state, "idle");
    ck_assert(f->env->status->shard_bytes > 0); /* shards stay */
    weft_frame_free(f);
    ck_assert(n->results.down);
    net_close(n);
}
END_TEST

START_TEST(coordinator_comes_back_early)
{
    struct net *n = net_open(1, weft_test_seed());
    control(n, &n->control[0], 0);
    net_acquire(n, 0);
    control(n, &n->control[1], 0); /* the old connection is not known to be dead */
    send_acquire(n, &n->control[1], n->epoch.coordinator);
    net_expect(n, &n->control[1], BODY(ACQUIRED));
    net_run(n, NET_SECOND_NS);
    ck_assert(n->control[0].down);
    net_run(n, 10 * NET_SECOND_NS);
    assert_state(n, &n->control[1], "held", "alice@pc:1");
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ deploying */

START_TEST(golden_answer)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = plan_one(n);
    net_bring_up(n, &plan);
    for (uint32_t round = 1; round <= 2; round++) { /* the second one with all shards in memory */
        const struct net_turn t = turn_of(1, 1, N_GREEDY);
        net_start_turn(n, &plan, &t);
        for (uint32_t i = 0; i < N_GREEDY; i++)
            expect_token(n, &t, N_PROMPT + i, greedy[i],
                         i + 1 < N_GREEDY ? WEFT__FINISH__FINISH_NONE
                                          : WEFT__FINISH__FINISH_LENGTH);
        send_release(n, &n->control[0]);
        net_expect(n, &n->control[0], BODY(RELEASED));
        ck_assert(!n->weights[0].open);
        if (round == 2)
            break;
        n->epoch.counter++;
        net_bring_up(n, &plan);
    }
    net_close(n);
}
END_TEST

/* Stages here and there, several on one node, an embedding and a head alone. */
static const struct net_plan cuts[] = {
    {.stages = {{0, 0, 0}, {0, 2, 1}, {2, 0, 2}}, .n_stages = 3},
    {.stages = {{0, 0, 0}, {0, 1, 1}, {1, 1, 0}, {2, 0, 1}}, .n_stages = 4},
    {.stages = {{0, 0, 0}, {0, 1, 0}, {1, 1, 0}, {2, 0, 0}}, .n_stages = 4},
    {.stages = {{0, 1, 0}, {1, 1, 0}, {2, 0, 1}}, .n_stages = 3, .batch_rows = 1},
    {.stages = {{0, 1, 2}, {1, 0, 0}, {1, 1, 2}}, .n_stages = 3, .batch_rows = 5},
};

START_TEST(golden_ring)
{
    struct net *n = net_open(3, weft_test_seed());
    struct net_plan plan = cuts[_i];
    uint32_t more = n->model.n_layers - 2; /* the plans are drawn for two layers */
    for (uint32_t i = 0, added = 0; i < plan.n_stages; i++) {
        plan.stages[i].first_layer += added;
        if (plan.stages[i].n_layers > 0 && added == 0) {
            plan.stages[i].n_layers += more;
            added = more;
        }
    }
    net_bring_up(n, &plan);
    const struct net_turn t[2] = {turn_of(7, 3, N_GREEDY), turn_of(9, 1, 4)};
    net_start_turn(n, &plan, &t[0]);
    net_start_turn(n, &plan, &t[1]); /* beside it, in the same steps */
    uint32_t seen[2] = {0, 0};
    while (seen[0] < N_GREEDY || seen[1] < 4) {
        struct weft_frame *f = net_wait(n, &n->results, BODY(TOKEN));
        unsigned i = f->env->token->session == 9;
        ck_assert_uint_eq(f->env->token->position, N_PROMPT + seen[i]);
        ck_assert_int_eq((int32_t)f->env->token->id, greedy[seen[i]]);
        seen[i]++;
        weft_frame_free(f);
    }
    net_close(n);
}
END_TEST

typedef void spoil_fn(struct net *n, Weft__Deploy *d);

static void no_model(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->model = NULL;
}
static void model_of_no_layers(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->model->n_layers = 0;
}
static void no_epoch(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->epoch = NULL;
}
static void other_coordinator(struct net *n, Weft__Deploy *d)
{
    static Weft__Epoch e = WEFT__EPOCH__INIT;
    (void)n;
    e.coordinator = 5;
    e.counter = 5;
    d->epoch = &e;
}
static void old_counter(struct net *n, Weft__Deploy *d)
{
    n->epoch.counter = 0;
    (void)d;
}
static void no_stages(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->n_stages = 0;
}
static void layers_missing(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->stages[0]->n_layers--;
}
static void layers_too_many(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->stages[0]->n_layers = UINT32_MAX;
}
static void layers_displaced(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->stages[0]->first_layer = 1;
}
static void no_head(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->stages[0]->head = false;
}
static void no_embedding(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->stages[0]->embed = false;
}
static void two_members(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->stages[0]->members[1] = d->stages[0]->members[0];
    d->stages[0]->n_members = 2;
}
static void divided_heads(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->stages[0]->members[0]->shards[2]->count--;
}
static void no_ffn(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->stages[0]->members[0]->shards[3] = d->stages[0]->members[0]->shards[2];
}
static void unknown_kind(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->stages[0]->members[0]->shards[0]->kind = 77;
}
static void no_address(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->stages[0]->members[0]->address = (char *)"";
}
static void no_context(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->context = 0;
}
static void too_much_context(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->context = UINT32_MAX;
}
static void too_many_sessions(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->sessions = 65;
}
static void too_many_rows(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->batch_rows = 513;
}
static void nothing_here(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->n_mine = 0;
}
static void unknown_stage(struct net *n, Weft__Deploy *d)
{
    (void)n;
    d->mine[0] = 1;
}
static void short_of_memory(struct net *n, Weft__Deploy *d)
{
    n->look.available_bytes = 1u << 20;
    (void)d;
}
static void over_the_cap(struct net *n, Weft__Deploy *d)
{
    n->look.cap_bytes = 1u << 20;
    (void)d;
}

static const struct {
    spoil_fn *spoil;
    int code;
    const char *text;
} deploys[] = {
    {no_model, WEFT_EPROTOCOL, "Deploy without a model"},
    {model_of_no_layers, WEFT_EPROTOCOL, "layers"},
    {no_epoch, WEFT_ESTALE, "no epoch"},
    {other_coordinator, WEFT_ESTALE, "epoch 5 of 00000000, the lease is another coordinator's"},
    {old_counter, WEFT_ESTALE, "Deploy for epoch 0 after epoch 0"},
    {no_stages, WEFT_ELIMIT, "0 stages, expected 1 to 256"},
    {layers_missing, WEFT_ESHAPE, "the stages have"},
    {layers_too_many, WEFT_ESHAPE, "stage 0: layers 0 + 4294967295"},
    {layers_displaced, WEFT_ESHAPE, "stage 0: layers 1 + "},
    {no_head, WEFT_ESHAPE, "the last stage, and no other, has the head"},
    {no_embedding, WEFT_ESHAPE, "the first stage, and no other, has the embedding"},
    {two_members, WEFT_EUNSUPPORTED, "stage 0 has 2 members"},
    {divided_heads, WEFT_EUNSUPPORTED, "does not divide a stage"},
    {no_ffn, WEFT_EUNSUPPORTED, "nobody has its"},
    {unknown_kind, WEFT_EPROTOCOL, "77"},
    {no_address, WEFT_EPROTOCOL, "name or address"},
    {no_context, WEFT_ELIMIT, "context 0"},
    {too_much_context, WEFT_ELIMIT, "context 4294967295"},
    {too_many_sessions, WEFT_ELIMIT, "65 sessions, expected 1 to 64"},
    {too_many_rows, WEFT_ELIMIT, "steps of 513 rows, expected 1 to 512"},
    {nothing_here, WEFT_ELIMIT, "0 stages here"},
    {unknown_stage, WEFT_EPROTOCOL, "stage 1 stands at place 0 of ours, of 1 in all"},
    {short_of_memory, WEFT_ENOFIT, "n0: needs"},
    {over_the_cap, WEFT_ENOFIT, "1.00 MiB of 8.00 GiB are free (256 MiB kept for the system)"},
};

START_TEST(deploys_refused)
{
    struct net *n = net_open(1, weft_test_seed());
    struct net_plan plan = plan_one(n);
    const struct weft_look enough = n->look;
    struct weft_arena a;
    weft_arena_init(&a, 0);
    control(n, &n->control[0], 0);
    net_acquire(n, 0);
    Weft__Deploy *d = net_deploy_of(n, &plan, 0, &a);
    deploys[_i].spoil(n, d);
    net_send_deploy(n, 0, d);
    net_expect_fault(n, &n->control[0], deploys[_i].code, 0, deploys[_i].text);
    assert_state(n, &n->control[0], "held", "alice@pc:1");
    n->look = enough; /* and nothing is left behind: the next one is served */
    n->epoch.counter = 2;
    net_bring_up(n, &plan);
    weft_arena_done(&a);
    net_close(n);
}
END_TEST

START_TEST(memory_of_shards_is_counted_once)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = plan_one(n);
    net_bring_up(n, &plan);
    struct weft_frame *f = status(n, &n->control[0], false);
    uint64_t shards = f->env->status->shard_bytes;
    weft_frame_free(f);
    n->look.available_bytes =
        16u << 20; /* less than the shards, which are there already, and the rest */
    ck_assert(shards > 0);
    n->epoch.counter++;
    net_bring_up(n, &plan);
    net_close(n);
}
END_TEST

static Weft__Shard shard_of(struct net *n, Weft__ShardRun *run, const uint8_t *data, uint32_t size)
{
    Weft__Shard s = WEFT__SHARD__INIT;
    s.epoch = &n->epoch;
    s.run = run;
    s.role = WEFT_ROLE_EMBED;
    s.total = n->model.global[WEFT_ROLE_EMBED].bytes;
    s.hash = weft_frame_hash(data, size);
    return s;
}

static const struct {
    const char *text;
    int code;
} shards[] = {
    {"hash", WEFT_EDAMAGED},
    {"bytes from 64 on", WEFT_ESHAPE},
    {"Shard of 64 bytes from", WEFT_ESHAPE},
    {"is not missing here", WEFT_ESHAPE},
    {"Shard of role 99", WEFT_EPROTOCOL},
    {"epoch 9 of", WEFT_ESTALE},
    {"no such tensor", WEFT_ESHAPE},
};

START_TEST(shards_refused)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = plan_one(n);
    struct weft_arena a;
    weft_arena_init(&a, 0);
    control(n, &n->control[0], 0);
    net_acquire(n, 0);
    net_send_deploy(n, 0, net_deploy_of(n, &plan, 0, &a));
    net_expect(n, &n->control[0], BODY(MISSING));
    net_dial(n, &n->weights[0], 0, LANE(WEIGHTS), &n->epoch, 0, "alice@pc:1");

    static const uint8_t data[64];
    Weft__Epoch old = n->epoch;
    Weft__ShardRun run = WEFT__SHARD_RUN__INIT;
    run.kind = WEFT_SHARD_EMBED;
    run.count = 1;
    Weft__Shard s = shard_of(n, &run, data, sizeof data);
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    env.body_case = BODY(SHARD);
    env.shard = &s;
    old.counter = 9;
    if (_i == 0)
        s.hash++;
    else if (_i == 1)
        s.offset = 64;
    else if (_i == 2)
        s.offset = UINT64_MAX;
    else if (_i == 3)
        run.kind = WEFT_SHARD_ROPE;
    else if (_i == 4)
        s.role = 99;
    else if (_i == 5)
        s.epoch = &old;
    else
        s.role = WEFT_ROLE_ATTN_Q;
    net_send(&n->weights[0], &env, data, sizeof data);
    net_expect_refused(n, &n->weights[0], shards[_i].code, shards[_i].text);
    net_expect_fault(n, &n->control[0], shards[_i].code, 0,
                     shards[_i].text); /* it ends the epoch */
    assert_state(n, &n->control[0], "held", "alice@pc:1");
    n->epoch.counter = 2;
    net_bring_up(n, &plan);
    weft_arena_done(&a);
    net_close(n);
}
END_TEST

START_TEST(deploy_while_shards_come)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = plan_one(n);
    struct weft_arena a;
    weft_arena_init(&a, 0);
    control(n, &n->control[0], 0);
    net_acquire(n, 0);
    net_send_deploy(n, 0, net_deploy_of(n, &plan, 0, &a));
    struct weft_frame *f = net_wait(n, &n->control[0], BODY(MISSING));
    net_dial(n, &n->weights[0], 0, LANE(WEIGHTS), &n->epoch, 0, "alice@pc:1");
    Weft__Missing first = *f->env->missing;
    first.n_shards = 1;
    net_send_missing(n, 0, &first);
    n->epoch.counter++; /* a piece is with the compute thread: the new plan waits for it */
    net_bring_up(n, &plan);
    weft_frame_free(f);
    weft_arena_done(&a);
    net_close(n);
}
END_TEST

/* The lane breaks while a piece of it is with the compute thread; another one starts afresh. */
START_TEST(weights_lane_again)
{
    struct net *n = net_open(1, weft_test_seed() + (uint64_t)_i);
    const struct net_plan plan = plan_one(n);
    struct weft_arena a;
    weft_arena_init(&a, 0);
    control(n, &n->control[0], 0);
    net_acquire(n, 0);
    net_send_deploy(n, 0, net_deploy_of(n, &plan, 0, &a));
    struct weft_frame *f = net_wait(n, &n->control[0], BODY(MISSING));
    Weft__Missing first = *f->env->missing;
    first.n_shards = 1;
    for (int i = 0; i < 20; i++) {
        net_dial(n, &n->weights[0], 0, LANE(WEIGHTS), &n->epoch, 0, "alice@pc:1");
        net_send_missing(n, 0, &first);
        net_run(n, (uint64_t)(i + 1) * 100000);
        net_hang_up(&n->weights[0]);
        net_run(n, (uint64_t)_i * 50000);
    }
    net_run(n, NET_SECOND_NS);
    net_dial(n, &n->weights[0], 0, LANE(WEIGHTS), &n->epoch, 0, "alice@pc:1");
    net_send_missing(n, 0, f->env->missing);
    net_expect(n, &n->control[0], BODY(LOADED));
    weft_frame_free(f);
    weft_arena_done(&a);
    net_close(n);
}
END_TEST

START_TEST(next_stage_unreachable)
{
    struct net *n = net_open(2, weft_test_seed());
    const struct net_plan plan = plan_two(n);
    struct weft_arena a;
    weft_arena_init(&a, 0);
    control(n, &n->control[0], 0);
    net_acquire(n, 0);
    net_send_deploy(n, 0, net_deploy_of(n, &plan, 0, &a));
    struct weft_frame *f = net_wait(n, &n->control[0], BODY(MISSING));
    net_dial(n, &n->weights[0], 0, LANE(WEIGHTS), &n->epoch, 0, "alice@pc:1");
    net_send_connect(n, 0);
    net_expect_fault(n, &n->control[0], WEFT_ESTATE, 0, "Connect before Loaded");
    net_send_missing(n, 0, f->env->missing);
    net_expect(n, &n->control[0], BODY(LOADED));
    net_send_connect(n, 0); /* n1 knows no such epoch */
    net_expect_fault(n, &n->control[0], WEFT_ESTALE, 0, "link to n1 at n1:1 for stage 1");
    assert_state(n, &n->control[0], "held", "alice@pc:1");
    weft_frame_free(f);
    weft_arena_done(&a);
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ turns */

START_TEST(run_ahead)
{
    struct net *n = net_open(2, weft_test_seed());
    struct net_plan plan = plan_two(n);
    plan.context = 128;
    net_bring_up(n, &plan);
    const struct net_turn t = turn_of(1, 1, 100);
    net_start_turn(n, &plan, &t);
    net_run(n, 10 * NET_SECOND_NS);
    unsigned tokens = n->results.n_inbox;
    ck_assert_uint_eq(tokens,
                      WEFT_NODE_RUN_AHEAD + 1); /* the one held back is told, not computed */
    net_send_ack(n, 1, &t, N_PROMPT + 5);
    net_run(n, 10 * NET_SECOND_NS);
    ck_assert_uint_eq(n->results.n_inbox, tokens + 5);
    net_send_ack(n, 1, &t, N_PROMPT + 1000); /* more than there is counts as all */
    net_run(n, 10 * NET_SECOND_NS);
    ck_assert_uint_eq(n->results.n_inbox, tokens + 5 + 1 + WEFT_NODE_RUN_AHEAD);
    net_close(n);
}
END_TEST

START_TEST(finishes)
{
    struct net *n = net_open(1, weft_test_seed());
    struct net_plan plan = plan_one(n);
    plan.context = N_PROMPT + 4;
    net_bring_up(n, &plan);
    struct net_turn t = turn_of(1, 1, 100);
    t.stop_id = (uint32_t)greedy[2];
    net_start_turn(n, &plan, &t);
    for (uint32_t i = 0; i < 3; i++)
        expect_token(n, &t, N_PROMPT + i, greedy[i],
                     i < 2 ? WEFT__FINISH__FINISH_NONE : WEFT__FINISH__FINISH_STOP);
    t.turn = 2; /* the same text anew, KV cut to its start */
    t.stop_id = 0;
    net_start_turn(n, &plan, &t);
    for (uint32_t i = 0; i < 4; i++)
        expect_token(n, &t, N_PROMPT + i, greedy[i],
                     i < 3 ? WEFT__FINISH__FINISH_NONE : WEFT__FINISH__FINISH_CONTEXT);
    ck_assert(!net_comes(n, &n->results, BODY(TOKEN), NET_SECOND_NS));
    net_close(n);
}
END_TEST

START_TEST(logits)
{
    struct net *n = net_open(2, weft_test_seed());
    const struct net_plan plan = plan_two(n);
    uint32_t vocab = n->model.vocab;
    net_bring_up(n, &plan);
    struct net_turn t = turn_of(1, 1, _i == 0 ? 0 : 2);
    t.want = _i == 0 ? WEFT__WANT__WANT_ALL : WEFT__WANT__WANT_LAST;
    net_start_turn(n, &plan, &t);
    uint32_t rows = _i == 0 ? N_PROMPT : 2, first = _i == 0 ? 0 : N_PROMPT - 1;
    for (uint32_t i = 0; i < rows; i++) {
        struct weft_frame *f = net_wait(n, &n->results, BODY(LOGITS));
        ck_assert_uint_eq(f->env->logits->position, first + i);
        ck_assert_uint_eq(f->env->logits->first, 0);
        ck_assert_uint_eq(f->env->logits->vocab, vocab);
        ck_assert_uint_eq(f->payload_size, vocab * 4);
        weft_frame_free(f);
    }
    net_run(n, NET_SECOND_NS);
    ck_assert_uint_eq(n->results.n_inbox, _i == 0 ? 0 : 2); /* the tokens */
    net_close(n);
}
END_TEST

START_TEST(cancel_and_begin)
{
    struct net *n = net_open(2, weft_test_seed());
    struct net_plan plan = plan_two(n);
    plan.context = 128;
    net_bring_up(n, &plan);
    struct net_turn t = turn_of(1, 1, 100);
    net_start_turn(n, &plan, &t);
    expect_token(n, &t, N_PROMPT, greedy[0], WEFT__FINISH__FINISH_NONE);
    for (unsigned i = 0; i < 2; i++)
        net_send_cancel(n, i, 1, 1);
    net_run(n, NET_SECOND_NS);
    while (n->results.n_inbox > 0)
        net_expect(n, &n->results, BODY(TOKEN));
    ck_assert(!net_comes(n, &n->results, BODY(TOKEN), 5 * NET_SECOND_NS));
    t.turn = 2;
    t.position = N_PROMPT - 1; /* all but the last token of the prompt is kept */
    t.prompt = prompt + N_PROMPT - 1;
    t.n_prompt = 1;
    t.max_tokens = N_GREEDY;
    net_start_turn(n, &plan, &t);
    for (uint32_t i = 0; i < N_GREEDY; i++)
        expect_token(n, &t, N_PROMPT + i, greedy[i],
                     i + 1 < N_GREEDY ? WEFT__FINISH__FINISH_NONE : WEFT__FINISH__FINISH_LENGTH);
    net_close(n);
}
END_TEST

START_TEST(begin_waits_for_the_step)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = plan_one(n);
    net_bring_up(n, &plan);
    for (uint32_t turn = 1; turn < 40; turn++) { /* each cuts into what the last one is doing */
        struct net_turn t = turn_of(1, turn, 20);
        net_send_begin(n, 0, &t);
        net_expect(n, &n->control[0], BODY(BEGUN));
        net_send_prompt(n, 0, &t);
        net_run(n, turn * 100000);
    }
    net_send_close(n, 0, 1);
    net_send_close(n, 0, 1); /* twice is no fault */
    struct net_turn t = turn_of(2, 1, N_GREEDY);
    while (n->results.n_inbox > 0)
        net_expect(n, &n->results, BODY(TOKEN));
    net_run(n, NET_SECOND_NS);
    while (n->results.n_inbox > 0)
        net_expect(n, &n->results, BODY(TOKEN));
    net_start_turn(n, &plan, &t);
    for (uint32_t i = 0; i < N_GREEDY; i++)
        expect_token(n, &t, N_PROMPT + i, greedy[i],
                     i + 1 < N_GREEDY ? WEFT__FINISH__FINISH_NONE : WEFT__FINISH__FINISH_LENGTH);
    net_close(n);
}
END_TEST

/* The only slot is closed and taken again while a step of the old session is in hand. */
START_TEST(begin_after_close)
{
    struct net *n = net_open(1, weft_test_seed());
    struct net_plan plan = plan_one(n);
    plan.sessions = 1;
    net_bring_up(n, &plan);
    for (uint32_t session = 1; session < 40; session++) {
        struct net_turn t = turn_of(session, 1, 20);
        net_send_begin(n, 0, &t);
        net_expect(n, &n->control[0], BODY(BEGUN));
        net_send_prompt(n, 0, &t);
        net_run(n, session * 100000);
        net_send_close(n, 0, session);
    }
    struct net_turn t = turn_of(40, 1, 1);
    net_send_begin(n, 0, &t); /* closed again before it began */
    net_send_close(n, 0, 40);
    t = turn_of(41, 1, 1);
    t.position = 1; /* nothing of those before is left */
    net_send_begin(n, 0, &t);
    net_expect_fault(n, &n->control[0], WEFT_EPOSITION, 41, "Begin at position 1, 0 are here");
    net_run(n, NET_SECOND_NS);
    while (n->results.n_inbox > 0)
        net_expect(n, &n->results, BODY(TOKEN));
    t = turn_of(41, 2, N_GREEDY);
    net_start_turn(n, &plan, &t);
    for (uint32_t i = 0; i < N_GREEDY; i++)
        expect_token(n, &t, N_PROMPT + i, greedy[i],
                     i + 1 < N_GREEDY ? WEFT__FINISH__FINISH_NONE : WEFT__FINISH__FINISH_LENGTH);
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ turns refused */

static const int32_t bad_token[] = {1, 5000};

static const struct {
    const char *name;
    struct net_turn begin; /* zeros: as turn_of says */
    uint32_t begin_session, turn, position, max_tokens, n_prompt, stop_id;
    int code;
    const char *text;
} begins[] = {
    {.name = "turn 0",
     .begin_session = 1,
     .turn = 0,
     .code = WEFT_EPROTOCOL,
     .text = "both count from 1"},
    {.name = "context",
     .begin_session = 1,
     .turn = 1,
     .n_prompt = 65,
     .code = WEFT_ECONTEXT,
     .text = "a prompt of 65 tokens, the context has 64"},
    {.name = "position",
     .begin_session = 1,
     .turn = 1,
     .position = 3,
     .code = WEFT_EPOSITION,
     .text = "Begin at position 3, 0 are here"},
    {.name = "position far",
     .begin_session = 1,
     .turn = 1,
     .position = UINT32_MAX,
     .code = WEFT_ECONTEXT,
     .text = "4294967295 positions"},
    {.name = "no prompt",
     .begin_session = 1,
     .turn = 1,
     .n_prompt = UINT32_MAX,
     .code = WEFT_ECONTEXT,
     .text = "the context has 64"},
    {.name = "stop",
     .begin_session = 1,
     .turn = 1,
     .stop_id = 70000,
     .code = WEFT_ESHAPE,
     .text = "stop id 70000, the vocabulary has"},
};

START_TEST(begins_refused)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = plan_one(n);
    net_bring_up(n, &plan);
    struct net_turn t = turn_of(begins[_i].begin_session, begins[_i].turn, 3);
    t.position = begins[_i].position;
    t.stop_id = begins[_i].stop_id;
    if (begins[_i].n_prompt != 0)
        t.n_prompt = begins[_i].n_prompt;
    net_send_begin(n, 0, &t);
    net_expect_fault(n, &n->control[0], begins[_i].code, 1, begins[_i].text);
    t = turn_of(1, 7, 1);
    net_start_turn(n, &plan, &t);
    expect_token(n, &t, N_PROMPT, greedy[0], WEFT__FINISH__FINISH_LENGTH);
    net_close(n);
}
END_TEST

START_TEST(sessions_refused)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = plan_one(n);
    net_bring_up(n, &plan);
    struct net_client *c = &n->control[0];
    struct net_turn t = turn_of(1, 5, 1);
    net_send_prompt(n, 0, &t);
    net_expect_fault(n, c, WEFT_ESESSION, 1, "Prompt for session 1, which is not open here");
    net_send_begin(n, 0, &t);
    net_expect(n, c, BODY(BEGUN));
    net_send_begin(n, 0, &t);
    net_expect_fault(n, c, WEFT_ESTATE, 1, "Begin of turn 5 after turn 5");
    t.turn = 6;
    net_send_prompt(n, 0, &t);
    net_expect_fault(n, c, WEFT_ESTATE, 1, "Prompt of turn 6, begun is turn 5");
    t.turn = 4;
    net_send_prompt(n, 0, &t); /* of an older turn: dropped */
    t.turn = 5;
    net_send_prompt(n, 0, &t);
    expect_token(n, &t, N_PROMPT, greedy[0], WEFT__FINISH__FINISH_LENGTH);
    t = turn_of(2, 1, 1);
    net_send_begin(n, 0, &t);
    net_expect(n, c, BODY(BEGUN));
    t.session = 3;
    net_send_begin(n, 0, &t);
    net_expect_fault(n, c, WEFT_ELIMIT, 3, "all 2 session slots are taken");
    net_send_close(n, 0, 1);
    net_send_begin(n, 0, &t);
    net_expect(n, c, BODY(BEGUN));
    n->epoch.counter++;
    net_send_begin(n, 0, &t);
    net_expect_fault(n, c, WEFT_ESTALE, 3,
                     "n0: epoch 2 of 11223344, deployed is epoch 1 of 11223344");
    n->epoch.counter--;
    net_close(n);
}
END_TEST

static const struct {
    uint32_t position, n;
    bool last, half;
    const int32_t *ids;
    int code;
    const char *text;
} prompts[] = {
    {.position = 1,
     .n = 4,
     .last = true,
     .code = WEFT_EPOSITION,
     .text = "Prompt at position 1, expected 0"},
    {.n = 3,
     .last = true,
     .code = WEFT_ESHAPE,
     .text = "up to position 3, the last, Begin announced 4"},
    {.n = 4, .code = WEFT_ESHAPE, .text = "up to position 4, Begin announced 4"},
    {.n = 5,
     .last = true,
     .code = WEFT_ESHAPE,
     .text = "up to position 5, the last, Begin announced 4"},
    {.n = 0, .last = true, .code = WEFT_ESHAPE, .text = "Prompt of 0 bytes"},
    {.n = 4, .half = true, .last = true, .code = WEFT_ESHAPE, .text = "Prompt of 14 bytes"},
    {.n = 65,
     .code = WEFT_ECONTEXT,
     .text = "Prompt of 65 tokens at position 0, the context has 64"},
    {.n = 2, .ids = bad_token, .code = WEFT_ESHAPE, .text = "token 5000 at position 1"},
};

START_TEST(prompts_refused)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = plan_one(n);
    static const int32_t zeros[80];
    net_bring_up(n, &plan);
    struct net_turn t = turn_of(1, 1, 1);
    t.n_prompt = 4;
    net_send_begin(n, 0, &t);
    net_expect(n, &n->control[0], BODY(BEGUN));
    Weft__Prompt p = WEFT__PROMPT__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    p.epoch = &n->epoch;
    p.session = 1;
    p.turn = 1;
    p.position = prompts[_i].position;
    p.last = prompts[_i].last;
    env.body_case = BODY(PROMPT);
    env.prompt = &p;
    net_send(&n->control[0], &env, prompts[_i].ids != NULL ? prompts[_i].ids : zeros,
             prompts[_i].n * 4 - (prompts[_i].half ? 2 : 0));
    net_expect_fault(n, &n->control[0], prompts[_i].code, 1, prompts[_i].text);
    t = turn_of(1, 2, 1); /* the turn has failed, the session goes on */
    net_start_turn(n, &plan, &t);
    expect_token(n, &t, N_PROMPT, greedy[0], WEFT__FINISH__FINISH_LENGTH);
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ steps of a hostile daemon */

/* Stage 1 of 3 on node 0; the test plays the daemon beside it, which has the others. */
struct middle {
    struct net *n;
    struct net_client in, out; /* steps to stage 1, and what it sends to stage 2 */
    Weft__Segment seg, *segs[2];
    Weft__Step step;
    float x[4096];
};

static void accept_out(void *arg, struct weft_conn *c)
{
    struct middle *m = arg;
    net_accept(m->n, &m->out, c, "n3");
}

static void middle_open(struct middle *m)
{
    struct net *n = m->n = net_open(1, weft_test_seed());
    const struct net_plan plan = {
        .stages = {{0, 0, 3}, {0, n->model.n_layers, 0}, {n->model.n_layers, 0, 3}}, .n_stages = 3};
    struct weft_arena a;
    weft_arena_init(&a, 0);
    ck_assert_uint_le(n->model.dim * 8, sizeof m->x / sizeof m->x[0]);
    sim_listen(n->sim, NET_CLIENT_HOST, net_address(3), accept_out, m);
    control(n, &n->control[0], 0);
    net_acquire(n, 0);
    net_send_deploy(n, 0, net_deploy_of(n, &plan, 0, &a));
    struct weft_frame *f = net_wait(n, &n->control[0], BODY(MISSING));
    net_dial(n, &n->weights[0], 0, LANE(WEIGHTS), &n->epoch, 0, "alice@pc:1");
    net_send_missing(n, 0, f->env->missing);
    net_expect(n, &n->control[0], BODY(LOADED));
    weft_frame_free(f);
    net_send_connect(n, 0);
    net_expect(n, &n->control[0], BODY(READY));
    ck_assert(m->out.up && m->out.peer.hello->lane == LANE(STEPS) && m->out.peer.hello->stage == 2);
    net_dial(n, &m->in, 0, LANE(STEPS), &n->epoch, 1, "n3");
    ck_assert_msg(m->in.up, "%s", m->in.why.text);
    const struct net_turn t = turn_of(1, 3, 5);
    net_send_begin(n, 0, &t);
    net_expect(n, &n->control[0], BODY(BEGUN));
    weft__segment__init(&m->seg);
    m->seg.session = 1;
    m->seg.turn = 3;
    m->seg.rows = 2;
    m->segs[0] = m->segs[1] = &m->seg;
    weft__step__init(&m->step);
    m->step.epoch = &n->epoch;
    m->step.stage = 1;
    m->step.segments = m->segs;
    m->step.n_segments = 1;
    m->step.total_rows = 2;
    weft_arena_done(&a);
}

static void middle_close(struct middle *m)
{
    net_hang_up(&m->in);
    net_hang_up(&m->out);
    net_close(m->n);
}

static void send_step(struct middle *m, uint32_t bytes)
{
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    env.body_case = BODY(STEP);
    env.step = &m->step;
    net_send(&m->in, &env, m->x, bytes);
    m->step.number++;
}

static struct weft_frame *stats(struct net *n)
{
    Weft__StatsRequest rq = WEFT__STATS_REQUEST__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    rq.request = ++n->request;
    rq.epoch = &n->epoch;
    env.body_case = BODY(STATS_REQUEST);
    env.stats_request = &rq;
    net_send(&n->control[0], &env, NULL, 0);
    return net_wait(n, &n->control[0], BODY(STATS));
}

static void assert_stats(struct net *n, uint64_t steps, uint64_t rows, uint64_t dropped)
{
    struct weft_frame *f = stats(n);
    const Weft__StageStats *s = f->env->stats->stages[0];
    ck_assert_msg(s->steps == steps && s->rows == rows && s->dropped == dropped,
                  "%llu steps, %llu rows, %llu dropped", (unsigned long long)s->steps,
                  (unsigned long long)s->rows, (unsigned long long)s->dropped);
    weft_frame_free(f);
}

static const struct {
    const char *text;
    int code;
} steps[] = {
    {"Step for stage 2 on the link of stage 1", WEFT_EPROTOCOL},
    {"Step of 0 segments", WEFT_ELIMIT},
    {"Step of 17 rows, expected 1 to 16", WEFT_ELIMIT},
    {"segments have 2 rows, total_rows is 3", WEFT_ESHAPE},
    {"payload of", WEFT_ESHAPE},
    {"payload of 0 bytes", WEFT_ESHAPE},
    {"from row 2 on", WEFT_ESHAPE},
    {"has 0 rows", WEFT_ESHAPE},
    {"epoch 9 of 11223344, deployed is epoch 1 of 11223344", WEFT_ESTALE},
    {"its segments have 8589934588 rows", WEFT_ESHAPE},
};

START_TEST(steps_refused)
{
    struct middle m = {0};
    middle_open(&m);
    uint32_t bytes = 2 * m.n->model.dim * 4;
    Weft__Epoch old = m.n->epoch;
    old.counter = 9;
    if (_i == 0)
        m.step.stage = 2;
    else if (_i == 1)
        m.step.n_segments = 0;
    else if (_i == 2)
        m.step.total_rows = 17;
    else if (_i == 3)
        m.step.total_rows = 3;
    else if (_i == 4)
        bytes -= 4;
    else if (_i == 5)
        bytes = 0;
    else if (_i == 6)
        m.step.first_row = 2;
    else if (_i == 7)
        m.seg.rows = 0;
    else if (_i == 8)
        m.step.epoch = &old;
    else {
        m.seg.rows = UINT32_MAX - 1;
        m.step.n_segments = 2;
    }
    send_step(&m, bytes);
    net_expect_refused(m.n, &m.in, steps[_i].code, steps[_i].text);
    net_expect_fault(m.n, &m.n->control[0], steps[_i].code, 0, steps[_i].text);
    assert_state(m.n, &m.n->control[0], "held", "alice@pc:1");
    middle_close(&m);
}
END_TEST

START_TEST(steps_taken)
{
    struct middle m = {0};
    middle_open(&m);
    struct net *n = m.n;
    uint32_t row = n->model.dim * 4;
    m.step.total_rows = m.seg.rows = 4; /* in two frames */
    send_step(&m, row);
    m.step.number--;
    m.step.first_row = 1;
    send_step(&m, 3 * row);
    net_run(n, NET_SECOND_NS);
    assert_stats(n, 1, 4, 0);
    struct weft_frame *f = net_wait(n, &m.out, BODY(STEP)); /* its rows go on */
    ck_assert_uint_eq(f->env->step->stage, 2);
    ck_assert_uint_eq(f->env->step->total_rows, 4);
    ck_assert_uint_eq(f->payload_size, 4 * row);
    ck_assert_uint_eq(f->env->step->segments[0]->session, 1);
    weft_frame_free(f);
    m.step.number = 0; /* the same once more */
    m.step.first_row = 0;
    send_step(&m, 4 * row);
    net_run(n, NET_SECOND_NS);
    assert_stats(n, 1, 4, 1);
    m.step.number = 5;
    m.seg.turn = 2; /* of an older turn */
    send_step(&m, 4 * row);
    m.seg.turn = 3;
    m.seg.session = 8; /* of nobody */
    send_step(&m, 4 * row);
    net_run(n, NET_SECOND_NS);
    assert_stats(n, 1, 4, 3);
    m.seg.session = 1;
    m.seg.position = 5;
    send_step(&m, 4 * row);
    net_expect_fault(n, &n->control[0], WEFT_EPOSITION, 1, "rows from position 5 on, 4 are here");
    m.seg.position = 4;
    send_step(&m, 4 * row); /* the turn has failed: dropped, and said once */
    net_run(n, NET_SECOND_NS);
    assert_stats(n, 1, 4, 4);
    ck_assert(!net_comes(n, &n->control[0], BODY(FAULT), NET_SECOND_NS));
    middle_close(&m);
}
END_TEST

START_TEST(steps_with_gaps)
{
    struct middle m = {0};
    middle_open(&m);
    struct net *n = m.n;
    uint32_t row = n->model.dim * 4;
    m.step.total_rows = m.seg.rows = 4;
    send_step(&m, row);
    m.step.number--;
    m.step.first_row = 2; /* row 1 is lost */
    send_step(&m, 2 * row);
    net_expect_fault(n, &n->control[0], WEFT_EPOSITION, 1, "rows from 1 of 4 on were lost");
    struct net_turn t = turn_of(1, 4, 5);
    net_send_begin(n, 0, &t);
    net_expect(n, &n->control[0], BODY(BEGUN));
    m.seg.turn = 4;
    m.step.first_row = 0;
    send_step(&m, 4 * row);
    net_run(n, NET_SECOND_NS);
    assert_stats(n, 1, 4, 2);
    m.seg.turn = 9;
    m.seg.position = 4;
    send_step(&m, 4 * row);
    net_expect_fault(n, &n->control[0], WEFT_ESTATE, 1, "step of turn 9, begun is turn 4");
    m.seg.turn = 4;
    m.step.n_segments = 2; /* one session twice in a step */
    m.step.total_rows = 8;
    send_step(&m, 8 * row);
    net_expect_fault(n, &n->control[0], WEFT_EPOSITION, 1, "a second segment in the same step");
    t.turn = 5;
    net_send_begin(n, 0, &t);
    net_expect(n, &n->control[0], BODY(BEGUN));
    m.step.n_segments = 1;
    m.seg.turn = 5;
    m.seg.position = UINT32_MAX - 1;
    m.step.total_rows = 4;
    send_step(&m, 4 * row);
    net_expect_fault(n, &n->control[0], WEFT_EPOSITION, 1,
                     "rows from position 4294967294 on, 0 are here");
    middle_close(&m);
}
END_TEST

START_TEST(next_stage_lost)
{
    struct net *n = net_open(2, weft_test_seed());
    struct net_plan plan = plan_two(n);
    plan.context = 128;
    net_bring_up(n, &plan);
    const struct net_turn t = turn_of(1, 1, 100);
    net_start_turn(n, &plan, &t);
    sim_cut(n->sim, 1);
    net_expect_fault(n, &n->control[0], WEFT_ELOST, 0, "link to n1 at n1:1 for stage 1");
    assert_state(n, &n->control[0], "held", "alice@pc:1");
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ lanes */

START_TEST(wrong_lane)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = plan_one(n);
    struct net_client *c = &n->control[1];
    static const Weft__Lane lanes[] = {LANE(WEIGHTS), LANE(STEPS), LANE(RESULTS), LANE(PROBE)};
    net_bring_up(n, &plan);
    net_dial(n, c, 0, lanes[_i], &n->epoch, 0, "bob@laptop:7");
    if (_i == 0) {
        net_expect_refused(n, c, WEFT_ESTATE, "lane weights: all shards are there");
    } else if (_i == 1) {
        net_expect_refused(n, c, WEFT_ESTATE, "lane steps for stage 0: stage 0 is here too");
    } else {
        send_status(c, 1, false);
        net_expect_refused(n, c, WEFT_EPROTOCOL, "StatusRequest does not belong on lane");
    }
    Weft__Epoch old = n->epoch;
    old.counter = 7;
    if (_i < 3) {
        net_dial(n, c, 0, lanes[_i], &old, 0, "bob@laptop:7");
        net_expect_refused(n, c, WEFT_ESTALE, "epoch 7 of 11223344");
    }
    control(n, c, 0);
    assert_state(n, c, "ready", "alice@pc:1");
    net_close(n);
}
END_TEST

/* What comes on a lane between daemons and does not belong there breaks the ring. */
START_TEST(wrong_frame_on_steps)
{
    struct middle m = {0};
    middle_open(&m);
    send_status(&m.in, 1, false);
    net_expect_refused(m.n, &m.in, WEFT_EPROTOCOL, "StatusRequest does not belong on lane steps");
    net_expect_fault(m.n, &m.n->control[0], WEFT_EPROTOCOL, 0, "does not belong on lane steps");
    net_dial(m.n, &m.in, 0, LANE(STEPS), &m.n->epoch, 1, "n3");
    net_expect_refused(m.n, &m.in, WEFT_ESTALE, "nothing is deployed");
    assert_state(m.n, &m.n->control[0], "held", "alice@pc:1");
    middle_close(&m);
}
END_TEST

/* Rows and tokens that come from this daemon itself cannot come over a link as well. */
START_TEST(lanes_between_own_stages)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = {.stages = {{0, 1, 0}, {1, n->model.n_layers - 1, 0}},
                                  .n_stages = 2};
    struct net_client *c = &n->control[1];
    net_bring_up(n, &plan);
    net_dial(n, c, 0, LANE(STEPS), &n->epoch, 1, "bob@laptop:7");
    net_expect_refused(n, c, WEFT_ESTATE, "lane steps for stage 1: stage 0 is here too");
    net_dial(n, c, 0, LANE(STEPS), &n->epoch, 0, "bob@laptop:7");
    net_expect_refused(n, c, WEFT_ESTATE, "lane steps for stage 0: stage 1 is here too");
    assert_state(n, &n->control[0], "ready", "alice@pc:1");
    net_close(n);
}
END_TEST

/* A frame of 256 KiB takes seconds on a slow link, and nothing else comes meanwhile. */
START_TEST(slow_lanes)
{
    struct net *n = net_open(1, weft_test_seed());
    struct net_client *c = &n->control[1];
    control(n, &n->control[0], 0);
    net_dial(n, c, 0, LANE(PROBE), NULL, 0, "bob@laptop:7");
    n->control[0].peer.opt.ping_ms = c->peer.opt.ping_ms = 60000; /* both fall silent */
    net_run(n, 5 * NET_SECOND_NS);
    ck_assert(n->control[0].down && !c->down);
    net_run(n, 8 * NET_SECOND_NS);
    ck_assert(c->down);
    net_close(n);
}
END_TEST

START_TEST(too_many_connections)
{
    struct net *n = net_open(1, weft_test_seed());
    static struct net_client many[WEFT_NODE_PEERS_MAX + 1];
    for (unsigned i = 0; i < WEFT_NODE_PEERS_MAX; i++)
        control(n, &many[i], 0);
    net_dial(n, &many[WEFT_NODE_PEERS_MAX], 0, LANE(CONTROL), NULL, 0, "late");
    ck_assert(!many[WEFT_NODE_PEERS_MAX].up);
    net_hang_up(&many[3]);
    net_run(n, NET_SECOND_NS);
    control(n, &many[WEFT_NODE_PEERS_MAX], 0);
    assert_state(n, &many[WEFT_NODE_PEERS_MAX], "idle", "");
    for (unsigned i = 0; i <= WEFT_NODE_PEERS_MAX; i++)
        net_hang_up(&many[i]);
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ random frames */

/* Fills a message of any type with random values; texts and lists stay short. */
static void fill(ProtobufCMessage *m, uint64_t *random, struct weft_arena *a, const struct net *n)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        uint64_t r = weft_test_random(random);
        /* mostly small numbers, near what is right */
        uint64_t value = (r >> 8) % 4 == 0 ? weft_test_random(random) : (r >> 16) % 8;
        char *at = (char *)m + f->offset;
        if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 || f->label == PROTOBUF_C_LABEL_REPEATED)
            continue; /* Envelope's body is chosen; lists stay empty but for the ones below */
        if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
            const ProtobufCMessageDescriptor *sub = f->descriptor;
            ProtobufCMessage *child;
            if (r % 8 == 0)
                continue;
            child = weft_arena_alloc(a, sub->sizeof_message);
            protobuf_c_message_init(sub, child);
            fill(child, random, a, n);
            if (sub == &weft__epoch__descriptor && r % 16 != 1)
                memcpy(child, &n->epoch, sizeof n->epoch);
            memcpy(at, &child, sizeof child);
        } else if (f->type == PROTOBUF_C_TYPE_UINT64 || f->type == PROTOBUF_C_TYPE_FIXED64) {
            memcpy(at, &value, 8);
        } else if (f->type == PROTOBUF_C_TYPE_BOOL) {
            protobuf_c_boolean b = (protobuf_c_boolean)(r & 1);
            memcpy(at, &b, sizeof b);
        } else if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_BYTES &&
                   f->type != PROTOBUF_C_TYPE_DOUBLE) {
            memcpy(at, &value, 4);
        }
    }
}

START_TEST(random_frames)
{
    uint64_t random = weft_test_seed() + (uint64_t)_i;
    struct net *n = net_open(2, random);
    const struct net_plan plan = plan_two(n);
    static const Weft__Lane lanes[] = {LANE(CONTROL), LANE(CONTROL), LANE(STEPS), LANE(RESULTS),
                                       LANE(PROBE)};
    static uint8_t payload[4096];
    struct net_client *c = &n->control[2];
    for (int round = 0; round < 6; round++) {
        n->epoch.counter++;
        net_hang_up(&n->control[0]);
        net_hang_up(&n->control[1]);
        net_run(n, 10 * NET_SECOND_NS);
        net_bring_up(n, &plan);
        const struct net_turn t = turn_of(1, 3, 20);
        net_start_turn(n, &plan, &t);
        for (int i = 0; i < 60; i++) {
            struct weft_arena a;
            Weft__Envelope env = WEFT__ENVELOPE__INIT;
            const ProtobufCFieldDescriptor *body =
                &weft__envelope__descriptor
                     .fields[weft_test_random(&random) % weft__envelope__descriptor.n_fields];
            const ProtobufCMessageDescriptor *sub = body->descriptor;
            bool own = round % 2 == 0; /* as the holder, or as a stranger */
            struct net_client *to = own ? &n->control[weft_test_random(&random) % 2] : c;
            weft_arena_init(&a, 1u << 20);
            if (!to->up || to->down) {
                unsigned lane = (unsigned)(weft_test_random(&random) % 5);
                if (own)
                    break;
                net_dial(n, to, (unsigned)(weft_test_random(&random) % 2), lanes[lane], &n->epoch,
                         (uint32_t)(weft_test_random(&random) % 3), "bob@laptop:7");
            }
            ProtobufCMessage *m = weft_arena_alloc(&a, sub->sizeof_message);
            protobuf_c_message_init(sub, m);
            fill(m, &random, &a, n);
            env.body_case = (Weft__Envelope__BodyCase)body->id;
            memcpy((char *)&env + body->offset, &m, sizeof m);
            uint32_t size = (uint32_t)(weft_test_random(&random) % 3) * n->model.dim * 4;
            struct weft_frame *f = NULL; /* what the decoder refuses does not reach a node */
            if (size > sizeof payload)
                size = 8;
            if (to->up && !to->down && env.body_case != BODY(HELLO) &&
                weft_frame_copy(&env, payload, size, &f, NULL) == 0)
                (void)!weft_peer_send(&to->peer, &env, payload, size);
            weft_frame_free(f);
            net_run(n, weft_test_random(&random) % 2000000);
            weft_arena_done(&a);
            while (to->n_inbox > 0)
                weft_frame_free(to->inbox[--to->n_inbox]);
        }
        net_hang_up(c);
        net_run(n, NET_SECOND_NS);
    }
    for (unsigned i = 0; i < 2; i++) { /* both are still there */
        control(n, &n->control[i], i);
        weft_frame_free(status(n, &n->control[i], false));
    }
    net_close(n);
}
END_TEST

/* ------------------------------------------------------------------ the end */

static void set_true(void *arg)
{
    *(bool *)arg = true;
}

START_TEST(drain_waits_for_the_turn)
{
    struct net *n = net_open(1, weft_test_seed());
    const struct net_plan plan = plan_one(n);
    bool drained = false;
    net_bring_up(n, &plan);
    struct net_turn t = turn_of(1, 1, N_GREEDY);
    net_start_turn(n, &plan, &t);
    control(n, &n->control[1], 0);
    weft_node_drain(n->nodes[0], set_true, &drained);
    send_acquire(n, &n->control[1], 5);
    net_expect_fault(n, &n->control[1], WEFT_ESTATE, 0, "n0 is shutting down");
    t.session = 2;
    net_send_begin(n, 0, &t);
    t.session = 1;
    for (uint32_t i = 0; i < N_GREEDY; i++)
        expect_token(n, &t, N_PROMPT + i, greedy[i],
                     i + 1 < N_GREEDY ? WEFT__FINISH__FINISH_NONE : WEFT__FINISH__FINISH_LENGTH);
    net_expect_fault(n, &n->control[0], WEFT_ESTATE, 2, "n0 is shutting down");
    net_expect_fault(n, &n->control[0], WEFT_ELOST, 0, "n0 is shutting down");
    ck_assert(sim_run(n->sim, &drained, sim_now_ns(n->sim) + NET_SECOND_NS));
    net_run(n, NET_SECOND_NS);
    ck_assert(n->control[0].down && n->control[1].down && n->results.down);
    net_close(n);
}
END_TEST

START_TEST(drain_has_an_end)
{
    struct net *n = net_open(2, weft_test_seed());
    struct net_plan plan = plan_two(n);
    bool drained = false;
    plan.context = 128;
    net_bring_up(n, &plan);
    const struct net_turn t = turn_of(1, 1, 100);
    net_start_turn(n, &plan, &t); /* nobody acknowledges: it stands still after 33 tokens */
    uint64_t start = sim_now_ns(n->sim);
    weft_node_drain(n->nodes[1], set_true, &drained);
    ck_assert(sim_run(n->sim, &drained, start + 60 * NET_SECOND_NS));
    ck_assert(sim_now_ns(n->sim) - start >= 5 * NET_SECOND_NS);
    ck_assert(sim_now_ns(n->sim) - start < 6 * NET_SECOND_NS);
    net_expect_fault(n, &n->control[1], WEFT_ELOST, 0, "n1 is shutting down");
    net_close(n);
}
END_TEST

START_TEST(idle_drain_is_quick)
{
    struct net *n = net_open(1, weft_test_seed());
    bool drained = false;
    uint64_t start = sim_now_ns(n->sim);
    weft_node_drain(n->nodes[0], set_true, &drained);
    ck_assert(sim_run(n->sim, &drained, start + NET_SECOND_NS));
    ck_assert(sim_now_ns(n->sim) - start < NET_SECOND_NS / 10);
    net_close(n);
}
END_TEST

START_TEST(close_at_any_time)
{
    struct net *n = net_open(2, weft_test_seed() + (uint64_t)_i);
    struct net_plan plan = plan_two(n);
    plan.context = 128;
    net_bring_up(n, &plan);
    const struct net_turn t = turn_of(1, 1, 100);
    net_start_turn(n, &plan, &t);
    net_run(n, (uint64_t)_i * 300000);
    net_close(n); /* steps in hand are waited for */
}
END_TEST

START_TEST(drain_while_closing)
{
    struct net *n = net_open(1, weft_test_seed());
    bool closed = false, drained = false;
    control(n, &n->control[0], 0);
    send_status(&n->control[0], 1, true);
    ck_assert(sim_run(n->sim, &n->probing, sim_now_ns(n->sim) + NET_SECOND_NS));
    weft_node_close(n->nodes[0], set_true, &closed);
    ck_assert(!closed);
    weft_node_drain(n->nodes[0], set_true, &drained);
    n->nodes[0] = NULL;
    ck_assert(sim_run(n->sim, &closed, sim_now_ns(n->sim) + NET_SECOND_NS));
    net_run(n, NET_SECOND_NS);
    ck_assert(!drained);
    net_close(n);
}
END_TEST

START_TEST(bad_names)
{
    static const char *const names[] = {"", "a b", "a\n", "ä", "a/b"};
    struct sim *s = sim_open(&(struct sim_options){.seed = 1});
    struct weft_node_options o = {.io = sim_io(s, 0), .engine = {.table = wk_table_select("ref")}};
    struct weft_node *node;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        weft_err err = {0};
        o.name = names[i];
        ck_assert_int_eq(weft_node_open(&o, &node, &err), -WEFT_ECONFIG);
        ck_assert_ptr_nonnull(strstr(err.text, "expected 1 to 64 letters"));
    }
    sim_close(s);
}
END_TEST

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

int main(void)
{
    Suite *s = suite_create("node");
    TCase *t = tcase_create("node");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, looking);
    tcase_add_test(t, probing);
    tcase_add_test(t, measuring_links);
    tcase_add_test(t, second_coordinator);
    tcase_add_test(t, lost_coordinator);
    tcase_add_test(t, coordinator_comes_back_early);
    tcase_add_test(t, golden_answer);
    tcase_add_loop_test(t, golden_ring, 0, COUNT(cuts));
    tcase_add_loop_test(t, deploys_refused, 0, COUNT(deploys));
    tcase_add_test(t, memory_of_shards_is_counted_once);
    tcase_add_loop_test(t, shards_refused, 0, COUNT(shards));
    tcase_add_test(t, deploy_while_shards_come);
    tcase_add_test(t, next_stage_unreachable);
    tcase_add_test(t, run_ahead);
    tcase_add_test(t, finishes);
    tcase_add_loop_test(t, logits, 0, 2);
    tcase_add_test(t, cancel_and_begin);
    tcase_add_test(t, begin_waits_for_the_step);
    tcase_add_loop_test(t, begins_refused, 0, COUNT(begins));
    tcase_add_test(t, sessions_refused);
    tcase_add_loop_test(t, prompts_refused, 0, COUNT(prompts));
    tcase_add_loop_test(t, steps_refused, 0, COUNT(steps));
    tcase_add_test(t, steps_taken);
    tcase_add_test(t, steps_with_gaps);
    tcase_add_test(t, next_stage_lost);
    tcase_add_loop_test(t, wrong_lane, 0, 4);
    tcase_add_test(t, wrong_frame_on_steps);
    tcase_add_loop_test(t, weights_lane_again, 0, 10);
    tcase_add_test(t, begin_after_close);
    tcase_add_test(t, lanes_between_own_stages);
    tcase_add_test(t, slow_lanes);
    tcase_add_test(t, too_many_connections);
    tcase_add_loop_test(t, random_frames, 0, 4);
    tcase_add_test(t, drain_waits_for_the_turn);
    tcase_add_test(t, drain_has_an_end);
    tcase_add_test(t, idle_drain_is_quick);
    tcase_add_loop_test(t, close_at_any_time, 0, 30);
    tcase_add_test(t, drain_while_closing);
    tcase_add_test(t, bad_names);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
