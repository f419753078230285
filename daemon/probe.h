/*
 * Probe: how fast this machine is, measured with our own kernels.
 *
 * bytes/s of a product with one row over a Q8_0 matrix that no cache holds (decoding), flop/s of
 * products with 64 rows, a third of them exact sums, over slices of it in turn (prompts). Medians:
 * what a machine reaches all the time. Runs on the compute thread, in well under three seconds
 * whatever the machine.
 */
#ifndef WEFT_DAEMON_PROBE_H
#define WEFT_DAEMON_PROBE_H

#include "base/err.h"
#include "kernels/kernels.h"

struct weft_probe {
    uint64_t bytes_per_s; /* weights read by a product with one row */
    uint64_t flops_per_s; /* of products with 64 rows, two per weight and row */
    uint64_t stage_ns;    /* what a step costs beside the kernels; the node measures it */
};

/* Measures with at most memory_bytes (0: a quarter of WEFT_PROBE_BYTES). -WEFT_ENOMEM when not even
 * the least matrix can be had. */
#define WEFT_PROBE_BYTES (96u << 20)    /* beyond the caches of any board and of most PCs */
#define WEFT_PROBE_BYTES_MIN (1u << 20) /* below, the figure would be that of a cache */
int weft_probe_run(const struct wk_engine *engine, uint64_t memory_bytes, struct weft_probe *ret,
                   weft_err *err) WEFT_MUST_USE;

/* The last measurement, kept as "probe" in a folder of the daemon's own with the wall clock's time,
 * the kernel table and the number of threads: one of another table, of other threads or of the
 * future is not taken. Load gives false when there is none; save replaces the file as a whole. */
bool weft_probe_load(const char *dir, const struct wk_engine *engine, struct weft_probe *ret,
                     uint64_t *ret_age_s);
int weft_probe_save(const char *dir, const struct wk_engine *engine, const struct weft_probe *probe,
                    weft_err *err) WEFT_MUST_USE;

#endif
