// Test entry: installs the kernel tables and, at the end, lists every skipped test with its reason. With
// GM_REQUIRE_GPU=1 a skip for want of a GPU is a failure.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/common/backends.h"

namespace {
class SkipReport : public testing::EmptyTestEventListener {
  void OnTestEnd(const testing::TestInfo& info) override {
    if (!info.result()->Skipped()) return;
    ++skipped_;
    for (int i = 0; i < info.result()->total_part_count(); ++i)
      if (info.result()->GetTestPartResult(i).skipped())
        std::printf("SKIPPED %s.%s: %s\n", info.test_suite_name(), info.name(),
                    info.result()->GetTestPartResult(i).message());
  }
  void OnTestProgramEnd(const testing::UnitTest& unit) override {
    std::printf("%d passed, %d failed, %d skipped\n", unit.successful_test_count(), unit.failed_test_count(),
                skipped_);
  }
  int skipped_ = 0;
};
}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  gm::install_cpu_kernels();
  gm::install_reference_kernels();
  gm::install_simt_kernels();
#ifdef GM_HAS_CUDA
  gm::install_cuda_kernels();
#endif
  testing::UnitTest::GetInstance()->listeners().Append(new SkipReport);
  return RUN_ALL_TESTS();
}
