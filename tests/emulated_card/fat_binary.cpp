#include "tests/emulated_card/fat_binary.h"

#include <fatbinary_section.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "tests/emulated_card/card.h"

namespace gm::emulated {

namespace {

// A fat binary is a header and entries, each with a header of its own. The layout is not documented; these
// are the fields that nvcc 12 and 13 write.
struct FatHeader {
  uint32_t magic;
  uint16_t version, header_bytes;
  uint64_t bytes;  // behind the header
};
struct FatEntry {
  uint16_t kind, version;
  uint32_t header_bytes;
  uint64_t bytes;  // behind the header
  uint32_t compressed_bytes, options;
  uint16_t minor, major;
  uint32_t architecture;
};
constexpr uint32_t kFatMagic = 0xBA55ED50;
constexpr uint16_t kPtx = 1;

struct Loaded {
  std::unique_ptr<Module> module;
  cudaError_t problem = cudaSuccess;  // of reading it
};
struct Binary {
  const void* data = nullptr;
  std::map<int, Loaded> on;  // each card; variables are a card's own
};

struct Registered {
  Binary* binary;
  std::string name;
  std::map<int, LoadedKernel> on;  // each card on which it has been asked for
};

// Registered before main(), and asked for by destructors after it.
std::unordered_map<const void*, Registered>& registered() {
  static auto& all = *new std::unordered_map<const void*, Registered>;
  return all;
}

/// The newest PTX that a card can run; empty where there is none that is not compressed.
std::string_view ptx_text(const void* data, uint32_t capability) {
  FatHeader header;
  std::memcpy(&header, data, sizeof header);
  if (header.magic != kFatMagic) return {};
  const char* at = static_cast<const char*>(data) + header.header_bytes;
  const char* const end = at + header.bytes;
  std::string_view found;
  uint32_t best = 0;
  while (at < end) {
    FatEntry entry;
    std::memcpy(&entry, at, sizeof entry);
    if (entry.kind == kPtx && !entry.compressed_bytes && entry.architecture <= capability &&
        entry.architecture > best) {
      found = {at + entry.header_bytes, entry.bytes};
      best = entry.architecture;
    }
    at += entry.header_bytes + entry.bytes;
  }
  return found.substr(0, found.find('\0'));
}

Loaded& read(Binary& binary, const Card& card) {
  Loaded& loaded = binary.on[card.selected()];
  if (loaded.module || loaded.problem != cudaSuccess) return loaded;
  const int capability = card.capability(card.selected());
  const std::string_view text = ptx_text(binary.data, static_cast<uint32_t>(capability));
  if (text.empty()) {
    loaded.problem = complain(cudaErrorNoKernelImageForDevice,
                              "no PTX of sm_" + std::to_string(capability) +
                                  " or older, uncompressed (nvcc --no-compress), in the program");
    return loaded;
  }
  try {
    loaded.module = std::make_unique<Module>(text);
  } catch (const std::exception& e) {
    loaded.problem = complain(cudaErrorInvalidPtx, e.what());
  }
  return loaded;
}

}  // namespace

size_t LoadedKernel::most_dynamic() const {
  const size_t unasked = Card::kSharedPerBlock;
  if (asked_shared >= 0) return static_cast<size_t>(asked_shared);
  return info->static_shared_bytes < unasked ? unasked - info->static_shared_bytes : 0;
}

LoadedKernel* find_kernel(const void* host_function, cudaError_t& status) {
  const auto found = registered().find(host_function);
  if (found == registered().end()) {
    status = complain(cudaErrorInvalidDeviceFunction, "launch of what is no kernel");
    return nullptr;
  }
  Registered& r = found->second;
  const Card& card = Card::instance();
  auto kernel = r.on.find(card.selected());
  if (kernel == r.on.end()) {
    const Loaded& loaded = read(*r.binary, card);
    if (loaded.problem != cudaSuccess) {
      status = loaded.problem;
      return nullptr;
    }
    const KernelInfo* info = loaded.module->find(r.name);
    if (!info) {
      status = complain(cudaErrorInvalidDeviceFunction, "no " + r.name + " in the PTX");
      return nullptr;
    }
    kernel = r.on.emplace(card.selected(), LoadedKernel{loaded.module.get(), info, -1}).first;
  }
  status = cudaSuccess;
  return &kernel->second;
}

void forget_modules() {
  for (auto& [function, r] : registered()) r.on.clear(), r.binary->on.clear();
}

}  // namespace gm::emulated

// What the host code that nvcc generates calls before main().

using namespace gm::emulated;

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  auto* const binary = new Binary;  // lives as long as the program
  binary->data = static_cast<__fatBinC_Wrapper_t*>(wrapper)->data;
  return reinterpret_cast<void**>(binary);
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }

// Kernels from templates may be registered by several files, with the same code.
void __cudaRegisterFunction(void** binary, const char* host_function, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  registered().try_emplace(host_function, Registered{reinterpret_cast<Binary*>(binary), name, {}});
}
// Variables are the module's; nothing copies to or from them by name.
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

}  // extern "C"
