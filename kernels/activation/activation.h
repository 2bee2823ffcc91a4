// Elementwise activations.
//   silu(x)    = x * sigmoid(x)         (SiLU / swish; both papers' networks)
//   relu(x)    = max(x, 0)
//   relu6(x)   = min(max(x, 0), 6)      (MobileNetV2)
//   sigmoid(x) = 1 / (1 + exp(-x))
// in[0]  x  any shape, f32 or bf16
// out[0] y  shape and dtype of x
// Backward reads x only: dx = dy * f'(x).
#pragma once
#include "kernels/common/attrs.h"

namespace gm {

enum class Act : int { none = 0, silu = 1, relu = 2, relu6 = 3, sigmoid = 4 };

inline Act act_of(const Attrs& attrs) { return static_cast<Act>(attrs.geti("act", 0)); }
/// Attributes of an `activation` op.
inline Attrs act_attrs(Act act) { return {{"act", act}}; }

}  // namespace gm
