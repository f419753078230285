/*
 * Tests of weft tokenize and weft detokenize as processes: exact text, JSON, exit codes; with small
 * vocabularies made here, and published ones where they are there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"
#include "tests/procs.h"
#include "tests/vocab_fixture.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static char spm[4300], bpe[4300]; /* paths of small vocabularies */

static void expect(const char *const *args, const char *input, int status, const char *out,
                   const char *err)
{
    struct command c;
    command_run(&c, args, input, NULL);
    ck_assert_msg(c.status == status, "exit %d, expected %d: %s", c.status, status, c.err);
    ck_assert_str_eq(c.out, out);
    ck_assert_str_eq(c.err, err);
    command_done(&c);
}

static void save(struct gguf_writer *w, const char *name, char path[4300])
{
    snprintf(path, 4300, "%s/%s", weft_test_tmpdir(), name);
    ck_assert(gguf_writer_save(w, path));
    gguf_writer_done(w);
}

/* <s> 1, bytes from 3, " a" 259, "b" 260, "<|x|>" 261 (control), "<y>" 262 (user-defined); a space
 * before text. And byte-level BPE: bytes 0..255, <s> 256, "th" 257. */
static void make_vocabularies(void)
{
    static struct small_vocab s;
    struct gguf_writer w;
    small_vocab_init(&s, true);
    small_vocab_add(&s, WEFT_SPACE_MARK "a", -1, WEFT_TOKEN_NORMAL);
    small_vocab_add(&s, "b", -1, WEFT_TOKEN_NORMAL);
    small_vocab_add(&s, "<|x|>", 0, WEFT_TOKEN_CONTROL);
    small_vocab_add(&s, "<y>", 0, WEFT_TOKEN_USER_DEFINED);
    small_vocab_write(&s, &w);
    gguf_writer_bool(&w, "tokenizer.ggml.add_space_prefix", true);
    save(&w, "spm.gguf", spm);
    small_vocab_init_bpe(&s, "nobody's");
    small_vocab_add(&s, "th", 0, WEFT_TOKEN_NORMAL);
    small_vocab_merge(&s, "t h");
    small_vocab_write(&s, &w);
    save(&w, "bpe.gguf", bpe);
}

START_TEST(tokens_of_a_text)
{
    make_vocabularies();
    expect(ARGS("tokenize", "-m", spm, "ab"), NULL, 0,
           "      1  <s>\n"
           "    259  \" a\"\n"
           "    260  \"b\"\n",
           "");
    expect(ARGS("tokenize", "-m", spm, "--no-bos", "ab<y>a"), NULL, 0,
           "    259  \" a\"\n"
           "    260  \"b\"\n"
           "    262  \"<y>\"\n"
           "    259  \" a\"\n",
           "");
    expect(ARGS("tokenize", "-m", spm, "--special", "--no-bos", "a<|x|>a"), NULL, 0,
           "    259  \" a\"\n"
           "    261  <|x|>\n"
           "    259  \" a\"\n",
           "");
    /* What would be seen wrongly is escaped, a part of a character is its bytes. */
    expect(ARGS("tokenize", "-m", spm, "--no-bos", "a\n\t\r\"\\\x1b\xC3\xA9"), NULL, 0,
           "    259  \" a\"\n"
           "     13  \"\\n\"\n"
           "     12  \"\\t\"\n"
           "     16  \"\\r\"\n"
           "     37  \"\\\"\"\n"
           "     95  \"\\\\\"\n"
           "     30  \"\\u001B\"\n"
           "    198  \"\\xC3\"\n"
           "    172  \"\\xA9\"\n",
           "");
    expect(ARGS("tokenize", "-m", spm, ""), NULL, 0, "      1  <s>\n", "");
    expect(ARGS("tokenize", "-m", spm, "--no-bos", ""), NULL, 0, "", "");
}
END_TEST

START_TEST(ids_alone)
{
    make_vocabularies();
    expect(ARGS("tokenize", "-m", spm, "--ids", "ab"), NULL, 0, "1,259,260\n", "");
    expect(ARGS("tokenize", "-m", spm, "--ids", "--no-bos", ""), NULL, 0, "\n", "");
    /* Standard input as it is. */
    expect(ARGS("tokenize", "-m", spm, "--ids", "-"), "ab\n", 0, "1,259,260,13\n", "");
    expect(ARGS("tokenize", "-m", spm, "--json", "ab\n<|x|>", "--special"), NULL, 0,
           "{\"ids\": [1, 259, 260, 13, 261], \"tokens\": ["
           "{\"id\": 1, \"text\": \"<s>\", \"control\": true}, "
           "{\"id\": 259, \"text\": \" a\", \"control\": false}, "
           "{\"id\": 260, \"text\": \"b\", \"control\": false}, "
           "{\"id\": 13, \"text\": \"\\n\", \"control\": false}, "
           "{\"id\": 261, \"text\": \"<|x|>\", \"control\": true}]}\n",
           "");
    expect(ARGS("tokenize", "-m", spm, "--json", "--ids", "ab"), NULL, 0,
           "{\"ids\": [1, 259, 260]}\n", "");
}
END_TEST

START_TEST(text_of_tokens)
{
    make_vocabularies();
    expect(ARGS("detokenize", "-m", spm, "1,259,260"), NULL, 0, "ab", "");
    expect(ARGS("detokenize", "-m", spm, " 1 259\t260,,13,\n"), NULL, 0, "ab\n", "");
    expect(ARGS("detokenize", "-m", spm, "-"), "1, 259, 260\n", 0, "ab", "");
    expect(ARGS("detokenize", "-m", spm, "--special", "1,259,198,261,260"), NULL, 0,
           "<s>a\xEF\xBF\xBD<|x|>b", "");
    expect(ARGS("detokenize", "-m", spm, "198,172"), NULL, 0, "\xC3\xA9", "");
    expect(ARGS("detokenize", "-m", spm, ""), NULL, 0, "", "");
    expect(ARGS("detokenize", "-m", spm, "--json", "259,13"), NULL, 0,
           "{\"tokens\": 2, \"text\": \"a\\n\"}\n", "");
    expect(ARGS("detokenize", "-m", spm, "--json", ""), NULL, 0,
           "{\"tokens\": 0, \"text\": \"\"}\n", "");
}
END_TEST

START_TEST(unknown_pre_tokenizer)
{
    static const char warning[] =
        "weft: warning: tokenizer.ggml.pre: pre-tokenizer 'nobody's' is not known; text is cut by "
        "the default rule, so its tokens may not be those that the model was made for\n";
    make_vocabularies();
    expect(ARGS("tokenize", "-m", bpe, "--ids", "the"), NULL, 0, "257,101\n", warning);
    expect(ARGS("detokenize", "-m", bpe, "257,101"), NULL, 0, "the", warning);
    struct command c;
    command_run(&c, ARGS("inspect", bpe), NULL, NULL);
    ck_assert_int_eq(c.status, 0);
    ck_assert_ptr_nonnull(strstr(c.out, "\ntokenizer     byte-level BPE, 258 tokens, 1 merges\n"
                                        "  pre         nobody's\n"
                                        "  warning     tokenizer.ggml.pre: pre-tokenizer "));
    command_done(&c);
}
END_TEST

START_TEST(errors)
{
    struct weft_str expected = {0};
    make_vocabularies();
    expect(ARGS("tokenize", "-m", "/nonexistent.gguf", "a"), NULL, 4, "",
           "weft: /nonexistent.gguf: No such file or directory\n");
    weft_str_addf(&expected, "weft: text: byte 1 (0xFF) is not valid UTF-8; convert the text to "
                             "UTF-8\n");
    expect(ARGS("tokenize", "-m", spm, "a\xFF"), NULL, 2, "", expected.data);
    expect(ARGS("tokenize", "-m", spm, "-"), "a\xFF", 2, "", expected.data);
    expect(ARGS("detokenize", "-m", spm, "1,263"), NULL, 2, "",
           "weft: token 263: expected an id below 263\n");
    expect(ARGS("detokenize", "-m", spm, "1,x 2"), NULL, 2, "",
           "weft: ids: number 2 is 'x', expected 0..262\n");
    expect(ARGS("detokenize", "-m", spm, "--", "-1"), NULL, 2, "",
           "weft: ids: number 1 is '-1', expected 0..262\n");
    expect(ARGS("detokenize", "-m", spm, "99999999999999999999"), NULL, 2, "",
           "weft: ids: number 1 is '99999999999999999999', expected 0..262\n");
    expect(ARGS("tokenize", "-m", spm), NULL, 2, "",
           "weft: weft tokenize needs TEXT, or - for standard input\n");

    struct gguf_writer w;
    char path[4300];
    gguf_writer_init(&w);
    gguf_writer_str(&w, "tokenizer.ggml.model", "bert");
    save(&w, "bert.gguf", path);
    weft_str_clear(&expected);
    weft_str_addf(&expected,
                  "weft: %s: tokenizer.ggml.model: found 'bert', expected 'llama' (SentencePiece) "
                  "or 'gpt2' (byte-level BPE), the kinds of tokenizer that are supported\n",
                  path);
    expect(ARGS("tokenize", "-m", path, "a"), NULL, 4, "", expected.data);
    expect(ARGS("detokenize", "-m", path, "1"), NULL, 4, "", expected.data);
    gguf_writer_init(&w);
    gguf_writer_str(&w, "general.name", "x");
    save(&w, "none.gguf", path);
    weft_str_clear(&expected);
    weft_str_addf(&expected, "weft: %s: key tokenizer.ggml.model is missing\n", path);
    expect(ARGS("tokenize", "-m", path, "a"), NULL, 4, "", expected.data);
    weft_str_done(&expected);
}
END_TEST

/* Files that hold a vocabulary alone, of an architecture that weft may not run. */
START_TEST(published)
{
    static const struct {
        const char *path, *ids, *text;
    } cases[] = {
        {"../shared/vocab/ggml-vocab-qwen2.gguf", "9707,11,220,99489,15469,0\n", "Hello, 世界AI!"},
        {"../shared/vocab/ggml-vocab-llama-spm.gguf", "1,15043,3186\n", "Hello world"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *path = weft_test_path(cases[i].path);
        if (path == NULL) {
            weft_test_skip("%s is not there", cases[i].path);
            return;
        }
        char *copy = strdup(path);
        struct command c;
        command_run(&c, ARGS("tokenize", "-m", copy, "--ids", cases[i].text), NULL, NULL);
        ck_assert_int_eq(c.status, 0);
        expect(ARGS("detokenize", "-m", copy, "-"), c.out, 0, cases[i].text, "");
        ck_assert_str_eq(c.out, cases[i].ids);
        command_done(&c);
        free(copy);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenize");
    TCase *tc = tcase_create("tokenize");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, tokens_of_a_text);
    tcase_add_test(tc, ids_alone);
    tcase_add_test(tc, text_of_tokens);
    tcase_add_test(tc, unknown_pre_tokenizer);
    tcase_add_test(tc, errors);
    tcase_add_test(tc, published);
    suite_add_tcase(suite, tc);
    return weft_test_main(suite);
}
