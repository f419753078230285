/*
 * Conversation, see conversation.h.
 */
#include "coordinator/conversation.h"

#include <stdlib.h>
#include <string.h>

struct message {
    const char *role;
    char *content;
    size_t size;
};

struct weft_conversation {
    struct weft_app *app;
    const struct weft_conversation_events *events;
    void *arg;
    bool busy;
    struct weft_tokenizer *tokenizer;
    struct weft_template *template; /* NULL: raw */
    struct weft_session *session;
    struct message *messages; /* [n_messages]; raw: one, the text so far */
    size_t n_messages, room;
    int32_t *ids; /* [n_ids] of the whole conversation */
    size_t n_ids;
    int32_t *answer; /* [context] ids of the last answer */
    uint32_t n_answer, kept;
    struct weft_detok detok;
    struct weft_str text; /* of the last answer */
};

/* ------------------------------------------------------------------ messages */

static int add_message(struct weft_conversation *c, const char *role, const char *text, size_t n,
                       weft_err *err)
{
    if (c->n_messages == c->room) {
        size_t room = c->room + 16;
        struct message *grown = realloc(c->messages, room * sizeof *grown);
        if (grown == NULL)
            return weft_fail(err, WEFT_ENOMEM, "a message");
        c->messages = grown;
        c->room = room;
    }
    char *content = malloc(n + 1);
    if (content == NULL)
        return weft_fail(err, WEFT_ENOMEM, "a message of %zu bytes", n);
    memcpy(content, text, n);
    content[n] = '\0';
    c->messages[c->n_messages++] = (struct message){.role = role, .content = content, .size = n};
    return 0;
}

static void drop_message(struct weft_conversation *c)
{
    free(c->messages[--c->n_messages].content);
}

/* Without a template the conversation is the texts one behind the other. */
static int encode_raw(struct weft_conversation *c, int32_t **ids, size_t *n, weft_err *err)
{
    struct weft_str text = {0};
    for (size_t i = 0; i < c->n_messages; i++)
        weft_str_add(&text, c->messages[i].content, c->messages[i].size);
    int r = text.failed ? weft_fail(err, WEFT_ENOMEM, "prompt")
                        : weft_tokenizer_encode(c->tokenizer, text.size > 0 ? text.data : "",
                                                text.size, WEFT_ENCODE_BOS, ids, n, err);
    weft_str_done(&text);
    return r;
}

static int encode_template(struct weft_conversation *c, int32_t **ids, size_t *n, weft_err *err)
{
    struct weft_message *list = calloc(c->n_messages, sizeof *list);
    if (list == NULL)
        return weft_fail(err, WEFT_ENOMEM, "prompt");
    for (size_t i = 0; i < c->n_messages; i++)
        list[i] = (struct weft_message){
            .role = c->messages[i].role,
            .content = c->messages[i].content,
            .content_size = c->messages[i].size,
        };
    int r = weft_template_encode(c->template, c->tokenizer, list, c->n_messages, true, ids, n, err);
    free(list);
    return r;
}

int weft_conversation_say(struct weft_conversation *c, const char *text, size_t n, weft_err *err)
{
    uint32_t context = c->app->file.context;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    int r = add_message(c, "user", text, n, err);
    if (r < 0)
        return r;
    r = c->template != NULL ? encode_template(c, &ids, &n_ids, err)
                            : encode_raw(c, &ids, &n_ids, err);
    if (r == 0 && n_ids == 0)
        r = weft_fail(err, WEFT_EUSAGE, "the prompt is empty");
    if (r == 0 && n_ids >= context)
        r = weft_fail(
            err, WEFT_ECONTEXT,
            "the prompt has %zu tokens, the context %u positions, one of them for the answer: "
            "shorten the prompt%s",
            n_ids, context, context < c->app->model.context_max ? " or raise -c" : "");
    if (r < 0) {
        drop_message(c);
        free(ids);
        return r;
    }
    free(c->ids);
    c->ids = ids;
    c->n_ids = n_ids;
    return 0;
}

void weft_conversation_reset(struct weft_conversation *c)
{
    size_t keep = c->n_messages > 0 && strcmp(c->messages[0].role, "system") == 0 ? 1 : 0;
    while (c->n_messages > keep)
        drop_message(c);
}

/* ------------------------------------------------------------------ the answer */

static void emit(struct weft_conversation *c, size_t from)
{
    if (c->text.size > from)
        c->events->text(c->arg, c->text.data + from, c->text.size - from);
}

static void on_token(void *arg, int32_t id, enum weft_finish finish)
{
    struct weft_conversation *c = arg;
    size_t from = c->text.size;
    c->answer[c->n_answer++] = id;
    if (finish != WEFT_FINISH_STOP)
        (void)!weft_detok_push(&c->detok, id, &c->text, NULL); /* the session checked the id */
    emit(c, from);
}

static void on_done(void *arg, const weft_err *err, enum weft_finish finish)
{
    struct weft_conversation *c = arg;
    size_t from = c->text.size;
    weft_err why = {0};
    weft_detok_finish(&c->detok, &c->text);
    emit(c, from);
    c->busy = false;
    if (c->text.failed)
        (void)weft_fail(&why, WEFT_ENOMEM, "the answer");
    /* What was said stays said, also when the answer was stopped half way. */
    else if (add_message(c, "assistant", c->text.size > 0 ? c->text.data : "", c->text.size,
                         &why) == 0)
        why.code = 0;
    c->events->done(c->arg, err != NULL ? err : why.code != 0 ? &why : NULL, finish);
}

static const struct weft_session_events session_events = {.token = on_token, .done = on_done};

/* Tokens that the KV cache holds already; at least one must be computed to sample from. */
static uint32_t common_prefix(const struct weft_conversation *c)
{
    uint32_t n, i = 0;
    const int32_t *history = weft_session_history(c->session, &n);
    while (i < n && i + 1 < c->n_ids && history[i] == c->ids[i])
        i++;
    return i;
}

int weft_conversation_answer(struct weft_conversation *c, weft_err *err)
{
    const struct weft_cluster_file *f = &c->app->file;
    int r;
    if (c->session == NULL) {
        r = weft_session_open(c->app->cluster, &session_events, c, &c->session, err);
        if (r < 0)
            return r;
    }
    size_t n_stops;
    const int32_t *stops = weft_tokenizer_stops(c->tokenizer, &n_stops);
    uint32_t room = f->context - (uint32_t)c->n_ids;
    c->kept = common_prefix(c);
    const struct weft_turn turn = {
        .keep = c->kept,
        .tokens = c->ids + c->kept,
        .n_tokens = (uint32_t)c->n_ids - c->kept,
        .max_tokens = f->predict == 0 || f->predict > room ? room : f->predict,
        .sampling = {.temperature = (float)f->sampling.temperature,
                     .top_p = (float)f->sampling.top_p,
                     .min_p = (float)f->sampling.min_p,
                     .repeat_penalty = (float)f->sampling.repeat_penalty,
                     .top_k = f->sampling.top_k,
                     .repeat_last = f->sampling.repeat_last,
                     .seed = f->sampling.seed},
        .stop_ids = stops,
        .n_stop_ids = (uint32_t)n_stops,
    };
    weft_str_clear(&c->text);
    c->n_answer = 0;
    weft_detok_init(&c->detok, c->tokenizer, c->ids[c->n_ids - 1]);
    r = weft_session_turn(c->session, &turn, err);
    c->busy = r == 0;
    return r;
}

void weft_conversation_cancel(struct weft_conversation *c)
{
    if (c->busy)
        weft_session_cancel(c->session);
}

bool weft_conversation_busy(const struct weft_conversation *c)
{
    return c->busy;
}

void weft_conversation_figures(const struct weft_conversation *c,
                               struct weft_conversation_figures *ret)
{
    *ret = (struct weft_conversation_figures){
        .prompt_tokens = (uint32_t)c->n_ids - c->kept,
        .kept_tokens = c->kept,
        .answer_ids = c->answer,
    };
    weft_session_times(c->session, &ret->prompt_ns, &ret->answer_ns, &ret->answer_tokens);
}

/* ------------------------------------------------------------------ life */

int weft_conversation_open(struct weft_app *app, bool raw,
                           const struct weft_conversation_events *events, void *arg,
                           struct weft_conversation **ret, weft_err *err)
{
    struct weft_conversation *c = calloc(1, sizeof *c);
    if (c == NULL)
        return weft_fail(err, WEFT_ENOMEM, "conversation");
    c->app = app;
    c->events = events;
    c->arg = arg;
    int r = weft_tokenizer_open(&app->gguf, &c->tokenizer, err);
    if (r == 0 && weft_tokenizer_vocab(c->tokenizer) > app->model.vocab)
        r = weft_fail(err, WEFT_EMODEL, "%s: the tokenizer has %u tokens, the model %u",
                      app->model.name, weft_tokenizer_vocab(c->tokenizer), app->model.vocab);
    if (r == 0 && !raw)
        r = weft_template_open_gguf(&app->gguf, &c->template, err);
    if (r == 0 && (c->answer = calloc(app->file.context, sizeof *c->answer)) == NULL)
        r = weft_fail(err, WEFT_ENOMEM, "conversation");
    if (r == 0 && !raw && app->file.system != NULL)
        r = add_message(c, "system", app->file.system, strlen(app->file.system), err);
    if (r < 0) {
        weft_conversation_close(c);
        return r;
    }
    *ret = c;
    return 0;
}

void weft_conversation_close(struct weft_conversation *c)
{
    if (c == NULL)
        return;
    while (c->n_messages > 0)
        drop_message(c);
    free(c->messages);
    free(c->ids);
    free(c->answer);
    weft_str_done(&c->text);
    weft_template_close(c->template);
    weft_tokenizer_close(c->tokenizer);
    free(c);
}
