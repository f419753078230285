/*
 * Inside of the cluster state machine: shared by cluster.c (peers, phases), cluster_gather.c,
 * cluster_deploy.c and session.c, by nobody else.
 */
#ifndef WEFT_COORDINATOR_CLUSTER_PRIVATE_H
#define WEFT_COORDINATOR_CLUSTER_PRIVATE_H

#include "coordinator/cluster.h"

enum cluster_phase {
    PHASE_IDLE,
    PHASE_DIAL,
    PHASE_STATUS,
    PHASE_PROBE,
    PHASE_LINKS,
    PHASE_ACQUIRE,
    PHASE_DEPLOY,
    PHASE_LOAD,
    PHASE_CONNECT,
    PHASE_RESULTS,
    PHASE_STATS,
    PHASE_RELEASE,
    PHASE_COUNT
};

/* Where the sending of a device's missing shards stands. */
struct load_cursor {
    struct weft_shard_run *runs; /* [n_runs] */
    size_t n_runs, run;
    struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
    size_t n_parts, part;
    uint64_t offset; /* in the part */
    uint64_t sent_bytes, total_bytes;
};

struct device {
    struct weft_cluster *cluster;
    uint32_t index;
    struct weft_device_status status;
    struct weft_peer control, weights;
    bool control_open, weights_open;
    Weft__Envelope__BodyCase awaiting; /* answer this device owes; NOT_SET: none */
    uint32_t request;                  /* its number */
    struct weft_timer deadline;
    bool asked;  /* in this phase already */
    bool used;   /* by the plan */
    bool held;   /* we have its lease, or asked for it */
    bool loaded; /* said so for this epoch */
    struct load_cursor load;
};

struct weft_cluster {
    struct weft_io *io;
    struct weft_cluster_options opt;
    struct device *devices; /* [opt.n_devices] */
    struct weft_link_facts *links;
    enum cluster_phase phase;
    bool asking; /* a loop over the devices is sending questions: no phase ends under it */
    unsigned gather;
    uint32_t link_from, link_to; /* pair being measured */
    weft_done_fn *done;
    void *done_arg;
    uint32_t requests; /* last number given out */
    uint64_t id;
    uint32_t epoch_counter;
    Weft__Epoch epoch; /* (id, epoch_counter); Hellos point at it */
    struct weft_deployment deployment;
    struct weft_plan_stage *stages; /* [n_stages], copy of the plan's */
    uint32_t n_stages;
    struct weft_peer results;
    bool results_open, ready;
    uint64_t predicted_token_ns, predicted_row_ns; /* 0: not predicted */
    struct weft_stage_report *report;              /* [n_stages] */
    struct weft_session *sessions;                 /* list */
    uint32_t n_sessions, session_ids;
    uint32_t vocab_sent; /* tokens whose texts the head's daemon has been sent, in this epoch */
    struct weft_timer closing;
    void (*closed)(void *arg);
    void *closed_arg;
};

/* cluster.c */
const char *weft_device_name(const struct device *d);
/* Sends a request and waits for `awaiting`; its number goes into *request. */
void weft_device_ask(struct device *d, Weft__Envelope *env, uint32_t *request,
                     Weft__Envelope__BodyCase awaiting);
void weft_device_patience(struct device *d); /* starts the deadline afresh */
/* The device's part of the phase is done. */
void weft_device_answered(struct device *d);
/* The device failed: in a gathering it is marked, else the phase or the plan fails. */
void weft_device_failed(struct device *d, const weft_err *why);
void weft_cluster_begin_phase(struct weft_cluster *c, enum cluster_phase phase);
/* Goes on to the next phase when no device owes an answer; not while questions are being asked. */
void weft_cluster_advance(struct weft_cluster *c);
void weft_cluster_end_phase(struct weft_cluster *c, const weft_err *err);
struct device *weft_stage_device(struct weft_cluster *c, uint32_t stage);

/* cluster_gather.c, cluster_deploy.c: what a phase does first, and with an answer. */
void weft_gather_start(struct weft_cluster *c);
void weft_gather_frame(struct device *d, struct weft_frame *f);
void weft_deploy_start(struct weft_cluster *c);
void weft_deploy_frame(struct device *d, struct weft_frame *f);
void weft_deploy_done(struct weft_cluster *c); /* closes and frees what deploy opened */

/* session.c */
void weft_sessions_control(struct device *d, struct weft_frame *f); /* Begun, Fault of a session */
void weft_sessions_result(struct weft_cluster *c, struct weft_frame *f); /* Token, Logits */
void weft_sessions_writable(struct weft_cluster *c);
void weft_sessions_fail(struct weft_cluster *c, const weft_err *why); /* all of them */

#endif
