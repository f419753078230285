/*
 * Fuzzer of model files: the input is a GGUF file, or several behind one another, the parts of a
 * split one. What opens becomes a model, a tokenizer and a template; the first and last bytes of
 * shards are read, so that a tensor outside its file shows.
 */
#include <string.h>

#include "base/gguf.h"
#include "base/model.h"
#include "coordinator/template.h"
#include "coordinator/tokenizer.h"
#include "tests/fuzz.h"

#define READ_MAX 256u /* bytes of a part that are read at either end */
#define FILES_MAX 8u  /* of one input; what would be more belongs to the last */

static void read_run(const struct weft_gguf *g, const struct weft_model *m,
                     const struct weft_shard_run *run)
{
    struct weft_mapping maps[FILES_MAX];
    uint64_t size = 0;
    for (uint32_t i = 0; i < g->n_parts; i++) {
        maps[i] = (struct weft_mapping){.data = g->parts[i].data, .size = g->parts[i].size};
        size += g->parts[i].size;
    }
    struct weft_shard_part parts[WEFT_SHARD_PARTS_MAX];
    size_t n_parts = 0;
    weft_err err = {0};
    FUZZ_EXPECT(weft_shard_parts(m, run, parts, &n_parts, &err) == 0);
    FUZZ_EXPECT(n_parts <= WEFT_SHARD_PARTS_MAX);
    for (size_t i = 0; i < n_parts; i++) {
        const struct weft_shard_part *part = &parts[i];
        FUZZ_EXPECT(part->bytes != 0 && part->bytes <= size);
        size_t n = part->bytes < READ_MAX ? (size_t)part->bytes : READ_MAX;
        uint8_t *buf = malloc(n); /* exact, for the sanitizers */
        FUZZ_EXPECT(buf != NULL);
        weft_shard_read(m, maps, part, 0, buf, n);
        weft_shard_read(m, maps, part, part->bytes - n, buf, n);
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

/* What holds of a file and of joined ones. */
static void fuzz_file(const struct weft_gguf *g)
{
    for (uint64_t i = 0; i < g->n_kvs; i++) {
        struct weft_gguf_string s;
        const uint8_t *end = g->data + g->size;
        for (uint64_t pos = 0; weft_gguf_next_string(&g->kvs[i], &pos, &s);)
            FUZZ_EXPECT((const uint8_t *)s.data >= g->data && s.size <= g->size &&
                        (const uint8_t *)s.data + s.size <= end);
    }
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const struct weft_gguf_tensor *t = &g->tensors[i];
        FUZZ_EXPECT(t->part < g->n_parts);
        FUZZ_EXPECT(t->offset <= g->parts[t->part].size &&
                    t->bytes <= g->parts[t->part].size - t->offset);
    }
    fuzz_model(g);
    fuzz_texts(g);
}

/* Where the next file begins in data[0..size), or size. */
static size_t next_file(const uint8_t *data, size_t size)
{
    for (size_t i = 1; i + 4 <= size; i++)
        if (memcmp(data + i, "GGUF", 4) == 0)
            return i;
    return size;
}

static void fuzz_parts(struct weft_gguf *parts, uint32_t n)
{
    static const char *const names[FILES_MAX] = {"0", "1", "2", "3", "4", "5", "6", "7"};
    struct weft_gguf g = {0};
    weft_err err = {0};
    int r = weft_gguf_join(parts, names, n, &g, &err);
    FUZZ_EXPECT(r == -err.code);
    for (uint32_t i = 0; i < n; i++)
        FUZZ_EXPECT((parts[i].impl == NULL) == (r == 0));
    if (r < 0)
        return;
    FUZZ_EXPECT(g.n_parts == n);
    fuzz_file(&g);
    weft_gguf_done(&g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct weft_gguf g = {0}, parts[FILES_MAX] = {0};
    struct weft_gguf_split split = {0};
    weft_err err = {0};
    uint32_t n = 0;
    int r = weft_gguf_open(data, size, &g, &err);
    FUZZ_EXPECT(r == -err.code);
    if (r < 0)
        return 0;
    fuzz_file(&g);
    err.code = 0;
    r = weft_gguf_split(&g, &split, &err);
    FUZZ_EXPECT(r == -err.code);
    FUZZ_EXPECT(r < 0 ||
                (split.count >= 1 && split.no < split.count && split.count <= WEFT_GGUF_PARTS_MAX));
    weft_gguf_done(&g);
    for (size_t piece; r == 0 && split.count > 1 && size > 0; data += piece, size -= piece) {
        piece = n + 1 < FILES_MAX ? next_file(data, size) : size;
        if (n == FILES_MAX || weft_gguf_open(data, piece, &parts[n], NULL) < 0)
            break;
        n++;
    }
    if (n > 1)
        fuzz_parts(parts, n);
    for (uint32_t i = 0; i < n; i++)
        weft_gguf_done(&parts[i]);
    return 0;
}
