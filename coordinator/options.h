/*
 * The command line of weft: one table of options with their commands, WEFT_* variables and help,
 * from which parsing, --help and bash completion are made. The flag wins over the variable, the
 * variable over the cluster file.
 */
#ifndef WEFT_COORDINATOR_OPTIONS_H
#define WEFT_COORDINATOR_OPTIONS_H

#include "base/text.h"
#include "coordinator/cluster_file.h"

enum weft_command {
    WEFT_CMD_CHECK,
    WEFT_CMD_STATUS,
    WEFT_CMD_PLAN,
    WEFT_CMD_RUN,
    WEFT_CMD_CHAT,
    WEFT_CMD_INSPECT,
    WEFT_CMD_EVAL,
    WEFT_CMD_BENCH,
    WEFT_CMD_TOKENIZE,
    WEFT_CMD_DETOKENIZE,
    WEFT_CMD_TEMPLATE,
    WEFT_CMD_COUNT
};

/* "128,512": so many numbers at most behind one option. */
#define WEFT_LIST_MAX 16
struct weft_u32_list {
    uint32_t n, values[WEFT_LIST_MAX];
};

/* An option that may be given several times. */
#define WEFT_TEXTS_MAX 64
struct weft_text_list {
    uint32_t n;
    const char *values[WEFT_TEXTS_MAX];
};

struct weft_options {
    enum weft_command command;
    bool help, version;  /* asked for: print and exit 0 */
    const char *cluster; /* -f, --cluster FILE      WEFT_CLUSTER */
    const char *model;   /* -m, --model FILE        WEFT_MODEL */
    const char *plan;    /* --plan FILE             WEFT_PLAN */
    uint32_t context;    /* -c, --ctx-size N        WEFT_CTX_SIZE; 0: not given */
    bool context_shift;  /* --context-shift         WEFT_CONTEXT_SHIFT */
    int64_t predict;     /* -n, --predict N         WEFT_PREDICT; -1: not given */
    uint32_t threads; /* -t, --threads N         WEFT_THREADS; private daemon only; 0: all cores */
    const char *prompt;      /* positional, also TEXT and IDS; "-": stdin; NULL: none */
    const char *prompt_file; /* --prompt-file FILE      WEFT_PROMPT_FILE */
    const char *system;      /* --system TEXT           WEFT_SYSTEM; NULL: the cluster file's */
    bool raw;                /* --raw                   WEFT_RAW */
    const char *template;    /* --template NAME         WEFT_TEMPLATE; NULL: the model's own */
    bool json;               /* --json                  WEFT_JSON */
    const char *kv;          /* --kv f16|f32|q8_0       WEFT_KV; NULL: not given */
    const char *gemm;        /* --gemm openblas|weft    WEFT_GEMM */
    /* --temp --top-k --typical --top-p --min-p --repeat-penalty --presence-penalty
     * --frequency-penalty --repeat-last-n --mirostat-tau --mirostat-eta --seed */
    struct weft_sampling_options sampling;
    struct {
        bool temperature, top_k, typical, top_p, min_p, repeat_penalty, presence_penalty,
            frequency_penalty, repeat_last, mirostat_tau, mirostat_eta, seed, context_shift;
    } given;
    const char *mirostat;             /* --mirostat 0|2; NULL: not given */
    struct weft_text_list logit_bias; /* --logit-bias ID=BIAS,… */
    struct weft_text_list stops;      /* --stop STRING */
    int64_t logprobs;                 /* --logprobs N (run); -1: not given */
    const char *grammar;              /* --grammar FILE */
    const char *json_schema;          /* --json-schema FILE|JSON */
    /* eval */
    const char *ids;    /* --ids 1,300,5 */
    const char *logits; /* --logits FILE */
    const char *file;   /* --file TEXT: perplexity; template: --file T.jinja or .json */
    /* template */
    const char *input;     /* --input FILE */
    const char *bos, *eos; /* --bos TEXT --eos TEXT; NULL: those of the model */
    const char *now;       /* --now "YYYY-MM-DD HH:MM:SS"; NULL: the clock */
    /* inspect */
    bool check; /* --check */
    /* tokenize, detokenize */
    bool ids_only; /* --ids */
    bool no_bos;   /* --no-bos */
    bool special;  /* --special: control tokens are read out of TEXT, or printed */
    /* bench */
    struct weft_u32_list prompts;       /* -p, --n-prompt N,N,…; 0: no such test */
    struct weft_u32_list answers;       /* -n, --n-gen N,N,…; 0: no such test */
    struct weft_u32_list thread_counts; /* -t, --threads N,N,…; empty: all cores */
    uint32_t repetitions;               /* -r, --repetitions N */
    const char *output;                 /* -o, --output md|csv|json; NULL: not given */
};

/* Parses; on errors -WEFT_EUSAGE with near misses ("unknown option '--tmep', did you mean
 * '--temp'?"), also for options that do not belong to the command, -t together with -f, neither or
 * both of what a command needs, values out of range, bad WEFT_* values (named as such). getenv is
 * called through `env` (tests). */
int weft_options_parse(int argc, char *const *argv, const char *(*env)(const char *name),
                       struct weft_options *ret, weft_err *err) WEFT_MUST_USE;
/* "run" */
const char *weft_command_name(enum weft_command command);
/* Text of `weft --help` (command COUNT) or `weft CMD --help`. */
void weft_options_help(enum weft_command command, struct weft_str *out);
/* A bash completion script made from the same table (installed by make install). */
void weft_options_completion(struct weft_str *out);
/* The --logit-bias options as a list (malloc'ed; NULL when empty): -WEFT_EUSAGE naming the place.
 */
int weft_options_logit_bias(const struct weft_text_list *texts, struct weft_turn_bias **ret,
                            uint32_t *ret_n, weft_err *err) WEFT_MUST_USE;
/* "1,300,5" to ids (malloc'ed): -WEFT_EUSAGE naming the place. */
int weft_options_ids(const char *text, int32_t **ret, uint32_t *ret_n, weft_err *err) WEFT_MUST_USE;

#endif
