#include "kernels/batch_norm/bn_ref.h"
#include "kernels/common/op.h"
#include "kernels/depthwise_conv2d/depthwise_ref.h"
#include "kernels/depthwise_se/depthwise_se.h"

namespace gm::ref {

void depthwise_se_forward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const Act act = act_of(c.attrs);
  const int64_t squeeze = c.in[3].shape()[0], pixels = d.out_height * d.out_width;
  auto at = [&](int input, int64_t i) { return c.in[input] ? c.in[input].as<double>()[i] : 0.0; };
  double* y = c.out[0].as<double>();
  dw_forward(d, c.in[0].as<double>(), c.in[1].as<double>(), y);
  for (int64_t n = 0; n < d.images; ++n) {
    double* image = y + n * d.out_image();
    std::vector<double> pooled(d.channels), acted(squeeze);
    for (int64_t i = 0; i < d.out_image(); ++i) {
      image[i] = act_value(act, image[i] + at(2, i % d.channels));
      pooled[i % d.channels] += image[i] / double(pixels);
    }
    for (int64_t s = 0; s < squeeze; ++s) {
      double z = at(4, s);
      for (int64_t k = 0; k < d.channels; ++k) z += at(3, s * d.channels + k) * pooled[k];
      acted[s] = act_value(act, z);
    }
    for (int64_t k = 0; k < d.channels; ++k) {
      double z = at(6, k);
      for (int64_t s = 0; s < squeeze; ++s) z += at(5, k * squeeze + s) * acted[s];
      const double gate = act_value(Act::sigmoid, z);
      if (gate_apart(c.attrs))
        c.out[1].as<double>()[n * d.channels + k] = gate;
      else
        for (int64_t p = 0; p < pixels; ++p) image[p * d.channels + k] *= gate;
    }
  }
}

}  // namespace gm::ref
