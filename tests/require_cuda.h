// For tests that also run on a card, or only there.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>

#include "engine/device.h"

namespace gm::test {

/// Whether a CUDA card is here; without one, under GM_REQUIRE_GPU, the test that asks fails.
inline bool require_cuda() {
  const std::string reason = no_cuda_reason();
  if (!reason.empty() && std::getenv("GM_REQUIRE_GPU")) ADD_FAILURE() << "no GPU: " << reason;
  return reason.empty();
}

}  // namespace gm::test
