/*
 * What the kernels reach on this machine, beside what the machine can do at best in the same run:
 * every slot, instruction set and weight type, with one thread and with all.
 *
 *     bench_kernels [-t THREADS] [-T TABLE] [-y TYPE] [-q] [-o FILE.csv]
 *
 * -t: this number of threads alone; -T: this table; -y: this weight type; -q: a glance at small
 * matrices, for tests: its figures say nothing. A table goes to stdout, and all figures to FILE.csv
 * (scripts/bench-compare compares two of them), whose columns are
 *
 *     slot      read: plain reading; int, float: peaks of instructions; dot: wk_matmul;
 *               sum, residual: wk_matmul_sum, wk_matmul_add by pieces of 256 columns;
 *               blas: wk_matmul by OpenBLAS; norm_quantise: wk_act_norm;
 *               others: the function of that name
 *     isa       the kernels' table
 *     type      of the weights, of the KV cache; f32 of others
 *     threads   of the pool
 *     rows      of activations; 0 where it means nothing
 *     ns        of one call of dot, sum, residual, blas, attention, read, int and float;
 *               per element of others
 *     gbps      1e9 bytes a second: packed weights, KV cache; bytes in and out of others
 *     gops      1e9 operations a second, a multiply and an add counting two
 *     fraction  of the limit that `of` names in the same run with as many threads:
 *               gbps of read for products with one row, gops of int or float from 128 rows on
 *     of        read, int, float, or nothing
 *
 * Each figure is the best of several calls, since other work on the machine only ever adds time.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/gguf.h"
#include "daemon/pages.h"
#include "kernels/table.h"
#include "tests/kernel_data.h"
#include "tests/random_blocks.h"
#include "tests/roofline.h"

enum {
    COLS = 2048,
    RESULTS_MAX = 16384,
    MANY_ROWS = 128,    /* of activations from which computing is the limit */
    MATRIX_ROWS = 2048, /* of the matrix of such products */
    VECTOR_BUDGETS = 6,
    REF_ROWS = 64, /* of every matrix of ref, which is slow */
};

static const uint32_t batches[] = {1, 2, 4, 8, 16, 128, 512};
enum { N_BATCHES = sizeof batches / sizeof batches[0] };

/* How large and how long; -q shrinks them. */
static struct {
    size_t vector_bytes; /* matrix of products with one row: far beyond any cache */
    size_t batch_bytes;  /* of products with few rows: beyond the caches of boards and PCs */
    double budget_s;     /* of a figure */
} size = {256u << 20, 96u << 20, 0.03};

struct result {
    const char *slot, *isa, *type;
    unsigned threads;
    uint32_t rows;
    double ns, gbps, gops, fraction;
    const char *of; /* "": no limit */
};
static struct result results[RESULTS_MAX];
static size_t n_results;

static uint64_t seed = 1;

/* ------------------------------------------------------------------ results */

static const struct result *find(const char *slot, const char *isa, const char *type,
                                 unsigned threads, uint32_t rows)
{
    for (size_t i = 0; i < n_results; i++) {
        const struct result *r = &results[i];
        if (strcmp(r->slot, slot) == 0 && strcmp(r->isa, isa) == 0 && strcmp(r->type, type) == 0 &&
            r->threads == threads && r->rows == rows)
            return r;
    }
    return NULL;
}

static double fraction_of(const struct result *r)
{
    const bool reading = strcmp(r->of, "read") == 0;
    const struct result *limit =
        r->of[0] == '\0' ? NULL : find(r->of, reading ? "best" : r->isa, "", r->threads, 0);
    if (limit == NULL)
        return 0;
    return reading ? r->gbps / limit->gbps : r->gops / limit->gops;
}

static void add(struct result r)
{
    if (n_results == RESULTS_MAX) {
        fprintf(stderr, "bench_kernels: more than %d results\n", RESULTS_MAX);
        exit(1);
    }
    r.fraction = fraction_of(&r);
    if (r.fraction == 0)
        r.of = "";
    results[n_results++] = r;
}

static void put_figure(FILE *f, double x)
{
    if (x != 0)
        fprintf(f, "%.6g", x);
    fputc(',', f);
}

/* The line of /proc/cpuinfo that names the processor; "unknown" where there is none. */
static void cpu_name(char *buf, size_t n)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(buf, n, "unknown");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL)
            continue;
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(buf, n, "%s", colon + 2);
        break;
    }
    if (f != NULL)
        fclose(f);
}

/* Writes beside the file and renames: a reader never sees half of it. */
static bool write_csv(const char *path)
{
    char part[4096], cpu[256];
    snprintf(part, sizeof part, "%s.part", path);
    FILE *f = fopen(part, "we");
    if (f == NULL)
        return false;
    cpu_name(cpu, sizeof cpu);
    fprintf(f, "# weft bench_kernels %s; cpu %s; %ld processors\n", WEFT_VERSION, cpu,
            sysconf(_SC_NPROCESSORS_ONLN));
    fprintf(f, "slot,isa,type,threads,rows,ns,gbps,gops,fraction,of\n");
    for (size_t i = 0; i < n_results; i++) {
        const struct result *r = &results[i];
        fprintf(f, "%s,%s,%s,%u,%u,%.9g,", r->slot, r->isa, r->type, r->threads, r->rows, r->ns);
        put_figure(f, r->gbps);
        put_figure(f, r->gops);
        put_figure(f, r->fraction);
        fprintf(f, "%s\n", r->of);
    }
    bool ok = !ferror(f);
    ok = fclose(f) == 0 && ok;
    return ok && rename(part, path) == 0;
}

/* ------------------------------------------------------------------ limits */

static void bench_limits(struct wk_engine *e, const struct wk_table **tables, size_t n)
{
    const unsigned threads = wk_pool_threads(e->pool);
    uint8_t *data = weft_pages_alloc_huge(size.vector_bytes); /* as the store's matrices */
    if (data == NULL) {
        perror("bench_kernels");
        exit(1);
    }
    memset(data, 1, size.vector_bytes);
    const double s = roofline_read_s(e->pool, data, size.vector_bytes, size.budget_s);
    weft_pages_free(data, size.vector_bytes);
    add((struct result){.slot = "read",
                        .isa = "best",
                        .type = "",
                        .threads = threads,
                        .ns = s * 1e9,
                        .gbps = (double)size.vector_bytes / s * 1e-9,
                        .of = ""});
    printf("%u thread%s: reading %.1f GB/s; GOP/s of", threads, threads == 1 ? "" : "s",
           (double)size.vector_bytes / s * 1e-9);
    for (size_t i = 0; i < n; i++)
        for (int floats = 0; floats < 2; floats++) {
            const char *isa = wk_table_name(tables[i]);
            const double ops = roofline_peak(e->pool, isa, floats != 0, size.budget_s);
            if (ops == 0)
                continue;
            add((struct result){.slot = floats != 0 ? "float" : "int",
                                .isa = isa,
                                .type = "",
                                .threads = threads,
                                .ns = 1e12 / ops, /* of a thousand operations */
                                .gops = ops * 1e-9,
                                .of = ""});
            if (floats != 0)
                printf(" / %.0f", ops * 1e-9);
            else
                printf("%s %s %.0f", i > 1 ? "," : "", isa, ops * 1e-9);
        }
    printf(" (bytes / floats)\n");
}

/* ------------------------------------------------------------------ products */

static bool is_ref(const struct wk_table *table)
{
    return strcmp(wk_table_name(table), "ref") == 0;
}

enum how { DOT, SUM, RESIDUAL, HOW_COUNT };
static const char *const how_slots[HOW_COUNT] = {"dot", "sum", "residual"};

struct product {
    struct wk_engine *e;
    enum how how;
    struct wk_matrix w;
    struct wk_act act;
    float *y;
    int64_t *sum;
    void *scratch;
};

static void multiply(void *arg)
{
    struct product *p = arg;
    if (p->how == SUM)
        (void)wk_matmul_sum(p->e, &p->w, &p->act, 256, p->sum, p->scratch);
    else if (p->how == RESIDUAL)
        (void)wk_matmul_add(p->e, &p->w, &p->act, 256, p->y);
    else
        wk_matmul(p->e, &p->w, &p->act, p->y, p->w.rows, p->scratch);
}

/* Seconds of a product of n rows with the first `rows` rows of w. */
static double product_s(struct wk_engine *e, const struct wk_matrix *w, uint32_t rows, uint32_t n,
                        enum how how)
{
    static float *x; /* made once, for the largest batch */
    struct product p = {.e = e, .how = how, .w = *w};
    if (x == NULL)
        x = kd_floats(&seed, (size_t)batches[N_BATCHES - 1] * COLS);
    p.w.rows = rows;
    p.act = kd_act(e, w->type, x, n, COLS);
    p.y = kd_alloc(sizeof *p.y * n * rows);
    memset(p.y, 0, sizeof *p.y * n * rows); /* the residual, and so that pages are there */
    p.sum = how == SUM ? kd_alloc(sizeof *p.sum * n * rows) : NULL;
    p.scratch = kd_alloc(wk_matmul_scratch(e, w->type, n, rows, COLS));
    /* Memory varies more from call to call than computing does. */
    double t = roofline_best(
        multiply, &p, n == 1 && !is_ref(e->table) ? VECTOR_BUDGETS * size.budget_s : size.budget_s);
    free(p.scratch);
    free(p.sum);
    free(p.y);
    free(p.act.q8);
    return t;
}

static uint32_t whole_tiles(double rows)
{
    return rows < WK_TILE ? WK_TILE : (uint32_t)rows / WK_TILE * WK_TILE;
}

static const char *type_name(enum wk_type type)
{
    return weft_tensor_type_info(type)->name;
}

/* How many rows of the matrix a product with n rows takes. */
static uint32_t product_rows(const struct wk_matrix *w, bool ref, uint32_t n)
{
    const double row_bytes = (double)wk_matrix_bytes(w->type, w->rows, COLS) / w->rows;
    const uint32_t rows = ref              ? REF_ROWS
                          : n == 1         ? w->rows
                          : n >= MANY_ROWS ? MATRIX_ROWS
                                           : whole_tiles((double)size.batch_bytes / row_bytes);
    return rows < w->rows ? rows : w->rows;
}

static void add_product(struct wk_engine *e, const char *slot, const struct wk_matrix *w,
                        uint32_t rows, uint32_t n, double s)
{
    const char *peak = wk_type_quantised(w->type) ? "int" : "float";
    /* ref reads a matrix that stays in the cache, OpenBLAS has kernels of its own */
    const bool limited = !is_ref(e->table) && strcmp(slot, "blas") != 0;
    add((struct result){
        .slot = slot,
        .isa = wk_table_name(e->table),
        .type = type_name(w->type),
        .threads = wk_pool_threads(e->pool),
        .rows = n,
        .ns = s * 1e9,
        .gbps = (double)wk_matrix_bytes(w->type, rows, COLS) / s * 1e-9,
        .gops = 2.0 * n * rows * COLS / s * 1e-9,
        .of = limited && n == 1           ? "read"
              : limited && n >= MANY_ROWS ? peak
                                          : "",
    });
}

static void print_product_head(void)
{
    printf("\nProducts: GB/s of weights and %% of reading; GOP/s by rows and %% of the peak\n");
    printf("%-7s %-10s thr %5s %3s %5s %3s", "type", "isa", "1 row", "%", "resid", "%");
    for (size_t i = 1; i < N_BATCHES; i++)
        printf(batches[i] < MANY_ROWS ? " %6u" : " %6u   %%  resid   %%", batches[i]);
    printf("\n");
}

static void print_cell(const char *slot, const char *isa, const char *type, unsigned threads,
                       uint32_t rows)
{
    const struct result *r = find(slot, isa, type, threads, rows);
    if (r == NULL)
        return;
    if (rows == 1)
        printf(" %5.1f", r->gbps);
    else
        printf(" %6.*f", r->gops < 10 ? 1 : 0, r->gops);
    if (r->fraction != 0)
        printf(" %3.0f", 100 * r->fraction);
    else if (rows == 1 || rows >= MANY_ROWS)
        printf("    ");
}

static void print_products(const char *isa, const char *type, unsigned threads)
{
    printf("%-7s %-10s %3u", type, isa, threads);
    for (size_t i = 0; i < N_BATCHES; i++) {
        print_cell("dot", isa, type, threads, batches[i]);
        if (batches[i] == 1 || batches[i] >= MANY_ROWS)
            print_cell("residual", isa, type, threads, batches[i]);
    }
    printf("\n");
    fflush(stdout);
}

static void bench_products(struct wk_engine *e, const struct wk_matrix *w)
{
    const bool ref = is_ref(e->table);
    for (size_t i = 0; i < N_BATCHES; i++) {
        const uint32_t n = batches[i], rows = product_rows(w, ref, n);
        if (ref && n > MANY_ROWS)
            continue;
        for (enum how how = DOT; how < HOW_COUNT; how++)
            add_product(e, how_slots[how], w, rows, n, product_s(e, w, rows, n, how));
    }
}

/* Float weights through OpenBLAS, whatever number of rows the kernels would give it. */
static void bench_blas(struct wk_engine *e, const struct wk_matrix *w)
{
    const struct wk_table *table = e->table;
    const uint32_t rows = product_rows(w, false, MANY_ROWS);
    struct wk_table always = *table;
    if (wk_type_quantised(w->type))
        return;
    always.blas_rows = 1;
    e->table = &always;
    e->gemm = WK_GEMM_OPENBLAS;
    printf("%-7s %-10s %3u GOP/s by rows:", type_name(w->type), "OpenBLAS",
           wk_pool_threads(e->pool));
    for (size_t i = 2; i < N_BATCHES; i++) {
        const double s = product_s(e, w, rows, batches[i], DOT);
        add_product(e, "blas", w, rows, batches[i], s);
        printf("  %u: %.0f", batches[i], 2.0 * batches[i] * rows * COLS / s * 1e-9);
    }
    printf("\n");
    e->gemm = WK_GEMM_WEFT;
    e->table = table;
}

/* A packed matrix of random weights as large as the largest product needs it. */
static struct wk_matrix make_matrix(enum wk_type type)
{
    const double row_bytes = (double)wk_matrix_bytes(type, WK_TILE, COLS) / WK_TILE;
    struct wk_matrix w = {type, whole_tiles((double)size.vector_bytes / row_bytes), COLS, NULL};
    const struct weft_tensor_type_info *info = weft_tensor_type_info(type);
    const size_t tile_bytes = (size_t)WK_TILE * COLS / info->block_elems * info->block_bytes;
    uint8_t *tile = kd_alloc(tile_bytes);
    struct random_blocks blocks;
    w.data = weft_pages_alloc_huge(wk_matrix_bytes(type, w.rows, COLS));
    if (w.data == NULL) {
        perror("bench_kernels");
        exit(1);
    }
    random_blocks_init(&blocks, type, 0.02f);
    random_blocks_fill(&blocks, &seed, tile, tile_bytes / info->block_bytes);
    for (uint32_t r = 0; r < w.rows; r += WK_TILE)
        wk_matrix_pack(&w, r, WK_TILE, tile);
    free(tile);
    return w;
}

/* ------------------------------------------------------------------ the rest */

enum { ELEMENTS = 1 << 18, DIM = 128, KV_HEADS = 8, HEADS = 32, LENGTH = 2048 };

struct rest {
    struct wk_engine *e;
    struct wk_kv kv;
    float *x, *y, *w, *cos, *sin;
    int64_t *sum;
    uint32_t n, position;
    struct wk_act act;
    void *q8, *scratch;
};

static void run_quantise(void *arg)
{
    struct rest *r = arg;
    wk_act_set(r->e, &r->act, r->x, ELEMENTS / COLS, COLS, r->q8);
}

static void run_norm(void *arg)
{
    struct rest *r = arg;
    wk_rms_norm(r->e, r->x, r->w, 1e-5f, ELEMENTS / COLS, COLS, r->y);
}

static void run_norm_quantise(void *arg)
{
    struct rest *r = arg;
    wk_act_norm(r->e, &r->act, r->x, r->w, 1e-5f, ELEMENTS / COLS, COLS, NULL, r->q8);
}

static void run_swiglu(void *arg)
{
    struct rest *r = arg;
    wk_glu(r->e, WK_SILU, r->x, r->w, r->y, ELEMENTS);
}

static void run_rope(void *arg)
{
    struct rest *r = arg;
    wk_rope(r->e, WK_ROPE_PAIRS, r->y, ELEMENTS / (HEADS * DIM), HEADS, DIM, DIM, r->cos, r->sin);
}

static void run_sum_add(void *arg)
{
    struct rest *r = arg;
    (void)wk_sum_add(r->e, r->sum, r->y, ELEMENTS);
}

static void run_attention(void *arg)
{
    struct rest *r = arg;
    wk_attention(r->e, &r->kv, r->x, r->n, HEADS, r->position,
                 &(struct wk_attention_spec){.scale = 0.1f}, r->y, r->scratch);
}

static void bench_attention(struct wk_engine *e, struct rest *r)
{
    static const struct {
        enum wk_kv_type type;
        const char *name;
    } types[] = {{WK_KV_F32, "f32"}, {WK_KV_F16, "f16"}, {WK_KV_Q8_0, "q8_0"}};
    float *k = kd_floats(&seed, (size_t)LENGTH * KV_HEADS * DIM);
    r->scratch = kd_alloc(wk_attention_scratch(e, HEADS, DIM));
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const size_t bytes = wk_kv_bytes(types[i].type, KV_HEADS, DIM, LENGTH);
        r->kv = (struct wk_kv){types[i].type, KV_HEADS, DIM, LENGTH, kd_alloc(bytes)};
        wk_kv_put(e, &r->kv, 0, LENGTH, k, k);
        for (r->n = 1; r->n <= (is_ref(e->table) ? 1 : ELEMENTS / (HEADS * DIM)); r->n *= 64) {
            r->position = LENGTH - r->n;
            const double s = roofline_best(run_attention, r, size.budget_s);
            /* each row sees half of its own step's positions on average */
            const double seen = LENGTH - (r->n - 1) / 2.0;
            add((struct result){.slot = "attention",
                                .isa = wk_table_name(e->table),
                                .type = types[i].name,
                                .threads = wk_pool_threads(e->pool),
                                .rows = r->n,
                                .ns = s * 1e9,
                                .gbps = (double)bytes / s * 1e-9,
                                .gops = 4.0 * r->n * HEADS * DIM * seen / s * 1e-9,
                                .of = ""});
            printf(", %s %u row%s %.0f us", types[i].name, r->n, r->n == 1 ? "" : "s", s * 1e6);
        }
        free(r->kv.data);
    }
    free(r->scratch);
    free(k);
}

static void bench_rest(struct wk_engine *e)
{
    static const struct {
        const char *slot;
        void (*run)(void *);
        double bytes; /* of an element, in and out */
    } slots[] = {{"quantise", run_quantise, 4 + (double)sizeof(struct wk_q8) / WK_BLOCK},
                 {"norm", run_norm, 8},
                 {"norm_quantise", run_norm_quantise, 4 + (double)sizeof(struct wk_q8) / WK_BLOCK},
                 {"swiglu", run_swiglu, 12},
                 {"rope", run_rope, 8},
                 {"sum_add", run_sum_add, 16}};
    struct rest r = {.e = e, .x = kd_floats(&seed, ELEMENTS), .w = kd_floats(&seed, ELEMENTS)};
    r.y = kd_floats(&seed, ELEMENTS);
    r.cos = kd_floats(&seed, ELEMENTS / HEADS);
    r.sin = kd_floats(&seed, ELEMENTS / HEADS);
    for (size_t i = 0; i < ELEMENTS / HEADS;
         i++) { /* a true angle: rotated over and over, y stays */
        r.cos[i] = 0.6f;
        r.sin[i] = 0.8f;
    }
    r.sum = kd_alloc(ELEMENTS * sizeof *r.sum);
    memset(r.sum, 0, ELEMENTS * sizeof *r.sum); /* added over and over: x must stay in range */
    r.q8 = kd_alloc(wk_act_bytes(ELEMENTS / COLS, COLS));
    printf("%-10s %u: ns per element:", wk_table_name(e->table), wk_pool_threads(e->pool));
    for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++) {
        const double s = roofline_best(slots[i].run, &r, size.budget_s) / ELEMENTS;
        add((struct result){.slot = slots[i].slot,
                            .isa = wk_table_name(e->table),
                            .type = "f32",
                            .threads = wk_pool_threads(e->pool),
                            .rows = 0,
                            .ns = s * 1e9,
                            .gbps = slots[i].bytes / s * 1e-9,
                            .of = ""});
        printf(" %s %.3f", slots[i].slot, s * 1e9);
    }
    printf("; attention");
    bench_attention(e, &r);
    printf("\n");
    free(r.x);
    free(r.w);
    free(r.y);
    free(r.cos);
    free(r.sin);
    free(r.sum);
    free(r.q8);
}

/* ------------------------------------------------------------------ the run */

struct options {
    unsigned threads[2];
    size_t n_threads;
    const char *table, *out;
    uint32_t type; /* WK_TYPE_COUNT: every one */
};

struct run {
    struct wk_engine e[2]; /* by number of threads */
    size_t n_e;
    const struct wk_table *tables[KD_TABLES_MAX];
    size_t n_tables;
};

static void run_type(struct run *run, enum wk_type type)
{
    struct wk_matrix w = make_matrix(type);
    for (size_t i = 0; i < run->n_tables; i++)
        for (size_t k = 0; k < run->n_e; k++) {
            struct wk_engine *e = &run->e[k];
            e->table = run->tables[i];
            if (is_ref(e->table) && k > 0) /* slow, and the same with every number of threads */
                continue;
            bench_products(e, &w);
            print_products(wk_table_name(e->table), type_name(type), wk_pool_threads(e->pool));
            if (i + 1 == run->n_tables && !is_ref(e->table))
                bench_blas(e, &w);
        }
    weft_pages_free(w.data, wk_matrix_bytes(type, w.rows, COLS));
}

static void run_all(struct run *run, uint32_t type)
{
    for (size_t k = 0; k < run->n_e; k++)
        bench_limits(&run->e[k], run->tables, run->n_tables);
    print_product_head();
    for (uint32_t t = 0; t < WK_TYPE_COUNT; t++)
        if (wk_type_supported(t) && (type == WK_TYPE_COUNT || t == type))
            run_type(run, (enum wk_type)t);
    printf("\nThe rest, by threads\n");
    for (size_t i = 0; i < run->n_tables; i++)
        for (size_t k = 0; k < run->n_e; k++) {
            run->e[k].table = run->tables[i];
            if (!is_ref(run->tables[i]) || k == 0)
                bench_rest(&run->e[k]);
        }
}

static _Noreturn void die(const char *what, const char *found)
{
    fprintf(stderr, "bench_kernels: %s '%s'\n", what, found);
    exit(2);
}

static uint32_t find_type(const char *name)
{
    for (uint32_t t = 0; t < WK_TYPE_COUNT; t++)
        if (wk_type_supported(t) && strcasecmp(type_name((enum wk_type)t), name) == 0)
            return t;
    die("unknown type", name);
}

static unsigned all_threads(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

static void parse(int argc, char **argv, struct options *o)
{
    int c;
    *o = (struct options){.threads = {1, all_threads()}, .type = WK_TYPE_COUNT};
    o->n_threads = o->threads[1] > 1 ? 2 : 1;
    while ((c = getopt(argc, argv, "t:T:y:qo:")) != -1)
        switch (c) {
        case 't':
            o->threads[0] = (unsigned)strtoul(optarg, NULL, 10);
            o->n_threads = 1;
            if (o->threads[0] < 1 || o->threads[0] > 64)
                die("-t: expected 1 to 64 threads, found", optarg);
            break;
        case 'T':
            o->table = optarg;
            break;
        case 'y':
            o->type = find_type(optarg);
            break;
        case 'q':
            size.vector_bytes = 4 << 20;
            size.batch_bytes = 1 << 20;
            size.budget_s = 0;
            break;
        case 'o':
            o->out = optarg;
            break;
        default:
            exit(2); /* getopt has said why */
        }
    if (optind < argc)
        die("unexpected argument", argv[optind]);
}

int main(int argc, char **argv)
{
    struct options o;
    struct run run = {0};
    parse(argc, argv, &o);
    if (o.table == NULL)
        run.n_tables = wk_table_list(run.tables, KD_TABLES_MAX);
    else if ((run.tables[0] = wk_table_select(o.table)) != NULL)
        run.n_tables = 1;
    else
        die("this CPU has no table", o.table);
    for (; run.n_e < o.n_threads; run.n_e++) {
        run.e[run.n_e].pool = wk_pool_open(o.threads[run.n_e]);
        if (run.e[run.n_e].pool == NULL)
            die("no pool of threads", "");
    }
    run_all(&run, o.type);
    for (size_t k = 0; k < run.n_e; k++)
        wk_pool_close(run.e[k].pool);
    if (o.out != NULL && !write_csv(o.out)) {
        perror(o.out);
        return 1;
    }
    return 0;
}
