/*
 * Stories: prompts of the demo model and the greedy answers that an independent engine gives
 * (tests/golden/prompts.json, made with the model).
 */
#ifndef WEFT_TESTS_STORIES_H
#define WEFT_TESTS_STORIES_H

#include <stddef.h>
#include <stdint.h>

#define STORIES_MAX 32
#define STORY_IDS_MAX 512

enum story_type { STORY_F32, STORY_F16, STORY_Q8_0, STORY_Q4_0, STORY_TYPES };
extern const char *const story_type_names[STORY_TYPES]; /* "f32", … */

struct story {
    char *prompt;
    char *text[STORY_TYPES];
    double gap[STORY_TYPES];    /* least distance of the two best logits on the way */
    int32_t ids[STORY_IDS_MAX]; /* of the q8_0 answer, without the end token */
    size_t n_ids;
};

/* Reads the file; the number of stories, 0 when it is missing or malformed. Free with stories_done.
 */
size_t stories_load(struct story stories[STORIES_MAX]);
void stories_done(struct story *stories, size_t n);

#endif
