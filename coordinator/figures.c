/*
 * Figures, see figures.h.
 */
#include "coordinator/figures.h"

#include <stdio.h>
#include <string.h>

const char *weft_finish_name(enum weft_finish finish)
{
    switch (finish) {
    case WEFT_FINISH_STOP:
        return "stop";
    case WEFT_FINISH_LENGTH:
        return "length";
    case WEFT_FINISH_CONTEXT:
        return "context";
    case WEFT_FINISH_NONE:
        break;
    }
    return "none";
}

static double per_second(uint32_t n, uint64_t ns)
{
    return ns > 0 ? (double)n * 1e9 / (double)ns : 0;
}

void weft_figures_text(const struct weft_app *app, const struct weft_conversation_figures *f,
                       const struct weft_stage_report *before, struct weft_str *out)
{
    uint32_t n_stages, later = f->answer_tokens > 1 ? f->answer_tokens - 1 : 0;
    const struct weft_stage_report *rp = weft_cluster_report(app->cluster, &n_stages);
    uint32_t rows = f->prompt_tokens + later;
    char size[32];
    weft_str_addf(out, "prompt %u tokens %.1f/s", f->prompt_tokens,
                  per_second(f->prompt_tokens, f->prompt_ns));
    if (f->kept_tokens > 0)
        weft_str_addf(out, " (%u kept)", f->kept_tokens);
    weft_str_addf(out, " · answer %u tokens", f->answer_tokens);
    if (later > 0) /* the first one came with the prompt */
        weft_str_addf(out, " %.1f/s · %.1f ms/token", per_second(later, f->answer_ns),
                      (double)f->answer_ns * 1e-6 / later);
    weft_str_adds(out, "\n");
    if (rows == 0)
        return;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n_stages; i++) {
        struct weft_stage_report b = before != NULL ? before[i] : (struct weft_stage_report){0};
        bytes += rp[i].sent_bytes - b.sent_bytes;
        weft_str_addf(out, "%s%s %.2f compute %.2f wait", i > 0 ? " · " : "",
                      app->file.devices[rp[i].device].name,
                      (double)(rp[i].compute_ns - b.compute_ns) * 1e-6 / rows,
                      (double)(rp[i].wait_ns - b.wait_ns) * 1e-6 / rows);
    }
    weft_str_addf(out, " ms/token · %s/token\n", weft_format_size(size, sizeof size, bytes / rows));
}

void weft_figures_shift(const struct weft_app *app, uint32_t turns, uint32_t kept,
                        struct weft_str *out)
{
    char what[48] = "older half";
    if (turns > 0)
        snprintf(what, sizeof what, turns == 1 ? "oldest turn" : "%u oldest turns", turns);
    weft_str_addf(out,
                  "(the context of %u positions is full: dropped the %s, %u tokens are left)\n",
                  app->file.context, what, kept);
}

void weft_figures_json(const struct weft_app *app, const struct weft_conversation_figures *f,
                       const char *text, size_t size, enum weft_finish finish, struct weft_str *out)
{
    uint32_t n_stages, later = f->answer_tokens > 1 ? f->answer_tokens - 1 : 0;
    const struct weft_stage_report *rp = weft_cluster_report(app->cluster, &n_stages);
    weft_str_adds(out, "{\"text\": ");
    weft_str_add_json(out, text, size);
    weft_str_adds(out, ", \"tokens\": [");
    for (uint32_t i = 0; i < f->answer_tokens; i++)
        weft_str_addf(out, "%s%d", i > 0 ? ", " : "", f->answer_ids[i]);
    weft_str_addf(
        out,
        "], \"finish\": \"%s\", \"seed\": %llu, \"prompt_tokens\": %u, \"prompt_ms\": %.3f, "
        "\"prompt_tokens_per_second\": %.3f, \"answer_tokens\": %u, \"answer_ms\": %.3f, "
        "\"answer_tokens_per_second\": %.3f, \"stages\": [",
        weft_finish_name(finish), (unsigned long long)app->file.sampling.seed, f->prompt_tokens,
        (double)f->prompt_ns * 1e-6, per_second(f->prompt_tokens, f->prompt_ns), f->answer_tokens,
        (double)f->answer_ns * 1e-6, per_second(later, f->answer_ns));
    for (uint32_t i = 0; i < n_stages; i++) {
        weft_str_adds(out, i > 0 ? ", {\"device\": " : "{\"device\": ");
        const char *name = app->file.devices[rp[i].device].name;
        weft_str_add_json(out, name, strlen(name));
        weft_str_addf(out,
                      ", \"steps\": %llu, \"rows\": %llu, \"compute_ns\": %llu, \"wait_ns\": %llu, "
                      "\"sent_bytes\": %llu}",
                      (unsigned long long)rp[i].steps, (unsigned long long)rp[i].rows,
                      (unsigned long long)rp[i].compute_ns, (unsigned long long)rp[i].wait_ns,
                      (unsigned long long)rp[i].sent_bytes);
    }
    weft_str_adds(out, "]");
    if (f->stop != NULL) {
        weft_str_adds(out, ", \"stop\": ");
        weft_str_add_json(out, f->stop, strlen(f->stop));
    }
    if (f->logprobs.list != NULL) {
        weft_str_adds(out, ", \"logprobs\": ");
        weft_logprobs_json(&f->logprobs, out);
    }
    weft_str_adds(out, "}\n");
}
