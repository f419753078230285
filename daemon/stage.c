/*
 * Stage, see stage.h.
 *
 * Invariant: of a slot positions [0, length) are computed and in the KV cache of every layer; what
 * lies behind is of failed steps or cut, and is written anew before it is read. Lengths change only
 * in weft_stage_trim and at the end of a step that succeeded. Compute thread.
 */
#include "daemon/stage.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/layer.h"
#include "daemon/pages.h"

struct weft_stage {
    struct weft_stage_options o;
    const struct weft_model *model;
    const struct wk_matrix *embed, *head; /* [vocab, dim]; NULL where not of this stage */
    const float *head_norm;               /* [dim] */
    double *frequency[2];                 /* [rope_dim / 2] of angles[2], owned; NULL: not used */
    float magnitude;                      /* of angles[0]; the others have 1 */
    struct weft_layer_weights *layers;    /* [n_layers] */
    struct wk_kv *kv;                     /* [n_layers, sessions] */
    uint32_t length[WEFT_SESSIONS_MAX];   /* positions of each slot */

    uint8_t *kv_data; /* [sessions, n_layers] caches */
    uint64_t kv_bytes;
    void *scratch;
    uint64_t scratch_bytes;
    struct weft_layer_buffers buffers; /* in scratch */
    int32_t *positions;                /* [batch_rows] */
    float *logits;                     /* [batch_rows, vocab] */

    uint32_t n_rows, n_logit_rows; /* of the last step; 0 when it failed */
};

/* ------------------------------------------------------------------ memory */

/* Bytes of the cache of one layer and slot. */
static uint64_t kv_unit_bytes(const struct weft_model *m, const struct weft_stage_options *o)
{
    uint32_t capacity = (o->context + WK_KV_BLOCK - 1) / WK_KV_BLOCK * WK_KV_BLOCK;
    return wk_kv_bytes(o->kv, m->n_kv_heads, m->head_dim, capacity);
}

uint64_t weft_stage_kv_bytes(const struct weft_model *m, const struct weft_stage_options *o)
{
    return kv_unit_bytes(m, o) * o->n_layers * o->sessions;
}

/* Cuts buffers out of one block. With base NULL it only adds up what the block must hold. */
struct carver {
    uint8_t *base;
    uint64_t used;
};

static void *carve(struct carver *c, uint64_t bytes)
{
    void *p = c->base != NULL ? c->base + c->used : NULL;
    c->used += (bytes + WK_ALIGN - 1) / WK_ALIGN * WK_ALIGN;
    return p;
}

static float *carve_floats(struct carver *c, uint64_t rows, uint64_t cols)
{
    return carve(c, rows * cols * sizeof(float));
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* What the types of a stage's matrices ask for. */
struct needs {
    bool normed;                /* f32 of the norms: a matrix behind one is float */
    bool q8;                    /* a matrix is quantised */
    bool hidden_f32, hidden_q8; /* a down matrix is float, is quantised */
    bool expert_f32, expert_q8; /* the same of experts' gates and ups */
    uint64_t matmul;            /* the most scratch any product takes */
};

static bool is_gate(enum weft_role role)
{
    return role == WEFT_ROLE_FFN_GATE || role == WEFT_ROLE_SHARED_GATE ||
           role == WEFT_ROLE_EXPERT_GATE;
}

static bool is_down(enum weft_role role)
{
    return role == WEFT_ROLE_FFN_DOWN || role == WEFT_ROLE_SHARED_DOWN ||
           role == WEFT_ROLE_EXPERT_DOWN;
}

static void need(struct needs *needs, const struct weft_model *m,
                 const struct weft_stage_options *o, enum weft_role role,
                 const struct weft_tensor *t)
{
    const enum wk_type type = (enum wk_type)t->type;
    const bool q8 = wk_type_quantised(type);
    if (t->bytes == 0)
        return;
    const uint32_t rows = weft_role_experts(role) ? t->rows / m->traits.n_experts : t->rows;
    uint64_t scratch = is_gate(role)
                           ? wk_glu_scratch(&o->engine, type, o->batch_rows, rows, t->cols)
                           : wk_matmul_scratch(&o->engine, type, o->batch_rows, rows, t->cols);
    needs->matmul = max_u64(needs->matmul, scratch);
    needs->q8 |= q8;
    needs->expert_f32 |= weft_role_experts(role) && !is_down(role) && !q8;
    needs->expert_q8 |= weft_role_experts(role) && !is_down(role) && q8;
    if (is_down(role) && q8)
        needs->hidden_q8 = true;
    else if (is_down(role))
        needs->hidden_f32 = true;
    else if (role != WEFT_ROLE_ATTN_O && role >= WEFT_ROLE_GLOBAL_COUNT)
        needs->normed |= !q8; /* the head's norm takes the place of the residual */
}

static struct needs stage_needs(const struct weft_model *m, const struct weft_stage_options *o)
{
    struct needs needs = {0};
    for (uint32_t i = 0; i < o->n_layers; i++)
        for (int role = WEFT_ROLE_GLOBAL_COUNT; role < WEFT_ROLE_COUNT; role++)
            if (weft_role_matrix((enum weft_role)role))
                need(&needs, m, o, (enum weft_role)role,
                     weft_model_tensor(m, (enum weft_role)role, o->first_layer + i));
    if (o->head)
        need(&needs, m, o, WEFT_ROLE_OUTPUT,
             weft_model_tensor(m, m->tied ? WEFT_ROLE_EMBED : WEFT_ROLE_OUTPUT, 0));
    return needs;
}

static void carve_experts(struct carver *c, const struct weft_model *m, const struct needs *needs,
                          uint32_t batch_rows, struct weft_expert_buffers *b)
{
    const uint64_t n = batch_rows, experts = m->traits.n_experts,
                   pairs = n * m->traits.n_experts_used;
    b->logits = carve_floats(c, n, experts);
    b->chosen = carve(c, pairs * sizeof *b->chosen);
    b->weight = carve_floats(c, pairs, 1);
    b->first = carve(c, (experts + 1) * sizeof *b->first);
    b->pair_row = carve(c, pairs * sizeof *b->pair_row);
    b->pair_weight = carve_floats(c, pairs, 1);
    b->x = needs->expert_f32 ? carve_floats(c, n, m->dim) : NULL;
    b->q8 = needs->expert_q8 ? carve(c, wk_act_bytes(batch_rows, m->dim)) : NULL;
    b->shared = carve_floats(c, n, 1);
}

/* Lays out the scratch of a stage; the same walk gives its size. */
static void carve_buffers(struct carver *c, const struct weft_model *m,
                          const struct weft_stage_options *o, struct weft_layer_buffers *b,
                          int32_t **positions, float **logits)
{
    const struct needs needs = stage_needs(m, o);
    const uint64_t n = o->batch_rows, q_cols = (uint64_t)m->n_heads * m->head_dim;
    const uint64_t kv_cols = (uint64_t)m->n_kv_heads * m->head_dim;
    const uint32_t ffn =
        m->ffn_dim > m->traits.expert_ffn ? m->ffn_dim : m->traits.expert_ffn; /* the widest */
    *b = (struct weft_layer_buffers){.x = carve_floats(c, n, m->dim)};
    *positions = carve(c, n * sizeof **positions);
    if (needs.normed)
        b->normed = carve_floats(c, n, m->dim);
    if (o->n_layers > 0) {
        /* The two halves of a layer use the same memory in turn. */
        struct carver second = *c;
        b->q = carve_floats(c, n, q_cols);
        b->k = carve_floats(c, n, kv_cols);
        b->v = carve_floats(c, n, kv_cols);
        b->heads = carve_floats(c, n, q_cols);
        uint64_t hidden = needs.hidden_f32 ? n * ffn * sizeof(float) : 0;
        if (needs.hidden_q8)
            hidden = max_u64(hidden, wk_act_bytes(o->batch_rows, ffn));
        b->hidden = carve(&second, hidden);
        if (m->traits.n_experts > 0) {
            b->sum = carve(&second, n * m->dim * sizeof *b->sum);
            carve_experts(&second, m, &needs, o->batch_rows, &b->experts);
        }
        c->used = max_u64(c->used, second.used);
        if (!weft_layer_direct(m))
            b->half = carve_floats(c, n, m->dim);
        for (int i = 0; i < (m->traits.rope_window_base > 0 ? 2 : 1); i++) {
            b->angles[i].cos = carve_floats(c, n, m->rope_dim / 2);
            b->angles[i].sin = carve_floats(c, n, m->rope_dim / 2);
        }
    }
    const uint64_t widest = o->n_layers > 0 ? max_u64(m->dim, q_cols) : m->dim;
    if (needs.q8)
        b->q8 = carve(c, wk_act_bytes(o->batch_rows, (uint32_t)widest));
    b->matmul = carve(c, needs.matmul);
    const uint64_t attention =
        o->n_layers > 0 ? wk_attention_scratch(&o->engine, m->n_heads, m->head_dim) : 0;
    b->attention = attention > 0 ? carve(c, attention) : NULL;
    *logits = o->head ? carve_floats(c, n, m->vocab) : NULL;
}

/* The engine as the model allows it. */
static struct weft_stage_options settle(const struct weft_model *m,
                                        const struct weft_stage_options *o)
{
    struct weft_stage_options ret = *o;
    if (weft_model_quantised(m))
        ret.engine.gemm = WK_GEMM_WEFT;
    return ret;
}

uint64_t weft_stage_scratch_bytes(const struct weft_model *m, const struct weft_stage_options *o)
{
    struct carver c = {0};
    struct weft_layer_buffers b;
    int32_t *positions;
    float *logits;
    struct weft_stage_options settled = settle(m, o);
    carve_buffers(&c, m, &settled, &b, &positions, &logits);
    return c.used;
}

/* ------------------------------------------------------------------ opening */

static int check_options(const struct weft_model *m, const struct weft_stage_options *o,
                         weft_err *err)
{
    const struct {
        const char *name;
        uint32_t value, max;
    } limits[] = {
        {"context", o->context, WEFT_CONTEXT_MAX},
        {"sessions", o->sessions, WEFT_SESSIONS_MAX},
        {"batch_rows", o->batch_rows, WEFT_BATCH_ROWS_MAX},
    };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (limits[i].value == 0 || limits[i].value > limits[i].max)
            return weft_fail(err, WEFT_ELIMIT, "%s of %u, expected 1 to %u", limits[i].name,
                             limits[i].value, limits[i].max);
    if (o->first_layer > m->n_layers || o->n_layers > m->n_layers - o->first_layer)
        return weft_fail(err, WEFT_ESHAPE, "%u layers from %u on, the model has %u", o->n_layers,
                         o->first_layer, m->n_layers);
    return 0;
}

static int missing(enum weft_role role, weft_err *err)
{
    char name[WEFT_GGUF_NAME_MAX + 1];
    return weft_fail(err, WEFT_ESTATE, "%s is not loaded", weft_role_tensor_name(name, role, 0));
}

/* Frequencies of rotation. Longrope has two sets of factors; the context of the sessions, not their
 * present length, decides, so that a position never turns otherwise than it did. */
static int find_rotation(struct weft_stage *s, weft_err *err)
{
    static const enum wk_rope_scaling scalings[WEFT_ROPE_SCALING_COUNT] = {
        [WEFT_ROPE_PLAIN] = WK_ROPE_PLAIN,
        [WEFT_ROPE_LINEAR] = WK_ROPE_LINEAR,
        [WEFT_ROPE_YARN] = WK_ROPE_YARN,
        [WEFT_ROPE_LONGROPE] = WK_ROPE_PLAIN,
    };
    const struct weft_model *m = s->model;
    const struct weft_traits *t = &m->traits;
    const enum weft_role factors = t->rope_scaling != WEFT_ROPE_LONGROPE ? WEFT_ROLE_ROPE_FREQS
                                   : s->o.context > t->rope_original     ? WEFT_ROLE_ROPE_LONG
                                                                         : WEFT_ROLE_ROPE_SHORT;
    struct wk_rope_spec spec = {
        .rope_dim = m->rope_dim,
        .base = m->rope_base,
        .factors = weft_store_vector(s->o.store, factors, 0),
        .scaling = scalings[t->rope_scaling],
        .factor = t->rope_factor,
        .original_context = (float)t->rope_original,
        .beta_fast = t->yarn_fast,
        .beta_slow = t->yarn_slow,
        .extrapolation = t->yarn_extrapolation,
    };
    if (m->global[factors].bytes > 0 && spec.factors == NULL)
        return missing(factors, err);
    wk_rope_frequencies(&spec, s->frequency[0]);
    s->magnitude = t->rope_magnitude;
    if (t->rope_scaling == WEFT_ROPE_YARN && t->yarn_extrapolation != 0)
        s->magnitude *= wk_yarn_magnitude(t->rope_factor);
    const struct wk_rope_spec plain = {.rope_dim = m->rope_dim, .base = t->rope_window_base};
    if (t->rope_window_base > 0)
        wk_rope_frequencies(&plain, s->frequency[1]);
    return 0;
}

static int find_tensors(struct weft_stage *s, weft_err *err)
{
    const struct weft_store *store = s->o.store;
    if (s->o.embed && (s->embed = weft_store_matrix(store, WEFT_ROLE_EMBED, 0)) == NULL)
        return missing(WEFT_ROLE_EMBED, err);
    if (s->o.head && (s->head_norm = weft_store_vector(store, WEFT_ROLE_OUTPUT_NORM, 0)) == NULL)
        return missing(WEFT_ROLE_OUTPUT_NORM, err);
    if (s->o.head && (s->head = weft_store_matrix(store, WEFT_ROLE_OUTPUT, 0)) == NULL)
        return missing(s->model->tied ? WEFT_ROLE_EMBED : WEFT_ROLE_OUTPUT, err);
    int r = s->o.n_layers > 0 ? find_rotation(s, err) : 0;
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < s->o.n_layers; i++) {
        r = weft_layer_find(store, s->o.first_layer + i, &s->layers[i], err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int alloc_kv(struct weft_stage *s, weft_err *err)
{
    s->kv_bytes = weft_stage_kv_bytes(s->model, &s->o);
    if (s->kv_bytes == 0) /* a stage without layers */
        return 0;
    s->kv_data = weft_pages_alloc(s->kv_bytes);
    if (s->kv_data == NULL)
        return weft_fail(err, WEFT_ENOMEM, "KV cache of %llu bytes",
                         (unsigned long long)s->kv_bytes);
    const uint64_t unit = kv_unit_bytes(s->model, &s->o);
    for (uint32_t layer = 0; layer < s->o.n_layers; layer++)
        for (uint32_t slot = 0; slot < s->o.sessions; slot++)
            s->kv[layer * s->o.sessions + slot] = (struct wk_kv){
                .type = s->o.kv,
                .kv_heads = s->model->n_kv_heads,
                .head_dim = s->model->head_dim,
                .capacity = (s->o.context + WK_KV_BLOCK - 1) / WK_KV_BLOCK * WK_KV_BLOCK,
                .data = s->kv_data + ((uint64_t)slot * s->o.n_layers + layer) * unit,
            };
    return 0;
}

static int alloc_scratch(struct weft_stage *s, weft_err *err)
{
    s->scratch_bytes = weft_stage_scratch_bytes(s->model, &s->o);
    uint64_t bound = weft_stage_scratch_bound(s->model, s->o.batch_rows);
    if (s->scratch_bytes > bound)
        return weft_fail(err, WEFT_EINTERNAL, "scratch of %llu bytes, the plan counted %llu",
                         (unsigned long long)s->scratch_bytes, (unsigned long long)bound);
    struct carver c = {.base = weft_pages_alloc(s->scratch_bytes)};
    if (c.base == NULL)
        return weft_fail(err, WEFT_ENOMEM, "scratch of %llu bytes",
                         (unsigned long long)s->scratch_bytes);
    s->scratch = c.base;
    carve_buffers(&c, s->model, &s->o, &s->buffers, &s->positions, &s->logits);
    assert(c.used == s->scratch_bytes);
    return 0;
}

int weft_stage_open(const struct weft_stage_options *o, struct weft_stage **ret, weft_err *err)
{
    const struct weft_model *m = weft_store_model(o->store);
    if (m == NULL)
        return weft_fail(err, WEFT_ESTATE, "the store has no model");
    int r = check_options(m, o, err);
    if (r < 0)
        return r;
    struct weft_stage *s = calloc(1, sizeof *s);
    if (s == NULL)
        return weft_fail(err, WEFT_ENOMEM, "stage");
    s->o = settle(m, o);
    s->model = m;
    s->layers = calloc((size_t)o->n_layers + 1, sizeof *s->layers); /* + 1: never 0 bytes */
    s->kv = calloc((size_t)o->n_layers * o->sessions + 1, sizeof *s->kv);
    for (int i = 0; i < 2; i++)
        s->frequency[i] = calloc(m->rope_dim / 2, sizeof *s->frequency[i]);
    if (s->layers == NULL || s->kv == NULL || s->frequency[0] == NULL || s->frequency[1] == NULL) {
        weft_stage_close(s);
        return weft_fail(err, WEFT_ENOMEM, "stage of %u layers", o->n_layers);
    }
    r = find_tensors(s, err);
    if (r == 0)
        r = alloc_kv(s, err);
    if (r == 0)
        r = alloc_scratch(s, err);
    if (r < 0) {
        weft_stage_close(s);
        return r;
    }
    *ret = s;
    return 0;
}

void weft_stage_close(struct weft_stage *s)
{
    if (s == NULL)
        return;
    weft_pages_free(s->kv_data, s->kv_bytes);
    weft_pages_free(s->scratch, s->scratch_bytes);
    free(s->kv);
    free(s->layers);
    free(s->frequency[0]);
    free(s->frequency[1]);
    free(s);
}

/* ------------------------------------------------------------------ a step */

static int check_segment(const struct weft_stage *s, const struct weft_segment *g,
                         uint64_t *slots_seen, weft_err *err)
{
    if (g->slot >= s->o.sessions)
        return weft_fail(err, WEFT_ESESSION, "slot %u, this stage has %u", g->slot, s->o.sessions);
    if ((*slots_seen >> g->slot & 1) != 0)
        return weft_fail(err, WEFT_ESHAPE, "slot %u stands twice in a step", g->slot);
    *slots_seen |= 1ull << g->slot;
    if (g->rows == 0 || (unsigned)g->logits > WEFT_LOGITS_ALL)
        return weft_fail(err, WEFT_ESHAPE, "slot %u: segment of %u rows, wish %u for logits",
                         g->slot, g->rows, (unsigned)g->logits);
    if (g->position != s->length[g->slot])
        return weft_fail(err, WEFT_EPOSITION, "slot %u: rows from position %u on, expected %u",
                         g->slot, g->position, s->length[g->slot]);
    if (g->rows > s->o.context - g->position)
        return weft_fail(err, WEFT_ECONTEXT,
                         "slot %u: %u rows from position %u on, the context has %u", g->slot,
                         g->rows, g->position, s->o.context);
    return 0;
}

static int check_step(const struct weft_stage *s, const struct weft_step *step, weft_err *err)
{
    uint64_t rows = 0, slots_seen = 0;
    for (uint32_t i = 0; i < step->n_segments; i++) {
        int r = check_segment(s, &step->segments[i], &slots_seen, err);
        if (r < 0)
            return r;
        rows += step->segments[i].rows;
    }
    if (rows == 0 || rows > s->o.batch_rows || rows != step->n_rows)
        return weft_fail(err, WEFT_ESHAPE,
                         "step of %u rows with segments of %llu, expected 1 to %u", step->n_rows,
                         (unsigned long long)rows, s->o.batch_rows);
    if (s->o.embed ? step->tokens == NULL : step->x == NULL)
        return weft_fail(err, WEFT_ESHAPE, "step without %s",
                         s->o.embed ? "tokens" : "activations");
    for (uint32_t i = 0; s->o.embed && i < step->n_rows; i++)
        if (step->tokens[i] < 0 || (uint32_t)step->tokens[i] >= s->model->vocab)
            return weft_fail(err, WEFT_ESHAPE, "token %d, expected 0 to %u", step->tokens[i],
                             s->model->vocab - 1);
    return 0;
}

static void embed(struct weft_stage *s, const struct weft_step *step)
{
    const size_t dim = s->model->dim;
    if (!s->o.embed)
        memcpy(s->buffers.x, step->x, step->n_rows * dim * sizeof(float));
    for (uint32_t i = 0; s->o.embed && i < step->n_rows; i++)
        wk_matrix_row(s->embed, (uint32_t)step->tokens[i], s->buffers.x + i * dim);
    if (s->o.embed && s->model->traits.embed_scale != 1)
        wk_scale(&s->o.engine, s->buffers.x, step->n_rows * dim, s->model->traits.embed_scale);
}

/* The angles of the rows' positions, which all layers share. */
static void rope_angles(struct weft_stage *s, const struct weft_step *step)
{
    const struct weft_model *m = s->model;
    uint32_t row = 0;
    for (uint32_t i = 0; i < step->n_segments; i++)
        for (uint32_t k = 0; k < step->segments[i].rows; k++)
            s->positions[row++] = (int32_t)(step->segments[i].position + k);
    for (int i = 0; i < (m->traits.rope_window_base > 0 ? 2 : 1); i++)
        wk_rope_angles(s->positions, row, m->rope_dim / 2, s->frequency[i],
                       i == 0 ? s->magnitude : 1, s->buffers.angles[i].cos,
                       s->buffers.angles[i].sin);
}

static int run_layer(struct weft_stage *s, uint32_t i, const struct weft_step *step, weft_err *err)
{
    struct weft_layer layer = {
        .model = s->model,
        .arch = weft_arch_of(s->model),
        .engine = &s->o.engine,
        .store = s->o.store,
        .weights = &s->layers[i],
        .buffers = &s->buffers,
        .kv = &s->kv[(size_t)i * s->o.sessions],
        .segments = step->segments,
        .n_segments = step->n_segments,
        .n_rows = step->n_rows,
        .number = s->o.first_layer + i,
        .alone = true, /* so it runs to its end at once */
    };
    return weft_layer_resume(&layer, err);
}

/* Logits of the rows that are wished for. These move to the front of the residual, which nobody
 * wants any more, and their norm, where it stays in f32, takes their place. */
static void head(struct weft_stage *s, const struct weft_step *step)
{
    const struct weft_model *m = s->model;
    const struct weft_layer_buffers *b = &s->buffers;
    const struct wk_engine *e = &s->o.engine;
    const bool q8 = wk_type_quantised(s->head->type);
    const size_t dim = m->dim;
    uint32_t row = 0, n = 0;
    for (uint32_t i = 0; i < step->n_segments; i++) {
        const struct weft_segment *g = &step->segments[i];
        uint32_t want = g->logits == WEFT_LOGITS_ALL    ? g->rows
                        : g->logits == WEFT_LOGITS_LAST ? 1
                                                        : 0;
        row += g->rows;
        if (n < row - want)
            memmove(b->x + n * dim, b->x + (row - want) * dim, want * dim * sizeof(float));
        n += want;
    }
    s->n_logit_rows = n;
    if (n == 0)
        return;
    struct wk_act act;
    wk_act_norm(e, &act, b->x, s->head_norm, m->norm_eps, n, m->dim, q8 ? NULL : b->x,
                q8 ? b->q8 : NULL);
    wk_matmul(e, s->head, &act, s->logits, m->vocab, b->matmul);
    if (m->traits.logit_scale != 1)
        wk_scale(e, s->logits, (size_t)n * m->vocab, m->traits.logit_scale);
    if (m->traits.logit_softcap > 0)
        wk_softcap(e, s->logits, (size_t)n * m->vocab, m->traits.logit_softcap);
}

int weft_stage_run(struct weft_stage *s, const struct weft_step *step, weft_err *err)
{
    s->n_rows = s->n_logit_rows = 0;
    int r = check_step(s, step, err);
    if (r < 0)
        return r;
    embed(s, step);
    if (s->o.n_layers > 0)
        rope_angles(s, step);
    for (uint32_t i = 0; i < s->o.n_layers; i++) {
        r = run_layer(s, i, step, err);
        if (r < 0)
            return r;
    }
    if (s->o.head)
        head(s, step);
    for (uint32_t i = 0; i < step->n_segments; i++)
        s->length[step->segments[i].slot] += step->segments[i].rows;
    s->n_rows = step->n_rows;
    return 0;
}

const float *weft_stage_output(const struct weft_stage *s)
{
    return s->o.head || s->n_rows == 0 ? NULL : s->buffers.x;
}

const float *weft_stage_logits(const struct weft_stage *s, uint32_t *ret_rows)
{
    *ret_rows = s->n_logit_rows;
    return s->n_logit_rows > 0 ? s->logits : NULL;
}

uint32_t weft_stage_length(const struct weft_stage *s, uint32_t slot)
{
    return slot < s->o.sessions ? s->length[slot] : 0;
}

void weft_stage_trim(struct weft_stage *s, uint32_t slot, uint32_t length)
{
    if (slot >= s->o.sessions || length > s->length[slot])
        return;
    s->length[slot] = length;
    uint64_t bytes = kv_unit_bytes(s->model, &s->o) * s->o.n_layers;
    if (length == 0 && bytes > 0)
        weft_pages_forget(s->kv_data + slot * bytes, bytes);
}
