// Compound scaling: one network made larger in depth, width and resolution together (S2 section 2.3, Eq. 6;
// Tan & Le 2019, arXiv:1905.11946, section 3.3).
#pragma once
#include <vector>

#include "layers/config.h"

namespace gm {

/// Depth x alpha^phi, width x beta^phi, resolution x gamma^phi.
struct ScalingFactors {
  double alpha = 1, beta = 1, gamma = 1;
  /// By how much phi = 1 multiplies the multiply-accumulates, rounding aside.
  double cost() const { return alpha * beta * beta * gamma * gamma; }
};

/// All of alpha, beta, gamma = 1, 1 + step, 1 + 2 step, ... whose cost is 2 within `tolerance`, sorted by
/// alpha, then beta. Throws gm::Error when there are none.
std::vector<ScalingFactors> scaling_grid(double step, double tolerance);

/// Input size in px: `base` x gamma^phi to the nearest px.
int scaled_size(int base, const ScalingFactors& factors, double phi);

/// A copy of `base` with model.scaling and input.size for phi; `base` itself is the network at phi = 0.
/// Throws gm::Error when it is scaled already; `where` names its file.
YAML::Node scaled_config(const YAML::Node& base, const ScalingFactors& factors, double phi, int size,
                         const std::string& where);

}  // namespace gm
