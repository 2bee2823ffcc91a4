// Cards for which kernels are cut, by their multiprocessors.
#pragma once

namespace gm::test {

/// The test device's, an RTX 3060's, an RTX 3090's, an A100's, an RTX 4090's, an H100's.
constexpr int kCards[] = {4, 28, 82, 108, 128, 132};

}  // namespace gm::test
