/*
 * Peers over connections in memory and virtual time: Hello, versions, heartbeat, re-dialling, and
 * owners who close (and free) a peer from within its events.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/peer.h"
#include "tests/harness.h"

#define MS 1000000u

/* ------------------------------------------------------------------ a world without wires */

struct weft_conn {
    struct weft_conn *other; /* NULL: its end is closed */
    struct weft_conn_events events;
    void *arg;
    struct weft_frame *inbox[256];
    int n_inbox;
    bool opened_due, closed_due, writable_due;
    int refuse_code; /* the dial fails so */
    bool paused, mute, full, gone;
    int pings_sent;
};

static struct world {
    struct weft_io io;
    uint64_t now_ns, rng;
    struct weft_timer *timers;
    struct weft_conn *conns[256];
    int n_conns;
    int dials;
    uint64_t dial_ns[256];
} w;

/* What the next dial meets. */
static enum { MEET_SERVER, MEET_NOBODY, MEET_NO_MEMORY, MEET_SILENCE } meet;
static void (*accept_conn)(struct weft_conn *c);

static uint64_t fake_now(struct weft_io *io)
{
    (void)io;
    return w.now_ns;
}

static uint64_t fake_random(struct weft_io *io)
{
    (void)io;
    return weft_test_random(&w.rng);
}

static void fake_timer_stop(struct weft_io *io, struct weft_timer *t)
{
    (void)io;
    if (!t->armed)
        return;
    struct weft_timer **p = &w.timers;
    while (*p != t)
        p = &(*p)->next;
    *p = t->next;
    t->armed = false;
}

static void fake_timer_start(struct weft_io *io, struct weft_timer *t, uint64_t delay_ns)
{
    fake_timer_stop(io, t);
    t->due_ns = w.now_ns + delay_ns;
    t->armed = true;
    struct weft_timer **p = &w.timers;
    while (*p != NULL && (*p)->due_ns <= t->due_ns)
        p = &(*p)->next;
    t->next = *p;
    *p = t;
}

static struct weft_conn *conn_new(void)
{
    struct weft_conn *c = calloc(1, sizeof *c);
    ck_assert_int_lt(w.n_conns, 256);
    w.conns[w.n_conns++] = c;
    return c;
}

static struct weft_conn *fake_dial(struct weft_io *io, const char *address, uint32_t timeout_ms,
                                   const struct weft_conn_events *events, void *arg)
{
    (void)io;
    ck_assert_str_eq(address, "pi5-a:7117");
    ck_assert_uint_eq(timeout_ms, 3000);
    w.dial_ns[w.dials++ % 256] = w.now_ns;
    if (meet == MEET_NO_MEMORY)
        return NULL;
    struct weft_conn *c = conn_new();
    c->events = *events;
    c->arg = arg;
    if (meet == MEET_NOBODY) {
        c->closed_due = true;
        c->refuse_code = WEFT_EUNREACHABLE;
        return c;
    }
    c->opened_due = true;
    c->other = conn_new();
    c->other->other = c;
    return c;
}

static void fake_events(struct weft_io *io, struct weft_conn *c,
                        const struct weft_conn_events *events, void *arg)
{
    (void)io;
    c->events = *events;
    c->arg = arg;
}

static int fake_send(struct weft_io *io, struct weft_conn *c, const Weft__Envelope *env,
                     const void *payload, uint32_t payload_size)
{
    (void)io;
    ck_assert(!c->gone);
    if (c->other == NULL)
        return -WEFT_ELOST;
    if (c->full)
        return -WEFT_EFULL;
    c->pings_sent += env->body_case == WEFT__ENVELOPE__BODY_PING;
    struct weft_frame *f;
    weft_err err = {0};
    const int r = weft_frame_copy(env, payload, payload_size, &f, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    if (c->mute || c->other->gone) {
        weft_frame_free(f);
        return 0;
    }
    ck_assert_int_lt(c->other->n_inbox, 256);
    c->other->inbox[c->other->n_inbox++] = f;
    return 0;
}

static void fake_pause(struct weft_io *io, struct weft_conn *c, bool pause)
{
    (void)io;
    ck_assert(!c->gone);
    c->paused = pause;
}

static void drop_inbox(struct weft_conn *c)
{
    while (c->n_inbox > 0)
        weft_frame_free(c->inbox[--c->n_inbox]);
}

static void fake_close(struct weft_io *io, struct weft_conn *c, bool flush)
{
    (void)io;
    ck_assert(!c->gone);
    c->gone = true;
    drop_inbox(c);
    if (c->other != NULL) {
        if (!flush && !c->other->gone)
            drop_inbox(c->other);
        c->other->other = NULL;
        c->other->closed_due = true;
        c->other = NULL;
    }
}

static const char *fake_peer_name(struct weft_io *io, struct weft_conn *c)
{
    (void)io, (void)c;
    return "10.0.0.9:40000";
}

static void world_open(void)
{
    w = (struct world){.io = {.now_ns = fake_now,
                              .random = fake_random,
                              .timer_start = fake_timer_start,
                              .timer_stop = fake_timer_stop,
                              .dial = fake_dial,
                              .events = fake_events,
                              .send = fake_send,
                              .pause = fake_pause,
                              .close = fake_close,
                              .peer_name = fake_peer_name},
                       .now_ns = 5000000000u,
                       .rng = weft_test_seed()};
    meet = MEET_SERVER;
}

static void world_close(void)
{
    ck_assert_ptr_null(w.timers); /* peers leave nothing behind */
    for (int i = 0; i < w.n_conns; i++) {
        drop_inbox(w.conns[i]);
        free(w.conns[i]);
    }
}

/* Tells one event that is due; false when there is none. */
static bool deliver(void)
{
    for (int i = 0; i < w.n_conns; i++) {
        struct weft_conn *c = w.conns[i];
        if (c->gone)
            continue;
        if (c->opened_due) {
            c->opened_due = false;
            if (meet == MEET_SERVER)
                accept_conn(c->other);
            if (!c->gone)
                c->events.opened(c->arg, c);
            return true;
        }
        if (c->writable_due) {
            c->writable_due = false;
            c->events.writable(c->arg, c);
            return true;
        }
        if (c->events.frame != NULL && c->n_inbox > 0 && !c->paused) {
            struct weft_frame *f = c->inbox[0];
            memmove(c->inbox, c->inbox + 1, (size_t)--c->n_inbox * sizeof f);
            c->events.frame(c->arg, c, f);
            return true;
        }
        if (c->events.closed != NULL && c->closed_due && c->n_inbox == 0) {
            weft_err why = {0};
            if (c->refuse_code != 0)
                weft_fail(&why, c->refuse_code, "pi5-a:7117: connection refused");
            else
                weft_fail(&why, WEFT_ELOST, "pi5-a:7117: closed by the other side");
            c->gone = true;
            c->events.closed(c->arg, c, &why);
            return true;
        }
    }
    return false;
}

static void settle(void)
{
    while (deliver())
        ;
}

/* Lets virtual time go by. */
static void pass(uint64_t ms)
{
    const uint64_t end = w.now_ns + ms * MS;
    settle();
    while (w.timers != NULL && w.timers->due_ns <= end) {
        struct weft_timer *t = w.timers;
        w.now_ns = t->due_ns > w.now_ns ? t->due_ns : w.now_ns;
        fake_timer_stop(&w.io, t);
        t->fire(t);
        settle();
    }
    w.now_ns = end;
}

/* ------------------------------------------------------------------ two owners */

struct owner {
    struct weft_peer *p; /* malloc'ed, so that sanitizers see a use after free */
    int ups, frames, writables, downs;
    enum { KEEP, CLOSE_ON_UP, CLOSE_ON_FRAME, CLOSE_ON_WRITABLE, CLOSE_ON_DOWN, REFUSE_ON_UP } plan;
    uint64_t down_ns;
    int down_state;
    weft_err why;
};
static struct owner client, server;
static struct weft_peer_options client_options, server_options;

static void owner_drop(struct owner *o)
{
    if (o->p == NULL)
        return;
    weft_peer_close(o->p, false);
    weft_peer_close(o->p, true); /* twice is once */
    free(o->p);
    o->p = NULL;
}

static void on_up(struct weft_peer *p)
{
    struct owner *o = p->opt.owner;
    ck_assert_ptr_eq(o->p, p);
    ck_assert_int_eq(p->state, WEFT_PEER_UP);
    ck_assert_ptr_nonnull(p->hello);
    o->ups++;
    if (o->plan == CLOSE_ON_UP)
        owner_drop(o);
    if (o->plan == REFUSE_ON_UP) {
        weft_peer_refuse(p, WEFT_EBUSY, "%s: held by %s", p->hello->name, "anna@box:7");
        ck_assert_int_eq(p->state, WEFT_PEER_DOWN);
        owner_drop(o);
    }
}

static void on_frame(struct weft_peer *p, struct weft_frame *f)
{
    struct owner *o = p->opt.owner;
    ck_assert_ptr_eq(o->p, p);
    ck_assert(f->env->body_case != WEFT__ENVELOPE__BODY_HELLO);
    ck_assert(f->env->body_case != WEFT__ENVELOPE__BODY_PING);
    weft_frame_free(f);
    o->frames++;
    if (o->plan == CLOSE_ON_FRAME)
        owner_drop(o);
}

static void on_writable(struct weft_peer *p)
{
    struct owner *o = p->opt.owner;
    o->writables++;
    if (o->plan == CLOSE_ON_WRITABLE)
        owner_drop(o);
}

static void on_down(struct weft_peer *p, const weft_err *why)
{
    struct owner *o = p->opt.owner;
    ck_assert_ptr_eq(o->p, p);
    ck_assert(p->conn == NULL && p->hello == NULL);
    o->downs++;
    o->why = *why;
    o->down_ns = w.now_ns;
    o->down_state = p->state;
    if (o->plan == CLOSE_ON_DOWN)
        owner_drop(o);
}

static const struct weft_peer_events events = {
    .up = on_up, .frame = on_frame, .writable = on_writable, .down = on_down};

static void on_accept(struct weft_conn *c)
{
    owner_drop(&server);
    server.p = malloc(sizeof *server.p);
    weft_peer_accept(server.p, &w.io, c, &server_options);
}

static void start(void)
{
    world_open();
    accept_conn = on_accept;
    client = server = (struct owner){0};
    client_options = (struct weft_peer_options){.events = &events,
                                                .owner = &client,
                                                .address = "pi5-a:7117",
                                                .hello = {.name = (char *)"anna@box:7",
                                                          .software = (char *)"weft 0.1.0",
                                                          .lane = WEFT__LANE__LANE_CONTROL}};
    server_options = (struct weft_peer_options){
        .events = &events,
        .owner = &server,
        .hello = {.name = (char *)"pi5-a", .software = (char *)"weft 0.1.0"}};
}

static void dial(void)
{
    client.p = malloc(sizeof *client.p);
    weft_peer_dial(client.p, &w.io, &client_options);
    ck_assert_int_eq(client.ups + client.downs, 0); /* never from within */
}

static void stop(void)
{
    owner_drop(&client);
    owner_drop(&server);
    world_close();
}

static int send_token(struct weft_peer *p)
{
    Weft__Token token = WEFT__TOKEN__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    env.body_case = WEFT__ENVELOPE__BODY_TOKEN;
    env.token = &token;
    return weft_peer_send(p, &env, NULL, 0);
}

/* ------------------------------------------------------------------ Hello */

START_TEST(hello)
{
    start();
    Weft__Epoch epoch = WEFT__EPOCH__INIT;
    epoch.coordinator = 99;
    epoch.counter = 3;
    client_options.hello.epoch = &epoch;
    client_options.hello.stage = 2;
    client_options.hello.lane = WEFT__LANE__LANE_STEPS;
    server_options.hello.lane = WEFT__LANE__LANE_STEPS; /* must not be told by the acceptor */
    dial();
    ck_assert_int_eq(client.p->state, WEFT_PEER_DIALLING);
    ck_assert_int_eq(send_token(client.p), -WEFT_ELOST);
    settle();
    ck_assert(client.ups == 1 && server.ups == 1);
    ck_assert(client.p->version == 2 && server.p->version == 2);
    const Weft__Hello *h = server.p->hello;
    ck_assert_str_eq(h->name, "anna@box:7");
    ck_assert_str_eq(h->software, "weft 0.1.0");
    ck_assert(h->lane == WEFT__LANE__LANE_STEPS && h->stage == 2 &&
              weft_epoch_equal(h->epoch, &epoch));
    h = client.p->hello;
    ck_assert_str_eq(h->name, "pi5-a");
    ck_assert(h->lane == WEFT__LANE__LANE_NONE && h->epoch == NULL);
    ck_assert(weft_peer_can(client.p, "sessions") && weft_peer_can(server.p, "stages"));
    ck_assert(weft_peer_can(client.p, "exact-sums") && !weft_peer_can(client.p, "teleport"));
    ck_assert_int_eq(send_token(client.p), 0);
    ck_assert_int_eq(send_token(server.p), 0);
    settle();
    ck_assert(client.frames == 1 && server.frames == 1);
    /* the other side of a closed peer hears of it once */
    owner_drop(&server);
    settle();
    ck_assert_int_eq(client.downs, 1);
    ck_assert_int_eq(client.down_state, WEFT_PEER_DOWN);
    ck_assert_int_eq(client.why.code, WEFT_ELOST);
    ck_assert_int_eq(send_token(client.p), -WEFT_ELOST);
    ck_assert(!weft_peer_can(client.p, "sessions"));
    pass(60000);
    ck_assert_int_eq(w.dials, 1);
    stop();
}
END_TEST

START_TEST(versions)
{
    static const struct {
        uint32_t client_min, client_max, server_min, server_max, agreed;
        const char *old;
    } table[] = {
        {1, 1, 1, 1, 1, NULL},         {1, 3, 2, 5, 3, NULL},    {2, 5, 1, 3, 3, NULL},
        {1, 9, 4, 4, 4, NULL},         {3, 4, 1, 1, 0, "pi5-a"}, {1, 1, 3, 4, 0, "anna@box:7"},
        {1, 2, 3, 3, 0, "anna@box:7"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        start();
        client_options.version = table[i].client_max;
        client_options.version_min = table[i].client_min;
        client_options.redials = 5; /* of no use against another version */
        server_options.version = table[i].server_max;
        server_options.version_min = table[i].server_min;
        dial();
        pass(10000);
        if (table[i].agreed != 0) {
            ck_assert(client.ups == 1 && server.ups == 1 && client.downs == 0);
            ck_assert_uint_eq(client.p->version, table[i].agreed);
            ck_assert_uint_eq(server.p->version, table[i].agreed);
        } else {
            char text[300], told[320];
            snprintf(text, sizeof text,
                     "anna@box:7 speaks protocol %u..%u, pi5-a speaks %u..%u: update weft on %s",
                     table[i].client_min, table[i].client_max, table[i].server_min,
                     table[i].server_max, table[i].old);
            snprintf(told, sizeof told, "pi5-a:7117: %s", text);
            ck_assert(client.ups == 0 && server.ups == 0 && client.downs == 1 && server.downs == 1);
            ck_assert_int_eq(server.why.code, WEFT_EVERSION);
            ck_assert_str_eq(server.why.text, text);
            ck_assert_int_eq(client.why.code, WEFT_EVERSION);
            ck_assert_str_eq(client.why.text, told);
            ck_assert_int_eq(w.dials, 1);
        }
        stop();
    }
}
END_TEST

/* What a peer says to the first frame of a stranger: both its own `down` and the Fault it sends. */
static void expect_refused(const Weft__Envelope *env, int code, const char *text)
{
    start();
    struct weft_conn *a = conn_new(), *b = conn_new();
    a->other = b;
    b->other = a;
    on_accept(b);
    ck_assert_int_eq(fake_send(&w.io, a, env, NULL, 0), 0);
    settle();
    ck_assert(server.ups == 0 && server.downs == 1);
    ck_assert_int_eq(server.why.code, code);
    ck_assert_str_eq(server.why.text, text);
    ck_assert_int_eq(a->n_inbox, 1);
    ck_assert_uint_eq(a->inbox[0]->env->body_case, WEFT__ENVELOPE__BODY_FAULT);
    ck_assert_int_eq((int)a->inbox[0]->env->fault->code, code);
    ck_assert_str_eq(a->inbox[0]->env->fault->text, text);
    ck_assert(a->closed_due);
    stop();
}

START_TEST(bad_greetings)
{
    Weft__Token token = WEFT__TOKEN__INIT;
    Weft__Ping ping = WEFT__PING__INIT;
    Weft__Hello h = WEFT__HELLO__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    env.body_case = WEFT__ENVELOPE__BODY_TOKEN;
    env.token = &token;
    expect_refused(&env, WEFT_EPROTOCOL, "10.0.0.9:40000: found Token, expected Hello first");
    env.body_case = WEFT__ENVELOPE__BODY_PING;
    env.ping = &ping;
    expect_refused(&env, WEFT_EPROTOCOL, "10.0.0.9:40000: found Ping, expected Hello first");
    env.body_case = WEFT__ENVELOPE__BODY_HELLO;
    env.hello = &h;
    const char *bad_name =
        "10.0.0.9:40000: Hello with a bad name, expected 1 to 64 visible characters";
    h.version = h.version_min = WEFT_PROTOCOL_VERSION;
    h.lane = WEFT__LANE__LANE_CONTROL;
    expect_refused(&env, WEFT_EPROTOCOL, bad_name);
    h.name = (char *)"two words";
    expect_refused(&env, WEFT_EPROTOCOL, bad_name);
    h.name = (char *)"line\nbreak";
    expect_refused(&env, WEFT_EPROTOCOL, bad_name);
    char longer[WEFT_NAME_MAX + 2];
    memset(longer, 'n', sizeof longer);
    longer[WEFT_NAME_MAX + 1] = '\0';
    h.name = longer;
    expect_refused(&env, WEFT_EPROTOCOL, bad_name);
    h.name = (char *)"x";
    h.version = h.version_min = 0;
    expect_refused(&env, WEFT_EPROTOCOL, "x: Hello with protocol versions 0..0");
    h.version = 1;
    h.version_min = 2;
    expect_refused(&env, WEFT_EPROTOCOL, "x: Hello with protocol versions 2..1");
    h.version = h.version_min = WEFT_PROTOCOL_VERSION;
    h.lane = WEFT__LANE__LANE_NONE;
    expect_refused(&env, WEFT_EPROTOCOL, "x: Hello without a lane");
}
END_TEST

START_TEST(second_hello)
{
    start();
    dial();
    settle();
    Weft__Hello h = WEFT__HELLO__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    env.body_case = WEFT__ENVELOPE__BODY_HELLO;
    env.hello = &h;
    ck_assert_int_eq(fake_send(&w.io, client.p->conn, &env, NULL, 0), 0);
    settle();
    ck_assert_int_eq(server.downs, 1);
    ck_assert_int_eq(server.why.code, WEFT_EPROTOCOL);
    ck_assert_str_eq(server.why.text, "anna@box:7: found a second Hello");
    ck_assert_int_eq(client.frames, 1); /* the Fault */
    ck_assert_int_eq(client.downs, 1);
    stop();
}
END_TEST

START_TEST(silence_instead_of_hello)
{
    start();
    meet = MEET_SILENCE;
    dial();
    pass(2999);
    ck_assert_int_eq(client.downs, 0);
    pass(1);
    ck_assert_int_eq(client.downs, 1);
    ck_assert_int_eq(client.why.code, WEFT_ELATE);
    ck_assert_str_eq(client.why.text, "pi5-a:7117: no Hello for 3000 ms: does weft run there?");
    stop();
    start(); /* and the other way round */
    struct weft_conn *a = conn_new(), *b = conn_new();
    a->other = b;
    b->other = a;
    on_accept(b);
    pass(3000);
    ck_assert_int_eq(server.downs, 1);
    ck_assert_str_eq(server.why.text, "10.0.0.9:40000: no Hello for 3000 ms: does weft run there?");
    ck_assert(a->closed_due);
    stop();
}
END_TEST

START_TEST(refused_instead_of_hello)
{
    start();
    client_options.redials = UINT32_MAX;
    server.plan = REFUSE_ON_UP;
    dial();
    settle();
    /* the server's Hello came first, so this client was up, and the Fault is a frame for its owner
     */
    ck_assert(client.ups == 1 && client.frames == 1 && client.downs == 1);
    stop();

    start();
    client_options.redials = UINT32_MAX;
    dial();
    while (server.p == NULL)
        ck_assert(deliver());
    weft_peer_refuse(server.p, WEFT_ELIMIT, "pi5-a has %d connections", 1024);
    pass(60000);
    ck_assert(client.ups == 0 && client.downs == 1 && server.downs == 0);
    ck_assert_int_eq(client.down_state, WEFT_PEER_DOWN);
    ck_assert_int_eq(client.why.code, WEFT_ELIMIT);
    ck_assert_str_eq(client.why.text, "pi5-a:7117: pi5-a has 1024 connections");
    ck_assert_int_eq(w.dials, 1); /* a no is a no */
    stop();
}
END_TEST

/* ------------------------------------------------------------------ heartbeat */

START_TEST(heartbeat)
{
    start();
    dial();
    pass(60000);
    ck_assert(client.downs == 0 && server.downs == 0 && client.frames == 0 && server.frames == 0);
    ck_assert_int_ge(client.p->conn->pings_sent, 238);
    ck_assert_int_le(client.p->conn->pings_sent, 241);
    /* who talks need not ping */
    client.p->conn->pings_sent = server.p->conn->pings_sent = 0;
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(send_token(client.p), 0);
        pass(200);
    }
    ck_assert_int_eq(client.p->conn->pings_sent, 0);
    ck_assert_int_ge(server.p->conn->pings_sent, 78);
    ck_assert_int_eq(client.downs + server.downs, 0);
    stop();
}
END_TEST

START_TEST(dead)
{
    start();
    client_options.ping_ms = 100;
    client_options.dead_ms = 700;
    dial();
    pass(10000);
    struct weft_conn *c = client.p->conn, *s = server.p->conn;
    const uint64_t cut = w.now_ns;
    c->mute = s->mute = true;
    pass(5000);
    ck_assert(client.downs == 1 && server.downs == 1);
    ck_assert_int_eq(client.why.code, WEFT_ELOST);
    ck_assert_str_eq(client.why.text, "pi5-a: no sign of life for 700 ms");
    /* heard last at most a ping of the other side before the cut */
    ck_assert_uint_ge(client.down_ns, cut + 450 * MS);
    ck_assert_uint_le(client.down_ns, cut + 700 * MS);
    stop();
}
END_TEST

START_TEST(who_stood_still_blames_nobody)
{
    start();
    dial();
    pass(3000);
    /* this process is stopped for ten seconds; the other side's frames wait in the socket, but
     * timers come first when it goes on */
    w.now_ns += 10000 * MS;
    for (int i = 0; i < 2; i++) {
        struct weft_timer *t = w.timers;
        fake_timer_stop(&w.io, t);
        t->fire(t);
    }
    ck_assert_int_eq(client.downs + server.downs, 0);
    pass(5000);
    ck_assert_int_eq(client.downs + server.downs, 0);
    /* but no longer than another period when nothing was there */
    client.p->conn->mute = true;
    w.now_ns += 10000 * MS;
    pass(251);
    ck_assert_int_eq(server.downs, 1);
    stop();
}
END_TEST

START_TEST(pause)
{
    start();
    dial();
    pass(1000);
    weft_peer_pause(server.p, true);
    weft_peer_pause(server.p, true);
    ck_assert(server.p->conn->paused);
    ck_assert_int_eq(send_token(client.p), 0);
    pass(20000);
    ck_assert(client.downs == 0 && server.downs == 0 && server.frames == 0);
    weft_peer_pause(server.p, false);
    settle();
    ck_assert_int_eq(server.frames, 1);
    pass(20000);
    ck_assert_int_eq(client.downs + server.downs, 0);
    /* silence after a pause is silence again */
    weft_peer_pause(server.p, true);
    client.p->conn->mute = true;
    pass(20000);
    drop_inbox(server.p->conn);
    weft_peer_pause(server.p, false);
    const uint64_t resumed = w.now_ns;
    pass(5000);
    ck_assert_int_eq(server.downs, 1);
    ck_assert_uint_eq(server.down_ns, resumed + 1000 * MS);
    stop();
}
END_TEST

START_TEST(full_and_writable)
{
    start();
    dial();
    settle();
    client.p->conn->full = true;
    ck_assert_int_eq(send_token(client.p), -WEFT_EFULL);
    pass(500); /* a ping that does not fit is no harm */
    client.p->conn->full = false;
    client.p->conn->writable_due = true;
    pass(1000);
    ck_assert_int_eq(client.writables, 1);
    ck_assert_int_eq(client.downs + server.downs, 0);
    stop();
}
END_TEST

/* ------------------------------------------------------------------ dialling again */

START_TEST(backoff)
{
    start();
    meet = MEET_NOBODY;
    client_options.redials = 10;
    dial();
    pass(200000);
    ck_assert_int_eq(w.dials, 11);
    ck_assert_int_eq(client.downs, 1);
    ck_assert_int_eq(client.why.code, WEFT_EUNREACHABLE);
    ck_assert_str_eq(client.why.text, "pi5-a:7117: connection refused");
    int low = 0;
    for (int i = 0; i < 10; i++) {
        const uint64_t full = i < 6 ? 100u << i : 5000;
        const uint64_t delay = w.dial_ns[i + 1] - w.dial_ns[i];
        ck_assert_uint_ge(delay, full * MS / 2);
        ck_assert_uint_lt(delay, full * MS * 3 / 2);
        low += delay < full * MS;
        ck_assert_uint_ne(delay, full * MS); /* 1 in 10^8: jitter is there */
    }
    ck_assert_int_le(low, 10);
    stop();
}
END_TEST

START_TEST(again_for_ever_and_up_at_last)
{
    start();
    meet = MEET_NOBODY;
    client_options.redials = UINT32_MAX;
    dial();
    pass(300000);
    ck_assert_int_ge(w.dials, 40);
    ck_assert_int_eq(client.downs, 0);
    meet = MEET_SERVER;
    pass(8000);
    ck_assert(client.ups == 1 && client.downs == 0);
    /* lost: told at once, and back soon, since an up peer starts with short delays again */
    weft_peer_close(server.p, false);
    settle();
    ck_assert(client.downs == 1 && client.down_state == WEFT_PEER_DIALLING);
    ck_assert_int_eq(send_token(client.p), -WEFT_ELOST);
    pass(160);
    ck_assert(client.ups == 2 && client.downs == 1);
    pass(5000);
    ck_assert_int_eq(client.downs, 1);
    stop();
}
END_TEST

START_TEST(no_memory_to_dial)
{
    start();
    meet = MEET_NO_MEMORY;
    client_options.redials = 3;
    dial();
    pass(60000);
    ck_assert_int_eq(client.downs, 1);
    ck_assert_int_eq(client.why.code, WEFT_ENOMEM);
    ck_assert_int_le(w.dials, 6);
    stop();
    start();
    meet = MEET_NO_MEMORY;
    dial();
    meet = MEET_SERVER;
    pass(1000);
    ck_assert_int_eq(client.ups, 1);
    stop();
}
END_TEST

/* ------------------------------------------------------------------ owners who leave */

START_TEST(close_in_any_event)
{
    static const int plans[] = {CLOSE_ON_UP, CLOSE_ON_FRAME, CLOSE_ON_WRITABLE, CLOSE_ON_DOWN,
                                REFUSE_ON_UP};
    for (int which = 0; which < 2; which++) {
        for (size_t i = 0; i < 5; i++) {
            start();
            struct owner *leaver = which == 0 ? &client : &server,
                         *stayer = which == 0 ? &server : &client;
            leaver->plan = plans[i];
            dial();
            settle();
            if (leaver->p != NULL && stayer->p != NULL) {
                ck_assert_int_eq(send_token(stayer->p), 0);
                if (plans[i] == CLOSE_ON_WRITABLE)
                    leaver->p->conn->writable_due = true;
                if (plans[i] == CLOSE_ON_DOWN)
                    owner_drop(stayer);
            }
            pass(5000);
            ck_assert_ptr_null(leaver->p);
            ck_assert_int_eq(leaver->downs, plans[i] == CLOSE_ON_DOWN);
            if (plans[i] != CLOSE_ON_DOWN)
                ck_assert_int_eq(stayer->downs, 1);
            stop();
        }
    }
}
END_TEST

START_TEST(close_in_any_state)
{
    for (int steps = 0; steps < 8; steps++) {
        for (int flush = 0; flush < 2; flush++) {
            start();
            dial();
            for (int i = 0; i < steps; i++)
                (void)deliver();
            weft_peer_close(client.p, flush == 1);
            pass(10000);
            ck_assert_int_eq(client.downs, 0);
            ck_assert(server.p == NULL || server.downs == 1);
            stop();
        }
    }
    start(); /* while waiting to dial again, and one that never was */
    meet = MEET_NOBODY;
    client_options.redials = 3;
    dial();
    settle();
    weft_peer_close(client.p, true);
    pass(10000);
    ck_assert_int_eq(w.dials, 1);
    struct weft_peer zeroed = {0};
    weft_peer_close(&zeroed, true);
    stop();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("peer");
    TCase *t = tcase_create("peer");
    tcase_add_test(t, hello);
    tcase_add_test(t, versions);
    tcase_add_test(t, bad_greetings);
    tcase_add_test(t, second_hello);
    tcase_add_test(t, silence_instead_of_hello);
    tcase_add_test(t, refused_instead_of_hello);
    tcase_add_test(t, heartbeat);
    tcase_add_test(t, dead);
    tcase_add_test(t, who_stood_still_blames_nobody);
    tcase_add_test(t, pause);
    tcase_add_test(t, full_and_writable);
    tcase_add_test(t, backoff);
    tcase_add_test(t, again_for_ever_and_up_at_last);
    tcase_add_test(t, no_memory_to_dial);
    tcase_add_test(t, close_in_any_event);
    tcase_add_test(t, close_in_any_state);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
