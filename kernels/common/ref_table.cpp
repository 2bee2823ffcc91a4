#define GM_BACKEND_NS ref
#include "kernels/common/kernel_table.inc"

#include "kernels/common/backends.h"

namespace gm {
void install_reference_kernels() { install_kernel_table(Backend::ref, ref::kernel_table()); }
}  // namespace gm
