/*
 * Link: frames over one nng byte stream. The only user of nng.
 *
 * Invariant: the receiving half (`in`) belongs to nng's threads while `reading` is set and to the
 * loop otherwise; the flag is changed under the mutex, which so hands the half over. The sending
 * half is a queue under the mutex; whoever sets `sending` starts the next write, and the callback
 * of that write alone goes on. A callback never runs user code: it fills its slot and wakes the
 * loop.
 *
 * A read takes what is there: the rest of the frame in hand and up to READ_AHEAD bytes behind it,
 * so a small frame costs one trip through nng's poller, not one for the prefix and one for the
 * body.
 */
#include "proto/link.h"

#include <arpa/inet.h>
#include <assert.h>
#include <nng/nng.h>
#include <nng/supplemental/util/platform.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/io.h"

#define READ_AHEAD 16384u /* a decoding step of 2048 floats comes in one read */
#define IOV_MAX_FRAMES 4u /* nng takes 8 parts: header and payload of this many frames */
#define URL_MAX 512
#define DIAL_TRIES_MAX                                                                            \
    20                     /* see connected(): one try in five was seen to end early, 20 never do \
                            */
#define ACCEPT_REST_MS 100 /* after a failed accept (no descriptors left): do not spin */

/* A frame waiting to be sent. */
struct out_frame {
    struct out_frame *next;
    uint8_t *head; /* prefix and envelope */
    size_t head_size;
    size_t payload_size;
    uint8_t payload[];
};

/* The receiving half. A frame's body is kept payload first (proto/frame.h), so an offset on the
 * wire, envelope first, is turned round on the way in. */
struct in_half {
    uint8_t *body; /* of the frame in hand; NULL: its prefix is not complete */
    uint32_t env_size, payload_size;
    size_t got; /* bytes of the body that are here, in wire order */
    size_t ahead_start, ahead_size;
    bool second_try; /* the last read failed; see in_done */
    int nng_error;
    weft_err err; /* what was wrong with the bytes; code 0: nothing */
    uint8_t ahead[READ_AHEAD];
};

struct weft_link {
    pthread_mutex_t mutex;
    nng_stream_dialer *dialer; /* loop, and the dial; NULL: accepted, or the dial is over */
    nng_time dial_until;
    unsigned dial_tries;
    nng_stream *stream;        /* set once: by the dial's callback, or at accept */
    nng_aio *in_aio, *out_aio; /* in_aio is the dial's as well */
    nng_aio *try_aio;          /* loop; without callback, see write_try */
    char name[URL_MAX];        /* loop; address dialled or accepted */
    weft_wake_fn *wake;
    void *arg;

    bool dialling, reading; /* in_aio is under way */
    bool opened;            /* OPENED is to be told */
    bool told_closed;       /* loop */
    bool paused, finishing; /* loop */
    struct in_half in;

    bool sending; /* out_aio is under way */
    bool want_writable, writable;
    int out_error;
    struct out_frame *out_first, *out_last;
    size_t out_frames, out_bytes;
    size_t out_sent; /* of out_first */
};

/* ------------------------------------------------------------------ words */

static int fail_nng(weft_err *err, const char *name, int rv, bool open)
{
    switch (rv) {
    case NNG_ECONNREFUSED:
        return weft_fail(err, WEFT_EUNREACHABLE, "%s: connection refused: is weftd running there?",
                         name);
    case NNG_ETIMEDOUT:
        return weft_fail(err, open ? WEFT_ELOST : WEFT_EUNREACHABLE,
                         "%s: timed out: is the machine on, and no firewall between?", name);
    case NNG_EADDRINVAL:
    case NNG_EAGAIN: /* the name server does not answer */
        return weft_fail(err, WEFT_EUNREACHABLE,
                         "%s: no such host: check the name, or write its IP address", name);
    case NNG_EUNREACHABLE:
        return weft_fail(err, WEFT_EUNREACHABLE, "%s: no route to this host", name);
    case NNG_ENOMEM:
        return weft_fail(err, WEFT_ENOMEM, "%s: out of memory", name);
    case NNG_ENOFILES:
        return weft_fail(err, WEFT_EIO, "%s: too many open files: raise `ulimit -n`", name);
    case NNG_ECONNSHUT:
    case NNG_ECLOSED:
        return weft_fail(err, WEFT_ELOST, "%s: closed by the other side", name);
    case NNG_ECONNRESET:
    case NNG_ECONNABORTED:
        return weft_fail(err, WEFT_ELOST, "%s: connection reset by the other side", name);
    default:
        return weft_fail(err, open ? WEFT_ELOST : WEFT_EUNREACHABLE, "%s: %s", name,
                         nng_strerror(rv));
    }
}

static void format_addr(const nng_sockaddr *sa, char *buf, size_t n)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (sa->s_family == NNG_AF_INET) {
        inet_ntop(AF_INET, &sa->s_in.sa_addr, host, sizeof host);
        snprintf(buf, n, "%s:%u", host, ntohs(sa->s_in.sa_port));
    } else if (sa->s_family == NNG_AF_INET6) {
        inet_ntop(AF_INET6, sa->s_in6.sa_addr, host, sizeof host);
        snprintf(buf, n, "[%s]:%u", host, ntohs(sa->s_in6.sa_port));
    } else {
        snprintf(buf, n, "ipc");
    }
}

static int make_url(const char *address, char url[URL_MAX])
{
    const char *scheme = strncmp(address, "ipc://", 6) == 0 ? "" : "tcp://";
    const int n = snprintf(url, URL_MAX, "%s%s", scheme, address);
    return n > 0 && n < URL_MAX ? 0 : NNG_EADDRINVAL;
}

/* Ends a callback: gives a slot to the loop. */
static void unlock_and_wake(struct weft_link *l)
{
    weft_wake_fn *wake = l->wake;
    void *arg = l->arg;
    pthread_mutex_unlock(&l->mutex);
    if (wake != NULL)
        wake(arg);
}

/* ------------------------------------------------------------------ receiving */

enum absorbed { ABSORB_MORE, ABSORB_FRAME, ABSORB_ERROR };

/* Copies bytes into the body at its next place on the wire; at most what it lacks. */
static void body_put(struct in_half *in, const uint8_t *data, size_t n)
{
    if (in->got < in->env_size) {
        size_t part = in->env_size - in->got;
        part = part < n ? part : n;
        memcpy(in->body + in->payload_size + in->got, data, part);
        in->got += part, data += part, n -= part;
    }
    if (n != 0)
        memcpy(in->body + (in->got - in->env_size), data, n);
    in->got += n;
}

static size_t body_lacks(const struct in_half *in)
{
    return in->body == NULL ? 0 : (size_t)in->env_size + in->payload_size - in->got;
}

/* Moves bytes read ahead into the frame in hand. Whoever owns the half. */
static enum absorbed absorb(struct in_half *in)
{
    if (in->body == NULL) {
        if (in->ahead_size < WEFT_FRAME_PREFIX)
            return ABSORB_MORE;
        if (weft_frame_prefix(in->ahead + in->ahead_start, &in->env_size, &in->payload_size,
                              &in->err) < 0)
            return ABSORB_ERROR;
        in->body = malloc((size_t)in->env_size + in->payload_size);
        if (in->body == NULL) {
            weft_fail(&in->err, WEFT_ENOMEM, "out of memory for a frame");
            return ABSORB_ERROR;
        }
        in->got = 0;
        in->ahead_start += WEFT_FRAME_PREFIX;
        in->ahead_size -= WEFT_FRAME_PREFIX;
    }
    size_t n = body_lacks(in);
    n = n < in->ahead_size ? n : in->ahead_size;
    body_put(in, in->ahead + in->ahead_start, n);
    in->ahead_start += n;
    in->ahead_size -= n;
    return body_lacks(in) == 0 ? ABSORB_FRAME : ABSORB_MORE;
}

/* Starts a read: what the body lacks first, then ahead. The half is nng's from here on. */
static void read_start(struct weft_link *l)
{
    struct in_half *in = &l->in;
    nng_iov iov[3];
    unsigned n = 0;
    if (in->ahead_start != 0) {
        memmove(in->ahead, in->ahead + in->ahead_start, in->ahead_size);
        in->ahead_start = 0;
    }
    if (body_lacks(in) != 0) {
        assert(in->ahead_size == 0);
        size_t payload_got = 0;
        if (in->got < in->env_size)
            iov[n++] = (nng_iov){in->body + in->payload_size + in->got, in->env_size - in->got};
        else
            payload_got = in->got - in->env_size;
        if (payload_got < in->payload_size)
            iov[n++] = (nng_iov){in->body + payload_got, in->payload_size - payload_got};
    }
    iov[n++] = (nng_iov){in->ahead + in->ahead_size, READ_AHEAD - in->ahead_size};
    nng_aio_set_iov(l->in_aio, n, iov);
    nng_stream_recv(l->stream, l->in_aio);
}

/* A read has ended; nng's thread. */
static void in_done(struct weft_link *l)
{
    struct in_half *in = &l->in;
    const int rv = nng_aio_result(l->in_aio);
    if (rv == 0) {
        const size_t n = nng_aio_count(l->in_aio), lacks = body_lacks(in);
        in->second_try = false;
        in->got += n < lacks ? n : lacks;
        in->ahead_size += n < lacks ? 0 : n - lacks;
        if ((in->body != NULL && body_lacks(in) == 0) || absorb(in) != ABSORB_MORE)
            goto deliver;
        read_start(l);
        return;
    }
    /* nng reports a reset before what arrived earlier was read; the kernel still has it. After the
     * stream is shut a read never waits, so one more try either brings bytes or fails for good. */
    if (!in->second_try && rv != NNG_ECANCELED && rv != NNG_ECLOSED) {
        in->second_try = true;
        read_start(l);
        return;
    }
    in->nng_error = rv;
deliver:
    pthread_mutex_lock(&l->mutex);
    l->reading = false;
    unlock_and_wake(l);
}

/* Starts a try of the dial with the time that is left. */
static void dial_start(struct weft_link *l)
{
    const nng_time now = nng_clock();
    l->dial_tries++;
    nng_aio_set_timeout(l->in_aio, now < l->dial_until ? (nng_duration)(l->dial_until - now) : 0);
    nng_stream_dialer_dial(l->dialer, l->in_aio);
}

/* nng (1.5) gives its poller a socket before it connects it, and takes the hang-up that epoll then
 * reports for an answer: now and then a dial is said to have succeeded while its first packet is
 * still under way. Such a stream knows no time-out, and a refusal looks like a lost connection. */
static bool connected(nng_stream *stream)
{
    nng_sockaddr sa;
    const int rv = nng_stream_get_addr(stream, NNG_OPT_REMADDR, &sa);
    return rv == 0 || rv == NNG_ENOTSUP; /* the latter: not TCP */
}

static void dial_done(struct weft_link *l)
{
    int rv = nng_aio_result(l->in_aio);
    nng_stream *stream = rv == 0 ? nng_aio_get_output(l->in_aio, 0) : NULL;
    if (stream != NULL && !connected(stream)) {
        nng_stream_free(stream);
        if (l->dial_tries < DIAL_TRIES_MAX) {
            dial_start(l);
            return;
        }
        rv = NNG_ECONNRESET; /* so often only where each connection is reset at once */
    }
    nng_aio_set_timeout(l->in_aio, NNG_DURATION_INFINITE);
    pthread_mutex_lock(&l->mutex);
    l->dialling = false;
    if (rv == 0) {
        l->stream = stream;
        l->opened = true;
    } else {
        l->in.nng_error = rv;
    }
    unlock_and_wake(l);
}

static void in_callback(void *arg)
{
    struct weft_link *l = arg;
    pthread_mutex_lock(&l->mutex);
    const bool dialling = l->dialling;
    pthread_mutex_unlock(&l->mutex);
    if (dialling)
        dial_done(l);
    else
        in_done(l);
}

/* ------------------------------------------------------------------ sending */

static void out_free(struct out_frame *f)
{
    free(f->head);
    free(f);
}

static size_t out_size(const struct out_frame *f)
{
    return f->head_size + f->payload_size;
}

/* Sets the parts of a write: what is left of the first frames. Under the mutex. */
static void write_prepare(struct weft_link *l, nng_aio *aio)
{
    nng_iov iov[2 * IOV_MAX_FRAMES];
    unsigned n = 0;
    size_t skip = l->out_sent;
    struct out_frame *f = l->out_first;
    for (unsigned i = 0; f != NULL && i < IOV_MAX_FRAMES; i++, f = f->next) {
        if (skip < f->head_size) {
            iov[n++] = (nng_iov){f->head + skip, f->head_size - skip};
            skip = 0;
        } else {
            skip -= f->head_size;
        }
        if (skip < f->payload_size)
            iov[n++] = (nng_iov){f->payload + skip, f->payload_size - skip};
        skip = 0;
    }
    nng_aio_set_iov(aio, n, iov);
}

/* Takes `sent` more bytes off the queue; all of it when nothing can be sent any more. Under the
 * mutex. */
static void out_drop(struct weft_link *l, size_t sent, bool all)
{
    l->out_sent += sent;
    while (l->out_first != NULL && (all || l->out_sent >= out_size(l->out_first))) {
        struct out_frame *f = l->out_first;
        l->out_sent = all ? 0 : l->out_sent - out_size(f);
        l->out_first = f->next;
        l->out_frames--;
        l->out_bytes -= out_size(f);
        out_free(f);
    }
    if (l->out_first == NULL)
        l->out_last = NULL;
}

/* A write has ended; nng's thread. */
static void out_callback(void *arg)
{
    struct weft_link *l = arg;
    const int rv = nng_aio_result(l->out_aio);
    pthread_mutex_lock(&l->mutex);
    out_drop(l, rv == 0 ? nng_aio_count(l->out_aio) : 0, rv != 0);
    const bool more = l->out_first != NULL;
    bool news = false;
    if (rv != 0) {
        l->out_error = rv;
        news = true;
    }
    if (more)
        write_prepare(l, l->out_aio);
    l->sending = more;
    /* half empty: one wake-up for many frames */
    if (l->want_writable && l->out_frames <= WEFT_SEND_QUEUE_FRAMES / 2 &&
        l->out_bytes <= WEFT_SEND_QUEUE_BYTES / 2) {
        l->want_writable = false;
        l->writable = news = true;
    }
    if (!more && l->finishing)
        news = true;
    if (news)
        unlock_and_wake(l);
    else
        pthread_mutex_unlock(&l->mutex);
    if (more)
        nng_stream_send(l->stream, l->out_aio);
}

/* Starts to send with what the socket takes at once, without a callback: that costs no wake-up of
 * one of nng's threads, and most frames need no more. The abort ends a write that would wait
 * (nothing of it is sent then) and does nothing to one that is done, so the wait is none. The rest
 * goes with a callback. Loop thread, `sending` is set. */
static void write_try(struct weft_link *l)
{
    nng_stream_send(l->stream, l->try_aio);
    nng_aio_abort(l->try_aio, NNG_ECANCELED);
    nng_aio_wait(l->try_aio);
    const int rv = nng_aio_result(l->try_aio);
    pthread_mutex_lock(&l->mutex);
    if (rv == 0)
        out_drop(l, nng_aio_count(l->try_aio), false);
    const bool more = l->out_first != NULL;
    if (more)
        write_prepare(l, l->out_aio);
    l->sending = more;
    pthread_mutex_unlock(&l->mutex);
    if (more)
        nng_stream_send(l->stream, l->out_aio);
}

int weft_link_send(struct weft_link *l, const Weft__Envelope *env, const void *payload,
                   uint32_t payload_size)
{
    pthread_mutex_lock(&l->mutex);
    const bool gone = l->stream == NULL || l->finishing || l->told_closed || l->out_error != 0;
    /* one frame always fits: its own limits are below the queue's */
    const bool full = l->out_frames >= WEFT_SEND_QUEUE_FRAMES ||
                      l->out_bytes + payload_size > WEFT_SEND_QUEUE_BYTES;
    if (full && !gone)
        l->want_writable = true;
    pthread_mutex_unlock(&l->mutex);
    if (gone)
        return -WEFT_ELOST;
    if (full)
        return -WEFT_EFULL;

    struct out_frame *f = malloc(sizeof *f + payload_size);
    if (f == NULL)
        return -WEFT_ENOMEM;
    const int r = weft_frame_encode(env, payload_size, &f->head, &f->head_size, NULL);
    if (r < 0) {
        free(f);
        return r;
    }
    f->next = NULL;
    f->payload_size = payload_size;
    if (payload_size != 0)
        memcpy(f->payload, payload, payload_size);

    pthread_mutex_lock(&l->mutex);
    if (l->out_last != NULL)
        l->out_last->next = f;
    else
        l->out_first = f;
    l->out_last = f;
    l->out_frames++;
    l->out_bytes += out_size(f);
    const bool start = !l->sending;
    l->sending = true;
    if (start)
        write_prepare(l, l->try_aio);
    pthread_mutex_unlock(&l->mutex);
    if (start)
        write_try(l);
    return 0;
}

/* ------------------------------------------------------------------ life */

static void link_free(struct weft_link *l)
{
    nng_aio_free(l->in_aio);
    nng_aio_free(l->out_aio);
    nng_aio_free(l->try_aio);
    out_drop(l, 0, true);
    free(l->in.body);
    pthread_mutex_destroy(&l->mutex);
    free(l);
}

static struct weft_link *link_new(weft_wake_fn *wake, void *arg)
{
    struct weft_link *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    pthread_mutex_init(&l->mutex, NULL);
    l->wake = wake;
    l->arg = arg;
    if (nng_aio_alloc(&l->in_aio, in_callback, l) != 0 ||
        nng_aio_alloc(&l->out_aio, out_callback, l) != 0 ||
        nng_aio_alloc(&l->try_aio, NULL, NULL) != 0) {
        link_free(l);
        return NULL;
    }
    return l;
}

struct weft_link *weft_link_dial(const char *address, uint32_t timeout_ms, weft_wake_fn *wake,
                                 void *arg)
{
    struct weft_link *l = link_new(wake, arg);
    if (l == NULL)
        return NULL;
    snprintf(l->name, sizeof l->name, "%s", address);
    char url[URL_MAX];
    int rv = make_url(address, url);
    if (rv == 0)
        rv = nng_stream_dialer_alloc(&l->dialer, url);
    if (rv != 0) {
        l->in.nng_error = rv == NNG_ENOMEM ? rv : NNG_EADDRINVAL;
        wake(arg);
        return l;
    }
    (void)nng_stream_dialer_set_bool(l->dialer, NNG_OPT_TCP_NODELAY,
                                     true); /* ipc has no such option */
    l->dialling = true;
    l->dial_until = nng_clock() + (timeout_ms < INT32_MAX ? timeout_ms : INT32_MAX);
    dial_start(l);
    return l;
}

/* Makes a link of an accepted stream, which it takes. */
static struct weft_link *link_accepted(nng_stream *stream)
{
    struct weft_link *l = link_new(NULL, NULL);
    if (l == NULL) {
        nng_stream_free(stream);
        return NULL;
    }
    nng_sockaddr sa = {0};
    (void)nng_stream_get_addr(stream, NNG_OPT_REMADDR, &sa);
    format_addr(&sa, l->name, sizeof l->name);
    l->stream = stream;
    return l;
}

void weft_link_attach(struct weft_link *l, weft_wake_fn *wake, void *arg)
{
    pthread_mutex_lock(&l->mutex);
    l->wake = wake;
    l->arg = arg;
    unlock_and_wake(l); /* the first weft_link_next starts to read */
}

void weft_link_pause(struct weft_link *l, bool pause)
{
    pthread_mutex_lock(&l->mutex);
    const bool resumed = l->paused && !pause;
    l->paused = pause;
    if (resumed)
        unlock_and_wake(l);
    else
        pthread_mutex_unlock(&l->mutex);
}

const char *weft_link_peer_name(struct weft_link *l)
{
    return l->name;
}

void weft_link_finish(struct weft_link *l)
{
    pthread_mutex_lock(&l->mutex);
    l->finishing = true;
    unlock_and_wake(l);
}

void weft_link_close(struct weft_link *l)
{
    if (l == NULL)
        return;
    /* close: nothing new completes; stop: callbacks have ended; free: nobody is left to look */
    if (l->dialer != NULL)
        nng_stream_dialer_close(l->dialer);
    pthread_mutex_lock(&l->mutex);
    nng_stream *stream = l->stream;
    pthread_mutex_unlock(&l->mutex);
    if (stream != NULL)
        nng_stream_close(stream);
    nng_aio_stop(l->in_aio);
    nng_aio_stop(l->out_aio);
    if (l->stream != NULL) /* a dial may have succeeded meanwhile */
        nng_stream_free(l->stream);
    if (l->dialer != NULL)
        nng_stream_dialer_free(l->dialer);
    link_free(l);
}

static enum weft_link_event tell_closed(struct weft_link *l, bool open, weft_err *err)
{
    struct in_half *in = &l->in;
    l->told_closed = true;
    if (in->err.code != 0) {
        if (err != NULL)
            *err = in->err;
        weft_err_prefix(err, "%s", l->name);
    } else if (open && (body_lacks(in) != 0 || in->ahead_size != 0)) {
        weft_fail(err, WEFT_ELOST, "%s: closed in the middle of a frame", l->name);
    } else {
        fail_nng(err, l->name, in->nng_error != 0 ? in->nng_error : NNG_ECLOSED, open);
    }
    return WEFT_LINK_CLOSED;
}

/* The receiving half is the loop's: a frame, its end, or nothing and a read under way. */
static enum weft_link_event next_frame(struct weft_link *l, struct weft_frame **ret_frame,
                                       weft_err *err)
{
    struct in_half *in = &l->in;
    bool whole = in->body != NULL && body_lacks(in) == 0;
    if (!whole && in->nng_error == 0 && in->err.code == 0)
        whole = absorb(in) == ABSORB_FRAME;
    if (whole) {
        const int r =
            weft_frame_decode(in->body, in->env_size, in->payload_size, ret_frame, &in->err);
        if (r < 0)
            return tell_closed(l, true, err);
        in->body = NULL;
        return WEFT_LINK_FRAME;
    }
    if (in->nng_error != 0 || in->err.code != 0)
        return tell_closed(l, true, err);
    pthread_mutex_lock(&l->mutex);
    l->reading = true;
    pthread_mutex_unlock(&l->mutex);
    read_start(l);
    return WEFT_LINK_NOTHING;
}

enum weft_link_event weft_link_next(struct weft_link *l, struct weft_frame **ret_frame,
                                    weft_err *err)
{
    if (l->told_closed)
        return WEFT_LINK_NOTHING;
    pthread_mutex_lock(&l->mutex);
    const bool opened = l->opened, open = l->stream != NULL, busy = l->dialling || l->reading;
    const bool writable = l->writable && !l->finishing, drained = l->out_first == NULL;
    const int out_error = l->out_error;
    l->opened = l->writable = false;
    if (opened && writable) /* cannot be: nothing was sent before */
        l->writable = true;
    pthread_mutex_unlock(&l->mutex);

    if (l->finishing && (drained || !open))
        return tell_closed(l, open, err);
    if (opened) {
        nng_stream_dialer_free(l->dialer);
        l->dialer = NULL;
        return WEFT_LINK_OPENED;
    }
    if (writable)
        return WEFT_LINK_WRITABLE;
    if (busy)
        return WEFT_LINK_NOTHING;
    if (!open) {
        if (l->in.nng_error != 0)
            return tell_closed(l, false, err);
        return WEFT_LINK_NOTHING;
    }
    if (l->paused && !l->finishing) {
        /* nobody reads, so the end would not be seen; the frames still unread are lost with it */
        if (out_error == 0)
            return WEFT_LINK_NOTHING;
        l->in.nng_error = out_error;
        return tell_closed(l, true, err);
    }
    enum weft_link_event e;
    while ((e = next_frame(l, ret_frame, err)) == WEFT_LINK_FRAME && l->finishing)
        weft_frame_free(*ret_frame); /* nobody wants it; the other side must not block */
    return e;
}

/* ------------------------------------------------------------------ listener */

struct weft_listener {
    pthread_mutex_t mutex;
    nng_stream_listener *listener;
    nng_aio *aio;
    weft_wake_fn *wake;
    void *arg;
    nng_stream *stream; /* the slot: accepted, not yet taken */
    bool resting;
};

static void accept_callback(void *arg)
{
    struct weft_listener *ls = arg;
    const int rv = nng_aio_result(ls->aio);
    pthread_mutex_lock(&ls->mutex);
    const bool rested = ls->resting;
    ls->resting = false;
    if (rv == 0 && !rested) {
        ls->stream = nng_aio_get_output(ls->aio, 0);
        pthread_mutex_unlock(&ls->mutex);
        ls->wake(ls->arg);
        return;
    }
    ls->resting = rv != 0 && rv != NNG_ECLOSED && rv != NNG_ECANCELED;
    const bool rest = ls->resting;
    pthread_mutex_unlock(&ls->mutex);
    if (rest)
        nng_sleep_aio(ACCEPT_REST_MS, ls->aio);
    else if (rv == 0)
        nng_stream_listener_accept(ls->listener, ls->aio);
}

int weft_listener_open(const char *address, weft_wake_fn *wake, void *arg,
                       struct weft_listener **ret, uint16_t *ret_port, weft_err *err)
{
    int r = 0;
    struct weft_listener *ls = calloc(1, sizeof *ls);
    if (ls == NULL)
        return weft_fail(err, WEFT_ENOMEM, "listen at %s: out of memory", address);
    pthread_mutex_init(&ls->mutex, NULL);
    ls->wake = wake;
    ls->arg = arg;
    char url[URL_MAX];
    int port = 0;
    int rv = make_url(address, url);
    if (rv == 0)
        rv = nng_aio_alloc(&ls->aio, accept_callback, ls);
    if (rv == 0)
        rv = nng_stream_listener_alloc(&ls->listener, url);
    if (rv == 0) {
        (void)nng_stream_listener_set_bool(ls->listener, NNG_OPT_TCP_NODELAY,
                                           true); /* not for ipc */
        rv = nng_stream_listener_listen(ls->listener);
    }
    if (rv == 0 && strncmp(url, "tcp://", 6) == 0)
        rv = nng_stream_listener_get_int(ls->listener, NNG_OPT_TCP_BOUND_PORT, &port);
    if (rv == NNG_EADDRINUSE)
        r = weft_fail(err, WEFT_EIO,
                      "listen at %s: address in use: is another weftd running there?", address);
    else if (rv == NNG_EADDRINVAL)
        r = weft_fail(err, WEFT_EIO, "listen at %s: not an address of this machine", address);
    else if (rv == NNG_EPERM)
        r = weft_fail(err, WEFT_EIO, "listen at %s: not permitted: choose a port above 1023",
                      address);
    else if (rv != 0)
        r = weft_fail(err, rv == NNG_ENOMEM ? WEFT_ENOMEM : WEFT_EIO, "listen at %s: %s", address,
                      nng_strerror(rv));
    if (r < 0) {
        weft_listener_close(ls);
        return r;
    }
    nng_stream_listener_accept(ls->listener, ls->aio);
    *ret = ls;
    if (ret_port != NULL)
        *ret_port = (uint16_t)port;
    return 0;
}

struct weft_link *weft_listener_next(struct weft_listener *ls)
{
    pthread_mutex_lock(&ls->mutex);
    nng_stream *stream = ls->stream;
    ls->stream = NULL;
    pthread_mutex_unlock(&ls->mutex);
    if (stream == NULL)
        return NULL;
    struct weft_link *l = link_accepted(stream);
    nng_stream_listener_accept(ls->listener, ls->aio);
    return l;
}

void weft_listener_close(struct weft_listener *ls)
{
    if (ls == NULL)
        return;
    if (ls->listener != NULL)
        nng_stream_listener_close(ls->listener);
    if (ls->aio != NULL)
        nng_aio_stop(ls->aio);
    if (ls->stream != NULL)
        nng_stream_free(ls->stream);
    if (ls->listener != NULL)
        nng_stream_listener_free(ls->listener);
    nng_aio_free(ls->aio);
    pthread_mutex_destroy(&ls->mutex);
    free(ls);
}
