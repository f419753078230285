/*
 * Published chat templates: every conversation of ../shared/templates gives exactly the text that
 * jinja2 gives, or an error where jinja2 has one, with the template's own words when it was the
 * template that refused.
 */
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "coordinator/template.h"
#include "tests/harness.h"

#define FOLDER "../shared/templates"
#define FILES 43

static char *names[FILES];
static int n_names;

static int is_json(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot != NULL && strcmp(dot, ".json") == 0;
}

static void list_files(void)
{
    struct dirent **entries;
    const char *path = weft_test_path(FOLDER);
    int n = path != NULL ? scandir(path, &entries, is_json, alphasort) : 0;
    for (int i = 0; i < n; i++) {
        if (n_names < FILES)
            names[n_names++] = strdup(entries[i]->d_name);
        free(entries[i]);
    }
    if (n > 0)
        free(entries);
}

static const char *text_of(const json_t *file, const char *key, size_t *size)
{
    const json_t *v = json_object_get(file, key);
    ck_assert_msg(json_is_string(v), "no text %s", key);
    *size = json_string_length(v);
    return json_string_value(v);
}

/* The spans must name text that is there, ascending and apart. */
static void check_spans(const struct weft_rendered *out)
{
    size_t at = 0;
    for (size_t i = 0; i < out->n_spans; i++) {
        ck_assert_uint_ge(out->spans[i].start, at);
        at = out->spans[i].start + out->spans[i].size;
        ck_assert_uint_le(at, out->text.size);
    }
}

static void render_case(const char *file, const char *name, const struct weft_template *t,
                        const struct weft_template_vars *vars, const json_t *c)
{
    struct weft_rendered out = {0};
    weft_err err = {0};
    const json_t *output = json_object_get(c, "output"), *error = json_object_get(c, "error");
    int r = weft_template_render_json(t, vars, json_object_get(c, "input"), &out, &err);
    if (output == NULL) {
        ck_assert_msg(r < 0, "%s, %s: no error, expected %s", file, name, json_string_value(error));
        if (r == -WEFT_EUSAGE)
            ck_assert_msg(strstr(err.text, json_string_value(error)) != NULL,
                          "%s, %s: %s, expected %s", file, name, err.text,
                          json_string_value(error));
        if (getenv("WEFT_TEST_VERBOSE") != NULL)
            printf("%s, %s: %s (%s)\n", file, name, err.text, json_string_value(error));
    } else {
        ck_assert_msg(r == 0, "%s, %s: %s", file, name, err.text);
        const char *expected = json_string_value(output);
        ck_assert_msg(out.text.size == json_string_length(output) &&
                          memcmp(out.text.size > 0 ? out.text.data : "", expected, out.text.size) ==
                              0,
                      "%s, %s:\n--- gave\n%s\n--- expected\n%s", file, name,
                      out.text.size > 0 ? out.text.data : "", expected);
        check_spans(&out);
    }
    weft_rendered_done(&out);
}

static void render_file(const char *name)
{
    char relative[300];
    size_t size, n;
    json_error_t why;
    struct weft_template *t = NULL;
    struct weft_template_vars vars = {0};
    struct tm now = {0};
    weft_err err = {0};
    snprintf(relative, sizeof relative, FOLDER "/%s", name);
    uint8_t *data = weft_test_read(relative, &size);
    json_t *file = json_loadb((const char *)data, size, 0, &why);
    ck_assert_msg(file != NULL, "%s: %s", name, why.text);
    vars.bos_token = text_of(file, "bos_token", &vars.bos_size);
    vars.eos_token = text_of(file, "eos_token", &vars.eos_size);
    ck_assert_ptr_nonnull(strptime(text_of(file, "strftime_now", &n), "%Y-%m-%d %H:%M:%S", &now));
    vars.now = &now;
    const char *source = text_of(file, "chat_template", &n);
    ck_assert_msg(weft_template_open(source, n, &t, &err) == 0, "%s: %s", name, err.text);
    const char *key;
    json_t *c;
    json_object_foreach (json_object_get(file, "cases"), key, c) {
        render_case(name, key, t, &vars, c);
    }
    weft_template_close(t);
    json_decref(file);
    free(data);
}

START_TEST(published)
{
    if (_i >= n_names) {
        weft_test_skip("no published templates");
        return;
    }
    render_file(names[_i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("published templates");
    TCase *tc = tcase_create("published templates");
    tcase_set_timeout(tc, 60);
    list_files();
    tcase_add_loop_test(tc, published, 0, FILES);
    suite_add_tcase(suite, tc);
    int r = weft_test_main(suite);
    for (int i = 0; i < n_names; i++)
        free(names[i]);
    return r;
}
