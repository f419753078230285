/*
 * Node: a Deploy becomes an epoch. The plan is checked, what it needs is weighed against the
 * memory, then its buffers are allocated; a plan that is refused leaves nothing behind.
 */
#include "daemon/node_private.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------ is the plan one? */

static int check_member(const struct weft_model *m, const Weft__Stage *s, uint32_t index,
                        weft_err *err)
{
    unsigned found = 0, needed = 0;
    if (s->n_members != 1)
        return weft_fail(err, WEFT_EUNSUPPORTED,
                         "stage %u has %zu members, this version serves one", index, s->n_members);
    const Weft__Member *member = s->members[0];
    if (member->address[0] == '\0' || strlen(member->address) >= NODE_ADDRESS_MAX ||
        strlen(member->name) > WEFT_NAME_MAX)
        return weft_fail(err, WEFT_EPROTOCOL,
                         "stage %u: name or address of its member is empty or too long", index);
    for (size_t i = 0; i < member->n_shards; i++) {
        struct weft_shard_run run;
        int r = weft_run_of_wire(member->shards[i], &run, err);
        if (r < 0)
            return r;
        uint32_t space = weft_shard_space(m, run.kind);
        if (run.first != 0 || run.count != space || space == 0)
            return weft_fail(
                err, WEFT_EUNSUPPORTED,
                "stage %u: %s has %s %u..%u of %u, this version does not divide a stage", index,
                member->name, weft_shard_kind_name(run.kind), run.first, run.first + run.count,
                space);
        found |= 1u << run.kind;
    }
    if (s->embed)
        needed |= 1u << WEFT_SHARD_EMBED;
    if (s->n_layers > 0)
        needed |= 1u << WEFT_SHARD_NORMS | 1u << WEFT_SHARD_ATTN | 1u << WEFT_SHARD_FFN |
                  1u << WEFT_SHARD_EXPERT;
    if (s->head)
        needed |= 1u << WEFT_SHARD_HEAD_NORM | 1u << WEFT_SHARD_HEAD;
    for (unsigned kind = 0; kind < WEFT_SHARD_KIND_COUNT; kind++)
        if (((needed & ~found) >> kind & 1) != 0 &&
            weft_shard_space(m, (enum weft_shard_kind)kind) > 0)
            return weft_fail(err, WEFT_EUNSUPPORTED, "stage %u: nobody has its %s shards", index,
                             weft_shard_kind_name((enum weft_shard_kind)kind));
    return 0;
}

/* The stages run through all layers in order; the first embeds, the last has the head. */
static int check_stages(const Weft__Deploy *d, const struct weft_model *m, weft_err *err)
{
    uint32_t layer = 0;
    if (d->n_stages == 0 || d->n_stages > NODE_PLAN_MAX)
        return weft_fail(err, WEFT_ELIMIT, "%zu stages, expected 1 to %u", d->n_stages,
                         NODE_PLAN_MAX);
    for (uint32_t i = 0; i < d->n_stages; i++) {
        const Weft__Stage *s = d->stages[i];
        if (s->first_layer != layer || s->n_layers > m->n_layers - layer)
            return weft_fail(err, WEFT_ESHAPE,
                             "stage %u: layers %u + %u, expected from %u, %u in all", i,
                             s->first_layer, s->n_layers, layer, m->n_layers);
        if (s->embed != (i == 0) || s->head != (i + 1 == d->n_stages))
            return weft_fail(err, WEFT_ESHAPE, "stage %u of %zu: %s", i, d->n_stages,
                             s->embed != (i == 0)
                                 ? "the first stage, and no other, has the embedding"
                                 : "the last stage, and no other, has the head");
        layer += s->n_layers;
        int r = check_member(m, s, i, err);
        if (r < 0)
            return r;
    }
    if (layer != m->n_layers)
        return weft_fail(err, WEFT_ESHAPE, "the stages have %u layers, the model %u", layer,
                         m->n_layers);
    return 0;
}

static int check_deploy(const Weft__Deploy *d, const struct weft_model *m, weft_err *err)
{
    if (d->context == 0 || d->context > WEFT_CONTEXT_MAX)
        return weft_fail(err, WEFT_ELIMIT, "context %u, expected 1 to %u", d->context,
                         WEFT_CONTEXT_MAX);
    if (d->sessions == 0 || d->sessions > WEFT_SESSIONS_MAX)
        return weft_fail(err, WEFT_ELIMIT, "%u sessions, expected 1 to %u", d->sessions,
                         WEFT_SESSIONS_MAX);
    if (d->batch_rows == 0 || d->batch_rows > WEFT_BATCH_ROWS_MAX)
        return weft_fail(err, WEFT_ELIMIT, "steps of %u rows, expected 1 to %u", d->batch_rows,
                         WEFT_BATCH_ROWS_MAX);
    if (d->kv != WEFT__KV_TYPE__KV_F16 && d->kv != WEFT__KV_TYPE__KV_F32 &&
        d->kv != WEFT__KV_TYPE__KV_Q8_0)
        return weft_fail(err, WEFT_EUNSUPPORTED, "KV type %d, this daemon knows f16, f32 and q8_0",
                         (int)d->kv);
    if (d->gemm != WEFT__GEMM__GEMM_OPENBLAS && d->gemm != WEFT__GEMM__GEMM_WEFT)
        return weft_fail(err, WEFT_EUNSUPPORTED, "gemm %d", (int)d->gemm);
    if (d->n_mine == 0 || d->n_mine > WEFT_NODE_STAGES_MAX)
        return weft_fail(err, WEFT_ELIMIT, "%zu stages here, expected 1 to %u", d->n_mine,
                         WEFT_NODE_STAGES_MAX);
    int r = check_stages(d, m, err);
    for (size_t i = 0; r == 0 && i < d->n_mine; i++)
        if (d->mine[i] >= d->n_stages || (i > 0 && d->mine[i] <= d->mine[i - 1]))
            r = weft_fail(err, WEFT_EPROTOCOL,
                          "stage %u stands at place %zu of ours, of %zu in all", d->mine[i], i,
                          d->n_stages);
    return r;
}

/* ------------------------------------------------------------------ memory of an epoch */

struct weft_stage_options node_stage_options(const struct node_stage *st)
{
    const struct node_epoch *e = st->epoch;
    return (struct weft_stage_options){
        .store = e->node->store,
        .engine = e->engine,
        .first_layer = st->first_layer,
        .n_layers = st->n_layers,
        .embed = st->embed,
        .head = st->head,
        .context = e->context,
        .sessions = e->n_slots,
        .batch_rows = e->batch_rows,
        .kv = e->kv,
    };
}

/* Our own buffers of a stage, beside KV and scratch. */
static uint64_t buffer_bytes(const struct node_stage *st)
{
    const struct node_epoch *e = st->epoch;
    uint64_t rows = e->batch_rows, bytes = 0;
    if (st->embed)
        bytes += rows * sizeof(int32_t) + (uint64_t)e->n_slots * e->context * sizeof(int32_t);
    else
        bytes += 2 * rows * e->model->dim * sizeof(float);
    if (st->head)
        bytes += (uint64_t)e->model->vocab * sizeof(struct weft_candidate) + e->model->vocab / 8 +
                 e->n_slots * (sizeof(struct node_sample) + WEFT_HISTORY_MAX * sizeof(int32_t) +
                               WEFT_LOGIT_BIAS_MAX * sizeof(struct weft_logit_bias));
    return bytes;
}

static int batch_open(struct node_batch *b, const struct node_stage *st)
{
    const struct node_epoch *e = st->epoch;
    b->segs = calloc(e->n_slots, sizeof *b->segs);
    if (st->embed) {
        b->tokens = calloc(e->batch_rows, sizeof *b->tokens);
    } else {
        size_t bytes = (size_t)e->batch_rows * e->model->dim * sizeof(float);
        b->x = aligned_alloc(WK_ALIGN, (bytes + WK_ALIGN - 1) / WK_ALIGN * WK_ALIGN);
    }
    return b->segs != NULL && (b->tokens != NULL || b->x != NULL) ? 0 : -WEFT_ENOMEM;
}

static void batch_close(struct node_batch *b)
{
    free(b->segs);
    free(b->x);
    free(b->tokens);
}

static int stage_buffers(struct node_stage *st)
{
    const struct node_epoch *e = st->epoch;
    size_t n = e->n_slots;
    int r = batch_open(&st->hand, st);
    if (r == 0 && !st->embed)
        r = batch_open(&st->fill, st);
    st->segments = calloc(n, sizeof *st->segments);
    st->wire = calloc(n, sizeof *st->wire);
    st->wire_at = calloc(n, sizeof *st->wire_at);
    st->parsed = calloc(n, sizeof *st->parsed);
    if (r < 0 || st->segments == NULL || st->wire == NULL || st->wire_at == NULL ||
        st->parsed == NULL)
        return -WEFT_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        weft__segment__init(&st->wire[i]);
        st->wire_at[i] = &st->wire[i];
    }
    if (!st->head)
        return 0;
    st->candidates = calloc(e->model->vocab, sizeof *st->candidates);
    st->allowed = calloc((e->model->vocab + 63u) / 64u, sizeof *st->allowed);
    st->samples = calloc(n, sizeof *st->samples);
    return st->candidates != NULL && st->allowed != NULL && st->samples != NULL ? 0 : -WEFT_ENOMEM;
}

static int epoch_buffers(struct node_epoch *e, weft_err *err)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < e->n_stages; i++)
        r = stage_buffers(&e->stages[i]);
    e->sessions = calloc(e->n_slots, sizeof *e->sessions);
    if (e->sessions == NULL)
        r = -WEFT_ENOMEM;
    for (uint32_t i = 0; r == 0 && i < e->n_slots; i++) {
        struct node_session *s = &e->sessions[i];
        s->slot = i;
        if (e->first != NULL && (s->tokens = calloc(e->context, sizeof *s->tokens)) == NULL)
            r = -WEFT_ENOMEM;
        if (e->head != NULL &&
            ((s->history = calloc(WEFT_HISTORY_MAX, sizeof *s->history)) == NULL ||
             (s->bias = calloc(WEFT_LOGIT_BIAS_MAX, sizeof *s->bias)) == NULL))
            r = -WEFT_ENOMEM;
    }
    return r < 0 ? weft_fail(err, WEFT_ENOMEM, "buffers of %u stages", e->n_stages) : 0;
}

void node_epoch_free(struct node_epoch *e)
{
    if (e == NULL)
        return;
    for (uint32_t i = 0; i < e->n_stages; i++) {
        struct node_stage *st = &e->stages[i];
        weft_stage_close(st->stage);
        for (uint32_t k = 0; k < st->n_queue; k++)
            weft_frame_free(st->queue[k]);
        batch_close(&st->fill);
        batch_close(&st->hand);
        free(st->segments);
        free(st->wire);
        free(st->wire_at);
        free(st->parsed);
        free(st->candidates);
        free(st->allowed);
        free(st->samples);
    }
    for (uint32_t i = 0; e->sessions != NULL && i < e->n_slots; i++) {
        weft_frame_free(e->sessions[i].begin);
        node_sampling_done(&e->sessions[i]);
        free(e->sessions[i].tokens);
        free(e->sessions[i].history);
        free(e->sessions[i].bias);
    }
    node_vocab_done(&e->vocab);
    free(e->sessions);
    free(e->stages);
    free(e->missing);
    weft_arena_done(&e->arena);
    free(e);
}

/* ------------------------------------------------------------------ the epoch */

static int epoch_plan(struct node_epoch *e, const Weft__Deploy *d, weft_err *err)
{
    e->n_plan = (uint32_t)d->n_stages;
    e->plan = weft_arena_array(&e->arena, d->n_stages, sizeof *e->plan);
    e->stages = calloc(d->n_mine, sizeof *e->stages);
    if (e->plan == NULL || e->stages == NULL)
        return weft_fail(err, WEFT_ENOMEM, "plan of %zu stages", d->n_stages);
    for (uint32_t i = 0; i < e->n_plan; i++) {
        e->plan[i].name = weft_arena_strdup(&e->arena, d->stages[i]->members[0]->name);
        e->plan[i].address = weft_arena_strdup(&e->arena, d->stages[i]->members[0]->address);
        if (e->plan[i].name == NULL || e->plan[i].address == NULL)
            return weft_fail(err, WEFT_ENOMEM, "plan of %zu stages", d->n_stages);
    }
    e->n_stages = (uint32_t)d->n_mine;
    for (uint32_t i = 0; i < e->n_stages; i++) {
        const Weft__Stage *s = d->stages[d->mine[i]];
        struct node_stage *st = &e->stages[i];
        st->epoch = e;
        st->index = d->mine[i];
        st->first_layer = s->first_layer;
        st->n_layers = s->n_layers;
        st->embed = s->embed;
        st->head = s->head;
        st->work = (struct weft_work){
            .run = node_work_stage_run, .done = node_work_stage_done, .owner = st};
        e->plan[st->index].mine = true;
        if (i > 0 && e->stages[i - 1].index + 1 == st->index)
            e->stages[i - 1].next = st;
        if (st->embed)
            e->first = st;
        if (st->head)
            e->head = st;
    }
    return 0;
}

static bool listed(const struct node_missing *list, size_t n, const struct weft_shard_run *run)
{
    for (size_t i = 0; i < n; i++)
        if (list[i].run.kind == run->kind && list[i].run.layer == run->layer)
            return true;
    return false;
}

/* All runs that our stages need, each once, in *ret; and how many there are. */
static int epoch_runs(struct node_epoch *e, struct weft_shard_run **ret, size_t *ret_n,
                      weft_err *err)
{
    size_t n = 0;
    for (uint32_t i = 0; i < e->n_stages; i++) {
        const struct node_stage *st = &e->stages[i];
        n += weft_stage_runs(e->model, st->first_layer, st->n_layers, st->embed, st->head, NULL, 0);
    }
    /* + 1: calloc(0) may give NULL, and stages between the ends may be empty. */
    struct weft_shard_run *runs = calloc(n + 1, sizeof *runs);
    e->missing = calloc(n + 1, sizeof *e->missing);
    if (runs == NULL || e->missing == NULL) {
        free(runs);
        return weft_fail(err, WEFT_ENOMEM, "%zu runs of shards", n);
    }
    size_t at = 0;
    for (uint32_t i = 0; i < e->n_stages; i++) {
        const struct node_stage *st = &e->stages[i];
        at += weft_stage_runs(e->model, st->first_layer, st->n_layers, st->embed, st->head,
                              runs + at, n - at);
    }
    *ret = runs;
    *ret_n = n;
    return 0;
}

/* Which runs are to come. Only those that stand once per model can be named by two stages; the head
 * of a tied model is the embedding, which comes first. */
static void epoch_missing(struct node_epoch *e, const struct weft_shard_run *runs, size_t n)
{
    const struct weft_shard_run embed = {.kind = WEFT_SHARD_EMBED};
    e->n_missing = 0;
    for (size_t i = 0; i < n; i++) {
        if (weft_store_has(e->node->store, &runs[i]) ||
            (!weft_shard_layered(runs[i].kind) && listed(e->missing, e->n_missing, &runs[i])) ||
            (runs[i].kind == WEFT_SHARD_HEAD && e->model->tied &&
             listed(e->missing, e->n_missing, &embed)))
            continue;
        e->missing[e->n_missing++] = (struct node_missing){.run = runs[i]};
    }
    e->n_left = e->n_missing;
}

static int epoch_fits(struct node_epoch *e, const struct weft_shard_run *runs, size_t n_runs,
                      weft_err *err)
{
    struct weft_node *n = e->node;
    uint64_t weights = 0, kv = 0, scratch = 0;
    for (uint32_t i = 0; i < e->n_missing; i++)
        weights += weft_store_need_bytes(n->store, &e->missing[i].run);
    for (uint32_t i = 0; i < e->n_stages; i++) {
        struct weft_stage_options o = node_stage_options(&e->stages[i]);
        kv += weft_stage_kv_bytes(e->model, &o);
        scratch += weft_stage_scratch_bytes(e->model, &o) + buffer_bytes(&e->stages[i]);
    }
    e->stage_bytes = kv + scratch;
    uint64_t need = weights + e->stage_bytes, free_bytes = 0;
    struct weft_look look = {0};
    n->opt.look(n->opt.arg, &look);
    free_bytes = node_free_bytes(n, &look);
    if (need > free_bytes) { /* shards of the same model that this plan does not use make room */
        weft_store_keep_only(n->store, runs, n_runs);
        n->opt.look(n->opt.arg, &look);
        free_bytes = node_free_bytes(n, &look);
    }
    if (need <= free_bytes)
        return 0;
    char t[7][32];
    return weft_fail(
        err, WEFT_ENOFIT,
        "%s: needs %s (shards still to come %s, KV %s, scratch %s), %s of %s are free (%s kept "
        "for the system); fewer layers here, a smaller context or fewer sessions need less",
        n->opt.name, weft_format_size(t[0], sizeof t[0], need),
        weft_format_size(t[1], sizeof t[1], weights), weft_format_size(t[2], sizeof t[2], kv),
        weft_format_size(t[3], sizeof t[3], scratch),
        weft_format_size(t[4], sizeof t[4], free_bytes),
        weft_format_size(t[5], sizeof t[5], look.total_bytes),
        weft_format_size(t[6], sizeof t[6], look.reserve_bytes));
}

int node_epoch_open(struct weft_node *n, const Weft__Deploy *d, struct node_epoch **ret,
                    weft_err *err)
{
    struct weft_model model = {0};
    struct weft_shard_run *runs = NULL;
    size_t n_runs = 0;
    struct node_epoch *e = calloc(1, sizeof *e);
    if (e == NULL)
        return weft_fail(err, WEFT_ENOMEM, "plan");
    e->node = n;
    weft_arena_init(&e->arena, 0); /* what it copies came in one frame */
    int r = d->model != NULL ? weft_model_of_wire(d->model, &model, err)
                             : weft_fail(err, WEFT_EPROTOCOL, "Deploy without a model");
    if (r == 0)
        r = check_deploy(d, &model, err);
    if (r == 0)
        r = weft_store_set_model(n->store, &model, err);
    if (r < 0)
        goto out;
    e->model = weft_store_model(n->store);
    weft__epoch__init(&e->id);
    e->id.coordinator = d->epoch->coordinator;
    e->id.counter = d->epoch->counter;
    e->context = d->context;
    e->n_slots = d->sessions;
    e->batch_rows = d->batch_rows;
    e->kv = d->kv == WEFT__KV_TYPE__KV_F32    ? WK_KV_F32
            : d->kv == WEFT__KV_TYPE__KV_Q8_0 ? WK_KV_Q8_0
                                              : WK_KV_F16; /* check_deploy knows no other */
    e->engine = n->opt.engine;
    /* OpenBLAS never in a model with quantised matrices: its bits are not ref.c's. */
    e->engine.gemm = d->gemm == WEFT__GEMM__GEMM_OPENBLAS && !weft_model_quantised(&model)
                         ? WK_GEMM_OPENBLAS
                         : WK_GEMM_WEFT;
    r = epoch_plan(e, d, err);
    if (r == 0)
        r = epoch_runs(e, &runs, &n_runs, err);
    if (r < 0)
        goto out;
    epoch_missing(e, runs, n_runs);
    r = epoch_fits(e, runs, n_runs, err);
    if (r == 0)
        r = epoch_buffers(e, err);
out:
    free(runs);
    weft_model_done(&model);
    if (r < 0)
        node_epoch_free(e);
    else
        *ret = e;
    return r;
}
