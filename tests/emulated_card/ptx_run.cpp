// Runs grids: blocks one after another, their warps in turns from barrier to barrier, lanes of a warp
// together as long as they are at the same instruction and those that lag behind first.
#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <random>

#include "tests/emulated_card/ptx_lanes.h"

namespace gm::emulated {

namespace {

constexpr uint64_t kMostSteps = uint64_t{1} << 36;

unsigned along(const Dim& d, char axis) { return axis == 'x' ? d.x : axis == 'y' ? d.y : d.z; }

// %tid.x and its like, of one thread.
uint32_t special(std::string_view name, const Block& b, unsigned thread) {
  const char axis = name.back();
  if (starts(name, "%ntid.")) return along(b.block, axis);
  if (starts(name, "%ctaid.")) return along(b.index, axis);
  if (starts(name, "%nctaid.")) return along(b.grid, axis);
  if (starts(name, "%tid."))
    return along({thread % b.block.x, thread / b.block.x % b.block.y, thread / (b.block.x * b.block.y)},
                 axis);
  throw std::runtime_error("PTX: special register " + std::string(name) + " is not known");
}
void fill_special(Warp& w, const Kernel& kernel, const Block& b) {
  for (const auto& [name, slot] : kernel.special)
    for (unsigned lane = 0; lane < kLanes; ++lane)
      w.words[static_cast<size_t>(slot) * kLanes + lane] = special(name, b, w.index * kLanes + lane);
}

[[noreturn]] void report(const Warp& w, const Instruction& in, int lane, const std::string& what) {
  const Block& b = *w.block;
  const unsigned thread = w.index * kLanes + static_cast<unsigned>(lane);
  throw std::runtime_error("kernel " + b.kernel->info.name + ", block (" + std::to_string(b.index.x) + ", " +
                           std::to_string(b.index.y) + ", " + std::to_string(b.index.z) + "), thread " +
                           std::to_string(thread) + ": " + what + "; " + std::string(in.text));
}

// Until all lanes are at a barrier or have left.
void run_warp(Warp& w, const std::vector<Instruction>& code) {
  uint64_t steps = 0;
  for (;;) {
    const uint32_t ready = w.live & ~w.at_barrier & ~w.waiting;
    if (!ready) {
      if (w.waiting) {
        const int lane = std::countr_zero(w.waiting);
        report(w, code[w.pc[lane]], lane, "waits for lanes of its warp that do not come");
      }
      return;
    }
    uint32_t pc = ~0u, limit = ~0u, mask = 0;
    for (uint32_t m = ready; m; m &= m - 1) pc = std::min(pc, w.pc[std::countr_zero(m)]);
    for (uint32_t m = ready; m; m &= m - 1) {
      const int lane = std::countr_zero(m);
      if (w.pc[lane] == pc)
        mask |= 1u << lane;
      else
        limit = std::min(limit, w.pc[lane]);
    }
    const auto park = [&](uint32_t lanes, uint32_t at) {
      for (; lanes; lanes &= lanes - 1) w.pc[std::countr_zero(lanes)] = at;
    };
    for (bool regroup = false; !regroup;) {
      if (pc >= code.size())
        throw std::runtime_error("PTX: kernel " + w.block->kernel->info.name + " has no end");
      const Instruction& in = code[pc];
      const uint32_t m = in.guard == kNone
                             ? mask
                             : mask & (in.guard_negated ? ~w.predicates[in.guard] : w.predicates[in.guard]);
      if (++steps > kMostSteps) report(w, in, std::countr_zero(mask), "runs for ever");
      switch (in.kind) {
        case Kind::plain:
          if (m) {
            try {
              in.execute(in, w, m);
            } catch (const Fault& f) {
              report(w, in, f.lane, f.what());
            }
          }
          ++pc;
          break;
        case Kind::branch:
          if (m == mask) {
            pc = in.target;
          } else if (m == 0) {
            ++pc;
          } else {
            park(m, in.target);
            park(mask & ~m, pc + 1);
            regroup = true;
          }
          break;
        case Kind::leave:
          w.live &= ~m;
          mask &= ~m;
          ++pc;
          if (!mask) regroup = true;
          break;
        case Kind::barrier:
        case Kind::barrier_reduction:
          if (m != mask) report(w, in, std::countr_zero(mask), "a barrier under a condition");
          w.at_barrier |= mask;
          park(mask, pc);
          regroup = true;
          break;
        case Kind::together: {
          if (m != mask) report(w, in, std::countr_zero(mask), "a condition at what a warp does together");
          uint32_t all = mask;
          for (uint32_t k = w.waiting; k; k &= k - 1)
            if (w.pc[std::countr_zero(k)] == pc) all |= k & ~(k - 1);
          uint32_t members = kAll;
          if (in.members != kNone)
            members = w.words[static_cast<size_t>(in.members) * kLanes +
                              static_cast<size_t>(std::countr_zero(mask))];
          if (members & ~w.live) report(w, in, std::countr_zero(mask), "takes in lanes that have left");
          if (mask & ~members)
            report(w, in, std::countr_zero(mask & ~members), "is not one of those it names");
          if (members & ~all) {
            w.waiting |= mask;
            park(mask, pc);
            regroup = true;
            break;
          }
          try {
            in.execute(in, w, all & members);
          } catch (const Fault& f) {
            report(w, in, f.lane, f.what());
          }
          ++pc;
          if (all != mask) {
            w.waiting &= ~all;
            park(all, pc);
            regroup = true;
          }
          break;
        }
      }
      if (!regroup && pc >= limit) {
        park(mask, pc);
        regroup = true;
      }
    }
  }
}

void release_barrier(Block& b, const std::vector<Instruction>& code) {
  const Instruction* first = nullptr;
  bool any = false, all = true;
  for (Warp& w : b.warps) {
    if (!w.live) continue;
    const uint32_t pc = w.pc[std::countr_zero(w.live)];
    for (uint32_t m = w.live; m; m &= m - 1)
      if (w.pc[std::countr_zero(m)] != pc)
        report(w, code[pc], std::countr_zero(w.live), "lanes of one warp wait at different barriers");
    const Instruction& in = code[pc];
    if (!first) first = &in;
    if (in.kind != first->kind || in.variant != first->variant)
      report(w, in, std::countr_zero(w.live), "another barrier than the block's other warps wait at");
    if (in.kind == Kind::barrier_reduction)
      for_lanes(w.live, [&](unsigned lane) {
        const bool p = predicate(w, in, 0, lane);
        any = any || p;
        all = all && p;
      });
  }
  for (Warp& w : b.warps) {
    if (!w.live) continue;
    const uint32_t pc = w.pc[std::countr_zero(w.live)];
    const Instruction& in = code[pc];
    for_lanes(w.live, [&](unsigned lane) {
      if (in.kind == Kind::barrier_reduction) set_predicate(w, in.to[0], lane, in.variant == 0 ? any : all);
      w.pc[lane] = pc + 1;
    });
    w.at_barrier = 0;
  }
  ++b.epoch;
  b.order->barrier();
}

void run_block(Block& b, std::mt19937_64& order) {
  const Kernel& kernel = *b.kernel;
  std::memset(b.shared.data(), 0xff, b.shared.size());
  ++b.epoch;
  const unsigned threads = b.block.x * b.block.y * b.block.z;
  for (Warp& w : b.warps) {
    const unsigned left = threads - w.index * kLanes;
    w.live = left >= kLanes ? kAll : (1u << left) - 1;
    w.at_barrier = w.waiting = 0;
    std::fill(std::begin(w.pc), std::end(w.pc), 0u);
    w.copies.assign(1, {});
    fill_special(w, kernel, b);
  }
  std::vector<size_t> turns(b.warps.size());
  std::iota(turns.begin(), turns.end(), size_t{0});
  for (;;) {
    std::shuffle(turns.begin(), turns.end(), order);
    bool live = false;
    for (const size_t i : turns) {
      run_warp(b.warps[i], kernel.code);
      live = live || b.warps[i].live;
    }
    if (!live) return;
    release_barrier(b, kernel.code);
  }
}

}  // namespace

void run_grid(const Kernel& kernel, Dim grid, Dim block, size_t dynamic_shared,
              const unsigned char* parameters, const Memory& global, const Variables& variables,
              uint64_t seed) {
  Block b;
  b.kernel = &kernel;
  b.parameters = parameters;
  b.global = &global;
  b.variables = &variables;
  b.grid = grid;
  b.block = block;
  b.shared.resize(kernel.shared_bytes + dynamic_shared);
  b.touched.resize(b.shared.size() / 2 + 1);
  b.warps.resize((size_t{block.x} * block.y * block.z + kLanes - 1) / kLanes);
  for (size_t i = 0; i < b.warps.size(); ++i) {
    Warp& w = b.warps[i];
    w.index = static_cast<unsigned>(i);
    w.block = &b;
    w.words.assign(size_t{kernel.words} * kLanes, 0xffffffffu);
    w.wides.assign(size_t{kernel.wides} * kLanes, ~uint64_t{0});
    w.predicates.assign(kernel.predicates, 0x5a5a5a5au);
    w.local.assign(kernel.local_bytes * kLanes, 0xff);
    for (const auto& [slot, value] : kernel.predicate_constants) w.predicates[slot] = value;
    for (const auto& [slot, value] : kernel.word_constants)
      std::fill_n(&w.words[size_t{slot} * kLanes], kLanes, value);
    for (const auto& [slot, value] : kernel.wide_constants)
      std::fill_n(&w.wides[size_t{slot} * kLanes], kLanes, value);
  }
  // Blocks in no order that a kernel could rely on: a stride that meets all of them.
  const uint64_t count = uint64_t{grid.x} * grid.y * grid.z;
  std::mt19937_64 order(seed);
  uint64_t stride = order() % count | 1;
  while (std::gcd(stride, count) != 1) stride += 2;
  uint64_t at = order() % count;
  GlobalOrder global_order(b.warps.size());
  b.order = &global_order;
  for (uint64_t i = 0; i < count; ++i, at = (at + stride) % count) {
    b.index = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
               static_cast<unsigned>(at / grid.x / grid.y)};
    global_order.begin_block(static_cast<uint32_t>(at));
    run_block(b, order);
  }
}

}  // namespace gm::emulated
