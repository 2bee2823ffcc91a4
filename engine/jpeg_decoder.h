// JPEG files to pixels on a card, where it has a decoder for them. The processor's decoder is decode_image.
#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace gm {

class JpegDecoder {
 public:
  virtual ~JpegDecoder() = default;
  /// "nvJPEG 13.3 (decoding units)".
  virtual std::string description() const = 0;
  /// Fills rgb (height, width, 3) from a whole file, whose header gives that size. False: not a kind of file
  /// that this decoder takes, or it failed; what is in rgb then means nothing. Throws nothing. May be called
  /// by several threads at once.
  virtual bool decode(std::span<const uint8_t> file, int width, int height, std::span<uint8_t> rgb) = 0;
};

}  // namespace gm
