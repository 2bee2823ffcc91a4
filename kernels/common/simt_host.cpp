// The scheduler of the SIMT test device. Blocks run one after another; the threads of a block run on fibers,
// each up to its next barrier or warp operation. Stricter than a GPU on purpose: what CUDA leaves undefined
// is an error.
#include <numeric>
#include <utility>

#include "kernels/common/ceil_div.h"
#include "kernels/common/philox.h"
#include "kernels/common/simt_machine.h"

namespace gm::simt {

constinit thread_local uint3 threadIdx{}, blockIdx{};
constinit thread_local dim3 blockDim{}, gridDim{};
constinit thread_local uint64_t block_serial = 0;

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
  warps_.assign(ceil_div(n, 32), {});
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
  ++phase_;
  ++stats.blocks;
  stats.threads += threads_.size();
  for (Thread& t : threads_) t.state = State::fresh;
  for (Warp& w : warps_) w.exited = 0, w.groups.clear();
  live_ = static_cast<unsigned>(threads_.size());
  ready_ = at_block_ = votes_ = 0;
  started_ = 0;
  race_.clear();
  dynamic_ = nullptr;
  shared_bytes_ = dynamic_bytes_;
  try {
    run_phases();
    check_race_found();
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
        in_kernel_code_ = true;
        body_(context_);
        in_kernel_code_ = false;
        retire(t);
      } catch (const Cancelled&) {
        t.state = State::done;
      } catch (...) {
        t.state = State::done;
        if (!error_) error_ = std::current_exception();
      }
    }
    in_kernel_code_ = false;
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

namespace {

Machine& in_kernel() {
  if (!Machine::active) fail("simt: a device function was called outside of a kernel");
  return *Machine::active;
}

}  // namespace

int block_collective(BlockOp op, bool predicate, const Site& at) {
  const Machine::Aside aside(in_kernel());
  return in_kernel().block_collective(op, predicate, at);
}
uint64_t warp_collective(WarpOp op, unsigned mask, uint64_t value, int source, const Site& at) {
  const Machine::Aside aside(in_kernel());
  return in_kernel().warp_collective(op, mask, value, source, at);
}
int lane_in_warp() { return in_kernel().lane(); }
void kernel_fault(const std::string& what, const Site& at) { in_kernel().fault(what + " (" + str(at) + ")"); }
void* allocate_shared(const char* name, size_t bytes, size_t alignment) {
  const Machine::Aside aside(in_kernel());
  return in_kernel().allocate_shared(name, bytes, alignment);
}
void* shared_dynamic() {
  const Machine::Aside aside(in_kernel());
  return in_kernel().shared_dynamic();
}
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
