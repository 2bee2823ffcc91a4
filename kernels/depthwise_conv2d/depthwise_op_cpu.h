// Whole-image steps of depthwise_conv2d and depthwise_bn_act on the CPU.
#pragma once
#include "kernels/common/op.h"
#include "kernels/common/parallel.h"
#include "kernels/depthwise_conv2d/depthwise_rows_cpu.h"

namespace gm::GM_CPU_NS {

/// One image's dx from its dy (f32), rounded to T. buffer: one f32 input row.
template <class T>
void dw_input_gradient(const float* dy, const float* w, const DepthwiseShape& d, T* dx, bool accumulate,
                       float* buffer) {
  const int64_t row = d.width * d.channels;
  for (int64_t ih = 0; ih < d.height; ++ih) {
    T* out = dx + ih * row;
    float* to = buffer;
    if constexpr (std::is_same_v<T, float>)
      if (!accumulate) to = out;
    dw_gradient_row(dy, w, d, ih, to);
    dw_put_row(to, out, row, accumulate);
  }
}

/// Images of group i of depthwise_groups.
inline int64_t dw_group_begin(const DepthwiseShape& d, int64_t groups, int64_t i) {
  return d.images * i / groups;
}

/// Sums the groups' partial gradients in index order into a parameter's gradient.
inline void dw_sum_partials(ThreadPool& pool, const float* partial, int64_t groups, int64_t stride, int64_t n,
                            const GradView& out) {
  if (!out) return;
  float* g = out.view.as<float>();
  const bool accumulate = out.mode == GradMode::accumulate;
  pool.ranges(n, 1024, [&](int64_t begin, int64_t end, int) {
    constexpr int64_t kBlock = 64;
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t m = std::min(kBlock, end - at);
      double sum[kBlock] = {};
      for (int64_t k = 0; k < groups; ++k)
        for (int64_t j = 0; j < m; ++j) sum[j] += partial[k * stride + at + j];
      for (int64_t j = 0; j < m; ++j) g[at + j] = static_cast<float>(sum[j]) + (accumulate ? g[at + j] : 0.f);
    }
  });
}

}  // namespace gm::GM_CPU_NS
