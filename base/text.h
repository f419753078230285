/*
 * Text for people: sizes, durations, near misses, UTF-8, growing strings. Pure functions; numbers
 * are read and written in the C locale (the programs never set LC_NUMERIC).
 */
#ifndef WEFT_BASE_TEXT_H
#define WEFT_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Parses "6GiB", "512 MiB", "1.5GB", "4096", "16k" (KiB/MiB/GiB/TiB, k/M/G/T = powers of 1000 with
 * optional B; K is k). Fractions of a byte are dropped. Refuses signs, empty text, unknown units,
 * fractions without a unit, overflow: -WEFT_ECONFIG. */
int weft_parse_size(const char *text, uint64_t *ret_bytes, weft_err *err) WEFT_MUST_USE;
/* Decimal integers and finite floats of the whole text, within [min, max] (UINT64_MAX and
 * infinities are no bounds): -WEFT_ECONFIG. */
int weft_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret,
                   weft_err *err) WEFT_MUST_USE;
int weft_parse_double(const char *text, double min, double max, double *ret,
                      weft_err *err) WEFT_MUST_USE;
/* "1.05 GiB", "256 MiB", "48 B": three significant digits, never a rounded-up unit jump. Writes at
 * most n bytes with the 0; returns buf. */
char *weft_format_size(char *buf, size_t n, uint64_t bytes);
/* "850 ns", "14.2 ms", "3.4 s", "12 min". */
char *weft_format_duration(char *buf, size_t n, uint64_t ns);

/* The candidate nearest to word by Damerau-Levenshtein distance (restricted: no substring is edited
 * twice; ASCII case does not count), NULL when none is near enough (distance above a third of the
 * length, at least 1, or nothing of the word left). candidates ends with NULL. */
const char *weft_near_miss(const char *word, const char *const *candidates);

/* Length of the longest prefix of s[0..n) that is whole, valid UTF-8. */
size_t weft_utf8_prefix(const char *s, size_t n);
/* True if s[0..n) is valid UTF-8 (no surrogates, no overlong forms, at most U+10FFFF);
 * *ret_offset (may be NULL) is where it first is not. */
bool weft_utf8_valid(const char *s, size_t n, size_t *ret_offset);
/* Decodes one code point; returns its length, 0 when s does not start with a valid one. */
size_t weft_utf8_decode(const char *s, size_t n, uint32_t *ret_code);
/* Columns of a text on a terminal: its characters, each taken to be one wide ("±", "N,N,…"). */
size_t weft_text_columns(const char *text);
/* False for what could forge a line or mislead on a terminal: control characters, line and
 * paragraph separators, direction marks and the byte order mark. */
bool weft_code_printable(uint32_t code);
/* Puts s[0..size) into 'quotes' for a message: what is not printable or not UTF-8 becomes '?', long
 * text ends with "…'". Writes at most n bytes (n >= 8) with the 0; returns buf. */
char *weft_quote(char *buf, size_t n, const char *s, size_t size);
#define WEFT_QUOTE_SIZE 80 /* a good size for such a buffer */

/* A growing byte string, always 0-terminated after the first append. {0} is empty. */
struct weft_str {
    char *data;
    size_t size, capacity;
    bool failed; /* an allocation failed: contents are cut; check once at the end */
};
void weft_str_done(struct weft_str *s);
void weft_str_clear(struct weft_str *s); /* keeps the memory */
void weft_str_add(struct weft_str *s, const char *data, size_t n);
void weft_str_adds(struct weft_str *s, const char *text);
void weft_str_addf(struct weft_str *s, const char *fmt, ...) WEFT_PRINTF(2, 3);
/* Appends text as a JSON string with quotes; bytes that are no UTF-8 become U+FFFD, what is not
 * printable is escaped. */
void weft_str_add_json(struct weft_str *s, const char *text, size_t n);
/* The same for one character at the start of text[0..n), n > 0: writes *ret_size bytes to out, no
 * 0; returns how many bytes of text it stands for. */
#define WEFT_JSON_STEP_MAX 6 /* the length of \u001b */
size_t weft_json_step(const char *text, size_t n, char out[WEFT_JSON_STEP_MAX], size_t *ret_size);

#endif
