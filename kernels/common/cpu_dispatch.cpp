// The CPU kernels are compiled once per instruction set (kernels/CMakeLists.txt); this picks one at run time.
#include <cstdlib>
#include <string>
#include <vector>

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

struct InstructionSet {
  const char* name;
  std::span<const KernelPair> table;
};
// Those of this processor, widest first.
std::vector<InstructionSet> choose() {
  // GM_CPU=baseline|avx2|avx512 asks for less than the machine has: comparisons.
  const char* wish = std::getenv("GM_CPU");
  const std::string limit = wish ? wish : "avx512";
  std::vector<InstructionSet> sets;
#ifdef GM_CPU_X86_VARIANTS
  __builtin_cpu_init();
  if (limit == "avx512" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    sets.push_back({"avx512", cpu_avx512::kernel_table()});
  if (limit != "baseline" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    sets.push_back({"avx2", cpu_avx2::kernel_table()});
#endif
  sets.push_back({"baseline", cpu_baseline::kernel_table()});
  return sets;
}
const std::vector<InstructionSet>& choices() {
  static const std::vector<InstructionSet> sets = choose();
  return sets;
}

}  // namespace

void install_cpu_kernels() { install_cpu_kernels(cpu_kernels_name()); }
void install_cpu_kernels(std::string_view name) {
  for (const InstructionSet& set : choices())
    if (set.name == name) return install_kernel_table(Backend::cpu, set.table);
  fail("no CPU kernels for '" + std::string(name) + "' here");
}

const char* cpu_kernels_name() { return choices().front().name; }
std::vector<std::string> cpu_kernels_names() {
  std::vector<std::string> names;
  for (const InstructionSet& set : choices()) names.push_back(set.name);
  return names;
}

}  // namespace gm
