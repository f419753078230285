/*
 * Peer: one connection after Hello: version and capabilities agreed, heartbeat kept, re-dialled if
 * asked. A small state machine over struct weft_io, shared by daemon and coordinator.
 *
 *     dialling ─opened─► greeting ─Hello─► up ─closed/dead─► down (─back-off─► dialling)
 *
 * Versions: both sides send [version_min, version]; the highest common one is spoken; without one
 * both sides answer Fault VERSION that names both ranges and close. Heartbeat: Ping after `ping_ms`
 * without sending; dead after `dead_ms` without receiving. Re-dial: delays 100 ms · 2^n up to 5 s,
 * each times a random factor in [0.5, 1.5).
 */
#ifndef WEFT_PROTO_PEER_H
#define WEFT_PROTO_PEER_H

#include "proto/io.h"

#define WEFT_PROTOCOL_VERSION 2u /* 2: models of several architectures */
#define WEFT_PROTOCOL_VERSION_MIN 2u
#define WEFT_PORT_DEFAULT 7117
#define WEFT_CAPABILITIES_MAX 64
#define WEFT_NAME_MAX 64u /* device names: letters, digits, '-', '_', '.' */

/* dead_ms of the end of a lane that gets large frames: on a slow link one of 256 KiB takes seconds,
 * and nothing else comes meanwhile. The loss of a machine is seen on lane control. */
#define WEFT_BULK_DEAD_MS 10000u

struct weft_peer;

struct weft_peer_events {
    void (*up)(struct weft_peer *p); /* Hello agreed; p->hello is the other's */
    void (*frame)(struct weft_peer *p, struct weft_frame *f); /* gives f; never Hello or Ping */
    void (*writable)(struct weft_peer *p);
    /* An up connection was lost, or the last try to get one failed. p->state says whether that was
     * the end: WEFT_PEER_DOWN, or WEFT_PEER_DIALLING while it tries again. A Fault instead of
     * Hello, another version and a stranger's bytes are final. Not after weft_peer_close. */
    void (*down)(struct weft_peer *p, const weft_err *why);
};

struct weft_peer_options {
    const struct weft_peer_events *events;
    void *owner;
    const char *address;      /* dialling: borrowed until close */
    uint32_t dial_timeout_ms; /* 0: 3000 */
    uint32_t redials; /* further tries after a failed dial or a loss; UINT32_MAX: for ever */
    uint32_t ping_ms, dead_ms; /* 0: 250 and 1000 */
    Weft__Hello hello; /* ours: name, software, lane, epoch, stage; version and capabilities are
                          filled in; strings borrowed until close */
    uint32_t version, version_min; /* 0: this build's; tests speak others */
};

struct weft_peer {
    struct weft_io *io;
    struct weft_peer_options opt;
    struct weft_conn *conn; /* NULL while down */
    enum { WEFT_PEER_DIALLING, WEFT_PEER_GREETING, WEFT_PEER_UP, WEFT_PEER_DOWN } state;
    uint32_t version;   /* agreed */
    Weft__Hello *hello; /* the other's, valid while up (in hello_frame) */
    struct weft_frame *hello_frame;
    uint64_t last_sent_ns, last_received_ns;
    uint64_t due_ns; /* when timer should fire; later means this process stood still */
    uint32_t tries;
    struct weft_timer timer; /* heartbeat, greeting time-out or back-off */
    bool paused;             /* the owner paused reading: silence is not death */
};

/* Starts to dial. Returns at once; up or down follows. */
void weft_peer_dial(struct weft_peer *p, struct weft_io *io, const struct weft_peer_options *opt);
/* Takes an accepted connection; the other side speaks first. opt->address is not used. */
void weft_peer_accept(struct weft_peer *p, struct weft_io *io, struct weft_conn *c,
                      const struct weft_peer_options *opt);
/* As io->send; -WEFT_ELOST while not up. */
int weft_peer_send(struct weft_peer *p, const Weft__Envelope *env, const void *payload,
                   uint32_t payload_size) WEFT_MUST_USE;
void weft_peer_pause(struct weft_peer *p, bool pause);
/* Sends a Fault and closes after it has left. The peer is down, without an event. */
void weft_peer_refuse(struct weft_peer *p, int code, const char *fmt, ...) WEFT_PRINTF(3, 4);
/* Closes without events; flush as io->close. Can be called in any state, also from events (where
 * the peer may be freed right after), more than once, and on a zeroed peer. */
void weft_peer_close(struct weft_peer *p, bool flush);
/* True when the other side named the capability. */
bool weft_peer_can(const struct weft_peer *p, const char *capability);

/* A Fault as an error ("pi5-a: …") and an error as a Fault (text borrowed). */
int weft_fault_err(const Weft__Fault *f, const char *who, weft_err *err);
Weft__Fault weft_fault_of(const weft_err *err);

/* Conversions between wire and structs, with all checks: -WEFT_EPROTOCOL or the model's error. */
struct weft_model;
struct weft_shard_run;
int weft_model_of_wire(const Weft__Model *w, struct weft_model *ret, weft_err *err) WEFT_MUST_USE;
/* Fills a Weft__Model in the arena; -WEFT_ENOMEM. */
int weft_model_to_wire(const struct weft_model *m, struct weft_arena *a, Weft__Model **ret,
                       weft_err *err) WEFT_MUST_USE;
int weft_run_of_wire(const Weft__ShardRun *w, struct weft_shard_run *ret,
                     weft_err *err) WEFT_MUST_USE;
bool weft_epoch_equal(const Weft__Epoch *a, const Weft__Epoch *b); /* NULL equals nothing */

#endif
