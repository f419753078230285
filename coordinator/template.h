/*
 * Chat template: the text a model was trained to see, made from the messages of a conversation.
 *
 * GGUF files carry the template as a Jinja program. This is an interpreter of the part of Jinja
 * that plain chat templates need (listed below); anything else is refused when the template is
 * opened, with its line and column. Whitespace is treated as model hubs do (trim_blocks,
 * lstrip_blocks).
 *
 * Invariant: the result names the runs of text that do not come from a message's content, so that
 * nobody can write a control token into a conversation by spelling it. The same messages give the
 * same text. An opened template is immutable: any thread may render it.
 *
 *     text   {{ expression }}   {# comment #}   {%- -%} {{- -}} {%+ +%}
 *     {% for NAME in expression %} … {% endfor %}
 *     {% if … %} … {% elif … %} … {% else %} … {% endif %}
 *     'string' "string" 12 true false none   ( … )   x.name x['name'] x[0] x[-1]
 *     + == != and or not   | trim
 *     messages bos_token eos_token add_generation_prompt
 *     loop.first loop.last loop.index loop.index0 loop.length
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

#define WEFT_TEMPLATE_SOURCE_MAX (256u << 10) /* bytes; the longest published ones have 50 KiB */
#define WEFT_TEMPLATE_NESTING_MAX 32          /* blocks and brackets within each other */
#define WEFT_TEMPLATE_STEPS_MAX (4u << 20)    /* nodes visited: thousands of messages, under 1 s */
#define WEFT_TEMPLATE_MESSAGES_MAX 65536u
#define WEFT_TEMPLATE_OUTPUT_MAX WEFT_TOKENIZER_TEXT_MAX

struct weft_message {
    const char *role;    /* "system", "user" or "assistant" */
    const char *content; /* UTF-8, not 0-terminated */
    size_t content_size;
};

/* What a template sees beside the messages. */
struct weft_template_vars {
    const char *bos_token, *eos_token; /* UTF-8; NULL: empty */
    size_t bos_size, eos_size;
    bool add_generation_prompt; /* end with the start of an answer */
};

/* Text, and ascending runs of it that the template itself wrote. {0} is empty. */
struct weft_rendered {
    struct weft_str text;
    struct weft_span *spans;
    size_t n_spans, spans_room;
};
void weft_rendered_done(struct weft_rendered *r);

struct weft_template;

/* Parses source (copied); gives *ret, close it. -WEFT_EUNSUPPORTED for what the list above lacks,
 * for what is no Jinja at all, and over the limits; -WEFT_EMODEL for invalid UTF-8; -WEFT_ENOMEM.
 */
int weft_template_open(const char *source, size_t n, struct weft_template **ret,
                       weft_err *err) WEFT_MUST_USE;
/* The same from the key tokenizer.chat_template; -WEFT_EUNSUPPORTED when it is missing. */
int weft_template_open_gguf(const struct weft_gguf *g, struct weft_template **ret,
                            weft_err *err) WEFT_MUST_USE;
void weft_template_close(struct weft_template *t); /* accepts NULL */

/* Renders into *ret, which is {0} or used before (it is cleared). -WEFT_EUSAGE for another role,
 * for content that is no UTF-8 (with the message's index and the byte's offset) and for too many
 * messages, -WEFT_ECONTEXT over WEFT_TEMPLATE_OUTPUT_MAX, -WEFT_EUNSUPPORTED for what the template
 * does wrong with this conversation (with line and column), -WEFT_ENOMEM. */
int weft_template_render(const struct weft_template *t, const struct weft_template_vars *vars,
                         const struct weft_message *messages, size_t n_messages,
                         struct weft_rendered *ret, weft_err *err) WEFT_MUST_USE;

/* Ids of the rendered conversation; gives *ret_ids (free()). Control tokens are read in the
 * template's own text only. BOS goes first where the vocabulary wants it, once. */
int weft_template_encode(const struct weft_template *t, const struct weft_tokenizer *tokenizer,
                         const struct weft_message *messages, size_t n_messages,
                         bool add_generation_prompt, int32_t **ret_ids, size_t *ret_n,
                         weft_err *err) WEFT_MUST_USE;

#endif
