// REINFORCE (Williams 1992) for one decision among C options, with ENAS's shaping of the logits (Pham et al.
// 2018, arXiv:1802.03268, section 2.2 and their code) and an entropy bonus:
//   u = constant * tanh(z / temperature)          constant 0: u = z / temperature
//   p = softmax(u)        H = -sum_k p_k log p_k
//   loss_n = -advantage_n * log p_n[action_n] - entropy_weight * H_n
// attrs  temperature > 0, default 1; constant >= 0, default 0; entropy_weight, default 0
// in[0]  z          (N, C) f32 logits
// in[1]  action     (N)    i32, 0 .. C-1
// in[2]  advantage  (N)    f32
// out[0] loss       (N)    f32, one a row: backward started with ones gives the gradient of their sum
// saved  [0] log p (N, C)   [1] du / dz (N, C)
// Backward reads action, advantage and saved:
//   dz_k = dloss_n * du/dz_k * (advantage (p_k - [k = action]) + entropy_weight * p_k (log p_k + H))
// f32 only, as lstm_cell.
#pragma once
#include "kernels/common/attrs.h"

namespace gm {

struct PolicyShape {
  float temperature, constant, entropy_weight;
};
inline PolicyShape policy_shape(const Attrs& a) {
  return {static_cast<float>(a.get("temperature", 1)), static_cast<float>(a.get("constant", 0)),
          static_cast<float>(a.get("entropy_weight", 0))};
}

}  // namespace gm
