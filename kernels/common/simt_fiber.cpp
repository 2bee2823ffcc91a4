#include "kernels/common/simt_fiber.h"

#include <sys/mman.h>

#include <boost/context/detail/fcontext.hpp>

#include "kernels/common/error.h"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif
#if defined(GM_SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace gm::simt {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kStack = 256 * 1024;  // address space; only touched pages cost memory

void asan_leave([[maybe_unused]] void** fake, [[maybe_unused]] const void* low,
                [[maybe_unused]] size_t bytes) {
#if defined(GM_SIMT_ASAN)
  __sanitizer_start_switch_fiber(fake, low, bytes);
#endif
}
void asan_arrive([[maybe_unused]] void* fake, [[maybe_unused]] const void** low,
                 [[maybe_unused]] size_t* bytes) {
#if defined(GM_SIMT_ASAN)
  __sanitizer_finish_switch_fiber(fake, low, bytes);
#endif
}

}  // namespace

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

struct FiberStart {
  static void run(transfer_t from) {
    Fiber* f = static_cast<Fiber*>(from.data);
    f->outside_ = from.fctx;
    asan_arrive(nullptr, &f->caller_low_, &f->caller_bytes_);
    UniformFloatFlags::raise();
    f->entry_();
  }
};

Fiber::Fiber(char* stack_low, size_t stack_bytes, Entry entry)
    : entry_(entry), stack_low_(stack_low), stack_bytes_(stack_bytes) {
  inside_ = make_fcontext(stack_low + stack_bytes, stack_bytes, &FiberStart::run);
}

void Fiber::resume() {
  asan_leave(&fake_outside_, stack_low_, stack_bytes_);
  inside_ = jump_fcontext(inside_, this).fctx;
  asan_arrive(fake_outside_, nullptr, nullptr);
}

void Fiber::suspend() {
  asan_leave(&fake_inside_, caller_low_, caller_bytes_);
  outside_ = jump_fcontext(outside_, this).fctx;
  asan_arrive(fake_inside_, &caller_low_, &caller_bytes_);
}

#if defined(__SSE__)
UniformFloatFlags::UniformFloatFlags() : before_(_mm_getcsr()) { raise(); }
UniformFloatFlags::~UniformFloatFlags() { _mm_setcsr(before_); }
void UniformFloatFlags::raise() { _mm_setcsr(_mm_getcsr() | _MM_EXCEPT_MASK); }
#else
UniformFloatFlags::UniformFloatFlags() : before_(0) {}
UniformFloatFlags::~UniformFloatFlags() = default;
void UniformFloatFlags::raise() {}
#endif

Fiber* FiberPool::take() {
  if (idle_.empty()) {
    void* p =
        mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fail("simt: no memory for a fiber stack");
    mappings_.push_back(p);
    mprotect(p, kPage, PROT_NONE);  // an overflowing stack faults instead of overwriting its neighbour
    // All stacks start on a page boundary, so without an offset their hot frames would share a few cache
    // sets.
    const size_t offset = fibers_.size() * 448 % kPage / 64 * 64;
    char* low = static_cast<char*>(p) + kPage;
    fibers_.push_back(std::make_unique<Fiber>(low, kStack - kPage - offset, entry_));
    idle_.push_back(fibers_.back().get());
  }
  Fiber* f = idle_.back();
  idle_.pop_back();
  return f;
}

FiberPool::~FiberPool() {
  for (void* p : mappings_) {
#if defined(GM_SIMT_ASAN)
    __asan_unpoison_memory_region(p, kStack);  // the parked frames' redzones must not outlive the mapping
#endif
    munmap(p, kStack);
  }
}

}  // namespace gm::simt
