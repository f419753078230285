/*
 * Stories, see stories.h. A reader of the one shape of JSON that the file has.
 */
#include "tests/stories.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/harness.h"

const char *const story_type_names[STORY_TYPES] = {"f32", "f16", "q8_0", "q4_0"};

/* The value behind "key": within [at, end); NULL when there is none. */
static const char *value(const char *at, const char *end, const char *key)
{
    char quoted[64];
    int n = snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *found = strstr(at, quoted);
    if (found == NULL || found >= end)
        return NULL;
    found += n;
    return found + strspn(found, " \n");
}

/* A JSON string with the escapes that the file uses: \" \\ \n. */
static char *string(const char *at)
{
    if (at == NULL || *at != '"')
        return NULL;
    char *out = malloc(strlen(at)), *to = out;
    if (out == NULL)
        return NULL;
    for (at++; *at != '"' && *at != '\0'; at++) {
        if (*at == '\\' && *++at == 'n')
            *to++ = '\n';
        else
            *to++ = *at;
    }
    *to = '\0';
    return out;
}

static size_t ids(const char *at, int32_t *out, size_t max)
{
    size_t n = 0;
    if (at == NULL || *at++ != '[')
        return 0;
    while (n < max) {
        char *end;
        long id = strtol(at, &end, 10);
        if (end == at)
            break;
        out[n++] = (int32_t)id;
        at = end + strspn(end, " \n,");
    }
    return n;
}

size_t stories_load(struct story stories[STORIES_MAX])
{
    size_t size, n = 0;
    char *text = (char *)weft_test_read("tests/golden/prompts.json", &size);
    memset(stories, 0, STORIES_MAX * sizeof *stories);
    for (const char *at = text != NULL ? strstr(text, "\"prompt\":") : NULL;
         at != NULL && n < STORIES_MAX;) {
        const char *next = strstr(at + 1, "\"prompt\":");
        const char *end = next != NULL ? next : text + size;
        struct story *s = &stories[n++];
        s->prompt = string(value(at, end, "prompt"));
        for (int t = 0; t < STORY_TYPES; t++) {
            char key[32];
            snprintf(key, sizeof key, "gap_%s", story_type_names[t]);
            const char *gap = value(at, end, key);
            s->text[t] = string(value(at, end, story_type_names[t]));
            s->gap[t] = gap != NULL ? strtod(gap, NULL) : 0;
        }
        s->n_ids = ids(value(at, end, "ids_q8_0"), s->ids, STORY_IDS_MAX);
        at = next;
    }
    free(text);
    return n;
}

void stories_done(struct story *stories, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(stories[i].prompt);
        for (int t = 0; t < STORY_TYPES; t++)
            free(stories[i].text[t]);
    }
}
