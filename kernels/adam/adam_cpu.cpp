#include "kernels/adam/adam.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"

namespace gm::GM_CPU_NS {

namespace {

// The mode is a template argument so that the loop has no branches and vectorises.
template <bool kEpsilonHat, bool kDecoupled, bool kMask>
void update(const OpCall& c) {
  const float* grad = c.in[0].as<float>();
  [[maybe_unused]] const uint8_t* mask = kMask ? c.in[2].as<uint8_t>() : nullptr;
  float *param = c.state[0].as<float>(), *m = c.state[1].as<float>(), *v = c.state[2].as<float>();
  bf16* copy = c.out.empty() ? nullptr : c.out[0].as<bf16>();
  float h[8];
  for (int k = 0; k < 8; ++k) h[k] = c.in[1].as<float>()[k];
  c.ctx.pool->ranges(c.in[0].numel(), 4096, [&](int64_t begin, int64_t end, int) {
#pragma GCC ivdep  // the buffers are distinct
    for (int64_t i = begin; i < end; ++i) {
      bool decays = true;
      if constexpr (kMask) decays = mask[i] != 0;
      adam_update({kEpsilonHat, kDecoupled}, h, decays, grad[i], param[i], m[i], v[i]);
    }
    if (copy)
      for (int64_t i = begin; i < end; ++i) copy[i] = to_bf16(param[i]);
  });
}

template <bool kEpsilonHat, bool kDecoupled>
void update(const OpCall& c) {
  if (c.in.size() > 2 && c.in[2])
    update<kEpsilonHat, kDecoupled, true>(c);
  else
    update<kEpsilonHat, kDecoupled, false>(c);
}

}  // namespace

void adam_forward(const OpCall& c) {
  const AdamMode mode = adam_mode(c.attrs);
  if (mode.epsilon_hat)
    mode.decoupled ? update<true, true>(c) : update<true, false>(c);
  else
    mode.decoupled ? update<false, true>(c) : update<false, false>(c);
}

}  // namespace gm::GM_CPU_NS
