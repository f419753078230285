/* The peaks of x86-64. */
#include "tests/peak/peak.h"

const struct peak *const peaks[] = {&peak_generic, &peak_avx2, &peak_avx512, &peak_avx512vnni,
                                    NULL};
