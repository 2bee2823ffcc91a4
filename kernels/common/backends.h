// The libraries that carry kernels. Each call installs one backend's table; calling twice is harmless.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace gm {

/// Installs the kernels of the widest instruction set that this processor has.
void install_cpu_kernels();
/// Its name: "avx512", "avx2" or "baseline" (x86-64, and other processors).
const char* cpu_kernels_name();

/// For tests: all that this processor has, widest first, and the kernels of one of them.
std::vector<std::string> cpu_kernels_names();
void install_cpu_kernels(std::string_view name);

/// Dull double-precision kernels: the oracle of tests and gm_check.
void install_reference_kernels();
/// The CUDA sources compiled for the host and run on fibers: tests and gm_check.
void install_simt_kernels();
/// Hand-written CUDA kernels. Present only in builds with CUDA (GM_HAS_CUDA).
void install_cuda_kernels();

}  // namespace gm
