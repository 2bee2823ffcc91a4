#include <algorithm>

#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/dropout/dropout.h"

namespace gm::GM_CPU_NS {

namespace {

constexpr int64_t kBlocks = 64;  // Philox blocks drawn at once: 256 factors, 1 KiB of stack

// factor[4 b + w] = 0 or scale for blocks first .. first + kBlocks - 1; the loop over b vectorises.
void draw(const StepState& step, const DropoutParams& p, uint64_t first, float* factor) {
  for (int64_t b = 0; b < kBlocks; ++b) {
    const Philox4 r = dropout_block(step, p.stream, first + b);
    for (int w = 0; w < 4; ++w) factor[4 * b + w] = dropout_keeps(r.v[w], p.rate) ? p.scale : 0.f;
  }
}

// y = x * factor, or y += x * factor: forward and backward are the same map.
template <class T>
void apply(const OpCall& c, const Shape& shape, const T* x, T* y, bool accumulate) {
  const DropoutParams p = dropout_params(c.attrs);
  const int64_t n = shape.numel(), chunk = 4 * kBlocks;
  // Factors are per element of `unit` neighbours: 1, or a whole sample; 1.f throughout without a step.
  const int64_t unit = p.per_sample ? n / shape[0] : 1;
  auto multiply = [&](int64_t begin, int64_t end, auto factor) {
    if (accumulate)
      for (int64_t i = begin; i < end; ++i) y[i] = from_float<T>(to_float(y[i]) + to_float(x[i]) * factor(i));
    else
      for (int64_t i = begin; i < end; ++i) y[i] = from_float<T>(to_float(x[i]) * factor(i));
  };
  if (!c.ctx.step) {
    c.ctx.pool->ranges(n, 16384, [&](int64_t begin, int64_t end, int) {
      multiply(begin, end, [](int64_t) { return 1.f; });
    });
  } else if (p.per_sample) {
    const DropPath drop(c.attrs, c.ctx.step);
    c.ctx.pool->ranges(n, 16384, [&](int64_t begin, int64_t end, int) {
      for (int64_t at = begin; at < end;) {
        const int64_t sample = at / unit, stop = std::min(end, (sample + 1) * unit);
        const float f = drop.factor(sample);
        multiply(at, stop, [f](int64_t) { return f; });
        at = stop;
      }
    });
  } else {
    const int64_t each = p.shared ? n / shape[0] : n;  // elements with a draw of their own
    c.ctx.pool->ranges(ceil_div(each, chunk), 16, [&](int64_t begin, int64_t end, int) {
      float factor[4 * kBlocks];
      for (int64_t k = begin; k < end; ++k) {
        draw(*c.ctx.step, p, k * kBlocks, factor);
        const int64_t first = k * chunk, last = std::min(each, first + chunk);
        for (int64_t sample = 0; sample < n; sample += each)
          multiply(sample + first, sample + last, [&](int64_t i) { return factor[i - sample - first]; });
      }
    });
  }
}

}  // namespace

void dropout_forward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    apply(c, c.in[0].shape(), c.in[0].as<T>(), c.out[0].as<T>(), false);
  });
}

void dropout_backward(const OpCall& c) {
  if (!c.din[0]) return;
  float_switch(c.dout[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    apply(c, c.dout[0].shape(), c.dout[0].as<T>(), c.din[0].view.as<T>(),
          c.din[0].mode == GradMode::accumulate);
  });
}

}  // namespace gm::GM_CPU_NS
