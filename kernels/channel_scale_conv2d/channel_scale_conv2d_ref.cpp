#include "kernels/activation/activation_ref.h"
#include "kernels/channel_scale_conv2d/channel_scale_conv2d.h"
#include "kernels/common/op.h"

namespace gm::ref {

void channel_scale_conv2d_forward(const OpCall& c) {
  const Shape &x = c.in[0].shape(), &y = c.out[0].shape();
  const int64_t pixels = x[1] * x[2], channels = x[3], filters = y[3];
  auto at = [&](size_t input, int64_t i) { return c.in[input].as<double>()[i]; };
  for (int64_t n = 0; n < x[0]; ++n)
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t k = 0; k < filters; ++k) {
        const int64_t pixel = n * pixels + p, i = pixel * filters + k;
        double sum = c.in[3] ? at(3, k) : 0;
        for (int64_t j = 0; j < channels; ++j)
          sum += at(0, pixel * channels + j) * at(1, n * channels + j) * at(2, k * channels + j);
        c.out[0].as<double>()[i] =
            act_value(act_of(c.attrs), sum) + (scaled_conv_residual(c.in) ? at(4, i) : 0);
      }
}

}  // namespace gm::ref
