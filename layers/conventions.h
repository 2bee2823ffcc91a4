// What a network's weights need beside the layers to give their logits, noted in files for other frameworks.
#pragma once
#include <string>
#include <vector>

#include "layers/architecture.h"

namespace gm {

/// Where exported files keep it: metadata of safetensors, an attribute of HDF5. The frameworks pass it by.
inline constexpr const char* kConventions = "gm_conventions";

/// Padding, batch norm, input scaling and the names of the classes, as YAML in the form of a configuration.
std::string stored_conventions(const Architecture& a);

/// Writes what `stored` says into the architecture and returns the names of the classes, in the order of the
/// outputs; none where the network had none. They are left to the caller, who knows how many outputs the file
/// has. Throws gm::Error, beginning with `path`, for text that stored_conventions does not write.
std::vector<std::string> take_conventions(Architecture& a, const std::string& stored,
                                          const std::string& path);

}  // namespace gm
