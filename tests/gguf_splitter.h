/*
 * Splits GGUF files for tests as gguf-split does: every part has split.no, split.count and
 * split.tensors.count, the first all other keys; tensors lie in file order over the parts.
 */
#ifndef WEFT_TESTS_GGUF_SPLITTER_H
#define WEFT_TESTS_GGUF_SPLITTER_H

#include "tests/gguf_writer.h"

#define SPLIT_PARTS_MAX 8

struct gguf_split_files {
    struct gguf_writer parts[SPLIT_PARTS_MAX]; /* may be bent before they are saved */
    uint32_t n;
};

/* Fills n writers from a whole model. keys_alone: the first part has no tensors, as with
 * --no-tensor-first-split. */
void gguf_split_of(const struct weft_gguf *g, uint32_t n, bool keys_alone,
                   struct gguf_split_files *ret);
/* The same from a file of the tests (weft_test_path); fails the test when it is not there. */
void gguf_split(const char *path, uint32_t n, bool keys_alone, struct gguf_split_files *ret);
void gguf_split_done(struct gguf_split_files *s);

/* Writes all parts to DIR/NAME-0000i-of-0000n.gguf and gives the path of part `no` (from 1; static,
 * one of four). */
const char *gguf_split_save(const struct gguf_split_files *s, const char *dir, const char *name,
                            uint32_t no);
/* The path alone. */
const char *gguf_split_path(const char *dir, const char *name, uint32_t no, uint32_t n);

#endif
