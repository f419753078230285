/*
 * Test harness, see harness.h. Skips are counted in shared memory, since Check forks.
 */
#include "tests/harness.h"

#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int *skipped; /* shared with forked children */
static char tmpdir[4096];

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void remove_tmpdir(void)
{
    if (tmpdir[0] != '\0')
        (void)nftw(tmpdir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

int weft_test_main(Suite *suite)
{
    skipped =
        mmap(NULL, sizeof *skipped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (skipped == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int run = srunner_ntests_run(runner), failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    if (failed != 0)
        printf("seed of random tests: WEFT_TEST_SEED=%llu\n", (unsigned long long)weft_test_seed());
    printf("%d passed, %d failed, %d skipped\n", run - failed - *skipped, failed, *skipped);
    munmap(skipped, sizeof *skipped);
    remove_tmpdir();
    return failed == 0 ? 0 : 1;
}

static void (*program_body)(void);

START_TEST(program)
{
    program_body();
}
END_TEST

int weft_test_program(void (*body)(void))
{
    Suite *suite = suite_create("program");
    TCase *tcase = tcase_create("program");
    program_body = body;
    tcase_add_test(tcase, program);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); /* and so without a time limit */
    srunner_run_all(runner, CK_SILENT);
    int failed = srunner_ntests_failed(runner);
    if (failed != 0) {
        TestResult **results = srunner_failures(runner);
        fprintf(stderr, "%s:%d: %s\n", tr_lfile(results[0]), tr_lno(results[0]),
                tr_msg(results[0]));
        free(results);
    }
    srunner_free(runner);
    remove_tmpdir();
    return failed == 0 ? 0 : 1;
}

void weft_test_skip(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    printf("skipped: ");
    vprintf(fmt, args);
    printf("\n");
    fflush(stdout);
    va_end(args);
    __atomic_add_fetch(skipped, 1, __ATOMIC_RELAXED);
}

uint64_t weft_test_seed(void)
{
    static uint64_t seed;
    if (seed == 0) {
        const char *text = getenv("WEFT_TEST_SEED");
        seed = text != NULL ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);
        seed += seed == 0;
    }
    return seed;
}

uint64_t weft_test_random(uint64_t *state)
{
    uint64_t x = *state + (*state == 0);
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545F4914F6CDD1Dull;
}

double weft_test_uniform(uint64_t *state)
{
    return (double)(weft_test_random(state) >> 11) * 0x1p-53;
}

const char *weft_test_path(const char *relative)
{
    static char path[4096];
    const char *root = getenv("WEFT_SOURCE_DIR");
    if (relative[0] == '/')
        snprintf(path, sizeof path, "%s", relative);
    else
        snprintf(path, sizeof path, "%s/%s", root != NULL ? root : ".", relative);
    return access(path, R_OK) == 0 ? path : NULL;
}

uint8_t *weft_test_read(const char *relative, size_t *ret_size)
{
    const char *path = weft_test_path(relative);
    FILE *f = path != NULL ? fopen(path, "rb") : NULL;
    if (f == NULL)
        return NULL;
    struct stat st;
    uint8_t *data = NULL;
    if (fstat(fileno(f), &st) == 0 && (data = malloc((size_t)st.st_size + 1)) != NULL) {
        size_t n = fread(data, 1, (size_t)st.st_size, f);
        data[n] = 0;
        *ret_size = n;
    }
    fclose(f);
    return data;
}

const char *weft_test_tmpdir(void)
{
    if (tmpdir[0] == '\0') {
        const char *base = getenv("TMPDIR");
        snprintf(tmpdir, sizeof tmpdir, "%s/weft-test-XXXXXX", base != NULL ? base : "/tmp");
        if (mkdtemp(tmpdir) == NULL) {
            perror(tmpdir);
            exit(1);
        }
    }
    return tmpdir;
}
