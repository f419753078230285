/*
 * Frames that nobody should send, into nodes in every state: before the lease, while shards come,
 * between Loaded and Connect, during turns, while draining; from the holder of the lease, from
 * strangers, on every lane, in any order. Whatever was said, afterwards both nodes are idle and
 * compute the golden answer.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"
#include "tests/node_net.h"

#define BODY(x) WEFT__ENVELOPE__BODY_##x
#define LANE(x) WEFT__LANE__LANE_##x
#define STRANGERS 4u
#define LIST_MAX 4u /* elements of a made-up list; its limits are test_frame.c's */

/* tests/golden/llama.json */
static const int32_t prompt[] = {1, 300, 5,   900, 412, 77,  1000, 263, 350, 640, 513,
                                 8, 299, 720, 801, 266, 931, 404,  270, 615, 22,  345};
static const int32_t greedy[] = {245, 541, 119, 366, 472, 242, 197, 245, 874, 54, 781, 64};
#define N_PROMPT (sizeof prompt / sizeof prompt[0])
#define N_GREEDY (sizeof greedy / sizeof greedy[0])

struct hostile {
    struct net *n;
    uint64_t random;
    struct net_plan plan;
    struct net_client strangers[STRANGERS];
    uint8_t payload[4096];
};

static uint64_t below(struct hostile *h, uint64_t n)
{
    return weft_test_random(&h->random) % n;
}

/* ------------------------------------------------------------------ making things up */

/* Mostly what could be right, now and then a limit or anything. */
static uint64_t number(struct hostile *h)
{
    static const uint64_t edges[] = {
        N_PROMPT,       16,        63, 64, 65, 256, 1024, UINT16_MAX, INT32_MAX, UINT32_MAX,
        UINT32_MAX - 1, UINT64_MAX};
    uint64_t kind = below(h, 8);
    if (kind == 0)
        return weft_test_random(&h->random);
    return kind == 1 ? edges[below(h, sizeof edges / sizeof edges[0])] : below(h, 5);
}

static void fill(struct hostile *h, ProtobufCMessage *m, struct weft_arena *a);

static void fill_value(struct hostile *h, const ProtobufCFieldDescriptor *f, void *at,
                       struct weft_arena *a)
{
    static const char *const texts[] = {"", "n0:1", "n1:1", "n3:1", "nowhere:1", "\x1b[2J", "n0"};
    uint64_t value = number(h);
    if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        const ProtobufCMessageDescriptor *sub = f->descriptor;
        ProtobufCMessage *child = weft_arena_alloc(a, sub->sizeof_message);
        protobuf_c_message_init(sub, child);
        fill(h, child, a);
        if (sub == &weft__epoch__descriptor && below(h, 16) != 0)
            memcpy(child, &h->n->epoch, sizeof h->n->epoch);
        memcpy(at, &child, sizeof child);
    } else if (f->type == PROTOBUF_C_TYPE_STRING) {
        const char *text = texts[below(h, sizeof texts / sizeof texts[0])];
        memcpy(at, &text, sizeof text);
    } else if (f->type == PROTOBUF_C_TYPE_UINT64 || f->type == PROTOBUF_C_TYPE_FIXED64) {
        memcpy(at, &value, 8);
    } else if (f->type == PROTOBUF_C_TYPE_BOOL) {
        protobuf_c_boolean b = (protobuf_c_boolean)(value & 1);
        memcpy(at, &b, sizeof b);
    } else if (f->type == PROTOBUF_C_TYPE_FLOAT) {
        static const float floats[] = {0, 1, 0.5f, -1, 1e30f};
        float x = floats[below(h, 5)];
        memcpy(at, &x, sizeof x);
    } else {
        memcpy(at, &value, 4);
    }
}

static void fill_list(struct hostile *h, const ProtobufCFieldDescriptor *f, ProtobufCMessage *m,
                      struct weft_arena *a)
{
    bool pointers = f->type == PROTOBUF_C_TYPE_MESSAGE || f->type == PROTOBUF_C_TYPE_STRING;
    size_t size = pointers ? sizeof(void *) : 4, n = below(h, LIST_MAX + 1);
    char *list = weft_arena_array(a, LIST_MAX, sizeof(void *));
    for (size_t i = 0; i < n; i++)
        fill_value(h, f, list + i * size, a);
    memcpy((char *)m + f->quantifier_offset, &n, sizeof n);
    memcpy((char *)m + f->offset, &list, sizeof list);
}

static void fill(struct hostile *h, ProtobufCMessage *m, struct weft_arena *a)
{
    for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
        if (f->label == PROTOBUF_C_LABEL_REPEATED)
            fill_list(h, f, m, a);
        else if (f->type != PROTOBUF_C_TYPE_MESSAGE || below(h, 8) != 0)
            fill_value(h, f, (char *)m + f->offset, a);
    }
}

/* ------------------------------------------------------------------ nearly right */

/* A plan that is right but for at most one number. */
static ProtobufCMessage *near_deploy(struct hostile *h, unsigned node, struct weft_arena *a)
{
    Weft__Deploy *d;
    if (below(h, 2) == 0)
        h->n->epoch.counter++;
    d = net_deploy_of(h->n, &h->plan, node, a);
    uint32_t *const numbers[] = {&d->context,
                                 &d->sessions,
                                 &d->batch_rows,
                                 &d->mine[0],
                                 &d->stages[1]->first_layer,
                                 &d->stages[1]->n_layers,
                                 &d->model->dim,
                                 &d->model->tensors[below(h, d->model->n_tensors)]->rows};
    size_t which = below(h, 2 * sizeof numbers / sizeof numbers[0]);
    if (which < sizeof numbers / sizeof numbers[0])
        *numbers[which] = (uint32_t)number(h);
    return &d->base;
}

static void near_shard(struct hostile *h, Weft__Shard *s, uint32_t *size)
{
    Weft__ShardRun *run = s->run;
    if (run == NULL)
        return;
    run->kind = (uint32_t)below(h, WEFT_SHARD_KIND_COUNT);
    run->layer = (uint32_t)below(h, h->n->model.n_layers);
    run->first = 0;
    run->count = weft_shard_space(&h->n->model, (enum weft_shard_kind)run->kind);
    s->role = (uint32_t)below(h, WEFT_ROLE_COUNT + 1);
    s->offset = below(h, 3) * 512;
    s->total = below(h, 4) == 0 ? number(h) : 1u << 20;
    *size = 512;
    if (below(h, 8) != 0)
        s->hash = weft_frame_hash(h->payload, *size);
}

static void near_step(struct hostile *h, Weft__Step *s, uint32_t *size)
{
    uint64_t rows = 0;
    s->stage = (uint32_t)below(h, 2);
    for (size_t i = 0; i < s->n_segments; i++) {
        s->segments[i]->rows = 1 + (uint32_t)below(h, 2);
        s->segments[i]->want = (Weft__Want)below(h, 3);
        rows += s->segments[i]->rows;
    }
    s->total_rows = (uint32_t)rows;
    s->first_row = below(h, 4) == 0 ? 1 : 0;
    rows -= rows > s->first_row ? s->first_row : 0;
    *size = (uint32_t)rows * h->n->model.dim * 4u;
}

static void send_any(struct hostile *h, struct net_client *to, unsigned node)
{
    struct weft_arena a;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    const ProtobufCFieldDescriptor *body =
        &weft__envelope__descriptor.fields[below(h, weft__envelope__descriptor.n_fields)];
    const ProtobufCMessageDescriptor *d = body->descriptor;
    uint32_t size = (uint32_t)below(h, 3) * (below(h, 4) == 0 ? 7u : 4u);
    weft_arena_init(&a, 1u << 20);
    ProtobufCMessage *m = weft_arena_alloc(&a, d->sizeof_message);
    protobuf_c_message_init(d, m);
    fill(h, m, &a);
    env.body_case = (Weft__Envelope__BodyCase)body->id;
    if (env.body_case == BODY(DEPLOY) && below(h, 4) != 0)
        m = near_deploy(h, node, &a);
    else if (env.body_case == BODY(SHARD))
        near_shard(h, (Weft__Shard *)m, &size);
    else if (env.body_case == BODY(STEP))
        near_step(h, (Weft__Step *)m, &size);
    memcpy((char *)&env + body->offset, &m, sizeof m);
    for (uint32_t i = 0; i < sizeof h->payload; i++)
        h->payload[i] = i % 4 == 0 ? (uint8_t)below(h, 256) : 0; /* token ids that there are */
    if (size > sizeof h->payload)
        size = 8;
    struct weft_frame *f = NULL; /* what the decoder refuses does not reach a node */
    if (weft_frame_copy(&env, h->payload, size, &f, NULL) == 0)
        (void)!weft_peer_send(&to->peer, &env, h->payload, size);
    weft_frame_free(f);
    weft_arena_done(&a);
}

/* ------------------------------------------------------------------ states */

enum { NOTHING, HELD, LOADING, LOADED, READY, TURNS, DRAINING, N_STATES };

static struct net_turn turn_of(uint32_t session)
{
    return (struct net_turn){.session = session,
                             .turn = 1,
                             .max_tokens = N_GREEDY,
                             .prompt = prompt,
                             .n_prompt = N_PROMPT};
}

static void drained(void *arg)
{
    (void)arg;
}

/* Brings both nodes honestly to a state. */
static void reach(struct hostile *h, int state)
{
    struct net *n = h->n;
    struct weft_arena a;
    weft_arena_init(&a, 0);
    if (state >= READY)
        net_bring_up(n, &h->plan);
    for (unsigned i = 0; i < 2 && state < READY; i++) {
        net_dial(n, &n->control[i], i, LANE(CONTROL), NULL, 0, "alice@pc:1");
        if (state >= HELD)
            net_acquire(n, i);
        if (state < LOADING)
            continue;
        net_send_deploy(n, i, net_deploy_of(n, &h->plan, i, &a));
        struct weft_frame *f = net_wait(n, &n->control[i], BODY(MISSING));
        if (f->env->missing->n_shards > 0)
            net_dial(n, &n->weights[i], i, LANE(WEIGHTS), &n->epoch, 0, "alice@pc:1");
        if (state >= LOADED) {
            if (f->env->missing->n_shards > 0)
                net_send_missing(n, i, f->env->missing);
            net_expect(n, &n->control[i], BODY(LOADED));
        }
        weft_frame_free(f);
    }
    for (uint32_t session = 1; session <= 2 && state >= TURNS; session++) {
        const struct net_turn t = turn_of(session);
        net_start_turn(n, &h->plan, &t);
    }
    if (state == DRAINING)
        weft_node_drain(n->nodes[0], drained, NULL);
    weft_arena_done(&a);
}

static void drop_inbox(struct net_client *c)
{
    while (c->n_inbox > 0)
        weft_frame_free(c->inbox[--c->n_inbox]);
}

/* One frame from the holder (if `own`) or a stranger, who dials again when he was refused. */
static void attack(struct hostile *h, bool own)
{
    static const Weft__Lane lanes[] = {LANE(CONTROL), LANE(WEIGHTS), LANE(STEPS),
                                       LANE(STEPS),   LANE(RESULTS), LANE(PROBE)};
    struct net *n = h->n;
    unsigned node = (unsigned)below(h, 2);
    struct net_client *mine[] = {&n->control[0], &n->control[1], &n->weights[node], &n->results};
    struct net_client *to =
        own && below(h, 2) == 0 ? mine[below(h, 4)] : &h->strangers[below(h, STRANGERS)];
    bool stranger = to >= h->strangers && to < h->strangers + STRANGERS;
    if (stranger && (!to->up || to->down)) {
        net_dial(n, to, node, lanes[below(h, 6)], &n->epoch, (uint32_t)below(h, 3), "bob@laptop:7");
    } else if (stranger && below(h, 16) == 0) {
        net_hang_up(to);
    }
    if (to->up && !to->down)
        send_any(h, to, to == &n->control[0] ? 0 : to == &n->control[1] ? 1 : node);
    net_run(n, below(h, 8) == 0 ? below(h, NET_SECOND_NS) : below(h, 500000));
    drop_inbox(to);
}

static void hang_up_all(struct hostile *h)
{
    struct net *n = h->n;
    for (unsigned i = 0; i < STRANGERS; i++)
        net_hang_up(&h->strangers[i]);
    for (unsigned i = 0; i < 2; i++) {
        net_hang_up(&n->control[i]);
        net_hang_up(&n->weights[i]);
    }
    net_hang_up(&n->results);
}

static void assert_answer(struct hostile *h, const struct net_turn *t)
{
    for (uint32_t i = 0; i < N_GREEDY;) {
        struct weft_frame *f = net_wait(h->n, &h->n->results, BODY(TOKEN));
        const Weft__Token *token = f->env->token;
        if (token->session == t->session) {
            ck_assert_uint_eq(token->position, N_PROMPT + i);
            ck_assert_int_eq((int32_t)token->id, greedy[i]);
            i++;
        }
        weft_frame_free(f);
    }
}

static struct hostile *open_hostile(uint64_t seed)
{
    struct hostile *h = calloc(1, sizeof *h);
    ck_assert_ptr_nonnull(h);
    h->random = seed;
    h->n = net_open(2, seed);
    h->plan =
        (struct net_plan){.stages = {{0, 1, 0}, {1, h->n->model.n_layers - 1, 1}}, .n_stages = 2};
    return h;
}

START_TEST(hostile_frames)
{
    int state = _i % N_STATES;
    struct hostile *h = open_hostile(weft_test_seed() + (uint64_t)_i);
    reach(h, state);
    for (unsigned i = 0; i < 80; i++)
        attack(h, true);
    hang_up_all(h);
    if (state != DRAINING && below(h, 4) != 0) {
        net_run(h->n, 60 * NET_SECOND_NS); /* leases and measurements of links end */
        h->n->epoch.counter++;
        net_bring_up(h->n, &h->plan);
        const struct net_turn t = turn_of(9);
        net_start_turn(h->n, &h->plan, &t);
        assert_answer(h, &t);
    }
    net_close(h->n);
    free(h);
}
END_TEST

/* Who does not know the epoch changes nothing in the answer of those who do. */
START_TEST(strangers_change_nothing)
{
    struct hostile *h = open_hostile(weft_test_seed() + (uint64_t)_i);
    net_bring_up(h->n, &h->plan);
    const struct net_turn t = turn_of(9);
    net_start_turn(h->n, &h->plan, &t);
    for (unsigned i = 0; i < 60; i++) {
        Weft__Epoch epoch = h->n->epoch;
        h->n->epoch.coordinator ^= 1; /* a guess */
        attack(h, false);
        h->n->epoch = epoch;
    }
    assert_answer(h, &t);
    hang_up_all(h);
    net_close(h->n);
    free(h);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("hostile");
    TCase *t = tcase_create("frames");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, hostile_frames, 0, 20 * N_STATES);
    tcase_add_loop_test(t, strangers_change_nothing, 0, 30);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
