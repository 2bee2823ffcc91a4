// The scheduler of the SIMT test device. Blocks run one after another; the threads of a block run on fibers,
// each up to its next barrier or warp operation. Stricter than a GPU on purpose: what CUDA leaves undefined
// is an error.
#include "kernels/common/simt_host.h"

#include <cstdio>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <numeric>
#include <utility>
#include <vector>

#include "kernels/common/philox.h"
#include "kernels/common/simt_fiber.h"

namespace gm::simt {

constinit thread_local uint3 threadIdx{}, blockIdx{};
constinit thread_local dim3 blockDim{}, gridDim{};
constinit thread_local uint64_t block_serial = 0;

namespace {

constexpr size_t kSharedLimit = 48 * 1024;  // static + dynamic, unless the launch opts in to more
constexpr size_t kSharedOptInLimit =
    99 * 1024;  // the smallest opt-in limit of sm_80 ... sm_90 (sm_86, sm_89)
#if defined(GM_SIMT_ASAN)
constexpr size_t kCanary = 0;  // redzones report the very store that overruns
#else
constexpr size_t kCanary = 64;
#endif
constexpr unsigned char kPoison = 0xFF, kCanaryByte = 0xA5;

std::string str(uint3 v) {
  return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}
std::string str(dim3 v) { return str(uint3{v.x, v.y, v.z}); }
std::string str(const Site& s) { return std::string(s.file_name()) + ":" + std::to_string(s.line()); }
std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}
bool same(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}
int lowest(unsigned mask) { return std::countr_zero(mask); }

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

/// Lanes that named the same mask and wait for the rest of it. Disjoint masks make several groups in one
/// warp.
struct Group {
  unsigned mask, arrived;
};

struct Warp {
  unsigned exists = 0, exited = 0;
  std::vector<Group> groups;
};

struct SharedBlock {
  std::string name;
  unsigned char* data;
  size_t bytes, alignment;
};

struct Cancelled {};  // unwinds a suspended thread after another one failed

class Machine {
 public:
  void run(const LaunchSite& site, dim3 grid, dim3 block, size_t dynamic_bytes, void (*body)(const void*),
           const void* context);
  int block_collective(BlockOp op, bool predicate, const Site& at);
  uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, int source, const Site& at);
  void* allocate_shared(const char* name, size_t bytes, size_t alignment);
  void* shared_dynamic();
  int lane() const { return static_cast<int>(number(*current_) % 32); }
  [[noreturn]] void fault(const std::string& what) const;

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
  void complete(Warp& w, unsigned first, unsigned mask);
  void release_barrier();
  [[noreturn]] void stuck() const;
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

  std::vector<SharedBlock> shared_;
  size_t dynamic_bytes_ = 0, shared_bytes_ = 0;
  void* dynamic_ = nullptr;
};

constinit thread_local Machine* Machine::active = nullptr;

void Machine::fault(const std::string& what) const {
  std::string where = "simt: kernel ";
  where += std::string(site_.kernel) + " (" + site_.file + ":" + std::to_string(site_.line) + ")";
  if (block_serial && running_) where += ", block " + str(blockIdx);
  if (current_) where += ", thread " + str(current_->index);
  fail(where + ": " + what);
}

void Machine::validate(dim3 g, dim3 b, size_t dynamic_bytes) const {
  auto refuse = [&](const std::string& why) {
    fail("simt: kernel " + std::string(site_.kernel) + " (" + site_.file + ":" + std::to_string(site_.line) +
         "): launch of grid " + str(g) + " block " + str(b) + " refused: " + why);
  };
  if (!g.x || !g.y || !g.z) refuse("a grid dimension is zero");
  if (!b.x || !b.y || !b.z) refuse("a block dimension is zero");
  if (g.x > 0x7fffffffu) refuse("grid x is above 2^31-1");
  if (g.y > 65535 || g.z > 65535) refuse("grid y or z is above 65535");
  if (b.x > 1024 || b.y > 1024 || b.z > 64) refuse("a block dimension is above (1024,1024,64)");
  if (b.x * b.y * b.z > 1024) refuse("a block has more than 1024 threads");
  if (dynamic_bytes > kSharedOptInLimit)
    refuse(std::to_string(dynamic_bytes) + " bytes of dynamic shared memory, the limit is " +
           std::to_string(kSharedOptInLimit));
}

void Machine::prepare_threads(dim3 b) {
  const unsigned n = b.x * b.y * b.z;
  threads_.assign(n, {});
  warps_.assign((n + 31) / 32, {});
  order_.resize(n);
  for (unsigned i = 0; i < n; ++i) {
    threads_[i].index = {i % b.x, i / b.x % b.y, i / (b.x * b.y)};
    warps_[i / 32].exists |= 1u << (i % 32);
  }
}

/// Fisher-Yates on counter-based draws: the order depends on seed, block and phase, not on earlier launches.
void Machine::arrange(std::vector<unsigned>& order, uint32_t phase) {
  std::iota(order.begin(), order.end(), 0u);
  if (schedule.order == Order::descending) std::reverse(order.begin(), order.end());
  if (schedule.order != Order::shuffled) return;
  PhiloxStream draw(schedule.seed, RngUse::shuffle, block_number_, phase);
  for (size_t i = order.size() - 1; i > 0; --i)
    std::swap(order[i], order[draw.below(static_cast<uint32_t>(i) + 1)]);
}

void Machine::run(const LaunchSite& site, dim3 g, dim3 b, size_t dynamic_bytes, void (*body)(const void*),
                  const void* context) {
  if (running_) fail("simt: a kernel launched a kernel");
  site_ = site;
  validate(g, b, dynamic_bytes);
  body_ = body;
  context_ = context;
  dynamic_bytes_ = dynamic_bytes;
  gridDim = g;
  blockDim = b;
  prepare_threads(b);
  ++stats.launches;
  block_order_.resize(size_t{g.x} * g.y * g.z);
  block_number_ = 0xffffffffu;
  arrange(block_order_, 0);
  arrange(order_, 0);
  const UniformFloatFlags flags;
  running_ = true;
  active = this;
  for (unsigned i : block_order_) {
    block_number_ = i;
    blockIdx = {i % g.x, i / g.x % g.y, i / (g.x * g.y)};
    run_block();
    if (error_) break;
  }
  running_ = false;
  active = nullptr;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Machine::run_block() {
  ++block_serial;
  ++stats.blocks;
  stats.threads += threads_.size();
  for (Thread& t : threads_) t.state = State::fresh;
  for (Warp& w : warps_) w.exited = 0, w.groups.clear();
  live_ = static_cast<unsigned>(threads_.size());
  ready_ = at_block_ = votes_ = 0;
  started_ = 0;
  dynamic_ = nullptr;
  shared_bytes_ = dynamic_bytes_;
  try {
    run_phases();
    free_shared();
  } catch (...) {
    if (!error_) error_ = std::current_exception();
  }
  current_ = nullptr;
  if (!error_) return;
  // Unwind what is still suspended, so that the stacks are clean for the next launch.
  cancelling_ = true;
  for (Thread& t : threads_)
    if (t.state != State::fresh && t.state != State::done) {
      current_ = &t;
      t.fiber->resume();
    }
  cancelling_ = false;
  current_ = nullptr;
  try {
    free_shared();
  } catch (const Error&) {  // an overrun beside the error already held: the first one is the one to report
  }
}

void Machine::run_phases() {
  uint32_t phase = 0;
  const bool shuffled = schedule.order == Order::shuffled;
  if (shuffled) arrange(order_, phase);
  while (started_ < threads_.size() && !error_) {
    worker_ = pool_.take();
    stats.fibers = std::max<uint64_t>(stats.fibers, pool_.size());
    worker_->resume();
  }
  while (live_ && !error_) {
    if (ready_ == 0) {
      current_ = nullptr;
      release_barrier();
    }
    if (shuffled) arrange(order_, ++phase);
    for (unsigned i : order_) {
      Thread& t = threads_[i];
      if (t.state != State::ready) continue;
      current_ = &t;
      worker_ = t.fiber;
      threadIdx = t.index;
      --ready_;
      worker_->resume();
      if (error_) return;
    }
  }
}

/// One fiber runs fresh threads one after another like a plain loop; only when a thread has to wait does it
/// keep its stack, and the scheduler continues with another. A kernel without barriers thus needs one fiber.
void Machine::work() {
  for (;;) {
    while (started_ < threads_.size() && !error_ && !cancelling_) {
      Thread& t = threads_[order_[started_++]];
      t.fiber = worker_;
      current_ = &t;
      threadIdx = t.index;
      t.state = State::ready;
      try {
        body_(context_);
        retire(t);
      } catch (const Cancelled&) {
        t.state = State::done;
      } catch (...) {
        t.state = State::done;
        if (!error_) error_ = std::current_exception();
      }
    }
    Fiber* self = current_->fiber;
    pool_.give_back(self);
    self->suspend();
  }
}

/// Back to the scheduler until the thread may go on.
void Machine::suspend(State state) {
  Thread& t = *current_;
  t.state = state;
  ++stats.suspensions;
  t.fiber->suspend();
  if (cancelling_) throw Cancelled{};
}

void Machine::retire(Thread& t) {
  t.state = State::done;
  --live_;
  const unsigned i = number(t), bit = 1u << (i % 32);
  Warp& w = warps_[i / 32];
  w.exited |= bit;
  for (const Group& g : w.groups)
    if (g.mask & bit) {
      const Thread& waiting = threads_[i / 32 * 32 + static_cast<unsigned>(lowest(g.arrived))];
      fault("returned while thread " + str(waiting.index) + " waits for it at the warp operation of " +
            str(waiting.site) + " with mask " + hex(g.mask));
    }
}

int Machine::block_collective(BlockOp op, bool predicate, const Site& at) {
  current_->site = at;
  if (at_block_++ == 0) {
    barrier_ = at;
    barrier_op_ = op;
    one_site_ = true;
    votes_ = 0;
  } else if (!same(barrier_, at)) {
    one_site_ = false;
  }
  votes_ += predicate;
  suspend(State::at_block);
  return barrier_result_;
}

/// Nobody can run: either everybody stands at one barrier, or the kernel is wrong.
void Machine::release_barrier() {
  if (at_block_ != threads_.size() || !one_site_) stuck();
  const unsigned n = at_block_;
  switch (barrier_op_) {
    case BlockOp::sync:
      barrier_result_ = 0;
      break;
    case BlockOp::sync_or:
      barrier_result_ = votes_ != 0;
      break;
    case BlockOp::sync_and:
      barrier_result_ = votes_ == n;
      break;
    case BlockOp::sync_count:
      barrier_result_ = static_cast<int>(votes_);
      break;
  }
  for (Thread& t : threads_) t.state = State::ready;
  ready_ = n;
  at_block_ = 0;
}

void Machine::stuck() const {
  const size_t n = threads_.size(), returned = n - live_;
  if (at_block_ == live_ && one_site_)
    fault("__syncthreads of " + str(barrier_) + " reached by " + std::to_string(live_) + " of " +
          std::to_string(n) + " threads; " + std::to_string(returned) + " had already returned");
  struct Waiting {
    size_t count = 0;
    uint3 first{};
  };
  std::map<std::string, Waiting> places;
  for (const Thread& t : threads_) {
    if (t.state == State::done) continue;
    const std::string place = t.state == State::at_block
                                  ? "__syncthreads of " + str(t.site)
                                  : "the warp operation of " + str(t.site) + " with mask " + hex(t.mask);
    Waiting& w = places[place];
    if (w.count++ == 0) w.first = t.index;
  }
  std::string report = at_block_ == live_ ? "divergent barrier: " : "deadlock: ";
  for (const auto& [place, w] : places)
    report += std::to_string(w.count) + " threads, first " + str(w.first) + ", wait at " + place + "; ";
  fault(report + std::to_string(returned) + " of " + std::to_string(n) + " had returned");
}

uint64_t Machine::warp_collective(WarpOp op, unsigned mask, uint64_t value, int source, const Site& at) {
  Thread& t = *current_;
  const unsigned i = number(t), first = i / 32 * 32, bit = 1u << (i % 32);
  Warp& w = warps_[i / 32];
  auto refuse = [&](const std::string& why) {
    fault("warp operation of " + str(at) + " with mask " + hex(mask) + ": " + why);
  };
  if (!(mask & bit)) refuse("the mask does not name the calling lane " + std::to_string(i % 32));
  if (mask & ~w.exists) refuse("the block has no lanes " + hex(mask & ~w.exists) + " in this warp");
  if (mask & w.exited) refuse("the mask names lanes that have returned, " + hex(mask & w.exited));
  if (op == WarpOp::shfl && !(mask >> source & 1u))
    refuse("reads lane " + std::to_string(source) + ", which the mask does not name");
  t.op = op;
  t.site = at;
  t.mask = mask;
  t.source = source;
  t.value = value;
  Group* group = nullptr;
  for (Group& g : w.groups) {
    if (g.mask == mask) {
      group = &g;
    } else if ((g.mask & bit) && (g.arrived & mask)) {
      const Thread& other = threads_[first + static_cast<unsigned>(lowest(g.arrived & mask))];
      refuse("thread " + str(other.index) + " waits for this lane with another mask, " + hex(g.mask) +
             ", at " + str(other.site));
    }
  }
  if (group) {
    const Thread& other = threads_[first + static_cast<unsigned>(lowest(group->arrived))];
    if (other.op != op || !same(other.site, at))
      refuse("thread " + str(other.index) + " waits with the same mask at another operation, " +
             str(other.site));
  } else {
    group = &w.groups.emplace_back(Group{mask, 0});
  }
  group->arrived |= bit;
  if (group->arrived == mask) {
    *group = w.groups.back();
    w.groups.pop_back();
    complete(w, first, mask);
    t.state = State::ready;
  } else {
    suspend(State::at_warp);
  }
  return t.value;
}

void Machine::complete(Warp&, unsigned first, unsigned mask) {
  Thread* lanes = &threads_[first];
  uint64_t deposited[32] = {}, ballot = 0;
  for (unsigned m = mask; m; m &= m - 1) {
    const int lane = lowest(m);
    deposited[lane] = lanes[lane].value;
    ballot |= static_cast<uint64_t>(lanes[lane].value != 0) << lane;
  }
  for (unsigned m = mask; m; m &= m - 1) {
    Thread& t = lanes[lowest(m)];
    t.value = t.op == WarpOp::shfl ? deposited[t.source] : ballot;
    if (t.state != State::at_warp) continue;  // the last to arrive goes on without having waited
    t.state = State::ready;
    ++ready_;
  }
}

void* Machine::allocate_shared(const char* name, size_t bytes, size_t alignment) {
  if (name) shared_bytes_ += bytes;
  const size_t limit = dynamic_bytes_ > kSharedLimit ? kSharedOptInLimit : kSharedLimit;
  if (shared_bytes_ > limit)
    fault(std::to_string(shared_bytes_) + " bytes of static and dynamic shared memory, the limit is " +
          std::to_string(limit));
  alignment = std::max<size_t>(alignment, 16);
  auto* p = static_cast<unsigned char*>(::operator new (bytes + kCanary, std::align_val_t{alignment}));
  std::memset(p, kPoison, bytes);
  std::memset(p + bytes, kCanaryByte, kCanary);
  shared_.push_back({name ? name : "dynamic", p, bytes, alignment});
  return p;
}

void* Machine::shared_dynamic() {
  if (!dynamic_) dynamic_ = allocate_shared(nullptr, dynamic_bytes_, 16);
  return dynamic_;
}

void Machine::free_shared() {
  std::string overrun;
  for (const SharedBlock& s : shared_) {
    for (size_t i = 0; i < kCanary; ++i)
      if (s.data[s.bytes + i] != kCanaryByte)
        overrun =
            "shared array '" + s.name + "' of " + std::to_string(s.bytes) + " bytes was written past its end";
    ::operator delete (s.data, std::align_val_t{s.alignment});
  }
  shared_.clear();
  current_ = nullptr;
  if (!overrun.empty()) fault(overrun);
}

Machine& in_kernel() {
  if (!Machine::active) fail("simt: a device function was called outside of a kernel");
  return *Machine::active;
}

}  // namespace

int block_collective(BlockOp op, bool predicate, const Site& at) {
  return in_kernel().block_collective(op, predicate, at);
}
uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, int source, const Site& at) {
  return in_kernel().warp_collective(op, mask, value, source, at);
}
int lane_in_warp() { return in_kernel().lane(); }
void kernel_fault(const std::string& what, const Site& at) { in_kernel().fault(what + " (" + str(at) + ")"); }
void* allocate_shared(const char* name, size_t bytes, size_t alignment) {
  return in_kernel().allocate_shared(name, bytes, alignment);
}
void* shared_dynamic() { return in_kernel().shared_dynamic(); }
void run_grid(const LaunchSite& site, dim3 grid, dim3 block, size_t dynamic_bytes, void (*body)(const void*),
              const void* context) {
  Machine::instance().run(site, grid, block, dynamic_bytes, body, context);
}

void set_schedule(Schedule s) { Machine::instance().schedule = s; }
Schedule schedule() { return Machine::instance().schedule; }
const Stats& stats() { return Machine::instance().stats; }

std::string Schedule::str() const {
  if (order == Order::ascending) return "ascending";
  if (order == Order::descending) return "descending";
  return "shuffled, seed " + std::to_string(seed);
}

}  // namespace gm::simt
