/* The peaks of 64-bit ARM. */
#include "tests/peak/peak.h"

const struct peak *const peaks[] = {&peak_generic, &peak_neon, &peak_dotprod, &peak_i8mm, NULL};
