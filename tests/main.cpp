// Test entry: installs the kernel tables and, at the end, lists every skipped test with its reason. With
// GM_REQUIRE_GPU=1 a skip for want of a GPU is a failure.
#include "kernels/common/backends.h"
#include "tests/skip_report.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  gm::install_cpu_kernels();
  gm::install_reference_kernels();
  gm::install_simt_kernels();
#ifdef GM_HAS_CUDA
  gm::install_cuda_kernels();
#endif
  testing::UnitTest::GetInstance()->listeners().Append(new gm::test::SkipReport);
  return RUN_ALL_TESTS();
}
