/*
 * The cluster file (YAML), weft-cluster.yaml(5): read by a table, all errors at once.
 *
 * Invariant: after a load without errors names are unique and valid, addresses normalised, every
 * device named in stages exists, stages are a run of layers from 0 without gaps (whether they cover
 * the model is checked when the model is known). Paths are relative to the file's directory.
 */
#ifndef WEFT_COORDINATOR_CLUSTER_FILE_H
#define WEFT_COORDINATOR_CLUSTER_FILE_H

#include "base/yaml.h"
#include "coordinator/cluster.h"
#include "partitioner/plan.h"

/* What a person sets for the answer, within the limits of daemon/sampler.h. */
#define WEFT_TOP_P_MIN 0.001         /* 0 would leave no token; less than this is a slip */
#define WEFT_REPEAT_PENALTY_MIN 0.01 /* 0 would divide by nothing */
#define WEFT_ADDITIVE_PENALTY_MAX 10 /* of presence and frequency, in both directions */
#define WEFT_REPEAT_LAST_MAX 1024    /* history of a daemon's sampler */
#define WEFT_MIROSTAT_TAU_MAX 100
struct weft_sampling_options {
    double temperature, typical, top_p, min_p;
    double repeat_penalty, presence_penalty, frequency_penalty;
    double mirostat_tau, mirostat_eta;
    uint32_t top_k, repeat_last;
    int mirostat; /* of weft_mirostat_names */
    uint64_t seed;
    bool seed_set; /* else a random one is drawn and shown with --json */
};
/* temperature 0.8, top_k 40, typical 1, top_p 0.95, min_p 0.05, repeat_penalty 1.0, the others 0,
 * over 64 tokens, no mirostat (tau 5, eta 0.1): what users of comparable programs know. */
extern const struct weft_sampling_options weft_sampling_defaults;
extern const char *const weft_mirostat_names[]; /* "0", "2", NULL: versions, 0 is none */

struct weft_cluster_file {
    struct weft_yaml_doc *doc; /* owns all strings below */
    char *path;
    char *model;         /* absolute or relative to the working directory; NULL: not set */
    char *model_name;    /* the same as written: may be a name of WEFT_MODELS */
    uint32_t context;    /* 0: the model's own, at most 4096 */
    bool context_shift;  /* drop the oldest turns of a conversation that grows longer */
    uint32_t sessions;   /* 1 */
    uint32_t predict;    /* tokens of an answer at most; 0: up to the context */
    uint32_t batch_rows; /* 64 */
    int goal;            /* weft_goal: latency | throughput */
    enum weft_kv kv;     /* kv: f16 | f32 | q8_0 */
    bool gemm_weft;      /* gemm: openblas | weft */
    const char *system;  /* system prompt, or NULL */
    struct weft_sampling_options sampling;
    struct weft_cluster_device *devices; /* [n_devices] */
    uint32_t n_devices;
    struct weft_pinned_stage *stages; /* [n_stages]; 0: the planner chooses */
    uint32_t n_stages;
    int32_t pin_embed, pin_head; /* `embedding:` and `head:`, device index or -1 */
};

/* Reads and checks a file. On errors: -WEFT_ECONFIG, err->text "3 errors in pi.yaml" and the whole
 * report (file:line:col, line, caret) in `report`. */
int weft_cluster_file_load(const char *path, struct weft_cluster_file *ret, struct weft_str *report,
                           weft_err *err) WEFT_MUST_USE;
/* A plan file (`--plan`): the keys stages, embedding, head of a cluster file alone; replaces those
 * of f. */
int weft_cluster_file_plan(struct weft_cluster_file *f, const char *path, struct weft_str *report,
                           weft_err *err) WEFT_MUST_USE;
/* A cluster of one private daemon, as if read from a file. */
int weft_cluster_file_private(const char *address, struct weft_cluster_file *ret,
                              weft_err *err) WEFT_MUST_USE;
void weft_cluster_file_done(struct weft_cluster_file *f); /* accepts zeroed */

#endif
