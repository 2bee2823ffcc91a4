// The cut of a block into tiles: all that fit are counted out, the cheapest wins.
#include <algorithm>
#include <cmath>

#include "kernels/common/ceil_div.h"
#include "kernels/common/dispatch.h"
#include "kernels/mbconv/mbconv_gpu.h"

namespace gm {

namespace {
// The card the counts are made for: few enough multiprocessors that larger ones are filled too. Two thread
// blocks share one up to this much shared memory each; alone, a block's phases wait for its own barriers.
constexpr double kMultiprocessors = 128, kAlone = 1.25;
constexpr size_t kSharedOfTwo = 81 << 10;

// Offsets in shared memory; e has a border of zeros, wide enough for whole strips.
template <class T>
void place(const MbconvShape& s, MbconvPlan& p) {
  const DepthwiseShape& d = s.d;
  int64_t at = 0;
  auto take = [&](int64_t values, size_t bytes = sizeof(T)) {
    const int64_t here = at;
    at += round_up(values * static_cast<int64_t>(bytes), 16);
    return static_cast<int>(here);
  };
  const int64_t in_rows = p.in_rows(d), pixels = int64_t{p.images} * p.rows * d.out_width;
  const int64_t pitch_x = mb_pitch<T>(s.in_channels), pitch_d = mb_pitch<T>(p.chunk);
  p.x = take(s.expand ? p.images * std::min<int64_t>(in_rows, d.height) * d.width * pitch_x : 0);
  p.e = take(p.images * in_rows * mb_border_width(d) * p.chunk);
  p.d = take(pixels * pitch_d);
  p.w_expand = take(s.expand ? p.chunk * pitch_x : 0);
  p.w_depthwise = take(int64_t{d.taps()} * p.chunk);
  p.w_project = take(s.out_channels * pitch_d);
  p.bias = take(2 * p.chunk, sizeof(float));
  p.gate = take(s.squeeze ? 2 * d.channels + s.squeeze : 0, sizeof(float));
  // y passes through it in f32 in the end.
  p.shared = static_cast<int>(std::max(at, pixels * s.out_channels * static_cast<int64_t>(sizeof(float))));
}

// Items that one thread or warp gets of such a product.
template <class T>
int64_t items_each(int64_t rows, int64_t columns) {
  return ceil_div(
      int64_t{mb_items<T>(static_cast<int>(rows), static_cast<int>(columns))} * MbUnit<T>::kItemThreads,
      kMbThreads);
}

// Instructions of one thread of one block, then of all blocks that follow each other on a multiprocessor.
// Reads of shared memory count by what they keep busy: 128 bytes a cycle, in which four instructions could
// start.
template <class T>
double count(const MbconvShape& s, const MbconvPlan& p) {
  constexpr bool half = std::is_same_v<T, bf16>;
  constexpr double kAct = half ? 10 : 25;
  constexpr double kStep = half ? 10 * 4 : 64 * 1.3;  // of a product: loads of a fragment, or multiply-adds
  constexpr double kEnd = half ? 12 * (kAct + 4) + 60 : 16 * (kAct + 4) + 100;
  const DepthwiseShape& d = s.d;
  const double threads = kMbThreads;
  const int64_t in_pixels = int64_t{p.images} * std::min<int64_t>(p.in_rows(d), d.height) * d.width,
                out_pixels = int64_t{p.images} * p.rows * d.out_width;
  auto steps = [](int64_t depth) { return double(mb_deep<T>(depth) / MbUnit<T>::kDepth); };
  const double expand =
      s.expand ? double(items_each<T>(in_pixels, p.chunk)) * (steps(s.in_channels) * kStep + kEnd)
               : double(in_pixels) * p.chunk / threads * 4;
  const double lanes = std::floor(threads / (p.chunk / 2)),
               strips = double(p.images * p.rows) * double(ceil_div(d.out_width, kMbColumns));
  const double reads = 2. * d.kernel + (kMbColumns - 1) * d.stride, adds = 2. * kMbColumns * d.kernel;
  const double strip = d.kernel * std::max(reads * (half ? 3 : 1) + adds, reads * (half ? 4 : 8));
  const double depthwise = std::ceil(strips / lanes) * (strip + 2 * kMbColumns * (kAct + 4) + 40);
  const double project = p.sums * steps(p.chunk) * kStep;
  const double weights = p.chunk * double(s.in_channels * s.expand + s.out_channels + d.taps()) / threads * 4;
  const double borders = double(p.images * p.in_rows(d)) * double(mb_border_width(d)) * p.chunk / threads;
  double block = p.chunks_per_group() * (expand + depthwise + project + weights + 200) +
                 double(in_pixels * s.in_channels + out_pixels * s.out_channels) / threads * 5 + borders +
                 500;
  if (p.shared_bytes() > kSharedOfTwo) block *= kAlone;
  const double waves = std::ceil(double(p.tiles()) * p.groups / kMultiprocessors);
  // Partial sums: written, read, and another launch.
  const double sums = double(s.images() * s.out_image()) / threads / kMultiprocessors;
  return waves * block + (p.groups > 1 && !s.squeeze ? 1500 + sums * (4 + 3 * p.groups) : 0);
}

// Calls f with every plan that fits.
template <class T, class F>
void each_plan(const MbconvShape& s, F f) {
  const DepthwiseShape& d = s.d;
  auto consider = [&](MbconvPlan p) {
    const int64_t pixels = int64_t{p.images} * p.rows * d.out_width;
    p.sums = static_cast<int>(items_each<T>(pixels, s.out_channels));
    if (p.sums > MbUnit<T>::kMostSums) return;
    place<T>(s, p);
    if (p.shared_bytes() > kSmallestShared) return;
    p.row_tiles = static_cast<int>(ceil_div(d.out_height, p.rows));
    p.image_tiles = static_cast<int>(ceil_div(s.images(), p.images));
    p.chunks = static_cast<int>(ceil_div(d.channels, p.chunk));
    for (int share = p.chunks; share > 0; share = share == 1 ? 0 : (share + 1) / 2) {
      p.groups = static_cast<int>(ceil_div(p.chunks, share));
      p.cost = count<T>(s, p);
      f(p);
    }
  };
  for (int64_t tiles = 1, last = 0; tiles <= d.out_height; ++tiles) {
    const int64_t rows = ceil_div(d.out_height, tiles);
    if (rows == last) continue;
    last = rows;
    const int64_t most = rows == d.out_height && !s.squeeze ? std::min<int64_t>(s.images(), 16) : 1;
    for (int64_t images = 1; images <= most; ++images)
      for (int chunk : {8, 16, 24, 32, 48})
        if (chunk % MbUnit<T>::kDepth == 0 && (chunk <= MbUnit<T>::kDepth || chunk < d.channels + 8))
          consider({.rows = static_cast<int>(rows), .images = static_cast<int>(images), .chunk = chunk});
  }
}
template <class F>
void each_plan(const MbconvShape& s, F f) {
  float_switch(s.dtype, [&](auto zero) { each_plan<decltype(zero)>(s, f); });
}
}  // namespace

std::vector<MbconvPlan> mbconv_plans(const MbconvShape& s) {
  std::vector<MbconvPlan> list;
  each_plan(s, [&](const MbconvPlan& p) { list.push_back(p); });
  return list;
}

std::optional<MbconvPlan> mbconv_plan(const MbconvShape& s) {
  std::optional<MbconvPlan> best;
  each_plan(s, [&](const MbconvPlan& p) {
    if (!best || p.cost < best->cost) best = p;
  });
  return best;
}

MbGpuWorkspace mb_gpu_workspace(const MbconvShape& s, const MbconvPlan& p) {
  MbGpuWorkspace w;
  if (s.squeeze) {
    const size_t d = dtype_bytes(s.dtype) * static_cast<size_t>(s.images() * s.d.out_image());
    w.pooled = aligned_bytes(d);
    w.bytes = w.pooled + sizeof(float) * static_cast<size_t>(s.images() * p.row_tiles * s.d.channels);
  } else if (p.groups > 1) {
    w.bytes = sizeof(float) * static_cast<size_t>(p.groups * s.images() * s.out_image());
  }
  return w;
}

int mb_border_width(const DepthwiseShape& d) {
  const int64_t columns = round_up(d.out_width, kMbColumns);
  return static_cast<int>(std::max(d.width + d.pad_left, (columns - 1) * d.stride + d.kernel));
}

bool mbconv_pays(const MbconvShape& s) {
  const std::optional<MbconvPlan> plan = mbconv_plan(s);
  if (!plan) return false;
  // An H100 by its data sheet and what such kernels usually reach of it. Measured, on an H200: the whole
  // block takes 2.5 times what its instructions say (three blocks of effg3 at batch 256: 1.00 ms, not 0.40),
  // and 7 us before (at batch 1: 11.5 to 17.5 us, of which the instructions say 1.7 to 4.7); with these,
  // effg3 is fastest without it.
  constexpr double kLaunch = 2e-6, kShortest = 1.5e-6, kCopy = 2.4e12, kClock = 1.6e9, kStart = 7e-6,
                   kStalls = 2.5;
  const double rate = s.dtype == DType::bf16 ? 250e12 : 35e12;
  const double item = double(dtype_bytes(s.dtype)), images = double(s.images());
  const double x = images * double(s.in_image()), y = images * double(s.out_image()),
               e = images * double(s.d.height * s.d.width * s.d.channels),
               d = images * double(s.d.out_image());
  auto kernel = [&](double elements, double macs) {
    return kLaunch + std::max({kShortest, item * elements / kCopy, 2 * macs / rate});
  };
  double apart = kernel(e + d, 0) + kernel(d + y + (s.residual ? x : 0), d * double(s.out_channels));
  if (s.expand) apart += kernel(x + e, x * double(s.d.channels));
  double whole = kLaunch + kStart + kStalls * plan->cost * 2 / kClock;  // eight warps on four schedulers
  if (plan->groups > 1) whole += kernel(0, 0);                          // adds their sums
  if (s.squeeze) {
    apart += 4 * kLaunch + kernel(d, 0) + kernel(2 * d, 0);  // pool and scale; the gate is small
    whole += kLaunch + item * 2 * d / kCopy;
  }
  return whole < apart;
}

}  // namespace gm
