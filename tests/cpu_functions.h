// What the CPU's kernels are made of, for each instruction set that they are compiled for. With
// GM_CPU_X86_VARIANTS (tests/CMakeLists.txt) there are AVX2 and AVX-512 besides the baseline.
#pragma once
#include <string>

#include "tests/gemm_functions.h"
#include "tests/vec_functions.h"

namespace gm {

namespace cpu_baseline {
const test::VecFunctions& vec_functions();
const test::GemmFunctions& gemm_functions();
}  // namespace cpu_baseline
#ifdef GM_CPU_X86_VARIANTS
namespace cpu_avx2 {
const test::VecFunctions& vec_functions();
const test::GemmFunctions& gemm_functions();
}  // namespace cpu_avx2
namespace cpu_avx512 {
const test::VecFunctions& vec_functions();
const test::GemmFunctions& gemm_functions();
}  // namespace cpu_avx512
#endif

namespace test {

struct CpuFunctions {
  const VecFunctions& vec;
  const GemmFunctions& gemm;
};

/// set: of cpu_kernels_names().
inline CpuFunctions cpu_functions(const std::string& set) {
#ifdef GM_CPU_X86_VARIANTS
  if (set == "avx512") return {cpu_avx512::vec_functions(), cpu_avx512::gemm_functions()};
  if (set == "avx2") return {cpu_avx2::vec_functions(), cpu_avx2::gemm_functions()};
#endif
  return {cpu_baseline::vec_functions(), cpu_baseline::gemm_functions()};
}

}  // namespace test

}  // namespace gm
