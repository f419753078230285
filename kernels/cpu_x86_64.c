/*
 * The instruction sets of x86-64 and what a CPU must have for each: every flag that the Makefile
 * builds its file with. Built on x86-64 only.
 */
#include "kernels/table.h"

#include <cpuid.h>

/* Not by __builtin_cpu_supports, to which clang 14 knows no "f16c". */
static bool has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

/* That the system saves the wide registers is part of what the builtin says of AVX2. */
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

const struct wk_isa wk_isas[] = {
    {"avx2", has_avx2, wk_fill_avx2},
    {"avx512", has_avx512, wk_fill_avx512},
    {"avx512vnni", has_avx512vnni, wk_fill_avx512vnni},
    {0},
};

void wk_cpu_relax(void)
{
    __builtin_ia32_pause();
}
