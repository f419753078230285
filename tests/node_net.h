/*
 * A few nodes in the simulator and a hand-driven coordinator, for tests that say each frame
 * themselves and look at each answer. The coordinator of the program is not used: it never says
 * anything wrong.
 */
#ifndef WEFT_TESTS_NODE_NET_H
#define WEFT_TESTS_NODE_NET_H

#include "base/model.h"
#include "base/model_file.h"
#include "daemon/node.h"
#include "proto/peer.h"
#include "tests/sim.h"

#define NET_NODES_MAX 4
#define NET_STAGES_MAX 8
#define NET_INBOX_MAX 256
#define NET_CLIENT_HOST (SIM_HOSTS_MAX - 1u)
#define NET_SECOND_NS UINT64_C(1000000000)

/* One connection of the test. */
struct net_client {
    struct weft_peer peer;
    bool open, up, down;
    weft_err why;
    struct weft_frame *inbox[NET_INBOX_MAX];
    unsigned n_inbox;
    bool event; /* something came since it was last looked at */
};

struct net_stage {
    uint32_t first_layer, n_layers;
    unsigned node;
};

struct net_plan {
    struct net_stage stages[NET_STAGES_MAX];
    uint32_t n_stages;
    uint32_t context, sessions, batch_rows; /* 0: 64, 2, 16 */
};

struct net {
    struct sim *sim;
    unsigned n_nodes;
    struct weft_node *nodes[NET_NODES_MAX]; /* NULL: closed by the test */
    struct weft_look look;                  /* what every node sees */
    unsigned measured;                      /* probes so far */
    bool probing;                           /* the first one has begun */
    struct weft_model model;
    struct weft_model_file file;
    Weft__Epoch epoch;
    struct net_client control[NET_NODES_MAX], weights[NET_NODES_MAX], results;
    uint32_t request;
};

struct net *net_open(unsigned n_nodes, uint64_t seed);
void net_close(struct net *n);

const char *net_address(unsigned node); /* "n1:1" */
/* Lets virtual time pass. */
void net_run(struct net *n, uint64_t ns);
void net_dial(struct net *n, struct net_client *c, unsigned node, Weft__Lane lane,
              const Weft__Epoch *epoch, uint32_t stage, const char *name);
/* Takes a connection that a node dialled to the test's host. */
void net_accept(struct net *n, struct net_client *c, struct weft_conn *conn, const char *name);
void net_hang_up(struct net_client *c);
void net_send(struct net_client *c, Weft__Envelope *env, const void *payload, uint32_t size);
/* The next frame with this body, others before it stay; the test fails when none comes in 20
 * virtual seconds. The caller frees it. */
struct weft_frame *net_wait(struct net *n, struct net_client *c, Weft__Envelope__BodyCase body);
/* Waits for a frame and drops it. */
void net_expect(struct net *n, struct net_client *c, Weft__Envelope__BodyCase body);
/* A Fault with this code and session whose text contains `text`. */
void net_expect_fault(struct net *n, struct net_client *c, int code, uint32_t session,
                      const char *text);
/* The connection is closed by the node, its last word was this. */
void net_expect_refused(struct net *n, struct net_client *c, int code, const char *text);
/* True when a frame with this body is there, or comes within ns. */
bool net_comes(struct net *n, struct net_client *c, Weft__Envelope__BodyCase body, uint64_t ns);

/* Requests. */
void net_acquire(struct net *n, unsigned node);
/* A Deploy for one node in the arena. */
Weft__Deploy *net_deploy_of(struct net *n, const struct net_plan *plan, unsigned node,
                            struct weft_arena *a);
void net_send_deploy(struct net *n, unsigned node, Weft__Deploy *d);
void net_send_missing(struct net *n, unsigned node, const Weft__Missing *missing);
void net_send_connect(struct net *n, unsigned node);
/* All of it: control lanes, leases, shards, links, results lane. */
void net_bring_up(struct net *n, const struct net_plan *plan);

/* Sessions. */
struct net_turn {
    uint32_t session, turn, position, max_tokens;
    const int32_t *prompt;
    uint32_t n_prompt;
    Weft__Want want;
    uint32_t stop_id; /* 0: none */
};
void net_send_begin(struct net *n, unsigned node, const struct net_turn *t);
void net_send_prompt(struct net *n, unsigned node, const struct net_turn *t);
/* Begin to every node of the plan, Begun from each, Prompt to the first. */
void net_start_turn(struct net *n, const struct net_plan *plan, const struct net_turn *t);
void net_send_ack(struct net *n, unsigned node, const struct net_turn *t, uint32_t position);
void net_send_cancel(struct net *n, unsigned node, uint32_t session, uint32_t turn);
void net_send_close(struct net *n, unsigned node, uint32_t session);

#endif
