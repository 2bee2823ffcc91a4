// The card's properties, errors and memory, as the CUDA runtime's functions tell them.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "tests/emulated_card/card.h"

using namespace gm::emulated;

namespace {

thread_local cudaError_t last_error = cudaSuccess;

/// Both ends of a copy, checked; what runs it later.
struct Copy {
  char* to;
  const char* from;
  size_t bytes;
  bool to_card, from_card;
  bool to_locked, from_locked;  // page-locked memory of the host
};

cudaError_t describe(const Card& card, Copy& copy, cudaMemcpyKind kind) {
  const bool wants_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice,
             wants_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  auto place = [&](const void* data, bool& on_card, bool& locked) {  // false: more than there is
    const auto address = reinterpret_cast<uintptr_t>(data);
    on_card = card.holds(address, 1);
    locked = card.page_locked().holds(address, 1);
    return (!on_card || card.holds(address, copy.bytes)) &&
           (!locked || card.page_locked().holds(address, copy.bytes));
  };
  if (!place(copy.to, copy.to_card, copy.to_locked) || !place(copy.from, copy.from_card, copy.from_locked))
    return complain(cudaErrorInvalidValue, "copy of more bytes than the allocation has");
  if (kind != cudaMemcpyDefault && (copy.to_card != wants_to || copy.from_card != wants_from))
    return complain(cudaErrorInvalidValue, "copy from or to memory of another kind than it says");
  return cudaSuccess;
}

cudaError_t start(Card& card, const Copy& copy, cudaStream_t stream, bool& must_wait) {
  const std::shared_ptr<CUstream_st> on = card.find(stream);
  const bool reads_pageable = !copy.from_card && !copy.from_locked,
             writes_pageable = !copy.to_card && !copy.to_locked;
  if (on && on->capture && (reads_pageable || writes_pageable)) {
    on->capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  must_wait = writes_pageable;
  // Pageable memory is read before the call returns, page-locked memory when the copy runs.
  auto staged = std::make_shared<std::vector<char>>();
  if (reads_pageable) staged->assign(copy.from, copy.from + copy.bytes);
  return card.submit(stream, [copy, staged, reads_pageable, &card] {
    auto check = [&](const void* data, bool on_card, bool locked) {
      const auto address = reinterpret_cast<uintptr_t>(data);
      if ((on_card && !card.holds(address, copy.bytes)) ||
          (locked && !card.page_locked().holds(address, copy.bytes)))
        throw std::runtime_error("a copy in a graph needs memory that has been freed");
    };
    check(copy.to, copy.to_card, copy.to_locked), check(copy.from, copy.from_card, copy.from_locked);
    std::memmove(copy.to, reads_pageable ? staged->data() : copy.from, copy.bytes);
  });
}

cudaError_t allocate(void** data, size_t bytes, void* (Card::*take)(size_t), const char* name) {
  return with_card(
      [&](Card& card) {
        *data = nullptr;
        if (const cudaError_t status = card.forbidden_in_capture(); status != cudaSuccess) return status;
        if (!bytes) return cudaSuccess;
        *data = (card.*take)(bytes);
        return *data ? cudaSuccess : cudaErrorMemoryAllocation;
      },
      name);
}

// Waits for all work of the memory's card, as a card does.
cudaError_t release(void* data, bool (Card::*give_back)(void*), const char* name) {
  return with_card(
      [&](Card& card) {
        if (!data) return cudaSuccess;
        if (const cudaError_t status = card.forbidden_in_capture(); status != cudaSuccess) return status;
        const int on = card.card_of(data);
        if (const cudaError_t status = card.finish_all(on < 0 ? card.selected() : on); status != cudaSuccess)
          return status;
        if ((card.*give_back)(data)) return cudaSuccess;
        return complain(cudaErrorInvalidValue, name + std::string(" of what is no allocation"));
      },
      name);
}

cudaError_t fill(Card& card, void* data, int value, size_t bytes, cudaStream_t stream) {
  if (!bytes) return cudaSuccess;
  if (!card.holds(reinterpret_cast<uintptr_t>(data), bytes))
    return complain(cudaErrorInvalidValue, "cudaMemset of memory that is not the card's");
  return card.submit(stream, [data, value, bytes, &card] {
    if (!card.holds(reinterpret_cast<uintptr_t>(data), bytes))
      throw std::runtime_error("a cudaMemset in a graph needs memory that has been freed");
    std::memset(data, value, bytes);
  });
}

}  // namespace

namespace gm::emulated {

cudaError_t noted(cudaError_t status) {
  if (status != cudaSuccess) last_error = status;
  return status;
}

}  // namespace gm::emulated

// ---- the card

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  return with_card([&](Card& card) {
    *count = card.count();
    return cudaSuccess;
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  Card& card = Card::instance();
  {
    std::lock_guard<std::mutex> lock(card.mutex());
    if (!card.select(device)) return noted(card.count() ? cudaErrorInvalidDevice : cudaErrorNoDevice);
  }
  return with_card([](Card&) { return cudaSuccess; });  // or the error of that card
}

cudaError_t cudaGetDevice(int* device) {
  return with_card([&](Card& card) {
    *device = card.selected();
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  return with_card([&](Card& card) {
    if (device < 0 || device >= card.count()) return cudaErrorInvalidDevice;
    *p = {};
    const int capability = card.capability(device);
    std::snprintf(p->name, sizeof p->name, "Emulated sm_%d", capability);
    p->major = capability / 10, p->minor = capability % 10;
    p->totalGlobalMem = card.memory_bytes(device);
    p->multiProcessorCount = card.processors();
    p->sharedMemPerBlock = Card::kSharedPerBlock;
    p->sharedMemPerBlockOptin = Card::kSharedOptIn;
    p->sharedMemPerMultiprocessor = Card::kSharedPerProcessor;
    p->reservedSharedMemPerBlock = 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = Card::kRegisters;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = Card::kThreadsPerProcessor;
    p->maxBlocksPerMultiProcessor = 32;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 64 << 10;
    p->l2CacheSize = 40 << 20;
    p->memoryBusWidth = 5120;
    p->unifiedAddressing = 1;
    p->asyncEngineCount = 3;
    p->concurrentKernels = 1;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  if (const cudaError_t status = cudaGetDeviceProperties(&p, device); status != cudaSuccess) return status;
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(p.sharedMemPerBlockOptin);
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(p.sharedMemPerBlock);
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = p.multiProcessorCount;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = p.major;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = p.minor;
      return cudaSuccess;
    case cudaDevAttrL2CacheSize:
      *value = p.l2CacheSize;
      return cudaSuccess;
    default:
      return noted(
          complain(cudaErrorNotSupported, "attribute " + std::to_string(attribute) + " of the card"));
  }
}

cudaError_t cudaDeviceSynchronize() {
  return with_card([](Card& card) {
    const cudaError_t forbidden = card.forbidden_in_any_capture();
    return forbidden != cudaSuccess ? forbidden : card.finish_all(card.selected());
  });
}

// ---- errors

cudaError_t cudaPeekAtLastError() {
  Card& card = Card::instance();
  std::lock_guard<std::mutex> lock(card.mutex());
  return card.count() && card.broken() != cudaSuccess ? card.broken() : last_error;
}

cudaError_t cudaGetLastError() {
  const cudaError_t status = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return status;
}

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDeviceFunction:
      return "invalid device function";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidKernelImage:
      return "device kernel image is invalid";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorInvalidPtx:
      return "a PTX JIT compilation failed";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorIllegalState:
      return "the operation cannot be performed in the present state";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorLaunchOutOfResources:
      return "too many resources requested for launch";
    case cudaErrorNotPermitted:
      return "operation not permitted";
    case cudaErrorNotSupported:
      return "operation not supported";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureMerge:
      return "operation would result in a merge of separate capture sequences";
    case cudaErrorStreamCaptureUnmatched:
      return "capture was not ended in the same stream as it began";
    case cudaErrorStreamCaptureUnjoined:
      return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureIsolation:
      return "dependency created on uncaptured work in another stream";
    case cudaErrorStreamCaptureImplicit:
      return "operation would make the legacy stream depend on a capturing blocking stream";
    case cudaErrorCapturedEvent:
      return "operation not permitted on an event last recorded in a capturing stream";
    case cudaErrorStreamCaptureWrongThread:
      return "attempt to terminate a thread-local capture sequence from another thread";
    default:
      return "unrecognized error code";
  }
}

// ---- memory

cudaError_t cudaMalloc(void** data, size_t bytes) {
  return allocate(data, bytes, &Card::allocate, "cudaMalloc");
}
cudaError_t cudaMallocHost(void** data, size_t bytes) {
  return allocate(data, bytes, &Card::lock_pages, "cudaMallocHost");
}
cudaError_t cudaFree(void* data) { return release(data, &Card::release, "cudaFree"); }
cudaError_t cudaFreeHost(void* data) { return release(data, &Card::unlock_pages, "cudaFreeHost"); }

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return with_card([&](Card& card) {
    *total = card.memory_bytes();
    *free = card.memory_bytes() - card.used_bytes();
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return with_card([&](Card& card) {
    if (!bytes) return cudaSuccess;
    Copy copy{static_cast<char*>(to), static_cast<const char*>(from), bytes, false, false, false, false};
    bool must_wait = false;
    if (const cudaError_t status = describe(card, copy, kind); status != cudaSuccess) return status;
    if (const cudaError_t status = start(card, copy, stream, must_wait); status != cudaSuccess) return status;
    return must_wait ? card.finish(card.find(stream)) : cudaSuccess;
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return with_card([&](Card& card) {
    if (!bytes) return cudaSuccess;
    Copy copy{static_cast<char*>(to), static_cast<const char*>(from), bytes, false, false, false, false};
    bool must_wait = false;
    if (const cudaError_t status = describe(card, copy, kind); status != cudaSuccess) return status;
    if (const cudaError_t status = card.forbidden_in_capture(); status != cudaSuccess) return status;
    if (const cudaError_t status = start(card, copy, nullptr, must_wait); status != cudaSuccess)
      return status;
    // What need not have arrived when the call returns is still on its way: copies on the card, and pageable
    // memory, which has been read.
    return must_wait || copy.from_locked ? card.finish(card.find(nullptr)) : cudaSuccess;
  });
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  return with_card([&](Card& card) { return fill(card, data, value, bytes, stream); });
}

cudaError_t cudaMemset(void* data, int value, size_t bytes) {
  return with_card([&](Card& card) {
    if (const cudaError_t status = card.forbidden_in_capture(); status != cudaSuccess) return status;
    return fill(card, data, value, bytes, nullptr);
  });
}
