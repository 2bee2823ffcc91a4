// The CPU's own matrix products, called with shapes on both sides of every tile and with no more scratch than
// they ask for: the pool's scratch is larger and hides what is written behind it.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/common/backends.h"
#include "tests/cpu_functions.h"

namespace gm::test {

namespace {

constexpr float kGuard = -12345;
constexpr int64_t kGuards = 2 * 48;  // two panels of the widest kind

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
void check(const GemmFunctions& f, const GemmFunctionsOf<T>& of, int64_t m, int64_t n, int64_t depth) {
  SCOPED_TRACE(testing::Message() << m << " x " << n << " x " << depth << ", bytes " << sizeof(T));
  const std::vector<float> a = integers<float>(m * depth, 1);
  const std::vector<T> b = integers<T>(depth * n, 2), at = integers<T>(m * depth, 3);
  auto expect = [&](std::vector<float> c, const std::vector<float>& want, const char* what) {
    expect_guards(c, what);
    c.resize(want.size());
    EXPECT_EQ(c, want) << what;
  };
  std::vector<float> c = guarded(m * n), scratch = guarded(f.gemm_scratch(n));
  of.gemm(m, n, depth, a.data(), depth, 1, b.data(), n, c.data(), n, false, scratch.data());
  expect(c, product(m, n, depth, a, depth, 1, b, n, 1, 0), "gemm");
  expect_guards(scratch, "the scratch of gemm");

  // B^T, read by columns.
  std::vector<float> packed = guarded(f.packed_b_floats(depth, n));
  of.pack_b(depth, n, b.data(), 1, depth, packed.data());
  expect_guards(packed, "packed");
  c = guarded(m * n);
  f.gemm_packed(m, n, depth, a.data(), depth, 1, packed.data(), c.data(), n, false);
  expect(c, product(m, n, depth, a, depth, 1, b, 1, depth, 0), "gemm_packed");

  c = guarded(m * n);
  std::fill_n(c.begin(), m * n, 3.f);
  scratch = guarded(f.gemm_tn_scratch(m, n));
  of.gemm_tn(m, n, depth, at.data(), m, b.data(), n, c.data(), n, scratch.data());
  expect(c, product(m, n, depth, at, 1, m, b, n, 1, 3), "gemm_tn");
  expect_guards(scratch, "the scratch of gemm_tn");

  c = guarded(m * n);
  of.gemm_nt(m, n, depth, a.data(), depth, b.data(), depth, c.data(), n);
  expect(c, product(m, n, depth, a, depth, 1, b, 1, depth, 0), "gemm_nt");
}

}  // namespace

class Gemm : public testing::TestWithParam<std::string> {};

TEST_P(Gemm, EveryTileAndNoMoreScratchThanAskedFor) {
  const GemmFunctions& f = cpu_functions(GetParam()).gemm;
  const int64_t lanes = f.lanes, panel = f.panel_width;
  ASSERT_LE(2 * panel, kGuards);
  for (int64_t m : {1, 4, 7, 15, 29})
    for (int64_t n : {int64_t{1}, lanes - 1, lanes, panel, panel + 1, 2 * panel + lanes + 2})
      for (int64_t depth : {int64_t{1}, lanes + 1, int64_t{256}, int64_t{300}}) {
        check<float>(f, f.f32, m, n, depth);
        check<bf16>(f, f.half, m, n, depth);
        if (HasFatalFailure() || HasNonfatalFailure()) return;
      }
  check<float>(f, f.f32, 200, 5, 9);  // more rows than a block has
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, Gemm, testing::ValuesIn(cpu_kernels_names()),
                         [](const auto& info) { return info.param; });

}  // namespace gm::test
