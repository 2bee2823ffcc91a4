// Parameters, multiply-accumulates and the second paper's FLOPs of a network.
#pragma once
#include <string>
#include <vector>

#include "engine/graph.h"
#include "layers/architecture.h"

namespace gm {

struct LayerCount {
  std::string name, op;
  Shape output;        // without the batch dimension
  int64_t params = 0;  // trainable and states
  int64_t macs = 0;    // convolutions and dense layers, one image
  // S2 Eq. 13: (2 Ci K^2 - 1) H W Co; Eq. 14: (2 I - 1) O. Grouped convolutions have Ci = 1.
  int64_t flops_eq13 = 0;
};

struct NetworkCount {
  std::vector<LayerCount> layers;
  int64_t params_total = 0, params_trainable = 0;  // Keras's counts: total includes running statistics
  int64_t macs = 0, flops_eq13 = 0;
};

/// One row of S2 Table 2: a stage, the side of its square input in px, the channels it puts out.
struct StageRow {
  std::string op;
  int resolution = 0, channels = 0, layers = 0;
};
std::vector<StageRow> stage_rows(const Architecture& a);

/// Counts an unfused graph built for batch 1.
NetworkCount count_network(const Graph& graph);
/// Of one image at the architecture's own input size.
NetworkCount count_network(const Architecture& a);

}  // namespace gm
