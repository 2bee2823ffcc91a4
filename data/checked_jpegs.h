// A card's JPEG decoder that has to show first that it sees what the processor sees.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>

#include "engine/jpeg_decoder.h"

namespace gm {

/// Decoders round differently and place chroma samples differently, so pixels need not be equal. But the
/// first picture is decoded by both, and one that is off by more than kMost levels of 255 in the mean of its
/// samples has been decoded wrongly: then one line on standard error says so, and the processor decodes all.
class CheckedJpegDecoder : public JpegDecoder {
 public:
  static constexpr double kMost = 4;

  explicit CheckedJpegDecoder(std::unique_ptr<JpegDecoder> decoder) : decoder_(std::move(decoder)) {}
  std::string description() const override { return decoder_->description(); }
  bool decode(std::span<const uint8_t> file, int width, int height, std::span<uint8_t> rgb) override;

 private:
  enum class Verdict { open, right, wrong };
  /// Both decode the file; settles the verdict where both can.
  bool decode_first(std::span<const uint8_t> file, int width, int height, std::span<uint8_t> rgb);

  std::unique_ptr<JpegDecoder> decoder_;
  std::mutex mutex_;  // while the verdict is open, the others wait for it
  std::atomic<Verdict> verdict_ = Verdict::open;
};

}  // namespace gm
