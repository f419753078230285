/*
 * Frames: every kind there and back, limits, damage of every byte, strangers on the line; and the
 * conversions between wire and model.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/model.h"
#include "proto/frame.h"
#include "proto/peer.h"
#include "tests/gguf_writer.h"
#include "tests/harness.h"

/* ------------------------------------------------------------------ any message, by descriptor */

static ProtobufCMessage *random_message(struct weft_arena *a, const ProtobufCMessageDescriptor *d,
                                        uint64_t *rng);

static size_t value_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return 8;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_BOOL: /* protobuf_c_boolean is an int */
        return 4;
    default:
        ck_abort_msg("field type %d is new: teach this test", (int)type);
    }
}

static void random_value(struct weft_arena *a, const ProtobufCFieldDescriptor *f, void *value,
                         uint64_t *rng)
{
    static const char *const texts[] = {"a", "pi5-a", "Größe 日本 \xF0\x9F\x98\x80",
                                        "user@host:17"};
    const uint64_t r = weft_test_random(rng) | 1; /* never 0, which would not be sent */
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        *(char **)value = weft_arena_strdup(a, texts[r / 2 % 4]);
    } else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        *(ProtobufCMessage **)value = random_message(a, f->descriptor, rng);
    } else if (f->type == PROTOBUF_C_TYPE_ENUM) {
        const ProtobufCEnumDescriptor *e = f->descriptor;
        *(int *)value = e->values[r % e->n_values].value;
    } else if (f->type == PROTOBUF_C_TYPE_BOOL) {
        *(protobuf_c_boolean *)value = 1;
    } else if (f->type == PROTOBUF_C_TYPE_FLOAT) {
        *(float *)value = (float)weft_test_uniform(rng) + 0.5f;
    } else {
        memcpy(value, &r, value_size(f->type));
    }
}

static ProtobufCMessage *random_message(struct weft_arena *a, const ProtobufCMessageDescriptor *d,
                                        uint64_t *rng)
{
    ProtobufCMessage *m = weft_arena_alloc(a, d->sizeof_message);
    ck_assert_ptr_nonnull(m);
    protobuf_c_message_init(d, m);
    for (unsigned i = 0; i < d->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &d->fields[i];
        char *at = (char *)m + f->offset;
        ck_assert((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) == 0);
        if (f->label != PROTOBUF_C_LABEL_REPEATED) {
            random_value(a, f, at, rng);
            continue;
        }
        const size_t n = weft_test_random(rng) % 4, size = value_size(f->type);
        char *list = weft_arena_array(a, n, size);
        for (size_t k = 0; k < n; k++)
            random_value(a, f, list + k * size, rng);
        memcpy((char *)m + f->quantifier_offset, &n, sizeof n);
        memcpy(at, &list, sizeof list);
    }
    return m;
}

static Weft__Envelope random_envelope(struct weft_arena *a, unsigned body, uint64_t *rng)
{
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field(&weft__envelope__descriptor, body);
    ck_assert_ptr_nonnull(f);
    env.body_case = (Weft__Envelope__BodyCase)body;
    env.hello = (Weft__Hello *)random_message(a, f->descriptor, rng); /* any member of the union */
    return env;
}

/* ------------------------------------------------------------------ a frame over an imagined wire
 */

/* Bytes as they travel; the caller frees. */
static uint8_t *to_wire(const Weft__Envelope *env, const void *payload, uint32_t payload_size,
                        size_t *ret_size)
{
    weft_err err = {0};
    uint8_t *head = NULL;
    size_t head_size = 0;
    const int r = weft_frame_encode(env, payload_size, &head, &head_size, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    uint8_t *all = malloc(head_size + payload_size);
    memcpy(all, head, head_size);
    if (payload_size != 0)
        memcpy(all + head_size, payload, payload_size);
    free(head);
    *ret_size = head_size + payload_size;
    return all;
}

/* The receiving side: 1 when bytes are missing, else what prefix or decode say. */
static int from_wire(const uint8_t *bytes, size_t n, struct weft_frame **ret, weft_err *err)
{
    uint32_t env_size, payload_size;
    if (n < WEFT_FRAME_PREFIX)
        return 1;
    int r = weft_frame_prefix(bytes, &env_size, &payload_size, err);
    if (r < 0)
        return r;
    if (n - WEFT_FRAME_PREFIX < (size_t)env_size + payload_size)
        return 1;
    uint8_t *buffer = malloc((size_t)env_size + payload_size); /* exact, for the sanitizers */
    memcpy(buffer, bytes + WEFT_FRAME_PREFIX + env_size, payload_size);
    memcpy(buffer + payload_size, bytes + WEFT_FRAME_PREFIX, env_size);
    r = weft_frame_decode(buffer, env_size, payload_size, ret, err);
    if (r < 0)
        free(buffer);
    return r;
}

START_TEST(every_body_there_and_back)
{
    uint64_t rng = weft_test_seed() + (uint64_t)_i;
    const unsigned body = weft__envelope__descriptor.fields[_i].id;
    for (int round = 0; round < 20; round++) {
        struct weft_arena a;
        weft_arena_init(&a, 0);
        Weft__Envelope env = random_envelope(&a, body, &rng);
        uint8_t payload[100];
        const uint32_t payload_size = (uint32_t)(weft_test_random(&rng) % sizeof payload);
        for (uint32_t i = 0; i < payload_size; i++)
            payload[i] = (uint8_t)weft_test_random(&rng);
        size_t size;
        uint8_t *bytes = to_wire(&env, payload, payload_size, &size);
        struct weft_frame *f = NULL, *copy = NULL;
        weft_err err = {0};
        int r = from_wire(bytes, size, &f, &err);
        ck_assert_msg(r == 0, "%s", err.text);
        ck_assert_uint_eq(f->env->body_case, body);
        ck_assert_uint_eq(f->payload_size, payload_size);
        ck_assert_uint_eq((uintptr_t)f->payload % 16, 0);
        ck_assert_int_eq(memcmp(f->payload, payload, payload_size), 0);
        /* equal when packed again, since packing is a function of the fields */
        size_t again_size;
        uint8_t *again = to_wire(f->env, f->payload, f->payload_size, &again_size);
        ck_assert_uint_eq(again_size, size);
        ck_assert_int_eq(memcmp(again, bytes, size), 0);
        free(again);
        r = weft_frame_copy(&env, payload, payload_size, &copy, &err);
        ck_assert_msg(r == 0, "%s", err.text);
        again = to_wire(copy->env, copy->payload, copy->payload_size, &again_size);
        ck_assert(again_size == size && memcmp(again, bytes, size) == 0);
        free(again);
        weft_frame_free(copy);
        weft_frame_free(f);
        free(bytes);
        weft_arena_done(&a);
    }
}
END_TEST

START_TEST(names)
{
    ck_assert_str_eq(weft_body_name(WEFT__ENVELOPE__BODY_STEP), "Step");
    ck_assert_str_eq(weft_body_name(WEFT__ENVELOPE__BODY_STATUS_REQUEST), "StatusRequest");
    ck_assert_str_eq(weft_body_name(WEFT__ENVELOPE__BODY__NOT_SET), "unknown");
    ck_assert_str_eq(weft_body_name((Weft__Envelope__BodyCase)999), "unknown");
    weft_frame_free(NULL);
}
END_TEST

/* ------------------------------------------------------------------ prefixes */

static void expect_prefix(const char *bytes, uint32_t env_size, uint32_t payload_size, int code,
                          const char *text)
{
    uint8_t p[WEFT_FRAME_PREFIX];
    memcpy(p, bytes, 4);
    for (int i = 0; i < 4; i++) {
        p[4 + i] = (uint8_t)(env_size >> 8 * i);
        p[8 + i] = (uint8_t)(payload_size >> 8 * i);
    }
    uint32_t e = 77, b = 78;
    weft_err err = {0};
    const int r = weft_frame_prefix(p, &e, &b, &err);
    ck_assert_int_eq(r, -code);
    if (code == 0) {
        ck_assert(e == env_size && b == payload_size && err.code == 0);
    } else {
        ck_assert(e == 77 && b == 78);
        ck_assert_str_eq(err.text, text);
        ck_assert_int_eq(weft_frame_prefix(p, &e, &b, NULL), -code);
    }
}

START_TEST(prefixes)
{
    expect_prefix("weft", 1, 0, 0, NULL);
    expect_prefix("weft", WEFT_ENVELOPE_MAX, WEFT_PAYLOAD_MAX, 0, NULL);
    expect_prefix("weft", 0, 5, WEFT_EPROTOCOL, "frame without an envelope");
    expect_prefix("weft", WEFT_ENVELOPE_MAX + 1, 0, WEFT_ETOOLONG,
                  "frame with an envelope of 262145 bytes, at most 262144 are allowed");
    expect_prefix("weft", 1, WEFT_PAYLOAD_MAX + 1, WEFT_ETOOLONG,
                  "frame with a payload of 262145 bytes, at most 262144 are allowed");
    expect_prefix("weft", UINT32_MAX, UINT32_MAX, WEFT_ETOOLONG,
                  "frame with an envelope of 4294967295 bytes, at most 262144 are allowed");
    expect_prefix(
        "HTTP", 1, 0, WEFT_EPROTOCOL,
        "found bytes 48 54 54 50 \"HTTP\", expected a frame of weft: this looks like HTTP");
    expect_prefix(
        "GET ", 1, 0, WEFT_EPROTOCOL,
        "found bytes 47 45 54 20 \"GET \", expected a frame of weft: this looks like HTTP");
    expect_prefix(
        "SSH-", 1, 0, WEFT_EPROTOCOL,
        "found bytes 53 53 48 2d \"SSH-\", expected a frame of weft: this looks like SSH");
    expect_prefix(
        "\x16\x03\x01\x02", 1, 0, WEFT_EPROTOCOL,
        "found bytes 16 03 01 02 \"....\", expected a frame of weft: this looks like TLS");
    expect_prefix("WEFT", 1, 0, WEFT_EPROTOCOL,
                  "found bytes 57 45 46 54 \"WEFT\", expected a frame of weft");
    expect_prefix("\0\0\0\0", 1, 0, WEFT_EPROTOCOL,
                  "found bytes 00 00 00 00 \"....\", expected a frame of weft");
}
END_TEST

/* ------------------------------------------------------------------ damage */

/* A few frames that matter, some with nested lists. */
static uint8_t *sample(int which, size_t *ret_size)
{
    static const unsigned bodies[] = {WEFT__ENVELOPE__BODY_HELLO, WEFT__ENVELOPE__BODY_DEPLOY,
                                      WEFT__ENVELOPE__BODY_STEP, WEFT__ENVELOPE__BODY_BEGIN,
                                      WEFT__ENVELOPE__BODY_STATS};
    uint64_t rng = 4711 + (uint64_t)which;
    struct weft_arena a;
    weft_arena_init(&a, 0);
    Weft__Envelope env = random_envelope(&a, bodies[which], &rng);
    uint8_t *bytes = to_wire(&env, "0123456789abcdef", 16, ret_size);
    weft_arena_done(&a);
    return bytes;
}
#define SAMPLES 5

/* Whatever the bytes: a frame that can be packed again, a named error, or more bytes wanted. */
static void digest(const uint8_t *bytes, size_t n)
{
    struct weft_frame *f = NULL;
    weft_err err = {0};
    const int r = from_wire(bytes, n, &f, &err);
    if (r == 0) {
        ck_assert_uint_ne(f->env->body_case, WEFT__ENVELOPE__BODY__NOT_SET);
        ck_assert_str_ne(weft_body_name(f->env->body_case), "unknown");
        ck_assert_uint_le(f->arena.used_bytes, WEFT_FRAME_ARENA_MAX);
        weft_frame_free(f);
    } else if (r < 0) {
        ck_assert_ptr_null(f);
        ck_assert_int_eq(err.code, -r);
        ck_assert(err.text[0] != '\0');
        ck_assert(r == -WEFT_EPROTOCOL || r == -WEFT_ETOOLONG || r == -WEFT_ELIMIT);
    }
}

START_TEST(every_byte_flipped)
{
    size_t size;
    uint8_t *bytes = sample(_i, &size);
    for (size_t i = 0; i < size; i++) {
        const uint8_t was = bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] = (uint8_t)(was ^ 1 << bit);
            digest(bytes, size);
        }
        for (int v = 0; v < 256; v += 51) {
            bytes[i] = (uint8_t)v;
            digest(bytes, size);
        }
        bytes[i] = was;
    }
    free(bytes);
}
END_TEST

START_TEST(every_prefix)
{
    size_t size;
    uint8_t *bytes = sample(_i, &size);
    struct weft_frame *f = NULL;
    for (size_t n = 0; n < size; n++)
        ck_assert_int_eq(from_wire(bytes, n, &f, NULL), 1);
    /* and envelopes cut short whose length says so */
    const uint32_t env_size = (uint32_t)(size - WEFT_FRAME_PREFIX - 16);
    for (uint32_t n = 1; n < env_size; n++) {
        bytes[4] = (uint8_t)n;
        bytes[5] = (uint8_t)(n >> 8);
        bytes[6] = bytes[7] = 0;
        digest(bytes, size);
    }
    free(bytes);
}
END_TEST

/* Decodes an envelope given as bytes; the error's text, or "" for a good one. */
static const char *decode_text(const void *env, size_t size, int *ret_code)
{
    static weft_err err;
    err = (weft_err){0};
    uint8_t *buffer = malloc(size);
    memcpy(buffer, env, size);
    struct weft_frame *f = NULL;
    const int r = weft_frame_decode(buffer, (uint32_t)size, 0, &f, &err);
    if (r < 0)
        free(buffer);
    else
        weft_frame_free(f);
    *ret_code = -r;
    return err.text;
}

static void expect_decode(const void *env, size_t size, int code, const char *text)
{
    int found;
    ck_assert_str_eq(decode_text(env, size, &found), text);
    ck_assert_int_eq(found, code);
}

START_TEST(strings_lists_and_kinds)
{
    /* field 1000 of Envelope: of a weft to come */
    expect_decode("\xC2\x3E\x00", 3, WEFT_EPROTOCOL, "frame of an unknown kind");
    /* a Ping with a field of a weft to come is still a Ping */
    expect_decode("\x12\x03\x82\x01\x00", 5, 0, "");
    expect_decode("\xFF", 1, WEFT_EPROTOCOL, "frame with a malformed envelope of 1 bytes");
    /* Fault (3) text (2) */
    expect_decode("\x1A\x04\x12\x02ok", 6, 0, "");
    expect_decode("\x1A\x04\x12\x02\xC3(", 6, WEFT_EPROTOCOL, "Fault.text: text is not UTF-8");
    /* Hello (1) lane (6) */
    expect_decode("\x0A\x02\x30\x05", 4, 0, "");
    expect_decode("\x0A\x02\x30\x06", 4, WEFT_EPROTOCOL, "Hello.lane: unknown value 6");

    char text[2060];
    memset(text, 'x', sizeof text);
    memcpy(text, "\x1A\x83\x10\x12\x80\x10", 6); /* 2048 bytes of text */
    expect_decode(text, 6 + 2048, 0, "");
    memcpy(text, "\x1A\x84\x10\x12\x81\x10", 6);
    expect_decode(text, 6 + 2049, WEFT_EPROTOCOL,
                  "Fault.text: text of 2049 bytes, at most 2048 are allowed");

    /* Step (22) with 256 and 257 empty segments (4) */
    char step[4 + 2 * 257];
    for (size_t n = 256; n <= 257; n++) {
        memcpy(step, "\xB2\x01", 2);
        step[2] = (char)(0x80 | (2 * n & 0x7F));
        step[3] = (char)(2 * n >> 7);
        for (size_t i = 0; i < n; i++)
            memcpy(step + 4 + 2 * i, "\x22\x00", 2);
        expect_decode(step, 4 + 2 * n, n == 256 ? 0 : WEFT_ELIMIT,
                      n == 256 ? "" : "Step.segments: a list of 257, at most 256 are allowed");
    }
}
END_TEST

START_TEST(small_bytes_large_memory)
{
    /* Missing (14) with a run (3) of two bytes each: 125000 messages of 40 bytes and their pointers
     * are more than an arena may hold */
    const size_t n = 125000, size = 4 + 2 * n;
    uint8_t *env = malloc(size);
    const uint8_t head[4] = {0x72, 0x80 | (2 * n & 0x7F), 0x80 | (2 * n >> 7 & 0x7F),
                             (uint8_t)(2 * n >> 14)};
    memcpy(env, head, sizeof head);
    for (size_t i = 0; i < n; i++)
        memcpy(env + 4 + 2 * i, "\x1A\x00", 2);
    expect_decode(env, size, WEFT_EPROTOCOL, "frame with a malformed envelope of 250004 bytes");
    free(env);
}
END_TEST

START_TEST(too_long_to_encode)
{
    uint8_t *bytes = NULL;
    size_t size;
    weft_err err = {0};
    struct weft_frame *f = NULL;
    Weft__Ping ping = WEFT__PING__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    ck_assert_int_eq(weft_frame_encode(&env, 0, &bytes, &size, &err), -WEFT_EPROTOCOL);
    ck_assert_str_eq(err.text, "envelope without a body");
    env.body_case = WEFT__ENVELOPE__BODY_PING;
    env.ping = &ping;
    ck_assert_int_eq(weft_frame_encode(&env, WEFT_PAYLOAD_MAX + 1, &bytes, &size, &err),
                     -WEFT_ETOOLONG);
    ck_assert_str_eq(err.text, "Ping with a payload of 262145 bytes, at most 262144 are allowed");
    ck_assert_int_eq(weft_frame_copy(&env, "", WEFT_PAYLOAD_MAX + 1, &f, &err), -WEFT_ETOOLONG);

    char *text = malloc(WEFT_ENVELOPE_MAX + 1);
    memset(text, 'x', WEFT_ENVELOPE_MAX);
    text[WEFT_ENVELOPE_MAX] = '\0';
    Weft__Fault fault = WEFT__FAULT__INIT;
    fault.text = text;
    env.body_case = WEFT__ENVELOPE__BODY_FAULT;
    env.fault = &fault;
    ck_assert_int_eq(weft_frame_encode(&env, 0, &bytes, &size, &err), -WEFT_ETOOLONG);
    ck_assert_str_eq(err.text, "Fault of 262152 bytes, at most 262144 are allowed");
    /* what one side may not send, the other would refuse */
    text[3000] = '\0';
    ck_assert_int_eq(weft_frame_copy(&env, NULL, 0, &f, &err), -WEFT_EPROTOCOL);
    ck_assert_str_eq(err.text, "Fault.text: text of 3000 bytes, at most 2048 are allowed");
    ck_assert_ptr_null(bytes);
    ck_assert_ptr_null(f);
    free(text);
}
END_TEST

START_TEST(largest_deploy_fits)
{
    /* the promise beside WEFT_ENVELOPE_MAX: 1024 layers and 256 stages */
    struct weft_arena a;
    weft_arena_init(&a, 0);
    /* no two layers alike: each of the matrices of a plain layer has a line of its own */
    const size_t n_tensors = WEFT_ROLE_GLOBAL_COUNT + WEFT_LAYERS_MAX * 9;
    Weft__Model model = WEFT__MODEL__INIT;
    Weft__Tensor *tensors = calloc(n_tensors, sizeof *tensors),
                 **list = calloc(n_tensors, sizeof *list);
    for (size_t i = 0; i < n_tensors; i++) {
        weft__tensor__init(list[i] = &tensors[i]);
        tensors[i].role = 5 + (uint32_t)(i % 9);
        tensors[i].layer = (uint32_t)(i / 9 % WEFT_LAYERS_MAX);
        tensors[i].layers = 1;
        tensors[i].type = WEFT_Q8_0;
        tensors[i].rows = 53248;
        tensors[i].cols = 16384;
    }
    model.n_tensors = n_tensors;
    model.tensors = list;
    Weft__ShardRun run = WEFT__SHARD_RUN__INIT, *runs[6] = {&run, &run, &run, &run, &run, &run};
    run.kind = 6;
    run.first = run.count = 1u << 20;
    Weft__Member member = WEFT__MEMBER__INIT, *members[1] = {&member};
    member.name = weft_arena_alloc(&a, WEFT_NAME_MAX + 1);
    memset(member.name, 'n', WEFT_NAME_MAX);
    member.address = (char *)"a-rather-long-name.of-a-device.example.org:65535";
    member.n_shards = 6;
    member.shards = runs;
    Weft__Stage stage = WEFT__STAGE__INIT, *stages[256];
    stage.first_layer = stage.n_layers = 1000;
    stage.embed = stage.head = true;
    stage.n_members = 1;
    stage.members = members;
    uint32_t mine[256];
    for (uint32_t i = 0; i < 256; i++) {
        stages[i] = &stage;
        mine[i] = i;
    }
    Weft__Deploy deploy = WEFT__DEPLOY__INIT;
    deploy.model = &model;
    deploy.n_stages = deploy.n_mine = 256;
    deploy.stages = stages;
    deploy.mine = mine;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    env.body_case = WEFT__ENVELOPE__BODY_DEPLOY;
    env.deploy = &deploy;
    struct weft_frame *f = NULL;
    weft_err err = {0};
    const int r = weft_frame_copy(&env, NULL, 0, &f, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_uint_eq(f->env->deploy->model->n_tensors, n_tensors);
    weft_frame_free(f);
    free(tensors);
    free(list);
    weft_arena_done(&a);
}
END_TEST

START_TEST(hash_sees_any_change)
{
    uint8_t data[67];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 37);
    for (size_t n = 0; n <= sizeof data; n++) {
        const uint64_t h = weft_frame_hash(data, n);
        ck_assert(h == weft_frame_hash(data, n));
        for (size_t i = 0; i < n * 8; i++) {
            data[i / 8] ^= (uint8_t)(1 << i % 8);
            ck_assert(h != weft_frame_hash(data, n));
            data[i / 8] ^= (uint8_t)(1 << i % 8);
        }
        if (n < sizeof data)
            ck_assert(h != weft_frame_hash(data, n + 1));
    }
    /* both ends must compute the same: the value is part of the protocol */
    ck_assert(weft_frame_hash("weft", 4) == 0xCBFE19A818388FA1u);
    ck_assert(weft_frame_hash("shards of a model", 17) == 0x99EDDF9D789A736Du);
}
END_TEST

/* ------------------------------------------------------------------ wire and model */

struct loaded {
    uint8_t *data;
    struct weft_gguf g;
    struct weft_model m;
    struct weft_arena a;
    Weft__Model *wire;
};

static void load(struct loaded *l, const struct gguf_writer_llama *options)
{
    struct gguf_writer w;
    weft_err err = {0};
    size_t size;
    *l = (struct loaded){0};
    gguf_writer_llama(&w, options);
    l->data = gguf_writer_finish(&w, &size);
    gguf_writer_done(&w);
    int r = weft_gguf_open(l->data, size, &l->g, &err);
    r = r < 0 ? r : weft_model_from_gguf(&l->g, NULL, &l->m, &err);
    weft_arena_init(&l->a, 0);
    r = r < 0 ? r : weft_model_to_wire(&l->m, &l->a, &l->wire, &err);
    ck_assert_msg(r == 0, "%s", err.text);
}

static void unload(struct loaded *l)
{
    weft_arena_done(&l->a);
    weft_model_done(&l->m);
    weft_gguf_done(&l->g);
    free(l->data);
}

START_TEST(model_there_and_back)
{
    struct loaded l;
    load(&l, &(struct gguf_writer_llama){.layers = 3, .rope_freqs = _i % 2 == 1});
    Weft__Deploy deploy = WEFT__DEPLOY__INIT;
    Weft__Envelope env = WEFT__ENVELOPE__INIT;
    deploy.model = l.wire;
    env.body_case = WEFT__ENVELOPE__BODY_DEPLOY;
    env.deploy = &deploy;
    struct weft_frame *f = NULL;
    struct weft_model m = {0};
    weft_err err = {0};
    int r = weft_frame_copy(&env, NULL, 0, &f, &err);
    r = r < 0 ? r : weft_model_of_wire(f->env->deploy->model, &m, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    weft_frame_free(f);
    ck_assert_str_eq(m.arch, l.m.arch);
    ck_assert_str_eq(m.name, l.m.name);
    ck_assert(m.id[0] == l.m.id[0] && m.id[1] == l.m.id[1]);
    ck_assert(m.n_layers == l.m.n_layers && m.dim == l.m.dim && m.n_heads == l.m.n_heads);
    ck_assert(m.n_kv_heads == l.m.n_kv_heads && m.head_dim == l.m.head_dim &&
              m.ffn_dim == l.m.ffn_dim);
    ck_assert(m.vocab == l.m.vocab && m.context_max == l.m.context_max &&
              m.rope_dim == l.m.rope_dim);
    ck_assert(m.rope_base == l.m.rope_base && m.norm_eps == l.m.norm_eps && m.tied == l.m.tied);
    for (int role = 0; role < WEFT_ROLE_COUNT; role++) {
        for (uint32_t layer = 0; layer < m.n_layers; layer++) {
            const struct weft_tensor *a = weft_model_tensor(&l.m, role, layer);
            const struct weft_tensor *b = weft_model_tensor(&m, role, layer);
            ck_assert(a->type == b->type && a->rows == b->rows && a->cols == b->cols);
            ck_assert(a->bytes == b->bytes && b->offset == 0);
        }
    }
    weft_model_done(&m);
    unload(&l);
}
END_TEST

static void expect_model(const Weft__Model *w, int code, const char *text)
{
    struct weft_model m = {.dim = 99};
    weft_err err = {0};
    ck_assert_int_eq(weft_model_of_wire(w, &m, &err), -code);
    ck_assert_str_eq(err.text, text);
    ck_assert_uint_eq(m.dim, 99); /* untouched */
}

START_TEST(hostile_models)
{
    struct loaded l;
    load(&l, &(struct gguf_writer_llama){.layers = 2});
    Weft__Model *w = l.wire;
    const Weft__Model good = *w;
    expect_model(NULL, WEFT_EPROTOCOL, "no model given");
    w->n_layers = 0;
    expect_model(w, WEFT_EPROTOCOL, "model with 0 layers, 1 to 1024 are allowed");
    w->n_layers = UINT32_MAX;
    expect_model(w, WEFT_EPROTOCOL, "model with 4294967295 layers, 1 to 1024 are allowed");
    *w = good;
    char longer[200];
    memset(longer, 'm', sizeof longer);
    longer[128] = '\0';
    w->name = longer;
    expect_model(w, WEFT_EPROTOCOL, "model whose name or architecture is too long");
    *w = good;
    longer[32] = '\0';
    w->arch = longer;
    expect_model(w, WEFT_EPROTOCOL, "model whose name or architecture is too long");
    *w = good;

    Weft__Tensor *t = w->tensors[w->n_tensors - 1], was = *t;
    t->role = WEFT_ROLE_COUNT;
    expect_model(w, WEFT_EPROTOCOL, "model with a tensor of unknown role 34");
    *t = was;
    t->layer = 2;
    expect_model(w, WEFT_EPROTOCOL,
                 "model with tensors of role 21 in 2 layers from 2 on, of 2 in all");
    *t = was;
    t->role = WEFT_ROLE_FFN_UP;
    expect_model(w, WEFT_EPROTOCOL, "model with tensor blk.0.ffn_up.weight twice");
    *t = was;
    t->rows = 0;
    expect_model(w, WEFT_EPROTOCOL,
                 "model with tensor blk.0.ffn_down.weight of shape [0, 320] and type 0");
    *t = was;
    t->type = 77;
    expect_model(w, WEFT_EPROTOCOL,
                 "model with tensor blk.0.ffn_down.weight of shape [64, 320] and type 77");
    *t = was;
    t->rows = t->cols = UINT32_MAX;
    t->type = WEFT_F64;
    expect_model(w, WEFT_EOVERFLOW,
                 "model with tensor blk.0.ffn_down.weight of shape [4294967295, 4294967295]");
    *t = was;

    /* the rest is weft_model_check's: its own words, nothing believed */
    struct weft_model m;
    t->rows = 65;
    ck_assert_int_lt(weft_model_of_wire(w, &m, NULL), 0);
    *t = was;
    w->n_tensors--;
    ck_assert_int_lt(weft_model_of_wire(w, &m, NULL), 0);
    *w = good;
    w->dim = 0;
    ck_assert_int_lt(weft_model_of_wire(w, &m, NULL), 0);
    *w = good;
    w->n_kv_heads = 3;
    ck_assert_int_lt(weft_model_of_wire(w, &m, NULL), 0);
    *w = good;
    w->n_heads = UINT32_MAX;
    ck_assert_int_lt(weft_model_of_wire(w, &m, NULL), 0);
    *w = good;

    struct weft_arena small;
    weft_arena_init(&small, 300);
    ck_assert_int_eq(weft_model_to_wire(&l.m, &small, &w, NULL), -WEFT_ENOMEM);
    weft_arena_done(&small);
    unload(&l);
}
END_TEST

START_TEST(runs)
{
    Weft__ShardRun w = WEFT__SHARD_RUN__INIT;
    struct weft_shard_run run;
    weft_err err = {0};
    w.kind = WEFT_SHARD_FFN;
    w.layer = 7;
    w.first = 3;
    w.count = 2;
    ck_assert_int_eq(weft_run_of_wire(&w, &run, &err), 0);
    ck_assert(run.kind == WEFT_SHARD_FFN && run.layer == 7 && run.first == 3 && run.count == 2);
    w.count = UINT32_MAX;
    ck_assert_int_eq(weft_run_of_wire(&w, &run, &err), -WEFT_EPROTOCOL);
    ck_assert_str_eq(err.text, "run of 4294967295 shards from 3 on");
    w.count = 0;
    ck_assert_int_eq(weft_run_of_wire(&w, &run, &err), -WEFT_EPROTOCOL);
    w.count = 1;
    w.layer = WEFT_LAYERS_MAX;
    ck_assert_int_eq(weft_run_of_wire(&w, &run, &err), -WEFT_EPROTOCOL);
    ck_assert_str_eq(err.text, "run of shards in layer 1024, at most 1023 are allowed");
    w.layer = 0;
    w.kind = WEFT_SHARD_KIND_COUNT;
    ck_assert_int_eq(weft_run_of_wire(&w, &run, &err), -WEFT_EPROTOCOL);
    ck_assert_str_eq(err.text, "run of shards of unknown kind 8");
    ck_assert_int_eq(weft_run_of_wire(NULL, &run, NULL), -WEFT_EPROTOCOL);
}
END_TEST

START_TEST(faults_and_epochs)
{
    weft_err err = {0}, back = {0};
    weft_fail(&err, WEFT_EBUSY, "held by anna@box:7 for 12 s");
    Weft__Fault f = weft_fault_of(&err);
    ck_assert_int_eq(weft_fault_err(&f, "pi5-a", &back), -WEFT_EBUSY);
    ck_assert_str_eq(back.text, "pi5-a: held by anna@box:7 for 12 s");
    const uint32_t unknown[] = {0, 999, UINT32_MAX, 1u << 31};
    for (size_t i = 0; i < 4; i++) {
        f.code = unknown[i];
        ck_assert_int_eq(weft_fault_err(&f, "pi5-a", NULL), -WEFT_EREFUSED);
    }
    f.text = (char *)"";
    f.code = WEFT_ESTALE;
    weft_fault_err(&f, "pi5-a", &back);
    ck_assert_str_eq(back.text, "pi5-a: stale epoch");
    f.text = (char *)"a\x1b[2Jb\nc\xc2\x9b"
                     "d \xc3\xa9"; /* nothing that a terminal obeys */
    weft_fault_err(&f, "pi5-a", &back);
    ck_assert_str_eq(back.text, "pi5-a: a?[2Jb?c?d \xc3\xa9");

    Weft__Epoch a = WEFT__EPOCH__INIT, b = WEFT__EPOCH__INIT;
    a.coordinator = b.coordinator = 5;
    ck_assert(weft_epoch_equal(&a, &b));
    b.counter = 1;
    ck_assert(!weft_epoch_equal(&a, &b));
    a.counter = 1;
    b.coordinator = 6;
    ck_assert(!weft_epoch_equal(&a, &b));
    ck_assert(!weft_epoch_equal(NULL, &b) && !weft_epoch_equal(&a, NULL) &&
              !weft_epoch_equal(NULL, NULL));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("frame");
    TCase *t = tcase_create("frame");
    tcase_add_loop_test(t, every_body_there_and_back, 0, (int)weft__envelope__descriptor.n_fields);
    tcase_add_test(t, names);
    tcase_add_test(t, prefixes);
    tcase_add_loop_test(t, every_byte_flipped, 0, SAMPLES);
    tcase_add_loop_test(t, every_prefix, 0, SAMPLES);
    tcase_add_test(t, strings_lists_and_kinds);
    tcase_add_test(t, small_bytes_large_memory);
    tcase_add_test(t, too_long_to_encode);
    tcase_add_test(t, largest_deploy_fits);
    tcase_add_test(t, hash_sees_any_change);
    suite_add_tcase(s, t);
    t = tcase_create("wire");
    tcase_add_loop_test(t, model_there_and_back, 0, 2);
    tcase_add_test(t, hostile_models);
    tcase_add_test(t, runs);
    tcase_add_test(t, faults_and_epochs);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
