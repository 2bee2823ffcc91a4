#include "tools/pictures/augmented_picture.h"

#include <algorithm>

#include "kernels/common/ceil_div.h"
#include "tools/pictures/canvas.h"

namespace gm {

Image augmented_image(const Transform& transform, const Image& image, uint64_t seed, uint32_t epoch,
                      uint32_t row) {
  const int size = transform.config().size;
  std::vector<float> pixels(static_cast<size_t>(size) * size * 3);
  transform.apply(image, seed, epoch, row, pixels.data());
  Image out{size, size, std::vector<uint8_t>(pixels.size())};
  std::transform(pixels.begin(), pixels.end(), out.rgb.begin(),
                 [](float v) { return static_cast<uint8_t>(std::clamp(v + 0.5f, 0.0f, 255.0f)); });
  return out;
}

Image augmented_sheet(const Transform& training, ImageCache& images, std::span<const int64_t> rows,
                      uint64_t seed, uint32_t epoch) {
  constexpr int kColumns = 8, kMostPixels = 128, kGap = 2;
  const int side = std::min(training.config().size, kMostPixels), step = side + kGap,
            count = static_cast<int>(rows.size()), columns = std::min(kColumns, count);
  Canvas sheet(columns * step - kGap, ceil_div(count, kColumns) * step - kGap, {255, 255, 255});
  for (int i = 0; i < count; ++i) {
    const Image seen =
        augmented_image(training, *images.read(rows[i]), seed, epoch, static_cast<uint32_t>(rows[i]));
    sheet.paste(i % kColumns * step, i / kColumns * step,
                side == seen.width ? seen : resize_image(seen, side));
  }
  return sheet.image();
}

}  // namespace gm
