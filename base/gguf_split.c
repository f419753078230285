/*
 * Models split over several GGUF files, as gguf-split and the converters write them: each file is a
 * GGUF of its own with the keys split.no, split.count and split.tensors.count; all other keys stand
 * in the first, tensors in any. Source: gguf-split in the public llama.cpp repository.
 *
 * Invariant: a join gives what one whole file would have given: names of tensors are unique, and
 * all that the first part counts are there. Over memory; base/model_file.c finds the files.
 */
#include "base/gguf_private.h"

#include <assert.h>
#include <string.h>

#include "base/text.h"

int weft_gguf_split(const struct weft_gguf *g, struct weft_gguf_split *ret, weft_err *err)
{
    struct weft_gguf_split s = {.count = 1};
    int r = 0;
    if (weft_gguf_kv(g, "split.count") != NULL)
        r = weft_gguf_u32(g, "split.count", &s.count, err);
    if (r == 0 && s.count <= 1) {
        *ret = (struct weft_gguf_split){.count = 1};
        return 0;
    }
    if (r == 0 && s.count > WEFT_GGUF_PARTS_MAX)
        r = weft_fail(err, WEFT_EMODEL, "key split.count: found %u, expected at most %u", s.count,
                      WEFT_GGUF_PARTS_MAX);
    if (r == 0)
        r = weft_gguf_u32(g, "split.no", &s.no, err);
    if (r == 0 && s.no >= s.count)
        r = weft_fail(err, WEFT_EMODEL, "key split.no: found %u, expected 0 to %u", s.no,
                      s.count - 1);
    if (r == 0)
        r = weft_gguf_u32(g, "split.tensors.count", &s.tensors, err);
    if (r == 0)
        *ret = s;
    return r;
}

/* A text key that stands in both and differs; quoted for a message. */
static bool differs(const struct weft_gguf *a, const struct weft_gguf *b, const char *key,
                    char found[WEFT_QUOTE_SIZE], char expected[WEFT_QUOTE_SIZE])
{
    struct weft_gguf_string x, y;
    if (weft_gguf_str(a, key, &x, NULL) < 0 || weft_gguf_str(b, key, &y, NULL) < 0)
        return false;
    weft_quote(expected, WEFT_QUOTE_SIZE, x.data, (size_t)x.size);
    weft_quote(found, WEFT_QUOTE_SIZE, y.data, (size_t)y.size);
    return x.size != y.size || memcmp(x.data, y.data, (size_t)x.size) != 0;
}

/* Part i against the first, of which `first` was read. */
static int check_part(const struct weft_gguf *parts, const char *const *names, uint32_t n,
                      uint32_t i, const struct weft_gguf_split *first, weft_err *err)
{
    static const char *const texts[] = {"general.architecture", "general.name"};
    char found[WEFT_QUOTE_SIZE], expected[WEFT_QUOTE_SIZE];
    struct weft_gguf_split s = {0};
    int r = weft_gguf_split(&parts[i], &s, err);
    if (r < 0) {
        weft_err_prefix(err, "%s", names[i]);
        return r;
    }
    if (s.count != n)
        return weft_fail(err, WEFT_EMODEL,
                         "%s: it says that it is one of %u parts, expected %u: it belongs to "
                         "another split; download it again from where the other parts came from",
                         names[i], s.count, n);
    if (s.no != i)
        return weft_fail(err, WEFT_EMODEL,
                         "%s: it says that it is part %u of %u, expected part %u: it was renamed, "
                         "or stands there twice; download it again",
                         names[i], s.no + 1, n, i + 1);
    if (s.tensors != first->tensors)
        return weft_fail(err, WEFT_EMODEL,
                         "%s: a part of a model of %u tensors, %s is of one of %u: parts of "
                         "different models; download them again, all from one place",
                         names[i], s.tensors, names[0], first->tensors);
    for (size_t k = 0; k < sizeof texts / sizeof texts[0]; k++)
        if (differs(&parts[0], &parts[i], texts[k], found, expected))
            return weft_fail(err, WEFT_EMODEL,
                             "%s: %s is %s, expected %s as in %s: parts of different models; "
                             "download them again, all from one place",
                             names[i], texts[k], found, expected, names[0]);
    return 0;
}

/* All parts, and what they hold together. */
static int check_parts(const struct weft_gguf *parts, const char *const *names, uint32_t n,
                       uint64_t *ret_tensors, weft_err *err)
{
    struct weft_gguf_split first = {0};
    uint64_t n_tensors = 0;
    int r = weft_gguf_split(&parts[0], &first, err);
    if (r < 0)
        weft_err_prefix(err, "%s", names[0]);
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        r = check_part(parts, names, n, i, &first, err);
        n_tensors += parts[i].n_tensors; /* at most 2^10 times 2^16 */
    }
    if (r < 0)
        return r;
    if (n_tensors != first.tensors)
        return weft_fail(err, WEFT_EMODEL,
                         "the %u parts hold %llu tensors, expected %u as key split.tensors.count "
                         "says: one of them is of another model; download them again",
                         n, (unsigned long long)n_tensors, first.tensors);
    if (n_tensors > WEFT_GGUF_TENSORS_MAX)
        return weft_fail(err, WEFT_EMODEL, "the parts hold %llu tensors, at most %d are allowed",
                         (unsigned long long)n_tensors, WEFT_GGUF_TENSORS_MAX);
    *ret_tensors = n_tensors;
    return 0;
}

/* Adds the tensors of part i to the table. */
static int add_tensors(const struct weft_gguf *parts, const char *const *names, uint32_t i,
                       struct gguf_impl *to, uint64_t *n_tensors, weft_err *err)
{
    for (uint64_t k = 0; k < parts[i].n_tensors; k++) {
        struct weft_gguf_tensor *t = &to->tensors[*n_tensors];
        *t = parts[i].tensors[k];
        t->part = i;
        if (gguf_index_add(&to->tensor_index, &t->name, *n_tensors)) {
            ++*n_tensors;
            continue;
        }
        const struct weft_gguf_tensor *other =
            gguf_index_get(&to->tensor_index, t->name.data, t->name.size);
        assert(other != NULL);
        return weft_fail(err, WEFT_EMODEL,
                         "%s: tensor %.*s stands in %s too: one of the two is no part of this "
                         "model; download them again",
                         names[i], (int)t->name.size, t->name.data, names[other->part]);
    }
    return 0;
}

int weft_gguf_join(struct weft_gguf *parts, const char *const *names, uint32_t n,
                   struct weft_gguf *ret, weft_err *err)
{
    struct gguf_impl *impl = NULL, *first = parts[0].impl;
    struct weft_gguf g = parts[0];
    uint64_t added = 0;
    assert(n > 1 && n <= WEFT_GGUF_PARTS_MAX);
    int r = check_parts(parts, names, n, &g.n_tensors, err);
    if (r < 0)
        return r;
    if (gguf_impl_open(0, g.n_tensors, n, &impl) < 0) {
        r = weft_fail(err, WEFT_ENOMEM, "out of memory for %llu tensors",
                      (unsigned long long)g.n_tensors);
        goto out;
    }
    for (uint32_t i = 0; r == 0 && i < n; i++) {
        impl->parts[i] = parts[i].parts[0];
        r = add_tensors(parts, names, i, impl, &added, err);
    }
    if (r < 0)
        goto out;
    /* The keys of the first move over; its memory goes with what is left there. */
    const struct gguf_impl old = *first;
    first->kvs = impl->kvs;
    first->kv_index = impl->kv_index;
    impl->kvs = old.kvs;
    impl->kv_index = old.kv_index;
    g.tensors = impl->tensors;
    g.parts = impl->parts;
    g.n_parts = n;
    g.impl = impl;
    impl = NULL;
    for (uint32_t i = 0; i < n; i++)
        weft_gguf_done(&parts[i]);
    *ret = g;
out:
    gguf_impl_close(impl);
    return r;
}
