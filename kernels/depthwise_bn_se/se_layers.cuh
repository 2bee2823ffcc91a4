// The two layers of squeeze-and-excitation on the GPU, f32. They are products of a row an image with small
// matrices, far from filling a card, so what counts is how many blocks share the weights' way from L2 and how
// few loads follow one another:
//   se_long_product  sums over all channels: a block takes 4 images x 8 outputs, warps share the channels;
//   se_wide_product  a sum for every channel: a block takes 8 images x 128 channels, a thread 4 x 1.
// Every sum has a fixed order, whatever the batch: of a thread's terms, then of lanes, then of warps.
#pragma once
#include "kernels/batch_norm/bn.cuh"
#include "kernels/common/act_any.cuh"
#include "kernels/common/ceil_div.h"
#include "kernels/common/reduce.cuh"
#include "kernels/depthwise_bn_se/depthwise_bn_se.h"

namespace gm::GM_BACKEND_NS {

constexpr int kSeThreads = 256, kSeWarps = kSeThreads / 32;
constexpr int kSeLongImages = 4, kSeLongOutputs = 8, kSeLongChunk = 1024;
constexpr int kSeWideImages = 8, kSeWideOutputs = 128, kSeWideChunk = 64;
using SeVector = Vec<float, 4>;  // a value of four images
static_assert(kSeLongImages == 4 && kSeWideImages % 4 == 0);

/// Sums over channels for images first_image ... + 3 and outputs first ... + 7: put(image, output, sum) once
/// for each that exists. value(image, c, part): the factor of a channel, or one of `parts` that add up to it;
/// keep(image, c, factor): called with each once they are known. Weight of output s and channel c:
/// w[s * channels + c], or w[c * squeeze + s] when kTurned. Little is loaded, so what takes time is how often
/// loads wait for others: once a part, once for several steps. Therefore value() is called without a
/// condition, for places that exist, and stores nothing: behind a branch or a store a load waits.
template <bool kTurned, class Value, class Keep, class Put>
__device__ __forceinline__ void se_long_product(const float* w, int channels, int squeeze, int images,
                                                int parts, Value value, Keep keep, Put put) {
  GM_SHARED(SeVector, x, [kSeLongChunk]);
  GM_SHARED(float, sums, [kSeWarps * 32]);
  constexpr int kImages = kSeLongImages, kOutputs = kSeLongOutputs, kOwn = kTurned ? 1 : kOutputs;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int first = static_cast<int>(blockIdx.x) * kOutputs,
            first_image = static_cast<int>(blockIdx.y) * kImages;
  // Turned, a warp reads 8 neighbouring outputs of 4 channels; else a lane reads 8 outputs of its channel.
  const int mine = kTurned ? lane % kOutputs : 0, begin = kTurned ? thread / kOutputs : thread;
  constexpr int kStep = kTurned ? kSeThreads / kOutputs : kSeThreads, kAtOnce = 4;
  constexpr int kSteps = kTurned ? 16 : 4;  // whose weights are under way together
  static_assert(kSeLongChunk == kAtOnce * kSeThreads);
  float sum[kImages * kOwn] = {};
  for (int base = 0; base < channels; base += kSeLongChunk) {
    const int count = min(kSeLongChunk, channels - base);
    float factor[kAtOnce][kImages];
    auto each = [&](int part, auto take) {
#pragma unroll
      for (int e = 0; e < kAtOnce; ++e)
#pragma unroll
        for (int j = 0; j < kImages; ++j)
          take(factor[e][j],
               value(min(first_image + j, images - 1), base + min(thread + e * kSeThreads, count - 1), part));
    };
    // The first, and in training only, one apart: in the loop four loads are under way together, here all 16.
    each(0, [](float& sum, float v) { sum = v; });
    for (int part = 1; part < parts; ++part) each(part, [](float& sum, float v) { sum += v; });
#pragma unroll
    for (int e = 0; e < kAtOnce; ++e) {
      const int c = thread + e * kSeThreads;
      if (c >= count) break;
      x[c] = SeVector::from_float(factor[e]);
#pragma unroll
      for (int j = 0; j < kImages; ++j)
        if (first_image + j < images) keep(first_image + j, base + c, factor[e][j]);
    }
    __syncthreads();
    for (int from = begin; from < count; from += kSteps * kStep) {
      float weight[kSteps][kOwn];
#pragma unroll
      for (int e = 0; e < kSteps; ++e)
#pragma unroll
        for (int o = 0; o < kOwn; ++o) {
          const int64_t s = min(first + mine + o, squeeze - 1);
          const float* const mine_of =
              kTurned ? w + int64_t{base + from} * squeeze + s : w + s * channels + base + from;
          weight[e][o] = from + e * kStep < count ? mine_of[e * kStep * (kTurned ? squeeze : 1)] : 0.f;
        }
#pragma unroll
      for (int e = 0; e < kSteps; ++e) {
        float v[kImages] = {};
        if (const int c = from + e * kStep; c < count) x[c].to_float(v);
#pragma unroll
        for (int j = 0; j < kImages; ++j)
#pragma unroll
          for (int o = 0; o < kOwn; ++o) sum[j * kOwn + o] += weight[e][o] * v[j];
      }
    }
    __syncthreads();
  }
  sums[thread] = scatter_sums(sum);
  __syncthreads();
  if (warp > 0) return;
  float total = 0.f;
#pragma unroll
  for (int k = 0; k < kSeWarps; ++k) total += sums[k * 32 + lane];
  const int image = first_image + lane / kOutputs, s = first + lane % kOutputs;
  if (image < images && s < squeeze) put(image, s, total);
}

/// A sum over the squeezed values for images 8 block_y ... + 7 and channels 128 block_x ... + 127:
/// put(image, c, sum) once for each that exists. x: [image][squeeze]. Weight of channel c and value s:
/// w[c * squeeze + s], in loads of L, or w[s * channels + c] when kTurned. Whole vectors of rows go through
/// shared memory: the rows of a block are one run of memory, of which each thread wants another place.
template <bool kTurned, int L, class Put>
__device__ __forceinline__ void se_wide_product(const float* x, const float* w, int channels, int squeeze,
                                                int images, int block_x, int block_y, Put put) {
  GM_SHARED(SeVector, values, [kSeWideChunk][kSeWideImages / 4]);
  constexpr bool kStaged = !kTurned && L == 4;
  constexpr int kPitch = kSeWideChunk + 4;  // of a staged row: eight neighbouring ones in different banks
  constexpr int kVectors = kSeWideOutputs * kSeWideChunk / 4 / kSeThreads;  // of rows, of a thread
  GM_SHARED(SeVector, rows, [kStaged ? kSeWideOutputs * kPitch / 4 : 1]);
  constexpr int kImages = 4;  // of a thread
  // Values and weights that a thread loads at once.
  constexpr int kValues = kSeWideChunk * kSeWideImages / kSeThreads, kWeights = 32;
  static_assert(kSeThreads / kSeWideOutputs * kImages == kSeWideImages);
  const int thread = static_cast<int>(threadIdx.x), c = block_x * kSeWideOutputs + thread % kSeWideOutputs,
            row = min(c, channels - 1), part = thread / kSeWideOutputs * kImages;
  float sum[kImages] = {};
  for (int base = 0; base < squeeze; base += kSeWideChunk) {
    const int count = min(kSeWideChunk, squeeze - base);
    // Values and weights are under way together: a store between them would hold the weights back.
    float value[kValues];
#pragma unroll
    for (int k = 0; k < kValues; ++k) {
      const int i = min(thread + k * kSeThreads, count * kSeWideImages - 1),
                image = min(block_y * kSeWideImages + i / count, images - 1);
      value[k] = x[int64_t{image} * squeeze + base + i % count];
    }
    [[maybe_unused]] SeVector held[kStaged ? kVectors : 1];
    // f(number, row, vector of the row) of this thread's vectors. Counted on: a division is 25 instructions.
    [[maybe_unused]] auto own_vectors = [&](auto f) {
      const int across = count / 4, rows_on = kSeThreads / across, on = kSeThreads - rows_on * across;
      int line = thread / across, unit = thread - line * across;
#pragma unroll
      for (int k = 0; k < kVectors; ++k) {
        if (line < kSeWideOutputs) f(k, line, unit);
        line += rows_on, unit += on;
        if (unit >= across) unit -= across, ++line;
      }
    };
    [[maybe_unused]] float weights[kStaged ? 1 : kWeights];
    [[maybe_unused]] auto load_weights = [&](int s) {
#pragma unroll
      for (int k = 0; k < kWeights; ++k) {
        const int64_t from = base + min(s + k, count - 1);
        weights[k] = w[kTurned ? from * channels + row : int64_t{row} * squeeze + from];
      }
    };
    if constexpr (kStaged) {
      own_vectors([&](int k, int line, int unit) {
        const int64_t from = min(block_x * kSeWideOutputs + line, channels - 1);
        held[k] = SeVector::load(w + from * squeeze + base + unit * 4);
      });
    } else {
      load_weights(0);
    }
    loads_stay_above();
#pragma unroll
    for (int k = 0; k < kValues; ++k)
      if (const int i = thread + k * kSeThreads; i < count * kSeWideImages)
        reinterpret_cast<float*>(values[i % count])[i / count] = value[k];
    if constexpr (kStaged) {
      own_vectors([&](int k, int line, int unit) { rows[line * (kPitch / 4) + unit] = held[k]; });
    }
    __syncthreads();
    auto add = [&](int s, float weight) {
      float v[kImages];
      values[s][part / kImages].to_float(v);
#pragma unroll
      for (int j = 0; j < kImages; ++j) sum[j] += weight * v[j];
    };
    if constexpr (kStaged) {
#pragma unroll 8
      for (int s = 0; s < count; s += 4) {
        float weight[4];
        rows[thread % kSeWideOutputs * (kPitch / 4) + s / 4].to_float(weight);
#pragma unroll
        for (int i = 0; i < 4; ++i) add(s + i, weight[i]);
      }
    } else {
      for (int s = 0; s < count; s += kWeights) {
        if (s > 0) load_weights(s);
        loads_stay_above();
#pragma unroll
        for (int k = 0; k < kWeights; ++k)
          if (s + k < count) add(s + k, weights[k]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int j = 0; j < kImages; ++j) {
    const int image = block_y * kSeWideImages + part + j;
    if (image < images && c < channels) put(image, c, sum[j]);
  }
}

inline unsigned se_blocks(int64_t items, int of_a_block) {
  return static_cast<unsigned>(ceil_div(items, of_a_block));
}
inline dim3 se_long_grid(int squeeze, int64_t images) {
  return {se_blocks(squeeze, kSeLongOutputs), se_blocks(images, kSeLongImages)};
}

inline const float* se_optional(const View& v) { return v ? v.as<float>() : nullptr; }

/// The operands of the forward pass: p = `scale` times the sum of `parts` of pooled [image][part][C].
struct SeOperands {
  const float *pooled, *w_squeeze, *b_squeeze, *w_excite, *b_excite;
  float *squeezed = nullptr, *acted, *excited = nullptr, *gate;  // null: nobody asks for it
  int parts = 1, channels, squeeze, images;
  float scale = 1.f;
  Act act;

  /// layers: w_squeeze, b_squeeze, w_excite, b_excite.
  SeOperands(const View& pooled, std::span<const View> layers, const View& acted, const View& gate, Act act)
      : pooled(pooled.as<float>()),
        w_squeeze(layers[0].as<float>()),
        b_squeeze(se_optional(layers[1])),
        w_excite(layers[2].as<float>()),
        b_excite(se_optional(layers[3])),
        acted(acted.as<float>()),
        gate(gate.as<float>()),
        channels(static_cast<int>(layers[0].shape()[1])),
        squeeze(static_cast<int>(layers[0].shape()[0])),
        images(static_cast<int>(gate.shape()[0])),
        act(act) {}
};

/// squeezed = w_squeeze p + b_squeeze, acted = act(squeezed).
static __global__ __launch_bounds__(kSeThreads) void se_squeeze_kernel(SeOperands k) {
  await_launch_before();
  se_long_product<false>(
      k.w_squeeze, k.channels, k.squeeze, k.images, k.parts,
      [&](int image, int c, int part) {
        return k.pooled[(int64_t{image} * k.parts + part) * k.channels + c];
      },
      [](int, int, float) {},
      [&](int image, int s, float sum) {
        const float z = sum * k.scale + (k.b_squeeze ? k.b_squeeze[s] : 0.f);
        const int64_t at = int64_t{image} * k.squeeze + s;
        if (k.squeezed) k.squeezed[at] = z;
        k.acted[at] = act_value_any<float>(k.act, z);
      });
}

/// excited = w_excite acted + b_excite, gate = sigmoid(excited). L: 4 when squeeze is a multiple of it,
/// else 1.
template <int L>
__global__ __launch_bounds__(kSeThreads) void se_excite_kernel(SeOperands k) {
  await_launch_before();
  // Ahead of the product, not behind each image's store.
  const int own = static_cast<int>(blockIdx.x * kSeWideOutputs + threadIdx.x % kSeWideOutputs);
  const float bias = k.b_excite ? k.b_excite[min(own, k.channels - 1)] : 0.f;
  se_wide_product<false, L>(k.acted, k.w_excite, k.channels, k.squeeze, k.images,
                            static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y),
                            [&](int image, int c, float sum) {
                              const float z = sum + bias;
                              const int64_t at = int64_t{image} * k.channels + c;
                              if (k.excited) k.excited[at] = z;
                              k.gate[at] = precise_sigmoid(z);
                            });
}

inline void se_launch_forward(const SeOperands& k, const Context& ctx) {
  GM_LAUNCH(se_squeeze_kernel, se_long_grid(k.squeeze, k.images), kSeThreads, 0, ctx.stream, k);
  const dim3 wide(se_blocks(k.channels, kSeWideOutputs), se_blocks(k.images, kSeWideImages));
  if (k.squeeze % 4 == 0)
    GM_LAUNCH((se_excite_kernel<4>), wide, kSeThreads, 0, ctx.stream, k);
  else
    GM_LAUNCH((se_excite_kernel<1>), wide, kSeThreads, 0, ctx.stream, k);
}

}  // namespace gm::GM_BACKEND_NS
