/*
 * Gathering: status of every device, probes (one daemon of a machine at a time), links pair by
 * pair.
 */
#include "coordinator/cluster_private.h"

#include <stdio.h>
#include <string.h>

static void ask_status(struct device *d, bool probe)
{
    Weft__StatusRequest rq = WEFT__STATUS_REQUEST__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    rq.probe = probe;
    env.body_case = WEFT__ENVELOPE__BODY_STATUS_REQUEST;
    env.status_request = &rq;
    weft_device_ask(d, &env, &rq.request, WEFT__ENVELOPE__BODY_STATUS);
}

/* Daemons of one machine would measure each other: they take turns. */
static bool machine_busy(const struct weft_cluster *c, const struct device *d)
{
    for (uint32_t i = 0; i < c->opt.n_devices; i++) {
        const struct device *o = &c->devices[i];
        if (o != d && o->awaiting != 0 && strcmp(o->status.boot_id, d->status.boot_id) == 0)
            return true;
    }
    return false;
}

static void start_probes(struct weft_cluster *c)
{
    c->asking = true;
    for (uint32_t i = 0; i < c->opt.n_devices; i++) {
        struct device *d = &c->devices[i];
        if (d->status.reachable && !d->asked && !machine_busy(c, d))
            ask_status(d, true);
    }
    c->asking = false;
}

/* Moves (link_from, link_to) to the next pair that can be measured; false at the end. */
static bool next_pair(struct weft_cluster *c)
{
    for (;;) {
        if (++c->link_to >= c->opt.n_devices) {
            if (++c->link_from + 1 >= c->opt.n_devices)
                return false;
            c->link_to = c->link_from + 1;
        }
        if (c->devices[c->link_from].status.reachable && c->devices[c->link_to].status.reachable)
            return true;
    }
}

static void ask_link(struct weft_cluster *c)
{
    struct device *d = &c->devices[c->link_from];
    const struct weft_cluster_device *to = &c->opt.devices[c->link_to];
    Weft__LinkRequest rq = WEFT__LINK_REQUEST__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    rq.address = (char *)to->address;
    rq.name = (char *)to->name;
    env.body_case = WEFT__ENVELOPE__BODY_LINK_REQUEST;
    env.link_request = &rq;
    weft_device_ask(d, &env, &rq.request, WEFT__ENVELOPE__BODY_LINK_REPORT);
}

/* One daemon under two addresses ("localhost" and "127.0.0.1") would be given two shares and count
 * its memory twice. Daemons have no number of their own: the same name, machine and port is one
 * (containers of one machine differ in their names). */
static bool same_daemon(const struct weft_cluster *c, uint32_t a, uint32_t b)
{
    const struct weft_device_status *x = &c->devices[a].status, *y = &c->devices[b].status;
    const char *port_a = strrchr(c->opt.devices[a].address, ':');
    const char *port_b = strrchr(c->opt.devices[b].address, ':');
    return x->reachable && y->reachable && x->boot_id[0] != '\0' && port_a != NULL &&
           port_b != NULL && strcmp(port_a, port_b) == 0 && strcmp(x->name, y->name) == 0 &&
           strcmp(x->boot_id, y->boot_id) == 0;
}

static void refuse_twins(struct weft_cluster *c)
{
    for (uint32_t i = 1; i < c->opt.n_devices; i++) {
        struct device *d = &c->devices[i];
        for (uint32_t k = 0; k < i; k++) {
            if (!same_daemon(c, k, i))
                continue;
            weft_err why = {0};
            (void)weft_fail(&why, WEFT_ECONFIG, "%s: %s is the daemon of %s (%s) too: list it once",
                            weft_device_name(d), c->opt.devices[i].address,
                            weft_device_name(&c->devices[k]), c->opt.devices[k].address);
            weft_device_failed(d, &why);
        }
    }
}

void weft_gather_start(struct weft_cluster *c)
{
    switch (c->phase) {
    case PHASE_DIAL:
        weft_cluster_begin_phase(c, PHASE_STATUS);
        c->asking = true;
        for (uint32_t i = 0; i < c->opt.n_devices; i++)
            if (c->devices[i].status.reachable)
                ask_status(&c->devices[i], false);
        c->asking = false;
        weft_cluster_advance(c);
        return;
    case PHASE_STATUS:
        c->asking = true;
        refuse_twins(c);
        c->asking = false;
        weft_cluster_begin_phase(c, PHASE_PROBE);
        for (uint32_t i = 0; i < c->opt.n_devices; i++) /* what is measured need not be asked */
            c->devices[i].asked = c->devices[i].status.probed || !(c->gather & WEFT_GATHER_PROBE);
        start_probes(c);
        weft_cluster_advance(c);
        return;
    case PHASE_PROBE:
        start_probes(c);
        for (uint32_t i = 0; i < c->opt.n_devices; i++)
            if (c->devices[i].awaiting != 0)
                return;
        weft_cluster_begin_phase(c, PHASE_LINKS);
        c->link_from = 0;
        c->link_to = 0;
        weft_cluster_advance(c);
        return;
    case PHASE_LINKS:
        if ((c->gather & WEFT_GATHER_LINKS) && next_pair(c))
            ask_link(c);
        else
            weft_cluster_end_phase(c, NULL);
        return;
    default:
        return;
    }
}

/* A daemon's words stand on terminals: what is not visible ASCII becomes '?'. */
static void copy(char *to, size_t n, const char *from)
{
    snprintf(to, n, "%s", from);
    for (; *to != '\0'; to++)
        if (*to < ' ' || *to > '~')
            *to = '?';
}

static void take_status(struct device *d, const Weft__Status *s)
{
    struct weft_device_status *st = &d->status;
    copy(st->name, sizeof st->name, s->name);
    copy(st->software, sizeof st->software, s->software);
    copy(st->isa, sizeof st->isa, s->isa);
    copy(st->cpu, sizeof st->cpu, s->cpu);
    copy(st->state, sizeof st->state, s->state);
    copy(st->holder, sizeof st->holder, s->holder);
    copy(st->boot_id, sizeof st->boot_id, s->boot_id);
    st->threads = s->threads;
    st->memory_total_bytes = s->memory_total_bytes;
    st->memory_free_bytes = s->memory_free_bytes;
    st->machine_free_bytes = s->machine_free_bytes;
    st->shard_bytes = s->shard_bytes;
    st->probed = s->probed && s->bytes_per_s > 0 && s->flops_per_s > 0;
    st->bytes_per_s = s->bytes_per_s;
    st->flops_per_s = s->flops_per_s;
    st->stage_ns = s->stage_ns;
    st->probe_age_s = s->probe_age_s;
    st->held_s = s->held_s;
    st->uptime_s = s->uptime_s;
    st->has_temperature = s->has_temperature;
    st->temperature_millidegrees = s->temperature_millidegrees;
}

void weft_gather_frame(struct device *d, struct weft_frame *f)
{
    struct weft_cluster *c = d->cluster;
    if (f->env->body_case == WEFT__ENVELOPE__BODY_STATUS) {
        if (f->env->status->request != d->request)
            return;
        take_status(d, f->env->status);
    } else {
        const Weft__LinkReport *report = f->env->link_report;
        if (report->request != d->request)
            return;
        struct weft_link_facts facts = {
            .latency_ns = report->latency_ns,
            .bytes_per_s = report->bytes_per_s,
            .known = report->bytes_per_s > 0,
        };
        c->links[(size_t)c->link_from * c->opt.n_devices + c->link_to] = facts;
        c->links[(size_t)c->link_to * c->opt.n_devices + c->link_from] = facts;
    }
    weft_device_answered(d);
    weft_cluster_advance(c);
}
