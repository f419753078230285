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

enum { HUGE_PAGE = 2 << 20 }; /* of x86-64, and of arm64 with pages of 4 KiB */

void *weft_pages_alloc_huge(uint64_t size)
{
    if (size < HUGE_PAGE || size > PTRDIFF_MAX - HUGE_PAGE)
        return weft_pages_alloc(size);
    uint8_t *p = weft_pages_alloc(size + HUGE_PAGE);
    if (p == NULL)
        return NULL;
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), whole = (size + page - 1) / page * page;
    const uint64_t before = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    const uint64_t end = (size + HUGE_PAGE + page - 1) / page * page; /* of the mapping */
    if (before > 0)
        (void)munmap(p, before);
    if (end > before + whole)
        (void)munmap(p + before + whole, end - before - whole);
    (void)madvise(p + before, whole, MADV_HUGEPAGE); /* a wish: small pages do as well */
    return p + before;
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
