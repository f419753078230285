/*
 * Machine, see machine.h. Any thread; nothing is kept.
 */
#include "daemon/machine.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX 65536 /* of a file below /proc or /sys; more is cut */
#define ZONES_MAX 32
#define PATH_MAX_BYTES 4096

/* ------------------------------------------------------------------ parsers */

/* The text behind `key` at the start of a line; NULL without such a line. */
static const char *line_value(const char *text, const char *key)
{
    size_t len = strlen(key);
    for (const char *line = text; line != NULL && *line != '\0';) {
        if (strncmp(line, key, len) == 0)
            return line + len;
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return NULL;
}

/* Decimal digits after blanks; nothing else is a number here. */
static bool number(const char *text, uint64_t *ret, const char **ret_end)
{
    while (*text == ' ' || *text == '\t')
        text++;
    if (!isdigit((unsigned char)*text))
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno != 0)
        return false;
    *ret = v;
    if (ret_end != NULL)
        *ret_end = end;
    return true;
}

static bool meminfo_line(const char *text, const char *key, uint64_t *ret)
{
    uint64_t kib;
    const char *end, *value = line_value(text, key);
    if (value == NULL || !number(value, &kib, &end) || kib > UINT64_MAX / 1024)
        return false;
    if (strncmp(end, " kB", 3) != 0) /* since Linux 2.0 it has never been anything else */
        return false;
    *ret = kib * 1024;
    return true;
}

bool weft_meminfo_parse(const char *text, uint64_t *ret_total, uint64_t *ret_available)
{
    uint64_t total, available;
    if (!meminfo_line(text, "MemTotal:", &total) ||
        !meminfo_line(text, "MemAvailable:", &available))
        return false;
    *ret_total = total;
    *ret_available = available < total ? available : total;
    return true;
}

bool weft_cgroup_number(const char *text, uint64_t *ret)
{
    const char *end;
    uint64_t v;
    if (strncmp(text, "max", 3) == 0 && (text[3] == '\n' || text[3] == '\0')) {
        *ret = UINT64_MAX;
        return true;
    }
    if (!number(text, &v, &end) || (*end != '\n' && *end != '\0'))
        return false;
    *ret = v;
    return true;
}

/* True when `name` stands in the comma-separated list [list, end). */
static bool in_list(const char *list, const char *end, const char *name)
{
    size_t len = strlen(name);
    while (list < end) {
        const char *comma = memchr(list, ',', (size_t)(end - list));
        const char *stop = comma != NULL ? comma : end;
        if ((size_t)(stop - list) == len && memcmp(list, name, len) == 0)
            return true;
        list = stop + 1;
    }
    return false;
}

bool weft_cgroup_path(const char *text, const char *controller, char *buf, size_t n)
{
    for (const char *line = text; *line != '\0';) { /* "4:memory,hugetlb:/path", "0::/path" */
        const char *end = strchr(line, '\n');
        size_t len = end != NULL ? (size_t)(end - line) : strlen(line);
        const char *first = memchr(line, ':', len);
        const char *second =
            first != NULL ? memchr(first + 1, ':', len - (size_t)(first + 1 - line)) : NULL;
        bool ours = second != NULL && (controller != NULL ? in_list(first + 1, second, controller)
                                                          : second == first + 1 && *line == '0');
        if (ours) {
            size_t size = len - (size_t)(second + 1 - line);
            if (size == 0 || second[1] != '/' || size >= n)
                return false;
            memcpy(buf, second + 1, size);
            buf[size] = '\0';
            return strstr(buf, "/..") == NULL;
        }
        line += len + (end != NULL);
    }
    return false;
}

uint64_t weft_cgroup_stat(const char *text, const char *key)
{
    char start[64];
    uint64_t v;
    snprintf(start, sizeof start, "%s ", key);
    const char *value = line_value(text, start);
    return value != NULL && number(value, &v, NULL) ? v : 0;
}

uint32_t weft_cgroup_cores(const char *text)
{
    uint64_t quota, period;
    const char *end;
    if (!number(text, &quota, &end) || !number(end, &period, NULL) || period == 0 || quota == 0)
        return 0;
    uint64_t cores = quota / period + (quota % period != 0);
    return cores <= UINT32_MAX ? (uint32_t)cores : 0;
}

static void copy_line(char *buf, size_t n, const char *from)
{
    size_t len = strcspn(from, "\n");
    if (n == 0)
        return;
    while (len > 0 && isspace((unsigned char)from[len - 1]))
        len--;
    if (len >= n)
        len = n - 1;
    memcpy(buf, from, len);
    buf[len] = '\0';
    for (size_t i = 0; i < len; i++) /* it travels in Status and is printed */
        if ((unsigned char)buf[i] < 0x20 || (unsigned char)buf[i] >= 0x7f)
            buf[i] = '?';
}

bool weft_cpuinfo_parse(const char *text, char *buf, size_t n)
{
    static const char *const keys[] = {"model name", "Model", "Hardware"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const char *value = line_value(text, keys[i]);
        if (value == NULL)
            continue;
        value += strspn(value, " \t");
        if (*value != ':')
            continue;
        value += 1 + strspn(value + 1, " \t");
        copy_line(buf, n, value);
        if (buf[0] != '\0')
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------ readers */

/* The text of root/dir/name; false when it cannot be read. */
static bool read_text(char *buf, size_t n, const char *root, const char *dir, const char *name)
{
    char path[PATH_MAX_BYTES];
    if ((size_t)snprintf(path, sizeof path, "%s%s%s", root, dir, name) >= sizeof path)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t size = 0;
    ssize_t got = 0;
    while (size < n - 1 && (got = read(fd, buf + size, n - 1 - size)) > 0)
        size += (size_t)got;
    close(fd);
    buf[size] = '\0';
    return got >= 0;
}

struct cgroup_files {
    const char *mount, *controller, *limit, *usage, *reclaimable;
};

/* Narrows ret by one group; false when it has no memory files (the root, or a mount that hides it).
 */
static bool narrow(const char *root, const char *dir, const struct cgroup_files *files, char *text,
                   struct weft_memory *ret)
{
    uint64_t limit, usage;
    if (!read_text(text, TEXT_MAX, root, dir, files->limit) || !weft_cgroup_number(text, &limit) ||
        !read_text(text, TEXT_MAX, root, dir, files->usage) || !weft_cgroup_number(text, &usage))
        return false;
    if (limit >= ret->total_bytes) /* "max", or version 1's huge number */
        return true;
    /* Pages of files that were read are counted, yet given back when memory is wanted. */
    uint64_t back = read_text(text, TEXT_MAX, root, dir, "/memory.stat")
                        ? weft_cgroup_stat(text, files->reclaimable)
                        : 0;
    usage -= back < usage ? back : usage;
    uint64_t left = limit > usage ? limit - usage : 0;
    ret->total_bytes = limit;
    if (left < ret->available_bytes)
        ret->available_bytes = left;
    return true;
}

/* The limits of our group and of all around it. */
static void narrow_all(const char *root, const struct cgroup_files *files, char *text,
                       struct weft_memory *ret)
{
    char path[PATH_MAX_BYTES], dir[PATH_MAX_BYTES + 64];
    if (!read_text(text, TEXT_MAX, root, "/proc/self", "/cgroup") ||
        !weft_cgroup_path(text, files->controller, path, sizeof path))
        return;
    for (;;) {
        size_t len = strlen(path);
        while (len > 0 && path[len - 1] == '/')
            path[--len] = '\0';
        snprintf(dir, sizeof dir, "%s%s", files->mount, path);
        (void)narrow(root, dir, files, text, ret);
        char *slash = strrchr(path, '/');
        if (slash == NULL)
            return;
        *slash = '\0';
    }
}

static const struct cgroup_files cgroup_v2 = {"/sys/fs/cgroup", NULL, "/memory.max",
                                              "/memory.current", "inactive_file"};
static const struct cgroup_files cgroup_v1 = {"/sys/fs/cgroup/memory", "memory",
                                              "/memory.limit_in_bytes", "/memory.usage_in_bytes",
                                              "total_inactive_file"};

bool weft_memory_read(const char *root, struct weft_memory *ret)
{
    memset(ret, 0, sizeof *ret);
    char *text = malloc(TEXT_MAX);
    bool ok = text != NULL && read_text(text, TEXT_MAX, root, "/proc", "/meminfo") &&
              weft_meminfo_parse(text, &ret->total_bytes, &ret->machine_bytes);
    if (ok) {
        ret->available_bytes = ret->machine_bytes;
        narrow_all(root, &cgroup_v2, text, ret);
        narrow_all(root, &cgroup_v1, text, ret);
    }
    free(text);
    return ok;
}

/* Cores by affinity and by the CPU quota of our control group. */
static uint32_t read_cores(const char *root, char *text)
{
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t cores = online > 0 ? (uint32_t)online : 1;
    char path[PATH_MAX_BYTES];
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        cores = (uint32_t)CPU_COUNT(&set);
    if (read_text(text, TEXT_MAX, root, "/proc/self", "/cgroup") &&
        weft_cgroup_path(text, NULL, path, sizeof path)) {
        char dir[PATH_MAX_BYTES + 64];
        snprintf(dir, sizeof dir, "/sys/fs/cgroup%s", path);
        uint32_t quota =
            read_text(text, TEXT_MAX, root, dir, "/cpu.max") ? weft_cgroup_cores(text) : 0;
        if (quota > 0 && quota < cores)
            cores = quota;
    }
    return cores;
}

struct cpu {
    int number;
    bool second; /* thread of its core */
    uint64_t speed;
};

static struct cpu read_cpu(const char *root, int index)
{
    struct cpu cpu = {.number = index};
    char dir[64], text[64];
    uint64_t first;
    snprintf(dir, sizeof dir, "/sys/devices/system/cpu/cpu%d", index);
    if (!read_text(text, sizeof text, root, dir, "/cpu_capacity") ||
        !number(text, &cpu.speed, NULL))
        if (read_text(text, sizeof text, root, dir, "/cpufreq/cpuinfo_max_freq"))
            (void)number(text, &cpu.speed, NULL);
    /* "0,4" or "0-1": the threads of its core */
    if (read_text(text, sizeof text, root, dir, "/topology/thread_siblings_list") &&
        number(text, &first, NULL))
        cpu.second = first != (uint64_t)index;
    return cpu;
}

static int best_first(const void *a, const void *b)
{
    const struct cpu *x = a, *y = b;
    if (x->second != y->second)
        return x->second ? 1 : -1;
    if (x->speed != y->speed)
        return x->speed < y->speed ? 1 : -1;
    return (x->number > y->number) - (x->number < y->number);
}

size_t weft_machine_cpus(const char *root, int *ret, size_t n)
{
    struct cpu cpus[CPU_SETSIZE];
    size_t found = 0;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 0;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            cpus[found++] = read_cpu(root, i);
    qsort(cpus, found, sizeof cpus[0], best_first);
    found = found < n ? found : n;
    for (size_t i = 0; i < found; i++)
        ret[i] = cpus[i].number;
    return found;
}

void weft_machine_read(const char *root, struct weft_machine *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->cores = 1;
    char *text = malloc(TEXT_MAX);
    if (text == NULL)
        return;
    if (!read_text(text, TEXT_MAX, root, "/proc", "/cpuinfo") ||
        !weft_cpuinfo_parse(text, ret->cpu, sizeof ret->cpu))
        if (read_text(text, TEXT_MAX, root, "/proc/device-tree", "/model"))
            copy_line(ret->cpu, sizeof ret->cpu, text);
    if (read_text(text, TEXT_MAX, root, "/proc/sys/kernel/random", "/boot_id"))
        copy_line(ret->boot_id, sizeof ret->boot_id, text);
    if (gethostname(ret->host, sizeof ret->host - 1) != 0)
        ret->host[0] = '\0';
    ret->cores = read_cores(root, text);
    free(text);
}

bool weft_temperature_read(const char *root, int32_t *ret_millidegrees)
{
    bool found = false;
    for (int i = 0; i < ZONES_MAX; i++) {
        char dir[64], text[32];
        snprintf(dir, sizeof dir, "/sys/class/thermal/thermal_zone%d", i);
        if (!read_text(text, sizeof text, root, dir, "/temp"))
            continue;
        char *end;
        long t = strtol(text, &end, 10);
        /* Zones that are switched off read as nonsense such as -274000. */
        if (end == text || t < -50000 || t > 200000)
            continue;
        if (!found || t > *ret_millidegrees)
            *ret_millidegrees = (int32_t)t;
        found = true;
    }
    return found;
}
