/*
 * Memory by whole pages, see pages.h: anonymous private mappings. Any thread.
 */
#include "daemon/pages.h"

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

void *weft_pages_alloc(uint64_t size)
{
    if (size == 0 || size > PTRDIFF_MAX)
        return NULL;
    /* NORESERVE: a KV cache for the longest context may be larger than what is ever written. */
    void *p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p != MAP_FAILED ? p : NULL;
}

void weft_pages_free(void *p, uint64_t size)
{
    if (p != NULL)
        (void)munmap(p, (size_t)size);
}

void weft_pages_forget(void *p, uint64_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = ((uintptr_t)p + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)p + (uintptr_t)size) / page * page;
    if (first < end)
        (void)madvise((void *)first, end - first, MADV_DONTNEED);
}
