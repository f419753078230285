/*
 * Fuzzer of chat templates: the input up to its first 0 is the template, what follows is what the
 * user says. The runs that the template wrote must be ascending and inside the text.
 */
#include <string.h>

#include "coordinator/template.h"
#include "tests/fuzz.h"

static void expect_rendered(const struct weft_rendered *out)
{
    FUZZ_EXPECT(!out->text.failed && out->text.size <= WEFT_TEMPLATE_OUTPUT_MAX);
    FUZZ_EXPECT(weft_utf8_valid(out->text.data, out->text.size, NULL));
    size_t at = 0;
    for (size_t i = 0; i < out->n_spans; i++) {
        FUZZ_EXPECT(out->spans[i].start >= at && out->spans[i].start <= out->text.size);
        FUZZ_EXPECT(out->spans[i].size <= out->text.size - out->spans[i].start);
        at = out->spans[i].start + out->spans[i].size;
    }
}

static void render(const struct weft_template *t, const char *said, size_t size)
{
    const struct weft_message messages[] = {
        {.role = "system", .content = " be nice\n", .content_size = 9},
        {.role = "user", .content = said, .content_size = size},
        {.role = "assistant", .content = "", .content_size = 0},
    };
    struct weft_template_vars vars = {
        .bos_token = "<s>", .bos_size = 3, .eos_token = "</s>", .eos_size = 4};
    struct weft_rendered out = {0};
    for (size_t n = 0; n <= sizeof messages / sizeof messages[0]; n++) {
        weft_err err = {0};
        vars.add_generation_prompt = n % 2 == 0;
        int r = weft_template_render(t, &vars, messages, n, &out, &err);
        FUZZ_EXPECT(r == -err.code);
        if (r == 0)
            expect_rendered(&out);
    }
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
    if (r == 0)
        render(t, n < size ? text + n + 1 : "", n < size ? size - n - 1 : 0);
    weft_template_close(t);
    return 0;
}
