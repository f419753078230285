/*
 * Log: formats one logfmt line into a fixed buffer and writes it with one write(2).
 *
 * Invariant: a line holds exactly one newline, at its end, whatever the values hold; a line that
 * would be too long is cut within its last value and says cut=true. Level and node are set before
 * threads start or from the loop thread, which is the one that logs. Keys and events are literals
 * of ours.
 */
#include "base/log.h"
#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* PIPE_BUF of Linux: a write of this size to a pipe is not interleaved with others. */
#define LINE_BYTES_MAX 4096
#define NODE_BYTES_MAX 64

static const char cut_mark[] = " cut=true";

static const struct {
    const char *name;
    int priority; /* of syslog(3) */
} levels[WEFT_LOG_COUNT] = {
    [WEFT_LOG_DEBUG] = {"debug", 7},
    [WEFT_LOG_INFO] = {"info", 6},
    [WEFT_LOG_WARN] = {"warn", 4},
    [WEFT_LOG_ERROR] = {"error", 3},
};

static enum weft_log_level least_level = WEFT_LOG_INFO;
static char node[NODE_BYTES_MAX];

void weft_log_set_level(enum weft_log_level level)
{
    assert(level < WEFT_LOG_COUNT);
    least_level = level;
}

int weft_log_parse_level(const char *text, enum weft_log_level *ret, weft_err *err)
{
    for (int i = 0; i < WEFT_LOG_COUNT; i++) {
        if (strcmp(text, levels[i].name) == 0) {
            *ret = (enum weft_log_level)i;
            return 0;
        }
    }
    char quoted[WEFT_QUOTE_SIZE];
    return weft_fail(err, WEFT_ECONFIG, "log level: found %s, expected debug, info, warn or error",
                     weft_quote(quoted, sizeof quoted, text, strlen(text)));
}

void weft_log_set_node(const char *name)
{
    snprintf(node, sizeof node, "%s", name != NULL ? name : "");
}

/* A line being built. Nothing is written at or behind `limit`, where room for cut_mark, the newline
 * and the 0 is kept. */
struct line {
    char *buf;
    size_t used, limit, n_fields;
    bool cut;
};

static bool put(struct line *l, const char *data, size_t n)
{
    if (l->cut || n > l->limit - l->used) {
        l->cut = true;
        return false;
    }
    memcpy(l->buf + l->used, data, n);
    l->used += n;
    return true;
}

/* True if value must stand in quotes: it is empty or some character is not itself in JSON, or is
 * one that logfmt gives a meaning. */
static bool needs_quotes(const char *value)
{
    size_t n = strlen(value), size;
    char out[WEFT_JSON_STEP_MAX];
    for (size_t at = 0, step; at < n; at += step) {
        step = weft_json_step(value + at, n - at, out, &size);
        if (size != step || memcmp(out, value + at, step) != 0 || out[0] == ' ' || out[0] == '=')
            return true;
    }
    return n == 0;
}

static void put_value(struct line *l, const char *value)
{
    if (!needs_quotes(value)) {
        size_t n = strlen(value), room = l->limit - l->used;
        if (n > room) { /* as much as there is room for, in whole characters */
            put(l, value, weft_utf8_prefix(value, room));
            l->cut = true;
            return;
        }
        put(l, value, n);
        return;
    }
    if (!put(l, "\"", 1))
        return;
    size_t n = strlen(value), size;
    char out[WEFT_JSON_STEP_MAX];
    for (size_t at = 0; at < n;) {
        at += weft_json_step(value + at, n - at, out, &size);
        if (size + 1 > l->limit - l->used) { /* keeps room for the closing quote */
            l->cut = true;
            break;
        }
        put(l, out, size);
    }
    if (l->used < l->limit)
        l->buf[l->used++] = '"';
    else
        l->cut = true;
}

static void put_field(struct line *l, const char *key, const char *value)
{
    size_t n_key = strlen(key);
    /* The space, the key, '=' and two quotes fit, or the field is left out as a whole. */
    if (l->cut || n_key + 4 > l->limit - l->used) {
        l->cut = true;
        return;
    }
    if (l->n_fields++ > 0)
        put(l, " ", 1);
    put(l, key, n_key);
    put(l, "=", 1);
    put_value(l, value);
}

/* True if stderr is the stream that JOURNAL_STREAM ("device:inode") names, see systemd.exec(5): a
 * program whose stderr was redirected away from the journal inherits the variable too. */
static bool stderr_is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    uintmax_t device, inode;
    struct stat st;
    if (text == NULL || sscanf(text, "%ju:%ju", &device, &inode) != 2 ||
        fstat(STDERR_FILENO, &st) != 0)
        return false;
    return st.st_dev == (dev_t)device && st.st_ino == (ino_t)inode;
}

static void put_start(struct line *l, enum weft_log_level level)
{
    if (stderr_is_journal()) {
        char prefix[4] = {'<', (char)('0' + levels[level].priority), '>', '\0'};
        put(l, prefix, 3);
        return;
    }
    struct timespec now = {0};
    struct tm tm = {0};
    char date[32], stamp[48];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(stamp, sizeof stamp, "%s.%03dZ", date, (int)(now.tv_nsec / 1000000));
    put_field(l, "time", stamp);
}

char *weft_log_format(char *buf, size_t n, enum weft_log_level level, const char *event,
                      const struct weft_field *fields, size_t n_fields)
{
    const size_t tail = sizeof cut_mark + 1; /* with its 0, and the newline */
    assert(level < WEFT_LOG_COUNT);
    assert(n > tail);
    struct line l = {.buf = buf, .limit = n - tail};
    put_start(&l, level);
    put_field(&l, "level", levels[level].name);
    put_field(&l, "event", event);
    if (node[0] != '\0')
        put_field(&l, "node", node);
    for (size_t i = 0; i < n_fields && !l.cut; i++) {
        char number[32] = "";
        const char *value = number;
        switch (fields[i].kind) {
        case WEFT_FIELD_STR:
            value = fields[i].value.str != NULL ? fields[i].value.str : "";
            break;
        case WEFT_FIELD_U64:
            snprintf(number, sizeof number, "%" PRIu64, fields[i].value.u64);
            break;
        case WEFT_FIELD_I64:
            snprintf(number, sizeof number, "%" PRId64, fields[i].value.i64);
            break;
        case WEFT_FIELD_F64:
            snprintf(number, sizeof number, "%.6g", fields[i].value.f64);
            break;
        }
        put_field(&l, fields[i].key, value);
    }
    if (l.cut) {
        memcpy(buf + l.used, cut_mark, sizeof cut_mark - 1);
        l.used += sizeof cut_mark - 1;
    }
    buf[l.used++] = '\n';
    buf[l.used] = '\0';
    return buf;
}

void weft_log_fields(enum weft_log_level level, const char *event, const struct weft_field *fields,
                     size_t n)
{
    if (level < least_level)
        return;
    char line[LINE_BYTES_MAX + 1];
    weft_log_format(line, sizeof line, level, event, fields, n);
    ssize_t r;
    do {
        r = write(STDERR_FILENO, line, strlen(line));
    } while (r < 0 && errno == EINTR); /* nobody is left to tell of any other failure */
}
