/*
 * Synthetic models, see model_maker.h.
 *
 * Invariant: the data of a tensor follows from the seed and its index alone. Names of keys and
 * tensors: the GGUF specification in the public ggml repository (docs/gguf.md).
 */
#include "tests/model_maker.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/model.h"
#include "tests/gguf_writer.h"
#include "tests/harness.h"
#include "tests/mixture.h"
#include "tests/model_vocab.h"
#include "tests/random_blocks.h"

#define CHUNK_BYTES (1u << 20) /* of weights made at once */
#define EXPERTS_MAX 1024u

/* ------------------------------------------------------------------ shapes */

static const struct model_shape shapes[] = {
    {"137m", "llama", 1024, 12, 16, 4, 64, 2816, 1024, 2048, 0, 0, 1e4f, false, false},
    {"1b", "llama", 2048, 16, 32, 8, 64, 8192, 128256, 131072, 0, 0, 5e5f, true, true},
    {"1.1b", "llama", 2048, 22, 32, 4, 64, 5632, 32000, 2048, 0, 0, 1e4f, false, false},
    {"3b", "llama", 3072, 28, 24, 8, 128, 8192, 128256, 131072, 0, 0, 5e5f, true, true},
    {"7b", "llama", 4096, 32, 32, 32, 128, 11008, 32000, 4096, 0, 0, 1e4f, false, false},
    {"8b", "llama", 4096, 32, 32, 8, 128, 14336, 128256, 131072, 0, 0, 5e5f, false, true},
    {"13b", "llama", 5120, 40, 40, 40, 128, 13824, 32000, 4096, 0, 0, 1e4f, false, false},
    {"70b", "llama", 8192, 80, 64, 8, 128, 28672, 128256, 131072, 0, 0, 5e5f, false, true},
    {"8x7b", "llama", 4096, 32, 32, 8, 128, 14336, 32000, 32768, 8, 2, 1e6f, false, false},
    {"qwen2-0.5b", "qwen2", 896, 24, 14, 2, 64, 4864, 151936, 32768, 0, 0, 1e6f, true, false},
    {"qwen2-7b", "qwen2", 3584, 28, 28, 4, 128, 18944, 152064, 32768, 0, 0, 1e6f, false, false},
    {"qwen3-0.6b", "qwen3", 1024, 28, 16, 8, 128, 3072, 151936, 40960, 0, 0, 1e6f, true, false},
    {"qwen3-8b", "qwen3", 4096, 36, 32, 8, 128, 12288, 151936, 40960, 0, 0, 1e6f, false, false},
    {"qwen3-30b", "qwen3moe", 2048, 48, 32, 4, 128, 768, 151936, 40960, 128, 8, 1e6f, false, false},
    {"phi3-mini", "phi3", 3072, 32, 32, 32, 96, 8192, 32064, 4096, 0, 0, 1e4f, false, false},
    {"gemma2-2b", "gemma2", 2304, 26, 8, 4, 256, 9216, 256000, 8192, 0, 0, 1e4f, true, false},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };
#define SHAPE_DEFAULT "1.1b"
#define TYPE_DEFAULT "q4_k_m"

const struct model_shape *model_shape_at(uint32_t i)
{
    return i < N_SHAPES ? &shapes[i] : NULL;
}

/* ------------------------------------------------------------------ architectures */

enum { /* bits of architectures, by index */
       LLAMA = 1,
       QWEN2 = 2,
       QWEN3 = 4,
       QWEN3MOE = 8,
       PHI3 = 16,
       GEMMA2 = 32,
       ALL = LLAMA | QWEN2 | QWEN3 | QWEN3MOE | PHI3 | GEMMA2,
       SPLIT_QKV = ALL & ~PHI3,
       DENSE = 64,   /* with one of the bits above: only without experts, */
       SPARSE = 128, /* only with them */
};
static const char *const archs[] = {"llama", "qwen2", "qwen3", "qwen3moe", "phi3", "gemma2"};
enum { N_ARCHS = sizeof archs / sizeof archs[0] };

const char *model_arch_at(uint32_t i)
{
    return i < N_ARCHS ? archs[i] : NULL;
}

enum extent { NONE, DIM, Q, KV, QKV, FFN, FFN_2, HEAD, VOCAB, EXPERTS, ROPE };
enum values { NORM, BIAS, ROUTER, FREQS, MATRIX, MATRIX_OF_EXPERTS };

static const struct part {
    const char *name;
    unsigned archs;
    enum values values;
    enum extent cols, rows;
    enum mixture_role role; /* of matrices */
} parts[] = {
    {"attn_norm.weight", ALL, NORM, DIM, NONE, 0},
    {"attn_q.weight", SPLIT_QKV, MATRIX, DIM, Q, MIXTURE_Q},
    {"attn_k.weight", SPLIT_QKV, MATRIX, DIM, KV, MIXTURE_K},
    {"attn_v.weight", SPLIT_QKV, MATRIX, DIM, KV, MIXTURE_V},
    {"attn_qkv.weight", PHI3, MATRIX, DIM, QKV, MIXTURE_QKV},
    {"attn_q.bias", QWEN2, BIAS, Q, NONE, 0},
    {"attn_k.bias", QWEN2, BIAS, KV, NONE, 0},
    {"attn_v.bias", QWEN2, BIAS, KV, NONE, 0},
    {"attn_q_norm.weight", QWEN3 | QWEN3MOE, NORM, HEAD, NONE, 0},
    {"attn_k_norm.weight", QWEN3 | QWEN3MOE, NORM, HEAD, NONE, 0},
    {"attn_output.weight", ALL, MATRIX, Q, DIM, MIXTURE_O},
    {"post_attention_norm.weight", GEMMA2, NORM, DIM, NONE, 0},
    {"ffn_norm.weight", ALL, NORM, DIM, NONE, 0},
    {"ffn_gate.weight", DENSE | (ALL & ~PHI3), MATRIX, DIM, FFN, MIXTURE_GATE},
    {"ffn_up.weight", DENSE | (ALL & ~PHI3), MATRIX, DIM, FFN, MIXTURE_UP},
    {"ffn_up.weight", PHI3, MATRIX, DIM, FFN_2, MIXTURE_UP},
    {"ffn_down.weight", DENSE | ALL, MATRIX, FFN, DIM, MIXTURE_DOWN},
    {"ffn_gate_inp.weight", SPARSE | ALL, ROUTER, DIM, EXPERTS, 0},
    {"ffn_gate_exps.weight", SPARSE | ALL, MATRIX_OF_EXPERTS, DIM, FFN, MIXTURE_GATE},
    {"ffn_up_exps.weight", SPARSE | ALL, MATRIX_OF_EXPERTS, DIM, FFN, MIXTURE_UP},
    {"ffn_down_exps.weight", SPARSE | ALL, MATRIX_OF_EXPERTS, FFN, DIM, MIXTURE_DOWN},
    {"post_ffw_norm.weight", GEMMA2, NORM, DIM, NONE, 0},
};
static const struct part embed = {"token_embd.weight", ALL, MATRIX, DIM, VOCAB, MIXTURE_EMBED},
                         freqs = {"rope_freqs.weight", LLAMA, FREQS, ROPE, NONE, 0},
                         output_norm = {"output_norm.weight", ALL, NORM, DIM, NONE, 0},
                         output = {"output.weight", ALL, MATRIX, DIM, VOCAB, MIXTURE_OUTPUT};

/* ------------------------------------------------------------------ the table of tensors */

struct maker {
    struct model_shape shape;
    const struct mixture *mixture;
    bool pure;
    uint64_t seed;
    unsigned arch; /* its bit */
    struct gguf_writer w;
    enum values *values; /* [w.n_tensors] */
};

static uint32_t extent(const struct model_shape *s, enum extent e)
{
    switch (e) {
    case NONE:
        return 1;
    case DIM:
        return s->dim;
    case Q:
        return s->heads * s->head_dim;
    case KV:
        return s->kv_heads * s->head_dim;
    case QKV:
        return (s->heads + 2 * s->kv_heads) * s->head_dim;
    case FFN:
        return s->ffn;
    case FFN_2:
        return 2 * s->ffn;
    case HEAD:
        return s->head_dim;
    case VOCAB:
        return s->vocab;
    case EXPERTS:
        return s->experts;
    case ROPE:
        return s->head_dim / 2;
    }
    abort();
}

static void declare(struct maker *m, const struct part *p, const char *name, uint32_t layer)
{
    const struct model_shape *s = &m->shape;
    const uint64_t dims[3] = {extent(s, p->cols), extent(s, p->rows), s->experts};
    const struct mixture_tensor t = {
        .role = p->role,
        .layer = layer,
        .n_layers = s->layers,
        .cols = (uint32_t)dims[0],
        .heads_per_kv = s->heads / s->kv_heads,
        .n_experts = s->experts,
        .tied = s->tied,
    };
    const bool matrix = p->values == MATRIX || p->values == MATRIX_OF_EXPERTS;
    const uint32_t type = matrix ? mixture_type(m->mixture, m->pure, &t) : WEFT_F32;
    gguf_writer_declare(&m->w, name, type, dims,
                        p->rows == NONE                  ? 1
                        : p->values == MATRIX_OF_EXPERTS ? 3
                                                         : 2);
    m->values = realloc(m->values, m->w.n_tensors * sizeof *m->values);
    if (m->values == NULL)
        abort();
    m->values[m->w.n_tensors - 1] = p->values;
}

static bool has(const struct maker *m, const struct part *p)
{
    if ((p->archs & m->arch) == 0)
        return false;
    if ((p->archs & DENSE) != 0)
        return m->shape.experts == 0;
    return (p->archs & SPARSE) == 0 || m->shape.experts != 0;
}

static void declare_all(struct maker *m)
{
    declare(m, &embed, embed.name, 0);
    for (uint32_t layer = 0; layer < m->shape.layers; layer++)
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            char name[WEFT_GGUF_NAME_MAX + 1];
            snprintf(name, sizeof name, "blk.%u.%s", layer, parts[i].name);
            if (has(m, &parts[i]))
                declare(m, &parts[i], name, layer);
        }
    if (m->shape.rope_freqs && has(m, &freqs))
        declare(m, &freqs, freqs.name, 0);
    declare(m, &output_norm, output_norm.name, 0);
    if (!m->shape.tied)
        declare(m, &output, output.name, 0);
}

/* ------------------------------------------------------------------ keys */

static const char *arch_key(const struct maker *m, const char *key)
{
    static char buf[128];
    snprintf(buf, sizeof buf, "%s.%s", m->shape.arch, key);
    return buf;
}

static void put_u32(struct maker *m, const char *key, uint32_t value)
{
    gguf_writer_u32(&m->w, arch_key(m, key), value);
}

static void put_f32(struct maker *m, const char *key, float value)
{
    gguf_writer_f32(&m->w, arch_key(m, key), value);
}

static void put_keys(struct maker *m)
{
    const struct model_shape *s = &m->shape;
    char name[128];
    snprintf(name, sizeof name, "synthetic %s %s", s->name, m->mixture->name);
    gguf_writer_str(&m->w, "general.architecture", s->arch);
    gguf_writer_str(&m->w, "general.type", "model");
    gguf_writer_str(&m->w, "general.name", name);
    gguf_writer_u32(&m->w, "general.alignment", m->w.alignment);
    put_u32(m, "block_count", s->layers);
    put_u32(m, "context_length", s->context);
    put_u32(m, "embedding_length", s->dim);
    put_u32(m, "feed_forward_length", s->ffn);
    put_u32(m, "attention.head_count", s->heads);
    put_u32(m, "attention.head_count_kv", s->kv_heads);
    put_f32(m, "attention.layer_norm_rms_epsilon", 1e-5f);
    put_f32(m, "rope.freq_base", s->rope_base);
    put_u32(m, "rope.dimension_count", s->head_dim);
    put_u32(m, "vocab_size", s->vocab);
    if (s->head_dim * s->heads != s->dim || (m->arch & (QWEN3 | QWEN3MOE | GEMMA2)) != 0) {
        put_u32(m, "attention.key_length", s->head_dim);
        put_u32(m, "attention.value_length", s->head_dim);
    }
    if (s->experts != 0) {
        put_u32(m, "expert_count", s->experts);
        put_u32(m, "expert_used_count", s->experts_used);
        if (m->arch == QWEN3MOE)
            put_u32(m, "expert_feed_forward_length", s->ffn);
    }
    if (m->arch == PHI3) {
        put_u32(m, "attention.sliding_window", 2047); /* as in the published model */
        put_u32(m, "rope.scaling.original_context_length", s->context);
    }
    if (m->arch == GEMMA2) { /* as published */
        put_f32(m, "attn_logit_softcapping", 50);
        put_f32(m, "final_logit_softcapping", 30);
        put_u32(m, "attention.sliding_window", 4096);
    }
    gguf_writer_u32(&m->w, "general.file_type", m->mixture->file_type);
    gguf_writer_u32(&m->w, "general.quantization_version", 2);
}

/* ------------------------------------------------------------------ data */

/* Norms near 1, frequencies divided by 1 to 8 (as llama 3 does from fast to slow ones), biases that
 * matter little. */
static void fill_vector(float *x, uint64_t n, enum values values, uint64_t *random)
{
    for (uint64_t i = 0; i < n; i++) {
        const double u = 2 * weft_test_uniform(random) - 1;
        x[i] = values == FREQS  ? 1 + 7 * (float)i / (float)n
               : values == NORM ? 1 + 0.1f * (float)u
                                : 0.1f * (float)u;
    }
}

static bool write_tensor(const struct maker *m, size_t index, uint8_t *chunk, FILE *f)
{
    static const uint8_t zeros[64] = {0};
    const struct gguf_writer_tensor *t = &m->w.tensors[index];
    const struct weft_tensor_type_info *info = weft_tensor_type_info(t->type);
    /* 2^64 / golden ratio: neighbouring seeds and tensors start far apart */
    uint64_t random = (m->seed * 1000003 + index + 1) * 0x9e3779b97f4a7c15u;
    uint64_t blocks = t->size / info->block_bytes, most = CHUNK_BYTES / info->block_bytes;
    struct random_blocks rule;
    random_blocks_init(&rule, t->type, 1 / sqrtf((float)t->dims[0]));
    while (blocks > 0) {
        const uint64_t n = blocks < most ? blocks : most;
        if (m->values[index] == NORM || m->values[index] == BIAS || m->values[index] == FREQS)
            fill_vector((float *)(void *)chunk, n, m->values[index], &random);
        else
            random_blocks_fill(&rule, &random, chunk, (size_t)n);
        if (fwrite(chunk, info->block_bytes, (size_t)n, f) != n)
            return false;
        blocks -= n;
    }
    const size_t padding = (m->w.alignment - t->size % m->w.alignment) % m->w.alignment;
    return fwrite(zeros, 1, padding, f) == padding;
}

static int write_file(const struct maker *m, const char *path, weft_err *err)
{
    size_t size = 0;
    uint8_t *head = gguf_writer_head(&m->w, &size), *chunk = malloc(CHUNK_BYTES);
    FILE *f = fopen(path, "wbe");
    struct stat st;
    bool ok = f != NULL && chunk != NULL && fwrite(head, 1, size, f) == size;
    const bool regular = f != NULL && fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode);
    for (size_t i = 0; ok && i < m->w.n_tensors; i++)
        ok = write_tensor(m, i, chunk, f);
    int saved = errno;
    if (f != NULL && fclose(f) != 0 && ok) {
        saved = errno;
        ok = false;
    }
    if (regular && !ok)
        (void)unlink(path);
    free(head);
    free(chunk);
    return ok ? 0 : weft_fail_errno(err, saved, "%s", path);
}

/* ------------------------------------------------------------------ options */

static int choose_shape(const struct model_maker *o, struct maker *m, weft_err *err)
{
    const char *name = o->shape != NULL ? o->shape : SHAPE_DEFAULT;
    const struct model_shape *c = &o->changed;
    struct model_shape *s = &m->shape;
    for (uint32_t i = 0; i < N_SHAPES; i++)
        if (strcmp(shapes[i].name, name) == 0)
            *s = shapes[i];
    if (s->name == NULL)
        return weft_fail(err, WEFT_EUSAGE, "shape '%s' is not known", name);
    const struct {
        uint32_t *value, changed;
    } fields[] = {
        {&s->dim, c->dim},           {&s->layers, c->layers},
        {&s->heads, c->heads},       {&s->kv_heads, c->kv_heads},
        {&s->head_dim, c->head_dim}, {&s->ffn, c->ffn},
        {&s->vocab, c->vocab},       {&s->context, c->context},
        {&s->experts, c->experts},   {&s->experts_used, c->experts_used},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (fields[i].changed != 0)
            *fields[i].value = fields[i].changed;
    /* A new width or number of heads, and no word about the size of a head: the natural one. */
    if (c->head_dim == 0 && (c->dim != 0 || c->heads != 0) && s->heads <= s->dim)
        s->head_dim = s->dim / s->heads;
    if (s->experts != 0 && s->experts_used == 0)
        s->experts_used = s->experts < 2 ? s->experts : 2;
    s->arch = c->arch != NULL ? c->arch : s->arch;
    s->rope_base = c->rope_base != 0 ? c->rope_base : s->rope_base;
    s->tied = s->tied || c->tied || strcmp(s->arch, "gemma2") == 0; /* it knows no other */
    s->rope_freqs = s->rope_freqs || c->rope_freqs;
    return 0;
}

static int check_shape(struct maker *m, weft_err *err)
{
    const struct model_shape *s = &m->shape;
    const struct {
        const char *what;
        uint32_t value, least, most;
    } ranges[] = {
        {"dim", s->dim, 1, WEFT_DIM_MAX},
        {"layers", s->layers, 1, WEFT_LAYERS_MAX},
        {"heads", s->heads, 1, WEFT_HEADS_MAX},
        {"kv-heads", s->kv_heads, 1, s->heads},
        {"head-dim", s->head_dim, 2, WEFT_DIM_MAX / s->heads},
        {"ffn", s->ffn, 1, WEFT_FFN_MAX},
        {"vocab-size", s->vocab, MODEL_VOCAB_MIN, WEFT_VOCAB_MAX},
        {"context", s->context, 1, WEFT_CONTEXT_MAX},
        {"experts", s->experts, 0, EXPERTS_MAX},
        {"experts-used", s->experts_used, s->experts != 0, s->experts},
    };
    for (uint32_t i = 0; i < N_ARCHS; i++)
        if (strcmp(archs[i], s->arch) == 0)
            m->arch = 1u << i;
    if (m->arch == 0)
        return weft_fail(err, WEFT_EUSAGE, "architecture '%s' is not known", s->arch);
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (ranges[i].value < ranges[i].least || ranges[i].value > ranges[i].most)
            return weft_fail(err, WEFT_EUSAGE, "%s: found %u, expected %u to %u", ranges[i].what,
                             ranges[i].value, ranges[i].least, ranges[i].most);
    if (s->heads % s->kv_heads != 0)
        return weft_fail(err, WEFT_EUSAGE, "heads: found %u, expected a multiple of kv-heads %u",
                         s->heads, s->kv_heads);
    if (s->head_dim % 2 != 0)
        return weft_fail(err, WEFT_EUSAGE, "head-dim: found %u, expected an even number",
                         s->head_dim);
    if (s->experts != 0 && (m->arch & (LLAMA | QWEN3MOE)) == 0)
        return weft_fail(err, WEFT_EUSAGE, "experts: found %u, expected none in architecture %s",
                         s->experts, s->arch);
    if (s->experts == 0 && m->arch == QWEN3MOE)
        return weft_fail(err, WEFT_EUSAGE, "experts: found none, expected some in architecture %s",
                         s->arch);
    return 0;
}

static int put_vocab(struct maker *m, const char *path, bool whole, weft_err *err)
{
    struct weft_mapping map = {0};
    struct weft_gguf g = {0};
    if (path == NULL) {
        model_vocab_make(&m->w, m->shape.vocab);
        return 0;
    }
    int r = weft_mapping_open(path, &map, err);
    if (r < 0)
        return r;
    r = weft_gguf_open(map.data, map.size, &g, err);
    if (r == 0)
        r = model_vocab_copy(&m->w, &g, whole ? 0 : m->shape.vocab, err);
    if (r == 0 && whole)
        m->shape.vocab = (uint32_t)weft_gguf_kv(&g, "tokenizer.ggml.tokens")->count;
    if (r < 0 && err != NULL)
        weft_err_prefix(err, "%s", path);
    weft_gguf_done(&g);
    weft_mapping_close(&map);
    return r;
}

int model_maker_write(const struct model_maker *o, const char *path, weft_err *err)
{
    const char *type = o->type != NULL ? o->type : TYPE_DEFAULT;
    struct maker m = {
        .mixture = mixture_find(type), .pure = o->pure, .seed = o->seed != 0 ? o->seed : 1};
    gguf_writer_init(&m.w);
    int r = m.mixture != NULL ? 0 : weft_fail(err, WEFT_EUSAGE, "type '%s' is not known", type);
    if (r == 0)
        r = choose_shape(o, &m, err);
    if (r == 0)
        r = check_shape(&m, err);
    if (r == 0) {
        put_keys(&m);
        /* No size asked for, neither by name of a shape: all the vocabulary. */
        r = put_vocab(&m, o->vocab_path, o->changed.vocab == 0 && o->shape == NULL, err);
    }
    if (r == 0) {
        put_u32(&m, "vocab_size", m.shape.vocab);
        declare_all(&m);
        r = write_file(&m, path, err);
    }
    free(m.values);
    gguf_writer_done(&m.w);
    return r;
}
