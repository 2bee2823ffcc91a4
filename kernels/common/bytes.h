// Sizes of memory in messages.
#pragma once
#include <cstddef>
#include <cstdio>
#include <string>

namespace gm {

/// "3.00 GiB", "12.5 MiB", "640 bytes": in the unit in which it is not nothing.
inline std::string bytes_text(size_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  char text[32];
  if (mib >= 1024)
    std::snprintf(text, sizeof text, "%.2f GiB", mib / 1024);
  else if (mib >= 0.1)
    std::snprintf(text, sizeof text, "%.1f MiB", mib);
  else
    std::snprintf(text, sizeof text, "%zu bytes", bytes);
  return text;
}

}  // namespace gm
