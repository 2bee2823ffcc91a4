// What a kernel is given besides its tensors: where it runs and the few numbers that change from step to
// step.
#pragma once
#include <cstdint>

namespace gm {

class ThreadPool;
struct CudaLibraries;

enum class Backend : uint8_t { ref, cpu, simt, cuda };
constexpr int kBackends = 4;
constexpr const char* backend_name(Backend b) {
  switch (b) {
    case Backend::ref:
      return "ref";
    case Backend::cpu:
      return "cpu";
    case Backend::simt:
      return "simt";
    case Backend::cuda:
      return "cuda";
  }
  return "?";
}

/// Lives in device memory so that a captured CUDA graph replays with new values.
struct StepState {
  uint64_t seed;
  uint64_t step;  // counts training batches from 0, also where several make an update; part of every draw
};

struct Context {
  Backend backend = Backend::ref;
  ThreadPool* pool = nullptr;          // cpu: never null
  void* stream = nullptr;              // cuda: cudaStream_t
  CudaLibraries* libraries = nullptr;  // cuda: cuDNN and cuBLASLt handles with their plan caches; else null
  bool deterministic = true;           // choose only engines that give the same bits twice
  const StepState* step = nullptr;     // device pointer; null: nothing is dropped or mixed
  int sm_count = 0;                    // cuda, simt: multiprocessors assumed when sizing grids
};

}  // namespace gm
