/*
 * Node: connections and their lanes, frames to their handlers, drain and close. See node.h and
 * node_private.h.
 */
#include "daemon/node_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S UINT64_C(1000000000)
#define DRAIN_TICK_NS                                                          \
    (50 * UINT64_C(1000000)) /* how often a drain looks whether turns are done \
                              */

static void drain_tick(struct weft_timer *t);

/* ------------------------------------------------------------------ small things */

void node_log_fields(struct weft_node *n, enum weft_log_level level, const char *event,
                     const struct weft_field *fields, size_t count)
{
    if (n->opt.log != NULL)
        n->opt.log(n->opt.arg, level, event, fields, count);
}

const char *node_epoch_text(const Weft__Epoch *id)
{
    static char text[2][48];
    static unsigned turn;
    char *buf = text[turn++ % 2];
    if (id == NULL)
        return "no epoch";
    snprintf(buf, sizeof text[0], "epoch %u of %08" PRIx32, id->counter,
             (uint32_t)(id->coordinator >> 32));
    return buf;
}

const char *node_peer_text(struct node_peer *p)
{
    static char text[WEFT_NAME_MAX + 100];
    const char *address = p->dialled ? p->address : "closed";
    if (!p->dialled && p->peer.conn != NULL)
        address = p->node->io->peer_name(p->node->io, p->peer.conn);
    snprintf(text, sizeof text, "%.*s (%.90s)", (int)WEFT_NAME_MAX,
             p->name[0] != '\0' ? p->name : "unknown", address);
    return text;
}

void node_work(struct weft_node *n, struct weft_work *w)
{
    n->works++;
    n->io->work(n->io, w);
}

void node_work_back(struct weft_node *n)
{
    n->works--;
}

enum weft_node_state weft_node_state(const struct weft_node *n)
{
    if (n->epoch != NULL)
        return n->epoch->phase == NODE_READY ? WEFT_NODE_READY : WEFT_NODE_LOADING;
    if (n->deploy != NULL)
        return WEFT_NODE_LOADING;
    return n->lease.coordinator != 0 ? WEFT_NODE_HELD : WEFT_NODE_IDLE;
}

const char *weft_node_state_name(enum weft_node_state state)
{
    static const char *const names[WEFT_NODE_COUNT] = {
        [WEFT_NODE_IDLE] = "idle",
        [WEFT_NODE_HELD] = "held",
        [WEFT_NODE_LOADING] = "loading",
        [WEFT_NODE_READY] = "ready",
    };
    return state < WEFT_NODE_COUNT ? names[state] : "unknown";
}

const char *weft_node_holder(const struct weft_node *n)
{
    return n->lease.coordinator != 0 ? n->lease.name : "";
}

/* ------------------------------------------------------------------ peers */

static const struct weft_peer_events peer_events;

struct node_peer *node_slot(struct weft_node *n, bool dialled)
{
    uint32_t most = dialled ? NODE_DIALS_MAX : WEFT_NODE_PEERS_MAX;
    struct node_peer *slot = NULL;
    for (uint32_t i = 0; i < NODE_PEERS; i++) {
        struct node_peer *p = &n->peers[(n->next_peer + i) % NODE_PEERS];
        if (p->used && p->dialled == dialled && --most == 0)
            return NULL;
        if (!p->used && slot == NULL)
            slot = p;
    }
    if (slot == NULL)
        return NULL;
    /* In turn, so that a slot rests for a while: its last event may still be on the stack. */
    n->next_peer = (uint32_t)(slot - n->peers + 1) % NODE_PEERS;
    memset(slot, 0, sizeof *slot);
    slot->node = n;
    slot->used = true;
    slot->dialled = dialled;
    return slot;
}

static struct weft_peer_options peer_options(struct node_peer *p)
{
    struct weft_peer_options o = {
        .events = &peer_events,
        .owner = p,
        .hello = WEFT__HELLO__INIT,
    };
    o.hello.name = (char *)p->node->opt.name;
    o.hello.software = (char *)"weft " WEFT_VERSION;
    return o;
}

void node_dial(struct node_peer *p, Weft__Lane lane, const Weft__Epoch *epoch, uint32_t stage)
{
    struct weft_peer_options o = peer_options(p);
    o.address = p->address;
    o.hello.lane = lane;
    o.hello.epoch = (Weft__Epoch *)epoch;
    o.hello.stage = stage;
    p->lane = lane;
    weft_peer_dial(&p->peer, p->node->io, &o);
}

/* Everything that named the peer lets go of it. */
static void gone(struct node_peer *p, const weft_err *why)
{
    struct weft_node *n = p->node;
    p->used = false;
    if (n->lease.control == p) {
        n->lease.control = NULL;
        if (n->lease.coordinator != 0)
            n->io->timer_start(n->io, &n->lease.timer, WEFT_NODE_LEASE_NS);
    }
    if (n->release_peer == p)
        n->release_peer = NULL;
    node_look_gone(p);
    if (p == n->link)
        node_link_down(n, why);
    else
        node_lane_gone(p, why);
}

void node_drop(struct node_peer *p, bool flush)
{
    weft_err why = {0};
    (void)weft_fail(&why, WEFT_ELOST, "closed here");
    weft_peer_close(&p->peer, flush);
    gone(p, &why);
}

void node_dismiss(struct node_peer *p, const weft_err *why)
{
    weft_peer_refuse(&p->peer, why->code, "%s", why->text);
    gone(p, why);
}

void node_refuse(struct node_peer *p, const weft_err *why)
{
    node_log(p->node, WEFT_LOG_WARN, "refused", WEFT_STR("peer", node_peer_text(p)), WEFT_ERR(why));
    node_dismiss(p, why);
}

void node_answer(struct node_peer *p, const Weft__Envelope *env)
{
    weft_err why = {0};
    if (!p->used)
        return;
    if (weft_peer_send(&p->peer, env, NULL, 0) != -WEFT_EFULL)
        return; /* sent; or lost, then `down` comes */
    (void)weft_fail(&why, WEFT_ELIMIT, "%s does not read its answers", node_peer_text(p));
    node_refuse(p, &why);
}

/* Fault: an answer to a request, or about a session, or (neither) about the epoch. */
static void say_no(struct node_peer *p, uint32_t request, uint32_t session, uint32_t turn,
                   const weft_err *why)
{
    Weft__Fault fault = weft_fault_of(why);
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    fault.request = request;
    fault.session = session;
    fault.turn = turn;
    env.body_case = WEFT__ENVELOPE__BODY_FAULT;
    env.fault = &fault;
    node_log(p->node, WEFT_LOG_INFO, "said-no", WEFT_STR("peer", node_peer_text(p)), WEFT_ERR(why));
    node_answer(p, &env);
}

void node_deny(struct node_peer *p, uint32_t request, const weft_err *why)
{
    say_no(p, request, 0, 0, why);
}

void weft_node_accept(struct weft_node *n, struct weft_conn *c)
{
    struct node_peer *p = n->closing || n->farewell ? NULL : node_slot(n, false);
    if (p == NULL) {
        node_log(
            n, WEFT_LOG_WARN, "refused", WEFT_STR("peer", n->io->peer_name(n->io, c)),
            WEFT_STR("text", n->closing || n->farewell ? "shutting down" : "too many connections"));
        n->io->close(n->io, c, false);
        return;
    }
    struct weft_peer_options o = peer_options(p);
    weft_peer_accept(&p->peer, n->io, c, &o);
}

/* ------------------------------------------------------------------ frames */

#define BODY(x) (UINT64_C(1) << WEFT__ENVELOPE__BODY_##x)

/* What may come on a lane that the other side dialled. */
static const uint64_t lane_bodies[] = {
    [WEFT__LANE__LANE_CONTROL] = BODY(STATUS_REQUEST) | BODY(LINK_REQUEST) | BODY(ACQUIRE) |
                                 BODY(RELEASE) | BODY(DEPLOY) | BODY(CONNECT) | BODY(BEGIN) |
                                 BODY(PROMPT) | BODY(ACK) | BODY(CANCEL) | BODY(CLOSE) |
                                 BODY(STATS_REQUEST) | BODY(VOCABULARY) | BODY(FAULT),
    [WEFT__LANE__LANE_WEIGHTS] = BODY(SHARD) | BODY(FAULT),
    [WEFT__LANE__LANE_STEPS] = BODY(STEP) | BODY(TOKEN) | BODY(FAULT),
    [WEFT__LANE__LANE_RESULTS] = BODY(ACK) | BODY(FAULT),
    [WEFT__LANE__LANE_PROBE] = BODY(ECHO) | BODY(FAULT),
};
/* … and on one that we dialled. */
static const uint64_t dialled_bodies[] = {
    [WEFT__LANE__LANE_STEPS] = BODY(FAULT),
    [WEFT__LANE__LANE_PROBE] = BODY(ECHO) | BODY(FAULT),
};

static const char *lane_name(Weft__Lane lane)
{
    static const char *const names[] = {
        [WEFT__LANE__LANE_NONE] = "none",       [WEFT__LANE__LANE_CONTROL] = "control",
        [WEFT__LANE__LANE_WEIGHTS] = "weights", [WEFT__LANE__LANE_STEPS] = "steps",
        [WEFT__LANE__LANE_RESULTS] = "results", [WEFT__LANE__LANE_PROBE] = "probe",
    };
    return (size_t)lane < sizeof names / sizeof names[0] ? names[lane] : "unknown";
}

static bool belongs(const struct node_peer *p, Weft__Envelope__BodyCase body)
{
    const uint64_t *bodies = p->dialled ? dialled_bodies : lane_bodies;
    size_t n = p->dialled ? sizeof dialled_bodies : sizeof lane_bodies;
    return (size_t)p->lane < n / sizeof *bodies && (unsigned)body < 64 &&
           (bodies[p->lane] >> (unsigned)body & 1) != 0;
}

/* Request number and session of the frames that only the holder of the lease may send. */
static bool needs_lease(const Weft__Envelope *env, uint32_t *request, uint32_t *session,
                        uint32_t *turn)
{
    *request = *session = *turn = 0;
    switch (env->body_case) {
    case WEFT__ENVELOPE__BODY_RELEASE:
        *request = env->release->request;
        return true;
    case WEFT__ENVELOPE__BODY_DEPLOY:
        *request = env->deploy->request;
        return true;
    case WEFT__ENVELOPE__BODY_CONNECT:
        *request = env->connect->request;
        return true;
    case WEFT__ENVELOPE__BODY_STATS_REQUEST:
        *request = env->stats_request->request;
        return true;
    case WEFT__ENVELOPE__BODY_BEGIN:
        *session = env->begin->session;
        *turn = env->begin->turn;
        return true;
    case WEFT__ENVELOPE__BODY_PROMPT:
        *session = env->prompt->session;
        *turn = env->prompt->turn;
        return true;
    case WEFT__ENVELOPE__BODY_CANCEL:
        *session = env->cancel->session;
        *turn = env->cancel->turn;
        return true;
    case WEFT__ENVELOPE__BODY_CLOSE:
        *session = env->close->session;
        return true;
    default:
        return false;
    }
}

static const Weft__Epoch *session_epoch(const Weft__Envelope *env, bool *ret_session)
{
    *ret_session = true;
    switch (env->body_case) {
    case WEFT__ENVELOPE__BODY_BEGIN:
        return env->begin->epoch;
    case WEFT__ENVELOPE__BODY_PROMPT:
        return env->prompt->epoch;
    case WEFT__ENVELOPE__BODY_CANCEL:
        return env->cancel->epoch;
    case WEFT__ENVELOPE__BODY_CLOSE:
        return env->close->epoch;
    case WEFT__ENVELOPE__BODY_ACK:
        return env->ack->epoch;
    case WEFT__ENVELOPE__BODY_VOCABULARY:
        return env->vocabulary->epoch;
    default:
        *ret_session = false;
        return NULL;
    }
}

/* Frames of the control lane; *f is set to NULL when it was kept. */
static void control_frame(struct node_peer *p, struct weft_frame **f)
{
    const Weft__Envelope *env = (*f)->env;
    uint32_t request, session, turn;
    weft_err why = {0};
    bool of_session;
    if (needs_lease(env, &request, &session, &turn) && node_lease_check(p, &why) < 0) {
        say_no(p, request, session, turn, &why);
        return;
    }
    const Weft__Epoch *id = session_epoch(env, &of_session);
    if (of_session && node_epoch_check(p->node, id, &why) < 0) {
        if (session != 0) /* an Ack or Vocabulary that comes late needs no answer */
            say_no(p, 0, session, turn, &why);
        return;
    }
    switch (env->body_case) {
    case WEFT__ENVELOPE__BODY_STATUS_REQUEST:
        node_status(p, env->status_request);
        return;
    case WEFT__ENVELOPE__BODY_LINK_REQUEST:
        node_link_request(p, env->link_request);
        return;
    case WEFT__ENVELOPE__BODY_ACQUIRE:
        node_acquire(p, env->acquire);
        return;
    case WEFT__ENVELOPE__BODY_RELEASE:
        node_release(p, env->release);
        return;
    case WEFT__ENVELOPE__BODY_DEPLOY:
        node_deploy(p, f);
        return;
    case WEFT__ENVELOPE__BODY_CONNECT:
        node_connect(p, env->connect);
        return;
    case WEFT__ENVELOPE__BODY_STATS_REQUEST:
        node_stats(p, env->stats_request);
        return;
    case WEFT__ENVELOPE__BODY_BEGIN:
        node_begin(p, f);
        return;
    case WEFT__ENVELOPE__BODY_PROMPT:
        node_prompt(p, *f);
        return;
    case WEFT__ENVELOPE__BODY_CANCEL:
        node_cancel(p, env->cancel);
        return;
    case WEFT__ENVELOPE__BODY_CLOSE:
        node_close_session(p, env->close);
        return;
    case WEFT__ENVELOPE__BODY_ACK:
        if (p->node->lease.control == p)
            node_ack(p, env->ack);
        return;
    case WEFT__ENVELOPE__BODY_VOCABULARY:
        if (p->node->lease.control == p)
            node_vocabulary(p, *f);
        return;
    default:
        return;
    }
}

/* Frames between daemons. What is wrong here breaks the ring: the link is refused and the epoch
 * ends. */
static void steps_frame(struct node_peer *p, struct weft_frame **f)
{
    struct weft_node *n = p->node;
    struct node_epoch *e = n->epoch;
    const Weft__Envelope *env = (*f)->env;
    bool step = env->body_case == WEFT__ENVELOPE__BODY_STEP;
    weft_err why = {0};
    int r = node_epoch_check(n, step ? env->step->epoch : env->token->epoch, &why);
    if (r == 0 && e->phase != NODE_READY)
        r = weft_fail(&why, WEFT_ESTATE, "%s before Ready", weft_body_name(env->body_case));
    if (r == 0 && step == p->stage->embed)
        r = weft_fail(&why, WEFT_EPROTOCOL, "%s for stage %u", weft_body_name(env->body_case),
                      p->stage->index);
    if (r == 0 && step)
        r = node_step_arrived(p->stage, f, &why);
    else if (r == 0)
        r = node_token(p, env->token, &why);
    if (r == 0)
        return;
    weft_err_prefix(&why, "link from %s", node_peer_text(p));
    if (e != NULL)
        node_epoch_fault(e, p->stage, &why);
    node_refuse(p, &why);
}

static void fault_frame(struct node_peer *p, const Weft__Fault *fault)
{
    (void)weft_fault_err(fault, node_peer_text(p), &p->farewell);
    node_log(p->node, WEFT_LOG_INFO, "fault-received", WEFT_STR("lane", lane_name(p->lane)),
             WEFT_ERR(&p->farewell));
}

static void on_frame(struct weft_peer *wp, struct weft_frame *f)
{
    struct node_peer *p = wp->opt.owner;
    struct weft_node *n = p->node;
    Weft__Envelope__BodyCase body = f->env->body_case;
    weft_err why = {0};
    if (!belongs(p, body)) {
        (void)weft_fail(&why, WEFT_EPROTOCOL, "%s does not belong on lane %s%s",
                        weft_body_name(body), lane_name(p->lane),
                        p->dialled ? " in this direction" : "");
        if (p->lane == WEFT__LANE__LANE_STEPS && n->epoch != NULL)
            node_epoch_fault(n->epoch, p->stage, &why);
        node_refuse(p, &why);
    } else if (body == WEFT__ENVELOPE__BODY_FAULT) {
        fault_frame(p, f->env->fault);
    } else if (p->lane == WEFT__LANE__LANE_CONTROL) {
        control_frame(p, &f);
    } else if (p->lane == WEFT__LANE__LANE_WEIGHTS) {
        node_shard(p, &f);
    } else if (p->lane == WEFT__LANE__LANE_STEPS) {
        steps_frame(p, &f);
    } else if (p->lane == WEFT__LANE__LANE_RESULTS) {
        if (node_epoch_check(n, f->env->ack->epoch, &why) == 0)
            node_ack(p, f->env->ack);
    } else {
        node_echo(p, f);
    }
    weft_frame_free(f);
    node_settle(n);
}

/* ------------------------------------------------------------------ the other events of a peer */

static void on_up(struct weft_peer *wp)
{
    struct node_peer *p = wp->opt.owner;
    struct weft_node *n = p->node;
    weft_err why = {0};
    bool ok = true;
    if (!p->dialled) {
        snprintf(p->name, sizeof p->name, "%s", wp->hello->name);
        p->lane = wp->hello->lane;
        if (p->lane == WEFT__LANE__LANE_NONE ||
            (size_t)p->lane >= sizeof lane_bodies / sizeof lane_bodies[0]) {
            (void)weft_fail(&why, WEFT_EPROTOCOL, "Hello for lane %d, which is not known",
                            (int)p->lane);
            ok = false;
        } else if (p->lane != WEFT__LANE__LANE_CONTROL && p->lane != WEFT__LANE__LANE_PROBE) {
            ok = node_lane_greeted(p, &why);
        }
    }
    if (!ok) {
        node_refuse(p, &why);
        node_settle(n);
        return;
    }
    bool control = p->lane == WEFT__LANE__LANE_CONTROL;
    if (!control && !p->dialled) /* bulk comes in; the dialler and lane control notice a loss */
        wp->opt.dead_ms = WEFT_BULK_DEAD_MS;
    node_log(n, control ? WEFT_LOG_INFO : WEFT_LOG_DEBUG, "connected",
             WEFT_STR("peer", node_peer_text(p)), WEFT_STR("lane", lane_name(p->lane)),
             WEFT_U64("version", wp->version));
    if (p->dialled && p == n->link)
        node_link_up(n);
    else if (p->dialled)
        node_step_link_up(p);
    node_settle(n);
}

static void on_writable(struct weft_peer *wp)
{
    struct node_peer *p = wp->opt.owner;
    node_settle(p->node);
}

static void on_down(struct weft_peer *wp, const weft_err *why)
{
    struct node_peer *p = wp->opt.owner;
    struct weft_node *n = p->node;
    /* What the other side said before it closed tells more than the closing. */
    const weft_err cause = p->farewell.code != 0 ? p->farewell : *why;
    bool control = p->lane == WEFT__LANE__LANE_CONTROL;
    node_log(n, control ? WEFT_LOG_INFO : WEFT_LOG_DEBUG, "disconnected",
             WEFT_STR("peer", node_peer_text(p)), WEFT_STR("lane", lane_name(p->lane)),
             WEFT_ERR(&cause));
    weft_peer_close(wp, false);
    gone(p, &cause);
    node_settle(n);
}

static const struct weft_peer_events peer_events = {
    .up = on_up,
    .frame = on_frame,
    .writable = on_writable,
    .down = on_down,
};

/* ------------------------------------------------------------------ settle */

static void node_free(struct weft_node *n)
{
    void (*closed)(void *arg) = n->closed;
    void *arg = n->closed_arg;
    node_look_close(n);
    weft_store_close(n->store);
    free(n);
    if (closed != NULL)
        closed(arg);
}

/* What an event has left to do; the node stays. */
static void settle(struct weft_node *n)
{
    bool again;
    do {
        again = false;
        if (n->epoch != NULL && n->epoch->phase == NODE_READY && !n->epoch->failed) {
            node_sessions_settle(n->epoch);
            node_ring_advance(n->epoch);
        }
        if (n->epoch != NULL && n->epoch->failed)
            node_epoch_end(n);
        if (n->dying != NULL && n->dying->busy == 0) {
            node_epoch_free(n->dying);
            n->dying = NULL;
        }
        if (n->dying == NULL && n->releasing)
            node_released(n);
        if (n->dying == NULL && n->deploy != NULL) {
            node_deploy_waiting(n);
            again = true; /* it may have failed on the spot */
        }
    } while (again);
}

void node_settle(struct weft_node *n)
{
    settle(n);
    if (n->closing && n->works == 0)
        node_free(n);
}

/* ------------------------------------------------------------------ the end */

static void drop_all(struct weft_node *n, bool flush)
{
    for (uint32_t i = 0; i < NODE_PEERS; i++)
        if (n->peers[i].used)
            node_drop(&n->peers[i], flush);
}

/* The last word to the coordinator, then every connection goes. */
static void say_farewell(struct weft_node *n)
{
    weft_err why = {0};
    (void)weft_fail(&why, WEFT_ELOST, "%s is shutting down", n->opt.name);
    n->farewell = true;
    if (n->lease.coordinator != 0) {
        if (n->epoch != NULL)
            node_epoch_fault(n->epoch, NULL, &why);
        else if (n->lease.control != NULL)
            node_dismiss(n->lease.control, &why);
        node_lease_end(n, "shutting down");
    }
    drop_all(n, true);
}

static void drain_tick(struct weft_timer *t)
{
    struct weft_node *n = t->owner;
    uint64_t now = n->io->now_ns(n->io);
    if (!n->farewell &&
        (n->epoch == NULL || !node_sessions_running(n->epoch, now) || now >= n->drain_until_ns))
        say_farewell(n);
    settle(n); /* nothing is freed: a node that closes has stopped this timer */
    if (!n->farewell || n->works > 0) {
        n->io->timer_start(n->io, t, DRAIN_TICK_NS);
        return;
    }
    void (*drained)(void *arg) = n->drained;
    n->drained = NULL;
    if (drained != NULL)
        drained(n->drained_arg); /* may close the node */
}

void weft_node_drain(struct weft_node *n, void (*drained)(void *arg), void *arg)
{
    if (n->draining || n->closing)
        return;
    n->draining = true;
    n->drained = drained;
    n->drained_arg = arg;
    n->drain_until_ns = n->io->now_ns(n->io) + n->opt.drain_ns;
    node_log(n, WEFT_LOG_INFO, "draining", WEFT_STR("holder", weft_node_holder(n)));
    n->io->timer_start(n->io, &n->drain_timer, 0);
}

void weft_node_set_drain(struct weft_node *n, uint64_t drain_ns)
{
    n->opt.drain_ns = drain_ns;
}

void weft_node_close(struct weft_node *n, void (*closed)(void *arg), void *arg)
{
    n->closing = true;
    n->closed = closed;
    n->closed_arg = arg;
    n->io->timer_stop(n->io, &n->drain_timer);
    weft_frame_free(n->deploy);
    n->deploy = NULL;
    n->lease.coordinator = 0;
    node_epoch_end(n);
    drop_all(n, true);
    n->io->timer_stop(n->io, &n->lease.timer);
    node_settle(n);
}

/* ------------------------------------------------------------------ open */

/* Names travel in errors and Hellos: letters, digits, '-', '_', '.'. */
static bool name_ok(const char *name)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t len = strlen(name);
    return len > 0 && len <= WEFT_NAME_MAX && strspn(name, allowed) == len;
}

int weft_node_open(const struct weft_node_options *opt, struct weft_node **ret, weft_err *err)
{
    if (!name_ok(opt->name))
        return weft_fail(err, WEFT_ECONFIG,
                         "name '%.64s': expected 1 to %u letters, digits, '-', '_' or '.'",
                         opt->name, WEFT_NAME_MAX);
    struct weft_node *n = calloc(1, sizeof *n);
    if (n == NULL)
        return weft_fail(err, WEFT_ENOMEM, "node");
    int r = weft_store_open(&n->store, err);
    if (r < 0) {
        free(n);
        return r;
    }
    n->opt = *opt;
    n->io = opt->io;
    n->opened_ns = n->io->now_ns(n->io);
    n->lease.timer = (struct weft_timer){.fire = node_lease_lost, .owner = n};
    n->drain_timer = (struct weft_timer){.fire = drain_tick, .owner = n};
    if (opt->probe != NULL) {
        n->probe = *opt->probe;
        n->probed = true;
        n->probe_ns = n->opened_ns;
        n->probe_old_s = opt->probe_age_s;
    }
    *ret = n;
    return 0;
}
