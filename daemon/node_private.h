/*
 * The inside of a node, shared by node*.c and by nobody else:
 *
 *     node.c          connections, lanes, drain, close; settle
 *     node_lease.c    Acquire, Release, the loss of the holder
 *     node_look.c     what needs no lease: Status, probe, LinkRequest, Echo
 *     node_plan.c     a Deploy checked and weighed
 *     node_deploy.c   Deploy, shards, opening of stages, links to the next ones
 *     node_session.c  Begin, Prompt, Cancel, Close, Ack, tokens back to stage 0
 *     node_sampling.c what a Begin says of sampling; grammars and the Vocabulary they need
 *     node_ring.c     the cycle of a stage: rows in, step in hand, rows out
 *     node_head.c     what only the stage with the output head does: sampling, Logits, Token
 *
 * Invariant: an event changes state and calls node_settle last; only node_settle acts on what
 * follows from it (ends a failed epoch, starts steps, frees what is no longer in hand). So nothing
 * is freed under the function that still uses it, and nothing recurses from stage to stage.
 */
#ifndef WEFT_DAEMON_NODE_PRIVATE_H
#define WEFT_DAEMON_NODE_PRIVATE_H

#include "base/grammar.h"
#include "base/text.h"
#include "daemon/node.h"
#include "daemon/sampler.h"
#include "daemon/stage.h"
#include "proto/peer.h"

/* Links this daemon dials: one behind each stage, tokens to stage 0, one that is measured. */
#define NODE_DIALS_MAX (WEFT_NODE_STAGES_MAX + 2u)
#define NODE_PEERS (WEFT_NODE_PEERS_MAX + NODE_DIALS_MAX)
#define NODE_PLAN_MAX 256u     /* stages of a plan */
#define NODE_AFTER_PAUSE 4u    /* frames that may still come after a pause */
#define NODE_LOGITS_CUT 65536u /* values of a Logits frame: 256 KiB */
#define NODE_ADDRESS_MAX 256u
#define NODE_PROBE_TRIPS 15u /* empty trips to the compute thread, of which the median counts */

struct node_epoch;
struct node_stage;

/* A slot for one connection; slots are not freed before the node, so that a peer's events may close
 * it. */
struct node_peer {
    struct weft_peer peer; /* first: events get this */
    struct weft_node *node;
    bool used, dialled;
    Weft__Lane lane;          /* NONE until Hello */
    struct node_stage *stage; /* STEPS: whom frames are for (accepted) or come from (dialled) */
    bool tokens;              /* STEPS, dialled: the head's way back to stage 0 */
    bool asked;               /* waits for the probe in hand … */
    uint32_t status_request;  /* … to be answered by this number */
    weft_err farewell;        /* the Fault that came before the end */
    char address[NODE_ADDRESS_MAX]; /* dialled */
    char name[WEFT_NAME_MAX + 1];   /* as Hello says, or, dialled, as the plan calls the device */
};

/* ------------------------------------------------------------------ sessions and steps */

struct node_session {
    uint32_t id, turn, slot;      /* id 0: free */
    bool running;                 /* begun and, as far as known here, not finished */
    bool stopped;                 /* cancelled or failed: frames of this turn are dropped */
    bool closing;                 /* freed when no step in hand touches it */
    bool fresh;                   /* begin is of another session than the step in hand */
    struct weft_frame *begin;     /* waits for the step in hand; its turn is ours already */
    uint64_t begun_ns, active_ns; /* last Begin, last step */
    /* stage 0: what is known of the text */
    int32_t *tokens;              /* [context]; NULL elsewhere */
    uint32_t n_tokens, n_stepped; /* known; put into steps */
    uint32_t prompt_end;          /* position behind the prompt */
    bool prompt_done;             /* `last` was seen */
    Weft__Want want;
    uint32_t max_tokens;
    /* head. While a step of this session is in hand the compute thread reads sampling and history
     * and moves the grammar's state. */
    struct weft_sampling sampling;
    struct weft_logit_bias *bias; /* [WEFT_LOGIT_BIAS_MAX]; NULL elsewhere */
    int32_t *history;             /* [WEFT_HISTORY_MAX], newest last; NULL elsewhere */
    uint32_t n_history;
    float mu; /* mirostat's state */
    bool logprobs;
    uint32_t top_logprobs;
    struct weft_grammar *grammar; /* NULL: none */
    struct weft_grammar_state *grammar_state;
    uint32_t stop_ids[WEFT_NODE_STOP_IDS_MAX];
    uint32_t n_stop_ids, n_sampled;
    uint32_t acked; /* the coordinator has all tokens below */
    bool held;      /* a token waits for Ack, or for room on the link, before stage 0 gets it */
    uint32_t held_position, held_id;
};

struct node_seg {
    uint32_t session, turn, slot, position, rows;
    Weft__Want want;
    bool sample;
};

/* A step on its way into a stage. Complete when have_rows reaches total_rows. */
struct node_batch {
    struct node_seg *segs;                  /* [sessions] */
    uint32_t n_segs, have_rows, total_rows; /* total_rows 0: empty */
    uint64_t number;
    float *x;        /* [batch_rows, dim]; NULL on the stage with the embedding */
    int32_t *tokens; /* [batch_rows]; only there */
};

/* Rows that arrive, from a frame or from the stage before on this daemon. */
struct node_rows {
    const struct node_seg *segs;
    uint32_t n_segs, first_row, n_rows, total_rows;
    uint64_t number;
    const float *x; /* [n_rows, dim] */
};

struct node_sample {
    bool made;
    int32_t id;
    uint32_t position;
    float mu;                                            /* after it */
    struct weft_logprob logprobs[1 + WEFT_LOGPROBS_MAX]; /* its own, then the best ones */
    Weft__Finish finish;
    int result;
    weft_err err;
};

enum node_stage_state { NODE_STAGE_IDLE, NODE_STAGE_COMPUTING, NODE_STAGE_SENDING };

struct node_stage {
    struct node_epoch *epoch;
    uint32_t index; /* in the plan */
    uint32_t first_layer, n_layers;
    bool embed, head;
    struct weft_stage *stage;
    struct node_peer *in; /* the accepted link of the stage before, or of the head for stage 0 */
    struct node_peer
        *out; /* the dialled link to the next stage; NULL when it is here, or for the head */
    struct node_stage *next; /* the next stage when it is on this daemon */
    struct weft_frame *queue[WEFT_NODE_QUEUE_FRAMES + NODE_AFTER_PAUSE];
    uint32_t n_queue;
    uint64_t in_number, out_number; /* of the next step */
    struct node_batch fill, hand;
    enum node_stage_state state;
    uint32_t out_row;   /* rows sent */
    uint32_t next_slot; /* stage 0: whose prompt goes first, in turn */
    /* compute thread while COMPUTING: */
    struct weft_work work;
    struct weft_segment *segments;     /* [sessions] */
    struct weft_candidate *candidates; /* [vocab]; head */
    uint64_t *allowed;                 /* a bit per token; head */
    struct node_sample *samples;       /* [sessions]; head */
    int result;
    weft_err err;
    uint64_t kernel_ns;
    uint64_t row_ns; /* what a row took in the last step; 0: none yet */
    /* head, while SENDING: */
    uint32_t out_seg, out_seg_row, out_value;
    /* wire form of segments, used while a frame is made */
    Weft__Segment *wire; /* [sessions] */
    Weft__Segment **wire_at;
    struct node_seg *parsed; /* [sessions], of the frame being looked at */
    /* statistics since Ready */
    uint64_t steps, rows, compute_ns, wait_ns, sent_bytes, dropped, done_ns;
};

/* ------------------------------------------------------------------ the epoch */

enum node_phase { NODE_LOADING, NODE_OPENING, NODE_LOADED, NODE_CONNECTING, NODE_READY };

struct node_hop { /* a stage of the plan: where it is */
    char *name, *address;
    bool mine;
};

struct node_missing {
    struct weft_shard_run run;
    bool there;
};

/* The texts of all tokens, for grammars: filled by Vocabulary frames, then made into a trie. */
struct node_vocab {
    struct weft_token_text *texts; /* [vocab]; NULL: nothing came yet */
    char *bytes;                   /* [size], those of texts */
    uint32_t n, size, used;
    struct weft_token_trie *trie; /* NULL: not made yet */
    weft_err err;                 /* why it cannot be made; code 0: there is no reason */
    struct weft_work make;
    /* compute thread until `make` is done; make_done hands them over: */
    struct weft_token_trie *made;
    weft_err made_err;
};

struct node_epoch {
    struct weft_node *node;
    Weft__Epoch id;
    enum node_phase phase;
    bool failed;                    /* settle ends it */
    uint32_t busy;                  /* work items with the compute thread that name this epoch */
    struct weft_arena arena;        /* hops, runs, names */
    const struct weft_model *model; /* the store's */
    struct wk_engine engine;
    uint32_t context, n_slots, batch_rows;
    enum wk_kv_type kv;
    struct node_hop *plan;
    uint32_t n_plan;
    struct node_stage *stages; /* [n_stages], those served here */
    uint32_t n_stages;
    struct node_stage *first, *head; /* NULL: elsewhere */
    struct node_session *sessions;   /* [n_slots] */
    struct node_missing *missing;
    uint32_t n_missing, n_left;
    uint64_t stage_bytes; /* KV, scratch and our own buffers */
    struct node_peer *weights, *results, *tokens;
    uint32_t links_open; /* dialled, not up yet */
    uint32_t connect_request;
    struct node_vocab vocab; /* where the head is */
    struct weft_work open;   /* opening of the stages */
    int result;
    weft_err err;
};

/* ------------------------------------------------------------------ the node */

struct node_lease {
    uint64_t coordinator; /* 0: free */
    char name[WEFT_NAME_MAX + 1];
    uint64_t since_ns;
    uint32_t counter;          /* of the last Deploy */
    struct node_peer *control; /* NULL: lost, the timer runs */
    struct weft_timer timer;
};

struct node_link_request {
    struct node_peer *asker; /* NULL: it has gone */
    uint32_t request;
    char address[NODE_ADDRESS_MAX];
    char name[WEFT_NAME_MAX + 1];
};

struct weft_node {
    struct weft_node_options opt;
    struct weft_io *io;
    struct weft_store *store;
    uint64_t opened_ns;
    struct node_peer peers[NODE_PEERS];
    uint32_t next_peer; /* where the search for a free slot starts */
    struct node_lease lease;
    struct node_epoch *epoch;  /* in use */
    struct node_epoch *dying;  /* ended, its work is still in hand */
    struct weft_frame *deploy; /* waits for the dying one */
    bool releasing;            /* Released is owed to the peer below */
    struct node_peer *release_peer;
    uint32_t release_request;
    /* the shard in hand and those behind it */
    struct weft_work put;
    struct weft_frame *put_frame;
    bool put_forget; /* its lane was lost: what it began is dropped when it is back */
    struct weft_shard_run put_run;
    int put_result;
    weft_err put_err;
    struct weft_frame *put_wait[NODE_AFTER_PAUSE];
    uint32_t n_put_wait;
    /* probe */
    bool probed, probing;
    struct weft_probe probe;
    uint64_t probe_ns;    /* when, on our clock; before opened_ns by probe_age_s at open */
    uint64_t probe_old_s; /* its age at that time */
    struct weft_probe probe_new;
    struct weft_work probe_work;
    int probe_result;
    weft_err probe_err;
    uint32_t probe_trips;
    uint64_t probe_trip_ns;                /* when the one under way began */
    uint64_t probe_trip[NODE_PROBE_TRIPS]; /* how long each took, sorted */
    /* the link being measured */
    struct node_link_request link_requests[WEFT_NODE_LINK_REQUESTS_MAX];
    uint32_t n_link_requests;
    struct node_peer *link; /* NULL: none */
    struct weft_timer link_timer;
    uint32_t echo_number;
    uint64_t echo_sent_ns, echo_start_ns, echo_small_ns, echo_big_ns;
    uint8_t *echo_payload;
    /* the end */
    bool draining, farewell; /* farewell: the last word has been said */
    uint64_t drain_until_ns;
    struct weft_timer drain_timer;
    void (*drained)(void *arg);
    void *drained_arg;
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
    uint32_t works; /* items with the compute thread, all of them */
};

/* ------------------------------------------------------------------ node.c */

#define node_log(n, level, event, ...)                                               \
    node_log_fields((n), (level), (event), (const struct weft_field[]){__VA_ARGS__}, \
                    sizeof((const struct weft_field[]){__VA_ARGS__}) / sizeof(struct weft_field))
void node_log_fields(struct weft_node *n, enum weft_log_level level, const char *event,
                     const struct weft_field *fields, size_t count);

/* Acts on what the event changed; the last thing every event does. May free the node when it
 * closes. */
void node_settle(struct weft_node *n);
/* Hands a work item to the compute thread and counts it. Its done must call node_work_back first.
 */
void node_work(struct weft_node *n, struct weft_work *w);
void node_work_back(struct weft_node *n);

struct node_peer *node_slot(struct weft_node *n, bool dialled); /* NULL: all are taken */
void node_dial(struct node_peer *p, Weft__Lane lane, const Weft__Epoch *epoch, uint32_t stage);
/* Sends an answer on a lane of the coordinator: one that does not read its answers is cut off. */
void node_answer(struct node_peer *p, const Weft__Envelope *env);
/* "no" to a request. */
void node_deny(struct node_peer *p, uint32_t request, const weft_err *why);
/* Fault and close; refuse also warns in the log. */
void node_dismiss(struct node_peer *p, const weft_err *why);
void node_refuse(struct node_peer *p, const weft_err *why);
/* Closes and forgets a peer without saying why. */
void node_drop(struct node_peer *p, bool flush);
const char *node_peer_text(struct node_peer *p); /* "pi5-a (10.0.0.2:41234)"; static */
/* "epoch 3" for texts; static, two at a time. */
const char *node_epoch_text(const Weft__Epoch *id);

/* ------------------------------------------------------------------ node_lease.c */

/* 0 for the holder's control lane; -WEFT_ESTATE, -WEFT_EBUSY "held by NAME for 12 s". */
int node_lease_check(struct node_peer *p, weft_err *err) WEFT_MUST_USE;
void node_lease_end(struct weft_node *n, const char *why);
void node_lease_lost(struct weft_timer *t); /* the holder did not come back */
void node_acquire(struct node_peer *p, const Weft__Acquire *rq);
void node_release(struct node_peer *p, const Weft__Release *rq);
void node_released(struct weft_node *n); /* the answer, once the memory is free */

/* ------------------------------------------------------------------ node_look.c */

void node_status(struct node_peer *p, const Weft__StatusRequest *rq);
void node_link_request(struct node_peer *p, const Weft__LinkRequest *rq);
void node_echo(struct node_peer *p, struct weft_frame *f);
void node_link_up(struct weft_node *n);
void node_link_down(struct weft_node *n, const weft_err *why);
void node_look_gone(struct node_peer *p); /* forgets what p asked for */
void node_look_close(struct weft_node *n);
uint64_t node_free_bytes(struct weft_node *n, const struct weft_look *look);

/* ------------------------------------------------------------------ node_plan.c */

/* Checks a Deploy and allocates what it needs but shards and stages. The text says what does not
 * fit. */
int node_epoch_open(struct weft_node *n, const Weft__Deploy *d, struct node_epoch **ret,
                    weft_err *err) WEFT_MUST_USE;
void node_epoch_free(struct node_epoch *e); /* accepts NULL; nothing of it is in hand */
struct weft_stage_options node_stage_options(const struct node_stage *st);

/* ------------------------------------------------------------------ node_deploy.c */

/* Frames of the holder; *f is set to NULL when it was kept. */
void node_deploy(struct node_peer *p, struct weft_frame **f);
void node_deploy_waiting(struct weft_node *n); /* the Deploy that waited, once nothing is dying */
void node_shard(struct node_peer *p, struct weft_frame **f);
void node_connect(struct node_peer *p, const Weft__Connect *rq);
void node_stats(struct node_peer *p, const Weft__StatsRequest *rq);
bool node_lane_greeted(struct node_peer *p, weft_err *why); /* WEIGHTS, STEPS, RESULTS said Hello */
void node_step_link_up(struct node_peer *p);
/* A lane of an epoch went away. */
void node_lane_gone(struct node_peer *p, const weft_err *why);
/* The epoch cannot go on: told to the coordinator, first cause only; settle ends it. */
void node_epoch_fault(struct node_epoch *e, const struct node_stage *st, const weft_err *why);
void node_epoch_end(struct weft_node *n);
/* 0, or -WEFT_ESTALE, -WEFT_ESTATE with both epochs named. */
int node_epoch_check(struct weft_node *n, const Weft__Epoch *id, weft_err *err) WEFT_MUST_USE;

/* ------------------------------------------------------------------ node_session.c */

void node_begin(struct node_peer *p, struct weft_frame **f);
void node_prompt(struct node_peer *p, struct weft_frame *f);
void node_cancel(struct node_peer *p, const Weft__Cancel *c);
void node_close_session(struct node_peer *p, const Weft__Close *c);
void node_ack(struct node_peer *p, const Weft__Ack *a);
int node_token(struct node_peer *p, const Weft__Token *t, weft_err *err) WEFT_MUST_USE;
struct node_session *node_session_find(struct node_epoch *e, uint32_t id);
/* True while a step that touches the session is with the compute thread. */
bool node_session_touched(const struct node_epoch *e, const struct node_session *s);
/* Ends the session's turn with a Fault to the coordinator. s may be NULL (then by id and turn). */
void node_session_fault(struct node_epoch *e, struct node_session *s, uint32_t id, uint32_t turn,
                        const struct node_stage *st, const weft_err *why);
/* The session of a row that was in a step, if its turn still runs. */
struct node_session *node_seg_session(struct node_epoch *e, const struct node_seg *seg);
/* Begins and closes what waited for a step in hand. */
void node_sessions_settle(struct node_epoch *e);
/* Gives tokens that the head sampled to stage 0, as far as Acks and the link allow. */
bool node_tokens_settle(struct node_epoch *e);
bool node_sessions_running(const struct node_epoch *e, uint64_t now_ns);

/* ------------------------------------------------------------------ node_sampling.c */

/* What a Begin, which is for an answer, says of sampling, bounded and in range. */
int node_sampling_check(const struct node_epoch *e, const struct weft_frame *f,
                        weft_err *err) WEFT_MUST_USE;
/* Takes it over, once node_sampling_check was content; on failure there is no grammar. */
int node_sampling_begin(struct node_epoch *e, struct node_session *s, const struct weft_frame *f,
                        weft_err *err) WEFT_MUST_USE;
void node_sampling_done(struct node_session *s); /* frees the grammar */
/* True while a Begin has to wait for the trie that its grammar needs. */
bool node_sampling_waits(const struct node_epoch *e, const struct weft_frame *begin);
void node_vocabulary(struct node_peer *p, const struct weft_frame *f);
void node_vocab_done(struct node_vocab *v);

/* ------------------------------------------------------------------ node_ring.c */

int node_step_arrived(struct node_stage *st, struct weft_frame **f, weft_err *err) WEFT_MUST_USE;
void node_ring_advance(struct node_epoch *e);        /* until nothing moves any more */
void node_send_failed(struct node_stage *st, int r); /* a send said r < 0 */
void node_work_stage_run(struct weft_work *w);
void node_work_stage_done(struct weft_work *w);

/* ------------------------------------------------------------------ node_head.c */

uint32_t
node_logit_rows(const struct node_seg *seg);  /* rows of a segment whose logits are computed */
void node_head_sample(struct node_stage *st); /* compute thread, after the step */
void node_head_done(struct node_stage *st);   /* loop: takes over what was sampled */
bool node_head_push(struct node_stage *st);   /* true when all of the step has been sent */

#endif
