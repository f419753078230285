/*
 * Answer rules, see answer_rules.h.
 */
#include "coordinator/answer_rules.h"

#include <stdlib.h>
#include <string.h>

#include "base/grammar.h"
#include "coordinator/input.h"
#include "coordinator/json_schema.h"

/* Reads the schema, from a file or as it is, and makes a grammar of it. What is not supported there
 * is a mistake of this command line, not of the model. */
static int read_schema(const char *value, struct weft_str *out, weft_err *err)
{
    struct weft_str text = {0};
    const bool inlined = value[strspn(value, " \t\r\n")] == '{';
    int r = 0;
    if (inlined)
        weft_str_adds(&text, value);
    else
        r = weft_input_file(value, &text, err);
    if (r < 0) {
        weft_err_prefix(err, "--json-schema");
    } else if (text.failed) {
        r = weft_fail(err, WEFT_ENOMEM, "--json-schema");
    } else {
        weft_err why = {0};
        r = weft_json_schema_to_gbnf(text.data != NULL ? text.data : "", text.size, out, &why);
        if (r < 0)
            r = weft_fail(err, r == -WEFT_ENOMEM ? WEFT_ENOMEM : WEFT_EUSAGE, "%s: %s",
                          inlined ? "--json-schema" : value, why.text);
    }
    weft_str_done(&text);
    return r;
}

/* The daemon would say the same of it, but after the model has been loaded. */
static int read_grammar(const char *path, struct weft_str *out, weft_err *err)
{
    struct weft_grammar *g = NULL;
    weft_err why = {0};
    int r = weft_input_file(path, out, err);
    if (r == 0 && out->failed)
        r = weft_fail(err, WEFT_ENOMEM, "out of memory");
    if (r < 0) {
        weft_err_prefix(err, "--grammar");
        return r;
    }
    r = weft_grammar_open(out->data != NULL ? out->data : "", out->size, &g, &why);
    weft_grammar_close(g);
    if (r < 0)
        r = weft_fail(err, r == -WEFT_ENOMEM ? WEFT_ENOMEM : WEFT_EUSAGE, "%s: %s", path, why.text);
    return r;
}

/* What each token stands for; those that only stand for themselves (control tokens, the unknown
 * one) have nothing. */
static int take_texts(const struct weft_tokenizer *t, struct weft_answer_rules *ret, weft_err *err)
{
    static const char unknown[] = "\xEF\xBF\xBD"; /* how the tokenizer shows it */
    ret->n_texts = weft_tokenizer_vocab(t);
    ret->texts = calloc(ret->n_texts, sizeof *ret->texts);
    if (ret->texts == NULL)
        return weft_fail(err, WEFT_ENOMEM, "texts of %u tokens", ret->n_texts);
    for (uint32_t i = 0; i < ret->n_texts; i++) {
        size_t n;
        const char *piece = weft_tokenizer_piece(t, (int32_t)i, &n);
        const bool none = weft_tokenizer_is_special(t, (int32_t)i) && n == sizeof unknown - 1 &&
                          memcmp(piece, unknown, n) == 0;
        ret->texts[i] = (struct weft_token_text){.bytes = piece, .size = none ? 0 : (uint32_t)n};
    }
    return 0;
}

int weft_answer_rules_open(const struct weft_options *o, const struct weft_tokenizer *t,
                           struct weft_answer_rules *ret, weft_err *err)
{
    struct weft_answer_rules rules = {.stops = {.texts = o->stops.values, .n = o->stops.n}};
    const uint32_t vocab = weft_tokenizer_vocab(t);
    int r = weft_stops_check(&rules.stops, err);
    if (r == 0)
        r = weft_options_logit_bias(&o->logit_bias, &rules.bias, &rules.n_bias, err);
    for (uint32_t i = 0; r == 0 && i < rules.n_bias; i++)
        if ((uint32_t)rules.bias[i].id >= vocab)
            r = weft_fail(err, WEFT_EUSAGE, "--logit-bias: token %d, the vocabulary has 0..%u",
                          rules.bias[i].id, vocab - 1);
    if (r == 0 && o->grammar != NULL)
        r = read_grammar(o->grammar, &rules.grammar, err);
    else if (r == 0 && o->json_schema != NULL)
        r = read_schema(o->json_schema, &rules.grammar, err);
    if (r == 0 && rules.grammar.failed)
        r = weft_fail(err, WEFT_ENOMEM, "grammar");
    if (r == 0 && rules.grammar.size > 0)
        r = take_texts(t, &rules, err);
    if (r < 0)
        weft_answer_rules_done(&rules);
    else
        *ret = rules;
    return r;
}

void weft_answer_rules_done(struct weft_answer_rules *r)
{
    free(r->bias);
    free(r->texts);
    weft_str_done(&r->grammar);
    *r = (struct weft_answer_rules){0};
}

void weft_answer_rules_apply(const struct weft_answer_rules *r, struct weft_turn *t)
{
    t->sampling.bias = r->bias;
    t->sampling.n_bias = r->n_bias;
    if (r->grammar.size == 0)
        return;
    t->grammar = r->grammar.data;
    t->grammar_size = (uint32_t)r->grammar.size;
    t->texts = r->texts;
    t->n_texts = r->n_texts;
}
