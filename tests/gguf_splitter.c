/*
 * The splitter of tests, see gguf_splitter.h.
 */
#include "tests/gguf_splitter.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/model_file.h"
#include "tests/harness.h"

/* As in the writer; tools, which run no test, split too. */
static void must(bool ok)
{
    if (!ok)
        abort();
}

static char *name_of(struct weft_gguf_string s)
{
    char *name = strndup(s.data, (size_t)s.size);
    must(name != NULL);
    return name;
}

static void copy_key(struct gguf_writer *w, const struct weft_gguf_kv *kv)
{
    char *key = name_of(kv->key);
    if (kv->type == WEFT_GGUF_ARRAY)
        gguf_writer_array(w, key, kv->item_type, kv->count, kv->data, (size_t)kv->size);
    else
        gguf_writer_raw(w, key, kv->type, kv->data, (size_t)kv->size);
    free(key);
}

static void copy_tensor(struct gguf_writer *w, const struct weft_gguf *g,
                        const struct weft_gguf_tensor *t)
{
    char *name = name_of(t->name);
    struct gguf_writer_tensor *copy = gguf_writer_declare(w, name, t->type, t->dims, t->n_dims);
    must(copy->size == t->bytes);
    copy->data = malloc(copy->size);
    must(copy->data != NULL);
    memcpy(copy->data, weft_gguf_data(g, t), copy->size);
    free(name);
}

void gguf_split_of(const struct weft_gguf *g, uint32_t n, bool keys_alone,
                   struct gguf_split_files *ret)
{
    const uint32_t first = keys_alone ? 1 : 0;
    must(n > first && n <= SPLIT_PARTS_MAX && g->n_tensors >= n);
    ret->n = n;
    for (uint32_t i = 0; i < n; i++) {
        struct gguf_writer *w = &ret->parts[i];
        gguf_writer_init(w);
        for (uint64_t k = 0; i == 0 && k < g->n_kvs; k++)
            copy_key(w, &g->kvs[k]);
        gguf_writer_int(w, "split.no", WEFT_GGUF_U16, i);
        gguf_writer_int(w, "split.count", WEFT_GGUF_U16, n);
        gguf_writer_int(w, "split.tensors.count", WEFT_GGUF_I32, g->n_tensors);
    }
    for (uint64_t k = 0; k < g->n_tensors; k++)
        copy_tensor(&ret->parts[first + k * (n - first) / g->n_tensors], g, &g->tensors[k]);
}

void gguf_split(const char *path, uint32_t n, bool keys_alone, struct gguf_split_files *ret)
{
    struct weft_model_file file = {0};
    weft_err err = {0};
    const char *found = weft_test_path(path);
    ck_assert_msg(found != NULL, "%s is missing", path);
    ck_assert_msg(weft_model_file_open(found, &file, &err) == 0, "%s", err.text);
    gguf_split_of(&file.gguf, n, keys_alone, ret);
    weft_model_file_close(&file);
}

void gguf_split_done(struct gguf_split_files *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        gguf_writer_done(&s->parts[i]);
    s->n = 0;
}

const char *gguf_split_path(const char *dir, const char *name, uint32_t no, uint32_t n)
{
    static char paths[4][4200];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s-%05u-of-%05u.gguf", dir, name, no, n);
    return path;
}

const char *gguf_split_save(const struct gguf_split_files *s, const char *dir, const char *name,
                            uint32_t no)
{
    for (uint32_t i = 0; i < s->n; i++) {
        const char *path = gguf_split_path(dir, name, i + 1, s->n);
        ck_assert_msg(gguf_writer_save(&s->parts[i], path), "%s cannot be written", path);
    }
    return gguf_split_path(dir, name, no, s->n);
}
