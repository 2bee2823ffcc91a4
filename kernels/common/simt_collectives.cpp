// Barriers and warp operations: who may meet whom, and what is said when they cannot.
#include <cstdio>
#include <cstring>
#include <map>

#include "kernels/common/simt_machine.h"

namespace gm::simt {
namespace {

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

}  // namespace

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
  ++phase_;
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
    if (op == WarpOp::sync) ++w.phase;  // shuffles and ballots order no memory
    complete(first, mask);
    t.state = State::ready;
  } else {
    suspend(State::at_warp);
  }
  return t.value;
}

void Machine::complete(unsigned first, unsigned mask) {
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

}  // namespace gm::simt
