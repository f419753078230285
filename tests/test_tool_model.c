/*
 * The maker of synthetic models: every type opens, runs where weft can run it and has the values it
 * should; names, shapes and types of tensors are those of files that converters and quantisers
 * wrote (../shared/golden); vocabularies stay valid when they are cut and filled.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/tokenizer.h"
#include "kernels/kernels.h"
#include "tests/harness.h"
#include "tests/local_model.h"
#include "tests/mixture.h"
#include "tests/model_maker.h"
#include "tests/model_vocab.h"
#include "tests/procs.h"
#include "tests/random_blocks.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const struct model_shape small = {.dim = 256,
                                         .layers = 3,
                                         .heads = 4,
                                         .kv_heads = 2,
                                         .ffn = 768,
                                         .vocab = MODEL_VOCAB_MIN,
                                         .context = 128};

static const char *made(const char *name)
{
    static char path[4200];
    snprintf(path, sizeof path, "%s/%s.gguf", weft_test_tmpdir(), name);
    return path;
}

struct file {
    struct weft_mapping map;
    struct weft_gguf g;
};

static void file_open(struct file *f, const char *path)
{
    weft_err err = {0};
    ck_assert_msg(weft_mapping_open(path, &f->map, &err) == 0 &&
                      weft_gguf_open(f->map.data, f->map.size, &f->g, &err) == 0,
                  "%s: %s", path, err.text);
}

static void file_close(struct file *f)
{
    weft_gguf_done(&f->g);
    weft_mapping_close(&f->map);
}

/* Makes and opens a file. */
static void make(struct file *f, const struct model_maker *o)
{
    weft_err err = {0};
    ck_assert_msg(model_maker_write(o, made("made"), &err) == 0, "%s", err.text);
    file_open(f, made("made"));
}

static uint32_t get_u32(const struct weft_gguf *g, const char *prefix, const char *key)
{
    char name[128];
    uint32_t v = 0;
    weft_err err = {0};
    snprintf(name, sizeof name, "%s%s", prefix, key);
    if (weft_gguf_kv(g, name) != NULL)
        ck_assert_msg(weft_gguf_u32(g, name, &v, &err) == 0, "%s", err.text);
    return v;
}

/* ------------------------------------------------------------------ types */

static bool all_supported(const struct weft_gguf *g)
{
    for (uint64_t i = 0; i < g->n_tensors; i++)
        if (!weft_type_supported(g->tensors[i].type))
            return false;
    return true;
}

/* A step through the whole model gives finite logits that are not all the same. */
static void run_model(const char *path)
{
    enum { ROWS = 5 };
    const int32_t tokens[ROWS] = {1, 300, 44, 301, 511};
    struct local_model m = {0};
    weft_err err = {0};
    ck_assert_msg(local_model_open(&(struct local_model_options){.path = path}, &m, &err) == 0,
                  "%s", err.text);
    const size_t n = (size_t)ROWS * m.model.vocab;
    float *logits = calloc(n, sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    ck_assert_msg(local_model_feed(&m, tokens, ROWS, 3, logits, &err) == 0, "%s", err.text);
    double squares = 0;
    for (size_t i = 0; i < n; i++) {
        ck_assert_msg(isfinite(logits[i]), "logit %zu is %g", i, (double)logits[i]);
        squares += (double)logits[i] * (double)logits[i];
    }
    /* Normed rows of 1 times weights of deviation 1 / sqrt(dim): 1, give or take. */
    ck_assert_double_gt(sqrt(squares / (double)n), 0.3);
    ck_assert_double_lt(sqrt(squares / (double)n), 3);
    free(logits);
    local_model_close(&m);
}

START_TEST(every_type)
{
    const struct mixture *mixture = mixture_at((uint32_t)_i);
    struct file f = {0};
    struct weft_model model = {0};
    weft_err err = {0};
    make(&f, &(struct model_maker){.changed = small, .type = mixture->name});
    ck_assert_uint_eq(get_u32(&f.g, "general.", "file_type"), mixture->file_type);
    ck_assert_uint_eq(get_u32(&f.g, "general.", "quantization_version"), 2);
    const int r = weft_model_from_gguf(&f.g, &f.map, &model, &err);
    ck_assert_msg(r == (all_supported(&f.g) ? 0 : -WEFT_EUNSUPPORTED), "%s: %s", mixture->name,
                  err.text);
    if (r == 0) {
        ck_assert_uint_eq(model.dim, small.dim);
        ck_assert_uint_eq(model.head_dim, 64);
        ck_assert_uint_eq(model.context_max, small.context);
        ck_assert_str_eq(model.arch, "llama");
        run_model(made("made"));
    }
    weft_model_done(&model);
    file_close(&f);
}
END_TEST

START_TEST(pure_types)
{
    const struct mixture *mixture = mixture_at((uint32_t)_i);
    struct file f = {0};
    make(&f, &(struct model_maker){.changed = small, .type = mixture->name, .pure = true});
    for (uint64_t i = 0; i < f.g.n_tensors; i++)
        ck_assert_uint_eq(f.g.tensors[i].type, f.g.tensors[i].n_dims > 1 ? mixture->type : 0);
    file_close(&f);
}
END_TEST

/* Mean and deviation of what a type's blocks stand for, by the kernels' oracle of the format. */
START_TEST(values)
{
    enum { COLS = 256, ROWS = 256 };
    const uint32_t type = (uint32_t)_i;
    const double expected = 0.02;
    if (!random_blocks_known(type) || !wk_type_supported(type))
        return;
    const struct weft_tensor_type_info *info = weft_tensor_type_info(type);
    const size_t row = COLS / info->block_elems * info->block_bytes;
    uint8_t *data = malloc(row * ROWS);
    float x[COLS];
    double sum = 0, squares = 0;
    uint64_t random = weft_test_seed();
    struct random_blocks b;
    ck_assert_ptr_nonnull(data);
    random_blocks_init(&b, type, (float)expected);
    random_blocks_fill(&b, &random, data, row * ROWS / info->block_bytes);
    for (size_t i = 0; i < ROWS; i++) {
        wk_dequantise((enum wk_type)type, data + i * row, COLS, x);
        for (size_t k = 0; k < COLS; k++) {
            ck_assert(isfinite(x[k]));
            sum += (double)x[k];
            squares += (double)x[k] * (double)x[k];
        }
    }
    free(data);
    /* Independent blocks of scales that vary by a quarter: 5 % is beyond five deviations. */
    const double n = (double)ROWS * COLS, deviation = sqrt(squares / n);
    ck_assert_msg(fabs(deviation / expected - 1) < 0.05, "%s: deviation %g, expected %g",
                  info->name, deviation, expected);
    ck_assert_msg(fabs(sum / n) < 0.05 * expected, "%s: mean %g", info->name, sum / n);
}
END_TEST

/* The fields that are not independent of each other in their bytes. */
START_TEST(packed_fields)
{
    uint64_t random = weft_test_seed();
    struct random_blocks b;
    uint8_t block[256];
    for (int i = 0; i < 100; i++) {
        random_blocks_init(&b, WEFT_Q4_K, 0.02f);
        random_blocks_fill(&b, &random, block, 1);
        for (int k = 0; k < 4; k++) { /* scale and minimum are equal, 32 to 63, in both halves */
            const uint8_t *s = block + 4;
            const unsigned low = s[k] & 63u, high = (s[8 + k] & 15u) | (unsigned)s[k] >> 6 << 4;
            ck_assert_uint_ge(low, 32);
            ck_assert_uint_ge(high, 32);
            ck_assert_uint_eq(low, s[4 + k] & 63u);
            ck_assert_uint_eq(high, (unsigned)s[8 + k] >> 4 | (unsigned)s[4 + k] >> 6 << 4);
        }
        random_blocks_init(&b, WEFT_TQ2_0, 0.02f);
        random_blocks_fill(&b, &random, block, 1);
        for (int k = 0; k < 64; k++)
            for (int shift = 0; shift < 8; shift += 2)
                ck_assert_uint_lt((unsigned)block[k] >> shift & 3, 3);
        random_blocks_init(&b, WEFT_TQ1_0, 0.02f);
        random_blocks_fill(&b, &random, block, 1);
        for (int k = 0; k < 52; k++) { /* ceil(q * 256 / 243) for a q below 243 */
            const unsigned q = (unsigned)block[k] * 243 / 256;
            ck_assert_uint_eq((q * 256 + 242) / 243, block[k]);
        }
    }
}
END_TEST

/* ------------------------------------------------------------------ against others' files */

static const char *const golden_types[] = {"q2_k", "q3_k_m", "q4_0", "q4_1", "q4_k_m", "q5_0",
                                           "q5_1", "q5_k_m", "q6_k", "q8_0", "iq4_nl", "iq4_xs"};
static const char *const golden_archs[] = {"llama", "llama3-rope", "qwen2",   "qwen3",
                                           "phi3",  "gemma2",      "mixtral", "qwen3moe"};

/* Makes a model of the shape that a golden file has. False, and skipped, when it is not there. */
static bool make_like(struct file *golden, struct file *ours, const char *name, const char *type)
{
    char path[128], arch[32], dot[40];
    struct weft_gguf_string s = {0};
    weft_err err = {0};
    snprintf(path, sizeof path, "../shared/golden/%s.gguf", name);
    if (weft_test_path(path) == NULL) {
        weft_test_skip("%s is not there", path);
        return false;
    }
    file_open(golden, weft_test_path(path));
    const struct weft_gguf *g = &golden->g;
    ck_assert_int_eq(weft_gguf_str(g, "general.architecture", &s, &err), 0);
    snprintf(arch, sizeof arch, "%.*s", (int)s.size, s.data);
    snprintf(dot, sizeof dot, "%s.", arch);
    struct model_shape shape = {
        .arch = arch,
        .dim = get_u32(g, dot, "embedding_length"),
        .layers = get_u32(g, dot, "block_count"),
        .heads = get_u32(g, dot, "attention.head_count"),
        .kv_heads = get_u32(g, dot, "attention.head_count_kv"),
        .head_dim = get_u32(g, dot, "rope.dimension_count"),
        .ffn = get_u32(g, dot, "expert_feed_forward_length"),
        .vocab = get_u32(g, dot, "vocab_size"),
        .context = get_u32(g, dot, "context_length"),
        .experts = get_u32(g, dot, "expert_count"),
        .experts_used = get_u32(g, dot, "expert_used_count"),
        .tied = weft_gguf_tensor(g, "output.weight") == NULL,
        .rope_freqs = weft_gguf_tensor(g, "rope_freqs.weight") != NULL,
    };
    if (shape.ffn == 0)
        shape.ffn = get_u32(g, dot, "feed_forward_length");
    make(ours, &(struct model_maker){.changed = shape, .type = type});
    return true;
}

static void expect_tensors(const struct weft_gguf *found, const struct weft_gguf *expected)
{
    ck_assert_uint_eq(found->n_tensors, expected->n_tensors);
    for (uint64_t i = 0; i < expected->n_tensors; i++) {
        const struct weft_gguf_tensor *e = &expected->tensors[i];
        char name[WEFT_GGUF_NAME_MAX + 1];
        snprintf(name, sizeof name, "%.*s", (int)e->name.size, e->name.data);
        const struct weft_gguf_tensor *t = weft_gguf_tensor(found, name);
        ck_assert_msg(t != NULL, "%s is missing", name);
        ck_assert_msg(t->type == e->type, "%s: type %u, expected %u", name, t->type, e->type);
        for (int k = 0; k < 4; k++)
            ck_assert_msg(t->dims[k] == e->dims[k], "%s: dimension %d is %llu, expected %llu", name,
                          k, (unsigned long long)t->dims[k], (unsigned long long)e->dims[k]);
    }
}

START_TEST(types_of_quantisers)
{
    struct file golden = {0}, ours = {0};
    char name[64];
    snprintf(name, sizeof name, "llama-256-%s", golden_types[_i]);
    if (!make_like(&golden, &ours, name, golden_types[_i]))
        return;
    expect_tensors(&ours.g, &golden.g);
    ck_assert_uint_eq(get_u32(&ours.g, "general.", "file_type"),
                      get_u32(&golden.g, "general.", "file_type"));
    file_close(&golden);
    file_close(&ours);
}
END_TEST

START_TEST(tensors_of_architectures)
{
    struct file golden = {0}, ours = {0};
    if (!make_like(&golden, &ours, golden_archs[_i], "f16"))
        return;
    expect_tensors(&ours.g, &golden.g);
    for (uint64_t i = 0; i < golden.g.n_kvs; i++) { /* every key that the architecture needs */
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)golden.g.kvs[i].key.size, golden.g.kvs[i].key.data);
        if (strncmp(key, "tokenizer.", 10) == 0)
            continue;
        const struct weft_gguf_kv *kv = weft_gguf_kv(&ours.g, key);
        ck_assert_msg(kv != NULL && kv->type == golden.g.kvs[i].type, "key %s", key);
    }
    file_close(&golden);
    file_close(&ours);
}
END_TEST

/* What llama.cpp's quantiser gives to larger models than the golden ones: layers by their place,
 * heads that share K and V, experts, rows of odd length. */
START_TEST(types_of_larger_models)
{
    static const struct {
        const char *mixture;
        struct mixture_tensor t;
        uint32_t expected;
    } cases[] = {
        {"q4_k_m", {MIXTURE_V, 1, 22, 256, 8, 0, false}, WEFT_Q6_K},
        {"q4_k_m", {MIXTURE_V, 2, 22, 256, 8, 0, false}, WEFT_Q4_K},
        {"q4_k_m", {MIXTURE_DOWN, 4, 22, 256, 8, 0, false}, WEFT_Q6_K},
        {"q4_k_m", {MIXTURE_DOWN, 18, 22, 256, 8, 0, false}, WEFT_Q4_K},
        {"q4_k_m", {MIXTURE_DOWN, 19, 22, 256, 8, 0, false}, WEFT_Q6_K},
        {"q4_k_m", {MIXTURE_EMBED, 0, 22, 256, 8, 0, true}, WEFT_Q6_K},
        {"q4_k_m", {MIXTURE_EMBED, 0, 22, 256, 8, 0, false}, WEFT_Q4_K},
        {"q4_k_m", {MIXTURE_UP, 0, 22, 320, 8, 0, false}, WEFT_Q5_0},
        {"q4_k_m", {MIXTURE_UP, 0, 22, 72, 8, 0, false}, WEFT_F16},
        {"q4_k_m", {MIXTURE_OUTPUT, 0, 22, 320, 8, 0, false}, WEFT_Q8_0},
        {"q4_k_m", {MIXTURE_K, 0, 32, 256, 4, 8, false}, WEFT_Q8_0},
        {"q4_k_m", {MIXTURE_O, 0, 32, 256, 4, 8, false}, WEFT_Q5_K},
        {"q4_k_m", {MIXTURE_V, 20, 80, 256, 8, 0, false}, WEFT_Q5_K},
        {"q4_k_s", {MIXTURE_V, 3, 32, 256, 4, 0, false}, WEFT_Q5_K},
        {"q4_k_s", {MIXTURE_V, 4, 32, 256, 4, 0, false}, WEFT_Q4_K},
        {"q2_k", {MIXTURE_V, 4, 32, 256, 4, 0, false}, WEFT_Q4_K},
        {"q2_k", {MIXTURE_V, 4, 32, 256, 1, 0, false}, WEFT_Q3_K},
        {"q3_k_m", {MIXTURE_DOWN, 1, 32, 256, 4, 0, false}, WEFT_Q5_K},
        {"q3_k_m", {MIXTURE_DOWN, 2, 32, 256, 4, 0, false}, WEFT_Q4_K},
        {"iq4_xs", {MIXTURE_DOWN, 3, 32, 256, 1, 0, false}, WEFT_Q5_K},
        {"iq4_xs", {MIXTURE_V, 3, 32, 256, 1, 0, false}, WEFT_IQ4_XS},
        {"tq1_0", {MIXTURE_EMBED, 0, 32, 256, 1, 0, false}, WEFT_Q4_K},
        {"q8_0", {MIXTURE_OUTPUT, 0, 32, 256, 1, 0, false}, WEFT_Q8_0},
        {"bf16", {MIXTURE_OUTPUT, 0, 32, 256, 1, 0, false}, WEFT_BF16},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_msg(mixture_type(mixture_find(cases[i].mixture), false, &cases[i].t) ==
                          cases[i].expected,
                      "case %zu", i);
}
END_TEST

/* ------------------------------------------------------------------ the file */

START_TEST(seeds)
{
    weft_err err = {0};
    size_t n[3];
    uint8_t *data[3];
    for (int i = 0; i < 3; i++) {
        const struct model_maker o = {.changed = small, .seed = i < 2 ? 7 : 8};
        ck_assert_int_eq(model_maker_write(&o, made("seed"), &err), 0);
        data[i] = weft_test_read(made("seed"), &n[i]);
        ck_assert_ptr_nonnull(data[i]);
    }
    ck_assert_uint_eq(n[0], n[1]);
    ck_assert_uint_eq(n[0], n[2]);
    ck_assert_uint_eq(n[0] % 32, 0);
    ck_assert(memcmp(data[0], data[1], n[0]) == 0);
    ck_assert(memcmp(data[0], data[2], n[0]) != 0);
    for (int i = 0; i < 3; i++)
        free(data[i]);
}
END_TEST

START_TEST(shapes)
{
    for (uint32_t i = 0; model_shape_at(i) != NULL; i++) {
        const struct model_shape *s = model_shape_at(i);
        bool known = false;
        for (uint32_t k = 0; model_arch_at(k) != NULL; k++)
            known = known || strcmp(model_arch_at(k), s->arch) == 0;
        ck_assert_msg(known && s->heads % s->kv_heads == 0 && s->dim % 256 < 129, "%s", s->name);
    }
    /* A shape with what was changed in it; heads of their natural size. */
    struct file f = {0};
    make(&f, &(struct model_maker){
                 .shape = "8b", .type = "q8_0", .changed = {.dim = 512, .layers = 1, .ffn = 256}});
    ck_assert_uint_eq(get_u32(&f.g, "llama.", "attention.head_count_kv"), 8);
    ck_assert_uint_eq(get_u32(&f.g, "llama.", "rope.dimension_count"), 16);
    ck_assert_uint_eq(get_u32(&f.g, "llama.", "vocab_size"), 128256);
    ck_assert_uint_eq(weft_gguf_tensor(&f.g, "rope_freqs.weight")->dims[0], 8);
    ck_assert_ptr_nonnull(weft_gguf_tensor(&f.g, "output.weight"));
    file_close(&f);
}
END_TEST

/* ------------------------------------------------------------------ vocabularies */

static const char text[] = "Hello, world! 3 héros";

static void expect_ids(const struct weft_gguf *a, const struct weft_gguf *b)
{
    struct weft_tokenizer *t[2] = {NULL, NULL};
    int32_t *ids[2];
    size_t n[2];
    weft_err err = {0};
    for (int i = 0; i < 2; i++) {
        ck_assert_msg(weft_tokenizer_open(i == 0 ? a : b, &t[i], &err) == 0, "%s", err.text);
        ck_assert_int_eq(
            weft_tokenizer_encode(t[i], text, strlen(text), WEFT_ENCODE_BOS, &ids[i], &n[i], &err),
            0);
    }
    ck_assert_uint_eq(n[0], n[1]);
    ck_assert(memcmp(ids[0], ids[1], n[0] * sizeof *ids[0]) == 0);
    for (int i = 0; i < 2; i++) {
        free(ids[i]);
        weft_tokenizer_close(t[i]);
    }
}

/* The id that a text has, or the number of tokens. */
static uint64_t find_token(const struct weft_gguf *g, const char *token)
{
    const struct weft_gguf_kv *kv = weft_gguf_kv(g, "tokenizer.ggml.tokens");
    struct weft_gguf_string s;
    uint64_t i = 0;
    for (uint64_t pos = 0; weft_gguf_next_string(kv, &pos, &s); i++)
        if (s.size == strlen(token) && memcmp(s.data, token, s.size) == 0)
            break;
    return i;
}

static bool open_vocab(struct file *f, char path[4200], const char *name)
{
    char relative[128];
    snprintf(relative, sizeof relative, "../shared/vocab/ggml-vocab-%s.gguf", name);
    const char *found = weft_test_path(relative);
    if (found == NULL) {
        weft_test_skip("%s is not there", relative);
        return false;
    }
    snprintf(path, 4200, "%s", found);
    file_open(f, path);
    return true;
}

static void make_with_vocab(struct file *f, const char *path, const char *shape, uint32_t vocab)
{
    struct model_shape changed = small;
    changed.vocab = vocab;
    make(f, &(struct model_maker){
                .shape = shape, .changed = changed, .type = "q8_0", .vocab_path = path});
}

START_TEST(made_up_vocabulary)
{
    struct file f = {0};
    struct weft_tokenizer *t;
    int32_t *ids;
    size_t n, size;
    weft_err err = {0};
    char back[64] = "";
    make(&f, &(struct model_maker){.changed = small, .type = "q8_0"});
    ck_assert_msg(weft_tokenizer_open(&f.g, &t, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(weft_tokenizer_vocab(t), MODEL_VOCAB_MIN);
    ck_assert_int_eq(weft_tokenizer_encode(t, text, strlen(text), 0, &ids, &n, &err), 0);
    for (size_t i = 0; i < n; i++) {
        const char *piece = weft_tokenizer_piece(t, ids[i], &size);
        strncat(back, piece, size);
    }
    ck_assert_str_eq(back, " Hello, world! 3 héros");
    free(ids);
    weft_tokenizer_close(t);
    file_close(&f);
}
END_TEST

START_TEST(copied_vocabulary)
{
    struct file vocab = {0}, f = {0};
    char path[4200];
    if (!open_vocab(&vocab, path, "llama-spm"))
        return;
    make_with_vocab(&f, path, NULL, 0); /* all of it */
    ck_assert_uint_eq(get_u32(&f.g, "llama.", "vocab_size"), 32000);
    expect_ids(&vocab.g, &f.g);
    for (uint64_t i = 0; i < vocab.g.n_kvs; i++) {
        const struct weft_gguf_kv *kv = &vocab.g.kvs[i], *ours;
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)kv->key.size, kv->key.data);
        if (strncmp(key, "tokenizer.", 10) != 0)
            continue;
        ours = weft_gguf_kv(&f.g, key);
        ck_assert_msg(ours != NULL && ours->type == kv->type && ours->size == kv->size &&
                          memcmp(ours->data, kv->data, kv->size) == 0,
                      "%s", key);
    }
    file_close(&f);
    make_with_vocab(&f, path, "8b", 0); /* the shape's number */
    ck_assert_uint_eq(weft_gguf_kv(&f.g, "tokenizer.ggml.tokens")->count, 128256);
    file_close(&f);
    make_with_vocab(&f, path, NULL, 32100);
    ck_assert_uint_eq(weft_gguf_kv(&f.g, "tokenizer.ggml.scores")->count, 32100);
    ck_assert_uint_eq(find_token(&f.g, "<unused0>"), 32000);
    ck_assert_uint_eq(find_token(&f.g, "<unused99>"), 32099);
    expect_ids(&vocab.g, &f.g);
    file_close(&f);
    file_close(&vocab);
}
END_TEST

START_TEST(cut_vocabulary)
{
    struct file vocab = {0}, f = {0};
    char path[4200];
    if (!open_vocab(&vocab, path, "phi-3"))
        return;
    make_with_vocab(&f, path, NULL, 700);
    ck_assert_uint_eq(find_token(&f.g, "<|endoftext|>"), 699); /* 32000 of 32064 */
    ck_assert_uint_eq(get_u32(&f.g, "tokenizer.ggml.", "eos_token_id"), 699);
    ck_assert_uint_eq(get_u32(&f.g, "tokenizer.ggml.", "padding_token_id"), 699);
    ck_assert_uint_eq(get_u32(&f.g, "tokenizer.ggml.", "bos_token_id"), 1);
    struct weft_tokenizer *t;
    weft_err err = {0};
    ck_assert_msg(weft_tokenizer_open(&f.g, &t, &err) == 0, "%s", err.text);
    ck_assert_int_eq(weft_tokenizer_eos(t), 699);
    weft_tokenizer_close(t);
    file_close(&f);
    file_close(&vocab);
}
END_TEST

/* Every join that is left makes a token that is left. */
START_TEST(cut_merges)
{
    struct file vocab = {0}, f = {0};
    char path[4200];
    if (!open_vocab(&vocab, path, "gpt-2"))
        return;
    make_with_vocab(&f, path, NULL, 1000);
    ck_assert_uint_eq(get_u32(&f.g, "tokenizer.ggml.", "eos_token_id"), 999);
    const struct weft_gguf_kv *merges = weft_gguf_kv(&f.g, "tokenizer.ggml.merges");
    /* Tokens: 256 bytes, then one for each join in order, the last place for the end. */
    ck_assert_uint_eq(merges->count, 1000 - 256 - 1);
    struct weft_gguf_string s;
    for (uint64_t pos = 0; weft_gguf_next_string(merges, &pos, &s);) {
        char joined[256];
        const char *space = memchr(s.data + 1, ' ', s.size - 1);
        ck_assert_ptr_nonnull(space);
        const int left = (int)(space - s.data);
        snprintf(joined, sizeof joined, "%.*s%.*s", left, s.data, (int)s.size - left - 1,
                 space + 1);
        ck_assert_msg(find_token(&f.g, joined) < 1000, "%s", joined);
    }
    file_close(&f);
    file_close(&vocab);
}
END_TEST

/* A filler that the vocabulary has already is passed over; an id without a token is refused. */
START_TEST(odd_vocabularies)
{
    static const char *const tokens[] = {"a", "<unused1>", "b"};
    struct gguf_writer w, copy;
    struct weft_gguf g = {0};
    weft_err err = {0};
    size_t size;
    for (uint32_t eos = 2; eos < 4; eos++) {
        gguf_writer_init(&w);
        gguf_writer_init(&copy);
        gguf_writer_strings(&w, "tokenizer.ggml.tokens", tokens, 3);
        gguf_writer_u32(&w, "tokenizer.ggml.eos_token_id", eos);
        uint8_t *data = gguf_writer_finish(&w, &size);
        ck_assert_int_eq(weft_gguf_open(data, size, &g, &err), 0);
        int r = model_vocab_copy(&copy, &g, 5, &err);
        if (eos == 3) {
            ck_assert_int_eq(r, -WEFT_EMODEL);
            ck_assert_str_eq(err.text, "key tokenizer.ggml.eos_token_id: found 3, expected less "
                                       "than 3");
        } else {
            size_t copy_size;
            uint8_t *out = gguf_writer_finish(&copy, &copy_size);
            struct weft_gguf c = {0};
            ck_assert_int_eq(weft_gguf_open(out, copy_size, &c, &err), 0);
            ck_assert_uint_eq(find_token(&c, "<unused1>"), 1);
            ck_assert_uint_eq(find_token(&c, "<unused0>"), 3);
            ck_assert_uint_eq(find_token(&c, "<unused2>"), 4);
            weft_gguf_done(&c);
            free(out);
        }
        weft_gguf_done(&g);
        free(data);
        gguf_writer_done(&w);
        gguf_writer_done(&copy);
    }
}
END_TEST

/* ------------------------------------------------------------------ the program */

START_TEST(arguments)
{
    static const struct {
        const char *args[5];
        int status;
        const char *text;
    } cases[] = {
        {{"--dim", "256"}, 2, "where to write the model is not said: -o"},
        {{"-o", "x.gguf", "y"}, 2, "unexpected argument y"},
        {{"-o", "x.gguf", "--type", "q9"}, 2, "type 'q9' is not known"},
        {{"-o", "x.gguf", "--shape", "9b"}, 2, "shape '9b' is not known"},
        {{"-o", "x.gguf", "--arch", "gpt9"}, 2, "architecture 'gpt9' is not known"},
        {{"-o", "x.gguf", "--layers", "-1"}, 2, "--layers: found '-1', expected a number from 1"},
        {{"-o", "x.gguf", "--layers", "2x"}, 2, "--layers: found '2x', expected a number from 1"},
        {{"-o", "x.gguf", "--layers=5000"}, 2, "layers: found 5000, expected 1 to 1024"},
        {{"-o", "x.gguf", "--seed", "0"}, 2, "--seed: found '0', expected a number from 1"},
        {{"-o", "x.gguf", "--rope-base", "nan"}, 2, "--rope-base: found 'nan', expected"},
        {{"-o", "x.gguf", "--heads=6"}, 2, "heads: found 6, expected a multiple of kv-heads 4"},
        {{"-o", "x.gguf", "--kv-heads=33"}, 2, "kv-heads: found 33, expected 1 to 32"},
        {{"-o", "x.gguf", "--head-dim=33"}, 2, "head-dim: found 33, expected an even number"},
        {{"-o", "x.gguf", "--head-dim=4096"}, 2, "head-dim: found 4096, expected 2 to 2048"},
        {{"-o", "x.gguf", "--vocab-size=10"}, 2, "vocab-size: found 10, expected 512 to"},
        {{"-o", "x.gguf", "--experts=4", "--experts-used=5"}, 2, "experts-used: found 5"},
        {{"-o", "x.gguf", "--experts=4", "--arch=phi3"}, 2, "experts: found 4, expected none"},
        {{"-o", "x.gguf", "--arch=qwen3moe"}, 2, "experts: found none, expected some"},
        {{"-o", "x.gguf", "--vocab", "none.gguf"}, 4, "none.gguf"},
        {{"-o", "x.gguf", "--vocab", "Makefile"}, 4, "Makefile: "},
        {{"-o", "/dev/full", "--shape=137m"}, 1, "/dev/full: No space left on device"},
        {{"-o", "/nowhere/x.gguf", "--shape=137m"}, 1, "/nowhere/x.gguf: No such file"},
        {{"-o", "x.gguf", "--what"}, 2, "--what"},
    };
    char tool[4200];
    snprintf(tool, sizeof tool, "%s", program_path("tests/tool_model"));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const *a = cases[i].args;
        struct command c;
        program_run(&c, ARGS(tool, a[0], a[1], a[2], a[3], a[4]), NULL, NULL);
        ck_assert_msg(c.status == cases[i].status, "case %zu: exit %d: %s", i, c.status, c.err);
        ck_assert_msg(strstr(c.err, cases[i].text) != NULL, "case %zu: %s", i, c.err);
        command_done(&c);
    }
    ck_assert_ptr_null(weft_test_path("x.gguf"));
}
END_TEST

START_TEST(command_line)
{
    char tool[4200];
    struct command c;
    struct file f = {0};
    snprintf(tool, sizeof tool, "%s", program_path("tests/tool_model"));
    program_run(&c, ARGS(tool, "--help"), NULL, NULL);
    ck_assert_int_eq(c.status, 0);
    ck_assert_ptr_nonnull(strstr(c.out, " q4_k_m "));
    command_done(&c);
    program_run(&c,
                ARGS(tool, "-o", made("cli"), "--arch", "qwen3", "--dim=128", "--layers=2",
                     "--heads=4", "--kv-heads=2", "--head-dim=64", "--ffn=256", "--context=99",
                     "--vocab-size=600", "--rope-base", "5e5", "--tied", "--pure", "--type=Q4_1"),
                NULL, NULL);
    ck_assert_msg(c.status == 0, "%s", c.err);
    command_done(&c);
    file_open(&f, made("cli"));
    ck_assert_uint_eq(get_u32(&f.g, "qwen3.", "context_length"), 99);
    ck_assert_uint_eq(get_u32(&f.g, "qwen3.", "attention.key_length"), 64);
    ck_assert_ptr_null(weft_gguf_tensor(&f.g, "output.weight"));
    ck_assert_uint_eq(weft_gguf_tensor(&f.g, "token_embd.weight")->type, WEFT_Q4_1);
    ck_assert_uint_eq(weft_gguf_tensor(&f.g, "blk.1.attn_q.weight")->dims[1], 256);
    file_close(&f);
}
END_TEST

static int count_mixtures(void)
{
    int n = 0;
    while (mixture_at((uint32_t)n) != NULL)
        n++;
    return n;
}

int main(void)
{
    Suite *s = suite_create("tool_model");
    TCase *tc = tcase_create("models");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, every_type, 0, count_mixtures());
    tcase_add_loop_test(tc, pure_types, 0, count_mixtures());
    tcase_add_loop_test(tc, values, 0, WEFT_TENSOR_TYPE_COUNT);
    tcase_add_test(tc, packed_fields);
    tcase_add_loop_test(tc, types_of_quantisers, 0, sizeof golden_types / sizeof golden_types[0]);
    tcase_add_loop_test(tc, tensors_of_architectures, 0,
                        sizeof golden_archs / sizeof golden_archs[0]);
    tcase_add_test(tc, types_of_larger_models);
    tcase_add_test(tc, seeds);
    tcase_add_test(tc, shapes);
    tcase_add_test(tc, made_up_vocabulary);
    tcase_add_test(tc, copied_vocabulary);
    tcase_add_test(tc, cut_vocabulary);
    tcase_add_test(tc, cut_merges);
    tcase_add_test(tc, odd_vocabularies);
    tcase_add_test(tc, arguments);
    tcase_add_test(tc, command_line);
    suite_add_tcase(s, tc);
    return weft_test_main(s);
}
