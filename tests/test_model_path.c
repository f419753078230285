/*
 * Names of models: where they are looked for, what is said when there is none, and names of a hub.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "coordinator/model_path.h"
#include "tests/harness.h"

static char root[4200]; /* a working directory of the test's own */
static const char *models, *data_home, *home;

static const char *env(const char *name)
{
    return strcmp(name, "WEFT_MODELS") == 0     ? models
           : strcmp(name, "XDG_DATA_HOME") == 0 ? data_home
           : strcmp(name, "HOME") == 0          ? home
                                                : NULL;
}

/* Paths are relative to the working directory. */
static void make_dir(const char *path)
{
    ck_assert_msg(mkdir(path, 0700) == 0, "%s", path);
}

static void make_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    ck_assert_msg(fd >= 0, "%s", path);
    close(fd);
}

static void setup(void)
{
    static unsigned next;
    snprintf(root, sizeof root, "%s/%d-%u", weft_test_tmpdir(), (int)getpid(), next++);
    make_dir(root);
    ck_assert_int_eq(chdir(root), 0);
    models = "a:b";
    data_home = home = NULL;
    make_dir("a");
    make_dir("b");
}

static int resolve(const char *name, const char *path, char **ret, weft_err *err)
{
    const struct weft_model_name n = {name, path, "weft run -m"};
    return weft_model_path(&n, env, ret, err);
}

static void expect_path(const char *name, const char *expected)
{
    char *path = NULL;
    weft_err err = {0};
    ck_assert_msg(resolve(name, name, &path, &err) == 0, "%s", err.text);
    ck_assert_str_eq(path, expected);
    free(path);
}

static void expect_error(const char *name, const char *text)
{
    char *path = NULL;
    weft_err err = {0};
    ck_assert_int_eq(resolve(name, name, &path, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, text);
    ck_assert_ptr_null(path);
    ck_assert_int_eq(resolve(name, name, &path, NULL), -WEFT_EMODEL);
}

START_TEST(searched)
{
    make_file("here.gguf");
    make_file("a/one.gguf");
    make_file("b/one.gguf");
    make_file("b/two.gguf");
    make_file("b/plain");
    make_file("b/here.gguf");
    make_dir("a/two.gguf"); /* no file */
    expect_path("here.gguf", "here.gguf");
    expect_path("one", "a/one.gguf");
    expect_path("one.gguf", "a/one.gguf");
    expect_path("two", "b/two.gguf");
    expect_path("plain", "b/plain");
    make_dir("one"); /* a directory here is no model either */
    expect_path("one", "a/one.gguf");
    expect_path("here", "b/here.gguf"); /* only whole names count here */
    models = ":b::a:";                  /* empty ones are nothing */
    expect_path("one", "b/one.gguf");
    /* With a slash it is a path, there or not. */
    expect_path("./x.gguf", "./x.gguf");
    expect_path("/nowhere/x.gguf", "/nowhere/x.gguf");
}
END_TEST

/* A name of a cluster file is looked for beside it first. */
START_TEST(of_a_cluster_file)
{
    char *path = NULL;
    weft_err err = {0};
    make_dir("conf");
    make_file("b/m.gguf");
    make_file("m.gguf"); /* here, where the file is not */
    ck_assert_int_eq(resolve("m.gguf", "conf/m.gguf", &path, NULL), 0);
    ck_assert_str_eq(path, "b/m.gguf");
    free(path);
    make_file("conf/m.gguf");
    ck_assert_int_eq(resolve("m.gguf", "conf/m.gguf", &path, NULL), 0);
    ck_assert_str_eq(path, "conf/m.gguf");
    free(path);
    ck_assert_int_eq(resolve("sub/m.gguf", "conf/sub/m.gguf", &path, NULL), 0);
    ck_assert_str_eq(path, "conf/sub/m.gguf");
    free(path);
    ck_assert_int_eq(resolve("zzz", "conf/zzz", &path, &err), -WEFT_EMODEL);
    ck_assert_str_eq(err.text, "model 'zzz': no such file beside the cluster file, nor in a, b; "
                               "there are 'm.gguf'");
}
END_TEST

START_TEST(similar_names)
{
    models = "a:b:c";
    expect_error("x", "model 'x': no such file here, nor in a, b, c (no such directory)");
    expect_error("a", "model 'a': a directory, no file here, nor in a, b, c (no such directory)");
    make_file("a/TinyLlama-1.1b-q4_0.gguf");
    make_file("b/qwen3-0.6b-q8_0.gguf");
    make_file("b/qwen3-8b-00001-of-00002.gguf");
    make_file("b/qwen3-8b-00002-of-00002.gguf");
    make_file("b/notes.txt");
    expect_error("tinyllama", "model 'tinyllama': no such file here, nor in a, b, c (no such "
                              "directory); did you mean 'TinyLlama-1.1b-q4_0.gguf'?");
    expect_error("qwen3.gguf",
                 "model 'qwen3.gguf': no such file here, nor in a, b, c (no such directory); did "
                 "you mean 'qwen3-0.6b-q8_0.gguf', 'qwen3-8b-00001-of-00002.gguf'?");
    expect_error("qwen3-0.6b-q8_1", "model 'qwen3-0.6b-q8_1': no such file here, nor in a, b, c "
                                    "(no such directory); did you mean 'qwen3-0.6b-q8_0.gguf'?");
    /* Nothing like it: what there is. */
    make_file("a/a1.gguf");
    make_file("a/a2.gguf");
    make_file("a/a3.gguf");
    make_file("a/a4.gguf");
    expect_error("mis\x1btral", "model 'mis?tral': no such file here, nor in a, b, c (no such "
                                "directory); there are 'TinyLlama-1.1b-q4_0.gguf', 'a1.gguf', "
                                "'a2.gguf', 'a3.gguf', 'a4.gguf' and 2 more");
}
END_TEST

START_TEST(usual_directories)
{
    char expected[8600];
    char *path = NULL;
    weft_err err = {0};
    models = ""; /* as good as none */
    home = root;
    make_dir(".local");
    make_dir(".local/share");
    make_dir(".local/share/weft");
    make_dir(".local/share/weft/models");
    make_file(".local/share/weft/models/m.gguf");
    snprintf(expected, sizeof expected, "%s/.local/share/weft/models/m.gguf", root);
    expect_path("m", expected);
    data_home = "relative"; /* is to be ignored */
    expect_path("m", expected);
    char other[4300];
    snprintf(other, sizeof other, "%s/data", root);
    data_home = other;
    ck_assert_int_eq(resolve("m", "m", &path, &err), -WEFT_EMODEL);
    snprintf(expected, sizeof expected,
             "model 'm': no such file here, nor in %s/weft/models (no such directory)", other);
    ck_assert_msg(strncmp(err.text, expected, strlen(expected)) == 0, "%s", err.text);
    /* Nothing is known at all: what would help is named. */
    data_home = home = NULL;
    if (access("/var/lib/weft/models", F_OK) != 0 && access("/usr/share/weft/models", F_OK) != 0)
        expect_error("m", "model 'm': no such file here; WEFT_MODELS may name directories of "
                          "models");
}
END_TEST

START_TEST(too_many_directories)
{
    char *path = NULL;
    weft_err err = {0};
    models = "1:2:3:4:5:6:7:8:9:10:11:12:13:14:15:16:17:18:19:20:21:22:23:24:25:26:27:28:29:30:31:"
             "32:33";
    ck_assert_int_eq(resolve("m", "m", &path, &err), -WEFT_ECONFIG);
    ck_assert_str_eq(err.text, "WEFT_MODELS: found more than 32 directories");
}
END_TEST

/* ------------------------------------------------------------------ hf: */

START_TEST(hub_told)
{
    expect_error("hf:TheBloke/Tiny-GGUF:tiny.Q4_0.gguf",
                 "hf:TheBloke/Tiny-GGUF:tiny.Q4_0.gguf is not on this machine, and weft downloads "
                 "nothing:\n"
                 "  download  "
                 "https://huggingface.co/TheBloke/Tiny-GGUF/resolve/main/tiny.Q4_0.gguf\n"
                 "  into      a\n"
                 "  then      weft run -m tiny.Q4_0.gguf");
    models = "new";
    expect_error("hf:o/r:Q8/big (1)-00002-of-00003.gguf",
                 "hf:o/r:Q8/big (1)-00002-of-00003.gguf is not on this machine, and weft downloads "
                 "nothing:\n"
                 "  download  https://huggingface.co/o/r/resolve/main/Q8/"
                 "big%20%281%29-00002-of-00003.gguf\n"
                 "            and all other parts, to big (1)-00003-of-00003.gguf\n"
                 "  into      new (mkdir -p it first)\n"
                 "  then      weft run -m 'big (1)-00002-of-00003.gguf'");
}
END_TEST

START_TEST(hub_found)
{
    make_dir("b/o");
    make_dir("b/o/r");
    make_dir("b/o/r/sub");
    make_file("b/x.gguf");
    expect_path("hf:o/r:sub/x.gguf", "b/x.gguf");
    make_dir("b/sub");
    make_file("b/sub/x.gguf");
    expect_path("hf:o/r:sub/x.gguf", "b/sub/x.gguf");
    make_file("b/o/r/sub/x.gguf");
    expect_path("hf:o/r:sub/x.gguf", "b/o/r/sub/x.gguf");
    expect_path("hf:o/r:x.gguf", "b/x.gguf");
}
END_TEST

START_TEST(hub_malformed)
{
    static const char *const names[] = {
        "hf:",
        "hf:o:f.gguf",
        "hf:o/r/s:f.gguf",
        "hf:/r:f.gguf",
        "hf:o/:f.gguf",
        "hf:o/..:f.gguf",
        "hf:o/r:../f.gguf",
        "hf:o/r:a/../f.gguf",
        "hf:o/r:./f.gguf",
        "hf:o/r:/etc/f.gguf",
        "hf:o/r:a//f.gguf",
        "hf:o/r:f'.gguf",
        "hf:o/r:f\n.gguf",
        "hf:o p/r:f.gguf",
        "hf:o/r:f:g.gguf",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *path = NULL;
        weft_err err = {0};
        ck_assert_int_eq(resolve(names[i], names[i], &path, &err), -WEFT_EMODEL);
        ck_assert_msg(strstr(err.text, ": expected hf:OWNER/REPO:FILE.gguf") != NULL, "%s",
                      err.text);
        ck_assert_ptr_null(strchr(err.text, '\n'));
    }
    expect_error("hf:o/r", "model 'hf:o/r': it names no file, expected hf:o/r:FILE.gguf; the files "
                           "are listed at https://huggingface.co/o/r/tree/main");
    expect_error("hf:o/r:Q4_K_M",
                 "model 'hf:o/r:Q4_K_M': the file is no .gguf, expected hf:o/r:FILE.gguf; the "
                 "files are listed at https://huggingface.co/o/r/tree/main");
    char *path = NULL, name[600] = "hf:o/r:";
    weft_err err = {0};
    memset(name + 7, 'x', sizeof name - 8);
    name[sizeof name - 1] = '\0';
    ck_assert_int_eq(resolve(name, name, &path, &err), -WEFT_EMODEL);
    ck_assert_msg(strstr(err.text, ": more than 400 bytes") != NULL, "%s", err.text);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("model_path");
    TCase *t = tcase_create("names");
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_add_test(t, searched);
    tcase_add_test(t, of_a_cluster_file);
    tcase_add_test(t, similar_names);
    tcase_add_test(t, usual_directories);
    tcase_add_test(t, too_many_directories);
    tcase_add_test(t, hub_told);
    tcase_add_test(t, hub_found);
    tcase_add_test(t, hub_malformed);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
