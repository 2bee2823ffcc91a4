// Attributes of one op instance (stride, kernel, epsilon ...): a few named numbers, so that a case can be
// printed, hashed into a plan key and repeated from a log line.
#pragma once
#include <initializer_list>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/common/error.h"

namespace gm {

template <class T>
concept AttrNumber = std::is_arithmetic_v<T> || std::is_enum_v<T>;

/// A number, a switch or one of an enumeration (Act::silu), kept as a number.
struct AttrValue {
  AttrValue(AttrNumber auto v) : number(static_cast<double>(v)) {}
  double number;
};

class Attrs {
 public:
  Attrs() = default;
  Attrs(std::initializer_list<std::pair<std::string, AttrValue>> items) {
    for (const auto& [key, value] : items) items_.emplace_back(key, value.number);
  }

  bool has(const std::string& key) const { return find(key) != nullptr; }
  double get(const std::string& key, double fallback) const {
    const double* v = find(key);
    return v ? *v : fallback;
  }
  double get(const std::string& key) const {
    const double* v = find(key);
    GM_CHECK(v, "missing attribute '" + key + "'");
    return *v;
  }
  int geti(const std::string& key) const { return static_cast<int>(get(key)); }
  int geti(const std::string& key, int fallback) const { return static_cast<int>(get(key, fallback)); }
  Attrs& set(const std::string& key, AttrValue value) {
    for (auto& [k, v] : items_)
      if (k == key) {
        v = value.number;
        return *this;
      }
    items_.emplace_back(key, value.number);
    return *this;
  }
  /// "kernel=3 stride=2": stable text for test names, plan keys and reproduction lines.
  std::string str() const {
    std::string s;
    for (const auto& [k, v] : items_) {
      std::string number = std::to_string(v);
      number.erase(number.find_last_not_of('0') + 1);
      if (number.back() == '.') number.pop_back();
      if (v != 0 && (number == "0" || number == "-0")) number = std::to_string(v * 1e9) + "e-9";
      if (!s.empty()) s += ' ';
      s.append(k).append("=").append(number);
    }
    return s;
  }

 private:
  const double* find(const std::string& key) const {
    for (const auto& [k, v] : items_)
      if (k == key) return &v;
    return nullptr;
  }
  std::vector<std::pair<std::string, double>> items_;
};

}  // namespace gm
