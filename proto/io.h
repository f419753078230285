/*
 * io: everything a state machine may do to the world (design 1.7). The daemon's node, the
 * coordinator's cluster and proto/peer.c act through this table only; proto/io_uv.c implements it
 * over libuv and proto/link.c, tests/sim.c on virtual time with a whole cluster in one process.
 *
 * Threads: all functions and all callbacks run on the loop thread, except weft_work.run.
 */
#ifndef WEFT_PROTO_IO_H
#define WEFT_PROTO_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/frame.h"

struct weft_io;
struct weft_conn; /* one connection; belongs to the io, valid until its `closed` ran */

/* A timer lies in its owner; armed at most once at a time; fires once. */
struct weft_timer {
    void (*fire)(struct weft_timer *t);
    void *owner;
    uint64_t due_ns; /* io's own: */
    struct weft_timer *next, *prev;
    bool armed;
};

/* What happens on a connection. Set with io->events right after accept or dial. */
struct weft_conn_events {
    void (*opened)(void *arg, struct weft_conn *c);                      /* a dial succeeded */
    void (*frame)(void *arg, struct weft_conn *c, struct weft_frame *f); /* gives f: free it */
    void (*writable)(void *arg,
                     struct weft_conn *c); /* after send said FULL: there is room again */
    void (*closed)(void *arg, struct weft_conn *c,
                   const weft_err *why); /* the last event, also after
          a failed dial; not called after io->close by the owner */
};

/* Work for the compute thread: run() there, then done() on the loop. One item is in hand at a time,
 * the others wait in order. Lies in its owner, which keeps it until done().
 *
 * A brief item (WEFT_BRIEF_NS at most, as its owner has seen before) may run on the loop thread
 * when the compute thread has nothing in hand: two changes of thread cost more than it does, and
 * the loop can spare the time. done() never comes from within io->work. */
#define WEFT_BRIEF_NS 300000u /* a thousandth of the patience that heartbeats have */
struct weft_work {
    void (*run)(struct weft_work *w);
    void (*done)(struct weft_work *w);
    void *owner;
    bool brief;
    struct weft_work *next; /* io's own */
};

struct weft_io {
    uint64_t (*now_ns)(struct weft_io *io); /* monotonic */
    uint64_t (*random)(struct weft_io *io); /* 64 random bits */
    void (*timer_start)(struct weft_io *io, struct weft_timer *t, uint64_t delay_ns); /* re-arms */
    void (*timer_stop)(struct weft_io *io, struct weft_timer *t); /* accepts an idle one */
    /* Starts a connection to "host:port" ("[v6]:port", "ipc:///path"); always gives a conn (NULL:
     * out of memory), which later gets opened or closed. Gives up after timeout_ms. */
    struct weft_conn *(*dial)(struct weft_io *io, const char *address, uint32_t timeout_ms,
                              const struct weft_conn_events *events, void *arg);
    /* Chooses who gets the events of an accepted connection. */
    void (*events)(struct weft_io *io, struct weft_conn *c, const struct weft_conn_events *events,
                   void *arg);
    /* Queues one frame; copies everything. -WEFT_EFULL when the queue is over its limit (nothing
     * was queued; `writable` will come); -WEFT_ELOST when the connection is gone; -WEFT_ENOMEM,
     * -WEFT_ETOOLONG and -WEFT_EPROTOCOL as weft_frame_encode. Never blocks. */
    int (*send)(struct weft_io *io, struct weft_conn *c, const Weft__Envelope *env,
                const void *payload, uint32_t payload_size);
    /* Stops (true) or resumes reading: back-pressure to the sender. */
    void (*pause)(struct weft_io *io, struct weft_conn *c, bool pause);
    /* Ends a connection; flush: what is queued is sent first (for at most a second). No event
     * follows; c is gone for the caller. */
    void (*close)(struct weft_io *io, struct weft_conn *c, bool flush);
    /* "192.168.1.4:51234" of the other end; static text, good until the next call. */
    const char *(*peer_name)(struct weft_io *io, struct weft_conn *c);
    void (*work)(struct weft_io *io, struct weft_work *w);
};

/* Frames a connection may have queued for sending before send says FULL. */
#define WEFT_SEND_QUEUE_FRAMES 64
#define WEFT_SEND_QUEUE_BYTES (4u << 20)

#endif
