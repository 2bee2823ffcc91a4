#define GM_BACKEND_NS cuda
#include "kernels/common/kernel_table.inc"

#include "kernels/common/backends.h"

namespace gm {
void install_cuda_kernels() { install_kernel_table(Backend::cuda, cuda::kernel_table()); }
}  // namespace gm
