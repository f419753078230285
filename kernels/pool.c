/*
 * The worker threads of kernel calls. A run is a ticket (number of the run, next item) in one
 * atomic word: taking an item is one compare-and-swap that fails once the run is over, so nobody
 * waits for a worker that slept through it. The caller returns when every item is done, not when
 * every worker knows. All atomics are sequentially consistent: a run costs microseconds, an order
 * too weak a crash.
 *
 * One caller at a time; fn runs on the caller and the workers. Idle workers spin a few µs, then
 * sleep.
 */
#include "kernels/table.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    THREADS_MAX = 64,
    SPINS = 500, /* 10 to 20 µs: longer than the gaps between the kernels of a layer */
};

struct wk_pool {
    unsigned n_threads, n_started;
    pthread_t threads[THREADS_MAX];

    /* What is to be done. Read before the ticket is drawn, valid only if drawing succeeds. */
    _Atomic(void (*)(void *, size_t)) fn;
    _Atomic(void *) arg;
    atomic_uint_fast32_t n_items;
    atomic_uint_fast64_t ticket; /* run << 32 | next item */
    atomic_uint_fast32_t n_done;

    pthread_mutex_t mutex;
    pthread_cond_t work, done;
    atomic_uint n_sleeping; /* workers in or near the wait for work */
    atomic_bool waiting;    /* the caller is in or near the wait for done */
    atomic_bool stop;
};

/* Works until the ticket's run has no item left; returns that run's number. */
static uint32_t work(struct wk_pool *pool)
{
    uint_fast64_t ticket = atomic_load(&pool->ticket);
    for (;;) {
        void (*fn)(void *, size_t) = atomic_load(&pool->fn);
        void *arg = atomic_load(&pool->arg);
        uint32_t item = (uint32_t)ticket;
        if (item >= atomic_load(&pool->n_items))
            return (uint32_t)(ticket >> 32);
        if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1))
            continue;
        fn(arg, item);
        atomic_fetch_add(&pool->n_done, 1);
        if (atomic_load(&pool->waiting)) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->mutex);
        }
        ticket = atomic_load(&pool->ticket);
    }
}

static bool is_new(struct wk_pool *pool, uint32_t run)
{
    return (uint32_t)(atomic_load(&pool->ticket) >> 32) != run || atomic_load(&pool->stop);
}

static void *worker(void *arg)
{
    struct wk_pool *pool = arg;
    for (;;) {
        uint32_t run = work(pool);
        for (unsigned i = 0; i < SPINS && !is_new(pool, run); i++)
            wk_cpu_relax();
        if (!is_new(pool, run)) {
            pthread_mutex_lock(&pool->mutex);
            atomic_fetch_add(&pool->n_sleeping, 1);
            while (!is_new(pool, run))
                pthread_cond_wait(&pool->work, &pool->mutex);
            atomic_fetch_sub(&pool->n_sleeping, 1);
            pthread_mutex_unlock(&pool->mutex);
        }
        if (atomic_load(&pool->stop))
            return NULL;
    }
}

void wk_pool_run(struct wk_pool *pool, void (*fn)(void *arg, size_t item), void *arg,
                 size_t n_items)
{
    if (pool == NULL || pool->n_started == 0 || n_items <= 1) {
        for (size_t i = 0; i < n_items; i++)
            fn(arg, i);
        return;
    }
    assert(n_items < UINT32_MAX);
    /* First a ticket without items under a number of its own: a worker that still holds the old one
     * can draw nothing with it, however it mixes the old fields with the new. */
    uint_fast64_t run = atomic_load(&pool->ticket) >> 32;
    atomic_store(&pool->ticket, (run + 1) << 32 | UINT32_MAX);
    atomic_store(&pool->fn, fn);
    atomic_store(&pool->arg, arg);
    atomic_store(&pool->n_done, 0);
    atomic_store(&pool->n_items, (uint_fast32_t)n_items);
    atomic_store(&pool->ticket, (run + 2) << 32);
    if (atomic_load(&pool->n_sleeping) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->mutex);
    }
    (void)work(pool);
    for (unsigned i = 0; i < SPINS && atomic_load(&pool->n_done) < n_items; i++)
        wk_cpu_relax();
    if (atomic_load(&pool->n_done) < n_items) {
        pthread_mutex_lock(&pool->mutex);
        atomic_store(&pool->waiting, true);
        while (atomic_load(&pool->n_done) < n_items)
            pthread_cond_wait(&pool->done, &pool->mutex);
        atomic_store(&pool->waiting, false);
        pthread_mutex_unlock(&pool->mutex);
    }
}

struct wk_pool *wk_pool_open(unsigned n)
{
    n = n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : n;
    struct wk_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL)
        return NULL;
    pool->n_threads = n;
    pool->ticket = UINT32_MAX;
    pthread_mutex_init(&pool->mutex, NULL); /* with default attributes these cannot fail on Linux */
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    sigset_t all, before; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->n_started < n - 1 &&
           pthread_create(&pool->threads[pool->n_started], NULL, worker, pool) == 0)
        pool->n_started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pool->n_started == n - 1)
        return pool;
    wk_pool_close(pool);
    return NULL;
}

void wk_pool_close(struct wk_pool *pool)
{
    if (pool == NULL)
        return;
    atomic_store(&pool->stop, true);
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned i = 0; i < pool->n_started; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

unsigned wk_pool_threads(const struct wk_pool *pool)
{
    return pool == NULL ? 1 : pool->n_threads;
}
