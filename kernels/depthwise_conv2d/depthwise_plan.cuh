// Depthwise convolution on the GPU: the kernels of every op with one inside.
//
// Fast kernels (3x3 and 5x5, stride 1 and 2, C even): a thread owns 2 channels x 4 columns and marches down a
// band of rows with a window of rows in registers, so that every pixel is loaded once per strip: columns
// shared by neighbouring strips hit L1 (their threads sit in the same block), rows are never read twice. The
// window rotates by unrolling the march (slot = row mod K), so no register is ever moved. Channel pairs are
// the fastest thread index: a warp reads 64 neighbouring channels. Generic kernels: any kernel size and
// channel count, one pixel at a time.
#pragma once
#include "kernels/common/simt.h"
#include "kernels/depthwise_conv2d/depthwise_gpu.h"

namespace gm::GM_BACKEND_NS {

/// What kernels need of DepthwiseShape, in 32 bits, and how the work is cut into items: image x band of rows
/// x strip of columns.
struct DwPlan {
  int images, height, width, channels, out_height, out_width, kernel, stride, pad_top, pad_left;
  int columns;  // threads side by side
  int strips, bands, band_rows, items;

  DwPlan(const DepthwiseShape& d, int columns, int rows_total, int columns_total)
      : images(int(d.images)),
        height(int(d.height)),
        width(int(d.width)),
        channels(int(d.channels)),
        out_height(int(d.out_height)),
        out_width(int(d.out_width)),
        kernel(d.kernel),
        stride(d.stride),
        pad_top(d.pad_top),
        pad_left(d.pad_left),
        columns(columns),
        strips((columns_total + kDwTile - 1) / kDwTile) {
    // Bands only where images and strips do not fill a card: each band reads its halo rows again.
    const int64_t threads = int64_t{images} * strips * channels / kDwLanes;
    const int64_t wanted =
        std::clamp<int64_t>((1 << 17) / std::max<int64_t>(1, threads), 1, (rows_total + 7) / 8);
    band_rows = static_cast<int>((rows_total + wanted - 1) / wanted);
    bands = (rows_total + band_rows - 1) / band_rows;
    const int64_t n = int64_t{images} * bands * strips;
    GM_CHECK(n * kDwTile < (int64_t{1} << 31) && d.in_image() < (int64_t{1} << 31),
             "depthwise: tensor too large");
    items = static_cast<int>(n);
  }
};

/// Calls f(K, S) with constants when there is a fast kernel, else returns false.
template <class F>
bool dw_fast(const DepthwiseShape& d, F&& f) {
  if (d.channels % kDwLanes || d.stride > 2) return false;
  auto stride = [&](auto k) {
    if (d.stride == 1)
      f(k, std::integral_constant<int, 1>{});
    else
      f(k, std::integral_constant<int, 2>{});
    return true;
  };
  if (d.kernel == 3) return stride(std::integral_constant<int, 3>{});
  if (d.kernel == 5) return stride(std::integral_constant<int, 5>{});
  return false;
}

}  // namespace gm::GM_BACKEND_NS
