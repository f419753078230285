/*
 * The command line: parsing by the tables of options_table.c, then the rules between options. See
 * options.h. Pure but for the environment; borrows argv and the environment's strings.
 */
#include "coordinator/options_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/model.h"

/* Where a value came from; a later one is stronger. */
enum origin { FROM_NOWHERE, FROM_VARIABLE, FROM_FLAG };

struct parse {
    int argc, next; /* next: index of the argument to read */
    char *const *argv;
    struct weft_options opt;
    enum origin origin[WEFT_OPTION_COUNT];
    const char *operand; /* what stands beside the options */
    weft_err *err;
};

const char *weft_command_name(enum weft_command command)
{
    return weft_command_table[command].name;
}

static const char *command_name(const struct parse *p)
{
    return weft_command_name(p->opt.command);
}

static const char *quote(char buf[WEFT_QUOTE_SIZE], const char *text)
{
    return weft_quote(buf, WEFT_QUOTE_SIZE, text, strlen(text));
}

/* ------------------------------------------------------------------ commands */

/* COUNT when there is none of this name. */
static enum weft_command find_command(const char *word)
{
    int i = 0;
    while (i < WEFT_CMD_COUNT && strcmp(weft_command_table[i].name, word) != 0)
        i++;
    return (enum weft_command)i;
}

static int unknown_command(struct parse *p, const char *word)
{
    const char *names[WEFT_CMD_COUNT + 3];
    size_t n = 0;
    char quoted[WEFT_QUOTE_SIZE];
    for (; n < WEFT_CMD_COUNT; n++)
        names[n] = weft_command_table[n].name;
    names[n++] = WEFT_WORD_HELP;
    names[n++] = WEFT_WORD_COMPLETION;
    names[n] = NULL;
    const char *near = weft_near_miss(word, names);
    if (near != NULL)
        return weft_fail(p->err, WEFT_EUSAGE, "unknown command %s, did you mean '%s'?",
                         quote(quoted, word), near);
    return weft_fail(p->err, WEFT_EUSAGE, "unknown command %s, see weft --help",
                     quote(quoted, word));
}

/* The first word; sets the command, or help or version for the program as a whole. */
static int parse_command(struct parse *p)
{
    const char *word = p->argc > 1 ? p->argv[1] : WEFT_WORD_HELP;
    char quoted[WEFT_QUOTE_SIZE];
    p->opt.command = find_command(word);
    p->next = 2;
    if (p->opt.command != WEFT_CMD_COUNT)
        return 0;
    if (strcmp(word, WEFT_WORD_HELP) == 0 || strcmp(word, "--help") == 0 ||
        strcmp(word, "-h") == 0) {
        p->opt.help = true;
        if (p->argc <= 2)
            return 0;
        p->opt.command = find_command(p->argv[2]);
        return p->opt.command != WEFT_CMD_COUNT ? 0 : unknown_command(p, p->argv[2]);
    }
    if (strcmp(word, "--version") == 0) {
        p->opt.version = true;
        return 0;
    }
    if (strcmp(word, WEFT_WORD_COMPLETION) == 0) /* alone it never comes here */
        return weft_fail(p->err, WEFT_EUSAGE, "weft completion takes no arguments");
    if (word[0] == '-')
        return weft_fail(p->err, WEFT_EUSAGE,
                         "found %s before the command, expected weft COMMAND [options]",
                         quote(quoted, word));
    return unknown_command(p, word);
}

/* ------------------------------------------------------------------ values */

static int store_name(const struct weft_option *o, const char *text, const char **place,
                      weft_err *err)
{
    char quoted[WEFT_QUOTE_SIZE], expected[64] = "";
    for (size_t i = 0, used = 0; o->names[i] != NULL; i++) {
        if (strcmp(o->names[i], text) == 0) {
            *place = o->names[i];
            return 0;
        }
        used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s",
                                 i == 0                    ? ""
                                 : o->names[i + 1] != NULL ? ", "
                                                           : " or ",
                                 o->names[i]);
    }
    const char *near = weft_near_miss(text, o->names);
    if (near != NULL)
        return weft_fail(err, WEFT_EUSAGE, "found %s, expected %s, did you mean '%s'?",
                         quote(quoted, text), expected, near);
    return weft_fail(err, WEFT_EUSAGE, "found %s, expected %s", quote(quoted, text), expected);
}

static int store_flag(const char *text, bool *place, weft_err *err)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    char quoted[WEFT_QUOTE_SIZE];
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(words[i], text) == 0) {
            *place = i % 2 == 1;
            return 0;
        }
    }
    return weft_fail(err, WEFT_EUSAGE, "found %s, expected yes or no", quote(quoted, text));
}

static int store_list(const struct weft_option *o, const char *text, struct weft_u32_list *place,
                      weft_err *err)
{
    struct weft_u32_list list = {0};
    for (;;) {
        const size_t size = strcspn(text, ",");
        char number[24], quoted[WEFT_QUOTE_SIZE]; /* UINT64_MAX has 20 digits */
        uint64_t n = 0;
        if (list.n == WEFT_LIST_MAX)
            return weft_fail(err, WEFT_EUSAGE, "found more than %u numbers", WEFT_LIST_MAX);
        if (size >= sizeof number)
            return weft_fail(err, WEFT_EUSAGE, "found %s, expected a whole number, %.0f..%.0f",
                             weft_quote(quoted, sizeof quoted, text, size), o->min, o->max);
        memcpy(number, text, size);
        number[size] = '\0';
        int r = weft_parse_u64(number, (uint64_t)o->min, (uint64_t)o->max, &n, err);
        if (r < 0)
            return r;
        list.values[list.n++] = (uint32_t)n;
        if (text[size] == '\0')
            break;
        text += size + 1;
    }
    *place = list;
    return 0;
}

static int store_text(const struct weft_option *o, const char *text, struct weft_text_list *place,
                      weft_err *err)
{
    if (text[0] == '\0')
        return weft_fail(err, WEFT_EUSAGE, "found nothing, expected %s", o->argument);
    if (place->n == (uint32_t)o->max)
        return weft_fail(err, WEFT_EUSAGE, "found more than %.0f of them", o->max);
    place->values[place->n++] = text;
    return 0;
}

/* Reads text into the option's place; the error does not name the option yet. */
static int store(const struct weft_option *o, const char *text, void *place, weft_err *err)
{
    uint64_t n = 0;
    int r;
    switch (o->kind) {
    case WEFT_OPTION_FLAG:
        return store_flag(text, place, err);
    case WEFT_OPTION_NAME:
        return store_name(o, text, place, err);
    case WEFT_OPTION_TEXT:
    case WEFT_OPTION_FILE:
        if (text[0] == '\0' && !o->empty)
            return weft_fail(err, WEFT_EUSAGE, "found nothing, expected %s", o->argument);
        *(const char **)place = text;
        return 0;
    case WEFT_OPTION_DOUBLE:
        return weft_parse_double(text, o->min, o->max, place, err);
    case WEFT_OPTION_U64:
        return weft_parse_u64(text, 0, UINT64_MAX, place, err);
    case WEFT_OPTION_U32:
        r = weft_parse_u64(text, (uint64_t)o->min, (uint64_t)o->max, &n, err);
        if (r == 0)
            *(uint32_t *)place = (uint32_t)n;
        return r;
    case WEFT_OPTION_I64:
        r = weft_parse_u64(text, (uint64_t)o->min, (uint64_t)o->max, &n, err);
        if (r == 0)
            *(int64_t *)place = (int64_t)n;
        return r;
    case WEFT_OPTION_LIST:
        return store_list(o, text, place, err);
    case WEFT_OPTION_TEXTS:
        return store_text(o, text, place, err);
    }
    return -WEFT_EINTERNAL;
}

/* `name` is how the person wrote it: "-c", "--ctx-size", "WEFT_CTX_SIZE". */
static int set(struct parse *p, enum weft_option_id id, const char *name, const char *text,
               enum origin origin)
{
    const struct weft_option *o = &weft_option_table[id];
    weft_err why = {0};
    if (store(o, text, (char *)&p->opt + o->offset, &why) < 0)
        return weft_fail(p->err, WEFT_EUSAGE, "%s: %s", name, why.text);
    if (o->given_offset != 0)
        *(bool *)((char *)&p->opt + (o->given_offset - 1)) = true;
    p->origin[id] = origin;
    return 0;
}

/* ------------------------------------------------------------------ options */

/* "--name", of n characters, or (n 0) a letter: the option that this command means by it, else one
 * that others mean, else COUNT. */
static enum weft_option_id find_option(const struct parse *p, const char *name, size_t n,
                                       char letter)
{
    int found = WEFT_OPTION_COUNT;
    for (int i = 0; i < WEFT_OPTION_COUNT; i++) {
        const struct weft_option *o = &weft_option_table[i];
        if (n > 0 ? strlen(o->name) != n || strncmp(o->name, name, n) != 0 : o->letter != letter)
            continue;
        if ((o->commands & 1u << p->opt.command) != 0)
            return (enum weft_option_id)i;
        if (found == WEFT_OPTION_COUNT)
            found = i;
    }
    return (enum weft_option_id)found;
}

/* An option that this command does not have; name is "--threads" or "-t". */
static int foreign_option(struct parse *p, const char *name)
{
    struct weft_str others = {0};
    unsigned commands = 0;
    for (int i = 0; i < WEFT_OPTION_COUNT; i++) {
        const struct weft_option *o = &weft_option_table[i];
        if (name[1] == '-' ? strcmp(o->name, name + 2) == 0 : o->letter == name[1])
            commands |= o->commands;
    }
    for (int i = 0; i < WEFT_CMD_COUNT; i++)
        if ((commands & 1u << i) != 0)
            weft_str_addf(&others, "%s%s", others.size > 0 ? ", " : "", weft_command_table[i].name);
    int r = weft_fail(p->err, WEFT_EUSAGE, "weft %s has no option %s; these have it: %s",
                      command_name(p), name, others.data != NULL ? others.data : "");
    weft_str_done(&others);
    return r;
}

/* word is "--tmep" or "-x", without a value. */
static int unknown_option(struct parse *p, const char *word)
{
    const char *names[WEFT_OPTION_COUNT + 1], *near = NULL;
    char quoted[WEFT_QUOTE_SIZE];
    size_t n = 0;
    for (int i = 0; i < WEFT_OPTION_COUNT; i++)
        if ((weft_option_table[i].commands & 1u << p->opt.command) != 0)
            names[n++] = weft_option_table[i].name;
    names[n] = NULL;
    if (word[1] == '-')
        near = weft_near_miss(word + 2, names);
    /* "--temperature" is no slip of the keys, but "--temp" is what is meant. */
    for (size_t i = 0; near == NULL && word[1] == '-' && i < n; i++)
        if (strncmp(word + 2, names[i], strlen(names[i])) == 0)
            near = names[i];
    quote(quoted, word);
    if (near != NULL)
        return weft_fail(p->err, WEFT_EUSAGE, "unknown option %s, did you mean '--%s'?", quoted,
                         near);
    if (p->opt.command == WEFT_CMD_RUN || p->opt.command == WEFT_CMD_TOKENIZE)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "unknown option %s, see weft %s --help; before a %s that starts with '-' "
                         "put --",
                         quoted, command_name(p),
                         p->opt.command == WEFT_CMD_RUN ? "prompt" : "text");
    return weft_fail(p->err, WEFT_EUSAGE, "unknown option %s, see weft %s --help", quoted,
                     command_name(p));
}

/* The value is behind '=' or the letter (`text`), or is the next argument. */
static int parse_value(struct parse *p, enum weft_option_id id, const char *name, const char *text)
{
    const struct weft_option *o = &weft_option_table[id];
    if ((o->commands & 1u << p->opt.command) == 0)
        return foreign_option(p, name);
    if (o->kind == WEFT_OPTION_FLAG && text == NULL)
        text = "yes";
    else if (text == NULL && p->next < p->argc)
        text = p->argv[p->next++];
    else if (text == NULL)
        return weft_fail(p->err, WEFT_EUSAGE, "%s needs a value: %s %s", name, name, o->argument);
    return set(p, id, name, text, FROM_FLAG);
}

/* "--name" or "--name=value" */
static int parse_long(struct parse *p, const char *arg)
{
    const size_t n = strcspn(arg + 2, "=");
    const char *value = arg[2 + n] == '=' ? arg + 2 + n + 1 : NULL;
    const enum weft_option_id id =
        n > 0 ? find_option(p, arg + 2, n, '\0') : WEFT_OPTION_COUNT; /* "--=5" names nothing */
    if (id != WEFT_OPTION_COUNT) {
        char typed[32];
        snprintf(typed, sizeof typed, "--%s", weft_option_table[id].name);
        return parse_value(p, id, typed, value);
    }
    char *word = strndup(arg, 2 + n);
    if (word == NULL)
        return weft_fail(p->err, WEFT_ENOMEM, "command line");
    int r = unknown_option(p, word);
    free(word);
    return r;
}

/* "-c 5", "-c5", "-h" */
static int parse_short(struct parse *p, const char *arg)
{
    const char typed[] = {'-', arg[1], '\0'};
    const enum weft_option_id id = find_option(p, NULL, 0, arg[1]);
    /* there are no bundles of letters */
    if (id == WEFT_OPTION_COUNT ||
        (weft_option_table[id].kind == WEFT_OPTION_FLAG && arg[2] != '\0'))
        return unknown_option(p, arg);
    return parse_value(p, id, typed, arg[2] != '\0' ? arg + 2 : NULL);
}

static int parse_operand(struct parse *p, const char *arg)
{
    char first[WEFT_QUOTE_SIZE], second[WEFT_QUOTE_SIZE];
    const struct weft_command_info *c = &weft_command_table[p->opt.command];
    /* `weft check cluster.yaml` is what people try first. */
    const bool looks = p->opt.command == WEFT_CMD_CHECK || p->opt.command == WEFT_CMD_STATUS ||
                       p->opt.command == WEFT_CMD_PLAN;
    quote(second, arg);
    if (c->operand == NULL)
        return weft_fail(p->err, WEFT_EUSAGE, "weft %s takes no argument, found %s%s", c->name,
                         second, looks ? ": the cluster file goes behind -f" : "");
    if (p->operand == NULL) {
        p->operand = arg;
        return 0;
    }
    quote(first, p->operand);
    if (p->opt.command == WEFT_CMD_RUN)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "found two prompts, %s and %s: put quotes around the whole prompt", first,
                         second);
    return weft_fail(p->err, WEFT_EUSAGE, "weft %s takes one %s, found %s and %s%s", c->name,
                     c->operand, first, second,
                     p->opt.command == WEFT_CMD_INSPECT ? "" : ": put quotes around the whole");
}

static int parse_arguments(struct parse *p)
{
    bool options = true;
    int r = 0;
    while (r == 0 && p->next < p->argc && !p->opt.help && !p->opt.version) {
        const char *arg = p->argv[p->next++];
        if (options && strcmp(arg, "--") == 0)
            options = false;
        else if (options && strncmp(arg, "--", 2) == 0)
            r = parse_long(p, arg);
        else if (options && arg[0] == '-' && arg[1] != '\0')
            r = parse_short(p, arg);
        else
            r = parse_operand(p, arg);
    }
    return r;
}

/* Variables of options that were not given; an empty one counts as not set. */
static int parse_variables(struct parse *p, const char *(*env)(const char *name))
{
    for (int i = 0; i < WEFT_OPTION_COUNT; i++) {
        const struct weft_option *o = &weft_option_table[i];
        if (o->variable == NULL || p->origin[i] != FROM_NOWHERE ||
            (o->commands & 1u << p->opt.command) == 0)
            continue;
        const char *text = env(o->variable);
        if (text == NULL || text[0] == '\0')
            continue;
        int r = set(p, (enum weft_option_id)i, o->variable, text, FROM_VARIABLE);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ------------------------------------------------------------------ rules */

/* A variable that does not concern this call is as if not set. */
static void forget_variable(struct parse *p, enum weft_option_id id)
{
    struct weft_options *opt = &p->opt;
    if (p->origin[id] != FROM_VARIABLE)
        return;
    p->origin[id] = FROM_NOWHERE;
    if (id == WEFT_OPTION_THREADS)
        opt->threads = 0;
    else if (id == WEFT_OPTION_BENCH_THREADS)
        opt->thread_counts.n = 0;
    else if (id == WEFT_OPTION_JSON)
        opt->json = false;
    else if (id == WEFT_OPTION_PLAN)
        opt->plan = NULL;
    else if (id == WEFT_OPTION_PROMPT_FILE)
        opt->prompt_file = NULL;
    else if (id == WEFT_OPTION_MODEL)
        opt->model = NULL;
    else if (id == WEFT_OPTION_RAW)
        opt->raw = false;
    else if (id == WEFT_OPTION_TEMPLATE)
        opt->template = NULL;
    else if (id == WEFT_OPTION_PREDICT)
        opt->predict = -1;
    else if (id == WEFT_OPTION_GRAMMAR)
        opt->grammar = NULL;
    else if (id == WEFT_OPTION_JSON_SCHEMA)
        opt->json_schema = NULL;
}

/* Cluster file, model, and what goes with only one of them. */
static int check_cluster(struct parse *p)
{
    const struct weft_options *opt = &p->opt;
    const unsigned command = 1u << opt->command;
    const bool takes_cluster = (weft_option_table[WEFT_OPTION_CLUSTER].commands & command) != 0;
    const enum weft_option_id threads =
        opt->command == WEFT_CMD_BENCH ? WEFT_OPTION_BENCH_THREADS : WEFT_OPTION_THREADS;
    const bool may_be_private = (weft_option_table[threads].commands & command) != 0;
    if (!takes_cluster)
        return 0;
    if (opt->cluster == NULL && !may_be_private)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "weft %s needs a cluster file: -f FILE or WEFT_CLUSTER", command_name(p));
    if (opt->cluster == NULL && opt->model == NULL)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "weft %s needs a cluster file (-f FILE or WEFT_CLUSTER) or a model "
                         "(-m FILE or WEFT_MODEL)",
                         command_name(p));
    if (opt->cluster == NULL && p->origin[WEFT_OPTION_PLAN] == FROM_FLAG)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "--plan without -f: a plan file names devices of a cluster file");
    if (opt->cluster == NULL)
        forget_variable(p, WEFT_OPTION_PLAN);
    if (opt->cluster != NULL && p->origin[threads] == FROM_FLAG)
        return weft_fail(p->err, WEFT_EUSAGE,
                         p->origin[WEFT_OPTION_CLUSTER] == FROM_FLAG
                             ? "-t with -f: a device's threads stand in its weftd.yaml"
                             : "-t with WEFT_CLUSTER: a device's threads stand in its weftd.yaml; "
                               "unset WEFT_CLUSTER to compute on this machine");
    if (opt->cluster != NULL)
        forget_variable(p, threads);
    return 0;
}

static int check_run(struct parse *p)
{
    if (p->operand != NULL && p->origin[WEFT_OPTION_PROMPT_FILE] == FROM_FLAG)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "found a prompt and --prompt-file, expected one of them");
    if (p->operand != NULL)
        forget_variable(p, WEFT_OPTION_PROMPT_FILE);
    else if (p->opt.prompt_file == NULL)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "weft run needs a prompt: \"text\", - for standard input, or "
                         "--prompt-file FILE");
    p->opt.prompt = p->operand;
    return 0;
}

static bool is_dash(const char *file)
{
    return file != NULL && strcmp(file, "-") == 0;
}

/* It is read once: what comes later would find it empty. */
static int check_standard_input(struct parse *p)
{
    const struct weft_options *opt = &p->opt;
    if (!is_dash(opt->grammar) && !is_dash(opt->json_schema))
        return 0;
    if (opt->command == WEFT_CMD_CHAT || is_dash(opt->prompt) || is_dash(opt->prompt_file))
        return weft_fail(p->err, WEFT_EUSAGE, "%s -: standard input is %s, expected a file",
                         is_dash(opt->grammar) ? "--grammar" : "--json-schema",
                         opt->command == WEFT_CMD_CHAT ? "what is said" : "the prompt");
    return 0;
}

/* What rules an answer; a flag wins over the variable of the other one. */
static int check_answer(struct parse *p)
{
    struct weft_turn_bias *bias = NULL; /* made again by the conversation: here mistakes count */
    uint32_t n;
    if (p->origin[WEFT_OPTION_GRAMMAR] > p->origin[WEFT_OPTION_JSON_SCHEMA])
        forget_variable(p, WEFT_OPTION_JSON_SCHEMA);
    else if (p->origin[WEFT_OPTION_JSON_SCHEMA] > p->origin[WEFT_OPTION_GRAMMAR])
        forget_variable(p, WEFT_OPTION_GRAMMAR);
    if (p->opt.grammar != NULL && p->opt.json_schema != NULL)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "found a grammar and a JSON schema, expected one of them");
    int r = weft_options_logit_bias(&p->opt.logit_bias, &bias, &n, p->err);
    free(bias);
    return r < 0 ? r : check_standard_input(p);
}

static int check_inspect(struct parse *p)
{
    if (p->operand == NULL || p->operand[0] == '\0')
        return weft_fail(p->err, WEFT_EUSAGE, "weft inspect needs a file: weft inspect FILE");
    p->opt.model = p->operand;
    return 0;
}

static int check_tokens(struct parse *p)
{
    const struct weft_command_info *c = &weft_command_table[p->opt.command];
    if (p->opt.model == NULL)
        return weft_fail(p->err, WEFT_EUSAGE, "weft %s needs a GGUF file: -m FILE or WEFT_MODEL",
                         c->name);
    if (p->operand == NULL)
        return weft_fail(p->err, WEFT_EUSAGE, "weft %s needs %s, or - for standard input", c->name,
                         c->operand);
    p->opt.prompt = p->operand;
    return 0;
}

static int check_eval(struct parse *p)
{
    const struct weft_options *opt = &p->opt;
    if (opt->ids == NULL && opt->file == NULL)
        return weft_fail(p->err, WEFT_EUSAGE, "weft eval needs --ids N,N,… or --file TEXT");
    if (opt->ids != NULL && opt->file != NULL)
        return weft_fail(p->err, WEFT_EUSAGE, "found --ids and --file, expected one of them");
    if (opt->ids == NULL && opt->logits != NULL)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "--logits goes with --ids; --file gives the perplexity alone");
    if (opt->ids == NULL && p->origin[WEFT_OPTION_PREDICT] == FROM_FLAG)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "-n goes with --ids; --file gives the perplexity alone");
    if (opt->ids == NULL) {
        forget_variable(p, WEFT_OPTION_PREDICT);
        return 0;
    }
    int32_t *ids = NULL; /* made again by the command: here only mistakes count */
    uint32_t n;
    int r = weft_options_ids(opt->ids, &ids, &n, p->err);
    free(ids);
    return r;
}

static uint32_t greatest(const struct weft_u32_list *l)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < l->n; i++)
        most = l->values[i] > most ? l->values[i] : most;
    return most;
}

/* --json is -o json; a format that was asked for wins over the variable. */
static int check_bench(struct parse *p)
{
    struct weft_options *opt = &p->opt;
    if (greatest(&opt->prompts) == 0 && greatest(&opt->answers) == 0)
        return weft_fail(p->err, WEFT_EUSAGE, "-p 0 and -n 0 leave nothing to measure");
    if (opt->output != NULL)
        forget_variable(p, WEFT_OPTION_JSON);
    if (opt->json && opt->output != NULL && strcmp(opt->output, "json") != 0)
        return weft_fail(p->err, WEFT_EUSAGE, "found --json and -o %s, expected one of them",
                         opt->output);
    if (opt->output == NULL)
        opt->output = opt->json ? "json" : "md";
    return 0;
}

/* One template: none, the model's or one of weft's own. */
static int check_chat_template(struct parse *p)
{
    const bool raw = p->opt.raw && p->origin[WEFT_OPTION_RAW] == FROM_FLAG;
    if (raw && p->origin[WEFT_OPTION_TEMPLATE] == FROM_FLAG)
        return weft_fail(p->err, WEFT_EUSAGE, "found --raw and --template, expected one of them");
    if (raw && p->origin[WEFT_OPTION_SYSTEM] == FROM_FLAG)
        return weft_fail(p->err, WEFT_EUSAGE, "found --raw and --system, expected one of them");
    if (raw)
        forget_variable(p, WEFT_OPTION_TEMPLATE);
    else if (p->origin[WEFT_OPTION_TEMPLATE] == FROM_FLAG)
        forget_variable(p, WEFT_OPTION_RAW);
    return 0;
}

/* weft template: one source of the template, and an input. */
static int check_template(struct parse *p)
{
    static const enum weft_option_id sources[] = {WEFT_OPTION_TEMPLATE_FILE, WEFT_OPTION_MODEL,
                                                  WEFT_OPTION_TEMPLATE};
    int flags = 0;
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
        flags += p->origin[sources[i]] == FROM_FLAG;
    if (flags > 1)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "found several of --file, -m and --template, expected one of them");
    for (size_t i = 0; flags > 0 && i < sizeof sources / sizeof sources[0]; i++)
        forget_variable(p, sources[i]);
    if (p->opt.file == NULL && p->opt.model == NULL && p->opt.template == NULL)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "weft template needs --file FILE, -m FILE or --template NAME");
    if (p->opt.input == NULL)
        return weft_fail(p->err, WEFT_EUSAGE,
                         "weft template needs a conversation: --input FILE, - for standard input");
    return 0;
}

static int check_rules(struct parse *p)
{
    int r = check_cluster(p);
    if (r == 0 && (p->opt.command == WEFT_CMD_RUN || p->opt.command == WEFT_CMD_CHAT))
        r = check_chat_template(p);
    if (r == 0 && p->opt.command == WEFT_CMD_TEMPLATE)
        r = check_template(p);
    if (r == 0 && p->opt.command == WEFT_CMD_RUN)
        r = check_run(p);
    if (r == 0 && (p->opt.command == WEFT_CMD_RUN || p->opt.command == WEFT_CMD_CHAT))
        r = check_answer(p);
    if (r == 0 && p->opt.command == WEFT_CMD_INSPECT)
        r = check_inspect(p);
    if (r == 0 && (p->opt.command == WEFT_CMD_TOKENIZE || p->opt.command == WEFT_CMD_DETOKENIZE))
        r = check_tokens(p);
    if (r == 0 && p->opt.command == WEFT_CMD_EVAL)
        r = check_eval(p);
    if (r == 0 && p->opt.command == WEFT_CMD_BENCH)
        r = check_bench(p);
    return r;
}

int weft_options_parse(int argc, char *const *argv, const char *(*env)(const char *name),
                       struct weft_options *ret, weft_err *err)
{
    struct parse p = {.argc = argc, .argv = argv, .err = err};
    p.opt.predict = p.opt.logprobs = -1;
    p.opt.sampling = weft_sampling_defaults;
    p.opt.prompts = (struct weft_u32_list){.n = 1, .values = {512}}; /* those of llama-bench */
    p.opt.answers = (struct weft_u32_list){.n = 1, .values = {128}};
    p.opt.repetitions = 5;
    int r = parse_command(&p);
    if (r == 0 && p.opt.command != WEFT_CMD_COUNT)
        r = parse_arguments(&p);
    if (r == 0 && !p.opt.help && !p.opt.version)
        r = parse_variables(&p, env);
    if (r == 0 && !p.opt.help && !p.opt.version)
        r = check_rules(&p);
    if (r == 0)
        *ret = p.opt;
    return r;
}
