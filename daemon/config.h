/*
 * Config: weftd.yaml. All errors of a file at once, see base/yaml.h.
 */
#ifndef WEFT_DAEMON_CONFIG_H
#define WEFT_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "proto/peer.h"

#define WEFT_CONFIG_PATH_MAX 1024u
#define WEFT_CONFIG_THREADS_MAX 64u /* of the kernel pool */
#define WEFT_CONFIG_DRAIN_S_MAX 3600u

struct weft_config {
    char name[WEFT_NAME_MAX + 1];      /* "": auto, the host's name */
    char listen[WEFT_CONFIG_PATH_MAX]; /* normalised by weft_address_parse */
    uint32_t threads;                  /* 0: all */
    bool pin;                          /* the threads to CPUs */
    uint64_t memory_bytes;             /* UINT64_MAX: all */
    uint64_t reserve_bytes;            /* kept free for the system */
    const char *isa;                   /* NULL: auto */
    enum weft_log_level log;
    char state_dir[WEFT_CONFIG_PATH_MAX]; /* "": none */
    bool state_auto;                      /* $STATE_DIRECTORY, if there is one */
    uint32_t drain_s;
};

void weft_config_default(struct weft_config *ret);
/* Reads a file, or text named `name`, over the defaults. -WEFT_ECONFIG: err says how many errors
 * there are, report all of them; *ret is untouched then. */
int weft_config_load(const char *path, struct weft_config *ret, struct weft_str *report,
                     weft_err *err) WEFT_MUST_USE;
int weft_config_parse(const char *name, const char *text, size_t size, struct weft_config *ret,
                      struct weft_str *report, weft_err *err) WEFT_MUST_USE;

/* Single values, as on the command line: -WEFT_ECONFIG with what was expected. */
int weft_config_set_name(struct weft_config *c, const char *text, weft_err *err) WEFT_MUST_USE;
int weft_config_set_listen(struct weft_config *c, const char *text, weft_err *err) WEFT_MUST_USE;
int weft_config_set_threads(struct weft_config *c, const char *text, weft_err *err) WEFT_MUST_USE;
int weft_config_set_pin(struct weft_config *c, const char *text, weft_err *err) WEFT_MUST_USE;
int weft_config_set_memory(struct weft_config *c, const char *text, weft_err *err) WEFT_MUST_USE;

#endif
