#include <vector>

#include "kernels/activation/activation_ref.h"
#include "kernels/common/op.h"
#include "kernels/depthwise_conv2d/depthwise_ref.h"
#include "kernels/mbconv/mbconv.h"

namespace gm::ref {

namespace {
// y[row][o] = act(sum_i x[row][i] * w[o][i] + bias[o])
std::vector<double> product(const double* x, int64_t rows, int64_t depth, const double* w, int64_t outputs,
                            const double* bias, Act act) {
  std::vector<double> y(rows * outputs);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t o = 0; o < outputs; ++o) {
      double sum = bias ? bias[o] : 0;
      for (int64_t i = 0; i < depth; ++i) sum += x[r * depth + i] * w[o * depth + i];
      y[r * outputs + o] = act_value(act, sum);
    }
  return y;
}
}  // namespace

void mbconv_forward(const OpCall& c) {
  const MbconvShape s = mbconv_shape(c.attrs, c.in);
  const double* x = c.in[0].as<double>();
  const int64_t e_channels = s.d.channels, pixels = s.out_pixels();
  std::vector<double> e(x, x + s.images() * s.in_image());
  if (s.expand)
    e = product(x, s.images() * s.d.height * s.d.width, s.in_channels, c.in[1].as<double>(), e_channels,
                c.in[2].as<double>(), s.act);
  std::vector<double> d(s.images() * s.d.out_image());
  dw_forward(s.d, e.data(), c.in[3].as<double>(), d.data());
  for (size_t i = 0; i < d.size(); ++i) d[i] = act_value(s.act, d[i] + c.in[4].as<double>()[i % e_channels]);
  if (s.squeeze) {
    std::vector<double> pooled(s.images() * e_channels);
    for (size_t i = 0; i < d.size(); ++i)
      pooled[i / (pixels * e_channels) * e_channels + i % e_channels] += d[i] / double(pixels);
    const auto narrow = product(pooled.data(), s.images(), e_channels, c.in[7].as<double>(), s.squeeze,
                                c.in[8].as<double>(), s.act);
    const auto gate = product(narrow.data(), s.images(), s.squeeze, c.in[9].as<double>(), e_channels,
                              c.in[10].as<double>(), Act::sigmoid);
    for (size_t i = 0; i < d.size(); ++i)
      d[i] *= gate[i / (pixels * e_channels) * e_channels + i % e_channels];
  }
  const auto y = product(d.data(), s.images() * pixels, e_channels, c.in[5].as<double>(), s.out_channels,
                         c.in[6].as<double>(), Act::none);
  for (size_t i = 0; i < y.size(); ++i) c.out[0].as<double>()[i] = y[i] + (s.residual ? x[i] : 0);
}

}  // namespace gm::ref
