// What cards have, where kernels are cut for it: shared memory of a thread block, multiprocessors.
#pragma once
#include <algorithm>
#include <cstddef>

#include "kernels/common/context.h"

namespace gm {

// Shared memory that a thread block may have when its launch asks for it, in bytes.
constexpr size_t kSmallestShared = 99 << 10;  // on every card from sm_80 on: that of sm_86 and sm_89
constexpr size_t kLargeShared = 163 << 10;    // on sm_80 and sm_90

/// Dynamic shared memory that no launch has to ask for: 48 KB, of which static arrays may take 16.
constexpr size_t kUnaskedShared = 32 << 10;

/// Multiprocessors of the card; where none is known, those of an RTX 4090.
inline int multiprocessors(const Context& ctx) { return ctx.sm_count > 0 ? ctx.sm_count : 128; }

/// Multiprocessors of an H100: for so many, at most, the passes are cut whose blocks leave partial sums.
/// Memory for the sums is planned before a card is known, and each more is one more to be added.
constexpr int kSummingMultiprocessors = 132;
/// On this card: its own number, or the blocks that do not run at once would be a wave for themselves.
inline int summing_multiprocessors(const Context& ctx) {
  return ctx.sm_count > 0 ? std::min(ctx.sm_count, kSummingMultiprocessors) : kSummingMultiprocessors;
}

}  // namespace gm
