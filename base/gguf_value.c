/*
 * Values of GGUF metadata, converted with checks. Pure: reads what the parser of gguf.c accepted.
 * Invariant: *ret is written only when the key is there, of the right type and in range.
 */
#include "base/gguf.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

static const char *const type_names[WEFT_GGUF_TYPE_COUNT] = {
    [WEFT_GGUF_U8] = "u8",       [WEFT_GGUF_I8] = "i8",     [WEFT_GGUF_U16] = "u16",
    [WEFT_GGUF_I16] = "i16",     [WEFT_GGUF_U32] = "u32",   [WEFT_GGUF_I32] = "i32",
    [WEFT_GGUF_F32] = "f32",     [WEFT_GGUF_BOOL] = "bool", [WEFT_GGUF_STRING] = "string",
    [WEFT_GGUF_ARRAY] = "array", [WEFT_GGUF_U64] = "u64",   [WEFT_GGUF_I64] = "i64",
    [WEFT_GGUF_F64] = "f64",
};

const char *weft_gguf_type_name(uint32_t type)
{
    return type < WEFT_GGUF_TYPE_COUNT ? type_names[type] : "unknown";
}

static uint64_t load(const uint8_t *p, uint64_t bytes)
{
    uint64_t v = 0;
    for (uint64_t i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static int find_kv(const struct weft_gguf *g, const char *key, const struct weft_gguf_kv **ret,
                   weft_err *err)
{
    *ret = weft_gguf_kv(g, key);
    return *ret != NULL ? 0 : weft_fail(err, WEFT_EMODEL, "key %s is missing", key);
}

static int fail_type(const struct weft_gguf_kv *kv, const char *key, const char *expected,
                     weft_err *err)
{
    const char *name = weft_gguf_type_name(kv->type);
    return weft_fail(err, WEFT_EMODEL, "key %s: found %s %s, expected %s", key,
                     strchr("ai", name[0]) != NULL ? "an" : "a", name, expected);
}

int weft_gguf_u32(const struct weft_gguf *g, const char *key, uint32_t *ret, weft_err *err)
{
    const struct weft_gguf_kv *kv;
    int r = find_kv(g, key, &kv, err);
    if (r < 0)
        return r;
    uint64_t v = 0;
    switch (kv->type) {
    case WEFT_GGUF_U8:
    case WEFT_GGUF_U16:
    case WEFT_GGUF_U32:
    case WEFT_GGUF_U64:
        v = load(kv->data, kv->size);
        break;
    case WEFT_GGUF_I8:
    case WEFT_GGUF_I16:
    case WEFT_GGUF_I32:
    case WEFT_GGUF_I64:
        v = load(kv->data, kv->size);
        if ((v >> (8 * kv->size - 1)) != 0)
            return weft_fail(err, WEFT_EMODEL, "key %s: found a negative number, expected 0 to %u",
                             key, UINT32_MAX);
        break;
    default:
        return fail_type(kv, key, "an integer", err);
    }
    if (v > UINT32_MAX)
        return weft_fail(err, WEFT_EMODEL, "key %s: found %llu, expected 0 to %u", key,
                         (unsigned long long)v, UINT32_MAX);
    *ret = (uint32_t)v;
    return 0;
}

int weft_gguf_f32(const struct weft_gguf *g, const char *key, float *ret, weft_err *err)
{
    const struct weft_gguf_kv *kv;
    int r = find_kv(g, key, &kv, err);
    if (r < 0)
        return r;
    double v;
    if (kv->type == WEFT_GGUF_F32) {
        uint32_t bits = (uint32_t)load(kv->data, 4);
        float f;
        memcpy(&f, &bits, sizeof f);
        v = (double)f;
    } else if (kv->type == WEFT_GGUF_F64) {
        uint64_t bits = load(kv->data, 8);
        memcpy(&v, &bits, sizeof v);
    } else {
        return fail_type(kv, key, "a float", err);
    }
    if (isnan(v) || fabs(v) > (double)FLT_MAX)
        return weft_fail(err, WEFT_EMODEL, "key %s: found %g, expected a finite f32", key, v);
    *ret = (float)v;
    return 0;
}

int weft_gguf_bool(const struct weft_gguf *g, const char *key, bool *ret, weft_err *err)
{
    const struct weft_gguf_kv *kv;
    int r = find_kv(g, key, &kv, err);
    if (r < 0)
        return r;
    if (kv->type != WEFT_GGUF_BOOL)
        return fail_type(kv, key, "a bool", err);
    *ret = kv->data[0] != 0;
    return 0;
}

int weft_gguf_str(const struct weft_gguf *g, const char *key, struct weft_gguf_string *ret,
                  weft_err *err)
{
    const struct weft_gguf_kv *kv;
    uint64_t pos = 0;
    int r = find_kv(g, key, &kv, err);
    if (r < 0)
        return r;
    if (kv->type != WEFT_GGUF_STRING)
        return fail_type(kv, key, "a string", err);
    bool found = weft_gguf_next_string(kv, &pos, ret);
    assert(found); /* the parser walked it */
    return 0;
}

bool weft_gguf_next_string(const struct weft_gguf_kv *kv, uint64_t *pos,
                           struct weft_gguf_string *ret)
{
    if (kv->item_type != WEFT_GGUF_STRING || *pos >= kv->size)
        return false;
    uint64_t n = load(kv->data + *pos, 8);
    *ret = (struct weft_gguf_string){.data = (const char *)kv->data + *pos + 8, .size = n};
    *pos += 8 + n;
    return true;
}
