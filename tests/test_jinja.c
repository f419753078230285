/*
 * The Jinja interpreter, construct by construct: what jinja2 gives (tests/jinja_cases.c), errors
 * with their place, and limits.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/jinja_run.h"
#include "coordinator/template.h"
#include "tests/harness.h"
#include "tests/jinja_cases.h"

#define COUNT(table) ((int)(sizeof(table) / sizeof(table)[0]))

/* Source, place and start of the error's text. */
static const struct {
    const char *source, *place, *phrase;
} refused[] = {
    /* When it is opened. */
    {"{{ 'x' | foo }}", "1:10", "filter 'foo' is not supported"},
    {"a\n {{ 'x' is foo }}", "2:12", "test 'foo' is not supported"},
    {"{% for x in [] %}{{ x | urlize }}{% endfor %}", "1:25", "filter 'urlize' is not supported"},
    {"{{ '\xC3\xA4' | foo }}", "1:10", "filter 'foo'"},
    {"{% include 'x' %}", "1:4", "tag 'include' is not supported"},
    {"{% import 'x' as y %}", "1:4", "tag 'import' is not supported"},
    {"{%- extends 'x' %}", "1:5", "tag 'extends' is not supported"},
    {"{% block x %}{% endblock %}", "1:4", "tag 'block' is not supported"},
    {"{% do x %}", "1:4", "tag 'do' is not supported"},
    {"{% foo %}", "1:4", "found 'foo', expected a tag such as for, if or set"},
    {"{% endif %}", "1:4", "found 'endif', expected a tag"},
    {"{% %}", "1:4", "found the end of the tag, expected a tag"},
    {"{% if true %}a", "1:14", "block without its 'endif'"},
    {"{% for x in y %}{% if x %}{% endfor %}", "1:30", "found 'endfor'"},
    {"{% macro f() %}", "1:16", "block without its 'endmacro'"},
    {"{% raw %}a", "1:3", "'raw' block without an end"},
    {"{# a\n", "1:3", "comment without an end"},
    {"{{ 1", "1:5", "found the end of the template, expected '}}'"},
    {"{% if true", "1:11", "found the end of the template, expected '%}'"},
    {"{{ 'abc }}", "1:4", "string without an end"},
    {"{{ 'abc\\", "1:4", "string without an end"},
    {"{{ }}", "1:4", "found the end of the tag, expected a value"},
    {"{{ 1 + }}", "1:8", "found the end of the tag, expected a value"},
    {"{{ or }}", "1:4", "found 'or', expected a name"},
    {"{{ \x01 }}", "1:4", "found byte 0x01, expected a value"},
    {"{{ a b }}", "1:6", "found 'b', expected '}}' or an operator"},
    {"{{ (1, 2 }}", "1:10", "found '}', expected ')'"},
    {"{{ [1 2] }}", "1:7", "found a number, expected ','"},
    {"{{ {'a' 1} }}", "1:9", "found a number, expected ':'"},
    {"{{ a[] }}", "1:6", "found ']', expected a value"},
    {"{{ a. }}", "1:7", "found the end of the tag, expected a name"},
    {"{{ a is b is c }}", "1:11", "tests cannot be chained with 'is'"},
    {"{{ f(*a) }}", "1:6", "arguments with '*' are not supported"},
    {"{{ f(a=1, 2) }}", "1:11", "found a number, expected the name of an argument"},
    {"{{ 99999999999999999999 }}", "1:4", "found a number that is malformed"},
    {"{{ 12ab }}", "1:4", "found a number that is malformed"},
    {"{{ '\\ud800' }}", "1:6", "escape '\\u' is not supported"},
    {"{{ '\\N{DASH}' }}", "1:6", "escape '\\N' is not supported"},
    {"{% for a.b in c %}{% endfor %}", "1:9", "found '.', expected 'in'"},
    {"{% for 1 in c %}{% endfor %}", "1:8", "only names can be assigned to"},
    {"{% for loop in c %}{% endfor %}", "1:8", "'loop' cannot be the variable"},
    {"{% for a in b recursive %}{% endfor %}", "1:15", "recursive for blocks"},
    {"{% set 'a' = 1 %}", "1:8", "only names can be assigned to"},
    {"{% set a[0] = 1 %}", "1:9", "found '[', expected '%}'"},
    {"{% break %}", "1:4", "'break' outside of a for block"},
    {"{% for a in b %}{% macro f() %}{% continue %}{% endmacro %}{% endfor %}", "1:35",
     "'continue' outside of a for block"},
    {"{% macro f(a=1, b) %}{% endmacro %}", "1:17", "an argument without default"},
    {"{% call 1 %}{% endcall %}", "1:9", "found an expression, expected the call"},
    {"{% if true %}{% endif x %}", "1:23", "found 'x', expected '%}'"},
    /* When it is reached. */
    {"{% if true %}{{ 'x' | foo }}{% endif %}", "1:23", "filter 'foo' is not supported"},
    {"{{ 'x'.zfill(3) }}", "1:8", "method 'zfill' is not supported"},
    {"{{ cycler() }}", "1:4", "function 'cycler' is not supported"},
    {"{{ nope.foo }}", "1:9", "'nope' is undefined"},
    {"{{ messages[0].foo.bar }}", "1:20", "'dict object' has no attribute 'foo'"},
    {"{{ messages[7].bar }}", "1:16", "list object has no element"},
    {"{{ 'x' + nope }}", "1:8", "'nope' is undefined"},
    {"{{ nope | int }}", "1:11", "'nope' is undefined"},
    {"{{ nope() }}", "1:4", "'nope' is undefined"},
    {"{{ (1 if false) + 1 }}", "1:17", "an inline if whose condition is false"},
    {"{{ empty | first + 1 }}", "1:18", "the first item of an empty sequence is undefined"},
    {"{{ 'a'() }}", "1:4", "'str' object is not callable"},
    {"{{ 'x' + 1 }}", "1:8", "can only concatenate str (not \"int\") to str"},
    {"{{ 1 + 'x' }}", "1:6", "'+' is not supported between int and str"},
    {"{{ 1 < 'a' }}", "1:6", "'<' is not supported between int and str"},
    {"{{ [1] + (2,) }}", "1:8", "'+' is not supported between list and tuple"},
    {"{{ ['b', 1] | sort }}", "1:15", "'<' is not supported between int and str"},
    {"{{ -'a' }}", "1:4", "a sign before str"},
    {"{{ 1 in 'a' }}", "1:6", "'in <string>' requires string as left operand, not int"},
    {"{{ 1 / 0 }}", "1:6", "division by zero"},
    {"{{ 1 % 0 }}", "1:6", "division by zero"},
    {"{{ 9223372036854775807 + 1 }}", "1:24", "a number that does not fit 64 bits"},
    {"{{ 2 ** 64 }}", "1:6", "a number that does not fit 64 bits"},
    {"{{ 5 | length }}", "1:8", "object of type 'int' has no len()"},
    {"{{ words | map('upper') | length }}", "1:27", "object of type 'generator' has no len()"},
    {"{{ words | map('upper') | tojson }}", "1:27",
     "Object of type generator is not JSON serializable"},
    {"{{ {(1, 2): 3} | tojson }}", "1:18", "JSON keys must be str, int, float, bool or None"},
    {"{{ words | map('foo') | list }}", "1:12", "filter 'foo' is not supported"},
    {"{{ words | select('foo') | list }}", "1:12", "test 'foo' is not supported"},
    {"{{ {[1]: 2} }}", "1:5", "list cannot be the key of a dict"},
    {"{{ words | join(z=1) }}", "1:12", "join: argument 'z' is not known"},
    {"{{ 'a' | replace('a', 'b', 1, 2) }}", "1:10", "replace takes at most 3 arguments, found 4"},
    {"{{ 'a,b'.split('') }}", "1:10", "split: the separator is empty"},
    {"{{ '{:>4}'.format(1) }}", "1:12", "format: the field '{:>4}' is not supported"},
    {"{{ '%x' % 1 }}", "1:9", "the format '%x' is not supported"},
    {"{{ '%s' % (1, 2) }}", "1:9", "2 arguments for a format of 1"},
    {"{{ words.append('x') }}", "1:10", "access to attribute 'append' of 'list object' is unsafe."},
    {"{{ d.pop('a') }}", "1:6", "access to attribute 'pop' of 'dict object' is unsafe."},
    {"{% set d.x = 1 %}", "1:9", "cannot assign attribute on non-namespace object"},
    {"{% set a, b = 1, 2, 3 %}", "1:8", "found 3 values to unpack, expected 2"},
    {"{% for x in none %}{% endfor %}", "1:13", "NoneType cannot be iterated over"},
    {"{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "1:34", "macro 'f' takes not more than 1"},
    {"{% macro f(a) %}{% endmacro %}{{ f(z=2) }}", "1:34", "macro 'f' has no argument"},
    {"{% macro f(a) %}{% endmacro %}{{ f(1, a=2) }}", "1:12", "argument 'a' is given twice"},
    {"{{ range(200000) }}", "1:4", "range of more than 100000 numbers"},
    {"{{ range(1, 2, 0) }}", "1:4", "range: the step cannot be zero"},
    {"{{ 'abc'[::0] }}", "1:9", "a slice's step cannot be zero"},
    {"{{ range }}", "1:4", "the text of a function is not supported"},
    {"{{ loop.cycle() }}", "1:9", "'loop' is undefined"},
};

static json_t *input;

static int count(const struct jinja_sample *pairs)
{
    int n = 0;
    while (pairs[n].source != NULL)
        n++;
    return n;
}

static int render(const char *source, struct weft_rendered *out, weft_err *err)
{
    struct weft_template *t = NULL;
    const struct tm now = {.tm_year = 126,
                           .tm_mday = 2,
                           .tm_wday = 5,
                           .tm_yday = 1,
                           .tm_hour = 3,
                           .tm_min = 4,
                           .tm_sec = 5};
    const struct weft_template_vars vars = {
        .bos_token = "<s>", .bos_size = 3, .eos_token = "</s>", .eos_size = 4, .now = &now};
    const size_t n = strlen(source);
    char *exact = malloc(n > 0 ? n : 1); /* without a 0 behind it, so that ASan sees overruns */
    memcpy(exact, source, n);
    *out = (struct weft_rendered){0};
    int r = weft_template_open(exact, n, &t, err);
    free(exact);
    if (r == 0)
        r = weft_template_render_json(t, &vars, input, out, err);
    weft_template_close(t);
    return r;
}

static void expect(const struct jinja_sample *p)
{
    struct weft_rendered out;
    weft_err err = {0};
    ck_assert_msg(render(p->source, &out, &err) == 0, "%s: %s", p->source, err.text);
    const char *text = out.text.size > 0 ? out.text.data : "";
    ck_assert_msg(out.text.size == strlen(p->text) && strcmp(text, p->text) == 0,
                  "%s\ngave:     %s\nexpected: %s", p->source, text, p->text);
    weft_rendered_done(&out);
}

START_TEST(runs_statements)
{
    expect(&jinja_statements[_i]);
}
END_TEST

START_TEST(runs_expressions)
{
    expect(&jinja_expressions[_i]);
}
END_TEST

START_TEST(runs_filters)
{
    expect(&jinja_filters[_i]);
}
END_TEST

START_TEST(runs_methods)
{
    expect(&jinja_methods[_i]);
}
END_TEST

START_TEST(refuses)
{
    struct weft_rendered out;
    weft_err err = {0};
    char expected[512];
    ck_assert_int_eq(render(refused[_i].source, &out, &err), -WEFT_EUNSUPPORTED);
    snprintf(expected, sizeof expected, "chat template %s: %s", refused[_i].place,
             refused[_i].phrase);
    ck_assert_msg(strncmp(err.text, expected, strlen(expected)) == 0,
                  "%s\ngave:     %s\nexpected: %s", refused[_i].source, err.text, expected);
    weft_rendered_done(&out);
}
END_TEST

/* The template's own words, on one line. */
START_TEST(raises)
{
    struct weft_rendered out;
    weft_err err = {0};
    ck_assert_int_eq(render("\n{{ raise_exception('no ' ~ 5 ~ '\n\x1b[m!') }}", &out, &err),
                     -WEFT_EUSAGE);
    ck_assert_str_eq(err.text,
                     "chat template 2:4: the template refuses this conversation: no 5  [m!");
    weft_rendered_done(&out);
}
END_TEST

/* ------------------------------------------------------------------ limits */

static void repeat(struct weft_str *s, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        weft_str_adds(s, text);
}

static const struct {
    const char *head, *open, *inner, *close, *tail;
    unsigned most; /* so many are allowed */
    const char *phrase;
} deep[] = {
    {"", "{% if true %}", "x", "{% endif %}", "", JINJA_NESTING_MAX, "nested more than 100 deep"},
    {"{{ 'x' ~ ", "[", "", "]", " }}", JINJA_NESTING_MAX / 2, "nested more than 100 deep"},
    {"{{ ", "not ", "true", "", " }}", JINJA_NESTING_MAX - 1, "nested more than 100 deep"},
    {"{{ ", "-", "1", "", " }}", JINJA_NESTING_MAX - 1, "nested more than 100 deep"},
    {"{{ 1", " + 1", "", "", " }}", JINJA_HEIGHT_MAX, "more than 400 levels"},
    {"{{ words", "[0]", "", "", " }}", JINJA_HEIGHT_MAX, "more than 400 levels"},
    {"{{ 'x'", " | trim", "", "", " }}", JINJA_HEIGHT_MAX, "more than 400 levels"},
};

START_TEST(nesting)
{
    for (unsigned more = 0; more < 2; more++) {
        struct weft_str s = {0};
        struct weft_rendered out;
        weft_err err = {0};
        weft_str_adds(&s, deep[_i].head);
        repeat(&s, deep[_i].open, deep[_i].most + more);
        weft_str_adds(&s, deep[_i].inner);
        repeat(&s, deep[_i].close, deep[_i].most + more);
        weft_str_adds(&s, deep[_i].tail);
        int r = render(s.data, &out, &err);
        if (more == 0)
            ck_assert_msg(r == 0 || strstr(err.text, deep[_i].phrase) == NULL, "%s", err.text);
        else
            ck_assert_msg(r < 0 && strstr(err.text, deep[_i].phrase) != NULL, "%s", err.text);
        weft_rendered_done(&out);
        weft_str_done(&s);
    }
}
END_TEST

/* Chains whose operands stand in a list are as long as the source may be. */
START_TEST(long_chains)
{
    static const struct {
        const char *head, *link, *tail, *text;
    } forms[] = {{"{{ ''", " ~ ''", " ~ 'x' }}", "x"},
                 {"{% if 0", " or 0", " or 1 %}x{% endif %}", "x"},
                 {"{% if 0 %}", "{% elif 0 %}", "{% else %}x{% endif %}", "x"},
                 {"", "{# c #}", "x", "x"}};
    struct weft_str s = {0};
    weft_str_adds(&s, forms[_i].head);
    repeat(&s, forms[_i].link, 20000);
    weft_str_adds(&s, forms[_i].tail);
    const struct jinja_sample p = {s.data, forms[_i].text};
    expect(&p);
    weft_str_done(&s);
}
END_TEST

/* What would run for ever, or fill the memory, ends with the limit's name. */
static const struct {
    const char *source;
    int code;
    const char *phrase;
} endless[] = {
    {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
     WEFT_EUNSUPPORTED, "more than"},
    {"{{ range(99999) | list | map('string') | join | length }}{% for i in range(99999) %}"
     "{{ [i] * 2000 == [] }}{% endfor %}",
     WEFT_EUNSUPPORTED, "more than"},
    {"{% macro a(n) %}{{ a(n + 1) }}{% endmacro %}{{ a(0) }}", WEFT_EUNSUPPORTED,
     "nested more than 600 deep"},
    {"{% set ns = namespace(s='ab') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}"
     "{% endfor %}",
     WEFT_EUNSUPPORTED, "more than"},
    {"{{ ('xy' * 10000000)[0] }}{{ 'xyz' * 999999999 }}", WEFT_EUNSUPPORTED,
     "a repetition of more than 268435456 bytes"},
    {"{% set a = 'a' * 9000000 %}{{ a | length }}{{ a.rfind(a[1:] ~ 'b') }}", WEFT_EUNSUPPORTED,
     "more than 8388608 steps"},
    {"{{ ('a' * 4000000).strip('b' * 4000000 ~ 'a') }}", WEFT_EUNSUPPORTED,
     "more than 8388608 steps"},
    {"{% set a = 'x' * 8000000 %}{% for i in range(100) %}{% set b = a.startswith(a) %}{% endfor "
     "%}",
     WEFT_EUNSUPPORTED, "more than 8388608 steps"},
    {"{% set a = 'x' * 8000000 %}{% for i in range(100) %}{% set b = a.removesuffix(a) %}"
     "{% endfor %}",
     WEFT_EUNSUPPORTED, "more than 8388608 steps"},
    {"{% set a = ' ' * 8000000 %}{% for i in range(100) %}{% set b = a | int %}{% endfor %}",
     WEFT_EUNSUPPORTED, "more than 8388608 steps"},
    {"{% set a = ' ' * 8000000 %}{% for i in range(100) %}{% set b = a | float %}{% endfor %}",
     WEFT_EUNSUPPORTED, "more than 8388608 steps"},
    {"{% set p = 'x' * 1000000 %}{% set d = {p~1: 1, p~2: 1, p~3: 1, p~4: 1, p~5: 1, p~6: 1, "
     "p~7: 1, p~8: 1, p~9: 1, p~10: 1, p~11: 1, p~12: 1, p~13: 1} %}{% set k = p ~ 7 %}"
     "{% for i in range(999) %}{% set b = d[k] %}{% endfor %}",
     WEFT_EUNSUPPORTED, "more than 8388608 steps"},
    {"{% for i in range(17) %}{{ 'x' * 1000000 }}{% endfor %}", WEFT_ECONTEXT,
     "more than 16777216 bytes of text"},
    {"{% set ns = namespace(l=[1]) %}{% for i in range(40) %}{% set ns.l = [ns.l, ns.l] %}"
     "{% endfor %}{{ ns.l }}",
     WEFT_EUNSUPPORTED, "more than"},
    {"{% set ns = namespace(l=[1]) %}{% for i in range(900) %}{% set ns.l = [ns.l] %}"
     "{% endfor %}{{ ns.l | tojson }}",
     WEFT_EUNSUPPORTED, "nested more than 600 deep"},
    {"{% set ns = namespace(l=[1]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}"
     "{% endfor %}{{ ns.l == ns.l }}",
     WEFT_EUNSUPPORTED, "nested more than 600 deep"},
};

START_TEST(ends)
{
    struct weft_rendered out;
    weft_err err = {0};
    ck_assert_int_eq(render(endless[_i].source, &out, &err), -endless[_i].code);
    ck_assert_msg(strstr(err.text, endless[_i].phrase) != NULL, "%s", err.text);
    weft_rendered_done(&out);
}
END_TEST

/* Twelve thousand names and a million look-ups that pass by all of them. */
START_TEST(many_names)
{
    struct weft_str s = {0};
    struct weft_rendered out;
    weft_err err = {0};
    for (int i = 0; i < 12000; i++)
        weft_str_addf(&s, "{%%set a%d=1%%}", i);
    weft_str_adds(&s, "{% for i in range(1000) %}{% for j in range(1000) %}{{ nope }}{% endfor %}"
                      "{% endfor %}");
    ck_assert_int_eq(render(s.data, &out, &err), -WEFT_EUNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.text, "more than 8388608 steps"));
    weft_rendered_done(&out);
    weft_str_done(&s);
}
END_TEST

/* Whether a macro takes more arguments than it lists is looked for in its whole body each time. */
START_TEST(long_macro)
{
    struct weft_str s = {0};
    struct weft_rendered out;
    weft_err err = {0};
    weft_str_adds(&s, "{% macro m(a) %}{% if false %}");
    repeat(&s, "{{ a }}", 20000);
    weft_str_adds(&s, "{{ varargs }}{% endif %}{% endmacro %}{% for i in range(500) %}"
                      "{% set b = m(1, 2) %}{% endfor %}");
    ck_assert_int_eq(render(s.data, &out, &err), -WEFT_EUNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.text, "more than 8388608 steps"));
    weft_rendered_done(&out);
    weft_str_done(&s);
}
END_TEST

/* A text that grows by joining is not copied each time: this would take 50 GB of copies. */
START_TEST(joining_is_linear)
{
    static const struct jinja_sample p = {
        "{% set ns = namespace(s='') %}{% for i in range(100000) %}"
        "{% set ns.s = ns.s + 'abcdefghij' %}{% endfor %}{{ ns.s | length }}",
        "1000000"};
    expect(&p);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jinja");
    TCase *tc = tcase_create("jinja");
    input = json_loads(jinja_input, 0, NULL);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, runs_statements, 0, count(jinja_statements));
    tcase_add_loop_test(tc, runs_expressions, 0, count(jinja_expressions));
    tcase_add_loop_test(tc, runs_filters, 0, count(jinja_filters));
    tcase_add_loop_test(tc, runs_methods, 0, count(jinja_methods));
    tcase_add_loop_test(tc, refuses, 0, COUNT(refused));
    tcase_add_test(tc, raises);
    tcase_add_loop_test(tc, nesting, 0, COUNT(deep));
    tcase_add_loop_test(tc, long_chains, 0, 4);
    tcase_add_loop_test(tc, ends, 0, COUNT(endless));
    tcase_add_test(tc, many_names);
    tcase_add_test(tc, long_macro);
    tcase_add_test(tc, joining_is_linear);
    suite_add_tcase(suite, tc);
    int r = weft_test_main(suite);
    json_decref(input);
    return r;
}
