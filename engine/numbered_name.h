// Names that a framework makes up: a class and a number.
#pragma once
#include <cstdint>
#include <string>
#include <utility>

namespace gm {

/// "conv2d_12" -> ("conv2d", 12); "conv2d" -> ("conv2d", 0). Their order is that in which the layers were
/// made.
inline std::pair<std::string, int64_t> numbered(const std::string& name) {
  const size_t digits = name.find_last_not_of("0123456789") + 1;
  if (digits < 2 || digits == name.size() || name.size() - digits > 9 || name[digits - 1] != '_')
    return {name, 0};
  return {name.substr(0, digits - 1), std::stoll(name.substr(digits))};
}

}  // namespace gm
