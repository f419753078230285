/*
 * Writes small GGUF files in memory, well-formed or broken on purpose, for tests.
 *
 *     struct gguf_writer w;
 *     gguf_writer_llama(&w, &(struct gguf_writer_llama){.layers = 3, .type = WEFT_Q8_0});
 *     gguf_writer_u32(&w, "llama.block_count", 4);            // replaces the value
 *     gguf_writer_find(&w, "blk.1.attn_q.weight")->dims[1]++; // bends a tensor
 *     size_t size;
 *     uint8_t *file = gguf_writer_finish(&w, &size);          // free(file)
 *     gguf_writer_done(&w);
 *
 * Invariant: keys and tensors stand in the order of their first mention. Runs out of memory by
 * abort().
 */
#ifndef WEFT_TESTS_GGUF_WRITER_H
#define WEFT_TESTS_GGUF_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/gguf.h"

struct gguf_writer_kv {
    char *key;
    size_t key_size;
    uint32_t type;
    uint8_t *data; /* the value as the file has it: lengths, array heads and all */
    size_t size;
};

#define GGUF_WRITER_AUTO UINT64_MAX

struct gguf_writer_tensor {
    char *name;
    size_t name_size;
    uint32_t type, n_dims;
    uint64_t dims[4];
    uint64_t offset; /* from the start of tensor data; GGUF_WRITER_AUTO: behind the one before,
                        aligned */
    uint8_t *data;   /* NULL: declared alone */
    size_t size;
};

struct gguf_writer {
    uint32_t version; /* 3 */
    uint32_t
        alignment;   /* 32; for the writer's own layout: general.alignment is a key as any other */
    bool duplicates; /* false: a key or tensor of a known name replaces it */
    uint64_t random; /* state of the values of tensors */
    struct gguf_writer_kv *kvs;
    size_t n_kvs;
    struct gguf_writer_tensor *tensors;
    size_t n_tensors;
};

void gguf_writer_init(struct gguf_writer *w);
void gguf_writer_done(struct gguf_writer *w); /* accepts zeroed */

/* Keys. `value` of an integer is cut to the type's width. */
void gguf_writer_int(struct gguf_writer *w, const char *key, enum weft_gguf_type type,
                     uint64_t value);
void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value);
void gguf_writer_f32(struct gguf_writer *w, const char *key, float value);
void gguf_writer_f64(struct gguf_writer *w, const char *key, double value);
void gguf_writer_bool(struct gguf_writer *w, const char *key, bool value);
void gguf_writer_str(struct gguf_writer *w, const char *key, const char *value);
/* An array of fixed-size items, given as the file has them. */
void gguf_writer_array(struct gguf_writer *w, const char *key, enum weft_gguf_type item_type,
                       uint64_t count, const void *items, size_t bytes);
void gguf_writer_strings(struct gguf_writer *w, const char *key, const char *const *items,
                         size_t n);
/* Any bytes as the value of any type number. */
void gguf_writer_raw(struct gguf_writer *w, const char *key, uint32_t type, const void *data,
                     size_t bytes);
void gguf_writer_remove(struct gguf_writer *w, const char *key);

/* A tensor of `rows` rows (0: one dimension) with values that a model can compute with: norms near
 * 1, matrices of variance 1 / cols. The result may be bent until the next call. */
struct gguf_writer_tensor *gguf_writer_tensor(struct gguf_writer *w, const char *name,
                                              uint32_t type, uint64_t cols, uint64_t rows);
/* A tensor of the table alone, whose data the caller writes behind gguf_writer_head: n_dims
 * dimensions, rows of dims[0] elements. */
struct gguf_writer_tensor *gguf_writer_declare(struct gguf_writer *w, const char *name,
                                               uint32_t type, const uint64_t *dims,
                                               uint32_t n_dims);
/* The tensor of that name; aborts when there is none. */
struct gguf_writer_tensor *gguf_writer_find(struct gguf_writer *w, const char *name);
void gguf_writer_rename(struct gguf_writer *w, const char *name, const char *to);
void gguf_writer_remove_tensor(struct gguf_writer *w, const char *name);

/* Such values for n elements in GGUF layout; n is a multiple of the block. F32, F16, Q8_0, Q4_0 and
 * Q6_K get numbers of about `scale`, other types any bytes. */
void gguf_writer_fill(uint64_t *random, uint32_t type, void *data, uint64_t n, float scale);

/* The file, malloc'ed to its exact size. It ends with the last byte of the last tensor, without
 * padding, so that every shorter prefix lacks something. */
uint8_t *gguf_writer_finish(const struct gguf_writer *w, size_t *ret_size);
/* All that stands before the data of tensors, malloc'ed; the data of each begins on a multiple of
 * `alignment` from the end of it, in the order of the table. */
uint8_t *gguf_writer_head(const struct gguf_writer *w, size_t *ret_size);
/* The whole file into a file; false when it cannot be written. */
bool gguf_writer_save(const struct gguf_writer *w, const char *path);

/* A whole llama model of random weights. Zero takes the default in the comment. */
struct gguf_writer_llama {
    uint32_t layers;   /* 2 */
    uint32_t dim;      /* 64; a multiple of the block of `type` */
    uint32_t heads;    /* 4 */
    uint32_t kv_heads; /* 2 */
    uint32_t head_dim; /* dim / heads; else key_length and value_length are written */
    uint32_t ffn;      /* 320: a piece of 256 and a shorter one */
    uint32_t vocab;    /* 100: no multiple of 16 */
    uint32_t context;  /* 512 */
    uint32_t type;     /* of all matrices; F32 */
    bool tied;         /* without output.weight */
    bool rope_freqs;
    uint64_t seed; /* 1 */
};
/* Initialises w and fills it. */
void gguf_writer_llama(struct gguf_writer *w, const struct gguf_writer_llama *options);

#endif
