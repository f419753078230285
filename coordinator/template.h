/*
 * Chat template: the text a model was trained to see, made from the messages of a conversation.
 *
 * GGUF files carry the template as a Jinja program. It is run by an interpreter of our own
 * (jinja_run.h and its neighbours) of all that published templates use, with whitespace, filters
 * and functions as model hubs set them up (trim_blocks, lstrip_blocks, loop controls,
 * raise_exception, strftime_now, a tojson that keeps order and does not escape). What it does not
 * know it refuses with line and column: when the template is opened, or, in a branch that may never
 * be taken, when it is reached.
 *
 * Invariant: the result names the runs of text that the template itself wrote, so that nobody can
 * write a control token into a conversation by spelling it: contents of messages, tools and other
 * variables stay text, whatever the template joins them with. Roles from a known set count as the
 * template's own words. The same input gives the same text (strftime_now aside, and that is fixed
 * by `now`). An opened template is immutable: any thread may render it.
 */
#ifndef WEFT_COORDINATOR_TEMPLATE_H
#define WEFT_COORDINATOR_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/gguf.h"
#include "base/text.h"
#include "coordinator/tokenizer.h"

#define WEFT_TEMPLATE_MESSAGES_MAX 65536u
#define WEFT_TEMPLATE_OUTPUT_MAX WEFT_TOKENIZER_TEXT_MAX

struct json_t; /* jansson's */
struct tm;

struct weft_message {
    const char *role;    /* "system", "user", "assistant" or "tool" */
    const char *content; /* UTF-8, not 0-terminated */
    size_t content_size;
};

/* What a template sees beside the messages. */
struct weft_template_vars {
    const char *bos_token, *eos_token; /* UTF-8; NULL: empty */
    size_t bos_size, eos_size;
    bool add_generation_prompt; /* end with the start of an answer */
    const struct tm *now;       /* of strftime_now; NULL: the local time */
    uint32_t steps_max;         /* of the interpreter; 0: its own limit */
};

/* Text, and ascending runs of it that the template itself wrote. {0} is empty. */
struct weft_rendered {
    struct weft_str text;
    struct weft_span *spans;
    size_t n_spans, spans_room;
};
void weft_rendered_done(struct weft_rendered *r);

struct weft_template;

/* Parses source (copied); gives *ret, close it. -WEFT_EUNSUPPORTED for what is no Jinja or not
 * supported ("chat template 12:5: filter 'foo' is not supported") and over the limits;
 * -WEFT_EMODEL for invalid UTF-8; -WEFT_ENOMEM. */
int weft_template_open(const char *source, size_t n, struct weft_template **ret,
                       weft_err *err) WEFT_MUST_USE;
/* The same from a model: tokenizer.chat_template, or, for a conversation with tools and if there is
 * one, tokenizer.chat_template.tool_use. -WEFT_EUNSUPPORTED when it has none. The error tells of
 * --template and --raw. */
int weft_template_open_model(const struct weft_gguf *g, bool tools, struct weft_template **ret,
                             weft_err *err) WEFT_MUST_USE;
int weft_template_open_gguf(const struct weft_gguf *g, struct weft_template **ret,
                            weft_err *err) WEFT_MUST_USE; /* without tools */
/* One of weft's own: "chatml", …; -WEFT_EUSAGE for another name. */
int weft_template_open_builtin(const char *name, struct weft_template **ret,
                               weft_err *err) WEFT_MUST_USE;
void weft_template_close(struct weft_template *t); /* accepts NULL */

/* Names of weft's own templates; ends with NULL. */
extern const char *const weft_template_names[];
/* Source of one of them; NULL for another name. */
const char *weft_template_builtin(const char *name);

/* Renders into *ret, which is {0} or used before (it is cleared). -WEFT_EUSAGE for another role,
 * for content that is no UTF-8 (with the message's index and the byte's offset), for too many
 * messages, and when the template refuses the conversation (raise_exception, with its message);
 * -WEFT_ECONTEXT over WEFT_TEMPLATE_OUTPUT_MAX; -WEFT_EUNSUPPORTED for what the template does wrong
 * with this conversation (with line and column); -WEFT_ENOMEM. */
int weft_template_render(const struct weft_template *t, const struct weft_template_vars *vars,
                         const struct weft_message *messages, size_t n_messages,
                         struct weft_rendered *ret, weft_err *err) WEFT_MUST_USE;
/* The same from JSON (borrowed): an object with "messages", a list of objects; its other members
 * are variables too (tools, documents, enable_thinking …), and add_generation_prompt, bos_token and
 * eos_token win over vars. Of roles only the well-known ones count as the template's own words. */
int weft_template_render_json(const struct weft_template *t, const struct weft_template_vars *vars,
                              const struct json_t *input, struct weft_rendered *ret,
                              weft_err *err) WEFT_MUST_USE;

/* Ids of the rendered conversation; gives *ret_ids (free()). Control tokens are read in the
 * template's own text only. BOS goes first where the vocabulary wants it, once. Errors tell of
 * --template and --raw. */
int weft_template_encode(const struct weft_template *t, const struct weft_tokenizer *tokenizer,
                         const struct weft_message *messages, size_t n_messages,
                         bool add_generation_prompt, int32_t **ret_ids, size_t *ret_n,
                         weft_err *err) WEFT_MUST_USE;

#endif
