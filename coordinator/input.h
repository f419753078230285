/*
 * Input: texts read whole before anything is started: prompt files and standard input.
 */
#ifndef WEFT_COORDINATOR_INPUT_H
#define WEFT_COORDINATOR_INPUT_H

#include "base/text.h"
#include "coordinator/options.h"

#define WEFT_INPUT_MAX (16u << 20) /* more than any context holds */

/* Appends a file ("-": standard input); -WEFT_EUSAGE with the name and what went wrong. */
int weft_input_file(const char *path, struct weft_str *out, weft_err *err) WEFT_MUST_USE;
/* The prompt of the command line: the argument, "-" or --prompt-file. */
int weft_input_prompt(const struct weft_options *opt, struct weft_str *out,
                      weft_err *err) WEFT_MUST_USE;

#endif
