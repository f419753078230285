/*
 * Values of options that are lists of their own: logit biases and token ids. See options.h. Pure.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/model.h"
#include "coordinator/options.h"

#define BIAS_MAX 1e6 /* as daemon/sampler.h */

/* ------------------------------------------------------------------ logit biases */

/* One "ID=BIAS" of size bytes. */
static int parse_bias(const char *text, size_t size, struct weft_turn_bias *ret, weft_err *err)
{
    const char *equal = memchr(text, '=', size);
    char id_text[16] = "", bias_text[32] = "", quoted[WEFT_QUOTE_SIZE];
    uint64_t id = 0;
    double bias = -INFINITY;
    if (equal != NULL) { /* what is longer than its buffer is no number */
        size_t n = (size_t)(equal - text), rest = size - n - 1;
        snprintf(id_text, sizeof id_text, "%.*s", n < sizeof id_text ? (int)n : 0, text);
        snprintf(bias_text, sizeof bias_text, "%.*s", rest < sizeof bias_text ? (int)rest : 0,
                 equal + 1);
    }
    if (weft_parse_u64(id_text, 0, INT32_MAX, &id, NULL) < 0 ||
        (strcmp(bias_text, "-inf") != 0 &&
         weft_parse_double(bias_text, -BIAS_MAX, BIAS_MAX, &bias, NULL) < 0))
        return weft_fail(err, WEFT_EUSAGE,
                         "--logit-bias: found %s, expected ID=BIAS with a token's id and a number "
                         "of -1000000 to 1000000, or -inf",
                         weft_quote(quoted, sizeof quoted, text, size));
    *ret = (struct weft_turn_bias){(int32_t)id, (float)bias};
    return 0;
}

int weft_options_logit_bias(const struct weft_text_list *texts, struct weft_turn_bias **ret,
                            uint32_t *ret_n, weft_err *err)
{
    struct weft_turn_bias *list = NULL;
    uint32_t n = 0;
    if (texts->n > 0 && (list = calloc(WEFT_TURN_BIAS_MAX, sizeof *list)) == NULL)
        return weft_fail(err, WEFT_ENOMEM, "--logit-bias");
    for (uint32_t i = 0; i < texts->n; i++) {
        const char *text = texts->values[i];
        for (;;) {
            const size_t size = strcspn(text, ",");
            int r = n < WEFT_TURN_BIAS_MAX
                        ? parse_bias(text, size, &list[n], err)
                        : weft_fail(err, WEFT_EUSAGE, "--logit-bias: found more than %u tokens",
                                    WEFT_TURN_BIAS_MAX);
            if (r < 0) {
                free(list);
                return r;
            }
            n++;
            if (text[size] == '\0')
                break;
            text += size + 1;
        }
    }
    *ret = list;
    *ret_n = n;
    return 0;
}

/* ------------------------------------------------------------------ token ids */

int weft_options_ids(const char *text, int32_t **ret, uint32_t *ret_n, weft_err *err)
{
    size_t n = 1;
    for (const char *c = text; *c != '\0'; c++)
        n += *c == ',';
    if (n > WEFT_CONTEXT_MAX)
        return weft_fail(err, WEFT_EUSAGE, "--ids: found %zu ids, expected at most %u", n,
                         WEFT_CONTEXT_MAX);
    int32_t *ids = malloc(n * sizeof *ids);
    if (ids == NULL)
        return weft_fail(err, WEFT_ENOMEM, "--ids");
    for (size_t i = 0; i < n; i++) {
        const size_t size = strcspn(text, ",");
        char number[16], quoted[WEFT_QUOTE_SIZE];
        uint64_t id = 0;
        /* Whatever is longer than the buffer is no id. */
        snprintf(number, sizeof number, "%.*s", size < sizeof number ? (int)size : 0, text);
        if (weft_parse_u64(number, 0, INT32_MAX, &id, NULL) < 0) {
            free(ids);
            return weft_fail(err, WEFT_EUSAGE, "--ids: number %zu is %s, expected 0..%d", i + 1,
                             weft_quote(quoted, sizeof quoted, text, size), INT32_MAX);
        }
        ids[i] = (int32_t)id;
        text += size + 1; /* the last one ends at the 0, and nothing is read behind it */
    }
    *ret = ids;
    *ret_n = (uint32_t)n;
    return 0;
}
