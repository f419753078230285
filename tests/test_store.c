/*
 * Shard store: packing piece by piece, visibility, memory, refusals.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/pages.h"
#include "tests/harness.h"
#include "tests/local_model.h"
#include "tests/synthetic_model.h"

static struct weft_store *store_open(void)
{
    struct weft_store *s = NULL;
    ck_assert_int_eq(weft_store_open(&s, NULL), 0);
    return s;
}

static const struct synthetic_shape small = {
    .n_layers = 2,
    .dim = 64,
    .n_heads = 4,
    .n_kv_heads = 2,
    .head_dim = 16,
    .ffn_dim = 96,
    .vocab = 50, /* no multiple of a tile */
    .type = WEFT_Q8_0,
    .seed = 1,
};

/* The matrix packed at once, for comparison; freed with free(). */
static void *pack_whole(const struct weft_tensor *t, const void *src)
{
    size_t size = wk_matrix_bytes((enum wk_type)t->type, t->rows, t->cols);
    struct wk_matrix m = {(enum wk_type)t->type, t->rows, t->cols,
                          aligned_alloc(64, (size + 63) / 64 * 64)};
    ck_assert_ptr_nonnull(m.data);
    memset(m.data, 0xa5, size);
    wk_matrix_pack(&m, 0, t->rows, src);
    return m.data;
}

/* Every tensor of a golden model with all its types, in pieces of odd sizes. */
START_TEST(pieces_pack_like_the_whole)
{
    static const struct {
        const char *path;
        size_t piece;
    } cases[] = {
        {"tests/golden/llama-256-q4_0.gguf", 17},
        {"tests/golden/llama-256-q4_0.gguf", 144 * 16},
        {"tests/golden/llama-256-q4_0.gguf", 5000},
        {"tests/golden/llama-256-q4_0.gguf", 262144},
        {"tests/golden/llama-256-q8_0.gguf", 100003},
        {"tests/golden/llama.gguf", 999},
        {"tests/golden/llama3-rope.gguf", 1 << 24},
    };
    struct weft_model_file file;
    struct weft_model m;
    weft_err err = {0};
    int r = local_file_open(cases[_i].path, &file, &m, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    struct weft_store *s = store_open();
    ck_assert_int_eq(weft_store_set_model(s, &m, NULL), 0);
    struct weft_shard_run runs[64];
    size_t n = weft_stage_runs(&m, 0, m.n_layers, true, true, runs, 64);
    uint64_t need = 0;
    for (size_t i = 0; i < n; i++) {
        ck_assert(!weft_store_has(s, &runs[i]) || (m.tied && runs[i].kind == WEFT_SHARD_HEAD));
        need += weft_store_need_bytes(s, &runs[i]);
        r = local_store_fill(s, &m, file.maps, &runs[i], cases[_i].piece, &err);
        ck_assert_msg(r == 0, "%s", err.text);
        ck_assert(weft_store_has(s, &runs[i]));
        ck_assert_uint_eq(weft_store_need_bytes(s, &runs[i]), 0);
        ck_assert_uint_eq(weft_store_bytes(s), need);
    }
    for (uint32_t layer = 0; layer < m.n_layers; layer++)
        for (int role = 0; role < WEFT_ROLE_COUNT; role++) {
            const struct weft_tensor *t = weft_model_tensor(&m, (enum weft_role)role, layer);
            if (t->bytes == 0)
                continue;
            const struct wk_matrix *found = weft_store_matrix(s, (enum weft_role)role, layer);
            ck_assert_ptr_nonnull(found);
            ck_assert_uint_eq(found->rows, t->rows);
            ck_assert_uint_eq(found->cols, t->cols);
            if (!weft_role_matrix((enum weft_role)role)) {
                ck_assert_mem_eq(weft_store_vector(s, (enum weft_role)role, layer),
                                 file.maps[t->part].data + t->offset, t->bytes);
                continue;
            }
            ck_assert_ptr_null(weft_store_vector(s, (enum weft_role)role, layer));
            ck_assert_uint_eq((uintptr_t)found->data % WK_ALIGN, 0);
            void *whole = pack_whole(t, file.maps[t->part].data + t->offset);
            ck_assert_mem_eq(found->data, whole, wk_matrix_bytes(found->type, t->rows, t->cols));
            free(whole);
        }
    weft_store_close(s);
    weft_model_done(&m);
    weft_model_file_close(&file);
}
END_TEST

START_TEST(need_is_what_the_plan_counts)
{
    struct weft_model m = synthetic_shape_model(&small);
    struct weft_store *s = store_open();
    ck_assert_int_eq(weft_store_set_model(s, &m, NULL), 0);
    struct weft_shard_run runs[16];
    uint64_t need = 0;
    size_t n = weft_stage_runs(&m, 1, 1, false, false, runs, 16);
    for (size_t i = 0; i < n; i++)
        need += weft_store_need_bytes(s, &runs[i]);
    ck_assert_uint_eq(need, weft_layer_weight_bytes(&m, 1));
    ck_assert_uint_eq(weft_stage_runs(&m, 0, 0, true, false, runs, 16), 1);
    ck_assert_uint_eq(weft_store_need_bytes(s, &runs[0]), weft_embed_weight_bytes(&m));
    ck_assert_uint_eq(weft_stage_runs(&m, 2, 0, false, true, runs, 16), 2);
    ck_assert_uint_eq(weft_store_need_bytes(s, &runs[0]) + weft_store_need_bytes(s, &runs[1]),
                      weft_head_weight_bytes(&m));
    weft_store_close(s);
    weft_model_done(&m);
}
END_TEST

START_TEST(runs_of_a_stage)
{
    struct synthetic_shape shape = small;
    shape.rope_freqs = true;
    struct weft_model m = synthetic_shape_model(&shape);
    struct weft_shard_run runs[16] = {0};
    static const enum weft_shard_kind kinds[] = {
        WEFT_SHARD_EMBED, WEFT_SHARD_ROPE, WEFT_SHARD_NORMS, WEFT_SHARD_ATTN,      WEFT_SHARD_FFN,
        WEFT_SHARD_NORMS, WEFT_SHARD_ATTN, WEFT_SHARD_FFN,   WEFT_SHARD_HEAD_NORM, WEFT_SHARD_HEAD};
    ck_assert_uint_eq(weft_stage_runs(&m, 0, 2, true, true, runs, 16), 10);
    for (size_t i = 0; i < 10; i++) {
        ck_assert_int_eq(runs[i].kind, kinds[i]);
        ck_assert_uint_eq(runs[i].layer, i >= 5 && i < 8 ? 1 : 0);
        ck_assert_uint_eq(runs[i].first, 0);
        ck_assert_uint_eq(runs[i].count, weft_shard_space(&m, kinds[i]));
    }
    /* Counted beyond the room, written within it. */
    memset(runs, 0, sizeof runs);
    ck_assert_uint_eq(weft_stage_runs(&m, 1, 1, false, true, runs, 3), 6);
    ck_assert_int_eq(runs[2].kind, WEFT_SHARD_ATTN);
    ck_assert_uint_eq(runs[3].count, 0);
    ck_assert_uint_eq(weft_stage_runs(&m, 0, 0, false, false, NULL, 0), 0);
    weft_model_done(&m);
}
END_TEST

START_TEST(half_received_is_not_visible)
{
    struct synthetic_model m = synthetic_open(&small);
    struct weft_store *s = store_open();
    ck_assert_int_eq(weft_store_set_model(s, &m.model, NULL), 0);
    const struct weft_shard_run run = {WEFT_SHARD_EMBED, 0, 0, 1};
    const uint8_t *data = synthetic_data(&m, WEFT_ROLE_EMBED, 0);
    const size_t size = (size_t)m.model.global[WEFT_ROLE_EMBED].bytes;
    const uint64_t need = weft_store_need_bytes(s, &run);
    ck_assert_uint_eq(need, 64 * 68); /* 50 rows are padded to 64; 2 blocks of 34 bytes */
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(weft_store_put(s, &run, WEFT_ROLE_EMBED, 0, data, size - 1, NULL), 0);
        ck_assert(!weft_store_has(s, &run));
        ck_assert_ptr_null(weft_store_matrix(s, WEFT_ROLE_EMBED, 0));
        ck_assert_uint_eq(weft_store_need_bytes(s, &run), need);
        ck_assert_uint_eq(weft_store_bytes(s), need);
        if (round == 0) { /* forgotten: starts again at 0 */
            weft_store_abort(s);
            ck_assert_uint_eq(weft_store_bytes(s), 0);
        }
    }
    ck_assert_int_eq(weft_store_put(s, &run, WEFT_ROLE_EMBED, size - 1, NULL, 0, NULL), 0);
    ck_assert(!weft_store_has(s, &run));
    ck_assert_int_eq(weft_store_put(s, &run, WEFT_ROLE_EMBED, size - 1, data + size - 1, 1, NULL),
                     0);
    ck_assert(weft_store_has(s, &run));
    weft_store_abort(s); /* what is whole stays */
    ck_assert_ptr_nonnull(weft_store_matrix(s, WEFT_ROLE_EMBED, 0));
    weft_store_close(s);
    synthetic_close(&m);
}
END_TEST

static void refuse(struct weft_store *s, struct weft_shard_run run, enum weft_role role,
                   uint64_t offset, size_t size, int code, const char *text)
{
    static const uint8_t zeros[4096];
    weft_err err = {0};
    ck_assert_uint_le(size, sizeof zeros);
    ck_assert_int_eq(weft_store_put(s, &run, role, offset, zeros, size, &err), -code);
    ck_assert_int_eq(err.code, code);
    ck_assert_str_eq(err.text, text);
}

START_TEST(refusals_name_the_shard)
{
    struct synthetic_model m = synthetic_open(&small);
    struct weft_store *s = store_open();
    const struct weft_shard_run attn = {WEFT_SHARD_ATTN, 1, 0, 2};
    refuse(s, attn, WEFT_ROLE_ATTN_Q, 0, 1, WEFT_ESTATE, "a shard came before its model");
    ck_assert(!weft_store_has(s, &attn));
    ck_assert_uint_eq(weft_store_need_bytes(s, &attn), 0);
    ck_assert_ptr_null(weft_store_model(s));
    ck_assert_ptr_null(weft_store_matrix(s, WEFT_ROLE_ATTN_Q, 0));

    ck_assert_int_eq(weft_store_set_model(s, &m.model, NULL), 0);
    refuse(s, (struct weft_shard_run){WEFT_SHARD_ATTN, 1, 1, 1}, WEFT_ROLE_ATTN_Q, 0, 1,
           WEFT_EUNSUPPORTED,
           "shard blk.1 kv groups 1..1 (attn_q): found 1 from 1 on, this version holds only whole "
           "runs "
           "of 2");
    refuse(s, attn, WEFT_ROLE_FFN_UP, 0, 1, WEFT_ESHAPE,
           "shard blk.1 kv groups 0..1 (ffn_up): the model has no such tensor there");
    refuse(s, attn, WEFT_ROLE_ATTN_Q, 7, 1, WEFT_ESHAPE,
           "shard blk.1 kv groups 0..1 (attn_q): bytes from 7 on, expected them from 0 on");
    ck_assert_uint_eq(weft_store_bytes(s), 0);
    ck_assert_int_eq(weft_store_put(s, &attn, WEFT_ROLE_ATTN_Q, 0,
                                    synthetic_data(&m, WEFT_ROLE_ATTN_Q, 1), 100, NULL),
                     0);
    refuse(s, attn, WEFT_ROLE_ATTN_Q, 99, 1, WEFT_ESHAPE,
           "shard blk.1 kv groups 0..1 (attn_q): bytes from 99 on, expected them from 100 on");
    /* 64 rows of 2 blocks of 34 bytes */
    refuse(s, attn, WEFT_ROLE_ATTN_Q, 300, 4096, WEFT_ESHAPE,
           "shard blk.1 kv groups 0..1 (attn_q): 4096 bytes from 300 on, expected 4352 in all");
    weft_store_close(s);
    synthetic_close(&m);
}
END_TEST

START_TEST(refusals_of_impossible_runs)
{
    struct synthetic_model m = synthetic_open(&small);
    struct weft_store *s = store_open();
    ck_assert_int_eq(weft_store_set_model(s, &m.model, NULL), 0);
    const struct weft_shard_run runs[] = {
        {WEFT_SHARD_ATTN, 2, 0, 2},       {WEFT_SHARD_ATTN, 0, 0, 3},
        {WEFT_SHARD_ATTN, 0, 0, 0},       {WEFT_SHARD_ATTN, 0, UINT32_MAX, 2},
        {WEFT_SHARD_KIND_COUNT, 0, 0, 1}, {(enum weft_shard_kind)1000, 0, 0, 1},
    };
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        weft_err err = {0};
        ck_assert_int_eq(weft_store_put(s, &runs[i], WEFT_ROLE_ATTN_Q, 0, "x", 1, &err),
                         -WEFT_ESHAPE);
        ck_assert(!weft_store_has(s, &runs[i]));
        ck_assert_uint_eq(weft_store_need_bytes(s, &runs[i]), 0);
    }
    const struct weft_shard_run embed = {WEFT_SHARD_EMBED, 0, 0, 1};
    ck_assert_int_eq(weft_store_put(s, &embed, WEFT_ROLE_EMBED, UINT64_MAX, "x", 1, NULL),
                     -WEFT_ESHAPE);
    ck_assert_int_eq(weft_store_put(s, &embed, WEFT_ROLE_EMBED, 0, "x", SIZE_MAX, NULL),
                     -WEFT_ESHAPE);
    ck_assert_int_eq(weft_store_put(s, &embed, (enum weft_role)99, 0, "x", 1, NULL), -WEFT_ESHAPE);
    ck_assert_ptr_null(weft_store_matrix(s, (enum weft_role)99, 0));
    ck_assert_ptr_null(weft_store_matrix(s, WEFT_ROLE_ATTN_Q, 2));
    weft_store_close(s);
    synthetic_close(&m);
}
END_TEST

START_TEST(models_come_and_go)
{
    struct synthetic_model m = synthetic_open(&small);
    struct weft_store *s = store_open();
    synthetic_load(&m, s, 0, 2, true, true);
    const uint64_t all = weft_store_bytes(s);
    const struct weft_model *kept = weft_store_model(s);
    ck_assert_uint_gt(all, 0);
    /* The same model again: nothing is lost, and pointers into the store stay good. */
    ck_assert_int_eq(weft_store_set_model(s, &m.model, NULL), 0);
    ck_assert_ptr_eq(weft_store_model(s), kept);
    ck_assert_uint_eq(weft_store_bytes(s), all);

    struct weft_shard_run runs[16];
    size_t n = weft_stage_runs(&m.model, 1, 1, false, true, runs, 16);
    weft_store_keep_only(s, runs, n);
    ck_assert_ptr_null(weft_store_matrix(s, WEFT_ROLE_EMBED, 0));
    ck_assert_ptr_null(weft_store_matrix(s, WEFT_ROLE_ATTN_Q, 0));
    for (size_t i = 0; i < n; i++)
        ck_assert(weft_store_has(s, &runs[i]));
    ck_assert_uint_eq(weft_store_bytes(s),
                      weft_layer_weight_bytes(&m.model, 1) + weft_head_weight_bytes(&m.model));

    /* An equal id with another shape is another model. */
    struct synthetic_shape wider = small;
    wider.ffn_dim = 128;
    struct weft_model other = synthetic_shape_model(&wider);
    ck_assert_int_eq(weft_store_set_model(s, &other, NULL), 0);
    ck_assert_uint_eq(weft_store_bytes(s), 0);
    ck_assert_uint_eq(weft_store_model(s)->ffn_dim, 128);
    weft_model_done(&other);
    ck_assert_uint_eq(weft_store_model(s)->layers[1].role[0].cols, 64); /* copied */

    struct synthetic_shape renamed = small;
    renamed.seed = 2;
    struct weft_model third = synthetic_shape_model(&renamed);
    ck_assert_int_eq(weft_store_set_model(s, &m.model, NULL), 0);
    synthetic_load(&m, s, 0, 1, false, false);
    ck_assert_int_eq(weft_store_set_model(s, &third, NULL), 0);
    ck_assert_uint_eq(weft_store_bytes(s), 0);
    weft_store_keep_only(s, NULL, 0);
    weft_model_done(&third);
    weft_store_close(s);
    weft_store_close(NULL);
    synthetic_close(&m);
}
END_TEST

/* The embedding of a tied model is also its head, held once whichever name it came by. */
START_TEST(tied_head_is_the_embedding)
{
    struct synthetic_shape shape = small;
    shape.tied = true;
    struct synthetic_model m = synthetic_open(&shape);
    const struct weft_shard_run embed = {WEFT_SHARD_EMBED, 0, 0, 1},
                                head = {WEFT_SHARD_HEAD, 0, 0, 50};
    struct weft_store *s = store_open();
    ck_assert_int_eq(weft_store_set_model(s, &m.model, NULL), 0);
    const uint8_t *data = synthetic_data(&m, WEFT_ROLE_EMBED, 0);
    const size_t size = (size_t)m.model.global[WEFT_ROLE_EMBED].bytes;
    ck_assert_int_eq(weft_store_put(s, &head, WEFT_ROLE_OUTPUT, 0, data, 100, NULL), 0);
    ck_assert_int_eq(weft_store_put(s, &head, WEFT_ROLE_EMBED, 100, data + 100, size - 100, NULL),
                     0);
    ck_assert(weft_store_has(s, &embed) && weft_store_has(s, &head));
    ck_assert_uint_eq(weft_store_need_bytes(s, &embed), 0);
    const struct wk_matrix *matrix = weft_store_matrix(s, WEFT_ROLE_EMBED, 0);
    ck_assert_ptr_eq(weft_store_matrix(s, WEFT_ROLE_OUTPUT, 0), matrix);
    uint8_t before[256];
    memcpy(before, matrix->data, sizeof before);
    static const uint8_t zeros[256];
    ck_assert_int_eq(weft_store_put(s, &embed, WEFT_ROLE_EMBED, 0, zeros, sizeof zeros, NULL), 0);
    ck_assert_mem_eq(matrix->data, before, sizeof before);
    ck_assert_int_eq(weft_store_put(s, &embed, WEFT_ROLE_EMBED, size, zeros, 1, NULL),
                     -WEFT_ESHAPE);
    weft_store_close(s);
    synthetic_close(&m);
}
END_TEST

START_TEST(pages_are_given_back)
{
    const uint64_t size = 64u << 20;
    ck_assert_ptr_null(weft_pages_alloc(0));
    ck_assert_ptr_null(weft_pages_alloc(UINT64_MAX));
    uint8_t *p = weft_pages_alloc(size);
    ck_assert_ptr_nonnull(p);
    ck_assert_uint_eq(p[0], 0);
    memset(p, 1, 1 << 20);
    weft_pages_forget(p + 1, (1 << 20) - 1); /* the first page is not whole */
    ck_assert_uint_eq(p[0], 1);
    ck_assert_uint_eq(p[1 << 19], 0);
    weft_pages_forget(p, 1);
    ck_assert_uint_eq(p[0], 1);
    weft_pages_free(p, size);
    weft_pages_free(NULL, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("store");
    TCase *c = tcase_create("store");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, pieces_pack_like_the_whole, 0, 7);
    tcase_add_test(c, need_is_what_the_plan_counts);
    tcase_add_test(c, runs_of_a_stage);
    tcase_add_test(c, half_received_is_not_visible);
    tcase_add_test(c, refusals_name_the_shard);
    tcase_add_test(c, refusals_of_impossible_runs);
    tcase_add_test(c, models_come_and_go);
    tcase_add_test(c, tied_head_is_the_embedding);
    tcase_add_test(c, pages_are_given_back);
    suite_add_tcase(s, c);
    return weft_test_main(s);
}
