// The libraries that carry kernels. Each call installs one backend's table; calling twice is harmless.
#pragma once

namespace gm {

/// Picks the widest instruction set this CPU has (x86-64 baseline, AVX2, AVX-512) and installs its kernels.
void install_cpu_kernels();
/// "avx512", "avx2" or "baseline": what install_cpu_kernels chose.
const char* cpu_kernels_name();

/// Dull double-precision kernels: the oracle of tests and gm_check.
void install_reference_kernels();
/// The CUDA sources compiled for the host and run on fibers: tests and gm_check.
void install_simt_kernels();
/// Hand-written CUDA kernels. Present only in builds with CUDA (GM_HAS_CUDA).
void install_cuda_kernels();

}  // namespace gm
