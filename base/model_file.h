/*
 * A model's files: one GGUF, or all parts of a split one, mapped and read as one.
 *
 * Invariant: an open one has every part; maps[i] is the file of gguf.parts[i], and both live until
 * weft_model_file_close.
 */
#ifndef WEFT_BASE_MODEL_FILE_H
#define WEFT_BASE_MODEL_FILE_H

#include "base/gguf.h"

struct weft_model_file {
    struct weft_mapping *maps; /* [gguf.n_parts] */
    struct weft_gguf gguf;
};

/* Opens a whole file or any part of a split one, whose other parts lie beside it
 * (NAME-00002-of-00003.gguf). -WEFT_EMODEL naming the file and what is wrong with it: what
 * weft_mapping_open and weft_gguf_open say, and parts that are missing (all of them are named),
 * doubled, renamed or of another model. */
int weft_model_file_open(const char *path, struct weft_model_file *ret,
                         weft_err *err) WEFT_MUST_USE;
void weft_model_file_close(struct weft_model_file *f);           /* accepts zeroed */
uint64_t weft_model_file_bytes(const struct weft_model_file *f); /* of all parts */

/* A name of the form PREFIX-NNNNN-of-NNNNN.gguf: true with the bytes of PREFIX (folder included)
 * and the numbers, no from 1 to count. */
bool weft_part_name_parse(const char *path, size_t *ret_prefix, uint32_t *ret_no,
                          uint32_t *ret_count);
/* Bytes of "-00001-of-00003.gguf". */
#define WEFT_PART_SUFFIX 20
/* Writes that suffix with its 0 behind it. */
void weft_part_suffix(char buf[WEFT_PART_SUFFIX + 1], uint32_t no, uint32_t count);

#endif
