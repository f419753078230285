/*
 * GGUF reader (versions 2 and 3, little-endian) over memory. Source: the GGUF specification in the
 * public ggml repository (docs/gguf.md).
 *
 * Invariant: after weft_gguf_open every string, array and tensor lies inside the given bytes, names
 * are unique, counts are within the limits below and tensor data is aligned and does not overlap.
 * Nothing is copied: results point into the bytes, which must outlive the reader.
 */
#ifndef WEFT_BASE_GGUF_H
#define WEFT_BASE_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define WEFT_GGUF_KV_MAX 65536
#define WEFT_GGUF_TENSORS_MAX 65536
#define WEFT_GGUF_NAME_MAX 64   /* bytes of a tensor name, as the format says */
#define WEFT_GGUF_KEY_MAX 65535 /* bytes of a key, as the format says */
#define WEFT_GGUF_ARRAY_DEPTH_MAX 4
#define WEFT_GGUF_PARTS_MAX 1024 /* files of a split model; the largest published have some 200 */

/* Value types of the metadata, numbered as in the format. */
enum weft_gguf_type {
    WEFT_GGUF_U8,
    WEFT_GGUF_I8,
    WEFT_GGUF_U16,
    WEFT_GGUF_I16,
    WEFT_GGUF_U32,
    WEFT_GGUF_I32,
    WEFT_GGUF_F32,
    WEFT_GGUF_BOOL,
    WEFT_GGUF_STRING,
    WEFT_GGUF_ARRAY,
    WEFT_GGUF_U64,
    WEFT_GGUF_I64,
    WEFT_GGUF_F64,
    WEFT_GGUF_TYPE_COUNT
};
/* "u8", "string", "array"; "unknown" for other numbers. */
const char *weft_gguf_type_name(uint32_t type);

/* Tensor types, numbered as in the format. weft_tensor_type_info knows all published ones, so that
 * `weft inspect` can name what cannot run yet. */
enum weft_tensor_type {
    WEFT_F32 = 0,
    WEFT_F16 = 1,
    WEFT_Q4_0 = 2,
    WEFT_Q4_1 = 3,
    WEFT_Q5_0 = 6,
    WEFT_Q5_1 = 7,
    WEFT_Q8_0 = 8,
    WEFT_Q8_1 = 9,
    WEFT_Q2_K = 10,
    WEFT_Q3_K = 11,
    WEFT_Q4_K = 12,
    WEFT_Q5_K = 13,
    WEFT_Q6_K = 14,
    WEFT_Q8_K = 15,
    WEFT_IQ2_XXS = 16,
    WEFT_IQ2_XS = 17,
    WEFT_IQ3_XXS = 18,
    WEFT_IQ1_S = 19,
    WEFT_IQ4_NL = 20,
    WEFT_IQ3_S = 21,
    WEFT_IQ2_S = 22,
    WEFT_IQ4_XS = 23,
    WEFT_I8 = 24,
    WEFT_I16 = 25,
    WEFT_I32 = 26,
    WEFT_I64 = 27,
    WEFT_F64 = 28,
    WEFT_IQ1_M = 29,
    WEFT_BF16 = 30,
    WEFT_TQ1_0 = 34,
    WEFT_TQ2_0 = 35,
    WEFT_MXFP4 = 39,
    WEFT_TENSOR_TYPE_COUNT = 40
};

struct weft_tensor_type_info {
    const char *name;     /* "Q8_0"; NULL where the number is not used */
    uint32_t block_elems; /* elements of a block */
    uint32_t block_bytes;
};
/* NULL for numbers that no published format uses. */
const struct weft_tensor_type_info *weft_tensor_type_info(uint32_t type);

struct weft_gguf_string {
    const char *data; /* not 0-terminated */
    uint64_t size;
};

struct weft_gguf_kv {
    struct weft_gguf_string key;
    enum weft_gguf_type type;
    enum weft_gguf_type item_type; /* arrays */
    uint64_t count;                /* arrays: items; else 1 */
    const uint8_t *data; /* first value; unaligned, little-endian; strings: length first */
    uint64_t size;       /* bytes of all values */
};

struct weft_gguf_tensor {
    struct weft_gguf_string name;
    uint32_t type; /* weft_tensor_type, known to weft_tensor_type_info */
    uint32_t n_dims;
    uint64_t dims[4]; /* dims[0] is the row length (columns); missing ones are 1 */
    uint32_t part;    /* file it lies in; 0 unless the model is split */
    uint64_t offset;  /* from the start of that file */
    uint64_t bytes;
};

/* The bytes of one file. */
struct weft_gguf_part {
    const uint8_t *data;
    uint64_t size;
    uint64_t data_offset; /* where tensor data starts */
};

/* A file, or the files of a split model joined: then data, size, version, alignment, data_offset
 * and the keys are those of the first. */
struct weft_gguf {
    const uint8_t *data;
    uint64_t size;
    uint32_t version;
    uint32_t alignment;
    uint64_t data_offset;           /* where tensor data starts */
    const struct weft_gguf_kv *kvs; /* n_kvs, in file order */
    uint64_t n_kvs;
    const struct weft_gguf_tensor *tensors; /* n_tensors, in file order, part after part */
    uint64_t n_tensors;
    const struct weft_gguf_part *parts; /* [n_parts] */
    uint32_t n_parts;                   /* 1: a whole file, or one part alone */
    void *impl;
};

/* Parses the file's bytes; errors are -WEFT_EMODEL naming key or tensor and offset, or
 * -WEFT_ENOMEM. Keys and tensor names are valid UTF-8 without control characters; string values are
 * any bytes. */
int weft_gguf_open(const void *data, uint64_t size, struct weft_gguf *ret,
                   weft_err *err) WEFT_MUST_USE;
void weft_gguf_done(struct weft_gguf *g); /* accepts zeroed */

/* What the keys split.no, split.count and split.tensors.count say: a whole file (without them, or
 * with a count of 0 or 1) is number 0 of 1. -WEFT_EMODEL for values out of range. */
struct weft_gguf_split {
    uint32_t no, count; /* no from 0, as in the keys */
    uint32_t tensors;   /* of all parts; not set for a whole file */
};
int weft_gguf_split(const struct weft_gguf *g, struct weft_gguf_split *ret,
                    weft_err *err) WEFT_MUST_USE;
/* Joins the n > 1 parts of a split model, in their order, to one: keys of the first, tensors of
 * all. names[n] are what errors call them. Takes the parts (they are zeroed then); on failure the
 * caller still has them. -WEFT_EMODEL naming the part that is out of place, doubled or of another
 * model. */
int weft_gguf_join(struct weft_gguf *parts, const char *const *names, uint32_t n,
                   struct weft_gguf *ret, weft_err *err) WEFT_MUST_USE;
/* Where a tensor's bytes begin. */
const uint8_t *weft_gguf_data(const struct weft_gguf *g, const struct weft_gguf_tensor *t);

/* Look-ups in O(1); NULL when absent. */
const struct weft_gguf_kv *weft_gguf_kv(const struct weft_gguf *g, const char *key);
const struct weft_gguf_tensor *weft_gguf_tensor(const struct weft_gguf *g, const char *name);

/* Scalars: any integer type that holds the value (f32 and f64 for f32, finite; bool for bool).
 * -WEFT_EMODEL when absent, of another type or out of range; err names the key. */
int weft_gguf_u32(const struct weft_gguf *g, const char *key, uint32_t *ret,
                  weft_err *err) WEFT_MUST_USE;
int weft_gguf_f32(const struct weft_gguf *g, const char *key, float *ret,
                  weft_err *err) WEFT_MUST_USE;
int weft_gguf_bool(const struct weft_gguf *g, const char *key, bool *ret,
                   weft_err *err) WEFT_MUST_USE;
int weft_gguf_str(const struct weft_gguf *g, const char *key, struct weft_gguf_string *ret,
                  weft_err *err) WEFT_MUST_USE;
/* Walks the strings of a string or an array of strings: *pos starts at 0 and is the iterator's own;
 * false at the end, and for other types. */
bool weft_gguf_next_string(const struct weft_gguf_kv *kv, uint64_t *pos,
                           struct weft_gguf_string *ret);

/* A file mapped read-only. Close accepts zeroed. Errors: -WEFT_EMODEL with the path (missing,
 * unreadable, not a regular file, empty). */
struct weft_mapping {
    const uint8_t *data;
    uint64_t size;
    uint64_t mtime_ns, inode, device;
    char name[128]; /* last component of the path, cut to fit */
};
int weft_mapping_open(const char *path, struct weft_mapping *ret, weft_err *err) WEFT_MUST_USE;
void weft_mapping_close(struct weft_mapping *m);
/* Says that bytes [offset, offset + size) of the file, or what of them is there, will be read soon:
 * the system fetches them meanwhile. A hint, so it cannot fail. */
void weft_mapping_fetch(const struct weft_mapping *m, uint64_t offset, uint64_t size);

#endif
