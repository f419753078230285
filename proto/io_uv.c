/*
 * The real io: one libuv loop, nng links, one compute thread.
 *
 * Invariant: everything here belongs to the loop thread but what `mutex` guards: the list of
 * connections with news (nng's threads add to it) and the two queues of work (the compute thread
 * takes and gives back). One uv_async wakes the loop for both, one uv_timer stands for all timers;
 * with nothing to do neither fires, so an idle process sleeps.
 */
#include "proto/io_uv.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <uv.h>

#include "proto/link.h"

#define CONNECTIONS_MAX 1024 /* accepted at a time; more are closed at once */
#define FLUSH_MS 1000        /* a closing connection may send its queue for so long */
#define EVENTS_PER_TURN 32   /* of one connection, then the others and the timers have theirs */
#define NS_PER_MS 1000000u

struct weft_conn {
    struct weft_io_uv *u;
    struct weft_link *link; /* NULL once it ended */
    struct weft_conn_events events;
    void *arg;
    struct weft_conn *next, *prev;             /* all connections */
    struct weft_conn *ready_next, *ready_prev; /* mutex */
    bool ready;                                /* mutex: is on the list above */
    bool accepted;
    bool busy;    /* an event of it is running: whoever closes it leaves the memory */
    bool closing; /* the owner is gone, the queue is flushed until the timer fires */
    struct weft_timer flush;
};

struct work_queue {
    struct weft_work *first, **last;
};

struct weft_io_uv {
    struct weft_io io; /* first: io functions get its address */
    uv_loop_t *loop;
    uv_async_t async;
    uv_timer_t timer;
    struct weft_timer *timers; /* sorted by due_ns, then by time of start */
    struct weft_conn *conns;
    size_t n_accepted;
    uint64_t random_state;
    struct weft_listener *listener;
    void (*accept)(void *arg, struct weft_conn *c);
    void *accept_arg;
    bool closed;      /* weft_io_uv_close was called */
    unsigned handles; /* of the loop, still open */

    pthread_mutex_t mutex;
    pthread_cond_t more_work;
    struct weft_conn *ready_first, *ready_last;
    size_t n_ready;
    bool accepting; /* the listener has news */
    struct work_queue todo, done;
    unsigned in_hand; /* loop: items that the compute thread has and has not given back */
    bool dispatching; /* loop: on_async is under way and will look at `done` once more */
    bool stop;

    pthread_t thread; /* compute */
};

static struct weft_io_uv *uv_of(struct weft_io *io)
{
    return (struct weft_io_uv *)io;
}

/* ------------------------------------------------------------------ time */

static uint64_t io_now_ns(struct weft_io *io)
{
    (void)io;
    return uv_hrtime();
}

static uint64_t io_random(struct weft_io *io)
{
    /* splitmix64 (Steele, Lea, Flood 2014), seeded by the kernel */
    struct weft_io_uv *u = uv_of(io);
    uint64_t z = u->random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static void on_timer(uv_timer_t *handle);

/* Sets the one uv_timer for the first of the list. */
static void timers_arm(struct weft_io_uv *u)
{
    if (uv_is_closing((uv_handle_t *)&u->timer))
        return;
    if (u->timers == NULL) {
        uv_timer_stop(&u->timer);
        return;
    }
    const uint64_t now = uv_hrtime(), due = u->timers->due_ns;
    uv_update_time(
        u->loop); /* the delay counts from the loop's time, which stands since its last turn */
    uv_timer_start(&u->timer, on_timer, due <= now ? 0 : (due - now + NS_PER_MS - 1) / NS_PER_MS,
                   0);
}

static void timer_unlink(struct weft_io_uv *u, struct weft_timer *t)
{
    if (t->prev != NULL)
        t->prev->next = t->next;
    else
        u->timers = t->next;
    if (t->next != NULL)
        t->next->prev = t->prev;
    t->next = t->prev = NULL;
    t->armed = false;
}

static void io_timer_stop(struct weft_io *io, struct weft_timer *t)
{
    struct weft_io_uv *u = uv_of(io);
    if (!t->armed)
        return;
    const bool first = u->timers == t;
    timer_unlink(u, t);
    if (first)
        timers_arm(u);
}

static void io_timer_start(struct weft_io *io, struct weft_timer *t, uint64_t delay_ns)
{
    struct weft_io_uv *u = uv_of(io);
    const bool was_first = u->timers == t;
    if (t->armed)
        timer_unlink(u, t);
    const uint64_t now = uv_hrtime();
    t->due_ns = delay_ns < UINT64_MAX - now ? now + delay_ns : UINT64_MAX;
    struct weft_timer *before = NULL, *after = u->timers;
    while (after != NULL && after->due_ns <= t->due_ns) {
        before = after;
        after = after->next;
    }
    t->prev = before;
    t->next = after;
    if (before != NULL)
        before->next = t;
    else
        u->timers = t;
    if (after != NULL)
        after->prev = t;
    t->armed = true;
    if (u->timers == t || was_first)
        timers_arm(u);
}

static void on_timer(uv_timer_t *handle)
{
    struct weft_io_uv *u = handle->data;
    const uint64_t now = uv_hrtime();
    while (u->timers != NULL && u->timers->due_ns <= now) {
        struct weft_timer *t = u->timers;
        timer_unlink(u, t);
        t->fire(t); /* may start and stop any timer, itself too */
    }
    timers_arm(u);
}

/* ------------------------------------------------------------------ connections */

/* nng's threads and the loop: this connection has news. */
static void conn_wake(void *arg)
{
    struct weft_conn *c = arg;
    struct weft_io_uv *u = c->u;
    pthread_mutex_lock(&u->mutex);
    const bool wake = !c->ready;
    if (wake) {
        c->ready = true;
        c->ready_next = NULL;
        c->ready_prev = u->ready_last;
        if (u->ready_last != NULL)
            u->ready_last->ready_next = c;
        else
            u->ready_first = c;
        u->ready_last = c;
        u->n_ready++;
    }
    pthread_mutex_unlock(&u->mutex);
    if (wake)
        uv_async_send(&u->async);
}

/* Under the mutex. */
static void ready_unlink(struct weft_io_uv *u, struct weft_conn *c)
{
    if (!c->ready)
        return;
    if (c->ready_prev != NULL)
        c->ready_prev->ready_next = c->ready_next;
    else
        u->ready_first = c->ready_next;
    if (c->ready_next != NULL)
        c->ready_next->ready_prev = c->ready_prev;
    else
        u->ready_last = c->ready_prev;
    c->ready = false;
    u->n_ready--;
}

static struct weft_conn *conn_new(struct weft_io_uv *u, const struct weft_conn_events *events,
                                  void *arg)
{
    struct weft_conn *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->u = u;
    c->arg = arg;
    if (events != NULL)
        c->events = *events;
    c->next = u->conns;
    if (c->next != NULL)
        c->next->prev = c;
    u->conns = c;
    return c;
}

static void conn_unlink(struct weft_conn *c)
{
    struct weft_io_uv *u = c->u;
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        u->conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
}

static void handles_close(struct weft_io_uv *u);

/* Ends the link; the memory stays while an event of the connection is running. */
static void conn_end(struct weft_conn *c)
{
    struct weft_io_uv *u = c->u;
    if (c->link != NULL) {
        weft_link_close(c->link); /* no conn_wake any more behind this line */
        c->link = NULL;
        io_timer_stop(&u->io, &c->flush);
        u->n_accepted -= c->accepted;
        pthread_mutex_lock(&u->mutex);
        ready_unlink(u, c);
        pthread_mutex_unlock(&u->mutex);
        conn_unlink(c);
    }
    if (c->busy)
        return;
    free(c);
    if (u->closed && u->conns == NULL)
        handles_close(u);
}

static void work_push(struct work_queue *q, struct weft_work *w)
{
    w->next = NULL;
    *q->last = w;
    q->last = &w->next;
}

static struct weft_work *work_pop(struct work_queue *q)
{
    struct weft_work *w = q->first;
    if (w != NULL && (q->first = w->next) == NULL)
        q->last = &q->first;
    return w;
}

static void tell_done(struct weft_io_uv *u)
{
    for (;;) {
        pthread_mutex_lock(&u->mutex);
        struct weft_work *w = u->closed ? NULL : work_pop(&u->done);
        pthread_mutex_unlock(&u->mutex);
        if (w == NULL)
            return;
        u->in_hand--;
        w->done(w);
    }
}

/* Tells the events of one connection. */
static void conn_pump(struct weft_conn *c)
{
    c->busy = true;
    for (int i = 0; c->link != NULL; i++) {
        if (i == EVENTS_PER_TURN) {
            conn_wake(c);
            break;
        }
        struct weft_frame *f = NULL;
        weft_err why = {0};
        const enum weft_link_event e = weft_link_next(c->link, &f, &why);
        if (e == WEFT_LINK_NOTHING)
            break;
        if (e == WEFT_LINK_CLOSED) {
            const bool tell = !c->closing;
            conn_end(c);
            if (tell && c->events.closed != NULL)
                c->events.closed(c->arg, c, &why);
        } else if (e == WEFT_LINK_OPENED) {
            if (c->events.opened != NULL)
                c->events.opened(c->arg, c);
        } else if (e == WEFT_LINK_WRITABLE) {
            if (c->events.writable != NULL)
                c->events.writable(c->arg, c);
        } else if (c->events.frame != NULL) {
            c->events.frame(c->arg, c, f);
            tell_done(c->u); /* of brief work: its rows leave before the next read is asked for */
        } else {
            weft_frame_free(f); /* accepted, and nobody asked for events */
        }
    }
    c->busy = false;
    if (c->link == NULL)
        conn_end(c);
}

static struct weft_conn *io_dial(struct weft_io *io, const char *address, uint32_t timeout_ms,
                                 const struct weft_conn_events *events, void *arg)
{
    struct weft_io_uv *u = uv_of(io);
    assert(!u->closed);
    struct weft_conn *c = conn_new(u, events, arg);
    if (c == NULL)
        return NULL;
    c->link = weft_link_dial(address, timeout_ms, conn_wake, c);
    if (c->link == NULL) {
        conn_unlink(c);
        free(c);
        return NULL;
    }
    return c;
}

static void io_events(struct weft_io *io, struct weft_conn *c,
                      const struct weft_conn_events *events, void *arg)
{
    (void)io;
    c->events = *events;
    c->arg = arg;
}

static int io_send(struct weft_io *io, struct weft_conn *c, const Weft__Envelope *env,
                   const void *payload, uint32_t payload_size)
{
    (void)io;
    return c->link != NULL ? weft_link_send(c->link, env, payload, payload_size) : -WEFT_ELOST;
}

static void io_pause(struct weft_io *io, struct weft_conn *c, bool pause)
{
    (void)io;
    if (c->link != NULL)
        weft_link_pause(c->link, pause);
}

static void flush_over(struct weft_timer *t)
{
    conn_end(t->owner);
}

static void io_close(struct weft_io *io, struct weft_conn *c, bool flush)
{
    if (c->link == NULL) /* from within its own `closed` */
        return;
    if (!flush) {
        conn_end(c);
        return;
    }
    assert(!c->closing);
    c->closing = true;
    c->events = (struct weft_conn_events){0};
    c->flush = (struct weft_timer){.fire = flush_over, .owner = c};
    io_timer_start(io, &c->flush, (uint64_t)FLUSH_MS * NS_PER_MS);
    weft_link_finish(c->link);
}

static const char *io_peer_name(struct weft_io *io, struct weft_conn *c)
{
    (void)io;
    return c->link != NULL ? weft_link_peer_name(c->link) : "closed connection";
}

/* ------------------------------------------------------------------ listener */

static void listener_wake(void *arg)
{
    struct weft_io_uv *u = arg;
    pthread_mutex_lock(&u->mutex);
    u->accepting = true;
    pthread_mutex_unlock(&u->mutex);
    uv_async_send(&u->async);
}

static void accept_links(struct weft_io_uv *u)
{
    struct weft_link *l;
    while (u->listener != NULL && (l = weft_listener_next(u->listener)) != NULL) {
        struct weft_conn *c = u->n_accepted < CONNECTIONS_MAX ? conn_new(u, NULL, NULL) : NULL;
        if (c == NULL) {
            weft_link_close(l);
            continue;
        }
        c->link = l;
        c->accepted = true;
        u->n_accepted++;
        c->busy = true;
        u->accept(u->accept_arg, c);
        c->busy = false;
        if (c->link == NULL)
            conn_end(c);
        else
            weft_link_attach(l, conn_wake, c);
    }
}

int weft_io_uv_listen(struct weft_io_uv *u, const char *address,
                      void (*accept)(void *arg, struct weft_conn *c), void *arg, uint16_t *ret_port,
                      weft_err *err)
{
    assert(u->listener == NULL && !u->closed);
    char normal[512];
    int r = weft_address_parse(address, 0, normal, sizeof normal, err);
    if (r < 0)
        return r;
    u->accept = accept;
    u->accept_arg = arg;
    return weft_listener_open(normal, listener_wake, u, &u->listener, ret_port, err);
}

/* ------------------------------------------------------------------ work */

static void *compute_main(void *arg)
{
    struct weft_io_uv *u = arg;
    pthread_mutex_lock(&u->mutex);
    while (!u->stop) {
        struct weft_work *w = work_pop(&u->todo);
        if (w == NULL) {
            pthread_cond_wait(&u->more_work, &u->mutex);
            continue;
        }
        pthread_mutex_unlock(&u->mutex);
        w->run(w);
        pthread_mutex_lock(&u->mutex);
        work_push(&u->done, w);
        uv_async_send(&u->async);
    }
    pthread_mutex_unlock(&u->mutex);
    return NULL;
}

/* On the loop thread: nothing else computes now, and nothing can start before this returns. */
static void work_here(struct weft_io_uv *u, struct weft_work *w)
{
    w->run(w);
    pthread_mutex_lock(&u->mutex);
    work_push(&u->done, w);
    pthread_mutex_unlock(&u->mutex);
    if (!u->dispatching)
        uv_async_send(&u->async);
}

static void io_work(struct weft_io *io, struct weft_work *w)
{
    struct weft_io_uv *u = uv_of(io);
    u->in_hand++;
    if (w->brief && u->in_hand == 1) {
        work_here(u, w);
        return;
    }
    pthread_mutex_lock(&u->mutex);
    work_push(&u->todo, w);
    pthread_cond_signal(&u->more_work);
    pthread_mutex_unlock(&u->mutex);
}

/* ------------------------------------------------------------------ the loop */

static void on_async(uv_async_t *handle)
{
    struct weft_io_uv *u = handle->data;
    u->dispatching = true;
    tell_done(u); /* first: its results are what the other side waits for */
    pthread_mutex_lock(&u->mutex);
    const bool accepting = u->accepting;
    u->accepting = false;
    pthread_mutex_unlock(&u->mutex);
    if (accepting)
        accept_links(u);
    /* those ready now; whoever gets news meanwhile has sent another wake-up */
    pthread_mutex_lock(&u->mutex);
    for (size_t n = u->n_ready; n != 0 && u->ready_first != NULL; n--) {
        struct weft_conn *c = u->ready_first;
        ready_unlink(u, c);
        pthread_mutex_unlock(&u->mutex);
        conn_pump(c);
        pthread_mutex_lock(&u->mutex);
    }
    pthread_mutex_unlock(&u->mutex);
    tell_done(u); /* brief work that other events have brought */
    u->dispatching = false;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct weft_io_uv *u = handle->data;
    if (--u->handles != 0)
        return;
    pthread_cond_destroy(&u->more_work);
    pthread_mutex_destroy(&u->mutex);
    free(u);
}

static void handles_close(struct weft_io_uv *u)
{
    if (uv_is_closing((uv_handle_t *)&u->async))
        return;
    uv_close((uv_handle_t *)&u->async, on_handle_closed);
    uv_close((uv_handle_t *)&u->timer, on_handle_closed);
}

int weft_io_uv_open(struct uv_loop_s *loop, struct weft_io_uv **ret, weft_err *err)
{
    struct weft_io_uv *u = calloc(1, sizeof *u);
    if (u == NULL)
        return weft_fail(err, WEFT_ENOMEM, "io: out of memory");
    u->io = (struct weft_io){.now_ns = io_now_ns,
                             .random = io_random,
                             .timer_start = io_timer_start,
                             .timer_stop = io_timer_stop,
                             .dial = io_dial,
                             .events = io_events,
                             .send = io_send,
                             .pause = io_pause,
                             .close = io_close,
                             .peer_name = io_peer_name,
                             .work = io_work};
    u->loop = loop;
    u->todo.last = &u->todo.first;
    u->done.last = &u->done.first;
    if (getrandom(&u->random_state, sizeof u->random_state, 0) != sizeof u->random_state) {
        const int r = weft_fail_errno(err, errno, "getrandom");
        free(u);
        return r;
    }
    const int rv = uv_async_init(loop, &u->async, on_async);
    if (rv != 0) {
        free(u);
        return weft_fail(err, WEFT_EIO, "uv_async_init: %s", uv_strerror(rv));
    }
    (void)uv_timer_init(loop, &u->timer); /* cannot fail */
    u->async.data = u->timer.data = u;
    u->handles = 2;
    pthread_mutex_init(&u->mutex, NULL);
    pthread_cond_init(&u->more_work, NULL);
    /* Here and not with the first work: a process without it is of no use, and can still say so. */
    const int failed = pthread_create(&u->thread, NULL, compute_main, u);
    if (failed != 0) {
        handles_close(u); /* frees u when the loop runs next */
        return weft_fail_errno(err, failed, "compute thread");
    }
    *ret = u;
    return 0;
}

struct weft_io *weft_io_uv_io(struct weft_io_uv *u)
{
    return &u->io;
}

void weft_io_uv_close(struct weft_io_uv *u)
{
    if (u == NULL)
        return;
    assert(!u->closed);
    u->closed = true;
    weft_listener_close(u->listener);
    u->listener = NULL;
    pthread_mutex_lock(&u->mutex);
    u->stop = true;
    pthread_cond_signal(&u->more_work);
    pthread_mutex_unlock(&u->mutex);
    pthread_join(u->thread, NULL);
    while (u->timers != NULL) /* their owners may go now */
        timer_unlink(u, u->timers);
    struct weft_conn *next;
    for (struct weft_conn *c = u->conns; c != NULL; c = next) {
        next = c->next;
        if (c->closing) /* its own timer was among those */
            io_timer_start(&u->io, &c->flush, (uint64_t)FLUSH_MS * NS_PER_MS);
        else
            conn_end(c);
    }
    if (u->conns == NULL)
        handles_close(u);
}
