/*
 * Input, see input.h.
 */
#include "coordinator/input.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int weft_input_file(const char *path, struct weft_str *out, weft_err *err)
{
    bool standard = strcmp(path, "-") == 0;
    const char *name = standard ? "standard input" : path;
    FILE *f = standard ? stdin : fopen(path, "rb");
    char buffer[16384];
    size_t n;
    int r = 0;
    if (f == NULL)
        return weft_fail(err, WEFT_EUSAGE, "%s: %s", name, strerror(errno));
    while (r == 0 && (n = fread(buffer, 1, sizeof buffer, f)) > 0) {
        if (n > WEFT_INPUT_MAX - out->size)
            r = weft_fail(err, WEFT_EUSAGE, "%s: longer than %u MiB", name, WEFT_INPUT_MAX >> 20);
        else
            weft_str_add(out, buffer, n);
    }
    if (r == 0 && ferror(f))
        r = weft_fail(err, WEFT_EUSAGE, "%s: %s", name, strerror(errno));
    if (r == 0 && out->failed)
        r = weft_fail(err, WEFT_ENOMEM, "%s", name);
    if (!standard)
        fclose(f);
    return r;
}

int weft_input_prompt(const struct weft_options *opt, struct weft_str *out, weft_err *err)
{
    size_t offset;
    int r = 0;
    if (opt->prompt_file != NULL)
        r = weft_input_file(opt->prompt_file, out, err);
    else if (strcmp(opt->prompt, "-") == 0)
        r = weft_input_file("-", out, err);
    else
        weft_str_adds(out, opt->prompt);
    if (r < 0)
        return r;
    if (out->size > 0 && !weft_utf8_valid(out->data, out->size, &offset))
        return weft_fail(err, WEFT_EUSAGE, "the prompt is no UTF-8 text: byte %zu is 0x%02x",
                         offset, (unsigned char)out->data[offset]);
    /* A newline that an editor or echo put at the end is not meant. */
    bool from_file = opt->prompt_file != NULL || strcmp(opt->prompt, "-") == 0;
    if (from_file && !opt->raw && out->size > 0 && out->data[out->size - 1] == '\n')
        out->data[--out->size] = '\0';
    if (out->size == 0)
        return weft_fail(err, WEFT_EUSAGE, "the prompt is empty");
    return 0;
}
