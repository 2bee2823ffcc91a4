// Dense convolution in doubles: the oracle of every op with one inside.
#pragma once
#include "kernels/conv2d/conv2d.h"

namespace gm::ref {

/// Calls f(x index, w index, y index) for every product of the convolution that falls inside the image.
template <class F>
void conv_products(const ConvGeometry& g, F&& f) {
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t oy = 0; oy < g.oh; ++oy)
      for (int64_t ox = 0; ox < g.ow; ++ox)
        for (int64_t k = 0; k < g.k; ++k)
          for (int64_t r = 0; r < g.kernel; ++r)
            for (int64_t s = 0; s < g.kernel; ++s) {
              const int64_t iy = oy * g.stride - g.pad_top + r, ix = ox * g.stride - g.pad_left + s;
              if (iy < 0 || iy >= g.h || ix < 0 || ix >= g.w) continue;
              for (int64_t c = 0; c < g.c; ++c)
                f(((n * g.h + iy) * g.w + ix) * g.c + c, ((k * g.kernel + r) * g.kernel + s) * g.c + c,
                  ((n * g.oh + oy) * g.ow + ox) * g.k + k);
            }
}

}  // namespace gm::ref
