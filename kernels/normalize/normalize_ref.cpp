#include "kernels/common/op.h"
#include "kernels/normalize/normalize.h"

namespace gm::ref {

void normalize_forward(const OpCall& c) {
  const int64_t channels = c.in[0].shape().channels();
  double* y = c.out[0].as<double>();
  for (int64_t i = 0; i < c.in[0].numel(); ++i) {
    const std::string k = std::to_string(i % channels);
    const double x =
        c.in[0].dtype() == DType::u8 ? double(c.in[0].as<uint8_t>()[i]) : c.in[0].as<double>()[i];
    y[i] = (x - c.attrs.get("mean" + k, 0)) / c.attrs.get("std" + k, 1);
  }
}

void normalize_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const int64_t channels = c.dout[0].shape().channels();
  const double* dy = c.dout[0].as<double>();
  double* dx = c.din[0].view.as<double>();
  for (int64_t i = 0; i < c.dout[0].numel(); ++i) {
    const double g = dy[i] / c.attrs.get("std" + std::to_string(i % channels), 1);
    dx[i] = (c.din[0].mode == GradMode::accumulate ? dx[i] : 0) + g;
  }
}

}  // namespace gm::ref
