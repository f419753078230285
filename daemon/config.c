/*
 * Config, see config.h. The command line goes through the same functions as the file, so that both
 * refuse the same values in the same words.
 */
#include "daemon/config.h"

#include <stdio.h>
#include <string.h>

#include "base/yaml.h"
#include "proto/io_uv.h"

#define DEFAULT_LISTEN "127.0.0.1:7117"
#define DEFAULT_RESERVE_BYTES (UINT64_C(256) << 20) /* what a small system wants to breathe */
#define DEFAULT_DRAIN_S 10u

static const char *const isa_names[] = {"auto", "ref",     "avx2", "avx512", "avx512vnni",
                                        "neon", "dotprod", "i8mm", NULL};
static const char *const log_names[] = {"debug", "info", "warn", "error", NULL};

void weft_config_default(struct weft_config *ret)
{
    *ret = (struct weft_config){
        .listen = DEFAULT_LISTEN,
        .memory_bytes = UINT64_MAX,
        .reserve_bytes = DEFAULT_RESERVE_BYTES,
        .log = WEFT_LOG_INFO,
        .state_auto = true,
        .drain_s = DEFAULT_DRAIN_S,
    };
}

/* ------------------------------------------------------------------ single values */

int weft_config_set_name(struct weft_config *c, const char *text, weft_err *err)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t len = strlen(text);
    if (strcmp(text, "auto") == 0) {
        c->name[0] = '\0';
        return 0;
    }
    if (len == 0 || len > WEFT_NAME_MAX || strspn(text, allowed) != len)
        return weft_fail(
            err, WEFT_ECONFIG,
            "found '%.64s', expected 1 to %u letters, digits, '-', '_' or '.', or auto", text,
            WEFT_NAME_MAX);
    memcpy(c->name, text, len + 1);
    return 0;
}

int weft_config_set_listen(struct weft_config *c, const char *text, weft_err *err)
{
    char address[WEFT_CONFIG_PATH_MAX];
    int r = weft_address_parse(text, WEFT_PORT_DEFAULT, address, sizeof address, err);
    if (r == 0)
        memcpy(c->listen, address, sizeof c->listen);
    return r;
}

int weft_config_set_threads(struct weft_config *c, const char *text, weft_err *err)
{
    uint64_t n;
    if (strcmp(text, "all") == 0) {
        c->threads = 0;
        return 0;
    }
    if (weft_parse_u64(text, 1, WEFT_CONFIG_THREADS_MAX, &n, NULL) < 0)
        return weft_fail(err, WEFT_ECONFIG, "found '%.64s', expected 1 to %u, or all", text,
                         WEFT_CONFIG_THREADS_MAX);
    c->threads = (uint32_t)n;
    return 0;
}

int weft_config_set_pin(struct weft_config *c, const char *text, weft_err *err)
{
    const bool pin = strcmp(text, "true") == 0;
    if (!pin && strcmp(text, "false") != 0)
        return weft_fail(err, WEFT_ECONFIG, "found '%.64s', expected true or false", text);
    c->pin = pin;
    return 0;
}

int weft_config_set_memory(struct weft_config *c, const char *text, weft_err *err)
{
    uint64_t bytes;
    if (strcmp(text, "all") == 0) {
        c->memory_bytes = UINT64_MAX;
        return 0;
    }
    if (weft_parse_size(text, &bytes, NULL) < 0 || bytes == 0)
        return weft_fail(err, WEFT_ECONFIG, "found '%.64s', expected a size such as 6GiB, or all",
                         text);
    c->memory_bytes = bytes;
    return 0;
}

static int set_state_dir(struct weft_config *c, const char *text, weft_err *err)
{
    c->state_auto = strcmp(text, "auto") == 0;
    if (c->state_auto || strcmp(text, "none") == 0) {
        c->state_dir[0] = '\0';
        return 0;
    }
    if (text[0] != '/' || strlen(text) >= sizeof c->state_dir)
        return weft_fail(err, WEFT_ECONFIG,
                         "found '%.64s', expected a path from '/' on, auto or none", text);
    snprintf(c->state_dir, sizeof c->state_dir, "%s", text);
    return 0;
}

/* ------------------------------------------------------------------ the file */

/* A scalar that a set function takes. `place` is the whole config. */
static int read_with(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, void *place,
                     int (*set)(struct weft_config *c, const char *text, weft_err *err))
{
    const char *text = weft_yaml_scalar(node);
    weft_err why = {0};
    if (text == NULL)
        weft_yaml_error(doc, node, "expected a single value");
    else if (set(place, text, &why) < 0)
        weft_yaml_error(doc, node, "%s", why.text);
    return 0;
}

static int read_name(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, void *place)
{
    return read_with(doc, node, place, weft_config_set_name);
}

static int read_listen(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, void *place)
{
    return read_with(doc, node, place, weft_config_set_listen);
}

static int read_threads(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, void *place)
{
    return read_with(doc, node, place, weft_config_set_threads);
}

static int read_pin(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, void *place)
{
    return read_with(doc, node, place, weft_config_set_pin);
}

static int read_memory(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, void *place)
{
    return read_with(doc, node, place, weft_config_set_memory);
}

static int read_state_dir(struct weft_yaml_doc *doc, const struct weft_yaml_node *node, void *place)
{
    return read_with(doc, node, place, set_state_dir);
}

struct config_file {
    struct weft_config config; /* first: CUSTOM readers at offset 0 get it */
    int isa, log;
};

#define CUSTOM(name, reader)                                                   \
    {                                                                          \
        .key = (name), .kind = WEFT_YAML_CUSTOM, .offset = 0, .read = (reader) \
    }

static const struct weft_yaml_field fields[] = {
    CUSTOM("name", read_name),
    CUSTOM("listen", read_listen),
    CUSTOM("threads", read_threads),
    CUSTOM("pin", read_pin),
    CUSTOM("memory", read_memory),
    {.key = "reserve",
     .kind = WEFT_YAML_SIZE,
     .offset = offsetof(struct config_file, config.reserve_bytes)},
    {.key = "isa",
     .kind = WEFT_YAML_ENUM,
     .offset = offsetof(struct config_file, isa),
     .names = isa_names},
    {.key = "log",
     .kind = WEFT_YAML_ENUM,
     .offset = offsetof(struct config_file, log),
     .names = log_names},
    CUSTOM("state_dir", read_state_dir),
    {.key = "drain_s",
     .kind = WEFT_YAML_U32,
     .offset = offsetof(struct config_file, config.drain_s),
     .min = 0,
     .max = WEFT_CONFIG_DRAIN_S_MAX},
    {.key = NULL},
};

static int read_doc(struct weft_yaml_doc *doc, struct weft_config *ret, struct weft_str *report,
                    weft_err *err)
{
    struct config_file file = {.isa = 0, .log = WEFT_LOG_INFO};
    weft_config_default(&file.config);
    weft_yaml_read(doc, fields, &file);
    int r = weft_yaml_check(doc, report, err);
    if (r == 0) {
        file.config.isa = file.isa == 0 ? NULL : isa_names[file.isa];
        file.config.log = (enum weft_log_level)file.log;
        *ret = file.config;
    }
    weft_yaml_close(doc);
    return r;
}

int weft_config_parse(const char *name, const char *text, size_t size, struct weft_config *ret,
                      struct weft_str *report, weft_err *err)
{
    struct weft_yaml_doc *doc;
    int r = weft_yaml_open(name, text, size, &doc, err);
    return r < 0 ? r : read_doc(doc, ret, report, err);
}

int weft_config_load(const char *path, struct weft_config *ret, struct weft_str *report,
                     weft_err *err)
{
    struct weft_yaml_doc *doc;
    int r = weft_yaml_open_file(path, &doc, err);
    return r < 0 ? r : read_doc(doc, ret, report, err);
}
