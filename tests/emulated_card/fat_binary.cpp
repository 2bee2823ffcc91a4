#include "tests/emulated_card/fat_binary.h"

#include <fatbinary_section.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
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
constexpr uint32_t kCard = 80;  // the architecture

struct Binary {
  const void* data = nullptr;
  std::unique_ptr<Module> module;
  cudaError_t problem = cudaSuccess;  // of reading it
};

struct Registered {
  Binary* binary;
  std::string name;
  std::optional<LoadedKernel> kernel;  // when it has been asked for
};

// Registered before main(), and asked for by destructors after it.
std::unordered_map<const void*, Registered>& registered() {
  static auto& all = *new std::unordered_map<const void*, Registered>;
  return all;
}

/// The newest PTX that the card can run; empty where there is none that is not compressed.
std::string_view ptx_text(const void* data) {
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
    if (entry.kind == kPtx && !entry.compressed_bytes && entry.architecture <= kCard &&
        entry.architecture > best) {
      found = {at + entry.header_bytes, entry.bytes};
      best = entry.architecture;
    }
    at += entry.header_bytes + entry.bytes;
  }
  return found.substr(0, found.find('\0'));
}

void read(Binary& binary) {
  if (binary.module || binary.problem != cudaSuccess) return;
  const std::string_view text = ptx_text(binary.data);
  if (text.empty()) {
    binary.problem = complain(cudaErrorNoKernelImageForDevice,
                              "no PTX of sm_80 or older, uncompressed (nvcc --no-compress), in the program");
    return;
  }
  try {
    binary.module = std::make_unique<Module>(text);
  } catch (const std::exception& e) {
    binary.problem = complain(cudaErrorInvalidPtx, e.what());
  }
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
  if (!r.kernel) {
    read(*r.binary);
    if (r.binary->problem != cudaSuccess) {
      status = r.binary->problem;
      return nullptr;
    }
    const KernelInfo* info = r.binary->module->find(r.name);
    if (!info) {
      status = complain(cudaErrorInvalidDeviceFunction, "no " + r.name + " in the PTX");
      return nullptr;
    }
    r.kernel = LoadedKernel{r.binary->module.get(), info, -1};
  }
  status = cudaSuccess;
  return &*r.kernel;
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
  registered().try_emplace(host_function, Registered{reinterpret_cast<Binary*>(binary), name, std::nullopt});
}
// Variables are the module's; nothing copies to or from them by name.
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

}  // extern "C"
