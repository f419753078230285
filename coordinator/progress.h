/*
 * Progress: one bar per device on a terminal's stderr while shards travel; silent elsewhere.
 */
#ifndef WEFT_COORDINATOR_PROGRESS_H
#define WEFT_COORDINATOR_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct weft_progress;

/* NULL when out of memory or not on a terminal: every function accepts NULL. */
struct weft_progress *weft_progress_open(bool terminal, uint32_t n_devices);
void weft_progress_update(struct weft_progress *p, uint32_t device, const char *name, uint64_t done,
                          uint64_t total, uint64_t now_ns);
/* Erases the bars and frees. */
void weft_progress_close(struct weft_progress *p);

#endif
