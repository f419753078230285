/*
 * Pre-tokenizer, see pretokenizer.h. A rule is a list of regular expressions: the first cuts the
 * text into its matches and what lies between them, each further one cuts every piece of the one
 * before it, as if it were a text of its own.
 *
 * The expressions are those of the models with three changes. A blank is spelt out, since the \s of
 * PCRE2 holds U+180E, which Unicode's White_Space does not. What would look at the rest of the text
 * again from each of its positions is bound to the start of a run, so that every rule takes linear
 * time. No group repeats in a way that can be taken back, so that no match needs more stack than
 * another.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "coordinator/pretokenizer.h"

#include <assert.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

#define STEPS_MAX 6 /* expressions of a rule; chameleon has most */

/* ------------------------------------------------------------------ rules */

#define BLANK "\\p{Z}\\t-\\r\\x85" /* White_Space, for use in a class */
#define S "[" BLANK "]"
#define NOT_S "[^" BLANK "]"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
/* All blanks but the one before a word. */
#define BLANKS S "+(?!" NOT_S ")|" S "+"
#define LINE_ENDS S "*[\\r\\n]+"
#define OTHERS " ?[^" BLANK "\\p{L}\\p{N}]+"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|" OTHERS "|" BLANKS
/* The family of llama-bpe: it differs in how many digits make a word. */
#define LLAMA3(digits)                                                                     \
    CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "|" OTHERS "[\\r\\n]*|" LINE_ENDS \
                "|" BLANKS
/* The family of gpt-4o: words also end before a capital; tail: contractions, if they belong to it.
 */
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
#define CASED(upper, lower, tail)                                                               \
    "[^\\r\\n\\p{L}\\p{N}]?" upper "*" lower "+" tail "|[^\\r\\n\\p{L}\\p{N}]?" upper "+" lower \
    "*" tail "|"
#define GPT4O(digits, tail)                   \
    CASED("[" UPPER "]", "[" LOWER "]", tail) \
    digits "|" OTHERS "[\\r\\n/]*|" LINE_ENDS "|" BLANKS
/* The same letters without those of Han: all other categories taken away. */
#define UPPER_NOT_HAN "[^\\p{sc:Han}\\p{Ll}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}]"
#define LOWER_NOT_HAN "[^\\p{sc:Han}\\p{Lu}\\p{Lt}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}]"

#define PUNCTUATED                                           \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|" \
    "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" LINE_ENDS "|" BLANKS

#define BLOOM \
    " ?[^(" BLANK "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{0964}\\x{06D4}\\x{060C})]+"
/* As written by its authors: Han, but also all from U+0800 on below it. */
#define DEEPSEEK_HAN "[\\x{4E00}-\\x{9FA5}\\x{0800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"
/* Cased letters of an older Unicode, as listed by its authors. */
#define DEEPSEEK_LETTERS                                                                        \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{" \
    "293}"                                                                                      \
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}"       \
    "\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{" \
    "52F}"                                                                                      \
    "\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{"  \
    "1CBA}"                                                                                     \
    "\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}"              \
    "\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}"              \
    "\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}"      \
    "\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}"     \
    "\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}"     \
    "\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}"       \
    "\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}"     \
    "\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}"      \
    "\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"               \
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}"              \
    "\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"            \
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}"      \
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"

/* Scripts that are written without blanks, as listed by its authors. */
#define AFMOE_SCRIPTS                                                               \
    "[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{8C48}-\\x{FAFF}\\x{3040}-\\x{30FF}" \
    "\\x{FF65}-\\x{FF9F}\\x{2F00}-\\x{2FDF}\\x{0E40}-\\x{0EFF}\\x{1780}-\\x{17FF}"  \
    "\\x{1000}-\\x{109F}\\x{AA60}-\\x{AA7F}\\x{A9E0}-\\x{A9FF}\\x{AC00}-\\x{D7AF}"  \
    "\\x{1100}-\\x{11FF}]+"

/* Groups of three digits, counted from the end of the run. Only at the start of a run is it looked
 * through; \G is where the match before ended, so what follows there goes on in threes. */
#define THREES(digit, end) \
    "(?<!" digit ")" digit "{1,3}(?=(?:" digit "{3})*+" end ")|\\G(?<=" digit ")" digit "{3}"

enum rule_id {
    RULE_NONE, /* known, but not made of bytes */
    RULE_DEFAULT,
    RULE_GPT2,
    RULE_STARCODER,
    RULE_FALCON,
    RULE_LLAMA3,
    RULE_QWEN2,
    RULE_QWEN35,
    RULE_GPT4O,
    RULE_TEKKEN,
    RULE_DEEPSEEK_LLM,
    RULE_DEEPSEEK_CODER,
    RULE_DEEPSEEK3,
    RULE_BLOOM,
    RULE_VIKING,
    RULE_CHAMELEON,
    RULE_SUPERBPE,
    RULE_BAILINGMOE,
    RULE_SEED_CODER,
    RULE_KIMI_K2,
    RULE_TINY_AYA,
    RULE_AFMOE,
    RULE_YOUTU,
    RULE_EXAONE_MOE,
    RULE_JAIS2,
    RULE_MINICPM5,
    RULE_LAGUNA,
    RULE_COUNT
};

static const char *const rules[RULE_COUNT][STEPS_MAX] = {
    [RULE_DEFAULT] = {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"},
    [RULE_GPT2] = {GPT2},
    [RULE_STARCODER] = {"\\p{N}", GPT2},
    [RULE_FALCON] = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"},
    [RULE_LLAMA3] = {LLAMA3("\\p{N}{1,3}")},
    [RULE_QWEN2] = {LLAMA3("\\p{N}")},
    [RULE_QWEN35] = {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" BLANK
                                 "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" LINE_ENDS "|" BLANKS},
    [RULE_GPT4O] = {GPT4O("\\p{N}{1,3}", CONTRACTION "?")},
    [RULE_TEKKEN] = {GPT4O("\\p{N}", "")},
    /* A run of blanks at the end, looked for from its start only. */
    [RULE_DEEPSEEK_LLM] = {"[\\r\\n]", S "?[" DEEPSEEK_LETTERS "]+",
                           S "?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}"
                             "\\x{3000}-\\x{3002}]+",
                           "(?<!" S ")" S "++$", DEEPSEEK_HAN, "\\p{N}"},
    [RULE_DEEPSEEK_CODER] = {"[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", DEEPSEEK_HAN, "\\p{N}"},
    [RULE_DEEPSEEK3] = {"\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+", PUNCTUATED},
    [RULE_BLOOM] = {BLOOM},
    [RULE_VIKING] = {BLOOM, "\\p{N}"},
    [RULE_CHAMELEON] = {"<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}",
                        "[\\p{P}!-/:-@\\[-`{-~]", GPT2},
    /* Cuts at empty matches. The first is looked for at the start of a run, the next in threes. */
    [RULE_SUPERBPE] = {"\\p{N}+", "(?<!\\d)\\d{0,2}\\K(?=(?:\\d{3})++(?!\\d))|\\G\\d{3}\\K(?=\\d)"},
    [RULE_BAILINGMOE] = {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}|" OTHERS
                         "+[\\r\\n]*|" S "*[\\r\\n]|" BLANKS},
    [RULE_SEED_CODER] = {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" OTHERS "|" LINE_ENDS
                                     "|" BLANKS},
    [RULE_KIMI_K2] = {"\\p{sc:Han}+|" CASED(UPPER_NOT_HAN, LOWER_NOT_HAN,
                                            CONTRACTION "?") "\\p{N}{1,3}|" OTHERS
                                                             "[\\r\\n]*|" LINE_ENDS "|" BLANKS},
    [RULE_TINY_AYA] = {THREES("\\d", "\\b"), GPT4O("\\p{N}{1,3}", CONTRACTION "?")},
    [RULE_AFMOE] = {THREES("\\p{N}", "(?!\\p{N})"), AFMOE_SCRIPTS, PUNCTUATED},
    [RULE_YOUTU] = {"[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|"
                    "[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}\\x{FF1A}"
                    "\\x{FF1B}\\x{FF0C}\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|"
                    "[\\x{3105}-\\x{312F}]+|[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{30FF}]+",
                    GPT4O("\\p{N}", CONTRACTION "?")},
    /* Words of several parts, with single spaces between them. */
    [RULE_EXAONE_MOE] = {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}(?>[\\p{L}\\p{M}]+| \\p{L})*+|"
                                     "\\p{N}|" OTHERS "[\\r\\n/]?|" S "*[\\r\\n]|" BLANKS},
    /* Runs of blanks are cut by powers of two; behind a blank there is no line end in the run any
     * more, or the alternative would have taken it. */
    [RULE_JAIS2] = {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" OTHERS
                                "[\\r\\n]*|(?<![\\p{Z}\\t\\x0B\\f\\x85])" LINE_ENDS "|" S
                                "{512}(?!" NOT_S ")|" S "{256}(?!" NOT_S ")|" S "{128}(?!" NOT_S
                                ")|" S "{64}(?!" NOT_S ")|" S "{32}(?!" NOT_S ")|" S "{16}(?!" NOT_S
                                ")|" S "{8}(?!" NOT_S ")|" S "{4}(?!" NOT_S ")|" S "{1,2}(?!" NOT_S
                                ")|" S},
    [RULE_MINICPM5] = {"\\p{N}{1,3}", LLAMA3("\\p{N}+")},
    [RULE_LAGUNA] = {"\\n+", LLAMA3("\\p{N}")},
};

#define LLAMA3_FLAGS (WEFT_PRE_IGNORE_MERGES | WEFT_PRE_ADD_BOS)

static const struct name {
    const char *name;
    enum rule_id rule;
    unsigned flags;
} names[] = {
    {"default", RULE_DEFAULT, 0},
    {"llama-bpe", RULE_LLAMA3, LLAMA3_FLAGS},
    {"llama3", RULE_LLAMA3, LLAMA3_FLAGS},
    {"llama-v3", RULE_LLAMA3, LLAMA3_FLAGS},
    {"falcon3", RULE_LLAMA3, LLAMA3_FLAGS},
    {"falcon-h1", RULE_LLAMA3, LLAMA3_FLAGS},
    {"pixtral", RULE_LLAMA3, LLAMA3_FLAGS},
    {"midm-2.0", RULE_LLAMA3, LLAMA3_FLAGS},
    {"lfm2", RULE_LLAMA3, LLAMA3_FLAGS},
    {"jina-v5-nano", RULE_LLAMA3, LLAMA3_FLAGS},
    {"dbrx", RULE_LLAMA3, 0},
    {"smaug-bpe", RULE_LLAMA3, 0},
    {"glm4", RULE_LLAMA3, 0},
    {"chatglm-bpe", RULE_LLAMA3, 0},
    {"qwen2", RULE_QWEN2, 0},
    {"deepseek-r1-qwen", RULE_QWEN2, 0},
    {"kormo", RULE_QWEN2, 0},
    {"f2llmv2", RULE_QWEN2, 0},
    {"megrez", RULE_QWEN2, 0},
    {"stablelm2", RULE_QWEN2, 0},
    {"hunyuan", RULE_QWEN2, 0},
    {"solar-open", RULE_QWEN2, 0},
    {"grok-2", RULE_QWEN2, 0},
    {"qwen35", RULE_QWEN35, 0},
    {"gpt-2", RULE_GPT2, 0},
    {"phi-2", RULE_GPT2, 0},
    {"mpt", RULE_GPT2, 0},
    {"olmo", RULE_GPT2, 0},
    {"jais", RULE_GPT2, 0},
    {"trillion", RULE_GPT2, 0},
    {"granite-docling", RULE_GPT2, 0},
    {"exaone4", RULE_GPT2, 0},
    {"gigachat", RULE_GPT2, 0},
    {"a.x-4.0", RULE_GPT2, 0},
    {"mellum", RULE_GPT2, 0},
    {"modern-bert", RULE_GPT2, 0},
    {"roberta-bpe", RULE_GPT2, 0},
    {"jina-es", RULE_GPT2, 0},
    {"jina-de", RULE_GPT2, 0},
    {"jina-v1-en", RULE_GPT2, 0},
    {"jina-v2-es", RULE_GPT2, 0},
    {"jina-v2-de", RULE_GPT2, 0},
    {"jina-v2-code", RULE_GPT2, 0},
    {"starcoder", RULE_STARCODER, 0},
    {"refact", RULE_STARCODER, 0},
    {"command-r", RULE_STARCODER, 0},
    {"smollm", RULE_STARCODER, 0},
    {"codeshell", RULE_STARCODER, 0},
    {"exaone", RULE_STARCODER, 0},
    {"minerva-7b", RULE_STARCODER, 0},
    {"mellum2", RULE_STARCODER, 0},
    {"falcon", RULE_FALCON, 0},
    {"gpt-4o", RULE_GPT4O, 0},
    {"llama4", RULE_GPT4O, 0},
    {"kanana2", RULE_GPT4O, 0},
    {"talkie", RULE_GPT4O, 0},
    {"minimax-m2", RULE_GPT4O, 0},
    {"granite-embed-multi-97m", RULE_GPT4O, WEFT_PRE_IGNORE_MERGES},
    {"tekken", RULE_TEKKEN, LLAMA3_FLAGS},
    {"deepseek-llm", RULE_DEEPSEEK_LLM, 0},
    {"deepseek-coder", RULE_DEEPSEEK_CODER, 0},
    {"deepseek-v3", RULE_DEEPSEEK3, 0},
    {"hunyuan-dense", RULE_DEEPSEEK3, 0},
    {"joyai-llm", RULE_DEEPSEEK3, 0},
    {"bloom", RULE_BLOOM, 0},
    {"poro-chat", RULE_BLOOM, 0},
    {"gpt3-finnish", RULE_BLOOM, 0},
    {"viking", RULE_VIKING, 0},
    {"chameleon", RULE_CHAMELEON, WEFT_PRE_ADD_BOS},
    {"superbpe", RULE_SUPERBPE, 0},
    {"bailingmoe", RULE_BAILINGMOE, 0},
    {"bailingmoe2", RULE_BAILINGMOE, 0},
    {"llada-moe", RULE_BAILINGMOE, 0},
    {"seed-coder", RULE_SEED_CODER, 0},
    {"kimi-k2", RULE_KIMI_K2, 0},
    {"tiny_aya", RULE_TINY_AYA, 0},
    {"cohere2moe", RULE_TINY_AYA, 0},
    {"afmoe", RULE_AFMOE, 0},
    {"youtu", RULE_YOUTU, WEFT_PRE_IGNORE_MERGES},
    {"exaone-moe", RULE_EXAONE_MOE, 0},
    {"jais-2", RULE_JAIS2, 0},
    {"minicpm5", RULE_MINICPM5, WEFT_PRE_IGNORE_MERGES},
    {"laguna", RULE_LAGUNA, 0},
    {"gemma4", RULE_NONE, 0},
    {"granite-embed-multi-311m", RULE_NONE, 0},
    {"sarvam-moe", RULE_NONE, 0},
    {"whitespace", RULE_NONE, 0},
};
#define N_NAMES (sizeof names / sizeof names[0])

/* ------------------------------------------------------------------ life */

struct weft_pretokenizer {
    pcre2_code *steps[STEPS_MAX];
    size_t n_steps;
    pcre2_match_context *limits;
    bool known;
    unsigned flags;
};

const char *weft_pretokenizer_name(size_t i)
{
    return i < N_NAMES ? names[i].name : NULL;
}

static int compile(struct weft_pretokenizer *p, const char *regex, weft_err *err)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *step = pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &code, &at, NULL);
    if (step == NULL) {
        char text[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
        return weft_fail(err, WEFT_EINTERNAL,
                         "pre-tokenizer: PCRE2 refuses an expression at %zu: %s", (size_t)at, text);
    }
    p->steps[p->n_steps++] = step;
    /* Where the system allows no code to be made, the interpreter matches, some five times slower.
     */
    (void)pcre2_jit_compile(step, PCRE2_JIT_COMPLETE);
    return 0;
}

int weft_pretokenizer_open(const char *name, size_t n, struct weft_pretokenizer **ret,
                           weft_err *err)
{
    const struct name *found = NULL;
    for (size_t i = 0; i < N_NAMES; i++) {
        if (strlen(names[i].name) == n && memcmp(names[i].name, name, n) == 0)
            found = &names[i];
    }
    if (found != NULL && found->rule == RULE_NONE)
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "tokenizer.ggml.pre: found '%s', whose tokens are not made of bytes; only "
                         "byte-level pre-tokenizers are supported",
                         found->name);
    struct weft_pretokenizer *p = calloc(1, sizeof *p);
    if (p == NULL)
        return weft_fail(err, WEFT_ENOMEM, "pre-tokenizer: no memory");
    p->known = found != NULL;
    p->flags = found != NULL ? found->flags : 0;
    const char *const *rule = rules[found != NULL ? found->rule : RULE_DEFAULT];
    int r = 0;
    p->limits = pcre2_match_context_create(NULL);
    if (p->limits == NULL)
        r = weft_fail(err, WEFT_ENOMEM, "pre-tokenizer: no memory");
    for (size_t i = 0; r == 0 && i < STEPS_MAX && rule[i] != NULL; i++)
        r = compile(p, rule[i], err);
    if (r < 0) {
        weft_pretokenizer_close(p);
        return r;
    }
    /* The usual limits count steps back within one match, which a run of 16 MiB of blanks exceeds
     * in linear time. The expressions are ours: none needs more. */
    pcre2_set_match_limit(p->limits, UINT32_MAX);
    pcre2_set_depth_limit(p->limits, UINT32_MAX);
    *ret = p;
    return 0;
}

void weft_pretokenizer_close(struct weft_pretokenizer *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->n_steps; i++)
        pcre2_code_free(p->steps[i]);
    pcre2_match_context_free(p->limits);
    free(p);
}

bool weft_pretokenizer_known(const struct weft_pretokenizer *p)
{
    return p->known;
}

unsigned weft_pretokenizer_flags(const struct weft_pretokenizer *p)
{
    return p->flags;
}

/* ------------------------------------------------------------------ splitting */

void weft_words_done(struct weft_words *w)
{
    free(w->ends);
    free(w->spare);
    *w = (struct weft_words){0};
}

/* Appends an end, unless the word would be empty. */
static int push_end(struct weft_words *w, size_t end, weft_err *err)
{
    if (end == (w->n > 0 ? w->ends[w->n - 1] : 0))
        return 0;
    if (w->n == w->room) {
        size_t room = 2 * w->room + 64; /* bounded by the bytes of a bounded text */
        uint32_t *grown = realloc(w->ends, room * sizeof *grown);
        if (grown == NULL)
            return weft_fail(err, WEFT_ENOMEM, "pre-tokenizer: no memory for %zu words", room);
        w->ends = grown;
        w->room = room;
    }
    w->ends[w->n++] = (uint32_t)end;
    return 0;
}

static void swap_spare(struct weft_words *w)
{
    struct weft_words old = *w;
    w->ends = old.spare;
    w->n = old.n_spare;
    w->room = old.spare_room;
    w->spare = old.ends;
    w->n_spare = old.n;
    w->spare_room = old.room;
}

/* Cuts the piece text[0..n), which starts at `base` of the whole, at the borders of its matches. */
static int split_piece(const struct weft_pretokenizer *p, const pcre2_code *step,
                       pcre2_match_data *data, const char *text, size_t n, size_t base,
                       struct weft_words *w, weft_err *err)
{
    const PCRE2_SIZE *found = pcre2_get_ovector_pointer(data);
    size_t at = 0;
    int r = 0;
    while (r == 0 && at < n) {
        int code = pcre2_match(step, (PCRE2_SPTR)text, n, at,
                               PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY_ATSTART, data, p->limits);
        if (code == PCRE2_ERROR_NOMATCH)
            break;
        if (code < 0) {
            char why[128];
            pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
            return weft_fail(err, code == PCRE2_ERROR_NOMEMORY ? WEFT_ENOMEM : WEFT_EINTERNAL,
                             "pre-tokenizer: byte %zu: %s", base + at, why);
        }
        r = push_end(w, base + found[0], err);
        if (r == 0)
            r = push_end(w, base + found[1], err);
        at = found[1];
    }
    return r < 0 ? r : push_end(w, base + n, err);
}

int weft_pretokenizer_split(const struct weft_pretokenizer *p, const char *text, size_t n,
                            struct weft_words *words, weft_err *err)
{
    assert(n <= UINT32_MAX);
    words->n = 0;
    if (n == 0)
        return 0;
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    if (data == NULL)
        return weft_fail(err, WEFT_ENOMEM, "pre-tokenizer: no memory");
    int r = push_end(words, n, err);
    for (size_t k = 0; k < p->n_steps && r == 0; k++) {
        swap_spare(words);
        words->n = 0;
        for (size_t i = 0, base = 0; i < words->n_spare && r == 0; base = words->spare[i++])
            r = split_piece(p, p->steps[k], data, text + base, words->spare[i] - base, base, words,
                            err);
    }
    pcre2_match_data_free(data);
    return r;
}
