/*
 * weft template as a process: where the template comes from, tokens, dates, JSON, and exit codes;
 * and --template and --raw of weft run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/gguf_writer.h"
#include "tests/harness.h"
#include "tests/procs.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const char demo[] = "configs/demo/weft-stories-q8_0.gguf";
static const char chat[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi <|x|>\"}]}";
static const char with_tools[] =
    "{\"messages\": [], \"tools\": [{\"name\": \"f\"}], \"add_generation_prompt\": true}";

/* Runs with `input` as standard input and compares; NULL: anything. */
static void expect(const char *const *args, const char *input, int status, const char *out,
                   const char *err)
{
    struct command c;
    command_run(&c, args, input, NULL);
    ck_assert_msg(c.status == status, "exit %d, expected %d: %s", c.status, status, c.err);
    if (out != NULL)
        ck_assert_str_eq(c.out, out);
    if (err != NULL)
        ck_assert_str_eq(c.err, err);
    command_done(&c);
}

/* A file with a path that stays good for the whole test, unlike temp_file's. */
static const char *keep(const char *name, const void *data, size_t size)
{
    static char paths[16][4200];
    static unsigned next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s", temp_file(name, data, size));
    return path;
}

static const char *file(const char *name, const char *text)
{
    return keep(name, text, strlen(text));
}

START_TEST(jinja_file)
{
    const char *path = file("t.jinja", "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
                                       "{{ strftime_now('%d %b %Y') }}\n\n");
    expect(ARGS("template", "--file", path, "--input", "-", "--bos", "<s>", "--eos=</s>", "--now",
                "2026-01-02 03:04:05"),
           chat, 0, "<s>Hi <|x|></s>02 Jan 2026\n", "");
    expect(ARGS("template", "--file", path, "--input", "-", "--bos", "<s>", "--json", "--now",
                "2026-01-02 03:04:05"),
           chat, 0,
           "{\"text\": \"<s>Hi <|x|>02 Jan 2026\\n\", \"template_bytes\": [[0, 3], [11, 23]]}\n",
           "");
    expect(ARGS("template", "--file", path, "--input", file("chat.json", chat), "--now",
                "2026-01-02 03:04:05"),
           NULL, 0, "Hi <|x|>02 Jan 2026\n", "");
}
END_TEST

START_TEST(config_file)
{
    expect(ARGS("template", "--file",
                file("a.json", "{\"chat_template\": \"{{ bos_token ~ eos_token }}\","
                               " \"bos_token\": \"<a>\", \"eos_token\": {\"content\": \"<b>\"}}"),
                "--input", "-"),
           chat, 0, "<a><b>", "");
    const char *path = file("b.json", "{\"chat_template\": ["
                                      "{\"name\": \"default\", \"template\": \"plain\"},"
                                      "{\"name\": \"tool_use\", \"template\": \"tools\"}]}");
    expect(ARGS("template", "--file", path, "--input", "-"), chat, 0, "plain", "");
    expect(ARGS("template", "--file", path, "--input", "-"), with_tools, 0, "tools", "");
    char expected[4400];
    path = file("c.json", "{\"x\": 1}");
    snprintf(expected, sizeof expected,
             "weft: %s: chat_template: expected a text, or a list with one named default\n", path);
    expect(ARGS("template", "--file", path, "--input", "-"), chat, 4, "", expected);
    path = file("d.json", "{");
    snprintf(expected, sizeof expected, "weft: %s: 1:1: ", path);
    struct command c;
    command_run(&c, ARGS("template", "--file", path, "--input", "-"), chat, NULL);
    ck_assert_int_eq(c.status, 2);
    ck_assert_msg(strncmp(c.err, expected, strlen(expected)) == 0, "%s", c.err);
    command_done(&c);
}
END_TEST

START_TEST(model_file)
{
    static const char *const tokens[] = {"<unk>", "<s>", "</s>"};
    struct gguf_writer w;
    size_t size;
    gguf_writer_init(&w);
    gguf_writer_str(&w, "general.architecture", "llama");
    gguf_writer_str(&w, "tokenizer.chat_template", "{{ bos_token ~ eos_token }}");
    gguf_writer_str(&w, "tokenizer.chat_template.tool_use", "T{{ bos_token }}");
    gguf_writer_strings(&w, "tokenizer.ggml.tokens", tokens, 3);
    gguf_writer_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    gguf_writer_u32(&w, "tokenizer.ggml.eos_token_id", 2);
    uint8_t *data = gguf_writer_finish(&w, &size);
    const char *path = keep("m.gguf", data, size);
    expect(ARGS("template", "-m", path, "--input", "-"), chat, 0, "<s></s>", "");
    expect(ARGS("template", "-m", path, "--input", "-", "--eos", "E"), chat, 0, "<s>E", "");
    expect(ARGS("template", "-m", path, "--input", "-"), with_tools, 0, "T<s>", "");
    free(data);
    gguf_writer_done(&w);
    expect(ARGS("template", "-m", demo, "--input", "-"), chat, 0, "<|user|>Hi <|x|><|end|>", "");
    expect(ARGS("template", "-m", "/nonexistent.gguf", "--input", "-"), chat, 4, "", NULL);
}
END_TEST

START_TEST(own_template)
{
    expect(ARGS("template", "--template", "chatml", "--input", "-"), chat, 0,
           "<|im_start|>user\nHi <|x|><|im_end|>\n", "");
    expect(ARGS("template", "--template", "chatlm", "--input", "-"), chat, 2, "",
           "weft: --template: found 'chatlm', expected chatml, llama3, mistral, phi3, gemma, "
           "deepseek or zephyr, did you mean 'chatml'?\n");
}
END_TEST

START_TEST(errors)
{
    char expected[4400];
    expect(ARGS("template", "--input", "-"), chat, 2, "",
           "weft: weft template needs --file FILE, -m FILE or --template NAME\n");
    expect(ARGS("template", "--template", "phi3"), chat, 2, "",
           "weft: weft template needs a conversation: --input FILE, - for standard input\n");
    expect(ARGS("template", "--template", "phi3", "-m", demo, "--input", "-"), chat, 2, "",
           "weft: found several of --file, -m and --template, expected one of them\n");
    expect(ARGS("template", "--template", "phi3", "--input", "-", "--now", "today"), chat, 2, "",
           "weft: --now: found 'today', expected YYYY-MM-DD HH:MM:SS\n");
    expect(ARGS("template", "--template", "phi3", "--input", "-"), "{]", 2, "",
           "weft: standard input:1:2: string or '}' expected near ']'\n");
    expect(ARGS("template", "--template", "phi3", "--input", "-"), "[]", 2, "",
           "weft: conversation: expected a JSON object with messages\n");
    const char *path = file("u.jinja", "\n{{ 1 | foo }}");
    snprintf(expected, sizeof expected,
             "weft: %s: chat template 2:8: filter 'foo' is not supported\n", path);
    expect(ARGS("template", "--file", path, "--input", "-"), chat, 4, "", expected);
    expect(
        ARGS("template", "--file", file("r.jinja", "{{ raise_exception('No.') }}"), "--input", "-"),
        chat, 2, "", "weft: chat template 1:4: the template refuses this conversation: No.\n");
}
END_TEST

/* weft run: the model's template, one of ours, none. */
START_TEST(run_with_template)
{
    struct command c;
    command_run(
        &c,
        ARGS("run", "-m", demo, "-n", "1", "--temp", "0", "--json", "--template", "zephyr", "Hi"),
        NULL, NULL);
    ck_assert_msg(c.status == 0, "%s", c.err);
    command_done(&c);
    expect(ARGS("run", "-m", demo, "--raw", "--template", "zephyr", "Hi"), NULL, 2, "",
           "weft: found --raw and --template, expected one of them\n");
    command_run(&c, ARGS("run", "-m", demo, "-n", "1", "--raw", "Hi"), NULL,
                ARGS("WEFT_TEMPLATE=phi3"));
    ck_assert_msg(c.status == 0, "%s", c.err);
    command_done(&c);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("template command");
    TCase *t = tcase_create("template command");
    const char *root = getenv("WEFT_SOURCE_DIR");
    if (root != NULL && chdir(root) != 0) /* so that messages hold short paths */
        return 1;
    tcase_set_timeout(t, 60); /* processes on a loaded machine */
    tcase_add_test(t, jinja_file);
    tcase_add_test(t, config_file);
    tcase_add_test(t, model_file);
    tcase_add_test(t, own_template);
    tcase_add_test(t, errors);
    tcase_add_test(t, run_with_template);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
