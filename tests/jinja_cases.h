/*
 * Snippets of Jinja and what they give, computed with jinja2 3.1 (ImmutableSandboxedEnvironment,
 * trim_blocks and lstrip_blocks on, loop controls, and the tojson, raise_exception and strftime_now
 * of model hubs, at 2026-01-02 03:04:05). Each table ends with NULL.
 */
#ifndef WEFT_TESTS_JINJA_CASES_H
#define WEFT_TESTS_JINJA_CASES_H

struct jinja_sample {
    const char *source, *text;
};

extern const char jinja_input[]; /* JSON: the variables of all snippets */
extern const struct jinja_sample jinja_statements[], jinja_expressions[], jinja_filters[],
    jinja_methods[];

#endif
