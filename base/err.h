/*
 * Errors of weft. One list of codes serves function results, exit codes and the wire.
 *
 * A function that can fail returns 0 or -WEFT_E…; where a person must read why, its last parameter
 * is a `weft_err *err` (may be NULL), untouched on success and prefixed as it climbs:
 * "deploy epoch 4: load tiny.gguf: tensor blk.3.attn_q.weight: found …, expected …".
 */
#ifndef WEFT_BASE_ERR_H
#define WEFT_BASE_ERR_H

#include <stdarg.h>
#include <stddef.h>

#define WEFT_MUST_USE __attribute__((warn_unused_result))
#define WEFT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Exit codes of both programs, documented in weft(1). */
enum weft_exit {
    WEFT_EXIT_OK = 0,
    WEFT_EXIT_INTERNAL = 1, /* a fault of weft itself or of the system: disk full, no memory */
    WEFT_EXIT_USAGE = 2,    /* command line */
    WEFT_EXIT_CONFIG = 3,   /* cluster.yaml, weftd.yaml */
    WEFT_EXIT_MODEL = 4,    /* the GGUF file or what it asks for */
    WEFT_EXIT_NOFIT = 5,    /* memory or context too small */
    WEFT_EXIT_DEVICE = 6,   /* device unreachable or lost */
    WEFT_EXIT_REFUSED = 7,  /* a peer said no */
    WEFT_EXIT_INTERRUPTED = 130
};

/* X(name, number on the wire (never reused), exit code, short text). */
#define WEFT_ERRORS(X)                                       \
    X(INTERNAL, 1, INTERNAL, "internal error")               \
    X(NOMEM, 2, INTERNAL, "out of memory")                   \
    X(IO, 3, INTERNAL, "system call failed")                 \
    X(USAGE, 4, USAGE, "wrong usage")                        \
    X(CONFIG, 5, CONFIG, "wrong configuration")              \
    X(MODEL, 6, MODEL, "malformed model")                    \
    X(UNSUPPORTED, 7, MODEL, "not supported")                \
    X(NOFIT, 8, NOFIT, "does not fit")                       \
    X(CONTEXT, 9, NOFIT, "longer than the context")          \
    X(UNREACHABLE, 10, DEVICE, "unreachable")                \
    X(LOST, 11, DEVICE, "connection lost")                   \
    X(LATE, 12, DEVICE, "late")                              \
    X(REFUSED, 13, REFUSED, "refused")                       \
    X(BUSY, 14, REFUSED, "held by another coordinator")      \
    X(VERSION, 15, REFUSED, "incompatible protocol version") \
    X(PROTOCOL, 16, REFUSED, "malformed frame")              \
    X(TOOLONG, 17, REFUSED, "frame too long")                \
    X(STALE, 18, REFUSED, "stale epoch")                     \
    X(POSITION, 19, REFUSED, "wrong position")               \
    X(SHAPE, 20, REFUSED, "wrong shape")                     \
    X(STATE, 21, REFUSED, "not in this state")               \
    X(SESSION, 22, REFUSED, "unknown session")               \
    X(LIMIT, 23, REFUSED, "limit reached")                   \
    X(OVERFLOW, 24, MODEL, "value out of range")             \
    X(FULL, 25, INTERNAL, "queue full")                      \
    X(CANCELLED, 26, INTERRUPTED, "cancelled")               \
    X(INTERRUPTED, 27, INTERRUPTED, "interrupted")           \
    X(DAMAGED, 28, REFUSED, "shard damaged on the way")

enum weft_error {
#define WEFT_ERROR_ENUM(name, number, exit_code, text) WEFT_E##name = number,
    WEFT_ERRORS(WEFT_ERROR_ENUM)
#undef WEFT_ERROR_ENUM
};

typedef struct weft_err {
    int code; /* WEFT_E…, positive; 0 while nothing failed */
    char text[1016];
} weft_err;

/* Sets err (if not NULL) and returns -code, so that `return weft_fail(err, WEFT_EMODEL, "…")`. */
int weft_fail(weft_err *err, int code, const char *fmt, ...) WEFT_PRINTF(3, 4);

#ifdef __clang_analyzer__
/* The analyzer never steps into a function with `...`: this says what weft_fail leaves behind. */
static inline void weft_fail_code(weft_err *err, int code)
{
    if (err != NULL)
        err->code = code;
}
#define weft_fail(err, code, ...) \
    ((void)(weft_fail)((err), (code), __VA_ARGS__), weft_fail_code((err), (code)), -(code))
#endif

/* Like weft_fail with WEFT_EIO (WEFT_ENOMEM for ENOMEM) and ": strerror(errnum)" behind the text.
 */
int weft_fail_errno(weft_err *err, int errnum, const char *fmt, ...) WEFT_PRINTF(3, 4);

/* Puts "prefix: " before the text of a failed err; cuts the far end when it does not fit. */
void weft_err_prefix(weft_err *err, const char *fmt, ...) WEFT_PRINTF(2, 3);

/* Name ("MODEL"), short text and exit code of a code; 0 gives "OK", "no error" and WEFT_EXIT_OK,
 * unknown ones "UNKNOWN", "unknown error" and WEFT_EXIT_INTERNAL. Accepts -code too. */
const char *weft_error_name(int code);
const char *weft_error_text(int code);
int weft_error_exit(int code);

#endif
