#include "kernels/mix/mix.h"

#include "kernels/common/op.h"

namespace gm::ref {

void mix_forward(const OpCall& c) {
  const Shape& s = c.in[0].shape();
  const double* x = c.in[0].as<double>();
  double *y = c.out[0].as<double>(), *t = c.out[1].as<double>();
  const int64_t n = s[0], h = s[1], w = s[2], channels = s[3], classes = c.out[1].shape()[1];
  auto target = [&](int64_t image, int64_t k) {
    if (c.in[1].dtype() == DType::i32) return c.in[1].as<int32_t>()[image] == k ? 1. : 0.;
    return c.in[1].as<double>()[image * classes + k];
  };
  const MixDraw draw = mix_draw(mix_params(c.attrs), c.ctx.step, int(h), int(w));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t row = 0; row < h; ++row)
      for (int64_t column = 0; column < w; ++column)
        for (int64_t k = 0; k < channels; ++k) {
          auto at = [&](int64_t image) { return ((image * h + row) * w + column) * channels + k; };
          const double a = draw.at(int(row), int(column));
          y[at(i)] = a * x[at(i)] + (1 - a) * x[at(n - 1 - i)];
        }
    for (int64_t k = 0; k < classes; ++k)
      t[i * classes + k] = draw.lambda * target(i, k) + (1. - draw.lambda) * target(n - 1 - i, k);
  }
}

}  // namespace gm::ref
