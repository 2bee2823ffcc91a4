#include "kernels/augment/augment.h"

#include "kernels/augment/augment_gpu.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/math.cuh"
#include "kernels/common/op.h"
#include "kernels/common/reduce.cuh"
#include "kernels/normalize/normalize.h"

namespace gm::GM_BACKEND_NS {

namespace {

constexpr int kThreads = kAugmentTile * kAugmentTile;
constexpr int kRecordWords = sizeof(AugmentSample) / sizeof(unsigned);

struct Rgb {
  float r, g, b;
};
__device__ __forceinline__ Rgb mix(Rgb a, Rgb b, float share) {
  return {a.r + share * (b.r - a.r), a.g + share * (b.g - a.g), a.b + share * (b.b - a.b)};
}

/// Two neighbouring pixels, 6 bytes at any address, from the aligned words that hold them.
__device__ __forceinline__ void load_two(const uint8_t* images, int64_t byte, Rgb& left, Rgb& right) {
  const uint1* words = reinterpret_cast<const uint1*>(images) + (byte >> 2);
  const int at = static_cast<int>(byte & 3), shift = 8 * at;
  const uint64_t low = words[0].x | static_cast<uint64_t>(words[1].x) << 32;
  const unsigned a = static_cast<unsigned>(low >> shift);  // R G B R
  unsigned b = static_cast<unsigned>(low >> 32) >> shift;  // G B
  if (at == 3) b |= words[2].x << 8;
  left = {float(a & 255u), float(a >> 8 & 255u), float(a >> 16 & 255u)};
  right = {float(a >> 24), float(b & 255u), float(b >> 8 & 255u)};
}

/// Window pixel (i, j): the mean of its source pixels.
__device__ Rgb window_pixel(const uint8_t* images, const AugmentSample& s, int i, int j) {
  int r = 0, g = 0, b = 0;
  for (int dy = 0; dy < s.step_y; ++dy) {
    const int y = inside_index(s.window_y + j * s.step_y + dy, s.height, s.border);
    if (y < 0) continue;
    for (int dx = 0; dx < s.step_x; ++dx) {
      const int x = inside_index(s.window_x + i * s.step_x + dx, s.width, s.border);
      if (x < 0) continue;
      const uint8_t* p = images + s.offset + (int64_t{y} * s.width + x) * 3;
      r += p[0], g += p[1], b += p[2];
    }
  }
  const float scale = 1.0f / static_cast<float>(s.step_x * s.step_y);
  return {r * scale, g * scale, b * scale};
}

/// Bilinear at window position (x, y) >= 0.
__device__ __forceinline__ Rgb tap(const uint8_t* images, const AugmentSample& s, float x, float y) {
  const int i = static_cast<int>(x), j = static_cast<int>(y);
  const float fx = x - static_cast<float>(i), fy = y - static_cast<float>(j);
  const int sx = s.window_x + i, sy = s.window_y + j;
  Rgb a, b, c, d;
  if (s.step_x == 1 && s.step_y == 1 && sx >= 0 && sy >= 0 && sx + 1 < s.width && sy + 1 < s.height) {
    const int64_t byte = s.offset + (int64_t{sy} * s.width + sx) * 3;
    load_two(images, byte, a, b);
    load_two(images, byte + int64_t{s.width} * 3, c, d);
  } else {
    a = window_pixel(images, s, i, j);
    b = window_pixel(images, s, i + 1, j);
    c = window_pixel(images, s, i, j + 1);
    d = window_pixel(images, s, i + 1, j + 1);
  }
  return mix(mix(a, b, fx), mix(c, d, fx), fy);
}

template <class Y>
__device__ __forceinline__ void store_scaled(Y* to, Rgb p, const PixelScaling& s) {
  to[0] = from_float<Y>((p.r - s.mean[0]) / s.std[0]);
  to[1] = from_float<Y>((p.g - s.mean[1]) / s.std[1]);
  to[2] = from_float<Y>((p.b - s.mean[2]) / s.std[2]);
}

/// A record into shared memory, which must not have initialisers: an array of its widest member.
constexpr int kRecordDoubles = sizeof(AugmentSample) / sizeof(double);
__device__ __forceinline__ const AugmentSample& load_record(const AugmentSample* from, double* to) {
  if (threadIdx.x < kRecordWords)
    reinterpret_cast<uint1*>(to)[threadIdx.x] = reinterpret_cast<const uint1*>(from)[threadIdx.x];
  return *reinterpret_cast<const AugmentSample*>(to);
}

}  // namespace

// A block samples a tile of 16 x 16 output pixels of one image, a warp 8 x 4 of them, so that its taps lie
// close together whatever the rotation. Positions come from f64, as on the CPU: 4 products a pixel. kColour:
// plain pixels go to `out` and each tile's sum of grey to `sums`; otherwise the output is finished here.
template <class Y, bool kColour>
__global__ void __launch_bounds__(kThreads)
    augment_sample_kernel(const uint8_t* images, const AugmentSample* samples, Y* out, float* sums, int size,
                          PixelScaling scaling) {
  await_launch_before();
  GM_SHARED(double, record, [kRecordDoubles]);
  GM_SHARED(float, tap_x, [kMaxTaps * kMaxTaps]);
  GM_SHARED(float, tap_y, [kMaxTaps * kMaxTaps]);
  GM_SHARED(float, scratch, [32]);
  const int side = ceil_div(size, kAugmentTile), tiles = side * side;
  const int image = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const AugmentSample& s = load_record(samples + image, record);
  __syncthreads();
  const Affine m = s.to_window;
  const int taps = s.taps_x * s.taps_y;
  if (static_cast<int>(threadIdx.x) < taps) {
    const double du = (threadIdx.x % s.taps_x + 0.5) / s.taps_x,
                 dv = (threadIdx.x / s.taps_x + 0.5) / s.taps_y;
    tap_x[threadIdx.x] = static_cast<float>(m.xx * du + m.xy * dv);
    tap_y[threadIdx.x] = static_cast<float>(m.yx * du + m.yy * dv);
  }
  __syncthreads();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int u = tile % side * kAugmentTile + warp % 2 * 8 + lane % 8,
            v = tile / side * kAugmentTile + warp / 2 * 4 + lane / 8;
  Rgb p{0, 0, 0};
  if (u < size && v < size) {
    const float x = static_cast<float>(m.xx * u + m.xy * v + m.x0),
                y = static_cast<float>(m.yx * u + m.yy * v + m.y0);
    for (int t = 0; t < taps; ++t) {
      const Rgb q = tap(images, s, x + tap_x[t], y + tap_y[t]);
      p.r += q.r, p.g += q.g, p.b += q.b;
    }
    const float share = 1.0f / static_cast<float>(taps);
    p.r *= share, p.g *= share, p.b *= share;
    Y* to = out + ((int64_t{image} * size + v) * size + u) * 3;
    if constexpr (kColour)
      to[0] = p.r, to[1] = p.g, to[2] = p.b;
    else
      store_scaled(to, p, scaling);
  }
  if constexpr (kColour) {
    const float sum = block_sum(0.299f * p.r + 0.587f * p.g + 0.114f * p.b, scratch);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
  }
}

// The same blocks, now over kThreads neighbouring pixels each: sums the tiles of its image in a fixed order,
// then recolours and scales. `pixels` and `out` may be the same memory: a thread reads its pixel before it
// writes it.
template <class Y>
__global__ void __launch_bounds__(kThreads)
    augment_colour_kernel(const float* pixels, const AugmentSample* samples, const float* sums, Y* out,
                          int size, PixelScaling scaling) {
  await_launch_before();
  GM_SHARED(double, record, [kRecordDoubles]);
  GM_SHARED(float, scratch, [32]);
  const int side = ceil_div(size, kAugmentTile), tiles = side * side;
  const int image = blockIdx.x / tiles, at = blockIdx.x % tiles * kThreads + threadIdx.x, count = size * size;
  const AugmentSample& s = load_record(samples + image, record);
  float sum = 0;
  for (int t = threadIdx.x; t < tiles; t += kThreads) sum += sums[int64_t{image} * tiles + t];
  const float grey = block_sum(sum, scratch) / static_cast<float>(count);
  if (at >= count) return;
  const float* from = pixels + (int64_t{image} * count + at) * 3;
  Rgb p{from[0], from[1], from[2]};
  if (s.recolour) {
    const float offset = static_cast<float>(s.grey_share) * grey;
    const float* m = s.colour;
    const Rgb q{m[0] * p.r + m[1] * p.g + m[2] * p.b + offset, m[3] * p.r + m[4] * p.g + m[5] * p.b + offset,
                m[6] * p.r + m[7] * p.g + m[8] * p.b + offset};
    p = {fminf(fmaxf(q.r, 0.0f), 255.0f), fminf(fmaxf(q.g, 0.0f), 255.0f), fminf(fmaxf(q.b, 0.0f), 255.0f)};
  }
  store_scaled(out + (int64_t{image} * count + at) * 3, p, scaling);
}

namespace {

template <class Y>
void launch(const OpCall& c, float* pixels) {
  const int64_t n = c.out[0].shape()[0], size = c.out[0].shape()[1];
  const uint8_t* images = c.in[0].as<uint8_t>();
  const auto* samples = reinterpret_cast<const AugmentSample*>(c.in[1].as<uint8_t>());
  const unsigned grid = static_cast<unsigned>(n * augment_tiles(size));
  const PixelScaling scaling = pixel_scaling(c.attrs);
  if (!c.attrs.geti("colour", 1)) {
    GM_LAUNCH((augment_sample_kernel<Y, false>), grid, kThreads, 0, c.ctx.stream, images, samples,
              c.out[0].as<Y>(), nullptr, size, scaling);
    return;
  }
  float* sums = reinterpret_cast<float*>(c.workspace.data);
  GM_LAUNCH((augment_sample_kernel<float, true>), grid, kThreads, 0, c.ctx.stream, images, samples, pixels,
            sums, size, scaling);
  GM_LAUNCH(augment_colour_kernel<Y>, grid, kThreads, 0, c.ctx.stream, pixels, samples, sums,
            c.out[0].as<Y>(), size, scaling);
}

}  // namespace

void augment_forward(const OpCall& c) {
  if (c.out[0].dtype() == DType::f32) return launch<float>(c, c.out[0].as<float>());
  const size_t sums = augment_sums_bytes(c.out[0].shape()[0], c.out[0].shape()[1]);
  launch<bf16>(c, reinterpret_cast<float*>(static_cast<char*>(c.workspace.data) + sums));
}

}  // namespace gm::GM_BACKEND_NS
