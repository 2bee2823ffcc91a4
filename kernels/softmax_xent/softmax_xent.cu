#include "kernels/softmax_xent/softmax_xent.h"

#include "kernels/common/act.cuh"
#include "kernels/common/ceil_div.h"
#include "kernels/common/op.h"
#include "kernels/common/reduce.cuh"

namespace gm::GM_BACKEND_NS {

namespace {

constexpr int64_t kMaxThreads = 1024, kMaxBlocks = 1024;

// What both kernels need to know of the targets.
struct Targets {
  const int* labels;     // (N), or null:
  const float* soft;     // (N, C)
  const float* weights;  // (C) or null
  float on, off;         // t' = on * t + off
  int64_t rows;
  int classes;
  int width;  // lanes that share a row: a power of two up to 32
};

Targets targets_of(const OpCall& c, const Shape& logits) {
  const double smoothing = c.attrs.get("smoothing", 0);
  Targets a{};
  if (c.in[1].dtype() == DType::i32)
    a.labels = c.in[1].as<int32_t>();
  else
    a.soft = c.in[1].as<float>();
  a.weights = c.in.size() > 2 && c.in[2] ? c.in[2].as<float>() : nullptr;
  a.rows = logits[0];
  a.classes = static_cast<int>(logits[1]);
  a.on = static_cast<float>(1 - smoothing);
  a.off = static_cast<float>(smoothing / static_cast<double>(a.classes));
  a.width = 1;
  while (a.width < 32 && a.width < a.classes) a.width *= 2;
  return a;
}

struct Grid {
  unsigned blocks, threads;
};
// A block works through up to `rounds` rows per group of lanes. With 8, a batch of 512 rows of 10 classes is
// one block: one launch, no second stage.
Grid grid_of(const Targets& a, int64_t rounds) {
  const int64_t lanes = a.rows * a.width, threads = round_up(lanes, 32);
  if (threads <= kMaxThreads) return {1, static_cast<unsigned>(threads)};
  const int64_t blocks = ceil_div(lanes, kMaxThreads * rounds);
  return {static_cast<unsigned>(blocks < kMaxBlocks ? blocks : kMaxBlocks), kMaxThreads};
}

__device__ __forceinline__ float group_sum(float v, int width) {
  for (int o = width / 2; o > 0; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

struct Results {
  float *loss, *correct, *inverse_count;  // the last may be null
};
__device__ __forceinline__ void write_results(Results r, float loss, float correct, float count) {
  *r.loss = count > 0.f ? loss / count : 0.f;
  *r.correct = correct;
  if (r.inverse_count) *r.inverse_count = count > 0.f ? 1.f / count : 0.f;
}

}  // namespace

// `width` neighbouring lanes share a row (10 classes: 16 lanes, two rows a warp) and stride over its classes;
// the row is read three times, after the first from the first-level cache. All lanes stay in the loop for the
// shuffles; lanes without a row hold neutral values. A single block writes the results; several leave partial
// sums (loss, correct, count) for the second kernel. p and row_weight may be null.
template <class T>
__global__ void softmax_xent_forward_kernel(const T* logits, Targets a, float* p, float* row_weight,
                                            float* partial, Results results) {
  await_launch_before();
  GM_SHARED(float, scratch, [32]);
  const int lane = static_cast<int>(threadIdx.x) % a.width, group = static_cast<int>(threadIdx.x) / a.width;
  const int groups = static_cast<int>(blockDim.x) / a.width;
  float loss = 0, correct = 0, count = 0;
  for (int64_t base = blockIdx.x * int64_t{groups}; base < a.rows; base += int64_t{gridDim.x} * groups) {
    const int64_t row = base + group;
    const int classes = row < a.rows ? a.classes : 0;
    const T* z = logits + row * a.classes;
    const float* soft = a.soft + (a.soft ? row * a.classes : 0);

    Peak best{-INFINITY, a.classes}, best_target{-INFINITY, a.classes};
    float weight = 0;
    for (int k = lane; k < classes; k += a.width) {
      best.meet(to_float(z[k]), k);
      if (a.soft) {
        best_target.meet(soft[k], k);
        weight += a.weights ? soft[k] * a.weights[k] : 0.f;
      }
    }
    best.across(a.width);
    if (a.soft) {
      best_target.across(a.width);
      weight = group_sum(weight, a.width);
    }
    const int label = classes == 0 ? -1 : !a.soft ? a.labels[row] : soft[0] < 0.f ? -1 : best_target.at;

    float sum = 0;
    for (int k = lane; k < classes; k += a.width) sum += expf(to_float(z[k]) - best.value);
    const float log_sum = logf(group_sum(sum, a.width));

    float row_loss = 0;
    for (int k = lane; k < classes; k += a.width) {
      const float log_p = to_float(z[k]) - best.value - log_sum;
      const float t = a.soft ? soft[k] : k == label ? 1.f : 0.f;
      row_loss -= (a.on * t + a.off) * log_p;
      if (p) p[row * a.classes + k] = expf(log_p);
    }
    row_loss = group_sum(row_loss, a.width);

    if (lane == 0 && classes > 0) {
      if (!a.weights) weight = 1.f;
      if (label >= classes)
        weight = NAN;
      else if (label < 0)
        weight = 0.f;
      else if (a.weights && !a.soft)
        weight = a.weights[label];
      if (row_weight) row_weight[row] = weight;
      if (label >= 0) {
        loss += weight * row_loss;
        correct += best.at == label ? 1.f : 0.f;
        count += 1.f;
      }
    }
  }
  loss = block_sum(loss, scratch);
  correct = block_sum(correct, scratch);
  count = block_sum(count, scratch);
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) {
    write_results(results, loss, correct, count);
  } else {
    partial[3 * blockIdx.x] = loss;
    partial[3 * blockIdx.x + 1] = correct;
    partial[3 * blockIdx.x + 2] = count;
  }
}

// Second stage: one warp, partial sums in a fixed order. A launch of its own rather than a last-block ticket:
// a ticket needs a zeroed word that outlives the call, and zeroing one costs the same launch.
__global__ void softmax_xent_finish_kernel(const float* partial, int blocks, Results results) {
  await_launch_before();
  float sums[3] = {};
  for (int b = static_cast<int>(threadIdx.x); b < blocks; b += 32)
#pragma unroll
    for (int q = 0; q < 3; ++q) sums[q] += partial[3 * b + q];
#pragma unroll
  for (int q = 0; q < 3; ++q) sums[q] = warp_sum(sums[q]);
  if (threadIdx.x == 0) write_results(results, sums[0], sums[1], sums[2]);
}

void softmax_xent_forward(const OpCall& c) {
  const Targets a = targets_of(c, c.in[0].shape());
  const Grid grid = grid_of(a, 8);
  float* partial = static_cast<float*>(c.workspace.data);
  const Results results{c.out[0].as<float>(), c.out[1].as<float>(), c.saved[2].as<float>()};
  float_switch(c.in[0].dtype(), [&](auto zero) {
    using T = decltype(zero);
    GM_LAUNCH(softmax_xent_forward_kernel<T>, grid.blocks, grid.threads, 0, c.ctx.stream, c.in[0].as<T>(), a,
              c.saved[0].as<float>(), c.saved[1].as<float>(), partial, results);
  });
  if (grid.blocks > 1)
    GM_LAUNCH(softmax_xent_finish_kernel, 1, 32, 0, c.ctx.stream, partial, static_cast<int>(grid.blocks),
              results);
}

// The same rows to groups of lanes as in forward; no communication.
template <class T>
__global__ void softmax_xent_backward_kernel(const float* p, const float* row_weight,
                                             const float* inverse_count, const float* dloss, Targets a, T* dz,
                                             bool accumulate) {
  await_launch_before();
  const int lane = static_cast<int>(threadIdx.x) % a.width, group = static_cast<int>(threadIdx.x) / a.width;
  const int groups = static_cast<int>(blockDim.x) / a.width;
  const float common = *dloss * *inverse_count;
  for (int64_t row = blockIdx.x * int64_t{groups} + group; row < a.rows; row += int64_t{gridDim.x} * groups) {
    const float w = row_weight[row], factor = common * w;
    const int label = a.soft ? 0 : a.labels[row];
    for (int k = lane; k < a.classes; k += a.width) {
      const int64_t i = row * a.classes + k;
      const float t = a.soft ? a.soft[i] : k == label ? 1.f : 0.f;
      // Not factor * (...) alone: a row that does not count may hold non-finite logits.
      const float g = w == 0.f ? 0.f : factor * (p[i] - (a.on * t + a.off));
      dz[i] = from_float<T>(accumulate ? to_float(dz[i]) + g : g);
    }
  }
}

void softmax_xent_backward(const OpCall& c) {
  if (!c.din[0]) return;
  const Targets a = targets_of(c, c.din[0].view.shape());
  const Grid grid = grid_of(a, 1);
  float_switch(c.din[0].view.dtype(), [&](auto zero) {
    using T = decltype(zero);
    GM_LAUNCH(softmax_xent_backward_kernel<T>, grid.blocks, grid.threads, 0, c.ctx.stream,
              c.saved[0].as<float>(), c.saved[1].as<float>(), c.saved[2].as<float>(), c.dout[0].as<float>(),
              a, c.din[0].view.as<T>(), c.din[0].mode == GradMode::accumulate);
  });
}

}  // namespace gm::GM_BACKEND_NS
