// What names in a kernel's text stand for: registers, special registers, variables, and the slots that
// registers and numbers have.
#pragma once
#include <optional>
#include <unordered_map>

#include "tests/emulated_card/ptx_program.h"

namespace gm::emulated {

enum class Class : uint8_t { word, wide, predicate };
struct Register {
  Class kind = Class::word;
  uint32_t slot = kNone;
  bool wide() const { return kind == Class::wide; }
};

class Names {
 public:
  /// Counts slots and constants in `kernel`.
  explicit Names(Kernel& kernel) : kernel_(kernel) {}

  /// ".reg .b32 %r<5>, tmp": a family of registers by number, and one of its own.
  void declare_registers(std::string_view text);
  void declare_symbol(const std::string& name, uint64_t address) { symbols_[name] = address; }

  /// Blocks in braces, whose registers hide those of the same names outside.
  void open_block();
  void close_block();
  /// The block in which names are looked up; 0 is the kernel's own.
  size_t block() const { return block_; }
  void look_up_in(size_t block) { block_ = block; }

  std::optional<Register> find(std::string_view name);
  /// A register, a special one, a number or a variable's address, which have slots of their own. `kind`: the
  /// class of a number's slot. Throws std::runtime_error where the name stands for nothing.
  Register source(std::string_view name, Class kind);
  /// Of a number or a variable.
  uint64_t value(std::string_view name) const;

 private:
  struct Block {
    size_t outer = 0;
    std::unordered_map<std::string, std::string> names;  // as registers_ and families_ have them
  };
  void declare(const std::string& name, Class kind);
  uint32_t new_slot(Class kind);
  uint32_t constant(Class kind, uint64_t value);

  Kernel& kernel_;
  std::vector<Block> blocks_ = std::vector<Block>(1);
  size_t block_ = 0;
  std::unordered_map<std::string, Class> families_;
  std::unordered_map<std::string, Register> registers_;
  std::unordered_map<std::string, uint32_t> specials_;
  std::unordered_map<std::string, uint64_t> symbols_;
  std::unordered_map<uint64_t, uint32_t> constants_[3];  // by class
};

}  // namespace gm::emulated
