/*
 * The instruction sets of 64-bit ARM: NEON is part of the architecture, the system says which of
 * the rest the CPU has. Built on arm64 only.
 */
#include "kernels/table.h"

#include <asm/hwcap.h>
#include <sys/auxv.h>

static bool has_neon(void)
{
    return true;
}

static bool has_dotprod(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
}

static bool has_i8mm(void)
{
    return has_dotprod() && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
}

const struct wk_isa wk_isas[] = {
    {"neon", has_neon, wk_fill_neon},
    {"dotprod", has_dotprod, wk_fill_dotprod},
    {"i8mm", has_i8mm, wk_fill_i8mm},
    {0},
};

void wk_cpu_relax(void)
{
    __asm__ volatile("yield");
}
