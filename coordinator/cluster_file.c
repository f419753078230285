/*
 * The cluster file, see cluster_file.h: a table of keys, then the checks between them. What is
 * wrong is recorded in the document with its place, so that one run shows everything.
 */
#include "coordinator/cluster_file.h"

#include <stdio.h>
#include <string.h>

#include "base/model.h"
#include "proto/io_uv.h"

#define SESSIONS_DEFAULT 1
#define BATCH_ROWS_DEFAULT 64
#define BATCH_ROWS_MAX 512    /* of a daemon's stage */
#define ADDRESS_MAX 300       /* a DNS name of 253, brackets and port; an ipc path is shorter */
#define MEMORY_MIN (1u << 20) /* less is a number without its unit */
#define MEMORY_MAX 0x1p60     /* of a cap; no machine has as much */
#define SYSTEM_BYTES_MAX (1 << 18) /* of a system prompt */

const struct weft_sampling_options weft_sampling_defaults = {
    .temperature = 0.8,
    .top_k = 40,
    .typical = 1.0,
    .top_p = 0.95,
    .min_p = 0.05,
    .repeat_penalty = 1.0,
    .repeat_last = 64,
    .mirostat_tau = 5.0,
    .mirostat_eta = 0.1,
};

const char *const weft_mirostat_names[] = {"0", "2", NULL};

/* ------------------------------------------------------------------ the table */

struct raw_device {
    char *name, *address;
    uint64_t memory_bytes;
};

/* `layers:` as written. */
struct raw_layers {
    bool read; /* false: absent, or wrong and reported */
    uint32_t first, count;
};

struct raw_stage {
    char *device;
    struct raw_layers layers;
};

/* What a cluster file and a plan file share. */
struct raw_pins {
    struct weft_yaml_list stages; /* struct raw_stage */
    char *embedding, *head;
};

struct raw_file {
    char *model, *system;
    uint32_t context, sessions, predict, batch_rows;
    bool context_shift;
    int goal, kv, gemm;
    struct weft_sampling_options sampling;
    struct weft_yaml_list devices; /* struct raw_device */
    struct raw_pins pins;
};

/* "0-11", "3" or "none". */
static int read_layers(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, void *place)
{
    struct raw_layers *layers = place;
    const char *text = weft_yaml_scalar(node);
    char quoted[WEFT_QUOTE_SIZE], first_text[16];
    uint64_t first, last;
    if (text == NULL) {
        weft_yaml_error(doc, node, "expected layers such as 0-11, 3 or none");
        return 0;
    }
    if (strcmp(text, "none") == 0) {
        *layers = (struct raw_layers){.read = true};
        return 0;
    }
    const size_t n = strcspn(text, "-");
    snprintf(first_text, sizeof first_text, "%.*s", n < sizeof first_text ? (int)n : 0, text);
    const char *last_text = text[n] == '-' ? text + n + 1 : first_text;
    if (weft_parse_u64(first_text, 0, UINT64_MAX, &first, NULL) < 0 ||
        weft_parse_u64(last_text, 0, UINT64_MAX, &last, NULL) < 0)
        weft_yaml_error(doc, node, "found %s, expected layers such as 0-11, 3 or none",
                        weft_quote(quoted, sizeof quoted, text, strlen(text)));
    else if (first >= WEFT_LAYERS_MAX || last >= WEFT_LAYERS_MAX)
        weft_yaml_error(doc, node, "found layers %s, expected numbers below %d",
                        weft_quote(quoted, sizeof quoted, text, strlen(text)), WEFT_LAYERS_MAX);
    else if (first > last)
        weft_yaml_error(doc, node, "found layers %s, expected the lower one first",
                        weft_quote(quoted, sizeof quoted, text, strlen(text)));
    else
        *layers = (struct raw_layers){true, (uint32_t)first, (uint32_t)(last - first + 1)};
    return 0;
}

static const char *const goal_names[] = {
    [WEFT_GOAL_LATENCY] = "latency", [WEFT_GOAL_THROUGHPUT] = "throughput", NULL};
static const char *const gemm_names[] = {"openblas", "weft", NULL};

#define AT(type, field) .offset = offsetof(struct type, field)
#define END         \
    {               \
        .key = NULL \
    }

static const struct weft_yaml_field sampling_fields[] = {
    {.key = "temperature",
     .kind = WEFT_YAML_DOUBLE,
     AT(weft_sampling_options, temperature),
     .min = 0,
     .max = 100},
    {.key = "top_k",
     .kind = WEFT_YAML_U32,
     AT(weft_sampling_options, top_k),
     .min = 0,
     .max = WEFT_VOCAB_MAX},
    {.key = "typical",
     .kind = WEFT_YAML_DOUBLE,
     AT(weft_sampling_options, typical),
     .min = WEFT_TOP_P_MIN,
     .max = 1},
    {.key = "top_p",
     .kind = WEFT_YAML_DOUBLE,
     AT(weft_sampling_options, top_p),
     .min = WEFT_TOP_P_MIN,
     .max = 1},
    {.key = "min_p",
     .kind = WEFT_YAML_DOUBLE,
     AT(weft_sampling_options, min_p),
     .min = 0,
     .max = 1},
    {.key = "repeat_penalty",
     .kind = WEFT_YAML_DOUBLE,
     AT(weft_sampling_options, repeat_penalty),
     .min = WEFT_REPEAT_PENALTY_MIN,
     .max = 10},
    {.key = "presence_penalty",
     .kind = WEFT_YAML_DOUBLE,
     AT(weft_sampling_options, presence_penalty),
     .min = -WEFT_ADDITIVE_PENALTY_MAX,
     .max = WEFT_ADDITIVE_PENALTY_MAX},
    {.key = "frequency_penalty",
     .kind = WEFT_YAML_DOUBLE,
     AT(weft_sampling_options, frequency_penalty),
     .min = -WEFT_ADDITIVE_PENALTY_MAX,
     .max = WEFT_ADDITIVE_PENALTY_MAX},
    {.key = "repeat_last",
     .kind = WEFT_YAML_U32,
     AT(weft_sampling_options, repeat_last),
     .min = 0,
     .max = WEFT_REPEAT_LAST_MAX},
    {.key = "mirostat",
     .kind = WEFT_YAML_ENUM,
     AT(weft_sampling_options, mirostat),
     .names = weft_mirostat_names},
    {.key = "mirostat_tau",
     .kind = WEFT_YAML_DOUBLE,
     AT(weft_sampling_options, mirostat_tau),
     .min = 0,
     .max = WEFT_MIROSTAT_TAU_MAX},
    {.key = "mirostat_eta",
     .kind = WEFT_YAML_DOUBLE,
     AT(weft_sampling_options, mirostat_eta),
     .min = 0,
     .max = 1},
    {.key = "seed",
     .kind = WEFT_YAML_U64,
     AT(weft_sampling_options, seed),
     .seen_offset = offsetof(struct weft_sampling_options, seed_set) + 1},
    END};

static const struct weft_yaml_field device_fields[] = {
    {.key = "name", .kind = WEFT_YAML_STRING, AT(raw_device, name), .required = true, .min = 1},
    {.key = "address",
     .kind = WEFT_YAML_STRING,
     AT(raw_device, address),
     .required = true,
     .min = 1,
     .max = ADDRESS_MAX},
    {.key = "memory",
     .kind = WEFT_YAML_SIZE,
     AT(raw_device, memory_bytes),
     .min = MEMORY_MIN,
     .max = MEMORY_MAX},
    END};

static const struct weft_yaml_field stage_fields[] = {
    {.key = "device", .kind = WEFT_YAML_STRING, AT(raw_stage, device), .required = true, .min = 1},
    {.key = "layers",
     .kind = WEFT_YAML_CUSTOM,
     AT(raw_stage, layers),
     .required = true,
     .read = read_layers},
    END};

#define STAGES_FIELD(type, place)                                                                  \
    {                                                                                              \
        .key = "stages", .kind = WEFT_YAML_LIST, AT(type, place), .min = 1,                        \
        .max = WEFT_PLAN_STAGES_MAX, .fields = stage_fields, .item_size = sizeof(struct raw_stage) \
    }

static const struct weft_yaml_field plan_fields[] = {
    STAGES_FIELD(raw_pins, stages),
    {.key = "embedding", .kind = WEFT_YAML_STRING, AT(raw_pins, embedding), .min = 1},
    {.key = "head", .kind = WEFT_YAML_STRING, AT(raw_pins, head), .min = 1},
    END};

static const struct weft_yaml_field file_fields[] = {
    {.key = "model", .kind = WEFT_YAML_STRING, AT(raw_file, model), .min = 1},
    {.key = "context",
     .kind = WEFT_YAML_U32,
     AT(raw_file, context),
     .min = 0,
     .max = WEFT_CONTEXT_MAX},
    {.key = "context_shift", .kind = WEFT_YAML_BOOL, AT(raw_file, context_shift)},
    {.key = "sessions",
     .kind = WEFT_YAML_U32,
     AT(raw_file, sessions),
     .min = 1,
     .max = WEFT_CLUSTER_SESSIONS_MAX},
    {.key = "predict",
     .kind = WEFT_YAML_U32,
     AT(raw_file, predict),
     .min = 0,
     .max = WEFT_CONTEXT_MAX},
    {.key = "batch_rows",
     .kind = WEFT_YAML_U32,
     AT(raw_file, batch_rows),
     .min = 1,
     .max = BATCH_ROWS_MAX},
    {.key = "goal", .kind = WEFT_YAML_ENUM, AT(raw_file, goal), .names = goal_names},
    {.key = "kv", .kind = WEFT_YAML_ENUM, AT(raw_file, kv), .names = weft_kv_names},
    {.key = "gemm", .kind = WEFT_YAML_ENUM, AT(raw_file, gemm), .names = gemm_names},
    {.key = "system",
     .kind = WEFT_YAML_STRING,
     AT(raw_file, system),
     .min = 0,
     .max = SYSTEM_BYTES_MAX},
    {.key = "sampling", .kind = WEFT_YAML_MAP, AT(raw_file, sampling), .fields = sampling_fields},
    {.key = "devices",
     .kind = WEFT_YAML_LIST,
     AT(raw_file, devices),
     .required = true,
     .min = 1,
     .max = WEFT_CLUSTER_DEVICES_MAX,
     .fields = device_fields,
     .item_size = sizeof(struct raw_device)},
    STAGES_FIELD(raw_file, pins.stages),
    {.key = "embedding", .kind = WEFT_YAML_STRING, AT(raw_file, pins.embedding), .min = 1},
    {.key = "head", .kind = WEFT_YAML_STRING, AT(raw_file, pins.head), .min = 1},
    END};

/* ------------------------------------------------------------------ devices */

static const struct weft_yaml_node *find_item(const struct weft_yaml_doc *doc, const char *list,
                                              size_t i, const char *key)
{
    char path[64];
    snprintf(path, sizeof path, "%s[%zu].%s", list, i, key);
    return weft_yaml_find(doc, path);
}

static void check_name(struct weft_yaml_doc *doc, const struct raw_device *devices, size_t i)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789-_.";
    const char *name = devices[i].name;
    const struct weft_yaml_node *node = find_item(doc, "devices", i, "name");
    char quoted[WEFT_QUOTE_SIZE];
    if (name == NULL)
        return;
    weft_quote(quoted, sizeof quoted, name, strlen(name));
    if (strlen(name) > WEFT_NAME_MAX)
        weft_yaml_error(doc, node, "found %s of %zu bytes, expected at most %u", quoted,
                        strlen(name), WEFT_NAME_MAX);
    else if (name[strspn(name, allowed)] != '\0')
        weft_yaml_error(doc, node, "found %s, expected letters, digits, '-', '_' and '.'", quoted);
    for (size_t k = 0; k < i; k++) {
        if (devices[k].name != NULL && strcmp(devices[k].name, name) == 0) {
            weft_yaml_error(doc, node, "%s is the name of devices[%zu] already", quoted, k);
            return;
        }
    }
}

/* Gives the normalised address in the arena; it stays NULL when it is absent or wrong. */
static int normalise_address(struct weft_yaml_doc *doc, const struct raw_device *device, size_t i,
                             const char **ret)
{
    const struct weft_yaml_node *node = find_item(doc, "devices", i, "address");
    char text[ADDRESS_MAX + 8];
    weft_err why = {0};
    if (device->address == NULL)
        return 0;
    if (weft_address_parse(device->address, WEFT_PORT_DEFAULT, text, sizeof text, &why) < 0) {
        weft_yaml_error(doc, node, "%s", why.text);
        return 0;
    }
    const size_t n = strlen(text);
    if (strncmp(text, "ipc:", 4) != 0 && n > 2 && strcmp(text + n - 2, ":0") == 0) {
        weft_yaml_error(doc, node, "found port 0, expected the port that the device listens at");
        return 0;
    }
    *ret = weft_arena_strdup(weft_yaml_arena(doc), text);
    return *ret != NULL ? 0 : -WEFT_ENOMEM;
}

/* Fills f->devices. */
static int take_devices(struct weft_yaml_doc *doc, const struct weft_yaml_list *list,
                        struct weft_cluster_file *f)
{
    const struct raw_device *raw = list->items;
    f->devices = weft_arena_array(weft_yaml_arena(doc), list->count, sizeof *f->devices);
    if (f->devices == NULL)
        return -WEFT_ENOMEM;
    for (size_t i = 0; i < list->count && i < WEFT_CLUSTER_DEVICES_MAX; i++) {
        struct weft_cluster_device *d = &f->devices[f->n_devices++];
        check_name(doc, raw, i);
        d->name = raw[i].name;
        d->memory_cap_bytes = raw[i].memory_bytes;
        int r = normalise_address(doc, &raw[i], i, &d->address);
        if (r < 0)
            return r;
        for (size_t k = 0; d->address != NULL && k < i; k++)
            if (f->devices[k].address != NULL && strcmp(f->devices[k].address, d->address) == 0)
                weft_yaml_error(doc, find_item(doc, "devices", i, "address"),
                                "%s is the address of devices[%zu] already", d->address, k);
    }
    return 0;
}

/* ------------------------------------------------------------------ stages */

/* Index of a device by name; unknown ones are reported and give -1. Nothing is said while devices
 * themselves are missing or nameless. */
static int32_t find_device(struct weft_yaml_doc *doc, const struct weft_yaml_node *node,
                           const struct weft_cluster_file *f, const char *name)
{
    const char *names[WEFT_CLUSTER_DEVICES_MAX + 1];
    char quoted[WEFT_QUOTE_SIZE];
    size_t n = 0;
    for (uint32_t i = 0; name != NULL && i < f->n_devices; i++) {
        if (f->devices[i].name == NULL)
            continue;
        if (strcmp(f->devices[i].name, name) == 0)
            return (int32_t)i;
        names[n++] = f->devices[i].name;
    }
    names[n] = NULL;
    if (name == NULL || n == 0)
        return -1;
    const char *near = weft_near_miss(name, names);
    weft_quote(quoted, sizeof quoted, name, strlen(name));
    if (near != NULL)
        weft_yaml_error(doc, node, "there is no device %s, did you mean '%s'?", quoted, near);
    else
        weft_yaml_error(doc, node, "there is no device %s under 'devices'", quoted);
    return -1;
}

/* Layers run on from stage to stage. After a wrong one the next is taken as it is. */
static void check_layers(struct weft_yaml_doc *doc, const struct raw_stage *stages, size_t n)
{
    uint32_t next = 0;
    bool known = true, any = false;
    for (size_t i = 0; i < n; i++) {
        const struct raw_layers *l = &stages[i].layers;
        any |= !l->read || l->count > 0;
        if (l->read && l->count > 0 && known && l->first != next)
            weft_yaml_error(doc, find_item(doc, "stages", i, "layers"),
                            "found layer %u first, expected %u: stages run on without gaps",
                            l->first, next);
        if (!l->read)
            known = false;
        if (l->read && l->count > 0) {
            known = true;
            next = l->first + l->count;
        }
    }
    if (!any && n > 0)
        weft_yaml_error(doc, weft_yaml_find(doc, "stages"), "no stage has layers");
}

/* Checks pins against the devices of f and puts them into f; memory is of `arena`. */
static int take_pins(struct weft_yaml_doc *doc, const struct raw_pins *pins,
                     struct weft_arena *arena, struct weft_cluster_file *f)
{
    const struct raw_stage *raw = pins->stages.items;
    const size_t n =
        pins->stages.count < WEFT_PLAN_STAGES_MAX ? pins->stages.count : WEFT_PLAN_STAGES_MAX;
    struct weft_pinned_stage *stages = weft_arena_array(arena, n, sizeof *stages);
    if (stages == NULL)
        return -WEFT_ENOMEM;
    check_layers(doc, raw, n);
    uint32_t next = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t device = find_device(doc, find_item(doc, "stages", i, "device"), f, raw[i].device);
        stages[i] = (struct weft_pinned_stage){
            .device = device >= 0 ? (uint32_t)device : 0,
            .first_layer = next, /* as checked: where the stage before ended */
            .n_layers = raw[i].layers.count,
        };
        next += raw[i].layers.count;
    }
    f->pin_embed = find_device(doc, weft_yaml_find(doc, "embedding"), f, pins->embedding);
    f->pin_head = find_device(doc, weft_yaml_find(doc, "head"), f, pins->head);
    f->stages = stages;
    f->n_stages = (uint32_t)n;
    return 0;
}

/* ------------------------------------------------------------------ files */

/* A relative path starts at the folder of the file that names it. */
static char *resolve(struct weft_arena *arena, const char *file, const char *path)
{
    const char *slash = strrchr(file, '/');
    if (path[0] == '/' || slash == NULL)
        return weft_arena_strdup(arena, path);
    const size_t folder = (size_t)(slash - file) + 1, n = folder + strlen(path) + 1;
    char *joined = weft_arena_alloc(arena, n);
    if (joined != NULL)
        snprintf(joined, n, "%.*s%s", (int)folder, file, path);
    return joined;
}

static int take_file(struct weft_yaml_doc *doc, const char *path, const struct raw_file *raw,
                     struct weft_cluster_file *f)
{
    struct weft_arena *arena = weft_yaml_arena(doc);
    *f = (struct weft_cluster_file){
        .doc = doc,
        .path = weft_arena_strdup(arena, path),
        .context = raw->context,
        .context_shift = raw->context_shift,
        .sessions = raw->sessions,
        .predict = raw->predict,
        .batch_rows = raw->batch_rows,
        .goal = raw->goal,
        .kv = (enum weft_kv)raw->kv,
        .gemm_weft = raw->gemm == 1,
        .system = raw->system != NULL && raw->system[0] != '\0' ? raw->system : NULL,
        .sampling = raw->sampling,
    };
    f->model_name = raw->model;
    if (raw->model != NULL)
        f->model = resolve(arena, path, raw->model);
    if (f->path == NULL || (raw->model != NULL && f->model == NULL))
        return -WEFT_ENOMEM;
    int r = take_devices(doc, &raw->devices, f);
    return r < 0 ? r : take_pins(doc, &raw->pins, arena, f);
}

static const struct raw_file defaults = {
    .sessions = SESSIONS_DEFAULT,
    .batch_rows = BATCH_ROWS_DEFAULT,
};

int weft_cluster_file_load(const char *path, struct weft_cluster_file *ret, struct weft_str *report,
                           weft_err *err)
{
    struct weft_cluster_file f;
    struct raw_file raw = defaults;
    struct weft_yaml_doc *doc = NULL;
    raw.sampling = weft_sampling_defaults;
    int r = weft_yaml_open_file(path, &doc, err);
    if (r < 0)
        return r;
    weft_yaml_read(doc, file_fields, &raw);
    if (take_file(doc, path, &raw, &f) < 0)
        r = weft_fail(err, WEFT_ENOMEM, "%s: out of memory", path);
    else
        r = weft_yaml_check(doc, report, err);
    if (r < 0)
        weft_yaml_close(doc);
    else
        *ret = f;
    return r;
}

int weft_cluster_file_plan(struct weft_cluster_file *f, const char *path, struct weft_str *report,
                           weft_err *err)
{
    struct weft_cluster_file planned = *f;
    struct raw_pins pins = {0};
    struct weft_yaml_doc *doc = NULL;
    int r = weft_yaml_open_file(path, &doc, err);
    if (r < 0)
        return r;
    weft_yaml_read(doc, plan_fields, &pins);
    if (take_pins(doc, &pins, weft_yaml_arena(f->doc), &planned) < 0)
        r = weft_fail(err, WEFT_ENOMEM, "%s: out of memory", path);
    else
        r = weft_yaml_check(doc, report, err);
    weft_yaml_close(doc);
    if (r == 0)
        *f = planned;
    return r;
}

int weft_cluster_file_private(const char *address, struct weft_cluster_file *ret, weft_err *err)
{
    struct weft_cluster_file f;
    struct raw_file raw = defaults;
    struct weft_yaml_doc *doc = NULL;
    raw.sampling = weft_sampling_defaults;
    int r = weft_yaml_open("private daemon", "", 0, &doc, err); /* for its arena */
    if (r < 0)
        return r;
    struct weft_arena *arena = weft_yaml_arena(doc);
    r = take_file(doc, "private daemon", &raw, &f);
    f.devices = weft_arena_array(arena, 1, sizeof *f.devices);
    char *copy = weft_arena_strdup(arena, address);
    if (r < 0 || f.devices == NULL || copy == NULL) {
        weft_yaml_close(doc);
        return weft_fail(err, WEFT_ENOMEM, "private daemon");
    }
    f.devices[0] = (struct weft_cluster_device){.name = "local", .address = copy};
    f.n_devices = 1;
    *ret = f;
    return 0;
}

void weft_cluster_file_done(struct weft_cluster_file *f)
{
    weft_yaml_close(f->doc);
    *f = (struct weft_cluster_file){0};
}
