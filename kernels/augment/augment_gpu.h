// Memory that the CUDA kernels of augment need between sampling and colour.
#pragma once
#include <cstddef>

#include "kernels/common/attrs.h"
#include "kernels/common/ceil_div.h"
#include "kernels/common/view.h"

namespace gm {

constexpr int kAugmentTile = 16;  // a block samples 16 x 16 output pixels
constexpr int64_t augment_tiles(int64_t size) {
  const int64_t side = ceil_div(size, kAugmentTile);
  return side * side;
}

/// Bytes before the sampled pixels: one sum per image and tile.
constexpr size_t augment_sums_bytes(int64_t images, int64_t size) {
  return aligned_bytes(static_cast<size_t>(images * augment_tiles(size)) * sizeof(float));
}

/// Sums, then f32 pixels; those are the output itself when it is f32. Without colour nothing.
inline size_t augment_workspace(const Attrs& attrs, int64_t images) {
  if (!attrs.geti("colour", 1)) return 0;
  const int64_t size = attrs.geti("size");
  const size_t pixels =
      attrs.geti("bf16", 0) ? static_cast<size_t>(images * size * size) * 3 * sizeof(float) : 0;
  return augment_sums_bytes(images, size) + pixels;
}

}  // namespace gm
