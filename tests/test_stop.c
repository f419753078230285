/*
 * Stop strings: found and held back against the plainest way of doing it, and as a text that comes
 * in pieces.
 */
#include <stdlib.h>
#include <string.h>

#include "coordinator/stop.h"
#include "tests/harness.h"

#define LETTERS 3 /* few, so that beginnings and matches are everywhere */
#define TEXT_MAX 60

static void random_word(char *to, size_t n, uint64_t *seed)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (char)('a' + weft_test_random(seed) % LETTERS);
    to[n] = '\0';
}

static bool starts(const char *text, size_t n, const char *word, size_t size)
{
    return size <= n && memcmp(text, word, size) == 0;
}

START_TEST(found_and_held)
{
    uint64_t seed = weft_test_seed();
    for (int round = 0; round < 20000; round++) {
        char words[WEFT_STOPS_MAX][8], text[TEXT_MAX + 1];
        const char *texts[WEFT_STOPS_MAX];
        struct weft_stops s = {texts, (uint32_t)(weft_test_random(&seed) % 5)};
        for (uint32_t i = 0; i < s.n; i++) {
            random_word(words[i], 1 + weft_test_random(&seed) % 6, &seed);
            texts[i] = words[i];
        }
        const size_t n = weft_test_random(&seed) % TEXT_MAX;
        random_word(text, n, &seed);
        size_t want = n, held = 0, at = n;
        uint32_t which = 99, want_which = 99;
        for (size_t end = 1; end <= n && want == n; end++)
            for (size_t i = 0; i < end && want == n; i++)
                for (uint32_t k = 0; k < s.n && want == n; k++)
                    if (strlen(texts[k]) == end - i && starts(text + i, n - i, texts[k], end - i)) {
                        want = i;
                        want_which = k;
                    }
        for (size_t size = 1; size <= n; size++)
            for (uint32_t k = 0; k < s.n; k++)
                if (size < strlen(texts[k]) && starts(text + n - size, size, texts[k], size))
                    held = size;
        ck_assert_int_eq(weft_stops_find(&s, text, n, &at, &which), want < n);
        ck_assert_uint_eq(at, want);
        ck_assert_uint_eq(which, want_which);
        ck_assert_uint_eq(weft_stops_held(&s, text, n), held);
    }
}
END_TEST

/* What is given out piece by piece is the text before the first stop string, however it is cut. */
START_TEST(a_text_in_pieces)
{
    uint64_t seed = weft_test_seed();
    for (int round = 0; round < 5000; round++) {
        char words[3][8], text[TEXT_MAX + 1], out[TEXT_MAX + 1];
        const char *texts[3];
        struct weft_stops s = {texts, 3};
        for (uint32_t i = 0; i < 3; i++) {
            random_word(words[i], 3 + weft_test_random(&seed) % 4, &seed);
            texts[i] = words[i];
        }
        const size_t n = weft_test_random(&seed) % TEXT_MAX;
        random_word(text, n, &seed);
        size_t end = 0, given = 0, at = 0, whole = 0;
        uint32_t which = 0;
        bool stopped = false;
        while (end < n && !stopped) {
            end += 1 + weft_test_random(&seed) % 5;
            end = end < n ? end : n;
            stopped = weft_stops_find(&s, text + given, end - given, &at, &which);
            const size_t to =
                stopped ? given + at : end - weft_stops_held(&s, text + given, end - given);
            memcpy(out + given, text + given, to - given);
            given = to;
        }
        if (!stopped) {
            memcpy(out + given, text + given, n - given);
            given = n;
        }
        ck_assert_int_eq(weft_stops_find(&s, text, n, &whole, &which), stopped);
        ck_assert_uint_eq(given, stopped ? whole : n);
        ck_assert(memcmp(out, text, given) == 0);
    }
}
END_TEST

START_TEST(checked)
{
    char longest[WEFT_STOP_BYTES_MAX + 2];
    const char *one[] = {longest}, *many[WEFT_STOPS_MAX + 1];
    weft_err err = {0};
    memset(longest, 'x', sizeof longest);
    longest[WEFT_STOP_BYTES_MAX] = '\0';
    ck_assert_int_eq(weft_stops_check(&(struct weft_stops){one, 1}, &err), 0);
    longest[WEFT_STOP_BYTES_MAX] = 'x';
    longest[WEFT_STOP_BYTES_MAX + 1] = '\0';
    ck_assert_int_eq(weft_stops_check(&(struct weft_stops){one, 1}, &err), -WEFT_EUSAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "of 257 bytes, expected 1 to 256"));
    one[0] = "";
    ck_assert_int_eq(weft_stops_check(&(struct weft_stops){one, 1}, &err), -WEFT_EUSAGE);
    ck_assert_str_eq(err.text, "stop string '' of 0 bytes, expected 1 to 256");
    one[0] = "a\xE2\x82";
    ck_assert_int_eq(weft_stops_check(&(struct weft_stops){one, 1}, &err), -WEFT_EUSAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "is no UTF-8 text"));
    for (size_t i = 0; i <= WEFT_STOPS_MAX; i++)
        many[i] = "x";
    ck_assert_int_eq(weft_stops_check(&(struct weft_stops){many, WEFT_STOPS_MAX}, &err), 0);
    ck_assert_int_eq(weft_stops_check(&(struct weft_stops){many, WEFT_STOPS_MAX + 1}, &err),
                     -WEFT_EUSAGE);
    ck_assert_str_eq(err.text, "17 stop strings, expected at most 16");
    ck_assert_int_eq(weft_stops_check(&(struct weft_stops){NULL, 0}, &err), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("stop");
    TCase *c = tcase_create("stop");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, found_and_held);
    tcase_add_test(c, a_text_in_pieces);
    tcase_add_test(c, checked);
    suite_add_tcase(s, c);
    return weft_test_main(s);
}
