/*
 * Shard store: the packed tensors of one model that this daemon holds.
 *
 * Invariant: a tensor is either whole and packed, or not there; half-received ones are not visible.
 * Keyed by (model id, role, layer): of one model at a time. The loop thread owns the store;
 * weft_store_put runs on the compute thread while the loop leaves that tensor alone.
 */
#ifndef WEFT_DAEMON_STORE_H
#define WEFT_DAEMON_STORE_H

#include "base/model.h"
#include "kernels/kernels.h"

struct weft_store;

int weft_store_open(struct weft_store **ret, weft_err *err) WEFT_MUST_USE;
void weft_store_close(struct weft_store *s); /* accepts NULL */

/* Makes the store serve this model (copied), which weft_model_check accepted: shards of a model
 * with another id or shape are dropped. Nothing changes on failure (-WEFT_ENOMEM). */
int weft_store_set_model(struct weft_store *s, const struct weft_model *m,
                         weft_err *err) WEFT_MUST_USE;
const struct weft_model *weft_store_model(const struct weft_store *s); /* NULL: empty */

/* True when all parts of the run are there. */
bool weft_store_has(const struct weft_store *s, const struct weft_shard_run *run);
/* Bytes that the run takes once packed, not counting parts that are there already. */
uint64_t weft_store_need_bytes(const struct weft_store *s, const struct weft_shard_run *run);
uint64_t
weft_store_bytes(const struct weft_store *s); /* held now, half-received tensors included */
/* Frees every tensor that no run of the list uses. */
void weft_store_keep_only(struct weft_store *s, const struct weft_shard_run *runs, size_t n);

/* Adds bytes [offset, offset + size) of a part, in order. Packs whole tiles as they complete; the
 * last piece makes the tensor visible. Bytes of a tensor that is there already are left (the
 * embedding of a tied model is also its head). -WEFT_EUNSUPPORTED (run not whole: not in this
 * version), -WEFT_ESHAPE (offset not the expected, over the end: the text names the shard and both
 * numbers), -WEFT_ESTATE (no model yet), -WEFT_ENOMEM. Nothing was taken on failure. */
int weft_store_put(struct weft_store *s, const struct weft_shard_run *run, enum weft_role role,
                   uint64_t offset, const void *data, size_t size, weft_err *err) WEFT_MUST_USE;
/* Forgets half-received tensors. */
void weft_store_abort(struct weft_store *s);

/* The packed matrix (or f32 vector as [1, cols] with plain data) of a role; NULL when absent. For
 * OUTPUT of a tied model the embedding's. */
const struct wk_matrix *weft_store_matrix(const struct weft_store *s, enum weft_role role,
                                          uint32_t layer);
/* The matrix of one expert of a role that weft_store_matrix finds (that one is of expert 0). */
struct wk_matrix weft_store_expert(const struct weft_store *s, enum weft_role role, uint32_t layer,
                                   uint32_t expert);
const float *weft_store_vector(const struct weft_store *s, enum weft_role role, uint32_t layer);

/* The runs a stage needs, in the order a stage uses them: fills the first n of runs and returns how
 * many there are. */
size_t weft_stage_runs(const struct weft_model *m, uint32_t first_layer, uint32_t n_layers,
                       bool embed, bool head, struct weft_shard_run *runs, size_t n);

#endif
