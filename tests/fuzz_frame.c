/*
 * Fuzzer of frames: the input is what comes down a connection, prefix first. The prefix's lengths
 * are cut to the bytes that are there, so that a mutation of the envelope need not mend them. What
 * decodes goes through the conversions of proto/peer.h and must come back the same when sent on.
 */
#include <string.h>

#include "base/model.h"
#include "proto/frame.h"
#include "proto/peer.h"
#include "tests/fuzz.h"

static struct weft_frame *decode(const uint8_t *envelope, uint32_t env_size, const uint8_t *payload,
                                 uint32_t payload_size)
{
    struct weft_frame *f = NULL;
    weft_err err = {0};
    uint8_t *buffer = malloc((size_t)env_size + payload_size);
    FUZZ_EXPECT(buffer != NULL);
    if (payload_size != 0)
        memcpy(buffer, payload, payload_size);
    memcpy(buffer + payload_size, envelope, env_size);
    int r = weft_frame_decode(buffer, env_size, payload_size, &f, &err);
    FUZZ_EXPECT(r == -err.code);
    if (r < 0)
        free(buffer);
    return f;
}

/* There and back gives the same message; compared as the bytes sent, since NaN is no equal. */
static void fuzz_model(const Weft__Model *w)
{
    struct weft_model m = {0}, again = {0};
    struct weft_arena arena;
    Weft__Model *back = NULL, *twice = NULL;
    weft_err err = {0};
    int r = weft_model_of_wire(w, &m, &err);
    FUZZ_EXPECT(r == -err.code);
    if (r < 0)
        return;
    weft_arena_init(&arena, 0);
    FUZZ_EXPECT(weft_model_to_wire(&m, &arena, &back, &err) == 0);
    FUZZ_EXPECT(weft_model_of_wire(back, &again, &err) == 0);
    FUZZ_EXPECT(weft_model_to_wire(&again, &arena, &twice, &err) == 0);
    const size_t n = weft__model__get_packed_size(back);
    FUZZ_EXPECT(n == weft__model__get_packed_size(twice));
    uint8_t *a = malloc(n), *b = malloc(n);
    FUZZ_EXPECT(a != NULL && b != NULL);
    weft__model__pack(back, a);
    weft__model__pack(twice, b);
    FUZZ_EXPECT(memcmp(a, b, n) == 0);
    free(a);
    free(b);
    weft_arena_done(&arena);
    weft_model_done(&again);
    weft_model_done(&m);
}

static void fuzz_run(const Weft__ShardRun *w)
{
    struct weft_shard_run run;
    weft_err err = {0};
    int r = weft_run_of_wire(w, &run, &err);
    FUZZ_EXPECT(r == -err.code);
    FUZZ_EXPECT(r < 0 || (run.count != 0 && run.first <= UINT32_MAX - run.count));
}

static void fuzz_body(const Weft__Envelope *env)
{
    weft_err err = {0};
    if (env->body_case == WEFT__ENVELOPE__BODY_FAULT) {
        FUZZ_EXPECT(weft_fault_err(env->fault, "peer", &err) == -err.code && err.code > 0);
    } else if (env->body_case == WEFT__ENVELOPE__BODY_SHARD) {
        fuzz_run(env->shard->run);
    } else if (env->body_case == WEFT__ENVELOPE__BODY_MISSING) {
        for (size_t i = 0; i < env->missing->n_shards; i++)
            fuzz_run(env->missing->shards[i]);
    } else if (env->body_case == WEFT__ENVELOPE__BODY_DEPLOY) {
        fuzz_model(env->deploy->model);
        for (size_t i = 0; i < env->deploy->n_stages; i++)
            for (size_t k = 0; k < env->deploy->stages[i]->n_members; k++)
                for (size_t j = 0; j < env->deploy->stages[i]->members[k]->n_shards; j++)
                    fuzz_run(env->deploy->stages[i]->members[k]->shards[j]);
    }
}

/* Sent on, a frame is the same frame. */
static void fuzz_resend(const struct weft_frame *f)
{
    uint8_t *a = NULL, *b = NULL;
    size_t a_size = 0, b_size = 0;
    weft_err err = {0};
    int r = weft_frame_encode(f->env, f->payload_size, &a, &a_size, &err);
    FUZZ_EXPECT(r == -err.code);
    if (r == -WEFT_ETOOLONG) /* a sender may write shorter than protobuf-c does */
        return;
    FUZZ_EXPECT(r == 0);
    struct weft_frame *copy = decode(a + WEFT_FRAME_PREFIX, (uint32_t)(a_size - WEFT_FRAME_PREFIX),
                                     f->payload, f->payload_size);
    FUZZ_EXPECT(copy != NULL);
    FUZZ_EXPECT(weft_frame_encode(copy->env, copy->payload_size, &b, &b_size, &err) == 0);
    FUZZ_EXPECT(a_size == b_size && memcmp(a, b, a_size) == 0);
    weft_frame_free(copy);
    free(a);
    free(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t env_size = 0, payload_size = 0;
    weft_err err = {0};
    if (size < WEFT_FRAME_PREFIX)
        return 0;
    int r = weft_frame_prefix(data, &env_size, &payload_size, &err);
    FUZZ_EXPECT(r == -err.code);
    if (r < 0)
        return 0;
    FUZZ_EXPECT(env_size >= 1 && env_size <= WEFT_ENVELOPE_MAX && payload_size <= WEFT_PAYLOAD_MAX);
    data += WEFT_FRAME_PREFIX;
    size -= WEFT_FRAME_PREFIX;
    if (size == 0)
        return 0;
    if (payload_size >= size)
        payload_size = (uint32_t)size - 1;
    if (size - payload_size < env_size || size - payload_size <= WEFT_ENVELOPE_MAX)
        env_size = (uint32_t)size - payload_size;
    struct weft_frame *f = decode(data, env_size, data + env_size, payload_size);
    if (f != NULL) {
        FUZZ_EXPECT(f->payload_size == payload_size && f->env != NULL);
        (void)weft_frame_hash(f->payload, f->payload_size);
        fuzz_body(f->env);
        fuzz_resend(f);
    }
    weft_frame_free(f);
    return 0;
}
