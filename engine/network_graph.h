// A network as a graph, with the values that are fed and read, in training and in inference.
#pragma once
#include "engine/graph.h"
#include "engine/plan.h"

namespace gm {

/// Built by layers/ for a batch size and a mode. What a network is built without is kAbsent: loss and correct
/// of one that only infers.
struct NetworkGraph {
  Graph graph;
  ValueId pixels = kAbsent;  // f32 (N, H, W, 3), 0..255
  Attrs augment;             // not empty: pixels are what the op `augment` with these attributes leaves
  ValueId labels = kAbsent;  // i32 (N), or soft labels: f32 (N, classes)
  ValueId class_weights = kAbsent;  // f32 (classes), optional: weights of the loss
  ValueId loss = kAbsent;           // f32 (1)
  ValueId correct = kAbsent;        // f32 (1)
  ValueId logits = kAbsent;         // (N, classes)
};

/// How a trainer plans its two graphs. recompute, accumulate: see PlanOptions.
PlanOptions training_options(const NetworkGraph& g, bool recompute, bool accumulate = false);
PlanOptions evaluation_options(const NetworkGraph& g);

}  // namespace gm
