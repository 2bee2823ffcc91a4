#include "kernels/mbconv/mbconv_cpu.h"

#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/conv2d/conv2d_cpu.h"
#include "kernels/depthwise_conv2d/depthwise_rows_cpu.h"
#include "kernels/linear/gemm_cpu.h"

// A task is a band of output rows, with squeeze-and-excitation a whole image. Everything between x and y
// lives in the thread's own scratch; a band's expanded rows should stay in the second-level cache.

namespace gm::GM_CPU_NS {

namespace {
constexpr int64_t kBandBytes = 512 << 10;

struct Weights {
  const float *expand, *project, *depthwise;
};

// Bias and activation of f32 rows in place.
void finish(float* rows, int64_t pixels, int64_t channels, const float* bias, Act act) {
  conv_epilogue({rows, {{pixels, channels}, DType::f32}}, 0, pixels, bias, act, {});
}

// d of one image times its gate. scratch: 2 E + S floats.
void scale_by_gate(const OpCall& c, const MbconvShape& s, float* d, float* scratch) {
  const int64_t e = s.d.channels, pixels = s.out_pixels();
  float *pooled = scratch, *gate = pooled + e, *narrow = gate + e;
  std::fill_n(pooled, e, 0.f);
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t k = 0; k < e; ++k) pooled[k] += d[p * e + k];
  for (int64_t k = 0; k < e; ++k) pooled[k] /= static_cast<float>(pixels);
  gemm_nt(1, s.squeeze, e, pooled, e, c.in[7].as<float>(), e, narrow, s.squeeze);
  finish(narrow, 1, s.squeeze, c.in[8].as<float>(), s.act);
  gemm_nt(1, e, s.squeeze, narrow, s.squeeze, c.in[9].as<float>(), s.squeeze, gate, e);
  finish(gate, 1, e, c.in[10].as<float>(), Act::sigmoid);
  for (int64_t p = 0; p < pixels; ++p)
    for (int64_t k = 0; k < e; ++k) d[p * e + k] *= gate[k];
}

// Output rows [begin, end) of image n.
template <class T>
void band(const OpCall& c, const MbconvShape& s, const Weights& w, int64_t n, int64_t begin, int64_t end,
          int thread) {
  ThreadPool& pool = *c.ctx.pool;
  auto scratch = [&](int64_t floats, int slot) {
    return static_cast<float*>(pool.scratch(thread, static_cast<size_t>(floats) * sizeof(float), slot));
  };
  // The band as a smaller image: its first row is `first`, of which it may see some above.
  DepthwiseShape d = s.d;
  const int64_t above = begin * d.stride - d.pad_top, first = std::max<int64_t>(0, above);
  d.height = std::min(s.d.height, above + (end - begin - 1) * d.stride + d.kernel) - first;
  d.pad_top = static_cast<int>(first - above);
  d.out_height = end - begin;
  const int64_t in_pixels = d.height * d.width, pixels = d.out_height * d.out_width;
  const T* x = c.in[0].as<T>() + n * s.in_image() + first * d.width * s.in_channels;
  const float* rows = nullptr;
  if constexpr (std::is_same_v<T, float>) {
    rows = x;
  } else {
    float* wide = scratch(in_pixels * s.in_channels, 0);
    for (int64_t i = 0; i < in_pixels * s.in_channels; ++i) wide[i] = to_float(x[i]);
    rows = wide;
  }
  const float* e = rows;
  if (s.expand) {
    float* expanded = scratch(in_pixels * d.channels, 1);
    gemm_packed(in_pixels, d.channels, s.in_channels, rows, s.in_channels, 1, w.expand, expanded, d.channels,
                false);
    finish(expanded, in_pixels, d.channels, c.in[2].as<float>(), s.act);
    e = expanded;
  }
  float* out = scratch(d.out_image() + 2 * d.channels + s.squeeze, 2);
  for (int64_t row = 0; row < d.out_height; ++row)
    dw_forward_row(e, w.depthwise, d, row, out + row * d.out_width * d.channels);
  finish(out, pixels, d.channels, c.in[4].as<float>(), s.act);
  if (s.squeeze) scale_by_gate(c, s, out, out + d.out_image());
  const int64_t at = n * s.out_image() + begin * d.out_width * s.out_channels,
                count = pixels * s.out_channels;
  T* y = c.out[0].as<T>() + at;
  float* sums;
  if constexpr (std::is_same_v<T, float>)
    sums = y;
  else
    sums = scratch(count, 3);
  gemm_packed(pixels, s.out_channels, d.channels, out, d.channels, 1, w.project, sums, s.out_channels, false);
  const T* residual = s.residual ? c.in[0].as<T>() + at : nullptr;
  const float* bias = c.in[6].as<float>();
  for (int64_t p = 0; p < pixels; ++p, y += s.out_channels, sums += s.out_channels)
    for (int64_t k = 0; k < s.out_channels; ++k)
      y[k] = from_float<T>(sums[k] + bias[k] + (residual ? to_float(residual[p * s.out_channels + k]) : 0.f));
}
}  // namespace

void mbconv_forward(const OpCall& c) {
  const MbconvShape s = mbconv_shape(c.attrs, c.in);
  const MbCpuWorkspace layout = mb_cpu_workspace(s);
  float* packed = static_cast<float*>(c.workspace.data);
  const Weights w{packed, packed + layout.project, packed + layout.depthwise};
  const int64_t e = s.d.channels;
  float_switch(s.dtype, [&](auto zero) {
    using T = decltype(zero);
    c.ctx.pool->run(3, [&](int64_t task, int) {
      if (task == 0 && s.expand) pack_b(s.in_channels, e, c.in[1].as<T>(), 1, s.in_channels, packed);
      if (task == 1) pack_b(e, s.out_channels, c.in[5].as<T>(), 1, e, packed + layout.project);
      if (task == 2) dw_weights(c.in[3].as<T>(), s.d, false, packed + layout.depthwise);
    });
    const int64_t row = s.d.width * e * s.d.stride * static_cast<int64_t>(sizeof(float));
    const int64_t rows =
        s.squeeze
            ? s.d.out_height
            : std::clamp<int64_t>(kBandBytes / row, std::min<int64_t>(4, s.d.out_height), s.d.out_height);
    const int64_t bands = ceil_div(s.d.out_height, rows);
    c.ctx.pool->run(s.images() * bands, [&](int64_t i, int thread) {
      const int64_t begin = i % bands * rows;
      band<T>(c, s, w, i / bands, begin, std::min(s.d.out_height, begin + rows), thread);
    });
  });
}

}  // namespace gm::GM_CPU_NS
