// Dropout and stochastic depth (drop path).
//   y = x * keep / (1 - rate),   keep = 1 with probability 1 - rate, else 0
// attrs  rate        share dropped, 0 <= rate < 1
//        per_sample  1: one draw for all of a sample (dimension 0): stochastic depth; 0: one per element
//        shared      1: all samples have the mask of the first one, so that a sample's does not depend on its
//                    place in the batch (Monte-Carlo dropout); not with per_sample
//        stream      id that keeps the masks of different nodes apart
// in[0]  x  any shape, f32 or bf16
// out[0] y  shape and dtype of x
// The mask is never stored: backward draws it again (dx = dy * keep / (1 - rate)) from the seed and step of
// Context::step. Without a step (inference) the op is the identity.
//
// Draw i (an element, of its sample if shared, or a sample) is word i % 4 of the Philox block with
//   key = seed and counter = (low 32 bits of i / 4, high bits of i / 4 | RngUse::op << 24, stream, step).
// The use in the second word keeps dropout apart from PhiloxStream, whose second word is the bare use.
#pragma once
#include "kernels/common/attrs.h"
#include "kernels/common/context.h"
#include "kernels/common/philox.h"

namespace gm {

/// The four draws of elements 4 block .. 4 block + 3.
GM_HOST_DEVICE inline Philox4 dropout_block(const StepState& step, uint32_t stream, uint64_t block) {
  return philox(step.seed, static_cast<uint32_t>(block),
                static_cast<uint32_t>(block >> 32) | static_cast<uint32_t>(RngUse::op) << 24, stream,
                static_cast<uint32_t>(step.step));
}
/// Keep or drop, decided in f32 on every backend.
GM_HOST_DEVICE inline bool dropout_keeps(uint32_t bits, float rate) { return philox_uniform(bits) >= rate; }

struct DropoutParams {
  float rate = 0, scale = 1;  // scale = 1 / (1 - rate)
  bool per_sample = false, shared = false;
  uint32_t stream = 0;
};
inline DropoutParams dropout_params(const Attrs& attrs) {
  const double rate = attrs.get("rate", 0);
  return {static_cast<float>(rate), static_cast<float>(1 / (1 - rate)), attrs.geti("per_sample", 0) != 0,
          attrs.geti("shared", 0) != 0, static_cast<uint32_t>(attrs.geti("stream", 0))};
}

/// Stochastic depth: what each sample is multiplied by, 0 or scale; 1 throughout without a step (inference).
struct DropPath {
  DropoutParams p;
  const StepState* step = nullptr;

  DropPath() = default;
  DropPath(const Attrs& attrs, const StepState* s) : p(dropout_params(attrs)), step(s) {}
  /// False: every factor is 1.
  GM_HOST_DEVICE explicit operator bool() const { return step && p.rate > 0; }
  GM_HOST_DEVICE float factor(int64_t sample) const {
    if (!*this) return 1.f;
    const Philox4 r = dropout_block(*step, p.stream, static_cast<uint64_t>(sample) / 4);
    const int64_t w = sample % 4;  // selected without indexing, which would put the block in local memory
    const uint32_t bits = w == 0 ? r.v[0] : w == 1 ? r.v[1] : w == 2 ? r.v[2] : r.v[3];
    return dropout_keeps(bits, p.rate) ? p.scale : 0.f;
  }
};

}  // namespace gm
