#include "engine/safetensors.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/atomic_file.h"

namespace gm {

namespace {

using json = nlohmann::ordered_json;

constexpr uint64_t kMaxHeader = 100u << 20;  // the format's own limit
constexpr size_t kPiece = 4u << 20;          // tensors are written in pieces of this size
constexpr uint64_t kMostElements = uint64_t{1} << 33;

const char* format_name(DType t) {
  switch (t) {
    case DType::f32:
      return "F32";
    case DType::bf16:
      return "BF16";
    case DType::i32:
      return "I32";
    case DType::u8:
      return "U8";
    case DType::f64:
      return "F64";
  }
  return "?";
}

float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16;
  const int exponent = (h >> 10) & 31;
  const uint32_t mantissa = h & 1023;
  float value = exponent == 31  ? (mantissa ? NAN : INFINITY)
                : exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  return sign ? -value : value;
}

bool read_number(const std::string& s, double& v) {
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), v);
  return error == std::errc() && end == s.data() + s.size() && std::isfinite(v);
}

// Narrows the float types this engine does not keep.
StoredTensor decode(const std::string& type, const Shape& shape, std::vector<char> bytes,
                    const std::string& where) {
  const size_t n = static_cast<size_t>(shape.numel());
  const char* data = bytes.data();
  auto expect = [&](size_t element) {
    if (bytes.size() != n * element)
      fail(where + ": " + std::to_string(bytes.size()) + " bytes do not fit shape " + shape.str());
  };
  if (type == "F64" || type == "F16") {
    expect(type == "F64" ? 8 : 2);
    std::vector<float> values(n);
    for (size_t i = 0; i < n; ++i) {
      if (type == "F64") {
        double d;
        std::memcpy(&d, data + 8 * i, 8);
        values[i] = static_cast<float>(d);
      } else {
        uint16_t h;
        std::memcpy(&h, data + 2 * i, 2);
        values[i] = half_to_float(h);
      }
    }
    return StoredTensor::of(shape, values);
  }
  if (type == "I64") {  // PyTorch's num_batches_tracked and the like
    expect(8);
    StoredTensor t{{shape, DType::i32}, std::vector<char>(n * 4)};
    for (size_t i = 0; i < n; ++i) {
      int64_t v;
      std::memcpy(&v, data + 8 * i, 8);
      const int32_t w = static_cast<int32_t>(v);
      std::memcpy(t.bytes.data() + 4 * i, &w, 4);
    }
    return t;
  }
  for (const DType kept : {DType::f32, DType::bf16, DType::i32, DType::u8}) {
    if (type != format_name(kept)) continue;
    expect(dtype_bytes(kept));
    return {{shape, kept}, std::move(bytes)};
  }
  fail(where + ": unsupported type " + type);
}

}  // namespace

Shape stored_shape(const std::vector<uint64_t>& dims, const std::string& where) {
  if (dims.size() > 4) fail(where + ": more than four dimensions");
  Shape shape;
  uint64_t elements = 1;  // of the dimensions that are not 0: no order of multiplying them overflows
  for (uint64_t d : dims) {
    if (d > kMostElements / elements) fail(where + ": its shape has too many elements");
    elements *= std::max<uint64_t>(d, 1);
    shape.dims[shape.rank++] = static_cast<int64_t>(d);
  }
  return shape;
}

std::vector<float> StoredTensor::floats() const {
  std::vector<float> v(spec.shape.numel());
  if (spec.dtype == DType::f32) {
    if (!v.empty()) std::memcpy(v.data(), bytes.data(), bytes.size());  // it wants a place even for nothing
  } else if (spec.dtype == DType::bf16) {
    for (size_t i = 0; i < v.size(); ++i) {
      bf16 b;
      std::memcpy(&b, bytes.data() + 2 * i, 2);
      v[i] = to_float(b);
    }
  } else {
    fail("tensor of type " + std::string(dtype_name(spec.dtype)) + " read as floats");
  }
  return v;
}

StoredTensor StoredTensor::of(const Shape& shape, const std::vector<float>& values) {
  StoredTensor t;
  t.spec = {shape, DType::f32};
  const auto* first = reinterpret_cast<const char*>(values.data());
  t.bytes.assign(first, first + values.size() * sizeof(float));
  return t;
}

std::string exact_text(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

const std::string& Metadata::text(const std::string& key) const {
  auto it = values_.find(key);
  if (it == values_.end()) fail(begin_ + key + "' is missing");
  return it->second;
}

int64_t Metadata::integer(const std::string& key, int64_t least) const {
  const std::string& s = text(key);
  int64_t v = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), v);
  if (error != std::errc() || end != s.data() + s.size() || v < least)
    fail(begin_ + key + "' is '" + s + "', not a whole number of at least " + std::to_string(least));
  return v;
}

double Metadata::number(const std::string& key) const {
  double v = 0;
  if (!read_number(text(key), v)) fail(begin_ + key + "' is '" + text(key) + "', not a number");
  return v;
}

std::vector<double> Metadata::numbers(const std::string& key, size_t count) const {
  std::istringstream words(text(key));
  std::vector<double> values;
  double v = 0;
  for (std::string word; words >> word; values.push_back(v))
    if (!read_number(word, v)) fail(begin_ + key + "' has '" + word + "', not a number");
  if (values.size() != count)
    fail(begin_ + key + "' has " + std::to_string(values.size()) + " numbers, not " + std::to_string(count));
  return values;
}

const StoredTensor& TensorFile::at(const std::string& name) const {
  auto it = tensors.find(name);
  if (it == tensors.end()) fail(path + ": tensor '" + name + "' is missing");
  return it->second;
}

TensorReader::TensorReader(const std::string& path)
    : path_(path), in_(path, std::ios::binary | std::ios::ate) {
  if (!in_) fail(path + ": cannot open: " + std::strerror(errno));
  const uint64_t size = static_cast<uint64_t>(in_.tellg());
  in_.seekg(0);
  uint64_t header_bytes = 0;
  if (size < 8 || !in_.read(reinterpret_cast<char*>(&header_bytes), 8) || header_bytes > kMaxHeader)
    fail(path + ": not a safetensors file");
  if (header_bytes + 8 > size) fail(path + ": truncated: the header ends past the end of the file");
  std::string header(header_bytes, '\0');
  if (!in_.read(header.data(), static_cast<std::streamsize>(header_bytes))) fail(path + ": cannot read");
  const json root = json::parse(header, nullptr, false);
  if (root.is_discarded() || !root.is_object()) fail(path + ": not a safetensors file");
  try {
    for (const auto& [name, item] : root.items()) {
      if (name == "__metadata__") {
        for (const auto& [k, v] : item.items()) metadata_[k] = v.get<std::string>();
        continue;
      }
      const std::string where = path + ": tensor '" + name + "'";
      const auto offsets = item.at("data_offsets").get<std::vector<uint64_t>>();
      const auto dims = item.at("shape").get<std::vector<uint64_t>>();
      if (offsets.size() != 2 || offsets[0] > offsets[1]) fail(where + ": bad offsets");
      const uint64_t data = 8 + header_bytes;
      if (offsets[1] > size - data) fail(where + ": truncated: the file ends before its data");
      entries_[name] = {item.at("dtype").get<std::string>(), stored_shape(dims, where), data + offsets[0],
                        data + offsets[1]};
    }
  } catch (const json::exception&) {
    fail(path + ": malformed safetensors header");
  }
  std::vector<const decltype(entries_)::value_type*> placed;
  for (const auto& item : entries_)
    if (item.second.begin < item.second.end) placed.push_back(&item);
  std::stable_sort(placed.begin(), placed.end(),
                   [](auto a, auto b) { return a->second.begin < b->second.begin; });
  for (size_t i = 1; i < placed.size(); ++i)
    if (placed[i]->second.begin < placed[i - 1]->second.end)
      fail(path + ": tensors '" + placed[i - 1]->first + "' and '" + placed[i]->first +
           "' have bytes in common");
}

const TensorReader::Entry& TensorReader::entry(const std::string& name) const {
  auto it = entries_.find(name);
  if (it == entries_.end()) fail(path_ + ": tensor '" + name + "' is missing");
  return it->second;
}

std::vector<std::string> TensorReader::names() const {
  std::vector<std::string> all;
  for (const auto& [name, e] : entries_) all.push_back(name);
  return all;
}

StoredTensor TensorReader::read(const std::string& name) {
  const Entry& e = entry(name);
  const std::string where = path_ + ": tensor '" + name + "'";
  std::vector<char> bytes(e.end - e.begin);
  in_.seekg(static_cast<std::streamoff>(e.begin));
  if (!in_.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) fail(where + ": cannot read");
  return decode(e.type, e.shape, std::move(bytes), where);
}

TensorFile read_safetensors(const std::string& path) {
  TensorReader reader(path);
  TensorFile file;
  file.path = path;
  file.metadata = reader.metadata();
  for (const std::string& name : reader.names()) file.tensors[name] = reader.read(name);
  return file;
}

void write_safetensors(const std::string& path, const std::map<std::string, std::string>& metadata,
                       const std::map<std::string, TensorSource>& tensors) {
  json root = json::object();
  if (!metadata.empty()) root["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const auto& [name, t] : tensors) {
    std::vector<int64_t> dims(t.spec.shape.dims.begin(), t.spec.shape.dims.begin() + t.spec.shape.rank);
    root[name] = {{"dtype", format_name(t.spec.dtype)},
                  {"shape", dims},
                  {"data_offsets", {offset, offset + t.spec.bytes()}}};
    offset += t.spec.bytes();
  }
  std::string header = root.dump();
  header.append((8 - header.size() % 8) % 8, ' ');  // data starts 8-byte aligned
  write_file_atomic(path, [&](const FileSink& write) {
    const uint64_t header_bytes = header.size();
    write(&header_bytes, 8);
    write(header.data(), header.size());
    std::vector<char> piece;
    for (const auto& [name, t] : tensors)
      for (size_t at = 0; at < t.spec.bytes(); at += piece.size()) {
        piece.resize(std::min(t.spec.bytes() - at, kPiece));
        t.read(piece.data(), at, piece.size());
        write(piece.data(), piece.size());
      }
  });
}

void write_safetensors(const std::string& path, const TensorFile& file) {
  std::map<std::string, TensorSource> sources;
  for (const auto& [name, t] : file.tensors)
    sources[name] = {t.spec, [from = t.bytes.data()](char* to, size_t offset, size_t bytes) {
                       std::memcpy(to, from + offset, bytes);
                     }};
  write_safetensors(path, file.metadata, sources);
}

}  // namespace gm
