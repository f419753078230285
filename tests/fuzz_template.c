/*
 * Fuzzer of chat templates: the input up to its first 0 is the template, what follows is what the
 * user says. The text must be UTF-8, the runs that the template wrote ascending and inside it, and
 * no byte of what the user says (which has a letter that nothing else has) may be in such a run.
 */
#include <jansson.h>
#include <string.h>
#include <time.h>

#include "coordinator/template.h"
#include "tests/fuzz.h"

#define STEPS 20000 /* of one rendering: a thousand inputs a second */
/* The user's own letter, in no other input. As text it may come through, also in upper case. */
#define LETTER "\xD7\xA9"

static void expect_rendered(const struct weft_rendered *out, bool marked)
{
    const char *text = out->text.size > 0 ? out->text.data : "";
    FUZZ_EXPECT(!out->text.failed && out->text.size <= WEFT_TEMPLATE_OUTPUT_MAX);
    FUZZ_EXPECT(weft_utf8_valid(text, out->text.size, NULL));
    size_t at = 0;
    for (size_t i = 0; i < out->n_spans; i++) {
        const struct weft_span *s = &out->spans[i];
        FUZZ_EXPECT(s->start >= at && s->start <= out->text.size);
        FUZZ_EXPECT(s->size <= out->text.size - s->start);
        FUZZ_EXPECT(!marked || memmem(text + s->start, s->size, LETTER, sizeof LETTER - 1) == NULL);
        at = s->start + s->size;
    }
}

/* A conversation with everything that templates look for. */
static json_t *conversation(const char *said, size_t size)
{
    json_t *text = json_stringn(said, size); /* NULL: no UTF-8 */
    if (text == NULL)
        text = json_string(LETTER "<|end|>");
    return json_pack("{s:[{s:s,s:s},{s:s,s:O},{s:s,s:n,s:[{s:s,s:{s:s,s:{s:O,s:[i,f,b,n]}}}]},"
                     "{s:s,s:o}],s:[{s:s,s:{s:s,s:{s:s}}}],s:i,s:b}",
                     "messages", "role", "system", "content", " be " LETTER "\n", "role", "user",
                     "content", text, "role", "assistant", "content", "tool_calls", "id", "c1",
                     "function", "name", "f" LETTER, "arguments", "a", text, "b", 1, 2.5, 1, "role",
                     "tool", "content", text, "tools", "type", "function", "function", "name",
                     "f" LETTER, "parameters", "type", "object", "n", 3, "add_generation_prompt",
                     1);
}

static void render(const struct weft_template *t, bool marked, const char *said, size_t size)
{
    const struct weft_message messages[] = {
        {.role = "system", .content = " be nice\n", .content_size = 9},
        {.role = "user", .content = said, .content_size = size},
        {.role = "assistant", .content = "", .content_size = 0},
    };
    const struct tm now = {.tm_year = 126, .tm_mday = 2};
    struct weft_template_vars vars = {.bos_token = "<s>",
                                      .bos_size = 3,
                                      .eos_token = "</s>",
                                      .eos_size = 4,
                                      .now = &now,
                                      .steps_max = STEPS};
    struct weft_rendered out = {0};
    weft_err err = {0};
    int r = weft_template_render(t, &vars, messages, 3, &out, &err);
    FUZZ_EXPECT(r == -err.code);
    if (r == 0)
        expect_rendered(&out, false);
    json_t *input = conversation(said, size);
    FUZZ_EXPECT(input != NULL);
    err = (weft_err){0};
    r = weft_template_render_json(t, &vars, input, &out, &err);
    FUZZ_EXPECT(r == -err.code);
    if (r == 0)
        expect_rendered(&out, marked);
    json_decref(input);
    weft_rendered_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    const size_t n = strnlen(text, size);
    struct weft_template *t = NULL;
    weft_err err = {0};
    int r = weft_template_open(text, n, &t, &err);
    FUZZ_EXPECT(r == -err.code);
    /* A template that has the letter, or may make it out of an escape, proves nothing. */
    const bool marked =
        memmem(text, n, LETTER, sizeof LETTER - 1) == NULL && memchr(text, '\\', n) == NULL;
    if (r == 0)
        render(t, marked, n < size ? text + n + 1 : "", n < size ? size - n - 1 : 0);
    weft_template_close(t);
    return 0;
}
