/*
 * Conversation: messages, their tokens, and the text of answers: what `weft run` and `weft chat`
 * share.
 *
 * Invariant: the tokens sent are always those of the whole conversation; what the session's KV
 * already holds of them is not computed again.
 */
#ifndef WEFT_COORDINATOR_CONVERSATION_H
#define WEFT_COORDINATOR_CONVERSATION_H

#include "coordinator/app.h"
#include "coordinator/detok.h"
#include "coordinator/logprobs.h"

struct weft_conversation;

struct weft_conversation_events {
    /* Whole UTF-8 characters. What may be the beginning of a stop string comes when it is not. */
    void (*text)(void *arg, const char *data, size_t n);
    /* With context_shift: the oldest turns, or (turns 0) the oldest tokens of raw text were
     * dropped, also in the midst of an answer, which then goes on; kept: tokens that are left. */
    void (*shifted)(void *arg, uint32_t turns, uint32_t kept);
    void (*done)(void *arg, const weft_err *err, enum weft_finish finish);
};

/* Opens tokenizer and, unless raw, chat template of app's model; the cluster file's system prompt
 * is the first message. */
int weft_conversation_open(struct weft_app *app, bool raw,
                           const struct weft_conversation_events *events, void *arg,
                           struct weft_conversation **ret, weft_err *err) WEFT_MUST_USE;
void weft_conversation_close(
    struct weft_conversation *c); /* accepts NULL; the session is the cluster's */

/* Adds what the person says and makes the tokens: -WEFT_ECONTEXT when they do not fit, with
 * context_shift also alone (nothing is added or dropped then), -WEFT_EUSAGE for text that is no
 * UTF-8. Needs no cluster. */
int weft_conversation_say(struct weft_conversation *c, const char *text, size_t n,
                          weft_err *err) WEFT_MUST_USE;
/* Starts the answer to what was said last; opens the session at first. `done` follows. */
int weft_conversation_answer(struct weft_conversation *c, weft_err *err) WEFT_MUST_USE;
void weft_conversation_cancel(struct weft_conversation *c);
/* Forgets all messages but the system prompt. */
void weft_conversation_reset(struct weft_conversation *c);
bool weft_conversation_busy(const struct weft_conversation *c);

struct weft_conversation_figures {
    uint32_t prompt_tokens; /* computed in the last turn, after what KV already held; those that
                               shifts of the context had computed again count too */
    uint32_t kept_tokens;
    uint32_t answer_tokens;
    uint64_t prompt_ns, answer_ns;
    const int32_t *answer_ids; /* [answer_tokens]; those of a stop string among them */
    const char *stop;          /* the stop string that ended it, or NULL */
    struct weft_answer_logprobs logprobs;
};
void weft_conversation_figures(const struct weft_conversation *c,
                               struct weft_conversation_figures *ret);

#endif
