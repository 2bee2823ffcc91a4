// The maxima of a network, between the two sides of a check: pooling saves where each maximum lies, and
// backward sends the gradient there. Where two candidates differ by less than the rounding of the layers
// before, the two sides may take different ones. Both are right, but every gradient upstream of the pool then
// differs by far more than rounding does. So the sides' positions are compared on their own, and both go
// backward from the same ones.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/device.h"
#include "engine/graph.h"
#include "layers/model_check.h"

namespace gm {

/// One tensor of positions that a node saves for its backward pass.
struct MaximaPlace {
  int node;
  size_t saved;      // which of its saved tensors
  ValueId pooled;    // (N, H, W, C), the values whose maxima they are
  bool of_channels;  // positions (N, H, W) count channels; else (N, C), they count pixels
};
/// Every one in a graph: the saved tensors that hold integers.
std::vector<MaximaPlace> maxima_places(const Graph& graph);

/// What one side found at one place.
struct Maxima {
  std::vector<int32_t> at;
  std::vector<float> values;  // the pooled tensor
};

/// Whether every position is one of its tensor's, so that backward and compare_maxima may follow it.
bool lie_inside(const Graph& graph, const MaximaPlace& place, const std::vector<int32_t>& at);

/// `moved` counts the positions that differ; max and mean are of what the other side's value at our position
/// falls short of its maximum. relative: by how much our value at our position is less than our value at the
/// other's, over the largest of ours; infinite for a position of either side outside the tensor. So 0 says
/// that each of our positions is right by our own values, and anything else that it is not.
Difference compare_maxima(const Graph& graph, const MaximaPlace& place, const Maxima& ours,
                          const Maxima& theirs);

/// The maxima of one side's training step. The graph must outlive it, and so must the lists.
class MaximaExchange {
 public:
  /// found: receives this side's maxima, by place. given: those of the other side, from which backward
  /// starts; null for the side that runs first. compared: receives how the two differ.
  MaximaExchange(const Graph& graph, std::vector<Maxima>& found, const std::vector<Maxima>* given,
                 std::vector<Difference>& compared);

  /// After the forward pass: what was pooled.
  void take_values(const std::function<std::vector<float>(ValueId)>& read);
  /// Between the forward pass and backward, after take_values(): positions as the device saved them. Throws
  /// gm::Error, which begins with `side`, where the first side's lie outside their tensor.
  void exchange(Device& device, const std::function<View(const MaximaPlace&)>& saved,
                const std::string& side);

 private:
  const Graph& graph_;
  const std::vector<MaximaPlace> places_;
  std::vector<Maxima>& found_;
  const std::vector<Maxima>* given_;
  std::vector<Difference>& compared_;
};

}  // namespace gm
