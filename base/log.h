/*
 * Log: one line per event, logfmt on stderr, written with one write(2). Only mains and the daemon's
 * loop log; libraries return errors.
 *
 *     weft_log(WEFT_LOG_INFO, "ready", WEFT_STR("device", name), WEFT_U64("epoch", n));
 *     level=info event=ready device=pi5-a epoch=4
 *
 * Keys and events are literals; values with spaces, quotes, '=' or what is not printable are quoted
 * and escaped, so that hostile text cannot forge a line. Lines longer than 4 KiB are cut and end
 * with cut=true. With JOURNAL_STREAM naming stderr, lines get the "<N>" priority prefix of
 * sd-daemon and no time; else time=… (UTC, ms) comes first.
 */
#ifndef WEFT_BASE_LOG_H
#define WEFT_BASE_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum weft_log_level {
    WEFT_LOG_DEBUG,
    WEFT_LOG_INFO,
    WEFT_LOG_WARN,
    WEFT_LOG_ERROR,
    WEFT_LOG_COUNT
};

struct weft_field {
    const char *key;
    enum { WEFT_FIELD_STR, WEFT_FIELD_U64, WEFT_FIELD_I64, WEFT_FIELD_F64 } kind;
    union {
        const char *str;
        uint64_t u64;
        int64_t i64;
        double f64;
    } value;
};

#define WEFT_STR(k, v) ((struct weft_field){.key = (k), .kind = WEFT_FIELD_STR, .value.str = (v)})
#define WEFT_U64(k, v) ((struct weft_field){.key = (k), .kind = WEFT_FIELD_U64, .value.u64 = (v)})
#define WEFT_I64(k, v) ((struct weft_field){.key = (k), .kind = WEFT_FIELD_I64, .value.i64 = (v)})
#define WEFT_F64(k, v) ((struct weft_field){.key = (k), .kind = WEFT_FIELD_F64, .value.f64 = (v)})
#define WEFT_ERR(e) WEFT_STR("error", weft_error_name((e)->code)), WEFT_STR("text", (e)->text)

/* Level below which lines are dropped (default info). Parse gives -WEFT_ECONFIG for unknown names.
 */
void weft_log_set_level(enum weft_log_level level);
int weft_log_parse_level(const char *text, enum weft_log_level *ret, weft_err *err) WEFT_MUST_USE;
void weft_log_set_node(const char *name); /* adds node=name to every line; copied */

void weft_log_fields(enum weft_log_level level, const char *event, const struct weft_field *fields,
                     size_t n);
#define weft_log(level, event, ...)                                             \
    weft_log_fields((level), (event), (const struct weft_field[]){__VA_ARGS__}, \
                    sizeof((const struct weft_field[]){__VA_ARGS__}) / sizeof(struct weft_field))

/* Formats without writing: what weft_log_fields would write, with newline and 0, cut to n bytes
 * (n > 16), for tests. Returns buf. */
char *weft_log_format(char *buf, size_t n, enum weft_log_level level, const char *event,
                      const struct weft_field *fields, size_t n_fields);

#endif
