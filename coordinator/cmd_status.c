/*
 * weft status: one line per device. Needs no model and takes no lease.
 */
#include <stdio.h>
#include <string.h>

#include "coordinator/app.h"
#include "coordinator/output.h"

static void speeds(const struct weft_device_status *st, char *buf, size_t n)
{
    if (st->probed)
        snprintf(buf, n, "%.1f GB/s %.0f GF/s", (double)st->bytes_per_s * 1e-9,
                 (double)st->flops_per_s * 1e-9);
    else
        snprintf(buf, n, "not measured");
}

/* Names and addresses are shown whole: two of them may differ in their last letter alone. */
static void widths(const struct weft_app *app, int *ret_name, int *ret_address)
{
    *ret_name = 8;
    *ret_address = 15;
    for (uint32_t i = 0; i < app->file.n_devices; i++) {
        int name = (int)strlen(app->file.devices[i].name);
        int address = (int)strlen(app->file.devices[i].address);
        *ret_name = name > *ret_name ? name : *ret_name;
        *ret_address = address > *ret_address ? address : *ret_address;
    }
}

static void text_row(const struct weft_app *app, uint32_t i, struct weft_str *out)
{
    int name, address;
    widths(app, &name, &address);
    const struct weft_device_status *st = weft_cluster_status(app->cluster, i);
    char free_text[32], speed[48], state[192];
    if (!st->reachable) {
        weft_str_addf(out, "%-*s %-*s %s: %s\n", name, app->file.devices[i].name, address,
                      app->file.devices[i].address, weft_error_text(st->why.code), st->why.text);
        return;
    }
    speeds(st, speed, sizeof speed);
    if (st->holder[0] != '\0')
        snprintf(state, sizeof state, "held by %s for %llu s", st->holder,
                 (unsigned long long)st->held_s);
    else
        snprintf(state, sizeof state, "%s", st->state);
    weft_str_addf(
        out, "%-*s %-*s %-11.11s %-7.7s %7u  %-9s %-20s %s", name, app->file.devices[i].name,
        address, app->file.devices[i].address, st->software, st->isa, st->threads,
        weft_format_size(free_text, sizeof free_text, st->memory_free_bytes), speed, state);
    if (st->has_temperature)
        weft_str_addf(out, ", %.0f °C", st->temperature_millidegrees / 1000.0);
    weft_str_adds(out, "\n");
}

static void json_row(const struct weft_app *app, uint32_t i, struct weft_str *out)
{
    const struct weft_device_status *st = weft_cluster_status(app->cluster, i);
    const struct {
        const char *key, *value;
    } texts[] = {
        {"name", app->file.devices[i].name},
        {"address", app->file.devices[i].address},
        {"software", st->software},
        {"isa", st->isa},
        {"cpu", st->cpu},
        {"state", st->state},
        {"holder", st->holder},
        {"error", st->reachable ? "" : st->why.text},
    };
    weft_str_adds(out, "  {");
    for (size_t k = 0; k < sizeof texts / sizeof texts[0]; k++) {
        weft_str_addf(out, "\"%s\": ", texts[k].key);
        weft_str_add_json(out, texts[k].value, strlen(texts[k].value));
        weft_str_adds(out, ", ");
    }
    weft_str_addf(
        out,
        "\"reachable\": %s, \"protocol\": %u, \"threads\": %u, \"memory_total_bytes\": %llu, "
        "\"memory_free_bytes\": %llu, \"shard_bytes\": %llu, \"probed\": %s, "
        "\"weights_bytes_per_second\": %llu, \"flops_per_second\": %llu, "
        "\"probe_age_seconds\": %llu, \"held_seconds\": %llu, \"uptime_seconds\": %llu",
        st->reachable ? "true" : "false", st->protocol, st->threads,
        (unsigned long long)st->memory_total_bytes, (unsigned long long)st->memory_free_bytes,
        (unsigned long long)st->shard_bytes, st->probed ? "true" : "false",
        (unsigned long long)st->bytes_per_s, (unsigned long long)st->flops_per_s,
        (unsigned long long)st->probe_age_s, (unsigned long long)st->held_s,
        (unsigned long long)st->uptime_s);
    if (st->has_temperature)
        weft_str_addf(out, ", \"temperature_celsius\": %.1f",
                      st->temperature_millidegrees / 1000.0);
    weft_str_adds(out, "}");
}

static void on_open(void *arg, const weft_err *err)
{
    struct weft_app *app = arg;
    struct weft_str out = {0};
    int code = WEFT_EXIT_OK, name, address;
    widths(app, &name, &address);
    if (err != NULL) {
        weft_app_close_cluster(app, weft_app_fail(app, err));
        return;
    }
    if (app->opt->json)
        weft_str_adds(&out, "[\n");
    else
        weft_str_addf(&out, "%-*s %-*s %-11s %-7s %7s  %-9s %-20s %s\n", name, "device", address,
                      "address", "software", "isa", "threads", "free", "weights, compute", "state");
    for (uint32_t i = 0; i < app->file.n_devices; i++) {
        if (!weft_cluster_status(app->cluster, i)->reachable)
            code = WEFT_EXIT_DEVICE; /* scripts see that somebody is missing */
        if (app->opt->json) {
            json_row(app, i, &out);
            weft_str_adds(&out, i + 1 < app->file.n_devices ? ",\n" : "\n");
        } else {
            text_row(app, i, &out);
        }
    }
    if (app->opt->json)
        weft_str_adds(&out, "]\n");
    weft_output_write(app->out, out.data, out.size);
    weft_str_done(&out);
    weft_app_close_cluster(app, code);
}

int weft_cmd_status(struct weft_app *app)
{
    weft_err err = {0};
    if (weft_app_load(app, false, &err) < 0)
        return weft_app_fail(app, &err);
    weft_app_open_cluster(app, WEFT_APP_LOOK, on_open);
    return app->loop(app);
}
