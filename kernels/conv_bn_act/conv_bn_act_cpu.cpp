#include "kernels/add/add.h"
#include "kernels/batch_norm/bn_op_cpu.h"
#include "kernels/common/dispatch.h"
#include "kernels/conv2d/conv2d_cpu.h"
#include "kernels/conv_bn_act/conv_bn_act.h"

namespace gm::GM_CPU_NS {

void add_backward(const OpCall&);

namespace {

// The end of both workspaces: BN partials of `chunks` chunks, then the coefficients.
struct BnMemory {
  double* partial;
  BnCoefficients k;
  BnMemory(char* memory, int64_t chunks, int64_t channels)
      : partial(reinterpret_cast<double*>(memory)),
        k(reinterpret_cast<float*>(partial + chunks * bn_partial_doubles(channels)), channels) {}
};

// Workspace: packed weights, BN partials (one per chunk of the convolution) and coefficients.
template <class T>
void forward(const OpCall& c) {
  ThreadPool& pool = *c.ctx.pool;
  const ConvChunks conv(conv_geometry(c.attrs, c.in[0], c.in[1]), Pass::forward, pool);
  const ConvChunking& chunking = conv.chunking();
  const int64_t channels = chunking.g.k;
  const Act act = act_of(c.attrs);
  char* cursor = static_cast<char*>(c.workspace.data);
  void* packed = cut(cursor, chunking.packed_bytes(onednn::ConvPass::forward));
  const BnMemory bn(cursor, chunking.chunks, channels);
  T *a = c.out[0].as<T>(), *yc = c.saved[0] ? c.saved[0].as<T>() : a;
  float* pooled = pool_of(c.attrs) ? c.out[1].as<float>() : nullptr;
  const BnForward f = bn_forward_of(c, 2, 1);
  const BnTail<T> tail(c, 4, c.out[0].shape());
  tail.keep(bn_kept_factors(c, 3), c.out[0].shape()[0]);
  const bool training = BatchNormAttrs(c.attrs).training;
  if (!training) bn_running_coefficients(f, channels, bn.k);
  conv.pack_forward(c.in[1].data, packed);
  pool.run(chunking.chunks, [&](int64_t i, int thread) {
    conv.forward(i, c.in[0].data, packed, yc, thread);
    const ConvChunk chunk = chunking.chunk(i);
    // The chunk is still in cache: take its statistics or, when the coefficients are known, finish it. Sums
    // of a pooled output need whole images, which a chunk need not be.
    if (training)
      bn_statistics(yc + chunk.y_begin * channels, chunk.y_pixels, channels,
                    bn.partial + i * bn_partial_doubles(channels));
    else if (!pooled)
      bn_apply_pixels(act, yc, a, chunk.y_begin, chunk.y_pixels, channels, bn.k, tail);
  });
  if (training)
    bn_finish_statistics(
        bn.partial, chunking.chunks, [&](int64_t i) { return chunking.chunk(i).y_pixels; }, channels, f,
        bn.k);
  if (training || pooled)
    bn_apply_all(act, pool, yc, a, pooled, bn_chunks_of(c.out[0].spec, pooled != nullptr), channels, bn.k,
                 tail);
}

// Workspace: packed weights, partial weight gradients, BN partials and coefficients.
template <class T>
void backward(const OpCall& c) {
  ThreadPool& pool = *c.ctx.pool;
  const ConvChunks conv(conv_geometry(c.attrs, c.in[0], c.in[1]), Pass::backward, pool);
  const ConvChunking& chunking = conv.chunking();
  const int64_t channels = chunking.g.k;
  const Act act = act_of(c.attrs);
  const bool frozen = !BatchNormAttrs(c.attrs).training;
  const GradView &dx = c.din[0], &dw = c.din[1];
  const T* yc = c.saved[0].as<T>();
  const BnSource<T> source(c, pool_of(c.attrs), c.saved[0].shape(), bn_kept_factors(c, 3));
  const float* inv_std = c.saved[2].as<float>();
  const BnChunks chunks = bn_chunks_of(c.saved[0].spec, pool_of(c.attrs));
  char* cursor = static_cast<char*>(c.workspace.data);
  void* packed = cut(cursor, chunking.packed_bytes(onednn::ConvPass::backward_data));
  void* partials = cut(cursor, chunking.partials_bytes());
  const BnMemory bn(cursor, chunks.count, channels);
  bn_coefficients(c.saved[1].as<float>(), inv_std, c.in[2].as<float>(),
                  act == Act::none ? nullptr : c.in[3].as<float>(), channels, bn.k);

  if (!frozen || c.din[2] || c.din[3]) {
    pool.run(chunks.count, [&](int64_t i, int) {
      double* sums = bn.partial + i * bn_partial_doubles(channels);
      std::fill_n(sums, bn_partial_doubles(channels), 0.);
      source.pieces(chunks.begin(i) * chunks.rows_per_unit, chunks.rows(i),
                    [&](int64_t row, int64_t rows, const BnGradient<T>& g) {
                      bn_backward_sums(act, yc + row * channels, g, rows, channels, bn.k, sums);
                    });
    });
    bn_finish_backward(bn.partial, chunks.count, chunking.g.out_pixels(), channels, inv_std, frozen, c.din[2],
                       c.din[3], bn.k);
  }

  if (!dx && !dw) return;
  if (dx) conv.pack_backward(c.in[1].data, packed);
  // dyc of a chunk lives in this thread's scratch, in cache, and serves both gradients.
  pool.run(chunking.groups, [&](int64_t group, int thread) {
    const auto [first, last] = conv.group(group);
    for (int64_t i = first; i < last; ++i) {
      const ConvChunk chunk = chunking.chunk(i);
      T* dyc = static_cast<T*>(pool.scratch(thread, chunk.y_pixels * channels * sizeof(T)));
      source.pieces(chunk.y_begin, chunk.y_pixels, [&](int64_t row, int64_t rows, const BnGradient<T>& g) {
        bn_backward_apply(act, yc + row * channels, g, dyc + (row - chunk.y_begin) * channels, rows, channels,
                          bn.k, false);
      });
      if (dx) conv.backward_data(i, dyc, packed, dx.view.data, dx.mode == GradMode::accumulate, thread);
      if (dw) conv.backward_weights(i, c.in[0].data, dyc, partials, group, i == first, thread);
    }
  });
  if (dw) conv.finish_weights(partials, dw.view.as<float>(), dw.mode == GradMode::accumulate);
}
}  // namespace

void conv_bn_act_forward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) { forward<decltype(zero)>(c); });
}

void conv_bn_act_backward(const OpCall& c) {
  residual_backward(add_backward, c, 4);
  float_switch(c.in[0].dtype(), [&](auto zero) { backward<decltype(zero)>(c); });
}

}  // namespace gm::GM_CPU_NS
