#define GM_BACKEND_NS simt_dev
#include "kernels/common/kernel_table.inc"

#include "kernels/common/backends.h"

namespace gm {
void install_simt_kernels() { install_kernel_table(Backend::simt, simt_dev::kernel_table()); }
}  // namespace gm
