// Graph rewrites. Each keeps the function computed and can be left out: the unfused graph is the definition.
#pragma once
#include <functional>
#include <vector>

#include "engine/trainer.h"

namespace gm {

/// Training: convolution -> batch norm -> activation [-> global average pool] becomes one conv_bn_act or
/// depthwise_bn_act node; batch norm -> activation elsewhere becomes batch_norm_act; channel_scale ->
/// spatial_pool becomes channel_scale_pool. Values keep their meaning; the ids of `g`'s inputs, loss and
/// logits are updated.
TrainableGraph fuse_for_training(const TrainableGraph& g);

/// How one folded convolution gets its weights: w' = w * gamma / sqrt(var + eps), b' = beta - mean * gamma /
/// ...
struct Fold {
  int kernel, gamma, beta, mean, variance;  // parameters of the original table
  double epsilon;
  int folded_kernel, folded_bias;  // parameters of the folded table
};

/// The inference network with every batch norm folded into the convolution before it and the activation into
/// the convolution's epilogue; channel_scale -> spatial_pool becomes channel_scale_pool. Owns its parameter
/// table; make weights for it and call refresh() whenever the originals have changed.
struct FoldedNetwork {
  explicit FoldedNetwork(const TrainableGraph& inference_graph);
  FoldedNetwork(const FoldedNetwork&) = delete;
  FoldedNetwork& operator=(const FoldedNetwork&) = delete;

  ParameterTable table;
  TrainableGraph net;
  std::vector<Fold> folds;
  std::vector<std::pair<int, int>> copies;  // (original, folded): parameters taken over unchanged

  /// Recomputes the folded weights on the host in double precision.
  void refresh(const ParameterTable& original, const Weights& from, Weights& to) const;
};

}  // namespace gm
