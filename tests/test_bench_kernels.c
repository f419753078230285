/*
 * The kernels' benchmark and the command that compares two of its files: what they write and what
 * they refuse. Figures themselves are not tested, but that the fractions are what they are said to
 * be.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tests/harness.h"
#include "tests/procs.h"

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define HEADER "slot,isa,type,threads,rows,ns,gbps,gops,fraction,of\n"

/* ------------------------------------------------------------------ the benchmark */

struct line {
    char slot[16], isa[16], type[16], of[16];
    unsigned threads, rows;
    double ns, gbps, gops, fraction;
};

/* Cuts the next field off. */
static const char *field(char **at)
{
    char *start = *at, *comma = start + strcspn(start, ",\n");
    *at = comma + (*comma != '\0');
    *comma = '\0';
    return start;
}

static size_t read_lines(const char *path, struct line *lines, size_t most)
{
    char text[512];
    size_t n = 0;
    FILE *f = fopen(path, "re");
    ck_assert_ptr_nonnull(f);
    ck_assert(fgets(text, sizeof text, f) != NULL &&
              strncmp(text, "# weft bench_kernels ", 21) == 0);
    ck_assert_str_eq(fgets(text, sizeof text, f), HEADER);
    while (fgets(text, sizeof text, f) != NULL) {
        char *at = text;
        ck_assert_uint_lt(n, most);
        struct line *l = &lines[n++];
        snprintf(l->slot, sizeof l->slot, "%.15s", field(&at));
        snprintf(l->isa, sizeof l->isa, "%.15s", field(&at));
        snprintf(l->type, sizeof l->type, "%.15s", field(&at));
        l->threads = (unsigned)strtoul(field(&at), NULL, 10);
        l->rows = (unsigned)strtoul(field(&at), NULL, 10);
        l->ns = strtod(field(&at), NULL);
        l->gbps = strtod(field(&at), NULL);
        l->gops = strtod(field(&at), NULL);
        l->fraction = strtod(field(&at), NULL);
        snprintf(l->of, sizeof l->of, "%.15s", field(&at));
        ck_assert_double_gt(l->ns, 0);
    }
    fclose(f);
    return n;
}

static const struct line *find(const struct line *lines, size_t n, const char *slot, unsigned rows)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(lines[i].slot, slot) == 0 && lines[i].rows == rows)
            return &lines[i];
    ck_abort_msg("no line of %s with %u rows", slot, rows);
}

static void expect_fraction(const struct line *l, const char *of, double fraction)
{
    ck_assert_str_eq(l->of, of);
    ck_assert_double_gt(l->fraction, 0);
    ck_assert_double_lt(fabs(l->fraction / fraction - 1), 1e-4); /* six digits were written */
}

START_TEST(kernels)
{
    static const unsigned rows[] = {1, 2, 4, 8, 16, 128, 512};
    static struct line lines[256];
    char bench[4200], path[4200];
    struct command c;
    const char *isa = wk_table_name(wk_table_select(NULL));
    snprintf(bench, sizeof bench, "%s", program_path("tests/bench_kernels"));
    snprintf(path, sizeof path, "%s/kernels.csv", weft_test_tmpdir());
    program_run(&c, ARGS(bench, "-q", "-t", "2", "-T", isa, "-y", "q4_0", "-o", path), NULL, NULL);
    ck_assert_msg(c.status == 0, "%s", c.err);
    ck_assert_msg(strstr(c.out, "\nQ4_0 ") != NULL, "%s", c.out);
    command_done(&c);
    const size_t n = read_lines(path, lines, sizeof lines / sizeof lines[0]);
    if (strcmp(isa, "ref") == 0) {
        weft_test_skip("this CPU has no table but ref, whose peak nobody knows");
        return;
    }
    const struct line *read = find(lines, n, "read", 0), *peak = find(lines, n, "int", 0);
    ck_assert_double_gt(find(lines, n, "float", 0)->gops, 0);
    static const char *const products[] = {"dot", "sum", "residual"};
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            const struct line *l = find(lines, n, products[k], rows[i]);
            ck_assert_str_eq(l->type, "Q4_0");
            ck_assert_str_eq(l->isa, isa);
            ck_assert_uint_eq(l->threads, 2);
            if (rows[i] == 1)
                expect_fraction(l, "read", l->gbps / read->gbps);
            else if (rows[i] >= 128)
                expect_fraction(l, "int", l->gops / peak->gops);
            else
                ck_assert_str_eq(l->of, "");
        }
    static const char *const slots[] = {"quantise", "norm", "norm_quantise",
                                        "swiglu",   "rope", "sum_add"};
    for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++)
        ck_assert_double_gt(find(lines, n, slots[i], 0)->gbps, 0);
    ck_assert_double_gt(find(lines, n, "attention", 64)->gops, 0);

    /* With itself: nothing differs. */
    char compare[4200];
    snprintf(compare, sizeof compare, "%s", weft_test_path("scripts/bench-compare"));
    program_run(&c, ARGS(compare, path, path), NULL, NULL);
    ck_assert_msg(c.status == 0, "%s", c.err);
    ck_assert_ptr_nonnull(strstr(c.out, "   1.000\n"));
    ck_assert_ptr_null(strstr(c.out, " +\n"));
    ck_assert_ptr_null(strstr(c.out, " -\n"));
    ck_assert_ptr_null(strstr(c.out, "only in"));
    command_done(&c);
}
END_TEST

START_TEST(kernels_arguments)
{
    static const struct {
        const char *args[3], *text;
    } cases[] = {
        {{"-T", "mmx"}, "this CPU has no table 'mmx'"},
        {{"-y", "Q9_9"}, "unknown type 'Q9_9'"},
        {{"-t", "0"}, "expected 1 to 64 threads, found '0'"},
        {{"7"}, "unexpected argument '7'"},
    };
    char bench[4200];
    snprintf(bench, sizeof bench, "%s", program_path("tests/bench_kernels"));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const *a = cases[i].args;
        struct command c;
        program_run(&c, ARGS(bench, a[0], a[1], a[2]), NULL, NULL);
        ck_assert_int_eq(c.status, 2);
        ck_assert_msg(strstr(c.err, cases[i].text) != NULL, "%s", c.err);
        command_done(&c);
    }
}
END_TEST

/* ------------------------------------------------------------------ comparing */

/* Runs the command on two texts ("%1" and "%2" in `err` stand for their paths). */
static void expect_compare(const char *old, const char *new, int status, const char *out,
                           const char *err)
{
    char compare[4200], a[4200], b[4200], expected[9000];
    struct command c;
    snprintf(compare, sizeof compare, "%s", weft_test_path("scripts/bench-compare"));
    snprintf(a, sizeof a, "%s", temp_file("old.csv", old, strlen(old)));
    snprintf(b, sizeof b, "%s", temp_file("new.csv", new, strlen(new)));
    program_run(&c, ARGS(compare, a, b), NULL, NULL);
    ck_assert_msg(c.status == status, "exit %d: %s", c.status, c.err);
    if (out != NULL)
        ck_assert_str_eq(c.out, out);
    if (err != NULL) {
        snprintf(expected, sizeof expected, "bench-compare: %s%s\n", b, err);
        ck_assert_str_eq(c.err, expected);
    }
    command_done(&c);
}

static const char old_csv[] = "# first\n" HEADER "dot,avx2,Q4_0,1,1,100,20,40,0.5,read\n"
                              "dot,avx2,Q8_0,1,1,100,20,40,0.5,read\n"
                              "sum,avx2,Q8_0,1,1,104,20,40,0.5,read\n"
                              "norm,avx2,f32,1,0,0.5,16,,,\n";

START_TEST(compare)
{
    char expected[4096];
    static const char table[] =
        "slot          isa         type     thr  rows       old ns       new ns new/old\n"
        "norm          avx2        f32        1     0          0.5            1   0.500 -\n"
        "dot           avx2        Q4_0       1     1          100           50   2.000 +\n"
        "sum           avx2        Q8_0       1     1          104          100   1.040\n"
        "dot           avx2        Q8_0       1     1          100          200   0.500 -\n"
        "\n"
        "slot          isa         lines    mean\n"
        "norm          avx2            1   0.500\n"
        "dot           avx2            2   1.000\n"
        "sum           avx2            1   1.040\n";
    snprintf(expected, sizeof expected, "%s1 line only in %s/new.csv\n", table, weft_test_tmpdir());
    expect_compare(old_csv,
                   HEADER "norm,avx2,f32,1,0,1,8,,,\n"
                          "dot,avx2,Q4_0,1,1,5e1,40,80,1,read\n"
                          "# a remark\n"
                          "sum,avx2,Q8_0,1,1,100,20,40,0.5,read\n"
                          "dot,avx2,Q8_0,1,1,200,10,20,0.25,read\n"
                          "dot,avx2,Q8_0,2,1,200,10,20,0.25,read\n",
                   0, expected, NULL);
}
END_TEST

START_TEST(compare_malformed)
{
    static const struct {
        const char *text, *err;
    } cases[] = {
        {"", ":0: found no figures"},
        {HEADER, ":1: found no figures"},
        {"hello\n", ":1: found no header of columns, expected slot,isa,type,threads,rows,ns,…"},
        {HEADER "dot,avx2,Q4_0,1,1,100\n", ":2: found 6 columns, expected 10"},
        {"# x\n" HEADER "dot,avx2,Q4_0,1,1,nan,,,,\n",
         ":3: column ns: found 'nan', expected a number above 0"},
        {HEADER "dot,avx2,Q4_0,1,1,0,,,,\n", ":2: column ns: found '0', expected a number above 0"},
        {HEADER "dot,avx2,Q4_0,x,1,1,,,,\n", ":2: expected slot, isa, threads and rows"},
        {HEADER ",avx2,Q4_0,1,1,1,,,,\n", ":2: expected slot, isa, threads and rows"},
        {HEADER "dot,avx2,Q4_0,1,1,1,,,,\ndot,avx2,Q4_0,1,1,2,,,,\n",
         ":3: found dot,avx2,Q4_0,1,1 twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_compare(old_csv, cases[i].text, 2, "", cases[i].err);
    struct command c;
    char script[4200];
    snprintf(script, sizeof script, "%s", weft_test_path("scripts/bench-compare"));
    program_run(&c, ARGS(script, "/nowhere.csv", "/dev/null"), NULL, NULL);
    ck_assert_int_eq(c.status, 2);
    ck_assert_str_eq(c.err, "bench-compare: /nowhere.csv: no such file\n");
    command_done(&c);
    program_run(&c, ARGS(script), NULL, NULL);
    ck_assert_int_eq(c.status, 2);
    ck_assert_str_eq(c.err, "usage: bench-compare OLD.csv NEW.csv\n");
    command_done(&c);
    expect_compare(old_csv, HEADER "dot,neon,Q4_0,1,1,1,,,,\n", 2, NULL, NULL); /* none in common */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bench_kernels");
    TCase *tc = tcase_create("bench");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, kernels);
    tcase_add_test(tc, kernels_arguments);
    tcase_add_test(tc, compare);
    tcase_add_test(tc, compare_malformed);
    suite_add_tcase(s, tc);
    return weft_test_main(s);
}
