// Shared memory that a thread block may have when its launch asks for it, in bytes.
#pragma once
#include <cstddef>

namespace gm {

constexpr size_t kSmallestShared = 99 << 10;  // on every card from sm_80 on: that of sm_86 and sm_89
constexpr size_t kLargeShared = 163 << 10;    // on sm_80 and sm_90

}  // namespace gm
