// The one exception type of the engine: a single clear line for the user.
#pragma once
#include <stdexcept>
#include <string>

namespace gm {

/// A failure that a user can act on. what() is one line; tools print it after "error: " and exit 1.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A failure of the machine and not of what it was given: no memory, no room. What skips bad inputs must not
/// skip it.
struct MachineError : Error {
  using Error::Error;
};

[[noreturn]] inline void fail(const std::string& message) { throw Error(message); }

/// Internal contract of a kernel or a graph; names file and line because a user cannot act on it.
#define GM_CHECK(condition, message)                                                                       \
  do {                                                                                                     \
    if (!(condition))                                                                                      \
      ::gm::fail(std::string(message) + " (" #condition ", " + __FILE__ + ":" + std::to_string(__LINE__) + \
                 ")");                                                                                     \
  } while (0)

}  // namespace gm
