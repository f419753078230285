/*
 * Tests of the command line: every option and variable, every rule with its exact error, and the
 * help and completion made from the same table.
 */
#include "coordinator/options_table.h"
#include "tests/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGS_MAX 16
#define LINE_WIDTH 100

/* ---- a command line and an environment ---- */

static const char *const *variables; /* "NAME=VALUE", …, NULL */

static const char *environment(const char *name)
{
    const size_t n = strlen(name);
    for (size_t i = 0; variables != NULL && variables[i] != NULL; i++)
        if (strncmp(variables[i], name, n) == 0 && variables[i][n] == '=')
            return variables[i] + n + 1;
    return NULL;
}

/* args without "weft"; both lists end with NULL, env may be NULL. */
static int parse(const char *const *args, const char *const *env, struct weft_options *opt,
                 weft_err *err)
{
    char *argv[ARGS_MAX + 2] = {(char *)"weft"};
    int argc = 1;
    for (; args[argc - 1] != NULL; argc++) {
        ck_assert_int_lt(argc, ARGS_MAX);
        argv[argc] = (char *)args[argc - 1];
    }
    variables = env;
    return weft_options_parse(argc, argv, environment, opt, err);
}

static struct weft_options parse_good(const char *const *args, const char *const *env)
{
    struct weft_options opt = {0};
    weft_err err = {0};
    int r = parse(args, env, &opt, &err);
    ck_assert_msg(r == 0, "weft %s …: %s", args[0], err.text);
    return opt;
}

static void expect_error(const char *const *args, const char *const *env, const char *text)
{
    struct weft_options opt = {.context = 77};
    weft_err err = {0};
    int r = parse(args, env, &opt, &err);
    ck_assert_msg(r == -WEFT_EUSAGE && err.code == WEFT_EUSAGE, "expected '%s', found %d '%s'",
                  text, r, err.text);
    ck_assert_str_eq(err.text, text);
    ck_assert_uint_eq(opt.context, 77); /* untouched */
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define ENV(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---- every option ---- */

/* "1,2" */
static const char *list_text(const struct weft_u32_list *l, char *buf, size_t n)
{
    buf[0] = '\0';
    for (uint32_t i = 0, used = 0; i < l->n; i++)
        used += (uint32_t)snprintf(buf + used, n - used, "%s%u", i > 0 ? "," : "", l->values[i]);
    return buf;
}

/* The value of an option as text, read from its place. */
static const char *place_text(const struct weft_options *opt, const struct weft_option *o,
                              char *buf, size_t n)
{
    const void *place = (const char *)opt + o->offset;
    buf[0] = '\0';
    switch (o->kind) {
    case WEFT_OPTION_FLAG:
        return *(const bool *)place ? "yes" : "no";
    case WEFT_OPTION_TEXT:
    case WEFT_OPTION_FILE:
    case WEFT_OPTION_NAME:
        return *(const char *const *)place != NULL ? *(const char *const *)place : "";
    case WEFT_OPTION_U32:
        snprintf(buf, n, "%u", *(const uint32_t *)place);
        break;
    case WEFT_OPTION_U64:
        snprintf(buf, n, "%llu", (unsigned long long)*(const uint64_t *)place);
        break;
    case WEFT_OPTION_I64:
        snprintf(buf, n, "%lld", (long long)*(const int64_t *)place);
        break;
    case WEFT_OPTION_DOUBLE:
        snprintf(buf, n, "%g", *(const double *)place);
        break;
    case WEFT_OPTION_LIST:
        return list_text(place, buf, n);
    case WEFT_OPTION_TEXTS: {
        const struct weft_text_list *list = place;
        return list->n == 1 ? list->values[0] : "";
    }
    }
    return buf;
}

/* A command line in which the option is allowed: the option's own words go behind it. */
struct sample {
    const char *value, *other; /* two good values */
    const char *words[6];
};

static const struct sample samples[WEFT_OPTION_COUNT] = {
    [WEFT_OPTION_CLUSTER] = {"c.yaml", "d.yaml", {"plan"}},
    [WEFT_OPTION_MODEL] = {"m.gguf", "n.gguf", {"chat"}},
    [WEFT_OPTION_PLAN] = {"p.yaml", "q.yaml", {"plan", "-f", "c"}},
    [WEFT_OPTION_CTX_SIZE] = {"1024", "16777216", {"chat", "-m", "m"}},
    [WEFT_OPTION_CONTEXT_SHIFT] = {"yes", "no", {"chat", "-m", "m"}},
    [WEFT_OPTION_PREDICT] = {"0", "12", {"chat", "-m", "m"}},
    [WEFT_OPTION_THREADS] = {"1", "64", {"chat", "-m", "m"}},
    [WEFT_OPTION_PROMPT_FILE] = {"a.txt", "-", {"run", "-m", "m"}},
    [WEFT_OPTION_SYSTEM] = {"Be brief.", "", {"chat", "-m", "m"}},
    [WEFT_OPTION_RAW] = {"yes", "no", {"chat", "-m", "m"}},
    [WEFT_OPTION_TEMPLATE] = {"chatml", "zephyr", {"chat", "-m", "m"}},
    [WEFT_OPTION_KV] = {"f16", "f32", {"chat", "-m", "m"}},
    [WEFT_OPTION_GEMM] = {"openblas", "weft", {"chat", "-m", "m"}},
    [WEFT_OPTION_TEMP] = {"0", "1.25", {"chat", "-m", "m"}},
    [WEFT_OPTION_TOP_K] = {"0", "7", {"chat", "-m", "m"}},
    [WEFT_OPTION_TOP_P] = {"0.5", "1", {"chat", "-m", "m"}},
    [WEFT_OPTION_MIN_P] = {"0", "0.5", {"chat", "-m", "m"}},
    [WEFT_OPTION_REPEAT_PENALTY] = {"0.5", "1.5", {"chat", "-m", "m"}},
    [WEFT_OPTION_TYPICAL] = {"0.5", "1", {"chat", "-m", "m"}},
    [WEFT_OPTION_PRESENCE_PENALTY] = {"-1.5", "2", {"chat", "-m", "m"}},
    [WEFT_OPTION_FREQUENCY_PENALTY] = {"-10", "10", {"chat", "-m", "m"}},
    [WEFT_OPTION_REPEAT_LAST_N] = {"0", "1024", {"chat", "-m", "m"}},
    [WEFT_OPTION_MIROSTAT] = {"2", "0", {"chat", "-m", "m"}},
    [WEFT_OPTION_MIROSTAT_TAU] = {"3.5", "100", {"chat", "-m", "m"}},
    [WEFT_OPTION_MIROSTAT_ETA] = {"0", "1", {"chat", "-m", "m"}},
    [WEFT_OPTION_LOGIT_BIAS] = {"5=-inf", "1=2.5,3=-1", {"chat", "-m", "m"}},
    [WEFT_OPTION_STOP] = {"END", "\n\n", {"chat", "-m", "m"}},
    [WEFT_OPTION_GRAMMAR] = {"g.gbnf", "h.gbnf", {"chat", "-m", "m"}},
    [WEFT_OPTION_JSON_SCHEMA] = {"s.json", "{}", {"chat", "-m", "m"}},
    [WEFT_OPTION_LOGPROBS] = {"0", "20", {"run", "-m", "m", "hi"}},
    [WEFT_OPTION_SEED] = {"0", "18446744073709551615", {"chat", "-m", "m"}},
    [WEFT_OPTION_IDS] = {"1,300,5", "7", {"eval", "-m", "m"}},
    [WEFT_OPTION_LOGITS] = {"out.f32", "x", {"eval", "-m", "m", "--ids", "1"}},
    [WEFT_OPTION_TEXT_FILE] = {"text", "x", {"eval", "-m", "m"}},
    [WEFT_OPTION_TEMPLATE_FILE] = {"t.jinja", "x", {"template", "--input", "-"}},
    [WEFT_OPTION_INPUT] = {"in.json", "-", {"template", "-m", "m"}},
    [WEFT_OPTION_BOS] = {"<s>", "x", {"template", "-m", "m", "--input", "-"}},
    [WEFT_OPTION_EOS] = {"</s>", "x", {"template", "-m", "m", "--input", "-"}},
    [WEFT_OPTION_NOW] = {"2026-01-02 03:04:05", "x", {"template", "-m", "m", "--input", "-"}},
    [WEFT_OPTION_CHECK] = {"yes", "no", {"inspect", "m"}},
    [WEFT_OPTION_IDS_ONLY] = {"yes", "no", {"tokenize", "-m", "m", "text"}},
    [WEFT_OPTION_NO_BOS] = {"yes", "no", {"tokenize", "-m", "m", "text"}},
    [WEFT_OPTION_SPECIAL] = {"yes", "no", {"detokenize", "-m", "m", "1,2"}},
    [WEFT_OPTION_N_PROMPT] = {"128,512", "0", {"bench", "-m", "m"}},
    [WEFT_OPTION_N_GEN] = {"0", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", {"bench", "-m", "m"}},
    [WEFT_OPTION_BENCH_THREADS] = {"1,2", "64", {"bench", "-m", "m"}},
    [WEFT_OPTION_REPETITIONS] = {"1", "10000", {"bench", "-m", "m"}},
    [WEFT_OPTION_OUTPUT] = {"csv", "json", {"bench", "-m", "m"}},
    [WEFT_OPTION_JSON] = {"yes", "no", {"inspect", "m"}},
    [WEFT_OPTION_HELP] = {"yes", "yes", {"check"}},
    [WEFT_OPTION_VERSION] = {"yes", "yes", {"check"}},
};

/* Whether sampling options were given, as one number. */
static unsigned given_bits(const struct weft_options *opt)
{
    return (unsigned)opt->given.temperature | (unsigned)opt->given.top_k << 1 |
           (unsigned)opt->given.top_p << 2 | (unsigned)opt->given.min_p << 3 |
           (unsigned)opt->given.repeat_penalty << 4 | (unsigned)opt->given.seed << 5 |
           (unsigned)opt->given.typical << 6 | (unsigned)opt->given.presence_penalty << 7 |
           (unsigned)opt->given.frequency_penalty << 8 | (unsigned)opt->given.repeat_last << 9 |
           (unsigned)opt->given.mirostat_tau << 10 | (unsigned)opt->given.mirostat_eta << 11;
}

/* Parses the sample's words and then one or two more. */
static void check_form(const struct weft_option *o, const struct sample *s, const char *first,
                       const char *second, const char *const *env, const char *expected)
{
    const char *args[ARGS_MAX] = {0};
    char buf[64];
    size_t n = 0;
    for (; s->words[n] != NULL; n++)
        args[n] = s->words[n];
    args[n] = first;
    if (first != NULL)
        args[n + 1] = second;
    const struct weft_options opt = parse_good(args, env);
    ck_assert_str_eq(place_text(&opt, o, buf, sizeof buf), expected);
    ck_assert_msg((given_bits(&opt) != 0) == o->sampling, "--%s: given", o->name);
}

START_TEST(every_option)
{
    const struct weft_option *o = &weft_option_table[_i];
    const struct sample *s = &samples[_i];
    char joined[64], letter[8], glued[64], variable[128], other[128];
    ck_assert_ptr_nonnull(s->value); /* a new option needs a sample */
    snprintf(joined, sizeof joined, "--%s=%s", o->name, s->value);
    snprintf(glued, sizeof glued, "-%c%s", o->letter, s->value);
    snprintf(letter, sizeof letter, "-%c", o->letter);
    snprintf(variable, sizeof variable, "%s=%s", o->variable, s->value);
    snprintf(other, sizeof other, "%s=%s", o->variable, s->other);
    const bool flag = o->kind == WEFT_OPTION_FLAG;
    char name[64];
    snprintf(name, sizeof name, "--%s", o->name);

    check_form(o, s, joined, NULL, NULL, s->value);
    check_form(o, s, name, flag ? NULL : s->value, NULL, s->value);
    if (o->letter != 0)
        check_form(o, s, letter, flag ? NULL : s->value, NULL, s->value);
    if (o->letter != 0 && !flag)
        check_form(o, s, glued, NULL, NULL, s->value);
    if (o->variable == NULL)
        return;
    check_form(o, s, NULL, NULL, ENV(variable), s->value);
    check_form(o, s, NULL, NULL, ENV(other), s->other);
    check_form(o, s, joined, NULL, ENV(other), s->value); /* the flag wins */
}
END_TEST

START_TEST(last_one_wins)
{
    struct weft_options opt =
        parse_good(ARGS("chat", "-m", "a", "-c", "5", "-m", "b", "-c6"), NULL);
    ck_assert_str_eq(opt.model, "b");
    ck_assert_uint_eq(opt.context, 6);
    opt = parse_good(ARGS("chat", "-m", "a", "--raw", "--raw=off"), ENV("WEFT_RAW=1"));
    ck_assert(!opt.raw);
}
END_TEST

START_TEST(defaults)
{
    struct weft_options opt = parse_good(ARGS("run", "-m", "m", "hi"), NULL);
    ck_assert_int_eq(opt.command, WEFT_CMD_RUN);
    ck_assert_str_eq(opt.model, "m");
    ck_assert_str_eq(opt.prompt, "hi");
    ck_assert_int_eq(opt.predict, -1);
    ck_assert_uint_eq(opt.context, 0);
    ck_assert_uint_eq(opt.threads, 0);
    ck_assert(opt.cluster == NULL && opt.plan == NULL && opt.kv == NULL && opt.gemm == NULL);
    ck_assert(!opt.raw && !opt.json && !opt.help && !opt.version);
    ck_assert_uint_eq(given_bits(&opt), 0);
    ck_assert_mem_eq(&opt.sampling, &weft_sampling_defaults, sizeof opt.sampling);
}
END_TEST

START_TEST(every_command)
{
    static const struct {
        const char *args[5];
        enum weft_command command;
    } cases[] = {
        {{"check", "-f", "c"}, WEFT_CMD_CHECK},
        {{"status", "-f", "c"}, WEFT_CMD_STATUS},
        {{"plan", "-f", "c"}, WEFT_CMD_PLAN},
        {{"run", "-fc", "hi"}, WEFT_CMD_RUN},
        {{"chat", "-f", "c"}, WEFT_CMD_CHAT},
        {{"inspect", "m.gguf"}, WEFT_CMD_INSPECT},
        {{"eval", "-fc", "--ids=1"}, WEFT_CMD_EVAL},
        {{"bench", "-fc"}, WEFT_CMD_BENCH},
        {{"tokenize", "-m", "m", "-"}, WEFT_CMD_TOKENIZE},
        {{"detokenize", "-mm", "1"}, WEFT_CMD_DETOKENIZE},
        {{"template", "-mm", "--input=-"}, WEFT_CMD_TEMPLATE},
    };
    ck_assert_uint_eq(sizeof cases / sizeof cases[0], WEFT_CMD_COUNT);
    for (size_t i = 0; i < WEFT_CMD_COUNT; i++) {
        const struct weft_options opt = parse_good(cases[i].args, NULL);
        ck_assert_int_eq(opt.command, cases[i].command);
    }
    ck_assert_str_eq(parse_good(ARGS("inspect", "m.gguf"), NULL).model, "m.gguf");
}
END_TEST

START_TEST(help_and_version)
{
    const struct {
        const char *const *args;
        enum weft_command command;
    } helps[] = {
        {(const char *const[]){NULL}, WEFT_CMD_COUNT},
        {ARGS("help"), WEFT_CMD_COUNT},
        {ARGS("--help"), WEFT_CMD_COUNT},
        {ARGS("-h"), WEFT_CMD_COUNT},
        {ARGS("help", "run"), WEFT_CMD_RUN},
        {ARGS("--help", "eval"), WEFT_CMD_EVAL},
        {ARGS("run", "--help"), WEFT_CMD_RUN},
        {ARGS("run", "-h", "--nonsense"), WEFT_CMD_RUN},
        {ARGS("check", "-f", "x", "--help"), WEFT_CMD_CHECK},
    };
    for (size_t i = 0; i < sizeof helps / sizeof helps[0]; i++) {
        /* Variables are not looked at: help always comes. */
        const struct weft_options opt = parse_good(helps[i].args, ENV("WEFT_TEMP=hot"));
        ck_assert(opt.help && !opt.version);
        ck_assert_int_eq(opt.command, helps[i].command);
    }
    ck_assert(parse_good(ARGS("--version"), NULL).version);
    ck_assert(parse_good(ARGS("run", "--version"), NULL).version);
    expect_error(ARGS("help", "rum"), NULL, "unknown command 'rum', did you mean 'run'?");
}
END_TEST

/* ---- operands ---- */

START_TEST(prompts)
{
    ck_assert_str_eq(parse_good(ARGS("run", "-m", "m", "-"), NULL).prompt, "-");
    ck_assert_str_eq(parse_good(ARGS("run", "-m", "m", ""), NULL).prompt, "");
    ck_assert_str_eq(parse_good(ARGS("run", "hi", "-m", "m"), NULL).prompt, "hi");
    ck_assert_str_eq(parse_good(ARGS("run", "-m", "m", "--", "--help"), NULL).prompt, "--help");
    struct weft_options opt = parse_good(ARGS("run", "-m", "m", "--prompt-file", "f"), NULL);
    ck_assert_ptr_null(opt.prompt);
    ck_assert_str_eq(opt.prompt_file, "f");
    /* The prompt of the command line wins over the variable. */
    opt = parse_good(ARGS("run", "-m", "m", "hi"), ENV("WEFT_PROMPT_FILE=f"));
    ck_assert_str_eq(opt.prompt, "hi");
    ck_assert_ptr_null(opt.prompt_file);

    expect_error(ARGS("run", "-m", "m"), NULL,
                 "weft run needs a prompt: \"text\", - for standard input, or --prompt-file FILE");
    expect_error(ARGS("run", "-m", "m", "hi", "--prompt-file=f"), NULL,
                 "found a prompt and --prompt-file, expected one of them");
    expect_error(ARGS("run", "-m", "m", "Why", "is"), NULL,
                 "found two prompts, 'Why' and 'is': put quotes around the whole prompt");
    expect_error(ARGS("run", "-m", "m", "-5 degrees"), NULL,
                 "unknown option '-5 degrees', see weft run --help; before a prompt that starts "
                 "with '-' put --");
}
END_TEST

START_TEST(wrong_operands)
{
    expect_error(ARGS("inspect"), NULL, "weft inspect needs a file: weft inspect FILE");
    expect_error(ARGS("inspect", ""), NULL, "weft inspect needs a file: weft inspect FILE");
    expect_error(ARGS("inspect", "a", "b"), NULL, "weft inspect takes one FILE, found 'a' and 'b'");
    expect_error(ARGS("tokenize", "a"), NULL,
                 "weft tokenize needs a GGUF file: -m FILE or WEFT_MODEL");
    expect_error(ARGS("tokenize", "-m", "m"), NULL,
                 "weft tokenize needs TEXT, or - for standard input");
    expect_error(ARGS("detokenize"), ENV("WEFT_MODEL=m"),
                 "weft detokenize needs IDS, or - for standard input");
    expect_error(ARGS("tokenize", "-m", "m", "a", "b"), NULL,
                 "weft tokenize takes one TEXT, found 'a' and 'b': put quotes around the whole");
    expect_error(ARGS("tokenize", "-m", "m", "-x"), NULL,
                 "unknown option '-x', see weft tokenize --help; before a text that starts with "
                 "'-' put --");
    ck_assert_str_eq(parse_good(ARGS("tokenize", "-m", "m", "--", "-x"), NULL).prompt, "-x");
    ck_assert_str_eq(parse_good(ARGS("tokenize", ""), ENV("WEFT_MODEL=m")).prompt, "");
    expect_error(ARGS("check", "c.yaml"), NULL,
                 "weft check takes no argument, found 'c.yaml': the cluster file goes behind -f");
    expect_error(ARGS("status", "c.yaml"), NULL,
                 "weft status takes no argument, found 'c.yaml': the cluster file goes behind -f");
    expect_error(ARGS("plan", "-"), NULL,
                 "weft plan takes no argument, found '-': the cluster file goes behind -f");
    expect_error(ARGS("chat", "-m", "m", "hi"), NULL, "weft chat takes no argument, found 'hi'");
    expect_error(ARGS("eval", "-m", "m", "1,2"), NULL, "weft eval takes no argument, found '1,2'");
}
END_TEST

/* ---- commands and options that are not there ---- */

START_TEST(unknown_words)
{
    expect_error(ARGS("chekc"), NULL, "unknown command 'chekc', did you mean 'check'?");
    expect_error(ARGS("hlep"), NULL, "unknown command 'hlep', did you mean 'help'?");
    expect_error(ARGS("completon"), NULL,
                 "unknown command 'completon', did you mean 'completion'?");
    expect_error(ARGS("serve"), NULL, "unknown command 'serve', see weft --help");
    expect_error(ARGS(""), NULL, "unknown command '', see weft --help");
    expect_error(ARGS("completion", "bash"), NULL, "weft completion takes no arguments");
    expect_error(ARGS("-f", "c.yaml", "run"), NULL,
                 "found '-f' before the command, expected weft COMMAND [options]");
    expect_error(ARGS("run", "--tmep", "1"), NULL,
                 "unknown option '--tmep', did you mean '--temp'?");
    expect_error(ARGS("run", "--tmep=1"), NULL, "unknown option '--tmep', did you mean '--temp'?");
    expect_error(ARGS("run", "--temperature", "1"), NULL,
                 "unknown option '--temperature', did you mean '--temp'?");
    expect_error(ARGS("chat", "--halt"), NULL, "unknown option '--halt', see weft chat --help");
    expect_error(ARGS("chat", "-x"), NULL, "unknown option '-x', see weft chat --help");
    expect_error(ARGS("chat", "--=5"), NULL, "unknown option '--', see weft chat --help");
    expect_error(ARGS("check", "-hx"), NULL, "unknown option '-hx', see weft check --help");
    /* Control characters of a command line do not reach the terminal. */
    expect_error(ARGS("\x1b[31m"), NULL, "unknown command '?[31m', see weft --help");
}
END_TEST

START_TEST(foreign_options)
{
    expect_error(ARGS("run", "--ids", "1"), NULL,
                 "weft run has no option --ids; these have it: eval, tokenize");
    expect_error(ARGS("inspect", "-m", "m"), NULL,
                 "weft inspect has no option -m; these have it: check, plan, run, chat, eval, "
                 "bench, tokenize, detokenize, template");
    expect_error(ARGS("status", "--model=m"), NULL,
                 "weft status has no option --model; these have it: check, plan, run, chat, eval, "
                 "bench, tokenize, detokenize, template");
    expect_error(ARGS("eval", "--temp", "1"), NULL,
                 "weft eval has no option --temp; these have it: run, chat");
    expect_error(ARGS("plan", "-t", "1"), NULL,
                 "weft plan has no option -t; these have it: run, chat, eval, bench");
    expect_error(ARGS("bench", "--predict", "1"), NULL,
                 "weft bench has no option --predict; these have it: run, chat, eval");
    expect_error(ARGS("run", "-p", "1"), NULL, "weft run has no option -p; these have it: bench");
    expect_error(ARGS("bench", "--check"), NULL,
                 "weft bench has no option --check; these have it: inspect");
    expect_error(ARGS("chat", "--json"), NULL,
                 "weft chat has no option --json; these have it: check, status, plan, run, "
                 "inspect, eval, bench, tokenize, detokenize, template");
    expect_error(ARGS("detokenize", "--no-bos"), NULL,
                 "weft detokenize has no option --no-bos; these have it: tokenize");
    /* A variable that does not concern the command is ignored, good or not. */
    ck_assert_str_eq(
        parse_good(ARGS("check", "-f", "c"), ENV("WEFT_TEMP=hot", "WEFT_THREADS=0")).cluster, "c");
}
END_TEST

/* ---- values ---- */

START_TEST(wrong_values)
{
    static const struct {
        const char *option, *value, *text;
    } cases[] = {
        {"-c", "0", "found 0, expected 1..16777216"},
        {"-c", "16777217", "found 16777217, expected 1..16777216"},
        {"-c", "-1", "found '-1', expected a whole number, 1..16777216"},
        {"-c", "", "found '', expected a whole number, 1..16777216"},
        {"-c", "1e3", "found '1e3', expected a whole number, 1..16777216"},
        {"-n", "-1", "found '-1', expected a whole number, 0..16777216"},
        {"-n", "99999999999999999999", "found 99999999999999999999, expected 0..16777216"},
        {"-t", "0", "found 0, expected 1..64"},
        {"-t", "65", "found 65, expected 1..64"},
        {"--temp", "-1", "found -1, expected 0..100"},
        {"--temp", "101", "found 101, expected 0..100"},
        {"--temp", "nan", "found 'nan', expected a number, 0..100"},
        {"--temp", "hot", "found 'hot', expected a number, 0..100"},
        {"--top-k", "1048577", "found 1048577, expected 0..1048576"},
        {"--top-p", "0", "found 0, expected 0.001..1"},
        {"--top-p", "1.1", "found 1.1, expected 0.001..1"},
        {"--min-p", "2", "found 2, expected 0..1"},
        {"--repeat-penalty", "0", "found 0, expected 0.01..10"},
        {"--repeat-penalty", "10.5", "found 10.5, expected 0.01..10"},
        {"--seed", "-3", "found '-3', expected a whole number"},
        {"--kv", "f61", "found 'f61', expected f16, f32 or q8_0, did you mean 'f16'?"},
        {"--kv", "bytes", "found 'bytes', expected f16, f32 or q8_0"},
        {"--gemm", "blas", "found 'blas', expected openblas or weft"},
        {"-m", "", "found nothing, expected FILE"},
        {"--plan", "", "found nothing, expected FILE"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char expected[256];
        snprintf(expected, sizeof expected, "%s: %s", cases[i].option, cases[i].text);
        expect_error(ARGS("run", "-m", "m", cases[i].option, cases[i].value, "hi"), NULL, expected);
    }
    expect_error(ARGS("run", "--raw=maybe"), NULL, "--raw: found 'maybe', expected yes or no");
    expect_error(ARGS("run", "--ctx-size=0"), NULL, "--ctx-size: found 0, expected 1..16777216");
    expect_error(ARGS("run", "-m"), NULL, "-m needs a value: -m FILE");
    expect_error(ARGS("run", "--ctx-size"), NULL, "--ctx-size needs a value: --ctx-size N");
}
END_TEST

START_TEST(wrong_variables)
{
    const char *const *args = ARGS("run", "-m", "m", "hi");
    expect_error(args, ENV("WEFT_TEMP=hot"), "WEFT_TEMP: found 'hot', expected a number, 0..100");
    expect_error(args, ENV("WEFT_CTX_SIZE=0"), "WEFT_CTX_SIZE: found 0, expected 1..16777216");
    expect_error(args, ENV("WEFT_KV=f33"),
                 "WEFT_KV: found 'f33', expected f16, f32 or q8_0, did you mean 'f32'?");
    expect_error(args, ENV("WEFT_JSON=oui"), "WEFT_JSON: found 'oui', expected yes or no");
    /* An empty one is none; one that a flag replaces is not looked at. */
    ck_assert_uint_eq(parse_good(args, ENV("WEFT_CTX_SIZE=")).context, 0);
    ck_assert_uint_eq(
        parse_good(ARGS("run", "-m", "m", "-c", "9", "hi"), ENV("WEFT_CTX_SIZE=x")).context, 9);
    static const char *const yes[] = {"1", "yes", "true", "on"}, *const no[] = {"0", "no", "false",
                                                                                "off"};
    for (size_t i = 0; i < 4; i++) {
        char variable[32];
        snprintf(variable, sizeof variable, "WEFT_RAW=%s", yes[i]);
        ck_assert(parse_good(args, ENV(variable)).raw);
        snprintf(variable, sizeof variable, "WEFT_RAW=%s", no[i]);
        ck_assert(!parse_good(args, ENV(variable)).raw);
    }
}
END_TEST

/* ---- rules between options ---- */

START_TEST(cluster_or_model)
{
    expect_error(ARGS("check"), NULL, "weft check needs a cluster file: -f FILE or WEFT_CLUSTER");
    expect_error(ARGS("status"), NULL, "weft status needs a cluster file: -f FILE or WEFT_CLUSTER");
    expect_error(ARGS("plan", "-m", "m"), NULL,
                 "weft plan needs a cluster file: -f FILE or WEFT_CLUSTER");
    static const char *const commands[] = {"run", "chat", "eval", "bench"};
    for (size_t i = 0; i < 4; i++) {
        char expected[256];
        snprintf(expected, sizeof expected,
                 "weft %s needs a cluster file (-f FILE or WEFT_CLUSTER) or a model (-m FILE or "
                 "WEFT_MODEL)",
                 commands[i]);
        expect_error(ARGS(commands[i]), NULL, expected);
    }
    /* Variables are as good. */
    ck_assert_str_eq(parse_good(ARGS("status"), ENV("WEFT_CLUSTER=c")).cluster, "c");
    ck_assert_str_eq(parse_good(ARGS("chat"), ENV("WEFT_MODEL=m")).model, "m");
    /* Both: the model of the file is replaced. */
    struct weft_options opt = parse_good(ARGS("run", "-m", "m", "hi"), ENV("WEFT_CLUSTER=c"));
    ck_assert_str_eq(opt.cluster, "c");
    ck_assert_str_eq(opt.model, "m");
    /* inspect wants its file named, whatever the variable says. */
    expect_error(ARGS("inspect"), ENV("WEFT_MODEL=m"),
                 "weft inspect needs a file: weft inspect FILE");
}
END_TEST

START_TEST(threads_of_a_private_daemon)
{
    expect_error(ARGS("run", "-f", "c", "-t", "2", "hi"), NULL,
                 "-t with -f: a device's threads stand in its weftd.yaml");
    expect_error(ARGS("chat", "-m", "m", "--threads=2"), ENV("WEFT_CLUSTER=c"),
                 "-t with WEFT_CLUSTER: a device's threads stand in its weftd.yaml; unset "
                 "WEFT_CLUSTER to compute on this machine");
    ck_assert_uint_eq(parse_good(ARGS("chat", "-m", "m"), ENV("WEFT_THREADS=3")).threads, 3);
    ck_assert_uint_eq(parse_good(ARGS("chat", "-f", "c"), ENV("WEFT_THREADS=3")).threads, 0);
    ck_assert_uint_eq(
        parse_good(ARGS("chat", "-m", "m", "-t4"), ENV("WEFT_CLUSTER=", "WEFT_THREADS=3")).threads,
        4);
}
END_TEST

START_TEST(bench_rules)
{
    struct weft_options opt = parse_good(ARGS("bench", "-m", "m"), NULL);
    ck_assert(opt.prompts.n == 1 && opt.prompts.values[0] == 512);
    ck_assert(opt.answers.n == 1 && opt.answers.values[0] == 128);
    ck_assert_uint_eq(opt.thread_counts.n, 0);
    ck_assert_uint_eq(opt.repetitions, 5);
    ck_assert_str_eq(opt.output, "md");

    expect_error(ARGS("bench", "-m", "m", "-p", "0", "-n", "0,0"), NULL,
                 "-p 0 and -n 0 leave nothing to measure");
    ck_assert_uint_eq(parse_good(ARGS("bench", "-m", "m", "-p", "0"), NULL).prompts.values[0], 0);
    static const struct {
        const char *option, *value, *text;
    } cases[] = {
        {"-p", "", "found '', expected a whole number, 0..16777216"},
        {"-p", "1,", "found '', expected a whole number, 0..16777216"},
        {"-p", "1,x,3", "found 'x', expected a whole number, 0..16777216"},
        {"-p", "1, 2", "found ' 2', expected a whole number, 0..16777216"},
        {"-n", "16777217", "found 16777217, expected 0..16777216"},
        {"-n", "1,000000000000000000000001",
         "found '000000000000000000000001', expected a whole number, 0..16777216"},
        {"-n", "99999999999999999999", "found 99999999999999999999, expected 0..16777216"},
        {"-t", "1,0", "found 0, expected 1..64"},
        {"-t", "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "found more than 16 numbers"},
        {"-r", "0", "found 0, expected 1..10000"},
        {"-o", "jsn", "found 'jsn', expected md, csv or json, did you mean 'json'?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char expected[256];
        snprintf(expected, sizeof expected, "%s: %s", cases[i].option, cases[i].text);
        expect_error(ARGS("bench", "-m", "m", cases[i].option, cases[i].value), NULL, expected);
    }

    /* --json is -o json; what was asked for wins over the variable. */
    ck_assert_str_eq(parse_good(ARGS("bench", "-m", "m", "--json"), NULL).output, "json");
    ck_assert_str_eq(parse_good(ARGS("bench", "-m", "m"), ENV("WEFT_JSON=1")).output, "json");
    ck_assert_str_eq(parse_good(ARGS("bench", "-m", "m", "-o", "md"), ENV("WEFT_JSON=1")).output,
                     "md");
    ck_assert_str_eq(parse_good(ARGS("bench", "-m", "m", "-ojson", "--json"), NULL).output, "json");
    expect_error(ARGS("bench", "-m", "m", "-o", "csv", "--json"), NULL,
                 "found --json and -o csv, expected one of them");

    /* Threads as with the other commands. */
    expect_error(ARGS("bench", "-f", "c", "-t", "1,2"), NULL,
                 "-t with -f: a device's threads stand in its weftd.yaml");
    ck_assert_uint_eq(parse_good(ARGS("bench", "-f", "c"), ENV("WEFT_THREADS=3")).thread_counts.n,
                      0);
    ck_assert_uint_eq(parse_good(ARGS("bench", "-m", "m"), ENV("WEFT_THREADS=3,4")).thread_counts.n,
                      2);
    expect_error(ARGS("run", "-m", "m", "hi"), ENV("WEFT_THREADS=3,4"),
                 "WEFT_THREADS: found '3,4', expected a whole number, 1..64");
}
END_TEST

START_TEST(plan_files)
{
    expect_error(ARGS("chat", "-m", "m", "--plan", "p"), NULL,
                 "--plan without -f: a plan file names devices of a cluster file");
    ck_assert_ptr_null(parse_good(ARGS("chat", "-m", "m"), ENV("WEFT_PLAN=p")).plan);
    ck_assert_str_eq(parse_good(ARGS("chat", "-f", "c"), ENV("WEFT_PLAN=p")).plan, "p");
}
END_TEST

START_TEST(eval_rules)
{
    expect_error(ARGS("eval", "-m", "m"), NULL, "weft eval needs --ids N,N,… or --file TEXT");
    expect_error(ARGS("eval", "-m", "m", "--ids=1", "--file=t"), NULL,
                 "found --ids and --file, expected one of them");
    expect_error(ARGS("eval", "-m", "m", "--file=t", "--logits=l"), NULL,
                 "--logits goes with --ids; --file gives the perplexity alone");
    expect_error(ARGS("eval", "-m", "m", "--file=t", "-n", "3"), NULL,
                 "-n goes with --ids; --file gives the perplexity alone");
    expect_error(ARGS("eval", "-m", "m", "--ids", "1,x"), NULL,
                 "--ids: number 2 is 'x', expected 0..2147483647");
    ck_assert_int_eq(parse_good(ARGS("eval", "-mm", "--file=t"), ENV("WEFT_PREDICT=3")).predict,
                     -1);
    ck_assert_int_eq(parse_good(ARGS("eval", "-mm", "--ids=1"), ENV("WEFT_PREDICT=3")).predict, 3);
}
END_TEST

START_TEST(token_ids)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "--ids: number 1 is '', expected 0..2147483647"},
        {"1,", "--ids: number 2 is '', expected 0..2147483647"},
        {",1", "--ids: number 1 is '', expected 0..2147483647"},
        {"1,,2", "--ids: number 2 is '', expected 0..2147483647"},
        {"1,-2", "--ids: number 2 is '-2', expected 0..2147483647"},
        {"1, 2", "--ids: number 2 is ' 2', expected 0..2147483647"},
        {"2147483648", "--ids: number 1 is '2147483648', expected 0..2147483647"},
        {"3,00000000000000000001",
         "--ids: number 2 is '00000000000000000001', expected 0..2147483647"},
    };
    int32_t *ids = NULL;
    uint32_t n = 0;
    weft_err err = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(weft_options_ids(cases[i].text, &ids, &n, &err), -WEFT_EUSAGE);
        ck_assert_str_eq(err.text, cases[i].error);
        ck_assert_ptr_null(ids);
    }
    ck_assert_int_eq(weft_options_ids("1,300,2147483647", &ids, &n, &err), 0);
    ck_assert_uint_eq(n, 3);
    ck_assert(ids[0] == 1 && ids[1] == 300 && ids[2] == INT32_MAX);
    free(ids);
}
END_TEST

START_TEST(logit_biases)
{
    static const struct {
        const char *text, *error; /* error NULL: good */
    } cases[] = {
        {"0=-inf", NULL},
        {"2147483647=1e6", NULL},
        {"1=2,3=-4.5,1=0", NULL},
        {"", "found ''"},
        {"5", "found '5'"},
        {"=1", "found '=1'"},
        {"1=", "found '1='"},
        {"1=inf", "found '1=inf'"},
        {"1=nan", "found '1=nan'"},
        {"1=1000001", "found '1=1000001'"},
        {"-1=2", "found '-1=2'"},
        {"2147483648=2", "found '2147483648=2'"},
        {"1=2,", "found ''"},
        {"1=2,x=3,4=5", "found 'x=3'"},
        {"1=0.00000000000000000000000000000001", "found '1=0.000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct weft_text_list list = {1, {cases[i].text}};
        struct weft_turn_bias *bias = NULL;
        uint32_t n = 0;
        weft_err err = {0};
        int r = weft_options_logit_bias(&list, &bias, &n, &err);
        ck_assert_int_eq(r, cases[i].error != NULL ? -WEFT_EUSAGE : 0);
        ck_assert_msg(cases[i].error == NULL || strstr(err.text, cases[i].error) != NULL, "%s",
                      err.text);
        ck_assert(cases[i].error == NULL || bias == NULL);
        free(bias);
    }
    const struct weft_text_list two = {2, {"1=2,3=-inf", "7=0.5"}};
    struct weft_turn_bias *bias = NULL;
    uint32_t n = 0;
    ck_assert_int_eq(weft_options_logit_bias(&two, &bias, &n, NULL), 0);
    ck_assert(n == 3 && bias[0].id == 1 && bias[0].bias == 2 && bias[1].id == 3 &&
              isinf(bias[1].bias) && bias[1].bias < 0 && bias[2].id == 7 && bias[2].bias == 0.5f);
    free(bias);
    struct weft_str text = {0};
    for (unsigned i = 0; i <= WEFT_TURN_BIAS_MAX; i++)
        weft_str_addf(&text, "%s%u=1", i > 0 ? "," : "", i);
    const struct weft_text_list many = {1, {text.data}};
    weft_err err = {0};
    ck_assert_int_eq(weft_options_logit_bias(&many, &bias, &n, &err), -WEFT_EUSAGE);
    ck_assert_str_eq(err.text, "--logit-bias: found more than 1024 tokens");
    weft_str_done(&text);
}
END_TEST

START_TEST(rules_of_an_answer)
{
    const struct weft_options opt = parse_good(
        ARGS("chat", "-mm", "--stop=a", "--stop", "b", "--logit-bias=1=2"), ENV("WEFT_STOP=c"));
    ck_assert(opt.stops.n == 2 && opt.logit_bias.n == 1);
    ck_assert_str_eq(opt.stops.values[0], "a");
    ck_assert_str_eq(opt.stops.values[1], "b");
    const char *args[ARGS_MAX] = {"chat", "-mm"};
    char stop[] = "--stop=x";
    for (size_t i = 2; i < 14; i++)
        args[i] = stop;
    ck_assert_uint_eq(parse_good(args, NULL).stops.n, 12);
    expect_error(ARGS("run", "-mm", "hi", "--stop", ""), NULL,
                 "--stop: found nothing, expected TEXT");
    expect_error(ARGS("run", "-mm", "hi", "--mirostat=1"), NULL,
                 "--mirostat: found '1', expected 0 or 2");
    expect_error(ARGS("run", "-mm", "hi", "--logprobs=21"), NULL,
                 "--logprobs: found 21, expected 0..20");
    expect_error(ARGS("chat", "-mm", "--logprobs=2"), NULL,
                 "weft chat has no option --logprobs; these have it: run");
    expect_error(ARGS("chat", "-mm", "--grammar=g", "--json-schema=s"), NULL,
                 "found a grammar and a JSON schema, expected one of them");
    expect_error(ARGS("chat", "-mm"), ENV("WEFT_GRAMMAR=g", "WEFT_JSON_SCHEMA=s"),
                 "found a grammar and a JSON schema, expected one of them");
    expect_error(ARGS("run", "-mm", "-", "--grammar", "-"), NULL,
                 "--grammar -: standard input is the prompt, expected a file");
    expect_error(ARGS("run", "-mm", "--prompt-file=-", "--json-schema", "-"), NULL,
                 "--json-schema -: standard input is the prompt, expected a file");
    expect_error(ARGS("chat", "-mm", "--grammar", "-"), NULL,
                 "--grammar -: standard input is what is said, expected a file");
    parse_good(ARGS("run", "-mm", "hi", "--json-schema", "-"), NULL);
    /* a flag wins over the other one's variable */
    struct weft_options o =
        parse_good(ARGS("chat", "-mm", "--grammar=g"), ENV("WEFT_JSON_SCHEMA=s"));
    ck_assert(o.json_schema == NULL && strcmp(o.grammar, "g") == 0);
    o = parse_good(ARGS("chat", "-mm", "--json-schema=s"), ENV("WEFT_GRAMMAR=g"));
    ck_assert(o.grammar == NULL && strcmp(o.json_schema, "s") == 0);
    ck_assert(parse_good(ARGS("chat", "-mm"), NULL).logprobs == -1);
}
END_TEST

/* ---- help ---- */

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, part)) != NULL; p += strlen(part))
        n++;
    return n;
}

/* Lines that introduce an option: "  -c, --ctx-size N   …". */
static size_t count_introductions(const char *help, const char *name)
{
    size_t n = 0;
    char wanted[64];
    snprintf(wanted, sizeof wanted, "--%s", name);
    for (const char *line = help; *line != '\0'; line += strcspn(line, "\n") + 1) {
        const char *p = line + strspn(line, " ");
        if (p[0] == '-' && p[1] != '-' && p[2] == ',')
            p += 4;
        const size_t size = strcspn(p, " \n");
        n += p != line && size == strlen(wanted) && strncmp(p, wanted, size) == 0;
        if (line[strcspn(line, "\n")] == '\0')
            break;
    }
    return n;
}

static void check_width(const char *text)
{
    size_t columns = 0;
    for (; *text != '\0'; text++) {
        columns = *text == '\n' ? 0 : columns + (((unsigned char)*text & 0xC0) != 0x80);
        ck_assert_uint_le(columns, LINE_WIDTH);
    }
}

START_TEST(help_of_a_command)
{
    struct weft_str help = {0};
    char usage[64];
    weft_options_help((enum weft_command)_i, &help);
    ck_assert(!help.failed);
    snprintf(usage, sizeof usage, "usage: weft %s [options]", weft_command_table[_i].name);
    ck_assert_msg(strncmp(help.data, usage, strlen(usage)) == 0, "%s", help.data);
    for (int i = 0; i < WEFT_OPTION_COUNT; i++) {
        const struct weft_option *o = &weft_option_table[i];
        size_t expected = 0; /* another option of the name may be the one of this command */
        for (int k = 0; k < WEFT_OPTION_COUNT; k++)
            expected += strcmp(weft_option_table[k].name, o->name) == 0 &&
                        (weft_option_table[k].commands & 1u << _i) != 0;
        char variable[64];
        ck_assert_msg(count_introductions(help.data, o->name) == expected, "--%s in:\n%s", o->name,
                      help.data);
        snprintf(variable, sizeof variable, "[%s]", o->variable != NULL ? o->variable : "");
        if (o->variable != NULL)
            ck_assert_msg(count(help.data, variable) == expected, "%s", o->variable);
    }
    ck_assert_ptr_nonnull(strstr(help.data, weft_command_table[_i].examples[0]));
    check_width(help.data);
    weft_str_done(&help);
}
END_TEST

START_TEST(help_of_all)
{
    struct weft_str help = {0};
    static const int codes[] = {WEFT_EXIT_OK,     WEFT_EXIT_INTERNAL, WEFT_EXIT_USAGE,
                                WEFT_EXIT_CONFIG, WEFT_EXIT_MODEL,    WEFT_EXIT_NOFIT,
                                WEFT_EXIT_DEVICE, WEFT_EXIT_REFUSED,  WEFT_EXIT_INTERRUPTED};
    weft_options_help(WEFT_CMD_COUNT, &help);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        char line[16];
        snprintf(line, sizeof line, "\n  %d ", codes[i]);
        ck_assert_msg(count(help.data, line) == 1, "exit code %d", codes[i]);
    }
    for (int i = 0; i < WEFT_CMD_COUNT; i++) {
        char line[32];
        snprintf(line, sizeof line, "\n  %s ", weft_command_table[i].name);
        ck_assert_msg(count(help.data, line) == 1, "%s", weft_command_table[i].name);
    }
    check_width(help.data);
    weft_str_done(&help);
}
END_TEST

START_TEST(help_shows_the_defaults)
{
    struct weft_str help = {0};
    weft_options_help(WEFT_CMD_RUN, &help);
    static const struct {
        const char *text;
        size_t times;
    } lines[] = {
        {"(default: 0.8)", 1},  {"(default: 40)", 1}, {"(default: 0.95)", 1},
        {"(default: 0.05)", 1}, {"(default: 64)", 1}, {"(default: 5)", 1},
        {"(default: 0.1)", 1},  {"(default: 1)", 2}, /* typical and the repeat penalty */
        {"(default: 0)", 3},                         /* presence and frequency penalty, mirostat */
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        ck_assert_msg(count(help.data, lines[i].text) == lines[i].times, "%s", lines[i].text);
    weft_str_done(&help);
}
END_TEST

/* ---- the examples of help are good command lines ---- */

START_TEST(examples_parse)
{
    for (size_t i = 0; weft_command_table[_i].examples[i] != NULL; i++) {
        /* Words as a shell makes them: quotes hold one word together, < ends the line. */
        char text[160], *args[ARGS_MAX] = {0};
        size_t n = 0;
        snprintf(text, sizeof text, "%s", weft_command_table[_i].examples[i]);
        for (char *p = text; *p != '\0' && *p != '<';) {
            const char *const ends = *p == '"' ? "\"" : " ";
            p += *p == '"';
            ck_assert_uint_lt(n, ARGS_MAX - 1);
            args[n++] = p;
            p += strcspn(p, ends);
            if (*p != '\0')
                *p++ = '\0';
            p += strspn(p, " ");
        }
        ck_assert_str_eq(args[0], "weft");
        const struct weft_options opt = parse_good((const char *const *)args + 1, NULL);
        ck_assert_int_eq(opt.command, _i);
    }
}
END_TEST

/* ---- completion ---- */

/* Runs bash with the script and more text; gives the exit status and what it printed. */
static int run_bash(const char *flags, const char *more, char *out, size_t n)
{
    struct weft_str script = {0};
    char path[4200], command[4400];
    snprintf(path, sizeof path, "%s/completion.bash", weft_test_tmpdir());
    weft_options_completion(&script);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fwrite(script.data, 1, script.size, f);
    fputs(more, f);
    ck_assert_int_eq(fclose(f), 0);
    weft_str_done(&script);
    snprintf(command, sizeof command, "bash %s '%s' 2>&1", flags, path);
    FILE *p = popen(command, "r");
    ck_assert_ptr_nonnull(p);
    size_t used = fread(out, 1, n - 1, p);
    out[used] = '\0';
    return pclose(p);
}

static bool have_bash(void)
{
    if (system("bash -c : >/dev/null 2>&1") == 0)
        return true;
    weft_test_skip("bash is not installed");
    return false;
}

START_TEST(completion_is_bash)
{
    char out[4096];
    if (!have_bash())
        return;
    const int status = run_bash("-n", "", out, sizeof out);
    ck_assert_msg(status == 0 && out[0] == '\0', "%s", out);
}
END_TEST

START_TEST(completion_completes)
{
    static const struct {
        const char *words; /* as bash splits them; the last one is completed */
        const char *expected;
    } cases[] = {
        {"weft ch", "check chat"},
        {"weft help ev", "eval"},
        {"weft run --te", "--template --temp"},
        {"weft run --kv f", "f16 f32"},
        {"weft run --kv = f3", "f32"},
        {"weft run --gemm = ''", "openblas weft"},
        {"weft run --temp ''", ""},
        {"weft inspect --j", "--json"},
        {"weft bench -o ''", "md csv json"},
        {"weft bench --n", "--n-prompt --n-gen"},
        {"weft tokenize --", "--model --ids --no-bos --special --json --help --version"},
        {"weft tokenize --ids ''", ""},
        {"weft detok", "detokenize"},
        {"weft bench -t ''", ""},
        {"weft be", "bench"},
        {"weft inspect /nonexis", ""},
        {"weft status -", "-f --cluster --json -h --help --version"},
    };
    if (!have_bash())
        return;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char more[512], out[4096];
        snprintf(more, sizeof more,
                 "COMP_WORDS=(%s)\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_weft\n"
                 "printf '%%s' \"${COMPREPLY[*]}\"\n",
                 cases[i].words);
        ck_assert_int_eq(run_bash("", more, out, sizeof out), 0);
        ck_assert_msg(strcmp(out, cases[i].expected) == 0, "%s: found '%s', expected '%s'",
                      cases[i].words, out, cases[i].expected);
    }
}
END_TEST

/* The script itself is a path to complete. */
START_TEST(completion_of_paths)
{
    static const char *const before[] = {"inspect", "run -f", "eval --logits =", "check --plan"};
    if (!have_bash())
        return;
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        char more[9000], out[4300], expected[4300];
        snprintf(expected, sizeof expected, "%s/completion.bash", weft_test_tmpdir());
        snprintf(more, sizeof more,
                 "COMP_WORDS=(weft %s '%s/completion.b')\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
                 "_weft\nprintf '%%s' \"${COMPREPLY[*]}\"\n",
                 before[i], weft_test_tmpdir());
        ck_assert_int_eq(run_bash("", more, out, sizeof out), 0);
        ck_assert_str_eq(out, expected);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("options");
    TCase *t = tcase_create("parse");
    tcase_add_loop_test(t, every_option, 0, WEFT_OPTION_COUNT);
    tcase_add_test(t, last_one_wins);
    tcase_add_test(t, defaults);
    tcase_add_test(t, every_command);
    tcase_add_test(t, help_and_version);
    tcase_add_test(t, prompts);
    tcase_add_test(t, wrong_operands);
    tcase_add_test(t, unknown_words);
    tcase_add_test(t, foreign_options);
    tcase_add_test(t, wrong_values);
    tcase_add_test(t, wrong_variables);
    suite_add_tcase(s, t);
    t = tcase_create("rules");
    tcase_add_test(t, cluster_or_model);
    tcase_add_test(t, threads_of_a_private_daemon);
    tcase_add_test(t, plan_files);
    tcase_add_test(t, bench_rules);
    tcase_add_test(t, eval_rules);
    tcase_add_test(t, token_ids);
    tcase_add_test(t, logit_biases);
    tcase_add_test(t, rules_of_an_answer);
    suite_add_tcase(s, t);
    t = tcase_create("help");
    tcase_add_loop_test(t, help_of_a_command, 0, WEFT_CMD_COUNT);
    tcase_add_test(t, help_of_all);
    tcase_add_test(t, help_shows_the_defaults);
    tcase_add_loop_test(t, examples_parse, 0, WEFT_CMD_COUNT);
    suite_add_tcase(s, t);
    t = tcase_create("completion");
    tcase_set_timeout(t, 60); /* bash twelve times on a loaded machine */
    tcase_add_test(t, completion_is_bash);
    tcase_add_test(t, completion_completes);
    tcase_add_test(t, completion_of_paths);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
