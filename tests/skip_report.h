// What every test program prints at its end: skipped tests with their reason, then a line of counts.
#pragma once
#include <gtest/gtest.h>

#include <cstdio>

namespace gm::test {

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

}  // namespace gm::test
