#include "data/checked_jpegs.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "data/image.h"
#include "kernels/common/error.h"

namespace gm {

namespace {

/// False: the caller decodes it again and says what is wrong with it.
bool decode_on_processor(std::span<const uint8_t> file, std::span<uint8_t> rgb) {
  try {
    const Image image = decode_image(file.data(), file.size(), "");
    if (image.rgb.size() != rgb.size()) return false;
    std::copy(image.rgb.begin(), image.rgb.end(), rgb.begin());
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

bool CheckedJpegDecoder::decode(std::span<const uint8_t> file, int width, int height,
                                std::span<uint8_t> rgb) {
  if (stage_ == Stage::check) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stage_ == Stage::check) return decode_first(file, width, height, rgb);
  }
  const Stage stage = stage_;
  if (stage == Stage::processor) return false;
  if (stage == Stage::card) return decoder_->decode(file, width, height, rgb);
  const double start = clock_();
  const bool decoded = stage == Stage::time_processor ? decode_on_processor(file, rgb)
                                                      : decoder_->decode(file, width, height, rgb);
  if (decoded) count(stage, clock_() - start);
  return decoded;
}

bool CheckedJpegDecoder::decode_first(std::span<const uint8_t> file, int width, int height,
                                      std::span<uint8_t> rgb) {
  // A file that it does not take says nothing of those that it does.
  if (!decoder_->decode(file, width, height, rgb)) return false;
  std::vector<uint8_t> expected(rgb.size());
  if (!decode_on_processor(file, expected)) return false;
  double sum = 0;
  for (size_t i = 0; i < rgb.size(); ++i) sum += std::abs(rgb[i] - expected[i]);
  const double off = sum / static_cast<double>(rgb.size());
  const bool right = off <= kMost;
  stage_ = !right ? Stage::processor : clock_ ? Stage::warm_up : Stage::card;
  if (!right)
    std::fprintf(stderr, "%s decodes a picture to other pixels (%.1f of 255 off in the mean); not used\n",
                 description().c_str(), off);
  return right;
}

void CheckedJpegDecoder::count(Stage stage, double seconds) {
  std::lock_guard<std::mutex> lock(mutex_);
  // It began in an earlier stage, and those counted so far ran beside it.
  if (stage != stage_) return seconds_.clear();
  seconds_.push_back(seconds);
  if (seconds_.size() < kTimed) return;
  const auto middle = seconds_.begin() + kTimed / 2;
  std::nth_element(seconds_.begin(), middle, seconds_.end());
  const double median = *middle;
  seconds_.clear();
  if (stage == Stage::warm_up) {
    stage_ = Stage::time_card;
  } else if (stage == Stage::time_card) {
    card_seconds_ = median;
    stage_ = Stage::time_processor;
  } else {
    const bool slower = card_seconds_ > median;
    stage_ = slower ? Stage::processor : Stage::card;
    if (slower && !quiet_)
      std::fprintf(stderr, "JPEG files: the processor from here on, %.1f ms a picture; %s takes %.1f ms\n",
                   1e3 * median, description().c_str(), 1e3 * card_seconds_);
  }
}

}  // namespace gm
