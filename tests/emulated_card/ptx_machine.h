// Runs kernels from their PTX text on the processor, without a card: the instructions that nvcc made, one
// warp after another, with every access to memory checked. PTX ISA 9.0 as far as the kernels here use it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gm::emulated {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
};

/// What a launch has to know of a kernel.
struct KernelInfo {
  std::string name;                                        // mangled
  std::vector<size_t> parameter_offsets, parameter_sizes;  // bytes
  size_t parameter_bytes = 0;
  size_t static_shared_bytes = 0;
  int max_threads = 1024;  // .maxntid where it is given
};

/// Global memory: what may be read and written. Addresses are the host's own.
class Memory {
 public:
  void add(const void* data, size_t bytes);
  /// False when it was not added.
  bool remove(const void* data);
  bool holds(uintptr_t address, size_t bytes) const;
  /// The allocation around an address: its first byte and one past its last; {0, 0} when there is none.
  std::pair<uintptr_t, uintptr_t> around(uintptr_t address) const;
  /// Bytes of the allocation that starts at data; 0 when there is none.
  size_t size(const void* data) const;
  /// Where allocations start.
  std::vector<void*> starts() const;

 private:
  std::map<uintptr_t, size_t> blocks_;
};

/// One PTX module. Its constructor throws std::runtime_error with line and text of what it does not know.
class Module {
 public:
  explicit Module(std::string_view text);
  ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Null when the module has no such kernel.
  const KernelInfo* find(const std::string& name) const;
  /// The compute capability of its .target: 80.
  int target() const;
  /// Runs the whole grid. `parameters`: parameter_bytes bytes as laid out by parameter_offsets. Throws
  /// std::runtime_error naming kernel, instruction, block and thread where one reads or writes what it must
  /// not, or where threads wait for each other for ever.
  void run(const KernelInfo& kernel, Dim grid, Dim block, size_t dynamic_shared_bytes,
           const unsigned char* parameters, const Memory& global) const;

 private:
  struct Contents;
  std::unique_ptr<Contents> contents_;
};

}  // namespace gm::emulated
