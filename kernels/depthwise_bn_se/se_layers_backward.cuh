// Backward of the two layers of squeeze-and-excitation on the GPU, in two launches: the gradient of the
// squeezed values; then, side by side in one grid, that of the pooled values and those of the weights.
#pragma once
#include "kernels/common/ceil_div.h"
#include "kernels/depthwise_bn_se/se_layers.cuh"

namespace gm::GM_BACKEND_NS {

constexpr int kSeTile = 32;

/// dexcited and dsqueezed, the gradients of both layers' sums before their activations, from that of the
/// gate.
static __global__ __launch_bounds__(kSeThreads, 2) void se_dsqueezed_kernel(
    const float* dgate, const float* gate, const float* squeezed, const float* w_excite, float* dexcited,
    float* dsqueezed, int channels, int squeeze, int images, Act act) {
  await_launch_before();
  se_long_product<true>(
      w_excite, channels, squeeze, images, 1,
      [&](int image, int c, int) {
        const int64_t at = int64_t{image} * channels + c;
        const float g = gate[at];
        return dgate[at] * g * (1.f - g);
      },
      [&](int image, int c, float d) {
        if (blockIdx.x == 0) dexcited[int64_t{image} * channels + c] = d;
      },
      [&](int image, int s, float sum) {
        const int64_t at = int64_t{image} * squeeze + s;
        dsqueezed[at] = sum * act_slope_any<float>(act, squeezed[at]);
      });
}

/// A weight gradient and its bias's: dw[i][j] = sum over images of a[image][i] b[image][j], db[i] = sum of
/// a[image][i].
struct SeProduct {
  const float *a, *b;
  int rows, columns;
  float *dw, *db;  // null: not wanted
  bool add_w, add_b;
  GM_HOST_DEVICE int tiles() const {
    if (!dw && !db) return 0;
    return ceil_div(rows, kSeTile) * ceil_div(columns, kSeTile);
  }
};

/// Tile `tile` of 32 rows x 32 columns; a thread has 4 rows of a column.
__device__ __forceinline__ void se_weights_tile(SeProduct p, int tile, int images) {
  GM_SHARED(float, a, [kSeTile][kSeTile + 1]);
  GM_SHARED(float, b, [kSeTile][kSeTile + 1]);
  const int x = static_cast<int>(threadIdx.x) % kSeTile, y = static_cast<int>(threadIdx.x) / kSeTile;
  const int across = ceil_div(p.columns, kSeTile), row = tile / across * kSeTile,
            column = tile % across * kSeTile;
  float sum[4] = {}, bias = 0.f;
  for (int n = 0; n < images; n += kSeTile) {
    float from_a[4], from_b[4];  // all on their way before one is stored: for the compiler it may lie there
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int64_t image = min(n + y + 8 * k, images - 1);
      from_a[k] = p.a[image * p.rows + min(row + x, p.rows - 1)];
      from_b[k] = p.b[image * p.columns + min(column + x, p.columns - 1)];
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const bool counts = n + y + 8 * k < images;
      a[y + 8 * k][x] = counts && row + x < p.rows ? from_a[k] : 0.f;
      b[y + 8 * k][x] = counts && column + x < p.columns ? from_b[k] : 0.f;
    }
    __syncthreads();
#pragma unroll 8
    for (int k = 0; k < kSeTile; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] += a[k][y + 8 * i] * b[k][x];
      bias += a[k][x];
    }
    __syncthreads();
  }
  if (p.db && column == 0 && y == 0 && row + x < p.rows)
    p.db[row + x] = bias + (p.add_b ? p.db[row + x] : 0.f);
  if (!p.dw || column + x >= p.columns) return;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (row + y + 8 * i < p.rows) {
      float* to = p.dw + int64_t{row + y + 8 * i} * p.columns + column + x;
      *to = sum[i] + (p.add_w ? *to : 0.f);
    }
}

/// Blocks 0 ... across * down - 1: dpooled = dsqueezed w_squeeze. Then a tile of the first product a block,
/// then of the second.
static __global__ __launch_bounds__(kSeThreads) void se_gradients_kernel(
    const float* dsqueezed, const float* w_squeeze, float* dpooled, int channels, int squeeze, int images,
    int across, int down, SeProduct first, SeProduct second) {
  await_launch_before();
  const int block = static_cast<int>(blockIdx.x), tile = block - across * down;
  if (tile < 0) {
    se_wide_product<true, 1>(
        dsqueezed, w_squeeze, channels, squeeze, images, block % across, block / across,
        [&](int image, int c, float sum) { dpooled[int64_t{image} * channels + c] = sum; });
  } else {
    const bool is_first = tile < first.tiles();
    se_weights_tile(is_first ? first : second, is_first ? tile : tile - first.tiles(), images);
  }
}

/// dpooled and the gradients of the four parameters.
inline void se_launch_backward(const SeLayers& se, const float* dgate) {
  const OpCall& c = se.call;
  const int images = static_cast<int>(se.gate.shape()[0]), channels = static_cast<int>(se.gate.shape()[1]),
            squeeze = static_cast<int>(se.acted.shape()[1]);
  float *dexcited = se.scratch(se.at.dexcited, se.excited).as<float>(),
        *dsqueezed = se.scratch(se.at.dsqueezed, se.squeezed).as<float>();
  GM_LAUNCH(se_dsqueezed_kernel, se_long_grid(squeeze, images), kSeThreads, 0, c.ctx.stream, dgate,
            se.gate.as<float>(), se.squeezed.as<float>(), c.in[6].as<float>(), dexcited, dsqueezed, channels,
            squeeze, images, act_of(c.attrs));
  auto product = [&](const float* a, const View& b, int rows, int columns, int weights) {
    const GradView &dw = c.din[weights], &db = c.din[weights + 1];
    return SeProduct{.a = a,
                     .b = b.as<float>(),
                     .rows = rows,
                     .columns = columns,
                     .dw = dw ? dw.view.as<float>() : nullptr,
                     .db = db ? db.view.as<float>() : nullptr,
                     .add_w = dw.mode == GradMode::accumulate,
                     .add_b = db.mode == GradMode::accumulate};
  };
  const SeProduct first = product(dsqueezed, se.pooled, squeeze, channels, 4),
                  second = product(dexcited, se.acted, channels, squeeze, 6);
  const unsigned across = se_blocks(channels, kSeWideOutputs), down = se_blocks(images, kSeWideImages);
  GM_LAUNCH(se_gradients_kernel, across * down + static_cast<unsigned>(first.tiles() + second.tiles()),
            kSeThreads, 0, c.ctx.stream, dsqueezed, c.in[4].as<float>(), se.dpooled().as<float>(), channels,
            squeeze, images, static_cast<int>(across), static_cast<int>(down), first, second);
}

}  // namespace gm::GM_BACKEND_NS
