// The CPU kernels are compiled once per instruction set (kernels/CMakeLists.txt); this picks one at run time.
#include <cstdlib>
#include <string>

#include "kernels/common/backends.h"
#include "kernels/common/op.h"

namespace gm {

namespace cpu_baseline {
std::span<const KernelPair> kernel_table();
}
#ifdef GM_CPU_X86_VARIANTS
namespace cpu_avx2 {
std::span<const KernelPair> kernel_table();
}
namespace cpu_avx512 {
std::span<const KernelPair> kernel_table();
}
#endif

namespace {
struct Choice {
  const char* name;
  std::span<const KernelPair> table;
};
Choice choose() {
  // GM_CPU=baseline|avx2|avx512 asks for less than the machine has: tests and comparisons.
  const char* wish = std::getenv("GM_CPU");
  const std::string limit = wish ? wish : "avx512";
#ifdef GM_CPU_X86_VARIANTS
  __builtin_cpu_init();
  if (limit == "avx512" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("fma"))
    return {"avx512", cpu_avx512::kernel_table()};
  if (limit != "baseline" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return {"avx2", cpu_avx2::kernel_table()};
#endif
  return {"baseline", cpu_baseline::kernel_table()};
}
const Choice& choice() {
  static const Choice c = choose();
  return c;
}
}  // namespace

void install_cpu_kernels() { install_kernel_table(Backend::cpu, choice().table); }
const char* cpu_kernels_name() { return choice().name; }

}  // namespace gm
