#include <cstdio>

#include "tests/emulated_card/ptx_program.h"

namespace gm::emulated {

void Memory::add(const void* data, size_t bytes) { blocks_[reinterpret_cast<uintptr_t>(data)] = bytes; }
bool Memory::remove(const void* data) { return blocks_.erase(reinterpret_cast<uintptr_t>(data)) > 0; }
std::pair<uintptr_t, uintptr_t> Memory::around(uintptr_t address) const {
  auto it = blocks_.upper_bound(address);
  if (it == blocks_.begin()) return {0, 0};
  --it;
  if (address >= it->first + it->second) return {0, 0};
  return {it->first, it->first + it->second};
}
bool Memory::holds(uintptr_t address, size_t bytes) const {
  const auto [begin, end] = around(address);
  return end != 0 && address >= begin && bytes <= end - address;
}
size_t Memory::size(const void* data) const {
  const auto it = blocks_.find(reinterpret_cast<uintptr_t>(data));
  return it == blocks_.end() ? 0 : it->second;
}
std::vector<void*> Memory::starts() const {
  std::vector<void*> all;
  for (const auto& [start, bytes] : blocks_) all.push_back(reinterpret_cast<void*>(start));
  return all;
}

namespace {

std::string hex(uint64_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

[[noreturn]] void refuse(const char* what, const char* where, uint64_t address, size_t bytes, int lane) {
  throw Fault(
      std::string(what) + " of " + std::to_string(bytes) + " bytes at " + where + " address " + hex(address),
      lane);
}

// Two warps may both read what neither has written since the last barrier of the block.
void note_touch(Warp& warp, int lane, uint64_t offset, size_t bytes, bool write) {
  Block& b = *warp.block;
  for (uint64_t i = offset / 2; i <= (offset + bytes - 1) / 2; ++i) {
    Touch& t = b.touched[i];
    const auto me = static_cast<uint16_t>(warp.index);
    if (t.write_epoch == b.epoch && t.writer != me)
      refuse(write ? "race: two warps write, second" : "race: read of what another warp has written,",
             "shared", kSharedStart + offset, bytes, lane);
    if (write) {
      if (t.read_epoch == b.epoch && (t.readers || t.reader != me))
        refuse("race: write over what another warp has read,", "shared", kSharedStart + offset, bytes, lane);
      t.write_epoch = b.epoch;
      t.writer = me;
    } else if (t.read_epoch != b.epoch) {
      t.read_epoch = b.epoch;
      t.reader = me;
      t.readers = false;
    } else if (t.reader != me) {
      t.readers = true;
    }
  }
}

}  // namespace

unsigned char* access(Warp& warp, int lane, Space space, uint64_t address, size_t bytes, Use use) {
  Block& b = *warp.block;
  const bool write = use == Use::write || use == Use::atomic;
  if (space == Space::generic) {
    const uint64_t window = address & kWindows;
    space = window == kSharedWindow ? Space::shared : window == kLocalWindow ? Space::local : Space::global;
    if (space != Space::global) address &= ~kWindows;
  }
  if (address % bytes != 0) refuse("misaligned access", "", address, bytes, lane);
  switch (space) {
    case Space::shared: {
      const uint64_t offset = address - kSharedStart;
      if (address < kSharedStart || offset + bytes > b.shared.size())
        refuse(write ? "write out of bounds" : "read out of bounds", "shared", address, bytes, lane);
      note_touch(warp, lane, offset, bytes, write);
      return b.shared.data() + offset;
    }
    case Space::local:
      if (address + bytes > b.kernel->local_bytes)
        refuse("access out of bounds", "local", address, bytes, lane);
      return warp.local.data() + static_cast<size_t>(lane) * b.kernel->local_bytes + address;
    case Space::parameter:
      if (write || address + bytes > b.kernel->info.parameter_bytes)
        refuse("access out of bounds", "parameter", address, bytes, lane);
      return const_cast<unsigned char*>(b.parameters) + address;
    default:
      if (address < b.last.begin || address >= b.last.end) {
        const auto [begin, end] = b.global->around(address);
        b.last = {begin, end};
        for (const auto& [name, range] : *b.variables)
          if (address >= range.begin && address < range.end) b.last = range;
      }
      if (b.last.end == 0 || bytes > b.last.end - address)
        refuse(write ? "write out of bounds" : "read out of bounds", "global", address, bytes, lane);
      if (const char* wrong = b.order->touch(warp.index, address, bytes, use))
        refuse(wrong, "global", address, bytes, lane);
      return reinterpret_cast<unsigned char*>(address);
  }
}

}  // namespace gm::emulated
