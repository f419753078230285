/*
 * The worker threads of kernel calls. The items of a run are cut into a share for each thread, by
 * the speeds the threads have shown (kernels/shares.h); a thread takes its own share from the
 * front, one item at a time, so that it reads one run of memory (threads that take turns in one run
 * lose much of the bandwidth), and then helps the others from the back. The caller returns when
 * every item is done, not when every worker knows.
 *
 * A share is one atomic word: number of the run, end, next item. Taking an item is one
 * compare-and-swap that moves an edge, so:
 *
 *   - no item is taken twice, and none is lost: only the caller writes other words, and only when
 *     all items of the run before are done;
 *   - nobody waits for a worker: one that sleeps, or is stuck in an item, keeps nothing but the
 *     item it has. The caller alone would empty every share;
 *   - who takes an item holds its run open until it counts it as done. So the fn and arg that it
 *     read just before are the run's own: as new as the word it took from (acquire), and not newer,
 *     since the caller sets the next ones only after that count. Whoever read a mixture has a word
 *     that is no longer there, and its exchange fails: the number of a run comes again only after
 *     2^32 of them.
 *
 * Two words are both a number and a message, so that neither side needs a fence between writing one
 * thing and looking at another: `run` counts the sleepers, `done` says whether the caller sleeps.
 * Who adds to one sees in the old value whom it has to wake.
 *
 * One caller at a time; fn runs on the caller and the workers. Who waits spins for 20 µs, then
 * sleeps.
 */
#include "kernels/shares.h"
#include "kernels/table.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SPIN_NS UINT64_C(20000) /* longer than the gaps between the kernels of a layer */
#define SPINS_PER_LOOK 32u      /* at the clock; a pause takes 1 to 50 ns */
#define CALLER_SLEEPS (UINT32_C(1) << 31)
#define RUN_ONE (UINT64_C(1) << 32)
/* For each thread, in a run from which speeds are learnt: one item more or less is 6 %. */
#define LEARN_ITEMS 16u
#define LINE 64u /* bytes that travel between cores together */

struct thread {
    alignas(LINE) _Atomic uint64_t share; /* run << 32 | end << 16 | next */
    /* What it did in this run, if that is timed. The thread's own while it holds the run open, then
     * the caller's, who leaves zeros. */
    uint32_t items;
    uint64_t busy_ns;
    struct wk_pool *pool;
    pthread_t id;
};

struct wk_pool {
    unsigned n_threads, n_started; /* workers are threads 1 to n_started */
    struct wk_shares shares;       /* the caller's */
    pthread_mutex_t mutex;
    pthread_cond_t work, finished;

    /* What the caller writes and all read. */
    alignas(LINE) _Atomic uint64_t run; /* number << 32 | sleeping workers */
    _Atomic(void (*)(void *, size_t)) fn;
    _Atomic(void *) arg;
    _Atomic size_t base; /* the item that the shares call 0 */
    atomic_bool timed;
    atomic_bool stop;

    alignas(LINE) _Atomic uint32_t done; /* items, | CALLER_SLEEPS */

    struct thread threads[WK_THREADS_MAX]; /* 0 is the caller */
};

static uint64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ------------------------------------------------------------------ items */

struct taken {
    void (*fn)(void *arg, size_t item);
    void *arg;
    size_t item;
    bool timed;
};

/* Takes the first item of a share, or the last; false when none is left. */
static bool take(struct wk_pool *pool, unsigned t, bool first, struct taken *ret)
{
    _Atomic uint64_t *share = &pool->threads[t].share;
    uint64_t old = atomic_load_explicit(share, memory_order_acquire), new;
    do {
        const uint32_t next = old & 0xffff, end = old >> 16 & 0xffff;
        if (next == end)
            return false;
        ret->fn = atomic_load_explicit(&pool->fn, memory_order_relaxed);
        ret->arg = atomic_load_explicit(&pool->arg, memory_order_relaxed);
        ret->item = atomic_load_explicit(&pool->base, memory_order_relaxed);
        ret->item += first ? next : end - 1;
        ret->timed = atomic_load_explicit(&pool->timed, memory_order_relaxed);
        new = first ? old + 1 : old - (1 << 16);
    } while (!atomic_compare_exchange_weak_explicit(share, &old, new, memory_order_acquire,
                                                    memory_order_acquire));
    return true;
}

/* Works until no share has an item left. What this thread takes on the way is of one run: the first
 * item holds it open until the count below. */
static void work(struct wk_pool *pool, unsigned self)
{
    uint32_t items = 0;
    uint64_t start_ns = 0;
    struct taken taken = {0};
    for (unsigned i = 0, t = self; i < pool->n_threads;
         i++, t = t + 1 < pool->n_threads ? t + 1 : 0) {
        while (take(pool, t, t == self, &taken)) {
            if (items++ == 0 && taken.timed)
                start_ns = clock_ns();
            taken.fn(taken.arg, taken.item);
        }
    }
    if (items == 0)
        return;
    if (taken.timed) {
        pool->threads[self].items += items;
        pool->threads[self].busy_ns += clock_ns() - start_ns;
    }
    /* Release: the caller sees what the items wrote, and nothing before this moves behind it. */
    if (atomic_fetch_add_explicit(&pool->done, items, memory_order_acq_rel) & CALLER_SLEEPS) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_signal(&pool->finished);
        pthread_mutex_unlock(&pool->mutex);
    }
}

/* ------------------------------------------------------------------ waiting */

static bool is_new(const struct wk_pool *pool, uint32_t run)
{
    return atomic_load_explicit(&pool->run, memory_order_acquire) >> 32 != run;
}

static bool is_done(const struct wk_pool *pool, uint32_t items)
{
    return (atomic_load_explicit(&pool->done, memory_order_acquire) & ~CALLER_SLEEPS) == items;
}

/* Spins until ready(pool, what), or for SPIN_NS: false then. */
static inline bool spin(const struct wk_pool *pool, bool (*ready)(const struct wk_pool *, uint32_t),
                        uint32_t what)
{
    uint64_t end_ns = 0;
    for (;;) {
        for (unsigned i = 0; i < SPINS_PER_LOOK; i++) {
            if (ready(pool, what))
                return true;
            wk_cpu_relax();
        }
        const uint64_t now_ns = clock_ns();
        if (end_ns == 0)
            end_ns = now_ns + SPIN_NS;
        else if (now_ns >= end_ns)
            return false;
    }
}

/* Until there is a run after `seen`; its number. A sleeper is counted in the word that the caller
 * raises: either the caller's addition comes first, and the sleeper sees the run, or the caller
 * sees the sleeper, and has the mutex only when it waits. */
static uint32_t await_run(struct wk_pool *pool, uint32_t seen)
{
    if (!spin(pool, is_new, seen)) {
        pthread_mutex_lock(&pool->mutex);
        atomic_fetch_add_explicit(&pool->run, 1, memory_order_acq_rel);
        while (!is_new(pool, seen))
            pthread_cond_wait(&pool->work, &pool->mutex);
        atomic_fetch_sub_explicit(&pool->run, 1, memory_order_acq_rel);
        pthread_mutex_unlock(&pool->mutex);
    }
    return (uint32_t)(atomic_load_explicit(&pool->run, memory_order_acquire) >> 32);
}

/* The same with the caller as the one that sleeps. */
static void await_done(struct wk_pool *pool, uint32_t items)
{
    if (spin(pool, is_done, items))
        return;
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_or_explicit(&pool->done, CALLER_SLEEPS, memory_order_acq_rel);
    while (!is_done(pool, items))
        pthread_cond_wait(&pool->finished, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

/* Begins the next run and wakes who sleeps. */
static void raise_run(struct wk_pool *pool)
{
    uint64_t old = atomic_fetch_add_explicit(&pool->run, RUN_ONE, memory_order_acq_rel);
    if ((uint32_t)old > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static void *worker(void *arg)
{
    struct thread *self = arg;
    struct wk_pool *pool = self->pool;
    for (uint32_t run = 0;;) {
        run = await_run(pool, run);
        if (atomic_load_explicit(&pool->stop, memory_order_relaxed)) /* set before the run */
            return NULL;
        work(pool, (unsigned)(self - pool->threads));
    }
}

/* ------------------------------------------------------------------ runs */

static void learn(struct wk_pool *pool)
{
    uint32_t items[WK_THREADS_MAX];
    uint64_t busy_ns[WK_THREADS_MAX];
    for (unsigned t = 0; t < pool->n_threads; t++) {
        items[t] = pool->threads[t].items;
        busy_ns[t] = pool->threads[t].busy_ns;
        pool->threads[t].items = 0;
        pool->threads[t].busy_ns = 0;
    }
    wk_shares_learn(&pool->shares, items, busy_ns);
}

/* Items [base, base + n): as many as a share's word can count. */
static void run_part(struct wk_pool *pool, void (*fn)(void *arg, size_t item), void *arg,
                     size_t base, uint32_t n)
{
    const bool timed = n >= LEARN_ITEMS * pool->n_threads;
    const uint64_t run = (atomic_load_explicit(&pool->run, memory_order_relaxed) >> 32) + 1;
    atomic_store_explicit(&pool->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&pool->arg, arg, memory_order_relaxed);
    atomic_store_explicit(&pool->base, base, memory_order_relaxed);
    atomic_store_explicit(&pool->timed, timed, memory_order_relaxed);
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    uint32_t end = 0;
    for (unsigned t = 0; t < pool->n_threads; t++) {
        const uint32_t begin = end;
        end = wk_shares_begin(&pool->shares, t + 1, n);
        if (begin < end) /* an empty one may stay as the last run left it */
            atomic_store_explicit(&pool->threads[t].share, run << 32 | (uint64_t)end << 16 | begin,
                                  memory_order_release);
    }
    raise_run(pool);
    work(pool, 0);
    await_done(pool, n);
    if (timed)
        learn(pool);
}

void wk_pool_run(struct wk_pool *pool, void (*fn)(void *arg, size_t item), void *arg,
                 size_t n_items)
{
    if (pool == NULL || pool->n_started == 0 || n_items <= 1) {
        for (size_t i = 0; i < n_items; i++)
            fn(arg, i);
        return;
    }
    for (size_t base = 0, n; base < n_items; base += n) {
        n = n_items - base < WK_SHARES_ITEMS_MAX ? n_items - base : WK_SHARES_ITEMS_MAX;
        run_part(pool, fn, arg, base, (uint32_t)n);
    }
}

/* ------------------------------------------------------------------ life */

/* Thread t, which begins on its CPU, if it is to have one. */
static bool start(struct wk_pool *pool, unsigned t, const int *cpus)
{
    struct thread *thread = &pool->threads[t];
    pthread_attr_t attr;
    cpu_set_t set;
    bool ok = true;
    pthread_attr_init(&attr); /* cannot fail on Linux */
    thread->pool = pool;
    if (cpus != NULL) {
        CPU_ZERO(&set);
        ok = cpus[t] >= 0 && cpus[t] < CPU_SETSIZE;
        if (ok)
            CPU_SET(cpus[t], &set);
        ok = ok && pthread_attr_setaffinity_np(&attr, sizeof set, &set) == 0;
    }
    ok = ok && pthread_create(&thread->id, &attr, worker, thread) == 0;
    pthread_attr_destroy(&attr);
    return ok;
}

struct wk_pool *wk_pool_open_pinned(const int *cpus, unsigned n)
{
    n = n < 1 ? 1 : n > WK_THREADS_MAX ? WK_THREADS_MAX : n;
    struct wk_pool *pool = aligned_alloc(alignof(struct wk_pool), sizeof *pool);
    if (pool == NULL)
        return NULL;
    memset(pool, 0, sizeof *pool);
    pool->n_threads = n;
    wk_shares_init(&pool->shares, n);
    pthread_mutex_init(&pool->mutex, NULL); /* with default attributes these cannot fail on Linux */
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->finished, NULL);
    sigset_t all, before; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->n_started < n - 1 && start(pool, pool->n_started + 1, cpus))
        pool->n_started++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pool->n_started == n - 1)
        return pool;
    wk_pool_close(pool);
    return NULL;
}

struct wk_pool *wk_pool_open(unsigned n)
{
    return wk_pool_open_pinned(NULL, n);
}

void wk_pool_close(struct wk_pool *pool)
{
    if (pool == NULL)
        return;
    atomic_store_explicit(&pool->stop, true, memory_order_relaxed);
    raise_run(pool);
    for (unsigned t = 1; t <= pool->n_started; t++)
        pthread_join(pool->threads[t].id, NULL);
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

unsigned wk_pool_threads(const struct wk_pool *pool)
{
    return pool == NULL ? 1 : pool->n_threads;
}
