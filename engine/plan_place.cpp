// Where every tensor of a plan lies: sharing in place, then first fit into one arena.
#include <algorithm>

#include "engine/plan.h"

namespace gm {

namespace {

// Elementwise ops may write over an operand that nobody reads later. The sharing slot takes over the memory
// at the very step at which the other one dies.
void share_in_place(Plan& plan, const Graph& graph) {
  for (size_t at = 0; at < plan.steps.size(); ++at) {
    const Step& s = plan.steps[at];
    const Node& n = graph.nodes()[s.node];
    auto share = [&](int from, int to) {
      if (from < 0 || to < 0) return false;
      Slot &a = plan.slots[from], &b = plan.slots[to];
      if (a.last != static_cast<int>(at) || b.first != static_cast<int>(at) ||
          a.spec.bytes() != b.spec.bytes())
        return false;
      b.shares = from;
      return true;
    };
    if (s.pass == Pass::forward) {
      if (n.op->forward_inplace >= 0) share(s.in[n.op->forward_inplace], s.out[0]);
      continue;
    }
    for (int k : n.op->backward_inplace)
      if (k < static_cast<int>(s.mode.size()) && s.mode[k] == GradMode::overwrite &&
          share(s.dout[0], s.din[k]))
        break;
  }
}

int root(const Plan& plan, int slot) {
  while (plan.slots[slot].shares >= 0) slot = plan.slots[slot].shares;
  return slot;
}

// First fit over lifetimes, largest first: within a few percent of the lower bound for chain-like graphs.
void place(Plan& plan) {
  struct Block {
    int slot, first, last;
    size_t bytes;
  };
  std::vector<Block> blocks;
  std::vector<int> block_of(plan.slots.size(), -1);
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    if (plan.slots[i].outside) continue;
    const int r = root(plan, static_cast<int>(i));
    if (block_of[r] < 0) {
      block_of[r] = static_cast<int>(blocks.size());
      blocks.push_back(
          {r, plan.slots[r].first, plan.slots[r].last, aligned_bytes(plan.slots[r].spec.bytes())});
    }
    Block& b = blocks[block_of[r]];
    b.first = std::min(b.first, plan.slots[i].first);
    b.last = std::max(b.last, plan.slots[i].last);
  }
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const Block& a, const Block& b) { return a.bytes > b.bytes; });
  std::vector<const Block*> placed;
  for (const Block& b : blocks) {
    std::vector<std::pair<size_t, size_t>> busy;
    for (const Block* p : placed)
      if (p->first <= b.last && b.first <= p->last) {
        const size_t o = plan.slots[p->slot].offset;
        busy.emplace_back(o, o + p->bytes);
      }
    std::sort(busy.begin(), busy.end());
    size_t offset = 0;
    for (auto [begin, end] : busy) {
      if (offset + b.bytes <= begin) break;
      offset = std::max(offset, end);
    }
    plan.slots[b.slot].offset = offset;
    plan.arena_bytes = std::max(plan.arena_bytes, offset + b.bytes);
    placed.push_back(&b);
  }
  for (size_t i = 0; i < plan.slots.size(); ++i)
    plan.slots[i].offset = plan.slots[root(plan, static_cast<int>(i))].offset;
  for (const Step& s : plan.steps)
    plan.workspace_bytes = std::max(plan.workspace_bytes, aligned_bytes(s.workspace));
}

}  // namespace

void place_slots(Plan& plan, const Graph& graph) {
  share_in_place(plan, graph);
  place(plan);
}

}  // namespace gm
