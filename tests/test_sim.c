/*
 * The whole cluster in one process on virtual time: coordinator and nodes are the real state
 * machines with the demo model; every session must end with the exact tokens, whatever delays and
 * orders the seed brings. With drops only sessions whose frames were lost may fail, and with a
 * reason.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/cluster.h"
#include "coordinator/template.h"
#include "coordinator/tokenizer.h"
#include "daemon/node.h"
#include "tests/harness.h"
#include "tests/sim.h"
#include "tests/stories.h"

#define NODES_MAX 4
#define SESSIONS 3
#define MODEL_PATH "configs/demo/weft-stories-q8_0.gguf"
#define LIMIT_NS ((uint64_t)7200 * 1000000000u)

/* Shared by all runs of the program. */
static struct {
    struct weft_mapping map;
    struct weft_gguf gguf;
    struct weft_model model;
    struct weft_tokenizer *tokenizer;
    struct weft_template *template;
    struct story stories[STORIES_MAX];
    size_t n_stories;
} world;

struct world_session {
    struct cluster *cluster;
    struct weft_session *session;
    const struct story *story;
    int32_t *prompt;
    size_t n_prompt;
    uint32_t max_tokens, n;
    bool finished, failed, wrong;
    weft_err why;
    uint32_t id; /* of the session on the wire: opened in order, from 1 */
};

struct cluster {
    struct sim *sim;
    uint64_t random;
    unsigned n_nodes;
    struct weft_node *nodes[NODES_MAX];
    struct weft_cluster_device devices[NODES_MAX];
    struct weft_cluster *coordinator;
    struct weft_plan_stage stages[2 * NODES_MAX + 2];
    struct weft_plan plan;
    struct world_session sessions[SESSIONS];
    unsigned running;
    bool phase_done, all_done;
    weft_err why;            /* of the phase */
    bool lost[SESSIONS + 1]; /* a frame of the session with this id was dropped */
};

static void setup(void)
{
    weft_err err = {0};
    const char *path = weft_test_path(MODEL_PATH);
    ck_assert_ptr_nonnull(path);
    ck_assert_msg(weft_mapping_open(path, &world.map, &err) == 0, "%s", err.text);
    ck_assert_msg(weft_gguf_open(world.map.data, world.map.size, &world.gguf, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(weft_model_from_gguf(&world.gguf, &world.map, &world.model, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(weft_tokenizer_open(&world.gguf, &world.tokenizer, &err) == 0, "%s", err.text);
    ck_assert_msg(weft_template_open_gguf(&world.gguf, &world.template, &err) == 0, "%s", err.text);
    world.n_stories = stories_load(world.stories);
    ck_assert_uint_ge(world.n_stories, SESSIONS);
}

static void teardown(void)
{
    stories_done(world.stories, world.n_stories);
    weft_template_close(world.template);
    weft_tokenizer_close(world.tokenizer);
    weft_model_done(&world.model);
    weft_gguf_done(&world.gguf);
    weft_mapping_close(&world.map);
}

/* ------------------------------------------------------------------ a cluster from a seed */

static void look(void *arg, struct weft_look *ret)
{
    (void)arg;
    *ret = (struct weft_look){
        .total_bytes = (uint64_t)8 << 30,
        .available_bytes = (uint64_t)4 << 30,
        .machine_bytes = (uint64_t)4 << 30,
        .cap_bytes = UINT64_MAX,
    };
}

static void accept_conn(void *arg, struct weft_conn *c)
{
    weft_node_accept(arg, c);
}

static uint32_t below(struct cluster *cl, uint32_t n)
{
    return (uint32_t)(weft_test_random(&cl->random) % n);
}

/* Cuts the layers at random places and gives the stages to random devices; embedding and head may
 * be stages of their own. */
static void random_plan(struct cluster *cl)
{
    uint32_t layer = 0, n = 0, layers = world.model.n_layers;
    if (below(cl, 4) == 0)
        cl->stages[n++] = (struct weft_plan_stage){.device = below(cl, cl->n_nodes)};
    while (layer < layers) {
        uint32_t count = n + 2 >= 2 * NODES_MAX ? layers - layer : 1 + below(cl, layers - layer);
        cl->stages[n++] = (struct weft_plan_stage){
            .device = below(cl, cl->n_nodes), .first_layer = layer, .n_layers = count};
        layer += count;
    }
    if (below(cl, 4) == 0)
        cl->stages[n++] =
            (struct weft_plan_stage){.device = below(cl, cl->n_nodes), .first_layer = layers};
    cl->stages[0].embed = true;
    cl->stages[n - 1].head = true;
    cl->plan = (struct weft_plan){.stages = cl->stages, .n_stages = n};
}

static bool lose_session(struct cluster *cl, uint32_t id)
{
    ck_assert_uint_le(id, SESSIONS);
    cl->lost[id] = true;
    return true;
}

/* Only frames that carry a session may be lost; their sessions are noted. */
static bool may_drop(void *arg, const Weft__Envelope *env)
{
    struct cluster *cl = arg;
    switch (env->body_case) {
    case WEFT__ENVELOPE__BODY_STEP:
        for (size_t i = 0; i < env->step->n_segments; i++)
            lose_session(cl, env->step->segments[i]->session);
        return true;
    case WEFT__ENVELOPE__BODY_TOKEN:
        return lose_session(cl, env->token->session);
    case WEFT__ENVELOPE__BODY_PROMPT:
        return lose_session(cl, env->prompt->session);
    case WEFT__ENVELOPE__BODY_BEGIN:
        return lose_session(cl, env->begin->session);
    case WEFT__ENVELOPE__BODY_BEGUN:
        return lose_session(cl, env->begun->session);
    case WEFT__ENVELOPE__BODY_ACK:
        return lose_session(cl, env->ack->session);
    default:
        return false;
    }
}

static void phase_done(void *arg, const weft_err *err)
{
    struct cluster *cl = arg;
    cl->phase_done = true;
    if (err != NULL)
        cl->why = *err;
}

static void run_phase(struct cluster *cl, const char *what)
{
    bool ended = sim_run(cl->sim, &cl->phase_done, LIMIT_NS);
    ck_assert_msg(ended && cl->why.code == 0, "%s: %s", what, ended ? cl->why.text : "never ended");
    cl->phase_done = false;
}

static void open_cluster(struct cluster *cl, uint64_t seed, double drop)
{
    static const char *const addresses[NODES_MAX] = {"n0:1", "n1:1", "n2:1", "n3:1"};
    static const char *const names[NODES_MAX] = {"n0", "n1", "n2", "n3"};
    weft_err err = {0};
    memset(cl, 0, sizeof *cl);
    cl->random = seed * 2654435761u + 7;
    cl->n_nodes = 1 + below(cl, NODES_MAX);
    const struct sim_options so = {
        .seed = seed,
        .delay_min_ns = 5000,
        /* Up to 0.37 s: an answered Hello (there and back) and the first heartbeat 0.25 s later
         * still come within the second after which silence is death. */
        .delay_max_ns = below(cl, 2) == 0 ? 2000000 : 370000000,
        .work_max_ns = 3000000,
        .drop = drop,
        .may_drop = drop > 0 ? may_drop : NULL,
        .arg = cl,
    };
    cl->sim = sim_open(&so);
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        const struct weft_node_options no = {
            .name = names[i],
            .cpu = "simulated",
            .boot_id = names[i],
            .io = sim_io(cl->sim, i),
            .engine = {.table = wk_table_select(NULL)},
            .drain_ns = 1000000000u,
            .look = look,
        };
        ck_assert_msg(weft_node_open(&no, &cl->nodes[i], &err) == 0, "%s", err.text);
        sim_listen(cl->sim, i, addresses[i], accept_conn, cl->nodes[i]);
        cl->devices[i] = (struct weft_cluster_device){.name = names[i], .address = addresses[i]};
    }
    const struct weft_cluster_options co = {
        .io = sim_io(cl->sim, NODES_MAX),
        .name = "sim",
        .devices = cl->devices,
        .n_devices = cl->n_nodes,
        .answer_ms = 60000,
    };
    ck_assert_msg(weft_cluster_open(&co, &cl->coordinator, &err) == 0, "%s", err.text);
    weft_cluster_gather(cl->coordinator, WEFT_GATHER_STATUS, phase_done, cl);
    run_phase(cl, "gather");
    random_plan(cl);
    const struct weft_deployment d = {
        .model = &world.model,
        .files = &world.map,
        .plan = &cl->plan,
        .context = 256,
        .sessions = SESSIONS,
        .batch_rows = 1 + below(cl, 48),
    };
    weft_cluster_deploy(cl->coordinator, &d, phase_done, cl);
    run_phase(cl, "deploy");
}

static void closed(void *arg)
{
    ((struct cluster *)arg)->phase_done = true;
}

static void close_cluster(struct cluster *cl)
{
    for (unsigned i = 0; i < SESSIONS; i++)
        free(cl->sessions[i].prompt);
    weft_cluster_close(cl->coordinator, closed, cl);
    run_phase(cl, "close");
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        weft_node_close(cl->nodes[i], closed, cl);
        run_phase(cl, "close node");
    }
    sim_close(cl->sim);
}

/* ------------------------------------------------------------------ sessions */

static void on_token(void *arg, int32_t id, enum weft_finish finish)
{
    struct world_session *s = arg;
    if (finish == WEFT_FINISH_STOP)
        s->wrong |= s->n != s->story->n_ids;
    else
        s->wrong |= s->n >= s->story->n_ids || id != s->story->ids[s->n];
    s->n++;
}

static void start(struct world_session *s);

static void on_done(void *arg, const weft_err *err, enum weft_finish finish)
{
    struct world_session *s = arg;
    (void)finish;
    s->finished = true;
    if (err != NULL) {
        s->failed = true;
        s->why = *err;
    }
    s->cluster->all_done = --s->cluster->running == 0;
}

static const struct weft_session_events session_events = {.token = on_token, .done = on_done};

static void start(struct world_session *s)
{
    weft_err err = {0};
    size_t n_stops;
    const int32_t *stops = weft_tokenizer_stops(world.tokenizer, &n_stops);
    const struct weft_message message = {
        .role = "user", .content = s->story->prompt, .content_size = strlen(s->story->prompt)};
    int r = weft_template_encode(world.template, world.tokenizer, &message, 1, true, &s->prompt,
                                 &s->n_prompt, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    r = weft_session_open(s->cluster->coordinator, &session_events, s, &s->session, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    const struct weft_turn turn = {
        .tokens = s->prompt,
        .n_tokens = (uint32_t)s->n_prompt,
        .max_tokens = s->max_tokens,
        .sampling = {.top_p = 1, .repeat_penalty = 1},
        .stop_ids = stops,
        .n_stop_ids = (uint32_t)n_stops,
    };
    r = weft_session_turn(s->session, &turn, &err);
    ck_assert_msg(r == 0, "%s", err.text);
}

static void run_sessions(struct cluster *cl)
{
    cl->running = SESSIONS;
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct world_session *s = &cl->sessions[i];
        s->cluster = cl;
        s->id = i + 1;
        s->story = &world.stories[below(cl, (uint32_t)world.n_stories)];
        s->max_tokens = 4 + below(cl, 14);
        start(s);
    }
    bool ended = sim_run(cl->sim, &cl->all_done, LIMIT_NS);
    for (unsigned i = 0; i < SESSIONS; i++)
        ck_assert_msg(cl->sessions[i].finished, "session %u never ended (%s)", i + 1,
                      ended ? "?" : "time");
}

static uint32_t expected_tokens(const struct world_session *s)
{
    size_t whole = s->story->n_ids + 1; /* with the end token */
    return s->max_tokens < whole ? s->max_tokens : (uint32_t)whole;
}

START_TEST(no_faults)
{
    struct cluster cl;
    uint64_t seed = weft_test_seed() * 1000 + (uint64_t)_i;
    open_cluster(&cl, seed, 0);
    run_sessions(&cl);
    for (unsigned i = 0; i < SESSIONS; i++) {
        const struct world_session *s = &cl.sessions[i];
        ck_assert_msg(!s->failed, "seed %llu session %u: %s", (unsigned long long)seed, i + 1,
                      s->why.text);
        ck_assert_msg(!s->wrong && s->n == expected_tokens(s),
                      "seed %llu session %u: wrong tokens (%u)", (unsigned long long)seed, i + 1,
                      s->n);
    }
    close_cluster(&cl);
}
END_TEST

START_TEST(drops)
{
    struct cluster cl;
    uint64_t seed = weft_test_seed() * 1000 + (uint64_t)_i;
    open_cluster(&cl, seed, 0.01);
    run_sessions(&cl);
    for (unsigned i = 0; i < SESSIONS; i++) {
        const struct world_session *s = &cl.sessions[i];
        ck_assert_msg(!s->failed || cl.lost[s->id], "seed %llu session %u failed unharmed: %s",
                      (unsigned long long)seed, i + 1, s->why.text);
        ck_assert_msg(!s->failed || s->why.text[0] != '\0', "no reason");
        ck_assert_msg(!s->wrong, "seed %llu session %u: wrong tokens", (unsigned long long)seed,
                      i + 1);
        ck_assert(s->failed || s->n == expected_tokens(s));
    }
    close_cluster(&cl);
}
END_TEST

/* A cable is pulled while answers come: all sessions of the plan end with a reason within seconds.
 */
START_TEST(lost_device)
{
    struct cluster cl;
    uint64_t seed = weft_test_seed() * 1000 + (uint64_t)_i;
    open_cluster(&cl, seed, 0);
    cl.running = SESSIONS;
    for (unsigned i = 0; i < SESSIONS; i++) {
        struct world_session *s = &cl.sessions[i];
        s->cluster = &cl;
        s->id = i + 1;
        s->story = &world.stories[0];
        s->max_tokens = 60;
        start(s);
    }
    unsigned victim = cl.stages[below(&cl, cl.plan.n_stages)].device;
    uint64_t cut_ns = sim_now_ns(cl.sim) + 3000000u * (1 + below(&cl, 100));
    sim_run(cl.sim, &cl.all_done, cut_ns);
    if (!cl.all_done) {
        sim_cut(cl.sim, victim);
        bool ended = sim_run(cl.sim, &cl.all_done, sim_now_ns(cl.sim) + (uint64_t)20 * 1000000000u);
        ck_assert_msg(ended, "seed %llu: sessions hang after %u was lost", (unsigned long long)seed,
                      victim);
        for (unsigned i = 0; i < SESSIONS; i++)
            ck_assert(!cl.sessions[i].failed || cl.sessions[i].why.code == WEFT_ELOST);
    }
    close_cluster(&cl);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sim");
    TCase *t = tcase_create("cluster");
    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 600);
    tcase_add_loop_test(t, no_faults, 0, 200);
    tcase_add_loop_test(t, drops, 0, 200);
    tcase_add_loop_test(t, lost_device, 0, 50);
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
