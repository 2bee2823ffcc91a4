// Graph rewrites. Each keeps the function computed and can be left out: the unfused graph is the definition.
#pragma once
#include <functional>
#include <vector>

#include "engine/network_graph.h"

namespace gm {

/// Which fusions a rewrite makes. Leaving some out shows which one a difference or a slowdown comes from.
struct Fusions {
  bool batch_norm = true;  // convolution and batch norm: one node in training, folded weights in inference
  bool activation = true;  // the activation behind them
  bool pool = true;        // training: an average pool over their result (squeeze-and-excitation)
  bool residual = true;    // stochastic depth and residual add behind them
  bool attention = true;   // CBAM's channel_scale and spatial_pool: channel_scale_pool
  bool block = true;  // inference on a card: whole MBConv and Fused-MBConv blocks, where that is expected to
                      // be or is found to be faster
  bool gate = true;   // on a card: squeeze-and-excitation behind a depthwise convolution
  bool every_block = false;  // whole MBConv blocks wherever they fit, to find out what they cost

  static constexpr Fusions none() { return {false, false, false, false, false, false, false, false}; }
};

/// Training: convolution -> batch norm -> activation, then [-> global average pool] or [-> stochastic depth
/// -> residual add], become one conv_bn_act or depthwise_bn_act node (the latter without a residual); the
/// same behind a batch norm that follows no convolution becomes batch_norm_act; channel_scale -> spatial_pool
/// becomes channel_scale_pool. For a card (`backend` other than cpu) squeeze-and-excitation joins the
/// depthwise convolution before it: depthwise_bn_se. A fused node stands where its first part stood and has
/// that one's name. The ids of `g`'s inputs, loss and logits are updated.
NetworkGraph fuse_for_training(const NetworkGraph& g, const Fusions& fusions = {},
                               Backend backend = Backend::cpu);

/// How one folded convolution gets its weights: w' = w s and b' = beta - mean s with
/// s = gamma / sqrt(variance + epsilon).
struct Fold {
  int kernel, gamma, beta, mean, variance;  // parameters of the original table
  double epsilon;
  int folded_kernel, folded_bias;  // parameters of the folded table
};

/// The inference network with every batch norm folded into the convolution before it, activation and residual
/// add into the convolution's epilogue; channel_scale -> spatial_pool becomes channel_scale_pool. For a card
/// (`backend` other than cpu) MBConv blocks become mbconv nodes where that pays, Fused-MBConv blocks of at
/// most 64 channels in bf16 fused_mbconv nodes, and squeeze-and-excitation joins the depthwise convolution
/// before it: depthwise_se; the processor is faster without. Owns its parameter table; make weights for it
/// and call refresh() whenever the originals have changed.
struct FoldedNetwork {
  explicit FoldedNetwork(const NetworkGraph& inference_graph, const Fusions& fusions = {},
                         Backend backend = Backend::cpu);
  FoldedNetwork(const FoldedNetwork&) = delete;
  FoldedNetwork& operator=(const FoldedNetwork&) = delete;

  ParameterTable table;
  NetworkGraph net;
  std::vector<Fold> folds;
  std::vector<std::pair<int, int>> copies;  // (original, folded): parameters taken over unchanged

  /// Recomputes the folded weights on the host in double precision.
  void refresh(const ParameterTable& original, const Weights& from, Weights& to) const;
};

}  // namespace gm
