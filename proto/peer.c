/*
 * Peer: a connection's Hello, heartbeat and re-dialling; see peer.h for the states.
 *
 * Invariant: `conn` is NULL exactly while nothing is connected or being dialled; `timer` is armed
 * in every state but DOWN: greeting time-out, heartbeat or back-off (only a dial under way has its
 * time-out in the io). Every call of an owner's event is the last thing a function does with the
 * peer, since the owner may have closed or freed it there. Loop thread.
 */
#include "proto/peer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

#define DIAL_TIMEOUT_MS 3000
#define GREETING_MS 3000 /* from the connection to the other side's Hello */
#define PING_MS 250      /* three may be lost on the way before dead_ms */
#define DEAD_MS 1000
#define REDIAL_FIRST_MS 100
#define REDIAL_MAX_MS 5000
#define NS_PER_MS 1000000u

/* What this build can do beyond version 1's frames; unknown names of the other side are ignored. */
static const char *const capabilities[] = {
    "sessions",   /* several at once, steps carry segments */
    "stages",     /* a device may serve several */
    "exact-sums", /* sums over shards as integers (ARCHITECTURE.md, "One answer") */
    "sampling",   /* all of Sampling, logprobs, grammars and their Vocabulary */
};

static bool dial(struct weft_peer *p);
static void on_timer(struct weft_timer *t);

/* ------------------------------------------------------------------ small things */

/* The other side for errors: its name once known, else its address. */
static const char *who(struct weft_peer *p)
{
    if (p->hello != NULL)
        return p->hello->name;
    if (p->opt.address != NULL)
        return p->opt.address;
    return p->conn != NULL ? p->io->peer_name(p->io, p->conn) : "peer";
}

static void timer_start(struct weft_peer *p, uint64_t delay_ns)
{
    p->due_ns = p->io->now_ns(p->io) + delay_ns;
    p->io->timer_start(p->io, &p->timer, delay_ns);
}

static int send_now(struct weft_peer *p, const Weft__Envelope *env, const void *payload,
                    uint32_t payload_size)
{
    const int r = p->io->send(p->io, p->conn, env, payload, payload_size);
    if (r == 0)
        p->last_sent_ns = p->io->now_ns(p->io);
    return r;
}

static void send_fault(struct weft_peer *p, const weft_err *why)
{
    Weft__Fault fault = weft_fault_of(why);
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    env.body_case = WEFT__ENVELOPE__BODY_FAULT;
    env.fault = &fault;
    /* a full queue or a lost connection: the other side then sees the close alone */
    (void)send_now(p, &env, NULL, 0);
}

static int send_hello(struct weft_peer *p)
{
    static const Weft__Hello init = WEFT__HELLO__INIT;
    Weft__Hello hello = p->opt.hello;
    hello.base = init.base;
    hello.version = p->opt.version;
    hello.version_min = p->opt.version_min;
    hello.capabilities = (char **)capabilities; /* protobuf-c reads only */
    hello.n_capabilities = sizeof capabilities / sizeof capabilities[0];
    if (p->opt.address == NULL) { /* the dialler alone says what a connection is for */
        hello.lane = WEFT__LANE__LANE_NONE;
        hello.epoch = NULL;
        hello.stage = 0;
    }
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    env.body_case = WEFT__ENVELOPE__BODY_HELLO;
    env.hello = &hello;
    return send_now(p, &env, NULL, 0);
}

/* ------------------------------------------------------------------ down */

/* Forgets the connection, which the caller has closed or seen closed. */
static void forget(struct weft_peer *p)
{
    p->io->timer_stop(p->io, &p->timer);
    weft_frame_free(p->hello_frame);
    p->hello_frame = NULL;
    p->hello = NULL;
    p->conn = NULL;
    p->paused = false;
    p->state = WEFT_PEER_DOWN;
}

static uint64_t backoff_ns(struct weft_peer *p)
{
    uint64_t ms = REDIAL_FIRST_MS;
    for (uint32_t i = 0; i < p->tries && ms < REDIAL_MAX_MS; i++)
        ms *= 2;
    if (ms > REDIAL_MAX_MS)
        ms = REDIAL_MAX_MS;
    /* [0.5, 1.5): machines that lost the same peer do not come back at once */
    const uint64_t span_ns = ms * NS_PER_MS;
    return span_ns / 2 + p->io->random(p->io) % span_ns;
}

/* What another try may cure. A refusal or another protocol stays. */
static bool worth_redial(int code)
{
    return code == WEFT_EUNREACHABLE || code == WEFT_ELOST || code == WEFT_ELATE ||
           code == WEFT_ENOMEM || code == WEFT_EIO;
}

/* The connection is gone. Dials again if asked to; tells an owner who thought it up, or the end. */
static void lost(struct weft_peer *p, const weft_err *why)
{
    const bool was_up = p->state == WEFT_PEER_UP;
    forget(p);
    const bool again = p->opt.address != NULL && worth_redial(why->code) &&
                       (p->opt.redials == UINT32_MAX || p->tries < p->opt.redials);
    if (again) {
        p->state = WEFT_PEER_DIALLING;
        timer_start(p, backoff_ns(p));
        p->tries += p->tries != UINT32_MAX;
    }
    if ((was_up || !again) && p->opt.events->down != NULL)
        p->opt.events->down(p, why);
}

/* Ends the connection for a reason of ours, which the other side is told. */
static void fail(struct weft_peer *p, const weft_err *why)
{
    send_fault(p, why);
    p->io->close(p->io, p->conn, true);
    lost(p, why);
}

/* ------------------------------------------------------------------ greeting */

static bool name_valid(const char *name)
{
    const size_t n = strlen(name);
    if (n == 0 || n > WEFT_NAME_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] <= ' ' || name[i] > '~') /* visible ASCII: names stand in logs and file names */
            return false;
    return true;
}

/* Agrees on a version and checks the rest of the other side's Hello. */
static int check_hello(struct weft_peer *p, const Weft__Hello *h, weft_err *err)
{
    const uint32_t version = p->opt.version, version_min = p->opt.version_min;
    if (!name_valid(h->name))
        return weft_fail(err, WEFT_EPROTOCOL,
                         "%s: Hello with a bad name, expected 1 to %u visible characters", who(p),
                         WEFT_NAME_MAX);
    if (h->version == 0 || h->version_min > h->version)
        return weft_fail(err, WEFT_EPROTOCOL, "%s: Hello with protocol versions %u..%u", h->name,
                         h->version_min, h->version);
    const uint32_t common = h->version < version ? h->version : version;
    if (common < h->version_min || common < version_min)
        return weft_fail(err, WEFT_EVERSION,
                         "%s speaks protocol %u..%u, %s speaks %u..%u: update weft on %s", h->name,
                         h->version_min, h->version, p->opt.hello.name, version_min, version,
                         h->version < version ? h->name : p->opt.hello.name);
    if (p->opt.address == NULL && h->lane == WEFT__LANE__LANE_NONE)
        return weft_fail(err, WEFT_EPROTOCOL, "%s: Hello without a lane", h->name);
    p->version = common;
    return 0;
}

/* The first frame of the other side; takes f. */
static void greet(struct weft_peer *p, struct weft_frame *f)
{
    weft_err err = {0};
    if (f->env->body_case == WEFT__ENVELOPE__BODY_FAULT) {
        weft_fault_err(f->env->fault, who(p), &err);
        weft_frame_free(f);
        p->io->close(p->io, p->conn, false);
        /* its word is final, whatever the code: more tries would be refused as well */
        p->tries = p->opt.redials = 0;
        lost(p, &err);
        return;
    }
    int r;
    if (f->env->body_case == WEFT__ENVELOPE__BODY_HELLO)
        r = check_hello(p, f->env->hello, &err);
    else
        r = weft_fail(&err, WEFT_EPROTOCOL, "%s: found %s, expected Hello first", who(p),
                      weft_body_name(f->env->body_case));
    if (r < 0) {
        weft_frame_free(f);
        fail(p, &err);
        return;
    }
    p->hello_frame = f;
    p->hello = f->env->hello;
    if (p->opt.address == NULL && send_hello(p) < 0) {
        weft_fail(&err, WEFT_ELOST, "%s: lost while greeting", who(p));
        p->io->close(p->io, p->conn, false);
        lost(p, &err);
        return;
    }
    p->state = WEFT_PEER_UP;
    p->tries = 0;
    timer_start(p, (uint64_t)p->opt.ping_ms * NS_PER_MS);
    if (p->opt.events->up != NULL)
        p->opt.events->up(p);
}

/* ------------------------------------------------------------------ events of the connection */

static void start_greeting(struct weft_peer *p)
{
    p->state = WEFT_PEER_GREETING;
    p->last_received_ns = p->last_sent_ns = p->io->now_ns(p->io);
    timer_start(p, (uint64_t)GREETING_MS * NS_PER_MS);
}

static void on_opened(void *arg, struct weft_conn *c)
{
    struct weft_peer *p = arg;
    start_greeting(p);
    if (send_hello(p) < 0) {
        weft_err err = {0};
        weft_fail(&err, WEFT_ELOST, "%s: lost while greeting", who(p));
        p->io->close(p->io, c, false);
        lost(p, &err);
    }
}

static void on_frame(void *arg, struct weft_conn *c, struct weft_frame *f)
{
    (void)c;
    struct weft_peer *p = arg;
    p->last_received_ns = p->io->now_ns(p->io);
    if (p->state != WEFT_PEER_UP) {
        greet(p, f);
    } else if (f->env->body_case == WEFT__ENVELOPE__BODY_PING) {
        weft_frame_free(f);
    } else if (f->env->body_case == WEFT__ENVELOPE__BODY_HELLO) {
        weft_err err = {0};
        weft_frame_free(f);
        weft_fail(&err, WEFT_EPROTOCOL, "%s: found a second Hello", who(p));
        fail(p, &err);
    } else if (p->opt.events->frame != NULL) {
        p->opt.events->frame(p, f);
    } else {
        weft_frame_free(f);
    }
}

static void on_writable(void *arg, struct weft_conn *c)
{
    (void)c;
    struct weft_peer *p = arg;
    if (p->state == WEFT_PEER_UP && p->opt.events->writable != NULL)
        p->opt.events->writable(p);
}

static void on_closed(void *arg, struct weft_conn *c, const weft_err *why)
{
    (void)c;
    lost(arg, why);
}

static const struct weft_conn_events conn_events = {
    .opened = on_opened, .frame = on_frame, .writable = on_writable, .closed = on_closed};

/* ------------------------------------------------------------------ timer */

static void heartbeat(struct weft_peer *p)
{
    const uint64_t now = p->io->now_ns(p->io);
    const uint64_t ping_ns = (uint64_t)p->opt.ping_ms * NS_PER_MS;
    const uint64_t dead_ns = (uint64_t)p->opt.dead_ms * NS_PER_MS;
    if (!p->paused && now - p->last_received_ns >= dead_ns) {
        /* A timer much too late means that this process stood still, not the other side: what it
         * sent waits in the socket. Once more. */
        if (now - p->due_ns < ping_ns) {
            weft_err err = {0};
            weft_fail(&err, WEFT_ELOST, "%s: no sign of life for %u ms", who(p), p->opt.dead_ms);
            p->io->close(p->io, p->conn, false);
            lost(p, &err);
            return;
        }
        p->last_received_ns = now - dead_ns + ping_ns;
    }
    if (now - p->last_sent_ns >= ping_ns) {
        Weft__Ping ping = WEFT__PING__INIT;
        Weft__Envelope env = WEFT__ENVELOPE__INIT;
        env.body_case = WEFT__ENVELOPE__BODY_PING;
        env.ping = &ping;
        /* FULL: frames enough are on their way; LOST: `closed` follows */
        (void)send_now(p, &env, NULL, 0);
        p->last_sent_ns = now;
    }
    uint64_t next = p->last_sent_ns + ping_ns;
    if (!p->paused && p->last_received_ns + dead_ns < next)
        next = p->last_received_ns + dead_ns;
    timer_start(p, next - now);
}

static void on_timer(struct weft_timer *t)
{
    struct weft_peer *p = t->owner;
    if (p->state == WEFT_PEER_UP) {
        heartbeat(p);
    } else if (p->state == WEFT_PEER_GREETING) {
        weft_err err = {0};
        weft_fail(&err, WEFT_ELATE, "%s: no Hello for %u ms: does weft run there?", who(p),
                  GREETING_MS);
        p->io->close(p->io, p->conn, false);
        lost(p, &err);
    } else if (p->state == WEFT_PEER_DIALLING) {
        weft_err err = {0};
        if (!dial(p)) {
            weft_fail(&err, WEFT_ENOMEM, "%s: dial: out of memory", who(p));
            lost(p, &err);
        }
    }
}

/* ------------------------------------------------------------------ public */

static void init(struct weft_peer *p, struct weft_io *io, const struct weft_peer_options *opt)
{
    *p = (struct weft_peer){.io = io, .opt = *opt};
    if (p->opt.dial_timeout_ms == 0)
        p->opt.dial_timeout_ms = DIAL_TIMEOUT_MS;
    if (p->opt.ping_ms == 0)
        p->opt.ping_ms = PING_MS;
    if (p->opt.dead_ms == 0)
        p->opt.dead_ms = DEAD_MS;
    if (p->opt.version == 0) {
        p->opt.version = WEFT_PROTOCOL_VERSION;
        p->opt.version_min = WEFT_PROTOCOL_VERSION_MIN;
    }
    p->timer = (struct weft_timer){.fire = on_timer, .owner = p};
}

/* False: out of memory. */
static bool dial(struct weft_peer *p)
{
    p->state = WEFT_PEER_DIALLING;
    p->conn = p->io->dial(p->io, p->opt.address, p->opt.dial_timeout_ms, &conn_events, p);
    return p->conn != NULL;
}

void weft_peer_dial(struct weft_peer *p, struct weft_io *io, const struct weft_peer_options *opt)
{
    init(p, io, opt);
    if (!dial(p)) /* `down` must not come before this returns: the timer tries again and tells */
        timer_start(p, backoff_ns(p));
}

void weft_peer_accept(struct weft_peer *p, struct weft_io *io, struct weft_conn *c,
                      const struct weft_peer_options *opt)
{
    init(p, io, opt);
    p->opt.address = NULL;
    p->conn = c;
    io->events(io, c, &conn_events, p);
    start_greeting(p);
}

int weft_peer_send(struct weft_peer *p, const Weft__Envelope *env, const void *payload,
                   uint32_t payload_size)
{
    return p->state == WEFT_PEER_UP ? send_now(p, env, payload, payload_size) : -WEFT_ELOST;
}

void weft_peer_pause(struct weft_peer *p, bool pause)
{
    if (p->conn == NULL || p->paused == pause)
        return;
    p->paused = pause;
    p->last_received_ns = p->io->now_ns(p->io); /* the silence so far was ours */
    p->io->pause(p->io, p->conn, pause);
}

void weft_peer_refuse(struct weft_peer *p, int code, const char *fmt, ...)
{
    weft_err why = {.code = code};
    va_list args;
    va_start(args, fmt);
    vsnprintf(why.text, sizeof why.text, fmt, args);
    va_end(args);
    why.text[weft_utf8_prefix(why.text, strlen(why.text))] = '\0';
    if (p->conn != NULL && p->state != WEFT_PEER_DIALLING)
        send_fault(p, &why);
    weft_peer_close(p, true);
}

void weft_peer_close(struct weft_peer *p, bool flush)
{
    if (p->io == NULL) /* zeroed: never dialled */
        return;
    if (p->conn != NULL)
        p->io->close(p->io, p->conn, flush && p->state != WEFT_PEER_DIALLING);
    forget(p);
}

bool weft_peer_can(const struct weft_peer *p, const char *capability)
{
    for (size_t i = 0; p->hello != NULL && i < p->hello->n_capabilities; i++)
        if (strcmp(p->hello->capabilities[i], capability) == 0)
            return true;
    return false;
}
