#include "kernels/conv2d/conv2d_cpu.h"

#include "kernels/add/add.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/linear/gemm_cpu.h"

namespace gm::GM_CPU_NS {

void add_backward(const OpCall&);

namespace {
// One image's late layers: packing the weights would cost as much as multiplying by them, and there are too
// few pixels to share out. So the product is turned: y^T = w x^T reads the weights in place, packs the few
// pixels instead, and threads take filters.
bool few_pixels(const ConvGeometry& g) {
  return g.pointwise() && g.dtype == DType::f32 && g.out_pixels() <= 256 && g.k > 2 * g.out_pixels();
}
void forward_few_pixels(const ConvGeometry& g, const float* x, const float* w, float* y, ThreadPool& pool) {
  const int64_t pixels = g.out_pixels();
  float* packed = static_cast<float*>(
      pool.scratch(0, static_cast<size_t>(packed_b_floats(g.c, pixels)) * sizeof(float), 3));
  pack_b(g.c, pixels, x, 1, g.c, packed);
  constexpr int64_t block = 48;  // filters per task: whole register tiles
  pool.run(ceil_div(g.k, block), [&](int64_t task, int thread) {
    const int64_t first = task * block, filters = std::min(block, g.k - first);
    float* turned =
        static_cast<float*>(pool.scratch(thread, static_cast<size_t>(filters * pixels) * sizeof(float), 2));
    gemm_packed(filters, pixels, g.c, w + first * g.c, g.c, 1, packed, turned, pixels, false);
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t k = 0; k < filters; ++k) y[p * g.k + first + k] = turned[k * pixels + p];
  });
}

}  // namespace

// Workspace: packed weights.
void conv2d_forward(const OpCall& c) {
  ThreadPool& pool = *c.ctx.pool;
  const ConvChunks conv(conv_geometry(c.attrs, c.in[0], c.in[1]), Pass::forward, pool);
  const ConvGeometry& g = conv.chunking().g;
  const float* bias = c.in[2].as<float>();
  const Act act = act_of(c.attrs);
  const View residual = conv_residual(c.in);
  if (few_pixels(g)) {
    forward_few_pixels(g, c.in[0].as<float>(), c.in[1].as<float>(), c.out[0].as<float>(), pool);
    conv_epilogue(c.out[0], 0, g.out_pixels(), bias, act, residual);
    return;
  }
  void* packed = c.workspace.data;
  conv.pack_forward(c.in[1].data, packed);
  pool.run(conv.chunking().chunks, [&](int64_t i, int thread) {
    conv.forward(i, c.in[0].data, packed, c.out[0].data, thread);
    const ConvChunk chunk = conv.chunking().chunk(i);
    conv_epilogue(c.out[0], chunk.y_begin, chunk.y_pixels, bias, act, residual);
  });
}

// Workspace: packed weights, partial weight gradients, partial bias gradients.
void conv2d_backward(const OpCall& c) {
  if (act_of(c.attrs) != Act::none) fail("conv2d: no gradient through the activation epilogue");
  residual_backward(add_backward, c, 3);
  ThreadPool& pool = *c.ctx.pool;
  const ConvChunks conv(conv_geometry(c.attrs, c.in[0], c.in[1]), Pass::backward, pool);
  const ConvChunking& plan = conv.chunking();
  const int64_t k = plan.g.k;
  const GradView &dx = c.din[0], &dw = c.din[1], &dbias = c.din[2];
  char* cursor = static_cast<char*>(c.workspace.data);
  void* packed = cut(cursor, plan.packed_bytes(onednn::ConvPass::backward_data));
  void* partials = cut(cursor, plan.partials_bytes());
  float* bias_partials = reinterpret_cast<float*>(cursor);
  if (dx) conv.pack_backward(c.in[1].data, packed);
  float_switch(plan.g.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* dy = c.dout[0].as<T>();
    pool.run(plan.groups, [&](int64_t group, int thread) {
      float* bias_sum = bias_partials + group * k;
      if (dbias) std::fill(bias_sum, bias_sum + k, 0.f);
      const auto [first, last] = conv.group(group);
      for (int64_t i = first; i < last; ++i) {
        const ConvChunk chunk = plan.chunk(i);
        const T* dy_chunk = dy + chunk.y_begin * k;
        if (dx)
          conv.backward_data(i, dy_chunk, packed, dx.view.data, dx.mode == GradMode::accumulate, thread);
        if (dw) conv.backward_weights(i, c.in[0].data, dy_chunk, partials, group, i == first, thread);
        if (dbias)
          for (int64_t p = 0; p < chunk.y_pixels; ++p)
            for (int64_t j = 0; j < k; ++j) bias_sum[j] += to_float(dy_chunk[p * k + j]);
      }
    });
  });
  if (dw) conv.finish_weights(partials, dw.view.as<float>(), dw.mode == GradMode::accumulate);
  if (dbias) {
    float* out = dbias.view.as<float>();
    for (int64_t j = 0; j < k; ++j) {
      float sum = 0;
      for (int64_t group = 0; group < plan.groups; ++group) sum += bias_partials[group * k + j];
      out[j] = dbias.beta() != 0 ? out[j] + sum : sum;
    }
  }
}

}  // namespace gm::GM_CPU_NS
