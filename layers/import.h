// Weights of other frameworks: their names, their layouts and the conventions that come with them.
#pragma once
#include <string>
#include <vector>

#include "engine/safetensors.h"
#include "layers/network.h"

namespace gm {

/// keras: "block1a_project_conv/kernel", convolutions HWIO; timm, torchvision: names of the PyTorch modules,
/// OIHW.
enum class Framework { keras, timm, torchvision };
Framework framework_named(const std::string& name);

/// timm's model that a configuration is taken for when nobody says: by its blocks, and where timm has both by
/// its padding, e.g. "tf_efficientnetv2_s".
std::string timm_model_of(const Architecture& a);

/// Writes the source's own conventions into the architecture: padding, batch-norm epsilon, momentum and
/// variance, input scaling. keras: SAME, 1e-3; the configuration's scaling stays, unless the weights hold one
/// (import_weights). torchvision: symmetric, 1e-3 (networks without Fused-MBConv: 1e-5), ImageNet mean and
/// deviation. timm: `variant` is a timm model name, with or without its tag; "" means timm_model_of. tf_*:
/// SAME, 1e-3; others: symmetric, 1e-5; mean and deviation 127.5 or ImageNet's, as timm has it. Throws
/// gm::Error for a name of none of timm's EfficientNets or MobileNetV2s.
void adopt_conventions(Architecture& a, Framework from, const std::string& variant = "");
/// Padding, batch norm and input scaling in one line, for people.
std::string conventions_text(const Architecture& a);

struct Imported {
  TensorFile tensors;               // our names and layouts
  std::vector<std::string> fresh;   // parameters the file lacks, freshly initialised
  std::vector<std::string> unused;  // tensors of the file that have no place in the network
};
/// Sets a.classes from the file's classifier where there is one (and drops class names that no longer fit)
/// and reads every parameter. Layers of the head and the attention may be missing when `allow_missing_head`;
/// they start from `seed`. Throws gm::Error naming file and tensor for a missing tensor or a wrong shape.
Imported import_weights(TensorFile source, Framework from, Architecture& a, bool allow_missing_head,
                        uint64_t seed = 0);

/// The inverse: a model of ours under the names and in the layouts of a framework. Tensors only; no metadata.
TensorFile export_weights(const TensorFile& model, const Architecture& a, Framework to);

struct OrderedTensors {
  TensorFile file;
  std::vector<std::string> order;  // their names, in the order of the network
};
/// The same for Keras's load_weights, which passes by what has another name and, without by_name, wants all
/// there is. EfficientNet B0 to B7 therefore have Keras's names of the depthwise layers, and the layer with
/// the input scaling, which V2 and MobileNetV2 lack.
OrderedTensors export_keras_weights(const TensorFile& model, const Architecture& a);

/// Whether a parameter belongs to the classifier: predictions and the hidden layer before them.
bool is_head(const std::string& parameter);

}  // namespace gm
