// The state of the SIMT test device while a kernel runs. Split by task: launching and scheduling in
// simt_host.cpp, barriers and warp operations in simt_collectives.cpp, shared memory in simt_shared.cpp.
#pragma once
#include <exception>
#include <string>
#include <vector>

#include "kernels/common/card_limits.h"
#include "kernels/common/simt_fiber.h"
#include "kernels/common/simt_host.h"

namespace gm::simt {

constexpr size_t kSharedLimit = 48 * 1024;  // static + dynamic, unless the launch asks for more
constexpr size_t kSharedOptInLimit = kSmallestShared;

inline std::string str(uint3 v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}
inline std::string str(dim3 v) { return str(uint3{v.x, v.y, v.z}); }
inline std::string str(const Site& s) { return std::string(s.file_name()) + ":" + std::to_string(s.line()); }

enum class State : uint8_t { fresh, ready, at_block, at_warp, done };

struct Thread {
  State state = State::fresh;
  WarpOp op{};
  uint3 index{};
  Fiber* fiber = nullptr;
  Site site;  // of the collective it waits at
  unsigned mask = 0;
  int source = 0;
  uint64_t value = 0;  // deposited at a warp operation, replaced by the result when the operation completes
};

/// Lanes that named the same mask and wait for the rest of it. Disjoint masks make several groups.
struct Group {
  unsigned mask, arrived;
};

struct Warp {
  unsigned exists = 0, exited = 0;
  uint64_t phase = 0;
  std::vector<Group> groups;
};

struct SharedBlock {
  std::string name;
  unsigned char* data;
  size_t bytes, alignment;
};

/// Where in the order of a launch an access happens: phases end at __syncthreads, warp phases at __syncwarp.
struct Moment {
  uint64_t phase = 0, warp_phase = 0;
  unsigned thread = 0;
};

struct Cancelled {};  // unwinds a suspended thread after another one failed

class Machine {
 public:
  /// While it lives the device's own code runs on the kernel's behalf.
  class Aside {
   public:
    explicit Aside(Machine& m) : m_(m) { m_.in_kernel_code_ = false; }
    ~Aside() { m_.in_kernel_code_ = true; }

   private:
    Machine& m_;
  };

  void run(const LaunchSite& site, dim3 grid, dim3 block, size_t dynamic_bytes, void (*body)(const void*),
           const void* context);
  int block_collective(BlockOp op, bool predicate, const Site& at);
  uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, int source, const Site& at);
  void* allocate_shared(const char* name, size_t bytes, size_t alignment);
  void* shared_dynamic();
  int lane() const { return static_cast<int>(number(*current_) % 32); }
  [[noreturn]] void fault(const std::string& what) const;
  /// False where an access at p cannot race: outside of kernel code, or on the stack of the running thread.
  bool moment(const void* p, Moment* now) const;
  void note_race(const void* p, unsigned other_thread, bool other_wrote, bool writes);

  Schedule schedule;
  Stats stats;

  static Machine& instance() {
    static thread_local Machine m;
    return m;
  }
  static constinit thread_local Machine* active;  // null outside of a launch

 private:
  void validate(dim3 grid, dim3 block, size_t dynamic_bytes) const;
  void prepare_threads(dim3 block);
  void run_block();
  void run_phases();
  void work();  // what every fiber does
  void suspend(State state);
  void retire(Thread& t);
  void complete(unsigned first, unsigned mask);
  void release_barrier();
  [[noreturn]] void stuck() const;
  void check_race_found();
  void free_shared();
  void arrange(std::vector<unsigned>& order, uint32_t phase);
  unsigned number(const Thread& t) const { return static_cast<unsigned>(&t - threads_.data()); }

  FiberPool pool_{[] { active->work(); }};
  LaunchSite site_{};
  void (*body_)(const void*) = nullptr;
  const void* context_ = nullptr;
  bool running_ = false, cancelling_ = false;
  std::exception_ptr error_;

  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<unsigned> order_, block_order_;
  unsigned block_number_ = 0;
  size_t started_ = 0;
  Thread* current_ = nullptr;
  Fiber* worker_ = nullptr;
  unsigned live_ = 0, ready_ = 0;

  unsigned at_block_ = 0, votes_ = 0;
  bool one_site_ = true;
  Site barrier_;
  BlockOp barrier_op_{};
  int barrier_result_ = 0;

  bool in_kernel_code_ = false;
  uint64_t phase_ = 0;  // never repeats, also across launches
  std::string race_;    // the first one of the block

  std::vector<SharedBlock> shared_;
  size_t dynamic_bytes_ = 0, shared_bytes_ = 0;
  void* dynamic_ = nullptr;
};

}  // namespace gm::simt
