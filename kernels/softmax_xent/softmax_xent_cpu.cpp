#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/common/vmath.h"
#include "kernels/softmax_xent/softmax_xent.h"

namespace gm::GM_CPU_NS {

namespace {

struct Row {
  float loss, correct, counted;  // loss already weighted
};

int64_t argmax(const float* v, int64_t n) {
  int64_t best = 0;
  for (int64_t k = 1; k < n; ++k)
    if (v[k] > v[best]) best = k;
  return best;
}

struct Targets {
  const int32_t* labels = nullptr;  // one of the two
  const float* soft = nullptr;
  float on, off;  // t' = on * t + off
  int64_t classes;
  Targets(const OpCall& c, int64_t classes_) : classes(classes_) {
    if (c.in[1].dtype() == DType::i32)
      labels = c.in[1].as<int32_t>();
    else
      soft = c.in[1].as<float>();
    const double smoothing = c.attrs.get("smoothing", 0);
    on = static_cast<float>(1 - smoothing);
    off = static_cast<float>(smoothing / static_cast<double>(classes));
  }
  // Negative: the row does not count.
  int64_t label(int64_t row) const {
    if (labels) return labels[row];
    const float* t = soft + row * classes;
    return t[0] < 0 ? -1 : argmax(t, classes);
  }
  // body(k, smoothed target) over the classes of a row.
  template <class Body>
  void each(int64_t row, Body body) const {
    if (labels) {
      const int64_t label = labels[row];
      for (int64_t k = 0; k < classes; ++k) body(k, (k == label ? on : 0.f) + off);
    } else {
      const float* t = soft + row * classes;
      for (int64_t k = 0; k < classes; ++k) body(k, on * t[k] + off);
    }
  }
  // w of a row, 0 when it does not count.
  float weight(int64_t row, int64_t label, const float* weights) const {
    if (label >= classes) return std::numeric_limits<float>::quiet_NaN();
    if (label < 0) return 0;
    if (!weights) return 1;
    if (labels) return weights[label];
    float w = 0;
    for (int64_t k = 0; k < classes; ++k) w += soft[row * classes + k] * weights[k];
    return w;
  }
};

// z: the row's logits as floats. p: the saved probabilities, or scratch.
Row forward_row(const Targets& targets, int64_t row, float weight, const float* z, float* p) {
  const int64_t classes = targets.classes, predicted = argmax(z, classes), label = targets.label(row);
  const float largest = z[predicted];
  float sum = 0, loss = 0;
  for (int64_t k = 0; k < classes; ++k) p[k] = fast_exp(z[k] - largest);
  for (int64_t k = 0; k < classes; ++k) sum += p[k];
  const float scale = 1.f / sum, log_sum = std::log(sum);
  for (int64_t k = 0; k < classes; ++k) p[k] *= scale;
  targets.each(row, [&](int64_t k, float t) { loss -= t * (z[k] - largest - log_sum); });
  if (label < 0) return {0, 0, 0};
  return {weight * loss, predicted == label ? 1.f : 0.f, 1.f};
}

}  // namespace

void softmax_xent_forward(const OpCall& c) {
  const int64_t rows = c.in[0].shape()[0], classes = c.in[0].shape()[1];
  const Targets targets(c, classes);
  const float* weights = c.in.size() > 2 && c.in[2] ? c.in[2].as<float>() : nullptr;
  float *p = c.saved[0].as<float>(), *saved_weight = c.saved[1].as<float>();
  ThreadPool& pool = *c.ctx.pool;
  Row* results = static_cast<Row*>(pool.scratch(0, rows * sizeof(Row), 1));
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* logits = c.in[0].as<T>();
    pool.ranges(rows, std::max<int64_t>(1, 4096 / classes), [&](int64_t begin, int64_t end, int thread) {
      float* z = static_cast<float*>(pool.scratch(thread, 2 * classes * sizeof(float)));
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t k = 0; k < classes; ++k) z[k] = to_float(logits[i * classes + k]);
        const float weight = targets.weight(i, targets.label(i), weights);
        if (saved_weight) saved_weight[i] = weight;
        results[i] = forward_row(targets, i, weight, z, p ? p + i * classes : z + classes);
      }
    });
  });
  // Rows in order: the sums do not depend on the threads.
  double loss = 0, correct = 0, count = 0;
  for (int64_t i = 0; i < rows; ++i) {
    loss += results[i].loss;
    correct += results[i].correct;
    count += results[i].counted;
  }
  c.out[0].as<float>()[0] = static_cast<float>(count > 0 ? loss / count : 0);
  c.out[1].as<float>()[0] = static_cast<float>(correct);
  if (c.saved[2]) c.saved[2].as<float>()[0] = static_cast<float>(count > 0 ? 1 / count : 0);
}

void softmax_xent_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const int64_t rows = c.din[0].view.shape()[0], classes = c.din[0].view.shape()[1];
  const Targets targets(c, classes);
  const float *p = c.saved[0].as<float>(), *weight = c.saved[1].as<float>();
  const float common = c.dout[0].as<float>()[0] * c.saved[2].as<float>()[0];
  const bool accumulate = c.din[0].mode == GradMode::accumulate;
  float_switch(c.din[0].view.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* dz = c.din[0].view.as<T>();
    c.ctx.pool->ranges(rows, std::max<int64_t>(1, 4096 / classes), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        const float factor = common * weight[i];
        const float* q = p + i * classes;
        T* d = dz + i * classes;
        targets.each(i, [&](int64_t k, float t) {
          // Not factor * (...) alone: a row that does not count may hold non-finite logits.
          const float g = weight[i] == 0.f ? 0.f : factor * (q[k] - t);
          d[k] = from_float<T>(accumulate ? to_float(d[k]) + g : g);
        });
      }
    });
  });
}

}  // namespace gm::GM_CPU_NS
