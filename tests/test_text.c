/*
 * Tests of base/err, base/arena, base/text and base/log.
 */
#include "base/arena.h"
#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "tests/harness.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- err ---- */

START_TEST(err_set_and_prefix)
{
    weft_err err = {0};
    ck_assert_int_eq(weft_fail(&err, WEFT_EMODEL, "tensor %s", "x"), -WEFT_EMODEL);
    ck_assert_int_eq(err.code, WEFT_EMODEL);
    ck_assert_str_eq(err.text, "tensor x");
    weft_err_prefix(&err, "load %s", "tiny.gguf");
    weft_err_prefix(&err, "deploy epoch %d", 4);
    ck_assert_str_eq(err.text, "deploy epoch 4: load tiny.gguf: tensor x");
    /* The old text may be an argument. */
    weft_fail(&err, WEFT_EIO, "again: %s", err.text);
    ck_assert_str_eq(err.text, "again: deploy epoch 4: load tiny.gguf: tensor x");

    ck_assert_int_eq(weft_fail(NULL, WEFT_EBUSY, "x"), -WEFT_EBUSY);
    weft_err_prefix(NULL, "x");
    weft_err clean = {0};
    weft_err_prefix(&clean, "x");
    ck_assert_str_eq(clean.text, "");
}
END_TEST

START_TEST(err_errno)
{
    weft_err err = {0};
    ck_assert_int_eq(weft_fail_errno(&err, ENOENT, "open %s", "a"), -WEFT_EIO);
    ck_assert_str_eq(err.text, "open a: No such file or directory");
    ck_assert_int_eq(weft_fail_errno(&err, ENOMEM, "map"), -WEFT_ENOMEM);
    ck_assert_int_eq(err.code, WEFT_ENOMEM);
    ck_assert_int_eq(weft_fail_errno(NULL, EPIPE, "x"), -WEFT_EIO);
}
END_TEST

START_TEST(err_cut)
{
    /* "é" is two bytes: an odd and an even start, so that one of them would be cut in half. */
    for (int odd = 0; odd < 2; odd++) {
        char text[3000];
        size_t n = 0;
        if (odd)
            text[n++] = 'x';
        while (n + 2 < sizeof text) {
            memcpy(text + n, "é", 2);
            n += 2;
        }
        text[n] = '\0';
        weft_err err = {0};
        weft_fail(&err, WEFT_EIO, "%s", text);
        size_t kept = strlen(err.text);
        ck_assert_uint_ge(kept, sizeof err.text - 2);
        ck_assert(weft_utf8_valid(err.text, kept, NULL));
        weft_err_prefix(&err, "prefix");
        ck_assert_mem_eq(err.text, "prefix: ", 8);
        ck_assert(weft_utf8_valid(err.text, strlen(err.text), NULL));
        weft_err_prefix(&err, "%s", text); /* longer than everything */
        ck_assert_mem_eq(err.text, text, kept);
        ck_assert(weft_utf8_valid(err.text, strlen(err.text), NULL));
        weft_fail_errno(&err, EIO, "%s", text);
        ck_assert_mem_eq(err.text, text, kept);
    }
}
END_TEST

START_TEST(err_codes)
{
    ck_assert_str_eq(weft_error_name(WEFT_EMODEL), "MODEL");
    ck_assert_str_eq(weft_error_text(-WEFT_ENOFIT), "does not fit");
    ck_assert_int_eq(weft_error_exit(-WEFT_ECONTEXT), WEFT_EXIT_NOFIT);
    ck_assert_int_eq(weft_error_exit(WEFT_ECANCELLED), 130);
    ck_assert_int_eq(weft_error_exit(0), 0);
    const int unknown[] = {1000, -1000, 2147483647, -2147483647 - 1, WEFT_EDAMAGED + 1};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        ck_assert_str_eq(weft_error_name(unknown[i]), "UNKNOWN");
        ck_assert_str_eq(weft_error_text(unknown[i]), "unknown error");
        ck_assert_int_eq(weft_error_exit(unknown[i]), WEFT_EXIT_INTERNAL);
    }
    /* Every code has its own name. */
    for (int a = 1; a <= WEFT_EDAMAGED; a++)
        for (int b = 0; b < a; b++)
            ck_assert_str_ne(weft_error_name(a), weft_error_name(b));
}
END_TEST

/* ---- arena ---- */

START_TEST(arena_limit)
{
    struct weft_arena a;
    weft_arena_init(&a, 1000); /* 62 pieces of 16 bytes */
    int n = 0;
    while (weft_arena_alloc(&a, 1) != NULL)
        n++;
    ck_assert_int_eq(n, 62);
    ck_assert_uint_eq(a.used_bytes, 992);
    ck_assert_ptr_null(weft_arena_alloc(&a, SIZE_MAX));
    ck_assert_ptr_null(weft_arena_strdup(&a, "too long for the last eight"));
    ck_assert_uint_eq(a.used_bytes, 992);
    weft_arena_done(&a);
    ck_assert_uint_eq(a.used_bytes, 0);
    ck_assert_ptr_nonnull(weft_arena_alloc(&a, 900)); /* can be used again */
    ck_assert_ptr_null(weft_arena_alloc(&a, 900));
    weft_arena_done(&a);
    weft_arena_done(&a);
    weft_arena_done(NULL);
}
END_TEST

static bool all_bytes(const unsigned char *p, size_t n, int byte)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != byte)
            return false;
    return true;
}

START_TEST(arena_pieces)
{
    uint64_t seed = weft_test_seed();
    struct weft_arena a;
    weft_arena_init(&a, 0);
    enum { COUNT = 500 };
    unsigned char *pieces[COUNT];
    size_t sizes[COUNT];
    for (int i = 0; i < COUNT; i++) {
        /* Small ones, and now and then one larger than any chunk. */
        sizes[i] = weft_test_random(&seed) % (i % 50 == 49 ? 600000 : 700);
        pieces[i] = weft_arena_alloc(&a, sizes[i]);
        ck_assert_ptr_nonnull(pieces[i]);
        ck_assert_uint_eq((uintptr_t)pieces[i] % _Alignof(max_align_t), 0);
        ck_assert(all_bytes(pieces[i], sizes[i], 0));
        memset(pieces[i], i & 255, sizes[i]);
    }
    for (int i = 0; i < COUNT; i++)
        ck_assert(all_bytes(pieces[i], sizes[i], i & 255));
    weft_arena_done(&a);
}
END_TEST

START_TEST(arena_arrays_and_strings)
{
    struct weft_arena a;
    weft_arena_init(&a, 1 << 20);
    ck_assert_ptr_null(weft_arena_array(&a, SIZE_MAX / 2, 3));
    ck_assert_ptr_null(weft_arena_array(&a, SIZE_MAX, SIZE_MAX));
    ck_assert_ptr_nonnull(weft_arena_array(&a, 0, 8));
    ck_assert_ptr_nonnull(weft_arena_array(&a, 8, 0));
    ck_assert_ptr_nonnull(weft_arena_array(&a, 10, 8));
    ck_assert_str_eq(weft_arena_strdup(&a, "thread"), "thread");
    ck_assert_str_eq(weft_arena_strndup(&a, "thread", 3), "thr");
    ck_assert_str_eq(weft_arena_strndup(&a, "thread", 30), "thread");
    ck_assert_str_eq(weft_arena_strndup(&a, "thread", 0), "");
    weft_arena_done(&a);
}
END_TEST

/* ---- numbers ---- */

START_TEST(parse_size)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"4096", 4096},
        {"0", 0},
        {"7B", 7},
        {"6GiB", 6ull << 30},
        {"512 MiB", 512ull << 20},
        {"1.5GB", 1500000000},
        {"16k", 16000},
        {"16KB", 16000},
        {"1.5KiB", 1536},
        {"0.3KiB", 307}, /* 307.2 */
        {"0.1k", 100},
        {"1.0009765625KiB", 1025}, /* exact in ten digits */
        {"0.99999999999999999999999999999999TiB", (1ull << 40) - 1},
        {"2T", 2000000000000},
        {"18446744073709551615", UINT64_MAX},
        {"16777215TiB", 16777215ull << 40},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t bytes = 1;
        weft_err err = {0};
        ck_assert_msg(weft_parse_size(good[i].text, &bytes, &err) == 0, "%s", err.text);
        ck_assert_msg(bytes == good[i].bytes, "%s: %llu", good[i].text, (unsigned long long)bytes);
    }
}
END_TEST

START_TEST(parse_size_refuses)
{
    static const struct {
        const char *text, *error;
    } bad[] = {
        {"", "found '', expected a size such as 512MiB or 6GiB"},
        {"GiB", "found 'GiB', expected a size such as 512MiB or 6GiB"},
        {"-1", "found '-1', expected a size such as 512MiB or 6GiB"},
        {"+1", "found '+1', expected a size such as 512MiB or 6GiB"},
        {" 1", "found ' 1', expected a size such as 512MiB or 6GiB"},
        {"1.GiB", "found '1.GiB', expected a size such as 512MiB or 6GiB"},
        {".5GiB", "found '.5GiB', expected a size such as 512MiB or 6GiB"},
        {"1.5", "found '1.5', expected a size such as 512MiB or 6GiB"},
        {"1.5B", "found '1.5B', expected a size such as 512MiB or 6GiB"},
        {"1e9", "found '1e9', expected a size such as 512MiB or 6GiB"},
        {"6 apples", "found '6 apples', expected a size such as 512MiB or 6GiB"},
        {"6gib", "found '6gib', expected a size such as 512MiB or 6GiB, did you mean '6GiB'?"},
        {"1.5 Mib", "found '1.5 Mib', expected a size such as 512MiB or 6GiB, did you mean '1.5 "
                    "MiB'?"},
        {"6GiB\n", "found '6GiB?', expected a size such as 512MiB or 6GiB, did you mean '6GiB'?"},
        {"16777216TiB", "found '16777216TiB', expected at most 16777215TiB"},
        {"18446744073709551616", "found '18446744073709551616', expected at most 16777215TiB"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t bytes = 42;
        weft_err err = {0};
        ck_assert_int_eq(weft_parse_size(bad[i].text, &bytes, &err), -WEFT_ECONFIG);
        ck_assert_str_eq(err.text, bad[i].error);
        ck_assert_uint_eq(bytes, 42); /* untouched */
        ck_assert_int_eq(weft_parse_size(bad[i].text, &bytes, NULL), -WEFT_ECONFIG);
    }
}
END_TEST

START_TEST(parse_u64)
{
    uint64_t v = 0;
    weft_err err = {0};
    ck_assert_int_eq(weft_parse_u64("65535", 1, 65535, &v, &err), 0);
    ck_assert_uint_eq(v, 65535);
    ck_assert_int_eq(weft_parse_u64("18446744073709551615", 0, UINT64_MAX, &v, &err), 0);
    ck_assert_uint_eq(v, UINT64_MAX);
    ck_assert_int_eq(weft_parse_u64("007", 0, 10, &v, &err), 0);
    ck_assert_uint_eq(v, 7);

    static const struct {
        const char *text;
        uint64_t min, max;
        const char *error;
    } bad[] = {
        {"70000", 1, 65535, "found 70000, expected 1..65535"},
        {"0", 1, UINT64_MAX, "found 0, expected at least 1"},
        {"18446744073709551616", 0, UINT64_MAX,
         "found 18446744073709551616, expected at most 18446744073709551615"},
        {"18446744073709551616", 0, 9, "found 18446744073709551616, expected 0..9"},
        {"", 0, 9, "found '', expected a whole number, 0..9"},
        {"-1", 0, 9, "found '-1', expected a whole number, 0..9"},
        {"+1", 0, UINT64_MAX, "found '+1', expected a whole number"},
        {" 1", 0, 9, "found ' 1', expected a whole number, 0..9"},
        {"1 ", 0, 9, "found '1 ', expected a whole number, 0..9"},
        {"0x10", 0, 99, "found '0x10', expected a whole number, 0..99"},
        {"1.0", 0, 9, "found '1.0', expected a whole number, 0..9"},
        {"nine", 2, UINT64_MAX, "found 'nine', expected a whole number, at least 2"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        v = 42;
        ck_assert_int_eq(weft_parse_u64(bad[i].text, bad[i].min, bad[i].max, &v, &err),
                         -WEFT_ECONFIG);
        ck_assert_str_eq(err.text, bad[i].error);
        ck_assert_uint_eq(v, 42);
    }
}
END_TEST

START_TEST(parse_double)
{
    static const struct {
        const char *text;
        double value;
    } good[] = {{"0.8", 0.8}, {"-1", -1}, {"1e-3", 1e-3}, {".5", 0.5}, {"2.", 2}, {"1E2", 100}};
    double v = 0;
    weft_err err = {0};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        ck_assert_msg(weft_parse_double(good[i].text, -10, 100, &v, &err) == 0, "%s", err.text);
        ck_assert_double_eq(v, good[i].value);
    }
    static const char *const bad[] = {"",   "nan", "inf", "-inf",  "0x1p3", "1,5", " 1", "1 ",
                                      "1e", "+1",  "--1", "1e999", "-",     ".",   "e5"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char want[100];
        v = 42;
        ck_assert_int_eq(weft_parse_double(bad[i], 0, 2, &v, &err), -WEFT_ECONFIG);
        snprintf(want, sizeof want, "found '%s', expected a number, 0..2", bad[i]);
        ck_assert_str_eq(err.text, want);
        ck_assert_double_eq(v, 42);
    }
    ck_assert_int_eq(weft_parse_double("2.5", 0, 2, &v, &err), -WEFT_ECONFIG);
    ck_assert_str_eq(err.text, "found 2.5, expected 0..2");
    ck_assert_int_eq(weft_parse_double("-1", 0, INFINITY, &v, &err), -WEFT_ECONFIG);
    ck_assert_str_eq(err.text, "found -1, expected at least 0");
    ck_assert_int_eq(weft_parse_double("7", -INFINITY, 2, &v, &err), -WEFT_ECONFIG);
    ck_assert_str_eq(err.text, "found 7, expected at most 2");
    ck_assert_int_eq(weft_parse_double("x", -INFINITY, INFINITY, &v, &err), -WEFT_ECONFIG);
    ck_assert_str_eq(err.text, "found 'x', expected a number");
}
END_TEST

START_TEST(format_size)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},
        {48, "48 B"},
        {1023, "1023 B"},
        {1024, "1.00 KiB"},
        {256ull << 20, "256 MiB"},
        {1127428915, "1.05 GiB"},
        {10230, "9.99 KiB"},
        {10236, "10.0 KiB"}, /* 9.996 */
        {102370, "100 KiB"}, /* 99.97 */
        {(1ull << 20) - 1, "1023 KiB"},
        {(1ull << 30) - 1, "1023 MiB"},
        {1ull << 30, "1.00 GiB"},
        {1ull << 60, "1.00 EiB"},
        {UINT64_MAX, "16.0 EiB"},
    };
    char buf[32];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_str_eq(weft_format_size(buf, sizeof buf, cases[i].bytes), cases[i].text);
    ck_assert_str_eq(weft_format_size(buf, 4, 1024), "1.0");
}
END_TEST

START_TEST(format_duration)
{
    static const struct {
        uint64_t ns;
        const char *text;
    } cases[] = {
        {0, "0 ns"},
        {850, "850 ns"},
        {999, "999 ns"},
        {1000, "1.0 µs"},
        {14200000, "14.2 ms"},
        {110000000, "110 ms"},
        {99960000, "100 ms"},
        {999600000, "1.0 s"},
        {3400000000, "3.4 s"},
        {59900000000, "59.9 s"},
        {59960000000, "1.0 min"},
        {720000000000, "12 min"},
        {5400000000000, "1.5 h"},
        {86400000000000 * 3, "3.0 d"},
        {UINT64_MAX, "213504 d"},
    };
    char buf[32];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_str_eq(weft_format_duration(buf, sizeof buf, cases[i].ns), cases[i].text);
}
END_TEST

/* ---- words and characters ---- */

START_TEST(near_miss)
{
    static const char *const keys[] = {"memory", "address", "threads", "gemm", "kv", "on", NULL};
    static const struct {
        const char *word, *near;
    } cases[] = {
        {"memmory", "memory"}, {"meomry", "memory"},   {"Memory", "memory"}, {"adress", "address"},
        {"thread", "threads"}, {"theards", "threads"}, {"gem", "gemm"},      {"gmem", "gemm"},
        {"vk", "kv"},          {"KV", "kv"},           {"x", NULL},          {"", NULL},
        {"mem", NULL},         {"zebra", NULL},        {"memory", "memory"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        ck_assert_pstr_eq(weft_near_miss(cases[i].word, keys), cases[i].near);
    static const char *const none[] = {NULL};
    ck_assert_ptr_null(weft_near_miss("memory", none));
    char lengthy[200];
    memset(lengthy, 'a', sizeof lengthy - 1);
    lengthy[sizeof lengthy - 1] = '\0';
    const char *const long_keys[] = {lengthy, NULL};
    ck_assert_ptr_null(weft_near_miss(lengthy, long_keys));
    lengthy[63] = '\0';
    ck_assert_ptr_eq(weft_near_miss(lengthy + 1, long_keys), lengthy);
}
END_TEST

START_TEST(utf8)
{
    static const struct {
        const char *bytes;
        size_t n, prefix;
    } cases[] = {
        {"", 0, 0},
        {"abc", 3, 3},
        {"a\0b", 3, 3},
        {"\xC3\xA9", 2, 2},
        {"a\xC3", 2, 1},
        {"a\xE2\x82", 3, 1},
        {"\xE2\x82\xAC", 3, 3},
        {"\xF0\x9F\x98\x80", 4, 4},
        {"\xF0\x9F\x98", 3, 0},
        {"\xF4\x8F\xBF\xBF", 4, 4}, /* U+10FFFF */
        {"\xF4\x90\x80\x80", 4, 0}, /* above */
        {"\xED\x9F\xBF", 3, 3},
        {"\xED\xA0\x80", 3, 0}, /* surrogates */
        {"\xED\xBF\xBF", 3, 0},
        {"\xC0\x80", 2, 0}, /* overlong */
        {"\xC1\xBF", 2, 0},
        {"\xE0\x9F\xBF", 3, 0},
        {"\xF0\x8F\xBF\xBF", 4, 0},
        {"\x80", 1, 0},
        {"ab\xFF", 3, 2},
        {"\xF8\x88\x80\x80\x80", 5, 0},
        {"\xC3\x28", 2, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        /* An exact heap copy, so that the sanitizer sees a read behind the end. */
        char *copy = malloc(cases[i].n + (cases[i].n == 0));
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, cases[i].bytes, cases[i].n);
        ck_assert_uint_eq(weft_utf8_prefix(copy, cases[i].n), cases[i].prefix);
        size_t offset = 99;
        bool valid = cases[i].prefix == cases[i].n;
        ck_assert_int_eq(weft_utf8_valid(copy, cases[i].n, &offset), valid);
        ck_assert_uint_eq(offset, valid ? 99 : cases[i].prefix);
        free(copy);
    }
    uint32_t code = 0;
    ck_assert_uint_eq(weft_utf8_decode("\xE2\x82\xAC", 3, &code), 3);
    ck_assert_uint_eq(code, 0x20AC);
    ck_assert_uint_eq(weft_utf8_decode("\xF0\x9F\x98\x80", 4, &code), 4);
    ck_assert_uint_eq(code, 0x1F600);
    ck_assert_uint_eq(weft_text_columns(""), 0);
    ck_assert_uint_eq(weft_text_columns("1.5 ± 2"), 7);
    ck_assert_uint_eq(weft_text_columns("N,N,…"), 5);
}
END_TEST

START_TEST(quote)
{
    char buf[16];
    ck_assert_str_eq(weft_quote(buf, sizeof buf, "abc", 3), "'abc'");
    ck_assert_str_eq(weft_quote(buf, sizeof buf, "", 0), "''");
    ck_assert_str_eq(weft_quote(buf, sizeof buf, "a\nb\x1b\xff", 5), "'a?b?"
                                                                     "?'");
    ck_assert_str_eq(weft_quote(buf, sizeof buf, "a\0b", 3), "'a?b'");
    ck_assert_str_eq(weft_quote(buf, sizeof buf, "\xE2\x80\xAE", 3), "'?'");
    ck_assert_str_eq(weft_quote(buf, sizeof buf, "1234567890123", 13), "'1234567890123'");
    ck_assert_str_eq(weft_quote(buf, sizeof buf, "12345678901234", 14), "'1234567890…'");
    ck_assert_str_eq(weft_quote(buf, sizeof buf, "123456789ééé", 15), "'123456789…'");
    ck_assert_str_eq(weft_quote(buf, 8, "123456789", 9), "'12…'");
}
END_TEST

START_TEST(growing_string)
{
    struct weft_str s = {0};
    weft_str_add(&s, "", 0);
    ck_assert_str_eq(s.data, "");
    for (int i = 0; i < 1000; i++)
        weft_str_addf(&s, "%d,", i);
    ck_assert_uint_eq(s.size, 10 * 2 + 90 * 3 + 900 * 4);
    ck_assert_uint_eq(strlen(s.data), s.size);
    ck_assert(!s.failed);
    weft_str_clear(&s);
    ck_assert_str_eq(s.data, "");
    weft_str_adds(&s, "warp");
    weft_str_add(&s, " and\0weft", 9);
    ck_assert_uint_eq(s.size, 13);
    ck_assert_mem_eq(s.data, "warp and\0weft", 14);
    /* A size that no machine has: cut, marked, and nothing more gets in until it is cleared. */
    weft_str_add(&s, "x", SIZE_MAX - 5);
    ck_assert(s.failed);
    weft_str_adds(&s, "y");
    ck_assert_uint_eq(s.size, 13);
    weft_str_clear(&s);
    weft_str_adds(&s, "y");
    ck_assert_str_eq(s.data, "y");
    weft_str_done(&s);
    ck_assert_ptr_null(s.data);
    weft_str_done(NULL);
}
END_TEST

START_TEST(json)
{
    static const struct {
        const char *text;
        size_t n;
        const char *json;
    } cases[] = {
        {"", 0, "\"\""},
        {"plain", 5, "\"plain\""},
        {"a\"b\\c/", 6, "\"a\\\"b\\\\c/\""},
        {"\n\r\t\b\x1b\x7f", 6, "\"\\n\\r\\t\\u0008\\u001b\\u007f\""},
        {"a\0b", 3, "\"a\\u0000b\""},
        {"héé€😀", 12, "\"héé€😀\""},
        {"a\xff\xc3", 3, "\"a\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {"\xC2\x9B\xE2\x80\xA8\xE2\x80\xAE", 8, "\"\\u009b\\u2028\\u202e\""},
    };
    struct weft_str s = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        weft_str_clear(&s);
        weft_str_add_json(&s, cases[i].text, cases[i].n);
        ck_assert_str_eq(s.data, cases[i].json);
    }
    weft_str_done(&s);
}
END_TEST

/* ---- log ---- */

#define FORMAT(buf, n, ...)                                                                      \
    weft_log_format((buf), (n), WEFT_LOG_WARN, "test", (const struct weft_field[]){__VA_ARGS__}, \
                    sizeof((const struct weft_field[]){__VA_ARGS__}) / sizeof(struct weft_field))

/* A line without its time, which is checked here. */
static const char *after_time(const char *line)
{
    static const char shape[] = "time=dddd-dd-ddTdd:dd:dd.dddZ ";
    for (size_t i = 0; shape[i] != '\0'; i++) {
        if (shape[i] == 'd')
            ck_assert_msg(line[i] >= '0' && line[i] <= '9', "%s", line);
        else
            ck_assert_msg(line[i] == shape[i], "%s", line);
    }
    return line + sizeof shape - 1;
}

START_TEST(log_format)
{
    char line[512];
    unsetenv("JOURNAL_STREAM");
    FORMAT(line, sizeof line, WEFT_STR("device", "pi5-a"), WEFT_U64("epoch", UINT64_MAX),
           WEFT_I64("delta", -5), WEFT_F64("ms", 14.25), WEFT_F64("bad", NAN));
    ck_assert_str_eq(after_time(line), "level=warn event=test device=pi5-a "
                                       "epoch=18446744073709551615 delta=-5 ms=14.25 bad=nan\n");
    weft_log_set_node("jetson");
    weft_err err = {0};
    weft_fail(&err, WEFT_ELOST, "no heartbeat");
    FORMAT(line, sizeof line, WEFT_ERR(&err));
    weft_log_set_node(NULL);
    ck_assert_str_eq(after_time(line),
                     "level=warn event=test node=jetson error=LOST text=\"no heartbeat\"\n");
}
END_TEST

START_TEST(log_hostile)
{
    static const struct {
        const char *value, *text;
    } cases[] = {
        {"", "v=\"\""},
        {NULL, "v=\"\""},
        {"a>", "v=a>"},
        {"a b", "v=\"a b\""},
        {"a=b", "v=\"a=b\""},
        {"a\"b", "v=\"a\\\"b\""},
        {"a\\b", "v=\"a\\\\b\""},
        {"x\nlevel=error event=forged", "v=\"x\\nlevel=error event=forged\""},
        {"x\r\x1b[2J", "v=\"x\\r\\u001b[2J\""},
        {"\xff", "v=\"\xEF\xBF\xBD\""},
        {"\xC2\x85", "v=\"\\u0085\""},
        {"\xE2\x80\xA8", "v=\"\\u2028\""},
        {"grün", "v=grün"},
    };
    unsetenv("JOURNAL_STREAM");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char line[512], want[512];
        FORMAT(line, sizeof line, WEFT_STR("v", cases[i].value), WEFT_U64("n", 1));
        snprintf(want, sizeof want, "level=warn event=test %s n=1\n", cases[i].text);
        ck_assert_str_eq(after_time(line), want);
    }
}
END_TEST

START_TEST(log_cut)
{
    /* Every size of the buffer, values of plain, quoted and two-byte characters: always one whole
     * line that says that it was cut, within the buffer, and never half a character or escape. */
    static const char *const units[] = {"a", "a b", "é", "\x1b", "\xff"};
    unsetenv("JOURNAL_STREAM");
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        char value[400] = "";
        while (strlen(value) + 4 < sizeof value)
            strcat(value, units[u]);
        for (size_t n = 17; n <= 300; n++) {
            char *line = malloc(n);
            ck_assert_ptr_nonnull(line);
            FORMAT(line, n, WEFT_STR("key", value), WEFT_U64("last", 7));
            size_t size = strlen(line);
            ck_assert_uint_lt(size, n);
            ck_assert_ptr_eq(strchr(line, '\n'), line + size - 1);
            ck_assert_msg(strcmp(line + size - 10, " cut=true\n") == 0, "%s", line);
            ck_assert(weft_utf8_valid(line, size, NULL));
            ck_assert_ptr_null(strstr(line, "last="));
            int quotes = 0;
            for (const char *p = line; (p = strchr(p, '"')) != NULL; p++)
                quotes++;
            ck_assert_int_eq(quotes % 2, 0);
            free(line);
        }
    }
}
END_TEST

START_TEST(log_journal)
{
    struct stat st;
    char stream[64], line[256];
    ck_assert_int_eq(fstat(STDERR_FILENO, &st), 0);
    snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    FORMAT(line, sizeof line, WEFT_U64("n", 1));
    ck_assert_str_eq(line, "<4>level=warn event=test n=1\n");
    /* Inherited, but stderr goes elsewhere. */
    snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino + 1);
    setenv("JOURNAL_STREAM", stream, 1);
    FORMAT(line, sizeof line, WEFT_U64("n", 1));
    after_time(line);
    setenv("JOURNAL_STREAM", "rubbish", 1);
    FORMAT(line, sizeof line, WEFT_U64("n", 1));
    after_time(line);
    unsetenv("JOURNAL_STREAM");
}
END_TEST

START_TEST(log_levels)
{
    enum weft_log_level level = WEFT_LOG_COUNT;
    weft_err err = {0};
    ck_assert_int_eq(weft_log_parse_level("debug", &level, &err), 0);
    ck_assert_int_eq(level, WEFT_LOG_DEBUG);
    ck_assert_int_eq(weft_log_parse_level("error", &level, &err), 0);
    ck_assert_int_eq(level, WEFT_LOG_ERROR);
    ck_assert_int_eq(weft_log_parse_level("loud", &level, &err), -WEFT_ECONFIG);
    ck_assert_str_eq(err.text, "log level: found 'loud', expected debug, info, warn or error");

    /* What reaches stderr: one write for each line at or above the level. */
    int pipe_fds[2], saved = dup(STDERR_FILENO);
    ck_assert_int_eq(pipe(pipe_fds), 0);
    ck_assert_int_ge(dup2(pipe_fds[1], STDERR_FILENO), 0);
    weft_log_set_level(WEFT_LOG_WARN);
    weft_log(WEFT_LOG_INFO, "dropped", WEFT_U64("n", 1));
    weft_log(WEFT_LOG_WARN, "kept", WEFT_U64("n", 2));
    weft_log_set_level(WEFT_LOG_INFO);
    weft_log(WEFT_LOG_DEBUG, "dropped", WEFT_U64("n", 3));
    weft_log_fields(WEFT_LOG_INFO, "bare", NULL, 0);
    ck_assert_int_ge(dup2(saved, STDERR_FILENO), 0);
    close(saved);
    close(pipe_fds[1]);
    char text[1024];
    ssize_t n = read(pipe_fds[0], text, sizeof text - 1);
    close(pipe_fds[0]);
    ck_assert_int_gt(n, 0);
    text[n] = '\0';
    char *second = strchr(text, '\n');
    ck_assert_ptr_nonnull(second);
    *second++ = '\0';
    ck_assert_str_eq(after_time(text), "level=warn event=kept n=2");
    ck_assert_str_eq(after_time(second), "level=info event=bare\n");
}
END_TEST

static void add_case(Suite *s, const char *name, const TTest *const *tests)
{
    TCase *tc = tcase_create(name);
    for (; *tests != NULL; tests++)
        tcase_add_test(tc, *tests);
    suite_add_tcase(s, tc);
}

int main(void)
{
    Suite *s = suite_create("text");
    add_case(s, "err", (const TTest *[]){err_set_and_prefix, err_errno, err_cut, err_codes, NULL});
    add_case(s, "arena",
             (const TTest *[]){arena_limit, arena_pieces, arena_arrays_and_strings, NULL});
    add_case(s, "numbers",
             (const TTest *[]){parse_size, parse_size_refuses, parse_u64, parse_double, format_size,
                               format_duration, NULL});
    add_case(s, "words", (const TTest *[]){near_miss, utf8, quote, growing_string, json, NULL});
    add_case(s, "log",
             (const TTest *[]){log_format, log_hostile, log_cut, log_journal, log_levels, NULL});
    return weft_test_main(s);
}
