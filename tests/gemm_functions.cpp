// Compiled once for each instruction set, as the CPU kernels are. Nothing here may leave a function that the
// linker would share with code for other sets.
#include "tests/gemm_functions.h"

#include "kernels/linear/gemm_cpu.h"

namespace gm::GM_CPU_NS {

const test::GemmFunctions& gemm_functions() {
  static constexpr test::GemmFunctions table = {
      kLanes,
      kPanelWidth,
      gemm_scratch,
      gemm_tn_scratch,
      packed_b_floats,
      gemm_packed,
      {gemm<float>, gemm_tn<float, float>, gemm_nt<float, float>, pack_b<float>},
      {gemm<bf16>, gemm_tn<bf16, bf16>, gemm_nt<float, bf16>, pack_b<bf16>}};
  return table;
}

}  // namespace gm::GM_CPU_NS
