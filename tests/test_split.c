/*
 * Split models: parts joined in memory and as files, every way in which one can be wrong, and the
 * same bits as of the whole file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/model_file.h"
#include "tests/gguf_splitter.h"
#include "tests/harness.h"
#include "tests/local_model.h"

#define WHOLE "tests/golden/llama-256-q8_0.gguf"
#define VOCAB 1024

/* A folder of its own for each test, so that names do not meet. */
static const char *folder(void)
{
    static char path[4200];
    static unsigned next;
    snprintf(path, sizeof path, "%s/%d-%u", weft_test_tmpdir(), (int)getpid(), next++);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    return path;
}

static void expect_open(const char *path, const char *words)
{
    struct weft_model_file f = {0};
    weft_err err = {0};
    int r = weft_model_file_open(path, &f, &err);
    ck_assert_msg(r == -WEFT_EMODEL && err.code == WEFT_EMODEL, "%s: opened, expected '%s'", path,
                  words);
    ck_assert_msg(strstr(err.text, words) != NULL, "found '%s', expected '%s' in it", err.text,
                  words);
    ck_assert_int_eq(weft_model_file_open(path, &f, NULL), -WEFT_EMODEL);
}

/* ------------------------------------------------------------------ names */

START_TEST(part_names)
{
    static const struct {
        const char *path;
        size_t prefix;
        uint32_t no, count; /* count 0: no part */
    } cases[] = {
        {"a-00001-of-00003.gguf", 1, 1, 3},
        {"/x/y/big-q4_k_m-00012-of-01024.gguf", 15, 12, 1024},
        {"a-00001-of-00002-00002-of-00002.gguf", 16, 2, 2},
        {"a-00003-of-00003.gguf", 1, 3, 3},
        {"a-00004-of-00003.gguf", 0, 0, 0},
        {"a-00000-of-00003.gguf", 0, 0, 0},
        {"a-0001-of-0003.gguf", 0, 0, 0},
        {"a-00001-of-00003.GGUF", 0, 0, 0},
        {"a_00001-of-00003.gguf", 0, 0, 0},
        {"a-0000x-of-00003.gguf", 0, 0, 0},
        {"a-00001-or-00003.gguf", 0, 0, 0},
        {"-00001-of-00003.gguf", 0, 0, 0},
        {"x/-00001-of-00003.gguf", 0, 0, 0},
        {"", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t prefix = 77;
        uint32_t no = 77, count = 77;
        const bool part = weft_part_name_parse(cases[i].path, &prefix, &no, &count);
        ck_assert_msg(part == (cases[i].count != 0), "%s", cases[i].path);
        if (!part) {
            ck_assert(prefix == 77 && no == 77 && count == 77);
            continue;
        }
        ck_assert_uint_eq(prefix, cases[i].prefix);
        ck_assert_uint_eq(no, cases[i].no);
        ck_assert_uint_eq(count, cases[i].count);
        char suffix[WEFT_PART_SUFFIX + 1];
        weft_part_suffix(suffix, no, count);
        ck_assert_str_eq(suffix, cases[i].path + prefix);
    }
}
END_TEST

/* ------------------------------------------------------------------ good ones */

/* Everything of the joined files is what the whole one has, through any of the parts. */
START_TEST(joined_is_whole)
{
    const bool keys_alone = _i % 2 == 1;
    const uint32_t n = _i < 2 ? 3 : 8;
    const char *dir = folder();
    struct gguf_split_files s;
    struct weft_model_file whole = {0}, f = {0};
    struct weft_model a = {0}, b = {0};
    weft_err err = {0};
    ck_assert_int_eq(weft_model_file_open(weft_test_path(WHOLE), &whole, NULL), 0);
    ck_assert_uint_eq(whole.gguf.n_parts, 1);
    gguf_split(WHOLE, n, keys_alone, &s);
    (void)gguf_split_save(&s, dir, "m", 1);
    for (uint32_t given = 1; given <= n; given++) {
        const char *path = gguf_split_path(dir, "m", given, n);
        ck_assert_msg(weft_model_file_open(path, &f, &err) == 0, "%s", err.text);
        ck_assert_uint_eq(f.gguf.n_parts, n);
        ck_assert_uint_eq(f.gguf.n_tensors, whole.gguf.n_tensors);
        ck_assert_uint_eq(f.gguf.n_kvs, whole.gguf.n_kvs + 3);
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < n; i++)
            bytes += f.maps[i].size;
        ck_assert_uint_eq(weft_model_file_bytes(&f), bytes);
        for (uint64_t k = 0; k < f.gguf.n_tensors; k++) {
            const struct weft_gguf_tensor *t = &f.gguf.tensors[k], *x = &whole.gguf.tensors[k];
            ck_assert_uint_eq(t->name.size, x->name.size);
            ck_assert_mem_eq(t->name.data, x->name.data, t->name.size);
            ck_assert_uint_eq(t->bytes, x->bytes);
            ck_assert_mem_eq(weft_gguf_data(&f.gguf, t), weft_gguf_data(&whole.gguf, x), t->bytes);
            ck_assert(t->part >= (keys_alone ? 1 : 0) && t->part < n);
            char name[WEFT_GGUF_NAME_MAX + 1];
            snprintf(name, sizeof name, "%.*s", (int)t->name.size, t->name.data);
            ck_assert_ptr_eq(weft_gguf_tensor(&f.gguf, name), t);
        }
        ck_assert_ptr_null(weft_gguf_tensor(&f.gguf, "no.such.tensor"));
        ck_assert_ptr_nonnull(weft_gguf_kv(&f.gguf, "general.architecture"));
        weft_model_file_close(&f);
        weft_model_file_close(&f); /* accepts zeroed */
    }
    /* The model is the same but for its identity and where its tensors lie. */
    ck_assert_int_eq(local_file_open(gguf_split_path(dir, "m", 1, n), &f, &b, &err), 0);
    ck_assert_int_eq(weft_model_from_gguf(&whole.gguf, whole.maps, &a, NULL), 0);
    ck_assert(a.id[0] != b.id[0] && a.id[1] != b.id[1]);
    ck_assert_str_eq(a.name, b.name);
    ck_assert_uint_eq(a.n_layers, b.n_layers);
    ck_assert_uint_eq(weft_layer_weight_bytes(&a, 1), weft_layer_weight_bytes(&b, 1));
    weft_model_done(&a);
    weft_model_done(&b);
    weft_model_file_close(&f);
    weft_model_file_close(&whole);
    gguf_split_done(&s);
}
END_TEST

/* The model's identity depends on every part. */
START_TEST(identity)
{
    const char *dir = folder();
    struct gguf_split_files s;
    struct weft_model_file f = {0};
    struct weft_model m = {0};
    uint64_t ids[3][2];
    for (int i = 0; i < 3; i++) {
        gguf_split(WHOLE, 3, false, &s);
        if (i == 1)
            s.parts[2].tensors[1].data[0] ^= 1;
        if (i == 2)
            gguf_writer_str(&s.parts[1], "note", "x");
        const char *path = gguf_split_save(&s, dir, "m", 2);
        ck_assert_int_eq(local_file_open(path, &f, &m, NULL), 0);
        weft_model_done(&m);
        ck_assert_int_eq(weft_model_from_gguf(&f.gguf, NULL, &m, NULL), 0); /* without times */
        memcpy(ids[i], m.id, sizeof m.id);
        weft_model_done(&m);
        weft_model_file_close(&f);
        gguf_split_done(&s);
    }
    ck_assert(memcmp(ids[0], ids[1], sizeof ids[0]) != 0);
    ck_assert(memcmp(ids[0], ids[2], sizeof ids[0]) != 0);
}
END_TEST

static float *logits_of(const char *path)
{
    static const int32_t ids[] = {1, 300, 5, 900, 412, 77, 1000, 263};
    const uint32_t n = sizeof ids / sizeof ids[0];
    struct local_model m = {0};
    weft_err err = {0};
    const struct local_model_options o = {.path = path, .cuts = {1}, .n_cuts = 1};
    float *x = calloc((size_t)n * VOCAB, sizeof *x);
    ck_assert_msg(x != NULL && local_model_open(&o, &m, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(m.model.vocab, VOCAB);
    ck_assert_msg(local_model_feed(&m, ids, n, 3, x, &err) == 0, "%s", err.text);
    local_model_close(&m);
    return x;
}

START_TEST(same_bits)
{
    struct gguf_split_files s;
    gguf_split(WHOLE, 5, _i == 1, &s);
    float *a = logits_of(WHOLE), *b = logits_of(gguf_split_save(&s, folder(), "m", 1));
    ck_assert_mem_eq(a, b, 8 * VOCAB * sizeof *a);
    free(a);
    free(b);
    gguf_split_done(&s);
}
END_TEST

/* A whole file whose name looks like a part's is a whole file; so is one with a count of 1. */
START_TEST(whole_by_any_name)
{
    struct weft_model_file f = {0};
    struct gguf_writer w;
    weft_err err = {0};
    for (uint64_t count = 0; count < 3; count++) {
        const char *path = gguf_split_path(folder(), "m", 1, 3);
        gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
        if (count < 2)
            gguf_writer_int(&w, "split.count", WEFT_GGUF_U16, count);
        ck_assert(gguf_writer_save(&w, path));
        ck_assert_msg(weft_model_file_open(path, &f, &err) == 0, "%s", err.text);
        ck_assert_uint_eq(f.gguf.n_parts, 1);
        weft_model_file_close(&f);
        gguf_writer_done(&w);
    }
}
END_TEST

/* ------------------------------------------------------------------ bad ones */

START_TEST(missing_parts)
{
    const char *dir = folder();
    struct gguf_split_files s;
    gguf_split(WHOLE, 4, false, &s);
    (void)gguf_split_save(&s, dir, "m", 1);
    ck_assert_int_eq(unlink(gguf_split_path(dir, "m", 3, 4)), 0);
    expect_open(gguf_split_path(dir, "m", 2, 4),
                "/m-00002-of-00004.gguf: part 2 of 4; missing beside it: m-00003-of-00004.gguf; "
                "download it from where this one came from");
    ck_assert_int_eq(unlink(gguf_split_path(dir, "m", 1, 4)), 0);
    expect_open(gguf_split_path(dir, "m", 2, 4),
                "missing beside it: m-00001-of-00004.gguf, m-00003-of-00004.gguf; download them");
    expect_open(gguf_split_path(dir, "m", 1, 4), "m-00001-of-00004.gguf: No such file");
    gguf_split_done(&s);
    /* Many are counted. */
    struct gguf_writer w;
    gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
    gguf_writer_int(&w, "split.no", WEFT_GGUF_U16, 6);
    gguf_writer_int(&w, "split.count", WEFT_GGUF_U16, 1000);
    gguf_writer_int(&w, "split.tensors.count", WEFT_GGUF_I32, 100);
    const char *path = gguf_split_path(dir, "n", 7, 1000);
    ck_assert(gguf_writer_save(&w, path));
    expect_open(path, "n-00006-of-01000.gguf, n-00008-of-01000.gguf, n-00009-of-01000.gguf, "
                      "n-00010-of-01000.gguf, n-00011-of-01000.gguf and 989 more; download them");
    gguf_writer_done(&w);
}
END_TEST

/* How the parts of a split in four are spoilt before or after they are saved. */
static void no_number(struct gguf_split_files *s)
{
    gguf_writer_remove(&s->parts[0], "split.no");
}
static void number_beyond(struct gguf_split_files *s)
{
    gguf_writer_int(&s->parts[0], "split.no", WEFT_GGUF_U16, 4);
}
static void number_huge(struct gguf_split_files *s)
{
    gguf_writer_int(&s->parts[2], "split.no", WEFT_GGUF_U64, UINT64_MAX);
}
static void count_huge(struct gguf_split_files *s)
{
    gguf_writer_int(&s->parts[0], "split.count", WEFT_GGUF_U16, 65535);
}
static void count_text(struct gguf_split_files *s)
{
    gguf_writer_str(&s->parts[0], "split.count", "4");
}
static void count_other(struct gguf_split_files *s)
{
    gguf_writer_int(&s->parts[2], "split.count", WEFT_GGUF_U16, 5);
}
static void part_whole(struct gguf_split_files *s)
{
    gguf_writer_remove(&s->parts[1], "split.count");
}
static void given_other(struct gguf_split_files *s)
{
    gguf_writer_int(&s->parts[0], "split.no", WEFT_GGUF_U16, 1);
}
static void part_twice(struct gguf_split_files *s)
{
    gguf_writer_int(&s->parts[3], "split.no", WEFT_GGUF_U16, 1);
}
static void no_tensor_count(struct gguf_split_files *s)
{
    gguf_writer_remove(&s->parts[0], "split.tensors.count");
}
static void tensors_negative(struct gguf_split_files *s)
{
    gguf_writer_int(&s->parts[1], "split.tensors.count", WEFT_GGUF_I32, UINT64_MAX);
}
static void other_model(struct gguf_split_files *s)
{
    gguf_writer_int(&s->parts[2], "split.tensors.count", WEFT_GGUF_I32, 99);
}
static void other_arch(struct gguf_split_files *s)
{
    gguf_writer_str(&s->parts[2], "general.architecture", "qwen2");
}
static void other_name(struct gguf_split_files *s)
{
    gguf_writer_str(&s->parts[0], "general.name", "one");
    gguf_writer_str(&s->parts[2], "general.name", "an\x1bother");
}
static void fewer_tensors(struct gguf_split_files *s)
{
    gguf_writer_remove_tensor(&s->parts[3], s->parts[3].tensors[0].name);
}
static void double_tensor(struct gguf_split_files *s)
{
    gguf_writer_rename(&s->parts[3], s->parts[3].tensors[0].name, s->parts[1].tensors[0].name);
}
static void offset_outside(struct gguf_split_files *s)
{
    s->parts[2].tensors[0].offset = (uint64_t)1 << 40;
}
static void not_gguf(struct gguf_split_files *s)
{
    s->parts[1].version = 7;
}

static const struct {
    void (*spoil)(struct gguf_split_files *s);
    const char *words;
} bad[] = {
    {no_number, "m-00001-of-00004.gguf: key split.no is missing"},
    {number_beyond, "m-00001-of-00004.gguf: key split.no: found 4, expected 0 to 3"},
    {number_huge, "m-00003-of-00004.gguf: key split.no: "},
    {count_huge, "key split.count: found 65535, expected at most 1024"},
    {count_text, "key split.count: "},
    {count_other, "m-00003-of-00004.gguf: it says that it is one of 5 parts, expected 4"},
    {part_whole, "m-00002-of-00004.gguf: it says that it is one of 1 parts, expected 4"},
    {given_other, "m-00001-of-00004.gguf: it says that it is part 2 of 4, which its name does not"},
    {part_twice, "m-00004-of-00004.gguf: it says that it is part 2 of 4, expected part 4: it was "
                 "renamed, or stands there twice; download it again"},
    {no_tensor_count, "m-00001-of-00004.gguf: key split.tensors.count is missing"},
    {tensors_negative, "m-00002-of-00004.gguf: key split.tensors.count: "},
    {other_model, "m-00003-of-00004.gguf: a part of a model of 99 tensors, "},
    {other_arch, "m-00003-of-00004.gguf: general.architecture is 'qwen2', expected 'llama' as in "},
    {other_name, "m-00003-of-00004.gguf: general.name is 'an?other', expected 'one' as in "},
    {fewer_tensors, "expected 21 as key split.tensors.count says: one of them is of another model"},
    {double_tensor, "-00004-of-00004.gguf: tensor "},
    {offset_outside, "m-00003-of-00004.gguf: tensor "},
    {not_gguf, "m-00002-of-00004.gguf: header: GGUF version 7"},
};

START_TEST(bad_parts)
{
    struct gguf_split_files s;
    gguf_split(WHOLE, 4, false, &s);
    bad[_i].spoil(&s);
    expect_open(gguf_split_save(&s, folder(), "m", 1), bad[_i].words);
    gguf_split_done(&s);
}
END_TEST

/* What the disk can do to a part. */
START_TEST(bad_files)
{
    const char *dir = folder();
    struct gguf_split_files s;
    struct stat st;
    gguf_split(WHOLE, 3, false, &s);
    const char *first = gguf_split_save(&s, dir, "m", 1);
    const char *last = gguf_split_path(dir, "m", 3, 3);
    ck_assert_int_eq(stat(last, &st), 0);
    ck_assert_int_eq(truncate(last, st.st_size - 1), 0);
    expect_open(first, "m-00003-of-00003.gguf: tensor ");
    expect_open(first, "the file is truncated; download it again");
    ck_assert_int_eq(truncate(last, 0), 0);
    expect_open(first, "m-00003-of-00003.gguf: the file is empty; download it again");
    ck_assert_int_eq(unlink(last), 0);
    ck_assert_int_eq(mkdir(last, 0700), 0);
    expect_open(first, "m-00003-of-00003.gguf: found a directory, expected a regular file");
    ck_assert_int_eq(rmdir(last), 0);
    /* The second part under the third's name. */
    ck_assert_int_eq(link(gguf_split_path(dir, "m", 2, 3), last), 0);
    expect_open(first, "m-00003-of-00003.gguf: it says that it is part 2 of 3, expected part 3");
    /* A part whose name says nothing. */
    char renamed[4300];
    snprintf(renamed, sizeof renamed, "%s/first.gguf", dir);
    ck_assert_int_eq(rename(first, renamed), 0);
    expect_open(renamed, "first.gguf: part 1 of 3 of a split model: the other parts are found by "
                         "their names; give each its own again, this one NAME-00001-of-00003.gguf");
    gguf_split_done(&s);
}
END_TEST

/* A part alone is no model; what reads it by itself is told so. */
START_TEST(part_alone)
{
    struct gguf_split_files s;
    struct weft_gguf g = {0};
    struct weft_model m = {0};
    weft_err err = {0};
    size_t size;
    gguf_split(WHOLE, 2, false, &s);
    uint8_t *data = gguf_writer_finish(&s.parts[0], &size);
    ck_assert_int_eq(weft_gguf_open(data, size, &g, NULL), 0);
    ck_assert_int_eq(weft_model_from_gguf(&g, NULL, &m, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "the file is part 1 of 2, found 1 of them");
    weft_gguf_done(&g);
    free(data);
    gguf_split_done(&s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("split");
    TCase *t = tcase_create("split");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, part_names);
    tcase_add_loop_test(t, joined_is_whole, 0, 4);
    tcase_add_test(t, identity);
    tcase_add_loop_test(t, same_bits, 0, 2);
    tcase_add_test(t, whole_by_any_name);
    tcase_add_test(t, missing_parts);
    tcase_add_loop_test(t, bad_parts, 0, (int)(sizeof bad / sizeof bad[0]));
    tcase_add_test(t, bad_files);
    tcase_add_test(t, part_alone);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
