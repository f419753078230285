/*
 * Where a chat template of the command line comes from: a Jinja file, a tokenizer_config.json as
 * model hubs have it, a GGUF model, or weft itself.
 */
#ifndef WEFT_COORDINATOR_TEMPLATE_CONFIG_H
#define WEFT_COORDINATOR_TEMPLATE_CONFIG_H

#include "coordinator/template.h"

struct weft_template_config {
    struct weft_template *template;
    struct weft_str bos, eos; /* texts of the tokens; empty where the source says none */
};
void weft_template_config_done(struct weft_template_config *c); /* accepts zeroed */

/* Reads a file: JSON when its name ends with .json (chat_template is a text, or a list of
 * {"name", "template"} of which tool_use is taken for `tools`, else default), else Jinja. Errors
 * name the file. */
int weft_template_config_file(const char *path, bool tools, struct weft_template_config *ret,
                              weft_err *err) WEFT_MUST_USE;
/* From a model's metadata; a vocabulary alone is enough. */
int weft_template_config_model(const struct weft_gguf *g, bool tools,
                               struct weft_template_config *ret, weft_err *err) WEFT_MUST_USE;

#endif
