/*
 * Output: standard output written by a thread of its own, so that a slow or stopped reader never
 * stops the loop and with it the heartbeats.
 */
#ifndef WEFT_COORDINATOR_OUTPUT_H
#define WEFT_COORDINATOR_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* Text waiting for its reader; an answer of a million tokens fits. Over it the output counts as
 * failed. */
#define WEFT_OUTPUT_MAX (64u << 20)

struct weft_output;

/* Starts the thread for fd (borrowed). `failed` is called once when writing fails, on that thread
 * or in weft_output_write: it must only wake the loop. */
int weft_output_open(int fd, void (*failed)(void *arg), void *arg, struct weft_output **ret,
                     weft_err *err) WEFT_MUST_USE;
/* Queues bytes; never blocks; ignored after a failure. */
void weft_output_write(struct weft_output *o, const char *data, size_t n);
/* The same for commands without a loop: waits while earlier bytes are to be written, so that there
 * may be any number. */
void weft_output_write_all(struct weft_output *o, const char *data, size_t n);
void weft_output_puts(struct weft_output *o, const char *text);
/* Waits until what was queued is written, so that a message on standard error comes behind it; a
 * reader that takes nothing is not waited for longer than 0.1 s. */
void weft_output_settle(struct weft_output *o);
/* 0, or -WEFT_EIO with what happened ("cannot write the output: No space left on device");
 * *ret_closed tells a reader that went away (EPIPE) from a fault. */
int weft_output_error(struct weft_output *o, bool *ret_closed, weft_err *err) WEFT_MUST_USE;
/* Waits until all is written (drop, and after a failure: gives up at once), ends the thread, frees.
 * Returns as _error. */
int weft_output_close(struct weft_output *o, bool drop, bool *ret_closed,
                      weft_err *err) WEFT_MUST_USE;

#endif
