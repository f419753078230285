/*
 * Values of the Jinja interpreter: what expressions give, and text that knows where it came from.
 *
 * Invariant: text is valid UTF-8, and each byte of it is either trusted (the template's own
 * literals, BOS and EOS, names of roles) or not (whatever came out of messages, tools and other
 * variables). Joining and cutting keep this byte for byte; what computes new text out of several is
 * trusted only if all of them were. Values are immutable but for namespaces and for how far a
 * generator has been read. All memory is of the run's arena.
 */
#ifndef WEFT_COORDINATOR_JINJA_VALUE_H
#define WEFT_COORDINATOR_JINJA_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct jinja_run;
struct jinja_node;
struct jinja_scope;
struct jinja_loop;

enum jinja_kind {
    JINJA_UNDEFINED, /* also the zeroed value */
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_RANGE,     /* a list with another name */
    JINJA_VIEW,      /* dict.items(), keys(), values(): has a length but no elements by number */
    JINJA_GENERATOR, /* what map, select and the like give: read once, from first to last */
    JINJA_DICT,
    JINJA_NAMESPACE, /* a dict whose members may be set */
    JINJA_LOOP,
    JINJA_MACRO,
    JINJA_METHOD,   /* of a value: text.strip */
    JINJA_FUNCTION, /* range */
    JINJA_KIND_COUNT
};

struct jinja_string;
struct jinja_list;
struct jinja_dict;
struct jinja_macro;
struct jinja_method;
struct jinja_builtin;
struct jinja_missing;

struct jinja_value {
    enum jinja_kind kind;
    bool trusted; /* numbers, true and false: their text would be */
    union {
        bool truth;
        int64_t number;
        double real;
        const struct jinja_string *string;
        struct jinja_list *list; /* LIST to GENERATOR */
        struct jinja_dict *dict; /* DICT, NAMESPACE */
        struct jinja_loop *loop;
        const struct jinja_macro *macro;
        const struct jinja_method *method;
        const struct jinja_builtin *function;
        const struct jinja_missing *missing; /* UNDEFINED; may be NULL */
    };
};

/* Text that is being joined. A string whose end is the buffer's end grows in place. */
struct jinja_buffer {
    char *text;
    uint8_t *marks; /* [room] 1: trusted; NULL while all bytes are as `trusted` says */
    size_t used, room;
    bool trusted;
};

struct jinja_string {
    const char *text; /* not 0-terminated */
    size_t size;
    const uint8_t *marks; /* [size]; NULL: all as `trusted` says */
    bool trusted;
    bool safe; /* for HTML, by the filters safe and escape: '+' escapes what is joined with it */
    struct jinja_buffer *home; /* text lies in it; NULL: in nothing that grows */
};

struct jinja_list {
    struct jinja_value *items; /* [n] */
    size_t n, taken;           /* taken: of a generator */
    const char *type;          /* "list", "dict_items" */
};

/* Type of groupby's pairs: tuples whose items are called grouper and list too. */
extern const char jinja_group_type[];

struct jinja_pair {
    struct jinja_value key, value;
};

struct jinja_dict {
    struct jinja_pair *pairs; /* [n] in the order they were added */
    size_t n, room;
    uint32_t *order; /* [n] indices by key when there are many; NULL: not made yet */
};

/* Why there is no value; for the error when it is used. */
struct jinja_missing {
    enum { MISSING_NAME, MISSING_MEMBER, MISSING_ELEMENT, MISSING_UNSAFE, MISSING_TEXT } why;
    const char *owner; /* "dict object" */
    const char *name;
    size_t name_size;
};

struct jinja_macro {
    const struct jinja_node *node; /* MACRO or CALL_BLOCK */
    struct jinja_scope *scope;     /* where it was defined */
};

struct jinja_keyword {
    const char *name;
    size_t size;
    struct jinja_value value;
};

struct jinja_args {
    const struct jinja_value *list; /* [n] */
    size_t n;
    const struct jinja_keyword *named; /* [n_named] */
    size_t n_named;
};

typedef int jinja_call_fn(struct jinja_run *run, const struct jinja_value *self,
                          const struct jinja_args *args, struct jinja_value *ret);

/* A function, filter, test or method that is built in. */
struct jinja_builtin {
    const char *name;
    jinja_call_fn *call; /* NULL: known to Jinja or Python, but not supported here */
};

struct jinja_method {
    struct jinja_value self;
    const struct jinja_builtin *what;
};

/* ------------------------------------------------------------------ making */

static inline struct jinja_value jinja_none(void)
{
    return (struct jinja_value){.kind = JINJA_NONE, .trusted = true};
}
static inline struct jinja_value jinja_bool(bool truth)
{
    return (struct jinja_value){.kind = JINJA_BOOL, .trusted = true, .truth = truth};
}
static inline struct jinja_value jinja_int(int64_t number, bool trusted)
{
    return (struct jinja_value){.kind = JINJA_INT, .trusted = trusted, .number = number};
}
static inline struct jinja_value jinja_float(double real, bool trusted)
{
    return (struct jinja_value){.kind = JINJA_FLOAT, .trusted = trusted, .real = real};
}

/* All of them -WEFT_ENOMEM or -WEFT_EUNSUPPORTED over a limit, with run->err set. */
int jinja_text(struct jinja_run *run, const char *text, size_t size, bool trusted,
               struct jinja_value *ret) WEFT_MUST_USE; /* borrows text for the run */
/* Part of s, with its marks. */
int jinja_cut(struct jinja_run *run, const struct jinja_string *s, size_t start, size_t size,
              struct jinja_value *ret) WEFT_MUST_USE;
int jinja_list_new(struct jinja_run *run, enum jinja_kind kind, size_t n,
                   struct jinja_value *ret) WEFT_MUST_USE; /* n undefined items */
int jinja_dict_new(struct jinja_run *run, enum jinja_kind kind, size_t room,
                   struct jinja_value *ret) WEFT_MUST_USE;
int jinja_missing(struct jinja_run *run, int why, const char *owner, const char *name,
                  size_t name_size, struct jinja_value *ret) WEFT_MUST_USE;

/* ------------------------------------------------------------------ text */

/* Appends bytes; marks NULL: all as trusted says. */
int jinja_buffer_add(struct jinja_run *run, struct jinja_buffer *b, const char *text, size_t size,
                     const uint8_t *marks, bool trusted) WEFT_MUST_USE;
int jinja_buffer_string(struct jinja_run *run, struct jinja_buffer *b,
                        const struct jinja_string *s) WEFT_MUST_USE;
/* The buffer's text so far as a value; b must live in the arena as long. */
int jinja_buffer_value(struct jinja_run *run, struct jinja_buffer *b,
                       struct jinja_value *ret) WEFT_MUST_USE;
struct jinja_buffer *jinja_buffer_new(struct jinja_run *run); /* NULL: run->err is set */
int jinja_concat(struct jinja_run *run, const struct jinja_string *a, const struct jinja_string *b,
                 struct jinja_value *ret) WEFT_MUST_USE;
/* True if every byte is trusted. */
bool jinja_string_trusted(const struct jinja_string *s);
bool jinja_string_is(const struct jinja_value *v, const char *text);
/* Characters of s, and the byte where character i starts (size when there are not so many). */
size_t jinja_string_length(const struct jinja_string *s);
size_t jinja_string_offset(const struct jinja_string *s, size_t i);
/* First place of needle at or after `from`, SIZE_MAX: none. The last one before `end`. */
size_t jinja_find(const struct jinja_string *s, const char *needle, size_t size, size_t from);
size_t jinja_find_last(const struct jinja_string *s, const char *needle, size_t size, size_t end);
/* Writes code as UTF-8, at most 4 bytes; returns how many. */
size_t jinja_encode(uint32_t code, char *out);
/* White space as Python's str.isspace has it. */
bool jinja_code_space(uint32_t code);

/* ------------------------------------------------------------------ asking */

bool jinja_is_sequence(const struct jinja_value *v); /* LIST to GENERATOR */
bool jinja_is_number(const struct jinja_value *v);   /* with true and false, as in Python */
double jinja_real(const struct jinja_value *v);      /* of a number */
int64_t jinja_whole(const struct jinja_value *v);    /* of BOOL, INT */
bool jinja_truth(const struct jinja_value *v);
/* "str", "list", "NoneType", as Python's messages call types. */
const char *jinja_type(const struct jinja_value *v);
/* As Jinja's messages about members do: "dict object", "None". */
const char *jinja_owner(const struct jinja_value *v);
/* Deep comparison, bounded by the run's steps and depth. */
int jinja_equal(struct jinja_run *run, const struct jinja_value *a, const struct jinja_value *b,
                bool *ret) WEFT_MUST_USE;
/* *ret is below, 0 or above 0; an error for what has no order. `sign` is for its text: "<". */
int jinja_order(struct jinja_run *run, const struct jinja_value *a, const struct jinja_value *b,
                const char *sign, int *ret) WEFT_MUST_USE;

/* By bytes, which is by code points. */
int jinja_compare_bytes(const struct jinja_string *a, const struct jinja_string *b);

/* NULL when there is none. */
int jinja_dict_find(struct jinja_run *run, struct jinja_dict *d, const struct jinja_value *key,
                    struct jinja_pair **ret) WEFT_MUST_USE;
int jinja_dict_named(struct jinja_run *run, struct jinja_dict *d, const char *name, size_t size,
                     struct jinja_pair **ret) WEFT_MUST_USE;
/* Sets or adds; an error for keys that Python cannot hash. */
int jinja_dict_set(struct jinja_run *run, struct jinja_dict *d, const struct jinja_value *key,
                   const struct jinja_value *value) WEFT_MUST_USE;

/* The items of what can be iterated: elements, keys of a dict, characters. Reads a generator to its
 * end. Gives items that must not be written to. */
int jinja_items(struct jinja_run *run, const struct jinja_value *v, const struct jinja_value **ret,
                size_t *ret_n) WEFT_MUST_USE;

#endif
