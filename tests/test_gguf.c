/*
 * GGUF reader: values of every type, limits, and files broken in every way we know.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/gguf.h"
#include "base/model.h"
#include "tests/gguf_writer.h"
#include "tests/harness.h"

/* A parsed file that owns its bytes. */
struct file {
    uint8_t *data;
    size_t size;
    struct weft_gguf g;
};

static void file_open(struct file *f, struct gguf_writer *w)
{
    weft_err err = {0};
    *f = (struct file){0};
    f->data = gguf_writer_finish(w, &f->size);
    gguf_writer_done(w);
    int r = weft_gguf_open(f->data, f->size, &f->g, &err);
    ck_assert_msg(r == 0, "%s", err.text);
}

static void file_done(struct file *f)
{
    weft_gguf_done(&f->g);
    free(f->data);
}

/* Check sends a message for each ck_assert; where thousands of files are tried, only failures do.
 */
#define NEED(condition)                                                \
    do {                                                               \
        if (!(condition))                                              \
            ck_abort_msg("%s:%d: %s", __FILE__, __LINE__, #condition); \
    } while (0)

/* All that gguf.h promises of an accepted file. */
static void check_consistent(const struct weft_gguf *g)
{
    const uint8_t *end = g->data + g->size;
    static char name[WEFT_GGUF_KEY_MAX + 1];
    NEED(g->data_offset <= g->size);
    for (uint64_t i = 0; i < g->n_kvs; i++) {
        const struct weft_gguf_kv *kv = &g->kvs[i];
        NEED(kv->data >= g->data && kv->size <= (uint64_t)(end - kv->data));
        memcpy(name, kv->key.data, kv->key.size);
        name[kv->key.size] = '\0';
        NEED(weft_gguf_kv(g, name) == kv);
        struct weft_gguf_string s;
        uint64_t pos = 0, n = 0;
        for (; weft_gguf_next_string(kv, &pos, &s); n++)
            NEED((const uint8_t *)s.data >= kv->data && s.size <= kv->size);
        NEED(n == (kv->item_type == WEFT_GGUF_STRING ? kv->count : 0));
    }
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const struct weft_gguf_tensor *t = &g->tensors[i];
        memcpy(name, t->name.data, t->name.size);
        name[t->name.size] = '\0';
        NEED(weft_gguf_tensor(g, name) == t);
        NEED(t->offset >= g->data_offset);
        NEED(t->bytes > 0 && t->bytes <= g->size && t->offset <= g->size - t->bytes);
        NEED((t->offset - g->data_offset) % g->alignment == 0);
        for (uint64_t k = 0; k < i; k++)
            NEED(t->offset + t->bytes <= g->tensors[k].offset ||
                 g->tensors[k].offset + g->tensors[k].bytes <= t->offset);
    }
}

/* ------------------------------------------------------------------ values */

START_TEST(scalars)
{
    static const struct {
        const char *key;
        enum weft_gguf_type type;
        uint64_t value;
        uint32_t expected;
        const char *error;
    } ints[] = {
        {"u8", WEFT_GGUF_U8, 0xff, 0xff, NULL},
        {"i8", WEFT_GGUF_I8, 0x7f, 0x7f, NULL},
        {"u16", WEFT_GGUF_U16, 0xffff, 0xffff, NULL},
        {"i16", WEFT_GGUF_I16, 0x7fff, 0x7fff, NULL},
        {"u32", WEFT_GGUF_U32, 0xffffffff, 0xffffffff, NULL},
        {"i32", WEFT_GGUF_I32, 0x7fffffff, 0x7fffffff, NULL},
        {"u64", WEFT_GGUF_U64, 0xffffffff, 0xffffffff, NULL},
        {"i64", WEFT_GGUF_I64, 5, 5, NULL},
        {"n8", WEFT_GGUF_I8, 0x80, 0, "key n8: found a negative number, expected 0 to 4294967295"},
        {"n16", WEFT_GGUF_I16, 0x8000, 0,
         "key n16: found a negative number, expected 0 to 4294967295"},
        {"n32", WEFT_GGUF_I32, 0xffffffff, 0,
         "key n32: found a negative number, expected 0 to 4294967295"},
        {"n64", WEFT_GGUF_I64, UINT64_MAX, 0,
         "key n64: found a negative number, expected 0 to 4294967295"},
        {"big", WEFT_GGUF_U64, 0x100000000, 0,
         "key big: found 4294967296, expected 0 to 4294967295"},
        {"bigi", WEFT_GGUF_I64, 0x100000000, 0,
         "key bigi: found 4294967296, expected 0 to 4294967295"},
        {"bool", WEFT_GGUF_BOOL, 1, 0, "key bool: found a bool, expected an integer"},
    };
    struct gguf_writer w;
    struct file f;
    gguf_writer_init(&w);
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++)
        gguf_writer_int(&w, ints[i].key, ints[i].type, ints[i].value);
    file_open(&f, &w);
    check_consistent(&f.g);
    for (size_t i = 0; i < sizeof ints / sizeof ints[0]; i++) {
        weft_err err = {0};
        uint32_t v = 77;
        int r = weft_gguf_u32(&f.g, ints[i].key, &v, &err);
        if (ints[i].error != NULL) {
            ck_assert_int_eq(r, -WEFT_EMODEL);
            ck_assert_str_eq(err.text, ints[i].error);
            ck_assert_uint_eq(v, 77);
        } else {
            ck_assert_int_eq(r, 0);
            ck_assert_uint_eq(v, ints[i].expected);
        }
    }
    file_done(&f);
}
END_TEST

START_TEST(floats_bools_strings)
{
    struct gguf_writer w;
    struct file f;
    struct weft_gguf_string s = {0};
    weft_err err = {0};
    float v = 7;
    bool b = false;
    gguf_writer_init(&w);
    gguf_writer_f32(&w, "f32", 0.1f);
    gguf_writer_f64(&w, "f64", 0.1);
    gguf_writer_f32(&w, "nan", NAN);
    gguf_writer_f64(&w, "inf", (double)INFINITY);
    gguf_writer_f64(&w, "wide", 1e300);
    gguf_writer_bool(&w, "yes", true);
    gguf_writer_bool(&w, "no", false);
    gguf_writer_str(&w, "text", "über");
    gguf_writer_str(&w, "empty", "");
    gguf_writer_u32(&w, "u32", 1);
    file_open(&f, &w);
    check_consistent(&f.g);

    ck_assert_int_eq(weft_gguf_f32(&f.g, "f32", &v, NULL), 0);
    ck_assert(v == 0.1f);
    ck_assert_int_eq(weft_gguf_f32(&f.g, "f64", &v, NULL), 0);
    ck_assert(v == (float)0.1);
    ck_assert_int_eq(weft_gguf_f32(&f.g, "nan", &v, NULL), -WEFT_EMODEL);
    ck_assert_int_eq(weft_gguf_f32(&f.g, "inf", &v, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "key inf: found inf, expected a finite f32");
    ck_assert_int_eq(weft_gguf_f32(&f.g, "wide", &v, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "key wide: found 1e+300, expected a finite f32");
    ck_assert_int_eq(weft_gguf_f32(&f.g, "u32", &v, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "key u32: found a u32, expected a float");
    ck_assert(v == (float)0.1);

    ck_assert_int_eq(weft_gguf_bool(&f.g, "yes", &b, NULL), 0);
    ck_assert(b);
    ck_assert_int_eq(weft_gguf_bool(&f.g, "no", &b, NULL), 0);
    ck_assert(!b);
    ck_assert_int_eq(weft_gguf_bool(&f.g, "u32", &b, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "key u32: found a u32, expected a bool");

    ck_assert_int_eq(weft_gguf_str(&f.g, "text", &s, NULL), 0);
    ck_assert_uint_eq(s.size, 5);
    ck_assert_mem_eq(s.data, "über", 5);
    ck_assert_int_eq(weft_gguf_str(&f.g, "empty", &s, NULL), 0);
    ck_assert_uint_eq(s.size, 0);
    ck_assert_int_eq(weft_gguf_str(&f.g, "u32", &s, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "key u32: found a u32, expected a string");
    ck_assert_int_eq(weft_gguf_str(&f.g, "tex", &s, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "key tex is missing");
    ck_assert_int_eq(weft_gguf_u32(&f.g, "", &(uint32_t){0}, &err), -WEFT_EMODEL);
    ck_assert_ptr_null(weft_gguf_kv(&f.g, "texts"));
    ck_assert_ptr_null(weft_gguf_tensor(&f.g, "text"));
    file_done(&f);
}
END_TEST

/* An array value: arrays nested `depth` deep, the innermost holding one u8. */
static size_t nested(uint8_t *data, unsigned depth)
{
    size_t n = 0;
    for (unsigned i = 0; i < depth; i++) {
        uint32_t type = i + 1 < depth ? WEFT_GGUF_ARRAY : WEFT_GGUF_U8;
        uint64_t count = 1;
        memcpy(data + n, &type, 4);
        memcpy(data + n + 4, &count, 8);
        n += 12;
    }
    data[n] = 9;
    return n + 1;
}

START_TEST(arrays)
{
    static const char *const words[] = {"a", "", "\xff\xfe", "d"};
    static const int32_t ints[] = {-1, 2, 3};
    uint8_t data[128];
    struct gguf_writer w;
    struct file f;
    gguf_writer_init(&w);
    gguf_writer_strings(&w, "words", words, 4);
    gguf_writer_array(&w, "ints", WEFT_GGUF_I32, 3, ints, sizeof ints);
    gguf_writer_array(&w, "none", WEFT_GGUF_STRING, 0, NULL, 0);
    gguf_writer_raw(&w, "deep", WEFT_GGUF_ARRAY, data, nested(data, WEFT_GGUF_ARRAY_DEPTH_MAX));
    file_open(&f, &w);
    check_consistent(&f.g);

    const struct weft_gguf_kv *kv = weft_gguf_kv(&f.g, "words");
    struct weft_gguf_string s;
    uint64_t pos = 0;
    ck_assert_uint_eq(kv->count, 4);
    ck_assert_int_eq(kv->type, WEFT_GGUF_ARRAY);
    for (size_t i = 0; i < 4; i++) {
        ck_assert(weft_gguf_next_string(kv, &pos, &s));
        ck_assert_uint_eq(s.size, strlen(words[i]));
        ck_assert_mem_eq(s.data, words[i], s.size);
    }
    ck_assert(!weft_gguf_next_string(kv, &pos, &s));

    kv = weft_gguf_kv(&f.g, "ints");
    ck_assert_int_eq(kv->item_type, WEFT_GGUF_I32);
    ck_assert_uint_eq(kv->count, 3);
    ck_assert_uint_eq(kv->size, sizeof ints);
    ck_assert_mem_eq(kv->data, ints, sizeof ints);
    pos = 0;
    ck_assert(!weft_gguf_next_string(kv, &pos, &s));
    weft_err err = {0};
    ck_assert_int_eq(weft_gguf_u32(&f.g, "ints", &(uint32_t){0}, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "key ints: found an array, expected an integer");
    ck_assert_uint_eq(weft_gguf_kv(&f.g, "none")->count, 0);
    file_done(&f);
}
END_TEST

START_TEST(names_of_types)
{
    ck_assert_str_eq(weft_gguf_type_name(WEFT_GGUF_ARRAY), "array");
    ck_assert_str_eq(weft_gguf_type_name(WEFT_GGUF_TYPE_COUNT), "unknown");
    ck_assert_ptr_null(weft_tensor_type_info(4)); /* withdrawn numbers of the format */
    ck_assert_ptr_null(weft_tensor_type_info(31));
    ck_assert_ptr_null(weft_tensor_type_info(WEFT_TENSOR_TYPE_COUNT));
    ck_assert_ptr_null(weft_tensor_type_info(UINT32_MAX));
    ck_assert_str_eq(weft_tensor_type_info(WEFT_Q6_K)->name, "Q6_K");
}
END_TEST

START_TEST(tensors_of_every_type)
{
    struct gguf_writer w;
    struct file f;
    char name[16];
    gguf_writer_init(&w);
    w.alignment = 64;
    gguf_writer_u32(&w, "general.alignment", 64);
    for (uint32_t type = 0; type < WEFT_TENSOR_TYPE_COUNT; type++) {
        snprintf(name, sizeof name, "t%u", type);
        if (weft_tensor_type_info(type) != NULL)
            gguf_writer_tensor(&w, name, type, 512, 3);
    }
    file_open(&f, &w);
    check_consistent(&f.g);
    ck_assert_uint_eq(f.g.alignment, 64);
    ck_assert_uint_eq(f.g.data_offset % 64, 0);
    uint64_t end = f.g.data_offset;
    for (uint32_t type = 0; type < WEFT_TENSOR_TYPE_COUNT; type++) {
        const struct weft_tensor_type_info *info = weft_tensor_type_info(type);
        snprintf(name, sizeof name, "t%u", type);
        const struct weft_gguf_tensor *t = weft_gguf_tensor(&f.g, name);
        ck_assert((t != NULL) == (info != NULL));
        if (t == NULL)
            continue;
        ck_assert_uint_eq(t->bytes, 3ull * 512 / info->block_elems * info->block_bytes);
        ck_assert_uint_eq(t->offset, (end + 63) / 64 * 64);
        ck_assert(t->n_dims == 2 && t->dims[0] == 512 && t->dims[1] == 3 && t->dims[2] == 1);
        end = t->offset + t->bytes;
    }
    ck_assert_uint_eq(end, f.size);
    file_done(&f);
}
END_TEST

START_TEST(many_keys)
{
    struct gguf_writer w;
    struct file f;
    char key[32];
    gguf_writer_init(&w);
    w.version = 2;
    w.duplicates = true; /* they are not: spares the writer's own search */
    for (uint32_t i = 0; i < 5000; i++) {
        snprintf(key, sizeof key, "key.%u", i);
        gguf_writer_u32(&w, key, i);
    }
    file_open(&f, &w);
    for (uint32_t i = 0; i < 5000; i++) {
        uint32_t v = 0;
        snprintf(key, sizeof key, "key.%u", i);
        ck_assert_int_eq(weft_gguf_u32(&f.g, key, &v, NULL), 0);
        ck_assert_uint_eq(v, i);
    }
    ck_assert_ptr_null(weft_gguf_kv(&f.g, "key.5000"));
    ck_assert_uint_eq(f.g.version, 2);
    file_done(&f);
}
END_TEST

/* ------------------------------------------------------------------ broken files */

/* Key "a" at byte 24, tensors "t" at 41 and "u" at 74, data at 128 and 160, 192 bytes. */
static void small(struct gguf_writer *w)
{
    gguf_writer_init(w);
    gguf_writer_u32(w, "a", 1);
    gguf_writer_tensor(w, "t", WEFT_F32, 8, 0);
    gguf_writer_tensor(w, "u", WEFT_F32, 8, 0);
}

static void bend_version_1(struct gguf_writer *w)
{
    w->version = 1;
}
static void bend_version_4(struct gguf_writer *w)
{
    w->version = 4;
}
static void bend_version_0(struct gguf_writer *w)
{
    w->version = 0;
}
static void bend_endian(struct gguf_writer *w)
{
    w->version = 3u << 24;
}
static void bend_key_empty(struct gguf_writer *w)
{
    w->kvs[0].key_size = 0;
}
static void bend_key_nul(struct gguf_writer *w)
{
    w->kvs[0].key[0] = '\0';
}
static void bend_key_utf8(struct gguf_writer *w)
{
    w->kvs[0].key[0] = (char)0xff;
}
static void bend_key_twice(struct gguf_writer *w)
{
    w->duplicates = true;
    gguf_writer_u32(w, "a", 2);
}
static void bend_key_long(struct gguf_writer *w)
{
    w->kvs[0].key = realloc(w->kvs[0].key, WEFT_GGUF_KEY_MAX + 1);
    memset(w->kvs[0].key, 'k', WEFT_GGUF_KEY_MAX + 1);
    w->kvs[0].key_size = WEFT_GGUF_KEY_MAX + 1;
}
static void bend_key_shown(struct gguf_writer *w)
{
    w->kvs[0].key = realloc(w->kvs[0].key, 300);
    for (size_t i = 0; i < 300; i += 3)
        memcpy(w->kvs[0].key + i, "\xe2\x82\xac", 3); /* 200 bytes end inside a character */
    w->kvs[0].key_size = 300;
    w->kvs[0].type = 13;
}
static void bend_value_type(struct gguf_writer *w)
{
    w->kvs[0].type = 13;
}
static void bend_bool(struct gguf_writer *w)
{
    gguf_writer_int(w, "b", WEFT_GGUF_BOOL, 2);
}
static void bend_bool_array(struct gguf_writer *w)
{
    gguf_writer_array(w, "b", WEFT_GGUF_BOOL, 3, "\1\0\xff", 3);
}
static void bend_string(struct gguf_writer *w)
{
    gguf_writer_raw(w, "b", WEFT_GGUF_STRING, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
}
static void bend_array_type(struct gguf_writer *w)
{
    gguf_writer_array(w, "b", 13, 0, NULL, 0);
}
static void bend_array_count(struct gguf_writer *w)
{
    gguf_writer_array(w, "b", WEFT_GGUF_U64, 1ull << 61, NULL, 0);
}
static void bend_array_strings(struct gguf_writer *w)
{
    gguf_writer_array(w, "b", WEFT_GGUF_STRING, 1ull << 61, NULL, 0);
}
static void bend_array_deep(struct gguf_writer *w)
{
    uint8_t data[128];
    gguf_writer_raw(w, "b", WEFT_GGUF_ARRAY, data, nested(data, WEFT_GGUF_ARRAY_DEPTH_MAX + 1));
}
static void bend_alignment_3(struct gguf_writer *w)
{
    gguf_writer_u32(w, "general.alignment", 48);
}
static void bend_alignment_0(struct gguf_writer *w)
{
    gguf_writer_u32(w, "general.alignment", 0);
}
static void bend_alignment_4(struct gguf_writer *w)
{
    gguf_writer_u32(w, "general.alignment", 4);
}
static void bend_alignment_big(struct gguf_writer *w)
{
    gguf_writer_u32(w, "general.alignment", 1u << 21);
}
static void bend_alignment_text(struct gguf_writer *w)
{
    gguf_writer_str(w, "general.alignment", "32");
}
static void bend_name_twice(struct gguf_writer *w)
{
    w->duplicates = true;
    gguf_writer_tensor(w, "t", WEFT_F32, 8, 0);
}
static void bend_name_long(struct gguf_writer *w)
{
    gguf_writer_rename(w, "t",
                       "a23456789b23456789c23456789d23456789e23456789f23456789g23456789h2345");
}
static void bend_name_escape(struct gguf_writer *w)
{
    gguf_writer_rename(w, "t", "t\033[2J");
}
static void bend_name_c1(struct gguf_writer *w)
{
    gguf_writer_rename(w, "t", "t\xc2\x9b");
}
static void bend_dims_0(struct gguf_writer *w)
{
    w->tensors[0].n_dims = 0;
}
static void bend_dims_5(struct gguf_writer *w)
{
    w->tensors[0].n_dims = 5;
}
static void bend_dim_zero(struct gguf_writer *w)
{
    w->tensors[0].dims[0] = 0;
}
static void bend_dim_product(struct gguf_writer *w)
{
    w->tensors[0].n_dims = 3;
    w->tensors[0].dims[0] = w->tensors[0].dims[1] = 1ull << 32;
}
static void bend_dim_bytes(struct gguf_writer *w)
{
    w->tensors[0].dims[0] = 1ull << 62;
}
static void bend_type(struct gguf_writer *w)
{
    w->tensors[0].type = 4;
}
static void bend_type_far(struct gguf_writer *w)
{
    w->tensors[0].type = UINT32_MAX;
}
static void bend_block(struct gguf_writer *w)
{
    w->tensors[0].type = WEFT_Q8_0;
}
static void bend_offset_odd(struct gguf_writer *w)
{
    w->tensors[1].offset = 33;
}
static void bend_offset_far(struct gguf_writer *w)
{
    w->tensors[1].offset = 64;
}
static void bend_offset_wrap(struct gguf_writer *w)
{
    w->tensors[1].offset = UINT64_MAX - 31 - 32;
}
static void bend_offset_wrap_2(struct gguf_writer *w)
{
    w->tensors[1].offset = UINT64_MAX - 31 - 128;
}
static void bend_overlap(struct gguf_writer *w)
{
    w->tensors[1].offset = 0;
}
static void bend_overlap_order(struct gguf_writer *w)
{
    w->tensors[0].offset = 32;
    w->tensors[1].offset = 0;
    w->tensors[1].dims[0] = 9;
}

#define EURO_11 "€€€€€€€€€€€"
#define EURO_66 EURO_11 EURO_11 EURO_11 EURO_11 EURO_11 EURO_11
static const struct {
    void (*bend)(struct gguf_writer *w);
    const char *error;
} bent[] = {
    {bend_version_1, "header: GGUF version 1, expected 2 or 3: convert the model again"},
    {bend_version_4, "header: GGUF version 4, expected 2 or 3: convert the model again"},
    {bend_version_0, "header: GGUF version 0, expected 2 or 3: convert the model again"},
    {bend_endian,
     "header: the file is big-endian; weft reads little-endian GGUF: convert it again"},
    {bend_key_empty, "key 0 at byte 24: found a name of 0 bytes, expected 1 to 65535"},
    {bend_key_nul, "key 0 at byte 24: byte 0 of the name is a control character (0x00)"},
    {bend_key_utf8, "key 0 at byte 24: byte 0 of the name is not valid UTF-8"},
    {bend_key_twice, "key a at byte 41: the key stands twice in the file"},
    {bend_key_long, "key 0 at byte 24: found a name of 65536 bytes, expected 1 to 65535"},
    {bend_key_shown, "key " EURO_66 " at byte 24: value type 13 is unknown, expected 0 to 12"},
    {bend_value_type, "key a at byte 24: value type 13 is unknown, expected 0 to 12"},
    {bend_bool, "key b at byte 41: found 2 for a bool, expected 0 or 1"},
    {bend_bool_array, "key b at byte 41: found 255 for a bool, expected 0 or 1"},
    {bend_string,
     "key b at byte 41: 18446744073709551615 bytes at 62 of a file of 192 bytes: the file "
     "is truncated; download it again"},
    {bend_array_type, "key b at byte 41: value type 13 is unknown, expected 0 to 12"},
    {bend_array_count,
     "key b at byte 41: an array of 2305843009213693952 u64 in the 158 bytes left of "
     "the file: the file is truncated; download it again"},
    {bend_array_strings,
     "key b at byte 41: an array of 2305843009213693952 string in the 158 bytes left "
     "of the file: the file is truncated; download it again"},
    {bend_array_deep, "key b at byte 41: arrays nested more than 4 deep"},
    {bend_alignment_3,
     "key general.alignment: found 48, expected a power of two from 8 to 1048576"},
    {bend_alignment_0, "key general.alignment: found 0, expected a power of two from 8 to 1048576"},
    {bend_alignment_4, "key general.alignment: found 4, expected a power of two from 8 to 1048576"},
    {bend_alignment_big,
     "key general.alignment: found 2097152, expected a power of two from 8 to 1048576"},
    {bend_alignment_text, "key general.alignment: found a string, expected an integer"},
    {bend_name_twice, "tensor t at byte 107: the tensor stands twice in the file"},
    {bend_name_long, "tensor 0 at byte 41: found a name of 68 bytes, expected 1 to 64"},
    {bend_name_escape, "tensor 0 at byte 41: byte 1 of the name is a control character (0x1b)"},
    {bend_name_c1, "tensor 0 at byte 41: byte 1 of the name is a control character (0xc2)"},
    {bend_dims_0, "tensor t at byte 41: found 0 dimensions, expected 1 to 4"},
    {bend_dims_5, "tensor t at byte 41: found 5 dimensions, expected 1 to 4"},
    {bend_dim_zero, "tensor t at byte 41: dimension 0 is 0"},
    {bend_dim_product, "tensor t at byte 41: the product of its dimensions overflows"},
    {bend_dim_bytes, "tensor t at byte 41: its size in bytes overflows"},
    {bend_type, "tensor t at byte 41: tensor type 4 is unknown"},
    {bend_type_far, "tensor t at byte 41: tensor type 4294967295 is unknown"},
    {bend_block, "tensor t at byte 41: rows of 8 elements, expected a multiple of 32 (Q8_0)"},
    {bend_offset_odd, "tensor u: offset 33, expected a multiple of 32"},
    {bend_offset_far, "tensor u: data at 192..224 of a file of 192 bytes: the file is truncated; "
                      "download it again"},
    {bend_offset_wrap, "tensor u: its offset overflows"},
    {bend_offset_wrap_2, "tensor u: its offset overflows"},
    {bend_overlap, "tensor t: data at 128..160 overlaps tensor u at 128"},
    {bend_overlap_order, "tensor u: data at 128..164 overlaps tensor t at 160"},
};

START_TEST(broken)
{
    struct gguf_writer w;
    struct weft_gguf g = {.version = 77};
    weft_err err = {0};
    size_t size;
    small(&w);
    bent[_i].bend(&w);
    uint8_t *data = gguf_writer_finish(&w, &size);
    ck_assert_int_eq(weft_gguf_open(data, size, &g, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, bent[_i].error);
    ck_assert_int_eq(err.code, WEFT_EMODEL);
    ck_assert_int_eq(weft_gguf_open(data, size, &g, NULL), -WEFT_EMODEL);
    ck_assert_uint_eq(g.version, 77); /* untouched */
    free(data);
    gguf_writer_done(&w);
}
END_TEST

/* Counts are held against limits and bytes before anything is allocated by them. */
START_TEST(absurd_counts)
{
    static const struct {
        size_t at;
        uint64_t value;
        const char *error;
    } cases[] = {
        {8, UINT64_MAX, "header: 18446744073709551615 tensors, at most 65536 are allowed"},
        {16, UINT64_MAX, "header: 18446744073709551615 keys, at most 65536 are allowed"},
        {16, 65537, "header: 65537 keys, at most 65536 are allowed"},
        {16, 65536,
         "header: 65536 keys and 2 tensors in a file of 192 bytes: the file is truncated; "
         "download it again"},
        {8, 65536,
         "header: 1 keys and 65536 tensors in a file of 192 bytes: the file is truncated; "
         "download it again"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct gguf_writer w;
        struct weft_gguf g;
        weft_err err = {0};
        size_t size;
        small(&w);
        uint8_t *data = gguf_writer_finish(&w, &size);
        memcpy(data + cases[i].at, &cases[i].value, 8);
        ck_assert_int_eq(weft_gguf_open(data, size, &g, &err), -WEFT_EMODEL);
        ck_assert_str_eq(err.text, cases[i].error);
        free(data);
        gguf_writer_done(&w);
    }
}
END_TEST

START_TEST(not_gguf)
{
    struct weft_gguf g;
    weft_err err = {0};
    ck_assert_int_eq(weft_gguf_open("PK\3\4....", 8, &g, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text,
                     "header: starts with 50 4b 03 04, expected \"GGUF\": this is not a GGUF file");
    ck_assert_int_eq(weft_gguf_open("", 0, &g, &err), -WEFT_EMODEL);
    ck_assert_str_eq(
        err.text,
        "header: 4 bytes at 0 of a file of 0 bytes: the file is truncated; download it again");
    ck_assert_int_eq(weft_gguf_open("GGUF\3\0\0\0", 8, &g, &err), -WEFT_EMODEL);
    weft_gguf_done(&(struct weft_gguf){0});
}
END_TEST

/* Opens a copy of exactly these bytes, and the model in it. True when the reader accepted it. */
static bool try(const uint8_t *data, size_t size)
{
    struct weft_gguf g;
    struct weft_model m;
    weft_err err = {0};
    uint8_t *copy = malloc(size + (size == 0)); /* exact, for the sanitizer */
    memcpy(copy, data, size);
    int r = weft_gguf_open(copy, size, &g, &err);
    if (r == 0) {
        check_consistent(&g);
        if (weft_model_from_gguf(&g, NULL, &m, &err) == 0) {
            NEED(weft_model_check(&m, NULL) == 0);
            weft_model_done(&m);
        } else {
            NEED(err.text[0] != '\0');
        }
        weft_gguf_done(&g);
    } else {
        NEED(r == -WEFT_EMODEL && err.code == WEFT_EMODEL);
        NEED(err.text[0] != '\0');
    }
    free(copy);
    return r == 0;
}

static uint8_t *llama_file(size_t *ret_size, size_t *ret_header)
{
    struct gguf_writer w;
    struct weft_gguf g;
    static const char *const words[] = {"<s>", "</s>", "a"};
    gguf_writer_llama(
        &w,
        &(struct gguf_writer_llama){
            .layers = 1, .dim = 32, .ffn = 64, .vocab = 16, .type = WEFT_Q8_0, .rope_freqs = true});
    gguf_writer_strings(&w, "tokenizer.ggml.tokens", words, 3);
    gguf_writer_bool(&w, "tokenizer.ggml.add_bos_token", true);
    uint8_t *data = gguf_writer_finish(&w, ret_size);
    gguf_writer_done(&w);
    ck_assert_int_eq(weft_gguf_open(data, *ret_size, &g, NULL), 0);
    *ret_header = g.data_offset;
    weft_gguf_done(&g);
    ck_assert(try(data, *ret_size));
    return data;
}

START_TEST(every_prefix)
{
    size_t size, header;
    uint8_t *data = llama_file(&size, &header);
    for (size_t n = 0; n < size; n += n < header || n + 40 > size ? 1 : 37)
        NEED(!try(data, n));
    free(data);
}
END_TEST

START_TEST(every_header_bit)
{
    size_t size, header, accepted = 0;
    uint8_t *data = llama_file(&size, &header);
    for (size_t i = 0; i < header; i++) {
        for (unsigned mask = 1; mask <= 0x100; mask *= 2) {
            uint8_t flip = (uint8_t)(mask <= 0x80 ? mask : 0xff);
            data[i] ^= flip;
            accepted += try(data, size);
            data[i] ^= flip;
        }
    }
    ck_assert_uint_gt(accepted, 0); /* the values of keys, letters of names */
    ck_assert_uint_lt(accepted, 9 * header);
    free(data);
}
END_TEST

/* A real header, with a vocabulary: every byte once. The data is shared, only the header is bent.
 */
START_TEST(every_golden_header_byte)
{
    size_t size;
    uint8_t *data = weft_test_read("../shared/golden/llama.gguf", &size);
    struct weft_gguf g;
    if (data == NULL) {
        weft_test_skip("no ../shared/golden/llama.gguf");
        return;
    }
    ck_assert_int_eq(weft_gguf_open(data, size, &g, NULL), 0);
    check_consistent(&g);
    size_t header = g.data_offset;
    weft_gguf_done(&g);
    for (size_t i = 0; i < header; i++) {
        weft_err err = {0};
        struct weft_model m;
        data[i] ^= 0xff;
        if (weft_gguf_open(data, size, &g, &err) == 0) {
            check_consistent(&g);
            if (weft_model_from_gguf(&g, NULL, &m, &err) == 0)
                weft_model_done(&m);
            weft_gguf_done(&g);
        }
        data[i] ^= 0xff;
    }
    for (size_t n = 0; n < header; n += 7)
        NEED(weft_gguf_open(data, n, &g, NULL) < 0);
    free(data);
}
END_TEST

/* Several bytes at once: what one flip cannot reach. */
START_TEST(random_damage)
{
    size_t size, header;
    uint8_t *data = llama_file(&size, &header);
    uint8_t *copy = malloc(size);
    uint64_t random = weft_test_seed();
    for (int i = 0; i < 2000; i++) {
        memcpy(copy, data, size);
        for (uint64_t k = 0; k < 1 + weft_test_random(&random) % 4; k++)
            copy[weft_test_random(&random) % header] = (uint8_t)weft_test_random(&random);
        try(copy, size);
    }
    free(copy);
    free(data);
}
END_TEST

/* ------------------------------------------------------------------ mapping */

START_TEST(mapping)
{
    struct weft_mapping m = {.size = 77};
    weft_err err = {0};
    char path[4200], expected[4400];
    struct gguf_writer w;
    size_t size;

    snprintf(path, sizeof path, "%s/none.gguf", weft_test_tmpdir());
    snprintf(expected, sizeof expected, "%s: No such file or directory", path);
    ck_assert_int_eq(weft_mapping_open(path, &m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, expected);

    snprintf(expected, sizeof expected, "%s: found a directory, expected a regular file",
             weft_test_tmpdir());
    ck_assert_int_eq(weft_mapping_open(weft_test_tmpdir(), &m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, expected);

    snprintf(path, sizeof path, "%s/pipe", weft_test_tmpdir());
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    snprintf(expected, sizeof expected, "%s: found a pipe, expected a regular file", path);
    ck_assert_int_eq(weft_mapping_open(path, &m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, expected);
    ck_assert_int_eq(weft_mapping_open("/dev/null", &m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "/dev/null: found a device, expected a regular file");

    snprintf(path, sizeof path, "%s/empty.gguf", weft_test_tmpdir());
    fclose(fopen(path, "wb"));
    snprintf(expected, sizeof expected, "%s: the file is empty; download it again", path);
    ck_assert_int_eq(weft_mapping_open(path, &m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, expected);
    ck_assert_uint_eq(m.size, 77);

    snprintf(path, sizeof path, "%s/small.gguf", weft_test_tmpdir());
    small(&w);
    ck_assert(gguf_writer_save(&w, path));
    uint8_t *data = gguf_writer_finish(&w, &size);
    ck_assert_int_eq(weft_mapping_open(path, &m, NULL), 0);
    ck_assert_uint_eq(m.size, size);
    ck_assert_mem_eq(m.data, data, size);
    ck_assert_str_eq(m.name, "small.gguf");
    ck_assert(m.mtime_ns != 0 && m.inode != 0);
    struct weft_gguf g;
    ck_assert_int_eq(weft_gguf_open(m.data, m.size, &g, NULL), 0);
    weft_gguf_done(&g);
    weft_mapping_close(&m);
    ck_assert_ptr_null(m.data);
    weft_mapping_close(&m);
    free(data);
    gguf_writer_done(&w);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gguf");
    TCase *values = tcase_create("values"), *bad = tcase_create("broken");
    tcase_add_test(values, scalars);
    tcase_add_test(values, floats_bools_strings);
    tcase_add_test(values, arrays);
    tcase_add_test(values, names_of_types);
    tcase_add_test(values, tensors_of_every_type);
    tcase_add_test(values, many_keys);
    tcase_add_test(values, mapping);
    suite_add_tcase(s, values);
    tcase_set_timeout(bad, 120); /* sanitizers and emulators are slow */
    tcase_add_loop_test(bad, broken, 0, sizeof bent / sizeof bent[0]);
    tcase_add_test(bad, absurd_counts);
    tcase_add_test(bad, not_gguf);
    tcase_add_test(bad, every_prefix);
    tcase_add_test(bad, every_header_bit);
    tcase_add_test(bad, every_golden_header_byte);
    tcase_add_test(bad, random_damage);
    suite_add_tcase(s, bad);
    return weft_test_main(s);
}
