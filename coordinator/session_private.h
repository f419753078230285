/*
 * Inside of a session: shared by session.c (life, what comes) and session_send.c (what is due to be
 * sent), by nobody else.
 */
#ifndef WEFT_COORDINATOR_SESSION_PRIVATE_H
#define WEFT_COORDINATOR_SESSION_PRIVATE_H

#include "coordinator/cluster_private.h"

/* A stop list longer than this is refused: real models have a handful. */
#define STOP_IDS_MAX 64u

enum session_state {
    SESSION_IDLE,
    SESSION_BEGINNING, /* waits for Begun from every daemon */
    SESSION_RUNNING    /* prompt is being sent, or tokens come */
};

struct weft_session {
    struct weft_cluster *cluster;
    struct weft_session *next;
    const struct weft_session_events *events;
    void *arg;
    uint32_t id, turn;
    enum session_state state;
    int32_t *history;                        /* [context] tokens */
    uint32_t n_history;                      /* tokens known */
    uint32_t n_computed;                     /* of these, KV known to be at every daemon */
    uint32_t prompt_start, prompt_end, sent; /* of this turn: positions; sent: next one to send */
    uint64_t begin_due, begun_missing;       /* bit per device */
    uint32_t acked;
    bool ack_due;
    struct weft_turn params; /* tokens and stop_ids not used: the stop ids stand below */
    uint32_t stop_ids[STOP_IDS_MAX];
    float *logits; /* [vocab] row being assembled; NULL until wanted */
    uint32_t logits_filled, logits_position;
    uint32_t n_answer;
    float mirostat_mu; /* after the last token */
    uint64_t started_ns, begun_ns, first_ns, last_ns;
    uint64_t patience_ns; /* of the watch that runs */
    struct weft_timer late;
};

/* session_send.c: sends what is due; what a full link refuses waits for `writable`. A lost link is
 * told by its peer. */
void weft_session_pump(struct weft_session *s);

#endif
