/*
 * Help and bash completion, made from the tables of options_table.c. Pure.
 */
#include "coordinator/options_table.h"

#include <stdio.h>
#include <string.h>

#define LINE_WIDTH 100
/* Room for "  -c, --ctx-size N" (the longest is --frequency-penalty X) and for command names; help
 * texts stand behind it. */
#define OPTION_WIDTH 28
#define COMMAND_WIDTH 12

static const struct {
    int code;
    const char *text;
} exit_codes[] = {
    {WEFT_EXIT_OK, "done"},
    {WEFT_EXIT_INTERNAL, "a fault of weft or of the system: disk full, no memory"},
    {WEFT_EXIT_USAGE, "command line"},
    {WEFT_EXIT_CONFIG, "cluster file, plan file or weftd.yaml"},
    {WEFT_EXIT_MODEL, "the GGUF file, or what it asks for"},
    {WEFT_EXIT_NOFIT, "memory or context too small"},
    {WEFT_EXIT_DEVICE, "a device is unreachable or was lost"},
    {WEFT_EXIT_REFUSED, "refused by a device: held by another coordinator, other version"},
    {WEFT_EXIT_INTERRUPTED, "interrupted"},
};

/* Variables that no option stands for. */
static const struct {
    const char *name, *text;
} variables[] = {
    {"WEFT_MODELS", "directories of models, with ':' between; a name without '/' is found there"},
    {"WEFT_WEFTD", "the weftd that runs as private daemon (beside weft, or on PATH)"},
    {"NO_COLOR", "set: no colours on a terminal"},
};

/* ------------------------------------------------------------------ help */

/* "(default: 0.8)", or nothing. */
static void format_default(char *buf, size_t n, const struct weft_option *o)
{
    const char *place =
        (const char *)&weft_sampling_defaults + o->offset - offsetof(struct weft_options, sampling);
    buf[0] = '\0';
    if (o->usual != NULL)
        snprintf(buf, n, "(default: %s)", o->usual);
    else if (o->sampling && o->kind == WEFT_OPTION_U32)
        snprintf(buf, n, "(default: %u)", *(const uint32_t *)(const void *)place);
    else if (o->sampling)
        snprintf(buf, n, "(default: %g)", *(const double *)(const void *)place);
}

/* Appends a piece with a space before it, or on a line of its own where it does not fit. */
static size_t add_piece(const char *piece, size_t column, struct weft_str *out)
{
    if (piece[0] == '\0')
        return column;
    if (column + 1 + weft_text_columns(piece) > LINE_WIDTH) {
        weft_str_addf(out, "\n%*s", OPTION_WIDTH, "");
        column = OPTION_WIDTH;
    }
    weft_str_addf(out, " %s", piece);
    return column + 1 + weft_text_columns(piece);
}

static void add_option(const struct weft_option *o, struct weft_str *out)
{
    char left[64], letter[8] = "    ", usual[64], variable[64] = "";
    if (o->letter != 0)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(left, sizeof left, "  %s--%s%s%s", letter, o->name, o->argument != NULL ? " " : "",
             o->argument != NULL ? o->argument : "");
    weft_str_addf(out, "%s%*s", left, (int)(OPTION_WIDTH - weft_text_columns(left)), "");
    format_default(usual, sizeof usual, o);
    if (o->variable != NULL)
        snprintf(variable, sizeof variable, "[%s]", o->variable);
    size_t column = add_piece(o->help, OPTION_WIDTH, out);
    column = add_piece(usual, column, out);
    (void)add_piece(variable, column, out);
    weft_str_adds(out, "\n");
}

static void help_command(enum weft_command command, struct weft_str *out)
{
    const struct weft_command_info *c = &weft_command_table[command];
    weft_str_addf(out, "usage: weft %s [options]%s%s\n\n%s\n\noptions [and their variables]:\n",
                  c->name, c->operand != NULL ? " " : "", c->operand != NULL ? c->operand : "",
                  c->text);
    for (int i = 0; i < WEFT_OPTION_COUNT; i++)
        if ((weft_option_table[i].commands & 1u << command) != 0)
            add_option(&weft_option_table[i], out);
    weft_str_adds(out, "\nexamples:\n");
    for (size_t i = 0; c->examples[i] != NULL; i++)
        weft_str_addf(out, "  %s\n", c->examples[i]);
}

static void help_overall(struct weft_str *out)
{
    weft_str_adds(out,
                  "usage: weft COMMAND [options]\n\n"
                  "weft runs one language model over several machines, each with its weftd.\n\n"
                  "commands:\n");
    for (int i = 0; i < WEFT_CMD_COUNT; i++)
        weft_str_addf(out, "  %-*s %s\n", COMMAND_WIDTH, weft_command_table[i].name,
                      weft_command_table[i].summary);
    weft_str_addf(out, "  %-*s %s\n", COMMAND_WIDTH, WEFT_WORD_HELP,
                  "print this text, or that of a command: weft help run");
    weft_str_addf(out, "  %-*s %s\n", COMMAND_WIDTH, WEFT_WORD_COMPLETION,
                  "print a completion script for bash");
    weft_str_adds(out,
                  "\nOptions are listed by weft COMMAND --help. Most have a variable in the "
                  "environment; the option\nwins over its variable, the variable over the cluster "
                  "file. An option without a value, such as\n--raw, can be taken back: --raw=no. "
                  "-- ends the options.\n\nvariables beside those of options:\n");
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
        weft_str_addf(out, "  %-*s %s\n", COMMAND_WIDTH, variables[i].name, variables[i].text);
    weft_str_adds(out, "\nexit codes:\n");
    for (size_t i = 0; i < sizeof exit_codes / sizeof exit_codes[0]; i++)
        weft_str_addf(out, "  %-*d %s\n", COMMAND_WIDTH, exit_codes[i].code, exit_codes[i].text);
    weft_str_adds(out, "\nexamples:\n");
    for (int i = 0; i < WEFT_CMD_COUNT; i++)
        weft_str_addf(out, "  %s\n", weft_command_table[i].examples[0]);
    weft_str_adds(out, "\nmore: weft(1), weft-cluster.yaml(5), weftd(8)\n");
}

void weft_options_help(enum weft_command command, struct weft_str *out)
{
    if (command < WEFT_CMD_COUNT)
        help_command(command, out);
    else
        help_overall(out);
}

/* ------------------------------------------------------------------ completion */

/* "-f|--cluster" */
static void add_pattern(const struct weft_option *o, struct weft_str *out)
{
    if (o->letter != 0)
        weft_str_addf(out, "-%c|", o->letter);
    weft_str_addf(out, "--%s", o->name);
}

/* One case for all options whose value is completed as a path, or not at all. */
static void add_values(bool paths, const char *action, struct weft_str *out)
{
    const char *before = "        ";
    for (int i = 0; i < WEFT_OPTION_COUNT; i++) {
        const struct weft_option *o = &weft_option_table[i];
        if (o->kind == WEFT_OPTION_FLAG || o->kind == WEFT_OPTION_NAME ||
            (o->kind == WEFT_OPTION_FILE) != paths)
            continue;
        weft_str_adds(out, before);
        add_pattern(o, out);
        before = "|";
    }
    weft_str_addf(out, ")\n            %s\n            return ;;\n", action);
}

static void add_names(const struct weft_option *o, struct weft_str *out)
{
    weft_str_adds(out, "        ");
    add_pattern(o, out);
    weft_str_adds(out, ")\n            mapfile -t COMPREPLY < <(compgen -W '");
    for (size_t i = 0; o->names[i] != NULL; i++)
        weft_str_addf(out, "%s%s", i > 0 ? " " : "", o->names[i]);
    weft_str_adds(out, "' -- \"$cur\")\n            return ;;\n");
}

static void add_command_words(enum weft_command command, struct weft_str *out)
{
    weft_str_addf(out, "        %s) words='", weft_command_table[command].name);
    const char *between = "";
    for (int i = 0; i < WEFT_OPTION_COUNT; i++) {
        const struct weft_option *o = &weft_option_table[i];
        if ((o->commands & 1u << command) == 0)
            continue;
        if (o->letter != 0)
            weft_str_addf(out, "%s-%c --%s", between, o->letter, o->name);
        else
            weft_str_addf(out, "%s--%s", between, o->name);
        between = " ";
    }
    weft_str_adds(out, "' ;;\n");
}

void weft_options_completion(struct weft_str *out)
{
    weft_str_adds(out, "# bash completion of weft, printed by weft completion\n"
                       "_weft()\n{\n"
                       "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} "
                       "words=\n"
                       "    # --option=value comes as three words\n"
                       "    if [[ $cur == = ]]; then\n"
                       "        cur=\n"
                       "    elif [[ $prev == = && $COMP_CWORD -gt 1 ]]; then\n"
                       "        prev=${COMP_WORDS[COMP_CWORD-2]}\n"
                       "    fi\n"
                       "    COMPREPLY=()\n"
                       "    if [[ $COMP_CWORD -eq 1 || ( $COMP_CWORD -eq 2 && $prev == ");
    weft_str_addf(out, WEFT_WORD_HELP " ) ]]; then\n        mapfile -t COMPREPLY < <(compgen -W '");
    for (int i = 0; i < WEFT_CMD_COUNT; i++)
        weft_str_addf(out, "%s ", weft_command_table[i].name);
    weft_str_adds(out, WEFT_WORD_HELP " " WEFT_WORD_COMPLETION " --help --version' -- \"$cur\")\n"
                                      "        return\n    fi\n    case $prev in\n");
    add_values(true,
               "compopt -o filenames 2>/dev/null\n"
               "            mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")",
               out);
    add_values(false, ":", out);
    for (int i = 0; i < WEFT_OPTION_COUNT; i++)
        if (weft_option_table[i].kind == WEFT_OPTION_NAME)
            add_names(&weft_option_table[i], out);
    weft_str_adds(out, "    esac\n    case ${COMP_WORDS[1]} in\n");
    for (int i = 0; i < WEFT_CMD_COUNT; i++)
        add_command_words((enum weft_command)i, out);
    weft_str_addf(out,
                  "    esac\n"
                  "    if [[ $cur == -* || ${COMP_WORDS[1]} != %s ]]; then\n"
                  "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
                  "    else\n"
                  "        compopt -o filenames 2>/dev/null\n"
                  "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
                  "    fi\n"
                  "}\n"
                  "complete -F _weft weft\n",
                  weft_command_table[WEFT_CMD_INSPECT].name);
}
