/*
 * Model names: how what a person wrote behind -m, in WEFT_MODEL or as `model:` leads to a file.
 *
 * A name without a slash that is no file where it stands is looked for in the directories of
 * WEFT_MODELS, also with ".gguf" behind it; hf:OWNER/REPO:FILE is a file of a hub that may lie in
 * one of them, or is told how to get there. Reads directories; never the network.
 */
#ifndef WEFT_COORDINATOR_MODEL_PATH_H
#define WEFT_COORDINATOR_MODEL_PATH_H

#include "base/err.h"

struct weft_model_name {
    const char *name; /* as written */
    const char
        *path; /* where it leads by itself: the name, or that from its cluster file's folder */
    const char *again; /* how the command began, for a message: "weft run -m" */
};

/* Gives the path (free). Variables are read through `env`: WEFT_MODELS, XDG_DATA_HOME, HOME. A name
 * with a slash is its path, whether there is such a file or not. -WEFT_EMODEL: not found, with
 * where it was looked for and what is there of a similar name, or with what to download and where
 * to put it; -WEFT_ENOMEM. */
int weft_model_path(const struct weft_model_name *n, const char *(*env)(const char *name),
                    char **ret, weft_err *err) WEFT_MUST_USE;

#endif
