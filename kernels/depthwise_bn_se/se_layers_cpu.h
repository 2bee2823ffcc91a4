// The two layers of squeeze-and-excitation on the CPU, composed of the ops for them.
#pragma once
#include "kernels/activation/activation.h"
#include "kernels/common/op.h"

namespace gm::GM_CPU_NS {

void activation_forward(const OpCall&);
void linear_forward(const OpCall&);

/// gate from pooled. layers: w_squeeze, b_squeeze, w_excite, b_excite. acted may be squeezed and gate may be
/// excited where what lies between is not asked for.
struct SeForwardCpu {
  std::span<const View> layers;
  Act act;
  View pooled, squeezed, acted, excited, gate, workspace;

  void run(const Context& ctx) const {
    const auto linear = [&](const View& x, size_t weights, const View& y) {
      const View in[] = {x, layers[weights], layers[weights + 1]}, out[] = {y};
      linear_forward(OpCall{{}, in, out, {}, {}, {}, {}, workspace, ctx});
    };
    const auto activate = [&](Act a, const View& z, const View& y) {
      const View in[] = {z}, out[] = {y};
      activation_forward(OpCall{act_attrs(a), in, out, {}, {}, {}, {}, {}, ctx});
    };
    linear(pooled, 0, squeezed);
    activate(act, squeezed, acted);
    linear(acted, 2, excited);
    activate(Act::sigmoid, excited, gate);
  }
};

}  // namespace gm::GM_CPU_NS
