/*
 * Text for people: see text.h. Pure functions, any thread.
 *
 * Invariant: no function writes past the size it was given, whatever the text holds.
 */
#include "base/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Longer words are no typing errors of ours. */
#define NEAR_MISS_LENGTH_MAX 63

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* ---- numbers in ---- */

/* Reads decimal digits at *text; false on overflow or when there are none. */
static bool read_digits(const char **text, uint64_t *ret)
{
    const char *p = *text;
    uint64_t value = 0;
    for (; is_digit(*p); p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    if (p == *text)
        return false;
    *text = p;
    *ret = value;
    return true;
}

struct unit {
    const char *name;
    uint64_t bytes;
};

static const struct unit units[] = {
    {"", 1},
    {"B", 1},
    {"KiB", 1ull << 10},
    {"MiB", 1ull << 20},
    {"GiB", 1ull << 30},
    {"TiB", 1ull << 40},
    {"k", 1000},
    {"kB", 1000},
    {"K", 1000},
    {"KB", 1000},
    {"M", 1000000},
    {"MB", 1000000},
    {"G", 1000000000},
    {"GB", 1000000000},
    {"T", 1000000000000},
    {"TB", 1000000000000},
};

static int fail_size(weft_err *err, const char *text, const char *unit)
{
    static const char *const proper[] = {"B",  "KiB", "MiB", "GiB", "TiB",
                                         "kB", "MB",  "GB",  "TB",  NULL};
    char quoted[WEFT_QUOTE_SIZE];
    weft_quote(quoted, sizeof quoted, text, strlen(text));
    const char *near = unit != NULL ? weft_near_miss(unit, proper) : NULL;
    if (near != NULL)
        return weft_fail(err, WEFT_ECONFIG,
                         "found %s, expected a size such as 512MiB or 6GiB, did you mean '%.*s%s'?",
                         quoted, (int)(strlen(text) - strlen(unit)), text, near);
    return weft_fail(err, WEFT_ECONFIG, "found %s, expected a size such as 512MiB or 6GiB", quoted);
}

/* floor(0.digits * unit). From the last digit to the first, since floor((floor(x) + i) / 10) is
 * floor((x + i) / 10) for a whole i: exact for any number of digits. */
static uint64_t scale_fraction(const char *digits, size_t n, uint64_t unit)
{
    uint64_t sum = 0;
    while (n > 0)
        sum = (sum + (uint64_t)(digits[--n] - '0') * unit) / 10;
    return sum;
}

int weft_parse_size(const char *text, uint64_t *ret_bytes, weft_err *err)
{
    const char *p = text, *fraction = NULL;
    size_t fraction_size = 0;
    uint64_t whole;
    if (!is_digit(*p))
        return fail_size(err, text, NULL);
    if (!read_digits(&p, &whole))
        goto overflow;
    if (*p == '.') {
        fraction = ++p;
        while (is_digit(*p))
            p++;
        fraction_size = (size_t)(p - fraction);
        if (fraction_size == 0)
            return fail_size(err, text, NULL);
    }
    while (*p == ' ')
        p++;
    const struct unit *unit = NULL;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strcmp(p, units[i].name) == 0)
            unit = &units[i];
    if (unit == NULL || (fraction_size > 0 && unit->bytes == 1))
        return fail_size(err, text, unit == NULL ? p : NULL);
    uint64_t part = scale_fraction(fraction, fraction_size, unit->bytes);
    if (whole > (UINT64_MAX - part) / unit->bytes)
        goto overflow;
    *ret_bytes = whole * unit->bytes + part;
    return 0;

overflow:;
    char quoted[WEFT_QUOTE_SIZE];
    return weft_fail(err, WEFT_ECONFIG, "found %s, expected at most 16777215TiB",
                     weft_quote(quoted, sizeof quoted, text, strlen(text)));
}

int weft_parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret, weft_err *err)
{
    char quoted[WEFT_QUOTE_SIZE], range[64] = "";
    if (max != UINT64_MAX)
        snprintf(range, sizeof range, "%llu..%llu", (unsigned long long)min,
                 (unsigned long long)max);
    else if (min != 0)
        snprintf(range, sizeof range, "at least %llu", (unsigned long long)min);
    const char *p = text;
    while (is_digit(*p))
        p++;
    if (p == text || *p != '\0')
        return weft_fail(err, WEFT_ECONFIG, "found %s, expected a whole number%s%s",
                         weft_quote(quoted, sizeof quoted, text, strlen(text)),
                         range[0] != '\0' ? ", " : "", range);
    uint64_t value;
    p = text;
    if (!read_digits(&p, &value) || value < min || value > max) {
        if (range[0] == '\0')
            snprintf(range, sizeof range, "at most %llu", (unsigned long long)max);
        return weft_fail(err, WEFT_ECONFIG, "found %.40s%s, expected %s", text,
                         strlen(text) > 40 ? "…" : "", range);
    }
    *ret = value;
    return 0;
}

/* "a..b", "at least a", "at most b" or nothing; infinite bounds are none. */
static void format_range(char *buf, size_t n, double min, double max)
{
    if (isfinite(min) && isfinite(max))
        snprintf(buf, n, "%.10g..%.10g", min, max);
    else if (isfinite(min))
        snprintf(buf, n, "at least %.10g", min);
    else if (isfinite(max))
        snprintf(buf, n, "at most %.10g", max);
    else
        buf[0] = '\0';
}

int weft_parse_double(const char *text, double min, double max, double *ret, weft_err *err)
{
    char quoted[WEFT_QUOTE_SIZE], range[64];
    weft_quote(quoted, sizeof quoted, text, strlen(text));
    format_range(range, sizeof range, min, max);
    /* strtod also takes spaces, hexadecimal, "inf" and "nan"; we do not. */
    const char *digits = text[0] == '-' ? text + 1 : text;
    bool plain = is_digit(digits[0]) || (digits[0] == '.' && is_digit(digits[1]));
    plain = plain && text[strspn(text, "0123456789+-.eE")] == '\0';
    char *end = NULL;
    double value = plain ? strtod(text, &end) : 0;
    if (!plain || *end != '\0' || !isfinite(value))
        return weft_fail(err, WEFT_ECONFIG, "found %s, expected a number%s%s", quoted,
                         range[0] != '\0' ? ", " : "", range);
    if (value < min || value > max)
        return weft_fail(err, WEFT_ECONFIG, "found %.40s, expected %s", text, range);
    *ret = value;
    return 0;
}

/* ---- numbers out ---- */

char *weft_format_size(char *buf, size_t n, uint64_t bytes)
{
    static const char *const names[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        snprintf(buf, n, "%u B", (unsigned)bytes);
        return buf;
    }
    size_t i = 0;
    uint64_t unit = 1024;
    while (bytes / unit >= 1024) {
        unit *= 1024;
        i++;
    }
    double value = (double)bytes / (double)unit;
    if (value > 1023) /* 1023.7 MiB is not 1024 MiB */
        value = 1023;
    int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    snprintf(buf, n, "%.*f %s", decimals, value, names[i]);
    return buf;
}

char *weft_format_duration(char *buf, size_t n, uint64_t ns)
{
    static const struct {
        const char *name;
        double ns, end;  /* the next unit takes over from `end` of this one */
        double fraction; /* below it one decimal is shown */
    } steps[] = {
        {"ns", 1, 999.5, 0},           {"µs", 1e3, 999.5, 99.95}, {"ms", 1e6, 999.5, 99.95},
        {"s", 1e9, 59.95, 99.95},      {"min", 60e9, 59.5, 9.95}, {"h", 3600e9, 47.5, 9.95},
        {"d", 24 * 3600e9, 1e9, 9.95},
    };
    size_t i = 0;
    while (i + 1 < sizeof steps / sizeof steps[0] && (double)ns / steps[i].ns >= steps[i].end)
        i++;
    double value = (double)ns / steps[i].ns;
    snprintf(buf, n, "%.*f %s", value < steps[i].fraction ? 1 : 0, value, steps[i].name);
    return buf;
}

/* ---- near misses ---- */

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

static unsigned min_u(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Optimal string alignment: Levenshtein and swaps of neighbours (Damerau 1964), three rows of the
 * table at a time. Both words at most NEAR_MISS_LENGTH_MAX long. */
static unsigned distance(const char *a, size_t n_a, const char *b, size_t n_b)
{
    unsigned rows[3][NEAR_MISS_LENGTH_MAX + 1];
    unsigned *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= n_b; j++)
        last[j] = (unsigned)j;
    for (size_t i = 1; i <= n_a; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= n_b; j++) {
            char x = lower(a[i - 1]), y = lower(b[j - 1]);
            row[j] = min_u(min_u(last[j], row[j - 1]) + 1, last[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == lower(b[j - 2]) && y == lower(a[i - 2]))
                row[j] = min_u(row[j], before[j - 2] + 1);
        }
        unsigned *free_row = before;
        before = last;
        last = row;
        row = free_row;
    }
    return last[n_b];
}

const char *weft_near_miss(const char *word, const char *const *candidates)
{
    size_t length = strlen(word);
    if (length == 0 || length > NEAR_MISS_LENGTH_MAX)
        return NULL;
    size_t limit = length / 3 > 1 ? length / 3 : 1;
    const char *best = NULL;
    size_t best_distance = limit < length ? limit + 1 : length;
    for (; *candidates != NULL; candidates++) {
        size_t n = strlen(*candidates);
        if (n > NEAR_MISS_LENGTH_MAX)
            continue;
        unsigned d = distance(word, length, *candidates, n);
        if (d < best_distance) {
            best = *candidates;
            best_distance = d;
        }
    }
    return best;
}

/* ---- UTF-8 ---- */

size_t weft_utf8_decode(const char *s, size_t n, uint32_t *ret_code)
{
    if (n == 0)
        return 0;
    const unsigned char *p = (const unsigned char *)s;
    size_t length;
    uint32_t code, least; /* least: the first code that needs so many bytes */
    if (p[0] < 0x80) {
        *ret_code = p[0];
        return 1;
    } else if ((p[0] & 0xE0) == 0xC0) {
        length = 2, code = p[0] & 0x1Fu, least = 0x80;
    } else if ((p[0] & 0xF0) == 0xE0) {
        length = 3, code = p[0] & 0x0Fu, least = 0x800;
    } else if ((p[0] & 0xF8) == 0xF0) {
        length = 4, code = p[0] & 0x07u, least = 0x10000;
    } else {
        return 0;
    }
    if (n < length)
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3Fu);
    }
    if (code < least || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        return 0;
    *ret_code = code;
    return length;
}

size_t weft_utf8_prefix(const char *s, size_t n)
{
    size_t at = 0, step;
    uint32_t code;
    while (at < n && (step = weft_utf8_decode(s + at, n - at, &code)) != 0)
        at += step;
    return at;
}

bool weft_utf8_valid(const char *s, size_t n, size_t *ret_offset)
{
    size_t at = weft_utf8_prefix(s, n);
    if (at == n)
        return true;
    if (ret_offset != NULL)
        *ret_offset = at;
    return false;
}

size_t weft_text_columns(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

bool weft_code_printable(uint32_t code)
{
    return !(code < 0x20 || (code >= 0x7F && code < 0xA0) ||       /* C0, DEL, C1 */
             code == 0x061C || code == 0x200E || code == 0x200F || /* direction marks */
             (code >= 0x2028 && code <= 0x202E) ||                 /* separators, embeddings */
             (code >= 0x2066 && code <= 0x2069) ||                 /* isolates */
             code == 0xFEFF);
}

char *weft_quote(char *buf, size_t n, const char *s, size_t size)
{
    static const char ellipsis[] = "…";
    size_t used = 0, at = 0;
    buf[used++] = '\'';
    size_t cut = used; /* the last place where the ellipsis, the quote and the 0 fit */
    while (at < size) {
        uint32_t code;
        size_t step = weft_utf8_decode(s + at, size - at, &code);
        bool plain = step != 0 && weft_code_printable(code);
        size_t width = plain ? step : 1;
        if (used + width + 2 > n) {
            memcpy(buf + cut, ellipsis, sizeof ellipsis - 1);
            used = cut + sizeof ellipsis - 1;
            break;
        }
        if (plain)
            memcpy(buf + used, s + at, step);
        else
            buf[used] = '?';
        used += width;
        at += step != 0 ? step : 1;
        if (used + sizeof ellipsis - 1 + 2 <= n)
            cut = used;
    }
    buf[used++] = '\'';
    buf[used] = '\0';
    return buf;
}

/* ---- growing strings ---- */

void weft_str_done(struct weft_str *s)
{
    if (s == NULL)
        return;
    free(s->data);
    *s = (struct weft_str){0};
}

void weft_str_clear(struct weft_str *s)
{
    s->size = 0;
    s->failed = false;
    if (s->data != NULL)
        s->data[0] = '\0';
}

/* Room for n more bytes and the 0. */
static bool reserve(struct weft_str *s, size_t n)
{
    if (s->failed)
        return false; /* no holes: what comes after a cut is dropped */
    if (n < s->capacity - s->size)
        return true;
    size_t capacity = s->capacity > 0 ? s->capacity : 64;
    while (capacity - s->size <= n && capacity <= SIZE_MAX / 2)
        capacity *= 2;
    char *data = capacity - s->size > n ? realloc(s->data, capacity) : NULL;
    if (data == NULL) {
        s->failed = true;
        return false;
    }
    s->data = data;
    s->capacity = capacity;
    return true;
}

void weft_str_add(struct weft_str *s, const char *data, size_t n)
{
    if (!reserve(s, n))
        return;
    if (n > 0)
        memcpy(s->data + s->size, data, n);
    s->size += n;
    s->data[s->size] = '\0';
}

void weft_str_adds(struct weft_str *s, const char *text)
{
    weft_str_add(s, text, strlen(text));
}

void weft_str_addf(struct weft_str *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0) {
        s->failed = true;
        return;
    }
    if (!reserve(s, (size_t)n))
        return;
    va_start(args, fmt);
    vsnprintf(s->data + s->size, (size_t)n + 1, fmt, args);
    va_end(args);
    s->size += (size_t)n;
}

size_t weft_json_step(const char *text, size_t n, char out[WEFT_JSON_STEP_MAX], size_t *ret_size)
{
    static const char replacement[] = "\xEF\xBF\xBD", hex[] = "0123456789abcdef";
    static const char *const shorts = "\"\\\n\r\t", *const letters = "\"\\nrt";
    uint32_t code;
    size_t step = weft_utf8_decode(text, n, &code);
    const char *known = step == 1 && code != 0 ? strchr(shorts, (int)code) : NULL;
    if (step == 0) {
        memcpy(out, replacement, sizeof replacement - 1);
        *ret_size = sizeof replacement - 1;
        step = 1;
    } else if (known != NULL) {
        out[0] = '\\';
        out[1] = letters[known - shorts];
        *ret_size = 2;
    } else if (!weft_code_printable(code)) { /* all of these are below U+10000 */
        const char escape[6] = {
            '\\',          'u', hex[code >> 12 & 15], hex[code >> 8 & 15], hex[code >> 4 & 15],
            hex[code & 15]};
        memcpy(out, escape, sizeof escape);
        *ret_size = sizeof escape;
    } else {
        memcpy(out, text, step);
        *ret_size = step;
    }
    return step;
}

void weft_str_add_json(struct weft_str *s, const char *text, size_t n)
{
    char out[WEFT_JSON_STEP_MAX];
    weft_str_add(s, "\"", 1);
    for (size_t at = 0, size; at < n;) {
        at += weft_json_step(text + at, n - at, out, &size);
        weft_str_add(s, out, size);
    }
    weft_str_add(s, "\"", 1);
}
