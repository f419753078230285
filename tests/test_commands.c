/*
 * Tests of the commands that read files alone, as processes: weft check and weft inspect, with
 * their exact text, their JSON and their exit codes; help, version and completion of the program.
 */
#include "base/yaml.h"
#include "tests/damaged_model.h"
#include "tests/gguf_writer.h"
#include "tests/harness.h"
#include "tests/procs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char demo[] = "configs/demo/weft-stories-q8_0.gguf";

/* Runs and compares all three; NULL: anything. */
static void expect(const char *const *args, int status, const char *out, const char *err)
{
    struct command c;
    command_run(&c, args, NULL, NULL);
    ck_assert_msg(c.status == status, "exit %d, expected %d: %s", c.status, status, c.err);
    if (out != NULL)
        ck_assert_str_eq(c.out, out);
    if (err != NULL)
        ck_assert_str_eq(c.err, err);
    command_done(&c);
}

/* The same, with words that the output has. */
static void expect_words(const char *const *args, int status, const char *out, const char *err)
{
    struct command c;
    command_run(&c, args, NULL, NULL);
    ck_assert_msg(c.status == status, "exit %d, expected %d: %s", c.status, status, c.err);
    ck_assert_msg(strstr(c.out, out) != NULL, "found '%s', expected '%s' in it", c.out, out);
    ck_assert_str_eq(c.err, err);
    command_done(&c);
}

/* JSON is YAML: the value at a path of what a command printed. */
static void expect_json(const char *const *args, int status, const char *const *paths_and_values)
{
    struct command c;
    struct weft_yaml_doc *doc = NULL;
    weft_err err = {0};
    command_run(&c, args, NULL, NULL);
    ck_assert_msg(c.status == status, "exit %d, expected %d: %s", c.status, status, c.err);
    ck_assert_int_eq(weft_yaml_open("json", c.out, c.out_size, &doc, &err), 0);
    ck_assert_msg(weft_yaml_error_count(doc) == 0, "%s", c.out);
    for (size_t i = 0; paths_and_values[i] != NULL; i += 2) {
        const char *value = weft_yaml_scalar(weft_yaml_find(doc, paths_and_values[i]));
        ck_assert_msg(value != NULL && strcmp(value, paths_and_values[i + 1]) == 0,
                      "%s: found '%s', expected '%s' in %s", paths_and_values[i],
                      value != NULL ? value : "nothing", paths_and_values[i + 1], c.out);
    }
    weft_yaml_close(doc);
    command_done(&c);
}

/* ---- check ---- */

START_TEST(check_good)
{
    expect(ARGS("check", "-f", "configs/demo/cluster.yaml"), 0,
           "configs/demo/cluster.yaml: 3 devices, 3 stages, model weft-stories 4M of 6 layers: "
           "no errors\n",
           "");
    expect(ARGS("check", "-f", "configs/cluster.yaml", "-m", demo), 0,
           "configs/cluster.yaml: 5 devices, stages left to the planner, model weft-stories 4M of "
           "6 layers: no errors\n",
           "");
    expect_json(ARGS("check", "-f", "configs/demo/cluster.yaml", "--json"), 0,
                ARGS("file", "configs/demo/cluster.yaml", "ok", "true", "error", "", "report", "",
                     "devices", "3", "stages", "3", "model", "weft-stories 4M", "layers", "6"));
}
END_TEST

START_TEST(check_without_model)
{
    const char *path = temp_file("c.yaml", "devices: [{name: a, address: a.local}]\n", 39);
    char expected[4300];
    snprintf(expected, sizeof expected,
             "%s: 1 device, stages left to the planner, no model (give one with -m): no errors\n",
             path);
    expect(ARGS("check", "-f", path), 0, expected, "");
}
END_TEST

/* The report as it stands beside the file, then the number of errors. */
START_TEST(check_bad)
{
    size_t size;
    struct weft_str expected = {0};
    char *report = (char *)weft_test_read("tests/cluster/stages.errors", &size);
    ck_assert_ptr_nonnull(report);
    weft_str_addf(&expected, "%sweft: 18 errors in tests/cluster/stages.yaml\n", report);
    expect(ARGS("check", "-f", "tests/cluster/stages.yaml"), 3, "", expected.data);
    expect_json(
        ARGS("check", "-f", "tests/cluster/stages.yaml", "--json"), 3,
        ARGS("ok", "false", "error", "18 errors in tests/cluster/stages.yaml", "report", report));
    weft_str_done(&expected);
    free(report);
    expect(ARGS("check", "-f", "/nonexistent.yaml"), 3, "",
           "weft: /nonexistent.yaml: No such file or directory\n");
}
END_TEST

/* What only the model can tell. */
START_TEST(check_against_the_model)
{
    static const struct {
        const char *text;
        int status;
        const char *error; /* behind the path */
    } cases[] = {
        {"stages: [{device: a, layers: 0-3}]\n", 3,
         ": layers 4-5 are in no stage: weft-stories 4M has 6 layers, the stages end with 3\n"},
        {"stages: [{device: a, layers: 0-6}]\n", 3,
         ": the stages end with layer 6, expected 5: weft-stories 4M has 6 layers\n"},
        {"context: 2048\n", 5, NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct weft_str text = {0}, error = {0};
        weft_str_addf(&text, "devices: [{name: a, address: a.local}]\n%s", cases[i].text);
        const char *path = temp_file("c.yaml", text.data, text.size);
        if (cases[i].error != NULL)
            weft_str_addf(&error, "weft: %s%s", path, cases[i].error);
        else
            weft_str_adds(&error, "weft: context 2048: weft-stories 4M was made for 1024 positions "
                                  "at most\n");
        expect(ARGS("check", "-f", path, "-m", demo), cases[i].status, "", error.data);
        weft_str_done(&text);
        weft_str_done(&error);
    }
    /* A plan file is checked the same way, and named. */
    const char *plan = temp_file("p.yaml", "stages: [{device: a, layers: 0}]\n", 33);
    char expected[4300];
    snprintf(expected, sizeof expected,
             "weft: %s: layers 1-5 are in no stage: weft-stories 4M has 6 layers, the stages end "
             "with 0\n",
             plan);
    expect(ARGS("check", "-f", "configs/demo/cluster.yaml", "--plan", plan), 3, "", expected);
}
END_TEST

START_TEST(check_model_file)
{
    expect(ARGS("check", "-f", "configs/demo/cluster.yaml", "-m", "/nonexistent.gguf"), 4, "",
           "weft: /nonexistent.gguf: No such file or directory\n");
    expect(ARGS("check", "-f", "configs/demo/cluster.yaml", "-m", "README.md"), 4, "", NULL);
}
END_TEST

/* ---- inspect ---- */

START_TEST(inspect_demo)
{
    expect(ARGS("inspect", demo), 0,
           "file          configs/demo/weft-stories-q8_0.gguf: GGUF version 3, 3.89 MiB\n"
           "name          weft-stories 4M\n"
           "architecture  llama\n"
           "layers        6\n"
           "width         256, FFN 512\n"
           "heads         8 of 32, 4 for keys and values\n"
           "vocabulary    1024\n"
           "context       1024 positions\n"
           "KV cache      3.00 KiB per position as f16, 3.00 MiB for 1024\n"
           "shards        4 KV groups, 2 FFN blocks a layer\n"
           "parameters    3.8 million\n"
           "\n"
           "type      tensors        size\n"
           "F32            13    13.0 KiB\n"
           "Q8_0           43    3.85 MiB\n"
           "all            56    3.86 MiB\n"
           "\n"
           "tokenizer     SentencePiece, 1024 tokens\n"
           "  bos         1 '<s>'\n"
           "  eos         2 '</s>'\n"
           "  eot         6 '<|end|>'\n"
           "  unknown     0 '<unk>'\n"
           "chat template 171 bytes\n"
           "runs          yes\n",
           "");
    expect_json(ARGS("inspect", "--json", demo), 0,
                ARGS("architecture", "llama", "runs", "true", "why_not", "", "layers", "6", "heads",
                     "8", "kv_heads", "4", "kv_f16_bytes_per_position", "3072", "parameters",
                     "3804416", "types.Q8_0.tensors", "43", "types.Q8_0.supported", "true",
                     "tokenizer.kind", "SentencePiece", "tokenizer.special_ids.eot", "6",
                     "chat_template_runs", "true"));
}
END_TEST

/* What a layer is cut into, and what the architecture forbids to cut. */
START_TEST(inspect_shards)
{
    static const struct {
        const char *model, *words;
    } cases[] = {
        {"tests/golden/arch/olmo2.gguf", "(not to be divided: its q and k norms span all heads)"},
        {"tests/golden/arch/qwen2moe.gguf",
         "experts       3 of 7 a token, FFN 40 each, and one for all\n"},
        {"tests/golden/arch/phi3-window.gguf", "window        9 positions\n"},
        {"tests/golden/arch/gemma2.gguf", "window        9 positions in some layers\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct command c;
        command_run(&c, ARGS("inspect", weft_test_path(cases[i].model)), NULL, NULL);
        ck_assert_int_eq(c.status, 0);
        ck_assert_msg(strstr(c.out, cases[i].words) != NULL, "%s", c.out);
        command_done(&c);
    }
    expect_json(ARGS("inspect", "--json", weft_test_path("tests/golden/arch/qwen2moe.gguf")), 0,
                ARGS("shards.expert", "7", "shards.ffn", "1"));
    expect_json(ARGS("inspect", "--json", weft_test_path("tests/golden/arch/olmo2.gguf")), 0,
                ARGS("not_divisible.attn", "its q and k norms span all heads"));
}
END_TEST

/* Writes a model that the test has bent and gives its path. */
static const char *save(struct gguf_writer *w)
{
    static char path[4200];
    snprintf(path, sizeof path, "%s/model.gguf", weft_test_tmpdir());
    ck_assert(gguf_writer_save(w, path));
    gguf_writer_done(w);
    return path;
}

START_TEST(inspect_what_cannot_run)
{
    struct gguf_writer w;
    /* Another architecture: its own keys are shown. */
    gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
    gguf_writer_str(&w, "general.architecture", "mamba\n2");
    expect_json(ARGS("inspect", "--json", save(&w)), 0,
                ARGS("architecture", "mamba?2", "runs", "false", "layers", "0",
                     "kv_f16_bytes_per_position", "0"));

    gguf_writer_llama(
        &w, &(struct gguf_writer_llama){.layers = 3, .dim = 256, .type = WEFT_IQ3_S, .ffn = 512});
    const char *path = save(&w);
    expect_json(
        ARGS("inspect", "--json", path), 0,
        ARGS("runs", "false", "layers", "3", "types.IQ3_S.supported", "false",
             "types.F32.supported", "true", "why_not",
             "tensor token_embd.weight: type IQ3_S: supported are: F32 F16 BF16 Q8_0 Q4_0 Q4_1 "
             "Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS TQ1_0 TQ2_0"));
    struct command c;
    command_run(&c, ARGS("inspect", path), NULL, NULL);
    ck_assert_int_eq(c.status, 0);
    ck_assert_ptr_nonnull(strstr(c.out, "  not supported\n"));
    ck_assert_ptr_nonnull(strstr(c.out, "\nruns          no: tensor token_embd.weight"));
    command_done(&c);

    /* A good model without a tokenizer. */
    gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
    expect_json(ARGS("inspect", "--json", save(&w)), 0,
                ARGS("runs", "false", "layers", "2", "why_not", "the file has no tokenizer"));
}
END_TEST

START_TEST(inspect_vocabulary)
{
    if (weft_test_path("../shared/vocab/ggml-vocab-qwen2.gguf") == NULL) {
        weft_test_skip("../shared/vocab is not there");
        return;
    }
    expect_json(ARGS("inspect", "--json", "../shared/vocab/ggml-vocab-qwen2.gguf"), 0,
                ARGS("architecture", "qwen2", "runs", "false", "tensors", "0", "why_not",
                     "the file has no tensors, only metadata", "tokenizer.kind", "byte-level BPE",
                     "tokenizer.runs", "true", "tokenizer.tokens", "151665", "tokenizer.merges",
                     "151387", "tokenizer.pre", "qwen2", "tokenizer.warning", ""));
    expect_words(ARGS("inspect", "../shared/vocab/ggml-vocab-qwen2.gguf"), 0,
                 "\ntokenizer     byte-level BPE, 151665 tokens, 151387 merges\n"
                 "  pre         qwen2\n",
                 "");
}
END_TEST

/* ---- inspect --check ---- */

/* A copy of a golden model. */
#define DAMAGED(...) \
    damaged_model("tests/golden/llama-256-q8_0.gguf", &(struct damage){__VA_ARGS__})

START_TEST(check_good_weights)
{
    expect_words(ARGS("inspect", "--check", demo), 0,
                 "\nchecked       56 tensors, 3.86 MiB: no NaN, no infinity\nruns          yes\n",
                 "");
    expect_json(ARGS("inspect", "--check", "--json", demo), 0,
                ARGS("runs", "true", "check.tensors", "56", "check.bytes", "4051968",
                     "check.bad_blocks", "0"));
}
END_TEST

/* Rows of ffn_down [512, 256] have 16 blocks of 34 bytes: block 8 * 16 + 5. */
START_TEST(check_bad_weights)
{
    char error[4500];
    const char *path =
        DAMAGED("blk.0.ffn_down.weight", .offset = (8 * 16 + 5) * 34, .bits = 0x7e00);
    snprintf(error, sizeof error,
             "weft: %s: 1 block with NaN or infinity, the first is tensor blk.0.ffn_down.weight "
             "row 8 block 5: d is NaN; download or convert the model again\n",
             path);
    expect_words(ARGS("inspect", "--check", path), 4,
                 ": 1 block with NaN or infinity\n"
                 "  blk.0.ffn_down.weight row 8 block 5: d is NaN\n"
                 "runs          no: weights with NaN or infinity\n",
                 error);
    expect_json(ARGS("inspect", "--check", "--json", path), 4,
                ARGS("runs", "false", "why_not", "weights with NaN or infinity", "check.bad_blocks",
                     "1", "check.first_bad_blocks[0].tensor", "blk.0.ffn_down.weight",
                     "check.first_bad_blocks[0].type", "Q8_0", "check.first_bad_blocks[0].row", "8",
                     "check.first_bad_blocks[0].block", "5", "check.first_bad_blocks[0].field", "d",
                     "check.first_bad_blocks[0].found", "NaN"));
    /* Without --check nobody looks. */
    struct command c;
    command_run(&c, ARGS("inspect", path), NULL, NULL);
    ck_assert_int_eq(c.status, 0);
    ck_assert_ptr_null(strstr(c.out, "checked"));
    command_done(&c);
    /* An element of a float tensor; its upper half. */
    path = DAMAGED("output_norm.weight", .offset = 17 * 4 + 2, .bits = 0xff80);
    expect_json(ARGS("inspect", "--check", "--json", path), 4,
                ARGS("check.first_bad_blocks[0].tensor", "output_norm.weight",
                     "check.first_bad_blocks[0].block", "17", "check.first_bad_blocks[0].field",
                     "value"));
    command_run(&c, ARGS("inspect", "--check", path), NULL, NULL);
    ck_assert_msg(strstr(c.out, "\n  output_norm.weight row 0 element 17: value is ") != NULL, "%s",
                  c.out);
    command_done(&c);
}
END_TEST

/* All are counted, twenty are named. */
START_TEST(check_many_bad_weights)
{
    const char *path = DAMAGED("token_embd.weight", 34, 34 * 3, 25, 0xfc00);
    struct command c;
    command_run(&c, ARGS("inspect", "--check", path), NULL, NULL);
    ck_assert_int_eq(c.status, 4);
    ck_assert_msg(strstr(c.out, ": 25 blocks with NaN or infinity\n"
                                "  token_embd.weight row 0 block 1: d is -infinity\n"
                                "  token_embd.weight row 0 block 4: d is -infinity\n") != NULL,
                  "%s", c.out);
    /* number 20 is block 1 + 19 * 3 of rows of 8 */
    ck_assert_msg(strstr(c.out, "  token_embd.weight row 7 block 2: d is -infinity\n"
                                "  and 5 more\n") != NULL,
                  "%s", c.out);
    command_done(&c);
    expect_json(ARGS("inspect", "--check", "--json", path), 4,
                ARGS("check.bad_blocks", "25", "check.first_bad_blocks[19].row", "7"));
}
END_TEST

START_TEST(check_unknown_weights)
{
    struct gguf_writer w;
    gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
    gguf_writer_tensor(&w, "blk.0.extra.weight", WEFT_IQ2_XXS, 256, 2);
    gguf_writer_tensor(&w, "blk.1.extra.weight", WEFT_IQ2_XXS, 256, 2);
    gguf_writer_tensor(&w, "blk.1.other.weight", WEFT_I32, 4, 0);
    expect_words(ARGS("inspect", "--check", save(&w)), 0,
                 "no NaN, no infinity\n"
                 "not checked   2 tensors of type IQ2_XXS\n"
                 "not checked   1 tensor of type I32\n",
                 "");
    gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
    gguf_writer_tensor(&w, "blk.0.extra.weight", WEFT_IQ2_XXS, 256, 2);
    expect_json(ARGS("inspect", "--check", "--json", save(&w)), 0,
                ARGS("check.tensors_not_checked.IQ2_XXS", "1"));
}
END_TEST

/* What is malformed is told first, and what it holds is looked at all the same. */
START_TEST(check_malformed)
{
    struct gguf_writer w;
    const uint32_t nan = 0x7fc00000;
    gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
    gguf_writer_remove_tensor(&w, "blk.1.attn_q.weight");
    memcpy(gguf_writer_find(&w, "output_norm.weight")->data, &nan, sizeof nan);
    struct command c;
    command_run(&c, ARGS("inspect", "--check", save(&w)), NULL, NULL);
    ck_assert_int_eq(c.status, 4);
    ck_assert_msg(strstr(c.out, "  output_norm.weight row 0 element 0: value is NaN\n") != NULL,
                  "%s", c.out);
    ck_assert_msg(strstr(c.err, "blk.1.attn_q.weight") != NULL, "%s", c.err);
    command_done(&c);
}
END_TEST

START_TEST(inspect_broken)
{
    size_t size;
    char *data = (char *)weft_test_read(demo, &size);
    ck_assert_ptr_nonnull(data);
    const char *path = temp_file("cut.gguf", data, size / 2);
    struct command c;
    command_run(&c, ARGS("inspect", path), NULL, NULL);
    ck_assert_int_eq(c.status, 4);
    ck_assert_str_eq(c.out, "");
    ck_assert_msg(strstr(c.err, "truncated") != NULL && strstr(c.err, path) != NULL, "%s", c.err);
    command_done(&c);
    free(data);
    expect(ARGS("inspect", "/nonexistent.gguf"), 4, "",
           "weft: /nonexistent.gguf: No such file or directory\n");
    /* A malformed model is shown as far as it goes, and fails. */
    struct gguf_writer w;
    gguf_writer_llama(&w, &(struct gguf_writer_llama){0});
    gguf_writer_remove_tensor(&w, "blk.1.attn_q.weight");
    command_run(&c, ARGS("inspect", save(&w)), NULL, NULL);
    ck_assert_int_eq(c.status, 4);
    ck_assert_ptr_nonnull(strstr(c.out, "architecture  llama\n"));
    ck_assert_msg(strstr(c.err, "blk.1.attn_q.weight") != NULL, "%s", c.err);
    command_done(&c);
}
END_TEST

/* ---- the program ---- */

START_TEST(program)
{
    struct command c;
    command_run(&c, ARGS("--version"), NULL, NULL);
    ck_assert_int_eq(c.status, 0);
    ck_assert_msg(strncmp(c.out, "weft ", 5) == 0 && strstr(c.out, ", protocol ") != NULL, "%s",
                  c.out);
    command_done(&c);
    command_run(&c, ARGS("completion"), NULL, NULL);
    ck_assert_int_eq(c.status, 0);
    ck_assert_ptr_nonnull(strstr(c.out, "complete -F _weft weft\n"));
    command_done(&c);
    command_run(&c, ARGS("run", "--help"), NULL, ARGS("WEFT_TEMP=hot"));
    ck_assert_int_eq(c.status, 0);
    ck_assert_ptr_nonnull(strstr(c.out, "usage: weft run [options] PROMPT\n"));
    command_done(&c);
    expect(ARGS("chekc"), 2, "", "weft: unknown command 'chekc', did you mean 'check'?\n");
    command_run(&c, ARGS("chat", "-m", demo), NULL, ARGS("WEFT_TEMP=hot"));
    ck_assert_int_eq(c.status, 2);
    ck_assert_str_eq(c.err, "weft: WEFT_TEMP: found 'hot', expected a number, 0..100\n");
    command_done(&c);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("commands");
    TCase *t = tcase_create("commands");
    const char *root = getenv("WEFT_SOURCE_DIR");
    if (root != NULL && chdir(root) != 0) /* so that messages hold short paths */
        return 1;
    tcase_set_timeout(t, 60); /* processes on a loaded machine */
    tcase_add_test(t, check_good);
    tcase_add_test(t, check_without_model);
    tcase_add_test(t, check_bad);
    tcase_add_test(t, check_against_the_model);
    tcase_add_test(t, check_model_file);
    tcase_add_test(t, inspect_demo);
    tcase_add_test(t, inspect_shards);
    tcase_add_test(t, inspect_what_cannot_run);
    tcase_add_test(t, inspect_vocabulary);
    tcase_add_test(t, inspect_broken);
    tcase_add_test(t, check_good_weights);
    tcase_add_test(t, check_bad_weights);
    tcase_add_test(t, check_many_bad_weights);
    tcase_add_test(t, check_unknown_weights);
    tcase_add_test(t, check_malformed);
    tcase_add_test(t, program);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
