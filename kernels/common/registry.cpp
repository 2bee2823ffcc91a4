// The list of ops and the per-backend kernel tables. No static-initializer registration: libraries that carry
// a backend install their table explicitly.
#include <array>

#include "kernels/common/op.h"

namespace gm {

#define GM_OP(name) const OpDef& name##_def();
#define GM_OP_FORWARD(name) const OpDef& name##_def();
#include "kernels/op_list.inc"
#undef GM_OP
#undef GM_OP_FORWARD

std::span<const OpDef* const> all_ops() {
  static const OpDef* const ops[] = {
#define GM_OP(name) &name##_def(),
#define GM_OP_FORWARD(name) &name##_def(),
#include "kernels/op_list.inc"
#undef GM_OP
#undef GM_OP_FORWARD
  };
  return ops;
}

const OpDef& find_op(std::string_view name) {
  for (const OpDef* op : all_ops())
    if (op->name == name) return *op;
  fail("unknown op '" + std::string(name) + "'");
}

std::string case_text(const OpDef& op, const OpCase& c) {
  std::string s = std::string(op.name) + " [" + c.attrs.str() + "]";
  for (const auto& in : c.in) s += " " + (in.fill == Fill::absent ? std::string("-") : in.spec.str());
  return s;
}

int op_index(const OpDef& op) {
  auto ops = all_ops();
  for (size_t i = 0; i < ops.size(); ++i)
    if (ops[i] == &op) return static_cast<int>(i);
  fail("op '" + std::string(op.name) + "' is not in op_list.inc");
}

namespace {
std::array<std::span<const KernelPair>, kBackends>& tables() {
  static std::array<std::span<const KernelPair>, kBackends> t;
  return t;
}
}  // namespace

std::span<const KernelPair> kernel_table(Backend backend) { return tables()[static_cast<int>(backend)]; }
void install_kernel_table(Backend backend, std::span<const KernelPair> table) {
  tables()[static_cast<int>(backend)] = table;
}

}  // namespace gm
