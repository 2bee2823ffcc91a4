// Architecture -> graph, for one batch size and mode.
#pragma once
#include <map>

#include "engine/network_graph.h"
#include "layers/architecture.h"
#include "layers/blocks.h"

namespace gm {

struct BuildOptions {
  int64_t batch = 1;
  int input_size = 0;        // 0: the architecture's own
  bool training = false;     // batch statistics, dropout, stochastic depth
  bool sampling = false;     // dropout behind the pooling in inference too (MC dropout)
  DType dtype = DType::f32;  // of activations
  double label_smoothing = 0;
  bool augmented = false;        // the input is what the op `augment` leaves: see NetworkGraph
  bool loss = true;              // append the loss and its labels input
  bool soft_labels = false;      // the labels input is f32 (N, classes)
  double mixup = 0, cutmix = 0;  // training: alpha of the op `mix`; 0: none
  bool class_weights = false;    // training: an input of the loss, see NetworkGraph
  FreezeSpec freeze = {};        // training: marks the parameters as frozen in the table
  /// Training: l2 * sum w^2 joins the loss for the kernels of the layers whose names start with a key (see
  /// layer_matches); the longest key decides. Keras's kernel_regularizer.
  std::map<std::string, double> l2 = {};
};

/// Builds the unfused network: normalize -> stem -> stages -> head -> [attention] -> pool -> dropout ->
/// [hidden dense layer] -> predictions (-> loss). Layer and weight names are those of Keras EfficientNetV2
/// ("block2a_expand_conv/kernel").
NetworkGraph build_network(const Architecture& a, ParameterTable& table, const BuildOptions& options);

}  // namespace gm
