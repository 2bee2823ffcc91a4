// A kernel's instructions as the machine runs them. Registers of a warp lie side by side, 32 lanes each:
// those of up to 32 bits in `words`, those of 64 in `wides`, predicates as one mask in `predicates`.
// Immediates and special registers have slots of their own there, so that every operand is an index.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/emulated_card/global_order.h"
#include "tests/emulated_card/ptx_machine.h"
#include "tests/emulated_card/ptx_text.h"

namespace gm::emulated {

constexpr unsigned kLanes = 32;
constexpr uint32_t kAll = ~uint32_t{0};
constexpr uint32_t kNone = ~uint32_t{0};  // no operand

/// Generic addresses say by their highest bits which space they lie in.
constexpr uint64_t kSharedWindow = uint64_t{1} << 60, kLocalWindow = uint64_t{2} << 60,
                   kWindows = uint64_t{15} << 60;
/// Shared memory starts behind address 0: a null pointer is nobody's array.
constexpr uint64_t kSharedStart = 1024;

enum class Space : uint8_t { generic, global, shared, local, parameter };

/// How the scheduler treats an instruction.
enum class Kind : uint8_t { plain, branch, leave, barrier, barrier_reduction, together };

struct Warp;
struct Instruction;
using Execute = void (*)(const Instruction&, Warp&, uint32_t mask);

struct Instruction {
  Execute execute = nullptr;
  Kind kind = Kind::plain;
  Space space = Space::generic;
  bool guard_negated = false;
  bool address_wide = false;  // its register
  bool read_only = false;     // ld.global.nc
  uint8_t elements = 1;       // of a load or store, matrices of ldmatrix
  uint32_t guard = kNone;
  uint32_t target = 0;
  uint32_t members = kNone;  // of kind together: slot of the mask of lanes that take part; kNone: all
  uint32_t to[8] = {kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone};
  uint32_t from[12] = {kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone};
  uint32_t address = kNone, second_address = kNone;  // slots
  bool second_wide = true;
  int64_t offset = 0, second_offset = 0;
  uint32_t negated = 0;  // bit i: predicate operand i is negated
  int variant = 0;       // what tells the forms of one instruction apart
  std::string_view text;
};

struct Kernel {
  KernelInfo info;
  std::vector<Instruction> code;
  uint32_t words = 0, wides = 0, predicates = 0;  // slots
  std::vector<std::pair<uint32_t, uint32_t>> word_constants;
  std::vector<std::pair<uint32_t, uint64_t>> wide_constants;
  std::vector<std::pair<uint32_t, uint32_t>> predicate_constants;
  std::vector<std::pair<std::string, uint32_t>> special;  // word slots of %tid.x and its like
  size_t shared_bytes = 0;                                // static arrays, behind kSharedStart
  size_t local_bytes = 0;
};

struct Range {
  uintptr_t begin = 0, end = 0;
};
using Variables = std::vector<std::pair<std::string, Range>>;

/// A copy that cp.async has been told to make.
struct PendingCopy {
  uint64_t to;
  uint64_t from;
  unsigned bytes, zeros;
  int lane;
};

struct Block;
struct Warp {
  std::vector<uint32_t> words, predicates;
  std::vector<uint64_t> wides;
  uint32_t pc[kLanes] = {};
  uint32_t live = 0, at_barrier = 0, waiting = 0;
  unsigned index = 0;
  Block* block = nullptr;
  std::vector<std::vector<PendingCopy>> copies;  // committed groups, the last one open
  std::vector<unsigned char> local;
};

/// Who touched two bytes of shared memory since the last barrier.
struct Touch {
  uint32_t write_epoch = 0, read_epoch = 0;
  uint16_t writer = 0, reader = 0;
  bool readers = false;  // more than one warp
};

struct Block {
  const Kernel* kernel = nullptr;
  const unsigned char* parameters = nullptr;
  const Memory* global = nullptr;
  const Variables* variables = nullptr;  // of the module
  Range last;                            // the allocation found last
  Dim grid, block, index;
  uint32_t epoch = 1;
  std::vector<unsigned char> shared;
  std::vector<Touch> touched;
  GlobalOrder* order = nullptr;
  std::vector<Warp> warps;
};

/// Thrown by an instruction; the machine adds where.
struct Fault : std::runtime_error {
  Fault(const std::string& what, int lane) : std::runtime_error(what), lane(lane) {}
  int lane;
};

/// Bytes of host memory that a lane may read or write: checked for bounds, alignment and races. Throws Fault.
unsigned char* access(Warp& warp, int lane, Space space, uint64_t address, size_t bytes, Use use);

/// Finds how to execute a mnemonic and sets what of the instruction depends on it. Null when unknown.
Execute find_execute(const std::vector<std::string_view>& parts, Instruction& in);

/// Reads one kernel. Addresses of module variables by name.
Kernel read_kernel(std::string_view text, const Variables& variables,
                   const std::vector<Declaration>& module_shared, std::string_view dynamic_shared);

void run_grid(const Kernel& kernel, Dim grid, Dim block, size_t dynamic_shared,
              const unsigned char* parameters, const Memory& global, const Variables& variables,
              uint64_t seed);

}  // namespace gm::emulated
