#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/vec_cpu.h"
#include "kernels/depthwise_conv2d/depthwise_op_cpu.h"

namespace gm::GM_CPU_NS {

namespace {
// out = act(row + bias), rounded; row and out may be the same.
template <Act A, class T>
void finish_row(const float* row, const float* bias, int64_t pixels, int64_t channels, T* out) {
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t c = 0; c < channels; c += kLanes) {
      const int64_t at = p * channels + c;
      const int n = static_cast<int>(std::min<int64_t>(kLanes, channels - c));
      if (n == kLanes)
        store(out + at, act_value<A>(load(row + at) + (bias ? load(bias + c) : splat(0.f))));
      else
        store_part(out + at,
                   act_value<A>(load_part(row + at, n) + (bias ? load_part(bias + c, n) : splat(0.f))), n);
    }
}
}  // namespace

void depthwise_conv2d_forward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const Act act = act_of(c.attrs);
  const float* bias = c.in.size() > 2 ? c.in[2].as<float>() : nullptr;
  float* w = static_cast<float*>(c.workspace.data);
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T* x = c.in[0].as<T>();
    T* y = c.out[0].as<T>();
    dw_weights(c.in[1].as<T>(), d, false, w);
    // Bands of rows rather than images, so that a single image uses all threads.
    const int64_t row = d.out_width * d.channels;
    const int64_t band = std::clamp<int64_t>((64 << 10) / (row * 4), 1, d.out_height);
    const int64_t bands = ceil_div(d.out_height, band);
    c.ctx.pool->run(d.images * bands, [&](int64_t i, int thread) {
      const int64_t n = i / bands, begin = i % bands * band, end = std::min(d.out_height, begin + band);
      for (int64_t oh = begin; oh < end; ++oh) {
        T* out = y + n * d.out_image() + oh * row;
        float* to;
        if constexpr (std::is_same_v<T, float>)
          to = out;
        else
          to = static_cast<float*>(c.ctx.pool->scratch(thread, row * sizeof(float)));
        dw_forward_row(x + n * d.in_image(), w, d, oh, to);
        if (bias || act != Act::none)
          act_switch(act, [&](auto a) { finish_row<a.value>(to, bias, d.out_width, d.channels, out); });
        else
          dw_put_row(to, out, row, false);
      }
    });
  });
}

void depthwise_conv2d_backward(const OpCall& c) {
  GM_CHECK(act_of(c.attrs) == Act::none,
           "depthwise_conv2d: an activation in the epilogue is for inference only");
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const int64_t groups = depthwise_groups(d), weights = d.taps() * d.channels, stride = weights + d.channels;
  float *w = static_cast<float*>(c.workspace.data), *partial = w + weights;
  const bool want_bias = c.din.size() > 2 && c.din[2];
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    const T *x = c.in[0].as<T>(), *dy = c.dout[0].as<T>();
    if (c.din[0]) dw_weights(c.in[1].as<T>(), d, d.stride == 1, w);
    c.ctx.pool->run(groups, [&](int64_t i, int thread) {
      float *dw = partial + i * stride, *dbias = dw + weights;
      std::fill_n(dw, stride, 0.f);
      for (int64_t n = dw_group_begin(d, groups, i); n < dw_group_begin(d, groups, i + 1); ++n) {
        const float* g;
        if constexpr (std::is_same_v<T, float>) {
          g = dy + n * d.out_image();
        } else {
          float* copy = static_cast<float*>(c.ctx.pool->scratch(thread, d.out_image() * sizeof(float)));
          for (int64_t k = 0; k < d.out_image(); ++k) copy[k] = to_float(dy[n * d.out_image() + k]);
          g = copy;
        }
        if (c.din[0])
          dw_input_gradient(
              g, w, d, c.din[0].view.as<T>() + n * d.in_image(), c.din[0].mode == GradMode::accumulate,
              static_cast<float*>(c.ctx.pool->scratch(thread, d.width * d.channels * sizeof(float), 1)));
        if (c.din[1]) dw_weight_gradient(x + n * d.in_image(), g, d, dw);
        if (want_bias)
          for (int64_t p = 0; p < d.out_height * d.out_width; ++p)
            for (int64_t k = 0; k < d.channels; ++k) dbias[k] += g[p * d.channels + k];
      }
    });
  });
  dw_sum_partials(*c.ctx.pool, partial, groups, stride, weights, c.din[1]);
  if (want_bias) dw_sum_partials(*c.ctx.pool, partial + weights, groups, stride, d.channels, c.din[2]);
}

}  // namespace gm::GM_CPU_NS
