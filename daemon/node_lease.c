/*
 * Node: the lease. One coordinator at a time holds the daemon; it ends with Release, or
 * WEFT_NODE_LEASE_NS after the control connection was lost. The same coordinator may come back
 * before, over a new connection.
 */
#include "daemon/node_private.h"

#include <inttypes.h>
#include <stdio.h>

#define NS_PER_S UINT64_C(1000000000)

int node_lease_check(struct node_peer *p, weft_err *err)
{
    struct weft_node *n = p->node;
    if (n->lease.control == p)
        return 0;
    if (n->lease.coordinator == 0)
        return weft_fail(err, WEFT_ESTATE, "%s: Acquire the lease first", n->opt.name);
    return weft_fail(err, WEFT_EBUSY, "%s: held by %s for %" PRIu64 " s", n->opt.name,
                     n->lease.name, (n->io->now_ns(n->io) - n->lease.since_ns) / NS_PER_S);
}

void node_lease_end(struct weft_node *n, const char *why)
{
    node_log(n, WEFT_LOG_INFO, "released", WEFT_STR("holder", n->lease.name), WEFT_STR("why", why));
    n->io->timer_stop(n->io, &n->lease.timer);
    n->lease.coordinator = 0;
    n->lease.control = NULL;
    weft_frame_free(n->deploy);
    n->deploy = NULL;
    node_epoch_end(n);
}

void node_lease_lost(struct weft_timer *t)
{
    struct weft_node *n = t->owner;
    node_lease_end(n, "the connection did not come back");
    node_settle(n);
}

void node_acquire(struct node_peer *p, const Weft__Acquire *rq)
{
    struct weft_node *n = p->node;
    struct node_lease *l = &n->lease;
    weft_err why = {0};
    if (rq->epoch == NULL || rq->epoch->coordinator == 0) {
        (void)weft_fail(&why, WEFT_EPROTOCOL, "Acquire names no coordinator");
        node_deny(p, rq->request, &why);
        return;
    }
    if (n->draining) {
        (void)weft_fail(&why, WEFT_ESTATE, "%s is shutting down", n->opt.name);
        node_deny(p, rq->request, &why);
        return;
    }
    if (l->coordinator != 0 && l->coordinator != rq->epoch->coordinator) {
        (void)!node_lease_check(p, &why);
        node_deny(p, rq->request, &why);
        return;
    }
    if (l->coordinator == 0) {
        l->since_ns = n->io->now_ns(n->io);
        l->counter = 0;
    } else if (l->control != NULL && l->control != p) {
        node_drop(l->control, false); /* half-dead: the holder came back before we noticed */
    }
    n->io->timer_stop(n->io, &l->timer);
    l->coordinator = rq->epoch->coordinator;
    l->control = p;
    snprintf(l->name, sizeof l->name, "%s", p->name);
    node_log(n, WEFT_LOG_INFO, "held", WEFT_STR("holder", l->name));

    Weft__Acquired acquired = WEFT__ACQUIRED__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    acquired.request = rq->request;
    env.body_case = WEFT__ENVELOPE__BODY_ACQUIRED;
    env.acquired = &acquired;
    node_answer(p, &env);
}

void node_release(struct node_peer *p, const Weft__Release *rq)
{
    struct weft_node *n = p->node;
    node_lease_end(n, "asked to");
    n->releasing = true; /* answered by settle, once the memory is free */
    n->release_peer = p;
    n->release_request = rq->request;
}

void node_released(struct weft_node *n)
{
    Weft__Released answer = WEFT__RELEASED__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    n->releasing = false;
    answer.request = n->release_request;
    env.body_case = WEFT__ENVELOPE__BODY_RELEASED;
    env.released = &answer;
    if (n->release_peer != NULL)
        node_answer(n->release_peer, &env);
    n->release_peer = NULL;
}
