/*
 * The demo model in this process: the answers that an independent engine gives, and the same bits
 * however its layers are cut.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/template.h"
#include "tests/harness.h"
#include "tests/local_model.h"
#include "tests/stories.h"

#define PATH_SIZE 128
#define GAP_MIN 0.05 /* nearer logits may come in the other order: tests/golden/prompts.json */
#define ANSWER_MAX STORY_IDS_MAX

/* Where the file of a type lies; NULL, and the test is counted as skipped, when it is nowhere. */
static const char *model_path(enum story_type type, char buf[PATH_SIZE])
{
    static const char *const folders[] = {"configs/demo", "../shared/models"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(buf, PATH_SIZE, "%s/weft-stories-%s.gguf", folders[i], story_type_names[type]);
        if (weft_test_path(buf) != NULL)
            return buf;
    }
    weft_test_skip("weft-stories-%s.gguf is not there", story_type_names[type]);
    return NULL;
}

/* What turns text into tokens, from the model's file. */
struct words {
    struct weft_mapping map;
    struct weft_gguf gguf;
    struct weft_tokenizer *tokenizer;
    struct weft_template *template;
};

static void words_open(struct words *w, const char *path)
{
    weft_err err = {0};
    *w = (struct words){0};
    int r = weft_mapping_open(weft_test_path(path), &w->map, &err);
    if (r == 0)
        r = weft_gguf_open(w->map.data, w->map.size, &w->gguf, &err);
    if (r == 0)
        r = weft_tokenizer_open(&w->gguf, &w->tokenizer, &err);
    if (r == 0)
        r = weft_template_open_gguf(&w->gguf, &w->template, &err);
    ck_assert_msg(r == 0, "%s: %s", path, err.text);
}

static void words_close(struct words *w)
{
    weft_template_close(w->template);
    weft_tokenizer_close(w->tokenizer);
    weft_gguf_done(&w->gguf);
    weft_mapping_close(&w->map);
}

static int32_t *prompt_ids(const struct words *w, const char *prompt, uint32_t *ret_n)
{
    const struct weft_message message = {"user", prompt, strlen(prompt)};
    int32_t *ids = NULL;
    size_t n = 0;
    weft_err err = {0};
    int r = weft_template_encode(w->template, w->tokenizer, &message, 1, true, &ids, &n, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    ck_assert_uint_gt(n, 0);
    *ret_n = (uint32_t)n;
    return ids;
}

/* Feeds ids and decodes greedily to a stop; the number of tokens before it. */
static size_t answer(struct local_model *m, const struct words *w, const int32_t *ids, uint32_t n,
                     int32_t ret[ANSWER_MAX])
{
    weft_err err = {0};
    size_t count = 0;
    local_model_trim(m, 0, 0);
    int r = local_model_feed(m, ids, n, 64, NULL, &err);
    for (; r == 0 && count < ANSWER_MAX; count++) {
        uint32_t rows;
        const float *logits = local_model_logits(m, &rows);
        int32_t best = local_argmax(logits, m->model.vocab);
        if (weft_tokenizer_is_stop(w->tokenizer, best))
            break;
        ret[count] = best;
        r = local_model_feed(m, &best, 1, 1, NULL, &err);
    }
    ck_assert_msg(r == 0, "%s", err.text);
    return count;
}

START_TEST(answers_are_those_of_another_engine)
{
    const enum story_type type = (enum story_type)_i;
    char path[PATH_SIZE];
    static struct story stories[STORIES_MAX];
    if (model_path(type, path) == NULL)
        return;
    size_t n = stories_load(stories), compared = 0;
    ck_assert_uint_gt(n, 0);
    struct local_model m;
    struct words w;
    weft_err err = {0};
    struct local_model_options o = {.path = path, .context = 1024, .kv = WK_KV_F16};
    ck_assert_msg(local_model_open(&o, &m, &err) == 0, "%s", err.text);
    words_open(&w, path);
    for (size_t i = 0; i < n; i++) {
        if (stories[i].gap[type] < GAP_MIN)
            continue;
        uint32_t n_prompt;
        int32_t ids[ANSWER_MAX], *prompt = prompt_ids(&w, stories[i].prompt, &n_prompt);
        size_t n_ids = answer(&m, &w, prompt, n_prompt, ids);
        struct weft_str text = {0};
        for (size_t k = 0; k < n_ids; k++) {
            size_t size;
            const char *piece = weft_tokenizer_piece(w.tokenizer, ids[k], &size);
            weft_str_add(&text, piece, size);
        }
        ck_assert_str_eq(text.data, stories[i].text[type]);
        if (type == STORY_Q8_0) {
            ck_assert_uint_eq(n_ids, stories[i].n_ids);
            ck_assert_mem_eq(ids, stories[i].ids, n_ids * sizeof *ids);
        }
        weft_str_done(&text);
        free(prompt);
        compared++;
    }
    ck_assert_uint_gt(compared, n / 2);
    words_close(&w);
    local_model_close(&m);
    stories_done(stories, n);
}
END_TEST

/* ------------------------------------------------------------------ cuts */

static float *logits_of(const struct local_model_options *o, const int32_t *ids, uint32_t n,
                        uint32_t rows)
{
    struct local_model m;
    weft_err err = {0};
    ck_assert_msg(local_model_open(o, &m, &err) == 0, "%s", err.text);
    float *ret = malloc((size_t)n * m.model.vocab * sizeof *ret);
    ck_assert_ptr_nonnull(ret);
    ck_assert_msg(local_model_feed(&m, ids, n, rows, ret, &err) == 0, "%s", err.text);
    local_model_close(&m);
    return ret;
}

/* Every cut of the layers into two and into three stages, for one row and for many; and every
 * table. */
START_TEST(every_cut_gives_the_same_bits)
{
    static const uint32_t rows[] = {1, 64, 7};
    char path[PATH_SIZE];
    if (model_path((enum story_type)_i, path) == NULL)
        return;
    struct words w;
    struct weft_model_file file;
    struct weft_model model;
    uint32_t n, count = 0;
    words_open(&w, path);
    int32_t *ids = prompt_ids(&w, "Tell me a story about a fox and a lantern.", &n);
    ck_assert_int_eq(local_file_open(path, &file, &model, NULL), 0);
    const size_t size = (size_t)n * model.vocab * sizeof(float);
    struct local_model_options o = {.path = path, .kv = WK_KV_F16, .gemm = WK_GEMM_WEFT};
    float *expected = logits_of(&o, ids, n, 64);
    o.threads = 2;
    for (uint32_t a = 0; a <= model.n_layers; a++)
        for (uint32_t b = a; b <= model.n_layers; b++) {
            o.n_cuts = a == b ? 1 : 2;
            o.cuts[0] = a;
            o.cuts[1] = b;
            float *found = logits_of(&o, ids, n, rows[count++ % 3]);
            ck_assert_msg(memcmp(found, expected, size) == 0, "%s cut at %u and %u", path, a, b);
            free(found);
        }
    const struct wk_table *tables[8];
    const size_t n_tables = wk_table_list(tables, 8);
    o.n_cuts = 0;
    for (size_t t = 0; t < n_tables; t++) {
        o.isa = wk_table_name(tables[t]);
        float *found = logits_of(&o, ids, n, rows[t % 3]);
        ck_assert_msg(memcmp(found, expected, size) == 0, "%s on %s", path, o.isa);
        free(found);
    }
    free(expected);
    free(ids);
    weft_model_done(&model);
    weft_model_file_close(&file);
    words_close(&w);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("demo");
    TCase *c = tcase_create("demo");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, answers_are_those_of_another_engine, 0, STORY_TYPES);
    tcase_add_loop_test(c, every_cut_gives_the_same_bits, 0, STORY_TYPES);
    suite_add_tcase(s, c);
    return weft_test_main(s);
}
