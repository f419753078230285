/*
 * Stop strings: where an answer ends, found in its text, over the borders of tokens. Pure; strings
 * are compared byte by byte.
 */
#ifndef WEFT_COORDINATOR_STOP_H
#define WEFT_COORDINATOR_STOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define WEFT_STOPS_MAX 16       /* comparable services take 4 */
#define WEFT_STOP_BYTES_MAX 256 /* so much text may be held back */

struct weft_stops {
    const char *const *texts; /* [n], borrowed */
    uint32_t n;
};

/* -WEFT_EUSAGE for more than WEFT_STOPS_MAX, an empty or too long one, one that is no UTF-8. */
int weft_stops_check(const struct weft_stops *s, weft_err *err) WEFT_MUST_USE;
/* True when one of them stands in text[0..n): the place and number of the one that is whole first,
 * that is, ends first (of several that end there the longest, of equal ones the one listed first).
 * So it does not matter in which pieces a text comes. */
bool weft_stops_find(const struct weft_stops *s, const char *text, size_t n, size_t *ret_at,
                     uint32_t *ret_which);
/* Bytes at the end of text[0..n) that may be the beginning of one: the longest such end. */
size_t weft_stops_held(const struct weft_stops *s, const char *text, size_t n);

#endif
