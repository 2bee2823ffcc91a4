// Distances between tensors that lie on the host as vectors, summed in double.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace gm::test {

template <class A, class B>
double distance(const A& a, const B& b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < b.size(); ++i) sum += std::pow(double(a[i]) - double(b[i]), 2);
  return std::sqrt(sum);
}

inline double l2(const std::vector<float>& v) {
  double sum = 0;
  for (float x : v) sum += double(x) * x;
  return std::sqrt(sum);
}

/// Of what was computed from what is wanted, which must not be all zero: that would prove nothing.
inline double relative_l2(const std::vector<float>& got, const std::vector<float>& want) {
  const double size = l2(want);
  EXPECT_GT(size, 0);
  return distance(got, want) / size;
}

}  // namespace gm::test
