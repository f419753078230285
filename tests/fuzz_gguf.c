/*
 * Fuzzer of model files: the input is a GGUF file. What opens becomes a model, a tokenizer and a
 * template; the first and last bytes of shards are read, so that a tensor outside the file shows.
 */
#include <string.h>

#include "base/gguf.h"
#include "base/model.h"
#include "coordinator/template.h"
#include "coordinator/tokenizer.h"
#include "tests/fuzz.h"

#define READ_MAX 256u /* bytes of a part that are read at either end */

static void read_run(const struct weft_gguf *g, const struct weft_model *m,
                     const struct weft_shard_run *run)
{
    struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
    size_t n_parts = 0;
    weft_err err = {0};
    FUZZ_EXPECT(weft_shard_parts(m, run, parts, &n_parts, &err) == 0);
    FUZZ_EXPECT(n_parts <= WEFT_SHARD_PARTS_MAX);
    for (size_t i = 0; i < n_parts; i++) {
        const struct weft_shard_part *part = &parts[i];
        FUZZ_EXPECT(part->bytes != 0 && part->bytes <= g->size);
        size_t n = part->bytes < READ_MAX ? (size_t)part->bytes : READ_MAX;
        uint8_t *buf = malloc(n); /* exact, for the sanitizers */
        FUZZ_EXPECT(buf != NULL);
        weft_shard_read(m, g->data, part, 0, buf, n);
        weft_shard_read(m, g->data, part, part->bytes - n, buf, n);
        free(buf);
    }
}

/* First, last and whole run of each kind in the first and last layer, and one that lies outside. */
static void read_shards(const struct weft_gguf *g, const struct weft_model *m)
{
    for (int k = 0; k < WEFT_SHARD_KIND_COUNT; k++) {
        const enum weft_shard_kind kind = (enum weft_shard_kind)k;
        const uint32_t last = weft_shard_layered(kind) ? m->n_layers - 1 : 0,
                       space = weft_shard_space(m, kind);
        const struct weft_shard_run runs[] = {
            {.kind = kind, .layer = 0, .first = 0, .count = 1},
            {.kind = kind, .layer = last, .first = space - 1, .count = 1},
            {.kind = kind, .layer = last, .first = 0, .count = space},
        };
        for (size_t i = 0; space > 0 && i < sizeof runs / sizeof runs[0]; i++)
            read_run(g, m, &runs[i]);
        struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
        size_t n_parts;
        FUZZ_EXPECT(
            weft_shard_parts(m, &(struct weft_shard_run){.kind = kind, .first = space, .count = 1},
                             parts, &n_parts, NULL) == -WEFT_ESHAPE);
    }
}

static void fuzz_model(const struct weft_gguf *g)
{
    struct weft_model m = {0};
    weft_err err = {0};
    int r = weft_model_from_gguf(g, NULL, &m, &err);
    FUZZ_EXPECT(r == -err.code);
    if (r < 0)
        return;
    FUZZ_EXPECT(weft_model_check(&m, &err) == 0);
    FUZZ_EXPECT(weft_layer_weight_bytes(&m, m.n_layers - 1) != 0);
    FUZZ_EXPECT(weft_head_weight_bytes(&m) != 0 && weft_embed_weight_bytes(&m) != 0);
    FUZZ_EXPECT(weft_stage_scratch_bound(&m, 1) != 0);
    read_shards(g, &m);
    weft_model_done(&m);
}

static void fuzz_texts(const struct weft_gguf *g)
{
    static const struct weft_message hello = {.role = "user", .content = "hi", .content_size = 2};
    struct weft_tokenizer *tokenizer = NULL;
    struct weft_template *template = NULL;
    weft_err err = {0};
    int r = weft_tokenizer_open(g, &tokenizer, &err);
    FUZZ_EXPECT(r == -err.code);
    err.code = 0;
    r = weft_template_open_gguf(g, &template, &err);
    FUZZ_EXPECT(r == -err.code);
    if (tokenizer != NULL && template != NULL) {
        int32_t *ids = NULL;
        size_t n_ids = 0;
        err.code = 0;
        r = weft_template_encode(template, tokenizer, &hello, 1, true, &ids, &n_ids, &err);
        FUZZ_EXPECT(r == -err.code);
        for (size_t i = 0; i < n_ids; i++)
            FUZZ_EXPECT(ids[i] >= 0 && (uint32_t)ids[i] < weft_tokenizer_vocab(tokenizer));
        free(ids);
    }
    weft_template_close(template);
    weft_tokenizer_close(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weft_gguf g = {0};
    weft_err err = {0};
    int r = weft_gguf_open(data, size, &g, &err);
    FUZZ_EXPECT(r == -err.code);
    if (r < 0)
        return 0;
    for (uint64_t i = 0; i < g.n_kvs; i++) {
        struct weft_gguf_string s;
        for (uint64_t pos = 0; weft_gguf_next_string(&g.kvs[i], &pos, &s);)
            FUZZ_EXPECT((const uint8_t *)s.data >= data && s.size <= size &&
                        (const uint8_t *)s.data + s.size <= data + size);
    }
    for (uint64_t i = 0; i < g.n_tensors; i++)
        FUZZ_EXPECT(g.tensors[i].offset <= size &&
                    g.tensors[i].bytes <= size - g.tensors[i].offset);
    fuzz_model(&g);
    fuzz_texts(&g);
    weft_gguf_done(&g);
    return 0;
}
