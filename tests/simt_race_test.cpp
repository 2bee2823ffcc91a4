// Races are reported whatever the schedule, and correct kernels report none. The kernels of this binary are
// compiled with -fsanitize=thread (the object only: the link line has no sanitizer, simt_race.cpp takes its
// place).
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/common/error.h"
#include "kernels/common/simt_control.h"
#include "tests/simt_device_kernels.h"

namespace gm {
namespace {

using simt::Order;
const SimtTestKernels& kernels() { return simt_dev::simt_test_kernels(); }

class SimtRace : public testing::TestWithParam<simt::Schedule> {
 protected:
  void SetUp() override {
    simt::set_schedule(GetParam());
    simt::check_races(true);
  }
  void TearDown() override {
    simt::check_races(false);
    simt::set_schedule({});
  }
  std::vector<float> x = std::vector<float>(4096, 1.0f), y = std::vector<float>(4096, 0.0f);
};

std::string report_of(void (*kernel)(const float*, float*, void*), const float* x, float* y) {
  try {
    kernel(x, y, nullptr);
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST_P(SimtRace, MissingBarrier) {
  const std::string report = report_of(kernels().missing_barrier, x.data(), y.data());
  EXPECT_NE(report.find("race on shared array 's' at byte "), std::string::npos) << report;
  EXPECT_NE(report.find("with no barrier between"), std::string::npos) << report;
}

TEST_P(SimtRace, TileReusedTooEarly) {
  const std::string report = report_of(kernels().missing_barrier_reuse, x.data(), y.data());
  EXPECT_NE(report.find("race on shared array 's' at byte "), std::string::npos) << report;
}

TEST_P(SimtRace, MissingSyncwarp) {
  const std::string report = report_of(kernels().missing_syncwarp, x.data(), y.data());
  EXPECT_NE(report.find("race on shared array 's' at byte "), std::string::npos) << report;
  EXPECT_EQ(report_of(kernels().with_syncwarp, x.data(), y.data()), "");
}

TEST_P(SimtRace, GlobalMemory) {
  const std::string report = report_of(kernels().neighbours_write, x.data(), y.data());
  EXPECT_NE(report.find("race on global memory: thread "), std::string::npos) << report;
}

TEST_P(SimtRace, CorrectKernelsHaveNone) {
  std::vector<int> v(1000, 3), counts(13, 0), out(224);
  int largest = 0;
  unsigned ticket = 0;
  float total = 0, partials[9];
  EXPECT_NO_THROW({
    kernels().row_sum(x.data(), y.data(), 4, 1000, nullptr);
    kernels().transpose(x.data(), y.data(), 70, 45, nullptr);
    kernels().reverse_dynamic(x.data(), y.data(), 1000, nullptr);
    kernels().histogram(v.data(), 1000, counts.data(), 13, &largest, nullptr);
    kernels().total(x.data(), 4096, partials, &ticket, &total, 9, nullptr);
    kernels().touch(y.data(), {2, 2, 2}, {8, 4, 2}, nullptr);
    kernels().silu_f32(x.data(), y.data(), y.data() + 2048, 1024, nullptr);
    kernels().shuffles(out.data(), nullptr);
    kernels().votes(out.data(), 3, nullptr);
  });
  EXPECT_EQ(total, 4096.0f);
}

INSTANTIATE_TEST_SUITE_P(Schedules, SimtRace,
                         testing::Values(simt::Schedule{Order::ascending, 0},
                                         simt::Schedule{Order::descending, 0},
                                         simt::Schedule{Order::shuffled, 1}));

}  // namespace
}  // namespace gm
