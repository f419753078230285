/*
 * Makes a synthetic model: a GGUF file of any shape, architecture and type with random weights, for
 * measuring speed on shapes whose weights are not here. `tool_model --help` lists what it takes.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/mixture.h"
#include "tests/model_maker.h"

static const char usage[] =
    "usage: tool_model -o OUT.gguf [options]\n"
    "\n"
    "  --shape NAME        a shape people know (1.1b); what follows changes it\n"
    "  --arch NAME         architecture\n"
    "  --dim N, --layers N, --heads N, --kv-heads N, --head-dim N, --ffn N, --context N\n"
    "  --vocab-size N      tokens; the vocabulary is cut or filled to it\n"
    "  --experts N, --experts-used N\n"
    "  --rope-base X       base frequency of rotary positions\n"
    "  --rope-freqs        with a tensor of frequency factors\n"
    "  --tied              the embedding is the output matrix too\n"
    "  --type NAME         type of the matrices as a quantiser mixes them (q4_k_m)\n"
    "  --pure              every matrix of the type's own block format\n"
    "  --vocab FILE.gguf   take the tokenizer of this file; else one of bytes and letters is made\n"
    "  --seed N            the same seed gives the same bytes (1)\n";

enum {
    HELP = 'h',
    OUT = 'o',
    SHAPE = 256,
    ARCH,
    TYPE,
    VOCAB,
    PURE,
    TIED,
    ROPE_FREQS,
    ROPE_BASE,
    SEED,
    DIM, /* and all below: a number of the shape */
    LAYERS,
    HEADS,
    KV_HEADS,
    HEAD_DIM,
    FFN,
    VOCAB_SIZE,
    CONTEXT,
    EXPERTS,
    EXPERTS_USED,
};

static const struct option options[] = {
    {"help", no_argument, NULL, HELP},
    {"shape", required_argument, NULL, SHAPE},
    {"arch", required_argument, NULL, ARCH},
    {"type", required_argument, NULL, TYPE},
    {"vocab", required_argument, NULL, VOCAB},
    {"pure", no_argument, NULL, PURE},
    {"tied", no_argument, NULL, TIED},
    {"rope-freqs", no_argument, NULL, ROPE_FREQS},
    {"rope-base", required_argument, NULL, ROPE_BASE},
    {"seed", required_argument, NULL, SEED},
    {"dim", required_argument, NULL, DIM},
    {"layers", required_argument, NULL, LAYERS},
    {"heads", required_argument, NULL, HEADS},
    {"kv-heads", required_argument, NULL, KV_HEADS},
    {"head-dim", required_argument, NULL, HEAD_DIM},
    {"ffn", required_argument, NULL, FFN},
    {"vocab-size", required_argument, NULL, VOCAB_SIZE},
    {"context", required_argument, NULL, CONTEXT},
    {"experts", required_argument, NULL, EXPERTS},
    {"experts-used", required_argument, NULL, EXPERTS_USED},
    {NULL, 0, NULL, 0},
};

static void help(void)
{
    fputs(usage, stdout);
    printf("\nshapes:");
    for (uint32_t i = 0; model_shape_at(i) != NULL; i++)
        printf(" %s", model_shape_at(i)->name);
    printf("\narchitectures:");
    for (uint32_t i = 0; model_arch_at(i) != NULL; i++)
        printf(" %s", model_arch_at(i));
    printf("\ntypes:");
    for (uint32_t i = 0; mixture_at(i) != NULL; i++)
        printf(" %s", mixture_at(i)->name);
    printf("\n");
}

static _Noreturn void die(const char *option, const char *text, const char *expected)
{
    fprintf(stderr, "tool_model: --%s: found '%s', expected %s\n", option, text, expected);
    exit(WEFT_EXIT_USAGE);
}

static uint64_t number(const char *option, const char *text, uint64_t most)
{
    char *end, expected[64];
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    snprintf(expected, sizeof expected, "a number from 1 to %llu", (unsigned long long)most);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || v < 1 || v > most)
        die(option, text, expected);
    return v;
}

static float real(const char *option, const char *text)
{
    char *end;
    float v = strtof(text, &end);
    if (end == text || *end != '\0' || !(v > 0) || !(v < 1e30f))
        die(option, text, "a number above 0");
    return v;
}

/* The field of the shape that a numeric option sets. */
static uint32_t *field(struct model_shape *s, int option)
{
    switch (option) {
    case DIM:
        return &s->dim;
    case LAYERS:
        return &s->layers;
    case HEADS:
        return &s->heads;
    case KV_HEADS:
        return &s->kv_heads;
    case HEAD_DIM:
        return &s->head_dim;
    case FFN:
        return &s->ffn;
    case VOCAB_SIZE:
        return &s->vocab;
    case CONTEXT:
        return &s->context;
    case EXPERTS:
        return &s->experts;
    case EXPERTS_USED:
        return &s->experts_used;
    default:
        abort();
    }
}

static void set(struct model_maker *o, int option, const char *name)
{
    switch (option) {
    case SHAPE:
        o->shape = optarg;
        break;
    case ARCH:
        o->changed.arch = optarg;
        break;
    case TYPE:
        o->type = optarg;
        break;
    case VOCAB:
        o->vocab_path = optarg;
        break;
    case PURE:
        o->pure = true;
        break;
    case TIED:
        o->changed.tied = true;
        break;
    case ROPE_FREQS:
        o->changed.rope_freqs = true;
        break;
    case ROPE_BASE:
        o->changed.rope_base = real(name, optarg);
        break;
    case SEED:
        o->seed = number(name, optarg, UINT64_MAX);
        break;
    default:
        *field(&o->changed, option) = (uint32_t)number(name, optarg, UINT32_MAX);
    }
}

int main(int argc, char **argv)
{
    struct model_maker o = {0};
    const char *out = NULL;
    int option, index = 0;
    while ((option = getopt_long(argc, argv, "o:h", options, &index)) != -1) {
        if (option == '?')
            return WEFT_EXIT_USAGE; /* getopt has said why */
        if (option == HELP) {
            help();
            return 0;
        }
        if (option == OUT)
            out = optarg;
        else
            set(&o, option, options[index].name);
    }
    if (out == NULL || optind != argc) {
        fprintf(stderr, "tool_model: %s%s\n",
                optind != argc ? "unexpected argument "
                               : "where to write the model is not said: -o",
                optind != argc ? argv[optind] : "");
        return WEFT_EXIT_USAGE;
    }
    weft_err err = {0};
    if (model_maker_write(&o, out, &err) < 0) {
        fprintf(stderr, "tool_model: %s\n", err.text);
        return weft_error_exit(err.code);
    }
    return 0;
}
