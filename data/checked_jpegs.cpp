#include "data/checked_jpegs.h"

#include <cstdio>
#include <cstdlib>

#include "data/image.h"
#include "kernels/common/error.h"

namespace gm {

bool CheckedJpegDecoder::decode(std::span<const uint8_t> file, int width, int height,
                                std::span<uint8_t> rgb) {
  if (verdict_ == Verdict::open) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (verdict_ == Verdict::open) return decode_first(file, width, height, rgb);
  }
  return verdict_ == Verdict::right && decoder_->decode(file, width, height, rgb);
}

bool CheckedJpegDecoder::decode_first(std::span<const uint8_t> file, int width, int height,
                                      std::span<uint8_t> rgb) {
  // A file that it does not take says nothing of those that it does.
  if (!decoder_->decode(file, width, height, rgb)) return false;
  Image expected;
  try {
    expected = decode_image(file.data(), file.size(), "");
  } catch (const Error&) {
    return false;  // the caller decodes it again and says what is wrong with it
  }
  if (expected.rgb.size() != rgb.size()) return false;
  double sum = 0;
  for (size_t i = 0; i < rgb.size(); ++i) sum += std::abs(rgb[i] - expected.rgb[i]);
  const double off = sum / static_cast<double>(rgb.size());
  verdict_ = off <= kMost ? Verdict::right : Verdict::wrong;
  if (verdict_ == Verdict::wrong)
    std::fprintf(stderr, "%s decodes a picture to other pixels (%.1f of 255 off in the mean); not used\n",
                 description().c_str(), off);
  return verdict_ == Verdict::right;
}

}  // namespace gm
