/*
 * A model in this process, see local_model.h.
 */
#include "tests/local_model.h"

#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"

/* Bytes of a piece in which shards reach a store: no multiple of a row or tile, so that both meet.
 */
#define PIECE_BYTES 10007

int local_file_open(const char *path, struct weft_model_file *file, struct weft_model *model,
                    weft_err *err)
{
    const char *found = weft_test_path(path);
    if (found == NULL)
        return weft_fail(err, WEFT_EMODEL, "%s is not there", path);
    int r = weft_model_file_open(found, file, err);
    if (r < 0)
        return r;
    r = weft_model_from_gguf(&file->gguf, file->maps, model, err);
    if (r < 0)
        weft_model_file_close(file);
    return r;
}

int local_store_fill(struct weft_store *store, const struct weft_model *m,
                     const struct weft_mapping *files, const struct weft_shard_run *run,
                     size_t piece, weft_err *err)
{
    struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
    size_t n_parts = 0;
    int r = weft_shard_parts(m, run, parts, &n_parts, err);
    uint8_t *buf = malloc(piece);
    if (buf == NULL)
        return weft_fail(err, WEFT_ENOMEM, "piece of a shard");
    for (size_t i = 0; r == 0 && i < n_parts; i++)
        for (uint64_t at = 0; r == 0 && at < parts[i].bytes; at += piece) {
            size_t n = parts[i].bytes - at < piece ? (size_t)(parts[i].bytes - at) : piece;
            weft_shard_read(m, files, &parts[i], at, buf, n);
            r = weft_store_put(store, run, parts[i].role, at, buf, n, err);
        }
    free(buf);
    return r;
}

/* Gives store `i` the runs of a stage. */
static int fill(struct local_model *m, size_t i, const struct weft_stage_options *o, weft_err *err)
{
    size_t n = weft_stage_runs(&m->model, o->first_layer, o->n_layers, o->embed, o->head, NULL, 0);
    struct weft_shard_run *runs = calloc(n, sizeof *runs);
    if (runs == NULL)
        return weft_fail(err, WEFT_ENOMEM, "runs of a stage");
    weft_stage_runs(&m->model, o->first_layer, o->n_layers, o->embed, o->head, runs, n);
    int r = weft_store_set_model(m->store[i], &m->model, err);
    for (size_t k = 0; r == 0 && k < n; k++)
        r = local_store_fill(m->store[i], &m->model, m->file.maps, &runs[k], PIECE_BYTES, err);
    free(runs);
    return r;
}

static int open_stage(struct local_model *m, const struct local_model_options *o, size_t i,
                      const struct wk_engine *engine, weft_err *err)
{
    uint32_t first = i == 0 ? 0 : o->cuts[i - 1];
    uint32_t end = i < o->n_cuts ? o->cuts[i] : m->model.n_layers;
    int r = weft_store_open(&m->store[i], err);
    if (r < 0)
        return r;
    m->n_stages = i + 1;
    struct weft_stage_options so = {
        .store = m->store[i],
        .engine = *engine,
        .first_layer = first,
        .n_layers = end - first,
        .embed = i == 0,
        .head = i == o->n_cuts,
        .context = o->context != 0 ? o->context : 256,
        .sessions = o->sessions != 0 ? o->sessions : 1,
        .batch_rows = o->batch_rows != 0 ? o->batch_rows : 64,
        .kv = o->kv,
    };
    r = fill(m, i, &so, err);
    return r < 0 ? r : weft_stage_open(&so, &m->stage[i], err);
}

int local_model_open(const struct local_model_options *o, struct local_model *ret, weft_err *err)
{
    struct local_model m = {0};
    struct wk_engine engine = {.table = wk_table_select(o->isa), .gemm = o->gemm};
    if (engine.table == NULL)
        return weft_fail(err, WEFT_EUNSUPPORTED, "instruction set %s", o->isa);
    int r = local_file_open(o->path, &m.file, &m.model, err);
    if (r < 0)
        return r;
    if (o->threads > 1)
        engine.pool = m.pool = wk_pool_open(o->threads);
    for (size_t i = 0; r == 0 && i <= o->n_cuts; i++)
        r = open_stage(&m, o, i, &engine, err);
    if (r < 0) {
        local_model_close(&m);
        return r;
    }
    *ret = m;
    return 0;
}

void local_model_close(struct local_model *m)
{
    for (size_t i = 0; i < m->n_stages; i++) {
        weft_stage_close(m->stage[i]);
        weft_store_close(m->store[i]);
    }
    wk_pool_close(m->pool);
    weft_model_done(&m->model);
    weft_model_file_close(&m->file);
    *m = (struct local_model){0};
}

int local_model_step(struct local_model *m, const struct weft_segment *segments,
                     uint32_t n_segments, const int32_t *tokens, weft_err *err)
{
    struct weft_step step = {.segments = segments, .n_segments = n_segments, .tokens = tokens};
    for (uint32_t i = 0; i < n_segments; i++)
        step.n_rows += segments[i].rows;
    for (size_t i = 0; i < m->n_stages; i++) {
        int r = weft_stage_run(m->stage[i], &step, err);
        if (r < 0)
            return r;
        step.tokens = NULL;
        step.x = weft_stage_output(m->stage[i]);
    }
    return 0;
}

int local_model_feed(struct local_model *m, const int32_t *tokens, uint32_t n, uint32_t rows,
                     float *logits, weft_err *err)
{
    for (uint32_t at = 0, count; at < n; at += count) {
        count = n - at < rows ? n - at : rows;
        struct weft_segment segment = {
            .position = weft_stage_length(m->stage[0], 0),
            .rows = count,
            .logits = logits != NULL ? WEFT_LOGITS_ALL : WEFT_LOGITS_LAST,
        };
        int r = local_model_step(m, &segment, 1, tokens + at, err);
        if (r < 0)
            return r;
        uint32_t got;
        const float *from = local_model_logits(m, &got);
        if (logits != NULL)
            memcpy(logits + (size_t)at * m->model.vocab, from,
                   (size_t)got * m->model.vocab * sizeof *logits);
    }
    return 0;
}

const float *local_model_logits(const struct local_model *m, uint32_t *ret_rows)
{
    return weft_stage_logits(m->stage[m->n_stages - 1], ret_rows);
}

void local_model_trim(struct local_model *m, uint32_t slot, uint32_t length)
{
    for (size_t i = 0; i < m->n_stages; i++)
        weft_stage_trim(m->stage[i], slot, length);
}

int32_t local_argmax(const float *logits, uint32_t vocab)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best])
            best = i;
    return (int32_t)best;
}
