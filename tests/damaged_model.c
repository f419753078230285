/*
 * Damaged copies of models, see damaged_model.h.
 */
#include "tests/damaged_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/gguf.h"
#include "tests/harness.h"
#include "tests/procs.h"

const char *damaged_model(const char *model, const struct damage *d)
{
    static char path[4200];
    const size_t n = d->n > 0 ? d->n : 1;
    size_t size;
    struct weft_gguf g = {0};
    weft_err err = {0};
    uint8_t *data = weft_test_read(model, &size);
    ck_assert_msg(data != NULL, "%s is missing", model);
    ck_assert_msg(weft_gguf_open(data, size, &g, &err) == 0, "%s: %s", model, err.text);
    const struct weft_gguf_tensor *t = weft_gguf_tensor(&g, d->tensor);
    ck_assert_msg(t != NULL && d->offset + (n - 1) * d->step + sizeof d->bits <= t->bytes,
                  "%s has no such place in %s", model, d->tensor);
    for (size_t i = 0; i < n; i++)
        memcpy(data + t->offset + d->offset + i * d->step, &d->bits, sizeof d->bits);
    weft_gguf_done(&g);
    snprintf(path, sizeof path, "%s", temp_file("damaged.gguf", data, size));
    free(data);
    return path;
}
