/*
 * JSON schemas: bounds of numbers with a fraction.
 *
 * Such numbers are plain decimals of at most 15 digits, without exponent. Two different ones are
 * never one double, so that a text is within its bounds also for a reader that rounds, and a bound
 * that is excluded is never met. Invariant: rules grow linearly with the digits.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/json_schema_private.h"

#define DIGITS 15                   /* before and behind the point together: DBL_DIG */
#define TEN_14 100000000000000u     /* the least number of DIGITS digits */
#define TEN_15 (10ull * TEN_14)     /* the least one of more */
#define LAST_DIGITS (TEN_15 - 1ull) /* all of them 9 */

/* A bound without its sign: units / 10^decimals. */
struct bound {
    bool given, exclusive;
    double value; /* with its sign */
    uint64_t units;
    int decimals;
    int whole; /* digits before the point, 1 at least; above DIGITS no number reaches it */
};

static int to_decimal(struct weft_schema *c, const char *key, struct bound *b)
{
    char text[40]; /* D.DDDDDDDDDDDDDDe-XXX */
    snprintf(text, sizeof text, "%.*e", DIGITS - 1, fabs(b->value));
    const int exponent = atoi(strchr(text, 'e') + 1);
    b->whole = exponent < 0 ? 1 : exponent + 1;
    b->decimals = DIGITS - 1 - exponent;
    b->units = (uint64_t)(text[0] - '0');
    for (const char *at = text + 2; *at != 'e'; at++)
        b->units = 10 * b->units + (uint64_t)(*at - '0');
    while (b->decimals > 0 && b->units % 10 == 0) {
        b->units /= 10;
        b->decimals--;
    }
    if (b->whole > DIGITS)
        return 0;
    if (strtod(text, NULL) != fabs(b->value) || b->whole + b->decimals > DIGITS)
        return weft_schema_refuse(c, WEFT_EUNSUPPORTED,
                                  "'%s' has more than %d digits, which is supported for type "
                                  "integer alone",
                                  key, DIGITS);
    return 0;
}

/* The tighter one of two bounds; direction: 1 for the lower ones, -1 for the upper ones. */
static int read_bound(struct weft_schema *c, const json_t *schema, const char *key, int direction,
                      bool exclusive, struct bound *b)
{
    const json_t *value = json_object_get(schema, key);
    if (value == NULL)
        return 0;
    if (!json_is_number(value))
        return weft_schema_refuse(c, WEFT_EUSAGE, "'%s' is no number", key);
    const double x = json_number_value(value);
    if (b->given && (direction > 0 ? x < b->value : x > b->value))
        return 0;
    *b = (struct bound){.given = true, .exclusive = exclusive, .value = x};
    return to_decimal(c, key, b);
}

/* What may follow `at` digits, of which the first `whole` stand before the point, so that the
 * number is not below low[0..DIGITS) and not above high, NULL where that is sure. */
static void add_rest(struct weft_str *body, int at, int whole, const char *low, const char *high)
{
    const int left = DIGITS - at;
    if (low != NULL && (int)strspn(low + at, "0") == left)
        low = NULL;
    if (high != NULL && (int)strspn(high + at, "9") == left)
        high = NULL;
    if (left == 0)
        return;
    if (low == NULL && high == NULL) {
        if (at < whole)
            weft_str_addf(body, " [0-9]{%d}", whole - at);
        if (at <= whole && whole < DIGITS)
            weft_str_addf(body, " (\".\" [0-9]{1,%d})?", DIGITS - whole);
        else if (at > whole)
            weft_str_addf(body, " [0-9]{0,%d}", left);
        return;
    }
    char first = low != NULL ? low[at] : '0', last = high != NULL ? high[at] : '9';
    const bool one = low != NULL && high != NULL && first == last;
    const char *between = " (";
    weft_str_adds(body, at == whole ? " (\".\"" : " (");
    if (low != NULL) {
        weft_str_addf(body, " (\"%c\"", first++);
        add_rest(body, at + 1, whole, low, one ? high : NULL);
        between = " | ";
    }
    last = (char)(last - (high != NULL));
    if (first <= last) {
        weft_str_addf(body, "%s[%c-%c]", between, first, last);
        add_rest(body, at + 1, whole, NULL, NULL);
        between = " | ";
    }
    if (high != NULL && !one) {
        weft_str_addf(body, "%s\"%c\"", between, high[at]);
        add_rest(body, at + 1, whole, NULL, high);
    }
    /* all that is left out counts as 0 */
    weft_str_adds(body, at >= whole && low == NULL ? "))?" : "))");
}

/* units of the last of DIGITS digits, `whole` before the point, as the bound has them too. */
static uint64_t scale(const struct bound *b)
{
    uint64_t units = b->units;
    for (int i = b->whole + b->decimals; i < DIGITS; i++)
        units *= 10;
    return units;
}

/* Rule overN: numbers of N digits before the point or more, which all without an upper bound share.
 */
static void add_shared(struct weft_schema *c)
{
    for (int whole = 2; whole <= DIGITS && !c->has_over; whole++) {
        weft_str_addf(&c->out, "over%d ::= [1-9]", whole);
        add_rest(&c->out, 1, whole, NULL, NULL);
        if (whole < DIGITS)
            weft_str_addf(&c->out, " | over%d", whole + 1);
        weft_str_adds(&c->out, "\n");
    }
    c->has_over = true;
}

/* Alternatives for numbers without a sign, one for each number of digits before the point. */
static void add_range(struct weft_schema *c, struct weft_str *body, const struct bound *low,
                      const struct bound *high, const char *sign, size_t *n)
{
    for (int whole = 1; whole <= DIGITS; whole++) {
        uint64_t from = whole == 1 ? 0 : TEN_14, to = LAST_DIGITS;
        char a[24], b[24];
        if (low->given && low->whole == whole && scale(low) + low->exclusive > from)
            from = scale(low) + low->exclusive;
        if (high->given && high->whole == whole)
            to = scale(high) + 1 - high->exclusive; /* + 1: never below 0 */
        else
            to++;
        if ((low->given && low->whole > whole) || (high->given && high->whole < whole) ||
            from >= to)
            continue;
        if (!high->given && whole > 1 && from == TEN_14) {
            add_shared(c);
            weft_str_addf(body, "%s%s over%d", (*n)++ > 0 ? " | " : "", sign, whole);
            return;
        }
        snprintf(a, sizeof a, "%0*" PRIu64, DIGITS, from);
        snprintf(b, sizeof b, "%0*" PRIu64, DIGITS, to - 1);
        weft_str_addf(body, "%s%s", (*n)++ > 0 ? " | " : "", sign);
        add_rest(body, 0, whole, a, b);
    }
}

int weft_schema_decimal(struct weft_schema *c, const json_t *schema, struct weft_str *body)
{
    const struct bound zero = {.given = true, .whole = 1};
    struct bound low = {0}, high = {0}, above_zero = zero;
    size_t n = 0;
    int r = read_bound(c, schema, "minimum", 1, false, &low);
    if (r == 0)
        r = read_bound(c, schema, "exclusiveMinimum", 1, true, &low);
    if (r == 0)
        r = read_bound(c, schema, "maximum", -1, false, &high);
    if (r == 0)
        r = read_bound(c, schema, "exclusiveMaximum", -1, true, &high);
    if (r < 0)
        return r;
    if (!low.given && !high.given) {
        weft_str_adds(body, "number");
        return 0;
    }
    above_zero.exclusive = true; /* no -0 */
    if (!low.given || low.value < 0)
        add_range(c, body, high.given && high.value < 0 ? &high : &above_zero, &low, "\"-\"", &n);
    if (!high.given || high.value >= 0)
        add_range(c, body, low.given && low.value >= 0 ? &low : &zero, &high, "", &n);
    if (n == 0)
        return weft_schema_refuse(c, WEFT_EUNSUPPORTED,
                                  "no number of at most %d digits is within the bounds", DIGITS);
    return 0;
}
