/*
 * A model in this process, for tests: a GGUF file through shard stores into a chain of stages,
 * without network, nodes or sessions. What a cluster computes is compared with this.
 *
 * Every stage has its own store and gets only its runs, in pieces as a link would bring them, so
 * that a chain here holds what as many daemons would hold.
 */
#ifndef WEFT_TESTS_LOCAL_MODEL_H
#define WEFT_TESTS_LOCAL_MODEL_H

#include "base/model.h"
#include "base/model_file.h"
#include "daemon/stage.h"

#define LOCAL_STAGES_MAX 8

struct local_model_options {
    const char *path; /* relative to the source tree, as for weft_test_path */
    const char *isa;  /* of wk_table_select; NULL: the best */
    unsigned threads; /* 0: 1 */
    enum wk_gemm gemm;
    enum wk_kv_type kv;
    uint32_t context;    /* 0: 256 */
    uint32_t sessions;   /* 0: 1 */
    uint32_t batch_rows; /* 0: 64 */
    /* Layers at which a new stage begins, ascending; 0 gives an embedding without layers, the
     * number of layers a head without. None: one stage does all. */
    uint32_t cuts[LOCAL_STAGES_MAX - 1];
    size_t n_cuts;
};

struct local_model {
    struct weft_model model;
    struct weft_model_file file;
    struct wk_pool *pool;
    struct weft_store *store[LOCAL_STAGES_MAX];
    struct weft_stage *stage[LOCAL_STAGES_MAX];
    size_t n_stages;
};

/* Opens all; on failure `ret` is closed again. -WEFT_EMODEL when the file is not there. */
int local_model_open(const struct local_model_options *o, struct local_model *ret,
                     weft_err *err) WEFT_MUST_USE;
void local_model_close(struct local_model *m); /* accepts zeroed */

/* One step through the chain. */
int local_model_step(struct local_model *m, const struct weft_segment *segments,
                     uint32_t n_segments, const int32_t *tokens, weft_err *err) WEFT_MUST_USE;
/* n tokens of slot 0 from its present length on, in steps of at most `rows` rows. logits (may be
 * NULL) gets those of every row [n, vocab]. */
int local_model_feed(struct local_model *m, const int32_t *tokens, uint32_t n, uint32_t rows,
                     float *logits, weft_err *err) WEFT_MUST_USE;
/* Of the last step, see weft_stage_logits. */
const float *local_model_logits(const struct local_model *m, uint32_t *ret_rows);
/* Cuts a slot in every stage. */
void local_model_trim(struct local_model *m, uint32_t slot, uint32_t length);

/* Lowest id of the greatest value. */
int32_t local_argmax(const float *logits, uint32_t vocab);

/* Sends a run of the mapped files to a store, in pieces of `piece` bytes. */
int local_store_fill(struct weft_store *store, const struct weft_model *m,
                     const struct weft_mapping *files, const struct weft_shard_run *run,
                     size_t piece, weft_err *err) WEFT_MUST_USE;
/* Opens a GGUF file of the tests, whole or split: its files and the model. */
int local_file_open(const char *path, struct weft_model_file *file, struct weft_model *model,
                    weft_err *err) WEFT_MUST_USE;

#endif
