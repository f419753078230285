/*
 * The maker of golden models: it makes the files of tests/golden/arch bit for bit, their logits
 * have the shape that is said beside them, and the command says what it does not understand.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/f16.h"
#include "tests/golden_maker.h"
#include "tests/harness.h"
#include "tests/procs.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define PROMPT_MIN 26u /* longer than every window and than the original context of qwen2-yarn */
#define PROMPT_MAX 64u
#define N_GREEDY 12u
/* Nearer than this an answer might hang on rounding: twice what F16 KV moves. */
#define GAP_MIN 0.02

static const char *file_of(const struct golden_model *m, const char *extension)
{
    static char path[128];
    snprintf(path, sizeof path, "tests/golden/arch/%s%s", m->name, extension);
    return path;
}

START_TEST(files_are_made_again)
{
    const struct golden_model *m = golden_model_at((uint32_t)_i);
    struct gguf_writer w;
    size_t expected_size = 0, size;
    uint8_t *expected = weft_test_read(file_of(m, ".gguf"), &expected_size);
    ck_assert_msg(expected != NULL, "%s is not there", file_of(m, ".gguf"));
    golden_model_make(&w, m, false);
    uint8_t *made = gguf_writer_finish(&w, &size);
    gguf_writer_done(&w);
    ck_assert_uint_eq(size, expected_size);
    size_t i = 0;
    while (i < size && made[i] == expected[i])
        i++;
    ck_assert_msg(i == size, "%s: byte %zu is %u, expected %u", m->name, i, made[i], expected[i]);
    free(made);
    free(expected);
}
END_TEST

START_TEST(wide_models_have_the_same_numbers)
{
    const struct golden_model *m = golden_model_at((uint32_t)_i);
    struct gguf_writer narrow, wide;
    golden_model_make(&narrow, m, false);
    golden_model_make(&wide, m, true);
    ck_assert_uint_eq(narrow.n_tensors, wide.n_tensors);
    for (size_t t = 0; t < narrow.n_tensors; t++) {
        const struct gguf_writer_tensor *a = &narrow.tensors[t], *b = &wide.tensors[t];
        ck_assert_str_eq(a->name, b->name);
        ck_assert_uint_eq(b->type, WEFT_F32);
        if (a->type == WEFT_F32) {
            ck_assert_uint_eq(a->size, b->size);
            ck_assert_mem_eq(a->data, b->data, a->size);
            continue;
        }
        ck_assert_uint_eq(a->type, WEFT_F16);
        ck_assert_uint_eq(2 * a->size, b->size);
        for (size_t i = 0; i < a->size / 2; i++) {
            float x = wk_f16_to_f32(wk_load_u16(a->data + 2 * i));
            ck_assert_mem_eq(&x, b->data + 4 * i, sizeof x);
        }
    }
    gguf_writer_done(&narrow);
    gguf_writer_done(&wide);
}
END_TEST

static size_t check_ids(const json_t *root, const char *key)
{
    const json_t *list = json_object_get(root, key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        json_int_t id = json_integer_value(item);
        ck_assert_msg(json_is_integer(item) && id >= 0 && id < GOLDEN_VOCAB, "%s[%zu] is %lld", key,
                      i, (long long)id);
    }
    return json_array_size(list);
}

/* The token of the greatest of the logits of the last prompt position. */
static uint32_t last_best(const uint8_t *logits, size_t size)
{
    float row[GOLDEN_VOCAB];
    uint32_t best = 0;
    memcpy(row, logits + size - sizeof row, sizeof row);
    for (uint32_t i = 1; i < GOLDEN_VOCAB; i++)
        if (row[i] > row[best])
            best = i;
    return best;
}

START_TEST(answers_fit_the_model)
{
    const struct golden_model *m = golden_model_at((uint32_t)_i);
    size_t size = 0;
    char *text = (char *)weft_test_read(file_of(m, ".json"), &size), name[64];
    ck_assert_msg(text != NULL, "%s is not there", file_of(m, ".json"));
    json_error_t error;
    json_t *root = json_loadb(text, size, 0, &error);
    ck_assert_msg(root != NULL, "%s: %s", m->name, error.text);
    free(text);

    snprintf(name, sizeof name, "%s.gguf", m->name);
    ck_assert_str_eq(json_string_value(json_object_get(root, "model")), name);
    snprintf(name, sizeof name, "%s.logits.f32", m->name);
    ck_assert_str_eq(json_string_value(json_object_get(root, "logits")), name);
    const size_t n = check_ids(root, "prompt");
    ck_assert_uint_ge(n, PROMPT_MIN);
    ck_assert_uint_le(n, PROMPT_MAX);
    ck_assert_uint_eq(check_ids(root, "greedy"), N_GREEDY);
    const json_t *shape = json_object_get(root, "shape");
    ck_assert_uint_eq(json_array_size(shape), 2);
    ck_assert_int_eq(json_integer_value(json_array_get(shape, 0)), (json_int_t)n);
    ck_assert_int_eq(json_integer_value(json_array_get(shape, 1)), GOLDEN_VOCAB);
    const json_int_t context = json_integer_value(json_object_get(root, "context"));
    ck_assert_int_ge(context, (json_int_t)(n + N_GREEDY));
    ck_assert_int_le(context, m->context);
    ck_assert(json_real_value(json_object_get(root, "smallest_top2_gap")) > GAP_MIN);
    ck_assert_uint_gt(json_string_length(json_object_get(root, "source")), 0);

    uint8_t *logits = weft_test_read(file_of(m, ".logits.f32"), &size);
    ck_assert_msg(logits != NULL, "%s is not there", file_of(m, ".logits.f32"));
    ck_assert_uint_eq(size, n * GOLDEN_VOCAB * sizeof(float));
    ck_assert_int_eq(json_integer_value(json_array_get(json_object_get(root, "greedy"), 0)),
                     last_best(logits, size));
    free(logits);
    json_decref(root);
}
END_TEST

START_TEST(command_makes_files)
{
    char tool[4200], path[4200], seeded[4200];
    struct command c;
    size_t size = 0, other_size = 0, expected_size = 0;
    snprintf(tool, sizeof tool, "%s", program_path("tests/tool_golden"));
    snprintf(path, sizeof path, "%s/smollm3.gguf", weft_test_tmpdir());
    snprintf(seeded, sizeof seeded, "%s/seeded.gguf", weft_test_tmpdir());

    program_run(&c, ARGS(tool, "--list"), NULL, NULL);
    ck_assert_int_eq(c.status, 0);
    ck_assert_ptr_nonnull(strstr(c.out, "\nsmollm3\n"));
    command_done(&c);
    program_run(&c, ARGS(tool, "smollm3", "-o", path), NULL, NULL);
    ck_assert_msg(c.status == 0, "%s", c.err);
    command_done(&c);
    program_run(&c, ARGS(tool, "smollm3", "-o", seeded, "--seed", "9"), NULL, NULL);
    ck_assert_msg(c.status == 0, "%s", c.err);
    command_done(&c);

    uint8_t *expected = weft_test_read("tests/golden/arch/smollm3.gguf", &expected_size);
    uint8_t *made = weft_test_read(path, &size), *other = weft_test_read(seeded, &other_size);
    ck_assert_uint_eq(size, expected_size);
    ck_assert_mem_eq(made, expected, size);
    ck_assert_uint_eq(other_size, expected_size);
    ck_assert_mem_ne(other, expected, size);
    free(made);
    free(other);
    free(expected);
}
END_TEST

START_TEST(command_names_what_is_wrong)
{
    static const struct {
        const char *args[4], *text;
        int status;
    } cases[] = {
        {{"smollm3"}, "usage: ", 2},
        {{"-o", "x.gguf"}, "usage: ", 2},
        {{"smollm3", "gemma", "-o", "x.gguf"}, "usage: ", 2},
        {{"smollm4", "-o", "x.gguf"}, "NAME: found 'smollm4', expected one of --list", 2},
        {{"smollm3", "-ox.gguf", "--seed", "0"}, "--seed: found '0', expected a number", 2},
        {{"smollm3", "-ox.gguf", "--seed", "1x"}, "--seed: found '1x', expected a number", 2},
        {{"smollm3", "-ox.gguf", "--what"}, "--what", 2},
        {{"smollm3", "-o", "/nowhere/x.gguf"}, "/nowhere/x.gguf: No such file", 1},
    };
    char tool[4200];
    snprintf(tool, sizeof tool, "%s", program_path("tests/tool_golden"));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const *a = cases[i].args;
        struct command c;
        program_run(&c, ARGS(tool, a[0], a[1], a[2], a[3]), NULL, NULL);
        ck_assert_msg(c.status == cases[i].status, "case %zu: exit %d: %s", i, c.status, c.err);
        ck_assert_msg(strstr(c.err, cases[i].text) != NULL, "case %zu: %s", i, c.err);
        command_done(&c);
    }
    ck_assert_ptr_null(weft_test_path("x.gguf"));
}
END_TEST

int main(void)
{
    int n = 0;
    while (golden_model_at((uint32_t)n) != NULL)
        n++;
    Suite *s = suite_create("tool_golden");
    TCase *c = tcase_create("models");
    tcase_add_loop_test(c, files_are_made_again, 0, n);
    tcase_add_loop_test(c, wide_models_have_the_same_numbers, 0, n);
    tcase_add_loop_test(c, answers_fit_the_model, 0, n);
    tcase_add_test(c, command_makes_files);
    tcase_add_test(c, command_names_what_is_wrong);
    suite_add_tcase(s, c);
    return weft_test_main(s);
}
