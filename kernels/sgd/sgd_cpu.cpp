#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/sgd/sgd.h"

namespace gm::GM_CPU_NS {

namespace {

template <bool kNesterov, bool kMask>
void update(const OpCall& c) {
  const float* grad = c.in[0].as<float>();
  [[maybe_unused]] const uint8_t* mask = kMask ? c.in[2].as<uint8_t>() : nullptr;
  float *param = c.state[0].as<float>(), *velocity = c.state[1].as<float>();
  bf16* copy = c.out.empty() ? nullptr : c.out[0].as<bf16>();
  float h[8];
  for (int k = 0; k < 8; ++k) h[k] = c.in[1].as<float>()[k];
  c.ctx.pool->ranges(c.in[0].numel(), 4096, [&](int64_t begin, int64_t end, int) {
#pragma GCC ivdep  // the buffers are distinct
    for (int64_t i = begin; i < end; ++i) {
      bool decays = true;
      if constexpr (kMask) decays = mask[i] != 0;
      sgd_update(kNesterov, h, decays, grad[i], param[i], velocity[i]);
    }
    if (copy)
      for (int64_t i = begin; i < end; ++i) copy[i] = to_bf16(param[i]);
  });
}

}  // namespace

void sgd_forward(const OpCall& c) {
  const bool mask = c.in.size() > 2 && c.in[2];
  if (c.attrs.geti("nesterov", 0))
    mask ? update<true, true>(c) : update<true, false>(c);
  else
    mask ? update<false, true>(c) : update<false, false>(c);
}

}  // namespace gm::GM_CPU_NS
