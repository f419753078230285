/*
 * Output thread, see output.h. The mutex guards everything but fd; bytes are handed over by
 * swapping the two buffers.
 */
#include "coordinator/output.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

#define PART_MAX (1u << 20) /* bytes that are queued at a time by who waits */

struct weft_output {
    int fd;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t news;
    pthread_cond_t room;    /* the queue is empty again, or nothing more is written */
    pthread_cond_t settled; /* what was taken from the queue is written */
    struct weft_str queue;  /* to be written */
    bool writing;           /* what was taken from the queue */
    int errnum;             /* of the failed write; ENOBUFS: over the limit */
    int wake;               /* eventfd, readable: give up */
    bool ending;
    void (*failed)(void *arg);
    void *arg;
};

/* How long the loop waits for a terminal that shows text; it takes less than one. */
#define SETTLE_NS (100 * 1000 * 1000L)

/* Waits until the reader takes more; false when the output is dropped meanwhile. */
static bool wait_writable(const struct weft_output *o)
{
    struct pollfd fds[] = {{.fd = o->fd, .events = POLLOUT}, {.fd = o->wake, .events = POLLIN}};
    while (poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
    return fds[1].revents == 0;
}

/* 0 or an errno; ECANCELED when the output was dropped. */
static int write_all(const struct weft_output *o, const char *data, size_t n)
{
    while (n > 0) {
        if (!wait_writable(o))
            return ECANCELED;
        /* Not more than what a pipe that can be written to is sure to take without blocking. */
        ssize_t w = write(o->fd, data, n < PIPE_BUF ? n : PIPE_BUF);
        /* EAGAIN: whoever shares the terminal may have made it non-blocking. */
        if (w < 0 && errno != EINTR && errno != EAGAIN)
            return errno;
        if (w > 0) {
            data += w;
            n -= (size_t)w;
        }
    }
    return 0;
}

static void *writer(void *arg)
{
    struct weft_output *o = arg;
    struct weft_str batch = {0};
    pthread_mutex_lock(&o->mutex);
    for (;;) {
        while (o->queue.size == 0 && !o->ending)
            pthread_cond_wait(&o->news, &o->mutex);
        if (o->queue.size == 0 || o->errnum != 0)
            break;
        struct weft_str swap = batch;
        batch = o->queue;
        o->queue = swap;
        weft_str_clear(&o->queue);
        o->writing = true;
        pthread_cond_signal(&o->room);
        pthread_mutex_unlock(&o->mutex);
        int errnum = write_all(o, batch.data, batch.size);
        pthread_mutex_lock(&o->mutex);
        o->writing = false;
        pthread_cond_signal(&o->settled);
        if (errnum == ECANCELED)
            break;
        if (errnum != 0 && o->errnum == 0) {
            o->errnum = errnum;
            pthread_cond_signal(&o->room);
            o->failed(o->arg);
        }
    }
    pthread_mutex_unlock(&o->mutex);
    weft_str_done(&batch);
    return NULL;
}

int weft_output_open(int fd, void (*failed)(void *arg), void *arg, struct weft_output **ret,
                     weft_err *err)
{
    struct weft_output *o = calloc(1, sizeof *o);
    if (o == NULL)
        return weft_fail(err, WEFT_ENOMEM, "output");
    o->fd = fd;
    o->failed = failed;
    o->arg = arg;
    o->wake = eventfd(0, EFD_CLOEXEC);
    if (o->wake < 0) {
        free(o);
        return weft_fail_errno(err, errno, "output: eventfd");
    }
    pthread_mutex_init(&o->mutex, NULL);
    pthread_cond_init(&o->news, NULL);
    pthread_cond_init(&o->room, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&o->settled, &attr);
    pthread_condattr_destroy(&attr);
    int errnum = pthread_create(&o->thread, NULL, writer, o);
    if (errnum != 0) {
        pthread_cond_destroy(&o->news);
        pthread_cond_destroy(&o->room);
        pthread_cond_destroy(&o->settled);
        pthread_mutex_destroy(&o->mutex);
        close(o->wake);
        free(o);
        return weft_fail_errno(err, errnum, "output: cannot start a thread");
    }
    *ret = o;
    return 0;
}

/* With the mutex held. */
static void enqueue(struct weft_output *o, const char *data, size_t n)
{
    weft_str_add(&o->queue, data, n);
    if (o->queue.failed) {
        o->errnum = ENOMEM;
        o->failed(o->arg);
    }
    pthread_cond_signal(&o->news);
}

void weft_output_write(struct weft_output *o, const char *data, size_t n)
{
    pthread_mutex_lock(&o->mutex);
    if (o->errnum == 0 && n > WEFT_OUTPUT_MAX - o->queue.size) {
        o->errnum = ENOBUFS;
        o->failed(o->arg);
    }
    if (o->errnum == 0)
        enqueue(o, data, n);
    pthread_mutex_unlock(&o->mutex);
}

void weft_output_write_all(struct weft_output *o, const char *data, size_t n)
{
    pthread_mutex_lock(&o->mutex);
    while (n > 0 && o->errnum == 0) {
        if (o->queue.size > 0) {
            pthread_cond_wait(&o->room, &o->mutex);
            continue;
        }
        const size_t part = n < PART_MAX ? n : PART_MAX;
        enqueue(o, data, part);
        data += part;
        n -= part;
    }
    pthread_mutex_unlock(&o->mutex);
}

void weft_output_puts(struct weft_output *o, const char *text)
{
    weft_output_write(o, text, strlen(text));
}

void weft_output_settle(struct weft_output *o)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += SETTLE_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&o->mutex);
    while ((o->queue.size > 0 || o->writing) && o->errnum == 0 &&
           pthread_cond_timedwait(&o->settled, &o->mutex, &until) == 0)
        ;
    pthread_mutex_unlock(&o->mutex);
}

int weft_output_error(struct weft_output *o, bool *ret_closed, weft_err *err)
{
    pthread_mutex_lock(&o->mutex);
    int errnum = o->errnum;
    pthread_mutex_unlock(&o->mutex);
    *ret_closed = errnum == EPIPE;
    if (errnum == 0)
        return 0;
    return weft_fail_errno(err, errnum, "cannot write the output");
}

int weft_output_close(struct weft_output *o, bool drop, bool *ret_closed, weft_err *err)
{
    pthread_mutex_lock(&o->mutex);
    o->ending = true;
    drop |= o->errnum != 0; /* nothing more is written after a failure */
    pthread_cond_signal(&o->news);
    pthread_mutex_unlock(&o->mutex);
    if (drop) {
        const uint64_t one = 1;
        (void)!write(o->wake, &one, sizeof one); /* an eventfd at 0 always takes it */
    }
    pthread_join(o->thread, NULL);
    int r = weft_output_error(o, ret_closed, err);
    weft_str_done(&o->queue);
    pthread_cond_destroy(&o->news);
    pthread_cond_destroy(&o->room);
    pthread_cond_destroy(&o->settled);
    pthread_mutex_destroy(&o->mutex);
    close(o->wake);
    free(o);
    return r;
}
