/*
 * Benchmark: how long the search for a plan takes.
 *
 *     bench_plan [problems]    of each size; 5 without it
 *
 * Random clusters of unequal devices, each a machine of its own, a model of 32 layers with its
 * embedding and head. Memory is 1.6 times what the model needs, so several devices must share it;
 * the search stops at its limit of labels where it has not proved a placement the best by then.
 */
#include <stdio.h>
#include <stdlib.h>

#include "partitioner/solve.h"
#include "tests/harness.h"
#include "tests/measure.h"

#define ITEMS 34
#define LAYER_BYTES ((uint64_t)130 << 20) /* an 8 B model at 4 bits */
#define PROBLEMS_MAX 1000

static size_t problems = 5;

static uint64_t between(uint64_t *seed, uint64_t low, uint64_t high)
{
    return low + weft_test_random(seed) % (high - low);
}

static struct weft_problem problem(uint32_t n, enum weft_goal goal, uint64_t *seed)
{
    struct weft_problem p;
    weft_err err = {0};
    ck_assert_msg(weft_problem_alloc(ITEMS, n, n, &p, &err) == 0, "%s", err.text);
    for (uint32_t i = 0; i < ITEMS; i++)
        p.item_bytes[i] = LAYER_BYTES;
    for (uint32_t d = 0; d < n; d++) {
        const uint64_t layer_ns = between(seed, 5000000, 20000000); /* a board, an old PC */
        for (uint32_t i = 0; i < ITEMS; i++)
            p.compute_ns[i * n + d] = i == 0 ? 1000 : layer_ns;
        p.devices[d].memory_bytes = LAYER_BYTES * ITEMS * between(seed, 110, 210) / 100 / n;
        p.devices[d].stage_bytes = 5 << 20;
        p.devices[d].stage_ns = 50000;
        p.devices[d].group = d;
        p.group_memory_bytes[d] = p.devices[d].memory_bytes;
        for (uint32_t e = 0; e < n && e != d; e++)
            p.hop_ns[d * n + e] = p.hop_ns[e * n + d] = p.return_ns[d * n + e] =
                p.return_ns[e * n + d] = between(seed, 200000, 5000000); /* wire, wireless */
    }
    p.goal = goal;
    return p;
}

static void measure(uint32_t n, enum weft_goal goal)
{
    double ms[PROBLEMS_MAX];
    size_t proved = 0, fit = 0;
    uint64_t seed = n; /* the same problems each time */
    for (size_t i = 0; i < problems; i++) {
        struct weft_problem p = problem(n, goal, &seed);
        struct weft_placement pl = {0};
        weft_err err = {0};
        const uint64_t start = measure_clock_ns();
        int r = weft_solve(&p, NULL, &pl, NULL, &err);
        ms[i] = (double)(measure_clock_ns() - start) * 1e-6;
        ck_assert_msg(r == 0 || r == -WEFT_ENOFIT, "%s", err.text);
        fit += r == 0;
        proved += r == 0 && pl.proved_optimal;
        weft_placement_done(&pl);
        weft_problem_done(&p);
    }
    const double median = measure_median(ms, problems);
    printf("%7u %-10s %10.2f %10.2f %8zu %8zu\n", n,
           goal == WEFT_GOAL_LATENCY ? "latency" : "throughput", median, ms[problems - 1], fit,
           proved);
    fflush(stdout);
}

static void body(void)
{
    static const uint32_t devices[] = {3, 5, 8, 12};
    printf("time to plan, ms, %zu problems each\n%7s %-10s %10s %10s %8s %8s\n", problems,
           "devices", "goal", "median", "worst", "fit", "proved");
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++)
        for (int goal = 0; goal < WEFT_GOAL_COUNT; goal++)
            measure(devices[i], (enum weft_goal)goal);
}

int main(int argc, char **argv)
{
    char *end = NULL;
    if (argc == 2)
        problems = strtoul(argv[1], &end, 10);
    if (argc > 2 || (argc == 2 && *end != '\0') || problems == 0 || problems > PROBLEMS_MAX) {
        fprintf(stderr, "usage: bench_plan [problems, at most %d]\n", PROBLEMS_MAX);
        return 2;
    }
    return weft_test_program(body);
}
