/*
 * Private daemon: the weftd of `weft run -m`: a child of this process on a loopback port that the
 * system chooses. It ends with its parent.
 */
#ifndef WEFT_COORDINATOR_PRIVATE_DAEMON_H
#define WEFT_COORDINATOR_PRIVATE_DAEMON_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Starts weftd (WEFT_WEFTD, else beside this program, else on PATH) with `threads` (0: all cores)
 * and waits for its port, ten seconds at most. address gets "127.0.0.1:PORT". -WEFT_EUNREACHABLE
 * says what happened. */
int weft_private_daemon_start(uint32_t threads, int *ret_pid, char *address, size_t n,
                              weft_err *err) WEFT_MUST_USE;
/* Ends it: SIGTERM, SIGKILL after two seconds; waits. */
void weft_private_daemon_stop(int pid);

#endif
