// How other frameworks name the layers of an EfficientNet.
#pragma once
#include <set>

#include "layers/import.h"

namespace gm {

/// Our axis of each of their axes; -1: an axis of length one that we do not have.
using AxisOrder = std::vector<int>;

/// One parameter in both worlds.
struct ForeignTensor {
  int parameter;  // index in the table
  /// Their names for it, the usual one first: writers use that, readers try all.
  std::vector<std::string> names;
  /// Their layouts, the usual one first.
  std::vector<AxisOrder> orders;
};
/// Every parameter of the network in `table`, in its order. Layers that a framework's own network does not
/// have (attention, hidden) keep our layer name.
std::vector<ForeignTensor> foreign_tensors(const Architecture& a, const ParameterTable& table, Framework f);

/// Whether Keras and torchvision build this network as MobileNetV2: MBConv with ReLU6.
bool is_mobilenet(const Architecture& a);

/// Whether it has the blocks of EfficientNet B0 to B7, the version before V2.
bool is_first_efficientnet(const Architecture& a);

/// Whether a parameter belongs to a layer behind the backbone, which weights may lack: attention and head.
bool may_be_missing(const std::string& parameter);

/// Keras numbers layers that were not given a name: conv2d, conv2d_1, ..., dense, dense_1. Where a file has
/// as many of a class as the network, or its backbone, has layers without a tensor of their own name, they
/// are the same layers in the same order, and get our names. Before that attention and head get the layers
/// that alone have their shapes, whatever their names, provided that no layer of the file is left without a
/// place. Returns our layers that were named.
std::set<std::string> name_by_order(TensorFile& source, const Architecture& a, const ParameterTable& table);

}  // namespace gm
