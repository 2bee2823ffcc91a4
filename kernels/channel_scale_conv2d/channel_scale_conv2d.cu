#include "kernels/channel_scale_conv2d/scaled_steps.h"
#include "kernels/common/joint_choice.cuh"
#include "kernels/conv2d/conv2d_deep.cuh"

namespace gm::GM_BACKEND_NS {

void channel_scale_forward(const OpCall&);
void conv2d_forward(const OpCall&);

namespace {
/// All of a call in one line, for the file of plans.
std::string scaled_conv_key(const OpCall& c, const DeepTiles& p) {
  std::string key = "scaled";
  for (int v : {p.pixels, p.image_pixels, p.c, p.k, int(act_of(c.attrs)), int(bool(c.in[3])),
                int(bool(scaled_conv_residual(c.in)))})
    key += ' ' + std::to_string(v);
  return key;
}
}  // namespace

void channel_scale_conv2d_forward(const OpCall& c) {
  auto apart = [](const OpCall& call) { scaled_conv_steps(call, channel_scale_forward, conv2d_forward); };
  const auto p = deep_conv(conv_geometry(c.attrs, c.in[0], c.in[2]), true);
  if (!p) return apart(c);
  auto joint = [&p](const OpCall& call) {
    const Bf16Conv t{call.in[0].as<bf16>(),
                     call.in[2].as<bf16>(),
                     call.in[3].as<float>(),
                     act_of(call.attrs),
                     scaled_conv_residual(call.in).as<bf16>(),
                     call.out[0].as<bf16>()};
    launch_deep(*p, t, call.in[1].as<float>(), call.ctx);
  };
  if (joint_pays(c, scaled_conv_key(c, *p), p->shared_bytes(), apart, joint)) return joint(c);
  apart(c);
}

}  // namespace gm::GM_BACKEND_NS
