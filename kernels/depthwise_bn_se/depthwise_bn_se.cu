#include "kernels/depthwise_bn_se/depthwise_bn_se.h"

#include "kernels/batch_norm/bn_image_sums.cuh"
#include "kernels/batch_norm/bn_launch.cuh"
#include "kernels/depthwise_bn_se/se_layers_backward.cuh"
#include "kernels/depthwise_conv2d/depthwise_launch.cuh"

namespace gm::GM_BACKEND_NS {

namespace {

constexpr int kSeQuantities = 5;

// S0 ... S4 of every image and channel: sums[quantity][image][c].
template <class T, int N, Act A>
__global__ __launch_bounds__(32 * kBnImageRows) void se_sums_kernel(const T* yc, const T* dy, float* sums,
                                                                    int pixels, int channels,
                                                                    BnFinishBackward k) {
  await_launch_before();
  const int c = (static_cast<int>(blockIdx.x) * 32 + static_cast<int>(threadIdx.x)) * N;
  float mean[N], scale[N], beta[N];
  const T* const from[] = {yc, dy};
  bn_image_sums<T, N, 2, kSeQuantities>(
      from, pixels, channels, c, [&] { k.load<N, true>(c, mean, scale, beta); },
      [&](const float(&pixel)[2][N], float(&sum)[kSeQuantities][N]) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float v = pixel[0][i] - mean[i], g = pixel[1][i], z = v * scale[i] + beta[i],
                      slope = act_slope<A, T>(z), both = g * slope;
          sum[0][i] += g * act_value<A, T>(z);
          sum[1][i] += both;
          sum[2][i] += slope;
          sum[3][i] += both * v;
          sum[4][i] += slope * v;
        }
      },
      [&](unsigned image, int channel, const float(&total)[kSeQuantities]) {
#pragma unroll
        for (int q = 0; q < kSeQuantities; ++q)
          sums[(int64_t{q} * gridDim.y + image) * channels + channel] = total[q];
      });
}

// Gradients of gamma and beta and what the next pass needs, from the sums of all images, once dp is known.
// Block: 32 channels x 16 rows of threads; row i takes every 16th image, then row 0 adds the rows in order.
// One block a multiprocessor is all that is asked for, so that all 24 loads of a step find registers: left to
// itself, the assembler takes 32 and lets half of them wait.
constexpr int kSeFinishRows = 16;
__global__ __launch_bounds__(32 * kSeFinishRows,
                             1) void se_finish_kernel(const float* sums, const float* gate,
                                                      const float* dpooled, int images, int channels,
                                                      float per_pixel, BnFinishBackward finish) {
  await_launch_before();
  GM_SHARED(double, part, [2][kSeFinishRows][32]);
  const int lane = static_cast<int>(threadIdx.x), row = static_cast<int>(threadIdx.y);
  const int c = static_cast<int>(blockIdx.x) * 32 + lane;
  const int64_t all = int64_t{images} * channels;
  double sum = 0, product = 0;
  const auto held = finish.load(min(c, channels - 1));  // on its way together with the sums
  if (c < channels)
    for (int first = row; first < images; first += 4 * kSeFinishRows) {
      float four[2] = {};  // in f32: f64 is 64 times slower on GeForce cards
#pragma unroll
      for (int n = first; n < first + 4 * kSeFinishRows; n += kSeFinishRows) {
        const int64_t i = int64_t{min(n, images - 1)} * channels + c;  // loads behind a branch would wait
        const float s = gate[i], p = dpooled[i] * per_pixel;
        const float one = s * sums[all + i] + p * sums[2 * all + i],
                    other = s * sums[3 * all + i] + p * sums[4 * all + i];
        four[0] += n < images ? one : 0.f;
        four[1] += n < images ? other : 0.f;
      }
      sum += static_cast<double>(four[0]), product += static_cast<double>(four[1]);
    }
  part[0][row][lane] = sum;
  part[1][row][lane] = product;
  __syncthreads();
  if (row > 0 || c >= channels) return;
  for (int r = 1; r < kSeFinishRows; ++r) sum += part[0][r][lane], product += part[1][r][lane];
  bn_finish_channel(finish, held, c, sum, product);
}

// Workspace: as depthwise_bn_act.
template <class T>
void forward(const OpCall& c) {
  const DepthwiseShape d(c.attrs, c.in[0].shape());
  const SeLayers se(c, Backend::cuda, Pass::forward);
  T *y = c.out[0].as<T>(), *yc = c.saved[0] ? c.saved[0].as<T>() : y;
  const BnVectors v = dw_launch_normalised(c, d, yc);
  const Shape shape = d.output();
  const Act act = act_of(c.attrs);
  bn_launch_apply<T>(act, yc, nullptr, se.pooled.as<float>(), shape, v, c.ctx);
  SeOperands layers(se.pooled, c.in.subspan(4), se.acted, se.gate, act);
  layers.squeezed = se.squeezed.as<float>(), layers.excited = se.excited.as<float>();
  se_launch_forward(layers, c.ctx);
  bn_launch_apply(
      act, yc, y, nullptr, shape, v, c.ctx,
      {.gate = se.gate.as<float>(), .image_pixels = static_cast<int>(d.out_height * d.out_width)});
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
    bn_image_lanes(channels, [&](auto n) {
      const BnImageGrid g(d.images, image, channels, n.value);
      GM_LAUNCH((se_sums_kernel<T, n.value, a.value>), g.grid, g.block, 0, c.ctx.stream, yc, dy,
                sums.as<float>(), image, channels, finish);
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
