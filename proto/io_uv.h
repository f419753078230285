/*
 * The real io: libuv loop, nng streams (proto/link.c), one compute thread.
 */
#ifndef WEFT_PROTO_IO_UV_H
#define WEFT_PROTO_IO_UV_H

#include "proto/io.h"

struct weft_io_uv;
struct uv_loop_s;

/* Opens on a loop of the caller (borrowed until close). The compute thread starts with the first
 * work. */
int weft_io_uv_open(struct uv_loop_s *loop, struct weft_io_uv **ret, weft_err *err) WEFT_MUST_USE;
struct weft_io *weft_io_uv_io(struct weft_io_uv *u);
/* Listens at "host:port" (port 0: the system chooses) or "ipc:///path"; accepted connections are
 * given to `accept`, which sets their events at once. *ret_port is the port in use. Errors name the
 * address: -WEFT_ECONFIG (not an address), -WEFT_EIO (in use, not ours). */
int weft_io_uv_listen(struct weft_io_uv *u, const char *address,
                      void (*accept)(void *arg, struct weft_conn *c), void *arg, uint16_t *ret_port,
                      weft_err *err) WEFT_MUST_USE;
/* Closes listener and connections, waits for the compute thread (its item in hand is finished),
 * releases every handle from the loop. No event, timer or done() of an owner follows. The loop must
 * be run until it is empty afterwards: connections closed before with flush still send what they
 * have, for at most a second. Can be called from events. */
void weft_io_uv_close(struct weft_io_uv *u);
/* Accepts "host:port", "[v6]:port", "host" (default port), "ipc:///path" and writes it out with its
 * port into buf. -WEFT_ECONFIG says what was expected. (proto/address.c) */
int weft_address_parse(const char *text, uint16_t default_port, char *buf, size_t n,
                       weft_err *err) WEFT_MUST_USE;

#endif
