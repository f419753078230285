/*
 * Reading with what every processor of the architecture has, and where results go.
 */
#include "tests/peak/read.h"

const struct peak peak_generic = {.isa = "ref", .read = read_memory};

void peak_keep(const void *data)
{
    __asm__ volatile("" : : "r"(data) : "memory");
}
