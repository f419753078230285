/*
 * Connections over the real io: nng on loopback, libuv, the compute thread. Sizes, order,
 * back-pressure, strangers on either side, and every way to end.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "proto/io_uv.h"
#include "tests/harness.h"

#define PATIENCE_MS 30000 /* a test that waits so long has failed */

/* ------------------------------------------------------------------ a loop with a server on it */

struct side {
    struct weft_conn *c;
    int opened, closed, writable, frames;
    weft_err why;
    bool echo; /* frames go back as they are */
    bool close_on_frame;
    uint64_t expected; /* Step.number of the next frame */
    uint64_t bytes;
};

static uv_loop_t loop;
static struct weft_io_uv *io_uv;
static struct weft_io *io;
static char address[128];
static uint16_t port;
static struct side client, server;
static int accepted;
static uv_timer_t patience;

/* Number n has a size and bytes of its own. */
static uint32_t size_of(uint64_t n)
{
    static const uint32_t sizes[] = {0, 1, 15, 4096, 4097, 16384, 65536, 100000, WEFT_PAYLOAD_MAX};
    return n < 9 ? sizes[n] : (uint32_t)(n * 2654435761u % (n % 8 == 0 ? WEFT_PAYLOAD_MAX : 9000));
}

static const uint8_t *bytes_of(uint64_t n)
{
    static uint8_t bytes[WEFT_PAYLOAD_MAX + 256];
    if (bytes[1] == 0)
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)(i * 131 >> 3 ^ i);
    return bytes + n % 256;
}

static int send_number(struct side *s, uint64_t n)
{
    Weft__Segment segment = WEFT__SEGMENT__INIT, *segments[1] = {&segment};
    Weft__Step step = WEFT__STEP__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    step.number = n;
    step.n_segments = 1;
    step.segments = segments;
    env.body_case = WEFT__ENVELOPE__BODY_STEP;
    env.step = &step;
    return io->send(io, s->c, &env, bytes_of(n), size_of(n));
}

static void on_opened(void *arg, struct weft_conn *c)
{
    struct side *s = arg;
    ck_assert(s->c == c && s->opened == 0 && s->closed == 0);
    s->opened++;
}

static void on_frame(void *arg, struct weft_conn *c, struct weft_frame *f)
{
    struct side *s = arg;
    ck_assert(s->c == c && s->closed == 0);
    ck_assert_uint_eq(f->env->body_case, WEFT__ENVELOPE__BODY_STEP);
    const uint64_t n = f->env->step->number;
    ck_assert_uint_eq(n, s->expected);
    ck_assert_uint_eq(f->payload_size, size_of(n));
    ck_assert_int_eq(memcmp(f->payload, bytes_of(n), f->payload_size), 0);
    s->expected++;
    s->frames++;
    s->bytes += f->payload_size;
    weft_frame_free(f);
    if (s->echo)
        ck_assert_int_eq(send_number(s, n), 0);
    if (s->close_on_frame) {
        io->close(io, c, false);
        s->c = NULL;
    }
}

static void on_writable(void *arg, struct weft_conn *c)
{
    struct side *s = arg;
    ck_assert(s->c == c && s->closed == 0);
    s->writable++;
}

static void on_closed(void *arg, struct weft_conn *c, const weft_err *why)
{
    struct side *s = arg;
    ck_assert(s->c == c && s->closed == 0);
    ck_assert_int_ne(why->code, 0);
    s->closed++;
    s->why = *why;
    s->c = NULL;
}

static const struct weft_conn_events events = {
    .opened = on_opened, .frame = on_frame, .writable = on_writable, .closed = on_closed};

static void on_accept(void *arg, struct weft_conn *c)
{
    (void)arg;
    accepted++;
    if (server.c != NULL) { /* one at a time is enough for a test */
        io->close(io, c, false);
        return;
    }
    server.c = c;
    io->events(io, c, &events, &server);
}

static void out_of_patience(uv_timer_t *t)
{
    (void)t;
    ck_abort_msg("nothing happened for %d ms", PATIENCE_MS);
}

/* Runs the loop until a condition holds. */
#define UNTIL(condition)                                            \
    do {                                                            \
        uv_timer_start(&patience, out_of_patience, PATIENCE_MS, 0); \
        while (!(condition))                                        \
            uv_run(&loop, UV_RUN_ONCE);                             \
        uv_timer_stop(&patience);                                   \
    } while (0)

static void open_io(void)
{
    weft_err err = {0};
    ck_assert_int_eq(uv_loop_init(&loop), 0);
    ck_assert_int_eq(uv_timer_init(&loop, &patience), 0);
    const int r = weft_io_uv_open(&loop, &io_uv, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    io = weft_io_uv_io(io_uv);
    client = server = (struct side){0};
    accepted = 0;
}

static void listen_at(const char *where)
{
    weft_err err = {0};
    const int r = weft_io_uv_listen(io_uv, where, on_accept, NULL, &port, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    if (strncmp(where, "ipc", 3) == 0)
        snprintf(address, sizeof address, "%s", where);
    else
        snprintf(address, sizeof address, "127.0.0.1:%u", port);
}

static void close_io(void)
{
    weft_io_uv_close(io_uv);
    uv_close((uv_handle_t *)&patience, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&loop), 0);
}

static void dial(const char *where)
{
    client.c = io->dial(io, where, 5000, &events, &client);
    ck_assert_ptr_nonnull(client.c);
}

static void connect_both(void)
{
    open_io();
    listen_at("127.0.0.1:0");
    dial(address);
    UNTIL(client.opened == 1 && server.c != NULL);
}

/* ------------------------------------------------------------------ talking */

static void echo_sizes(void)
{
    server.echo = true;
    for (uint64_t n = 0; n < 60; n++) {
        ck_assert_int_eq(send_number(&client, n), 0);
        UNTIL(client.frames == (int)n + 1);
    }
    io->close(io, client.c, false);
    UNTIL(server.closed == 1);
    ck_assert_int_eq(server.why.code, WEFT_ELOST);
    ck_assert_ptr_nonnull(strstr(server.why.text, "closed by the other side"));
}

START_TEST(echo)
{
    connect_both();
    ck_assert_str_eq(io->peer_name(io, client.c), address);
    ck_assert_int_eq(strncmp(io->peer_name(io, server.c), "127.0.0.1:", 10), 0);
    echo_sizes();
    close_io();
}
END_TEST

START_TEST(echo_over_ipc)
{
    char where[100];
    snprintf(where, sizeof where, "ipc://%s/socket", weft_test_tmpdir());
    open_io();
    listen_at(where);
    ck_assert_uint_eq(port, 0);
    dial(where);
    UNTIL(client.opened == 1 && server.c != NULL);
    echo_sizes();
    close_io();
}
END_TEST

START_TEST(both_directions_at_once)
{
    connect_both();
    uint64_t sent[2] = {0};
    const uint64_t all = 600;
    struct side *sides[2] = {&client, &server};
    uv_timer_start(&patience, out_of_patience, PATIENCE_MS, 0);
    while (client.expected < all || server.expected < all) {
        for (int i = 0; i < 2; i++) {
            int r = 0;
            while (sent[i] < all && (r = send_number(sides[i], sent[i])) == 0)
                sent[i]++;
            ck_assert(r == 0 || r == -WEFT_EFULL);
        }
        uv_run(&loop, UV_RUN_ONCE);
    }
    ck_assert_uint_eq(client.bytes, server.bytes);
    close_io();
}
END_TEST

/* Sends until nothing goes any more: queue, kernel and the one read ahead are full. Returns how
 * many. */
static uint64_t send_until_stuck(void)
{
    uint64_t n = 0;
    for (int quiet = 0; quiet < 5;) {
        int r;
        const uint64_t before = n;
        while ((r = send_number(&client, n)) == 0)
            n++;
        ck_assert_int_eq(r, -WEFT_EFULL);
        quiet = n == before ? quiet + 1 : 0;
        const struct timespec pause = {.tv_nsec =
                                           20000000}; /* the kernel's time: nothing tells its end */
        nanosleep(&pause, NULL);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    return n;
}

START_TEST(back_pressure)
{
    connect_both();
    io->pause(io, server.c, true);
    uint64_t n = send_until_stuck();
    ck_assert_int_eq(server.frames, 0);
    ck_assert_uint_gt(n, WEFT_SEND_QUEUE_FRAMES);
    client.writable = 0;
    uv_timer_start(&patience, out_of_patience, PATIENCE_MS, 0);
    io->pause(io, server.c, false);
    UNTIL(client.writable == 1);
    const uint64_t more = n + 200;
    while (server.expected < more) {
        int r = 0;
        while (n < more && (r = send_number(&client, n)) == 0)
            n++;
        ck_assert(r == 0 || r == -WEFT_EFULL);
        uv_run(&loop, UV_RUN_ONCE);
    }
    close_io();
}
END_TEST

START_TEST(full_tells_writable_each_time)
{
    connect_both();
    uint64_t n = 0;
    for (int round = 1; round <= 20; round++) {
        int r;
        while ((r = send_number(&client, n)) == 0)
            n++;
        ck_assert_int_eq(r, -WEFT_EFULL);
        UNTIL(client.writable == round);
    }
    UNTIL(server.expected == n);
    close_io();
}
END_TEST

/* ------------------------------------------------------------------ strangers */

static int raw_socket(void)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    ck_assert_int_ge(fd, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* Bound to a free port of loopback, which is left in `address`. */
static int raw_bound(void)
{
    const int fd = raw_socket();
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof sin;
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&sin, sizeof sin), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sin, &n), 0);
    port = ntohs(sin.sin_port);
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    return fd;
}

static int raw_connect(void)
{
    const int fd = raw_socket();
    struct sockaddr_in sin = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&sin, sizeof sin), 0);
    return fd;
}

static void raw_write(int fd, const void *data, size_t n)
{
    ck_assert_int_eq(send(fd, data, n, MSG_NOSIGNAL), (ssize_t)n);
}

static void raw_reset(int fd)
{
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
}

/* The bytes of frame 0 or 1 of send_number (payload of 0 or 1 bytes). */
static size_t raw_frame(uint64_t n, uint8_t buf[256])
{
    Weft__Step step = WEFT__STEP__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    step.number = n;
    env.body_case = WEFT__ENVELOPE__BODY_STEP;
    env.step = &step;
    uint8_t *head;
    size_t size;
    ck_assert_int_eq(weft_frame_encode(&env, size_of(n), &head, &size, NULL), 0);
    memcpy(buf, head, size);
    memcpy(buf + size, bytes_of(n), size_of(n));
    free(head);
    return size + size_of(n);
}

START_TEST(dialling_something_else)
{
    open_io();
    const int listener = raw_bound();
    ck_assert_int_eq(listen(listener, 1), 0);
    dial(address);
    const int fd = accept(listener, NULL, NULL);
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    raw_write(fd, answer, strlen(answer));
    UNTIL(client.closed == 1);
    ck_assert_int_eq(client.opened, 1);
    ck_assert_int_eq(client.why.code, WEFT_EPROTOCOL);
    char expected[300];
    snprintf(expected, sizeof expected,
             "%s: found bytes 48 54 54 50 \"HTTP\", expected a frame of weft: this looks like HTTP",
             address);
    ck_assert_str_eq(client.why.text, expected);
    close(fd);
    close(listener);
    close_io();
}
END_TEST

START_TEST(called_by_something_else)
{
    open_io();
    listen_at("127.0.0.1:0");
    const int fd = raw_connect();
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    raw_write(fd, request, strlen(request));
    UNTIL(server.closed == 1);
    ck_assert_int_eq(server.why.code, WEFT_EPROTOCOL);
    ck_assert_ptr_nonnull(strstr(server.why.text, "\"GET \""));
    close(fd);
    close_io();
}
END_TEST

START_TEST(longer_than_the_limit)
{
    open_io();
    listen_at("127.0.0.1:0");
    const int fd = raw_connect();
    raw_write(fd, "weft\x10\0\0\0\xFF\xFF\xFF\x7F", 12);
    UNTIL(server.closed == 1);
    ck_assert_int_eq(server.why.code, WEFT_ETOOLONG);
    ck_assert_ptr_nonnull(
        strstr(server.why.text, "payload of 2147483647 bytes, at most 262144 are allowed"));
    close(fd);
    close_io();
}
END_TEST

START_TEST(malformed_envelope)
{
    open_io();
    listen_at("127.0.0.1:0");
    const int fd = raw_connect();
    uint8_t good[256];
    raw_write(fd, good, raw_frame(0, good));
    raw_write(fd, "weft\x02\0\0\0\0\0\0\0\xFF\xFF", 14);
    UNTIL(server.closed == 1);
    ck_assert_int_eq(server.frames, 1); /* what was good before is not lost */
    ck_assert_int_eq(server.why.code, WEFT_EPROTOCOL);
    ck_assert_ptr_nonnull(strstr(server.why.text, "malformed envelope of 2 bytes"));
    close(fd);
    close_io();
}
END_TEST

START_TEST(byte_by_byte)
{
    open_io();
    listen_at("127.0.0.1:0");
    const int fd = raw_connect();
    UNTIL(server.c != NULL);
    uint8_t bytes[512];
    size_t n = raw_frame(0, bytes);
    n += raw_frame(1, bytes + n);
    for (size_t i = 0; i < n; i++) {
        raw_write(fd, bytes + i, 1);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    UNTIL(server.frames == 2);
    close(fd);
    close_io();
}
END_TEST

START_TEST(end_in_the_middle)
{
    uint8_t bytes[512];
    size_t first = raw_frame(0, bytes), n = first + raw_frame(1, bytes + first);
    for (size_t cut = 0; cut <= n; cut++) {
        open_io();
        listen_at("127.0.0.1:0");
        const int fd = raw_connect();
        raw_write(fd, bytes, cut);
        if (cut % 2 == 0)
            close(fd);
        else
            raw_reset(fd);
        UNTIL(server.closed == 1);
        ck_assert_int_eq(server.frames, (cut >= first) + (cut == n));
        ck_assert_int_eq(server.why.code, WEFT_ELOST);
        const bool middle = cut != 0 && cut != first && cut != n;
        ck_assert_msg((strstr(server.why.text, "closed in the middle of a frame") != NULL) ==
                          middle,
                      "cut at %zu: %s", cut, server.why.text);
        close_io();
    }
}
END_TEST

/* ------------------------------------------------------------------ not reaching anybody */

static void expect_unreachable(const char *where, const char *text)
{
    dial(where);
    UNTIL(client.closed == 1);
    ck_assert_int_eq(client.opened, 0);
    ck_assert_int_eq(client.why.code, WEFT_EUNREACHABLE);
    char expected[300];
    snprintf(expected, sizeof expected, "%s: %s", where, text);
    ck_assert_str_eq(client.why.text, expected);
    client = (struct side){0};
}

START_TEST(unreachable)
{
    open_io();
    const int fd = raw_bound(); /* bound but not listening: the kernel refuses */
    expect_unreachable(address, "connection refused: is weftd running there?");
    expect_unreachable("no-such-host.invalid:7117",
                       "no such host: check the name, or write its IP address");
    char where[100];
    snprintf(where, sizeof where, "ipc://%s/nothing", weft_test_tmpdir());
    expect_unreachable(where, "connection refused: is weftd running there?");
    expect_unreachable("not an address", "no such host: check the name, or write its IP address");
    close(fd);
    close_io();
}
END_TEST

START_TEST(dial_times_out)
{
    open_io();
    const int listener = raw_bound();
    ck_assert_int_eq(listen(listener, 0), 0);
    /* nobody accepts: once the backlog is full the kernel answers no more */
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = raw_socket();
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
        struct sockaddr_in sin = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons(port)};
        (void)connect(fds[i], (struct sockaddr *)&sin, sizeof sin);
    }
    /* often: nng takes one in five for connected, if its poller was idle */
    for (int i = 0; i < 24; i++) {
        const uint64_t begin = uv_hrtime();
        client = (struct side){0};
        client.c = io->dial(io, address, 60, &events, &client);
        UNTIL(client.opened + client.closed != 0);
        ck_assert_int_eq(client.opened, 0);
        ck_assert_int_eq(client.why.code, WEFT_EUNREACHABLE);
        ck_assert_ptr_nonnull(strstr(client.why.text, "timed out: is the machine on"));
        ck_assert_uint_ge(uv_hrtime() - begin, 55 * 1000000u);
    }
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    close(listener);
    close_io();
}
END_TEST

START_TEST(listening)
{
    open_io();
    weft_err err = {0};
    struct weft_io_uv *other;
    ck_assert_int_eq(weft_io_uv_open(&loop, &other, &err), 0);
    const int fd = raw_bound();
    ck_assert_int_eq(listen(fd, 1), 0);
    char expected[300];
    ck_assert_int_eq(weft_io_uv_listen(other, address, on_accept, NULL, &port, &err), -WEFT_EIO);
    snprintf(expected, sizeof expected,
             "listen at %s: address in use: is another weftd running there?", address);
    ck_assert_str_eq(err.text, expected);
    ck_assert_int_eq(weft_io_uv_listen(other, "192.0.2.1:0", on_accept, NULL, &port, &err),
                     -WEFT_EIO);
    ck_assert_str_eq(err.text, "listen at 192.0.2.1:0: not an address of this machine");
    ck_assert_int_eq(weft_io_uv_listen(other, "127.0.0.1:x", on_accept, NULL, &port, &err),
                     -WEFT_ECONFIG);
    close(fd);
    /* a listener of weft's own is a hindrance too, and none after it closed */
    listen_at("127.0.0.1:0");
    ck_assert_int_eq(weft_io_uv_listen(other, address, on_accept, NULL, NULL, &err), -WEFT_EIO);
    weft_io_uv_close(other);
    close_io();
}
END_TEST

/* ------------------------------------------------------------------ ends */

START_TEST(flush_on_close)
{
    connect_both();
    uint64_t n = 0;
    while (n < 50 && send_number(&client, n) == 0)
        n++;
    io->close(io, client.c, true);
    UNTIL(server.closed == 1);
    ck_assert_uint_eq(server.expected, n);
    close_io();
}
END_TEST

START_TEST(flush_outlives_the_io)
{
    connect_both();
    uint64_t n = 0;
    io->pause(io, server.c, true); /* so that the queue cannot leave at once */
    while (send_number(&client, n) == 0)
        n++;
    io->close(io, client.c, true);
    io->pause(io, server.c, false);
    /* the server's side is closed here as well, so the flush ends early: nothing may leak or hang
     */
    const uint64_t begin = uv_hrtime();
    close_io();
    ck_assert_uint_lt(uv_hrtime() - begin, 3000000000u);
}
END_TEST

START_TEST(flush_gives_up)
{
    open_io();
    const int listener = raw_bound();
    ck_assert_int_eq(listen(listener, 1), 0);
    dial(address);
    const int fd = accept(listener, NULL, NULL); /* and never reads */
    UNTIL(client.opened == 1);
    send_until_stuck();
    io->close(io, client.c, true);
    const uint64_t begin = uv_hrtime();
    close_io();
    const uint64_t took_ms = (uv_hrtime() - begin) / 1000000;
    ck_assert_msg(took_ms >= 500 && took_ms < 5000, "took %lu ms", (unsigned long)took_ms);
    close(fd);
    close(listener);
}
END_TEST

START_TEST(close_while_sending)
{
    for (int round = 0; round < 30; round++) {
        connect_both();
        for (uint64_t n = 0; n < (uint64_t)round * 2; n++)
            (void)send_number(&client, n);
        if (round % 3 == 1)
            uv_run(&loop, UV_RUN_NOWAIT);
        io->close(io, client.c, false);
        UNTIL(server.closed == 1);
        ck_assert_int_eq(server.why.code, WEFT_ELOST);
        close_io();
    }
}
END_TEST

START_TEST(close_from_an_event)
{
    connect_both();
    server.close_on_frame = true;
    for (uint64_t n = 0; n < 10; n++)
        ck_assert_int_eq(send_number(&client, n), 0);
    UNTIL(client.closed == 1);
    ck_assert_int_eq(server.frames, 1);
    ck_assert_int_eq(server.closed, 0); /* no event after one's own close */
    close_io();
}
END_TEST

START_TEST(send_after_the_end)
{
    connect_both();
    io->pause(io, client.c, true); /* the end is seen by sending alone */
    io->close(io, server.c, false);
    server = (struct side){0};
    uv_timer_start(&patience, out_of_patience, PATIENCE_MS, 0);
    while (client.closed == 0) {
        const int r = send_number(&client, 3);
        ck_assert(r == 0 || r == -WEFT_ELOST || r == -WEFT_EFULL);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    ck_assert_int_eq(client.why.code, WEFT_ELOST);
    close_io();
}
END_TEST

/* A server of many: only counts. */
static int guests, guests_ever;

static void guest_frame(void *arg, struct weft_conn *c, struct weft_frame *f)
{
    (void)arg;
    ck_assert_int_eq(io->send(io, c, f->env, f->payload, f->payload_size), 0);
    weft_frame_free(f);
}

static void guest_closed(void *arg, struct weft_conn *c, const weft_err *why)
{
    (void)arg, (void)c, (void)why;
    guests--;
}

static void guest_accept(void *arg, struct weft_conn *c)
{
    static const struct weft_conn_events guest = {.frame = guest_frame, .closed = guest_closed};
    (void)arg;
    guests++;
    guests_ever++;
    io->events(io, c, &guest, NULL);
}

START_TEST(come_and_go)
{
    weft_err err = {0};
    open_io();
    guests = guests_ever = 0;
    ck_assert_int_eq(weft_io_uv_listen(io_uv, "127.0.0.1:0", guest_accept, NULL, &port, &err), 0);
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    for (int round = 0; round < 200; round++) {
        client = (struct side){0};
        dial(address);
        if (round % 4 == 0) { /* in the middle of the dial */
            if (round % 8 == 0)
                uv_run(&loop, UV_RUN_NOWAIT);
            io->close(io, client.c, round % 3 == 0);
            continue;
        }
        UNTIL(client.opened == 1);
        ck_assert_int_eq(send_number(&client, 0), 0);
        if (round % 4 == 1)
            UNTIL(client.frames == 1);
        io->close(io, client.c, round % 3 == 0);
    }
    UNTIL(guests == 0);
    ck_assert_int_ge(guests_ever, 150);
    client = (struct side){0};
    dial(address); /* and one that stays works */
    UNTIL(client.opened == 1);
    ck_assert_int_eq(send_number(&client, 0), 0);
    UNTIL(client.frames == 1);
    close_io();
}
END_TEST

/* ------------------------------------------------------------------ timers and work */

struct clocked {
    struct weft_timer timer;
    int fired;
    uint64_t at_ns, again_ns;
    struct weft_timer *stops;
};
static int order;

static void on_fire(struct weft_timer *t)
{
    struct clocked *k = t->owner;
    ck_assert(!t->armed);
    k->at_ns = io->now_ns(io);
    k->fired = ++order;
    if (k->stops != NULL)
        io->timer_stop(io, k->stops);
    if (k->again_ns != 0) {
        io->timer_start(io, t, k->again_ns);
        k->again_ns = 0;
    }
}

START_TEST(timers)
{
    open_io();
    struct clocked k[6];
    order = 0;
    const uint64_t ms = 1000000, begin = io->now_ns(io);
    for (int i = 0; i < 6; i++)
        k[i] = (struct clocked){.timer = {.fire = on_fire, .owner = &k[i]}};
    io->timer_stop(io, &k[0].timer); /* an idle one */
    io->timer_start(io, &k[0].timer, 30 * ms);
    io->timer_start(io, &k[1].timer, 10 * ms);
    io->timer_start(io, &k[2].timer, 20 * ms);
    io->timer_start(io, &k[3].timer, 5 * ms);
    io->timer_start(io, &k[3].timer, 40 * ms); /* again: later */
    io->timer_start(io, &k[4].timer, 20 * ms);
    io->timer_start(io, &k[5].timer, UINT64_MAX);
    k[2].stops = &k[4].timer;
    k[1].again_ns = 25 * ms;
    UNTIL(k[3].fired != 0);
    ck_assert_int_eq(k[2].fired, 2);
    ck_assert_int_eq(k[4].fired, 0);
    ck_assert(k[0].fired == 3 && k[1].fired == 4 && k[3].fired == 5 && k[5].fired == 0);
    ck_assert_uint_ge(k[3].at_ns - begin, 40 * ms);
    ck_assert_uint_ge(k[1].at_ns - begin, 35 * ms);
    ck_assert(io->random(io) != io->random(io));
    close_io(); /* with one still armed */
    ck_assert(!k[5].timer.armed);
}
END_TEST

struct job {
    struct weft_work work;
    int number;
    pthread_t ran, told;
};
static int jobs_run, jobs_done;

static void job_run(struct weft_work *w)
{
    struct job *j = w->owner;
    ck_assert_int_eq(__atomic_fetch_add(&jobs_run, 1, __ATOMIC_SEQ_CST), j->number);
    j->ran = pthread_self();
}

static void job_done(struct weft_work *w)
{
    struct job *j = w->owner;
    ck_assert_int_eq(jobs_done++, j->number);
    j->told = pthread_self();
}

START_TEST(work)
{
    open_io();
    struct job jobs[40];
    jobs_run = jobs_done = 0;
    for (int i = 0; i < 40; i++) {
        jobs[i] = (struct job){.work = {.run = job_run, .done = job_done, .owner = &jobs[i]},
                               .number = i};
        io->work(io, &jobs[i].work);
    }
    UNTIL(jobs_done == 40);
    for (int i = 0; i < 40; i++)
        ck_assert(pthread_equal(jobs[i].told, pthread_self()) &&
                  !pthread_equal(jobs[i].ran, jobs[i].told) &&
                  pthread_equal(jobs[i].ran, jobs[0].ran));
    for (int i = 0; i < 40; i++) {
        jobs[i].number = 40 + i;
        io->work(io, &jobs[i].work);
    }
    close_io(); /* some run, none is told */
    ck_assert_int_eq(jobs_done, 40);
}
END_TEST

/* Brief work runs here when nothing is in hand, behind the others when something is; the owner is
 * told later in both cases. */
START_TEST(brief_work)
{
    open_io();
    struct job jobs[4];
    jobs_run = jobs_done = 0;
    for (int i = 0; i < 4; i++) {
        jobs[i] = (struct job){
            .work = {.run = job_run, .done = job_done, .owner = &jobs[i], .brief = i != 1},
            .number = i};
        if (i == 1)
            UNTIL(jobs_done == 1);
        io->work(io, &jobs[i].work);
        ck_assert_int_le(jobs_done, 1);
    }
    ck_assert(pthread_equal(jobs[0].ran, pthread_self()));
    UNTIL(jobs_done == 4);
    for (int i = 1; i < 4; i++)
        ck_assert(!pthread_equal(jobs[i].ran, pthread_self()) &&
                  pthread_equal(jobs[i].told, pthread_self()));
    close_io();
}
END_TEST

static int turns;
static void on_turn(uv_check_t *check)
{
    (void)check;
    turns++;
}

START_TEST(idle_sleeps)
{
    connect_both();
    server.echo = true;
    ck_assert_int_eq(send_number(&client, 0), 0);
    UNTIL(client.frames == 1);
    uv_check_t check;
    uv_check_init(&loop, &check);
    uv_check_start(&check, on_turn);
    struct clocked k = {.timer = {.fire = on_fire, .owner = &k}};
    io->timer_start(io, &k.timer, 300000000);
    turns = 0;
    UNTIL(k.fired != 0);
    ck_assert_int_le(turns, 4); /* the timer, and what the last frame left behind */
    uv_close((uv_handle_t *)&check, NULL);
    close_io();
}
END_TEST

/* ------------------------------------------------------------------ addresses */

START_TEST(addresses)
{
    static const struct {
        const char *text, *normal, *error;
    } table[] = {
        {"127.0.0.1:80", "127.0.0.1:80", NULL},
        {"pi5-a", "pi5-a:7117", NULL},
        {"pi5-a.local:0", "pi5-a.local:0", NULL},
        {"[::1]:80", "[::1]:80", NULL},
        {"[fe80::1]", "[fe80::1]:7117", NULL},
        {"ipc:///run/weft.sock", "ipc:///run/weft.sock", NULL},
        {"::1", NULL, "'::1': not an address, write an IPv6 address in brackets: [::1]:port"},
        {"a:b:c", NULL, "'a:b:c': not an address, write an IPv6 address in brackets: [v6]:port"},
        {"host:65536", NULL, "'host:65536': not a port: '65536', expected 0 to 65535"},
        {"host:", NULL, "'host:': not a port: '', expected 0 to 65535"},
        {"host:-1", NULL, "'host:-1': not a port: '-1', expected 0 to 65535"},
        {"", NULL, "'': not an address, expected host:port, [v6]:port or ipc:///path"},
        {":80", NULL, "':80': not an address, expected host:port, [v6]:port or ipc:///path"},
        {"a b:1", NULL, "'a b:1': not an address, expected host:port, [v6]:port or ipc:///path"},
        {"[::1", NULL, "'[::1': not an address, expected host:port, [v6]:port or ipc:///path"},
        {"[host]:1", NULL,
         "'[host]:1': not an address, expected host:port, [v6]:port or ipc:///path"},
        {"[::1]x", NULL, "'[::1]x': not an address, expected host:port, [v6]:port or ipc:///path"},
        {"tcp://host:1", NULL,
         "'tcp://host:1': not an address, write an IPv6 address in brackets: [v6]:port"},
        {"ipc://relative", NULL, "'ipc://relative': not an address, expected ipc:///path"},
        {"ipc:///", NULL, "'ipc:///': not an address, expected ipc:///path"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char buf[64];
        weft_err err = {0};
        const int r = weft_address_parse(table[i].text, 7117, buf, sizeof buf, &err);
        ck_assert_int_eq(r, table[i].normal != NULL ? 0 : -WEFT_ECONFIG);
        if (r == 0)
            ck_assert_str_eq(buf, table[i].normal);
        else
            ck_assert_str_eq(err.text, table[i].error);
    }
    char small[8];
    ck_assert_int_eq(weft_address_parse("127.0.0.1:80", 1, small, sizeof small, NULL),
                     -WEFT_ECONFIG);
    char host[300], path[200] = "ipc:///";
    memset(host, 'h', sizeof host);
    host[254] = '\0';
    char buf[512];
    ck_assert_int_eq(weft_address_parse(host, 1, buf, sizeof buf, NULL), -WEFT_ECONFIG);
    host[253] = '\0';
    ck_assert_int_eq(weft_address_parse(host, 1, buf, sizeof buf, NULL), 0);
    memset(path + 7, 'p', 120);
    ck_assert_int_eq(weft_address_parse(path, 1, buf, sizeof buf, NULL), -WEFT_ECONFIG);
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1); /* nng does not live on in a forked child */
    Suite *s = suite_create("link");
    TCase *t = tcase_create("link");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, echo);
    tcase_add_test(t, echo_over_ipc);
    tcase_add_test(t, both_directions_at_once);
    tcase_add_test(t, back_pressure);
    tcase_add_test(t, full_tells_writable_each_time);
    tcase_add_test(t, dialling_something_else);
    tcase_add_test(t, called_by_something_else);
    tcase_add_test(t, longer_than_the_limit);
    tcase_add_test(t, malformed_envelope);
    tcase_add_test(t, byte_by_byte);
    tcase_add_test(t, end_in_the_middle);
    tcase_add_test(t, unreachable);
    tcase_add_test(t, dial_times_out);
    tcase_add_test(t, listening);
    tcase_add_test(t, flush_on_close);
    tcase_add_test(t, flush_outlives_the_io);
    tcase_add_test(t, flush_gives_up);
    tcase_add_test(t, close_while_sending);
    tcase_add_test(t, close_from_an_event);
    tcase_add_test(t, send_after_the_end);
    tcase_add_test(t, come_and_go);
    tcase_add_test(t, timers);
    tcase_add_test(t, work);
    tcase_add_test(t, brief_work);
    tcase_add_test(t, idle_sleeps);
    tcase_add_test(t, addresses);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
