/*
 * Frame: what travels on a connection.
 *
 *     bytes 0-3   magic "weft"
 *     bytes 4-7   envelope length, u32 little-endian, 1 … WEFT_ENVELOPE_MAX
 *     bytes 8-11  payload length, u32 little-endian, 0 … WEFT_PAYLOAD_MAX
 *     envelope    protobuf Envelope (proto/weft.proto)
 *     payload     raw bytes, little-endian
 *
 * Invariant: a decoded frame has an Envelope with a known body, checked strings and bounded lists,
 * all in one arena of limited size. Pure functions; any thread.
 */
#ifndef WEFT_PROTO_FRAME_H
#define WEFT_PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "proto/weft.pb-c.h"

#define WEFT_FRAME_PREFIX 12u
#define WEFT_ENVELOPE_MAX (256u << 10)  /* a Deploy of 1024 layers and 256 stages fits */
#define WEFT_PAYLOAD_MAX (256u << 10)   /* so that nothing waits long behind a tensor */
#define WEFT_FRAME_ARENA_MAX (4u << 20) /* unpacked envelope */
#define WEFT_SEGMENTS_MAX 256u          /* of a step */

struct weft_frame {
    Weft__Envelope *env;    /* in the arena */
    const uint8_t *payload; /* 16-aligned */
    uint32_t payload_size;
    struct weft_arena arena;
    uint8_t *buffer; /* malloc'ed bytes behind payload; owned */
};

/* Reads a prefix: total bytes that follow it. -WEFT_EPROTOCOL when the magic is another (the text
 * shows the bytes found, and says so when they look like HTTP, TLS or SSH), -WEFT_ETOOLONG over a
 * limit. */
int weft_frame_prefix(const uint8_t prefix[WEFT_FRAME_PREFIX], uint32_t *ret_env,
                      uint32_t *ret_payload, weft_err *err) WEFT_MUST_USE;
/* Makes a frame of the bytes behind a prefix. Takes `buffer` (malloc'ed, env_size + payload_size
 * bytes, the payload FIRST, then the envelope, so that the payload is aligned) on success. */
int weft_frame_decode(uint8_t *buffer, uint32_t env_size, uint32_t payload_size,
                      struct weft_frame **ret, weft_err *err) WEFT_MUST_USE;
void weft_frame_free(struct weft_frame *f); /* accepts NULL */

/* Packs prefix and envelope into one malloc'ed buffer given to the caller; the payload is sent
 * behind it as it is. */
int weft_frame_encode(const Weft__Envelope *env, uint32_t payload_size, uint8_t **ret,
                      size_t *ret_size, weft_err *err) WEFT_MUST_USE;
/* A frame in memory from an envelope and a payload, as if it had travelled (simulator, local
 * hand-over). */
int weft_frame_copy(const Weft__Envelope *env, const void *payload, uint32_t payload_size,
                    struct weft_frame **ret, weft_err *err) WEFT_MUST_USE;

/* "Step", "Begin", …: the name of a body for errors and logs; "unknown". */
const char *weft_body_name(Weft__Envelope__BodyCase body);
/* 64-bit hash of payload bytes, against damage, not against malice. */
uint64_t weft_frame_hash(const void *data, size_t size);

#endif
