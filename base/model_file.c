/*
 * The files of a model, see model_file.h. Blocking reads of the headers of all parts; no thread of
 * its own.
 */
#include "base/model_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DIGITS 5       /* of both numbers, as gguf-split writes them */
#define MISSING_MAX 10 /* missing parts that are named; the others are counted */

/* ------------------------------------------------------------------ names */

/* Five digits as a number; 0, which no part has, for anything else. */
static uint32_t number(const char *text)
{
    uint32_t n = 0;
    for (int i = 0; i < DIGITS; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        n = 10 * n + (uint32_t)(text[i] - '0');
    }
    return n;
}

bool weft_part_name_parse(const char *path, size_t *ret_prefix, uint32_t *ret_no,
                          uint32_t *ret_count)
{
    const size_t size = strlen(path);
    if (size <= WEFT_PART_SUFFIX)
        return false;
    const char *at = path + size - WEFT_PART_SUFFIX;
    if (at[0] != '-' || memcmp(at + 1 + DIGITS, "-of-", 4) != 0 ||
        strcmp(at + WEFT_PART_SUFFIX - 5, ".gguf") != 0 || at[-1] == '/')
        return false;
    const uint32_t no = number(at + 1), count = number(at + 1 + DIGITS + 4);
    if (no == 0 || no > count)
        return false;
    *ret_prefix = size - WEFT_PART_SUFFIX;
    *ret_no = no;
    *ret_count = count;
    return true;
}

void weft_part_suffix(char buf[WEFT_PART_SUFFIX + 1], uint32_t no, uint32_t count)
{
    snprintf(buf, WEFT_PART_SUFFIX + 1, "-%0*u-of-%0*u.gguf", DIGITS, no % 100000, DIGITS,
             count % 100000);
}

/* The last component. */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* ------------------------------------------------------------------ one file */

static int open_one(const char *path, struct weft_mapping *map, struct weft_gguf *gguf,
                    weft_err *err)
{
    int r = weft_mapping_open(path, map, err);
    if (r < 0)
        return r; /* names the path already */
    r = weft_gguf_open(map->data, map->size, gguf, err);
    if (r < 0) {
        weft_err_prefix(err, "%s", path);
        weft_mapping_close(map);
    }
    return r;
}

/* ------------------------------------------------------------------ all parts */

/* While parts are being opened; what was not handed over is closed at the end. */
struct parts {
    uint32_t n;
    char **paths;              /* [n] */
    struct weft_mapping *maps; /* [n] */
    struct weft_gguf *ggufs;   /* [n] */
};

static void parts_close(struct parts *p)
{
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->paths != NULL)
            free(p->paths[i]);
        if (p->ggufs != NULL)
            weft_gguf_done(&p->ggufs[i]);
        if (p->maps != NULL)
            weft_mapping_close(&p->maps[i]);
    }
    free(p->paths);
    free(p->ggufs);
    free(p->maps);
}

static int parts_alloc(const char *path, size_t prefix, uint32_t n, struct parts *p, weft_err *err)
{
    *p = (struct parts){
        .n = n,
        .paths = calloc(n, sizeof *p->paths),
        .maps = calloc(n, sizeof *p->maps),
        .ggufs = calloc(n, sizeof *p->ggufs),
    };
    bool ok = p->paths != NULL && p->maps != NULL && p->ggufs != NULL;
    for (uint32_t i = 0; ok && i < n; i++) {
        p->paths[i] = malloc(prefix + WEFT_PART_SUFFIX + 1);
        ok = p->paths[i] != NULL;
        if (!ok)
            break;
        memcpy(p->paths[i], path, prefix);
        weft_part_suffix(p->paths[i] + prefix, i + 1, n);
    }
    return ok ? 0 : weft_fail(err, WEFT_ENOMEM, "%s: out of memory for %u parts", path, n);
}

/* All that are missing at once: each is a long download. */
static int check_present(const struct parts *p, uint32_t given, weft_err *err)
{
    char list[768] = "";
    uint32_t missing = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        if (access(p->paths[i], F_OK) == 0 || errno != ENOENT)
            continue; /* what else is wrong is told when it is opened */
        const size_t used = strlen(list);
        if (missing++ < MISSING_MAX)
            snprintf(list + used, sizeof list - used, "%s%s", used > 0 ? ", " : "",
                     base_name(p->paths[i]));
    }
    if (missing == 0)
        return 0;
    char more[32] = "";
    if (missing > MISSING_MAX)
        snprintf(more, sizeof more, " and %u more", missing - MISSING_MAX);
    return weft_fail(err, WEFT_EMODEL,
                     "%s: part %u of %u; missing beside it: %s%s; download %s from where this one "
                     "came from",
                     p->paths[given], given + 1, p->n, list, more, missing == 1 ? "it" : "them");
}

static int open_others(struct parts *p, uint32_t given, struct weft_gguf *ret, weft_err *err)
{
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < p->n; i++)
        if (i != given)
            r = open_one(p->paths[i], &p->maps[i], &p->ggufs[i], err);
    return r < 0 ? r : weft_gguf_join(p->ggufs, (const char *const *)p->paths, p->n, ret, err);
}

/* The keys and the name of a part must say the same, for the others are found by the name. */
static int check_name(const char *path, const struct weft_gguf_split *s, size_t *ret_prefix,
                      weft_err *err)
{
    char suffix[WEFT_PART_SUFFIX + 1];
    uint32_t no = 0, count = 0;
    weft_part_suffix(suffix, s->no + 1, s->count);
    if (!weft_part_name_parse(path, ret_prefix, &no, &count))
        return weft_fail(err, WEFT_EMODEL,
                         "%s: part %u of %u of a split model: the other parts are found by their "
                         "names; give each its own again, this one NAME%s",
                         path, s->no + 1, s->count, suffix);
    if (no != s->no + 1 || count != s->count)
        return weft_fail(err, WEFT_EMODEL,
                         "%s: it says that it is part %u of %u, which its name does not: it was "
                         "renamed, or stands there twice; download it again",
                         path, s->no + 1, s->count);
    return 0;
}

/* Takes map and gguf of the part that was given. */
static int open_split(const char *path, const struct weft_gguf_split *s, struct weft_mapping *map,
                      struct weft_gguf *gguf, struct weft_model_file *ret, weft_err *err)
{
    struct parts p = {0};
    size_t prefix = 0;
    int r = check_name(path, s, &prefix, err);
    if (r == 0)
        r = parts_alloc(path, prefix, s->count, &p, err);
    if (r < 0)
        goto out;
    p.maps[s->no] = *map;
    p.ggufs[s->no] = *gguf;
    *map = (struct weft_mapping){0};
    *gguf = (struct weft_gguf){0};
    r = check_present(&p, s->no, err);
    if (r == 0)
        r = open_others(&p, s->no, &ret->gguf, err);
    if (r < 0)
        goto out;
    ret->maps = p.maps;
    p.maps = NULL;
out:
    parts_close(&p);
    return r;
}

/* ------------------------------------------------------------------ public */

int weft_model_file_open(const char *path, struct weft_model_file *ret, weft_err *err)
{
    struct weft_mapping map = {0}, *maps;
    struct weft_gguf gguf = {0};
    struct weft_gguf_split split = {0};
    int r = open_one(path, &map, &gguf, err);
    if (r < 0)
        return r;
    r = weft_gguf_split(&gguf, &split, err);
    if (r < 0) {
        weft_err_prefix(err, "%s", path);
        goto out;
    }
    if (split.count > 1) {
        r = open_split(path, &split, &map, &gguf, ret, err);
        goto out;
    }
    maps = malloc(sizeof *maps);
    if (maps == NULL) {
        r = weft_fail(err, WEFT_ENOMEM, "%s: out of memory", path);
        goto out;
    }
    maps[0] = map;
    *ret = (struct weft_model_file){.maps = maps, .gguf = gguf};
    map = (struct weft_mapping){0};
    gguf = (struct weft_gguf){0};
out:
    weft_gguf_done(&gguf);
    weft_mapping_close(&map);
    return r;
}

void weft_model_file_close(struct weft_model_file *f)
{
    const uint32_t n = f->gguf.n_parts;
    weft_gguf_done(&f->gguf);
    for (uint32_t i = 0; i < n; i++)
        weft_mapping_close(&f->maps[i]);
    free(f->maps);
    f->maps = NULL;
}

uint64_t weft_model_file_bytes(const struct weft_model_file *f)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < f->gguf.n_parts; i++)
        sum += f->gguf.parts[i].size;
    return sum;
}
