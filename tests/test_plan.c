/*
 * Cost model, plans and their text: figures worked out by hand, golden text, errors of pins.
 */
#include "partitioner/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"

#define LAYERS 8
#define DEVICES 3

/* F32 model: 1024 wide, 8 layers, FFN 2048, 8/4 heads of 128, vocabulary 8192. */
struct setup {
    struct weft_model model;
    struct weft_layer_tensors layers[LAYERS];
    struct weft_device_facts devices[DEVICES];
    struct weft_link_facts links[DEVICES * DEVICES];
    struct weft_plan_request rq;
};

static struct weft_tensor f32(uint32_t rows, uint32_t cols)
{
    return (struct weft_tensor){.type = 0, .rows = rows, .cols = cols, .bytes = 4ull * rows * cols};
}

static void layer(struct weft_layer_tensors *l, enum weft_role role, uint32_t rows, uint32_t cols)
{
    l->role[role - WEFT_ROLE_GLOBAL_COUNT] = f32(rows, cols);
}

static struct setup *setup_open(void)
{
    static const char *const names[DEVICES] = {"jetson", "pi5-a", "phone"};
    struct setup *s = calloc(1, sizeof *s);
    struct weft_model *m = &s->model;
    *m = (struct weft_model){.arch = "llama",
                             .name = "tiny",
                             .n_layers = LAYERS,
                             .dim = 1024,
                             .n_heads = 8,
                             .n_kv_heads = 4,
                             .head_dim = 128,
                             .ffn_dim = 2048,
                             .vocab = 8192,
                             .context_max = 8192,
                             .rope_dim = 128,
                             .rope_base = 10000,
                             .norm_eps = 1e-5f,
                             .layers = s->layers};
    m->traits = weft_traits_plain(m);
    m->global[WEFT_ROLE_EMBED] = m->global[WEFT_ROLE_OUTPUT] = f32(8192, 1024);
    m->global[WEFT_ROLE_OUTPUT_NORM] = f32(1, 1024);
    for (int i = 0; i < LAYERS; i++) {
        layer(&s->layers[i], WEFT_ROLE_ATTN_NORM, 1, 1024);
        layer(&s->layers[i], WEFT_ROLE_ATTN_Q, 1024, 1024);
        layer(&s->layers[i], WEFT_ROLE_ATTN_K, 512, 1024);
        layer(&s->layers[i], WEFT_ROLE_ATTN_V, 512, 1024);
        layer(&s->layers[i], WEFT_ROLE_ATTN_O, 1024, 1024);
        layer(&s->layers[i], WEFT_ROLE_FFN_NORM, 1, 1024);
        layer(&s->layers[i], WEFT_ROLE_FFN_GATE, 2048, 1024);
        layer(&s->layers[i], WEFT_ROLE_FFN_UP, 2048, 1024);
        layer(&s->layers[i], WEFT_ROLE_FFN_DOWN, 1024, 2048);
    }
    for (uint32_t d = 0; d < DEVICES; d++) {
        struct weft_device_facts *f = &s->devices[d];
        snprintf(f->name, sizeof f->name, "%s", names[d]);
        f->memory_free_bytes = f->machine_free_bytes = 256u << 20;
        f->bytes_per_s = (20 - 8 * (uint64_t)d) * 1000000000;
        f->flops_per_s = (100 - 40 * (uint64_t)d) * 1000000000;
        f->stage_ns = 20000;
        for (uint32_t e = 0; e < DEVICES; e++)
            s->links[d * DEVICES + e] = (struct weft_link_facts){
                .latency_ns = 100000, .bytes_per_s = 100000000, .known = true};
    }
    s->rq = (struct weft_plan_request){.model = m,
                                       .devices = s->devices,
                                       .links = s->links,
                                       .n_devices = DEVICES,
                                       .cost = {.context = 4096,
                                                .sessions = 1,
                                                .kv = WEFT_KV_F16,
                                                .batch_rows = 64,
                                                .stage_scratch_bytes = 4u << 20,
                                                .pin_embed = -1,
                                                .pin_head = -1}};
    return s;
}

static struct weft_plan make(struct setup *s)
{
    struct weft_plan plan = {0};
    weft_err err = {0};
    int r = weft_plan_make(&s->rq, &plan, &err);
    ck_assert_msg(r == 0, "%s", err.text);
    return plan;
}

static size_t columns(const char *line, size_t n)
{
    size_t c = 0;
    for (size_t k = 0; k < n; k++)
        c += ((unsigned char)line[k] & 0xc0) != 0x80;
    return c;
}

static void check_text(struct setup *s, const struct weft_plan *plan, const char *golden)
{
    struct weft_str out = {0};
    size_t size;
    weft_plan_text(&s->rq, plan, false, &out);
    ck_assert(!out.failed);
    for (const char *at = out.data; *at != '\0'; at = strchr(at, '\n') + 1)
        ck_assert_uint_le(columns(at, strcspn(at, "\n")), 100);
    char *want = (char *)weft_test_read(golden, &size);
    ck_assert_msg(want != NULL, "%s is missing; the text is:\n%s", golden, out.data);
    ck_assert_msg(strcmp(out.data, want) == 0, "%s: the text is:\n%s", golden, out.data);
    free(want);
    weft_str_done(&out);
}

START_TEST(costs_are_the_documented_ones)
{
    struct setup *s = setup_open();
    struct weft_problem p;
    ck_assert_int_eq(
        weft_cost_problem(&s->model, s->devices, DEVICES, s->links, &s->rq.cost, &p, NULL), 0);
    uint64_t weights = weft_layer_weight_bytes(&s->model, 0), kv = 2048; /* 2 * 4 * 128 * 2 */
    ck_assert_uint_eq(p.n_items, LAYERS + 2);
    ck_assert_uint_eq(p.item_bytes[1], weights + kv * 4096);
    ck_assert_uint_eq(p.item_bytes[0], weft_embed_weight_bytes(&s->model));
    ck_assert_uint_eq(p.tied_bytes, 0);
    /* 20 GB/s: bytes / 20 ns rounded up, weights and half of the context apart. */
    ck_assert_uint_eq(p.compute_ns[DEVICES], (weights + 19) / 20 + (kv * 2048 + 19) / 20);
    ck_assert_uint_eq(p.compute_ns[0], (4096 + 19) / 20);
    ck_assert_uint_eq(p.compute_ns[(LAYERS + 1) * DEVICES], (8192ull * 4096 + 19) / 20);
    ck_assert_uint_eq(p.hop_ns[1], 100000 + 40960);  /* 4096 bytes at 0.1 bytes a ns */
    ck_assert_uint_eq(p.return_ns[1], 100000 + 640); /* 64 bytes */
    ck_assert_uint_eq(p.hop_ns[0], 0);
    ck_assert_uint_eq(p.n_groups, DEVICES);
    /* Slow arithmetic: 2 per multiply-add takes over. */
    s->devices[0].flops_per_s = 1000000000;
    uint64_t params = 2 * 1024ull * 1024 + 2 * 512 * 1024 + 3 * 2048 * 1024 + 2 * 1024;
    ck_assert_uint_eq(weft_cost_prefill_ns(&s->model, s->devices, 1, 3, &s->rq.cost),
                      2 * 3 * params + (kv * 2048 + 19) / 20);
    weft_problem_done(&p);
    free(s);
}
END_TEST

START_TEST(one_machine_is_one_group)
{
    struct setup *s = setup_open();
    struct weft_problem p;
    strcpy(s->devices[0].boot_id, "b");
    strcpy(s->devices[2].boot_id, "b");
    s->devices[2].machine_free_bytes = 5;
    s->model.tied = true;
    s->links[1].known = false;
    ck_assert_int_eq(
        weft_cost_problem(&s->model, s->devices, DEVICES, s->links, &s->rq.cost, &p, NULL), 0);
    ck_assert_uint_eq(p.n_groups, 2);
    ck_assert_uint_eq(p.devices[0].group, p.devices[2].group);
    ck_assert_uint_eq(p.group_memory_bytes[p.devices[0].group], 5);
    ck_assert_uint_eq(p.tied_bytes, p.item_bytes[0]);
    ck_assert(p.hop_ns[1] == WEFT_NO_LINK && p.return_ns[1] == WEFT_NO_LINK);
    ck_assert(p.hop_ns[DEVICES] != WEFT_NO_LINK);
    weft_problem_done(&p);
    free(s);
}
END_TEST

START_TEST(absurd_options_are_refused)
{
    struct setup *s = setup_open();
    struct weft_plan plan = {0};
    weft_err err = {0};
    s->rq.cost.context = 0;
    ck_assert_int_eq(weft_plan_make(&s->rq, &plan, &err), -WEFT_ECONFIG);
    ck_assert_ptr_nonnull(strstr(err.text, "context 0"));
    s->rq.cost.context = 16;
    s->rq.cost.kv = (enum weft_kv)3;
    ck_assert_int_eq(weft_plan_make(&s->rq, &plan, &err), -WEFT_ECONFIG);
    s->rq.cost.kv = WEFT_KV_F32;
    s->rq.n_devices = 0;
    ck_assert_int_eq(weft_plan_make(&s->rq, &plan, &err), -WEFT_ECONFIG);
    s->rq.n_devices = DEVICES;
    s->devices[1].bytes_per_s = 1; /* a layer would take years */
    ck_assert_int_eq(weft_plan_make(&s->rq, &plan, &err), -WEFT_ECONFIG);
    ck_assert_ptr_nonnull(strstr(err.text, "on device pi5-a"));
    ck_assert_ptr_null(plan.stages);
    free(s);
}
END_TEST

START_TEST(one_device_when_it_is_fastest)
{
    struct setup *s = setup_open();
    s->devices[0].memory_free_bytes = s->devices[0].machine_free_bytes = 4096ull << 20;
    struct weft_plan plan = make(s);
    ck_assert_uint_eq(plan.n_stages, 1);
    ck_assert(plan.stages[0].embed && plan.stages[0].head && plan.proved_optimal);
    ck_assert_uint_eq(plan.stages[0].n_layers, LAYERS);
    ck_assert_uint_eq(plan.stages[0].hop_bytes, 0);
    ck_assert_int_eq(plan.single_better, -1);
    ck_assert(plan.singles[0].fits && !plan.singles[1].fits);
    ck_assert_uint_eq(plan.singles[0].latency_ns, plan.latency_ns);
    check_text(s, &plan, "tests/fixtures/plan_single.txt");
    weft_plan_done(&plan);
    free(s);
}
END_TEST

START_TEST(several_devices_as_text_and_json)
{
    struct setup *s = setup_open();
    struct weft_plan plan = make(s);
    struct weft_str json = {0};
    size_t size;
    ck_assert_uint_gt(plan.n_stages, 1);
    uint64_t sum = 0;
    for (uint32_t k = 0; k < plan.n_stages; k++)
        sum += plan.stages[k].decode_ns + plan.stages[k].hop_ns;
    ck_assert_uint_eq(sum, plan.latency_ns);
    check_text(s, &plan, "tests/fixtures/plan_latency.txt");
    weft_plan_json(&s->rq, &plan, &json);
    char *want = (char *)weft_test_read("tests/fixtures/plan_latency.json", &size);
    ck_assert_msg(want != NULL && strcmp(json.data, want) == 0, "JSON is:\n%s", json.data);
    free(want);
    weft_str_done(&json);
    weft_plan_done(&plan);
    free(s);
}
END_TEST

START_TEST(pinned_plans_are_kept_and_judged)
{
    struct setup *s = setup_open();
    const struct weft_pinned_stage pins[3] = {{1, 0, 2}, {2, 2, 3}, {0, 5, 3}};
    s->devices[0].memory_free_bytes = s->devices[0].machine_free_bytes = 4096ull << 20;
    s->rq.pinned = pins;
    s->rq.n_pinned = 3;
    struct weft_plan plan = make(s);
    ck_assert(plan.pinned);
    ck_assert_uint_eq(plan.n_stages, 3);
    for (uint32_t k = 0; k < 3; k++) {
        ck_assert_uint_eq(plan.stages[k].device, pins[k].device);
        ck_assert_uint_eq(plan.stages[k].first_layer, pins[k].first_layer);
        ck_assert_uint_eq(plan.stages[k].n_layers, pins[k].n_layers);
    }
    ck_assert(plan.stages[0].embed && plan.stages[2].head);
    ck_assert_int_eq(plan.single_better, 0);
    check_text(s, &plan, "tests/fixtures/plan_pinned.txt");
    weft_plan_done(&plan);

    s->rq.cost.pin_embed = 0; /* the embedding on its own stage */
    s->rq.cost.pin_head = 1;
    plan = make(s);
    ck_assert_uint_eq(plan.n_stages, 5);
    ck_assert(plan.stages[0].embed && plan.stages[0].n_layers == 0);
    ck_assert(plan.stages[4].head && plan.stages[4].n_layers == 0);
    weft_plan_done(&plan);
    free(s);
}
END_TEST

START_TEST(wrong_pins_are_named)
{
    static const struct {
        struct weft_pinned_stage pins[3];
        uint32_t n;
        const char *text;
    } bad[] = {
        {{{0, 1, 7}}, 1, "stages[0] (jetson): begins at layer 1, expected 0"},
        {{{0, 0, 4}, {1, 5, 3}}, 2, "stages[1] (pi5-a): begins at layer 5, expected 4"},
        {{{0, 0, 4}, {1, 3, 5}}, 2, "stages[1] (pi5-a): begins at layer 3, expected 4"},
        {{{0, 0, 4}, {1, 4, 5}}, 2, "stages[1] (pi5-a): ends at layer 8, expected 7"},
        {{{0, 0, 4}, {1, 4, 3}},
         2,
         "stages[1] (pi5-a): the last stage ends at layer 6, expected 7"},
        {{{0, 0, 4}, {1, 4, 0}, {2, 4, 4}},
         3,
         "stages[1] (pi5-a): no layer; only the first and the last stage may have none"},
        {{{3, 0, 8}}, 1, "stages[0]: device 3, expected below 3"},
        {{{0, 0, UINT32_MAX}}, 1, "stages[0] (jetson): ends at layer 4294967294, expected 7"},
    };
    struct setup *s = setup_open();
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        struct weft_plan plan = {0};
        weft_err err = {0};
        s->rq.pinned = bad[k].pins;
        s->rq.n_pinned = bad[k].n;
        ck_assert_int_eq(weft_plan_make(&s->rq, &plan, &err), -WEFT_ECONFIG);
        ck_assert_str_eq(err.text, bad[k].text);
    }
    free(s);
}
END_TEST

static void check_nofit(struct setup *s, const char *golden)
{
    struct weft_plan plan = {0};
    weft_err err = {0};
    size_t size;
    ck_assert_int_eq(weft_plan_make(&s->rq, &plan, &err), -WEFT_ENOFIT);
    char *want = (char *)weft_test_read(golden, &size);
    ck_assert_msg(want != NULL && strlen(want) == strlen(err.text) + 1 &&
                      memcmp(want, err.text, strlen(err.text)) == 0,
                  "%s: the text is:\n%s", golden, err.text);
    free(want);
}

START_TEST(nofit_says_what_would_cure_it)
{
    struct setup *s = setup_open();
    s->rq.cost.context = 65536;
    check_nofit(s, "tests/fixtures/nofit_context.txt");
    const struct weft_pinned_stage pins[1] = {{0, 0, LAYERS}};
    s->rq.pinned = pins;
    s->rq.n_pinned = 1;
    check_nofit(s, "tests/fixtures/nofit_pinned.txt");
    s->rq.n_pinned = 0;
    for (uint32_t d = 0; d < DEVICES; d++)
        s->devices[d].memory_free_bytes = 1u << 20;
    check_nofit(s, "tests/fixtures/nofit_memory.txt");
    free(s);
}
END_TEST

/* What the text promises as a cure is one. */
START_TEST(the_cure_cures)
{
    struct setup *s = setup_open();
    struct weft_plan plan = {0};
    weft_err err = {0};
    s->rq.cost.context = 65536;
    ck_assert_int_eq(weft_plan_make(&s->rq, &plan, &err), -WEFT_ENOFIT);
    const char *at = strstr(err.text, "-c ");
    ck_assert_ptr_nonnull(at);
    s->rq.cost.context = (uint32_t)strtoul(at + 3, NULL, 10);
    plan = make(s);
    weft_plan_done(&plan);
    s->rq.cost.context++;
    ck_assert_int_eq(weft_plan_make(&s->rq, &plan, NULL), -WEFT_ENOFIT);
    free(s);
}
END_TEST

START_TEST(unmeasured_devices_give_no_speeds)
{
    struct setup *s = setup_open();
    s->devices[1].bytes_per_s = 0;
    struct weft_plan plan = make(s);
    struct weft_str out = {0};
    ck_assert(!plan.predicted);
    weft_plan_text(&s->rq, &plan, false, &out);
    ck_assert_ptr_null(strstr(out.data, "tokens/s"));
    ck_assert_ptr_nonnull(strstr(out.data, "no speeds"));
    weft_str_clear(&out);
    weft_plan_json(&s->rq, &plan, &out);
    ck_assert_ptr_null(strstr(out.data, "_ns"));
    weft_str_done(&out);
    weft_plan_done(&plan);
    free(s);
}
END_TEST

/* A device that does not answer is called so, and the speeds of the others still stand. */
START_TEST(unreachable_devices_are_called_so)
{
    struct setup *s = setup_open();
    s->devices[1].unreachable = true;
    s->devices[1].memory_free_bytes = s->devices[1].bytes_per_s = 0;
    struct weft_plan plan = make(s);
    struct weft_str out = {0};
    char words[128];
    ck_assert(plan.predicted && !plan.singles[1].fits);
    weft_plan_text(&s->rq, &plan, false, &out);
    snprintf(words, sizeof words, "unused %s: unreachable\n", s->devices[1].name);
    ck_assert_msg(strstr(out.data, words) != NULL, "%s", out.data);
    snprintf(words, sizeof words, "%s too small", s->devices[1].name);
    ck_assert_ptr_null(strstr(out.data, words));
    weft_plan_done(&plan);
    weft_str_clear(&out);
    plan = make(s);
    plan.proved_optimal = false;
    weft_plan_text(&s->rq, &plan, false, &out);
    ck_assert_ptr_nonnull(strstr(out.data, "not proved to be the best"));
    weft_str_done(&out);
    weft_plan_done(&plan);
    free(s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("plan");
    TCase *c = tcase_create("plan");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, costs_are_the_documented_ones);
    tcase_add_test(c, one_machine_is_one_group);
    tcase_add_test(c, absurd_options_are_refused);
    tcase_add_test(c, one_device_when_it_is_fastest);
    tcase_add_test(c, several_devices_as_text_and_json);
    tcase_add_test(c, pinned_plans_are_kept_and_judged);
    tcase_add_test(c, wrong_pins_are_named);
    tcase_add_test(c, nofit_says_what_would_cure_it);
    tcase_add_test(c, the_cure_cures);
    tcase_add_test(c, unmeasured_devices_give_no_speeds);
    tcase_add_test(c, unreachable_devices_are_called_so);
    suite_add_tcase(s, c);
    return weft_test_main(s);
}
