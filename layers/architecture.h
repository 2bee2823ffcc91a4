// A network as data: what a model YAML says, after scaling, before any shape is known.
#pragma once
#include <string>
#include <vector>

#include "kernels/activation/activation.h"
#include "layers/config.h"

namespace gm {

enum class BlockType { mbconv, fused_mbconv };
enum class AttentionType { none, se, cbam };
/// The names in configurations.
const std::string& block_name(BlockType block);
const std::string& attention_name(AttentionType attention);

struct StageSpec {
  BlockType block = BlockType::mbconv;
  int expand = 1, kernel = 3, stride = 1, filters = 0, layers = 1;
  double se = 0;         // squeeze width as a share of the block's input channels; 0: no squeeze-excitation
  bool residual = true;  // the identity skip, in blocks that keep their input's shape
  bool operator==(const StageSpec&) const = default;
};

/// Attention on the last feature map, after the top activation and before pooling.
struct AttentionSpec {
  AttentionType type = AttentionType::none;
  int reduction = 8;  // the MLP goes C -> C / reduction -> C
  bool bias = true;   // of the MLP
  int kernel = 7;     // cbam: of the spatial convolution
  /// cbam: the authors' code puts the maximum before the average and a batch norm (epsilon 1e-5, momentum
  /// 0.99) after the spatial convolution; most Keras versions do neither.
  bool authors = false;
  bool operator==(const AttentionSpec&) const = default;
};

/// Optional dense layer between pooling and predictions.
struct HiddenSpec {
  int units = 0;  // 0: no such layer
  Act act = Act::relu;
  double l2 = 0;       // Keras kernel_regularizer: l2 * sum w^2 joins the loss
  double dropout = 0;  // after the activation
  bool operator==(const HiddenSpec&) const = default;
};

/// Everything that decides the function computed and its parameters. Sources: S1 section 2.2 and Keras
/// EfficientNetV2, S2 Table 2 and section 2.3.
struct Architecture {
  std::string name;
  int classes = 0;
  std::vector<std::string> class_names;
  Act act = Act::silu;
  double bn_momentum = 0.99, bn_epsilon = 1e-3;  // momentum in Keras's sense: share of the old value kept
  bool bn_unbiased = false;                      // running variance n/(n-1), as PyTorch has it
  bool same_padding = true;                      // TensorFlow SAME; false: symmetric (PyTorch)
  int stem_kernel = 3, stem_stride = 2, stem_filters = 32;
  std::vector<StageSpec> stages;
  int head_filters = 0;  // 1x1 convolution before pooling; 0: none
  AttentionSpec attention;
  HiddenSpec hidden;
  double dropout = 0, stochastic_depth = 0;               // dropout: after pooling
  std::vector<double> mean{0, 0, 0}, std{255, 255, 255};  // input scaling inside the model: (x - mean) / std
  int input_size = 0;
  bool operator==(const Architecture&) const = default;
};

/// Reads `model` and `input` of a configuration; widths and depths come out scaled and rounded.
/// `where` names the file in error messages.
Architecture read_architecture(const YAML::Node& config, const std::string& where);

/// The YAML text stored in weight files: read_architecture() of it gives the same network. Settings of what
/// it lacks (the reduction of no attention, the dropout of no hidden layer) are left out and read back as
/// defaults.
std::string architecture_yaml(const Architecture& a);

/// EfficientNet's rounding: nearest multiple of 8, with `guard` never below 90 % of the asked width. Keras's
/// EfficientNetV2 has no guard.
int round_filters(double filters, bool guard = true);
/// Depth is rounded up.
int round_layers(double layers);

}  // namespace gm
