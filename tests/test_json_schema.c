/*
 * JSON schemas as grammars: documents that are taken and refused, errors, and random walks through
 * grammars, whose texts must be JSON (jansson) that the schema allows (a validator of our own).
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/grammar.h"
#include "base/text.h"
#include "coordinator/json_schema.h"
#include "tests/harness.h"
#include "tests/json_check.h"

static struct weft_grammar *open_schema(const char *schema)
{
    struct weft_str gbnf = {0};
    struct weft_grammar *g = NULL;
    weft_err err = {0};
    int r = weft_json_schema_to_gbnf(schema, strlen(schema), &gbnf, &err);
    ck_assert_msg(r == 0, "%s: %s", schema, err.text);
    ck_assert_int_eq(weft_grammar_open(gbnf.data, gbnf.size, &g, &err), 0);
    weft_str_done(&gbnf);
    return g;
}

/* ---- documents ---- */

#define TEXTS_MAX 10
static const struct {
    const char *schema;
    const char *valid[TEXTS_MAX], *invalid[TEXTS_MAX];
} documents[] = {
    {"{}",
     {"1", "\"\"", "null", "[1, {\"a\":[]}]", "{\"a\": 1e5,\n  \"b\":-0.5}",
      "\"\\u00e9\\n\xC3\xA9\""},
     {"", "[1", "01", "1.", "[  1]", "\"\n\"", "\"\\ud800\"", "nul", "1 ", "[1 ,2]"}},
    {"true", {"1"}, {"x"}},
    {"{\"type\":\"boolean\"}", {"true", "false"}, {"null", "1", "tru"}},
    {"{\"type\":[\"null\",\"integer\"],\"title\":\"t\"}", {"null", "-3", "0"}, {"1.5", "-", "00"}},
    {"{\"type\":\"number\"}", {"-1.5e-3", "7"}, {"+1", ".5", "1e999", "\"\""}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"},"
     "\"c\":{\"type\":\"null\"}},\"required\":[\"b\"]}",
     {"{\"b\":null}", "{\"a\":null,\"b\":null}", "{\"b\":null, \"c\": null}",
      "{ \"a\":null,\"b\":null,\"c\":null }"},
     {"{}", "{\"a\":null}", "{\"b\":null,\"a\":null}", "{\"b\":null,}", "{,\"b\":null}",
      "{\"b\":null,\"d\":1}", "{\"b\":null \"c\":null}"}},
    {"{\"properties\":{\"a\":{},\"b\":{}}}",
     {"{}", "{\"b\":1}", "{\"a\":1,\"b\":2}"},
     {"1", "{\"c\":1}"}},
    {"{\"type\":\"object\"}", {"{}", "{\"x\":[1]}"}, {"[]"}},
    {"{\"type\":\"object\",\"additionalProperties\":false}", {"{}", "{ }"}, {"{\"a\":1}"}},
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"null\"}}",
     {"{}", "{\"x\":null}", "{\"\":null,\"y\":null}"},
     {"{\"x\":1}"}},
    {"{\"properties\":{\"ab\":{\"type\":\"null\"},\"abc\":{\"type\":\"null\"},\"q\\\"\":{}},"
     "\"additionalProperties\":{\"type\":\"integer\"}}",
     {"{\"ab\":null,\"abc\":null}", "{\"ab\":null,\"x\":1}", "{\"a\":1,\"abcd\":2,\"\":3}",
      "{\"q\\\"\":0,\"b\":1,\"abd\":2}"},
     {"{\"ab\":1}", "{\"x\":1,\"ab\":null}", "{\"abc\":1}", "{\"a\":null}", "{\"\\u0061b\":1}"}},
    {"{\"required\":[\"z\"],\"properties\":{\"a\":{}},\"additionalProperties\":true}",
     {"{\"z\":1}", "{\"a\":1,\"z\":2}", "{\"z\":1,\"y\":2}"},
     {"{}", "{\"a\":1}", "{\"z\":1,\"a\":2}"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"null\"}}",
     {"[]", "[null]", "[ null, null ]"},
     {"[1]", "[null,]"}},
    {"{\"items\":{\"type\":\"null\"},\"minItems\":2,\"maxItems\":3,\"uniqueItems\":false}",
     {"[null,null]", "[null,null,null]"},
     {"[]", "[null]", "[null,null,null,null]"}},
    {"{\"type\":\"array\",\"maxItems\":0}", {"[]"}, {"[1]"}},
    {"{\"type\":\"array\",\"minItems\":1}", {"[1,\"a\"]"}, {"[]"}},
    {"{\"prefixItems\":[{\"type\":\"null\"},{\"type\":\"boolean\"}]}",
     {"[]", "[null]", "[null, true]"},
     {"[true]", "[null,true,1]"}},
    {"{\"prefixItems\":[{\"type\":\"null\"}],\"items\":{\"type\":\"boolean\"},\"minItems\":1,"
     "\"maxItems\":3}",
     {"[null]", "[null,true]", "[null,true,false]"},
     {"[]", "[null,null]", "[null,true,true,true]"}},
    {"{\"prefixItems\":[{\"type\":\"null\"}],\"minItems\":2}", {"[null,1]"}, {"[null]"}},
    {"{\"prefixItems\":[{\"type\":\"null\"},{}],\"maxItems\":1}", {"[]", "[null]"}, {"[null,1]"}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"\xC3\xA9\xE2\x82\xAC\\n\""},
     {"\"a\"", "\"abcd\""}},
    {"{\"maxLength\":2147483647}", {"\"\"", "\"abc\""}, {"1"}},
    {"{\"format\":\"date\"}",
     {"\"2024-02-29\"", "\"2000-02-29\"", "\"1999-12-31\"", "\"2023-04-30\""},
     {"\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\"", "\"2023-13-01\"", "\"2023-1-1\""}},
    {"{\"type\":\"string\",\"format\":\"date-time\"}",
     {"\"2024-01-01T23:59:59Z\"", "\"2024-01-01T00:00:00.5+02:00\""},
     {"\"2024-01-01\"", "\"2024-01-01T24:00:00Z\"", "\"2024-01-01T00:00:00\""}},
    {"{\"format\":\"time\"}", {"\"10:20:30Z\""}, {"\"10:20\""}},
    {"{\"format\":\"uuid\"}", {"\"01234567-89ab-cdef-0123-456789ABCDEF\""}, {"\"0123\""}},
    {"{\"pattern\":\"^[a-c]+\\\\d{2}$\"}", {"\"abc12\""}, {"\"12\"", "\"abc1\"", "\"xabc12\""}},
    {"{\"pattern\":\"b|^c\"}", {"\"abc\"", "\"b\"", "\"cx\""}, {"\"a\"", "\"ac\"", "\"\""}},
    {"{\"pattern\":\"^(?:x(y|z)*?){1,2}$\"}", {"\"x\"", "\"xyzx\""}, {"\"xxx\"", "\"y\""}},
    {"{\"pattern\":\"^[^a-z\\\\d]{2,}$\"}",
     {"\"AB\"", "\"\\n\\\"\"", "\"\xC3\xA9_\""},
     {"\"Aa\"", "\"A\"", "\"A1\"", "\"A\nA\""}},
    {"{\"pattern\":\"^.\\\\.\\\\x41\\\\u20ac\\\\\\\\/\\\\s\\\\W$\"}",
     {"\"a.A\xE2\x82\xAC\\\\/ -\"", "\"\xF0\x9F\x98\x80.A\xE2\x82\xAC\\\\/\\t-\""},
     {"\"aaA\xE2\x82\xAC\\\\/ -\"", "\"\\n.A\xE2\x82\xAC\\\\/ -\"", "\"a.A\xE2\x82\xAC\\\\/ a\""}},
    {"{\"enum\":[1,\"a\\\"b\",null,{\"x\":[0.1]},2.5]}",
     {"1", "\"a\\\"b\"", "null", "{\"x\":[0.1]}", "2.5"},
     {"2", "{}", "\"a\""}},
    {"{\"type\":\"string\",\"enum\":[1,\"a\",null]}", {"\"a\""}, {"1", "null"}},
    {"{\"const\":{\"a\":[true]}}", {"{\"a\":[true]}"}, {"{\"a\": [true]}", "{}"}},
    {"{\"type\":\"integer\",\"minimum\":-12,\"maximum\":305}",
     {"-12", "-9", "-1", "0", "7", "99", "100", "299", "305"},
     {"-13", "306", "-20", "400", "-0", "00", "1000", "05"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":9,\"exclusiveMaximum\":11}", {"10"}, {"9", "11"}},
    {"{\"type\":\"integer\",\"minimum\":1.5}", {"2", "10", "999999999999999999"}, {"1", "0", "-2"}},
    {"{\"type\":\"integer\",\"maximum\":-100}", {"-100", "-1000", "-101"}, {"-99", "0", "100"}},
    {"{\"minimum\":1,\"maximum\":1}", {"1"}, {"2", "11"}},
    {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
     {"0", "1", "0.0", "1.000", "0.5", "0.99999999999999"},
     {"-0", "1.001", "-0.5", "2", "10", "0.", "00", "1e-3", "01", "0.999999999999999"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":1}",
     {"0.1", "0.00000000000001", "0.99999999999999"},
     {"0", "1", "0.0", "0.00", "1.0", "0.00000000000000", "-0.1", "0."}},
    {"{\"type\":\"number\",\"minimum\":-12.25,\"exclusiveMaximum\":100.5}",
     {"-12.25", "-12.250", "-12.24999", "-9.9", "0", "9.75", "100.49", "100", "99.9"},
     {"-12.26", "-12.2500001", "-13", "-100", "100.5", "100.50", "101", "1000"}},
    {"{\"type\":\"number\",\"maximum\":-1e-3,\"minimum\":-1e300}",
     {"-0.001", "-0.0010", "-1", "-999999999999999"},
     {"-0", "0", "-0.0009", "-0.00", "1", "-1000000000000000"}},
    {"{\"type\":\"number\",\"minimum\":5,\"exclusiveMinimum\":5,\"maximum\":5.5}",
     {"5.1", "5.5"},
     {"5", "5.0", "5.51", "6"}},
    {"{\"type\":\"integer\",\"allOf\":[{\"minimum\":9007199254740992},{\"minimum\":"
     "9007199254740993}]}",
     {"9007199254740993"},
     {"9007199254740992"}},
    {"{\"minimum\":0.5}", {"0.5", "1", "12345678901234.5"}, {"0.4", "-1", "12345678901234.56"}},
    {"{\"anyOf\":[{\"type\":\"null\"},{\"const\":1}]}", {"null", "1"}, {"2"}},
    {"{\"type\":\"object\",\"properties\":{\"k\":{}},\"required\":[\"k\"],\"oneOf\":[{"
     "\"properties\":"
     "{\"a\":{\"const\":1}}},{\"properties\":{\"b\":{\"const\":2}},\"required\":[\"b\"]}]}",
     {"{\"k\":0}", "{\"k\":0,\"a\":1}", "{\"k\":0,\"b\":2}"},
     {"{\"a\":1}", "{\"k\":0,\"a\":1,\"b\":2}"}},
    {"{\"allOf\":[{\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"]},{"
     "\"properties\":"
     "{\"b\":{\"const\":2},\"a\":{\"minimum\":5}}}],\"required\":[\"b\"]}",
     {"{\"a\":5,\"b\":2}"},
     {"{\"a\":4,\"b\":2}", "{\"a\":5}", "{\"b\":2}"}},
    {"{\"allOf\":[{\"type\":[\"number\",\"string\"]},{\"type\":[\"integer\",\"null\"]}]}",
     {"1"},
     {"1.5", "null", "\"\""}},
    {"{\"allOf\":[{\"enum\":[1,2,3]},{\"enum\":[2,3,4]}]}", {"2", "3"}, {"1", "4"}},
    {"{\"$ref\":\"#/$defs/tree\",\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":{"
     "\"type\":\"integer\"},\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/tree\"}}},"
     "\"required\":[\"v\"]}}}",
     {"{\"v\":1}", "{\"v\":1,\"kids\":[{\"v\":2,\"kids\":[]},{\"v\":3}]}"},
     {"{}", "{\"v\":1,\"kids\":[{}]}", "{\"v\":1,\"kids\":[1]}"}},
    {"{\"properties\":{\"next\":{\"$ref\":\"#\"},\"m/n\":{\"$ref\":\"#/properties/a~1b/items\"},"
     "\"a/b\":{\"items\":{\"const\":1}}}}",
     {"{\"next\":{\"next\":{}}}", "{\"m/n\":1,\"a/b\":[1,1]}"},
     {"{\"m/n\":2}"}},
    {"{\"$ref\":\"#/definitions/a\",\"definitions\":{\"a\":{\"type\":\"integer\"}},\"minimum\":0}",
     {"0", "5"},
     {"-1", "1.0"}},
};

START_TEST(documents_of_a_schema)
{
    struct weft_grammar *g = open_schema(documents[_i].schema);
    struct weft_grammar_state *s = NULL;
    ck_assert_int_eq(weft_grammar_state_open(g, &s, NULL), 0);
    for (int i = 0; i < TEXTS_MAX && documents[_i].valid[i] != NULL; i++) {
        const char *text = documents[_i].valid[i];
        weft_grammar_reset(s);
        ck_assert_msg(weft_grammar_accept(s, text, strlen(text), NULL) == 0 &&
                          weft_grammar_may_end(s),
                      "%s: %s is refused", documents[_i].schema, text);
    }
    for (int i = 0; i < TEXTS_MAX && documents[_i].invalid[i] != NULL; i++) {
        const char *text = documents[_i].invalid[i];
        weft_grammar_reset(s);
        ck_assert_msg(weft_grammar_accept(s, text, strlen(text), NULL) == -WEFT_ESTATE ||
                          !weft_grammar_may_end(s),
                      "%s: %s is taken", documents[_i].schema, text);
    }
    weft_grammar_state_close(s);
    weft_grammar_close(g);
}
END_TEST

/* ---- errors ---- */

static const struct {
    const char *schema, *text;
    int code;
} errors[] = {
    {"{\"type\":", "JSON schema:1:8: no JSON: 'unexpected token near end of file'", WEFT_EUSAGE},
    {"1", "JSON schema: #: found no schema, expected an object or true", WEFT_EUSAGE},
    {"false", "JSON schema: #: the schema false allows nothing", WEFT_EUSAGE},
    {"{\"type\":\"text\"}",
     "JSON schema: #: unknown type 'text', expected object, array, string, number, integer, "
     "boolean or "
     "null",
     WEFT_EUSAGE},
    {"{\"properties\":{\"a\":{\"items\":{\"not\":{}}}}}",
     "JSON schema: #/properties/a/items: 'not' is not supported", WEFT_EUNSUPPORTED},
    {"{\"items\":{},\"uniqueItems\":true}", "JSON schema: #: 'uniqueItems' is not supported",
     WEFT_EUNSUPPORTED},
    {"{\"type\":\"number\",\"minimum\":\"0\"}", "JSON schema: #: 'minimum' is no number",
     WEFT_EUSAGE},
    {"{\"type\":\"number\",\"minimum\":1,\"exclusiveMaximum\":1}",
     "JSON schema: #: no number of at most 15 digits is within the bounds", WEFT_EUNSUPPORTED},
    {"{\"type\":\"number\",\"minimum\":1e15}",
     "JSON schema: #: no number of at most 15 digits is within the bounds", WEFT_EUNSUPPORTED},
    {"{\"type\":\"number\",\"maximum\":0.30000000000000004}",
     "JSON schema: #: 'maximum' has more than 15 digits, which is supported for type integer alone",
     WEFT_EUNSUPPORTED},
    {"{\"type\":\"number\",\"exclusiveMinimum\":1e-20}",
     "JSON schema: #: 'exclusiveMinimum' has more than 15 digits, which is supported for type "
     "integer alone",
     WEFT_EUNSUPPORTED},
    {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}",
     "JSON schema: #: no integer of at most 18 digits is within the bounds", WEFT_EUNSUPPORTED},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":true}",
     "JSON schema: #: 'exclusiveMinimum' is no number", WEFT_EUSAGE},
    {"{\"format\":\"email\"}",
     "JSON schema: #: 'format' 'email' is not supported (date, time, date-time, uuid are)",
     WEFT_EUNSUPPORTED},
    {"{\"pattern\":\"a\",\"maxLength\":3}",
     "JSON schema: #: two of 'pattern', 'format' and a length in one schema", WEFT_EUNSUPPORTED},
    {"{\"minLength\":4,\"maxLength\":3}", "JSON schema: #: 'minLength' is more than 'maxLength'",
     WEFT_EUSAGE},
    {"{\"minLength\":1.5}", "JSON schema: #: 'minLength' is no whole number", WEFT_EUSAGE},
    {"{\"minItems\":99999}", "JSON schema: #: 'minItems' is above 16384", WEFT_ELIMIT},
    {"{\"minItems\":4,\"maxItems\":3}", "JSON schema: #: 'minItems' is more than there can be",
     WEFT_EUSAGE},
    {"{\"pattern\":\"^(?=a)\"}",
     "JSON schema: #: 'pattern' '^(?=a)': column 3: groups that look ahead or behind, or have a "
     "name, "
     "are not supported",
     WEFT_EUNSUPPORTED},
    {"{\"pattern\":\"(a)\\\\1\"}",
     "JSON schema: #: 'pattern' '(a)\\1': column 5: this escape is not supported (\\d \\w \\s \\D "
     "\\W "
     "\\S \\n \\r \\t \\f \\v \\0 \\xHH \\uHHHH are)",
     WEFT_EUNSUPPORTED},
    {"{\"pattern\":\"a^b\"}",
     "JSON schema: #: 'pattern' 'a^b': column 2: ^ and $ are supported only at the ends of the "
     "pattern's alternatives",
     WEFT_EUNSUPPORTED},
    {"{\"pattern\":\"(a\"}", "JSON schema: #: 'pattern' '(a': column 3: group without closing )",
     WEFT_EUSAGE},
    {"{\"pattern\":\"a)\"}", "JSON schema: #: 'pattern' 'a)': column 2: ) without (", WEFT_EUSAGE},
    {"{\"pattern\":\"[a\"}", "JSON schema: #: 'pattern' '[a': column 3: class without closing ]",
     WEFT_EUSAGE},
    {"{\"pattern\":\"a**\"}", "JSON schema: #: 'pattern' 'a**': column 3: two quantifiers in a row",
     WEFT_EUNSUPPORTED},
    {"{\"pattern\":\"a{,2}\"}",
     "JSON schema: #: 'pattern' 'a{,2}': column 2: expected {m}, {m,} or {m,n}", WEFT_EUSAGE},
    {"{\"$ref\":\"#/x\"}", "JSON schema: #: $ref '#/x': nothing is there", WEFT_EUSAGE},
    {"{\"$ref\":\"http://a/b\"}",
     "JSON schema: #: $ref 'http://a/b': only references within the document are supported, such "
     "as "
     "#/$defs/name",
     WEFT_EUNSUPPORTED},
    {"{\"$ref\":\"#\"}",
     "JSON schema: #: $ref and allOf within one another more than 64 deep, or in a circle",
     WEFT_ELIMIT},
    {"{\"required\":[\"a\"],\"additionalProperties\":false}",
     "JSON schema: #: 'required' names a, which 'properties' does not have", WEFT_EUSAGE},
    {"{\"allOf\":[{\"type\":\"null\"},{\"type\":\"string\"}]}",
     "JSON schema: #: no type is left that all of allOf allow", WEFT_EUSAGE},
    {"{\"allOf\":[{\"pattern\":\"a\"},{\"pattern\":\"b\"}]}",
     "JSON schema: #: two schemas that must both hold have different 'pattern'", WEFT_EUNSUPPORTED},
    {"{\"allOf\":[{\"properties\":{\"a\":{}},\"additionalProperties\":false},{\"properties\":{"
     "\"b\":{}}}"
     "]}",
     "JSON schema: #: 'additionalProperties' beside the properties of another schema of allOf",
     WEFT_EUNSUPPORTED},
    {"{\"allOf\":[{\"prefixItems\":[{\"type\":\"string\"}]},{\"items\":{\"type\":\"integer\"}}]}",
     "JSON schema: #: 'prefixItems' beside the 'items' of another schema of allOf",
     WEFT_EUNSUPPORTED},
    {"{\"enum\":[]}", "JSON schema: #: 'enum' has no value that is allowed", WEFT_EUSAGE},
    {"{\"enum\":[1],\"minimum\":0}", "JSON schema: #: 'minimum' beside 'enum'", WEFT_EUNSUPPORTED},
    {"{\"const\":1,\"type\":\"string\"}", "JSON schema: #: 'const' is not of its 'type'",
     WEFT_EUSAGE},
};

START_TEST(errors_say_where)
{
    struct weft_str gbnf = {0};
    weft_err err = {0};
    int r = weft_json_schema_to_gbnf(errors[_i].schema, strlen(errors[_i].schema), &gbnf, &err);
    ck_assert_str_eq(err.text, errors[_i].text);
    ck_assert_int_eq(r, -errors[_i].code);
    ck_assert_int_eq(err.code, errors[_i].code);
    ck_assert_uint_eq(gbnf.size, 0);
}
END_TEST

START_TEST(hostile_schemas)
{
    struct weft_str gbnf = {0}, schema = {0};
    weft_err err = {0};
    const char *itself = "{\"anyOf\":[{\"$ref\":\"#/$defs/"
                         "a\"},{\"type\":\"null\"}],\"$defs\":{\"a\":{\"anyOf\":[{\"$ref\":\"#\"},{"
                         "\"type\":\"string\"}]}}}";
    ck_assert_int_eq(weft_json_schema_to_gbnf(itself, strlen(itself), &gbnf, &err), -WEFT_EUSAGE);
    ck_assert_ptr_nonnull(strstr(err.text, "JSON schema: as a grammar: "));
    ck_assert_ptr_nonnull(strstr(err.text, "left recursion"));
    /* each definition merges the next one twice */
    weft_str_adds(&schema, "{\"$ref\":\"#/$defs/0\",\"$defs\":{");
    for (int i = 0; i < 25; i++)
        weft_str_addf(&schema,
                      "\"%d\":{\"allOf\":[{\"$ref\":\"#/$defs/%d\"},{\"$ref\":\"#/$defs/%d\"}]},",
                      i, i + 1, i + 1);
    weft_str_adds(&schema, "\"25\":{\"type\":\"null\"}}}");
    ck_assert_int_eq(weft_json_schema_to_gbnf(schema.data, schema.size, &gbnf, &err), -WEFT_ELIMIT);
    ck_assert_str_eq(err.text, "JSON schema: #: more than 4096 schemas to merge");
    weft_str_clear(&schema);
    for (int i = 0; i < 100; i++)
        weft_str_adds(&schema, "{\"items\":");
    weft_str_adds(&schema, "{}");
    for (int i = 0; i < 100; i++)
        weft_str_adds(&schema, "}");
    ck_assert_int_eq(weft_json_schema_to_gbnf(schema.data, schema.size, &gbnf, &err), -WEFT_ELIMIT);
    ck_assert_ptr_nonnull(strstr(err.text, "schemas within schemas more than 64 deep"));
    weft_str_clear(&schema);
    weft_str_adds(&schema, "{\"enum\":[0");
    for (int i = 1; i < 30000; i++)
        weft_str_addf(&schema, ",%d", i);
    weft_str_adds(&schema, "]}");
    ck_assert_int_eq(weft_json_schema_to_gbnf(schema.data, schema.size, &gbnf, &err), -WEFT_ELIMIT);
    ck_assert_int_eq(
        weft_json_schema_to_gbnf(schema.data, WEFT_JSON_SCHEMA_BYTES_MAX + 1, &gbnf, &err),
        -WEFT_ELIMIT);
    ck_assert_uint_eq(gbnf.size, 0);
    /* lists of which each value would be looked for in the other one */
    weft_str_clear(&schema);
    weft_str_adds(&schema, "{\"allOf\":[{\"enum\":[0");
    for (int i = 1; i < 100000; i++)
        weft_str_adds(&schema, ",1");
    weft_str_adds(&schema, "]},{\"enum\":[2");
    for (int i = 1; i < 100000; i++)
        weft_str_adds(&schema, ",3");
    weft_str_adds(&schema, "]}]}");
    ck_assert_int_eq(weft_json_schema_to_gbnf(schema.data, schema.size, &gbnf, &err), -WEFT_ELIMIT);
    ck_assert_str_eq(
        err.text, "JSON schema: #: lists of 100000 and 100000 values are too long to be compared");
    weft_str_clear(&schema);
    weft_str_adds(&schema, "{\"properties\":{\"p\":{}");
    for (int i = 0; i < 20000; i++)
        weft_str_addf(&schema, ",\"%d\":{}", i);
    weft_str_adds(&schema, "},\"required\":[\"p\"");
    for (int i = 20000; i-- > 0;)
        weft_str_addf(&schema, ",\"%d\"", i);
    weft_str_adds(&schema, "]}");
    ck_assert_int_eq(weft_json_schema_to_gbnf(schema.data, schema.size, &gbnf, &err), -WEFT_ELIMIT);
    ck_assert_str_eq(err.text,
                     "JSON schema: #: lists of 40002 and 40002 values are too long to be compared");
    /* bounds without an upper one share their rules: many of them fit */
    weft_str_clear(&schema);
    weft_str_adds(&schema, "{\"properties\":{\"p\":{}");
    for (int i = 0; i < 500; i++)
        weft_str_addf(&schema, ",\"%d\":{\"type\":\"number\",\"minimum\":0}", i);
    weft_str_adds(&schema, "}}");
    ck_assert_msg(weft_json_schema_to_gbnf(schema.data, schema.size, &gbnf, &err) == 0, "%s",
                  err.text);
    weft_str_done(&gbnf);
    weft_str_done(&schema);
}
END_TEST

/* ---- bounds ---- */

/* A plain decimal of at most 15 digits, as it is written; small ones meet often. */
static void random_decimal(uint64_t *random, char *text, size_t size)
{
    const int whole = 1 + (int)(weft_test_random(random) % 3);
    const int decimals = (int)(weft_test_random(random) % 4);
    const char *sign = weft_test_random(random) % 2 == 0 ? "-" : "";
    unsigned value = 0, part = 0, scale = 1;
    for (int i = 0; i < whole; i++)
        value = 10 * value + (unsigned)(weft_test_random(random) % 4 * 3);
    for (int i = 0; i < decimals; i++, scale *= 10)
        part = 10 * part + (unsigned)(weft_test_random(random) % 4 * 3);
    if (value == 0 && part == 0)
        sign = "";
    if (decimals == 0)
        snprintf(text, size, "%s%u", sign, value);
    else
        snprintf(text, size, "%s%u.%0*u", sign, value, decimals, part);
}

/* A decimal is taken exactly when it is within. */
START_TEST(bounds_are_exact)
{
    uint64_t random = weft_test_seed();
    for (int i = 0; i < 300; i++) {
        char low[24], high[24], x[24], schema[160];
        const bool open_low = weft_test_random(&random) % 2 == 0;
        const bool open_high = weft_test_random(&random) % 2 == 0;
        struct weft_grammar_state *s = NULL;
        random_decimal(&random, low, sizeof low);
        random_decimal(&random, high, sizeof high);
        const double a = atof(low), b = atof(high);
        if (a >= b)
            continue;
        snprintf(schema, sizeof schema, "{\"type\":\"number\",\"%s\":%s,\"%s\":%s}",
                 open_low ? "exclusiveMinimum" : "minimum", low,
                 open_high ? "exclusiveMaximum" : "maximum", high);
        struct weft_grammar *g = open_schema(schema);
        ck_assert_int_eq(weft_grammar_state_open(g, &s, NULL), 0);
        for (int k = 0; k < 100; k++) {
            if (k == 0 || k == 1)
                snprintf(x, sizeof x, "%s", k == 0 ? low : high);
            else
                random_decimal(&random, x, sizeof x);
            const double v = atof(x);
            const bool within = (open_low ? v > a : v >= a) && (open_high ? v < b : v <= b);
            weft_grammar_reset(s);
            const bool taken =
                weft_grammar_accept(s, x, strlen(x), NULL) == 0 && weft_grammar_may_end(s);
            ck_assert_msg(taken == within, "%s: %s is %s", schema, x, taken ? "taken" : "refused");
        }
        weft_grammar_state_close(s);
        weft_grammar_close(g);
    }
}
END_TEST

/* ---- random walks ---- */

static const char *const walked[] = {
    "{}",
    "{\"type\":[\"object\",\"number\",\"boolean\"]}",
    "{\"type\":\"integer\",\"minimum\":-1234,\"maximum\":98765}",
    "{\"type\":\"integer\",\"exclusiveMinimum\":99,\"exclusiveMaximum\":1001}",
    "{\"type\":\"integer\",\"maximum\":-7}",
    "{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
    "{\"type\":\"number\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":1}",
    "{\"type\":\"number\",\"minimum\":-273.15}",
    "{\"type\":\"number\",\"exclusiveMinimum\":-0.0625,\"exclusiveMaximum\":1234.00001}",
    "{\"type\":\"number\",\"exclusiveMinimum\":-2000.5,\"maximum\":-99.99}",
    "{\"type\":\"number\",\"minimum\":12.345,\"exclusiveMaximum\":12.346}",
    "{\"type\":\"number\",\"exclusiveMaximum\":999999999999999}",
    "{\"type\":\"string\",\"minLength\":3,\"maxLength\":12}",
    "{\"type\":\"string\",\"pattern\":\"^[a-f]{2,5}(x|yz)?[^0-9]*$\"}",
    "{\"type\":\"string\",\"pattern\":\"^ab?c|^[A-Z]+\"}",
    "{\"type\":\"array\",\"items\":{\"enum\":[1,\"b\",null,{\"c\":[0.1,-2]}]},\"minItems\":1,"
    "\"maxItems\":6}",
    "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"items\":{"
    "\"type\":\"boolean\"},\"minItems\":1,\"maxItems\":7}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\\\"\\\\\":{\"const\":"
    "\"x\"},"
    "\"\":{\"type\":\"null\"},\"\xC3\xA9\":{\"type\":\"number\"}},\"required\":[\"\",\"b\\\"\\\\\"]"
    "}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"null\"},\"ab\":{\"type\":\"null\"},"
    "\"\xC3\xA9"
    "\":{\"type\":\"null\"}},\"required\":[\"z\"],\"additionalProperties\":{\"type\":\"integer\"}}",
    "{\"type\":\"object\",\"properties\":{\"tree\":{\"$ref\":\"#/$defs/"
    "tree\"}},\"required\":[\"tree\"],"
    "\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},"
    "\"kids\":{"
    "\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
    "tree\"},\"maxItems\":3}},\"required\":[\"v\"]}}}",
    "{\"type\":\"object\",\"properties\":{\"kind\":{\"type\":\"string\"}},\"required\":[\"kind\"],"
    "\"anyOf\":[{\"properties\":{\"kind\":{\"const\":\"a\"},\"n\":{\"type\":\"integer\"}}},{"
    "\"properties"
    "\":{\"kind\":{\"const\":\"b\"}},\"required\":[\"s\"],\"additionalProperties\":{\"type\":"
    "\"string\"}}"
    "]}",
    "{\"allOf\":[{\"$ref\":\"#/$defs/"
    "base\"},{\"properties\":{\"age\":{\"maximum\":20},\"x\":{\"oneOf\":["
    "{\"type\":\"null\"},{\"type\":\"array\"}]}}}],\"title\":\"t\",\"$defs\":{\"base\":{\"type\":"
    "\"object\","
    "\"properties\":{\"age\":{\"type\":\"integer\",\"minimum\":5},\"name\":{\"type\":\"string\"}},"
    "\"required\":[\"age\"]}}}",
};

#define TEXT_LONG 120    /* bytes: from here on what closes is preferred */
#define TEXT_MAX 100000u /* the walk would not end otherwise */

/* One of the bytes that are allowed. */
static char choose(const uint64_t allowed[4], bool closing, uint64_t *random)
{
    static const char closers[] = "\"]}";
    for (size_t i = 0; closing && i < sizeof closers - 1; i++)
        if ((allowed[closers[i] / 64] >> closers[i] % 64 & 1) != 0)
            return closers[i];
    for (;;) {
        /* ASCII four times out of five: structure is what is of interest */
        const unsigned range = weft_test_random(random) % 5 == 0 ? 256 : 128;
        for (int tries = 0; tries < 64; tries++) {
            const unsigned byte = (unsigned)(weft_test_random(random) % range);
            if ((allowed[byte / 64] >> byte % 64 & 1) != 0)
                return (char)byte;
        }
    }
}

static void walk(struct weft_grammar_state *s, const struct weft_token_trie *bytes,
                 struct weft_str *text, uint64_t *random)
{
    weft_str_clear(text);
    weft_str_adds(text, "");
    weft_grammar_reset(s);
    for (;;) {
        uint64_t allowed[4];
        weft_err err = {0};
        int r = weft_grammar_mask(s, bytes, allowed, &err);
        ck_assert_msg(r == 0, "%s: %s", text->data, err.text);
        const bool any = (allowed[0] | allowed[1] | allowed[2] | allowed[3]) != 0;
        const bool closing = text->size > TEXT_LONG;
        if (weft_grammar_may_end(s) && (!any || closing || weft_test_random(random) % 3 == 0))
            return;
        const char byte = choose(allowed, closing, random);
        ck_assert_int_eq(weft_grammar_accept(s, &byte, 1, NULL), 0);
        weft_str_add(text, &byte, 1);
        ck_assert_uint_lt(text->size, TEXT_MAX);
    }
}

START_TEST(walks_are_valid)
{
    uint64_t random = weft_test_seed() + (uint64_t)_i;
    char values[256];
    struct weft_token_text texts[256];
    struct weft_token_trie *bytes = NULL;
    struct weft_grammar_state *s = NULL;
    struct weft_str text = {0};
    struct weft_grammar *g = open_schema(walked[_i]);
    json_t *schema = json_loads(walked[_i], JSON_DECODE_ANY, NULL);
    for (int i = 0; i < 256; i++) {
        values[i] = (char)i;
        texts[i] = (struct weft_token_text){.bytes = &values[i], .size = 1};
    }
    ck_assert_int_eq(weft_token_trie_open(texts, 256, &bytes, NULL), 0);
    ck_assert_int_eq(weft_grammar_state_open(g, &s, NULL), 0);
    for (int i = 0; i < 100; i++) {
        json_error_t error;
        walk(s, bytes, &text, &random);
        json_t *value =
            json_loadb(text.data, text.size,
                       JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DISABLE_EOF_CHECK, &error);
        ck_assert_msg(value != NULL && (size_t)error.position == text.size, "%s: %s", text.data,
                      error.text);
        ck_assert_msg(json_check(schema, schema, value), "%s: %s", walked[_i], text.data);
        json_decref(value);
    }
    json_decref(schema);
    weft_str_done(&text);
    weft_grammar_state_close(s);
    weft_token_trie_close(bytes);
    weft_grammar_close(g);
}
END_TEST

#define COUNT(a) ((int)(sizeof(a) / sizeof(a)[0]))

int main(void)
{
    Suite *s = suite_create("json_schema");
    TCase *t = tcase_create("json_schema");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, documents_of_a_schema, 0, COUNT(documents));
    tcase_add_loop_test(t, errors_say_where, 0, COUNT(errors));
    tcase_add_test(t, hostile_schemas);
    tcase_add_test(t, bounds_are_exact);
    tcase_add_loop_test(t, walks_are_valid, 0, COUNT(walked));
    suite_add_tcase(s, t);
    return weft_test_main(s);
}
