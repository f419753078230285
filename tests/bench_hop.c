/*
 * Benchmark: what a hop between stages costs, from the last instruction of one stage's step to the
 * first of the next stage's, against a bare exchange of as many bytes over the same kind of nng
 * stream.
 *
 *     bench_hop [rounds]
 *
 * Two processes play two daemons: each has half of the cores, as two machines would, a loop with
 * weft's io and a peer. The hop: run() ends → done() → Step frame of 4 KiB → nng's poller, nng's
 * task thread and the loop of the other side → run() begins. The bare exchange is nng_stream_send
 * and nng_stream_recv with nng_aio_wait on both sides: two wake-ups of a thread. Half of a round
 * trip, less the kernel on the far side, is a way. Both are measured in turns of 200 round trips,
 * so that whatever else the machine does falls on both. Two kinds of step: brief ones, which run on
 * the loop thread, and others, which the compute thread runs (two more wake-ups; they last longer
 * than WEFT_BRIEF_NS, so that these weigh less). Each is measured with steps that compute for
 * KERNEL_NS, while the other side's threads go to sleep, and with none. The last line is one
 * wake-up of a thread by another of the same process, for comparison.
 */
#include <nng/nng.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "proto/io_uv.h"
#include "proto/peer.h"

#define PAYLOAD 4096
#define TURN 200
#define KERNEL_NS 200000u /* below WEFT_BRIEF_NS */
#define WAKE_TRIPS 2000
#define ROUNDS_MAX 200000

static uint64_t kernel_ns;
static bool brief;

static void die(const char *what)
{
    fprintf(stderr, "bench_hop: %s\n", what);
    exit(1);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Computes, as a stage would. */
static void kernel(void)
{
    const uint64_t begin = uv_hrtime();
    while (uv_hrtime() - begin < kernel_ns)
        ;
}

/* One way of a round trip with a kernel on the far side. */
static double one_way_us(uint64_t begin, uint64_t end)
{
    return ((double)(end - begin) - (double)kernel_ns) / 2e3;
}

static double median_us(double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return v[n / 2];
}

/* ------------------------------------------------------------------ bare exchange */

struct bare {
    nng_stream *stream;
    nng_aio *send, *recv;
    uint8_t out[PAYLOAD], in[PAYLOAD];
};

static void bare_wait(nng_aio *aio)
{
    nng_aio_wait(aio);
    if (nng_aio_result(aio) != 0)
        die(nng_strerror(nng_aio_result(aio)));
}

static void bare_open(struct bare *b, nng_stream *stream)
{
    b->stream = stream;
    if (nng_aio_alloc(&b->send, NULL, NULL) != 0 || nng_aio_alloc(&b->recv, NULL, NULL) != 0)
        die("nng_aio_alloc");
}

static void bare_send(struct bare *b)
{
    size_t done = 0;
    while (done < PAYLOAD) {
        nng_iov iov = {b->out + done, PAYLOAD - done};
        nng_aio_set_iov(b->send, 1, &iov);
        nng_stream_send(b->stream, b->send);
        bare_wait(b->send);
        done += nng_aio_count(b->send);
    }
}

static void bare_recv(struct bare *b)
{
    size_t done = 0;
    while (done < PAYLOAD) {
        nng_iov iov = {b->in + done, PAYLOAD - done};
        nng_aio_set_iov(b->recv, 1, &iov);
        nng_stream_recv(b->stream, b->recv);
        bare_wait(b->recv);
        done += nng_aio_count(b->recv);
    }
}

static nng_stream_listener *bare_listen(uint16_t *ret_port)
{
    nng_stream_listener *l;
    int port = 0;
    if (nng_stream_listener_alloc(&l, "tcp://127.0.0.1:0") != 0 ||
        nng_stream_listener_listen(l) != 0 ||
        nng_stream_listener_get_int(l, NNG_OPT_TCP_BOUND_PORT, &port) != 0)
        die("listen");
    *ret_port = (uint16_t)port;
    return l;
}

static void bare_accept(struct bare *b, nng_stream_listener *l)
{
    nng_aio *aio;
    if (nng_aio_alloc(&aio, NULL, NULL) != 0)
        die("nng_aio_alloc");
    nng_stream_listener_accept(l, aio);
    bare_wait(aio);
    bare_open(b, nng_aio_get_output(aio, 0));
    nng_aio_free(aio);
}

static void bare_dial(struct bare *b, uint16_t port)
{
    char url[64];
    nng_stream_dialer *d;
    nng_aio *aio;
    snprintf(url, sizeof url, "tcp://127.0.0.1:%u", port);
    if (nng_stream_dialer_alloc(&d, url) != 0 || nng_aio_alloc(&aio, NULL, NULL) != 0)
        die("dial");
    nng_stream_dialer_dial(d, aio);
    bare_wait(aio);
    bare_open(b, nng_aio_get_output(aio, 0));
    nng_aio_free(aio);
    nng_stream_dialer_free(d);
}

/* ------------------------------------------------------------------ the hop */

static struct stage {
    uv_loop_t loop;
    struct weft_io_uv *u;
    struct weft_io *io;
    struct weft_peer peer;
    struct weft_work work, bare_work;
    struct weft_frame *in; /* of the step in hand */
    struct bare bare;
    bool leads;
    bool over;         /* leader: all rounds have been run */
    uint64_t began_ns; /* leader: first instruction of its last run() */
    double *hops_us, *bare_us;
    size_t n, n_bare, rounds;
} s;

static void step_send(void)
{
    static const float x[PAYLOAD / sizeof(float)];
    Weft__Epoch epoch = WEFT__EPOCH__INIT;
    Weft__Segment segment = WEFT__SEGMENT__INIT, *segments[1] = {&segment};
    Weft__Step step = WEFT__STEP__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    epoch.coordinator = 0x0123456789abcdef;
    epoch.counter = 3;
    segment.session = 1;
    segment.turn = 1;
    segment.position = 100 + (uint32_t)s.n;
    segment.rows = 1;
    segment.sample = true;
    step.epoch = &epoch;
    step.stage = 1;
    step.number = s.n;
    step.n_segments = 1;
    step.segments = segments;
    step.total_rows = 1;
    env.body_case = WEFT__ENVELOPE__BODY_STEP;
    env.step = &step;
    if (weft_peer_send(&s.peer, &env, x, sizeof x) != 0)
        die("send");
}

static void bare_turn(void)
{
    for (int i = 0; i < TURN; i++) {
        if (!s.leads) {
            bare_recv(&s.bare);
            kernel();
            bare_send(&s.bare);
            continue;
        }
        kernel();
        const uint64_t begin = uv_hrtime();
        bare_send(&s.bare);
        bare_recv(&s.bare);
        s.bare_us[s.n_bare++] = one_way_us(begin, uv_hrtime());
    }
}

/* The step: its first instruction takes the time, its last one as well. */
static void run(struct weft_work *w)
{
    (void)w;
    const uint64_t now = uv_hrtime();
    if (s.leads && s.began_ns != 0)
        s.hops_us[s.n - 1] = one_way_us(s.began_ns, now);
    if (s.leads && s.n % TURN == 0 && s.n != 0)
        bare_turn();
    s.over = s.leads && s.n == s.rounds;
    kernel();
    s.began_ns = uv_hrtime();
}

static void done(struct weft_work *w)
{
    (void)w;
    weft_frame_free(s.in);
    s.in = NULL;
    if (s.over) {
        weft_peer_close(&s.peer, true);
        weft_io_uv_close(s.u);
        return;
    }
    step_send();
    if (s.leads)
        s.n++;
    else if (s.n % TURN == 0) /* the leader turns to bare exchanges when it has this frame */
        s.io->work(s.io, &s.bare_work);
}

static void bare_run(struct weft_work *w)
{
    (void)w;
    bare_turn();
}

static void bare_done(struct weft_work *w)
{
    (void)w;
}

static void on_frame(struct weft_peer *p, struct weft_frame *f)
{
    (void)p;
    if (f->payload_size != PAYLOAD)
        die("wrong payload");
    s.in = f;
    if (!s.leads)
        s.n++;
    s.io->work(s.io, &s.work);
}

static void on_up(struct weft_peer *p)
{
    (void)p;
    if (s.leads)
        s.io->work(s.io, &s.work);
}

static void on_down(struct weft_peer *p, const weft_err *why)
{
    (void)p;
    if (s.leads)
        die(why->text);
    weft_io_uv_close(s.u);
}

static const struct weft_peer_events peer_events = {
    .up = on_up, .frame = on_frame, .down = on_down};

static void on_accept(void *arg, struct weft_conn *c)
{
    (void)arg;
    const struct weft_peer_options o = {.events = &peer_events,
                                        .hello = {.name = (char *)"follower"}};
    weft_peer_accept(&s.peer, s.io, c, &o);
}

static void stage_open(bool leads)
{
    weft_err err = {0};
    s.leads = leads;
    s.work = (struct weft_work){.run = run, .done = done, .brief = brief};
    s.bare_work = (struct weft_work){.run = bare_run, .done = bare_done};
    if (uv_loop_init(&s.loop) != 0 || weft_io_uv_open(&s.loop, &s.u, &err) < 0)
        die(err.text);
    s.io = weft_io_uv_io(s.u);
}

/* Two daemons have cores of their own: the first or the second half of those there are. */
static void take_half(bool second)
{
    cpu_set_t all, half;
    CPU_ZERO(&half);
    if (sched_getaffinity(0, sizeof all, &all) != 0)
        die("sched_getaffinity");
    const int n = CPU_COUNT(&all);
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all))
            continue;
        if (n < 2 || (seen >= n / 2) == second)
            CPU_SET(cpu, &half);
        seen++;
    }
    if (sched_setaffinity(0, sizeof half, &half) != 0)
        die("sched_setaffinity");
}

static void follow(int to_parent)
{
    take_half(true);
    uint16_t ports[2];
    weft_err err = {0};
    stage_open(false);
    if (weft_io_uv_listen(s.u, "127.0.0.1:0", on_accept, NULL, &ports[0], &err) < 0)
        die(err.text);
    nng_stream_listener *l = bare_listen(&ports[1]);
    if (write(to_parent, ports, sizeof ports) != sizeof ports)
        die("pipe");
    bare_accept(&s.bare, l);
    uv_run(&s.loop, UV_RUN_DEFAULT);
}

static pthread_mutex_t wake_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake_cond[2] = {PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER};
static int wake_turn;

static void *wake_side(void *arg)
{
    const int me = arg != NULL;
    for (int i = 0; i < WAKE_TRIPS; i++) {
        pthread_mutex_lock(&wake_mutex);
        while (wake_turn != me)
            pthread_cond_wait(&wake_cond[me], &wake_mutex);
        wake_turn = !me;
        pthread_mutex_unlock(&wake_mutex);
        pthread_cond_signal(&wake_cond[!me]);
    }
    return NULL;
}

/* Mean time of a wake-up through a condition variable. */
static double wake_us(void)
{
    pthread_t other;
    const uint64_t begin = uv_hrtime();
    if (pthread_create(&other, NULL, wake_side, &wake_turn) != 0)
        die("pthread_create");
    wake_side(NULL);
    pthread_join(other, NULL);
    return (double)(uv_hrtime() - begin) / (2e3 * WAKE_TRIPS);
}

static void lead(int from_child, size_t rounds)
{
    uint16_t ports[2];
    char address[64];
    if (read(from_child, ports, sizeof ports) != sizeof ports)
        die("pipe");
    stage_open(true);
    s.rounds = rounds;
    s.hops_us = calloc(rounds + 1, sizeof *s.hops_us);
    s.bare_us = calloc(rounds + 1, sizeof *s.bare_us);
    if (s.hops_us == NULL || s.bare_us == NULL)
        die("out of memory");
    bare_dial(&s.bare, ports[1]);
    snprintf(address, sizeof address, "127.0.0.1:%u", ports[0]);
    const struct weft_peer_options o = {
        .events = &peer_events,
        .address = address,
        .hello = {.name = (char *)"leader", .lane = WEFT__LANE__LANE_STEPS}};
    weft_peer_dial(&s.peer, s.io, &o);
    uv_run(&s.loop, UV_RUN_DEFAULT);
    /* the first turn warms up; the hop before each bare turn is like any other */
    const size_t skip = rounds > 2 * TURN ? TURN : 0;
    const double hop = median_us(s.hops_us + skip, rounds - skip);
    const double bare = median_us(s.bare_us, s.n_bare);
    printf("%-8s %4llu us %8.1f us %8.1f us %8.2f\n", brief ? "brief" : "thread",
           (unsigned long long)kernel_ns / 1000, hop, bare, hop / bare);
}

/* One pair of processes; false when one of them failed. */
static bool measure(size_t rounds)
{
    int fds[2], status;
    fflush(stdout);
    const pid_t leader = fork(); /* before nng is used: it does not survive a fork */
    if (leader < 0)
        die("fork");
    if (leader != 0)
        return waitpid(leader, &status, 0) == leader && status == 0;
    if (pipe(fds) != 0)
        die("pipe");
    const pid_t child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        follow(fds[1]);
        exit(0);
    }
    take_half(false);
    lead(fds[0], rounds);
    if (waitpid(child, &status, 0) != child || status != 0)
        exit(1);
    exit(0);
}

int main(int argc, char **argv)
{
    const long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 4000;
    if (rounds < TURN || rounds > ROUNDS_MAX || rounds % TURN != 0) {
        fprintf(stderr, "usage: bench_hop [rounds, a multiple of %d]\n", TURN);
        return 2;
    }
    printf("4 KiB, one way, median of %ld\n%-8s %7s %11s %11s %8s\n", rounds, "step", "kernel",
           "hop", "bare", "ratio");
    for (int i = 0; i < 4; i++) {
        brief = i < 2;
        kernel_ns = i % 2 == 0 ? KERNEL_NS : 0;
        if (!measure((size_t)rounds))
            die("a side failed");
    }
    printf("a wake-up of a thread: %.1f us\n", wake_us());
    return 0;
}
