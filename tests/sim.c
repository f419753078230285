/*
 * Simulator, see sim.h. One heap of events ordered by (time, number); timers and work are events
 * too.
 */
#include "tests/sim.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"

enum event_kind {
    EVENT_TIMER,
    EVENT_OPENED,
    EVENT_REFUSED,
    EVENT_FRAME,
    EVENT_CLOSED,
    EVENT_WRITABLE,
    EVENT_WORK
};

struct event {
    uint64_t at_ns, number;
    enum event_kind kind;
    struct weft_timer *timer; /* NULL: stopped since */
    struct weft_conn *conn;
    struct weft_frame *frame;
    struct host *host;
};

/* One end of a connection. */
struct weft_conn {
    struct sim *sim;
    struct host *host;
    struct weft_conn *other, *next;
    const struct weft_conn_events *events;
    void *arg;
    bool open, gone; /* gone: closed by its owner, or `closed` was told */
    bool cut;        /* nothing arrives any more */
    bool paused, full;
    unsigned in_flight; /* frames sent from here and not yet taken there */
    uint64_t in_flight_bytes;
    uint64_t arrive_ns;                                     /* of the last frame sent from here */
    struct weft_frame *waiting[WEFT_SEND_QUEUE_FRAMES + 1]; /* arrived while paused */
    unsigned n_waiting;
    char peer[64];
};

struct host {
    struct weft_io io; /* first: an io is its host */
    struct sim *sim;
    unsigned index;
    char address[64];
    void (*accept)(void *arg, struct weft_conn *c);
    void *arg;
    struct weft_work *work, **work_end;
    bool working, cut;
};

struct sim {
    struct sim_options opt;
    uint64_t now_ns, random, numbers, dropped;
    struct event *heap;
    size_t n, room;
    struct host hosts[SIM_HOSTS_MAX];
    struct weft_conn *conns;
};

/* ------------------------------------------------------------------ heap */

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->number < b->number;
}

static void push(struct sim *s, struct event e)
{
    if (s->n == s->room) {
        s->room = s->room * 2 + 64;
        s->heap = realloc(s->heap, s->room * sizeof *s->heap);
        assert(s->heap != NULL);
    }
    e.number = ++s->numbers;
    size_t i = s->n++;
    for (; i > 0 && earlier(&e, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = e;
}

static struct event pop(struct sim *s)
{
    struct event top = s->heap[0], last = s->heap[--s->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->n)
            break;
        if (child + 1 < s->n && earlier(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!earlier(&s->heap[child], &last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

/* ------------------------------------------------------------------ io */

static struct host *host_of(struct weft_io *io)
{
    return (struct host *)io;
}

static uint64_t delay(struct sim *s)
{
    double low = log((double)s->opt.delay_min_ns + 1), high = log((double)s->opt.delay_max_ns + 1);
    return (uint64_t)exp(low + (high - low) * weft_test_uniform(&s->random));
}

static uint64_t io_now_ns(struct weft_io *io)
{
    return host_of(io)->sim->now_ns;
}

static uint64_t io_random(struct weft_io *io)
{
    return weft_test_random(&host_of(io)->sim->random);
}

static void io_timer_stop(struct weft_io *io, struct weft_timer *t)
{
    struct sim *s = host_of(io)->sim;
    if (!t->armed)
        return;
    t->armed = false;
    for (size_t i = 0; i < s->n; i++) /* the timer's memory may go: no event may point there */
        if (s->heap[i].kind == EVENT_TIMER && s->heap[i].timer == t)
            s->heap[i].timer = NULL;
}

static void io_timer_start(struct weft_io *io, struct weft_timer *t, uint64_t delay_ns)
{
    struct sim *s = host_of(io)->sim;
    io_timer_stop(io, t);
    t->armed = true;
    t->due_ns = s->now_ns + delay_ns;
    push(s, (struct event){.at_ns = t->due_ns, .kind = EVENT_TIMER, .timer = t});
}

static struct weft_conn *new_end(struct host *h)
{
    struct weft_conn *c = calloc(1, sizeof *c);
    assert(c != NULL);
    c->sim = h->sim;
    c->host = h;
    c->next = h->sim->conns;
    h->sim->conns = c;
    return c;
}

static struct weft_conn *io_dial(struct weft_io *io, const char *address, uint32_t timeout_ms,
                                 const struct weft_conn_events *events, void *arg)
{
    struct host *h = host_of(io);
    struct sim *s = h->sim;
    struct weft_conn *c = new_end(h);
    c->events = events;
    c->arg = arg;
    strncpy(c->peer, address, sizeof c->peer - 1);
    for (unsigned i = 0; i < SIM_HOSTS_MAX; i++) {
        struct host *to = &s->hosts[i];
        if (to->accept == NULL || to->cut || h->cut || strcmp(to->address, address) != 0)
            continue;
        struct weft_conn *other = new_end(to);
        c->other = other;
        other->other = c;
        strcpy(other->peer, "sim");
        push(s, (struct event){.at_ns = s->now_ns + delay(s), .kind = EVENT_OPENED, .conn = c});
        return c;
    }
    push(s, (struct event){.at_ns = s->now_ns + (uint64_t)timeout_ms * 1000000u,
                           .kind = EVENT_REFUSED,
                           .conn = c});
    return c;
}

static void io_events(struct weft_io *io, struct weft_conn *c,
                      const struct weft_conn_events *events, void *arg)
{
    (void)io;
    c->events = events;
    c->arg = arg;
}

static int io_send(struct weft_io *io, struct weft_conn *c, const Weft__Envelope *env,
                   const void *payload, uint32_t payload_size)
{
    struct sim *s = host_of(io)->sim;
    struct weft_frame *f;
    assert(payload_size <= WEFT_PAYLOAD_MAX);
    if (!c->open || c->gone || c->other == NULL)
        return -WEFT_ELOST;
    if (c->in_flight >= WEFT_SEND_QUEUE_FRAMES ||
        c->in_flight_bytes + payload_size > WEFT_SEND_QUEUE_BYTES) {
        c->full = true;
        return -WEFT_EFULL;
    }
    if (s->opt.may_drop != NULL && weft_test_uniform(&s->random) < s->opt.drop &&
        s->opt.may_drop(s->opt.arg, env)) {
        s->dropped++;
        return 0;
    }
    weft_err err = {0};
    if (weft_frame_copy(env, payload, payload_size, &f, &err) < 0) {
        (void)fprintf(stderr, "sim: %s\n", err.text);
        abort(); /* a frame that could not travel is a fault of weft */
    }
    c->in_flight++;
    c->in_flight_bytes += payload_size;
    uint64_t at = s->now_ns + delay(s);
    c->arrive_ns = at > c->arrive_ns ? at : c->arrive_ns;
    push(s,
         (struct event){.at_ns = c->arrive_ns, .kind = EVENT_FRAME, .conn = c->other, .frame = f});
    return 0;
}

static void taken(struct weft_conn *from, uint32_t payload_size)
{
    from->in_flight--;
    from->in_flight_bytes -= payload_size;
    if (from->full && from->in_flight <= WEFT_SEND_QUEUE_FRAMES / 2) {
        from->full = false;
        push(from->sim,
             (struct event){.at_ns = from->sim->now_ns, .kind = EVENT_WRITABLE, .conn = from});
    }
}

static void deliver(struct weft_conn *c, struct weft_frame *f)
{
    if (c->other != NULL)
        taken(c->other, f->payload_size);
    if (c->gone || c->cut || c->events == NULL)
        weft_frame_free(f);
    else
        c->events->frame(c->arg, c, f);
}

static void io_pause(struct weft_io *io, struct weft_conn *c, bool pause)
{
    (void)io;
    if (c->paused == pause)
        return;
    c->paused = pause;
    if (pause)
        return;
    /* Not from here: the owner is in the middle of something. In order, before anything that comes
     * later. */
    for (unsigned i = 0; i < c->n_waiting; i++)
        push(c->sim,
             (struct event){
                 .at_ns = c->sim->now_ns, .kind = EVENT_FRAME, .conn = c, .frame = c->waiting[i]});
    c->n_waiting = 0;
}

static void io_close(struct weft_io *io, struct weft_conn *c, bool flush)
{
    struct sim *s = host_of(io)->sim;
    (void)flush; /* what was sent arrives */
    if (c->gone)
        return;
    c->gone = true;
    for (unsigned i = 0; i < c->n_waiting; i++)
        weft_frame_free(c->waiting[i]);
    c->n_waiting = 0;
    if (c->other != NULL && !c->other->gone) {
        uint64_t at = s->now_ns + delay(s);
        if (at < c->arrive_ns)
            at = c->arrive_ns;
        push(s, (struct event){.at_ns = at, .kind = EVENT_CLOSED, .conn = c->other});
    }
}

static const char *io_peer_name(struct weft_io *io, struct weft_conn *c)
{
    (void)io;
    return c->peer;
}

/* Work is computed at once, its end comes later: the node may not look at results before `done`. */
static void start_work(struct host *h)
{
    struct sim *s = h->sim;
    if (h->working || h->work == NULL)
        return;
    h->working = true;
    h->work->run(h->work);
    uint64_t length = (uint64_t)(weft_test_uniform(&s->random) * (double)s->opt.work_max_ns);
    push(s, (struct event){.at_ns = s->now_ns + length, .kind = EVENT_WORK, .host = h});
}

static void io_work(struct weft_io *io, struct weft_work *w)
{
    struct host *h = host_of(io);
    w->next = NULL;
    *h->work_end = w;
    h->work_end = &w->next;
    start_work(h);
}

/* ------------------------------------------------------------------ events */

static void closed(struct weft_conn *c, int code, const char *text)
{
    weft_err why = {0};
    if (c->gone || c->cut)
        return;
    c->gone = true;
    (void)weft_fail(&why, code, "%s: %s", c->peer, text);
    if (c->events != NULL)
        c->events->closed(c->arg, c, &why);
}

static void happen(struct sim *s, struct event *e)
{
    struct weft_conn *c = e->conn;
    switch (e->kind) {
    case EVENT_TIMER:
        if (e->timer == NULL)
            return; /* stopped */
        e->timer->armed = false;
        e->timer->fire(e->timer);
        return;
    case EVENT_OPENED:
        if (c->gone)
            return;
        c->open = c->other->open = true;
        c->other->host->accept(c->other->host->arg, c->other);
        if (!c->gone && c->events->opened != NULL)
            c->events->opened(c->arg, c);
        return;
    case EVENT_REFUSED:
        closed(c, WEFT_EUNREACHABLE, "connection refused");
        return;
    case EVENT_FRAME:
        if (c->paused && !c->gone) {
            assert(c->n_waiting <= WEFT_SEND_QUEUE_FRAMES);
            c->waiting[c->n_waiting++] = e->frame;
        } else {
            deliver(c, e->frame);
        }
        return;
    case EVENT_CLOSED:
        closed(c, WEFT_ELOST, "connection closed");
        return;
    case EVENT_WRITABLE:
        if (!c->gone && c->open && c->events != NULL && c->events->writable != NULL)
            c->events->writable(c->arg, c);
        return;
    case EVENT_WORK: {
        struct host *h = e->host;
        struct weft_work *w = h->work;
        h->work = w->next;
        if (h->work == NULL)
            h->work_end = &h->work;
        h->working = false;
        w->done(w);
        start_work(h);
        return;
    }
    }
    (void)s;
}

bool sim_run(struct sim *s, const bool *stop, uint64_t limit_ns)
{
    while (!*stop) {
        if (s->n == 0 || s->heap[0].at_ns > limit_ns)
            return false;
        struct event e = pop(s);
        s->now_ns = e.at_ns;
        happen(s, &e);
    }
    return true;
}

/* ------------------------------------------------------------------ life */

struct sim *sim_open(const struct sim_options *opt)
{
    struct sim *s = calloc(1, sizeof *s);
    assert(s != NULL);
    s->opt = *opt;
    s->random = opt->seed * 0x9E3779B97F4A7C15ull + 1;
    s->now_ns = 1000000000u;
    for (unsigned i = 0; i < SIM_HOSTS_MAX; i++) {
        struct host *h = &s->hosts[i];
        h->sim = s;
        h->index = i;
        h->work_end = &h->work;
        h->io = (struct weft_io){
            .now_ns = io_now_ns,
            .random = io_random,
            .timer_start = io_timer_start,
            .timer_stop = io_timer_stop,
            .dial = io_dial,
            .events = io_events,
            .send = io_send,
            .pause = io_pause,
            .close = io_close,
            .peer_name = io_peer_name,
            .work = io_work,
        };
    }
    return s;
}

void sim_close(struct sim *s)
{
    while (s->n > 0) {
        struct event e = pop(s);
        if (e.kind == EVENT_FRAME)
            weft_frame_free(e.frame);
    }
    while (s->conns != NULL) {
        struct weft_conn *c = s->conns;
        s->conns = c->next;
        for (unsigned i = 0; i < c->n_waiting; i++)
            weft_frame_free(c->waiting[i]);
        free(c);
    }
    free(s->heap);
    free(s);
}

struct weft_io *sim_io(struct sim *s, unsigned host)
{
    return &s->hosts[host].io;
}

void sim_listen(struct sim *s, unsigned host, const char *address,
                void (*accept)(void *arg, struct weft_conn *c), void *arg)
{
    struct host *h = &s->hosts[host];
    strncpy(h->address, address, sizeof h->address - 1);
    h->accept = accept;
    h->arg = arg;
}

void sim_cut(struct sim *s, unsigned host)
{
    s->hosts[host].cut = true;
    for (struct weft_conn *c = s->conns; c != NULL; c = c->next)
        if (c->host == &s->hosts[host] || (c->other != NULL && c->other->host == &s->hosts[host]))
            c->cut = true;
}

uint64_t sim_now_ns(const struct sim *s)
{
    return s->now_ns;
}

uint64_t sim_dropped(const struct sim *s)
{
    return s->dropped;
}
