/*
 * Node: the state machine of a daemon. Connections and their lanes, the lease, deploying, sessions
 * and the ring of stages (ARCHITECTURE.md, "The protocol").
 *
 * Invariant: it acts through struct weft_io alone and never blocks; whatever the compute thread
 * works on stays as it is until its `done`. One thread: the loop's. tests/sim.c runs many nodes in
 * one process.
 */
#ifndef WEFT_DAEMON_NODE_H
#define WEFT_DAEMON_NODE_H

#include "base/log.h"
#include "daemon/probe.h"
#include "kernels/kernels.h"
#include "proto/io.h"

#define WEFT_NODE_PEERS_MAX 64u   /* accepted connections */
#define WEFT_NODE_STAGES_MAX 16u  /* stages that one daemon serves */
#define WEFT_NODE_QUEUE_FRAMES 8u /* Step frames that wait before a stage; then its link pauses */
#define WEFT_NODE_LINK_REQUESTS_MAX 16u /* LinkRequests that wait for their turn */
#define WEFT_NODE_STOP_IDS_MAX 64u
#define WEFT_NODE_RUN_AHEAD 32u        /* tokens beyond the last Ack */
#define WEFT_NODE_LEASE_NS 5000000000u /* a lease outlives its lost connection for so long */
#define WEFT_NODE_PROBE_AGE_S 86400u   /* a measurement is fresh for a day */

struct weft_node;

/* What the machine says of itself now. */
struct weft_look {
    uint64_t total_bytes;     /* of the machine or its control group */
    uint64_t available_bytes; /* that weft may still allocate, the reserve taken off */
    uint64_t machine_bytes;   /* the machine's free memory, shared by daemons of one boot id */
    uint64_t cap_bytes;       /* most that weft may use, UINT64_MAX: no cap */
    uint64_t reserve_bytes;   /* taken off already; for texts */
    bool has_temperature;
    int32_t temperature_millidegrees;
};

struct weft_node_options {
    const char *name; /* of the device; all strings are borrowed until close */
    const char *cpu, *boot_id;
    struct weft_io *io;      /* borrowed until close */
    struct wk_engine engine; /* table and pool, borrowed until close; gemm comes with each Deploy */
    uint64_t drain_ns;       /* how long a drain waits for running turns */
    const struct weft_probe *probe; /* an older measurement, copied; NULL: none */
    uint64_t probe_age_s;
    /* Memory and temperature; loop thread. */
    void (*look)(void *arg, struct weft_look *ret);
    /* Measures the machine; compute thread. NULL: never. */
    int (*measure)(void *arg, struct weft_probe *ret, weft_err *err);
    /* A new measurement, to be kept; loop thread. NULL: not kept. */
    void (*measured)(void *arg, const struct weft_probe *probe);
    /* One event for the log; loop thread. NULL: silent. */
    void (*log)(void *arg, enum weft_log_level level, const char *event,
                const struct weft_field *fields, size_t n);
    void *arg;
};

enum weft_node_state {
    WEFT_NODE_IDLE,
    WEFT_NODE_HELD,
    WEFT_NODE_LOADING,
    WEFT_NODE_READY,
    WEFT_NODE_COUNT
};

/* -WEFT_ECONFIG (a name that is none), -WEFT_ENOMEM. */
int weft_node_open(const struct weft_node_options *opt, struct weft_node **ret,
                   weft_err *err) WEFT_MUST_USE;
/* Takes a new connection. */
void weft_node_accept(struct weft_node *n, struct weft_conn *c);
/* Refuses new leases and turns from now on, lets running turns finish for opt.drain_ns at most,
 * then says farewell to the coordinator, frees the plan and calls `drained` once, from a timer.
 * Does nothing to a node that is closing. */
void weft_node_drain(struct weft_node *n, void (*drained)(void *arg), void *arg);
/* Changes opt.drain_ns, for drains to come. */
void weft_node_set_drain(struct weft_node *n, uint64_t drain_ns);
/* Ends everything at once. What the compute thread has in hand is waited for through the io: the
 * node is freed, and `closed` called (if not NULL), at once or when that has come back. */
void weft_node_close(struct weft_node *n, void (*closed)(void *arg), void *arg);

enum weft_node_state weft_node_state(const struct weft_node *n);
const char *
weft_node_state_name(enum weft_node_state state); /* "idle", "held", "loading", "ready" */
/* Who holds the lease, "" when nobody does; good until the next event. */
const char *weft_node_holder(const struct weft_node *n);

#endif
