// How other frameworks name the layers of an EfficientNet.
#pragma once
#include <set>

#include "layers/import.h"

namespace gm {

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
