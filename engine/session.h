// Runs a planned graph on a device. Owns the arena; the parameters belong to Weights and may be shared.
#pragma once
#include <string>
#include <vector>

#include "engine/plan.h"

namespace gm {

class Session {
 public:
  /// `weights` and `device` must outlive the session. seed: key of dropout masks (training).
  /// lender: a session that never runs at the same time and outlives this one. Its memory is used when it is
  /// large enough; a run of either leaves nothing readable of the other.
  Session(Device& device, const Graph& graph, Weights& weights, PlanOptions options, uint64_t seed = 0,
          const Session* lender = nullptr);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Graph& graph() const { return graph_; }
  const Plan& plan() const { return plan_; }
  /// Memory of its own: arena, workspace and what repeated steps need.
  size_t bytes() const { return own_arena_.bytes() + own_workspace_.bytes() + state_copy_.bytes(); }

  /// Memory of a graph input, or of a value in PlanOptions::keep after forward().
  View value(ValueId id) const;
  /// After backward(): gradient of an input that wants one, or of a value in PlanOptions::keep_gradient. That
  /// of the loss is where backward() starts; it holds ones until it is overwritten.
  View gradient(ValueId id) const;
  /// Between forward() and backward(): a tensor that a node of the graph saved for its backward pass.
  View saved(int node, size_t index) const;
  void upload(ValueId id, const void* host);
  std::vector<float> download(ValueId id) const;  // f32 or bf16 values as floats

  void forward() { run(0, plan_.backward_begin); }
  void backward() { run(plan_.backward_begin, plan_.steps.size()); }
  /// Steps [begin, end) of the plan: for profiling; forward() and backward() are the two halves.
  void run(size_t begin, size_t end);
  /// Dropout and stochastic depth draw from (seed, step): set before forward().
  void set_step(uint64_t step);
  /// The same from memory of the device that somebody else keeps current; holds until it is called again.
  void use_step(const StepState* step) { step_source_ = step; }

 private:
  View slot_view(int slot) const;
  View operand(ValueId id, int slot) const;

  Device& device_;
  Graph graph_;
  Weights& weights_;
  PlanOptions options_;
  Plan plan_;
  Buffer own_arena_, own_workspace_;
  const Buffer *arena_ = &own_arena_, *workspace_ = &own_workspace_;  // or the lender's
  Buffer step_, loss_gradient_;
  // Running statistics as they were before the forward pass: repeated steps read these, and what they write
  // is lost, so that every step counts once.
  Buffer state_copy_;
  uint64_t seed_;
  const StepState* step_source_ = nullptr;  // null: step_
  // Views are fixed once memory is placed, so every call is prepared once.
  struct Prepared {
    OpKernel kernel;
    const Node* node;
    std::vector<View> in, out, saved, state, dout;
    std::vector<GradView> din;
  };
  std::vector<Prepared> prepared_;
};

/// Host copy of a device tensor as floats.
std::vector<float> to_host(Device& device, const View& view);

}  // namespace gm
