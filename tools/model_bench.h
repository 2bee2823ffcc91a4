// Times one network end to end: a training step or a batch of inference, without data loading.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "engine/benchmark.h"
#include "layers/architecture.h"
#include "layers/rewrites.h"

namespace gm {

struct ModelBenchOptions {
  int64_t batch = 64;
  bool training = true;
  std::string precision = "f32";  // or bf16, or tf32, which DeviceOptions must ask for
  bool recompute = false;         // training: PlanOptions::recompute
  double seconds = 2;
  Fusions fusions = {};

  bool bf16() const { return precision == "bf16"; }
};

struct ModelTiming {
  Timing step;  // forward, backward and optimizer, or forward of the folded network; a CUDA graph on a card
  int64_t batch = 0;
  size_t bytes = 0;                                   // parameters, optimizer, activations, workspace
  std::vector<std::pair<std::string, double>> by_op;  // seconds per step by op and pass, slowest first
};

ModelTiming time_model(Device& device, const Architecture& a, const ModelBenchOptions& options);

}  // namespace gm
