/*
 * Upper and lower case. ASCII is done here; other texts by PCRE2, whose tables are Unicode's simple
 * mappings (one character to one, and ß to SS), the same on every machine and in every locale.
 *
 * Invariant: a text keeps its marks where a character becomes one of as many bytes; what is of
 * mixed trust and does not is not trusted at all.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "coordinator/jinja_run.h"

/* What each case is in PCRE2's words: a match and what it becomes. */
static const struct {
    const char *pattern, *becomes;
} rules[JINJA_CASE_COUNT] = {
    [JINJA_LOWER] = {"(?s).+", "\\L$0"},
    [JINJA_UPPER] = {"(ß)|[^ß]+", "${1:+SS:\\U$0}"},
    [JINJA_SWAP] = {"(ß)|(\\p{Lu}+)|((?:(?!ß)\\p{Ll})+)", "${1:+SS:}${2:+\\L$2:}${3:+\\U$3:}"},
    [JINJA_CAPITALIZE] = {"(?s)\\A(.)(.*)", "\\U$1\\E\\L$2"},
    [JINJA_TITLE] = {"(\\p{L})(\\p{L}*)", "\\U$1\\E\\L$2"},
    [JINJA_TITLE_WORDS] = {"([^-\\s({\\[<])([^-\\s({\\[<]*)", "\\U$1\\E\\L$2"},
};

static bool is_ascii(const struct jinja_string *s)
{
    for (size_t i = 0; i < s->size; i++)
        if ((uint8_t)s->text[i] >= 0x80)
            return false;
    return true;
}

static bool is_letter(char c)
{
    const char lower = (char)(c | 0x20);
    return lower >= 'a' && lower <= 'z';
}

static char ascii(char c, bool upper)
{
    return !is_letter(c) ? c : (char)(upper ? c & ~0x20 : c | 0x20);
}

static void ascii_case(const struct jinja_string *s, enum jinja_case how, char *out)
{
    bool first = true; /* of the text, or of a word */
    for (size_t i = 0; i < s->size; i++) {
        const char c = s->text[i];
        const bool upper = how == JINJA_UPPER || (how == JINJA_SWAP && (c & 0x20) != 0) ||
                           (how >= JINJA_CAPITALIZE && first);
        out[i] = ascii(c, upper);
        if (how == JINJA_TITLE)
            first = !is_letter(c);
        else if (how == JINJA_TITLE_WORDS)
            first = jinja_code_space((uint8_t)c) || (c != '\0' && strchr("-({[<", c) != NULL);
        else
            first = false;
    }
}

static int refuse(struct jinja_run *run, int code)
{
    char why[120];
    pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
    return jinja_refuse(run, "case of a text: %s", why);
}

static int unicode_case(struct jinja_run *run, const struct jinja_string *s, enum jinja_case how,
                        char **ret, size_t *ret_size)
{
    int code;
    PCRE2_SIZE offset, size = 3 * s->size + 1; /* a character of 1 byte may become one of 3 */
    pcre2_code *pattern =
        pcre2_compile((PCRE2_SPTR)rules[how].pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &code, &offset, NULL);
    if (pattern == NULL)
        return refuse(run, code);
    char *out = jinja_alloc(run, size, 1);
    int r = out != NULL ? 0 : jinja_failed(run);
    if (r == 0)
        code = pcre2_substitute(
            pattern, (PCRE2_SPTR)s->text, s->size, 0,
            PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_EXTENDED | PCRE2_NO_UTF_CHECK, NULL, NULL,
            (PCRE2_SPTR)rules[how].becomes, PCRE2_ZERO_TERMINATED, (PCRE2_UCHAR *)out, &size);
    pcre2_code_free(pattern);
    if (r == 0 && code < 0)
        r = refuse(run, code);
    *ret = out;
    *ret_size = size;
    return r;
}

/* True if each character of a has as many bytes as its place in b. */
static bool same_shape(const struct jinja_string *a, const char *b, size_t size)
{
    bool same = a->size == size;
    for (size_t i = 0; same && i < size; i++)
        same = (((uint8_t)a->text[i] & 0xC0) == 0x80) == (((uint8_t)b[i] & 0xC0) == 0x80);
    return same;
}

int jinja_case(struct jinja_run *run, const struct jinja_string *s, enum jinja_case how,
               struct jinja_value *ret)
{
    char *out = NULL;
    size_t size = s->size;
    int r = jinja_work(run, s->size);
    if (r < 0)
        return r;
    if (is_ascii(s)) {
        out = jinja_alloc(run, s->size, 1);
        if (out == NULL)
            return jinja_failed(run);
        ascii_case(s, how, out);
    } else {
        r = unicode_case(run, s, how, &out, &size);
        if (r < 0)
            return r;
    }
    struct jinja_string *changed = jinja_alloc(run, 1, sizeof *changed);
    if (changed == NULL)
        return jinja_failed(run);
    *changed = (struct jinja_string){
        .text = out,
        .size = size,
        .marks = same_shape(s, out, size) ? s->marks : NULL,
        .trusted = s->marks == NULL && s->trusted,
        .safe = s->safe,
    };
    *ret = (struct jinja_value){.kind = JINJA_STRING, .string = changed};
    return 0;
}
