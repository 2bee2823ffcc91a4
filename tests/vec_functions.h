// The register functions of the CPU kernels (kernels/common/vec_cpu.h) behind plain pointers, once for each
// instruction set: a register of one cannot be handed to code of another.
#pragma once
#include <cstdint>

#include "kernels/common/dtype.h"

namespace gm::test {

struct VecFunctions {
  int lanes;
  // Of one register: in and out have `lanes` elements, of parts n in memory.
  void (*narrow)(const float* in, bf16* out);
  void (*widen)(const bf16* in, float* out);
  void (*load_part)(const float* in, int n, float* out);
  void (*load_part_bf16)(const bf16* in, int n, float* out);
  void (*store_part)(const float* in, int n, float* out);
  void (*store_part_bf16)(const float* in, int n, bf16* out);
  void (*max)(const float* a, const float* b, float* out);
  void (*min)(const float* a, const float* b, float* out);
  void (*reciprocal)(const float* in, float* out);
  void (*sigmoid)(const float* in, float* out);
  void (*relu_slope)(const float* in, float* out);
  void (*relu6_slope)(const float* in, float* out);
  // Calls f(context, registers, part, first, count) for each strip of up to three registers.
  using Strip = void (*)(void* context, int registers, bool part, int64_t first, int count);
  void (*strips)(int64_t channels, Strip f, void* context);
};

}  // namespace gm::test
