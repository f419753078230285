/*
 * Fuzzer of grammars: the input is GBNF, a line of only "---", and a text. The text goes through
 * the grammar byte by byte; each mask must say of each byte what accept says. The input as a whole
 * is read as a JSON schema too: what becomes a grammar must be one.
 */
#include <string.h>

#include "base/grammar.h"
#include "coordinator/json_schema.h"
#include "tests/fuzz.h"

#define MASKS_MAX 24 /* of one text */

static const struct weft_token_trie *all_bytes(void)
{
    static char values[256];
    static struct weft_token_trie *bytes;
    struct weft_token_text texts[256];
    if (bytes != NULL)
        return bytes;
    for (int i = 0; i < 256; i++) {
        values[i] = (char)i;
        texts[i] = (struct weft_token_text){.bytes = &values[i], .size = 1};
    }
    FUZZ_EXPECT(weft_token_trie_open(texts, 256, &bytes, NULL) == 0);
    return bytes;
}

static void expect_error(int r, const weft_err *err)
{
    FUZZ_EXPECT(r == -err->code && err->text[0] != '\0');
    FUZZ_EXPECT(r == -WEFT_EUSAGE || r == -WEFT_ELIMIT || r == -WEFT_ESTATE ||
                r == -WEFT_EUNSUPPORTED);
    for (const char *p = err->text; *p != '\0'; p++)
        FUZZ_EXPECT((unsigned char)*p >= 0x20 && *p != 0x7F);
}

static void follow(struct weft_grammar_state *s, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t allowed[4];
        weft_err err = {0}, why = {0};
        const bool may_end = weft_grammar_may_end(s);
        int masked = i < MASKS_MAX ? weft_grammar_mask(s, all_bytes(), allowed, &why) : 0;
        if (masked < 0)
            expect_error(masked, &why);
        FUZZ_EXPECT(weft_grammar_may_end(s) == may_end);
        int r = weft_grammar_accept(s, text + i, 1, &err);
        const unsigned byte = (unsigned char)text[i];
        if (i < MASKS_MAX && masked == 0)
            FUZZ_EXPECT((r == 0) == ((allowed[byte / 64] >> byte % 64 & 1) != 0));
        if (r < 0) {
            expect_error(r, &err);
            return;
        }
    }
}

static void fuzz_gbnf(const char *gbnf, size_t n, const char *text, size_t text_size)
{
    struct weft_grammar *g = NULL;
    struct weft_grammar_state *s = NULL;
    weft_err err = {0};
    int r = weft_grammar_open(gbnf, n, &g, &err);
    if (r == 0 && (r = weft_grammar_state_open(g, &s, &err)) == 0) {
        follow(s, text, text_size);
        weft_grammar_reset(s);
        follow(s, text, text_size);
    }
    if (r < 0)
        expect_error(r, &err);
    weft_grammar_state_close(s);
    weft_grammar_close(g);
}

static void fuzz_schema(const char *json, size_t n)
{
    struct weft_str gbnf = {0};
    weft_err err = {0};
    int r = weft_json_schema_to_gbnf(json, n, &gbnf, &err);
    if (r == 0)
        fuzz_gbnf(gbnf.data, gbnf.size, "{\"a\": [1]}", 10);
    else
        expect_error(r, &err);
    FUZZ_EXPECT((r == 0) == (gbnf.size > 0));
    weft_str_done(&gbnf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *input = (const char *)data;
    const char *line = size == 0 ? NULL : memmem(input, size, "\n---\n", 5);
    const size_t n = line == NULL ? size : (size_t)(line - input) + 1;
    fuzz_gbnf(input, n, input + (line == NULL ? 0 : n + 4), line == NULL ? size : size - n - 4);
    fuzz_schema(input, size);
    return 0;
}
