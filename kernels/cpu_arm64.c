/*
 * The instruction sets of 64-bit ARM: NEON is part of the architecture. Built on arm64 only.
 */
#include "kernels/table.h"

static bool has_neon(void)
{
    return true;
}

const struct wk_isa wk_isas[] = {
    {"neon", has_neon, wk_fill_neon},
    {0},
};

void wk_cpu_relax(void)
{
    __asm__ volatile("yield");
}
