// The lines that say why a card cannot be used, for the codes that CUDA and cuDNN really return.
#include <gtest/gtest.h>

#include "kernels/common/cuda_messages.h"

namespace gm::test {

namespace {
bool one(const std::string& text) { return !text.empty() && text.find('\n') == std::string::npos; }
}  // namespace

TEST(EngineCudaMessages, WhyThereIsNoCard) {
  EXPECT_EQ(no_device_text(35, "CUDA driver version is insufficient", 0, 13000),
            "no NVIDIA driver on this machine");
  EXPECT_EQ(no_device_text(35, "CUDA driver version is insufficient", 12040, 13000),
            "the NVIDIA driver is too old: it serves CUDA 12.4, this build needs CUDA 13.0 or newer");
  EXPECT_EQ(no_device_text(100, "no CUDA-capable device is detected", 13000, 13000),
            "no CUDA device on this machine");
  EXPECT_EQ(no_device_text(0, "no error", 13000, 13000), "no CUDA device on this machine");
  EXPECT_NE(no_device_text(34, "CUDA driver is a stub library", 0, 13000).find("stub"), std::string::npos);
  EXPECT_NE(no_device_text(803, "system has unsupported display driver / cuda driver combination", 0, 13000)
                .find("different versions"),
            std::string::npos);
  EXPECT_EQ(no_device_text(999, "unknown error", 13000, 13000), "unknown error");
  for (int status : {0, 34, 35, 100, 802, 803, 999})
    EXPECT_TRUE(one(no_device_text(status, "first\nsecond\n", 12000, 13000))) << status;
}

TEST(EngineCudaMessages, WhichCardsABuildServes) {
  const std::string usual = "80-real,86-real,89-real,90";
  for (auto [major, minor] : {std::pair{8, 0}, {8, 6}, {8, 7}, {8, 9}, {9, 0}, {10, 0}, {12, 0}})
    EXPECT_EQ(architecture_problem(0, "card", major, minor, usual), "") << major << minor;
  EXPECT_EQ(architecture_problem(1, "Tesla V100", 7, 0, usual),
            "cuda:1 (Tesla V100) has architecture sm_70; this build has code for 80-real,86-real,89-real,90 "
            "(GM_CUDA_ARCHS)");
  // Machine code serves its own generation, from its own number on; PTX everything later.
  EXPECT_EQ(architecture_problem(0, "card", 8, 6, "80-real"), "");
  EXPECT_NE(architecture_problem(0, "card", 8, 0, "86-real"), "");
  EXPECT_NE(architecture_problem(0, "card", 9, 0, "80-real,86-real"), "");
  EXPECT_EQ(architecture_problem(0, "card", 9, 0, "80-virtual"), "");
  EXPECT_NE(architecture_problem(0, "card", 8, 0, "90-virtual"), "");
  EXPECT_EQ(architecture_problem(0, "card", 9, 0, "90a-real"), "");
  EXPECT_NE(architecture_problem(0, "card", 10, 0, "90a"), "");
  EXPECT_EQ(architecture_problem(0, "card", 7, 5, "native"), "");
}

TEST(EngineCudaMessages, MemoryAndFailedCalls) {
  EXPECT_EQ(out_of_memory_text(size_t{3} << 30, size_t{1} << 29, size_t{8} << 30),
            "out of GPU memory: 3.00 GiB asked, 512.0 MiB of 8.00 GiB free; use a smaller batch");
  EXPECT_EQ(out_of_memory_text(640, 0, size_t{5} << 20),
            "out of GPU memory: 640 bytes asked, 0 bytes of 5.0 MiB free; use a smaller batch");
  EXPECT_EQ(full_card_text(1, size_t{64} << 20, size_t{10} << 20, size_t{32} << 20),
            "cuda:1 is too full: the libraries' workspace takes 64.0 MiB, 10.0 MiB of 32.0 MiB are free");
  EXPECT_EQ(cuda_error_text("upload", 700, "an illegal memory access was encountered"),
            "upload: an illegal memory access was encountered");
  EXPECT_EQ(cuda_error_text("64 MiB", 2, "out of memory"), "64 MiB: out of memory; use a smaller batch");
  EXPECT_NE(cuda_error_text("kernel", 209, "no kernel image is available").find("GM_CUDA_ARCHS"),
            std::string::npos);
}

TEST(EngineCudaMessages, CudnnMissingOrOlder) {
  EXPECT_EQ(cudnn_version_problem(91900), "");
  EXPECT_EQ(cudnn_version_problem(90000), "");
  EXPECT_EQ(cudnn_version_problem(8904), "cuDNN 8.9.4 is too old: 9.0 or newer is needed");
  EXPECT_EQ(
      cudnn_start_text(91900, 1008, "CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED", "libcudnn_ops.so.9"),
      "cuDNN 9.19.0 misses parts of itself: CUDNN_STATUS_SUBLIBRARY_LOADING_FAILED (libcudnn_ops.so.9); are "
      "all libcudnn_*.so.9 on the library path?");
  EXPECT_NE(cudnn_start_text(91900, 1002, "words", "").find("another version"), std::string::npos);
  EXPECT_NE(cudnn_start_text(91900, 3005, "words", "").find("newer NVIDIA driver"), std::string::npos);
  EXPECT_NE(cudnn_start_text(91900, 4004, "words", "").find("memory"), std::string::npos);
  EXPECT_EQ(cudnn_start_text(91900, 1001, "CUDNN_STATUS_NOT_INITIALIZED", "Error: a\nError: b\n"),
            "cuDNN 9.19.0 does not start: CUDNN_STATUS_NOT_INITIALIZED (Error: a; Error: b)");
  for (int status : {1001, 1002, 1008, 3005, 3009, 4003, 4004})
    EXPECT_TRUE(one(cudnn_start_text(91900, status, "words", "several\nlines\n"))) << status;
}

}  // namespace gm::test
