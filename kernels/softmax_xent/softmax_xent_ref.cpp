#include <cmath>
#include <limits>

#include "kernels/common/op.h"
#include "kernels/softmax_xent/softmax_xent.h"

namespace gm::ref {

namespace {
int64_t argmax(const double* v, int64_t n) {
  int64_t best = 0;
  for (int64_t k = 1; k < n; ++k)
    if (v[k] > v[best]) best = k;
  return best;
}
// The class of a row, negative when it does not count.
int64_t label_of(const View& targets, int64_t row, int64_t classes) {
  if (targets.dtype() == DType::i32) return targets.as<int32_t>()[row];
  const double* t = targets.as<double>() + row * classes;
  return t[0] < 0 ? -1 : argmax(t, classes);
}
// Target of class k of a row, before smoothing.
double target(const View& targets, int64_t row, int64_t k, int64_t classes) {
  if (targets.dtype() == DType::i32) return targets.as<int32_t>()[row] == k;
  return targets.as<double>()[row * classes + k];
}
}  // namespace

void softmax_xent_forward(const OpCall& c) {
  const int64_t rows = c.in[0].shape()[0], classes = c.in[0].shape()[1];
  const double smoothing = c.attrs.get("smoothing", 0);
  const double* weights = c.in.size() > 2 && c.in[2] ? c.in[2].as<double>() : nullptr;
  double loss = 0, correct = 0, count = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const double* z = c.in[0].as<double>() + i * classes;
    const double largest = z[argmax(z, classes)];
    double sum = 0, row_loss = 0, weight = 0;
    for (int64_t k = 0; k < classes; ++k) sum += std::exp(z[k] - largest);
    for (int64_t k = 0; k < classes; ++k) {
      const double t = target(c.in[1], i, k, classes), log_p = z[k] - largest - std::log(sum);
      row_loss -= ((1 - smoothing) * t + smoothing / double(classes)) * log_p;
      weight += t * (weights ? weights[k] : 1);
      if (c.saved[0]) c.saved[0].as<double>()[i * classes + k] = std::exp(log_p);
    }
    const int64_t label = label_of(c.in[1], i, classes);
    if (!weights) weight = 1;
    if (label >= classes) weight = std::numeric_limits<double>::quiet_NaN();
    if (label < 0) weight = 0;
    if (c.saved[1]) c.saved[1].as<double>()[i] = weight;
    if (label < 0) continue;
    loss += weight * row_loss;
    correct += argmax(z, classes) == label;
    count += 1;
  }
  c.out[0].as<double>()[0] = count > 0 ? loss / count : 0;
  c.out[1].as<double>()[0] = correct;
  if (c.saved[2]) c.saved[2].as<double>()[0] = count > 0 ? 1 / count : 0;
}

void softmax_xent_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const int64_t rows = c.din[0].view.shape()[0], classes = c.din[0].view.shape()[1];
  const double smoothing = c.attrs.get("smoothing", 0);
  for (int64_t i = 0; i < rows; ++i) {
    const double w = c.saved[1].as<double>()[i];
    const double factor = c.dout[0].as<double>()[0] * w * c.saved[2].as<double>()[0];
    for (int64_t k = 0; k < classes; ++k) {
      const double t = (1 - smoothing) * target(c.in[1], i, k, classes) + smoothing / double(classes);
      const double g = w == 0 ? 0 : factor * (c.saved[0].as<double>()[i * classes + k] - t);
      double& d = c.din[0].view.as<double>()[i * classes + k];
      d = (c.din[0].mode == GradMode::accumulate ? d : 0) + g;
    }
  }
}

}  // namespace gm::ref
