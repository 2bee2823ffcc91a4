// Compiled once per instruction set, with GM_CPU_NS naming the variant.
#define GM_BACKEND_NS GM_CPU_NS
#include "kernels/common/kernel_table.inc"
