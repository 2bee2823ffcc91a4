// Shapes and non-owning tensor views: the only form in which kernels see memory.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>

#include "kernels/common/ceil_div.h"
#include "kernels/common/dtype.h"
#include "kernels/common/error.h"

namespace gm {

/// Memory of a device, workspaces and what is cut from either begin at multiples of so many bytes.
constexpr size_t kMemoryAlign = 256;
constexpr size_t aligned_bytes(size_t bytes) { return round_up(bytes, kMemoryAlign); }
/// Cuts the next so many bytes from a workspace.
inline char* cut(char*& cursor, size_t bytes) { return std::exchange(cursor, cursor + bytes); }

/// Up to four dimensions, row-major. Images are (N, H, W, C), matrices (rows, columns), vectors (C).
struct Shape {
  std::array<int64_t, 4> dims{};
  int rank = 0;

  Shape() = default;
  Shape(std::initializer_list<int64_t> d) {
    GM_CHECK(d.size() <= 4, "a shape has at most four dimensions");
    for (int64_t v : d) dims[rank++] = v;
  }
  int64_t operator[](int i) const { return dims[i < 0 ? rank + i : i]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  /// Channels: the last, fastest dimension.
  int64_t channels() const { return dims[rank - 1]; }
  /// Everything but channels, flattened: N*H*W for an image.
  int64_t pixels() const { return rank == 0 ? 1 : numel() / channels(); }
  bool operator==(const Shape& o) const { return rank == o.rank && dims == o.dims; }
  std::string str() const {
    std::string s = "(";
    for (int i = 0; i < rank; ++i) s += (i ? "," : "") + std::to_string(dims[i]);
    return s + ")";
  }
};

struct TensorSpec {
  Shape shape;
  DType dtype = DType::f32;
  size_t bytes() const { return static_cast<size_t>(shape.numel()) * dtype_bytes(dtype); }
  std::string str() const { return std::string(dtype_name(dtype)) + shape.str(); }
};

/// Pointer + spec. A null pointer means "absent": an optional input, or a gradient nobody asked for.
struct View {
  void* data = nullptr;
  TensorSpec spec;

  explicit operator bool() const { return data != nullptr; }
  const Shape& shape() const { return spec.shape; }
  DType dtype() const { return spec.dtype; }
  int64_t numel() const { return spec.shape.numel(); }
  template <class T>
  T* as() const {
    GM_CHECK(data == nullptr || DTypeOf<T>::value == spec.dtype,
             "view read as the wrong type: " + spec.str());
    return static_cast<T*>(data);
  }
};

}  // namespace gm
