/*
 * Tokenizer, vocabulary and detokenizer: published vocabularies give the published ids, joining
 * equals its definition, broken vocabularies are refused by name, text never splits a character.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/gguf.h"
#include "base/text.h"
#include "coordinator/detok.h"
#include "tests/harness.h"
#include "tests/vocab_fixture.h"

#define DEMO "../shared/models/weft-stories-q8_0.gguf"
#define SEPARATOR "\n__ggml_vocab_test__\n"

/* ---- published vocabularies ---- */

static const char *const published[] = {"llama-spm", "phi-3",     "gpt-2",       "qwen2",
                                        "falcon",    "starcoder", "deepseek-llm"};

START_TEST(published_ids)
{
    char path[256];
    size_t n_texts, n_ids, number = 0;
    struct vocab_file f;
    snprintf(path, sizeof path, "../shared/vocab/ggml-vocab-%s.gguf.inp", published[_i]);
    char *texts = (char *)weft_test_read(path, &n_texts);
    snprintf(path, sizeof path, "../shared/vocab/ggml-vocab-%s.gguf.out", published[_i]);
    char *expected = (char *)weft_test_read(path, &n_ids);
    snprintf(path, sizeof path, "../shared/vocab/ggml-vocab-%s.gguf", published[_i]);
    if (texts == NULL || expected == NULL || !vocab_file_open(&f, path)) {
        weft_test_skip("%s is not there", path);
        free(texts);
        free(expected);
        return;
    }
    const char *line = expected;
    const char *end;
    for (const char *text = texts; (end = strstr(text, SEPARATOR)) != NULL; number++) {
        size_t n = (size_t)(end - text);
        int32_t *ids;
        size_t count = vocab_encode(f.t, text, n, 0, &ids);
        for (size_t i = 0; i < count; i++) {
            char *after;
            long id = strtol(line, &after, 10);
            ck_assert_msg(after != line && id == ids[i], "text %zu, id %zu: %d, expected %ld",
                          number, i, ids[i], id);
            line = after;
        }
        line += strspn(line, " ");
        ck_assert_msg(*line == '\n', "text %zu: more ids expected", number);
        line++;
        vocab_expect_round_trip(f.t, text, n);
        free(ids);
        text = end + strlen(SEPARATOR);
    }
    ck_assert_uint_eq(number, 46);
    ck_assert_int_eq(*line, '\0');
    vocab_file_close(&f);
    free(texts);
    free(expected);
}
END_TEST

START_TEST(llama_properties)
{
    struct vocab_file f;
    if (!vocab_file_open(&f, "../shared/vocab/ggml-vocab-llama-spm.gguf")) {
        weft_test_skip("no llama-spm vocabulary");
        return;
    }
    ck_assert_uint_eq(weft_tokenizer_vocab(f.t), 32000);
    ck_assert_int_eq(weft_tokenizer_bos(f.t), 1);
    ck_assert_int_eq(weft_tokenizer_eos(f.t), 2);
    ck_assert(weft_tokenizer_adds_bos(f.t));
    ck_assert(weft_tokenizer_adds_space(f.t)); /* the key is missing: the default */
    ck_assert_str_eq(weft_tokenizer_kind_name(weft_tokenizer_kind(f.t)), "SentencePiece");
    EXPECT_IDS(f.t, "Hello world", WEFT_ENCODE_BOS, 1, 15043, 3186);
    EXPECT_IDS(f.t, "Hello world", WEFT_ENCODE_BOS | WEFT_ENCODE_EOS, 1, 15043, 3186); /* no EOS */
    /* A space goes before what follows a special token. */
    EXPECT_IDS(f.t, "Hello</s>world", WEFT_ENCODE_SPECIAL, 15043, 2, 3186);
    EXPECT_IDS(f.t, "</s></s>", WEFT_ENCODE_SPECIAL, 2, 2);
    EXPECT_IDS(f.t, "", WEFT_ENCODE_BOS, 1);
    EXPECT_IDS(f.t, "", WEFT_ENCODE_SPECIAL, -1);
    int32_t *ids;
    size_t n = vocab_encode(f.t, "Hello</s>world", 14, 0, &ids);
    for (size_t i = 0; i < n; i++)
        ck_assert_int_ne(ids[i], 2);
    free(ids);
    vocab_file_close(&f);
}
END_TEST

START_TEST(phi_user_defined)
{
    struct vocab_file f;
    size_t n;
    if (!vocab_file_open(&f, "../shared/vocab/ggml-vocab-phi-3.gguf")) {
        weft_test_skip("no phi-3 vocabulary");
        return;
    }
    EXPECT_IDS(f.t, "Hello</s>", 0, 15043, 2); /* user-defined: always */
    EXPECT_IDS(f.t, "<|user|>Hello", WEFT_ENCODE_SPECIAL, 32010, 15043);
    /* Its special tokens take blanks behind them along, but for <s> and its like. */
    EXPECT_IDS(f.t, "<|user|>\n Hello<|end|>\n", WEFT_ENCODE_SPECIAL, 32010, 15043, 32007);
    EXPECT_IDS(f.t, "<s> Hello", WEFT_ENCODE_SPECIAL, 1, 29871, 15043);
    const int32_t *stops = weft_tokenizer_stops(f.t, &n); /* <|endoftext|> by id, <|end|> by name */
    ck_assert_uint_eq(n, 2);
    ck_assert(stops[0] == 32000 && stops[1] == 32007);
    ck_assert(weft_tokenizer_is_stop(f.t, 32007) && !weft_tokenizer_is_stop(f.t, 32010));
    vocab_file_close(&f);
}
END_TEST

/* The next JSON string or list behind "key": at or after s. */
static const char *json_value(const char *s, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    s = strstr(s, quoted);
    return s != NULL ? s + strlen(quoted) : NULL;
}

START_TEST(demo_answers)
{
    struct vocab_file f;
    size_t size, answers = 0;
    char *json = (char *)weft_test_read("../shared/models/prompts.json", &size);
    if (json == NULL || !vocab_file_open(&f, DEMO)) {
        weft_test_skip("no demo model");
        free(json);
        return;
    }
    size_t n_stops;
    const int32_t *stops = weft_tokenizer_stops(f.t, &n_stops);
    ck_assert(n_stops == 2 && stops[0] == 2 && stops[1] == 6);
    const char *at = json;
    while ((at = json_value(at, "q8_0")) != NULL) {
        struct weft_str text = {0}, out = {0};
        for (const char *s = at + 1; *s != '"'; s++) { /* only quotes and line ends are escaped */
            s += *s == '\\';
            weft_str_add(&text, s[-1] == '\\' && *s == 'n' ? "\n" : s, 1);
        }
        int32_t ids[1024];
        size_t n = 0;
        char *end = (char *)json_value(at, "ids_q8_0") + 1;
        for (; strspn(end, ", \n") > 0 && n < 1024; n++) {
            end += strspn(end, ", \n");
            if (*end == ']')
                break;
            ids[n] = (int32_t)strtol(end, &end, 10);
        }
        struct weft_detok d;
        weft_err err = {0};
        weft_detok_init(&d, f.t, 5);
        for (size_t i = 0; i < n; i++) {
            if (!weft_tokenizer_is_stop(f.t, ids[i]))
                ck_assert_int_eq(weft_detok_push(&d, ids[i], &out, &err), 0);
        }
        weft_detok_finish(&d, &out);
        ck_assert_str_eq(out.data, text.data);
        vocab_expect_round_trip(f.t, text.data, text.size);
        weft_str_done(&text);
        weft_str_done(&out);
        answers++;
    }
    ck_assert_uint_gt(answers, 5);
    vocab_file_close(&f);
    free(json);
}
END_TEST

/* ---- the algorithm ---- */

/* The definition: of all neighbours whose join is a piece the best is joined, the leftmost of
 * equals, until there are none. Quadratic. Text without spaces and special tokens. */
static size_t encode_by_definition(const struct weft_vocab *v, const char *text, size_t n,
                                   int32_t *ids)
{
    size_t starts[512], count = 0, n_ids = 0;
    for (size_t i = 0; i < n; i++) {
        if (((uint8_t)text[i] & 0xC0) != 0x80)
            starts[count++] = i;
    }
    starts[count] = n;
    for (;;) {
        size_t best = SIZE_MAX;
        float score = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            int32_t id =
                weft_vocab_find(v, &v->pieces, text + starts[i], starts[i + 2] - starts[i]);
            if (id >= 0 && (best == SIZE_MAX || v->tokens[id].score > score)) {
                best = i;
                score = v->tokens[id].score;
            }
        }
        if (best == SIZE_MAX)
            break;
        memmove(&starts[best + 1], &starts[best + 2], (count - best - 1) * sizeof starts[0]);
        count--;
    }
    for (size_t i = 0; i < count; i++) {
        int32_t id = weft_vocab_find(v, &v->pieces, text + starts[i], starts[i + 1] - starts[i]);
        if (id >= 0)
            ids[n_ids++] = id;
        for (size_t k = starts[i]; id < 0 && k < starts[i + 1]; k++)
            ids[n_ids++] = v->byte_ids[(uint8_t)text[k]];
    }
    return n_ids;
}

/* Random pieces over few characters, with few scores, so that ties and stale joins are common; with
 * and without pieces that reach over a space. */
START_TEST(equals_definition)
{
    uint64_t random = weft_test_seed() + (uint64_t)_i * 7919;
    static const char *const letters[] = {"a", "b", "c", WEFT_SPACE_MARK, "\xC3\xA4"};
    static char texts[120][64];
    struct small_vocab s;
    struct vocab_file f;
    struct weft_vocab v;
    weft_err err = {0};
    small_vocab_init(&s, true);
    /* A space that no piece spells becomes the bytes of its mark, and comes back as the mark. */
    small_vocab_add(&s, WEFT_SPACE_MARK, -9, WEFT_TOKEN_NORMAL);
    for (size_t i = 0; i < 120; i++) {
        texts[i][0] = '\0';
        for (size_t k = 1 + weft_test_random(&random) % 5; k > 0; k--) {
            size_t letter = weft_test_random(&random) % 5;
            if (_i % 2 == 0 && letter == 3 && texts[i][0] != '\0')
                letter = 0; /* spaces only in front */
            strcat(texts[i], letters[letter]);
        }
        small_vocab_add(&s, texts[i], -(float)(weft_test_random(&random) % 8), WEFT_TOKEN_NORMAL);
    }
    small_vocab_open(&s, &f);
    ck_assert_int_eq(weft_vocab_open(&f.gguf, &v, &err), 0);
    ck_assert(_i % 2 == 1 || v.words);
    for (unsigned round = 0; round < 200; round++) {
        char text[1024] = "", plain[1024] = "";
        for (size_t k = weft_test_random(&random) % 100; k > 0; k--) {
            size_t letter = weft_test_random(&random) % 5;
            strcat(text, letters[letter]);
            strcat(plain, letter == 3 ? " " : letters[letter]);
        }
        int32_t expected[1024], *ids;
        size_t n = encode_by_definition(&v, text, strlen(text), expected);
        size_t m = vocab_encode(f.t, plain, strlen(plain), 0, &ids);
        ck_assert_uint_eq(n, m);
        for (size_t i = 0; i < n; i++)
            ck_assert_msg(ids[i] == expected[i], "'%s': id %zu", plain, i);
        free(ids);
        vocab_expect_round_trip(f.t, plain, strlen(plain));
    }
    weft_vocab_done(&v);
    vocab_file_close(&f);
}
END_TEST

START_TEST(leftmost_and_best)
{
    struct small_vocab s;
    struct vocab_file f;
    small_vocab_init(&s, true); /* 259 is the first of ours */
    small_vocab_add(&s, "a", -9, WEFT_TOKEN_NORMAL);
    small_vocab_add(&s, "aa", -1, WEFT_TOKEN_NORMAL);
    small_vocab_add(&s, "ab", -0.5f, WEFT_TOKEN_NORMAL);
    small_vocab_add(&s, "b", -9, WEFT_TOKEN_NORMAL);
    small_vocab_open(&s, &f);
    EXPECT_IDS(f.t, "aaa", 0, 260, 259);      /* leftmost of equals */
    EXPECT_IDS(f.t, "aab", 0, 259, 261);      /* the better one first */
    EXPECT_IDS(f.t, "b\n", 0, 262, 3 + '\n'); /* byte fallback */
    EXPECT_IDS(f.t, "\xC3\xA4", 0, 198, 167); /* both bytes */
    EXPECT_IDS(f.t, " ", 0, 229, 153, 132);   /* even of the space mark */
    vocab_file_close(&f);
}
END_TEST

START_TEST(kinds_of_tokens)
{
    struct small_vocab s;
    struct vocab_file f;
    size_t n;
    small_vocab_init(&s, true);
    small_vocab_add(&s, "<", -1, WEFT_TOKEN_NORMAL);          /* 259 */
    small_vocab_add(&s, "s", -1, WEFT_TOKEN_NORMAL);          /* 260 */
    small_vocab_add(&s, ">", -1, WEFT_TOKEN_NORMAL);          /* 261 */
    small_vocab_add(&s, "<s", -1, WEFT_TOKEN_NORMAL);         /* 262: one join from <s> */
    small_vocab_add(&s, "ss", -1, WEFT_TOKEN_UNUSED);         /* 263 */
    small_vocab_add(&s, "s", -1, WEFT_TOKEN_NORMAL);          /* 264: again */
    small_vocab_add(&s, "s>", -9, WEFT_TOKEN_USER_DEFINED);   /* 265 */
    small_vocab_add(&s, "s>s>", -9, WEFT_TOKEN_USER_DEFINED); /* 266 */
    small_vocab_add(&s, WEFT_SPACE_MARK "s", -9, WEFT_TOKEN_NORMAL);
    small_vocab_add(&s, "", 0, WEFT_TOKEN_NORMAL); /* some files have empty ones: never made */
    small_vocab_add(&s, "", 0, WEFT_TOKEN_CONTROL);
    small_vocab_add(&s, "<|im_end|>", 0, WEFT_TOKEN_NORMAL); /* 270: control by its name */
    small_vocab_open(&s, &f);
    EXPECT_IDS(f.t, "<|im_end|>", WEFT_ENCODE_SPECIAL, 270);
    ck_assert(weft_tokenizer_is_control(f.t, 270) && weft_tokenizer_is_stop(f.t, 270));
    ck_assert(!weft_tokenizer_is_control(f.t, 265) && !weft_tokenizer_is_control(f.t, 999));
    EXPECT_IDS(f.t, "<s", 0, 262);
    EXPECT_IDS(f.t, "<s>", 0, 259, 265); /* user-defined before joining; never <s> */
    EXPECT_IDS(f.t, "<s>", WEFT_ENCODE_SPECIAL, 1);
    EXPECT_IDS(f.t, "<unk>", WEFT_ENCODE_SPECIAL, 0);
    EXPECT_IDS(f.t, "ss", 0, 260, 260); /* unused is not made; the lower of equal texts */
    EXPECT_IDS(f.t, "s>s>s>", 0, 266, 265);
    EXPECT_IDS(f.t, "<0x41>", 0, 259, 3 + '0', 3 + 'x', 3 + '4', 3 + '1', 261);
    ck_assert(weft_tokenizer_piece(f.t, 1, &n) != NULL && n == 0); /* control: nothing */
    ck_assert(memcmp(weft_tokenizer_text(f.t, 1, &n), "<s>", 3) == 0 && n == 3);
    ck_assert(memcmp(weft_tokenizer_piece(f.t, 0, &n), "\xEF\xBF\xBD", 3) == 0 && n == 3);
    ck_assert(memcmp(weft_tokenizer_piece(f.t, 3 + 0xFE, &n), "\xFE", 1) == 0 && n == 1);
    ck_assert(memcmp(weft_tokenizer_piece(f.t, 267, &n), " s", 2) == 0 && n == 2);
    ck_assert(weft_tokenizer_piece(f.t, 268, &n) != NULL && n == 0);
    ck_assert(weft_tokenizer_piece(f.t, 271, &n) == NULL && n == 0);
    ck_assert(weft_tokenizer_text(f.t, -1, &n) == NULL && n == 0);
    ck_assert(weft_tokenizer_is_special(f.t, 265) && !weft_tokenizer_is_special(f.t, 262));
    ck_assert(!weft_tokenizer_is_special(f.t, 268) && !weft_tokenizer_is_special(f.t, -1));
    vocab_file_close(&f);
}
END_TEST

/* As in Gemma's vocabularies: no space before the text, runs of blanks are tokens of their own. */
START_TEST(blanks_as_tokens)
{
    static const char text[] = "a    a\n\n\n a  ";
    struct small_vocab s;
    struct vocab_file f;
    small_vocab_init(&s, true);
    small_vocab_add(&s, WEFT_SPACE_MARK, -1, WEFT_TOKEN_NORMAL);     /* 259 */
    small_vocab_add(&s, "a", -1, WEFT_TOKEN_NORMAL);                 /* 260 */
    small_vocab_add(&s, WEFT_SPACE_MARK "a", -1, WEFT_TOKEN_NORMAL); /* 261 */
    small_vocab_add(&s, "  ", -1, WEFT_TOKEN_USER_DEFINED);          /* 262 */
    small_vocab_add(&s, "   ", -1, WEFT_TOKEN_USER_DEFINED);         /* 263 */
    small_vocab_add(&s, "\n\n", -1, WEFT_TOKEN_USER_DEFINED);        /* 264 */
    small_vocab_open(&s, &f);
    EXPECT_IDS(f.t, "a", 0, 260);
    EXPECT_IDS(f.t, " a", 0, 261);
    EXPECT_IDS(f.t, "a  a", 0, 260, 262, 260);
    EXPECT_IDS(f.t, text, 0, 260, 263, 261, 264, 3 + '\n', 261, 262);
    vocab_expect_round_trip(f.t, text, strlen(text));
    vocab_file_close(&f);
}
END_TEST

START_TEST(unknown_without_bytes)
{
    struct small_vocab s;
    struct vocab_file f;
    small_vocab_init(&s, false);
    small_vocab_add(&s, "a", -1, WEFT_TOKEN_NORMAL);
    small_vocab_open(&s, &f);
    EXPECT_IDS(f.t, "a\xC3\xA4z", 0, 3, 0, 0); /* one per character */
    vocab_file_close(&f);
}
END_TEST

/* "<s>" is a control token only where the caller says that the text may be trusted. */
START_TEST(spans)
{
    static const char text[] = "<s>x<s>x<s>";
    const struct weft_span trusted[] = {{0, 4}, {5, 2}, {8, 3}};
    struct small_vocab s;
    struct vocab_file f;
    int32_t *ids;
    size_t n;
    weft_err err = {0};
    small_vocab_init(&s, true);
    small_vocab_open(&s, &f);
    ck_assert_int_eq(
        weft_tokenizer_encode_spans(f.t, text, 11, trusted, 3, WEFT_ENCODE_BOS, &ids, &n, &err), 0);
    /* BOS by flag, <s>, x, < s > as bytes since its first byte is not trusted, x, <s> */
    const int32_t expected[] = {1, 1, 3 + 'x', 3 + '<', 3 + 's', 3 + '>', 3 + 'x', 1};
    ck_assert_uint_eq(n, sizeof expected / sizeof expected[0]);
    ck_assert_mem_eq(ids, expected, sizeof expected);
    free(ids);
    vocab_file_close(&f);
}
END_TEST

START_TEST(bad_text)
{
    static const struct {
        const char *text;
        size_t offset;
    } cases[] = {{"\xFF", 0},         {"abc\xC3", 3},          {"ab\xC0\x80", 2},
                 {"\xED\xA0\x80", 0}, {"\xE2\x96\x81\x80", 3}, {"a\xF4\x90\x80\x80", 1}};
    struct small_vocab s;
    struct vocab_file f;
    int32_t *ids = NULL;
    size_t n = 77;
    small_vocab_init(&s, true);
    small_vocab_open(&s, &f);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        weft_err err = {0};
        char expected[32];
        int r = weft_tokenizer_encode(f.t, cases[i].text, strlen(cases[i].text), 0, &ids, &n, &err);
        ck_assert_int_eq(r, -WEFT_EUSAGE);
        snprintf(expected, sizeof expected, "text: byte %zu ", cases[i].offset);
        ck_assert_msg(strstr(err.text, expected) == err.text, "%s", err.text);
    }
    size_t size = (size_t)WEFT_TOKENIZER_TEXT_MAX + 1;
    char *large = calloc(size, 1);
    weft_err err = {0};
    ck_assert_int_eq(weft_tokenizer_encode(f.t, large, size, 0, &ids, &n, &err), -WEFT_EUSAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "expected at most 16777216"));
    ck_assert(ids == NULL && n == 77); /* untouched on failure */
    free(large);
    vocab_file_close(&f);
}
END_TEST

/* ---- malformed vocabularies ---- */

enum fault {
    NO_MODEL,
    GPT2,
    NO_TOKENS,
    TOKENS_NUMBER,
    NO_TOKEN,
    NO_SCORES,
    FEW_SCORES,
    SCORES_INT,
    SCORE_NAN,
    NO_TYPES,
    MANY_TYPES,
    TYPE_ZERO,
    TYPE_SEVEN,
    LONG_TOKEN,
    BYTE_TEXT,
    BYTES_MISSING,
    BOS_RANGE,
    EOT_RANGE,
    UNKNOWN_TYPE,
    NO_UNKNOWN,
    FLAG_TYPE,
    TOO_MANY,
    FAULT_COUNT
};

static const struct {
    int code;
    const char *text; /* the start of the error */
} faults[FAULT_COUNT] = {
    [NO_MODEL] = {WEFT_EMODEL, "key tokenizer.ggml.model is missing"},
    [GPT2] = {WEFT_EUNSUPPORTED, "tokenizer.ggml.model: found 'gpt2?[31m', expected 'llama' "},
    [NO_TOKENS] = {WEFT_EMODEL, "key tokenizer.ggml.tokens is missing"},
    [TOKENS_NUMBER] = {WEFT_EMODEL, "tokenizer.ggml.tokens: found type"},
    [NO_TOKEN] = {WEFT_EMODEL, "tokenizer.ggml.tokens: found 0 tokens, expected 1 to 1048576"},
    [NO_SCORES] = {WEFT_EMODEL, "key tokenizer.ggml.scores is missing"},
    [FEW_SCORES] = {WEFT_EMODEL, "tokenizer.ggml.scores: found 258 items, expected 259 "},
    [SCORES_INT] = {WEFT_EMODEL, "tokenizer.ggml.scores: found type"},
    [SCORE_NAN] = {WEFT_EMODEL, "tokenizer.ggml.scores[7]: "},
    [NO_TYPES] = {WEFT_EMODEL, "key tokenizer.ggml.token_type is missing"},
    [MANY_TYPES] = {WEFT_EMODEL, "tokenizer.ggml.token_type: found 260 items, expected 259 "},
    [TYPE_ZERO] = {WEFT_EMODEL, "tokenizer.ggml.token_type[7]: found 0, expected 1 to 6"},
    [TYPE_SEVEN] = {WEFT_EMODEL, "tokenizer.ggml.token_type[7]: found 7, expected 1 to 6"},
    [LONG_TOKEN] = {WEFT_EMODEL,
                    "tokenizer.ggml.tokens[7]: found 1025 bytes, expected at most 1024"},
    [BYTE_TEXT] = {WEFT_EMODEL, "tokenizer.ggml.tokens[7]: is a byte token"},
    [BYTES_MISSING] = {WEFT_EMODEL, "tokenizer.ggml.token_type: found tokens for 255 bytes"},
    [BOS_RANGE] = {WEFT_EMODEL, "tokenizer.ggml.bos_token_id: found 259, expected an id below 259"},
    [EOT_RANGE] = {WEFT_EMODEL, "tokenizer.ggml.eot_token_id: found 4294967295"},
    [UNKNOWN_TYPE] = {WEFT_EMODEL, "key tokenizer.ggml.unknown_token_id: found a string"},
    [NO_UNKNOWN] = {WEFT_EMODEL,
                    "key tokenizer.ggml.unknown_token_id is missing, and there are no byte"},
    [FLAG_TYPE] = {WEFT_EMODEL, "key tokenizer.ggml.add_bos_token: found a u32, expected a bool"},
    [TOO_MANY] = {WEFT_EMODEL, "tokenizer.ggml.tokens: found 1048577 tokens"},
};

static void write_fault(enum fault fault, struct small_vocab *s, struct gguf_writer *w)
{
    static char long_text[1026];
    memset(long_text, 'x', 1025);
    small_vocab_init(s, fault != NO_UNKNOWN);
    if (fault == SCORE_NAN)
        s->scores[7] = (float)strtod("nan", NULL);
    if (fault == TYPE_ZERO || fault == TYPE_SEVEN)
        s->types[7] = fault == TYPE_ZERO ? 0 : 7;
    if (fault == BYTES_MISSING)
        s->types[7] = WEFT_TOKEN_NORMAL;
    if (fault == LONG_TOKEN || fault == BYTE_TEXT)
        s->texts[7] = fault == LONG_TOKEN ? long_text : "<0xAG>";
    if (fault == NO_UNKNOWN) {
        s->types[0] = WEFT_TOKEN_NORMAL;
        small_vocab_add(s, "a", 0, WEFT_TOKEN_NORMAL);
    }
    small_vocab_write(s, w);
    static const char *const removed[FAULT_COUNT] = {
        [NO_MODEL] = "tokenizer.ggml.model",
        [NO_TOKENS] = "tokenizer.ggml.tokens",
        [NO_SCORES] = "tokenizer.ggml.scores",
        [NO_TYPES] = "tokenizer.ggml.token_type",
    };
    if (removed[fault] != NULL)
        gguf_writer_remove(w, removed[fault]);
    s->types[s->n] = WEFT_TOKEN_NORMAL;
    if (fault == FEW_SCORES)
        gguf_writer_array(w, "tokenizer.ggml.scores", WEFT_GGUF_F32, 258, s->scores, 4 * 258);
    if (fault == SCORES_INT)
        gguf_writer_array(w, "tokenizer.ggml.scores", WEFT_GGUF_I32, 259, s->types, 4 * 259);
    if (fault == MANY_TYPES)
        gguf_writer_array(w, "tokenizer.ggml.token_type", WEFT_GGUF_I32, 260, s->types, 4 * 260);
    if (fault == GPT2)
        gguf_writer_str(w, "tokenizer.ggml.model", "gpt2\x1B[31m");
    if (fault == TOKENS_NUMBER)
        gguf_writer_u32(w, "tokenizer.ggml.tokens", 3);
    if (fault == NO_TOKEN)
        gguf_writer_strings(w, "tokenizer.ggml.tokens", s->texts, 0);
    if (fault == BOS_RANGE)
        gguf_writer_u32(w, "tokenizer.ggml.bos_token_id", 259);
    if (fault == EOT_RANGE)
        gguf_writer_u32(w, "tokenizer.ggml.eot_token_id", UINT32_MAX);
    if (fault == UNKNOWN_TYPE)
        gguf_writer_str(w, "tokenizer.ggml.unknown_token_id", "0");
    if (fault == FLAG_TYPE)
        gguf_writer_u32(w, "tokenizer.ggml.add_bos_token", 1);
    if (fault == TOO_MANY) {
        const char **texts = malloc(((1u << 20) + 1) * sizeof *texts);
        for (size_t i = 0; i <= 1u << 20; i++)
            texts[i] = "x";
        gguf_writer_strings(w, "tokenizer.ggml.tokens", texts, (1u << 20) + 1);
        free(texts);
    }
}

START_TEST(malformed)
{
    struct small_vocab s;
    struct gguf_writer w;
    struct vocab_file f;
    weft_err err = {0};
    write_fault((enum fault)_i, &s, &w);
    ck_assert_int_eq(vocab_file_from(&w, &f, &err), -faults[_i].code);
    ck_assert_int_eq(err.code, faults[_i].code);
    ck_assert_msg(strstr(err.text, faults[_i].text) == err.text, "%s", err.text);
    ck_assert_ptr_null(f.t);
    vocab_file_close(&f);
}
END_TEST

/* Every byte of a small vocabulary file, three flips each: refused or usable, never worse. */
START_TEST(flipped_bytes)
{
    struct small_vocab s;
    struct gguf_writer w;
    size_t size, opened = 0;
    small_vocab_init(&s, true);
    small_vocab_add(&s, "ab", -1, WEFT_TOKEN_NORMAL);
    small_vocab_add(&s, "<x>", -1, WEFT_TOKEN_USER_DEFINED);
    small_vocab_write(&s, &w);
    gguf_writer_u32(&w, "tokenizer.ggml.eot_token_id", 2);
    uint8_t *file = gguf_writer_finish(&w, &size);
    gguf_writer_done(&w);
    for (size_t i = 0; i < 3 * size; i++) {
        static const uint8_t flips[] = {0x01, 0x80, 0xFF};
        struct weft_gguf g = {0};
        struct weft_tokenizer *t = NULL;
        file[i / 3] ^= flips[i % 3];
        if (weft_gguf_open(file, size, &g, NULL) == 0) {
            if (weft_tokenizer_open(&g, &t, NULL) == 0) {
                int32_t *ids;
                free((vocab_encode(t, "ab <x> </s>\n", 12, WEFT_ENCODE_SPECIAL, &ids), ids));
                opened++;
            }
            weft_tokenizer_close(t);
            weft_gguf_done(&g);
        }
        file[i / 3] ^= flips[i % 3];
    }
    ck_assert_uint_gt(opened, 0);
    free(file);
}
END_TEST

/* ---- there and back ---- */

static const char *const round_trip_files[] = {"../shared/vocab/ggml-vocab-llama-spm.gguf", DEMO};

START_TEST(random_round_trip)
{
    uint64_t random = weft_test_seed();
    struct vocab_file f;
    char text[4 * 200];
    if (!vocab_file_open(&f, round_trip_files[_i])) {
        weft_test_skip("%s is not there", round_trip_files[_i]);
        return;
    }
    for (unsigned round = 0; round < 500; round++)
        vocab_expect_round_trip(f.t, text, vocab_random_text(&random, text, 200));
    vocab_file_close(&f);
}
END_TEST

/* A megabyte, in words and as one word: n log n, or this test does not end in its time. */
START_TEST(megabyte)
{
    uint64_t random = weft_test_seed();
    size_t n = 1u << 20;
    struct vocab_file f;
    char *text = malloc(n);
    if (!vocab_file_open(&f, round_trip_files[0])) {
        weft_test_skip("no llama-spm vocabulary");
        free(text);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t x = weft_test_random(&random) % 32;
        text[i] = (char)(x < 26 ? 'a' + (char)x : _i == 0 ? ' ' : 'e');
    }
    int32_t *ids;
    clock_t start = clock();
    size_t n_ids = vocab_encode(f.t, text, n, 0, &ids);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    printf("a megabyte %s: %zu ids in %.0f ms\n", _i == 0 ? "of words" : "in one word", n_ids,
           1e3 * seconds);
    ck_assert(n_ids > n / 8 && n_ids < n);
    struct weft_detok d;
    struct weft_str out = {0};
    weft_detok_init(&d, f.t, WEFT_DETOK_START);
    for (size_t i = 0; i < n_ids; i++)
        ck_assert_int_eq(weft_detok_push(&d, ids[i], &out, NULL), 0);
    ck_assert(out.size == n && memcmp(out.data, text, n) == 0);
    weft_str_done(&out);
    free(ids);
    free(text);
    vocab_file_close(&f);
}
END_TEST

/* ---- detokenizer ---- */

/* Pushes bytes as byte tokens of a small vocabulary. */
static void push_bytes(struct weft_detok *d, const char *s, size_t n, struct weft_str *out)
{
    for (size_t i = 0; i < n; i++)
        ck_assert_int_eq(weft_detok_push(d, 3 + (uint8_t)s[i], out, NULL), 0);
}

START_TEST(never_splits)
{
    static const char text[] = "a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x99\x82\xED\x9F\xBF\xF4\x8F\xBF\xBF";
    struct small_vocab s;
    struct vocab_file f;
    small_vocab_init(&s, true);
    small_vocab_open(&s, &f);
    for (size_t cut = 0; cut <= strlen(text); cut++) {
        struct weft_detok d;
        struct weft_str out = {0};
        size_t whole = weft_utf8_prefix(text, cut);
        weft_detok_init(&d, f.t, WEFT_DETOK_START);
        push_bytes(&d, text, cut, &out);
        ck_assert(out.size == whole && (whole == 0 || memcmp(out.data, text, whole) == 0));
        push_bytes(&d, text + cut, strlen(text) - cut, &out);
        ck_assert_str_eq(out.data, text);
        weft_detok_finish(&d, &out);
        ck_assert_str_eq(out.data, text);
        weft_str_clear(&out);
        push_bytes(&d, text, cut, &out); /* a tail that is never completed is one U+FFFD */
        weft_detok_finish(&d, &out);
        ck_assert_uint_eq(out.size, whole + (whole < cut ? 3 : 0));
        ck_assert(whole == cut || strcmp(out.data + whole, "\xEF\xBF\xBD") == 0);
        weft_str_done(&out);
    }
    vocab_file_close(&f);
}
END_TEST

START_TEST(replaces_invalid)
{
#define R "\xEF\xBF\xBD"
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"\x80", R},
        {"\xFF"
         "a",
         R "a"},
        {"\xC0\x80", R R},
        {"\xE2\x82"
         "a",
         R "a"},
        {"\xE2\x82\xC3\xA4", R "\xC3\xA4"},
        {"\xED\xA0\x80", R R R},
        {"\xF0\x8F\xBF\xBF", R R R R},
        {"\xF4\x90\x80\x80", R R R R},
        {"\xF0\x9F\x99\xF0\x9F\x99\x82", R "\xF0\x9F\x99\x82"},
        {"\xF0\x9F\x41", R "A"},
    };
    struct small_vocab s;
    struct vocab_file f;
    small_vocab_init(&s, true);
    small_vocab_open(&s, &f);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct weft_detok d;
        struct weft_str out = {0};
        weft_detok_init(&d, f.t, WEFT_DETOK_START);
        push_bytes(&d, cases[i].bytes, strlen(cases[i].bytes), &out);
        weft_detok_finish(&d, &out);
        ck_assert_msg(strcmp(out.data, cases[i].text) == 0, "case %zu", i);
        weft_str_done(&out);
    }
    vocab_file_close(&f);
#undef R
}
END_TEST

START_TEST(random_bytes)
{
    uint64_t random = weft_test_seed();
    struct small_vocab s;
    struct vocab_file f;
    small_vocab_init(&s, true);
    small_vocab_open(&s, &f);
    for (unsigned round = 0; round < 300; round++) {
        struct weft_detok d;
        struct weft_str out = {0};
        weft_detok_init(&d, f.t, WEFT_DETOK_START);
        for (unsigned i = 0; i < 50; i++) {
            char byte = (char)weft_test_random(&random);
            if (weft_test_random(&random) % 2 == 0)
                byte = (char)"\xE2\xF0\xF4\xED\xC3\x80\x9F\xA0\x90\x82"[(uint8_t)byte % 10];
            push_bytes(&d, &byte, 1, &out);
            ck_assert(d.tail_size <= 3 && weft_utf8_valid(out.data, out.size, NULL));
        }
        weft_detok_finish(&d, &out);
        ck_assert(weft_utf8_valid(out.data, out.size, NULL));
        weft_str_done(&out);
    }
    vocab_file_close(&f);
}
END_TEST

static void expect_text(const struct weft_tokenizer *t, int32_t previous, const int32_t *ids,
                        size_t n, const char *expected)
{
    struct weft_detok d;
    struct weft_str out = {0};
    weft_detok_init(&d, t, previous);
    for (size_t i = 0; i < n; i++)
        ck_assert_int_eq(weft_detok_push(&d, ids[i], &out, NULL), 0);
    weft_detok_finish(&d, &out);
    ck_assert_str_eq(out.data, expected);
    weft_str_done(&out);
}

START_TEST(prefix_space)
{
    struct small_vocab s;
    struct gguf_writer w;
    struct vocab_file f;
    weft_err err = {0};
    small_vocab_init(&s, true);
    small_vocab_add(&s, WEFT_SPACE_MARK "a", -1, WEFT_TOKEN_NORMAL);
    small_vocab_write(&s, &w);
    gguf_writer_remove(&w, "tokenizer.ggml.add_space_prefix");
    ck_assert_int_eq(vocab_file_from(&w, &f, &err), 0);
    expect_text(f.t, WEFT_DETOK_START, (int32_t[]){259, 259}, 2, "a a");
    expect_text(f.t, 1, (int32_t[]){259, 259}, 2, "a a");        /* behind a control token */
    expect_text(f.t, 3 + 'x', (int32_t[]){259, 259}, 2, " a a"); /* in the middle of a text */
    expect_text(f.t, WEFT_DETOK_START, (int32_t[]){1, 259, 2, 259}, 4, "aa");
    struct weft_detok d;
    struct weft_str out = {0};
    weft_detok_init(&d, f.t, WEFT_DETOK_START);
    ck_assert_int_eq(weft_detok_push(&d, 260, &out, &err), -WEFT_EUSAGE);
    ck_assert_str_eq(err.text, "token 260: expected an id below 260");
    ck_assert_int_eq(weft_detok_push(&d, -1, &out, &err), -WEFT_EUSAGE);
    ck_assert_uint_eq(out.size, 0);
    vocab_file_close(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer");
    TCase *tc = tcase_create("tokenizer");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, published_ids, 0, 7);
    tcase_add_test(tc, llama_properties);
    tcase_add_test(tc, phi_user_defined);
    tcase_add_test(tc, demo_answers);
    tcase_add_loop_test(tc, equals_definition, 0, 8);
    tcase_add_test(tc, leftmost_and_best);
    tcase_add_test(tc, kinds_of_tokens);
    tcase_add_test(tc, blanks_as_tokens);
    tcase_add_test(tc, unknown_without_bytes);
    tcase_add_test(tc, spans);
    tcase_add_test(tc, bad_text);
    tcase_add_loop_test(tc, malformed, 0, FAULT_COUNT);
    tcase_add_test(tc, flipped_bytes);
    tcase_add_loop_test(tc, random_round_trip, 0, 2);
    tcase_add_loop_test(tc, megabyte, 0, 2);
    tcase_add_test(tc, never_splits);
    tcase_add_test(tc, replaces_invalid);
    tcase_add_test(tc, random_bytes);
    tcase_add_test(tc, prefix_space);
    suite_add_tcase(suite, tc);
    return weft_test_main(suite);
}
