/*
 * Test harness: a Check suite as a program, with skips that give their reason.
 *
 * Every tests/test_*.c is one program:
 *
 *     int main(void) { Suite *s = suite_create("gguf"); …; return weft_test_main(s); }
 *
 * It ends with one line "N passed, N failed, N skipped" on stdout, which tests/run adds up. A test
 * is one START_TEST; a loop test counts each iteration. A test that cannot run here calls
 * weft_test_skip("reason") and returns.
 */
#ifndef WEFT_TESTS_HARNESS_H
#define WEFT_TESTS_HARNESS_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int weft_test_main(Suite *suite);
/* Runs a body that is no test, such as a benchmark, which may use helpers that assert. A failed
 * assertion ends it, its text goes to stderr, and the result, the program's exit status, is 1. */
int weft_test_program(void (*body)(void));
/* Counts the running test as skipped and prints the reason; return from the test right after. */
void weft_test_skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Seed of random tests: WEFT_TEST_SEED, or from the clock; printed when a test fails. */
uint64_t weft_test_seed(void);
/* xorshift64*: the tests' random numbers. */
uint64_t weft_test_random(uint64_t *state);
double weft_test_uniform(uint64_t *state); /* [0, 1) */

/* A file below tests/, configs/ or ../shared, found from the source tree whatever the working
 * directory is (WEFT_SOURCE_DIR, set by the Makefile's tests/run); an absolute path is taken as it
 * is. NULL when it is not there. The result is static, good until the next call. */
const char *weft_test_path(const char *relative);
/* The whole file, malloc'ed with a 0 behind it; NULL when it is not there. */
uint8_t *weft_test_read(const char *relative, size_t *ret_size);
/* A fresh directory below TMPDIR, removed at exit of the program. */
const char *weft_test_tmpdir(void);

#endif
