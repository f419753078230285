/*
 * Cluster: the coordinator's side of the protocol (ARCHITECTURE.md), as a state machine over struct
 * weft_io: gather → (plan, made by the caller) → deploy → serve sessions → release.
 *
 * Invariant: at most one phase is under way; each ends with exactly one call of its `done`, with an
 * error that names the device, or NULL. Loop thread only. Knows neither libuv nor nng, so
 * tests/sim.c runs it on virtual time.
 */
#ifndef WEFT_COORDINATOR_CLUSTER_H
#define WEFT_COORDINATOR_CLUSTER_H

#include "base/model.h"
#include "base/token_trie.h"
#include "partitioner/plan.h"
#include "proto/peer.h"

#define WEFT_CLUSTER_DEVICES_MAX 64
#define WEFT_CLUSTER_SESSIONS_MAX 64

struct weft_cluster;
struct weft_session;

/* A device as last seen. */
struct weft_device_status {
    bool reachable;
    weft_err why; /* when not */
    char name[WEFT_NAME_MAX + 1], software[64], isa[32], cpu[128], state[16], holder[128];
    uint32_t protocol; /* version agreed */
    uint32_t threads;
    uint64_t memory_total_bytes, memory_free_bytes, machine_free_bytes, shard_bytes;
    char boot_id[40];
    bool probed;
    uint64_t bytes_per_s, flops_per_s, stage_ns, probe_age_s, held_s, uptime_s;
    bool has_temperature;
    int32_t temperature_millidegrees;
};

struct weft_cluster_device {
    const char *name;          /* in the cluster file; the daemon may call itself otherwise */
    const char *address;       /* "host:port" or "ipc:///path", normalised */
    uint64_t memory_cap_bytes; /* 0: none */
};

typedef void weft_done_fn(void *arg, const weft_err *err);

struct weft_cluster_options {
    struct weft_io *io;
    const char *name; /* who holds the lease: "user@host pid 123"; borrowed */
    const struct weft_cluster_device *devices; /* [n_devices], borrowed */
    uint32_t n_devices;
    /* Bytes of shards sent to a device, and all it needs; may be NULL. Called for each frame
     * accepted. */
    void (*progress)(void *arg, uint32_t device, uint64_t sent_bytes, uint64_t total_bytes);
    /* The plan broke after deploy: a device was lost or faulted. Sessions have failed already. */
    void (*broken)(void *arg, const weft_err *why);
    void *arg;
    uint32_t answer_ms; /* patience for an answer; 0: 10000 */
};

int weft_cluster_open(const struct weft_cluster_options *o, struct weft_cluster **ret,
                      weft_err *err) WEFT_MUST_USE;
/* Releases what is held, says `closed` and frees the cluster after it returned; closed may be NULL.
 * Sessions must be closed. Patience: one second. */
void weft_cluster_close(struct weft_cluster *c, void (*closed)(void *arg), void *arg);

enum weft_gather {
    WEFT_GATHER_STATUS = 0, /* cached measurements only */
    WEFT_GATHER_PROBE = 1,  /* machines measure themselves where no fresh measurement is there;
                               daemons  of one machine one after the other */
    WEFT_GATHER_LINKS = 2   /* reachable daemons measure the links between them, pair by pair */
};
/* Looks at all devices. Devices that do not answer are marked, never an error of the gathering. */
void weft_cluster_gather(struct weft_cluster *c, unsigned what, weft_done_fn *done, void *arg);
const struct weft_device_status *weft_cluster_status(const struct weft_cluster *c, uint32_t device);
const struct weft_link_facts *weft_cluster_links(const struct weft_cluster *c); /* [n, n] */
/* Facts for the planner (memory cap applied; unreachable ones have no memory). */
void weft_cluster_facts(const struct weft_cluster *c, uint32_t device,
                        struct weft_device_facts *ret);

struct weft_deployment {
    const struct weft_model *model;   /* borrowed until the cluster is closed */
    const struct weft_mapping *files; /* what the model was read from, as long */
    const struct weft_plan *plan;     /* copied */
    uint32_t context, sessions, batch_rows;
    enum weft_kv kv;
    bool gemm_weft;
};
/* Takes the lease on the plan's devices, sends what they lack, connects the ring. */
void weft_cluster_deploy(struct weft_cluster *c, const struct weft_deployment *d,
                         weft_done_fn *done, void *arg);

/* What each stage did since deploy, in ring order. */
struct weft_stage_report {
    uint32_t device;
    uint64_t steps, rows, compute_ns, wait_ns, sent_bytes, dropped;
};
void weft_cluster_stats(struct weft_cluster *c, weft_done_fn *done, void *arg);
const struct weft_stage_report *weft_cluster_report(const struct weft_cluster *c, uint32_t *ret_n);

/* Breaks off the phase under way: its done gets -WEFT_EINTERRUPTED. Nothing when there is none. */
void weft_cluster_interrupt(struct weft_cluster *c);

/* ------------------------------------------------------------------ sessions */

enum weft_finish { WEFT_FINISH_NONE, WEFT_FINISH_STOP, WEFT_FINISH_LENGTH, WEFT_FINISH_CONTEXT };

/* As daemon/sampler.h. */
#define WEFT_TURN_LOGPROBS_MAX 20
#define WEFT_TURN_BIAS_MAX 1024
#define WEFT_TURN_RESUMED_MAX 1024u /* tokens of an answer that Begin can bring */

struct weft_token_logprob {
    int32_t id;
    float logprob; /* natural; by the model's own distribution */
};

struct weft_session_events {
    /* A token of the answer, in order; a STOP token too (with finish). May call
     * weft_session_stop. */
    void (*token)(void *arg, int32_t id, enum weft_finish finish);
    /* Before its token, when the turn asks: list[0] is the token's own, then the n - 1 likeliest;
     * borrowed. Neither cancels nor closes. May be NULL. */
    void (*logprobs)(void *arg, const struct weft_token_logprob *list, uint32_t n);
    /* Logits of one position [vocab], in order; borrowed. */
    void (*logits)(void *arg, uint32_t position, const float *row, uint32_t vocab);
    /* The turn ended: NULL, or why it failed (-WEFT_ECANCELLED after weft_session_cancel). */
    void (*done)(void *arg, const weft_err *err, enum weft_finish finish);
};

struct weft_turn_bias {
    int32_t id;
    float bias; /* added to the logit; -infinity: never */
};

/* How the next token is chosen; limits and order of the stages stand in daemon/sampler.h, whose
 * daemon refuses what is out of range by name. */
struct weft_turn_sampling {
    float temperature, typical_p, top_p, min_p;
    float repeat_penalty, presence_penalty, frequency_penalty;
    uint32_t top_k, repeat_last;
    uint32_t mirostat; /* 0 or 2 */
    float mirostat_tau, mirostat_eta;
    uint64_t seed;
    const struct weft_turn_bias *bias; /* [n_bias], borrowed until `done` */
    uint32_t n_bias;
};

struct weft_turn {
    uint32_t keep;         /* positions of the history to keep; the rest is forgotten */
    const int32_t *tokens; /* [n_tokens] that follow, at least one; copied */
    uint32_t n_tokens;
    /* Of tokens, the last so many were sampled for this answer already, in the turn before: grammar
     * and mirostat go on from there. */
    uint32_t n_resumed;
    uint32_t max_tokens; /* of the answer; 0: evaluate only (want_logits must be set) */
    bool want_logits;    /* of every row */
    bool logprobs;       /* the event is called … */
    uint32_t n_logprobs; /* … with so many of the likeliest, at most WEFT_TURN_LOGPROBS_MAX */
    struct weft_turn_sampling sampling;
    const int32_t *stop_ids; /* copied */
    uint32_t n_stop_ids;
    /* GBNF (base/grammar.h) that the answer obeys; NULL: none. Borrowed until `done`, as are the
     * bytes that the model's tokens stand for, [n_texts]; tokens without one are never allowed. */
    const char *grammar;
    uint32_t grammar_size;
    const struct weft_token_text *texts;
    uint32_t n_texts;
};

/* -WEFT_ELIMIT when all KV slots are taken; -WEFT_ESTATE before deploy. */
int weft_session_open(struct weft_cluster *c, const struct weft_session_events *events, void *arg,
                      struct weft_session **ret, weft_err *err) WEFT_MUST_USE;
/* Starts a turn. -WEFT_EUNSUPPORTED when the head's daemon is too old for its sampling,
 * -WEFT_EUSAGE or -WEFT_ELIMIT for a grammar without stop ids or too long. -WEFT_ECONTEXT when keep
 * + n_tokens does not fit the context with one position to answer in ("prompt of 5000 tokens,
 * context 4096: …"), -WEFT_ESHAPE for ids outside the vocabulary, -WEFT_ESTATE while a turn runs.
 */
int weft_session_turn(struct weft_session *s, const struct weft_turn *t,
                      weft_err *err) WEFT_MUST_USE;
/* Ends the turn soon: `done` follows with -WEFT_ECANCELLED; tokens that arrived stay in the
 * history. */
void weft_session_cancel(struct weft_session *s);
/* Ends the answer with the token that came last, from its event: `done` follows at once with
 * WEFT_FINISH_STOP; what the ring has made beyond it is dropped. */
void weft_session_stop(struct weft_session *s);
void weft_session_close(struct weft_session *s); /* accepts NULL; no event follows */
/* The tokens, prompts and answers, whose KV every daemon is known to hold: what `keep` may reach
 * to. The last token of an answer is not among them, since nothing was computed from it yet. */
const int32_t *weft_session_history(const struct weft_session *s, uint32_t *ret_n);
/* Nanoseconds of the last turn: from its start to the first token, and from that to the last. */
void weft_session_times(const struct weft_session *s, uint64_t *ret_prompt_ns,
                        uint64_t *ret_answer_ns, uint32_t *ret_answer_tokens);
/* Of the time to the first token, what passed before the daemons had agreed to the turn and the
 * prompt was sent. */
uint64_t weft_session_begin_ns(const struct weft_session *s);

#endif
