// Integers rounded up: how many pieces cover a range. For a >= 0 and b > 0.
#pragma once

namespace gm {

/// a / b, rounded up.
template <class A, class B>
constexpr auto ceil_div(A a, B b) {
  return (a + b - 1) / b;
}

/// The smallest multiple of b that is at least a.
template <class A, class B>
constexpr auto round_up(A a, B b) {
  return ceil_div(a, b) * b;
}

}  // namespace gm
