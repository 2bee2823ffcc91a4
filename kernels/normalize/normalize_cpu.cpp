#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/normalize/normalize.h"

namespace gm::GM_CPU_NS {

namespace {

// A multiple of every channel count (1..4) and of the vector width: the channel of element i is that of
// element i % kPeriod, so the inner loop runs over two constant arrays without a modulo.
constexpr int kPeriod = 48;

struct Pattern {
  float mean[kPeriod], std[kPeriod];
  Pattern(const Attrs& attrs, int64_t channels) {
    const PixelScaling s = pixel_scaling(attrs);
    for (int i = 0; i < kPeriod; ++i) mean[i] = s.mean[i % channels], std[i] = s.std[i % channels];
  }
};

// body(first element, count) over [0, n) in pieces that start at multiples of kPeriod.
template <class Body>
void periods(ThreadPool& pool, int64_t n, Body body) {
  pool.ranges(ceil_div(n, kPeriod), 256, [&](int64_t begin, int64_t end, int) {
    for (int64_t k = begin; k < end; ++k)
      if ((k + 1) * kPeriod <= n)
        body(k * kPeriod, kPeriod);  // constant count: the loop unrolls into whole vectors
      else
        body(k * kPeriod, static_cast<int>(n - k * kPeriod));
  });
}

template <class X, class Y>
void forward(const OpCall& c) {
  const X* x = c.in[0].as<X>();
  Y* y = c.out[0].as<Y>();
  const Pattern p(c.attrs, c.in[0].shape().channels());
  periods(*c.ctx.pool, c.in[0].numel(), [&](int64_t first, int count) {
    for (int i = 0; i < count; ++i)
      y[first + i] = from_float<Y>((static_cast<float>(x[first + i]) - p.mean[i]) / p.std[i]);
  });
}

}  // namespace

void normalize_forward(const OpCall& c) {
  float_switch(c.out[0].dtype(), [&](auto zero) {
    using Y = decltype(zero);
    c.in[0].dtype() == DType::u8 ? forward<uint8_t, Y>(c) : forward<float, Y>(c);
  });
}

void normalize_backward(const OpCall& c) {
  if (!c.din[0]) return;
  float_switch(c.dout[0].dtype(), [&](auto zero) {
    using Y = decltype(zero);
    const Y* dy = c.dout[0].as<Y>();
    float* dx = c.din[0].view.as<float>();
    const Pattern p(c.attrs, c.dout[0].shape().channels());
    const bool accumulate = c.din[0].mode == GradMode::accumulate;
    periods(*c.ctx.pool, c.dout[0].numel(), [&](int64_t first, int count) {
      if (accumulate)
        for (int i = 0; i < count; ++i) dx[first + i] += to_float(dy[first + i]) / p.std[i];
      else
        for (int i = 0; i < count; ++i) dx[first + i] = to_float(dy[first + i]) / p.std[i];
    });
  });
}

}  // namespace gm::GM_CPU_NS
