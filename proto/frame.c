/*
 * Frame: prefix, envelope and payload, to bytes and back.
 *
 * Invariant: nothing is believed. Lengths are compared with their limits before anything is
 * allocated, the envelope is unpacked into an arena of limited size, and then every string and list
 * of it is checked by walking protobuf's own descriptors, so that a field added later is checked
 * too. Pure; any thread.
 */
#include "proto/frame.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/model.h"
#include "base/text.h"
#include "proto/peer.h"

static const uint8_t magic[4] = {'w', 'e', 'f', 't'};
#define STRING_BYTES_MAX 2048 /* the longest text is a Fault's: sizeof weft_err.text */
/* Lists without a line below: runs of Missing and Stage.shards, each at most one per kind and
 * layer. */
#define LIST_MAX (WEFT_LAYERS_MAX * WEFT_SHARD_KIND_COUNT)
#define STAGES_MAX 256
#define MEMBERS_MAX 64

/* Limits of lists that are shorter or longer than LIST_MAX. */
static const struct {
    const ProtobufCMessageDescriptor *message;
    const char *field;
    size_t max;
} list_limits[] = {
    {&weft__hello__descriptor, "capabilities", WEFT_CAPABILITIES_MAX},
    {&weft__model__descriptor, "tensors",
     WEFT_ROLE_GLOBAL_COUNT + WEFT_LAYERS_MAX *WEFT_ROLE_LAYER_COUNT},
    {&weft__deploy__descriptor, "stages", STAGES_MAX},
    {&weft__deploy__descriptor, "mine", STAGES_MAX},
    {&weft__stage__descriptor, "members", MEMBERS_MAX},
    {&weft__step__descriptor, "segments", WEFT_SEGMENTS_MAX},
    {&weft__begin__descriptor, "stop_ids", 256},
    {&weft__begin__descriptor, "history", 1024},
    {&weft__sampling__descriptor, "bias", 1024},
    {&weft__token__descriptor, "top", 20},
    {&weft__stats__descriptor, "stages", STAGES_MAX},
};

static uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

/* What a stranger's first bytes look like; "" when nothing known. */
static const char *stranger(const uint8_t b[4])
{
    static const char *const http[] = {"HTTP", "GET ", "POST", "HEAD",
                                       "PUT ", "OPTI", "DELE", "PRI "};
    for (size_t i = 0; i < sizeof http / sizeof http[0]; i++)
        if (memcmp(b, http[i], 4) == 0)
            return ": this looks like HTTP";
    if (memcmp(b, "SSH-", 4) == 0)
        return ": this looks like SSH";
    /* TLS records: type 20 to 23, then version 3.x */
    if (b[0] >= 0x14 && b[0] <= 0x17 && b[1] == 3)
        return ": this looks like TLS";
    return "";
}

int weft_frame_prefix(const uint8_t prefix[WEFT_FRAME_PREFIX], uint32_t *ret_env,
                      uint32_t *ret_payload, weft_err *err)
{
    if (memcmp(prefix, magic, sizeof magic) != 0) {
        char shown[5] = "";
        for (int i = 0; i < 4; i++)
            shown[i] = isprint(prefix[i]) ? (char)prefix[i] : '.';
        return weft_fail(err, WEFT_EPROTOCOL,
                         "found bytes %02x %02x %02x %02x \"%s\", expected a frame of weft%s",
                         prefix[0], prefix[1], prefix[2], prefix[3], shown, stranger(prefix));
    }
    const uint32_t env = load_u32(prefix + 4), payload = load_u32(prefix + 8);
    if (env == 0)
        return weft_fail(err, WEFT_EPROTOCOL, "frame without an envelope");
    if (env > WEFT_ENVELOPE_MAX)
        return weft_fail(err, WEFT_ETOOLONG,
                         "frame with an envelope of %u bytes, at most %u are allowed", env,
                         WEFT_ENVELOPE_MAX);
    if (payload > WEFT_PAYLOAD_MAX)
        return weft_fail(err, WEFT_ETOOLONG,
                         "frame with a payload of %u bytes, at most %u are allowed", payload,
                         WEFT_PAYLOAD_MAX);
    *ret_env = env;
    *ret_payload = payload;
    return 0;
}

static void *arena_alloc(void *arena, size_t size)
{
    return weft_arena_alloc(arena, size);
}

static void arena_free(void *arena, void *p)
{
    (void)arena, (void)p; /* goes with the arena */
}

static size_t list_limit(const ProtobufCMessageDescriptor *message, const char *field)
{
    for (size_t i = 0; i < sizeof list_limits / sizeof list_limits[0]; i++)
        if (list_limits[i].message == message && strcmp(list_limits[i].field, field) == 0)
            return list_limits[i].max;
    return LIST_MAX;
}

static int check_message(const ProtobufCMessage *m, weft_err *err);

/* One value of a field: strings are UTF-8 of bounded length, enums have a known value. */
static int check_value(const ProtobufCMessageDescriptor *d, const ProtobufCFieldDescriptor *f,
                       const void *value, weft_err *err)
{
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        const char *s = *(const char *const *)value;
        const size_t n = s != NULL ? strlen(s) : 0;
        if (n > STRING_BYTES_MAX)
            return weft_fail(err, WEFT_EPROTOCOL,
                             "%s.%s: text of %zu bytes, at most %u are allowed", d->short_name,
                             f->name, n, STRING_BYTES_MAX);
        if (n != 0 && !weft_utf8_valid(s, n, NULL))
            return weft_fail(err, WEFT_EPROTOCOL, "%s.%s: text is not UTF-8", d->short_name,
                             f->name);
    } else if (f->type == PROTOBUF_C_TYPE_ENUM) {
        int number;
        memcpy(&number, value, sizeof number);
        if (protobuf_c_enum_descriptor_get_value(f->descriptor, number) == NULL)
            return weft_fail(err, WEFT_EPROTOCOL, "%s.%s: unknown value %d", d->short_name, f->name,
                             number);
    } else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        const ProtobufCMessage *sub = *(const ProtobufCMessage *const *)value;
        return sub != NULL ? check_message(sub, err) : 0;
    }
    return 0;
}

/* Depth is bounded: no message of weft.proto contains itself. */
static int check_message(const ProtobufCMessage *m, weft_err *err)
{
    const ProtobufCMessageDescriptor *d = m->descriptor;
    /* Unknown fields are a newer weft's, but no field has number 0: protobuf-c sees that only where
     * it is written in one byte. */
    for (unsigned i = 0; i < m->n_unknown_fields; i++)
        if (m->unknown_fields[i].tag == 0)
            return weft_fail(err, WEFT_EPROTOCOL, "%s: a field of number 0", d->short_name);
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        const char *base = (const char *)m;
        size_t n = 1, size = sizeof(void *);
        const char *values = base + f->offset;
        if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
            uint32_t which;
            memcpy(&which, base + f->quantifier_offset, sizeof which);
            if (which != f->id)
                continue;
        } else if (f->label == PROTOBUF_C_LABEL_REPEATED) {
            memcpy(&n, base + f->quantifier_offset, sizeof n);
            const size_t max = list_limit(d, f->name);
            if (n > max)
                return weft_fail(err, WEFT_ELIMIT, "%s.%s: a list of %zu, at most %zu are allowed",
                                 d->short_name, f->name, n, max);
            values = *(const char *const *)values;
            if (f->type == PROTOBUF_C_TYPE_ENUM)
                size = sizeof(int);
            else if (f->type != PROTOBUF_C_TYPE_STRING && f->type != PROTOBUF_C_TYPE_MESSAGE)
                n = 0; /* any number is a number */
        }
        for (size_t k = 0; k < n; k++) {
            int r = check_value(d, f, values + k * size, err);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

int weft_frame_decode(uint8_t *buffer, uint32_t env_size, uint32_t payload_size,
                      struct weft_frame **ret, weft_err *err)
{
    assert(env_size <= WEFT_ENVELOPE_MAX && payload_size <= WEFT_PAYLOAD_MAX);
    int r;
    struct weft_frame *f = calloc(1, sizeof *f);
    if (f == NULL)
        return weft_fail(err, WEFT_ENOMEM, "frame: out of memory");
    weft_arena_init(&f->arena, WEFT_FRAME_ARENA_MAX);
    ProtobufCAllocator allocator = {
        .alloc = arena_alloc, .free = arena_free, .allocator_data = &f->arena};
    f->env = weft__envelope__unpack(&allocator, env_size, buffer + payload_size);
    if (f->env == NULL) {
        /* protobuf-c does not say which: an envelope that is well formed but too large unpacked is
         * rare enough to share the text */
        r = weft_fail(err, WEFT_EPROTOCOL, "frame with a malformed envelope of %u bytes", env_size);
        goto out;
    }
    if (f->env->body_case == WEFT__ENVELOPE__BODY__NOT_SET) {
        r = weft_fail(err, WEFT_EPROTOCOL, "frame of an unknown kind");
        goto out;
    }
    r = check_message(&f->env->base, err);
    if (r < 0)
        goto out;
    f->payload = buffer;
    f->payload_size = payload_size;
    f->buffer = buffer;
    *ret = f;
    return 0;
out:
    weft_frame_free(f);
    return r;
}

void weft_frame_free(struct weft_frame *f)
{
    if (f == NULL)
        return;
    weft_arena_done(&f->arena);
    free(f->buffer);
    free(f);
}

/* Bytes of the packed envelope, checked as the other side would. */
static int packed_size(const Weft__Envelope *env, uint32_t payload_size, uint32_t *ret,
                       weft_err *err)
{
    const char *name = weft_body_name(env->body_case);
    if (env->body_case == WEFT__ENVELOPE__BODY__NOT_SET)
        return weft_fail(err, WEFT_EPROTOCOL, "envelope without a body");
    const size_t size = weft__envelope__get_packed_size(env);
    if (size > WEFT_ENVELOPE_MAX)
        return weft_fail(err, WEFT_ETOOLONG, "%s of %zu bytes, at most %u are allowed", name, size,
                         WEFT_ENVELOPE_MAX);
    if (payload_size > WEFT_PAYLOAD_MAX)
        return weft_fail(err, WEFT_ETOOLONG,
                         "%s with a payload of %u bytes, at most %u are allowed", name,
                         payload_size, WEFT_PAYLOAD_MAX);
    *ret = (uint32_t)size;
    return 0;
}

int weft_frame_encode(const Weft__Envelope *env, uint32_t payload_size, uint8_t **ret,
                      size_t *ret_size, weft_err *err)
{
    uint32_t size;
    int r = packed_size(env, payload_size, &size, err);
    if (r < 0)
        return r;
    uint8_t *buf = malloc(WEFT_FRAME_PREFIX + size);
    if (buf == NULL)
        return weft_fail(err, WEFT_ENOMEM, "%s: out of memory", weft_body_name(env->body_case));
    memcpy(buf, magic, sizeof magic);
    store_u32(buf + 4, size);
    store_u32(buf + 8, payload_size);
    weft__envelope__pack(env, buf + WEFT_FRAME_PREFIX);
    *ret = buf;
    *ret_size = WEFT_FRAME_PREFIX + size;
    return 0;
}

int weft_frame_copy(const Weft__Envelope *env, const void *payload, uint32_t payload_size,
                    struct weft_frame **ret, weft_err *err)
{
    uint32_t size;
    int r = packed_size(env, payload_size, &size, err);
    if (r < 0)
        return r;
    uint8_t *buffer = malloc((size_t)payload_size + size);
    if (buffer == NULL)
        return weft_fail(err, WEFT_ENOMEM, "%s: out of memory", weft_body_name(env->body_case));
    if (payload_size != 0)
        memcpy(buffer, payload, payload_size);
    weft__envelope__pack(env, buffer + payload_size);
    r = weft_frame_decode(buffer, size, payload_size, ret, err);
    if (r < 0)
        free(buffer);
    return r;
}

const char *weft_body_name(Weft__Envelope__BodyCase body)
{
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field(&weft__envelope__descriptor, (unsigned)body);
    if (f == NULL)
        return "unknown";
    return ((const ProtobufCMessageDescriptor *)f->descriptor)->short_name;
}

uint64_t weft_frame_hash(const void *data, size_t size)
{
    /* Eight bytes at a time: xor, multiply by an odd constant (2^64 / golden ratio), fold the high
     * bits down; each step is a bijection of the state, so any single changed word changes the
     * result. */
    const uint64_t k = 0x9E3779B97F4A7C15u;
    const uint8_t *p = data;
    uint64_t h = (uint64_t)size * k;
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = (h ^ w) * k;
        h ^= h >> 32;
    }
    uint64_t tail = 0;
    for (size_t i = 0; i < size; i++)
        tail |= (uint64_t)p[i] << 8 * i;
    h = (h ^ tail) * k;
    h ^= h >> 29;
    h *= k;
    return h ^ h >> 32;
}
