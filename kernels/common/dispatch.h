// From run-time attributes to template arguments: one switch for the CPU and the CUDA launchers.
#pragma once
#include "kernels/activation/activation.h"
#include "kernels/common/dtype.h"

namespace gm {

/// Calls f with the activation as a compile-time constant: act_switch(act, [&](auto a) { ... a.value ... }).
template <Act A>
struct ActTag {
  static constexpr Act value = A;
};
template <class F>
void act_switch(Act act, F&& f) {
  switch (act) {
    case Act::none:
      return f(ActTag<Act::none>{});
    case Act::silu:
      return f(ActTag<Act::silu>{});
    case Act::relu:
      return f(ActTag<Act::relu>{});
    case Act::relu6:
      return f(ActTag<Act::relu6>{});
    case Act::sigmoid:
      return f(ActTag<Act::sigmoid>{});
  }
}
/// Calls f with a value of the element type: float or bf16.
template <class F>
void float_switch(DType t, F&& f) {
  if (t == DType::bf16) return f(bf16{});
  return f(float{});
}

}  // namespace gm
