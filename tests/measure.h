/*
 * What benchmarks and tests of resources measure: memory and processor time of a process as the
 * kernel counts them, figures out of JSON, and models large enough for figures to mean something.
 */
#ifndef WEFT_TESTS_MEASURE_H
#define WEFT_TESTS_MEASURE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/gguf_writer.h"

struct measure_memory {
    uint64_t rss_bytes;
    uint64_t file_bytes; /* pages of mapped files: program and libraries */
    uint64_t own_bytes;  /* the rest */
    uint64_t peak_bytes; /* of rss_bytes, since the start or the last measure_memory_forget */
};

/* Fails the test when the process is not there. */
void measure_memory(pid_t pid, struct measure_memory *ret);
/* Lets the peak start anew from what is resident now. */
void measure_memory_forget(pid_t pid);
/* Time that the threads living now have run on a processor. */
uint64_t measure_cpu_ns(pid_t pid);
uint64_t measure_clock_ns(void);
void measure_sleep_ns(uint64_t ns);

/* The number behind the first "key": in a JSON text; fails the test when there is none. */
double measure_json(const char *json, const char *key);
/* The number behind the last "key=" of a logfmt file; fails the test when there is none. */
uint64_t measure_log(const char *path, const char *key);
/* Sorts v. */
double measure_median(double *v, size_t n);

/* The demo model's absolute path, malloc'ed; fails the test when it is not there. */
char *measure_demo(void);
/* Writes a random llama with the demo model's vocabulary and chat template (o->vocab is set by it)
 * into the temporary directory and returns its path, malloc'ed. */
char *measure_model(const char *name, const struct gguf_writer_llama *o);

#endif
