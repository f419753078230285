/*
 * The tables of the command line: commands and options. options.c parses by them, options_help.c
 * makes help and completion of them; nobody else looks in here.
 *
 * Invariant: both tables are constant; no command has two options of one name or letter. A name
 * may stand twice when commands mean different things by it (-t 2 of run, -t 1,2 of bench).
 */
#ifndef WEFT_COORDINATOR_OPTIONS_TABLE_H
#define WEFT_COORDINATOR_OPTIONS_TABLE_H

#include "coordinator/options.h"

enum weft_option_kind {
    WEFT_OPTION_FLAG,   /* bool; "--raw", or "--raw=no" against its variable */
    WEFT_OPTION_TEXT,   /* const char *, not empty */
    WEFT_OPTION_FILE,   /* the same, completed as a path */
    WEFT_OPTION_NAME,   /* const char *, one of `names` */
    WEFT_OPTION_U32,    /* within [min, max] */
    WEFT_OPTION_U64,    /* any */
    WEFT_OPTION_I64,    /* within [min, max]; the default is -1 */
    WEFT_OPTION_DOUBLE, /* within [min, max] */
    WEFT_OPTION_LIST,   /* struct weft_u32_list: "1,2", each within [min, max] */
    WEFT_OPTION_TEXTS,  /* struct weft_text_list: each time one more, not empty, at most max */
};

enum weft_option_id {
    WEFT_OPTION_CLUSTER,
    WEFT_OPTION_MODEL,
    WEFT_OPTION_PLAN,
    WEFT_OPTION_CTX_SIZE,
    WEFT_OPTION_CONTEXT_SHIFT,
    WEFT_OPTION_PREDICT,
    WEFT_OPTION_THREADS,
    WEFT_OPTION_PROMPT_FILE,
    WEFT_OPTION_SYSTEM,
    WEFT_OPTION_RAW,
    WEFT_OPTION_TEMPLATE,
    WEFT_OPTION_KV,
    WEFT_OPTION_GEMM,
    WEFT_OPTION_TEMP,
    WEFT_OPTION_TOP_K,
    WEFT_OPTION_TYPICAL,
    WEFT_OPTION_TOP_P,
    WEFT_OPTION_MIN_P,
    WEFT_OPTION_REPEAT_PENALTY,
    WEFT_OPTION_PRESENCE_PENALTY,
    WEFT_OPTION_FREQUENCY_PENALTY,
    WEFT_OPTION_REPEAT_LAST_N,
    WEFT_OPTION_MIROSTAT,
    WEFT_OPTION_MIROSTAT_TAU,
    WEFT_OPTION_MIROSTAT_ETA,
    WEFT_OPTION_LOGIT_BIAS,
    WEFT_OPTION_SEED,
    WEFT_OPTION_STOP,
    WEFT_OPTION_GRAMMAR,
    WEFT_OPTION_JSON_SCHEMA,
    WEFT_OPTION_LOGPROBS,
    WEFT_OPTION_IDS,
    WEFT_OPTION_LOGITS,
    WEFT_OPTION_TEXT_FILE,
    WEFT_OPTION_TEMPLATE_FILE,
    WEFT_OPTION_INPUT,
    WEFT_OPTION_BOS,
    WEFT_OPTION_EOS,
    WEFT_OPTION_NOW,
    WEFT_OPTION_CHECK,
    WEFT_OPTION_IDS_ONLY,
    WEFT_OPTION_NO_BOS,
    WEFT_OPTION_SPECIAL,
    WEFT_OPTION_N_PROMPT,
    WEFT_OPTION_N_GEN,
    WEFT_OPTION_BENCH_THREADS,
    WEFT_OPTION_REPETITIONS,
    WEFT_OPTION_OUTPUT,
    WEFT_OPTION_JSON,
    WEFT_OPTION_HELP,
    WEFT_OPTION_VERSION,
    WEFT_OPTION_COUNT
};

struct weft_option {
    const char *name;     /* "ctx-size" */
    char letter;          /* 'c'; 0: none */
    const char *variable; /* "WEFT_CTX_SIZE"; NULL: none */
    enum weft_option_kind kind;
    size_t offset;       /* of the place in struct weft_options */
    size_t given_offset; /* if not 0: offset + 1 of a bool that is set with it */
    double min, max;
    const char *const *names; /* NAME; ends with NULL */
    unsigned commands;        /* bits 1 << weft_command */
    const char *argument;     /* "N"; NULL: flags */
    const char *help;         /* one line */
    const char *usual; /* text of the default; NULL: none, or that of weft_sampling_defaults */
    bool empty;        /* TEXT: may be empty */
    bool sampling;     /* the place lies in struct weft_options.sampling */
};
extern const struct weft_option weft_option_table[WEFT_OPTION_COUNT];

struct weft_command_info {
    const char *name;        /* "run" */
    const char *operand;     /* what stands beside the options: "PROMPT"; NULL: nothing */
    const char *summary;     /* one line of the overall help */
    const char *text;        /* what it does, for its own help */
    const char *examples[3]; /* whole command lines; ends with NULL */
};
extern const struct weft_command_info weft_command_table[WEFT_CMD_COUNT];

/* What else may stand in the place of a command. */
#define WEFT_WORD_HELP "help"
#define WEFT_WORD_COMPLETION "completion"

#endif
