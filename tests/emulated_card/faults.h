// What a real card does when it pleases, the emulated one does when it is told to: calls that are refused, a
// kernel that fails, another machine. For tests in the program itself; others set the variables before it
// starts.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace gm::emulated {

/// What a program has and has not given back, of all cards.
struct Held {
  size_t bytes = 0, page_locked = 0;  // numbers of allocations
  size_t streams = 0, events = 0, captures = 0;
  int graphs = 0;
  bool operator==(const Held&) const = default;
};
Held held();

/// How often a function of the runtime has been called; "kernels": how many have run.
int64_t calls(const std::string& function);

/// The machine is switched off and on again: nothing is left of what programs had, nothing is broken, and the
/// variables of the environment are read anew.
void restart();

}  // namespace gm::emulated
