// Race detection by the compiler's own instrumentation. A .simt.cpp compiled (not linked) with
// -fsanitize=thread calls __tsan_readN / __tsan_writeN before every access to memory; these are those
// functions. Two accesses of different threads of a block to one word, at least one a write, with neither a
// __syncthreads nor (within a warp) a __syncwarp between them, are a race, whatever the schedule made of it.
// Covers shared and global memory.
//
// Link this file only into the race-checked test binary: a binary linked with the real TSan has its own.
// Not seen: races between blocks, atomics (unchecked accesses), large memcpy, two 16-bit halves of a word
// beyond the last access of each kind.
#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "kernels/common/simt_machine.h"

namespace gm::simt {
namespace {

struct Access {
  Moment when;
  unsigned bytes = 0;  // bit k: byte k of the word
};

/// The last write and the last read of a 4-byte word. Any reader will do, unless another thread of the same
/// phase has read too: then a write races with one of them whoever writes.
struct Word {
  Access write, read;
  bool many_readers = false;
};

thread_local std::unordered_map<uintptr_t, Word> words;
thread_local bool enabled = false;
thread_local uint64_t checked = 0;

bool unordered(const Access& earlier, const Moment& now, unsigned bytes) {
  if (earlier.when.phase != now.phase || !(earlier.bytes & bytes)) return false;
  const bool same_warp = earlier.when.thread / 32 == now.thread / 32;
  return earlier.when.thread != now.thread && !(same_warp && earlier.when.warp_phase != now.warp_phase);
}

void check_word(uintptr_t word, unsigned bytes, bool write, const Moment& now) {
  Word& w = words[word];
  const void* address = reinterpret_cast<const void*>(word * 4);
  if (unordered(w.write, now, bytes)) Machine::active->note_race(address, w.write.when.thread, true, write);
  if (write) {
    if (w.read.when.phase == now.phase && (w.read.bytes & bytes) && w.many_readers)
      Machine::active->note_race(address, w.read.when.thread, false, true);
    else if (unordered(w.read, now, bytes))
      Machine::active->note_race(address, w.read.when.thread, false, true);
    w.write = {now, bytes};
    return;
  }
  w.many_readers = unordered(w.read, now, bytes) || (w.many_readers && w.read.when.phase == now.phase);
  w.read = {now, bytes};
}

void access(const void* p, size_t size, bool write) {
  if (!enabled || !Machine::active) return;
  Moment now;
  if (!Machine::active->moment(p, &now)) return;
  ++checked;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(p), end = begin + size;
  for (uintptr_t word = begin / 4; word * 4 < end; ++word) {
    unsigned bytes = 0;
    for (unsigned k = 0; k < 4; ++k) bytes |= unsigned{word * 4 + k >= begin && word * 4 + k < end} << k;
    check_word(word, bytes, write, now);
  }
}

}  // namespace

void check_races(bool on) {
  enabled = on;
  words.clear();  // bounds the memory of a long test run; phases never repeat, so nothing stale can match
}

uint64_t checked_accesses() { return checked; }

}  // namespace gm::simt

#define GM_SIMT_HOOK(n)                                                     \
  void __tsan_read##n(void* p) { gm::simt::access(p, n, false); }           \
  void __tsan_write##n(void* p) { gm::simt::access(p, n, true); }           \
  void __tsan_unaligned_read##n(void* p) { gm::simt::access(p, n, false); } \
  void __tsan_unaligned_write##n(void* p) { gm::simt::access(p, n, true); }
extern "C" {
GM_SIMT_HOOK(1)
GM_SIMT_HOOK(2)
GM_SIMT_HOOK(4)
GM_SIMT_HOOK(8)
GM_SIMT_HOOK(16)
void __tsan_read_range(void* p, size_t size) { gm::simt::access(p, size, false); }
void __tsan_write_range(void* p, size_t size) { gm::simt::access(p, size, true); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
}
