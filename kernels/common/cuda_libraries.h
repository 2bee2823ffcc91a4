// cuDNN and cuBLASLt of one CUDA device: handles, one shared workspace and the plans made so far. Free of
// CUDA headers, so that host code may include it.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <unordered_map>

#include "kernels/common/plan_choice.h"

struct cudnnContext;
struct cublasLtContext;

namespace gm {

/// Something prepared once for a problem: a cuDNN execution plan, a cuBLASLt algorithm.
struct CudaPlan {
  virtual ~CudaPlan() = default;
};

struct CudaLibraries {
  int device = 0;
  cudnnContext* cudnn = nullptr;
  cublasLtContext* cublas = nullptr;
  /// Scratch of library calls. One is enough because a device runs everything on one stream.
  void* workspace = nullptr;
  size_t workspace_bytes = 0;
  /// f32 problems may use TF32 tensor cores (10-bit mantissas). Off: products are exact f32.
  bool tf32 = false;
  /// Plans by problem; a null plan is a problem the library could not serve, so that it is asked only once.
  std::unordered_map<std::string, std::unique_ptr<CudaPlan>> plans;
  /// Which candidates became plans, by the same keys. Of problems that it lacks, and with `timing`, the first
  /// candidates are timed and the fastest is added; without, the library's own first candidate is taken.
  PlanChoices choices;
  bool timing = false;
  /// What the choices hold for: "NVIDIA H100 PCIe, sm_90, 114 processors, cuDNN 9.19.0, cuBLASLt 13.1.0, own
  /// kernels 2".
  std::string origin;

  CudaLibraries() = default;
  CudaLibraries(const CudaLibraries&) = delete;
  CudaLibraries& operator=(const CudaLibraries&) = delete;
};
struct CudaLibrariesDeleter {
  void operator()(CudaLibraries* libraries) const noexcept;
};
using CudaLibrariesPtr = std::unique_ptr<CudaLibraries, CudaLibrariesDeleter>;

/// Opens the libraries on a device (CUDA ordinal) and allocates the workspace, 64 MiB. Throws gm::Error
/// naming the library and the reason when one is missing or too old; kernels run without libraries too, on
/// our own code (Context::libraries null).
CudaLibrariesPtr make_cuda_libraries(int device);

/// True while what is given to the stream is recorded instead of run. A library that refuses a call then may
/// well serve it outside: the capture is what has to be given up.
bool being_captured(void* stream);

}  // namespace gm
