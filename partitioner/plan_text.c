/*
 * Plans as a table for people and as JSON for programs. Invariant: both say the same; lines of at
 * most 100 columns for names of up to 24 characters. Pure: any thread.
 */
#include "partitioner/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define COLUMNS 100
#define LABEL_COLUMNS 12 /* "predicted   " */
#define BAR_CELLS 10
#define NAME_MAX_COLUMNS 24

static const char *goal_name(enum weft_goal goal)
{
    static const char *const names[WEFT_GOAL_COUNT] = {
        [WEFT_GOAL_LATENCY] = "latency",
        [WEFT_GOAL_THROUGHPUT] = "throughput",
    };
    return (unsigned)goal < WEFT_GOAL_COUNT ? names[goal] : "unknown";
}

static double per_second(uint64_t ns)
{
    return ns > 0 ? 1e9 / (double)ns : 0;
}

static const char *name_of(const struct weft_plan_request *rq, uint32_t device)
{
    return rq->devices[device].name;
}

static uint64_t device_bytes(const struct weft_plan *p, uint32_t device)
{
    uint64_t sum = 0;
    for (uint32_t s = 0; s < p->n_stages; s++) {
        const struct weft_plan_stage *st = &p->stages[s];
        if (st->device == device)
            sum += st->weight_bytes + st->kv_bytes + st->scratch_bytes;
    }
    return sum;
}

static bool is_used(const struct weft_plan *p, uint32_t device)
{
    for (uint32_t s = 0; s < p->n_stages; s++) {
        if (p->stages[s].device == device)
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------ text */

/* A labelled list that goes on in the next line at COLUMNS. */
struct list {
    struct weft_str *out;
    size_t column;
    bool any;
};

static struct list list_begin(struct weft_str *out, const char *label, const char *lead)
{
    weft_str_addf(out, "%-*s%s", LABEL_COLUMNS, label, lead);
    return (struct list){.out = out, .column = LABEL_COLUMNS + weft_text_columns(lead)};
}

static void list_add(struct list *l, const char *text)
{
    size_t n = weft_text_columns(text);
    if (l->any)
        weft_str_adds(l->out, ",");
    if (l->any && l->column + 2 + n + 1 > COLUMNS) {
        weft_str_addf(l->out, "\n%*s", LABEL_COLUMNS, "");
        l->column = LABEL_COLUMNS + n;
    } else {
        weft_str_adds(l->out, l->any ? " " : "");
        l->column += n + (l->any ? 2 : 0);
    }
    weft_str_adds(l->out, text);
    l->any = true;
}

static void add_bar(struct weft_str *out, uint64_t used, uint64_t have)
{
    /* Rounded up: what is used at all shows; full only when it is. */
    double share = have > 0 ? (double)used / (double)have : 1;
    for (int k = 0; k < BAR_CELLS; k++)
        weft_str_adds(out, share * BAR_CELLS > k ? "▇" : "░");
}

static void add_head(const struct weft_plan_request *rq, const struct weft_plan *p,
                     struct weft_str *out)
{
    const struct weft_model *m = rq->model;
    char size[32];
    uint64_t bytes = 0;
    for (uint32_t s = 0; s < p->n_stages; s++)
        bytes += p->stages[s].weight_bytes;
    weft_str_addf(out,
                  "model    %.60s   %s, %" PRIu32 " layers, %" PRIu32 "/%" PRIu32 " heads, %s\n",
                  m->name, m->arch, m->n_layers, m->n_heads, m->n_kv_heads,
                  weft_format_size(size, sizeof size, bytes));
    weft_str_addf(out,
                  "goal     %s, context %" PRIu32 ", %" PRIu32 " session%s, activations f32%s\n\n",
                  goal_name(rq->cost.goal), rq->cost.context, rq->cost.sessions,
                  rq->cost.sessions == 1 ? "" : "s", p->pinned ? ", stages pinned" : "");
}

static void add_stages(const struct weft_plan_request *rq, const struct weft_plan *p,
                       struct weft_str *out)
{
    int width = 8;
    for (uint32_t s = 0; s < p->n_stages; s++) {
        int n = (int)strlen(name_of(rq, p->stages[s].device));
        width = n > width ? n : width;
    }
    width = width > NAME_MAX_COLUMNS ? NAME_MAX_COLUMNS : width;
    weft_str_addf(
        out,
        "stage  %-*s  layers    kv heads  ffn    weights   kv        scratch   free      fits\n",
        width, "device");
    for (uint32_t s = 0; s < p->n_stages; s++) {
        const struct weft_plan_stage *st = &p->stages[s];
        char layers[32] = "-", heads[32] = "-", w[32], kv[32], scratch[32], have[32];
        uint64_t free_bytes = rq->devices[st->device].memory_free_bytes;
        if (st->n_layers > 0) {
            snprintf(layers, sizeof layers, "%" PRIu32 "..%" PRIu32, st->first_layer,
                     st->first_layer + st->n_layers - 1);
            snprintf(heads, sizeof heads, "%" PRIu32 " of %" PRIu32, rq->model->n_kv_heads,
                     rq->model->n_kv_heads);
        }
        weft_str_addf(out, "%-5" PRIu32 "  %-*.*s  %-8s  %-8s  %-5s  %-8s  %-8s  %-8s  %-8s  ", s,
                      width, width, name_of(rq, st->device), layers, heads,
                      st->n_layers > 0 ? "100 %" : "-",
                      weft_format_size(w, sizeof w, st->weight_bytes),
                      weft_format_size(kv, sizeof kv, st->kv_bytes),
                      weft_format_size(scratch, sizeof scratch, st->scratch_bytes),
                      weft_format_size(have, sizeof have, free_bytes));
        add_bar(out, device_bytes(p, st->device), free_bytes);
        weft_str_adds(out, "\n");
    }
    weft_str_addf(out, "embed  %s\n", name_of(rq, p->stages[0].device));
    weft_str_addf(out, "head   %s\n", name_of(rq, p->stages[p->n_stages - 1].device));
}

static bool has_link(const struct weft_plan_request *rq, uint32_t d)
{
    for (uint32_t e = 0; e < rq->n_devices; e++) {
        if (e != d && rq->links[(size_t)d * rq->n_devices + e].known &&
            rq->links[(size_t)e * rq->n_devices + d].known)
            return true;
    }
    return false;
}

static void add_unused(const struct weft_plan_request *rq, const struct weft_plan *p,
                       struct weft_str *out)
{
    uint64_t layer =
        weft_layer_weight_bytes(rq->model, 0) + rq->cost.stage_scratch_bytes +
        weft_kv_position_bytes(rq->model, rq->cost.kv) * rq->cost.context * rq->cost.sessions;
    for (uint32_t d = 0; d < p->n_devices; d++) {
        char a[32], b[32];
        if (is_used(p, d))
            continue;
        weft_str_addf(out, "unused %s: ", name_of(rq, d));
        if (rq->devices[d].unreachable)
            weft_str_adds(out, "unreachable\n");
        else if (p->pinned)
            weft_str_adds(out, "not among the pinned stages\n");
        else if (rq->devices[d].memory_free_bytes < layer)
            weft_str_addf(out, "not enough memory for one layer, %s of %s\n",
                          weft_format_size(a, sizeof a, rq->devices[d].memory_free_bytes),
                          weft_format_size(b, sizeof b, layer));
        else if (!has_link(rq, d))
            weft_str_adds(out, "no link to the other devices\n");
        else if (p->predicted && p->proved_optimal)
            weft_str_addf(out, "would not help the goal, %s\n", goal_name(rq->cost.goal));
        else if (!p->predicted)
            weft_str_adds(out, "not needed; whether it would help was not measured\n");
        else
            weft_str_adds(out, "not in the best plan found\n");
    }
}

static void add_predicted(const struct weft_plan_request *rq, const struct weft_plan *p,
                          struct weft_str *out)
{
    char whole[32], compute[32], hops[32], first[32];
    uint64_t compute_ns = 0, hop_ns = 0;
    if (!p->predicted) {
        weft_str_addf(out, "%-*sno speeds: not every device was measured\n", LABEL_COLUMNS,
                      "predicted");
        return;
    }
    for (uint32_t s = 0; s < p->n_stages; s++) {
        compute_ns += p->stages[s].decode_ns;
        hop_ns += p->stages[s].hop_ns;
    }
    weft_str_addf(out,
                  "%-*s%.1f tokens/s (%s: compute %s, hops %s), first token of %" PRIu32 " in %s\n",
                  LABEL_COLUMNS, "predicted", per_second(p->latency_ns),
                  weft_format_duration(whole, sizeof whole, p->latency_ns),
                  weft_format_duration(compute, sizeof compute, compute_ns),
                  weft_format_duration(hops, sizeof hops, hop_ns), p->prefill_rows,
                  weft_format_duration(first, sizeof first, p->prefill_ns));
    if (rq->cost.goal == WEFT_GOAL_THROUGHPUT)
        weft_str_addf(out, "%*sup to %.1f tokens/s over all sessions\n", LABEL_COLUMNS, "",
                      per_second(p->bottleneck_ns));
}

/* What the architecture forbids to divide between devices. */
static void add_whole(const struct weft_plan_request *rq, struct weft_str *out)
{
    for (int kind = 0; kind < WEFT_SHARD_KIND_COUNT; kind++) {
        const char *why = weft_shard_whole(rq->model, (enum weft_shard_kind)kind);
        if (why != NULL)
            weft_str_addf(out, "%-*s%s of a layer stays with one device: %s\n", LABEL_COLUMNS,
                          "note", weft_shard_kind_name((enum weft_shard_kind)kind), why);
    }
}

static void add_singles(const struct weft_plan_request *rq, const struct weft_plan *p, bool colour,
                        struct weft_str *out)
{
    if (!p->proved_optimal && !p->pinned)
        weft_str_addf(out, "%-*snot proved to be the best: the search was cut short\n",
                      LABEL_COLUMNS, "note");
    if (p->single_better >= 0) {
        uint32_t d = (uint32_t)p->single_better;
        weft_str_addf(out, "%-*s%sone device alone would be faster: %s, %.1f tokens/s%s\n",
                      LABEL_COLUMNS, "note", colour ? "\033[33m" : "", name_of(rq, d),
                      per_second(p->singles[d].latency_ns), colour ? "\033[0m" : "");
    }
    struct list l = list_begin(out, "one device", "");
    for (uint32_t d = 0; d < p->n_devices; d++) {
        char text[128];
        if (rq->devices[d].unreachable)
            continue;
        if (!p->singles[d].fits)
            snprintf(text, sizeof text, "%s too small", name_of(rq, d));
        else if (p->predicted)
            snprintf(text, sizeof text, "%s alone %.1f tokens/s", name_of(rq, d),
                     per_second(p->singles[d].latency_ns));
        else
            snprintf(text, sizeof text, "%s alone would do", name_of(rq, d));
        list_add(&l, text);
    }
    weft_str_adds(out, "\n");
}

static void add_traffic(const struct weft_plan_request *rq, const struct weft_plan *p,
                        struct weft_str *out)
{
    struct list l = list_begin(out, "traffic", "per token: ");
    for (uint32_t s = 0; s < p->n_stages; s++) {
        const struct weft_plan_stage *st = &p->stages[s];
        char text[192], size[32];
        if (st->hop_bytes == 0)
            continue;
        snprintf(text, sizeof text, "%s → %s %s", name_of(rq, st->device),
                 name_of(rq, p->stages[s + 1 < p->n_stages ? s + 1 : 0].device),
                 weft_format_size(size, sizeof size, st->hop_bytes));
        list_add(&l, text);
    }
    weft_str_adds(out, l.any ? "\n" : "none between devices\n");
}

void weft_plan_text(const struct weft_plan_request *rq, const struct weft_plan *p, bool colour,
                    struct weft_str *out)
{
    add_head(rq, p, out);
    add_stages(rq, p, out);
    add_unused(rq, p, out);
    weft_str_adds(out, "\n");
    add_predicted(rq, p, out);
    add_whole(rq, out);
    add_singles(rq, p, colour, out);
    add_traffic(rq, p, out);
}

/* ------------------------------------------------------------------ JSON */

static const char *truth(bool b)
{
    return b ? "true" : "false";
}

static void json_stages(const struct weft_plan_request *rq, const struct weft_plan *p,
                        struct weft_str *out)
{
    weft_str_adds(out, "\"stages\":[");
    for (uint32_t s = 0; s < p->n_stages; s++) {
        const struct weft_plan_stage *st = &p->stages[s];
        const char *name = name_of(rq, st->device);
        weft_str_addf(out, "%s{\"device\":", s > 0 ? "," : "");
        weft_str_add_json(out, name, strlen(name));
        weft_str_addf(out,
                      ",\"first_layer\":%" PRIu32 ",\"n_layers\":%" PRIu32
                      ",\"embed\":%s,\"head\":%s,\"weight_bytes\":%" PRIu64 ",\"kv_bytes\":%" PRIu64
                      ",\"scratch_bytes\":%" PRIu64 ",\"hop_bytes\":%" PRIu64,
                      st->first_layer, st->n_layers, truth(st->embed), truth(st->head),
                      st->weight_bytes, st->kv_bytes, st->scratch_bytes, st->hop_bytes);
        if (p->predicted)
            weft_str_addf(out, ",\"decode_ns\":%" PRIu64 ",\"hop_ns\":%" PRIu64, st->decode_ns,
                          st->hop_ns);
        weft_str_adds(out, "}");
    }
    weft_str_adds(out, "]");
}

static void json_whole(const struct weft_model *m, struct weft_str *out)
{
    const char *between = "";
    weft_str_adds(out, "\"not_divisible\":{");
    for (int kind = 0; kind < WEFT_SHARD_KIND_COUNT; kind++) {
        const char *why = weft_shard_whole(m, (enum weft_shard_kind)kind);
        if (why == NULL)
            continue;
        weft_str_addf(out, "%s\"%s\":", between, weft_shard_kind_name((enum weft_shard_kind)kind));
        weft_str_add_json(out, why, strlen(why));
        between = ",";
    }
    weft_str_adds(out, "},");
}

static void json_devices(const struct weft_plan_request *rq, const struct weft_plan *p,
                         struct weft_str *out)
{
    weft_str_adds(out, "\"devices\":[");
    for (uint32_t d = 0; d < p->n_devices; d++) {
        const char *name = name_of(rq, d);
        weft_str_addf(out, "%s{\"name\":", d > 0 ? "," : "");
        weft_str_add_json(out, name, strlen(name));
        weft_str_addf(out,
                      ",\"reachable\":%s,\"memory_free_bytes\":%" PRIu64
                      ",\"memory_used_bytes\":%" PRIu64 ",\"fits_alone\":%s",
                      truth(!rq->devices[d].unreachable), rq->devices[d].memory_free_bytes,
                      device_bytes(p, d), truth(p->singles[d].fits));
        if (p->predicted && p->singles[d].fits)
            weft_str_addf(out, ",\"alone_latency_ns\":%" PRIu64, p->singles[d].latency_ns);
        weft_str_adds(out, "}");
    }
    weft_str_adds(out, "]");
}

void weft_plan_json(const struct weft_plan_request *rq, const struct weft_plan *p,
                    struct weft_str *out)
{
    weft_str_adds(out, "{\"model\":");
    weft_str_add_json(out, rq->model->name, strlen(rq->model->name));
    weft_str_addf(out,
                  ",\"goal\":\"%s\",\"context\":%" PRIu32 ",\"sessions\":%" PRIu32
                  ",\"pinned\":%s,\"proved_optimal\":%s,\"predicted\":%s,",
                  goal_name(rq->cost.goal), rq->cost.context, rq->cost.sessions, truth(p->pinned),
                  truth(p->proved_optimal), truth(p->predicted));
    if (p->predicted)
        weft_str_addf(out,
                      "\"latency_ns\":%" PRIu64 ",\"bottleneck_ns\":%" PRIu64
                      ",\"prefill_rows\":%" PRIu32 ",\"prefill_ns\":%" PRIu64 ",",
                      p->latency_ns, p->bottleneck_ns, p->prefill_rows, p->prefill_ns);
    if (p->single_better >= 0) {
        const char *name = name_of(rq, (uint32_t)p->single_better);
        weft_str_adds(out, "\"single_better\":");
        weft_str_add_json(out, name, strlen(name));
        weft_str_adds(out, ",");
    }
    json_stages(rq, p, out);
    weft_str_adds(out, ",");
    json_whole(rq->model, out);
    json_devices(rq, p, out);
    weft_str_adds(out, "}\n");
}
