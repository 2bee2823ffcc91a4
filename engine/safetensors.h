// The safetensors file format: u64 little-endian header length, JSON header, raw row-major data.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "kernels/common/view.h"

namespace gm {

struct StoredTensor {
  TensorSpec spec;  // f32, bf16, i32 or u8; f16 and f64 files are widened or narrowed to f32 on reading
  std::vector<char> bytes;  // row-major
  std::vector<float> floats() const;
  static StoredTensor of(const Shape& shape, const std::vector<float>& values);
};

struct TensorFile {
  std::map<std::string, StoredTensor> tensors;
  std::map<std::string, std::string> metadata;

  /// Throws gm::Error naming the file and the tensor when it is absent.
  const StoredTensor& at(const std::string& name) const;
  std::string path;  // for error messages
};

/// Throws gm::Error (one line, naming the file) when the file is missing, truncated or not safetensors.
TensorFile read_safetensors(const std::string& path);
/// Writes to a temporary name in the same folder, syncs and renames: a crash leaves the old file.
void write_safetensors(const std::string& path, const TensorFile& file);

}  // namespace gm
