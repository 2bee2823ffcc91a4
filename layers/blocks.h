// The building blocks of both papers' networks as graph fragments.
#pragma once
#include <string>
#include <vector>

#include "engine/graph.h"
#include "layers/architecture.h"

namespace gm {

/// Whether a layer, or a parameter of one, is among those that a prefix names: "stem", "block1" (not
/// block10), "block6a_se". The empty prefix names none.
bool layer_matches(const std::string& prefix, const std::string& name);

/// What fine-tuning leaves as it is. Frozen layers get no gradient; their batch norms, and with `batch_norm`
/// all batch norms, normalise with the running statistics, which then stay too (as trainable = False does in
/// Keras).
struct FreezeSpec {
  std::vector<std::string> layers;  // prefixes: see layer_matches
  bool batch_norm = false;

  /// `name`: of a layer or a parameter.
  bool holds(const std::string& name) const;
};

/// Appends layers to a graph with the conventions of one architecture.
class Blocks {
 public:
  Blocks(Graph& graph, const Architecture& a, bool training, FreezeSpec freeze = {})
      : g_(graph), a_(a), training_(training), freeze_(std::move(freeze)) {}

  /// k x k convolution without bias. x (N,H,W,C) -> (N,ceil(H/stride),ceil(W/stride),filters)
  ValueId conv(ValueId x, const std::string& name, int64_t filters, int kernel, int stride);
  ValueId conv(ValueId x, const std::string& name, int64_t filters, int kernel, int stride,
               const Initializer& init);
  /// k x k depthwise convolution without bias. x (N,H,W,C) -> (N,ceil(H/stride),ceil(W/stride),C)
  ValueId depthwise(ValueId x, const std::string& name, int kernel, int stride);
  ValueId batch_norm(ValueId x, const std::string& name);
  ValueId batch_norm(ValueId x, const std::string& name, double epsilon, double momentum);
  ValueId activation(ValueId x, Act act, const std::string& name);
  /// x (N,C) -> (N,units)
  ValueId dense(ValueId x, const std::string& name, int64_t units);
  ValueId dense(ValueId x, const std::string& name, int64_t units, const Initializer& init, bool bias = true);
  /// x itself in inference, unless in_inference: then all samples have one mask.
  ValueId dropout(ValueId x, double rate, bool per_sample, const std::string& name,
                  bool in_inference = false);
  /// Squeeze-and-excitation: x * sigmoid(W2 act(W1 mean_hw(x) + b1) + b2), act that of the network,
  /// W1: C -> squeeze
  ValueId squeeze_excite(ValueId x, const std::string& prefix, int64_t squeeze, bool bias = true);
  /// CBAM: channel attention, then spatial attention on its result (Woo et al. 2018).
  ///   F'  = x  * sigmoid(MLP(mean_hw x) + MLP(max_hw x))        MLP: C -> C / reduction, ReLU, -> C, shared
  ///   F'' = F' * sigmoid(conv_kxk([mean_c F', max_c F']))       authors: [max, mean] and a batch norm
  ValueId cbam(ValueId x, const std::string& prefix, const AttentionSpec& spec);
  /// The attention an architecture asks for, or x itself.
  ValueId attention(ValueId x, const AttentionSpec& spec);

  /// MBConv: [1x1 expand, BN, act] -> depthwise, BN, act -> [SE] -> 1x1 project, BN -> [drop, add].
  ValueId mbconv(ValueId x, const std::string& prefix, const StageSpec& s, int stride, double drop);
  /// Fused-MBConv: [k x k expand, BN, act] -> 1x1 project, BN -> [drop, add]; with expand 1 one k x k
  /// convolution, BN, act.
  ValueId fused_mbconv(ValueId x, const std::string& prefix, const StageSpec& s, int stride, double drop);

 private:
  Attrs conv_attrs(ValueId x, int kernel, int stride) const;
  // Two nodes with the same layer name share its weights.
  ValueId linear(ValueId x, const std::string& layer, const std::string& node, int64_t units,
                 const Initializer& init, bool bias);
  ValueId residual(ValueId x, ValueId branch, const std::string& prefix, double drop);

  Graph& g_;
  const Architecture& a_;
  bool training_;
  FreezeSpec freeze_;
  int streams_ = 0;  // numbers the dropout nodes, so that their masks differ
};

}  // namespace gm
