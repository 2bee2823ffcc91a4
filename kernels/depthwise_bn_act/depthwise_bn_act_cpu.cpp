#include "kernels/batch_norm/bn_op_cpu.h"
#include "kernels/common/dispatch.h"
#include "kernels/depthwise_bn_act/depthwise_bn_act.h"
#include "kernels/depthwise_conv2d/depthwise_op_cpu.h"

namespace gm::GM_CPU_NS {

namespace {
// Workspace: BN partials and coefficients, f32 weights, then (backward) the partial weight gradients.
struct Plan {
  DepthwiseShape d;
  BnChunks chunks;
  double* partial;
  BnCoefficients k;
  float* w;

  explicit Plan(const OpCall& c)
      : d(c.attrs, c.in[0].shape()),
        chunks(bn_chunks_of(TensorSpec{d.output(), c.in[0].dtype()}, true)),
        partial(static_cast<double*>(c.workspace.data)),
        k(reinterpret_cast<float*>(partial + chunks.count * 2 * d.channels), d.channels),
        w(k.q + d.channels) {}
};

// Convolves one image into yc (rounded to T). buffer: one f32 output row.
template <class T>
void convolve(const T* x, const float* w, const DepthwiseShape& d, T* yc, float* buffer) {
  const int64_t row = d.out_width * d.channels;
  for (int64_t oh = 0; oh < d.out_height; ++oh) {
    float* to = buffer;
    if constexpr (std::is_same_v<T, float>) to = yc + oh * row;
    dw_forward_row(x, w, d, oh, to);
    dw_put_row(to, yc + oh * row, row, false);
  }
}

template <class T>
void forward(const OpCall& c) {
  const Plan p(c);
  const DepthwiseShape& d = p.d;
  const Act act = act_of(c.attrs);
  const T* x = c.in[0].as<T>();
  T *a = c.out[0].as<T>(), *yc = c.saved[0] ? c.saved[0].as<T>() : a;
  float* pooled = pool_of(c.attrs) ? c.out[1].as<float>() : nullptr;
  const BnForward f = bn_forward_of(c, 2, 1);
  dw_weights(c.in[1].as<T>(), d, false, p.w);
  ThreadPool& pool = *c.ctx.pool;
  auto row_buffer = [&](int thread) {
    return static_cast<float*>(pool.scratch(thread, d.out_width * d.channels * sizeof(float)));
  };
  const bool training = BatchNormAttrs(c.attrs).training;
  if (!training) bn_running_coefficients(f, d.channels, p.k);
  pool.run(p.chunks.count, [&](int64_t i, int thread) {
    const int64_t first = p.chunks.begin(i), last = p.chunks.begin(i + 1);
    for (int64_t n = first; n < last; ++n) {
      convolve(x + n * d.in_image(), p.w, d, yc + n * d.out_image(), row_buffer(thread));
      if (training) continue;
      // The coefficients are known: finish the image while it is in cache.
      float* mean = pooled ? pooled + n * d.channels : nullptr;
      if (mean) std::fill_n(mean, d.channels, 0.f);
      bn_apply(act, yc + n * d.out_image(), a + n * d.out_image(), p.chunks.rows_per_unit, d.channels, p.k,
               mean);
      if (mean)
        for (int64_t j = 0; j < d.channels; ++j) mean[j] /= static_cast<float>(p.chunks.rows_per_unit);
    }
    if (training)
      bn_statistics(yc + first * d.out_image(), p.chunks.rows(i), d.channels, p.partial + i * 2 * d.channels);
  });
  if (!training) return;
  bn_finish_statistics(
      p.partial, p.chunks.count, [&](int64_t i) { return p.chunks.rows(i); }, d.channels, f, p.k);
  bn_apply_all(act, pool, yc, a, pooled, p.chunks, d.channels, p.k);
}

template <class T>
void backward(const OpCall& c) {
  const Plan p(c);
  const DepthwiseShape& d = p.d;
  const Act act = act_of(c.attrs);
  const bool frozen = !BatchNormAttrs(c.attrs).training;
  const T *x = c.in[0].as<T>(), *yc = c.saved[0].as<T>();
  const BnSource<T> source(c, pool_of(c.attrs), d.output());
  const float* inv_std = c.saved[2].as<float>();
  ThreadPool& pool = *c.ctx.pool;
  bn_coefficients(c.saved[1].as<float>(), inv_std, c.in[2].as<float>(),
                  act == Act::none ? nullptr : c.in[3].as<float>(), d.channels, p.k);
  if (!frozen || c.din[2] || c.din[3]) {
    pool.run(p.chunks.count, [&](int64_t i, int) {
      double* sums = p.partial + i * 2 * d.channels;
      std::fill_n(sums, 2 * d.channels, 0.);
      source.pieces(p.chunks.begin(i) * p.chunks.rows_per_unit, p.chunks.rows(i),
                    [&](int64_t row, int64_t rows, const BnGradient<T>& g) {
                      bn_backward_sums(act, yc + row * d.channels, g, rows, d.channels, p.k, sums);
                    });
    });
    bn_finish_backward(p.partial, p.chunks.count, d.images * p.chunks.rows_per_unit, d.channels, inv_std,
                       frozen, c.din[2], c.din[3], p.k);
  }
  if (!c.din[0] && !c.din[1]) return;
  const int64_t groups = depthwise_groups(d), weights = d.taps() * d.channels;
  float* partial = p.w + weights;
  if (c.din[0]) dw_weights(c.in[1].as<T>(), d, d.stride == 1, p.w);
  // One image at a time: its dyc lives in this thread's scratch (L2) and serves both gradients.
  const int64_t image = p.chunks.rows_per_unit;
  pool.run(groups, [&](int64_t i, int thread) {
    float* dw = partial + i * weights;
    std::fill_n(dw, weights, 0.f);
    float* dyc = static_cast<float*>(pool.scratch(thread, d.out_image() * sizeof(float)));
    float* row = static_cast<float*>(pool.scratch(thread, d.width * d.channels * sizeof(float), 1));
    for (int64_t n = dw_group_begin(d, groups, i); n < dw_group_begin(d, groups, i + 1); ++n) {
      source.pieces(n * image, image, [&](int64_t, int64_t rows, const BnGradient<T>& g) {
        bn_backward_apply(act, yc + n * d.out_image(), g, dyc, rows, d.channels, p.k, false);
      });
      if (c.din[0])
        dw_input_gradient(dyc, p.w, d, c.din[0].view.as<T>() + n * d.in_image(),
                          c.din[0].mode == GradMode::accumulate, row);
      if (c.din[1]) dw_weight_gradient(x + n * d.in_image(), dyc, d, dw);
    }
  });
  dw_sum_partials(pool, partial, groups, weights, weights, c.din[1]);
}
}  // namespace

void depthwise_bn_act_forward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) { forward<decltype(zero)>(c); });
}

void depthwise_bn_act_backward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) { backward<decltype(zero)>(c); });
}

}  // namespace gm::GM_CPU_NS
