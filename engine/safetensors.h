// The safetensors file format: u64 little-endian header length, JSON header, raw row-major data.
#pragma once
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernels/common/view.h"

namespace gm {

struct StoredTensor {
  TensorSpec spec;          // f32, bf16, i32 or u8; on reading f16 and f64 become f32, i64 i32
  std::vector<char> bytes;  // row-major
  std::vector<float> floats() const;
  static StoredTensor of(const Shape& shape, const std::vector<float>& values);
};

/// The shape that a file gives a tensor. Throws gm::Error beginning with `where`, which names both, for more
/// than four dimensions and for more than 2^33 elements.
Shape stored_shape(const std::vector<uint64_t>& dims, const std::string& where);

struct TensorFile {
  std::map<std::string, StoredTensor> tensors;
  std::map<std::string, std::string> metadata;

  /// Throws gm::Error naming the file and the tensor when it is absent.
  const StoredTensor& at(const std::string& name) const;
  std::string path;  // for error messages
};

/// A number as metadata: the double that Metadata::number reads is the same one, so that a resumed run is
/// bit-exact.
std::string exact_text(double value);

/// A file's metadata, as text and as numbers. Throws gm::Error for a value that is absent or no such number:
/// "PATH: PURPOSE: 'KEY' is missing". The values must outlive it.
class Metadata {
 public:
  Metadata(const std::string& path, const std::map<std::string, std::string>& values,
           const std::string& purpose)
      : begin_(path + ": " + purpose + ": '"), values_(values) {}
  const std::string& text(const std::string& key) const;
  int64_t integer(const std::string& key, int64_t least = 0) const;
  double number(const std::string& key) const;  // finite
  /// As many numbers, with spaces between them.
  std::vector<double> numbers(const std::string& key, size_t count) const;

 private:
  std::string begin_;  // of every message
  const std::map<std::string, std::string>& values_;
};

/// A file whose tensors are read one by one, when asked for.
class TensorReader {
 public:
  /// Throws gm::Error (one line, naming the file) when the file is missing, truncated or not safetensors.
  explicit TensorReader(const std::string& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::vector<std::string> names() const;
  bool has(const std::string& name) const { return entries_.contains(name); }
  /// These throw gm::Error naming the file and the tensor when it is absent; read() also when its type is not
  /// known or its size does not fit its shape.
  const Shape& shape(const std::string& name) const { return entry(name).shape; }
  StoredTensor read(const std::string& name);

 private:
  struct Entry {
    std::string type;
    Shape shape;
    uint64_t begin, end;  // bytes of the file
  };
  const Entry& entry(const std::string& name) const;

  std::string path_;
  std::ifstream in_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, Entry> entries_;
};

/// The whole file; errors as TensorReader's.
TensorFile read_safetensors(const std::string& path);
/// Writes to a temporary name in the same folder, syncs and renames: a crash leaves the old file.
void write_safetensors(const std::string& path, const TensorFile& file);

/// A tensor that lies elsewhere, on a device say: read(to, offset, bytes) fetches a piece of its row-major
/// bytes when that is written, so that no second copy of a network is made.
struct TensorSource {
  TensorSpec spec;
  std::function<void(char* to, size_t offset, size_t bytes)> read;
};
void write_safetensors(const std::string& path, const std::map<std::string, std::string>& metadata,
                       const std::map<std::string, TensorSource>& tensors);

}  // namespace gm
