/*
 * What goes wrong between real processes: each case with its exit code and the words a person
 * needs.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/damaged_model.h"
#include "tests/harness.h"
#include "tests/procs.h"

#define STAGES "stages:\n  - {device: a, layers: 0-2}\n  - {device: b, layers: 3-5}\n"
#define PROMPT "What is two plus three?"
#define ANSWER "Two plus three is five.\n"

static struct daemon_proc daemons[2];
static char demo[4200], cluster[4400];

static void start_daemons(void)
{
    snprintf(demo, sizeof demo, "%s", weft_test_path("configs/demo/weft-stories-q8_0.gguf"));
    daemon_start(&daemons[0], "a", NULL, NULL);
    daemon_start(&daemons[1], "b", NULL, NULL);
    const char *path = cluster_yaml(demo, daemons, 2, STAGES);
    snprintf(cluster, sizeof cluster, "%.4000s.kept", path); /* later ones must not replace it */
    ck_assert(rename(path, cluster) == 0);
}

static void stop_daemons(void)
{
    int bad = daemon_stop(&daemons[0]) | daemon_stop(&daemons[1]);
    ck_assert_msg(bad == 0, "a daemon did not end well");
}

static void expect(const char *const argv[], int status, const char *words)
{
    struct command c;
    command_run(&c, argv, NULL, NULL);
    ck_assert_msg(c.status == status, "exit %d, expected %d: %s", c.status, status, c.err);
    ck_assert_msg(strstr(c.err, words) != NULL, "found '%s', expected '%s' in it", c.err, words);
    command_done(&c);
}

/* The daemons are free and answer as ever. */
static void expect_answer(void)
{
    struct command c;
    const char *argv[] = {"run", "-f", cluster, PROMPT, NULL};
    command_run(&c, argv, NULL, NULL);
    ck_assert_msg(c.status == 0, "exit %d: %s", c.status, c.err);
    ck_assert_str_eq(c.out, ANSWER);
    command_done(&c);
}

static void sleep_ms(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}

/* ------------------------------------------------------------------ devices */

static unsigned bound_socket(int *ret_fd)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof addr;
    *ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert(*ret_fd >= 0 && bind(*ret_fd, (struct sockaddr *)&addr, size) == 0);
    ck_assert(getsockname(*ret_fd, (struct sockaddr *)&addr, &size) == 0);
    return ntohs(addr.sin_port);
}

/* A cluster file of `a` and a device x at a port. */
static const char *with_stranger(unsigned port)
{
    struct daemon_proc d[2] = {daemons[0], {.name = "x", .port = port}};
    return cluster_yaml(demo, d, 2,
                        "stages:\n  - {device: a, layers: 0-2}\n  - {device: x, layers: 3-5}\n");
}

START_TEST(no_daemon)
{
    int fd;
    unsigned port = bound_socket(&fd); /* bound, not listening: refused for sure */
    char words[64];
    snprintf(words, sizeof words, "127.0.0.1:%u: connection refused", port);
    expect((const char *[]){"run", "-f", with_stranger(port), PROMPT, NULL}, 6, words);
    expect((const char *[]){"status", "-f", with_stranger(port), NULL}, 6, "");
    close(fd);
}
END_TEST

static void *speak_http(void *arg)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    int fd = accept(*(int *)arg, NULL, NULL);
    char buffer[256];
    if (fd >= 0 && recv(fd, buffer, sizeof buffer, 0) > 0 &&
        send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) > 0)
        (void)!recv(fd, buffer, sizeof buffer, 0);
    close(fd);
    return NULL;
}

START_TEST(something_else)
{
    int fd;
    pthread_t thread;
    unsigned port = bound_socket(&fd);
    ck_assert(listen(fd, 1) == 0);
    ck_assert(pthread_create(&thread, NULL, speak_http, &fd) == 0);
    expect((const char *[]){"run", "-f", with_stranger(port), PROMPT, NULL}, 7, "HTTP");
    close(fd);
    pthread_join(thread, NULL);
}
END_TEST

/* Silence is given up too. */
START_TEST(silent_port)
{
    int fd;
    unsigned port = bound_socket(&fd);
    ck_assert(listen(fd, 1) == 0);
    expect((const char *[]){"run", "-f", with_stranger(port), PROMPT, NULL}, 6, "x");
    close(fd);
}
END_TEST

START_TEST(second_coordinator)
{
    int in, out;
    char err[4200];
    const char *hold[] = {"chat", "-f", cluster, NULL};
    pid_t pid = command_start(hold, &in, &out, err);
    bool held = false;
    for (int i = 0; i < 200 && !held; i++) {
        struct command c;
        command_run(&c, (const char *[]){"status", "-f", cluster, NULL}, NULL, NULL);
        held = strstr(c.out, "held by") != NULL;
        command_done(&c);
    }
    ck_assert(held);
    expect((const char *[]){"run", "-f", cluster, PROMPT, NULL}, 7, "held by");
    close(in); /* the end of its input ends the chat */
    ck_assert_int_eq(command_wait(pid, 20000), 0);
    close(out);
    expect_answer();
}
END_TEST

/* ------------------------------------------------------------------ interrupts and readers */

/* From before the first connection to the middle of a long evaluation. */
START_TEST(interrupt)
{
    int in, out;
    char err[4200], path[4200];
    char *text = malloc(600000);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < 600000; i++)
        text[i] = "The fox had a lantern. "[i % 23];
    snprintf(path, sizeof path, "%s", temp_file("long.txt", text, 600000));
    free(text);
    const char *argv[] = {"eval", "-f", cluster, "--file", path, NULL};
    pid_t pid = command_start(argv, &in, &out, err);
    sleep_ms(1u << _i);
    kill(pid, SIGINT);
    int status = command_wait(pid, 20000);
    close(in);
    close(out);
    /* Before its handler is there, the signal itself ends the process: the same code. */
    ck_assert_msg(status == 130, "exit %d", status);
    expect_answer();
}
END_TEST

/* Waits for the answer to begin; what the command said if it did not. */
static void expect_first_byte(int out, const char *err_path)
{
    char byte, text[4096] = "";
    if (read(out, &byte, 1) == 1)
        return;
    FILE *f = fopen(err_path, "r");
    if (f != NULL) {
        text[fread(text, 1, sizeof text - 1, f)] = '\0';
        fclose(f);
    }
    ck_abort_msg("no answer: %s", text);
}

START_TEST(reader_leaves)
{
    int in, out;
    char err[4200];
    const char *argv[] = {"run", "-f", cluster, "Tell me a story about an owl.", NULL};
    pid_t pid = command_start(argv, &in, &out, err);
    expect_first_byte(out, err);
    close(out);
    close(in);
    int status = command_wait(pid, 20000);
    ck_assert_msg(status == 1 || status == 0, "exit %d", status);
    expect_answer();
}
END_TEST

START_TEST(full_disk)
{
    struct command c;
    const char *argv[] = {"eval", "-m", demo, "--ids", "1,300,5", "--logits", "/dev/full", NULL};
    command_run(&c, argv, NULL, NULL);
    ck_assert_int_eq(c.status, 1);
    ck_assert_ptr_nonnull(strstr(c.err, "No space left on device"));
    command_done(&c);
}
END_TEST

START_TEST(killed_daemon)
{
    struct daemon_proc c;
    int in, out;
    char err_path[4200], err[8192];
    daemon_start(&c, "c", NULL, NULL);
    struct daemon_proc d[2] = {daemons[0], c};
    const char *file = cluster_yaml(
        demo, d, 2, "stages:\n  - {device: a, layers: 0-2}\n  - {device: c, layers: 3-5}\n");
    const char *argv[] = {"run",    "-f", file, "--raw", "-n", "900", "Once upon a time",
                          "--temp", "3",  NULL};
    pid_t pid = command_start(argv, &in, &out, err_path);
    expect_first_byte(out, err_path);
    kill(c.pid, SIGKILL);
    (void)command_wait(c.pid, 10000);
    int status = command_wait(pid, 20000);
    close(in);
    close(out);
    FILE *f = fopen(err_path, "r");
    ck_assert_ptr_nonnull(f);
    err[fread(err, 1, sizeof err - 1, f)] = '\0';
    fclose(f);
    ck_assert_msg(status == 6 && strstr(err, "c") != NULL, "exit %d: %s", status, err);
    expect_answer();
}
END_TEST

/* One daemon under two addresses would be given two shares. */
START_TEST(listed_twice)
{
    char text[6000];
    int n = snprintf(text, sizeof text,
                     "model: %s\ndevices:\n  - {name: a, address: '127.0.0.1:%u'}\n"
                     "  - {name: again, address: 'localhost:%u'}\nstages:\n"
                     "  - {device: a, layers: 0-2}\n  - {device: again, layers: 3-5}\n",
                     demo, daemons[0].port, daemons[0].port);
    char path[4200];
    snprintf(path, sizeof path, "%s", temp_file("twice.yaml", text, (size_t)n));
    expect((const char *[]){"run", "-f", path, PROMPT, NULL}, 3, "list it once");
    expect_answer();
}
END_TEST

/* Before anything is started, while the prompt is being typed, Ctrl-C ends weft as well. */
START_TEST(interrupt_while_reading)
{
    int in, out;
    char err_path[4200];
    const char *argv[] = {"run", "-f", cluster, "-", NULL};
    pid_t pid = command_start(argv, &in, &out, err_path);
    sleep_ms(_i * 50); /* perhaps before, perhaps after it began to read: the end is the same */
    kill(pid, SIGINT);
    int status = command_wait(pid, 20000);
    close(in);
    close(out);
    /* 128 + SIGINT by the signal itself, if it came before main. */
    ck_assert_msg(status == 130, "exit %d", status);
}
END_TEST

/* ------------------------------------------------------------------ models, prompts, memory */

START_TEST(bad_models)
{
    size_t size;
    uint8_t *data = weft_test_read("configs/demo/weft-stories-q8_0.gguf", &size);
    ck_assert_ptr_nonnull(data);
    char path[4200];
    snprintf(path, sizeof path, "%s", temp_file("cut.gguf", data, size / 2));
    expect((const char *[]){"run", "-m", path, PROMPT, NULL}, 4, "truncated");
    snprintf(path, sizeof path, "%s", temp_file("text.gguf", "hello", 5));
    expect((const char *[]){"run", "-m", path, PROMPT, NULL}, 4, "GGUF");
    expect((const char *[]){"run", "-m", "/nonexistent.gguf", PROMPT, NULL}, 4, "No such file");
    free(data);
    const char *other = weft_test_path("../shared/vocab/ggml-vocab-falcon.gguf");
    if (other != NULL) {
        snprintf(path, sizeof path, "%s", other);
        expect((const char *[]){"run", "-m", path, PROMPT, NULL}, 4, "supported are: llama");
    }
}
END_TEST

START_TEST(prompts)
{
    char text[20000], bad[4200];
    for (size_t i = 0; i + 1 < sizeof text; i++)
        text[i] = i % 6 == 5 ? ' ' : 'z';
    text[sizeof text - 1] = '\0';
    char path[4200];
    snprintf(path, sizeof path, "%s", temp_file("long.txt", text, strlen(text)));
    expect((const char *[]){"run", "-m", demo, "--prompt-file", path, NULL}, 5,
           "the context 1024 positions");
    snprintf(bad, sizeof bad, "%s", temp_file("bad.txt", "ab\xff", 3));
    expect((const char *[]){"run", "-m", demo, "--prompt-file", bad, NULL}, 2, "byte 2 is 0xff");
    expect((const char *[]){"run", "-m", demo, "", NULL}, 2, "empty");
    expect((const char *[]){"run", "-m", demo, "-c", "2048", PROMPT, NULL}, 5, "1024");
    expect((const char *[]){"eval", "-m", demo, "--ids", "1,5000", NULL}, 2, "vocabulary");
    expect((const char *[]){"run", "-f", cluster, "-t", "2", PROMPT, NULL}, 2, "-t");
}
END_TEST

START_TEST(does_not_fit)
{
    struct daemon_proc small;
    daemon_start(&small, "small", NULL, "memory: 3MiB\n");
    const char *file = cluster_yaml(demo, &small, 1, NULL);
    struct command c;
    command_run(&c, (const char *[]){"run", "-f", file, PROMPT, NULL}, NULL, NULL);
    ck_assert_msg(c.status == 5, "exit %d: %s", c.status, c.err);
    ck_assert_ptr_nonnull(strstr(c.err, "does not fit"));
    ck_assert_ptr_nonnull(strstr(c.err, "small"));
    command_done(&c);
    ck_assert_int_eq(daemon_stop(&small), 0);
}
END_TEST

/* ------------------------------------------------------------------ weights */

#define UNTIED "tests/golden/llama-256-q8_0.gguf"
#define TIED "configs/demo/weft-stories-q8_0.gguf"

static const struct {
    const char *model;
    struct damage damage;
    const char *words;
} hostile[] = {
    {TIED, {"blk.0.ffn_down.weight", .bits = 0x7e00}, "local: layer 0, FFN: "},
    {TIED, {"blk.4.ffn_gate.weight", .bits = 0x7c00}, "local: layer 4, FFN: "},
    {TIED, {"blk.4.ffn_norm.weight", .offset = 2, .bits = 0x7fc0}, "local: layer 4, FFN: "},
    {TIED, {"blk.2.attn_q.weight", .bits = 0x7e00}, "local: layer 2, attention: "},
    {TIED, {"blk.1.attn_k.weight", .bits = 0xfc00}, "local: layer 1, attention: "},
    {TIED, {"blk.5.attn_v.weight", .bits = 0x7e00}, "local: layer 5, attention: "},
    {TIED, {"token_embd.weight", .bits = 0x7e00}, "local: logit "},
    {UNTIED, {"output.weight", .bits = 0x7e00}, "local: logit "},
    {UNTIED, {"output.weight", .offset = 34 * 8 * 1023, .bits = 0x7e00}, "local: logit "},
    {UNTIED, {"output_norm.weight", .offset = 2, .bits = 0x7fc0}, "local: logit "},
    /* every row, so that a token of the prompt has one */
    {UNTIED,
     {"token_embd.weight", .step = 34 * 8, .n = 1024, .bits = 0x7e00},
     "local: layer 0, attention: "},
};
#define HOSTILE ((int)(sizeof hostile / sizeof hostile[0]))

/* NaN or infinity in a scale ends the answer by name, with the fastest kernels and with ref. */
START_TEST(hostile_weights)
{
    const char *path = damaged_model(hostile[_i].model, &hostile[_i].damage);
    static const char *const envs[2][2] = {{NULL}, {"WEFT_ISA=ref", NULL}};
    for (size_t k = 0; k < 2; k++) {
        struct command c;
        command_run(&c, (const char *[]){"run", "-m", path, "-t", "1", "-n", "4", PROMPT, NULL},
                    NULL, envs[k]);
        ck_assert_msg(c.status == 4, "exit %d: %s", c.status, c.err);
        ck_assert_msg(strstr(c.err, hostile[_i].words) != NULL, "found '%s', expected '%s' in it",
                      c.err, hostile[_i].words);
        command_done(&c);
    }
}
END_TEST

/* The daemons of a cluster live on. */
START_TEST(hostile_weights_of_a_cluster)
{
    const char *path = damaged_model(TIED, &(struct damage){"blk.4.ffn_up.weight", .bits = 0x7e00});
    expect((const char *[]){"run", "-f", cluster, "-m", path, PROMPT, NULL}, 4,
           "b: layer 4, FFN: ");
    expect_answer();
}
END_TEST

/* ------------------------------------------------------------------ chat */

START_TEST(chat)
{
    struct command c;
    const char *argv[] = {"chat", "-f", cluster, NULL};
    command_run(&c, argv, PROMPT "\n/nonsense\n/reset\nWhat colour is snow?\n" PROMPT "\n/quit\n",
                NULL);
    ck_assert_msg(c.status == 0, "exit %d: %s", c.status, c.err);
    ck_assert_msg(strncmp(c.out, ANSWER "Snow is white.\n", strlen(ANSWER "Snow is white.\n")) == 0,
                  "%s", c.out);
    ck_assert_ptr_nonnull(strstr(c.err, "unknown command '/nonsense'"));
    ck_assert_ptr_nonnull(strstr(c.err, "forgotten"));
    ck_assert_ptr_nonnull(strstr(c.err, "kept")); /* the third turn reused the KV of the second */
    command_done(&c);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("errors");
    TCase *t = tcase_create("processes");
    tcase_add_unchecked_fixture(t, start_daemons, stop_daemons);
    tcase_set_timeout(t, 300);
    tcase_add_test(t, no_daemon);
    tcase_add_test(t, something_else);
    tcase_add_test(t, silent_port);
    tcase_add_test(t, second_coordinator);
    tcase_add_loop_test(t, interrupt, 0, 10);
    tcase_add_test(t, reader_leaves);
    tcase_add_test(t, full_disk);
    tcase_add_test(t, killed_daemon);
    tcase_add_test(t, listed_twice);
    tcase_add_loop_test(t, interrupt_while_reading, 0, 3);
    tcase_add_test(t, bad_models);
    tcase_add_test(t, prompts);
    tcase_add_test(t, does_not_fit);
    tcase_add_loop_test(t, hostile_weights, 0, HOSTILE);
    tcase_add_test(t, hostile_weights_of_a_cluster);
    tcase_add_test(t, chat);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
