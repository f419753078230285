/*
 * Detokenizer, see detok.h. Bytes go through the tail one at a time: each one completes a
 * character, goes on with it, or shows that what stands in the tail will never be one.
 */
#include "coordinator/detok.h"

#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* True if s[0..n), n of 1..3, can still become one valid character. The limits of the second byte
 * are those of the Unicode standard, table 3-7: no overlong forms, no surrogates, at most U+10FFFF.
 */
static bool may_continue(const char *s, size_t n)
{
    uint8_t lead = (uint8_t)s[0], second = n > 1 ? (uint8_t)s[1] : 0;
    size_t need = lead < 0xC2 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 1;
    uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (n >= need || (n > 1 && (second < low || second > high)))
        return false;
    return n < 3 || ((uint8_t)s[2] & 0xC0) == 0x80;
}

void weft_detok_init(struct weft_detok *d, const struct weft_tokenizer *t, int32_t previous)
{
    bool special = previous < 0 || weft_tokenizer_is_special(t, previous);
    *d = (struct weft_detok){.tokenizer = t, .drop_space = special && weft_tokenizer_adds_space(t)};
}

/* Gives the tail up: a maximal part of a character becomes one U+FFFD, as the Unicode standard
 * recommends (section 3.9, "U+FFFD Substitution of Maximal Subparts"). */
static void give_up(struct weft_detok *d, struct weft_str *out)
{
    if (d->tail_size > 0)
        weft_str_adds(out, REPLACEMENT);
    d->tail_size = 0;
}

static void push_byte(struct weft_detok *d, char byte, struct weft_str *out)
{
    uint32_t code;
    for (;;) {
        d->tail[d->tail_size] = byte;
        size_t n = d->tail_size + 1;
        if (weft_utf8_decode(d->tail, n, &code) == n) {
            weft_str_add(out, d->tail, n);
            d->tail_size = 0;
            return;
        }
        if (may_continue(d->tail, n)) {
            d->tail_size = n;
            return;
        }
        if (d->tail_size == 0) {
            weft_str_adds(out, REPLACEMENT);
            return;
        }
        give_up(d, out); /* then the byte is looked at again, as the first of a character */
    }
}

int weft_detok_push(struct weft_detok *d, int32_t id, struct weft_str *out, weft_err *err)
{
    size_t n, i = 0;
    const char *piece = weft_tokenizer_piece(d->tokenizer, id, &n);
    if (piece == NULL)
        return weft_fail(err, WEFT_EUSAGE, "token %d: expected an id below %u", id,
                         weft_tokenizer_vocab(d->tokenizer));
    bool special = weft_tokenizer_is_special(d->tokenizer, id);
    if (n > 0 && piece[0] == ' ' && d->drop_space && !special)
        i = 1;
    d->drop_space = special && weft_tokenizer_adds_space(d->tokenizer);
    for (; i < n; i++)
        push_byte(d, piece[i], out);
    return 0;
}

void weft_detok_finish(struct weft_detok *d, struct weft_str *out)
{
    give_up(d, out);
}
