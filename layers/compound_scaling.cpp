#include "layers/compound_scaling.h"

#include <charconv>
#include <cmath>

#include "kernels/common/error.h"

namespace gm {

namespace {

// The shortest decimal that reads back as the same number; yaml-cpp would write 1.1499999999999999.
std::string decimal(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

}  // namespace

std::vector<ScalingFactors> scaling_grid(double step, double tolerance) {
  // Rounded, so that 1 + 3 * 0.05 is 1.15.
  auto value = [&](int i) { return std::round((1 + i * step) * 1e6) / 1e6; };
  const double most = 2 + tolerance + 1e-9;
  std::vector<ScalingFactors> grid;
  for (int i = 0; value(i) <= most; ++i)
    for (int j = 0; value(j) * value(j) <= most; ++j)
      for (int k = 0; value(k) * value(k) <= most; ++k) {
        const ScalingFactors f{value(i), value(j), value(k)};
        if (std::abs(f.cost() - 2) <= tolerance + 1e-9) grid.push_back(f);
      }
  if (grid.empty())
    fail("no alpha, beta, gamma with alpha * beta^2 * gamma^2 = 2 within " + decimal(tolerance) +
         " in steps of " + decimal(step) + "; try a smaller step or a larger tolerance");
  return grid;
}

int scaled_size(int base, const ScalingFactors& factors, double phi) {
  return static_cast<int>(std::lround(base * std::pow(factors.gamma, phi)));
}

YAML::Node scaled_config(const YAML::Node& base, const ScalingFactors& factors, double phi, int size,
                         const std::string& where) {
  YAML::Node config = YAML::Clone(base);
  YAML::Node scaling = config["model"]["scaling"];
  if (scaling && scaling["phi"] && scaling["phi"].as<double>(0) != 0)
    fail(where + ": model.scaling.phi is " + scaling["phi"].Scalar() +
         "; only a network with phi 0 can be scaled");
  config["model"]["scaling"]["alpha"] = decimal(factors.alpha);
  config["model"]["scaling"]["beta"] = decimal(factors.beta);
  config["model"]["scaling"]["phi"] = decimal(phi);
  config["input"]["size"] = size;
  return config;
}

}  // namespace gm
