/*
 * Figures: what `weft run` and `weft chat` say on stderr, or as JSON, about an answer.
 */
#ifndef WEFT_COORDINATOR_FIGURES_H
#define WEFT_COORDINATOR_FIGURES_H

#include "coordinator/conversation.h"

/* Two lines: speeds, and per stage compute and wait in ms per token, bytes per token. `before` is
 * the report at the start of the turn ([n_stages], may be NULL: zeros). */
void weft_figures_text(const struct weft_app *app, const struct weft_conversation_figures *f,
                       const struct weft_stage_report *before, struct weft_str *out);
/* One JSON object with the answer, its ids, the finish and all figures with units in the names. */
void weft_figures_json(const struct weft_app *app, const struct weft_conversation_figures *f,
                       const char *text, size_t size, enum weft_finish finish,
                       struct weft_str *out);
/* One line about a shift of the context, for stderr; see struct weft_conversation_events. */
void weft_figures_shift(const struct weft_app *app, uint32_t turns, uint32_t kept,
                        struct weft_str *out);
/* "stop", "length", "context"; "none". */
const char *weft_finish_name(enum weft_finish finish);

#endif
