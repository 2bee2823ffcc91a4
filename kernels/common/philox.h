// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC'11): a counter-based generator. The value depends only on
// (key, counter), so masks and augmentations are the same on every device, thread count and after a resume.
#pragma once
#include <cstdint>

#include "kernels/common/dtype.h"

namespace gm {

struct Philox4 {
  uint32_t v[4];
};

/// Ten rounds. key: 64-bit seed. counter: 128 bits, free for the caller to lay out.
GM_HOST_DEVICE inline Philox4 philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c0;
    uint64_t p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Philox4{{c0, c1, c2, c3}};
}

/// Uniform in [0, 1): 24 random bits, exact in f32.
GM_HOST_DEVICE inline float philox_uniform(uint32_t bits) {
  return static_cast<float>(bits >> 8) * (1.0f / 16777216.0f);
}

/// Who draws: keeps the counters of different uses apart.
enum class RngUse : uint32_t { init = 1, shuffle = 2, augment = 3, op = 4, split = 5, synth = 6, sample = 7 };

/// A host-side stream of draws for one (seed, use, a, b): sequential, for initialisers and augmentation.
class PhiloxStream {
 public:
  PhiloxStream(uint64_t seed, RngUse use, uint32_t a = 0, uint32_t b = 0)
      : seed_(seed), use_(static_cast<uint32_t>(use)), a_(a), b_(b) {}
  uint32_t next() {
    if (at_ == 4) {
      block_ = philox(seed_, index_++, use_, a_, b_);
      at_ = 0;
    }
    return block_.v[at_++];
  }
  /// [0, 1)
  double uniform() { return next() * (1.0 / 4294967296.0); }
  double uniform(double lo, double hi) { return lo + (hi - lo) * uniform(); }
  /// 0 .. n-1, without modulo bias worth caring about (n < 2^32).
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((static_cast<uint64_t>(next()) * n) >> 32); }

 private:
  uint64_t seed_;
  uint32_t use_, a_, b_, index_ = 0;
  int at_ = 4;
  Philox4 block_{};
};

}  // namespace gm
