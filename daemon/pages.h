/*
 * Memory by whole pages, for what is large: packed weights, KV cache, scratch.
 *
 * Invariant: pages are zero until written, take no memory until touched, and go back to the system
 * as soon as they are freed. Any thread.
 */
#ifndef WEFT_DAEMON_PAGES_H
#define WEFT_DAEMON_PAGES_H

#include <stdint.h>

/* Zeroed memory, aligned to a page; NULL when size is 0 or the address space is used up. The caller
 * has compared the size with the memory that is free: the system itself promises nothing. */
void *weft_pages_alloc(uint64_t size);
/* Likewise, for what will be written whole and is read from end to end again and again: from 2 MiB
 * on aligned to that and, where the system allows it, in huge pages, so that no read waits for an
 * address to be translated. */
void *weft_pages_alloc_huge(uint64_t size);
/* `size` as given to weft_pages_alloc or _huge; accepts NULL. */
void weft_pages_free(void *p, uint64_t size);
/* Gives the memory of the whole pages within [p, p + size) back; what is read there next is zero.
 */
void weft_pages_forget(void *p, uint64_t size);

#endif
