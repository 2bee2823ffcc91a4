// Launches of kernels and what may be asked about kernels.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "tests/emulated_card/card.h"
#include "tests/emulated_card/fat_binary.h"

using namespace gm::emulated;

namespace {

/// What a real card refuses, with the same codes.
cudaError_t refusal(const LoadedKernel& kernel, dim3 grid, dim3 block, size_t dynamic) {
  const size_t threads = size_t{block.x} * block.y * block.z;
  if (!threads || threads > 1024 || block.x > 1024 || block.y > 1024 || block.z > 64)
    return cudaErrorInvalidConfiguration;
  if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return cudaErrorInvalidConfiguration;
  if (threads > static_cast<size_t>(kernel.info->max_threads)) return cudaErrorInvalidValue;
  if (dynamic > kernel.most_dynamic()) return cudaErrorInvalidValue;
  return cudaSuccess;
}

cudaError_t launch(const void* function, dim3 grid, dim3 block, void** arguments, size_t dynamic,
                   cudaStream_t stream) {
  const auto launched = [&](Card& card) {
    const std::shared_ptr<CUstream_st> on = card.find(stream);
    if (on && on->card != card.selected())
      return complain(cudaErrorInvalidResourceHandle, "launch into a stream of another card");
    cudaError_t status;
    const LoadedKernel* const kernel = find_kernel(function, status);
    if (!kernel) return status;
    if (status = refusal(*kernel, grid, block, dynamic); status != cudaSuccess) return status;
    const KernelInfo& info = *kernel->info;
    std::vector<unsigned char> parameters(info.parameter_bytes);
    for (size_t i = 0; i < info.parameter_offsets.size(); ++i)
      std::memcpy(parameters.data() + info.parameter_offsets[i], arguments[i], info.parameter_sizes[i]);
    const Module* const module = kernel->module;
    static const bool told = std::getenv("GM_EMULATED_TRACE") != nullptr;
    const int here = card.selected();
    return card.submit(stream, [=, &info, &card, parameters = std::move(parameters)] {
      if (told)
        std::fprintf(stderr, "emulated card: %s, grid %u %u %u, block %u %u %u, %zu bytes\n",
                     info.name.c_str(), grid.x, grid.y, grid.z, block.x, block.y, block.z, dynamic);
      card.kernel_runs();
      module->run(info, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, dynamic, parameters.data(),
                  card.global(here));
    });
  };
  return with_card(launched, "cudaLaunchKernel");
}

struct Configuration {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
thread_local std::vector<Configuration> configurations;  // of <<< >>>, not yet launched

}  // namespace

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t dynamic,
                             cudaStream_t stream) {
  return launch(function, grid, block, arguments, dynamic, stream);
}

// Attributes are for newer cards: launches that overlap, clusters.
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  if (config->numAttrs) return noted(complain(cudaErrorNotSupported, "launch with attributes"));
  return launch(function, config->gridDim, config->blockDim, arguments, config->dynamicSmemBytes,
                config->stream);
}

extern "C" {

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, CUstream_st* stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (configurations.empty()) return cudaErrorMissingConfiguration;
  const Configuration& last = configurations.back();
  *grid = last.grid, *block = last.block, *shared = last.shared;
  *static_cast<cudaStream_t*>(stream) = last.stream;
  configurations.pop_back();
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t dynamic,
                               cudaStream_t stream) {
  return launch(kernel, grid, block, arguments, dynamic, stream);
}

}  // extern "C"

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  return with_card([&](Card&) {
    cudaError_t status;
    const LoadedKernel* const kernel = find_kernel(function, status);
    if (!kernel) return status;
    *attributes = {};
    attributes->sharedSizeBytes = kernel->info->static_shared_bytes;
    attributes->maxThreadsPerBlock = kernel->info->max_threads;
    attributes->numRegs = Card::kRegistersPerThread;
    attributes->ptxVersion = attributes->binaryVersion = kernel->module->target();
    attributes->maxDynamicSharedSizeBytes = static_cast<int>(kernel->most_dynamic());
    attributes->preferredShmemCarveout = -1;
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  return with_card([&](Card&) {
    cudaError_t status;
    LoadedKernel* const kernel = find_kernel(function, status);
    if (!kernel) return status;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
      return complain(cudaErrorNotSupported, "attribute of a kernel");
    if (value < 0 || kernel->info->static_shared_bytes + static_cast<size_t>(value) > Card::kSharedOptIn)
      return cudaErrorInvalidValue;
    kernel->asked_shared = value;
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* function,
                                                                   int threads, size_t dynamic, unsigned) {
  return with_card([&](Card&) {
    cudaError_t status;
    const LoadedKernel* const kernel = find_kernel(function, status);
    if (!kernel) return status;
    *blocks = 0;
    if (threads <= 0) return cudaErrorInvalidValue;
    if (threads > kernel->info->max_threads || dynamic > kernel->most_dynamic()) return cudaSuccess;
    const size_t shared =
        kernel->info->static_shared_bytes + dynamic + 1024;  // the runtime keeps 1 KiB of each
    const int whole = (threads + 31) / 32 * 32;
    *blocks = std::min({32, Card::kThreadsPerProcessor / whole,
                        Card::kRegisters / (Card::kRegistersPerThread * whole),
                        static_cast<int>(Card::kSharedPerProcessor / shared)});
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int threads,
                                                          size_t dynamic) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, dynamic,
                                                                cudaOccupancyDefault);
}
