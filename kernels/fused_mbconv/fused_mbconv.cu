#include "kernels/fused_mbconv/fused_mbconv.cuh"

#include "kernels/common/joint_choice.cuh"
#include "kernels/fused_mbconv/fused_mbconv_steps.h"

namespace gm::GM_BACKEND_NS {

void conv2d_forward(const OpCall&);

namespace {
/// All of a call in one line, for the file of plans.
std::string fused_mbconv_key(const FusedMbconvShape& s) {
  const ConvGeometry& g = s.expand;
  std::string key = "fused_mbconv";
  for (int64_t v : {g.n, g.h, g.w, g.c, g.k, s.project.k, g.kernel, g.stride, g.pad_top, g.pad_left,
                    g.pad_bottom, g.pad_right, int64_t(s.act), int64_t(s.residual)})
    key += ' ' + std::to_string(v);
  return key;
}
}  // namespace

/// The block by a given cut; for tests.
void fused_mbconv_planned(const OpCall& c, const FusedMbconvTiles& t) {
  const FusedMbconvShape s = fused_mbconv_shape(c.attrs, c.in);
  launch_fused_mbconv(t, s.act, s.residual, c.in[0].as<bf16>(), c.in[1].as<bf16>(), c.in[2].as<float>(),
                      c.in[3].as<bf16>(), c.in[4].as<float>(), c.out[0].as<bf16>(), c.ctx);
}

void fused_mbconv_forward(const OpCall& c) {
  auto apart = [](const OpCall& call) { fused_mbconv_steps(call, conv2d_forward); };
  const FusedMbconvShape s = fused_mbconv_shape(c.attrs, c.in);
  const auto t = fused_mbconv_tiles(s);
  if (!t) return apart(c);
  auto joint = [&t](const OpCall& call) { fused_mbconv_planned(call, *t); };
  if (joint_pays(c, fused_mbconv_key(s), t->shared_bytes(), apart, joint)) return joint(c);
  apart(c);
}

}  // namespace gm::GM_BACKEND_NS
