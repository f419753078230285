/*
 * Fuzzers: every tests/fuzz_NAME.c is one function that takes any bytes and must come back. What
 * the code under test promises is checked on the way; a broken promise aborts.
 *
 * In the tree V=fuzz the function keeps the name libFuzzer calls and is a program of its own
 * (scripts/fuzz). In the other trees the Makefile names it weft_fuzz_NAME, and tests/test_corpus.c
 * runs the files of tests/corpus/NAME/ through it.
 */
#ifndef WEFT_TESTS_FUZZ_H
#define WEFT_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Borrows data; always 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int weft_fuzz_frame(const uint8_t *data, size_t size);
int weft_fuzz_gguf(const uint8_t *data, size_t size);
int weft_fuzz_grammar(const uint8_t *data, size_t size);
int weft_fuzz_template(const uint8_t *data, size_t size);
int weft_fuzz_tokenizer(const uint8_t *data, size_t size);
int weft_fuzz_yaml(const uint8_t *data, size_t size);

/* As assert, but never compiled out. */
#define FUZZ_EXPECT(what)                                                       \
    do {                                                                        \
        if (!(what)) {                                                          \
            fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #what); \
            abort();                                                            \
        }                                                                       \
    } while (0)

#endif
