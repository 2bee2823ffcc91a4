// A fiber: a stack and a place to continue. Runs on the OS thread that resumes it, always the same one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GM_SIMT_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define GM_SIMT_ASAN 1
#endif

namespace gm::simt {

class Fiber {
 public:
  using Entry = void (*)();  // must never return: a fiber with nothing to do suspends

  Fiber(char* stack_low, size_t stack_bytes, Entry entry);
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Called outside: runs the fiber up to its next suspend().
  void resume();
  /// Called on the fiber: back to whoever resumed it.
  void suspend();
  bool owns(const void* p) const { return p >= stack_low_ && p < stack_low_ + stack_bytes_; }

 private:
  friend struct FiberStart;
  Entry entry_;
  void* inside_ = nullptr;   // where the fiber continues
  void* outside_ = nullptr;  // where its caller continues
  char* stack_low_;
  size_t stack_bytes_;
  // What AddressSanitizer has to be told at a switch: the fake stack left behind, the bounds of the stack
  // entered.
  void *fake_inside_ = nullptr, *fake_outside_ = nullptr;
  const void* caller_low_ = nullptr;
  size_t caller_bytes_ = 0;
};

/// Keeps all sticky floating-point exception flags set on this OS thread while it lives. A switch restores
/// the control word of the fiber; when that differs from the current one by a flag that only one side has
/// raised, the processor serialises, and a switch costs 60 ns instead of 4.
class UniformFloatFlags {
 public:
  UniformFloatFlags();
  ~UniformFloatFlags();
  static void raise();

 private:
  unsigned before_;
};

/// Grows on demand and hands out the most recently returned fiber first, whose stack is still in the cache.
class FiberPool {
 public:
  explicit FiberPool(Fiber::Entry entry) : entry_(entry) {}
  ~FiberPool();
  FiberPool(const FiberPool&) = delete;
  FiberPool& operator=(const FiberPool&) = delete;

  Fiber* take();
  void give_back(Fiber* f) { idle_.push_back(f); }
  size_t size() const { return fibers_.size(); }

 private:
  Fiber::Entry entry_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  std::vector<void*> mappings_;
};

}  // namespace gm::simt
