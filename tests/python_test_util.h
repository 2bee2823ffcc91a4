// An interpreter for tests that are judged by a Python package.
#pragma once
#include <cstdlib>
#include <string>

namespace gm::test {

/// GM_PYTHON names an interpreter that has the module; default: python3. Empty: none.
inline std::string python_with(const std::string& module) {
  const char* given = std::getenv("GM_PYTHON");
  const std::string python = given ? given : "python3";
  return std::system((python + " -c 'import " + module + "' 2>/dev/null").c_str()) == 0 ? python : "";
}

}  // namespace gm::test
