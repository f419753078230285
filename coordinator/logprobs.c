/*
 * Log-probabilities, see logprobs.h. Pure.
 */
#include "coordinator/logprobs.h"

#include <math.h>

#define TOKEN_WIDTH 20 /* of the column of chosen tokens; longer ones push theirs to the right */

/* A token as its text where that says something, else as the vocabulary spells it. */
static void add_token(const struct weft_answer_logprobs *l, int32_t id, struct weft_str *out)
{
    size_t n = 0;
    const char *text = weft_tokenizer_piece(l->tokenizer, id, &n);
    if (text == NULL || n == 0 || !weft_utf8_valid(text, n, NULL))
        text = weft_tokenizer_text(l->tokenizer, id, &n);
    weft_str_add_json(out, text != NULL ? text : "", text != NULL ? n : 0);
}

static void add_json(const struct weft_answer_logprobs *l, const struct weft_token_logprob *p,
                     struct weft_str *out)
{
    weft_str_addf(out, "{\"id\": %d, \"token\": ", p->id);
    add_token(l, p->id, out);
    if (isfinite(p->logprob))
        weft_str_addf(out, ", \"logprob\": %.6g", (double)p->logprob);
    else
        weft_str_adds(out, ", \"logprob\": null");
}

void weft_logprobs_json(const struct weft_answer_logprobs *l, struct weft_str *out)
{
    weft_str_adds(out, "[");
    for (uint32_t i = 0; i < l->n_tokens; i++) {
        const struct weft_token_logprob *p = l->list + (size_t)i * (1 + l->n_best);
        if (i > 0)
            weft_str_adds(out, ", ");
        add_json(l, p, out);
        weft_str_adds(out, ", \"top\": [");
        for (uint32_t k = 1; k <= l->n_best; k++) {
            if (k > 1)
                weft_str_adds(out, ", ");
            add_json(l, p + k, out);
            weft_str_adds(out, "}");
        }
        weft_str_adds(out, "]}");
    }
    weft_str_adds(out, "]");
}

void weft_logprobs_text(const struct weft_answer_logprobs *l, struct weft_str *out)
{
    weft_str_addf(out, "%9s  %-*s%s\n", "logprob", l->n_best > 0 ? TOKEN_WIDTH : 0, "token",
                  l->n_best > 0 ? "likeliest" : "");
    for (uint32_t i = 0; i < l->n_tokens; i++) {
        const struct weft_token_logprob *p = l->list + (size_t)i * (1 + l->n_best);
        struct weft_str token = {0};
        add_token(l, p->id, &token);
        const char *text = token.data != NULL ? token.data : "";
        weft_str_addf(out, "%9.4f  %s", (double)p->logprob, text);
        const size_t width = weft_text_columns(text);
        for (size_t k = width; l->n_best > 0 && k < TOKEN_WIDTH; k++)
            weft_str_adds(out, " ");
        weft_str_done(&token);
        for (uint32_t k = 1; k <= l->n_best; k++) {
            weft_str_adds(out, k > 1 || width >= TOKEN_WIDTH ? "  " : "");
            add_token(l, p[k].id, out);
            weft_str_addf(out, " %.4f", (double)p[k].logprob);
        }
        weft_str_adds(out, "\n");
    }
}
