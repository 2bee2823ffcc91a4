// The attributes that all convolutions share.
#pragma once
#include <array>

#include "kernels/conv2d/conv2d.h"

namespace gm {

/// pad: top, left, bottom, right.
inline Attrs conv_attrs(int64_t kernel, int64_t stride, const std::array<int, 4>& pad) {
  return {{"kernel", kernel},   {"stride", stride},     {"pad_top", pad[0]},
          {"pad_left", pad[1]}, {"pad_bottom", pad[2]}, {"pad_right", pad[3]}};
}
inline Attrs conv_attrs(const ConvGeometry& g) {
  return conv_attrs(g.kernel, g.stride,
                    {static_cast<int>(g.pad_top), static_cast<int>(g.pad_left),
                     static_cast<int>(g.pad_bottom), static_cast<int>(g.pad_right)});
}

}  // namespace gm
