/*
 * Conversation, see conversation.h.
 */
#include "coordinator/conversation.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/answer_rules.h"
#include "coordinator/context_shift.h"

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
    int32_t *ids; /* [n_ids] of the whole conversation, or of what was kept of it */
    size_t n_ids;
    int32_t *answer; /* [answer_room] ids of the last answer */
    uint32_t n_answer, answer_room, kept;
    uint32_t n_resumed; /* of the answer, already among ids: a shift came in its midst */
    uint32_t n_shifts;
    struct weft_conversation_figures before; /* of the answer, before its last shift */
    struct weft_token_logprob *logprobs; /* [answer_room][1 + n_best] of the last answer; or NULL */
    struct weft_detok detok;
    struct weft_str text; /* of the last answer */
    size_t given;         /* of text: told to the owner */
    struct weft_answer_rules rules;
    const char *stop; /* the stop string that ended the last answer */
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

static size_t n_system(const struct weft_conversation *c)
{
    return c->n_messages > 0 && strcmp(c->messages[0].role, "system") == 0 ? 1 : 0;
}

/* The message that is first behind the system prompt without the oldest `dropped` turns: each
 * begins with what the person said. */
static size_t first_kept(const struct weft_conversation *c, uint32_t dropped)
{
    size_t i = n_system(c);
    for (; dropped > 0 && i < c->n_messages; dropped--)
        do
            i++;
        while (i < c->n_messages && strcmp(c->messages[i].role, "user") != 0);
    return i;
}

/* Without a template the conversation is the texts one behind the other. */
static int encode_raw(struct weft_conversation *c, uint32_t dropped, int32_t **ids, size_t *n,
                      weft_err *err)
{
    struct weft_str text = {0};
    for (size_t i = first_kept(c, dropped); i < c->n_messages; i++)
        weft_str_add(&text, c->messages[i].content, c->messages[i].size);
    int r = text.failed ? weft_fail(err, WEFT_ENOMEM, "prompt")
                        : weft_tokenizer_encode(c->tokenizer, text.size > 0 ? text.data : "",
                                                text.size, WEFT_ENCODE_BOS, ids, n, err);
    weft_str_done(&text);
    return r;
}

static int encode_template(struct weft_conversation *c, uint32_t dropped, int32_t **ids, size_t *n,
                           weft_err *err)
{
    const size_t gap_start = n_system(c), gap_end = first_kept(c, dropped);
    struct weft_message *list = calloc(c->n_messages, sizeof *list);
    size_t count = 0;
    if (list == NULL)
        return weft_fail(err, WEFT_ENOMEM, "prompt");
    for (size_t i = 0; i < c->n_messages; i++)
        if (i < gap_start || i >= gap_end)
            list[count++] = (struct weft_message){
                .role = c->messages[i].role,
                .content = c->messages[i].content,
                .content_size = c->messages[i].size,
            };
    int r = weft_template_encode(c->template, c->tokenizer, list, count, true, ids, n, err);
    free(list);
    return r;
}

/* Tokens of the conversation without its `dropped` oldest turns. */
static int encode(struct weft_conversation *c, uint32_t dropped, int32_t **ids, size_t *n,
                  weft_err *err)
{
    return c->template != NULL ? encode_template(c, dropped, ids, n, err)
                               : encode_raw(c, dropped, ids, n, err);
}

/* ------------------------------------------------------------------ context shift */

static int count_tokens(void *arg, uint32_t dropped, uint32_t *ret, weft_err *err)
{
    int32_t *ids = NULL;
    size_t n = 0;
    int r = encode(arg, dropped, &ids, &n, err);
    free(ids);
    *ret = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    return r;
}

/* Tokens that may still come; 0: no limit. */
static uint32_t left_to_predict(const struct weft_conversation *c)
{
    const uint32_t predict = c->app->file.predict;
    return predict > c->n_answer ? predict - c->n_answer : predict > 0 ? 1 : 0;
}

/* Drops the oldest turns so that the prompt and the first n_answer tokens of the answer fit, and
 * replaces *ids by what is kept of the prompt. *ret_turns is 0 when no dropping helps: nothing was
 * changed then. */
static int drop_turns(struct weft_conversation *c, uint32_t n_answer, int32_t **ids, size_t *n_ids,
                      uint32_t *ret_turns, weft_err *err)
{
    uint32_t turns = 0;
    for (size_t i = n_system(c); i < c->n_messages; i++)
        turns += strcmp(c->messages[i].role, "user") == 0;
    const struct weft_shift_ask ask = {
        .context = c->app->file.context,
        .turns = turns > 0 ? turns - 1 : 0, /* never the newest */
        .answer = n_answer,
        .predict = left_to_predict(c),
        .tokens = count_tokens,
        .arg = c,
    };
    struct weft_shift shift;
    int32_t *kept = NULL;
    size_t n_kept = 0;
    int r = weft_shift_plan(&ask, &shift, err);
    *ret_turns = shift.turns;
    if (r < 0 || shift.turns == 0)
        return r;
    r = encode(c, shift.turns, &kept, &n_kept, err);
    if (r < 0)
        return r;
    const size_t start = n_system(c), end = first_kept(c, shift.turns);
    for (size_t i = start; i < end; i++)
        free(c->messages[i].content);
    memmove(&c->messages[start], &c->messages[end], (c->n_messages - end) * sizeof *c->messages);
    c->n_messages -= end - start;
    free(*ids);
    *ids = kept;
    *n_ids = n_kept;
    c->n_shifts++;
    return 0;
}

/* A BOS stays. */
static uint32_t n_begin(const struct weft_conversation *c, const int32_t *ids, size_t n_ids)
{
    return n_ids > 0 && ids[0] == weft_tokenizer_bos(c->tokenizer) ? 1 : 0;
}

/* Text without turns: of prompt and answer, which stand in *ids, the older half goes. */
static void drop_half(struct weft_conversation *c, int32_t *ids, size_t *n_ids)
{
    const uint32_t keep = n_begin(c, ids, *n_ids), n = weft_shift_half((uint32_t)*n_ids, keep);
    memmove(ids + keep, ids + keep + n, (*n_ids - keep - n) * sizeof *ids);
    *n_ids -= n;
    c->n_shifts++;
}

/* A grammar goes on only behind the whole answer so far, as far as a Begin can bring it. */
static bool grammar_goes_on(const struct weft_conversation *c, bool half)
{
    const uint32_t n = (uint32_t)c->n_ids + c->n_answer - c->n_resumed; /* with the answer */
    const uint32_t keep = n_begin(c, c->ids, c->n_ids);
    if (c->rules.grammar.size == 0)
        return true;
    return c->n_answer <= WEFT_TURN_RESUMED_MAX &&
           (!half || n - keep - weft_shift_half(n, keep) >= c->n_answer);
}

/* Puts the tokens [from, n_answer) of the answer behind *ids. */
static int append_answer(const struct weft_conversation *c, uint32_t from, int32_t **ids,
                         size_t *n_ids, weft_err *err)
{
    const size_t n = c->n_answer - from;
    int32_t *both = realloc(*ids, (*n_ids + n + 1) * sizeof *both); /* + 1: never 0 */
    if (both == NULL)
        return weft_fail(err, WEFT_ENOMEM, "the answer");
    memcpy(both + *n_ids, c->answer + from, n * sizeof *both);
    *ids = both;
    *n_ids += n;
    return 0;
}

/* ------------------------------------------------------------------ what is said */

int weft_conversation_say(struct weft_conversation *c, const char *text, size_t n, weft_err *err)
{
    uint32_t context = c->app->file.context;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    uint32_t turns = 0;
    int r = add_message(c, "user", text, n, err);
    if (r < 0)
        return r;
    c->n_answer = 0;
    r = encode(c, 0, &ids, &n_ids, err);
    if (r == 0 && n_ids == 0)
        r = weft_fail(err, WEFT_EUSAGE, "the prompt is empty");
    if (r == 0 && n_ids >= context && c->app->file.context_shift) {
        r = drop_turns(c, 0, &ids, &n_ids, &turns, err);
        if (r == 0 && turns > 0)
            c->events->shifted(c->arg, turns, (uint32_t)n_ids);
    }
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
    const size_t keep = n_system(c);
    while (c->n_messages > keep)
        drop_message(c);
}

/* ------------------------------------------------------------------ the answer */

static void emit(struct weft_conversation *c, size_t end)
{
    if (end > c->given)
        c->events->text(c->arg, c->text.data + c->given, end - c->given);
    c->given = end;
}

static uint32_t n_best(const struct weft_conversation *c)
{
    return c->app->opt->logprobs > 0 ? (uint32_t)c->app->opt->logprobs : 0;
}

/* There is room for the context; only an answer over several shifts takes more. False when there is
 * no memory, which is told at the end. */
static bool answer_reserve(struct weft_conversation *c)
{
    if (c->n_answer < c->answer_room)
        return true;
    const size_t room = 2 * (size_t)c->answer_room, list = 1 + n_best(c);
    int32_t *answer = room <= UINT32_MAX ? realloc(c->answer, room * sizeof *answer) : NULL;
    if (answer != NULL)
        c->answer = answer;
    struct weft_token_logprob *logprobs =
        answer != NULL && c->logprobs != NULL
            ? reallocarray(c->logprobs, room, list * sizeof *logprobs)
            : NULL;
    if (logprobs != NULL)
        c->logprobs = logprobs;
    if (answer == NULL || (logprobs == NULL && c->logprobs != NULL)) {
        c->text.failed = true;
        return false;
    }
    c->answer_room = (uint32_t)room;
    return true;
}

/* Before its token. */
static void on_logprobs(void *arg, const struct weft_token_logprob *list, uint32_t n)
{
    struct weft_conversation *c = arg;
    if (answer_reserve(c))
        memcpy(c->logprobs + (size_t)c->n_answer * n, list, n * sizeof *list);
}

/* Gives out what is no stop string and no beginning of one; the first whole one ends the answer. */
static void give_out(struct weft_conversation *c)
{
    const struct weft_stops *stops = &c->rules.stops;
    const size_t n = c->text.size - c->given;
    uint32_t which = 0;
    size_t at;
    if (n == 0)
        return;
    const char *fresh = c->text.data + c->given;
    if (!weft_stops_find(stops, fresh, n, &at, &which)) {
        emit(c, c->text.size - weft_stops_held(stops, fresh, n));
        return;
    }
    c->text.size = c->given + at;
    c->text.data[c->text.size] = '\0';
    emit(c, c->text.size);
    c->stop = stops->texts[which];
    weft_session_stop(c->session); /* `done` follows */
}

static void add_answer(struct weft_conversation *c, int32_t id)
{
    if (answer_reserve(c))
        c->answer[c->n_answer++] = id;
}

static void on_token(void *arg, int32_t id, enum weft_finish finish)
{
    struct weft_conversation *c = arg;
    add_answer(c, id);
    if (finish != WEFT_FINISH_STOP)
        (void)!weft_detok_push(&c->detok, id, &c->text, NULL); /* the session checked the id */
    give_out(c);
}

static int resume(struct weft_conversation *c, bool *ret_resumed, weft_err *err);

static void on_done(void *arg, const weft_err *err, enum weft_finish finish)
{
    struct weft_conversation *c = arg;
    weft_err why = {0}, stuck = {0};
    if (err == NULL && finish == WEFT_FINISH_CONTEXT && c->app->file.context_shift) {
        bool resumed = false;
        if (resume(c, &resumed, &stuck) < 0)
            err = &stuck;
        if (resumed)
            return;
    }
    if (c->stop == NULL) {
        weft_detok_finish(&c->detok, &c->text);
        emit(c, c->text.size);
    }
    c->busy = false;
    if (c->text.failed)
        (void)weft_fail(&why, WEFT_ENOMEM, "the answer");
    /* What was said stays said, also when the answer was stopped half way. */
    else if (add_message(c, "assistant", c->text.size > 0 ? c->text.data : "", c->text.size,
                         &why) == 0)
        why.code = 0;
    c->events->done(c->arg, err != NULL ? err : why.code != 0 ? &why : NULL, finish);
}

static const struct weft_session_events session_events = {
    .token = on_token, .logprobs = on_logprobs, .done = on_done};

/* Tokens that the KV cache holds already; at least one must be computed to sample from. */
static uint32_t common_prefix(const struct weft_conversation *c)
{
    uint32_t n, i = 0;
    const int32_t *history = weft_session_history(c->session, &n);
    while (i < n && i + 1 < c->n_ids && history[i] == c->ids[i])
        i++;
    return i;
}

static struct weft_turn_sampling sampling_of(const struct weft_sampling_options *o)
{
    return (struct weft_turn_sampling){
        .temperature = (float)o->temperature,
        .top_k = o->top_k,
        .typical_p = (float)o->typical,
        .top_p = (float)o->top_p,
        .min_p = (float)o->min_p,
        .repeat_penalty = (float)o->repeat_penalty,
        .presence_penalty = (float)o->presence_penalty,
        .frequency_penalty = (float)o->frequency_penalty,
        .repeat_last = o->repeat_last,
        .mirostat = o->mirostat != 0 ? 2 : 0,
        .mirostat_tau = (float)o->mirostat_tau,
        .mirostat_eta = (float)o->mirostat_eta,
        .seed = o->seed,
    };
}

/* A turn of the tokens in ids. */
static int begin(struct weft_conversation *c, weft_err *err)
{
    const struct weft_cluster_file *f = &c->app->file;
    const uint32_t left = left_to_predict(c);
    size_t n_stops;
    const int32_t *stops = weft_tokenizer_stops(c->tokenizer, &n_stops);
    c->kept = common_prefix(c);
    struct weft_turn turn = {
        .keep = c->kept,
        .tokens = c->ids + c->kept,
        .n_tokens = (uint32_t)c->n_ids - c->kept,
        .max_tokens = left > 0 ? left : f->context, /* more than fit: it ends with the context */
        .n_resumed = c->n_resumed < c->n_ids ? c->n_resumed : (uint32_t)c->n_ids,
        .logprobs = c->logprobs != NULL,
        .n_logprobs = n_best(c),
        .sampling = sampling_of(&f->sampling),
        .stop_ids = stops,
        .n_stop_ids = (uint32_t)n_stops,
    };
    turn.sampling.seed += c->n_shifts; /* by position: after a shift others are to come there */
    weft_answer_rules_apply(&c->rules, &turn);
    return weft_session_turn(c->session, &turn, err);
}

/* The context is full in the midst of an answer: makes room, and the answer goes on. *ret_resumed
 * stays false when nothing may go any more. */
static int resume(struct weft_conversation *c, bool *ret_resumed, weft_err *err)
{
    struct weft_conversation_figures before;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    uint32_t turns = 0;
    if (c->text.failed || !grammar_goes_on(c, false)) /* the failure is told at the end */
        return 0;
    weft_conversation_figures(c, &before);
    int r = drop_turns(c, c->n_answer, &ids, &n_ids, &turns, err);
    if (r == 0 && turns > 0) {
        r = append_answer(c, 0, &ids, &n_ids, err);
    } else if (r == 0 && c->template == NULL && grammar_goes_on(c, true)) {
        ids = c->ids;
        n_ids = c->n_ids;
        c->ids = NULL;
        r = append_answer(c, c->n_resumed, &ids, &n_ids, err);
        if (r == 0)
            drop_half(c, ids, &n_ids);
    } else if (r == 0) {
        return 0;
    }
    if (r < 0) {
        free(ids);
        return r;
    }
    free(c->ids);
    c->ids = ids;
    c->n_ids = n_ids;
    c->n_resumed = c->n_answer;
    c->before = before;
    c->events->shifted(c->arg, turns, (uint32_t)n_ids);
    r = begin(c, err);
    *ret_resumed = r == 0;
    return r;
}

int weft_conversation_answer(struct weft_conversation *c, weft_err *err)
{
    if (c->session == NULL) {
        int r = weft_session_open(c->app->cluster, &session_events, c, &c->session, err);
        if (r < 0)
            return r;
    }
    weft_str_clear(&c->text);
    c->given = 0;
    c->stop = NULL;
    c->n_answer = c->n_resumed = 0;
    c->before = (struct weft_conversation_figures){0};
    weft_detok_init(&c->detok, c->tokenizer, c->ids[c->n_ids - 1]);
    int r = begin(c, err);
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
    uint32_t last_tokens;
    *ret = (struct weft_conversation_figures){
        .prompt_tokens = c->before.prompt_tokens + (uint32_t)c->n_ids - c->kept,
        .kept_tokens = c->n_resumed > 0 ? c->before.kept_tokens : c->kept,
        .answer_tokens = c->n_answer,
        .answer_ids = c->answer,
        .stop = c->stop,
        .logprobs = {c->logprobs, c->n_answer, n_best(c), c->tokenizer},
    };
    weft_session_times(c->session, &ret->prompt_ns, &ret->answer_ns, &last_tokens);
    ret->prompt_ns += c->before.prompt_ns;
    ret->answer_ns += c->before.answer_ns;
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
    int r = weft_tokenizer_open(&app->model_file.gguf, &c->tokenizer, err);
    if (r == 0 && weft_tokenizer_vocab(c->tokenizer) > app->model.vocab)
        r = weft_fail(err, WEFT_EMODEL, "%s: the tokenizer has %u tokens, the model %u",
                      app->model.name, weft_tokenizer_vocab(c->tokenizer), app->model.vocab);
    if (r == 0 && !raw)
        r = app->opt->template != NULL
                ? weft_template_open_builtin(app->opt->template, &c->template, err)
                : weft_template_open_gguf(&app->model_file.gguf, &c->template, err);
    if (r == 0)
        r = weft_answer_rules_open(app->opt, c->tokenizer, &c->rules, err);
    c->answer_room = app->file.context;
    if (r == 0 && (c->answer = calloc(c->answer_room, sizeof *c->answer)) == NULL)
        r = weft_fail(err, WEFT_ENOMEM, "conversation");
    if (r == 0 && app->opt->logprobs >= 0 &&
        (c->logprobs = calloc(c->answer_room, (1 + n_best(c)) * sizeof *c->logprobs)) == NULL)
        r = weft_fail(err, WEFT_ENOMEM, "log-probabilities of %u tokens", app->file.context);
    if (r == 0 && !raw && app->file.system != NULL)
        r = add_message(c, "system", app->file.system, strlen(app->file.system), err);
    if (r < 0) {
        weft_conversation_close(c);
        return r;
    }
    weft_app_warn(weft_tokenizer_warning(c->tokenizer));
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
    free(c->logprobs);
    weft_answer_rules_done(&c->rules);
    weft_str_done(&c->text);
    weft_template_close(c->template);
    weft_tokenizer_close(c->tokenizer);
    free(c);
}
