#include "kernels/depthwise_bn_se/depthwise_bn_se.h"

#include "kernels/batch_norm/bn_backward.cuh"
#include "kernels/depthwise_bn_se/se_layers_backward.cuh"
#include "kernels/depthwise_conv2d/depthwise_backward.cuh"
#include "kernels/depthwise_conv2d/depthwise_forward.cuh"

namespace gm::GM_BACKEND_NS {

namespace {

constexpr int kSeQuantities = 5;

// S0 ... S4 of one image and a slice of channels, so that they need no second stage:
// sums[quantity][image][c].
template <class T, int N, Act A>
__global__ __launch_bounds__(kBnThreads, 2) void se_sums_kernel(const T* x, const T* dy, float* sums,
                                                                int pixels, int channels,
                                                                BnFinishBackward k) {
  GM_SHARED(float, tile, [kBnTile<1, N>]);
  const BnPlace at(N, channels, sizeof(T));
  float sum[kSeQuantities][1][N] = {};
  if (at.c < channels) {
    float mean[N], scale[N], beta[N];
    k.load<N, true>(at.c, mean, scale, beta);
    const uint64_t image = uint64_t{blockIdx.x} * pixels * channels + at.c;
    x += image;
    dy += image;
    bn_batches<2, 2>(threadIdx.y, blockDim.y, pixels, [&]<int R>(const unsigned(&row)[R], auto valid) {
      BnRaw<T, N> raw_x[R], raw_dy[R];
#pragma unroll
      for (int u = 0; u < R; ++u) {
        raw_x[u] = bn_load<T, N>(at.row(x, row[u]));
        raw_dy[u] = bn_load<T, N>(at.row(dy, row[u]));
      }
#pragma unroll
      for (int u = 0; u < R; ++u) {
        if (!valid(u)) continue;
        float v[N], g[N];
        bn_unpack(raw_x[u], v);
        bn_unpack(raw_dy[u], g);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          v[i] -= mean[i];
          const float z = v[i] * scale[i] + beta[i], slope = act_slope<A, T>(z), both = g[i] * slope;
          sum[0][0][i] += g[i] * act_value<A, T>(z);
          sum[1][0][i] += both;
          sum[2][0][i] += slope;
          sum[3][0][i] += both * v[i];
          sum[4][0][i] += slope * v[i];
        }
      }
    });
  }
#pragma unroll
  for (int q = 0; q < kSeQuantities; ++q) {
    bn_block_sums<1, N>(sum[q], static_cast<int>(blockDim.x), static_cast<int>(blockDim.y), tile,
                        [&](int j, const float(&total)[1]) {
                          if (at.first + j < channels)
                            sums[(int64_t{q} * gridDim.x + blockIdx.x) * channels + at.first + j] = total[0];
                        });
    __syncthreads();
  }
}

// Gradients of gamma and beta and what the next pass needs, from the sums of all images, once dp is known.
// Block: 32 channels x 16 rows of threads; row i takes every 16th image, then row 0 adds the rows in order.
constexpr int kSeFinishRows = 16;
__global__ __launch_bounds__(32 * kSeFinishRows) void se_finish_kernel(const float* sums, const float* gate,
                                                                       const float* dpooled, int images,
                                                                       int channels, float per_pixel,
                                                                       BnFinishBackward finish) {
  GM_SHARED(double, part, [2][kSeFinishRows][32]);
  const int lane = static_cast<int>(threadIdx.x), row = static_cast<int>(threadIdx.y);
  const int c = static_cast<int>(blockIdx.x) * 32 + lane;
  const int64_t all = int64_t{images} * channels;
  double sum = 0, product = 0;
  if (c < channels)
#pragma unroll 4
    for (int n = row; n < images; n += kSeFinishRows) {
      const int64_t i = int64_t{n} * channels + c;
      const double s = gate[i], p = dpooled[i] * per_pixel;
      sum += s * sums[all + i] + p * sums[2 * all + i];
      product += s * sums[3 * all + i] + p * sums[4 * all + i];
    }
  part[0][row][lane] = sum;
  part[1][row][lane] = product;
  __syncthreads();
  if (row > 0 || c >= channels) return;
  for (int r = 1; r < kSeFinishRows; ++r) sum += part[0][r][lane], product += part[1][r][lane];
  bn_finish_channel(finish, c, sum, product);
}

// Workspace: as depthwise_bn_act.
template <class T>
void forward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const SeLayers se(c, Backend::cuda, Pass::forward);
  T *y = c.out[0].as<T>(), *yc = c.saved[0] ? c.saved[0].as<T>() : y;
  const BnVectors v = dw_launch_normalised(c, d, yc);
  const Shape shape = d.output();
  act_switch(act_of(c.attrs), [&](auto act) {
    bn_launch_apply<T, act.value>(yc, nullptr, se.pooled.as<float>(), shape, v, c.ctx);
  });
  se_launch_forward({.pooled = se.pooled.as<float>(),
                     .w_squeeze = c.in[4],
                     .b_squeeze = c.in[5],
                     .w_excite = c.in[6],
                     .b_excite = c.in[7],
                     .squeezed = se.squeezed.as<float>(),
                     .acted = se.acted.as<float>(),
                     .excited = se.excited.as<float>(),
                     .gate = se.gate.as<float>(),
                     .act = act_of(c.attrs)},
                    d.images, c.ctx);
  act_switch(act_of(c.attrs), [&](auto act) {
    bn_launch_apply<T, act.value>(
        yc, y, nullptr, shape, v, c.ctx,
        {.gate = se.gate.as<float>(), .image_pixels = static_cast<int>(d.out_height * d.out_width)});
  });
}

template <class T>
void backward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const SeLayers se(c, Backend::cuda, Pass::backward);
  const Act act = act_of(c.attrs);
  float* memory = static_cast<float*>(c.workspace.data);
  const BnVectors v(memory, d.channels);
  const int channels = static_cast<int>(d.channels), image = static_cast<int>(d.out_height * d.out_width);
  const T *yc = c.saved[0].as<T>(), *dy = c.dout[0].as<T>();
  const float* gate = se.gate.as<float>();
  const BnFinishBackward finish = bn_finish_backward_of(c, 2, v, d.output().pixels());
  const View sums = se.scratch(se.at.sums, se.gate);  // its first quantity is the gradient of the gate
  act_switch(act, [&](auto a) {
    bn_lanes<T>(channels, [&](auto n) {
      constexpr int N = decltype(n)::value;
      const BnGrid g(d.output().pixels(), channels, N);
      GM_LAUNCH((se_sums_kernel<T, N, a.value>), dim3(unsigned(d.images), unsigned(g.slices)), g.block(), 0,
                c.ctx.stream, yc, dy, sums.as<float>(), image, channels, finish);
    });
  });
  se_launch_backward(se, sums.as<float>());
  const float* dpooled = se.dpooled().as<float>();
  const BnGradient<T> g{.dy = dy, .dpool = dpooled, .image_pixels = image, .gate = gate};
  GM_LAUNCH(se_finish_kernel, se_blocks(channels, 32), dim3(32, kSeFinishRows), 0, c.ctx.stream,
            sums.as<float>(), gate, dpooled, static_cast<int>(d.images), channels, g.per_pixel, finish);
  dw_launch_backward<T, true>(c, d, {.g = g, .yc = yc, .act = act, .norm = finish},
                              memory + bn_gpu_workspace(channels) / sizeof(float));
}
}  // namespace

void depthwise_bn_se_forward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) { forward<decltype(zero)>(c); });
}

void depthwise_bn_se_backward(const OpCall& c) {
  float_switch(c.in[0].dtype(), [&](auto zero) { backward<decltype(zero)>(c); });
}

}  // namespace gm::GM_BACKEND_NS
