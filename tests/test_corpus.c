/*
 * The fuzzers' corpus without a fuzzer: every file of tests/corpus/NAME/, every prefix of it and a
 * number of mutations go through weft_fuzz_NAME (tests/fuzz.h). What a fuzzer once found stays
 * found here, under the sanitizers of V=asan.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz.h"
#include "tests/harness.h"

#define FILES_MAX 64
#define FILE_BYTES_MAX (64u << 10)
#define MUTATIONS 400 /* of a file: all corpora stay below 10 s under ASan */
#define BYTES_MAX 4   /* changed by one mutation */

static const struct {
    const char *name;
    int (*run)(const uint8_t *data, size_t size);
} fuzzers[] = {
    {"frame", weft_fuzz_frame},         {"gguf", weft_fuzz_gguf},
    {"grammar", weft_fuzz_grammar},     {"template", weft_fuzz_template},
    {"tokenizer", weft_fuzz_tokenizer}, {"yaml", weft_fuzz_yaml},
};
#define N_FUZZERS (sizeof fuzzers / sizeof fuzzers[0])

/* An exact copy, so that ASan sees a byte read behind the end. */
static void run(size_t fuzzer, const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size);
    if (size > 0)
        memcpy(exact, data, size);
    ck_assert_int_eq(fuzzers[fuzzer].run(exact, size), 0);
    free(exact);
}

static void mutate(uint8_t *data, size_t size, uint64_t *random)
{
    static const uint8_t edges[] = {0, 1, 0x7F, 0x80, 0xFF};
    for (uint64_t n = 1 + weft_test_random(random) % BYTES_MAX; n > 0; n--) {
        uint8_t *at = &data[weft_test_random(random) % size];
        const uint64_t r = weft_test_random(random);
        *at = (uint8_t)(r % 2 == 0 ? edges[r / 2 % sizeof edges] : *at ^ 1u << r / 2 % 8);
    }
}

static void replay(size_t fuzzer, const char *relative, uint64_t *random)
{
    size_t size = 0;
    uint8_t *data = weft_test_read(relative, &size);
    ck_assert_msg(data != NULL, "%s: cannot be read", relative);
    ck_assert_msg(size <= FILE_BYTES_MAX, "%s: %zu bytes, at most %u are allowed", relative, size,
                  FILE_BYTES_MAX);
    for (size_t n = 0; n <= size; n++)
        run(fuzzer, data, n);
    uint8_t *changed = malloc(size + 1);
    for (int i = 0; size > 0 && i < MUTATIONS; i++) {
        memcpy(changed, data, size);
        mutate(changed, size, random);
        run(fuzzer, changed, size);
    }
    free(changed);
    free(data);
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

START_TEST(corpus_is_survived)
{
    char folder[64];
    struct dirent **entries;
    uint64_t random = weft_test_seed();
    snprintf(folder, sizeof folder, "tests/corpus/%s", fuzzers[_i].name);
    const char *path = weft_test_path(folder);
    ck_assert_msg(path != NULL, "%s is missing", folder);
    int n = scandir(path, &entries, visible, alphasort);
    ck_assert_msg(n > 0 && n <= FILES_MAX, "%s: %d files", folder, n);
    for (int i = 0; i < n; i++) {
        char relative[64 + sizeof entries[i]->d_name];
        snprintf(relative, sizeof relative, "%s/%s", folder, entries[i]->d_name);
        /* stays as the last line of the log when the process dies */
        printf("%s WEFT_TEST_SEED=%llu\n", relative, (unsigned long long)weft_test_seed());
        fflush(stdout);
        replay((size_t)_i, relative, &random);
        free(entries[i]);
    }
    free(entries);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("corpus");
    TCase *t = tcase_create("corpus");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, corpus_is_survived, 0, (int)N_FUZZERS);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
