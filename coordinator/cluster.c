/*
 * Cluster: peers and phases. See cluster.h; the phases' contents are in cluster_gather.c and
 * cluster_deploy.c, sessions in session.c.
 *
 * A phase asks devices and ends when none of them owes an answer any more. Every question has a
 * deadline.
 */
#include "coordinator/cluster_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MS_DEFAULT 10000u
/* Releasing is a courtesy: daemons notice the end of the connection anyway. */
#define RELEASE_MS 1000u
/* Loading waits so many times longer: some 8 MiB may lie in queues between here and a daemon, which
 * a bad Wi-Fi takes half a minute for. A dead daemon is noticed by its heartbeat all the same. */
#define LOAD_TIMES 6u

static const char *const phase_names[PHASE_COUNT] = {
    [PHASE_IDLE] = "nothing",    [PHASE_DIAL] = "Hello",         [PHASE_STATUS] = "StatusRequest",
    [PHASE_PROBE] = "a probe",   [PHASE_LINKS] = "LinkRequest",  [PHASE_ACQUIRE] = "Acquire",
    [PHASE_DEPLOY] = "Deploy",   [PHASE_LOAD] = "its shards",    [PHASE_CONNECT] = "Connect",
    [PHASE_RESULTS] = "results", [PHASE_STATS] = "StatsRequest", [PHASE_RELEASE] = "Release",
};

static bool gathering(const struct weft_cluster *c)
{
    return c->phase >= PHASE_DIAL && c->phase <= PHASE_LINKS;
}

const char *weft_device_name(const struct device *d)
{
    return d->cluster->opt.devices[d->index].name;
}

struct device *weft_stage_device(struct weft_cluster *c, uint32_t stage)
{
    return &c->devices[c->stages[stage].device];
}

/* ------------------------------------------------------------------ questions and answers */

static uint64_t patience_ms(const struct weft_cluster *c)
{
    if (c->phase == PHASE_RELEASE)
        return RELEASE_MS;
    return (uint64_t)c->opt.answer_ms * (c->phase == PHASE_LOAD ? LOAD_TIMES : 1);
}

static void deadline_passed(struct weft_timer *t)
{
    struct device *d = t->owner;
    struct weft_cluster *c = d->cluster;
    weft_err why = {0};
    (void)weft_fail(&why, WEFT_ELATE, "%s (%s): no answer to %s within %.3g s", weft_device_name(d),
                    c->opt.devices[d->index].address, phase_names[c->phase],
                    (double)patience_ms(c) / 1000);
    weft_device_failed(d, &why);
}

void weft_device_patience(struct device *d)
{
    struct weft_cluster *c = d->cluster;
    c->io->timer_start(c->io, &d->deadline, patience_ms(c) * 1000000u);
}

void weft_device_ask(struct device *d, Weft__Envelope *env, uint32_t *request,
                     Weft__Envelope__BodyCase awaiting)
{
    struct weft_cluster *c = d->cluster;
    d->request = ++c->requests;
    if (request != NULL)
        *request = d->request;
    d->asked = true;
    d->awaiting = awaiting;
    weft_device_patience(d);
    int r = weft_peer_send(&d->control, env, NULL, 0);
    if (r < 0) {
        weft_err why = {0};
        (void)weft_fail(&why, -r, "%s: cannot send %s", weft_device_name(d),
                        weft_body_name(env->body_case));
        weft_device_failed(d, &why);
    }
}

void weft_device_answered(struct device *d)
{
    d->awaiting = WEFT__ENVELOPE__BODY__NOT_SET;
    d->cluster->io->timer_stop(d->cluster->io, &d->deadline);
}

/* The plan is broken after it was deployed: sessions fail with the reason, then the owner is told.
 */
static void cluster_broken(struct weft_cluster *c, const weft_err *why)
{
    if (!c->ready)
        return;
    c->ready = false;
    weft_sessions_fail(c, why);
    if (c->opt.broken != NULL)
        c->opt.broken(c->opt.arg, why);
}

static int send_release(struct device *d, uint32_t request)
{
    Weft__Release release = WEFT__RELEASE__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    release.request = request;
    env.body_case = WEFT__ENVELOPE__BODY_RELEASE;
    env.release = &release;
    return weft_peer_send(&d->control, &env, NULL, 0);
}

void weft_device_failed(struct device *d, const weft_err *why)
{
    struct weft_cluster *c = d->cluster;
    weft_err reason = *why; /* `why` may lie in the peer that is closed below */
    bool owed = d->awaiting != WEFT__ENVELOPE__BODY__NOT_SET;
    weft_device_answered(d);
    if (c->phase == PHASE_LINKS && owed &&
        d->control_open) { /* the pair stays unknown; the device itself is fine */
        weft_cluster_advance(c);
        return;
    }
    if (d->control_open) {
        if (d->held)
            (void)!send_release(d, ++c->requests); /* it may only be slow: others shall not wait */
        weft_peer_close(&d->control, true);
        d->control_open = false;
    }
    if (d->weights_open) {
        weft_peer_close(&d->weights, false);
        d->weights_open = false;
    }
    d->held = false;
    d->status.reachable = false;
    d->status.why = reason;
    if (gathering(c) || c->phase == PHASE_RELEASE) {
        weft_cluster_advance(c);
        return;
    }
    if (!d->used)
        return;
    if (c->phase != PHASE_IDLE)
        weft_cluster_end_phase(c, &reason);
    cluster_broken(c, &reason);
}

/* ------------------------------------------------------------------ control peers */

static void control_up(struct weft_peer *p)
{
    struct device *d = p->opt.owner;
    d->status.reachable = true;
    d->status.protocol = p->version;
    memset(&d->status.why, 0, sizeof d->status.why);
    if (d->cluster->phase == PHASE_DIAL) {
        weft_device_answered(d);
        weft_cluster_advance(d->cluster);
    }
}

static void control_down(struct weft_peer *p, const weft_err *why)
{
    struct device *d = p->opt.owner;
    weft_err reason = *why;
    weft_err_prefix(&reason, "%s", weft_device_name(d));
    d->control_open = false;
    weft_device_failed(d, &reason);
}

static void control_fault(struct device *d, const Weft__Fault *fault)
{
    weft_err why = {0};
    (void)weft_fault_err(fault, weft_device_name(d), &why);
    if (fault->request != 0 && (fault->request != d->request || d->awaiting == 0))
        return; /* the question is no longer open */
    weft_device_failed(d, &why);
}

static void control_frame(struct weft_peer *p, struct weft_frame *f)
{
    struct device *d = p->opt.owner;
    struct weft_cluster *c = d->cluster;
    const Weft__Envelope *env = f->env;

    if (env->body_case == WEFT__ENVELOPE__BODY_BEGUN ||
        (env->body_case == WEFT__ENVELOPE__BODY_FAULT && env->fault->session != 0)) {
        weft_sessions_control(d, f);
    } else if (env->body_case == WEFT__ENVELOPE__BODY_FAULT) {
        control_fault(d, env->fault);
    } else if (env->body_case == WEFT__ENVELOPE__BODY_RELEASED && c->phase == PHASE_RELEASE) {
        d->held = false;
        weft_device_answered(d);
        weft_cluster_advance(c);
    } else if (env->body_case == WEFT__ENVELOPE__BODY_LOADED && c->phase == PHASE_DEPLOY) {
        weft_deploy_frame(d, f);
    } else if (d->awaiting != env->body_case) {
        /* An answer that came after its deadline, or to a phase that was broken off. */
    } else if (gathering(c)) {
        weft_gather_frame(d, f);
    } else {
        weft_deploy_frame(d, f);
    }
    weft_frame_free(f);
}

static void control_writable(struct weft_peer *p)
{
    struct device *d = p->opt.owner;
    weft_sessions_writable(d->cluster);
}

static const struct weft_peer_events control_events = {
    .up = control_up,
    .frame = control_frame,
    .writable = control_writable,
    .down = control_down,
};

/* Dials every device that is not up; those that are stay. */
static void dial_devices(struct weft_cluster *c)
{
    for (uint32_t i = 0; i < c->opt.n_devices; i++) {
        struct device *d = &c->devices[i];
        if (d->control_open)
            continue;
        struct weft_peer_options po = {
            .events = &control_events,
            .owner = d,
            .address = c->opt.devices[i].address,
            .hello = WEFT__HELLO__INIT,
        };
        po.hello.name = (char *)c->opt.name;
        po.hello.software = (char *)"weft " WEFT_VERSION;
        po.hello.lane = WEFT__LANE__LANE_CONTROL;
        d->control_open = true;
        d->awaiting = WEFT__ENVELOPE__BODY_HELLO;
        d->asked = true;
        weft_device_patience(d);
        weft_peer_dial(&d->control, c->io, &po);
    }
}

/* ------------------------------------------------------------------ phases */

void weft_cluster_begin_phase(struct weft_cluster *c, enum cluster_phase phase)
{
    c->phase = phase;
    for (uint32_t i = 0; i < c->opt.n_devices; i++)
        c->devices[i].asked = false;
}

void weft_cluster_end_phase(struct weft_cluster *c, const weft_err *err)
{
    weft_done_fn *done = c->done;
    void *arg = c->done_arg;
    for (uint32_t i = 0; i < c->opt.n_devices; i++)
        weft_device_answered(&c->devices[i]);
    c->phase = PHASE_IDLE;
    c->done = NULL;
    if (done != NULL)
        done(arg, err);
}

static void close_now(struct weft_timer *t)
{
    struct weft_cluster *c = t->owner;
    void (*closed)(void *) = c->closed;
    void *arg = c->closed_arg;
    weft_deploy_done(c);
    for (uint32_t i = 0; i < c->opt.n_devices; i++) {
        struct device *d = &c->devices[i];
        c->io->timer_stop(c->io, &d->deadline);
        if (d->weights_open)
            weft_peer_close(&d->weights, false);
        if (d->control_open)
            weft_peer_close(&d->control, true);
    }
    free(c->links);
    free(c->devices);
    free(c);
    if (closed != NULL)
        closed(arg);
}

void weft_cluster_advance(struct weft_cluster *c)
{
    if (c->asking)
        return; /* who asks advances at the end */
    for (uint32_t i = 0; i < c->opt.n_devices; i++)
        if (c->devices[i].awaiting != WEFT__ENVELOPE__BODY__NOT_SET)
            return;
    if (gathering(c))
        weft_gather_start(c);
    else if (c->phase == PHASE_RELEASE)
        c->io->timer_start(c->io, &c->closing,
                           0); /* not here: a peer's event may be on the stack */
    else if (c->phase != PHASE_IDLE)
        weft_deploy_start(c);
}

void weft_cluster_gather(struct weft_cluster *c, unsigned what, weft_done_fn *done, void *arg)
{
    c->done = done;
    c->done_arg = arg;
    c->gather = what;
    weft_cluster_begin_phase(c, PHASE_DIAL);
    dial_devices(c);
    weft_cluster_advance(c);
}

void weft_cluster_interrupt(struct weft_cluster *c)
{
    weft_err why = {0};
    if (c->phase == PHASE_IDLE || c->phase == PHASE_RELEASE)
        return;
    (void)weft_fail(&why, WEFT_EINTERRUPTED, "interrupted");
    weft_cluster_end_phase(c, &why);
}

/* ------------------------------------------------------------------ life */

int weft_cluster_open(const struct weft_cluster_options *o, struct weft_cluster **ret,
                      weft_err *err)
{
    if (o->n_devices == 0 || o->n_devices > WEFT_CLUSTER_DEVICES_MAX)
        return weft_fail(err, WEFT_ECONFIG, "a cluster of %u devices: expected 1..%u", o->n_devices,
                         WEFT_CLUSTER_DEVICES_MAX);
    struct weft_cluster *c = calloc(1, sizeof *c);
    struct device *devices = calloc(o->n_devices, sizeof *devices);
    struct weft_link_facts *links = calloc((size_t)o->n_devices * o->n_devices, sizeof *links);
    if (c == NULL || devices == NULL || links == NULL) {
        free(c);
        free(devices);
        free(links);
        return weft_fail(err, WEFT_ENOMEM, "cluster of %u devices", o->n_devices);
    }
    c->io = o->io;
    c->opt = *o;
    if (c->opt.answer_ms == 0)
        c->opt.answer_ms = ANSWER_MS_DEFAULT;
    c->devices = devices;
    c->links = links;
    do
        c->id = o->io->random(o->io);
    while (c->id == 0);
    weft__epoch__init(&c->epoch);
    c->epoch.coordinator = c->id;
    c->closing = (struct weft_timer){.fire = close_now, .owner = c};
    for (uint32_t i = 0; i < o->n_devices; i++) {
        devices[i].cluster = c;
        devices[i].index = i;
        devices[i].deadline = (struct weft_timer){.fire = deadline_passed, .owner = &devices[i]};
        (void)weft_fail(&devices[i].status.why, WEFT_EUNREACHABLE, "%s: not asked yet",
                        o->devices[i].name);
    }
    *ret = c;
    return 0;
}

void weft_cluster_close(struct weft_cluster *c, void (*closed)(void *arg), void *arg)
{
    c->closed = closed;
    c->closed_arg = arg;
    c->done = NULL;
    while (c->sessions != NULL)
        weft_session_close(c->sessions);
    for (uint32_t i = 0; i < c->opt.n_devices; i++)
        weft_device_answered(&c->devices[i]);
    c->ready = false;
    weft_cluster_begin_phase(c, PHASE_RELEASE);
    for (uint32_t i = 0; i < c->opt.n_devices; i++) {
        struct device *d = &c->devices[i];
        if (!d->held || !d->control_open)
            continue;
        d->request = ++c->requests;
        d->awaiting = WEFT__ENVELOPE__BODY_RELEASED;
        weft_device_patience(d);
        if (send_release(d, d->request) < 0)
            weft_device_answered(d);
    }
    weft_cluster_advance(c);
}

const struct weft_device_status *weft_cluster_status(const struct weft_cluster *c, uint32_t device)
{
    return &c->devices[device].status;
}

const struct weft_link_facts *weft_cluster_links(const struct weft_cluster *c)
{
    return c->links;
}

void weft_cluster_facts(const struct weft_cluster *c, uint32_t device,
                        struct weft_device_facts *ret)
{
    const struct weft_device_status *st = &c->devices[device].status;
    uint64_t cap = c->opt.devices[device].memory_cap_bytes;
    *ret = (struct weft_device_facts){
        .memory_free_bytes = st->reachable ? st->memory_free_bytes : 0,
        .machine_free_bytes = st->reachable ? st->machine_free_bytes : 0,
        .bytes_per_s = st->probed ? st->bytes_per_s : 0,
        .flops_per_s = st->probed ? st->flops_per_s : 0,
        .stage_ns = st->probed ? st->stage_ns : 0,
        .unreachable = !st->reachable,
    };
    if (cap != 0 && ret->memory_free_bytes > cap)
        ret->memory_free_bytes = cap;
    snprintf(ret->name, sizeof ret->name, "%s", c->opt.devices[device].name);
    snprintf(ret->boot_id, sizeof ret->boot_id, "%s", st->reachable ? st->boot_id : "");
}

const struct weft_stage_report *weft_cluster_report(const struct weft_cluster *c, uint32_t *ret_n)
{
    *ret_n = c->n_stages;
    return c->report;
}
