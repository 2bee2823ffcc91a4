// What orders the accesses of one launch to global memory. Threads of different warps may touch the same
// bytes, one of them writing, only
//   within a block   with a barrier between the two,
//   across blocks    after a fence behind the first, an atomic of its block, a later atomic of the other
//                    block on the same address, and a fence before the second; a barrier hands on what one
//                    warp has fenced or drawn to the others of its block.
// The tools of a card look for neither in global memory. (PTX ISA, Memory Consistency Model: release and
// acquire patterns, causality order; atomics are taken to be of the card's scope.)
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

namespace gm::emulated {

enum class Use : uint8_t {
  read,
  read_only,  // ld.global.nc: through a cache that does not see what this launch writes
  write,
  atomic
};

class GlobalOrder {
 public:
  explicit GlobalOrder(size_t warps) : warps_(warps) {}
  ~GlobalOrder();
  GlobalOrder(const GlobalOrder&) = delete;
  GlobalOrder& operator=(const GlobalOrder&) = delete;

  void begin_block(uint32_t block);
  /// Of all warps of the block.
  void barrier();
  void fence(unsigned warp);
  /// Null, or what is wrong with this access.
  const char* touch(unsigned warp, uintptr_t address, size_t bytes, Use use);

 private:
  // Somebody's last access to two bytes. Blocks count from 1; time: of the block, see now_.
  struct Access {
    uint32_t block = 0;
    uint32_t time : 24 = 0, warp : 5 = 0;
    bool several : 1 = false;     // other warps or blocks too, of those that read
    bool atomically : 1 = false;  // of those that write
  };
  struct Touched {
    Access written, read;
  };
  static constexpr size_t kPageBytes = 4096;
  using Page = std::array<Touched, kPageBytes / 2>;
  // Addresses of atomics. Blocks run one after the other: who draws from the same address later is a later
  // block.
  using Tickets = std::vector<uintptr_t>;
  // An atomic: what its block had done before the times `sealed`, by warp, is visible to who draws later.
  struct Release {
    uintptr_t ticket;
    std::vector<uint32_t> sealed;
  };
  struct Warp {
    uint32_t fenced = 0;      // its accesses before this time are; 0: no fence since the last barrier
    Tickets drawn, acquired;  // by its atomics and barriers; of those, before a fence of its own
  };

  static std::vector<std::unique_ptr<Page>>& free_pages();
  Touched& at(uintptr_t address);
  bool ordered(const Access& first, unsigned warp) const;
  void draw(unsigned warp, uintptr_t ticket);
  static void merge(Tickets& into, const Tickets& from);

  size_t warps_;
  std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages_;
  uintptr_t last_page_ = ~uintptr_t{0};
  Page* last_ = nullptr;
  std::unordered_map<uint32_t, std::vector<Release>> releases_;  // by block
  // The block that runs: its time goes on with every barrier and fence.
  uint32_t block_ = 0, now_ = 1, barrier_ = 1;
  bool fences_ = false, draws_ = false;  // since the last barrier
  std::vector<Warp> warp_;
  std::vector<uint32_t> sealed_;  // by warp: fenced, and a barrier behind it
};

}  // namespace gm::emulated
