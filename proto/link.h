/*
 * Link: frames over one nng byte stream. The only user of nng.
 *
 * nng's threads read and write; they fill one slot under the link's mutex and wake the loop,
 * nothing else. The next frame is read only after the last one was taken: TCP's window is the
 * back-pressure. Sending is a bounded queue: never blocks. Limits of proto/frame.h are enforced
 * before memory is allocated.
 */
#ifndef WEFT_PROTO_LINK_H
#define WEFT_PROTO_LINK_H

#include <stdbool.h>

#include "proto/frame.h"

struct weft_link;
struct weft_listener;

/* Wakes the loop; called on nng's threads, must not block. */
typedef void weft_wake_fn(void *arg);

enum weft_link_event {
    WEFT_LINK_NOTHING,
    WEFT_LINK_OPENED,
    WEFT_LINK_FRAME, /* *ret_frame is given to the caller */
    WEFT_LINK_WRITABLE,
    WEFT_LINK_CLOSED /* *err says why; no further event */
};

/* Dials; an event OPENED or CLOSED follows. NULL: out of memory. */
struct weft_link *weft_link_dial(const char *address, uint32_t timeout_ms, weft_wake_fn *wake,
                                 void *arg);
/* Next event, loop thread only; call until NOTHING. */
enum weft_link_event weft_link_next(struct weft_link *l, struct weft_frame **ret_frame,
                                    weft_err *err);
int weft_link_send(struct weft_link *l, const Weft__Envelope *env, const void *payload,
                   uint32_t payload_size);
void weft_link_pause(struct weft_link *l, bool pause);
/* Begins a flushing end: what is queued is still sent, what arrives is dropped, nothing can be
 * queued any more; CLOSED follows once all has left. The caller bounds the time and then closes. */
void weft_link_finish(struct weft_link *l);
/* Ends the link at once and frees it. Waits for nng's callbacks to end, which take no time. NULL is
 * fine. */
void weft_link_close(struct weft_link *l);
/* "192.168.1.4:51234" of the other end, or the address dialled; good as long as the link. */
const char *weft_link_peer_name(struct weft_link *l);

/* *ret_port (may be NULL): the port in use, 0 for ipc. Errors name the address: -WEFT_EIO,
 * -WEFT_ENOMEM. */
int weft_listener_open(const char *address, weft_wake_fn *wake, void *arg,
                       struct weft_listener **ret, uint16_t *ret_port, weft_err *err) WEFT_MUST_USE;
/* An accepted link whose wake is set by the caller through weft_link_attach; NULL: none. */
struct weft_link *weft_listener_next(struct weft_listener *ls);
void weft_link_attach(struct weft_link *l, weft_wake_fn *wake, void *arg);
void weft_listener_close(struct weft_listener *ls); /* accepts NULL */

#endif
