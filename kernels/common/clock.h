// The clock that durations are taken from.
#pragma once
#include <chrono>

namespace gm {

/// Seconds since some moment in the past, never set back.
inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace gm
