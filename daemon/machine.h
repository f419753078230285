/*
 * Machine: what Linux says of this board: memory and the limits of control groups, processor, boot
 * id, temperature. Pure parsers of texts, and readers that put them together below a root ("" or a
 * test's folder).
 */
#ifndef WEFT_DAEMON_MACHINE_H
#define WEFT_DAEMON_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEFT_MACHINE_ROOT "" /* the real one */

struct weft_machine {
    char cpu[96];     /* "Cortex-A76", "" when nothing says it */
    char boot_id[40]; /* equal for all daemons of one machine */
    char host[65];
    uint32_t cores; /* this process may use: affinity and CPU quota */
};

struct weft_memory {
    uint64_t total_bytes;     /* of the machine, or of the narrowest control group around us */
    uint64_t available_bytes; /* that may still be allocated within both */
    uint64_t machine_bytes;   /* MemAvailable */
};

void weft_machine_read(const char *root, struct weft_machine *ret);
/* The CPUs this process may run on, best first: one thread of each core before the second ones,
 * fast cores before slow ones (by capacity, or highest frequency), then by number. At most n;
 * returns how many. */
size_t weft_machine_cpus(const char *root, int *ret, size_t n);
/* False when /proc/meminfo cannot be read; then all are 0. */
bool weft_memory_read(const char *root, struct weft_memory *ret);
/* The hottest thermal zone; false without any. */
bool weft_temperature_read(const char *root, int32_t *ret_millidegrees);

/* /proc/meminfo: MemTotal and MemAvailable in bytes; false when one is missing or no number. */
bool weft_meminfo_parse(const char *text, uint64_t *ret_total, uint64_t *ret_available);
/* A limit or usage file: decimal bytes, or "max" as UINT64_MAX. */
bool weft_cgroup_number(const char *text, uint64_t *ret);
/* Our path in /proc/self/cgroup: controller "memory" (version 1) or NULL (version 2). The result
 * starts with
 * '/'; one with ".." in it is refused. */
bool weft_cgroup_path(const char *text, const char *controller, char *buf, size_t n);
/* The value of a key of memory.stat; 0 when it is not there. */
uint64_t weft_cgroup_stat(const char *text, const char *key);
/* cpu.max ("200000 100000", "max 100000"): cores, rounded up; 0: no limit, or not understood. */
uint32_t weft_cgroup_cores(const char *text);
/* /proc/cpuinfo: "model name", else "Model", else "Hardware"; false without any. */
bool weft_cpuinfo_parse(const char *text, char *buf, size_t n);

#endif
