/*
 * sd_notify without libsystemd: one datagram to $NOTIFY_SOCKET (sd_notify(3), the protocol is part
 * of systemd's stable interface). Loop thread.
 */
#ifndef WEFT_DAEMON_NOTIFY_H
#define WEFT_DAEMON_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct weft_notify {
    int fd; /* -1: nobody wants to know */
};

/* Opens the socket of the environment variable NOTIFY_SOCKET: a path, or '@' and an abstract name.
 * Without it nothing is sent later and 0 is returned; a bad one is -WEFT_EIO. */
int weft_notify_open(struct weft_notify *n, weft_err *err) WEFT_MUST_USE;
/* "READY=1", "STATUS=…", lines separated by '\n'. Never blocks; what cannot be sent is lost. */
void weft_notify(struct weft_notify *n, const char *fmt, ...) WEFT_PRINTF(2, 3);
void weft_notify_close(struct weft_notify *n);
/* $WATCHDOG_USEC if it is meant for this process ($WATCHDOG_PID), else 0. */
uint64_t weft_notify_watchdog_us(void);

#endif
