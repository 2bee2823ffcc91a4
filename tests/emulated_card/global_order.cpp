#include "tests/emulated_card/global_order.h"

#include <algorithm>
#include <span>

namespace gm::emulated {

// Pages go from launch to launch: there are as many as the greatest has touched.
std::vector<std::unique_ptr<GlobalOrder::Page>>& GlobalOrder::free_pages() {
  static thread_local std::vector<std::unique_ptr<Page>> pages;
  return pages;
}

GlobalOrder::~GlobalOrder() {
  for (auto& [number, page] : pages_) free_pages().push_back(std::move(page));
}

void GlobalOrder::begin_block(uint32_t block) {
  block_ = block + 1;
  now_ = barrier_ = 1;
  fences_ = draws_ = false;
  warp_.assign(warps_, {});
  sealed_.assign(warps_, 0);
}

void GlobalOrder::merge(Tickets& into, const Tickets& from) {
  for (const uintptr_t t : from)
    if (std::find(into.begin(), into.end(), t) == into.end()) into.push_back(t);
}

void GlobalOrder::barrier() {
  if (fences_) {
    for (size_t i = 0; i < warps_; ++i) sealed_[i] = std::max({sealed_[i], barrier_, warp_[i].fenced});
    for (Warp& w : warp_) w.fenced = 0;
  }
  if (draws_) {
    Tickets drawn, acquired;
    for (const Warp& w : warp_) merge(drawn, w.drawn), merge(acquired, w.acquired);
    for (Warp& w : warp_) w.drawn = drawn, w.acquired = acquired;
  }
  fences_ = false;
  draws_ = false;
  barrier_ = ++now_;
}

void GlobalOrder::fence(unsigned warp) {
  fences_ = true;
  warp_[warp].fenced = ++now_;
  if (!warp_[warp].drawn.empty()) {
    draws_ = true;
    merge(warp_[warp].acquired, warp_[warp].drawn);
  }
}

void GlobalOrder::draw(unsigned warp, uintptr_t ticket) {
  Release r{ticket, sealed_};
  if (warp_[warp].fenced) {
    // Its fence covers what it did itself and, behind the last barrier, what the others did before that.
    for (uint32_t& s : r.sealed) s = std::max(s, barrier_);
    r.sealed[warp] = warp_[warp].fenced;
  }
  releases_[block_].push_back(std::move(r));
  merge(warp_[warp].drawn, {ticket});
  draws_ = true;
}

bool GlobalOrder::ordered(const Access& first, unsigned warp) const {
  if (first.block == block_) return first.warp == warp || first.time < barrier_;
  const auto releases = releases_.find(first.block);
  if (releases == releases_.end()) return false;
  const Tickets& acquired = warp_[warp].acquired;
  return std::any_of(releases->second.begin(), releases->second.end(), [&](const Release& r) {
    return first.time < r.sealed[first.warp] &&
           std::find(acquired.begin(), acquired.end(), r.ticket) != acquired.end();
  });
}

GlobalOrder::Touched& GlobalOrder::at(uintptr_t address) {
  const uintptr_t number = address / kPageBytes;
  if (number != last_page_) {
    auto& page = pages_[number];
    if (!page && !free_pages().empty()) {
      page = std::move(free_pages().back());
      free_pages().pop_back();
      *page = {};
    }
    if (!page) page = std::make_unique<Page>();
    last_ = page.get();
    last_page_ = number;
  }
  return (*last_)[address % kPageBytes / 2];
}

const char* GlobalOrder::touch(unsigned warp, uintptr_t address, size_t bytes, Use use) {
  Touched* const first = &at(address);  // an aligned access lies in one page
  for (Touched& t : std::span(first, std::max<size_t>(1, bytes / 2))) {
    if (t.written.block) {
      if (use == Use::read_only)
        return "race: read through the read-only cache of what this launch has written,";
      const bool both_atomic = use == Use::atomic && t.written.atomically;
      if (!both_atomic && !ordered(t.written, warp))
        return use == Use::read ? "race: read of what nothing orders behind its write,"
                                : "race: two writes that nothing orders,";
    }
    if (use == Use::read || use == Use::read_only) {
      // Of several readers the first is remembered; who reads what nobody else has read since is it again.
      if (!t.read.block || (t.read.block == block_ && t.read.time < barrier_))
        t.read = {block_, now_, warp};
      else if (t.read.block != block_ || t.read.warp != warp)
        t.read.several = true;
      else
        t.read.time = now_;
      continue;
    }
    if (t.read.block && (t.read.several || !ordered(t.read, warp)) &&
        !(t.read.block == block_ && t.read.time < barrier_))
      return "race: write over what nothing orders behind its read,";
    t.written = {block_, now_, warp, false, use == Use::atomic};
  }
  if (use == Use::atomic) draw(warp, address);
  return nullptr;
}

}  // namespace gm::emulated
