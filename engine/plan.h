// From a graph to a schedule and one arena: what runs when, where every tensor lies.
#pragma once
#include <vector>

#include "engine/graph.h"

namespace gm {

/// A tensor of one run: an activation, something saved for backward, or the gradient of an activation.
struct Slot {
  TensorSpec spec;
  int first = -1, last = -1;  // steps between which its memory must hold
  size_t offset = 0;
  int shares = -1;       // slot whose memory this one reuses in place
  bool outside = false;  // not in the arena but in a buffer of the session: the gradient of the loss
};

/// One kernel call. Slot indices; -1 where the tensor is a parameter, an input or absent (see node.in).
struct Step {
  int node;
  Pass pass;
  bool again = false;  // a forward step repeated for the backward steps that follow it
  std::vector<int> in, out, saved, dout, din;
  std::vector<GradMode> mode;  // of din, parallel to node.in
  size_t workspace = 0;
};

struct PlanOptions {
  bool training = false;
  Backend backend = Backend::cpu;
  ValueId loss = kAbsent;                   // training: the value whose gradient is one
  std::vector<ValueId> keep;                // values that stay readable after the run
  std::vector<ValueId> keep_gradient = {};  // values whose gradient stays readable (Grad-CAM)
  /// Training: activation checkpointing. Of a segment only what other segments read is kept from forward to
  /// backward; its forward steps are repeated before its backward steps (Chen et al. 2016, arXiv:1604.06174).
  /// The last segments are not repeated as far as that costs no memory. The results are the same bits.
  bool recompute = false;
  /// Training: backward adds to the gradients of the parameters instead of overwriting them.
  bool accumulate = false;
};

struct Plan {
  std::vector<Step> steps;    // forward in graph order, then backward in reverse, repeated steps in between
  size_t backward_begin = 0;  // index of the first backward step
  std::vector<Slot> slots;
  std::vector<int> value_slot;     // per graph value, as the forward pass writes it; -1 for parameters
  std::vector<int> gradient_slot;  // per graph value; -1 when it has no gradient in the arena
  size_t arena_bytes = 0;          // activations, saved tensors and activation gradients
  size_t workspace_bytes = 0;      // largest scratch of any step
};

/// Plans one graph. Graph inputs live in the arena too, for the whole run. Pure CPU code, no device needed.
Plan make_plan(const Graph& graph, const PlanOptions& options);
/// The last part of it (plan_place.cpp): offsets of all slots, by first fit, and the sizes of arena and
/// workspace.
void place_slots(Plan& plan, const Graph& graph);

}  // namespace gm
