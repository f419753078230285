/*
 * Errors: formatting into a fixed buffer and the table of codes.
 *
 * Invariant: text always ends with 0 and is never cut within a UTF-8 character. Any thread; an err
 * belongs to one caller.
 */
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* More than err->text, so that the first byte that falls off can be looked at; twice as much, so
 * that a prefix and an old text both fit. */
#define SCRATCH_SIZE (2 * sizeof(((weft_err *)0)->text))

struct error_info {
    const char *name, *text;
    int exit_code;
};

static const struct error_info error_table[] = {[0] = {"OK", "no error", WEFT_EXIT_OK},
#define WEFT_ERROR_INFO(name, number, exit_code, text) \
    [number] = {#name, text, WEFT_EXIT_##exit_code},
                                                WEFT_ERRORS(WEFT_ERROR_INFO)
#undef WEFT_ERROR_INFO
};

/* Copies scratch into err, cut before a whole character. */
static void store(weft_err *err, const char *scratch)
{
    size_t n = strlen(scratch);
    if (n >= sizeof err->text) {
        n = sizeof err->text - 1;
        while (n > 0 && ((unsigned char)scratch[n] & 0xC0) == 0x80)
            n--;
    }
    memcpy(err->text, scratch, n);
    err->text[n] = '\0';
}

/* In brackets: for the analyzer the name is also a macro. */
int(weft_fail)(weft_err *err, int code, const char *fmt, ...)
{
    if (err != NULL) {
        /* Not straight into err->text: the old text may be among the arguments. */
        char scratch[SCRATCH_SIZE];
        va_list args;
        va_start(args, fmt);
        vsnprintf(scratch, sizeof scratch, fmt, args);
        va_end(args);
        store(err, scratch);
        err->code = code;
    }
    return -code;
}

int weft_fail_errno(weft_err *err, int errnum, const char *fmt, ...)
{
    int code = errnum == ENOMEM ? WEFT_ENOMEM : WEFT_EIO;
    if (err != NULL) {
        char scratch[SCRATCH_SIZE], reason[128];
        va_list args;
        va_start(args, fmt);
        vsnprintf(scratch, sizeof scratch, fmt, args);
        va_end(args);
        size_t n = strlen(scratch);
        snprintf(scratch + n, sizeof scratch - n, ": %s",
                 strerror_r(errnum, reason, sizeof reason));
        store(err, scratch);
        err->code = code;
    }
    return -code;
}

void weft_err_prefix(weft_err *err, const char *fmt, ...)
{
    if (err == NULL || err->code == 0)
        return;
    char scratch[SCRATCH_SIZE];
    va_list args;
    va_start(args, fmt);
    vsnprintf(scratch, sizeof scratch, fmt, args);
    va_end(args);
    size_t n = strnlen(scratch, sizeof err->text);
    snprintf(scratch + n, sizeof scratch - n, ": %s", err->text);
    store(err, scratch);
}

static const struct error_info *find_error(int code)
{
    static const struct error_info unknown = {"UNKNOWN", "unknown error", WEFT_EXIT_INTERNAL};
    const int count = sizeof error_table / sizeof error_table[0];
    if (code <= -count || code >= count)
        return &unknown;
    const struct error_info *info = &error_table[code < 0 ? -code : code];
    return info->name != NULL ? info : &unknown;
}

const char *weft_error_name(int code)
{
    return find_error(code)->name;
}

const char *weft_error_text(int code)
{
    return find_error(code)->text;
}

int weft_error_exit(int code)
{
    return find_error(code)->exit_code;
}
