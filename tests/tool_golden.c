/*
 * Makes the models of tests/golden/arch: `tool_golden --list`, `tool_golden NAME -o OUT.gguf`.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "tests/golden_maker.h"

static const char usage[] = "usage: tool_golden --list\n"
                            "       tool_golden NAME -o OUT.gguf [--f32] [--seed N]\n"
                            "\n"
                            "  --list    names of the models\n"
                            "  --f32     matrices in F32, with the same numbers\n"
                            "  --seed N  other numbers than those of the golden file\n";

static const struct option options[] = {
    {"help", no_argument, NULL, 'h'},
    {"list", no_argument, NULL, 'l'},
    {"f32", no_argument, NULL, 'f'},
    {"seed", required_argument, NULL, 's'},
    {NULL, 0, NULL, 0},
};

static int list(void)
{
    for (uint32_t i = 0; golden_model_at(i) != NULL; i++)
        printf("%s\n", golden_model_at(i)->name);
    return 0;
}

static int wrong(const char *what, const char *found, const char *expected)
{
    fprintf(stderr, "tool_golden: %s: found '%s', expected %s\n", what, found, expected);
    return WEFT_EXIT_USAGE;
}

static int make(const struct golden_model *m, bool wide, const char *out)
{
    struct gguf_writer w;
    golden_model_make(&w, m, wide);
    bool saved = gguf_writer_save(&w, out);
    gguf_writer_done(&w);
    if (!saved)
        fprintf(stderr, "tool_golden: %s: %s\n", out, strerror(errno));
    return saved ? 0 : weft_error_exit(-WEFT_EIO);
}

int main(int argc, char **argv)
{
    const char *out = NULL, *seed = NULL;
    bool wide = false;
    int option;
    while ((option = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
        switch (option) {
        case 'h':
            fputs(usage, stdout);
            return 0;
        case 'l':
            return list();
        case 'f':
            wide = true;
            break;
        case 's':
            seed = optarg;
            break;
        case 'o':
            out = optarg;
            break;
        default:
            return WEFT_EXIT_USAGE; /* getopt has said why */
        }
    }
    if (out == NULL || optind + 1 != argc) {
        fputs(usage, stderr);
        return WEFT_EXIT_USAGE;
    }
    const struct golden_model *found = golden_model_find(argv[optind]);
    if (found == NULL)
        return wrong("NAME", argv[optind], "one of --list");
    struct golden_model m = *found;
    if (seed != NULL) {
        char *end;
        m.seed = strtoull(seed, &end, 10);
        if (*seed < '0' || *seed > '9' || *end != '\0' || m.seed == 0)
            return wrong("--seed", seed, "a number from 1 on");
    }
    return make(&m, wide, out);
}
