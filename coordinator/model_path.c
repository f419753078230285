/*
 * Model names, see model_path.h. Loop not needed: runs before anything is started.
 */
#include "coordinator/model_path.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/model_file.h"
#include "base/text.h"

#define DIRS_MAX 32      /* directories of WEFT_MODELS */
#define NAMES_MAX 4096   /* files of a directory that are compared with a name */
#define SHOWN_MAX 5      /* names an error shows */
#define HUB_NAME_MAX 400 /* bytes of hf:…; the message that repeats it three times must fit */
#define HUB "hf:"
#define HUB_URL "https://huggingface.co/"
#define SUFFIX ".gguf"

struct dirs {
    char *paths[DIRS_MAX];
    size_t n;
};

struct names {
    char **list; /* [n], sorted; the first parts of split models stand for all */
    size_t n;
};

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The pieces behind one another, malloc'ed; NULL out of memory. */
static char *concat(const char *a, const char *b, const char *c)
{
    const size_t n = strlen(a) + strlen(b) + strlen(c) + 1;
    char *s = malloc(n);
    if (s != NULL)
        snprintf(s, n, "%s%s%s", a, b, c);
    return s;
}

/* ------------------------------------------------------------------ directories */

static void dirs_done(struct dirs *d)
{
    for (size_t i = 0; i < d->n; i++)
        free(d->paths[i]);
}

static int dirs_add(struct dirs *d, char *path, weft_err *err)
{
    if (path == NULL)
        return weft_fail(err, WEFT_ENOMEM, "directories of models");
    d->paths[d->n++] = path;
    return 0;
}

static int dirs_of_variable(const char *list, struct dirs *d, weft_err *err)
{
    int r = 0;
    for (const char *at = list; r == 0 && *at != '\0';) {
        const size_t n = strcspn(at, ":");
        if (n > 0 && d->n == DIRS_MAX)
            return weft_fail(err, WEFT_ECONFIG, "WEFT_MODELS: found more than %d directories",
                             DIRS_MAX);
        if (n > 0)
            r = dirs_add(d, strndup(at, n), err);
        at += n + (at[n] == ':');
    }
    return r;
}

/* A person's own directory is named also when it is not there yet: downloads go to it. */
static int dirs_usual(const char *(*env)(const char *name), struct dirs *d, weft_err *err)
{
    static const char *const shared[] = {"/var/lib/weft/models", "/usr/share/weft/models"};
    const char *data = env("XDG_DATA_HOME"), *home = env("HOME");
    int r = 0;
    if (data != NULL && data[0] == '/') /* relative ones are to be ignored, says the XDG rule */
        r = dirs_add(d, concat(data, "/weft/models", ""), err);
    else if (home != NULL && home[0] == '/')
        r = dirs_add(d, concat(home, "/.local/share", "/weft/models"), err);
    for (size_t i = 0; r == 0 && i < sizeof shared / sizeof shared[0]; i++)
        if (is_dir(shared[i]))
            r = dirs_add(d, strdup(shared[i]), err);
    return r;
}

static int dirs_open(const char *(*env)(const char *name), struct dirs *d, weft_err *err)
{
    const char *list = env("WEFT_MODELS");
    *d = (struct dirs){0};
    return list != NULL && list[0] != '\0' ? dirs_of_variable(list, d, err)
                                           : dirs_usual(env, d, err);
}

/* DIR/NAME or DIR/NAME.gguf if it is a file; NULL: none, or out of memory (*ret_failed). */
static char *find_in(const char *dir, const char *name, bool *ret_failed)
{
    for (int i = 0; i < 2; i++) {
        char *stem = concat(dir, "/", name);
        char *path = stem != NULL ? concat(stem, i == 0 ? "" : SUFFIX, "") : NULL;
        free(stem);
        *ret_failed |= path == NULL;
        if (path == NULL || is_file(path))
            return path;
        free(path);
    }
    return NULL;
}

static int find_name(const struct dirs *d, const char *name, char **ret, weft_err *err)
{
    bool failed = false;
    *ret = NULL;
    for (size_t i = 0; i < d->n && *ret == NULL && !failed; i++)
        *ret = find_in(d->paths[i], name, &failed);
    return failed ? weft_fail(err, WEFT_ENOMEM, "model %s", name) : 0;
}

/* ------------------------------------------------------------------ names like it */

static void names_done(struct names *n)
{
    for (size_t i = 0; i < n->n; i++)
        free(n->list[i]);
    free(n->list);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What the directories hold. For a message alone: what cannot be read is left out. */
static void names_read(const struct dirs *d, struct names *ret)
{
    *ret = (struct names){.list = calloc(NAMES_MAX + 1, sizeof *ret->list)};
    for (size_t i = 0; i < d->n && ret->list != NULL; i++) {
        DIR *dir = opendir(d->paths[i]);
        struct dirent *e;
        while (dir != NULL && ret->n < NAMES_MAX && (e = readdir(dir)) != NULL) {
            const size_t size = strlen(e->d_name), suffix = strlen(SUFFIX);
            size_t prefix;
            uint32_t no = 1, count;
            if (size <= suffix || strcmp(e->d_name + size - suffix, SUFFIX) != 0 ||
                (weft_part_name_parse(e->d_name, &prefix, &no, &count) && no > 1))
                continue;
            char *copy = strdup(e->d_name);
            if (copy == NULL)
                break;
            ret->list[ret->n++] = copy;
        }
        if (dir != NULL)
            closedir(dir);
    }
    if (ret->n > 1)
        qsort(ret->list, ret->n, sizeof *ret->list, compare);
}

/* The word without ".gguf" stands in the name, whatever the case, or it is a slip of the keys. */
static bool similar(const char *word, const char *name)
{
    size_t n = strlen(word);
    const size_t suffix = strlen(SUFFIX);
    if (n > suffix && strcasecmp(word + n - suffix, SUFFIX) == 0)
        n -= suffix;
    for (const char *at = name; n > 0 && strlen(at) >= n; at++)
        if (strncasecmp(at, word, n) == 0)
            return true;
    char *stem = strndup(name, strlen(name) - suffix);
    const char *candidates[] = {name, stem, NULL};
    const bool near = weft_near_miss(word, candidates) != NULL;
    free(stem);
    return near;
}

/* "; did you mean 'a.gguf', 'b.gguf'?" or "; there are: …"; nothing in empty directories. */
static void add_names(const char *word, const struct dirs *d, struct weft_str *out)
{
    struct names all;
    char quoted[WEFT_QUOTE_SIZE];
    size_t n_similar = 0, shown = 0;
    names_read(d, &all);
    for (size_t i = 0; i < all.n; i++)
        n_similar += similar(word, all.list[i]);
    const size_t n = n_similar > 0 ? n_similar : all.n;
    for (size_t i = 0; i < all.n && shown < SHOWN_MAX; i++)
        if (n_similar == 0 || similar(word, all.list[i]))
            weft_str_addf(out, "%s%s",
                          shown++ > 0     ? ", "
                          : n_similar > 0 ? "; did you mean "
                                          : "; there are ",
                          weft_quote(quoted, sizeof quoted, all.list[i], strlen(all.list[i])));
    if (n > shown)
        weft_str_addf(out, " and %zu more", n - shown);
    if (n_similar > 0)
        weft_str_adds(out, "?");
    names_done(&all);
}

static int not_found(const struct weft_model_name *n, const struct dirs *d, weft_err *err)
{
    struct weft_str text = {0};
    char quoted[WEFT_QUOTE_SIZE];
    for (size_t i = 0; i < d->n; i++)
        weft_str_addf(&text, "%s %s%s", i > 0 ? "," : ", nor in", d->paths[i],
                      is_dir(d->paths[i]) ? "" : " (no such directory)");
    add_names(n->name, d, &text);
    int r = weft_fail(err, WEFT_EMODEL, "model %s: %s%s%s%s",
                      weft_quote(quoted, sizeof quoted, n->name, strlen(n->name)),
                      is_dir(n->path) ? "a directory, no file" : "no such file",
                      strcmp(n->name, n->path) != 0 ? " beside the cluster file" : " here",
                      text.data != NULL ? text.data : "",
                      d->n == 0 ? "; WEFT_MODELS may name directories of models" : "");
    weft_str_done(&text);
    return r;
}

/* ------------------------------------------------------------------ hf:OWNER/REPO:FILE */

struct hub_name {
    char text[HUB_NAME_MAX + 1]; /* cut by 0 bytes into the three */
    char *repo;                  /* "owner/repo" */
    char *file;                  /* "folder/name.gguf"; NULL: not named */
};

/* Plain names with single slashes between; none of them a way up. */
static bool path_ok(const char *path)
{
    for (const char *at = path;; at++) {
        const size_t n = strcspn(at, "/");
        if (n == 0 || (at[0] == '.' && (n == 1 || (n == 2 && at[1] == '.'))))
            return false;
        at += n;
        if (*at == '\0')
            return true;
    }
}

static int hub_parse(const char *name, struct hub_name *ret, weft_err *err)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789-_./+@=,~()[] ";
    char quoted[WEFT_QUOTE_SIZE];
    const char *text = name + strlen(HUB);
    weft_quote(quoted, sizeof quoted, name, strlen(name));
    if (strlen(text) > HUB_NAME_MAX)
        return weft_fail(err, WEFT_EMODEL, "model %s: more than %d bytes", quoted, HUB_NAME_MAX);
    snprintf(ret->text, sizeof ret->text, "%s", text);
    ret->repo = ret->text;
    ret->file = strchr(ret->text, ':');
    if (ret->file != NULL)
        *ret->file++ = '\0';
    const char *slash = strchr(ret->repo, '/');
    bool ok = ret->repo[strspn(ret->repo, allowed)] == '\0' && path_ok(ret->repo) &&
              slash != NULL && strchr(slash + 1, '/') == NULL && strchr(ret->repo, ' ') == NULL;
    if (ok && ret->file != NULL)
        ok = ret->file[strspn(ret->file, allowed)] == '\0' && path_ok(ret->file);
    if (!ok)
        return weft_fail(err, WEFT_EMODEL, "model %s: expected hf:OWNER/REPO:FILE.gguf", quoted);
    const size_t n = ret->file != NULL ? strlen(ret->file) : 0, suffix = strlen(SUFFIX);
    if (n <= suffix || strcmp(ret->file + n - suffix, SUFFIX) != 0)
        return weft_fail(err, WEFT_EMODEL,
                         "model %s: %s, expected hf:%s:FILE.gguf; the files are listed at " HUB_URL
                         "%s/tree/main",
                         quoted, ret->file == NULL ? "it names no file" : "the file is no .gguf",
                         ret->repo, ret->repo);
    return 0;
}

/* A URL's path: what is not plain is escaped. */
static void add_url(const char *path, struct weft_str *out)
{
    for (; *path != '\0'; path++)
        if (strchr("+@=,()[] ", *path) != NULL)
            weft_str_addf(out, "%%%02X", (unsigned char)*path);
        else
            weft_str_add(out, path, 1);
}

/* What to download, where to put it, and what to type then. */
static int hub_missing(const struct weft_model_name *n, const struct hub_name *h,
                       const struct dirs *d, weft_err *err)
{
    struct weft_str text = {0};
    const char *slash = strrchr(h->file, '/'), *base = slash != NULL ? slash + 1 : h->file;
    size_t prefix;
    uint32_t no, count;
    weft_str_adds(&text, "\n  download  " HUB_URL);
    weft_str_adds(&text, h->repo);
    weft_str_adds(&text, "/resolve/main/");
    add_url(h->file, &text);
    if (weft_part_name_parse(base, &prefix, &no, &count) && count > 1)
        weft_str_addf(&text, "\n            and all other parts, to %.*s-%05u-of-%05u" SUFFIX,
                      (int)prefix, base, count, count);
    if (d->n > 0)
        weft_str_addf(&text, "\n  into      %s%s", d->paths[0],
                      is_dir(d->paths[0]) ? "" : " (mkdir -p it first)");
    else
        weft_str_adds(&text, "\n  into      a directory that WEFT_MODELS names");
    weft_str_addf(&text, "\n  then      %s %s%s%s", n->again, strchr(base, ' ') != NULL ? "'" : "",
                  base, strchr(base, ' ') != NULL ? "'" : "");
    int r = weft_fail(err, WEFT_EMODEL, "%s is not on this machine, and weft downloads nothing:%s",
                      n->name, text.data != NULL ? text.data : "");
    weft_str_done(&text);
    return r;
}

/* In each directory by its whole name, by that in the repository, and by the last component. */
static int hub_find(const struct weft_model_name *n, const struct dirs *d, char **ret,
                    weft_err *err)
{
    struct hub_name h;
    int r = hub_parse(n->name, &h, err);
    *ret = NULL;
    if (r < 0)
        return r;
    char *whole = concat(h.repo, "/", h.file);
    if (whole == NULL)
        return weft_fail(err, WEFT_ENOMEM, "model %s", n->name);
    const char *slash = strrchr(h.file, '/');
    const char *names[] = {whole, h.file, slash != NULL ? slash + 1 : h.file};
    for (size_t i = 0; i < sizeof names / sizeof names[0] && r == 0 && *ret == NULL; i++)
        r = find_name(d, names[i], ret, err);
    if (r == 0 && *ret == NULL)
        r = hub_missing(n, &h, d, err);
    free(whole);
    return r;
}

/* ------------------------------------------------------------------ public */

int weft_model_path(const struct weft_model_name *n, const char *(*env)(const char *name),
                    char **ret, weft_err *err)
{
    struct dirs d;
    char *path = NULL;
    int r = 0;
    const bool hub = strncmp(n->name, HUB, strlen(HUB)) == 0;
    if (!hub && (strchr(n->name, '/') != NULL || is_file(n->path))) {
        *ret = strdup(n->path);
        return *ret != NULL ? 0 : weft_fail(err, WEFT_ENOMEM, "model %s", n->name);
    }
    r = dirs_open(env, &d, err);
    if (r == 0)
        r = hub ? hub_find(n, &d, &path, err) : find_name(&d, n->name, &path, err);
    if (r == 0 && path == NULL)
        r = not_found(n, &d, err);
    if (r == 0)
        *ret = path;
    dirs_done(&d);
    return r;
}
