/*
 * The tables of this machine: ref, then each instruction set the CPU has, each begun as a copy of
 * the one before and overwritten slot by slot. Built once, on first use, by whichever thread comes
 * first; never changed afterwards.
 */
#include "kernels/table.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { TABLES_MAX = 8 }; /* ref and the instruction sets of one architecture */

static struct wk_table tables[TABLES_MAX];
static size_t n_tables;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void build(void)
{
    wk_fill_ref(&tables[n_tables++]);
    for (const struct wk_isa *isa = wk_isas; isa->name != NULL && isa->usable(); isa++) {
        assert(n_tables < TABLES_MAX);
        tables[n_tables] = tables[n_tables - 1];
        tables[n_tables].name = isa->name;
        isa->fill(&tables[n_tables++]);
    }
}

const struct wk_table *wk_table_select(const char *name)
{
    pthread_once(&once, build);
    if (name == NULL)
        name = getenv("WEFT_ISA");
    if (name == NULL || name[0] == '\0')
        return &tables[n_tables - 1];
    for (size_t i = 0; i < n_tables; i++)
        if (strcmp(tables[i].name, name) == 0)
            return &tables[i];
    return NULL;
}

const char *wk_table_name(const struct wk_table *table)
{
    return table->name;
}

size_t wk_table_list(const struct wk_table **ret, size_t n)
{
    pthread_once(&once, build);
    n = n < n_tables ? n : n_tables;
    for (size_t i = 0; i < n; i++)
        ret[i] = &tables[i];
    return n;
}
