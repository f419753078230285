/*
 * Stop strings, see stop.h. Few and short ones, looked for in what came since the last token: the
 * plain way is fast enough.
 */
#include "coordinator/stop.h"

#include <string.h>

#include "base/text.h"

int weft_stops_check(const struct weft_stops *s, weft_err *err)
{
    char quoted[WEFT_QUOTE_SIZE];
    if (s->n > WEFT_STOPS_MAX)
        return weft_fail(err, WEFT_EUSAGE, "%u stop strings, expected at most %u", s->n,
                         WEFT_STOPS_MAX);
    for (uint32_t i = 0; i < s->n; i++) {
        const size_t n = strlen(s->texts[i]);
        weft_quote(quoted, sizeof quoted, s->texts[i], n);
        if (n == 0 || n > WEFT_STOP_BYTES_MAX)
            return weft_fail(err, WEFT_EUSAGE, "stop string %s of %zu bytes, expected 1 to %u",
                             quoted, n, WEFT_STOP_BYTES_MAX);
        if (!weft_utf8_valid(s->texts[i], n, NULL))
            return weft_fail(err, WEFT_EUSAGE, "stop string %s is no UTF-8 text", quoted);
    }
    return 0;
}

bool weft_stops_find(const struct weft_stops *s, const char *text, size_t n, size_t *ret_at,
                     uint32_t *ret_which)
{
    size_t end = SIZE_MAX;
    for (uint32_t i = 0; i < s->n; i++) {
        const size_t size = strlen(s->texts[i]);
        const char *found = n > 0 ? memmem(text, n, s->texts[i], size) : NULL;
        const size_t at = found != NULL ? (size_t)(found - text) : 0;
        if (found == NULL || at + size > end || (at + size == end && at >= *ret_at))
            continue;
        end = at + size;
        *ret_at = at;
        *ret_which = i;
    }
    return end != SIZE_MAX;
}

size_t weft_stops_held(const struct weft_stops *s, const char *text, size_t n)
{
    size_t held = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        size_t size = strlen(s->texts[i]) - 1;
        for (size = size < n ? size : n; size > held; size--)
            if (memcmp(text + n - size, s->texts[i], size) == 0)
                held = size;
    }
    return held;
}
