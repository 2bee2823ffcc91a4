// The CPU's own matrix products, called with shapes on both sides of every tile and with no more scratch than
// they ask for: the pool's scratch is larger and hides what is written behind it.
#define GM_CPU_NS cpu_of_this_test
#include "kernels/linear/gemm_cpu.h"

#include <gtest/gtest.h>

#include <vector>

namespace gm {
namespace {

using namespace cpu_of_this_test;

constexpr float kGuard = -12345;
constexpr int64_t kGuards = 2 * kPanelWidth;

/// Small integers: sums are exact.
template <class T>
std::vector<T> integers(int64_t count, int64_t seed) {
  std::vector<T> v;
  for (int64_t i = 0; i < count; ++i)
    v.push_back(from_float<T>(static_cast<float>((i * 7 + seed * i * i) % 11 - 5)));
  return v;
}
std::vector<float> guarded(int64_t floats) {
  return std::vector<float>(static_cast<size_t>(floats + kGuards), kGuard);
}
void expect_guards(const std::vector<float>& v, const char* what) {
  for (size_t i = v.size() - kGuards; i < v.size(); ++i) ASSERT_EQ(v[i], kGuard) << "behind " << what;
}

/// C of a[i*ai + k*ak] and b[k*bk + j*bj].
template <class TA, class TB>
std::vector<float> product(int64_t m, int64_t n, int64_t depth, const std::vector<TA>& a, int64_t ai,
                           int64_t ak, const std::vector<TB>& b, int64_t bk, int64_t bj, float start) {
  std::vector<float> c(static_cast<size_t>(m * n), start);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t k = 0; k < depth; ++k)
        c[i * n + j] += to_float(a[i * ai + k * ak]) * to_float(b[k * bk + j * bj]);
  return c;
}

template <class T>
void check(int64_t m, int64_t n, int64_t depth) {
  SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << depth << ", bytes " << sizeof(T));
  const std::vector<float> a = integers<float>(m * depth, 1);
  const std::vector<T> b = integers<T>(depth * n, 2), at = integers<T>(m * depth, 3);
  auto expect = [&](std::vector<float> c, const std::vector<float>& want, const char* what) {
    expect_guards(c, what);
    c.resize(want.size());
    EXPECT_EQ(c, want) << what;
  };
  std::vector<float> c = guarded(m * n), scratch = guarded(gemm_scratch(n));
  gemm(m, n, depth, a.data(), depth, 1, b.data(), n, c.data(), n, false, scratch.data());
  expect(c, product(m, n, depth, a, depth, 1, b, n, 1, 0), "gemm");
  expect_guards(scratch, "the scratch of gemm");

  // B^T, read by columns.
  std::vector<float> packed = guarded(packed_b_floats(depth, n));
  pack_b(depth, n, b.data(), 1, depth, packed.data());
  expect_guards(packed, "packed");
  c = guarded(m * n);
  gemm_packed(m, n, depth, a.data(), depth, 1, packed.data(), c.data(), n, false);
  expect(c, product(m, n, depth, a, depth, 1, b, 1, depth, 0), "gemm_packed");

  c = guarded(m * n);
  std::fill_n(c.begin(), m * n, 3.f);
  scratch = guarded(gemm_tn_scratch(m, n));
  gemm_tn(m, n, depth, at.data(), m, b.data(), n, c.data(), n, scratch.data());
  expect(c, product(m, n, depth, at, 1, m, b, n, 1, 3), "gemm_tn");
  expect_guards(scratch, "the scratch of gemm_tn");

  c = guarded(m * n);
  gemm_nt(m, n, depth, a.data(), depth, b.data(), depth, c.data(), n);
  expect(c, product(m, n, depth, a, depth, 1, b, 1, depth, 0), "gemm_nt");
}

TEST(Gemm, EveryTileAndNoMoreScratchThanAskedFor) {
  for (int64_t m : {1, 4, 7, 15})
    for (int64_t n : {1, kLanes - 1, kLanes, kPanelWidth, kPanelWidth + 1, 2 * kPanelWidth + kLanes + 2})
      for (int64_t depth : {1, kLanes + 1, 256, 300}) {
        check<float>(m, n, depth);
        check<bf16>(m, n, depth);
        if (HasFatalFailure() || HasNonfatalFailure()) return;
      }
  check<float>(200, 5, 9);  // more rows than a block has
}

}  // namespace
}  // namespace gm
