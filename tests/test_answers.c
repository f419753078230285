/*
 * Answers as people ask for them, end to end: weft and weftd as processes. The same answer for the
 * same seed through a private daemon, one, two and three; stop strings over the borders of tokens;
 * grammars and JSON schemas; log-probabilities; what is refused.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/harness.h"
#include "tests/procs.h"
#include "tests/stories.h"

#define MODEL "configs/demo/weft-stories-q8_0.gguf"
#define ARGS_MAX 32

static struct daemon_proc daemons[3];
static char model[4200];

static void start(void)
{
    static const char *const names[3] = {"a", "b", "c"};
    const char *found = weft_test_path(MODEL);
    ck_assert_ptr_nonnull(found);
    snprintf(model, sizeof model, "%s", found);
    for (int i = 0; i < 3; i++)
        daemon_start(&daemons[i], names[i], i == 1 ? "ref" : NULL, NULL);
}

static void stop(void)
{
    int bad = 0;
    for (int i = 0; i < 3; i++)
        bad |= daemon_stop(&daemons[i]);
    ck_assert_msg(bad == 0, "a daemon did not end well");
}

/* Through so many daemons; 0: a private one. */
static const char *cluster(int n)
{
    static const char *const stages[] = {
        "",
        "stages:\n  - {device: a, layers: 0-5}\n",
        "stages:\n  - {device: b, layers: 0-3}\n  - {device: c, layers: 4-5}\n",
        "stages:\n  - {device: c, layers: 0-1}\n  - {device: b, layers: 2-4}\n  - {device: a, "
        "layers: 5}\n",
    };
    return cluster_yaml(model, daemons, 3, stages[n]);
}

/* weft run --json with more options; the object it prints. */
static json_t *run(int n, const char *prompt, const char *const more[])
{
    const char *argv[ARGS_MAX] = {"run", n > 0 ? "-f" : "-m", n > 0 ? cluster(n) : model, "--json"};
    struct command c;
    size_t argc = 4;
    for (size_t i = 0; more[i] != NULL; i++)
        argv[argc++] = more[i];
    argv[argc++] = prompt;
    ck_assert_uint_lt(argc, ARGS_MAX);
    command_run(&c, argv, NULL, NULL);
    ck_assert_msg(c.status == 0, "exit %d: %s", c.status, c.err);
    json_error_t why;
    json_t *j = json_loads(c.out, 0, &why);
    ck_assert_msg(j != NULL, "%s: %s", why.text, c.out);
    command_done(&c);
    return j;
}

static const char *text_of(const json_t *j)
{
    return json_string_value(json_object_get(j, "text"));
}

static void expect_refusal(const char *const argv[], const char *text)
{
    struct command c;
    command_run(&c, argv, NULL, NULL);
    ck_assert_msg(c.status == 2, "exit %d: %s", c.status, c.err);
    ck_assert_msg(strstr(c.err, text) != NULL, "expected '%s' in '%s'", text, c.err);
    command_done(&c);
}
#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ------------------------------------------------------------------ the same answer */

static const char *const kinds[][12] = {
    {"--temp=1", "--seed=1"},
    {"--temp=2", "--top-k=0", "--top-p=1", "--min-p=0.001", "--seed=2"},
    {"--temp=1.5", "--typical=0.7", "--seed=3"},
    {"--temp=1.2", "--mirostat=2", "--mirostat-tau=3", "--mirostat-eta=0.3", "--seed=4"},
    {"--temp=1", "--repeat-penalty=1.2", "--presence-penalty=0.5", "--frequency-penalty=0.7",
     "--repeat-last-n=20", "--seed=5"},
    {"--temp=1", "--logit-bias=263=-inf,300=2.5", "--logit-bias", "5=-1", "--seed=6"},
    {"--temp=1", "--logprobs=4", "--seed=7"},
    {"--temp=1", "--json-schema",
     "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}}, \"required\": "
     "[\"name\"]}",
     "--seed=8"},
};
#define KINDS ((int)(sizeof kinds / sizeof kinds[0]))

START_TEST(same_seed_same_answer)
{
    static const char *const facts[] = {"text", "tokens", "finish", "seed", "logprobs"};
    const char *more[13] = {"-n40"};
    for (size_t i = 0; kinds[_i][i] != NULL; i++)
        more[1 + i] = kinds[_i][i];
    json_t *alone = run(0, "Once upon a time", more);
    for (int n = 1; n <= 3; n++) {
        json_t *j = run(n, "Once upon a time", more);
        for (size_t k = 0; k < sizeof facts / sizeof facts[0]; k++) {
            const json_t *x = json_object_get(alone, facts[k]), *y = json_object_get(j, facts[k]);
            ck_assert_msg((x == NULL && y == NULL) || json_equal(x, y),
                          "other %s through %d daemons: %s", facts[k], n, text_of(j));
        }
        json_decref(j);
    }
    json_decref(alone);
}
END_TEST

/* ------------------------------------------------------------------ stop strings */

/* The greedy text cut before each of many pieces of it, wherever tokens begin and end. */
START_TEST(stops_over_the_borders_of_tokens)
{
    struct story stories[STORIES_MAX];
    size_t n = stories_load(stories);
    ck_assert_uint_gt(n, 2);
    uint64_t seed = weft_test_seed();
    for (unsigned i = 0; i < 24; i++) {
        const struct story *s = &stories[i % 3];
        const char *text = s->text[STORY_Q8_0];
        const size_t size = strlen(text);
        char stop_text[32], expected[8192];
        size_t at = weft_test_random(&seed) % (size - 1);
        size_t len = 1 + weft_test_random(&seed) % 9;
        while (((unsigned char)text[at] & 0xC0) == 0x80) /* a whole character begins it … */
            at--;
        len = len < size - at ? len : size - at;
        while (((unsigned char)text[at + len] & 0xC0) == 0x80) /* … and ends it */
            len++;
        snprintf(stop_text, sizeof stop_text, "%.*s", (int)len, text + at);
        const size_t first = (size_t)(strstr(text, stop_text) - text);
        snprintf(expected, sizeof expected, "%.*s", (int)first, text);
        /* beside it, one that never comes and one that begins as the text does everywhere */
        json_t *j = run(
            (int)(i % 3), s->prompt,
            ARGS("--temp=0", "--stop", "\001", "--stop", stop_text, "--stop", " no such thing"));
        ck_assert_msg(strcmp(text_of(j), expected) == 0, "before '%s': '%s', expected '%s'",
                      stop_text, text_of(j), expected);
        ck_assert_str_eq(json_string_value(json_object_get(j, "finish")), "stop");
        ck_assert_str_eq(json_string_value(json_object_get(j, "stop")), stop_text);
        json_decref(j);
    }
    /* held back to the end, and given out then */
    char almost[300];
    const char *text = stories[0].text[STORY_Q8_0];
    snprintf(almost, sizeof almost, "%.200s never", text + strlen(text) / 2);
    json_t *j = run(0, stories[0].prompt, ARGS("--temp=0", "--stop", almost));
    ck_assert_str_eq(text_of(j), text);
    ck_assert_ptr_null(json_object_get(j, "stop"));
    json_decref(j);
    stories_done(stories, n);
}
END_TEST

/* A chat goes on behind an answer that was cut, from the KV that is left. */
START_TEST(a_chat_goes_on_behind_a_stop)
{
    struct story stories[STORIES_MAX];
    size_t n = stories_load(stories);
    char input[4096], first[512], stop_text[8];
    struct command c;
    ck_assert_uint_gt(n, 0);
    snprintf(stop_text, sizeof stop_text, "%.4s", stories[0].text[STORY_Q8_0] + 9);
    const size_t cut =
        (size_t)(strstr(stories[0].text[STORY_Q8_0], stop_text) - stories[0].text[STORY_Q8_0]);
    snprintf(first, sizeof first, "%.*s\n", (int)cut, stories[0].text[STORY_Q8_0]);
    snprintf(input, sizeof input, "%s\n%s\n", stories[0].prompt, stories[0].prompt);
    const char *const argv[] = {"chat", "-f", cluster(2), "--stop", stop_text, "-n", "60", NULL};
    command_run(&c, argv, input, NULL);
    ck_assert_msg(c.status == 0, "exit %d: %s", c.status, c.err);
    ck_assert_msg(strncmp(c.out, first, strlen(first)) == 0, "'%s', expected '%s' first", c.out,
                  first);
    ck_assert_ptr_nonnull(strstr(c.err, " kept)"));
    command_done(&c);
    stories_done(stories, n);
}
END_TEST

/* ------------------------------------------------------------------ grammars */

START_TEST(answers_are_json_of_the_schema)
{
    static const char schema[] =
        "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\", \"maxLength\": "
        "20}, \"age\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 120}, \"pets\": "
        "{\"type\": \"array\", \"items\": {\"enum\": [\"cat\", \"dog\", null]}, \"minItems\": 1, "
        "\"maxItems\": 4}}, \"required\": [\"name\", \"age\", \"pets\"]}";
    char seed[32], number[32];
    const char *file = temp_file("schema.json", schema, sizeof schema - 1);
    snprintf(seed, sizeof seed, "--seed=%d", _i);
    snprintf(number, sizeof number, "--temp=%d", _i % 3);
    json_t *j = run(_i % 4, "Tell me of a child.",
                    ARGS(seed, number, "--json-schema", _i % 2 == 0 ? file : schema));
    json_error_t why;
    ck_assert_str_eq(json_string_value(json_object_get(j, "finish")), "stop");
    json_t *answer = json_loads(text_of(j), 0, &why);
    ck_assert_msg(answer != NULL, "%s: %s", why.text, text_of(j));
    const json_int_t age = json_integer_value(json_object_get(answer, "age"));
    ck_assert(json_is_string(json_object_get(answer, "name")) && age >= 1 && age <= 120);
    const json_t *pets = json_object_get(answer, "pets");
    ck_assert(json_is_array(pets) && json_array_size(pets) >= 1 && json_array_size(pets) <= 4);
    ck_assert_uint_eq(json_object_size(answer), 3);
    json_decref(answer);
    json_decref(j);
}
END_TEST

START_TEST(a_grammar_from_a_file)
{
    static const char gbnf[] = "root ::= line{3}\nline ::= [a-c] \"-\" [0-9]{2} \"\\n\"\n";
    const char *file = temp_file("lines.gbnf", gbnf, sizeof gbnf - 1);
    json_t *j = run(2, "Hello", ARGS("--temp=1", "--seed=3", "--grammar", file));
    const char *text = text_of(j);
    ck_assert_uint_eq(strlen(text), 15);
    for (int i = 0; i < 15; i++)
        ck_assert(strchr(i % 5 == 0   ? "abc"
                         : i % 5 == 1 ? "-"
                         : i % 5 == 4 ? "\n"
                                      : "0123456789",
                         text[i]) != NULL);
    json_decref(j);
}
END_TEST

/* Raw text loses its older half, but an answer that obeys a grammar is not to lose its beginning:
 * it is cut, and the chat goes on. */
START_TEST(a_grammar_over_a_shift)
{
    static const char list[] =
        "{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"minItems\":40}";
    struct command c;
    unsigned cut = 0;
    command_run(&c,
                ARGS("chat", "-m", model, "-c", "40", "--raw", "--context-shift", "--temp=0",
                     "--json-schema", list),
                "Hello\nOnce upon a time\n", NULL);
    ck_assert_msg(c.status == 0, "%s", c.err);
    for (const char *at = c.err; (at = strstr(at, "the answer was cut)\n")) != NULL; at++)
        cut++;
    ck_assert_msg(cut == 2, "%s", c.err);
    command_done(&c);
    /* the prompt is more than half: something of it may go */
    command_run(&c,
                ARGS("run", "-m", model, "-c", "40", "--raw", "--context-shift", "--temp=0",
                     "--json-schema", list,
                     "Once upon a time there was a small owl named Ben. Ben had a red lantern and "
                     "loved it very much."),
                NULL, NULL);
    ck_assert_msg(c.status == 0, "%s", c.err);
    ck_assert_ptr_nonnull(strstr(c.err, "dropped the older half"));
    ck_assert_ptr_nonnull(strstr(c.err, "the answer was cut"));
    ck_assert(c.out[0] == '[');
    command_done(&c);
}
END_TEST

/* A line of blanks is no turn. */
START_TEST(blanks_are_nothing_said)
{
    struct command blank, plain;
    command_run(&blank, ARGS("chat", "-m", model, "--temp=0"), "  \nHello\n\t \n", NULL);
    command_run(&plain, ARGS("chat", "-m", model, "--temp=0"), "Hello\n", NULL);
    ck_assert_int_eq(blank.status, 0);
    ck_assert_int_eq(plain.status, 0);
    ck_assert_str_eq(blank.out, plain.out);
    command_done(&blank);
    /* lines as other systems end them */
    command_run(&blank, ARGS("chat", "-m", model, "--temp=0"), "Hello\r\n/quit\r\nHello\r\n", NULL);
    ck_assert_int_eq(blank.status, 0);
    ck_assert_str_eq(blank.out, plain.out);
    command_done(&blank);
    /* thousands at once, on a small stack */
    static char many[4000 + 7] = "";
    memset(many, '\n', 4000);
    memcpy(many + 4000, "Hello\n", 7);
    struct rlimit limit;
    ck_assert_int_eq(getrlimit(RLIMIT_STACK, &limit), 0);
    const struct rlimit small = {.rlim_cur = 2 << 20, .rlim_max = limit.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_STACK, &small), 0);
    command_run(&blank, ARGS("chat", "-m", model, "--temp=0"), many, NULL);
    ck_assert_int_eq(setrlimit(RLIMIT_STACK, &limit), 0);
    ck_assert_int_eq(blank.status, 0);
    ck_assert_str_eq(blank.out, plain.out);
    command_done(&blank);
    command_done(&plain);
}
END_TEST

/* ------------------------------------------------------------------ log-probabilities */

START_TEST(logprobs)
{
    json_t *j = run(2, "Once upon a time",
                    ARGS("--temp=1", "--seed=9", "--logprobs=20", "--logit-bias=300=1", "-n12"));
    const json_t *list = json_object_get(j, "logprobs"), *tokens = json_object_get(j, "tokens");
    ck_assert_uint_eq(json_array_size(list), json_array_size(tokens));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *p = json_array_get(list, i), *top = json_object_get(p, "top");
        double sum = 0, before = 0;
        bool found = false;
        const double own = json_number_value(json_object_get(p, "logprob"));
        ck_assert(json_equal(json_object_get(p, "id"), json_array_get(tokens, i)));
        ck_assert(json_is_string(json_object_get(p, "token")) && own <= 0);
        ck_assert_uint_eq(json_array_size(top), 20);
        for (size_t k = 0; k < 20; k++) {
            const json_t *t = json_array_get(top, k);
            const double x = json_number_value(json_object_get(t, "logprob"));
            ck_assert(x <= before);
            before = x;
            sum += exp(x);
            if (json_equal(json_object_get(t, "id"), json_object_get(p, "id"))) {
                found = true;
                ck_assert_double_eq(x, own);
            }
        }
        ck_assert(sum <= 1.00001);
        ck_assert(found || own <= before);
    }
    json_decref(j);
    struct command c;
    command_run(&c, ARGS("run", "-m", model, "--temp=0", "-n3", "--logprobs=1", "Hi"), NULL, NULL);
    ck_assert_int_eq(c.status, 0);
    ck_assert_ptr_nonnull(strstr(c.err, "  logprob  token               likeliest\n"));
    command_done(&c);
    command_run(&c, ARGS("run", "-m", model, "--temp=0", "-n3", "--logprobs=0", "Hi"), NULL, NULL);
    ck_assert_int_eq(c.status, 0);
    ck_assert_ptr_nonnull(strstr(c.err, "  logprob  token\n"));
    command_done(&c);
}
END_TEST

/* ------------------------------------------------------------------ refusals */

START_TEST(what_is_refused)
{
    static const char broken[] = "root ::= [a-z]+\nother ::= missing\n", empty[] = "";
    static const char bad_schema[] = "{\"type\": \"texts\"}";
    char grammar[4200], schema[4200], nothing[4200], long_stop[300], place[4300];
    snprintf(grammar, sizeof grammar, "%s", temp_file("broken.gbnf", broken, sizeof broken - 1));
    snprintf(schema, sizeof schema, "%s", temp_file("bad.json", bad_schema, sizeof bad_schema - 1));
    snprintf(nothing, sizeof nothing, "%s", temp_file("empty.gbnf", empty, 0));
    memset(long_stop, 'x', sizeof long_stop);
    memcpy(long_stop, "--stop=", 7);
    long_stop[7 + 257] = '\0';
    snprintf(place, sizeof place, "weft: %s: grammar:2:", grammar);
    expect_refusal(ARGS("run", "-m", model, "--grammar", grammar, "hi"), place);
    snprintf(place, sizeof place, "weft: %s: grammar:", nothing);
    expect_refusal(ARGS("run", "-m", model, "--grammar", nothing, "hi"), place);
    snprintf(place, sizeof place, "weft: %s: JSON schema: ", schema);
    expect_refusal(ARGS("run", "-m", model, "--json-schema", schema, "hi"), place);
    expect_refusal(ARGS("run", "-m", model, "--json-schema", " {\"type\": 3}", "hi"),
                   "weft: --json-schema: JSON schema: ");
    expect_refusal(ARGS("run", "-m", model, "--grammar", "/nonexistent/g", "hi"),
                   "weft: --grammar: /nonexistent/g: No such file or directory");
    expect_refusal(ARGS("run", "-m", model, "--json-schema", "/nonexistent/s", "hi"),
                   "weft: --json-schema: /nonexistent/s: No such file or directory");
    expect_refusal(ARGS("run", "-m", model, "--logit-bias=1024=1", "hi"),
                   "weft: --logit-bias: token 1024, the vocabulary has 0..1023");
    expect_refusal(ARGS("run", "-m", model, long_stop, "hi"), "of 257 bytes, expected 1 to 256");
    expect_refusal(ARGS("run", "-m", model, "--stop=\xC3(", "hi"), "is no UTF-8 text");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("answers");
    TCase *t = tcase_create("answers");
    tcase_add_unchecked_fixture(t, start, stop);
    tcase_set_timeout(t, 600);
    tcase_add_loop_test(t, same_seed_same_answer, 0, KINDS);
    tcase_add_test(t, stops_over_the_borders_of_tokens);
    tcase_add_test(t, a_chat_goes_on_behind_a_stop);
    tcase_add_loop_test(t, answers_are_json_of_the_schema, 0, 6);
    tcase_add_test(t, a_grammar_from_a_file);
    tcase_add_test(t, a_grammar_over_a_shift);
    tcase_add_test(t, blanks_are_nothing_said);
    tcase_add_test(t, logprobs);
    tcase_add_test(t, what_is_refused);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
