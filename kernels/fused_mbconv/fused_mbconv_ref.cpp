#include <vector>

#include "kernels/activation/activation_ref.h"
#include "kernels/common/op.h"
#include "kernels/conv2d/conv2d_ref.h"
#include "kernels/fused_mbconv/fused_mbconv.h"

namespace gm::ref {

void fused_mbconv_forward(const OpCall& c) {
  const FusedMbconvShape s = fused_mbconv_shape(c.attrs, c.in);
  auto in = [&](size_t i) { return c.in[i].as<double>(); };
  double* const y = c.out[0].as<double>();
  const int64_t pixels = s.expand.out_pixels(), expanded = s.expand.k, filters = s.project.k;
  std::vector<double> e(static_cast<size_t>(s.expanded_values()));
  for (size_t i = 0; i < e.size(); ++i) e[i] = in(2)[i % static_cast<size_t>(expanded)];
  conv_products(s.expand, [&](int64_t x, int64_t w, int64_t i) { e[i] += in(0)[x] * in(1)[w]; });
  for (double& v : e) v = act_value(s.act, v);
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t k = 0; k < filters; ++k) {
      double sum = in(4)[k] + (s.residual ? in(0)[p * filters + k] : 0);
      for (int64_t j = 0; j < expanded; ++j) sum += e[p * expanded + j] * in(3)[k * expanded + j];
      y[p * filters + k] = sum;
    }
}

}  // namespace gm::ref
