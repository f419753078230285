/*
 * Models as files and conversations longer than the context, with real processes: split models give
 * the answers of whole ones, names are found, and a shift of the context goes on with what a model
 * says that is given what was kept.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/model_file.h"
#include "base/yaml.h"
#include "coordinator/detok.h"
#include "coordinator/template.h"
#include "tests/gguf_splitter.h"
#include "tests/harness.h"
#include "tests/procs.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define DEMO "configs/demo/weft-stories-q8_0.gguf"
#define SHARED "../shared/models/weft-stories-q8_0.gguf"
#define FOX "Tell me a story about a fox and a lantern."
#define DUCK "Tell me a story about a duck and a pond."
#define BEAR "Tell me a story about a bear."
#define IDS_MAX 1024

static struct daemon_proc daemons[2];

static void start_daemons(void)
{
    daemon_start(&daemons[0], "a", NULL, NULL);
    daemon_start(&daemons[1], "b", NULL, NULL);
}

static void stop_daemons(void)
{
    int bad = daemon_stop(&daemons[0]);
    bad |= daemon_stop(&daemons[1]);
    ck_assert_msg(bad == 0, "a daemon did not end well");
}

static const char *two_stages(const char *model, const char *more)
{
    char text[512];
    snprintf(text, sizeof text,
             "%sstages:\n  - {device: a, layers: 0-2}\n"
             "  - {device: b, layers: 3-5}\n",
             more);
    return cluster_yaml(model, daemons, 2, text);
}

static struct command ran(const char *const *args, const char *input, const char *const *env,
                          int status)
{
    struct command c;
    command_run(&c, args, input, env);
    ck_assert_msg(c.status == status, "exit %d, expected %d: %s", c.status, status, c.err);
    return c;
}

static void expect_words(const char *found, const char *words)
{
    ck_assert_msg(strstr(found, words) != NULL, "found '%s', expected '%s' in it", found, words);
}

/* A folder of its own for a test. */
static const char *folder(const char *name)
{
    static char path[4200];
    snprintf(path, sizeof path, "%s/%s", weft_test_tmpdir(), name);
    ck_assert(mkdir(path, 0700) == 0 || access(path, W_OK) == 0);
    return path;
}

/* ------------------------------------------------------------------ split models */

/* The ids and text of a greedy answer; both malloc'ed. */
static char *answer(const char *cluster, const char *model, char **ret_text)
{
    struct command c =
        cluster != NULL
            ? ran(ARGS("run", "-f", cluster, "--temp", "0", "--json", FOX), NULL, NULL, 0)
            : ran(ARGS("run", "-m", model, "-t", "1", "--temp", "0", "--json", FOX), NULL, NULL, 0);
    const char *ids = strstr(c.out, "\"tokens\": [");
    ck_assert_msg(ids != NULL, "%s", c.out);
    const char *end = strchr(ids, ']');
    const char *text = strstr(c.out, "\"text\": "), *text_end = strstr(c.out, ", \"tokens\"");
    ck_assert_msg(end != NULL && end - ids > 100 && text != NULL && text_end != NULL, "%s", c.out);
    char *copy = strndup(ids, (size_t)(end - ids));
    *ret_text = strndup(text, (size_t)(text_end - text));
    ck_assert(copy != NULL && *ret_text != NULL);
    command_done(&c);
    return copy;
}

/* In three parts, with and without tensors in the first; any part is as good as the first. */
START_TEST(split_answers)
{
    const bool keys_alone = _i == 1;
    struct gguf_split_files s;
    char first[4300], second[4300], *texts[4], *ids[4];
    const char *whole = weft_test_path(SHARED) != NULL ? SHARED : DEMO;
    gguf_split(whole, 3, keys_alone, &s);
    const char *dir = folder(keys_alone ? "keys" : "split");
    snprintf(first, sizeof first, "%s", gguf_split_save(&s, dir, "stories", 1));
    snprintf(second, sizeof second, "%s", gguf_split_path(dir, "stories", 2, 3));
    ids[0] = answer(NULL, weft_test_path(whole), &texts[0]);
    ids[1] = answer(NULL, first, &texts[1]);
    ids[2] = answer(NULL, second, &texts[2]);
    ids[3] = answer(two_stages(keys_alone ? second : first, ""), NULL, &texts[3]);
    for (int i = 1; i < 4; i++) {
        ck_assert_str_eq(ids[i], ids[0]);
        ck_assert_str_eq(texts[i], texts[0]);
    }
    for (int i = 0; i < 4; i++) {
        free(ids[i]);
        free(texts[i]);
    }
    gguf_split_done(&s);
}
END_TEST

/* inspect names all parts, its check reads all of them. */
START_TEST(split_inspected)
{
    const uint16_t nan = 0x7e00;
    struct gguf_split_files s;
    char words[256];
    gguf_split(DEMO, 3, true, &s);
    const char *path = gguf_split_save(&s, folder("inspect"), "m", 1);
    struct command c = ran(ARGS("inspect", "--check", path), NULL, NULL, 0);
    expect_words(c.out, "MiB in 3 parts\n  part 1      m-00001-of-00003.gguf, ");
    expect_words(c.out, ", 0 tensors\n  part 2      m-00002-of-00003.gguf, ");
    snprintf(words, sizeof words, ", %zu tensors\nname          weft-stories 4M\n",
             s.parts[2].n_tensors);
    expect_words(c.out, words);
    expect_words(c.out, "all            56    3.86 MiB\n");
    expect_words(c.out,
                 "checked       56 tensors, 3.86 MiB: no NaN, no infinity\nruns          yes");
    command_done(&c);
    c = ran(ARGS("inspect", "--json", path), NULL, NULL, 0);
    struct weft_yaml_doc *doc = NULL;
    ck_assert_int_eq(weft_yaml_open("json", c.out, c.out_size, &doc, NULL), 0);
    const char *value = weft_yaml_scalar(weft_yaml_find(doc, "parts[2].file"));
    ck_assert_msg(value != NULL && strcmp(value, "m-00003-of-00003.gguf") == 0, "%s", c.out);
    value = weft_yaml_scalar(weft_yaml_find(doc, "parts[0].tensors"));
    ck_assert_msg(value != NULL && strcmp(value, "0") == 0, "%s", c.out);
    weft_yaml_close(doc);
    command_done(&c);
    /* Damage in the last part, in the first block of its first matrix. */
    struct gguf_writer_tensor *t = NULL;
    for (size_t i = 0; i < s.parts[2].n_tensors && t == NULL; i++)
        if (s.parts[2].tensors[i].type == WEFT_Q8_0)
            t = &s.parts[2].tensors[i];
    ck_assert_ptr_nonnull(t);
    memcpy(t->data, &nan, sizeof nan);
    path = gguf_split_save(&s, folder("damaged"), "m", 1);
    c = ran(ARGS("inspect", "--check", path), NULL, NULL, 4);
    snprintf(words, sizeof words, "\n  %s row 0 block 0: d is NaN\n", t->name);
    expect_words(c.out, words);
    command_done(&c);
    gguf_split_done(&s);
}
END_TEST

START_TEST(split_errors)
{
    struct gguf_split_files s;
    char path[4300], words[4700];
    gguf_split(DEMO, 3, false, &s);
    snprintf(path, sizeof path, "%s", gguf_split_save(&s, folder("errors"), "m", 1));
    ck_assert_int_eq(unlink(gguf_split_path(folder("errors"), "m", 2, 3)), 0);
    snprintf(words, sizeof words,
             "weft: %s: part 1 of 3; missing beside it: m-00002-of-00003.gguf; download it from "
             "where this one came from\n",
             path);
    struct command c = ran(ARGS("run", "-m", path, "hi"), NULL, NULL, 4);
    ck_assert_str_eq(c.err, words);
    command_done(&c);
    c = ran(ARGS("inspect", path), NULL, NULL, 4);
    ck_assert_str_eq(c.err, words);
    command_done(&c);
    c = ran(ARGS("check", "-f", two_stages(path, "")), NULL, NULL, 4);
    ck_assert_str_eq(c.err, words);
    command_done(&c);
    gguf_split_done(&s);
}
END_TEST

/* ------------------------------------------------------------------ names */

START_TEST(names)
{
    char dir[4200], variable[4300], link_path[4300], full[4300];
    snprintf(dir, sizeof dir, "%s", folder("models"));
    snprintf(variable, sizeof variable, "WEFT_MODELS=/nowhere:%s", dir);
    snprintf(link_path, sizeof link_path, "%s/stories-q8_0.gguf", dir);
    const char *demo = realpath(weft_test_path(DEMO), full);
    ck_assert_ptr_nonnull(demo);
    (void)unlink(link_path);
    ck_assert_int_eq(symlink(demo, link_path), 0);
    const char *const env[] = {variable, NULL};
    struct command c = ran(ARGS("inspect", "stories-q8_0"), NULL, env, 0);
    expect_words(c.out, "/models/stories-q8_0.gguf: GGUF version 3");
    command_done(&c);
    c = ran(ARGS("eval", "-m", "stories-q8_0", "-t", "1", "-n", "1", "--ids=1,300"), NULL, env, 0);
    command_done(&c);
    c = ran(ARGS("run", "-m", "hf:weft/stories:stories-q8_0.gguf", "-n", "1", "-t1", "hi"), NULL,
            env, 0);
    command_done(&c);
    c = ran(ARGS("run", "-m", "storis-q8_0", "hi"), NULL, env, 4);
    expect_words(c.err, "weft: model 'storis-q8_0': no such file here, nor in /nowhere (no such "
                        "directory), ");
    expect_words(c.err, "; did you mean 'stories-q8_0.gguf'?\n");
    command_done(&c);
    /* What to type then is the command that was typed. */
    c = ran(ARGS("inspect", "hf:o/r:f.gguf"), NULL, env, 4);
    expect_words(c.err, "\n  into      /nowhere (mkdir -p it first)\n  then      weft inspect "
                        "f.gguf\n");
    command_done(&c);
    /* Names in a cluster file: beside it, then in the directories. */
    const char *yaml = temp_file("names.yaml",
                                 "model: stories-q8_0\n"
                                 "devices: [{name: a, address: a.local}]\n",
                                 59);
    c = ran(ARGS("check", "-f", yaml), NULL, env, 0);
    expect_words(c.out, "model weft-stories 4M of 6 layers: no errors");
    command_done(&c);
    c = ran(ARGS("check", "-f", yaml), NULL, ARGS("WEFT_MODELS=/nowhere"), 4);
    expect_words(c.err, "weft: model 'stories-q8_0': no such file beside the cluster file, nor in "
                        "/nowhere (no such directory)\n");
    command_done(&c);
    yaml =
        temp_file("hub.yaml", "model: hf:o/r:f.gguf\ndevices: [{name: a, address: a.local}]\n", 60);
    c = ran(ARGS("check", "-f", yaml), NULL, env, 4);
    expect_words(c.err, "  download  https://huggingface.co/o/r/resolve/main/f.gguf\n");
    expect_words(c.err, "  then      weft check -f ");
    command_done(&c);
}
END_TEST

/* ------------------------------------------------------------------ the context */

/* What is longer than the context is told with both numbers. */
START_TEST(context_errors)
{
    struct command c = ran(ARGS("run", "-m", DEMO, "-c", "1025", "hi"), NULL, NULL, 5);
    ck_assert_str_eq(c.err, "weft: context 1025: weft-stories 4M was made for 1024 positions at "
                            "most\n");
    command_done(&c);
    for (int shift = 0; shift < 2; shift++) {
        c = ran(ARGS("run", "-m", DEMO, "-c", "16", shift ? "--context-shift" : "--raw=no", FOX),
                NULL, NULL, 5);
        ck_assert_str_eq(c.err, "weft: the prompt has 18 tokens, the context 16 positions, one of "
                                "them for the answer: shorten the prompt or raise -c\n");
        command_done(&c);
        /* One turn alone fills it: nothing may go. */
        c = ran(ARGS("run", "-m", DEMO, "-c", "64", "-t", "1", "--temp", "0",
                     shift ? "--context-shift" : "--raw=no", FOX),
                NULL, NULL, 0);
        expect_words(c.err, "weft: the context of 64 positions is full: the answer was cut; raise "
                            "-c\n");
        command_done(&c);
    }
    c = ran(ARGS("run", "-m", DEMO, "-c", "64", "-t1", "--json", FOX), NULL, NULL, 0);
    expect_words(c.out, "\"finish\": \"context\"");
    command_done(&c);
    /* -n that just fits is reached, not cut. */
    c = ran(ARGS("run", "-m", DEMO, "-c", "64", "-n", "46", "-t1", "--json", FOX), NULL, NULL, 0);
    expect_words(c.out, "\"finish\": \"length\"");
    command_done(&c);
    c = ran(ARGS("chat", "-m", DEMO, "-c", "64", "-t", "1", "--temp", "0"),
            FOX "\n" DUCK "\n/reset\n" BEAR "\n", NULL, 0);
    expect_words(c.err, "(the context of 64 positions is full: /reset starts anew, --context-shift "
                        "drops old turns)\n");
    expect_words(c.err, "weft: the prompt has 82 tokens, the context 64 positions");
    expect_words(c.err, "(a shorter line, /reset, which forgets what was said, or --context-shift "
                        "may do)\n(forgotten)\n");
    command_done(&c);
}
END_TEST

struct words {
    struct weft_model_file file;
    struct weft_tokenizer *tokenizer;
    struct weft_template *template;
};

static void words_open(struct words *w)
{
    weft_err err = {0};
    *w = (struct words){0};
    int r = weft_model_file_open(weft_test_path(DEMO), &w->file, &err);
    if (r == 0)
        r = weft_tokenizer_open(&w->file.gguf, &w->tokenizer, &err);
    if (r == 0)
        r = weft_template_open_gguf(&w->file.gguf, &w->template, &err);
    ck_assert_msg(r == 0, "%s", err.text);
}

static void words_close(struct words *w)
{
    weft_template_close(w->template);
    weft_tokenizer_close(w->tokenizer);
    weft_model_file_close(&w->file);
}

struct ids {
    int32_t list[IDS_MAX];
    size_t n;
};

static void add(struct ids *to, const int32_t *list, size_t n)
{
    ck_assert_uint_le(to->n + n, IDS_MAX);
    memcpy(to->list + to->n, list, n * sizeof *list);
    to->n += n;
}

/* The tokens of a conversation in which user and assistant take turns. */
static struct ids talk(const struct words *w, const char *const *said, size_t n)
{
    struct weft_message messages[8];
    struct ids out = {.n = 0};
    int32_t *list = NULL;
    size_t n_list = 0;
    ck_assert_uint_le(n, 8);
    for (size_t i = 0; i < n; i++)
        messages[i] = (struct weft_message){.role = i % 2 == 0 ? "user" : "assistant",
                                            .content = said[i],
                                            .content_size = strlen(said[i])};
    ck_assert_int_eq(
        weft_template_encode(w->template, w->tokenizer, messages, n, true, &list, &n_list, NULL),
        0);
    add(&out, list, n_list);
    free(list);
    return out;
}

/* The ids of a JSON list called "tokens" or "greedy…" behind `key`. */
static struct ids ids_of(const char *json, const char *key)
{
    struct ids out = {.n = 0};
    const char *at = strstr(json, key);
    ck_assert_msg(at != NULL, "%s: no %s", json, key);
    at = strchr(at, '[') + 1;
    while (*at != ']') {
        char *end;
        const int32_t id = (int32_t)strtol(at, &end, 10);
        ck_assert_msg(end != at, "%s", json);
        add(&out, &id, 1);
        at = end + strspn(end, ", ");
    }
    return out;
}

/* What the model says behind ids, n tokens at most, by a command that knows of no conversation. */
static struct ids greedy(const struct ids *ids, size_t n)
{
    struct weft_str list = {0};
    char count[24];
    for (size_t i = 0; i < ids->n; i++)
        weft_str_addf(&list, "%s%d", i > 0 ? "," : "", ids->list[i]);
    snprintf(count, sizeof count, "%zu", n);
    struct command c =
        ran(ARGS("eval", "-m", DEMO, "-t", "1", "-n", count, "--ids", list.data), NULL, NULL, 0);
    struct ids out = ids_of(c.out, "\"greedy\"");
    command_done(&c);
    weft_str_done(&list);
    return out;
}

/* Raw text has no turns: a BOS and the younger half of the tokens stay, over and over. */
START_TEST(shift_raw)
{
    struct words w;
    struct ids all = {.n = 0};
    int32_t *list = NULL;
    size_t n_list = 0;
    words_open(&w);
    struct command c = ran(ARGS("run", "-m", DEMO, "-t", "1", "-c", "32", "-n", "80", "--temp", "0",
                                "--context-shift", "--raw", "--json", "Once upon a time"),
                           NULL, NULL, 0);
    const struct ids found = ids_of(c.out, "\"tokens\"");
    expect_words(c.err, "(the context of 32 positions is full: dropped the older half, 16 tokens "
                        "are left)\n");
    ck_assert_uint_gt(found.n, 60); /* several shifts */
    command_done(&c);
    ck_assert_int_eq(weft_tokenizer_encode(w.tokenizer, "Once upon a time", 16, WEFT_ENCODE_BOS,
                                           &list, &n_list, NULL),
                     0);
    add(&all, list, n_list);
    free(list);
    ck_assert_int_eq(all.list[0], weft_tokenizer_bos(w.tokenizer));
    for (size_t at = 0; at < found.n;) {
        const size_t left = found.n - at, room = 32 - all.n;
        const struct ids next = greedy(&all, left < room ? left : room);
        ck_assert_mem_eq(next.list, found.list + at, next.n * sizeof next.list[0]);
        ck_assert(next.n == room || next.n == left);
        at += next.n;
        add(&all, next.list, next.n);
        const size_t gone = all.n / 2; /* of those behind the BOS, rounded up */
        memmove(all.list + 1, all.list + 1 + gone, (all.n - 1 - gone) * sizeof all.list[0]);
        all.n -= gone;
    }
    words_close(&w);
}
END_TEST

static char *line_of(const char *text, int number)
{
    for (; number > 0; number--)
        text = strchr(text, '\n') + 1;
    char *copy = strndup(text, strcspn(text, "\n"));
    ck_assert_ptr_nonnull(copy);
    return copy;
}

static void expect_text(const struct words *w, int32_t before, const struct ids *ids,
                        const char *expected)
{
    struct weft_detok d;
    struct weft_str text = {0};
    weft_detok_init(&d, w->tokenizer, before);
    for (size_t i = 0; i < ids->n && !weft_tokenizer_is_stop(w->tokenizer, ids->list[i]); i++)
        ck_assert_int_eq(weft_detok_push(&d, ids->list[i], &text, NULL), 0);
    weft_detok_finish(&d, &text);
    ck_assert_str_eq(text.data != NULL ? text.data : "", expected);
    weft_str_done(&text);
}

/* In the midst of the third answer the first turn goes; the answer goes on behind what is kept.
 * Alone and through two daemons. */
START_TEST(shift_in_an_answer)
{
    static const char input[] = FOX "\n" DUCK "\n" BEAR "\n";
    static const char shifted[] =
        "(the context of 300 positions is full: dropped the oldest turn, ";
    struct words w;
    words_open(&w);
    struct command c = ran(ARGS("chat", "-m", DEMO, "-t", "1", "-c", "300", "--temp", "0"), input,
                           ARGS("WEFT_CONTEXT_SHIFT=yes"), 0);
    expect_words(c.err, shifted);
    char *first = line_of(c.out, 0), *second = line_of(c.out, 1), *third = line_of(c.out, 2);
    struct command d = ran(
        ARGS("chat", "-f", two_stages(weft_test_path(DEMO), "context_shift: yes\n"), "-c", "300"),
        input, NULL, 0);
    ck_assert_str_eq(d.out, c.out);
    expect_words(d.err, shifted);
    command_done(&d);
    /* The option wins over the file. */
    d = ran(ARGS("chat", "-f", two_stages(weft_test_path(DEMO), "context_shift: yes\n"), "-c",
                 "300", "--context-shift=no"),
            input, NULL, 0);
    ck_assert_ptr_null(strstr(d.err, "dropped"));
    expect_words(d.err, "(the context of 300 positions is full: /reset starts anew");
    command_done(&d);

    const char *const said[] = {FOX, first, DUCK, second, BEAR};
    struct ids whole = talk(&w, said, 5), kept = talk(&w, said + 2, 3);
    ck_assert_uint_lt(whole.n, 300);
    struct ids text = greedy(&whole, 300 - whole.n);
    ck_assert_uint_eq(text.n, 300 - whole.n); /* it was cut there */
    add(&kept, text.list, text.n);
    const struct ids rest = greedy(&kept, 300 - kept.n);
    add(&text, rest.list, rest.n);
    expect_text(&w, whole.list[whole.n - 1], &text, third);
    free(first);
    free(second);
    free(third);
    command_done(&c);
    words_close(&w);
}
END_TEST

/* What is said makes the prompt too long: the oldest turn goes first, the system prompt stays, and
 * the answer is that of a conversation which never had the turn. */
START_TEST(shift_before_an_answer)
{
    struct command c =
        ran(ARGS("chat", "-m", DEMO, "-t", "1", "-c", "120", "--temp", "0", "--context-shift"),
            FOX "\n" DUCK "\n", NULL, 0);
    expect_words(c.err, "(the context of 120 positions is full: dropped the oldest turn, 18 tokens "
                        "are left)\n");
    char *second = line_of(c.out, 1);
    command_done(&c);
    c = ran(ARGS("run", "-m", DEMO, "-t", "1", "-c", "120", "--temp", "0", DUCK), NULL, NULL, 0);
    char *alone = line_of(c.out, 0);
    ck_assert_str_eq(second, alone);
    free(second);
    free(alone);
    command_done(&c);
    /* A line too long by itself is refused, and nothing of the history is lost by it. */
    struct weft_str input = {0};
    weft_str_adds(&input, FOX "\n");
    for (int i = 0; i < 20; i++)
        weft_str_adds(&input, FOX " ");
    weft_str_adds(&input, "\n/quit\n");
    c = ran(ARGS("chat", "-m", DEMO, "-t", "1", "-c", "120", "--temp", "0", "--context-shift"),
            input.data, NULL, 0);
    ck_assert_ptr_null(strstr(c.err, "dropped"));
    expect_words(c.err, " tokens, the context 120 positions, one of them for the answer: ");
    expect_words(c.err, "(a shorter line may do)\n");
    command_done(&c);
    weft_str_done(&input);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("files");
    TCase *t = tcase_create("files");
    const char *root = getenv("WEFT_SOURCE_DIR");
    if (root != NULL && chdir(root) != 0) /* so that messages hold short paths */
        return 1;
    tcase_add_unchecked_fixture(t, start_daemons, stop_daemons);
    tcase_set_timeout(t, 300);
    tcase_add_loop_test(t, split_answers, 0, 2);
    tcase_add_test(t, split_inspected);
    tcase_add_test(t, split_errors);
    tcase_add_test(t, names);
    tcase_add_test(t, context_errors);
    tcase_add_test(t, shift_raw);
    tcase_add_test(t, shift_in_an_answer);
    tcase_add_test(t, shift_before_an_answer);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
