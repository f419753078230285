/*
 * Tests of coordinator/output: a reader that is slow, stopped, gone or full never stops the writer.
 * What would block forever is caught by the time limit of the test.
 */
#include "coordinator/output.h"
#include "tests/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* `failed` of an output: counts, and tells whoever waits. */
struct watch {
    atomic_int failures;
    sem_t news;
};

static void on_failed(void *arg)
{
    struct watch *w = arg;
    atomic_fetch_add(&w->failures, 1);
    sem_post(&w->news);
}

static struct weft_output *open_output(int fd, struct watch *w)
{
    struct weft_output *o = NULL;
    weft_err err = {0};
    atomic_init(&w->failures, 0);
    ck_assert_int_eq(sem_init(&w->news, 0, 0), 0);
    ck_assert_int_eq(weft_output_open(fd, on_failed, w, &o, &err), 0);
    return o;
}

static void open_pipe(int fds[2])
{
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
}

/* Byte i of the text that these tests write. */
static char pattern(size_t i)
{
    return (char)('!' + (i * 7 + i / 251) % 90);
}

/* Reads until the end and compares with the pattern; the number of bytes that are right. */
static size_t read_pattern(int fd)
{
    static char buffer[65536];
    size_t total = 0;
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        for (ssize_t i = 0; i < n; i++)
            if (buffer[i] == pattern(total)) /* else the total stays behind */
                total++;
    return n == 0 ? total : 0;
}

/* Writes bytes [from, from + n) of the pattern. */
static void write_pattern(struct weft_output *o, size_t from, size_t n)
{
    char *text = malloc(n);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < n; i++)
        text[i] = pattern(from + i);
    weft_output_write(o, text, n);
    free(text);
}

static void close_good(struct weft_output *o)
{
    bool closed = true;
    weft_err err = {0};
    ck_assert_msg(weft_output_close(o, false, &closed, &err) == 0, "%s", err.text);
    ck_assert(!closed);
}

struct reader {
    int fd;
    size_t total;
};

static void *read_all(void *arg)
{
    struct reader *r = arg;
    r->total = read_pattern(r->fd);
    return NULL;
}

/* ---- */

START_TEST(order_is_kept)
{
    int fds[2];
    struct watch w;
    uint64_t random = weft_test_seed();
    open_pipe(fds);
    struct weft_output *o = open_output(fds[1], &w);
    struct reader r = {.fd = fds[0]};
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, read_all, &r), 0);
    size_t total = 0;
    for (int i = 0; i < 2000; i++) {
        const size_t n = weft_test_random(&random) % (i % 100 == 0 ? 50000 : 20);
        write_pattern(o, total, n);
        total += n;
    }
    close_good(o);
    close(fds[1]);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(r.total, total);
    close(fds[0]);
}
END_TEST

START_TEST(a_stopped_reader_does_not_stop_the_writer)
{
    int fds[2];
    struct watch w;
    const size_t chunk = 10000, n = 500;
    open_pipe(fds);
    struct weft_output *o = open_output(fds[1], &w);
    /* Far more than a pipe holds, while nobody reads. */
    for (size_t i = 0; i < n; i++)
        write_pattern(o, i * chunk, chunk);
    bool closed = true;
    weft_err err = {0};
    ck_assert_int_eq(weft_output_error(o, &closed, &err), 0);
    ck_assert(!closed);
    /* Then it reads all: nothing is missing. */
    struct reader r = {.fd = fds[0]};
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, read_all, &r), 0);
    close_good(o);
    close(fds[1]);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(r.total, chunk * n);
    ck_assert_int_eq(atomic_load(&w.failures), 0);
    close(fds[0]);
}
END_TEST

/* A terminal may have been made non-blocking by another program that shares it. */
START_TEST(a_descriptor_that_does_not_block)
{
    int fds[2];
    struct watch w;
    const size_t n = 1000000;
    open_pipe(fds);
    ck_assert_int_eq(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
    struct weft_output *o = open_output(fds[1], &w);
    write_pattern(o, 0, n);
    struct reader r = {.fd = fds[0]};
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, read_all, &r), 0);
    close_good(o);
    close(fds[1]);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(r.total, n);
    close(fds[0]);
}
END_TEST

START_TEST(puts_and_nothing)
{
    int fds[2];
    struct watch w;
    char buffer[16] = "";
    open_pipe(fds);
    struct weft_output *o = open_output(fds[1], &w);
    weft_output_write(o, "", 0);
    weft_output_puts(o, "");
    weft_output_puts(o, "ab");
    weft_output_puts(o, "c\n");
    close_good(o);
    close(fds[1]);
    ck_assert_int_eq(read(fds[0], buffer, sizeof buffer), 4);
    ck_assert_str_eq(buffer, "abc\n");
    close(fds[0]);
    /* Nothing written at all. */
    open_pipe(fds);
    close_good(open_output(fds[1], &w));
    close(fds[0]);
    close(fds[1]);
}
END_TEST

START_TEST(a_reader_that_goes_away)
{
    int fds[2];
    struct watch w;
    bool closed = false;
    weft_err err = {0};
    open_pipe(fds);
    close(fds[0]);
    struct weft_output *o = open_output(fds[1], &w);
    weft_output_puts(o, "hello");
    ck_assert_int_eq(sem_wait(&w.news), 0);
    ck_assert_int_eq(weft_output_error(o, &closed, &err), -WEFT_EIO);
    ck_assert(closed);
    ck_assert_str_eq(err.text, "cannot write the output: Broken pipe");
    for (int i = 0; i < 100; i++) /* ignored, and told once only */
        weft_output_puts(o, "more");
    closed = false;
    ck_assert_int_eq(weft_output_close(o, false, &closed, &err), -WEFT_EIO);
    ck_assert(closed);
    ck_assert_int_eq(atomic_load(&w.failures), 1);
    close(fds[1]);
}
END_TEST

/* It goes away while the writer waits for it. */
START_TEST(a_reader_that_goes_away_in_the_middle)
{
    int fds[2];
    struct watch w;
    bool closed = false;
    weft_err err = {0};
    char buffer[1000];
    open_pipe(fds);
    struct weft_output *o = open_output(fds[1], &w);
    write_pattern(o, 0, 1000000);
    ck_assert_int_gt(read(fds[0], buffer, sizeof buffer), 0);
    close(fds[0]);
    ck_assert_int_eq(sem_wait(&w.news), 0);
    ck_assert_int_eq(weft_output_close(o, false, &closed, &err), -WEFT_EIO);
    ck_assert(closed);
    close(fds[1]);
}
END_TEST

START_TEST(a_full_disk)
{
    struct watch w;
    bool closed = true;
    weft_err err = {0};
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        weft_test_skip("/dev/full is not there");
        return;
    }
    struct weft_output *o = open_output(fd, &w);
    weft_output_puts(o, "hello");
    ck_assert_int_eq(sem_wait(&w.news), 0);
    ck_assert_int_eq(weft_output_error(o, &closed, &err), -WEFT_EIO);
    ck_assert(!closed);
    ck_assert_str_eq(err.text, "cannot write the output: No space left on device");
    ck_assert_int_eq(weft_output_close(o, false, &closed, &err), -WEFT_EIO);
    ck_assert_int_eq(atomic_load(&w.failures), 1);
    close(fd);
}
END_TEST

START_TEST(more_than_the_limit)
{
    int fds[2];
    struct watch w;
    bool closed = true;
    weft_err err = {0};
    const size_t chunk = 4u << 20;
    open_pipe(fds);
    struct weft_output *o = open_output(fds[1], &w);
    /* One chunk may be in the thread's hand beside the queue. */
    for (size_t n = 0; n <= WEFT_OUTPUT_MAX + chunk; n += chunk)
        write_pattern(o, n, chunk);
    ck_assert_int_eq(weft_output_error(o, &closed, &err), -WEFT_EIO);
    ck_assert(!closed);
    ck_assert_str_eq(err.text, "cannot write the output: No buffer space available");
    ck_assert_int_eq(atomic_load(&w.failures), 1);
    /* Still nobody reads: the end does not wait for it. */
    ck_assert_int_eq(weft_output_close(o, false, &closed, &err), -WEFT_EIO);
    close(fds[0]);
    close(fds[1]);
}
END_TEST

/* Who waits may write any number of bytes, and is told when nobody takes them. */
START_TEST(waiting_has_no_limit)
{
    static const char *const paths[] = {"/dev/null", "/dev/full"};
    const size_t n = WEFT_OUTPUT_MAX + 1;
    char *text = calloc(n, 1);
    ck_assert_ptr_nonnull(text);
    for (int i = 0; i < 2; i++) {
        struct watch w;
        bool closed = true;
        weft_err err = {0};
        int fd = open(paths[i], O_WRONLY | O_CLOEXEC);
        if (fd < 0) {
            weft_test_skip("%s is not there", paths[i]);
            continue;
        }
        struct weft_output *o = open_output(fd, &w);
        weft_output_write_all(o, text, n);
        ck_assert_int_eq(weft_output_close(o, false, &closed, &err), i == 0 ? 0 : -WEFT_EIO);
        ck_assert(!closed);
        ck_assert_int_eq(atomic_load(&w.failures), i);
        close(fd);
    }
    free(text);
}
END_TEST

/* The thread hangs in write(2), or waits for news, or has not begun: the end comes at once. */
START_TEST(drop_does_not_hang)
{
    const size_t sizes[] = {0, 1, 1000000};
    for (int i = 0; i < 300; i++) {
        int fds[2];
        struct watch w;
        bool closed = true;
        weft_err err = {0};
        open_pipe(fds);
        struct weft_output *o = open_output(fds[1], &w);
        const size_t n = sizes[i % 3];
        if (n > 0)
            write_pattern(o, 0, n);
        if (i % 2 == 1 && n > 0) { /* let it come to its place of waiting */
            char byte;
            ck_assert_int_eq(read(fds[0], &byte, 1), 1);
        }
        ck_assert_int_eq(weft_output_close(o, true, &closed, &err), 0);
        ck_assert(!closed);
        close(fds[0]);
        close(fds[1]);
    }
}
END_TEST

/* What was written is there at once; who takes nothing is not waited for. */
START_TEST(settles)
{
    static char buffer[4096];
    struct watch w;
    int fds[2];
    bool closed;
    open_pipe(fds);
    struct weft_output *o = open_output(fds[1], &w);
    weft_output_settle(o); /* nothing to wait for */
    for (size_t i = 0; i < 200; i++) {
        write_pattern(o, 0, 1000);
        weft_output_settle(o);
        ck_assert_int_eq(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
        ck_assert_int_eq(read(fds[0], buffer, sizeof buffer), 1000);
    }
    write_pattern(o, 0, 1 << 20); /* more than a pipe holds */
    weft_output_settle(o);
    close(fds[0]);
    (void)!weft_output_close(o, true, &closed, NULL);
    close(fds[1]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("output");
    TCase *t = tcase_create("output");
    signal(SIGPIPE, SIG_IGN); /* as main does */
    tcase_add_test(t, order_is_kept);
    tcase_add_test(t, a_stopped_reader_does_not_stop_the_writer);
    tcase_add_test(t, a_descriptor_that_does_not_block);
    tcase_add_test(t, puts_and_nothing);
    tcase_add_test(t, a_reader_that_goes_away);
    tcase_add_test(t, a_reader_that_goes_away_in_the_middle);
    tcase_add_test(t, a_full_disk);
    tcase_add_test(t, more_than_the_limit);
    tcase_add_test(t, waiting_has_no_limit);
    tcase_add_test(t, drop_does_not_hang);
    tcase_add_test(t, settles);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
