/*
 * What Linux says of a machine: the parsers on good and hostile texts, the readers below a made-up
 * root, notification over real sockets, the probe's file.
 */
#include "daemon/machine.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/notify.h"
#include "daemon/probe.h"
#include "tests/harness.h"

#define MIB ((uint64_t)1 << 20)

/* ------------------------------------------------------------------ parsers */

START_TEST(meminfo)
{
    uint64_t total = 0, available = 0;
    ck_assert(weft_meminfo_parse(
        "MemTotal:        8000000 kB\nMemFree:  1 kB\nMemAvailable:    5000000 kB\n", &total,
        &available));
    ck_assert(total == 8000000u * UINT64_C(1024) && available == 5000000u * UINT64_C(1024));
    /* never more than there is */
    ck_assert(weft_meminfo_parse("MemTotal: 10 kB\nMemAvailable: 20 kB\n", &total, &available));
    ck_assert(available == 10240);
}
END_TEST

START_TEST(meminfo_hostile)
{
    static const char *const texts[] = {
        "",
        "MemTotal: 10 kB\n",
        "MemTotal: 10\nMemAvailable: 10\n",
        "MemTotal: -1 kB\nMemAvailable: 1 kB\n",
        "MemTotal: 99999999999999999999999 kB\nMemAvailable: 1 kB\n",
        "MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\n",
        "xMemTotal: 1 kB\nxMemAvailable: 1 kB\n",
        "MemTotal:\nMemAvailable: 1 kB",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        uint64_t total = 7, available = 7;
        ck_assert_msg(!weft_meminfo_parse(texts[i], &total, &available), "%s", texts[i]);
        ck_assert(total == 7 && available == 7);
    }
}
END_TEST

START_TEST(cgroup_numbers)
{
    uint64_t v = 0;
    ck_assert(weft_cgroup_number("max\n", &v) && v == UINT64_MAX);
    ck_assert(weft_cgroup_number("1048576\n", &v) && v == MIB);
    ck_assert(weft_cgroup_number("0", &v) && v == 0);
    ck_assert(!weft_cgroup_number("", &v));
    ck_assert(!weft_cgroup_number("maximum", &v));
    ck_assert(!weft_cgroup_number("-1\n", &v));
    ck_assert(!weft_cgroup_number("1 2\n", &v));
    ck_assert(!weft_cgroup_number("99999999999999999999\n", &v));
    ck_assert(weft_cgroup_stat("anon 5\ninactive_file 4096\n", "inactive_file") == 4096);
    ck_assert(weft_cgroup_stat("total_inactive_file 4096\n", "inactive_file") == 0);
    ck_assert_uint_eq(weft_cgroup_cores("200000 100000\n"), 2);
    ck_assert_uint_eq(weft_cgroup_cores("150000 100000\n"), 2);
    ck_assert_uint_eq(weft_cgroup_cores("max 100000\n"), 0);
    ck_assert_uint_eq(weft_cgroup_cores("1 0\n"), 0);
    ck_assert_uint_eq(weft_cgroup_cores(""), 0);
}
END_TEST

START_TEST(cgroup_paths)
{
    char buf[64];
    const char *v1 = "12:cpu,cpuacct:/a\n4:memory:/user/weft\n1:name=systemd:/x\n0::/unified\n";
    ck_assert(weft_cgroup_path(v1, "memory", buf, sizeof buf));
    ck_assert_str_eq(buf, "/user/weft");
    ck_assert(weft_cgroup_path(v1, NULL, buf, sizeof buf));
    ck_assert_str_eq(buf, "/unified");
    ck_assert(weft_cgroup_path(v1, "cpuacct", buf, sizeof buf));
    ck_assert_str_eq(buf, "/a");
    ck_assert(!weft_cgroup_path(v1, "mem", buf, sizeof buf));
    ck_assert(!weft_cgroup_path("", NULL, buf, sizeof buf));
    ck_assert(!weft_cgroup_path("0::", NULL, buf, sizeof buf));
    ck_assert(!weft_cgroup_path("0::/../../etc\n", NULL, buf, sizeof buf));
    ck_assert(!weft_cgroup_path("nonsense\n:\n::\n", NULL, buf, sizeof buf));
    ck_assert(!weft_cgroup_path("0::/long/path\n", NULL, buf, 6));
}
END_TEST

START_TEST(cpuinfo)
{
    char buf[24];
    ck_assert(
        weft_cpuinfo_parse("processor\t: 0\nmodel name\t: Fast CPU @ 2 GHz\n", buf, sizeof buf));
    ck_assert_str_eq(buf, "Fast CPU @ 2 GHz");
    ck_assert(weft_cpuinfo_parse("Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
                                 buf, sizeof buf));
    ck_assert_str_eq(buf, "Raspberry Pi 5 Model B ");
    ck_assert(weft_cpuinfo_parse("model name\t: a\033[31mb\n", buf, sizeof buf));
    ck_assert_str_eq(buf, "a?[31mb");
    ck_assert(!weft_cpuinfo_parse("processor : 0\n", buf, sizeof buf));
    ck_assert(!weft_cpuinfo_parse("model name\t:\n", buf, sizeof buf));
}
END_TEST

START_TEST(random_texts)
{
    static const char *const pieces[] = {"MemTotal:", "MemAvailable:", " ",   "\n",   "kB", "9",
                                         "0",         "max",           ":",   "0::/", "/",  "..",
                                         "memory",    "model name\t:", "\xff"};
    uint64_t random = weft_test_seed();
    for (int i = 0; i < 20000; i++) {
        char text[200] = "", buf[16];
        uint64_t a, b;
        for (int k = 0; k < 12; k++)
            strncat(text, pieces[weft_test_random(&random) % (sizeof pieces / sizeof pieces[0])],
                    sizeof text - strlen(text) - 1);
        if (weft_meminfo_parse(text, &a, &b))
            ck_assert(b <= a);
        (void)weft_cgroup_number(text, &a);
        (void)weft_cgroup_cores(text);
        if (weft_cgroup_path(text, (i & 1) != 0 ? NULL : "memory", buf, sizeof buf))
            ck_assert(buf[0] == '/' && strstr(buf, "/..") == NULL);
        (void)weft_cpuinfo_parse(text, buf, sizeof buf);
    }
}
END_TEST

/* ------------------------------------------------------------------ readers */

static char root[4096];

static void put(const char *path, const char *text)
{
    char full[8192];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *slash = strchr(full + strlen(root) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        ck_assert(mkdir(full, 0700) == 0 || errno == EEXIST);
        *slash = '/';
    }
    FILE *f = fopen(full, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

static void fresh_root(void)
{
    snprintf(root, sizeof root, "%s/root-XXXXXX", weft_test_tmpdir());
    ck_assert_ptr_nonnull(mkdtemp(root));
}

START_TEST(memory_of_the_machine)
{
    struct weft_memory m;
    fresh_root();
    ck_assert(!weft_memory_read(root, &m));
    ck_assert(m.total_bytes == 0 && m.available_bytes == 0);
    put("/proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n");
    ck_assert(weft_memory_read(root, &m));
    ck_assert(m.total_bytes == 1024 * MIB && m.available_bytes == 512 * MIB &&
              m.machine_bytes == 512 * MIB);
}
END_TEST

START_TEST(memory_within_groups)
{
    struct weft_memory m;
    fresh_root();
    put("/proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n");
    put("/proc/self/cgroup", "0::/outer/inner\n");
    put("/sys/fs/cgroup/outer/inner/memory.max", "max\n");
    put("/sys/fs/cgroup/outer/inner/memory.current", "1\n");
    put("/sys/fs/cgroup/outer/memory.max", "104857600\n"); /* 100 MiB, of which 60 - 20 are used */
    put("/sys/fs/cgroup/outer/memory.current", "62914560\n");
    put("/sys/fs/cgroup/outer/memory.stat", "anon 1\ninactive_file 20971520\n");
    ck_assert(weft_memory_read(root, &m));
    ck_assert(m.total_bytes == 100 * MIB);
    ck_assert(m.available_bytes == 60 * MIB);
    ck_assert(m.machine_bytes == 512 * MIB);
}
END_TEST

START_TEST(memory_within_old_groups)
{
    struct weft_memory m;
    fresh_root();
    put("/proc/meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n");
    put("/proc/self/cgroup", "5:memory:/hidden\n");
    /* the group's own path is not visible in a container: its mount's root is */
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "31457280\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "41943040\n"); /* over its limit: nothing is left */
    ck_assert(weft_memory_read(root, &m));
    ck_assert(m.total_bytes == 30 * MIB);
    ck_assert(m.available_bytes == 0);
}
END_TEST

START_TEST(temperature)
{
    int32_t t = 0;
    fresh_root();
    ck_assert(!weft_temperature_read(root, &t));
    put("/sys/class/thermal/thermal_zone0/temp", "-274000\n");
    ck_assert(!weft_temperature_read(root, &t));
    put("/sys/class/thermal/thermal_zone1/temp", "41000\n");
    put("/sys/class/thermal/thermal_zone2/temp", "nonsense\n");
    put("/sys/class/thermal/thermal_zone3/temp", "52500\n");
    ck_assert(weft_temperature_read(root, &t));
    ck_assert_int_eq(t, 52500);
}
END_TEST

START_TEST(machine)
{
    struct weft_machine m;
    fresh_root();
    put("/proc/cpuinfo", "processor : 0\n");
    put("/proc/device-tree/model", "A board");
    put("/proc/sys/kernel/random/boot_id", "0f8fad5b-d9cb-469f-a165-70867728950e\n");
    weft_machine_read(root, &m);
    ck_assert_str_eq(m.cpu, "A board");
    ck_assert_str_eq(m.boot_id, "0f8fad5b-d9cb-469f-a165-70867728950e");
    ck_assert_uint_ge(m.cores, 1);
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "100000 100000\n");
    weft_machine_read(root, &m);
    ck_assert_uint_eq(m.cores, 1);
    weft_machine_read(WEFT_MACHINE_ROOT, &m); /* the real one */
    ck_assert_uint_ge(m.cores, 1);
    ck_assert_uint_eq(strlen(m.boot_id), 36);
}
END_TEST

static void put_cpu(int cpu, const char *name, const char *text)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, name);
    put(path, text);
}

START_TEST(cpus_best_first)
{
    int cpus[CPU_SETSIZE], order[CPU_SETSIZE];
    char text[32];
    fresh_root();
    const size_t n = weft_machine_cpus(root, cpus, CPU_SETSIZE); /* nothing known: by number */
    ck_assert_uint_ge(n, 1);
    for (size_t i = 1; i < n; i++)
        ck_assert_int_lt(cpus[i - 1], cpus[i]);
    ck_assert_uint_eq(weft_machine_cpus(root, order, 1), 1);
    ck_assert_int_eq(order[0], cpus[0]);
    if (n < 2) {
        weft_test_skip("one CPU has no order");
        return;
    }
    const int a = cpus[0], b = cpus[n - 1];
    put_cpu(a, "cpufreq/cpuinfo_max_freq", "1400000\n");
    put_cpu(b, "cpufreq/cpuinfo_max_freq", "2400000\n");
    ck_assert_uint_eq(weft_machine_cpus(root, order, CPU_SETSIZE), n);
    ck_assert_int_eq(order[0], b);
    put_cpu(a, "cpu_capacity", "3000000\n"); /* the capacity wins over the frequency */
    put_cpu(b, "cpu_capacity", "1024\n");
    weft_machine_cpus(root, order, CPU_SETSIZE);
    ck_assert_int_eq(order[0], a);
    snprintf(text, sizeof text, "%d,%d\n", a, b);
    put_cpu(a, "cpu_capacity", "400\n");
    put_cpu(a, "topology/thread_siblings_list", text);
    put_cpu(b, "topology/thread_siblings_list", text);
    weft_machine_cpus(root, order, CPU_SETSIZE);
    ck_assert_int_eq(order[n - 1], b); /* fast, but it shares a's core */
}
END_TEST

/* ------------------------------------------------------------------ sd_notify */

/* A datagram socket as systemd's; name starts with '@' for an abstract one. */
static int notify_server(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(a.sun_path, name, len);
    if (name[0] == '@')
        a.sun_path[0] = '\0';
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(
        bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
        0);
    return fd;
}

START_TEST(notify)
{
    char name[90], text[64] = "";
    weft_err err = {0};
    struct weft_notify n;
    if (_i == 0)
        snprintf(name, sizeof name, "@weft-test-%ld", (long)getpid());
    else
        snprintf(name, sizeof name, "%s/notify", weft_test_tmpdir());
    int fd = notify_server(name);
    setenv("NOTIFY_SOCKET", name, 1);
    ck_assert_msg(weft_notify_open(&n, &err) == 0, "%s", err.text);
    weft_notify(&n, "READY=1\nSTATUS=%s", "idle");
    ck_assert_int_eq(recv(fd, text, sizeof text - 1, MSG_DONTWAIT), 19);
    ck_assert_str_eq(text, "READY=1\nSTATUS=idle");
    weft_notify_close(&n);
    weft_notify(&n, "STOPPING=1"); /* closed: nothing happens */
    ck_assert_int_lt(recv(fd, text, sizeof text - 1, MSG_DONTWAIT), 0);
    close(fd);
    unsetenv("NOTIFY_SOCKET");
}
END_TEST

START_TEST(notify_without_systemd)
{
    struct weft_notify n;
    weft_err err = {0};
    unsetenv("NOTIFY_SOCKET");
    ck_assert_int_eq(weft_notify_open(&n, &err), 0);
    ck_assert_int_lt(n.fd, 0);
    weft_notify(&n, "READY=1");
    setenv("NOTIFY_SOCKET", "relative", 1);
    ck_assert_int_eq(weft_notify_open(&n, &err), -WEFT_EIO);
    setenv("NOTIFY_SOCKET", "/nowhere/socket", 1);
    ck_assert_int_eq(weft_notify_open(&n, &err), -WEFT_EIO);
    unsetenv("NOTIFY_SOCKET");
}
END_TEST

START_TEST(watchdog)
{
    char pid[32];
    unsetenv("WATCHDOG_USEC");
    ck_assert(weft_notify_watchdog_us() == 0);
    setenv("WATCHDOG_USEC", "10000000", 1);
    ck_assert(weft_notify_watchdog_us() == 10000000);
    setenv("WATCHDOG_PID", "1", 1);
    ck_assert(weft_notify_watchdog_us() == 0);
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    ck_assert(weft_notify_watchdog_us() == 10000000);
    setenv("WATCHDOG_USEC", "soon", 1);
    ck_assert(weft_notify_watchdog_us() == 0);
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}
END_TEST

/* ------------------------------------------------------------------ probe */

START_TEST(probe)
{
    struct wk_engine e = {.table = wk_table_select(NULL)};
    struct weft_probe p = {0};
    weft_err err = {0};
    ck_assert_int_eq(weft_probe_run(&e, WEFT_PROBE_BYTES_MIN - 1, &p, &err), -WEFT_ENOMEM);
    ck_assert_msg(weft_probe_run(&e, 4 * MIB, &p, &err) == 0, "%s", err.text);
    ck_assert(p.bytes_per_s > 1000000 && p.flops_per_s > 1000000);
}
END_TEST

START_TEST(probe_file)
{
    struct wk_engine e = {.table = wk_table_select("ref")};
    const struct weft_probe p = {.bytes_per_s = 5, .flops_per_s = 6, .stage_ns = 7};
    struct weft_probe q;
    uint64_t age = 99;
    weft_err err = {0};
    fresh_root();
    ck_assert(!weft_probe_load(root, &e, &q, &age));
    ck_assert_msg(weft_probe_save(root, &e, &p, &err) == 0, "%s", err.text);
    ck_assert(weft_probe_load(root, &e, &q, &age));
    ck_assert(q.bytes_per_s == 5 && q.flops_per_s == 6 && q.stage_ns == 7 && age < 60);
    ck_assert_int_eq(weft_probe_save("/nowhere", &e, &p, &err), -WEFT_EIO);
    /* measured otherwise, in the future, or no measurement at all */
    static const char *const others[] = {
        "weft-probe 1\ntime 1\nisa avx9\nthreads 1\nbytes_per_s 5\nflops_per_s 6\nstage_ns 7\n",
        "weft-probe 1\ntime 1\nisa ref\nthreads 9\nbytes_per_s 5\nflops_per_s 6\nstage_ns 7\n",
        "weft-probe 1\ntime 99999999999\nisa ref\nthreads 1\nbytes_per_s 5\nflops_per_s "
        "6\nstage_ns 7\n",
        "weft-probe 1\ntime 1\nisa ref\nthreads 1\nbytes_per_s 0\nflops_per_s 6\nstage_ns 7\n",
        "weft-probe 1\ntime 1\nisa ref\n",
        "",
        "\xff\xfe\n",
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        put("/probe", others[i]);
        ck_assert_msg(!weft_probe_load(root, &e, &q, &age), "%s", others[i]);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("machine");
    TCase *t = tcase_create("machine");
    (void)weft_test_tmpdir(); /* before Check forks, so that it is removed once */
    tcase_set_timeout(t, 60);
    tcase_add_test(t, meminfo);
    tcase_add_test(t, meminfo_hostile);
    tcase_add_test(t, cgroup_numbers);
    tcase_add_test(t, cgroup_paths);
    tcase_add_test(t, cpuinfo);
    tcase_add_test(t, random_texts);
    tcase_add_test(t, memory_of_the_machine);
    tcase_add_test(t, memory_within_groups);
    tcase_add_test(t, memory_within_old_groups);
    tcase_add_test(t, temperature);
    tcase_add_test(t, machine);
    tcase_add_test(t, cpus_best_first);
    tcase_add_loop_test(t, notify, 0, 2);
    tcase_add_test(t, notify_without_systemd);
    tcase_add_test(t, watchdog);
    tcase_add_test(t, probe);
    tcase_add_test(t, probe_file);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
