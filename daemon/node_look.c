/*
 * Node: what needs no lease: Status, the probe of the machine, the measuring of a link.
 *
 * Invariant: the machine is measured only while nobody holds the lease and somebody waits for the
 * result; one link is measured at a time, further requests wait in order.
 */
#include "daemon/node_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* Measuring a link: small frames for the latency, large ones for the rate; each kind ends at its
 * count or its time, so that a slow link takes no longer than a fast one. */
#define ECHO_SMALL 32u
#define ECHO_LARGE 4u
#define ECHO_SMALL_NS (500 * NS_PER_MS)
#define ECHO_LARGE_NS (1500 * NS_PER_MS)
#define ECHO_TOO_LATE_NS (6 * NS_PER_S) /* the whole measurement; dialling included */

/* ------------------------------------------------------------------ status */

uint64_t node_free_bytes(struct weft_node *n, const struct weft_look *look)
{
    uint64_t used = weft_store_bytes(n->store);
    if (n->epoch != NULL)
        used += n->epoch->stage_bytes;
    uint64_t below_cap = look->cap_bytes > used ? look->cap_bytes - used : 0;
    return look->available_bytes < below_cap ? look->available_bytes : below_cap;
}

static uint64_t probe_age_s(const struct weft_node *n)
{
    return n->probe_old_s + (n->io->now_ns(n->io) - n->probe_ns) / NS_PER_S;
}

static void answer_status(struct node_peer *p, uint32_t request)
{
    struct weft_node *n = p->node;
    Weft__Status s = WEFT__STATUS__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    struct weft_look look = {0};
    uint64_t now = n->io->now_ns(n->io), shards = weft_store_bytes(n->store);
    const struct weft_model *m = weft_store_model(n->store);
    n->opt.look(n->opt.arg, &look);

    s.request = request;
    s.name = (char *)n->opt.name;
    s.software = (char *)"weft " WEFT_VERSION;
    s.isa = (char *)wk_table_name(n->opt.engine.table);
    s.threads = wk_pool_threads(n->opt.engine.pool);
    s.cpu = (char *)n->opt.cpu;
    s.boot_id = (char *)n->opt.boot_id;
    s.memory_total_bytes = look.total_bytes;
    /* Shards in memory make room for those of a plan, or are part of it. */
    s.memory_free_bytes = node_free_bytes(n, &look) + shards;
    s.machine_free_bytes = look.machine_bytes + shards;
    s.probed = n->probed;
    if (n->probed) {
        s.bytes_per_s = n->probe.bytes_per_s;
        s.flops_per_s = n->probe.flops_per_s;
        s.stage_ns = n->probe.stage_ns;
        s.probe_age_s = probe_age_s(n);
    }
    s.holder = (char *)weft_node_holder(n);
    if (n->lease.coordinator != 0)
        s.held_s = (now - n->lease.since_ns) / NS_PER_S;
    s.has_temperature = look.has_temperature;
    s.temperature_millidegrees = look.temperature_millidegrees;
    if (m != NULL) {
        s.model_id0 = m->id[0];
        s.model_id1 = m->id[1];
    }
    s.shard_bytes = shards;
    s.uptime_s = (now - n->opened_ns) / NS_PER_S;
    s.state = (char *)weft_node_state_name(weft_node_state(n));
    env.body_case = WEFT__ENVELOPE__BODY_STATUS;
    env.status = &s;
    node_answer(p, &env);
}

/* ------------------------------------------------------------------ probe */

static void probe_answer_all(struct weft_node *n)
{
    n->probing = false;
    for (uint32_t i = 0; i < NODE_PEERS; i++) {
        struct node_peer *p = &n->peers[i];
        if (!p->used || !p->asked)
            continue;
        p->asked = false;
        answer_status(p, p->status_request);
    }
}

static void probe_trip_done(struct weft_work *w);

static void probe_trip(struct weft_work *w)
{
    (void)w; /* the way there and back is what is measured */
}

static void probe_trip_start(struct weft_node *n)
{
    n->probe_trip_ns = n->io->now_ns(n->io);
    n->probe_work = (struct weft_work){.run = probe_trip, .done = probe_trip_done, .owner = n};
    node_work(n, &n->probe_work);
}

/* Sorts one more trip in. */
static void probe_trip_add(struct weft_node *n, uint64_t ns)
{
    uint32_t i = n->probe_trips++;
    for (; i > 0 && n->probe_trip[i - 1] > ns; i--)
        n->probe_trip[i] = n->probe_trip[i - 1];
    n->probe_trip[i] = ns;
}

static void probe_trip_done(struct weft_work *w)
{
    struct weft_node *n = w->owner;
    node_work_back(n);
    if (n->lease.coordinator != 0 || n->closing) { /* others' work would be measured with it */
        probe_answer_all(n);
        node_settle(n);
        return;
    }
    probe_trip_add(n, n->io->now_ns(n->io) - n->probe_trip_ns);
    if (n->probe_trips < NODE_PROBE_TRIPS) {
        probe_trip_start(n);
        return;
    }
    n->probe = n->probe_new;
    n->probe.stage_ns = n->probe_trip[n->probe_trips / 2];
    n->probed = true;
    n->probe_ns = n->io->now_ns(n->io);
    n->probe_old_s = 0;
    node_log(n, WEFT_LOG_INFO, "probed", WEFT_U64("bytes_per_s", n->probe.bytes_per_s),
             WEFT_U64("flops_per_s", n->probe.flops_per_s),
             WEFT_U64("stage_ns", n->probe.stage_ns));
    if (n->opt.measured != NULL)
        n->opt.measured(n->opt.arg, &n->probe);
    probe_answer_all(n);
    node_settle(n);
}

static void probe_run(struct weft_work *w)
{
    struct weft_node *n = w->owner;
    n->probe_result = n->opt.measure(n->opt.arg, &n->probe_new, &n->probe_err);
}

static void probe_done(struct weft_work *w)
{
    struct weft_node *n = w->owner;
    node_work_back(n);
    if (n->probe_result < 0) {
        node_log(n, WEFT_LOG_WARN, "probe-failed", WEFT_ERR(&n->probe_err));
        probe_answer_all(n); /* without figures */
    } else if (!n->closing) {
        n->probe_trips = 0;
        probe_trip_start(n);
    }
    node_settle(n);
}

void node_status(struct node_peer *p, const Weft__StatusRequest *rq)
{
    struct weft_node *n = p->node;
    bool fresh = n->probed && probe_age_s(n) <= WEFT_NODE_PROBE_AGE_S;
    bool idle = n->lease.coordinator == 0 && n->epoch == NULL && n->dying == NULL && !n->draining;
    if (!rq->probe || fresh || !idle || p->asked || n->opt.measure == NULL) {
        answer_status(p, rq->request);
        return;
    }
    p->asked = true;
    p->status_request = rq->request;
    if (n->probing)
        return;
    n->probing = true;
    n->probe_err = (weft_err){0};
    n->probe_work = (struct weft_work){.run = probe_run, .done = probe_done, .owner = n};
    node_work(n, &n->probe_work);
}

/* ------------------------------------------------------------------ measuring a link */

static void link_next(struct weft_node *n);

static void link_shift(struct weft_node *n)
{
    n->io->timer_stop(n->io, &n->link_timer);
    free(n->echo_payload);
    n->echo_payload = NULL;
    n->n_link_requests--;
    memmove(n->link_requests, n->link_requests + 1,
            n->n_link_requests * sizeof n->link_requests[0]);
    link_next(n);
}

/* The link is closed already or by the caller. */
static void link_failed(struct weft_node *n, const weft_err *why)
{
    struct node_link_request *rq = &n->link_requests[0];
    weft_err text = *why;
    weft_err_prefix(&text, "%s: link to %s at %s", n->opt.name, rq->name, rq->address);
    if (rq->asker != NULL)
        node_deny(rq->asker, rq->request, &text);
    link_shift(n);
}

static void link_late(struct weft_timer *t)
{
    struct weft_node *n = t->owner;
    struct node_peer *link = n->link;
    weft_err why = {0};
    (void)weft_fail(&why, WEFT_ELATE, "not measured within %u s",
                    (unsigned)(ECHO_TOO_LATE_NS / NS_PER_S));
    n->link = NULL;
    node_drop(link, false);
    link_failed(n, &why);
    node_settle(n);
}

/* Dials for the request at the head of the queue; those whose asker has gone are left out. */
static void link_next(struct weft_node *n)
{
    weft_err why = {0};
    while (n->n_link_requests > 0 && n->link_requests[0].asker == NULL) {
        n->n_link_requests--;
        memmove(n->link_requests, n->link_requests + 1,
                n->n_link_requests * sizeof n->link_requests[0]);
    }
    if (n->n_link_requests == 0 || n->closing || n->farewell)
        return;
    struct node_peer *p = node_slot(n, true);
    n->echo_payload = calloc(1, WEFT_PAYLOAD_MAX);
    if (p == NULL || n->echo_payload == NULL) {
        if (p != NULL)
            p->used = false;
        (void)weft_fail(&why, WEFT_ENOMEM, "no room to measure it");
        link_failed(n, &why);
        return;
    }
    memcpy(p->address, n->link_requests[0].address, sizeof p->address);
    memcpy(p->name, n->link_requests[0].name, sizeof p->name);
    n->link = p;
    n->link_timer = (struct weft_timer){.fire = link_late, .owner = n};
    n->io->timer_start(n->io, &n->link_timer, ECHO_TOO_LATE_NS);
    node_dial(p, WEFT__LANE__LANE_PROBE, NULL, 0);
}

void node_link_request(struct node_peer *p, const Weft__LinkRequest *rq)
{
    struct weft_node *n = p->node;
    weft_err why = {0};
    size_t len = strlen(rq->address), name_len = strlen(rq->name);
    if (len == 0 || len >= NODE_ADDRESS_MAX || name_len > WEFT_NAME_MAX) {
        (void)weft_fail(&why, WEFT_EPROTOCOL, "LinkRequest: an address of %zu bytes, a name of %zu",
                        len, name_len);
        node_deny(p, rq->request, &why);
        return;
    }
    if (n->n_link_requests == WEFT_NODE_LINK_REQUESTS_MAX || n->draining) {
        (void)weft_fail(&why, n->draining ? WEFT_ESTATE : WEFT_ELIMIT, "%s: %s", n->opt.name,
                        n->draining ? "shutting down" : "too many links to measure");
        node_deny(p, rq->request, &why);
        return;
    }
    struct node_link_request *r = &n->link_requests[n->n_link_requests++];
    *r = (struct node_link_request){.asker = p, .request = rq->request};
    memcpy(r->address, rq->address, len + 1);
    memcpy(r->name, rq->name, name_len + 1);
    if (n->n_link_requests == 1)
        link_next(n);
}

/* Sends Echo number echo_number: the first ECHO_SMALL are empty. */
static void echo_send(struct weft_node *n)
{
    Weft__Echo echo = WEFT__ECHO__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    echo.number = n->echo_number;
    env.body_case = WEFT__ENVELOPE__BODY_ECHO;
    env.echo = &echo;
    n->echo_sent_ns = n->io->now_ns(n->io);
    /* One frame is under way at a time, so there is room; a lost link is told by `down`. */
    (void)!weft_peer_send(&n->link->peer, &env, n->echo_payload,
                          n->echo_number < ECHO_SMALL ? 0 : WEFT_PAYLOAD_MAX);
}

void node_link_up(struct weft_node *n)
{
    n->echo_number = 0;
    n->echo_small_ns = n->echo_big_ns = UINT64_MAX;
    n->echo_start_ns = n->io->now_ns(n->io);
    echo_send(n);
}

static void link_report(struct weft_node *n)
{
    struct node_link_request *rq = &n->link_requests[0];
    Weft__LinkReport report = WEFT__LINK_REPORT__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    uint64_t more = n->echo_big_ns > n->echo_small_ns ? n->echo_big_ns - n->echo_small_ns : 1;
    report.request = rq->request;
    report.latency_ns = n->echo_small_ns / 2;
    /* The payload goes both ways, one after the other. */
    report.bytes_per_s =
        (uint64_t)((double)(2u * WEFT_PAYLOAD_MAX) * (double)NS_PER_S / (double)more);
    env.body_case = WEFT__ENVELOPE__BODY_LINK_REPORT;
    env.link_report = &report;
    node_log(n, WEFT_LOG_INFO, "link", WEFT_STR("to", rq->name),
             WEFT_U64("latency_ns", report.latency_ns),
             WEFT_U64("bytes_per_s", report.bytes_per_s));
    struct node_peer *link = n->link;
    n->link = NULL;
    node_drop(link, false);
    if (rq->asker != NULL)
        node_answer(rq->asker, &env);
    link_shift(n);
}

/* Our Echo came back. */
static void echo_back(struct weft_node *n, const Weft__Echo *echo)
{
    if (!echo->reply || echo->number != n->echo_number)
        return;
    uint64_t now = n->io->now_ns(n->io), trip = now - n->echo_sent_ns;
    bool small = n->echo_number < ECHO_SMALL;
    uint64_t *least = small ? &n->echo_small_ns : &n->echo_big_ns;
    if (trip < *least)
        *least = trip;
    n->echo_number++;
    bool over = now - n->echo_start_ns > (small ? ECHO_SMALL_NS : ECHO_LARGE_NS);
    if (small && over)
        n->echo_number = ECHO_SMALL;
    if (small && n->echo_number == ECHO_SMALL)
        n->echo_start_ns = now;
    if (!small && (over || n->echo_number == ECHO_SMALL + ECHO_LARGE))
        link_report(n);
    else
        echo_send(n);
}

void node_echo(struct node_peer *p, struct weft_frame *f)
{
    const Weft__Echo *echo = f->env->echo;
    if (p->dialled) {
        if (p == p->node->link)
            echo_back(p->node, echo);
        return;
    }
    Weft__Echo reply = WEFT__ECHO__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    reply.number = echo->number;
    reply.reply = true;
    env.body_case = WEFT__ENVELOPE__BODY_ECHO;
    env.echo = &reply;
    if (!echo->reply) /* one that does not read gets no more: the frame is dropped */
        (void)!weft_peer_send(&p->peer, &env, f->payload, f->payload_size);
}

void node_link_down(struct weft_node *n, const weft_err *why)
{
    n->link = NULL;
    link_failed(n, why);
}

void node_look_gone(struct node_peer *p)
{
    struct weft_node *n = p->node;
    p->asked = false;
    for (uint32_t i = 0; i < n->n_link_requests; i++)
        if (n->link_requests[i].asker == p)
            n->link_requests[i].asker = NULL;
}

void node_look_close(struct weft_node *n)
{
    n->io->timer_stop(n->io, &n->link_timer);
    free(n->echo_payload);
}
