// The SIMT test device on trial: correct kernels give right and identical results under every schedule, and
// every planted bug is reported. A device that only ran kernels would make all the other kernel tests worth
// less.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "kernels/common/dtype.h"
#include "kernels/common/error.h"
#include "kernels/common/simt_control.h"
#include "tests/simt_device_kernels.h"

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAsan = true;
#else
constexpr bool kAsan = false;
#endif

namespace gm {
namespace {

using simt::Order;
const SimtTestKernels& kernels() { return simt_dev::simt_test_kernels(); }

const std::vector<simt::Schedule> kSchedules = {
    {Order::ascending, 0}, {Order::descending, 0}, {Order::shuffled, 1}, {Order::shuffled, 2}};

void under_every_schedule(const std::function<void()>& body) {
  for (const simt::Schedule& s : kSchedules) {
    SCOPED_TRACE(s.str());
    simt::set_schedule(s);
    body();
  }
  simt::set_schedule({});
}

std::string report_of(const std::function<void()>& launch) {
  try {
    launch();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

/// Every schedule must report, and the device must be usable afterwards.
void expect_report(const std::string& part, const std::function<void()>& launch) {
  under_every_schedule([&] {
    const std::string report = report_of(launch);
    EXPECT_NE(report.find(part), std::string::npos) << "report: '" << report << "'";
    EXPECT_NE(report.find("simt: kernel "), std::string::npos) << report;
    int out[3] = {};
    kernels().votes(out, 96, nullptr);
    EXPECT_EQ(out[2], 96);
  });
}

std::vector<float> ramp(size_t n) {
  std::vector<float> v(n);
  for (size_t i = 0; i < n; ++i) v[i] = static_cast<float>(static_cast<int>(i * 7919 % 2003) - 1001);
  return v;
}
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(SimtDevice, RowSumByShuffles) {
  const int rows = 5, cols = 1000;
  const std::vector<float> x = ramp(rows * cols);  // integers: every order of additions is exact
  under_every_schedule([&] {
    std::vector<float> y(rows, NAN);
    kernels().row_sum(x.data(), y.data(), rows, cols, nullptr);
    for (int r = 0; r < rows; ++r) {
      float sum = 0;
      for (int c = 0; c < cols; ++c) sum += x[r * cols + c];
      EXPECT_EQ(y[r], sum);
    }
  });
}

TEST(SimtDevice, ReductionBitsDoNotDependOnTheSchedule) {
  std::vector<float> x = ramp(3 * 777), first;
  for (float& v : x) v *= 0.1f;  // rounding makes the order of additions visible
  under_every_schedule([&] {
    std::vector<float> y(3, NAN);
    kernels().row_sum(x.data(), y.data(), 3, 777, nullptr);
    if (first.empty()) first = y;
    EXPECT_TRUE(same_bits(first, y));
  });
}

TEST(SimtDevice, TransposeTile) {
  for (auto [rows, cols] : {std::pair{32, 32}, {1, 1}, {33, 31}, {70, 45}}) {
    const std::vector<float> x = ramp(static_cast<size_t>(rows) * cols);
    under_every_schedule([&, rows = rows, cols = cols] {
      std::vector<float> y(x.size(), NAN);
      kernels().transpose(x.data(), y.data(), rows, cols, nullptr);
      for (int r = 0; r < rows; ++r)
        for (int c = 0; c < cols; ++c) ASSERT_EQ(y[c * rows + r], x[r * cols + c]) << r << ' ' << c;
    });
  }
}

TEST(SimtDevice, DynamicSharedUpToTheOptInLimit) {
  for (int n : {1, 100, 12288, 25344}) {
    const std::vector<float> x = ramp(n);
    under_every_schedule([&] {
      std::vector<float> y(n, NAN);
      kernels().reverse_dynamic(x.data(), y.data(), n, nullptr);
      for (int i = 0; i < n; ++i) ASSERT_EQ(y[i], x[n - 1 - i]);
    });
  }
}

TEST(SimtDevice, IntegerAtomics) {
  std::vector<int> v(1000), expected(13, 0);
  for (int i = 0; i < 1000; ++i) ++expected[(v[i] = i * 37 % 501) % 13];
  under_every_schedule([&] {
    std::vector<int> counts(13, 0);
    int largest = -1;
    kernels().histogram(v.data(), 1000, counts.data(), 13, &largest, nullptr);
    EXPECT_EQ(counts, expected);
    EXPECT_EQ(largest, 500);
  });
}

TEST(SimtDevice, TicketGivesOneLastBlockAndResetsItself) {
  std::vector<float> x = ramp(5000);
  for (float& v : x) v *= 0.37f;
  unsigned ticket = 0;
  float first = NAN;
  under_every_schedule([&] {
    std::vector<float> partials(9, NAN);
    float total = NAN;
    kernels().total(x.data(), 5000, partials.data(), &ticket, &total, 9, nullptr);
    EXPECT_EQ(ticket, 0u);
    if (std::isnan(first)) first = total;
    EXPECT_EQ(total, first);
  });
  double exact = 0;
  for (float v : x) exact += v;
  EXPECT_NEAR(first, exact, 5000 * 371 * 6e-8);
}

TEST(SimtDevice, ThreeDimensionalGrid) {
  const Grid3 grid{3, 4, 5}, block{6, 7, 2};
  under_every_schedule([&] {
    std::vector<float> y(60 * 84, 0.0f);
    kernels().touch(y.data(), grid, block, nullptr);
    EXPECT_EQ(y, std::vector<float>(60 * 84, 1.0f));
  });
}

TEST(SimtDevice, ShufflesByDefinition) {
  under_every_schedule([] {
    std::vector<int> out(224, -1);
    kernels().shuffles(out.data(), nullptr);
    for (int l = 0; l < 32; ++l) {
      EXPECT_EQ(out[l], 100 + l * 3 % 32);
      EXPECT_EQ(out[32 + l], 100 + (l >= 1 ? l - 1 : l));
      EXPECT_EQ(out[64 + l], 100 + (l % 8 < 6 ? l + 2 : l));
      EXPECT_EQ(out[96 + l], 100 + (l ^ 9));
      EXPECT_EQ(out[128 + l], 100 + (l < 16 ? l : l - 16));  // later segments are closed, earlier ones open
      EXPECT_EQ(out[160 + l], static_cast<int>(0xaaaaaaaau));
      EXPECT_EQ(out[192 + l], 100 + (l < 16 ? l ^ 1 : l ^ 2));
    }
  });
}

TEST(SimtDevice, Votes) {
  under_every_schedule([] {
    for (int limit : {0, 1, 95, 96}) {
      int out[3] = {-1, -1, -1};
      kernels().votes(out, limit, nullptr);
      EXPECT_EQ(out[0], limit > 0);
      EXPECT_EQ(out[1], limit == 96);
      EXPECT_EQ(out[2], limit);
    }
  });
}

// The bounds that math.cuh states: of f32 tensors, and of bf16 ones.
TEST(SimtDevice, SiluWithinStatedError) {
  const int n = 40000;
  std::vector<float> x(n);
  for (int i = 0; i < n; ++i) x[i] = -87.0f + 174.0f * static_cast<float>(i) / n;
  for (bool fast : {false, true}) {
    const auto silu = fast ? kernels().fast_silu_f32 : kernels().silu_f32;
    std::vector<float> y(n, NAN), g(n, NAN);
    silu(x.data(), y.data(), g.data(), n, nullptr);
    for (int i = 0; i < n; ++i) {
      const double v = x[i], s = 1.0 / (1.0 + std::exp(-v));
      const double more = fast ? 8e-8 * std::max(0.0, -v) : 0;
      ASSERT_LE(std::abs(y[i] - v * s), (4e-7 + more) * std::abs(v * s)) << v;
      ASSERT_LE(std::abs(g[i] - (s + v * s * (1.0 - s))), fast ? 2e-6 : 3e-7) << v;
    }
    std::vector<float> far = {-200, -100, 100, 200, -0.0f, 0, 1, -1}, fy(8), fg(8);
    silu(far.data(), fy.data(), fg.data(), 8, nullptr);
    EXPECT_EQ(fy[0], 0);
    EXPECT_EQ(fy[3], 200);
    EXPECT_EQ(fg[0], 0);
    EXPECT_EQ(fg[3], 1);
  }
}

TEST(SimtDevice, VectorsOfBf16) {
  std::vector<uint16_t> x(64), y(64, 0xffff);
  for (int i = 0; i < 64; ++i) x[i] = to_bf16(0.25f * static_cast<float>(i - 32)).bits;
  kernels().silu_bf16(x.data(), y.data(), 64, nullptr);
  for (int i = 0; i < 64; ++i) {
    const float v = to_float(bf16{x[i]});
    EXPECT_EQ(y[i], to_bf16(v / (1.0f + std::exp(-v))).bits) << i;
  }
}

TEST(SimtDevice, BarrierFreeKernelsUseOneFiber) {
  uint64_t fibers = 0, suspensions = 1;
  std::thread fresh([&] {  // the device is per OS thread: this one has never met a barrier
    std::vector<float> y(64 * 256, 0.0f);
    kernels().touch(y.data(), {64}, {256}, nullptr);
    fibers = simt::stats().fibers;
    suspensions = simt::stats().suspensions;
  });
  fresh.join();
  EXPECT_EQ(fibers, 1u);
  EXPECT_EQ(suspensions, 0u);
}

// ---- planted bugs

TEST(SimtDeviceBugs, MissingBarrierDisagreesBetweenSchedules) {
  const std::vector<float> x = ramp(64);
  std::vector<std::vector<float>> results, reused;
  under_every_schedule([&] {
    kernels().missing_barrier(x.data(), results.emplace_back(64, 0.0f).data(), nullptr);
    kernels().missing_barrier_reuse(x.data(), reused.emplace_back(64, 0.0f).data(), nullptr);
  });
  EXPECT_FALSE(same_bits(results[0], results[1]));
  EXPECT_FALSE(same_bits(reused[0], reused[1]));
  int poisoned = 0;
  for (float v : results[0]) poisoned += std::isnan(v);
  EXPECT_EQ(poisoned, 32);  // the half that read before its partner wrote
}

TEST(SimtDeviceBugs, UninitialisedSharedMemoryIsNaN) {
  under_every_schedule([] {
    std::vector<float> y(64, 0.0f);
    kernels().uninitialised_shared(y.data(), nullptr);
    EXPECT_EQ(y[62], 1.0f);
    EXPECT_TRUE(std::isnan(y[63]));
  });
}

TEST(SimtDeviceBugs, CollectivesThatDoNotMeet) {
  const SimtTestKernels& k = kernels();
  using Kernel = void (*)(float*, void*);
  const std::vector<std::pair<Kernel, std::string>> bugs = {
      {k.divergent_barrier, "divergent barrier: 32 threads, first (0,0,0), wait at __syncthreads of "},
      {k.barrier_against_warp, "deadlock: "},
      {k.early_return, "reached by 50 of 64 threads; 14 had already returned"},
      {k.mask_without_self, "the mask does not name the calling lane"},
      {k.mask_names_returned, "mask"},
      {k.returns_while_awaited, "return"},
      {k.masks_disagree, "mask"},
      {k.reads_unnamed_lane, ", which the mask does not name"},
      {k.two_sites_one_mask, "waits with the same mask at another operation"},
      {k.partial_warp, "the block has no lanes 0xffff0000 in this warp"},
  };
  for (const auto& [kernel, report] : bugs)
    expect_report(report, [kernel = kernel] {
      std::vector<float> y(64, 0.0f);
      kernel(y.data(), nullptr);
    });
}

TEST(SimtDeviceBugs, ReportsNameKernelBlockThreadAndLine) {
  std::vector<float> y(64, 0.0f);
  const std::string report = report_of([&] { kernels().mask_without_self(y.data(), nullptr); });
  EXPECT_NE(report.find("block (0,0,0), thread (16,0,0)"), std::string::npos) << report;
  EXPECT_NE(report.find("simt_device_kernels.cu:"), std::string::npos) << report;
  EXPECT_NE(report.find("lane 16"), std::string::npos) << report;
}

TEST(SimtDeviceBugs, SharedArrayOverrun) {
  if (kAsan) {
    std::vector<float> y(64, 0.0f);
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_DEATH(kernels().shared_overrun(y.data(), nullptr), "heap-buffer-overflow|out of bounds");
    EXPECT_DEATH(kernels().dynamic_overrun(y.data(), nullptr), "heap-buffer-overflow|out of bounds");
    return;
  }
  std::vector<float> y(64, 0.0f);
  expect_report("shared array 's' of 256 bytes was written past its end",
                [&] { kernels().shared_overrun(y.data(), nullptr); });
  expect_report("shared array 'dynamic' of 256 bytes was written past its end",
                [&] { kernels().dynamic_overrun(y.data(), nullptr); });
}

TEST(SimtDeviceBugs, MisalignedVector) {
  alignas(16) float x[8] = {}, y[8] = {};
  expect_report("misaligned vector access of 16 bytes", [&] { kernels().misaligned_vector(x, y, nullptr); });
}

TEST(SimtDeviceBugs, LaunchLimits) {
  struct Case {
    Grid3 grid, block;
    size_t dynamic_bytes;
    const char* report;
  };
  const Case cases[] = {
      {{0, 1, 1}, {32, 1, 1}, 0, "a grid dimension is zero"},
      {{1, 1, 1}, {32, 0, 1}, 0, "a block dimension is zero"},
      {{1, 65536, 1}, {32, 1, 1}, 0, "grid y or z is above 65535"},
      {{1, 1, 65536}, {32, 1, 1}, 0, "grid y or z is above 65535"},
      {{0x80000000u, 1, 1}, {32, 1, 1}, 0, "grid x is above 2^31-1"},
      {{1, 1, 1}, {1025, 1, 1}, 0, "a block dimension is above"},
      {{1, 1, 1}, {1, 1, 65}, 0, "a block dimension is above"},
      {{1, 1, 1}, {33, 32, 1}, 0, "more than 1024 threads"},
      {{1, 1, 1}, {32, 1, 1}, 99 * 1024 + 1, "bytes of dynamic shared memory"},
  };
  for (const Case& c : cases)
    expect_report(c.report, [&] { kernels().idle(c.grid, c.block, c.dynamic_bytes, nullptr); });
  kernels().idle({1, 1, 1}, {32, 32, 1}, 99 * 1024, nullptr);
}

TEST(SimtDeviceBugs, StaticAndDynamicSharedTogether) {
  std::vector<float> y(64, 0.0f);
  kernels().static_and_dynamic(y.data(), 28 * 1024, nullptr);
  EXPECT_EQ(y[63], 2.0f);
  expect_report("bytes of static and dynamic shared memory, the limit is 49152",
                [&] { kernels().static_and_dynamic(y.data(), 29 * 1024, nullptr); });
  kernels().static_and_dynamic(y.data(), 33 * 1024, nullptr);  // GM_LAUNCH asks for more
  expect_report("the limit is 101376", [&] { kernels().static_and_dynamic(y.data(), 80 * 1024, nullptr); });
}

TEST(SimtDevice, CostOfItsParts) {
  auto ns = [](double units, const std::function<void()>& run) {
    double best = 1e30;
    for (int i = 0; i < 3; ++i) {
      const auto start = std::chrono::steady_clock::now();
      run();
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best / units * 1e9;
  };
  std::vector<float> y(1 << 20, 0.0f);
  std::vector<int> counts(1024);
  std::cout << "thread without barrier "
            << ns(1 << 20, [&] { kernels().touch(y.data(), {4096}, {256}, nullptr); })
            << " ns, thread at __syncthreads "
            << ns(256 * 1000, [&] { kernels().barriers(counts.data(), 1000, 256, nullptr); })
            << " ns, thread at a shuffle "
            << ns(256 * 1000, [&] { kernels().warp_steps(y.data(), 1000, 256, nullptr); }) << " ns\n"
            << simt::not_modelled();
  EXPECT_GT(std::strlen(simt::not_modelled()), 100u);
}

}  // namespace
}  // namespace gm
