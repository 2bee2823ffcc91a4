// A build with CUDA on a machine without a card: programs start, and say in one line why they cannot use one.
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/jpeg_decoder_cuda.h"
#include "tests/tools_test_util.h"

namespace gm::test {

TEST(CudaDriverless, OneLineSaysWhy) {
  const Ran r = run("gm_bench", {"--op", "add", "--seconds", "0.001", "--device", "cuda"});
  if (r.code == 0) GTEST_SKIP() << "a card answers here";
  EXPECT_EQ(r.code, 1);
  EXPECT_EQ(r.out, "");
  EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  EXPECT_EQ(r.err.rfind("gm_bench: error: --device cuda: ", 0), 0u) << r.err;
  if (!std::filesystem::exists("/proc/driver/nvidia"))
    EXPECT_EQ(r.err, "gm_bench: error: --device cuda: no NVIDIA driver on this machine\n");
}

TEST(CudaDriverless, TheProcessorTakesOver) {
  const Ran r = run("gm_bench", {"--op", "add", "--seconds", "0.001"});
  EXPECT_EQ(r.code, 0) << r.err;
}

// Built with nvJPEG or without, its library at hand or not.
TEST(CudaDriverless, NvJpegSaysWhyItIsNotToBeHad) {
  std::string reason;
  if (open_nvjpeg(0, reason)) GTEST_SKIP() << "a card answers here";
  EXPECT_NE(reason.find("nvjpeg"), std::string::npos) << reason;
  EXPECT_EQ(reason.find('\n'), std::string::npos) << reason;
}

}  // namespace gm::test
